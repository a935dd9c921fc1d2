"""Electrons of the solar wind: dispersion that comes and goes with the angle between pulsar and Sun.

The density falls with the square of the distance from the Sun (Edwards et al. 2006), or with any other power, for which
the integral along the line of sight is done numerically. `TimingModel` adds its measure to that of the interstellar
medium; the noise of the wind's density (TNSWAMP) uses the same geometry.
"""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ...core import Module, Scalar, numbers, param
from .._constants import AU, KPC, YEAR
from ._line import READ, SERIES, Component, Entry, Par, says_zero
from ._read import since, values_of
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

    @staticmethod
    def from_par(par: Par) -> "SolarWind | None":
        """The wind of a par file; `None` where its density is 0 and neither fitted nor noisy.

        **Raises:** `ValueError` for an unknown SWM, a power of the distance that leaves the integral infinite, and
        derivatives without their SWEPOCH.
        """
        names = _NE_SW.elements(par)
        lines = [line for line in (par.find(name) for name in names) if line is not None]
        noisy = par.find("TNSWAMP") is not None
        if not noisy and all(says_zero(line.text) and not line.fit for line in lines):
            return None
        kind = par.word("SWM", "0")
        if kind not in ("0", "1"):
            raise ValueError(
                f"SWM {kind} is not supported; there are 0 (Edwards et al.) and 1 (any power of the distance)"
            )
        power = jnp.asarray(float(par.value("SWP", "2"))) if kind == "1" else None
        if power is not None and not power > 1:
            raise ValueError(f"SWP is {par.word('SWP')}: the integral along the line of sight needs more than 1")
        offsets, values = values_of(par, names)
        curved = any(not says_zero(line.text) for line in lines[1:])
        zero = None if power is None else jnp.zeros(())
        return SolarWind(offsets, zero, values, power, since(par, "SWEPOCH", needed=curved))

    def measure(self, direction: Vector, sun: Vector, time: Float[Array, " n"]) -> Float[Array, " n"]:
        """Compute the dispersion measure, pc cm^-3: `sun` seen from the observatory, lt-s, `time` in s from PEPOCH."""
        terms, years = self.NE_SW + self.NE_SW_ref, (time - self.epoch) / YEAR
        density = jnp.zeros_like(years)
        for k in range(terms.shape[0] - 1, -1, -1):
            density = density * years / (k + 1) + terms[k]
        return density * self.geometry(direction, sun)

    def geometry(self, direction: Vector, sun: Vector) -> Float[Array, " n"]:
        """Compute the dispersion measure over the density at 1 au, pc, with `sun` seen from the observatory, lt-s."""
        distance = jnp.sqrt(dot(sun, sun))
        cos = dot(sun, direction) / distance
        # behind the Sun the sine is 0, and the path would be 0 / 0
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


_NE_SW = Entry("NE_SW", SERIES, aliases=("SOLARN0", "NE1AU"), power=-2, silent=True)
SOLAR_WIND = Component(
    "wind",
    (_NE_SW, Entry("SWEPOCH", role=READ, epoch=True), Entry("SWM", role=READ), Entry("SWP", role=READ)),
    SolarWind.from_par,
)
