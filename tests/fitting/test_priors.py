"""Fits with priors of any shape: the greatest posterior density, found by brute force too."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize
import scipy.stats
from helpers import same_bits

import jaxsci as js


class Line(js.AbstractModel):
    a: jax.Array = js.param()
    b: jax.Array = js.param()

    def __call__(self, x):
        return self.a + self.b * x


class Own(js.AbstractPrior):
    """A Cauchy density, as a user may write it."""

    scale: jax.Array

    def log_density(self, value):
        return -jnp.log1p((value / self.scale) ** 2) - jnp.log(jnp.pi * self.scale)

    def mode(self):
        return jnp.zeros_like(self.scale)


X = jnp.linspace(0.0, 1.0, 12)
Y = 0.4 + 0.3 * X + 0.05 * jnp.sin(37 * X)
DATA = js.Dataset(X, Y, js.White(0.2))
START = {"truncated": 0.2}
PRIORS = {
    "log normal": (js.LogNormal(0.6, 0.3), scipy.stats.lognorm(0.3, scale=0.6)),
    "beta": (js.Beta(2.0, 5.0), scipy.stats.beta(2.0, 5.0)),
    "half normal": (js.HalfNormal(0.1), scipy.stats.halfnorm(0.0, 0.1)),
    "truncated": (js.TruncatedNormal(0.2, 0.1, 0.1, 0.32), scipy.stats.truncnorm(-1.0, 1.2, 0.2, 0.1)),
    "uniform": (js.Uniform(0.5, 0.7), scipy.stats.uniform(0.5, 0.2)),
    "own": (Own(jnp.asarray(0.05)), scipy.stats.cauchy(0.0, 0.05)),
}


def greatest(peer):
    """(a, b) of the greatest posterior density, the prior on a, by SciPy."""

    def cost(y):
        model = y[0] + y[1] * np.asarray(X)
        return np.sum((model - np.asarray(Y)) ** 2) / (2 * 0.2**2) - peer.logpdf(y[0])

    low, high = peer.support()
    inside = (max(low, -5.0) + 1e-9, min(high, 5.0) - 1e-9)
    best = min(
        (scipy.optimize.minimize(cost, [s, 0.3], bounds=[inside, (None, None)], tol=1e-15) for s in (0.2, 0.55)),
        key=lambda r: r.fun,
    )
    return scipy.optimize.minimize(
        cost, best.x, method="Nelder-Mead", bounds=[inside, (None, None)], options={"xatol": 1e-10, "fatol": 1e-14}
    ).x


@pytest.mark.parametrize("solver", [js.TRF(), js.GaussNewton()], ids=["trf", "gauss-newton"])
@pytest.mark.parametrize("name", PRIORS)
def test_a_fit_ends_at_the_greatest_posterior_density(name, solver):
    prior, peer = PRIORS[name]
    solution = js.fit(Line(START.get(name, 0.55), 0.0), DATA, priors={"a": prior}, solver=solver)
    assert solution.verdict != "failed"
    np.testing.assert_allclose(solution.y, greatest(peer), atol=1e-6)


@pytest.mark.parametrize("name", PRIORS)
def test_batches_and_joint_fits_take_the_same_priors(name):
    """The engine for small fits, and a prior on a shared parameter, which counts once."""
    prior, _ = PRIORS[name]
    data = [DATA, js.Dataset(X, Y + 0.1, js.White(0.2))]
    alone = [js.fit(Line(START.get(name, 0.55), 0.0), d, priors={"a": prior}) for d in data]
    batch = js.fit_batch(Line(START.get(name, 0.55), 0.0), data, priors={"a": prior})
    for k, one in enumerate(alone):
        assert bool(batch[k].success)
        np.testing.assert_allclose(batch[k].y, one.y, atol=1e-7)
        np.testing.assert_allclose(batch[k].covariance, one.covariance, rtol=1e-4, atol=1e-9)
    both = js.Dataset(jnp.tile(X, 2), jnp.concatenate([Y, Y]), js.White(0.2))
    once = js.fit(Line(START.get(name, 0.55), 0.0), both, priors={"a": prior})
    for shared in ("a", ("a", "b")):  # one, or all: then nothing is a member's own
        joint = js.fit_batch(Line(START.get(name, 0.55), 0.0), [DATA, DATA], priors={"a": prior}, shared=shared)
        np.testing.assert_allclose(joint[0].y, once.y, atol=1e-7)
        assert float(joint[0].y[0]) == float(joint[1].y[0])


@pytest.mark.parametrize("solver", [js.TRF(), js.GaussNewton()], ids=["trf", "gauss-newton"])
@pytest.mark.parametrize("name", ["log normal", "beta"])
def test_a_start_where_the_density_vanishes_is_left(name, solver):
    """At the end of a support, where many a model starts: at 0."""
    prior, peer = PRIORS[name]
    solution = js.fit(Line(0.0, 0.0), DATA, priors={"a": prior}, solver=solver)
    np.testing.assert_allclose(solution.y, greatest(peer), atol=1e-6)


def test_a_prior_is_one_more_datum():
    """chi2 counts its row and dof counts it, whatever its shape."""
    wide = js.fit(Line(0.5, 0.0), DATA, priors={"a": js.Normal(0.5, 1e3)})
    log = js.fit(Line(0.5, 0.0), DATA, priors={"a": js.LogNormal(0.5, 10.0)})
    free = js.fit(Line(0.5, 0.0), DATA)
    assert int(wide.dof) == int(log.dof) == int(free.dof) + 1
    known = js.fit(Line(0.5, 0.0), DATA, priors={"a": js.LogNormal(0.1, 0.2)})
    a = float(known.y[0])
    mode = 0.1 * np.exp(-(0.2**2))
    row = np.log(a / mode) / 0.2  # the square of a log-normal density's logarithm, completed
    residual = np.asarray(known.model(X) - Y) / 0.2
    assert float(known.chi2) == pytest.approx(np.sum(residual**2) + row**2, rel=1e-9)


def test_a_prior_alone_determines_a_parameter():
    """Without data on it a log-normal time ends at the mode, with the error of its curvature there."""
    mask = jnp.arange(12) < 1
    data = js.Dataset(X, Y, js.White(0.2), mask=mask)  # one row at x = 0: nothing is said of b
    solution = js.fit(Line(0.5, 1.0), data, priors={"b": js.LogNormal(2.0, 0.1)})
    mode = 2.0 * np.exp(-0.01)
    assert float(solution.y[1]) == pytest.approx(mode, rel=1e-7)
    assert float(solution.standard_errors[1]) == pytest.approx(0.1 * mode, rel=1e-5)


def test_elements_and_declared_priors():
    class Poly(js.AbstractModel):
        c: jax.Array = js.param(prior=js.Normal(0.0, 1.0))

        def __call__(self, x):
            return self.c[0] + self.c[1] * x

    whole = js.fit(Poly(jnp.array([0.4, 0.3])), DATA)
    own = js.fit(Poly(jnp.array([0.4, 0.3])), DATA, priors={"c[1]": js.LogNormal(0.3, 0.01)})
    np.testing.assert_allclose(whole.terms.prior_weight, [1.0, 1.0])
    np.testing.assert_allclose(own.terms.prior_weight, [1.0, 0.0])
    assert own.terms.shaped[0].at == (1,)
    assert float(own.y[1]) == pytest.approx(0.3, rel=0.02)


def test_derivatives_of_a_fit_with_a_shaped_prior():
    """By the median of the prior, against finite differences; and under jit and vmap."""

    def answer(median):
        return js.fit(Line(0.5, 0.0), DATA, priors={"a": js.LogNormal(median, 0.1)}, throw=False).y[0]

    step = 1e-5
    expected = (answer(jnp.asarray(0.3 + step)) - answer(jnp.asarray(0.3 - step))) / (2 * step)
    got = jax.jit(jax.vmap(jax.grad(answer)))(jnp.array([0.3, 0.4]))
    np.testing.assert_allclose(got[0], expected, rtol=1e-5)


def test_solutions_with_such_priors_are_saved_and_read(tmp_path):
    file = tmp_path / "fit.js"
    solution = js.fit(Line(0.5, 0.0), DATA, priors={"a": js.LogNormal(0.1, 0.2), "b": js.Beta(2.0, 2.0)})
    solution.save(file)
    back = js.Solution.load(file, Line(0.0, 0.0))
    same_bits(back.terms.shaped[0].prior.median, solution.terms.shaped[0].prior.median)
    own = js.fit(Line(0.5, 0.0), DATA, priors={"a": Own(jnp.asarray(0.05))})
    own.save(file)
    with pytest.raises(ValueError, match="a prior of class Own"):
        js.Solution.load(file, Line(0.0, 0.0))
    back = js.Solution.load(file, Line(0.0, 0.0), priors={"a": Own(jnp.asarray(1.0))})
    assert float(back.terms.shaped[0].prior.scale[0]) == 0.05


def test_profiles_go_by_the_priors_of_the_fit():
    from jaxsci.curvefit import confidence_interval

    prior = js.LogNormal(0.3, 0.05)
    solution = js.fit(Line(0.4, 0.3), DATA, priors={"a": prior})
    interval = confidence_interval(solution, DATA, "a")
    low, high = (float(x) for x in (interval.lower, interval.upper))

    def profile(a):  # b is linear: its optimum is a mean
        x, y = np.asarray(X), np.asarray(Y)
        b = np.sum(x * (y - a)) / np.sum(x * x)
        return np.sum((y - a - b * x) ** 2) / 0.2**2 - 2 * scipy.stats.lognorm(0.05, scale=0.3).logpdf(a)

    best = profile(float(solution.y[0]))
    drop = scipy.stats.chi2(1).ppf(0.95)
    for end in (low, high):
        assert profile(end) - best == pytest.approx(drop, rel=1e-3)


def test_bounds_that_cross_a_support_are_named():
    with pytest.raises(ValueError, match="support of a prior"):
        js.fit(Line(0.5, 0.0), DATA, bounds={"a": (-2.0, -1.0)}, priors={"a": js.HalfNormal(1.0)})
    with pytest.raises(ValueError, match="prior of a has numbers of shape"):
        js.fit(Line(0.5, 0.0), DATA, priors={"a": js.HalfNormal(jnp.ones(3))})
