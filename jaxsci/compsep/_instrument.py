"""Instruments: frequencies, depths and beams."""

import functools
import importlib.resources
import math
import tomllib
from typing import Any

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from ..core import Module, suggest
from ._analytic import AnalyticSED
from ._bandpass import Bands
from ._given import quantity
from ._sed import TabulatedSED, units_of
from ._units import conversion, split_unit

_ARCMIN = 180 * 60 / math.pi


class Instrument(Module):
    """Frequency channels and what is known of their noise.

    **Arguments:** `frequency`: GHz. `depth_i`, `depth_p`: noise of intensity and polarisation, uK_CMB arcmin, `None`
    where unknown. `fwhm`: of the beams, arcmin. `bands`: bandpasses in place of the frequencies. Quantities of astropy
    are converted.
    """

    frequency: Float[Array, " f"] = quantity("frequency", "GHz")
    depth_i: Float[Array, " f"] | None = quantity("depth_i", "uK arcmin", default=None)
    depth_p: Float[Array, " f"] | None = quantity("depth_p", "uK arcmin", default=None)
    fwhm: Float[Array, " f"] | None = quantity("fwhm", "arcmin", default=None)
    bands: Bands | None = None
    name: str = eqx.field(static=True, default="")

    @staticmethod
    def named(name: str) -> "Instrument":
        """One of the bundled instruments, such as `"LiteBIRD"`: see `instruments()`.

        **Raises:** `ValueError` for a name that is not among them.
        """
        table = _table()
        if name not in table:
            raise ValueError(f"unknown instrument {name!r}{suggest(name, table)} (instruments: {', '.join(table)})")
        return Instrument(**table[name], name=name)

    @property
    def nu(self) -> Any:
        """Bandpasses where there are some, else frequencies."""
        return self.frequency if self.bands is None else self.bands

    def sigma(self, npix: int, stokes: str, units: str = "uK_CMB") -> Float[Array, "f s"]:
        """Standard deviation of the noise of a pixel, for each channel and Stokes parameter.

        **Arguments:** `npix`: pixels of the full sky. `stokes`: such as `"IQU"`. `units`: of the maps.

        **Raises:** `ValueError` where a depth that is needed is not known.
        """
        side = math.sqrt(4 * math.pi / npix) * _ARCMIN
        columns = []
        for letter in stokes:
            depth = self.depth_i if letter == "I" else self.depth_p
            if depth is None:
                raise ValueError(f"{self.name or 'the instrument'} has no depth of {letter}: give the noise instead")
            columns.append(depth / side * conversion(self.frequency, "uK_CMB", units))
        return jnp.stack(columns, axis=1)


def instruments() -> tuple[str, ...]:
    """Names of the bundled instruments."""
    return tuple(_table())


@functools.cache
def _table() -> dict[str, Any]:
    text = (importlib.resources.files("jaxsci") / "data" / "compsep" / "instruments.toml").read_text("utf-8")
    return {name: {k: v for k, v in entry.items() if k in _FIELDS} for name, entry in tomllib.loads(text).items()}


_FIELDS = ("frequency", "depth_i", "depth_p", "fwhm")


def check_units(mixing: Any, units: str) -> None:
    """Raise where a component's spectrum is in another unit than the maps.

    **Raises:** `ValueError` naming the component and both units.
    """
    base = split_unit(units)[1]
    for name, component in zip(mixing.names, mixing.components, strict=True):
        own = units_of(component)
        if own is not None and own != base:
            written = isinstance(component, AnalyticSED | TabulatedSED) and component.given is None
            more = f" (and given={own!r}, if its numbers are in {own})" if written else ""
            raise ValueError(
                f"component {name!r} is in {own}, but the maps are in {units}: make it with units={base!r}{more}, "
                "or convert the maps"
            )
