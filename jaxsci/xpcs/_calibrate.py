"""Centre and distance of a detector from an image: by its symmetry, and by a fit of rings of known q.

`find_centre` needs no start and looks for the point about which the image is symmetric. `calibrate` then fits the rings
of a standard, such as silver behenate, by the same maximum likelihood as every other fit of the house, with errors of
what it finds. Counts are weighed by the variance of the model: weights from the counts themselves favour pixels that
happen to have few, and pull the answer.
"""

from collections.abc import Sequence

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from ..core import AbstractModel, AnyArray, Given, Module, Poisson, Scalar, as_array, as_float, numbers, param
from ..datasets import Dataset
from ..fitting import Solution, fit
from ._geometry import AbstractGeometry, q_at

_LEAST_OVERLAP = 0.25  # of the used pixels must have a partner for a centre to be believed


class Rings(AbstractModel):
    """Rings of known q over a flat background, as expected counts of pixels that are given as (row, column).

    counts = background + sum_k heights[k] exp(-((q - rings[k]) / width)^2 / 2), where q follows from the geometry.
    """

    geometry: AbstractGeometry
    heights: Float[Array, " k"] = param(bounds=(0, None), doc="counts at the top of each ring")
    width: Scalar = param(unit="1/A", bounds=(0, None), doc="standard deviation of a ring")
    background: Scalar = param(bounds=(1e-9, None), doc="counts between the rings")
    rings: Float[Array, " k"] = numbers()

    def __call__(self, pixels: Float[Array, "n 2"]) -> Float[Array, " n"]:
        """Compute the expected counts."""
        q = q_at(self.geometry, pixels[:, 0], pixels[:, 1])
        away = (q[:, None] - self.rings[None]) / self.width
        return self.background + jnp.exp(-0.5 * away * away) @ self.heights


class Calibration(Module):
    """A geometry that was fitted to rings, and the `Solution` of the fit, which has its errors.

    The parameters of the solution are called `geometry.centre`, `geometry.distance`, and so on.
    """

    geometry: AbstractGeometry
    solution: Solution


