"""Figures of separations and forecasts in a report.

A separation is drawn as maps (parameters, components, chi2, residuals) over curves (spectra, and pulls where the truth
is known), a forecast as its spectra. The outcome calls `draw`.
"""

from typing import Any

import numpy as np

from ...compsep import Forecast, Instrument, Separation, plot
from .config import SkyData

_DPI = 130  # of the maps, which are images
_MAPS, _CURVES = 4, 3  # in a row: maps in pairs, each beside its error
_MAP, _CURVE = 1.75, 2.5  # inches of a row


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
