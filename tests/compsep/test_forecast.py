"""Forecasts of the tensor-to-scalar ratio: closed forms, and numbers of the original xForecast."""

import jax.numpy as jnp
import numpy as np
import pytest

from jaxsci import compsep

pytest.importorskip("healpy")
NSIDE = 16
NPIX = 12 * NSIDE**2
LITEBIRD = compsep.Instrument.named("LiteBIRD")
# the instrument of fgbuster's xForecast test, and what the original code answers there
FORMER = compsep.Instrument(
    frequency=jnp.array([40.0, 50, 60, 68.4, 78, 88.5, 100, 118.9, 140, 166, 195, 234.9, 280, 337.4, 402.1]),
    depth_p=jnp.array([36.1, 19.6, 20.2, 11.3, 10.3, 8.4, 7.0, 5.8, 4.7, 7.0, 5.8, 8.0, 9.1, 11.4, 19.6]),
    fwhm=jnp.array([60.0, 56, 48, 43, 39, 35, 29, 25, 23, 21, 20, 19, 24, 20, 17]),
)
STATISTICAL = [2.13752688e-07, 2.50160994e-08, 4.39734801e-08, 1.75192647e-08, 2.10382699e-08, 9.55361360e-09]


def mixing(beta=1.54, temp=20.0, beta_s=-3.0, nu0=150.0):
    dust, sync = compsep.ModifiedBlackBody(beta, temp, nu0), compsep.PowerLaw(beta_s, nu0)
    return compsep.MixingMatrix(cmb=compsep.CMB(), dust=dust, sync=sync)


def foregrounds(instrument, amplitudes, **parameters):
    A = mixing(**parameters).eval(instrument.frequency)
    return jnp.einsum("fc,csp->fsp", A[:, 1:], jnp.asarray(amplitudes))


@pytest.fixture(scope="module")
def amplitudes():
    """Dust and synchrotron of our own, red spectra."""
    rng = np.random.default_rng(0)
    import healpy

    ell, m = healpy.Alm.getlm(2 * NSIDE)
    width = np.where(ell >= 2, (1.0 + ell) ** -1.3, 0)

    def field():
        return rng.normal(size=ell.size) * width + 1j * np.where(m > 0, rng.normal(size=ell.size), 0) * width

    alm = np.array([[field(), field()], [field(), field()]])
    return np.stack([compsep.synthesise(2 * alm[0], NSIDE), compsep.synthesise(0.5 * alm[1], NSIDE)])


def test_constant_foregrounds_leave_no_systematic_residual(amplitudes):
    answer = compsep.xForecast(mixing(), LITEBIRD, foregrounds(LITEBIRD, amplitudes, beta=1.6, beta_s=-3.1), r=0.01)
    np.testing.assert_allclose(answer.separation.values["dust.beta"], [1.6], atol=1e-7)
    assert float(jnp.max(answer.systematic)) < 1e-2 * float(jnp.max(answer.statistical))
    assert 0 < float(answer.bias) < float(answer.sigma_r)
    modelled = compsep.xForecast(
        mixing(), LITEBIRD, foregrounds(LITEBIRD, amplitudes, beta=1.6, beta_s=-3.1), r=0.01, modelled=True
    )
    assert abs(float(modelled.bias)) < 1e-2 * float(answer.bias)
    # of first order: bias = sigma^2 sum (2 l + 1) / 2 C_prim stat / C^2
    total = 0.01 * answer.primordial + answer.lensing + answer.noise
    modes = (2 * answer.ell + 1) / 2
    sigma = 1 / jnp.sqrt(jnp.sum(modes * (answer.primordial / total) ** 2))
    shift = sigma**2 * jnp.sum(modes * answer.primordial * (answer.statistical + answer.systematic) / total**2)
    np.testing.assert_allclose(answer.bias, shift, rtol=0.05)
    np.testing.assert_allclose(answer.sigma_r, sigma, rtol=0.02)


def test_without_free_parameters_a_wrong_model_biases_r(amplitudes):
    answer = compsep.xForecast(mixing(), LITEBIRD, foregrounds(LITEBIRD, amplitudes, beta=1.56), free=("sync.beta",))
    assert float(answer.bias) > 3 * float(answer.sigma_r)
    assert float(jnp.sum(answer.systematic)) > 100 * float(jnp.sum(answer.statistical))


