"""The data of one `[[data]]` table: one data set, many from one file, or one that is read while it is fitted.

A table names a file and its columns, or has the numbers in itself. `build` calls `read_source`; the files are read by
`tables`.
"""

import dataclasses
import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import jax.tree_util as jtu
import numpy as np

from ...core import AnyArray, Diagonal, Inputs, Pad, Tree, White, as_float, row_pads
from ...datasets import AbstractDataset, Dataset, Sliced, StreamedDataset
from ...runs import Config, ConfigError, Registry, check_keys, construct, shown, take
from .tables import Table, is_nist, is_stack, read_nist, read_rows, read_stack, read_table

STREAM_ROWS = 65536
"""Rows of a streamed file in memory at a time, unless the config says otherwise."""

_SHOWN_ROWS = 2000

SIGMA = "sigma"
"""The column of standard deviations where a config names none."""


@dataclasses.dataclass(frozen=True)
class Reference:
    """Known answers to compare with: values, and standard errors where they are known."""

    values: Mapping[str, float]
    std: Mapping[str, float]


@dataclasses.dataclass(frozen=True)
class Part:
    """One data set of a source.

    - `suffix`: what tells it apart from the others, after the name of the table.
    - `sample`: what figures show: the data set itself, or some rows of a file that is larger than memory.
    """

    suffix: str
    data: AbstractDataset
    sample: Dataset


@dataclasses.dataclass(frozen=True)
class Source:
    """What a `[[data]]` table holds. `labels`: names of the inputs and of the observations, for figures.

    `image`: (height, width) where the rows are the pixels of one.
    """

    parts: tuple[Part, ...]
    labels: tuple[str, str]
    text: str
    starts: tuple[Mapping[str, Any], ...] = ({},)
    reference: Reference | None = None
    image: tuple[int, int] | None = None


def read_source(entry: dict[str, Any], where: str, config: Config, registry: Registry) -> Source:
    """Read the data that a table names.

    **Raises:** `ConfigError` naming table and key.
    """
    if "file" not in entry:
        return _inline(entry, where, registry)
    for key in ("x", "y", "sigma"):
        if key in entry:
            raise ConfigError(f"{where}.{key}", "the data come from a file already; name its columns in `columns`")
    name = take(entry, "file", str, where)
    path = config.resolve(name, f"{where}.file")
    if take(entry, "stream", (bool, int), where, False):
        return _streamed(entry, path, where, name, config)
    if is_stack(path, f"{where}.file"):
        return _stack(entry, path, where, name, registry)
    if not is_nist(path, f"{where}.file"):
        return _columns(entry, path, where, name, registry, config)
    if "columns" in entry:
        raise ConfigError(f"{where}.columns", "a NIST file (.dat) has no named columns")
    problem = read_nist(path, f"{where}.file")
    data = _dataset(list(problem.x), list(problem.y), None, entry, where, registry)
    reference = Reference(problem.values, problem.std)
    return Source(_one(data), (problem.predictor, problem.response), name, problem.starts, reference)


def _one(data: Dataset) -> tuple[Part, ...]:
    return (Part("", data, data),)


def _inline(entry: dict[str, Any], where: str, registry: Registry) -> Source:
    for key in ("x", "y"):
        if key not in entry:
            raise ConfigError(where, "it has no data: give a file, or lists x and y")
    for key in ("columns", "stream"):
        if key in entry:
            raise ConfigError(f"{where}.{key}", "it is about a file, but x and y are given here")
    x, y = take(entry, "x", list, where), take(entry, "y", list, where)
    sigma = take(entry, "sigma", (list, int, float), where)
    x = tuple(x) if x and all(isinstance(column, list) for column in x) else x
    return Source(_one(_dataset(x, y, sigma, entry, where, registry)), ("x", "y"), "inline")


@dataclasses.dataclass(frozen=True)
class _Names:
    """Which columns are which: `columns = { x = "time", y = "counts", sigma = "error", member = "curve" }`."""

    x: tuple[str, ...]
    single: bool
    y: str
    sigma: str | None
    member: str | None
    where: str

    @staticmethod
    def of(entry: dict[str, Any], where: str) -> "_Names":
        at = f"{where}.columns"
        columns = {key: str(value) if type(value) is int else value for key, value in _table(entry, where).items()}
        check_keys(columns, ("x", "y", "sigma", "member"), at)
        x = take(columns, "x", (str, list), at, "x")
        single = isinstance(x, str)
        names = (x,) if single else tuple(map(str, x))
        sigma, member = take(columns, "sigma", str, at), take(columns, "member", str, at)
        return _Names(names, single, take(columns, "y", str, at, "y"), sigma, member, at)

    def inputs(self, table: Table) -> Any:
        """The x column, or a tuple of them."""
        found = tuple(table.column(name, f"{self.where}.x") for name in self.x)
        return found[0] if self.single else found

    def observed(self, table: Table) -> Any:
        """The y column."""
        return table.column(self.y, f"{self.where}.y")

    def errors(self, table: Table) -> Any:
        """The column of standard deviations: the one that is named, else `sigma` where there is one."""
        name = SIGMA if self.sigma is None and SIGMA in table.columns else self.sigma
        return None if name is None else table.column(name, f"{self.where}.sigma")

    @property
    def labels(self) -> tuple[str, str]:
        """For the axes of a figure."""
        return ", ".join(self.x), self.y


