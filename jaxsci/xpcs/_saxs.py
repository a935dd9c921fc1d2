"""Small-angle scattering: mean intensities over bins, wedges, rings and regions, with background and normalisation.

A curve is the mean of an image over the pixels of each bin, with the standard error that their scatter gives; pixels
that are masked or not finite take no part, and a bin without a pixel is NaN. The same functions serve an image averaged
over a run and, mapped over time by `saxs_over_time`, every frame of it.
"""

from collections.abc import Mapping
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from ..core import AnyArray, Module, Scalar, as_array, numbers, require_kind, suggest
from ..runs import write_whole
from ._geometry import AbstractGeometry, cached_map
from ._groups import group_means, group_totals, ratio
from ._mask import within
from ._partition import Axis, Labels, cut_map, label_pixels

NORMALISATIONS = ("none", "q2", "q4", "first", "mean")


class Curve(Module):
    """An intensity along q, or along an angle.

    - `x`: the values of the bins, in 1/Angstrom or degrees. `intensity`: the mean over the pixels of each bin; NaN for
      a bin without one. `error`: its standard error, from the scatter of these pixels; NaN for fewer than two.
    - `pixels`: how many there are in each bin. `name`: of the map along x.
    """

    x: Float[Array, " b"]
    intensity: Float[Array, " b"]
    error: Float[Array, " b"]
    pixels: Float[Array, " b"]
    name: str = eqx.field(static=True, default="q")

    def write_csv(self, path: str | Path) -> None:
        """Write the curve as a table of numbers with all their digits; the file is written whole or not at all."""
        write_columns(
            path, {self.name: self.x, "intensity": self.intensity, "error": self.error, "pixels": self.pixels}
        )


class Exposure(Module):
    """What an image was taken with: the transmission of the sample (0 to 1) and the flux of the beam times the time."""

    transmission: Scalar = numbers(default=1.0)
    flux: Scalar = numbers(default=1.0)


class Region(Module):
    """A part of the detector between two rings and two azimuths: a pie, or a ring where it goes all around.

    **Arguments:** `q_low`, `q_high`: in 1/Angstrom, both included. `phi_low`, `phi_high`: in degrees, both included;
    adding 360 to both changes nothing. For many at once, `jax.vmap(Region)` makes them of arrays.
    """

    q_low: Scalar = numbers()
    q_high: Scalar = numbers()
    phi_low: Scalar = numbers(default=-180.0)
    phi_high: Scalar = numbers(default=180.0)

    def __call__(self, q: Float[Array, "v h"], phi: Float[Array, "v h"]) -> Bool[Array, "v h"]:
        """Give True for each pixel in it, of the maps of q and phi."""
        return within(q, "q", self.q_low, self.q_high) & within(phi, "phi", self.phi_low, self.phi_high)


def mean_by_bin(image: Float[Array, "v h"], labels: Labels) -> Float[Array, " b"]:
    """Average an image over the pixels of each bin; NaN for one without a finite pixel."""
    # flattened outside of the program: XLA sums over the groups of what is flattened within it at a third of the speed
    return group_means(image.ravel(), labels.labels.ravel(), labels.bins)


def saxs(image: AnyArray, labels: Labels) -> Curve:
    """Average an image over the pixels of each bin of a partition, with standard errors.

    **Arguments:** `image`: of the detector's shape. `labels`: `partition.static` for a fine curve, or
    `partition.dynamic`.

    **Returns:** a `Curve` over the first map of the partition, one value for each bin that holds pixels.

    **Raises:** `ValueError` where the shapes differ.
    """
    require_kind(labels, Labels, "labels", "the bins of a partition, such as partition.static, or Labels.of(picture)")
    return _curve(_image(image, labels.labels.shape), labels.labels.ravel(), labels.of_bins(0), labels.names[0])


def wedge(
    image: AnyArray, geometry: AbstractGeometry, used: AnyArray, low: float, high: float, bins: int = 100
) -> Curve:
    """Average an image along q within a sector of azimuths: I(q).

    **Arguments:** `image`, `used`: of the detector's shape; True for pixels that are used. `low`, `high`: azimuths in
    degrees, both included, as of `MapRange`. `bins`: of equal width in q.

    **Raises:** `ValueError` where no pixel is in the sector, or shapes differ.
    """
    phi = cached_map(geometry, "phi")
    inside = within(phi, "phi", jnp.asarray(low, phi.dtype), jnp.asarray(high, phi.dtype))
    return _along(image, geometry, np.asarray(used) & np.asarray(inside), Axis("q", bins))


def ring(image: AnyArray, geometry: AbstractGeometry, used: AnyArray, low: float, high: float, bins: int = 72) -> Curve:
    """Average an image around a ring of q: I(phi), from -180 to 180 degrees.

    **Arguments:** as of `wedge`; `low`, `high`: in 1/Angstrom, both included.

    **Raises:** `ValueError` where no pixel is in the ring, or shapes differ.
    """
    q = cached_map(geometry, "q")
    if not low < high:
        raise ValueError(f"a ring of q should run from low to high, but low is {low} and high is {high}")
    inside = np.asarray(used) & np.asarray((q >= low) & (q <= high))
    return _along(image, geometry, inside, Axis("phi", bins, low=-180.0, high=180.0))


def region_mean(
    image: Float[Array, "v h"],
    q: Float[Array, "v h"],
    phi: Float[Array, "v h"],
    used: Bool[Array, "v h"],
    region: Region,
) -> Float[Array, ""]:
    """Average an image over a region: NaN where it holds no finite pixel that is used. For many, map over `region`."""
    inside = used & region(q, phi) & jnp.isfinite(image)
    total = jnp.sum(jnp.where(inside, image, 0))
    return ratio(total, jnp.sum(inside.astype(image.dtype)))


