"""least_squares(): scipy's call for residual functions, of any PyTree."""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.flatten_util as jfu
import jax.numpy as jnp
import jax.tree_util as jtu
import numpy as np
from jaxtyping import Array, Float, Int, PyTree

from ..core import AbstractLoss, AbstractModel, Dataset, Linear, Module, Scalar, param
from ..core._parameter import element_names
from ..core._typing import Flag
from ..fitting import RESULTS, Solution, fit
from ..fitting._objective import jacobian_t
from ..fitting._program import cheap_compile, outermost
from ._curve import Call, as_call, closed, closes_over_tracer
from ._log import Step, logged
from ._options import as_loss, as_solver, flat_limits
from ._problem import as_vector


class LeastSquares(Module):
    """What `least_squares` answers, with scipy's names.

    - `x`, `grad`, `active_mask`: trees like the start: the solution, the gradient of the cost, and -1
      or 1 where a parameter ended on its lower or upper bound.
    - `fun`: the residuals at x. `jac`: (m, p), with the weights of a robust loss, so that
      jac^T jac is the curvature.
    - `optimality`: largest element of the gradient, scaled by the distance to the bound that it points to.
    - `status`: 1 converged, 0 `max_nfev` reached, -1 failed; `message` says why.
    - `solution`: covariance, errors, rank and the rest.
    """

    x: PyTree
    cost: Scalar
    fun: PyTree
    jac: Float[Array, "m p"]
    grad: PyTree
    optimality: Scalar
    active_mask: PyTree
    nfev: Int[Array, ""]
    njev: Int[Array, ""]
    status: Int[Array, ""]
    solution: Solution

    @property
    def success(self) -> Flag:
        """True where the fit converged."""
        return self.solution.success

    @property
    def message(self) -> str:
        """How it ended, in words. For one fit, not a batch."""
        return self.solution.message or "converged"


class Residuals(AbstractModel):
    """A residual function as a model: its parameters are those of x, its data are zeros."""

    call: Any
    args: PyTree
    kwargs: PyTree
    unravel: Callable[..., Any] = eqx.field(static=True)
    x: Float[Array, " p"] = param()

    def tree(self) -> PyTree:
        """The residuals as the function returns them."""
        return self.call(self.unravel(self.x), *self.args, **self.kwargs)

    def __call__(self, inputs: Any) -> Array:
        return jfu.ravel_pytree(self.tree())[0].astype(self.x.dtype)


class Task(NamedTuple):
    """The arrays of one call."""

    x: Any
    lower: Any
    upper: Any
    args: Any
    kwargs: Any


def least_squares(
    fun: Callable[..., Any],
    x0: PyTree,
    jac: Any = None,
    bounds: Any = (-np.inf, np.inf),
    method: Any = "trf",
    ftol: float | None = None,
    xtol: float | None = None,
    gtol: float | None = None,
    x_scale: Any = "jac",
    loss: Any = "linear",
    f_scale: Any = 1.0,
    max_nfev: int | None = None,
    verbose: int = 0,
    args: Sequence[Any] = (),
    kwargs: Mapping[str, Any] | None = None,
    *,
    callback: Callable[[Step], Any] | None = None,
) -> LeastSquares:
    """Minimise sum rho(fun(x)) within bounds, as `scipy.optimize.least_squares` does.

    Compiled once for each `fun` and set of shapes; works inside `jax.jit`, `jax.vmap` and `jax.grad`,
    also with respect to `args`, `bounds` and what `fun` closes over.

    **Arguments:**

    - `fun`: (x, *args, **kwargs) -> residuals, written with `jax.numpy`. x and the residuals may be any
        PyTree of arrays.
    - `x0`: start, shape (p,) or any tree of arrays; moved onto the bounds where it lies outside.
    - `jac`: (x, *args, **kwargs) -> (m, p) for an x of shape (p,), in place of automatic differentiation.
    - `bounds`: (lower, upper), each a number or a tree like x0.
    - `args`, `kwargs`: passed to `fun`; arrays and numbers.
    - `verbose`: 1 prints how it ended, 2 each step too. `callback`: called with each `Step`.
    - `method`, `loss`, `f_scale`, `ftol`, `xtol`, `max_nfev`, and `x_scale` and `gtol`, which change
        nothing: as in `curve_fit`.

    **Returns:** a `LeastSquares`. A fit that does not converge says so there and does not raise.

    **Raises:** `ValueError` for bounds that cross, wrong shapes, or residuals that are not finite at x0.
    """
    del x_scale, gtol
    x0 = _as_tree(x0)
    names = _element_names(x0)
    lower, upper = flat_limits(_flat_bounds(bounds, x0), names)
    choices = (logged(as_solver(method, ftol, xtol), verbose, callback), 200 if max_nfev is None else max_nfev)
    task = Task(x0, lower, upper, tuple(args), dict(kwargs or {}))
    traced = closes_over_tracer(fun) or any(isinstance(v, jax.core.Tracer) for v in jtu.tree_leaves((fun, task)))
    run = _solve if traced else functools.partial(outermost, _compiled(), _solve)
    call = as_call(fun, None) if jac is None else Call(_Differentiated(fun, jac), None)
    result: LeastSquares = run(call, task, as_loss(loss, f_scale), choices)
    if not isinstance(result.status, jax.core.Tracer):
        _report(result, verbose, len(names))
    return result


@functools.cache
def _compiled() -> Any:
    return jax.jit(_solve, static_argnums=3, compiler_options=cheap_compile())


