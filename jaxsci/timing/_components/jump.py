"""Steps of phase between receivers, and the phase of the first pulse.

Receivers differ by cables and templates, and no one knows which turn of the pulsar is the first: both are constants
that a fit takes out. A JUMP is given in seconds but acts as a phase, JUMP F0, and so F0 moves it; its reference value
is part of the phase that `timing._anchor` computes exactly.
"""

import jax.numpy as jnp
from jaxtyping import Array, Float

from ...core import Module, Scalar, numbers, param
from ._line import FROM_ONE, MASKED, Component, Entry, Par
from ._read import values_of
from .spindown import Spindown


class PhaseJump(Module):
    """Steps between receivers: phase JUMP F0, JUMP in s, for the TOAs that each selects.

    `JUMP`: offsets from `JUMP_ref`, shape (j,), s.
    """

    JUMP: Float[Array, " j"] = param(unit="s")
    JUMP_ref: Float[Array, " j"] = numbers()

    @staticmethod
    def from_par(par: Par) -> "PhaseJump":
        """The JUMPs of a par file; of length 0 without any."""
        return PhaseJump(*values_of(par, _JUMP.elements(par)))

    def delay(self, masks: Float[Array, "n j"]) -> Float[Array, " n"]:
        """Compute the seconds beyond those of the reference values; `masks`: 1 where a JUMP applies, shape (n, j)."""
        return masks @ self.JUMP

    def change(self, delay: Float[Array, " n"], masks: Float[Array, "n j"], spin: Spindown) -> Float[Array, " n"]:
        """Compute the turns beyond those of the reference values, `delay` being what that gives."""
        # JUMP F0 less the reference of both: their product at the reference is in the anchored phase
        return delay * (spin.F[0] + spin.F_ref[0]) + (masks @ self.JUMP_ref) * spin.F[0]


class PhaseOffset(Module):
    """An overall phase, turns: which part of the first turn is phase 0 is not known.

    Every fit frees it, but one of a par file that has a line PHOFF, which may hold it. `PHOFF` is an offset from that.
    """

    PHOFF: Scalar = param()

    @staticmethod
    def from_par(par: Par) -> "PhaseOffset":
        """The offset from a par file's PHOFF, or from 0."""
        del par  # its value is part of the phases that are computed on the host
        return PhaseOffset(jnp.zeros(()))


_JUMP = Entry("JUMP", FROM_ONE, look=MASKED, power=1)
JUMP = Component("jump", (_JUMP,), PhaseJump.from_par)
OFFSET = Component("offset", (Entry("PHOFF"),), PhaseOffset.from_par)
