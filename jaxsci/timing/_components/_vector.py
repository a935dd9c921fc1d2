"""Vectors of many TOAs as three arrays, one for each coordinate.

A sum over an axis of length three keeps XLA from computing everything about a TOA in one pass over the data: it writes
the products down first. With x, y and z as arrays of their own a scalar product is part of that pass. Astrometry, the
solar system and the solar wind compute with these.
"""

from typing import NamedTuple

from jaxtyping import Array, Float


class Vector(NamedTuple):
    """A vector for each TOA: its coordinates, each of shape (n,)."""

    x: Float[Array, "*n"]
    y: Float[Array, "*n"]
    z: Float[Array, "*n"]


def xyz(vectors: Float[Array, "n *p 3"]) -> Vector:
    """Take vectors along the last axis apart, into x, y and z."""
    return Vector(vectors[..., 0], vectors[..., 1], vectors[..., 2])


def dot(a: Vector, b: Vector) -> Float[Array, "*n"]:
    """The scalar product a . b of each TOA."""
    return a.x * b.x + a.y * b.y + a.z * b.z
