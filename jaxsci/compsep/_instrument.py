"""Instruments: frequencies, bandpasses, depths and beams of the channels.

A door of this room takes its channels as an `Instrument`, as `Bands`, or as plain frequencies in GHz. All become
`Frequencies` here, and a spectrum is evaluated at those or integrated over bands by one function, so that nothing else
has to ask which they are. Depths become the noise of a pixel where no other noise is given.
"""

import functools
import importlib.resources
import math
import os
import tomllib
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ..core import Module, describe, numbers, require_positive, suggest, traced
from ._given import Given, Values, plain, quantity
from ._units import conversion, split_unit

_ARCMIN = 180 * 60 / math.pi
_BANDPASS = "BANDPASS_"
_TO_GHZ = {"1/cm": 29.9792458, "cm-1": 29.9792458, "cm^-1": 29.9792458, "ghz": 1.0, "hz": 1e-9}
_LARGEST = 1e6  # GHz: what is above is in Hz
_LEAK = 1e-3  # of the largest transmission, that a band may have at 0 GHz


class Bands(Module):
    """Hold one bandpass for each of f frequency channels, padded to k frequencies.

    - `nu`: GHz, shape (f, k). `weight`: what the spectrum at each is multiplied by before the sum; 0 in the padding,
      where the frequency does not matter.

    `Bands.calibrated` and `Bands.trapezoid` make them from transmissions, `Bands.from_rimo` from Planck's files.
    """

    nu: Float[Array, "f k"] = numbers()
    weight: Float[Array, "f k"] = numbers()

    @staticmethod
    def calibrated(nu: Sequence[Given], transmission: Sequence[Given], units: str = "K_CMB") -> "Bands":
        """Make the bands of channels that are calibrated to read `units` right.

        A_f = int t S (dI/dU) dnu / int t (dI/dU) dnu, with S in the unit U and I the intensity (Planck 2013
        results IX, eq. 32), by the trapezoid rule.

        **Arguments:** `nu`: for each channel its frequencies in GHz, rising; one that comes twice is a jump of the
        transmission, and 0 GHz, where no spectrum has a value, counts as without any. `transmission`: the same of the
        response to intensity (`W/m2/Hz/sr`). `units`: the unit of the spectra and maps.

        **Raises:** `ValueError` for lengths that differ, frequencies that do not rise, transmissions that are not
        finite, at 0 GHz, or not there at all.
        """
        at, weight = _steps(nu, transmission)
        power = weight / conversion(_seen(at, weight), "MJy/sr", split_unit(units)[1])
        total = jnp.sum(power, axis=1, keepdims=True)
        bad = np.flatnonzero(~(np.isfinite(total) & (total != 0)))
        if len(bad):
            raise ValueError(f"band {bad[0]}: the transmission has a sum of {float(total[bad[0], 0])} in {units}")
        return Bands(jnp.asarray(at), jnp.asarray(power / total))

    @staticmethod
    def trapezoid(nu: Sequence[Given], transmission: Sequence[Given]) -> "Bands":
        """Make bands that integrate spectrum times transmission over frequency in Hz, and normalise nothing.

        **Arguments:** as in `calibrated`.
        """
        at, weight = _steps(nu, transmission)
        return Bands(jnp.asarray(at), jnp.asarray(weight * 1e9))

    @staticmethod
    def from_rimo(path: str | os.PathLike[str], channels: Sequence[str] | None = None, units: str = "K_CMB") -> "Bands":
        """Read bands from a Reduced Instrument Model of Planck (`HFI_RIMO_R1.10.fits`), as `calibrated` makes them.

        Each is a table `BANDPASS_<channel>` with a `WAVENUMBER` (1/cm, or a frequency, as its TUNIT says) and a
        `TRANSMISSION`. Uncertainties and flags (of samples interpolated around CO lines) are not used.

        **Arguments:** `path`: of the FITS file, which may be compressed. `channels`: such as `("F100", "F143")`; `None`
        for all frequency channels, in the order of the file, without single detectors. `units`: as in `calibrated`.

        **Raises:** `ValueError` for a file without such tables, a channel that it has not, an unknown unit, and what
        `calibrated` raises; `ModuleNotFoundError` without astropy, which `pip install 'jaxsci[sky]'` brings.
        """
        from .io import opened_fits

        nus, responses = [], []
        with opened_fits(path) as file:
            tables = {hdu.name.removeprefix(_BANDPASS): hdu for hdu in file if hdu.name.startswith(_BANDPASS)}
            wanted = [name for name in tables if "-" not in name] if channels is None else list(channels)
            if not tables:
                raise ValueError(f"{path} has no table named {_BANDPASS}<channel>")
            for name in wanted:
                if name not in tables:
                    raise ValueError(
                        f"{path} has no bandpass of {name!r}{suggest(name, tables)} (channels: {', '.join(tables)})"
                    )
                columns = {column.name.upper(): column for column in tables[name].columns}
                if not {"WAVENUMBER", "TRANSMISSION"} <= set(columns):
                    raise ValueError(f"{path}: {_BANDPASS}{name} has {', '.join(columns)}, no WAVENUMBER, TRANSMISSION")
                unit = str(columns["WAVENUMBER"].unit or "").strip().lower()
                if unit not in _TO_GHZ:
                    raise ValueError(
                        f"{path}: WAVENUMBER of {name} is in {unit or 'no unit'}; it should be in {', '.join(_TO_GHZ)}"
                    )
                nus.append(np.asarray(tables[name].data["WAVENUMBER"], float) * _TO_GHZ[unit])
                responses.append(np.asarray(tables[name].data["TRANSMISSION"], float))
        return Bands.calibrated(nus, responses, units)

    def integrate(self, spectrum: Callable[[Float[Array, " n"]], Float[Array, "n c"]]) -> Float[Array, "f c"]:
        """Sum a spectrum (or c of them) over each band with its weights.

        **Arguments:** `spectrum`: a function of frequencies in GHz.
        """
        f, k = self.nu.shape
        values = spectrum(_seen(self.nu, self.weight).ravel())
        return jnp.sum(values.reshape(f, k, -1) * self.weight[:, :, None], axis=1)


