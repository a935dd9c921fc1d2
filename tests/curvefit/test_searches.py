"""Many starts, confidence intervals, R^2 and the Poisson likelihood."""

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
import scipy.optimize
import scipy.stats
from helpers import quick_jit

import jaxsci as js
from jaxsci import curvefit as cf

N = 60
X = np.linspace(0.0, 4.0, N)
POINTS = jnp.asarray(X)
NOISE = 0.1 * np.random.default_rng(0).normal(size=N)


def test_sobol():
    plain = scipy.stats.qmc.Sobol(21, scramble=False).random(64)
    np.testing.assert_array_equal(cf.sobol(64, 21), plain)
    shifted = cf.sobol(64, 21, jr.key(0))
    assert np.all((shifted > 0) & (shifted < 1))
    counts = np.stack([np.histogram(column, 64, (0, 1))[0] for column in shifted.T])
    assert np.all(counts == 1)  # a digital shift keeps one point in each interval
    with pytest.raises(ValueError, match="up to 21 dimensions"):
        cf.sobol(4, 22)


def test_multi_start():
    data = js.Dataset(X, np.asarray(cf.Sinusoid(2.0, 1.3, 0.4)(POINTS)) + NOISE)
    model = cf.Sinusoid(1.0, 0.3, 0.0)
    box = {"amplitude": (0, 5), "frequency": (0.1, 3), "phase": (-3, 3)}
    positive = {"amplitude": (0, None)}
    found = cf.multi_start(model, data, starts=31, key=jr.key(1), box=box, bounds=positive)
    assert found.starts.shape == (32, 3)
    assert found.starts[0].tolist() == [1.0, 0.3, 0.0]
    assert found.best.success
    np.testing.assert_allclose(found.best.model(POINTS), cf.Sinusoid(2.0, 1.3, 0.4)(POINTS), atol=0.1)
    assert found.best.cost == found.costs.min()
    assert float(found.costs[0]) > 10 * float(found.best.cost)  # the model's own start leads astray
    own = cf.multi_start(model, data, starts=found.starts, bounds=positive)
    np.testing.assert_allclose(own.best.y, found.best.y, rtol=1e-12)
    with pytest.raises(ValueError, match="no finite bounds to spread starts between for amplitude, frequency, phase"):
        cf.multi_start(model, data)
    with pytest.raises(ValueError, match=r"starts has shape \(4, 2\), but it should be \(k, 3\)"):
        cf.multi_start(model, data, starts=np.zeros((4, 2)))


def test_student_quantile():
    for level in (0.5, 0.95, 0.999):
        for dof in (1.0, 7.0, 300.0):
            ours = cf._interval.student_quantile(jnp.asarray(level), jnp.asarray(dof))
            np.testing.assert_allclose(ours, scipy.stats.t.ppf((1 + level) / 2, dof), rtol=1e-10)


DECAY = cf.Exponential(3.0, 0.8)
COUNTED = np.random.default_rng(5).poisson(20 * np.exp(-X / 0.8)).astype(float)


def least_cost(y, column):
    """Of one free amplitude."""
    return 0.5 * np.sum((y - column * (column @ y) / (column @ column)) ** 2)


def test_profile_interval_vmapped():
    ys = np.asarray(DECAY(POINTS)) + np.stack([NOISE, -NOISE])

    @quick_jit
    @jax.vmap
    def fit(y):
        data = js.Dataset(POINTS, y)  # noise of unknown scale
        solution = js.fit(cf.estimate(cf.Exponential, POINTS, y), data, throw=False)
        return solution, cf.confidence_interval(solution, data, "tau"), cf.r_squared(solution, data)

    solution, interval, explained = fit(ys)
    for k, y in enumerate(ys):
        least, tau = float(solution.cost[k]), float(solution.y[k, 1])
        allowed = scipy.stats.f.ppf(0.95, 1, N - 2) * 2 * least / (N - 2)

        def rise(t, y=y, least=least, allowed=allowed):
            return 2 * (least_cost(y, np.exp(-X / t)) - least) - allowed

        ends = [scipy.optimize.brentq(rise, tau, side * tau, xtol=1e-14) for side in (0.5, 2)]
        np.testing.assert_allclose([interval.lower[k], interval.upper[k]], ends, rtol=1e-8)
        np.testing.assert_allclose(explained[k], 1 - 2 * least / np.sum((y - y.mean()) ** 2), rtol=1e-10)
    half = scipy.stats.t.ppf(0.975, N - 2) * solution.standard_errors[:, 1]
    np.testing.assert_allclose(interval.wald_lower, solution.y[:, 1] - half, rtol=1e-10)
    np.testing.assert_allclose(interval.wald_upper, solution.y[:, 1] + half, rtol=1e-10)


