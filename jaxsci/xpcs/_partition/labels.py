"""Which bin each pixel belongs to: dynamic bins, in which g2 is averaged, and finer static bins within them.

Bins are cut along two maps, mostly q and phi. Their edges are worked out once, on the host, because how many bins hold
pixels is not known before; labels from given edges are a function that can be compiled. Label 0 is a masked pixel.
Correlators and SAXS curves take the labels, and the pixels sorted by them.
"""

import math
from collections.abc import Sequence

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int32

from ...core import AnyArray, Module, as_array, describe
from .._geometry import AbstractGeometry, cached_map
from .axis import Axis, Cut, cut_map, labels_of, split_cut

_MOST = 2**20  # bins, where a detector has fewer pixels than that: arrays have an entry for each


class Labels(Module):
    """One partition: the bin of each pixel, and the pixels of each bin.

    - `labels`: 1 ... b, 0 for a pixel that is not used. Only bins that hold pixels are numbered.
    - `order`: the pixels that are used, as places in the flat picture, sorted by their label and then by place.
    - `counts`: the pixels of each bin, and `index`: its place, from zero, among all bins of both axes, rows first.
    - `values`: the values of the bins along each axis, and `names`: its map.
    """

    labels: Int32[Array, "v h"]
    order: Int32[Array, " used"]
    counts: Int32[Array, " b"]
    index: Int32[Array, " b"]
    values: tuple[Float[Array, " n0"], Float[Array, " n1"]]
    names: tuple[str, ...] = eqx.field(static=True)

    @classmethod
    def of(
        cls,
        labels: AnyArray,
        index: AnyArray | None = None,
        values: tuple[Float[Array, " n0"], Float[Array, " n1"]] | None = None,
        names: tuple[str, ...] = ("bin", "none"),
    ) -> "Labels":
        """Make a partition of an array of labels on the host.

        **Arguments:** `labels`: 0 for a pixel that is not used, 1 ... b else. `index`, `values`, `names`: as of the
        class; by default bin k stands alone at the place k - 1 of one axis, whose values are the labels.

        **Raises:** `ValueError` for labels below zero, that are no whole numbers, or lie in no picture of two axes.
        """
        flat = whole_labels(labels).ravel()
        if flat.min(initial=0) < 0:
            raise ValueError(f"labels are 0 for a masked pixel and 1, 2, ... for bins, but there is {flat.min()}")
        bins = int(flat.max(initial=0)) if index is None else len(index)
        used = np.flatnonzero(flat)
        # NumPy sorts short integers by radix: six times as fast as the others
        short = flat[used].astype(np.uint16 if bins < 2**16 else np.int32)
        order = used[np.argsort(short, kind="stable")].astype(np.int32)
        counts = np.bincount(flat, minlength=bins + 1)[1:].astype(np.int32)
        place = np.arange(bins, dtype=np.int32) if index is None else np.asarray(index, np.int32)
        if values is None:
            values = (jnp.arange(1, bins + 1, dtype=float), jnp.zeros(1))
        picture = as_array(flat.reshape(np.shape(labels)))
        return cls(picture, as_array(order), as_array(counts), as_array(place), values, names)

    @property
    def bins(self) -> int:
        """The number of bins that hold pixels."""
        return self.counts.shape[0]

    @property
    def shape(self) -> tuple[int, ...]:
        """The number of bins along each axis, empty ones included."""
        return tuple(values.shape[0] for values in self.values)

    def of_bins(self, axis: int) -> Float[Array, " b"]:
        """Give the value along an axis of each bin that holds pixels: `of_bins(0)` is its q."""
        places = self.index // self.shape[1] if axis == 0 else self.index % self.shape[1]
        return self.values[axis][places]

    def on_grid(self, values: Float[Array, "*lead b"]) -> Float[Array, "*lead n0 n1"]:
        """Lay a number for each bin out along both axes; a bin without pixels is NaN."""
        grid = jnp.full((*values.shape[:-1], math.prod(self.shape)), jnp.nan, values.dtype)
        return grid.at[..., self.index].set(values).reshape(*values.shape[:-1], *self.shape)


