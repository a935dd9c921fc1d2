"""What a run is compared with: a solution by finite volumes, or densities and moments from a file.

Files are .npz or .csv, with times, cells and densities under the names that this science itself writes, so that what
one run wrote is the reference or the observation of another. A solution by finite volumes is computed twice, on cells
and steps of two sizes, so that its own error is known. `config` reads, `work` solves and compares.
"""

import dataclasses
import functools
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from ...datasets import read_arrays, read_text
from ...evolution import SDE, AbstractStart
from ...runs import CLASS_ERRORS, Config, ConfigError, check_keys, shown, take
from .._boundary import Grid, averaged
from .._finite_volume import DensityPath, solve_fokker_planck, tensor_of
from .._initial import density_on

_TIMES, _VALUES, _ERRORS = ("t", "ts"), ("density", "p", "m"), ("standard_error", "sigma")
_TABLE = ("file", "density", "mean", "variance")
_STEPS = 200  # of the coarser of two solutions
_SAME = 1e-6  # of the whole time, or of a cell: rounding of a file


class Stored(NamedTuple):
    """Densities of a file on the cells of a grid: ts (t,), values and error (t, *shape); `largest`: their own error."""

    ts: np.ndarray
    values: np.ndarray
    error: np.ndarray | None
    largest: float


@dataclasses.dataclass(frozen=True)
class Reference:
    """What is known of a run.

    - `ts`: (t,). `path`: densities at these times, `error` their own error in L1. `mean`, `variance`: (t,), of the
      first coordinate; `None` where they are not known.
    """

    name: str
    ts: np.ndarray
    path: DensityPath | None = None
    error: float = 0.0
    mean: np.ndarray | None = None
    variance: np.ndarray | None = None


