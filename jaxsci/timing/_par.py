"""Par files: names, exact values, flags; with PINT's names whatever the dialect."""

import re
from collections.abc import Iterator
from decimal import Context, Decimal, InvalidOperation
from typing import NamedTuple

_ALIASES = {
    "PSRJ": "PSR",
    "PSRB": "PSR",
    "RA": "RAJ",
    "DEC": "DECJ",
    "LAMBDA": "ELONG",
    "BETA": "ELAT",
    "PMLAMBDA": "PMELONG",
    "PMBETA": "PMELAT",
    "E": "ECC",
    "XDOT": "A1DOT",
    "X2DOT": "A1DOT2",
    "ECCDOT": "EDOT",
    "DTHETA": "DTH",
    "VARSIGMA": "STIGMA",
    "STIG": "STIGMA",
    "FB": "FB0",
    "SOLARN0": "NE_SW",
    "NE1AU": "NE_SW",
    "T2EFAC": "EFAC",
    "TNEF": "EFAC",
    "T2EQUAD": "EQUAD",
    "TNECORR": "ECORR",
    "T2CMETHOD": "T2CMETHOD",
    "CLOCK": "CLK",
}
_MASKED = {"EFAC", "EQUAD", "ECORR", "JUMP", "TNEQ", "DMJUMP", "DMEFAC", "DMEQUAD"}
_FD_JUMP = re.compile(r"FD(\d+)JUMP$")
_FD_JUMP_TEMPO2 = re.compile(r"FDJUMP(\d+)$")
_PAIRS = ("WAVE", "IFUNC")
_RANGES = {"MJD", "FREQ"}
_SEXAGESIMAL = {"RAJ", "DECJ"}
_PICO = {"PBDOT", "A1DOT", "EDOT", "XPBDOT"}  # in 1e-12 where larger than 1e-7, as tempo wrote them
_WORDS = {"PSR", "EPHEM", "CLK", "UNITS", "TIMEEPH", "T2CMETHOD", "BINARY", "ECL", "INFO", "TZRSITE", "DILATEFREQ"}
_WORDS |= {"CORRECT_TROPOSPHERE", "PLANET_SHAPIRO", "DMDATA", "MODE", "EPHVER", "TRACK", "K96", "FDJUMPLOG"}
_SPANS = {"START", "FINISH"}  # a flag there says that only TOAs within are used: nothing is fitted
_EXACT = Context(prec=60)


class Line(NamedTuple):
    """One line: PINT's name, the value as written, whether it is fitted, the error as written, its selection."""

    name: str
    text: str
    fit: bool = False
    error: str = ""
    select: str = ""

    @property
    def value(self) -> Decimal:
        """The value with all its digits; angles RAJ in hours and DECJ in degrees, derivatives unscaled."""
        value = _sexagesimal(self.text) if self.name in _SEXAGESIMAL else number(self.text, self.name)
        as_pico = self.name in _PICO and abs(value) > Decimal("1e-7")
        return _EXACT.multiply(value, Decimal("1e-12")) if as_pico else value


