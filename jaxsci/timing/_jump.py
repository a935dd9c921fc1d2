"""Steps of phase between receivers, and the phase of the first pulse."""

from jaxtyping import Array, Float

from ..core import Module, Scalar, numbers, param
from ._spindown import Spindown


class PhaseJump(Module):
    """Steps between receivers: phase JUMP F0, JUMP in s, for the TOAs that each selects.

    `JUMP`: offsets from `JUMP_ref`, shape (j,), s.
    """

    JUMP: Float[Array, " j"] = param(unit="s")
    JUMP_ref: Float[Array, " j"] = numbers()

    def delay(self, masks: Float[Array, "n j"]) -> Float[Array, " n"]:
        """Seconds beyond those of the reference values."""
        return masks @ self.JUMP

    def change(self, delay: Float[Array, " n"], masks: Float[Array, "n j"], spin: Spindown) -> Float[Array, " n"]:
        """Turns beyond those of the reference values; `delay` as that gives it."""
        return delay * (spin.F[0] + spin.F_ref[0]) + (masks @ self.JUMP_ref) * spin.F[0]


class PhaseOffset(Module):
    """An overall phase, turns: which part of the first turn is phase 0 is not known.

    Every fit frees it, but one of a par file that has a line PHOFF, which may hold it. `PHOFF` is an offset from that.
    """

    PHOFF: Scalar = param()
