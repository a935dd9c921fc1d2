"""Component maps and their errors, of every pixel, once the spectra are known."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import jax.tree_util as jtu
import numpy as np
from jaxtyping import Array, Int

from ..fitting import compiled
from ._errors import propagated
from ._fixed import at_lanes
from ._likelihood import Maps, Sky, places_of, white_pair
from ._mixing import MixingMatrix
from ._moments import Moments, Projected, Solved, apart, square, squares
from ._noise import weighted
from ._patches import Cells
from ._slabs import Observed, Slabs, by_blocks


class ComponentMaps(NamedTuple):
    """Of each pixel in use, last axis: `amplitude`, `error` (c, s, n), `chi2`, -d^T N^-1 A s / 2, numbers of data.

    `finite`: False where the spectra or their derivatives are not; all else is NaN there, and there are no data.
    Amplitudes are NaN as well where a Stokes parameter has fewer channels than there are components.
    """

    amplitude: Any
    error: Any
    chi2: Any
    minus_log_like: Any
    num_data: Any
    finite: Any


def component_maps(
    mixing: MixingMatrix,
    nu: Any,
    observed: Observed,
    cells: Cells,
    free: tuple[str, ...],
    fitted: Any,
    slabs: Slabs | None = None,
) -> ComponentMaps:
    """Amplitudes by generalised least squares, slab after slab.

    **Arguments:** `observed`: with every pixel a cell. `fitted`: values by name and their covariance, of each cell.
    """
    values, covariance = fitted
    slots, sizes = observed.slots(), np.array([len(members) for members in observed.sets])
    if any(isinstance(x, jax.core.Tracer) for x in jtu.tree_leaves((mixing, nu, observed, fitted))):
        data, root = observed.gather(jnp.asarray(cells.pixel)[None])
        rows = {name: values[name][cells.cell] for name in free} | cells.fixed
        known = covariance[:, :, cells.cell]
        return _in_order(compiled(_maps_of, (mixing, nu, (data[:, :, :, 0], root), rows, known, sizes), (free,)), slots)
    count = len(cells.pixel)
    slabs = slabs or Slabs.of(count)
    c, s = len(mixing.columns), len(slots[0])
    maps, ones = np.empty((2, c, s, count)), np.empty((3, count))
    out = ComponentMaps(maps[0], maps[1], ones[0], ones[1], ones[2], np.empty(count, bool))
    for part, blocks in slabs.parts(np.arange(count)):
        rows = {name: slabs.fill(np.asarray(values[name]), cells.cell[part], 1.0) for name in free}
        rows |= {name: slabs.fill(fixed, part, fixed[0]) for name, fixed in cells.fixed.items()}
        known = slabs.fill(np.asarray(covariance), cells.cell[part])
        args = mixing, nu, observed.take(part, slabs), rows, known, sizes, blocks
        new = _in_order(compiled(_maps_by_blocks, args, (free, slabs.size)), slots)
        for whole, one in zip(out, new, strict=True):
            whole[..., part] = one[..., : len(part)]
    return out


def _in_order(maps: ComponentMaps, slots: tuple[np.ndarray, np.ndarray]) -> ComponentMaps:
    """Stokes parameters as the data have them, not set by set."""
    traced = isinstance(maps.amplitude, jax.core.Tracer)
    host: Any = maps if traced else ComponentMaps(*map(np.asarray, maps))
    chosen = [(jnp if traced else np).moveaxis(x[slots[0], :, slots[1]], 0, 1) for x in host[:2]]
    return ComponentMaps(*chosen, *host[2:])


def _maps_by_blocks(
    mixing: MixingMatrix,
    nu: Any,
    taken: Any,
    rows: dict[str, Array],
    covariance: Array,
    sizes: Int[Array, " s"],
    blocks: Int[Array, ""],
    free: tuple[str, ...],
    size: int,
) -> ComponentMaps:
    def block(part: Any) -> ComponentMaps:
        taken, rows, covariance = part
        return _maps_of(mixing, nu, taken, rows, covariance, sizes, free)

    return by_blocks(block, (taken, rows, covariance), size, blocks)


def _maps_of(
    mixing: MixingMatrix,
    nu: Any,
    taken: tuple[Array, Array],
    rows: dict[str, Array],
    covariance: Array,
    sizes: Int[Array, " s"],
    free: tuple[str, ...],
) -> ComponentMaps:
    """Amplitudes and errors (s, c, t, k) set by set; the rest of all sets together."""
    model = at_lanes(mixing, rows)
    maps = Maps.make(*taken)
    places, found = places_of(model, free), apart(lambda model: Sky(nu, maps).spectra(model, free), model)
    columns, moved = apart(white_pair, found, maps.root)
    moments = apart(jax.vmap(Moments.of), columns, moved, maps.data)
    solved = apart(jax.vmap(Solved.of), moments)
    chi2 = 2 * apart(jax.vmap(square), columns, solved.amplitude, maps.data)
    left = apart(jax.vmap(Projected.of), columns, moved, maps.data, moments.side, solved.parts)
    errors = jax.vmap(functools.partial(propagated, places), (0, 0, 0, None))
    variance = apart(errors, moments, left, solved, covariance)
    used = jnp.sum(jax.vmap(weighted)(maps.root), axis=1)
    lost = (chi2 - jax.vmap(squares)(maps.data)) / 2
    # an elimination makes finite rubbish of a NaN, so the spectra are looked at, not what comes of them
    finite = jnp.all(jnp.isfinite(columns), axis=(0, 1, 2)) & jnp.all(jnp.isfinite(moved), axis=(0, 1, 2))
    told = (used >= columns.shape[2]) & finite[None]
    amplitude, error = (jnp.where(told[:, None, None], x, jnp.nan) for x in (solved.amplitude, jnp.sqrt(variance)))
    count = jnp.broadcast_to(jnp.where(told, used * sizes[:, None], 0), chi2.shape).astype(chi2.dtype)
    chi2, lost = (jnp.where(finite[None], x, jnp.nan) for x in (chi2, lost))
    chi2, lost, count = (functools.reduce(jnp.add, x) for x in (chi2, lost, count))
    return ComponentMaps(amplitude, error, chi2, lost, count, jnp.broadcast_to(finite, chi2.shape))
