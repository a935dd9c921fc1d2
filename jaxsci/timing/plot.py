"""Pictures of timing: each draws on an optional `ax`, which it returns.

They show what pulsar timers look at first: residuals over time or orbital phase, whitened residuals, the steps of the
dispersion measure, and chi2 over two parameters. Runs draw them into their report. matplotlib is imported inside the
functions: `pip install 'jaxsci[plot]'`.
"""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from ..plot import DATA, MODEL, _axes
from ._anchor import lay_out
from ._binary.from_par import epoch_of_orbit
from ._components import windows
from ._fit import TimingSolution, residuals
from ._model import TimingModel
from ._residuals.averages import EpochAverages, averages
from ._residuals.realisation import NoiseRealisation, noise_realisation
from ._residuals.whitened import ordered, whitened
from ._toas import TOAs

if TYPE_CHECKING:
    from matplotlib.axes import Axes

RECEIVERS = (DATA, MODEL, "#c98a1b", "#4c9a6a", "#8a63b5", "#2a9d9d")
"""Colours of receivers, or of bands where TOAs have no flags; as many as are told apart on light and dark pages."""

_LEVELS = (2.296, 6.180, 11.829)
"""Delta chi2 of two parameters within which 68.3 %, 95.4 % and 99.7 % lie."""

_EDGE = "#17406d"
_FINE = 200  # points of each axis through which lines of equal chi2 are drawn
_FARTHEST = 8.0  # of the root of the excess of chi2: all beyond has the same colour
_MANY = 800
_PROCESSES = {"red": "red", "dm": "dispersion", "chromatic": "chromatic", "wind": "solar wind", "ecorr": "jitter"}
_SCALES = ((1e-6, "\N{MICRO SIGN}s"), (1e-3, "ms"), (1.0, "s"))


def plot_residuals(
    model: TimingModel | TimingSolution,
    toas: TOAs,
    ax: "Axes | None" = None,
    *,
    over: str = "time",
    residual: ArrayLike | None = None,
    sigma: ArrayLike | None = None,
) -> "Axes":
    """Timing residuals with their errors, in a colour for each receiver.

    **Arguments:**

    - `model`: a model or a solution; `toas`: its TOAs.
    - `ax`: where to draw; a new figure by default.
    - `over`: `"time"`, or `"phase"` of the orbit, from periastron or the ascending node.
    - `residual`, `sigma`: of each TOA, s, where they are known already.

    **Returns:** the axes.

    **Raises:** `ValueError` for the orbital phase of a pulsar without a companion.
    """
    ax = _axes(ax)
    model = _model(model)
    values = np.asarray(residuals(model, toas) if residual is None else residual)
    errors = _sigma(model, toas) if sigma is None else np.asarray(sigma)
    scale, unit = _scale(values)
    x = orbital_phase(model, toas) if over == "phase" else np.asarray(toas.utc)
    _by_receiver(ax, model, toas, x, values / scale, errors / scale)
    ax.set_xlabel("orbital phase" if over == "phase" else "MJD")
    ax.set_ylabel(f"residual ({unit})")
    return ax


def plot_whitened(
    model: TimingModel | TimingSolution, toas: TOAs, ax: "Axes | None" = None, *, values: ArrayLike | None = None
) -> "Axes":
    """Residuals less their correlated noise, in units of sigma, as `timing.whitened` gives them.

    **Arguments:** as for `plot_residuals`; `values`: of each TOA, where they are known already.

    **Returns:** the axes.
    """
    ax = _axes(ax)
    white = np.asarray(whitened(model, toas) if values is None else values)
    _by_receiver(ax, _model(model), toas, np.asarray(toas.utc), white, None)
    ax.set_xlabel("MJD")
    ax.set_ylabel("whitened residual / \N{GREEK SMALL LETTER SIGMA}")
    return ax


