"""Pictures of a detector and of what it saw, each a function with an `ax`: maps, masks, partitions, scattering, g2.

A user calls them one by one to look at a mask before it is used, and the reports of the command line draw them. Rows
count down, as the detector's do, and masked pixels are left white. matplotlib is imported inside the functions:
`pip install 'jaxsci[plot]'`.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import jax.numpy as jnp
import numpy as np

from ..core import AnyArray
from ..fitting import Solution, format_pm
from ..plot import DATA, MODEL, _axes
from ..sampling import Posterior
from ._geometry import ANGLES, AbstractGeometry, cached_map
from ._global import Curves, Dispersion
from ._partition import Labels, Partition
from ._result import TwoTimeMaps
from ._saxs import Curve

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_COLOURS = "viridis"
_ROUND = "twilight"  # of angles, whose ends are one
_LINES = ("#3b6ea8", "#c9702b", "#3f8f5f", "#8a5aa8", "#b04a5a", "#5f6f7f")
_HIDDEN = "#d1495b"
_FINE = 1400  # pixels along a side that a figure can show; of more, every k-th is drawn
_POINTS = 200  # of a fitted curve
_DRAWS = 400  # of a posterior, of which a band is made
_UNITS = {"q": "1/Å", "qx": "1/Å", "qy": "1/Å", "qz": "1/Å", "qr": "1/Å", "x": "pixel", "y": "pixel"}


def plot_map(
    geometry: AbstractGeometry, name: str = "q", ax: "Axes | None" = None, *, used: AnyArray | None = None
) -> "Axes":
    """Draw a map of a geometry, with lines of equal value and a cross where the beam arrives.

    **Arguments:** `name`: of the map. `ax`: a new figure by default. `used`: pixels where this is False are left white.

    **Returns:** the axes.
    """
    ax, values = _axes(ax), np.asarray(cached_map(geometry, name))
    shown = values if used is None else np.where(used, values, np.nan)
    angle = name in ANGLES
    mesh = _picture(ax, shown, _ROUND if angle else _COLOURS, (-180.0, 180.0) if angle else None)
    if np.ptp(values) > 0 and not angle:
        ax.contour(values, levels=6, colors="white", linewidths=0.6, alpha=0.7)
    row, column = np.asarray(geometry.beam)
    if -0.5 <= row <= values.shape[0] - 0.5 and -0.5 <= column <= values.shape[1] - 0.5:
        ax.plot(column, row, "+", color=MODEL, ms=9, mew=1.4)
    _bar(
        ax,
        mesh,
        f"{name.replace('_', ' ')} ({_UNITS.get(name, 'degrees')})",
        (-180.0, -90.0, 0.0, 90.0, 180.0) if angle else (),
    )
    return ax


def plot_mask(used: AnyArray, image: AnyArray | None = None, ax: "Axes | None" = None) -> "Axes":
    """Draw which pixels are used: the others in red, over the image where there is one.

    **Arguments:** `used`: True for pixels that are used, such as what `history.evaluate(view)` gives. `image`: what the
    detector saw. `ax`: a new figure by default.

    **Returns:** the axes.
    """
    from matplotlib.colors import ListedColormap

    ax, used = _axes(ax), np.asarray(used) != 0
    if image is None:
        _picture(ax, np.where(used, 0.0, np.nan), ListedColormap(["#e8edf2"]), (0.0, 1.0))
    else:
        mesh = _picture(ax, _logarithm(np.where(used, np.asarray(image, float), np.nan)), _COLOURS, None)
        _bar(ax, mesh, "log10 intensity")
    _picture(ax, np.where(used, np.nan, 1.0), ListedColormap([_HIDDEN]), (0.0, 1.0))
    ax.set_title(f"{100 * used.mean():.3g} % of the pixels are used", fontsize="medium")
    return ax


def plot_labels(labels: Labels | Partition | AnyArray, ax: "Axes | None" = None) -> "Axes":
    """Draw the bins of a partition; neighbours have different shades, masked pixels are white.

    **Arguments:** `labels`: of a partition, of which the dynamic bins are drawn, or an array, 0 for a masked pixel.
    `ax`: a new figure by default.

    **Returns:** the axes.
    """
    if isinstance(labels, Partition):
        labels = labels.dynamic
    ax, values = _axes(ax), np.asarray(labels.labels if isinstance(labels, Labels) else labels)
    bins = int(values.max(initial=0))
    shade = np.concatenate([[np.nan], _shades(labels, bins)])
    _picture(ax, shade[values], _COLOURS, (0.0, 1.0))
    ax.set_title(f"{bins} bins", fontsize="medium")
    return ax


def plot_image(image: AnyArray, ax: "Axes | None" = None, *, used: AnyArray | None = None) -> "Axes":
    """Draw scattering on the detector, as the logarithm of the intensity.

    **Arguments:** `image`: NaN is left white, as are pixels at or below zero. `ax`: a new figure by default. `used`:
    pixels where this is False are left white.

    **Returns:** the axes.
    """
    ax, image = _axes(ax), np.asarray(image, float)
    shown = image if used is None else np.where(used, image, np.nan)
    _bar(ax, _picture(ax, _logarithm(shown), _COLOURS, None), "log10 intensity")
    return ax


def plot_saxs(curves: Curve | Mapping[str, Curve], ax: "Axes | None" = None) -> "Axes":
    """Draw one scattering curve or several, with their errors: along q with logarithmic axes, along an angle without.

    **Arguments:** `curves`: one, or several by the names that the legend gives them. `ax`: a new figure by default.

    **Returns:** the axes.
    """
    ax, named = _axes(ax), {"": curves} if isinstance(curves, Curve) else dict(curves)
    for (label, curve), colour in zip(named.items(), _LINES * len(named), strict=False):
        x, y, error = (np.asarray(part) for part in (curve.x, curve.intensity, curve.error))
        good = np.isfinite(y)
        bars = np.where(np.isfinite(error), error, 0)[good]
        ax.errorbar(x[good], y[good], bars, fmt="o-", ms=2.6, mew=0, lw=0.8, elinewidth=0.7, color=colour, label=label)
    first = next(iter(named.values()))
    angle = first.name in ANGLES
    ax.set(
        xlabel=f"{first.name} ({_UNITS.get(first.name, 'degrees')})",
        ylabel="intensity",
        xscale="linear" if angle else "log",
        yscale="linear" if angle else "log",
    )
    if angle:
        ax.set_xticks(np.arange(-180, 181, 90))
    else:
        plain_ticks(ax)
    if "" not in named:
        ax.legend(frameon=False)
    return ax


def plot_intensity(
    intensity: AnyArray, step: float = 1.0, ax: "Axes | None" = None, *, segments: int = 0, unit: str = "s"
) -> "Axes":
    """Draw the intensity of each frame against time, and the means of segments over it.

    **Arguments:** `intensity`: shape (frames,). `step`: the time between frames. `ax`: a new figure by default.
    `segments`: over how many the mean is drawn; none by default. `unit`: of the step.

    **Returns:** the axes.
    """
    ax, values = _axes(ax), np.asarray(intensity, float)
    ax.plot(step * np.arange(values.size), values, color=DATA, lw=0.7, alpha=0.8)
    for part in np.array_split(np.arange(values.size), segments) if segments else []:
        ax.plot(step * part[[0, -1]], [np.nanmean(values[part])] * 2, color=MODEL, lw=2.0)
    ax.set(xlabel=f"time ({unit})", ylabel="mean intensity")
    return ax


def _picture(ax: "Axes", values: np.ndarray, colours: object, limits: tuple[float, float] | None) -> object:
    """An image with a pixel's centre at its whole numbers; of very many pixels, every k-th."""
    rows, columns = values.shape
    thin = max(-(-max(values.shape) // _FINE), 1)
    low, high = limits or (None, None)
    extent = (-0.5, columns - 0.5, rows - 0.5, -0.5)
    shown = values[::thin, ::thin]
    look: dict[str, Any] = {"cmap": colours, "vmin": low, "vmax": high, "interpolation": "nearest"}
    mesh = ax.imshow(shown, extent=extent, **look)
    ax.set(xlabel="column", ylabel="row")
    ax.locator_params(nbins=4)
    return mesh


def _shades(labels: Labels | AnyArray, bins: int) -> np.ndarray:
    """A chessboard over both axes of a partition, so that neighbours differ; of labels alone, shades at random."""
    if not isinstance(labels, Labels):
        return np.random.default_rng(0).permutation(bins) / max(bins - 1, 1)
    first, second = np.divmod(np.asarray(labels.index), labels.shape[1])
    return 0.45 * ((first + second) % 2) + 0.5 * first / max(labels.shape[0] - 1, 1)


def _logarithm(image: np.ndarray) -> np.ndarray:
    """log10; what is not above zero has none."""
    return np.log10(np.where(image > 0, image, np.nan))


def _bar(ax: "Axes", mesh: object, label: str, ticks: Sequence[float] = ()) -> None:
    bar = ax.figure.colorbar(mesh, ax=ax, shrink=0.85, pad=0.03, label=label)  # type: ignore[arg-type]
    bar.outline.set_linewidth(0.4)  # type: ignore[operator]
    if ticks:
        bar.set_ticks(ticks)  # type: ignore[arg-type]
    else:
        bar.ax.locator_params(nbins=5)


# --- correlation ---------------------------------------------------------------------------------------------------


def plot_g2(
    curves: Curves,
    column: int,
    ax: "Axes | None" = None,
    *,
    fit: Solution | None = None,
    posterior: Posterior | None = None,
) -> "Axes":
    """One g2 with its errors over the delay, the fitted curve, and the 95 % band of its posterior.

    **Arguments:**

    - `curves`: of a measurement; `column`: the q-bin. Masked points are left out.
    - `ax`: where to draw; a new figure by default.
    - `fit`: of this bin, as a member of what `fit_g2` returned. `posterior`: of this bin, as a member of what
      `jaxsci.sample` returned.

    **Returns:** the axes.
    """
    ax = _axes(ax)
    used = np.asarray(curves.mask)[:, column] & (np.asarray(curves.t) > 0)
    t, g2 = np.asarray(curves.t)[used], np.asarray(curves.g2)[used, column]
    bars = None if curves.sigma is None else np.asarray(curves.sigma)[used, column]
    ax.errorbar(t, g2, bars, fmt="o", ms=2.8, mew=0, color=DATA, elinewidth=0.7, alpha=0.85, label="g2", zorder=2)
    grid = np.geomspace(t.min(), t.max(), _POINTS) if t.size > 1 else t
    if posterior is not None and t.size:
        drawn = posterior.predict(lambda model: model(jnp.asarray(grid)), most=_DRAWS)
        low, high = np.quantile(np.asarray(drawn), [0.025, 0.975], axis=0)
        ax.fill_between(grid, low, high, color=MODEL, alpha=0.25, lw=0, label="95 % of the posterior", zorder=2.5)
    if fit is not None and t.size:
        ax.plot(grid, np.asarray(fit.model(jnp.asarray(grid))), color=MODEL, lw=1.4, label="fit", zorder=3)
    ax.set(xscale="log", xlabel="delay (s)", ylabel="g2")
    ax.set_title(f"q = {float(curves.q[column]):.4g} 1/Å")
    return ax


def plot_dispersion(law: Dispersion, ax: "Axes | None" = None, *, label: str = "tau", colour: str = DATA) -> "Axes":
    """A parameter of the fits over q with its errors, and the fitted power law with its 1-sigma band.

    **Arguments:** `law`: what `fit_power_law` returned; `ax`: where to draw; `label`: of the parameter.

    **Returns:** the axes.
    """
    ax = _axes(ax)
    q, value = np.asarray(law.data.inputs), np.exp(np.asarray(law.data.observed))
    error = value * np.sqrt(np.exp(np.asarray(law.noise.log_variance(law.data.mask))))
    ax.errorbar(q, value, error, fmt="o", ms=3.2, mew=0, color=colour, elinewidth=0.8, label=label, zorder=2)
    grid = np.geomspace(q.min(), q.max(), _POINTS)
    found, covariance = law.solution.propagate(lambda model: model(jnp.asarray(grid)))
    log, std = np.asarray(found), np.sqrt(np.diagonal(np.asarray(covariance)))
    if np.isfinite(std).all():
        ax.fill_between(grid, np.exp(log - std), np.exp(log + std), color=MODEL, alpha=0.2, lw=0)
    slope, sigma = float(law.solution.values["slope"]), float(law.solution.std["slope"])
    told = " ± ".join(format_pm(slope, sigma))
    ax.plot(grid, np.exp(log), color=MODEL, lw=1.4, label=f"q^({told})")
    ax.set(xscale="log", yscale="log", xlabel="q (1/Å)", ylabel=label)
    plain_ticks(ax)
    ax.legend(frameon=False, fontsize="small")
    return ax


def plain_ticks(ax: "Axes") -> None:
    """Label a logarithmic axis of q, which often spans less than a decade, at 1, 2 and 5 of each decade."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    ax.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
    ax.xaxis.set_minor_formatter(NullFormatter())


def plot_two_time(two: TwoTimeMaps, place: int = 0, ax: "Axes | None" = None) -> "Axes":
    """A two-time correlation matrix over the two times in s; the colour scale leaves out the diagonal and the extremes.

    **Arguments:** `two`: the matrices of a measurement; `place`: which of them, from 0; `ax`: where to draw.

    **Returns:** the axes.
    """
    ax = _axes(ax)
    matrix = np.asarray(two.maps[place])
    off = matrix[~np.eye(len(matrix), dtype=bool)]
    low, high = np.nanpercentile(off, [0.5, 99.5]) if np.isfinite(off).any() else (0.0, 1.0)
    end = float(two.frame_time) * len(matrix)
    image = ax.imshow(
        matrix, origin="lower", extent=(0, end, 0, end), vmin=low, vmax=high, cmap="viridis", interpolation="nearest"
    )
    _bar(ax, image, "C(t1, t2)")
    ax.set(xlabel="t1 (s)", ylabel="t2 (s)")
    ax.set_title(f"bin {int(two.bins[place])}")
    return ax
