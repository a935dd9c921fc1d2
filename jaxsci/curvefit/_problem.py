"""The arrays of one curve_fit call: checked, and made a model and a data set."""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.tree_util as jtu
import numpy as np

from ..core import AbstractNoise, Dataset, Dense, Diagonal, Poisson, White
from ._curve import closed, curve_class
from ._log import logged
from ._options import as_solver


@dataclasses.dataclass(frozen=True, eq=False)
class Choices:
    """All that a compiled program depends on beside the function, the loss and the shapes.

    Compared by identity, which costs nothing; `choose` gives the same object for the same choices.
    """

    title: str
    names: tuple[str, ...]
    solver: Any
    poisson: bool
    omit: bool
    max_steps: int


@functools.lru_cache(maxsize=512)
def choose(
    signature: tuple[str, tuple[str, ...]],
    solver: tuple[Any, float | None, float | None, int, Any],
    likelihood: str,
    nan_policy: str,
    max_nfev: int | None,
) -> Choices:
    """The Choices of a call. `solver`: method, ftol, xtol, verbose, callback.

    **Raises:** `ValueError` for an unknown word.
    """
    for name, value, known in (
        ("likelihood", likelihood, ("gaussian", "poisson")),
        ("nan_policy", nan_policy, ("raise", "omit")),
    ):
        if value not in known:
            raise ValueError(f"{name} should be {' or '.join(map(repr, known))}, but it is {value!r}")
    steps = 200 if max_nfev is None else max_nfev
    watched = logged(as_solver(*solver[:3]), *solver[3:])
    return Choices(*signature, watched, likelihood == "poisson", nan_policy == "omit", steps)


class Problem(NamedTuple):
    """The arrays of one call; `None` where there is nothing to pass."""

    x: Any
    y: Any
    sigma: Any
    start: Any
    lower: Any
    upper: Any
    absolute: Any


def as_rows(value: Any, name: str) -> Any:
    """Lists and the like made arrays; arrays and dictionaries of arrays as they are.

    **Raises:** `ValueError` for what holds no real numbers.
    """
    if value is None or isinstance(value, jax.Array):
        return value
    if isinstance(value, Mapping | eqx.Module):
        return jtu.tree_map(lambda leaf: as_rows(leaf, name), value)
    if isinstance(value, list | tuple) and any(isinstance(item, jax.Array) for item in value):
        return jnp.stack(list(value))
    array = np.asarray(value)
    if array.dtype.kind not in "fiub":
        raise ValueError(f"{name} should hold real numbers, but its dtype is {array.dtype}")
    return array


def as_vector(p0: Any) -> Any:
    """p0 as an array of shape (p,)."""
    array = as_rows(p0, "p0")
    return array.reshape(-1) if array.ndim == 0 else array


@functools.lru_cache(maxsize=2)
def as_flag(value: bool) -> jax.Array:
    """A truth value on the device."""
    with jax.ensure_compile_time_eval():
        return jnp.asarray(value)


def check_shapes(problem: Problem, names: Sequence[str]) -> None:
    """Hold all arrays to the length of ydata.

    **Raises:** `ValueError` with both shapes.
    """
    x, shape = problem.x, jnp.shape(problem.y)
    leaves = jtu.tree_leaves(x)
    beside = ", ".join(str(jnp.shape(leaf)) for leaf in leaves) or "nothing"
    if problem.y is None or len(shape) != 1:
        raise ValueError(f"ydata has shape {shape}, xdata has shape {beside}: ydata should have shape (n,); ravel it")
    if shape == (0,):
        raise ValueError("ydata is empty: there is nothing to fit")
    for leaf in leaves:
        ends = jnp.shape(leaf)[:1] + (jnp.shape(leaf)[-1:] if leaf is x else ())
        if shape[0] not in ends:
            raise ValueError(f"xdata has shape {jnp.shape(leaf)}, ydata has shape {shape}: rows must match")
    if not leaves:
        raise ValueError("xdata is empty: f needs to be told at how many points to predict")
    if problem.sigma is not None and jnp.shape(problem.sigma) not in ((), (1,), shape, shape * 2):
        raise ValueError(
            f"sigma has shape {jnp.shape(problem.sigma)}, ydata has shape {shape}: sigma should be a number, "
            f"one for each row, or a covariance of shape {shape * 2}"
        )
    if jnp.shape(problem.start) != (len(names),):
        raise ValueError(f"p0 has shape {jnp.shape(problem.start)}, but there are {len(names)} parameters")


