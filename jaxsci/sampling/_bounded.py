"""The bijection in whose coordinate a parameter with bounds is sampled: straight inside, exponential at the bounds.

A sampler moves over all reals. A coordinate that is a logarithm or a logit everywhere bends a posterior that lies well
within its bounds, or spans many decades; this one is linear in units of the parameter's own error, and bends only
within about an error of a bound. `_target` samples in it, and owes the density for the stretching, its `log_det`.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from ..core import Module, Scalar


class _Sides(NamedTuple):
    """Which bounds there are, the bounds, and the width in units of the scale; numbers also where there is none."""

    low: Bool[Array, " m"]
    high: Bool[Array, " m"]
    lower: Float[Array, " m"]
    upper: Float[Array, " m"]
    width: Float[Array, " m"]


class Bounded(Module):
    """Elementwise bijection between all reals u and the values y within bounds.

    With s the scale, y = lower + s softplus(u) for a lower bound, y = upper - s softplus(-u) for an upper one, and for
    both y = lower + s (softplus(u) - softplus(u - w / s)), w = upper - lower, which is a logit where s is large against
    w. Without bounds y = u.

    - `scale`: s > 0, about the standard error of each, in its unit.
    """

    lower: Float[Array, " m"]
    upper: Float[Array, " m"]
    scale: Float[Array, " m"]

    def _sides(self) -> _Sides:
        low, high = jnp.isfinite(self.lower), jnp.isfinite(self.upper)
        lower = jnp.where(low, self.lower, 0)
        upper = jnp.where(high, self.upper, 0)
        width = jnp.where(low & high, (upper - lower) / self.scale, 1)
        return _Sides(low, high, lower, upper, width)

    def constrain(self, u: Float[Array, " m"]) -> Float[Array, " m"]:
        """The value y that belongs to u; never outside the bounds, by rounding either."""
        at = self._sides()
        both = at.lower + self.scale * (jax.nn.softplus(u) - jax.nn.softplus(u - at.width))
        above = at.lower + self.scale * jax.nn.softplus(u)
        below = at.upper - self.scale * jax.nn.softplus(-u)
        y = jnp.where(at.low & at.high, both, jnp.where(at.low, above, jnp.where(at.high, below, u)))
        return jnp.clip(y, self.lower, self.upper)

    def unconstrain(self, y: Float[Array, " m"]) -> Float[Array, " m"]:
        """The real u that belongs to y, which should lie inside the bounds."""
        at = self._sides()
        from_low = jnp.where(at.low, y - at.lower, self.scale) / self.scale
        from_high = jnp.where(at.high, at.upper - y, self.scale) / self.scale
        above = from_low + jnp.log(-jnp.expm1(-from_low))
        below = from_high + jnp.log(-jnp.expm1(-from_high))
        both = above - jnp.log(-jnp.expm1(-from_high))
        return jnp.where(at.low & at.high, both, jnp.where(at.low, above, jnp.where(at.high, -below, y)))

    def log_det(self, u: Float[Array, " m"]) -> Scalar:
        """log |dy/du|, which a density over y owes when it is sampled over u."""
        return jnp.sum(self._log_slope(u))

    def _log_slope(self, u: Float[Array, " m"]) -> Float[Array, " m"]:
        at, rise, fall = self._sides(), jax.nn.log_sigmoid(u), jax.nn.log_sigmoid(-u)
        # sigmoid(u) - sigmoid(u - w) = sigmoid(u) sigmoid(w - u) (1 - exp(-w)), which loses no digits
        both = rise + jax.nn.log_sigmoid(at.width - u) + jnp.log(-jnp.expm1(-at.width))
        one = jnp.where(at.low, rise, fall)
        none = jnp.where(at.low | at.high, jnp.log(self.scale), 0)
        return none + jnp.where(at.low & at.high, both, jnp.where(at.low | at.high, one, 0))

    def bends(self, u: Float[Array, " m"]) -> "Bends":
        """The derivatives of y and of the log-determinant that the curvature over u needs."""
        some = jnp.isfinite(self.lower) | jnp.isfinite(self.upper)
        at = self._sides()
        rise, fall = jax.nn.sigmoid(u), jax.nn.sigmoid(-u)
        slope = jnp.where(some, jnp.exp(self._log_slope(u)), 1)
        # d/du of the log slope: 1 - sigmoid(u) for a lower bound, -sigmoid(u) for an upper one, both with both
        to_high = jax.nn.sigmoid(jnp.where(at.low & at.high, u - at.width, u))
        tilt = jnp.where(at.low, fall, 0) - jnp.where(at.high, to_high, 0)
        own = jnp.where(at.low, rise * fall, 0) + jnp.where(at.high, to_high * (1 - to_high), 0)
        return Bends(slope, slope * tilt, own)


class Bends(NamedTuple):
    """How a bijection bends: dy/du, d2y/du2, and minus the second derivative of log dy/du."""

    slope: Float[Array, " m"]
    curve: Float[Array, " m"]
    own: Float[Array, " m"]
