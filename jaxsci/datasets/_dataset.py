"""Data sets in memory: what was observed, at which inputs, with which noise, and which rows count.

`AbstractDataset` is all that a fit asks of data, so that a science can bring observations of its own form; `Dataset` is
the one that most people need. What is given is looked at on the host and brought to the device once: units and masks
are taken off, and rows that do not count get harmless values, so that no NaN of theirs can reach a gradient.
"""

import abc
import functools
from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.tree_util as jtu
import numpy as np
from jaxtyping import Array, ArrayLike, Bool, Float, PyTree

from ..core import (
    AbstractLikelihood,
    AnyArray,
    Flag,
    Inputs,
    Model,
    Module,
    Pad,
    Tree,
    Unit,
    as_array,
    as_rows,
    describe,
    filled,
    is_complex,
    is_list,
    is_traced,
    plain,
    row_pads,
    rows,
    rows_hidden,
    untraceable,
)


@runtime_checkable
class FreeModel(Protocol):
    """A model as a function of the flat vector y of its free parameters, as the objective of a fit is."""

    def model(self, y: Float[Array, " p"]) -> Any:
        """The model at y."""

    @property
    def places(self) -> Any:
        """The model with places in y for its free leaves, and None for all others."""


class AbstractDataset(Module):
    """What a fit needs of data: a noise, a mask (True = used) and residuals of a model."""

    noise: eqx.AbstractVar[AbstractLikelihood]
    mask: eqx.AbstractVar[Bool[Array, " n"]]

    @abc.abstractmethod
    def residual(self, model: Model) -> Float[Array, " n"]:
        """model - observed, in the data's unit."""

    @abc.abstractmethod
    def finite(self) -> Flag:
        """False when a number that the mask keeps is nan or infinite."""

    def sums(
        self, at: FreeModel, y: Float[Array, " p"], likelihood: AbstractLikelihood, derivatives: bool
    ) -> PyTree | None:
        """What `likelihood.sums` makes of the rows at y, by a shorter way than their Jacobian; `None` without one.

        `at` is the model as a function of y.
        """
        del at, y, likelihood, derivatives
        return None

    def jacobian(self, at: FreeModel, y: Float[Array, " p"]) -> tuple[Float[Array, " n"], Float[Array, "p n"]] | None:
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

    Rows that the mask of a `numpy.ma` array (or of an astropy Masked) hides, in `inputs` or `observed`, are not used.

    **Raises:** `ValueError` with both shapes where lengths differ; for complex observations, and for a Quantity,
    because a data set declares no unit to convert it to.
    """

    inputs: PyTree[Array] = rows("edge")
    observed: Float[Array, " n"] = rows(0.0)
    noise: AbstractLikelihood
    mask: Bool[Array, " n"] = rows(False)

    def __init__(self, inputs: Inputs, observed: object, noise: AbstractLikelihood | None = None, mask: object = None):
        columns, structure = _columns(inputs, "inputs", real=False)
        found, _ = _columns(list(observed) if isinstance(observed, tuple) else observed, "observed")
        if len(found) != 1:
            raise ValueError(f"observed should be one array of shape (n,), but it is {describe(observed)}")
        own = found[0]
        if noise is not None and not isinstance(noise, AbstractLikelihood):
            remedy = "the class itself: make one" if isinstance(noise, type) else describe(noise)
            raise ValueError(
                f"noise should be a noise such as jaxsci.White(sigma), or jaxsci.Diagonal(sigmas) with one standard "
                f"deviation a row, but it is {remedy}"
            )
        self.noise = Unit() if noise is None else noise
        shape = own.shape
        if len(shape) != 1:
            raise ValueError(
                f"observed has shape {shape}, but one number a row is needed, shape (n,): ravel it, or "
                "give many data sets to jaxsci.fit_batch"
            )
        for column in columns:
            if column.shape[:1] != shape:
                raise ValueError(f"{column.name} has shape {column.shape}, observed has shape {shape}: rows must match")
        for path, leaf in jtu.tree_flatten_with_path(self.noise)[0]:
            if jnp.shape(leaf)[:1] != shape and _is_row(self.noise, path):
                raise ValueError(
                    f"noise{jtu.keystr(path)} has shape {jnp.shape(leaf)}, observed has shape {shape}: rows must match"
                )
        used = _used(mask, [*columns, own], shape[0])
        values = [column.values for column in columns]
        if used is None:
            used = np.ones(shape, bool)
        else:
            xp: Any = np
            if not all(isinstance(x, np.ndarray) for x in (used, own.values, *values)):
                xp, values = jnp, [as_rows(x) for x in values]
            fine = [xp.isfinite(x).reshape(*shape, -1).all(axis=1) for x in values]
            first = xp.argmax(functools.reduce(xp.logical_and, fine, used))  # what stands in for unused rows
            values = [_fill(x, used, x[first]) for x in values]
            own = own._replace(values=_fill(own.values, used, 0))
            self.noise = _clean(self.noise, used)
        self.inputs = jtu.tree_unflatten(structure, [as_rows(x) for x in values])
        self.observed, self.mask = as_rows(own.values), as_rows(used)

    def residual(self, model: Model) -> Float[Array, " n"]:
        predicted = predict(model, self.inputs)
        if jnp.shape(predicted) != self.observed.shape:
            raise ValueError(
                f"{type(model).__name__}(inputs) has shape {jnp.shape(predicted)}, "
                f"observed has shape {self.observed.shape}: a model returns one number a row"
            )
        return predicted - self.observed

    def finite(self) -> Flag:
        leaves = [self.observed, *jtu.tree_leaves(self.inputs)]
        return jnp.all(jnp.stack([_finite_rows(leaf, self.mask) for leaf in leaves]))


def _finite_rows(leaf: Array, mask: Array) -> Array:
    fine = jnp.isfinite(leaf) | ~mask.reshape(mask.shape + (1,) * (leaf.ndim - 1))
    return jnp.all(fine)


def _is_row(module: AbstractLikelihood, path: tuple[Any, ...]) -> bool:
    pads = dict(jtu.tree_flatten_with_path(row_pads(module), is_leaf=lambda x: x is None)[0])
    return pads.get(path) is not None


_STATIC = "; what is no parameter may be a field declared by equinox.field(static=True)"


def predict(model: Model, inputs: Inputs) -> Array:
    """model(inputs), one array of real numbers.

    **Raises:** `TypeError` where the model does to traced values what only Python or NumPy can do; `ValueError` for
    what is no array of real numbers.
    """
    name = type(model).__name__
    try:
        predicted = model(inputs)
    except TypeError as error:
        better = untraceable(error, f"{name}(inputs)", _STATIC)
        if better is error:
            raise
        raise better from error
    if not isinstance(predicted, jax.Array | np.ndarray | np.generic | float | int):
        kind = "None" if predicted is None else type(predicted).__name__
        raise ValueError(
            f"{name}(inputs) returned {kind}, but a model returns one array, one number a row"
            + (" (is a return statement missing?)" if predicted is None else "")
        )
    if is_complex(predicted):
        raise ValueError(
            f"{name}(inputs) is complex, but a fit is of real numbers: return the modulus (jnp.abs), or the real and "
            "imaginary parts as rows of their own"
        )
    predicted = jnp.asarray(predicted)
    if predicted.ndim and not jnp.issubdtype(predicted.dtype, jnp.inexact):
        raise ValueError(
            f"{name}(inputs) has the dtype {predicted.dtype}, which has no derivative: return real numbers, without "
            "round, floor, astype(int) or a comparison as the last step"
        )
    return predicted


class _Column(NamedTuple):
    """One array as it was given, on the host where it was there: on the device each small step is a program."""

    name: str
    values: Any
    hidden: Any

    @property
    def shape(self) -> tuple[int, ...]:
        return jnp.shape(self.values)


def _columns(tree: Tree, name: str, real: bool = True) -> tuple[list[_Column], Any]:
    """The arrays of a tree without their units and masks, and its structure; a list is one array."""
    leaves, structure = jtu.tree_flatten_with_path(tree, is_leaf=is_list)
    columns = []
    for path, leaf in leaves:
        where = name + jtu.keystr(path)
        values, hidden = plain(leaf, where, real=real)
        if not isinstance(values, np.ndarray):
            values = as_rows(values)
        if not isinstance(values, jax.Array) and getattr(values, "dtype", np.dtype(object)).kind not in "biufc":
            raise ValueError(f"{where} should be an array of numbers, but it is {describe(values)}")
        columns.append(_Column(where, values, hidden))
    return columns, structure


def _used(mask: object, columns: Sequence[_Column], length: int) -> Any:
    """The mask (True = used) less what the arrays' own masks hide; `None` where all rows are used."""
    hidden = [rows_hidden(column.hidden, length) for column in columns if column.hidden is not None]
    if mask is not None:
        values = filled(plain(mask, "mask"))
        mask = values if isinstance(values, np.ndarray) else as_array(values)
        if mask.shape != (length,) or mask.dtype != bool:
            raise ValueError(
                f"mask should be bool{[length]} like observed (True = used), but it is {describe(as_array(mask))}"
            )
    if not hidden:
        return mask
    shown = ~functools.reduce(np.logical_or, hidden)
    return shown if mask is None else mask & shown


def _fill(leaf: AnyArray, mask: AnyArray, value: ArrayLike) -> Any:
    """The value in place of the rows that are not used; on the host where both are there."""
    xp: Any = np if isinstance(mask, np.ndarray) and isinstance(leaf, np.ndarray) else jnp
    return xp.where(mask.reshape(mask.shape + (1,) * (leaf.ndim - 1)), leaf, value)


def _clean(noise: AbstractLikelihood, mask: AnyArray) -> Any:
    """Rows that are not used get harmless noise, so that no NaN of theirs can reach a gradient."""

    def clean(pad: Pad | None, leaf: Any) -> Any:
        if pad is None or isinstance(pad, str):
            return leaf
        near = isinstance(mask, np.ndarray) and not is_traced(leaf)
        return as_array(_fill(np.asarray(leaf) if near else leaf, mask, pad))

    return jtu.tree_map(clean, row_pads(noise), noise, is_leaf=lambda p: p is None)
