"""The loop: a result does not depend on chunks, devices, precision of the cut or a resumption; bad input is named."""

import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import close, same_bits
from jax.extend.random import threefry_2x32

from jaxsci.evolution import (
    SDE,
    AbstractStart,
    AbstractSummary,
    Draw,
    Ensemble,
    EulerMaruyama,
    Interaction,
    Moments,
    Snapshots,
    Words,
    checkpointed_scan,
    evolve,
    normals,
    threefry,
    uniforms,
)

SDE_ = SDE(lambda t, x: -x, 0.7)
TS = np.linspace(0, 1, 13)
KEPT = {"x": Snapshots(), "m": Moments()}


def start(n=50):
    return Ensemble(np.random.default_rng(1).normal(size=n), np.arange(n) % 3, key=1)


class Uniform(AbstractStart):
    def sample(self, key, ids):
        return uniforms(key, ids, 0, jnp.float64)[:, None]


class TestRandomness:
    def test_twenty_rounds_are_jax_own(self):
        key, ids = jnp.array([3, 9], jnp.uint32), jnp.arange(6, dtype=jnp.uint32)
        found = threefry(key, Words(ids, ids + jnp.uint32(7)))
        same_bits(jnp.concatenate(found), threefry_2x32(key, jnp.concatenate([ids, ids + jnp.uint32(7)])))

    @pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
    @pytest.mark.parametrize("rounds", [13, 20])
    def test_normals_are_normal_and_independent(self, dtype, rounds):
        key, ids = jnp.array([3, 9], jnp.uint32), jnp.arange(20_000, dtype=jnp.uint32)
        z = np.asarray(normals(key, ids[:, None], jnp.arange(4, dtype=jnp.uint32), dtype, rounds), float)
        assert np.isfinite(z).all()
        n = z.shape[0]
        for power, exact, variance in ((1, 0, 1), (2, 1, 2), (3, 0, 15), (4, 3, 96)):
            assert np.all(np.abs((z**power).mean(0) - exact) < 4.5 * np.sqrt(variance / n))
        assert np.all(np.abs(np.corrcoef(z.T) - np.eye(4)) < 4.5 / np.sqrt(n))  # draws of one particle
        assert abs(np.mean(z[1:, 0] * z[:-1, 0])) < 4.5 / np.sqrt(n)  # neighbours
        from scipy import stats

        assert stats.kstest(z[:, 0], "norm").pvalue > 1e-4

    def test_no_two_particles_have_the_same_path(self):
        """The same Brownian path for all would be a fault that moments hardly tell."""
        found = evolve(SDE(lambda t, x: 0 * x, 1.0), Ensemble(jnp.zeros(200), key=2), TS, save=KEPT)
        steps = np.diff(np.asarray(found["x"].positions)[:, :, 0], axis=0) / np.sqrt(TS[1])
        gram = np.corrcoef(steps.T)
        off = gram[np.triu_indices(200, 1)]
        assert abs(off.mean()) < 4 / np.sqrt(12 * off.size)
        assert abs(off.std() * np.sqrt(11) - 1) < 0.05


def test_a_step_uses_the_numbers_that_are_published():
    """(key, particle, 64 x step + axis) is what others have to draw for the same paths."""
    start, ts = Ensemble(jnp.zeros((5, 2)), key=3, first=7), np.linspace(0, 0.5, 3)
    found = evolve(SDE(lambda t, x: 0 * x, 1.0), start, ts).ensemble
    ids = jnp.arange(7, 12, dtype=jnp.uint32)[:, None]
    steps = [normals(start.key, ids, jnp.uint32(64 * k) + jnp.arange(2, dtype=jnp.uint32), float) for k in (0, 1)]
    np.testing.assert_allclose(found.positions, 0.5 * (steps[0] + steps[1]), rtol=1e-15)


@pytest.mark.parametrize("chunk", [1, 7, 25, 50, 64])
def test_chunks_change_nothing(chunk):
    whole, cut = (evolve(SDE_, start(), TS, save=KEPT, chunk=c) for c in (None, chunk))
    # but for the last bit, because a vector of another length is multiplied and added in one rounding or in two
    close((whole.saved, whole.ensemble), (cut.saved, cut.ensemble), 1e-12, 1e-13)


