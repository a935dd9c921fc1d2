"""Sums, means and quantiles over groups of pixels that share a label, 0 being no group.

Masks judge outliers among the pixels of a ring by them, and SAXS curves are means of them. Pixels that are not finite
take no part, and a group without a pixel has no mean: it is NaN, not zero.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int


class Totals(NamedTuple):
    """Of each group 1 ... bins: the sum of its finite pixels, and how many they are."""

    sums: Float[Array, " bins"]
    counts: Float[Array, " bins"]


def group_totals(values: Float[Array, " p"], labels: Int[Array, " p"], bins: int) -> Totals:
    """Add up and count the finite pixels of each group 1 ... bins."""
    # What has no group, or is not finite, goes to a place of its own that is cut off. Values are not looked at again,
    # and counted as integers: XLA makes one loop of each sum then, and three times as slow a one of any other form.
    labels = jnp.where(jnp.isfinite(values), labels, 0)
    counts = jax.ops.segment_sum(jnp.ones(values.shape, jnp.int32), labels, bins + 1)
    return Totals(jax.ops.segment_sum(values, labels, bins + 1)[1:], counts[1:].astype(values.dtype))


@functools.partial(jax.jit, static_argnames="bins")
def group_means(values: Float[Array, " p"], labels: Int[Array, " p"], bins: int) -> Float[Array, " bins"]:
    """Average the finite pixels of each group 1 ... bins; NaN for a group that has none."""
    return ratio(*group_totals(values, labels, bins))


def group_quantiles(
    values: Float[Array, " p"], labels: Int[Array, " p"], bins: int, levels: tuple[float, ...]
) -> Float[Array, "levels bins"]:
    """Find quantiles of the finite pixels of each group, interpolated linearly as `jnp.quantile` does; NaN for none."""
    labels = jnp.where(jnp.isfinite(values), labels, 0)
    labels, ranked = jax.lax.sort((labels, values), num_keys=2)
    counts = jax.ops.segment_sum(jnp.ones_like(labels), labels, bins + 1)
    first, size = (jnp.cumsum(counts) - counts)[1:], counts[1:]

    def at(level: float) -> Float[Array, " bins"]:
        place = level * jnp.maximum(size - 1, 0).astype(values.dtype)
        low = jnp.floor(place).astype(first.dtype)
        weight = place - low.astype(values.dtype)
        below, above = (
            ranked[jnp.minimum(first + k, values.size - 1)] for k in (low, jnp.ceil(place).astype(low.dtype))
        )
        # a weight of zero must not meet the infinity of a neighbour
        return jnp.where(size > 0, jnp.where(weight > 0, below + weight * (above - below), below), jnp.nan)

    return jnp.stack([at(level) for level in levels])


def ratio(above: Float[Array, "*n"], below: Float[Array, "*n"]) -> Float[Array, "*n"]:
    """Divide; NaN where the divisor is zero, with a gradient that stays finite elsewhere."""
    some = below != 0
    return jnp.where(some, above / jnp.where(some, below, 1), jnp.nan)
