"""Data sets: what was observed, at which inputs, with which noise, and which rows count."""

import abc
import functools
from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import jax.tree_util as jtu
from jaxtyping import Array, Bool, Float, PyTree

from ._likelihood import AbstractLikelihood
from ._module import Module
from ._noise import Unit
from ._parameter import as_array
from ._rows import as_rows, row_pads, rows
from ._typing import Flag


class AbstractDataset(Module):
    """What a fit needs of data: a noise, a mask (True = used) and residuals of a model."""

    noise: eqx.AbstractVar[AbstractLikelihood]
    mask: eqx.AbstractVar[Bool[Array, " n"]]

    @abc.abstractmethod
    def residual(self, model: Any) -> Float[Array, " n"]:
        """model - observed, in the data's unit."""

    @abc.abstractmethod
    def finite(self) -> Flag:
        """False when a number that the mask keeps is nan or infinite."""

    def sums(self, at: Any, y: Float[Array, " p"], likelihood: AbstractLikelihood, derivatives: bool) -> PyTree | None:
        """What `likelihood.sums` makes of the rows at y, by a shorter way than their Jacobian; `None` without one.

        `at.model(y)` is the model, `at.places` its free leaves with their places in y for values.
        """
        del at, y, likelihood, derivatives
        return None

    def jacobian(self, at: Any, y: Float[Array, " p"]) -> tuple[Float[Array, " n"], Float[Array, "p n"]] | None:
        """(`residual` at y, its derivatives with y) by a shorter way than by one tangent each; `None` without one.

        `at` as in `sums`.
        """
        del at, y
        return None


class Dataset(AbstractDataset):
    """Observations y of a model at inputs x.

    **Arguments:**

    - `inputs`: any pytree of arrays with the same leading axis n; the model gets it as it is.
    - `observed`: shape (n,).
    - `noise`: `White`, `Diagonal`, `Dense`, `LowRank`, `Poisson`, ...; `None` for equal weights of
      unknown scale.
    - `mask`: shape (n,), True = used; `None` uses every row. What lies under a False may be NaN.

    **Raises:** `ValueError` with both shapes where lengths differ.
    """

    inputs: PyTree[Array] = rows("edge")
    observed: Float[Array, " n"] = rows(0.0)
    noise: AbstractLikelihood
    mask: Bool[Array, " n"] = rows(False)

    def __init__(self, inputs: Any, observed: Any, noise: AbstractLikelihood | None = None, mask: Any = None):
        self.inputs = as_rows(inputs)
        self.observed = as_rows(list(observed) if isinstance(observed, tuple) else observed)
        self.noise = Unit() if noise is None else noise
        shape = jnp.shape(self.observed)
        if len(shape) != 1:
            raise ValueError(f"observed has shape {shape}, but one number a row is needed, shape (n,): ravel it")
        for path, leaf in jtu.tree_flatten_with_path((self.inputs, self.noise))[0]:
            is_row = path[0].idx == 0 or _is_row(self.noise, path[1:])
            if is_row and jnp.shape(leaf)[:1] != shape:
                what = "inputs" + jtu.keystr(path[1:]) if path[0].idx == 0 else "noise" + jtu.keystr(path[1:])
                raise ValueError(f"{what} has shape {jnp.shape(leaf)}, observed has shape {shape}: rows must match")
        if mask is None:
            self.mask = jnp.ones(shape, bool)
        else:
            self.mask = as_array(mask)
            if self.mask.shape != shape or self.mask.dtype != bool:
                raise ValueError(
                    f"mask should be bool{list(shape)} like observed (True = used), "
                    f"but it is {self.mask.dtype}{list(self.mask.shape)}"
                )
            leaves = [jnp.isfinite(x).reshape(*shape, -1).all(axis=1) for x in jtu.tree_leaves(self.inputs)]
            first = jnp.argmax(functools.reduce(jnp.logical_and, leaves, self.mask))  # what stands in for unused rows
            self.observed = jnp.where(self.mask, self.observed, 0)
            self.inputs = jtu.tree_map(lambda x: _fill(x, self.mask, x[first]), self.inputs)
            self.noise = _clean(self.noise, self.mask)

    def residual(self, model: Any) -> Float[Array, " n"]:
        predicted = model(self.inputs)
        if jnp.shape(predicted) != self.observed.shape:
            raise ValueError(
                f"{type(model).__name__}(inputs) has shape {jnp.shape(predicted)}, "
                f"observed has shape {self.observed.shape}"
            )
        return predicted - self.observed

    def finite(self) -> Flag:
        leaves = [self.observed, *jtu.tree_leaves(self.inputs)]
        return jnp.all(jnp.stack([_finite_rows(leaf, self.mask) for leaf in leaves]))


