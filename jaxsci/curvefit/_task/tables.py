"""Data files of a config: named columns, stacks of arrays, or a NIST file with its certified answers.

Text tables come as instruments, spreadsheets and `numpy.savetxt` write them; what cannot be read is refused with the
line, the column and what to write instead. `sources` makes data sets of what is read here.
"""

import codecs
import csv
import dataclasses
import importlib.util
import io
import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ...core import suggest
from ...data.nist import NIST, NistProblem, parse_nist
from ...datasets import (
    check_file,
    check_promise,
    decoded,
    find_item,
    names_in,
    open_hdf5,
    read_array,
    read_arrays,
    read_bytes,
    read_dataset,
)
from ...runs import ConfigError

PARQUET, HDF5, STACKS = (".parquet", ".pq"), (".h5", ".hdf5"), (".npy", ".npz")
_SHEETS = (".xlsx", ".xlsm", ".xls", ".ods")
_MOST_COLUMNS = 10_000  # of a text table: a record of many more is slow to make


@dataclasses.dataclass(frozen=True)
class Table:
    """Named columns, or arrays: anything that slices to NumPy arrays. `names`: of all that the file has."""

    columns: Mapping[str, Any]
    names: tuple[str, ...]

    def column(self, name: str, where: str) -> Any:
        """Take one column.

        **Raises:** `ConfigError` with the nearest name where there is none.
        """
        if name not in self.columns:
            raise ConfigError(
                where,
                f"the file has no column {name!r}{suggest(name, self.names)} (columns: {', '.join(self.names)})",
            )
        return self.columns[name]


def read_table(
    path: Path, where: str, wanted: Collection[str], texts: Collection[str] = (), within: Path | None = None
) -> Table:
    """Read the columns of a text table, a Parquet file, an HDF5 file or a .npy file of records.

    **Arguments:** `wanted`: the columns that matter, by name or, except in HDF5, by place: the others may hold
    anything. `texts`: those that need not be numbers. `within`: the folder in which files should lie that an HDF5 file
    leads to; `None` for anywhere.

    **Raises:** `ConfigError` where the file is no such table, or the package that reads it is not installed.
    """
    kind = path.suffix.lower()
    if kind in _SHEETS:
        raise ConfigError(
            where, f"{path.name} is a spreadsheet, which is not read: save its sheet as CSV, or as Parquet"
        )
    if kind in PARQUET:
        return _parquet(path, where)
    if kind in HDF5:
        found = _hdf5(path, where, within)
        try:
            columns = {name: read_dataset(found[name]) for name in wanted if name in found}
        except ValueError as error:
            raise ConfigError(where, str(error)) from error
        return Table(columns, tuple(found))
    return read_rows(path, where) if kind in STACKS else _text_table(path, where, wanted, texts)


def read_rows(path: Path, where: str, within: Path | None = None) -> Table:
    """Open a file for reading a few rows at a time: HDF5, or .npy of records or of two axes (columns "0", "1", ...).

    Nothing but the rows that are asked for is ever in memory. `within`: as of `read_table`.

    **Raises:** `ConfigError` where the file is of another kind.
    """
    kind = path.suffix.lower()
    if kind in HDF5:
        return _table(_hdf5(path, where, within))
    if kind != ".npy":
        raise ConfigError(where, f"{path.name} cannot be streamed: rows are read from .npy, .h5 and .hdf5 files")
    array = _numpy(path, where, mapped=True)
    if array.dtype.names:
        return _table({name: array[name] for name in array.dtype.names})
    if array.ndim != 2:
        raise ConfigError(where, f"{path.name} has shape {array.shape}: a table needs records, or rows and columns")
    return _table({str(k): array[:, k] for k in range(array.shape[1])})


def _table(columns: Mapping[str, Any]) -> Table:
    return Table(columns, tuple(columns))


def is_stack(path: Path, where: str) -> bool:
    """Tell whether a file holds a stack, arrays with one entry of the leading axis a member.

    Such are .npz, and .npy without named fields.
    """
    kind = path.suffix.lower()
    return kind == ".npz" or (kind == ".npy" and _numpy(path, where, mapped=True).dtype.names is None)


def read_stack(path: Path, where: str) -> Table:
    """Read the arrays of an .npz file; the one of an .npy file is called `y`."""
    if path.suffix.lower() == ".npy":
        return _table({"y": _numpy(path, where)})
    try:
        return _table(read_arrays(path))
    except ValueError as error:
        raise ConfigError(where, str(error)) from error


def is_nist(path: Path, where: str) -> bool:
    """Tell whether a .dat file is one of NIST's, which says so: other .dat files are tables of text."""
    return _dat(path) and NIST in _text(path, where)


