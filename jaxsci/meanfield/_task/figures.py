"""Pictures of a report: the density of an evolution, the crowd of a game, a calibration beside its data.

Panels stand in two columns, so that their letters can be read on a telephone too. Each is a function of
`jaxsci.meanfield.plot`. The outcomes call `draw_evolution`, `draw_game` and `draw_calibration`, and `panels` for
figures to zoom into; the task calls `draw_rate`.
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ...core import Diagonal
from ...plot import DATA, MODEL
from ...runs import Image, Scatter, Series
from .. import plot
from .._finite_volume import DensityPath

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from .outcomes import Calibrated, Chosen, Evolved, Played

Panel = Callable[["Axes"], object]

_WIDTH, _ROW = 6.6, 2.6  # inches


def _arranged(panels: Sequence[Panel]) -> Any:
    """Panels in two columns; the last of an odd number goes over both."""
    from matplotlib.figure import Figure

    rows = -(-len(panels) // 2)
    figure = Figure(figsize=(_WIDTH, _ROW * rows), facecolor="none", layout="constrained")
    # rows are figures of their own, or the letters beside one would push the panels of another aside
    for k, row in enumerate(figure.subfigures(rows, 1, squeeze=False)[:, 0]):
        row.set_facecolor("none")
        shown = panels[2 * k : 2 * k + 2]
        for panel, ax in zip(shown, row.subplots(1, len(shown), squeeze=False)[0], strict=True):
            panel(ax)
    return figure


def draw_evolution(outcome: "Evolved") -> Any:
    """The density over time; of a plane at three times, in space its marginals; what is left where walls absorb."""
    found, grid, reference = outcome.evolution, outcome.member.grid, outcome.reference
    path = None if reference is None else reference.path
    if grid.box.d > 2:
        panels: list[Panel] = _marginals(found, path, grid)
    elif grid.box.d == 1:
        panels = [
            lambda ax: plot.plot_density_ridge(found, ax, grid=grid, reference=path),
            lambda ax: plot.plot_density_map(found, ax, grid=grid),
            lambda ax: plot.plot_fan(found, ax, grid=grid),
        ]
        if path is not None:
            panels.append(lambda ax: _apart(outcome, path, ax))
    else:
        panels = [_at_time(found, k, grid) for k in (0, (found.ts.size - 1) // 2, -1)]
    if outcome.member.sde.domain.absorbs:
        panels.append(lambda ax: plot.plot_survival(found, ax, reference=path))
    return _arranged(panels)


def draw_chosen(outcome: "Chosen") -> Any:
    """The density over time, and how long each method would have taken."""
    found, grid, reference = outcome.found, outcome.member.grid, outcome.reference
    path = None if reference is None else reference.path
    panels: list[Panel] = []
    if grid.box.d == 1:
        panels = [
            lambda ax: plot.plot_density_ridge(found, ax, reference=path),
            lambda ax: plot.plot_density_map(found, ax),
        ]
    elif grid.box.d == 2:
        panels = [_at_time(found, k, grid) for k in (0, -1)]
    else:
        panels = _marginals(found, path, grid)
    if found.choice.candidates:
        panels.append(lambda ax: plot.plot_choice(found.choice, ax))
    return _arranged(panels) if panels else None


def _marginals(result: plot.Result, path: DensityPath | None, grid: plot.Grid) -> list[Panel]:
    """The density on each axis, with that of the reference."""

    def panel(axis: int) -> Panel:
        return lambda ax: plot.plot_density_ridge(result, ax, grid=grid, reference=path, axis=axis)

    return [panel(axis) for axis in range(grid.box.d)]


def _at_time(result: plot.Result, place: int, grid: plot.Grid) -> Panel:
    return lambda ax: plot.plot_density_2d(result, ax, grid=grid, at=place)


def _apart(outcome: "Evolved", path: DensityPath, ax: "Axes") -> None:
    """The density at the last time less the reference, and two standard errors of it."""
    from .references import common

    density, x = outcome.density, np.asarray(outcome.member.grid.centres())
    there, here = common(np.asarray(path.ts), np.asarray(outcome.evolution.ts))[-1]
    error = 2 * np.asarray(density.standard_error[here])
    ax.fill_between(x, -error, error, color=DATA, alpha=0.25, lw=0, label="2 standard errors")
    ax.plot(x, np.asarray(density.values[here]) - np.asarray(path.density[there]), color=DATA, lw=1.1)
    ax.axhline(0, color=MODEL, lw=1.0, ls=(0, (4, 2)))
    ax.set(xlim=(x[0], x[-1]), xlabel="x", ylabel="density \N{MINUS SIGN} reference")
    ax.set_title(f"t = {float(path.ts[there]):.3g}")
    ax.legend(frameon=False, fontsize="small", loc="lower right", bbox_to_anchor=(1, 1), borderaxespad=0.2)


def draw_game(outcome: "Played") -> Any:
    """The crowd over time, its best drift, and how the search went."""
    found, reference = outcome.equilibrium, outcome.member.reference
    path = None if reference is None else reference.path
    d = found.grid.box.d
    if d == 1:
        panels: list[Panel] = [
            lambda ax: plot.plot_density_ridge(found, ax, reference=path),
            lambda ax: plot.plot_density_map(found, ax),
            lambda ax: plot.plot_fan(found, ax),
        ]
    elif d == 2:
        panels = [_at_time(found, k, found.grid) for k in (0, (found.ts.size - 1) // 2, -1)]
    else:
        panels = []
    panels.append(lambda ax: plot.plot_game(found, ax))
    return _arranged(panels)


def draw_calibration(outcome: "Calibrated") -> Any:
    """Observed densities on a line with their errors beside the fitted ones, and the residuals."""
    data = outcome.member.data
    if data.grid.box.d != 1:
        return None
    fitted: np.ndarray = np.asarray(data.predict(outcome.solution.model))
    count, noise = fitted.shape[0], data.noise
    seen = np.asarray(data.observed).reshape(count, -1)
    error = np.sqrt(np.asarray(noise.variance())).reshape(count, -1) if isinstance(noise, Diagonal) else None
    places = np.unique(np.linspace(0, count - 1, min(4, count)).round().astype(int))
    return _arranged([_beside(outcome, int(k), (seen, fitted, error)) for k in places])


def _beside(outcome: "Calibrated", k: int, shown: tuple[np.ndarray, np.ndarray, np.ndarray | None]) -> Panel:
    seen, fitted, error = shown
    data = outcome.member.data
    x = np.asarray(data.grid.centres())

    def panel(ax: "Axes") -> None:
        bars = None if error is None else error[k]
        ax.errorbar(x, seen[k], bars, fmt="o", ms=2.8, mew=0, color=DATA, elinewidth=0.8, label="observed")
        ax.plot(x, fitted[k], color=MODEL, lw=1.3, label=type(outcome.member.sde.drift).__name__)
        ax.set(xlabel="x", ylabel="density", ylim=(None, 1.3 * max(seen.max(), fitted.max())))  # room for the legend
        ax.set_title(f"t = {float(data.ts[k + 1]):.3g}")
        if k == 0:
            ax.legend(frameon=False, fontsize="small")

    return panel


def draw_rate(outcomes: Sequence["Evolved"]) -> Any:
    """The distance to the reference over the number of particles, and the slope of N^-1/2."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(_WIDTH, _ROW), facecolor="none", layout="constrained")
    ax = figure.subplots()
    compared = [(o.member.count, o.distance, o.member.name) for o in outcomes if o.distance is not None]
    n, l1 = (np.array(x, float) for x in ([c[0] for c in compared], [c[1].last for c in compared]))
    ax.loglog(n, l1, "o", color=DATA, ms=4.5, label="L1 distance to the reference")
    explained = [distance.explained for _, distance, _ in compared]
    ax.loglog(n, explained, "_", color=MODEL, ms=12, mew=1.4, label="explained by particles and bandwidth")
    for count, distance, name in compared:
        if distance.remarks:
            ax.annotate(
                name, (count, distance.last), xytext=(-6, 0), textcoords="offset points", ha="right", va="center"
            )
    line = np.array([n.min(), n.max()])
    ax.loglog(line, l1[n.argmin()] * (line / line[0]) ** -0.5, color="#9aa3ad", lw=1.0, label="N^(\N{MINUS SIGN}1/2)")
    ax.set(xlabel="particles N", ylabel="L1")
    ax.legend(frameon=False, fontsize="small")
    return figure


