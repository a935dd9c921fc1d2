"""From maps to components, spectra and errors: `separate`, and the doors that users of fgbuster know.

`separate` checks what it was told (`Settings`), what it is to look at (`Sky`), and where parameters vary (`Cells`). It
fits the spectra, solves for the component maps, and answers with a `Separation`. The harmonic fits, the forecasts
and the blocks from disk go the same way with maps of their own.
"""

from collections.abc import Mapping, Sequence
from typing import Unpack

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.tree_util as jtu
import numpy as np
from jaxtyping import Array

from ..core import free_spec, match, traced
from ..fitting import Solver, as_names
from ..parallel import Placement
from ._fit.amplitudes import ComponentMaps, component_maps
from ._fit.fit import fit_sky
from ._fit.fits import Fits, spoilt, unfitted
from ._fit.starts import fit_from_starts, start_points
from ._fixed import FixedMaps, check_held, check_sizes, in_memory, not_fixed
from ._given import ArrayModule, Given, Values, plain
from ._instrument import Channels
from ._mixing import MixingMatrix, at_lanes, check_channels, spectral
from ._patches import Cells, Where, lay_out
from ._separation import Separation
from ._settings import SOLVER, Bounds, MaskOptions, Priors, Settings, SkyOptions, Starts
from ._sky import STOKES, Sky


def separate(
    mixing: MixingMatrix,
    instrument: Channels,
    maps: Given,
    *,
    free: Sequence[str] | None = None,
    patches: Mapping[str, Where] | Where = 0,
    fixed: FixedMaps | None = None,
    inv_n: Given | None = None,
    mask: Given | None = None,
    bounds: Bounds | None = None,
    priors: Priors | None = None,
    units: str = "uK_CMB",
    nest: bool = False,
    marginal: bool = False,
    starts: Starts | None = None,
    solver: Solver = SOLVER,
    tolerance: float = 1e-6,
    max_steps: int = 100,
    mesh: jax.sharding.Mesh | None = None,
) -> Separation:
    """Fit spectral parameters by the profile likelihood and separate the components.

    Cells of pixels that share no parameter are fitted by themselves, all in one program. Works under `jax.jit` and
    `jax.vmap` over maps and noise, for a mask that does not vary.

    **Arguments:**

    - `mixing`: components, whose parameters are where the fit starts; with a `Calibration`, gains and angles too.
    - `instrument`: an `Instrument`, or frequencies in GHz, or `Bands`.
    - `maps`: (f, s, pixel) for s = 1 (I), 2 (QU) or 3 (IQU), or (f, pixel); UNSEEN in a channel that has weight masks a
      pixel, and so does the mask of a masked array. Pixels are a whole HEALPix sphere in RING order (`nest=True` for
      NESTED) where parameters have an nside, else anything. Quantities of astropy are converted to `units`; a plain K
      is one of the kind that `units` names.
    - `free`: names or globs of the parameters to fit; `None` for all that are not `fixed` (if there are any), `()` for
      none.
    - `patches`: where they vary: an nside (0: one value for all pixels), an integer for each pixel, or `SoftPatches`,
      for all spectral parameters or by name; 0 for those not named.
    - `fixed`: by name, (pixel,) values of parameters that vary over the sky and are not fitted. Declared bounds hold
      for them too, and for parameters that are neither fitted nor fixed.
    - `inv_n`: inverse variances (f,), (f, s), (f, s, pixel) or inverse covariances (f, f), (s, f, f), (s, f, f, pixel),
      in 1/units^2; zeros mask channels. A Stokes parameter with fewer channels than components in a pixel is NaN there,
      and the others are kept. `None` takes the instrument's depths, for maps of a whole sphere.
    - `mask`: (pixel,), True = used. `bounds`, `priors`: as in `jaxsci.fit`. `units`: of the maps.
    - `marginal`: integrate amplitudes out instead of maximising over them.
    - `starts`: fit from these too, and keep for each independent fit the end of lowest cost, where the likelihood
      has several maxima: how many points to spread over the bounds of the free spectral parameters, or by name the
      values of each start, `{"dust.temp": (10.0, 40.0)}`. Other minima that are as good become `.alternatives`.
    - `solver`: for parameters that are coupled; `tolerance`: in standard errors, for those that are not.
    - `mesh`: devices that take cells and pixels in turn, such as `jaxsci.mesh()`; `None` for the default device. Bits
      do not depend on them. Cells that share parameters are fitted together, by the default device.

    **Returns:** a `Separation`. Look at `.success`: no member of it raises. Where the mixing matrix is not finite, as
    with a NaN among the spectra, the result is `nonfinite_start` and the maps are NaN.

    **Raises:** `ValueError` for wrong names, shapes, units, resolutions, for values outside of declared bounds, complex
    numbers, and NaN where there is weight.
    """
    others = not_fixed(mixing, fixed) if free is None else free
    settings = Settings.of(
        mixing, instrument, others, units, nest, marginal, bounds, priors, solver, tolerance, max_steps
    )
    settings = settings._replace(placement=Placement.of(mesh))
    columns = len(mixing.columns)
    sky = Sky.of(instrument, maps, inv_n, mask, units=units, columns=columns, strict=False)
    return separate_sky(settings, sky, patches, fixed, starts)


