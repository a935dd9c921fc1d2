"""Members of a batch as arrays: sequences, stacked Modules and flat rows with offsets made one thing.

A batch comes as a list of data sets of any lengths, as a stacked one, or as one long data set with offsets. `blocks`
makes Blocks of all of them: members of one structure and one padded length, whose arrays have one shape, so that one
compiled program serves them all. Everything here is NumPy on the host; `fit_batch` and `foresee` call it.
"""

import dataclasses
import functools
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import equinox as eqx
import jax.numpy as jnp
import jax.tree_util as jtu
import numpy as np
from jaxtyping import PyTree

from ..core import AnyArray, Model, Module, Pad, Tree, closed, is_number, opened, row_pads
from ._dataset import AbstractDataset
from ._pad import bucket, extended


class RaggedDataset(Module):
    """Many data sets of one structure as one: all rows end to end, and where each member begins.

    **Arguments:**

    - `rows`: a Dataset of all rows.
    - `offsets`: b + 1 increasing integers; member i has the rows offsets[i] to offsets[i + 1].
    """

    rows: Any
    offsets: Any = eqx.field(converter=np.asarray)

    def __check_init__(self) -> None:
        total, offsets = self.rows.mask.shape[0], self.offsets
        if offsets.ndim != 1 or offsets[0] != 0 or offsets[-1] != total or (np.diff(offsets) < 0).any():
            raise ValueError(f"offsets should rise from 0 to the number of rows, {total}, but they are {offsets}")


class Block(NamedTuple):
    """Members of one structure, whose arrays have one shape: what a compiled program takes.

    - `members`: their places in the batch. `models`, `data`: trees of NumPy arrays with a leading axis.
    - `length`: rows of each, padding included.
    """

    members: np.ndarray
    models: PyTree
    data: PyTree
    length: int


def blocks(models: Tree, datasets: Tree) -> Iterator[Block]:
    """The batch as Blocks.

    **Raises:** `ValueError` when there are as many models as data sets in no sense of the word.
    """
    models = list(map(closed, models)) if isinstance(models, Sequence) else closed(models)
    if isinstance(datasets, RaggedDataset):
        rows = closed(datasets.rows)
        if not _extends(rows):
            raise ValueError(
                f"{type(rows).__name__} does not declare its mask by jaxsci.rows(False), so that its rows cannot be "
                "told apart: give fit_batch a list of such data sets"
            )
        flat = _Rows(rows, datasets.offsets, row_pads(rows))
        yield from _split(np.arange(len(datasets.offsets) - 1), models, flat)
    elif isinstance(datasets, Sequence):
        yield from _of_sequence(models, list(map(closed, datasets)))
    else:
        datasets = closed(datasets)
        count = datasets.mask.shape[0] if datasets.mask.ndim > 1 else 1
        data = datasets if datasets.mask.ndim > 1 else jtu.tree_map(lambda x: x[None], datasets)
        members = np.arange(count)
        yield Block(members, _models(models, members, count), jtu.tree_map(np.asarray, data), data.mask.shape[1])


class _Rows(NamedTuple):
    dataset: Any  # row leaves end to end; other leaves shared, or with a leading axis where `stacked`
    offsets: np.ndarray
    pads: PyTree  # what pads each row leaf, None at the others
    stacked: bool = False


def _extends(dataset: AbstractDataset) -> bool:
    """True where unused rows may be appended: the mask is declared by `rows()`. Else outputs have a fixed length."""
    return any(field.name == "mask" and "rows" in field.metadata for field in dataclasses.fields(dataset))


def _pads(dataset: AbstractDataset) -> PyTree:
    """What pads the leaves of a data set; None at all of them where its outputs have a fixed length."""
    pads = row_pads(dataset)
    return pads if _extends(dataset) else jtu.tree_map(lambda _: None, pads)


