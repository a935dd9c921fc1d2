"""Nearly circular orbits."""

import math

import jax.numpy as jnp
from jaxtyping import Array, Float

from ...core._parameter import numbers, param
from ...core._typing import Scalar
from .._constants import DAY, T_SUN
from ._kepler import AbstractBinary, emitted, turns


class ELL1(AbstractBinary):
    """Orbits of small eccentricity by the Laplace parameters EPS1 = e sin w, EPS2 = e cos w, to third order in e.

    Parameters are offsets from the reference values (`*_ref`): PB and TASC in days, A1 in lt-s, A1DOT in
    lt-s/s, EPS1DOT and EPS2DOT in 1e-12/s, M2 in solar masses, PBDOT in s/s. The offset of TASC shifts the epoch.

    Lange et al. 2001, MNRAS 326; higher orders: Zhu et al. 2019, MNRAS 482, eq. 1; Fiore et al. 2023.
    """

    PB: Scalar = param(unit="d")
    A1: Scalar = param(unit="ls")
    TASC: Scalar = param(unit="d")
    EPS1: Scalar = param()
    EPS2: Scalar = param()
    M2: Scalar = param(unit="Msun")
    SINI: Scalar = param()
    PBDOT: Scalar = param()
    A1DOT: Scalar = param(unit="ls/s")
    EPS1DOT: Scalar = param(unit="1e-12/s")
    EPS2DOT: Scalar = param(unit="1e-12/s")
    PB_ref: Scalar = numbers()
    A1_ref: Scalar = numbers()
    EPS1_ref: Scalar = numbers()
    EPS2_ref: Scalar = numbers()
    M2_ref: Scalar = numbers()
    SINI_ref: Scalar = numbers()
    PBDOT_ref: Scalar = numbers()
    A1DOT_ref: Scalar = numbers()
    EPS1DOT_ref: Scalar = numbers()
    EPS2DOT_ref: Scalar = numbers()

    def delay(self, time: Float[Array, " n"]) -> Float[Array, " n"]:
        time = time - self.TASC * DAY
        period, period_rate = (self.PB + self.PB_ref) * DAY, self.PBDOT + self.PBDOT_ref
        _, part = turns(time, period, period_rate)
        anomaly = 2 * math.pi * part
        size = self.A1 + self.A1_ref + (self.A1DOT + self.A1DOT_ref) * time
        e1 = self.EPS1 + self.EPS1_ref + 1e-12 * (self.EPS1DOT + self.EPS1DOT_ref) * time
        e2 = self.EPS2 + self.EPS2_ref + 1e-12 * (self.EPS2DOT + self.EPS2DOT_ref) * time
        roemer, first, second = (size * shape for shape in _shapes(anomaly, e1, e2))
        delay = emitted(roemer, first, second, 2 * math.pi / (period + period_rate * time))
        bend = 1 - (self.SINI + self.SINI_ref) * jnp.sin(anomaly)
        return delay - 2 * T_SUN * (self.M2 + self.M2_ref) * jnp.log(bend)


def _shapes(anomaly: Array, e1: Array, e2: Array) -> tuple[Array, Array, Array]:
    """The Roemer delay over A1, and its first two derivatives with the mean anomaly from the node."""
    a, b = e1 * e1, e2 * e2
    sines = (1 - (5 * b + 3 * a) / 8, e2 / 2 - (5 * b + 3 * a) * e2 / 12, 3 * (b - a) / 8, (b - 3 * a) * e2 / 3)
    cosines = (e1 * e2 / 4, -e1 / 2 + (6 * b + 4 * a) * e1 / 12, -3 * e1 * e2 / 4, (a - 3 * b) * e1 / 3)
    value = first = second = jnp.zeros_like(anomaly)
    for k, (p, q) in enumerate(zip(sines, cosines, strict=True), 1):
        sin, cos = jnp.sin(k * anomaly), jnp.cos(k * anomaly)
        value = value + p * sin + q * cos
        first = first + k * (p * cos - q * sin)
        second = second - k * k * (p * sin + q * cos)
    return value, first, second
