"""Groups of connected cells as tables of equal shape, and the order in which elements lie within each other.

Cells that share an element of any parameter are fitted together. Groups differ in size, but one program fits them all:
each has as many places as the largest, and the places that it does not need have no data. Where every element of a
parameter lies within one of the next coarser, as in maps of several resolutions, the tables follow that tree, and the
normal equations need no dense matrix. `fit_sky` makes the tables.
"""

import itertools
import math
from typing import NamedTuple

import numpy as np

from .._patches import Cells
from .fits import owners

_STRIP = 512  # cells of a tree that are evaluated together
_WASTE = 4  # times as many places as cells: then elements of one level differ too much in what they hold


class Groups(NamedTuple):
    """Cells of g groups in h places each, -1 where there is none, and the elements of each parameter likewise.

    - `cells`: (g, h). `elements` by name: (g, w). `local` by name: (k,) for each cell the place of its element.
    - `names`: the parameters in the order of the fit; in a tree the finest first.
    - `shape`: of a tree: how many elements each group has of the coarsest, each of those of the next, ...; last, how
      many cells each finest element has. Elements of a parameter are in that order, and so are cells, whose places are
      a whole number of strips. Empty where there is no tree.
    """

    cells: np.ndarray
    elements: dict[str, np.ndarray]
    local: dict[str, np.ndarray]
    names: tuple[str, ...]
    shape: tuple[int, ...] = ()

    @staticmethod
    def of(cells: Cells) -> "Groups":
        """The tables of any groups."""
        count = int(cells.group.max(initial=-1)) + 1
        elements, local = {}, {}
        for name, owner in owners(cells).items():
            elements[name], rank = _rows(owner, count)
            local[name] = rank[cells.element[name][..., cells.first]]
        return Groups(_rows(cells.group, count)[0], elements, local, tuple(cells.element))

    @property
    def width(self) -> int:
        """Parameters of a group."""
        return sum(table.shape[1] for table in self.elements.values())

    def real(self) -> dict[str, np.ndarray]:
        """(g, w) by name: which places have an element."""
        return {name: self.elements[name] >= 0 for name in self.names}


def strip_of(shape: tuple[int, ...]) -> int:
    """How many cells of a tree of this shape are evaluated together."""
    return min(math.prod(shape), _STRIP)


def nested(cells: Cells, free: tuple[str, ...]) -> Groups | None:
    """Make the tables in the order of the tree; `None` where there is none, or one of mostly empty places."""
    index, share = cells.elements()
    if share:
        return None
    names = tuple(sorted(free, key=lambda name: -cells.sizes[name]))
    owners = {}
    for fine, coarse in itertools.pairwise((*names, "")):
        above = index[coarse] if coarse else cells.group
        owners[fine] = np.zeros(cells.sizes[fine], np.int64)
        owners[fine][index[fine]] = above
        if np.any(owners[fine][index[fine]] != above):
            return None
    groups = count = int(cells.group.max(initial=-1)) + 1
    shape: list[int] = []
    place, group = np.zeros(count, np.int64), np.arange(count)
    elements, local = {}, {}
    for name in reversed(names):
        place, group, wide = _placed(owners[name], place, group)
        shape.append(wide)
        elements[name] = _table(group, place, groups, math.prod(shape))
        local[name] = place[index[name]]
    place, group, wide = _placed(index[names[0]], place, group)
    shape.append(wide)
    lanes, strip = math.prod(shape), strip_of(tuple(shape))
    if groups * lanes > _WASTE * max(len(place), _STRIP):
        return None
    return Groups(_table(group, place, groups, -(-lanes // strip) * strip), elements, local, names, tuple(shape))


def _placed(owner: np.ndarray, place: np.ndarray, group: np.ndarray) -> tuple[np.ndarray, np.ndarray, int]:
    """(places in the tree of members of these owners, their groups, the most that any owner has)."""
    members, rank = _rows(owner, len(place))
    wide = members.shape[1]
    return place[owner] * wide + rank, group[owner], wide


def _table(group: np.ndarray, place: np.ndarray, groups: int, width: int) -> np.ndarray:
    out = np.full((groups, width), -1)
    out[group, place] = np.arange(len(place))
    return out


def _rows(owner: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """(the members of each owner, -1 beyond them; the place of each member there)."""
    sizes = np.bincount(owner, minlength=count)
    order = np.argsort(owner, kind="stable")
    rank = np.empty(len(owner), np.int64)
    rank[order] = np.arange(len(owner)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    out = np.full((count, sizes.max(initial=1)), -1)
    out[owner, rank] = np.arange(len(owner))
    return out, rank
