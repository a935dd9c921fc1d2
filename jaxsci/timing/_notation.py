"""Numbers with their errors in parentheses, as papers have them.

61.485476554373(18) says a value and the error of its last digits in half the space of a column for each. Reports and
the terminal show fitted parameters so; angles that a par file has in hours or degrees, minutes and seconds stay so.
"""

import math
from decimal import Context, Decimal

from ._components import SEXAGESIMAL, entry_of

_EXACT = Context(prec=60)


def notation(name: str, value: Decimal, std: float) -> str:
    """A value with the error of its last digits: 61.485476554373(18); RAJ and DECJ sexagesimal.

    **Arguments:** `name`: PINT's; `value`, `std`: in its unit, RAJ in hours. Without a finite error, 16 digits.
    """
    known = math.isfinite(std) and std > 0
    entry = entry_of(name)
    if entry is not None and entry.look == SEXAGESIMAL:
        seconds = _EXACT.multiply(abs(value), Decimal(3600))
        whole, rest = divmod(seconds, 60)
        text = _digits(rest, Decimal(3600 * std)) if known else f"{rest:.9f}"
        minutes = int(whole)
        padded = text if text.split("(")[0].split(".")[0][1:2] else f"0{text}"
        return f"{'-' if value < 0 else ''}{minutes // 60:02d}:{minutes % 60:02d}:{padded}"
    return _with_error(value, std) if known else f"{float(value):.16g}"


def said(name: str, value: Decimal, std: float, unit: str) -> dict[str, str]:
    """The texts of a row of a report: `text`, a value in `notation`, and those of angles.

    An angle in hours or degrees, minutes and seconds has `std_text` as well, its error in seconds of time or of arc,
    and `unit_text`.

    **Arguments:** those of `notation`; `unit`: in which value and error are.
    """
    entry = entry_of(name)
    texts = {"text": notation(name, value, std)}
    if entry is None or entry.look != SEXAGESIMAL:
        return texts
    hours = unit == "hourangle"
    error = f"{3600 * std:.2g} {'s' if hours else 'arcsec'}" if math.isfinite(std) else f"{std}"
    return texts | {"std_text": error, "unit_text": "h:m:s" if hours else "d:m:s"}


def _with_error(value: Decimal, std: float) -> str:
    """Two digits of the error; with a power of ten where the value is far from 1."""
    error = Decimal(std)
    size = max(abs(value), error).adjusted()
    if -4 <= size <= 6 and error.adjusted() <= 1:
        return _digits(value, error)
    return f"{_digits(value.scaleb(-size), error.scaleb(-size))}e{size:+d}"


def _digits(value: Decimal, error: Decimal) -> str:
    last = error.adjusted() - 1
    if last >= 0:
        return f"{value:.0f}({error:.0f})"
    shown = value.quantize(Decimal(1).scaleb(last), context=_EXACT)
    digits = int(error.scaleb(-last).to_integral_value())
    if digits >= 100:  # 0.0996 is 0.10
        return f"{value:.{-last - 1}f}({digits // 10})"
    return f"{shown:f}({digits})"
