"""The arithmetic under the maps of a detector: rotations, the rays to its pixels, roots and angles that stay accurate.

Each function is written for arrays of any shape and fuses into one loop over pixels, which is why nothing here is kept
in between. Gradients are finite everywhere, also under the beam, where a root and an angle have none of their own. The
detectors of this folder are the only callers.
"""

import math
from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float

from ...core import Scalar

_TAN = (math.tan(math.pi / 16), math.tan(math.pi / 8), math.tan(3 * math.pi / 16))
_TERMS = 11  # of the arctangent's series below pi / 16: what is left out is less than rounding


class Ray(NamedTuple):
    """Where pixels lie, seen from the sample, in mm: to the right, down, along the beam; and how far away they are."""

    right: Float[Array, "*n"]
    down: Float[Array, "*n"]
    along: Float[Array, "*n"]
    length: Float[Array, "*n"]


def arm(swing: Float[Array, "2"], roll: Scalar) -> Float[Array, "3 3"]:
    """The rotation of a detector on an arm: a roll about its own axis, a vertical swing, then a horizontal one."""
    (ch, cv), (sh, sv) = cos_sin(swing)
    nil, one = jnp.zeros_like(ch), jnp.ones_like(ch)
    horizontal = jnp.stack([jnp.stack([ch, nil, -sh]), jnp.stack([nil, one, nil]), jnp.stack([sh, nil, ch])])
    vertical = jnp.stack([jnp.stack([one, nil, nil]), jnp.stack([nil, cv, -sv]), jnp.stack([nil, sv, cv])])
    return horizontal @ vertical @ about_beam(roll)


def about_beam(angle: Scalar) -> Float[Array, "3 3"]:
    """The rotation about the third axis, in degrees from right to down."""
    (cos,), (sin,) = cos_sin(angle[None])
    nil, one = jnp.zeros_like(cos), jnp.ones_like(cos)
    return jnp.stack([jnp.stack([cos, -sin, nil]), jnp.stack([sin, cos, nil]), jnp.stack([nil, nil, one])])


def turn(axes: Float[Array, "3 3"], right: Float[Array, "*n"], down: Float[Array, "*n"], far: Scalar) -> Ray:
    """The rays to points of a detector, given along its own axes."""
    # products are written out: XLA fuses them with all that follows, and no pixel's ray is ever stored
    x, y, z = (axes[k, 0] * right + (axes[k, 1] * down + axes[k, 2] * far) for k in range(3))
    return Ray(x, y, z, jnp.sqrt(right * right + down * down + far * far))


def cos_sin(degrees: Float[Array, " n"]) -> tuple[Float[Array, " n"], Float[Array, " n"]]:
    """Cosines and sines; those of 90 degrees and its multiples are exact, or whole columns would move by an ulp."""
    angle = jnp.deg2rad(degrees)
    quarter = jnp.round(degrees / 90)
    whole = (degrees == 90 * quarter) & (quarter != 0)
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    return cos - jnp.where(whole, cos - jnp.round(cos), 0), sin - jnp.where(whole, sin - jnp.round(sin), 0)


def squared(ray: Ray) -> Float[Array, "*n"]:
    """The squared distance from the beam."""
    return ray.right * ray.right + ray.down * ray.down


def root(square: Float[Array, "..."]) -> Float[Array, "..."]:
    """A square root whose gradient at zero is zero instead of infinite."""
    some = square > 0
    return jnp.where(some, jnp.sqrt(jnp.where(some, square, 1)), 0)


def atan2(y: Float[Array, "v h"], x: Float[Array, "v h"]) -> Float[Array, "v h"]:
    """The angle of (x, y) in degrees; zero, with a gradient of zero, where both are zero.

    Each angle is told by the nearest of 0, 22.5 and 45 degrees and a rest below 11.25, of which the arctangent is a
    short series: XLA's own function takes five times as long, which is most of the time of a map of phi. Whole eighths
    of a turn are exact, so that pixels on the edge of a sector stay there.
    """
    none = (x == 0) & (y == 0)
    y, x = jnp.where(none, 0, y), jnp.where(none, 1, x)
    # selected, not taken by abs and max, whose gradients at zero and at ties are not those of the angle
    up, right = jnp.where(y < 0, -y, y), jnp.where(x < 0, -x, x)
    steep = up > right
    low, high = jnp.where(steep, right, up), jnp.where(steep, up, right)
    far, near = low > _TAN[2] * high, low > _TAN[0] * high
    nearest = jnp.where(far, 1.0, jnp.where(near, _TAN[1], 0.0))
    rest = (low - nearest * high) / (high + nearest * low)
    square, series = rest * rest, jnp.full_like(rest, 1 / (2 * _TERMS + 1))
    for k in reversed(range(_TERMS)):  # unrolled: one fused loop over pixels
        series = 1 / (2 * k + 1) - square * series
    # which angle it is next to, and which way round the rest counts: two selections of constants for each, because
    # of a selection between whole angles LLVM makes branches, and the loop is six times slower
    base, way = jnp.where(far, 45.0, jnp.where(near, 22.5, 0.0)), jnp.where(steep, -1.0, 1.0)
    base = jnp.where(steep, 90 - base, base)
    base, way = jnp.where(x < 0, 180 - base, base), jnp.where(x < 0, -way, way)
    angle = base + way * jnp.rad2deg(rest * series)
    return jnp.where(y < 0, -angle, angle)


def lag_of(ray: Ray) -> Float[Array, "*n"]:
    """1 - cos(2 theta) without its cancellation."""
    return squared(ray) / (ray.length * (ray.length + ray.along))
