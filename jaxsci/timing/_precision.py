"""Two-double arithmetic on the host: numbers as an unevaluated sum of two float64, about 32 digits.

A phase is 1e11 turns and must be right to 1e-9: float64 has too few digits, and not every host has a longer type.
`timing._anchor` computes phases with these. The sums and products are those of Dekker (1971, Numerische Mathematik 18)
and Knuth (The Art of Computer Programming 2, section 4.2.2).
"""

from decimal import Context, Decimal
from typing import Any, NamedTuple

import numpy as np
from jax.typing import ArrayLike

Real = np.ndarray | np.floating | np.integer | float | int
"""Real numbers on the host: one, or an array of them."""

_SPLIT = 134217729.0  # 2^27 + 1
_DIGITS = Context(prec=60)


class TwoDouble(NamedTuple):
    """hi + lo, with |lo| at most half a unit in the last place of hi; numbers or arrays."""

    hi: Any
    lo: Any

    @staticmethod
    def of(value: "TwoDouble | Decimal | Real") -> "TwoDouble":
        """A float, an integer array, or a `Decimal` with all its digits."""
        if isinstance(value, TwoDouble):
            return value
        if isinstance(value, Decimal):
            hi = float(value)
            return TwoDouble(hi, float(_DIGITS.subtract(value, Decimal(hi))))
        array = np.asarray(value, float)
        return TwoDouble(array, np.zeros_like(array))

    def __add__(self, other: "TwoDouble | Decimal | Real") -> "TwoDouble":  # type: ignore[override]
        other = TwoDouble.of(other)
        s, e = _two_sum(self.hi, other.hi)
        t, f = _two_sum(self.lo, other.lo)
        s, e = _quick_sum(s, e + t)
        return TwoDouble(*_quick_sum(s, e + f))

    def __neg__(self) -> "TwoDouble":
        return TwoDouble(-self.hi, -self.lo)

    def __sub__(self, other: "TwoDouble | Decimal | Real") -> "TwoDouble":
        return self + (-TwoDouble.of(other))

    def __mul__(self, other: "TwoDouble | Decimal | Real") -> "TwoDouble":  # type: ignore[override]
        other = TwoDouble.of(other)
        p, e = _two_product(self.hi, other.hi)
        return TwoDouble(*_quick_sum(p, e + (self.hi * other.lo + self.lo * other.hi)))

    def __truediv__(self, other: "TwoDouble | Decimal | Real") -> "TwoDouble":
        other = TwoDouble.of(other)
        # one step of long division: the remainder is exact enough for the second digit
        first = self.hi / other.hi
        rest = self - other * first
        return TwoDouble(*_quick_sum(first, rest.hi / other.hi))

    def float(self) -> Any:
        """The nearest float64."""
        return self.hi + self.lo

    def round(self) -> Any:
        """The nearest integer, as a float64."""
        whole = np.round(self.hi)
        return whole + np.round((self.hi - whole) + self.lo)


def _two_sum(a: Real, b: Real) -> tuple[Any, Any]:
    s = a + b
    # what rounding took away is a float64 itself, and comes out exactly
    t = s - a
    return s, (a - (s - t)) + (b - t)


def _quick_sum(a: Real, b: Real) -> tuple[Any, Any]:
    s = a + b
    return s, b - (s - a)


def _two_product(a: Real, b: Real) -> tuple[Any, Any]:
    p = a * b
    # halves of 26 bits, whose products are exact
    a1, a2 = _split(a)
    b1, b2 = _split(b)
    return p, ((a1 * b1 - p) + a1 * b2 + a2 * b1) + a2 * b2


def _split(a: Real) -> tuple[Any, Any]:
    t = _SPLIT * a
    high = t - (t - a)
    return high, a - high


def seconds_between(day: ArrayLike, second: TwoDouble, epoch: Decimal) -> TwoDouble:
    """Seconds from an epoch (MJD) to times given as integer days and seconds of the day."""
    whole = int(epoch)
    return TwoDouble.of((np.asarray(day, float) - whole) * 86400.0) + (second - TwoDouble.of((epoch - whole) * 86400))


def phase(elapsed: TwoDouble, frequencies: list[TwoDouble]) -> TwoDouble:
    """Turns after `elapsed` seconds: sum_k F_k t^(k+1) / (k+1)!."""
    total = TwoDouble.of(np.zeros_like(elapsed.hi))
    for k in range(len(frequencies) - 1, -1, -1):
        total = (total + frequencies[k]) * elapsed / float(k + 1)
    return total
