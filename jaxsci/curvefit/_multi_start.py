"""Many starts, one vmapped fit, the best of them.

Costs of nonlinear models have several minima, and a search finds the one next to its start. Sobol points fill a box
more evenly than random ones, and all starts run side by side in one program. Users call `multi_start`, and `sobol`
where they want the points for themselves.
"""

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.flatten_util as jfu
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray

from ..core import Model, Module, free_spec
from ..datasets import AbstractDataset
from ..fitting import Plan, Solution, compiled, fit, flat_bounds, make_plan
from ._typing import Numbers

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


class MultiStart(Module):
    """Fits from several starts.

    - `best`: the Solution of lowest cost among those that converged.
    - `solutions`: all of them, stacked in the order of the starts.
    - `starts`: (k, p), in the order of `best.names`.
    """

    best: Solution
    solutions: Solution
    starts: Float[Array, "k p"]

    @property
    def costs(self) -> Float[Array, " k"]:
        """The cost that each start led to, inf where the fit failed."""
        return jnp.where(self.solutions.success, self.solutions.cost, jnp.inf)


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


def multi_start(
    model: Model,
    data: AbstractDataset,
    *,
    starts: Numbers = 16,
    key: PRNGKeyArray | None = None,
    box: Mapping[str, Any] | None = None,
    free: Sequence[str] | None = None,
    bounds: Mapping[str, Any] | None = None,
    **options: object,
) -> MultiStart:
    """Fit from many starts in one program and keep the best.

    **Arguments:**

    - `model`, `data`: as in `jaxsci.fit`.
    - `starts`: how many Sobol points to start from, beside the model's own values; or the starts
        themselves, shape (k, p), in the order of the free parameters.
    - `key`: shifts the Sobol points at random.
    - `box`: `{name or glob: (lower, upper)}` that the Sobol points fill; the bounds, where there is none.
    - `free`, `bounds`, and `options` such as `solver` and `loss`: as in `jaxsci.fit`.

    **Returns:** a `MultiStart`. Starts that lead nowhere are no errors; look at `.best.success`.

    **Raises:** `ValueError` for a parameter without a finite box, or starts of the wrong shape.
    """
    plan = make_plan(model, data.noise, free)
    if plan.noise:
        raise ValueError("multi_start varies the model's parameters; free noise parameters cannot be among them")
    if plan.active is not None:
        raise ValueError("multi_start varies whole arrays: name parameters without [...], and fix elements by bounds=")
    own, _ = jfu.ravel_pytree(eqx.filter(model, free_spec(model, [name for name, _ in plan.free])))
    if isinstance(starts, int):
        lower, upper = _box(plan, box, bounds)
        points = lower[None, :] + (upper - lower)[None, :] * sobol(starts, own.size, key).astype(own.dtype)
        points = jnp.concatenate([own[None, :], points])
    else:
        points = jnp.asarray(starts, own.dtype)
        if points.ndim != 2 or points.shape[1] != own.size:
            raise ValueError(
                f"starts has shape {points.shape}, but it should be (k, {own.size}): {', '.join(plan.names)}"
            )
    solutions = compiled(_fits, (model, data, points, bounds, options), (plan,))
    cost = jnp.where(jnp.isnan(solutions.cost), jnp.inf, solutions.cost)
    best = _smallest(jnp.where(solutions.success, cost, jnp.inf), cost)
    return MultiStart(jax.tree.map(lambda leaf: leaf[best], solutions), solutions, points)


def _smallest(first: Array, second: Array) -> Int[Array, ""]:
    """Where `first` is smallest, or where all of it is infinite, `second`."""
    return jnp.argmin(jnp.where(jnp.any(jnp.isfinite(first)), first, second))


def _fits(
    model: Model,
    data: AbstractDataset,
    points: Array,
    bounds: Mapping[str, Any] | None,
    options: dict[str, Any],
    plan: Plan,
) -> Solution:
    free = [name for name, _ in plan.free]
    start, rest = eqx.partition(model, free_spec(model, free))
    _, unravel = jfu.ravel_pytree(start)

    def from_point(point: Array) -> Solution:
        return fit(eqx.combine(unravel(point), rest), data, free=free, bounds=bounds, throw=False, **options)

    return jax.vmap(from_point)(points)


def _box(plan: Plan, box: Mapping[str, Any] | None, bounds: Mapping[str, Any] | None) -> tuple[Array, Array]:
    with jax.ensure_compile_time_eval():  # what a box is made of must be known here, also inside a jit
        lower, upper = flat_bounds(plan, {**(bounds or {}), **(box or {})})
    missing = list(plan.names)
    if lower is not None and upper is not None:
        finite = np.isfinite(lower) & np.isfinite(upper)
        missing = [name for name, good in zip(plan.names, finite, strict=True) if not good]
        if not missing:
            return lower, upper
    raise ValueError(f"give box={{...}}: no finite bounds to spread starts between for {', '.join(missing)}")
