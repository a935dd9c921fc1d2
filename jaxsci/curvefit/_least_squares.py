"""least_squares(): scipy's call for residual functions, of any PyTree.

A function of residuals is no model with data, but becomes one: its parameters are the elements of x, and its data are
zeros (`Residuals`). So it is fitted by `jaxsci.fit` as all else, and this room has no solver of its own. Users call
`least_squares`; the answer has scipy's names.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.flatten_util as jfu
import jax.numpy as jnp
import jax.tree_util as jtu
import numpy as np
from jaxtyping import Array, ArrayLike, Float, Int

from ..core import (
    AbstractLoss,
    AbstractModel,
    AnyArray,
    Flag,
    Inputs,
    Linear,
    Module,
    Scalar,
    Tree,
    element_names,
    is_traced,
    param,
    unmasked,
)
from ..datasets import Dataset
from ..fitting import RESULTS, Found, Solution, Traced, fit, jacobian_t, seeing, state_of
from ._curve import Call, title_of, trace
from ._log import Step, logged
from ._options import as_loss, as_max_steps, as_pair, as_solver, flat_limits, take_note
from ._problem import as_rows, as_vector
from ._typing import Bounds, Ignored, Jacobian, Loss, Method, Numbers


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

    x: Tree
    cost: Scalar
    fun: Tree
    jac: Float[Array, "m p"]
    grad: Tree
    optimality: Scalar
    active_mask: Tree
    nfev: Int[Array, ""]
    njev: Int[Array, ""]
    status: Int[Array, ""]
    solution: Solution

    @property
    def success(self) -> Flag:
        """Tell whether the fit converged."""
        return self.solution.success

    @property
    def message(self) -> str:
        """Say in words how it ended; for one fit, not for a batch."""
        return self.solution.message or "converged"

    def __getitem__(self, name: str) -> Any:
        """Read a field by its name, as scipy's results are read too."""
        if name not in (*self.__dataclass_fields__, "success", "message"):
            raise KeyError(name)
        return getattr(self, name)


class Residuals(AbstractModel):
    """A residual function as a model: its parameters are those of x, its data are zeros."""

    call: Call
    args: Tree
    kwargs: Tree
    unravel: Callable[..., Any] = eqx.field(static=True)
    x: Float[Array, " p"] = param()

    def tree(self) -> Tree:
        """Compute the residuals as the function returns them."""
        if self.call.own_jacobian:
            return self.call((self.args, self.kwargs), *self.x)
        return self.call(self.unravel(self.x), self.args, self.kwargs)

    def __call__(self, inputs: Inputs) -> Array:
        return jfu.ravel_pytree(self.tree())[0].astype(self.x.dtype)


class _Arrays(NamedTuple):
    """The arrays of one call; None among `args` and `kwargs` where something else stands."""

    x: Any
    lower: Any
    upper: Any
    args: Any
    kwargs: Any


class _Choices(NamedTuple):
    """What is compiled in."""

    solver: Any
    max_steps: int
    own_jacobian: bool


