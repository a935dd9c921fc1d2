"""interactive.html: figures that a reader zooms into, in one file that needs no network.

Outcomes give their data as panels; plotly makes figures of them, and the page holds plotly.js once and the figures of
those members that the report shows, as long as they are not too large for a browser. Colours are names of the style
sheet, which the page's script turns into those of a light or a dark screen. `jaxsci run --interactive` writes it; of a
batch, workers make the figures, and the page is made of what they left.
"""

import html
import importlib.util
import json
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from ._errors import ConfigError
from ._html import Html, tag
from ._records import label, plural, state
from ._report import Content, page, resource
from ._task import Image, Scatter, Series

PAGE = "interactive.html"
"""The name of the file, beside report.html."""

MOST_CELLS = 131_072
"""Of an image; of more, every k-th row and column is shown. So many are 512 x 256, for which few screens have room."""

_MOST_POINTS = 20_000  # of a series; of more, every k-th is shown
_MOST_BYTES = 24_000_000  # of all figures
_MANY = 3000  # points from which on they are drawn by WebGL

_POINTS = ("data", "line-1", "line-2", "line-3", "line-4", "line-5", "model")
_CURVES = ("model", "line-1", "line-2", "line-3", "line-4", "line-5", "data")
_SYMBOLS = ("circle", "square", "diamond", "triangle-up", "x")  # where there are more series than colours

# whatever the scripts in the page would like, its browser fetches nothing
_CLOSED = (
    "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline' 'unsafe-eval'; img-src data: blob:; "
    "worker-src blob:; font-src data:; form-action 'none'"
)


class _Shown(NamedTuple):
    """A plotly trace, and what to say of what it leaves out; empty for nothing."""

    trace: Any
    note: str


def need_plotly() -> None:
    """Raise `ConfigError` where plotly is not installed: before a run begins that would want it at its end."""
    if importlib.util.find_spec("plotly") is None:
        raise ConfigError("--interactive", "needs plotly, which is not installed: pip install 'jaxsci[interactive]'")


def interactive_figures(panels: Sequence[Scatter | Image]) -> str:
    """Draw the panels of a member, as JSON for the script of the page; empty where there are none."""
    drawn = [_scatter(panel) if isinstance(panel, Scatter) else _image(panel) for panel in panels]
    return json.dumps(drawn, separators=(",", ":")) if drawn else ""


def not_too_large(figures: Mapping[str, str]) -> dict[str, str]:
    """Choose the figures that a page has room for, the first ones first."""
    kept, size = {}, 0
    for anchor, drawn in figures.items():
        size += len(drawn)
        if size <= _MOST_BYTES:
            kept[anchor] = drawn
    return kept


def interactive_page(
    content: Content, chosen: Sequence[int], figures: Mapping[str, str], large: Collection[str]
) -> str:
    """Write the page.

    **Arguments:** `chosen`: places of the members to show, or to say why there is nothing of them; `figures`: what
    `interactive_figures` gave, by the anchors of members; `large`: anchors of those whose figures are left out.
    """
    from plotly.offline import get_plotlyjs

    title, noun, members = content.document["title"], content.noun, content.members
    told = [
        {
            "anchor": content.anchors[k],
            "name": members[k]["name"],
            "label": label(members[k]),
            "state": state(members[k]),
            "said": [text for text in (members[k]["message"], *members[k]["look"]) if text],
            "large": content.anchors[k] in large,
        }
        for k in chosen
    ]
    notes = []
    if len(chosen) < len(members):
        notes.append(f"Here are the {len(chosen)} of {plural(len(members), noun)} that are worth a look.")
    if large:
        notes.append(
            f"The figures of {plural(len(large), noun)} are left out, for a browser has no room for all of them; the "
            "list says which. A config with fewer members, or --set, shows them."
        )
    how = "Drag a box to zoom in, double-click to go back. Panels over the same axis move together."
    body = (
        tag("nav", tag("a", f"{title}: the report", href="report.html")),
        tag("h1", title),
        *(tag("p", note, class_="note") for note in notes),
        tag("p", how, class_="quiet"),
        tag("noscript", "These figures need JavaScript; report.html shows its own without."),
        tag("div", id="choice", class_="bar"),
        tag("section", id="member"),
        _data("about", json.dumps({"noun": noun, "members": told})),
        *(_data(f"figures-{anchor}", drawn) for anchor, drawn in figures.items()),
        tag("script", Html(get_plotlyjs())),
    )
    closed = tag("meta", content=_CLOSED, **{"http-equiv": "Content-Security-Policy"})
    return page(f"Interactive figures - {title}", body, resource("interactive.js"), closed)


