"""Curvature of parameters in nested levels: each element of a finer level lies within one of each coarser level.

Elements that do not lie within each other are coupled only through those that both lie in, so elimination from the
finest level up makes no new couplings: a solve, and the entries of the inverse that the matrix has itself, cost as much
as the matrix has entries. George and Liu 1981, Computer Solution of Large Sparse Positive Definite Systems, chapter 5
(perfect elimination); Takahashi, Fagan and Chin 1973 (entries of the inverse).
"""

import math
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Shaped

from ._module import Module
from .linalg import diagonal, factorise, largest_row, matvec, scaled, shifted


class Nested(Module):
    """A symmetric matrix of parameters in p nested levels, the finest first in every vector.

    - `rows`: of level i, (p - i, *shape): the couplings of each element with itself and with that of each coarser level
      in which it lies. The shapes are those of a tree: (m,) of the coarsest level, (m, n) of the next where each
      element has n within it, and so on.
    """

    rows: tuple[Float[Array, "..."], ...]

    @property
    def shapes(self) -> tuple[tuple[int, ...], ...]:
        """Of the elements of each level."""
        return tuple(row.shape[1:] for row in self.rows)

    def split(self, vector: Shaped[Array, " n"]) -> list[Array]:
        """The elements of each level, of a vector over all of them."""
        return by_level(vector, self.shapes)


def tree_shapes(shape: Sequence[int]) -> tuple[tuple[int, ...], ...]:
    """Shapes of the elements of each level, finest first, for so many within each element of the next coarser level."""
    return tuple(tuple(shape[: len(shape) - i]) for i in range(len(shape)))


def by_level(vector: Shaped[Array, " n"], shapes: Sequence[tuple[int, ...]]) -> list[Array]:
    """A vector over all elements in levels of these shapes."""
    parts, at = [], 0
    for shape in shapes:
        parts.append(vector[at : at + math.prod(shape)].reshape(shape))
        at += math.prod(shape)
    return parts


def flat(parts: Sequence[Array]) -> Array:
    """The inverse of `by_level`."""
    return jnp.concatenate([part.ravel() for part in parts])


def up(x: Float[Array, "..."], steps: int) -> Array:
    """Sums over all that lies within each element of so many levels above."""
    return jnp.sum(x, axis=tuple(range(x.ndim - steps, x.ndim)))


def down(parts: Sequence[Shaped[Array, "..."]], shape: tuple[int, ...]) -> Array:
    """(p, *shape): for each element of this shape the values of those in which it lies, or its own."""
    tall = (x.reshape(*x.shape, *(1,) * (len(shape) - x.ndim)) for x in parts)
    return jnp.stack([jnp.broadcast_to(x, shape) for x in tall])


@matvec.register
def _(matrix: Nested, vector):  # type: ignore[no-untyped-def]
    x = matrix.split(vector)
    out = [jnp.zeros_like(part) for part in x]
    for i, row in enumerate(matrix.rows):
        out[i] = out[i] + jnp.sum(row * down(x[i:], row.shape[1:]), axis=0)
        for j in range(1, len(row)):
            out[i + j] = out[i + j] + up(row[j] * x[i], j)
    return flat(out)


@diagonal.register
def _(matrix: Nested):  # type: ignore[no-untyped-def]
    return flat([row[0] for row in matrix.rows])


@scaled.register
def _(matrix: Nested, d):  # type: ignore[no-untyped-def]
    parts = matrix.split(d)
    return Nested(tuple(row * parts[i][None] * down(parts[i:], row.shape[1:]) for i, row in enumerate(matrix.rows)))


@shifted.register
def _(matrix: Nested, d):  # type: ignore[no-untyped-def]
    size = sum(math.prod(shape) for shape in matrix.shapes)
    parts = matrix.split(jnp.broadcast_to(d, (size,)))
    return Nested(tuple(row.at[0].add(part) for row, part in zip(matrix.rows, parts, strict=True)))


@largest_row.register
def _(matrix: Nested):  # type: ignore[no-untyped-def]
    absolute = Nested(tuple(map(jnp.abs, matrix.rows)))
    size = sum(math.prod(shape) for shape in matrix.shapes)
    return jnp.max(matvec(absolute, jnp.ones(size, matrix.rows[0].dtype)), initial=0)


