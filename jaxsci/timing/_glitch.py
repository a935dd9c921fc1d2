"""Sudden changes of the rotation."""

import jax.numpy as jnp
from jaxtyping import Array, Float

from ..core import Module, numbers, param
from ._constants import DAY


class Glitch(Module):
    """Steps of phase, frequency and its derivatives at an epoch, and a part that decays.

    After GLEP: GLPH + GLF0 t + GLF1 t^2 / 2 + GLF2 t^3 / 6 + GLF0D GLTD (1 - exp(-t / GLTD)) turns, t in s from GLEP.
    Parameters are offsets from the reference values (`*_ref`), shape (g,): GLPH in turns, GLEP and GLTD in days, the
    others in Hz/s^k. `GLEP_ref`: s from PEPOCH.
    """

    GLEP: Float[Array, " g"] = param(unit="d")
    GLPH: Float[Array, " g"] = param()
    GLF0: Float[Array, " g"] = param(unit="Hz")
    GLF1: Float[Array, " g"] = param(unit="Hz/s")
    GLF2: Float[Array, " g"] = param(unit="Hz/s^2")
    GLF0D: Float[Array, " g"] = param(unit="Hz")
    GLTD: Float[Array, " g"] = param(unit="d")
    GLEP_ref: Float[Array, " g"] = numbers()
    GLPH_ref: Float[Array, " g"] = numbers()
    GLF0_ref: Float[Array, " g"] = numbers()
    GLF1_ref: Float[Array, " g"] = numbers()
    GLF2_ref: Float[Array, " g"] = numbers()
    GLF0D_ref: Float[Array, " g"] = numbers()
    GLTD_ref: Float[Array, " g"] = numbers()

    def phase(self, time: Float[Array, " n"]) -> Float[Array, " n"]:
        """Turns at `time` in s from PEPOCH at the pulsar."""
        since = time[None, :] - (self.GLEP_ref + DAY * self.GLEP)[:, None]
        after = since > 0
        since = jnp.where(after, since, 0.0)
        phase, f0, f1, f2 = (
            (x + y)[:, None]
            for x, y in (
                (self.GLPH, self.GLPH_ref),
                (self.GLF0, self.GLF0_ref),
                (self.GLF1, self.GLF1_ref),
                (self.GLF2, self.GLF2_ref),
            )
        )
        decay = DAY * (self.GLTD + self.GLTD_ref)[:, None]
        decays = decay > 0
        decay = jnp.where(decays, decay, 1.0)
        lost = (self.GLF0D + self.GLF0D_ref)[:, None] * decay * -jnp.expm1(-since / decay)
        total = phase + since * (f0 + since * (f1 / 2 + since * f2 / 6)) + jnp.where(decays, lost, 0.0)
        return jnp.sum(jnp.where(after, total, 0.0), axis=0)
