"""What a config of `task = "xpcs"` may name: models of g2, geometries, masks, priors.

A class of one's own enters by `--import`: a model of g2 as a subclass of `jaxsci.xpcs.AbstractG2`, a mask as one of
`jaxsci.xpcs.AbstractMask`. The task gives these to `jaxsci.runs`, which also lists them.
"""

from ...runs import Kind, Registry
from ...runs.fits import KINDS as OF_FITS
from .._geometry import AbstractGeometry, ReflectionGeometry, TransmissionGeometry
from .._mask_file import MASKS
from .._models import (
    AbstractG2,
    DispersedExponential,
    DoubleExponential,
    DoubleField,
    SingleExponential,
    StretchedExponential,
)
from .._partition import Axis


def _named(*classes: type) -> dict[str, type]:
    return {cls.__name__: cls for cls in classes}


KINDS: Registry = {
    "models": Kind(
        "model",
        (AbstractG2,),
        _named(SingleExponential, StretchedExponential, DoubleExponential, DoubleField, DispersedExponential),
    ),
    "geometries": Kind("geometry", (AbstractGeometry,), _named(TransmissionGeometry, ReflectionGeometry)),
    "masks": MASKS,
    "axes": Kind("axis", (Axis,), _named(Axis)),
    "priors": OF_FITS["priors"],
}
"""Models, geometries, masks, axes of partitions, and priors."""