def test_a_part_of_an_ensemble_is_a_part():
    whole = evolve(SDE_, start(), TS).ensemble
    e = start()
    part = Ensemble(e.positions[20:30], e.weights[20:30], e.key, first=20)
    same_bits(evolve(SDE_, part, TS).ensemble.positions, whole.positions[20:30])


def test_going_on_from_where_it_stopped_gives_the_same_bits():
    whole = evolve(SDE_, start(), TS).ensemble
    half = evolve(SDE_, start(), TS[:6]).ensemble
    same_bits(evolve(SDE_, half, TS[5:]).ensemble, whole)
    assert int(whole.taken) == 12
    fresh = evolve(SDE_, half, TS[5:], key=1).ensemble
    assert not np.array_equal(fresh.positions, whole.positions), "a new key is a new run"


@pytest.mark.parametrize("chunk", [None, 20], ids=["time", "chunks"])
def test_a_run_that_was_stopped_goes_on_from_its_file(tmp_path, chunk, monkeypatch):
    from jaxsci.evolution import _stages

    path, plain = tmp_path / "run.ckpt", evolve(SDE_, start(), TS, save=KEPT, chunk=chunk, every=2)
    done, compiled = [], _stages.compiled

    def killed(program, *args):
        if program is _stages._stage:
            done.append(1)
            if len(done) == 2:
                raise KeyboardInterrupt
        return compiled(program, *args)

    monkeypatch.setattr(_stages, "compiled", killed)
    with pytest.raises(KeyboardInterrupt):
        evolve(SDE_, start(), TS, save=KEPT, chunk=chunk, every=2, checkpoint=path)
    found = evolve(SDE_, start(), TS, save=KEPT, chunk=chunk, every=2, checkpoint=path)
    assert len(done) == (6 if chunk is None else 3) + 1, "what was done is not done again"
    same_bits(found.ensemble, plain.ensemble)
    same_bits(found["x"], plain["x"])
    np.testing.assert_allclose(found["m"].mean, plain["m"].mean, rtol=1e-12, atol=1e-13)
    with pytest.raises(ValueError, match="for other times or settings:"):
        evolve(SDE_, start(), 2 * TS, save=KEPT, chunk=chunk, every=2, checkpoint=path)


def test_an_ensemble_drawn_in_chunks():
    n = 1000
    drawn = evolve(SDE_, Draw(Uniform(), n, 5), TS, chunk=64)
    whole = evolve(SDE_, Uniform().ensemble(n, 5), TS)
    assert drawn.ensemble is None
    np.testing.assert_allclose(drawn["moments"].mean, whole["moments"].mean, rtol=1e-12)
    assert drawn["moments"].mass.tolist() == [n] * len(TS)


DEVICES = """
import os
os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=2"
import sys; sys.path.insert(0, "tests"); sys.path.insert(0, "tests/evolution")
import jax; jax.config.update("jax_enable_x64", True)
import numpy as np
from test_evolve import SDE_, TS, KEPT, start, Uniform, Draw, evolve, SDE, Interaction, Moments
mesh = jax.make_mesh((2,), ("x",))
for n in (50, 51):
    one, two = (evolve(SDE_, start(n), TS, save=KEPT, mesh=m) for m in (None, mesh))
    assert np.array_equal(one["x"].positions, two["x"].positions)
    assert np.array_equal(one.ensemble.positions, two.ensemble.positions)
    assert two.ensemble.positions.shape == (n, 1) and int(two.ensemble.first) == 0
    np.testing.assert_allclose(one["m"].mean, two["m"].mean, rtol=1e-12, atol=1e-13)
    pull = SDE(Interaction(lambda t, x, crowd: crowd.mean - x, Moments()), 0.5)
    one, two = (evolve(pull, start(n), TS, mesh=m) for m in (None, mesh))
    np.testing.assert_allclose(one.ensemble.positions, two.ensemble.positions, rtol=1e-12, atol=1e-13)
    one, two = (evolve(SDE_, Draw(Uniform(), n, 5), TS, mesh=m, chunk=8) for m in (None, mesh))
    np.testing.assert_allclose(one["moments"].mean, two["moments"].mean, rtol=1e-12)
    assert two["moments"].mass.tolist() == [n] * len(TS)
print("same")
"""


