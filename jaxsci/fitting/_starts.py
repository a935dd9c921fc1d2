"""Where a search may start when one start is not enough: points that fill a box, and which of the ends to keep.

Costs of nonlinear models have several minima, and a search finds the one next to its start. `curvefit.multi_start` and
`compsep.separate` spread their starts and choose among the ends by the functions here.
"""

import functools
from collections.abc import Sequence
from types import ModuleType

import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

_BITS = 30
# Degree s, coefficients a and initial numbers m of the primitive polynomials, dimensions 2 to 21:
# Joe and Kuo 2008, SIAM J. Sci. Comput. 30, table "new-joe-kuo-6".
_DIRECTIONS = (
    (1, 0, (1,)),
    (2, 1, (1, 3)),
    (3, 1, (1, 3, 1)),
    (3, 2, (1, 1, 1)),
    (4, 1, (1, 1, 3, 3)),
    (4, 4, (1, 3, 5, 13)),
    (5, 2, (1, 1, 5, 5, 17)),
    (5, 4, (1, 1, 5, 5, 5)),
    (5, 7, (1, 1, 7, 11, 19)),
    (5, 11, (1, 1, 5, 1, 1)),
    (5, 13, (1, 1, 1, 3, 11)),
    (5, 14, (1, 3, 5, 5, 31)),
    (6, 1, (1, 3, 3, 9, 7, 49)),
    (6, 13, (1, 1, 1, 15, 21, 21)),
    (6, 16, (1, 3, 1, 13, 27, 49)),
    (6, 19, (1, 1, 1, 15, 7, 5)),
    (6, 22, (1, 3, 1, 15, 13, 25)),
    (6, 25, (1, 1, 5, 5, 19, 61)),
    (7, 1, (1, 3, 7, 11, 23, 15, 103)),
    (7, 4, (1, 3, 7, 13, 13, 15, 69)),
)


def sobol(count: int, dimensions: int, key: PRNGKeyArray | None = None) -> Float[Array, "k p"]:
    """Make the first points of Sobol's sequence in the unit cube; with a key, under a random digital shift.

    Joe and Kuo 2008, SIAM J. Sci. Comput. 30.

    **Arguments:** `count`: k, at best a power of two. `dimensions`: p, at most 21.

    **Returns:** points of shape (k, p), each number from 0 on and below 1.

    **Raises:** `ValueError` for more dimensions.
    """
    if dimensions > len(_DIRECTIONS) + 1:
        raise ValueError(f"Sobol points come in up to {len(_DIRECTIONS) + 1} dimensions; give starts of your own")
    directions = jnp.asarray(_direction_numbers(dimensions))
    index = jnp.arange(count, dtype=directions.dtype)
    bits = (index ^ (index >> 1))[:, None] >> jnp.arange(_BITS, dtype=directions.dtype)[None, :] & 1
    points = jnp.bitwise_xor.reduce(bits[:, :, None] * directions[None, :, :], axis=1)
    if key is not None:
        points = points ^ jr.randint(key, (1, dimensions), 0, 2**_BITS, directions.dtype)
    return (points.astype(float) + (0 if key is None else 0.5)) / 2**_BITS


@functools.lru_cache(maxsize=32)
def _direction_numbers(dimensions: int) -> np.ndarray:
    """Shape (bits, dimensions). Bratley and Fox 1988, algorithm 659."""
    columns = [[1 << (_BITS - 1 - bit) for bit in range(_BITS)]]
    for degree, coefficients, first in _DIRECTIONS[: dimensions - 1]:
        v = [m << (_BITS - 1 - bit) for bit, m in enumerate(first)]
        for bit in range(degree, _BITS):
            value = v[bit - degree] ^ (v[bit - degree] >> degree)
            for k in range(1, degree):
                value ^= ((coefficients >> (degree - 1 - k)) & 1) * v[bit - k]
            v.append(value)
        columns.append(v)
    return np.array(columns, np.int32).T


def fill_box(
    lower: Float[Array, " p"],
    upper: Float[Array, " p"],
    names: Sequence[str],
    count: int,
    key: PRNGKeyArray | None = None,
) -> Float[Array, "k p"]:
    """Spread starts over a box by Sobol points.

    **Arguments:** `lower`, `upper`: of the box. `names`: of the parameters, for messages. `count`: k. `key`: as in
    `sobol`.

    **Raises:** `ValueError` for a side of the box that is not finite, or whose ends depend on traced values.
    """
    finite = np.isfinite(lower) & np.isfinite(upper)
    missing = [name for name, good in zip(names, finite, strict=True) if not good]
    if missing:
        raise ValueError(f"give box={{...}}: no finite bounds to spread starts between for {', '.join(missing)}")
    return lower[None, :] + (upper - lower)[None, :] * sobol(count, len(names), key)


def best_start(
    xp: ModuleType,
    cost: Float[np.ndarray, "k *g"] | Float[Array, "k *g"],
    success: Bool[np.ndarray, "k *g"] | Bool[Array, "k *g"],
) -> Int[np.ndarray, "*g"] | Int[Array, "*g"]:
    """Choose among the ends of k starts: the lowest cost of those that converged; where none did, the lowest of all.

    **Arguments:** `xp`: `numpy` on the host, or `jax.numpy`. `cost`, `success`: of each start, and each of g fits.
    """
    cost = xp.where(xp.isnan(cost), xp.inf, cost)
    good = xp.where(success, cost, xp.inf)
    return xp.argmin(xp.where(xp.isfinite(good).any(axis=0)[None], good, cost), axis=0)
