"""Where spectral parameters live: which pixels share which element of which parameter."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from ..core._errors import suggest
from ._fixed import kinds
from ._healpix import nside_of, parents

Where = int | np.ndarray
"""How a parameter varies: an nside (0: one value for the whole sky), or a patch number for each pixel."""


class Cells(NamedTuple):
    """Pixels in use, in cells that share every spectral parameter, in groups that share none.

    - `pixel`: the used pixels. `element`: for each parameter that of each of them. `sizes`: how many elements.
    - `cell`: the cell of each used pixel. `first`: a used pixel of each cell. `group`: the group of each cell.
    - `fixed`: the values at the used pixels of parameters that vary without being fitted.
    """

    pixel: np.ndarray
    element: dict[str, np.ndarray]
    sizes: dict[str, int]
    cell: np.ndarray
    first: np.ndarray
    group: np.ndarray
    fixed: dict[str, Any]

    def columns(self) -> np.ndarray:
        """(m, k): the used pixels of each cell, -1 where it has fewer than m."""
        counts = np.bincount(self.cell, minlength=len(self.first))
        order = np.argsort(self.cell, kind="stable")
        place = np.arange(len(order)) - np.repeat(np.cumsum(counts) - counts, counts)
        out = np.full((counts.max(initial=1), len(self.first)), -1)
        out[place, self.cell[order]] = order
        return out

    @property
    def alone(self) -> bool:
        """True where every cell has parameters of its own."""
        return all(size == len(self.first) for size in self.sizes.values())


def lay_out(
    free: Sequence[str],
    patches: Mapping[str, Where] | Where,
    used: np.ndarray,
    *,
    nest: bool = False,
    single: bool = False,
    fixed: Mapping[str, Any] | None = None,
) -> Cells:
    """Cells and groups for these free parameters.

    **Arguments:** `patches`: an nside or patch numbers for all parameters or by name, 0 (global) for those not named;
    a negative patch number masks a pixel. `used`: boolean, which pixels have data. `single`: every pixel is a cell.
    `fixed`: (pixel,) parameters that vary without being fitted; a cell has one value of each.

    **Raises:** `ValueError` for names that are not free, a wrong nside, or patches of another length.
    """
    made: dict[Any, np.ndarray] = {}  # most often all parameters have one place, and a sky is long
    ids = {}
    for name, where in by_parameter(free, patches).items():
        key = int(where) if np.ndim(where) == 0 else ("numbers", id(where))
        ids[name] = made[key] = made[key] if key in made else _numbers(name, where, len(used), nest)
    used = used & np.all([i >= 0 for i in ids.values()], axis=0)
    pixel = np.flatnonzero(used)
    found = {id(number): np.unique(number[pixel], return_inverse=True) for number in made.values()}
    index = {name: found[id(number)][1] for name, number in ids.items()}
    sizes = {name: len(found[id(number)][0]) for name, number in ids.items()}
    together = np.zeros(len(pixel), np.int64)
    for present, inside in found.values():
        _, together = np.unique(together * len(present) + inside, return_inverse=True)
    for name, values in (fixed or {}).items():
        _, together = np.unique(together * len(pixel) + kinds(name, values, pixel), return_inverse=True)
    known = {name: values[pixel] for name, values in (fixed or {}).items()}
    cell = np.arange(len(pixel)) if single else together
    first = np.unique(cell, return_index=True)[1]
    return Cells(pixel, index, sizes, cell, first, _groups(index, sizes, first), known)


def by_parameter(free: Sequence[str], patches: Any) -> dict[str, Any]:
    """What `patches` says of each free parameter: 0 of those that it does not name.

    **Raises:** `ValueError` for a name that is not free.
    """
    spec: Mapping[str, Any] = patches if isinstance(patches, Mapping) else dict.fromkeys(free, patches)
    for name in spec:
        if name not in free:
            raise ValueError(f"patches: no free parameter {name!r}{suggest(name, free)} (free: {', '.join(free)})")
    return {name: spec.get(name, 0) for name in free}


def _numbers(name: str, where: Any, npix: int, nest: bool) -> np.ndarray:
    if np.ndim(where) == 0:
        if where == 0:
            return np.zeros(npix, np.int64)
        return parents(nside_of(npix), int(where), nest)
    number = np.asarray(where)
    if number.shape != (npix,) or not np.issubdtype(number.dtype, np.integer):
        raise ValueError(
            f"patches of {name} should be {npix} integers, one for each pixel of the maps, "
            f"but they are {number.dtype}{list(number.shape)}"
        )
    return number


def _groups(index: Mapping[str, np.ndarray], sizes: Mapping[str, int], first: np.ndarray) -> np.ndarray:
    """Connected components of cells that share an element of any parameter."""
    if len(first) < 2 or not index:
        return np.zeros(len(first), np.int64)
    if all(size == len(first) for size in sizes.values()):
        return np.arange(len(first))
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    cells = np.arange(len(first))
    offset, rows, columns = len(first), [], []
    for name, inside in index.items():
        rows.append(cells)
        columns.append(offset + inside[first])
        offset += sizes[name]
    ends = np.concatenate(rows), np.concatenate(columns)
    links = coo_matrix((np.ones(len(ends[0])), ends), (offset, offset))
    return connected_components(links, directed=False)[1][: len(first)]
