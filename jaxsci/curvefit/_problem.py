"""The arrays of one curve_fit call: checked, and made a model and a data set.

They are checked on the host as they were given, because each small step on the device would be a program; inside the
compiled fit they become a Module and a `Dataset` (`make_problem`). What a program depends on beside is a `Choices`.
`_curve_fit` calls all of this, and `_least_squares` what reads arrays.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.tree_util as jtu
import numpy as np
from jaxtyping import Array

from ..core import (
    AbstractNoise,
    AnyArray,
    Dense,
    Diagonal,
    Inputs,
    Poisson,
    White,
    is_complex,
    plain,
    rows_hidden,
    unmasked,
)
from ..datasets import Dataset, Seen, first_bad
from ..fitting import roots_of
from ._curve import Call, Signature, as_layout, curve_class
from ._log import Step, logged
from ._options import as_max_steps, as_solver
from ._typing import Method, Numbers


@dataclasses.dataclass(frozen=True, eq=False)
class Choices:
    """All that a compiled program depends on beside the function, the loss and the shapes.

    Compared by identity, which costs nothing; `choose` gives the same object for the same choices.

    - `own_jacobian`: whether the function answers its Jacobian too.
    - `watched`: whether the solver is a class of the user's, or holds functions of the user's.
    """

    title: str
    names: tuple[str, ...]
    solver: Any
    poisson: bool
    omit: bool
    max_steps: int
    own_jacobian: bool
    watched: bool


class Asked(NamedTuple):
    """How the search is asked for, in scipy's words: the arguments of `curve_fit` of these names."""

    method: Method
    ftol: float | None
    xtol: float | None
    verbose: int
    callback: Callable[[Step], Any] | None


@functools.lru_cache(maxsize=512)
def choose(
    signature: Signature,
    asked: Asked,
    likelihood: str,
    omit: bool,
    max_nfev: int | None,
    own_jacobian: bool,
) -> Choices:
    """Make the Choices of a call; the same object for the same choices, by which a compiled program is found again.

    **Arguments:** as those of `curve_fit` of these names; `omit`: whether rows that are not finite are left out;
    `own_jacobian`: whether the user gives the derivatives.

    **Raises:** `ValueError` for an unknown word.
    """
    if likelihood not in ("gaussian", "poisson"):
        raise ValueError(f"likelihood should be 'gaussian' or 'poisson', but it is {likelihood!r}")
    steps = as_max_steps(max_nfev)
    watched = logged(as_solver(asked.method, asked.ftol, asked.xtol), asked.verbose, asked.callback)
    poisson = likelihood == "poisson"
    return Choices(
        signature.title, signature.names, watched, poisson, omit, steps, own_jacobian, bool(roots_of(watched))
    )


class Problem(NamedTuple):
    """The arrays of one call; `None` where there is nothing to pass. `mask`: True = used, from masked arrays."""

    x: Any
    y: Any
    sigma: Any
    mask: Any
    start: Any
    lower: Any
    upper: Any
    absolute: Any


def as_rows(value: Numbers, name: str) -> Any:
    """Make arrays of lists and the like; arrays and dictionaries of arrays as they are, masked arrays lose their mask.

    **Raises:** `ValueError` for what holds no real numbers, and for quantities with a unit, which would be lost.
    """
    if value is None or (type(value) is np.ndarray and value.dtype.kind in "fiub"):
        return value
    if isinstance(value, Mapping | eqx.Module):
        return jtu.tree_map(lambda leaf: as_rows(leaf, name), value)
    if is_complex(value):
        raise ValueError(
            f"{name} should hold real numbers, but it is complex: give the real and the imaginary parts as rows of "
            "their own, or the modulus"
        )
    values = plain(value, name).values
    if isinstance(values, jax.Array):
        return values
    if isinstance(values, list | tuple) and any(isinstance(item, jax.Array) for item in values):
        return jnp.stack(list(values))
    array = np.asarray(values)
    if array.dtype.kind not in "fiub":
        raise ValueError(f"{name} should hold real numbers, but its dtype is {array.dtype}")
    return array


