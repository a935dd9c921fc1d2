"""report.html: one page that needs nothing but itself.

Written from the records of a run and from what the task says of them: its words, its columns, its tiles, its facts.
`write_report` calls `report` for runs of up to `MOST_DETAILS` members; `_batch_report` has the page of larger ones,
which shares its parts with this one.
"""

import dataclasses
import importlib.resources
import math
import urllib.parse
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ._figures import Drawn
from ._html import Html, join, number, table, tag
from ._records import BAD, LOOK, as_json, label, looked_at, present, slugs, state
from ._task import GIVEN_UP, NOT_RUN, REFUSED, AbstractTask, Column, Record, Tile

Task = AbstractTask[Any, Any]

MOST_DETAILS = 60
"""Up to so many members have a section of their own in the page; a larger batch has a page of another kind."""

_MOST_FILES = 40  # of data that are linked

NO_FIGURES = "There are no figures because matplotlib is not installed: pip install 'jaxsci[plot]'"


@dataclasses.dataclass(frozen=True)
class Content:
    """What a page is made of.

    - `document`: what `results.json` holds. `task`: says how to speak of its members.
    - `anchors`: the file name of each member. `figures`: figures by those names.
    - `notes`: lines to show below the heading. `pictures`: figures of the whole run, by title.
    - `beside`: the files and folders that lie beside the page. `interactive`: the members, by their file names, whose
      figures are in interactive.html too; `None` where there is no such page.
    """

    document: Mapping[str, Any]
    task: Task
    anchors: Sequence[str]
    figures: Mapping[str, Drawn]
    notes: Sequence[str]
    pictures: Mapping[str, Drawn]
    beside: Sequence[str] = ()
    interactive: frozenset[str] | None = None

    @property
    def members(self) -> Sequence[Record]:
        """The records of all members."""
        members: Sequence[Record] = self.document["members"]
        return members

    @property
    def noun(self) -> str:
        """What a member is called."""
        return self.task.words.noun


class Part(NamedTuple):
    """A part of a page below its heading: the name it is linked by, its title, and what it shows; empty for nothing."""

    name: str
    title: str
    body: Html


def report(content: Content) -> str:
    """Write the page of a run."""
    members, noun, task = content.members, content.noun, content.task
    failed = [(anchor, m) for anchor, m in zip(content.anchors, members, strict=True) if not m["success"]]
    there = [(anchor, m) for anchor, m in zip(content.anchors, members, strict=True) if state(m) == LOOK]
    tried = any(m["result"] != NOT_RUN for _, m in failed)
    each = (
        section(anchor, member, task, content.figures.get(anchor), below=zoom(content, anchor))
        for anchor, member in zip(content.anchors, members, strict=True)
    )
    several = len(members) > 1
    parts = (
        Part("failed", "Failed" if tried or not failed else "Not run", _failures(failed, noun)),
        Part("look", to_look_at(task), _look(there, noun)),
        Part("all", f"All {noun}s" if several else f"The {noun}", _overview(content)),
        *gallery(content.pictures),
        Part("each", f"Each {noun}" if several else "Figure and parameters", join(each)),
        Part("how", "How it was run", how_it_was_run(content)),
    )
    return page(content.document["title"], (*top(content, parts), *bodies(parts)), resource("find.js"))


def top(content: Content, parts: Sequence[Part]) -> tuple[Html, ...]:
    """What stands above the parts of a page: title, links to the parts, numbers to see first, notes."""
    links = [tag("a", part.title, href=f"#{part.name}") for part in parts if part.body]
    links += [] if content.interactive is None else [tag("a", "Interactive figures", href="interactive.html")]
    said = (*content.notes, *content.task.notes(content.members))
    return (
        heading(content.document),
        tag("nav", *links),
        tiles(content.document, content.task),
        *(tag("p", note, class_="note") for note in said),
    )


def bodies(parts: Iterable[Part]) -> list[Html]:
    """The parts that show something, each under its title."""
    return [join([tag("h2", part.title, id=part.name), part.body]) for part in parts if part.body]


