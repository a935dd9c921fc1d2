"""Particles against staged known answers: means within four standard errors, densities within what is said of them."""

import jax.numpy as jnp
import numpy as np
import pytest

import jaxsci as js
from jaxsci.evolution import SDE, Additive, Ensemble, EulerMaruyama, Heun, Moments, Multiplicative, SquareRoot, evolve
from jaxsci.meanfield import (
    Attraction,
    BinnedKDE,
    Box,
    Constant,
    DensitySnapshots,
    DoubleWell,
    FromDensity,
    Gaussian,
    Geometric,
    Gradient,
    Grid,
    Histogram,
    OnGrid,
    OrnsteinUhlenbeck,
    Rejection,
    SpectralKDE,
    Uniform,
    Washboard,
    density_on,
    from_value,
    interpolate,
    maximum_mean_discrepancy,
    wasserstein,
)

N = 20_000


def number(x):
    return jnp.asarray(x, float)


def staged(shared_data, name):
    return np.load(shared_data / "meanfield" / f"{name}.npz")


def double_well(case):
    a, b, s, m0, s0, _ = case["params"]
    box = Box(-3.0, 3.0)
    return SDE(DoubleWell(number(a), number(b)), s, box), Gaussian(m0, s0, box), Heun()


def heat(case):
    s, x0, s0, _ = case["params"]
    box = Box(0.0, 1.0)
    return SDE(Constant(number(0)), s, box), Gaussian(x0, s0, box), Heun()


def drifting(wall):
    def make(case):
        mu, s, m0, s0, _ = case["params"]
        box = Box(0.0, 1.0, wall)
        return SDE(Constant(number(mu)), s, box), Gaussian(m0, s0, box), Heun()

    return make


def cir(case):
    k, theta, s, m0, s0, _ = case["params"]
    box = Box(0.0, 4.0)
    return SDE(lambda t, x: k * (theta - x), SquareRoot(s), box), Gaussian(m0, s0, box), EulerMaruyama()


def washboard(case):
    amplitude, force, s, m0, s0, _ = case["params"]
    box = Box(0.0, 2 * np.pi, "periodic")
    return SDE(Washboard(number(amplitude), number(force)), s, box), Gaussian(m0, s0, box), Heun()


PROBLEMS = {
    "double_well": (double_well, 80),
    "heat_reflecting": (heat, 200),
    "const_drift_reflecting": (drifting("reflecting"), 200),
    "const_drift_absorbing": (drifting("absorbing"), 100),
    "const_drift_periodic": (drifting("periodic"), 50),
    "cir": (cir, 100),
    "washboard_periodic": (washboard, 100),
}


@pytest.mark.parametrize("name", PROBLEMS)
def test_staged_problems(shared_data, name):
    """The mean within four standard errors; the density within its own error bars and the blur of its bandwidth."""
    case = staged(shared_data, name)
    make, steps = PROBLEMS[name]
    sde, start, stepper = make(case)
    x, t = case["x"], case["t"]
    grid = Grid(sde.domain, len(x))
    ts = np.linspace(0, float(t[-1]), steps + 1)
    keep = {"m": Moments(), "p": SpectralKDE(grid, total=float(N))}
    found = evolve(sde, start.ensemble(N, 11), ts, stepper=stepper, save=keep, every=None)
    exact, step = case["p"][-1], float(grid.volume)
    mass = exact.sum() * step
    density = np.asarray(found["p"].values[-1])
    assert density.sum() * step == pytest.approx(float(found["m"].mass[-1]) / N, rel=1e-9)
    if name == "const_drift_absorbing":
        assert abs(density.sum() * step - mass) < 4 * np.sqrt(mass * (1 - mass) / N) + 0.01 * mass
    else:
        assert density.sum() * step == pytest.approx(1, abs=1e-12)
    if name != "washboard_periodic" and name != "const_drift_periodic":  # a circle has no mean
        mean = (x * exact).sum() / exact.sum()
        assert abs(float(found["m"].mean[-1, 0]) - mean) < 4 * float(found["m"].standard_error[-1, 0]) + 2e-3
    # blurring by h changes p by h^2 p'' / 2
    h = float(found["p"].bandwidth[-1, 0])
    blur = h**2 / 2 * abs(np.gradient(np.gradient(exact, x), x)).max()
    error = np.asarray(found["p"].standard_error[-1])
    assert np.mean(abs(density - exact) < 4 * error + blur) > 0.95
    assert abs(density - exact).sum() * step < 0.1 * mass


