"""Data larger than memory: rows that the host reads a block at a time, from within the compiled fit.

A user gives a `StreamedDataset`; a compiled fit sees of it a `Stream`, which knows the form of the rows and a number to
ask for them by. So one program serves every stream of one form, and keeps no file open. The objective asks for block
after block in each evaluation, which costs what reading the rows costs and no memory beyond one block.
"""

import itertools
import weakref
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NoReturn, Protocol, TypeAlias, runtime_checkable

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.tree_util as jtu
import numpy as np
from jaxtyping import Array, Float, Int

from ..core import (
    AbstractLikelihood,
    AnyArray,
    Diagonal,
    Flag,
    Inputs,
    Model,
    Tree,
    White,
    as_array,
    is_list,
    plain,
    split_rows,
)
from ._dataset import AbstractDataset, Dataset
from ._source import AllTrue, ArrayRows, Blocks, Column, PieceRows, columns_of, mask_place, used_row, without_masks

_BLOCK = 131_072  # rows: a megabyte a column, beside which the call of the host costs little
_WHOLE = (
    "a StreamedDataset is never whole in memory. jaxsci.fit takes one, with TRF(), GaussNewton(), Adam() or a "
    "minimiser of optimistix; batches of data sets and other least-squares solvers need a jaxsci.Dataset"
)
Piece: TypeAlias = AbstractDataset | tuple[Tree, ...]
"""What an iterator gives: a data set of some rows, or (inputs, observed), with sigma, with a mask."""

_SOURCES: weakref.WeakValueDictionary[int, Blocks] = weakref.WeakValueDictionary()
_NUMBERS = itertools.count()


@runtime_checkable
class Sliced(Protocol):
    """Anything that slices to arrays of NumPy: a memory map, a data set of HDF5, an array."""

    @property
    def shape(self) -> tuple[int, ...]:
        """As of an array."""

    @property
    def dtype(self) -> Any:
        """As of an array."""

    def __getitem__(self, rows: Any, /) -> Any:
        """Rows."""


def _read(handle: AnyArray, i: AnyArray) -> tuple[np.ndarray, ...]:
    return tuple(_SOURCES[int(handle)].read(int(i)))


class AbstractStreamed(AbstractDataset):
    """A data set whose rows are never all at hand."""

    @property  # type: ignore[misc]
    def mask(self) -> NoReturn:  # type: ignore[override]
        """Raises: no array is as long as the data."""
        raise ValueError(_WHOLE)

    def residual(self, model: Model) -> Float[Array, " n"]:
        raise ValueError(_WHOLE)

    def finite(self) -> Flag:
        raise ValueError(_WHOLE)


class Stream(AbstractStreamed):
    """What a compiled fit knows of a `StreamedDataset`: the form of its rows, and where to ask for them.

    The program names the source by number, so that it serves every data set of this form and keeps none alive.

    - `like`: a data set without rows, which holds what all rows share.
    - `handle`: the number of the source. `index`: its blocks. `block`: rows in each.
    """

    like: AbstractDataset
    handle: Int[Array, ""]
    index: Int[Array, " k"]
    block: int = eqx.field(static=True)

    @property  # type: ignore[misc]
    def noise(self) -> AbstractLikelihood:  # type: ignore[override]
        """What the noise of all rows shares; it has no rows itself."""
        return self.like.noise

    def check(self, likelihood: AbstractLikelihood | None) -> None:
        """Raise `ValueError` for a likelihood that has rows of its own."""
        if likelihood is not None and jtu.tree_leaves(split_rows(likelihood)[0]):
            raise ValueError(
                f"likelihood={type(likelihood).__name__} has rows of its own, which would not be streamed: "
                "make it the noise of the Datasets of StreamedDataset.from_iterator"
            )

    def read(self, i: Int[Array, ""], likelihood: AbstractLikelihood | None) -> tuple[Any, Any]:
        """(rows of block i as a data set, the likelihood with what it holds of these rows)."""
        empty, shared = split_rows(self.like)
        leaves, structure = jtu.tree_flatten(empty)
        shapes = [jax.ShapeDtypeStruct((self.block, *leaf.shape[1:]), leaf.dtype) for leaf in leaves]
        rows = jax.pure_callback(_read, shapes, self.handle, i, vmap_method="sequential")
        data = eqx.combine(jtu.tree_unflatten(structure, rows), shared)
        empty, shared = split_rows(likelihood)
        if not jtu.tree_leaves(empty):
            return data, likelihood
        rows = jtu.tree_leaves(split_rows(data.noise)[0])
        return data, eqx.combine(jtu.tree_unflatten(jtu.tree_structure(empty), rows), shared)


