"""The pulsar's rotation, as exact differences from a reference phase."""

import math

import jax.numpy as jnp
from jaxtyping import Array, Float

from ..core import Module, numbers, param


class Spindown(Module):
    """Turns: phi(t) = sum_k F_k t^(k+1) / (k+1)!, t in seconds from PEPOCH.

    `F`: offsets from `F_ref`, shape (s,), Hz / s^k. A phase has 1e11 turns and must be right to 1e-9, more
    than float64 holds, so only its change is computed here, with the large common part factored out.
    """

    F: Float[Array, " s"] = param(unit="Hz")
    F_ref: Float[Array, " s"] = numbers()

    def change(self, elapsed: Float[Array, " n"], later: Float[Array, " n"]) -> Float[Array, " n"]:
        """phi(t - x) - phi_ref(t), turns: t = `elapsed`, x = `later`, the delay that was added, s.

        F_k ((t - x)^(k+1) - t^(k+1)) is taken as -F_k x sum_j (t - x)^j t^(k-j).
        """
        now, total = elapsed - later, jnp.zeros_like(elapsed)
        for k in range(self.F.shape[0]):
            bridge = sum((now**j * elapsed ** (k - j) for j in range(1, k + 1)), elapsed**k)
            total = total + (self.F[k] * now ** (k + 1) - self.F_ref[k] * later * bridge) / math.factorial(k + 1)
        return total
