"""Densities: against plain sums of kernels, and what must hold whatever the particles are."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsci.evolution import SDE, Ensemble, Moments, evolve
from jaxsci.meanfield._bandwidth import ISJ, Fixed, Scott, Silverman
from jaxsci.meanfield._boundary import Box, Grid
from jaxsci.meanfield._density import BinnedKDE, DenseKDE, Histogram, SpectralKDE

WALLS = [
    ("reflecting", "reflecting"),
    ("absorbing", "absorbing"),
    ("periodic", "periodic"),
    ("reflecting", "absorbing"),
    ("absorbing", "reflecting"),
]
GRID = Grid(Box(0.0, 1.0), 24)
N = 2000  # one number of particles wherever it does not matter, so that programs are compiled once
KINDS = {
    "spectral": lambda grid, h: SpectralKDE(grid, h, nodes=96, coefficients=80),
    "dense": lambda grid, h: DenseKDE(grid, h),
    "binned": lambda grid, h: BinnedKDE(grid, h),
    "histogram": lambda grid, h: Histogram(grid),
}
every_kind = pytest.mark.parametrize("kind", list(KINDS))
deposit = eqx.filter_jit(lambda kde, x, w: kde.deposit(x, w))
evaluate = eqx.filter_jit(lambda kde, sums: kde.evaluate(sums))
at = eqx.filter_jit(lambda kde, *given: kde.at(*given))
moments = eqx.filter_jit(lambda x, w: Moments().evaluate(Moments().deposit(x, w)))


def density(kde, x, w=None):
    x = jnp.asarray(x)
    x = x[:, None] if x.ndim == 1 else x
    w = jnp.ones(x.shape[0], x.dtype) if w is None else jnp.asarray(w, x.dtype)
    return evaluate(kde, deposit(kde, x, w))


def sample(n, seed=0):
    """Two modes, the one at a wall."""
    rng = np.random.default_rng(seed)
    x = np.where(rng.random(n) < 0.4, abs(rng.normal(0, 0.12, n)), rng.normal(0.6, 0.1, n))
    return np.clip(x, 0, 1)


def edges(grid):
    return np.linspace(float(grid.box.lower[0]), float(grid.box.upper[0]), grid.shape[0] + 1)


def centres(grid):
    return (edges(grid)[1:] + edges(grid)[:-1]) / 2


def mass(grid, values):
    return float(jnp.sum(values) * grid.volume)


@pytest.fixture(scope="module")
def case(shared_data):
    return dict(np.load(shared_data / "meanfield" / "cases" / "kde_weighted.npz"))


# --- the staged case -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("row", range(4))
def test_the_sum_of_kernels_has_its_right_values(case, row):
    ensemble = Ensemble(case["particles"], case["weights"])
    grid = Grid(Box(case["lo"], case["hi"]), 40)
    kde = DenseKDE(grid, case["bandwidth"][row])
    found = at(kde, ensemble.positions, ensemble.weights, jnp.asarray(case["x"])[:, None])
    np.testing.assert_allclose(found, case["density"][row], rtol=1e-12, atol=1e-12 * case["density"][row].max())
    means = density(kde, ensemble.positions, ensemble.weights)
    np.testing.assert_allclose(means.values * grid.volume, case["cell_mass"][row], atol=1e-12)
    np.testing.assert_allclose(edges(grid), case["cell_edges"], atol=1e-15)


@pytest.mark.parametrize("row", range(4))
def test_the_series_has_the_right_values_or_refuses(case, row):
    ensemble = Ensemble(case["particles"], case["weights"])
    grid, h = Grid(Box(case["lo"], case["hi"]), 40), case["bandwidth"][row]
    if row == 3:
        with pytest.raises(ValueError, match=r"bandwidth of 0\.002381 on axis 0 .* 1024 nodes"):
            SpectralKDE(grid, h, nodes=1024, coefficients=512, degree=3)
        return
    kde = SpectralKDE(grid, h, nodes=1024, coefficients=512, degree=3)
    sums = deposit(kde, ensemble.positions, ensemble.weights)
    peak = case["density"][row].max()
    np.testing.assert_allclose(at(kde, sums, jnp.asarray(case["x"])[:, None]), case["density"][row], atol=1e-4 * peak)
    cells = case["cell_mass"][row]
    np.testing.assert_allclose(evaluate(kde, sums).values * grid.volume, cells, atol=1e-4 * cells.max())


def test_weights_are_kept_and_tell_in_all_that_follows(case):
    given = case["weights"].copy()
    ensemble = Ensemble(case["particles"], given)
    grid = Grid(Box(case["lo"], case["hi"]), 40)
    found = density(DenseKDE(grid, Scott()), ensemble.positions, ensemble.weights)
    np.testing.assert_array_equal(given, case["weights"])
    np.testing.assert_array_equal(ensemble.weights, case["weights"])
    np.testing.assert_allclose(found.n_eff, case["n_eff"], rtol=1e-12)
    np.testing.assert_allclose(found.bandwidth, [case["scott"]], rtol=1e-12)
    assert float(found.mass) == case["weights"].sum()
    statistics = moments(ensemble.positions, ensemble.weights)
    np.testing.assert_allclose(statistics.mean, [case["weighted_mean"]], rtol=1e-12)
    np.testing.assert_allclose(statistics.covariance, [[case["weighted_var"]]], rtol=1e-12)


# --- one estimator against another ---------------------------------------------------------------------------------


def test_the_series_is_the_sum_of_kernels_at_the_size_that_is_promised():
    grid = Grid(Box(-4.0, 4.0), 100)
    x = np.clip(np.random.default_rng(0).normal(1, 0.7, 50_000), -4, 4)
    found, expected = density(SpectralKDE(grid), x), density(DenseKDE(grid), x)
    assert np.abs(found.values - expected.values).max() < 1e-4 * expected.values.max()
    np.testing.assert_allclose(found.standard_error, expected.standard_error, atol=0.02 * expected.standard_error.max())
    np.testing.assert_allclose(found.bandwidth, expected.bandwidth, rtol=1e-5)


@pytest.mark.parametrize("wall", WALLS)
def test_the_series_knows_each_wall(wall):
    grid, x, points = Grid(Box(-1.0, 2.0, [wall]), 24), 3 * sample(300) - 1, np.linspace(-1, 2, 31)[:, None]
    w = np.random.default_rng(1).random(300)
    fine, dense = SpectralKDE(grid, 0.15, nodes=192, coefficients=120, degree=3), DenseKDE(grid, 0.15)
    found, expected = density(fine, x, w), density(dense, x, w)
    peak = float(expected.values.max())
    np.testing.assert_allclose(found.values, expected.values, atol=2e-6 * peak)
    assert mass(grid, found.values) == pytest.approx(1, abs=1e-12)
    particles = jnp.asarray(x)[:, None], jnp.asarray(w)
    exact = at(dense, *particles, jnp.asarray(points))
    np.testing.assert_allclose(at(fine, deposit(fine, *particles), jnp.asarray(points)), exact, atol=2e-6 * peak)
    if "absorbing" in wall:
        assert abs(float(exact[0 if wall[0] == "absorbing" else -1])) < 1e-12 * peak
    # bars of the sum of kernels are exact; those of the series see particles at the centres of cells
    np.testing.assert_allclose(found.standard_error, expected.standard_error, atol=0.08 * expected.standard_error.max())


@pytest.mark.parametrize("wall", WALLS)
def test_binned_kernels_are_kernels_of_the_centres(wall):
    grid = Grid(Box(-1.0, 2.0, [wall]), 24)
    x = 3 * sample(200) - 1
    at_centres = centres(grid)[np.minimum((x + 1) * 8, 23).astype(int)]
    found, expected = density(BinnedKDE(grid, 0.3), x), density(DenseKDE(grid, 0.3), at_centres)
    np.testing.assert_allclose(found.values, expected.values, atol=1e-12)
    np.testing.assert_allclose(found.standard_error, expected.standard_error, atol=1e-12)


def test_two_dimensions():
    grid = Grid(Box(np.array([0.0, -1.0]), np.ones(2), ["periodic", ("absorbing", "reflecting")]), (12, 10))
    x = np.stack([sample(1500), 2 * sample(1500, 1) - 1], axis=1)
    h = jnp.array([0.08, 0.2])
    fine, dense = SpectralKDE(grid, h, nodes=48, coefficients=40, degree=3), DenseKDE(grid, h)
    found, expected = density(fine, x), density(dense, x)
    peak = float(expected.values.max())
    np.testing.assert_allclose(found.values, expected.values, atol=1e-4 * peak)
    np.testing.assert_allclose(found.standard_error, expected.standard_error, atol=0.1 * expected.standard_error.max())
    points = jnp.asarray(np.random.default_rng(0).random((7, 2)) * np.array([1, 2]) + np.array([0, -1]))
    particles = jnp.asarray(x), jnp.ones(1500)
    exact = at(dense, *particles, points)
    np.testing.assert_allclose(at(fine, deposit(fine, *particles), points), exact, atol=1e-4 * peak)
    binned = density(BinnedKDE(grid, h), x).values
    assert np.abs(binned - expected.values).max() < 0.1 * peak
    counted, _ = np.histogramdd(x, bins=(12, 10), range=[(0, 1), (-1, 1)], density=True)
    np.testing.assert_allclose(density(Histogram(grid), x).values, counted, atol=1e-12)


def test_values_at_centres_are_near_the_means():
    x = sample(N)
    means, values = density(DenseKDE(GRID, 0.1), x).values, density(DenseKDE(GRID, 0.1, mean=False), x).values
    bend = np.gradient(np.gradient(np.asarray(means)))
    np.testing.assert_allclose(means, values, atol=abs(bend).max() / 8)
    np.testing.assert_allclose(values, np.asarray(_plain(x, centres(GRID), 0.1)), rtol=1e-12)


def _plain(x, points, h):
    """Kernels, turned back at 0 and 1, in NumPy."""
    z = np.concatenate([x, -x, 2 - x, x - 2, x + 2])
    return np.exp(-(((np.asarray(points)[:, None] - z) / h) ** 2) / 2).sum(axis=1) / (len(x) * h * np.sqrt(2 * np.pi))


# --- mass and walls ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "word"),
    [(kind, "reflecting") for kind in KINDS]
    + [(kind, word) for kind in ("spectral", "dense") for word in ("periodic", "absorbing")],
)
def test_mass_is_one_for_each_bandwidth(kind, word):
    grid, x = Grid(Box(0.0, 1.0, word), 24), sample(N)
    kde, make = KINDS[kind](grid, 0.1), KINDS[kind]
    bandwidths = [0.025, 0.1, 0.4] if kind == "spectral" else [1e-4, 0.025, 0.1, 0.4]
    for h in bandwidths if kind != "histogram" else [0.1]:
        made = make(grid, h)
        assert jax.tree.structure(made) == jax.tree.structure(kde)
        assert mass(grid, density(made, x).values) == pytest.approx(1, abs=1e-12)


@every_kind
def test_uniform_particles_are_flat_up_to_the_wall(kind):
    x = (np.arange(96 * 24) + 0.5) / (96 * 24)
    np.testing.assert_allclose(density(KINDS[kind](GRID, 0.06), x).values, 1, atol=2e-4 if kind == "dense" else 1e-6)


@pytest.mark.parametrize("kind", ["spectral", "dense"])
def test_kernels_are_turned_back_at_the_box_not_at_the_outermost_particles(kind):
    x = 0.3 + 0.3 * sample(N)
    fine = np.linspace(0, 1, 24 * 40 + 1)
    points = _plain(x, (fine[1:] + fine[:-1]) / 2, 0.08)
    found = density(KINDS[kind](GRID, 0.08), x).values
    np.testing.assert_allclose(found, points.reshape(24, 40).mean(axis=1), atol=3e-4 * points.max())
    beyond = np.asarray(found)[edges(GRID)[1:] < 0.3]
    assert beyond[-1] > 0.05 * found.max()
    assert beyond[0] < 1e-3 * found.max()


def test_the_lowest_mode_between_absorbing_walls_has_no_bias():
    grid = Grid(Box(0.0, 1.0, "absorbing"), 24)
    x = np.arccos(1 - 2 * (np.arange(4000) + 0.5) / 4000) / np.pi
    exact = -np.diff(np.cos(np.pi * edges(grid))) / 2 * 24
    np.testing.assert_allclose(density(SpectralKDE(grid, 0.1), x).values, exact, atol=1e-4)


@every_kind
def test_a_total_counts_as_one_where_walls_have_taken_weight(kind):
    grid, x = Grid(Box(0.0, 1.0, "absorbing"), 24), sample(N)
    w = np.where(np.arange(N) % 4 == 0, 0.0, 1.0)
    kde = eqx.tree_at(lambda k: k.total, KINDS[kind](grid, 0.1), jnp.array(float(N)), is_leaf=lambda x: x is None)
    found = density(kde, x, w)
    assert mass(grid, found.values) == pytest.approx(0.75, abs=1e-12)
    assert float(found.mass) == 0.75 * N
    rest = density(KINDS[kind](grid, 0.1), x, w)
    np.testing.assert_allclose(found.standard_error, 0.75 * rest.standard_error, rtol=1e-12)


@every_kind
def test_particles_outside_are_counted_and_in_no_value(kind):
    x, w = sample(N), np.ones(N)
    x[-3:], w[-3:] = [1.5, -0.1, np.nan], [2.0, 3.0, 5.0]
    kde = KINDS[kind](GRID, 0.1)
    found, inside = density(kde, x, w), density(kde, np.nan_to_num(x), np.where(np.arange(N) < N - 3, w, 0))
    assert (float(found.outside), float(found.mass)) == (10.0, N + 7)
    np.testing.assert_allclose(found.values, inside.values * ((N - 3) / (N + 7)), rtol=1e-12, atol=1e-12)
    assert np.isfinite(found.standard_error).all()


# --- weights, units, order -----------------------------------------------------------------------------------------


@every_kind
def test_weights_count_in_proportion(kind):
    x, w = sample(N), np.arange(N) % 3
    kde = KINDS[kind](GRID, Silverman())
    found = density(kde, x, w)
    scaled = density(kde, x, 1e-6 * w)
    np.testing.assert_allclose(scaled.values, found.values, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(scaled.standard_error, found.standard_error, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(scaled.n_eff, found.n_eff, rtol=1e-12)
    moved = density(kde, np.where(w == 0, 0.9, x), w)
    np.testing.assert_allclose(moved.values, found.values, rtol=1e-12, atol=1e-12)
    nothing = density(kde, x, 0 * w)
    assert float(nothing.mass) == 0
    np.testing.assert_array_equal(nothing.values, 0)


@every_kind
def test_chunks_and_order_do_not_matter(kind):
    x, w = jnp.asarray(sample(N))[:, None], jnp.asarray(np.random.default_rng(0).random(N))
    kde = KINDS[kind](GRID, 0.1)
    whole, order = density(kde, x, w), np.random.default_rng(1).permutation(N)
    sums = jax.tree.map(lambda *s: sum(s), *[deposit(kde, x[i : i + 500], w[i : i + 500]) for i in range(0, N, 500)])
    for other in (evaluate(kde, sums), density(kde, x[order], w[order])):
        for a, b in zip(jax.tree.leaves(other), jax.tree.leaves(whole)):
            np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-12)


@every_kind
@pytest.mark.parametrize("scale", [1e-9, 1e9])
def test_units_do_not_matter(kind, scale):
    x = sample(N)
    expected = density(KINDS[kind](GRID, Silverman()), x)
    grid = Grid(Box(-1.0 * scale, 0.0), 24)
    found = density(KINDS[kind](grid, Silverman()), (x - 1) * scale)
    np.testing.assert_allclose(found.values * scale, expected.values, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(found.standard_error * scale, expected.standard_error, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(found.bandwidth / scale, expected.bandwidth, rtol=1e-9)


@every_kind
def test_single_precision(kind):
    x, rule = sample(N), Silverman()
    expected, found = density(KINDS[kind](GRID, rule), x), density(KINDS[kind](GRID, rule), x.astype(np.float32))
    assert {str(leaf.dtype) for leaf in jax.tree.leaves(found)} == {"float32", "bool"}
    peak = float(expected.values.max())
    loss = 2e-3 if kind in ("histogram", "binned") else 1e-5  # a particle at an edge may change its cell
    np.testing.assert_allclose(found.values, expected.values, atol=loss * peak)
    np.testing.assert_allclose(found.standard_error, expected.standard_error, atol=loss * peak)


# --- transformations -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["spectral", "dense"])
def test_derivatives_by_positions_weights_and_bandwidth(kind):
    x, c = jnp.asarray(sample(300))[:, None] * 0.9 + 0.05, jnp.asarray(np.cos(7 * centres(GRID)))
    push = jnp.sin(5 * x)

    @jax.jit
    def functional(theta):
        kde = KINDS[kind](GRID, Fixed(0.1 * jnp.exp(theta[2])))
        w = jnp.exp(theta[1] * x[:, 0])
        found = kde.evaluate(kde.deposit(x + theta[0] * push, w))
        return jnp.sum(found.values * c) + jnp.sum(found.standard_error)

    theta, eps = jnp.array([0.013, 0.2, 0.1]), 1e-7
    back = jax.grad(functional)(theta)
    if kind == "spectral":
        np.testing.assert_allclose(back, jax.jacfwd(functional)(theta), rtol=1e-9)
    numeric = [(functional(theta + eps * e) - functional(theta - eps * e)) / (2 * eps) for e in np.eye(3)]
    np.testing.assert_allclose(back, numeric, rtol=2e-4)


def test_derivatives_are_finite_where_particles_coincide():
    @jax.jit
    def functional(x):
        kde = SpectralKDE(GRID, nodes=96, coefficients=80)
        found = kde.evaluate(kde.deposit(x, jnp.ones(8)))
        return jnp.sum(found.values**2) + jnp.sum(found.standard_error)

    assert np.isfinite(jax.grad(functional)(jnp.full((8, 1), 0.3))).all()


@every_kind
def test_mapped_over_times_is_the_loop(kind):
    kde = KINDS[kind](GRID, Silverman())
    sums = [deposit(kde, jnp.asarray(sample(N, seed))[:, None], jnp.ones(N)) for seed in range(3)]
    mapped = eqx.filter_jit(lambda sums: jax.vmap(kde.evaluate)(sums))(jax.tree.map(lambda *s: jnp.stack(s), *sums))
    for k, each in enumerate(sums):
        for a, b in zip(jax.tree.leaves(evaluate(kde, each)), jax.tree.leaves(mapped)):
            np.testing.assert_allclose(a, b[k], rtol=1e-12, atol=1e-13)


def test_an_evolution_keeps_densities_and_chunks_do_not_matter():
    box = Box(0.0, 1.0)
    sde = SDE(lambda t, x: 0.5 - x, 0.3, box)
    ensemble = Ensemble(sample(256), key=3)
    save = {"p": SpectralKDE(Grid(box, 24), nodes=96, coefficients=80)}
    whole, cut = (evolve(sde, ensemble, jnp.linspace(0, 0.2, 5), save=save, chunk=chunk)["p"] for chunk in (None, 64))
    assert whole.values.shape == (5, 24)
    np.testing.assert_allclose(jnp.mean(whole.values, axis=1), 1, atol=1e-12)
    for a, b in zip(jax.tree.leaves(whole), jax.tree.leaves(cut)):
        np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-12)


# --- error bars ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "word"),
    [
        ("spectral", "reflecting"),
        ("spectral", "absorbing"),
        ("spectral", "periodic"),
        ("dense", "reflecting"),
        ("binned", "absorbing"),
        ("histogram", "reflecting"),
    ],
)
def test_error_bars_are_the_scatter(kind, word):
    grid = Grid(Box(0.0, 1.0, word), 12)
    kde = KINDS[kind](grid, 0.06)
    x = jnp.asarray(np.random.default_rng(5).beta(2, 1.5, (200, 300, 1)))
    found = jax.jit(jax.vmap(lambda x: kde.evaluate(kde.deposit(x, jnp.ones(300)))))(x)
    scatter, bar = np.std(found.values, axis=0), np.sqrt(np.mean(np.square(found.standard_error), axis=0))
    np.testing.assert_allclose(bar, scatter, rtol=0.15)


def test_errors_fall_with_the_root_of_the_number():
    kde, n = SpectralKDE(GRID, 0.05, nodes=96, coefficients=80), np.array([125, 500, 2000, 8000])
    x = jnp.asarray(np.random.default_rng(0).beta(2, 1.5, (16, 8000, 1)))
    weights = jnp.asarray((np.arange(8000) < n[:, None]).astype(float))
    run = jax.vmap(jax.vmap(lambda x, w: kde.evaluate(kde.deposit(x, w)), (None, 0)), (0, None))
    found = jax.jit(run)(x, weights)
    smooth = np.random.default_rng(1).beta(2, 1.5, 400_000)
    exact = density(kde, smooth).values
    error = np.sqrt(np.mean(np.square(np.asarray(found.values) - np.asarray(exact)), axis=(0, 2)))
    slope = np.polyfit(np.log(n), np.log(error), 1)[0]
    assert slope == pytest.approx(-0.5, abs=0.05)
    np.testing.assert_allclose(np.sqrt(np.mean(np.square(found.standard_error), axis=(0, 2))), error, rtol=0.2)


# --- what is refused -----------------------------------------------------------------------------------------------


def test_a_rule_below_the_nodes_is_replaced_and_says_so():
    kde = SpectralKDE(GRID, nodes=96, coefficients=80)
    found = density(kde, np.full(N, 0.4))
    assert not bool(found.resolved)
    np.testing.assert_allclose(found.bandwidth, kde.narrowest)
    assert mass(GRID, found.values) == pytest.approx(1, abs=1e-12)
    assert bool(density(kde, sample(N)).resolved)


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: SpectralKDE(GRID, 0.001), r"bandwidth of 0\.001 on axis 0 is too narrow for \d+ nodes"),
        (lambda: SpectralKDE(GRID, degree=2), "degree 1 or 3, not 2"),
        (lambda: SpectralKDE(GRID, nodes=(64, 64)), "one for each of 1 axes"),
        (lambda: SpectralKDE(GRID, nodes=64, coefficients=64), "64 nodes carry 2 to 63 coefficients"),
        (lambda: SpectralKDE(GRID, jnp.array([0.1, 0.2])), "the bandwidth has shape"),
        (lambda: density(Histogram(GRID), np.zeros((3, 2))), "positions have 2 axes, but the grid has 1"),
    ],
)
def test_what_cannot_be_is_refused(make, match):
    with pytest.raises(ValueError, match=match):
        make()


def test_only_sums_of_kernels_by_a_rule_need_all_particles_at_once():
    assert DenseKDE(GRID, ISJ()).whole
    assert not any(kde.whole for kde in (DenseKDE(GRID, 0.1), SpectralKDE(GRID), BinnedKDE(GRID), Histogram(GRID)))
