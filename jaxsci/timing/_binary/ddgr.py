"""Eccentric orbits that obey general relativity: the model DDGR.

All post-Keplerian parameters follow from the total mass and the companion's, so that a fit measures masses and nothing
else. Excess rates of periastron and of the period (XOMDOT, XPBDOT) say how far the orbit is from the theory. `from_par`
makes it where BINARY says DDGR.
"""

import math

import jax.numpy as jnp
from jaxtyping import Array, Float

from ...core import Scalar, numbers, param, transparent
from .._constants import T_SUN, YEAR
from ._ellipse import Ellipse, depth, place, travel
from ._kepler import AbstractBinary, OrbitPB, Sky

_STEPS = 6  # of a contraction by 1e-5 or so


class DDGR(AbstractBinary):
    """The orbit of Damour and Deruelle with all post-Keplerian parameters from two masses.

    Parameters are offsets from the reference values (`*_ref`): MTOT and M2 in solar masses, XOMDOT (advance of
    periastron beyond that of general relativity) in deg/yr. `orbit` (its XPBDOT: excess period derivative) and
    `ellipse` hold the others. Taylor and Weisberg 1989, ApJ 345, eqs. 15 to 25.
    """

    orbit: OrbitPB = transparent()
    ellipse: Ellipse = transparent()
    MTOT: Scalar = param(unit="Msun")
    M2: Scalar = param(unit="Msun")
    XOMDOT: Scalar = param(unit="deg/yr")
    MTOT_ref: Scalar = numbers()
    M2_ref: Scalar = numbers()
    XOMDOT_ref: Scalar = numbers()

    def delay(self, time: Float[Array, " n"], sky: Sky | None = None) -> Float[Array, " n"]:
        time = self.ellipse.since(time)
        total, second = T_SUN * (self.MTOT + self.MTOT_ref), T_SUN * (self.M2 + self.M2_ref)
        first = total - second
        motion = 2 * math.pi / self.orbit.days(0.0)
        plain, axis = semi_major_axis(first, second, motion)
        e, size = self.ellipse.eccentricity(time), self.ellipse.size(time)
        rest = 1 - e * e
        # Peters 1964, Phys. Rev. 136: how much faster an eccentric orbit shrinks
        shape = (1 + 73 / 24 * e**2 + 37 / 96 * e**4) * rest**-3.5
        rate = -192 * math.pi / 5 * motion ** (5 / 3) * first * second * total ** (-1 / 3) * shape
        at = place(*self.orbit.turns(time, rate), e, self.orbit.period(time, rate))
        advance = 3 * total / (plain * rest) + jnp.deg2rad(self.XOMDOT + self.XOMDOT_ref) / YEAR / motion
        omega = self.ellipse.node() + advance * at.true
        gamma = e * second * (first + 2 * second) / (motion * plain * total)
        common = 6 * first * second + 2 * second**2
        radial = e * (1 + (3 * first**2 + common) / (total * axis))
        angular = e * (1 + (3.5 * first**2 + common) / (total * axis))
        far, near = depth(at, omega)
        sine = size * total / (axis * second)
        sine = jnp.where(sine <= 1, sine, jnp.nan)  # so that a solver takes a shorter step
        return travel(at, size, omega, gamma, radial, angular) - 2 * second * jnp.log(far - sine * near)


def semi_major_axis(first: Array, second: Array, motion: Array) -> tuple[Array, Array]:
    """(of Newton, of general relativity), lt-s, of masses in s and the mean motion in rad/s: eq. 15."""
    total = first + second
    plain = (total / motion**2) ** (1 / 3)
    axis = plain
    for _ in range(_STEPS):
        axis = plain * (1 + (first * second / total**2 - 9) * total / (2 * axis)) ** (2 / 3)
    return plain, axis
