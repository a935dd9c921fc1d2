"""Pictures of a fit: each a function of a result, with an optional `ax`, which it returns.

matplotlib is imported inside the functions: `pip install 'jaxsci[plot]'`.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import equinox as eqx
import jax
import jax.flatten_util as jfu
import jax.numpy as jnp
import numpy as np
from jaxtyping import ArrayLike

from .core import AbstractLikelihood, Diagonal, Inputs, Model, White, class_name, free_spec, opened
from .datasets import Dataset
from .fitting import Solution

if TYPE_CHECKING:
    from matplotlib.axes import Axes

DATA, MODEL, NEGATIVE = "#3b6ea8", "#d1495b", "#2b6cb0"
"""Colours of the data, of the model and positive correlation, and of negative correlation."""

LINES = ("#d98200", "#009e73", "#b0619a", "#5b8fb9", "#8a6d3b")
"""Colours of further lines, after Okabe and Ito: told apart by the colour-blind, and readable on dark pages."""

_CURVE_POINTS = 400
_LEGEND_DOT = 4.0  # points, at least
_MOST_POINTS = 2000  # more cannot be told apart in a figure, and make its file large


def plot_fit(solution: Solution, data: Dataset, ax: "Axes | None" = None, band: bool = True) -> "Axes":
    """The data with their error bars, and the fitted model with its 1-sigma band.

    The band is that of the model's value at each input, by the delta method: sqrt(diag(J C J^T)).

    **Arguments:**

    - `solution`: of one fit, not of a batch.
    - `data`: the data set that was fitted. One input gives a curve over it; several, a plot over the row number.
      Of many rows, every k-th is drawn.
    - `ax`: where to draw; a new figure by default. `band`: whether to draw the band.

    **Returns:** the axes.
    """
    ax = _axes(ax)
    x, observed, used = _abscissa(data), np.asarray(data.observed), _drawn(data)
    sigma = _sigma(data)
    ax.errorbar(
        x[used], observed[used], None if sigma is None else sigma[used], fmt="o", ms=_size(used), mew=0,
        color=DATA, ecolor=DATA, elinewidth=0.8, alpha=0.85, label="data", zorder=2,
    )  # fmt: skip
    grid, inputs = _grid(data, x[used])
    curve, std = (np.asarray(part) for part in _predict(solution, inputs))
    if band and np.isfinite(std).all():
        ax.fill_between(grid, curve - std, curve + std, color=MODEL, alpha=0.2, lw=0, zorder=2.5)
    ax.plot(grid, curve, color=MODEL, lw=1.6, label=class_name(solution.model), zorder=3)
    # the dots of very many rows are too small to be seen in a legend
    ax.legend(frameon=False, markerscale=max(_LEGEND_DOT / _size(used), 1.0))
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
    used = _drawn(data)
    ax.axhline(0.0, color=MODEL, lw=1.2, zorder=1)
    ax.plot(_abscissa(data)[used], shown[used], "o", ms=_size(used), mew=0, color=DATA, alpha=0.85, zorder=2)
    ax.set_ylabel("residual / \N{GREEK SMALL LETTER SIGMA}" if known else "residual")
    return ax


def plot_image(
    solution: Solution, data: Dataset, shape: tuple[int, int], what: str = "data", ax: "Axes | None" = None
) -> "Axes":
    """An image that was fitted pixel by pixel, its model, or the residuals; masked pixels are left empty.

    **Arguments:**

    - `solution`, `data`: as for `plot_fit`; `shape`: (height, width), with the rows of `data` in that order.
    - `what`: `"data"`, `"model"`, both on the colour scale of the data, or `"residual"`, in units of sigma.
    - `ax`: where to draw, a new figure by default.

    **Returns:** the axes.
    """
    ax = _axes(ax)
    observed = np.where(data.mask, data.observed, np.nan)
    if what == "residual":
        noise = data.noise if solution.noise is None else solution.noise
        known = noise if solution.absolute else None
        shown = np.asarray(_residual(solution.model, data, known))
        shown = np.where(data.mask, shown, np.nan)
        most = np.nanmax(np.abs(shown), initial=1e-300)
        scale: dict[str, Any] = {"cmap": _signed_colours(), "vmin": -most, "vmax": most}
    else:
        curve = _predict(solution, data.inputs)[0]
        shown = observed if what == "data" else np.asarray(curve)
        scale = {"cmap": "viridis", "vmin": np.nanmin(observed), "vmax": np.nanmax(observed)}
    picture = ax.imshow(shown.reshape(shape), origin="upper", interpolation="nearest", **scale)
    bar = ax.figure.colorbar(picture, ax=ax, shrink=0.72, pad=0.03)
    bar.outline.set_linewidth(0.4)  # type: ignore[operator]
    ax.set_title("residual / \N{GREEK SMALL LETTER SIGMA}" if what == "residual" and solution.absolute else what)
    return ax


def plot_histogram(values: ArrayLike, label: str = "", ax: "Axes | None" = None) -> "Axes":
    """How a quantity is distributed over a batch; far outliers are counted in the title and not drawn.

    **Arguments:** `values`: shape (members,), of which the finite ones count; `label`: the name of the quantity;
    `ax`: where to draw, a new figure by default.

    **Returns:** the axes.
    """
    ax = _axes(ax)
    values = np.asarray(values, float)
    values = values[np.isfinite(values)]
    if values.size:
        low, mid, high = np.quantile(values, [0.16, 0.5, 0.84])
        reach = 5 * max(high - low, 1e-12 * max(abs(mid), 1e-300))
        shown = values[np.abs(values - mid) <= reach]
        ax.hist(shown, bins=int(np.clip(np.sqrt(shown.size), 8, 60)), color=DATA, alpha=0.75, lw=0)
        ax.axvline(mid, color=MODEL, lw=1.2)
        outside = values.size - shown.size
        label = f"{label}: {outside} outside" if outside else label
    ax.set_title(label)
    ax.set_yticks([])
    ax.spines["left"].set_visible(False)
    ax.locator_params(axis="x", nbins=5)
    return ax


def plot_correlation(solution: Solution, ax: "Axes | None" = None) -> "Axes":
    """The correlation matrix of the free parameters; a crossed field where none is defined.

    **Arguments:** `solution`: of one fit; `ax`: where to draw, a new figure by default.

    **Returns:** the axes.
    """
    ax = _axes(ax)
    matrix, names = _correlation(np.asarray(solution.covariance)), solution.names
    size = len(names)
    ax.pcolormesh(np.ma.masked_invalid(matrix), cmap=_signed_colours(), vmin=-1, vmax=1, rasterized=size > 30)
    if size <= 10:
        for i, j in np.ndindex(size, size):
            value = float(matrix[i, j])
            size_ = "small" if size <= 5 else "x-small"
            label = ax.text(j + 0.5, i + 0.5, _short(value, i == j), ha="center", va="center", fontsize=size_)
            if abs(value) > 0.6:
                label.set_color("white")
    every = max(size // 25, 1)
    ticks = np.arange(0, size, every)
    labels = _last_words(names)
    ax.set_yticks(ticks + 0.5, [labels[k] for k in ticks])
    ax.set_xticks(ticks + 0.5, [labels[k] if max(map(len, labels)) <= 3 else "" for k in ticks])  # as the rows
    ax.tick_params(length=0)
    ax.set(aspect="equal", xlim=(0, size), ylim=(size, 0))
    return ax


def _signed_colours() -> Any:
    """Opacity carries the size, so that the picture sits on a light and on a dark page."""
    from matplotlib.colors import LinearSegmentedColormap, to_rgb

    ends = [(*to_rgb(NEGATIVE), 0.95), (*to_rgb(NEGATIVE), 0.0), (*to_rgb(MODEL), 0.0), (*to_rgb(MODEL), 0.95)]
    return LinearSegmentedColormap.from_list("signed", list(zip((0.0, 0.5, 0.5, 1.0), ends, strict=True)))


def _last_words(names: Sequence[str]) -> list[str]:
    """Dotted names without what stands before the last dot, where that tells them apart."""
    last = [name.rpartition(".")[2] for name in names]
    return last if len(set(last)) == len(last) else list(names)


def _short(value: float, diagonal: bool) -> str:
    """A correlation in few letters: `.97`, `-.03`, `.9998`; `1` on the diagonal only; a cross where there is none."""
    if not np.isfinite(value):
        return "\N{MULTIPLICATION SIGN}"
    if diagonal:
        return "1"
    if abs(value) < 0.005:
        return "0"
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
    return float(np.clip(60 / np.sqrt(max(used.size, 1)), 1.5, 5.0))


def _abscissa(data: Dataset) -> np.ndarray:
    single = isinstance(data.inputs, jax.Array | np.ndarray) and data.inputs.ndim == 1
    return np.asarray(data.inputs) if single else np.arange(data.mask.shape[0])


def _drawn(data: Dataset) -> np.ndarray:
    """Places of the rows to draw: those that the mask keeps, or every k-th of very many."""
    used = np.flatnonzero(data.mask)
    return used[:: max(-(-used.size // _MOST_POINTS), 1)]


@eqx.filter_jit
def _predict(solution: Solution, inputs: Inputs) -> tuple[jax.Array, jax.Array]:
    """The model, and the standard error of its value, at each input."""
    free, rest = eqx.partition(solution.fitted, free_spec(solution.fitted, [name for name, _ in solution.free]))
    y, unravel = jfu.ravel_pytree(free)

    def at(y: jax.Array) -> jax.Array:
        return opened(eqx.combine(unravel(y), rest)).model(inputs)

    jacobian = jax.jacfwd(at)(y)
    return at(y), jnp.sqrt(jnp.sum((jacobian @ solution.covariance) * jacobian, axis=1))


@eqx.filter_jit
def _residual(model: Model, data: Dataset, noise: AbstractLikelihood | None) -> jax.Array:
    residual = data.residual(model)
    return residual if noise is None else noise.standardise(residual, data.mask)


def _grid(data: Dataset, x: np.ndarray) -> tuple[np.ndarray, Any]:
    """(abscissa, inputs) for the curve: a fine grid over one input; the data themselves where there are several."""
    if not (isinstance(data.inputs, jax.Array | np.ndarray) and data.inputs.ndim == 1) or x.size == 0:
        return _abscissa(data), data.inputs
    grid = np.linspace(x.min(), x.max(), _CURVE_POINTS, dtype=data.inputs.dtype)
    return grid, jnp.asarray(grid)


def _sigma(data: Dataset) -> np.ndarray | None:
    """The standard deviation of each row where the noise has one."""
    if isinstance(data.noise, White):
        return np.full(data.mask.shape, float(data.noise.sigma))
    return np.sqrt(np.asarray(data.noise.variance())) if isinstance(data.noise, Diagonal) else None
