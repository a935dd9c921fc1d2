"""Pictures of a report: g2 with its fits and posterior, relaxation over q, two-time matrices, the detector, scattering.

Panels stand in two columns, so that their letters can be read on a telephone too. Each is a function of
`jaxsci.xpcs.plot`. The outcomes call `draw`, and `panels` for figures to zoom into; the task calls `draw_dispersions`,
the commands `draw_detector`.
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import jax.numpy as jnp
import numpy as np

from ...runs import Image, Scatter, Series
from .. import plot
from .._qmap_file import QMap

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from .outcomes import Analysed, Fitted, Scattered

Panel = Callable[["Axes"], object]

_WIDTH, _ROW = 6.6, 2.6  # inches
_CURVES = 6  # q-bins that are drawn, of all
_MATRICES = 4
_ZOOMED = 40  # q-bins whose g2 can be zoomed into
_COLOURS = ("#3b6ea8", "#c9702b", "#3f8f5f", "#8a5aa8", "#b04a5a", "#5f6f7f")


def _arranged(panels: Sequence[Panel]) -> Any:
    """Panels in two columns; the last of an odd number goes over both."""
    from matplotlib.figure import Figure

    rows = -(-len(panels) // 2)
    figure = Figure(figsize=(_WIDTH, _ROW * rows), facecolor="none", layout="constrained", dpi=130)
    # rows are figures of their own, or the letters beside one would push the panels of another aside
    for k, row in enumerate(figure.subfigures(rows, 1, squeeze=False)[:, 0]):
        row.set_facecolor("none")
        shown = panels[2 * k : 2 * k + 2]
        for panel, ax in zip(shown, row.subplots(1, len(shown), squeeze=False)[0], strict=True):
            panel(ax)
    return figure


def draw(outcome: "Analysed") -> Any:
    """All that a measurement has to show."""
    panels: list[Panel] = []
    if outcome.fitted is not None:
        panels += _curves(outcome.fitted) + _law(outcome)
    two = outcome.result.two_time
    if two is not None:
        panels += [_matrix(two, k) for k in range(min(len(two.bins), _MATRICES))]
    if outcome.result.pixels.labels is not None:
        labels = np.asarray(outcome.result.pixels.labels)
        panels.append(lambda ax: plot.plot_labels(labels, ax))
    if outcome.scattered is not None:
        scattered = outcome.scattered
        panels.append(lambda ax: _scattering(scattered, ax))
    return _arranged(panels) if panels else None


def _curves(fitted: "Fitted") -> list[Panel]:
    """Some q-bins from first to last, those first that could be fitted."""
    good = np.flatnonzero(np.asarray(fitted.fits.success))
    some = good if good.size else np.arange(len(fitted.columns))
    places = some[np.unique(np.linspace(0, some.size - 1, min(_CURVES, some.size)).round().astype(int))]
    return [_curve(fitted, int(k), bool(k == places[0])) for k in places]


def _curve(fitted: "Fitted", k: int, first: bool) -> Panel:
    def panel(ax: "Axes") -> None:
        fit = fitted.fits[k] if bool(fitted.fits.success[k]) else None
        drawn = fitted.posterior
        has = drawn is not None and k not in drawn.refused and k not in drawn.errors
        plot.plot_g2(fitted.curves, k, ax, fit=fit, posterior=drawn[k] if has and drawn is not None else None)
        if first:
            ax.legend(frameon=False, fontsize="small")

    return panel


def _law(outcome: "Analysed") -> list[Panel]:
    fitted, fit = outcome.fitted, outcome.member.fit
    if fitted is None or fit is None or fitted.law is None:
        return []
    law = fitted.law
    unit = " (s)" if fit.law.startswith("tau") else ""
    return [lambda ax: plot.plot_dispersion(law, ax, label=f"{fit.law}{unit}")]


def _matrix(two: Any, k: int) -> Panel:
    return lambda ax: plot.plot_two_time(two, k, ax)


def _scattering(scattered: "Scattered", ax: "Axes") -> None:
    curve, plain = scattered.curve, scattered.measured
    changed = not np.array_equal(np.asarray(curve.intensity), np.asarray(plain.intensity), equal_nan=True)
    if changed:
        ax.plot(np.asarray(plain.x), np.asarray(plain.intensity), color="#9aa3ad", lw=1.0, label="as measured")
    ax.errorbar(
        np.asarray(curve.x), np.asarray(curve.intensity), np.asarray(curve.error), fmt="o", ms=2.6, mew=0,
        color=_COLOURS[0], elinewidth=0.7, label="I(q)",
    )  # fmt: skip
    ax.set(xscale="log", yscale="log", xlabel="q (1/Å)", ylabel="intensity")
    plot.plain_ticks(ax)
    if changed:
        ax.legend(frameon=False, fontsize="small")


def draw_dispersions(outcomes: Sequence["Analysed"]) -> Any:
    """The relaxation times of several measurements over q, each in its colour."""

    def panel(ax: "Axes") -> None:
        for k, outcome in enumerate(outcomes):
            law = None if outcome.fitted is None else outcome.fitted.law
            if law is not None:
                colour = _COLOURS[k % len(_COLOURS)]
                plot.plot_dispersion(law, ax, label=outcome.member.name, colour=colour)
        ax.set_ylabel("relaxation time (s)")

    return _arranged([panel])


def draw_detector(detector: QMap, image: np.ndarray | None) -> Any:
    """The partition, and the image with the pixels that are not used in red."""
    bins, used = detector.partition.dynamic, np.asarray(detector.mask)
    panels: list[Panel] = [lambda ax: plot.plot_labels(bins, ax)]
    if image is not None:
        panels.append(lambda ax: plot.plot_mask(used, image, ax))
    return _arranged(panels)


def panels(outcome: "Analysed") -> Sequence[Scatter | Image]:
    """g2 of the q-bins with their fits, what depends on q with its power law, and two-time matrices."""
    found: list[Scatter | Image] = []
    if outcome.fitted is not None:
        found.append(_all_curves(outcome.fitted))
        fit, law = outcome.member.fit, outcome.fitted.law
        if law is not None and fit is not None:
            found.append(_dispersion(law, f"{fit.law} (s)" if fit.law.startswith("tau") else fit.law))
    two = outcome.result.two_time
    if two is None:
        return found
    for k in range(min(len(two.bins), _MATRICES)):
        matrix = np.asarray(two.maps[k], float)
        times = (np.arange(len(matrix)) + 0.5) * float(two.frame_time)
        title, name = f"Two times, bin {int(two.bins[k])}", "C(t1, t2)"
        found.append(Image(title, "t1 (s)", "t2 (s)", matrix[::-1], times, times[::-1], name, equal=True))
    return found


def _all_curves(fitted: "Fitted") -> Scatter:
    curves, count = fitted.curves, len(fitted.columns)
    places = np.unique(np.linspace(0, count - 1, min(_ZOOMED, count)).round().astype(int))
    series = []
    for k in places.tolist():
        used = np.asarray(curves.mask)[:, k] & (np.asarray(curves.t) > 0)
        t, name = np.asarray(curves.t)[used], f"q-bin {int(fitted.columns[k])}: {float(curves.q[k]):.4g} 1/Å"
        std = None if curves.sigma is None else np.asarray(curves.sigma)[used, k]
        series.append(Series(name, t, np.asarray(curves.g2)[used, k], std))
        if bool(fitted.fits.success[k]) and t.size > 1:
            grid = np.geomspace(t.min(), t.max(), plot._POINTS)
            series.append(Series(name, grid, np.asarray(fitted.fits[k].model(jnp.asarray(grid))), line=True))
    title = f"g2 of {len(places)} of {count} q-bins, and their fits" if len(places) < count else "g2 and fits"
    return Scatter(title, "delay (s)", "g2", tuple(series), "x")


def _dispersion(law: Any, name: str) -> Scatter:
    q, value = np.asarray(law.data.inputs), np.exp(np.asarray(law.data.observed))
    error = value * np.sqrt(np.exp(np.asarray(law.noise.log_variance(law.data.mask))))
    grid = np.geomspace(q.min(), q.max(), plot._POINTS)
    line = np.exp(np.asarray(law.solution.model(jnp.asarray(grid))))
    points = Series("q-bins", q, value, error, more={"q-bin": np.asarray(law.columns)})
    return Scatter("Over q", "q (1/Å)", name, (points, Series("power law", grid, line, line=True)), "xy")
