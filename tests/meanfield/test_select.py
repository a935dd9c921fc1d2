"""The choice of a method: by measured times and errors, recorded, and taken again by a run that goes on."""

import dataclasses
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsci.evolution import SDE, AbstractStart, Draw, Interaction, Moments, evolve
from jaxsci.meanfield import _capabilities, _costs, _select
from jaxsci.meanfield._boundary import Box, Grid
from jaxsci.meanfield._capabilities import capabilities, kernels, operations
from jaxsci.meanfield._costs import METHODS, Cost, estimate
from jaxsci.meanfield._density import SpectralKDE
from jaxsci.meanfield._drift import Constant, OrnsteinUhlenbeck
from jaxsci.meanfield._initial import FromDensity, Gaussian
from jaxsci.meanfield._select import Choice, choose, evolve_density

BOX = Box(-4.0, 4.0)
GRID = Grid(BOX, 40)
START = Gaussian(1.0, 0.5, BOX)
TS = np.linspace(0, 0.5, 11)


def well(box=BOX):
    return SDE(OrnsteinUhlenbeck(jnp.asarray(1.0), jnp.asarray(0.0)), 1.0, box)


@pytest.fixture
def no_clock(monkeypatch):
    """Costs as the test says, and every question that was asked."""
    asked, costs = [], {name: Cost(0.0, 0.0, 1.0, 0.0) for name in METHODS}

    def cost(problem, method):
        asked.append(method)
        return costs[method]

    monkeypatch.setattr(_select, "cost_of", cost)
    return costs, asked


# --- results -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
def test_every_method_solves_the_problem(method):
    found = evolve_density(well(), START, GRID, TS, method=method, n=20_000, every=5)
    assert found.density.shape == (3, 40)
    assert found.ts.shape == (3,)
    np.testing.assert_allclose(found.mass, 1, rtol=1e-9)
    np.testing.assert_allclose(jnp.sum(found.density, axis=1) * GRID.volume, 1, rtol=1e-9)
    m, v = np.exp(-0.5), 0.5 + (0.25 - 0.5) * np.exp(-1)
    x = np.asarray(GRID.centres())
    exact = np.exp(-((x - m) ** 2) / (2 * v)) / np.sqrt(2 * np.pi * v)
    assert np.abs(found.density[-1] - exact).sum() * float(GRID.volume) < 0.06
    assert (found.standard_error is None) == (method == "finite volume")
    assert found.choice.method == found.choice.asked == method
    assert str(found.choice).startswith(f"method: {method} (asked for: {method})")


@pytest.mark.parametrize("method", ["spectral", "finite volume"])
def test_a_fixed_method_has_the_same_bits(method):
    first, second = (evolve_density(well(), START, GRID, TS, method=method, n=500, key=3) for _ in range(2))
    assert np.array_equal(first.density, second.density)


