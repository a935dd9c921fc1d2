"""separate(): from maps to components, spectra and errors."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.tree_util as jtu
import numpy as np
from jaxtyping import Array

from ..core import free_spec, leaf_names, match
from ..fitting import RESULTS, GaussNewton, as_names, compiled
from ._fit.amplitudes import ComponentMaps, component_maps
from ._fit.fit import Fits, fit_sky
from ._fit.host_batches import Observed, Slabs
from ._fixed import at_lanes, check_held, checked, in_memory, not_fixed, on_host
from ._instrument import Instrument, as_frequencies, channel_count
from ._mixing import MixingMatrix, check_units
from ._noise import UNSEEN, alike, enough, reaching, roots, weighted
from ._patches import Cells, Where, lay_out
from ._separation import Separation
from ._units import hidden, plain

SOLVER = GaussNewton(fine=1e-10)
"""Of coupled parameters: some 1e-9 of a standard error is near enough."""

STOKES = {1: "I", 2: "QU", 3: "IQU"}


def separate(
    mixing: MixingMatrix,
    instrument: Any,
    maps: Any,
    *,
    free: Sequence[str] | None = None,
    patches: Mapping[str, Where] | Where = 0,
    fixed: Mapping[str, Any] | None = None,
    inv_n: Any = None,
    mask: Any = None,
    bounds: Mapping[str, Any] | None = None,
    priors: Mapping[str, Any] | None = None,
    units: str = "uK_CMB",
    nest: bool = False,
    marginal: bool = False,
    solver: Any = SOLVER,
    tolerance: float = 1e-6,
    max_steps: int = 100,
) -> Separation:
    """Fit spectral parameters by the profile likelihood and separate the components.

    Cells of pixels that share no parameter are fitted by themselves, all in one program. Works under `jax.jit` and
    `jax.vmap` over maps and noise, for a mask that does not vary.

    **Arguments:**

    - `mixing`: components, whose parameters are where the fit starts.
    - `instrument`: an `Instrument`, or frequencies in GHz, or `Bands`.
    - `maps`: (f, s, pixel) for s = 1 (I), 2 (QU) or 3 (IQU), or (f, pixel); UNSEEN in a channel that has weight masks a
      pixel, and so does the mask of a masked array. Pixels are a whole HEALPix sphere in RING order (`nest=True` for
      NESTED) where parameters have an nside, else anything. Quantities of astropy are converted to `units`; a plain K
      is one of the kind that `units` names.
    - `free`: names or globs of the parameters to fit; `None` for all that are not `fixed` (if there are any), `()` for
      none.
    - `patches`: where they vary: an nside (0: one value for all pixels), an integer for each pixel, or `SoftPatches`,
      for all parameters or by name; 0 for those not named.
    - `fixed`: by name, (pixel,) values of parameters that vary over the sky and are not fitted. Declared bounds hold
      for them too, and for parameters that are neither fitted nor fixed.
    - `inv_n`: inverse variances (f,), (f, s), (f, s, pixel) or inverse covariances (f, f), (s, f, f), (s, f, f, pixel),
      in 1/units^2; zeros mask channels. A Stokes parameter with fewer channels than components in a pixel is NaN there,
      and the others are kept. `None` takes the instrument's depths, for maps of a whole sphere.
    - `mask`: (pixel,), True = used. `bounds`, `priors`: as in `jaxsci.fit`. `units`: of the maps.
    - `marginal`: integrate amplitudes out instead of maximising over them.
    - `solver`: for parameters that are coupled; `tolerance`: in standard errors, for those that are not.

    **Returns:** a `Separation`. Look at `.success`: no member of it raises. Where the mixing matrix is not finite, as
    with a NaN among the spectra, the result is `nonfinite_start` and the maps are NaN.

    **Raises:** `ValueError` for wrong names, shapes, units, resolutions, for values outside of declared bounds, complex
    numbers, and NaN where there is weight.
    """
    how = {"bounds": bounds, "priors": priors, "solver": solver, "tolerance": tolerance, "max_steps": max_steps}
    others = not_fixed(mixing, fixed)
    task = Task.of(mixing, instrument, others if free is None else free, units, nest, marginal, **how)
    data = as_maps(maps, channel_count(task.nu), units)
    f, s, npix = data.shape
    found = task.depths(instrument, s, npix) if inv_n is None else roots(inv_n, f, s, npix, units)
    fixed = checked(fixed, task.free, npix)
    used, bad, found = usable(data, found, shown(mask, fixed, npix), len(mixing.columns))
    if bad.any():
        raise ValueError(
            f"the maps are not finite in {bad.sum()} pixels (the first is {np.flatnonzero(bad)[0]}) where there is "
            "weight: set them to UNSEEN, mask them, or give them no weight"
        )
    maps_of = in_memory(mixing, fixed)
    solved = solve(task, data, found, used, patches, fixed=maps_of)
    return _answer(task._replace(mixing=at_lanes(task.mixing, maps_of)), solved, (s, npix))


class Task(NamedTuple):
    """What is the same for every part of a sky: a model, which of its parameters are fitted, and how."""

    mixing: MixingMatrix
    nu: Any
    free: tuple[str, ...]
    units: str
    nest: bool
    marginal: bool
    how: dict[str, Any]

    @staticmethod
    def of(
        mixing: MixingMatrix,
        instrument: Any,
        free: Sequence[str] | None = None,
        units: str = "uK_CMB",
        nest: bool = False,
        marginal: bool = False,
        bounds: Mapping[str, Any] | None = None,
        priors: Mapping[str, Any] | None = None,
        solver: Any = SOLVER,
        tolerance: float = 1e-6,
        max_steps: int = 100,
    ) -> "Task":
        """From the arguments of `separate`."""
        nu = as_frequencies(instrument.nu if isinstance(instrument, Instrument) else instrument)
        check_units(mixing, units)
        names = list(mixing.parameters) if free is None else match(mixing, as_names(free), "the mixing matrix")
        chosen = tuple(name for name, _ in leaf_names(mixing, names))
        how = {"bounds": bounds, "priors": priors, "solver": solver, "tolerance": tolerance, "max_steps": max_steps}
        return Task(mixing, nu, chosen, units, nest, marginal, how)

    def depths(self, instrument: Any, s: int, npix: int) -> list[Any]:
        """The roots of the inverse noise that the instrument's depths mean for pixels of this size."""
        if not isinstance(instrument, Instrument):
            raise ValueError("give the inverse noise inv_n, or an Instrument with depths")
        if npix != 12 * round((npix / 12) ** 0.5) ** 2:
            raise ValueError(
                f"depths are noise for an area, and {npix} pixels make no whole sphere that tells theirs: give inv_n, "
                "or the whole sphere with a mask"
            )
        return [on_host(root) for root in compiled(_depths, (instrument,), (s, npix, self.units))]


