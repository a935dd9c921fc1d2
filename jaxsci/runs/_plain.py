"""Outcomes as a text and arrays, and back: what a run keeps of the members that are done.

An outcome is a tree of dataclasses, tuples, dictionaries, words, numbers and arrays. Classes and functions in it are
written by their names, and looked up among what is loaded already; reading makes dataclasses and tuples by themselves,
so that nothing is imported, called or unpickled on the way. Members are not written, but the place that each has.
`Progress` keeps outcomes in this form.
"""

import dataclasses
import functools
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ..core import AnyArray, is_key

_ABSENT = object()
"""Stands for a field that was never given."""


class UnkeptError(Exception):
    """There is something in an outcome that cannot be written so: its member is run again."""


class Plain:
    """Writes and reads values of one job, whose `members` stand for themselves."""

    def __init__(self, members: Sequence[object]) -> None:
        self.members = members
        self.places = {id(member): place for place, member in enumerate(members)}

    def packed(self, value: object) -> list[np.ndarray]:
        """The text, as an array of bytes, and the arrays of a value.

        **Raises:** `UnkeptError` for what has no such form.
        """
        arrays: list[np.ndarray] = []
        text = json.dumps(self._node(value, arrays), separators=(",", ":"))
        return [np.frombuffer(text.encode(), np.uint8), *arrays]

    def unpacked(self, parts: Sequence[np.ndarray]) -> Any:
        """The value that was packed."""
        text, *arrays = parts
        return self._value(json.loads(text.tobytes()), arrays)

    def _node(self, value: Any, arrays: list[np.ndarray]) -> Any:
        kind = type(value)
        if kind in (type(None), bool, int, str):
            return value
        if kind is float:
            return {"float": value.hex()}
        if id(value) in self.places:
            return {"member": self.places[id(value)]}
        if isinstance(value, jax.Array | np.ndarray | np.generic):
            return self._array(value, arrays)
        if kind in (list, tuple):
            return {kind.__name__: [self._node(item, arrays) for item in value]}
        if kind is dict:
            return {"dict": [[self._node(key, arrays), self._node(item, arrays)] for key, item in value.items()]}
        if isinstance(value, Path):
            return {"path": str(value)}
        if isinstance(value, np.dtype):
            return {"dtype": value.str}
        if isinstance(value, tuple) and getattr(kind, "_fields", None) is not None:
            return {"named": _name(kind), "items": [self._node(item, arrays) for item in value]}
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            held = ((field.name, getattr(value, field.name, _ABSENT)) for field in dataclasses.fields(value))
            items = [[name, self._node(item, arrays)] for name, item in held if item is not _ABSENT]
            return {"class": _name(kind), "items": items}
        return {"name": _name(value)}

    def _array(self, value: AnyArray | np.generic, arrays: list[np.ndarray]) -> dict[str, Any]:
        if isinstance(value, jax.Array) and is_key(value):
            arrays.append(np.asarray(jax.random.key_data(value)))
            return {"key": len(arrays) - 1, "impl": str(jax.random.key_impl(value))}
        array = np.asarray(value)
        if array.dtype.hasobject:
            raise UnkeptError("an array of objects")
        arrays.append(array)
        kind = "jax" if isinstance(value, jax.Array) else "numpy" if isinstance(value, np.ndarray) else "number"
        return {kind: len(arrays) - 1}

    def _value(self, node: object, arrays: Sequence[np.ndarray]) -> Any:
        if not isinstance(node, dict):
            return node
        of = functools.partial(self._value, arrays=arrays)
        match node:
            case {"float": text}:
                return float.fromhex(text)
            case {"member": place}:
                return self.members[place]
            case {"jax": place}:
                return jnp.asarray(arrays[place])
            case {"numpy": place}:
                return arrays[place]
            case {"number": place}:
                return arrays[place][()]
            case {"key": place, "impl": impl}:
                return jax.random.wrap_key_data(jnp.asarray(arrays[place]), impl=impl)
            case {"list": items}:
                return [of(item) for item in items]
            case {"tuple": items}:
                return tuple([of(item) for item in items])
            case {"dict": items}:
                return {of(key): of(item) for key, item in items}
            case {"path": text}:
                return Path(text)
            case {"dtype": text}:
                return np.dtype(text)
            case {"named": name, "items": items}:
                return tuple.__new__(_class(name, tuple), [of(item) for item in items])
            case {"class": name, "items": items}:
                made = object.__new__(_class(name, object))
                for key, item in items:
                    object.__setattr__(made, key, of(item))
                return made
            case {"name": name}:
                return _found(name)
        raise ValueError(f"nothing is known of {node!r:.60}")


def _name(thing: object) -> str:
    """The name by which a class or function is found again."""
    name = f"{getattr(thing, '__module__', '')}:{getattr(thing, '__qualname__', '')}"
    try:
        if _found(name) is thing:
            return name
    except ValueError:
        pass
    raise UnkeptError(f"{type(thing).__name__} {thing!r:.60}")


def _found(name: str) -> Any:
    """What is defined under a name in a module that is loaded.

    Not what a module has imported from elsewhere, nor anything of the standard library: a file that was tampered with
    must not put `os.system` where a function of a science stood.
    """
    module, _, path = name.partition(":")
    thing: Any = sys.modules.get(module)
    for part in path.split("."):
        thing = getattr(thing, part, None)
    own = getattr(thing, "__module__", None) == module and getattr(thing, "__qualname__", None) == path
    if not own or module.partition(".")[0] in sys.stdlib_module_names:
        raise ValueError(f"there is no {name}")
    return thing


def _class(name: str, base: type) -> Any:
    found = _found(name)
    if not (isinstance(found, type) and issubclass(found, base)):
        raise ValueError(f"{name} is no such class")
    if not (dataclasses.is_dataclass(found) or getattr(found, "_fields", None) is not None):
        raise ValueError(f"{name} is no class of plain fields")
    return found
