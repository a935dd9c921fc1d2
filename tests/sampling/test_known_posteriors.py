"""Draws against posteriors that are known in closed form: within four Monte Carlo standard errors."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from posteriors import Line, Mean, drawn, line_data, off

import jaxsci as js


@pytest.fixture(scope="module")
def cases(shared_data):
    with np.load(shared_data / "xpcs" / "cases" / "sampling_closed_forms.npz") as file:
        return dict(file)


def check_moments(x, mean, sd):
    assert off(x, mean) < 4
    assert off(x, sd**2, lambda x: (x - mean) ** 2) < 4


@pytest.mark.parametrize("case", ["A", "B"])
def test_a_gaussian_cut_by_bounds(cases, case):
    """The fit lies on the bound, where no curvature of its own tells the width of what is left."""
    y, lower, upper = cases["y"], float(cases["lower"]), float(cases["upper"])
    data = js.Dataset(np.zeros_like(y), y, js.White(float(cases["sigma"])))
    bounds = {"a": (lower, upper if case == "B" else None)}
    solution = js.fit(Mean(0.1), data, bounds=bounds)
    assert int(solution.at_bound[0]) == -1
    posterior = drawn(solution, data, num_samples=2000)
    x = posterior.samples("a")
    check_moments(x, *cases[case])
    assert jnp.all((x >= lower) & (x <= bounds["a"][1]) if case == "B" else x >= lower)
    assert posterior.divergences == 0
    if case == "A":
        for p, value in zip((0.025, 0.5, 0.975), cases["A_quantiles"], strict=True):
            assert off(x, p, lambda x, value=value: (x <= value).astype(float)) < 4


def test_noise_of_unknown_scale_is_integrated(cases):
    """Student's t: a sampler that takes the scale as 1 gives .289 in place of .132."""
    y = cases["y"]
    data = js.Dataset(np.zeros_like(y), y)
    x = drawn(js.fit(Mean(0.0), data), data, num_samples=2000).samples("a")
    check_moments(x, *cases["C"])
    for p, value in zip((0.025, 0.5, 0.975), cases["C_quantiles"], strict=True):
        assert off(x, p, lambda x, value=value: (x <= value).astype(float)) < 4


def test_priors_are_not_scaled_with_the_noise(cases):
    """With noise of unknown scale and a prior of known width: against the density on a fine grid."""
    y, grid = cases["y"], np.linspace(-2, 2, 20_001)
    data = js.Dataset(np.zeros_like(y), y)
    solution = js.fit(Mean(0.0), data, priors={"a": js.Normal(0.3, 0.1)})
    log = -len(y) / 2 * np.log(((y[:, None] - grid) ** 2).sum(0)) - ((grid - 0.3) / 0.1) ** 2 / 2
    weight = np.exp(log - log.max())
    mean = np.average(grid, weights=weight)
    sd = np.sqrt(np.average((grid - mean) ** 2, weights=weight))
    check_moments(drawn(solution, data, num_samples=2000).samples("a"), mean, sd)


@pytest.mark.slow
def test_errors_scaled_by_the_scatter_are_a_scale_that_is_unknown(cases):
    """`scale_covariance=True` says that the noise is known but for a factor: the same posterior as without a noise."""
    y = cases["y"]
    data = js.Dataset(np.zeros_like(y), y, js.White(7.0))
    posterior = drawn(js.fit(Mean(0.0), data, scale_covariance=True), data, num_samples=2000)
    assert posterior.free_scale
    check_moments(posterior.samples("a"), *cases["C"])


NOISES = [
    js.White(0.3),
    pytest.param(js.LowRank(js.White(0.3), np.ones((12, 1)), np.array([0.25])), marks=pytest.mark.slow),
]


@pytest.mark.parametrize("noise", NOISES, ids=lambda noise: type(noise).__name__)
def test_a_linear_model_has_the_covariance_of_its_fit(noise):
    data = line_data(noise=noise)
    solution = js.fit(Line(1.0, 0.0), data)
    posterior = drawn(solution, data, num_samples=1500)
    y, covariance = np.asarray(solution.y), np.asarray(solution.covariance)
    for k, name in enumerate(solution.names):
        check_moments(posterior.samples(name), y[k], covariance[k, k] ** 0.5)
    product = (np.asarray(posterior.draws)[..., 0] - y[0]) * (np.asarray(posterior.draws)[..., 1] - y[1])
    assert off(product, covariance[0, 1]) < 4
    assert posterior.check()


