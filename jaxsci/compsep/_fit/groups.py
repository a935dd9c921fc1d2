"""Groups of connected cells as tables of equal shape, and the order in which elements lie within each other."""

import itertools
import math
from typing import NamedTuple

import numpy as np

from .._patches import Cells

_BLOCK = 512  # cells that are evaluated together
_WASTE = 4  # times as many places as cells: then elements of one level differ too much in what they hold


class Layout(NamedTuple):
    """Cells of g groups in h places each, -1 where there is none; elements of each parameter likewise.

    `local`: for each parameter and cell the place of its element.
    """

    cells: np.ndarray
    elements: dict[str, np.ndarray]
    local: dict[str, np.ndarray]

    @staticmethod
    def of(cells: Cells) -> "Layout":
        """Any groups."""
        count = int(cells.group.max(initial=-1)) + 1
        elements, local = {}, {}
        for name, inside in cells.element.items():
            owner = np.zeros(cells.sizes[name], np.int64)
            owner[inside[..., cells.first]] = cells.group
            elements[name], rank = _rows(owner, count)
            local[name] = rank[inside[..., cells.first]]
        return Layout(_rows(cells.group, count)[0], elements, local)

    @property
    def width(self) -> int:
        """Parameters of a group."""
        return sum(table.shape[1] for table in self.elements.values())


class Tree(NamedTuple):
    """Parameters whose elements lie within each other, the finest first.

    - `shape`: how many elements each group has of the coarsest, each of those of the next, ...; last, how many cells
      each finest element has. Elements of a parameter are in the order of the tree, and so are cells.
    - `block`: cells that are evaluated together; a group has places for a whole number of blocks.
    """

    names: tuple[str, ...]
    shape: tuple[int, ...]
    block: int


def nested(cells: Cells, free: tuple[str, ...]) -> tuple[Layout, Tree] | None:
    """The tables in the order of the tree; `None` where there is none, or one of mostly empty places."""
    index, share = cells.places()
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
    lanes = math.prod(shape)
    block = min(lanes, _BLOCK)
    if groups * lanes > _WASTE * max(len(place), _BLOCK):
        return None
    tree = Tree(names, tuple(shape), block)
    return Layout(_table(group, place, groups, -(-lanes // block) * block), elements, local), tree


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
