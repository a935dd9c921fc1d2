"""curve_fit(): the call that users of scipy know, with a Solution behind it.

Arguments are read on the host (`_options`, `_problem`), the function is traced as it is at this call (`_curve`), and
one program fits and says in four numbers how that ended, so that a warm call of a small fit waits for the device once.
What is hot here is plain: NamedTuples, and no Module that checks its fields.
"""

import warnings
from collections.abc import Callable
from typing import Any, NamedTuple, TypedDict

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from ..core import AbstractLoss, AbstractNoise, Inputs, Linear, is_traced
from ..datasets import Dataset
from ..fitting import (
    RESULTS,
    Found,
    Rows,
    Solution,
    Traced,
    explain,
    fit,
    jacobian_t,
    report,
    scaled_by_scatter,
    seeing,
    state_of,
    uncertainty,
)
from ._curve import Call, named_parameters, trace, with_live_function
from ._log import Step
from ._options import as_loss, default_start, flat_limits, take_note
from ._problem import (
    Asked,
    Choices,
    Problem,
    as_flag,
    as_many,
    as_rows,
    as_vector,
    check_shapes,
    choose,
    example,
    make_problem,
    masked_rows,
    refuse_bad,
)
from ._typing import Bounds, Ignored, Jacobian, Loss, Method, Numbers

_BARE = (np.ndarray, float, int, list, tuple)  # what has no mask


class Info(TypedDict):
    """What `curve_fit(..., full_output=True)` tells beside, as scipy's dictionary does, and the Solution.

    - `nfev`: evaluations. `fvec`: the residuals (f(x) - y) / sigma, whitened where sigma is a covariance, 0 in rows
      without weight.
    """

    nfev: Any
    fvec: Any
    solution: Solution


