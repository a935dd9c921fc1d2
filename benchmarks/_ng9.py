"""The staged NANOGrav nine-year pulsars, from their par files and the arrays that PINT made of their tim files."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from jaxsci import timing

FOLDER = Path(__file__).parents[2] / "shared" / "data" / "timing" / "ng9"


def names() -> list[str]:
    """All of them, in the order of the alphabet; empty where the data are not there."""
    return sorted(path.stem for path in FOLDER.glob("*.par"))


def staged(name: str) -> tuple[timing.TimingModel, timing.TOAs]:
    """Model and TOAs of one pulsar."""
    model = timing.TimingModel.parse((FOLDER / f"{name}.par").read_text())
    assert model.par is not None
    with np.load(FOLDER / f"{name}.npz") as file:
        arrays = {key: file[key] for key in file.files}
    jumps = {line.select: arrays[f"mask_{line.name}"] for line in model.par.lines if line.name.startswith("JUMP")}
    flags = tuple(sorted({line.select for line in model.par.lines if line.select}))
    backend = np.array([f"-f {name}" for name in arrays["backend_names"]])[arrays["backend_index"]]
    selected = np.stack([jumps[flag] != 0 if flag in jumps else backend == flag for flag in flags], axis=1)
    toas = timing.TOAs(
        day=arrays["tdb_day"].astype(float),
        second=arrays["tdb_sec"],
        second_low=arrays["tdb_sec_lo"],
        frequency=arrays["freq"],
        error=arrays["err_us"],
        position=arrays["pos"],
        velocity=arrays["vel"],
        sun=arrays["sun"],
        troposphere=arrays["tropo"],
        utc=arrays["mjd_utc"],
        turn=np.full(len(backend), np.nan),
        selected=selected,
        flags=flags,
    )
    return model, toas


def pint_fit(name: str) -> dict[str, Any]:
    """What PINT's GLSFitter made of it in one step: `chi2`, `dof`, `params`, `gls_cpu` in s."""
    return json.loads((FOLDER / f"{name}.fit.json").read_text())
