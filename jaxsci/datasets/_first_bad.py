"""The first entry of a data set that spoils a fit: which array, which row, what stands there, and how many there are.

A fit only says that something among its data is not finite, or that a standard deviation is not positive. Then the data
are looked at once more, on the host, to name the place; that is dear for data in files, so it is done after the fact.
One search serves data sets in memory, streams, and the arrays of a `curve_fit` call.
"""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import jax.tree_util as jtu
import numpy as np
from jaxtyping import Bool, Shaped

from ..core import row_pads
from ._dataset import AbstractDataset
from ._stream import StreamedDataset


class Seen(NamedTuple):
    """An array that was looked at: `fine` says of its entries, or of its rows, whether they are as they should be."""

    name: str
    values: Shaped[np.ndarray, "*shape"]
    fine: Bool[np.ndarray, "*lead"]


class Bad(NamedTuple):
    """The first bad entry of an array: its place and value, how many are bad, and how many there are in all."""

    name: str
    place: tuple[int, ...]
    value: object
    amount: int
    total: int

    def __str__(self) -> str:
        where = f"[{', '.join(map(str, self.place))}]" if self.place else ""
        return f"{self.name}{where} is {self.value}"


def first_bad(pieces: Iterable[Iterable[Seen]]) -> Bad | None:
    """The first bad entry of the first array that has any; `None` where all are fine.

    **Arguments:** `pieces`: the arrays of each piece of the data, in the order of its rows; those of a name continue
    each other along the leading axis.
    """
    found: dict[str, Bad] = {}
    for piece in pieces:
        for name, values, fine in piece:
            known = found.setdefault(name, Bad(name, (), None, 0, 0))
            at = np.argwhere(~fine)
            if len(at) and not known.amount:
                index = tuple(int(k) for k in at[0])
                place = (index[0] + known.total // max(fine[0].size, 1), *index[1:]) if index else ()
                known = known._replace(place=place, value=values[index])
            found[name] = known._replace(amount=known.amount + len(at), total=known.total + fine.size)
    return next((bad for bad in found.values() if bad.amount), None)


def pieces(data: AbstractDataset) -> Iterator[AbstractDataset]:
    """The data set, or one block of it after another where it is never whole in memory."""
    if isinstance(data, StreamedDataset):
        return data.pieces()
    return iter([data])


def row_arrays(data: AbstractDataset) -> dict[str, np.ndarray]:
    """The arrays of a data set that run over its rows, by name: `observed`, `inputs['t']`, `noise.sigma`."""
    pads = jtu.tree_leaves(row_pads(data), is_leaf=lambda pad: pad is None)
    leaves = jtu.tree_flatten_with_path(data)[0]
    return {
        jtu.keystr(path).removeprefix("."): np.asarray(leaf)
        for (path, leaf), pad in zip(leaves, pads, strict=True)
        if pad is not None and not (isinstance(pad, str) and pad == "identity")
    }


def finite_rows(values: np.ndarray) -> np.ndarray:
    """True for each row of an array whose entries are all finite."""
    return np.isfinite(values).reshape(len(values), -1).all(axis=1)