@pytest.mark.slow
def test_what_only_bounds_determine_is_uniform_between_them():
    """All points at x = 0: the data say nothing of the slope, but its bounds do."""
    x = np.zeros(12)
    y = 1 + 0.3 * np.random.default_rng(6).standard_normal(12)
    data = js.Dataset(x, y, js.White(0.3))
    solution = js.fit(Line(1.0, 0.5), data, bounds={"slope": (0.0, 2.0)}, throw=False)
    assert not bool(solution.determined[0])
    posterior = drawn(solution, data, num_samples=1500)
    check_moments(posterior.samples("slope"), 1.0, 2 / np.sqrt(12))
    check_moments(posterior.samples("offset"), y.mean(), 0.3 / np.sqrt(12))
    assert posterior.check()


def test_counts_have_a_gamma_posterior():
    """Of a constant rate and Poisson counts, flat prior: Gamma(sum k + 1, n)."""
    counts = np.random.default_rng(3).poisson(2.0, 12).astype(float)
    data = js.Dataset(np.zeros(12), counts, js.Poisson(counts))
    posterior = drawn(js.fit(Mean(1.0), data, bounds={"a": (0, None)}), data, num_samples=1500)
    shape = counts.sum() + 1
    check_moments(posterior.samples("a"), shape / 12, shape**0.5 / 12)
    assert "coverage" in posterior.check().values


@pytest.mark.slow
def test_chains_that_would_start_nowhere_start_at_the_fit():
    """One count in all, without a bound at 0: most starts a standard error away are rates below 0 or far from it."""
    counts = np.zeros(12)
    counts[3] = 1
    data = js.Dataset(np.zeros(12), counts, js.Poisson(counts))
    posterior = drawn(js.fit(Mean(0.2), data), data, jitter=2.0, num_chains=8)
    assert jnp.all(posterior.first > 0)
    assert jnp.all(posterior.samples("a") > 0)


def test_free_noise_counts_with_its_determinant():
    """A mean and sigma, both flat: sigma^-n exp(-S / 2 sigma^2) over sigma alone is sigma^-(n - 1)."""
    rng = np.random.default_rng(4)
    y = 0.3 * rng.standard_normal(12)
    data = js.Dataset(np.zeros(12), y, js.White(0.2))
    solution = js.fit(Mean(0.0), data, free=("a", "noise.sigma"))
    sigma = drawn(solution, data, num_samples=2000).samples("noise.sigma")
    n, square = len(y), ((y - y.mean()) ** 2).sum()
    grid = np.linspace(1e-3, 5, 200_001)
    log = -(n - 1) * np.log(grid) - square / 2 / grid**2
    weight = np.exp(log - log.max())
    mean = np.average(grid, weights=weight)
    assert off(sigma, mean) < 4
    assert off(sigma, np.average((grid - mean) ** 2, weights=weight), lambda x: (x - mean) ** 2) < 4


@pytest.mark.slow
def test_a_robust_loss_is_sampled_as_it_was_fitted():
    y = np.array([0.1, -0.2, 0.05, 0.3, -0.1, 0.2, -0.3, 0.15, 0.0, -0.05, 0.1, 30.0])
    data = js.Dataset(np.zeros(12), y, js.White(0.2))
    posterior = drawn(js.fit(Mean(0.0), data, loss=js.Huber(1.0)), data, num_samples=1500)
    grid = np.linspace(-1, 1.5, 20_001)
    z = (grid - y[:, None]) / 0.2
    rho = np.where(np.abs(z) <= 1, z * z / 2, np.abs(z) - 0.5).sum(0)
    weight = np.exp(-(rho - rho.min()))
    mean = np.average(grid, weights=weight)
    check_moments(posterior.samples("a"), mean, np.sqrt(np.average((grid - mean) ** 2, weights=weight)))
    assert "coverage" in posterior.check().skipped


@pytest.mark.parametrize(
    ("prior", "density"),
    [
        (js.LogNormal(0.2, 0.5), lambda x: -np.log(x) - (np.log(x / 0.2) / 0.5) ** 2 / 2),
        (js.HalfNormal(0.1), lambda x: -((x / 0.1) ** 2) / 2),
    ],
    ids=["lognormal", "halfnormal"],
)
def test_priors_of_other_shapes(cases, prior, density):
    y, sigma, grid = cases["y"], float(cases["sigma"]), np.linspace(1e-5, 2, 200_001)
    data = js.Dataset(np.zeros_like(y), y, js.White(sigma))
    solution = js.fit(Mean(0.1), data, priors={"a": prior})
    log = density(grid) - ((y[:, None] - grid[None]) ** 2).sum(0) / 2 / sigma**2
    weight = np.exp(log - log.max())
    mean = np.average(grid, weights=weight)
    sd = np.sqrt(np.average((grid - mean) ** 2, weights=weight))
    check_moments(drawn(solution, data, num_samples=2000).samples("a"), mean, sd)