def test_interval_that_ends_on_a_bound():
    y = 0.1 * X + NOISE  # a straight line sets no upper limit on the half-saturation
    data = js.Dataset(X, y, js.White(0.1))

    def interval(upper):
        bounds = {"half": (jnp.asarray(0.0), jnp.asarray(upper))}
        solution = js.fit(cf.MichaelisMenten(3.0, 30.0), data, bounds=bounds, max_steps=500, throw=False)
        return solution, cf.confidence_interval(solution, data, "half", bounds=bounds)

    for upper in (200.0, 1e6):
        solution, found = interval(upper)
        least = least_cost(y, X / (X + float(solution.y[1])))
        allowed = scipy.stats.chi2.ppf(0.95, 1) * 0.1**2

        def rise(h, least=least, allowed=allowed):
            return 2 * (least_cost(y, X / (X + h)) - least) - allowed

        np.testing.assert_allclose(found.lower, scipy.optimize.brentq(rise, 0.1, upper, xtol=1e-14), rtol=1e-7)
        assert solution.y[1] <= found.upper == upper
    with pytest.raises(ValueError, match="no free parameter 'haf'; did you mean 'half'"):
        cf.confidence_interval(solution, data, "haf")
    with pytest.raises(ValueError, match="level should lie between 0 and 1"):
        cf.confidence_interval(solution, data, "half", 95.0)


def test_an_interval_is_that_of_the_fit_without_repeating_its_terms():
    """Bounds, priors and loss of the fit: the profile within them, found by brute force."""
    y = np.asarray(DECAY(POINTS)) + NOISE
    data = js.Dataset(POINTS, y, js.White(0.1))
    start = cf.Exponential(2.0, 1.0)
    free = js.fit(start, data)
    amplitude, tau = float(free.y[0]), float(free.y[1])
    limit = amplitude - 0.5 * float(free.standard_errors[0])
    bounds, priors = {"amplitude": (None, limit)}, {"amplitude": js.Normal(limit - 0.1, 0.05)}
    for told in ({"bounds": bounds}, {"priors": priors}):
        solution = js.fit(start, data, **told)
        found = cf.confidence_interval(solution, data, "tau")
        again = cf.confidence_interval(solution, data, "tau", **told)
        assert [found.lower, found.upper] == [again.lower, again.upper]

        def cost(t, told=told):
            column = np.exp(-X / t)
            weight = 1 / 0.05**2 if "priors" in told else 0.0
            best = (column @ y / 0.1**2 + weight * (limit - 0.1)) / (column @ column / 0.1**2 + weight)
            best = min(best, limit) if "bounds" in told else best
            return 0.5 * np.sum((y - best * column) ** 2) / 0.1**2 + 0.5 * weight * (best - limit + 0.1) ** 2

        def rise(t, cost=cost, solution=solution):
            return 2 * (cost(t) - cost(float(solution.y[1]))) - scipy.stats.chi2.ppf(0.95, 1)

        ends = [scipy.optimize.brentq(rise, float(solution.y[1]), side * tau, xtol=1e-14) for side in (0.5, 2)]
        np.testing.assert_allclose([found.lower, found.upper], ends, rtol=1e-6)
    with pytest.raises(ValueError, match="bounds here is not that of the fit"):
        cf.confidence_interval(solution, data, "tau", bounds=bounds)
    with pytest.raises(ValueError, match="loss here is not that of the fit"):
        cf.confidence_interval(free, data, "tau", loss=js.Huber(1.0))
    with pytest.raises(TypeError, match="no option 'bound'; did you mean 'bounds'"):
        cf.confidence_interval(free, data, "tau", bound=bounds)


def count_rate(x, a, tau):
    return a * jnp.exp(-x / tau)


def test_poisson():
    popt, pcov = cf.curve_fit(count_rate, X, COUNTED, [10.0, 1.0], likelihood="poisson")

    def cost(p):
        mu = p[0] * np.exp(-X / p[1])
        return np.sum(mu - COUNTED * np.log(mu))

    best = scipy.optimize.minimize(cost, [20, 0.8], method="Nelder-Mead", options={"xatol": 1e-9, "fatol": 1e-12})
    np.testing.assert_allclose(popt, best.x, rtol=1e-6)
    mu = popt[0] * np.exp(-X / popt[1])
    score = np.stack([mu / popt[0], mu * X / popt[1] ** 2], 1)
    np.testing.assert_allclose((1 - COUNTED / mu) @ score, 0, atol=1e-9)
    np.testing.assert_allclose(pcov, np.linalg.inv(score.T @ (score / mu[:, None])), rtol=1e-9)
    with pytest.raises(ValueError, match=r"ydata\[4\] is -1.0: 1 of 60 values are negative"):
        cf.curve_fit(count_rate, X, np.where(np.arange(N) == 4, -1, COUNTED), [10.0, 1.0], likelihood="poisson")
    with pytest.raises(ValueError, match="takes neither sigma nor loss"):
        cf.curve_fit(count_rate, X, COUNTED, sigma=1.0, likelihood="poisson")