def test_gibbs_is_what_a_double_well_ends_at(shared_data):
    case = staged(shared_data, "double_well")
    sde, _, stepper = double_well(case)
    grid = Grid(sde.domain, len(case["x"]))
    start = FromDensity(case["gibbs"] / (case["gibbs"].sum() * float(grid.volume)), grid)
    found = evolve(sde, start.ensemble(N, 1), np.linspace(0, 1, 41), stepper=stepper, every=None)["moments"]
    exact = (case["x"] ** 2 * case["gibbs"]).sum() / case["gibbs"].sum()
    second = float(found.covariance[-1, 0, 0] + found.mean[-1, 0] ** 2)
    assert abs(second - exact) < 4 * exact / np.sqrt(N) + 2e-3


def test_moments_of_the_chain_itself(shared_data):
    """The staged moments are those of fifty steps of Euler and Maruyama: nothing but the draw is left."""
    case = staged(shared_data, "ou_and_mckean_vlasov_moments")
    theta, mu, s, m0, v0, time, alpha = case["params"]
    x0 = m0 + np.sqrt(v0) * np.random.default_rng(0).normal(size=N)
    x0 = (x0 - x0.mean()) / x0.std() * np.sqrt(v0) + m0
    ts = np.linspace(0, time, 51)
    plain = evolve(SDE(OrnsteinUhlenbeck(number(theta), number(mu)), s), Ensemble(x0, key=1), ts)["moments"]
    assert np.all(abs(plain.mean[:, 0] - case["em50_mean"]) <= 4 * plain.standard_error[:, 0])
    assert np.all(abs(plain.covariance[:, 0, 0] / case["em50_var"] - 1) < 4 * np.sqrt(2 / N))
    crowd = SDE(Attraction(number(theta), number(mu), number(alpha)), s)
    pulled = evolve(crowd, Ensemble(x0, key=1), ts)["moments"]
    assert np.all(abs(pulled.covariance[:, 0, 0] / case["em50_mv_var"] - 1) < 4 * np.sqrt(2 / N))


def test_geometric_brownian_motion(shared_data):
    case = staged(shared_data, "gbm")
    mu, s, x0, s0, time = case["params"]
    start = x0 * np.exp(s0 * np.random.default_rng(3).normal(size=N))
    sde = SDE(Geometric(number(mu)), Multiplicative(lambda t, x: s * x))
    found = evolve(sde, Ensemble(start, key=1), np.linspace(0, time, 101), every=None)["moments"]
    assert abs(float(found.mean[-1, 0]) - float(case["mean"])) < 4 * float(found.standard_error[-1, 0]) + 1e-3


def test_a_gradient_drift_is_the_drift_of_its_potential():
    x = jnp.linspace(-2, 2, 9)[:, None]
    t = jnp.zeros(())
    well, potential = (
        DoubleWell(number(1.3), number(0.7)),
        Gradient(lambda t, x: jnp.sum(1.3 * x**4 / 4 - 0.7 * x**2 / 2)),
    )
    for one in x:
        np.testing.assert_allclose(potential(t, one), well(t, one), rtol=1e-13, atol=1e-14)


@pytest.mark.parametrize("wall", ["reflecting", "periodic"])
def test_interpolation(wall):
    grid = Grid(Box([0.0, -1.0], [1.0, 1.0], wall), (8, 6))
    points = grid.points()
    plane = 2 * points[..., :1] - points[..., 1:]
    for x in np.random.default_rng(0).uniform([0.1, -0.8], [0.9, 0.8], (20, 2)):
        np.testing.assert_allclose(interpolate(plane, grid, jnp.asarray(x)), 2 * x[0] - x[1], atol=1e-13)
    # at a wall: the value of the cell, or the mean of both sides of a circle
    low = interpolate(plane, grid, jnp.array([0.0, 0.0]))
    wanted = plane[0, :, 0].mean() if wall == "reflecting" else (plane[0, :, 0].mean() + plane[-1, :, 0].mean()) / 2
    np.testing.assert_allclose(low, wanted, atol=1e-12)


