"""What the gravity of the Sun and the planets adds."""

import jax.numpy as jnp
from jaxtyping import Array, Float

from ._constants import AU, PLANETS, T_SUN


def solar_shapiro(direction: Float[Array, "3 n"], sun: Float[Array, "3 n"]) -> Float[Array, " n"]:
    """Shapiro delay of the Sun, s: -2 T_sun ln((r - r.n) / au), r = Sun seen from the observatory, lt-s.

    Shapiro 1964; Backer and Hellings 1986, Annu. Rev. Astron. Astrophys. 24.
    """
    return _shapiro(direction, sun, T_SUN)


def planet_shapiro(direction: Float[Array, "3 n"], planets: Float[Array, "p 3 n"]) -> Float[Array, " n"]:
    """Shapiro delay of the planets seen from the observatory, s, in the order of `PLANETS`."""
    delays = [_shapiro(direction, planets[k], mass) for k, mass in enumerate(PLANETS.values())]
    return sum(delays[1:], delays[0])


def _shapiro(direction: Float[Array, "3 n"], body: Float[Array, "3 n"], mass: float) -> Float[Array, " n"]:
    distance = jnp.sqrt(jnp.sum(body * body, axis=0))
    return -2 * mass * jnp.log((distance - jnp.sum(body * direction, axis=0)) / AU)
