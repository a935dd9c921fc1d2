"""Electrons of the solar wind."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ..core import Module, Scalar, numbers, param
from ._constants import AU, KPC, YEAR
from ._vector import Vector, dot

_PARSEC = KPC / 1000
_FAR = 1e14  # lt-s, where the line of sight ends
_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(64)


class SolarWind(Module):
    """Dispersion by electrons around the Sun, whose density falls with a power of the distance.

    Parameters are offsets from the reference values (`*_ref`): NE_SW, the density at 1 au, and its derivatives, shape
    (k,), cm^-3 / yr^k; SWP, minus the power's exponent, `None` for 2. `epoch`: SWEPOCH, s from PEPOCH.

    Edwards et al. 2006, MNRAS 372, eqs. 29, 30; You et al. 2012, MNRAS 422; Hazboun et al. 2022, ApJ 929, eq. 11.
    """

    NE_SW: Float[Array, " k"] = param(unit="cm^-3")
    SWP: Scalar | None = param()
    NE_SW_ref: Float[Array, " k"] = numbers()
    SWP_ref: Scalar | None = numbers()
    epoch: Scalar = numbers()

    def measure(self, direction: Vector, sun: Vector, time: Float[Array, " n"]) -> Float[Array, " n"]:
        """Dispersion measure, pc cm^-3: `sun` seen from the observatory, lt-s, `time` in s from PEPOCH."""
        terms, years = self.NE_SW + self.NE_SW_ref, (time - self.epoch) / YEAR
        density = jnp.zeros_like(years)
        for k in range(terms.shape[0] - 1, -1, -1):
            density = density * years / (k + 1) + terms[k]
        return density * self.geometry(direction, sun)

    def geometry(self, direction: Vector, sun: Vector) -> Float[Array, " n"]:
        """Dispersion measure over the density at 1 au, pc."""
        distance = jnp.sqrt(dot(sun, sun))
        cos = dot(sun, direction) / distance
        sin = jnp.sqrt(jnp.maximum(1 - cos * cos, 1e-16))
        angle = jnp.arctan2(sin, -cos)
        if self.SWP is None or self.SWP_ref is None:
            return AU**2 * angle / (distance * sin) / _PARSEC
        nearest, power = distance * sin, self.SWP + self.SWP_ref
        return (AU / nearest) ** power * nearest * _path(angle, nearest, power) / _PARSEC


def _path(angle: Float[Array, " n"], nearest: Float[Array, " n"], power: Array) -> Float[Array, " n"]:
    """Integral of sin(w)^(p - 2) dw from the far end of the line of sight to `angle`.

    In v = w^(p - 1) what is integrated is smooth for any p > 1.
    """
    top = angle ** (power - 1)
    v = top[None, :] * (jnp.asarray(_NODES)[:, None] + 1) / 2
    w = v ** (1 / (power - 1))
    inner = jnp.asarray(_WEIGHTS) @ (jnp.sin(w) / w) ** (power - 2) * top / 2
    return (inner - (nearest / _FAR) ** (power - 1)) / (power - 1)
