"""Figures of pulsars in a report: of each, and of all on the sky.

Panels are those of `timing.plot`; which of them a pulsar has depends on what there is of it: an orbit, DMX windows, a
grid of chi2. The task and its outcomes call `draw` and `draw_sky`, and `panels` for figures to zoom into.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from ...runs import Scatter, Series
from .. import plot
from .._components import windows
from .._fit import TimingSolution
from .._residuals.averages import EpochAverages
from .._residuals.realisation import NoiseRealisation
from .._residuals.summary import Look, weighted_rms
from .._toas import TOAs

_DPI = 150  # of points that are drawn as an image, because there are many


def draw_sky(models: Mapping[str, Any]) -> Any:
    """Where pulsars are on the sky, by name."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.4, 3.9), facecolor="none", layout="constrained")
    plot.plot_sky(models, figure.subplots(subplot_kw={"projection": "mollweide"}))
    return figure


def _with_unit(name: str, solution: TimingSolution) -> str:
    unit = solution.units.get(name, "")
    return f"{name} ({unit})" if unit else name


class Shown(NamedTuple):
    """What is known of one pulsar beside its solution; `None` for what there is not.

    - `look`: residuals before and after the fit. `averages`: those after it, by epoch. `noise`: what they hold of it.
    - `grid`, `chi2`: values of two parameters, and chi2 at them.
    """

    look: Look
    averages: EpochAverages
    noise: NoiseRealisation | None
    grid: Mapping[str, np.ndarray] | None
    chi2: np.ndarray | None


def draw(solution: TimingSolution, toas: TOAs, shown: Shown, heading: str) -> Any:
    """Residuals before and after, averaged, whitened, over the orbit, noise, DMX, chi2 on a grid: what there is."""
    from matplotlib.figure import Figure

    look, grid, chi2 = shown.look, shown.grid, shown.chi2
    model = solution.start
    panels: dict[str, Callable[[Any], Any]] = {
        "before the fit": lambda ax: plot.plot_residuals(model, toas, ax, residual=look.before, sigma=look.sigma),
        "after": lambda ax: plot.plot_residuals(model, toas, ax, residual=look.after, sigma=look.sigma),
        "whitened": lambda ax: plot.plot_whitened(model, toas, ax, values=look.whitened),
    }
    if np.asarray(shown.averages.count).max() > 1:
        panels["averaged over epochs"] = lambda ax: plot.plot_averages(model, toas, ax, values=shown.averages)
    if shown.noise is not None and shown.noise.parts:
        panels["most probable noise"] = lambda ax: plot.plot_noise(model, toas, ax, values=shown.noise)
    if model.binary is not None:
        panels["over the orbit"] = lambda ax: plot.plot_residuals(
            model, toas, ax, over="phase", residual=look.after, sigma=look.sigma
        )
    if model.par is not None and windows(model.par):
        panels["dispersion"] = lambda ax: plot.plot_dmx(solution, ax)
    if grid is not None and chi2 is not None:
        (first, x), (second, y) = grid.items()
        labels = _with_unit(first, solution), _with_unit(second, solution)
        panels[f"χ² over {first} and {second}"] = lambda ax: plot.plot_grid(x, y, chi2, labels, ax)
    columns = 2 if len(panels) in (2, 4) else 3
    rows = -(-len(panels) // columns)
    figure = Figure(figsize=(9.4, 2.3 * rows + 0.6), dpi=_DPI, facecolor="none", layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for ax, (title, panel) in zip(axes, panels.items(), strict=False):
        panel(ax).set_title(title)
        ax.locator_params(axis="x", nbins=5)
    for ax in axes[len(panels) :]:
        ax.set_visible(False)
    figure.suptitle(heading, fontsize="medium", x=0.01, ha="left")
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=6, frameon=False, fontsize="small")
    return figure


def panels(solution: TimingSolution, toas: TOAs, shown: Shown) -> Sequence[Scatter]:
    """Residuals of each TOA after and before the fit, whitened, and averaged over epochs, by receiver over MJD."""
    look, means = shown.look, shown.averages
    told = {
        "TOA": np.arange(len(toas)),
        "frequency (MHz)": np.asarray(toas.frequency),
        "flags": _flags(toas),
    }
    groups = [(name, np.flatnonzero(here)) for name, here in plot._receivers(solution.start, toas)]
    days = np.asarray(toas.utc)

    def over(title: str, y: str, values: np.ndarray, std: np.ndarray | None) -> Scatter:
        return Scatter(
            title,
            "MJD",
            y,
            tuple(
                Series(
                    name,
                    days[at],
                    values[at],
                    None if std is None else std[at],
                    more={key: column[at] for key, column in told.items()},
                )
                for name, at in groups
            ),
        )

    sigma, unit = 1e6 * look.sigma, "residual (µs)"
    titles = {
        name: f"{name}: weighted rms {1e6 * weighted_rms(values, look.sigma):.3f} µs, {len(toas)} TOAs"
        for name, values in (("After the fit", look.after), ("Before the fit", look.before))
    }
    found = [
        over(titles["After the fit"], unit, 1e6 * look.after, sigma),
        over("Whitened", "whitened residual / \N{GREEK SMALL LETTER SIGMA}", look.whitened, None),
        over(titles["Before the fit"], unit, 1e6 * look.before, sigma),
    ]
    return [*found, _averaged(means, groups)] if np.asarray(means.count).max() > 1 else found


def _averaged(means: EpochAverages, groups: Sequence[tuple[str, np.ndarray]]) -> Scatter:
    """The averages, each by the receiver of the first TOA of its epoch."""
    epochs, first = np.unique(np.asarray(means.epoch), return_index=True)
    mjd, mean, sigma = (np.asarray(part) for part in (means.mjd, means.residual, means.sigma))
    told = {"frequency (MHz)": np.asarray(means.frequency), "TOAs": np.asarray(means.count)}
    series = []
    for name, toas in groups:
        at = epochs[np.isin(first, toas)]
        more = {key: column[at] for key, column in told.items()}
        series.append(Series(name, mjd[at], 1e6 * mean[at], 1e6 * sigma[at], more=more))
    return Scatter("Averaged over epochs", "MJD", "residual (µs)", tuple(series))


def _flags(toas: TOAs) -> np.ndarray:
    """The flags of each TOA in a text, those aside that all have."""
    selected = np.asarray(toas.selected)
    some = np.flatnonzero(~selected.all(axis=0))
    kinds, of = np.unique(selected[:, some], axis=0, return_inverse=True)
    texts = [", ".join(toas.flags[k] for k in some[kind]) or "none of its own" for kind in kinds]
    return np.array(texts)[of.ravel()]
