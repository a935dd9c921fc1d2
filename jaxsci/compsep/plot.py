"""Pictures of a separation: each a function of a result, with an optional `ax`, which it returns.

Maps are drawn in Mollweide's projection, with the pixel that each dot of the image shows, so that no value is averaged.
A user calls these functions one by one; `panels` lists all that there is to see of a result, and the reports of the
command line draw that. matplotlib is imported inside the functions: `pip install 'jaxsci[plot]'`.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, TypedDict, Unpack

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.tree_util as jtu
import numpy as np
from jaxtyping import Array

from ..core import free_spec, leaf_names, parameters
from ..fitting import compiled
from ..plot import DATA, LINES, MODEL, _axes
from ._forecast import Forecast
from ._given import Given, plain
from ._healpix import nside_of, ring_to_nest
from ._instrument import Bands, Channels, Frequencies, frequencies_of
from ._mixing import MixingMatrix
from ._noise import UNSEEN
from ._separation import Separation

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.image import AxesImage

_WIDTH = 480  # of a map in points of its own; its height is half of that
_LETTERS = 17  # of numbers that have room below a bar of colours
_PULLS = 500  # from which a histogram has narrow bins
_FEW = 6  # channels that are marked on the axis, each by its frequency
_SIGNED, _PLAIN = "RdBu_r", "viridis"
_FLAT_VALUE, _FLAT_ERROR = 1e-3, 0.1
"""The least range of colours beside the size of what is shown: of a fitted parameter, and of a standard error."""
_TOLD = 0.02  # of the range of colours: a map within so much of it has one value


class MapOptions(TypedDict, total=False):
    """Keyword arguments of `plot_map` that the pictures of a separation hand on."""

    nest: bool
    signed: bool | None
    limits: tuple[float | int, float | int] | None
    width: int


def plot_map(
    values: Given,
    label: str = "",
    ax: "Axes | None" = None,
    *,
    nest: bool = False,
    signed: bool | None = None,
    limits: tuple[float | int, float | int] | None = None,
    width: int = _WIDTH,
) -> "Axes":
    """Draw a map of the sky, longitude 0 in the middle and rising to the left; pixels that are not finite stay empty.

    **Arguments:** `values`: (pixel,), RING unless `nest`; UNSEEN masks. `label`: of the colour bar. `ax`: a new figure
    by default. `signed`: colours about 0; by default where values have both signs. `limits`: of the colours; the 1st
    and 99th percentile by default, said by pointed ends of the bar. `width`: of the image in dots.

    **Returns:** the axes.

    **Raises:** `ValueError` for a number of pixels that is no HEALPix map.
    """
    ax = _axes(ax)
    sky = np.asarray(plain(values, "values"), float)
    sky = np.where(sky > 0.99 * UNSEEN, sky, np.nan)
    pixel, inside = _projected(nside_of(sky.size), nest, width)
    image = np.where(inside, sky[pixel], np.nan)
    seen = sky[np.isfinite(sky)]
    low, high = limits or (tuple(np.percentile(seen, [1, 99])) if seen.size else (0.0, 1.0))
    both = low < 0 < high if signed is None else signed
    if both:
        low, high = -max(-low, high), max(-low, high)
    flat = not high > low
    low, high = (low - 0.5, high + 0.5) if flat else (low, high)
    ends = {(0, 0): "neither", (1, 0): "min", (0, 1): "max", (1, 1): "both"}
    beyond = ends[bool((seen < low).any()), bool((seen > high).any())]
    colours: dict[str, Any] = {"cmap": _SIGNED if both else _PLAIN, "vmin": low, "vmax": high}
    picture = ax.imshow(image, extent=(-2, 2, -1, 1), origin="lower", interpolation="nearest", **colours)
    turn = np.linspace(0, 2 * np.pi, 361)
    ax.fill(2 * np.cos(turn), np.sin(turn), color="0.5", alpha=0.25, lw=0, zorder=0)
    ax.plot(2 * np.cos(turn), np.sin(turn), color="0.45", lw=0.6)
    ax.set_axis_off()
    ax.set_xlim(-2.03, 2.03)
    ax.set_ylim(-1.03, 1.03)
    _scale(ax, picture, label, beyond, seen)
    return ax


def _coloured(options: MapOptions, signed: bool) -> MapOptions:
    """The options, with these colours where they name none."""
    options.setdefault("signed", signed)
    return options


def _not_stretched(values: Given, options: MapOptions, least: float) -> MapOptions:
    """The options of a map without sign, whose colours span at least this part of its values where they name no limits.

    Else a map that is the same everywhere to a part in a thousand would look as if it varied as much as any other.
    """
    options = _coloured(options, False)
    seen = np.asarray(values)[np.isfinite(np.asarray(values))]
    if options.get("limits") is None and seen.size:
        low, high = np.percentile(seen, [1, 99])
        lack = least * max(abs(low), abs(high)) - (high - low)
        if lack > 0:
            options["limits"] = (float(low - lack / 2), float(high + lack / 2))
    return options


def _scale(ax: "Axes", picture: "AxesImage", label: str, beyond: str, seen: np.ndarray) -> None:
    """The bar of colours below a map, or what to know of one without any."""
    bar = ax.figure.colorbar(
        picture, ax=ax, orientation="horizontal", shrink=0.6, aspect=28, pad=0.04, extend=beyond, label=label
    )
    bar.outline.set_linewidth(0.4)  # type: ignore[operator]
    if not seen.size:
        ax.text(0, 0, "no finite value", ha="center", va="center")
        bar.set_ticks([])
        bar.solids.set_visible(False)  # type: ignore[union-attr]
        bar.outline.set_visible(False)  # type: ignore[operator]
        return
    bar.ax.locator_params(axis="x", nbins=3)
    bar.ax.ticklabel_format(axis="x", useOffset=False)
    low, high = picture.get_clim()
    if np.ptp(np.percentile(seen, [1, 99])) < _TOLD * (high - low):
        middle = float(np.median(seen))
        bar.set_ticks([middle], labels=[f"{middle:.3g} everywhere"])
        return
    shown = [tick for tick in bar.get_ticks() if low <= tick <= high]
    form = bar.ax.xaxis.get_major_formatter()
    widest = max(map(len, form.format_ticks(shown)), default=0)
    if form.get_offset():  # matplotlib writes it over the label
        bar.set_label(f"{label} \N{MULTIPLICATION SIGN} {form.get_offset()}")
        bar.ax.xaxis.offsetText.set_visible(False)
    if len(shown) > 1 and widest * (high - low) > _LETTERS * (shown[1] - shown[0]):
        bar.set_ticks(shown[::2])


def _projected(nside: int, nest: bool, width: int) -> tuple[np.ndarray, np.ndarray]:
    """The pixel that each dot of an image shows, and whether it is on the sky (Snyder 1987, p. 251)."""
    import healpy

    x, y = np.meshgrid(np.linspace(-2, 2, width), np.linspace(-1, 1, width // 2))
    inside = x**2 / 4 + y**2 <= 1
    turn = np.arcsin(np.where(inside, y, 0))
    latitude = np.arcsin(np.clip((2 * turn + np.sin(2 * turn)) / np.pi, -1, 1))
    longitude = -np.pi * np.where(inside, x, 0) / (2 * np.maximum(np.cos(turn), 1e-9))
    ring = healpy.ang2pix(nside, np.pi / 2 - latitude, np.mod(longitude, 2 * np.pi))
    return (ring_to_nest(nside)[ring] if nest else ring), inside


def plot_parameter(
    separation: Separation,
    name: str,
    ax: "Axes | None" = None,
    **options: Unpack[MapOptions],
) -> "Axes":
    """Draw a spectral parameter over the sky.

    **Arguments:** `options`: of `plot_map`.

    **Returns:** the axes.

    **Raises:** `ValueError` for a parameter that was not fitted.
    """
    values = separation.parameter_map(name)
    return plot_map(values, _with_unit(separation, name), ax, **_not_stretched(values, options, _FLAT_VALUE))


def plot_parameter_error(
    separation: Separation,
    name: str,
    ax: "Axes | None" = None,
    **options: Unpack[MapOptions],
) -> "Axes":
    """Draw the standard error of a spectral parameter over the sky; empty where the data do not determine it.

    **Arguments:** `options`: of `plot_map`.

    **Returns:** the axes.

    **Raises:** `ValueError` for a parameter that was not fitted.
    """
    values = separation.error_map(name)
    label = f"error of {_with_unit(separation, name)}"
    return plot_map(values, label, ax, **_not_stretched(values, options, _FLAT_ERROR))


def _with_unit(separation: Separation, name: str) -> str:
    """A parameter with the unit that its spectrum declares; those without have no dimension."""
    unit = parameters(separation.model)[name].unit
    return f"{name} / {unit}" if unit else name


def plot_component(
    separation: Separation,
    name: str,
    stokes: str | None = None,
    ax: "Axes | None" = None,
    **options: Unpack[MapOptions],
) -> "Axes":
    """Draw a component map.

    **Arguments:** `stokes`: I, Q or U, the first by default. `options`: of `plot_map`.

    **Returns:** the axes.

    **Raises:** `ValueError` for a component or Stokes parameter that was not fitted.
    """
    letter = _letter(separation, stokes)
    values = separation.component(name)[separation.stokes.index(letter)]
    return plot_map(values, f"{name} {letter} / {_unit(separation, name)}", ax, **options)


def _unit(separation: Separation, name: str) -> str:
    return separation.amplitude_units[separation.components.index(name)]


def plot_component_error(
    separation: Separation,
    name: str,
    stokes: str | None = None,
    ax: "Axes | None" = None,
    **options: Unpack[MapOptions],
) -> "Axes":
    """Draw the standard error of a component map, that of the spectra included.

    **Arguments:** as in `plot_component`, and so are the answer and the errors.
    """
    letter = _letter(separation, stokes)
    separation.component(name)
    values = separation.errors[separation.components.index(name), separation.stokes.index(letter)]
    label = f"error of {name} {letter} / {_unit(separation, name)}"
    return plot_map(values, label, ax, **_not_stretched(values, options, _FLAT_ERROR))


def plot_residual(
    separation: Separation,
    instrument: Channels,
    maps: Given,
    channel: int,
    stokes: str | None = None,
    ax: "Axes | None" = None,
    **options: Unpack[MapOptions],
) -> "Axes":
    """Draw what a channel has that the components do not explain, data - model, in the unit of the maps.

    **Arguments:** `instrument`, `maps`: as `separate` had them. `channel`: its number.
    """
    letter = _letter(separation, stokes)
    nu = frequencies_of(instrument)
    data = np.asarray(maps, float)
    data = data[:, None] if data.ndim == 2 else data
    s = separation.stokes.index(letter)
    model = np.sum(_columns(separation, nu)[channel] * np.asarray(separation.amplitudes[:, s]), axis=0)
    used = np.asarray(separation.used)
    residual = np.where(used, data[channel, s] - np.where(used, model, 0), np.nan)
    label = f"residual of {_label(nu, channel)} GHz, {letter} / {separation.units}"
    return plot_map(residual, label, ax, **_coloured(options, True))


def plot_chi2(
    separation: Separation,
    ax: "Axes | None" = None,
    **options: Unpack[MapOptions],
) -> "Axes":
    """Draw chi2 of each pixel. `options`: of `plot_map`."""
    label = "\N{GREEK SMALL LETTER CHI}\N{SUPERSCRIPT TWO} of a pixel"
    return plot_map(separation.chi2, label, ax, **_coloured(options, False))


def plot_pulls(values: Given, errors: Given, truth: Given, label: str = "", ax: "Axes | None" = None) -> "Axes":
    """Draw (values - truth) / errors, with the normal distribution that they should have.

    **Arguments:** arrays of one shape; those that are not finite do not count.
    """
    ax = _axes(ax)
    pulls = (np.asarray(values) - np.asarray(truth)) / np.asarray(errors)
    pulls = pulls[np.isfinite(pulls)]
    if not pulls.size:
        return ax
    bins = 40 if pulls.size >= _PULLS else 16
    grid, edges = np.linspace(-4, 4, 161), np.linspace(-4, 4, bins + 1).tolist()
    ax.hist(pulls, edges, color=DATA, alpha=0.75)
    ax.plot(grid, 8 / bins * pulls.size * np.exp(-(grid**2) / 2) / np.sqrt(2 * np.pi), color=MODEL, lw=1.4)
    ax.set_yticks([])
    beyond = int((np.abs(pulls) > 4).sum())
    more = f", {beyond} beyond 4" if beyond else ""
    ax.set_xlabel(f"pull of {label}: {pulls.mean():+.2f} \N{PLUS-MINUS SIGN} {pulls.std():.2f}{more}")
    return ax


def plot_spectra(
    separation: Separation,
    instrument: Channels,
    maps: Given,
    pixel: int | None = None,
    sigma: Given | None = None,
    ax: "Axes | None" = None,
    *,
    stokes: str | None = None,
) -> "Axes":
    """Draw the data of a pixel over frequency with the spectra of its components and their sum, or all pixels in rms.

    The rms of data has that of their noise in it. With `sigma`, the sum is also drawn with what the noise adds to it:
    in squares, sigma^2 less the part that the fitted components have taken up.

    **Arguments:** `instrument`, `maps`: as `separate` had them. `pixel`: its number; `None` for the rms over all that
    were used. `sigma`: (f, s) of the noise in the unit of the maps, for a pixel its error bars. `stokes`: I, Q or U,
    the first by default.

    **Raises:** `ValueError` for a pixel that was not used, or a Stokes parameter that was not fitted.
    """
    ax = _axes(ax)
    letter = _letter(separation, stokes)
    s = separation.stokes.index(letter)
    nu = frequencies_of(instrument)
    centre = np.asarray(_centres(nu))
    data = np.asarray(maps, float)
    data = data if data.ndim == 2 else data[:, s]
    noise = None if sigma is None else np.asarray(sigma, float)[:, s]
    amplitudes = np.asarray(separation.amplitudes[:, s])
    used = np.flatnonzero(np.isfinite(amplitudes).all(axis=0))
    if pixel is not None and pixel not in used:
        raise ValueError(f"pixel {pixel} was not used in the fit")
    chosen = used if pixel is None else np.array([pixel])
    amplitudes = amplitudes[:, chosen]
    grid = np.geomspace(centre.min() / 1.15, centre.max() * 1.15, 120)
    parts = _of_pixels(_columns(separation, jnp.asarray(grid)), chosen) * amplitudes

    def over_pixels(x: np.ndarray) -> np.ndarray:
        return np.abs(x[..., 0]) if pixel is not None else np.sqrt(np.mean(x**2, axis=-1))

    for k, name in enumerate(separation.components):
        ax.plot(grid, over_pixels(parts[:, k]), lw=1.2, color=LINES[k % len(LINES)], label=name)
    ax.plot(grid, over_pixels(parts.sum(1)), color=MODEL, lw=1.8, label="sum")
    if noise is not None and pixel is None:
        mixing = _of_pixels(_columns(separation, nu), chosen)
        left = np.sqrt(over_pixels(np.sum(mixing * amplitudes, axis=1)) ** 2 + _left_over(mixing, noise))
        ax.plot(centre, left, color=MODEL, lw=1.2, ls="--", label="sum with noise")
    bars = None if noise is None or pixel is None else np.where(np.isfinite(noise), noise, 0)
    seen = over_pixels(data[:, chosen])
    ax.errorbar(centre, seen, bars, fmt="o", ms=4, color=DATA, label="data", zorder=4)
    _logarithmic(ax, centre if len(centre) <= _FEW else None)
    ax.set_xlabel("frequency / GHz")
    what = f"rms of {letter}" if pixel is None else f"|{letter}|"
    ax.set_ylabel(f"{what} / {separation.units}")
    ax.set_ylim(max(seen.min() / 30, 1e-30), seen.max() * 3)
    ax.legend(frameon=False, ncols=2, fontsize="small")
    return ax


def _of_pixels(mixing: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """Mixing matrices (f, c, pixel) of these pixels; one that all share is left as it is."""
    return mixing[:, :, chosen] if mixing.shape[2] > 1 else mixing


def _left_over(mixing: np.ndarray, sigma: np.ndarray) -> np.ndarray:
    """The expected square of what weighted least squares leaves of the noise in each channel, sigma^2 (1 - h).

    h is the diagonal of A (A^T N^-1 A)^-1 A^T N^-1, of mixing matrices (f, c, pixel), whose mean is taken. A channel
    without noise that is known has nothing to add.
    """
    known = np.isfinite(sigma)
    weight = np.where(known, 1 / np.where(known, sigma, 1) ** 2, 0)
    A = np.moveaxis(mixing, 2, 0)
    # a component that the weighted channels cannot tell from others takes up nothing more
    inverse = np.linalg.pinv(np.einsum("pfc,f,pfd->pcd", A, weight, A), hermitian=True)
    taken = np.einsum("pfc,pcd,pfd->pf", A, inverse, A) * weight
    return np.where(known, sigma, 0) ** 2 * np.mean(np.clip(1 - taken, 0, 1), axis=0)


def panels(
    separation: Separation, instrument: Channels, maps: Given, sigma: Given | None = None
) -> Mapping[str, Callable[["Axes"], "Axes"]]:
    """List what there is to see of a separation by title: parameters, components, chi2, residuals, spectra.

    A map stands before that of its error. Of components, residuals and spectra there is one for each Stokes parameter.

    **Arguments:** `instrument`, `maps`: as `separate` had them. `sigma`: (f, s) of the noise, where it is known.
    """
    found: dict[str, Callable[[Any], Any]] = {}
    for name in separation.free:
        if separation.values[name].shape[0] > 1:
            found[name] = partial(plot_parameter, separation, name)
            found[f"{name}, error"] = partial(plot_parameter_error, separation, name)
    for name in separation.components:
        for letter in separation.stokes:
            found[f"{name} {letter}"] = partial(plot_component, separation, name, letter)
            found[f"{name} {letter}, error"] = partial(plot_component_error, separation, name, letter)
    middle = len(np.asarray(_centres(frequencies_of(instrument)))) // 2
    if int(separation.dof) > 0:  # else both are rounding errors
        found["chi2"] = partial(plot_chi2, separation)
        for letter in separation.stokes:
            found[f"residual {letter}"] = partial(plot_residual, separation, instrument, maps, middle, letter)
    for letter in separation.stokes:
        found[f"spectra {letter}"] = partial(_spectra, separation, instrument, maps, sigma, letter)
    return found


def _spectra(
    separation: Separation, instrument: Channels, maps: Given, sigma: Given | None, letter: str, ax: "Axes"
) -> "Axes":
    return plot_spectra(separation, instrument, maps, None, sigma, ax, stokes=letter)


def _letter(separation: Separation, stokes: str | None) -> str:
    if stokes is not None and stokes not in separation.stokes:
        raise ValueError(f"Stokes {stokes!r} was not fitted, only {separation.stokes}")
    return separation.stokes[0] if stokes is None else stokes


def _centres(nu: Frequencies) -> np.ndarray:
    if isinstance(nu, Bands):
        return np.sum(np.asarray(nu.nu * nu.weight), 1) / np.sum(np.asarray(nu.weight), 1)
    return np.asarray(nu)


def _label(nu: Frequencies, channel: int) -> str:
    return f"{float(np.asarray(_centres(nu))[channel]):.4g}"


def _columns(separation: Separation, nu: Frequencies) -> np.ndarray:
    """The mixing matrix of each pixel (f, c, pixel)."""
    fitted = {name: separation.parameter_map(name) for name in separation.free}
    return np.asarray(compiled(_mixing_of_pixels, (separation.model, fitted, nu)))


def _mixing_of_pixels(model: MixingMatrix, fitted: dict[str, Array], nu: Frequencies) -> Array:
    maps = [name for name, shape in leaf_names(model, parameters(model)) if shape != ()]
    if not maps:
        return model.eval(nu)[:, :, None]
    moving, rest = eqx.partition(model, free_spec(model, maps))
    leaves, structure = jtu.tree_flatten(moving)
    # one that is not fitted has a value for each pixel as it is
    here = [fitted.get(name, x) for x, name in zip(leaves, maps, strict=True)]
    each = jax.vmap(lambda leaves: eqx.combine(jtu.tree_unflatten(structure, leaves), rest).eval(nu))(here)
    return jnp.moveaxis(each, 0, 2)


def plot_forecast(forecast: Forecast, ax: "Axes | None" = None) -> "Axes":
    """Draw spectra of B modes: the sky's, and what noise and foregrounds leave. The title tells r and its error."""
    ax = _axes(ax)
    ell = np.asarray(forecast.ell)
    scale = ell * (ell + 1) / (2 * np.pi)
    truth = float(forecast.r - forecast.bias)
    shown = truth if truth > 0 else 1e-3
    lines = {
        f"primordial, r = {shown:.3g}": shown * forecast.primordial,
        "lensing": forecast.lensing,
        "noise": forecast.noise,
        "statistical residual": forecast.statistical,
        "systematic residual": forecast.systematic,
    }
    for (name, power), colour in zip(lines.items(), LINES, strict=True):
        ax.plot(ell, scale * np.asarray(power), lw=1.4, color=colour, label=name)
    _logarithmic(ax)
    top = scale.max() * float(np.max(np.asarray(forecast.lensing)))
    ax.set_ylim(1e-9 * top, 10 * top)
    ax.set_xlabel("multipole l")
    ax.set_ylabel("l (l + 1) C_l / 2\N{GREEK SMALL LETTER PI} / uK\N{SUPERSCRIPT TWO}")
    r, sigma = float(forecast.r), float(forecast.sigma_r)
    ax.set_title(f"r = {r:.3g} \N{PLUS-MINUS SIGN} {sigma:.2g}, bias {float(forecast.bias):.2g}")
    ax.legend(frameon=False, fontsize="small", ncols=2)
    return ax


def _logarithmic(ax: "Axes", marks: np.ndarray | None = None) -> None:
    """Both axes, with plain numbers along the lower one: these, or those of each decade."""
    from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullFormatter, NullLocator

    ax.set_xscale("log")
    ax.set_yscale("log")
    ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)) if marks is None else FixedLocator(marks.tolist()))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.4g}"))
    ax.xaxis.set_minor_formatter(NullFormatter())
    if marks is not None:
        ax.xaxis.set_minor_locator(NullLocator())
