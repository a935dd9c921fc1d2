"""What the gravity of the Sun and the planets adds: light that passes a mass takes longer.

The Sun counts for every pulsar, up to 0.1 ms at its limb; the planets only where the par file says PLANET_SHAPIRO. No
parameter of a par file is involved. `TimingModel` adds both to the delay on the way to the barycentre.
"""

import jax.numpy as jnp
from jaxtyping import Array, Float

from .._constants import AU, PLANETS, T_SUN
from ._vector import Vector, dot, xyz


def solar_shapiro(direction: Vector, sun: Vector) -> Float[Array, " n"]:
    """Compute the Shapiro delay of the Sun, s: -2 T_sun ln((r - r.n) / au), r = Sun seen from the observatory, lt-s.

    Shapiro 1964; Backer and Hellings 1986, Annu. Rev. Astron. Astrophys. 24.
    """
    return _shapiro(direction, sun, T_SUN)


def planet_shapiro(direction: Vector, planets: Float[Array, "n p 3"]) -> Float[Array, " n"]:
    """Compute the Shapiro delay of the planets, s, seen from the observatory, lt-s, in the order of `PLANETS`."""
    delays = [_shapiro(direction, xyz(planets[:, k]), mass) for k, mass in enumerate(PLANETS.values())]
    return sum(delays[1:], delays[0])


def _shapiro(direction: Vector, body: Vector, mass: float) -> Float[Array, " n"]:
    # in units of 1 au, which shifts all delays alike, as PINT has it
    return -2 * mass * jnp.log((jnp.sqrt(dot(body, body)) - dot(body, direction)) / AU)
