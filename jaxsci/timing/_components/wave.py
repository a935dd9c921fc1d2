"""Sines and cosines in time: of delay, of dispersion, of chromatic measure, of phase.

A Fourier series with frequencies of its own stands for red noise where one wants the realisation rather than its
statistics (PINT's WaveX family), or whitens residuals (tempo's WAVE). The four differ in what they add to: seconds,
dispersion measure, chromatic measure or turns.
"""

import math
from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float

from ...core import Module, Scalar, numbers, param
from .._constants import DAY
from ._line import FROM_ONE, KEYED, PAIR, READ, Component, Entry, Par
from ._passage import AbstractDelay, AbstractPhase, Passage, Rotation
from ._read import Values, pairs, since, values_of


class WaveX(AbstractDelay):
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

    @staticmethod
    def from_par(par: Par) -> "WaveX | None":
        """The waves of a par file; `None` without any. Raises `ValueError` for one without WXSIN or WXCOS."""
        found = _series(par, "WX")
        if found is None:
            return None
        (sine, sine_ref), (cosine, cosine_ref) = found.sine, found.cosine
        return WaveX(sine, cosine, sine_ref, cosine_ref, found.frequency, found.epoch)

    def delay(self, way: Passage) -> Float[Array, " n"]:
        angle = angles(way.time - way.delay - self.epoch, self.frequency)
        return (self.WXSIN + self.WXSIN_ref) @ jnp.sin(angle) + (self.WXCOS + self.WXCOS_ref) @ jnp.cos(angle)


class DMWaveX(Module):
    """Sines and cosines of dispersion measure: offsets of DMWXSIN and DMWXCOS from `*_ref`, shape (k,), pc cm^-3."""

    DMWXSIN: Float[Array, " k"] = param(unit="pc cm^-3")
    DMWXCOS: Float[Array, " k"] = param(unit="pc cm^-3")
    DMWXSIN_ref: Float[Array, " k"] = numbers()
    DMWXCOS_ref: Float[Array, " k"] = numbers()
    frequency: Float[Array, " k"] = numbers()
    epoch: Scalar = numbers()

    @staticmethod
    def from_par(par: Par) -> "DMWaveX | None":
        """The waves of a par file; `None` without any. Raises `ValueError` for one without DMWXSIN or DMWXCOS."""
        found = _series(par, "DMWX")
        if found is None:
            return None
        (sine, sine_ref), (cosine, cosine_ref) = found.sine, found.cosine
        return DMWaveX(sine, cosine, sine_ref, cosine_ref, found.frequency, found.epoch)

    def measure(self, time: Float[Array, " n"]) -> Float[Array, " n"]:
        """Compute the dispersion measure, pc cm^-3, at `time` in s from PEPOCH."""
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

    @staticmethod
    def from_par(par: Par) -> "CMWaveX | None":
        """The waves of a par file; `None` without any. Raises `ValueError` for one without CMWXSIN or CMWXCOS."""
        found = _series(par, "CMWX")
        if found is None:
            return None
        (sine, sine_ref), (cosine, cosine_ref) = found.sine, found.cosine
        return CMWaveX(sine, cosine, sine_ref, cosine_ref, found.frequency, found.epoch)

    def measure(self, time: Float[Array, " n"]) -> Float[Array, " n"]:
        """Compute the chromatic measure, pc cm^-3 MHz^(index - 2), at `time` in s from PEPOCH."""
        angle = angles(time - self.epoch, self.frequency)
        return (self.CMWXSIN + self.CMWXSIN_ref) @ jnp.sin(angle) + (self.CMWXCOS + self.CMWXCOS_ref) @ jnp.cos(angle)


class Wave(AbstractPhase):
    """Harmonics of phase, F0 sum_k A_k sin(k w t) + B_k cos(k w t), as tempo writes them; not fitted.

    `sine`, `cosine`: A and B, shape (k,), s. `rate`: w, rad/d. `epoch`: WAVEEPOCH, s from PEPOCH.
    """

    sine: Float[Array, " k"] = numbers()
    cosine: Float[Array, " k"] = numbers()
    rate: Scalar = numbers()
    epoch: Scalar = numbers()

    @staticmethod
    def from_par(par: Par) -> "Wave | None":
        """The harmonics of a par file; `None` without any.

        **Raises:** `ValueError` without WAVE_OM, and for lines that do not hold two numbers.
        """
        names = _WAVE.elements(par)
        if not names:
            return None
        found = pairs(par, names, "of a sine and of a cosine")
        sine = jnp.asarray([float(pair.first) for pair in found])
        cosine = jnp.asarray([float(pair.second) for pair in found])
        return Wave(sine, cosine, jnp.asarray(float(par.value("WAVE_OM", None))), since(par, "WAVEEPOCH"))

    def phase(self, at: Rotation) -> Float[Array, " n"]:
        # WAVE_OM is an angular frequency, the others are in cycles per day
        harmonics = jnp.arange(1.0, self.sine.shape[0] + 1) * self.rate / (2 * math.pi)
        angle = angles(at.time - self.epoch, harmonics)
        return at.frequency * (self.sine @ jnp.sin(angle) + self.cosine @ jnp.cos(angle))


def angles(time: Float[Array, " n"], frequency: Float[Array, " k"]) -> Float[Array, "k n"]:
    """2 pi f t, rad: time in s, frequency in 1/d."""
    return 2 * math.pi / DAY * frequency[:, None] * time[None, :]


class _Series(NamedTuple):
    """Sines and cosines of a par file, their frequencies in 1/d, and the epoch, s from PEPOCH."""

    sine: Values
    cosine: Values
    frequency: Float[Array, " k"]
    epoch: Scalar


def _series(par: Par, stem: str) -> _Series | None:
    """The waves whose lines begin with `WX`, `DMWX` or `CMWX`.

    **Raises:** `ValueError` for a frequency without its sine or cosine.
    """
    names = par.prefixed(f"{stem}FREQ_")
    if not names:
        return None
    for part in ("SIN", "COS"):
        for name in names:
            par.value(name.replace("FREQ", part), None)
    sine, cosine = (values_of(par, par.prefixed(f"{stem}{part}_")) for part in ("SIN", "COS"))
    frequency = jnp.asarray([float(par.value(name)) for name in names])
    return _Series(sine, cosine, frequency, since(par, f"{stem}EPOCH"))


def _lines(stem: str, power: int, *, epoch: bool) -> tuple[Entry, ...]:
    """The lines of a kind of waves; `power`: that of its sines and cosines."""
    return (
        Entry(f"{stem}FREQ_", KEYED, READ, power=-1),
        Entry(f"{stem}SIN_", KEYED, power=power),
        Entry(f"{stem}COS_", KEYED, power=power),
        Entry(f"{stem}EPOCH", role=READ, epoch=epoch),
    )


_WAVE = Entry("WAVE", FROM_ONE, READ, PAIR)
WAVE_X = Component("delays", _lines("WX", 1, epoch=True), WaveX.from_par)
DM_WAVE_X = Component("dm_waves", _lines("DMWX", -1, epoch=True), DMWaveX.from_par)
CM_WAVE_X = Component("cm_waves", _lines("CMWX", 1, epoch=True), CMWaveX.from_par)
WAVE = Component("phases", (_WAVE, Entry("WAVE_OM", role=READ), Entry("WAVEEPOCH", role=READ)), Wave.from_par)
