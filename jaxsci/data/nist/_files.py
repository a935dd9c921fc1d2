"""Reads the files of the NIST StRD collection of nonlinear regression problems.

Each has a header with two sets of start values and the certified answers, then a table of the data. `curvefit` reads
them when a config names one, and takes start values and reference values from the header.
"""

import dataclasses
import re

NIST = "NIST/ITL StRD"
"""What every file of the collection says in its first line."""

_PARAMETER = re.compile(r"^\s*(b\d+)\s*=((?:\s+[-+.\dEe]+){4})\s*$")
_ROLE = re.compile(r"(Response|Predictor)[^(\n]*\((?:[yx] = )?([^)\n]*)\)")


@dataclasses.dataclass(frozen=True)
class NistProblem:
    """One problem as its file states it.

    `starts` has a dictionary of start values for each of the two starts; `values` and `std` are certified to
    eleven digits, like `residual_sum_of_squares`. `x` and `y` are the data, in the file's units.
    """

    name: str
    difficulty: str
    response: str
    predictor: str
    starts: tuple[dict[str, float], ...]
    values: dict[str, float]
    std: dict[str, float]
    residual_sum_of_squares: float
    dof: int
    x: tuple[float, ...]
    y: tuple[float, ...]


def parse_nist(text: str) -> NistProblem:
    """Read a file of the NIST StRD collection of nonlinear regression problems.

    **Arguments:** `text`: the content of the `.dat` file, with its header.

    **Raises:** `ValueError` saying what is missing or malformed.
    """
    if NIST not in text:
        raise ValueError(f"this is no NIST StRD file: its first line should be {NIST!r}")
    rows = [match for match in map(_PARAMETER.match, text.splitlines()) if match]
    if not rows:
        raise ValueError("there is no table of start values and certified values ('b1 = start start value std')")
    names = [match[1] for match in rows]
    columns = list(zip(*(_numbers(match[2]) for match in rows), strict=True))
    roles = {role: label.strip() for role, label in _ROLE.findall(text)}
    x, y = _data(text)
    return NistProblem(
        name=_field(text, r"Dataset Name:\s*(\S+)"),
        difficulty=_field(text, r"\b(\w++) Level of Difficulty").lower(),
        response=roles.get("Response", "y"),
        predictor=roles.get("Predictor", "x"),
        starts=tuple(dict(zip(names, column, strict=True)) for column in columns[:2]),
        values=dict(zip(names, columns[2], strict=True)),
        std=dict(zip(names, columns[3], strict=True)),
        residual_sum_of_squares=float(_field(text, r"Residual Sum of Squares:\s*(\S+)")),
        dof=int(_field(text, r"Degrees of Freedom:\s*(\d+)")),
        x=x,
        y=y,
    )


def _data(text: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """The predictor and the response: the table behind the last line that starts with 'Data:'."""
    lines = text.splitlines()
    start = max((k for k, line in enumerate(lines) if line.startswith("Data:")), default=-1)
    table = []
    for number, line in enumerate(lines[start + 1 :], start + 2):
        if line.strip():
            row = _numbers(line, number)
            if len(row) != 2:
                raise ValueError(f"line {number} should have two numbers, y and x, but it has {len(row)}")
            table.append(row)
    expected = int(_field(text, r"Number of Observations:\s*(\d+)"))
    if len(table) != expected:
        raise ValueError(f"the header promises {expected} observations, but there are {len(table)}")
    y, x = zip(*table, strict=True)
    return x, y


def _numbers(line: str, number: int | None = None) -> tuple[float, ...]:
    try:
        return tuple(float(word) for word in line.split())
    except ValueError:
        where = "a line" if number is None else f"line {number}"
        raise ValueError(f"{where} should hold numbers, but it is {line.strip()!r}") from None


def _field(text: str, pattern: str) -> str:
    match = re.search(pattern, text)
    if match is None:
        raise ValueError(f"the header has no {pattern.split(':')[0]!r}")
    return match[1]
