"""Tim files out: the text of one that was read, with other times of arrival, or of one that is planned.

Only the times change: flags, comments and the order of lines stay as they were. Files whose commands change TOAs are
refused, since what a line says is then not what was read. `jaxsci timing simulate` writes with it, and
`timing.schedule` has PINT read what `planned` writes.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from decimal import Context, Decimal
from typing import NamedTuple

import numpy as np

from ._tim import COMMANDS, COMMENTS
from ._toas import TOAs

_EXACT = Context(prec=40)
_MOST = 1_000_000  # TOAs, which take PINT a day to read


class Band(NamedTuple):
    """One TOA of each date: frequency in MHz, error in microseconds, flags by name."""

    frequency: float
    error: float
    flags: Mapping[str, str]


def planned(mjd: tuple[float, float], cadence: float, bands: Sequence[Band], observatory: str) -> str:
    """A tim file (FORMAT 1) with a TOA of each band every `cadence` days.

    **Raises:** `ValueError` for dates, frequencies, errors, flags or an observatory that cannot be, or too many TOAs.
    """
    start, stop = mjd
    if not (math.isfinite(start) and math.isfinite(stop) and start <= stop):
        raise ValueError(f"mjd should be two numbers, from and to, but it is {tuple(mjd)}")
    if not (math.isfinite(cadence) and cadence > 0):
        raise ValueError(f"cadence should be days, above 0, but it is {cadence}")
    # the last date counts though its quotient may end below a whole number
    dates = math.floor((stop - start) / cadence + 1e-9) + 1
    if not 0 < dates * len(bands) <= _MOST:
        raise ValueError(f"these would be {dates * len(bands)} TOAs; there may be 1 to {_MOST}")
    for band in bands:
        if not band.frequency > 0:
            raise ValueError(f"frequency should be MHz, above 0, but it is {band.frequency}")
        if not (math.isfinite(band.error) and band.error > 0):
            raise ValueError(f"error should be microseconds, above 0, but it is {band.error}")
    words = [observatory, *(word for band in bands for pair in band.flags.items() for word in pair)]
    wrong = next((word for word in words if not word or word.split() != [word]), None)
    if wrong is not None:
        raise ValueError(f"an observatory or a flag is one word, but there is {wrong!r}")
    lines = ["FORMAT 1"]
    for k in range(dates):
        day = f"{start + k * cadence:.12f}"
        for band in bands:
            flags = [f"-{name.removeprefix('-')} {value}" for name, value in band.flags.items()]
            lines.append(" ".join(["planned", f"{band.frequency!r}", day, f"{band.error!r}", observatory, *flags]))
    return "\n".join(lines) + "\n"


def retimed(text: str, before: TOAs, after: TOAs) -> str:
    """A tim file (FORMAT 1) with each TOA later by what moves `before` to `after`.

    That is a difference in TDB, which at the observatory's clock is the same to 1e-8 of itself.

    **Raises:** `ValueError` for a file of another format, with commands that change TOAs, or of another length.
    """
    lines = text.splitlines()
    if ["FORMAT", "1"] not in [line.split() for line in lines]:
        raise ValueError("only tim files of FORMAT 1 can be written anew: write .npz")
    places = list(_toas(lines))
    if len(places) != len(before):
        raise ValueError(f"the tim file has {len(places)} lines of TOAs, but {len(before)} were read: write .npz")
    shift = _difference(before, after)
    for place, seconds in zip(places, shift, strict=True):
        # by single spaces, so that columns stay where they are
        words = lines[place].split(" ")
        at = [k for k, word in enumerate(words) if word][2]
        # a float64 has 1e-11 d, which is a microsecond
        words[at] = f"{_EXACT.add(Decimal(words[at]), _EXACT.divide(Decimal(float(seconds)), Decimal(86400))):.19f}"
        lines[place] = " ".join(words)
    return "\n".join(lines) + "\n"


def _toas(lines: list[str]) -> Iterator[int]:
    for place, line in enumerate(lines):
        words = line.split()
        if not words or line.startswith(COMMENTS) or words[0] in ("FORMAT", "MODE"):
            continue
        if words[0].upper() in COMMANDS:
            raise ValueError(f"the tim file has the command {words[0]}, which changes what it holds: write .npz")
        yield place


def _difference(before: TOAs, after: TOAs) -> np.ndarray:
    day, second, low = (
        np.asarray(getattr(after, name)) - np.asarray(getattr(before, name)) for name in ("day", "second", "second_low")
    )
    return day * 86400 + second + low
