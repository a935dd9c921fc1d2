"""Regions of a detector that are drawn: circles, ellipses, rectangles, lines and polygons, as masks.

A pixel belongs to a region when its centre does, which is worked out from the shape itself and not from a picture of
it. Corners are (row, column) in pixels, as a viewer gives them, and whole numbers are the centres of pixels. Each uses
what is inside: put `~` before it to hide that.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from ...core import Scalar, numbers, require_positive
from .rules import AbstractMask, View


def _check_size(mask: AbstractMask, name: str) -> None:
    """Raise `ValueError` for a size that is not positive."""
    size = getattr(mask, name)
    if isinstance(size, jax.Array):
        require_positive(size, f"{type(mask).__name__}.{name}")


class Circle(AbstractMask):
    """Use what is within a circle, its edge included.

    **Arguments:** `centre`: (row, column). `radius`: in pixels.
    """

    centre: Float[Array, "2"] = numbers()
    radius: Scalar = numbers()

    def __check_init__(self) -> None:
        _check_size(self, "radius")

    def __call__(self, view: View) -> Bool[Array, "v h"]:
        rows, columns = view.points()
        return (rows - self.centre[0]) ** 2 + (columns - self.centre[1]) ** 2 <= self.radius**2


class Ellipse(AbstractMask):
    """Use what is within an ellipse, its edge included.

    **Arguments:** `centre`: (row, column). `radii`: the half axes along rows and along columns, in pixels. `angle`: by
    which both are turned from down towards the right, in degrees.
    """

    centre: Float[Array, "2"] = numbers()
    radii: Float[Array, "2"] = numbers()
    angle: Scalar = numbers(default=0.0)

    def __check_init__(self) -> None:
        _check_size(self, "radii")

    def __call__(self, view: View) -> Bool[Array, "v h"]:
        along, across = _turned(view, self.centre, self.angle)
        # multiplied out: a quotient would round, and pixels on the edge would come and go
        a, b = self.radii[0], self.radii[1]
        return (along * b) ** 2 + (across * a) ** 2 <= (a * b) ** 2


class Rectangle(AbstractMask):
    """Use what is within a rectangle, its edges included.

    **Arguments:** `centre`: (row, column). `size`: (height, width) in pixels. `angle`: as of `Ellipse`.
    """

    centre: Float[Array, "2"] = numbers()
    size: Float[Array, "2"] = numbers()
    angle: Scalar = numbers(default=0.0)

    def __check_init__(self) -> None:
        _check_size(self, "size")

    def __call__(self, view: View) -> Bool[Array, "v h"]:
        along, across = _turned(view, self.centre, self.angle)
        return (2 * jnp.abs(along) <= self.size[0]) & (2 * jnp.abs(across) <= self.size[1])


class Line(AbstractMask):
    """Use what is within half a width of a line, between its ends.

    **Arguments:** `start`, `end`: (row, column). `width`: in pixels.
    """

    start: Float[Array, "2"] = numbers()
    end: Float[Array, "2"] = numbers()
    width: Scalar = numbers(default=1.0)

    def __check_init__(self) -> None:
        _check_size(self, "width")

    def __call__(self, view: View) -> Bool[Array, "v h"]:
        rows, columns = view.points()
        dv, dh = rows - self.start[0], columns - self.start[1]
        way = self.end - self.start
        length = way[0] ** 2 + way[1] ** 2
        along, off = dv * way[0] + dh * way[1], dv * way[1] - dh * way[0]
        return (along >= 0) & (along <= length) & (4 * off**2 <= self.width**2 * length)


class Polygon(AbstractMask):
    """Use what is within a polygon, by the even-odd rule where its sides cross.

    Of polygons that share a side, a pixel on it belongs to one: those that tile a detector hold each pixel once.

    **Arguments:** `corners`: (row, column) of three or more, in order; the last one is joined to the first.

    **Raises:** `ValueError` for fewer than three.
    """

    corners: Float[Array, "m 2"] = numbers()

    def __check_init__(self) -> None:
        if self.corners.shape[0] < 3:
            raise ValueError(f"a polygon needs three corners or more, but it has {self.corners.shape[0]}")

    def __call__(self, view: View) -> Bool[Array, "v h"]:
        return _even_odd(*view.points(), self.corners)


@jax.jit
def _even_odd(
    rows: Float[Array, "v 1"], columns: Float[Array, "1 h"], corners: Float[Array, "m 2"]
) -> Bool[Array, "v h"]:
    """One side at a time: all at once would take as many detectors of memory as there are sides."""

    def side(inside: Bool[Array, "v h"], ends: Float[Array, "2 2"]) -> tuple[Bool[Array, "v h"], None]:
        return inside ^ _crosses(rows, columns, ends), None

    sides = jnp.stack([corners, jnp.roll(corners, -1, axis=0)], axis=1)
    return jax.lax.scan(side, jnp.zeros((rows.size, columns.size), bool), sides)[0]


def _crosses(rows: Float[Array, "v 1"], columns: Float[Array, "1 h"], ends: Float[Array, "2 2"]) -> Bool[Array, "v h"]:
    """Whether a way to the left from each pixel crosses a side, which holds its upper end and not its lower one.

    The ends are put in order first: a side that two polygons share then gives both the same rounded answer.
    """
    swap = ends[0, 0] > ends[1, 0]
    upper, lower = jnp.where(swap, ends[1], ends[0]), jnp.where(swap, ends[0], ends[1])
    between = (upper[0] <= rows) & (rows < lower[0])
    right = (columns - upper[1]) * (lower[0] - upper[0]) >= (rows - upper[0]) * (lower[1] - upper[1])
    return between & right


def _turned(view: View, centre: Float[Array, "2"], angle: Scalar) -> tuple[Float[Array, "v h"], Float[Array, "v h"]]:
    """How far pixels are from a centre along the axes of a shape that is turned."""
    rows, columns = view.points()
    dv, dh = rows - centre[0], columns - centre[1]
    cos, sin = jnp.cos(jnp.deg2rad(angle)), jnp.sin(jnp.deg2rad(angle))
    return dv * cos + dh * sin, dh * cos - dv * sin
