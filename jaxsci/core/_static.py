"""Trees whose leaves are all arrays of numbers: what else a Module holds becomes part of its structure, and back.

A model may hold a network's activation function, a string, a count or a random key. JAX maps, stacks, saves and
compiles arrays of numbers only, so `closed` puts everything else into the structure of the tree, by which programs are
told apart, and `opened` gives the Module back as its author wrote it. Fits and batches close what they are given and
open it where the model is called.
"""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.tree_util as jtu
from jaxtyping import Array, PyTree, UInt

from ._given import as_array, as_float, is_key, is_number
from ._typing import Tree


class Static(eqx.Module):
    """Stands for a leaf that is no array: a node without leaves."""

    value: Any = eqx.field(static=True)


class KeyData(eqx.Module):
    """Stands for an array of typed random keys: their numbers, and the name of their generator."""

    data: UInt[Array, "..."]
    impl: str = eqx.field(static=True)


def closed(tree: Tree) -> PyTree:
    """The tree with arrays of numbers for leaves: Python floats too, all else within `Static` or `KeyData`."""
    leaves, structure = jtu.tree_flatten(tree)
    if all(isinstance(leaf, jax.Array) and not is_key(leaf) for leaf in leaves):
        return tree
    return jtu.tree_unflatten(structure, [_close(leaf) for leaf in leaves])


def opened(tree: Tree) -> PyTree:
    """The tree as it was before `closed`, with its present arrays."""
    leaves, structure = jtu.tree_flatten(tree, is_leaf=_stands_for_another)
    if not any(map(_stands_for_another, leaves)):
        return tree
    return jtu.tree_unflatten(structure, [_open(leaf) for leaf in leaves])


def _close(leaf: Any) -> Any:
    if is_key(leaf):
        return KeyData(jax.random.key_data(leaf), str(jax.random.key_impl(leaf)))
    if isinstance(leaf, float):
        return as_float(leaf)
    if is_number(leaf):
        return as_array(leaf)
    return leaf if isinstance(leaf, jax.ShapeDtypeStruct) else Static(leaf)


def _open(leaf: object) -> Any:
    if isinstance(leaf, Static):
        return leaf.value
    if isinstance(leaf, KeyData) and isinstance(leaf.data, jax.Array):
        return jax.random.wrap_key_data(jnp.asarray(leaf.data), impl=leaf.impl)
    return leaf


def _stands_for_another(node: object) -> bool:
    return isinstance(node, Static | KeyData)
