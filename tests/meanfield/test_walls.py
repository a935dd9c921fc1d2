"""Walls: what crosses them lands where it should, and what they absorb is counted, also within a coarse step."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsci.evolution import SDE, Draw, Ensemble, Moments, Snapshots, evolve
from jaxsci.meanfield import Box, Constant, Gaussian, Grid, exit_times

WALLS = ("reflecting", "periodic")


def settled(box, before, after, variance=None):
    one = jnp.ones(len(after), jnp.asarray(after).dtype)
    return box.settle(jnp.asarray(before)[:, None], jnp.asarray(after)[:, None], one, variance)


def test_jumps_of_several_widths_land_inside(shared_data):
    case = np.load(shared_data / "meanfield" / "cases" / "walls.npz")
    lo, hi, x = float(case["lo"]), float(case["hi"]), case["x"]
    for wall, name in (("reflecting", "reflected"), ("periodic", "wrapped")):
        found = settled(Box(lo, hi, wall), x, x).positions[:, 0]
        np.testing.assert_allclose(found, case[name], atol=1e-12)


@pytest.mark.parametrize("wall", WALLS)
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_everything_lands_inside_whatever_the_jump(wall, dtype):
    box = Box(-1.3, 0.4, wall)
    x = 10.0 ** np.random.default_rng(0).uniform(-3, 6, 2000) * np.random.default_rng(1).choice([-1, 1], 2000)
    found = np.asarray(settled(box, x.astype(dtype), x.astype(dtype)).positions)
    assert ((found >= dtype(-1.3)) & (found <= dtype(0.4))).all()


def test_wrapped_positions_keep_the_way_they_came(shared_data):
    case = np.load(shared_data / "meanfield" / "cases" / "walls.npz")
    start, steps = case["start"], case["steps"]
    box = Box(float(case["lo"]), float(case["hi"]), "periodic")
    table = jnp.asarray(steps)

    def drift(t, x):  # the steps of the case, a column each particle: found by where it began
        del x
        return table[jnp.round(t).astype(int)]

    sde = SDE(drift, 0.0, Box([box.lower[0]] * 6, [box.upper[0]] * 6, "periodic"))
    ended = evolve(sde, Ensemble(start[None], key=1, track=True), np.arange(len(steps) + 1.0), every=None).ensemble
    np.testing.assert_allclose(start + ended.travelled[0], case["unwrapped_end"], atol=1e-12)
    assert float(jnp.mean(ended.travelled**2)) == pytest.approx(float(case["msd"]), rel=1e-12)


@pytest.mark.parametrize("steps", [10, 20])
def test_two_exits_within_one_percent_at_ten_steps(shared_data, steps):
    case = np.load(shared_data / "meanfield" / "cases" / "two_exits.npz")
    mu, s, width, x0 = (float(case[name]) for name in ("mu", "s", "L", "x0"))
    n, sde = 150_000, SDE(Constant(jnp.asarray(mu)), s, Box(0.0, width, "absorbing"))
    ts = np.linspace(0, float(case["times"][-1]), steps + 1)
    found = evolve(sde, Ensemble(jnp.full(n, x0), key=8), ts, every=None)
    left, right = np.asarray(found.exits).sum(axis=0) / n
    assert sde.domain.walls == ("lower 0", "upper 0")
    survival = float(found["moments"].mass[-1]) / n
    assert survival + left + right == pytest.approx(1, abs=1e-12)
    for got, name in ((survival, "survival"), (left, "exit_left_by"), (right, "exit_right_by")):
        exact = float(case[name][-1])
        assert abs(got - exact) < 0.01 * exact + 3 * np.sqrt(exact * (1 - exact) / n)


def test_mean_exit_time_within_one_percent_at_ten_steps(shared_data):
    """The whole of it is over after six units of time, which are ten steps of more than half a mean time each."""
    case = np.load(shared_data / "meanfield" / "cases" / "two_exits.npz")
    mu, s, width, x0 = (float(case[name]) for name in ("mu", "s", "L", "x0"))
    n, sde = 150_000, SDE(Constant(jnp.asarray(mu)), s, Box(0.0, width, "absorbing"))
    ts = 2.0 + np.linspace(0, 6, 11)
    found = exit_times(evolve(sde, Ensemble(jnp.full(n, x0), key=8), ts, every=None, save={}), ts)
    exact, right = float(case["mean_exit_time"]), float(case["p_exit_right"])
    assert abs(float(found.overall) - exact) < 0.01 * exact
    assert abs(float(found.share[1]) - right) < 0.01 * right
    assert 0 < float(found.remaining) < 1e-3
    assert float(found.share @ found.mean) == pytest.approx(float(found.overall) * float(found.share.sum()), rel=1e-12)


def test_exit_times_ask_for_what_they_need():
    box, ts = Box(0.0, 1.0, [("absorbing", "reflecting")]), np.linspace(0, 1, 5)
    sde = SDE(Constant(jnp.asarray(0.0)), 0.5, box)
    drawn = evolve(sde, Draw(Gaussian(0.4, 0.05, box), 100, 1), ts, chunk=50)
    with pytest.raises(ValueError, match="give total="):
        exit_times(drawn, ts)
    found = exit_times(drawn, ts, total=100)
    assert float(found.share[0] + found.remaining) == pytest.approx(1, abs=1e-12)
    with pytest.raises(ValueError, match=r"ts has shape \(5,\)"):
        exit_times(drawn, ts[1:], total=100)
    with pytest.raises(ValueError, match="give its times"):
        exit_times(drawn, 2 * ts, total=100)
    with pytest.raises(ValueError, match="no wall of this evolution absorbs"):
        exit_times(evolve(SDE(sde.drift, 0.5, Box(0.0, 1.0)), Ensemble([0.5], key=1), ts), ts)
    still = evolve(SDE(sde.drift, 0.0, box), Ensemble([0.5], key=1), ts)
    assert np.isnan(float(exit_times(still, ts).overall))


def test_survival_of_a_staged_problem_at_ten_steps(shared_data):
    """A naive scheme that looks at the ends of steps only is 87 percent off."""
    case = np.load(shared_data / "meanfield" / "const_drift_absorbing.npz")
    mu, s, x0, s0, time = case["params"]
    n, exact = 100_000, float(case["mass"][-1])
    start = x0 + s0 * np.random.default_rng(2).normal(size=n)
    start = start[(start > 0) & (start < 1)]
    sde = SDE(Constant(jnp.asarray(mu)), s, Box(0.0, 1.0, "absorbing"))
    found = evolve(sde, Ensemble(start, key=3), np.linspace(0, time, 11), every=None)
    got = float(found["moments"].mass[-1]) / len(start)
    assert abs(got - exact) < 0.01 * exact + 3 * np.sqrt(exact * (1 - exact) / n)


def test_a_mirror_opposite_an_absorbing_wall():
    """Twice as wide with absorbing walls on both sides is the same by symmetry."""
    n, ts = 40_000, np.linspace(0, 0.5, 6)
    half = evolve(
        SDE(lambda t, x: 0 * x, 0.8, Box(0.0, 1.0, [("absorbing", "reflecting")])),
        Ensemble(jnp.full(n, 0.7), key=1),
        ts,
        every=None,
    )
    full = evolve(
        SDE(lambda t, x: 0 * x, 0.8, Box(0.0, 2.0, "absorbing")), Ensemble(jnp.full(n, 0.7), key=2), ts, every=None
    )
    a, b = (float(f["moments"].mass[-1]) / n for f in (half, full))
    assert abs(a - b) < 5 * np.sqrt(a * (1 - a) / n)
    assert half.exits.shape == (5, 1)


def test_exits_of_a_box_in_two_dimensions_add_up():
    box = Box([0.0, 0.0], [1.0, 2.0], [("absorbing", "reflecting"), "absorbing"])
    start = np.random.default_rng(0).uniform(0.1, 0.9, (2000, 2))
    found = evolve(SDE(lambda t, x: x, jnp.array([0.5, 0.3]), box), Ensemble(start, key=1), np.linspace(0, 1, 6))
    assert box.walls == ("lower 0", "lower 1", "upper 1")
    gone = np.concatenate([[0], np.cumsum(np.asarray(found.exits).sum(axis=1))])
    np.testing.assert_allclose(gone + found["moments"].mass, 2000, rtol=1e-12)
    assert (np.asarray(found.exits).sum(axis=0) > 0).all()


def test_a_uniform_density_stays_uniform_between_mirrors_and_around_a_circle():
    x = (np.arange(20_000) + 0.5) / 20_000
    for wall in WALLS:
        kept = evolve(
            SDE(lambda t, x: 0 * x, 0.7, Box(0.0, 1.0, wall)),
            Ensemble(x, key=4),
            np.linspace(0, 1, 9),
            save={"x": Snapshots()},
            every=None,
        )
        counts = np.histogram(kept["x"].positions[0, :, 0], 20, (0, 1))[0]
        assert abs(counts - 1000).max() < 4.5 * np.sqrt(950)


def test_particles_outside_are_counted_and_named():
    sde = SDE(lambda t, x: -x, 0.1, Box(0.0, 1.0))
    with pytest.raises(ValueError, match="2 particles begin outside of the domain"):
        evolve(sde, Ensemble([0.5, 1.5, -0.1], key=1), [0.0, 1.0])
    found = jax.vmap(lambda x: evolve(sde, Ensemble(x, key=1), [0.0, 1.0]).success)(jnp.array([[0.5], [1.5]]))
    assert found.tolist() == [True, False]


def test_survival_has_a_gradient():
    def survival(mu):
        sde = SDE(Constant(mu), 0.5, Box(0.0, 1.0, "absorbing"))
        return evolve(
            sde, Ensemble(jnp.full(200, 0.3), key=1), np.linspace(0, 1, 6), every=None, save={"m": Moments()}
        )["m"].mass[-1]

    h = 1e-6
    numeric = (survival(jnp.asarray(0.6 + h)) - survival(jnp.asarray(0.6 - h))) / (2 * h)
    assert float(jax.grad(survival)(jnp.asarray(0.6))) == pytest.approx(float(numeric), rel=1e-5)


def test_what_rounding_put_beyond_a_wall_is_put_at_it():
    """As `jnp.clip`, nan included; the gradient is that of what was not moved."""
    from jaxsci.meanfield._boundary import _between

    lower, upper = jnp.zeros(1), jnp.ones(1)
    x = jnp.array([[-1e-9], [0.0], [0.5], [1.0], [1 + 1e-9], [jnp.nan]])
    np.testing.assert_array_equal(_between(x, lower, upper), jnp.clip(x, lower[None], upper[None]))
    slope = jax.grad(lambda x: jnp.sum(_between(x, lower, upper)[:5]))(x)
    assert slope[:, 0].tolist() == [0, 1, 1, 1, 0, 0]


def test_words_for_walls_are_checked():
    with pytest.raises(ValueError, match="did you mean 'periodic'"):
        Box(0.0, 1.0, "peridic")
    with pytest.raises(ValueError, match="periodic at one wall"):
        Box(0.0, 1.0, [("periodic", "reflecting")])
    with pytest.raises(ValueError, match="one for each of 2 axes"):
        Box([0.0, 0.0], [1.0, 1.0], ["periodic"])
    with pytest.raises(ValueError, match="below its upper"):
        Box(1.0, 0.0)
    with pytest.raises(ValueError, match="2 cells or more"):
        Grid(Box(0.0, 1.0), 1)