def _of_sequence(models: Tree, datasets: Sequence[Any]) -> Iterator[Block]:
    """Group the members by structure; within a group, rows end to end."""
    groups: dict[Any, list[int]] = {}
    flat = [jtu.tree_flatten(dataset) for dataset in datasets]
    each = models if isinstance(models, Sequence) else None
    if each is not None and len(each) != len(datasets):
        raise ValueError(f"there are {len(each)} models but {len(datasets)} data sets")
    pads: dict[Any, list[Any]] = {}
    for i, (leaves, structure) in enumerate(flat):
        if structure not in pads:
            # a None that the data set itself holds is no leaf, and has none that pads it
            pads[structure] = structure.flatten_up_to(_pads(datasets[i]))  # type: ignore[attr-defined]
        shapes = tuple(_shape(leaf, pad) for leaf, pad in zip(leaves, pads[structure], strict=True))
        kind = None if each is None else _kind(each[i])
        groups.setdefault((structure, shapes, kind), []).append(i)
    for (structure, _, _), members in groups.items():
        columns = zip(*(flat[i][0] for i in members), strict=True)
        pad = pads[structure]
        lengths = [datasets[i].mask.shape[0] for i in members]
        leaves = [
            np.stack([np.asarray(x) for x in column])
            if p is None
            else np.concatenate([np.asarray(x) for x in column])
            if p != "identity"
            else list(column)
            for column, p in zip(columns, pad, strict=True)
        ]
        tree, padding = jtu.tree_unflatten(structure, leaves), jtu.tree_unflatten(structure, pad)
        rows = _Rows(tree, np.concatenate([[0], np.cumsum(lengths)]), padding, stacked=True)
        yield from _split(np.asarray(members), models, rows)


def _shape(leaf: AnyArray, pad: Pad | None) -> Any:
    return (leaf.shape[1:] if pad is not None and pad != "identity" else leaf.shape, str(leaf.dtype))


def _kind(model: Model) -> Any:
    leaves, structure = jtu.tree_flatten(model)
    return structure, tuple((jnp.shape(leaf), str(jnp.result_type(leaf))) for leaf in leaves)


def _split(members: np.ndarray, models: Tree, rows: _Rows) -> Iterator[Block]:
    """Blocks of one padded length each; outputs of fixed length get no padding."""
    lengths = np.diff(rows.offsets)
    fixed = not jtu.tree_leaves(rows.pads)
    padded = lengths if fixed else np.array([bucket(int(n)) for n in lengths], int)
    for length in np.unique(padded):
        here = np.flatnonzero(padded == length)
        data = _pad(rows, here, int(length))
        yield Block(members[here], _models(models, members[here], None), data, int(length))


def _pad(rows: _Rows, here: np.ndarray, length: int) -> PyTree:
    starts, ends = rows.offsets[here], rows.offsets[here + 1]
    index = starts[:, None] + np.arange(length)[None, :]
    inside = index < ends[:, None]
    last = np.maximum(ends - 1, np.minimum(starts, rows.offsets[-1] - 1))
    index = np.where(inside, index, last[:, None])

    def take(pad: Pad | None, leaf: AnyArray | list[AnyArray] | None) -> Any:
        if leaf is None:
            return None
        if pad is None:
            return leaf[here] if rows.stacked else np.broadcast_to(np.asarray(leaf), (len(here), *np.shape(leaf)))
        if isinstance(pad, str) and pad == "identity":
            return np.stack([_square(np.asarray(leaf[i]), length) for i in here])
        return extended(pad, np.asarray(leaf), index, inside)

    return jtu.tree_map(take, rows.pads, rows.dataset, is_leaf=_is_none)


def _is_none(node: object) -> bool:
    return node is None


def _square(matrix: np.ndarray, length: int) -> np.ndarray:
    rows, have = np.arange(length), len(matrix)
    return extended("identity", matrix, np.minimum(rows, have - 1), rows < have)


def _models(models: Tree, members: np.ndarray, count: int | None) -> PyTree:
    """The models of these members with a leading axis: of a sequence, a stacked Module, or one for all."""
    if isinstance(models, Sequence):
        if count is not None and len(models) != count:
            raise ValueError(f"there are {len(models)} models but {count} data sets")
        return jtu.tree_map(lambda *leaves: np.stack([np.asarray(x) for x in leaves]), *(models[i] for i in members))
    if is_stacked(opened(models)):
        return jtu.tree_map(lambda x: np.asarray(x)[members], models)
    return jtu.tree_map(lambda x: np.broadcast_to(np.asarray(x), (len(members), *np.shape(x))), models)


def is_stacked(module: Tree) -> bool:
    """True when the fields of a Module have more axes than it declares: a batch of them."""
    if any(jnp.ndim(leaf) == 0 for leaf in jtu.tree_leaves(module) if is_number(leaf)):
        return False
    parts = jtu.tree_leaves(_submodules(module), is_leaf=lambda x: isinstance(x, Module))
    for part in parts:
        try:
            part.__check_init__()
        except ValueError:
            return True
    return False


def _is_inner(top: object, node: object) -> bool:
    return node is not top and isinstance(node, Module)


def _submodules(module: Tree) -> list[Any]:
    found, stack = [], [module]
    while stack:
        node = stack.pop()
        if isinstance(node, Module):
            found.append(node)
        inner = functools.partial(_is_inner, node)
        stack += [child for child in jtu.tree_leaves(node, is_leaf=inner) if isinstance(child, Module)]
    return found