def plot_averages(
    model: TimingModel | TimingSolution, toas: TOAs, ax: "Axes | None" = None, *, values: EpochAverages | None = None
) -> "Axes":
    """Residuals averaged within epochs, as `timing.averages` gives them, in a colour for each receiver.

    **Arguments:** as for `plot_residuals`; `values`: the averages, where they are known already.

    **Returns:** the axes.
    """
    ax = _axes(ax)
    found = averages(model, toas) if values is None else values
    mean, sigma = np.asarray(found.residual), np.asarray(found.sigma)
    scale, unit = _scale(mean)
    first = np.unique(np.asarray(found.epoch), return_index=True)[1]
    _by_receiver(ax, _model(model), toas, np.asarray(found.mjd), mean / scale, sigma / scale, first)
    ax.set_xlabel("MJD")
    ax.set_ylabel(f"residual ({unit})")
    return ax


def plot_noise(
    model: TimingModel | TimingSolution, toas: TOAs, ax: "Axes | None" = None, *, values: NoiseRealisation | None = None
) -> "Axes":
    """The most probable realisation of each process of correlated noise, with its error, at the TOAs.

    **Arguments:** as for `plot_residuals`; `values`: what `timing.noise_realisation` gives, where it is known already.

    **Returns:** the axes.

    **Raises:** `ValueError` where all noise is white.
    """
    found = noise_realisation(model, toas) if values is None else values
    parts = found.parts
    if not parts:
        raise ValueError("all noise of this pulsar is white: its par file has no red noise, no noise of DM, no ECORR")
    ax = _axes(ax)
    days = np.asarray(toas.utc)
    order = np.argsort(days, kind="stable")
    scale, unit = _scale(np.concatenate([np.asarray(part.value) for part in parts.values()]))
    for (name, part), color in zip(parts.items(), RECEIVERS, strict=False):
        value, std = np.asarray(part.value)[order] / scale, np.asarray(part.std)[order] / scale
        if name == "red":  # a course in time; the others differ from TOA to TOA
            ax.fill_between(days[order], value - std, value + std, color=color, alpha=0.3, lw=0)
            ax.plot(days[order], value, color=color, lw=1.2, label=_PROCESSES[name])
        else:
            ax.errorbar(
                days[order], value, std, fmt="o", ms=2, mew=0, color=color, elinewidth=0.3, alpha=0.5,
                label=_PROCESSES[name], rasterized=len(days) > _MANY,
            )  # fmt: skip
    ax.axhline(0.0, color="#9aa3ad", lw=0.8, zorder=1)
    ax.set_xlabel("MJD")
    ax.set_ylabel(f"noise ({unit})")
    ax.legend(frameon=False, fontsize="small")
    return ax


def _scale(values: np.ndarray) -> tuple[float, str]:
    """The unit in which a range of seconds has few digits, and its name."""
    return next((s, u) for s, u in _SCALES if np.ptp(values) < 2e3 * s or s == 1.0)


def plot_dmx(solution: TimingSolution, ax: "Axes | None" = None) -> "Axes":
    """Steps of the dispersion measure over time, less their mean, with errors where they were fitted.

    The errors are those of the differences from the mean: the level itself may be known far worse, or not at all.

    **Arguments:** `solution`: of a model with DMX; `ax`: where to draw, a new figure by default.

    **Returns:** the axes.

    **Raises:** `ValueError` for a model without DMX.
    """
    par = solution.start.par
    names = () if par is None else windows(par)
    if par is None or not names:
        raise ValueError("this pulsar's par file has no DMX")
    ax = _axes(ax)
    ends = np.array([[float(par.value(n.replace("DMX_", f"DMXR{k}_"))) for k in (1, 2)] for n in names])
    fitted = solution.values
    values = np.array([fitted.get(n, float(par.value(n))) for n in names])
    places = {name: place for name, place in zip(solution.names, solution.places, strict=True) if name in names}
    rows = np.array(list(places.values()), int)
    std = _errors_about_mean(np.asarray(solution.fit.covariance)[np.ix_(rows, rows)])
    known_errors = dict(zip(places, std.tolist(), strict=True))
    errors = np.array([known_errors.get(name, 0.0) for name in names])
    middle, known = ends.mean(axis=1), np.isfinite(errors)
    level = np.mean(values[known]) if known.any() else 0.0
    ax.errorbar(
        middle[known], 1e3 * (values[known] - level), 1e3 * errors[known], np.ptp(ends, axis=1)[known] / 2, fmt="o",
        ms=3, mew=0, color=DATA, elinewidth=0.8, alpha=0.85,
    )  # fmt: skip
    ax.set_xlabel("MJD")
    ax.set_ylabel("DMX \N{MINUS SIGN} mean (10$^{-3}$ pc cm$^{-3}$)")
    return ax


