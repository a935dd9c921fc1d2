"""Doors against closed forms of the likelihood, minimised by SciPy: marginal, weighted, without free parameters."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize as so
import sky

from jaxsci import compsep

NPIX = 48
NU, SIGMA = sky.few(NPIX)


@jax.jit
def _matrix(beta_d, beta_s):
    dust, sync = compsep.ModifiedBlackBody(beta_d, 20.0), compsep.PowerLaw(beta_s)
    return compsep.MixingMatrix(cmb=compsep.CMB(), dust=dust, sync=sync).eval(jnp.asarray(NU))


def matrix(beta_d, beta_s):
    """A with these indices."""
    return np.asarray(_matrix(beta_d, beta_s))


def best(function, covariance):
    """The minimum of a function of (beta_d, beta_s), looked for along the standard errors."""
    root, start = np.linalg.cholesky(covariance), np.array([1.6, -3.1])
    options = {"xatol": 1e-6, "fatol": 1e-10, "maxiter": 1000}

    def cost(x):
        return function(*(start + root @ x))

    def slope(x, step):
        return np.array([cost(x + step * axis) - cost(x - step * axis) for axis in np.eye(2)]) / (2 * step)

    found = so.minimize(cost, np.zeros(2), method="Nelder-Mead", options=options).x
    for _ in range(3):  # a cost tells its minimum to the root of its rounding only; slopes over long steps tell more
        found = found - (4 * slope(found, 0.1) - slope(found, 0.2)) / 3
    return start + root @ found, cost(found)


@pytest.fixture(scope="module")
def faint():
    """Foregrounds so weak that the amplitudes' own freedom moves the spectra."""
    rng = np.random.default_rng(4)
    amplitudes = rng.normal(size=(3, 2, NPIX)) * np.array([3.0, 0.1, 0.4])[:, None, None]
    mixing = compsep.MixingMatrix(
        cmb=compsep.CMB(), dust=compsep.ModifiedBlackBody(1.6, 20.0), sync=compsep.PowerLaw(-3.1)
    )
    clean = np.einsum("fc,csp->fsp", matrix(1.6, -3.1), amplitudes)
    return mixing, clean + rng.normal(size=clean.shape) * SIGMA[:, None, None]


def test_the_marginal_likelihood_is_that_of_amplitudes_with_a_flat_prior(faint):
    """-log N(d; 0, N + A S A^T) as S grows beyond all bounds, from a dense covariance."""
    mixing, maps = faint
    flat, columns = 30.0, maps.reshape(len(NU), -1)

    def minus_log(beta_d, beta_s):
        A = matrix(beta_d, beta_s)
        C = np.diag(SIGMA**2) + flat**2 * A @ A.T
        return (np.sum(columns * np.linalg.solve(C, columns)) + columns.shape[1] * np.linalg.slogdet(C)[1]) / 2

    free = {"free": ("dust.beta", "sync.beta"), "inv_n": SIGMA**-2.0}
    marginal = compsep.separate(mixing, NU, maps, marginal=True, **free)
    profile = compsep.separate(mixing, NU, maps, **free)
    expected, lowest = best(minus_log, np.asarray(marginal.covariance[:, :, 0]))
    values = np.array([float(v[0]) for v in marginal.values.values()])
    std = np.array([float(s[0]) for s in marginal.std.values()])
    assert np.max(np.abs(values - expected) / std) < 5e-4
    other = np.array([float(v[0]) for v in profile.values.values()])
    assert np.max(np.abs(values - other) / std) > 0.3  # the profile likelihood has its maximum elsewhere
    # costs differ by what does not depend on the spectra
    there = minus_log(*other) - lowest
    again = compsep.separate(mixing, NU, maps, marginal=True, bounds=_held(other), **free)
    np.testing.assert_allclose(float(again.cost - marginal.cost), there, rtol=1e-3)  # S is finite


def _held(values):
    return {name: (v, v) for name, v in zip(("dust.beta", "sync.beta"), values, strict=True)}


def test_marginal_fits_of_patches_that_share_parameters(faint):
    """Through the core's solver: dust by patch, synchrotron for all."""
    mixing, maps = faint
    patch = np.arange(NPIX) // 16
    sigma2 = SIGMA**2

    def cost(y):
        total = 0.0
        for k in range(3):
            A = matrix(y[k], y[3])
            M = A.T @ (A / sigma2[:, None])
            d = maps[:, :, patch == k].reshape(len(NU), -1)
            side = A.T @ (d / sigma2[:, None])
            total += (d.shape[1] * np.linalg.slogdet(M)[1] - np.sum(side * np.linalg.solve(M, side))) / 2
        return total

    found = compsep.separate(
        mixing,
        NU,
        maps,
        free=("dust.beta", "sync.beta"),
        patches={"dust.beta": patch},
        inv_n=1 / sigma2,
        marginal=True,
    )
    assert bool(found.success.all())
    y = np.concatenate([found.values["dust.beta"], found.values["sync.beta"]])
    std = np.concatenate([found.std["dust.beta"], found.std["sync.beta"]])
    for k, step in enumerate(np.diag(0.02 * std)):
        slope = (cost(y + step) - cost(y - step)) / 0.04  # in units of 1 / std
        assert abs(slope) < 1e-3, k


