"""ln Z against closed forms and quadrature, in units of its own error; exact draws in place of chains where they do."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from posteriors import Line, Mean, drawn, line_data
from scipy import stats

import jaxsci as js
from jaxsci.sampling._evidence import bridge
from jaxsci.sampling._pose import kind_of, pose

SEEDS = 30


class Linear(js.AbstractModel):
    """Columns times coefficients."""

    c: jax.Array = js.param()

    def __call__(self, x):
        return x @ self.c


@functools.partial(jax.jit, compiler_options=js.compiler_options(once=True))
def bridges(posed, draws, keys):
    return jax.vmap(lambda y, key: bridge(posed, y, key))(draws, keys)


def bridged(solution, data, draws):
    """ln Z of many sets of draws, (seeds, chains, draws, p), each with a key of its own."""
    stacked = jax.tree.map(lambda x: jnp.asarray(x)[None], (solution, js.core.closed(data)))
    fixed = np.asarray(solution.fixed)
    posed = jax.tree.map(lambda x: x[0], pose(*stacked, kind_of(solution, data, fixed)))
    keys = jax.random.split(jax.random.key(1), len(draws))
    return bridges(posed, jnp.asarray(draws), keys)


def is_calibrated(found, value):
    """Errors as large as the deviations, and no deviation of the mean that they do not tell."""
    assert bool(jnp.all(found.known))
    pulls = (np.asarray(found.log_z) - value) / np.asarray(found.std)
    assert abs(pulls.mean()) < 4 / np.sqrt(len(pulls))
    # of 30 seeds this scatters by 13 %, about .8 to 1.1: errors of both halves are added up as if they were the same
    assert 0.55 < pulls.std(ddof=1) < 1.45


def gaussian_case(p, rows=25):
    rng = np.random.default_rng(p)
    x, sigma = rng.standard_normal((rows, p)), rng.uniform(0.2, 0.5, rows)
    mean, sd = rng.standard_normal(p), rng.uniform(0.5, 2, p)
    y = x @ (mean + sd * rng.standard_normal(p)) + sigma * rng.standard_normal(rows)
    data = js.Dataset(x, y, js.Diagonal(sigma))
    solution = js.fit(Linear(jnp.zeros(p)), data, priors={"c": js.Normal(jnp.asarray(mean), jnp.asarray(sd))})
    log_z = stats.multivariate_normal(x @ mean, np.diag(sigma**2) + x @ np.diag(sd**2) @ x.T).logpdf(y)
    return data, solution, log_z


def normal_draws(solution, seeds, seed=0, chains=4, draws=250):
    y, covariance = np.asarray(solution.y), np.asarray(solution.covariance)
    return np.random.default_rng(seed).multivariate_normal(y, covariance, (seeds, chains, draws))


@pytest.mark.parametrize("p", [1, 3, 10])
def test_a_linear_model_has_a_closed_form(p):
    data, solution, log_z = gaussian_case(p)
    found = bridged(solution, data, normal_draws(solution, SEEDS))
    is_calibrated(found, log_z)
    assert np.allclose(found.laplace, log_z, rtol=1e-12)
    assert float(jnp.min(found.overlap)) > 0.9
    assert float(jnp.max(found.std)) < 0.1


def test_draws_that_hang_together_are_worth_less():
    """Chains x <- .8 x + .6 e in place of independent draws: nine times as many tell the same."""
    data, solution, log_z = gaussian_case(1)
    e = np.random.default_rng(5).standard_normal((SEEDS, 4, 1000, 1))
    x = e.copy()
    for t in range(1, 1000):
        x[:, :, t] = 0.8 * x[:, :, t - 1] + 0.6 * e[:, :, t]
    draws = np.asarray(solution.y) + x * np.asarray(solution.standard_errors)
    is_calibrated(bridged(solution, data, draws), log_z)


Y = np.array([0.21, 0.42, 0.13, 0.35])


def cut(density, low=-np.inf, high=np.inf):
    """A density of scipy as it is left between two limits, and where it is not 0."""
    mass = density.cdf(high) - density.cdf(low)
    ends = max(density.ppf(1e-13), low), min(density.isf(1e-13), high)
    return (lambda x: density.pdf(x) / mass), ends


PRIORS = {
    "normal at a bound": (js.Normal(-0.5, 0.3), (0.0, None), cut(stats.norm(-0.5, 0.3), 0)),
    "normal cut twice": (js.Normal(0.5, 1.0), (0.1, 0.4), cut(stats.norm(0.5, 1.0), 0.1, 0.4)),
    "half normal": (js.HalfNormal(0.2), None, cut(stats.halfnorm(scale=0.2))),
    "truncated": (js.TruncatedNormal(0.1, 0.2, 0.0, 2.0), (0.05, None), cut(stats.norm(0.1, 0.2), 0.05, 2.0)),
    "uniform at its end": (js.Uniform(-0.1, 0.2), None, cut(stats.uniform(-0.1, 0.3))),
    "bounds alone": (None, (0.25, 4.0), cut(stats.uniform(0.25, 3.75))),
    "log-normal": (js.LogNormal(0.2, 0.8), None, cut(stats.lognorm(0.8, scale=0.2))),
    "log-normal, cut": (js.LogNormal(0.2, 0.8), (0.25, 1.0), cut(stats.lognorm(0.8, scale=0.2), 0.25, 1.0)),
    "beta": (js.Beta(1.0, 8.0), None, cut(stats.beta(1, 8))),
    "beta, cut": (js.Beta(2.0, 3.0), (0.3, None), cut(stats.beta(2, 3), 0.3)),
}


def on_a_grid(density, ends, log_likelihood, shape, seed=0):
    """(ln Z by quadrature, exact draws by the inverse of the distribution) of one parameter."""
    edges = np.linspace(*ends, 400_001)
    x = (edges[1:] + edges[:-1]) / 2
    weight = density(x) * np.exp(log_likelihood(x))
    cumulative = np.concatenate([[0], np.cumsum(weight)])
    places = np.random.default_rng(seed).uniform(0, cumulative[-1], shape)
    return np.log(cumulative[-1] * (edges[1] - edges[0])), np.interp(places, cumulative, edges)


@pytest.mark.parametrize("name", PRIORS)
def test_every_prior_is_normalised_within_its_bounds(name):
    prior, bounds, (density, ends) = PRIORS[name]
    data = js.Dataset(np.zeros(4), Y, js.White(0.2))
    terms = {"priors": {"a": prior} if prior else None, "bounds": {"a": bounds} if bounds else None}
    log_z, draws = on_a_grid(density, ends, lambda x: stats.norm(Y[:, None], 0.2).logpdf(x).sum(0), (SEEDS, 4, 250))
    start = min(max(0.27, ends[0]), ends[1])
    is_calibrated(bridged(js.fit(Mean(start), data, **terms), data, draws[..., None]), log_z)


def test_counts_have_their_factorials():
    counts = np.array([3.0, 0.0, 5.0, 2.0])
    data = js.Dataset(np.zeros(4), counts, js.Poisson(counts))
    density, ends = cut(stats.lognorm(0.5, scale=2.0))
    log_z, draws = on_a_grid(density, ends, lambda x: stats.poisson(x).logpmf(counts[:, None]).sum(0), (SEEDS, 4, 250))
    is_calibrated(bridged(js.fit(Mean(1.0), data, priors={"a": js.LogNormal(2.0, 0.5)}), data, draws[..., None]), log_z)


def line_fit(data, unit=1.0, scale=1.0, slope=1.0, **terms):
    """A line with priors, in other units of the slope and of the data."""
    priors = {"slope": js.Normal(1.0 / unit * scale, 1.0 / unit * scale), "offset": js.Normal(0.0, 2.0 * scale)}
    other = js.Dataset(data.inputs * unit, data.observed * scale, js.White(0.3 * scale), data.mask)
    return other, js.fit(Line(slope * scale / unit, 0.0), other, priors=priors, **terms)


def test_units_of_parameters_do_not_matter_and_those_of_data_do():
    data = line_data(noise=js.White(0.3))
    other, solution = line_fit(data)
    draws = normal_draws(solution, 2)
    first = bridged(solution, other, draws)
    other, solution = line_fit(data, unit=1e3)
    assert np.allclose(bridged(solution, other, draws / [1e3, 1]).log_z, first.log_z, atol=1e-8)
    other, solution = line_fit(data, scale=1e-6)
    assert np.allclose(bridged(solution, other, draws * 1e-6).log_z - first.log_z, 12 * np.log(1e6), atol=1e-8)


def test_rows_that_are_masked_do_not_count():
    data = line_data(noise=js.White(0.3))
    more = js.Dataset(
        np.append(data.inputs, [5.0, 6.0]), np.append(data.observed, [9.0, np.nan]), data.noise, np.arange(14) < 12
    )
    other, solution = line_fit(data)
    draws = normal_draws(solution, 2)
    first = bridged(solution, other, draws)
    other, solution = line_fit(more)
    assert np.allclose(bridged(solution, other, draws).log_z, first.log_z, atol=1e-8)


def test_nested_models_have_the_ratio_of_savage_and_dickey():
    """B = posterior density over prior density of the larger model, where the smaller one holds its parameter."""
    data = line_data(noise=js.White(0.3), slope=0.4)
    larger, free = line_fit(data)
    smaller, held = line_fit(data, slope=0.0, bounds={"slope": (0.0, 0.0)})
    one, two = (
        bridged(solution, data, normal_draws(solution, SEEDS)) for data, solution in ((smaller, held), (larger, free))
    )
    posterior = stats.norm(float(free.y[0]), float(free.standard_errors[0])).logpdf(0.0)
    difference = np.asarray(one.log_z - two.log_z)
    std = np.hypot(np.asarray(one.std), np.asarray(two.std)) / np.sqrt(SEEDS)
    assert abs(difference.mean() - (posterior - stats.norm(1.0, 1.0).logpdf(0.0))) < 4 * std.mean()


@pytest.fixture(scope="module")
def sampled():
    """A mean and the standard deviation of its noise, bent and bounded, as the sampler draws it."""
    data = js.Dataset(np.zeros(4), Y, js.White(0.2))
    priors = {"a": js.Normal(0.0, 1.0), "noise.sigma": js.LogNormal(0.2, 1.0)}
    return drawn(js.fit(Mean(0.27), data, free=("a", "noise.sigma"), priors=priors), data, num_samples=2000)


def test_chains_tell_a_noise_that_is_free_and_bent(sampled):
    a, s = np.meshgrid(np.linspace(-5, 5, 2001), np.exp(np.linspace(-5, 5, 1001)), indexing="ij")
    log = sum(stats.norm(a, s).logpdf(y) for y in Y) + stats.norm(0, 1).logpdf(a)
    log = log + stats.norm(np.log(0.2), 1.0).logpdf(np.log(s))  # over ln s
    log_z = np.log(np.exp(log).sum() * 5e-3 * 1e-2)
    found = sampled.log_evidence(jax.random.key(3))
    assert abs(float(found.log_z) - log_z) < 4 * float(found.std)
    assert float(found.std) < 0.05
    assert "ln Z = " in str(found)


def test_it_can_be_mapped_over_keys(sampled):
    keys = jax.random.split(jax.random.key(0), 2)
    many = jax.vmap(sampled.log_evidence)(keys)
    assert jnp.allclose(many.log_z[1], sampled.log_evidence(keys[1]).log_z, rtol=1e-9)
    assert many.log_z[0] != many.log_z[1]


def test_what_the_gaussian_does_not_meet_is_not_known():
    """Two narrow peaks far apart: with the first half of each chain on one and the second on the other, and mixed."""

    class Square(js.AbstractModel):
        a: js.Scalar = js.param()

        def __call__(self, x):
            return self.a**2 * jnp.ones_like(x)

    data = js.Dataset(np.zeros(4), 25 + Y, js.White(0.2))
    solution = js.fit(Square(5.0), data, priors={"a": js.Normal(0.0, 10.0)})
    draws = normal_draws(solution, 2)
    draws[0, :, 125:] *= -1
    draws[1] *= np.random.default_rng(0).choice([-1, 1], draws[1].shape)
    found = bridged(solution, data, draws)
    assert not bool(jnp.any(found.known))
    assert bool(jnp.all(jnp.isnan(found.std)))
    assert "not known" in str(jax.tree.map(lambda x: x[0], found))


def test_a_batch_is_its_members_and_improper_ones_are_refused():
    data = [line_data(seed=k, noise=js.White(0.3)) for k in range(3)]
    data[1] = js.Dataset(data[1].inputs, data[1].observed, data[1].noise, np.zeros(12, bool))
    priors = {"slope": js.Normal(1.0, 1.0), "offset": js.Normal(0.0, 2.0)}
    posteriors = drawn(js.fit_batch(Line(1.0, 0.0), data, priors=priors), data, num_samples=200)
    found = posteriors.log_evidence(jax.random.key(0))
    assert np.array_equal(np.asarray(found.known), [True, False, True])
    for k in (0, 2):
        x = np.stack([data[k].inputs, np.ones(12)], 1)
        covariance = 0.09 * np.eye(12) + x @ np.diag([1.0, 4.0]) @ x.T
        log_z = stats.multivariate_normal(x @ [1.0, 0.0], covariance).logpdf(data[k].observed)
        assert abs(float(found.log_z[k]) - log_z) < 4 * float(found.std[k])
        one = posteriors[k].log_evidence(jax.random.key(0))
        assert abs(float(found.log_z[k] - one.log_z)) < 5 * float(one.std)
    with pytest.raises(ValueError, match="there is no posterior: its fit failed"):
        posteriors[1].log_evidence(jax.random.key(0))
    one = posteriors[0]
    with pytest.raises(ValueError, match="another than the chains saw"):
        type(one)(**{**vars(one), "data": data[2]}).log_evidence(jax.random.key(0))


class Odd(js.AbstractPrior):
    """A density that does not say how much of it lies between two limits."""

    scale: js.Scalar

    def log_density(self, value):
        return -jnp.log1p((value / self.scale) ** 2) - jnp.log(jnp.pi * self.scale)

    def mode(self):
        return jnp.zeros_like(self.scale)


REFUSED = {
    r"proper priors, and that of slope is flat without end": {"priors": {"offset": js.Normal(0.0, 1.0)}},
    r"that of slope, offset is flat": {"bounds": {"slope": (0.0, None)}},
    r"Odd, the prior of slope, is cut": {
        "priors": {"slope": Odd(jnp.asarray(1.0)), "offset": js.Normal(0.0, 1.0)}, "bounds": {"slope": (0.0, None)},
    },
    r"the loss Huber is no likelihood": {"loss": js.Huber(1.0)},
    r"scale of the noise is unknown, and its prior 1/sigma": {"scale_covariance": True},
}  # fmt: skip


@pytest.mark.parametrize("why", REFUSED)
def test_what_is_no_density_is_refused_by_name(why):
    data = line_data(noise=js.White(0.3))
    solution = js.fit(Line(1.0, 0.5), data, **REFUSED[why])
    scaled = kind_of(solution, data, np.asarray(solution.fixed)).free_scale
    numbers, steps = jnp.zeros((1, 50)), jnp.ones((1, 50), int)
    draws, first = jnp.zeros((1, 50, 2)), jnp.zeros((1, 2))
    posterior = js.Posterior(solution, data, draws, first, numbers, numbers, steps < 0, steps, numbers, 6, scaled)
    with pytest.raises(ValueError, match=why):
        posterior.log_evidence(jax.random.key(0))


def test_members_with_parameters_in_common_have_one_evidence():
    data = [line_data(8, seed, js.White(0.3)) for seed in range(2)]
    priors = {"slope": js.Normal(1.5, 0.2), "offset": js.Normal(0.0, 1.0)}
    posteriors = drawn(js.fit_batch(Line(1.0, 0.0), data, shared="slope", priors=priors), data, num_samples=50)
    for one in (posteriors, posteriors[0]):
        with pytest.raises(ValueError, match="share parameters"):
            one.log_evidence(jax.random.key(0))
