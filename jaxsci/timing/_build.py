"""From a par file to the components of a timing model."""

import re
from decimal import Decimal
from itertools import pairwise
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from ..core import as_array
from ._astrometry import AstrometryEcliptic, AstrometryEquatorial
from ._chromatic import Chromatic, ChromaticCMX
from ._constants import OBLIQUITY
from ._dispersion import DispersionDM, DispersionDMX, DispersionJump
from ._frequency_dependent import FD, FDJump
from ._glitch import Glitch
from ._jump import PhaseJump, PhaseOffset
from ._orbit import binary_of, epoch_name
from ._par import Par, number
from ._pieces import PiecewiseSpindown, TabulatedPhase
from ._solar_wind import SolarWind
from ._spindown import Spindown
from ._wave import CMWaveX, DMWaveX, Wave, WaveX

_GLITCH = ("GLEP", "GLPH", "GLF0", "GLF1", "GLF2", "GLF0D", "GLTD")
_PIECES = ("PWPH", "PWF0", "PWF1", "PWF2")
_FD_JUMP = re.compile(r"FD(\d+)JUMP(\d+)$")
TRACKS = ("-2", "0")
"""What TRACK may say: that pulse numbers count, or that they do not."""
_FROM_ONE, _FROM_ZERO = ("FD", "JUMP", "DMJUMP"), ("F", "FB")
_POLYNOMIALS = ("DM", "CM", "NE_SW")


def components(par: Par) -> dict[str, Any]:
    """The components of a `TimingModel` by field; `None` for those that the par file does not use."""
    if par.word("UNITS", "TDB").upper() != "TDB":
        raise ValueError(f"UNITS is {par.word('UNITS')}, but there are TDB and TCB")
    if par.word("TRACK", "0") not in TRACKS:
        raise ValueError(f"TRACK {par.word('TRACK')} is not supported; there are {' and '.join(TRACKS)}")
    par.value("F0", None), par.value("PEPOCH", None)
    chromatic = _chromatic(par)
    if chromatic is None and (par.prefixed("CMX_") or par.prefixed("CMWXFREQ_")):
        raise ValueError("CMX and CMWaveX need the line TNCHROMIDX, and CM (which may be 0)")
    return {
        "astrometry": _astrometry(par),
        "dispersion": DispersionDM(*_list(par, "DM")),
        "dmx": DispersionDMX(*_list(par, "DMX")),
        "wind": _wind(par),
        "binary": binary_of(par),
        "fd": FD(*_list(par, "FD")),
        "fd_jump": _fd_jump(par),
        "waves": _waves(par, WaveX, "WX"),
        "dm_waves": _waves(par, DMWaveX, "DMWX"),
        "chromatic": chromatic,
        "cmx": ChromaticCMX(*_list(par, "CMX")) if par.prefixed("CMX_") else None,
        "cm_waves": _waves(par, CMWaveX, "CMWX"),
        "spin": Spindown(*_list(par, "F")),
        "jump": PhaseJump(*_list(par, "JUMP")),
        "glitch": _glitch(par),
        "wave": _wave(par),
        "pieces": _pieces(par),
        "table": _table(par),
        "dm_jump": DispersionJump(*_list(par, "DMJUMP")) if par.numbered("DMJUMP") else None,
        "offset": PhaseOffset(jnp.zeros(())),
    }


def _is_zero(text: str) -> bool:
    return not text.strip("0.+-eEdD")


def listed(par: Par, leaf: str) -> tuple[str, ...]:
    """The par file's names of the elements of a list: `F` is F0, F1, ...; `DMX` all windows in rising order.

    **Raises:** `ValueError` for a list that starts late.
    """
    if leaf in _FROM_ONE:
        return par.numbered(leaf)
    if leaf in _FROM_ZERO:
        return par.numbered(leaf, 0)
    if leaf in _POLYNOMIALS:
        return (leaf, *par.numbered(leaf))
    if leaf == "FDJUMP":
        found = [match for match in (_FD_JUMP.match(line.name) for line in par.lines) if match]
        return tuple(match[0] for match in sorted(found, key=lambda match: (int(match[1]), int(match[2]))))
    if leaf in _PIECES:
        return tuple(f"{leaf}_{name[5:]}" for name in par.prefixed("PWEP_"))
    if leaf in _GLITCH:
        return tuple(f"{leaf}_{name[5:]}" for name in par.prefixed("GLEP_"))
    return par.prefixed(f"{leaf}_")