def test_the_noise_is_that_of_the_weights():
    A = np.asarray(mixing().eval(FORMER.frequency))
    sky = foregrounds(FORMER, np.ones((2, 2, NPIX)))
    noise = np.asarray(compsep.xForecast(mixing(), FORMER, sky, free=("dust.beta",)).noise)
    depth, beam = np.asarray(FORMER.depth_p) * np.pi / 10800, np.asarray(FORMER.fwhm) * np.pi / 10800
    for k, ell in ((0, 2), (29, 31)):
        n = depth**2 * np.exp(ell * (ell + 1) * beam**2 / (8 * np.log(2)))
        np.testing.assert_allclose(noise[k], np.linalg.inv(A.T @ np.diag(1 / n) @ A)[0, 0], rtol=1e-9)
    np.testing.assert_allclose(noise[0], 6.985360419978725e-07, rtol=1e-3)  # the original, l = 2


def test_the_original_xforecast(shared_data):
    """Its sky (d0 s0) is the templates with constant spectra; its C_l are not stated: sigma(r) follows tau."""
    with np.load(shared_data / "compsep" / "sky_nside16_c1d1s1f1.npz") as file:
        dust, sync = (file[name][1:].astype(float) for name in ("dust353_uKrj", "sync30_uKrj"))
    A = [np.asarray(mixing(nu0=nu).eval(jnp.array([150.0])))[0] for nu in (353.0, 30.0)]
    to_cmb = [float(compsep.conversion(jnp.array(nu), "K_RJ", "K_CMB")) for nu in (353.0, 30.0)]
    sky = foregrounds(FORMER, np.stack([dust * A[0][1] * to_cmb[0], sync * A[1][2] * to_cmb[1]]))
    answer = compsep.xForecast(mixing(), FORMER, sky, r=1e-3)
    np.testing.assert_allclose([float(v[0]) for v in answer.separation.values.values()], [1.54, 20, -3], rtol=1e-6)
    fisher = np.linalg.inv(np.asarray(answer.separation.covariance[:, :, 0]))
    np.testing.assert_allclose(fisher[0, 0], 1.07107731e09, rtol=0.01)
    np.testing.assert_allclose(fisher[0, 1], 3.05900728e07, rtol=0.01)
    np.testing.assert_allclose(fisher[1, 1], 8.80751745e05, rtol=0.01)
    np.testing.assert_allclose(answer.statistical[1:7], STATISTICAL, rtol=0.1)
    np.testing.assert_allclose(answer.sigma_r, 3.163e-4, rtol=0.08)
    np.testing.assert_allclose(answer.r, 1.00556e-3, rtol=0.01)


def test_wrong_input_is_named():
    maps = np.zeros((15, 2, NPIX))
    with pytest.raises(ValueError, match="takes one cmb"):
        compsep.xForecast(compsep.MixingMatrix(dust=compsep.ModifiedBlackBody()), LITEBIRD, maps)
    with pytest.raises(ValueError, match="takes an Instrument"):
        compsep.xForecast(mixing(), np.ones(15), maps)
    with pytest.raises(ValueError, match="Q and U"):
        compsep.xForecast(mixing(), LITEBIRD, np.zeros((15, 3, NPIX)))
    with pytest.raises(ValueError, match="the spectra end at l = 600"):
        compsep.xForecast(mixing(), LITEBIRD, maps, lmax=700)


def test_the_bundled_spectra():
    cls = compsep.Spectra.bundled()
    assert cls.scalar.shape == cls.tensor.shape == (4, 601)
    # l (l + 1) C_l / 2 pi of the first peak, uK^2; lensing B modes are white, (5 uK arcmin)^2
    ell = np.arange(601)
    assert 5500 < float(np.max(ell * (ell + 1) * np.asarray(cls.scalar[0]) / 2 / np.pi)) < 6000
    depth = np.sqrt(float(cls.scalar[2, 50])) * 10800 / np.pi
    assert 4.5 < depth < 5.2
