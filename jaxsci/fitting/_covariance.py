"""Covariance and rank from weighed rows, revealing the directions that the data do not determine."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import jax.tree_util as jtu
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from ..core._linalg import cholesky, gram, qr_r, solve_upper
from ..core._module import Module
from ..core._rows import split_rows
from ._objective import Objective, jacobian_t


class Covariance(Module):
    """What the curvature at a solution says.

    - `matrix`: the covariance; inf on the diagonal of a parameter that is not determined (nan beside
      it), 0 for fixed ones.
    - `determined`: False where the data say nothing, alone or in a combination.
    - `rank`: how many independent directions the data determine.
    """

    matrix: Float[Array, "p p"]
    determined: Bool[Array, " p"]
    rank: Int[Array, ""]


def triangular_rows(objective: Objective, y: Float[Array, " p"]) -> Float[Array, "p p"]:
    """R with R^T R the curvature at y: Householder QR of the weighed rows, chunk after chunk (TSQR)."""
    if objective.free_noise:
        return cholesky(objective(y).gram)[0].T
    prior = jnp.diag(jnp.sqrt(objective.prior_weight))

    def rows(data: Any, likelihood: Any) -> Array:
        residual, jac_t = jacobian_t(lambda y: data.residual(objective.model(y)), y)
        return likelihood.weigh(jac_t, residual, data.mask)[1].T

    data, likelihood = objective.data, objective.likelihood
    n = data.mask.shape[0]
    if objective.chunk is None or n <= objective.chunk:
        return qr_r(jnp.concatenate([rows(data, likelihood), prior]))
    pieces, other = split_rows((data, likelihood))
    body = n // objective.chunk * objective.chunk
    first = prior
    if body < n:
        first = qr_r(jnp.concatenate([rows(*_cut(pieces, other, slice(body, None))), prior]))
    pieces = jtu.tree_map(lambda x: x[:body].reshape(-1, objective.chunk, *x.shape[1:]), pieces)

    def add(r: Array, piece: Any) -> tuple[Array, None]:
        return qr_r(jnp.concatenate([r, rows(*_combine(piece, other))])), None

    return lax.scan(add, first, pieces)[0]


def _combine(piece: Any, other: Any) -> Any:
    return jtu.tree_map(lambda a, b: b if a is None else a, piece, other, is_leaf=lambda x: x is None)


def _cut(pieces: Any, other: Any, rows: slice) -> Any:
    return _combine(jtu.tree_map(lambda x: x[rows], pieces), other)


def covariance(r: Float[Array, "p p"], fixed: Bool[Array, " p"]) -> Covariance:
    """(R^T R)^-1 with its rank, by QR with column pivoting on unit columns.

    A direction counts as determined when its pivot exceeds 1e3 eps of the largest. The marginal
    variance of a parameter outside the null space does not depend on which generalised inverse
    is taken (Rao 1973, section 4a.4), so the dependent columns are dropped.
    """
    p = r.shape[0]
    if p == 0:
        return Covariance(r, fixed, jnp.array(0))
    r = jnp.where(fixed[None, :], 0, r)
    norms = jnp.sqrt(jnp.sum(r * r, axis=0))
    scale = jnp.where(norms > 0, norms, 1)
    upper, order = _pivoted_qr(r / scale[None, :])
    pivots = jnp.abs(jnp.diagonal(upper))
    kept = pivots > 1e3 * jnp.finfo(r.dtype).eps * pivots[0]
    both = kept[:, None] & kept[None, :]
    inverse = solve_upper(jnp.where(both, upper, jnp.eye(p, dtype=r.dtype)), jnp.eye(p, dtype=r.dtype))
    inverse = jnp.where(both, inverse, 0)
    null = jnp.abs(inverse @ jnp.where(kept[None, :], 0, upper))
    lost = ~kept | jnp.any(null > 1e-6, axis=1)
    place = jnp.argsort(order)
    matrix = gram(inverse, inverse)[place][:, place] / scale[:, None] / scale[None, :]
    lost = lost[place] & ~fixed
    matrix = jnp.where(lost[:, None] | lost[None, :], jnp.where(jnp.eye(p, dtype=bool), jnp.inf, jnp.nan), matrix)
    matrix = jnp.where(fixed[:, None] | fixed[None, :], 0, matrix)
    return Covariance(matrix, ~lost, jnp.sum(kept & (pivots > 0)))


def _pivoted_qr(matrix: Float[Array, "p p"]) -> tuple[Float[Array, "p p"], Int[Array, " p"]]:
    """R and the column order of a Householder QR that takes the longest remaining column first."""
    p = matrix.shape[0]
    index = jnp.arange(p)

    def column(k: Array, carry: tuple[Array, Array]) -> tuple[Array, Array]:
        a, order = carry
        rest = jnp.sum(jnp.where((index >= k)[:, None], a, 0) ** 2, axis=0)
        pick = jnp.argmax(jnp.where(index >= k, rest, -1))
        swap = jnp.where(index == k, pick, jnp.where(index == pick, k, index))
        a, order = a[:, swap], order[swap]
        x = jnp.where(index >= k, a[:, k], 0)
        norm = jnp.sqrt(jnp.sum(x * x))
        v = x + jnp.where(index == k, jnp.where(x[k] >= 0, norm, -norm), 0)
        square = jnp.sum(v * v)
        factor = jnp.where(square > 0, 2 / jnp.where(square > 0, square, 1), 0)
        return a - factor * v[:, None] * jnp.sum(v[:, None] * a, axis=0)[None, :], order

    upper, order = lax.fori_loop(0, p, column, (matrix, index))
    return jnp.triu(upper), order


def propagate(fn: Callable[[Array], Array], y: Float[Array, " p"], matrix: Float[Array, "p p"]) -> Array:
    """Covariance of fn(y) to first order (the delta method): G C G^T."""
    g = jax.jacfwd(fn)(y)
    return g @ matrix @ g.T
