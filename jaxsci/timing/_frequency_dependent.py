"""Profile evolution with frequency."""

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from ..core import Module, numbers, param


class FD(Module):
    """sum_k FD_k ln(nu / 1 GHz)^k, s (Arzoumanian et al. 2015, ApJ 813, eq. 2).

    `FD`: offsets from `FD_ref`, shape (k,), s; FD1 comes first.
    """

    FD: Float[Array, " k"] = param(unit="s")
    FD_ref: Float[Array, " k"] = numbers()

    def delay(self, log_frequency: Float[Array, " n"]) -> Float[Array, " n"]:
        """The delay at ln(nu / 1 GHz)."""
        terms, total = self.FD + self.FD_ref, jnp.zeros_like(log_frequency)
        for k in range(terms.shape[0] - 1, -1, -1):
            total = (total + terms[k]) * log_frequency
        return total


class FDJump(Module):
    """Profile evolution of single receivers: sum_k FDJUMP_k y^p_k, s, for the TOAs that each selects.

    `FDJUMP`: offsets from `FDJUMP_ref`, shape (k,), s: FD1JUMP1, FD1JUMP2, ..., FD2JUMP1, ... `powers`: p of each.
    `log`: whether y is ln(nu / 1 GHz), or nu / 1 GHz as in tempo2.
    """

    FDJUMP: Float[Array, " k"] = param(unit="s")
    FDJUMP_ref: Float[Array, " k"] = numbers()
    powers: tuple[int, ...] = eqx.field(static=True)  # type: ignore[misc]
    log: bool = eqx.field(static=True)  # type: ignore[misc]

    def delay(
        self, log_frequency: Float[Array, " n"], far: Bool[Array, " n"], masks: Float[Array, "n k"]
    ) -> Float[Array, " n"]:
        """The delay at ln(nu / 1 GHz); none at infinite frequency, where `far`."""
        y = jnp.where(far, 0.0, log_frequency if self.log else jnp.exp(log_frequency))
        terms = self.FDJUMP + self.FDJUMP_ref
        return sum((terms[k] * masks[:, k] * y**p for k, p in enumerate(self.powers)), jnp.zeros_like(y))