@pytest.fixture(scope="module")
def uneven():
    """(mixing, maps, variances): noise that differs in every pixel."""
    rng = np.random.default_rng(5)
    mixing = compsep.MixingMatrix(
        cmb=compsep.CMB(), dust=compsep.ModifiedBlackBody(1.6, 20.0), sync=compsep.PowerLaw(-3.1)
    )
    amplitudes = rng.normal(size=(3, 2, NPIX)) * np.array([3.0, 5.0, 9.0])[:, None, None]
    variance = (SIGMA**2)[:, None, None] * rng.uniform(0.3, 3, size=(len(NU), 2, NPIX))
    clean = np.einsum("fc,csp->fsp", matrix(1.6, -3.1), amplitudes)
    return mixing, clean + rng.normal(size=clean.shape) * np.sqrt(variance), variance


def test_weighted_fits_are_weighted_least_squares(uneven):
    mixing, maps, variance = uneven
    found = compsep.weighted_comp_sep(mixing, NU, maps, variance, free=("dust.beta", "sync.beta"))

    def solved(A):
        """(A^T N^-1 A, A^T N^-1 d) of each Stokes parameter and pixel."""
        return np.einsum("fi,fj,fsp->spij", A, A, 1 / variance), np.einsum("fi,fsp->spi", A, maps / variance)

    def minus_log(beta_d, beta_s):
        M, b = solved(matrix(beta_d, beta_s))
        return -np.sum(b * np.linalg.solve(M, b[..., None])[..., 0]) / 2

    expected, lowest = best(minus_log, np.asarray(found.covariance[:, :, 0]))
    values = np.array([float(v[0]) for v in found.values.values()])
    std = np.array([float(s[0]) for s in found.std.values()])
    assert np.max(np.abs(values - expected) / std) < 1e-4
    np.testing.assert_allclose(found.minus_log_like, lowest, rtol=1e-10)
    M, b = solved(matrix(*values))
    np.testing.assert_allclose(found.amplitudes, np.linalg.solve(M, b[..., None])[..., 0].transpose(2, 0, 1), rtol=1e-6)
    fixed = compsep.weighted_comp_sep(mixing, NU, maps, variance, free=())
    own = np.sqrt(np.diagonal(np.linalg.inv(solved(matrix(1.6, -3.1))[0]), axis1=2, axis2=3))
    np.testing.assert_allclose(fixed.errors, own.transpose(2, 0, 1), rtol=1e-9)


def test_variances_without_end_take_the_weight_away(uneven):
    mixing, maps, variance = uneven
    hidden, wild = variance.copy(), maps.copy()
    hidden[2, :, :7], hidden[4, :, 7:9] = np.inf, compsep.UNSEEN
    wild[2, :, :7], wild[4, :, 7:9] = 1e9, np.nan
    found = compsep.weighted_comp_sep(mixing, NU, wild, hidden, free=("dust.beta",))
    weights = 1 / variance
    weights[2, :, :7] = weights[4, :, 7:9] = 0
    same = compsep.separate(mixing, NU, maps, inv_n=weights, free=("dust.beta",))
    np.testing.assert_allclose(found.values["dust.beta"], same.values["dust.beta"], rtol=1e-13)
    np.testing.assert_allclose(found.amplitudes, same.amplitudes, rtol=1e-12)
    keep = np.arange(len(NU)) != 2
    A, N = matrix(float(found.values["dust.beta"][0]), -3.1)[keep], variance[keep, 0, 3]
    expected = np.linalg.solve(A.T @ (A / N[:, None]), A.T @ (maps[keep, 0, 3] / N))
    np.testing.assert_allclose(found.amplitudes[:, 0, 3], expected, rtol=1e-9)
    assert int(found.num_data) == maps.size - 2 * 9


def test_without_free_parameters_the_answer_is_least_squares(uneven):
    mixing, maps, _ = uneven
    found = compsep.separate(mixing, NU, maps, free=(), inv_n=SIGMA**-2.0)
    A = matrix(1.6, -3.1)
    M = A.T @ (A / SIGMA[:, None] ** 2)
    W = np.linalg.solve(M, A.T / SIGMA**2)
    s = np.einsum("cf,fsp->csp", W, maps)
    residual = (maps - np.einsum("fc,csp->fsp", A, s)) / SIGMA[:, None, None]
    np.testing.assert_allclose(found.amplitudes, s, rtol=1e-9)
    expected = np.broadcast_to(np.sqrt(np.diag(np.linalg.inv(M)))[:, None, None], s.shape)
    np.testing.assert_allclose(found.errors, expected, rtol=1e-10)
    np.testing.assert_allclose(found.chi2, np.sum(residual**2, (0, 1)), rtol=1e-9)
    assert found.free == ()
    assert found.success.shape == (0,)
    assert int(found.dof) == maps.size - s.size
    np.testing.assert_allclose(
        found.minus_log_like, (np.sum(residual**2) - np.sum((maps / SIGMA[:, None, None]) ** 2)) / 2, rtol=1e-12
    )
    assert "0 of 0 independent fits" in found.summary()
