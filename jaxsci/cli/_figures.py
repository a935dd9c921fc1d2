"""The figure of each member: data with fit, residuals, correlation, as SVG text."""

import importlib.util
import io
import re
from typing import Any

from ..plot import DATA, MODEL, NEGATIVE, plot_correlation, plot_fit, plot_residuals
from ._run import Outcome

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
    from matplotlib import rc_context
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    solution, data = outcome.solution, outcome.member.data
    assert solution is not None
    with rc_context({**_STYLE, "svg.hashsalt": salt}):
        figure = Figure(figsize=(9.4, 3.5), facecolor="none")
        panels = figure.subplot_mosaic(
            [["fit", "correlation"], ["residuals", "correlation"]],
            width_ratios=[2.15, 1],
            height_ratios=[2.6, 1],
            gridspec_kw={"left": 0.085, "right": 0.985, "bottom": 0.13, "top": 0.94, "wspace": 0.14, "hspace": 0.2},
        )
        panels["fit"].sharex(panels["residuals"])
        panels["fit"].tick_params(bottom=False, labelbottom=False)
        plot_fit(solution, data, panels["fit"]).set_ylabel(outcome.member.labels[1])
        plot_residuals(solution, data, panels["residuals"]).set_xlabel(outcome.member.labels[0])
        plot_correlation(solution, panels["correlation"]).set_title("correlation")
        for name in ("fit", "residuals"):
            panels[name].yaxis.set_label_coords(-0.095, 0.5)
            panels[name].ticklabel_format(axis="y", scilimits=(-1, 4))
        panels["residuals"].locator_params(axis="y", nbins=4)
        text = io.StringIO()
        FigureCanvasSVG(figure).print_svg(text, metadata={"Date": None, "Creator": None})
    return text.getvalue()


def inline(svg: str) -> str:
    """An SVG file as an element of a page: no prologue, no fixed size, colours and letters of the page."""
    element = svg[svg.index("<svg") :]
    element = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", element, count=1)
    element = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", element, count=1)
    element = re.sub(r"<metadata>.*?</metadata>", "", element, flags=re.DOTALL)
    element = re.sub(r"font: ([^;'\"]*?px) [^;\"]*", r"font: \1 var(--sans)", element)
    element = re.sub(r'<g id="[a-z]+[^"]*"', "<g", element)  # names that every figure has
    for colour, variable in _PAGE_COLOURS.items():
        element = re.sub(rf"(fill|stroke): {colour}", rf"\1: {variable}", element)
    # matplotlib leaves the default, black, unsaid.
    return element.replace("<svg ", '<svg role="img" class="figure" ', 1)
