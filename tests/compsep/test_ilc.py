"""Internal linear combinations against closed forms."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsci import compsep
from jaxsci.compsep._linear.ilc import least_variance

NU = np.array([30.0, 44.0, 70.0, 100.0])
CMB = compsep.MixingMatrix(cmb=compsep.CMB())
BOTH = compsep.MixingMatrix(cmb=compsep.CMB(), sync=compsep.PowerLaw())
NSIDE = 8
NPIX = 12 * NSIDE**2
SIGMA = np.array([2.0, 1.0, 0.5, 0.4])


def made(seed=0, s=2, npix=NPIX, offset=0.0):
    """(maps, cmb (s, pixel)): CMB, synchrotron and white noise."""
    rng = np.random.default_rng(seed)
    cmb, sync = rng.normal(size=(s, npix)) * 3, rng.normal(size=(s, npix)) * 20 + offset
    A = np.asarray(BOTH.eval(jnp.asarray(NU)))
    clean = np.einsum("fc,csp->fsp", A, np.stack([cmb, sync]))
    return clean + rng.normal(size=clean.shape) * SIGMA[:, None, None], cmb


def closed_form(A, C):
    inverse = np.linalg.inv(C)
    return np.linalg.solve(A.T @ inverse @ A, A.T @ inverse)


@pytest.mark.parametrize("mixing", [CMB, BOTH], ids=["one", "two"])
def test_weights_are_those_of_least_variance(mixing):
    maps, _ = made()
    answer = compsep.ilc(mixing, NU, maps)
    A = np.asarray(mixing.eval(jnp.asarray(NU)))
    for stokes in range(2):
        C = np.cov(maps[:, stokes])
        np.testing.assert_allclose(answer.covariance[stokes, 0], C, rtol=1e-12)
        W = closed_form(A, C)
        np.testing.assert_allclose(answer.weights[:, stokes, 0], W, rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(answer.weights[:, stokes, 0] @ A, np.eye(A.shape[1]), atol=1e-12)
        np.testing.assert_allclose(answer.amplitudes[:, stokes], W @ maps[:, stokes], rtol=1e-9, atol=1e-11)
        # any other combination that keeps the components varies more
        null = np.eye(len(NU)) - A @ np.linalg.pinv(A)
        for k in range(len(NU)):
            w = np.asarray(answer.weights[0, stokes, 0]) + 1e-2 * null[k]
            assert w @ C @ w > np.var(answer.amplitudes[0, stokes], ddof=1)
    assert float(answer.fsky) == 1.0


def test_with_the_true_covariance_the_noise_is_that_of_the_closed_form():
    A = np.asarray(BOTH.eval(jnp.asarray(NU)))
    C = A @ np.diag([9.0, 400.0]) @ A.T + np.diag(SIGMA**2)
    w = least_variance(jnp.asarray(A[:, :1]), jnp.asarray(C))[0]
    np.testing.assert_allclose(w.sum(), 1.0, atol=1e-13)
    np.testing.assert_allclose(w @ C @ w, 1 / (np.ones(4) @ np.linalg.solve(C, np.ones(4))), rtol=1e-12)
    # the residual of many realisations has that variance, less the CMB's own
    maps, cmb = made(3, 1, 200_000)
    residual = np.asarray(w) @ maps[:, 0] - cmb[0]
    np.testing.assert_allclose(residual.var(), float(w @ C @ w) - 9.0, rtol=0.02)


@pytest.mark.parametrize("scale", [1e-6, 1e6])
def test_units_of_channels_do_not_matter(scale):
    A = np.asarray(BOTH.eval(jnp.asarray(NU)))
    C = A @ np.diag([9.0, 400.0]) @ A.T + np.diag(SIGMA**2)
    unit = np.array([1.0, scale, 1.0, 1 / scale])
    W = least_variance(jnp.asarray(A), jnp.asarray(C))
    other = least_variance(jnp.asarray(A * unit[:, None]), jnp.asarray(C * np.outer(unit, unit)))
    np.testing.assert_allclose(np.asarray(other) * unit, W, rtol=1e-9)
    assert np.isnan(least_variance(jnp.asarray(A), jnp.zeros((4, 4)))).all()


def test_regions_and_masks():
    maps, _ = made()
    region = np.arange(NPIX) % 3
    mask = np.arange(NPIX) % 7 != 0
    maps[1, 0, 5] = compsep.UNSEEN
    answer = compsep.ilc(CMB, NU, maps, regions=region, mask=mask)
    used = mask & (np.arange(NPIX) != 5)
    for k in range(3):
        alone = compsep.ilc(CMB, NU, maps[:, :, used & (region == k)])
        np.testing.assert_allclose(answer.weights[:, :, k], alone.weights[:, :, 0], rtol=1e-10, atol=1e-13)
        np.testing.assert_allclose(answer.component("cmb")[:, used & (region == k)], alone.component("cmb"), rtol=1e-9)
    assert np.isnan(answer.amplitudes[:, :, ~used]).all()
    np.testing.assert_allclose(answer.fsky, used.mean(), rtol=1e-15)
    assert (np.asarray(answer.region)[~used] == -1).all()


def test_a_constant_does_not_move_the_weights():
    maps, _ = made()
    a, b = (compsep.ilc(CMB, NU, maps + offset) for offset in (0.0, 1e3))
    np.testing.assert_allclose(a.weights, b.weights, rtol=1e-7)


def test_pooled_weights_know_no_basis():
    """Q and U in a basis that turns from pixel to pixel are the same sky, and so is its combination."""
    maps, _ = made(5, 3, offset=4.0)
    turned = np.exp(2j * np.random.default_rng(7).uniform(0, np.pi, NPIX))

    def rotate(x):
        both = (x[..., 1, :] + 1j * x[..., 2, :]) * turned
        return np.stack([x[..., 0, :], both.real, both.imag], axis=-2)

    pooled, other = (compsep.ilc(CMB, NU, x, pooled=True) for x in (maps, rotate(maps)))
    np.testing.assert_allclose(other.weights, pooled.weights, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(other.component("cmb"), rotate(np.asarray(pooled.component("cmb"))), atol=1e-10)
    C = np.einsum("fsp,gsp->fg", maps[:, 1:], maps[:, 1:]) / (2 * NPIX)
    for stokes in (1, 2):
        np.testing.assert_allclose(pooled.covariance[stokes, 0], C, rtol=1e-12)
        np.testing.assert_allclose(pooled.weights[:, stokes, 0], closed_form(np.ones((4, 1)), C), rtol=1e-9)
    # I keeps its own weights; those of Q and of U each hang on the basis
    each, turned_each = (compsep.ilc(CMB, NU, x) for x in (maps, rotate(maps)))
    np.testing.assert_array_equal(pooled.weights[:, 0], each.weights[:, 0])
    assert np.abs(np.asarray(each.weights - turned_each.weights))[:, 1:].max() > 1e-3
    with pytest.raises(ValueError, match="pooled weights are those of Q and U"):
        compsep.ilc(CMB, NU, maps[:, :1], pooled=True)


def test_realisations_under_vmap():
    maps = np.stack([made(seed)[0] for seed in range(3)])
    stacked = jax.jit(jax.vmap(lambda d: compsep.ilc(CMB, NU, d).amplitudes))(maps)
    for k in range(3):
        np.testing.assert_allclose(stacked[k], compsep.ilc(CMB, NU, maps[k]).amplitudes, rtol=1e-9, atol=1e-10)


def test_wrong_input_is_named():
    maps, _ = made()
    with pytest.raises(ValueError, match=r"maps should have shape \(f, s, pixel\) with f = 4"):
        compsep.ilc(CMB, NU, maps[:3])
    with pytest.raises(ValueError, match="region 2 has 3 pixels in use for 4 channels"):
        compsep.ilc(CMB, NU, maps, regions=np.repeat([0, 1, 2], [400, NPIX - 403, 3]))
    with pytest.raises(ValueError, match="region 1 has 0 pixels"):
        compsep.ilc(CMB, NU, maps, regions=np.repeat([0, 2], NPIX // 2))
    with pytest.raises(ValueError, match="regions should be"):
        compsep.ilc(CMB, NU, maps, regions=np.zeros(NPIX))
    with pytest.raises(ValueError, match="mask should be"):
        compsep.ilc(CMB, NU, maps, mask=np.ones(3, bool))
    maps[0, 0, 3] = np.nan
    with pytest.raises(ValueError, match="not finite in 1 pixels"):
        compsep.ilc(CMB, NU, maps)
    with pytest.raises(ValueError, match="no component 'cbm'; did you mean 'cmb'"):
        compsep.ilc(CMB, NU, made()[0]).component("cbm")


@pytest.fixture(scope="module")
def sky():
    """(maps of band-limited fields, their CMB, coefficients (f, s, a))."""
    healpy = pytest.importorskip("healpy")
    lmax, rng = 16, np.random.default_rng(1)
    ell, m = healpy.Alm.getlm(lmax)
    amplitude = np.where(ell >= 2, 1 / (1 + ell), 0)

    def field():
        real = rng.normal(size=ell.size) * amplitude
        return real + 1j * np.where(m > 0, rng.normal(size=ell.size), 0) * amplitude

    A = np.asarray(BOTH.eval(jnp.asarray(NU)))
    parts = np.stack([[field(), field()], [20 * field(), 20 * field()]])
    noise = np.stack([[field() * x, field() * x] for x in SIGMA])
    alm = np.einsum("fc,csa->fsa", A, parts) + noise
    maps = np.stack([compsep.synthesise(one, NSIDE) for one in alm])
    return maps, parts[0], alm


def test_coefficients_come_back(sky):
    found = compsep.harmonics(sky[0], lmax=16, iterations=20)
    np.testing.assert_allclose(found.alm, sky[2], atol=1e-5)
    assert float(found.fsky) == 1.0


def test_weights_in_bands(sky):
    maps, cmb, alm = sky
    bins = np.repeat([-1, 0, 1], [2, 6, 9])
    answer = compsep.harmonic_ilc(CMB, NU, maps, bins=bins, lmax=16, iterations=20)
    found = compsep.harmonics(maps, lmax=16)
    ell, twice = np.asarray(found.ell), np.asarray(found.twice)
    assert float(answer.fsky) == 1.0  # the whole sky is 1, not 0
    np.testing.assert_array_equal(answer.count, [sum(2 * l + 1 for l in range(2, 8)), sum(range(17, 34, 2))])  # noqa: E741
    for band in range(2):
        here = (bins[ell] == band) * twice
        C = np.einsum("fa,ga,a->fg", alm[:, 0], alm[:, 0].conj(), here).real / np.asarray(answer.count)[band]
        np.testing.assert_allclose(answer.weights[:, 0, band], closed_form(np.ones((4, 1)), C), atol=1e-4)
    np.testing.assert_allclose(answer.weights.sum(-1), 1.0, atol=1e-12)
    truth = np.asarray(compsep.synthesise(cmb, NSIDE))
    left = np.asarray(answer.component("cmb")) - truth
    assert left.std() < 0.5 * truth.std() < 0.05 * (maps[0] - truth).std()


def test_masked_sky_and_spectra(sky):
    maps, _, alm = sky
    whole = compsep.harmonics(maps, lmax=16, iterations=20)
    ell, twice = np.asarray(whole.ell), np.asarray(whole.twice)
    power = np.bincount(ell, np.abs(alm[1, 1]) ** 2 * twice) / (2 * np.arange(17) + 1)
    np.testing.assert_allclose(whole.spectrum()[1, 1, 1], power, atol=1e-4)
    mask = np.arange(NPIX) >= NPIX // 4
    part = compsep.harmonics(maps, lmax=16, mask=mask)
    np.testing.assert_allclose(part.fsky, 0.75, rtol=1e-14)
    assert np.isnan(part.alm).sum() == 0
    hole = maps.copy()
    hole[0, 0, : NPIX // 4] = compsep.UNSEEN
    np.testing.assert_allclose(compsep.harmonics(hole, lmax=16).alm, part.alm, atol=1e-12)
    with pytest.raises(ValueError, match="no pixel is left"):
        compsep.harmonics(maps, mask=np.zeros(NPIX))
    with pytest.raises(ValueError, match="band 0 has 3 modes"):
        compsep.harmonic_ilc(CMB, NU, maps, bins=np.array([-1, 0]))
