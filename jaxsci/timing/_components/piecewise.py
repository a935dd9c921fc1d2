"""Phase by pieces: a spin-down of its own within windows of time, and a tabulated series.

Where a pulsar does not keep to one polynomial, par files give corrections for windows of time (PINT's piecewise
spin-down) or a table between whose entries the phase is interpolated (tempo2's IFUNC). Both add to the turns of the
steady spin-down, as components in `TimingModel.phases`.
"""

from itertools import pairwise

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from ...core import numbers, param
from ._line import FROM_ONE, KEYED, PAIR, READ, Component, Entry, Par, needed_with, number
from ._passage import AbstractPhase, Rotation
from ._read import pairs, values_of


class PiecewiseSpindown(AbstractPhase):
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

    @staticmethod
    def from_par(par: Par) -> "PiecewiseSpindown | None":
        """The windows of a par file; `None` without any.

        **Raises:** `ValueError` for a line of a window without its PWEP, PWSTART or PWSTOP.
        """
        needed_with(par, "PWEP_", (*_PIECES, *_WINDOW[1:]))
        epochs = par.prefixed("PWEP_")
        if not epochs:
            return None
        values = {f"{entry.leaf}_ref": values_of(par, entry.elements(par)).reference for entry in _PIECES}
        times = {
            field: jnp.asarray([par.seconds(name.replace("PWEP", stem), needed=True) for name in epochs])
            for field, stem in (("epoch", "PWEP"), ("start", "PWSTART"), ("stop", "PWSTOP"))
        }
        return PiecewiseSpindown(**{entry.leaf: jnp.zeros(len(epochs)) for entry in _PIECES}, **values, **times)

    def phase(self, at: Rotation) -> Float[Array, " n"]:
        since = at.time[None, :] - self.epoch[:, None]
        offsets = (self.PWPH, self.PWF0, self.PWF1, self.PWF2)
        values = (self.PWPH_ref, self.PWF0_ref, self.PWF1_ref, self.PWF2_ref)
        phase, f0, f1, f2 = ((x + y)[:, None] for x, y in zip(offsets, values, strict=True))
        arrival = at.arrival[None, :]
        inside = (arrival >= self.start[:, None]) & (arrival < self.stop[:, None])
        return jnp.sum(jnp.where(inside, phase + since * (f0 + since * (f1 / 2 + since * f2 / 6)), 0.0), axis=0)


class TabulatedPhase(AbstractPhase):
    """Tempo2's IFUNC: a series of times and values; the phase is F0 times the value. Not fitted.

    `time`: s from PEPOCH at the pulsar, rising, shape (k,); `value`: s. Before the first and after the last they keep
    their values. `linear`: interpolate (SIFUNC 2), or take the last value before (SIFUNC 0).
    """

    time: Float[Array, " k"] = numbers()
    value: Float[Array, " k"] = numbers()
    linear: bool = eqx.field(static=True)  # type: ignore[misc]

    @staticmethod
    def from_par(par: Par) -> "TabulatedPhase | None":
        """The table of a par file; `None` without one.

        **Raises:** `ValueError` for a SIFUNC that is not supported, lines that do not hold two numbers, and times that
        do not rise.
        """
        names = _IFUNC.elements(par)
        if not names:
            return None
        kind = par.value("SIFUNC", None)
        if kind not in (0, 2):
            raise ValueError(f"SIFUNC {kind} is not supported; there are 0 (steps) and 2 (straight lines)")
        found = pairs(par, names, "an MJD and seconds")
        start = par.value("PEPOCH", None)
        days = [number(pair.first, name) - start for name, pair in zip(names, found, strict=True)]
        if any(later <= earlier for earlier, later in pairwise(days)):
            raise ValueError("the times of IFUNC1, IFUNC2, ... should rise")
        seconds = jnp.asarray([float(day * 86400) for day in days])
        return TabulatedPhase(seconds, jnp.asarray([float(pair.second) for pair in found]), linear=kind == 2)

    def phase(self, at: Rotation) -> Float[Array, " n"]:
        if self.linear:
            return at.frequency * jnp.interp(at.time, self.time, self.value)
        # before the first entry the index is -1, which means the last in JAX
        place = jnp.searchsorted(self.time, at.time, side="right") - 1
        return at.frequency * self.value[jnp.maximum(place, 0)]


_PIECES = (
    Entry("PWPH_", KEYED, by="PWEP_"),
    Entry("PWF0_", KEYED, by="PWEP_", power=-1),
    Entry("PWF1_", KEYED, by="PWEP_", power=-2),
    Entry("PWF2_", KEYED, by="PWEP_", power=-3),
)
_WINDOW = tuple(Entry(name, KEYED, READ, epoch=True) for name in ("PWEP_", "PWSTART_", "PWSTOP_"))
_IFUNC = Entry("IFUNC", FROM_ONE, READ, PAIR)
PIECEWISE = Component("phases", (*_PIECES, *_WINDOW), PiecewiseSpindown.from_par)
TABLE = Component("phases", (_IFUNC, Entry("SIFUNC", role=READ)), TabulatedPhase.from_par)
