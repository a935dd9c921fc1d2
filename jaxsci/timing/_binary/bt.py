"""Eccentric orbits without relativity in the light travel: the model BT.

It is the oldest of the models and the cheapest. Advance of periastron and the Einstein delay are free numbers, and
there is no Shapiro delay. `from_par` makes it where BINARY says BT.
"""

import math

import jax.numpy as jnp
from jaxtyping import Array, Float

from ...core import Scalar, numbers, param, transparent
from .._constants import YEAR
from ._ellipse import Ellipse, place
from ._kepler import AbstractBinary, AbstractOrbit, Sky


class BT(AbstractBinary):
    """The orbit of Blandford and Teukolsky: an ellipse whose periastron advances in time, to first order in v/c.

    Parameters are offsets from the reference values (`*_ref`): OMDOT in deg/yr, GAMMA in s. `orbit` and `ellipse` hold
    the others. Blandford and Teukolsky 1976, ApJ 205, eq. 2.33.
    """

    orbit: AbstractOrbit = transparent()
    ellipse: Ellipse = transparent()
    OMDOT: Scalar = param(unit="deg/yr")
    GAMMA: Scalar = param(unit="s")
    OMDOT_ref: Scalar = numbers()
    GAMMA_ref: Scalar = numbers()

    def delay(self, time: Float[Array, " n"], sky: Sky | None = None) -> Float[Array, " n"]:
        time = self.ellipse.since(time)
        period = self.orbit.period(time)
        at = place(*self.orbit.turns(time), self.ellipse.eccentricity(time), period)
        omega = self.ellipse.node() + jnp.deg2rad(self.OMDOT + self.OMDOT_ref) * (time / YEAR)
        size = self.ellipse.size(time)
        up, side = size * jnp.sin(omega), size * at.root * jnp.cos(omega)
        roemer = up * (at.cos - at.e) + (side + self.GAMMA + self.GAMMA_ref) * at.sin
        # the delay at arrival becomes that at emission, to first order in the radial velocity
        speed = (side * at.cos - up * at.sin) / (1 - at.e * at.cos)
        return roemer * (1 - 2 * math.pi * speed / period)