def windows(par: Par) -> tuple[str, ...]:
    """Names of the DMX windows in rising order."""
    return listed(par, "DMX")


def spins(par: Par) -> tuple[str, ...]:
    """F0, F1, ...; `ValueError` without F0 or PEPOCH."""
    for name in ("F0", "PEPOCH"):
        par.value(name, None)
    return listed(par, "F")


def epoch_of_orbit(par: Par) -> Decimal:
    """The epoch from which a binary counts, MJD; PEPOCH without one."""
    return par.value(epoch_name(par), None)


def _list(par: Par, leaf: str) -> tuple[Array, Array]:
    values = [float(par.value(name)) for name in listed(par, leaf)]
    return as_array(np.zeros(len(values))), as_array(np.array(values, float))


def _astrometry(par: Par) -> AstrometryEquatorial | AstrometryEcliptic:
    if par.find("ELONG") is None:
        names = ("RAJ", "DECJ", "PMRA", "PMDEC", "PX")
        needed = ("RAJ", "DECJ")
    else:
        names, needed = ("ELONG", "ELAT", "PMELONG", "PMELAT", "PX"), ("ELONG", "ELAT")
    values = [jnp.asarray(float(par.value(name, None if name in needed else "0"))) for name in names]
    zeros = [jnp.zeros(()) for _ in names]
    if needed[0] == "RAJ":
        return AstrometryEquatorial(*zeros, *values)
    tilt = jnp.deg2rad(jnp.asarray(obliquity(par.word("ECL", "IERS2010")) / 3600))
    return AstrometryEcliptic(*zeros, *values, obliquity=tilt)  # type: ignore[misc]


def obliquity(name: str) -> float:
    """The obliquity in arcsec that ECL names."""
    if name not in OBLIQUITY:
        raise ValueError(f"ECL {name} is not known; there are {', '.join(OBLIQUITY)}")
    return OBLIQUITY[name]


def _epoch(par: Par, name: str, *, needed: bool = False) -> Array:
    """Seconds from PEPOCH to another epoch, which is PEPOCH where the par file has none and none is needed."""
    start = par.value("PEPOCH", None)
    return jnp.asarray(float((par.value(name, None if needed else str(start)) - start) * 86400))


def _wind(par: Par) -> SolarWind | None:
    names = listed(par, "NE_SW")
    lines = [line for line in (par.find(name) for name in names) if line is not None]
    noisy = par.find("TNSWAMP") is not None
    if not noisy and all(_is_zero(line.text) and not line.fit for line in lines):
        return None
    kind = par.word("SWM", "0")
    if kind not in ("0", "1"):
        raise ValueError(f"SWM {kind} is not supported; there are 0 (Edwards et al.) and 1 (any power of the distance)")
    power = jnp.asarray(float(par.value("SWP", "2"))) if kind == "1" else None
    if power is not None and not power > 1:
        raise ValueError(f"SWP is {par.word('SWP')}: the integral along the line of sight needs more than 1")
    offsets, values = _list(par, "NE_SW")
    curved = any(not _is_zero(line.text) for line in lines[1:])
    zero = None if power is None else jnp.zeros(())
    return SolarWind(offsets, zero, values, power, _epoch(par, "SWEPOCH", needed=curved))


def _chromatic(par: Par) -> Chromatic | None:
    line = par.find("CM")
    unused = line is None or (_is_zero(line.text) and not line.fit)
    if unused and not (par.prefixed("CMX_") or par.prefixed("CMWXFREQ_") or par.numbered("CM")):
        return None
    index = jnp.asarray(float(par.value("TNCHROMIDX", "4")))
    offsets, values = _list(par, "CM")
    return Chromatic(offsets, jnp.zeros(()), values, index, _epoch(par, "CMEPOCH"))