def read_nist(path: Path, where: str) -> NistProblem:
    """Read a NIST StRD file; raises `ConfigError` where it is none."""
    try:
        return parse_nist(_text(path, where))
    except ValueError as error:
        raise ConfigError(where, f"{path.name}: {error}") from error


def _text_table(path: Path, where: str, wanted: Collection[str], texts: Collection[str]) -> Table:
    """A table of text: names of columns in its first line, or in the comment above that, and rows of numbers.

    Lines that start with '#' are comments. Cells are separated by the first of tabulator, semicolon, comma that the
    first line has, else by blanks. NumPy reads the rows; after an error they are looked at one by one, to name it.
    """
    lines = list(io.StringIO(_text(path, where)))
    rows = [k for k, line in enumerate(lines) if (text := line.strip()) and text[0] != "#"]
    try:
        layout = _layout(lines, rows)
        rows = rows[layout.headings :]
        if not rows:
            raise ValueError(_NO_ROWS)
        found = {name: place for name in wanted if (place := layout.place(name)) is not None}
        if not layout.named and not any(name.isdecimal() for name in found):
            raise ValueError(f"{_NO_NAMES} {lines[rows[0]].strip()!r}{_NUMBER_THEM}{_comma(lines[rows[0]])}")
        kinds = dict.fromkeys(found.values(), "number") | {found[name]: "text" for name in texts if name in found}
        read = _rows(lines, rows, layout, kinds)
    except ValueError as error:
        raise ConfigError(where, f"{_called(path)}{error}") from error
    return Table({name: read[place] for name, place in found.items()}, layout.names)


_NO_ROWS = " has no rows: a line of column names and lines of numbers are needed"
_NO_NAMES = ": the first line should name the columns; it is"
_NUMBER_THEM = ". Or give them by their places, from 0: columns = { x = 0, y = 1 }"


@dataclasses.dataclass(frozen=True)
class _Layout:
    """How a text table is written.

    - `names`: of the columns; "0", "1", ... where they have none, and are not `named`.
    - `headings`: 1 where the first line names them, 0 where a comment does, or nothing.
    """

    separator: str | None
    names: tuple[str, ...]
    named: bool
    headings: int

    def place(self, name: str) -> int | None:
        """Where a column is that a config gives by name, or by its place from 0."""
        if name in self.names:
            return self.names.index(name)
        short = name.isdecimal() and len(name) < 10
        return int(name) if short and int(name) < len(self.names) else None


def _layout(lines: Sequence[str], rows: Sequence[int]) -> _Layout:
    if not rows:
        raise ValueError(_NO_ROWS)
    first = lines[rows[0]]
    separator = next((mark for mark in "\t;," if mark in first), None)
    cells = _split(first, separator)
    if len(cells) > _MOST_COLUMNS:
        raise ValueError(f", line {rows[0] + 1}: {len(cells)} columns, where {_MOST_COLUMNS} are the most")
    if any(map(_DECIMAL_COMMA.fullmatch, cells)):
        raise ValueError(f", line {rows[0] + 1}: {first.strip()!r} has decimal commas; {_POINTS}")
    if not any(map(_is_number, cells)):
        if len(set(cells)) < len(cells):
            raise ValueError(f"{_NO_NAMES} {first.strip()!r}, which names two alike")
        return _Layout(separator, tuple(cells), True, 1)
    # numpy.savetxt writes its header as a comment, in whatever way the user separated the names
    above = next((lines[k].strip().strip("# ") for k in range(rows[0] - 1, -1, -1) if lines[k].strip()), "")
    for mark in (*"\t;,", None):
        names = _split(above, mark) if above else []
        if len(set(names)) == len(cells) == len(names) and not any(map(_is_number, names)):
            return _Layout(separator, tuple(names), True, 0)
    return _Layout(separator, tuple(map(str, range(len(cells)))), False, 0)


def _rows(
    lines: Sequence[str], rows: Sequence[int], layout: _Layout, kinds: Mapping[int, str]
) -> dict[int, np.ndarray]:
    """{place: column} of the columns whose kind is given; of the others only that each row has them."""
    dtypes = {"number": np.dtype(float), "text": np.dtype(object)}
    fields = [(str(k), dtypes[kinds[k]] if k in kinds else np.dtype("U1")) for k in range(len(layout.names))]
    try:
        table = np.loadtxt(
            [lines[k] for k in rows],
            np.dtype(fields),
            comments=None,
            delimiter=layout.separator,
            quotechar='"',
            ndmin=1,
        )
    except ValueError as error:
        raise ValueError(_fault(lines, rows, layout, kinds) or f": {error}") from error
    texts = {k: np.asarray([cell.strip() for cell in table[str(k)]]) for k, kind in kinds.items() if kind == "text"}
    return {k: np.ascontiguousarray(table[str(k)]) for k in kinds} | texts


