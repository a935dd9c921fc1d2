"""report.html: one page that needs nothing but itself.

Written from the records of a run and from what the task says of them: its words, its columns, its tiles, its facts.
`write_report` calls `report` for runs of up to `MOST_DETAILS` members; `_batch_report` has the page of larger ones,
which shares its parts with this one.
"""

import importlib.resources
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ._html import Html, join, number, table, tag
from ._records import BAD, LOOK, as_json, label, looked_at, present, state
from ._task import GIVEN_UP, NOT_RUN, REFUSED, AbstractTask, Column, Record, Tile

Task = AbstractTask[Any, Any]

MOST_DETAILS = 60
"""Up to so many members have a section of their own in the page; a larger batch has a page of another kind."""

NO_FIGURES = "There are no figures because matplotlib is not installed: pip install 'jaxsci[plot]'"


def report(
    document: Mapping[str, Any],
    task: Task,
    anchors: Sequence[str],
    figures: Mapping[str, str],
    notes: Sequence[str],
    pictures: Mapping[str, str],
) -> str:
    """Write the page of a run.

    **Arguments:**

    - `document`: what `results.json` holds. `task`: says how to speak of its members.
    - `anchors`: the file name of each member. `figures`: SVG elements by those names.
    - `notes`: lines to show below the heading. `pictures`: SVG elements of the whole run, by title.
    """
    members, noun = document["members"], task.words.noun
    body = (
        heading(document),
        tiles(document, task),
        *(tag("p", note, class_="note") for note in notes),
        _failures(members, anchors, noun),
        _look(members, anchors, task),
        tag("h2", f"All {noun}s"),
        _overview(members, anchors, task),
        *gallery(pictures),
        tag("h2", f"Each {noun}"),
        *(section(anchor, member, task, figures.get(anchor)) for anchor, member in zip(anchors, members, strict=True)),
        tag("h2", "How it was run"),
        how_it_was_run(document),
    )
    return page(document["title"], body)


def page(title: str, body: Iterable[Any], script: str = "") -> str:
    """An HTML file with the style of all reports in it, and what else it needs."""
    css = resource("report.css")
    head = Html(
        '<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark">'
    )
    whole = tag(
        "html",
        tag("head", head, tag("title", title), tag("style", Html(css))),
        tag("body", tag("main", *body), tag("script", Html(script)) if script else ""),
        lang="en",
    )
    return f"<!doctype html>\n{whole}\n"


def resource(name: str) -> str:
    """A file that lies beside this one."""
    return importlib.resources.files("jaxsci.runs").joinpath(name).read_text(encoding="utf-8")


def heading(document: Mapping[str, Any]) -> Html:
    """Title, description, and when and with what it was run."""
    stopped = (
        "" if document["complete"] else tag("p", "The run was stopped; what was finished is below.", class_="note")
    )
    about = tag("p", document["description"], class_="lead") if document["description"] else ""
    when = f"{document['created']} · jaxsci {document['versions']['jaxsci']} · {document['seconds']:.1f} s"
    return tag("header", tag("h1", document["title"]), about, tag("p", when, class_="quiet"), stopped)


def gallery(pictures: Mapping[str, str]) -> list[Html]:
    """Figures of the whole run, each under its title."""
    return [part for title, svg in pictures.items() for part in (tag("h2", title), tag("figure", Html(svg)))]


def tiles(document: Mapping[str, Any], task: Task) -> Html:
    """The numbers to see first."""
    counts, look, words = document["counts"], looked_at(document["members"]), task.words
    shown = [Tile(counts["succeeded"], counts[f"{words.noun}s"], f"{words.noun}s {words.done}")]
    if look:
        shown.append(Tile(look, counts["succeeded"], "of them to look at: the reasons are below", partly=True))
    return tag("div", *map(_tile, (*shown, *task.tiles(counts))), class_="tiles")


def _tile(tile: Tile) -> Html:
    partly = tile.have != tile.of if tile.partly is None else tile.partly
    figure = tag("strong", f"{tile.have}", tag("span", f" / {tile.of}"))
    return tag("div", figure, tag("p", tile.text), class_="tile partly" if partly else "tile")


def _failures(members: Sequence[Record], anchors: Sequence[str], noun: str) -> Html:
    failed = [(anchor, m) for anchor, m in zip(anchors, members, strict=True) if not m["success"]]
    if not failed:
        return Html("")
    rows = [(_link(anchor, m["name"]), badge(m), m["message"]) for anchor, m in failed]
    title = "Failed" if any(m["result"] != NOT_RUN for _, m in failed) else "Not run"
    return join([tag("h2", title), table((noun, "result", "what to do"), rows)])


def _look(members: Sequence[Record], anchors: Sequence[str], task: Task) -> Html:
    there = [(anchor, m) for anchor, m in zip(anchors, members, strict=True) if state(m) == LOOK]
    if not there:
        return Html("")
    rows = [(tag("td", _link(anchor, m["name"]), class_="member"), remarks(m)) for anchor, m in there]
    return join([tag("h2", to_look_at(task)), table((task.words.noun, "what to look at"), rows)])


def to_look_at(task: Task) -> str:
    """The heading of members that went well and are to be looked at."""
    return f"{task.words.done.capitalize()}, to look at"


