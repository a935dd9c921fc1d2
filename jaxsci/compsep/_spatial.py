"""From maps and the places of parameters to fits: cells of pixels, and groups of cells that share parameters."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import jax.tree_util as jtu
import numpy as np
from jaxtyping import Array

from ..core import Unit, get
from ..fitting import (
    RESULTS,
    AbstractTrustSolver,
    Choices,
    Problem,
    Solution,
    Terms,
    at_bound,
    compiled,
    fit_once,
    flat_bounds,
    flat_priors,
    lean_first,
    make_plan,
    small_fits,
)
from ._cells import CellFits, Limits, fit_cells, trace_cells
from ._connected import GroupFits, each_group, fit_connected
from ._fixed import at_lanes, on_host
from ._layout import Layout, nested
from ._likelihood import Sky
from ._mixing import MixingMatrix
from ._patches import Cells
from ._slabs import Observed, Slabs, whitened

_FEW = 8  # parameters of a cell that is fitted by itself; the small solves are unrolled


class Fits(NamedTuple):
    """Fitted parameters: by name (n,) values, standard errors and bounds met (-1, 0, 1).

    `covariance` (p, p, k) of the parameters of each cell. `result`, `steps`, `cost` of each group.
    """

    values: dict[str, Any]
    std: dict[str, Any]
    at_bound: dict[str, Any]
    covariance: Any
    result: Any
    steps: Any
    cost: Any


def fit_sky(
    mixing: MixingMatrix,
    nu: Any,
    observed: Observed,
    cells: Cells,
    free: tuple[str, ...],
    *,
    marginal: bool,
    bounds: Mapping[str, Any] | None,
    priors: Mapping[str, Any] | None,
    solver: Any,
    tolerance: float,
    max_steps: int,
    slabs: Slabs | None = None,
) -> Fits:
    """Fit all parameters: each cell by itself where none shares any with another, else each group."""
    plan = make_plan(mixing, Unit(), free)
    within: Any = flat_bounds(plan, bounds)
    if within[0] is None or within[1] is None:
        within = jnp.full(len(free), -jnp.inf), jnp.full(len(free), jnp.inf)  # no parameter has any bound
    mean, weight = flat_priors(plan, priors)
    limits = Limits(within[0], within[1], mean, weight)
    if not cells.alone or len(free) > _FEW:
        return _grouped((mixing, nu, observed, limits), cells, free, marginal, (solver, max_steps))
    fixed = {name: values[cells.first] for name, values in cells.fixed.items()}
    # the loop that drops the cells that are done is for the host; within a transformation all is one program
    if any(isinstance(x, jax.core.Tracer) for x in jtu.tree_leaves((mixing, nu, observed, limits, fixed))):
        args = mixing, nu, limits, observed, observed.counts(), fixed
        return _each(compiled(_traced, args, (free, marginal, tolerance, max_steps)), cells, free, limits)
    how = marginal, tolerance, max_steps, slabs
    return _each(fit_cells(mixing, nu, observed, free, limits, *how, fixed), cells, free, limits)


def _traced(
    mixing: MixingMatrix, nu: Any, limits: Limits, observed: Observed, counts: Any, fixed: Any, *choices: Any
) -> CellFits:
    free, marginal, tolerance, max_steps = choices
    sky = _sky_of(nu, observed, counts, ({}, {}), marginal)
    return trace_cells(mixing, sky, limits, fixed, free, tolerance, max_steps)


def _each(found: CellFits, cells: Cells, free: tuple[str, ...], limits: Limits) -> Fits:
    # a cell's number is that of its element of every parameter, but each counts them in its own order
    place = [np.argsort(cells.element[name][cells.first]) for name in free]

    def named(rows: Any) -> dict[str, Any]:
        return {name: row[at] for name, row, at in zip(free, rows, place, strict=True)}

    xp: Any = jnp if isinstance(found.values, jax.core.Tracer) else np
    code: Any = RESULTS
    endings = {
        small_fits.SEARCHING: code.max_steps_reached,
        small_fits.CONVERGED: code.successful,
        small_fits.STALLED: code.stalled,
        small_fits.NONFINITE: code.nonfinite_start,
    }
    result = xp.asarray([endings[status]._value for status in sorted(endings)], np.int32)[found.status]
    covariance = xp.where(found.status == small_fits.NONFINITE, np.nan, found.covariance)
    errors = xp.sqrt(xp.stack([covariance[i, i] for i in range(len(free))]))
    lower, upper = xp.asarray(limits.lower)[:, None], xp.asarray(limits.upper)[:, None]
    bound = at_bound(found.values, lower, upper)
    return Fits(named(found.values), named(errors), named(bound), covariance, result, found.steps, found.cost)


def _grouped(problem: Any, cells: Cells, free: tuple[str, ...], marginal: bool, how: Any) -> Fits:
    mixing, nu, observed, limits = problem
    layout, tree = Layout.of(cells), None
    if layout.width > _FEW and isinstance(how[0], AbstractTrustSolver):
        layout, tree = nested(cells, free) or (layout, None)
    # in a tree the place of a cell says where its parameters are
    places = cells.places() if tree is None else ({}, {})
    skies = compiled(_group_skies, (nu, observed, observed.counts(), places, layout), (marginal,))
    real = {name: layout.elements[name] >= 0 for name in free}
    taken = np.maximum(layout.cells, 0)
    fixed = {name: values[cells.first][taken] for name, values in cells.fixed.items()}
    if tree is None:
        found = _fit_groups(mixing, skies, free, limits, (real, fixed), how)
    else:
        found = fit_connected(mixing, skies, free, tree, limits, (real, fixed), *how)
    found = jtu.tree_map(on_host, found)
    named, offset, at = {}, {}, 0
    for name in free if tree is None else tree.names:
        group, place = np.nonzero(real[name])
        order = np.argsort(layout.elements[name][group, place])
        element = group[order], place[order] + at
        named[name], offset[name] = [x[element] for x in (found.y, found.std, found.at_bound)], at
        at += real[name].shape[1]
    values, std, at_bound = ({name: named[name][i] for name in free} for i in range(3))
    if tree is None:
        where = [(layout.local[name] + offset[name], places[1].get(name)) for name in free]
        covariance = _of_cells(found.covariance, cells.group, where)
    else:
        rank, finest = np.array([tree.names.index(name) for name in free]), layout.local[tree.names[0]]
        covariance = found.covariance[cells.group, rank[:, None, None], rank[None, :, None], finest]
    return Fits(values, std, at_bound, covariance, found.result, found.steps, found.cost)


def _of_cells(every: Any, group: np.ndarray, where: list[tuple[np.ndarray, Any]]) -> Any:
    """(p, p, k): the covariance of the parameters that each cell has: of means, w^T Sigma w."""
    xp: Any = jnp if isinstance(every, jax.core.Tracer) else np

    def pair(i: int, j: int) -> Any:
        (row, left), (column, right) = where[i], where[j]
        row, column = np.atleast_2d(row)[:, None], np.atleast_2d(column)[None]
        weight = (1 if left is None else left[:, None]) * (1 if right is None else right[None])
        # an element that the data do not determine has an infinite variance, felt only where it has a share
        total = (xp.where(weight != 0, every[group[None, None], row, column], 0) * weight).sum((0, 1))
        return xp.where(xp.isnan(total), np.inf, total) if i == j else total

    rows = range(len(where))
    return xp.stack([xp.stack([pair(i, j) for j in rows]) for i in rows])


def _group_skies(nu: Any, observed: Observed, counts: Any, places: Any, layout: Layout, marginal: bool) -> Sky:
    """A sky for each group."""
    return _stacked(_sky_of(nu, observed, counts, places, marginal), layout)


def _sky_of(nu: Any, observed: Observed, counts: Any, places: Any, marginal: bool) -> Sky:
    """All cells, with the pixels of each side by side."""
    filled, at = observed.columns >= 0, jnp.maximum(observed.columns, 0)
    data, root = observed.gather(at)
    data = jnp.where(filled[None, None, None], data, 0)
    data = data.reshape(*data.shape[:2], -1, data.shape[-1])
    index, share = places
    return Sky(nu, whitened(data, root), index, counts, marginal, share)


def _stacked(sky: Sky, layout: Layout) -> Sky:
    """One sky a group, all of one shape; cells that fill up have no data."""
    k, taken, real = sky.count.shape[1], jnp.maximum(layout.cells, 0), layout.cells >= 0

    def turned(x: Any) -> Array:
        return jnp.moveaxis(jnp.asarray(x)[..., taken], -2, 0)

    def blank(rows: Array) -> Array:
        return jnp.where(real.reshape(len(taken), *(1,) * (rows.ndim - 2), -1), rows, 0)

    def gather(x: Array) -> Array:
        return blank(turned(x)) if x.shape[-1] == k else jnp.broadcast_to(x, (len(taken), *x.shape))

    index = {name: blank(turned(layout.local[name])) for name in sky.names}
    share = {name: turned(x) for name, x in zip(sky.names, sky.share, strict=True) if x is not None}
    # a single cell has the shape of what all cells share; then there is nothing to gather anyway
    maps, count = jtu.tree_map(gather, (sky.maps, sky.count))

    def build(maps: Any, index: Any, count: Any, share: Any) -> Sky:
        return Sky(sky.nu, maps, index, count, sky.marginal, share)

    return jax.vmap(build)(maps, index, count, share)


def _fit_groups(
    mixing: MixingMatrix, skies: Sky, free: tuple[str, ...], limits: Limits, places: Any, how: Any
) -> GroupFits:
    """With any couplings."""
    found, _ = lean_first(_all_groups, (mixing, skies, limits, places), (free, *how))
    ended = found.result._value, found.num_steps, found.cost
    return GroupFits(found.y, found.standard_errors, found.at_bound, found.covariance, *ended)


def _all_groups(
    mixing: MixingMatrix,
    skies: Sky,
    limits: Limits,
    places: Any,
    free: tuple[str, ...],
    solver: Any,
    max_steps: int,
    complete: bool,
) -> tuple[Solution, Array]:
    start = jnp.clip(jnp.stack([get(mixing, name) for name in free]), limits.lower, limits.upper)

    def one(sky: Sky, places: Any) -> tuple[Solution, Array]:
        real, fixed = places

        def flat(each: Array) -> Array:
            return jnp.concatenate([jnp.broadcast_to(each[k], real[name].shape) for k, name in enumerate(free)])

        inside, y = jnp.concatenate([real[name] for name in free]), flat(start)
        starts = {name: jnp.broadcast_to(start[k], real[name].shape) for k, name in enumerate(free)}
        model = at_lanes(mixing, starts | fixed)
        lower, upper = jnp.where(inside, flat(limits.lower), y), jnp.where(inside, flat(limits.upper), y)
        problem = Problem(model, sky, Terms(lower, upper, flat(limits.mean), flat(limits.weight)))
        return fit_once(problem, Choices(make_plan(model, sky.noise, free), solver, None, max_steps), complete)

    return each_group(one, skies, places)
