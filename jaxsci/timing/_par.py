"""Par files: names, exact values, flags; with PINT's names whatever the dialect.

`Par.parse` reads the text of a par file of tempo, tempo2 or PINT and gives its lines as PINT writes them: periods
become frequencies, BINARY T2 the model that it stands for, and TCB becomes TDB. `TimingModel.parse` is who calls it.
"""

import re
from collections.abc import Iterator
from decimal import Context, Decimal, InvalidOperation
from typing import NamedTuple

from . import _tcb

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
    "P": "P0",
    "PDOT": "P1",
}
_MASKED = {"EFAC", "EQUAD", "ECORR", "JUMP", "TNEQ", "DMJUMP", "DMEFAC", "DMEQUAD"}
_FD_JUMP = re.compile(r"FD(\d+)JUMP$")
_FD_JUMP_TEMPO2 = re.compile(r"FDJUMP(\d+)$")
_NUMBERED_MASK = re.compile(rf"({'|'.join(sorted(_MASKED))}|T2EFAC|T2EQUAD|TNEF|TNECORR|FD\d+JUMP)\d+$")
_LEADING_ZEROS = re.compile(r"(F|FB|FD|DM|CM|NE_SW|WAVE|IFUNC)0+([1-9]\d*)$")
_PAIRS = ("WAVE", "IFUNC")
_RANGES = {"MJD", "FREQ"}
_COLUMNS = {"TEL", "NAME"}  # what selects TOAs by a column of the tim file
_SEXAGESIMAL = {"RAJ", "DECJ"}
_PICO = {"PBDOT", "A1DOT", "EDOT", "XPBDOT"}  # in 1e-12 where larger than 1e-7, as tempo wrote them
_WORDS = {"PSR", "EPHEM", "CLK", "UNITS", "TIMEEPH", "T2CMETHOD", "BINARY", "ECL", "INFO", "TZRSITE", "DILATEFREQ"}
_WORDS |= {"CORRECT_TROPOSPHERE", "PLANET_SHAPIRO", "DMDATA", "MODE", "EPHVER", "TRACK", "K96", "FDJUMPLOG"}
_SPANS = {"START", "FINISH"}  # a flag there says that only TOAs within are used: nothing is fitted
_YES, _NO = {"Y", "YES", "1", "TRUE", "T"}, {"N", "NO", "0", "FALSE", "F"}
_EXACT = Context(prec=60)
_TEMPO_P1 = Decimal("1e-8")  # a P1 above this is tempo's, in 1e-15: no pulsar slows down by so many s/s


class Line(NamedTuple):
    """One line: PINT's name, the value as written, whether it is fitted, the error as written, its selection.

    `row`: all words after the name, for a line that is kept as it is because nothing reads it.
    """

    name: str
    text: str
    fit: bool = False
    error: str = ""
    select: str = ""
    row: str = ""

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
        """Read a par file of tempo, tempo2 or PINT, in TDB or in TCB, which becomes TDB.

        **Raises:** `ValueError` for a repeated parameter, a missing or unreadable value.
        """
        lines: dict[str, Line] = {}
        counts: dict[str, int] = {}
        for line in _of_t2(_of_periods(list(_without_tneq(list(_lines(text)))))):
            name = line.name
            if is_masked(name):
                counts[name] = counts.get(name, 0) + 1
                name = f"{name}{counts[name]}"
            if name in lines:
                raise ValueError(f"the par file gives {name} twice: {lines[name].text} and {line.text}")
            lines[name] = line._replace(name=name)
        if "UNITS" in lines and lines["UNITS"].text.upper() in _tcb.NAMES:
            return Par(tuple(map(_of_tcb, lines.values())))
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
        """A switch: Y, YES, 1, TRUE; or N, NO, 0, FALSE.

        **Raises:** `ValueError` for another word.
        """
        word = self.word(name, default).upper()
        if word not in _YES | _NO:
            raise ValueError(f"{name} should be Y or N, but it is {self.word(name)!r}")
        return word in _YES

    def numbered(self, stem: str, first: int = 1) -> tuple[str, ...]:
        """The names stem<first>, stem<first + 1>, ... up to the last that is there."""
        found = [int(line.name[len(stem) :]) for line in self.lines if _is_numbered(line.name, stem)]
        return tuple(f"{stem}{k}" for k in range(first, max(found, default=first - 1) + 1))

    def prefixed(self, stem: str) -> tuple[str, ...]:
        """The names that start so, in rising order: `DMX_0001`, `DMX_0002`, ...; any number of digits."""
        found = {int(n.name[len(stem) :]): n.name for n in self.lines if _is_numbered(n.name, stem)}
        return tuple(found[k] for k in sorted(found))

    @property
    def was_tcb(self) -> bool:
        """True where the file was in TCB: the values here are in TDB."""
        units = self.find("UNITS")
        return units is not None and units.row.upper() in _tcb.NAMES

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


