"""separate(): from maps to components, spectra and errors."""

from collections.abc import Mapping, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.tree_util as jtu
import numpy as np
from jaxtyping import Array

from ..core._parameter import free_spec, leaf_names, match
from ..fitting._program import call
from ..fitting._solver.gauss_newton import GaussNewton
from ._bandpass import as_frequencies, channel_count
from ._errors import propagated
from ._instrument import Instrument, check_units
from ._likelihood import Maps, Sky, project
from ._mixing import MixingMatrix
from ._noise import UNSEEN, alike, roots, weighted
from ._patches import Cells, Where, lay_out
from ._separation import Separation
from ._spatial import Fits, cell_sky, fit_sky

_STOKES = {1: "I", 2: "QU", 3: "IQU"}


def separate(
    mixing: MixingMatrix,
    instrument: Any,
    maps: Any,
    *,
    free: Sequence[str] | None = None,
    patches: Mapping[str, Where] | Where = 0,
    inv_n: Any = None,
    mask: Any = None,
    bounds: Mapping[str, Any] | None = None,
    priors: Mapping[str, Any] | None = None,
    units: str = "uK_CMB",
    nest: bool = False,
    marginal: bool = False,
    solver: Any = GaussNewton(),
    tolerance: float = 1e-6,
    max_steps: int = 100,
) -> Separation:
    """Fit spectral parameters by the profile likelihood and separate the components.

    Cells of pixels that share no parameter are fitted by themselves, all in one program. Works under `jax.jit` and
    `jax.vmap` over maps and noise, for a mask that does not vary.

    **Arguments:**

    - `mixing`: components, whose parameters are where the fit starts.
    - `instrument`: an `Instrument`, or frequencies in GHz, or `Bands`.
    - `maps`: (f, s, pixel) for s = 1 (I), 2 (QU) or 3 (IQU), or (f, pixel); UNSEEN masks a pixel. Pixels are a whole
      HEALPix sphere in RING order (`nest=True` for NESTED) where parameters have an nside, else anything.
    - `free`: names or globs of the parameters to fit; `None` for all of them, `()` for none.
    - `patches`: where they vary: an nside (0: one value for all pixels) or an integer for each pixel, for all
      parameters or by name; 0 for those not named.
    - `inv_n`: inverse variances (f,), (f, s), (f, s, pixel) or inverse covariances (f, f), (s, f, f), (s, f, f, pixel),
      in 1/units^2; zeros mask channels. `None` takes the instrument's depths.
    - `mask`: (pixel,), True = used. `bounds`, `priors`: as in `jaxsci.fit`. `units`: of the maps.
    - `marginal`: integrate amplitudes out instead of maximising over them.
    - `solver`: for parameters that are coupled; `tolerance`: in standard errors, for those that are not.

    **Returns:** a `Separation`. Look at `.success`: no member of it raises.

    **Raises:** `ValueError` for wrong names, shapes, units, resolutions, and for NaN where there is weight.
    """
    nu = as_frequencies(instrument.nu if isinstance(instrument, Instrument) else instrument)
    check_units(mixing, units)
    data = _as_maps(maps, channel_count(nu))
    f, s, npix = data.shape
    names = match(mixing, ["*"] if free is None else free, "the mixing matrix") if free != () else []
    chosen = tuple(name for name, _ in leaf_names(mixing, names))
    found = roots(_depths(instrument, s, npix, units) if inv_n is None else inv_n, f, s, npix)
    used = _used(data, found, mask, len(mixing.columns))
    single = any(root.shape[-1] != 1 for root in found)
    cells = lay_out(chosen, patches, used, nest=nest, single=single)
    if not len(cells.pixel):
        raise ValueError("no pixel is left: every one is masked, UNSEEN, or has fewer channels than components")
    sets = alike(found)
    observed = [data[:, np.array(members)][:, :, cells.pixel] for members in sets]
    whiteners = [r if r.shape[-1] == 1 else r[..., cells.pixel] for r in (found[members[0]] for members in sets)]
    how = {"bounds": bounds, "priors": priors, "solver": solver, "tolerance": tolerance, "max_steps": max_steps}
    sky = cell_sky(nu, observed, whiteners, cells, marginal) if chosen else None
    fits = None if sky is None else fit_sky(mixing, sky, cells, chosen, **how)
    pixels = Sky(nu, [Maps.make(x, r) for x, r in zip(observed, whiteners, strict=True)], _index(cells))
    return _answer(mixing, pixels, cells, fits, (chosen, tuple(map(tuple, sets)), s, npix, units))


def _as_maps(maps: Any, f: int) -> Array:
    data = jnp.asarray(maps, float)
    data = data[:, None] if data.ndim == 2 else data
    if data.ndim != 3 or data.shape[0] != f or data.shape[1] not in _STOKES:
        raise ValueError(
            f"maps should have shape (f, s, pixel) with f = {f} channels and s = 1 (I), 2 (QU) or 3 (IQU), "
            f"but they have shape {jnp.shape(maps)}"
        )
    return data


