"""Leave-one-out against closed forms of linear Gaussian models, and against what leaving rows out should not change."""

import warnings

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import pytest
from posteriors import Line, Mean, drawn, line_data
from scipy import stats

import jaxsci as js
from jaxsci.sampling._leave_one_out import log_likelihoods

PRIORS = {"slope": js.Normal(1.0, 1.0), "offset": js.Normal(0.0, 2.0)}
X = np.asarray(line_data().inputs)
MODES = np.stack([np.ones(12), X**2], 1)
COVARIANCE = 0.09 * np.eye(12) + MODES @ np.diag([0.25, 0.1]) @ MODES.T
NOISES = {
    "White": (js.White(0.3), 0.09 * np.eye(12)),
    "LowRank": (js.LowRank(js.White(0.3), MODES, np.array([0.25, 0.1])), COVARIANCE),
    "Dense": (js.Dense(COVARIANCE), COVARIANCE),
}


def exact(y, covariance):
    """ln p(y_i | all others) of a line with the priors above: parts of the normal distribution of all rows."""
    columns = np.stack([X, np.ones(12)], 1)
    inverse = np.linalg.inv(covariance + columns @ np.diag([1.0, 4.0]) @ columns.T)
    off = inverse @ (y - X) / np.diagonal(inverse)
    return stats.norm(0, np.diagonal(inverse) ** -0.5).logpdf(off)


@pytest.mark.parametrize("name", NOISES)
def test_a_linear_model_has_a_closed_form(name):
    noise, covariance = NOISES[name]
    data = line_data(noise=noise)
    found = drawn(js.fit(Line(1.0, 0.0), data, priors=PRIORS), data, num_samples=1500).loo()
    assert np.allclose(found.pointwise, exact(np.asarray(data.observed), covariance), atol=0.03)
    assert found.elpd == pytest.approx(found.pointwise.sum(), rel=1e-9)
    assert found.std == pytest.approx(np.sqrt(12 * np.var(found.pointwise)), rel=1e-9)
    assert found.doubtful.size == 0
    assert "elpd = " in str(found)


@pytest.fixture(scope="module")
def posterior():
    data = line_data(noise=js.White(0.3))
    return drawn(js.fit(Line(1.0, 0.0), data, priors=PRIORS), data, num_samples=500)


def test_neither_the_order_of_rows_nor_padding_matters(posterior):
    data = posterior.data
    order = np.random.default_rng(0).permutation(12)
    x, y = np.asarray(data.inputs)[order], np.asarray(data.observed)[order]
    more = js.Dataset(np.append(x, [5.0, 6.0]), np.append(y, [9.0, 7.0]), data.noise, np.arange(14) < 12)
    first, other = posterior.loo(), eqx.tree_at(lambda p: p.data, posterior, more).loo()
    assert np.array_equal(other.rows, np.arange(12))
    assert np.allclose(other.pointwise, first.pointwise[order], rtol=1e-9)
    assert np.allclose(other.pareto_k, first.pareto_k[order], rtol=1e-6)


@pytest.mark.parametrize("name", ["LowRank", "Dense"])
def test_masked_rows_of_correlated_noise_are_as_if_they_were_not_there(posterior, name):
    keep = np.arange(12) != 4
    noise = NOISES[name][0]
    fewer = js.Dense(COVARIANCE[np.ix_(keep, keep)])
    masked, without = (
        log_likelihoods(eqx.tree_at(lambda p: p.data, posterior, data))
        for data in (
            js.Dataset(posterior.data.inputs, posterior.data.observed, noise, keep),
            js.Dataset(posterior.data.inputs[keep], posterior.data.observed[keep], fewer),
        )
    )
    assert np.allclose(masked, without, rtol=1e-8)


def test_a_scale_that_is_unknown_is_integrated():
    """Of each draw Student's t of n - 1 degrees of freedom, and its scale is that of the other rows."""
    data = line_data()
    posterior = drawn(js.fit(Line(1.0, 0.0), data), data, num_samples=500)
    found = log_likelihoods(posterior)[1, 7]
    y = np.asarray(posterior.draws)[1, 7]
    residual = np.asarray(data.observed) - y[0] * X - y[1]
    others = np.sqrt(((residual**2).sum() - residual**2) / 11)
    assert np.allclose(found, stats.t(11, 0, others).logpdf(residual), rtol=1e-9)


def test_counts():
    counts = np.array([3.0, 0.0, 5.0, 2.0])
    data = js.Dataset(np.zeros(4), counts, js.Poisson(counts))
    posterior = drawn(js.fit(Mean(1.0), data, bounds={"a": (0, None)}), data, num_samples=50)
    rate = np.asarray(posterior.draws)[..., 0]
    assert np.allclose(log_likelihoods(posterior), stats.poisson(rate[..., None]).logpmf(counts), rtol=1e-9)


def test_a_noise_that_is_free_is_that_of_each_draw():
    data = js.Dataset(np.zeros(12), np.asarray(line_data().observed), js.White(0.5))
    posterior = drawn(js.fit(Mean(0.0), data, free=("a", "noise.sigma")), data, num_samples=50)
    a, sigma = np.moveaxis(np.asarray(posterior.draws), -1, 0)[..., None]
    expected = stats.norm(a, sigma).logpdf(np.asarray(data.observed))
    assert np.allclose(log_likelihoods(posterior), expected, rtol=1e-9)


def test_a_row_that_decides_alone_is_named():
    """One row far from all others tells the slope: no draw knows what would be without it."""
    x = np.append(np.zeros(6), 30.0)
    y = np.append(0.1 * np.random.default_rng(0).standard_normal(6), 60.0)
    data = js.Dataset(x, y, js.White(0.1))
    posterior = drawn(js.fit(Line(1.0, 0.0), data), data, num_samples=500)
    with pytest.warns(UserWarning, match=r"Pareto k is above 0.7 for 1 rows \(6\)"):
        found = posterior.loo()
    assert list(found.doubtful) == [6]
    assert "not to be believed" in str(found)


def test_differences_have_errors_of_their_own(posterior):
    data = posterior.data
    flat = drawn(js.fit(Mean(0.0), data), data, num_samples=500)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        line, mean = posterior.loo(), flat.loo()
    apart = line.less(mean)
    assert apart.elpd == pytest.approx(line.elpd - mean.elpd, rel=1e-9)
    assert apart.elpd > 3 * apart.std > 0
    with pytest.raises(ValueError, match="different rows"):
        line.less(eqx.tree_at(lambda x: x.rows, mean, mean.rows + 1))


def test_arviz_gets_the_rows_that_are_used(posterior):
    groups = posterior.to_arviz(log_likelihood=True)
    assert groups["log_likelihood"]["observed"].dims == ("chain", "draw", "row")
    shorter = eqx.tree_at(lambda p: p.data.mask, posterior, jnp.arange(12) != 4).to_arviz(log_likelihood=True)
    for group in ("log_likelihood", "observed_data"):
        assert list(np.asarray(shorter[group]["row"])) == [*range(4), *range(5, 12)]
    with pytest.raises(KeyError):
        posterior.to_arviz()["log_likelihood"]


def test_what_is_no_density_of_rows_is_refused():
    data = line_data(noise=js.White(0.3))
    posterior = drawn(js.fit(Line(1.0, 0.5), data, loss=js.Huber(1.0)), data, num_samples=50, num_chains=1)
    with pytest.raises(ValueError, match="the loss Huber is no likelihood"):
        posterior.loo()