def _of_periods(lines: list[Line]) -> list[Line]:
    """P0 and P1 as F0 = 1 / P0 and F1 = -P1 / P0^2, with their errors."""
    found = {line.name: line for line in lines}
    if "P0" not in found:
        return lines
    period = found["P0"].value
    if not period > 0:
        raise ValueError(f"P0 is {found['P0'].text}, but a period should be positive")
    slope = _EXACT.divide(Decimal(-1), _EXACT.multiply(period, period))

    def converted(line: Line) -> Line:
        if line.name == "P0":
            return _scaled(line, "F0", _EXACT.divide(Decimal(1), period), slope)
        if line.name == "P1":
            unit = Decimal("1e-15") if abs(line.value) > _TEMPO_P1 else Decimal(1)
            return _scaled(line, "F1", _EXACT.multiply(line.value, slope * unit), slope * unit)
        return line

    return [converted(line) for line in lines]


def _scaled(line: Line, name: str, value: Decimal, factor: Decimal) -> Line:
    """The line under another name with another value, its error multiplied by a factor."""
    error = f"{abs(number(line.error, name) * factor):.6E}" if line.error else ""
    return line._replace(name=name, text=f"{value:.40E}", error=error)


def _of_t2(lines: list[Line]) -> list[Line]:
    """BINARY T2 as the model that it stands for, as PINT's `allow_T2` chooses: the first that has all the parameters.

    T2 counts the angles KIN and KOM from other directions than DDK (IAU against Damour and Taylor 1992).
    """
    has = {line.name for line in lines}
    if not any(line.name == "BINARY" and line.text.upper() == "T2" for line in lines):
        return lines
    kind = "DD"
    if "TASC" in has:
        kind = "ELL1H" if "H3" in has else "ELL1k" if "LNEDOT" in has else "ELL1"
    elif has & {"KIN", "KOM"}:
        kind = "DDK"
        if not {"KIN", "KOM", "PX"} <= has:
            raise ValueError("BINARY T2 with KIN or KOM is DDK, which needs KIN, KOM and a positive PX")
    else:
        kind = "DDH" if "H3" in has else "DDS" if "SHAPMAX" in has else "DDGR" if "MTOT" in has else "DD"
    turned = {"KIN": 180, "KOM": 90} if kind == "DDK" else {}
    found = []
    for line in lines:
        if line.name == "BINARY":
            found.append(line._replace(text=kind))
        elif line.name in turned:
            found.append(line._replace(text=str(turned[line.name] - line.value)))
        elif not (kind == "DDK" and line.name == "SINI"):  # for which T2 has the word KIN
            found.append(line)
    return found


def _of_tcb(line: Line) -> Line:
    """A line of a par file in TCB, with the value in TDB; the row of UNITS stays as it was written."""
    if line.name == "UNITS":
        return line._replace(text="TDB")
    factor = _tcb.factor(line.name)
    if factor == 1:
        return line
    error = f"{number(line.error, line.name) * factor:.8E}" if line.error else ""
    value = _tcb.as_tdb(line.name, line.value)
    return line._replace(text=f"{value:f}" if _tcb.is_epoch(line.name) else f"{value:.40E}", error=error)


def _lines(text: str) -> Iterator[Line]:
    for row in text.splitlines():
        words = row.split("#")[0].split()
        if not words or words[0] == "C":
            continue
        name = _FD_JUMP_TEMPO2.sub(r"FD\1JUMP", words[0].upper())
        name = _LEADING_ZEROS.sub(r"\1\2", _NUMBERED_MASK.sub(r"\1", name))
        name = _ALIASES.get(name, name)
        select, rest = "", words[1:]
        if is_masked(name):
            select, rest = _selected(row, name, rest)
        if not rest:
            raise ValueError(f"{row.strip()!r}: {name} has no value")
        whole = " ".join(words[1:])
        if any(_is_numbered(name, stem) for stem in _PAIRS):
            rest = [" ".join(rest)]
        flag = rest[1] if len(rest) > 1 else ""
        fit = flag == "1" and name not in _WORDS | _SPANS
        error = rest[2] if len(rest) > 2 and flag in ("0", "1") else ""
        yield Line(name, rest[0], fit, error, select, whole)


def _selected(row: str, name: str, rest: list[str]) -> tuple[str, list[str]]:
    """(which TOAs a line is for, the words after that): `-f NAME`, `TEL gbt`, `NAME x.ar`, `MJD 54000 55000` or
    `FREQ 1000 1500`.
    """
    kind = rest[0].upper() if rest else ""
    words = 3 if kind in _RANGES else 2
    if len(rest) <= words or not (kind.startswith("-") or kind in _COLUMNS | _RANGES):
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
