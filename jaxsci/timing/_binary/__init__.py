"""Orbits: delays by a companion."""

from ._kepler import eccentric_anomaly as eccentric_anomaly
from .dd import DD as DD
from .ell1 import ELL1 as ELL1
