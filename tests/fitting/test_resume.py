"""A batch that was stopped goes on with the same bits; a checkpoint of another batch is refused."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from problems import START, TIMES, N, decay_data

import jaxsci as js
from jaxsci.fitting import _shared
from jaxsci.parallel import Kept, fingerprint


def members() -> list:
    data = [js.Dataset(TIMES, jnp.asarray(decay_data(seed)), js.White(0.05)) for seed in range(21)]
    short = [js.Dataset(d.inputs[:9], d.observed[:9], js.White(0.05)) for d in data[:5]]
    return [*data, *short]


class Stopped(Exception):
    """Stands for Ctrl-C at some moment."""


def same_bits(a: js.BatchSolution, b: js.BatchSolution) -> None:
    for x, y in zip(jax.tree.leaves(a.groups), jax.tree.leaves(b.groups), strict=True):
        np.testing.assert_array_equal(x, y)


@pytest.fixture(scope="module")
def whole() -> js.BatchSolution:
    return js.fit_batch(START, members(), batch_size=8)


@pytest.mark.parametrize("stop", [1, 2, 3])
def test_stopped_and_resumed(whole, tmp_path, stop):
    path = tmp_path / "batch.jaxsci"
    calls = []

    def interrupt(done: int, total: int) -> None:
        calls.append(done)
        if len(calls) > stop:
            raise Stopped

    with pytest.raises(Stopped):
        js.fit_batch(START, members(), batch_size=8, checkpoint=path, progress=interrupt)
    counts = []
    resumed = js.fit_batch(
        START, members(), batch_size=8, checkpoint=path, progress=lambda done, total: counts.append(done)
    )
    same_bits(resumed, whole)
    assert counts[0] > 0 or stop == 1  # it did not begin again
    assert counts[-1] == len(members())
    same_bits(js.fit_batch(START, members(), batch_size=8, checkpoint=path), whole)


def test_a_finished_checkpoint_runs_no_step_again(whole, tmp_path, monkeypatch):
    path = tmp_path / "batch.jaxsci"
    js.fit_batch(START, members(), batch_size=8, checkpoint=path)
    steps = []
    from jaxsci.fitting import _rounds

    compiled = _rounds.compiled
    monkeypatch.setattr(_rounds, "compiled", lambda *args: (steps.append(args[1][-1].max_steps), compiled(*args))[1])
    same_bits(js.fit_batch(START, members(), batch_size=8, checkpoint=path), whole)
    assert set(steps) == {0}


def test_refusals(tmp_path):
    path = tmp_path / "batch.jaxsci"
    js.fit_batch(START, members()[:8], batch_size=8, checkpoint=path)
    other = members()[8:16]
    with pytest.raises(ValueError, match="was written for other data"):
        js.fit_batch(START, other, batch_size=8, checkpoint=path)
    before = path.read_bytes()
    js.fit_batch(START, other, batch_size=8, checkpoint=path, resume=False)
    assert path.read_bytes() != before
    damaged = bytearray(before)
    damaged[-7] ^= 1
    path.with_name("batch.jaxsci.previous").unlink(missing_ok=True)
    path.write_bytes(bytes(damaged))
    with pytest.raises(ValueError, match="is damaged"):
        js.fit_batch(START, members()[:8], batch_size=8, checkpoint=path)
    path.unlink()
    js.fit_batch(START, members()[:8], batch_size=8, checkpoint=path)
    for what, changed in (
        ("models", {"models": eqx.tree_at(lambda m: m.tau, START, 1.1)}),
        ("settings", {"loss": js.Huber(1.0)}),
    ):
        given = {"models": START, "datasets": members()[:8], "batch_size": 8, "checkpoint": path, **changed}
        with pytest.raises(ValueError, match=f"was written for other {what}:"):
            js.fit_batch(**given)
    with pytest.raises(ValueError, match="there is no folder"):
        js.fit_batch(START, other, checkpoint=tmp_path / "nowhere" / "x")
    with pytest.raises(ValueError, match="a checkpoint needs TRF"):
        js.fit_batch(START, other, solver=js.Adam(), checkpoint=path)


def test_a_joint_fit_stopped_and_resumed(tmp_path, monkeypatch):
    path, data = tmp_path / "joint.jaxsci", members()[:6]
    in_one_piece = js.fit_batch(START, data, shared="tau")
    monkeypatch.setattr(_shared, "_STEPS", 3)
    whole = js.fit_batch(START, data, shared="tau")
    assert int(whole.shared.num_steps) == int(in_one_piece.shared.num_steps) > 6
    np.testing.assert_allclose(whole.shared.y, in_one_piece.shared.y, rtol=1e-13)
    compiled = _shared.compiled
    for stop, steps in ((1, 3), (0, 3), (1, 6)):
        calls = []

        def interrupted(*args, calls=calls, stop=stop):
            calls.append(args)
            if len(calls) > stop:
                raise Stopped
            return compiled(*args)

        with monkeypatch.context() as patch:
            patch.setattr(_shared, "compiled", interrupted)
            with pytest.raises(Stopped):
                js.fit_batch(START, data, shared="tau", checkpoint=path)
        assert Kept.read(path).states["shared"][-1] == steps  # it went on, and did not begin again
    resumed = js.fit_batch(START, data, shared="tau", checkpoint=path)
    same_bits(resumed, whole)
    for x, y in zip(jax.tree.leaves(resumed.shared), jax.tree.leaves(whole.shared), strict=True):
        np.testing.assert_array_equal(x, y)
    with pytest.raises(ValueError, match="written for other settings"):
        js.fit_batch(START, data, shared="amp", checkpoint=path)


def test_every_choice_is_in_the_fingerprint():
    tree = ({"x": np.arange(3.0)}, 200, "TRF()")
    prints = {
        fingerprint(t)
        for t in (
            tree,
            ({"x": np.arange(3)}, 200, "TRF()"),
            ({"y": np.arange(3.0)}, 200, "TRF()"),
            ({"x": np.arange(3.0)}, 201, "TRF()"),
            ({"x": np.arange(3.0)}, 200, "TRF(rtol=1e-3)"),
        )
    }
    assert len(prints) == 5
    assert fingerprint(tree) == fingerprint(({"x": np.arange(3.0)}, 200, "TRF()"))


def test_a_mesh_of_the_one_device_changes_no_bit(whole):
    mesh = jax.make_mesh((1,), ("lanes",), axis_types=(jax.sharding.AxisType.Auto,), devices=jax.devices()[:1])
    same_bits(js.fit_batch(START, members(), batch_size=8, mesh=mesh), whole)
    assert N > 9
