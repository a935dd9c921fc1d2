"""report.html of a large batch: what it looks like as a whole, and pages for the members worth a look."""

import collections
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..fitting import LOOK
from ._html import Html, join, number, table, tag
from ._report import MOST_DETAILS, badge, gallery, heading, how_it_was_run, page, remarks, resource, section, tiles
from ._results import label

_FAILED, _LOOKED, _WORST, _FIRST = 12, 6, 12, 6
"""So many members of each sort have a page of their own."""

_MOST_REASONS = 50
_MOST_ROWS = 20_000
_MOST_COLUMNS = 8
_MOST_HISTOGRAMS = 11
_MOST_GROUPS = 4

Record = Mapping[str, Any]


def worth_a_look(records: Sequence[Record]) -> list[int]:
    """Places of the members that get a figure: all of a small run; else failures, largest chi2/dof, the first few."""
    if len(records) <= MOST_DETAILS:
        return list(range(len(records)))
    return list(_reasons_to_look(records))


def _reasons_to_look(records: Sequence[Record]) -> dict[int, str]:
    failed = [k for k, r in enumerate(records) if not r["success"] and r["result"] != "not_run"]
    fine = [k for k, r in enumerate(records) if r["success"]]
    look = [k for k in fine if records[k]["verdict"] == LOOK]
    worst = sorted((k for k in fine if records[k]["reduced_chi2"] > 0), key=lambda k: -records[k]["reduced_chi2"])
    chosen: dict[int, str] = {}
    for places, why in (
        (failed[:_FAILED], "failed"),
        (look[:_LOOKED], "to look at"),
        (worst[:_WORST], "among the largest χ² / dof"),
        (fine[:_FIRST], "among the first"),
    ):
        for place in places:
            chosen.setdefault(place, why)
    return chosen


def histogram_columns(records: Sequence[Record]) -> dict[str, dict[str, np.ndarray]]:
    """{figure: {label: values}} of the members that converged: a figure for each of the models used most."""
    groups: dict[Any, list[Record]] = {}
    for r in records:
        if r["success"]:
            groups.setdefault((r["model"], tuple(p["name"] for p in r["parameters"])), []).append(r)
    largest = sorted(groups.items(), key=lambda item: -len(item[1]))[:_MOST_GROUPS]
    figures = {}
    for k, ((_, names), members) in enumerate(largest):
        units = [p["unit"] for p in members[0]["parameters"]]
        columns = {"χ² / dof": np.array([m["reduced_chi2"] for m in members])}
        for i, (name, unit) in enumerate(list(zip(names, units, strict=True))[:_MOST_HISTOGRAMS]):
            label = f"{name} ({unit})" if unit else name
            columns[label] = np.array([m["parameters"][i]["value"] for m in members])
        figures[f"histograms-{k + 1}"] = columns
    return figures


def batch_report(
    document: Mapping[str, Any],
    pages: Mapping[int, str],
    figures: Mapping[str, str],
    notes: Sequence[str],
    pictures: Mapping[str, str],
) -> str:
    """The page of a large batch.

    **Arguments:**

    - `document`: what `results.json` holds.
    - `pages`: the name of the page of each member that has one, by its place.
    - `figures`: SVG elements by name. `notes`: lines to show below the heading.
    - `pictures`: SVG elements of the whole run, by title.
    """
    members = document["members"]
    histograms = [figures[name] for name in figures if name.startswith("histograms-")]
    body = (
        heading(document),
        tiles(document),
        *(tag("p", note, class_="note") for note in notes),
        _endings(members),
        tag("h2", "Distributions") if histograms else "",
        *(tag("figure", Html(svg)) for svg in histograms),
        *gallery(pictures),
        _failures(members, pages),
        _to_look_at(members, pages),
        _look(members, pages),
        tag("h2", "All fits"),
        _all(members, pages),
        tag("h2", "How it was run"),
        how_it_was_run(document),
    )
    return page(document["title"], body, resource("report.js"))


