"""Joint regions of two parameters: ellipses of linear models, lines that bend, end on bounds, or have no limit."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

import jaxsci as js
from jaxsci import curvefit as cf

X = jnp.linspace(0.0, 4.0, 8)
SCATTER = 0.2 * jnp.asarray(np.random.default_rng(1).normal(size=8))
DECAY = cf.Exponential(3.0, 1.0) + cf.Constant(0.0)
PAIR = ("exponential.amplitude", "exponential.tau")


class Banana(js.AbstractModel):
    """Rosenbrock's valley as two rows: its region is known in closed form, and far from star-shaped."""

    a: jax.Array = js.param()
    b: jax.Array = js.param()

    def __call__(self, x):
        return jnp.where(x < 0.5, self.a - 1, 10 * (self.b - self.a**2))


VALLEY = js.Dataset(jnp.asarray([0.0, 1.0]), jnp.zeros(2), js.White(0.5))


def used(region):
    return np.asarray(region.line)[np.asarray(region.mask)]


def area(line):
    x, y = np.asarray(line).T
    return abs(np.sum(x[:-1] * y[1:] - x[1:] * y[:-1])) / 2


def decay_data(noise=None, scale=1.0):
    return js.Dataset(X, scale * (3 * jnp.exp(-X / 1.3) + 0.4 + SCATTER), noise)


@pytest.fixture(scope="module")
def decay():
    data = decay_data()
    return js.fit(DECAY, data), data


@pytest.fixture(scope="module")
def valley():
    return js.fit(Banana(a=0.0, b=0.0), VALLEY)


@pytest.mark.parametrize("noise", [js.White(0.1), None], ids=["known", "unknown"])
def test_a_linear_model_has_the_ellipse_of_its_covariance(noise):
    x = jnp.linspace(0.0, 5.0, 30)
    data = js.Dataset(x, 1 + 0.5 * x - 0.1 * x**2 + 0.1 * jnp.cos(7 * x), noise)
    solution = js.fit(cf.Polynomial(jnp.zeros(3)), data)
    for pair, level in ((("c[0]", "c[2]"), 0.683), (("c[2]", "c[1]"), 0.95)):
        region = cf.confidence_region(solution, data, pair, level)
        assert region.success
        at = [solution.names.index(name) for name in pair]
        inverse = np.linalg.inv(np.asarray(solution.covariance)[np.ix_(at, at)])
        known = scipy.stats.chi2.ppf(level, 2) if noise else 2 * scipy.stats.f.ppf(level, 2, 27)
        np.testing.assert_allclose(region.allowed, known, rtol=1e-12)
        for line in (used(region), region.ellipse):
            away = np.asarray(line) - np.asarray(solution.y)[at]
            np.testing.assert_allclose(np.einsum("ni,ij,nj->n", away, inverse, away), known, rtol=1e-6)
        assert area(used(region)) == pytest.approx(np.pi * known / np.sqrt(np.linalg.det(inverse)), rel=2e-3)
        np.testing.assert_array_equal(used(region)[0], used(region)[-1])
    assert int(region.num_fits) < 3 * 64


@pytest.mark.parametrize("level", [0.683, 0.954, 0.997])
def test_a_banana_is_followed_around_all_of_its_bends(valley, level):
    region = cf.confidence_region(valley, VALLEY, ("a", "b"), level)
    assert region.success
    a, b = used(region).T
    radius = 0.5 * np.sqrt(scipy.stats.chi2.ppf(level, 2))
    np.testing.assert_allclose(np.hypot(a - 1, 10 * (b - a**2)), radius, rtol=1e-6)
    # a circle in (a, 10 (b - a^2)), a map that stretches areas by 10 everywhere
    assert area(used(region)) == pytest.approx(np.pi * radius**2 / 10, rel=5e-3)
    np.testing.assert_allclose([a.min(), a.max()], [1 - radius, 1 + radius], rtol=1e-3)