def curve_fit(
    f: Callable[..., Any],
    xdata: Inputs,
    ydata: Numbers,
    p0: Numbers = None,
    sigma: Numbers = None,
    absolute_sigma: bool = False,
    check_finite: bool | None = None,
    bounds: Bounds = (-np.inf, np.inf),
    method: Method = None,
    jac: Jacobian = None,
    *,
    loss: Loss = "linear",
    f_scale: Numbers = 1.0,
    ftol: float | None = None,
    xtol: float | None = None,
    max_nfev: int | None = None,
    maxfev: int | None = None,
    likelihood: str = "gaussian",
    verbose: int = 0,
    callback: Callable[[Step], Any] | None = None,
    full_output: bool = False,
    nan_policy: str | None = None,
    strict: bool = False,
    throw: bool = True,
    **options: Ignored,
) -> Any:
    """Fit f(x, a, b, ...) to data, as `scipy.optimize.curve_fit` does.

    Each call fits `f` as it is then, with all that it reads beside its arguments (closures, globals, attributes,
    defaults), and compiles only where another computation or other shapes are met; other numbers in the data, the
    start or an array that `f` reads are none. What a `jax.jit` of your own inside of `f` has read when it was first
    called, JAX keeps. Inside `jax.jit`, `jax.vmap` and `jax.grad` the fit is part of the caller's program.

    **Arguments:**

    - `f`: written with `jax.numpy`: (x, a, b, ...) -> shape (n,), or a number for a constant.
    - `xdata`: shape (n,), or (k, n) as in scipy, or (n, k); a grid, of shape (k, ...) or (...), with n points; a
        dictionary of arrays with n rows; or `None`, which f gets then.
    - `ydata`: shape (n,), or one number for all rows. Integers are made floats. Data in float32 are fitted in float32,
        unless one of x, y and sigma is float64. Rows that a masked array of NumPy masks, here, in `xdata` or in
        `sigma`, are left out.
    - `p0`: start, shape (p,); by default as in scipy: ones, or what the bounds suggest. Outside the
        bounds it is moved onto them with a warning (`strict=True` raises).
    - `sigma`: standard deviations, a number or shape (n,), or a covariance of shape (n, n). A row whose standard
        deviation is inf is left out.
    - `absolute_sigma`: False scales `pcov` by chi2 / (n - p), n the rows with weight; with no more data than
        parameters that is inf throughout, with a warning.
    - `check_finite`: True raises for data that are not finite even if `nan_policy` is "omit". False changes nothing:
        data are looked at where a fit has failed.
    - `bounds`: (lower, upper), each a number or of shape (p,); a scipy `Bounds`; or
        `{parameter: (lower, upper)}`. Equal bounds fix a parameter.
    - `method`: `None` or `"trf"`, or `"dogbox"`, in whose place `"trf"` runs; `"lm"`, the damped Gauss-Newton of
        `jaxsci.GaussNewton`; `"gn"`, the same with next to no damping at first; or a solver. All take bounds.
    - `jac`: (x, a, b, ...) -> shape (n, p), in place of automatic differentiation. The words `"2-point"`, `"3-point"`
        and `"cs"` give exact derivatives too, with a warning that says so.
    - `loss`, `f_scale`: `"linear"`, `"soft_l1"`, `"huber"`, `"cauchy"`, `"arctan"` of residuals in
        units of sigma, from `f_scale` on; or a loss Module. `pcov` is then scipy's: the inverse of the
        curvature sum rho'' J^T J with rho'' kept positive, times 2 cost / (n - p). `fit` keeps rho''
        above 1e-3 of rho'(z)/z, as its steps do; the two differ by less than a part in a thousand unless
        outliers are many.
    - `ftol`, `xtol`: end the search when the cost is expected to fall by less than this fraction, or
        each parameter to change by less than this one; undamped polishing steps follow.
    - `max_nfev`, or `maxfev`: at most so many evaluations (200).
    - `likelihood`: `"poisson"` for counts: maximum likelihood instead of least squares, with absolute
        errors; neither a sigma nor a loss then.
    - `verbose`: 2 prints each step of the search. `callback`: called with each `Step` instead.
    - `full_output`: answer more, in scipy's order.
    - `nan_policy`: `None` or `"raise"`, or `"omit"` rows in which x, y or sigma is not finite.
    - `throw`: raise when the fit fails. Inside a transformation nothing can be raised: there `popt` and
        `pcov` of a failed fit are NaN. `throw=False` gives the best point found in both cases.
    - `options`: `x_scale`, `gtol`, `diff_step`, `epsfcn`, `tr_solver`, `tr_options`, `jac_sparsity`, `workers`,
        `factor`, `diag`: taken for scipy's sake, and change nothing. The solvers always scale by the Jacobian's
        columns, take exact derivatives, and go on until rounding stops them.

    **Returns:** `(popt, pcov)` of shapes (p,) and (p, p); or `(popt, pcov, infodict, mesg, ier)` with `infodict` an
    `Info`, which holds the `Solution`, and `ier` 1 where the fit converged; inside a transformation, which knows no
    words, `mesg` is `solution.result`. The error of a parameter that the data do not determine is inf.
    `solution.model` calls `f` as it is when it is called.

    **Raises:** `ValueError` for data, starts or bounds that make no sense, naming the array and its first
    bad index; `TypeError` for an f that is not written with `jax.numpy`; `RuntimeError` when the fit does not
    converge, with advice.
    """
    derivatives = take_note(method, jac, options, "curve_fit")
    if maxfev is not None and max_nfev is not None:
        raise ValueError("maxfev and max_nfev are the same: give one of them")
    if nan_policy not in (None, "raise", "omit"):
        raise ValueError(f"nan_policy should be None, 'raise' or 'omit', but it is {nan_policy!r}")
    start = None if p0 is None else as_vector(p0)
    signature = named_parameters(f, start)
    names = signature.names
    lower, upper = flat_limits(bounds, names)
    if start is None:
        start = default_start(lower, upper, len(names))
    x, y, errors = as_rows(xdata, "xdata"), as_rows(ydata, "ydata"), as_rows(sigma, "sigma")
    choices = choose(
        signature,
        Asked(method, ftol, xtol, verbose, callback),
        likelihood,
        nan_policy == "omit" and not check_finite,
        max_nfev if maxfev is None else maxfev,
        derivatives is not None,
    )
    if choices.poisson and (sigma is not None or loss != "linear"):
        raise ValueError("likelihood='poisson' knows the scatter of counts: it takes neither sigma nor loss")
    y = as_many(y, x)
    absolute = as_flag(bool(absolute_sigma) or choices.poisson)
    problem = Problem(x, y, errors, None, start, lower, upper, absolute)
    check_shapes(problem, names)
    if not all(
        value is None or isinstance(value, jax.Array) or type(value) in _BARE for value in (xdata, ydata, sigma)
    ):
        problem = problem._replace(mask=masked_rows(y.shape[0], xdata, ydata, sigma))
    found = trace(f, derivatives, example(problem), choices.title)
    rho = as_loss(loss, f_scale)
    state = None if isinstance(loss, str) and not choices.watched else state_of((choices.solver, rho))
    with seeing(state):
        solution, numbers = found.run(_solve, (3,), problem, rho, choices)
    popt, pcov = solution.y, solution.covariance
    if not is_traced(numbers):
        told = _Told(*jax.device_get(numbers).tolist())
        if throw or strict:
            _judge(solution, told, found, problem, choices, throw=throw, strict=strict)
        converged, message = int(told.result == 0), solution.message if told.result else "converged"
    else:
        converged, message = solution.success, solution.result
        if throw:
            popt = jnp.where(solution.success, popt, jnp.nan)
            pcov = jnp.where(solution.success, pcov, jnp.nan)
    if not full_output:
        return popt, pcov
    residuals = found.run(_whitened, (3,), problem, solution.y, choices)
    info = Info(nfev=solution.num_steps, fvec=residuals, solution=with_live_function(solution, f))
    return popt, pcov, info, message, converged