def test_two_devices_give_what_one_gives():
    root = Path(__file__).resolve().parents[2]
    out = subprocess.run(
        [sys.executable, "-c", DEVICES], cwd=root, capture_output=True, text=True, timeout=300, check=False
    )
    assert out.stdout.strip() == "same", out.stderr[-2000:]


@pytest.mark.parametrize("chunk", [None, 252], ids=["whole", "chunks"])
def test_one_program_serves_all_numbers_of_a_bucket(chunk, monkeypatch):
    """A new number of particles costs copies in and out, and no new loop."""
    from jaxsci.evolution import _evolve, _program

    traces = []
    inner = _program._through_time

    def counted(*given):
        traces.append(given[1].positions.shape)
        return inner(*given)

    monkeypatch.setattr(_program, "_through_time", counted)
    sizes = {n: _evolve.bucket_of(n) for n in (993, 1000, 1005, 1008)}
    assert set(sizes.values()) == {1008}
    jax.clear_caches()
    for k, n in enumerate(sizes):
        x = np.random.default_rng(n).normal(size=n)
        found = evolve(SDE_, Ensemble(x, key=n), TS, save={"m": Moments(), "x": Snapshots()}, chunk=chunk)
        assert found["x"].positions.shape == (len(TS), n, 1)
        assert found.ensemble.positions.shape == (n, 1)
        assert float(found["m"].mean[0, 0]) == pytest.approx(x.mean(), rel=1e-12)
        assert found["m"].mass.tolist() == [n] * len(TS)
        if k == 0:
            first = len(traces)
    assert len(traces) == first, "traced again for another number of particles"


def test_sweeps_of_any_length_meet_few_sizes():
    from jaxsci.evolution._filled import bucket_of

    counts = np.arange(1, 5000)
    sizes = np.array([bucket_of(int(n)) for n in counts])
    assert (sizes >= counts).all()
    assert (np.diff(sizes) >= 0).all()
    assert (sizes[500:] <= 1.032 * counts[500:]).all()
    assert len(set(sizes[1024:2048].tolist())) <= 33
    assert bucket_of(50_000) == 50_176


def test_draws_of_many_numbers_share_a_program(monkeypatch):
    from jaxsci.evolution import _program
    from jaxsci.meanfield import Gaussian

    traces, inner = [], _program._through_time
    monkeypatch.setattr(_program, "_through_time", lambda *given: traces.append(1) or inner(*given))
    counts = []
    for n in (6050, 6050, 6100, 6130):  # 95 and 96 chunks
        found = evolve(SDE_, Draw(Gaussian(0.0, 1.0), n, 5), TS, chunk=64)
        assert found["moments"].mass.tolist() == [n] * len(TS)
        counts.append(len(traces))
    assert counts[1:] == counts[1:2] * 3, counts


def test_what_fills_up_a_size_cannot_spoil_a_result():
    """It repeats the last particle: here another one of its kind would end at nan, where nothing that is meant does."""
    found = evolve(SDE(lambda t, x: jnp.where(x > 1.2, jnp.nan, 0 * x), 1.0), Ensemble(jnp.zeros(3), key=5), [0.0, 0.2])
    assert bool(found.success)
    assert np.isfinite(found["moments"].mean).all()


class Count(AbstractSummary):
    """Particles, whatever their weights."""

    def deposit(self, positions, weights):
        return jnp.sum(jnp.ones_like(weights))

    def evaluate(self, deposit):
        return deposit


def test_a_summary_that_does_not_count_weights_is_refused():
    with pytest.raises(ValueError, match=r"save\['n'\], a Count, counts a particle without weight"):
        evolve(SDE_, start(), TS, save={"n": Count()})
    with pytest.raises(ValueError, match="reads of the drift, a Count"):
        evolve(SDE(Interaction(lambda t, x, n: -x / n, Count()), 0.1), start(), TS)


def test_numbers_of_particles_may_begin_again_at_zero():
    last = Ensemble(np.zeros(4), key=1, first=2**32 - 2)
    found = evolve(SDE_, last, TS).ensemble
    wrapped = evolve(SDE_, Ensemble(np.zeros(2), key=1, first=0), TS).ensemble
    np.testing.assert_allclose(found.positions[2:], wrapped.positions, rtol=1e-14)


