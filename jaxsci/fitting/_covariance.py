"""Covariance and rank from weighed rows, revealing the directions that the data do not determine."""

from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import equinox.internal as eqxi
import jax
import jax.numpy as jnp
import jax.tree_util as jtu
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from ..core import Flag, Linearisation, Module, Scalar
from ..core.linalg import diagonal, dot, factorise, gram, length, scaled, shifted, solve_upper
from ..core.nested import Nested, down, eliminate, flat
from ._objective import Objective
from ._solver._trust_region import Bounds, gap

_WELL = 1e-6  # the smallest pivot of a unit-diagonal matrix whose inverse still has ten digits
_LEAST = 1e-10  # the smallest that counts as known where there are no rows to look at


class Covariance(Module):
    """What the curvature at a solution says.

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
        lost = ~self.determined[:, None] | ~self.determined[None, :]
        unknown = jnp.where(jnp.eye(self.determined.size, dtype=bool), jnp.inf, jnp.nan)
        return jnp.where(lost, unknown, self.inverse).astype(self.inverse.dtype)

    def following(self, gram: Float[Array, "p p"]) -> "Covariance":
        """The same numbers with the derivatives of the inverse of `gram`, however the inverse was computed."""
        return eqx.tree_at(lambda c: c.inverse, self, _inverse_of(gram, self.inverse))


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


class Look(NamedTuple):
    """What one Linearisation at the end of a search tells.

    - `cost`; `covariance`, from the normal matrix; `well`: whether that is conditioned well enough to be inverted.
    - `gram`: the normal matrix, with its derivatives, which the covariance does not have: see `Covariance.following`.
    - `decrement`: sqrt(g^T F^-1 g) of the parameters that no bound holds: the length of the step that is left, in
      standard errors for unit noise. `size`: sqrt(2 cost). `rounding`: decrements below this are within what one unit
      of rounding in a parameter does.
    - `finite`: False where cost, gradient or curvature are not.
    """

    cost: Scalar
    covariance: Covariance
    gram: Float[Array, "p p"]
    well: Flag
    decrement: Scalar
    size: Scalar
    rounding: Scalar
    finite: Flag


def look(
    objective: Objective,
    y: Float[Array, " p"],
    lower: Float[Array, " p"],
    upper: Float[Array, " p"],
    known: Linearisation | None,
) -> Look:
    """What the normal matrix at y says; `known` is the Linearisation there where a solver has it."""
    moving = objective(y) if known is None else recalled(objective, y, known)
    lin, y, lower, upper = jtu.tree_map(lax.stop_gradient, (moving, y, lower, upper))
    fixed = lower >= upper
    norms = jnp.sqrt(jnp.maximum(jnp.diagonal(lin.gram), 0))
    inverse_scale = jnp.where(fixed | ~(norms > 0), 0, 1 / jnp.where(norms > 0, norms, 1))
    eps = float(jnp.finfo(norms.dtype).eps)
    size = jnp.sqrt(2 * jnp.abs(lin.cost))
    bounds = Bounds(lower, upper, True)
    held = bounds.held(y, lin.grad, gap(size, inverse_scale))
    outer = inverse_scale[:, None] * inverse_scale[None, :]
    # two matrices of one shape side by side, so that their elimination is compiled once
    keep = jnp.stack([jnp.where(fixed, 0, 1), jnp.where(held | fixed, 0, 1)]).astype(norms.dtype)
    ridge = jnp.array([0.0, y.size * eps], norms.dtype)

    def eliminate(keep: Array, ridge: Array) -> tuple[Array, Array, Array, Array]:
        unit = lin.gram * outer * keep[:, None] * keep[None, :]
        factor = factorise(unit + jnp.diag(1 - keep + ridge + jnp.where(jnp.diagonal(unit) > 0, 0, keep)))
        slope = lin.grad * inverse_scale * keep
        return factor.invert(), factor.ok, factor.least, dot(slope, factor.solve(slope))

    (inverse, _), (ok, _), (least, _), (_, square) = jax.vmap(eliminate)(keep, ridge)
    some = jnp.where(norms > 0, True, fixed)
    finite = jnp.isfinite(lin.cost + jnp.sum(lin.grad) + jnp.sum(lin.gram))
    # the inverse is as accurate as the solver's answer where the smallest scaled pivot is this large
    enough = min(_WELL, 64 * eps / objective.accuracy)
    well = ok & (least > enough) & finite & jnp.all(some)
    rounding = 8 * eps * jnp.max(jnp.abs(y) * norms, initial=0)
    rank = jnp.sum(~fixed)
    covariance = Covariance(inverse * outer, jnp.ones_like(fixed), rank)
    # a slope without curvature: the squares of the derivatives have underflowed, and no step is known
    blind = jnp.any(~held & ~fixed & ~(norms > 0) & (lin.grad != 0))
    decrement = jnp.where(blind, jnp.inf, jnp.sqrt(jnp.maximum(square, 0)))
    return Look(moving.cost, covariance, moving.gram, well, decrement, size, rounding, finite)


def careful(
    objective: Objective, y: Float[Array, " p"], fixed: Bool[Array, " p"], known: Covariance, well: Flag
) -> Covariance:
    """`known`, what `look` said, where it was well conditioned; else the covariance by QR of the rows.

    The QR costs as much as several steps of a fit of many rows. It is computed only when some member
    of a batch needs it, and then used by those members alone. It has no derivatives either.
    """
    objective, y, fixed = jtu.tree_map(lax.stop_gradient, (objective, y, fixed))
    by_rows = lax.cond(
        eqxi.unvmap_any(~well),
        lambda: covariance(objective.weighed(y)[1], fixed),
        lambda: known,
    )
    return jtu.tree_map(lambda a, b: jnp.where(well, a, b), known, by_rows)


@eqx.filter_custom_jvp
def recalled(objective: Any, y: Float[Array, " p"], known: Linearisation) -> Linearisation:
    """objective(y), whose value the solver has kept but not its derivatives."""
    return known


@recalled.def_jvp
def _recalled_jvp(primals: Any, tangents: Any) -> tuple[Linearisation, Linearisation]:
    objective, y, known = primals
    _, tangent = eqx.filter_jvp(lambda objective, y: objective(y), (objective, y), tangents[:2])
    return recalled(objective, y, known), tangent


class NestedCovariance(Module):
    """What a `Nested` curvature says, as far as it couples parameters itself.

    - `variance`: of each parameter; inf where it is not determined, 0 where it is fixed.
    - `determined`: as in `Covariance`.
    - `finest`: (p, p, *shape) covariances among each finest element and those in which it lies.
    """

    variance: Float[Array, " n"]
    determined: Bool[Array, " n"]
    finest: Float[Array, "p p *shape"]


def nested_covariance(matrix: Nested, fixed: Bool[Array, " n"]) -> NestedCovariance:
    """The entries of the inverse where the matrix has its own; a direction counts as determined as in `covariance`."""
    norms = jnp.sqrt(jnp.maximum(diagonal(matrix), 0))
    some = ~fixed & (norms > 0)
    inverse = jnp.where(some, 1 / jnp.where(some, norms, 1), 0)
    factor = eliminate(shifted(scaled(matrix, inverse), (~some).astype(norms.dtype)), _LEAST)
    here, held = matrix.split(some), matrix.split(fixed)
    lost = [s & ~(pivot > _LEAST) for s, pivot in zip(here, factor.pivots, strict=True)]
    spoilt = factor.null(lost)
    lost = [bad | (~s & ~h) for bad, s, h in zip(spoilt, here, held, strict=True)]
    blocks, scale = factor.inverse(), matrix.split(inverse)
    variance = flat([block[0, 0] * unit * unit for block, unit in zip(blocks, scale, strict=True)])
    shape = matrix.shapes[0]
    units, bad, still = (down(parts, shape) for parts in (scale, lost, held))
    finest = blocks[0] * units[:, None] * units[None]
    eye = jnp.eye(len(units), dtype=bool).reshape(len(units), len(units), *(1,) * len(shape))
    finest = jnp.where(bad[:, None] | bad[None], jnp.where(eye, jnp.inf, jnp.nan), finest)
    finest = jnp.where(still[:, None] | still[None], 0, finest)
    gone = flat(lost)
    return NestedCovariance(jnp.where(fixed, 0, jnp.where(gone, jnp.inf, variance)), ~gone, finest)


def covariance(rows: Float[Array, "m p"], fixed: Bool[Array, " p"]) -> Covariance:
    """(J^T J)^-1 with its rank, by QR of the rows J with column pivoting on unit columns.

    A direction counts as determined when its pivot exceeds 1e3 eps of the largest. The marginal
    variance of a parameter outside the null space does not depend on which generalised inverse
    is taken (Rao 1973, section 4a.4), so the dependent columns are dropped.
    """
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
    matrix = gram(inverse, inverse)[place][:, place] / scale[:, None] / scale[None, :]
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
