"""Units of sky brightness, and what one of them is of another at a frequency.

Maps come in thermodynamic temperature, brightness temperature, intensity or Compton's y, each with or without a prefix.
Spectra, bandpasses, instruments and files all convert by the one function `conversion`, so that a constant of nature
stands in this file only.
"""

import jax.numpy as jnp
from jaxtyping import Array, Float

from ..core import suggest

H_OVER_K = 6.62607015e-34 * 1e9 / 1.380649e-23
"""Planck's constant over Boltzmann's, K/GHz (both exact in the SI)."""
T_CMB = 2.7255
"""Temperature of the CMB, K (Fixsen 2009)."""
_RJ_TO_MJY = 2 * 1.380649e-23 / 299792458.0**2 * 1e18 * 1e20
_PREFIXES = {"": 1.0, "m": 1e-3, "u": 1e-6, "n": 1e-9}
_BASES = ("K_CMB", "K_RJ", "MJy/sr", "y_SZ")


def split_unit(unit: str) -> tuple[float, str]:
    """Split a unit with a prefix into (factor, base unit): `"uK_CMB"` is (1e-6, "K_CMB").

    **Raises:** `ValueError` for a unit that is not known.
    """
    for base in _BASES:
        prefix = unit.removesuffix(base)
        if unit.endswith(base) and prefix in _PREFIXES:
            return _PREFIXES[prefix], base
    known = [f"{prefix}{base}" for base in ("K_CMB", "K_RJ") for prefix in _PREFIXES] + ["MJy/sr", "y_SZ"]
    raise ValueError(f"unknown unit {unit!r}{suggest(unit, known)} (units: {', '.join(known)})")


def conversion(nu: Float[Array, "*f"] | float, source: str, target: str) -> Float[Array, "*f"]:
    """Compute what one `source` is in `target` at frequency nu.

    **Arguments:** `nu`: GHz. `source`, `target`: `K_CMB` (thermodynamic temperature), `K_RJ` (brightness
    temperature), `MJy/sr`, `y_SZ` (Compton parameter), the temperatures also with a prefix m, u or n.

    **Returns:** the factor by which numbers are multiplied, in the shape of nu.

    **Raises:** `ValueError` for a unit that is not known.
    """
    nu = jnp.asarray(nu)
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
