"""States of a job in progress: kept, found again in their form, and never taken for those of another job."""

import functools
import importlib
import os
import re
import socket
import subprocess
import sys

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxsci as js
from jaxsci.parallel import Checkpoint, InUseError, Kept, _checkpoint, fingerprint, made_here, write_framed

STATE = {"at": np.arange(6.0).reshape(2, 3), "key": jax.random.key(3), "done": np.array([True, False])}
BLANK = {"at": np.zeros((2, 3)), "key": jax.random.key(0), "done": np.zeros(2, bool)}


def same(a, b) -> None:
    np.testing.assert_array_equal(a["at"], b["at"])
    np.testing.assert_array_equal(a["done"], b["done"])
    np.testing.assert_array_equal(jax.random.key_data(a["key"]), jax.random.key_data(b["key"]))


def test_a_state_comes_back_in_its_form(tmp_path):
    with Checkpoint(tmp_path / "x", {"job": 1}) as kept:
        assert kept.state("a/b", BLANK) is BLANK
        kept.keep("a/b", STATE)
        kept.keep("other", [jnp.ones(2)])
    again = Checkpoint(tmp_path / "x", {"job": 1})
    found = again.state("a/b", BLANK)
    same(found, STATE)
    assert jax.random.uniform(found["key"]) == jax.random.uniform(STATE["key"])
    np.testing.assert_array_equal(again.state("other", [0])[0], [1, 1])
    assert again.state("third", 7) == 7


def test_what_was_kept_last_is_written_when_the_block_is_left_by_an_error(tmp_path):
    def stopped():
        with Checkpoint(tmp_path / "x", {"job": 1}) as kept:
            kept.keep("a", [np.array(1)])
            assert not (tmp_path / "x").exists()  # written every so often only
            kept.keep("a", [np.array(2)])
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stopped()
    assert Kept.read(tmp_path / "x").states["a"][0] == 2


def test_each_time_on_demand_with_what_a_reader_should_know(tmp_path):
    kept = Checkpoint(tmp_path / "x", {"job": 1}, every=0, about={"unit": "uK"})
    kept.keep("a", [np.array(1)])
    assert Kept.read(tmp_path / "x").about == {"unit": "uK"}


def test_the_progress_of_another_job_is_refused_and_what_is_other_is_named(tmp_path):
    job = {"data": np.arange(3.0), "settings": (1, "a")}
    with Checkpoint(tmp_path / "x", job) as kept:
        kept.keep("a", [np.array(1)])
    other = {"data": np.arange(3.0) + 1e-15, "settings": (1, "a")}
    with pytest.raises(ValueError, match="was written for other data: give another place"):
        Checkpoint(tmp_path / "x", other)
    with pytest.raises(ValueError, match="was written for other data and settings"):
        Checkpoint(tmp_path / "x", {"data": np.arange(4.0), "settings": (2, "a")})
    with Checkpoint(tmp_path / "x", other, resume=False) as kept:
        assert kept.state("a", None) is None
    with pytest.raises(ValueError, match="there is no folder"):
        Checkpoint(tmp_path / "nowhere" / "x", other)


@pytest.mark.parametrize("name", ["jaxsci", "jax", "jaxlib", "device"])
def test_other_versions_are_refused_with_both_named(tmp_path, monkeypatch, name):
    with Checkpoint(tmp_path / "x", {}) as kept:
        kept.keep("a", [np.array(1)])
    here = made_here()
    monkeypatch.setattr(_checkpoint, "made_here", lambda: {**here, name: "9.9"})
    with pytest.raises(ValueError, match=re.escape(f"was written with {name} {here[name]} (here 9.9)")):
        Checkpoint(tmp_path / "x", {})
    monkeypatch.setattr(_checkpoint, "made_here", lambda: {**here, "processor": "abacus"})
    with pytest.warns(UserWarning, match="this is abacus: the last bits may differ"):
        assert Checkpoint(tmp_path / "x", {}).state("a", [0]) == [1]


