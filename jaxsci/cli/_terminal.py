"""What a run says on the screen when it is done: how members ended, what was found, what to do, where the report is.

Made from the records of the run and the task's words and columns, as the report is, so that both say the same. The
command `run` calls `tell`.
"""

import collections
import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from ..fitting import format_pm
from ..runs import GOOD, LOOK, NOT_RUN, Ran, Record, as_json, label, looked_at, plural, present, state

MOST_ROWS = 60
"""So many members have a line each."""

_MOST_REASONS = 12
_MOST_COLUMNS = 4
_WIDEST = 200


@dataclasses.dataclass(frozen=True)
class Show:
    """How much is shown: `quiet`, no bars and no tables; `as_json`, one JSON object on stdout in place of tables."""

    quiet: bool = False
    as_json: bool = False


def print_json(document: Mapping[str, Any]) -> None:
    """Print one JSON object on stdout."""
    typer.echo(as_json(document), nl=False)


def tell(ran: Ran, show: Show) -> None:
    """The results in short, and where the report is."""
    console, records = Console(), ran.records
    if show.as_json:
        ended = {"report": str(ran.page.resolve()), "exit_code": ran.code, "counts": ran.counts}
        print_json({**ended, "members": records})
        return
    if show.quiet:
        console.print(f"{ran.page.resolve()}", highlight=False, soft_wrap=True, markup=False)
        return
    console.print(_endings(ran))
    found = _found(records, ran.task.words.noun)
    if found is not None:
        # a terminal that is narrower than the numbers wraps lines; a number is never cut short
        wide = min(max(console.width, Console(width=_WIDEST).measure(found).maximum), _WIDEST)
        console.print()
        Console(width=wide).print(found)
    failed = {r["name"]: r["message"] for r in records if not r["success"] and r["result"] != NOT_RUN}
    to_look_at = {r["name"]: " ".join(r["look"]) for r in records if state(r) == LOOK}
    for line in (*listed(failed), *listed(to_look_at, "yellow")):
        console.print(line, highlight=False, soft_wrap=True)
    for note in ran.task.notes(records):
        console.print(note, highlight=False, soft_wrap=True, markup=False)
    console.print(f"{'; '.join(_counted(ran))}.", highlight=False, soft_wrap=True)
    if ran.counts["not_run"]:
        again = f"the same command with --out {ran.page.parent} --resume goes on"
        console.print(again, highlight=False, soft_wrap=True, markup=False)
    console.print(f"report: {ran.page.resolve()}", highlight=False, soft_wrap=True, markup=False)


def _counted(ran: Ran) -> list[str]:
    total, words = ran.counts, ran.task.words
    parts = [f"{total['succeeded']} of {plural(len(ran.records), words.noun)} {words.done}"]
    look = looked_at(ran.records)
    if look:
        parts.append(f"{look} of them to look at")
    if total["not_run"]:
        parts.append(f"{total['not_run']} were not run")
    return [*parts, *ran.task.said(total)]


def _endings(ran: Ran) -> Table:
    """One line a member; of many, only those that failed or want a look."""
    records = ran.records
    few = records if len(records) <= MOST_ROWS else [r for r in records if state(r) != GOOD]
    columns = [column for column in present(ran.task.columns, records) if column.screen]
    table = Table(ran.task.words.noun, "result", box=None)
    for column in columns:
        texts = any(isinstance(r.get(column.key), str) for r in records)
        table.add_column(column.screen, justify="left" if texts else "right")
    for r in list(few)[:MOST_ROWS]:
        shown = (f"{r[c.key]:{c.screen_form}}" if c.key in r else "" for c in columns)
        table.add_row(escape(r["name"]), _coloured(r), *map(escape, shown))
    return table


def _coloured(record: Record) -> str:
    colour = {GOOD: "green", LOOK: "yellow"}.get(state(record), "red")
    return f"[{colour}]{label(record)}[/{colour}]"


def _found(records: Sequence[Record], noun: str) -> Table | None:
    """The parameters: all of a single member; those that most have, of several; their distribution, of many."""
    fitted = [r for r in records if r.get("parameters") and r["success"]]
    if not fitted:
        return None
    if len(records) == 1:
        return _of_one(fitted[0])
    shared = collections.Counter(row["name"] for r in fitted for row in r["parameters"] if not row.get("folded"))
    names = [name for name, _ in shared.most_common()]
    return _of_several(fitted, names, noun) if len(records) <= MOST_ROWS else _of_many(fitted, names)


def _table(*head: str) -> Table:
    """A table of parameters, whose numbers stand on the right below their headings; words are on the left."""
    table = Table(box=None)
    for heading in head:
        words = heading in ("parameter", "unit", "remarks")
        table.add_column(heading, justify="left" if words else "right")
    return table


def _of_one(record: Record) -> Table:
    table = _table("parameter", "value", "standard error", "unit", "remarks")
    shown = [row for row in record["parameters"] if not row.get("folded")][:MOST_ROWS]
    for row in shown:
        value, error = _with_error(row)
        error, unit = row.get("std_text", error), row.get("unit_text", row["unit"])
        table.add_row(escape(row["name"]), row.get("text", value), error, unit, escape(", ".join(row["remarks"])))
    if len(shown) < len(record["parameters"]):
        table.add_row(f"and {len(record['parameters']) - len(shown)} more, in results.csv")
    if not any(row["remarks"] for row in shown):
        table.columns.pop()
    return table


def _of_several(records: Sequence[Record], names: Sequence[str], noun: str) -> Table:
    shown = names[:_MOST_COLUMNS]
    table = Table(noun, *map(escape, shown), box=None, caption_justify="left")
    for r in records:
        rows = {row["name"]: row for row in r["parameters"]}
        table.add_row(escape(r["name"]), *(_pair(rows[name]) if name in rows else "" for name in shown))
    if len(shown) < len(names):
        table.caption = f"and {plural(len(names) - len(shown), 'more parameter')}, in results.csv"
    return table


def _pair(row: Mapping[str, Any]) -> str:
    value, error = _with_error(row)
    return str(row.get("text", f"{value} ± {error}" if error else value))


def _with_error(row: Mapping[str, Any]) -> tuple[str, str]:
    """Value and standard error as text; no error where the science gives none."""
    return format_pm(row["value"], row["std"]) if "std" in row else (f"{row['value']:.6g}", "")


def _of_many(records: Sequence[Record], names: Sequence[str]) -> Table:
    """Of each parameter the median and half of the central 68 % over the members, beside the error of one of them."""
    table = _table("parameter", "median", "spread", "median error", "unit")
    for name in names[:MOST_ROWS]:
        rows = [row for r in records for row in r["parameters"] if row["name"] == name]
        low, middle, high = np.percentile([row["value"] for row in rows], [15.87, 50, 84.13])
        value, spread = format_pm(float(middle), float(high - low) / 2)
        errors = [row["std"] for row in rows if "std" in row]
        error = f"{np.median(errors):.2g}" if errors else ""
        table.add_row(escape(name), value, spread, error, rows[0]["unit"])
    return table


def listed(reasons: Mapping[str, str], colour: str = "red") -> list[str]:
    """What is wrong with each member, or to look at in it, with the remedy; the first few of many."""
    shown = list(reasons.items())[:_MOST_REASONS]
    lines = [f"[{colour}]{escape(name)}[/{colour}]: {escape(why)}" for name, why in shown]
    more = len(reasons) - len(lines)
    return [*lines, f"and {more} more"] if more > 0 else lines
