"""The linear algebra of component separation, for one pixel: d = A s + n with noise covariance N.

Every function takes the inverse covariance as `None` (unit), a diagonal (f,), or a matrix (f, f), whose rows and
columns of zeros mask channels. Stokes parameters and pixels by `jax.vmap`. Derivatives are with respect to
spectral parameters, with dA of shape (k, f, c) and ddA (k, k, f, c) as `MixingMatrix.diff` and `diff_diff` give
them. Forecasts and linear combinations are made of these, and a user who knows the formulae finds them by name. The
fits of many pixels have algebra of their own, which never makes a matrix of a pixel. Errard et al. 2011, Phys. Rev. D
84, 063005; Stompor et al. 2009, MNRAS 392, 216.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ..core import Scalar
from ..core.linalg import cholesky, dot, solve_factored

InverseNoise = Float[Array, " f"] | Float[Array, "f f"] | None


def _weigh(inv_n: InverseNoise, x: Array) -> Array:
    """N^-1 x for x of shape (f, ...)."""
    if inv_n is None:
        return x
    if inv_n.ndim == 2:
        return jnp.tensordot(inv_n, x, 1)
    return inv_n.reshape(-1, *(1,) * (x.ndim - 1)) * x


def _solve(matrix: Array, rhs: Array) -> Array:
    """matrix^-1 rhs for a positive definite matrix, scaled to a unit diagonal; NaN where it is singular."""
    scale = 1 / jnp.sqrt(jnp.diagonal(matrix))
    factor, ok = cholesky(matrix * scale[:, None] * scale[None, :])
    flat = rhs.reshape(rhs.shape[0], -1) * scale[:, None]
    solved = solve_factored(factor, flat) * scale[:, None]
    return jnp.where(ok, solved, jnp.nan).reshape(rhs.shape)


def _normal(A: Array, inv_n: InverseNoise) -> Array:
    return A.T @ _weigh(inv_n, A)


def invAtNA(A: Float[Array, "f c"], inv_n: InverseNoise = None) -> Float[Array, "c c"]:
    """Compute (A^T N^-1 A)^-1, the covariance of the amplitudes; NaN where the channels do not determine them."""
    return _solve(_normal(A, inv_n), jnp.eye(A.shape[1], dtype=A.dtype))


def W(A: Float[Array, "f c"], inv_n: InverseNoise = None) -> Float[Array, "c f"]:
    """Compute (A^T N^-1 A)^-1 A^T N^-1, which takes data to amplitudes."""
    return _solve(_normal(A, inv_n), _weigh(inv_n, A).T)


def Wd(A: Float[Array, "f c"], d: Float[Array, " f"], inv_n: InverseNoise = None) -> Float[Array, " c"]:
    """Compute W d, the amplitudes of greatest likelihood."""
    return _solve(_normal(A, inv_n), A.T @ _weigh(inv_n, d))


def P(A: Float[Array, "f c"], inv_n: InverseNoise = None) -> Float[Array, "f f"]:
    """Compute A W, the projection of data onto the components."""
    return A @ W(A, inv_n)


def D(A: Float[Array, "f c"], inv_n: InverseNoise = None) -> Float[Array, "f f"]:
    """Compute 1 - A W, the projection of data onto what no component explains."""
    return jnp.eye(A.shape[0], dtype=A.dtype) - P(A, inv_n)


def W_dB(A: Float[Array, "f c"], dA: Float[Array, "k f c"], inv_n: InverseNoise = None) -> Float[Array, "k c f"]:
    """Compute the derivatives of W."""

    def along(tangent: Array) -> Array:
        return jax.jvp(lambda A: W(A, inv_n), (A,), (tangent,))[1]

    return jax.vmap(along)(dA)


def _second(fn, A, dA, ddA):  # type: ignore[no-untyped-def]
    """Second derivatives of a function of A(b): f'' dA dA + f' ddA."""

    def pair(one: Array, other: Array, both: Array) -> Array:
        def along(A: Array) -> Array:
            return jax.jvp(fn, (A,), (one,))[1]

        return jax.jvp(along, (A,), (other,))[1] + jax.jvp(fn, (A,), (both,))[1]

    return jax.vmap(lambda one, row: jax.vmap(lambda other, both: pair(one, other, both))(dA, row))(dA, ddA)


def W_dBdB(
    A: Float[Array, "f c"], dA: Float[Array, "k f c"], ddA: Float[Array, "k k f c"], inv_n: InverseNoise = None
) -> Float[Array, "k k c f"]:
    """Compute the second derivatives of W."""
    return _second(lambda A: W(A, inv_n), A, dA, ddA)


def P_dBdB(
    A: Float[Array, "f c"], dA: Float[Array, "k f c"], ddA: Float[Array, "k k f c"], inv_n: InverseNoise = None
) -> Float[Array, "k k f f"]:
    """Compute the second derivatives of P."""
    return _second(lambda A: P(A, inv_n), A, dA, ddA)


def logL(A: Float[Array, "f c"], d: Float[Array, " f"], inv_n: InverseNoise = None) -> Scalar:
    """Compute d^T N^-1 A (A^T N^-1 A)^-1 A^T N^-1 d / 2, the profile log-likelihood but for a constant of the data."""
    side = A.T @ _weigh(inv_n, d)
    return dot(side, _solve(_normal(A, inv_n), side)) / 2


def logL_dB(
    A: Float[Array, "f c"], dA: Float[Array, "k f c"], d: Float[Array, " f"], inv_n: InverseNoise = None
) -> Float[Array, " k"]:
    """Compute the derivatives of `logL`: (dA s)^T N^-1 (d - A s)."""
    s = Wd(A, d, inv_n)
    return jnp.tensordot(dA @ s, _weigh(inv_n, d - A @ s), 1)


def fisher(
    A: Float[Array, "f c"], dA: Float[Array, "k f c"], s: Float[Array, " c"], inv_n: InverseNoise = None
) -> Float[Array, "k k"]:
    """Compute the information on the spectral parameters: (dA s)^T N^-1 (1 - A W) (dA s), for amplitudes s."""
    moved = (dA @ s).T
    return moved.T @ _weigh(inv_n, D(A, inv_n) @ moved)


def logL_mismatch(
    A: Float[Array, "f c"], d: Float[Array, " f"], inv_n: InverseNoise, covariance: Float[Array, "f f"]
) -> Scalar:
    """Compute `logL` less what noise of covariance `covariance` adds on average, where `inv_n` is not its inverse.

    The mean of n^T N^-1 A W n / 2 is tr(N^-1 A W C) / 2, which depends on the parameters where C is not N, and so
    biases them.
    """
    return logL(A, d, inv_n) - jnp.trace(_weigh(inv_n, P(A, inv_n) @ covariance)) / 2
