"""Many Modules of one structure as one Module with a leading axis, which `jax.vmap` maps and `fit_batch` takes.

Members that differ in more than numbers are refused by name, because what is not an array has to be the same for all.
Arrays are put together on the host: on the device it would be a program with an operand for each member, which takes
minutes to compile for thousands of them.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import jax.tree_util as jtu
import numpy as np
from jaxtyping import PyTree

from ..core import as_array, describe, is_key, is_number, traced


def stack(modules: Sequence[PyTree]) -> PyTree:
    """Modules of one structure as one Module whose arrays have a new leading axis: what `jax.vmap` maps.

    **Raises:** `ValueError` naming the first member that differs, and how.
    """
    members = list(modules)
    if not members:
        raise ValueError("there is nothing to stack: the list is empty")
    reference: Any
    structure: Any
    reference, structure = jtu.tree_flatten_with_path(members[0])
    rows = []
    for k, member in enumerate(members):
        leaves, other = jtu.tree_flatten(member)
        if other != structure:
            raise ValueError(
                f"member {k} ({type(member).__name__}) has another structure than member 0 "
                f"({type(members[0]).__name__}): only like Modules can be stacked"
            )
        for (path, a), b in zip(reference, leaves, strict=True):
            if _stacks(a) != _stacks(b) or (not _stacks(a) and a != b):
                raise ValueError(
                    f"{jtu.keystr(path, simple=True, separator='.')} is {describe(b)} in member {k} and {describe(a)} "
                    "in member 0: only numbers may differ among Modules that are stacked"
                )
            if is_number(a) and jnp.shape(a) != jnp.shape(b):
                raise ValueError(
                    f"{jtu.keystr(path, simple=True, separator='.')} has shape {jnp.shape(b)} in member {k} "
                    f"and {jnp.shape(a)} in member 0; pad the data sets to one length first (jaxsci.pad)"
                )
        rows.append(leaves)
    return jtu.tree_unflatten(structure, [_stacked(column) for column in zip(*rows, strict=True)])


def _stacks(leaf: object) -> bool:
    """True for numbers, counts among them; a function or a word stays what it is."""
    return is_number(leaf) or isinstance(leaf, int)


def _stacked(column: Sequence[Any]) -> Any:
    """Arrays with a new leading axis, put together on the host: on the device it is a program of as many operands."""
    if not _stacks(column[0]):
        return column[0]
    if traced(column):
        return jnp.stack(column)
    if is_key(column[0]):
        numbers = np.stack([np.asarray(jax.random.key_data(x)) for x in column])
        return jax.random.wrap_key_data(as_array(numbers), impl=jax.random.key_impl(column[0]))
    return as_array(np.stack([np.asarray(x) for x in column]))
