"""Every function of the algebra against fgbuster's numbers, and what they are by definition."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsci.compsep import algebra

CASES = [(noise, k) for noise in ("diag", "dense") for k in range(3)]


def close(ours, theirs, rtol):
    theirs = np.asarray(theirs)
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=rtol * np.max(np.abs(theirs)))


@pytest.fixture(params=CASES, ids=lambda c: f"{c[0]}-{c[1]}")
def case(request, golden, at_point):
    noise, k = request.param
    mixing, nu = at_point(k), jnp.asarray(golden["frequency"])
    inv_n = jnp.asarray(1 / golden["sigma"].T ** 2 if noise == "diag" else golden["invN_dense"])

    def want(name):
        return golden[f"{noise}_{k}_{name}"]

    return mixing, nu, inv_n, jnp.asarray(golden["data"]), want


def test_matrix_and_its_derivatives(case):
    mixing, nu, _, _, want = case
    close(mixing.eval(nu), want("A"), 1e-13)
    close(mixing.operator(nu).mv(jnp.ones(3)), want("A").sum(1), 1e-13)
    first, second = mixing.diff(nu), mixing.diff_diff(nu)
    assert mixing.parameters == ("dust.beta", "dust.temp", "sync.beta")
    for k, column in enumerate((1, 1, 2)):
        np.testing.assert_allclose(first[k, :, column], want("dA")[:, k], rtol=1e-13, atol=1e-13)
        assert np.all(np.delete(np.asarray(first[k]), column, axis=1) == 0)
        for j in range(3):
            same = (1, 1, 2)[j] == column
            scale = np.max(np.abs(want("ddA")[k, j]))
            expected = want("ddA")[k, j] if same else np.zeros(len(nu))
            np.testing.assert_allclose(second[k, j, :, column], expected, atol=1e-13 * max(scale, 1), rtol=0)


@jax.jit
def everything(A, dA, ddA, inv_n, data):
    """All functions: of each Stokes parameter s, and over all pixels and Stokes parameters."""
    s = jax.vmap(jax.vmap(lambda d, n: algebra.Wd(A, d, n), (0, 0)), (0, None))(data, inv_n)
    by_stokes = {
        name: jax.vmap(lambda n, fn=fn: fn(n))(inv_n)
        for name, fn in {
            "invAtNA": lambda n: algebra.invAtNA(A, n),
            "W": lambda n: algebra.W(A, n),
            "P": lambda n: algebra.P(A, n),
            "D": lambda n: algebra.D(A, n),
            "W_dB": lambda n: algebra.W_dB(A, dA, n),
            "W_dBdB": lambda n: algebra.W_dBdB(A, dA, ddA, n),
            "P_dBdB": lambda n: algebra.P_dBdB(A, dA, ddA, n),
        }.items()
    }

    def likelihood(d, s, n):
        return algebra.logL(A, d, n), algebra.logL_dB(A, dA, d, n), algebra.fisher(A, dA, s, n)

    each = jax.vmap(jax.vmap(likelihood, (0, 0, 0)), (0, 0, None))(data, s, inv_n)
    return by_stokes, s, [jnp.sum(x, (0, 1)) for x in each]


def test_algebra(case):
    mixing, nu, inv_n, data, want = case
    found, s, sums = everything(mixing.eval(nu), mixing.diff(nu), mixing.diff_diff(nu), inv_n, data)
    for name in ("invAtNA", "W", "P", "D"):
        close(found[name], want(name), 1e-10)
    close(jnp.moveaxis(found["W_dB"], 0, 1), want("W_dB"), 1e-10)
    close(jnp.moveaxis(found["W_dBdB"], 0, 2), want("W_dBdB"), 1e-10)
    close(found["P_dBdB"][1], want("P_dBdB"), 1e-10)
    close(s, want("s"), 1e-10)
    for value, name, rtol in zip(sums, ("logL", "logL_dB", "fisher"), (1e-13, 1e-10, 1e-10), strict=True):
        close(value, want(name), rtol)


def test_channels_without_weight_are_as_absent(at_point, golden):
    mixing, nu = at_point(0), jnp.asarray(golden["frequency"])
    A, d, inv_n = mixing.eval(nu), jnp.asarray(golden["data"][0, 1]), jnp.asarray(1 / golden["sigma"][:, 1] ** 2)
    keep = np.delete(np.arange(15), [2, 9])
    masked = inv_n.at[jnp.array([2, 9])].set(0)
    few = algebra.Wd(A[keep], d[keep], inv_n[keep])
    np.testing.assert_allclose(algebra.Wd(A, d, masked), few, rtol=1e-11)
    np.testing.assert_allclose(algebra.Wd(A, d, jnp.diag(masked)), few, rtol=1e-11)
    assert np.all(np.asarray(algebra.W(A, masked))[:, [2, 9]] == 0)


def test_too_few_channels_give_nan_not_numbers(at_point, golden):
    mixing, nu = at_point(0), jnp.asarray(golden["frequency"])
    inv_n = jnp.zeros(15).at[:2].set(1.0)
    assert np.all(np.isnan(algebra.invAtNA(mixing.eval(nu), inv_n)))


def test_unit_noise_is_the_default(at_point, golden):
    A = at_point(0).eval(jnp.asarray(golden["frequency"]))
    np.testing.assert_allclose(algebra.W(A), jnp.linalg.pinv(A), atol=1e-12)
    np.testing.assert_array_equal(algebra.W(A), algebra.W(A, jnp.ones(15)))
    np.testing.assert_allclose(algebra.P(A) @ A, A, atol=1e-12)


def test_noise_of_another_covariance_adds_its_trace(at_point, golden):
    """The mean of logL over noise alone is tr(N^-1 P C) / 2."""
    A = at_point(0).eval(jnp.asarray(golden["frequency"]))
    inv_n, spread = jnp.asarray(1 / golden["sigma"][:, 1] ** 2), jnp.asarray(golden["sigma"][:, 1]) * 1.3
    square = jnp.sqrt(15.0) * jnp.diag(spread)  # columns whose mean outer product is the covariance
    total = jnp.mean(jax.vmap(lambda n: algebra.logL_mismatch(A, n, inv_n, jnp.diag(spread**2)))(square.T))
    np.testing.assert_allclose(total, 0, atol=1e-12)