def two_generations(path, job=None):
    """A checkpoint that holds 2, beside the one before it, which holds 1."""
    with Checkpoint(path, job or {}, every=0) as kept:
        kept.keep("a", [np.array(1)])
        kept.keep("a", [np.array(2)])


def test_of_a_damaged_file_the_one_before_it_is_used_and_named(tmp_path):
    path, older = tmp_path / "x", tmp_path / "x.previous"
    two_generations(path)
    good = path.read_bytes()
    for damaged in (good[:-5], good[:9], b"", bytes([*good[:-1], good[-1] ^ 1]), good + b"junk"):
        path.write_bytes(damaged)
        with pytest.warns(UserWarning, match=rf"{path} is .*going on from the one before it, {older}"):
            kept = Checkpoint(path, {}, every=0)
        with kept:
            assert kept.state("a", [0]) == [1]
            kept.keep("a", [np.array(3)])  # in the place of the damaged one: the good one before it stays
        assert (Kept.read(older).states["a"], Kept.read(path).states["a"]) == ([1], [3])
    path.unlink()  # as if killed between two renames: nothing is damaged
    with Checkpoint(path, {}) as kept:
        assert kept.state("a", [0]) == [1]
    path.write_bytes(good[:-5])
    older.write_bytes(good[:-6])
    with pytest.raises(ValueError, match=r"is damaged.*so is the one before it.*start over with resume=False"):
        Checkpoint(path, {})
    older.unlink()
    with pytest.raises(ValueError, match=r"is damaged.*there is none before it: start over with resume=False"):
        Checkpoint(path, {})


def test_starting_over_keeps_nothing_of_before(tmp_path):
    two_generations(tmp_path / "x")
    with Checkpoint(tmp_path / "x", {}, resume=False) as kept:
        kept.keep("b", [np.array(7)])
    assert not (tmp_path / "x.previous").exists()
    assert list(Kept.read(tmp_path / "x").states) == ["b"]


def test_one_process_at_a_time(tmp_path):
    two_generations(tmp_path / "x")
    with Checkpoint(tmp_path / "x", {}) as first:
        pattern = f"x is in use by process {os.getpid()} on {socket.gethostname()} since"
        for resume in (True, False):
            with pytest.raises(InUseError, match=pattern):
                Checkpoint(tmp_path / "x", {}, resume)
        first.keep("a", [np.array(5)])
    assert Checkpoint(tmp_path / "x", {}).state("a", [0]) == [5]


def test_a_refused_checkpoint_holds_no_lock(tmp_path):
    two_generations(tmp_path / "x")
    with pytest.raises(ValueError, match="other job") as refused:
        Checkpoint(tmp_path / "x", {"job": 2})
    Checkpoint(tmp_path / "x", {})
    del refused


KILLED = """
import os, sys, numpy as np
from jaxsci.parallel import Checkpoint
kept = Checkpoint(sys.argv[1], {}, every=0)
kept.keep("a", [np.arange(1000.0)])
def die(*args): os.kill(os.getpid(), 9)
os.fsync = die  # half-way through the next write
kept.keep("a", [np.arange(1000.0) + 1])
"""


def test_a_killed_process_leaves_its_last_state_and_nothing_in_the_way(tmp_path):
    path = tmp_path / "x"
    done = subprocess.run([sys.executable, "-c", KILLED, path], timeout=120, check=False)
    assert done.returncode == -9
    assert len(list(tmp_path.glob("x.*.tmp"))) == 1
    (tmp_path / "xy.1.tmp").write_bytes(b"of another file")
    with Checkpoint(path, {}) as kept:
        np.testing.assert_array_equal(kept.state("a", [0])[0], np.arange(1000.0))
        assert [p.name for p in tmp_path.glob("*.tmp")] == ["xy.1.tmp"]


