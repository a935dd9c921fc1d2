"""A run that was killed goes on with --resume to the same files; what is in the way is named, and nothing is lost."""

import errno
import json
import os

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from written import TWO_NIST

import jaxsci as js
from jaxsci.curvefit._task import run
from jaxsci.parallel import Kept, Lock
from jaxsci.runs import CANNOT_WRITE, _progress
from jaxsci.runs._plain import Plain, UnkeptError


class KilledError(Exception):
    """Stands for a signal that no program sees."""


@pytest.fixture
def fitted(folder, monkeypatch):
    """A working folder with a config whose fits are written at once; the names of what is fitted; who is to die."""
    (folder / "nist.toml").write_text(TWO_NIST)
    monkeypatch.setattr(_progress, "EVERY", 0.0)
    monkeypatch.setattr(run.os, "cpu_count", lambda: 1)
    monkeypatch.setattr("jaxsci.runs._figures.can_draw", lambda: False)
    fit_like, deadly, names = run._fit_like, set(), []

    def fit(members, *rest):
        names.extend(member.name for member in members)
        if deadly & {member.name for member in members}:
            raise KilledError
        return fit_like(members, *rest)

    monkeypatch.setattr(run, "_fit_like", fit)
    return names, deadly


def written(out):
    """All that a run wrote, but for times and what is hidden."""
    document = json.loads((out / "results.json").read_text())
    del document["created"], document["seconds"]
    skipped = {"results.json", "report.html", "log.txt", ".lock"}
    files = {p.relative_to(out): p.read_bytes() for p in out.rglob("*") if p.is_file() and p.name not in skipped}
    return document, files


def test_a_killed_run_goes_on_to_the_same_files(folder, command, fitted):
    names, deadly = fitted
    words = ("run", "nist.toml", "--out")
    assert command(*words, "whole").exit_code == 0
    deadly.add("box")
    with pytest.raises(KilledError):
        command(*words, "out")
    assert not (folder / "out" / "results.json").exists()
    assert len(Kept.read(folder / "out" / "progress.jsci").states) == 1
    (folder / "out" / "solutions").mkdir()
    (folder / "out" / "solutions" / "box.eqx.77.tmp").write_bytes(b"half")
    deadly.clear()

    refused = command(*words, "out")
    assert refused.exit_code == 2
    assert "out holds a run that was stopped after 2 results: --resume goes on with it" in refused.stderr
    changed = command(*words, "out", "--resume", "--set", "fit.max_steps=77")
    assert changed.exit_code == 2
    assert "progress.jsci was written for other config and data: give another place, or start over by" in changed.stderr

    names.clear()
    again = command(*words, "out", "--resume")
    assert again.exit_code == 0, again.output
    assert names == ["box"]
    assert "going on: 2 fits of 3 were done before" in (folder / "out" / "log.txt").read_text()
    document, files = written(folder / "out")
    assert (document, files) == written(folder / "whole")
    names = {"results.csv", "DanWood-start-1.eqx", "DanWood-start-2.eqx", "box.eqx"}
    assert {path.name for path in files} == names


def test_a_run_killed_while_it_writes_goes_on_without_a_fit(folder, command, fitted, monkeypatch):
    names, _ = fitted
    with monkeypatch.context() as patch:
        patch.setattr("jaxsci.runs._run.write_report", lambda *words: (_ for _ in ()).throw(KilledError))
        with pytest.raises(KilledError):
            command("run", "nist.toml", "--out", "out")
    names.clear()
    done = command("run", "nist.toml", "--out", "out", "--resume")
    assert (done.exit_code, names) == (0, [])
    assert "3 of 3 fits converged" in done.stdout
    assert not (folder / "out" / "progress.jsci").exists()
    # and where nothing was begun, it begins
    assert command("run", "nist.toml", "--out", "new", "--resume").exit_code == 0
    assert "say where the run was stopped: --out DIR" in command("run", "nist.toml", "--resume").stderr


