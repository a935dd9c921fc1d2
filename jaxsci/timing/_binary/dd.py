"""Eccentric orbits with relativity as free parameters: the model DD, and by other Shapiro delays DDS, DDH and DDK.

Whatever the theory of gravity, an orbit to first post-Newtonian order is described by these parameters, so that
measuring more of them than there are masses tests the theory. `from_par` makes it where BINARY names one of the four.
"""

import math

import jax.numpy as jnp
from jaxtyping import Array, Float

from ...core import Module, Scalar, numbers, param, transparent
from .._constants import YEAR
from ._ellipse import Ellipse, Place, depth, place, travel
from ._kepler import AbstractBinary, AbstractOrbit, AbstractShapiro, Sky
from .ddk import Kopeikin


class Aberration(Module):
    """The pulsar's spin and the field of the companion: offsets from `*_ref`.

    A0 and B0 in s (aberration), DR and DTH: e_r = e (1 + DR), e_theta = e (1 + DTH). Damour and Deruelle 1986.
    """

    A0: Scalar = param(unit="s")
    B0: Scalar = param(unit="s")
    DR: Scalar = param()
    DTH: Scalar = param()
    A0_ref: Scalar = numbers()
    B0_ref: Scalar = numbers()
    DR_ref: Scalar = numbers()
    DTH_ref: Scalar = numbers()

    def delay(self, at: Place, omega: Array) -> Array:
        """A0 (sin(w + nu) + e sin w) + B0 (cos(w + nu) + e cos w), s: eq. 27."""
        one = jnp.sin(omega + at.true) + at.e * jnp.sin(omega)
        two = jnp.cos(omega + at.true) + at.e * jnp.cos(omega)
        return (self.A0 + self.A0_ref) * one + (self.B0 + self.B0_ref) * two


class DD(AbstractBinary):
    """The post-Keplerian orbit of Damour and Deruelle; with other `shapiro` also DDS, DDH and DDK.

    Parameters are offsets from the reference values (`*_ref`): OMDOT in deg/yr, GAMMA in s. `orbit`, `ellipse`,
    `shapiro` and `aberration` hold the others.

    Damour and Deruelle 1986, Ann. Inst. H. Poincare (Phys. Theor.) 44; Taylor and Weisberg 1989, ApJ 345.
    """

    orbit: AbstractOrbit = transparent()
    ellipse: Ellipse = transparent()
    shapiro: AbstractShapiro | Kopeikin = transparent()
    OMDOT: Scalar = param(unit="deg/yr")
    GAMMA: Scalar = param(unit="s")
    aberration: Aberration | None = transparent()
    OMDOT_ref: Scalar = numbers()
    GAMMA_ref: Scalar = numbers()

    def delay(self, time: Float[Array, " n"], sky: Sky | None = None) -> Float[Array, " n"]:
        time = self.ellipse.since(time)
        period = self.orbit.period(time)
        at = place(*self.orbit.turns(time), self.ellipse.eccentricity(time), period)
        # k of Damour and Deruelle: periastron advances by 2 pi k in each orbit
        advance = jnp.deg2rad(self.OMDOT + self.OMDOT_ref) / YEAR * period / (2 * math.pi)
        omega, size = self.ellipse.node() + advance * at.true, self.ellipse.size(time)
        gamma, extra = self.GAMMA + self.GAMMA_ref, self.aberration
        # known when the program is compiled: the class is part of the structure and not a value
        if isinstance(self.shapiro, Kopeikin):
            assert sky is not None
            omega, size = self.shapiro.seen(omega, size, time, sky)
            shapiro = self.shapiro.delay(*depth(at, omega), time, sky)
        else:
            shapiro = self.shapiro.delay(*depth(at, omega))
        if extra is None:
            return travel(at, size, omega, gamma, at.e, at.e) + shapiro
        radial, angular = at.e * (1 + extra.DR + extra.DR_ref), at.e * (1 + extra.DTH + extra.DTH_ref)
        return travel(at, size, omega, gamma, radial, angular) + shapiro + extra.delay(at, omega)
