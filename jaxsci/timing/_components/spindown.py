"""The pulsar's rotation: a polynomial of phase in time.

A phase has 1e11 turns and must be right to 1e-9, which is more than float64 holds. `timing._anchor` therefore computes
the phase at the par file's values on the host, in pairs of float64, and the model computes here only what changes it.
Par files that give periods are translated to frequencies.
"""

import math
from decimal import Decimal

import jax.numpy as jnp
from jaxtyping import Array, Float

from ...core import Module, numbers, param
from ._line import EXACT, FOREIGN, FROM_ZERO, READ, Component, Entry, Line, Par, number
from ._read import values_of

_TEMPO_P1 = Decimal("1e-8")  # a P1 above this is tempo's, in 1e-15: no pulsar slows down by so many s/s


class Spindown(Module):
    """Turns: phi(t) = sum_k F_k t^(k+1) / (k+1)!, t in seconds from PEPOCH.

    `F`: offsets from `F_ref`, shape (s,), Hz / s^k. A phase has 1e11 turns and must be right to 1e-9, more
    than float64 holds, so only its change is computed here, with the large common part factored out.
    """

    F: Float[Array, " s"] = param(unit="Hz")
    F_ref: Float[Array, " s"] = numbers()

    @staticmethod
    def from_par(par: Par) -> "Spindown":
        """F0, F1, ... of a par file.

        **Raises:** `ValueError` without an F0.
        """
        return Spindown(*values_of(par, spins(par)))

    def change(self, elapsed: Float[Array, " n"], later: Float[Array, " n"]) -> Float[Array, " n"]:
        """phi(t - x) - phi_ref(t), turns: t = `elapsed`, x = `later`, the delay that was added, s.

        F_k ((t - x)^(k+1) - t^(k+1)) is taken as -F_k x sum_j (t - x)^j t^(k-j).
        """
        # powers of two times that differ by seconds in 1e8 are never subtracted from each other
        now, total = elapsed - later, jnp.zeros_like(elapsed)
        for k in range(self.F.shape[0]):
            bridge = sum((now**j * elapsed ** (k - j) for j in range(1, k + 1)), elapsed**k)
            total = total + (self.F[k] * now ** (k + 1) - self.F_ref[k] * later * bridge) / math.factorial(k + 1)
        return total


def spins(par: Par) -> tuple[str, ...]:
    """The names F0, F1, ... of a par file.

    **Raises:** `ValueError` without F0 or PEPOCH, on which everything depends.
    """
    for name in ("F0", "PEPOCH"):
        par.value(name, None)
    if not par.value("F0") > 0:
        raise ValueError(f"F0 is {par.word('F0')}, but a spin frequency should be positive, in Hz")
    return _F.elements(par)


def _of_periods(lines: list[Line]) -> list[Line]:
    """P0 and P1 as F0 = 1 / P0 and F1 = -P1 / P0^2, with their errors."""
    found = {line.name: line for line in lines}
    if "P0" not in found:
        return lines
    period = found["P0"].value
    if not period > 0:
        raise ValueError(f"P0 is {found['P0'].text}, but a period should be positive")
    slope = EXACT.divide(Decimal(-1), EXACT.multiply(period, period))

    def converted(line: Line) -> Line:
        if line.name == "P0":
            return _scaled(line, "F0", EXACT.divide(Decimal(1), period), slope)
        if line.name == "P1":
            unit = Decimal("1e-15") if abs(line.value) > _TEMPO_P1 else Decimal(1)
            return _scaled(line, "F1", EXACT.multiply(line.value, slope * unit), slope * unit)
        return line

    return [converted(line) for line in lines]


def _scaled(line: Line, name: str, value: Decimal, factor: Decimal) -> Line:
    """The line under another name with another value, its error multiplied by a factor."""
    error = f"{abs(number(line.error, name) * factor):.6E}" if line.error else ""
    return line._replace(name=name, text=f"{value:.40E}", error=error)


_F = Entry("F", FROM_ZERO, power=-1)
SPINDOWN = Component(
    "spin",
    (
        _F,
        Entry("PEPOCH", role=READ, epoch=True),
        Entry("P0", role=FOREIGN, aliases=("P",), translate=_of_periods),
        Entry("P1", role=FOREIGN, aliases=("PDOT",)),
    ),
    Spindown.from_par,
)
