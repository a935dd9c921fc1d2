"""From a par file to the orbit of a timing model."""

import math
from typing import Any

import jax.numpy as jnp

from ._binary import (
    BT,
    DD,
    DDGR,
    ELL1,
    Aberration,
    AbstractBinary,
    Ellipse,
    Kopeikin,
    LinearDrift,
    OrbitFB,
    OrbitPB,
    Precession,
    ShapiroHarmonics,
    ShapiroMax,
    ShapiroOrthometric,
    ShapiroSini,
)
from ._constants import DAY, T_SUN
from ._par import Par

_CIRCULAR = ("ELL1", "ELL1H", "ELL1K")
_NEEDED = {
    "BT": (),
    "DD": (),
    "DDS": ("SHAPMAX",),
    "DDH": ("H3", "STIGMA"),
    "DDK": ("KIN", "KOM"),
    "DDGR": ("MTOT", "M2"),
    "ELL1": (),
    "ELL1H": ("H3",),
    "ELL1K": (),
}
_AGAINST: tuple[tuple[str, str], ...] = (
    *(("PB", "FB0"), ("PBDOT", "FB0"), ("SINI", "SHAPMAX"), ("SINI", "KIN"), ("SINI", "STIGMA"), ("SINI", "H3")),
    *(("M2", "H3"), ("H4", "STIGMA"), ("T0", "TASC"), ("ECC", "EPS1"), ("OM", "EPS1"), ("SINI", "MTOT")),
)
_WITHIN = {"SINI": (0, 1), "ECC": (0, 1), "M2": (0, math.inf), "A1": (0, math.inf), "SHAPMAX": (-math.log(2), math.inf)}


def kind_of(par: Par) -> str:
    """The par file's BINARY in capitals; empty without one."""
    kind = par.word("BINARY").upper()
    if kind and kind not in _NEEDED:
        raise ValueError(f"BINARY {par.word('BINARY')} is not supported; there are {', '.join(_NEEDED)}")
    return kind


def epoch_name(par: Par) -> str:
    """The line with the epoch from which the orbit counts: T0 or TASC; PEPOCH without a binary."""
    kind = kind_of(par)
    return ("TASC" if kind in _CIRCULAR else "T0") if kind else "PEPOCH"


def binary_of(par: Par) -> AbstractBinary | None:
    """The par file's binary.

    **Raises:** `ValueError` for one that is not supported, lacks a line, or has lines that contradict each other.
    """
    kind = kind_of(par)
    if not kind:
        return None
    _check(par, kind)
    orbit = _orbit(par)
    if kind in _CIRCULAR:
        drift = _scalars(par, Precession if kind == "ELL1K" else LinearDrift)
        return _scalars(par, ELL1, ("A1DOT2",), orbit=orbit, drift=drift, shapiro=_shapiro(par, kind))
    ellipse = _scalars(par, Ellipse, ("A1DOT2",))
    if kind == "BT":
        return _scalars(par, BT, orbit=orbit, ellipse=ellipse)
    if kind == "DDGR":
        _check_relativity(par)
        return _scalars(par, DDGR, orbit=orbit, ellipse=ellipse)
    extra = None
    if any(par.find(name) is not None for name in ("A0", "B0", "DR", "DTH")):
        extra = _scalars(par, Aberration)
    return _scalars(par, DD, orbit=orbit, ellipse=ellipse, shapiro=_shapiro(par, kind), aberration=extra)


def _check(par: Par, kind: str) -> None:
    for one, other in _AGAINST:
        if par.find(one) is not None and par.find(other) is not None:
            raise ValueError(f"the par file gives both {one} and {other}, which contradict or repeat each other")
    for name in ("PB" if par.find("FB0") is None else "FB0", "A1", epoch_name(par), *_NEEDED[kind]):
        par.value(name, None)
    for name, (low, high) in _WITHIN.items():
        if par.find(name) is not None and not low <= (value := float(par.value(name))) <= high:
            raise ValueError(f"{name} is {value}, but it should lie from {low} to {high}")
    for name in ("PB", "FB0"):
        if par.find(name) is not None and not par.value(name) > 0:
            raise ValueError(f"{name} is {par.word(name)}, but it should be positive")
    if float(par.value("ECC")) == 1:
        raise ValueError("ECC is 1, but an orbit's eccentricity is below 1")
    if kind == "DDK" and not par.value("PX") > 0:
        raise ValueError("BINARY DDK needs a positive PX: it sees the orbit from two sides of the Earth's")
    if par.find("STIGMA") is not None and not par.value("STIGMA") > 0:
        raise ValueError(f"STIGMA is {par.word('STIGMA')}, but it should be positive")


def _check_relativity(par: Par) -> None:
    total, second = (T_SUN * float(par.value(name)) for name in ("MTOT", "M2"))
    if par.find("FB0") is not None:
        raise ValueError("BINARY DDGR needs PB in place of FB0")
    axis = (total * (float(par.value("PB")) * DAY / (2 * math.pi)) ** 2) ** (1 / 3)
    sine = float(par.value("A1")) * total / axis / second if second else math.inf
    if not sine <= 1:
        raise ValueError(f"MTOT, M2, A1 and PB mean that SINI is {sine:.4g}, but it is at most 1")


def _orbit(par: Par) -> OrbitPB | OrbitFB:
    if par.find("FB0") is None:
        if kind_of(par) == "DDGR":  # which has PBDOT from the masses
            return _scalars(par, OrbitPB, without=("PBDOT",))
        return _scalars(par, OrbitPB, ("XPBDOT",))
    values = jnp.asarray([float(par.value(name)) for name in par.numbered("FB", 0)])
    return OrbitFB(jnp.zeros_like(values), values)


def _shapiro(par: Par, kind: str) -> Any:
    if kind == "DDS":
        return _scalars(par, ShapiroMax)
    if kind == "DDK":
        return _scalars(par, Kopeikin, proper_motion=par.yes("K96", "Y"))
    if kind == "DDH" or (kind == "ELL1H" and par.find("STIGMA") is not None):
        return _scalars(par, ShapiroOrthometric)
    if kind == "ELL1H":
        return _scalars(par, ShapiroHarmonics, ("H4",), count=max(7, int(par.value("NHARMS", "7"))))
    return _scalars(par, ShapiroSini)


def _scalars(par: Par, cls: Any, rare: tuple[str, ...] = (), without: tuple[str, ...] = (), **others: Any) -> Any:
    """A component from the par file's values: 0 where it has none, `None` for a `rare` one that it lacks."""
    names = [name for name in cls.__dataclass_fields__ if name.isupper() or name[:-4].isupper()]
    values: dict[str, Any] = {}
    for name in names:
        if name.endswith("_ref"):
            continue
        absent = name in without or (name in rare and par.find(name) is None)
        values[name] = None if absent else jnp.zeros(())
        if f"{name}_ref" in names:
            values[f"{name}_ref"] = None if absent else jnp.asarray(float(par.value(name)))
    return cls(**values, **others)