def least_squares(
    fun: Callable[..., Any],
    x0: Tree,
    jac: Jacobian = None,
    bounds: Bounds = (-np.inf, np.inf),
    method: Method = None,
    ftol: float | None = None,
    xtol: float | None = None,
    gtol: float | None = None,
    x_scale: Ignored = None,
    loss: Loss = "linear",
    f_scale: Numbers = 1.0,
    diff_step: Ignored = None,
    tr_solver: Ignored = None,
    tr_options: Ignored = None,
    jac_sparsity: Ignored = None,
    max_nfev: int | None = None,
    verbose: int = 0,
    args: Sequence[Any] = (),
    kwargs: Mapping[str, Any] | None = None,
    callback: Callable[[Step], Any] | None = None,
    workers: Ignored = None,
) -> LeastSquares:
    """Minimise sum rho(fun(x)) within bounds, as `scipy.optimize.least_squares` does.

    Each call takes `fun` as it is then, with all that it reads beside its arguments, and compiles only where another
    computation or other shapes are met; see `curve_fit`. Works inside `jax.jit`, `jax.vmap` and `jax.grad`,
    also with respect to `args`, `bounds` and what `fun` closes over.

    **Arguments:**

    - `fun`: (x, *args, **kwargs) -> residuals, written with `jax.numpy`. x and the residuals may be any
        PyTree of arrays of real numbers.
    - `x0`: start, shape (p,) or any tree of arrays, within the bounds.
    - `jac`: (x, *args, **kwargs) -> (m, p) for an x of shape (p,), in place of automatic differentiation; (p,) for
        one residual, (m,) for one variable. The words `"2-point"`, `"3-point"` and `"cs"` as in `curve_fit`.
    - `bounds`: (lower, upper), each a number or a tree like x0.
    - `args`, `kwargs`: passed to `fun`. Arrays and numbers may change without compiling.
    - `verbose`: 1 prints how it ended, 2 each step too. `callback`: called with each `Step` instead.
    - `method`, `loss`, `f_scale`, `ftol`, `xtol`, `max_nfev`: as in `curve_fit`.
    - `gtol`, `x_scale`, `diff_step`, `tr_solver`, `tr_options`, `jac_sparsity`, `workers`: taken for scipy's sake, and
        change nothing.

    **Returns:** a `LeastSquares`. A fit that does not converge says so there and does not raise.

    **Raises:** `ValueError` for bounds that cross, a start outside of them (moved onto them inside a transformation,
    where nothing can be raised), wrong shapes, complex numbers, or residuals that are not finite at x0; `TypeError` for
    a function that is not written with `jax.numpy`.
    """
    del gtol, x_scale, diff_step, tr_solver, tr_options, jac_sparsity, workers
    derivatives = take_note(method, jac, {}, "least_squares")
    title = title_of(fun)
    x0 = _as_tree(x0)
    names = _element_names(x0)
    lower, upper = flat_limits(_flat_bounds(bounds, x0), names)
    solver = logged(as_solver(method, ftol, xtol), verbose, callback)
    choices = _Choices(solver, as_max_steps(max_nfev), derivatives is not None)
    if isinstance(args, str) or not isinstance(args, Sequence):
        raise ValueError(f"args should be a tuple of arguments of {title}, such as ({args!r:.40},), not {args!r:.40}")
    given = tuple(args), dict(kwargs or {})
    arrays, others = eqx.partition(given, functools.partial(_is_array, "args"))
    given_arrays = _Arrays(x0, lower, upper, *arrays)
    found = _trace(fun, derivatives, given_arrays, others, title)
    rho = as_loss(loss, f_scale)
    with seeing(None if isinstance(loss, str) and isinstance(method, str | None) else state_of((solver, rho))):
        result: LeastSquares = found.run(_solve, (3,), given_arrays, rho, choices)
    if not is_traced(result.status):
        _report(result, given_arrays, names, verbose)
    return result


