"""Units of sky brightness and what one is of another at a frequency."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ..core import as_float, plain as carried, suggest, unit_of

H_OVER_K = 6.62607015e-34 * 1e9 / 1.380649e-23
"""Planck's constant over Boltzmann's, K/GHz (both exact in the SI)."""
T_CMB = 2.7255
"""Temperature of the CMB, K (Fixsen 2009)."""
_RJ_TO_MJY = 2 * 1.380649e-23 / 299792458.0**2 * 1e18 * 1e20
_PREFIXES = {"": 1.0, "m": 1e-3, "u": 1e-6, "n": 1e-9}
_BASES = ("K_CMB", "K_RJ", "MJy/sr", "y_SZ")


def split_unit(unit: str) -> tuple[float, str]:
    """(factor, base unit) of a unit with a prefix: `"uK_CMB"` is (1e-6, "K_CMB").

    **Raises:** `ValueError` for a unit that is not known.
    """
    for base in _BASES:
        prefix = unit.removesuffix(base)
        if unit.endswith(base) and prefix in _PREFIXES:
            return _PREFIXES[prefix], base
    known = [f"{prefix}{base}" for base in ("K_CMB", "K_RJ") for prefix in _PREFIXES] + ["MJy/sr", "y_SZ"]
    raise ValueError(f"unknown unit {unit!r}{suggest(unit, known)} (units: {', '.join(known)})")


def conversion(nu: Float[Array, "*f"], source: str, target: str) -> Float[Array, "*f"]:
    """What one `source` is in `target` at frequency nu.

    **Arguments:** `nu`: GHz. `source`, `target`: `K_CMB` (thermodynamic temperature), `K_RJ` (brightness
    temperature), `MJy/sr`, `y_SZ` (Compton parameter), the temperatures also with a prefix m, u or n.

    **Returns:** the factor by which numbers are multiplied, in the shape of nu.

    **Raises:** `ValueError` for a unit that is not known.
    """
    (from_factor, from_base), (to_factor, to_base) = split_unit(source), split_unit(target)
    if from_base == to_base:
        return jnp.full_like(nu, from_factor / to_factor)
    return from_factor / to_factor * _in_rj(nu, from_base) / _in_rj(nu, to_base)


def _in_rj(nu: Array, base: str) -> Array:
    """One unit in K_RJ at nu."""
    if base == "K_RJ":
        return jnp.ones_like(nu)
    if base == "MJy/sr":
        return 1 / (_RJ_TO_MJY * nu**2)
    x = H_OVER_K / T_CMB * nu
    thermal = jnp.exp(x) * x**2 / jnp.expm1(x) ** 2
    if base == "K_CMB":
        return thermal
    return thermal * T_CMB * (x / jnp.tanh(x / 2) - 4)


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
