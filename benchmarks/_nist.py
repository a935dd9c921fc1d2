"""How many certified digits each solver reaches on NIST's nonlinear regression problems."""

import dataclasses
import functools
import warnings
from collections.abc import Callable
from importlib import resources
from typing import Any

import jax
import jax.flatten_util as jfu
import jax.numpy as jnp
import numpy as np
import optimistix as optx
import scipy.optimize as so

import jaxsci as js
from jaxsci.data.nist import MODELS as NIST_MODELS, NistProblem, parse_nist

_CERTIFIED = 11  # digits


@functools.cache
def problems() -> tuple[NistProblem, ...]:
    """All bundled problems."""
    folder = resources.files("jaxsci") / "data" / "nist"
    return tuple(parse_nist((folder / f"{name}.dat").read_text()) for name in NIST_MODELS)


@dataclasses.dataclass(frozen=True)
class Start:
    """One problem from one of its starts, compiled once for all who fit it."""

    problem: NistProblem
    model: js.AbstractModel
    data: js.Dataset
    values: np.ndarray
    residual: Callable[[Any], Any]
    jacobian: Callable[[Any], Any]

    def standard_errors(self, y: Any) -> Any:
        """From the Jacobian at y by QR: for solvers that give none."""
        r = np.linalg.qr(np.asarray(self.jacobian(y)), mode="r")
        scale = np.linalg.norm(np.asarray(self.residual(y))) / np.sqrt(self.problem.dof)
        return scale * np.linalg.norm(np.linalg.inv(r), axis=1)


@functools.cache
def starts() -> tuple[Start, ...]:
    """Every problem from both its starts."""
    return tuple(start for problem in problems() for start in _starts(problem))


def _starts(problem: NistProblem) -> list[Start]:
    kind = NIST_MODELS[problem.name]
    data = js.Dataset(np.array(problem.x), np.array(problem.y))
    _, unravel = jfu.ravel_pytree(kind(**problem.values))
    residual = jax.jit(lambda y: data.residual(unravel(y)))
    jacobian = jax.jit(jax.jacfwd(residual))
    return [
        Start(problem, kind(**values), data, np.array(list(values.values())), residual, jacobian)
        for values in problem.starts
    ]


Answer = tuple[Any, Any]  # parameters, standard errors


def digits(found: Any, certified: dict[str, float]) -> float:
    """The log relative error of the worst parameter: -log10 |found - c| / |c|, at most 11."""
    truth = np.array(list(certified.values()))
    error = np.max(np.abs(np.asarray(found) - truth) / np.abs(truth))
    if not np.isfinite(error):
        return 0.0
    return float(_CERTIFIED if error == 0 else min(_CERTIFIED, -np.log10(error)))


def score(fit: Callable[[Start], Answer]) -> tuple[int, int, int]:
    """How many of all starts: parameters to 6 digits, to 9 digits, standard errors to 6."""
    reached = np.zeros(3, int)
    for start in starts():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            y, errors = fit(start)
        parameters = digits(y, start.problem.values)
        reached += [parameters >= 6, parameters >= 9, digits(errors, start.problem.std) >= 6]
    return tuple(int(count) for count in reached)  # type: ignore[return-value]


def _jaxsci(solver: Any, start: Start) -> Answer:
    solution = js.fit(start.model, start.data, solver=solver, max_steps=2000, throw=False)
    return solution.y, solution.standard_errors


def _scipy(method: str, tolerance: float, start: Start) -> Answer:
    options = dict.fromkeys(("ftol", "xtol", "gtol"), tolerance)
    scale = "jac" if method == "trf" else 1.0
    answer = so.least_squares(
        lambda y: np.asarray(start.residual(y)), start.values, jac=lambda y: np.asarray(start.jacobian(y)),
        method=method, x_scale=scale, max_nfev=5000, **options,
    )  # fmt: skip
    return answer.x, start.standard_errors(answer.x)


def _lmfit(start: Start) -> Answer:
    import lmfit

    parameters = lmfit.create_params(**{k: float(v) for k, v in zip(start.problem.values, start.values, strict=True)})

    def residual(values: Any) -> Any:
        return np.asarray(start.residual(np.array(list(values.valuesdict().values()))))

    try:
        fitted = lmfit.minimize(residual, parameters, ftol=1e-15, xtol=1e-15).params.values()
    except ValueError:  # lmfit gives up where the model overflows at a trial point
        return np.full(start.values.size, np.nan), np.full(start.values.size, np.nan)
    return np.array([p.value for p in fitted]), np.array([np.nan if p.stderr is None else p.stderr for p in fitted])


@functools.cache
def _compiled_optimistix(residual: Callable[[Any], Any]) -> Callable[[Any], Any]:
    solver = optx.LevenbergMarquardt(rtol=1e-10, atol=1e-10)

    def fit(y: Any) -> Any:
        return optx.least_squares(lambda y, _: residual(y), solver, y, max_steps=5000, throw=False).value

    return jax.jit(fit)


def _optimistix(start: Start) -> Answer:
    fitted = _compiled_optimistix(start.residual)(jnp.asarray(start.values))
    return fitted, start.standard_errors(fitted)


SOLVERS: dict[str, Callable[[Start], Answer]] = {
    "jaxsci": functools.partial(_jaxsci, js.TRF()),
    "jaxsci GaussNewton": functools.partial(_jaxsci, js.GaussNewton()),
    "scipy trf": functools.partial(_scipy, "trf", 1e-15),
    "scipy lm": functools.partial(_scipy, "lm", 1e-15),
    "lmfit": _lmfit,
    "optimistix LM": _optimistix,
}
