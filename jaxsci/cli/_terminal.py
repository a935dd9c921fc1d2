"""What a run says on the screen when it is done: how fits ended, what was found, what to do, where the report is."""

import collections
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from ..fitting import CONVERGED, LOOK, format_pm
from ._results import counts, label, verdicts

MOST_ROWS = 60
"""So many fits have a line each."""

_MOST_REASONS = 12
_MOST_COLUMNS = 4
_WIDEST = 200

Record = Mapping[str, Any]


def tell(records: Sequence[Record], page: Path) -> None:
    """The results in short, and where the report is."""
    console = Console()
    console.print(_endings(records))
    found = _found(records)
    if found is not None:
        # a terminal that is narrower than the numbers wraps lines; a number is never cut short
        wide = min(max(console.width, Console(width=_WIDEST).measure(found).maximum), _WIDEST)
        console.print()
        Console(width=wide).print(found)
    failed = {r["name"]: r["message"] for r in records if not r["success"] and r["result"] != "not_run"}
    to_look_at = {r["name"]: " ".join(r["look"]) for r in records if r["verdict"] == LOOK}
    for line in (*listed(failed), *listed(to_look_at, "yellow")):
        console.print(line, highlight=False, soft_wrap=True)
    console.print(f"{'; '.join(_counted(records))}.", highlight=False, soft_wrap=True)
    console.print(f"report: {page.resolve()}", highlight=False, soft_wrap=True, markup=False)


def plural(count: int, noun: str) -> str:
    """`1 fit`, `2 fits`."""
    return f"{count} {noun}{'s' * (count != 1)}"


def _counted(records: Sequence[Record]) -> list[str]:
    total = counts(records)
    parts = [f"{total['succeeded']} of {plural(total['fits'], 'fit')} converged"]
    look = verdicts(records).get(LOOK, 0)
    if look:
        parts.append(f"{look} of them to look at")
    if total["not_run"]:
        parts.append(f"{total['not_run']} were not run")
    if "compared" in total:
        parts.append(f"values agree to 6 digits in {total['values_to_6_digits']} of {total['compared']}")
        parts.append(f"to 9 digits in {total['values_to_9_digits']}")
        parts.append(f"standard errors to 6 digits in {total['std_to_6_digits']}")
    return parts


def _endings(records: Sequence[Record]) -> Table:
    """One line a fit; of many fits, only those that failed or want a look."""
    few = records if len(records) <= MOST_ROWS else [r for r in records if r["verdict"] != CONVERGED]
    compared = any("worst_lre" in r for r in records)
    table = Table("fit", "result", "steps", "chi2/dof", *(("digits", "digits, std") if compared else ()), box=None)
    for r in list(few)[:MOST_ROWS]:
        cells = [escape(r["name"]), _coloured(r)]
        cells += [str(r.get("num_steps", "")), f"{r['reduced_chi2']:.4g}" if "reduced_chi2" in r else ""]
        if compared:
            cells += [f"{r[k]:.1f}" if k in r else "" for k in ("worst_lre", "worst_lre_std")]
        table.add_row(*cells)
    return table


def _coloured(record: Record) -> str:
    colour = {CONVERGED: "green", LOOK: "yellow"}.get(record["verdict"], "red")
    return f"[{colour}]{label(record)}[/{colour}]"


def _found(records: Sequence[Record]) -> Table | None:
    """The parameters: all of a single fit; those that most fits have, of several; their distribution, of many."""
    fitted = [r for r in records if r.get("parameters") and r["success"]]
    if not fitted:
        return None
    if len(records) == 1:
        return _of_one(fitted[0])
    shared = collections.Counter(row["name"] for r in fitted for row in r["parameters"] if not row.get("folded"))
    return (_of_several if len(records) <= MOST_ROWS else _of_many)(fitted, [name for name, _ in shared.most_common()])


def _of_one(record: Record) -> Table:
    table = Table("parameter", "value", "standard error", "unit", "", box=None)
    shown = [row for row in record["parameters"] if not row.get("folded")][:MOST_ROWS]
    for row in shown:
        value, error = format_pm(row["value"], row["std"])
        table.add_row(
            escape(row["name"]), row.get("text", value), error, row["unit"], escape(", ".join(row["remarks"]))
        )
    if len(shown) < len(record["parameters"]):
        table.add_row(f"and {len(record['parameters']) - len(shown)} more, in results.csv")
    return table


def _of_several(records: Sequence[Record], names: Sequence[str]) -> Table:
    shown = names[:_MOST_COLUMNS]
    table = Table("fit", *map(escape, shown), box=None, caption_justify="left")
    for r in records:
        rows = {row["name"]: row for row in r["parameters"]}
        table.add_row(escape(r["name"]), *(_pair(rows[name]) if name in rows else "" for name in shown))
    if len(shown) < len(names):
        table.caption = f"and {plural(len(names) - len(shown), 'more parameter')}, in results.csv"
    return table


def _pair(row: Mapping[str, Any]) -> str:
    value, error = format_pm(row["value"], row["std"])
    return str(row.get("text", f"{value} ± {error}"))


def _of_many(records: Sequence[Record], names: Sequence[str]) -> Table:
    """Of each parameter the median and the half of the central 68 % over the fits, beside the error of one fit."""
    table = Table("parameter", "median", "spread", "median error", "unit", box=None)
    for name in names[:MOST_ROWS]:
        rows = [row for r in records for row in r["parameters"] if row["name"] == name]
        low, middle, high = np.percentile([row["value"] for row in rows], [15.87, 50, 84.13])
        value, spread = format_pm(float(middle), float(high - low) / 2)
        error = np.median([row["std"] for row in rows])
        table.add_row(escape(name), value, spread, f"{error:.2g}", rows[0]["unit"])
    return table


def listed(reasons: Mapping[str, str], colour: str = "red") -> list[str]:
    """What is wrong with each fit, or to look at in it, with the remedy; the first few of many."""
    shown = list(reasons.items())[:_MOST_REASONS]
    lines = [f"[{colour}]{escape(name)}[/{colour}]: {escape(why)}" for name, why in shown]
    more = len(reasons) - len(lines)
    return [*lines, f"and {more} more"] if more > 0 else lines
