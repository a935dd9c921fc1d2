"""Keys that two traced functions share only where they compute the same thing: what finds a compiled program again.

A user's function may see what no argument shows, so what is compared is what it computes: the equations of its jaxpr,
with the constants among them by value. Two equal keys mean the same program. What cannot be compared so, such as a
traced constant, has no key, and is compiled anew. `_program` and `_fresh` ask for them.
"""

import dataclasses
import hashlib
import types
import weakref
from collections.abc import Callable
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn, Literal, Var
from jaxtyping import Array

from ..core import AnyArray, is_traced

AnyJaxpr: TypeAlias = Jaxpr | ClosedJaxpr
JITS = ("jit", "pjit", "closed_call")
_JVP, _RULES = "custom_jvp_call", ("custom_jvp_call", "custom_vjp_call")
_SIMPLE = (bool, int, float, complex, str, types.FunctionType, jax.tree_util.PyTreeDef)


class Unkeyed(Exception):
    """There is no key by which this could be found again."""


class Key:
    """Nested tuples whose hash is computed once."""

    def __init__(self, parts: tuple[Any, ...]):
        self.parts, self.hash = parts, hash(parts)

    def __hash__(self) -> int:
        return self.hash

    def __eq__(self, other: object) -> bool:
        return self is other or (isinstance(other, Key) and self.hash == other.hash and self.parts == other.parts)


class Same:
    """Equal only to itself; keeps the object alive, so that no other takes its place."""

    def __init__(self, value: object):
        self.value = value

    def __hash__(self) -> int:
        return id(self.value)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Same) and self.value is other.value


def inner_of(eqn: JaxprEqn) -> Any:
    """The jaxpr that an equation calls."""
    return eqn.params["jaxpr" if "jaxpr" in eqn.params else "call_jaxpr"]


def _weakly(function: Callable[..., Any]) -> Callable[..., Any]:
    """Remember function(jaxpr, ...) while the jaxpr lives: those of `jax.numpy` functions do."""
    known: weakref.WeakKeyDictionary[Any, dict[Any, Any]] = weakref.WeakKeyDictionary()

    def wrapped(jaxpr: AnyJaxpr, *rest: object) -> Any:
        answers = known.setdefault(jaxpr, {})
        if rest not in answers:
            answers[rest] = function(jaxpr, *rest)
        return answers[rest]

    return wrapped


@_weakly
def holds(jaxpr: AnyJaxpr) -> bool:
    """True where arrays are part of the jaxpr, or of one that it calls."""
    return bool(getattr(jaxpr, "consts", ())) or any(
        holds(inner_of(eqn)) for eqn in jaxpr.eqns if eqn.primitive.name in JITS
    )


@_weakly
def jaxpr_key(jaxpr: AnyJaxpr, rules: bool) -> Key:
    """The key of a jaxpr; its literals and constants are part of it, and custom derivatives if `rules`."""
    number = {v: k for k, v in enumerate([*jaxpr.constvars, *jaxpr.invars])}

    def read(v: Var | Literal) -> Any:
        return (v.aval, value_key(np.asarray(v.val), rules)) if isinstance(v, Literal) else number[v]

    parts = [v.aval for v in number] + [value_key(c, rules) for c in getattr(jaxpr, "consts", ())]
    for eqn in jaxpr.eqns:
        parts.append((equation_key(eqn, rules), *map(read, eqn.invars)))
        number.update({v: len(number) + k for k, v in enumerate(eqn.outvars)})
    return Key((*parts, *map(read, jaxpr.outvars)))


def equation_key(eqn: JaxprEqn, rules: bool) -> tuple[Any, ...]:
    """What an equation does, its operands aside."""
    params = eqn.params
    if eqn.primitive.name in _RULES:  # functions in the parameters, new ones at each trace: what do they compute?
        # a rule calls its own function, so no deeper than that
        rule = jaxpr_key(_rule_of(eqn), False) if rules else None
        params = {"call": params["call_jaxpr"], "symbolic": params["symbolic_zeros"], "rule": rule}
    named = [(name, value_key(v, rules)) for name, v in params.items()]
    return eqn.primitive, eqn.ctx, len(eqn.outvars), *named


def _rule_of(eqn: JaxprEqn) -> Any:
    """The jaxpr of a custom derivative."""
    avals: list[Any] = [v.aval for v in eqn.invars]
    structs = [jax.ShapeDtypeStruct(aval.shape, aval.dtype) for aval in avals]
    which = [k for k, s in enumerate(structs) if k >= eqn.params["num_consts"] and jnp.issubdtype(s.dtype, jnp.inexact)]

    def probe(*values: Array) -> Any:
        def call(*floats: Array) -> Any:
            full = dict(enumerate(values)) | dict(zip(which, floats, strict=True))
            return eqn.primitive.bind(*full.values(), **eqn.primitive.get_bind_params(eqn.params))

        floats = [values[k] for k in which]
        if eqn.primitive.name == _JVP:
            return jax.jvp(call, floats, floats)
        out, back = jax.vjp(call, *floats)
        return out, back(out)

    return jax.make_jaxpr(probe)(*structs)


def value_key(v: object, rules: bool = True) -> Any:
    """A parameter or a constant as something that compares by value.

    **Raises:** `Unkeyed` for a traced one.
    """
    if isinstance(v, bool | int | float | complex):
        return type(v), repr(v)  # 0.0 == -0.0 and True == 1, but they compute different things
    if isinstance(v, tuple | list):
        return (type(v), *v) if set(map(type, v)) == {int} else (type(v), *[value_key(item, rules) for item in v])
    if isinstance(v, Jaxpr | ClosedJaxpr):
        return jaxpr_key(v, rules)
    if isinstance(v, dict):
        return dict, *[(k, value_key(item, rules)) for k, item in v.items()]
    if is_traced(v):
        raise Unkeyed
    if isinstance(v, np.ndarray | np.generic | jax.Array):
        return _digest(v)
    if isinstance(v, types.FunctionType):  # for the host: what it captured is read there, so the same object counts
        cells = [cell.cell_contents for cell in v.__closure__ or ()]
        return v.__code__, *map(_host_key, [*cells, *(v.__defaults__ or ()), *(v.__kwdefaults__ or {}).values()])
    if dataclasses.is_dataclass(v) and not isinstance(v, type):
        return type(v), *[value_key(getattr(v, field.name), rules) for field in dataclasses.fields(v)]
    try:
        hash(v)
    except TypeError:
        return Same(v)
    return v


def _digest(v: AnyArray | np.generic) -> Any:
    if jnp.issubdtype(v.dtype, jax.dtypes.extended):
        return v.dtype, _digest(jax.random.key_data(v))  # type: ignore[arg-type]
    array = np.asarray(v)
    return array.shape, array.dtype, hashlib.blake2b(np.ascontiguousarray(array).tobytes(), digest_size=16).digest()


def _host_key(v: object) -> Any:
    if isinstance(v, dict | tuple):
        return type(v), *map(_host_key, v.items() if isinstance(v, dict) else v)
    return value_key(v) if isinstance(v, _SIMPLE) or dataclasses.is_dataclass(v) else Same(v)
