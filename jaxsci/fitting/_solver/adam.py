"""Adam with an end: first-order minimisation for costs that have no useful quadratic model.

optax's Adam goes on for ever; here its step halves when the cost has stopped falling, until it is tiny. `fit` hands it
scaled variables, as to every minimiser, so that one learning rate serves parameters of any unit. It is for networks and
the like, since it takes hundreds to thousands of steps.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.flatten_util as jfu
import jax.numpy as jnp
import jax.tree_util as jtu
import optimistix as optx
from jaxtyping import Array, Float, Int, PyTree

from ...core import Flag, Module, Scalar, as_count, as_real, require_positive
from ._trust_region import check_tolerance


class AdamState(Module):
    """The carry of the loop: the best point so far and optax's moments."""

    best: Float[Array, " p"]
    cost: Scalar
    moments: PyTree
    rate: Scalar
    waited: Int[Array, ""]
    failed: Flag
    first: Flag


class Adam(optx.AbstractMinimiser):
    """optax's Adam whose step size halves whenever the cost has stopped falling, until it is tiny.

    **Arguments:**

    - `learning_rate`: the first step, in units of each variable. In `fit` the variables are scaled
      so that a step of one changes the residuals by as much as they are large at the start.
    - `rtol`: the fit is over when the step size has shrunk by this factor.
    - `atol`: a decrease of the cost by less than this fraction of itself counts as none.
    - `patience`: how many steps without a decrease before the step size halves.

    Kingma and Ba 2015. It takes hundreds to thousands of steps: give `fit` a large `max_steps`.
    """

    learning_rate: float = 0.05
    rtol: float = 1e-8
    atol: float = 1e-12
    patience: int = 10
    norm: Callable = optx.max_norm

    def __check_init__(self) -> None:
        for name in ("rtol", "atol"):
            check_tolerance(self, name)
        require_positive(as_real(self.learning_rate, "Adam.learning_rate"), "Adam.learning_rate")
        as_count(self.patience, "Adam.patience")

    def _transform(self) -> Any:
        import optax  # here, because it costs a third of a second that most users never need

        return optax.scale_by_adam(b1=0.9, b2=0.99)

    def init(self, fn, y, args, options, f_struct, aux_struct, tags):  # type: ignore[no-untyped-def]
        flat, _ = jfu.ravel_pytree(y)
        zero = jnp.zeros((), flat.dtype)
        moments = self._transform().init(flat)
        return AdamState(
            flat, zero + jnp.inf, moments, zero + self.learning_rate, jnp.array(0), jnp.array(False), jnp.array(True)
        )

    def step(self, fn, y, args, options, state, tags):  # type: ignore[no-untyped-def]
        flat, unravel = jfu.ravel_pytree(y)
        (cost, aux), grad = jax.value_and_grad(lambda flat: fn(unravel(flat), args), has_aux=True)(flat)
        finite = jnp.isfinite(cost) & jnp.all(jnp.isfinite(grad))
        better = finite & (cost < state.cost)
        clearly = finite & (cost < state.cost - self.atol * jnp.abs(state.cost)) | (better & state.first)
        best = jnp.where(better, flat, state.best)
        waited = jnp.where(clearly, 0, state.waited + 1)
        tired = (waited >= self.patience) | (~finite & ~state.first)
        with jax.numpy_dtype_promotion("standard"):  # optax multiplies its integer count with floats
            update, moments = self._transform().update(jnp.where(finite, grad, 0), state.moments)
        rate = jnp.where(tired, state.rate / 2, state.rate)
        moved = jnp.where(tired, best, flat - rate * update)
        new = AdamState(
            best=best,
            cost=jnp.where(better, cost, state.cost),
            moments=jtu.tree_map(lambda a, b: jnp.where(finite, a, b), moments, state.moments),
            rate=rate,
            waited=jnp.where(tired, 0, waited),
            failed=state.first & ~finite,
            first=jnp.array(False),
        )
        return unravel(moved), new, aux

    def terminate(self, fn, y, args, options, state, tags):  # type: ignore[no-untyped-def]
        done = state.rate <= self.rtol * self.learning_rate
        result = optx.RESULTS.where(state.failed, optx.RESULTS.nonfinite, optx.RESULTS.successful)
        return done | state.failed, result

    def postprocess(self, fn, y, aux, args, options, state, tags, result):  # type: ignore[no-untyped-def]
        return jfu.ravel_pytree(y)[1](state.best), aux, {}
