"""Pictures of curve fits: each a function of a result, with an optional `ax`, which it returns.

matplotlib is imported inside the functions: `pip install 'jaxsci[plot]'`.
"""

from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ..core import suggest
from ..datasets import Dataset
from ..fitting import TRF, BatchSolution, Solution, Solver, compiled
from ..plot import DATA, MODEL, _axes, plot_correlation as plot_correlation, plot_fit, plot_histogram, plot_residuals
from ._interval import Search, confidence_interval, others_fitted

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_REACH = 3.0  # standard errors to either side


def plot_curve(solution: Solution, data: Dataset, ax: "Axes | None" = None) -> "Axes":
    """Data and fit with its 1-sigma band, and the residuals in a panel below.

    **Arguments:**

    - `solution`, `data`: of one fit.
    - `ax`: where to draw, a new figure by default; the lower quarter of it goes to the residuals, whose axes are
      `ax.child_axes[0]`.

    **Returns:** the upper axes.
    """
    ax = plot_fit(solution, data, ax)
    below = ax.inset_axes((0.0, -0.42, 1.0, 0.34), sharex=ax)
    ax.tick_params(labelbottom=False)
    plot_residuals(solution, data, below)
    return ax


def plot_profile(
    solution: Solution,
    data: Dataset,
    name: str,
    ax: "Axes | None" = None,
    level: float = 0.95,
    points: int = 41,
    *,
    solver: Solver = TRF(),
    chunk: int | None = None,
    max_steps: int = 200,
    **told: object,
) -> "Axes":
    """How the cost rises when one parameter is held away from its best value and all others are fitted anew.

    Beside it the parabola of the standard error, and both confidence intervals: where the two curves part, only the
    profile is to be trusted.

    **Arguments:**

    - `solution`, `data`: of a fit that converged. `name`: of a free element, as in `solution.names`.
    - `ax`: where to draw, a new figure by default.
    - `level`: of the intervals that are marked. `points`: of the curve.
    - `solver`, `chunk`, `max_steps`, `told`: as in `confidence_interval`.

    **Returns:** the axes.

    **Raises:** `ValueError` for an unknown name, one that the data do not determine, or terms that are not the fit's.
    """
    how = Search(solver, chunk, max_steps)
    interval = confidence_interval(solution, data, name, level, solver=solver, chunk=chunk, max_steps=max_steps, **told)
    index = solution.names.index(name)
    best, error = float(solution.y[index]), float(solution.standard_errors[index])
    if not (np.isfinite(error) and error > 0):
        raise ValueError(f"{name} is fixed or not determined by the data: it has no profile")
    ends = np.asarray([interval.lower, interval.upper, best - _REACH * error, best + _REACH * error])
    ends = ends[np.isfinite(ends)]
    grid = np.linspace(ends.min(), ends.max(), points)
    rise = np.asarray(compiled(_profile, (solution, data, jnp.asarray(index), jnp.asarray(grid), how)))
    ax = _axes(ax)
    ax.plot(grid, rise, color=MODEL, lw=1.6, label="profile likelihood")
    ax.plot(grid, ((grid - best) / error) ** 2, color=DATA, lw=1.2, ls="--", label="from the standard error")
    for value in (interval.lower, interval.upper):
        if np.isfinite(value):
            ax.axvline(float(value), color=MODEL, lw=0.8, ls=":")
    for value in (interval.wald_lower, interval.wald_upper):
        ax.axvline(float(value), color=DATA, lw=0.8, ls=":")
    unit = solution.units[index]
    ax.set(xlabel=f"{name} ({unit})" if unit else name, ylabel="rise of χ²", ylim=(0, None))
    ax.legend(frameon=False)
    return ax


def _profile(
    solution: Solution, data: Dataset, index: Array, grid: Float[Array, " g"], how: Search
) -> Float[Array, " g"]:
    """2 (cost - least cost) at each value, in units of the noise."""
    y, at = solution.y, jnp.arange(solution.y.size) == index
    noise = 1.0 if solution.absolute else 2 * solution.cost / jnp.maximum(solution.dof, 1).astype(y.dtype)
    cost = others_fitted(solution, data, at, how)
    return jax.vmap(lambda value: 2 * (cost(value) - solution.cost) / noise)(grid)


def plot_batch(batch: BatchSolution, name: str = "reduced_chi2", ax: "Axes | None" = None) -> "Axes":
    """How a parameter, or the reduced chi2, is distributed over the members of a batch that converged.

    **Arguments:** `batch`: from `fit_batch`; `name`: of a free parameter, or `"reduced_chi2"`; `ax`: where to draw, a
    new figure by default.

    **Returns:** the axes.

    **Raises:** `ValueError` for a name that no member has.
    """
    table = batch.table()
    if name == "reduced_chi2":
        values = table["chi2"] / np.where(table["dof"] > 0, table["dof"], np.nan)
    elif name in table and name not in ("result", "success"):
        values = table[name]
    else:
        raise ValueError(f"the batch has no parameter {name!r}{suggest(name, table)} ({', '.join(table)})")
    return plot_histogram(values[table["success"].astype(bool)], name, ax)
