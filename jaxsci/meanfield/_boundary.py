"""Boxes with walls: where particles and densities live, and what becomes of what reaches the edge.

Particles and grids of one problem share a `Box`, so that a wall means the same to both. A `Grid` cuts a box into equal
cells; densities are given as means over these cells. Both are written for any number of dimensions d. Drivers of
particles call `Box.settle` after each step; finite volumes and value functions read `Box.walls_of_axes`.
"""

import functools
import math
from collections.abc import Sequence
from typing import Any, Literal

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from ..core import AnyArray, Given, Module, as_count, require_kind, suggest, traced, unmasked
from ..evolution import AbstractDomain, Settled

Wall = Literal["reflecting", "absorbing", "periodic"]
"""What a wall does: turn back, take away, or lead to the opposite wall."""

WALLS = ("reflecting", "absorbing", "periodic")
_ORDERS = 6  # crossings of the box within one step that are told apart


class Box(AbstractDomain):
    """A box in d dimensions, and what its walls do.

    **Arguments:**

    - `lower`, `upper`: the corners, shape (d,); a number for one dimension.
    - `walls`: one word for all walls ("reflecting", "absorbing" or "periodic"), or for each axis a word or a pair of
      words (lower wall, upper wall).

    **Raises:** `ValueError` for corners of different lengths, an unknown word, or one periodic wall opposite another
    kind.
    """

    lower: Float[Array, " d"]
    upper: Float[Array, " d"]
    walls_of_axes: tuple[tuple[Wall, Wall], ...] = eqx.field(static=True)

    def __init__(self, lower: Given, upper: Given, walls: str | Sequence[object] = "reflecting") -> None:
        self.lower, self.upper = (
            jnp.atleast_1d(jnp.asarray(unmasked(x, name), float)) for x, name in ((lower, "lower"), (upper, "upper"))
        )
        d = self.lower.shape[0]
        if self.lower.shape != self.upper.shape or self.lower.ndim != 1:
            raise ValueError(
                f"the corners of a box need one number for each axis, but lower has shape {self.lower.shape} and "
                f"upper {self.upper.shape}"
            )
        if not traced((self.lower, self.upper)) and not bool(np.all(np.asarray(self.lower) < np.asarray(self.upper))):
            raise ValueError(f"each lower corner should be below its upper one, but they are {lower} and {upper}")
        each = [walls] * d if isinstance(walls, str) else list(walls)
        if len(each) != d:
            raise ValueError(f"walls should be one word, or one for each of {d} axes, but there are {len(each)}")
        self.walls_of_axes = tuple(_pair(axis, wall) for axis, wall in enumerate(each))

    @property
    def d(self) -> int:
        """The number of axes."""
        return len(self.walls_of_axes)

    @property
    def width(self) -> Float[Array, " d"]:
        """Its lengths."""
        return self.upper - self.lower

    @property
    def absorbs(self) -> bool:
        """True where a wall takes particles away."""
        return any("absorbing" in pair for pair in self.walls_of_axes)

    @property
    def walls(self) -> tuple[str, ...]:
        """The walls that absorb: "lower 0" for the lower one of the first axis, and so on."""
        return tuple(
            f"{side} {axis}"
            for axis, pair in enumerate(self.walls_of_axes)
            for side, wall in zip(("lower", "upper"), pair, strict=True)
            if wall == "absorbing"
        )

    def outside(self, positions: Float[Array, "n d"]) -> Bool[Array, " n"]:
        """True for particles that are not in it; on a periodic axis all that are finite are."""
        lower, upper = (corner.astype(positions.dtype)[None] for corner in (self.lower, self.upper))
        within = (positions >= lower) & (positions <= upper)
        around = jnp.asarray([pair[0] == "periodic" for pair in self.walls_of_axes])
        return ~jnp.all(jnp.where(around[None], jnp.isfinite(positions), within), axis=1)

    def settle(
        self,
        before: Float[Array, "n d"],
        after: Float[Array, "n d"],
        weights: Float[Array, " n"],
        variance: Float[Array, "n d"] | None,
    ) -> Settled:
        """Fold or wrap what has crossed a wall, however often; take away the weight that met an absorbing one.

        Whether a path met a wall within a step is not known from its two ends. Its probability is, that of a Brownian
        bridge between them, and by that the weight is multiplied; without it a coarse step would miss most exits.
        """
        dtype = after.dtype
        lower, width = self.lower.astype(dtype), self.width.astype(dtype)
        ends, survive, leave = [], jnp.ones_like(weights), []
        for axis, (low, high) in enumerate(self.walls_of_axes):
            x, y, w = before[:, axis] - lower[axis], after[:, axis] - lower[axis], width[axis]
            ends.append(_inside(y, w, low, high) + lower[axis])
            if "absorbing" in (low, high) and variance is not None:
                met = _met(x, y, w, variance[:, axis], low, high)
                leave += met
                survive = survive * jnp.clip(1 - functools.reduce(jnp.add, met), 0, 1)
        positions = _between(jnp.stack(ends, axis=1), lower, lower + width)
        if not leave:
            return Settled(positions, weights, jnp.zeros(len(self.walls), dtype))
        # what met walls of two axes is shared between them, so that survivors and exits add up
        every = functools.reduce(jnp.add, leave)
        share = weights * (1 - survive) / jnp.where(every > 0, every, 1)
        return Settled(positions, weights * survive, jnp.stack([jnp.sum(share * p) for p in leave]))


