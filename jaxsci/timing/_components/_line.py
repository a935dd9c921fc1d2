"""Par files as records: their lines, and what a component declares of those that are its own.

A par file is read in three dialects, converted between two time scales, checked for lines that nobody reads, and
written again. All of that depends on facts about single lines: other names, whether TOAs are selected, the dimension. A
component states them once, beside its physics, as a tuple of `Entry`; the modules that read and write par files ask for
them. `Par` is what every `from_par` gets.
"""

import re
from collections.abc import Callable, Sequence
from decimal import Context, Decimal, InvalidOperation
from typing import NamedTuple

from ...core import Module

EXACT = Context(prec=60)

ONE, FROM_ZERO, FROM_ONE, SERIES, KEYED, TWICE = "one", "from zero", "from one", "series", "keyed", "twice"
"""How the names of a line are made: `F1` from zero, `FD1` from one, `DM, DM1` a series, `DMX_0001` keyed, `FD1JUMP2`
numbered twice."""

PARAMETER, READ, RECORD, FOREIGN = "parameter", "read", "record", "foreign"
"""What a line is for: a parameter of the model that only a model which has it may read; something that is always read;
a record of an earlier fit; a line of another dialect, which is translated away."""

SEXAGESIMAL, PICO, WORD, PAIR, MASKED = "sexagesimal", "pico", "word", "pair", "masked"
"""What the value of a line looks like where it is not just a number: an angle, a number that tempo wrote in units of
1e-12, a word, two numbers, or a number after the selection of some TOAs."""

TCB = ("TCB", "SI")
"""What UNITS says of a par file in TCB; SI is tempo2's word for it."""

_MOST = 1000  # of lines numbered from one end to the other: those between are names too, and take memory
_RANGE = 300
_LARGE = Decimal("1e-7")  # no derivative is larger: a number above this was written in units of 1e-12
_YES, _NO = {"Y", "YES", "1", "TRUE", "T"}, {"N", "NO", "0", "FALSE", "F"}


class Line(NamedTuple):
    """One line: PINT's name, the value as written, whether it is fitted, the error as written, its selection.

    `row`: all words after the name, for a line that is kept as it is because nothing reads it. `look`: what the value
    looks like, such as `SEXAGESIMAL`.
    """

    name: str
    text: str
    fit: bool = False
    error: str = ""
    select: str = ""
    row: str = ""
    look: str = ""

    @property
    def value(self) -> Decimal:
        """The value with all its digits; angles RAJ in hours and DECJ in degrees, derivatives unscaled."""
        if self.look == SEXAGESIMAL:
            return _of_angle(self.text)
        value = number(self.text, self.name)
        return EXACT.multiply(value, Decimal("1e-12")) if self.look == PICO and abs(value) > _LARGE else value


