"""Component maps and their errors, of every pixel, once the spectra are known."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import jax.tree_util as jtu
import numpy as np
from jaxtyping import Array, Int

from ..fitting._program import call
from ._errors import propagated
from ._fixed import at_lanes
from ._likelihood import Maps, Sky, places_of
from ._mixing import MixingMatrix
from ._moments import Moments, Solved, apart, square, squares
from ._noise import weighted
from ._patches import Cells
from ._slabs import Observed, Slabs, by_blocks


class ComponentMaps(NamedTuple):
    """Of each pixel in use, last axis: `amplitude`, `error` (c, s, n), `chi2`, -d^T N^-1 A s / 2, numbers of data."""

    amplitude: Any
    error: Any
    chi2: Any
    minus_log_like: Any
    num_data: Any


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

    **Arguments:** `observed`: with every pixel a cell. `fitted`: values by name, and their covariance (p, p, cell).
    """
    values, covariance = fitted
    order = np.argsort([member for members in observed.sets for member in members])
    if any(isinstance(x, jax.core.Tracer) for x in jtu.tree_leaves((mixing, nu, observed, fitted))):
        at = cells.pixel
        taken = [
            (observed.data[:, np.array(members)][:, :, at], root if root.shape[-1] == 1 else root[..., at])
            for members, root in zip(observed.sets, observed.root, strict=True)
        ]
        rows = {name: values[name][cells.element[name]] for name in free} | cells.fixed
        known = covariance[:, :, cells.cell]
        return _in_order(call(_maps_of, (mixing, nu, taken, rows, known), (free,)), order)
    count = len(cells.pixel)
    slabs = slabs or Slabs.of(count)
    c, s = len(mixing.columns), len(order)
    maps, ones = np.empty((2, c, s, count)), np.empty((3, count))
    out = ComponentMaps(maps[0], maps[1], *ones)
    for part, blocks in slabs.parts(np.arange(count)):
        rows = {name: slabs.fill(np.asarray(values[name]), cells.element[name][part], 1.0) for name in free}
        rows |= {name: slabs.fill(fixed, part, fixed[0]) for name, fixed in cells.fixed.items()}
        known = slabs.fill(np.asarray(covariance), cells.cell[part])
        args = mixing, nu, observed.take(part, slabs), rows, known, blocks
        new = _in_order(call(_maps_by_blocks, args, (free, slabs.size)), order)
        for whole, one in zip(out, new, strict=True):
            whole[..., part] = one[..., : len(part)]
    return out


def _in_order(maps: ComponentMaps, order: np.ndarray) -> ComponentMaps:
    """Stokes parameters as the data have them, not set by set."""
    if isinstance(maps.amplitude, jax.core.Tracer):
        return maps._replace(amplitude=maps.amplitude[:, order], error=maps.error[:, order])
    host = ComponentMaps(*map(np.asarray, maps))
    return host._replace(amplitude=host.amplitude[:, order], error=host.error[:, order])


def _maps_by_blocks(
    mixing: MixingMatrix,
    nu: Any,
    taken: Any,
    rows: dict[str, Array],
    covariance: Array,
    blocks: Int[Array, ""],
    free: tuple[str, ...],
    size: int,
) -> ComponentMaps:
    def block(part: Any) -> ComponentMaps:
        taken, rows, covariance = part
        return _maps_of(mixing, nu, taken, rows, covariance, free)

    return by_blocks(block, (taken, rows, covariance), size, blocks)


def _maps_of(
    mixing: MixingMatrix, nu: Any, taken: Any, rows: dict[str, Array], covariance: Array, free: tuple[str, ...]
) -> ComponentMaps:
    model = at_lanes(mixing, rows)
    maps = tuple(Maps.make(data, root) for data, root in taken)
    columns, moved = apart(lambda model: Sky(nu, maps).spectra(model, free), model)
    parts = [_set_of(m, columns, moved, places_of(model, free), covariance) for m in maps]
    together = [jnp.concatenate([part[i] for part in parts], axis=1) for i in (0, 1)]
    return ComponentMaps(*together, *(sum(part[i] for part in parts) for i in (2, 3, 4)))


def _set_of(maps: Maps, columns: Array, moved: Array, places: Any, covariance: Array) -> ComponentMaps:
    """One set of Stokes parameters."""
    a, b = maps.whiten(columns), maps.whiten(moved)
    moments = apart(Moments.of, a, b, maps.data)
    solved = apart(Solved.of, moments)
    chi2 = 2 * apart(square, a, solved.amplitude, maps.data)
    variance = apart(functools.partial(propagated, places), moments, solved, covariance)
    used = maps.data.shape[1] * jnp.sum(weighted(maps.root), axis=0).astype(chi2.dtype)
    lost = (chi2 - squares(maps.data)) / 2
    return ComponentMaps(solved.amplitude, jnp.sqrt(variance), chi2, lost, jnp.broadcast_to(used, chi2.shape))
