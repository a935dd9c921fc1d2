"""Channels brought to one beam, against healpy, and the noise that is left."""

import numpy as np
import pytest

from jaxsci import compsep

healpy = pytest.importorskip("healpy")

NSIDE, LMAX = 8, 23
WIDTHS = np.array([600.0, 900.0])  # arcmin


@pytest.fixture(scope="module")
def skies():
    """(maps of the two channels (f, s, pixel), the same sky seen by a beam of 1200 arcmin)."""
    rng = np.random.default_rng(1)
    ell, m = healpy.Alm.getlm(16)
    alm = (rng.normal(size=(3, ell.size)) + 1j * np.where(m > 0, rng.normal(size=(3, ell.size)), 0)) / (1 + ell)
    alm[1:, ell < 2] = 0
    sky = np.array(healpy.alm2map(list(alm), NSIDE, lmax=16, pol=True))
    each = [healpy.smoothing(sky, fwhm=np.radians(width / 60), lmax=LMAX, iter=3) for width in (*WIDTHS, 1200.0)]
    return np.stack(each[:2]), np.asarray(each[2])


@pytest.mark.parametrize("stokes", ["I", "QU", "IQU"])
def test_all_channels_see_the_sky_through_one_beam(skies, stokes):
    rows = ["IQU".index(letter) for letter in stokes]
    maps, wanted = skies[0][:, rows], skies[1][rows]
    found = compsep.common_resolution(maps, WIDTHS, 1200.0)
    assert np.abs(maps - wanted).max() > 0.3 * np.abs(wanted).max()
    np.testing.assert_allclose(found.maps, np.stack([wanted] * 2), atol=5e-3 * np.abs(wanted).max())
    # in NESTED order the same pixels
    nest = compsep.common_resolution(
        healpy.reorder(maps.reshape(-1, maps.shape[-1]), r2n=True).reshape(maps.shape), WIDTHS, 1200.0, nest=True
    )
    back = healpy.reorder(np.asarray(nest.maps).reshape(-1, maps.shape[-1]), n2r=True)
    np.testing.assert_allclose(back.reshape(maps.shape), found.maps, atol=1e-10)


def test_white_noise_has_the_level_that_is_told():
    noise = np.random.default_rng(0).normal(size=(6, 3, 12 * NSIDE**2))
    found = compsep.common_resolution(noise, np.full(6, 300.0), 1200.0)
    seen = np.asarray(found.maps).std(axis=(0, 2))
    # a beam has some 20 pixels: 6 maps have 250 independent numbers
    np.testing.assert_allclose(seen, found.noise[0], rtol=0.2)
    assert np.all(seen < 0.3)
    ell = np.arange(3 * NSIDE)
    ratio = healpy.gauss_beam(np.radians(20), 23) / healpy.gauss_beam(np.radians(5), 23)
    np.testing.assert_allclose(found.noise[0, 0] ** 2, np.sum((2 * ell + 1) * ratio**2) / (12 * NSIDE**2), rtol=1e-10)


def test_beams_that_leave_nothing_of_high_multipoles_are_numbers():
    """Both beams are 0 there in double precision, as those of a degree are at nside 2048."""
    sky = np.random.default_rng(3).normal(size=(2, 3, 12 * NSIDE**2))
    found = compsep.common_resolution(sky, [20000.0, 18000.0])
    assert np.isfinite(found.maps).all()
    assert np.isfinite(found.noise).all()
    np.testing.assert_allclose(found.transfer[0], 1.0)
    assert np.all(np.diff(found.transfer[1, 0]) < 0)


def test_the_widest_beam_is_the_default_and_holes_stay(skies):
    maps = skies[0].copy()
    maps[0, 1, 5] = compsep.UNSEEN
    found = compsep.common_resolution(maps, WIDTHS)
    assert float(found.fwhm) == 900.0
    np.testing.assert_allclose(found.transfer[1], 1.0)
    np.testing.assert_allclose(found.maps[1], maps[1], atol=0.01 * np.abs(maps).max())
    unseen = np.asarray(found.maps) <= 0.99 * compsep.UNSEEN
    assert unseen.sum() == 2  # Q and U of that pixel of that channel
    assert unseen[0, 1:, 5].all()


def test_wrong_beams_are_named(skies):
    with pytest.raises(ValueError, match="fwhm_out is 700 arcmin, but a channel has a beam of 900"):
        compsep.common_resolution(skies[0], WIDTHS, 700.0)
    with pytest.raises(ValueError, match="fwhm_in should be 2 widths"):
        compsep.common_resolution(skies[0], WIDTHS[:1])
