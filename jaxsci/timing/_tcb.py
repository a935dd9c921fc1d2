"""Par files in TCB: their values in TDB, as PINT 1.1.8 converts them (`pint.models.tcb_conversion`).

A clock of TCB runs faster than one of TDB by 1.55e-8 (Irwin and Fukushima 1999), so that a parameter of dimension
time^n shrinks by that factor to the n, and epochs move; the components declare the dimensions. What PINT leaves alone
is left alone here too: FD, noise, WAVE, IFUNC and chromatic parameters. The conversion is approximate: such a model
should be fitted anew. `read_par` calls it.
"""

from decimal import Decimal

from ._components import EXACT, Line, entry_of, number
from ._components._line import FROM_ZERO, SERIES

_RATE = Decimal("1.55051979176e-8")
_EPOCH = Decimal("43144.0003725")  # MJD, where both clocks agree
_RATIO = 1 + _RATE


def converted(line: Line) -> Line:
    """A line of a par file in TCB, with the value in TDB; the row of UNITS stays as it was written."""
    if line.name == "UNITS":
        return line._replace(text="TDB")
    by = factor(line.name)
    if by == 1:
        return line
    error = f"{number(line.error, line.name) * by:.8E}" if line.error else ""
    if _is_epoch(line.name):
        moved = EXACT.add(EXACT.multiply(EXACT.subtract(line.value, _EPOCH), by), _EPOCH)
        return line._replace(text=f"{moved:f}", error=error)
    return line._replace(text=f"{EXACT.multiply(line.value, by):.40E}", error=error)


def factor(name: str) -> Decimal:
    """What a parameter in TCB, or its error, is multiplied by to be in TDB; 1 where PINT leaves it alone."""
    if _is_epoch(name):
        return EXACT.divide(Decimal(1), _RATIO)
    return EXACT.power(_RATIO, -_power(name))


def _is_epoch(name: str) -> bool:
    """True for a parameter that is a date, which moves."""
    entry = entry_of(name)
    return entry is not None and entry.epoch


def _power(name: str) -> int:
    """The dimension as a power of time; the k-th of a series has k less than the first."""
    entry = entry_of(name)
    if entry is None or entry.power is None:
        return 0
    if entry.form in (FROM_ZERO, SERIES):
        return entry.power - int(name[len(entry.name) :] or 0)
    return entry.power
