"""What all orbits share."""

import abc

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ...core._module import Module

_NEWTON = 8  # steps; 5 reach rounding at e = 0.9 from this start


class AbstractBinary(Module):
    """A companion's delay."""

    @abc.abstractmethod
    def delay(self, time: Float[Array, " n"]) -> Float[Array, " n"]:
        """Seconds of delay at `time`: seconds at the binary's barycentre from its reference epoch (T0 or TASC)."""


@jax.custom_jvp
def eccentric_anomaly(mean: Float[Array, " n"], eccentricity: Float[Array, " n"]) -> Float[Array, " n"]:
    """E with E - e sin E = M, by Newton's iteration from M + e sin M; derivatives are those of the equation."""
    anomaly = mean + eccentricity * jnp.sin(mean)
    for _ in range(_NEWTON):
        off = anomaly - eccentricity * jnp.sin(anomaly) - mean
        anomaly = anomaly - off / (1 - eccentricity * jnp.cos(anomaly))
    return anomaly


@eccentric_anomaly.defjvp
def _eccentric_anomaly_jvp(primals: tuple, tangents: tuple) -> tuple[Array, Array]:
    mean, eccentricity = primals
    d_mean, d_eccentricity = tangents
    anomaly = eccentric_anomaly(mean, eccentricity)
    slope = 1 / (1 - eccentricity * jnp.cos(anomaly))
    return anomaly, (d_mean + jnp.sin(anomaly) * d_eccentricity) * slope


def turns(time: Float[Array, " n"], period: Array, period_rate: Array) -> tuple[Array, Array]:
    """(whole orbits, rest of a turn) after `time` seconds: t / P - Pdot (t / P)^2 / 2."""
    orbits = time / period
    orbits = orbits - period_rate * orbits * orbits / 2
    whole = jnp.floor(orbits)
    return whole, orbits - whole


def emitted(roemer: Array, first: Array, second: Array, rate: Array) -> Array:
    """The Roemer delay at the time of emission, from it and its derivatives with the anomaly at arrival.

    D (1 - n D' + (n D')^2 + n^2 D D'' / 2), n the rate of the anomaly, 1/s: Damour and Deruelle 1986, eq. 43.
    """
    step = rate * first
    return roemer * (1 - step + step * step + rate * rate * roemer * second / 2)
