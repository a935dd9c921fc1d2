"""Partitions: the bins along one map or two to which pixels belong, dynamic ones for g2 and static ones within them.

Correlators take the labels, scattering curves the values of the bins. How an axis is cut is in `axis`, how labels are
put together and sorted in `labels`.
"""

from .axis import Axis as Axis, Cut as Cut, cut_map as cut_map, labels_of as labels_of
from .labels import (
    Labels as Labels,
    Partition as Partition,
    label_pixels as label_pixels,
    partition as partition,
    whole_labels as whole_labels,
)
