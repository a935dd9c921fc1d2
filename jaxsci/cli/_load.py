"""Data files of a config: columns of a table, or a NIST file with its certified answers."""

import csv
import dataclasses
from pathlib import Path

from ..core import suggest
from ..curvefit._nist import NistProblem, parse_nist
from ._errors import ConfigError


@dataclasses.dataclass(frozen=True)
class Table:
    """Named columns of numbers."""

    columns: dict[str, list[float]]

    def column(self, name: str, where: str) -> list[float]:
        """One column; raises `ConfigError` with the nearest name where there is none."""
        if name not in self.columns:
            raise ConfigError(
                where,
                f"the file has no column {name!r}{suggest(name, self.columns)} (columns: {', '.join(self.columns)})",
            )
        return self.columns[name]


def read_table(path: Path, where: str) -> Table:
    """Read a text table: the first line names the columns; '#' starts a comment line.

    Columns are separated by the first of comma, semicolon, tabulator that the first line has, else by blanks.

    **Raises:** `ConfigError` with file and line for a row that is too short or not numeric.
    """
    lines = [(k, line) for k, line in enumerate(_text(path, where).splitlines(), 1) if line.strip()]
    lines = [(k, line) for k, line in lines if not line.lstrip().startswith("#")]
    if len(lines) < 2:
        raise ConfigError(where, f"{path.name} has no rows: a line of column names and lines of numbers are needed")
    separator = next((mark for mark in ",;\t" if mark in lines[0][1]), None)
    names = _split(lines[0][1], separator)
    columns: dict[str, list[float]] = {name: [] for name in names}
    if len(columns) < len(names) or any(_is_number(name) for name in names):
        raise ConfigError(where, f"{path.name}: the first line should name the columns; it is {lines[0][1].strip()!r}")
    for number, line in lines[1:]:
        cells = _split(line, separator)
        if len(cells) != len(names):
            raise ConfigError(where, f"{path.name}, line {number}: {len(cells)} cells for {len(names)} columns")
        for name, cell in zip(names, cells, strict=True):
            if not _is_number(cell):
                raise ConfigError(where, f"{path.name}, line {number}, column {name!r}: {cell!r} is not a number")
            columns[name].append(float(cell))
    return Table(columns)


def read_nist(path: Path, where: str) -> NistProblem:
    """Read a NIST StRD file; raises `ConfigError` where it is none."""
    try:
        return parse_nist(_text(path, where))
    except ValueError as error:
        raise ConfigError(where, f"{path.name}: {error}") from error


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