class _Differentiated(Module):
    """A residual function with its own Jacobian."""

    fun: Callable[..., Any] = eqx.field(static=True)
    jac: Callable[..., Any] = eqx.field(static=True)

    def __call__(self, x: Float[Array, " p"], *args: Any, **kwargs: Any) -> Array:
        inner = Call(
            lambda rest, *values: self.fun(jnp.stack(values), *rest[0], **rest[1]),
            lambda rest, *values: self.jac(jnp.stack(values), *rest[0], **rest[1]),
        )
        return inner((args, kwargs), *x)


def _as_tree(x0: PyTree) -> PyTree:
    """A number, or a list of numbers, as an array of shape (p,), as in scipy; any other tree as it is."""
    if isinstance(x0, list | tuple) and all(jnp.ndim(leaf) == 0 for leaf in jtu.tree_leaves(x0)):
        return as_vector(x0)
    return as_vector(x0) if isinstance(x0, int | float) else x0


def _element_names(x0: PyTree) -> list[str]:
    leaves = jtu.tree_flatten_with_path(x0)[0]
    names = [n for path, leaf in leaves for n in element_names("x" + jtu.keystr(path), jnp.shape(leaf))]
    if not names:
        raise ValueError("x0 is empty: there is nothing to fit")
    return names


def _flat_bounds(bounds: Any, x0: PyTree) -> Any:
    """(lower, upper) flat like x0, or as they are where they are numbers."""
    pair = bounds if isinstance(bounds, tuple | list) else (bounds.lb, bounds.ub)
    if len(pair) != 2:
        raise ValueError(f"bounds should be a pair (lower, upper), but it has {len(pair)} items")

    def flat(side: Any) -> Any:
        if isinstance(side, float | int):
            return float(side)
        if not jtu.all_leaves([x0]):
            side = jtu.tree_map(lambda v, b: jnp.broadcast_to(jnp.asarray(b, float), jnp.shape(v)), x0, side)
            return jfu.ravel_pytree(side)[0]
        return jnp.ravel(side) if isinstance(side, jax.Array) else np.ravel(np.asarray(side, float))

    return flat(pair[0]), flat(pair[1])


def _solve(call: Any, task: Task, loss: AbstractLoss, choices: tuple[Any, int]) -> LeastSquares:
    """The fit and all that the result needs of it."""
    solver, max_steps = choices
    floats = jtu.tree_map(_as_float, task.x)
    flat, unravel = jfu.ravel_pytree(floats)
    kwargs = jtu.tree_map(jnp.asarray, task.kwargs)
    args = jtu.tree_map(jnp.asarray, task.args)
    model = Residuals(closed(call, floats, *args, **kwargs), args, kwargs, unravel, flat)
    size = jax.eval_shape(model, None).shape[0]
    zeros = jnp.zeros(size, flat.dtype)
    bounds = None if task.lower is None else {"x": (task.lower, task.upper)}
    data = Dataset(zeros, zeros)
    solution = fit(model, data, bounds=bounds, solver=solver, loss=loss, max_steps=max_steps, throw=False)
    return _result(solution, loss, task.lower, task.upper)


def _as_float(leaf: Any) -> Array:
    array = jnp.asarray(leaf)
    return array if jnp.issubdtype(array.dtype, jnp.floating) else array.astype(float)


def _result(solution: Solution, loss: AbstractLoss, lower: Any, upper: Any) -> LeastSquares:
    model, y = solution.model, solution.y
    value, jac_t = jacobian_t(lambda y: eqx.tree_at(lambda m: m.x, model, y)(None), y)
    score, jac = value, jac_t.T
    if not isinstance(loss, Linear):
        _, score, curvature = loss(value)
        jac = jac * jnp.sqrt(jnp.maximum(curvature, jnp.finfo(curvature.dtype).eps))[:, None]
    grad = jac_t @ score
    reach = jnp.ones_like(y)
    if lower is not None:
        lower, upper = jnp.asarray(lower, y.dtype), jnp.asarray(upper, y.dtype)
        reach = jnp.where((grad < 0) & jnp.isfinite(upper), upper - y, reach)
        reach = jnp.where((grad > 0) & jnp.isfinite(lower), y - lower, reach)
    over = solution.result == RESULTS.max_steps_reached
    tree = lambda vector: jfu.ravel_pytree(model.unravel(y))[1](vector.astype(y.dtype))  # noqa: E731
    return LeastSquares(
        x=model.unravel(y),
        cost=solution.cost,
        fun=model.tree(),
        jac=jac,
        grad=tree(grad),
        optimality=jnp.max(jnp.abs(grad * reach), initial=0),
        active_mask=jtu.tree_map(lambda v: v.astype(int), tree(solution.at_bound)),
        nfev=solution.num_steps,
        njev=solution.num_steps,
        status=jnp.where(solution.success, 1, jnp.where(over, 0, -1)),
        solution=solution,
    )


def _report(result: LeastSquares, verbose: int, size: int) -> None:
    """Raise or print, on the host."""
    if result.solution.result == RESULTS.nonfinite_start:
        residuals = np.asarray(jfu.ravel_pytree(result.fun)[0])
        bad = np.flatnonzero(~np.isfinite(residuals))
        where = f"residual {bad[0]} is {residuals[bad[0]]} ({bad.size} of {residuals.size} are not finite)"
        raise ValueError(f"{where if bad.size else 'the Jacobian is not finite'} at x0: start elsewhere, or set bounds")
    if verbose:
        jax.effects_barrier()
        print(f"{result.message}: cost {float(result.cost):.6g}, {size} parameters, {int(result.nfev)} evaluations")
