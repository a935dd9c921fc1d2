"""Figures of separations and forecasts in a report.

A separation is drawn as maps (parameters, components, chi2, residuals) over curves (spectra, and pulls where the truth
is known), a forecast as its spectra. The outcome calls `draw`, and `panels` for maps to zoom into, which are projected
onto a grid of longitude and latitude.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from ...compsep import Forecast, Instrument, Separation, plot
from ...core import parameters
from ...runs import MOST_CELLS, Image, Scatter, Series
from .._healpix import nside_of
from .config import SkyData

_DPI = 130  # of the maps, which are images
_MAPS, _CURVES = 4, 3  # in a row: maps in pairs, each beside its error
_MAP, _CURVE = 1.75, 2.5  # inches of a row
_ERROR = "error of "


def draw(found: Separation, forecast: Forecast | None, instrument: Instrument, sky: SkyData) -> Any:
    """Maps of parameters, components, chi2 and residuals with the spectra; or the spectra of a forecast."""
    return _draw_sky(found, instrument, sky) if forecast is None else _draw_forecast(forecast)


def _draw_sky(found: Separation, instrument: Instrument, sky: SkyData) -> Any:
    from matplotlib.figure import Figure

    panels = dict(plot.panels(found, instrument, sky.maps, sky.sigma if sky.noisy else None))
    curves = [panels.pop(f"spectra {letter}") for letter in found.stokes]
    for name in found.free:
        truth = sky.truth.get(name)
        if truth is not None and found.values[name].shape[0] > 8:
            curves.append(_pulls(found, name, truth))
    truth = sky.cmb
    if truth is not None and "cmb" in found.components:
        k = found.components.index("cmb")
        curves.append(lambda ax: plot.plot_pulls(found.amplitudes[k], found.errors[k], np.asarray(truth), "CMB", ax))
    return _arranged(Figure, list(panels.values()), curves)


def _arranged(make: Any, maps: list[Any], curves: list[Any]) -> Any:
    """Maps in rows of one height, curves below them, whose axes would push maps aside."""
    rows = [-(-len(maps) // _MAPS), -(-len(curves) // _CURVES)]
    heights = [_MAP * rows[0], _CURVE * rows[1]]
    figure = make(figsize=(9.4, sum(heights)), dpi=_DPI, facecolor="none", layout="constrained")
    parts = zip(figure.subfigures(2, 1, height_ratios=heights), (maps, curves), rows, (_MAPS, _CURVES), strict=True)
    for part, panels, count, columns in parts:
        part.set_facecolor("none")
        axes = part.subplots(count, columns, squeeze=False).ravel()
        for ax, panel in zip(axes, panels, strict=False):
            panel(ax)
        for ax in axes[len(panels) :]:
            ax.set_visible(False)
    return figure


def _pulls(found: Any, name: str, truth: np.ndarray) -> Any:
    index = np.asarray(found.index[name])
    used = index >= 0
    mean = np.bincount(index[used], truth[used]) / np.bincount(index[used])
    return lambda ax: plot.plot_pulls(found.values[name], found.std[name], mean, name, ax)


def _draw_forecast(forecast: Forecast) -> Any:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.6, 3.4), facecolor="none", layout="constrained")
    plot.plot_forecast(forecast, figure.subplots())
    return figure


def panels(found: Separation, forecast: Forecast | None) -> Sequence[Scatter | Image]:
    """Maps of parameters and components, each beside its error, and chi2; the spectra of a forecast."""
    return _maps(found) if forecast is None else [_spectra(forecast)]


class _Grid(NamedTuple):
    """The part of the sky that was used: `pixel` (h, w) of each cell; longitudes and latitudes of the middles, degrees.

    `shown`: how many pixels of those used some cell has.
    """

    pixel: np.ndarray
    longitude: np.ndarray
    latitude: np.ndarray
    shown: int


def _maps(found: Separation) -> list[Image]:
    maps: dict[str, np.ndarray] = {}
    for name in found.free:
        if found.values[name].shape[0] > 1:
            unit = parameters(found.model)[name].unit
            label = f"{name} ({unit})" if unit else name
            maps[label], maps[f"{_ERROR}{label}"] = (
                np.asarray(found.parameter_map(name)),
                np.asarray(found.error_map(name)),
            )
    amplitudes, errors = np.asarray(found.amplitudes), np.asarray(found.errors)
    for c, s in np.ndindex(*amplitudes.shape[:2]):
        label = f"{found.components[c]} {found.stokes[s]} ({found.amplitude_units[c]})"
        maps[label], maps[f"{_ERROR}{label}"] = amplitudes[c, s], errors[c, s]
    if int(found.dof) > 0:  # else it is a rounding error
        maps["χ² of a pixel"] = np.asarray(found.chi2)
    grid = _grid(np.asarray(found.used))
    used = int(np.sum(np.asarray(found.used)))
    sparse = f"{grid.shown} of {used} pixels are shown, each as it is." if grid.shown < used else ""
    return [
        Image(
            name, "longitude (°)", "latitude (°)", np.where(np.isfinite(values), values, np.nan)[grid.pixel],
            grid.longitude, grid.latitude, name, equal=True, limits=_limits(name, values), signed=_signed(name, values),
            note=sparse,
        )
        for name, values in maps.items()
    ]  # fmt: skip


def _signed(name: str, values: np.ndarray) -> bool:
    """Whether colours are about zero: of values with both signs."""
    seen = values[np.isfinite(values)]
    both = bool(seen.size) and bool(np.percentile(seen, 1) < 0 < np.percentile(seen, 99))
    return both and not name.startswith(_ERROR)


def _limits(name: str, values: np.ndarray) -> tuple[float, float] | None:
    """Of the colours of an error, as in `compsep.plot`: one that is the same everywhere should look so."""
    if not name.startswith(_ERROR):
        return None
    return plot._not_stretched(values, {}, plot._FLAT_ERROR).get("limits")


def _grid(used: np.ndarray) -> _Grid:
    """Cells over the used part of the sky, fine enough to show each pixel as long as they are not too many."""
    import healpy

    nside = nside_of(used.size)
    longitude, latitude = healpy.pix2ang(nside, np.flatnonzero(used), lonlat=True)
    left, right = _round(longitude, 90 / nside)
    low, high = max(latitude.min() - 60 / nside, -90.0), min(latitude.max() + 60 / nside, 90.0)
    step = 30 / nside  # a third of a pixel's width at the equator
    least = np.sqrt((left - right) * (high - low) / MOST_CELLS)
    wide, tall = (max(int(extent / max(step, least)), 1) for extent in (left - right, high - low))
    across = left - (np.arange(wide) + 0.5) * (left - right) / wide
    down = high - (np.arange(tall) + 0.5) * (high - low) / tall
    pixel = healpy.ang2pix(nside, *np.meshgrid(across, down), lonlat=True)
    return _Grid(pixel, across, down, int(np.sum(used[np.unique(pixel)])))


def _round(longitude: np.ndarray, margin: float) -> tuple[float, float]:
    """Where longitudes end on the left and on the right, as the sky is drawn: the other side of their widest gap."""
    turned = np.sort(np.mod(longitude, 360.0))
    gaps = np.diff(turned, append=turned[0] + 360.0)
    k = int(np.argmax(gaps))
    if gaps[k] < 2 * margin + 30.0:
        return 180.0, -180.0
    left, right = turned[k] + margin, turned[(k + 1) % turned.size] - margin
    left += 360.0 * (left < right)
    turn = 360.0 * round((left + right) / 720.0)
    return float(left - turn), float(right - turn)


def _spectra(forecast: Forecast) -> Scatter:
    """The lines that `compsep.plot.plot_forecast` draws."""
    ell = np.asarray(forecast.ell, float)
    scale = ell * (ell + 1) / (2 * np.pi)
    r = float(forecast.r)
    truth = float(forecast.r - forecast.bias)
    shown = truth if truth > 0 else 1e-3
    lines = {
        f"primordial, r = {shown:.3g}": shown * np.asarray(forecast.primordial),
        "lensing": forecast.lensing,
        "noise": forecast.noise,
        "statistical residual": forecast.statistical,
        "systematic residual": forecast.systematic,
    }
    series = tuple(Series(name, ell, scale * np.asarray(power), line=True) for name, power in lines.items())
    title = f"r = {r:.3g} ± {float(forecast.sigma_r):.2g}, bias {float(forecast.bias):.2g}"
    return Scatter(title, "multipole l", "l (l + 1) C_l / 2π (µK²)", series, "xy")
