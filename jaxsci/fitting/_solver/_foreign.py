"""Any solver or minimiser of optimistix, on unbounded variables of unit scale.

Those solvers know no bounds, and a fixed initial step or trust radius of theirs means something only where a step of
one changes the residuals by about their size. So they move in transformed and scaled variables, from a start that is
not on a bound. Their word is not taken for it: what they found is looked at like any other answer.
"""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.tree_util as jtu
import optimistix as optx
from jax import lax
from jaxtyping import Array, Bool, Float

from ...core import Module, Transform
from .._objective import Objective


class Scaled(Module):
    """The objective over u: y = constrain(u0 + scale u)."""

    objective: Objective
    transform: Transform
    origin: Float[Array, " p"]
    scale: Float[Array, " p"]
    start: Float[Array, " p"]

    @property
    def fixed(self) -> Bool[Array, " p"]:
        """True where the bounds are equal."""
        return self.transform.lower >= self.transform.upper

    def y(self, u: Float[Array, " p"]) -> Float[Array, " p"]:
        """The parameters at u; fixed ones keep their start."""
        return jnp.where(self.fixed, self.start, self.transform.constrain(self.origin + self.scale * u))

    def rows(self, u: Float[Array, " p"], args: None) -> Float[Array, " n"]:
        """Rows whose squares sum to twice the cost, for least-squares solvers.

        One more for each parameter: zero, or u where it is fixed, which keeps the Jacobian of full rank.
        """
        return jnp.concatenate([self.objective.root(self.y(u)), jnp.where(self.fixed, u, 0)])

    def cost(self, u: Float[Array, " p"], args: None) -> Float[Array, ""]:
        """The cost, for minimisers."""
        return self.objective.cost(self.y(u))


def solve_foreign(
    objective: Objective,
    solver: optx.AbstractLeastSquaresSolver | optx.AbstractMinimiser,
    y0: Array,
    bounds: dict[str, Array],
    max_steps: int,
) -> Any:
    """Run an optimistix solver; its answer's `value` is y again. Its derivatives are cut off.

    **Raises:** `ValueError` for anything that is neither a least-squares solver nor a minimiser.
    """
    if not isinstance(solver, optx.AbstractLeastSquaresSolver | optx.AbstractMinimiser):
        raise ValueError(
            f"solver should be jaxsci.TRF(), GaussNewton(), Adam() or an optimistix least-squares solver or minimiser, "
            f"but it is {solver!r:.80}"
        )
    lower, upper = bounds.get("lower", jnp.full_like(y0, -jnp.inf)), bounds.get("upper", jnp.full_like(y0, jnp.inf))
    objective, y0, lower, upper = jtu.tree_map(lax.stop_gradient, (objective, y0, lower, upper))
    y0 = _off_bounds(y0, lower, upper)
    transform = Transform(lower, upper)
    origin = transform.unconstrain(y0)
    plain = Scaled(objective, transform, origin, jnp.ones_like(y0), y0)
    lin = objective(plain.y(jnp.zeros_like(y0)))
    slope = jnp.abs(_diagonal(transform, origin)) * jnp.sqrt(jnp.maximum(jnp.diagonal(lin.gram), 0))
    size = jnp.sqrt(2 * jnp.abs(lin.cost))
    scale = jnp.where((slope > 0) & (size > 0), size / jnp.where(slope > 0, slope, 1), 1)
    scaled = Scaled(objective, transform, origin, jnp.where(jnp.isfinite(scale), scale, 1), y0)
    run = optx.least_squares if isinstance(solver, optx.AbstractLeastSquaresSolver) else optx.minimise
    fn = scaled.rows if isinstance(solver, optx.AbstractLeastSquaresSolver) else scaled.cost
    answer: Any = run(
        fn,
        solver,  # type: ignore[arg-type]
        jnp.zeros_like(y0),
        None,
        max_steps=max_steps,
        throw=False,
    )
    return eqx.tree_at(lambda a: a.value, answer, lax.stop_gradient(scaled.y(answer.value)))


def _off_bounds(y: Array, lower: Array, upper: Array) -> Array:
    """The start a little inside: on a bound the transform is flat, and a solver would take that for the optimum."""
    margin = jnp.minimum(0.01 * jnp.maximum(1, jnp.abs(y)), 0.01 * (upper - lower))
    return jnp.where(upper > lower, jnp.clip(y, lower + margin, upper - margin), y)


def _diagonal(transform: Transform, u: Array) -> Array:
    """dy/du of the elementwise transform."""
    return jax.jvp(transform.constrain, (u,), (jnp.ones_like(u),))[1]
