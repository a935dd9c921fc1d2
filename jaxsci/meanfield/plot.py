"""Pictures of ensembles, densities and games: each a function of a result, with an optional `ax`, which it returns.

A result is the `Evolution` of an ensemble, of which densities, moments or particles were kept, an `EvolvedDensity`, the
`DensityPath` of a solved Fokker-Planck equation, or the `Equilibrium` of a game. An evolution does not know the cells
of its densities, so it takes `grid=` beside. A user calls these functions one by one, and the reports of the command
line draw them. matplotlib is imported inside the functions: `pip install 'jaxsci[plot]'`.
"""

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from jaxtyping import Array

from ..evolution import Evolution, Snapshot, Statistics
from ..plot import DATA, MODEL, _axes
from ._boundary import Box, Grid
from ._density import Density
from ._finite_volume import DensityPath
from ._game import Equilibrium
from ._select import Choice, EvolvedDensity

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Result = Evolution | EvolvedDensity | DensityPath | Equilibrium
"""What has a density at several times."""

SPREADS = (0.5, 0.8, 0.95)
"""Shares of the ensemble between the edges of the bands of a fan."""

_SHADES = (0.5, 0.3, 0.15)  # of these bands
_FAINT = "#9aa3ad"
_COLOURS = "viridis"
_LIFT = 0.85  # of a ridge over the one before, in heights of the median ridge
_LEAST = 0.25  # the same in heights of the highest
_FEW = 8  # times between which nothing is drawn
_LONE = 1e-12  # below it a density is drawn as zero


class _Path(NamedTuple):
    """Densities over time as the host has them: ts (t,), values and error (t, *shape)."""

    ts: np.ndarray
    values: np.ndarray
    error: np.ndarray | None
    grid: Grid


def plot_density_ridge(
    result: Result,
    ax: "Axes | None" = None,
    *,
    grid: Grid | None = None,
    name: str = "density",
    reference: DensityPath | None = None,
    most: int = 6,
    axis: int | None = None,
) -> "Axes":
    """Draw densities on a line at several times, one above the other, the first at the bottom.

    A band shows two standard errors where they are known. A reference is drawn over the times that it has in common.

    **Arguments:** `ax`: a new figure by default. `grid`: the cells, for an `Evolution`. `name`: under which it keeps
    its density. `reference`: a solution of the same problem. `most`: so many times are drawn, evenly chosen. `axis`: of
    a density in more dimensions, the marginal on this axis is drawn, without errors, which cells share.

    **Returns:** the axes.

    **Raises:** `ValueError` for a density in more than one dimension, or without cells.
    """
    ax, path = _axes(ax), _path(result, grid, name, axis)
    known_path = None if reference is None else _path(reference, None, name, axis)
    x = _line(path)
    places = _chosen(path.ts, known_path, most)
    peaks = path.values[places].max(axis=1)
    lift = max(_LIFT * float(np.median(peaks)), _LEAST * float(peaks.max()))
    for row, place in enumerate(places):
        base, values, level = row * lift, path.values[place], 2 * len(places) - 2 * row
        ax.fill_between(x, base, base + values, color=DATA, alpha=0.16, lw=0, zorder=level)
        if path.error is not None:
            error = 2 * path.error[place]
            low, high = np.maximum(values - error, 0), values + error
            ax.fill_between(x, base + low, base + high, color=DATA, alpha=0.35, lw=0, zorder=level)
        ax.plot(x, base + values, color=DATA, lw=1.1, zorder=level, label="" if row else "density")
        known = None if known_path is None else _at(known_path, path.ts[place])
        if known is not None and known_path is not None:
            ax.plot(_line(known_path), base + known, color=MODEL, lw=1.1, ls=(0, (4, 2)), zorder=level + 0.5)
        label = f"t = {path.ts[place]:.3g}"
        ax.annotate(label, (1, base), xycoords=("axes fraction", "data"), xytext=(3, 0), textcoords="offset points")
    if reference is not None:
        ax.plot([], [], color=MODEL, lw=1.1, ls=(0, (4, 2)), label="reference")
        ax.legend(frameon=False, loc="upper left", handlelength=2.2)
    tallest = max(row * lift + peak for row, peak in enumerate(peaks))
    ax.set(xlim=_ends(path.grid, 0), ylim=(0, (1.3 if reference is not None else 1.06) * tallest))
    ax.set(xlabel=_letter(axis))
    ax.set_yticks([])
    ax.spines["left"].set_visible(False)
    return ax


