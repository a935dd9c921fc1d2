"""Pulsars by name or from files, with errors in one line.

Configs and the commands of `jaxsci timing` read pulsars alike: bundled ones by name, others from a par file and a tim
or npz file, or a par file alone with a plan of observations. What PINT or a damaged file raises becomes a
`ConfigError`.
"""

import dataclasses
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from ...datasets import read_text
from ...runs import BUNDLED, ConfigError, first_line
from .._model import TimingModel
from .._toas import TOAs
from ..io import PAR_BYTES, bundled, load, planned_text, schedule


@dataclasses.dataclass(frozen=True)
class Reading:
    """How files are read, as `timing.load` has it: ephemeris, clocks, lines that change nothing, TOAs that repeat."""

    ephem: str | None = None
    clock_dir: str | os.PathLike[str] | None = None
    unknown: str = "warn"
    duplicates: str = "keep"


@dataclasses.dataclass(frozen=True)
class Plan:
    """Observations to be simulated, as `timing.schedule` has them."""

    mjd: tuple[float, float]
    cadence: float
    frequency: Sequence[float] = (1400.0,)
    error: float | Sequence[float] = 1.0
    observatory: str = "gbt"
    flags: Mapping[str, str] | Sequence[Mapping[str, str]] = dataclasses.field(default_factory=dict)

    def text(self) -> str:
        """The tim file with these observations."""
        return planned_text(**vars(self))


class PulsarFiles(NamedTuple):
    """What the files of one pulsar hold; `source`: what it was read from, in words."""

    name: str
    model: TimingModel
    toas: TOAs
    source: str


def read_planned(par: str, plan: Plan, where: str, reading: Reading = Reading()) -> PulsarFiles:
    """Read `bundled:NAME` or a par file, with planned observations for TOAs.

    **Raises:** `ConfigError` for a par file that is not there or makes no sense, and a plan that cannot be.
    """
    bundle = par.startswith(BUNDLED)
    try:
        if bundle:
            model = bundled(par.removeprefix(BUNDLED))[0]
        else:
            model = TimingModel.parse(read_text(Path(par), PAR_BYTES), reading.unknown)
        toas = schedule(model, **vars(plan), ephem=reading.ephem, clock_dir=reading.clock_dir)
    except (ImportError, OSError, RuntimeError, ValueError) as error:
        raise ConfigError(where, first_line(error)) from error
    assert model.par is not None
    name = par.removeprefix(BUNDLED) if bundle else Path(par).stem
    return PulsarFiles(model.par.word("PSR") or name, model, toas, f"{par if bundle else Path(par).name}, simulated")


def read_pulsar(
    par: str, tim: Path | None, where: str, reading: Reading = Reading(), within: Path | None = None
) -> PulsarFiles:
    """Read `bundled:NAME`, or a par file with a tim or npz file.

    `within`: the folder that all files which the tim file includes should lie in; `None` for anywhere.

    **Raises:** `ConfigError` for files that are not there or make no sense.
    """
    if tim is None and not par.startswith(BUNDLED):
        raise ConfigError(where, f"{par} needs its TOAs too: give PAR and TIM, or bundled:NAME")
    if tim is not None and par.startswith(BUNDLED):
        raise ConfigError(where, f"{par} comes with its TOAs: leave {tim} out")
    try:
        if tim is None:
            name = par.removeprefix(BUNDLED)
            model, toas = bundled(name)
            return PulsarFiles(name, model, toas, par)
        model, toas = load(par, tim, within=within, **dataclasses.asdict(reading))
    except (ImportError, OSError, RuntimeError, ValueError) as error:
        raise ConfigError(where, first_line(error)) from error
    assert model.par is not None
    return PulsarFiles(model.par.word("PSR") or Path(par).stem, model, toas, f"{Path(par).name}, {tim.name}")