class StreamedDataset(AbstractStreamed):
    """Observations that do not fit in memory, read a block of rows at a time in every pass of a fit.

    `jaxsci.fit` gives the answer that it gives for a `Dataset` of the same rows. Arrays are anything
    with a `shape` and a `dtype` that slice to NumPy rows: `numpy.load(path, mmap_mode="r")`, a
    dataset of h5py.

    **Arguments:**

    - `inputs`: any pytree of arrays with the same leading axis n.
    - `observed`: shape (n,).
    - `sigma`: standard deviation: one number, or shape (n,); `None` for equal weights of unknown scale.
    - `mask`: shape (n,), True = used; `None` uses every row. Masks of masked arrays count too, as in a Dataset.
    - `chunk`: rows read at a time.

    **Raises:** `ValueError` with both lengths where they differ.
    """

    stream: Stream
    source: Any = eqx.field(static=True)

    def __init__(self, inputs: Inputs, observed: Tree, sigma: Tree = None, mask: Tree = None, *, chunk: int = _BLOCK):
        if chunk < 1:
            raise ValueError(f"chunk should be a positive number of rows, but it is {chunk}")
        if isinstance(inputs, _Pieces):
            rows: Any = PieceRows(inputs.make, inputs.arrays, inputs.length, inputs.used)
            like, length = inputs.like, inputs.length
        else:
            arrays, like = _arrays(inputs, observed, sigma, mask), _without_rows(inputs, observed, sigma)
            columns = columns_of(like)
            rows, length = ArrayRows(arrays, columns), _length(columns, arrays)
        if like.noise.coupled:
            raise ValueError(f"{type(like.noise).__name__} couples all rows, which a stream never has at hand together")
        if length == 0:
            raise ValueError("the stream has no rows: there is nothing to fit")
        self.source = Blocks(rows, columns_of(like), length, min(chunk, length))
        number = next(_NUMBERS)
        _SOURCES[number] = self.source
        make: Any = Stream  # whose noise and mask a type checker takes for arguments
        self.stream = make(like, jnp.asarray(number), jnp.arange(self.source.count), self.source.block)

    @staticmethod
    def from_iterator(make: Callable[[], Iterable[Any]], *, chunk: int = _BLOCK) -> "StreamedDataset":
        """Rows that come in pieces of any length, anew in every pass.

        **Arguments:**

        - `make`: called without arguments at the start of every pass, and once here to count; returns an
          iterator of pieces: tuples of NumPy arrays `(inputs, observed)`, `(inputs, observed, sigma)` or
          `(inputs, observed, sigma, mask)`, or Datasets of one structure.
        - `chunk`: rows at a time, whatever the length of the pieces.

        **Raises:** `ValueError` for pieces that differ in form; what `make` raises, as it is. A fit
        raises `ValueError` when a later pass has another number of rows.
        """
        return StreamedDataset(_Pieces(make), None, chunk=chunk)

    def __len__(self) -> int:
        return self.source.length

    def pieces(self) -> Iterator[AbstractDataset]:
        """All rows, block after block, as data sets in memory; rows that fill up the last one are masked."""
        empty, shared = split_rows(self.stream.like)
        structure = jtu.tree_structure(empty)
        for block in self.source.blocks():
            yield eqx.combine(jtu.tree_unflatten(structure, map(jnp.asarray, block)), shared)

    @property  # type: ignore[misc]
    def noise(self) -> AbstractLikelihood:  # type: ignore[override]
        """What the noise of all rows shares; it has no rows itself."""
        return self.stream.noise


def _leaves(tree: Tree, name: str) -> dict[str, Any]:
    """The arrays of a tree by name; a list is one array, as in a Dataset.

    **Raises:** `ValueError` for an array with a unit, which no data set declares.
    """
    leaves = {}
    for path, leaf in jtu.tree_flatten_with_path(tree, is_leaf=is_list)[0]:
        where = name + jtu.keystr(path)
        plain(leaf, where, real=False)
        leaves[where] = np.asarray(leaf) if isinstance(leaf, list | jax.Array) else leaf
    return leaves


