"""What a function can see beside its arguments: closure cells, globals, defaults, attributes of classes.

`snapshot` is for a function about to be fitted: where all that it can see is libraries, numbers, arrays of JAX and
other such functions, equal snapshots mean equal results and it need not be traced again (a few microseconds in place
of about a millisecond). `Watch` is for the classes and functions that are part of a compiled program of `fit`: it
looks deeper, into arrays, lists, dictionaries and objects by value, because a trace of a whole fit is dear.
"""

import builtins
import dataclasses
import dis
import enum
import functools
import logging
import re
import sys
import types
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.tree_util as jtu
import numpy as np

from ..core import is_traced
from ._keys import Same, value_key


def _words(text: str) -> frozenset[str]:
    return frozenset(re.findall(r"\w+", text))


# what the modules and functions of these hold is taken to be constant
_LIBRARIES = _words(
    """
    jax jaxlib numpy math cmath equinox builtins operator optimistix lineax optax diffrax jaxtyping beartype
    functools itertools typing collections dataclasses jaxsci
    """
)
_CLASSES = _LIBRARIES | sys.stdlib_module_names
_CONSTANT = (bool, int, complex, str, bytes, type(None), np.dtype, enum.Enum, logging.Logger, jtu.PyTreeDef)
_PJIT = type(jax.jit(abs))
_FORBIDDEN = frozenset(["globals", "locals", "eval", "exec", "vars", "open", "input", "__import__"])
_GIVE_UP = 2000  # things looked at
_HEAP = 1 << 9  # the flag of a class that is written in Python, or might be


class Unknown(Exception):
    """Something may change unnoticed."""


class Seen(NamedTuple):
    """What a function is and can see, as a key; arrays of JAX apart, which may be large."""

    key: Any
    arrays: tuple[jax.Array, ...]


def snapshot(f: Any) -> Seen | None:
    """What f can see, or `None` where something may change unnoticed.

    Equal snapshots with the same arrays mean equal results. `f`: a function, or a tuple of functions.
    """
    reader = _Reader(deep=False)
    try:
        return Seen(reader.read(f), tuple(reader.arrays))
    except Unknown:
        return None


class Watch:
    """What classes, functions and objects can see, by value; `holds` while nothing of it has changed.

    **Raises:** `Unknown` where something may change unnoticed.
    """

    def __init__(self, roots: tuple[Any, ...]):
        reader = _Reader(deep=True)
        self.key = tuple([reader.read(root) for root in roots])
        self._items, self._attributes, self._contents = reader.items, reader.attributes, reader.contents

    def holds(self) -> bool:
        """True while all is as it was."""
        for mapping, name, value in self._items:
            if mapping.get(name, _Reader) is not value:
                return False
        for thing, name, value in self._attributes:
            if getattr(thing, name, _Reader) is not value:
                return False
        return all(now() == then for now, then in self._contents)


def roots_of(tree: Any) -> tuple[Any, ...]:
    """The classes, functions and objects in a tree of Modules that are not of a library: what to watch.

    Fields with "host" in their metadata are not looked at: what is called on the host is no part of a program.
    """
    found: dict[int, Any] = {}

    def look(node: Any) -> None:
        if isinstance(node, eqx.Module):
            kind = type(node)
            if _home(kind) not in _CLASSES:
                found[id(kind)] = kind
            for field in dataclasses.fields(node):
                if "host" not in field.metadata:
                    look(getattr(node, field.name, None))
        elif isinstance(node, functools.partial):
            look((node.func, node.args, node.keywords))
        elif isinstance(node, tuple | list):
            for item in node:
                look(item)
        elif isinstance(node, dict):
            look(tuple(node.values()))
        elif not (isinstance(node, (float, jax.Array, np.ndarray, np.generic, *_CONSTANT)) or _constant(node)):
            found[id(node)] = node

    look(tree)
    return tuple(found.values())


class _Names(NamedTuple):
    """The globals that a function's code reads, and all names in it, those of attributes too."""

    globals: tuple[str, ...]
    all: frozenset[str]


@functools.lru_cache(maxsize=2048)
def _names(code: types.CodeType, cells: frozenset[str] = frozenset()) -> _Names:
    """`cells`: variables of functions around this one that belong to the same call."""
    found, everything, own = set(), set(code.co_names), cells | set(code.co_cellvars)
    for step in dis.get_instructions(code):
        name, value = step.opname, step.argval
        if name in ("STORE_GLOBAL", "DELETE_GLOBAL") or (name == "STORE_DEREF" and value not in own):
            raise Unknown
        if name == "IMPORT_NAME" and value.partition(".")[0] not in _LIBRARIES:
            raise Unknown
        if name in ("LOAD_GLOBAL", "LOAD_NAME"):
            found.add(value)
    for const in code.co_consts:
        if isinstance(const, types.CodeType):
            inner = _names(const, own)
            found |= set(inner.globals)
            everything |= inner.all
    if found & _FORBIDDEN:
        raise Unknown
    return _Names(tuple(sorted(found)), frozenset(everything))


