"""Many starts, one vmapped fit, the best of them.

Costs of nonlinear models have several minima, and a search finds the one next to its start. Sobol points fill a box
more evenly than random ones, and all starts run side by side in one program. Users call `multi_start`.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.flatten_util as jfu
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from ..core import Model, Module, as_count, free_spec, unmasked
from ..datasets import AbstractDataset
from ..fitting import Plan, Solution, best_start, compiled, fill_box, fit, flat_bounds, make_plan, sobol as sobol
from ._typing import Numbers


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
        starts = as_count(starts, "starts")
        lower, upper = _box(plan, box, bounds)
        points = jnp.concatenate([own[None, :], fill_box(lower, upper, plan.names, starts, key).astype(own.dtype)])
    else:
        points = jnp.asarray(unmasked(starts, "starts"), own.dtype)
        if points.ndim != 2 or points.shape[1] != own.size:
            raise ValueError(
                f"starts has shape {points.shape}, but it should be (k, {own.size}): {', '.join(plan.names)}"
            )
    solutions = compiled(_fits, (model, data, points, bounds, options), (plan,))
    best = best_start(jnp, solutions.cost, solutions.success)
    return MultiStart(jax.tree.map(lambda leaf: leaf[best], solutions), solutions, points)


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
    none = jnp.full(len(plan.names), jnp.inf)
    return (-none, none) if lower is None or upper is None else (lower, upper)