class Partition(Module):
    """Dynamic bins and the static ones within them.

    **Arguments:** `dynamic`: the bins of g2. `static`: finer bins, in each of which the intensity is taken as one.

    **Raises:** `ValueError` where a static bin reaches into two dynamic ones, or one uses pixels that the other does
    not; both are named.
    """

    dynamic: Labels
    static: Labels
    owner: Int32[Array, " s"]

    def __init__(self, dynamic: Labels, static: Labels) -> None:
        self.dynamic, self.static = dynamic, static
        self.owner = as_array(_owners(dynamic, static))

    @property
    def labels(self) -> Int32[Array, "v h"]:
        """The dynamic bin of each pixel, 0 for one that is not used."""
        return self.dynamic.labels

    @property
    def static_labels(self) -> Int32[Array, "v h"]:
        """The static bin of each pixel, 0 for one that is not used."""
        return self.static.labels

    @property
    def q(self) -> Float[Array, " b"]:
        """The value of each dynamic bin along the first axis, mostly its q."""
        return self.dynamic.of_bins(0)


def partition(
    geometry: AbstractGeometry,
    used: AnyArray,
    axes: Sequence[Axis],
    finer: int | Sequence[int] = (1, 1),
    static: Sequence[Axis] | None = None,
) -> Partition:
    """Cut a detector into bins along one map or two.

    **Arguments:**

    - `geometry`: whose maps are cut.
    - `used`: True for the pixels that take part, such as what `mask(view)` gives.
    - `axes`: of the dynamic bins: `[Axis("q", 36)]`, or `[Axis("q", 12, "log"), Axis("phi", 8)]`.
    - `finer`: into how many static bins each dynamic one is cut along each axis.
    - `static`: axes of static bins in place of that.

    **Returns:** a `Partition`.

    **Raises:** `ValueError` where no pixel is used or lies in a bin, shapes differ, or static bins do not lie within
    dynamic ones.
    """
    for name, given in (("axes", axes), ("static", static)):
        each = given if isinstance(given, list | tuple) else [given]
        if given is not None and (each is not given or not all(isinstance(axis, Axis) for axis in each)):
            raise ValueError(f"{name} should be a list of axes, such as [Axis('q', 36)], but it is {describe(given)}")
    if len(axes) not in (1, 2):
        raise ValueError(f"bins are cut along one map or two, not along {len(axes)}")
    used = np.asarray(used) != 0
    if used.shape != geometry.shape:
        raise ValueError(f"a mask of shape {used.shape} fits no geometry of shape {geometry.shape}")
    maps = [np.asarray(cached_map(geometry, axis.map)) for axis in (*axes, *(static or ()))]
    cuts = [cut_map(values, used, axis) for axis, values in zip(axes, maps, strict=False)]
    if static is None:
        fine = [split_cut(cut, parts) for cut, parts in zip(cuts, _parts(finer, len(axes)), strict=True)]
        fine_maps = maps
    else:
        fine_maps = maps[len(axes) :]
        fine = [cut_map(values, used, axis) for axis, values in zip(static, fine_maps, strict=True)]
    dynamic = _held(label_pixels(maps[: len(axes)], used, cuts), axes, maps, used)
    return Partition(dynamic, label_pixels(fine_maps, used, fine))


def whole_labels(labels: AnyArray) -> Int32[np.ndarray, "v h"]:
    """Labels as integers.

    **Raises:** `ValueError` for other numbers, which no label is, and for other than two axes.
    """
    given = np.asarray(labels)
    if given.ndim != 2:
        raise ValueError(f"labels should be a picture of (rows, columns), but they have shape {given.shape}")
    if given.dtype.kind not in "biuf":
        raise ValueError(f"labels are whole numbers, 0 for a masked pixel, but they are {given.dtype}")
    wrong = given[~np.isfinite(given) | (given != np.rint(given))] if given.dtype.kind == "f" else given[:0]
    if wrong.size:
        raise ValueError(
            f"labels are whole numbers, 0 for a masked pixel and 1, 2, ... for bins, but one is {wrong[0]}"
        )
    if given.max(initial=0) > max(given.size, _MOST) or given.min(initial=0) < -_MOST:
        raise ValueError(f"labels number bins from 1 on, but one is {given.max()}, where there are {given.size} pixels")
    return given.astype(np.int32)


