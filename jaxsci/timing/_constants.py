"""Constants of pulsar timing, with the values that PINT takes.

Two programs that differ in the last digits of the astronomical unit or of the dispersion constant differ in their
residuals by nanoseconds. Every file of this room takes its constants from here.
"""

import math

DAY = 86400.0
"""Seconds in a day."""

YEAR = 365.25 * DAY
"""Seconds in a Julian year."""

LIGHT = 299792458.0
"""Speed of light, m/s."""

AU = 149597870700.0 / LIGHT
"""Astronomical unit, light seconds (IAU 2012)."""

KPC = 3.0856775814913674e19 / LIGHT
"""Kiloparsec, light seconds."""

T_SUN = 4.92549094830932e-06
"""G M_sun / c^3, s."""

PLANETS = {
    "jupiter": T_SUN / 1047.3486,
    "saturn": T_SUN / 3497.898,
    "venus": T_SUN / 408523.71,
    "uranus": T_SUN / 22902.98,
    "neptune": T_SUN / 19412.24,
}
"""G M / c^3 of the planets whose Shapiro delay counts, s."""

K_DM = 1 / 2.41e-4
"""Dispersion constant, s MHz^2 / (pc cm^-3): 1 / 2.41e-4 exactly, by convention (Taylor, Manchester and Lyne 1993)."""

MAS = math.pi / 180 / 3600e3
"""Milliarcsecond, rad."""

OBLIQUITY = {
    "IERS2010": 84381.406,
    "IERS2003": 84381.4059,
    "IERS1992": 84381.412,
    "DE403": 84381.412,
    "DE405": 84381.40578,
    "IAU1976": 84381.448,
    "IAU1980": 84381.448,
    "IAU2000": 84381.4059,
    "IAU2005": 84381.406,
    "IAU2006": 84381.406,
    "DEFAULT": 84381.406,
}
"""Obliquity of the ecliptic by the name that a par file's ECL gives it, arcsec."""
