"""Fits in harmonic space against fits of pixels, and their forecasts."""

import jax.numpy as jnp
import numpy as np
import pytest

from jaxsci import compsep

healpy = pytest.importorskip("healpy")
NSIDE, LMAX = 16, 24
NPIX = 12 * NSIDE**2
ARCMIN = np.pi / 10800
FREQUENCY = np.array([40.0, 78, 100, 140, 235, 402])
DEPTH = np.array([36.0, 10, 7, 5, 8, 20])
SHARP = compsep.Instrument(frequency=FREQUENCY, depth_p=DEPTH)
BLUNT = compsep.Instrument(frequency=FREQUENCY, depth_p=DEPTH, fwhm=np.array([600.0, 500, 400, 300, 200, 100]))
FREE = ("dust.beta", "sync.beta")


def mixing(beta=1.54, beta_s=-3.0):
    return compsep.MixingMatrix(
        cmb=compsep.CMB(), dust=compsep.ModifiedBlackBody(beta, 20.0, 150.0), sync=compsep.PowerLaw(beta_s, 150.0)
    )


def coefficients(rng, amplitude, count):
    ell, m = healpy.Alm.getlm(LMAX)
    width = np.where(ell >= 2, amplitude(ell), 0) / np.where(m > 0, np.sqrt(2), 1)
    real, imaginary = rng.normal(size=(2, count, 2, ell.size)) * width
    return real + 1j * np.where(m > 0, imaginary, 0)


@pytest.fixture(scope="module")
def sky():
    """(coefficients (c, 2, a) of CMB, dust, synchrotron; of the noise of each channel (f, 2, a))."""
    rng = np.random.default_rng(2)
    parts = coefficients(rng, lambda ell: (1.0 + ell) ** -1.2, 3) * np.array([1.0, 3.0, 2.0])[:, None, None]
    noise = coefficients(rng, np.ones_like, len(FREQUENCY)) * (DEPTH * ARCMIN)[:, None, None]
    return parts, noise


def observed(instrument, parts, noise):
    """Maps (f, 2, pixel): beams, then noise."""
    ell = healpy.Alm.getlm(LMAX)[0]
    alm = np.einsum("fc,csa->fsa", np.asarray(mixing(1.6, -3.1).eval(jnp.asarray(FREQUENCY))), parts)
    if instrument.fwhm is not None:
        alm = alm * np.stack([healpy.gauss_beam(w * ARCMIN, LMAX) for w in np.asarray(instrument.fwhm)])[:, None, ell]
    return np.stack([compsep.synthesise(rows, NSIDE) for rows in alm + noise])


def pulls(found, other):
    return [float(jnp.abs(found.values[n][0] - other.values[n][0]) / other.std[n][0]) for n in FREE]


def test_with_white_noise_on_the_whole_sky_it_is_the_fit_of_pixels(sky):
    maps = observed(SHARP, *sky)
    pixels = compsep.separate(mixing(), SHARP, maps, free=FREE)
    found = compsep.harmonic_comp_sep(mixing(), SHARP, maps, free=FREE, lmax=LMAX, iterations=10)
    assert max(pulls(found.separation, pixels)) < 5e-3  # quadrature
    for name in FREE:
        np.testing.assert_allclose(found.separation.std[name], pixels.std[name], rtol=1e-3)
    np.testing.assert_allclose(found.separation.minus_log_like, pixels.minus_log_like, rtol=1e-3)
    scatter = np.asarray(pixels.errors)[:, :, 0].max(axis=1)
    off = np.max(np.abs(np.asarray(found.amplitudes) - np.asarray(pixels.amplitudes)), axis=(1, 2))
    assert np.all(off < 1e-2 * scatter)
    # a map of N_l has 4 pi / npix of its variance in each pixel
    cmb = np.asarray(found.separation.errors[0, 0, 0]) / np.sqrt(4 * np.pi / NPIX)
    np.testing.assert_allclose(cmb, np.asarray(pixels.errors[0, 0, 0]), rtol=0.02)
    assert int(found.separation.num_data) == 2 * len(FREQUENCY) * ((LMAX + 1) ** 2 - 4)


