"""What the commands of `jaxsci timing` do, once their arguments are read.

`timing.commands` has the arguments and imports this when a command is run, because this imports jax. Results go to the
screen as tables, and to the files that the options name.
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from ... import timing
from ...datasets import read_text
from ...runs import (
    BUNDLED,
    CLASS_ERRORS,
    FAILED,
    FINE,
    NO_FIGURES,
    ConfigError,
    can_draw,
    first_line,
    prepare,
    write_whole,
)
from .._anchor import lay_out
from .._fit import TimingSolution
from .._model import TimingModel
from .._notation import said
from .._par_out import PREFIX
from .._residuals.summary import weighted_rms
from .._residuals.whitened import ordered
from .._tim import TIM_BYTES
from .._tim_out import retimed
from .._toas import TOAs
from ..io import tim_text
from .columns import epoch_table, residual_table
from .load import Plan, Reading, read_planned, read_pulsar
from .noise import noise_names, noise_rows, timing_remarks

_WIDEST = 999


def _read(par: str, tim: Path | None, reading: Reading) -> tuple[str, TimingModel, TOAs]:
    prepare("auto")
    name, model, toas, _ = read_pulsar(par, tim, "", reading)
    return name, model, toas


def load(par: str, tim: Path | None, out: Path | None, reading: Reading) -> None:
    """Write the TOAs as npz; by default beside the tim file."""
    name, _, toas = _read(par, tim, reading)
    target = Path(f"{name}.npz") if out is None else out
    if target.suffix != ".npz":
        raise ConfigError("-o", f"TOAs are written as .npz, but it is {target}")
    target.parent.mkdir(parents=True, exist_ok=True)
    toas.save(target)
    _say(f"{len(toas)} TOAs of {name} written to {target}")


def fit(par: str, tim: Path | None, free: Sequence[str] | None, out: Path | None, reading: Reading, scale: bool) -> int:
    """Fit, show the table and write the new par file; returns the exit code."""
    name, model, toas = _read(par, tim, reading)
    try:
        names = _names(free or (), model, toas)
        solution = timing.fit(model, toas, names, throw=False, scale_covariance=scale)
    except CLASS_ERRORS as error:
        raise ConfigError(name, first_line(error)) from error
    console, table = Console(), _table(solution, toas)
    whole = Console(width=_WIDEST).measure(table).maximum
    Console(width=max(console.width, whole)).print(table)  # no value is cut short
    left = np.asarray(timing.residuals(solution.model, toas))
    rms = 1e6 * weighted_rms(left, _sigma(solution.model, toas))
    console.print(
        f"{name}: chi2 {float(solution.chi2):.3f} for {solution.dof} degrees of freedom "
        f"(reduced {solution.reduced_chi2:.4f}), {len(toas)} TOAs, weighted rms {rms:.3f} us"
        f"{'; errors are scaled by sqrt(chi2 / dof)' if scale else ''}",
        highlight=False,
        soft_wrap=True,
    )
    for remark in timing_remarks(solution) if solution.success else ():
        console.print(f"[yellow]look[/yellow]: {escape(remark)}", highlight=False, soft_wrap=True)
    if not solution.success:
        Console(stderr=True).print(f"the fit did not converge: {solution.fit.message}", highlight=False, soft_wrap=True)
        return FAILED
    if out is not None:
        write_whole(out, timing.par_text(solution))
        _say(f"par file written to {out}")
    return FINE


def residuals(
    par: str, tim: Path | None, out: Path | None, plot: Path | None, reading: Reading, epochs: Path | None = None
) -> None:
    """Say how large residuals are; write and draw them and their averages on request."""
    name, model, toas = _read(par, tim, reading)
    try:
        values = np.asarray(timing.residuals(model, toas))
        means = timing.averages(model, toas, residual=values) if epochs is not None or plot is not None else None
    except CLASS_ERRORS as error:
        raise ConfigError(name, first_line(error)) from error
    sigma = _sigma(model, toas)
    rms = 1e6 * weighted_rms(values, sigma)
    if out is not None:
        white = np.asarray(timing.whitened(model, toas))
        columns = {"residual_s": values, "sigma_s": sigma, "whitened": white}
        write_whole(out, residual_table(toas, columns))
    if epochs is not None and means is not None:
        write_whole(epochs, epoch_table(means))
    if plot is not None and means is not None:
        _draw(model, toas, Points(values, sigma, means), f"{name}: weighted rms {rms:.3f} µs", plot)
    _say(f"{name}: {len(toas)} TOAs, weighted rms {rms:.4f} us, largest {1e6 * np.abs(values).max():.4f} us")


class Points(NamedTuple):
    """Residuals and their errors, s, and their averages within epochs."""

    residual: np.ndarray
    sigma: np.ndarray
    averages: timing.EpochAverages


def simulate(
    par: str, tim: Path | None, out: Path | None, seed: int | None, reading: Reading, plan: Plan | None = None
) -> None:
    """Write simulated TOAs, of the pattern of a tim file or of a plan."""
    if out is None or out.suffix not in (".npz", ".tim"):
        raise ConfigError("-o", f"say where to write: FILE.npz or FILE.tim{'' if out is None else f', and not {out}'}")
    if plan is None:
        name, model, toas = _read(par, tim, reading)
    elif tim is not None:
        raise ConfigError("--mjd", f"{tim} says when it was observed: leave it out, or leave out --mjd")
    else:
        prepare("auto")
        name, model, toas, _ = read_planned(par, plan, "", reading)
    try:
        made = timing.simulate(model, toas, key=None if seed is None else jax.random.key(seed))
        if out.suffix == ".npz":
            out.parent.mkdir(parents=True, exist_ok=True)
            made.save(out)
        else:
            write_whole(out, retimed(_text(par, tim) if plan is None else plan.text(), toas, made))
    except CLASS_ERRORS as error:
        raise ConfigError(name, first_line(error)) from error
    _say(f"{len(made)} TOAs of {name} written to {out}")


def plan_of(mjd: tuple[float, float] | None, given: Mapping[str, Any]) -> Plan | None:
    """What is to be observed, or `None` where a tim file says it.

    **Raises:** `ConfigError` for words of a plan without its dates, which would be passed over.
    """
    if mjd is None:
        if given:
            option = "flag" if "flags" in given else next(iter(given))
            raise ConfigError(f"--{option}", "is a word of a plan: give its dates too, --mjd FROM TO")
        return None
    return Plan(mjd, **{"cadence": 14.0, **given})


def flag_of(text: str) -> tuple[str, str]:
    """(name, value) of a flag such as `fe=L-wide`."""
    name, _, value = text.partition("=")
    if not name or not value:
        raise ConfigError("--flag", f"should be NAME=VALUE, such as fe=L-wide, but it is {text!r}")
    return name, value


def _text(par: str, tim: Path | None) -> str:
    if tim is None:
        return tim_text(par.removeprefix(BUNDLED))
    if tim.suffix == ".npz":
        raise ConfigError("-o", "a .tim file needs a .tim file to start from; write .npz, or give the TIM itself")
    return read_text(tim, TIM_BYTES)


def _names(free: Sequence[str], model: TimingModel, toas: TOAs) -> tuple[str, ...] | None:
    """What to free; `None` for the par file's flags, which stand too where only noise is named."""
    noisy = [name for name in free if name.startswith(PREFIX)]
    if not noisy:
        return tuple(free) or None
    assert model.par is not None
    plain = tuple(name for name in free if name not in noisy) or model.par.free
    return (*plain, *noise_names(noisy, model, toas, "--free", True))