def separate_sky(
    settings: Settings,
    sky: Sky,
    patches: Mapping[str, Where] | Where = 0,
    fixed: FixedMaps | None = None,
    starts: Starts | None = None,
) -> Separation:
    """Separate maps that have been checked. `patches`, `fixed`, `starts`: as `separate` has them.

    **Raises:** `ValueError` for pixels that are not finite where there is weight, and what these two are wrong in.
    """
    check_sizes(fixed or {}, settings.free, sky.shape[2])
    sky, here = sky.hiding(fixed or {}).sound(), in_memory(settings.mixing, fixed or {})
    # asked once, for all that follows: the host's loops, or one program
    settings = settings._replace(traced=traced((settings, sky, here)))
    if settings.traced and settings.placement.devices:
        raise ValueError("a separation within a JAX transformation is part of a larger program: leave mesh= out")
    calibration = settings.mixing.calibration
    if calibration is not None:
        check_channels(calibration, sky.shape[0])
        patches = patches if isinstance(patches, Mapping) else dict.fromkeys(spectral(settings.free), patches)
        sky = sky.joined(len(settings.mixing.columns)) if calibration.turns and sky.shape[1] > 1 else sky
    cells = lay_out(settings.free, patches, sky.used, nest=settings.nest, single=sky.by_pixel, fixed=here)
    known = None
    if starts is not None and settings.free:
        known = fit_from_starts(settings, sky, cells, start_points(settings, starts))
    fits, component = solve(settings, sky, cells, known=known)
    return _answer(settings._replace(mixing=at_lanes(settings.mixing, here)), sky, cells, fits, component)


def solve(
    settings: Settings, sky: Sky, cells: Cells, lanes: int | None = None, known: Fits | None = None
) -> tuple[Fits, ComponentMaps]:
    """Fit the spectra of these cells, and solve for the component maps of their pixels.

    **Arguments:** `lanes`: of a call of the host's programs; by default as the number of cells asks for. `known`:
    spectra that need no fit.

    **Raises:** `ValueError` where no pixel is left, and for values held outside of their bounds.
    """
    within = check_held(settings.mixing, settings.free, cells)
    if not len(cells.pixel):
        raise ValueError("no pixel is left: every one is masked, UNSEEN, or has fewer channels than components")
    if known is not None:
        fits = known
    elif settings.free:
        fits = fit_sky(settings, sky, cells, lanes)
    else:
        fits = unfitted(len(cells.first))
    component = component_maps(settings, sky, cells, fits, lanes)
    return spoilt(settings, fits, cells, component.finite & within), component


def _answer(settings: Settings, sky: Sky, cells: Cells, fits: Fits, component: ComponentMaps) -> Separation:
    """Spread what was found over all pixels of the maps."""
    mixing, free, model = settings.mixing, settings.free, settings.mixing
    s, npix = component.amplitude.shape[1], sky.shape[2]
    if free:
        moving, rest = eqx.partition(mixing, free_spec(mixing, free))
        leaves = [jnp.asarray(fits.values[name]) for name in free]
        model = eqx.combine(jtu.tree_unflatten(jtu.tree_structure(moving), leaves), rest)

    result, steps, group = fits.result, fits.steps, cells.group
    if not free and not settings.traced:
        lost = result != 0
        result, steps, group = result[lost], steps[lost], np.where(lost, np.cumsum(lost) - 1, -1)[group]

    def whole(x: Values, fill: float | int) -> Array:
        if settings.traced:
            return jnp.full((*x.shape[:-1], npix), fill, x.dtype).at[..., cells.pixel].set(x)
        out = np.full((*x.shape[:-1], npix), fill, x.dtype)
        out[..., cells.pixel] = x
        return jnp.asarray(out)

    def arrays(named: Mapping[str, Values]) -> dict[str, Array]:
        return {name: jnp.asarray(x) for name, x in named.items()}

    return Separation(
        model=model,
        values=arrays(fits.values),
        std=arrays(fits.std),
        at_bound=arrays(fits.at_bound),
        alternatives=arrays(fits.alternatives),
        index={name: whole(inside, -1) for name, inside in cells.element.items()},
        weights={name: whole(share, 0.0) for name, share in cells.share.items()},
        amplitudes=whole(component.amplitude, np.nan),
        errors=whole(component.error, np.nan),
        chi2=whole(component.chi2, np.nan),
        covariance=jnp.asarray(fits.covariance),
        cell=whole(cells.cell, -1),
        group=whole(group[cells.cell], -1),
        result=jnp.asarray(result),
        steps=jnp.asarray(steps),
        cost=jnp.nansum(jnp.asarray(fits.cost)),
        minus_log_like=jnp.nansum(jnp.asarray(component.minus_log_like)),
        num_data=jnp.asarray(component.num_data.sum().astype(int)),
        free=free,
        components=mixing.columns,
        stokes=STOKES[s],
        units=settings.units,
        amplitude_units=mixing.amplitude_units(settings.units),
    )


