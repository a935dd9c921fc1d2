"""Tim files out: the text of one that was read, with other times of arrival.

Only the times change: flags, comments and the order of lines stay as they were. Files whose commands change TOAs are
refused, since what a line says is then not what was read. `jaxsci timing simulate` writes with it.
"""

from collections.abc import Iterator
from decimal import Context, Decimal

import numpy as np

from ._tim import COMMANDS, COMMENTS
from ._toas import TOAs

_EXACT = Context(prec=40)


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