class Found(NamedTuple):
    """The fits of cells, and the component maps of the pixels in use."""

    cells: Cells
    fits: Fits
    component: ComponentMaps


def solve(
    task: Task,
    data: Any,
    found: Sequence[Any],
    used: np.ndarray,
    patches: Any,
    slabs: Slabs | None = None,
    fixed: Mapping[str, Any] | None = None,
    known: Fits | None = None,
) -> Found:
    """Fit the spectra of these pixels and separate them.

    **Arguments:** `data`: (f, s, pixel). `found`: the root of the noise of each Stokes parameter. `used`: (pixel,).
    `slabs`: the shape of the programs; by default as the number of cells asks for. `fixed`: as `separate` has it.
    `known`: spectra that need no fit.
    """
    single = any(root.shape[-1] != 1 for root in found)
    cells = lay_out(task.free, patches, used, nest=task.nest, single=single, fixed=fixed)
    within = check_held(task.mixing, task.free, cells)
    if not len(cells.pixel):
        raise ValueError("no pixel is left: every one is masked, UNSEEN, or has fewer channels than components")
    sets, columns = tuple(map(tuple, alike(list(found)))), cells.columns()
    pixels = np.where(columns < 0, -1, cells.pixel[columns])
    observed = Observed(data, sets, tuple(found[members[0]] for members in sets), pixels)
    if known is not None:
        fits = known
    elif task.free:
        common = task.mixing, task.nu, observed, cells, task.free
        fits = fit_sky(*common, marginal=task.marginal, slabs=slabs, **task.how)
    else:
        fits = _nothing(len(cells.first))
    every, fitted = observed.alone(cells.pixel), (cells.means(fits.values), fits.covariance)
    component = component_maps(task.mixing, task.nu, every, cells, task.free, fitted, slabs)
    return Found(cells, _spoilt(fits, cells, component.finite & within), component)


def _nothing(k: int) -> Fits:
    """Of no parameters: every cell is by itself."""
    zero = np.zeros(k, np.int32)  # as the codes of RESULTS are
    return Fits({}, {}, {}, np.zeros((0, 0, k)), zero, zero, np.zeros(k))


