"""The numbers of a curve fit for a report: its parameters, and digits of agreement with known answers.

A config may give reference values, and NIST's files come with certified ones: the log relative error says to how many
digits a fit agrees, as NIST counts them. The outcome calls `record`.
"""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from ...core import element_names
from ...fitting import Solution, loss_text, prior_texts
from .build import Member
from .sources import Reference

CERTIFIED_DIGITS = 11.0
"""Agreement beyond this many digits is not counted: reference values are rarely given to more."""


def log_relative_error(value: float, reference: float) -> float:
    """Count the digits that agree: -log10 |value / reference - 1|, at least 0, at most `CERTIFIED_DIGITS`.

    The absolute error takes the place of the relative one where the reference is 0; nan where a number is not finite.
    """
    if not (math.isfinite(value) and math.isfinite(reference)):
        return math.nan
    error = abs(value - reference) / (abs(reference) or 1.0)
    return CERTIFIED_DIGITS if error == 0 else min(max(-math.log10(error), 0.0), CERTIFIED_DIGITS)


def record(member: Member, solution: Solution, derived: Mapping[str, float]) -> dict[str, Any]:
    """Collect all numbers of one fit; `derived` are reduced chi2, AIC and BIC, computed for many fits at once."""
    scaled = not solution.absolute if member.settings.scale_covariance is None else member.settings.scale_covariance
    rows = _parameters(solution, member.reference)
    out = {
        "num_data": int(solution.num_data),
        "dof": int(solution.dof),
        "num_free": len(solution.names),
        "rank": int(solution.rank),
        "num_steps": int(solution.num_steps),
        "chi2": float(solution.chi2),
        **derived,
        "errors_scaled": scaled,
        "parameters": rows,
        "covariance": np.asarray(solution.covariance).tolist(),
    }
    if loss := loss_text(solution.terms):
        out["loss"] = loss
    for key in ("lre", "lre_std"):
        digits = [row[key] for row in rows if key in row]
        if digits:
            out[f"worst_{key}"] = math.nan if any(map(math.isnan, digits)) else min(digits)
    return out


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
    lower, upper = solution.terms.lower, solution.terms.upper
    bounds = np.transpose([lower, upper]).tolist() if lower is not None and upper is not None else []
    priors = prior_texts(solution.terms)
    for k, (name, unit) in enumerate(zip(solution.names, solution.units, strict=True)):
        row: dict[str, Any] = {"name": name, "unit": unit, "value": values[k], "std": errors[k]}
        if bounds and any(map(math.isfinite, bounds[k])):
            row["bounds"] = bounds[k]
        if priors[k]:
            row["prior"] = priors[k]
        row["remarks"] = [text for text, applies in remarks.items() if applies[k]]
        if reference is not None and name in reference.values:
            known = reference.values[name]
            row |= {"reference": known, "lre": log_relative_error(values[k], known)}
            if name in reference.std:
                known = reference.std[name]
                row |= {"reference_std": known, "lre_std": log_relative_error(errors[k], known)}
        rows.append(row)
    return rows + _tied(solution)


def _tied(solution: Solution) -> list[dict[str, Any]]:
    """Parameters that are formulas of others, as rows."""
    rows = []
    for name, tied in solution.tied.items():
        values, errors = np.ravel(tied.value).tolist(), np.ravel(tied.std).tolist()
        for element, value, std in zip(element_names(name, np.shape(tied.value)), values, errors, strict=True):
            row = {"name": element, "unit": tied.unit, "value": value, "std": std, "remarks": [f"= {tied.formula}"]}
            rows.append(row)
    return rows
