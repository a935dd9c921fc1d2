"""From a checked sky and the places of its parameters to fits: each cell by itself, or groups of cells together.

`fit_sky` looks at what is shared. Cells that have all parameters to themselves go through the engine for small fits; a
tree of resolutions through normal equations that keep its structure; everything else, soft patches say, through a dense
fit of each group as `jaxsci.fit` would do it. `separate` and the blocks from disk call it, and read the same `Fits`.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import jax.tree_util as jtu
import numpy as np
from jaxtyping import Array, Int

from ...core import get
from ...fitting import AbstractTrustSolver, Choices, Problem, Solver, Terms, compiled, fit_once, lean_first, make_plan
from .._given import ArrayModule, Values
from .._mixing import MixingMatrix, at_lanes
from .._patches import Cells
from .._settings import Limits, Settings
from .._sky import Sky
from .dataset import SkyDataset
from .fits import Fits, split
from .groups import Groups, nested
from .nested import each_group, fit_nested_groups
from .pixels import fit_pixels

_FEW = 8  # parameters of a cell that is fitted by itself; the small solves are unrolled


def fit_sky(settings: Settings, sky: Sky, cells: Cells, lanes: int | None = None) -> Fits:
    """Fit all free parameters: each cell by itself where none shares any with another, else each group.

    **Arguments:** `lanes`: of a call for single cells; by default as their number asks for.
    """
    limits = settings.limits()
    if cells.alone and len(settings.free) <= _FEW:
        return fit_pixels(settings, sky, cells, limits, lanes)
    groups = Groups.of(cells)
    if groups.width > _FEW and isinstance(settings.solver, AbstractTrustSolver):
        groups = nested(cells, settings.free) or groups
    return _fit_groups(settings, sky, cells, groups, limits)


def _fit_groups(settings: Settings, sky: Sky, cells: Cells, groups: Groups, limits: Limits) -> Fits:
    # in a tree the place of a cell says where its parameters are
    index, share = ({}, {}) if groups.shape else cells.elements()
    args = sky, cells.pixels(), index, share, groups.cells, groups.local
    data = compiled(_data_of_groups, args, (settings.marginal,))
    taken = np.maximum(groups.cells, 0)
    fixed = {name: values[cells.first][taken] for name, values in cells.fixed.items()}
    choices: tuple[Any, ...] = (groups.names, groups.shape, settings.solver, settings.max_steps)
    program = fit_nested_groups if groups.shape else fit_dense_groups
    if groups.shape:
        order = np.array([settings.free.index(name) for name in groups.names])
        limits = jtu.tree_map(lambda x: x[order], limits)
    found, _ = lean_first(program, (settings.mixing, data, limits, groups.real(), fixed), choices)
    found = jtu.tree_map(settings.xp.asarray, found)
    values, std, at_bound = (
        _by_element(each, groups, settings.free) for each in (found.values, found.std, found.at_bound)
    )
    if groups.shape:
        rank = np.array([groups.names.index(name) for name in settings.free])
        finest = groups.local[groups.names[0]]
        covariance = found.covariance[cells.group, rank[:, None, None], rank[None, :, None], finest]
    else:
        widths = [groups.elements[name].shape[1] for name in settings.free]
        offsets = np.cumsum([0, *widths[:-1]])
        places = [groups.local[name] + at for name, at in zip(settings.free, offsets, strict=True)]
        shares = [share.get(name) for name in settings.free]
        covariance = covariance_of_cells(settings.xp, found.covariance, cells.group, places, shares)
    return Fits(values, std, at_bound, covariance, found.result, found.steps, found.cost)


def _by_element(tables: Mapping[str, Values], groups: Groups, free: tuple[str, ...]) -> dict[str, Values]:
    """The elements (n,) of each parameter, from the places (g, w) that they have in the groups."""
    out = {}
    for name in free:
        group, place = np.nonzero(groups.elements[name] >= 0)
        order = np.argsort(groups.elements[name][group, place])
        out[name] = tables[name][group[order], place[order]]
    return out


def covariance_of_cells(
    xp: ArrayModule,
    every: Values,
    group: np.ndarray,
    places: Sequence[np.ndarray],
    shares: Sequence[np.ndarray | None],
) -> Values:
    """Take the covariance (p, p, k) of the parameters that each cell has; of means over patches, w^T Sigma w.

    **Arguments:** `every`: (g, n, n) of all elements of each group. `group`: (k,) of each cell. `places`, `shares`: of
    each parameter, which elements a cell has, (k,) or (q, k), and how much of each.
    """

    def pair(i: int, j: int) -> Values:
        row, column = np.atleast_2d(places[i])[:, None], np.atleast_2d(places[j])[None]
        left, right = shares[i], shares[j]
        weight = (1 if left is None else left[:, None]) * (1 if right is None else right[None])
        # an element that the data do not determine has an infinite variance, felt only where it has a share
        total = (xp.where(weight != 0, every[group[None, None], row, column], 0) * weight).sum((0, 1))
        return xp.where(xp.isnan(total), np.inf, total) if i == j else total

    rows = range(len(places))
    return xp.stack([xp.stack([pair(i, j) for j in rows]) for i in rows])


def _data_of_groups(
    sky: Sky,
    pixels: Int[Array, "m k"],
    index: dict[str, Array],
    share: dict[str, Array],
    cells: Int[Array, "g h"],
    local: dict[str, Array],
    marginal: bool,
) -> SkyDataset:
    """A data set for each group, all of one shape; cells that fill up have no data."""
    whole = SkyDataset.of(sky, pixels, index=index, share=share, marginal=marginal)
    k, taken, real = whole.count.shape[1], jnp.maximum(cells, 0), cells >= 0

    def turned(x: Array) -> Array:
        return jnp.moveaxis(jnp.asarray(x)[..., taken], -2, 0)

    def blank(rows: Array) -> Array:
        return jnp.where(real.reshape(len(taken), *(1,) * (rows.ndim - 2), -1), rows, 0)

    def gather(x: Array) -> Array:
        return blank(turned(x)) if x.shape[-1] == k else jnp.broadcast_to(x, (len(taken), *x.shape))

    index = {name: blank(turned(local[name])) for name in whole.names}
    share = {name: turned(x) for name, x in zip(whole.names, whole.share, strict=True) if x is not None}
    # a single cell has the shape of what all cells share; then there is nothing to gather anyway
    data, root, count = map(gather, (whole.data, whole.root, whole.count))

    def build(data: Array, root: Array, index: dict[str, Array], count: Array, share: dict[str, Array]) -> SkyDataset:
        return SkyDataset(whole.nu, data, root, index=index, count=count, marginal=marginal, share=share)

    return jax.vmap(build)(data, root, index, count, share)


def fit_dense_groups(
    mixing: MixingMatrix,
    data: SkyDataset,
    limits: Limits,
    real: dict[str, Array],
    fixed: dict[str, Array],
    names: tuple[str, ...],
    shape: tuple[int, ...],
    solver: Solver,
    max_steps: int,
    complete: bool,
) -> tuple[Fits, Int[Array, "g 5"]]:
    """Fit groups with any couplings, with a dense matrix for each: (fits, their packed `Flags`)."""
    start = jnp.clip(jnp.stack([get(mixing, name) for name in names]), limits.lower, limits.upper)

    def one(data: SkyDataset, real: dict[str, Array], fixed: dict[str, Array]) -> tuple[Fits, Array]:
        starts = {name: jnp.broadcast_to(start[k], real[name].shape) for k, name in enumerate(names)}
        model = at_lanes(mixing, starts | fixed)
        own = Terms(*limits.at_places(start, [real[name] for name in names]).limits)
        plan = make_plan(model, data.noise, names)
        found, flags = fit_once(Problem(model, data, own), Choices(plan, solver, None, max_steps), complete)
        widths = {name: real[name].shape[0] for name in names}
        values, std, at_bound = (split(x, widths) for x in (found.y, found.standard_errors, found.at_bound))
        ended = found.result._value, found.num_steps, found.cost
        return Fits(values, std, at_bound, found.covariance, *ended), flags

    return each_group(one, data, real, fixed)
