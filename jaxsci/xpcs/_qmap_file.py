"""Geometry, mask and partition in one HDF5 file, so that frames are correlated elsewhere as they were prepared here.

The group `/qmap` is laid out as the q-map files of the APS are (`mask`, `dynamic_roi_map`, `static_num_pts`, ...), and
files of theirs are read too; the geometry stands beside it, since theirs keep none. `jaxsci xpcs qmap` writes such a
file and `jaxsci xpcs correlate` reads it.
"""

import contextlib
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool

from ..core import AnyArray, as_array
from ..datasets import DAMAGED, find_item, open_hdf5, parse_json, read_dataset
from ..parallel import write_atomic
from ._geometry import AbstractGeometry, ReflectionGeometry, TransmissionGeometry
from ._partition import Labels, Partition, whole_labels

if TYPE_CHECKING:
    import h5py

_UNITS = {"q": "1/A", "qx": "1/A", "qy": "1/A", "qz": "1/A", "qr": "1/A", "x": "pixel", "y": "pixel"}
_GEOMETRIES = {cls.__name__: cls for cls in (TransmissionGeometry, ReflectionGeometry)}


class QMap(NamedTuple):
    """What a q-map file holds: a partition, the pixels that are used, and the geometry where the file has one."""

    partition: Partition
    mask: Bool[Array, "v h"]
    geometry: AbstractGeometry | None


def write_qmap(
    path: str | Path, geometry: AbstractGeometry | None, mask: AnyArray, partition: Partition, group: str = "/qmap"
) -> None:
    """Write a geometry, a mask and a partition as a q-map file.

    **Arguments:** `path`: of the file, which is written whole or not at all. `geometry`: `None` where it is not known.
    `mask`: True for pixels that are used. `partition`: of the same shape. `group`: where in the file.
    """
    with written(Path(path)) as file:
        fill_qmap(file.create_group(group), geometry, mask, partition)


def fill_qmap(group: "h5py.Group", geometry: AbstractGeometry | None, mask: AnyArray, partition: Partition) -> None:
    """Write a geometry, a mask and a partition into a group of an open file, such as that of a result."""
    group.create_dataset("mask", data=np.asarray(mask, np.uint8), compression="gzip")
    group["map_names"] = list(partition.dynamic.names)
    group["map_units"] = [_UNITS.get(name, "deg") for name in partition.dynamic.names]
    for prefix, labels in (("dynamic", partition.dynamic), ("static", partition.static)):
        group.create_dataset(f"{prefix}_roi_map", data=np.asarray(labels.labels, np.uint32), compression="gzip")
        group[f"{prefix}_num_pts"] = [values.size for values in labels.values]
        group[f"{prefix}_index_mapping"] = np.asarray(labels.index, np.uint32)
        for axis, values in enumerate(labels.values):
            group[f"{prefix}_v_list_dim{axis}"] = np.asarray(values)
    if geometry is not None:
        group.attrs["geometry"] = _as_json(geometry)


def read_qmap(path: str | Path, group: str = "/qmap") -> QMap:
    """Read a q-map file of `write_qmap`, or one of the APS, whose geometry then is `None`.

    **Returns:** a `QMap`. Where the file has no static bins, they are the dynamic ones.

    **Raises:** `ValueError` naming the file and the dataset that is missing or does not fit the others.
    """
    import h5py

    path = Path(path)
    with opened(path) as file:
        found = find_item(file, group, path.resolve().parent)
        if not isinstance(found, h5py.Group):
            raise ValueError(f"{path} has no group {group}: is it a q-map file?")
        return qmap_of(found, str(path))


