"""Masks: rules that say which pixels are used, put together by `&`, `|` and `~`, and a history of them.

A mask is a small object that never changes and knows no array of pixels: it is asked what it leaves of a `View`, that
is of a shape, an image and a geometry, and answers True for pixels that are used. So it can be written down, in TOML,
JSON or HDF5, drawn before it is used, and applied to another image. `MaskHistory` is a list of masks with a cursor.
"""

import abc
import functools
import math
from collections.abc import Iterable, Sequence
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from ...core import AnyArray, Given, Module, Scalar, as_array, numbers, suggest, traced
from ...datasets import find_item, names_in, open_hdf5, read_array, read_dataset
from .._geometry import ANGLES, AbstractGeometry
from .._groups import group_means, group_quantiles

RULES = ("mad", "percentile")


class View(Module):
    """What a mask may look at: the shape of a detector, and an image and a geometry where there are any.

    **Arguments:** `shape`: rows and columns; taken from the others by default. `image`: what the detector saw, such as
    the mean of all frames. `geometry`: where its pixels lie.

    **Raises:** `ValueError` where the shapes differ, or nothing is given.
    """

    image: Float[Array, "v h"] | None
    geometry: AbstractGeometry | None
    shape: tuple[int, int] = eqx.field(static=True)

    def __init__(
        self,
        shape: Sequence[int] | None = None,
        image: AnyArray | None = None,
        geometry: AbstractGeometry | None = None,
    ) -> None:
        # one precision for all that masks compare, whatever the detector counts in
        self.image = None if image is None else as_array(image).astype(float)
        self.geometry = geometry
        shapes = {"shape": shape, "image": None if image is None else image.shape,
                  "geometry": None if geometry is None else geometry.shape}  # fmt: skip
        given = {name: tuple(found) for name, found in shapes.items() if found is not None}
        if len(set(given.values())) != 1:
            raise ValueError(
                f"a view needs one shape, but there are {given}"
                if given
                else "a view needs a shape, an image or a geometry: what should the mask look at?"
            )
        self.shape = next(iter(given.values()))  # type: ignore[assignment]

    def seen(self, asker: Module) -> Float[Array, "v h"]:
        """Give the image; raises `ValueError`, naming the mask that asks for it, where there is none."""
        if self.image is None:
            raise ValueError(f"{type(asker).__name__} looks at an image: give View(image=...)")
        return self.image

    def map(self, name: str, asker: Module) -> Float[Array, "v h"]:
        """Compute a map of the geometry; raises `ValueError`, naming the mask that asks, where there is none."""
        if self.geometry is None:
            raise ValueError(f"{type(asker).__name__} looks at the map {name!r}: give View(geometry=...)")
        return self.geometry.map(name)

    def points(self) -> tuple[Float[Array, "v 1"], Float[Array, "1 h"]]:
        """Give the row and the column of each pixel."""
        rows, columns = (jnp.arange(n, dtype=float) for n in self.shape)
        return rows[:, None], columns[None]


class AbstractMask(Module):
    """A rule that says which pixels of a view are used. Rules are put together by `&`, `|` and `~`."""

    @abc.abstractmethod
    def __call__(self, view: View) -> Bool[Array, "v h"]:
        """Give True for each pixel that is used.

        **Raises:** `ValueError` where the view lacks what the mask looks at.
        """

    def __and__(self, other: "AbstractMask") -> "And":
        return And((self, other))

    def __or__(self, other: "AbstractMask") -> "Or":
        return Or((self, other))

    def __invert__(self) -> "Not":
        return Not(self)


def _together(masks: Iterable[AbstractMask]) -> tuple[AbstractMask, ...]:
    return tuple(masks)


class And(AbstractMask):
    """Use the pixels that every one of some masks uses; all pixels where there is no mask. In Python `a & b`."""

    of: tuple[AbstractMask, ...] = eqx.field(converter=_together)

    def __call__(self, view: View) -> Bool[Array, "v h"]:
        return functools.reduce(jnp.logical_and, (mask(view) for mask in self.of), jnp.ones(view.shape, bool))


