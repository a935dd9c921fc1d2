"""Masks: rules that say which pixels are used, regions that are drawn, and a history of both.

Tasks and users put them together and ask them of a `View`. The rules are in `rules`, the regions in `shapes`; how they
are written down is the affair of `_mask_file`.
"""

from .rules import (
    AbstractMask as AbstractMask,
    And as And,
    BadPixels as BadPixels,
    Blemish as Blemish,
    MapRange as MapRange,
    MaskHistory as MaskHistory,
    Not as Not,
    Or as Or,
    Outliers as Outliers,
    PixelMask as PixelMask,
    Threshold as Threshold,
    View as View,
    within as within,
)
from .shapes import Circle as Circle, Ellipse as Ellipse, Line as Line, Polygon as Polygon, Rectangle as Rectangle
