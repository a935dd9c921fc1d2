"""Where frames come from: an array, a data set of an HDF5 file, several files, or blocks that something produces.

All of them give blocks of consecutive frames on the host, read one ahead by a thread, so that memory holds two blocks
however many frames there are and the disk works while the processor does. `correlate` reads its frames through here.
"""

import contextlib
import os
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple, Protocol, TypeAlias, runtime_checkable

import jax
import numpy as np
from jaxtyping import Num

from ...datasets import find_item, names_in, open_hdf5

PLACE = "entry/data/data"
"""The data set of frames in a NeXus file."""

Block: TypeAlias = Num[np.ndarray, "b p"]
"""Frames on the host, each of them flat."""


@runtime_checkable
class Stored(Protocol):
    """Anything with a shape and a type that slices to NumPy arrays: an array, `numpy.memmap`, a data set of h5py."""

    @property
    def shape(self) -> tuple[int, ...]:
        """(frames, rows, columns), or (frames, pixels)."""

    @property
    def dtype(self) -> np.dtype:
        """Of a pixel."""

    def __getitem__(self, rows: slice) -> np.ndarray:
        """Some consecutive frames."""


FilePath: TypeAlias = str | os.PathLike[str]
GivenFrames: TypeAlias = Stored | FilePath | Sequence[FilePath] | Iterable[jax.Array | np.ndarray]
"""Frames as a user gives them."""


class Source(NamedTuple):
    """Frames that can be read in order: how many, of which type, and a function that gives blocks from a frame on.

    `shape`: of a frame: (rows, columns), or (pixels,). `again` is False where they come only once.
    """

    num_frames: int
    shape: tuple[int, ...]
    dtype: np.dtype
    blocks: "Blocks"
    again: bool

    @property
    def num_pixels(self) -> int:
        """Of a frame."""
        return int(np.prod(self.shape))


@runtime_checkable
class Blocks(Protocol):
    """Reads frames from `start` on, `length` at a time."""

    def __call__(self, start: int, length: int) -> Iterator[Block]:
        """Blocks in order, the last one shorter."""


@contextlib.contextmanager
def opened_frames(
    given: GivenFrames, dataset: str, num_frames: int | None, first: int, last: int | None
) -> Iterator[Source]:
    """The source of some frames; files stay open within the `with` block.

    **Raises:** `ValueError` naming the file and the data set that cannot be read, or what is not there.
    """
    with contextlib.ExitStack() as stack:
        if isinstance(given, str | os.PathLike):
            stored: list[Stored] = [_opened(stack, given, dataset)]
        elif isinstance(given, Sequence) and given and all(isinstance(x, str | os.PathLike) for x in given):
            stored = [_opened(stack, path, dataset) for path in given]
        elif isinstance(given, Iterable) and not _is_stored(given):
            yield _of_blocks(iter(given), num_frames, first, last)  # type: ignore[arg-type]
            return
        else:
            # slices of an array of JAX would be a program each
            stored = [np.asarray(given) if isinstance(given, jax.Array) else given]  # type: ignore[list-item]
        yield _of_stored(stored, first, last)


def _is_stored(given: object) -> bool:
    return isinstance(getattr(given, "shape", None), tuple)


def _of_stored(stored: list[Stored], first: int, last: int | None) -> Source:
    if len({x.shape[1:] for x in stored}) != 1 or not all(len(x.shape) in (2, 3) for x in stored):
        shapes = ", ".join(str(x.shape) for x in stored)
        raise ValueError(f"frames should be (frames, rows, columns), in all files alike, but they are {shapes}")
    ends = np.cumsum([x.shape[0] for x in stored]).tolist()
    stop = ends[-1] if last is None else last
    if not 0 <= first < stop <= ends[-1]:
        raise ValueError(f"frames {first} to {stop} of {ends[-1]}: give first and last within them")
    pixels = int(np.prod(stored[0].shape[1:]))

    def piece(a: int, b: int) -> Block:
        """Frames a to b, across files where the end of one lies between."""
        parts = []
        for x, end in zip(stored, ends):
            begin = end - x.shape[0]
            low, high = max(a, begin), min(b, end)
            if low < high:
                parts.append(_read(x, low - begin, high - begin).reshape(high - low, pixels))
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def blocks(start: int, length: int) -> Iterator[Block]:
        for a in range(first + start, stop, length):
            yield piece(a, min(a + length, stop))

    return Source(stop - first, tuple(stored[0].shape[1:]), np.dtype(stored[0].dtype), blocks, True)