class Or(AbstractMask):
    """Use the pixels that any of some masks uses; none where there is no mask. In Python `a | b`."""

    of: tuple[AbstractMask, ...] = eqx.field(converter=_together)

    def __call__(self, view: View) -> Bool[Array, "v h"]:
        return functools.reduce(jnp.logical_or, (mask(view) for mask in self.of), jnp.zeros(view.shape, bool))


class Not(AbstractMask):
    """Use the pixels that a mask does not use: `~Circle(...)` hides a beam stop."""

    of: AbstractMask

    def __call__(self, view: View) -> Bool[Array, "v h"]:
        return ~self.of(view)


class Threshold(AbstractMask):
    """Use pixels whose intensity I is low <= I < high; a pixel that is not finite never is."""

    low: Scalar = numbers(default=-np.inf)
    high: Scalar = numbers(default=np.inf)

    def __check_init__(self) -> None:
        limits = self.low, self.high
        if all(isinstance(limit, jax.Array) for limit in limits) and not traced(limits) and not self.low < self.high:
            raise ValueError(f"Threshold.low should be below high, but they are {self.low} and {self.high}")

    def __call__(self, view: View) -> Bool[Array, "v h"]:
        image = view.seen(self)
        return jnp.isfinite(image) & (image >= self.low) & (image < self.high)


def _places(pixels: Given) -> Array:
    found = as_array(pixels)
    return found.astype(jnp.int32) if jnp.issubdtype(found.dtype, jnp.integer) else found


class BadPixels(AbstractMask):
    """Use all pixels but those of a list.

    **Arguments:** `pixels`: (row, column) of each bad one, counted from zero. One that lies outside the detector is an
    error, since a list that was made for another detector would hide the wrong ones.
    """

    pixels: Int[Array, "k 2"] = eqx.field(converter=_places)

    def __call__(self, view: View) -> Bool[Array, "v h"]:
        low = self.pixels < 0
        high = self.pixels >= jnp.asarray(view.shape, jnp.int32)[None]
        message = f"BadPixels names a pixel outside a detector of {view.shape[0]} rows and {view.shape[1]} columns"
        if not traced(self.pixels) and bool(jnp.any(low | high)):
            raise ValueError(f"{message}: leave it out, or take the list of this detector")
        pixels = eqx.error_if(self.pixels, jnp.any(low | high), message)
        return jnp.ones(view.shape, bool).at[pixels[:, 0], pixels[:, 1]].set(False)


class PixelMask(AbstractMask):
    """Use the pixels that an array says, such as what was drawn elsewhere: `PixelMask.of(array)`.

    It is kept as the lengths of its runs, row after row, so that it can be written down like any other mask.

    **Arguments:** `runs`: the lengths. `shape`: rows and columns. `first`: whether the first run is used.

    **Raises:** `ValueError` where the runs do not add up to the shape.
    """

    runs: Int[Array, " r"] = eqx.field(converter=_places)
    shape: tuple[int, ...] = eqx.field(static=True, converter=tuple)
    first: bool = eqx.field(static=True, default=True)

    def __check_init__(self) -> None:
        if not traced(self.runs) and int(np.sum(self.runs)) != math.prod(self.shape):
            raise ValueError(f"runs of {int(np.sum(self.runs))} pixels fill no detector of shape {self.shape}")

    @classmethod
    def of(cls, used: AnyArray) -> "PixelMask":
        """Make the mask of an array on the host: True, or a number that is not zero, for a pixel that is used."""
        flat = np.asarray(used).ravel() != 0
        turns = np.flatnonzero(flat[1:] != flat[:-1]) + 1
        runs = np.diff(np.concatenate([[0], turns, [flat.size]]))
        return cls(jnp.asarray(runs.astype(np.int32)), used.shape, bool(flat[:1].any()))

    def __call__(self, view: View) -> Bool[Array, "v h"]:
        _same_shape(self.shape, view)
        ends = jnp.cumsum(self.runs)
        place = jnp.searchsorted(ends, jnp.arange(math.prod(self.shape), dtype=ends.dtype), side="right")
        return ((place % 2 == 0) == self.first).reshape(self.shape)


