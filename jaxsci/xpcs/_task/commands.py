"""What the commands of `jaxsci xpcs` do, once their arguments are read.

`xpcs.commands` has the arguments and imports this when a command is run, because this imports jax. Results go to the
screen as tables, and to the files that the options name. A fit is asked for in the same tables as those of a config, so
that both are read and checked by one function.
"""

import dataclasses
import datetime
import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from ...parallel import remove_checkpoint
from ...runs import (
    BUNDLED,
    CLASS_ERRORS,
    FAILED,
    FINE,
    NO_FIGURES,
    Config,
    ConfigError,
    Ran,
    bundled,
    can_draw,
    first_line,
    prepare,
    read_config,
    run,
    write_whole,
)
from .._correlators import correlate as correlators
from .._geometry import cached_map
from .._global import Curves
from .._qmap_file import read_qmap, write_qmap
from .._result import Scattering, XPCSResult, result_of
from .._series import average_runs
from ..io import read_layout, read_result, write_result
from ..task import fits_csv
from .config import Measurement, build_job
from .detector import look, read_detector
from .figures import draw, draw_detector
from .kinds import KINDS
from .outcomes import Analysed, Fitted
from .work import analyse

_WIDEST = 999
_SHOWN = 60  # rows of a table on the screen


class Correlating(NamedTuple):
    """How frames are correlated, as the command was told."""

    frame_time: float
    dataset: str
    normalise: str
    two_time: str
    restart: bool
    device: str = "auto"


class Fitting(NamedTuple):
    """What is fitted, as the command was told."""

    model: str
    free: Sequence[str] | None
    shared: Sequence[str] | None
    fixed: Sequence[str] | None
    bounds: Sequence[str] | None
    columns: str | None
    power_law: str
    layout: Path | None
    device: str = "auto"

    def tables(self) -> dict[str, Any]:
        """The same as a config has it."""
        fit: dict[str, Any] = {
            "model": {"type": self.model, **dict(_number(text, "--set") for text in self.fixed or ())}
        }
        fit |= {"free": list(self.free)} if self.free else {}
        fit |= {"shared": list(self.shared)} if self.shared else {}
        fit |= {"bounds": dict(_limits(text) for text in self.bounds)} if self.bounds else {}
        fit |= {"columns": places(self.columns, "--columns")} if self.columns else {}
        fit |= {"power_law": self.power_law} if self.power_law else {}
        layout = {} if self.layout is None else {"layout": _layout(self.layout)}
        return {"fit": fit, **layout}


def _number(text: str, where: str) -> tuple[str, float]:
    name, _, value = text.partition("=")
    try:
        return name.strip(), float(value)
    except ValueError:
        raise ConfigError(where, f"should be NAME=VALUE, such as contrast=0.135, but it is {text!r}") from None


def _limits(text: str) -> tuple[str, list[float]]:
    name, _, pair = text.partition("=")
    try:
        low, high = (float(side) for side in pair.split(":"))
    except ValueError:
        raise ConfigError("--bounds", f"should be NAME=LOW:HIGH, such as exponent=0.5:2, but it is {text!r}") from None
    return name.strip(), [low, high]


def places(text: str, where: str) -> list[int]:
    """Read whole numbers such as `0,2,5-9`; raises `ConfigError` for others."""
    found: list[int] = []
    try:
        for part in filter(None, text.split(",")):
            first, _, last = part.partition("-")
            found += range(int(first), int(last or first) + 1)
    except ValueError:
        raise ConfigError(where, f"should be places such as 0,2,5-9, but it is {text!r}") from None
    return found


def _layout(path: Path) -> dict[str, str]:
    try:
        return read_layout(path)
    except ValueError as error:
        raise ConfigError("--layout", first_line(error)) from error


def _path(name: str) -> Path:
    path = bundled(name, "") if name.startswith(BUNDLED) else Path(name)
    if not path.is_file():
        raise ConfigError(name, "there is no such file")
    return path.resolve()


def _measurement(name: str, asked: Fitting) -> Measurement:
    path = _path(name)
    tables = {**asked.tables(), "data": [{"file": path.name}]}
    return build_job(Config(path, tables), KINDS).members[0]


def qmap(config: Path, out: Path, image: Path | None, dataset: str, plot: Path | None, device: str = "auto") -> None:
    """Write a q-map file; draw it on request."""
    prepare(device)
    found = read_config(str(config))
    shape = found.tables.get("shape")
    seen = None
    if image is not None:
        whole, seen = look(image, dataset, "--image", "--dataset")
        shape = whole[1:]
    if not isinstance(shape, list | tuple) or len(shape) != 2:
        raise ConfigError("shape", "say how many rows and columns there are: shape = [512, 1024], or --image FRAMES.h5")
    detector = read_detector(found.tables, tuple(shape), seen, found, KINDS)
    write_qmap(out, detector.geometry, detector.mask, detector.partition)
    if plot is not None:
        _save(draw_detector(detector, seen), plot)
    used = int(np.asarray(detector.mask).sum())
    bins = detector.partition
    _say(
        f"{used} of {detector.mask.size} pixels, {bins.dynamic.bins} q-bins with {bins.static.bins} static bins "
        f"written to {out}"
    )
    if detector.geometry is not None:
        q = np.asarray(cached_map(detector.geometry, "q"))[np.asarray(detector.mask)]
        _say(f"q of these pixels: {q.min():.4g} to {q.max():.4g} 1/Å")