def make_problem(call: Any, problem: Problem, choices: Choices) -> tuple[Any, Dataset]:
    """The model at its start, and the data set."""
    arrays = [jnp.asarray(leaf) for leaf in jtu.tree_leaves(problem[:3])]
    floats = [array.dtype for array in arrays if jnp.issubdtype(array.dtype, jnp.floating)]
    dtype = np.result_type(*floats) if floats else jnp.zeros(()).dtype

    def cast(leaf: Any) -> Any:
        array = jnp.asarray(leaf)
        return array if array.dtype == bool else array.astype(dtype)

    y, sigma, start = cast(problem.y), None if problem.sigma is None else cast(problem.sigma), cast(problem.start)
    x = jtu.tree_map(cast, problem.x)
    last = isinstance(x, jax.Array) and x.ndim > 1 and x.shape[-1] == y.shape[0]
    rows = jnp.moveaxis(x, -1, 0) if last else x
    mask = _finite_rows(rows, y, sigma) if choices.omit else None
    model = curve_class(choices.title, choices.names)(closed(call, x, *start), last, *start)
    return model, Dataset(rows, y, Poisson(y) if choices.poisson else _noise(sigma, y), mask)


def _noise(sigma: Any, y: Any) -> AbstractNoise | None:
    if sigma is None:
        return None
    if sigma.ndim == 2 and sigma.shape == y.shape * 2:
        return Dense(sigma)
    return Diagonal(sigma) if sigma.shape == y.shape else White(sigma.reshape(()))


def _finite_rows(x: Any, y: Any, sigma: Any) -> Any:
    """True in rows without any NaN or infinity; of a covariance, the diagonal counts."""
    mask = jnp.isfinite(y)
    for leaf in jtu.tree_leaves(x):
        mask &= jnp.all(jnp.isfinite(leaf).reshape(leaf.shape[0], -1), axis=1)
    if sigma is not None and sigma.shape == y.shape:
        mask &= jnp.isfinite(sigma)
    if sigma is not None and sigma.ndim == 2:
        mask &= jnp.isfinite(jnp.diagonal(sigma))
    return mask


def first_bad(problem: Problem, choices: Choices) -> None:
    """Look for what made a fit fail among the arrays of the call; NaNs of the data do not count if omitted.

    **Raises:** `ValueError` naming the array and its first bad index; nothing when all are fine.
    """
    data = {} if choices.omit else {"xdata": problem.x, "ydata": problem.y, "sigma": problem.sigma}
    for name, tree in {"p0": problem.start, **data}.items():
        advice = "start elsewhere" if name == "p0" else "nan_policy='omit' leaves such rows out"
        for path, leaf in jtu.tree_flatten_with_path(tree)[0]:
            array = np.asarray(leaf)
            _raise_at(name + jtu.keystr(path), array, ~np.isfinite(array), f"not finite; {advice}")
    if choices.poisson:
        counts = np.asarray(problem.y)
        _raise_at("ydata", counts, counts < 0, "negative, as counts cannot be")
    if problem.sigma is not None and np.ndim(problem.sigma) < 2:
        array = np.asarray(problem.sigma)
        _raise_at("sigma", array, array <= 0, "not positive, as standard deviations must be")


def _raise_at(name: str, array: np.ndarray, bad: np.ndarray | np.bool_, what: str) -> None:
    if bad.any():
        index = tuple(int(k) for k in np.argwhere(bad)[0])
        where = f"{name}[{', '.join(map(str, index))}]" if index else name
        raise ValueError(f"{where} is {array[index]}: {int(bad.sum())} of {array.size} values are {what}")
