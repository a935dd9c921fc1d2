"""Padding: data sets of many lengths brought to a few, so that they share compiled programs.

A row that pads is not used, and holds what its field declares by `rows(...)`: the last row once more where a model must
stay finite, a unit diagonal in a covariance, a number elsewhere. A fit of the padded data set is the same fit. NumPy
arrays are padded on the host, arrays of JAX on the device; batches, stacks of pulsars and a user's own `jaxsci.pad` all
come through here.
"""

from typing import Any

import jax.numpy as jnp
import jax.tree_util as jtu
import numpy as np
from jaxtyping import Bool, Int, PyTree

from ..core import AnyArray, Pad, Tree, as_count, row_pads


def pad(dataset: Tree, length: int) -> PyTree:
    """The data set with unused rows appended up to `length` rows; a fit of it is the same fit.

    Arrays of NumPy stay arrays of NumPy.

    **Raises:** `ValueError` when it is longer already.
    """

    as_count(length, "length, the rows to be padded to,")

    def extend(fill: Pad | None, leaf: Any) -> Any:
        if fill is None:
            return leaf
        have = leaf.shape[0]
        if have > length:
            raise ValueError(f"the data set has {have} rows already; it cannot be padded to {length}")
        rows = np.arange(length)
        if have == 0:
            leaf = np.zeros((1, *leaf.shape[1:]), leaf.dtype)  # there is no last row to repeat
        return extended(fill, leaf, np.clip(rows, 0, max(have - 1, 0)), rows < have)

    return jtu.tree_map(extend, row_pads(dataset), dataset, is_leaf=lambda fill: fill is None)


def extended(fill: Pad, leaf: AnyArray, index: Int[np.ndarray, "*b n"], inside: Bool[np.ndarray, "*b n"]) -> Any:
    """Rows `index` of an array, with `fill` where not `inside`: there the index names the last row.

    **Arguments:** `fill`: what `rows(...)` declares: a number, "edge", or "identity" for a square matrix, which takes
    no batch axes.
    """
    xp: Any = np if isinstance(leaf, np.ndarray) else jnp
    if isinstance(fill, str) and fill == "identity":
        both = inside[:, None] & inside[None, :]
        return xp.where(both, leaf[index][:, index], xp.eye(len(index), dtype=leaf.dtype))
    taken = leaf[index]
    if isinstance(fill, str):
        return taken
    keep = inside.reshape(inside.shape + (1,) * (taken.ndim - inside.ndim))
    return xp.where(keep, taken, xp.asarray(fill, taken.dtype))


def bucket(length: int) -> int:
    """The padded length for a data set of `length` rows: the next power of two, at least 16.

    A function of nothing else, so that a member of a batch is padded, and hence rounded, the same
    whoever its neighbours are.
    """
    return max(16, 1 << max(length - 1, 0).bit_length())
