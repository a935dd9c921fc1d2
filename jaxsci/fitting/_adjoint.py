"""Implicit differentiation of a bounded fit, right at active bounds."""

from typing import Any, no_type_check

import jax.flatten_util as jfu
import jax.numpy as jnp
import lineax as lx
import optimistix as optx
from jax import lax

from ..core._linalg import solve_general
from ._solver._trust_region import read_options


@no_type_check
def kkt_rewrite(optimum, _, inputs):
    """Zero at the solution: the true gradient on free parameters, y = bound on those held at one.

    Stationarity of the true cost, not of the Gauss-Newton model, so that its derivative is the exact
    Hessian. Nocedal and Wright, Numerical Optimization (2nd ed.), section 12.3.
    """
    fn, _, _, args, options, *_ = inputs
    y, evaluate, bounds = read_options(fn, optimum, args, options)
    grad = evaluate.linearise(y).grad
    held = lax.stop_gradient(bounds.held(y, grad))
    bound = jnp.where(jnp.abs(y - bounds.lower) <= jnp.abs(bounds.upper - y), bounds.lower, bounds.upper)
    return jnp.where(held, y - jnp.where(held, bound, 0), grad)


class SmallSolver(lx.AbstractLinearSolver):
    """Gaussian elimination in plain XLA, for the few equations of an adjoint."""

    def init(self, operator: Any, options: Any) -> Any:
        return operator.as_matrix()

    def compute(self, state: Any, vector: Any, options: Any) -> Any:
        flat, unravel = jfu.ravel_pytree(vector)
        return unravel(solve_general(state, flat)), lx.RESULTS.successful, {}

    def transpose(self, state: Any, options: Any) -> Any:
        return state.T, options

    def conj(self, state: Any, options: Any) -> Any:
        return state, options

    def assume_full_rank(self) -> bool:
        return True


class KKTAdjoint(optx.AbstractAdjoint):
    """Derivatives of a solution with respect to everything that the problem was made of.

    Data, noise, bounds, fixed parameters and hyperparameters; not the starting point. A parameter
    held at a bound moves with the bound. Optimistix's stock `ImplicitAdjoint` ignores bounds.
    """

    def apply(self, primal_fn: Any, rewrite_fn: Any, inputs: Any, tags: Any) -> Any:
        del rewrite_fn
        return optx.ImplicitAdjoint(SmallSolver()).apply(primal_fn, kkt_rewrite, inputs, tags)


class Given(optx.AbstractLeastSquaresSolver):
    """Returns its start; what carries the derivatives of a solution that another solver found."""

    rtol: float = 0.0
    atol: float = 0.0
    norm: Any = optx.max_norm

    def init(self, fn: Any, y: Any, args: Any, options: Any, f_struct: Any, aux_struct: Any, tags: Any) -> Any:
        return None

    def step(self, fn: Any, y: Any, args: Any, options: Any, state: Any, tags: Any) -> Any:
        return y, None, None

    def terminate(self, fn: Any, y: Any, args: Any, options: Any, state: Any, tags: Any) -> Any:
        return jnp.array(True), optx.RESULTS.successful

    def postprocess(
        self, fn: Any, y: Any, aux: Any, args: Any, options: Any, state: Any, tags: Any, result: Any
    ) -> Any:
        return y, aux, {}