def test_what_is_kept_does_not_change_with_the_callers_array(tmp_path):
    state = np.arange(3)
    with Checkpoint(tmp_path / "x", {}) as kept:
        kept.keep("a", [state])
        state[0] = 99
    assert Kept.read(tmp_path / "x").states["a"][0].tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((0, 3)),
        np.array(3),
        np.ones((2, 2), bool),
        np.asarray(jnp.ones(3, jnp.bfloat16)),
        np.arange(3, dtype=">u2"),
    ],
    ids=lambda x: f"{x.dtype}{x.shape}",
)
def test_every_kind_of_array(tmp_path, array):
    with Checkpoint(tmp_path / "x", {}) as kept:
        kept.keep("a", [array, np.array(1.0)])
    found = Kept.read(tmp_path / "x").states["a"][0]
    assert (found.dtype, found.shape, found.tobytes()) == (array.dtype, array.shape, array.tobytes())
    assert found.flags.writeable


def test_a_header_that_asks_for_more_than_there_is_takes_no_room(tmp_path):
    header = {"kind": "Checkpoint", "belongs": {}, "made": {}, "about": {}}
    for word, shape in (("<f8", [10**15]), ("<f8", [-1]), ("|O", [1]), ("<f8", [0]), ("nonsense", [1])):
        write_framed(tmp_path / "x", bytes(8), {**header, "states": {"a": [[word, shape]]}})
        with pytest.raises(ValueError, match="x is damaged"):
            Kept.read(tmp_path / "x")
    write_framed(tmp_path / "x", b"", {"kind": "Solution"})
    with pytest.raises(ValueError, match="no checkpoint"):
        Kept.read(tmp_path / "x")
    with pytest.raises(ValueError, match="no regular file"):
        Kept.read("/dev/zero")


class Line(js.AbstractModel):
    slope: js.Scalar = js.param()
    order: int = eqx.field(static=True, default=1)

    def __call__(self, x):
        return self.slope * x


class Other(Line):
    pass


def twice(k):
    return lambda x: k * x


TREES = [
    *(Line(1.0), Line(2.0), Line(1.0, 2), Other(1.0), Line, Other),
    *(twice(1), twice(2), jnp.tanh, jnp.sin, jax.nn.relu, functools.partial(max, 1), functools.partial(max, 2)),
    *(None, 1, 1.0, "1", True, (1,), [1], {"a": 1}, {"b": 1}, jnp.dtype("int8")),
    *(np.float32(1), jnp.ones(1), jnp.ones((1, 1)), jax.random.key(1), jax.random.key(2)),
]


def test_a_digest_tells_classes_static_fields_and_functions_apart():
    assert len({fingerprint(tree) for tree in TREES}) == len(TREES)
    assert [fingerprint(tree) for tree in TREES] == [fingerprint(tree) for tree in TREES]


OWN = """
import jaxsci as js
class Own(js.AbstractModel):
    k: js.Scalar = js.param()
    def __call__(self, x):
        return {}
"""


def test_a_digest_sees_the_source_of_a_users_class(tmp_path, monkeypatch):
    def digest(name, formula):
        (tmp_path / f"{name}.py").write_text(OWN.format(formula))
        return fingerprint(importlib.import_module(name).Own(1.0))

    monkeypatch.syspath_prepend(tmp_path)
    assert digest("one", "self.k * x") == digest("two", "self.k * x") != digest("three", "self.k + x")


def test_a_digest_is_another_processs_too():
    words = "(js.TRF(), jax.nn.relu, jnp.tanh, js.White(jnp.ones((), 'float32')), {'a': None})"
    names = "import jax, jax.numpy as jnp, jaxsci as js; from jaxsci.parallel import fingerprint"
    program = f"{names}; print(fingerprint({words}))"
    there = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=True)
    here = fingerprint((js.TRF(), jax.nn.relu, jnp.tanh, js.White(jnp.ones((), "float32")), {"a": None}))
    assert there.stdout.split() == [here]