def plot_sky(models: Mapping[str, TimingModel], ax: "Axes | None" = None) -> "Axes":
    """Where pulsars are: right ascension, growing to the left, and declination, in Mollweide's projection.

    **Arguments:** `models`: by name; `ax`: axes of that projection, a new figure by default.

    **Returns:** the axes.
    """
    if ax is None:
        import matplotlib.pyplot as plt

        ax = plt.subplots(layout="constrained", subplot_kw={"projection": "mollweide"})[1]
    places = {name: _place(model) for name, model in models.items()}
    for k, (name, (x, y)) in enumerate(sorted(places.items(), key=lambda item: item[1][1])):
        ax.plot(x, y, "*", ms=9, mew=0, color=MODEL, zorder=3)
        right = k % 2 == 0
        ax.annotate(
            name, (x, y), (7 if right else -7, 0), textcoords="offset points", va="center", fontsize="small",
            ha="left" if right else "right",
        )  # fmt: skip
    hours = np.arange(-10, 12, 4)
    ax.set_xticks(np.deg2rad(hours * 15.0), [f"{(-h) % 24}h" for h in hours], fontsize="x-small", alpha=0.6)
    ax.tick_params(axis="y", labelsize="x-small")
    ax.grid(visible=True, lw=0.4, alpha=0.5)
    return ax


def plot_grid(
    x: ArrayLike, y: ArrayLike, chi2: ArrayLike, names: tuple[str, str] = ("", ""), ax: "Axes | None" = None
) -> "Axes":
    """Chi2 over two parameters: its excess over the least, with lines of 1, 2 and 3 sigma, which the colour bar names.

    The lines are those of a cubic spline through the excess, as long as all of it is finite: between a dozen points
    they would have corners.

    **Arguments:** `x` (a,), `y` (b,): values; `chi2`: shape (a, b); `names`: of the two; `ax`: where to draw.

    **Returns:** the axes.
    """
    from matplotlib.patheffects import withStroke

    ax = _axes(ax)
    x, y = np.asarray(x, float), np.asarray(y, float)
    excess = np.asarray(chi2, float) - np.nanmin(np.asarray(chi2, float))
    root, levels = np.sqrt(excess), np.sqrt(_LEVELS)
    shade = ax.pcolormesh(x, y, root.T, cmap="Blues_r", vmin=0, vmax=_FARTHEST, shading="nearest", rasterized=True)
    lines = ax.contour(*_finer(x, y, excess), levels=levels, colors="white", linewidths=1.2)
    lines.set(path_effects=[withStroke(linewidth=2.6, foreground=_EDGE)])  # seen on pale cells too
    bar = ax.figure.colorbar(shade, ax=ax, pad=0.02)
    bar.add_lines(lines)
    sigmas = [f"{k}\N{GREEK SMALL LETTER SIGMA}" for k in range(1, len(levels) + 1)]
    bar.set_ticks([0.0, *levels, _FARTHEST], labels=["0", *sigmas, f"{_FARTHEST:g}"])
    bar.set_label("root of excess of χ²")
    bar.outline.set_linewidth(0.4)  # type: ignore[operator]
    best = np.unravel_index(np.nanargmin(excess), excess.shape)
    ax.plot(x[best[0]], y[best[1]], "+", color="white", ms=9, mew=1.5)
    ax.set(xlabel=names[0], ylabel=names[1])
    return ax