def plot_density_map(
    result: Result,
    ax: "Axes | None" = None,
    *,
    grid: Grid | None = None,
    name: str = "density",
    axis: int | None = None,
) -> "Axes":
    """Draw the density on a line, or a marginal, as colours over time and place.

    **Arguments:** as of `plot_density_ridge`.

    **Returns:** the axes.
    """
    ax, path = _axes(ax), _path(result, grid, name, axis)
    _line(path)
    between = (path.ts[1:] + path.ts[:-1]) / 2
    edges = np.concatenate([path.ts[:1], between, path.ts[-1:]])
    places = np.asarray(path.grid.edges())
    mesh = ax.pcolormesh(edges, places, np.maximum(path.values, 0).T, cmap=_COLOURS, vmin=0, rasterized=True)
    _bar(ax, mesh, "density")
    ax.set(xlabel="t", ylabel=_letter(axis))
    return ax


def plot_fan(
    result: Result, ax: "Axes | None" = None, *, grid: Grid | None = None, name: str = "density", paths: int = 0
) -> "Axes":
    """Draw the median of an ensemble over time, and bands that hold half, 80 % and 95 % of it.

    Quantiles are those of the particles where `Snapshots` were kept under that name, and else those of the density.
    Of an ensemble that loses weight they are those of what is left.

    **Arguments:** as of `plot_density_ridge`; `paths`: so many single particles are drawn too, where they were kept.

    **Returns:** the axes.

    **Raises:** `ValueError` for more than one dimension.
    """
    ax = _axes(ax)
    levels = np.array([0.5, *((1 - share) / 2 for share in SPREADS), *((1 + share) / 2 for share in SPREADS)])
    kept = result.saved.get(name) if isinstance(result, Evolution) else None
    if not isinstance(result, Evolution) or not isinstance(kept, Snapshot):
        path = _path(result, grid, name)
        _line(path)
        ts, edges = path.ts, np.asarray(path.grid.edges())
        found = np.stack([_quantiles_of_density(row, edges, levels) for row in path.values])
    else:
        ts, x, weights = np.asarray(result.ts), np.asarray(kept.positions), np.asarray(kept.weights)
        if x.shape[2] != 1:
            raise ValueError(f"a fan is drawn of particles on a line, but these have {x.shape[2]} coordinates")
        found = np.stack([_quantiles(row[:, 0], w, levels) for row, w in zip(x, weights, strict=True)])
        ax.plot(ts, x[:, :paths, 0], color=_FAINT, lw=0.5, alpha=0.8, zorder=1)
    n = len(SPREADS)
    low, high = found[:, 1 : n + 1], found[:, n + 1 :]
    ax.plot(ts, found[:, 0], color=DATA, lw=1.4, label="median", zorder=3)
    for k, (share, alpha) in enumerate(zip(SPREADS, _SHADES, strict=True)):
        # strips beside each other, so that the legend has the colours of the picture
        for edge, inner in ((low, low[:, k - 1]), (high, high[:, k - 1])) if k else ((low, high[:, 0]),):
            label = "" if edge is high else f"{100 * share:.0f} %"
            ax.fill_between(ts, edge[:, k], inner, color=DATA, alpha=alpha, lw=0, label=label, zorder=2)
    ax.set(xlim=(ts[0], ts[-1]), xlabel="t", ylabel="x")
    outside: dict[str, Any] = {"loc": "lower left", "bbox_to_anchor": (0, 1), "borderaxespad": 0.2}
    ax.legend(frameon=False, fontsize="small", ncols=n + 1, handlelength=1.1, columnspacing=1.0, **outside)
    return ax


def plot_game(equilibrium: Equilibrium, ax: "Axes | None" = None, *, label: str = "", colour: str = DATA) -> "Axes":
    """Draw how the search for an equilibrium went: the undamped residual |T(m) - m| of each map, and what was asked.

    **Arguments:** `ax`: a new figure by default; given again, another search is drawn beside the first. `label`,
    `colour`: of this one.

    **Returns:** the axes.
    """
    first = ax is None or not ax.lines
    ax = _axes(ax)
    residuals, maps, tol = np.asarray(equilibrium.residuals), int(equilibrium.maps), float(equilibrium.tol)
    count = np.arange(1, residuals.size + 1)[:maps]
    ax.semilogy(count, residuals[:maps], "o-", color=colour, ms=3.2, lw=1.1, label=label)
    if first:
        ax.axhline(tol, color=MODEL, lw=1.0, ls=(0, (4, 2)))
        ax.annotate(f"asked for: {tol:.0e}", (0, tol), xycoords=("axes fraction", "data"), xytext=(3, 3),
                    textcoords="offset points", color=MODEL)  # fmt: skip
        ax.set(xlabel="map", ylabel="largest |T(m) \N{MINUS SIGN} m|")
        ax.locator_params(axis="x", integer=True)
    if label:
        ax.legend(frameon=False)
    return ax


