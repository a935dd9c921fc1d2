"""A table with a `type` and the arguments of its class becomes an object.

The class comes from the registry and its constructor is the schema: unknown arguments, missing ones and values of the
wrong type are named with their place in the config. Tasks call this for models, solvers, noises and the like.
"""

import inspect
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
from jaxtyping import AbstractArray, Float

from ..core import suggest
from ._config import shown
from ._errors import CLASS_ERRORS, ConfigError
from ._registry import Kind, Registry


def construct(
    spec: object, kind: str, registry: Registry, where: str, defaults: Mapping[str, Any] | None = None
) -> Any:
    """Build what a table describes.

    **Arguments:**

    - `spec`: `{type = "Name", argument = value, ...}`, or the name alone where no argument is needed. Values are
      numbers, texts, lists, or tables with a `type` of their own.
    - `kind`: a key of the registry. `where`: the path of the table, for errors.
    - `defaults`: arguments to use where the table has none and the class knows the name.

    **Raises:** `ConfigError` for an unknown class or argument, a missing argument, a value of the wrong type or shape.
    """
    table = _as_table(spec, registry[kind], where)
    cls = registry[kind].find(table["type"], f"{where}.type")
    known = inspect.signature(cls).parameters
    open_ended = any(p.kind is p.VAR_KEYWORD for p in known.values())
    given = {k: v for k, v in (defaults or {}).items() if k in known} | {k: v for k, v in table.items() if k != "type"}
    for key in given:
        if key not in known and not open_ended:
            hint = suggest(key, known) or f" (arguments: {', '.join(known)})"
            raise ConfigError(f"{where}.{key}", f"{cls.__name__} has no argument {key!r}{hint}")
    missing = [k for k, p in known.items() if p.default is p.empty and p.kind is not p.VAR_KEYWORD and k not in given]
    if missing:
        raise ConfigError(where, f"{cls.__name__} needs a value for {', '.join(missing)}")
    rest = next((p for p in known.values() if p.kind is p.VAR_KEYWORD), None)
    arguments = {
        key: _argument(value, known.get(key, rest), registry, f"{where}.{key}") for key, value in given.items()
    }
    try:
        return cls(**arguments)
    except CLASS_ERRORS as error:
        raise ConfigError(_blamed(str(error), cls, where, arguments), str(error).strip().split("\n")[0]) from error


def _as_table(spec: object, kind: Kind, where: str) -> dict[str, Any]:
    table = {"type": spec} if isinstance(spec, str) else spec
    if not isinstance(table, dict):
        once = f". Write [{where}] for [[{where}]]: there is one" if _tables(spec) else ""
        raise ConfigError(
            where, f"should be a {kind.noun}: a name, or a table with a type; but it is {shown(spec)}{once}"
        )
    if not isinstance(table.get("type"), str):
        raise ConfigError(where, f'a {kind.noun} needs type = "..." (`jaxsci list` shows the names)')
    return table


def _tables(spec: object) -> bool:
    return isinstance(spec, list) and len(spec) > 0 and all(isinstance(item, dict) for item in spec)


def _argument(value: object, parameter: inspect.Parameter | None, registry: Registry, where: str) -> Any:
    """A TOML value as the parameter's annotation wants it; what does not fit is left for the class to refuse."""
    assert parameter is not None  # what the class does not know has been refused
    wanted = parameter.annotation
    if isinstance(value, dict):
        return construct(value, _kind_of(wanted, value, registry, where), registry, where)
    if isinstance(value, list) and any(isinstance(item, dict) for item in value):
        kinds = [_kind_of(object, item, registry, f"{where}[{i}]") for i, item in enumerate(value)]
        return tuple(construct(v, k, registry, f"{where}[{i}]") for i, (v, k) in enumerate(zip(value, kinds)))
    if inspect.isclass(wanted) and issubclass(wanted, AbstractArray):
        return _array(value, wanted, where)
    if wanted is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if wanted in (bool, int, float, str) and type(value) is not wanted:
        noun = {bool: "true or false", int: "a whole number", float: "a number", str: "a text"}[wanted]
        raise ConfigError(where, f"should be {noun}, but it is {shown(value)}")
    return value


def _array(value: object, wanted: type[AbstractArray], where: str) -> Any:
    """Numbers as an array; shapes are checked by the class, which sees all of them."""
    try:
        array = jnp.asarray(value)
    except (TypeError, ValueError):
        raise ConfigError(where, f"should be numbers, {wanted.__name__}, but it is {shown(value)}") from None
    return array.astype(float) if wanted.dtype is Float and array.dtype != bool else array


def _kind_of(wanted: object, value: object, registry: Registry, where: str) -> str:
    """The kind that an argument's annotation asks for; else the one that knows the type's name."""
    name = value.get("type") if isinstance(value, dict) else None
    for key, kind in registry.items():
        if inspect.isclass(wanted) and any(issubclass(wanted, base) for base in kind.base):
            return key
    for key, kind in registry.items():
        if kind.knows(name):
            return key
    raise ConfigError(where, f"nothing is called {name!r}" if name else f'a table needs type = "...": {shown(value)}')


def _blamed(message: str, cls: type, where: str, arguments: Mapping[str, Any]) -> str:
    """The argument that the message is about, if it says so, as our field checks do (`Decay.tau should be ...`)."""
    key = next((k for k in arguments if message.startswith(f"{cls.__name__}.{k} ")), None)
    return f"{where}.{key}" if key else where