def _finer(x: np.ndarray, y: np.ndarray, excess: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(x, y, root of the excess (y, x)) on a grid that is fine enough for lines without corners."""
    if (
        min(excess.shape) < 4
        or not np.isfinite(excess).all()
        or not (np.diff(x) > 0).all()
        or not (np.diff(y) > 0).all()
    ):
        return x, y, np.sqrt(excess).T
    from scipy.interpolate import RectBivariateSpline

    across, along = (np.linspace(axis[0], axis[-1], _FINE) for axis in (x, y))
    return across, along, np.sqrt(np.maximum(RectBivariateSpline(x, y, excess)(across, along), 0.0)).T


def orbital_phase(model: TimingModel, toas: TOAs) -> np.ndarray:
    """Phase of the orbit at each TOA, from 0 to 1, with the period of the par file.

    **Raises:** `ValueError` for a pulsar without a companion.
    """
    par = model.par
    if par is None or model.binary is None:
        raise ValueError("this pulsar has no companion, and so no orbital phase")
    days = np.asarray(toas.day) + np.asarray(toas.second) / 86400 - float(epoch_of_orbit(par))
    frequency = float(par.value("FB0")) * 86400 if par.find("FB0") else 1 / float(par.value("PB"))
    return (days * frequency) % 1.0


def _model(model: TimingModel | TimingSolution) -> TimingModel:
    return model.model if isinstance(model, TimingSolution) else model


def _errors_about_mean(covariance: np.ndarray) -> np.ndarray:
    """Standard error of each of some numbers less the mean of all; inf where nothing is known."""
    good = np.isfinite(np.diagonal(covariance))
    kept = covariance[np.ix_(good, good)]
    centred = kept - kept.mean(axis=0) - kept.mean(axis=1)[:, None] + kept.mean() if good.any() else kept
    std = np.full(len(good), np.inf)
    std[good] = np.sqrt(np.maximum(np.diagonal(centred), 0))
    return std


def _sigma(model: TimingModel, toas: TOAs) -> np.ndarray:
    data, order = lay_out(model, toas)
    noise: Any = data.noise
    return np.asarray(ordered(jnp.sqrt(noise.variance()), order, len(toas)))


def _by_receiver(
    ax: "Axes",
    model: TimingModel,
    toas: TOAs,
    x: np.ndarray,
    y: np.ndarray,
    errors: np.ndarray | None,
    at: np.ndarray | None = None,
) -> None:
    """Points in the colour of their receiver: those of the TOAs, or of the TOA `at` which each point is."""
    few = len(y) <= _MANY
    for (label, toa), color in zip(_receivers(model, toas), RECEIVERS, strict=False):
        here = toa if at is None else toa[at]
        ax.errorbar(
            x[here], y[here], None if errors is None else errors[here], fmt="o", ms=3 if few else 2, mew=0, color=color,
            elinewidth=0.8 if few else 0.4, alpha=0.8 if few else 0.45, label=label, rasterized=not few,
        )  # fmt: skip
    ax.axhline(0.0, color="#9aa3ad", lw=0.8, zorder=1)


def _receivers(model: TimingModel, toas: TOAs) -> Iterator[tuple[str, np.ndarray]]:
    """(label, which TOAs): by the flags of the EFACs, where those cover all; else by octaves of frequency.

    There are as many as `RECEIVERS` has colours, at most; the last octave has all that are above it.
    """
    par = model.par
    stems = () if par is None else tuple(par.find(name) for name in par.numbered("EFAC"))
    flags = [line.select for line in stems if line is not None and line.select in toas.flags]
    chosen = [np.asarray(toas.selected[:, toas.flags.index(flag)]) for flag in flags]
    if chosen and np.any(chosen, axis=0).all() and len(flags) <= len(RECEIVERS):
        yield from ((flag.split()[-1], here) for flag, here in zip(flags, chosen, strict=True) if here.any())
        return
    frequency = np.asarray(toas.frequency)
    octave = np.where(np.isfinite(frequency), np.floor(np.log2(np.where(np.isfinite(frequency), frequency, 1))), 99)
    octaves = np.unique(octave)[: len(RECEIVERS)]
    octave = np.minimum(octave, octaves[-1])
    for one in octaves:
        here = octave == one
        middle = np.median(frequency[here])
        yield ("infinite frequency" if one == 99 else f"{middle:.0f} MHz"), here


def _place(model: TimingModel) -> tuple[float, float]:
    """(longitude growing to the left, latitude) in rad for Mollweide's axes."""
    x, y, z = np.asarray(model.astrometry.direction(jnp.zeros(1))).ravel()
    longitude = np.arctan2(y, x)
    return float(-longitude), float(np.arcsin(z))
