"""Where spectral parameters live: which pixels share which element of which parameter.

A parameter may have one value for the sky, one for each pixel of a coarser map, for each patch of any form, or a mean
of several patches in each pixel. `lay_out` turns that into cells of pixels that share every parameter, and groups of
cells that share any, which is all that the fits need to know. `separate` and the blocks from disk call it.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from jaxtyping import Float, Int

from ..core import Module, suggest
from ._fixed import numbered
from ._given import Given, Values, plain
from ._healpix import nside_of, parents

_SUM = 1e-6  # how far from 1 weights may sum, which lets single precision through


class SoftPatches(Module):
    """Give each pixel shares in several patches: the parameter there is the weighted mean of their values.

    What `separate(patches=...)` takes, and `soft_kmeans` makes.

    - `numbers`: (q, pixel) the patches of each pixel, in any order; a pixel whose numbers are all negative is masked.
    - `weights`: (q, pixel) how much of each, at least 0, with a sum of 1; what has no weight may have any number.

    **Raises:** `ValueError` for shapes that differ.
    """

    numbers: Int[np.ndarray, "q pixel"]
    weights: Float[np.ndarray, "q pixel"]

    def __init__(self, numbers: Given, weights: Given):
        self.numbers = np.asarray(plain(numbers, "numbers", fill=-1))
        self.weights = np.asarray(plain(weights, "weights", fill=0.0))

    @property
    def used(self) -> np.ndarray:
        """True (pixel,) where any patch is named."""
        return np.any(self.numbers >= 0, axis=0)

    def over(self, name: str, npix: int) -> "SoftPatches":
        """Return these patches, if they are for so many pixels.

        **Raises:** `ValueError` if they are for others.
        """
        if self.numbers.shape[1] != npix:
            raise ValueError(f"patches of {name} are for {self.numbers.shape[1]} pixels, but the maps have {npix}")
        return self

    def checked(self, name: str, pixel: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        """(numbers, weights) of these pixels, in as few rows as they need; of a single one no weights.

        Rows begin with the largest weight, and a number without weight is that one's, so that nothing hangs on it.

        **Raises:** `ValueError` for weights that are negative, do not sum to 1, or belong to no patch.
        """
        numbers, weights = self.numbers[:, pixel], self.weights[:, pixel].astype(float)

        def refuse(bad: np.ndarray, what: str) -> None:
            if bad.any():
                first = pixel[bad][0]
                raise ValueError(f"patches of {name}: {bad.sum()} pixels (the first is {first}) have {what}")

        refuse(~np.all(weights >= 0, axis=0), "a weight that is negative or not a number")
        refuse(np.any((weights > 0) & (numbers < 0), axis=0), "weight in no patch, but in a negative number")
        refuse(np.abs(weights.sum(axis=0) - 1) > _SUM, "weights that do not sum to 1")
        rows = int(np.sum(weights > 0, axis=0).max(initial=1))
        order = np.lexsort((numbers, -weights), axis=0)[:rows]
        numbers, weights = np.take_along_axis(numbers, order, 0), np.take_along_axis(weights, order, 0)
        return (np.where(weights > 0, numbers, numbers[:1]), weights) if rows > 1 else (numbers[0], None)


def mean(values: Values, index: Values, share: Values | None = None) -> Values:
    """Look up the parameter of each lane: the element `index` (k,) of it, or the mean of several (q, k)."""
    if share is None:
        return values[index]
    return (values[index] * share).sum(0)


Where: TypeAlias = int | np.ndarray | SoftPatches
"""How a parameter varies: an nside (0: one value for the whole sky), a patch number for each pixel, or several."""


class Cells(NamedTuple):
    """List the pixels in use, in cells that share every spectral parameter, in groups that share none.

    - `pixel`: the used pixels. `element`: for each parameter that of each of them (n,), or several (q, n); then there
      is a `share` (q, n) in each. `sizes`: how many elements.
    - `cell`: the cell of each used pixel. `first`: a used pixel of each cell. `group`: the group of each cell.
    - `fixed`: the values at the used pixels of parameters that vary without being fitted.
    """

    pixel: np.ndarray
    element: dict[str, np.ndarray]
    sizes: dict[str, int]
    cell: np.ndarray
    first: np.ndarray
    group: np.ndarray
    fixed: dict[str, Values]
    share: dict[str, np.ndarray]

    def elements(self) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
        """Tell by name which element of each parameter each cell has, and its shares where it has several."""
        element, share = ({name: x[..., self.first] for name, x in each.items()} for each in (self.element, self.share))
        return element, share

    def means(self, values: Mapping[str, Values]) -> dict[str, Values]:
        """Look up the parameters of each cell among those of the elements."""
        index, share = self.elements()
        return {name: mean(x, index[name], share.get(name)) for name, x in values.items()}

    def pixels(self) -> np.ndarray:
        """List the used pixels of each cell (m, k), -1 where it has fewer than m."""
        counts = np.bincount(self.cell, minlength=len(self.first))
        order = np.argsort(self.cell, kind="stable")
        place = np.arange(len(order)) - np.repeat(np.cumsum(counts) - counts, counts)
        out = np.full((counts.max(initial=1), len(self.first)), -1)
        out[place, self.cell[order]] = self.pixel[order]
        return out

    @property
    def alone(self) -> bool:
        """True where every cell has parameters of its own."""
        return not self.share and all(size == len(self.first) for size in self.sizes.values())


def lay_out(
    free: Sequence[str],
    patches: Mapping[str, Where] | Where,
    used: np.ndarray,
    *,
    nest: bool = False,
    single: bool = False,
    fixed: Mapping[str, Values] | None = None,
) -> Cells:
    """Find the cells and groups for these free parameters.

    **Arguments:** `patches`: an nside or patch numbers for all parameters or by name, 0 (global) for those not named;
    a negative patch number masks a pixel. `used`: boolean, which pixels have data. `single`: every pixel is a cell.
    `fixed`: (pixel,) parameters that vary without being fitted; a cell has one value of each.

    **Raises:** `ValueError` for names that are not free, a wrong nside, or patches of another length.
    """
    made: dict[Any, Any] = {}  # most often all parameters have one place, and a sky is long
    key = {}
    for name, where in by_parameter(free, patches).items():
        key[name] = int(np.asarray(where)) if is_nside(where) else ("numbers", id(where))
        made[key[name]] = made[key[name]] if key[name] in made else (name, _numbers(name, where, len(used), nest))
    for _, number in made.values():
        used = used & (number.used if isinstance(number, SoftPatches) else number >= 0)
    pixel = np.flatnonzero(used)
    found = {at: _Elements.of(name, number, pixel) for at, (name, number) in made.items()}
    together = np.zeros(len(pixel), np.int64)
    for each in found.values():
        for row in np.atleast_2d(each.inside):
            together = _finer(together, row)
        for row in () if each.share is None else each.share:
            together = _finer(together, np.unique(row, return_inverse=True)[1])
    for name, values in (fixed or {}).items():
        together = _finer(together, numbered(name, values, pixel))
    known = {name: values[pixel] for name, values in (fixed or {}).items()}
    elements = {name: found[at] for name, at in key.items()}
    index = {name: each.inside for name, each in elements.items()}
    sizes = {name: each.size for name, each in elements.items()}
    share = {name: each.share for name, each in elements.items() if each.share is not None}
    # noise by pixel makes every pixel a system of its own, though it may share all parameters
    cell = np.arange(len(pixel)) if single else together
    first = np.unique(cell, return_index=True)[1]
    return Cells(pixel, index, sizes, cell, first, _groups(index, sizes, first), known, share)


def _finer(together: np.ndarray, number: np.ndarray) -> np.ndarray:
    """Numbers of the pixels that have both numbers in common."""
    return np.unique(together * (number.max(initial=0) + 1) + number, return_inverse=True)[1]


class _Elements(NamedTuple):
    """The elements of pixels, counted from 0; their shares, where a pixel has several; how many elements there are."""

    inside: np.ndarray
    share: np.ndarray | None
    size: int

    @staticmethod
    def of(name: str, where: np.ndarray | SoftPatches, pixel: np.ndarray) -> "_Elements":
        numbers, share = where.checked(name, pixel) if isinstance(where, SoftPatches) else (where[pixel], None)
        present, index = np.unique(numbers, return_inverse=True)
        return _Elements(index.reshape(numbers.shape), share, len(present))


def by_parameter(free: Sequence[str], patches: "Mapping[str, Where] | Where") -> "dict[str, Where]":
    """Tell what `patches` says of each free parameter: 0 for those that it does not name.

    **Raises:** `ValueError` for a name that is not free.
    """
    spec: Mapping[str, Where] = patches if isinstance(patches, Mapping) else dict.fromkeys(free, patches)
    for name in spec:
        if name not in free:
            raise ValueError(f"patches: no free parameter {name!r}{suggest(name, free)} (free: {', '.join(free)})")
    return {name: spec.get(name, 0) for name in free}


def is_nside(where: "Where") -> bool:
    """True for an nside, which means 0 too."""
    return not isinstance(where, SoftPatches) and np.ndim(where) == 0


def _numbers(name: str, where: "Where", npix: int, nest: bool) -> "np.ndarray | SoftPatches":
    """The patch of each pixel."""
    if isinstance(where, SoftPatches):
        return where.over(name, npix)
    number = np.asarray(plain(where, f"patches of {name}", fill=-1))
    if number.ndim == 0:
        return parents(nside_of(npix), int(number), nest) if number else np.zeros(npix, np.int64)
    if number.shape != (npix,) or not np.issubdtype(number.dtype, np.integer):
        raise ValueError(
            f"patches of {name} should be {npix} integers, one for each pixel of the maps, "
            f"but they are {number.dtype}{list(number.shape)}"
        )
    return number


def _groups(index: Mapping[str, np.ndarray], sizes: Mapping[str, int], first: np.ndarray) -> np.ndarray:
    """Connected components of cells that share an element of any parameter."""
    if not index:  # nothing is fitted, and so nothing shared
        return np.arange(len(first))
    if len(first) < 2:
        return np.zeros(len(first), np.int64)
    if all(inside.ndim == 1 and sizes[name] == len(first) for name, inside in index.items()):
        return np.arange(len(first))
    # cells and elements are the nodes of a graph, and each cell has an edge to every element that it has
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    cells = np.arange(len(first))
    offset, rows, columns = len(first), [], []
    for name, inside in index.items():
        for elements in np.atleast_2d(inside[..., first]):
            rows.append(cells)
            columns.append(offset + elements)
        offset += sizes[name]
    ends = np.concatenate(rows), np.concatenate(columns)
    links = coo_matrix((np.ones(len(ends[0])), ends), (offset, offset))
    return connected_components(links, directed=False)[1][: len(first)]
