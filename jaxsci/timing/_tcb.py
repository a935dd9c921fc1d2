"""Par files in TCB: their values in TDB, as PINT 1.1.8 converts them (`pint.models.tcb_conversion`).

A clock of TCB runs faster than one of TDB by 1.55e-8 (Irwin and Fukushima 1999), so that a parameter of dimension
time^n shrinks by that factor to the n, and epochs move. What PINT leaves alone is left alone here too: FD, noise,
WAVE, IFUNC and chromatic parameters. The conversion is approximate: such a model should be fitted anew.
"""

import re
from decimal import Context, Decimal

_EXACT = Context(prec=60)
_RATE = Decimal("1.55051979176e-8")
_EPOCH = Decimal("43144.0003725")  # MJD, where both clocks agree
_RATIO = 1 + _RATE

NAMES = ("TCB", "SI")
"""What UNITS says of a par file in TCB; SI is tempo2's word for it."""

_EPOCHS = re.compile(
    r"(PEPOCH|POSEPOCH|DMEPOCH|T0|TASC|SWEPOCH|WXEPOCH|DMWXEPOCH|CMWXEPOCH"
    r"|(GLEP|PWEP|PWSTART|PWSTOP|DMXR1|DMXR2)_\d+)$"
)
_POWERS = {  # of time, in the unit that the parameter has as it appears in a phase or a delay
    **dict.fromkeys(("PX", "PMRA", "PMDEC", "PMELONG", "PMELAT", "DM", "EDOT", "OMDOT", "XOMDOT"), -1),
    **dict.fromkeys(("EPS1DOT", "EPS2DOT", "LNEDOT", "A1DOT2"), -1),
    **dict.fromkeys(("PB", "A1", "M2", "MTOT", "GAMMA", "A0", "B0", "H3", "H4"), 1),
    "NE_SW": -2,
}
_FAMILIES = {  # by the stem of a name that ends in a number
    **dict.fromkeys(("DMX_", "GLF0_", "GLF0D_", "PWF0_", "WXFREQ_", "DMWXFREQ_", "DMWXSIN_", "DMWXCOS_"), -1),
    **dict.fromkeys(("CMWXFREQ_",), -1),
    **dict.fromkeys(("GLF1_", "PWF1_"), -2),
    **dict.fromkeys(("GLF2_", "PWF2_"), -3),
    **dict.fromkeys(("GLTD_", "WXSIN_", "WXCOS_", "CMWXSIN_", "CMWXCOS_", "JUMP"), 1),
}
_SERIES = {"F": 1, "FB": 1, "DM": 1, "NE_SW": 2}  # the k-th has the dimension time^-(k + this)


def is_epoch(name: str) -> bool:
    """True for a parameter that is a date, which moves."""
    return _EPOCHS.match(name) is not None


def factor(name: str) -> Decimal:
    """What a parameter in TCB, or its error, is multiplied by to be in TDB; 1 where PINT leaves it alone."""
    if is_epoch(name):
        return _EXACT.divide(Decimal(1), _RATIO)
    return _EXACT.power(_RATIO, -_power(name))


def as_tdb(name: str, value: Decimal) -> Decimal:
    """The value in TDB of a parameter in TCB; of an epoch the MJD."""
    if is_epoch(name):
        return _EXACT.add(_EXACT.multiply(_EXACT.subtract(value, _EPOCH), factor(name)), _EPOCH)
    return _EXACT.multiply(value, factor(name))


def _power(name: str) -> int:
    if name in _POWERS:
        return _POWERS[name]
    stem = name.rstrip("0123456789")
    if stem == name:
        return 0
    if stem in _SERIES:
        return -(int(name[len(stem) :]) + _SERIES[stem])
    return _FAMILIES.get(stem, 0)