@dataclasses.dataclass(frozen=True)
class SolvedReference:
    """A reference that is yet to be solved, by finite volumes at the times `ts`; runs of one problem share it."""

    sde: SDE
    start: AbstractStart
    grid: Grid
    ts: np.ndarray
    name: str = "finite volumes"

    @functools.cached_property
    def solved(self) -> Reference:
        """The solution on cells and steps of half the size: a third of what differs from the whole is its error."""
        substeps = -(-_STEPS // (self.ts.size - 1))
        fine = Grid(self.grid.box, [2 * n for n in self.grid.shape])
        rough, better = (self._path(grid, s) for grid, s in ((self.grid, substeps), (fine, 2 * substeps)))
        density = averaged(np.asarray(better.density), self.grid.shape)
        assert density is not None  # twice as many cells are a multiple
        apart = np.abs(density - np.asarray(rough.density)).reshape(self.ts.size, -1).sum(axis=1)
        error = float(apart.max() * np.asarray(self.grid.volume) / 3)
        path = DensityPath(better.ts, jnp.asarray(density), better.mass, better.exits, self.grid)
        return Reference(self.name, self.ts, path, error)

    def _path(self, grid: Grid, substeps: int) -> DensityPath:
        initial = density_on(self.start, grid)
        assert initial is not None  # the config was refused otherwise
        return solve_fokker_planck(
            self.sde.drift, tensor_of(self.sde.diffusion), initial, grid, self.ts, substeps=substeps
        )


def read_reference(config: Config, spec: object, where: str, grid: Grid, ts: np.ndarray) -> Reference:
    """Read what `reference` names: a file of densities, or a table with a file and the names of what to take from it.

    **Arguments:** `ts`: the times that are kept of the run.

    **Raises:** `ConfigError` for a file that fits neither the cells nor the times.
    """
    table = {"file": spec} if isinstance(spec, str) else spec
    if not isinstance(table, dict) or "file" not in table:
        raise ConfigError(where, f'should be "finite volume", a file, or a table with a file; but it is {shown(spec)}')
    check_keys(table, _TABLE, where)
    path = config.resolve(take(table, "file", str, where), f"{where}.file" if isinstance(spec, dict) else where)
    if "mean" in table or "variance" in table:
        found = _moments(path, table, where)
    else:
        read = read_densities(path, grid, where, take(table, "density", str, where))
        times, zeros = jnp.asarray(read.ts), jnp.zeros((read.ts.size, grid.box.d, 2))
        mass = jnp.asarray(read.values.reshape(read.ts.size, -1).sum(axis=1) * np.asarray(grid.volume))
        solved = DensityPath(times, jnp.asarray(read.values), mass, zeros, grid)
        found = Reference(path.name, read.ts, solved, read.largest * float(jnp.prod(grid.box.width)))
    if not common(found.ts, ts):
        raise ConfigError(
            where, f"{path.name} has the times {_few(found.ts)}, and none of them is kept: change time.keep or time.end"
        )
    return found


def common(known: np.ndarray, kept: np.ndarray) -> list[tuple[int, int]]:
    """Places (in `known`, in `kept`) of the times that two have in common."""
    near = _SAME * max(float(np.ptp(kept)), 1e-300)
    pairs = []
    for place, t in enumerate(kept):
        other = int(np.argmin(np.abs(known - t)))
        if abs(float(known[other] - t)) <= near:
            pairs.append((other, place))
    return pairs


def read_densities(path: Path, grid: Grid, where: str, key: str | None = None) -> Stored:
    """Read densities at some times on the cells of a grid, or on cells of which these are made up.

    **Raises:** `ConfigError` for names that are missing, and for cells that do not fit.
    """
    columns = _columns(path, where)
    times = next((columns[name] for name in _TIMES if name in columns), None)
    values = next((columns[name] for name in ((key,) if key else _VALUES) if name in columns), None)
    if times is None or values is None:
        raise ConfigError(
            where, f"{path.name} has {', '.join(columns)}; times are looked for as t, densities as "
            f"{key or 'density, p or m'}"
        )  # fmt: skip
    times = np.atleast_1d(np.asarray(times, float))
    if values.shape[0] != times.size or values.ndim != 1 + grid.box.d or not np.isfinite(values).all():
        raise ConfigError(
            where, f"{path.name} should have finite densities of shape (times, cells of each axis), but it has "
            f"{times.size} times and {values.shape}"
        )  # fmt: skip
    for axis, n in enumerate(values.shape[1:]):
        _check_places(path, columns.get("xyz"[axis]) if axis < 3 else None, (axis, n), grid, where)
    error = next((columns[name] for name in _ERRORS if name in columns), None)
    coarse = averaged(values, grid.shape)
    if coarse is None:
        each = " x ".join(map(str, values.shape[1:]))
        raise ConfigError(where, f"{path.name} has {each} cells, which are no multiple of box.cells: take {each}")
    if error is not None and error.shape != coarse.shape:
        error = None  # errors of means over more cells are not known
    largest = columns.get("err")
    return Stored(times, coarse, error, 0.0 if largest is None or largest.size != 1 else float(largest))


def _check_places(path: Path, x: np.ndarray | None, axis_n: tuple[int, int], grid: Grid, where: str) -> None:
    """The cells of a file along an axis should lie where those of the grid do."""
    axis, n = axis_n
    if x is None:
        return
    low, step = float(grid.box.lower[axis]), float(grid.box.width[axis]) / n
    # centres of cells, or the walls between them
    wanted = low + (np.arange(x.size) + (0.0 if x.size == n + 1 else 0.5)) * step
    if x.ndim != 1 or x.size not in (n, n + 1) or np.abs(wanted - x).max() > 1e-3 * step:
        name = "xyz"[axis]
        raise ConfigError(
            where, f"{path.name} has {name} at {_few(x.ravel())}, which are no {n} equal cells of the box: change box"
        )  # fmt: skip


def _columns(path: Path, where: str) -> dict[str, np.ndarray]:
    """The arrays of a file by name; a table of t, x and more becomes arrays over times and cells."""
    try:
        if path.suffix == ".npz":
            return {name: np.asarray(array, float) for name, array in read_arrays(path).items()}
        if path.suffix != ".csv":
            raise ConfigError(where, f"{path.name} should be an .npz or a .csv file")
        rows = np.genfromtxt(read_text(path).splitlines(), delimiter=",", names=True, comments="#")
    except (OSError, *CLASS_ERRORS) as error:
        if isinstance(error, ConfigError):
            raise
        raise ConfigError(where, f"{path.name} cannot be read: {' '.join(str(error).split())}") from error
    names = rows.dtype.names or ()
    if "t" not in names or "x" not in names:
        raise ConfigError(where, f"{path.name} should have columns t, x and density, but it has {', '.join(names)}")
    rows = np.atleast_1d(rows)  # a table of one row comes without an axis
    ts, x = np.unique(rows["t"]), np.unique(rows["x"])
    order = np.lexsort((rows["x"], rows["t"]))
    if rows.size != ts.size * x.size:
        raise ConfigError(where, f"{path.name} has {rows.size} rows, which are no {ts.size} times of {x.size} cells")
    arrays = {name: rows[name][order].reshape(ts.size, x.size) for name in names if name not in ("t", "x")}
    return {"t": ts, "x": x, **arrays}


def _moments(path: Path, table: Mapping[str, object], where: str) -> Reference:
    columns = _columns(path, where)
    for key in ("mean", "variance"):
        if key in table and table[key] not in columns:
            raise ConfigError(f"{where}.{key}", f"{path.name} has no {table[key]!r}, but {', '.join(columns)}")
    times = next((columns[name] for name in _TIMES if name in columns), None)
    if times is None:
        raise ConfigError(where, f"{path.name} has {', '.join(columns)}; times are looked for as t")
    mean, variance = (columns[str(table[key])] if key in table else None for key in ("mean", "variance"))
    for key, values in (("mean", mean), ("variance", variance)):
        if values is not None and values.shape != times.shape:
            raise ConfigError(f"{where}.{key}", f"should be one number for each of {times.size} times")
    return Reference(path.name, times, mean=mean, variance=variance)


def _few(values: np.ndarray) -> str:
    """The first numbers of many, and the last."""
    shown_ = [f"{value:.4g}" for value in values]
    return ", ".join(shown_ if len(shown_) <= 4 else [*shown_[:2], "...", shown_[-1]])