def _table(entry: dict[str, Any], where: str) -> dict[str, Any]:
    return take(entry, "columns", dict, where, {})


def _columns(entry: dict[str, Any], path: Path, where: str, name: str, registry: Registry, config: Config) -> Source:
    """Columns of a table: one data set, or one for each value of the `member` column."""
    names = _Names.of(entry, where)
    texts = () if names.member is None else (names.member,)
    wanted = (*names.x, names.y, names.sigma or SIGMA, *texts)
    table = read_table(path, f"{where}.file", wanted, texts, config.within)
    inputs, observed, errors = (
        jtu.tree_map(_numbers(where), column)
        for column in (names.inputs(table), names.observed(table), names.errors(table))
    )
    data = _dataset(inputs, observed, errors, entry, where, registry)
    if names.member is None:
        return Source(_one(data), names.labels, name)
    keys = np.asarray(table.column(names.member, f"{where}.columns.member"))
    return Source(tuple(_split(data, keys, where)), names.labels, name)


def _numbers(where: str) -> Any:
    def convert(column: object) -> np.ndarray:
        array = np.asarray(column)
        if array.ndim != 1 or array.dtype.kind not in "fiub":
            raise ConfigError(
                f"{where}.columns", f"a column should hold numbers, but it is {array.dtype} {array.shape}"
            )
        return array.astype(np.result_type(array.dtype, np.float32) if array.dtype.kind == "f" else float)

    return convert


def _split(data: Dataset, keys: np.ndarray, where: str) -> list[Part]:
    """One data set for each key, in the order in which the keys first appear."""
    pads = row_pads(data)
    if "identity" in jtu.tree_leaves(pads):
        raise ConfigError(f"{where}.noise", "a dense covariance cannot be split among members: give each its own table")
    host = jax.device_get(data)
    found, first, inverse = np.unique(keys, return_index=True, return_inverse=True)

    def take_rows(pad: Pad | None, leaf: Tree, rows: np.ndarray) -> Any:
        return leaf if pad is None else leaf[rows]

    order, counts = np.argsort(inverse, kind="stable"), np.bincount(inverse)
    ends = np.cumsum(counts)
    out = []
    for k in np.argsort(first):
        rows = order[ends[k] - counts[k] : ends[k]]
        own = jtu.tree_map(functools.partial(take_rows, rows=rows), pads, host, is_leaf=_none)
        out.append(Part(f" {_key(found[k])}", own, own))
    return out


def _none(node: object) -> bool:
    return node is None


def _key(key: object) -> str:
    return f"{key:.12g}" if isinstance(key, np.floating) else str(key)


def _stack(entry: dict[str, Any], path: Path, where: str, name: str, registry: Registry) -> Source:
    """Arrays with one entry of the leading axis a member: images (members, height, width), or curves (members, n)."""
    names, table = _Names.of(entry, where), read_stack(path, f"{where}.file")
    if names.member is not None:
        raise ConfigError(f"{where}.columns.member", "a stack has a member for each entry of its leading axis")
    y, sigma = np.asarray(names.observed(table)), names.errors(table)
    if y.ndim not in (2, 3) or y.dtype.kind not in "fiu":
        raise ConfigError(
            f"{where}.file",
            f"{path.name} holds {y.dtype} of shape {y.shape}: a stack has numbers of shape (members, height, width) "
            "or (members, n); `stream = true` reads rows and columns",
        )
    image = (y.shape[1], y.shape[2]) if y.ndim == 3 else None
    flat = y.reshape(len(y), -1).astype(float)
    if image and "x" in _table(entry, where):
        raise ConfigError(f"{where}.columns.x", "the inputs of an image are the column and the row of each pixel")
    x = _pixels(*image) if image else _abscissa(names, table, flat, path, where)
    if sigma is not None and np.shape(sigma) != y.shape:
        raise ConfigError(f"{where}.columns.sigma", f"it has shape {np.shape(sigma)}, but y has shape {y.shape}")
    errors = None if sigma is None else np.asarray(sigma, float).reshape(flat.shape)

    def build(x: AnyArray, y: AnyArray, sigma: AnyArray | None) -> Dataset:
        return _dataset(x, y, sigma, entry, where, registry)

    axes = (0 if x.shape[:2] == flat.shape else None, 0, None if errors is None else 0)
    stacked = jax.device_get(jax.vmap(build, axes)(x, flat, errors))
    members = [jtu.tree_map(lambda leaf, i=i: leaf[i], stacked) for i in range(len(y))]
    parts = tuple(Part(f"[{i}]", data, data) for i, data in enumerate(members))
    labels = ("column", "row") if image else names.labels
    return Source(parts, labels, name, image=image)


