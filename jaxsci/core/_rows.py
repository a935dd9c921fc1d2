"""Fields with one entry per datum, and what may be done to them: pad, chunk, split.

A field declared by `rows(...)` says that its leading axis counts the data, and what a row holds there that only fills
up. That is all that padding, chunking and streaming need to know of a data set or a noise, so that one written by a
user can be padded, cut and read in blocks like those of this package.
"""

import dataclasses
from typing import Any, TypeAlias

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.tree_util as jtu
from jaxtyping import PyTree

from ._given import as_array, as_float, filled, plain
from ._typing import Tree

Pad: TypeAlias = float | int | bool | str
"""What unused rows of an array hold: a number, "edge" for the last row once more, or "identity"."""


def rows(pad: Pad, **kwargs: Any) -> Any:
    """Declare a field whose leading axis counts the data.

    **Arguments:** `pad`: the value that padding rows take, or `"edge"` to repeat the last row
    (inputs: a model must stay finite there, so neither zeros nor NaN will do), or `"identity"` for a
    square matrix over the rows, which gets a unit diagonal and cannot be chunked.
    """
    field = eqx.field(converter=lambda tree: as_rows(tree, field.name), metadata={"rows": pad}, **kwargs)
    return field


def as_rows(tree: Tree, name: str = "rows") -> PyTree:
    """Arrays on the device, integers made floats, booleans kept; a list is one array.

    What the mask of a masked array hides becomes NaN (False among booleans), which a fit takes for an error unless
    the mask of the data set leaves the row out.

    **Raises:** `ValueError` for numbers with a unit.
    """

    def convert(leaf: object) -> Any:
        if isinstance(leaf, jax.Array):
            return leaf if leaf.dtype == bool else as_float(leaf)
        if leaf is None or isinstance(leaf, str):
            return leaf  # for the field check to name
        values = filled(plain(leaf, name, real=False))
        if isinstance(values, list):
            try:
                values = jnp.asarray(values)
            except (TypeError, ValueError):
                return values  # rows of different lengths, or no numbers
        is_mask = getattr(values, "dtype", None) in (bool,)
        return as_array(values.copy()) if is_mask else as_float(values)

    return jtu.tree_map(convert, tree, is_leaf=is_list)


def is_list(node: object) -> bool:
    """True for a list, which stands for one array wherever rows are given."""
    return isinstance(node, list)


def row_pads(module: Tree) -> PyTree:
    """A tree of the pad values of all row leaves, None at every other leaf."""

    def pad_of(path: tuple[Any, ...]) -> Any:
        node: Any = module
        for key in path:
            if isinstance(key, jtu.GetAttrKey):
                field = next(f for f in dataclasses.fields(node) if f.name == key.name)
                if "rows" in field.metadata:
                    return field.metadata["rows"]
                node = getattr(node, key.name)
            else:
                node = node[getattr(key, "idx", getattr(key, "key", None))]
        return None

    leaves, structure = jtu.tree_flatten_with_path(module)
    return jtu.tree_unflatten(structure, [pad_of(path) for path, _ in leaves])


def split_rows(module: Tree) -> tuple[PyTree, PyTree]:
    """(leaves that run over the data, all others), each None where the other has its leaf.

    **Raises:** `ValueError` where a matrix couples all rows.
    """
    pads = row_pads(module)
    if "identity" in jtu.tree_leaves(pads):
        raise ValueError(
            "a dense covariance couples all rows: it cannot be taken in chunks (use chunk=None or LowRank)"
        )
    spec = jtu.tree_map(lambda p: p is not None, pads, is_leaf=lambda p: p is None)
    return eqx.partition(module, spec)
