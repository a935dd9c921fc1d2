"""Par files in: names, exact values and flags, with PINT's names whatever the dialect.

`read_par` reads the text of a par file of tempo, tempo2 or PINT and gives its lines as PINT writes them: other names
are replaced, periods become frequencies, BINARY T2 the model that it stands for, and TCB becomes TDB. Which names,
selections and translations there are is asked of the components (`timing._components.LINES`). `TimingModel.parse` is
who calls it.
"""

import re
from collections.abc import Iterator

from . import _tcb
from ._components import (
    LINES,
    MASKED,
    PAIR,
    TCB,
    WORD,
    Line as Line,
    Par as Par,
    entry_of,
    number as number,
)
from ._components._line import FROM_ONE, FROM_ZERO, SERIES

_ALIASES = {alias: entry.name for entry in LINES for alias in entry.aliases}
_RESPELLED = [(re.compile(entry.respelled.pattern), entry.respelled.name) for entry in LINES if entry.respelled]
_MASKED = "|".join(sorted(entry.pattern for entry in LINES if entry.look == MASKED))
_MASKED_ALIASES = "|".join(alias for entry in LINES if entry.look == MASKED for alias in entry.aliases)
_IS_MASKED = re.compile(rf"({_MASKED})$")
_NUMBERED_MASK = re.compile(rf"({_MASKED}|{_MASKED_ALIASES})\d+$")  # JUMP2 of tempo2, whose number says nothing
_PLAIN = [e.name for e in LINES if e.form in (FROM_ZERO, FROM_ONE, SERIES) and e.look != MASKED]
_LEADING_ZEROS = re.compile(rf"({'|'.join(_PLAIN)})0+([1-9]\d*)$")  # DM001 is DM1, but DMX_0001 keeps its name
_WORDS = {entry.name for entry in LINES if entry.look == WORD} | {"DILATEFREQ"}
_SPANS = {"START", "FINISH"}  # a flag there says that only TOAs within are used: nothing is fitted
_LONGEST = 60  # of a name
_RANGES = {"MJD", "FREQ"}
_COLUMNS = {"TEL", "NAME"}  # what selects TOAs by a column of the tim file


def read_par(text: str) -> Par:
    """Read a par file of tempo, tempo2 or PINT, in TDB or in TCB, which becomes TDB.

    **Arguments:** `text`: of the file.

    **Returns:** its lines under PINT's names; those that select TOAs numbered, `JUMP1`, `JUMP2`, ..., as they come.

    **Raises:** `ValueError` for a repeated parameter, a missing or unreadable value.
    """
    lines: dict[str, Line] = {}
    counts: dict[str, int] = {}
    # before lines are numbered: a translation may drop a line that selects TOAs
    rows = list(_lines(text))
    for translate in (entry.translate for entry in LINES if entry.translate is not None):
        rows = translate(rows)
    for line in rows:
        name = line.name
        if is_masked(name):
            counts[name] = counts.get(name, 0) + 1
            name = f"{name}{counts[name]}"
        if name in lines:
            raise ValueError(f"the par file gives {name} twice: {lines[name].text} and {line.text}")
        lines[name] = line._replace(name=name)
    if "UNITS" in lines and lines["UNITS"].text.upper() in TCB:
        return Par(tuple(map(_tcb.converted, lines.values())))
    return Par(tuple(lines.values()))


def is_masked(name: str) -> bool:
    """True for a line that selects TOAs by a flag, before such lines are numbered."""
    return _IS_MASKED.match(name) is not None


def _lines(text: str) -> Iterator[Line]:
    """The lines as they come, under PINT's names."""
    for row in text.splitlines():
        words = row.split("#")[0].split()
        if not words or words[0] == "C":
            continue
        if len(words[0]) > _LONGEST:
            raise ValueError(f"{row.strip()[:_LONGEST]!r} is no line of a par file: its name has no end")
        name = words[0].upper()
        for theirs, ours in _RESPELLED:
            name = theirs.sub(ours, name)
        name = _LEADING_ZEROS.sub(r"\1\2", _NUMBERED_MASK.sub(r"\1", name))
        name = _ALIASES.get(name, name)
        select, rest = "", words[1:]
        if is_masked(name):
            select, rest = _selected(row, name, rest)
        if not rest:
            raise ValueError(f"{row.strip()!r:.80}: {name:.40} has no value; a line of a par file is NAME value")
        whole = " ".join(words[1:])
        entry = entry_of(name)
        if entry is not None and entry.look == PAIR and name != entry.name:
            rest = [" ".join(rest)]
        flag = rest[1] if len(rest) > 1 else ""
        fit = flag == "1" and name not in _WORDS | _SPANS
        error = rest[2] if len(rest) > 2 and flag in ("0", "1") else ""
        yield Line(name, rest[0], fit, error, select, whole, "" if entry is None else entry.look)


def _selected(row: str, name: str, rest: list[str]) -> tuple[str, list[str]]:
    """(which TOAs a line is for, the words after that): `-f NAME`, `TEL gbt`, `NAME x.ar`, `MJD 54000 55000` or
    `FREQ 1000 1500`.
    """
    kind = rest[0].upper() if rest else ""
    words = 3 if kind in _RANGES else 2
    if len(rest) <= words or not (kind.startswith("-") or kind in _COLUMNS | _RANGES):
        raise ValueError(f"{row.strip()!r}: {name} should select TOAs by a flag: `{name} -f NAME value`")
    return " ".join([rest[0] if kind.startswith("-") else kind, *rest[1:words]]), rest[words:]
