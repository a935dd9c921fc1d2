"""Why a fit failed, in words that name the array and the row; and what is said of one that went through.

A compiled fit ends with a code. `judge`, which `fit` calls on the host, turns it into an exception: it looks at the
data, the noise or the model at the start once more, for the entry that a researcher must mend. Data in files are read
again for it. `jaxsci check` says the same of a fit that is only foreseen.
"""

import warnings
from collections.abc import Iterator
from typing import NoReturn

import jax.tree_util as jtu
import numpy as np

from ..core import AbstractLikelihood, Model
from ..datasets import AbstractDataset, Seen, StreamedDataset, finite_rows, first_bad, pieces, row_arrays
from ._solution import RESULTS, Solution
from ._verdict import facts_of, moved, undetermined


def judge(
    solution: Solution,
    model: Model,
    data: AbstractDataset,
    likelihood: AbstractLikelihood | None,
    strict: bool = False,
    level: int = 3,
) -> None:
    """Raise for a fit that failed; warn of what a researcher should know of one that went through.

    **Arguments:** `strict`: raise for a start that lay outside its bounds too; `level`: as `warnings.warn` counts it.
    """
    if strict and np.asarray(solution.projected).any():
        names = [n for n, p in zip(solution.names, np.asarray(solution.projected), strict=True) if p]
        raise ValueError(f"the start of {', '.join(names)} lies outside its bounds (strict=True)")
    if not bool(solution.success):
        explain(solution, model, data, likelihood)
    for message in report(solution):
        warnings.warn(message, stacklevel=level)


def explain(solution: Solution, model: Model, data: AbstractDataset, likelihood: AbstractLikelihood | None) -> NoReturn:
    """Raise what belongs to `solution.result`."""
    explain_result(solution.result, model, data, likelihood)


def explain_result(
    result: RESULTS, model: Model, data: AbstractDataset, likelihood: AbstractLikelihood | None
) -> NoReturn:
    """Raise what belongs to a `RESULTS`, of a fit that was made or of one that is only foreseen."""
    message = RESULTS[result]
    if result == RESULTS.nonfinite_data:
        raise ValueError(_bad_data(data) or message)
    if result == RESULTS.bad_noise:
        raise ValueError(_bad_noise(data, likelihood) or message)
    if result == RESULTS.empty:
        raise ValueError("The data set has no rows: there is nothing to fit." if _rows(data) == 0 else message)
    if result == RESULTS.nonfinite_start:
        raise ValueError(_bad_start(model, data) or message)
    raise RuntimeError(message)


def _bad_data(data: AbstractDataset) -> str:
    """Which row of the inputs or observations is not finite; empty for none."""

    def look(piece: AbstractDataset) -> Iterator[Seen]:
        unused = ~np.asarray(piece.mask)
        for name, values in row_arrays(piece).items():
            if name != "mask" and not name.startswith("noise"):
                yield Seen(name, values, unused | finite_rows(values))

    bad = first_bad(look(piece) for piece in pieces(data))
    remedy = "mask=" if isinstance(data, StreamedDataset) else "mask=jnp.isfinite(...)"
    return f"{bad}: {bad.amount} of {_rows(data)} rows are not finite. Mask them ({remedy})." if bad else ""


def _rows(data: AbstractDataset) -> int:
    return len(data) if isinstance(data, StreamedDataset) else data.mask.shape[0]


def _bad_noise(data: AbstractDataset, likelihood: AbstractLikelihood | None) -> str:
    """Which standard deviation, covariance or count makes no sense; empty for none."""

    def look(piece: AbstractDataset) -> Iterator[Seen]:
        unused = ~np.asarray(piece.mask)
        name, noise = ("noise", piece.noise) if likelihood is None else ("likelihood", likelihood)
        for path, leaf in jtu.tree_flatten_with_path(noise)[0]:
            values, where = np.asarray(leaf), f"{name}{jtu.keystr(path)}"
            if where.endswith("sigma"):
                yield Seen(where, values, ((values > 0) & np.isfinite(values)) | (unused if values.ndim else False))
            elif where.endswith("counts"):
                yield Seen(where, values, (values >= 0) | unused)
            elif where.endswith("covariance"):
                yield Seen(where, values, np.zeros((), bool))  # nothing else in it could be wrong

    bad = first_bad(look(piece) for piece in pieces(data))
    if bad is None:
        return ""
    if bad.name.endswith("covariance"):
        return (
            f"the {bad.name} matrix is not positive definite: look for negative variances and for rows that are alike, "
            "or add independent noise to its diagonal."
        )
    if bad.name.endswith("counts"):
        return f"{bad}: {bad.amount} of {_rows(data)} counts are negative or not finite, but they should be 0 or more."
    many = f"{bad.amount} of {_rows(data)} rows are" if bad.place else "it is"
    return f"{bad}: {many} not positive and finite, as standard deviations must be."


def _bad_start(model: Model, data: AbstractDataset) -> str:
    """At which row the model is not finite for the starting values; empty for none."""

    def look(piece: AbstractDataset) -> Iterator[Seen]:
        residual = np.asarray(piece.residual(model))
        yield Seen(type(model).__name__, residual, np.isfinite(residual) | ~np.asarray(piece.mask))

    bad = first_bad(look(piece) for piece in pieces(data))
    if bad is None:
        return ""
    return (
        f"{bad.name} is {bad.value} at row {bad.place[0]} for the starting values ({bad.amount} of {_rows(data)} rows "
        "are not finite). Start elsewhere, or set bounds that keep it finite."
    )


def report(solution: Solution) -> Iterator[str]:
    """What a researcher is warned of in a fit that went through."""
    facts = facts_of(solution)
    yield from (words for words in (moved(facts), undetermined(facts)) if words)
