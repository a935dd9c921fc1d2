"""Implicit differentiation of a bounded fit, right at active bounds.

An answer moves with the data, the noise, the bounds and the fixed parameters as the conditions that hold at it demand,
whatever search found it. So no derivative goes through the loop of a solver, and a fit may stand inside `jax.grad` of
something larger. Every search of this package is called with this adjoint; a solver of optimistix is followed by
`Given`, which steps nowhere and carries the derivatives.
"""

import functools
from collections.abc import Callable
from typing import Any, no_type_check

import equinox as eqx
import equinox.internal as eqxi
import jax
import jax.flatten_util as jfu
import jax.numpy as jnp
import jax.tree_util as jtu
import optimistix as optx
from jax import lax
from jaxtyping import Array

from ..core import Tree
from ..core.linalg import diagonal, factorise, matvec, scaled, shifted, solve_general
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


@eqx.filter_custom_jvp
@no_type_check
def implicit(primal_fn, inputs):
    """`primal_fn(inputs)`, (root, anything else), with the root differentiated by the implicit function theorem."""
    return jtu.tree_map(jnp.asarray, primal_fn(inputs))


@implicit.def_jvp
@no_type_check
def _implicit_jvp(primals, tangents):
    """Optimistix's `implicit_jvp`, except that a singular or non-finite system gives a non-finite derivative
    in its own lane, where lineax would stop the whole batch."""
    primal_fn, inputs = primals
    t_inputs = tangents[1]
    none = jtu.tree_map(lambda t: t is None, t_inputs, is_leaf=lambda t: t is None)
    constant, varied = eqx.partition(inputs, none, is_leaf=lambda t: t is None)
    root, rest = implicit(primal_fn, inputs)
    flat, unravel = jfu.ravel_pytree(root)

    def equations(flat, varied):
        return kkt_rewrite(unravel(flat), None, eqx.combine(varied, constant))

    _, moved = jax.jvp(lambda varied: equations(flat, varied), (varied,), (t_inputs,))
    if inputs[4].get("gram") is None:
        tangent = -_solve_dense(jax.jacfwd(equations)(flat, varied), moved)
    else:
        tangent = -_solve_structured(inputs, root, moved)
    zero = jtu.tree_map(lambda x: jax.custom_derivatives.zero_from_primal(x, symbolic_zeros=True), rest)
    return (root, rest), (unravel(tangent), zero)


def _solve_dense(matrix: Array, rhs: Array) -> Array:
    return lax.custom_linear_solve(
        lambda x: jnp.sum(matrix * x[None, :], axis=1),
        rhs,
        lambda _, b: solve_general(matrix, b),
        lambda _, b: solve_general(matrix.T, b),
    )


@no_type_check
def _solve_structured(inputs, optimum, rhs):
    """The same equations with a curvature that is no dense matrix: its exact Hessian H where nothing is held."""
    fn, _, _, args, options, *_ = inputs
    y, evaluate, bounds = read_options(fn, optimum, args, options)
    held = bounds.held(y, evaluate.linearise(y).grad)
    hessian, free = evaluate.hessian(y), (~held).astype(y.dtype)
    alone = (held | (diagonal(hessian) == 0)).astype(y.dtype)
    factor = factorise(shifted(scaled(hessian, free), alone))

    def inner(b):
        return jnp.where(factor.ok, free * factor.solve(free * b), jnp.nan)

    def across(x):
        return matvec(hessian, x)

    return lax.custom_linear_solve(
        lambda x: jnp.where(held, x, across(x)),
        rhs,
        lambda _, b: jnp.where(held, b, inner(b - across((1 - free) * b))),
        lambda _, b: jnp.where(held, b - across(inner(b)), inner(b)),
    )


class KKTAdjoint(optx.AbstractAdjoint):
    """Derivatives of a solution with respect to everything that the problem was made of.

    Data, noise, bounds, fixed parameters and hyperparameters; not the starting point. A parameter
    held at a bound moves with the bound. Optimistix's stock `ImplicitAdjoint` ignores bounds.
    """

    def apply(
        self,
        primal_fn: Callable[..., Any],
        rewrite_fn: Callable[..., Any],
        inputs: tuple[Any, ...],
        tags: frozenset[object],
    ) -> Any:
        del rewrite_fn, tags
        root, rest = implicit(primal_fn, (*inputs, functools.partial(eqxi.while_loop, kind="lax")))
        return root, jtu.tree_map(eqxi.nondifferentiable_backward, rest)


class Given(optx.AbstractLeastSquaresSolver):
    """Returns its start; what carries the derivatives of a solution that another solver found."""

    rtol: float = 0.0
    atol: float = 0.0
    norm: Any = optx.max_norm

    def init(
        self,
        fn: Callable[..., Any],
        y: Array,
        args: None,
        options: dict[str, Any],
        f_struct: jax.ShapeDtypeStruct,
        aux_struct: Tree,
        tags: frozenset[object],
    ) -> Any:
        return None

    def step(
        self,
        fn: Callable[..., Any],
        y: Array,
        args: None,
        options: dict[str, Any],
        state: None,
        tags: frozenset[object],
    ) -> Any:
        return y, None, None

    def terminate(
        self,
        fn: Callable[..., Any],
        y: Array,
        args: None,
        options: dict[str, Any],
        state: None,
        tags: frozenset[object],
    ) -> Any:
        return jnp.array(True), optx.RESULTS.successful

    def postprocess(
        self,
        fn: Callable[..., Any],
        y: Array,
        aux: Tree,
        args: None,
        options: dict[str, Any],
        state: None,
        tags: frozenset[object],
        result: optx.RESULTS,
    ) -> Any:
        return y, aux, {}
