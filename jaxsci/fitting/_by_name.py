"""Values and standard errors by name: a dictionary that also knows the elements of array parameters.

`Solution.values` and `Solution.std` are made of it. JAX maps it like any dictionary.
"""

from collections.abc import Iterable
from typing import Any

import jax.tree_util as jtu
from jaxtyping import Array

from ..core import element_names, suggest


class ByName(dict[str, Array]):
    """`{"tau": ..., "c": ...}`, which also answers to `"c[0]"`, `"c[1,2]"`: the names in summaries and tables.

    `free`: name and shape of each parameter; the arrays may have axes of a batch before those.

    **Raises:** `KeyError` for a name that is not there, with a suggestion.
    """

    def __init__(self, values: Iterable[tuple[str, Any]], free: tuple[tuple[str, tuple[int, ...]], ...]):
        dict.__init__(self, values)
        self.free = free

    def __missing__(self, name: str) -> Array:
        for parameter, shape in self.free:
            if str(name).startswith(f"{parameter}[") and name in element_names(parameter, shape):
                index = tuple(int(k) for k in name.removeprefix(parameter)[1:-1].split(","))
                return self[parameter][(..., *index)]
        known = [*self, *(e for n, shape in self.free if shape and n in self for e in element_names(n, shape))]
        raise KeyError(f"there is no free parameter {name!r}{suggest(name, known)} (free: {', '.join(self) or 'none'})")


def _flatten(tree: ByName) -> tuple[tuple[tuple[jtu.DictKey, Any], ...], tuple[Any, Any]]:
    return tuple((jtu.DictKey(name), value) for name, value in tree.items()), (tuple(tree), tree.free)


def _unflatten(names: tuple[Any, Any], values: Iterable[Any]) -> ByName:
    return ByName(zip(names[0], values, strict=True), names[1])


jtu.register_pytree_with_keys(ByName, _flatten, _unflatten)
