"""What a door of compsep is handed: as everywhere, with the units of the sky, and with masks filled.

`jaxsci.core` tells what arrays carry beside their numbers. astropy knows no K_CMB, though, and a mask of a map means
UNSEEN, one of weights no weight.
"""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from ..core import as_float, plain as carried, unit_of
from ._units import split_unit

_PLAIN = {"K_CMB": "K", "K_RJ": "K", "MJy/sr": "MJy/sr", "y_SZ": ""}
"""What astropy calls the units of the sky. A plain kelvin is of the kind that the maps are declared in."""


def plain(x: Any, what: str, units: str = "", *, fill: Any = np.nan, power: int = 1) -> Any:
    """Real numbers as an array, the mask filled and the unit converted; tracers and arrays as they are.

    **Arguments:** `what`: the name in messages. `units`: the declared unit, such as `"uK_CMB"` or `"GHz"`; `power`: of
    it that the numbers have, -2 for inverse variances. `fill`: what stands where a mask hides a value.

    **Raises:** `ValueError` for complex numbers, and for a unit that is no multiple of the declared one.
    """
    if isinstance(x, list | tuple) and any(np.ndim(each) or unit_of(each) is not None for each in x):
        rows = [plain(each, f"{what}[{k}]", units, fill=fill, power=power) for k, each in enumerate(x)]
        return (jnp if any(isinstance(row, jax.Array) for row in rows) else np).stack(rows)
    factor = 1.0 if unit_of(x) is None else factor_of(unit_of(x), units, what, power)
    x, mask = carried(x if unit_of(x) is None else x.value, what)
    x = x if isinstance(x, jax.Array) else np.asarray(x)
    x = x if factor == 1 else x * factor
    if mask is None:
        return x
    whole = x.dtype == bool or (np.issubdtype(x.dtype, np.integer) and isinstance(fill, int))
    return np.where(mask, fill, x if whole else x.astype(float))


def hidden(x: Any) -> np.ndarray | None:
    """Where the mask of a masked array hides a value; None of what has no mask."""
    return carried(x if unit_of(x) is None else x.value, "the map").hidden


def quantity(what: str, units: str, **kwargs: Any) -> Any:
    """Declare a field of real numbers that is no parameter, given as numbers in this unit or as a quantity."""

    def convert(x: Any) -> Any:
        return as_float(x if unit_of(x) is None else plain(x, what, units))

    return eqx.field(converter=convert, **kwargs)


def factor_of(unit: Any, units: str, what: str, power: int = 1) -> float:
    """What a number in `unit` is multiplied by to be one in `units` to this power.

    **Raises:** `ValueError` naming both.
    """
    root = unit if power == 1 or isinstance(unit, str) else unit ** (1 / power)
    declared = units if power == 1 else f"({units})^{power}"
    try:
        size, base = split_unit(units)
    except ValueError:
        size, base = 1.0, ""
    try:
        own, kind = split_unit(str(root).replace(" ", ""))
        if kind == base:
            return (own / size) ** power
    except ValueError:
        to = getattr(root, "to", None)
        try:
            if to is not None:
                return (float(to(_PLAIN.get(base, units))) / size) ** power
        except (ValueError, TypeError):  # of astropy's, for a unit of another kind
            pass
    raise ValueError(f"{what} has the unit {unit}, but {declared or 'plain numbers'} is declared: convert it first")
