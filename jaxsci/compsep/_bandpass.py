"""Bandpasses: what a detector with a width sees of a spectrum."""

from collections.abc import Callable, Sequence
from typing import Any

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from ..core._module import Module
from ..core._parameter import numbers
from ._units import conversion, split_unit


class Bands(Module):
    """One bandpass for each of f frequency channels, padded to k frequencies.

    - `nu`: GHz, shape (f, k). `weight`: what the spectrum at each is multiplied by before the sum; 0 in the padding.

    `Bands.calibrated` and `Bands.trapezoid` make them from transmissions.
    """

    nu: Float[Array, "f k"] = numbers()
    weight: Float[Array, "f k"] = numbers()

    @staticmethod
    def calibrated(nu: Sequence[Any], transmission: Sequence[Any], units: str = "K_CMB") -> "Bands":
        """Bands of channels that are calibrated to read `units` right.

        A_f = int t S (dI/dU) dnu / int t (dI/dU) dnu, with S in the unit U and I the intensity (Planck 2013
        results IX, eq. 32), by the trapezoid rule.

        **Arguments:** `nu`: for each channel its frequencies in GHz, rising. `transmission`: the same of the
        response to intensity (`W/m2/Hz/sr`). `units`: the unit of the spectra and maps.

        **Raises:** `ValueError` for lengths that differ, frequencies that do not rise, or no transmission at all.
        """
        nus, weights = [], []
        for frequency, response in _channels(nu, transmission):
            power = response / conversion(frequency, "MJy/sr", split_unit(units)[1]) * _spacing(frequency)
            nus.append(frequency)
            weights.append(power / jnp.sum(power))
        return _padded(nus, weights)

    @staticmethod
    def trapezoid(nu: Sequence[Any], transmission: Sequence[Any]) -> "Bands":
        """Bands that integrate spectrum times transmission over frequency in Hz, and normalise nothing.

        **Arguments:** as in `calibrated`.
        """
        pairs = list(_channels(nu, transmission))
        return _padded([f for f, _ in pairs], [t * _spacing(f) * 1e9 for f, t in pairs])

    def integrate(self, spectrum: Callable[[Float[Array, " n"]], Float[Array, "n c"]]) -> Float[Array, "f c"]:
        """The weighted sums of a spectrum (or of c of them) over each band."""
        f, k = self.nu.shape
        values = spectrum(self.nu.ravel())
        return jnp.sum(values.reshape(f, k, -1) * self.weight[:, :, None], axis=1)


Frequencies = Float[Array, " f"] | Bands
"""Frequencies in GHz, or bandpasses."""


def as_frequencies(nu: Any) -> Any:
    """Arrays for numbers; `Bands` as they are."""
    return nu if isinstance(nu, eqx.Module) else jnp.asarray(nu, float)


def over_bands(spectrum: Callable[[Array], Array], nu: Any) -> Float[Array, "f c"]:
    """A function of frequencies at frequencies, or integrated over bands."""
    return nu.integrate(spectrum) if isinstance(nu, Bands) else spectrum(nu)


def channel_count(nu: Any) -> int:
    """How many channels there are."""
    return nu.nu.shape[0] if isinstance(nu, Bands) else nu.shape[0]


def _channels(nu: Sequence[Any], transmission: Sequence[Any]) -> Any:
    for k, (frequency, response) in enumerate(zip(nu, transmission, strict=True)):
        f, t = jnp.asarray(frequency, float), jnp.asarray(response, float)
        if f.shape != t.shape or f.ndim != 1 or f.size < 2:
            raise ValueError(f"band {k}: nu has shape {f.shape}, transmission {t.shape}; both should be (k,), k > 1")
        if not bool(jnp.all(jnp.diff(f) > 0)):
            raise ValueError(f"band {k}: frequencies should rise")
        if not bool(jnp.any(t > 0)) or not bool(jnp.all(jnp.isfinite(t))):
            raise ValueError(f"band {k}: the transmission is nowhere positive, or not finite")
        yield f, t


def _spacing(nu: Array) -> Array:
    """Weights of the trapezoid rule."""
    step = jnp.diff(nu)
    return (jnp.pad(step, (1, 0)) + jnp.pad(step, (0, 1))) / 2


def _padded(nu: list[Array], weight: list[Array]) -> Bands:
    k = max(f.size for f in nu)
    longer = [jnp.pad(f, (0, k - f.size), mode="edge") for f in nu]
    return Bands(jnp.stack(longer), jnp.stack([jnp.pad(w, (0, k - w.size)) for w in weight]))
