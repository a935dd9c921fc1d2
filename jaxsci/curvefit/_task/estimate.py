"""Start values from the data: `start = "estimate"`.

All data sets of a table are estimated in one compiled program where they have one length, and in few where not; `build`
calls this before it checks the models.
"""

import functools
import inspect
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import jax.tree_util as jtu
import numpy as np
from jaxtyping import Array

from ...core import AbstractModel, put
from ...datasets import Dataset
from ...runs import ConfigError, Registry, construct, shown
from .._compile import compile_quickly
from .._starts import estimate

ESTIMATE = "estimate"


def estimated(spec: object, datasets: Sequence[Dataset], registry: Registry, where: str, start_at: str) -> list[Any]:
    """Build the model that `spec` describes once for each data set, with start values guessed from it.

    For models of the library, their sums and products. Values that `spec` gives win.

    **Raises:** `ConfigError` for a model whose start cannot be guessed.
    """
    model = construct(_filled(spec, registry, where), "models", registry, where)
    guess = functools.partial(_guess, model, _given(spec))
    groups: dict[Any, list[int]] = {}
    points = [_used(data) for data in datasets]
    if len({len(y) for _, y in points}) > 1:
        points = [_thinned(x, y) for x, y in points]
    for i, (x, y) in enumerate(points):
        groups.setdefault((x.shape, y.shape), []).append(i)
    models: list[Any] = [None] * len(datasets)
    for members in groups.values():
        x, y = (np.stack([points[i][k] for i in members]) for k in range(2))
        try:
            stacked = jax.device_get(compile_quickly(jax.vmap(guess), x, y)(x, y))
        except ConfigError:
            raise
        except (TypeError, ValueError, IndexError) as error:
            raise ConfigError(start_at, str(error)) from error
        for k, i in enumerate(members):
            models[i] = jtu.tree_map(lambda leaf, k=k: jnp.asarray(leaf[k]), stacked)
    return models


def _used(data: Dataset) -> tuple[np.ndarray, np.ndarray]:
    if isinstance(data.inputs, tuple):
        raise ConfigError("start", "of data with several columns of x nothing can be estimated: give `start = { ... }`")
    mask = np.asarray(data.mask)
    return np.asarray(data.inputs)[mask], np.asarray(data.observed)[mask]


def _thinned(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """As many rows as the next lower power of two: each length costs a compilation, and a guess needs no more."""
    count = 1 << (max(len(y), 1).bit_length() - 1)
    rows = np.round(np.linspace(0, len(y) - 1, count)).astype(int) if len(y) else slice(0)
    return x[rows], y[rows]


def _guess(model: AbstractModel, given: dict[str, Any], x: Array, y: Array) -> AbstractModel:
    return put(estimate(model, x, y), given)


def _filled(spec: object, registry: Registry, where: str) -> Any:
    """The table of a model with 1.0 for every argument that it leaves out, so that there is a model to estimate."""
    table = {"type": spec} if isinstance(spec, str) else spec
    if not isinstance(table, dict) or not isinstance(table.get("type"), str):
        raise ConfigError(where, f"should be a model: a name, or a table with a type; but it is {shown(spec)}")
    known = inspect.signature(registry["models"].find(table["type"], f"{where}.type")).parameters
    open_ended = any(p.kind is p.VAR_KEYWORD for p in known.values())
    out = {k: 1.0 for k, p in known.items() if p.default is p.empty and p.kind is not p.VAR_KEYWORD}
    for key, value in table.items():
        nested = open_ended and key != "type"
        out[key] = _filled(value, registry, f"{where}.{key}") if nested else value
    return out


def _given(spec: object, prefix: str = "") -> dict[str, Any]:
    """The values in the table of a model, by the names of its parameters."""
    out: dict[str, Any] = {}
    for key, value in spec.items() if isinstance(spec, dict) else ():
        if isinstance(value, dict):
            out |= _given(value, f"{prefix}{key}.")
        elif not isinstance(value, str):
            out[prefix + key] = value
    return out