def panels(result: plot.Result, grid: plot.Grid, reference: DensityPath | None) -> Sequence[Scatter | Image]:
    """The density on a line over time and at three times, beside that of the reference; in the plane at the end."""
    path = plot._path(result, grid, "density", None)
    ts, values = np.asarray(path.ts, float), np.asarray(path.values, float)
    if values.ndim == 3:
        x, y = (np.asarray(grid.centres(axis), float) for axis in (0, 1))
        return [Image(f"t = {ts[-1]:.4g}", "x", "y", values[-1].T[::-1], x, y[::-1], "density", equal=True)]
    if values.ndim != 2:
        return []
    x = np.asarray(plot._line(path), float)
    known = None if reference is None else plot._path(reference, None, "density", None)
    series = []
    for k in dict.fromkeys((0, (ts.size - 1) // 2, ts.size - 1)):
        error = None if path.error is None else np.asarray(path.error[k], float)
        series.append(Series(f"t = {ts[k]:.4g}", x, values[k], error))
        there = None if known is None else plot._at(known, float(ts[k]))
        if there is not None:
            series.append(Series(f"t = {ts[k]:.4g}", x, np.asarray(there, float), line=True))
    title = "Density at three times"
    if any(each.line for each in series):
        title += ", lines: the reference"
    return [
        Scatter(title, "x", "density", tuple(series)),
        Image("Density over time", "t", "x", values.T[::-1], ts, x[::-1], "density"),
    ]
