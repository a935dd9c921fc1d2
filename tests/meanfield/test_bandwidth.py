"""Bandwidth rules: against their formulas, and against Botev's algorithm as he writes it."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import brentq

from jaxsci.meanfield._bandwidth import ISJ, Fixed, Scott, Silverman, Spread
from jaxsci.meanfield._boundary import Box, Grid
from jaxsci.meanfield._density import BinnedKDE, DenseKDE, SpectralKDE

GRID = Grid(Box(-5.0, 15.0), 100)
deposit = eqx.filter_jit(lambda kde, x, w: kde.deposit(x, w))
evaluate = eqx.filter_jit(lambda kde, sums: kde.evaluate(sums))


def bandwidth(kde, x, w=None):
    x = jnp.asarray(x)
    x = x[:, None] if x.ndim == 1 else x
    w = jnp.ones(x.shape[0], x.dtype) if w is None else jnp.asarray(w, x.dtype)
    return np.asarray(evaluate(kde, deposit(kde, x, w)).bandwidth)


def spread(cosines, n=1000.0, dtype=float):
    cosines = jnp.asarray(cosines, dtype)
    return Spread(jnp.asarray(n, dtype), jnp.ones(1, dtype), jnp.ones(1, dtype), (cosines,))


def modes(n, seed=0):
    """Two Gaussians, ten widths apart."""
    rng = np.random.default_rng(seed)
    return rng.normal(0, 1, n) + 10 * (np.arange(n) % 2)


def botev(cosines, n):
    """The squared bandwidth on [0, 1], by the published program's formulas."""
    k2, a2 = np.arange(1, len(cosines) + 1.0) ** 2, cosines**2

    def f(s, t):
        return 2 * np.pi ** (2 * s) * np.sum(k2**s * a2 * np.exp(-k2 * np.pi**2 * t))

    def excess(t):
        value = f(7, t)
        for s in range(6, 1, -1):
            odd = np.prod(np.arange(1.0, 2 * s, 2)) / np.sqrt(2 * np.pi)
            value = f(s, (2 * (1 + 0.5 ** (s + 0.5)) / 3 * odd / n / value) ** (2 / (3 + 2 * s)))
        return t - (2 * n * np.sqrt(np.pi) * value) ** (-0.4)

    return brentq(excess, 1e-7, 0.1, xtol=1e-15, rtol=1e-12)


def test_scott_and_silverman_of_weighted_particles(shared_data):
    case = np.load(shared_data / "meanfield" / "cases" / "kde_weighted.npz")
    grid = Grid(Box(case["lo"], case["hi"]), 40)
    particles = case["particles"], case["weights"]
    for rule, name in ((Scott(), "scott"), (Silverman(), "silverman")):
        np.testing.assert_allclose(bandwidth(DenseKDE(grid, rule), *particles), [case[name]], rtol=1e-12)
    # from weights on nodes and cells the deviation is known to their width
    np.testing.assert_allclose(bandwidth(SpectralKDE(grid, Scott()), *particles), [case["scott"]], rtol=1e-3)
    np.testing.assert_allclose(bandwidth(BinnedKDE(grid, Silverman()), *particles), [case["silverman"]], rtol=0.1)


def test_rules_in_several_dimensions():
    found = Spread(jnp.array(500.0), jnp.array([1.0, 2.0]), jnp.array([10.0, 10.0]), None)
    np.testing.assert_allclose(Scott()(found), np.array([1, 2]) * 500 ** (-1 / 6))
    np.testing.assert_allclose(Silverman()(found), np.array([1, 2]) * 500 ** (-1 / 6))
    np.testing.assert_allclose(Fixed(0.3)(found), [0.3, 0.3])
    np.testing.assert_allclose(Fixed(jnp.array([0.3, 0.4]))(found), [0.3, 0.4])
    with pytest.raises(ValueError, match="there are 2 axes"):
        Fixed(jnp.ones(3))(found)
    with pytest.raises(ValueError, match="reads Spread"):
        ISJ()(found)


