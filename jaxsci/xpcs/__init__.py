"""X-ray photon correlation spectroscopy: from a detector's geometry and frames to g2, fits, posteriors and a report.

A user describes the detector by `TransmissionGeometry` or `ReflectionGeometry`, hides pixels by a `Mask`, groups the
rest into a `Partition`, correlates frames over it and fits the g2 that come out. The configs of `jaxsci run` reach the
same functions through this room's task.
"""

import lazy_loader

# The names are those of __init__.pyi, each imported at its first use: finding the task of a config must not import all.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