def test_the_shadow_of_a_region_is_the_interval_for_the_same_rise(decay):
    solution, data = decay
    region = cf.confidence_region(solution, data, PAIR, 0.683, points=200)
    assert region.success
    alone = scipy.stats.f.cdf(float(region.allowed), 1, int(solution.dof))
    assert alone > 0.683
    for k, name in enumerate(PAIR):
        interval = cf.confidence_interval(solution, data, name, float(alone))
        ends = used(region)[:, k].min(), used(region)[:, k].max()
        np.testing.assert_allclose(ends, [interval.lower, interval.upper], rtol=5e-4)


def test_lmfit_finds_the_same_rise_on_the_line(decay):
    lmfit = pytest.importorskip("lmfit")
    solution, data = decay
    x, y = np.asarray(X), np.asarray(data.observed)

    def residual(p):
        return p["amp"] * np.exp(-x / p["tau"]) + p["base"] - y

    minimizer = lmfit.Minimizer(residual, lmfit.create_params(amp=3.0, tau=1.0, base=0.0))
    result = minimizer.leastsq(xtol=1e-12, ftol=1e-12)
    region = cf.confidence_region(solution, data, PAIR, 0.9)
    line = used(region)
    for one, other in (line[[0, 30]], line[[15, 45]]):
        limits = tuple(zip(one, other, strict=True))
        _, _, grid = lmfit.conf_interval2d(minimizer, result, "amp", "tau", 2, 2, limits=limits)
        # root of the rise of chi2 in units of chi2/dof
        np.testing.assert_allclose([grid[0, 0], grid[1, 1]], np.sqrt(region.allowed), rtol=1e-6)


def test_neither_units_nor_the_order_of_the_names_matter(decay):
    solution, data = decay
    line = used(cf.confidence_region(solution, data, PAIR))
    swapped = used(cf.confidence_region(solution, data, PAIR[::-1]))
    assert area(swapped) == pytest.approx(area(line), rel=1e-3)
    np.testing.assert_allclose(swapped.max(0)[::-1], line.max(0), rtol=1e-3)
    larger = decay_data(scale=1e6)
    millions = js.fit(cf.Exponential(3e6, 1.0) + cf.Constant(0.0), larger)
    line6 = used(cf.confidence_region(millions, larger, PAIR))
    np.testing.assert_allclose(line6, line * [1e6, 1.0], rtol=1e-5)


def test_single_precision_follows_the_same_line(decay):
    whole = used(cf.confidence_region(*decay, PAIR, 0.683))
    single = jax.tree_util.tree_map(lambda x: x.astype(jnp.float32) if x.dtype == jnp.float64 else x, decay)
    region = cf.confidence_region(js.fit(single[0].model, single[1], throw=False), single[1], PAIR, 0.683)
    assert region.line.dtype == jnp.float32
    assert region.success
    np.testing.assert_allclose(used(region).max(0), whole.max(0), rtol=3e-3)
    assert area(used(region)) == pytest.approx(area(whole), rel=5e-3)


def test_a_batch_in_a_compiled_call_gives_what_a_loop_gives(decay):
    first = decay[1]
    second = js.Dataset(X, 1.1 * first.observed + 0.05 * jnp.cos(3 * X))
    fits = [(js.fit(DECAY, data), data) for data in (first, second)]
    several = jax.tree_util.tree_map(lambda *x: jnp.stack(x), *fits)
    together = jax.jit(jax.vmap(lambda fitted: cf.confidence_region(*fitted, PAIR, 0.683)))(several)
    assert together.success.all()
    for k, fitted in enumerate(fits):
        alone = cf.confidence_region(*fitted, PAIR, 0.683)
        np.testing.assert_array_equal(together.mask[k], alone.mask)
        np.testing.assert_allclose(together.line[k], alone.line, rtol=1e-6)


