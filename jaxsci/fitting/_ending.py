"""The one look at an answer: what a fit may call itself, whoever searched for it.

A search says that it stopped; whether that is success is found here, from the gradient at the answer itself. `look`
evaluates the objective once more and reads everything from its normal matrix; `careful` goes back to the rows where
that matrix is too ill conditioned; `ending` orders the reasons for which a fit is no success. `fit`, batches, joint
fits and skies call these, so that one word means one thing in all of them.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import equinox.internal as eqxi
import jax
import jax.numpy as jnp
import jax.tree_util as jtu
import numpy as np
import optimistix as optx
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from ..core import AnyArray, Flag, Linearisation, Scalar
from ..core.linalg import dot, factorise
from ._objective import Objective
from ._solution import RESULTS
from ._solver._trust_region import Bounds, gap
from ._uncertainty import Covariance, Rows, uncertainty

_WELL = 1e-6  # the smallest pivot of a unit-diagonal matrix whose inverse still has ten digits
_FAR = 1e-3  # standard errors between an answer and the optimum, at most
_ROUGH = 4.0  # times sqrt(eps): a gradient this small, in units of the residuals, is rounding


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


class Eliminated(NamedTuple):
    """A matrix of unit diagonal solved with: its inverse, how good that is, and g^T F^-1 g of the gradient."""

    inverse: Float[Array, "p p"]
    ok: Flag
    least: Scalar
    square: Scalar


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

    def eliminate(keep: Array, ridge: Array) -> Eliminated:
        unit = lin.gram * outer * keep[:, None] * keep[None, :]
        factor = factorise(unit + jnp.diag(1 - keep + ridge + jnp.where(jnp.diagonal(unit) > 0, 0, keep)))
        slope = lin.grad * inverse_scale * keep
        return Eliminated(factor.invert(), factor.ok, factor.least, dot(slope, factor.solve(slope)))

    both = jax.vmap(eliminate)(keep, ridge)
    whole, free = (jtu.tree_map(lambda x, k=k: x[k], both) for k in range(2))
    some = jnp.where(norms > 0, True, fixed)
    finite = jnp.isfinite(lin.cost + jnp.sum(lin.grad) + jnp.sum(lin.gram))
    # the inverse is as accurate as the solver's answer where the smallest scaled pivot is this large
    enough = min(_WELL, 64 * eps / objective.accuracy)
    well = whole.ok & (whole.least > enough) & finite & jnp.all(some)
    rounding = 8 * eps * jnp.max(jnp.abs(y) * norms, initial=0)
    rank = jnp.sum(~fixed)
    covariance = Covariance(whole.inverse * outer, jnp.ones_like(fixed), rank)
    # a slope without curvature: the squares of the derivatives have underflowed, and no step is known
    blind = jnp.any(~held & ~fixed & ~(norms > 0) & (lin.grad != 0))
    decrement = jnp.where(blind, jnp.inf, jnp.sqrt(jnp.maximum(free.square, 0)))
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
        lambda: uncertainty(Rows(objective.weighed(y)[1]), fixed),
        lambda: known,
    )
    return jtu.tree_map(lambda a, b: jnp.where(well, a, b), known, by_rows)


@eqx.filter_custom_jvp
def recalled(objective: Callable[..., Linearisation], y: Float[Array, " p"], known: Linearisation) -> Linearisation:
    """objective(y), whose value the solver has kept but not its derivatives."""
    return known


@recalled.def_jvp
def _recalled_jvp(
    primals: tuple[Any, Array, Linearisation], tangents: tuple[Any, ...]
) -> tuple[Linearisation, Linearisation]:
    objective, y, known = primals
    _, tangent = eqx.filter_jvp(lambda objective, y: objective(y), (objective, y), tangents[:2])
    return recalled(objective, y, known), tangent


class Checked(NamedTuple):
    """What was found at the end of a search, as far as it decides what the search may call itself.

    `num_data`: rows used. `fine`: they are finite. `valid`: the noise makes sense. `finite`: so is the model where the
    search ended. `off`: the gradient there says that it is no optimum. `stalled`: no step decreased the cost.
    """

    num_data: Array
    fine: Array
    valid: Array
    finite: Array
    off: Array
    stalled: Array


def ending(ended: optx.RESULTS, at: Checked) -> Any:
    """The first of all reasons that applies; success only where the answer was looked at and is an optimum."""
    code: Any = RESULTS  # its members are results; to a type checker they are the texts of the class body
    result = code.where(ended == optx.RESULTS.successful, code.successful, code.solver_failed)
    capped = ended == optx.RESULTS.nonlinear_max_steps_reached
    reasons = (
        (at.off & ~capped, code.not_optimal),
        (at.off & at.stalled, code.stalled),
        (capped, code.max_steps_reached),
        (~at.finite, code.nonfinite_end),
        (ended == optx.RESULTS.nonfinite, code.nonfinite_start),
        (~at.valid, code.bad_noise),
        (~at.fine, code.nonfinite_data),
        (at.num_data == 0, code.empty),
    )
    for applies, reason in reasons:
        result = code.where(applies, reason, result)
    return result


def off_optimum(seen: Look, dof: Array, absolute: bool) -> Array:
    """True where the step that is left is longer than a thousandth of a standard error.

    For noise without a scale the unit is the scatter. What rounding alone makes of the gradient is no step: the square
    root of eps of the residuals, and one unit of rounding in a parameter.
    """
    scatter = seen.size / jnp.sqrt(jnp.maximum(dof, 1).astype(seen.size.dtype))
    unit = jnp.ones_like(seen.size) if absolute else scatter
    rough = _ROUGH * float(jnp.finfo(seen.size.dtype).eps) ** 0.5 * seen.size
    return ~(seen.decrement <= jnp.maximum(_FAR * unit, jnp.maximum(rough, seen.rounding)))


def ending_of(answer: optx.Solution, lin: Linearisation, num_data: Int[Array, ""], fine: Flag) -> Any:
    """How a search of one of our own solvers over a structured curvature ended.

    The solver has looked at the gradient where it ended, so that off the optimum means stalled there.

    **Arguments:** `lin`: the Linearisation at the answer. `num_data`: rows used. `fine`: they are finite.
    """
    stalled = answer.state.stalled
    sane = jnp.isfinite(lin.cost + jnp.sum(lin.grad))
    return ending(answer.result, Checked(num_data, fine, jnp.array(True), sane, stalled, stalled))


def at_bound(y: AnyArray, lower: AnyArray, upper: AnyArray) -> Any:
    """-1 where a parameter ended at its lower bound, 1 at its upper one, else 0; 0 for one that is fixed.

    Of arrays of any shape; on the host for NumPy's.
    """
    xp: Any = jnp if isinstance(y, jax.Array) else np
    return xp.where(lower >= upper, 0, xp.where(y >= upper, 1, xp.where(y <= lower, -1, 0)))