def test_particles_are_those_of_evolve():
    found = evolve_density(well(), START, GRID, TS, method="spectral", n=500, key=3)
    plain = evolve(well(), START.ensemble(500, 3), TS, key=3, save={"p": SpectralKDE(GRID)})["p"]
    np.testing.assert_allclose(found.density, plain.values, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("method", ["spectral", "finite volume"])
def test_what_walls_absorb_is_missing(method):
    box = Box(0.0, 1.0, "absorbing")
    grid, start = Grid(box, 40), Gaussian(0.4, 0.05, box)
    found = evolve_density(SDE(Constant(jnp.asarray(0.5)), 0.5, box), start, grid, TS, method=method, n=20_000)
    assert found.mass[0] == pytest.approx(1, abs=1e-6)
    assert 0.2 < found.mass[-1] < 0.7
    np.testing.assert_allclose(jnp.sum(found.density, axis=1) * grid.volume, found.mass, rtol=1e-6)


@pytest.mark.parametrize("method", ["spectral", "finite volume"])
def test_going_on_from_a_result(method):
    whole = evolve_density(well(), START, GRID, TS, method=method, n=500, key=3)
    half = evolve_density(well(), START, GRID, TS[:6], method=method, n=500, key=3)
    rest = evolve_density(well(), half, GRID, TS[5:])
    assert rest.choice == half.choice
    np.testing.assert_allclose(rest.density, whole.density[5:], rtol=1e-9, atol=1e-12)


def test_going_on_where_walls_absorb():
    box = Box(0.0, 1.0, "absorbing")
    grid, start, sde = Grid(box, 40), Gaussian(0.4, 0.05, box), SDE(Constant(jnp.asarray(0.5)), 0.5, box)
    for method in ("spectral", "finite volume"):
        whole = evolve_density(sde, start, grid, TS, method=method, n=500, key=3)
        half = evolve_density(sde, start, grid, TS[:6], method=method, n=500, key=3)
        rest = evolve_density(sde, half, grid, TS[5:])
        np.testing.assert_allclose(rest.mass, whole.mass[5:], rtol=1e-9)
        np.testing.assert_allclose(rest.density, whole.density[5:], rtol=1e-8, atol=1e-10)


def test_within_a_transformation_a_method_is_given():
    def spread(theta, method):
        sde = SDE(OrnsteinUhlenbeck(theta, jnp.asarray(0.0)), 1.0, BOX)
        found = evolve_density(sde, START, GRID, TS, method=method, n=200, bandwidth=0.3)
        return jnp.sum(found.density[-1] ** 2)

    one = jnp.asarray(1.0)
    plain = (spread(one + 1e-5, "spectral") - spread(one - 1e-5, "spectral")) / 2e-5
    np.testing.assert_allclose(jax.grad(spread)(one, "spectral"), plain, rtol=1e-5)
    with pytest.raises(ValueError, match="against the clock"):
        jax.grad(spread)(one, "auto")


# --- the choice ----------------------------------------------------------------------------------------------------


def test_the_fastest_that_is_accurate_enough_is_taken(no_clock):
    costs, _ = no_clock
    costs["spectral"] = Cost(0.0, 0.0, 0.1, 0.0)
    assert choose(well(), START, GRID, TS, n=2000).method == "spectral"
    costs["finite volume"] = Cost(0.0, 0.0, 0.01, 0.0)
    assert choose(well(), START, GRID, TS, n=2000).method == "finite volume"
    costs["binned"] = Cost(0.0, 0.0, 0.001, 0.0)
    coarse = Grid(BOX, 8)  # cells much wider than a bandwidth
    found = choose(well(), START, coarse, TS, n=100_000)
    assert found.method != "binned"
    assert "not accurate enough" in str(found)


def test_auto_is_recorded(no_clock):
    found = evolve_density(well(), START, GRID, TS, n=2000, accuracy=0.5)
    assert found.choice.asked == "auto"
    assert found.choice.method in METHODS
    assert {c.method for c in found.choice.candidates} == set(METHODS)
    for word in (*METHODS, "taken", "error allowed 0.5"):
        assert word in str(found.choice)


def test_a_run_that_goes_on_takes_the_recorded_choice(no_clock, tmp_path):
    costs, asked = no_clock
    costs["spectral"] = Cost(0.0, 0.0, 0.1, 0.0)
    first = evolve_density(well(), START, GRID, TS, n=500, key=3, checkpoint=tmp_path / "run")
    costs["binned"] = costs["finite volume"] = Cost(0.0, 0.0, 1e-9, 0.0)
    count = len(asked)
    again = evolve_density(well(), START, GRID, TS, n=500, key=3, checkpoint=tmp_path / "run")
    assert again.choice == first.choice
    assert again.choice.method == "spectral"
    assert np.array_equal(again.density, first.density)
    with pytest.raises(ValueError, match="for other grid or times:"):
        evolve_density(well(), START, GRID, TS * 2, n=500, key=3, checkpoint=tmp_path / "run")
    on = evolve_density(well(), first, GRID, TS + TS[-1])
    assert on.choice == first.choice
    assert len(asked) == count


@pytest.mark.parametrize("method", ["spectral", "finite volume"])
def test_a_given_method_may_have_a_checkpoint(method, tmp_path):
    first, again = (
        evolve_density(well(), START, GRID, TS, n=500, method=method, checkpoint=tmp_path / "run") for _ in range(2)
    )
    assert np.array_equal(first.density, again.density)


@pytest.mark.slow
def test_an_accuracy_says_how_many_particles(no_clock):
    few, many = (choose(well(), START, GRID, TS, accuracy=a).n for a in (0.05, 0.02))
    assert many / few == pytest.approx(2.5**2.5, rel=0.1)


class Middle(AbstractStart):
    """A start of one's own, whose density nobody can know."""

    def sample(self, key, ids):
        return jnp.zeros((*ids.shape, 1))


REFUSED = [
    ("the drift reads", {"sde": SDE(Interaction(lambda t, x, m: m.mean - x, Moments()), 1.0, BOX)}),
    ("domain", {"sde": SDE(Constant(jnp.asarray(0.0)), 1.0)}),
    ("domain", {"grid": Grid(Box(-4.0, 5.0), 40)}),
    ("begins from particles", {"start": START.ensemble(100, 0)}),
    ("not known", {"start": Middle()}),
    ("not known", {"start": FromDensity(jnp.full(30, 1 / 8), Grid(BOX, 30))}),
]


@pytest.mark.parametrize(("why", "other"), REFUSED, ids=[f"{why} {k}" for k, (why, _) in enumerate(REFUSED)])
def test_what_finite_volumes_cannot_solve(why, other):
    given = {"sde": well(), "start": START, "grid": GRID} | other
    with pytest.raises(ValueError, match=f"finite volume.*{why}"):
        evolve_density(given["sde"], given["start"], given["grid"], TS, method="finite volume", n=100)


def test_three_dimensions_and_matrices_are_for_particles():
    box = Box([0.0] * 3, [1.0] * 3)
    problem = {"sde": SDE(Constant(jnp.asarray(0.0)), 0.1, box), "start": Gaussian([0.5] * 3, 0.1, box)}
    with pytest.raises(ValueError, match="3 dimensions"):
        evolve_density(**problem, grid=Grid(box, (4, 4, 4)), ts=TS, method="finite volume", n=100)
    box = Box([0.0] * 2, [1.0] * 2)
    tilted = SDE(Constant(jnp.asarray(0.0)), 0.1 * jnp.ones((2, 2)), box)
    with pytest.raises(ValueError, match="matrix"):
        evolve_density(tilted, Gaussian([0.5] * 2, 0.1, box), Grid(box, (4, 4)), TS, method="finite volume", n=100)


def test_what_is_refused():
    with pytest.raises(ValueError, match="did you mean 'spectral'"):
        evolve_density(well(), START, GRID, TS, method="spectrum", n=100)
    with pytest.raises(ValueError, match="give n="):
        evolve_density(well(), START, GRID, TS)
    with pytest.raises(ValueError, match="leave n= out"):
        evolve_density(well(), Draw(START, 100), GRID, TS, n=50, method="spectral")
    with pytest.raises(ValueError, match="not chunks"):
        evolve_density(well(), START, GRID, TS, n=100, chunk=10, method="dense")
    with pytest.raises(ValueError, match="does not divide"):
        evolve_density(well(), START, GRID, TS, n=100, every=3, method="finite volume")
    drawn = evolve_density(well(), START, GRID, TS, n=100, chunk=10, method="spectral")
    with pytest.raises(ValueError, match="kept no particles"):
        evolve_density(well(), drawn, GRID, TS)
    with pytest.raises(ValueError, match="cannot go on from"):
        evolve_density(well(), drawn, GRID, TS, method="finite volume")


@pytest.mark.parametrize("method", ["spectral", "finite volume"])
def test_a_method_that_is_given_runs_within_a_transformation(method):
    def last(theta):
        of = SDE(OrnsteinUhlenbeck(theta, jnp.zeros(())), 1.0, BOX)
        return evolve_density(of, START, GRID, TS, method=method, n=100).density[-1]

    np.testing.assert_allclose(jax.jit(last)(jnp.ones(())), last(jnp.ones(())), rtol=1e-10, atol=1e-12)


def test_a_choice_is_part_of_a_program():
    """A result goes through jit, and the choice with it."""
    found = evolve_density(well(), START, GRID, TS, method="spectral", n=100)
    assert isinstance(found.choice, Choice)
    again = jax.jit(lambda x: x)(dataclasses.replace(found, evolution=None))
    assert again.choice == found.choice


# --- clocks --------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_times_are_measured_once_for_each_shape(monkeypatch):
    readings = []
    whole = _costs.seconds_of
    monkeypatch.setattr(_costs, "seconds_of", lambda *runs: readings.append(len(runs)) or whole(*runs))
    grid = Grid(BOX, 24)
    first = estimate(well(), 300, grid, 20)
    again = estimate(SDE(OrnsteinUhlenbeck(jnp.asarray(2.0), jnp.asarray(1.0)), 0.5, BOX), 300, grid, 20)
    assert first == again
    assert readings == [4]
    assert first.seconds == first.cost.seconds(300, 20) > 0
    assert "a particle-step" in str(first)
    with pytest.raises(ValueError, match="cannot solve"):
        estimate(SDE(Interaction(lambda t, x, m: -x, Moments()), 1.0, BOX), 10, GRID, 5, method="finite volume")


def test_what_a_run_costs():
    cost = Cost(1.0, 0.002, 0.1, 0.001)
    assert cost.seconds(1000, 10) == pytest.approx(1 + 2 + 10 * 1.1)
    assert _capabilities._crossing(Cost(0.0, 0.0, 0.0, 1.0), Cost(0.0, 0.0, 10.0, 0.5), 7) == pytest.approx(20)
    assert _capabilities._crossing(Cost(0.0, 0.0, 0.0, 1.0), Cost(0.0, 0.0, 10.0, 1.5), 7) == np.inf
    assert _capabilities._crossing(Cost(0.0, 0.0, 1.0, 1.0), Cost(0.0, 0.0, 0.5, 0.5), 7) == 1


def test_capabilities_are_numbers():
    found = capabilities(crossovers=False)
    names = (
        "parallel KDE",
        "low latency",
        "high bandwidth",
        "jit compilation",
        "kernel fusion",
        "auto-vectorisation",
        "unified memory",
    )
    assert tuple(row.name for row in found.rows) == names
    assert all(row.verdict in ("yes", "no", "medium") for row in found.rows)
    assert found.platform == jax.devices()[0].platform
    assert found.x64
    assert found.memory > 2**28
    assert 0 < found.kernel_overhead < 1e-3
    assert found.bandwidth > 1e8
    assert found.row("kernel fusion").verdict == "yes"
    for name in names:
        assert name in str(found)


def test_kernels_are_counted_in_what_was_compiled():
    def chain(x):
        return jnp.sum(jnp.exp(jnp.sin(x) * 2 + 1))

    lowered = jax.jit(chain).lower(jnp.ones(1000))
    assert operations(lowered.as_text()) > kernels(lowered.compile().as_text()) >= 1


@pytest.mark.slow
@pytest.mark.parametrize(("n", "steps"), [(400_000, 40), (40_000, 400)])
def test_an_estimate_is_near_what_a_run_takes(n, steps):
    """Within 30 % on a run that is ten times larger than what was timed."""
    sde, grid = well(), Grid(BOX, 100)
    said = estimate(sde, n, grid, steps, start=START).seconds
    ts, took = np.linspace(0, 0.5, steps + 1), np.inf
    for _ in range(5):
        cpu, wall = time.process_time(), time.perf_counter()
        jax.block_until_ready(evolve_density(sde, START, grid, ts, n=n, method="spectral").density)
        took = min(took, time.process_time() - cpu, time.perf_counter() - wall)
    assert 0.7 < said / took < 1.3


@pytest.mark.slow
def test_auto_measures_and_takes_the_fastest():
    grid = Grid(BOX, 100)
    found = evolve_density(well(), START, grid, np.linspace(0, 1, 51), n=50_000)
    able = [c for c in found.choice.candidates if not c.why and c.error <= found.choice.limit]
    assert found.choice.method == min(able, key=lambda c: c.seconds).method
    crossed = capabilities().crossovers
    assert set(crossed) == {"spectral before dense", "binned before dense", "finite volume before spectral"}