def masked_rows(count: int, *values: Inputs) -> Any:
    """Find the rows to use (True) where any of the values is a masked array; `None` where none is.

    A row is left out where anything of it is masked; of a covariance, the diagonal counts.
    """
    used = None
    for value in values:
        for leaf in value.values() if isinstance(value, Mapping) else (value,):
            hidden = None if leaf is None else plain(leaf, "").hidden
            if hidden is not None:
                hidden = np.diagonal(hidden) if hidden.shape == (count, count) else as_layout(hidden, count)[0]
                fine = ~rows_hidden(hidden, count)
                used = fine if used is None else used & fine
    return used


def as_vector(p0: Numbers, name: str = "p0") -> Any:
    """Make an array of shape (p,) of a start.

    **Raises:** `ValueError` as `as_rows`, and for masked elements.
    """
    if isinstance(p0, list | tuple) and all(type(number) in (float, int) for number in p0):
        return np.asarray(p0)
    array = as_rows(unmasked(p0, name), name)
    return array.reshape(-1) if array.ndim == 0 else array


def as_many(y: AnyArray | None, x: Inputs) -> Any:
    """Repeat y for each row of x where it is a single number."""
    if y is None or y.ndim:
        return y
    shapes = [leaf.shape for leaf in jtu.tree_leaves(x)]
    last = -1 if isinstance(x, jax.Array | np.ndarray) else 0
    count = shapes[0][last] if shapes and shapes[0] else 1
    return (jnp if isinstance(y, jax.Array) else np).broadcast_to(y, (count,))


@functools.lru_cache(maxsize=2)
def as_flag(value: bool) -> jax.Array:
    """Give a truth value on the device, made once."""
    with jax.ensure_compile_time_eval():
        return jnp.asarray(value)


def check_shapes(problem: Problem, names: Sequence[str]) -> None:
    """Hold all arrays to the length of ydata.

    **Raises:** `ValueError` with both shapes.
    """
    x, shape = problem.x, () if problem.y is None else jnp.shape(problem.y)
    leaves = jtu.tree_leaves(x)
    beside = ", ".join(str(jnp.shape(leaf)) for leaf in leaves) or "nothing"
    if problem.y is None:
        raise ValueError(f"ydata is None, xdata has shape {beside}: give one number a row")
    if len(shape) != 1:
        raise ValueError(f"ydata has shape {shape}, xdata has shape {beside}: ydata should have shape (n,); ravel it")
    if shape == (0,):
        raise ValueError("ydata is empty: there is nothing to fit")
    as_layout(x, shape[0])
    if problem.sigma is not None and jnp.shape(problem.sigma) not in ((), (1,), shape, shape * 2):
        raise ValueError(
            f"sigma has shape {jnp.shape(problem.sigma)}, ydata has shape {shape}: sigma should be a number, "
            f"one for each row, or a covariance of shape {shape * 2}"
        )
    if jnp.shape(problem.start) != (len(names),):
        raise ValueError(f"p0 has shape {jnp.shape(problem.start)}, but there are {len(names)} parameters")


def common_dtype(problem: Problem) -> Any:
    """Find the dtype in which a fit is made: that of the floats among x, y and sigma."""
    config: Any = jax.config
    leaves = jtu.tree_leaves((problem.x, problem.y, problem.sigma))
    return _common(tuple([leaf.dtype for leaf in leaves]), config.jax_enable_x64)


@functools.lru_cache(maxsize=256)
def _common(dtypes: tuple[Any, ...], x64: bool) -> Any:
    """`x64`: whether double precision is on, on which the canonical dtypes depend."""
    canonical = [jax.dtypes.canonicalize_dtype(dtype) for dtype in dtypes]
    floats = [dtype for dtype in canonical if jnp.issubdtype(dtype, jnp.floating)]
    return np.result_type(*floats) if floats else jax.dtypes.canonicalize_dtype(float)


def example(problem: Problem) -> tuple[Any, ...]:
    """Say what the function is called with in a fit, as shapes and dtypes."""
    leaves, tree = jtu.tree_flatten(problem.x)
    shapes = tuple([leaf.shape for leaf in leaves]), tuple([leaf.dtype == bool for leaf in leaves])
    return _example(tree, *shapes, common_dtype(problem), problem.start.shape[0])


