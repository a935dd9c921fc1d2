"""From a par file to the orbit of a timing model.

BINARY names one of nine models, which differ in what describes the shape, the companion and relativity. Each is put
together from the parts in this folder; what a par file gives twice, in two parameterisations, is refused, since the two
would contradict each other. `BINARY` is the orbits' entry of `COMPONENTS`.
"""

import math
from decimal import Decimal

import jax.numpy as jnp

from .._components._line import FROM_ZERO, PICO, READ, WORD, Component, Entry, Line, Par, Respelled
from .._components._read import scalars
from .._constants import DAY, T_SUN
from ._ellipse import Ellipse
from ._kepler import AbstractBinary, AbstractShapiro, OrbitFB, OrbitPB
from ._shapiro import ShapiroHarmonics, ShapiroMax, ShapiroOrthometric, ShapiroSini
from .bt import BT
from .dd import DD, Aberration
from .ddgr import DDGR
from .ddk import Kopeikin
from .ell1 import ELL1, LinearDrift, Precession

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


def epoch_of_orbit(par: Par) -> Decimal:
    """The epoch from which a binary counts, MJD; PEPOCH without one."""
    return par.value(epoch_name(par), None)


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
        drift = scalars(Precession if kind == "ELL1K" else LinearDrift, par)
        others = {"orbit": orbit, "drift": drift, "shapiro": _shapiro(par, kind)}
        return scalars(ELL1, par, rare=("A1DOT2",), others=others)
    parts = {"orbit": orbit, "ellipse": scalars(Ellipse, par, rare=("A1DOT2",))}
    if kind == "BT":
        return scalars(BT, par, others=parts)
    if kind == "DDGR":
        _check_relativity(par)
        return scalars(DDGR, par, others=parts)
    extra = None
    if any(par.find(name) is not None for name in ("A0", "B0", "DR", "DTH")):
        extra = scalars(Aberration, par)
    return scalars(DD, par, others=parts | {"shapiro": _shapiro(par, kind), "aberration": extra})


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
    # frequencies take the place of PB and PBDOT altogether; giving both was refused before
    if par.find("FB0") is None:
        if kind_of(par) == "DDGR":  # which has PBDOT from the masses
            return scalars(OrbitPB, par, without=("PBDOT",))
        return scalars(OrbitPB, par, rare=("XPBDOT",))
    values = jnp.asarray([float(par.value(name)) for name in _FB.elements(par)])
    return OrbitFB(jnp.zeros_like(values), values)


def _shapiro(par: Par, kind: str) -> AbstractShapiro | Kopeikin | ShapiroHarmonics:
    """The companion's Shapiro delay in the parameterisation of the model."""
    if kind == "DDS":
        return scalars(ShapiroMax, par)
    if kind == "DDK":
        return scalars(Kopeikin, par, others={"proper_motion": par.yes("K96", "Y")})
    if kind == "DDH" or (kind == "ELL1H" and par.find("STIGMA") is not None):
        return scalars(ShapiroOrthometric, par)
    if kind == "ELL1H":
        return scalars(ShapiroHarmonics, par, rare=("H4",), others={"count": max(7, int(par.value("NHARMS", "7")))})
    return scalars(ShapiroSini, par)


def _of_t2(lines: list[Line]) -> list[Line]:
    """BINARY T2 as the model that it stands for, as PINT's `allow_T2` chooses: the first that has all the parameters.

    T2 counts the angles KIN and KOM from other directions than DDK (IAU against Damour and Taylor 1992).
    """
    has = {line.name for line in lines}
    if not any(line.name == "BINARY" and line.text.upper() == "T2" for line in lines):
        return lines
    kind = "DD"
    if "TASC" in has:
        kind = "ELL1H" if "H3" in has else "ELL1k" if "LNEDOT" in has else "ELL1"
    elif has & {"KIN", "KOM"}:
        kind = "DDK"
        if not {"KIN", "KOM", "PX"} <= has:
            raise ValueError("BINARY T2 with KIN or KOM is DDK, which needs KIN, KOM and a positive PX")
    else:
        kind = "DDH" if "H3" in has else "DDS" if "SHAPMAX" in has else "DDGR" if "MTOT" in has else "DD"
    turned = {"KIN": 180, "KOM": 90} if kind == "DDK" else {}
    found = []
    for line in lines:
        if line.name == "BINARY":
            found.append(line._replace(text=kind))
        elif line.name in turned:
            found.append(line._replace(text=str(turned[line.name] - line.value)))
        elif not (kind == "DDK" and line.name == "SINI"):  # for which T2 has the word KIN
            found.append(line)
    return found


_FB = Entry("FB", FROM_ZERO, power=-1, respelled=Respelled(r"^FB$", "FB0"))
BINARY = Component(
    "binary",
    (
        Entry("BINARY", role=READ, look=WORD, translate=_of_t2),
        *(Entry("PB", power=1), Entry("PBDOT", look=PICO), Entry("XPBDOT", look=PICO), _FB),
        *(Entry("A1", power=1), Entry("A1DOT", look=PICO, aliases=("XDOT",))),
        *(Entry("A1DOT2", aliases=("X2DOT",), power=-1), Entry("T0", epoch=True), Entry("TASC", epoch=True)),
        *(Entry("ECC", aliases=("E",)), Entry("EDOT", look=PICO, aliases=("ECCDOT",), power=-1), Entry("OM")),
        *(Entry("OMDOT", power=-1), Entry("XOMDOT", power=-1), Entry("GAMMA", power=1)),
        *(Entry("EPS1"), Entry("EPS2"), Entry("EPS1DOT", power=-1), Entry("EPS2DOT", power=-1)),
        *(Entry("LNEDOT", power=-1), Entry("A0", power=1), Entry("B0", power=1)),
        *(Entry("DR"), Entry("DTH", aliases=("DTHETA",)), Entry("MTOT", power=1)),
        *(Entry("M2", power=1), Entry("SINI"), Entry("SHAPMAX"), Entry("H3", power=1), Entry("H4", power=1)),
        *(Entry("STIGMA", aliases=("VARSIGMA", "STIG")), Entry("NHARMS", role=READ)),
        *(Entry("KIN"), Entry("KOM"), Entry("K96", role=READ, look=WORD)),
    ),
    binary_of,
)