def _depths(instrument: Any, s: int, npix: int, units: str) -> Array:
    if not isinstance(instrument, Instrument):
        raise ValueError("give the inverse noise inv_n, or an Instrument with depths")
    sigma = instrument.sigma(npix, _STOKES[s], units)
    return jnp.where(jnp.isnan(sigma), 0, 1 / sigma**2)


def _used(data: Array, found: Sequence[Array], mask: Any, columns: int) -> np.ndarray:
    """Pixels with data; a NaN where there is weight is an error."""
    npix = data.shape[2]
    used = np.ones(npix, bool) if mask is None else np.asarray(mask)
    if used.shape != (npix,) or used.dtype != bool:
        raise ValueError(f"mask should be bool[{npix}] (True = used), but it is {used.dtype}{list(used.shape)}")
    for stokes, root in enumerate(found):
        if isinstance(root, jax.core.Tracer):
            continue
        weight = np.broadcast_to(np.asarray(weighted(root)), (data.shape[0], npix))
        used = used & (np.sum(weight, axis=0) >= columns)
        if isinstance(data, jax.core.Tracer):
            continue
        values = np.asarray(data[:, stokes])
        used = used & ~np.any((values <= 0.99 * UNSEEN) & weight, axis=0)
        bad = used & np.any(~np.isfinite(values) & weight, axis=0)
        if bad.any():
            raise ValueError(
                f"the maps are not finite in {bad.sum()} pixels (the first is {np.flatnonzero(bad)[0]}) where there is "
                "weight: set them to UNSEEN, mask them, or give them no weight"
            )
    return used


def _index(cells: Cells) -> dict[str, Array]:
    return {name: jnp.asarray(inside) for name, inside in cells.element.items()}


def _maps_of(model: MixingMatrix, pixels: Sky, covariance: Array | None, free: tuple[str, ...]) -> Any:
    """Of each set of Stokes parameters (amplitudes, errors (c, t, pixel), chi2 (pixel,), -d^T N^-1 A s / 2)."""
    values, moved = pixels.spectra(model, free)
    out = []
    for maps in pixels.maps:
        p = project(maps, values)
        chi2 = jnp.sum(p.residual**2, (0, 1))
        variance = propagated(maps, p, moved, covariance)
        out.append((p.amplitude, jnp.sqrt(variance), chi2, (jnp.sum(chi2) - jnp.sum(maps.data**2)) / 2))
    return out


def _answer(mixing: MixingMatrix, pixels: Sky, cells: Cells, fits: Fits | None, about: Any) -> Separation:
    free, sets, s, npix, units = about
    model, k = mixing, len(cells.first)
    if fits is None:
        empty, zero = jnp.zeros((0, 0, k)), jnp.zeros(0, jnp.int32)
        fits = Fits({}, {}, {}, empty, zero, zero, jnp.zeros(0))
    else:
        moving, rest = eqx.partition(mixing, free_spec(mixing, free))
        leaves = [fits.values[name] for name in free]
        model = eqx.combine(jtu.tree_unflatten(jtu.tree_structure(moving), leaves), rest)
    covariance = fits.covariance[:, :, cells.cell] if free else None
    parts = call(_maps_of, (model, pixels, covariance), (free,))
    order = np.argsort([member for members in sets for member in members])
    amplitudes, errors = (jnp.concatenate([part[i] for part in parts], axis=1)[:, order] for i in (0, 1))
    used = [jnp.broadcast_to(_channels(m), (*m.data.shape[::2],)).sum() * m.data.shape[1] for m in pixels.maps]

    def whole(x: Array, fill: Any) -> Array:
        return jnp.full((*x.shape[:-1], npix), fill, x.dtype).at[..., cells.pixel].set(x)

    return Separation(
        model=model,
        values=fits.values,
        std=fits.std,
        at_bound=fits.at_bound,
        index={name: whole(inside, -1) for name, inside in _index(cells).items()},
        amplitudes=whole(amplitudes, jnp.nan),
        errors=whole(errors, jnp.nan),
        chi2=whole(sum(part[2] for part in parts), jnp.nan),
        covariance=fits.covariance,
        cell=whole(jnp.asarray(cells.cell), -1),
        result=fits.result,
        steps=fits.steps,
        cost=jnp.sum(fits.cost),
        minus_log_like=jnp.sum(jnp.stack([part[3] for part in parts])),
        num_data=jnp.sum(jnp.stack(used)),
        free=free,
        components=mixing.columns,
        stokes=_STOKES[s],
        units=units,
    )


def _channels(maps: Maps) -> Array:
    return weighted(maps.root)
