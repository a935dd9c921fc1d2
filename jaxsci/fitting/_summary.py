"""A Solution as text and as HTML: a table of values and errors, how good the fit is, and what to look at.

Values are rounded to two digits of their errors, so that a table can be copied into a paper. `Solution.summary` and a
notebook show these; the command line and its reports take the rows and write their own.
"""

import importlib
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ..core import class_name, element_names, notebook_table, notebook_text, readable, value_text
from ._terms import ROBUST_CHI2, loss_text

if TYPE_CHECKING:
    from pandas import DataFrame as DataFrame
    from xarray import Dataset as Dataset

    from ._batch import BatchSolution
    from ._shared import SharedSolution
    from ._solution import Solution
else:
    # the first three import this module, the others are imported where they are used
    Solution = BatchSolution = SharedSolution = DataFrame = Dataset = Any


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
    return rows + tied_rows(solution)


def tied_rows(solution: Solution) -> list[ParameterRow]:
    """A line for each element of the parameters that are formulas of others."""
    rows = []
    for name, tied in solution.tied.items():
        value, std = np.ravel(tied.value), np.ravel(tied.std)
        for k, element in enumerate(element_names(name, np.shape(tied.value))):
            pair = format_pm(float(value[k]), float(std[k]))
            rows.append(ParameterRow(element, *pair, tied.unit, f"= {tied.formula}"))
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
    if loss := loss_text(solution.terms):
        rows.insert(3, ("loss", f"{loss}: {ROBUST_CHI2}"))
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
    lines = [f"{class_name(solution.model)}: {ending(solution)}"]
    for name, value, std, unit, remark in rows:
        line = f"  {name:<{widths[0]}}  {value:>{widths[1]}} +- {std:<{widths[2]}}  {unit:<{widths[3]}}"
        lines.append((line + (f"  ({remark})" if remark else "")).rstrip())
    lines += [f"{label}: {value}" for label, value in quality(solution)]
    lines += [f"look: {words}" for words in solution.remarks] if not solution.message else []
    lines += [f"correlation {a}, {b}: {c:+.3f}" for a, b, c in strongest(solution)]
    return "\n".join(lines)


def whole(solution: Solution) -> bool:
    """True where all arrays are there and can be read: not within a trace, nor of a part that was filtered out."""
    return readable(solution) and all(getattr(solution, name) is not None for name in _ASKED)


_ASKED = ("fitted", "y", "covariance", "chi2", "dof", "result")


def shown(solution: Solution) -> str:
    """What the prompt shows: the summary of one fit, the arrays of a batch or of a fit within a trace."""
    return text_summary(solution) if whole(solution) and solution.y.ndim == 1 else value_text(solution)


def html_summary(solution: Solution) -> str:
    """The summary for a notebook; of a batch, how its members are distributed."""
    if not whole(solution):
        return notebook_text(value_text(solution))
    if solution.y.ndim != 1:
        y, std = (np.asarray(a, float).reshape(-1, len(solution.names)) for a in (solution.y, solution.standard_errors))
        good = np.asarray(solution.success).reshape(-1)
        title = f"Solution of a batch {solution.y.shape[:-1]}: {int(good.sum())} of {good.size} converged"
        return _spread_table(title, solution.names, solution.units, y[good], std[good], ())
    title = f"{class_name(solution.model)}: {ending(solution)}"
    notes = [f"{label}: {value}" for label, value in quality(solution)]
    notes = ["; ".join(notes), *([] if solution.message else [f"Look: {words}" for words in solution.remarks])]
    head, rows = ("parameter", "value", "standard error", "unit", "remarks"), parameter_rows(solution)
    return notebook_table(title, head, rows, notes, left=(0, 3, 4))


