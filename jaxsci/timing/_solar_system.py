"""What the Sun's gravity adds."""

import jax.numpy as jnp
from jaxtyping import Array, Float

from ._constants import AU, T_SUN


def solar_shapiro(direction: Float[Array, "3 n"], sun: Float[Array, "3 n"]) -> Float[Array, " n"]:
    """Shapiro delay of the Sun, s: -2 T_sun ln((r - r.n) / au), r = Sun seen from the observatory, lt-s.

    Shapiro 1964; Backer and Hellings 1986, Annu. Rev. Astron. Astrophys. 24.
    """
    distance = jnp.sqrt(jnp.sum(sun * sun, axis=0))
    return -2 * T_SUN * jnp.log((distance - jnp.sum(sun * direction, axis=0)) / AU)
