"""Where the rows of a StreamedDataset come from: files and iterators as NumPy blocks of one size.

Everything here runs on the host while a compiled fit waits, so nothing in it computes with JAX, which might wait for
the same thread. Rows are read, never held: a memory map is told to drop its pages after each block. Only
`StreamedDataset` calls this.
"""

import mmap
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from types import TracebackType
from typing import Any, NamedTuple

import jax
import jax.tree_util as jtu
import numpy as np

from ..core import plain, row_pads, rows_hidden, split_rows
from ._dataset import AbstractDataset


class Column(NamedTuple):
    """One array of a data set: its name, what a row looks like, and what rows that do not count hold."""

    name: str
    shape: tuple[int, ...]
    dtype: Any
    pad: Any


def columns_of(like: AbstractDataset) -> list[Column]:
    """The Columns of a data set, in the order of its leaves."""
    pads = jtu.tree_leaves(row_pads(like))
    leaves = jtu.tree_flatten_with_path(split_rows(like)[0])[0]
    return [
        Column(jtu.keystr(path).removeprefix("."), leaf.shape[1:], leaf.dtype, pad)
        for (path, leaf), pad in zip(leaves, pads, strict=True)
    ]


def mask_place(columns: Sequence[Column]) -> int:
    """Which column is the mask."""
    return [column.name for column in columns].index("mask")


def without_masks(parts: Sequence[Any], columns: Sequence[Column]) -> list[np.ndarray]:
    """Rows as plain arrays, one a column: what masks of their own hide counts as masked, as in a Dataset."""
    given = [plain(part, column.name, real=False) for part, column in zip(parts, columns, strict=True)]
    values = [np.asarray(each.values) for each in given]
    at = mask_place(columns)
    for each in given:
        if each.hidden is not None:
            values[at] = values[at] & ~rows_hidden(each.hidden, len(values[at]))
    return values


def used_row(arrays: list[np.ndarray], mask: int) -> list[np.ndarray] | None:
    """The first row that array `mask` uses."""
    at = np.flatnonzero(arrays[mask])
    return [np.array(array[at[0]]) for array in arrays] if len(at) else None


class AllTrue:
    """A mask that uses every row, without holding it."""

    dtype = np.dtype(bool)

    def __init__(self, length: int):
        self.shape = (length,)

    def __getitem__(self, rows: slice | int) -> Any:
        return np.ones(len(range(*rows.indices(self.shape[0]))), bool) if isinstance(rows, slice) else np.True_


class ArrayRows:
    """Rows of arrays that slice: memory maps, datasets of HDF5, NumPy arrays.

    `columns`: what they are; given where arrays may have masks of their own, which then count in the data set's mask.
    """

    def __init__(self, arrays: list[Any], columns: Sequence[Column] = ()):
        self.arrays, self.columns = arrays, columns
        self.maps = [m for m in map(_memory_map, arrays) if m is not None]

    def take(self, start: int, stop: int) -> list[Any]:
        """The rows from `start` to `stop`, one array a column."""
        parts = [array[start:stop] for array in self.arrays]
        return without_masks(parts, self.columns) if self.columns else parts

    def first_used(self, mask: int, block: int) -> list[np.ndarray] | None:
        """The first row that array `mask` uses."""
        for start in range(0, self.arrays[mask].shape[0], block):
            used = used_row(self.take(start, start + block), mask)
            if used is not None:
                return used
        return None

    def release(self) -> None:
        """Unmap what has been read: otherwise the whole file ends up counted as memory of this process."""
        for pages in self.maps:
            pages.madvise(mmap.MADV_DONTNEED)


def _memory_map(array: object) -> mmap.mmap | None:
    """The pages behind an array, where dropping them loses nothing: not those of a copy-on-write map."""
    while isinstance(array, np.ndarray):
        if isinstance(array, np.memmap) and array.mode == "c":
            return None
        array = array.base
    droppable = isinstance(array, mmap.mmap) and getattr(mmap, "MADV_DONTNEED", None) is not None
    return array if droppable and isinstance(array, mmap.mmap) else None


