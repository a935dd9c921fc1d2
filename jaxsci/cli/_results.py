"""The numbers of a run, as records for JSON and rows for CSV."""

import collections
import csv
import io
import json
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..fitting import FAILED, Solution, verdict_of
from ._run import Outcome
from ._sources import Reference

CERTIFIED_DIGITS = 11.0
"""Agreement beyond this many digits is not counted: reference values are rarely given to more."""


def log_relative_error(value: float, reference: float) -> float:
    """Digits that agree: -log10 |value / reference - 1|, at least 0, at most `CERTIFIED_DIGITS`.

    The absolute error takes the place of the relative one where the reference is 0; nan where a number is not finite.
    """
    if not (math.isfinite(value) and math.isfinite(reference)):
        return math.nan
    error = abs(value - reference) / (abs(reference) or 1.0)
    return CERTIFIED_DIGITS if error == 0 else min(max(-math.log10(error), 0.0), CERTIFIED_DIGITS)


def record(outcome: Outcome) -> dict[str, Any]:
    """All that is known of one member: how its fit ended, its parameters, and how they compare with known answers."""
    member, solution = outcome.member, outcome.solution
    out: dict[str, Any] = {
        "name": member.name,
        "source": member.source or "inline",
        "model": type(member.model).__name__,
        **ended(outcome.code, outcome.success, outcome.message, outcome.remarks),
    }
    if solution is None:
        return out
    scaled = not solution.absolute if member.settings.scale_covariance is None else member.settings.scale_covariance
    rows = _parameters(solution, member.reference)
    out |= {
        "num_data": int(solution.num_data),
        "dof": int(solution.dof),
        "num_free": len(rows),
        "rank": int(solution.rank),
        "num_steps": int(solution.num_steps),
        "chi2": float(solution.chi2),
        **outcome.derived,
        "errors_scaled": scaled,
        "parameters": rows,
        "covariance": np.asarray(solution.covariance).tolist(),
    }
    for key in ("lre", "lre_std"):
        digits = [row[key] for row in rows if key in row]
        if digits:
            out[f"worst_{key}"] = math.nan if any(map(math.isnan, digits)) else min(digits)
    return out


def ended(code: str, success: bool, message: str, remarks: Sequence[str]) -> dict[str, Any]:
    """How a fit ended, as every task records it: the verdict is that of `jaxsci.Solution`, or "not run"."""
    return {
        "result": code,
        "success": success,
        "verdict": "not run" if code == "not_run" else verdict_of(success, tuple(remarks)),
        "message": message,
        "look": list(remarks),
    }


def label(record: Mapping[str, Any]) -> str:
    """The verdict in a table: of a fit that failed, how."""
    return record["result"].replace("_", " ") if record["verdict"] == FAILED else str(record["verdict"])


def verdicts(records: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """How many fits have each verdict."""
    return dict(collections.Counter(record["verdict"] for record in records))


def _parameters(solution: Solution, reference: Reference | None) -> list[dict[str, Any]]:
    values, errors = np.asarray(solution.y).tolist(), np.sqrt(np.diagonal(solution.covariance)).tolist()
    remarks = {
        "fixed": np.asarray(solution.fixed),
        "not determined by the data": ~np.asarray(solution.determined),
        "at its lower bound": np.asarray(solution.at_bound) < 0,
        "at its upper bound": np.asarray(solution.at_bound) > 0,
        "start moved to its bound": np.asarray(solution.projected),
    }
    rows = []
    for k, (name, unit) in enumerate(zip(solution.names, solution.units, strict=True)):
        row = {"name": name, "unit": unit, "value": values[k], "std": errors[k]}
        row["remarks"] = [text for text, applies in remarks.items() if applies[k]]
        if reference is not None and name in reference.values:
            known = reference.values[name]
            row |= {"reference": known, "lre": log_relative_error(values[k], known)}
            if name in reference.std:
                known = reference.std[name]
                row |= {"reference_std": known, "lre_std": log_relative_error(errors[k], known)}
        rows.append(row)
    return rows


def counts(records: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """How many fits there are, went well, and agree with known answers to 6 and to 9 digits."""
    finished = [r for r in records if r["result"] != "not_run"]
    out = {
        "fits": len(records),
        "succeeded": sum(r["success"] for r in records),
        "failed": sum(not r["success"] for r in finished),
        "not_run": len(records) - len(finished),
    }
    compared = [r for r in finished if "worst_lre" in r]
    if compared:
        out |= {
            "compared": len(compared),
            "values_to_6_digits": sum(r["worst_lre"] >= 6 for r in compared),
            "values_to_9_digits": sum(r["worst_lre"] >= 9 for r in compared),
            "std_to_6_digits": sum(r.get("worst_lre_std", 0) >= 6 for r in compared),
        }
    return out


def as_json(document: Mapping[str, Any]) -> str:
    """JSON text; numbers that are not finite become the texts "inf", "-inf", "nan", which JSON has no numbers for."""
    return json.dumps(_finite(document), indent=1, allow_nan=False, default=str) + "\n"


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def as_csv(records: Sequence[Mapping[str, Any]]) -> str:
    """One row a parameter; a member that was not fitted has one row without a parameter."""
    columns = ("parameter", "unit", "value", "std", "reference", "reference_std", "lre", "lre_std", "remarks")
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["member", "model", "result", "verdict", "look", "chi2", "dof", *columns])
    for member in records:
        head = [member[key] for key in ("name", "model", "result", "verdict")]
        head += ["; ".join(member["look"]), member.get("chi2", ""), member.get("dof", "")]
        for row in member.get("parameters", [{}]):
            cells = {**row, "parameter": row.get("name", ""), "remarks": "; ".join(row.get("remarks", []))}
            writer.writerow([*head, *(cells.get(column, "") for column in columns)])
    return text.getvalue()


def slugs(names: Sequence[str]) -> list[str]:
    """File names for members: their names with only letters, digits, dots and dashes, told apart by numbers."""
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
