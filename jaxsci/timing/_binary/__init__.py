"""Orbits: the delay of a pulsar's light on its way across and out of a binary.

A companion moves the pulsar (Roemer delay), slows its clock (Einstein delay) and bends its light (Shapiro delay). The
models here are those that par files name by BINARY; each takes seconds from T0 or TASC and gives seconds of delay.
`TimingModel` holds one of them, which `from_par` puts together.
"""

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