def _waves(par: Par, cls: Any, stem: str) -> Any:
    names = par.prefixed(f"{stem}FREQ_")
    if not names:
        return None
    for part in ("SIN", "COS"):
        for name in names:
            par.value(name.replace("FREQ", part), None)
    sine, cosine = (_list(par, f"{stem}{part}") for part in ("SIN", "COS"))
    frequency = jnp.asarray([float(par.value(name)) for name in names])
    return cls(sine[0], cosine[0], sine[1], cosine[1], frequency, _epoch(par, f"{stem}EPOCH"))


def _wave(par: Par) -> Wave | None:
    names = par.numbered("WAVE")
    if not names:
        return None
    pairs = [par.word(name).split() for name in names]
    for name, pair in zip(names, pairs, strict=True):
        if len(pair) < 2:
            raise ValueError(f"{name} should have two numbers, of a sine and of a cosine, but it is {' '.join(pair)!r}")
    sine, cosine = (jnp.asarray([float(pair[k]) for pair in pairs]) for k in (0, 1))
    return Wave(sine, cosine, jnp.asarray(float(par.value("WAVE_OM", None))), _epoch(par, "WAVEEPOCH"))


def _fd_jump(par: Par) -> FDJump | None:
    names = listed(par, "FDJUMP")
    if not names:
        return None
    powers = tuple(int(name[2:].split("JUMP")[0]) for name in names)
    return FDJump(*_list(par, "FDJUMP"), powers=powers, log=par.yes("FDJUMPLOG", "Y"))


def _pieces(par: Par) -> PiecewiseSpindown | None:
    epochs = par.prefixed("PWEP_")
    for part in (*_PIECES, "PWSTART", "PWSTOP"):
        for name in par.prefixed(f"{part}_"):
            par.value(f"PWEP_{name.split('_')[1]}", None)
    if not epochs:
        return None
    values = {f"{leaf}_ref": _list(par, leaf)[1] for leaf in _PIECES}
    times = {
        field: jnp.stack([_epoch(par, name.replace("PWEP", stem), needed=True) for name in epochs])
        for field, stem in (("epoch", "PWEP"), ("start", "PWSTART"), ("stop", "PWSTOP"))
    }
    return PiecewiseSpindown(**{leaf: jnp.zeros(len(epochs)) for leaf in _PIECES}, **values, **times)


def _table(par: Par) -> TabulatedPhase | None:
    names = par.numbered("IFUNC")
    if not names:
        return None
    kind = par.value("SIFUNC", None)
    if kind not in (0, 2):
        raise ValueError(f"SIFUNC {kind} is not supported; there are 0 (steps) and 2 (straight lines)")
    pairs = [par.word(name).split() for name in names]
    for name, pair in zip(names, pairs, strict=True):
        if len(pair) < 2:
            raise ValueError(f"{name} should have two numbers, an MJD and seconds, but it is {' '.join(pair)!r}")
    start = par.value("PEPOCH", None)
    days = [number(pair[0], name) - start for name, pair in zip(names, pairs, strict=True)]
    if any(later <= earlier for earlier, later in pairwise(days)):
        raise ValueError("the times of IFUNC1, IFUNC2, ... should rise")
    seconds = jnp.asarray([float(day * 86400) for day in days])
    return TabulatedPhase(seconds, jnp.asarray([float(pair[1]) for pair in pairs]), linear=kind == 2)


def _glitch(par: Par) -> Glitch | None:
    epochs = par.prefixed("GLEP_")
    for part in _GLITCH[1:]:
        for name in par.prefixed(f"{part}_"):
            par.value(f"GLEP_{name.split('_')[1]}", None)
    if not epochs:
        return None
    for name in epochs:
        order = name[5:]
        if not _is_zero(par.word(f"GLF0D_{order}", "0")) and _is_zero(par.word(f"GLTD_{order}", "0")):
            raise ValueError(f"GLF0D_{order} needs a GLTD_{order}: the time in which it decays")
        both = [line for line in (par.find(name), par.find(f"GLPH_{order}")) if line is not None and line.fit]
        if len(both) == 2:
            raise ValueError(f"{name} and GLPH_{order} say the same of the TOAs after it: only one can be fitted")
    offsets = {leaf: jnp.zeros(len(epochs)) for leaf in _GLITCH}
    values = {f"{leaf}_ref": _list(par, leaf)[1] for leaf in _GLITCH[1:]}
    return Glitch(**offsets, **values, GLEP_ref=jnp.stack([_epoch(par, name) for name in epochs]))
