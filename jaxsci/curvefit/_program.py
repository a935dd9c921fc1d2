"""Compiling a function of whole Modules: its arrays are arguments, all else in them is part of the program."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.tree_util as jtu
import numpy as np

from ..fitting._fit import cheap_compile, outermost


def run(fn: Callable[..., Any], *args: Any) -> Any:
    """fn(*args), compiled once for each structure of the arguments; inside a transformation just called."""
    leaves, structure = jtu.tree_flatten(args)
    if any(isinstance(leaf, jax.core.Tracer) for leaf in leaves):
        return fn(*args)
    arrays = [leaf for leaf in leaves if isinstance(leaf, jax.Array | np.ndarray)]
    rest = tuple(None if isinstance(leaf, jax.Array | np.ndarray) else leaf for leaf in leaves)
    return outermost(_compiled(), _call, arrays, fn, structure, rest)


@functools.cache
def _compiled() -> Any:
    return jax.jit(_call, static_argnums=(1, 2, 3), compiler_options=cheap_compile())


def _call(arrays: list[Any], fn: Callable[..., Any], structure: Any, rest: tuple[Any, ...]) -> Any:
    fill = iter(arrays)
    return fn(*jtu.tree_unflatten(structure, [next(fill) if leaf is None else leaf for leaf in rest]))