def _pixels(height: int, width: int) -> np.ndarray:
    """(column, row) of each pixel, from 0, shape (height width, 2)."""
    rows, columns = np.indices((height, width), float)
    return np.stack([columns.ravel(), rows.ravel()], axis=1)


def _abscissa(names: _Names, table: Table, y: np.ndarray, path: Path, where: str) -> np.ndarray:
    if not names.single or names.x[0] not in table.columns:
        raise ConfigError(
            f"{where}.file", f"{path.name}: a stack of curves needs an array x, shape (n,) or (members, n)"
        )
    x = np.asarray(table.columns[names.x[0]], float)
    if x.shape not in (y.shape, y.shape[1:]):
        raise ConfigError(f"{where}.columns.x", f"x has shape {x.shape}, but y has shape {y.shape}")
    return x


def _streamed(entry: dict[str, Any], path: Path, where: str, name: str, config: Config) -> Source:
    """A file whose rows pass through memory a piece at a time."""
    for key in ("noise", "omit_nonfinite"):
        if key in entry:
            raise ConfigError(f"{where}.{key}", "streamed data take a column of sigma, or none, and no other noise")
    rows = take(entry, "stream", (bool, int), where)
    chunk = STREAM_ROWS if rows is True else rows
    if chunk < 1:
        raise ConfigError(f"{where}.stream", f"should be true, or the rows to read at a time, but it is {shown(rows)}")
    names, table = _Names.of(entry, where), read_rows(path, f"{where}.file", config.within)
    if names.member is not None:
        raise ConfigError(f"{where}.columns.member", "a streamed file is one data set")
    inputs, observed, errors = names.inputs(table), names.observed(table), names.errors(table)
    every = max(-(-len(observed) // _SHOWN_ROWS), 1)

    def some(column: Sliced) -> np.ndarray:
        return np.asarray(column[::every], float)

    try:
        data = StreamedDataset(inputs, observed, errors, chunk=chunk)
        sigma = None if errors is None else Diagonal(as_float(some(errors)))
        sample = Dataset(jtu.tree_map(some, inputs), some(observed), sigma)
    except (TypeError, ValueError) as error:
        raise ConfigError(where, str(error)) from error
    return Source((Part("", data, sample),), names.labels, name)


def _dataset(x: Inputs, y: object, sigma: object, entry: dict[str, Any], where: str, registry: Registry) -> Dataset:
    """The data with their noise: `sigma` (one number, or one a row), or a `noise` table, or neither."""
    if sigma is not None and "noise" in entry:
        raise ConfigError(f"{where}.noise", "the noise is given twice: by sigma, and here")
    try:
        if "noise" in entry:
            defaults = {"counts": y}  # Poisson's counts are the observations
            noise = construct(entry["noise"], "noises", registry, f"{where}.noise", defaults=defaults)
        else:
            noise = _gaussian(sigma)
        data = Dataset(x, y, noise)
        return data if not take(entry, "omit_nonfinite", bool, where, False) else _finite_rows(data)
    except ConfigError:
        raise
    except (TypeError, ValueError) as error:
        raise ConfigError(where, str(error)) from error


def _gaussian(sigma: object) -> White | Diagonal | None:
    if sigma is None:
        return None
    return White(as_float(sigma)) if isinstance(sigma, int | float) else Diagonal(as_float(sigma))


def _finite_rows(data: Dataset) -> Dataset:
    """The data with the rows masked where an input, the observation or a sigma is not finite."""
    rows = [*jtu.tree_leaves(data.inputs), data.observed]
    if isinstance(data.noise, Diagonal):
        rows.append(data.noise.sigma)
    finite = [jnp.isfinite(leaf).reshape(leaf.shape[0], -1).all(axis=1) for leaf in rows]
    return Dataset(data.inputs, data.observed, data.noise, jnp.all(jnp.stack(finite), axis=0))
