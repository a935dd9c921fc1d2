"""SciPy's Gaussian filter and cubic splines in JAX, to be differentiated, mapped and compiled with what uses them.

Two-time maps are smoothed by the first, curves are compared at common abscissae by the second. Both give what their
namesakes give: `scipy.ndimage.gaussian_filter` in all five border modes, and `scipy.interpolate.interp1d` with
`kind="cubic"`. `percentile` and `nan_to_num` are `jax.numpy`'s own, and are not wrapped here.
"""

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ..core import Scalar, suggest, traced

_MODES = {"reflect": "symmetric", "constant": "constant", "nearest": "edge", "mirror": "reflect", "wrap": "wrap"}
"""What NumPy calls the borders of SciPy: its `reflect` repeats the last pixel, NumPy's does not."""

_ENDS = ("not-a-knot", "natural")


def gaussian_filter(
    image: Float[Array, "*n"],
    sigma: float | Scalar | Sequence[float],
    *,
    mode: str = "reflect",
    cval: float = 0.0,
    truncate: float = 4.0,
    radius: int | None = None,
) -> Float[Array, "*n"]:
    """Smooth an image of any dimension by a Gaussian, as `scipy.ndimage.gaussian_filter` does.

    **Arguments:**

    - `image`: what is smoothed along all its axes.
    - `sigma`: the standard deviation in pixels, one for all axes or one for each; zero leaves an axis as it is.
    - `mode`: how the image goes on beyond its border: "reflect" (d c b a | a b c d), "constant" (`cval`), "nearest"
      (a a a | a b c), "mirror" (d c b | a b c d), "wrap".
    - `truncate`: the Gaussian is cut off at so many sigma. `radius`: the pixels on each side that this makes; must be
      given where sigma is differentiated or mapped over, since it is a shape.

    **Raises:** `ValueError` for an unknown mode, a sigma below zero, or one that is not known without a `radius`.
    """
    if mode not in _MODES:
        raise ValueError(f"no border {mode!r}{suggest(mode, _MODES)}: {', '.join(_MODES)}")
    each: list[Any] = list(sigma) if isinstance(sigma, tuple | list) else [sigma] * image.ndim
    if len(each) != image.ndim:
        raise ValueError(f"sigma should be one number, or one for each of {image.ndim} axes, but there are {len(each)}")
    for axis, width in enumerate(each):
        reach = _reach(width, truncate, radius)
        if reach:
            image = _smooth_axis(image, jnp.asarray(width, image.dtype), axis, reach, mode, cval)
    return image


def interp1d(
    at: Float[Array, " m"], x: Float[Array, " n"], y: Float[Array, " n"], *, kind: str = "cubic", ends: str = _ENDS[0]
) -> Float[Array, " m"]:
    """Interpolate a curve between its points; NaN outside them.

    **Arguments:** `at`: where. `x`: where it is known, rising. `y`: its values there. `kind`: "cubic" or "linear".
    `ends`: of a cubic spline, "not-a-knot" (the outer two pieces are one cubic, as SciPy has it) or "natural" (no
    curvature at the ends).

    **Returns:** the values, with derivatives by all three arguments.

    **Raises:** `ValueError` for fewer than two points, an unknown word, or `x` that is known not to rise.
    """
    if x.shape[0] < 2:
        raise ValueError(f"a curve needs two points or more, but it has {x.shape[0]}")
    if ends not in _ENDS or kind not in ("cubic", "linear"):
        raise ValueError(f"kind is cubic or linear and ends one of {', '.join(_ENDS)}, not {kind!r} with {ends!r}")
    if not traced(x) and not np.all(np.diff(np.asarray(x)) > 0):
        raise ValueError("the points of a curve should rise: sort x first, and drop what it has twice")
    piece = jnp.clip(jnp.searchsorted(x, at, side="right") - 1, 0, x.shape[0] - 2)
    width = x[piece + 1] - x[piece]
    right = (at - x[piece]) / width
    left = 1 - right
    found = left * y[piece] + right * y[piece + 1]
    if kind == "cubic" and x.shape[0] > 2:
        bend = _curvature(x, y, ends)
        # the cubic that has these second derivatives at the ends of the piece and vanishes there
        found += ((left**3 - left) * bend[piece] + (right**3 - right) * bend[piece + 1]) * width**2 / 6
    return jnp.where((at >= x[0]) & (at <= x[-1]), found, jnp.nan)