def _arrays(inputs: Tree, observed: Tree, sigma: Tree, mask: Tree) -> list[Any]:
    """One array for each row leaf of a Dataset, in order."""
    rows = [*_leaves(inputs, "inputs").values(), *_leaves(observed, "observed").values()]
    if np.ndim(sigma) > 0:
        rows += _leaves(sigma, "sigma").values()
    return [*rows, AllTrue(rows[-1].shape[0]) if mask is None else _leaves(mask, "mask")["mask"]]


def _without_rows(inputs: Tree, observed: Tree, sigma: Tree) -> Dataset:
    """A Dataset of this form with no rows."""
    flat = [_no_rows(leaf) for leaf in _leaves(inputs, "inputs").values()]
    structure = jtu.tree_structure(inputs, is_leaf=is_list)
    if np.ndim(sigma) == 0:
        noise: Any = None if sigma is None else White(sigma)
    else:
        noise = Diagonal(as_array(_no_rows(_leaves(sigma, "sigma")["sigma"])))
    (observed,) = _leaves(observed, "observed").values()
    if len(observed.shape) != 1:
        raise ValueError(f"observed has shape {observed.shape}, but one number a row is needed, shape (n,)")
    return Dataset(jtu.tree_unflatten(structure, flat), _no_rows(observed), noise)


def _no_rows(array: Sliced) -> np.ndarray:
    return np.zeros((0, *np.shape(array)[1:]), array.dtype)


def _length(columns: list[Column], arrays: list[Any]) -> int:
    """The number of rows that all arrays have.

    **Raises:** `ValueError` naming two that differ, or an array whose rows are of another shape.
    """
    names = [column.name for column in columns]
    observed = arrays[names.index("observed")] if "observed" in names else arrays[0]
    for column, array in zip(columns, arrays, strict=True):
        if tuple(array.shape) != (observed.shape[0], *column.shape):
            raise ValueError(
                f"{column.name} has shape {tuple(array.shape)}, observed has shape {tuple(observed.shape)}: "
                f"{column.name} should be {(observed.shape[0], *column.shape)}"
            )
        if column.name == "mask" and array.dtype != bool:
            raise ValueError(f"mask should be bool (True = used), but it is {array.dtype}")
    return observed.shape[0]


class _Pieces:
    """The pieces of an iterator, looked through once for their form and number of rows."""

    length: int
    used: list[Any] | None  # the first row that counts

    def __init__(self, make: Callable[[], Iterable[Any]]):
        pieces = iter(make())
        first = next(pieces, None)
        if first is None:
            raise ValueError("the iterator gave no piece: there is nothing to fit")
        self.make = make
        self.form, self.shared, _ = _open(first)
        self.like = _like(first)
        self.columns = columns_of(self.like)
        self.length, self.used = 0, None
        for arrays in map(self.arrays, itertools.chain([first], pieces)):
            self.length += len(arrays[0])
            if self.used is None:
                self.used = used_row(arrays, mask_place(self.columns))

    def arrays(self, piece: Piece) -> list[np.ndarray]:
        """The arrays of a piece, which should be like the first one."""
        form, shared, arrays = _open(piece)
        if form != self.form:
            raise ValueError(f"the pieces of a stream should have one form, but {form} comes after {self.form}")
        for one, other in zip(shared, self.shared, strict=True):
            if not np.array_equal(one, other):
                raise ValueError(f"the pieces of a stream should share what is no row, but {one} comes after {other}")
        _length(self.columns, arrays)
        return without_masks(arrays, self.columns)


def _open(piece: Piece) -> tuple[Any, list[np.ndarray], list[np.ndarray]]:
    """(its structure, what its rows share, its arrays by row) of one piece."""
    if isinstance(piece, AbstractDataset):
        rows, shared = split_rows(piece)
        return jtu.tree_structure(piece), *([np.asarray(x) for x in jtu.tree_leaves(t)] for t in (shared, rows))
    inputs, observed, sigma, mask = (*piece, None, None)[:4]
    arrays = _arrays(inputs, observed, sigma, mask)
    form = (jtu.tree_structure(inputs, is_leaf=is_list), "no sigma" if sigma is None else f"sigma[{np.ndim(sigma)}]")
    return form, [] if np.ndim(sigma) else [np.asarray(sigma)], [array[:] for array in arrays]


def _like(piece: Piece) -> AbstractDataset:
    """A data set of a piece's form with no rows."""
    if not isinstance(piece, AbstractDataset):
        return _without_rows(*(*piece, None)[:3])
    rows, shared = split_rows(piece)
    return eqx.combine(jtu.tree_map(lambda x: x[:0], rows), shared)
