"""Names for types that several rooms share; every other type is written where it is used.

A shape is declared where an array is, so that it is checked. What cannot be narrower is named here, with what is meant:
a `Tree` is mapped as a whole and never looked into by name, and the inputs of a model are its own affair.
"""

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
from jaxtyping import Array, ArrayLike, Bool, Float, PyTree

Scalar = Float[Array, ""]
"""One real number on the device."""

Flag = Bool[Array, ""]
"""One truth value on the device."""

Real = ArrayLike
"""Anything that `jnp.asarray` turns into numbers."""

Tree: TypeAlias = PyTree
"""A Module, or any tree of Modules, arrays and numbers: what `jax.tree.map` maps."""

Given: TypeAlias = ArrayLike | Sequence[object]
"""Numbers as a user writes them: an array of JAX or NumPy, one number, or a list, also of lists."""

Model: TypeAlias = PyTree
"""A user's model: a Module whose parameters are declared by `param()`. Only the data set calls it."""

Inputs: TypeAlias = PyTree
"""What a user's model takes: any tree of arrays, which only the model looks into."""

AnyArray: TypeAlias = Array | np.ndarray
"""An array on the device or on the host."""
