"""Digests by which the next process knows that it has the same thing before it: data, models, settings.

Every bit counts: of arrays, numbers and words, of the classes and fields that hold them, and of the source of classes
and functions that are not jaxsci's own, so that a model whose formula was changed since is another one. Checkpoints and
saved posteriors keep such digests.
"""

import contextlib
import dataclasses
import functools
import hashlib
import inspect
import re
import types
from collections.abc import Callable, Mapping

import jax
import numpy as np

from ..core import Tree, is_key

_OURS = ("jaxsci", "jax", "jaxlib", "jaxtyping", "equinox", "optimistix", "lineax", "diffrax", "optax", "numpy")
"""Packages whose code is told by their versions."""
_ADDRESS = re.compile(r" at 0x[0-9a-f]+")


def fingerprint(tree: Tree) -> str:
    """A digest of a tree: of its classes and fields, and of every bit in it.

    What a model's code calls outside of its own class is not looked at.
    """
    digest = hashlib.sha256()
    _add(digest, tree, [])
    return digest.hexdigest()


def _add(digest: "hashlib._Hash", node: object, within: list[int]) -> None:
    """Add a node and all below it. `within`: the functions that are being described, as one may hold itself."""
    add = functools.partial(_add, digest, within=within)
    if node is None or isinstance(node, str | int | float | complex | bool | bytes):
        digest.update(f"{type(node).__name__} {node!r};".encode())
    elif isinstance(node, jax.Array | np.ndarray | np.generic):
        array = np.ascontiguousarray(
            jax.random.key_data(node) if isinstance(node, jax.Array) and is_key(node) else node
        )
        digest.update(f"array {array.dtype}{array.shape};".encode())
        digest.update(array.tobytes())
    elif isinstance(node, Mapping):
        digest.update(f"mapping of {len(node)};".encode())
        for key, value in node.items():
            add(key), add(value)
    elif isinstance(node, type) or inspect.isroutine(node):
        _add_code(digest, node, within)
    elif dataclasses.is_dataclass(node):
        add(type(node))
        for field in dataclasses.fields(node):
            digest.update(f"{field.name}=".encode())
            add(getattr(node, field.name, None))
    elif isinstance(node, list | tuple):
        add(type(node))
        digest.update(f"{len(node)} items;".encode())
        for value in node:
            add(value)
    elif isinstance(node, functools.partial):
        add((node.func, node.args, node.keywords))
    else:  # such as a dtype, or a function that JAX has wrapped
        inner = getattr(node, "__wrapped__", None)
        digest.update(f"{type(node).__qualname__} {_ADDRESS.sub('', repr(node))};".encode())
        if inspect.isroutine(inner):
            add(inner)


def _add_code(digest: "hashlib._Hash", node: type | Callable[..., object], within: list[int]) -> None:
    """Add the name of a class or function and, where it is the user's own, its source and what it has closed over."""
    module = getattr(node, "__module__", None) or ""
    digest.update(f"{getattr(node, '__qualname__', type(node).__qualname__)};".encode())
    if module.partition(".")[0] in _OURS or id(node) in within:
        return
    with contextlib.suppress(OSError, TypeError):  # where it was typed at a prompt, or is not written in Python
        digest.update(inspect.getsource(node).encode())
    for cell in (node.__closure__ or ()) if isinstance(node, types.FunctionType) else ():
        with contextlib.suppress(ValueError):  # nothing is in it yet
            _add(digest, cell.cell_contents, [*within, id(node)])
