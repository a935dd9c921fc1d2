"""Drifts: what moves a particle, written for one of them, with parameters that can be fitted.

Each is an `AbstractDrift`, called with (t, x), to be given to `evolution.SDE`; any function of (t, x) will do as well.
Those that act between particles read a summary of the ensemble (`Attraction`, and `evolution.Interaction` for one's
own), and `OnGrid` holds a drift known at the cells of a grid, such as the optimal control of a game.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ..core import Given, Model, Scalar, param
from ..evolution import AbstractDrift, AbstractInteraction, AbstractSummary, Moments, Statistics
from ._boundary import Grid
from ._interpolation import interpolate


class Constant(AbstractDrift):
    """The same drift everywhere: b = mu."""

    mu: Scalar = param()

    def __call__(self, t: Scalar, x: Float[Array, " d"]) -> Float[Array, " d"]:
        """The drift at a place."""
        del t
        return jnp.broadcast_to(self.mu.astype(x.dtype), x.shape)


class OrnsteinUhlenbeck(AbstractDrift):
    """A drift towards a mean: b = -theta (x - mu)."""

    theta: Scalar = param()
    mu: Scalar = param()

    def __call__(self, t: Scalar, x: Float[Array, " d"]) -> Float[Array, " d"]:
        """The drift at a place."""
        del t
        return -self.theta.astype(x.dtype) * (x - self.mu.astype(x.dtype))


class DoubleWell(AbstractDrift):
    """The drift of the potential a x^4 / 4 - b x^2 / 2 on each axis: b(x) = b x - a x^3."""

    a: Scalar = param()
    b: Scalar = param()

    def __call__(self, t: Scalar, x: Float[Array, " d"]) -> Float[Array, " d"]:
        """The drift at a place."""
        del t
        return self.b.astype(x.dtype) * x - self.a.astype(x.dtype) * x * x * x


class Washboard(AbstractDrift):
    """A periodic force on a slope: b(x) = amplitude sin(x) + force."""

    amplitude: Scalar = param()
    force: Scalar = param()

    def __call__(self, t: Scalar, x: Float[Array, " d"]) -> Float[Array, " d"]:
        """The drift at a place."""
        del t
        return self.amplitude.astype(x.dtype) * jnp.sin(x) + self.force.astype(x.dtype)


class Geometric(AbstractDrift):
    """The drift of geometric Brownian motion: b(x) = mu x."""

    mu: Scalar = param()

    def __call__(self, t: Scalar, x: Float[Array, " d"]) -> Float[Array, " d"]:
        """The drift at a place."""
        del t
        return self.mu.astype(x.dtype) * x


class Gradient(AbstractDrift):
    """The drift down a potential: b = -grad V(t, x).

    **Arguments:** `potential`: a function or Module, (t, x of shape (d,)) -> a number.
    """

    potential: Model

    def __call__(self, t: Scalar, x: Float[Array, " d"]) -> Float[Array, " d"]:
        """The drift at a place."""
        return -jax.grad(lambda x: self.potential(t, x))(x)


class Attraction(AbstractInteraction):
    """A drift towards a place and towards the mean of the ensemble: b = -theta (x - mu) - alpha (x - E X).

    The equation of McKean and Vlasov that has a closed form.
    """

    theta: Scalar = param()
    mu: Scalar = param()
    alpha: Scalar = param()
    reads: AbstractSummary = Moments()

    def __call__(self, t: Scalar, x: Float[Array, " d"], crowd: Statistics) -> Float[Array, " d"]:
        """The drift of one particle, `crowd` being the moments of all."""
        del t
        theta, mu, alpha = (number.astype(x.dtype) for number in (self.theta, self.mu, self.alpha))
        return -theta * (x - mu) - alpha * (x - crowd.mean)


class OnGrid(AbstractDrift):
    """A drift known at the centres of a grid's cells, linear between them.

    **Arguments:**

    - `values`: shape (*grid.shape, d), or (steps, *grid.shape, d) with one for each time in `ts`.
    - `grid`; `ts`: the times, shape (steps,), of which the latest that has begun counts; `None` for a drift that stays.

    **Raises:** `ValueError` for values of another shape.
    """

    values: Float[Array, "..."]
    grid: Grid
    ts: Float[Array, " steps"] | None = None

    def __init__(self, values: Given, grid: Grid, ts: Given | None = None) -> None:
        self.values, self.grid = jnp.asarray(values), grid
        self.ts = None if ts is None else jnp.asarray(ts)
        shape = (*grid.shape, grid.box.d)
        wanted = shape if self.ts is None else (self.ts.shape[0], *shape)
        if self.values.shape != wanted:
            raise ValueError(f"a drift on this grid has values of shape {wanted}, not {self.values.shape}")

    def __call__(self, t: Scalar, x: Float[Array, " d"]) -> Float[Array, " d"]:
        """The drift at a place."""
        values = self.values.astype(x.dtype)
        if self.ts is not None:
            # the hundredth of a step forgives what rounding took from a time that is meant
            late = t + 0.01 * (self.ts[1] - self.ts[0]).astype(t.dtype) if self.ts.shape[0] > 1 else t
            began = jnp.sum(self.ts.astype(t.dtype) <= late) - 1
            values = values[jnp.clip(began, 0, self.ts.shape[0] - 1)]
        return interpolate(values, self.grid, x)


def from_value(value: Float[Array, "*shape"], grid: Grid, ts: Given | None = None) -> OnGrid:
    """The optimal drift -grad u of a value function u known on a grid, for the cost |a|^2 / 2.

    **Arguments:** `value`: shape grid.shape, or (steps, *grid.shape) with `ts`; walls as those of the grid's box.
    """
    lead = 0 if ts is None else 1
    slopes = []
    for axis, (low, _) in enumerate(grid.box.walls_of_axes):
        place = axis + lead
        mode = "wrap" if low == "periodic" else "edge"
        pads = [(1, 1) if k == place else (0, 0) for k in range(value.ndim)]
        wide = jnp.pad(value, pads, mode=mode)
        n = value.shape[place]
        slopes.append(
            (jnp.take(wide, jnp.arange(2, n + 2), place) - jnp.take(wide, jnp.arange(n), place)) / (2 * grid.step[axis])
        )
    return OnGrid(-jnp.stack(slopes, axis=-1), grid, ts)