def _trace(fun: Callable[..., Any], jac: Callable[..., Any] | None, arrays: _Arrays, others: Tree, title: str) -> Found:
    """The functions as they are now; with a Jacobian, of ((args, kwargs), *elements of x)."""
    x, (args, kwargs) = jtu.tree_map(_as_float_struct, arrays.x), jtu.tree_map(_as_struct, (arrays.args, arrays.kwargs))
    more = jtu.tree_leaves(others)
    watched = tuple(more) if more else ()

    def complete(args: Tree, kwargs: Tree) -> Any:
        return eqx.combine((args, kwargs), others) if more else (args, kwargs)

    if jac is None:

        def call(x: Tree, args: Tree, kwargs: Tree) -> Any:
            args, kwargs = complete(args, kwargs)
            return fun(x, *args, **kwargs)

        return trace(call, None, (x, args, kwargs), title, (fun, watched))
    shape = jnp.shape(arrays.x) if jtu.all_leaves([arrays.x]) else None
    if shape is None or len(shape) != 1:
        raise ValueError("with a Jacobian of your own x0 should be an array of shape (p,)")

    def of_elements(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(rest: tuple[Tree, Tree], *elements: Array) -> Any:
            args, kwargs = complete(*rest)
            return function(jnp.stack(elements), *args, **kwargs)

        return call

    elements = [jax.ShapeDtypeStruct((), x.dtype)] * shape[0]
    return trace(of_elements(fun), of_elements(jac), ((args, kwargs), *elements), title, (fun, jac, watched))


def _as_struct(value: ArrayLike) -> jax.ShapeDtypeStruct:
    aval: Any = jax.typeof(value)
    return jax.ShapeDtypeStruct(aval.shape, aval.dtype, weak_type=aval.weak_type)


def _as_float_struct(value: ArrayLike) -> jax.ShapeDtypeStruct:
    aval: Any = jax.typeof(value)
    floating = jnp.issubdtype(aval.dtype, jnp.floating)
    return jax.ShapeDtypeStruct(aval.shape, aval.dtype if floating else jax.dtypes.canonicalize_dtype(float))


def _is_array(name: str, value: object) -> bool:
    """True for what may be an argument of a compiled program.

    **Raises:** `ValueError` for masked arrays and quantities with units, which would be stripped.
    """
    if isinstance(value, np.ndarray):
        unmasked(value, name, real=False)
    if isinstance(value, np.ndarray | np.generic):
        return value.dtype.kind in "fiubc"
    return isinstance(value, jax.Array | bool | int | float | complex)


def _as_tree(x0: Tree) -> Tree:
    """A number, or a list of numbers, as an array of shape (p,), as in scipy; any other tree as it is.

    **Raises:** `ValueError` for what is no real number.
    """
    if isinstance(x0, int | float | complex | np.ndarray | np.generic | jax.Array):
        return as_vector(x0, "x0")
    if isinstance(x0, list | tuple) and all(jnp.ndim(leaf) == 0 for leaf in jtu.tree_leaves(x0)):
        return as_vector(x0, "x0")
    return jtu.tree_map_with_path(lambda path, leaf: as_rows(leaf, "x0" + jtu.keystr(path)), x0)


def _element_names(x0: Tree) -> list[str]:
    leaves = jtu.tree_flatten_with_path(x0)[0]
    names = [n for path, leaf in leaves for n in element_names("x" + jtu.keystr(path), jnp.shape(leaf))]
    if not names:
        raise ValueError("x0 is empty: there is nothing to fit")
    return names


def _flat_bounds(bounds: Bounds, x0: Tree) -> Any:
    """(lower, upper) flat like x0, or as they are where they are numbers."""
    lower, upper = as_pair(bounds)

    def flat(side: Tree) -> Any:
        if isinstance(side, float | int):
            return float(side)
        if not jtu.all_leaves([x0]):
            side = jtu.tree_map(lambda v, b: jnp.broadcast_to(jnp.asarray(b, float), jnp.shape(v)), x0, side)
            return jfu.ravel_pytree(side)[0]
        return jnp.ravel(side) if isinstance(side, jax.Array) else np.ravel(np.asarray(side, float))

    return flat(lower), flat(upper)


def _solve(function: Traced, arrays: _Arrays, loss: AbstractLoss, choices: _Choices) -> LeastSquares:
    """The fit and all that the result needs of it."""
    floats = jtu.tree_map(_as_float, arrays.x)
    flat, unravel = jfu.ravel_pytree(floats)
    args, kwargs = jtu.tree_map(jnp.asarray, (arrays.args, arrays.kwargs))
    model = Residuals(Call(function, choices.own_jacobian), args, kwargs, unravel, flat)
    size = jax.eval_shape(model, None).shape[0]
    zeros = jnp.zeros(size, flat.dtype)
    bounds = None if arrays.lower is None else {"x": (arrays.lower, arrays.upper)}
    data, steps = Dataset(zeros, zeros), choices.max_steps
    solution = fit(model, data, bounds=bounds, solver=choices.solver, loss=loss, max_steps=steps, throw=False)
    return _result(solution, loss, arrays.lower, arrays.upper)


def _as_float(leaf: ArrayLike) -> Array:
    array = jnp.asarray(leaf)
    return array if jnp.issubdtype(array.dtype, jnp.floating) else array.astype(float)


def _result(solution: Solution, loss: AbstractLoss, lower: AnyArray | None, upper: AnyArray | None) -> LeastSquares:
    model, y = solution.model, solution.y
    value, jac_t = jacobian_t(lambda y: eqx.tree_at(lambda m: m.x, model, y)(None), y)
    score, jac = value, jac_t.T
    if not isinstance(loss, Linear):
        _, score, curvature = loss(value)
        jac = jac * jnp.sqrt(jnp.maximum(curvature, jnp.finfo(curvature.dtype).eps))[:, None]
    grad = jac_t @ score
    reach = jnp.ones_like(y)
    if lower is not None and upper is not None:
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


def _report(result: LeastSquares, arrays: _Arrays, names: Sequence[str], verbose: int) -> None:
    """Raise or print, on the host."""
    if arrays.lower is not None:
        outside = np.flatnonzero(np.asarray(result.solution.projected))
        if outside.size:
            k = int(outside[0])
            start = np.asarray(jfu.ravel_pytree(arrays.x)[0])[k]
            raise ValueError(
                f"x0 is infeasible: {names[k]} starts at {start}, outside its bounds {np.asarray(arrays.lower)[k]} and "
                f"{np.asarray(arrays.upper)[k]} ({outside.size} of {len(names)} do); jaxsci.fit moves such a start"
            )
    if result.solution.result == RESULTS.nonfinite_start:
        residuals = np.asarray(jfu.ravel_pytree(result.fun)[0])
        bad = np.flatnonzero(~np.isfinite(residuals))
        where = f"residual {bad[0]} is {residuals[bad[0]]} ({bad.size} of {residuals.size} are not finite)"
        raise ValueError(f"{where if bad.size else 'the Jacobian is not finite'} at x0: start elsewhere, or set bounds")
    if verbose:
        jax.effects_barrier()
        print(
            f"{result.message}: cost {float(result.cost):.6g}, {len(names)} parameters, {int(result.nfev)} evaluations"
        )
