"""Nearly circular orbits: the models ELL1, ELL1H and ELL1k.

Where the eccentricity is tiny, the place of periastron means little, and its epoch and angle are degenerate. The
Laplace parameters and the time of the ascending node are not. `from_par` makes these models, whose delays are series in
the eccentricity.
"""

import abc
import math

import jax.numpy as jnp
from jaxtyping import Array, Float

from ...core import Module, Scalar, numbers, param, transparent
from .._constants import DAY, YEAR
from ._kepler import AbstractBinary, AbstractOrbit, AbstractShapiro, Sky, emitted, plus
from ._shapiro import ShapiroHarmonics


class AbstractDrift(Module):
    """How the Laplace parameters change."""

    @abc.abstractmethod
    def at(self, e1: Array, e2: Array, time: Float[Array, " n"]) -> tuple[Array, Array]:
        """(EPS1, EPS2) `time` seconds after TASC."""

    @abc.abstractmethod
    def roemer(self, value: Array, anomaly: Array, e1: Array, e2: Array) -> Array:
        """The Roemer delay over A1, from `value`: that of a fixed ellipse."""


class LinearDrift(AbstractDrift):
    """EPS1 and EPS2 with constant rates: offsets of EPS1DOT and EPS2DOT from `*_ref`, 1e-12/s."""

    EPS1DOT: Scalar = param(unit="1e-12/s")
    EPS2DOT: Scalar = param(unit="1e-12/s")
    EPS1DOT_ref: Scalar = numbers()
    EPS2DOT_ref: Scalar = numbers()

    def at(self, e1: Array, e2: Array, time: Float[Array, " n"]) -> tuple[Array, Array]:
        first, second = self.EPS1DOT + self.EPS1DOT_ref, self.EPS2DOT + self.EPS2DOT_ref
        return e1 + 1e-12 * first * time, e2 + 1e-12 * second * time

    def roemer(self, value: Array, anomaly: Array, e1: Array, e2: Array) -> Array:
        return value


class Precession(AbstractDrift):
    """An ellipse that turns and changes its eccentricity: the model ELL1k.

    Offsets from `*_ref`: OMDOT in deg/yr, LNEDOT = edot / e in 1/yr. Susobhanan et al. 2018, MNRAS 480, eqs. 6, 15.
    """

    OMDOT: Scalar = param(unit="deg/yr")
    LNEDOT: Scalar = param(unit="1/yr")
    OMDOT_ref: Scalar = numbers()
    LNEDOT_ref: Scalar = numbers()

    def at(self, e1: Array, e2: Array, time: Float[Array, " n"]) -> tuple[Array, Array]:
        angle = jnp.deg2rad(self.OMDOT + self.OMDOT_ref) * (time / YEAR)
        size = 1 + (self.LNEDOT + self.LNEDOT_ref) * (time / YEAR)
        cos, sin = size * jnp.cos(angle), size * jnp.sin(angle)
        return e1 * cos + e2 * sin, e2 * cos - e1 * sin

    def roemer(self, value: Array, anomaly: Array, e1: Array, e2: Array) -> Array:
        return jnp.sin(anomaly) + (e2 * jnp.sin(2 * anomaly) - e1 * (jnp.cos(2 * anomaly) + 3)) / 2


class ELL1(AbstractBinary):
    """Orbits of small eccentricity by the Laplace parameters EPS1 = e sin w, EPS2 = e cos w.

    Parameters are offsets from the reference values (`*_ref`): TASC in days, A1 in lt-s, A1DOT in lt-s/s, A1DOT2 in
    lt-s/s^2. The offset of TASC shifts the epoch. `orbit`, `drift` and `shapiro` hold the others.

    To third order in e (ELL1k: the delay to first order, its derivatives to third, as PINT has them).
    Lange et al. 2001, MNRAS 326; higher orders: Zhu et al. 2019, MNRAS 482, eq. 1; Fiore et al. 2023.
    """

    orbit: AbstractOrbit = transparent()
    A1: Scalar = param(unit="ls")
    TASC: Scalar = param(unit="d")
    EPS1: Scalar = param()
    EPS2: Scalar = param()
    shapiro: AbstractShapiro | ShapiroHarmonics = transparent()
    A1DOT: Scalar = param(unit="ls/s")
    drift: AbstractDrift = transparent()
    A1DOT2: Scalar | None = param(unit="ls/s^2")
    A1_ref: Scalar = numbers()
    EPS1_ref: Scalar = numbers()
    EPS2_ref: Scalar = numbers()
    A1DOT_ref: Scalar = numbers()
    A1DOT2_ref: Scalar | None = numbers()

    def delay(self, time: Float[Array, " n"], sky: Sky | None = None) -> Float[Array, " n"]:
        time = time - self.TASC * DAY
        _, part = self.orbit.turns(time)
        anomaly = 2 * math.pi * part
        curve = plus(self.A1DOT2, self.A1DOT2_ref)
        size = self.A1 + self.A1_ref + (self.A1DOT + self.A1DOT_ref + curve * time / 2) * time
        e1, e2 = self.drift.at(self.EPS1 + self.EPS1_ref, self.EPS2 + self.EPS2_ref, time)
        value, first, second = _shapes(anomaly, e1, e2)
        value = self.drift.roemer(value, anomaly, e1, e2)
        delay = emitted(size * value, size * first, size * second, 2 * math.pi / self.orbit.period(time))
        if isinstance(self.shapiro, ShapiroHarmonics):
            return delay + self.shapiro.delay(anomaly)
        return delay + self.shapiro.delay(1.0, jnp.sin(anomaly))


def _shapes(anomaly: Array, e1: Array, e2: Array) -> tuple[Array, Array, Array]:
    """The Roemer delay over A1, and its first two derivatives with the mean anomaly from the node."""
    a, b = e1 * e1, e2 * e2
    sines = (1 - (5 * b + 3 * a) / 8, e2 / 2 - (5 * b + 3 * a) * e2 / 12, 3 * (b - a) / 8, (b - 3 * a) * e2 / 3)
    cosines = (e1 * e2 / 4, -e1 / 2 + (6 * b + 4 * a) * e1 / 12, -3 * e1 * e2 / 4, (a - 3 * b) * e1 / 3)
    value = first = second = jnp.zeros_like(anomaly)
    one, two = jnp.sin(anomaly), jnp.cos(anomaly)
    sin, cos = jnp.zeros_like(one), jnp.ones_like(two)
    for k, (p, q) in enumerate(zip(sines, cosines, strict=True), 1):
        sin, cos = sin * two + cos * one, cos * two - sin * one  # of k times the anomaly: a sine takes long to compile
        value = value + p * sin + q * cos
        first = first + k * (p * cos - q * sin)
        second = second - k * k * (p * sin + q * cos)
    return value, first, second