def _home(thing: Any) -> str:
    """The package that defines it."""
    module = getattr(thing, "__module__", None)
    return module.partition(".")[0] if isinstance(module, str) else ""


def _root(f: types.FunctionType) -> str:
    """The package in whose globals a function reads: its `__module__` may be copied from another."""
    return (f.__globals__.get("__name__") or "").partition(".")[0]


def _constant(v: Any) -> bool:
    """True for modules, classes, functions and objects of libraries, as far as they do the same at each call."""
    kind = type(v)
    if kind is types.FunctionType:
        root = _root(v)
        return root == "jax" or (root in _LIBRARIES and all(_constant_cell(cell, v) for cell in v.__closure__ or ()))
    if kind is types.ModuleType:
        return v.__name__.partition(".")[0] in _LIBRARIES
    if isinstance(v, type):
        return _home(v) in _CLASSES
    inner = getattr(v, "__wrapped__", None)  # of functions that have been jitted, or have a derivative of their own
    if type(inner) is types.FunctionType:
        return _home(kind) in _LIBRARIES and _root(inner) in _LIBRARIES
    if kind is _PJIT:
        return False
    if isinstance(v, types.BuiltinFunctionType):
        return _home(v) in _LIBRARIES and isinstance(v.__self__, types.ModuleType | None)
    return isinstance(v, np.ufunc | jnp.ufunc) or (_home(kind) == "jaxsci" and not isinstance(v, eqx.Module))


def _constant_cell(cell: types.CellType, owner: types.FunctionType) -> bool:
    """True where a function of a library holds its own kind, or a plain value, as a decorator of its own leaves it."""
    try:
        held = cell.cell_contents
    except ValueError:  # nothing yet
        return False
    if type(held) is types.FunctionType and held.__closure__ is not None:
        return held is owner
    return isinstance(held, _CONSTANT) or _constant(held)


