"""How the peers fit a `Problem`: with exact derivatives, and their own stopping rules unless said."""

import importlib.util
import sys
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optimistix as optx
import scipy.optimize as so

from ._problems import Problem

Fit = tuple[np.ndarray, np.ndarray | None]  # parameters, covariance


def scipy_fit(problem: Problem, y: np.ndarray, method: str, tolerance: float | None = None) -> Fit:
    """`scipy.optimize.curve_fit` by "trf" (with the bounds, if any) or "lm" (which knows none)."""
    options: dict[str, Any] = {} if tolerance is None else dict.fromkeys(("ftol", "xtol", "gtol"), tolerance)
    if method == "trf" and problem.bounds is not None:
        options["bounds"] = problem.bounds
    return so.curve_fit(problem.function, problem.x, y, problem.start, method=method, jac=problem.jacobian, **options)


def lmfit_fit(problem: Problem, y: np.ndarray) -> Fit:
    """lmfit's `Model` with its default leastsq, derivatives by differences as it has them."""
    import lmfit

    names = [f"b{i}" for i in range(problem.start.size)]
    parameters = lmfit.create_params(**dict(zip(names, problem.start.tolist(), strict=True)))

    def residual(values: Any) -> np.ndarray:
        return problem.function(problem.x, *values.valuesdict().values()) - y

    result = lmfit.minimize(residual, parameters)
    return np.array(list(result.params.valuesdict().values())), getattr(result, "covar", None)


def optimistix_fit(problem: Problem, *, batch: bool = False, tolerance: float = 1e-8) -> Callable[[Any], Any]:
    """y -> parameters by optimistix's Levenberg-Marquardt, compiled; under `vmap` for a batch."""
    solver = optx.LevenbergMarquardt(rtol=tolerance, atol=tolerance)

    def residual(p: Any, args: Any) -> Any:
        x, y = args
        return problem.formula(jnp, x, *p) - y

    def fit(x: Any, y: Any) -> Any:
        start = jnp.asarray(problem.start)
        return optx.least_squares(residual, solver, start, (x, y), max_steps=256, throw=False).value

    compiled = jax.jit(jax.vmap(fit, (None, 0)) if batch else fit)
    x = jnp.asarray(problem.x)
    return lambda y: compiled(x, y)


def nlsq_fit(problem: Problem) -> Callable[[np.ndarray, float | None], Fit]:
    """One `nlsq.CurveFit` used again and again, so that only its first call compiles."""
    import nlsq

    fitter = nlsq.CurveFit()

    def function(x: Any, *p: Any) -> Any:
        return problem.formula(jnp, x, *p)

    # nlsq counts the parameters of the function it is given
    wrapped = {3: lambda x, a, b, c: function(x, a, b, c)}[problem.start.size]

    def fit(y: np.ndarray, tolerance: float | None = None) -> Fit:
        options = {} if tolerance is None else dict.fromkeys(("ftol", "xtol", "gtol"), tolerance)
        return fitter.curve_fit(wrapped, problem.x, y, problem.start, **options)

    return fit


def nlsq_missing() -> str:
    """Why there is no nlsq here; empty where there is."""
    if sys.version_info < (3, 12):
        return "not run: nlsq needs Python 3.12"
    return "" if importlib.util.find_spec("nlsq") else "not run: nlsq is not installed"