Frequencies: TypeAlias = Float[Array, " f"] | Bands
"""Frequencies in GHz, or bandpasses."""


def over_bands(spectrum: Callable[[Array], Array], nu: Frequencies) -> Float[Array, "f c"]:
    """Evaluate a function of frequencies at frequencies, or integrate it over bands."""
    return nu.integrate(spectrum) if isinstance(nu, Bands) else spectrum(nu)


def channel_count(nu: Frequencies) -> int:
    """Count the channels."""
    return nu.nu.shape[0] if isinstance(nu, Bands) else nu.shape[0]


def _steps(nu: Sequence[Given], transmission: Sequence[Given]) -> tuple[np.ndarray, np.ndarray]:
    """(frequencies, transmissions times the steps of the trapezoid rule) of all channels (f, k), with zeros beyond."""
    nus, weights = [], []
    for k, (frequency, response) in enumerate(zip(nu, transmission, strict=True)):
        f = np.asarray(plain(frequency, f"frequencies of band {k}", "GHz"), float)
        t = np.asarray(plain(response, f"transmission of band {k}", fill=0.0), float)
        if f.shape != t.shape or f.ndim != 1 or f.size < 2:
            raise ValueError(f"band {k}: nu has shape {f.shape}, transmission {t.shape}; both should be (k,), k > 1")
        if not np.all(np.diff(f) >= 0) or f[0] == f[-1]:
            raise ValueError(f"band {k}: frequencies should rise")
        if not np.any(t > 0) or not np.all(np.isfinite(t)):
            raise ValueError(f"band {k}: the transmission is nowhere positive, or not finite")
        if f[0] < 0 or np.any(np.abs(t[f == 0]) > _LEAK * np.max(t)):
            raise ValueError(f"band {k} transmits at {f[0]:g} GHz, where no spectrum has a value: cut it off")
        step = np.diff(f)
        nus.append(f)
        weights.append(np.where(f > 0, t * (np.pad(step, (1, 0)) + np.pad(step, (0, 1))) / 2, 0))
    k = max(f.size for f in nus)
    longer = [np.pad(f, (0, k - f.size), mode="edge") for f in nus]
    return np.stack(longer), np.stack([np.pad(w, (0, k - w.size)) for w in weights])


