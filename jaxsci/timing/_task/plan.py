"""Observations that a run simulates: their table in a config.

`simulate` of a `[[data]]` table stands in place of a tim file: what `timing.schedule` takes, and the seed of the noise.
The task calls `read_plan` when it reads a config, and fits the TOAs like any others.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

from ...runs import ConfigError, check_keys, shown, take
from .load import Plan

_KEYS = ("mjd", "cadence", "frequency", "error", "observatory", "flags", "seed")


class Seeded(NamedTuple):
    """A plan, and the seed of its noise; `None` for TOAs without any."""

    plan: Plan
    seed: int | None


def read_plan(table: Mapping[str, Any], where: str) -> Seeded:
    """A table such as `{ mjd = [54000, 56000], cadence = 14, frequency = [800, 1400], error = 0.5, seed = 1 }`.

    **Raises:** `ConfigError` for other keys and values; numbers that make no sense are refused by `timing.schedule`.
    """
    check_keys(table, _KEYS, where)
    for key in ("mjd", "cadence"):
        if key not in table:
            raise ConfigError(where, f"a plan needs {key}, such as mjd = [54000, 56000] and cadence = 14")
    mjd = _numbers(table["mjd"], f"{where}.mjd")
    if len(mjd) != 2:
        raise ConfigError(f"{where}.mjd", f"should be two numbers, from and to, but it is {shown(table['mjd'])}")
    flags = take(table, "flags", (dict, list), where, {})
    for one in flags if isinstance(flags, list) else [flags]:
        if not isinstance(one, dict) or not all(isinstance(value, str) for value in one.values()):
            raise ConfigError(f"{where}.flags", f"should be texts by the names of flags, but it is {shown(one)}")
    frequency, error = table.get("frequency", 1400.0), table.get("error", 1.0)
    plan = Plan(
        (mjd[0], mjd[1]),
        _numbers([table["cadence"]], f"{where}.cadence")[0],
        tuple(_numbers(frequency if isinstance(frequency, list) else [frequency], f"{where}.frequency")),
        _numbers(error, f"{where}.error") if isinstance(error, list) else _numbers([error], f"{where}.error")[0],
        take(table, "observatory", str, where, "gbt"),
        flags,
    )
    return Seeded(plan, take(table, "seed", int, where))


def _numbers(values: object, where: str) -> list[float]:
    if not isinstance(values, list) or not values or not all(type(x) in (int, float) for x in values):
        raise ConfigError(where, f"should be numbers, but it is {shown(values)}")
    return [float(x) for x in values]