@functools.lru_cache(maxsize=512)
def _example(
    tree: jtu.PyTreeDef, shapes: tuple[tuple[int, ...], ...], flags: tuple[bool, ...], dtype: np.dtype, count: int
) -> tuple[Any, ...]:
    kinds = [bool if flag else dtype for flag in flags]
    leaves = [jax.ShapeDtypeStruct(*pair) for pair in zip(shapes, kinds, strict=True)]
    x = jtu.tree_unflatten(tree, leaves)
    if len(leaves) == 1 and leaves[0].shape == () and jtu.treedef_is_leaf(tree):
        x = jax.ShapeDtypeStruct((1,), kinds[0])
    return x, *[jax.ShapeDtypeStruct((), dtype)] * count


def make_problem(call: Call, problem: Problem, choices: Choices) -> tuple[Any, Dataset]:
    """Make the model at its start, and the data set, of the arrays of a call; all in one dtype."""
    dtype = common_dtype(problem)

    def cast(leaf: AnyArray) -> Any:
        array = jnp.asarray(leaf)
        return array if array.dtype == bool else array.astype(dtype)

    y, sigma, start = cast(problem.y), None if problem.sigma is None else cast(problem.sigma), cast(problem.start)
    rows, layout = as_layout(jtu.tree_map(cast, problem.x), y.shape[0])
    rows = jtu.tree_map(cast, rows)
    mask = None if problem.mask is None else jnp.asarray(problem.mask)
    if choices.omit:
        mask = _both(mask, _finite_rows(rows, y, sigma))
    if sigma is not None and sigma.shape == y.shape:  # an infinite standard deviation: a row without weight
        mask = _both(mask, sigma != jnp.inf)
    model = curve_class(choices.title, choices.names)(call, layout, *start)
    return model, Dataset(rows, y, Poisson(y) if choices.poisson else _noise(sigma, y), mask)


def _both(mask: Array | None, other: Array) -> Array:
    return other if mask is None else mask & other


def _noise(sigma: Array | None, y: Array) -> AbstractNoise | None:
    if sigma is None:
        return None
    if sigma.ndim == 2 and sigma.shape == y.shape * 2:
        return Dense(sigma)
    return Diagonal(sigma) if sigma.shape == y.shape else White(sigma.reshape(()))


def _finite_rows(x: Inputs, y: Array, sigma: Array | None) -> Array:
    """True in rows without any NaN or infinity; of a covariance, the diagonal counts."""
    mask = jnp.isfinite(y)
    for leaf in jtu.tree_leaves(x):
        mask &= jnp.all(jnp.isfinite(leaf).reshape(leaf.shape[0], -1), axis=1)
    if sigma is not None and sigma.shape == y.shape:
        mask &= jnp.isfinite(sigma)
    if sigma is not None and sigma.ndim == 2:
        mask &= jnp.isfinite(jnp.diagonal(sigma))
    return mask


def refuse_bad(problem: Problem, choices: Choices) -> None:
    """Look for what made a fit fail among the arrays of the call; NaNs of the data do not count if omitted.

    **Raises:** `ValueError` naming the array and its first bad index; nothing when all are fine.
    """
    used = np.array(True) if problem.mask is None else np.asarray(problem.mask)
    data = {} if choices.omit else {"xdata": problem.x, "ydata": problem.y, "sigma": problem.sigma}
    for name, tree in {"p0": problem.start, **data}.items():
        advice = "start elsewhere" if name == "p0" else "nan_policy='omit' leaves such rows out"
        for path, leaf in jtu.tree_flatten_with_path(tree)[0]:
            array = np.asarray(leaf)
            fine = np.isfinite(array)
            if name == "sigma" and array.shape == problem.y.shape:
                fine |= array == np.inf
            if name != "p0" and problem.mask is not None and array.shape[-1:] == used.shape:
                fine |= ~used
            _refuse(Seen(name + jtu.keystr(path), array, fine), f"not finite; {advice}")
    if choices.poisson:
        counts = np.asarray(problem.y)
        _refuse(Seen("ydata", counts, ~((counts < 0) & used)), "negative, as counts cannot be")
    if problem.sigma is not None and np.ndim(problem.sigma) < 2:
        array = np.asarray(problem.sigma)
        fine = ~((array <= 0) & (used | (array.ndim == 0)))
        _refuse(Seen("sigma", array, fine), "not positive, as standard deviations must be")


def _refuse(array: Seen, what: str) -> None:
    bad = first_bad([[array]])
    if bad is not None:
        raise ValueError(f"{bad}: {bad.amount} of {bad.total} values are {what}")
