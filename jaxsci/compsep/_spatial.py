"""From maps and the places of parameters to fits: cells of pixels, and groups of cells that share parameters."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.tree_util as jtu
import numpy as np
from jaxtyping import Array, Float

from ..core._loss import Linear
from ..core._noise import Unit
from ..core._parameter import free_spec, get
from ..fitting._fit import fit_once
from ..fitting._plan import flat_bounds, flat_priors, make_plan
from ..fitting._program import call
from ..fitting._solution import RESULTS, Solution
from ._cells import Limits, fit_cells
from ._likelihood import Maps, Sky
from ._mixing import MixingMatrix
from ._noise import weighted
from ._patches import Cells

_FEW = 8  # parameters of a cell that is fitted by itself; the small solves are unrolled


class Fits(NamedTuple):
    """Fitted parameters: by name (n,) values, standard errors and bounds met (-1, 0, 1).

    `covariance` (p, p, k) of the parameters of each cell. `result`, `steps`, `cost` of each group.
    """

    values: dict[str, Array]
    std: dict[str, Array]
    at_bound: dict[str, Array]
    covariance: Array
    result: Array
    steps: Array
    cost: Array


def cell_sky(nu: Any, observed: Sequence[Array], found: Sequence[Array], cells: Cells, marginal: bool) -> Sky:
    """The pixels of each cell side by side; more than there are channels are replaced by as many that say the same.

    **Arguments:** `observed`: (f, t, pixel) for each set of t Stokes parameters of equal noise; `found`: its root.
    """
    columns = cells.columns()
    filled = jnp.asarray(columns >= 0)
    maps, count = [], []
    for data, root in zip(observed, found, strict=True):
        f, t, _ = data.shape
        taken = jnp.where(filled, data[:, :, np.maximum(columns, 0)], 0).reshape(f, -1, columns.shape[1])
        if root.shape[-1] == 1:
            taken = jnp.where(weighted(root)[:, None], taken, 0)  # a channel without weight may hold anything
        if taken.shape[1] > f and root.shape[-1] == 1:
            taken = compress(taken)
        maps.append(Maps.make(taken, root))
        count.append(jnp.asarray(t * np.sum(columns >= 0, axis=0), taken.dtype))
    index = {name: jnp.asarray(inside[cells.first]) for name, inside in cells.element.items()}
    return Sky(nu, maps, index, count, marginal)


def compress(data: Float[Array, "f m k"]) -> Float[Array, "f f k"]:
    """f columns with the same sum of squares as m, whatever linear map is applied: L of data = L Q.

    Equal noise and spectra within a cell make the likelihood a function of them alone; unlike the covariance of the
    data they lose no digits.
    """
    upper = jnp.linalg.qr(jnp.moveaxis(data, 2, 0).swapaxes(1, 2), mode="r")
    return jnp.moveaxis(upper.swapaxes(1, 2), 0, 2)


def fit_sky(
    mixing: MixingMatrix,
    sky: Sky,
    cells: Cells,
    free: tuple[str, ...],
    *,
    bounds: Mapping[str, Any] | None,
    priors: Mapping[str, Any] | None,
    solver: Any,
    tolerance: float,
    max_steps: int,
) -> Fits:
    """Fit all parameters: each cell by itself where none shares any with another, else each group."""
    plan = make_plan(mixing, Unit(), free)
    lower, upper = flat_bounds(plan, bounds)
    if lower is None or upper is None:
        lower, upper = jnp.full(len(free), -jnp.inf), jnp.full(len(free), jnp.inf)
    limits = Limits(lower, upper, *flat_priors(plan, priors))
    # the loop over cells is for the host; within a transformation the core's fits have derivatives too
    traced = any(isinstance(x, jax.core.Tracer) for x in jtu.tree_leaves((mixing, sky, limits)))
    if cells.alone and len(free) <= _FEW and not traced:
        return _each(mixing, sky, cells, free, limits, tolerance, max_steps)
    return _grouped(mixing, sky, cells, free, limits, solver, max_steps)


def _each(
    mixing: MixingMatrix,
    sky: Sky,
    cells: Cells,
    free: tuple[str, ...],
    limits: Limits,
    tolerance: float,
    max_steps: int,
) -> Fits:
    k = len(cells.first)
    start = jnp.stack([jnp.full(k, get(mixing, name)) for name in free])
    start = jnp.clip(start, limits.lower[:, None], limits.upper[:, None])
    found = fit_cells(mixing, sky, free, start, limits, tolerance=tolerance, max_steps=max_steps)
    # a cell's number is that of its element of every parameter, but each counts them in its own order
    place = [np.argsort(cells.element[name][cells.first]) for name in free]

    def named(rows: Array) -> dict[str, Array]:
        return {name: row[at] for name, row, at in zip(free, rows, place, strict=True)}

    errors = jnp.sqrt(jnp.stack([found.covariance[i, i] for i in range(len(free))]))
    code: Any = RESULTS
    result = jnp.where(found.done, code.successful._value, code.max_steps_reached._value)
    result = jnp.where(found.stalled, code.stalled._value, result)
    bound = named(found.at_bound)
    return Fits(named(found.values), named(errors), bound, found.covariance, result, found.steps, found.cost)


class _Layout(NamedTuple):
    """Cells of g groups in h places each, -1 where there is none; elements of each parameter likewise."""

    cells: np.ndarray
    elements: dict[str, np.ndarray]
    local: dict[str, np.ndarray]

    @staticmethod
    def of(cells: Cells) -> "_Layout":
        count = int(cells.group.max(initial=-1)) + 1
        elements, local = {}, {}
        for name, inside in cells.element.items():
            owner = np.zeros(cells.sizes[name], np.int64)
            owner[inside[cells.first]] = cells.group
            elements[name], rank = _rows(owner, count)
            local[name] = rank[inside[cells.first]]
        return _Layout(_rows(cells.group, count)[0], elements, local)


def _rows(owner: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """(the members of each owner, -1 beyond them; the place of each member there)."""
    sizes = np.bincount(owner, minlength=count)
    order = np.argsort(owner, kind="stable")
    rank = np.empty(len(owner), np.int64)
    rank[order] = np.arange(len(owner)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    out = np.full((count, sizes.max(initial=1)), -1)
    out[owner, rank] = np.arange(len(owner))
    return out, rank


def _grouped(
    mixing: MixingMatrix,
    sky: Sky,
    cells: Cells,
    free: tuple[str, ...],
    limits: Limits,
    solver: Any,
    max_steps: int,
) -> Fits:
    layout = _Layout.of(cells)
    skies = _stacked(sky, layout)
    real = {name: jnp.asarray(layout.elements[name] >= 0) for name in free}
    found = _fit_groups(mixing, skies, free, limits, real, (solver, max_steps))
    names, at = [name for name, _ in found.free], 0
    values, std, at_bound, offset = {}, {}, {}, {}
    for name in names:
        width = layout.elements[name].shape[1]
        group, place = np.nonzero(layout.elements[name] >= 0)
        order = np.argsort(layout.elements[name][group, place])
        group, place = group[order], place[order] + at
        values[name], offset[name] = found.y[group, place], at
        std[name], at_bound[name] = found.standard_errors[group, place], found.at_bound[group, place]
        at += width
    where = jnp.stack([jnp.asarray(layout.local[name] + offset[name]) for name in free])
    covariance = found.covariance[cells.group[None, None], where[:, None], where[None, :]]
    return Fits(
        {name: values[name] for name in free},
        {name: std[name] for name in free},
        {name: at_bound[name] for name in free},
        covariance,
        found.result._value,
        found.num_steps,
        found.cost,
    )


def _stacked(sky: Sky, layout: _Layout) -> Sky:
    """One sky a group, all of one shape; cells that fill up have no data."""
    k, taken = sky.count[0].shape[0], np.maximum(layout.cells, 0)
    real = jnp.asarray(layout.cells >= 0)

    def gather(x: Array) -> Array:
        if x.shape[-1] != k:
            return jnp.broadcast_to(x, (len(taken), *x.shape))
        rows = jnp.moveaxis(x[..., taken], -2, 0)
        return jnp.where(real.reshape(len(taken), *(1,) * (x.ndim - 1), -1), rows, 0)

    index = {name: jnp.asarray(np.where(layout.cells >= 0, layout.local[name][taken], 0)) for name in sky.names}
    # a single cell has the shape of what all cells share; then there is nothing to gather anyway
    maps, count = jtu.tree_map(gather, (sky.maps, sky.count))

    def build(maps: Any, index: Any, count: Any) -> Sky:
        return Sky(sky.nu, maps, index, count, sky.marginal)

    return jax.vmap(build)(maps, index, count)


def _fit_groups(
    mixing: MixingMatrix, skies: Sky, free: tuple[str, ...], limits: Limits, real: dict[str, Array], how: Any
) -> Solution:
    """A stacked Solution. As in `jaxsci.fit`, first by a program without the branches that few fits take."""
    args = mixing, skies, limits, real
    solution, flags = call(_all_groups, args, (free, *how, False), (free, *how, True))
    if isinstance(flags, jax.core.Tracer):
        return solution
    stalled, well = jnp.any(flags[:, -2] != 0), jnp.all(flags[:, -1] != 0)
    return solution if well and not stalled else call(_all_groups, args, (free, *how, True))[0]


def _all_groups(
    mixing: MixingMatrix,
    skies: Sky,
    limits: Limits,
    real: dict[str, Array],
    free: tuple[str, ...],
    solver: Any,
    max_steps: int,
    complete: bool,
) -> tuple[Solution, Array]:
    moving, rest = eqx.partition(mixing, free_spec(mixing, free))
    structure = jtu.tree_structure(moving)
    start = jnp.clip(jnp.stack([get(mixing, name) for name in free]), limits.lower, limits.upper)

    def one(sky: Sky, real: dict[str, Array]) -> tuple[Solution, Array]:
        def flat(each: Array) -> Array:
            return jnp.concatenate([jnp.broadcast_to(each[k], real[name].shape) for k, name in enumerate(free)])

        inside, y = jnp.concatenate([real[name] for name in free]), flat(start)
        starts = [jnp.broadcast_to(start[k], real[name].shape) for k, name in enumerate(free)]
        model = eqx.combine(jtu.tree_unflatten(structure, starts), rest)
        lower, upper = jnp.where(inside, flat(limits.lower), y), jnp.where(inside, flat(limits.upper), y)
        problem = (model, sky, lower, upper, flat(limits.mean), flat(limits.weight), None, solver, Linear(), None)
        return fit_once(problem, make_plan(model, sky.noise, free), None, max_steps, None, complete)

    return jax.vmap(one)(skies, real)
