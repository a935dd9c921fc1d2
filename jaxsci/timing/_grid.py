"""chi2 over a grid of timing parameters, all others fitted at each point."""

import functools
import itertools
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float
from optimistix import RESULTS

from ..core._loss import Linear
from ..fitting._fit import make_ready, solve
from ..fitting._plan import Plan, flat_bounds, make_plan
from ..fitting._program import call
from ._anchor import AnchoredTOAs, anchor
from ._fit import SOLVER, bare, chosen, fit
from ._model import TimingModel, limits
from ._toas import TOAs


def chi2_grid(
    model: TimingModel,
    toas: TOAs,
    grid: Mapping[str, Sequence[float] | np.ndarray],
    free: Sequence[str] | None = None,
    *,
    solver: Any = SOLVER,
    max_steps: int = 20,
) -> np.ndarray:
    """chi2 where the parameters of a grid are held at its points and the others are fitted.

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
    assert model.par is not None
    _, held = zip(*(chosen(model, name) for name in grid), strict=True)
    names = (*(chosen(model, free)[0]), *(name for name in grid))
    best = fit(model, toas, names, solver=solver)
    data, _ = anchor(model, toas)
    start = bare(model)
    leaves = tuple(dict.fromkeys(place.split("[")[0] for place in best.fit.names))
    plan = make_plan(start, data.noise, leaves)
    bounds = flat_bounds(plan, {name: pair for name, pair in limits(model).items() if name in leaves})
    at = [plan.names.index(place) for (place,) in held]
    offsets = [
        [float(Decimal(repr(float(value))) - model.par.value(name)) for value in values]
        for name, values in grid.items()
    ]
    starts = _predicted(best.fit, at, np.array(list(itertools.product(*offsets))))
    active = ~np.asarray(best.fit.fixed)
    active[at] = False
    shape = tuple(len(values) for values in offsets)
    run = functools.partial(_row, start, data, bounds, jnp.asarray(active), plan, (solver, max_steps))
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return np.concatenate(list(pool.map(run, np.split(starts, len(starts) // shape[-1])))).reshape(shape)


def _predicted(solution: Any, at: list[int], points: np.ndarray) -> np.ndarray:
    """Where a linear model has its optimum when the parameters `at` are held at the points."""
    y, matrix = np.asarray(solution.y), np.asarray(solution.covariance)
    matrix = np.where(np.isfinite(matrix), matrix, 0.0)
    gain = np.linalg.lstsq(matrix[np.ix_(at, at)], matrix[at], rcond=None)[0]
    starts = y + (points - y[at]) @ gain
    starts[:, at] = points
    return starts


def _row(
    model: TimingModel,
    data: AnchoredTOAs,
    bounds: tuple[Array | None, Array | None],
    active: Array,
    plan: Plan,
    choices: tuple[Any, int],
    starts: np.ndarray,
) -> np.ndarray:
    return np.asarray(call(_chi2, (model, data, bounds, active, starts), (plan, *choices)))


def _chi2(
    model: TimingModel,
    data: AnchoredTOAs,
    bounds: tuple[Array | None, Array | None],
    active: Bool[Array, " p"],
    starts: Float[Array, "k p"],
    plan: Plan,
    solver: Any,
    max_steps: int,
) -> Float[Array, " k"]:
    none = jnp.zeros(len(plan.names))
    ready = make_ready((model, data, *bounds, none, none, None, solver, Linear(), None), plan, None)

    def one(y: Array) -> Array:
        lower, upper = jnp.where(active, ready.lower, y), jnp.where(active, ready.upper, y)
        here = ready._replace(y0=y, lower=lower, upper=upper, bounds={"lower": lower, "upper": upper})
        _, ended, _, stalled, lin = solve(here, solver, max_steps, exact=False)
        assert lin is not None
        return jnp.where((ended == RESULTS.successful) & ~stalled, 2 * lin.cost, jnp.nan)

    return jax.lax.map(one, starts)  # one noise, prepared once, for all points