def _data(name: str, text: str) -> Html:
    """JSON in a page, of which nothing can be taken for a tag."""
    return tag("script", Html(text.replace("<", "\\u003c")), type="application/json", id=name)


def _scatter(panel: Scatter) -> dict[str, Any]:
    points = list(dict.fromkeys(series.name for series in panel.series if not series.line))
    curves = list(dict.fromkeys(series.name for series in panel.series if series.line and series.name not in points))
    shown = [_series(panel, series, _look(series, points, curves)) for series in panel.series]
    axes = {axis: {"type": "log" if axis in panel.logarithmic else "linear"} for axis in "xy"}
    return _figure(panel, shown, axes["x"], axes["y"]) | {"along": {"xaxis": panel.x}}


class _Look(NamedTuple):
    """The colour of a series, the symbol of its points, and whether the legend has it already."""

    colour: str
    symbol: str
    known: bool


def _look(series: Series, points: Sequence[str], curves: Sequence[str]) -> _Look:
    """Colours in turn, those of points for the lines that have their names."""
    known = series.line and series.name in points
    colours, names = (_CURVES, curves) if series.name in curves else (_POINTS, points)
    turn, place = divmod(names.index(series.name), len(colours))
    return _Look(f"var(--{colours[place]})", _SYMBOLS[turn % len(_SYMBOLS)], known)


def _series(panel: Scatter, series: Series, style: _Look) -> _Shown:
    import plotly.graph_objects as go

    used, note = _drawn(panel, series)
    many = used.size > _MANY
    std = None if series.std is None else np.asarray(series.std, float)[used]
    look: dict[str, Any] = {"mode": "lines", "line": {"color": style.colour, "width": 1.6}}
    if not many:  # what is zoomed into has no corners
        look["line"]["simplify"] = False
    if not series.line:
        look = {"mode": "markers", "opacity": 0.6 if many else 0.85}
        look["marker"] = {"color": style.colour, "symbol": style.symbol, "size": 4 if many else 6}
        if std is not None:
            # a bar that is infinite would cover all others
            bars = np.where(np.isfinite(std), std, np.nan)
            look["error_y"] = {"array": bars, "color": style.colour, "thickness": 0.5 if many else 0.8, "width": 0}
    more = {name: np.asarray(values)[used] for name, values in series.more.items()}
    said = [] if std is None else [_said(std, 0, ".2~g")]
    said += [_said(values, k, ".8~g") for k, values in enumerate(more.values(), len(said))]
    names = ([] if std is None else ["±"]) + [_plain(name) for name in more]
    told = [f"{name} {each.text}" for name, each in zip(names, said, strict=True)]
    kind = go.Scattergl if many else go.Scatter
    trace = kind(
        x=np.asarray(series.x)[used],
        y=np.asarray(series.y)[used],
        name=_plain(series.name),
        legendgroup=_plain(series.name),
        showlegend=not style.known,
        customdata=_rows([each.values for each in said]),
        hovertemplate="<br>".join([f"{_plain(panel.x)} %{{x:.12~g}}", f"{_plain(panel.y)} %{{y:.6~g}}", *told]),
        **look,
    )
    return _Shown(trace, note)


class _Said(NamedTuple):
    """What is said of each point: numbers, all of them finite, or texts; and the place in a template that shows it."""

    values: np.ndarray
    text: str


def _said(values: np.ndarray, place: int, form: str) -> _Said:
    if np.issubdtype(values.dtype, np.number) and np.isfinite(values).all():
        return _Said(values.astype(float), f"%{{customdata[{place}]:{form}}}")
    return _Said(np.array([_plain(str(value)) for value in values.tolist()], object), f"%{{customdata[{place}]}}")


def _rows(columns: Sequence[np.ndarray]) -> Any:
    """What is said of each point, in rows; numbers and texts beside each other stay what they are."""
    if not columns:
        return None
    if any(values.dtype == object for values in columns):
        return [list(row) for row in zip(*(values.tolist() for values in columns), strict=True)]
    return np.stack(columns, axis=1)