def calibrate(
    geometry: AbstractGeometry,
    image: AnyArray,
    rings: Given,
    used: AnyArray | None = None,
    *,
    free: Sequence[str] = ("centre", "distance"),
    counts: float = 1.0,
    width: float | None = None,
    most: int = 100_000,
) -> Calibration:
    """Fit centre and distance of a geometry to an image of rings whose q is known.

    First the rings are taken so wide that each reaches half way to the next, and only then as narrow as they are: a
    start that is a good part of a ring's distance off is drawn to the right one.

    **Arguments:**

    - `geometry`: where to start.
    - `image`: what the detector saw, of its shape.
    - `rings`: the q of each ring in 1/Angstrom.
    - `used`: True for the pixels that take part; all finite ones by default.
    - `free`: which numbers of the geometry are fitted: "centre", "distance", "swing", "roll", ...
    - `counts`: how many photons one unit of the image is, such as the number of frames that it is the mean of.
    - `width`: of a ring to start from, in 1/Angstrom; a sixth of the distance between rings by default.
    - `most`: of more pixels, every k-th is taken.

    **Returns:** a `Calibration`.

    **Raises:** `ValueError` for a number that the geometry does not have, or an image without rings in it;
    `RuntimeError` when the fit fails.
    """
    known = as_float(rings, "rings", "1/A").reshape(-1)
    picture = np.asarray(image, float) * counts
    if picture.shape != geometry.shape:
        raise ValueError(f"an image of shape {picture.shape} fits no geometry of shape {geometry.shape}")
    inside = np.isfinite(picture) & (np.ones(picture.shape, bool) if used is None else np.asarray(used) != 0)
    places = np.argwhere(inside & (picture >= 0))
    places = places[:: max(-(-len(places) // most), 1)]
    seen = as_array(picture[tuple(places.T)])
    pixels = as_array(places.astype(float))
    start = _start(geometry, pixels, seen, known, width)
    data = Dataset(pixels, seen, Poisson(seen))
    names = [f"geometry.{name}" for name in free]
    wide = fit(start, data, free=[*names, "heights", "background"])
    found = fit(wide.model, data, free=[*names, "heights", "background", "width"])
    return Calibration(found.model.geometry, found)


def find_centre(image: AnyArray, used: AnyArray | None = None) -> Float[Array, "2"]:
    """Find the point about which an image is symmetric under half a turn, as (row, column).

    It is where the image agrees best with itself turned: the correlation coefficient of all pairs of pixels that lie
    opposite each other, of the logarithm of the intensity, worked out for all half pixels at once by Fourier transforms
    and refined by a parabola.

    **Arguments:** `image`: of positive intensities. `used`: True for the pixels that take part.

    **Raises:** `ValueError` for an image without scatter.
    """
    picture = np.asarray(image, float)
    inside = np.isfinite(picture) & (picture >= 0) & (np.ones(picture.shape, bool) if used is None else
                                                     np.asarray(used) != 0)  # fmt: skip
    # the logarithm, with zero counts half a count up: a bright centre would outweigh all else
    least = np.min(picture[inside & (picture > 0)], initial=np.inf) / 2
    values = np.where(inside, np.log(np.where(inside, picture, 1) + least), 0)
    values = np.where(inside, values - values[inside].mean(), 0) if np.isfinite(least) else np.zeros_like(values)
    if not np.any(values):
        raise ValueError("this image has no scatter: no point of it can be told from another")
    return _centre(as_array(values), as_array(inside))


def _start(
    geometry: AbstractGeometry,
    pixels: Float[Array, "n 2"],
    seen: Float[Array, " n"],
    rings: Float[Array, " k"],
    width: float | None,
) -> Rings:
    """Rings of one height, of which the image shows the difference between its bright and its dark parts."""
    q = q_at(geometry, pixels[:, 0], pixels[:, 1])
    low, high = jnp.quantile(seen, jnp.asarray([0.1, 0.98]))
    inside = jnp.sum((rings >= jnp.min(q)) & (rings <= jnp.max(q)))
    if int(inside) == 0:
        raise ValueError(
            f"none of the rings lies on the detector, whose q goes from {float(jnp.min(q)):.4g} to "
            f"{float(jnp.max(q)):.4g} 1/A: look at energy, distance and pixel size"
        )
    apart = jnp.min(jnp.diff(jnp.sort(rings))) if rings.shape[0] > 1 else rings[0]
    wide = apart / 6 if width is None else jnp.asarray(width, rings.dtype)
    height = jnp.maximum(high - low, 1e-3 * jnp.mean(seen) + 1e-9)
    return Rings(geometry, jnp.full_like(rings, height), wide, jnp.maximum(low, 1e-3 * height), rings)


@eqx.filter_jit
def _centre(values: Float[Array, "v h"], inside: Bool[Array, "v h"]) -> Float[Array, "2"]:
    shape = tuple(2 * n for n in values.shape)

    def folded(a: Float[Array, "v h"], b: Float[Array, "v h"]) -> Float[Array, "w k"]:
        """Sum over p of a(p) b(s - p), for every s."""
        return jnp.fft.irfft2(jnp.fft.rfft2(a, shape) * jnp.fft.rfft2(b, shape), shape)

    mask = inside.astype(values.dtype)
    pairs = folded(mask, mask)
    power = folded(values * values, mask)
    enough = pairs >= _LEAST_OVERLAP * jnp.sum(mask)
    score = jnp.where(enough, folded(values, values) / jnp.where(power > 0, power, 1), -1)
    row, column = jnp.unravel_index(jnp.argmax(score), shape)
    ends = tuple(n - 2 for n in shape)
    row, column = jnp.clip(row, 1, ends[0]), jnp.clip(column, 1, ends[1])
    steps = jnp.arange(-1, 2, dtype=row.dtype)
    tops = [_top(score[row + steps, column]), _top(score[row, column + steps])]
    return (jnp.stack([row, column]).astype(values.dtype) + jnp.stack(tops)) / 2


def _top(three: Float[Array, "3"]) -> Scalar:
    """Where the parabola through three points has its top, from the middle one; at most one step away."""
    bend = three[0] - 2 * three[1] + three[2]
    return jnp.clip(jnp.where(bend < 0, (three[0] - three[2]) / (2 * jnp.where(bend < 0, bend, 1)), 0), -1, 1)
