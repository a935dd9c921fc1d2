"""report.html of a large batch: what it looks like as a whole, and pages for the members worth a look.

Thousands of sections and figures would make a page that no browser opens. So there are histograms of the task's columns
and of the parameters, a table that the page's own script sorts and filters, and pages of their own for members: for all
of some hundreds; of more, for those that failed, are to be looked at, or have the largest values of a column that the
task watches, which are also those with a figure.
"""

import collections
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ._figures import Drawn
from ._html import Html, join, number, table, tag
from ._records import LOOK, label, present, state
from ._report import (
    MOST_DETAILS,
    Content,
    Part,
    Task,
    badge,
    bodies,
    gallery,
    how_it_was_run,
    page,
    remarks,
    resource,
    section,
    shown,
    to_look_at,
    top,
    zoom,
)
from ._task import NOT_RUN, Column, Record

_FAILED, _LOOKED, _WORST, _FIRST = 12, 6, 12, 6
"""So many members of each sort are worth a look."""

_TABLE, _RESULTS = (tag("a", name, href=name) for name in ("results.csv", "results.json"))

_MOST_REASONS = 50
_MOST_ROWS = 20_000
_MOST_COLUMNS = 8
_MOST_HISTOGRAMS = 11
_MOST_GROUPS = 4

MOST_PAGES = 600
"""Up to so many members have a page each; of more, those that are worth a look."""


def worth_a_look(records: Sequence[Record], task: Task) -> list[int]:
    """Places of the members that get a figure: all of a small run; else failures, largest values, the first few."""
    if len(records) <= MOST_DETAILS:
        return list(range(len(records)))
    return list(_reasons_to_look(records, task))


def _watched(task: Task) -> list[Column]:
    return [column for column in task.columns if column.watch]


def _reasons_to_look(records: Sequence[Record], task: Task) -> dict[int, str]:
    failed = [k for k, r in enumerate(records) if not r["success"] and r["result"] != NOT_RUN]
    fine = [k for k, r in enumerate(records) if r["success"]]
    look = [k for k in fine if state(records[k]) == LOOK]
    reasons = [(failed[:_FAILED], "failed"), (look[:_LOOKED], "to look at")]
    for column in _watched(task):
        key = column.key
        worst = sorted((k for k in fine if records[k].get(key, 0) > 0), key=lambda k: -records[k][key])
        reasons.append((worst[:_WORST], f"among the largest {column.heading}"))
    chosen: dict[int, str] = {}
    for places, why in (*reasons, (fine[:_FIRST], "among the first")):
        for place in places:
            chosen.setdefault(place, why)
    return chosen


def histogram_columns(records: Sequence[Record], task: Task) -> dict[str, dict[str, np.ndarray]]:
    """{figure: {label: values}} of the members that went well: a figure for each of the models used most."""
    groups: dict[Any, list[Record]] = {}
    for r in records:
        if r["success"]:
            groups.setdefault((r["model"], tuple(p["name"] for p in r.get("parameters", ()))), []).append(r)
    largest = sorted(groups.items(), key=lambda item: -len(item[1]))[:_MOST_GROUPS]
    figures = {}
    for k, ((_, names), members) in enumerate(largest):
        columns = {
            column.heading: np.array([m.get(column.key, math.nan) for m in members]) for column in _watched(task)
        }
        for i, name in enumerate(names[:_MOST_HISTOGRAMS]):
            unit = members[0]["parameters"][i]["unit"]
            label = f"{name} ({unit})" if unit else name
            columns[label] = np.array([m["parameters"][i]["value"] for m in members])
        if columns:
            figures[f"histograms-{k + 1}"] = columns
    return figures


def batch_report(content: Content, pages: Mapping[int, str]) -> str:
    """Write the page of a large batch.

    **Arguments:** `pages`: the name of the page of each member that has one, by its place.
    """
    members, noun, task, figures = content.members, content.noun, content.task, content.figures
    histograms = join(shown(figures[name]) for name in figures if name.startswith("histograms-"))
    parts = (
        Part("endings", "How they ended", _endings(members, noun)),
        Part("distributions", "Distributions", histograms),
        *gallery(content.pictures),
        Part("failed", "Failed", _failures(members, pages, noun)),
        Part("look", to_look_at(task), _to_look_at(members, pages, task)),
        Part("worth", "Worth a look", _look(content, pages)),
        Part("all", f"All {noun}s", _all(members, pages, task)),
        Part("how", "How it was run", how_it_was_run(content)),
    )
    script = resource("find.js") + resource("report.js")
    return page(content.document["title"], (*top(content, parts), *bodies(parts)), script)


def member_page(content: Content, place: int, near: Mapping[str, str]) -> str:
    """The page of one member of a large batch.

    **Arguments:** `near`: the pages before and after it, by what they are called.
    """
    title, member, anchor = content.document["title"], content.members[place], content.anchors[place]
    links = (tag("a", text, href=f"{name}.html") for text, name in near.items())
    back = tag("nav", tag("a", f"{title}: all {content.noun}s", href="../report.html"), *links)
    whole = section(anchor, member, content.task, content.figures.get(anchor), "../", zoom(content, anchor, "../"))
    return page(f"{member['name']} - {title}", (back, whole))