class Blemish(AbstractMask):
    """Use the pixels that a beamline's blemish file marks as good: those above zero.

    **Arguments:** `path`: of an HDF5 file, or of a `.npy` file. `dataset`: its place within an HDF5 file.

    **Raises:** `ValueError` naming the file, and the datasets that it has where the one asked for is missing.
    """

    used: Bool[Array, "v h"]
    path: str = eqx.field(static=True)
    dataset: str = eqx.field(static=True)

    def __init__(self, path: str, dataset: str = "/lambda_blemish") -> None:
        self.path, self.dataset = str(path), dataset
        self.used = as_array(_read(Path(path), dataset) > 0)

    def __call__(self, view: View) -> Bool[Array, "v h"]:
        _same_shape(self.used.shape, view)
        return self.used


class MapRange(AbstractMask):
    """Use pixels whose map is between two limits, both included. Angles come round: adding 360 to both changes nothing.

    **Arguments:** `map`: the name of a map of the geometry, such as "q", "phi" or "qx". `low`, `high`: in its unit. Of
    an angle, the range runs from `low` upwards to `high`, through 180 where it must.
    """

    map: str = eqx.field(static=True)
    low: Scalar = numbers(default=-np.inf)
    high: Scalar = numbers(default=np.inf)

    def __call__(self, view: View) -> Bool[Array, "v h"]:
        return within(view.map(self.map, self), self.map, self.low, self.high)


def within(values: Float[Array, "v h"], name: str, low: Scalar, high: Scalar) -> Bool[Array, "v h"]:
    """Say which values of a map lie between two limits; the name tells whether they come round after 360 degrees."""
    if name not in ANGLES:
        return (values >= low) & (values <= high)
    # the lower limit is brought into one turn first, so that the same limits, a turn on, give the same bits
    return jnp.mod(values - jnp.mod(low, 360), 360) <= high - low


class Outliers(AbstractMask):
    """Use pixels that agree with the others of their ring in q.

    A ring's centre and scatter are its median and 1.4826 times the median distance from it ("mad"), or the mean and
    standard deviation of what lies between its 5th and 95th percentile ("percentile"). A ring without scatter has no
    outliers.

    **Arguments:** `cutoff`: the largest distance that is accepted, in units of the scatter. `rule`: "mad" or
    "percentile". `rings`: how many, of equal width in q. `among`: only pixels that this mask uses are judged; the
    others are not used either.

    **Raises:** `ValueError` for an unknown rule.
    """

    cutoff: Scalar = numbers(default=5.0)
    rule: str = eqx.field(static=True, default="mad")
    rings: int = eqx.field(static=True, default=100)
    among: AbstractMask = And(())

    def __check_init__(self) -> None:
        if self.rule not in RULES:
            raise ValueError(f"no rule {self.rule!r}{suggest(self.rule, RULES)}: {', '.join(RULES)}")

    def __call__(self, view: View) -> Bool[Array, "v h"]:
        image, q = view.seen(self), view.map("q", self)
        judged = self.among(view) & jnp.isfinite(image)
        low, high = jnp.min(q, where=judged, initial=jnp.inf), jnp.max(q, where=judged, initial=-jnp.inf)
        width = jnp.where(high > low, high - low, 1)
        ring = jnp.clip((self.rings * (q - low) / width).astype(jnp.int32), 0, self.rings - 1)
        labels = jnp.where(judged, ring + 1, 0)
        centre, scatter = _of_rings(image.ravel(), labels.ravel(), self.rings, self.rule)
        away = jnp.abs(image - centre[ring])
        return judged & ((away <= self.cutoff * scatter[ring]) | (scatter[ring] <= 1e-12 * jnp.abs(centre[ring])))


