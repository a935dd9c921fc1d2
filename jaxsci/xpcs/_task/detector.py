"""Frames of a config: where they are, the geometry of the detector, its mask and its partition.

The geometry comes from a table or a `.poni` file, the mask from a list of tables that are applied in order, the
partition from its axes; all three may instead come from one q-map file. A mask that looks at an image sees the mean of
the first frames. `config` calls `read_frames`, the commands `read_detector`.
"""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ...core import as_array
from ...datasets import check_promise, find_item
from ...runs import CLASS_ERRORS, Config, ConfigError, Registry, check_keys, construct, first_line, shown, take
from .._correlators.correlate import ERRORS
from .._correlators.frames import data_sets
from .._correlators.passes import METHODS
from .._correlators.sums import NORMALISE, no_count
from .._geometry import AbstractGeometry
from .._mask import View
from .._mask_file import masks_from_tables
from .._partition import partition
from .._poni import read_poni
from .._qmap_file import QMap, opened, read_qmap

_PARTITION = ("axes", "finer")
_CORRELATE = ("normalise", "error", "per_level", "first", "last", "method", "dtype", "two_time")
_SEEN = 64  # frames whose mean a mask may look at
_PLACE = "/entry/data/data"


@dataclasses.dataclass(frozen=True)
class Frames:
    """Frames that are to be correlated.

    - `path`, `dataset`: where they are; `shape`: how many, rows, columns. `frame_time`: between two of them, in s.
    - `geometry`, `used`, `partition`: of the detector. `options`: of the correlation. `two_time`: bins, from 1, whose
      two-time matrices are wanted.
    """

    path: Path
    dataset: str
    shape: tuple[int, ...]
    frame_time: float
    detector: QMap
    options: Mapping[str, Any]
    two_time: tuple[int, ...]

    @property
    def bins(self) -> int:
        """How many q-bins there are."""
        return self.detector.partition.dynamic.bins

    @property
    def size(self) -> str:
        """How large it is, in words."""
        return f"{self.shape[0]:,d} frames of {self.shape[1]} x {self.shape[2]}, {self.bins} q-bins"


def read_frames(table: Mapping[str, Any], where: str, config: Config, registry: Registry) -> Frames:
    """Read and check all that a correlation needs, the frames themselves left where they are.

    **Raises:** `ConfigError` naming table and key.
    """
    name = take(table, "frames", str, where)
    path = config.resolve(name, f"{where}.frames")
    place = take(table, "dataset", str, where, _PLACE)
    shape, image = look(path, place, f"{where}.frames", within=config.within)
    step = take(table, "frame_time", (int, float), where)
    if step is None or not step > 0:
        raise ConfigError(f"{where}.frame_time", f"should be the time between two frames in s, but it is {shown(step)}")
    detector = read_detector(table, shape[1:], image, config, registry)
    options = take(table, "correlate", dict, "", {})
    check_keys(options, _CORRELATE, "correlate")
    two = take(options, "two_time", list, "correlate", [])
    bins = detector.partition.dynamic.bins
    if not all(type(k) is int and 1 <= k <= bins for k in two):
        raise ConfigError("correlate.two_time", f"should be q-bins from 1 to {bins}, but it is {two}")
    rest = _options(options)
    return Frames(path, place, shape, float(step), detector, rest, tuple(two))