def _endings(members: Sequence[Record], noun: str) -> Html:
    counts = collections.Counter(label(m) for m in members)
    if len(counts) == 1:
        return Html("")
    example = {label(m): m for m in reversed(members)}
    rows = [(badge(example[code]), number(count)) for code, count in counts.most_common()]
    return table(("result", f"{noun}s"), rows)


def _failures(members: Sequence[Record], pages: Mapping[int, str], noun: str) -> Html:
    failed = [(k, m) for k, m in enumerate(members) if not m["success"] and m["result"] != NOT_RUN]
    if not failed:
        return Html("")
    rows = [(_name(k, m, pages), badge(m), m["message"]) for k, m in failed[:_MOST_REASONS]]
    more = len(failed) - len(rows)
    where = tag("a", f"in the table of all {noun}s, which can be searched,", href="#all")
    note = tag("p", f"{more} more, with their reasons, are ", where, " and in ", _RESULTS, ".", class_="note")
    return join([table((noun, "result", "what to do"), rows, class_="found"), note if more > 0 else ""])


def _to_look_at(members: Sequence[Record], pages: Mapping[int, str], task: Task) -> Html:
    there = [(k, m) for k, m in enumerate(members) if state(m) == LOOK]
    if not there:
        return Html("")
    rows = [(_name(k, m, pages), remarks(m)) for k, m in there[:_MOST_REASONS]]
    more = len(there) - len(rows)
    note = tag("p", f"{more} more, with their reasons, are in ", _TABLE, " and ", _RESULTS, ".", class_="note")
    return join([table((task.words.noun, "what to look at"), rows, class_="found"), note if more > 0 else ""])


def _look(content: Content, pages: Mapping[int, str]) -> Html:
    members, task = content.members, content.task
    reasons, watched = _reasons_to_look(members, task), _watched(task)
    rows = [
        (
            _name(k, members[k], pages),
            _thumbnail(content.figures.get(pages[k]), pages[k]),
            tag("td", why, class_="short"),
            badge(members[k]),
            *(number(_short(members[k].get(column.key))) for column in watched),
        )
        for k, why in reasons.items()
        if k in pages
    ]
    if not rows:
        return Html("")
    return table(
        (content.noun, "figure", "why", "result", *(column.heading for column in watched)), rows, class_="found"
    )


def _thumbnail(figure: Drawn | None, anchor: str) -> Html:
    return tag("a", figure.image, href=f"members/{anchor}.html") if figure else Html("")


def _all(members: Sequence[Record], pages: Mapping[int, str], task: Task) -> Html:
    """A table that the page's script sorts, filters and turns over."""
    noun, columns = task.words.noun, [column for column in present(task.columns, members) if column.batch]
    names = list(dict.fromkeys(p["name"] for m in members for p in m.get("parameters", ())))
    shown = names[:_MOST_COLUMNS]
    rows = []
    for k, m in enumerate(members[:_MOST_ROWS]):
        values = {p["name"]: p["value"] for p in m.get("parameters", ())}
        cells = [m["name"], label(m), *(_number(m.get(column.key)) for column in columns)]
        rows.append([pages.get(k, ""), *cells, *(_number(values.get(name)) for name in shown)])
    head = [noun, "result", *(column.heading for column in columns), *shown]
    kinds = {label(m): state(m) for m in members}
    why = {m["name"]: m["message"] for m in members[:_MOST_ROWS] if m["message"]}
    content = {"head": head, "rows": rows, "kinds": kinds, "noun": noun, "why": why}
    data = json.dumps(content, allow_nan=False).replace("</", "<\\/")
    notes = []
    if len(members) > len(rows):
        notes.append(f"the first {len(rows)} of {len(members)} {noun}s")
    if len(names) > len(shown):
        notes.append(f"the first {len(shown)} of {len(names)} parameters")
    here = f" Here: {' and '.join(notes)}." if notes else ""
    return join(
        [
            tag("p", "Errors and everything else are in ", _TABLE, " and ", _RESULTS, f".{here}", class_="quiet"),
            tag("script", Html(data), type="application/json", id="rows"),
            tag("div", tag("noscript", "This table needs JavaScript; results.csv has all of it."), id="rows-of-all"),
        ]
    )


def _name(place: int, member: Record, pages: Mapping[int, str]) -> Html:
    name = member["name"]
    shown = tag("a", name, href=f"members/{pages[place]}.html") if place in pages else name
    return tag("td", shown, class_="member")


def _number(value: int | float | str | None) -> int | float | str | None:
    """Five digits; JSON has no infinities."""
    if value is None or isinstance(value, int | str):
        return value
    return float(f"{value:.5g}") if math.isfinite(value) else str(value)


def _short(value: int | float | None) -> str:
    return "" if value is None else f"{value:.4g}"