class _Told(NamedTuple):
    """What the host must know of a fit; from one small array, because each transfer from the device costs as much.

    - `result`: the number of its `RESULTS`, 0 where it converged.
    - `projected`: whether a start lay outside its bounds. `lost`: whether the data leave a parameter undetermined.
    - `dof`: degrees of freedom.
    """

    result: int
    projected: int
    lost: int
    dof: int


def _solve(
    function: Traced, problem: Problem, loss: AbstractLoss, choices: Choices
) -> tuple[Solution, Int[Array, " 4"]]:
    """The fit, and the fields of `_Told` in one array."""
    model, data = make_problem(Call(function, choices.own_jacobian), problem, choices)
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
    lost = jnp.any(~solution.determined)
    numbers = (solution.result._value, jnp.any(solution.projected), lost, solution.dof)  # in the order of `_Told`
    return solution, jnp.stack([jnp.asarray(number, int) for number in numbers])


def _whitened(function: Traced, problem: Problem, y: Float[Array, " p"], choices: Choices) -> Float[Array, " n"]:
    """The residuals at y in units of sigma, 0 in rows without weight."""
    model, data = make_problem(Call(function, choices.own_jacobian), problem, choices)
    residual = data.residual(type(model)(model._call, model._layout, *y))
    if isinstance(data.noise, AbstractNoise):
        ready: Any = data.noise.prepare(data.mask)
        return ready.whiten(residual, data.mask)
    return jnp.where(data.mask, residual, 0)


def _with_exact_curvature(solution: Solution, data: Dataset, loss: AbstractLoss) -> Solution:
    """The covariance from rho'' as it is, which scipy takes: `fit` keeps it above 1e-3 of rho'/z."""
    model, mask = solution.model, data.mask

    def residual(y: Float[Array, " p"]) -> Float[Array, " n"]:
        return data.residual(type(model)(model._call, model._layout, *y))

    value, jac_t = jacobian_t(residual, solution.y)
    given: Any = data.noise
    noise = given.prepare(mask)
    white = jax.vmap(lambda row: noise.whiten(row, mask))(jac_t)
    _, _, curvature = loss(noise.whiten(value, mask))
    root = jnp.sqrt(jnp.maximum(curvature, jnp.finfo(curvature.dtype).eps))
    known = uncertainty(Rows((white * root[None, :]).T), solution.fixed)
    dof = solution.num_data - known.rank
    return _replace(solution, covariance=known.matrix, dof=dof, rank=known.rank, determined=known.determined)


def _replace(solution: Solution, **fields: Array) -> Solution:
    return eqx.tree_at(lambda s: [getattr(s, name) for name in fields], solution, list(fields.values()))


def _judge(
    solution: Solution, told: _Told, found: Found, problem: Problem, choices: Choices, *, throw: bool, strict: bool
) -> None:
    """Raise or warn, on the host."""
    if told.projected and strict:
        outside = [n for n, p in zip(solution.names, np.asarray(solution.projected), strict=True) if p]
        raise ValueError(f"p0: the start of {', '.join(outside)} lies outside its bounds (strict=True)")
    if not throw:
        return
    if told.result:
        refuse_bad(problem, choices)
        if solution.result == RESULTS.bad_noise:
            raise ValueError("sigma, taken as a covariance matrix, is not positive definite")
        model, data = make_problem(Call(found.function, choices.own_jacobian), problem, choices)
        explain(solution, model, data, None)
    if told.projected or told.lost:
        for message in report(solution):
            warnings.warn(message, stacklevel=3)
    if told.dof <= 0 and not problem.absolute:
        warnings.warn(
            "there are no more data than parameters, so the scatter cannot be estimated and pcov is infinite: "
            "give sigma with absolute_sigma=True",
            stacklevel=3,
        )