def _of_rings(
    values: Float[Array, " p"], labels: Int[Array, " p"], rings: int, rule: str
) -> tuple[Float[Array, " rings"], Float[Array, " rings"]]:
    """The centre and the scatter of each ring."""
    at = jnp.maximum(labels - 1, 0)
    if rule == "mad":
        centre = group_quantiles(values, labels, rings, (0.5,))[0]
        return centre, 1.4826 * group_quantiles(jnp.abs(values - centre[at]), labels, rings, (0.5,))[0]
    low, high = group_quantiles(values, labels, rings, (0.05, 0.95))
    inner = jnp.where((values >= low[at]) & (values <= high[at]), labels, 0)
    centre = group_means(values, inner, rings)
    return centre, jnp.sqrt(group_means((values - centre[at]) ** 2, inner, rings))


class MaskHistory(Module):
    """Masks that were applied one after another, and how many of them hold: what undo and redo move through.

    It is never changed: each method gives a new history. Pixels are used that all masks before the cursor use.

    **Arguments:** `masks`: in the order in which they were applied. `cursor`: how many hold; all by default.
    """

    masks: tuple[AbstractMask, ...]
    cursor: int = eqx.field(static=True)

    def __init__(self, masks: Iterable[AbstractMask] = (), cursor: int | None = None) -> None:
        self.masks = tuple(masks)
        self.cursor = len(self.masks) if cursor is None else cursor
        if not 0 <= self.cursor <= len(self.masks):
            raise ValueError(f"the cursor of {len(self.masks)} masks is 0 to {len(self.masks)}, but it is {cursor}")

    def push(self, mask: AbstractMask) -> "MaskHistory":
        """Apply one more mask; what was undone is forgotten."""
        return MaskHistory((*self.masks[: self.cursor], mask))

    def undo(self) -> "MaskHistory":
        """Take the last mask back; nothing changes where there is none."""
        return MaskHistory(self.masks, max(self.cursor - 1, 0))

    def redo(self) -> "MaskHistory":
        """Apply again what was taken back last; nothing changes where there is none."""
        return MaskHistory(self.masks, min(self.cursor + 1, len(self.masks)))

    def reset(self) -> "MaskHistory":
        """Forget all masks."""
        return MaskHistory()

    @property
    def mask(self) -> AbstractMask:
        """The masks that hold, as one."""
        return And(self.masks[: self.cursor])

    def evaluate(self, view: View) -> Bool[Array, "v h"]:
        """Give True for each pixel that is used."""
        return _evaluated(self.mask, view)


@eqx.filter_jit
def _evaluated(mask: AbstractMask, view: View) -> Bool[Array, "v h"]:
    return mask(view)


def _same_shape(shape: tuple[int, ...], view: View) -> None:
    if shape != view.shape:
        turned = "; it may have to be transposed" if shape[::-1] == view.shape else ""
        raise ValueError(f"a mask of shape {shape} fits no detector of shape {view.shape}{turned}")


def _read(path: Path, dataset: str) -> np.ndarray:
    """A blemish file as the host has it, before it reaches the device."""
    if not path.is_file():
        raise ValueError(f"there is no blemish file {path}")
    if path.suffix == ".npy":
        return _whole(read_array(path), path)
    import h5py

    try:
        file = open_hdf5(path)
    except ValueError as error:
        raise ValueError(f"{path} is neither an HDF5 file nor a .npy file: {error}") from None
    with file:
        # a mask is in one file: links lead no further than its folder
        found = find_item(file, dataset, path.resolve().parent)
        if not isinstance(found, h5py.Dataset):
            held = ", ".join(names_in(file)[:20]) or "nothing"
            raise ValueError(f"{path} has no dataset {dataset!r}, but {held}")
        return _whole(np.asarray(read_dataset(found)), path)


def _whole(image: np.ndarray, path: Path) -> np.ndarray:
    if image.dtype.kind not in "biuf" or image.ndim != 2:
        raise ValueError(f"{path} holds {image.dtype} of shape {image.shape}, but a mask is an image of numbers")
    return image
