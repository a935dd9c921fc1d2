"""What the gravity of the Sun and the planets adds."""

import jax.numpy as jnp
from jaxtyping import Array, Float

from ._constants import AU, PLANETS, T_SUN
from ._vector import Vector, dot, xyz


def solar_shapiro(direction: Vector, sun: Vector) -> Float[Array, " n"]:
    """Shapiro delay of the Sun, s: -2 T_sun ln((r - r.n) / au), r = Sun seen from the observatory, lt-s.

    Shapiro 1964; Backer and Hellings 1986, Annu. Rev. Astron. Astrophys. 24.
    """
    return _shapiro(direction, sun, T_SUN)


def planet_shapiro(direction: Vector, planets: Float[Array, "n p 3"]) -> Float[Array, " n"]:
    """Shapiro delay of the planets seen from the observatory, s, in the order of `PLANETS`."""
    delays = [_shapiro(direction, xyz(planets[:, k]), mass) for k, mass in enumerate(PLANETS.values())]
    return sum(delays[1:], delays[0])


def _shapiro(direction: Vector, body: Vector, mass: float) -> Float[Array, " n"]:
    return -2 * mass * jnp.log((jnp.sqrt(dot(body, body)) - dot(body, direction)) / AU)
