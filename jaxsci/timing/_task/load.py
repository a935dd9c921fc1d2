"""Pulsars by name or from files, with errors in one line.

Configs and the commands of `jaxsci timing` read pulsars alike: bundled ones by name, others from a par file and a tim
or npz file. What PINT or a damaged file raises becomes a `ConfigError`.
"""

import dataclasses
import os
from pathlib import Path
from typing import NamedTuple

from ...runs import BUNDLED, ConfigError, first_line
from .._model import TimingModel
from .._toas import TOAs
from ..io import bundled, load


@dataclasses.dataclass(frozen=True)
class Reading:
    """How files are read, as `timing.load` has it: ephemeris, clocks, lines that change nothing, TOAs that repeat."""

    ephem: str | None = None
    clock_dir: str | os.PathLike[str] | None = None
    unknown: str = "warn"
    duplicates: str = "keep"


class PulsarFiles(NamedTuple):
    """What the files of one pulsar hold; `source`: what it was read from, in words."""

    name: str
    model: TimingModel
    toas: TOAs
    source: str


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
