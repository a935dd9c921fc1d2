"""Which TOAs of a pulsar a run takes: its table in a config.

`[select]`, or `select` of a `[[data]]` table in its place, has a range of dates, a range of frequencies and flags. The
task calls `selected` when it reads a config, and shows what it says in the report.
"""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

from ...runs import ConfigError, check_keys, first_line, shown, take
from .._toas import TOAs

_KEYS = ("mjd", "frequency", "flags", "invert")


class Selection(NamedTuple):
    """The TOAs that are kept, and how many of how many they are, in words; empty where no table asks."""

    toas: TOAs
    told: str = ""


def selected(toas: TOAs, table: Mapping[str, Any] | None, where: str) -> Selection:
    """The TOAs that a table such as `{ mjd = [54000, 55000], flags = { f = "430_ASP" } }` keeps.

    **Raises:** `ConfigError` for other keys and values, a flag that no TOA has, and where no TOA is left.
    """
    if table is None:
        return Selection(toas)
    check_keys(table, _KEYS, where)
    mjd, frequency = (_range(table, key, where) for key in ("mjd", "frequency"))
    flags = take(table, "flags", dict, where, {})
    for name, wanted in flags.items():
        words = wanted if isinstance(wanted, list) else [wanted]
        if not words or not all(isinstance(word, str) for word in words):
            raise ConfigError(f"{where}.flags.{name}", f"should be a text, or several, but it is {shown(wanted)}")
    invert = take(table, "invert", bool, where, False)
    try:
        kept = toas.select(mjd=mjd, frequency=frequency, flags=flags, invert=invert)
    except ValueError as error:
        raise ConfigError(where, first_line(error)) from error
    return Selection(kept, f"{len(kept)} of {len(toas)} TOAs selected")


def _range(table: Mapping[str, Any], key: str, where: str) -> tuple[float, float] | None:
    value = take(table, key, list, where)
    if value is None:
        return None
    if len(value) != 2 or not all(type(x) in (int, float) and not math.isnan(x) for x in value):
        raise ConfigError(f"{where}.{key}", f"should be two numbers, from and to, but it is {shown(value)}")
    return float(value[0]), float(value[1])
