"""Detectors in transmission and at grazing incidence, and the maps of reciprocal space that follow from where they stand.

Masks, partitions and SAXS curves of this room ask a geometry for its maps by name. The detectors are in `detector`, the
arithmetic under them in `rays`.
"""

from .detector import (
    ANGLES as ANGLES,
    HC as HC,
    AbstractGeometry as AbstractGeometry,
    ReflectionGeometry as ReflectionGeometry,
    TransmissionGeometry as TransmissionGeometry,
    cached_map as cached_map,
    detector_axes as detector_axes,
    q_at as q_at,
    q_by_sine as q_by_sine,
)
