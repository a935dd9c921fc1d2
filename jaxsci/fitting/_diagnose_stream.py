"""Why a fit of a stream failed, in words that name the array and the row. Reads the rows once more, on the host."""

from collections.abc import Callable
from typing import Any, NoReturn

import equinox as eqx
import jax.numpy as jnp
import jax.tree_util as jtu
import numpy as np

from ..core import split_rows
from ._solution import RESULTS
from ._stream import StreamedDataset


def explain_stream(result: Any, model: Any, data: StreamedDataset) -> NoReturn:
    """Raise what belongs to a `RESULTS`."""
    message = RESULTS[result]
    if result == RESULTS.nonfinite_data:
        raise ValueError(_first_bad(data, np.isfinite, False, "not finite. Mask them (mask=)") or message)
    if result == RESULTS.bad_noise:
        raise ValueError(_first_bad(data, _positive, True, "not positive and finite") or message)
    if result == RESULTS.nonfinite_start:
        raise ValueError(_bad_start(model, data) or message)
    raise (ValueError if result == RESULTS.empty else RuntimeError)(message)


def _first_bad(data: StreamedDataset, fine: Callable[[np.ndarray], np.ndarray], noise: bool, what: str) -> str:
    """The first row of the data's columns, or of the noise's, that is not fine."""
    for k, column in enumerate(data.source.columns):
        if column.name.startswith("noise") != noise or k == data.source.mask:
            continue
        row, count, value = data.source.first_bad(lambda block: (block[k], fine(block[k])))  # noqa: B023
        if count:
            return f"{column.name}[{row}] is {value}: {count} of {len(data)} rows are {what}."
    return ""


def _positive(values: np.ndarray) -> np.ndarray:
    return (values > 0) & np.isfinite(values)


def _bad_start(model: Any, data: StreamedDataset) -> str:
    empty, shared = split_rows(data.stream.like)
    structure = jtu.tree_structure(empty)

    def look(block: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        piece = eqx.combine(jtu.tree_unflatten(structure, map(jnp.asarray, block)), shared)
        residual = np.asarray(piece.residual(model))
        return residual, np.isfinite(residual)

    row, count, value = data.source.first_bad(look)
    if count == 0:
        return ""
    return (
        f"{type(model).__name__} is {value} at row {row} for the starting values ({count} of {len(data)} rows are "
        "not finite). Start elsewhere, or set bounds that keep it finite."
    )
