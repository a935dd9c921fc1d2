"""Profile evolution: pulses change their shape with frequency, and with it the time that a template finds for them.

The delay is a polynomial in the logarithm of the frequency, of all TOAs alike (FD) or of one receiver alone (FDJUMP,
by PINT's and by tempo2's name). Both come after the companion's delay; `TimingModel` adds them up.
"""

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from ...core import Module, numbers, param
from ._line import FROM_ONE, MASKED, READ, TWICE, WORD, Component, Entry, Par, Respelled
from ._passage import AbstractDelay, Passage
from ._read import values_of


class FD(Module):
    """sum_k FD_k ln(nu / 1 GHz)^k, s (Arzoumanian et al. 2015, ApJ 813, eq. 2).

    `FD`: offsets from `FD_ref`, shape (k,), s; FD1 comes first.
    """

    FD: Float[Array, " k"] = param(unit="s")
    FD_ref: Float[Array, " k"] = numbers()

    @staticmethod
    def from_par(par: Par) -> "FD":
        """FD1, FD2, ... of a par file; of length 0 without any."""
        return FD(*values_of(par, _FD.elements(par)))

    def delay(self, log_frequency: Float[Array, " n"]) -> Float[Array, " n"]:
        """Compute the delay, s, at ln(nu / 1 GHz), shape (n,)."""
        # Horner's scheme from the highest power; there is no constant, which the phase offset takes
        terms, total = self.FD + self.FD_ref, jnp.zeros_like(log_frequency)
        for k in range(terms.shape[0] - 1, -1, -1):
            total = (total + terms[k]) * log_frequency
        return total


class FDJump(AbstractDelay):
    """Profile evolution of single receivers: sum_k FDJUMP_k y^p_k, s, for the TOAs that each selects.

    `FDJUMP`: offsets from `FDJUMP_ref`, shape (k,), s: FD1JUMP1, FD1JUMP2, ..., FD2JUMP1, ... `powers`: p of each.
    `log`: whether y is ln(nu / 1 GHz), or nu / 1 GHz as in tempo2.
    """

    FDJUMP: Float[Array, " k"] = param(unit="s")
    FDJUMP_ref: Float[Array, " k"] = numbers()
    powers: tuple[int, ...] = eqx.field(static=True)  # type: ignore[misc]
    log: bool = eqx.field(static=True)  # type: ignore[misc]

    @staticmethod
    def from_par(par: Par) -> "FDJump | None":
        """The jumps of profile evolution of a par file, by power and then by receiver; `None` without any."""
        names = fd_jumps(par)
        if not names:
            return None
        powers = tuple(int(name[2:].split("JUMP")[0]) for name in names)
        return FDJump(*values_of(par, names), powers=powers, log=par.yes("FDJUMPLOG", "Y"))

    def delay(self, way: Passage) -> Float[Array, " n"]:
        log_frequency, masks = way.log_frequency, way.masks
        assert masks is not None
        # at infinite frequency the logarithm means nothing, and there is no delay
        y = jnp.where(way.far, 0.0, log_frequency if self.log else jnp.exp(log_frequency))
        terms = self.FDJUMP + self.FDJUMP_ref
        return sum((terms[k] * masks[:, k] * y**p for k, p in enumerate(self.powers)), jnp.zeros_like(y))


def fd_jumps(par: Par) -> tuple[str, ...]:
    """Names of a par file's jumps of profile evolution, such as `FD1JUMP2`, by power and then by receiver."""
    return _FDJUMP.elements(par)


_FD = Entry("FD", FROM_ONE)
_FDJUMP = Entry("FDJUMP", TWICE, look=MASKED, respelled=Respelled(r"FDJUMP(\d+)$", r"FD\1JUMP"))
PROFILE = Component("fd", (_FD,), FD.from_par)
PROFILE_JUMP = Component("delays", (_FDJUMP, Entry("FDJUMPLOG", role=READ, look=WORD)), FDJump.from_par)
