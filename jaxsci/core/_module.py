"""The base of every model, solver, noise, data set and result: an immutable PyTree whose fields are checked.

A wrong shape is found where the object is made, and named there, not three rooms further on in a trace. Each letter of
a shape has one meaning across an object. The checks are a good part of a small warm fit, so what is built anew in every
call of one is a NamedTuple.
"""

import dataclasses
import re
import types
from typing import Any, get_args, get_origin

import equinox as eqx
import jax
import jax.tree_util as jtu
import numpy as np
from beartype.door import is_bearable
from jaxtyping import jaxtyped

from ._shown import value_text


class Module(eqx.Module):
    """An `equinox.Module` whose fields are held to their jaxtyping annotations, in every subclass.

    Equinox checks neither fields with a converter nor a class with its own `__init__`; this one
    checks all of them, with one meaning of each shape letter across the whole object.

    **Raises:** `ValueError` naming the class, the field, what was expected and what came.
    """

    def __check_init__(self) -> None:
        with jaxtyped("context"):  # type: ignore[call-overload]
            for field in dataclasses.fields(self):
                if isinstance(field.type, str):
                    continue  # an unresolved forward reference: nothing to hold it to
                value = getattr(self, field.name)
                if getattr(field.type, "leaftype", None) is jax.Array and field.type.structure is None:
                    # jaxtyping's own check of PyTree[Array] takes a fifth of the time that a data set takes to make
                    fits = all(isinstance(leaf, jax.Array) for leaf in jtu.tree_leaves(value))
                else:
                    fits = is_bearable(value, field.type)  # type: ignore[arg-type]
                if not fits:
                    raise ValueError(
                        f"{type(self).__name__}.{field.name} should be {_expected(field.type)}, "
                        f"but it is {describe(value)}{_axes(self, field.name)}{_remedy(field, value)}"
                    )

    def __repr__(self) -> str:
        return value_text(self)


def _remedy(field: dataclasses.Field[Any], value: object) -> str:
    """What to do about a parameter that is annotated as what it never is, and about an array of NumPy."""
    if isinstance(value, np.ndarray):
        return ": give an array of JAX, jnp.asarray(...), where it is one of NumPy"
    if "param" in field.metadata and field.type in (float, int, complex, bool):
        return ": a parameter is an array, annotate one number as jaxsci.Scalar"
    return ""


def describe(value: object) -> str:
    """A value in a few words on one line: dtype and shape for an array, type and value otherwise."""
    if isinstance(value, jax.Array | np.ndarray | np.generic):
        return f"{value.dtype}{list(value.shape)}"
    if isinstance(value, type):
        return f"the class {value.__name__} itself"
    if value is None or isinstance(value, eqx.Module):
        return "None" if value is None else f"{type(value).__name__}(...)"
    return f"{type(value).__name__} {' '.join(repr(value).split()):.60}"


def require_kind(value: object, kind: type | tuple[type, ...], name: str, should: str) -> None:
    """Raise `ValueError` where a value is of another kind: "`name` should be `should`, but it is ..."."""
    if not isinstance(value, kind):
        raise ValueError(f"{name} should be {should}, but it is {describe(value)}")


_ANNOTATED = re.compile(r"(\w+)\[[^,]*, '(.*)'\]")  # how jaxtyping names an array: Float[Array, 'n 3']
_KINDS = {"Float": "real number", "Bool": "truth value", "Int": "whole number", "Integer": "whole number"}


def _expected(annotation: object) -> str:
    """An annotation in words: an array as numbers of a shape, since few users know how jaxtyping writes it."""
    either = get_args(annotation) if isinstance(annotation, types.UnionType) else ()
    if either:
        return " or ".join(map(_expected, either))
    if get_origin(annotation) is tuple:
        return f"a tuple of {', '.join(_expected(each) for each in get_args(annotation) if each is not ...)}"
    name = "None" if annotation is types.NoneType else getattr(annotation, "__name__", str(annotation))
    found = _ANNOTATED.fullmatch(name)
    kind = _KINDS.get(found[1].rstrip("3264")) if found else None
    if found is None or kind is None:
        return name.replace("jaxlib._jax.", "")
    axes = found[2].split()
    if not axes:
        return f"one {kind}"
    return f"an array of {kind}s of shape ({', '.join(axes)}{',' if len(axes) == 1 else ''})"


def _axes(module: Module, failed: str) -> str:
    """The shapes of the other fields: a mismatch is between two of them."""
    arrays = {
        f.name: getattr(module, f.name)
        for f in dataclasses.fields(module)
        if f.name != failed and eqx.is_array(getattr(module, f.name))
    }
    if not arrays:
        return ""
    return " (beside " + ", ".join(f"{k}: {describe(v)}" for k, v in arrays.items()) + ")"
