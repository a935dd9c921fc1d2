"""Orbits whose orientation shows: annual parallax and proper motion of the orbit itself, for the model DDK.

As the Earth and the pulsar move, an orbit is seen under changing angles. In close and wide binaries that gives the
inclination and the node on the sky, which the Shapiro delay alone leaves open. `DD` holds a `Kopeikin` in place of a
Shapiro delay.
"""

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from ...core import Module, Scalar, numbers, param
from .._constants import T_SUN
from ._kepler import Sky


class Kopeikin(Module):
    """Inclination and node of the orbit, for the model DDK.

    Parameters are offsets from the reference values (`*_ref`): M2 in solar masses, KIN and KOM in degrees (Damour and
    Taylor 1992: KOM from east through north). `proper_motion`: the effects of proper motion too (K96).

    Kopeikin 1995, ApJ 439, eqs. 15 to 19 (parallax); Kopeikin 1996, ApJ 467, eqs. 8 to 10 (proper motion).
    """

    M2: Scalar = param(unit="Msun")
    KIN: Scalar = param(unit="deg")
    KOM: Scalar = param(unit="deg")
    M2_ref: Scalar = numbers()
    KIN_ref: Scalar = numbers()
    KOM_ref: Scalar = numbers()
    proper_motion: bool = eqx.field(static=True)  # type: ignore[misc]

    def inclination(self, time: Float[Array, " n"], sky: Sky) -> tuple[Array, Array]:
        """(inclination, how much of it proper motion made since T0), rad."""
        start = jnp.deg2rad(self.KIN + self.KIN_ref)
        if not self.proper_motion:
            return start, jnp.zeros_like(time)
        sin, cos = self._node()
        change = (sky.across * cos - sky.along * sin) * time
        return start + change, change

    def seen(self, omega: Array, size: Array, time: Float[Array, " n"], sky: Sky) -> tuple[Array, Array]:
        """(longitude of periastron in rad, projected axis in lt-s) as they appear from the observatory."""
        sin, cos = self._node()
        tilt, change = self.inclination(time, sky)
        # first proper motion, then parallax: both change the size by 1e-6 or so
        size = size * (1 + change / jnp.tan(tilt))
        size = size * (1 + sky.nearness / jnp.tan(tilt) * (sky.east * sin - sky.north * cos))
        turned = -sky.nearness * (sky.east * cos + sky.north * sin)
        if self.proper_motion:
            turned = turned + (sky.along * cos + sky.across * sin) * time
        return omega + turned / jnp.sin(tilt), size

    def delay(self, far: Array, near: Array, time: Float[Array, " n"], sky: Sky) -> Array:
        """The companion's Shapiro delay, s."""
        tilt, _ = self.inclination(time, sky)
        return -2 * T_SUN * (self.M2 + self.M2_ref) * jnp.log(far - jnp.sin(tilt) * near)

    def _node(self) -> tuple[Array, Array]:
        node = jnp.deg2rad(self.KOM + self.KOM_ref)
        return jnp.sin(node), jnp.cos(node)