def test_drift_on_a_grid_changes_with_time():
    grid, ts = Grid(Box(0.0, 1.0), 4), np.array([0.0, 0.5, 1.0])
    values = np.broadcast_to(np.array([1.0, 2.0, 3.0])[:, None, None], (3, 4, 1))
    drift = OnGrid(values, grid, ts)
    at = jnp.array([0.3])
    assert [float(drift(jnp.asarray(t), at)[0]) for t in (0.0, 0.49, 0.5, 0.7, 1.0)] == [1, 1, 2, 2, 3]
    with pytest.raises(ValueError, match="values of shape"):
        OnGrid(values, grid)
    u = jnp.cos(np.pi * grid.centres())
    slope = from_value(u, Grid(Box(0.0, 1.0), 4)).values[:, 0]
    assert slope.shape == (4,)
    assert (slope[1:-1] > 0).all()


@pytest.mark.parametrize("quasi", [False, True])
def test_starts_follow_their_densities(quasi):
    grid = Grid(Box([0.0, -1.0], [1.0, 2.0]), (5, 7))
    density = np.random.default_rng(1).random((5, 7))
    density[2] = 0
    density /= density.sum() * float(grid.volume)
    x = np.asarray(FromDensity(density, grid, quasi).ensemble(N, 3).positions)
    counts = np.histogram2d(*x.T, bins=(5, 7), range=[[0, 1], [-1, 2]])[0]
    share = density * float(grid.volume)
    assert counts[2].sum() == 0
    off = (counts - N * share) / np.sqrt(np.maximum(N * share, 1))
    assert abs(off).max() < (0.6 if quasi else 4.5), "quasi-random numbers are more even"
    y = np.asarray(Gaussian([1.0, -2.0], [0.5, 0.1], quasi=quasi).ensemble(N, 4).positions)
    assert np.all(abs(y.mean(0) - [1, -2]) < 4 * np.array([0.5, 0.1]) / np.sqrt(N))
    assert np.all(abs(y.std(0) / [0.5, 0.1] - 1) < 4 / np.sqrt(2 * N))


def test_rejection_and_what_it_missed():
    start = Rejection(lambda x: jnp.exp(-(x[0] ** 2) / 2), Box(-5.0, 5.0), 1.0, tries=40)
    x = start.ensemble(N, 2)
    assert float(x.positions.std()) == pytest.approx(1, abs=4 / np.sqrt(2 * N))
    few = Rejection(start.density, start.box, 1.0, tries=1)
    missing = float(np.mean(few.missing(x.key, x.ids)))
    assert missing == pytest.approx(1 - np.sqrt(2 * np.pi) / 10, abs=0.02)


def test_initial_densities_that_are_none_are_refused():
    grid = Grid(Box(0.0, 1.0), 4)
    with pytest.raises(ValueError, match="mass 2, not 1"):
        FromDensity(np.full(4, 2.0), grid)
    with pytest.raises(ValueError, match="not negative"):
        FromDensity([-1.0, 3.0, 1.0, 1.0], grid)
    with pytest.raises(ValueError, match="shape"):
        FromDensity(np.ones(5), grid)


def snapshots(n=4000, seed=5):
    box = Box(-4.0, 4.0)
    grid = Grid(box, 40)
    true = SDE(OrnsteinUhlenbeck(number(1.0), number(1.0)), 0.7, box)
    ts = np.linspace(0, 2, 21)
    smooth = SpectralKDE(grid, degree=3)
    seen = evolve(true, Gaussian(-1.0, 0.3).ensemble(n, seed), ts, save={"p": smooth}, every=10)["p"]
    sigma = np.sqrt(2) * np.asarray(seen.standard_error[1:]) + 1e-3
    return DensitySnapshots(Gaussian(-1.0, 0.3).ensemble(n, seed + 100), grid, 0.0, [1.0, 2.0], seen.values[1:], sigma)


