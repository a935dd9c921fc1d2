"""Component maps and their errors, of every pixel, once the spectra are known."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import jax.tree_util as jtu
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from ...core.linalg import Factor, factorise
from ...fitting import compiled
from .._fixed import at_lanes
from .._mixing import MixingMatrix
from .._noise import weighted
from .._patches import Cells
from .dataset import Maps, Sky, places_of, white_pair
from .host_batches import Observed, Slabs, by_blocks
from .normal_equations import Moments, Places, Projected, Solved, apart, square, squares


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


_ALIKE = 64  # roundings below which a component is a combination of the others


def propagated(
    places: Places, moments: Moments, projected: Projected, solved: Solved, covariance: Float[Array, "p p k"]
) -> Float[Array, "c m k"]:
    """Variances of the amplitudes: diag (A^T N^-1 A)^-1 + (ds/dB) Sigma (ds/dB)^T.

    ds/dB = W_dB d = M^-1 (dA^T N^-1 r - A^T N^-1 dA s), M = A^T N^-1 A (Stivoli et al. 2010, MNRAS 408, 2319).
    Infinite where components cannot be told apart, or hang on a spectrum that the data do not determine.
    """
    s = solved.amplitude
    c = s.shape[0]
    units = jnp.broadcast_to(jnp.eye(c, dtype=s.dtype)[:, :, None], moments.normal.shape)
    factor = factorise(moments.normal[:, :, None])
    inverse = factor.solve(units)
    variance = jnp.broadcast_to(jnp.stack([inverse[j, j] for j in range(c)])[:, None], s.shape)
    variance = jnp.where(_alike(factor, moments.normal), jnp.inf, variance)
    if not places:
        return variance
    moved: dict[int, Array] = {}
    for a, (i, j) in enumerate(places):
        slope = inverse[:, j, None] * projected.rest[a][None] - solved.parts[:, a, None] * s[j][None]
        moved[i] = moved[i] + slope if i in moved else slope
    pairs = [(i, j) for i in moved for j in moved if j <= i]
    terms = (moved[i] * moved[j] * (covariance[i, j] * (1 if i == j else 2))[None, None] for i, j in pairs)
    total = functools.reduce(jnp.add, terms, variance)
    return jnp.where(jnp.isnan(total), jnp.inf, total)


def _alike(factor: Factor, normal: Float[Array, "c c k"]) -> Bool[Array, "1 1 k"]:
    """Where nothing is left of a component's column that the others do not have."""
    least = _ALIKE * jnp.finfo(normal.dtype).eps
    inverses = factor.inverse_pivots or ()
    none = (inverse * normal[i, i][None] * least >= 1 for i, inverse in enumerate(inverses))
    return functools.reduce(jnp.logical_or, none, ~factor.ok)[None]