def _between(
    positions: Float[Array, "n d"], lower: Float[Array, " d"], upper: Float[Array, " d"]
) -> Float[Array, "n d"]:
    """What rounding has put beyond a wall is put at it. As `jnp.clip`, whose gradient keeps two numbers and no bits."""
    positions = jnp.where(positions < lower[None], lower[None], positions)
    return jnp.where(positions > upper[None], upper[None], positions)


def _inside(y: Float[Array, " n"], width: Float[Array, ""], low: Wall, high: Wall) -> Float[Array, " n"]:
    """Distances from the lower wall, brought back between the walls."""
    if low == "periodic":
        turned = y - width * jnp.floor(y / width)
        return jnp.where(turned >= width, 0, turned)
    if (low, high) == ("absorbing", "absorbing"):
        return y  # those beyond have no weight any more
    if low == "absorbing":  # mirrored at the upper wall
        return width - jnp.abs(width - y)
    if high == "absorbing":
        return jnp.abs(y)
    around = 2 * width
    turned = y - around * jnp.floor(y / around)
    return width - jnp.abs(width - turned)


def _met(
    x: Float[Array, " n"],
    y: Float[Array, " n"],
    width: Float[Array, ""],
    variance: Float[Array, " n"],
    low: Wall,
    high: Wall,
) -> list[Float[Array, " n"]]:
    """The probabilities that a step from x to y first left through each absorbing wall."""
    if low == high:
        return [_first_left(x, y, width, variance), _first_left(width - x, width - y, width, variance)]
    if low == "reflecting":  # seen from the upper wall
        x, y = width - x, width - y
    # unfolded at the mirror there is the same wall on both sides
    wide = 2 * width
    return [_first_left(x, y, wide, variance) + _first_left(wide - x, wide - y, wide, variance)]


def _first_left(
    x: Float[Array, " n"], y: Float[Array, " n"], width: Float[Array, ""], variance: Float[Array, " n"]
) -> Float[Array, " n"]:
    """The probability that a Brownian bridge from x to y leaves [0, width] at 0 first.

    Paths that meet a given series of walls are as many as paths of the unfolded length U without walls, whose share is
    exp((D^2 - U^2) / 2 variance), where D is the straight way. Those that met 0 first are those that met 0, less those
    that met the other wall and then 0, and so on (Anderson 1960, Ann. Math. Stat. 31, theorem 4.2).
    """
    some = jnp.where(variance > 0, variance, jnp.finfo(x.dtype).tiny)
    straight, last = jnp.abs(y - x), jnp.abs(y)
    found = jnp.zeros_like(x)
    for walls in range(1, _ORDERS + 1):
        way = (x if walls % 2 else width - x) + (walls - 1) * width + last
        term = jnp.exp(-(way - straight) * (way + straight) / (2 * some))
        found = found + term if walls % 2 else found - term
    return jnp.clip(found, 0, 1)