def _fault(lines: Sequence[str], rows: Sequence[int], layout: _Layout, kinds: Mapping[int, str]) -> str:
    """Where the first row is that cannot be read, why, and what to do."""
    for k in rows:
        cells = _split(lines[k], layout.separator)
        if len(cells) != len(layout.names):
            return f", line {k + 1}: {len(cells)} cells for {len(layout.names)} columns{_comma(lines[k])}"
        for place, cell in enumerate(cells):
            if kinds.get(place) == "number" and not _is_number(cell):
                return f", line {k + 1}, column {layout.names[place]!r}: {cell!r} is not a number{_instead(cell)}"
    return ""


_DECIMAL_COMMA = re.compile(r"[+-]?\d*,\d+([eE][+-]?\d+)?")
_POINTS = "write decimal points, and commas only between cells"


def _comma(line: str) -> str:
    """The remedy where commas of a line look like decimal ones: no other mark separates its numbers."""
    parts = [_split(line, mark) for mark in ("\t", ";", None)]
    commas = any(len(cells) > 1 and any(map(_DECIMAL_COMMA.fullmatch, cells)) for cells in parts)
    cells = _split(line, ",")
    pairs = len(cells) > 2 and len(cells) % 2 == 0 and all(cell.lstrip("+-").isdecimal() for cell in cells)
    return f": if these are decimal commas, {_POINTS}" if commas or pairs else ""


def _instead(cell: str) -> str:
    """What to write in place of a cell."""
    if _DECIMAL_COMMA.fullmatch(cell):
        return f", with its comma; {_POINTS}"
    if cell.lower() in ("", "-", "--", "na", "n/a", "null", "none", "missing"):
        return ": leave the row out, or write nan and set omit_nonfinite = true"
    if re.fullmatch(r"[+-]?[\d.]+[dD][+-]?\d+", cell):
        return ": write its exponent with e"
    return ""


def _called(path: Path) -> str:
    """The file in a message; NIST's files have the ending of many a table."""
    return f"{path.name}: this is no NIST StRD file; as a table {path.name}" if _dat(path) else path.name


def _dat(path: Path) -> bool:
    return path.suffix.lower() == ".dat"


def _parquet(path: Path, where: str) -> Table:
    """Columns of numbers, an empty cell as NaN; columns of texts stay, to tell members apart."""
    _need("pyarrow", where, path)
    import pyarrow
    import pyarrow.parquet

    try:
        size, about = check_file(path), pyarrow.parquet.read_metadata(path)
        check_promise(8 * about.num_rows * about.num_columns, size, path.name)
        table = pyarrow.parquet.read_table(path)
        return _table({name: table.column(name).to_numpy() for name in table.column_names})
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        raise ConfigError(where, f"{path.name} cannot be read as Parquet: {error}") from error


def _hdf5(path: Path, where: str, within: Path | None) -> dict[str, Any]:
    """Every data set of the file by its path, such as `scan/time`; the file stays open for as long as they live."""
    _need("h5py", where, path)
    import h5py

    try:
        file = open_hdf5(path)
        items = {name: find_item(file, name, within) for name in names_in(file)}
    except (OSError, ValueError) as error:
        raise ConfigError(where, f"{path.name} cannot be read as HDF5: {error}") from error
    return {name: item for name, item in items.items() if isinstance(item, h5py.Dataset)}


def _need(package: str, where: str, path: Path) -> None:
    if importlib.util.find_spec(package) is None:
        raise ConfigError(where, f"{path.name} needs {package}, which is not installed: pip install 'jaxsci[tables]'")


def _numpy(path: Path, where: str, mapped: bool = False) -> np.ndarray:
    try:
        return read_array(path, mapped)
    except (OSError, ValueError) as error:
        raise ConfigError(where, str(error)) from error


def _text(path: Path, where: str) -> str:
    """The text of a file: UTF-8, UTF-16 that says so, else Latin-1, which the instruments of many labs write."""
    try:
        content = read_bytes(path)
        if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
            return content.decode("utf-16")
    except (OSError, ValueError) as error:
        raise ConfigError(where, f"{path} cannot be read: {error}") from error
    if b"\0" in content:
        raise ConfigError(where, f"{path.name} is no text: save it as CSV, Parquet, HDF5 or .npy")
    try:
        return decoded(content, path)
    except ValueError:
        return content.decode("latin-1")


def _split(line: str, separator: str | None) -> list[str]:
    try:
        cells = line.split() if separator is None else next(csv.reader([line], delimiter=separator), [])
    except csv.Error as error:
        raise ValueError(f": {line[:60]!r} cannot be cut into cells: {error}") from error
    return [cell.strip() for cell in cells]


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return "_" not in cell  # Python's 1_000 is no number to NumPy
