"""Cells whose data cannot tell their parameters apart: laws that hold for every sky, seed and start."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsci import compsep

BANDS = np.array([95.0, 150.0, 220.0])
WIDE = np.array([30.0, 44.0, 70.0, 95.0, 150.0, 220.0])
SIGMA = 0.01
MANY = 40


def dust(beta=1.54, temp=20.0):
    return compsep.MixingMatrix(cmb=compsep.CMB(), dust=compsep.ModifiedBlackBody(beta, temp))


def two(a, b):
    return compsep.MixingMatrix(cmb=compsep.CMB(), a=compsep.PowerLaw(a), b=compsep.PowerLaw(b))


def sky(truth, nu, means, widths, seed, count):
    """Noisy Q and U maps of so many pixels."""
    rng = np.random.default_rng(seed)
    amplitudes = rng.normal(size=(len(means), 2, count)) * np.array(widths)[:, None, None]
    amplitudes += np.array(means)[:, None, None]
    clean = np.einsum("fc,csp->fsp", np.asarray(truth.eval(jnp.asarray(nu))), amplitudes)
    return clean + SIGMA * rng.normal(size=clean.shape)


def fit(mixing, nu, maps, **choices):
    """Every pixel a cell."""
    return compsep.separate(
        mixing, nu, maps, inv_n=np.full(len(nu), SIGMA**-2), patches=np.arange(maps.shape[-1]), **choices
    )


@jax.jit
@jax.vmap
def slope(y, maps):
    """Gradient of the cost of two power laws by plain autodiff, each in its own standard errors, and the cost."""

    def residual(y):
        whitened = maps[None, :, :, None] / SIGMA, jnp.full((1, len(WIDE), 1), 1 / SIGMA)
        return compsep.SkyDataset(jnp.asarray(WIDE), *whitened).residual(two(y[0], y[1]))

    rows = residual(y)
    jacobian = jax.jacfwd(residual)(y)
    size = jnp.sqrt(jnp.sum(jacobian**2, axis=0))
    return jacobian.T @ rows / size, rows @ rows


@pytest.fixture(scope="module")
def three_bands():
    """Two components in three channels: one combination of the two parameters of dust is all that can be known."""
    return sky(dust(1.6, 19.0), BANDS, (0, 30), (1, 9), 0, MANY)


@pytest.fixture(scope="module")
def power_laws():
    return sky(two(-3.1, -2.0), WIDE, (10, 10, 10), (5, 5, 5), 0, MANY)


def test_a_parameter_more_never_raises_chi2(three_bands):
    """Both parameters fit as well as either alone; the one that the data do not determine stays where it was."""
    both = fit(dust(), BANDS, three_bands)
    one = fit(dust(), BANDS, three_bands, free=("dust.beta",))
    assert bool(both.success.all())
    np.testing.assert_allclose(both.chi2, one.chi2, rtol=1e-8, atol=1e-8)
    np.testing.assert_array_equal(both.values["dust.temp"], 20.0)
    assert np.all(np.isposinf(both.std["dust.beta"]))
    assert np.all(np.isposinf(both.std["dust.temp"]))


@pytest.mark.parametrize("seed", range(4))
def test_freed_at_a_restricted_optimum_it_can_only_get_better(seed):
    maps = sky(dust(1.6, 19.0), WIDE, (0, 30), (1, 9), seed, 1)
    one = fit(dust(1.4 + 0.1 * seed), WIDE, maps, free=("dust.beta",))
    both = fit(dust(float(one.values["dust.beta"][0])), WIDE, maps)
    assert bool(both.success.all())
    assert float(both.chi2[0]) <= float(one.chi2[0]) * (1 + 1e-9)


@pytest.mark.parametrize("start", [(-3.0, -3.0001), (-3.0, -3.01), (-2.6, -3.4)])
def test_success_is_where_the_gradient_vanishes(power_laws, start):
    """Columns that start nearly alike: the answer is an optimum by plain autodiff, and lower than the start."""
    found = fit(two(*start), WIDE, power_laws)
    y = jnp.stack([found.values["a.beta"], found.values["b.beta"]], axis=1)
    maps = jnp.moveaxis(jnp.asarray(power_laws), 2, 0)
    gradient, chi2 = slope(y, maps)
    _, before = slope(jnp.broadcast_to(jnp.asarray(start), y.shape), maps)
    np.testing.assert_allclose(found.chi2, chi2, rtol=1e-6)
    assert np.all(chi2 <= before)
    inside = np.stack([np.asarray(found.at_bound[name]) == 0 for name in ("a.beta", "b.beta")], axis=1)
    steep = np.max(np.where(inside, np.abs(gradient), 0), axis=1)
    assert np.all(steep[np.asarray(found.success)] < 1e-5)
    assert np.mean(np.asarray(found.success)) > 0.9


def test_eager_jitted_and_vmapped_answers_agree(three_bands, power_laws):
    """Singular cells and others, each by the loop on the host and within a transformation."""

    def both(maps, others):
        first, second = fit(dust(), BANDS, maps), fit(two(-2.6, -3.4), WIDE, others)
        return [(f.values, f.std, f.chi2, f.success, f.steps) for f in (first, second)]

    eager = both(three_bands, power_laws)
    jitted = jax.jit(both)(three_bands, power_laws)
    halves = [np.moveaxis(x.reshape(*x.shape[:2], 2, -1), 2, 0) for x in (three_bands, power_laws)]
    vmapped = jax.jit(jax.vmap(both))(*halves)
    for one, other, split in zip(eager, jitted, vmapped, strict=True):
        for name, value in one[0].items():
            scale = np.where(np.isfinite(one[1][name]), one[1][name], 1)
            assert np.max(np.abs(value - other[0][name]) / scale) < 1e-5
            assert np.max(np.abs(value - split[0][name].ravel()) / scale) < 1e-5
            np.testing.assert_allclose(other[1][name], one[1][name], rtol=1e-4)
        np.testing.assert_allclose(other[2], one[2], rtol=1e-7, atol=1e-9)
        np.testing.assert_array_equal(other[3], one[3])
        np.testing.assert_array_equal(np.asarray(split[3]).ravel(), one[3])


def test_a_derivative_of_cells_is_that_of_a_difference(power_laws):
    """The answers within a transformation have derivatives, forward and backward."""
    maps = jnp.asarray(power_laws[:, :, :3])
    names = ("a.beta", "b.beta")

    @jax.jit
    def values(scale):
        found = compsep.separate(
            two(-3.1, -2.0),
            WIDE,
            maps * jnp.ones((6, 1, 1)).at[2].set(scale),
            inv_n=np.full(6, SIGMA**-2),
            patches=np.arange(3),
            tolerance=1e-9,
        )
        return jnp.stack([found.values[name] for name in names])

    one, step = jnp.asarray(1.0), 1e-5
    expected = (values(one + step) - values(one - step)) / (2 * step)
    np.testing.assert_allclose(jax.jit(jax.jacfwd(values))(one), expected, rtol=1e-4)
    np.testing.assert_allclose(jax.jit(jax.jacrev(values))(one), expected, rtol=1e-4)
