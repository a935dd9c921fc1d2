"""Figures as SVG text: of a member (data with fit, residuals, correlation) and of a batch (histograms)."""

import importlib.util
import io
import re
from collections.abc import Callable, Mapping
from typing import Any

import jax.numpy as jnp
import jax.tree_util as jtu
import numpy as np

from ..datasets import Dataset
from ..fitting import Solution
from ..plot import DATA, MODEL, NEGATIVE, plot_correlation, plot_fit, plot_histogram, plot_image, plot_residuals
from ._run import Outcome

_PANELS = 4  # in a row of histograms

_INK, _RULE = "#222831", "#9aa3ad"
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.size": 9.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.7,
    "axes.edgecolor": _RULE,
    "axes.labelcolor": _INK,
    "axes.titlesize": 9.0,
    "axes.titlelocation": "left",
    "axes.formatter.use_mathtext": False,
    "text.color": _INK,
    "xtick.color": _RULE,
    "ytick.color": _RULE,
    "xtick.labelcolor": _INK,
    "ytick.labelcolor": _INK,
    "axes.facecolor": "none",
}
_PAGE_COLOURS = {
    _INK: "var(--ink)",
    _RULE: "var(--faint)",
    DATA: "var(--data)",
    MODEL: "var(--model)",
    NEGATIVE: "var(--negative)",
}


def can_draw() -> bool:
    """True where matplotlib is installed."""
    return importlib.util.find_spec("matplotlib") is not None


def draw(outcome: Outcome, salt: str) -> str:
    """The figure of one member, as SVG.

    **Arguments:** `salt`: told apart for each figure, so that several may stand in one page.
    """
    return svg(_draw_curve if outcome.member.image is None else _draw_image, outcome, salt)


def draw_histograms(columns: Mapping[str, np.ndarray], salt: str) -> str:
    """One panel for each named quantity of a batch, as SVG."""
    return svg(_draw_histograms, columns, salt)


def svg(draw: Callable[[Any], Any], what: Any, salt: str) -> str:
    """The figure that `draw(what)` makes, as SVG. `salt`: told apart for each figure of a page."""
    from matplotlib import rc_context
    from matplotlib.backends.backend_svg import FigureCanvasSVG

    with rc_context({**_STYLE, "svg.hashsalt": salt}):
        text = io.StringIO()
        FigureCanvasSVG(draw(what)).print_svg(text, metadata={"Date": None, "Creator": None})
    return text.getvalue()


def _on_device(outcome: Outcome) -> tuple[Solution, Dataset]:
    """The solution and the rows to show, as the arrays of the device that models expect."""
    data = outcome.member.sample or outcome.member.data
    assert outcome.solution is not None
    assert isinstance(data, Dataset)
    return jtu.tree_map(jnp.asarray, (outcome.solution, data))


def _draw_curve(outcome: Outcome) -> Any:
    """Data with fit, residuals below, correlation beside."""
    from matplotlib.figure import Figure

    solution, data = _on_device(outcome)
    figure = Figure(figsize=(9.4, 3.5), facecolor="none", layout="constrained")
    panels = figure.subplot_mosaic(
        [["fit", "correlation"], ["residuals", "correlation"]], width_ratios=[2.15, 1], height_ratios=[2.6, 1]
    )
    panels["fit"].sharex(panels["residuals"])
    panels["fit"].tick_params(bottom=False, labelbottom=False)
    plot_fit(solution, data, panels["fit"]).set_ylabel(outcome.member.labels[1])
    plot_residuals(solution, data, panels["residuals"]).set_xlabel(outcome.member.labels[0])
    plot_correlation(solution, panels["correlation"]).set_title("correlation")
    for name in ("fit", "residuals"):
        panels[name].ticklabel_format(axis="y", scilimits=(-1, 4))
    panels["residuals"].locator_params(axis="y", nbins=4)
    figure.align_ylabels([panels["fit"], panels["residuals"]])
    return figure


def _draw_image(outcome: Outcome) -> Any:
    """Image, model and residuals side by side, and the correlation."""
    from matplotlib.figure import Figure

    (solution, data), shape = _on_device(outcome), outcome.member.image
    assert shape is not None
    figure = Figure(figsize=(9.4, 2.3), facecolor="none", layout="constrained")
    *pictures, correlation = figure.subplots(1, 4, width_ratios=[1, 1, 1, 1.25])
    for what, ax in zip(("data", "model", "residual"), pictures, strict=True):
        plot_image(solution, data, shape, what, ax)
        ax.locator_params(integer=True, nbins=5)
    plot_correlation(solution, correlation).set_title("correlation")
    return figure


def _draw_histograms(columns: Mapping[str, np.ndarray]) -> Any:
    from matplotlib.figure import Figure

    rows = -(-len(columns) // _PANELS)
    figure = Figure(figsize=(9.4, 1.75 * rows), facecolor="none", layout="constrained")
    panels = figure.subplots(rows, _PANELS, squeeze=False).ravel()
    for ax, (name, values) in zip(panels, columns.items(), strict=False):
        plot_histogram(values, name, ax)
    for ax in panels[len(columns) :]:
        ax.set_visible(False)
    return figure


def inline(text: str) -> str:
    """An SVG file as an element of a page: no prologue, no fixed size, colours and letters of the page."""
    element = text[text.index("<svg") :]
    element = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", element, count=1)
    element = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", element, count=1)
    element = re.sub(r"<metadata>.*?</metadata>", "", element, flags=re.DOTALL)
    element = re.sub(r"font: ([^;'\"]*?px) [^;\"]*", r"font: \1 var(--sans)", element)
    element = re.sub(r'<g id="[a-z]+[^"]*"', "<g", element)  # names that every figure has
    for colour, variable in _PAGE_COLOURS.items():
        element = re.sub(rf"(fill|stroke): {colour}", rf"\1: {variable}", element)
    # matplotlib leaves the default, black, unsaid.
    return element.replace("<svg ", '<svg role="img" class="figure" ', 1)
