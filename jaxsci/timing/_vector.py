"""Vectors as three arrays: a sum over an axis of three keeps XLA from computing all in one pass."""

from jaxtyping import Array, Float

Vector = tuple[Float[Array, "*n"], Float[Array, "*n"], Float[Array, "*n"]]


def xyz(vectors: Float[Array, "n *p 3"]) -> Vector:
    """x, y and z of vectors along the last axis."""
    return vectors[..., 0], vectors[..., 1], vectors[..., 2]


def dot(a: Vector, b: Vector) -> Float[Array, "*n"]:
    """a . b"""
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]