def _reach(sigma: float | Scalar, truncate: float, radius: int | None) -> int:
    if radius is not None:
        return radius
    if traced(sigma):
        raise ValueError("the width of a kernel is a shape: give radius= where sigma is differentiated or mapped over")
    if not float(sigma) >= 0:
        raise ValueError(f"sigma should be zero or more, but it is {sigma}")
    return int(truncate * float(sigma) + 0.5)


@functools.partial(jax.jit, static_argnums=(2, 3, 4, 5))
def _smooth_axis(
    image: Float[Array, "*n"], sigma: Scalar, axis: int, reach: int, mode: str, cval: float
) -> Float[Array, "*n"]:
    """A convolution along one axis, whose rows are the channels of none: XLA has it for every device."""
    places = jnp.arange(-reach, reach + 1, dtype=image.dtype)
    kernel = jnp.exp(-0.5 * (places / sigma) ** 2)
    kernel = kernel / jnp.sum(kernel)
    fill = {"constant_values": cval} if mode == "constant" else {}
    pads = [(reach, reach) if k == axis else (0, 0) for k in range(image.ndim)]
    wide = jnp.moveaxis(jnp.pad(image, pads, mode=_MODES[mode], **fill), axis, -1)
    rows = jax.lax.conv_general_dilated(
        wide.reshape(-1, 1, wide.shape[-1]), kernel[None, None], (1,), "VALID", precision=jax.lax.Precision.HIGHEST
    )
    return jnp.moveaxis(rows.reshape(*wide.shape[:-1], -1), -1, axis)


@functools.partial(jax.jit, static_argnames="ends")
def _curvature(x: Float[Array, " n"], y: Float[Array, " n"], ends: str) -> Float[Array, " n"]:
    """The second derivatives of the spline at its points (de Boor 1978, A Practical Guide to Splines, chapter IV).

    Those at both ends are eliminated first, so that what is left is tridiagonal and its diagonal dominates.
    """
    h, slope = jnp.diff(x), jnp.diff(y) / jnp.diff(x)
    right = 6 * jnp.diff(slope)
    if ends == "not-a-knot" and x.shape[0] == 3:  # one parabola through all points
        return jnp.full(3, right[0] / (3 * (h[0] + h[1])))
    lower, middle, upper = h[:-1], 2 * (h[:-1] + h[1:]), h[1:]
    zero = jnp.zeros(1, x.dtype)
    if ends == "natural":
        return jnp.concatenate([zero, _tridiagonal(lower, middle, upper, right), zero])
    h0, h1, k0, k1 = h[0], h[1], h[-1], h[-2]
    middle = middle.at[0].add(h0 * (h0 + h1) / h1).at[-1].add(k0 * (k0 + k1) / k1)
    upper, lower = upper.at[0].add(-h0 * h0 / h1), lower.at[-1].add(-k0 * k0 / k1)
    inner = _tridiagonal(lower, middle, upper, right)
    first = ((h0 + h1) * inner[0] - h0 * inner[1]) / h1
    last = ((k0 + k1) * inner[-1] - k0 * inner[-2]) / k1
    return jnp.concatenate([first[None], inner, last[None]])


def _tridiagonal(
    lower: Float[Array, " n"], middle: Float[Array, " n"], upper: Float[Array, " n"], right: Float[Array, " n"]
) -> Float[Array, " n"]:
    """Solve by elimination without pivots, which a dominant diagonal does not need; `lower[0]` is not looked at."""
    zero = jnp.zeros((), right.dtype)

    def down(above: tuple[Scalar, Scalar], row: tuple[Array, ...]) -> tuple[tuple[Scalar, Scalar], tuple[Array, Array]]:
        a, b, c, d = row
        pivot = b - a * above[0]
        found = (c / pivot, (d - a * above[1]) / pivot)
        return found, found

    def up(below: Scalar, row: tuple[Array, Array]) -> tuple[Scalar, Scalar]:
        found = row[1] - row[0] * below
        return found, found

    rows = (lower.at[0].set(0), middle, upper.at[-1].set(0), right)
    _, reduced = jax.lax.scan(down, (zero, zero), rows)
    return jax.lax.scan(up, zero, reduced, reverse=True)[1]
