"""What all orbits share: the mean anomaly as a function of time, Kepler's equation, and the interfaces.

The number of orbits since the epoch is kept apart from the rest of a turn, so that no digits are lost after thousands
of orbits. Kepler's equation is solved without iteration, which compiles faster, and has its own derivative. The classes
of the other files in this folder are built on these.
"""

import abc
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ...core import Module, Scalar, numbers, param
from .._constants import DAY


class Sky(NamedTuple):
    """What an orbit may know of the pulsar's place: all but `along` and `across` have shape (n,).

    - `east`, `north`: the observatory from the barycentre along increasing longitude and latitude, lt-s.
    - `nearness`: inverse distance, 1/lt-s. `along`, `across`: proper motion, rad/s.
    """

    east: Array
    north: Array
    nearness: Array
    along: Array
    across: Array


class AbstractBinary(Module):
    """A companion's delay."""

    @abc.abstractmethod
    def delay(self, time: Float[Array, " n"], sky: Sky | None = None) -> Float[Array, " n"]:
        """Seconds of delay at `time`: seconds at the binary's barycentre from its reference epoch (T0 or TASC)."""


class AbstractOrbit(Module):
    """How the mean anomaly grows."""

    @abc.abstractmethod
    def turns(self, time: Float[Array, " n"], rate: Array | float = 0.0) -> tuple[Array, Array]:
        """(whole orbits, rest of a turn) after `time` seconds; `rate` is added to the period's derivative."""

    @abc.abstractmethod
    def period(self, time: Float[Array, " n"], rate: Array | float = 0.0) -> Float[Array, " n"]:
        """The period at `time`, s."""


class OrbitPB(AbstractOrbit):
    """A period and its derivative: t / P - Pdot (t / P)^2 / 2 turns.

    Offsets from the reference values (`*_ref`): PB in days, PBDOT in s/s, XPBDOT (as PINT has it, a part of the
    derivative that counts in the turns alone) in s/s.
    """

    PB: Scalar = param(unit="d")
    PBDOT: Scalar | None = param()
    XPBDOT: Scalar | None = param()
    PB_ref: Scalar = numbers()
    PBDOT_ref: Scalar | None = numbers()
    XPBDOT_ref: Scalar | None = numbers()

    def turns(self, time: Float[Array, " n"], rate: Array | float = 0.0) -> tuple[Array, Array]:
        orbits = time / self.days(0.0)
        rate = rate + plus(self.PBDOT, self.PBDOT_ref) + plus(self.XPBDOT, self.XPBDOT_ref)
        return split(orbits - rate * orbits * orbits / 2)

    def period(self, time: Float[Array, " n"], rate: Array | float = 0.0) -> Float[Array, " n"]:
        return self.days(0.0) + (rate + plus(self.PBDOT, self.PBDOT_ref)) * time

    def days(self, more: Array | float) -> Array:
        """The period at the epoch in s, `more` days added."""
        return (self.PB + self.PB_ref + more) * DAY


class OrbitFB(AbstractOrbit):
    """A frequency and its derivatives: sum_k FB_k t^(k+1) / (k+1)! turns.

    `FB`: offsets from `FB_ref`, shape (k,), 1/s^(k+1).
    """

    FB: Float[Array, " k"] = param(unit="1/s")
    FB_ref: Float[Array, " k"] = numbers()

    def turns(self, time: Float[Array, " n"], rate: Array | float = 0.0) -> tuple[Array, Array]:
        del rate
        terms, total = self.FB + self.FB_ref, jnp.zeros_like(time)
        for k in range(terms.shape[0] - 1, -1, -1):
            total = (total + terms[k]) * time / (k + 1)
        return split(total)

    def period(self, time: Float[Array, " n"], rate: Array | float = 0.0) -> Float[Array, " n"]:
        del rate
        terms, total = self.FB + self.FB_ref, jnp.zeros_like(time)
        for k in range(terms.shape[0] - 1, 0, -1):
            total = (total + terms[k]) * time / k
        return 1 / (total + terms[0])


