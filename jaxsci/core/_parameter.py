"""Parameters: plain array leaves, declared with `param()`, chosen and addressed by dotted name.

What is known of a parameter beside its value (unit, bounds, prior, description) stands in the metadata of its field, so
a model is no more than a tree of arrays to JAX. Names are worked out by walking the fields; `match` turns names and
globs into parameters, and answers a wrong one with the nearest.
"""

import dataclasses
import fnmatch
import itertools
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import jax.tree_util as jtu
from jaxtyping import Array, PyTree

from ._errors import suggest
from ._given import as_array as as_array, as_float as as_float, unmasked
from ._typing import Tree

_UNBOUNDED = (-float("inf"), float("inf"))


@dataclasses.dataclass(frozen=True)
class Parameter:
    """What is known of a parameter beside its value: unit, bounds, prior, description."""

    unit: str = ""
    bounds: tuple[Any, Any] = _UNBOUNDED
    prior: Any = None
    doc: str = ""


def as_bounds(bounds: Any, name: str = "bounds", unit: str = "") -> tuple[Any, Any]:
    """`(lower, upper)` in the parameter's unit, `None` read as unbounded; raises `ValueError` when lower > upper."""
    try:
        lower, upper = bounds
    except (TypeError, ValueError):
        raise ValueError(f"{name} should be a pair (lower, upper), but it is {bounds!r}") from None
    lower = _UNBOUNDED[0] if lower is None else unmasked(lower, name, unit)
    upper = _UNBOUNDED[1] if upper is None else unmasked(upper, name, unit)
    if isinstance(lower, int | float) and isinstance(upper, int | float) and not lower <= upper:
        if lower != lower or upper != upper:
            raise ValueError(f"{name} are ({lower}, {upper}), but a bound is a number, or None where there is none")
        raise ValueError(f"{name}: the lower bound {lower} lies above the upper bound {upper}")
    return lower, upper


def param(
    *, unit: str = "", bounds: Any = (None, None), prior: eqx.Module | None = None, doc: str = "", **kwargs: Any
) -> Any:
    """Declare a field of a Module as a parameter: an array that a fit may free.

    A field that holds a Module, such as `equinox.nn.MLP`, declares every array of floats in it, by dotted names:
    `net: eqx.nn.MLP = param()` has the parameters `net.layers.0.weight`, `net.layers.0.bias` and so on.

    **Arguments:**

    - `unit`: shown in tables. Values and bounds that are astropy Quantities are converted to it, and refused where
      they cannot be; plain numbers are taken to be in it.
    - `bounds`: `(lower, upper)`; `None` or an infinity for none. The default of every fit.
    - `prior`: a prior Module such as `jaxsci.Normal`; the default of every fit.
    - `doc`: one line for tables and help.
    - `kwargs`: passed to `equinox.field` (such as `default`).

    **Returns:** an `equinox.field`. Arrays that are not declared so are never fitted.
    """
    if not isinstance(unit, str):
        raise ValueError(f"unit should be a text such as 'mV', but it is {unit!r:.60}")
    about = Parameter(unit, as_bounds(bounds, unit=unit), prior, doc)
    field = eqx.field(converter=lambda value: as_float(value, field.name, unit), metadata={"param": about}, **kwargs)
    return field


def numbers(**kwargs: Any) -> Any:
    """Declare a field of real numbers that is no parameter: converted as those are, never fitted."""
    field = eqx.field(converter=lambda value: as_float(value, field.name), **kwargs)
    return field


def labelled(by: str, **kwargs: Any) -> Any:
    """Declare a tuple field whose entries are addressed by the names in the static field `by`."""
    return eqx.field(metadata={"labelled": by}, **kwargs)


def params(by: str, **kwargs: Any) -> Any:
    """Declare a tuple field of parameters that are addressed by the names in the static field `by`."""
    return eqx.field(
        converter=lambda values: tuple(map(as_float, values)), metadata={"labelled": by, "param": Parameter()}, **kwargs
    )


def transparent(**kwargs: Any) -> Any:
    """Declare a field whose own name does not appear in the names of the parameters below it.

    In a field that holds a tuple, the places in the tuple do not appear either.
    """
    return eqx.field(metadata={"transparent": True}, **kwargs)


def _walk(
    node: Tree, name: tuple[str, ...] = (), path: tuple[Any, ...] = ()
) -> Iterator[tuple[str, tuple[Any, ...], Parameter]]:
    """Yield (dotted name, key path, metadata) of each declared parameter below `node`."""
    if isinstance(node, eqx.Module):
        for field in dataclasses.fields(node):
            here = (*path, jtu.GetAttrKey(field.name))
            value = getattr(node, field.name, None)
            if "transparent" in field.metadata and isinstance(value, tuple):
                for i, child in enumerate(value):
                    yield from _walk(child, name, (*here, jtu.SequenceKey(i)))
            elif "transparent" in field.metadata:
                yield from _walk(value, name, here)
            elif "labelled" in field.metadata:
                labels: tuple[str, ...] = getattr(node, field.metadata["labelled"])
                for i, (label, child) in enumerate(zip(labels, value or (), strict=True)):
                    below, place = (*name, label), (*here, jtu.SequenceKey(i))
                    if "param" not in field.metadata:
                        yield from _walk(child, below, place)
                    elif child is not None:
                        yield ".".join(below), place, field.metadata["param"]
            elif "param" in field.metadata:
                if isinstance(value, eqx.Module):
                    yield from _walk_arrays(value, (*name, field.name), here, field.metadata["param"])
                elif value is not None:
                    yield ".".join((*name, field.name)), here, field.metadata["param"]
            elif not field.metadata.get("static", False):
                yield from _walk(value, (*name, field.name), here)
    elif isinstance(node, Mapping):
        for key in sorted(node):
            yield from _walk(node[key], (*name, str(key)), (*path, jtu.DictKey(key)))
    elif isinstance(node, tuple | list):
        for i, child in enumerate(node):
            yield from _walk(child, (*name, str(i)), (*path, jtu.SequenceKey(i)))