def plot_density_2d(
    result: Result,
    ax: "Axes | None" = None,
    *,
    grid: Grid | None = None,
    name: str = "density",
    at: int = -1,
    limit: float | None = None,
    bar: bool = True,
) -> "Axes":
    """Draw the density on a plane at one time, as colours.

    **Arguments:** as of `plot_density_ridge`; `at`: the place of the time in `result.ts`, the last by default. `limit`:
    of the colours, the largest value by default. `bar`: whether to draw the scale of the colours.

    **Returns:** the axes.

    **Raises:** `ValueError` for a density in another number of dimensions.
    """
    ax, path = _axes(ax), _path(result, grid, name)
    if path.values.ndim != 3:
        raise ValueError(f"a density on a plane is wanted, but this has {path.values.ndim - 1} dimensions")
    most = float(path.values[at].max()) if limit is None else limit
    sides = np.asarray(path.grid.edges(0)), np.asarray(path.grid.edges(1))
    values = np.maximum(path.values[at], 0).T
    mesh = ax.pcolormesh(*sides, values, cmap=_COLOURS, vmin=0, vmax=max(most, _LONE), rasterized=True)
    if bar:
        _bar(ax, mesh, "density")
    ax.set(aspect="equal", xlabel="x", ylabel="y")
    ax.set_title(f"t = {path.ts[at]:.3g}")
    return ax


def plot_survival(
    result: Evolution | EvolvedDensity | DensityPath,
    ax: "Axes | None" = None,
    *,
    name: str = "moments",
    reference: DensityPath | None = None,
) -> "Axes":
    """Draw how much of the ensemble is still there over time, as a share of what there was.

    **Arguments:** `ax`: a new figure by default. `name`: under which an evolution keeps its moments or density.
    `reference`: a solution of the same problem.

    **Returns:** the axes.

    **Raises:** `ValueError` where an evolution keeps neither moments nor a density under that name.
    """
    ax = _axes(ax)
    ts, mass = _mass(result, name)
    if reference is not None:
        known = _mass(reference, name)
        few: dict[str, Any] = {"marker": "s", "ms": 5, "ls": "", "mfc": "none", "clip_on": False}
        style = few if known[0].size < _FEW else {"ls": (0, (4, 2))}
        ax.plot(*known, color=MODEL, lw=1.2, label="reference", zorder=3, **style)
    ax.plot(ts, mass, "o-", color=DATA, ms=3.2, lw=1.1, label="particles" if isinstance(result, Evolution) else "")
    ax.set(xlim=(ts[0], ts[-1]), ylim=(0, 1.05), xlabel="t", ylabel="share that is left")
    if reference is not None:
        ax.legend(frameon=False)
    return ax


def plot_choice(choice: Choice, ax: "Axes | None" = None) -> "Axes":
    """Draw what was measured before a method was chosen: how long each would take, its error, and why it was not taken.

    **Arguments:** `choice`: of `choose`, or of an `EvolvedDensity`; one that was not asked for has nothing to show.
    `ax`: a new figure by default.

    **Returns:** the axes.
    """
    ax = _axes(ax)
    rows, labels = choice.candidates, []
    for k, row in enumerate(rows):
        timed, taken = np.isfinite(row.seconds), row.method == choice.method
        if timed:
            ax.barh(k, row.seconds, color=DATA, alpha=0.8 if taken else 0.3, height=0.55)
            place: dict[str, Any] = {"xytext": (4, 0), "textcoords": "offset points", "va": "center"}
            ax.annotate(f"{row.seconds:.2g} s", (row.seconds, k), **place)
        slower = "slower" if row.error <= choice.limit else "not accurate enough"
        why = "taken" if taken else row.why or slower
        labels.append(
            f"{row.method}: {why}\n" + (f"error {row.error:.1e}" if np.isfinite(row.error) else "error not known")
        )
    seconds = np.array([row.seconds for row in rows if np.isfinite(row.seconds)], float)
    if seconds.size:
        ax.set_xscale("log")
        ax.set_xlim(seconds.min() / 3, seconds.max() * (3 * seconds.max() / seconds.min()) ** 0.15)
    ax.set_yticks(range(len(rows)), labels)
    ax.set(xlabel="seconds of the whole run, as measured", ylim=(len(rows) - 0.4, -0.6))
    ax.tick_params(axis="y", length=0)
    ax.spines["left"].set_visible(False)
    if not rows:
        ax.set_title(f"{choice.method}, as asked for: nothing was measured")
    return ax


def _letter(axis: int | None) -> str:
    """The name of an axis."""
    return "x" if axis is None else "xyz"[axis] if axis < 3 else f"x{axis}"