def _table(solution: TimingSolution, toas: TOAs) -> Table:
    """As tempo2's: name, value before, fitted value with the error of its last digits, change in errors."""
    table = Table("parameter", "before", "fitted", "change / error", "unit", box=None)
    par = solution.start.par
    assert par is not None
    exact, std, units, offsets = solution.exact, solution.std, solution.units, solution.offsets
    for name in solution.names:
        line = par.find(name)
        known = math.isfinite(std[name]) and std[name] > 0
        change = f"{offsets[name] / std[name]:.3f}" if known else "not determined"
        texts = said(name, exact[name], std[name], units[name])
        unit = texts.get("unit_text", units[name])
        table.add_row(name, "" if line is None else line.text, texts["text"], change, unit)
    for row in noise_rows(solution, toas):
        known = math.isfinite(row["std"]) and row["std"] > 0
        change = f"{row['offset'] / row['std']:.3f}" if known else "not determined"
        about = " ".join([row["unit"], *row["remarks"]]).strip()
        table.add_row(row["name"], f"{row['value'] - row['offset']:.6g}", row["text"], change, about)
    return table


def _draw(model: TimingModel, toas: TOAs, points: Points, title: str, path: Path) -> None:
    if not can_draw():
        raise ConfigError("--plot", NO_FIGURES)
    from matplotlib.figure import Figure

    several = int(np.asarray(points.averages.count).max()) > 1
    figure = Figure(figsize=(9.0, 7.0 if several else 4.0), layout="constrained")
    axes = np.ravel(figure.subplots(2 if several else 1, squeeze=False))
    timing.plot.plot_residuals(model, toas, axes[0], residual=points.residual, sigma=points.sigma)
    axes[0].set_title(title, loc="left")
    axes[0].legend(frameon=False)
    if several:
        timing.plot.plot_averages(model, toas, axes[1], values=points.averages).set_title(
            "averaged over epochs", loc="left"
        )
    try:
        figure.savefig(path, dpi=150)
    except ValueError as error:
        raise ConfigError("--plot", first_line(error)) from error


def _sigma(model: TimingModel, toas: TOAs) -> np.ndarray:
    data, order = lay_out(model, toas)
    noise: Any = data.noise
    return np.sqrt(np.asarray(ordered(noise.variance(), order, len(toas))))


def _say(text: str) -> None:
    Console().print(text, highlight=False, soft_wrap=True, markup=False)
