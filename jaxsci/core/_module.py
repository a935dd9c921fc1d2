"""The base of every model, solver, noise, data set and result: an immutable PyTree whose fields are checked.

A wrong shape is found where the object is made, and named there, not three rooms further on in a trace. Each letter of
a shape has one meaning across an object. The checks are a good part of a small warm fit, so what is built anew in every
call of one is a NamedTuple.
"""

import dataclasses
from typing import Any

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
                        f"but it is {describe(value)}{_axes(self, field.name)}{_remedy(field)}"
                    )

    def __repr__(self) -> str:
        return value_text(self)


def _remedy(field: dataclasses.Field[Any]) -> str:
    """What to do about a parameter that is annotated as what it never is."""
    if "param" in field.metadata and field.type in (float, int, complex, bool):
        return ": a parameter is an array, annotate one number as jaxsci.Scalar"
    return ""


def describe(value: object) -> str:
    """A value in a few words: dtype and shape for an array, type and value otherwise."""
    if isinstance(value, jax.Array | np.ndarray | np.generic):
        return f"{value.dtype}{list(value.shape)}"
    return f"{type(value).__name__} {value!r:.60}"


def _expected(annotation: object) -> str:
    return getattr(annotation, "__name__", str(annotation)).replace("jaxlib._jax.", "")


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