def _spoilt(fits: Fits, cells: Cells, finite: Any) -> Fits:
    """The fits with those marked as failed, and without errors, in which the spectra of a pixel are not finite."""
    traced = isinstance(finite, jax.core.Tracer)
    if not traced and finite.all():
        return fits
    xp: Any = jnp if traced else np
    code: Any = RESULTS
    groups = cells.group[cells.cell]
    some = (
        np.bincount(groups, ~finite)
        if not traced
        else jnp.zeros(len(fits.result), int).at[groups].add((~finite).astype(int))
    )
    bad = some > 0
    told = (fits.result == code.nonfinite_data._value) | (fits.result == code.nonfinite_end._value)
    result = xp.where(bad & ~told, code.nonfinite_start._value, fits.result)
    std = {}
    for name, inside in cells.element.items():
        owner = np.zeros(cells.sizes[name], np.int64)
        owner[inside[..., cells.first]] = cells.group
        std[name] = xp.where(bad[owner], xp.nan, fits.std[name])
    covariance = xp.where(bad[cells.group], xp.nan, fits.covariance)
    cost = xp.where(bad, xp.nan, fits.cost)
    return fits._replace(result=result, std=std, covariance=covariance, cost=cost)


def as_maps(maps: Any, f: int, units: str) -> Any:
    """(f, s, pixel) in double precision.

    **Raises:** `ValueError` for another shape or unit, and for complex numbers.
    """
    if np.iscomplexobj(maps):
        raise ValueError("maps should be real: coefficients are for jaxsci.compsep.harmonic_comp_sep, which takes maps")
    data: Any = plain(maps, "maps", units, fill=UNSEEN)
    data = data if isinstance(data, jax.core.Tracer) else np.asarray(data)
    data = data.astype(float) if data.dtype != float else data
    data = data[:, None] if data.ndim == 2 else data
    if data.ndim != 3 or data.shape[0] != f or data.shape[1] not in STOKES:
        raise ValueError(
            f"maps should have shape (f, s, pixel) with f = {f} channels and s = 1 (I), 2 (QU) or 3 (IQU), "
            f"but they have shape {np.shape(maps)}"
        )
    return data


def _depths(instrument: Instrument, s: int, npix: int, units: str) -> list[Array]:
    sigma = instrument.sigma(npix, STOKES[s], units)
    return [jnp.where(jnp.isnan(column), 0, 1 / column)[:, None] for column in sigma.T]


class Usable(NamedTuple):
    """Which pixels have data; which would have some, but are not finite where there is weight.

    `root`: of the noise of each Stokes parameter, 0 where it has fewer channels than the mixing matrix has columns.
    """

    used: np.ndarray
    bad: np.ndarray
    root: list[Any]


def usable(data: Any, found: Sequence[Any], mask: Any, columns: int) -> Usable:
    """What there is to fit: a pixel is used where any Stokes parameter has as many channels as columns."""
    npix = data.shape[2]
    used = np.ones(npix, bool) if mask is None else np.asarray(mask)
    if used.shape != (npix,) or used.dtype != bool:
        raise ValueError(f"mask should be bool[{npix}] (True = used), but it is {used.dtype}{list(used.shape)}")
    some, bad = np.zeros(npix, bool), np.zeros(npix, bool)
    kept: list[Any] = []
    for stokes, root in enumerate(found):
        if isinstance(root, jax.core.Tracer):
            some[:] = True
            kept.append(root)
            continue
        some |= np.asarray(enough(root, columns))
        kept.append(reaching(root, columns))
        if isinstance(data, jax.core.Tracer):
            continue
        values, weight = data[:, stokes], np.asarray(weighted(kept[-1]))
        used = used & ~np.any((values <= 0.99 * UNSEEN) & weight, axis=0)
        bad |= used & np.any(~np.isfinite(values) & weight, axis=0)
    used = used & some
    bad &= used
    return Usable(used & ~bad, bad, kept)


def shown(mask: Any, fixed: Mapping[str, Any], npix: int) -> Any:
    """The mask of `separate`, with the pixels that the masks of fixed parameters hide taken out."""
    mask = None if mask is None else plain(mask, "mask", fill=False)
    for values in fixed.values():
        behind = hidden(values)
        if behind is not None:
            mask = ~behind if mask is None else mask & ~behind
    return mask