def plus(offset: Array | None, reference: Array | None) -> Array | float:
    """The value of a parameter that the par file may lack: 0 then."""
    return 0.0 if offset is None or reference is None else offset + reference


def split(orbits: Float[Array, " n"]) -> tuple[Array, Array]:
    """(whole turns, the rest)."""
    # after 10^4 orbits the fraction has lost four digits already: nothing more may go
    whole = jnp.floor(orbits)
    return whole, orbits - whole


@jax.custom_jvp
def eccentric_anomaly(mean: Float[Array, " n"], eccentricity: Float[Array, " n"]) -> Float[Array, " n"]:
    """E with E - e sin E = M, M from 0 to 2 pi; derivatives are those of the equation.

    A cubic gives a start that is right to 1e-3, one correction of fifth order the rest: each step of an iteration would
    be compiled by itself. Markley 1995, Celest. Mech. Dyn. Astron. 63, eqs. 5, 9, 10, 14 to 28.
    """
    e, side = eccentricity, jnp.where(mean > math.pi, -1.0, 1.0)
    m = jnp.where(mean > math.pi, 2 * math.pi - mean, mean)
    alpha = (3 * math.pi**2 + 1.6 * math.pi * (math.pi - m) / (1 + e)) / (math.pi**2 - 6)
    d = 3 * (1 - e) + alpha * e
    q = 2 * alpha * d * (1 - e) - m * m
    r = 3 * alpha * d * (d - 1 + e) * m + m * m * m
    w = jnp.cbrt(r + jnp.sqrt(q * q * q + r * r)) ** 2
    start = (2 * r * w / (w * w + w * q + q * q) + m) / d
    # one step of fifth order: each bracket corrects the one before it by the next derivative
    second, slope = e * jnp.sin(start), 1 - e * jnp.cos(start)
    off, third = start - second - m, 1 - slope
    step = -off / (slope - off * second / (2 * slope))
    step = -off / (slope + step * (second / 2 + step * third / 6))
    step = -off / (slope + step * (second / 2 + step * (third / 6 - step * second / 24)))
    return jnp.where(side > 0, start + step, 2 * math.pi - start - step)


@eccentric_anomaly.defjvp
def _eccentric_anomaly_jvp(primals: tuple, tangents: tuple) -> tuple[Array, Array]:
    # dE = (dM + sin E de) / (1 - e cos E): the cubic and its branches have no part in it
    mean, eccentricity = primals
    d_mean, d_eccentricity = tangents
    anomaly = eccentric_anomaly(mean, eccentricity)
    slope = 1 / (1 - eccentricity * jnp.cos(anomaly))
    return anomaly, (d_mean + jnp.sin(anomaly) * d_eccentricity) * slope


def emitted(roemer: Array, first: Array, second: Array, rate: Array) -> Array:
    """The Roemer delay at the time of emission, from it and its derivatives with the anomaly at arrival.

    D (1 - n D' + (n D')^2 + n^2 D D'' / 2), n the rate of the anomaly, 1/s: Damour and Deruelle 1986, eq. 43.
    """
    step = rate * first
    return roemer * (1 - step + step * step + rate * rate * roemer * second / 2)


class AbstractShapiro(Module):
    """Range and shape of a companion's Shapiro delay, whatever stands for them in the par file."""

    @abc.abstractmethod
    def range_and_shape(self) -> tuple[Array, Array]:
        """(r, s): seconds; sine of the inclination."""

    def delay(self, far: Array | float, near: Array) -> Array:
        """-2 r ln(far - s near), s: Damour and Deruelle 1986, eq. 26; NaN where s is no sine."""
        size, shape = self.range_and_shape()
        shape = jnp.where((shape >= 0) & (shape <= 1), shape, jnp.nan)  # so that a solver takes a shorter step
        return -2 * size * jnp.log(far - shape * near)
