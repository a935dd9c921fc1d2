"""report.html: one page that needs nothing but itself."""

import importlib.resources
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ..fitting import CONVERGED, FAILED, LOOK
from ._html import Html, join, number, table, tag
from ._results import as_json, label

MOST_DETAILS = 60
"""Up to so many members have a section of their own in the page; a larger batch has a page of another kind."""

NO_FIGURES = "There are no figures because matplotlib is not installed: pip install 'jaxsci[plot]'"


def report(
    document: Mapping[str, Any],
    anchors: Sequence[str],
    figures: Mapping[str, str],
    notes: Sequence[str],
    pictures: Mapping[str, str],
) -> str:
    """The page of a run.

    **Arguments:**

    - `document`: what `results.json` holds.
    - `anchors`: the file name of each member. `figures`: SVG elements by those names.
    - `notes`: lines to show below the heading. `pictures`: SVG elements of the whole run, by title.
    """
    members = document["members"]
    body = (
        heading(document),
        tiles(document),
        *(tag("p", note, class_="note") for note in notes),
        _failures(members, anchors),
        _look(members, anchors),
        tag("h2", "All fits"),
        _overview(members, anchors),
        *gallery(pictures),
        tag("h2", "Each fit"),
        *(section(anchor, member, figures.get(anchor)) for anchor, member in zip(anchors, members, strict=True)),
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
    return importlib.resources.files("jaxsci.cli").joinpath(name).read_text(encoding="utf-8")


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


def tiles(document: Mapping[str, Any]) -> Html:
    """The numbers to see first."""
    counts, look = document["counts"], document["verdicts"].get(LOOK, 0)
    shown = [tile(counts["succeeded"], counts["fits"], "fits converged")]
    if look:
        shown.append(tile(look, counts["succeeded"], "of them to look at: the reasons are below", partly=True))
    if "compared" in counts:
        of = counts["compared"]
        shown += [
            tile(counts["values_to_6_digits"], of, "agree to 6 digits or more, all values"),
            tile(counts["values_to_9_digits"], of, "agree to 9 digits or more, all values"),
            tile(counts["std_to_6_digits"], of, "agree to 6 digits or more, all standard errors"),
        ]
    return tag("div", *shown, class_="tiles")


def tile(have: int, of: int, text: str, partly: bool | None = None) -> Html:
    """One number out of another; amber where it is less, or as `partly` says."""
    partly = have != of if partly is None else partly
    figure = tag("strong", f"{have}", tag("span", f" / {of}"))
    return tag("div", figure, tag("p", text), class_="tile partly" if partly else "tile")


def _failures(members: Sequence[Mapping[str, Any]], anchors: Sequence[str]) -> Html:
    failed = [(anchor, m) for anchor, m in zip(anchors, members, strict=True) if not m["success"]]
    if not failed:
        return Html("")
    rows = [(_link(anchor, m["name"]), badge(m), m["message"]) for anchor, m in failed]
    return join([tag("h2", "Failed" if any(m["result"] != "not_run" for _, m in failed) else "Not run"),
                 table(("fit", "result", "what to do"), rows)])  # fmt: skip


def _look(members: Sequence[Mapping[str, Any]], anchors: Sequence[str]) -> Html:
    there = [(anchor, m) for anchor, m in zip(anchors, members, strict=True) if m["verdict"] == LOOK]
    if not there:
        return Html("")
    rows = [(tag("td", _link(anchor, m["name"]), class_="fit"), remarks(m)) for anchor, m in there]
    return join([tag("h2", "Converged, to look at"), table(("fit", "what to look at"), rows)])


def remarks(member: Mapping[str, Any]) -> Html:
    """What to look at in one fit."""
    return tag("td", *(tag("p", remark) for remark in member["look"]), class_="remarks")


def _overview(members: Sequence[Mapping[str, Any]], anchors: Sequence[str]) -> Html:
    compared = any("worst_lre" in m for m in members)
    head = ["fit", "model", "result", "data", "free", "steps", "χ²", "χ² / dof"]
    head += ["digits, values", "digits, std"] if compared else []
    rows = []
    for anchor, m in zip(anchors, members, strict=True):
        cells = [_link(anchor, m["name"]), m["model"], badge(m)]
        if "num_data" in m:
            cells += [number(m["num_data"]), number(m["num_free"]), number(m["num_steps"])]
            cells += [number(f"{m['chi2']:.6g}"), number(f"{m['reduced_chi2']:.4g}")]
            cells += [_digits(m, "worst_lre"), _digits(m, "worst_lre_std")] if compared else []
        rows.append(cells + [""] * (len(head) - len(cells)))
    return table(head, rows, class_="overview")


def section(anchor: str, member: Mapping[str, Any], figure: str | None) -> Html:
    """All of one member: how its fit ended, its figure, its parameters."""
    head = tag("h3", member["name"], " ", badge(member))
    if "parameters" not in member:
        return tag("section", head, tag("p", member["message"]), id=anchor)
    facts = [
        f"{member['model']} on {member['source']}",
        f"χ² {member['chi2']:.8g} for {member['dof']} degrees of freedom",
        f"rank {member['rank']} of {member['num_free']}",
        f"{member['num_steps']} steps",
    ]
    if member["errors_scaled"]:
        facts.append("errors scaled by √(χ²/dof)")
    facts += member.get("facts", [])
    kind = "note bad" if member["verdict"] == FAILED else "note"
    message = join(tag("p", text, class_=kind) for text in (member["message"], *member["look"]) if text)
    picture = tag("figure", Html(figure)) if figure else ""
    return tag(
        "section", head, tag("p", " · ".join(facts), class_="quiet"), message, picture, _parameters(member), id=anchor
    )


def _parameters(member: Mapping[str, Any]) -> Html:
    rows = member["parameters"]
    compared, units = any("reference" in r for r in rows), any(r["unit"] for r in rows)
    remarks = any(r["remarks"] for r in rows)
    head = ["parameter", "value", "standard error"]
    head += ["reference value", "digits", "reference std", "digits"] if compared else []
    head += (["unit"] if units else []) + ([""] if remarks else [])
    body: list[tuple[bool, list[Any]]] = []
    for r in rows:
        cells: list[Any] = [tag("td", r["name"], class_="name")]
        cells += [
            number(r.get("text") or _value(r["value"], r["std"], compared)),
            number(_exact(r["std"]) if compared else f"{r['std']:.2g}"),
        ]
        if compared:
            cells += [number(_exact(r.get("reference"))), _digits(r, "lre")]
            cells += [number(_exact(r.get("reference_std"))), _digits(r, "lre_std")]
        cells += ([r["unit"]] if units else []) + ([", ".join(r["remarks"])] if remarks else [])
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


def badge(member: Mapping[str, Any]) -> Html:
    """How a fit ended, in colour."""
    kind = {CONVERGED: "good", LOOK: "look", FAILED: "bad"}.get(member["verdict"], "off")
    return tag("span", label(member), class_=f"badge {kind}")


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