FREE = ("drift.theta", "drift.mu", "diffusion.scale")


def model(theta=0.6, mu=0.4, s=1.0):
    return SDE(OrnsteinUhlenbeck(number(theta), number(mu)), Additive(number(s)), Box(-4.0, 4.0))


def test_calibration_finds_the_truth():
    found = js.fit(model(), snapshots(), free=FREE)
    assert bool(found.success)
    for name, truth in zip(FREE, (1.0, 1.0, 0.7), strict=True):
        assert abs(float(found.values[name]) - truth) < 0.05


def test_estimators_without_smooth_derivatives_are_refused():
    grid = Grid(Box(-4.0, 4.0), 8)
    start, seen = Gaussian(-1.0, 0.3).ensemble(10, 1), np.ones((1, 8))
    assert DensitySnapshots(start, grid, 0.0, [1.0], seen).density.degree == 3
    for density, what in ((SpectralKDE(grid), "kink"), (BinnedKDE(grid), "within a cell"), (Histogram(grid), "within")):
        with pytest.raises(ValueError, match=what):
            DensitySnapshots(start, grid, 0.0, [1.0], seen, density=density)


def test_the_jacobian_of_a_calibration():
    data, h = snapshots(), 1e-4
    base = model(0.9, 0.8, 0.8)

    class At:
        places = None

        def model(self, y):
            return model(y[0], y[1], y[2])

    y = jnp.array([0.9, 0.8, 0.8])
    residual, rows = data.jacobian(At(), y)
    np.testing.assert_allclose(residual, data.residual(base), rtol=1e-12, atol=1e-13)
    for k, row in enumerate(rows):
        step = h * np.eye(3)[k]
        up, down = (data.residual(At().model(y + sign * step)) for sign in (1, -1))
        assert np.abs(row - (up - down) / (2 * h)).max() < 1e-5 * np.abs(row).max()


def test_distances_between_distributions():
    grid = Grid(Box(0.0, 1.0), 100)
    x = np.asarray(grid.centres())
    p, q = (np.exp(-((x - m) ** 2) / 2 / 0.05**2) for m in (0.3, 0.55))
    p, q = (jnp.asarray(d / d.sum() * 100) for d in (p, q))
    assert float(wasserstein(p, q, grid)) == pytest.approx(0.25, rel=1e-4)
    assert float(wasserstein(p, p, grid)) == 0
    a, b = np.random.default_rng(0).normal(size=(2, 400, 1))
    c = b + 2
    same, apart = (float(maximum_mean_discrepancy(jnp.asarray(a), jnp.asarray(z), 1.0)) for z in (b, c))
    exact = 2 * (1 / np.sqrt(3) - np.exp(-4 / 6) / np.sqrt(3))  # normal laws two apart, kernel of width 1
    assert abs(same) < 0.02
    assert apart == pytest.approx(exact, abs=0.06)


@pytest.mark.parametrize("cells", [10, 20, 40])
def test_the_density_of_a_start_is_that_of_its_particles(cells):
    box = Box(0.0, 1.0)
    grid, own = Grid(box, cells), Grid(box, 20)
    given = np.random.default_rng(0).random(20)
    given /= given.mean()
    starts = (Uniform(box), Gaussian(0.4, 0.2, box), FromDensity(given, own), Rejection(lambda x: x[0], box, 1.0))
    for start in starts:
        density = np.asarray(density_on(start, grid))
        assert density.mean() == pytest.approx(1, abs=1e-12)
        counts = np.histogram(start.ensemble(N, 5).positions[:, 0], cells, (0, 1))[0]
        off = (counts - N * density / cells) / np.sqrt(N * density / cells)
        assert abs(off).max() < 4.5
    assert density_on(FromDensity(given, own), Grid(box, 30)) is None
    assert density_on(FromDensity(given, own), Grid(Box(0.0, 2.0), 20)) is None
