"""curve_fit(): the call that users of scipy know, with a Solution behind it."""

import functools
import warnings
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.tree_util as jtu
import numpy as np
from jaxtyping import Array, Float, Int

from ..core import AbstractLoss, Linear
from ..fitting import RESULTS, Solution, fit
from ..fitting._covariance import covariance, scaled_by_scatter
from ..fitting._diagnose import explain, report
from ..fitting._objective import jacobian_t
from ..fitting._program import cheap_compile, outermost
from ._curve import as_call, closes_over_tracer, named_parameters
from ._log import Step
from ._options import as_loss, default_start, flat_limits
from ._problem import Choices, Problem, as_flag, as_rows, as_vector, check_shapes, choose, first_bad, make_problem


def curve_fit(
    f: Callable[..., Any],
    xdata: Any,
    ydata: Any,
    p0: Any = None,
    sigma: Any = None,
    absolute_sigma: bool = False,
    *,
    bounds: Any = (-np.inf, np.inf),
    method: Any = "trf",
    loss: Any = "linear",
    f_scale: Any = 1.0,
    jac: Any = None,
    x_scale: Any = "jac",
    ftol: float | None = None,
    xtol: float | None = None,
    gtol: float | None = None,
    max_nfev: int | None = None,
    likelihood: str = "gaussian",
    verbose: int = 0,
    callback: Callable[[Step], Any] | None = None,
    full_output: bool = False,
    nan_policy: str = "raise",
    strict: bool = False,
    throw: bool = True,
) -> Any:
    """Fit f(x, a, b, ...) to data, as `scipy.optimize.curve_fit` does.

    A repeated call with the same `f`, shapes and options does not compile again, whatever the numbers:
    define `f` once, outside loops. Inside `jax.jit`, `jax.vmap` and `jax.grad` it is part of the
    caller's program.

    **Arguments:**

    - `f`: written with `jax.numpy`: (x, a, b, ...) -> shape (n,), or a number for a constant.
    - `xdata`: shape (n,), or (k, n) as in scipy, or (n, k); or a dictionary of arrays with n rows.
    - `ydata`: shape (n,). Integers are made floats. Data in float32 are fitted in float32, unless one of
        x, y and sigma is float64.
    - `p0`: start, shape (p,); by default as in scipy: ones, or what the bounds suggest. Outside the
        bounds it is moved onto them with a warning (`strict=True` raises).
    - `sigma`: standard deviations, a number or shape (n,), or a covariance of shape (n, n).
    - `absolute_sigma`: False scales `pcov` by chi2 / (n - p); with no more data than parameters that is inf
        throughout, with a warning.
    - `bounds`: (lower, upper), each a number or of shape (p,); a scipy `Bounds`; or
        `{parameter: (lower, upper)}`. Equal bounds fix a parameter.
    - `method`: `"trf"`; `"lm"`, the damped Gauss-Newton of `jaxsci.GaussNewton`; `"gn"`, the same with
        next to no damping at first; or a solver. All take bounds.
    - `loss`, `f_scale`: `"linear"`, `"soft_l1"`, `"huber"`, `"cauchy"`, `"arctan"` of residuals in
        units of sigma, from `f_scale` on; or a loss Module. `pcov` is then scipy's: the inverse of the
        curvature sum rho'' J^T J with rho'' kept positive, times 2 cost / (n - p). `fit` keeps rho''
        above 1e-3 of rho'(z)/z, as its steps do; the two differ by less than a part in a thousand unless
        outliers are many.
    - `jac`: (x, a, b, ...) -> shape (n, p), in place of automatic differentiation.
    - `x_scale`, `gtol`: taken for scipy's sake. The solvers always scale by the Jacobian's columns, and
        go on until rounding stops them.
    - `ftol`, `xtol`: end the search when the cost is expected to fall by less than this fraction, or
        each parameter to change by less than this one; undamped polishing steps follow.
    - `max_nfev`: at most so many evaluations (200).
    - `likelihood`: `"poisson"` for counts: maximum likelihood instead of least squares, with absolute
        errors; neither a sigma nor a loss then.
    - `verbose`: 2 prints each step of the search. `callback`: called with each `Step` instead.
    - `full_output`: return the `Solution` as well.
    - `nan_policy`: `"raise"`, or `"omit"` rows in which x, y or sigma is not finite.
    - `throw`: raise when the fit fails. Inside a transformation nothing can be raised: there `popt` and
        `pcov` of a failed fit are NaN. `throw=False` gives the best point found in both cases.

    **Returns:** `(popt, pcov)` of shapes (p,) and (p, p); or `(popt, pcov, solution)`. The error of a
    parameter that the data do not determine is inf.

    **Raises:** `ValueError` for data, starts or bounds that make no sense, naming the array and its first
    bad index; `RuntimeError` when the fit does not converge, with advice.
    """
    del x_scale, gtol
    signature = named_parameters(f, p0)
    names = signature[1]
    lower, upper = flat_limits(bounds, names)
    start = default_start(lower, upper, len(names)) if p0 is None else as_vector(p0)
    data = as_rows(xdata, "xdata"), as_rows(ydata, "ydata"), as_rows(sigma, "sigma")
    choices = choose(signature, (method, ftol, xtol, verbose, callback), likelihood, nan_policy, max_nfev)
    if choices.poisson and (sigma is not None or loss != "linear"):
        raise ValueError("likelihood='poisson' knows the scatter of counts: it takes neither sigma nor loss")
    problem = Problem(*data, start, lower, upper, as_flag(bool(absolute_sigma) or choices.poisson))
    check_shapes(problem, names)
    traced = closes_over_tracer(f) or any(isinstance(leaf, jax.core.Tracer) for leaf in jtu.tree_leaves((f, problem)))
    run = _solve if traced else functools.partial(outermost, _compiled(), _solve)
    args = (as_call(f, jac), problem, as_loss(loss, f_scale), choices)
    solution, flags = run(*args)
    popt, pcov = solution.y, solution.covariance
    if not isinstance(flags, jax.core.Tracer):
        _judge(solution, jax.device_get(flags), args, throw, strict)
    elif throw:
        popt = jnp.where(solution.success, popt, jnp.nan)
        pcov = jnp.where(solution.success, pcov, jnp.nan)
    return (popt, pcov, solution) if full_output else (popt, pcov)