def test_what_is_in_the_way_is_named(folder, command, fitted):
    _, deadly = fitted
    words = ("run", "fit.toml", "--import", "my_models.py", "--out", "out")
    own = TWO_NIST.replace("bundled:nist/BoxBOD.dat", "decay.csv").replace("nist.BoxBOD", "Decay")
    (folder / "fit.toml").write_text(own.replace("b1 = 100.0, b2 = 0.75", "amp = 1.0, tau = 1.0"))
    deadly.add("box")
    with pytest.raises(KilledError):
        command(*words)

    def refusal():
        done = command(*words, "--resume")
        assert done.exit_code == 2
        return done.stderr

    with Lock(folder / "out" / ".lock", "out"):
        assert f"--out: out is in use by process {os.getpid()} on" in refusal()
    for name, what in (("decay.csv", "data"), ("my_models.py", "data and imported files")):
        before = (folder / name).read_text()
        (folder / name).write_text(before.replace("0.05\n", "0.06\n", 1).replace("+ self.base", "- self.base"))
        assert f"was written for other {what}: give another place" in refusal()
        (folder / name).write_text(before)
    path = folder / "out" / "progress.jsci"
    path.write_bytes(path.read_bytes()[:-3])
    assert (
        "progress.jsci is damaged: its content is not as it was written, and there is none before it: start"
        in refusal()
    )


def test_bad_input_leaves_nothing_in_the_way(folder, command, fitted):
    (folder / "nist.toml").write_text(TWO_NIST.replace("b1 = 100.0", "b1 = 'a text'"))
    assert command("run", "nist.toml", "--out", "out").exit_code == 2
    (folder / "nist.toml").write_text(TWO_NIST)
    assert command("run", "nist.toml", "--out", "out").exit_code == 0


def test_a_full_disk_has_an_exit_code_and_leaves_what_was_there(folder, command, fitted, monkeypatch):
    words = ("run", "nist.toml", "--out", "out")
    assert command(*words).exit_code == 0
    before = written(folder / "out")

    def full(*args):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        done = command(*words)
    assert done.exit_code == CANNOT_WRITE == 4
    assert "cannot be written: No space left on device" in done.stderr
    assert "free some space, and run again" in done.stderr
    assert written(folder / "out") == before


class Law(eqx.Module):
    rate: jax.Array
    kind: str = eqx.field(static=True, default="decay")


@pytest.mark.parametrize(
    "value",
    [
        (None, True, 3, -0.0, float("inf"), "µ", [1, (2,)], {"a": 1.5, "b": {}}),
        (np.arange(3, dtype=">i2"), np.float32(2.5), jnp.ones((2, 0)), jax.random.key(4), np.dtype("<f4")),
        (Law(jnp.arange(3.0)), js.TRF(), js.RESULTS.stalled, Kept({}, {}, {}, {}), jnp.tanh, np.sin, Law),
    ],
    ids=["plain", "arrays", "classes"],
)
def test_values_are_read_as_they_were(value):
    found = Plain([]).unpacked(Plain([]).packed(value))
    assert eqx.tree_equal(found, value) is True or bool(eqx.tree_equal(found, value))
    assert [type(x) for x in found] == [type(x) for x in value]
    assert str(found[3]) == str(value[3])


def test_members_stand_for_themselves_and_what_has_no_name_is_not_kept():
    members = [object(), object()]
    assert Plain(members).unpacked(Plain(members).packed([members[1]]))[0] is members[1]
    for value in (lambda x: x, object(), np.array([None]), type("Local", (), {})):
        with pytest.raises(UnkeptError):
            Plain([]).packed(value)


def test_reading_makes_plain_classes_alone():
    def text(node):
        return [np.frombuffer(json.dumps(node).encode(), np.uint8)]

    inside = "jaxsci.runs._plain:"
    for node in ({"class": f"{inside}Plain", "items": []}, {"class": f"{inside}_name", "items": []}, {"what": 1}):
        with pytest.raises(ValueError, match=r"no such class|no class of plain fields|nothing is known"):
            Plain([]).unpacked(text(node))
    with pytest.raises(ValueError, match="there is no antigravity:it"):
        Plain([]).unpacked(text({"name": "antigravity:it"}))


@pytest.mark.parametrize(
    "name",
    [
        "os:system",
        "builtins:eval",
        "jaxsci.runs._plain:sys",
        "jaxsci.runs._plain:json.loads",
        "subprocess:Popen",
        "no:x",
    ],
)
def test_nothing_but_what_the_library_defines_is_found_by_name(name):
    """A file in a run's folder that was tampered with cannot bring in what was not there."""
    text = np.frombuffer(json.dumps({"name": name}).encode(), np.uint8)
    with pytest.raises(ValueError, match="there is no"):
        Plain([]).unpacked([text])
