"""When and where particles leave through absorbing walls, from the weight that each step of an evolution lost.

The weight that a step loses is right however long the step is, because it is that of Brownian bridges between its ends.
When within the step it left is not known, and is taken to be the middle, which is the trapezoidal rule for the integral
of what is left over time. Users call it on what `evolve` returns.
"""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ..core import Given, Module, Scalar, is_traced
from ..evolution import Evolution


class ExitTimes(Module):
    """When and through which walls weight has left, of 1 at the beginning.

    - `share`: (walls,), what left through each wall up to the last time, in the order of `Box.walls`.
    - `mean`: (walls,), the mean time after the beginning at which that left; nan for a wall through which nothing did.
    - `overall`: the mean over all walls. `remaining`: what has not left yet, of which these means know nothing: they
      are first passage times where it is small.
    """

    share: Float[Array, " walls"]
    mean: Float[Array, " walls"]
    overall: Scalar
    remaining: Scalar


def exit_times(evolution: Evolution, ts: Given, total: Given | None = None) -> ExitTimes:
    """Find when particles left through each absorbing wall.

    The middle of a step stands for it. That is of second order in the step up to a time at which weight still leaves,
    and much better where hardly any is left at the end, because the trapezoidal rule is exact to all orders for what is
    flat at both ends (Euler and Maclaurin): ten steps do.

    **Arguments:**

    - `evolution`: what `evolve` returned. `ts`: the times that it was given, shape (steps + 1,).
    - `total`: the weight at the beginning; needed where the evolution has no ensemble at its end, drawn in chunks.

    **Returns:** `ExitTimes`; walls are in the order of `Box.walls`.

    **Raises:** `ValueError` for other times than those of the evolution, for one without absorbing walls, and for an
    unknown weight at the beginning.
    """
    exits, times = evolution.exits, jnp.asarray(ts)
    steps, walls = exits.shape
    if walls == 0:
        raise ValueError("no wall of this evolution absorbs, so that nothing leaves: give the domain absorbing walls")
    if times.shape != (steps + 1,):
        raise ValueError(f"the evolution took {steps} steps, so that ts has shape ({steps + 1},), not {times.shape}")
    kept = evolution.ts
    if not is_traced(kept) and not is_traced(times) and not np.isclose(float(kept[-1]), float(times[-1])):
        raise ValueError(f"the evolution ended at {float(kept[-1])}, but ts ends at {float(times[-1])}: give its times")
    gone = jnp.sum(exits, axis=0)
    if total is None and evolution.ensemble is None:
        raise ValueError("the weight at the beginning is not known of particles that were drawn in chunks: give total=")
    if total is None and evolution.ensemble is not None:
        whole = jnp.sum(gone) + jnp.sum(evolution.ensemble.weights)
    else:
        whole = jnp.asarray(total, exits.dtype)
    middle = ((times[1:] + times[:-1]) / 2 - times[0]).astype(exits.dtype)
    moment = middle @ exits
    left = jnp.sum(gone)
    return ExitTimes(gone / whole, _ratio(moment, gone), _ratio(jnp.sum(moment), left), 1 - left / whole)


def _ratio(sums: Float[Array, "..."], weights: Float[Array, "..."]) -> Float[Array, "..."]:
    """A mean; nan where there is no weight."""
    some = weights > 0
    return jnp.where(some, sums / jnp.where(some, weights, 1), jnp.nan)