@functools.cache
def _compiled() -> Any:
    """The jitted fit."""
    return jax.jit(_solve, static_argnums=3, compiler_options=cheap_compile())


def _solve(call: Any, problem: Problem, loss: AbstractLoss, choices: Choices) -> tuple[Solution, Int[Array, " 4"]]:
    """The fit, and what the host must know of it in one small array."""
    model, data = make_problem(call, problem, choices)
    bounds = None
    if problem.lower is not None:
        pairs = zip(jnp.asarray(problem.lower), jnp.asarray(problem.upper), strict=True)
        bounds = dict(zip(choices.names, pairs, strict=True))
    solution = fit(
        model,
        data,
        bounds=bounds,
        solver=choices.solver,
        loss=loss,
        max_steps=choices.max_steps,
        throw=False,
        scale_covariance=False,
    )
    if not isinstance(loss, Linear):
        solution = _with_exact_curvature(solution, data, loss)
    scaled = scaled_by_scatter(solution.covariance, solution.fixed, solution.cost, solution.dof)
    solution = _replace(solution, covariance=jnp.where(problem.absolute, solution.covariance, scaled))
    numbers = (solution.result._value, jnp.any(solution.projected), jnp.any(~solution.determined), solution.dof)
    return solution, jnp.stack([jnp.asarray(number, int) for number in numbers])


def _with_exact_curvature(solution: Solution, data: Any, loss: AbstractLoss) -> Solution:
    """The covariance from rho'' as it is, which scipy takes: `fit` keeps it above 1e-3 of rho'/z."""
    model, mask = solution.model, data.mask

    def residual(y: Float[Array, " p"]) -> Float[Array, " n"]:
        return data.residual(type(model)(model._call, model._last, *y))

    value, jac_t = jacobian_t(residual, solution.y)
    noise = data.noise.prepare(mask)
    white = jax.vmap(lambda row: noise.whiten(row, mask))(jac_t)
    curvature = loss(noise.whiten(value, mask))[2]
    root = jnp.sqrt(jnp.maximum(curvature, jnp.finfo(curvature.dtype).eps))
    known = covariance((white * root[None, :]).T, solution.fixed)
    dof = solution.num_data - known.rank
    return _replace(solution, covariance=known.matrix, dof=dof, rank=known.rank, determined=known.determined)


def _replace(solution: Solution, **fields: Any) -> Solution:
    return eqx.tree_at(lambda s: [getattr(s, name) for name in fields], solution, list(fields.values()))


def _judge(solution: Solution, flags: np.ndarray, args: Any, throw: bool, strict: bool) -> None:
    """Raise or warn, on the host."""
    code, projected, lost, dof = flags.tolist()
    if projected and strict:
        outside = [n for n, p in zip(solution.names, np.asarray(solution.projected), strict=True) if p]
        raise ValueError(f"p0: the start of {', '.join(outside)} lies outside its bounds (strict=True)")
    if not throw:
        return
    call, problem, _, choices = args
    if code:
        first_bad(problem, choices)
        if solution.result == RESULTS.bad_noise:
            raise ValueError("sigma, taken as a covariance matrix, is not positive definite")
        model, data = make_problem(call, problem, choices)
        explain(solution, model, data, None)
    if projected or lost:
        for message in report(solution):
            warnings.warn(message, stacklevel=3)
    if dof <= 0 and not problem.absolute:
        warnings.warn(
            "there are no more data than parameters, so the scatter cannot be estimated and pcov is infinite: "
            "give sigma with absolute_sigma=True",
            stacklevel=3,
        )