def saxs_over_time(frames: Float[Array, "t v h"], labels: Labels) -> Float[Array, "t b"]:
    """Average each frame over the pixels of each bin; frames are taken one after another, so that memory is one's."""
    return jax.lax.map(lambda frame: mean_by_bin(frame, labels), frames)


def normalised(intensity: Float[Array, "*n"], exposure: Exposure) -> Float[Array, "*n"]:
    """Divide an intensity by transmission and flux."""
    return intensity / (exposure.transmission * exposure.flux).astype(intensity.dtype)


def subtract_background(
    sample: Curve, background: Curve, of_sample: Exposure, of_background: Exposure, weight: float | Scalar = 1.0
) -> Curve:
    """Subtract the scattering of solvent and windows: I = I_s / (T_s F_s) - w I_b / (T_b F_b).

    **Arguments:** `sample`, `background`: curves over the same bins. `of_sample`, `of_background`: their transmission T
    and flux F. `weight`: w, the share of the background that is in the sample, 1 - the volume fraction of what is
    dissolved.

    **Returns:** a `Curve` whose errors are those of both, added in quadrature.

    **Raises:** `ValueError` for curves over different bins.
    """
    if sample.x.shape != background.x.shape or sample.name != background.name:
        raise ValueError(
            f"sample and background should be over the same bins, but there are {sample.x.shape[0]} of {sample.name} "
            f"and {background.x.shape[0]} of {background.name}"
        )
    share = jnp.asarray(weight, sample.intensity.dtype)
    intensity = normalised(sample.intensity, of_sample) - share * normalised(background.intensity, of_background)
    errors = normalised(sample.error, of_sample), share * normalised(background.error, of_background)
    return Curve(sample.x, intensity, jnp.hypot(*errors), jnp.minimum(sample.pixels, background.pixels), sample.name)


def normalise(curve: Curve, how: str) -> Curve:
    """Scale a curve for comparison.

    **Arguments:** `how`: "q2" (Kratky: I q^2), "q4" (Porod: I q^4), "first" (divided by its first finite value), "mean"
    (by the mean of its finite values), or "none".

    **Raises:** `ValueError` for another word.
    """
    if how not in NORMALISATIONS:
        raise ValueError(f"no normalisation {how!r}{suggest(how, NORMALISATIONS)}: {', '.join(NORMALISATIONS)}")
    finite = jnp.isfinite(curve.intensity)
    one = jnp.ones_like(curve.x)
    factor = {
        "none": one,
        "q2": curve.x**2,
        "q4": curve.x**4,
        "first": one / curve.intensity[jnp.argmax(finite)],
        "mean": one / jnp.mean(curve.intensity, where=finite),
    }[how]
    return Curve(curve.x, factor * curve.intensity, jnp.abs(factor) * curve.error, curve.pixels, curve.name)


def write_columns(path: str | Path, columns: Mapping[str, AnyArray]) -> None:
    """Write columns of numbers as CSV, with all their digits; the file is written whole or not at all.

    **Raises:** `ValueError` for columns of different lengths.
    """
    arrays = {name: np.atleast_1d(np.asarray(values)) for name, values in columns.items()}
    if len({values.shape for values in arrays.values()}) > 1:
        lengths = {name: values.shape for name, values in arrays.items()}
        raise ValueError(f"the columns of a table should be of one length, but they are {lengths}")
    rows = (",".join(repr(value.item()) for value in row) for row in zip(*arrays.values(), strict=True))
    write_whole(Path(path), "\n".join([",".join(arrays), *rows]) + "\n")


def _along(image: AnyArray, geometry: AbstractGeometry, used: Bool[np.ndarray, "v h"], axis: Axis) -> Curve:
    """The curve along one map; bins without pixels keep their place, as NaN."""
    values = np.asarray(cached_map(geometry, axis.map))
    cut = cut_map(values, used, axis)
    labels = label_pixels([values], used, [cut])
    found = _curve(_image(image, geometry.shape), labels.labels.ravel(), labels.of_bins(0), axis.map)
    grid = [labels.on_grid(part)[:, 0] for part in (found.intensity, found.error, found.pixels)]
    return Curve(cut.values, grid[0], grid[1], jnp.nan_to_num(grid[2]), axis.map)


@eqx.filter_jit
def _curve(values: Float[Array, " p"], labels: Int[Array, " p"], x: Float[Array, " b"], name: str) -> Curve:
    bins = x.shape[0]
    total, pixels = group_totals(values, labels, bins)
    mean = ratio(total, pixels)
    # about the mean: a sum of squares less a square would lose the digits of a small scatter
    away = values - jnp.where(labels > 0, mean[jnp.maximum(labels - 1, 0)], jnp.nan)
    variance = ratio(group_totals(away * away, labels, bins).sums, pixels - 1)
    scatter = jnp.where(pixels > 1, variance, jnp.nan)
    return Curve(x, mean, jnp.sqrt(scatter / jnp.where(pixels > 0, pixels, 1)), pixels, name)


def _image(image: AnyArray, shape: tuple[int, ...]) -> Float[Array, " p"]:
    """The pixels of an image, row after row."""
    if image.shape != shape:
        raise ValueError(f"an image of shape {image.shape} fits no detector of shape {tuple(shape)}")
    return as_array(image).astype(float).ravel()