def remarks(member: Record) -> Html:
    """What to look at in one member."""
    return tag("td", *(tag("p", remark) for remark in member["look"]), class_="remarks")


def _overview(members: Sequence[Record], anchors: Sequence[str], task: Task) -> Html:
    columns = [column for column in present(task.columns, members) if column.heading]
    rows = [
        [_link(anchor, m["name"]), m["model"], badge(m), *(cell(m, column) for column in columns)]
        for anchor, m in zip(anchors, members, strict=True)
    ]
    head = [task.words.noun, "model", "result", *(column.heading for column in columns)]
    return table(head, rows, class_="overview")


def cell(member: Record, column: Column) -> Html:
    """A number of a member as its column writes it, marked where it is poor."""
    if column.key not in member:
        return number("")
    value = member[column.key]
    if isinstance(value, str):
        return tag("td", value)
    poor = column.poor_below is not None and not value >= column.poor_below
    return number(written(value, column.form), class_="number poor" if poor else "number")


def written(value: int | float, form: str) -> str:
    """A number as text; a dash for one that there is not."""
    return "\N{EN DASH}" if math.isnan(value) else f"{value:{form}}"


def section(anchor: str, member: Record, task: Task, figure: str | None) -> Html:
    """All of one member: how it ended, its facts, its figure, its parameters."""
    head = tag("h3", member["name"], " ", badge(member))
    if member["result"] in (NOT_RUN, REFUSED, GIVEN_UP):
        return tag("section", head, tag("p", member["message"]), id=anchor)
    on = f"{member['model']} on {member['source']}" if member["source"] else member["model"]
    kind = "note bad" if state(member) == BAD else "note"
    message = join(tag("p", text, class_=kind) for text in (member["message"], *member["look"]) if text)
    facts = tag("p", " · ".join((on, *task.facts(member))), class_="quiet")
    picture = tag("figure", Html(figure)) if figure else ""
    return tag("section", head, facts, message, picture, _parameters(member.get("parameters", ())), id=anchor)


def _parameters(rows: Sequence[Record]) -> Html:
    if not rows:
        return Html("")
    compared, units = any("reference" in r for r in rows), any(r["unit"] for r in rows)
    remarks = any(r["remarks"] for r in rows)
    head = ["parameter", "value", "standard error"]
    head += ["reference value", "digits", "reference std", "digits"] if compared else []
    head += (["unit"] if units else []) + ([""] if remarks else [])
    body: list[tuple[bool, list[Any]]] = []
    for r in rows:
        cells: list[Any] = [tag("td", r["name"], class_="name")]
        error = "" if "std" not in r else _exact(r["std"]) if compared else f"{r['std']:.2g}"
        cells += [
            number(r.get("text") or _value(r["value"], r.get("std", math.nan), compared)),
            number(r.get("std_text", error)),
        ]
        if compared:
            cells += [number(_exact(r.get("reference"))), _digits(r, "lre")]
            cells += [number(_exact(r.get("reference_std"))), _digits(r, "lre_std")]
        cells += ([r.get("unit_text", r["unit"])] if units else []) + ([", ".join(r["remarks"])] if remarks else [])
        body.append((r.get("folded", False), cells))
    shown, folded = ([cells for fold, cells in body if fold is which] for which in (False, True))
    if not folded:
        return table(head, shown)
    more = tag("details", tag("summary", f"{len(folded)} more"), table(head, folded))
    return join([table(head, shown) if shown else "", more])


def how_it_was_run(document: Mapping[str, Any]) -> Html:
    """Config, device and versions."""
    device, versions = document["device"], document["versions"]
    rows = [
        ("config", document["config_file"]),
        ("device", f"{device['platform']}: {device['count']} x {device['kind']}, double precision"),
        ("versions", ", ".join(f"{name} {version}" for name, version in versions.items())),
        *(("choice", choice) for choice in document["choices"]),
    ]
    config = tag("details", tag("summary", "The config as run"), tag("pre", as_json(document["config"])))
    facts = tag("dl", *(join([tag("dt", name), tag("dd", text)]) for name, text in rows))
    return join([facts, config])


def _link(anchor: str, name: str) -> Html:
    return tag("a", name, href=f"#{anchor}")


def badge(member: Record) -> Html:
    """How a member ended, in colour."""
    return tag("span", label(member), class_=f"badge {state(member)}")


def _digits(row: Mapping[str, Any], key: str) -> Html:
    """Digits of agreement, marked where there are fewer than six."""
    if key not in row:
        return number("")
    value = row[key]
    return number(
        "\N{EN DASH}" if math.isnan(value) else f"{value:.1f}", class_="number" if value >= 6 else "number poor"
    )


def _value(value: float, std: float, compared: bool) -> str:
    """Enough digits to compare with a reference; else to two digits of the error."""
    if compared or not (math.isfinite(std) and math.isfinite(value) and std > 0 and value != 0):
        return _exact(value)
    digits = math.floor(math.log10(abs(value))) - math.floor(math.log10(std)) + 2
    return f"{value:.{min(max(digits, 2), 15)}g}"


def _exact(value: float | None) -> str:
    return "" if value is None else f"{value:.11g}"