@pytest.mark.parametrize("kind", ["steps", "chunks", "drawn"])
def test_progress_is_told_and_changes_nothing(kind):
    said = []
    what = Draw(Uniform(), 50, 5) if kind == "drawn" else start()
    save = {"m": Moments()} if kind == "drawn" else KEPT
    chunk = None if kind == "steps" else 20
    plain = evolve(SDE_, what, TS, save=save, chunk=chunk, every=2)
    told = evolve(SDE_, what, TS, save=save, chunk=chunk, every=2, progress=lambda *counts: said.append(counts))
    assert said == [(2 * k, 12) for k in range(1, 7)] if kind == "steps" else [(1, 3), (2, 3), (3, 3)]
    same_bits(told.ensemble, plain.ensemble)
    close(told["m"], plain["m"], 1e-12, 1e-13)
    with pytest.raises(ValueError, match="leave checkpoint= and progress= out"):
        jax.jit(lambda x: evolve(SDE_, Ensemble(x, key=1), TS, progress=True)["moments"].mean)(jnp.zeros(3))


def test_a_bar_is_shown_where_one_is_asked_for(monkeypatch):
    from rich.progress import Progress

    bars, add = [], Progress.add_task
    monkeypatch.setattr(Progress, "add_task", lambda bar, what, total: bars.append((what, total)) or add(bar, what))
    evolve(SDE_, start(), TS, every=2)
    assert bars == []
    evolve(SDE_, start(), TS, every=2, progress=True)
    assert bars == [("evolving", 12)]


def test_drawn_particles_go_on_from_a_file_that_holds_their_sums_alone(tmp_path, monkeypatch):
    from jaxsci.evolution import _stages

    path, draw, done = tmp_path / "run.ckpt", Draw(Uniform(), 5000, 5), []
    plain = evolve(SDE_, draw, TS, chunk=1000)
    program = _stages.compiled

    def killed(of, *given):
        done.append(1)
        if len(done) == 4:
            raise KeyboardInterrupt
        return program(of, *given)

    monkeypatch.setattr(_stages, "compiled", killed)
    with pytest.raises(KeyboardInterrupt):
        evolve(SDE_, draw, TS, chunk=1000, checkpoint=path)
    assert path.stat().st_size < 8 * 5000
    found = evolve(SDE_, draw, TS, chunk=1000, checkpoint=path)
    assert len(done) == 6
    close(found["moments"], plain["moments"], 1e-12, 1e-13)


def test_what_is_kept_is_what_was_asked_for():
    every = evolve(SDE_, start(), TS, save=KEPT)
    some = evolve(SDE_, start(), TS, save=KEPT, every=4)
    last = evolve(SDE_, start(), TS, save=KEPT, every=None)
    np.testing.assert_array_equal(some.ts, TS[::4])
    same_bits(some["x"].positions, every["x"].positions[::4])
    same_bits(last["x"].positions, every["x"].positions[-1:])
    assert last.ts.tolist() == [1.0]


def test_weights_are_as_they_were_given():
    found = evolve(SDE_, start(), TS)
    np.testing.assert_array_equal(found.ensemble.weights, np.arange(50) % 3)
    w = np.arange(50) % 3
    assert float(found["moments"].n_eff[0]) == pytest.approx(w.sum() ** 2 / (w**2).sum())
    x0 = np.random.default_rng(1).normal(size=50)
    assert float(found["moments"].mean[0, 0]) == pytest.approx(np.average(x0, weights=w))


@pytest.mark.parametrize("length", [1, 5, 9, 12, 13, 50, 97])
def test_a_checkpointed_scan_is_a_scan(length):
    def step(c, x):
        c = jnp.sin(c) + x
        return c, c**2

    xs = jnp.linspace(0, 1, length)

    def run(scan, c):
        end, ys = scan(step, c, xs, length)
        return end + jnp.sum(ys * jnp.arange(1.0, length + 1))

    plain, ours = (lambda c, s=s: run(s, c) for s in (jax.lax.scan, checkpointed_scan))
    assert float(plain(0.3)) == pytest.approx(float(ours(0.3)), rel=1e-14)
    assert float(jax.grad(plain)(0.3)) == pytest.approx(float(jax.grad(ours)(0.3)), rel=1e-12)
    assert float(jax.jvp(ours, (0.3,), (1.0,))[1]) == pytest.approx(float(jax.grad(plain)(0.3)), rel=1e-12)