def page(title: str, body: Iterable[Any], script: str = "", more: Html = Html("")) -> str:
    """An HTML file with the style of all reports in it, and what else it needs; `more` goes into its head."""
    css = resource("report.css")
    head = Html(
        '<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark">'
    )
    whole = tag(
        "html",
        tag("head", head, more, tag("title", title), tag("style", Html(css))),
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


def gallery(pictures: Mapping[str, Drawn]) -> list[Part]:
    """Figures of the whole run, each a part of the page."""
    names = slugs([f"picture {title}" for title in pictures])
    return [Part(name, title, shown(drawn)) for name, (title, drawn) in zip(names, pictures.items(), strict=True)]


def shown(drawn: Drawn) -> Html:
    """A figure in a page."""
    return tag("figure", drawn.markup)


def tiles(document: Mapping[str, Any], task: Task) -> Html:
    """The numbers to see first."""
    counts, look, words = document["counts"], looked_at(document["members"]), task.words
    total = counts[f"{words.noun}s"]
    first = [Tile(counts["succeeded"], total, f"{words.noun}{'s' * (total != 1)} {words.done}")]
    if look:
        first.append(Tile(look, counts["succeeded"], "of them to look at: the reasons are below", partly=True))
    return tag("div", *map(_tile, (*first, *task.tiles(counts))), class_="tiles")


def _tile(tile: Tile) -> Html:
    partly = tile.have != tile.of if tile.partly is None else tile.partly
    figure = tag("strong", f"{tile.have}", tag("span", f" / {tile.of}"))
    return tag("div", figure, tag("p", tile.text), class_="tile partly" if partly else "tile")


def _failures(failed: Sequence[tuple[str, Record]], noun: str) -> Html:
    rows = [(_member(anchor, m), badge(m), m["message"]) for anchor, m in failed]
    return table((noun, "result", "what to do"), rows, class_="found") if rows else Html("")


def _look(there: Sequence[tuple[str, Record]], noun: str) -> Html:
    rows = [(_member(anchor, m), remarks(m)) for anchor, m in there]
    return table((noun, "what to look at"), rows, class_="found") if rows else Html("")


def to_look_at(task: Task) -> str:
    """The heading of members that went well and are to be looked at."""
    return f"{task.words.done.capitalize()}, to look at"


def remarks(member: Record) -> Html:
    """What to look at in one member."""
    return tag("td", *(tag("p", remark) for remark in member["look"]), class_="remarks")


def _overview(content: Content) -> Html:
    members, anchors = content.members, content.anchors
    columns = [column for column in present(content.task.columns, members) if column.heading]
    rows = [
        [_member(anchor, m), m["model"], badge(m), *(cell(m, column) for column in columns)]
        for anchor, m in zip(anchors, members, strict=True)
    ]
    head = [content.noun, "model", "result", *(column.heading for column in columns)]
    if len(members) > 1 and content.figures:
        head.insert(1, "figure")
        for anchor, row in zip(anchors, rows, strict=True):
            small = content.figures.get(anchor)
            row.insert(1, tag("a", small.thumbnail, href=f"#{anchor}") if small else "")
    return table(head, rows, class_="overview found")


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


def zoom(content: Content, anchor: str, base: str = "") -> Html:
    """The link to a member's interactive figures, if it has any; `base` as in `section`."""
    if anchor not in (content.interactive or ()):
        return Html("")
    link = tag("a", "interactive figures", href=f"{base}interactive.html#{anchor}")
    return tag("p", "to zoom into: ", link, class_="quiet")


def section(
    anchor: str, member: Record, task: Task, figure: Drawn | None, base: str = "", below: Html = Html("")
) -> Html:
    """All of one member: how it ended, its facts, its figure, its parameters, its files.

    **Arguments:** `base`: from the page to the folder of report.html. `below`: what goes below the figure.
    """
    head = tag("h3", member["name"], " ", badge(member))
    if member["result"] in (NOT_RUN, REFUSED, GIVEN_UP):
        return tag("section", head, tag("p", member["message"]), id=anchor)
    on = f"{member['model']} on {member['source']}" if member["source"] else member["model"]
    kind = "note bad" if state(member) == BAD else "note"
    message = join(tag("p", text, class_=kind) for text in (member["message"], *member["look"]) if text)
    facts = tag("p", " · ".join((on, *task.facts(member))), class_="quiet")
    picture = join([shown(figure) if figure else "", below])
    files = [figure.file] if figure else []
    files += [member["solution"]["file"]] if "solution" in member else []
    files += member.get("files", [])
    links = join(part for file in files for part in (" · ", _file(file, base + file)))
    where = tag("p", "files:", Html(links.removeprefix(" ·")), class_="quiet files") if files else ""
    return tag("section", head, facts, message, picture, _parameters(member.get("parameters", ())), where, id=anchor)


def _parameters(rows: Sequence[Record]) -> Html:
    if not rows:
        return Html("")
    compared, units = any("reference" in r for r in rows), any(r["unit"] for r in rows)
    bounds, priors = any("bounds" in r for r in rows), any("prior" in r for r in rows)
    remarks = any(r["remarks"] for r in rows)
    head = ["parameter", "value", "standard error"]
    head += ["reference value", "digits", "reference std", "digits"] if compared else []
    told = {"unit": units, "bounds": bounds, "prior": priors, "remarks": remarks}
    head += [heading for heading, there in told.items() if there]
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
        words = {
            "unit": r.get("unit_text", r["unit"]),
            "bounds": tag("td", _bounds(*r["bounds"]) if "bounds" in r else "", class_="short"),
            "prior": tag("td", r.get("prior", ""), class_="short"),
            "remarks": tag("td", ", ".join(r["remarks"]), class_="remarks"),
        }
        cells += [words[heading] for heading, there in told.items() if there]
        body.append((r.get("folded", False), cells))
    here, folded = ([cells for fold, cells in body if fold is which] for which in (False, True))
    if not folded:
        return table(head, here)
    more = tag("details", tag("summary", f"{len(folded)} more"), table(head, folded))
    return join([table(head, here) if here else "", more])


def _bounds(lower: float, upper: float) -> str:
    if math.isinf(upper):
        return f"at least {lower:.6g}"
    return f"at most {upper:.6g}" if math.isinf(lower) else f"{lower:.6g} to {upper:.6g}"


def how_it_was_run(content: Content) -> Html:
    """Config, data, device and versions, and the files beside the page."""
    document = content.document
    device, versions, inputs = document["device"], document["versions"], document.get("inputs", {})
    config = Path(document["config_file"])
    rows: list[tuple[str, object]] = [
        ("config", _file(str(config), config.as_uri() if config.is_absolute() else str(config))),
        *(("data", _file(name, Path(path).as_uri())) for name, path in list(inputs.items())[:_MOST_FILES]),
    ]
    if len(inputs) > _MOST_FILES:
        rows.append(("data", f"and {len(inputs) - _MOST_FILES} more"))
    rows += [
        ("device", f"{device['platform']}: {device['count']} x {device['kind']}, double precision"),
        ("versions", ", ".join(f"{name} {version}" for name, version in versions.items())),
        *(("choice", choice) for choice in document["choices"]),
    ]
    if content.beside:
        rows.append(("written", join(part for file in content.beside for part in (_file(file, file), " "))))
    as_run = tag("details", tag("summary", "The config as run"), tag("pre", as_json(document["config"])))
    facts = tag("dl", *(join([tag("dt", name), tag("dd", text)]) for name, text in rows))
    return join([facts, as_run])


def _file(text: str, target: str) -> Html:
    return tag("a", text, href=target if ":" in target else urllib.parse.quote(target))


def _member(anchor: str, member: Record) -> Html:
    return tag("td", tag("a", member["name"], href=f"#{anchor}"), class_="member")


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
