"""Area `xpcs`: q maps and partitions, correlators, fits of g2 and posteriors, each beside its peer in the same run.

The cases stand in `_xpcs_maps`, `_xpcs_correlators`, `_xpcs_fits` and `_nuts`, in the order in which a measurement goes
through them.
"""

import jaxsci as js

js.enable_x64()  # before the cases make arrays

from . import _nuts, _xpcs_correlators, _xpcs_fits, _xpcs_maps  # noqa: E402
from ._harness import Area, case  # noqa: E402

AREA: Area = []

for _name, _rows in (
    ("q map", _xpcs_maps.map_rows),
    ("partition", _xpcs_maps.partition_rows),
    ("saxs", _xpcs_maps.saxs_rows),
):
    case(AREA, _name)(_rows)

AREA += [*_xpcs_correlators.AREA, *_xpcs_fits.AREA, *_nuts.AREA]
