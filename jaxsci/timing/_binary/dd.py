"""Eccentric orbits."""

import math

import jax.numpy as jnp
from jaxtyping import Array, Float

from ...core._parameter import numbers, param
from ...core._typing import Scalar
from .._constants import DAY, T_SUN, YEAR
from ._kepler import AbstractBinary, eccentric_anomaly, emitted, turns


class DD(AbstractBinary):
    """The post-Keplerian orbit of Damour and Deruelle.

    Parameters are offsets from the reference values (`*_ref`): PB and T0 in days, A1 in lt-s, OM in degrees,
    OMDOT in deg/yr, A1DOT in lt-s/s, EDOT in 1/s, GAMMA in s, M2 in solar masses, PBDOT in s/s. The offset
    of T0 shifts the epoch. Without aberration (A0, B0) and deformation (DR, DTH).

    Damour and Deruelle 1986, Ann. Inst. H. Poincare (Phys. Theor.) 44; Taylor and Weisberg 1989, ApJ 345.
    """

    PB: Scalar = param(unit="d")
    A1: Scalar = param(unit="ls")
    T0: Scalar = param(unit="d")
    ECC: Scalar = param()
    OM: Scalar = param(unit="deg")
    M2: Scalar = param(unit="Msun")
    SINI: Scalar = param()
    PBDOT: Scalar = param()
    A1DOT: Scalar = param(unit="ls/s")
    OMDOT: Scalar = param(unit="deg/yr")
    EDOT: Scalar = param(unit="1/s")
    GAMMA: Scalar = param(unit="s")
    PB_ref: Scalar = numbers()
    A1_ref: Scalar = numbers()
    ECC_ref: Scalar = numbers()
    OM_ref: Scalar = numbers()
    M2_ref: Scalar = numbers()
    SINI_ref: Scalar = numbers()
    PBDOT_ref: Scalar = numbers()
    A1DOT_ref: Scalar = numbers()
    OMDOT_ref: Scalar = numbers()
    EDOT_ref: Scalar = numbers()
    GAMMA_ref: Scalar = numbers()

    def delay(self, time: Float[Array, " n"]) -> Float[Array, " n"]:
        time = time - self.T0 * DAY
        period, period_rate = (self.PB + self.PB_ref) * DAY, self.PBDOT + self.PBDOT_ref
        whole, part = turns(time, period, period_rate)
        eccentricity = self.ECC + self.ECC_ref + (self.EDOT + self.EDOT_ref) * time
        anomaly = eccentric_anomaly(2 * math.pi * part, eccentricity)
        sin, cos, root = jnp.sin(anomaly), jnp.cos(anomaly), jnp.sqrt(1 - eccentricity * eccentricity)
        local = period + period_rate * time
        omega = self._omega(whole, root * sin, cos - eccentricity, local)
        size = self.A1 + self.A1_ref + (self.A1DOT + self.A1DOT_ref) * time
        gamma, rate = self.GAMMA + self.GAMMA_ref, 2 * math.pi / local / (1 - eccentricity * cos)
        up, side = size * jnp.sin(omega), size * root * jnp.cos(omega) + gamma
        roemer = up * (cos - eccentricity) + side * sin
        first, second = side * cos - up * sin, -up * cos - side * sin
        twist = eccentricity * sin / (1 - eccentricity * cos) * rate * rate * roemer * roemer * first / 2
        tilt = jnp.sin(omega) * (cos - eccentricity) + root * jnp.cos(omega) * sin
        bend = 1 - eccentricity * cos - (self.SINI + self.SINI_ref) * tilt
        shapiro = -2 * T_SUN * (self.M2 + self.M2_ref) * jnp.log(bend)
        return emitted(roemer, first, second, rate) - twist + shapiro

    def _omega(self, whole: Array, y: Array, x: Array, period: Array) -> Array:
        """Longitude of periastron, rad; it advances with the true anomaly, counted over all orbits."""
        true = jnp.arctan2(y, x)
        true = jnp.where(true < 0, true + 2 * math.pi, true) + 2 * math.pi * whole
        advance = jnp.deg2rad(self.OMDOT + self.OMDOT_ref) / YEAR * period / (2 * math.pi)
        return jnp.deg2rad(self.OM + self.OM_ref) + advance * true
