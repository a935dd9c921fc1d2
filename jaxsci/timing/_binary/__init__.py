"""Orbits: delays by a companion."""

from ._ellipse import Ellipse as Ellipse
from ._kepler import (
    AbstractBinary as AbstractBinary,
    AbstractShapiro as AbstractShapiro,
    OrbitFB as OrbitFB,
    OrbitPB as OrbitPB,
    Sky as Sky,
    eccentric_anomaly as eccentric_anomaly,
)
from ._shapiro import (
    ShapiroHarmonics as ShapiroHarmonics,
    ShapiroMax as ShapiroMax,
    ShapiroOrthometric as ShapiroOrthometric,
    ShapiroSini as ShapiroSini,
)
from .bt import BT as BT
from .dd import DD as DD, Aberration as Aberration
from .ddgr import DDGR as DDGR
from .ddk import Kopeikin as Kopeikin
from .ell1 import ELL1 as ELL1, LinearDrift as LinearDrift, Precession as Precession
