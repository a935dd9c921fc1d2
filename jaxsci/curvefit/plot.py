"""Pictures of curve fits: each a function of a result, with an optional `ax`, which it returns.

matplotlib is imported inside the functions: `pip install 'jaxsci[plot]'`.
"""

from collections.abc import Sequence
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
from ._region import Region, confidence_region

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_REACH = 3.0  # standard errors to either side
_VIEW = 4.0  # of a region without a limit: half widths of the ellipse
_WIDTHS = (1.8, 1.3, 0.9)  # points, of the lines from the inner to the outer one


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
    ax.set(xlabel=_labelled(name, unit), ylabel="rise of χ²", ylim=(0, None))
    ax.legend(frameon=False)
    return ax


def _profile(
    solution: Solution, data: Dataset, index: Array, grid: Float[Array, " g"], how: Search
) -> Float[Array, " g"]:
    """2 (cost - least cost) at each value, in units of the noise."""
    y, at = solution.y, jnp.arange(solution.y.size) == index
    noise = 1.0 if solution.absolute else 2 * solution.cost / jnp.maximum(solution.dof, 1).astype(y.dtype)
    fitted = others_fitted(solution, data, at, how)
    return jax.vmap(lambda value: 2 * (fitted(jnp.where(at, value, y)).cost - solution.cost) / noise)(grid)


def plot_region(
    solution: Solution,
    data: Dataset,
    names: tuple[str, str],
    ax: "Axes | None" = None,
    levels: Sequence[float] = (0.683, 0.954, 0.997),
    *,
    points: int = 100,
    solver: Solver = TRF(),
    chunk: int | None = None,
    max_steps: int = 200,
    **told: object,
) -> "Axes":
    """Where two parameters may lie together, by the profile likelihood, with the ellipses of the covariance dashed.

    Where a region ends on a bound its edge is dotted, where it has no limit its line is open, and where the fits of
    the others failed there are crosses.

    **Arguments:**

    - `solution`, `data`: of a fit that converged. `names`: of two free elements, as in `solution.names`.
    - `ax`: where to draw, a new figure by default.
    - `levels`: of the lines, of both parameters together.
    - `points`, `solver`, `chunk`, `max_steps`, `told`: as in `confidence_region`.

    **Returns:** the axes.

    **Raises:** `ValueError` as `confidence_region` does.
    """
    levels = sorted(levels)

    def of(level: float) -> Region:
        return confidence_region(
            solution, data, names, level, points=points, solver=solver, chunk=chunk, max_steps=max_steps, **told
        )

    found = [jax.device_get(of(level)) for level in levels]
    ax = _axes(ax)
    for k, (level, region) in enumerate(zip(levels, found, strict=True)):
        width = _WIDTHS[min(k, len(_WIDTHS) - 1)]
        ax.plot(*region.ellipse.T, color=DATA, lw=0.8 * width, ls="--", label=None if k else "ellipses")
        _draw_line(ax, region, width, f"{100 * level:.3g} %")
    best = np.asarray([solution.y[solution.names.index(name)] for name in names])
    ax.plot(*best, "+", ms=9, mew=1.6, color=MODEL, label="best fit")
    _look_at(ax, found[-1], best)
    ax.set(**{f"{axis}label": _labelled(*what) for axis, what in zip("xy", zip(names, region.units, strict=True))})
    ax.legend(frameon=False, fontsize="small")
    return ax


def _draw_line(ax: "Axes", region: Region, width: float, label: str) -> None:
    """The line where the cost sets it solid, where a bound does dotted, where nothing does not at all."""
    line, bound, cut, mask = (np.asarray(x) for x in (region.line, region.on_bound, region.cut, region.mask))

    def part(kept: np.ndarray) -> np.ndarray:
        """The steps between two vertices that are kept, each with a gap behind it."""
        steps = np.stack([line[:-1], line[1:], np.full_like(line[1:], np.nan)], 1)
        return steps[kept & mask[1:]].reshape(-1, 2).T

    on_bound, open_ = bound[:-1] & bound[1:], cut[:-1] | cut[1:]
    ax.plot(*part(~on_bound & ~open_), color=MODEL, lw=width, label=label, solid_capstyle="round")
    ax.plot(*part(on_bound), color=MODEL, lw=width, ls=":")
    ax.plot(*line[region.failed].T, "x", ms=5, color=MODEL)


def _look_at(ax: "Axes", region: Region, best: np.ndarray) -> None:
    """All of the widest region, or as much of one without a limit as tells that it has none."""
    seen = np.concatenate([region.line[region.mask], region.ellipse])
    low, high = seen.min(0), seen.max(0)
    if region.cut.any():
        half = _VIEW * np.abs(region.ellipse - best).max(0)
        low, high = np.maximum(low, best - half), np.minimum(high, best + half)
    margin = 0.06 * (high - low)
    ax.set(xlim=(low[0] - margin[0], high[0] + margin[0]), ylim=(low[1] - margin[1], high[1] + margin[1]))


def _labelled(name: str, unit: str) -> str:
    """What stands on an axis."""
    return f"{name} ({unit})" if unit else name


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
