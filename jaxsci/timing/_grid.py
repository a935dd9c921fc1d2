"""chi2 over a grid of timing parameters, all others fitted at each point.

Where a likelihood is far from Gaussian, as that of a companion's mass and inclination is, contours of chi2 say what an
error cannot. Every point starts where the fit of all parameters predicts its answer, and all points share one compiled
program and one noise. Researchers call `chi2_grid`, and so does a run with a `grid` in its config.
"""

import functools
import itertools
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from optimistix import RESULTS

from ..core import require_kind
from ..fitting import (
    Choices,
    Problem,
    Solution,
    Solver,
    Terms,
    check_search,
    compiled,
    flat_bounds,
    make_plan,
    make_ready,
    search,
)
from ._anchor import tied
from ._fit import SOLVER, bare, chosen, fit
from ._model import TimingModel, limits
from ._toas import TOAs


def chi2_grid(
    model: TimingModel,
    toas: TOAs,
    grid: Mapping[str, Sequence[float] | np.ndarray],
    free: Sequence[str] | None = None,
    *,
    solver: Solver = SOLVER,
    max_steps: int = 20,
) -> np.ndarray:
    """Compute chi2 where the parameters of a grid are held at its points and the others are fitted.

    Every point starts from what the fit of all parameters predicts for it, so that one or two steps suffice.

    **Arguments:**

    - `model`, `toas`, `free`: as in `timing.fit`; the parameters of the grid are added to the free ones.
    - `grid`: PINT's names, each with its values in PINT's unit, such as `{"M2": ..., "SINI": ...}`.
    - `solver`, `max_steps`: as in `jaxsci.fit`.

    **Returns:** chi2, of one axis for each parameter in the order of `grid`; nan where the fit failed.

    **Raises:** `ValueError` for wrong names or an empty grid.
    """
    if not grid:
        raise ValueError("the grid is empty: give values for at least one parameter, such as {'M2': ...}")
    require_kind(model, TimingModel, "model", "a TimingModel, the first of what timing.load gives")
    for name, values in grid.items():
        host = np.asarray(values, float)
        if host.ndim != 1 or not host.size or not np.isfinite(host).all():
            raise ValueError(
                f"grid: {name} should have a list of finite values, such as [0.2, 0.3, 0.4], not {values!r:.60}"
            )
    check_search(solver, max_steps)
    assert model.par is not None
    _, held = zip(*(chosen(model, name) for name in grid), strict=True)
    names = (*(chosen(model, free)[0]), *(name for name in grid))
    best = fit(model, toas, names, solver=solver)
    data, _ = tied(model, toas)
    start = bare(model)
    leaves = tuple(dict.fromkeys(place.split("[")[0] for place in best.fit.names))
    plan = make_plan(start, data.noise, leaves)
    bounds = flat_bounds(plan, {name: pair for name, pair in limits(model).items() if name in leaves})
    at = [plan.names.index(place) for (place,) in held]
    # in decimals: a step of M2 or F0 would lose its digits in a difference of float64
    offsets = [
        [float(Decimal(repr(float(value))) - model.par.value(name)) for value in values]
        for name, values in grid.items()
    ]
    starts = _predicted(best.fit, at, np.array(list(itertools.product(*offsets))))
    active = ~np.asarray(best.fit.fixed)
    active[at] = False
    shape = tuple(len(values) for values in offsets)
    none = jnp.zeros(len(plan.names))
    problem = Problem(start, data, Terms(*bounds, none, none, jnp.asarray(active)))
    run = functools.partial(_row, problem, Choices(plan, solver, None, max_steps))
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return np.concatenate(list(pool.map(run, np.split(starts, len(starts) // shape[-1])))).reshape(shape)


def _predicted(solution: Solution, at: list[int], points: np.ndarray) -> np.ndarray:
    """Where a linear model has its optimum when the parameters `at` are held at the points."""
    y, matrix = np.asarray(solution.y), np.asarray(solution.covariance)
    matrix = np.where(np.isfinite(matrix), matrix, 0.0)
    # parameters of the grid may be degenerate, and then the matrix has no inverse
    gain = np.linalg.lstsq(matrix[np.ix_(at, at)], matrix[at], rcond=None)[0]
    starts = y + (points - y[at]) @ gain
    starts[:, at] = points
    return starts


def _row(problem: Problem, choices: Choices, starts: np.ndarray) -> np.ndarray:
    return np.asarray(compiled(_chi2, (problem, choices, starts)))


def _chi2(problem: Problem, choices: Choices, starts: Float[Array, "k p"]) -> Float[Array, " k"]:
    terms = problem.terms
    active = terms.active
    assert active is not None
    free = Problem(problem.model, problem.data, terms._replace(active=None))
    ready = make_ready(free, choices)  # active parameters are held below, where each point has them

    def one(y: Array) -> Array:
        lower, upper = jnp.where(active, ready.lower, y), jnp.where(active, ready.upper, y)
        here = ready._replace(y0=y, lower=lower, upper=upper, bounds={"lower": lower, "upper": upper})
        end = search(here, choices, exact=False)
        assert end.lin is not None
        return jnp.where((end.result == RESULTS.successful) & ~end.stalled, 2 * end.lin.cost, jnp.nan)

    return jax.lax.map(one, starts)  # one noise, prepared once, for all points
