"""Fits of groups of cells whose parameters lie within each other: any number of them, in time and memory linear in it.

The curvature is a `Nested`, whose elimination from the finest parameter up is exact, so that a step and all errors cost
less than the evaluation of the cells.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.tree_util as jtu
import numpy as np
import optimistix as optx
from jax import lax
from jaxtyping import Array, Float, PyTree

from ..core import Linearisation, Module, get
from ..core.linalg import shifted
from ..core.nested import Nested, by_level, down, flat, tree_shapes, up
from ..fitting import RESULTS, Flags, KKTAdjoint, at_bound, ending_of, lean_first, recalled, uncertainty, unused
from ._cells import Limits
from ._fixed import at_lanes
from ._layout import Tree
from ._likelihood import Sky
from ._mixing import MixingMatrix
from ._moments import Cells


class Connected(Module):
    """The likelihood of one group as a function of all its parameters, in the order of the tree.

    - `blocks`: the sky and the parameters that vary without being fitted, of one block of cells after the other;
      `common`: what is the same in all blocks.
    - `prior_mean`, `prior_weight`: of each parameter; weight 0 for none.
    """

    mixing: MixingMatrix
    blocks: PyTree
    common: PyTree
    prior_mean: Float[Array, " n"]
    prior_weight: Float[Array, " n"]
    tree: Tree = eqx.field(static=True)

    def __call__(self, y: Float[Array, " n"], args: Any = None) -> Linearisation:
        """The Linearisation at y."""
        cells = self._cells(y, exact=False)
        off = y - self.prior_mean
        cost = jnp.sum(cells.cost) + jnp.sum(self.prior_weight * off**2) / 2
        grad = flat([up(lanes, i + 1) for i, lanes in enumerate(self._tall(cells.grad))])
        return Linearisation(cost, grad + self.prior_weight * off, self._nested(cells.gram))

    def hessian(self, y: Float[Array, " n"]) -> Nested:
        """The exact second derivative of the cost."""
        return self._nested(self._cells(y, exact=True).gram)

    def _cells(self, y: Array, exact: bool) -> Cells:
        """Of each cell, block after block: cost, gradient, and information or the second derivative of the cost."""
        p, shape, size = len(self.tree.names), self.tree.shape, self.tree.block
        lanes = down(by_level(y, tree_shapes(shape[:-1])), shape).reshape(p, -1)
        lanes = jnp.pad(lanes, ((0, 0), (0, -lanes.shape[1] % size)), mode="edge")
        rows = jnp.moveaxis(lanes.reshape(p, -1, size), 1, 0)

        def one(block: Any) -> Cells:
            rows, varying = block
            sky, still = eqx.combine(varying, self.common)

            def at(rows: Array) -> Cells:
                model = at_lanes(self.mixing, dict(zip(self.tree.names, rows, strict=True)) | still)
                return sky.cells(model, self.tree.names)

            cells = at(rows)
            return cells._replace(gram=_derivative(lambda rows: at(rows).grad, rows)) if exact else cells

        found = lax.map(one, (rows, self.blocks))
        return jtu.tree_map(lambda x: jnp.moveaxis(x, 0, -2).reshape(*x.shape[1:-1], -1), found)

    def _tall(self, lanes: Float[Array, "*p k"]) -> Array:
        """Cells as the tree has them."""
        return lanes[..., : math.prod(self.tree.shape)].reshape(*lanes.shape[:-1], *self.tree.shape)

    def _nested(self, gram: Float[Array, "p p k"]) -> Nested:
        tall = self._tall(gram)
        rows = (jnp.stack([up(lanes, i + 1) for lanes in tall[i, i:]]) for i in range(len(tall)))
        return shifted(Nested(tuple(rows)), self.prior_weight)


def _derivative(fn: Callable[[Array], Array], rows: Float[Array, "p k"]) -> Float[Array, "p p k"]:
    """The Jacobian of a function that keeps the lanes apart."""
    units = jnp.eye(len(rows), dtype=rows.dtype)[:, :, None]
    return jax.vmap(lambda unit: jax.jvp(fn, (rows,), (jnp.broadcast_to(unit, rows.shape),))[1])(units)


class GroupFits(NamedTuple):
    """Fits of g groups of n parameters each: `y`, `std`, `at_bound` (g, n); `result`, `steps`, `cost` (g,).

    `covariance`: (g, n, n); of a tree (g, p, p, m), of each of the m finest elements and those in which it lies.
    """

    y: Any
    std: Any
    at_bound: Any
    covariance: Any
    result: Any
    steps: Any
    cost: Any


def fit_connected(
    mixing: MixingMatrix,
    skies: Sky,
    free: tuple[str, ...],
    tree: Tree,
    limits: Limits,
    places: Any,
    solver: Any,
    max_steps: int,
) -> GroupFits:
    """Fit all groups, first by a program without the exact Hessian, which few of them want.

    **Arguments:** `limits`: of the parameters `free`. `places`: by name, which places of each parameter have an element
    (g, n), and the values of parameters that are not fitted (g, k).
    """
    order = np.array([free.index(name) for name in tree.names])
    args = mixing, skies, jtu.tree_map(lambda x: x[order], limits), places
    found, _ = lean_first(_all_groups, args, (tree, solver, max_steps))
    return found


def _all_groups(
    mixing: MixingMatrix,
    skies: Sky,
    limits: Limits,
    places: Any,
    tree: Tree,
    solver: Any,
    max_steps: int,
    exact: bool,
) -> tuple[GroupFits, Array]:
    start = jnp.clip(jnp.stack([get(mixing, name) for name in tree.names]), limits.lower, limits.upper)

    def one(sky: Sky, places: Any) -> tuple[GroupFits, Array]:
        real, still = places
        inside = [real[name] for name in tree.names]

        def spread(each: Array) -> Array:
            return jnp.concatenate([jnp.broadcast_to(x, here.shape) for x, here in zip(each, inside, strict=True)])

        here, y = jnp.concatenate(inside), spread(start)
        lower, upper = jnp.where(here, spread(limits.lower), y), jnp.where(here, spread(limits.upper), y)
        weight = jnp.where(here, spread(limits.weight), 0)
        blocks, common = _in_blocks((sky, still), tree)
        objective = Connected(mixing, blocks, common, spread(limits.mean), weight, tree)
        return _fit(objective, y, lower, upper, sky.finite(), solver, max_steps, exact)

    return each_group(one, skies, places)


def each_group(one: Callable[..., Any], skies: Sky, places: Any) -> Any:
    """one(sky, its places) of every group; a group alone is spared a batch of one, half of what there is to trace."""
    if skies.count.shape[0] > 1:
        return jax.vmap(one)(skies, places)
    alone = one(*jtu.tree_map(lambda x: x[0], (skies, places)))
    return jtu.tree_map(lambda x: jnp.asarray(x)[None], alone)


def _in_blocks(arrays: PyTree, tree: Tree) -> tuple[PyTree, PyTree]:
    """(those with a lane for each cell, as (blocks, ..., lanes); the others)."""
    lanes = -(-math.prod(tree.shape) // tree.block) * tree.block
    varying, common = eqx.partition(arrays, lambda x: eqx.is_array(x) and x.ndim > 0 and x.shape[-1] == lanes)

    def cut(x: Array) -> Array:
        return jnp.moveaxis(x.reshape(*x.shape[:-1], -1, tree.block), -2, 0)

    return jtu.tree_map(cut, varying), common


def _fit(
    objective: Connected,
    y: Array,
    lower: Array,
    upper: Array,
    finite: Array,
    solver: Any,
    max_steps: int,
    exact: bool,
) -> tuple[GroupFits, Array]:
    shapes = jax.eval_shape(objective, y).gram
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
    fits = GroupFits(y, errors, at_bound(y, lower, upper), finest, result._value, steps, lin.cost)
    return fits, Flags(answer.state.stalled).packed()
