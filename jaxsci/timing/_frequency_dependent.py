"""Profile evolution with frequency."""

import jax.numpy as jnp
from jaxtyping import Array, Float

from ..core._module import Module
from ..core._parameter import numbers, param


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
