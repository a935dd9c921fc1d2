"""Why a fit failed, in words that name the array and the row. Runs on the host, after the fact."""

import warnings
from collections.abc import Iterator
from typing import Any, NoReturn

import jax.tree_util as jtu
import numpy as np

from ..core import AbstractDataset
from ._diagnose_stream import explain_stream
from ._solution import RESULTS, Solution
from ._stream import StreamedDataset
from ._verdict import facts_of, moved, undetermined


def judge(
    solution: Solution, model: Any, data: AbstractDataset, likelihood: Any, strict: bool = False, level: int = 3
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


def explain(solution: Solution, model: Any, data: AbstractDataset, likelihood: Any) -> NoReturn:
    """Raise what belongs to `solution.result`."""
    explain_result(solution.result, model, data, likelihood)


def explain_result(result: Any, model: Any, data: AbstractDataset, likelihood: Any) -> NoReturn:
    """Raise what belongs to a `RESULTS`, of a fit that was made or of one that is only foreseen."""
    if isinstance(data, StreamedDataset):
        explain_stream(result, model, data)
    message = RESULTS[result]
    if result == RESULTS.nonfinite_data:
        raise ValueError(_first_bad(data, "inputs", "observed") or message)
    if result == RESULTS.bad_noise:
        noise = data.noise if likelihood is None else likelihood
        raise ValueError(_bad_noise(noise, np.asarray(data.mask)) or message)
    if result == RESULTS.empty:
        raise ValueError(message)
    if result == RESULTS.nonfinite_start:
        raise ValueError(_bad_start(model, data) or message)
    raise RuntimeError(message)


def _first_bad(data: AbstractDataset, *fields: str) -> str:
    mask = np.asarray(data.mask)
    for field in fields:
        for path, leaf in jtu.tree_flatten_with_path(getattr(data, field))[0]:
            values = np.asarray(leaf)
            bad = ~np.isfinite(values).reshape(len(mask), -1).all(axis=1) & mask
            if bad.any():
                k = int(np.argmax(bad))
                return (
                    f"{field}{jtu.keystr(path)}[{k}] is {values[k]}: {int(bad.sum())} of {len(mask)} rows are not "
                    "finite. Mask them (mask=jnp.isfinite(...))."
                )
    return ""


def _bad_noise(noise: Any, mask: np.ndarray) -> str:
    for path, leaf in jtu.tree_flatten_with_path(noise)[0]:
        values, name = np.asarray(leaf), jtu.keystr(path, simple=True, separator=".")
        if name.endswith("sigma"):
            bad = ~((values > 0) & np.isfinite(values)) & (mask if values.ndim else True)
            if bad.any():
                k = int(np.argmax(bad))
                where = f"[{k}]" if values.ndim else ""
                value = values[k] if values.ndim else values
                return (
                    f"{name}{where} is {value}: standard deviations must be positive and finite "
                    f"({int(bad.sum())} are not)."
                )
        if name.endswith("covariance"):
            return f"the {name} matrix is not positive definite."
        if name.endswith("counts") and not (values[mask] >= 0).all():
            return f"{name}[{int(np.argmax(~(values >= 0) & mask))}] is negative or not finite: counts are 0 or more."
    return ""


def _bad_start(model: Any, data: AbstractDataset) -> str:
    residual = np.asarray(data.residual(model))
    bad = ~np.isfinite(residual) & np.asarray(data.mask)
    if bad.any():
        k = int(np.argmax(bad))
        return (
            f"{type(model).__name__} is {residual[k]} at row {k} for the starting values ({int(bad.sum())} of "
            f"{len(bad)} rows are not finite). Start elsewhere, or set bounds that keep it finite."
        )
    return ""


def report(solution: Solution) -> Iterator[str]:
    """What a researcher is warned of in a fit that went through."""
    facts = facts_of(solution)
    yield from (words for words in (moved(facts), undetermined(facts)) if words)