def _spread_table(
    title: str, names: Sequence[str], units: Sequence[str], y: np.ndarray, std: np.ndarray, notes: Sequence[str]
) -> str:
    """Of each parameter the median of many fits, half of their central 68 %, and the error of one of them."""
    rows = []
    for k, (name, unit) in enumerate(zip(names, units, strict=True)):
        known = np.isfinite(y[:, k])
        if known.any():
            low, middle, high = np.percentile(y[known, k], [15.87, 50, 84.13])
            error = f"{np.median(std[known, k]):.2g}"
            rows.append((name, *format_pm(float(middle), float(high - low) / 2), error, unit))
    return notebook_table(title, ("parameter", "median", "spread", "median error", "unit"), rows, notes, left=(0, 4))


def html_of_batch(batch: BatchSolution) -> str:
    """The members of a batch for a notebook: how they ended, how their parameters are distributed."""
    failed, warned = batch.failed, batch.warnings
    title = f"{len(batch)} fits: {len(batch) - len(failed)} converged, {len(warned)} of them to look at"
    names = tuple(dict.fromkeys(name for group in batch.groups for name in group.names))
    units = dict(pair for group in batch.groups for pair in zip(group.names, group.units, strict=True))
    columns = {name: np.asarray(values)[batch.success] for name, values in batch.table().items()}
    y = np.array([columns[name] for name in names], float).reshape(len(names), -1).T
    std = np.array([columns[f"{name}_std"] for name in names], float).reshape(len(names), -1).T
    notes = [f"member {i} failed: {why}" for i, why in list(failed.items())[:3]]
    notes += [f"and {len(failed) - 3} more, in .failed"] if len(failed) > 3 else []
    return _spread_table(title, names, [units[name] for name in names], y, std, notes)


def html_of_shared(shared: SharedSolution) -> str:
    """What all members say together, for a notebook."""
    y, std = np.asarray(shared.y, float), np.asarray(shared.standard_errors, float)
    rows = [
        (name, *format_pm(float(y[k]), float(std[k])), unit)
        for k, (name, unit) in enumerate(zip(shared.names, shared.units, strict=True))
    ]
    note = f"chi2 {float(shared.chi2):.6g} for {int(shared.dof)} degrees of freedom"
    return notebook_table("shared parameters", ("parameter", "value", "standard error", "unit"), rows, [note], (0, 3))


def as_pandas(solution: Solution) -> DataFrame:
    """One fit as a table of its parameters."""
    pandas = _imported("pandas")
    _single(solution)
    columns = {
        "value": np.asarray(solution.y),
        "std": np.asarray(solution.standard_errors),
        "unit": np.array(solution.units, object),
        "determined": np.asarray(solution.determined),
        "fixed": np.asarray(solution.fixed),
        "at_bound": np.asarray(solution.at_bound),
    }
    return pandas.DataFrame(columns, index=pandas.Index(solution.names, name="parameter"))


def frame(columns: Mapping[str, np.ndarray], index: str) -> DataFrame:
    """Columns of equal length as a DataFrame; `index` names its rows, which are counted unless a column has that name.

    **Raises:** `ImportError` without pandas.
    """
    table = _imported("pandas").DataFrame(dict(columns))
    return table.set_index(index) if index in columns else table.rename_axis(index)


def as_xarray(solution: Solution) -> Dataset:
    """One fit, or a batch of fits of one structure, as labelled arrays."""
    xarray = _imported("xarray")
    batch = tuple(f"member_{k}" if solution.y.ndim > 2 else "member" for k in range(solution.y.ndim - 1))
    one, two = (*batch, "parameter"), (*batch, "parameter", "with_parameter")
    arrays = {
        "value": (one, solution.y),
        "std": (one, solution.standard_errors),
        "covariance": (two, solution.covariance),
        "determined": (one, solution.determined),
        "at_bound": (one, solution.at_bound),
        "success": (batch, solution.success),
        "chi2": (batch, solution.chi2),
        "dof": (batch, solution.dof),
        "num_steps": (batch, solution.num_steps),
    }
    names = list(solution.names)
    coordinates = {"parameter": names, "with_parameter": names, "unit": ("parameter", list(solution.units))}
    return xarray.Dataset({name: (dims, np.asarray(values)) for name, (dims, values) in arrays.items()}, coordinates)


def _imported(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ImportError(f"this needs {name}, which is not installed: pip install 'jaxsci[tables]'") from error