def _answer(task: Task, solved: Found, shape: tuple[int, int]) -> Separation:
    (cells, fits, component), (s, npix) = solved, shape
    mixing, free, model = task.mixing, task.free, task.mixing
    if free:
        moving, rest = eqx.partition(mixing, free_spec(mixing, free))
        leaves = [jnp.asarray(fits.values[name]) for name in free]
        model = eqx.combine(jtu.tree_unflatten(jtu.tree_structure(moving), leaves), rest)

    result, steps, group = fits.result, fits.steps, cells.group
    if not free and not isinstance(result, jax.core.Tracer):
        lost = result != 0
        result, steps, group = result[lost], steps[lost], np.where(lost, np.cumsum(lost) - 1, -1)[group]

    def whole(x: Any, fill: Any) -> Array:
        if isinstance(x, jax.core.Tracer):
            return jnp.full((*x.shape[:-1], npix), fill, x.dtype).at[..., cells.pixel].set(x)
        out = np.full((*x.shape[:-1], npix), fill, x.dtype)
        out[..., cells.pixel] = x
        return jnp.asarray(out)

    def arrays(named: Any) -> Any:
        return jtu.tree_map(jnp.asarray, named)

    return Separation(
        model=model,
        values=arrays(fits.values),
        std=arrays(fits.std),
        at_bound=arrays(fits.at_bound),
        index={name: whole(inside, -1) for name, inside in cells.element.items()},
        weights={name: whole(share, 0.0) for name, share in cells.share.items()},
        amplitudes=whole(component.amplitude, np.nan),
        errors=whole(component.error, np.nan),
        chi2=whole(component.chi2, np.nan),
        covariance=arrays(fits.covariance),
        cell=whole(cells.cell, -1),
        group=whole(group[cells.cell], -1),
        result=arrays(result),
        steps=arrays(steps),
        cost=jnp.nansum(jnp.asarray(fits.cost)),
        minus_log_like=jnp.nansum(jnp.asarray(component.minus_log_like)),
        num_data=arrays(component.num_data.sum().astype(int)),
        free=free,
        components=mixing.columns,
        stokes=STOKES[s],
        units=task.units,
        amplitude_units=mixing.amplitude_units(task.units),
    )


def basic_comp_sep(mixing: MixingMatrix, instrument: Any, data: Any, nside: int = 0, **choices: Any) -> Separation:
    """All parameters in patches of one nside (0: one value for the whole sky), the noise from the instrument's depths.

    **Arguments:** `data`: (f, s, pixel). `choices`: as in `separate`.
    """
    return separate(mixing, instrument, data, patches=nside, **choices)


def weighted_comp_sep(
    mixing: MixingMatrix, instrument: Any, data: Any, cov: Any, nside: int = 0, **choices: Any
) -> Separation:
    """As `basic_comp_sep`, with the variance of every pixel.

    **Arguments:** `cov`: variances in the shape of the data, in units^2; an infinite one, UNSEEN, or one behind a mask
    takes the weight away.
    """
    cov = plain(cov, "cov", choices.get("units", "uK_CMB"), fill=np.inf, power=2)
    xp: Any = jnp if isinstance(cov, jax.Array) else np
    cov = xp.asarray(cov, float)
    cov = cov[:, None] if cov.ndim == 2 else cov
    some = (cov > 0) & xp.isfinite(cov)
    weights = xp.where(some, 1 / xp.where(some, cov, 1), 0)
    return separate(mixing, instrument, data, patches=nside, inv_n=weights, **choices)


def multi_res_comp_sep(
    mixing: MixingMatrix, instrument: Any, data: Any, nsides: Sequence[int], **choices: Any
) -> Separation:
    """An nside for each parameter that is fitted, in the order of `mixing.parameters`."""
    return separate(mixing, instrument, data, patches=_each(mixing, nsides, **choices), **choices)


def adaptive_comp_sep(
    mixing: MixingMatrix, instrument: Any, data: Any, patch_ids: Sequence[Any], **choices: Any
) -> Separation:
    """Patch numbers of all pixels, or `SoftPatches`, for each parameter that is fitted, in their order."""
    places = _each(mixing, patch_ids, **choices)
    return separate(mixing, instrument, data, patches=places, **choices)


def _each(
    mixing: MixingMatrix, places: Sequence[Any], free: Sequence[str] | None = None, fixed: Any = None, **_: Any
) -> Mapping[str, Any]:
    fitted = not_fixed(mixing, fixed) if free is None else match(mixing, as_names(free), "the mixing matrix")
    names = [name for name in mixing.parameters if fitted is None or name in fitted]
    if len(places) != len(names):
        raise ValueError(f"there are {len(places)} places for {len(names)} parameters: {', '.join(names)}")
    return dict(zip(names, places, strict=True))
