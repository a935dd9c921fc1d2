"""Phase by pieces: spin-down within windows of time, and a tabulated series."""

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from ..core import Module, numbers, param


class PiecewiseSpindown(Module):
    """Phase in windows of time: PWPH + PWF0 t + PWF1 t^2 / 2 + PWF2 t^3 / 6 turns, t in s from PWEP at the pulsar.

    Parameters are offsets from the reference values (`*_ref`), shape (w,): PWPH in turns, the others in Hz/s^k. They
    come on top of F0, F1, ... of the whole, and in float64: a PWF0 of 1 Hz is right to 1e-8 turns after three years.
    `epoch`, `start`, `stop`: PWEP, and where the window starts and stops at the observatory, s (TDB) from PEPOCH.
    """

    PWPH: Float[Array, " w"] = param()
    PWF0: Float[Array, " w"] = param(unit="Hz")
    PWF1: Float[Array, " w"] = param(unit="Hz/s")
    PWF2: Float[Array, " w"] = param(unit="Hz/s^2")
    PWPH_ref: Float[Array, " w"] = numbers()
    PWF0_ref: Float[Array, " w"] = numbers()
    PWF1_ref: Float[Array, " w"] = numbers()
    PWF2_ref: Float[Array, " w"] = numbers()
    epoch: Float[Array, " w"] = numbers()
    start: Float[Array, " w"] = numbers()
    stop: Float[Array, " w"] = numbers()

    def phase(self, time: Float[Array, " n"], arrival: Float[Array, " n"]) -> Float[Array, " n"]:
        """Turns at `time` at the pulsar and `arrival` at the observatory, both in s from PEPOCH."""
        since = time[None, :] - self.epoch[:, None]
        offsets = (self.PWPH, self.PWF0, self.PWF1, self.PWF2)
        values = (self.PWPH_ref, self.PWF0_ref, self.PWF1_ref, self.PWF2_ref)
        phase, f0, f1, f2 = ((x + y)[:, None] for x, y in zip(offsets, values, strict=True))
        inside = (arrival[None, :] >= self.start[:, None]) & (arrival[None, :] < self.stop[:, None])
        return jnp.sum(jnp.where(inside, phase + since * (f0 + since * (f1 / 2 + since * f2 / 6)), 0.0), axis=0)


class TabulatedPhase(Module):
    """Tempo2's IFUNC: a series of times and values; the phase is F0 times the value. Not fitted.

    `time`: s from PEPOCH at the pulsar, rising, shape (k,); `value`: s. Before the first and after the last they keep
    their values. `linear`: interpolate (SIFUNC 2), or take the last value before (SIFUNC 0).
    """

    time: Float[Array, " k"] = numbers()
    value: Float[Array, " k"] = numbers()
    linear: bool = eqx.field(static=True)  # type: ignore[misc]

    def phase(self, time: Float[Array, " n"], frequency: Array) -> Float[Array, " n"]:
        """Turns at `time` in s from PEPOCH at the pulsar, `frequency` F0 in Hz."""
        if self.linear:
            return frequency * jnp.interp(time, self.time, self.value)
        place = jnp.searchsorted(self.time, time, side="right") - 1
        return frequency * self.value[jnp.maximum(place, 0)]