def _walk_arrays(
    module: eqx.Module, name: tuple[str, ...], path: tuple[Any, ...], about: Parameter
) -> Iterator[tuple[str, tuple[Any, ...], Parameter]]:
    """Every array of real or complex numbers below a Module that is a parameter as a whole, such as a network.

    What the Module itself declares keeps its own unit, bounds and prior.
    """
    declared = {below: (inner, own) for inner, below, own in _walk(module, name, path)}
    for tail, leaf in jtu.tree_flatten_with_path(module)[0]:
        here = (*path, *tail)
        if here in declared:
            yield declared[here][0], here, declared[here][1]
        elif getattr(leaf, "dtype", None) is not None and jnp.issubdtype(leaf.dtype, jnp.inexact):
            yield ".".join((*name, jtu.keystr(tail, simple=True, separator="."))), here, about


def parameters(module: Tree) -> dict[str, Parameter]:
    """Every declared parameter of a module, by dotted name, in the order of its fields.

    **Arguments:** `module`: a model, a noise, or any tree of Modules.

    **Returns:** `{"dust.beta": Parameter(unit, bounds, prior, doc), ...}`.
    """
    return {name: about for name, _, about in _walk(module)}


def match(module: Tree, patterns: Iterable[str], owner: str | None = None) -> list[str]:
    """The declared names that the patterns (names or globs) choose, in field order.

    **Raises:** `ValueError` for a pattern that fits nothing, with a suggestion.
    """
    known = list(parameters(module))
    chosen: set[str] = set()
    for pattern in patterns:
        hits = [n for n in known if n == pattern] or fnmatch.filter(known, pattern)
        if not hits:
            raise ValueError(
                f"{owner or type(module).__name__} has no parameter {pattern!r}{suggest(pattern, known)} "
                f"(parameters: {', '.join(known) or 'none'})"
            )
        chosen.update(hits)
    return [n for n in known if n in chosen]


def free_spec(module: Tree, names: Iterable[str]) -> PyTree:
    """A tree of booleans for `equinox.partition`: True at the named parameters."""
    wanted = set(names)
    paths = {path for name, path, _ in _walk(module) if name in wanted}
    return jtu.tree_map_with_path(lambda path, _: path in paths, module)


def leaf_names(module: Tree, names: Iterable[str]) -> list[tuple[str, tuple[int, ...]]]:
    """(name, shape) of the named parameters in the order in which the tree flattens."""
    wanted = set(names)
    by_path = {path: name for name, path, _ in _walk(module) if name in wanted}
    leaves = jtu.tree_flatten_with_path(module)[0]
    return [(by_path[path], jnp.shape(leaf)) for path, leaf in leaves if path in by_path]


def paths_of(module: Tree) -> dict[str, str]:
    """The key path of each declared parameter as `jax.tree_util.keystr` writes it, by name."""
    return {name: jtu.keystr(path) for name, path, _ in _walk(module)}


def leaf_places(module: Tree, names: Iterable[str]) -> dict[str, int]:
    """Where each named parameter stands among the leaves of the tree."""
    wanted = set(names)
    order = {path: k for k, (path, _) in enumerate(jtu.tree_flatten_with_path(module)[0])}
    return {name: order[path] for name, path, _ in _walk(module) if name in wanted and path in order}


def element_names(name: str, shape: tuple[int, ...]) -> list[str]:
    """`tau` for a scalar; `c[0]`, `c[1]`, ... for an array parameter."""
    if shape == ():
        return [name]
    return [f"{name}[{','.join(map(str, index))}]" for index in itertools.product(*map(range, shape))]


def get(module: Tree, pattern: str) -> Any:
    """The value of a parameter by name, or `{name: value}` for a glob such as `"dust.*"`.

    **Raises:** `ValueError` for a name that fits nothing, with a suggestion.
    """
    values = dict(leaf_values(module))
    if pattern in values:
        return values[pattern]
    return {name: values[name] for name in match(module, [pattern])}


def leaf_values(module: Tree) -> Iterator[tuple[str, Array]]:
    """(name, value) of every declared parameter."""
    by_path = dict(jtu.tree_flatten_with_path(module)[0])
    for name, path, _ in _walk(module):
        if path in by_path:
            yield name, by_path[path]


def put(module: Tree, values: Mapping[str, Any]) -> PyTree:
    """A copy of `module` with new parameter values.

    **Arguments:**

    - `module`: a model, a noise, or any tree of Modules; stacked ones too.
    - `values`: `{name or glob: value}`. A value is cast to the parameter's dtype; a scalar fills
        an array parameter, any other shape must be the parameter's own. A Quantity is converted to its unit.

    **Raises:** `ValueError` for an unknown name, a wrong shape, or a unit that cannot be converted.
    """
    new: dict[str, Any] = {}
    about = parameters(module)
    for pattern, value in values.items():
        new |= {name: unmasked(value, name, about[name].unit) for name in match(module, [pattern])}
    by_path = {path: name for name, path, _ in _walk(module) if name in new}

    def replace(path: tuple[Any, ...], leaf: Any) -> Any:
        if path not in by_path:
            return leaf
        name = by_path[path]
        value, shape = jnp.asarray(new[name], jnp.result_type(leaf)), jnp.shape(leaf)
        if value.shape not in ((), shape):
            raise ValueError(f"{name} has shape {shape}, but the new value has shape {value.shape}")
        return value if value.shape == shape else jnp.broadcast_to(value, shape)

    return jtu.tree_map_with_path(replace, module)
