"""Small steps that components take from a par file to their fields.

Fitted parameters are offsets from the par file's values, which stand beside them in fields that end in `_ref`. So each
component needs zeros for the offsets and the values for the references; the functions here make both. Every
`from_par` calls them.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple, TypeVar

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ...core import Module, Scalar, as_array
from ._line import Par

T = TypeVar("T", bound=Module)


class Values(NamedTuple):
    """A list of parameters: offsets, which are 0, and the par file's values; shape (k,), in the par file's unit."""

    offsets: Float[Array, " k"]
    reference: Float[Array, " k"]


def values_of(par: Par, names: Sequence[str]) -> Values:
    """Offsets and values of these lines, 0 for a line that the par file does not have.

    **Raises:** `ValueError` for a value that is no number.
    """
    values = [float(par.value(name)) for name in names]
    return Values(as_array(np.zeros(len(values))), as_array(np.array(values, float)))


def since(par: Par, name: str, *, needed: bool = False) -> Scalar:
    """`Par.seconds` as an array: from PEPOCH to another epoch, s.

    **Raises:** `ValueError` for an epoch that is `needed` and missing.
    """
    return jnp.asarray(par.seconds(name, needed=needed))


class Pair(NamedTuple):
    """The two numbers of a line, as they were written."""

    first: str
    second: str


def pairs(par: Par, names: Sequence[str], what: str) -> list[Pair]:
    """The numbers of lines that hold two each; `what` says in a message which two.

    **Raises:** `ValueError` for a line with fewer.
    """
    found = [par.word(name).split() for name in names]
    for name, pair in zip(names, found, strict=True):
        if len(pair) < 2:
            raise ValueError(f"{name} should have two numbers, {what}, but it is {' '.join(pair)!r}")
    return [Pair(*pair[:2]) for pair in found]


def scalars(
    cls: type[T],
    par: Par,
    *,
    rare: Collection[str] = (),
    without: Collection[str] = (),
    others: Mapping[str, Module | bool | int | None] | None = None,
) -> T:
    """A component whose parameters are single lines: 0 where the par file has none.

    **Arguments:** `cls`: a Module whose fields in capitals have the lines' names, each with a field `*_ref`; `rare`:
    those that are `None` where the par file lacks them; `without`: those that are `None` whatever it has; `others`: the
    other fields.
    """
    names = [name for name in cls.__dataclass_fields__ if name.isupper() or name[:-4].isupper()]
    values: dict[str, Scalar | Module | bool | int | None] = {}
    for name in names:
        if name.endswith("_ref"):
            continue
        absent = name in without or (name in rare and par.find(name) is None)
        values[name] = None if absent else jnp.zeros(())
        if f"{name}_ref" in names:
            values[f"{name}_ref"] = None if absent else jnp.asarray(float(par.value(name)))
    return cls(**values, **(others or {}))