class PieceRows:
    """Rows of pieces that an iterator gives, anew for every pass.

    `convert`: a piece -> its arrays, one a column. `length`, `used`: rows of the first pass, and the first that counts.
    """

    def __init__(
        self,
        make: Callable[[], Iterable[Any]],
        convert: Callable[[Any], list[np.ndarray]],
        length: int,
        used: list[np.ndarray] | None,
    ):
        self.make, self.convert, self.length, self.used = make, convert, length, used
        self.pieces: Iterator[list[np.ndarray]] = iter(())
        self.rest: list[np.ndarray] = []
        self.at = length  # the next row; at the end of a pass, so that the first one starts anew

    def take(self, start: int, stop: int) -> list[Any]:
        """The rows from `start` to `stop`, one array a column."""
        if start < self.at or start == 0:
            self.pieces, self.rest, self.at = map(self.convert, self.make()), [], 0
        parts = [rows for rows in self._pull(stop) if len(rows[0])]
        skip = start - self.at
        self.at = stop
        columns = [np.concatenate(column)[skip:] for column in zip(*parts, strict=True)]
        if stop == self.length:
            extra = len(self.rest[0]) + sum(len(piece[0]) for piece in self.pieces)
            if extra:
                raise _other_length(self.length + extra, self.length)
        return columns

    def first_used(self, mask: int, block: int) -> list[np.ndarray] | None:
        """The first row that counts, as seen in the first pass."""
        del mask, block
        return self.used

    def release(self) -> None:
        """Nothing to do: rows that were taken are no longer held."""

    def _pull(self, stop: int) -> Iterator[list[np.ndarray]]:
        """Pieces up to row `stop`, the last one cut there and its remainder kept."""
        have = self.at
        while True:
            if self.rest:
                cut = min(stop - have, len(self.rest[0]))
                yield [column[:cut] for column in self.rest]
                self.rest, have = [column[cut:] for column in self.rest], have + cut
            if have == stop:
                return
            piece = next(self.pieces, None)
            if piece is None:
                raise _other_length(have, self.length)
            self.rest = piece


def _other_length(now: int, before: int) -> ValueError:
    return ValueError(
        f"the iterator gave {now} rows in this pass but {before} in the first: "
        "make() must return the same rows each time"
    )


class Kept:
    """Keeps the exception that leaves its block, because XLA makes an error of its own of it."""

    error: BaseException | None = None

    def __enter__(self) -> None:
        self.error = None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.error = error


class Blocks:
    """Rows in blocks of one size: the last one padded, unused rows made harmless."""

    def __init__(self, rows: ArrayRows | PieceRows, columns: list[Column], length: int, block: int):
        self.rows, self.columns, self.length, self.block = rows, columns, length, block
        self.count = -(-length // block)
        self.mask = mask_place(columns)
        self.kept, self.lock = Kept(), threading.Lock()
        self.harmless = self._harmless()

    def read(self, i: int) -> list[np.ndarray]:
        """Block i; beyond the last, rows that do not count. Reading the next one ahead was tried: it does not pay."""
        with self.lock, self.kept:
            return self._assemble(i)

    def _assemble(self, i: int) -> list[np.ndarray]:
        start, stop = min(i * self.block, self.length), min((i + 1) * self.block, self.length)
        parts = self.rows.take(start, stop)
        unused = ~np.asarray(parts[self.mask])
        out = []
        for k, (column, part) in enumerate(zip(self.columns, parts, strict=True)):
            full = np.empty((self.block, *column.shape), column.dtype)
            full[: stop - start] = part
            full[stop - start :] = self.harmless[k]
            if unused.any():
                full[: stop - start][unused] = self.harmless[k]
            out.append(full)
        self.rows.release()
        return out

    def _harmless(self) -> list[Any]:
        """What rows that do not count hold: the inputs of the first one that does, where a model is finite."""
        used = self.rows.first_used(self.mask, self.block)
        if used is None:
            return [0 if column.pad == "edge" else column.pad for column in self.columns]
        return [row if column.pad == "edge" else column.pad for column, row in zip(self.columns, used, strict=True)]

    def blocks(self) -> Iterator[list[np.ndarray]]:
        """All blocks in order, outside of any fit."""
        return map(self._assemble, range(self.count))

    @property
    def anywhere(self) -> bool:
        """True where blocks can be read in any order."""
        return isinstance(self.rows, ArrayRows)

    def wait_for(self, program: Callable[[], Any]) -> Any:
        """The finished answer of a program that reads from here; what goes wrong here is raised as it is."""
        try:
            return jax.block_until_ready(program())
        except (jax.errors.JaxRuntimeError, ValueError):  # what XLA makes of it depends on the version
            if self.kept.error is None:
                raise
        raise self.kept.error
