"""What the curvature at an answer says of its parameters: their covariance, and the directions that the data lost.

`uncertainty` is one question to every form of curvature: a dense matrix, the rows whose products it is (which keep
twice the digits), an `Arrow` of shared and local parameters, a `Nested` of parameters within each other. Each answers
in its own form, and all by one convention: an infinite variance for a parameter that the data do not determine, alone
or in a combination, never a small one; 0 for a parameter that is fixed. Fits, joint fits, grids and skies all end here.

Which of several dependent columns is left out does not matter to the variance of the others (Rao 1973, Linear
Statistical Inference, section 4a.4).
"""

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeAlias

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from ..core import Module, Scalar
from ..core.arrow import Arrow
from ..core.linalg import (
    Matrix,
    diagonal,
    factorise,
    gram as products,
    length,
    matvec,
    scaled,
    shifted,
    solve_upper,
    svd_square,
)
from ..core.nested import Nested, down, eliminate, flat

_LEAST = 1e-10  # the smallest pivot of a unit-diagonal matrix that counts as known where there are no rows to look at
_LEAN = 1e-9  # of the largest gain of a member: a local parameter that follows a lost one by less does not feel it


class Covariance(Module):
    """What a dense curvature says.

    - `inverse`: of the curvature, a generalised one where that is singular; 0 for fixed parameters.
    - `determined`: False where the data say nothing, alone or in a combination.
    - `rank`: how many independent directions the data determine.
    """

    inverse: Float[Array, "p p"]
    determined: Bool[Array, " p"]
    rank: Int[Array, ""]

    @property
    def matrix(self) -> Float[Array, "p p"]:
        """The covariance; inf for a parameter that is not determined (nan beside it), 0 for fixed ones."""
        return marked(self.inverse, ~self.determined)

    def following(self, gram: Float[Array, "p p"]) -> "Covariance":
        """The same numbers with the derivatives of the inverse of `gram`, however the inverse was computed."""
        return eqx.tree_at(lambda c: c.inverse, self, _inverse_of(gram, self.inverse))


def marked(matrix: Float[Array, "p p *rest"], lost: Bool[Array, "p *rest"]) -> Float[Array, "p p *rest"]:
    """A covariance with inf on the diagonal of what is lost, and nan beside it: nothing is known of those products."""
    p = lost.shape[0]
    own = jnp.eye(p, dtype=bool).reshape(p, p, *(1,) * (lost.ndim - 1))
    return jnp.where(lost[:, None] | lost[None, :], jnp.where(own, jnp.inf, jnp.nan), matrix).astype(matrix.dtype)


@jax.custom_jvp
def _inverse_of(gram: Float[Array, "p p"], known: Float[Array, "p p"]) -> Float[Array, "p p"]:
    """`known`, the inverse C of `gram`, whose derivative is -C d(gram) C.

    Three products where the derivative of an elimination or a QR would be a program several times as long as they. It
    holds for the generalised inverse too as far as that tells anything: where parameters are determined.
    """
    return known


@_inverse_of.defjvp
def _inverse_of_jvp(primals: tuple[Array, Array], tangents: tuple[Array, Array]) -> tuple[Array, Array]:
    inverse = _inverse_of(*primals)
    return inverse, -inverse @ tangents[0] @ inverse


class Rows(Module):
    """A dense curvature J^T J, given by its rows J: squaring them would lose half of their digits."""

    rows: Float[Array, "m p"]


# for a dense matrix; a type checker cannot follow a registration
if TYPE_CHECKING:
    Which: TypeAlias = Any
else:
    Which = Bool[Array, " p"]


@functools.singledispatch
def uncertainty(gram: Matrix, fixed: Which) -> Any:
    """What a curvature says of its parameters.

    **Arguments:** `gram`: a dense (p, p) matrix, or `Rows`, an `Arrow`, a `Nested`, the separate numbers of
    `small_fits`. `fixed`: True for a parameter that has no room to move.

    **Returns:** a `Covariance` for a dense matrix or its rows, an `ArrowCovariance`, a `NestedCovariance`, a
    `small_fits.Known`.
    """
    norms = jnp.sqrt(jnp.maximum(jnp.diagonal(gram), 0))
    some = ~fixed & (norms > 0)
    scale = jnp.where(some, 1 / jnp.where(some, norms, 1), 0)
    known = _of_unit(scaled(gram, scale), ~some)
    determined = (known.determined & some) | fixed
    return Covariance(scaled(known.inverse, scale), determined, known.rank)