class NestedFactor(Module):
    """A Nested made ready to solve with: L D L^T with the couplings of the matrix itself.

    - `pivots`: of each element. `gains`: of level i, (p - i - 1, *shape), coupling over pivot; 0 where a pivot is not
      above the floor.
    - `ok`, `least`: as in `Factor`.
    """

    pivots: tuple[Float[Array, "..."], ...]
    inverse_pivots: tuple[Float[Array, "..."], ...]
    gains: tuple[Float[Array, "..."], ...]
    ok: Bool[Array, ""]
    least: Float[Array, ""]

    def solve(self, rhs: Float[Array, " n"]) -> Float[Array, " n"]:
        """x with matrix @ x = rhs."""
        x = by_level(rhs, [pivot.shape for pivot in self.pivots])
        for i, gain in enumerate(self.gains):
            for j in range(1, len(gain) + 1):
                x[i + j] = x[i + j] - up(gain[j - 1] * x[i], j)
        for i in reversed(range(len(x))):
            x[i] = x[i] * self.inverse_pivots[i]
            if i + 1 < len(x):
                x[i] = x[i] - jnp.sum(self.gains[i] * down(x[i + 1 :], x[i].shape), axis=0)
        return flat(x)

    def inverse(self) -> tuple[Float[Array, "..."], ...]:
        """The inverse among each element and those in which it lies: (p - i, p - i, *shape) of level i.

        A coordinate whose pivot is not above the floor counts as known.
        """
        blocks: list[Array] = []
        for inverse, gain in zip(reversed(self.inverse_pivots), reversed(self.gains), strict=True):
            if not blocks:
                blocks.append(inverse[None, None])
                continue
            above = _spread(blocks[-1], inverse.shape)
            side = -jnp.sum(gain[:, None] * above, axis=0)
            own = inverse - jnp.sum(gain * side, axis=0)
            blocks.append(_bordered(own, side, side, above))
        return tuple(reversed(blocks))

    def null(self, lost: Sequence[Bool[Array, "..."]]) -> list[Bool[Array, "..."]]:
        """Which elements move along with one that is `lost`, of which the matrix says nothing: their own pivots too."""
        out: list[Array] = []
        vectors = None
        for own, gain in zip(reversed(lost), reversed(self.gains), strict=True):
            one = own.astype(gain.dtype)
            if vectors is None:
                vectors = one[None, None]
            else:
                above = _spread(vectors, own.shape)
                follow = -jnp.sum(gain[:, None] * above, axis=0)
                vectors = _bordered(one, follow, jnp.zeros_like(follow), above)
            out.append(jnp.any(jnp.abs(vectors[0]) > _LEANS, axis=0))
        return out[::-1]


_LEANS = 1e-6  # of a unit-diagonal matrix: a share in a direction without information that spoils a parameter


def _spread(block: Array, shape: tuple[int, ...]) -> Array:
    return jnp.broadcast_to(block[..., None], (*block.shape[:2], *shape))


def _bordered(corner: Array, top: Array, side: Array, rest: Array) -> Array:
    """A block with one more coordinate in front."""
    first = jnp.concatenate([corner[None], top])
    return jnp.concatenate([first[None], jnp.concatenate([side[:, None], rest], axis=1)])


@factorise.register
def _(matrix: Nested):  # type: ignore[no-untyped-def]
    return eliminate(matrix)


def eliminate(matrix: Nested, floor: float = 0.0) -> NestedFactor:
    """The factor; a coordinate with a pivot of at most `floor` is left out as if it were known."""
    pivots, inverses, gains = [], [], []
    pending: Any = None
    for row in matrix.rows:
        row = row if pending is None else row + pending[0]
        pivot, side = row[0], row[1:]
        good = pivot > floor
        inverse = jnp.where(good, 1 / jnp.where(good, pivot, 1), 0)
        gain = side * inverse[None]
        pivots.append(pivot)
        inverses.append(inverse)
        gains.append(gain)
        left = -(side[:, None] * gain[None])
        pending = up(left if pending is None else left + pending[1:, 1:], 1)
    least = jnp.min(jnp.stack([jnp.min(pivot, initial=jnp.inf) for pivot in pivots]))
    return NestedFactor(tuple(pivots), tuple(inverses), tuple(gains), least > floor, least)