def correlate(frames: Path, qmap: Path, out: Path, how: Correlating) -> None:
    """Correlate frames and write the result; what is done so far is kept beside it until that."""
    prepare(how.device)
    if not how.frame_time > 0:
        raise ConfigError("--frame-time", f"should be the time between two frames in s, but it is {how.frame_time}")
    beside = out.with_name(f"{out.name}.checkpoint")
    try:
        detector = read_qmap(qmap)
        shape, _ = look(frames, how.dataset, "FRAMES.h5", "--dataset")
        if beside.exists() and not how.restart:
            _say(f"going on where an earlier run stopped, from {beside}")
        found = correlators.correlate(
            frames, detector.partition, dataset=how.dataset, normalise=how.normalise,
            two_time=places(how.two_time, "--two-time"), checkpoint=beside, resume=not how.restart, progress=True,
        )  # fmt: skip
        write_result(out, result_of(found, detector, how.frame_time, out.stem))
    except KeyboardInterrupt:
        kept = f"what is done is kept in {beside}: the same command goes on from there" if beside.exists() else (
            "nothing was done yet that could be kept")  # fmt: skip
        _complain(f"stopped; {kept}")
        raise
    except CLASS_ERRORS as error:
        if isinstance(error, ConfigError):
            raise
        raise ConfigError("correlate", first_line(error).replace("resume=False", "--restart")) from error
    remove_checkpoint(beside)
    lags, bins = found.g2.shape
    out_of = int(found.sums.left_out)
    if out_of:
        _complain(f"look: {out_of} of {int((np.asarray(detector.partition.labels) > 0).sum())} pixels left out, which "
                  "are not finite or marked as dead in some frame")  # fmt: skip
    _say(f"{shape[0]} frames by the {found.method} correlator: {lags} lags of {bins} q-bins written to {out}")


def fit(name: str, asked: Fitting, out: Path | None, plot: Path | None) -> int:
    """Fit, show the table, write and draw on request; returns the exit code."""
    prepare(asked.device)
    member = _measurement(name, asked)
    outcome = analyse(member)
    if not isinstance(outcome, Analysed) or outcome.fitted is None:
        raise ConfigError(name, outcome.message)
    table = _table(outcome)
    console = Console()
    whole = Console(width=_WIDEST).measure(table).maximum
    Console(width=max(console.width, whole)).print(table)  # no value is cut short
    for row in outcome.record()["parameters"]:
        if not row.get("folded"):
            console.print(f"{row['name']} {row['value']:.6g} ± {row['std']:.2g} {row['unit']} ({row['remarks'][0]})",
                          highlight=False, soft_wrap=True)  # fmt: skip
    for remark in outcome.remarks:
        console.print(f"[yellow]look[/yellow]: {escape(remark)}", highlight=False, soft_wrap=True)
    if not outcome.success:
        Console(stderr=True).print(outcome.message, highlight=False, soft_wrap=True)
        return FAILED
    _say(outcome.told)
    if out is not None:
        write_whole(out, fits_csv(outcome))
    if plot is not None:
        _save(draw(outcome), plot)
    return FINE


def _table(outcome: Analysed) -> Table:
    """One row for each q-bin: its parameters with their errors."""
    fitted = outcome.fitted
    assert fitted is not None
    table = Table("q-bin", "q (1/Å)", *fitted.local, "chi2/dof", box=None)
    for k, column in enumerate(fitted.columns[:_SHOWN]):
        cells = [_pm(*(float(x[k]) for x in fitted.values(name))) for name in fitted.local]
        chi2, dof = float(fitted.table["chi2"][k]), float(fitted.table["dof"][k])
        ratio = _ratio(fitted, k, chi2, dof)
        table.add_row(str(column), f"{float(fitted.curves.q[k]):.4g}", *cells, ratio)
    if len(fitted.columns) > _SHOWN:
        table.add_row(f"and {len(fitted.columns) - _SHOWN} more")
    return table


def _ratio(fitted: Fitted, k: int, chi2: float, dof: float) -> str:
    """chi2 over its degrees of freedom, or why there is none."""
    if not bool(fitted.fits.success[k]):
        return "failed"
    if not bool(fitted.determined[k]):
        return "undetermined"
    return "no errors" if not fitted.weighed else f"{chi2 / dof:.3f}" if dof > 0 else ""


def _pm(value: float, std: float) -> str:
    return f"{value:.5g} ± {std:.2g}" if np.isfinite(value) else ""