@pytest.mark.slow
def test_single_precision(cases):
    """Draws of float32 data are float32, and as right as they can be."""
    y = cases["y"].astype(np.float32)
    noise = js.White(jnp.float32(cases["sigma"]))
    data = js.Dataset(np.zeros_like(y), jnp.asarray(y), noise)
    solution = js.fit(Mean(jnp.float32(0.1)), data, bounds={"a": (float(cases["lower"]), None)})
    posterior = drawn(solution, data, num_samples=1000)
    assert posterior.draws.dtype == jnp.float32
    check_moments(posterior.samples("a"), *cases["A"])


def test_a_member_on_its_bound_starts_a_hundredth_of_its_error_inside(cases):
    y = cases["y"]
    data = js.Dataset(np.zeros_like(y), y, js.White(float(cases["sigma"])))
    solution = js.fit(Mean(0.1), data, bounds={"a": (float(cases["lower"]), None)})
    first = drawn(solution, data, jitter=0.0, num_samples=50).first
    assert jnp.all((first > 0) & (first <= 0.011 * solution.standard_errors[0]))


def test_without_jitter_chains_start_at_the_fit():
    data = line_data(noise=js.White(0.3))
    solution = js.fit(Line(1.0, 0.0), data)
    posterior = drawn(solution, data, jitter=0.0, num_samples=50)
    assert jnp.allclose(posterior.first, solution.y[None, :], rtol=1e-13)
    assert not jnp.array_equal(posterior.draws[0], posterior.draws[1])
    moved = drawn(solution, data, num_samples=50).first
    z = jnp.linalg.solve(jnp.linalg.cholesky(solution.covariance), (moved - solution.y[None, :]).T)
    assert 0.2 < float(jnp.std(z)) < 3


def test_tiny_scales_keep_their_digits():
    """tau = 1e-7 beside a bound of 0: draws, table and diagnostics at their own scale."""
    y = 1e-7 * (1 + 0.05 * np.random.default_rng(5).standard_normal(12))
    data = js.Dataset(np.zeros(12), y, js.White(5e-9))
    solution = js.fit(Mean(2e-7), data, bounds={"a": (0, None)})
    posterior = drawn(solution, data, num_samples=1000)
    check_moments(posterior.samples("a"), float(solution.y[0]), float(solution.standard_errors[0]))
    assert f"{posterior.summary()['mean'][0]:.2e}"[:4] in repr(posterior)


@pytest.mark.slow
def test_fixed_parameters_are_left_out():
    data = line_data(noise=js.White(0.3))
    solution = js.fit(Line(1.0, 0.7), data, bounds={"offset": (0.7, 0.7)})
    posterior = drawn(solution, data, num_samples=500)
    assert posterior.names == ("slope",)
    assert jnp.all(posterior.samples("offset") == 0.7)
    check_moments(posterior.samples("slope"), float(solution.y[0]), float(solution.standard_errors[0]))


@pytest.mark.slow
def test_posteriors_are_calibrated():
    """Simulation-based calibration (Talts et al. 2018): ranks of the truth among its draws are uniform."""
    rng = np.random.default_rng(8)
    count, rows = 400, 8
    x = np.linspace(0, 1, rows)
    truth = np.stack([rng.normal(1.0, 0.5, count), rng.normal(0.0, 1.0, count)], 1)
    data = [js.Dataset(x, o + s * x + 0.5 * rng.standard_normal(rows), js.White(0.5)) for s, o in truth]
    fits = js.fit_batch(Line(1.0, 0.0), data, priors={"slope": js.Normal(1.0, 0.5), "offset": js.Normal(0.0, 1.0)})
    posteriors = js.sampling.sample(fits, data, key=jax.random.key(3), num_samples=1000)
    for k, name in enumerate(("slope", "offset")):
        ranks = [int((np.asarray(p.samples(name))[:, ::10] < truth[i, k]).sum()) for i, p in enumerate(posteriors)]
        counts = np.histogram(ranks, 10, (0, 401))[0]
        assert ((counts - count / 10) ** 2).sum() / (count / 10) < 27.9  # chi2 of 9 degrees of freedom, 1e-3