def member_page(document: Mapping[str, Any], anchor: str, member: Record, figure: str | None) -> str:
    """The page of one member of a large batch."""
    back = tag("p", tag("a", f"{document['title']}: all fits", href="../report.html"), class_="quiet")
    return page(f"{member['name']} - {document['title']}", (back, section(anchor, member, figure)))


def _endings(members: Sequence[Record]) -> Html:
    counts = collections.Counter(label(m) for m in members)
    if len(counts) == 1:
        return Html("")
    example = {label(m): m for m in reversed(members)}
    rows = [(badge(example[code]), number(count)) for code, count in counts.most_common()]
    return join([tag("h2", "How they ended"), table(("result", "fits"), rows)])


def _failures(members: Sequence[Record], pages: Mapping[int, str]) -> Html:
    failed = [(k, m) for k, m in enumerate(members) if not m["success"] and m["result"] != "not_run"]
    if not failed:
        return Html("")
    rows = [(_name(k, m, pages), badge(m), m["message"]) for k, m in failed[:_MOST_REASONS]]
    more = len(failed) - len(rows)
    note = tag("p", f"{more} more, with their reasons, are in results.json and log.txt.", class_="note")
    return join([tag("h2", "Failed"), table(("fit", "result", "what to do"), rows), note if more > 0 else ""])


def _to_look_at(members: Sequence[Record], pages: Mapping[int, str]) -> Html:
    there = [(k, m) for k, m in enumerate(members) if m["verdict"] == LOOK]
    if not there:
        return Html("")
    rows = [(_name(k, m, pages), remarks(m)) for k, m in there[:_MOST_REASONS]]
    more = len(there) - len(rows)
    note = tag("p", f"{more} more, with their reasons, are in results.csv and results.json.", class_="note")
    head = ("fit", "what to look at")
    return join([tag("h2", "Converged, to look at"), table(head, rows), note if more > 0 else ""])


def _look(members: Sequence[Record], pages: Mapping[int, str]) -> Html:
    reasons = _reasons_to_look(members)
    rows = [
        (_name(k, members[k], pages), why, badge(members[k]), number(_short(members[k].get("reduced_chi2"))))
        for k, why in reasons.items()
        if k in pages
    ]
    if not rows:
        return Html("")
    return join([tag("h2", "Worth a look"), table(("fit", "why", "result", "χ² / dof"), rows)])


def _all(members: Sequence[Record], pages: Mapping[int, str]) -> Html:
    """A table that the page's script sorts, filters and turns over."""
    names = list(dict.fromkeys(p["name"] for m in members for p in m.get("parameters", ())))
    shown = names[:_MOST_COLUMNS]
    rows = []
    for k, m in enumerate(members[:_MOST_ROWS]):
        values = {p["name"]: p["value"] for p in m.get("parameters", ())}
        cells = [m["name"], label(m), m.get("num_steps"), _number(m.get("reduced_chi2"))]
        rows.append([pages.get(k, ""), *cells, *(_number(values.get(name)) for name in shown)])
    head = ["fit", "result", "steps", "χ² / dof", *shown]
    data = json.dumps({"head": head, "rows": rows}, allow_nan=False).replace("</", "<\\/")
    notes = []
    if len(members) > len(rows):
        notes.append(f"the first {len(rows)} of {len(members)} fits")
    if len(names) > len(shown):
        notes.append(f"the first {len(shown)} of {len(names)} parameters")
    here = f" Here: {' and '.join(notes)}." if notes else ""
    return join(
        [
            tag("p", f"Errors and everything else are in results.csv and results.json.{here}", class_="quiet"),
            tag("script", Html(data), type="application/json", id="rows"),
            tag("div", tag("noscript", "This table needs JavaScript; results.csv has all of it."), id="all"),
        ]
    )


def _name(place: int, member: Record, pages: Mapping[int, str]) -> Html:
    name = member["name"]
    shown = tag("a", name, href=f"members/{pages[place]}.html") if place in pages else name
    return tag("td", shown, class_="fit")


def _number(value: float | None) -> float | str | None:
    """Five digits; JSON has no infinities."""
    if value is None or isinstance(value, int):
        return value
    return float(f"{value:.5g}") if math.isfinite(value) else str(value)


def _short(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"
