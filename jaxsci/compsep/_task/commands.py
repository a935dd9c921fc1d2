"""What the commands of `jaxsci compsep` do, once their arguments are read.

`compsep.commands` has the arguments and imports this when a command is run, because this imports jax. A sky and what is
fitted to it are put into the tables of a config, so that both are read and checked by one function. Maps go to the
files that the options name, and what was found to the screen.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import typer

from ... import compsep
from ...runs import CLASS_ERRORS, FAILED, FINE, Config, ConfigError, Untried, first_line, prepare
from .. import io
from .._units import split_unit
from ..task import SkyTask
from .config import read_instrument, read_sky

_COMPONENTS = ("cmb=CMB", "dust=ModifiedBlackBody", "sync=PowerLaw")


class Observed(NamedTuple):
    """The maps and what is known of them, as the command was told."""

    maps: Sequence[str]
    instrument: str
    frequency: str
    sigma: str
    stokes: str
    mask: str | None
    units: str
    assume: str | None
    resolution: float | None

    def tables(self) -> dict[str, Any]:
        """The same as a config has it."""
        if bool(self.instrument) == bool(self.frequency):
            raise ConfigError("--instrument", "give the name of one, or --frequency in GHz")
        instrument: dict[str, Any] = (
            {"name": self.instrument} if self.instrument else {"frequency": _numbers(self.frequency, "--frequency")}
        )
        sky: dict[str, Any] = {"maps": list(self.maps), "stokes": self.stokes, "units": self.units}
        for key, value in (("mask", self.mask), ("assume", self.assume), ("resolution", self.resolution)):
            sky |= {} if value is None else {key: value}
        if self.sigma:
            sky["sigma"] = [[x] * len(self.stokes) for x in _numbers(self.sigma, "--sigma")]
        return {"task": "compsep", "instrument": instrument, "sky": sky}


class Model(NamedTuple):
    """Components and what is fitted of them, as the command was told."""

    components: Sequence[str] | None
    free: Sequence[str] | None
    patches: int
    starts: int

    def tables(self) -> dict[str, Any]:
        """The same as a config has it."""
        parts: dict[str, dict[str, str]] = {}
        for text in self.components or _COMPONENTS:
            name, _, kind = text.partition("=")
            if not (name and kind):
                raise ConfigError(
                    "--component", f"should be NAME=SPECTRUM, such as dust=ModifiedBlackBody, not {text!r}"
                )
            parts[name] = {"type": kind}
        fit: dict[str, Any] = {"patches": self.patches}
        fit |= {"free": list(self.free)} if self.free else {}
        fit |= {"starts": self.starts} if self.starts else {}
        return {"components": parts, "fit": fit}


def _numbers(text: str, where: str) -> list[float]:
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise ConfigError(where, f"should be numbers such as 23,33,41, but it is {text!r}") from None


def _config(tables: dict[str, Any]) -> Config:
    """A config of these tables, whose files are named from where the command was given."""
    return Config(Path.cwd() / "the command line", tables, allow_outside=True)


def separate(sky: Observed, model: Model, out: Path, overwrite: bool, device: str) -> int:
    """Separate, write maps and tell what was found; returns the exit code."""
    prepare(device)
    task = SkyTask()
    job = task.build(_config(sky.tables() | model.tables()), task.kinds())
    ((_, (outcome,)),) = task.run(job.members, lambda _: None, False)
    if isinstance(outcome, Untried):
        raise ConfigError("separate", outcome.message)
    try:
        written = io.write_separation(out, outcome.separation, overwrite=overwrite)
    except FileExistsError as error:
        raise ConfigError("--out", f"{first_line(error)}: --overwrite replaces it") from error
    typer.echo(outcome.separation.summary())
    for words in outcome.remarks:  # what the maps' past has to do with it
        if words not in outcome.separation.remarks:
            typer.echo(f"Look: {words}")
    typer.echo(f"{len(written)} files written to {out}")
    return FINE if outcome.success else FAILED


def ilc(sky: Observed, pooled: bool, out: Path, overwrite: bool, device: str) -> None:
    """Combine, write the map of the CMB and tell the weights."""
    prepare(device)
    tables = sky.tables()
    # the covariance is that of the maps: no noise is asked for, which an instrument may not know
    tables["sky"]["sigma"] = [[1.0] * len(sky.stokes)] * len(sky.maps)
    instrument = read_instrument(tables)
    found = read_sky(_config(tables), instrument)
    mixing = compsep.MixingMatrix(cmb=compsep.CMB(split_unit(found.units)[1]))
    try:
        made = compsep.ilc(mixing, instrument, found.maps, mask=found.mask, pooled=pooled)
        io.write_map(out, made.component("cmb"), mixing.amplitude_units(found.units)[0], overwrite=overwrite)
    except FileExistsError as error:
        raise ConfigError("--out", f"{first_line(error)}: --overwrite replaces it") from error
    except CLASS_ERRORS as error:
        raise ConfigError("ilc", first_line(error)) from error
    for letter, weights in zip(found.stokes, np.asarray(made.weights)[0, :, 0], strict=True):
        typer.echo(f"weights of {letter}: {' '.join(f'{x:.4g}' for x in weights)}")
    typer.echo(f"{out} written")