class _Reader:
    """Reads what things can see, and notes where it was found."""

    def __init__(self, deep: bool):
        self.deep = deep
        self.seen: dict[Any, Any] = {}
        self.count = 0
        self.arrays: list[jax.Array] = []
        self.items: list[tuple[Mapping[Any, Any], Any, Any]] = []
        self.attributes: list[tuple[Any, str, Any]] = []
        self.contents: list[tuple[Callable[[], Any], Any]] = []

    def read(self, v: Any, names: frozenset[str] = frozenset()) -> Any:
        """A token that two things share only where they are, and can see, the same.

        `names`: of attributes that the code which reads it may ask for.
        """
        kind = type(v)
        if kind is types.ModuleType and v.__name__ in _LIBRARIES:
            return v.__name__  # nearly always
        if kind is types.FunctionType and not _constant(v):
            return self._once(v, id(v), self._function)
        if kind is float:
            return kind, repr(v)  # 0.0 == -0.0
        if isinstance(v, _CONSTANT):
            return kind, repr(v) if kind is complex else v
        if isinstance(v, jax.Array):
            return self._array(v)
        if isinstance(v, np.generic):
            return v.dtype, v.tobytes()
        if kind is tuple:
            return kind, *[self.read(item, names) for item in v]
        if _constant(v):
            return Same(v)
        if kind is types.ModuleType:
            return self._once(v, (id(v), names), functools.partial(self._module, names=names))
        if isinstance(v, functools.partial):
            return kind, self.read(v.func), self.read(v.args), *[(k, self.read(w)) for k, w in v.keywords.items()]
        if not self.deep:
            raise Unknown
        return self._once(v, id(v), functools.partial(self._object, names=names))

    def _once(self, v: Any, name: Any, reader: Callable[[Any], Any]) -> Any:
        """reader(v), except that a thing met again is named by the order of its first meeting."""
        if name in self.seen:
            return "again", self.seen[name][0]
        self.count += 1
        if self.count > _GIVE_UP:
            raise Unknown
        self.seen[name] = len(self.seen), v
        return reader(v)

    def _array(self, v: Any) -> Any:
        if is_traced(v):
            raise Unknown
        if self.deep:
            return Same(v)  # part of the compiled program anyway
        self.arrays.append(v)
        return "array", v.shape, v.dtype, v.weak_type

    def _function(self, f: Any) -> Any:
        if self.deep:
            self.attributes += [(f, name, getattr(f, name)) for name in ("__code__", "__defaults__", "__kwdefaults__")]
        names, values = frozenset(f.__code__.co_names), []
        if _root(f) not in _LIBRARIES:
            code = _names(f.__code__)
            names, values = code.all, self._globals(f.__globals__, code)
        values += [self.read(v, names) for v in f.__defaults__ or ()]
        values += [(k, self._item(f.__kwdefaults__, k, names)) for k in f.__kwdefaults__ or ()]
        for cell in f.__closure__ or ():
            try:
                inside = cell.cell_contents
            except ValueError:  # not yet filled
                raise Unknown from None
            self.attributes.append((cell, "cell_contents", inside))
            values.append(self.read(inside, names))
        return f.__code__, *values

    def _globals(self, home: dict[str, Any], names: _Names) -> list[Any]:
        if "random" in names.all and not self.deep:
            raise Unknown  # it may be NumPy's
        values = []
        for name in names.globals:
            if name in home:
                values.append(self._item(home, name, names.all))
            else:
                values.append((name, self.read(getattr(builtins, name, None))))
                self.items.append((home, name, _Reader))  # nothing has been put in front of the builtin
        return values

    def _item(self, mapping: Any, name: Any, names: frozenset[str]) -> Any:
        value = mapping[name]
        self.items.append((mapping, name, value))
        return self.read(value, names)

    def _module(self, module: Any, names: frozenset[str]) -> Any:
        """The attributes of a module of the user's that the code may ask for."""
        if module.__name__ in sys.stdlib_module_names or "getattr" in names:
            raise Unknown  # the time, the environment, ...
        inside = vars(module)
        self.items += [(inside, name, _Reader) for name in names if name not in inside]
        return module, *[(name, self._item(inside, name, names)) for name in sorted(names) if name in inside]

    def _object(self, v: Any, names: frozenset[str]) -> Any:
        """The token of something that may change, by value."""
        if isinstance(v, type):
            return self._class(v)
        if isinstance(v, types.MethodType):
            return self.read(v.__func__), self.read(v.__self__)
        if isinstance(v, _PJIT):
            return "jit", self.read(getattr(v, "__wrapped__", None))
        if isinstance(v, property):
            return "property", self.read(v.fget)
        if isinstance(v, functools.cached_property):
            return "property", self.read(v.func)
        if isinstance(v, staticmethod | classmethod):
            return type(v), self.read(v.__func__)
        if isinstance(v, np.ndarray):
            if v.dtype == object:
                raise Unknown
            return self._content(lambda: value_key(v))
        if isinstance(v, frozenset):
            return frozenset([self.read(item) for item in v])
        if isinstance(v, dict):
            self._content(lambda: tuple(v))
            return type(v), *[(self.read(key), self._item(v, key, names)) for key in v]
        if isinstance(v, list | set):
            self._content(lambda: tuple(map(Same, v)))
            return type(v), *[self.read(item) for item in v]
        return self._instance(v)

    def _content(self, now: Callable[[], Any]) -> Any:
        then = now()
        self.contents.append((now, then))
        return then

    def _instance(self, v: Any) -> Any:
        """An object of any class: what its class can do, and its attributes."""
        kind = type(v)
        for base in kind.__mro__[:-1]:
            hidden = not base.__flags__ & _HEAP and base is not types.SimpleNamespace
            if hidden or vars(base).get("__slots__"):
                raise Unknown  # its state does not show in its attributes
        if not isinstance(getattr(v, "__dict__", None), dict):
            raise Unknown  # nor does that of what an extension module made
        inside = vars(v)
        self._content(lambda: tuple(inside))
        return self.read(kind), *[(name, self._item(inside, name, frozenset())) for name in inside]

    def _class(self, kind: type) -> Any:
        """What the methods and attributes of a class of the user's, and of its bases, can see."""
        parts: list[Any] = []
        for base in kind.__mro__:
            inside = vars(base)
            if _home(base) in _CLASSES:
                parts.append(base)
                continue
            self._content(inside.__len__)
            for name, member in tuple(inside.items()):
                written = type(member) is types.FunctionType and member.__code__.co_filename != "<string>"
                if name not in _OF_CLASSES and (written or type(member) is not types.FunctionType):
                    parts.append((name, self._item(inside, name, frozenset())))
        return kind.__qualname__, *parts


# what Python, Equinox and dataclasses write into each class
_OF_CLASSES = _words(
    """
    __module__ __qualname__ __annotations__ __annotate__ __annotate_func__ __annotations_cache__ __doc__
    __dict__ __weakref__ __abstractmethods__ _abc_impl __abstractvars__ __abstractclassvars__
    __dataclass_params__ __dataclass_fields__ __match_args__ __parameters__ __orig_bases__ __static_attributes__
    __firstlineno__ __hash__ __eq__ __repr__ __init__ __post_init__ __replace__ __type_params__ __slots__
    """
)