def report(name: str, asked: Fitting, posterior: bool, out: Path | None) -> int:
    """Run a config of one measurement, which is written into the folder of the report; returns the exit code."""
    path = _path(name)
    tables = {"task": "xpcs", "title": path.stem, **asked.tables(), "data": [{"file": str(path)}]}
    tables |= {"posterior": {"seed": 0}} if posterior else {}
    text = "".join(f"{key} = {_toml(value)}\n" for key, value in tables.items())
    folder = _folder(path.stem) if out is None else out
    config = folder / f"{path.stem}.toml"
    folder.mkdir(parents=True, exist_ok=True)
    write_whole(config, text)
    try:
        done = run(str(config), folder, asked.device, allow_outside=True)
    except ConfigError:
        config.unlink()
        if not any(folder.iterdir()):
            folder.rmdir()
        raise
    for said in task_said(done):
        _say(said)
    _say(f"report: {done.page}")
    return done.code


def _folder(stem: str) -> Path:
    """A new folder of a report, named as those of `jaxsci run`."""
    base = Path("runs") / f"{stem}-{datetime.datetime.now(datetime.UTC):%Y%m%dT%H%M%SZ}"
    names = itertools.chain([base], (base.with_name(f"{base.name}-{k}") for k in itertools.count(2)))
    return next(name for name in names if not name.exists())


def task_said(done: Ran) -> Sequence[str]:
    """What a run comes to, in words; why its measurement failed, where it did."""
    failed = [record["message"] for record in done.records if not record["success"]]
    return failed or done.task.said(done.counts)


def _toml(value: object) -> str:
    """A value as TOML writes it."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key} = {_toml(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_toml, value)) + "]"
    if isinstance(value, str):
        return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
    return repr(value)


def average(names: Sequence[str], out: Path, cutoff: float, layout: Path | None, device: str = "auto") -> int:
    """Average runs and write the mean; returns the exit code."""
    prepare(device)
    places_ = {} if layout is None else _layout(layout)
    found: dict[str, XPCSResult] = {}
    for name in names:
        try:
            found[name] = read_result(_path(name), places_)
        except (OSError, *CLASS_ERRORS) as error:
            _complain(f"skipped: {first_line(error)}")
    if not found:
        _complain(f"none of {len(names)} files could be read, so that there is nothing to average")
        return FAILED
    try:
        mean, kept = averaged(list(found.values()), cutoff, out.stem)
    except ValueError as error:
        raise ConfigError("average", first_line(error)) from error
    for name, good in zip(found, kept, strict=True):
        if not good:
            _say(f"left out: {name}, whose baseline stands apart from the others")
    write_result(out, mean)
    _say(f"the mean of {int(np.sum(kept))} of {len(names)} files written to {out}")
    return FINE


def averaged(results: Sequence[XPCSResult], cutoff: float, name: str) -> tuple[XPCSResult, np.ndarray]:
    """Average g2, by its errors, and scattering of runs over one q map, without those whose baseline stands apart.

    **Returns:** the mean with the partition of the first run, and which runs are in it.

    **Raises:** `ValueError` where q-bins or delays differ.
    """
    first = results[0]
    for other in results[1:]:
        same = all(
            np.shape(a) == np.shape(b) and np.allclose(np.asarray(a), np.asarray(b))
            for a, b in ((other.curves.t, first.curves.t), (other.curves.q, first.curves.q))
        )
        if not same:
            raise ValueError(f"{other.name} has other delays or q-bins than {first.name}: average runs of one q map")
    curves = [result.curves for result in results]
    g2 = jnp.stack([jnp.where(c.mask, c.g2, jnp.nan) for c in curves])
    sigma = (
        None if any(c.sigma is None for c in curves) else jnp.stack([c.sigma for c in curves if c.sigma is not None])
    )
    tail = max(int(0.1 * first.curves.t.size), 1)
    found = average_runs(g2, sigma, statistic=jnp.nanmean(g2[:, -tail:], axis=(1, 2)), cutoff=cutoff)
    mask = jnp.isfinite(found.mean) & jnp.isfinite(found.error)
    mean = Curves(first.curves.t, found.mean, found.error, mask, first.curves.q)
    kept = np.asarray(found.kept)
    scattering = _mean_scattering([r for r, good in zip(results, kept, strict=True) if good])
    whole = dataclasses.replace(first, curves=mean, name=name, two_time=None, intensity=None, scattering=scattering)
    return eqx.tree_at(lambda r: r.pixels.mean, whole, None, is_leaf=lambda x: x is None), kept


def _mean_scattering(results: Sequence[XPCSResult]) -> Scattering | None:
    """The mean of all runs, each of which becomes a segment; `None` where one has none or other bins."""
    found = [r.scattering for r in results if r.scattering is not None]
    if len(found) < len(results) or len({s.mean.size for s in found}) > 1:
        return None
    every = jnp.stack([s.mean for s in found])
    return Scattering(found[0].q, jnp.mean(every, axis=0), found[0].phi, every)


def _save(figure: Any, path: Path) -> None:
    if not can_draw():
        raise ConfigError("--plot", NO_FIGURES)
    try:
        figure.savefig(path, dpi=150, facecolor="white")
    except ValueError as error:
        raise ConfigError("--plot", first_line(error)) from error


def _say(text: str) -> None:
    Console().print(text, highlight=False, soft_wrap=True, markup=False)


def _complain(text: str) -> None:
    Console(stderr=True).print(text, highlight=False, soft_wrap=True, markup=False)
