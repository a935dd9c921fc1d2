"""An eccentric orbit in time and space, and the light travel across it.

BT, DD, DDK and DDGR share the ellipse, its parameters and their rates, and differ in what relativity adds. So the place
on the ellipse and the delays that follow from it are functions here, which those models call with eccentricities and
angles of their own.
"""

import math
from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float

from ...core import Module, Scalar, numbers, param
from .._constants import DAY
from ._kepler import eccentric_anomaly, emitted, plus


class Ellipse(Module):
    """Size, shape and orientation of an orbit, and their rates.

    Parameters are offsets from the reference values (`*_ref`): A1 in lt-s, T0 in days, OM in degrees, A1DOT in lt-s/s,
    EDOT in 1/s, A1DOT2 in lt-s/s^2. The offset of T0 shifts the epoch.
    """

    A1: Scalar = param(unit="ls")
    T0: Scalar = param(unit="d")
    ECC: Scalar = param()
    OM: Scalar = param(unit="deg")
    A1DOT: Scalar = param(unit="ls/s")
    EDOT: Scalar = param(unit="1/s")
    A1DOT2: Scalar | None = param(unit="ls/s^2")
    A1_ref: Scalar = numbers()
    ECC_ref: Scalar = numbers()
    OM_ref: Scalar = numbers()
    A1DOT_ref: Scalar = numbers()
    EDOT_ref: Scalar = numbers()
    A1DOT2_ref: Scalar | None = numbers()

    def since(self, time: Float[Array, " n"]) -> Float[Array, " n"]:
        """Seconds from T0, of seconds from its reference."""
        return time - self.T0 * DAY

    def size(self, time: Float[Array, " n"]) -> Float[Array, " n"]:
        """Projected semi-major axis at `time` seconds after T0, lt-s."""
        curve = plus(self.A1DOT2, self.A1DOT2_ref)
        return self.A1 + self.A1_ref + (self.A1DOT + self.A1DOT_ref + curve * time / 2) * time

    def eccentricity(self, time: Float[Array, " n"]) -> Float[Array, " n"]:
        """Eccentricity at `time` seconds after T0."""
        return self.ECC + self.ECC_ref + (self.EDOT + self.EDOT_ref) * time

    def node(self) -> Array:
        """Longitude of periastron at T0, rad."""
        return jnp.deg2rad(self.OM + self.OM_ref)


class Place(NamedTuple):
    """Where on its ellipse the pulsar is, each of shape (n,).

    `e`; `sin` and `cos` of the eccentric anomaly; `root` = sqrt(1 - e^2); `true`: the true anomaly counted over all
    orbits, rad; `rate`: that of the eccentric anomaly, 1/s.
    """

    e: Array
    sin: Array
    cos: Array
    root: Array
    true: Array
    rate: Array


def place(whole: Array, part: Array, eccentricity: Array, period: Array) -> Place:
    """The place after `whole` orbits and `part` of a turn."""
    anomaly = eccentric_anomaly(2 * math.pi * part, eccentricity)
    sin, cos, root = jnp.sin(anomaly), jnp.cos(anomaly), jnp.sqrt(1 - eccentricity * eccentricity)
    true = jnp.arctan2(root * sin, cos - eccentricity)
    # periastron advances with the true anomaly and not with time, so that it counts whole orbits too
    true = jnp.where(true < 0, true + 2 * math.pi, true) + 2 * math.pi * whole
    return Place(eccentricity, sin, cos, root, true, 2 * math.pi / period / (1 - eccentricity * cos))


def travel(at: Place, size: Array, omega: Array, gamma: Array | float, radial: Array, angular: Array) -> Array:
    """Roemer and Einstein delay at the time of emission, s.

    `radial`, `angular`: the eccentricities e_r and e_theta. Damour and Deruelle 1986, eqs. 46 to 52.
    """
    up = size * jnp.sin(omega)
    side = size * jnp.sqrt(1 - angular * angular) * jnp.cos(omega) + gamma
    roemer = up * (at.cos - radial) + side * at.sin
    first, second = side * at.cos - up * at.sin, -up * at.cos - side * at.sin
    # the inverse of the timing formula to second order in v/c; for circular orbits this part is 0
    twist = at.e * at.sin / (1 - at.e * at.cos) * at.rate * at.rate * roemer * roemer * first / 2
    return emitted(roemer, first, second, at.rate) - twist


def depth(at: Place, omega: Array) -> tuple[Array, Array]:
    """(far, near), what the Shapiro delay takes: 1 - e cos E, and the distance behind the companion over sin i."""
    tilt = jnp.sin(omega) * (at.cos - at.e) + at.root * jnp.cos(omega) * at.sin
    return 1 - at.e * at.cos, tilt
