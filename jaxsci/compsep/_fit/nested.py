"""Fits of groups of cells whose parameters lie within each other, in time and memory linear in their number.

In a map of several resolutions every element of a parameter lies within one of the next coarser. The curvature of such
a group is a `Nested`, whose elimination from the finest parameter up is exact, so that a step and all errors cost less
than the evaluation of the cells, where a dense matrix of a thousand parameters would cost more than all else. `fit_sky`
calls it for the groups that are trees.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.tree_util as jtu
import optimistix as optx
from jax import lax
from jaxtyping import Array, Float, Int

from ...core import Linearisation, Module, get
from ...core.linalg import shifted
from ...core.nested import Nested, by_level, down, flat, tree_shapes, up
from ...fitting import RESULTS, Flags, KKTAdjoint, Solver, at_bound, ending_of, recalled, uncertainty, unused
from .._mixing import MixingMatrix, at_lanes
from .._settings import Limits
from .dataset import SkyDataset
from .fits import Fits, split
from .groups import strip_of
from .normal_equations import CellSums

Out = TypeVar("Out")


class Strip(NamedTuple):
    """The data of some cells, and the parameters that vary there without being fitted."""

    data: SkyDataset
    fixed: dict[str, Array]


class NestedLikelihood(Module):
    """The likelihood of one group as a function of all its parameters, in the order of the tree.

    - `strips`: a `Strip` whose arrays lead with one strip of cells after the other, where they have a cell a lane;
      `common`: the arrays that are the same in all strips.
    - `limits`: bounds and priors of each parameter.
    - `names`, `shape`: of the tree, as in `Groups`.
    """

    mixing: MixingMatrix
    strips: Strip
    common: Strip
    limits: Limits
    names: tuple[str, ...] = eqx.field(static=True)
    shape: tuple[int, ...] = eqx.field(static=True)

    def __call__(self, y: Float[Array, " n"], args: None = None) -> Linearisation:
        """The Linearisation at y."""
        sums = self._sums(y, exact=False)
        off, weight = y - self.limits.prior_mean, self.limits.prior_weight
        cost = jnp.sum(sums.cost) + jnp.sum(weight * off**2) / 2
        grad = flat([up(lanes, i + 1) for i, lanes in enumerate(self._tall(sums.grad))])
        return Linearisation(cost, grad + weight * off, self._nested(sums.gram))

    def hessian(self, y: Float[Array, " n"]) -> Nested:
        """The exact second derivative of the cost."""
        return self._nested(self._sums(y, exact=True).gram)

    def _sums(self, y: Array, exact: bool) -> CellSums:
        """Of each cell, strip after strip: cost, gradient, and information or the second derivative of the cost."""
        p, shape, size = len(self.names), self.shape, strip_of(self.shape)
        lanes = down(by_level(y, tree_shapes(shape[:-1])), shape).reshape(p, -1)
        # the last strip is filled up with copies of the last cell, whose algebra is sound; zeros may not be
        lanes = jnp.pad(lanes, ((0, 0), (0, -lanes.shape[1] % size)), mode="edge")
        rows = jnp.moveaxis(lanes.reshape(p, -1, size), 1, 0)

        def one(strip: tuple[Array, Strip]) -> CellSums:
            rows, varying = strip
            data, still = eqx.combine(varying, self.common)

            def at(rows: Array) -> CellSums:
                model = at_lanes(self.mixing, dict(zip(self.names, rows, strict=True)) | still)
                return data.cells(model, self.names)

            sums = at(rows)
            return sums._replace(gram=_derivative(lambda rows: at(rows).grad, rows)) if exact else sums

        # a strip after the other: the algebra of 512 cells fits into the cache, that of a sky does not
        found = lax.map(one, (rows, self.strips))
        return jtu.tree_map(lambda x: jnp.moveaxis(x, 0, -2).reshape(*x.shape[1:-1], -1), found)

    def _tall(self, lanes: Float[Array, "*p k"]) -> Array:
        """Cells as the tree has them."""
        return lanes[..., : math.prod(self.shape)].reshape(*lanes.shape[:-1], *self.shape)

    def _nested(self, gram: Float[Array, "p p k"]) -> Nested:
        tall = self._tall(gram)
        rows = (jnp.stack([up(lanes, i + 1) for lanes in tall[i, i:]]) for i in range(len(tall)))
        return shifted(Nested(tuple(rows)), self.limits.prior_weight)


def _derivative(fn: Callable[[Array], Array], rows: Float[Array, "p k"]) -> Float[Array, "p p k"]:
    """The Jacobian of a function that keeps the lanes apart."""
    units = jnp.eye(len(rows), dtype=rows.dtype)[:, :, None]
    return jax.vmap(lambda unit: jax.jvp(fn, (rows,), (jnp.broadcast_to(unit, rows.shape),))[1])(units)


def fit_nested_groups(
    mixing: MixingMatrix,
    data: SkyDataset,
    limits: Limits,
    real: dict[str, Array],
    fixed: dict[str, Array],
    names: tuple[str, ...],
    shape: tuple[int, ...],
    solver: Solver,
    max_steps: int,
    exact: bool,
) -> tuple[Fits, Int[Array, "g 5"]]:
    """Fit groups that are trees: (fits, their packed `Flags`, of which `stalled` wants the exact Hessian).

    **Arguments:** `data`: of each group. `limits`: of the parameters `names`. `real` by name: which places of each
    parameter have an element (g, w). `fixed` by name: values of parameters that are not fitted (g, k). `names`,
    `shape`: of the tree. `exact`: with the exact Hessian where the information alone leads nowhere.

    **Returns:** `Fits` of groups, whose covariance is (g, p, p, m): of each of the m finest elements and those in which
    it lies.
    """
    start = jnp.clip(jnp.stack([get(mixing, name) for name in names]), limits.lower, limits.upper)

    def one(data: SkyDataset, real: dict[str, Array], fixed: dict[str, Array]) -> tuple[Fits, Array]:
        y, own = limits.at_places(start, [real[name] for name in names])
        strips, common = _in_strips(Strip(data, fixed), shape)
        objective = NestedLikelihood(mixing, strips, common, own, names, shape)
        widths = {name: real[name].shape[0] for name in names}
        return _fit(objective, y, widths, data.finite(), solver, max_steps, exact)

    return each_group(one, data, real, fixed)


def each_group(
    one: Callable[[SkyDataset, dict[str, Array], dict[str, Array]], Out],
    data: SkyDataset,
    real: dict[str, Array],
    fixed: dict[str, Array],
) -> Out:
    """Call `one` for every group; a group alone is spared a batch of one, half of what there is to trace."""
    if data.count.shape[0] > 1:
        return jax.vmap(one)(data, real, fixed)
    alone = one(*jtu.tree_map(lambda x: x[0], (data, real, fixed)))
    return jtu.tree_map(lambda x: jnp.asarray(x)[None], alone)


def _in_strips(arrays: Strip, shape: tuple[int, ...]) -> tuple[Strip, Strip]:
    """(those with a lane for each cell, as (strips, ..., lanes); the others)."""
    strip = strip_of(shape)
    lanes = -(-math.prod(shape) // strip) * strip
    varying, common = eqx.partition(arrays, lambda x: eqx.is_array(x) and x.ndim > 0 and x.shape[-1] == lanes)

    def cut(x: Array) -> Array:
        return jnp.moveaxis(x.reshape(*x.shape[:-1], -1, strip), -2, 0)

    return jtu.tree_map(cut, varying), common


def _fit(
    objective: NestedLikelihood,
    y: Array,
    widths: dict[str, int],
    finite: Array,
    solver: Solver,
    max_steps: int,
    exact: bool,
) -> tuple[Fits, Array]:
    lower, upper = objective.limits.lower, objective.limits.upper
    shapes = jax.eval_shape(objective, y).gram
    # the solver carries a Nested from step to step, and has to know its shapes before the first
    blank = jtu.tree_map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)
    options = {"linearise": objective, "gram": blank, "exact": exact, "lower": lower, "upper": upper}
    answer: Any = optx.least_squares(
        unused, solver, y, None, options, max_steps=max_steps, adjoint=KKTAdjoint(), throw=False
    )
    y = answer.value
    lin = recalled(objective, y, answer.state.lin)
    known = uncertainty(lin.gram, lower >= upper)
    result = ending_of(answer, lin, jnp.array(1), finite)
    code: Any = RESULTS
    sound = (result != code.nonfinite_data) & (result != code.nonfinite_start) & (result != code.nonfinite_end)
    errors = jnp.where(sound, jnp.sqrt(known.variance), jnp.nan)
    finest = jnp.where(sound, known.finest, jnp.nan).reshape(*known.finest.shape[:2], -1)
    steps = answer.stats["num_steps"]
    values, std, bound = (split(x, widths) for x in (y, errors, at_bound(y, lower, upper)))
    fits = Fits(values, std, bound, finest, result._value, steps, lin.cost)
    return fits, Flags(answer.state.stalled).packed()
