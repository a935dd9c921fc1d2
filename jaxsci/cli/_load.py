"""Data files of a config: named columns, stacks of arrays, or a NIST file with its certified answers."""

import csv
import dataclasses
import importlib.util
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..core import suggest
from ..curvefit._nist import NistProblem, parse_nist
from ._errors import ConfigError

PARQUET, HDF5, STACKS = (".parquet", ".pq"), (".h5", ".hdf5"), (".npy", ".npz")


@dataclasses.dataclass(frozen=True)
class Table:
    """Named columns, or arrays: anything that slices to NumPy arrays."""

    columns: Mapping[str, Any]

    def column(self, name: str, where: str) -> Any:
        """One column; raises `ConfigError` with the nearest name where there is none."""
        if name not in self.columns:
            raise ConfigError(
                where,
                f"the file has no column {name!r}{suggest(name, self.columns)} (columns: {', '.join(self.columns)})",
            )
        return self.columns[name]


def read_table(path: Path, where: str, texts: Collection[str] = ()) -> Table:
    """Read the columns of a text table, a Parquet file, an HDF5 file or a .npy file of records.

    **Arguments:** `texts`: columns of a text table that need not be numbers.

    **Raises:** `ConfigError` where the file is no such table, or the package that reads it is not installed.
    """
    kind = path.suffix.lower()
    if kind in PARQUET:
        return _parquet(path, where)
    if kind in HDF5:
        return Table({name: data[()] for name, data in _hdf5(path, where).items()})
    return read_rows(path, where) if kind in STACKS else _text_table(path, where, texts)


def read_rows(path: Path, where: str) -> Table:
    """Open a file for reading a few rows at a time: HDF5, or .npy of records or of two axes (columns "0", "1", ...).

    Nothing but the rows that are asked for is ever in memory.

    **Raises:** `ConfigError` where the file is of another kind.
    """
    kind = path.suffix.lower()
    if kind in HDF5:
        return Table(_hdf5(path, where))
    if kind != ".npy":
        raise ConfigError(where, f"{path.name} cannot be streamed: rows are read from .npy, .h5 and .hdf5 files")
    array = _numpy(path, where, mmap_mode="r")
    if array.dtype.names:
        return Table({name: array[name] for name in array.dtype.names})
    if array.ndim != 2:
        raise ConfigError(where, f"{path.name} has shape {array.shape}: a table needs records, or rows and columns")
    return Table({str(k): array[:, k] for k in range(array.shape[1])})


def is_stack(path: Path, where: str) -> bool:
    """True for .npz, and for .npy without named fields: arrays with one entry of the leading axis a member."""
    kind = path.suffix.lower()
    return kind == ".npz" or (kind == ".npy" and _numpy(path, where, mmap_mode="r").dtype.names is None)


def read_stack(path: Path, where: str) -> Table:
    """Read the arrays of an .npz file; the one of an .npy file is called `y`."""
    content = _numpy(path, where)
    return Table({"y": content}) if isinstance(content, np.ndarray) else Table(dict(content))


def read_nist(path: Path, where: str) -> NistProblem:
    """Read a NIST StRD file; raises `ConfigError` where it is none."""
    try:
        return parse_nist(_text(path, where))
    except ValueError as error:
        raise ConfigError(where, f"{path.name}: {error}") from error


def _text_table(path: Path, where: str, texts: Collection[str]) -> Table:
    """The first line names the columns; '#' starts a comment line.

    Columns are separated by the first of comma, semicolon, tabulator that the first line has, else by blanks.
    """
    lines = [(k, line) for k, line in enumerate(_text(path, where).splitlines(), 1) if line.strip()]
    lines = [(k, line) for k, line in lines if not line.lstrip().startswith("#")]
    if len(lines) < 2:
        raise ConfigError(where, f"{path.name} has no rows: a line of column names and lines of numbers are needed")
    separator = next((mark for mark in ",;\t" if mark in lines[0][1]), None)
    names = _split(lines[0][1], separator)
    columns: dict[str, list[Any]] = {name: [] for name in names}
    if len(columns) < len(names) or any(_is_number(name) for name in names):
        raise ConfigError(where, f"{path.name}: the first line should name the columns; it is {lines[0][1].strip()!r}")
    for number, line in lines[1:]:
        cells = _split(line, separator)
        if len(cells) != len(names):
            raise ConfigError(where, f"{path.name}, line {number}: {len(cells)} cells for {len(names)} columns")
        for name, cell in zip(names, cells, strict=True):
            if name not in texts and not _is_number(cell):
                raise ConfigError(where, f"{path.name}, line {number}, column {name!r}: {cell!r} is not a number")
            columns[name].append(cell if name in texts else float(cell))
    return Table({name: np.asarray(column) for name, column in columns.items()})


def _parquet(path: Path, where: str) -> Table:
    """Columns of numbers, an empty cell as NaN; columns of texts stay, to tell members apart."""
    _need("pyarrow", where, path)
    import pyarrow
    import pyarrow.parquet

    try:
        table = pyarrow.parquet.read_table(path)
    except (pyarrow.ArrowException, OSError) as error:
        raise ConfigError(where, f"{path.name} cannot be read as Parquet: {error}") from error
    return Table({name: table.column(name).to_numpy() for name in table.column_names})


def _hdf5(path: Path, where: str) -> dict[str, Any]:
    """Every data set of the file by its path, such as `scan/time`; the file stays open for as long as they live."""
    _need("h5py", where, path)
    import h5py

    try:
        file = h5py.File(path, "r")
    except OSError as error:
        raise ConfigError(where, f"{path.name} cannot be read as HDF5: {error}") from error
    found: dict[str, Any] = {}

    def note(name: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset):
            found[name] = item

    file.visititems(note)
    return found


def _need(package: str, where: str, path: Path) -> None:
    if importlib.util.find_spec(package) is None:
        raise ConfigError(where, f"{path.name} needs {package}, which is not installed: pip install 'jaxsci[tables]'")


def _numpy(path: Path, where: str, mmap_mode: Any = None) -> Any:
    try:
        return np.load(path, mmap_mode=mmap_mode, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise ConfigError(where, f"{path.name} cannot be read as a NumPy file: {error}") from error


def _text(path: Path, where: str) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(where, f"{path} cannot be read as text: {error}") from error


def _split(line: str, separator: str | None) -> list[str]:
    cells = line.split() if separator is None else next(csv.reader([line], delimiter=separator))
    return [cell.strip() for cell in cells]


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True