def _pair(axis: int, wall: object) -> tuple[Wall, Wall]:
    pair = (wall, wall) if isinstance(wall, str) else wall
    if not isinstance(pair, tuple | list) or len(pair) != 2:
        raise ValueError(f"axis {axis} has the walls {wall!r}, but one word is needed, or a pair (lower, upper)")
    low, high = pair
    for word in (low, high):
        if word not in WALLS:
            raise ValueError(f"no wall {word!r}{suggest(word, WALLS)}: {', '.join(WALLS)}")
    if (low == "periodic") != (high == "periodic"):
        raise ValueError(f"axis {axis} is periodic at one wall and {high if low == 'periodic' else low} at the other")
    return low, high


class Grid(Module):
    """Equal cells of a box.

    **Arguments:** `box`; `shape`: the number of cells of each axis, a number for one dimension.
    """

    box: Box
    shape: tuple[int, ...] = eqx.field(static=True)

    def __init__(self, box: Box, shape: int | Sequence[int]) -> None:
        require_kind(box, Box, "box", "a Box(lower, upper), before the numbers of cells")
        self.box = box
        each = shape if isinstance(shape, Sequence) else (shape,)
        self.shape = tuple(as_count(n, "shape, the number of cells of an axis,") for n in each)
        if len(self.shape) != box.d or min(self.shape) < 2:
            raise ValueError(f"a grid needs 2 cells or more on each of {box.d} axes, but its shape is {self.shape}")

    @property
    def step(self) -> Float[Array, " d"]:
        """The widths of a cell."""
        return self.box.width / jnp.asarray(self.shape, self.box.lower.dtype)

    @property
    def volume(self) -> Float[Array, ""]:
        """The volume of a cell."""
        return jnp.prod(self.step)

    @property
    def size(self) -> int:
        """The number of cells."""
        return math.prod(self.shape)

    def centres(self, axis: int = 0) -> Float[Array, " m"]:
        """The centres of the cells along an axis."""
        return self.box.lower[axis] + (self._count(self.shape[axis]) + 0.5) * self.step[axis]

    def edges(self, axis: int = 0) -> Float[Array, " m1"]:
        """The walls between cells along an axis, and the outer two."""
        return self.box.lower[axis] + self._count(self.shape[axis] + 1) * self.step[axis]

    def _count(self, n: int) -> Float[Array, " n"]:
        return jnp.arange(n, dtype=self.box.lower.dtype)

    def points(self) -> Float[Array, "... d"]:
        """The centres of all cells, shape (*shape, d)."""
        axes = [self.centres(axis) for axis in range(self.box.d)]
        return jnp.stack(jnp.meshgrid(*axes, indexing="ij"), axis=-1)


def averaged(values: AnyArray, shape: Sequence[int]) -> Any:
    """Means over blocks of cells: the last axes become those of a grid of this shape; `None` where they do not fill it.

    Of an array of NumPy on the host, and of JAX on the device.
    """
    found, lead = values, values.ndim - len(shape)
    for axis, m in enumerate(shape, lead):
        n = found.shape[axis]
        if n % m:
            return None
        found = found.reshape(*found.shape[:axis], m, n // m, *found.shape[axis + 1 :]).mean(axis=axis + 1)
    return found


def same_box(one: Box, other: Box) -> bool:
    """True for two boxes with the same corners and walls, whose numbers are known."""
    corners = ((one.lower, other.lower), (one.upper, other.upper))
    return one.walls_of_axes == other.walls_of_axes and all(
        np.array_equal(np.asarray(a), np.asarray(b)) for a, b in corners
    )
