"""Pictures of a fit: each a function of a result, with an optional `ax`, which it returns.

matplotlib is imported inside the functions: `pip install 'jaxsci[plot]'`.
"""

from typing import TYPE_CHECKING, Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from .core import Dataset, Diagonal, White
from .fitting import Solution

if TYPE_CHECKING:
    from matplotlib.axes import Axes

DATA, MODEL, NEGATIVE = "#3b6ea8", "#d1495b", "#2b6cb0"
"""Colours of the data, of the model and positive correlation, and of negative correlation."""

_CURVE_POINTS = 400


def plot_fit(solution: Solution, data: Dataset, ax: "Axes | None" = None) -> "Axes":
    """The data with their error bars, and the fitted model.

    **Arguments:**

    - `solution`: of one fit, not of a batch.
    - `data`: the data set that was fitted. One input gives a curve over it; several, a plot over the row number.
    - `ax`: where to draw; a new figure by default.

    **Returns:** the axes.
    """
    ax = _axes(ax)
    x, observed, used = _abscissa(data), np.asarray(data.observed), np.asarray(data.mask)
    sigma = _sigma(data)
    ax.errorbar(
        x[used], observed[used], None if sigma is None else sigma[used], fmt="o", ms=_size(used), mew=0,
        color=DATA, ecolor=DATA, elinewidth=0.8, alpha=0.85, label="data", zorder=2,
    )  # fmt: skip
    grid, curve = _curve(solution.model, data, x[used])
    ax.plot(grid, curve, color=MODEL, lw=1.6, label=type(solution.model).__name__, zorder=3)
    ax.legend(frameon=False)
    return ax


def plot_residuals(solution: Solution, data: Dataset, ax: "Axes | None" = None) -> "Axes":
    """Residuals, model - observed, over the input: in units of sigma where the noise has a known scale.

    **Arguments:** as for `plot_fit`.

    **Returns:** the axes.
    """
    ax = _axes(ax)
    noise = data.noise if solution.noise is None else solution.noise
    known = solution.absolute
    shown = np.asarray(_residual(solution.model, data, noise if known else None))
    used = np.asarray(data.mask)
    ax.axhline(0.0, color=MODEL, lw=1.2, zorder=1)
    ax.plot(_abscissa(data)[used], shown[used], "o", ms=_size(used), mew=0, color=DATA, alpha=0.85, zorder=2)
    ax.set_ylabel("residual / \N{GREEK SMALL LETTER SIGMA}" if known else "residual")
    return ax


def plot_correlation(solution: Solution, ax: "Axes | None" = None) -> "Axes":
    """The correlation matrix of the free parameters; a crossed field where none is defined.

    **Arguments:** `solution`: of one fit; `ax`: where to draw, a new figure by default.

    **Returns:** the axes.
    """
    from matplotlib.colors import LinearSegmentedColormap, to_rgb

    ax = _axes(ax)
    matrix, names = _correlation(np.asarray(solution.covariance)), solution.names
    size = len(names)
    # Opacity carries the size, so that the picture sits on a light and on a dark page.
    ends = [(*to_rgb(NEGATIVE), 0.95), (*to_rgb(NEGATIVE), 0.0), (*to_rgb(MODEL), 0.0), (*to_rgb(MODEL), 0.95)]
    colours = LinearSegmentedColormap.from_list("correlation", list(zip((0.0, 0.5, 0.5, 1.0), ends, strict=True)))
    ax.pcolormesh(np.ma.masked_invalid(matrix), cmap=colours, vmin=-1, vmax=1, rasterized=size > 30)
    if size <= 10:
        for i, j in np.ndindex(size, size):
            value = float(matrix[i, j])
            label = ax.text(j + 0.5, i + 0.5, _short(value, i == j), ha="center", va="center", fontsize="small")
            if abs(value) > 0.6:
                label.set_color("white")
    every = max(size // 25, 1)
    ticks = np.arange(0, size, every)
    ax.set_xticks(ticks + 0.5, [names[k] for k in ticks], rotation=90 if max(map(len, names)) > 3 else 0)
    ax.set_yticks(ticks + 0.5, [names[k] for k in ticks])
    ax.tick_params(length=0)
    ax.set(aspect="equal", xlim=(0, size), ylim=(size, 0))
    return ax


def _short(value: float, diagonal: bool) -> str:
    """A correlation in few letters: `.97`, `-.03`, `.9998`; `1` on the diagonal only; a cross where there is none."""
    if not np.isfinite(value):
        return "\N{MULTIPLICATION SIGN}"
    if diagonal:
        return "1"
    digits = next((k for k in (2, 3, 4, 5) if round(abs(value), k) < 1), 6)
    return f"{value:.{digits}f}".replace("0.", ".").replace("-", "\N{MINUS SIGN}")


def _correlation(covariance: np.ndarray) -> np.ndarray:
    """nan where an error is zero or infinite; on the host, where no shape costs a compilation."""
    std = np.sqrt(np.diagonal(covariance))
    std = np.where((std > 0) & np.isfinite(std), std, np.nan)
    return covariance / np.outer(std, std)


def _axes(ax: "Axes | None") -> "Axes":
    if ax is not None:
        return ax
    import matplotlib.pyplot as plt

    return plt.subplots(layout="constrained")[1]


def _size(used: np.ndarray) -> float:
    """Marker size in points: smaller where there are many."""
    return float(np.clip(60 / np.sqrt(max(used.sum(), 1)), 1.5, 5.0))


def _abscissa(data: Dataset) -> np.ndarray:
    single = isinstance(data.inputs, jax.Array | np.ndarray) and data.inputs.ndim == 1
    return np.asarray(data.inputs) if single else np.arange(data.mask.shape[0])


@eqx.filter_jit
def _predict(model: Any, inputs: Any) -> Any:
    return model(inputs)


@eqx.filter_jit
def _residual(model: Any, data: Dataset, noise: Any) -> Any:
    residual = data.residual(model)
    return residual if noise is None else noise.standardise(residual, data.mask)


def _curve(model: Any, data: Dataset, used: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The model on a fine grid over its one input; at the data themselves where it has several."""
    if not (isinstance(data.inputs, jax.Array | np.ndarray) and data.inputs.ndim == 1) or used.size == 0:
        return _abscissa(data), np.asarray(_predict(model, data.inputs))
    grid = np.linspace(used.min(), used.max(), _CURVE_POINTS, dtype=data.inputs.dtype)
    return grid, np.asarray(_predict(model, jnp.asarray(grid)))


def _sigma(data: Dataset) -> np.ndarray | None:
    """The standard deviation of each row where the noise has one."""
    if isinstance(data.noise, White):
        return np.full(data.mask.shape, float(data.noise.sigma))
    return np.sqrt(np.asarray(data.noise.variance())) if isinstance(data.noise, Diagonal) else None