def test_beams_are_divided_out(sky):
    """Each multipole by itself in closed form; maps without their beams."""
    parts, noise = sky
    found = compsep.harmonic_comp_sep(
        mixing(1.6, -3.1), BLUNT, observed(BLUNT, parts, noise), free=(), lmax=LMAX, iterations=20
    )
    ell = healpy.Alm.getlm(LMAX)[0]
    A = np.asarray(mixing(1.6, -3.1).eval(jnp.asarray(FREQUENCY)))
    for l in (2, 11, LMAX):  # noqa: E741
        beam = np.array([healpy.gauss_beam(w * ARCMIN, LMAX)[l] for w in np.asarray(BLUNT.fwhm)])
        inv = (beam / DEPTH / ARCMIN) ** 2
        M = A.T @ (A * inv[:, None])
        W = np.linalg.solve(M, A.T * inv)
        expected = parts[:, :, ell == l] + np.einsum("cf,fsa->csa", W / beam, noise[:, :, ell == l])
        error = np.sqrt(np.diag(np.linalg.inv(M)))
        off = np.abs(np.asarray(found.alm)[:, :, ell == l] - expected).max((1, 2))
        assert np.all(off < 2e-3 * error)
        here = np.asarray(found.ell) == l
        assert here.sum() == 2 * l + 1
        shown = np.broadcast_to(error[:, None, None], (3, 2, 2 * l + 1))
        np.testing.assert_allclose(found.separation.errors[:, :, here], shown, rtol=1e-9)
    assert np.all(np.asarray(found.alm)[:, :, ell < 2] == 0)
    again = compsep.synthesise(found.alm[0], NSIDE)
    np.testing.assert_allclose(found.component("cmb"), again, atol=1e-12)


def test_beams_make_the_fit_better_than_a_common_resolution(sky):
    maps = observed(BLUNT, *sky)
    found = compsep.harmonic_comp_sep(mixing(), BLUNT, maps, free=FREE, lmax=LMAX)
    truth = {"dust.beta": 1.6, "sync.beta": -3.1}
    widest = np.exp(-np.arange(LMAX + 1.0) * np.arange(1, LMAX + 2) * (600 * ARCMIN) ** 2 / (8 * np.log(2)))
    common = compsep.harmonic_comp_sep(
        mixing(), BLUNT, maps, free=FREE, lmax=LMAX, inv_n=widest / (DEPTH[:, None] * ARCMIN) ** 2
    )
    for name, value in truth.items():
        assert abs(float(found.separation.values[name][0]) - value) < 4 * float(found.separation.std[name][0])
        assert float(found.separation.std[name][0]) < float(common.separation.std[name][0])


@pytest.mark.parametrize(("count", "stokes"), [(2, "QU"), (3, "IQU"), (2, "I")])
def test_as_many_channels_as_stokes_parameters(count, stokes):
    """The CMB alone is the mean of channels, weighted by their depths in each of T, E, B."""
    rng, s = np.random.default_rng(6), len(stokes)
    few = compsep.Instrument(
        frequency=FREQUENCY[:count], depth_i=np.array([1.0, 2, 3])[:count], depth_p=np.array([5.0, 4, 3])[:count]
    )
    maps = rng.normal(size=(count, s, 12 * 4**2))
    cmb = compsep.MixingMatrix(cmb=compsep.CMB())
    found = compsep.harmonic_comp_sep(cmb, few, maps, lmax=6, free=())
    alm = np.asarray(compsep.harmonics(maps, lmax=6).alm)
    for k, letter in enumerate(stokes):
        weight = np.asarray(few.depth_i if letter == "I" else few.depth_p) ** -2.0
        mean = np.einsum("f,fa->a", weight, alm[:, k]) / weight.sum()
        np.testing.assert_allclose(found.alm[0, k, 2:7], mean[2:7], atol=1e-12)  # m = 0
        error = 1 / np.sqrt(weight.sum()) * ARCMIN
        np.testing.assert_allclose(found.separation.errors[0, k], error, rtol=1e-10)


def test_a_mask_leaves_the_information_of_its_pixels(sky):
    maps = observed(SHARP, *sky)
    mask = np.abs(healpy.pix2vec(NSIDE, np.arange(NPIX))[2]) > 0.4
    pixels = compsep.separate(mixing(), SHARP, maps, free=FREE, mask=mask)
    found = compsep.harmonic_comp_sep(mixing(), SHARP, maps, free=FREE, lmax=LMAX, mask=mask)
    np.testing.assert_allclose(found.fsky, mask.mean(), rtol=1e-12)
    for name, value in zip(FREE, (1.6, -3.1), strict=True):
        np.testing.assert_allclose(found.separation.std[name], pixels.std[name], rtol=0.05)
        assert abs(float(found.separation.values[name][0]) - value) < 4 * float(found.separation.std[name][0])


