"""Sines and cosines in time: of delay, of dispersion, of chromatic measure, of phase."""

import math

import jax.numpy as jnp
from jaxtyping import Array, Float

from ..core import Module, Scalar, numbers, param
from ._constants import DAY


class WaveX(Module):
    """Delay: sum_k WXSIN_k sin(2 pi f_k t) + WXCOS_k cos(2 pi f_k t), t from WXEPOCH less all delays so far.

    `WXSIN`, `WXCOS`: offsets from the reference values (`*_ref`), shape (k,), s. `frequency`: f, 1/d. `epoch`: WXEPOCH,
    s from PEPOCH.
    """

    WXSIN: Float[Array, " k"] = param(unit="s")
    WXCOS: Float[Array, " k"] = param(unit="s")
    WXSIN_ref: Float[Array, " k"] = numbers()
    WXCOS_ref: Float[Array, " k"] = numbers()
    frequency: Float[Array, " k"] = numbers()
    epoch: Scalar = numbers()

    def delay(self, time: Float[Array, " n"]) -> Float[Array, " n"]:
        """The delay, s, at `time` in s from PEPOCH."""
        angle = angles(time - self.epoch, self.frequency)
        return (self.WXSIN + self.WXSIN_ref) @ jnp.sin(angle) + (self.WXCOS + self.WXCOS_ref) @ jnp.cos(angle)


class DMWaveX(Module):
    """Sines and cosines of dispersion measure: offsets of DMWXSIN and DMWXCOS from `*_ref`, shape (k,), pc cm^-3."""

    DMWXSIN: Float[Array, " k"] = param(unit="pc cm^-3")
    DMWXCOS: Float[Array, " k"] = param(unit="pc cm^-3")
    DMWXSIN_ref: Float[Array, " k"] = numbers()
    DMWXCOS_ref: Float[Array, " k"] = numbers()
    frequency: Float[Array, " k"] = numbers()
    epoch: Scalar = numbers()

    def measure(self, time: Float[Array, " n"]) -> Float[Array, " n"]:
        """Dispersion measure at `time` in s from PEPOCH."""
        angle = angles(time - self.epoch, self.frequency)
        return (self.DMWXSIN + self.DMWXSIN_ref) @ jnp.sin(angle) + (self.DMWXCOS + self.DMWXCOS_ref) @ jnp.cos(angle)


class CMWaveX(Module):
    """Sines and cosines of chromatic measure: offsets of CMWXSIN and CMWXCOS from `*_ref`, shape (k,)."""

    CMWXSIN: Float[Array, " k"] = param(unit="pc cm^-3")
    CMWXCOS: Float[Array, " k"] = param(unit="pc cm^-3")
    CMWXSIN_ref: Float[Array, " k"] = numbers()
    CMWXCOS_ref: Float[Array, " k"] = numbers()
    frequency: Float[Array, " k"] = numbers()
    epoch: Scalar = numbers()

    def measure(self, time: Float[Array, " n"]) -> Float[Array, " n"]:
        """Chromatic measure at `time` in s from PEPOCH."""
        angle = angles(time - self.epoch, self.frequency)
        return (self.CMWXSIN + self.CMWXSIN_ref) @ jnp.sin(angle) + (self.CMWXCOS + self.CMWXCOS_ref) @ jnp.cos(angle)


class Wave(Module):
    """Harmonics of phase, F0 sum_k A_k sin(k w t) + B_k cos(k w t), as tempo writes them; not fitted.

    `sine`, `cosine`: A and B, shape (k,), s. `rate`: w, rad/d. `epoch`: WAVEEPOCH, s from PEPOCH.
    """

    sine: Float[Array, " k"] = numbers()
    cosine: Float[Array, " k"] = numbers()
    rate: Scalar = numbers()
    epoch: Scalar = numbers()

    def phase(self, time: Float[Array, " n"], frequency: Array) -> Float[Array, " n"]:
        """Turns at `time` in s from PEPOCH at the pulsar, `frequency` F0 in Hz."""
        harmonics = jnp.arange(1.0, self.sine.shape[0] + 1) * self.rate / (2 * math.pi)
        angle = angles(time - self.epoch, harmonics)
        return frequency * (self.sine @ jnp.sin(angle) + self.cosine @ jnp.cos(angle))


def angles(time: Float[Array, " n"], frequency: Float[Array, " k"]) -> Float[Array, "k n"]:
    """2 pi f t, rad: time in s, frequency in 1/d."""
    return 2 * math.pi / DAY * frequency[:, None] * time[None, :]
