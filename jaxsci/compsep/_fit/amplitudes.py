"""Component maps and their errors, of every pixel, once the spectra are known.

The amplitudes of greatest likelihood are a small linear solve in each pixel. Their errors are those of that solve, and
those that the errors of the spectral parameters add. `separate` and the blocks from disk end with it: on the host batch
after batch of pixels, within a JAX transformation as one program.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from ...core.linalg import Factor, factorise
from ...fitting import compiled
from .._given import ArrayModule, Values
from .._instrument import Frequencies, channel_count
from .._mixing import MixingMatrix, at_lanes
from .._noise import weighted
from .._patches import Cells
from .._settings import Settings
from .._sky import Sky
from .dataset import SkyDataset, derivatives_of, observed_at, white_data, white_pair
from .fits import Fits
from .host_batches import batches, by_strips, fill, gathered, lanes_for, strip_of
from .normal_equations import Derivatives, Moments, Projected, Solved, apart, square, squares

_MANY = 8  # parameters
_ALIKE = 64  # roundings below which a component is a combination of the others


class ComponentMaps(NamedTuple):
    """Of each pixel in use, last axis: `amplitude`, `error` (c, s, n), `chi2`, -d^T N^-1 A s / 2, numbers of data.

    `finite`: False where the spectra or their derivatives are not; all else is NaN there, and there are no data.
    Amplitudes are NaN as well where a Stokes parameter has fewer channels than there are components.
    """

    amplitude: Values
    error: Values
    chi2: Values
    minus_log_like: Values
    num_data: Values
    finite: Values


def component_maps(settings: Settings, sky: Sky, cells: Cells, fits: Fits, lanes: int | None = None) -> ComponentMaps:
    """Solve for the amplitudes of every used pixel by generalised least squares.

    **Arguments:** `fits`: of the spectra, in whose errors amplitudes have a share. `lanes`: of a call; by default as
    the number of pixels asks for.
    """
    free, values = settings.free, cells.means(fits.values)
    pixels, sizes = cells.pixel[None], np.array([len(members) for members in sky.sets])
    if settings.traced:
        data, root = observed_at(sky, jnp.asarray(pixels))
        rows = {name: values[name][cells.cell] for name in free} | cells.fixed
        known = fits.covariance[:, :, cells.cell]
        args = settings.mixing, sky.nu, data[:, :, :, 0], root, rows, known, sizes
        return _by_stokes(_in_order(jnp, sky, compiled(_maps_of, args, (free,))), settings)
    count = len(cells.pixel)
    lanes = lanes_for(count) if lanes is None else lanes
    stokes = sky.data.shape[0] // channel_count(settings.nu)
    c, s = stokes * len(settings.mixing.columns), len(sky.root)

    def solve(mine: np.ndarray) -> ComponentMaps:
        """The maps of these pixels."""
        maps, ones = np.empty((2, c, s, len(mine))), np.empty((3, len(mine)))
        out = ComponentMaps(maps[0], maps[1], ones[0], ones[1], ones[2], np.empty(len(mine), bool))

        def one(call: tuple[np.ndarray, np.ndarray]) -> ComponentMaps:
            part, strips = mine[call[0]], call[1]
            rows = {name: fill(np.asarray(values[name]), cells.cell[part], lanes, 1.0) for name in free}
            rows |= {name: fill(fixed, part, lanes, fixed[0]) for name, fixed in cells.fixed.items()}
            known = fill(np.asarray(fits.covariance), cells.cell[part], lanes)
            batch = settings.mixing, sky.nu, *gathered(sky, pixels, part, lanes), rows, known, sizes, strips
            return _in_order(np, sky, compiled(_maps_by_strips, batch, (free, strip_of(lanes))))

        def put(call: tuple[np.ndarray, np.ndarray], new: ComponentMaps) -> None:
            for whole, part in zip(out, new, strict=True):
                whole[..., call[0]] = part[..., : len(call[0])]

        settings.placement.local.spread(batches(np.arange(len(mine)), lanes), one, put)
        return out

    return _by_stokes(settings.placement.in_shares(count, lanes, solve, axis=-1), settings)


def _by_stokes(maps: ComponentMaps, settings: Settings) -> ComponentMaps:
    """Give each Stokes parameter its place again, where the columns were those of all of them."""
    c = len(settings.mixing.columns)

    def split(x: Values) -> Values:
        return x if len(x) == c else x.reshape(-1, c, x.shape[-1]).swapaxes(0, 1)

    return maps._replace(amplitude=split(maps.amplitude), error=split(maps.error))


def _in_order(xp: ArrayModule, sky: Sky, maps: ComponentMaps) -> ComponentMaps:
    """Put Stokes parameters in the order of the data, where the programs have them set by set."""
    maps = ComponentMaps(*map(xp.asarray, maps))
    where = {stokes: (k, t) for k, members in enumerate(sky.sets) for t, stokes in enumerate(members)}
    which, place = np.array([where[stokes] for stokes in range(len(where))]).T
    amplitude, error = (xp.moveaxis(x[which, :, place], 0, 1) for x in (maps.amplitude, maps.error))
    return maps._replace(amplitude=amplitude, error=error)


def _maps_by_strips(
    mixing: MixingMatrix,
    nu: Frequencies,
    data: Array,
    root: Array,
    rows: dict[str, Array],
    covariance: Array,
    sizes: Int[Array, " s"],
    strips: Int[Array, ""],
    free: tuple[str, ...],
    size: int,
) -> ComponentMaps:
    def strip(data: Array, root: Array, rows: dict[str, Array], covariance: Array) -> ComponentMaps:
        return _maps_of(mixing, nu, data, root, rows, covariance, sizes, free)

    return by_strips(strip, (data, root, rows, covariance), size, strips)


def _maps_of(
    mixing: MixingMatrix,
    nu: Frequencies,
    data: Array,
    root: Array,
    rows: dict[str, Array],
    covariance: Array,
    sizes: Int[Array, " s"],
    free: tuple[str, ...],
) -> ComponentMaps:
    """Amplitudes and errors (s, c, t, k) set by set; the rest of all sets together."""
    model = at_lanes(mixing, rows)
    seen = SkyDataset(nu, white_data(data, root), root)
    places, found = derivatives_of(model, free, seen.stokes), apart(lambda model: seen.spectra(model, free), model)
    columns, moved = apart(white_pair, found, seen.root)
    moments = apart(jax.vmap(Moments.of), columns, moved, seen.data)
    solved = apart(jax.vmap(Solved.of), moments)
    chi2 = 2 * apart(jax.vmap(square), columns, solved.amplitude, seen.data)
    left = apart(jax.vmap(Projected.of), columns, moved, seen.data, moments.side, solved.parts)
    errors = jax.vmap(functools.partial(propagated, places), (0, 0, 0, None))
    variance = apart(errors, moments, left, solved, covariance)
    used = jnp.sum(jax.vmap(weighted)(seen.root), axis=1)
    lost = (chi2 - jax.vmap(squares)(seen.data)) / 2
    # an elimination makes finite rubbish of a NaN, so the spectra are looked at, not what comes of them
    finite = jnp.all(jnp.isfinite(columns), axis=(0, 1, 2)) & jnp.all(jnp.isfinite(moved), axis=(0, 1, 2))
    told = (used >= columns.shape[2]) & finite[None]
    amplitude, error = (jnp.where(told[:, None, None], x, jnp.nan) for x in (solved.amplitude, jnp.sqrt(variance)))
    count = jnp.broadcast_to(jnp.where(told, used * sizes[:, None], 0), chi2.shape).astype(chi2.dtype)
    chi2, lost = (jnp.where(finite[None], x, jnp.nan) for x in (chi2, lost))
    chi2, lost, count = (functools.reduce(jnp.add, x) for x in (chi2, lost, count))
    return ComponentMaps(amplitude, error, chi2, lost, count, jnp.broadcast_to(finite, chi2.shape))


def propagated(
    places: Derivatives, moments: Moments, projected: Projected, solved: Solved, covariance: Float[Array, "p p k"]
) -> Float[Array, "c m k"]:
    """Propagate errors to the amplitudes: their variances are diag (A^T N^-1 A)^-1 + (ds/dB) Sigma (ds/dB)^T.

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
    if len(moved) > _MANY:
        # with gains of many channels the pairs are hundreds, which written out take minutes to compile
        slopes, known = jnp.stack(list(moved.values())), covariance[jnp.array(list(moved))][:, jnp.array(list(moved))]
        total = variance + jnp.einsum("icmk,ijk,jcmk->cmk", slopes, known, slopes)
        return jnp.where(jnp.isnan(total), jnp.inf, total)
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