def _options(table: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of `correlate` that a config may give."""
    words = {"normalise": NORMALISE, "error": ERRORS, "method": METHODS, "dtype": ("float32", "float64")}
    for key, known in words.items():
        word = take(table, key, str, "correlate")
        if word is not None and word not in known:
            raise ConfigError(f"correlate.{key}", f"should be one of {', '.join(known)}, but it is {word!r}")
    for key, least in (("per_level", 1), ("first", 0), ("last", 1)):
        value = take(table, key, int, "correlate")
        if value is not None and value < least:
            raise ConfigError(f"correlate.{key}", f"should be {least} or more, but it is {value}")
    return {key: value for key, value in table.items() if key != "two_time"}


def look(
    path: Path, place: str, where: str, option: str = 'dataset = "..."', within: Path | None = None
) -> tuple[tuple[int, ...], np.ndarray]:
    """The shape of the frames, and the mean of the first ones, nan where marked as dead in one of them.

    **Arguments:** `within`: the folder in which files should lie that links lead to; `None` for anywhere.

    **Raises:** `ConfigError` where they cannot be read, with the `option` by which another data set is named.
    """
    try:
        with opened(path) as file:
            data = find_item(file, place, within)
            if data is None:
                known = ", ".join(data_sets(file)) or "none"
                raise ConfigError(where, f"{path.name} has no data set {place}: give {option}, it has {known}")
            if not isinstance(getattr(data, "shape", None), tuple):
                known = ", ".join(data_sets(data)) or "none"
                raise ConfigError(where, f"{path.name}: {place} is a group: give {option}, it has {known}")
            if len(data.shape) != 3 or 0 in data.shape:
                raise ConfigError(
                    where, f"{path.name}: {place} has shape {data.shape}, but frames need (n, rows, columns)"
                )
            if data.dtype.kind not in "iuf":
                raise ConfigError(where, f"{path.name}: {place} holds {data.dtype}, but frames are numbers")
            per = data.nbytes / data.shape[0]
            check_promise(per * min(_SEEN, data.shape[0]), path.stat().st_size, f"{path.name}: {place}")
            first = np.asarray(data[:_SEEN])
            dead, real = no_count(first), first.astype(float)
            return tuple(data.shape), (real if dead is None else np.where(dead, np.nan, real)).mean(axis=0)
    except (OSError, *CLASS_ERRORS) as error:
        if isinstance(error, ConfigError):
            raise
        raise ConfigError(where, first_line(error)) from error


def read_detector(
    table: Mapping[str, Any], shape: tuple[int, ...], image: np.ndarray | None, config: Config, registry: Registry
) -> QMap:
    """The geometry, the mask and the partition of a config; from one q-map file where `partition` names it.

    **Raises:** `ConfigError` naming table and key.
    """
    cuts = take(table, "partition", (str, dict), "")
    if cuts is None:
        raise ConfigError(
            "partition", 'give a table [partition] with axes = [{ map = "q", bins = 20 }], or a q-map file'
        )
    if isinstance(cuts, str):
        return _from_file(config.resolve(cuts, "partition"), shape)
    check_keys(cuts, _PARTITION, "partition")
    geometry = _geometry(table, shape, config, registry)
    tables = take(table, "mask", list, "", [])
    try:
        masks = masks_from_tables(tables, "mask", registry, config.resolve)
        used = np.asarray(masks.evaluate(View(shape, image, geometry)))
        axes = [
            construct(
                {"type": "Axis", **axis} if isinstance(axis, dict) else axis, "axes", registry, f"partition.axes[{k}]"
            )
            for k, axis in enumerate(take(cuts, "axes", list, "partition", []))
        ]
        if not 1 <= len(axes) <= 2:
            raise ConfigError("partition.axes", 'should be one or two, such as [{ map = "q", bins = 20 }]')
        finer = take(cuts, "finer", (int, list), "partition", [1, 1])
        return QMap(partition(geometry, used, axes, finer), as_array(used), geometry)
    except CLASS_ERRORS as error:
        if isinstance(error, ConfigError):
            raise
        raise ConfigError("partition", first_line(error)) from error


def _from_file(path: Path, shape: tuple[int, ...]) -> QMap:
    try:
        found = read_qmap(path)
    except (OSError, *CLASS_ERRORS) as error:
        raise ConfigError("partition", first_line(error)) from error
    if found.partition.labels.shape != tuple(shape):
        raise ConfigError(
            "partition", f"{path.name} has shape {found.partition.labels.shape}, frames have {tuple(shape)}"
        )
    return found


def _geometry(table: Mapping[str, Any], shape: tuple[int, ...], config: Config, registry: Registry) -> AbstractGeometry:
    given = take(table, "geometry", (str, dict), "")
    if given is None:
        raise ConfigError(
            "geometry", "give a table [geometry] with energy, centre, distance, pixel_size; or a .poni file"
        )
    try:
        if isinstance(given, str):
            return read_poni(config.resolve(given, "geometry"))
        return construct(
            {"type": "TransmissionGeometry", **given}, "geometries", registry, "geometry", {"shape": list(shape)}
        )
    except CLASS_ERRORS as error:
        if isinstance(error, ConfigError):
            raise
        raise ConfigError("geometry", first_line(error)) from error
