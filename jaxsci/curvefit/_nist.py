"""The NIST StRD problems of nonlinear regression: the models, and a reader of the files with the certified answers."""

import dataclasses
import math
import re

import jax.numpy as jnp
from jaxtyping import Array, Float

from ..core import AbstractModel, Scalar, param

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
        difficulty=_field(text, r"(\w+) Level of Difficulty").lower(),
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


class Misra1a(AbstractModel):
    """b1 (1 - exp(-b2 x)), of the problems Misra1a and BoxBOD."""

    b1: Scalar = param()
    b2: Scalar = param()

    def __call__(self, x: Float[Array, " n"]) -> Float[Array, " n"]:
        return self.b1 * (1 - jnp.exp(-self.b2 * x))


class Misra1b(AbstractModel):
    """b1 (1 - (1 + b2 x / 2)^-2)."""

    b1: Scalar = param()
    b2: Scalar = param()

    def __call__(self, x: Float[Array, " n"]) -> Float[Array, " n"]:
        return self.b1 * (1 - (1 + self.b2 * x / 2) ** -2)


class Misra1d(AbstractModel):
    """b1 b2 x / (1 + b2 x)."""

    b1: Scalar = param()
    b2: Scalar = param()

    def __call__(self, x: Float[Array, " n"]) -> Float[Array, " n"]:
        return self.b1 * self.b2 * x / (1 + self.b2 * x)


class Chwirut(AbstractModel):
    """exp(-b1 x) / (b2 + b3 x)."""

    b1: Scalar = param()
    b2: Scalar = param()
    b3: Scalar = param()

    def __call__(self, x: Float[Array, " n"]) -> Float[Array, " n"]:
        return jnp.exp(-self.b1 * x) / (self.b2 + self.b3 * x)


class DanWood(AbstractModel):
    """b1 x^b2."""

    b1: Scalar = param()
    b2: Scalar = param()

    def __call__(self, x: Float[Array, " n"]) -> Float[Array, " n"]:
        return self.b1 * x**self.b2


class Enso(AbstractModel):
    """A constant, the annual cycle of 12 months, and two cycles of periods b4 and b7."""

    b1: Scalar = param()
    b2: Scalar = param()
    b3: Scalar = param()
    b4: Scalar = param()
    b5: Scalar = param()
    b6: Scalar = param()
    b7: Scalar = param()
    b8: Scalar = param()
    b9: Scalar = param()

    def __call__(self, x: Float[Array, " n"]) -> Float[Array, " n"]:
        turns = 2 * math.pi * x
        annual = self.b2 * jnp.cos(turns / 12) + self.b3 * jnp.sin(turns / 12)
        first = self.b5 * jnp.cos(turns / self.b4) + self.b6 * jnp.sin(turns / self.b4)
        second = self.b8 * jnp.cos(turns / self.b7) + self.b9 * jnp.sin(turns / self.b7)
        return self.b1 + annual + first + second


class Eckerle(AbstractModel):
    """b1 / b2 exp(-((x - b3) / b2)^2 / 2)."""

    b1: Scalar = param()
    b2: Scalar = param()
    b3: Scalar = param()

    def __call__(self, x: Float[Array, " n"]) -> Float[Array, " n"]:
        return self.b1 / self.b2 * jnp.exp(-(((x - self.b3) / self.b2) ** 2) / 2)


class TwoGaussians(AbstractModel):
    """b1 exp(-b2 x) + b3 exp(-((x - b4) / b5)^2) + b6 exp(-((x - b7) / b8)^2), of Gauss1 and Gauss2."""

    b1: Scalar = param()
    b2: Scalar = param()
    b3: Scalar = param()
    b4: Scalar = param()
    b5: Scalar = param()
    b6: Scalar = param()
    b7: Scalar = param()
    b8: Scalar = param()

    def __call__(self, x: Float[Array, " n"]) -> Float[Array, " n"]:
        first = self.b3 * jnp.exp(-(((x - self.b4) / self.b5) ** 2))
        second = self.b6 * jnp.exp(-(((x - self.b7) / self.b8) ** 2))
        return self.b1 * jnp.exp(-self.b2 * x) + first + second


