"""chi2 over two parameters of a pulsar: its table in a config.

`[grid]`, or `grid` of a `[[data]]` table, has the range and the number of points of each parameter. The task calls
`read_grid` when it checks a config, and `timing.chi2_grid` with what is read.
"""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from ...runs import ConfigError, shown
from .._fit import chosen
from .._model import TimingModel

Grid = Mapping[str, np.ndarray]
"""PINT's names of two parameters, each with its values."""


def read_grid(table: Mapping[str, Any], model: TimingModel, where: str) -> Grid:
    """The values of a table such as `{ M2 = [0.2, 0.3, 12], SINI = [0.998, 0.9999, 12] }`: from, to, how many.

    **Raises:** `ConfigError` for other than two parameters that the model has, or other than such lists.
    """
    if len(table) != 2:
        raise ConfigError(where, f"a grid has two parameters, such as M2 and SINI, but there are {len(table)}")
    for name in table:
        try:
            chosen(model, (name,))
        except ValueError as error:
            raise ConfigError(f"{where}.{name}", str(error)) from error
    return {name: _values(value, f"{where}.{name}") for name, value in table.items()}


def _values(value: Any, where: str) -> np.ndarray:
    numbers = isinstance(value, list) and len(value) == 3 and all(type(x) in (int, float) for x in value)
    if not numbers or not all(map(math.isfinite, value)):
        raise ConfigError(where, f"should be [from, to, how many], but it is {shown(value)}")
    low, high, count = value
    if type(count) is not int or count < 2 or not low < high:
        raise ConfigError(
            where, f"should rise from its first number to its second over 2 points or more: {shown(value)}"
        )
    return np.linspace(low, high, count)