def _of_blocks(
    pieces: Iterator[jax.Array | np.ndarray], num_frames: int | None, first: int, last: int | None
) -> Source:
    """Blocks that come once: they are cut anew, and their number has to be told because lags depend on it."""
    if num_frames is None:
        raise ValueError("blocks of frames do not say how many there will be: give num_frames=")
    if first or last is not None:
        raise ValueError("first and last are for frames that can be read anywhere; leave blocks out yourself")
    begin = np.asarray(next(pieces))
    pixels = int(np.prod(begin.shape[1:]))
    first_one = begin.reshape(-1, pixels)

    def blocks(start: int, length: int) -> Iterator[Block]:
        held, skip = first_one, start
        while True:
            skip, held = max(skip - len(held), 0), held[skip:]
            if skip == 0 and len(held) >= length:
                yield held[:length]
                held = held[length:]
                continue
            more = next(pieces, None)
            if more is None:
                break
            if np.shape(more)[1:] != begin.shape[1:]:
                raise ValueError(
                    f"a block of shape {np.shape(more)} after one of {begin.shape}: frames are alike in all blocks"
                )
            held = np.concatenate([held, np.asarray(more).reshape(-1, pixels)])
        if len(held):
            yield held

    return Source(num_frames, begin.shape[1:], begin.dtype, blocks, False)


def ahead(blocks: Iterator[Block]) -> Iterator[Block]:
    """The same blocks, each read by a thread while the one before it is worked on."""
    with ThreadPoolExecutor(1) as reader:
        coming = reader.submit(next, blocks, None)
        while (block := coming.result()) is not None:
            coming = reader.submit(next, blocks, None)
            yield block


def _opened(stack: contextlib.ExitStack, path: FilePath, dataset: str) -> Stored:
    import h5py  # here, because frames in memory need none

    try:
        file = stack.enter_context(open_hdf5(path))
        found = find_item(file, dataset)
    except (FileNotFoundError, ValueError) as error:
        raise ValueError(f"frames: {error}") from error
    if found is None:
        known = ", ".join(data_sets(file)) or "none"
        raise ValueError(f"frames: {path} has no data set {dataset!r}: give dataset=, it has {known}")
    if not isinstance(found, h5py.Dataset):
        raise ValueError(
            f"frames: {dataset!r} of {path} is a group: give dataset= of the frames in it, it has "
            f"{', '.join(data_sets(found)) or 'none'}"
        )
    return found  # type: ignore[no-any-return]


def data_sets(group: object, most: int = 12) -> list[str]:
    """The data sets below a group of an HDF5 file that may be frames, by their full names; all where none may be."""
    import h5py

    assert isinstance(group, h5py.Group)
    items = [group[name] for name in names_in(group)]
    found = {str(item.name): len(item.shape or ()) for item in items if isinstance(item, h5py.Dataset)}
    likely = [name for name, axes in found.items() if axes == 3] or list(found)
    return [*likely[:most], *(["..."] if len(likely) > most else [])]


def _read(stored: Stored, start: int, stop: int) -> np.ndarray:
    try:
        return np.asarray(stored[start:stop])
    except OSError as error:
        name, file = getattr(stored, "name", "frames"), getattr(getattr(stored, "file", None), "filename", "a file")
        raise ValueError(f"frames {start} to {stop} of {name} in {file} cannot be read: {error}") from error