def _of_unit(matrix: Float[Array, "p p"], idle: Bool[Array, " p"]) -> Covariance:
    """Of a matrix whose diagonal is 1, or was before others were eliminated: what is left at rounding of 1 is nothing.

    By rows that the singular vectors make of it; `idle` parameters count as known.
    """
    values, vectors = svd_square(matrix)
    values = jnp.where(values > 64 * values.size * jnp.finfo(values.dtype).eps, values, 0)
    return uncertainty(Rows(jnp.sqrt(values)[:, None] * vectors.T), idle)


@uncertainty.register
def _(gram: Rows, fixed):  # type: ignore[no-untyped-def]
    """By QR with column pivoting on unit columns; a direction counts when its pivot exceeds 1e3 eps of the largest."""
    rows = gram.rows
    p = rows.shape[1]
    rows = jnp.where(fixed[None, :], 0, rows)
    norms = length(rows, 0)
    scale = jnp.where(norms > 0, norms, 1)
    upper, order = _pivoted_qr(rows / scale[None, :])
    pivots = jnp.abs(jnp.diagonal(upper))
    kept = pivots > 1e3 * jnp.finfo(rows.dtype).eps * pivots[0]
    both = kept[:, None] & kept[None, :]
    inverse = solve_upper(jnp.where(both, upper, jnp.eye(p, dtype=rows.dtype)), jnp.eye(p, dtype=rows.dtype))
    inverse = jnp.where(both, inverse, 0)
    null = jnp.abs(inverse @ jnp.where(kept[None, :], 0, upper))
    lost = ~kept | jnp.any(null > 1e-6, axis=1)
    place = jnp.argsort(order)
    matrix = products(inverse, inverse)[place][:, place] / scale[:, None] / scale[None, :]
    matrix = jnp.where(fixed[:, None] | fixed[None, :], 0, matrix)
    return Covariance(matrix, ~lost[place] | fixed, jnp.sum(kept & (pivots > 0)))


def _pivoted_qr(matrix: Float[Array, "m p"]) -> tuple[Float[Array, "p p"], Int[Array, " p"]]:
    """R and the column order of a Householder QR that takes the longest remaining column first."""
    m, p = matrix.shape
    if m < p:
        matrix = jnp.concatenate([matrix, jnp.zeros((p - m, p), matrix.dtype)])
    index, columns = jnp.arange(max(m, p)), jnp.arange(p)

    def column(k: Array, carry: tuple[Array, Array]) -> tuple[Array, Array]:
        a, order = carry
        rest = jnp.sum(jnp.where((index >= k)[:, None], a, 0) ** 2, axis=0)
        pick = jnp.argmax(jnp.where(columns >= k, rest, -1))
        swap = jnp.where(columns == k, pick, jnp.where(columns == pick, k, columns))
        a, order = a[:, swap], order[swap]
        x = jnp.where(index >= k, a[:, k], 0)
        norm = length(x)
        v = x + jnp.where(index == k, jnp.where(x[k] >= 0, norm, -norm), 0)
        square = jnp.sum(v * v)
        factor = jnp.where(square > 0, 2 / jnp.where(square > 0, square, 1), 0)
        return a - factor * v[:, None] * jnp.sum(v[:, None] * a, axis=0)[None, :], order

    upper, order = lax.fori_loop(0, p, column, (matrix, columns))
    return jnp.triu(upper[:p]), order


class ArrowCovariance(Module):
    """What an `Arrow` says: of the shared parameters, and how local ones follow them.

    - `shared`: the Covariance of the q shared parameters, marginal over all local ones; `inverse` is 0 where lost.
    - `gains`: block^-1 edge of each group, (members, l, q): by how much local parameters move as shared ones do.
    """

    shared: Covariance
    gains: tuple[Float[Array, "_ _ q"], ...]

    def member(
        self, own: Float[Array, "l l"], determined: Bool[Array, " l"], gain: Float[Array, "l q"]
    ) -> tuple[Float[Array, "p p"], Bool[Array, " p"]]:
        """(inverse, determined) of one member's parameters, the shared ones first.

        **Arguments:** `own`, `determined`: of its local parameters with the shared ones held. `gain`: its part of
        `gains`.
        """
        known = self.shared
        lean = jnp.abs(gain) * jnp.where(known.determined, 0, 1)[None, :]
        determined &= ~jnp.any(lean > _LEAN * jnp.max(jnp.abs(gain), initial=0), axis=1)
        gain = jnp.where(determined[:, None], gain, 0)
        follow = -jax.vmap(functools.partial(matvec, known.inverse))(gain)
        own = jnp.where(jnp.isfinite(own), own, 0) - follow @ gain.T
        top, low = jnp.concatenate([known.inverse, follow.T], 1), jnp.concatenate([follow, own], 1)
        return jnp.concatenate([top, low]), jnp.concatenate([known.determined, determined])