class Par(NamedTuple):
    """A par file: its lines, numbered (`JUMP1`, `JUMP2`, ...) where a name repeats with another selection.

    `zero`: where PHOFF counts from, in turns after phase 0 at PEPOCH: the pulse of TZRMJD, which is known once
    `timing.load` has found when that was; `None` until then, and where PHOFF counts from phase 0 itself.
    """

    lines: tuple[Line, ...]
    zero: Decimal | None = None

    def find(self, name: str) -> Line | None:
        """The line of this name, or `None`."""
        return next((line for line in self.lines if line.name == name), None)

    def word(self, name: str, default: str = "") -> str:
        """The value of a line as it was written, `default` where there is no such line."""
        line = self.find(name)
        return default if line is None else line.text

    def value(self, name: str, default: str | None = "0") -> Decimal:
        """The exact value of a line, `default` where there is no such line.

        **Raises:** `ValueError` naming it when it is missing and there is no default.
        """
        line = self.find(name)
        if line is not None:
            return line.value
        if default is None:
            raise ValueError(f"the par file has no {name}, which this model needs")
        return Decimal(default)

    def seconds(self, name: str, *, needed: bool = False) -> float:
        """Seconds from PEPOCH to another epoch, which is PEPOCH where the par file has none and none is `needed`."""
        start = self.value("PEPOCH", None)
        return float((self.value(name, None if needed else str(start)) - start) * 86400)

    def yes(self, name: str, default: str = "N") -> bool:
        """A switch: Y, YES, 1, TRUE; or N, NO, 0, FALSE.

        **Raises:** `ValueError` for another word.
        """
        word = self.word(name, default).upper()
        if word not in _YES | _NO:
            raise ValueError(f"{name} should be Y or N, but it is {self.word(name)!r}")
        return word in _YES

    def selection(self, name: str) -> str:
        """Which TOAs a line is for, such as `-f L-wide`.

        **Raises:** `ValueError` for a name that the par file does not have.
        """
        line = self.find(name)
        if line is None:
            raise ValueError(f"the par file has no {name}")
        return line.select

    def numbered(self, stem: str, first: int = 1) -> tuple[str, ...]:
        """The names stem<first>, stem<first + 1>, ... up to the last that is there."""
        found = [int(line.name[len(stem) :]) for line in self.lines if is_numbered(line.name, stem)]
        if max(found, default=0) > _MOST:
            raise ValueError(f"the par file has {stem}{max(found)}, but {stem}{_MOST} is the last that there may be")
        return tuple(f"{stem}{k}" for k in range(first, max(found, default=first - 1) + 1))

    def prefixed(self, stem: str) -> tuple[str, ...]:
        """The names that start so, in rising order: `DMX_0001`, `DMX_0002`, ...; any number of digits."""
        found = {int(n.name[len(stem) :]): n.name for n in self.lines if is_numbered(n.name, stem)}
        return tuple(found[k] for k in sorted(found))

    @property
    def was_tcb(self) -> bool:
        """True where the file was in TCB: the values here are in TDB."""
        units = self.find("UNITS")
        return units is not None and units.row.upper() in TCB

    @property
    def free(self) -> tuple[str, ...]:
        """Names of the parameters with a fit flag."""
        return tuple(line.name for line in self.lines if line.fit)


class Respelled(NamedTuple):
    """A pattern of another dialect's names, and what `re.sub` puts in its place."""

    pattern: str
    name: str


class Entry(NamedTuple):
    """What a component declares of a line, or of a family of lines, that is its own.

    - `name`: PINT's, of a family the part before the number. `form`: how the names are made, such as `KEYED`.
    - `role`: what it is for, such as `READ`. `look`: what its value looks like, such as `MASKED`.
    - `aliases`: other names for it in par files of tempo, tempo2 and PINT.
    - `by`: for a keyed line, the family whose numbers it should share; `GLF0_2` goes with `GLEP_2`.
    - `power`: its dimension as a power of time, by which TCB becomes TDB; of a series that of the first, each next one
      lower by 1; `None` for what PINT does not convert. `epoch`: True for a date, which is converted as such.
    - `silent`: True where a line that is 0 stands in many par files, and need not be told of.
    - `respelled`: other names that follow a pattern.
    - `translate`: changes all lines where another dialect says the same by other lines.
    """

    name: str
    form: str = ONE
    role: str = PARAMETER
    look: str = ""
    aliases: tuple[str, ...] = ()
    by: str = ""
    power: int | None = None
    epoch: bool = False
    silent: bool = False
    respelled: Respelled | None = None
    translate: Callable[[list[Line]], list[Line]] | None = None

    @property
    def leaf(self) -> str:
        """The field that holds the parameter, or all of the family."""
        return self.name.rstrip("_")

    @property
    def exact(self) -> bool:
        """True where the name itself is that of a line."""
        return self.form in (ONE, SERIES)

    @property
    def family(self) -> bool:
        """True where lines have the name with a number after it."""
        return self.form in (FROM_ZERO, FROM_ONE, SERIES, KEYED)

    @property
    def pattern(self) -> str:
        """A regular expression for the name before TOAs that it selects are numbered: of `FD1JUMP2` the first part."""
        return re.sub(r"^([A-Z]+?)(JUMP)$", r"\1\\d+\2", self.name) if self.form == TWICE else self.name

    def partner(self, name: str) -> str:
        """The line that one of a family goes with: of `DMXR1_0003` that is `DMX_0003`."""
        return f"{self.by}{name[len(self.name) :]}"

    def elements(self, par: Par) -> tuple[str, ...]:
        """The par file's names of the elements: `F` is F0, F1, ...; `DMX_` all windows in rising order."""
        if self.form == FROM_ZERO:
            return par.numbered(self.name, 0)
        if self.form == FROM_ONE:
            return par.numbered(self.name)
        if self.form == SERIES:
            return (self.name, *par.numbered(self.name))
        if self.form == KEYED:
            if not self.by:
                return par.prefixed(self.name)
            return tuple(f"{self.name}{key[len(self.by) :]}" for key in par.prefixed(self.by))
        if self.form == TWICE:
            named = re.compile(rf"{self.pattern}\d+$")
            found = [line.name for line in par.lines if named.match(line.name)]
            return tuple(sorted(found, key=lambda name: [int(digits) for digits in re.findall(r"\d+", name)]))
        return (self.name,)