def _parts(finer: int | Sequence[int], axes: int) -> tuple[int, ...]:
    """Into how many static bins a dynamic one is cut along each axis."""
    given = tuple(finer) if isinstance(finer, Sequence) else (finer,)
    if len(given) < axes or any(part != 1 for part in given[axes:]):
        example, word = ", ".join(("4", "15")[:axes]), "axes" if axes > 1 else "axis"
        raise ValueError(f"finer={finer} should have one number for each of {axes} {word}, such as [{example}]")
    return given[:axes]


def _held(found: Labels, axes: Sequence[Axis], maps: Sequence[np.ndarray], used: AnyArray) -> Labels:
    """The partition, if any pixel lies in it.

    **Raises:** `ValueError` with the ranges of the maps where none does.
    """
    if found.bins:
        return found
    some = np.asarray(used)
    ranges = [
        f"{axis.map} from {np.nanmin(values[some]):.6g} to {np.nanmax(values[some]):.6g}"
        for axis, values in zip(axes, maps, strict=False)
    ]
    raise ValueError(
        f"no pixel that is used lies in a bin: over those pixels there is {' and '.join(ranges)}; move the limits or "
        "edges of the axes"
    )


def label_pixels(maps: Sequence[AnyArray], used: AnyArray, cuts: Sequence[Cut]) -> Labels:
    """Number the bins that hold pixels, rows of the first axis first.

    **Arguments:** `maps`: one or two, of one shape. `used`: True for the pixels that take part. `cuts`: of each map.

    **Raises:** `ValueError` for more than two maps.
    """
    if len(cuts) not in (1, 2):
        raise ValueError(f"bins are cut along one map or two, not along {len(cuts)}")
    used = np.asarray(used) != 0
    parts = [np.asarray(labels_of(as_array(values), cut)) for values, cut in zip(maps, cuts, strict=True)]
    second = cuts[1] if len(cuts) == 2 else None
    across = 1 if second is None else second.axis.bins
    # numbered from 1 over the product of both axes, in which 0 stays "no bin"
    place = parts[0] if second is None else (parts[0] - 1) * across + parts[1]
    place = np.where(used & np.all([part > 0 for part in parts], axis=0), place, 0)
    held = np.flatnonzero(np.bincount(place.ravel(), minlength=2)[1:]) + 1  # a sort would take five times as long
    number = np.zeros(int(held.max(initial=0)) + 1, np.int32)
    number[held] = np.arange(1, held.size + 1)
    names = (cuts[0].axis.map, "none" if second is None else second.axis.map)
    values = (cuts[0].values, jnp.zeros(1) if second is None else second.values)
    return Labels.of(number[place], held - 1, values, names)


def _owners(dynamic: Labels, static: Labels) -> Int32[np.ndarray, " s"]:
    """The dynamic bin of each static one."""
    coarse, fine = np.asarray(dynamic.labels).ravel(), np.asarray(static.labels).ravel()
    if coarse.shape != fine.shape or not np.array_equal(coarse > 0, fine > 0):
        apart = "" if coarse.shape != fine.shape else f": they differ in {np.sum((coarse > 0) != (fine > 0))} pixels"
        raise ValueError(f"dynamic and static bins should use the same pixels{apart}")
    owner = np.zeros(static.bins + 1, np.int32)
    owner[fine] = coarse
    torn = np.flatnonzero(owner[fine] != coarse)
    if torn.size:
        bin_ = fine[torn[0]]
        first, second = np.unique(coarse[fine == bin_])[:2]
        raise ValueError(
            f"the static bin {bin_} reaches into the dynamic bins {first} and {second}: cut static bins from dynamic "
            "ones (finer=), or give edges that hold all of theirs"
        )
    return owner[1:]