def qmap_of(group: "h5py.Group", where: str) -> QMap:
    """Read what `fill_qmap` wrote; `where` names the file in messages.

    **Raises:** `ValueError` as `read_qmap` does.
    """
    names: tuple[str, ...] = ("q", "phi")
    if _has(group, "map_names", where):
        found = _get(group, "map_names", where).ravel()[:2]
        names = tuple(name.decode("utf-8", "replace") if isinstance(name, bytes) else str(name) for name in found)
    dynamic = _labels(group, "dynamic", names, where)
    static = _labels(group, "static", names, where) if _has(group, "static_roi_map", where) else dynamic
    mask = _get(group, "mask", where) > 0 if _has(group, "mask", where) else np.asarray(dynamic.labels) > 0
    if mask.shape != dynamic.labels.shape:
        raise ValueError(f"{where}: the mask has shape {mask.shape}, but dynamic_roi_map {dynamic.labels.shape}")
    try:
        text = group.attrs.get("geometry")
        geometry = None if text is None else _from_json(text)
    except DAMAGED as error:
        raise ValueError(f"{where}: the attribute geometry of {group.name} is no geometry: {error}") from None
    return QMap(Partition(dynamic, static), as_array(mask), geometry)


@contextlib.contextmanager
def written(path: Path) -> Iterator["h5py.File"]:
    """An HDF5 file to write into, which takes its place at `path` in one step when all is written."""
    import h5py

    content = io.BytesIO()
    with h5py.File(content, "w") as file:
        yield file
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, content.getvalue())


@contextlib.contextmanager
def opened(path: Path) -> Iterator["h5py.File"]:
    """An HDF5 file to read; raises `ValueError`, naming it, where it is none."""
    try:
        file = open_hdf5(path)
    except FileNotFoundError as error:
        raise ValueError(str(error)) from None
    with file:
        yield file


def _labels(group: "h5py.Group", prefix: str, names: tuple[str, ...], where: str) -> Labels:
    """One partition; of static bins some files keep no more than the labels."""
    try:
        labels = whole_labels(np.atleast_2d(_get(group, f"{prefix}_roi_map", where)))
    except ValueError as error:
        raise ValueError(f"{where}: {prefix}_roi_map: {error}") from None
    if prefix == "static" and not _has(group, f"{prefix}_index_mapping", where):
        return Labels.of(labels)
    values = tuple(np.atleast_1d(_get(group, f"{prefix}_v_list_dim{axis}", where)).ravel() for axis in range(2))
    index = np.atleast_1d(_get(group, f"{prefix}_index_mapping", where)).ravel()
    if index.dtype.kind not in "biuf":
        raise ValueError(f"{where}: {prefix}_index_mapping holds {index.dtype}, where places should be")
    index = index.astype(np.int32)
    if any(x.dtype.kind not in "biuf" for x in values) or index.min(initial=0) < 0:
        raise ValueError(f"{where}: {prefix}_v_list_dim0 and 1 should be numbers, {prefix}_index_mapping places from 0")
    if labels.max(initial=0) > index.size:
        raise ValueError(
            f"{where}: {prefix}_roi_map has the bin {labels.max()}, but {prefix}_index_mapping knows {index.size}"
        )
    if index.size and index.max() >= values[0].size * values[1].size:
        raise ValueError(
            f"{where}: {prefix}_index_mapping points to bin {index.max()} of {values[0].size} x {values[1].size}"
        )
    return Labels.of(labels, index, (jnp.asarray(values[0], float), jnp.asarray(values[1], float)), names)


def _has(group: "h5py.Group", name: str, where: str) -> bool:
    return find_item(group, name, Path(where).resolve().parent) is not None


def _get(group: "h5py.Group", name: str, where: str) -> np.ndarray:
    import h5py

    found = find_item(group, name, Path(where).resolve().parent)
    if not isinstance(found, h5py.Dataset):
        raise ValueError(f"{where} has no dataset {group.name}/{name}")
    return np.asarray(read_dataset(found))


def _as_json(geometry: AbstractGeometry) -> str:
    numbers = {name: np.asarray(value).tolist() for name, value in vars(geometry).items() if name != "shape"}
    return json.dumps({"type": type(geometry).__name__, "shape": list(geometry.shape), **numbers})


def _from_json(text: str) -> AbstractGeometry:
    table = parse_json(text)
    cls = _GEOMETRIES[table.pop("type")]
    given: dict[str, Any] = {name: jnp.asarray(value) for name, value in table.items() if name != "shape"}
    return cls(shape=table["shape"], **given)
