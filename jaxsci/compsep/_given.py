"""What a researcher hands to a door of compsep, made into plain arrays: units converted, masks filled.

`jaxsci.core` reads what arrays carry beside their numbers. This file adds what is peculiar to skies: astropy knows no
K_CMB, and a mask of a map means UNSEEN, while one of weights means no weight. It is also the only file of the room that
asks whether a number can be looked at, or is being traced by a JAX transformation. All doors of the room call it.
"""

from types import ModuleType
from typing import Any, Protocol, TypeAlias, runtime_checkable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike

from ..core import as_float, plain as carried, traced, unit_of
from ._units import split_unit

Given: TypeAlias = ArrayLike | float | int
"""Numbers as a researcher has them: arrays, lists, masked arrays, Quantities of astropy (which are arrays)."""

Values: TypeAlias = np.ndarray | jax.Array
"""An array of NumPy on the host, or of JAX, which may be traced."""

ArrayModule: TypeAlias = ModuleType
"""`numpy` on the host, where a program for each size of a sky would be dear; `jax.numpy` within a program."""


@runtime_checkable
class OnDisk(Protocol):
    """Anything that slices to arrays of NumPy: a memory map, a dataset of h5py, an array."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Its size along each axis."""

    @property
    def dtype(self) -> Any:
        """What its numbers are."""

    def __getitem__(self, key: Any, /) -> Any:
        """Some of its numbers, in memory."""

    def __array__(self, dtype: Any = None, /) -> np.ndarray:
        """All of them."""


def at_hand(x: Values) -> Values:
    """Bring an array to the host, unless it is being traced: NumPy indexes without a program for each shape."""
    return x if traced(x) else np.asarray(x)


_PLAIN = {"K_CMB": "K", "K_RJ": "K", "MJy/sr": "MJy/sr", "y_SZ": ""}
"""What astropy calls the units of the sky. A plain kelvin is of the kind that the maps are declared in."""


def plain(x: Given, what: str, units: str = "", *, fill: float | int = np.nan, power: int = 1) -> Values:
    """Read real numbers as an array: fill what a mask hides, and convert the unit.

    **Arguments:** `what`: the name in messages. `units`: the declared unit, such as `"uK_CMB"` or `"GHz"`; `power`: the
    power of it that the numbers are in, -2 for inverse variances. `fill`: what stands where a mask hides a value.

    **Returns:** an array of NumPy; arrays of JAX, traced ones too, stay what they are.

    **Raises:** `ValueError` for complex numbers, and for a unit that is no multiple of the declared one.
    """
    if isinstance(x, list | tuple) and any(np.ndim(each) or unit_of(each) is not None for each in x):
        rows = [plain(each, f"{what}[{k}]", units, fill=fill, power=power) for k, each in enumerate(x)]
        return (jnp if any(isinstance(row, jax.Array) for row in rows) else np).stack(rows)
    factor = 1.0 if unit_of(x) is None else factor_of(unit_of(x), units, what, power)
    bare, mask = carried(_without_unit(x), what)
    values = bare if isinstance(bare, jax.Array) else np.asarray(bare)
    values = values if factor == 1 else values * factor
    if mask is None:
        return values
    whole = values.dtype == bool or (np.issubdtype(values.dtype, np.integer) and isinstance(fill, int))
    return np.where(mask, fill, values if whole else values.astype(float))


def hidden(x: Given) -> np.ndarray | None:
    """Tell where the mask of a masked array hides a value; None for what has no mask."""
    return carried(_without_unit(x), "the map").hidden


def _without_unit(x: Any) -> Any:
    return x if unit_of(x) is None else x.value


def quantity(what: str, units: str, **kwargs: Any) -> Any:
    """Declare a field of real numbers that is no parameter, given as numbers in this unit or as a quantity."""

    def convert(x: Any) -> Any:
        return as_float(x if unit_of(x) is None else plain(x, what, units), what)

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
