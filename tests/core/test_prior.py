"""Priors: normalised densities, and the cost, slope and curvature by which a fit takes them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

import jaxsci as js

PRIORS = {  # the prior, the same density by SciPy, and a few values within its support
    "normal": (js.Normal(2.0, 0.5), scipy.stats.norm(2.0, 0.5), [1.0, 2.0, 3.5]),
    "half normal": (js.HalfNormal(0.3), scipy.stats.halfnorm(0.0, 0.3), [0.0, 0.1, 2.0]),
    "uniform": (js.Uniform(-1.0, 3.0), scipy.stats.uniform(-1.0, 4.0), [-1.0, 0.4, 3.0]),
    "truncated": (js.TruncatedNormal(1.0, 2.0, 0.5, 4.0), scipy.stats.truncnorm(-0.25, 1.5, 1.0, 2.0), [0.5, 1.0, 4.0]),
    "one limit": (js.TruncatedNormal(1.0, 2.0, 0.5), scipy.stats.truncnorm(-0.25, np.inf, 1.0, 2.0), [0.5, 9.0]),
    "far tail": (js.TruncatedNormal(0.0, 1.0, 9.0, 10.0), scipy.stats.truncnorm(9, 10), [9.0, 9.2, 10.0]),
    "log normal": (js.LogNormal(3e-4, 1.2), scipy.stats.lognorm(1.2, scale=3e-4), [1e-6, 3e-4, 0.2]),
    "beta": (js.Beta(2.0, 3.5), scipy.stats.beta(2.0, 3.5), [0.02, 0.3, 0.97]),
    "beta at an edge": (js.Beta(1.0, 3.0), scipy.stats.beta(1.0, 3.0), [0.0, 0.3, 0.97]),
}


@pytest.mark.parametrize("name", PRIORS)
def test_log_density_is_scipys(name):
    prior, peer, values = PRIORS[name]
    value = jnp.array(values)
    np.testing.assert_allclose(prior.log_density(value), peer.logpdf(values), rtol=1e-12, atol=1e-12)
    assert float(prior.log_prob(value)) == pytest.approx(peer.logpdf(values).sum(), rel=1e-12)
    outside = [x for x in (-50.0, 50.0) if not np.isfinite(peer.logpdf(x))]
    assert np.all(np.asarray(prior.log_density(jnp.array(outside))) == -np.inf)


@pytest.mark.parametrize("name", PRIORS)
def test_the_cost_vanishes_at_the_mode_and_nowhere_below(name):
    prior, peer, values = PRIORS[name]
    low, high = (float(end) for end in prior.support())
    mode = float(prior.mode())
    assert low <= mode <= high
    assert float(prior.cost(jnp.asarray(mode))) == 0
    near = np.clip(mode * np.linspace(0.5, 1.5, 41), low, high)
    assert np.all(np.asarray(prior.cost(jnp.asarray(near))) >= -1e-13)
    np.testing.assert_allclose(
        prior.cost(jnp.array(values)), peer.logpdf(mode) - peer.logpdf(values), rtol=1e-10, atol=1e-12
    )


@pytest.mark.parametrize("name", PRIORS)
def test_slope_and_row_agree_with_the_cost(name):
    """The slope is the derivative, the curvature is not negative, and half the square of the row is the cost."""
    prior, _, values = PRIORS[name]
    low, high = (float(end) for end in prior.support())
    inner = jnp.array([x for x in values if low < x < high])
    step = 1e-6 * jnp.abs(inner)
    slope = (prior.cost(inner + step) - prior.cost(inner - step)) / (2 * step)
    np.testing.assert_allclose(prior.slope(inner), slope, rtol=2e-6, atol=1e-8)
    assert np.all(np.asarray(prior.curvature(inner)) >= 0)
    np.testing.assert_allclose(prior.row(inner) ** 2 / 2, prior.cost(inner), rtol=1e-10, atol=1e-14)
    near = prior.mode() * jnp.array([1 - 1e-9, 1.0, 1 + 1e-9])
    if name != "uniform" and low < float(prior.mode()) < high:
        assert np.all(np.diff(np.asarray(prior.row(near))) > 0), "a straight line through the mode"
        assert np.all(np.isfinite(jax.vmap(jax.grad(prior.row))(near)))


@pytest.mark.parametrize("name", PRIORS)
def test_priors_pass_under_all_transformations(name):
    prior, _, values = PRIORS[name]
    value = jnp.array(values[1:2])
    whole = jax.jit(jax.vmap(jax.grad(lambda p, x: p.log_prob(x), argnums=1), in_axes=(None, 0)))(prior, value[:, None])
    np.testing.assert_allclose(whole[:, 0], -prior.slope(value), rtol=1e-12, atol=1e-300)
    single = jax.tree.map(lambda x: x.astype(jnp.float32), prior)
    assert single.cost(value.astype(jnp.float32)).dtype == jnp.float32


WRONG = {
    "half normal": (lambda: js.HalfNormal(0.0), "HalfNormal: sigma should be positive, but it is 0"),
    "normal": (lambda: js.Normal(0.0, -1.0), "Normal: sigma should be positive"),
    "uniform": (lambda: js.Uniform(1.0, 1.0), "Uniform: upper should be finite, and above lower"),
    "truncated": (lambda: js.TruncatedNormal(0.0, 1.0, 2.0, 1.0), "TruncatedNormal: upper should be above lower"),
    "log normal": (lambda: js.LogNormal(-1.0, 1.0), "LogNormal: median should be positive and finite"),
    "beta": (lambda: js.Beta(0.5, 2.0), "Beta: alpha should be at least 1"),
}


@pytest.mark.parametrize("name", WRONG)
def test_senseless_priors_are_named(name):
    make, message = WRONG[name]
    with pytest.raises(ValueError, match=message):
        make()