def _seen(nu: Values, weight: Values) -> Array:
    """The frequencies, where there is no weight those that have most: a spectrum may be infinite there, at 0 say."""
    most = jnp.argmax(jnp.abs(weight), axis=1, keepdims=True)
    return jnp.where(weight != 0, nu, jnp.take_along_axis(jnp.asarray(nu), most, axis=1))


class Instrument(Module):
    """Describe frequency channels and what is known of their noise.

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

    def __check_init__(self) -> None:
        for name, unit in (("frequency", "GHz"), ("depth_i", "uK arcmin"), ("depth_p", "uK arcmin")):
            if isinstance(getattr(self, name), jax.Array):
                require_positive(getattr(self, name), name, unit)
        if isinstance(self.frequency, jax.Array):
            _check_gigahertz(self.frequency)
        if isinstance(self.fwhm, jax.Array) and not traced(self.fwhm) and not np.all(np.asarray(self.fwhm) >= 0):
            raise ValueError(f"fwhm should be widths of beams in arcmin, 0 or more, but they are {self.fwhm}")

    @staticmethod
    def named(name: str) -> "Instrument":
        """Look up one of the bundled instruments, such as `"LiteBIRD"`: see `instruments()`.

        **Raises:** `ValueError` for a name that is not among them.
        """
        table = _table()
        if name not in table:
            raise ValueError(f"unknown instrument {name!r}{suggest(name, table)} (instruments: {', '.join(table)})")
        return Instrument(**table[name], name=name)

    @property
    def nu(self) -> Frequencies:
        """The bandpasses where there are some, else the frequencies in GHz."""
        return self.frequency if self.bands is None else self.bands

    def sigma(self, npix: int, stokes: str, units: str = "uK_CMB") -> Float[Array, "f s"]:
        """Compute the standard deviation of the noise of a pixel, for each channel and Stokes parameter.

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


def _check_gigahertz(nu: Values) -> None:
    """Raise `ValueError` where frequencies cannot be in GHz: those of light begin at a million."""
    if not traced(nu) and np.any(np.asarray(nu) > _LARGEST):
        raise ValueError(f"frequency is in GHz, but one is {np.max(np.asarray(nu)):g}: is that in Hz?")


Channels: TypeAlias = Instrument | Bands | Given
"""What a door takes for its channels: an instrument, bandpasses, or frequencies in GHz."""


def frequencies_of(channels: Channels) -> Frequencies:
    """Find the frequencies of an instrument, or read numbers in GHz; `Bands` stay what they are."""
    nu = channels.nu if isinstance(channels, Instrument) else channels
    if isinstance(nu, Bands):
        return nu
    if isinstance(nu, eqx.Module | type):
        raise ValueError(f"instrument should be an Instrument, Bands or frequencies in GHz, but it is {describe(nu)}")
    found = jnp.asarray(plain(nu, "frequencies", "GHz"), float)
    require_positive(found, "frequencies", "GHz")
    _check_gigahertz(found)
    return found


def instruments() -> tuple[str, ...]:
    """List the names of the bundled instruments."""
    return tuple(_table())


@functools.cache
def _table() -> dict[str, Any]:
    text = (importlib.resources.files("jaxsci") / "data" / "compsep" / "instruments.toml").read_text("utf-8")
    return {name: {k: v for k, v in entry.items() if k in _FIELDS} for name, entry in tomllib.loads(text).items()}


_FIELDS = ("frequency", "depth_i", "depth_p", "fwhm")
