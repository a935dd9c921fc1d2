"""Master curves: copies of one curve that are shifted and scaled, brought on top of each other.

Scattering curves at several distances are copies up to a scale; relaxations at several temperatures are copies up to
one of time. Neighbours are compared at many trial shifts first. From there one smooth curve and all factors are fitted
to all points at once by the house's least squares, so that factors come with errors that know the scatter of every
curve.
"""

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from ..core import AbstractModel, AnyArray, Diagonal, Module, Scalar, as_array, numbers, param
from ..datasets import Dataset
from ..fitting import Solution, fit
from ._filters import interp1d

_TRIALS = 161  # shifts of the search between neighbours
_OVERLAP = 1 / 3  # of the points of a curve, at least, must lie within its neighbour
_KNOTS = 24  # of the smooth curve, at most
_EACH = 4  # points for each knot, at least


class MasterCurve(Module):
    """The factors that bring curves together: y_k(x) = scale[k] * Y(shift[k] * x), where Y goes through the first one.

    - `shift`, `scale`: one for each curve; 1 for the first. `log_shift_error`, `log_scale_error`: the standard errors
      of their logarithms; 0 for the first curve, and for what was not fitted.
    - `x`, `y`: all curves laid onto the first. `solution`: of the fit.
    """

    shift: Float[Array, " m"]
    scale: Float[Array, " m"]
    log_shift_error: Float[Array, " m"]
    log_scale_error: Float[Array, " m"]
    x: Float[Array, "m n"]
    y: Float[Array, "m n"]
    solution: Solution


class Points(NamedTuple):
    """The points of all curves in one list: the logarithm of x, and which curve each belongs to.

    A data set keeps all inputs as real numbers, so the number of a curve is one too.
    """

    log_x: Float[Array, " n"]
    curve: Float[Array, " n"]


class Copies(AbstractModel):
    """The logarithm of curves that are copies of one: log y = log_scale[k] + S(log x + log_shift[k]), S a cubic spline.

    The factors of the first curve are 1 and do not appear. Beyond its ends S goes on level.
    """

    log_shift: Float[Array, " others"] = param(doc="logarithms of the factors of x")
    log_scale: Float[Array, " others"] = param(doc="logarithms of the factors of y")
    level: Float[Array, " knots"] = param(doc="logarithm of the curve at its knots")
    at: Float[Array, " knots"] = numbers()

    def __call__(self, points: Points) -> Float[Array, " n"]:
        """Compute log y of each point."""
        curve = points.curve.astype(jnp.int32)
        shift, scale = (jnp.pad(part, (1, 0))[curve] for part in (self.log_shift, self.log_scale))
        return scale + interp1d(jnp.clip(points.log_x + shift, self.at[0], self.at[-1]), self.at, self.level)


def master_curve(
    x: AnyArray, y: AnyArray, error: AnyArray | None = None, *, free: Sequence[str] = ("shift", "scale")
) -> MasterCurve:
    """Find the factors between curves that are copies of each other, shifted along x or scaled in y.

    Neighbouring curves must overlap by a third of their points or more.

    **Arguments:** `x`: shape (m, n), rising, above zero. `y`: of the same shape; points at or below zero, or not
    finite, are not used. `error`: standard errors of y; equal relative ones of unknown size by default. `free`: "shift"
    for factors of x, "scale" for factors of y, or both.

    **Returns:** a `MasterCurve`.

    **Raises:** `ValueError` for other words, shapes that differ, fewer than four points of a curve that can be used, or
    neighbours that do not overlap.
    """
    if not free or set(free) - {"shift", "scale"}:
        raise ValueError(f"free is 'shift', 'scale' or both, not {', '.join(free) or 'nothing'}")
    if x.shape != y.shape or x.ndim != 2 or (error is not None and error.shape != y.shape):
        raise ValueError(f"x and y should both have shape (curves, points), but they have {x.shape} and {y.shape}")
    x, y = np.asarray(x, float), np.asarray(y, float)
    relative = np.ones_like(y) if error is None else np.asarray(error, float) / np.where(y > 0, y, 1)
    good = (x > 0) & (y > 0) & np.isfinite(x) & np.isfinite(y) & (relative > 0) & np.isfinite(relative)
    for k, count in enumerate(good.sum(axis=1)):
        if count < 4:
            raise ValueError(f"curve {k} has {count} points above zero, but four are needed")
    start = _start(np.log(np.where(good, x, 1)), np.log(np.where(good, y, 1)), good, free)
    points = Points(as_array(np.log(x[good])), as_array(np.nonzero(good)[0].astype(float)))
    noise = None if error is None else Diagonal(as_array(relative[good]))
    data = Dataset(points, as_array(np.log(y[good])), noise)
    found = fit(start, data, free=[*(f"log_{name}" for name in ("shift", "scale") if name in free), "level"])
    shift, scale = (np.exp(np.pad(np.asarray(f), (1, 0))) for f in (found.model.log_shift, found.model.log_scale))
    errors = [
        np.pad(np.asarray(found.std[f"log_{name}"]), (1, 0)) if name in free else np.zeros(len(x))
        for name in ("shift", "scale")
    ]
    return MasterCurve(
        shift=as_array(shift),
        scale=as_array(scale),
        log_shift_error=as_array(errors[0]),
        log_scale_error=as_array(errors[1]),
        x=as_array(x * shift[:, None]),
        y=as_array(y / scale[:, None]),
        solution=found,
    )