@uncertainty.register
def _(gram: Arrow, fixed):  # type: ignore[no-untyped-def]
    norms = jnp.sqrt(diagonal(gram))
    some = ~fixed & (norms > 0)
    inverse = jnp.where(some, 1 / jnp.where(some, norms, 1), 0)
    eps = jnp.finfo(norms.dtype).eps
    factor = factorise(shifted(scaled(gram, inverse), jnp.where(some, eps, 1)))
    inverse_s, inverse_l = gram.split(inverse)
    norms_s, _ = gram.split(norms)
    known = _of_unit(factor.schur, inverse_s == 0)
    fixed_s, _ = gram.split(fixed)
    lost = ~known.determined | ((inverse_s == 0) & ~fixed_s)
    matrix = jnp.where(lost[:, None] | lost[None, :], 0, known.matrix)
    gains = (i[:, :, None] * gain * norms_s[None, None, :] for i, gain in zip(inverse_l, factor.gains, strict=True))
    shared = Covariance(matrix * inverse_s[:, None] * inverse_s[None, :], ~lost, known.rank)
    return ArrowCovariance(shared, tuple(gains))


class NestedCovariance(Module):
    """What a `Nested` curvature says, as far as it couples parameters itself.

    - `variance`: of each parameter; inf where it is not determined, 0 where it is fixed.
    - `determined`: as in `Covariance`.
    - `finest`: (p, p, *shape) covariances among each finest element and those in which it lies.
    """

    variance: Float[Array, " n"]
    determined: Bool[Array, " n"]
    finest: Float[Array, "p p *shape"]


@uncertainty.register
def _(gram: Nested, fixed):  # type: ignore[no-untyped-def]
    """The entries of the inverse where the matrix has its own."""
    norms = jnp.sqrt(jnp.maximum(diagonal(gram), 0))
    some = ~fixed & (norms > 0)
    inverse = jnp.where(some, 1 / jnp.where(some, norms, 1), 0)
    factor = eliminate(shifted(scaled(gram, inverse), (~some).astype(norms.dtype)), _LEAST)
    here, held = gram.split(some), gram.split(fixed)
    lost = [s & ~(pivot > _LEAST) for s, pivot in zip(here, factor.pivots, strict=True)]
    spoilt = factor.null(lost)
    lost = [bad | (~s & ~h) for bad, s, h in zip(spoilt, here, held, strict=True)]
    blocks, scale = factor.inverse(), gram.split(inverse)
    variance = flat([block[0, 0] * unit * unit for block, unit in zip(blocks, scale, strict=True)])
    shape = gram.shapes[0]
    units, bad, still = (down(parts, shape) for parts in (scale, lost, held))
    finest = blocks[0] * units[:, None] * units[None]
    finest = marked(finest, bad)
    finest = jnp.where(still[:, None] | still[None], 0, finest)
    gone = flat(lost)
    return NestedCovariance(jnp.where(fixed, 0, jnp.where(gone, jnp.inf, variance)), ~gone, finest)


def scaled_by_scatter(
    matrix: Float[Array, "p p"], fixed: Bool[Array, " p"], cost: Scalar, dof: Int[Array, ""]
) -> Float[Array, "p p"]:
    """The covariance times 2 cost / dof, for noise of unknown scale.

    Without degrees of freedom the scale cannot be estimated: then all of it is inf, as scipy's is, but for
    the rows and columns of fixed parameters, which stay 0.
    """
    some, held = dof > 0, fixed[:, None] | fixed[None, :]
    scatter = 2 * cost / jnp.where(some, dof, 1).astype(matrix.dtype)
    scaled = jnp.where(jnp.isinf(matrix), matrix, matrix * scatter)  # exact data do not make an infinity a NaN
    return jnp.where(some | held, scaled, jnp.inf)


def propagate(fn: Callable[[Array], Array], y: Float[Array, " p"], matrix: Float[Array, "p p"]) -> Array:
    """Covariance of fn(y) to first order (the delta method): G C G^T."""
    g = jax.jacfwd(fn)(y)
    return g @ matrix @ g.T