def test_a_region_ends_on_bounds(valley):
    bounds = {"a": (0.3, 1.0), "b": (0.2, 1.5)}  # the best fit lies on one
    solution = js.fit(Banana(a=0.5, b=0.5), VALLEY, bounds=bounds)
    region = cf.confidence_region(solution, VALLEY, ("a", "b"), 0.954)
    assert region.success
    assert not region.cut.any()
    line, on_bound = used(region), np.asarray(region.on_bound)[np.asarray(region.mask)]
    a, b = line.T
    assert a.min() >= 0.3
    np.testing.assert_allclose([a.max(), b.min()], [1.0, 0.2], rtol=1e-6)
    rise = (np.hypot(a - 1, 10 * (b - a**2)) / 0.5) ** 2
    np.testing.assert_allclose(rise[~on_bound], region.allowed, rtol=1e-6)
    assert (rise[on_bound] < region.allowed * (1 + 1e-6)).all()
    at = np.minimum(np.minimum(1 - a, a - 0.3), b - 0.2)[on_bound]
    np.testing.assert_allclose(at, 0, atol=1e-6)
    # the part of the banana within the box, counted on a grid
    ga, gb = np.meshgrid(np.linspace(0.3, 1.0, 1500), np.linspace(0.2, 1.5, 1500))
    inside = (np.hypot(ga - 1, 10 * (gb - ga**2)) / 0.5) ** 2 < float(region.allowed)
    assert area(line) == pytest.approx(inside.mean() * 0.7 * 1.3, rel=1e-2)


def test_a_region_without_a_limit_is_cut_and_says_so():
    x = jnp.linspace(0.1, 5.0, 40)
    data = js.Dataset(x, x / (1 + x / 30) + 0.1 * jnp.sin(9 * x), js.White(0.2))
    solution = js.fit(cf.MichaelisMenten(3.0, 30.0), data)
    region = cf.confidence_region(solution, data, ("rate_max", "half"))
    assert region.cut.any()
    assert used(region)[:, 1].max() > 5 * float(solution.y[1])
    assert used(region)[np.asarray(region.cut)[np.asarray(region.mask)]][:, 1].min() > float(solution.y[1])


def test_fits_that_fail_are_told(decay):
    solution, data = decay
    poor = cf.confidence_region(solution, data, PAIR, max_steps=1)
    assert poor.failed.any()
    assert not poor.success

    class Partly(js.AbstractModel):
        a: jax.Array = js.param()
        b: jax.Array = js.param()

        def __call__(self, x):
            return jnp.where(self.a > 0.9, self.a, jnp.nan) + self.b * x

    x = jnp.linspace(-1.0, 1.0, 9)
    line = js.Dataset(x, 1.0 + x, js.White(0.3))
    region = cf.confidence_region(js.fit(Partly(a=1.1, b=0.5), line), line, ("a", "b"))
    failed = np.asarray(region.failed)[np.asarray(region.mask)]
    assert failed.any()
    assert not region.success
    np.testing.assert_allclose(used(region)[failed][:, 0], 0.9, atol=1e-3)


def test_bad_input_is_named(decay):
    solution, data = decay
    with pytest.raises(ValueError, match=r"did you mean 'exponential\.tau'"):
        cf.confidence_region(solution, data, ("exponential.amplitude", "exponential.tua"))
    with pytest.raises(ValueError, match="two different parameters"):
        cf.confidence_region(solution, data, (PAIR[0], PAIR[0]))
    with pytest.raises(ValueError, match="level should lie between 0 and 1"):
        cf.confidence_region(solution, data, PAIR, 95.0)
    with pytest.raises(ValueError, match="loss here is not that of the fit"):
        cf.confidence_region(solution, data, PAIR, loss=js.Huber(1.0))
    with pytest.raises(ValueError, match="points should be 8 or more"):
        cf.confidence_region(solution, data, PAIR, points=4)
    held = js.fit(DECAY, data, bounds={PAIR[1]: (1.0, 1.0)})
    with pytest.raises(ValueError, match=r"exponential\.tau is fixed or not determined"):
        cf.confidence_region(held, data, PAIR)
