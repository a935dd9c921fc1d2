"""The numbers of a run, as records for JSON and rows for CSV.

A record is a plain dictionary: what every science has (name, source, model, how it ended) and what `AbstractOutcome`
adds. Screen, tables and report are made from records alone, so that all three say the same.
"""

import collections
import csv
import io
import json
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from ._task import NOT_RUN, AbstractOutcome, AbstractTask, Column, Record, Words

GOOD, LOOK, BAD, OFF = "good", "look", "bad", "off"
"""How a member ended, in colour: well; well, but to be looked at; it failed; it was not run."""


def record_of(outcome: AbstractOutcome, words: Words) -> dict[str, Any]:
    """All that is known of a member: how it ended, and its own numbers."""
    member = outcome.member
    code, remarks = outcome.code, list(outcome.remarks)
    ended = {"result": code, "success": outcome.success, "message": outcome.message, "look": remarks}
    verdict = {
        GOOD: words.done,
        LOOK: f"{words.done}, look",
        BAD: "failed",
        OFF: "not run",
    }[state(ended)]
    return {
        "name": member.name,
        "source": member.source,
        "model": member.what,
        "result": code,
        "success": outcome.success,
        "verdict": verdict,
        "message": outcome.message,
        "look": remarks,
        **outcome.record(),
    }


def state(record: Record) -> str:
    """`GOOD`, `LOOK`, `BAD` or `OFF`."""
    if record["result"] == NOT_RUN:
        return OFF
    if not record["success"]:
        return BAD
    return LOOK if record["look"] else GOOD


def label(record: Record) -> str:
    """Give the verdict for a table: of a member that failed, how."""
    return record["result"].replace("_", " ") if state(record) == BAD else str(record["verdict"])


def plural(count: int, noun: str) -> str:
    """Write a count with its noun: `1 pulsar`, `2 pulsars`."""
    return f"{count} {noun}{'s' * (count != 1)}"


def verdicts(records: Sequence[Record]) -> dict[str, int]:
    """How many members have each verdict."""
    return dict(collections.Counter(record["verdict"] for record in records))


def looked_at(records: Sequence[Record]) -> int:
    """Count the members that went well and are to be looked at."""
    return sum(state(record) == LOOK for record in records)


def counts(records: Sequence[Record], task: AbstractTask[Any, Any]) -> dict[str, int]:
    """How many members there are and how they ended, and what the task counts beside."""
    finished = [r for r in records if r["result"] != NOT_RUN]
    return {
        f"{task.words.noun}s": len(records),
        "succeeded": sum(r["success"] for r in records),
        "failed": sum(not r["success"] for r in finished),
        "not_run": len(records) - len(finished),
        **task.counts(finished),
    }


def present(columns: Sequence[Column], records: Sequence[Record]) -> list[Column]:
    """Choose the columns that some member has."""
    return [column for column in columns if any(column.key in record for record in records)]


def as_json(document: Mapping[str, Any]) -> str:
    """Write JSON text; numbers that are not finite become the texts "inf", "-inf", "nan", as JSON has none for them."""
    return json.dumps(_finite(document), indent=1, allow_nan=False, default=str) + "\n"


def _finite(value: object) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def as_csv(records: Sequence[Record], columns: Sequence[Column]) -> str:
    """Write CSV text with one row a parameter; a member without parameters has one row.

    **Arguments:** `columns`: the task's; those with `csv` are written.
    """
    own = [column.key for column in columns if column.csv]
    names = ("parameter", "unit", "value", "std", "reference", "reference_std", "lre", "lre_std", "remarks")
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["member", "model", "result", "verdict", "look", *own, *names])
    for member in records:
        head = [member[key] for key in ("name", "model", "result", "verdict")]
        head += ["; ".join(member["look"]), *(member.get(key, "") for key in own)]
        for row in member.get("parameters") or [{}]:
            cells = {**row, "parameter": row.get("name", ""), "remarks": "; ".join(row.get("remarks", []))}
            writer.writerow([*head, *(cells.get(name, "") for name in names)])
    return text.getvalue()


def slugs(names: Sequence[str]) -> list[str]:
    """Make file names for members: their names with only letters, digits, dots and dashes, told apart by numbers."""
    used: set[str] = set()
    out = []
    for name in names:
        plain = re.sub(r"[^A-Za-z0-9.-]+", "-", name).strip("-.")[:80] or "member"
        slug, k = plain, 2
        while slug.lower() in used:  # some file systems take a and A for one
            slug, k = f"{plain}-{k}", k + 1
        used.add(slug.lower())
        out.append(slug)
    return out
