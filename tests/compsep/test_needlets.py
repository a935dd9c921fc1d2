"""Needlet ILC: what must be exact, and what weights by place gain where foregrounds differ from place to place."""

import jax.numpy as jnp
import numpy as np
import pytest

from jaxsci import compsep

healpy = pytest.importorskip("healpy")

NU = np.array([30.0, 70.0, 150.0])
NSIDE, LMAX = 16, 24
NPIX = 12 * NSIDE**2
CMB = compsep.MixingMatrix(cmb=compsep.CMB())


def field(rng, tilt=0.0, low=2):
    ell, m = healpy.Alm.getlm(LMAX)
    real = rng.normal(size=ell.size) + 1j * np.where(m > 0, rng.normal(size=ell.size), 0)
    return real * np.where(ell >= low, 1 / (1 + ell) ** (1 - tilt), 0)


def test_squares_of_the_bands_sum_to_one():
    for peaks in ([0, 8, 16, 24], [3, 10], [5]):
        bands = np.asarray(compsep.needlet_bands(peaks, LMAX))
        np.testing.assert_allclose(np.sum(bands**2, axis=0), 1.0, atol=1e-14)
        np.testing.assert_allclose(bands[np.arange(len(peaks)), peaks], 1.0)
    assert np.count_nonzero(np.asarray(compsep.needlet_bands([0, 8, 16, 24], LMAX))[1]) == 15  # l = 1 to 15
    with pytest.raises(ValueError, match="peaks of needlets should rise"):
        compsep.needlet_bands([8, 4], LMAX)


@pytest.mark.parametrize("s", [1, 2])
def test_a_sky_of_cmb_alone_comes_back(s):
    rng = np.random.default_rng(s)
    cmb = np.asarray(compsep.synthesise(np.stack([field(rng) for _ in range(s)]), NSIDE))
    maps = np.stack([cmb] * 3)
    found = compsep.nilc(CMB, NU, maps, peaks=[0, 8, 16, 24], lmax=LMAX, bias=0.3)
    np.testing.assert_allclose(found.component("cmb"), cmb, atol=2e-3 * cmb.std())
    for each in found.weights:
        np.testing.assert_allclose(np.sum(np.asarray(each), axis=-1), 1.0, atol=1e-9)
    assert [each.shape[:2] for each in found.weights] == [(1, s)] * 4
    assert found.weights[0].shape[2] == 1  # the sky has too few modes of the first band for neighbourhoods
    assert found.weights[2].shape[2] > 1


def test_weights_by_place_leave_less_of_a_foreground_that_varies():
    """Two foregrounds, one in each hemisphere: three channels remove either, but not both with the same weights."""
    rng = np.random.default_rng(3)
    cmb = np.asarray(compsep.synthesise(field(rng)[None], NSIDE))
    north = healpy.pix2vec(NSIDE, np.arange(NPIX))[2] > 0
    parts = 10 * np.stack([healpy.alm2map(field(rng, 0.5), NSIDE, lmax=LMAX) for _ in range(2)])
    spectra = np.array([[1.0, 0.1, 0.0], [0.3, 0.8, 1.5]])
    foreground = np.einsum("kf,kp->fp", spectra, parts * np.stack([north, ~north]))
    maps = cmb[None] + foreground[:, None] + 0.02 * rng.normal(size=(3, 1, NPIX))
    local = compsep.nilc(CMB, NU, maps, peaks=[0, 8, 16, 24], lmax=LMAX, bias=0.05)
    bands = np.repeat([-1, 0, 1, 2], [2, 6, 8, 9])
    alike = compsep.harmonic_ilc(CMB, NU, maps, bins=bands, lmax=LMAX)
    inner = np.abs(healpy.pix2vec(NSIDE, np.arange(NPIX))[2]) > 0.4
    left = [(np.asarray(each.component("cmb")) - cmb)[0, inner].std() for each in (local, alike)]
    assert left[0] < 0.7 * left[1], left
    # the same sky in NESTED order, with a mask: nothing but the order of the pixels is another
    mask = np.abs(healpy.pix2vec(NSIDE, np.arange(NPIX))[2]) > 0.1
    ring = compsep.nilc(CMB, NU, maps, peaks=[0, 12], lmax=12, mask=mask)
    turned = healpy.reorder(maps[:, 0], r2n=True)[:, None]
    nest = compsep.nilc(CMB, NU, turned, peaks=[0, 12], lmax=12, mask=healpy.reorder(mask, r2n=True), nest=True)
    np.testing.assert_allclose(
        healpy.reorder(np.asarray(nest.component("cmb")), n2r=True), ring.component("cmb"), atol=1e-8
    )
    np.testing.assert_allclose(float(ring.fsky), mask.mean(), rtol=1e-12)


def test_wrong_bands_are_named():
    maps = jnp.ones((3, 1, NPIX)) + jnp.arange(3.0)[:, None, None]
    with pytest.raises(ValueError, match="has 1 modes for 3 channels"):
        compsep.nilc(CMB, NU, maps, peaks=[0, 1, 24], lmax=LMAX)
    with pytest.raises(ValueError, match="bias should lie between 0 and 1"):
        compsep.nilc(CMB, NU, maps, bias=0.0)