def _finite_rows(leaf: Array, mask: Array) -> Array:
    fine = jnp.isfinite(leaf) | ~mask.reshape(mask.shape + (1,) * (leaf.ndim - 1))
    return jnp.all(fine)


def _is_row(module: Any, path: tuple[Any, ...]) -> bool:
    pads = dict(jtu.tree_flatten_with_path(row_pads(module), is_leaf=lambda x: x is None)[0])
    return pads.get(path) is not None


def _fill(leaf: Array, mask: Array, value: Any) -> Array:
    return jnp.where(mask.reshape(mask.shape + (1,) * (leaf.ndim - 1)), leaf, value)


def _clean(noise: Any, mask: Array) -> Any:
    """Rows that are not used get harmless noise, so that no NaN of theirs can reach a gradient."""

    def clean(pad: Any, leaf: Any) -> Any:
        return leaf if pad is None or isinstance(pad, str) else _fill(leaf, mask, pad)

    return jtu.tree_map(clean, row_pads(noise), noise, is_leaf=lambda p: p is None)


def pad(dataset: PyTree, length: int) -> PyTree:
    """The data set with unused rows appended up to `length` rows; a fit of it is the same fit.

    **Raises:** `ValueError` when it is longer already.
    """

    def extend(pad: Any, leaf: Any) -> Any:
        if pad is None:
            return leaf
        have = leaf.shape[0]
        if have > length:
            raise ValueError(f"the data set has {have} rows already; it cannot be padded to {length}")
        if pad == "identity":
            return jnp.eye(length, dtype=leaf.dtype).at[:have, :have].set(leaf)
        value = leaf[-1] if pad == "edge" else jnp.asarray(pad, leaf.dtype)
        return jnp.concatenate([leaf, jnp.broadcast_to(value, (length - have, *leaf.shape[1:]))])

    return jtu.tree_map(extend, row_pads(dataset), dataset, is_leaf=lambda p: p is None)


def stack(modules: Sequence[PyTree]) -> PyTree:
    """Modules of one structure as one Module whose arrays have a new leading axis: what `jax.vmap` maps.

    **Raises:** `ValueError` naming the first member that differs, and how.
    """
    members = list(modules)
    if not members:
        raise ValueError("there is nothing to stack: the list is empty")
    reference: Any
    structure: Any
    reference, structure = jtu.tree_flatten_with_path(members[0])
    columns = []
    for k, member in enumerate(members):
        leaves, other = jtu.tree_flatten(member)
        if other != structure:
            raise ValueError(
                f"member {k} ({type(member).__name__}) has another structure than member 0 "
                f"({type(members[0]).__name__}): only like Modules can be stacked"
            )
        for (path, a), b in zip(reference, leaves, strict=True):
            if jnp.shape(a) != jnp.shape(b):
                raise ValueError(
                    f"{jtu.keystr(path, simple=True, separator='.')} has shape {jnp.shape(b)} in member {k} "
                    f"and {jnp.shape(a)} in member 0; pad the data sets to one length first (jaxsci.pad)"
                )
        columns.append(leaves)
    return jtu.tree_unflatten(structure, [jnp.stack(column) for column in zip(*columns, strict=True)])


def bucket(length: int) -> int:
    """The padded length for a data set of `length` rows: the next power of two, at least 16.

    A function of nothing else, so that a member of a batch is padded, and hence rounded, the same
    whoever its neighbours are.
    """
    return max(16, 1 << max(length - 1, 0).bit_length())