def basic_comp_sep(
    mixing: MixingMatrix, instrument: Channels, data: Given, nside: int = 0, **choices: Unpack[SkyOptions]
) -> Separation:
    """Separate maps with all parameters in patches of one nside, and the noise from the instrument's depths.

    **Arguments:** `data`: (f, s, pixel), as the `maps` of `separate`. `nside`: of the patches; 0 for one value for the
    whole sky. `choices`: as in `separate`.

    **Raises:** `ValueError` as `separate`.
    """
    return separate(mixing, instrument, data, patches=nside, **choices)


def weighted_comp_sep(
    mixing: MixingMatrix, instrument: Channels, data: Given, cov: Given, nside: int = 0, **choices: Unpack[MaskOptions]
) -> Separation:
    """Separate maps as `basic_comp_sep` does, with the variance of every pixel.

    **Arguments:** `cov`: variances in the shape of the data, in units^2; an infinite one, UNSEEN, or one behind a mask
    takes the weight away. All others as in `basic_comp_sep`.

    **Raises:** `ValueError` as `separate`.
    """
    given = plain(cov, "cov", choices.get("units", "uK_CMB"), fill=np.inf, power=2)
    xp: ArrayModule = jnp if isinstance(given, jax.Array) else np
    variance = xp.asarray(given, float)
    variance = variance[:, None] if variance.ndim == 2 else variance
    some = (variance > 0) & xp.isfinite(variance)
    weights = xp.where(some, 1 / xp.where(some, variance, 1), 0)
    return separate(mixing, instrument, data, patches=nside, inv_n=weights, **choices)


def multi_res_comp_sep(
    mixing: MixingMatrix, instrument: Channels, data: Given, nsides: Sequence[int], **choices: Unpack[SkyOptions]
) -> Separation:
    """Separate maps with a resolution for each parameter.

    **Arguments:** `nsides`: of the patches of each parameter that is fitted, in the order of `mixing.parameters`; 0 for
    one value for the whole sky. All others as in `basic_comp_sep`.

    **Raises:** `ValueError` for another number of them, and as `separate`.
    """
    return separate(mixing, instrument, data, patches=_each(mixing, nsides, choices), **choices)


def adaptive_comp_sep(
    mixing: MixingMatrix, instrument: Channels, data: Given, patch_ids: Sequence[Where], **choices: Unpack[SkyOptions]
) -> Separation:
    """Separate maps with patches of any form for each parameter, such as `kmeans` makes.

    **Arguments:** `patch_ids`: for each parameter that is fitted, in the order of `mixing.parameters`, the patch number
    of every pixel, or `SoftPatches`. All others as in `basic_comp_sep`.

    **Raises:** `ValueError` for another number of them, and as `separate`.
    """
    places = _each(mixing, patch_ids, choices)
    return separate(mixing, instrument, data, patches=places, **choices)


def _each(mixing: MixingMatrix, places: Sequence[Where], choices: SkyOptions) -> dict[str, Where]:
    """The places by the names of the parameters that are fitted, in the order of the mixing matrix."""
    free = choices.get("free")
    fitted = (
        not_fixed(mixing, choices.get("fixed")) if free is None else match(mixing, as_names(free), "the mixing matrix")
    )
    names = [name for name in mixing.parameters if fitted is None or name in fitted]
    if len(places) != len(names):
        raise ValueError(f"there are {len(places)} places for {len(names)} parameters: {', '.join(names)}")
    return dict(zip(names, places, strict=True))
