"""The companion's Shapiro delay under its several parameterisations.

Range and shape of the delay are a mass and the sine of an inclination. These are nearly degenerate unless the orbit is
seen edge on, and so there are others (SHAPMAX, H3 with STIGMA or H4), which describe the same delay by numbers that
data determine better. The orbits hold one of these classes as `shapiro`.
"""

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array

from ...core import Module, Scalar, numbers, param
from .._constants import T_SUN
from ._kepler import AbstractShapiro


class ShapiroSini(AbstractShapiro):
    """Companion mass and sine of the inclination: offsets of M2 in solar masses and SINI from `*_ref`."""

    M2: Scalar = param(unit="Msun")
    SINI: Scalar = param()
    M2_ref: Scalar = numbers()
    SINI_ref: Scalar = numbers()

    def range_and_shape(self) -> tuple[Array, Array]:
        return T_SUN * (self.M2 + self.M2_ref), self.SINI + self.SINI_ref


class ShapiroMax(AbstractShapiro):
    """Companion mass and SHAPMAX = -ln(1 - s), which behaves better where s is near 1.

    Offsets from `*_ref`; M2 in solar masses. Kramer et al. 2006, Science 314.
    """

    M2: Scalar = param(unit="Msun")
    SHAPMAX: Scalar = param()
    M2_ref: Scalar = numbers()
    SHAPMAX_ref: Scalar = numbers()

    def range_and_shape(self) -> tuple[Array, Array]:
        return T_SUN * (self.M2 + self.M2_ref), -jnp.expm1(-(self.SHAPMAX + self.SHAPMAX_ref))


class ShapiroOrthometric(AbstractShapiro):
    """Orthometric amplitude and ratio: r = H3 / STIGMA^3, s = 2 STIGMA / (1 + STIGMA^2).

    Offsets from `*_ref`; H3 in s. Freire and Wex 2010, MNRAS 409, eqs. 12 and 20.
    """

    H3: Scalar = param(unit="s")
    STIGMA: Scalar = param()
    H3_ref: Scalar = numbers()
    STIGMA_ref: Scalar = numbers()

    def range_and_shape(self) -> tuple[Array, Array]:
        ratio = self.STIGMA + self.STIGMA_ref
        return (self.H3 + self.H3_ref) / ratio**3, 2 * ratio / (1 + ratio * ratio)


class ShapiroHarmonics(Module):
    """The third and higher harmonics of the Shapiro delay of a circular orbit, for medium inclinations.

    Offsets from `*_ref`: H3 and H4 in s; without H4 the third harmonic alone. `count`: the last harmonic.
    Freire and Wex 2010, MNRAS 409, eq. 19.
    """

    H3: Scalar = param(unit="s")
    H4: Scalar | None = param(unit="s")
    H3_ref: Scalar = numbers()
    H4_ref: Scalar | None = numbers()
    count: int = eqx.field(static=True)  # type: ignore[misc]

    def delay(self, anomaly: Array) -> Array:
        """The delay at a mean anomaly from the node, s."""
        third = self.H3 + self.H3_ref
        if self.H4 is None or self.H4_ref is None:
            return -4 / 3 * third * jnp.sin(3 * anomaly)
        # H4 / H3 is the orthometric ratio, by which each harmonic is smaller than the one before
        ratio, total = (self.H4 + self.H4_ref) / third, jnp.zeros_like(anomaly)
        for k in range(3, self.count + 1):
            wave = jnp.cos(k * anomaly) if k % 2 == 0 else jnp.sin(k * anomaly)
            total = total + (-1) ** ((k + 2) // 2 if k % 2 == 0 else (k + 1) // 2) * 2 / k * ratio ** (k - 3) * wave
        return -2 * third * total
