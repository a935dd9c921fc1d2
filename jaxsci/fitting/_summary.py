"""A Solution as text and as HTML: a table of values and errors, how good the fit is, and what to look at.

Values are rounded to two digits of their errors, so that a table can be copied into a paper. `Solution.summary` and a
notebook show these; the command line and its reports take the rows and write their own.
"""

import html
import math
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from ._solution import Solution
else:
    Solution = Any  # which imports this module


def format_pm(value: float, std: float) -> tuple[str, str]:
    """Value and error as text, the error to two digits and the value to the same place."""
    if not math.isfinite(std) or std <= 0 or not math.isfinite(value):
        return f"{value:.6g}", "0" if std == 0 else f"{std:.3g}"
    places = 1 - math.floor(math.log10(std))
    if -4 < places <= 8 and abs(value) < 1e6:
        return f"{value:.{max(places, 0)}f}", f"{std:.{max(places, 0)}f}"
    digits = max(math.floor(math.log10(max(abs(value), std) / std)) + 1, 1)
    return f"{value:.{digits}e}", f"{std:.1e}"


class ParameterRow(NamedTuple):
    """A line of the table: all as text."""

    name: str
    value: str
    std: str
    unit: str
    remark: str


def parameter_rows(solution: Solution) -> list[ParameterRow]:
    """A line for each free parameter of one fit."""
    y, std = np.asarray(solution.y), np.asarray(solution.standard_errors)
    fixed, known, bound = (np.asarray(x) for x in (solution.fixed, solution.determined, solution.at_bound))
    rows = []
    for i, (name, unit) in enumerate(zip(solution.names, solution.units, strict=True)):
        remark = "fixed" if fixed[i] else "" if known[i] else "not determined by the data"
        if bound[i] and not fixed[i]:
            remark = f"at its {'upper' if bound[i] > 0 else 'lower'} bound"
        rows.append(ParameterRow(name, *format_pm(float(y[i]), float(std[i])), unit, remark))
    return rows


def quality(solution: Solution) -> list[tuple[str, str]]:
    """What says how good one fit is: (label, value)."""
    rows = [
        ("chi2", f"{float(solution.chi2):.6g}"),
        ("degrees of freedom", f"{int(solution.dof)}"),
        ("reduced chi2", f"{float(solution.reduced_chi2):.5g}"),
        ("AIC, BIC", f"{float(solution.aic):.6g}, {float(solution.bic):.6g}"),
        ("rank", f"{int(solution.rank)} of {int(np.sum(~np.asarray(solution.fixed)))}"),
        ("steps", f"{int(solution.num_steps)}"),
    ]
    if not solution.absolute:
        rows.append(("errors", "scaled by sqrt(reduced chi2): the noise was given no scale"))
    return rows


def strongest(solution: Solution, most: int = 5, least: float = 0.5) -> list[tuple[str, str, float]]:
    """The largest correlations between parameters, at least `least` in size."""
    matrix, names = np.asarray(solution.correlation), solution.names
    pairs = [(names[i], names[j], float(matrix[i, j])) for i in range(len(names)) for j in range(i)]
    pairs = [p for p in pairs if math.isfinite(p[2]) and abs(p[2]) >= least]
    return sorted(pairs, key=lambda p: -abs(p[2]))[:most]


def ending(solution: Solution) -> str:
    """How the fit ended, in words."""
    return f"failed: {solution.message}" if solution.message else solution.verdict


def _single(solution: Solution) -> None:
    if solution.y.ndim != 1:
        raise ValueError(
            f"this Solution holds a batch of shape {solution.y.shape[:-1]}: take one member of it first, "
            "jax.tree.map(lambda x: x[i], solution)"
        )


def text_summary(solution: Solution) -> str:
    """Values, errors, remarks and the quality of one fit as plain text."""
    _single(solution)
    rows = parameter_rows(solution)
    widths = [max((len(r[k]) for r in rows), default=0) for k in range(4)]
    lines = [f"{type(solution.model).__name__}: {ending(solution)}"]
    for name, value, std, unit, remark in rows:
        line = f"  {name:<{widths[0]}}  {value:>{widths[1]}} +- {std:<{widths[2]}}  {unit:<{widths[3]}}"
        lines.append((line + (f"  ({remark})" if remark else "")).rstrip())
    lines += [f"{label}: {value}" for label, value in quality(solution)]
    lines += [f"look: {words}" for words in solution.remarks] if not solution.message else []
    lines += [f"correlation {a}, {b}: {c:+.3f}" for a, b, c in strongest(solution)]
    return "\n".join(lines)


def html_summary(solution: Solution) -> str:
    """The same for a notebook; a batch is only named."""
    if solution.y.ndim != 1:
        return f"<p>Solution of a batch {solution.y.shape[:-1]} with parameters {', '.join(solution.names)}</p>"
    head = "<tr><th>parameter</th><th>value</th><th>standard error</th><th>unit</th><th></th></tr>"
    body = "".join(
        "<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in parameter_rows(solution)
    )
    facts = "; ".join(f"{html.escape(label)} {html.escape(value)}" for label, value in quality(solution))
    said = "" if solution.message else "".join(f"<p>Look: {html.escape(words)}</p>" for words in solution.remarks)
    title = html.escape(f"{type(solution.model).__name__}: {ending(solution)}")
    return f"<table><caption>{title}</caption>{head}{body}</table><p>{facts}</p>{said}"