def temporaries(steps, particles=400, grad=False):
    def final(theta):
        sde = SDE(lambda t, x: -theta * x, 0.5)
        return evolve(sde, Ensemble(jnp.ones(particles), key=1), np.linspace(0, 1, steps + 1), every=None)[
            "moments"
        ].mean[-1, 0]

    made = jax.jit(jax.grad(final) if grad else final).lower(1.0).compile()
    return made.memory_analysis().temp_size_in_bytes


def test_memory_does_not_grow_with_the_number_of_steps():
    few, many = temporaries(16), temporaries(1024)
    assert many < few + 40 * 1024  # the times themselves: some numbers a step
    few, many = temporaries(16, grad=True), temporaries(1024, grad=True)
    assert many < 10 * few, "64 times the steps take eight times the memory of a gradient"


def test_bad_input_is_named():
    with pytest.raises(ValueError, match=r"shape \(0,\)|n and d of 1"):
        Ensemble(jnp.zeros(0))
    with pytest.raises(ValueError, match="should not be negative"):
        SDE(lambda t, x: x, -0.5)
    with pytest.raises(ValueError, match="Multiplicative"):
        SDE(lambda t, x: x, lambda t, x: x)
    with pytest.raises(ValueError, match="increase"):
        evolve(SDE_, start(), [0.0, 1.0, 0.5])
    with pytest.raises(ValueError, match="divisor"):
        evolve(SDE_, start(), TS, every=5)
    with pytest.raises(ValueError, match="shape of its position"):
        evolve(SDE(lambda t, x: x[0], 1.0), start(), TS)
    with pytest.raises(ValueError, match="50 particles end at nan"):
        evolve(SDE(lambda t, x: x * jnp.nan, 1.0), start(), TS)
    with pytest.raises(ValueError, match="leave chunk= out"):
        evolve(SDE(Interaction(lambda t, x, crowd: crowd.mean - x, Moments()), 1.0), start(), TS, chunk=10)
    with pytest.raises(ValueError, match="one threefry key"):
        Ensemble(jnp.zeros(3), key=jnp.zeros(3))
    with pytest.raises(ValueError, match="no key"):
        evolve(SDE_, Ensemble(jnp.zeros(3)), TS)
    with pytest.raises(ValueError, match="the class itself"):
        evolve(SDE_, start(), TS, stepper=EulerMaruyama)
    with pytest.raises(ValueError, match="give summaries names"):
        evolve(SDE_, start(), TS, save=Moments())
    with pytest.raises(TypeError, match="the drift decides by the value"):
        evolve(SDE(lambda t, x: x if x > 0 else -x, 1.0), start(), TS)
    with pytest.raises(TypeError, match="the drift hands an array or a parameter to NumPy"):
        evolve(SDE(lambda t, x: np.sin(x), 1.0), start(), TS)
    with pytest.raises(ValueError, match="weights have shape"):
        Ensemble(jnp.zeros(3), jnp.ones(2))


def test_a_drift_that_reads_something_is_not_stale():
    rate = [1.0]
    sde = SDE(lambda t, x: -rate[0] * x, 0.0)
    first = evolve(sde, Ensemble([1.0], key=1), [0.0, 0.5])["moments"].mean[-1, 0]
    rate[0] = 2.0
    assert (float(first), float(evolve(sde, Ensemble([1.0], key=1), [0.0, 0.5])["moments"].mean[-1, 0])) == (0.5, 0.0)


def test_a_bad_ensemble_in_a_batch_spoils_only_itself():
    def run(scale):
        return evolve(SDE(lambda t, x: x * scale, 0.5), start(), TS)

    found = jax.jit(jax.vmap(run))(jnp.array([-1.0, jnp.nan, -2.0]))
    assert found.success.tolist() == [True, False, True]
    np.testing.assert_allclose(found["moments"].mean[0], run(-1.0)["moments"].mean, rtol=1e-12)