@pytest.mark.parametrize("h", [0.0, -1.0, np.nan, np.inf])
def test_a_bandwidth_is_positive(h):
    with pytest.raises(ValueError, match="positive and finite"):
        Fixed(h)


def test_isj_is_the_published_algorithm():
    u = (modes(2000) + 5) / 20
    cosines = np.cos(np.pi * np.arange(1, 400)[:, None] * u).mean(axis=1)
    found = eqx.filter_jit(ISJ())(spread(cosines, 2000.0))
    np.testing.assert_allclose(found, [np.sqrt(botev(cosines, 2000.0))], rtol=1e-8)
    single = eqx.filter_jit(ISJ())(spread(cosines, 2000.0, jnp.float32))
    assert single.dtype == jnp.float32
    np.testing.assert_allclose(single, found, rtol=1e-3)


def test_two_modes_do_not_make_it_wide():
    x, one = modes(4000), 1 - np.arange(4000) % 2
    isj, silverman = SpectralKDE(GRID, ISJ()), SpectralKDE(GRID, Silverman())
    found, alone = bandwidth(isj, x), bandwidth(isj, x, one)
    assert abs(found / alone - 1) < 0.3
    assert abs(found / bandwidth(silverman, x, one) - 1) < 0.3
    assert bandwidth(silverman, x) > 3 * alone
    # whatever the particles were deposited on
    for kde in (BinnedKDE(GRID, ISJ()), DenseKDE(GRID, ISJ())):
        np.testing.assert_allclose(bandwidth(kde, x), found, rtol=0.05)


def test_isj_follows_weights_units_and_axes():
    x = modes(1000)
    found = bandwidth(SpectralKDE(GRID, ISJ()), x)
    half = np.repeat([3, 0], 500)
    without = bandwidth(SpectralKDE(GRID, ISJ()), np.where(half == 0, 7.0, x), half)
    np.testing.assert_allclose(bandwidth(SpectralKDE(GRID, ISJ()), x, half), without, rtol=1e-9)
    grid = Grid(Box(-5e9, 15e9), 100)
    np.testing.assert_allclose(bandwidth(SpectralKDE(grid, ISJ()), x * 1e9), found * 1e9, rtol=1e-9)
    plane = Grid(Box(np.full(2, -5.0), np.full(2, 15.0)), (10, 10))
    both = bandwidth(SpectralKDE(plane, ISJ(), nodes=256, coefficients=200), np.stack([x, x[::-1]], axis=1))
    np.testing.assert_allclose(both, np.repeat(found * 1000 ** (1 / 5 - 1 / 6), 2), rtol=0.02)


def test_isj_of_one_place_is_narrow_and_finite():
    kde = BinnedKDE(GRID, ISJ())
    found = bandwidth(kde, np.full(100, 3.0))
    assert 0 < found < 0.2
    cosines = np.cos(np.pi * np.arange(1, 400) * 0.4)
    slope = jax.jit(jax.grad(lambda c: ISJ()(spread(c))[0]))(jnp.asarray(cosines))
    assert np.isfinite(slope).all()


def test_isj_can_be_differentiated_and_mapped():
    u = jnp.asarray((modes(500) + 5) / 20)
    k = jnp.arange(1.0, 200.0)

    def rule(theta):
        cosines = jnp.mean(jnp.cos(jnp.pi * k[:, None] * (u * jnp.exp(theta))[None, :]), axis=1)
        return ISJ()(spread(cosines, 500.0))[0]

    @jax.jit
    def all_of(theta):
        return *jax.value_and_grad(rule)(theta), jax.jacfwd(rule)(theta)

    eps = 1e-5
    thetas = jnp.array([0.05 - eps, 0.05, 0.05 + eps])
    mapped = jax.jit(jax.vmap(rule))(thetas)
    numeric = (mapped[2] - mapped[0]) / (2 * eps)
    value, back, forth = all_of(thetas[1])
    np.testing.assert_allclose([back, forth], [numeric, numeric], rtol=1e-4)
    np.testing.assert_allclose(mapped[1], value, rtol=1e-9)