def test_matrices_without_correlation_are_spectra(sky):
    maps = observed(SHARP, *sky)
    power = np.broadcast_to(1 / (DEPTH[:, None] * ARCMIN) ** 2, (len(FREQUENCY), LMAX + 1))
    dense = np.einsum("fl,fg->fgl", power, np.eye(len(FREQUENCY)))
    one, other = (
        compsep.harmonic_comp_sep(mixing(), FREQUENCY, maps, free=(), lmax=LMAX, inv_n=n) for n in (power, dense)
    )
    np.testing.assert_allclose(one.alm, other.alm, atol=1e-12)


def test_wrong_input_is_named(sky):
    maps = observed(SHARP, *sky)
    with pytest.raises(ValueError, match=r"inverse noise has shape \(6, 3\), but it should be \(6, 25\)"):
        compsep.harmonic_comp_sep(mixing(), SHARP, maps, lmax=LMAX, inv_n=np.ones((6, 3)))
    with pytest.raises(ValueError, match="no multipole is left: lmin is 30"):
        compsep.harmonic_comp_sep(mixing(), SHARP, maps, lmin=30, lmax=LMAX)
    with pytest.raises(ValueError, match=r"maps should have shape \(f, s, pixel\) with f = 6"):
        compsep.harmonic_comp_sep(mixing(), SHARP, maps[:5], lmax=LMAX)
    with pytest.raises(ValueError, match="or an Instrument with depths"):
        compsep.harmonic_comp_sep(mixing(), FREQUENCY, maps, lmax=LMAX)


def foregrounds(parts, beta=1.6):
    A = np.asarray(mixing(beta, -3.1).eval(jnp.asarray(FREQUENCY)))
    alm = np.einsum("fc,csa->fsa", A[:, 1:], parts[1:])
    return np.stack([compsep.synthesise(rows, NSIDE) for rows in alm])


def test_without_beams_both_forecasts_are_one(sky):
    given = (mixing(), SHARP, foregrounds(sky[0]))
    one, other = (
        door(*given, free=FREE, r=1e-3, lmax=LMAX) for door in (compsep.xForecast, compsep.harmonic_xForecast)
    )
    np.testing.assert_allclose(other.sigma_r, one.sigma_r, rtol=1e-5)
    np.testing.assert_allclose(other.statistical, one.statistical, rtol=1e-3)
    np.testing.assert_allclose(other.bias, one.bias, rtol=1e-3)
    np.testing.assert_allclose(other.noise, one.noise, rtol=1e-9)


def test_with_beams_the_harmonic_weights_leave_less(sky):
    """The weights of pixels are not those of least noise where beams matter; residuals differ, noise does not."""
    given = (mixing(), BLUNT, foregrounds(sky[0]))
    one, other = (
        door(*given, free=FREE, r=1e-3, lmax=LMAX) for door in (compsep.xForecast, compsep.harmonic_xForecast)
    )
    A = np.asarray(mixing(1.6, -3.1).eval(jnp.asarray(FREQUENCY)))
    ell = np.asarray(other.ell)
    beam = np.stack([healpy.gauss_beam(w * ARCMIN, LMAX)[2:] for w in np.asarray(BLUNT.fwhm)])
    inv = (beam / DEPTH[:, None] / ARCMIN) ** 2
    expected = [np.linalg.inv(A.T @ (A * n[:, None]))[0, 0] for n in inv.T]
    np.testing.assert_allclose(other.noise, expected, rtol=1e-6)
    # the parameters cost more where beams hide the channels, and the forecast of pixels knows nothing of that
    for name in FREE:
        assert float(other.separation.std[name][0]) > 1.02 * float(one.separation.std[name][0])
    # the statistical residual of one multipole from its own weights
    l = 20  # noqa: E741
    inv_n = inv[:, l - 2]

    def weights(beta, beta_s):
        B = np.asarray(mixing(beta, beta_s).eval(jnp.asarray(FREQUENCY)))
        return np.linalg.solve(B.T @ (B * inv_n[:, None]), B.T * inv_n)[0]

    h = 1e-5
    slopes = np.stack([weights(1.6 + h, -3.1) - weights(1.6 - h, -3.1), weights(1.6, h - 3.1) - weights(1.6, -h - 3.1)])
    here = healpy.Alm.getlm(LMAX)[0] == l
    left = np.einsum("kf,fc,ca->ka", slopes / (2 * h), A[:, 1:], sky[0][1:, 1, here])
    twice = np.where(healpy.Alm.getlm(LMAX)[1][here] > 0, 2, 1)
    power = np.einsum("ia,ja,a->ij", left, left.conj(), twice).real / (2 * l + 1)
    sigma = np.asarray(other.separation.covariance[:, :, 0])
    np.testing.assert_allclose(other.statistical[ell == l], np.sum(sigma * power), rtol=1e-3)