class Par(NamedTuple):
    """A par file: its lines, numbered (`JUMP1`, `JUMP2`, ...) where a name repeats with another selection."""

    lines: tuple[Line, ...]

    @staticmethod
    def parse(text: str) -> "Par":
        """Read a par file of tempo, tempo2 or PINT.

        **Raises:** `ValueError` for a repeated parameter, a missing or unreadable value.
        """
        lines: dict[str, Line] = {}
        counts: dict[str, int] = {}
        for line in _without_tneq(list(_lines(text))):
            name = line.name
            if is_masked(name):
                counts[name] = counts.get(name, 0) + 1
                name = f"{name}{counts[name]}"
            if name in lines:
                raise ValueError(f"the par file gives {name} twice: {lines[name].text} and {line.text}")
            lines[name] = line._replace(name=name)
        return Par(tuple(lines.values()))

    def find(self, name: str) -> Line | None:
        """The line of this name, or `None`."""
        return next((line for line in self.lines if line.name == name), None)

    def word(self, name: str, default: str = "") -> str:
        """The value as written."""
        line = self.find(name)
        return default if line is None else line.text

    def value(self, name: str, default: str | None = "0") -> Decimal:
        """The exact value.

        **Raises:** `ValueError` naming it when it is missing and there is no default.
        """
        line = self.find(name)
        if line is not None:
            return line.value
        if default is None:
            raise ValueError(f"the par file has no {name}, which this model needs")
        return Decimal(default)

    def yes(self, name: str, default: str = "N") -> bool:
        """A switch: Y, YES, 1, TRUE."""
        return self.word(name, default).upper() in ("Y", "YES", "1", "TRUE", "T")

    def numbered(self, stem: str, first: int = 1) -> tuple[str, ...]:
        """The names stem<first>, stem<first + 1>, ... up to the last that is there."""
        found = [int(line.name[len(stem) :]) for line in self.lines if _is_numbered(line.name, stem)]
        return tuple(f"{stem}{k}" for k in range(first, max(found, default=first - 1) + 1))

    def prefixed(self, stem: str) -> tuple[str, ...]:
        """The names that start so, in rising order: `DMX_0001`, `DMX_0002`, ...; any number of digits."""
        found = {int(n.name[len(stem) :]): n.name for n in self.lines if _is_numbered(n.name, stem)}
        return tuple(found[k] for k in sorted(found))

    @property
    def free(self) -> tuple[str, ...]:
        """Names of the parameters with a fit flag."""
        return tuple(line.name for line in self.lines if line.fit)


def is_masked(name: str) -> bool:
    """True for a line that selects TOAs by a flag."""
    return name in _MASKED or _FD_JUMP.match(name) is not None


def _is_numbered(name: str, stem: str) -> bool:
    return name.startswith(stem) and name[len(stem) :].isdigit()


def _without_tneq(lines: list[Line]) -> Iterator[Line]:
    """TNEQ is the logarithm of an EQUAD in s; as in PINT it yields to an EQUAD of the same TOAs."""
    known = {line.select for line in lines if line.name == "EQUAD"}
    for line in lines:
        if line.name != "TNEQ":
            yield line
        elif line.select not in known:
            yield line._replace(name="EQUAD", text=str(_EXACT.power(10, line.value + 6)), error="")


def _lines(text: str) -> Iterator[Line]:
    for row in text.splitlines():
        words = row.split("#")[0].split()
        if not words or words[0] == "C":
            continue
        name = _FD_JUMP_TEMPO2.sub(r"FD\1JUMP", words[0].upper())
        name = _ALIASES.get(name, name)
        select, rest = "", words[1:]
        if is_masked(name):
            select, rest = _selected(row, name, rest)
        if not rest:
            raise ValueError(f"{row.strip()!r}: {name} has no value")
        if any(_is_numbered(name, stem) for stem in _PAIRS):
            rest = [" ".join(rest)]
        flag = rest[1] if len(rest) > 1 else ""
        fit = flag == "1" and name not in _WORDS | _SPANS
        error = rest[2] if len(rest) > 2 and flag in ("0", "1") else ""
        yield Line(name, rest[0], fit, error, select)


def _selected(row: str, name: str, rest: list[str]) -> tuple[str, list[str]]:
    """(which TOAs a line is for, the words after that): `-f NAME`, `TEL gbt`, `MJD 54000 55000` or `FREQ 1000 1500`."""
    kind = rest[0].upper() if rest else ""
    words = 3 if kind in _RANGES else 2
    if len(rest) <= words or not (kind.startswith("-") or kind in {"TEL", *_RANGES}):
        raise ValueError(f"{row.strip()!r}: {name} should select TOAs by a flag: `{name} -f NAME value`")
    return " ".join([rest[0] if kind.startswith("-") else kind, *rest[1:words]]), rest[words:]


def number(text: str, name: str) -> Decimal:
    """A decimal number, Fortran's D exponents too.

    **Raises:** `ValueError` naming the parameter.
    """
    try:
        return Decimal(text.upper().replace("D", "E"))
    except InvalidOperation:
        raise ValueError(f"{name} should be a number, but it is {text!r}") from None


def _sexagesimal(text: str) -> Decimal:
    parts = text.lstrip("+-").split(":")
    total = Decimal(0)
    for k, part in enumerate(parts):
        total = _EXACT.add(total, _EXACT.divide(number(part, "an angle"), Decimal(60) ** k))
    return -total if text.startswith("-") else total