def _drawn(panel: Scatter, series: Series) -> tuple[np.ndarray, str]:
    """Places of the points to draw, and what to say of the others; a line has gaps where it is not finite."""
    x, y = np.asarray(series.x), np.asarray(series.y)
    there = np.isfinite(x) & np.isfinite(y)
    for values, axis in ((x, "x"), (y, "y")):
        if axis in panel.logarithmic:
            there &= values > 0
    places = np.arange(x.size) if series.line else np.flatnonzero(there)
    step = max(-(-places.size // _MOST_POINTS), 1)
    lost, notes = int(there.size - there.sum()), []
    if lost and not series.line:
        notes.append(f"{lost} of {there.size} points have no place on these axes")
    if step > 1:
        notes.append(f"every {_nth(step)} of {places.size} points is shown")
    return places[::step], f"{series.name}: {', '.join(notes)}." if notes else ""


def _image(panel: Image) -> dict[str, Any]:
    import plotly.graph_objects as go

    values = np.asarray(panel.values, float)
    step = 1
    while -(-values.shape[0] // step) * -(-values.shape[1] // step) > MOST_CELLS:
        step += 1
    note = f"Every {_nth(step)} row and column of {values.shape[0]} x {values.shape[1]} is shown." if step > 1 else ""
    values, columns, rows = values[::step, ::step], panel.columns[::step], panel.rows[::step]
    seen = values[np.isfinite(values)]
    low, high = panel.limits or (tuple(np.percentile(seen, [1, 99])) if seen.size else (0.0, 1.0))
    if panel.signed:
        low, high = -max(abs(low), abs(high)), max(abs(low), abs(high))
    if not high > low:
        low, high = low - 0.5, high + 0.5
    if seen.size and (seen.min() < low or seen.max() > high):
        note = " ".join(filter(None, (note, f"Colours go from {low:.4g} to {high:.4g}, some values lie beyond.")))
    trace = go.Heatmap(
        z=values.astype(np.float32),
        x=columns,
        y=rows,
        zmin=float(low),
        zmax=float(high),
        colorscale="RdBu" if panel.signed else "Viridis",
        reversescale=panel.signed,
        hoverongaps=False,
        hovertemplate=f"{_plain(panel.x)} %{{x:.6~g}}<br>{_plain(panel.y)} %{{y:.6~g}}<br>"
        f"{_plain(panel.name)} %{{z:.5~g}}<extra></extra>",
        colorbar={"thickness": 10, "outlinewidth": 0, "exponentformat": "power"},
    )
    across, up = _ends(columns), _ends(rows[::-1])
    axes: list[dict[str, Any]] = [{"range": across, "constrain": "domain"}, {"range": up, "constrain": "domain"}]
    if panel.equal:
        axes[1] |= {"scaleanchor": "x", "scaleratio": 1}
    notes = [_Shown(trace, note), _Shown(None, panel.note)]
    shape = abs((up[1] - up[0]) / (across[1] - across[0])) if panel.equal else 0.0
    return _figure(panel, notes, *axes) | {"along": {"xaxis": panel.x, "yaxis": panel.y}, "shape": shape}


def _ends(middles: np.ndarray) -> list[float]:
    """The outer edges of cells with these middles."""
    steps = np.diff(middles) if len(middles) > 1 else np.ones(1)
    return [float(middles[0] - steps[0] / 2), float(middles[-1] + steps[-1] / 2)]


def _figure(
    panel: Scatter | Image, shown: Sequence[_Shown], across: Mapping[str, Any], up: Mapping[str, Any]
) -> dict[str, Any]:
    """A figure as plotly writes it, with its title and its notes for the page around it."""
    import plotly.graph_objects as go

    layout = {
        "template": "none",
        "xaxis": {**across, "title": {"text": _plain(panel.x)}},
        "yaxis": {**up, "title": {"text": _plain(panel.y)}},
    }
    made = go.Figure([each.trace for each in shown if each.trace is not None], layout)
    notes = [each.note for each in shown if each.note]
    return {"title": panel.title, "notes": notes, "figure": json.loads(made.to_json())}


def _plain(text: str) -> str:
    """A text that plotly shows letter by letter: it takes some tags for markup, and %{...} for a number's place."""
    return html.escape(text, quote=False).replace("%{", "&#37;{")


def _nth(step: int) -> str:
    """An ordinal number in digits."""
    ending = "th" if step % 100 in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(step % 10, "th")
    return f"{step}{ending}"
