"""Glitches: sudden changes of the rotation, part of which decays.

Young pulsars spin up within a minute when the superfluid of their interior lets go of its vortices. Each glitch is a
step of phase, of frequency and of its derivatives at an epoch, and an exponential return. It adds to the turns of the
steady spin-down, as one of the components in `TimingModel.phases`.
"""

import jax.numpy as jnp
from jaxtyping import Array, Float

from ...core import numbers, param
from .._constants import DAY
from ._line import KEYED, Component, Entry, Par, needed_with, says_zero
from ._passage import AbstractPhase, Rotation
from ._read import values_of


class Glitch(AbstractPhase):
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

    @staticmethod
    def from_par(par: Par) -> "Glitch | None":
        """The glitches of a par file; `None` without any.

        **Raises:** `ValueError` for a line of a glitch without its epoch, a decay without its time, and an epoch that
        is to be fitted together with the step of phase.
        """
        needed_with(par, "GLEP_", _LINES[1:])
        epochs = par.prefixed("GLEP_")
        if not epochs:
            return None
        for name in epochs:
            order = name[5:]
            if not says_zero(par.word(f"GLF0D_{order}", "0")) and says_zero(par.word(f"GLTD_{order}", "0")):
                raise ValueError(f"GLF0D_{order} needs a GLTD_{order}: the time in which it decays")
            both = [line for line in (par.find(name), par.find(f"GLPH_{order}")) if line is not None and line.fit]
            if len(both) == 2:
                raise ValueError(f"{name} and GLPH_{order} say the same of the TOAs after it: only one can be fitted")
        offsets = {entry.leaf: jnp.zeros(len(epochs)) for entry in _LINES}
        values = {f"{entry.leaf}_ref": values_of(par, entry.elements(par)).reference for entry in _LINES[1:]}
        return Glitch(**offsets, **values, GLEP_ref=jnp.asarray([par.seconds(name) for name in epochs]))

    def phase(self, at: Rotation) -> Float[Array, " n"]:
        since = at.time[None, :] - (self.GLEP_ref + DAY * self.GLEP)[:, None]
        after = since > 0
        # the branch that is not taken is computed and differentiated too, and has to stay finite
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
        # 1 - exp(-x) would lose its digits in the days after the glitch
        lost = (self.GLF0D + self.GLF0D_ref)[:, None] * decay * -jnp.expm1(-since / decay)
        total = phase + since * (f0 + since * (f1 / 2 + since * f2 / 6)) + jnp.where(decays, lost, 0.0)
        return jnp.sum(jnp.where(after, total, 0.0), axis=0)


_LINES = (
    Entry("GLEP_", KEYED, epoch=True),
    Entry("GLPH_", KEYED, by="GLEP_"),
    Entry("GLF0_", KEYED, by="GLEP_", power=-1),
    Entry("GLF1_", KEYED, by="GLEP_", power=-2),
    Entry("GLF2_", KEYED, by="GLEP_", power=-3),
    Entry("GLF0D_", KEYED, by="GLEP_", power=-1),
    Entry("GLTD_", KEYED, by="GLEP_", power=1),
)
GLITCH = Component("phases", _LINES, Glitch.from_par)