class Hahn(AbstractModel):
    """(b1 + b2 x + b3 x^2 + b4 x^3) / (1 + b5 x + b6 x^2 + b7 x^3)."""

    b1: Scalar = param()
    b2: Scalar = param()
    b3: Scalar = param()
    b4: Scalar = param()
    b5: Scalar = param()
    b6: Scalar = param()
    b7: Scalar = param()

    def __call__(self, x: Float[Array, " n"]) -> Float[Array, " n"]:
        above = self.b1 + x * (self.b2 + x * (self.b3 + x * self.b4))
        return above / (1 + x * (self.b5 + x * (self.b6 + x * self.b7)))


class Lanczos(AbstractModel):
    """b1 exp(-b2 x) + b3 exp(-b4 x) + b5 exp(-b6 x), of Lanczos1 and Lanczos3."""

    b1: Scalar = param()
    b2: Scalar = param()
    b3: Scalar = param()
    b4: Scalar = param()
    b5: Scalar = param()
    b6: Scalar = param()

    def __call__(self, x: Float[Array, " n"]) -> Float[Array, " n"]:
        first, second, third = (jnp.exp(-rate * x) for rate in (self.b2, self.b4, self.b6))
        return self.b1 * first + self.b3 * second + self.b5 * third


class Meyer(AbstractModel):
    """b1 exp(b2 / (x + b3)), of the problem MGH10."""

    b1: Scalar = param()
    b2: Scalar = param()
    b3: Scalar = param()

    def __call__(self, x: Float[Array, " n"]) -> Float[Array, " n"]:
        return self.b1 * jnp.exp(self.b2 / (x + self.b3))


class Osborne(AbstractModel):
    """b1 + b2 exp(-b4 x) + b3 exp(-b5 x), of the problem MGH17."""

    b1: Scalar = param()
    b2: Scalar = param()
    b3: Scalar = param()
    b4: Scalar = param()
    b5: Scalar = param()

    def __call__(self, x: Float[Array, " n"]) -> Float[Array, " n"]:
        return self.b1 + self.b2 * jnp.exp(-self.b4 * x) + self.b3 * jnp.exp(-self.b5 * x)


class Rat42(AbstractModel):
    """b1 / (1 + exp(b2 - b3 x))."""

    b1: Scalar = param()
    b2: Scalar = param()
    b3: Scalar = param()

    def __call__(self, x: Float[Array, " n"]) -> Float[Array, " n"]:
        return self.b1 / (1 + jnp.exp(self.b2 - self.b3 * x))


class Rat43(AbstractModel):
    """b1 / (1 + exp(b2 - b3 x))^(1 / b4)."""

    b1: Scalar = param()
    b2: Scalar = param()
    b3: Scalar = param()
    b4: Scalar = param()

    def __call__(self, x: Float[Array, " n"]) -> Float[Array, " n"]:
        return self.b1 / (1 + jnp.exp(self.b2 - self.b3 * x)) ** (1 / self.b4)


class Roszman(AbstractModel):
    """b1 - b2 x - arctan(b3 / (x - b4)) / pi."""

    b1: Scalar = param()
    b2: Scalar = param()
    b3: Scalar = param()
    b4: Scalar = param()

    def __call__(self, x: Float[Array, " n"]) -> Float[Array, " n"]:
        return self.b1 - self.b2 * x - jnp.arctan(self.b3 / (x - self.b4)) / math.pi


NIST_MODELS: dict[str, type[AbstractModel]] = {
    "BoxBOD": Misra1a,
    "Chwirut2": Chwirut,
    "DanWood": DanWood,
    "ENSO": Enso,
    "Eckerle4": Eckerle,
    "Gauss1": TwoGaussians,
    "Gauss2": TwoGaussians,
    "Hahn1": Hahn,
    "Lanczos1": Lanczos,
    "Lanczos3": Lanczos,
    "MGH10": Meyer,
    "MGH17": Osborne,
    "Misra1a": Misra1a,
    "Misra1b": Misra1b,
    "Misra1d": Misra1d,
    "Rat42": Rat42,
    "Rat43": Rat43,
    "Roszman1": Roszman,
}
"""The model of each problem, by the problem's name."""