class Component(NamedTuple):
    """A component as the par file sees it: an entry of the tuple `COMPONENTS`.

    - `field`: the field of `TimingModel` that holds it, or one of the tuples `delays` and `phases`, which take any
      number; empty for lines that no component of the model reads.
    - `lines`: the lines of a par file that are its own.
    - `from_par`: makes it from a par file; `None` where the par file does not use it.
    """

    field: str
    lines: tuple[Entry, ...]
    from_par: Callable[[Par], Module | None] = lambda par: None


def is_numbered(name: str, stem: str) -> bool:
    """True for a name that is a stem with a number after it, of nine digits at most."""
    digits = name[len(stem) :]
    return name.startswith(stem) and digits.isascii() and digits.isdigit() and len(digits) < 10


def says_zero(text: str) -> bool:
    """True for a number that is written as 0."""
    return not text.strip("0.+-eEdD")


def number(text: str, name: str) -> Decimal:
    """A decimal number, Fortran's D exponents too.

    **Raises:** `ValueError` naming the parameter, also for a number that no float64 holds.
    """
    try:
        value = Decimal(text.upper().replace("D", "E"))
    except InvalidOperation:
        raise ValueError(f"{name} should be a number, but it is {text!r:.60}") from None
    # a whole number of 10^9 digits, which a decimal may stand for, is never worked out to its end
    if not (value.is_finite() and abs(value.adjusted()) <= _RANGE) and not (value.is_infinite() and name == "TZRFRQ"):
        raise ValueError(f"{name} should be a number within 1e-{_RANGE} to 1e{_RANGE}, but it is {text!r:.60}")
    return value


def _of_angle(text: str) -> Decimal:
    """Hours or degrees of `-dd:mm:ss.sss`, all digits kept."""
    parts = text.lstrip("+-").split(":")
    if len(parts) > 3 or any(number(part, "an angle") > 60 for part in parts[1:]):
        raise ValueError(f"{text} is no angle: write it as hh:mm:ss or dd:mm:ss, with minutes and seconds below 60")
    total = Decimal(0)
    for k, part in enumerate(parts):
        total = EXACT.add(total, EXACT.divide(number(part, "an angle"), Decimal(60) ** k))
    return -total if text.startswith("-") else total


def needed_with(par: Par, by: str, entries: Sequence[Entry]) -> None:
    """Raise `ValueError` for a keyed line whose number the family `by` lacks, such as GLF0_2 without a GLEP_2."""
    for entry in entries:
        for name in par.prefixed(entry.name):
            par.value(f"{by}{name.split('_')[1]}", None)
