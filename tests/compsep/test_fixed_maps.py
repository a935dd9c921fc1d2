"""Parameters that vary over the sky without being fitted."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize as so
import sky

from jaxsci import compsep
from jaxsci.compsep._healpix import parents

NSIDE = 4
NPIX = 12 * NSIDE**2
NU, SIGMA = sky.few(NPIX)
FREE = ("dust.beta", "sync.beta")


def mixing(beta=1.54, temp=20.0):
    dust = compsep.ModifiedBlackBody(beta, temp)
    return compsep.MixingMatrix(cmb=compsep.CMB(), dust=dust, sync=compsep.PowerLaw(-3.0))


@jax.jit
@jax.vmap
def matrices(beta, temp, beta_s):
    dust, synchrotron = compsep.ModifiedBlackBody(beta, temp), compsep.PowerLaw(beta_s)
    return compsep.MixingMatrix(cmb=compsep.CMB(), dust=dust, sync=synchrotron).eval(jnp.asarray(NU))


@pytest.fixture(scope="module")
def varying():
    """(temperature map, maps): temperatures that differ by nside-2 pixel, beta_d 1.6, beta_s -3.1."""
    rng = np.random.default_rng(8)
    temp = (19 + 2 * rng.random(48))[parents(NSIDE, 2)]
    A = np.asarray(matrices(jnp.full(NPIX, 1.6), jnp.asarray(temp), jnp.full(NPIX, -3.1)))
    amplitudes = rng.normal(size=(3, 2, NPIX)) * 5 + np.array([0.0, 60, 40])[:, None, None]
    return temp, np.einsum("pfc,csp->fsp", A, amplitudes) + rng.normal(size=(6, 2, NPIX)) * SIGMA[:, None, None]


def fit(temp, maps, **choices):
    return compsep.separate(mixing(), NU, maps, fixed={"dust.temp": temp}, **{"inv_n": SIGMA**-2.0, **choices})


def test_a_global_fit_is_that_of_the_closed_form(varying):
    temp, maps = varying
    found = fit(temp, maps)

    def minus_log(y):
        A = np.asarray(matrices(jnp.full(NPIX, y[0]), jnp.asarray(temp), jnp.full(NPIX, y[1]))) / SIGMA[:, None]
        side = np.einsum("pfc,fsp->pcs", A, maps / SIGMA[:, None, None])
        return -np.sum(side * np.linalg.solve(np.einsum("pfc,pfd->pcd", A, A), side)) / 2

    root = np.linalg.cholesky(np.asarray(found.covariance[:, :, 0]))
    start = np.array([1.6, -3.1])
    options = {"xatol": 1e-6, "fatol": 1e-9}
    lowest = so.minimize(lambda x: minus_log(start + root @ x), np.zeros(2), method="Nelder-Mead", options=options)
    expected = start + root @ lowest.x
    for name, value in zip(FREE, expected, strict=True):
        assert abs(float(found.values[name][0]) - value) < 1e-3 * float(found.std[name][0])
    np.testing.assert_allclose(found.minus_log_like, lowest.fun, rtol=1e-11)
    assert int(found.dof) == maps.size - 2 * 3 * NPIX - 2
    scatter = (2 / int(found.dof)) ** 0.5
    assert abs(float(jnp.sum(found.chi2)) / int(found.dof) - 1) < 5 * scatter
    assert found.free == FREE
    wrong = compsep.separate(mixing(), NU, maps, free=FREE, inv_n=SIGMA**-2.0)
    assert float(jnp.sum(wrong.chi2)) > 2 * float(jnp.sum(found.chi2))


def test_a_map_of_one_value_is_that_value(varying):
    _, maps = varying
    patches = {"dust.beta": 2}
    one = compsep.separate(mixing(temp=19.5), NU, maps, free=FREE, inv_n=SIGMA**-2.0, patches=patches)
    other = fit(np.full(NPIX, 19.5), maps, patches=patches)
    np.testing.assert_allclose(other.values["dust.beta"], one.values["dust.beta"], rtol=1e-10)
    np.testing.assert_allclose(other.errors, one.errors, rtol=1e-8)


def test_patches_and_pixels_each_have_their_own_value(varying):
    """By cells alone, by cells of one patch, and with a parameter that ties patches; each as pixels by themselves."""
    temp, maps = varying
    pixel = fit(temp, maps, patches=NSIDE)
    for k in (3, 77):
        alone = fit(temp[[k]], maps[:, :, [k]])
        for name in FREE:
            np.testing.assert_allclose(pixel.parameter_map(name)[k], alone.values[name][0], rtol=1e-6)
        np.testing.assert_allclose(pixel.errors[:, :, k], alone.errors[:, :, 0], rtol=1e-4)
    finer, coarser = fit(temp, maps, patches=2), fit(temp, maps, patches=1)
    where = parents(NSIDE, 2)
    for nside, found in ((2, finer), (1, coarser)):
        here = parents(NSIDE, nside) == 5
        alone = fit(temp[here], maps[:, :, here])
        np.testing.assert_allclose(found.values["dust.beta"][5], alone.values["dust.beta"][0], rtol=1e-6)
        np.testing.assert_allclose(found.std["dust.beta"][5], alone.std["dust.beta"][0], rtol=1e-4)
    assert len(set(where[parents(NSIDE, 1) == 5])) == 4  # so that a patch has several temperatures


def test_noise_by_pixel_and_nothing_fitted(varying):
    temp, maps = varying
    weights = np.broadcast_to(SIGMA[:, None, None] ** -2.0, maps.shape)
    equal, each = fit(temp, maps), fit(temp, maps, inv_n=weights)
    np.testing.assert_allclose(each.values["dust.beta"], equal.values["dust.beta"], rtol=1e-8)
    still = compsep.separate(mixing(1.6), NU, maps, free=(), fixed={"dust.temp": temp}, inv_n=SIGMA**-2.0)
    A = np.asarray(matrices(jnp.full(NPIX, 1.6), jnp.asarray(temp), jnp.full(NPIX, -3.0)))[100] / SIGMA[:, None]
    expected = np.linalg.lstsq(A, maps[:, 1, 100] / SIGMA, rcond=None)[0]
    np.testing.assert_allclose(still.amplitudes[:, 1, 100], expected, rtol=1e-8)


def test_spectra_of_the_picture_are_those_of_each_pixel(varying):
    pytest.importorskip("matplotlib")
    from matplotlib.figure import Figure

    from jaxsci.compsep import plot

    temp, maps = varying
    found = fit(temp, maps)
    ax = plot.plot_spectra(found, NU, maps, pixel=9, ax=Figure().subplots())
    total = next(line for line in ax.lines if line.get_label() == "sum")
    at = np.exp(np.interp(np.log(NU), np.log(total.get_xdata()), np.log(total.get_ydata())))
    np.testing.assert_allclose(at, np.abs(maps[:, 0, 9]), rtol=0.01)


def test_wrong_maps_are_named(varying):
    temp, maps = varying
    with pytest.raises(
        ValueError, match=r"dust.temp should have a value for each of 192 pixels, but its shape is \(7,\)"
    ):
        fit(temp[:7], maps)
    with pytest.raises(ValueError, match=r"dust\.temp is both fixed and free"):
        fit(temp, maps, free=("dust.temp",))
    with pytest.raises(ValueError, match=r"fixed: no parameter 'dust.tmp'; did you mean 'dust.temp'"):
        compsep.separate(mixing(), NU, maps, fixed={"dust.tmp": temp})
    hole = np.where(np.arange(NPIX) == 11, np.nan, temp)
    with pytest.raises(ValueError, match=r"dust.temp is not finite in 1 pixels \(the first is 11\)"):
        fit(hole, maps)
    found = fit(hole, maps, mask=np.arange(NPIX) != 11)
    assert bool(found.success.all())
