"""Figures as SVG text in the style of a report, and histograms of a large batch.

Outcomes and tasks make matplotlib figures; here they are drawn without a screen, and made into elements of a page that
take their colours from it, so that one report serves light and dark screens. Where each panel lies is written into the
file, so that a narrow page can show the panels of a wide figure one below the other. matplotlib is imported where it is
used, because reports are written without it too.
"""

import hashlib
import importlib.util
import io
import re
import urllib.parse
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from ..plot import DATA, LINES, MODEL, NEGATIVE, plot_histogram
from ._html import Html, join, tag

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
    **{colour: f"var(--line-{k})" for k, colour in enumerate(LINES, 1)},
}

_PIXELS = 1.6  # of a page for a point of a figure, at most: letters of nine points are then as large as the page's
_WISHED = 1.2  # where panels stand beside each other in a narrow page
_LEAST = 0.95  # and at least, where a figure that is wider than the page is moved sideways


class Box(NamedTuple):
    """Where a panel of a figure lies: its upper left corner and its size, in points."""

    x: float
    y: float
    width: float
    height: float


class Drawn(NamedTuple):
    """A figure for a page: its `file` as seen from report.html, its `markup`, and a small picture of its first panel.

    The `thumbnail` shows what the markup draws, so that it needs the markup in the same page; the `image` shows the
    file, from report.html.
    """

    file: str
    markup: Html
    thumbnail: Html
    image: Html


def can_draw() -> bool:
    """Tell whether matplotlib is installed, without importing it."""
    return importlib.util.find_spec("matplotlib") is not None


def draw_histograms(columns: Mapping[str, np.ndarray], salt: str) -> str:
    """Draw one panel for each named quantity of a batch, as SVG."""
    return svg(lambda: _draw_histograms(columns), salt) or ""


def svg(draw: Callable[[], Any], salt: str) -> str | None:
    """Write the figure that `draw()` makes as SVG in the style of a report; None where it makes none.

    The attribute `data-panels` says where its panels lie.

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
        boxes = _panels(figure)
    told = ";".join(" ".join(f"{number:.1f}" for number in box) for box in boxes)
    return text.getvalue().replace("<svg ", f'<svg data-panels="{told}" ', 1)


def _panels(figure: Any) -> list[Box]:
    """Where the panels of a figure that has been drawn lie, in the order in which they were made.

    Axes are one panel with their bar of colours, with axes that they overlap, and with those above and below them that
    have their abscissa, as residuals have that of a curve.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    axes = [ax for ax in figure.axes if ax.get_visible()]
    renderer = FigureCanvasAgg(figure).get_renderer()
    within = [ax.get_tightbbox(renderer) for ax in axes]
    group = list(range(len(axes)))

    def unite(i: int, j: int) -> None:
        old, new = max(group[i], group[j]), min(group[i], group[j])
        group[:] = [new if k == old else k for k in group]

    for i, ax in enumerate(axes):
        bars = [artist.colorbar.ax for artist in (*ax.images, *ax.collections) if artist.colorbar is not None]
        for j, other in enumerate(axes):
            stacked = ax.get_shared_x_axes().joined(ax, other) and abs(ax.bbox.x0 - other.bbox.x0) < 1
            if i != j and (other in bars or stacked or ax.bbox.overlaps(other.bbox)):
                unite(i, j)
    scale, height = 72 / figure.dpi, 72 * figure.get_figheight()
    found = []
    for one in dict.fromkeys(group):
        parts = [box for box, k in zip(within, group, strict=True) if k == one and box is not None]
        low, high = np.min([box.min for box in parts], axis=0), np.max([box.max for box in parts], axis=0)
        (x0, y0), (x1, y1) = low * scale - 2, high * scale + 2
        found.append(Box(float(x0), float(height - y1), float(x1 - x0), float(y1 - y0)))
    return found


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


def inline(text: str, file: str) -> Drawn:
    """Make an SVG file of `svg` part of a page: no prologue, no fixed size, colours and letters of the page.

    A figure of several panels is there for two widths: whole, and as a list of its panels, which are windows onto the
    same drawing.
    """
    name = f"f-{hashlib.sha256(text.encode()).hexdigest()[:12]}"
    element = text[text.index("<svg") :]
    boxes = _told_boxes(element)
    element = re.sub(r"<svg[^>]*>", f'<svg viewBox="{_view_box(element)}">', element, count=1)
    element = re.sub(r"<metadata>.*?</metadata>", "", element, flags=re.DOTALL)
    element = re.sub(r"font-family: [^;\"]*", "font-family: var(--sans)", element)
    element = re.sub(r'<g id="[a-z]+[^"]*"', "<g", element)  # names that every figure has
    element = element.replace("<g>", f'<g id="{name}">', 1)
    for colour, variable in _PAGE_COLOURS.items():
        element = re.sub(rf"(fill|stroke): {colour}", rf"\1: {variable}", element)
    # white letters stand on the colours of the page, which are light on a dark one
    element = re.sub(r"(<text [^>]*fill: )#ffffff", r"\1var(--page)", element)
    whole = Box(*map(float, _view_box(element).split()))
    several = len(boxes) > 1
    shape = f"max-width: {_PIXELS * whole.width:.0f}px"
    least = "" if several else f"; min-width: {_LEAST * whole.width:.0f}px"
    kind = "figure whole" if several else "figure"
    element = element.replace("<svg ", f'<svg role="img" class="{kind}" style="{shape}{least}" ', 1)
    parts = join(_window(name, box, "panel", _sized(box)) for box in boxes) if several else ""
    markup = join([Html(element), tag("div", parts, class_="panels") if several else ""])
    first = (boxes or [whole])[0]
    return Drawn(file, markup, _window(name, first, "thumbnail", None), _image(file, first))


def _image(file: str, box: Box) -> Html:
    """A part of a file; browsers load it when it comes into view."""
    place = f"#svgView(viewBox({','.join(f'{x:g}' for x in box)}))"
    shape = f"aspect-ratio: {box.width:g} / {box.height:g}"
    return tag("img", src=urllib.parse.quote(file) + place, loading="lazy", alt="", class_="thumbnail", style=shape)


def _view_box(element: str) -> str:
    found = re.search(r'viewBox="([^"]*)"', element[: element.index(">")])
    return found[1] if found else "0 0 1 1"


def _told_boxes(element: str) -> Sequence[Box]:
    found = re.search(r'data-panels="([^"]+)"', element[: element.index(">")])
    return [Box(*map(float, part.split())) for part in found[1].split(";")] if found else []


def _sized(box: Box) -> str:
    """As many beside each other as have letters of a page's size, and none larger than in the whole figure."""
    basis, most, least = (f"{pixels * box.width:.0f}px" for pixels in (_WISHED, _PIXELS, _LEAST))
    return f"flex: 1 1 {basis}; max-width: max({least}, min(100%, {most})); min-width: min({basis}, max(100%, {least}))"


def _window(name: str, box: Box, kind: str, style: str | None) -> Html:
    """A part of a drawing that stands elsewhere in the page."""
    drawing = tag("use", href=f"#{name}")
    return tag(
        "svg", drawing, class_=kind, viewBox=" ".join(f"{x:g}" for x in box), style=style, **{"aria-hidden": "true"}
    )
