"""Figures as SVG text in the style of a report, and histograms of a large batch.

Outcomes and tasks make matplotlib figures; here they are drawn without a screen, and made into elements of a page that
take their colours from it, so that one report serves light and dark screens. matplotlib is imported where it is used,
because reports are written without it too.
"""

import importlib.util
import io
import re
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from ..plot import DATA, MODEL, NEGATIVE, plot_histogram

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
    """Tell whether matplotlib is installed, without importing it."""
    return importlib.util.find_spec("matplotlib") is not None


def draw_histograms(columns: Mapping[str, np.ndarray], salt: str) -> str:
    """Draw one panel for each named quantity of a batch, as SVG."""
    return svg(lambda: _draw_histograms(columns), salt) or ""


def svg(draw: Callable[[], Any], salt: str) -> str | None:
    """Write the figure that `draw()` makes as SVG in the style of a report; None where it makes none.

    **Arguments:** `salt`: told apart for each figure, so that several may stand in one page.
    """
    from matplotlib import rc_context
    from matplotlib.backends.backend_svg import FigureCanvasSVG

    with rc_context({**_STYLE, "svg.hashsalt": salt}):
        figure = draw()
        if figure is None:
            return None
        text = io.StringIO()
        FigureCanvasSVG(figure).print_svg(text, metadata={"Date": None, "Creator": None})
    return text.getvalue()


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
