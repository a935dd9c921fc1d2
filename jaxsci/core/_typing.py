"""Array type aliases that several rooms share; every other shape is written where it is used."""

from jaxtyping import Array, ArrayLike, Bool, Float

Scalar = Float[Array, ""]
"""One real number on the device."""

Flag = Bool[Array, ""]
"""One truth value on the device."""

Real = ArrayLike
"""Anything that `jnp.asarray` turns into numbers."""