def _chosen(ts: np.ndarray, reference: _Path | None, most: int) -> np.ndarray:
    """Places of the times to draw: of those that a reference has, where it has two or more; else of all."""
    places = np.arange(ts.size)
    if reference is not None:
        common = np.array([k for k in places if _at(reference, ts[k]) is not None], int)
        places = np.union1d([0], common) if common.size > 1 else places
    return places[np.unique(np.linspace(0, places.size - 1, min(most, places.size)).round().astype(int))]


def _path(result: Result, grid: Grid | None, name: str, axis: int | None = None) -> _Path:
    """The densities of a result, on the host, or their marginals on an axis."""
    path = _whole_path(result, grid, name)
    return path if axis is None or path.grid.box.d == 1 else _marginal(path, axis)


def _marginal(path: _Path, axis: int) -> _Path:
    """The integral over all other axes. Its errors are not known, because those of cells go together."""
    box, d = path.grid.box, path.grid.box.d
    if not 0 <= axis < d:
        raise ValueError(f"axis should be one of 0 to {d - 1}, not {axis}")
    others = [k for k in range(d) if k != axis]
    volume = float(np.prod(np.asarray(path.grid.step)[others]))
    line = Grid(Box(box.lower[axis], box.upper[axis], [box.walls_of_axes[axis]]), path.grid.shape[axis])
    return _Path(path.ts, path.values.sum(axis=tuple(k + 1 for k in others)) * volume, None, line)


def _whole_path(result: Result, grid: Grid | None, name: str) -> _Path:
    if not isinstance(result, Evolution):
        error = result.standard_error if isinstance(result, EvolvedDensity) else None
        known = None if error is None else np.asarray(error)
        return _Path(np.asarray(result.ts), np.asarray(result.density), known, result.grid if grid is None else grid)
    if name not in result.saved:
        raise ValueError(f"nothing was kept as {name!r} ({', '.join(result.saved)}): see evolve(..., save=)")
    kept = result[name]
    if not isinstance(kept, Density):
        raise ValueError(f"{name!r} is no density but {type(kept).__name__}: give name= of one that was kept")
    if grid is None:
        raise ValueError("an evolution does not know the cells of its densities: give grid=")
    return _Path(np.asarray(result.ts), np.asarray(kept.values), np.asarray(kept.standard_error), grid)


def _line(path: _Path) -> np.ndarray:
    """The centres of the cells of a line."""
    if path.values.ndim != 2:
        raise ValueError(
            f"a density on a line is wanted, but this has {path.values.ndim - 1} dimensions: give axis= where a "
            "marginal can be drawn"
        )
    return np.asarray(path.grid.centres())


def _ends(grid: Grid, axis: int) -> tuple[float, float]:
    return float(grid.box.lower[axis]), float(grid.box.upper[axis])


def _at(reference: _Path, t: float) -> np.ndarray | None:
    """The reference at a time, where it has one."""
    ts = reference.ts
    place = int(np.argmin(np.abs(ts - t)))
    near = abs(ts[place] - t) <= 1e-6 * max(np.ptp(ts), abs(t), 1e-300)
    return reference.values[place] if near else None


def _bar(ax: "Axes", mesh: object, label: str) -> None:
    bar = ax.figure.colorbar(mesh, ax=ax, shrink=0.9, pad=0.03, label=label)  # type: ignore[arg-type]
    bar.outline.set_linewidth(0.4)  # type: ignore[operator]
    bar.ax.locator_params(nbins=5)


def _mass(result: Evolution | EvolvedDensity | DensityPath, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Times and masses, as shares of the first."""
    if not isinstance(result, Evolution):
        return np.asarray(result.ts), np.asarray(result.mass)
    kept = result.saved.get(name)
    if not isinstance(kept, Statistics | Density):
        raise ValueError(f"{name!r} has no mass: keep Moments() or a density by evolve(..., save=)")
    mass: Array = kept.mass
    return np.asarray(result.ts), np.asarray(mass / mass[0])


def _quantiles_of_density(values: np.ndarray, edges: np.ndarray, levels: np.ndarray) -> np.ndarray:
    """Places below which these shares of the mass are, linear within cells; nan where there is none."""
    below = np.concatenate([[0.0], np.cumsum(np.maximum(values, 0) * np.diff(edges))])
    if not below[-1] > 0:
        return np.full(levels.shape, np.nan)
    return np.interp(levels * below[-1], below, edges)


def _quantiles(x: np.ndarray, weights: np.ndarray, levels: np.ndarray) -> np.ndarray:
    """The same of particles with weights."""
    order = np.argsort(x)
    below = np.cumsum(weights[order])
    if not below[-1] > 0:
        return np.full(levels.shape, np.nan)
    return x[order][np.minimum(np.searchsorted(below, levels * below[-1]), x.size - 1)]
