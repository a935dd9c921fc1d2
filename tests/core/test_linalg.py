import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import pytest
from helpers import close, custom_calls, quick_jit, same_bits

from jaxsci.core import linalg as la

SIZES = [1, 2, 5, 8, 9, 20, 33, 70]  # unrolled, looped, blocked, and the borders between


def spd(n, condition=1e3, seed=0):
    q = np.linalg.qr(np.random.default_rng(seed).normal(size=(n, n)))[0]
    a = (q * np.logspace(0, -np.log10(condition), n)) @ q.T
    return (a + a.T) / 2


@quick_jit
def all_of_spd(a, b):
    lower, ok = la.cholesky(a)
    factor = la.factorise(a)
    return {
        "lower": lower,
        "ok": ok,
        "solve": factor.solve(b),
        "factor ok": factor.ok,
        "least": factor.least,
        "factored": la.solve_factored(lower, b),
        "inverse": la.triangular_inverse(lower),
        "general": la.solve_general(a, b),
        "matvec": la.matvec(a, b),
    }


@pytest.mark.parametrize("n", SIZES)
def test_positive_definite(n):
    a, b = spd(n), np.random.default_rng(1).normal(size=n)
    got = all_of_spd(jnp.asarray(a), jnp.asarray(b))
    x = np.linalg.solve(a, b)
    assert bool(got["ok"])
    assert bool(got["factor ok"])
    assert float(got["least"]) > 0
    close(got["lower"], np.linalg.cholesky(a), 1e-11, 1e-13)
    for name in ("solve", "factored", "general"):
        close(got[name], x, 1e-10, 1e-10 * np.abs(x).max())
    close(got["inverse"] @ got["lower"], np.eye(n), 1e-12, 1e-11)
    close(got["matvec"], a @ b, 1e-12, 1e-13)


@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize("kind", ["indefinite", "zero", "nan"])
def test_a_matrix_that_is_not_positive_is_said_to_be_so(n, kind):
    a = {"indefinite": -spd(n), "zero": np.zeros((n, n)), "nan": np.full((n, n), np.nan)}[kind]
    got = all_of_spd(jnp.asarray(a), jnp.ones(n))
    assert not bool(got["ok"])
    assert not bool(got["factor ok"])
    if kind != "nan":
        assert bool(jnp.all(jnp.isfinite(got["lower"])))
        assert bool(jnp.all(jnp.isfinite(got["solve"])))


@pytest.mark.parametrize("shape", [(1, 1), (7, 3), (30, 9), (3, 5), (4, 4), (100, 2)])
def test_qr_keeps_the_gram_matrix(shape):
    a = np.random.default_rng(2).normal(size=shape) * np.logspace(0, 6, shape[1])
    r = np.asarray(quick_jit(la.qr_r)(jnp.asarray(a)))
    assert r.shape == (shape[1], shape[1])
    assert np.all(np.tril(r, -1) == 0)
    scale = np.logspace(0, 6, shape[1])
    close((r / scale).T @ (r / scale), (a / scale).T @ (a / scale), 1e-12, 1e-12 * shape[0])
    if shape[0] >= shape[1]:
        close(np.abs(r / scale), np.abs(np.linalg.qr(a)[1] / scale), 1e-10, 1e-11)


def test_qr_of_a_rank_deficient_matrix_is_finite():
    a = np.ones((6, 3)) * [1.0, 2.0, 0.0]
    r = np.asarray(la.qr_r(jnp.asarray(a)))
    assert np.isfinite(r).all()
    close(r.T @ r, a.T @ a, 1e-13, 1e-13)


def test_general_solve_needs_pivoting_and_row_scaling():
    a = np.array([[0.0, 2.0, 1.0], [1e12, 1e12, 3e12], [1e-9, 0.0, 4e-9]])
    x = np.array([1.0, -2.0, 3.0])
    close(la.solve_general(jnp.asarray(a), jnp.asarray(a @ x)), x, 1e-11)


def test_general_solve_finds_columns_of_any_scale():
    """As the curvature of a fit has them whose parameters have other units: none passes for empty."""
    a, scales, x = spd(4), np.array([1e-10, 1e12, 1.0, 1e-6]), np.array([1.0, -2.0, 3.0, 0.5])
    got = la.solve_general(jnp.asarray(a * scales * scales[:, None]), jnp.asarray(scales * (a @ x)))
    close(np.asarray(got) * scales, x, 1e-9)


def test_general_solve_leaves_out_what_is_not_determined():
    a = np.diag([2.0, 0.0, 5.0])
    close(la.solve_general(jnp.asarray(a), jnp.array([4.0, 0.0, 10.0])), np.array([2.0, 0.0, 2.0]))


@pytest.mark.parametrize("n", [3, 8, 9, 33])
def test_hilbert_like_matrices_are_as_accurate_as_their_condition_allows(n):
    with mpmath.workdps(80):
        h = mpmath.matrix(
            [[mpmath.mpf(1) / (i + j + 1) + (mpmath.mpf(1) / 10 if i == j else 0) for j in range(n)] for i in range(n)]
        )
        a = np.array(h.tolist(), float)
        x = mpmath.lu_solve(mpmath.matrix(a.tolist()), mpmath.ones(n, 1))
        x = np.array([float(v) for v in x])
    got = all_of_spd(jnp.asarray(a), jnp.ones(n))
    bound = np.linalg.cond(a) * 1e-15 * n
    close(got["solve"], x, bound, bound * np.abs(x).max())


@pytest.mark.parametrize("n", [5, 9])
def test_a_batch_has_the_bits_of_its_members_whatever_its_size(n):
    batch = jnp.asarray(np.stack([spd(n, seed=k) for k in range(16)]))
    rhs = jnp.asarray(np.random.default_rng(0).normal(size=(16, n)))
    solve = jax.jit(jax.vmap(lambda a, b: la.factorise(a).solve(b)))
    whole = solve(batch, rhs)
    same_bits(solve(batch[:4], rhs[:4]), whole[:4])
    close(la.factorise(batch[3]).solve(rhs[3]), whole[3], 1e-11)


@pytest.mark.parametrize("n", [3, 9, 33])
def test_nothing_calls_lapack(n):
    a, b = jnp.asarray(spd(n)), jnp.ones(n)

    def fn(a, b):
        return all_of_spd.__wrapped__(a, b), la.qr_r(a)

    lowered = jax.jit(fn).lower(a, b).as_text()
    assert not {call for call in custom_calls(lowered) if "lapack" in call or "fft" in call}


@pytest.mark.parametrize("n", [3, 9])
def test_derivatives(n):
    a, b = jnp.asarray(spd(n, 10.0)), jnp.linspace(1.0, 2.0, n)

    def through(a):
        lower, _ = la.cholesky(a)
        return (
            jnp.sum(la.solve_factored(lower, b) ** 2)
            + jnp.sum(la.solve_general(a, b))
            + jnp.sum(la.factorise(a).solve(b))
        )

    def plain(a):
        x = jnp.linalg.solve(a, b)
        return jnp.sum(x**2) + 2 * jnp.sum(x)

    got, expected = (quick_jit(jax.grad(f))(a) for f in (through, plain))
    close(got + got.T, expected + expected.T, 1e-9, 1e-10)
