"""Bijections implied by bounds, for minimisers and samplers that want unbounded space.

Our own solvers take bounds as they are. Those of optimistix and a sampler move freely over all reals, and a `Transform`
takes them from there into the bounds and back, with the density that it owes for the stretching.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from ._module import Module


class _Kinds(NamedTuple):
    """Which bounds there are, and those bounds, numbers also where there is none."""

    low: Bool[Array, " p"]
    high: Bool[Array, " p"]
    lower: Float[Array, " p"]
    upper: Float[Array, " p"]


class Transform(Module):
    """Elementwise bijection between all reals u and the values y within bounds.

    y = u without bounds; y = lower + softplus(u) with one (upper - softplus(-u) for the other);
    y = lower + (upper - lower) sigmoid(u) with both. Where lower == upper, y is that value.
    """

    lower: Float[Array, " p"]
    upper: Float[Array, " p"]

    def _kinds(self) -> _Kinds:
        low, high = jnp.isfinite(self.lower), jnp.isfinite(self.upper)
        safe_low = jnp.where(low, self.lower, 0)
        safe_high = jnp.where(high, self.upper, jnp.where(low, safe_low + 1, 1))
        return _Kinds(low, high, safe_low, safe_high)

    def constrain(self, u: Float[Array, " p"]) -> Float[Array, " p"]:
        """The value y within the bounds that belongs to u."""
        low, high, lower, upper = self._kinds()
        both = lower + (upper - lower) * jax.nn.sigmoid(u)
        one = jnp.where(low, lower + jax.nn.softplus(u), upper - jax.nn.softplus(-u))
        return jnp.where(low & high, both, jnp.where(low | high, one, u))

    def unconstrain(self, y: Float[Array, " p"]) -> Float[Array, " p"]:
        """The real u that belongs to y; y on a bound is first moved inside by sqrt(eps)."""
        low, high, lower, upper = self._kinds()
        root = jnp.sqrt(jnp.finfo(y.dtype).eps)
        width = jnp.where(upper > lower, upper - lower, 1)
        share = jnp.clip((y - lower) / width, root, 1 - root)
        both = jnp.log(share) - jnp.log1p(-share)
        gap = jnp.maximum(jnp.where(low, y - lower, upper - y), root)
        one = gap + jnp.log(-jnp.expm1(-gap))
        return jnp.where(low & high, both, jnp.where(low, one, jnp.where(high, -one, y)))

    def log_det(self, u: Float[Array, " p"]) -> Float[Array, ""]:
        """log |dy/du|, which a density over y owes when it is sampled over u."""
        low, high, lower, upper = self._kinds()
        width = jnp.where(upper > lower, upper - lower, 1)
        both = jnp.log(width) + jax.nn.log_sigmoid(u) + jax.nn.log_sigmoid(-u)
        one = jnp.where(low, jax.nn.log_sigmoid(u), jax.nn.log_sigmoid(-u))
        return jnp.sum(jnp.where(low & high, both, jnp.where(low | high, one, 0)))