def _start(
    log_x: Float[np.ndarray, "m n"], log_y: Float[np.ndarray, "m n"], good: Bool[np.ndarray, "m n"], free: Sequence[str]
) -> Copies:
    """Factors from neighbour to neighbour, multiplied up; and the curve that then goes through all points."""
    curves = [(log_x[k, inside], log_y[k, inside]) for k, inside in enumerate(good)]
    steps = [_neighbours(*one, *other, free) for one, other in itertools.pairwise(curves)]
    shift, scale = np.cumsum([[0.0, 0.0], *steps], axis=0).T
    moved, level = (log_x + shift[:, None])[good], (log_y - scale[:, None])[good]
    # as many knots as points can bear, at equal shares of the points, a little beyond the last ones on each side
    knots = np.quantile(moved, np.linspace(0, 1, min(_KNOTS, max(moved.size // _EACH, 4))))
    margin = 0.01 * (knots[-1] - knots[0])
    knots[0], knots[-1] = knots[0] - margin, knots[-1] + margin
    order = np.argsort(moved, kind="stable")
    at_knots = np.interp(knots, moved[order], level[order])
    return Copies(*(as_array(part) for part in (shift[1:], scale[1:], at_knots, knots)))


def _neighbours(
    at: np.ndarray, values: np.ndarray, log_x: np.ndarray, log_y: np.ndarray, free: Sequence[str]
) -> tuple[float, float]:
    """The best of many trial shifts of a curve against the one before, and the scale that goes with it."""
    reach = max(log_x[-1] - at[0], at[-1] - log_x[0])
    trials = jnp.linspace(-reach, reach, _TRIALS) if "shift" in free else jnp.zeros(1)
    one, other = ((as_array(a), as_array(b)) for a, b in ((at, values), (log_x, log_y)))
    costs, levels = _try(trials, *one, *other, "scale" in free)
    best = int(jnp.argmin(costs))
    if not np.isfinite(float(costs[best])):
        raise ValueError("two neighbouring curves overlap nowhere by a third of their points: are they in order?")
    return float(trials[best]), float(levels[best])


@eqx.filter_jit
def _try(
    trials: Float[Array, " g"],
    at: Float[Array, " k"],
    values: Float[Array, " k"],
    log_x: Float[Array, " n"],
    log_y: Float[Array, " n"],
    scaled: bool,
) -> tuple[Float[Array, " g"], Float[Array, " g"]]:
    """(mean squared distance, log scale) at trial shifts; infinite where the curves hardly overlap."""

    def one(shift: Scalar) -> tuple[Scalar, Scalar]:
        moved = log_x + shift
        inside = (moved >= at[0]) & (moved <= at[-1])
        away = log_y - jnp.interp(moved, at, values)
        count = jnp.sum(inside.astype(away.dtype))
        level = jnp.where(scaled, jnp.sum(away, where=inside) / jnp.maximum(count, 1), 0)
        cost = jnp.sum((away - level) ** 2, where=inside) / jnp.maximum(count, 1)
        return jnp.where(count >= _OVERLAP * log_x.shape[0], cost, jnp.inf), level

    return jax.vmap(one)(trials)
