"""Result files of correlated measurements: the NeXus-like layout of APS 8-ID, its older one, and any other by a map.

Real files carry no reliable mark of their version, so that data sets are looked for where each layout has them; what a
file lacks and need not have is `None`. Numbers come as `()` or `(1, 1)` alike. A file that is damaged, half written or
of another kind is refused with its name and that of the data set. `jaxsci xpcs`, the task and users call `read_result`
and `write_result`. Files are read and written on the host, by NumPy and h5py.
"""

import os
import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from ..core import suggest
from ..datasets import CONFIG_BYTES, FileError, find_item, open_hdf5, parse_toml, read_dataset, read_text
from ._geometry import HC, TransmissionGeometry
from ._global import Curves
from ._result import Pixels, Scattering, TwoTimeMaps, XPCSResult

_Q, _ROOT = "/xpcs/qmap", "/xpcs/multitau"
_OLD, _MEASURED = "/exchange", "/measurement/instrument"

PATHS: dict[str, tuple[str, ...]] = {
    "g2": (f"{_ROOT}/normalized_g2", f"{_OLD}/norm-0-g2"),
    "g2_error": (f"{_ROOT}/normalized_g2_err", f"{_OLD}/norm-0-stderr"),
    "g2_covariance": (f"{_ROOT}/normalized_g2_covariance",),
    "delays": (f"{_ROOT}/delay_list", f"{_OLD}/tau"),
    "frame_time": ("/entry/instrument/detector_1/frame_time", f"{_MEASURED}/detector/exposure_period"),
    "average": (f"{_ROOT}/config/avg_frame", "/xpcs/avg_frames"),
    "stride": (f"{_ROOT}/config/stride_frame", "/xpcs/stride_frames"),
    "q": (f"{_Q}/dynamic_v_list_dim0", "/xpcs/dqlist"),
    "phi": (f"{_Q}/dynamic_v_list_dim1", "/xpcs/dphilist"),
    "columns": (f"{_Q}/dynamic_index_mapping",),
    "static_q": (f"{_Q}/static_v_list_dim0", "/xpcs/sqlist"),
    "static_phi": (f"{_Q}/static_v_list_dim1", "/xpcs/sphilist"),
    "static_columns": (f"{_Q}/static_index_mapping",),
    "map_names": (f"{_Q}/map_names",),
    "map_units": (f"{_Q}/map_units",),
    "labels": (f"{_Q}/dynamic_roi_map", "/xpcs/dqmap"),
    "static_labels": (f"{_Q}/static_roi_map", "/xpcs/sqmap"),
    "mask": (f"{_Q}/mask", "/xpcs/mask"),
    "scattering_1d": ("/xpcs/temporal_mean/scattering_1d", f"{_OLD}/partition-mean-total"),
    "segments": ("/xpcs/temporal_mean/scattering_1d_segments", f"{_OLD}/partition-mean-partial"),
    "scattering_2d": ("/xpcs/temporal_mean/scattering_2d", f"{_OLD}/pixelSum"),
    "intensity": ("/xpcs/spatial_mean/intensity_vs_time", f"{_OLD}/frameSum"),
    "two_time": ("/xpcs/twotime/correlation_map", f"{_OLD}/C2T_all"),
    "energy": (f"{_Q}/energy", f"{_MEASURED}/source_begin/energy"),
    "distance": (f"{_Q}/detector_distance", f"{_MEASURED}/detector/distance"),
    "pixel_size": (f"{_Q}/pixel_size", f"{_MEASURED}/detector/x_pixel_size"),
    "centre_x": (f"{_Q}/beam_center_x", f"{_MEASURED}/acquisition/beam_center_x"),
    "centre_y": (f"{_Q}/beam_center_y", f"{_MEASURED}/acquisition/beam_center_y"),
}
"""Where each quantity is looked for, in this order; `read_layout` puts other places in front."""

_NEEDED = ("g2", "delays", "frame_time", "q")
_NUMBERED = re.compile(r"_\d{1,9}$", re.ASCII)
_UNITS = 1000.0  # a length in m is tried as mm too
_WORDS = 100  # names of maps that are looked at, where two are what there can be
_LOW = 0.5  # below it the middle of no g2 lies


def read_layout(path: str | os.PathLike[str]) -> dict[str, str]:
    """Read where a beamline's files keep what, from a TOML file with one line for each quantity, such as `g2 = "/a/b"`.

    **Raises:** `ValueError` for a name that is no quantity of `PATHS`.
    """
    text = read_text(path, CONFIG_BYTES)
    try:
        table = parse_toml(text)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    return check_layout(table, str(path))


def check_layout(table: Mapping[str, object], where: str) -> dict[str, str]:
    """Hold a map of quantities to places against the quantities that there are.

    **Raises:** `ValueError` with the nearest name for one that is not known, and for a place that is no text.
    """
    for name, place in table.items():
        if name not in PATHS:
            raise ValueError(f"{where}: there is no quantity {name!r}{suggest(name, PATHS)} ({', '.join(PATHS)})")
        if not isinstance(place, str):
            raise ValueError(f'{where}: {name} should be a path in the file, such as "/entry/data/g2", not {place!r}')
    return {name: str(place) for name, place in table.items()}


def read_result(
    path: str | os.PathLike[str],
    layout: Mapping[str, str] | None = None,
    *,
    within: str | os.PathLike[str] | None = None,
) -> XPCSResult:
    """Read the result file of a correlated measurement.

    **Arguments:** `path`: an HDF5 file. `layout`: places of quantities that are not where `PATHS` has them, as
    `read_layout` reads them. `within`: a folder that all files should lie in to which links of the file lead; `None`
    for anywhere.

    **Returns:** an `XPCSResult`; delays in s, q in 1/Å.

    **Raises:** `ValueError` naming file and data set where one is missing, damaged, or does not fit the others;
    `FileNotFoundError`.
    """
    with open_hdf5(path) as file:
        places = check_layout(layout or {}, str(path))
        return _result(_Reader(file, Path(path), places, None if within is None else Path(within)))


class _Reader:
    """Looks a file's data sets up and reads them whole, with errors that say which."""

    def __init__(self, file: Any, path: Path, layout: Mapping[str, str], within: Path | None):
        self.file, self.path, self.within = file, path, within
        self.places = {name: self._place(name, layout) for name in PATHS}
        missing = [name for name in _NEEDED if self.places[name] is None]
        if missing:
            tried = " or ".join([layout[missing[0]]] if missing[0] in layout else PATHS[missing[0]])
            raise ValueError(
                f"{path} has no {missing[0]} at {tried}: if it is the file of another beamline, say where it is by a "
                f'layout, such as {missing[0]} = "/path/in/the/file"'
            )

    def _place(self, name: str, layout: Mapping[str, str]) -> str | None:
        places = (layout[name],) if name in layout else PATHS[name]
        return next((place for place in places if self.find(place) is not None), None)

    def find(self, place: str) -> Any:
        """The data set or group at a place; `None` where there is none."""
        return find_item(self.file, place, self.within)

    def array(self, name: str) -> Any:
        """A data set as it stands in the file; `None` where there is none."""
        place = self.places[name]
        return None if place is None else self.read(place)

    def read(self, place: str) -> Any:
        """The data set at a place; raises `ValueError` where it is damaged, empty or a group."""
        import h5py

        item = self.find(place)
        if isinstance(item, h5py.Group):
            raise ValueError(f"{self.path}: {place} is a group, where a data set should be")
        try:
            value = read_dataset(item)
        except FileError as error:
            raise ValueError(f"{self.path}: the data set {place} cannot be read: {error}") from error
        if not isinstance(value, np.ndarray | np.generic | bytes | str) or (
            isinstance(value, np.ndarray) and not value.size
        ):
            raise ValueError(f"{self.path}: the data set {place} is empty: was the file written to its end?")
        return value

    def number(self, name: str, default: float | None = None) -> Any:
        """A number, whether it is there as `()`, `(1,)` or `(1, 1)`."""
        value = self.array(name)
        if value is None:
            return default
        found = self.floats(value, name).ravel()
        if found.size != 1:
            raise self.wrong(name, f"has shape {np.shape(value)}, but it should be one number")
        if not np.isfinite(found[0]):
            raise self.wrong(name, f"is {found[0]}")
        return float(found[0])

    def line(self, name: str) -> Any:
        """Numbers in one row, whether they are there as `(n,)`, `(1, n)` or `(n, 1)`."""
        value = self.array(name)
        return None if value is None else self.floats(value, name).ravel()

    def floats(self, value: Any, name: str) -> np.ndarray:
        """Numbers in double precision."""
        found = np.asarray(value)
        if found.dtype.kind not in "biuf":
            raise self.wrong(name, f"holds {found.dtype}, where numbers should be")
        return found.astype(np.float64)

    def words(self, name: str) -> tuple[str, ...]:
        """Texts, written as bytes or as text."""
        value = self.array(name)
        found = () if value is None else np.ravel(np.asarray(value, object))[:_WORDS]
        return tuple(w.decode("utf-8", "replace") if isinstance(w, bytes) else str(w) for w in found)

    def wrong(self, name: str, what: str) -> ValueError:
        """The error for a data set."""
        return ValueError(f"{self.path}: {self.places[name]} {what}")


def _result(reader: _Reader) -> XPCSResult:
    step = reader.number("frame_time")
    average, stride = (_count(reader, name) for name in ("average", "stride"))
    if not step > 0:
        raise reader.wrong("frame_time", f"is {step}, but it should be a time above 0, in s")
    curves, phi = _curves(reader, (step, average, stride))
    pixels = _pixels(reader)
    return XPCSResult(
        curves=curves,
        frame_time=jnp.asarray(step),
        average=average,
        stride=stride,
        name=reader.path.stem,
        phi=None if phi is None else jnp.asarray(phi),
        scattering=_scattering(reader),
        pixels=pixels,
        intensity=_intensity(reader, step),
        two_time=_two_time(reader, step * average * stride),
        geometry=_geometry(reader, pixels, curves),
    )


def _count(reader: _Reader, name: str) -> int:
    value = reader.number(name, 1.0)
    if value != int(value) or value < 1:
        raise reader.wrong(name, f"is {value}, but it should be a number of frames, 1 or more")
    return int(value)


def _curves(reader: _Reader, steps: tuple[float, int, int]) -> tuple[Curves, np.ndarray | None]:
    """The curves, and phi of each."""
    delays = reader.line("delays")
    g2 = reader.floats(reader.array("g2"), "g2")
    if g2.ndim == 1:
        g2 = g2[:, None]
    if g2.shape[:1] != delays.shape or g2.ndim != 2:
        raise reader.wrong("g2", f"has shape {g2.shape}, but {delays.size} delays need ({delays.size}, q-bins)")
    if not (np.isfinite(delays).all() and (delays >= 0).all()):
        raise reader.wrong("delays", "has entries that are negative or no numbers")
    once, often = np.unique(delays, return_counts=True)
    if once.size < delays.size:
        raise reader.wrong("delays", f"has the delay {once[often > 1][0]:g} twice: write each of them once")
    q, phi = _axes(reader, _DYNAMIC, g2.shape[1], "g2")
    sigma = reader.array("g2_error")
    mask = np.isfinite(g2) & (g2 != 0)  # a correlator writes 0 where it had no pair of frames
    _look_at_level(reader, g2[mask])
    if sigma is not None:
        sigma = reader.floats(sigma, "g2_error")
        if sigma.size != g2.size:
            raise reader.wrong("g2_error", f"has shape {sigma.shape}, but g2 has shape {g2.shape}")
        sigma = sigma.reshape(g2.shape)
        known = np.isfinite(sigma) & (sigma > 0)
        if mask.any() and not known.any():
            raise reader.wrong(
                "g2_error",
                "has no error above zero, so that no point counts; to fit without errors give a layout with a place "
                'that is not there, g2_error = "/none"',
            )
        mask &= known
    covariance = _covariance(reader, g2.shape)
    every = (_seconds(delays, steps), g2, sigma, mask, q, covariance)
    return Curves(*(jnp.asarray(x) if x is not None else None for x in every)), phi  # type: ignore[arg-type]


def _look_at_level(reader: _Reader, g2: np.ndarray) -> None:
    """Warn where g2 lies so low that 1 must have been subtracted."""
    middle = np.median(g2) if g2.size else 1.0
    if middle < _LOW:
        warnings.warn(
            f"{reader.path}: {reader.places['g2']} lies about {middle:.3g}, where a g2 ends at 1: does it hold g2 - 1? "
            "Then add 1 to it",
            stacklevel=6,
        )


def _covariance(reader: _Reader, shape: tuple[int, int]) -> np.ndarray | None:
    """How the lags of each q-bin hang together, (q, n, n); only files written here have it."""
    found = reader.array("g2_covariance")
    if found is None:
        return None
    found = reader.floats(found, "g2_covariance")
    wanted = (shape[1], shape[0], shape[0])
    if found.shape != wanted:
        raise reader.wrong("g2_covariance", f"has shape {found.shape}, but g2 of shape {shape} needs {wanted}")
    if not np.isfinite(found).all():
        raise reader.wrong("g2_covariance", "has entries that are no numbers")
    return found


class _Axis(NamedTuple):
    """The quantities that say where the bins of one kind lie."""

    first: str
    second: str
    columns: str
    labels: str


_DYNAMIC = _Axis("q", "phi", "columns", "labels")
_STATIC = _Axis("static_q", "static_phi", "static_columns", "static_labels")


def _axes(reader: _Reader, axis: _Axis, count: int, of: str) -> tuple[np.ndarray, np.ndarray | None]:
    """(q, phi) of each of `count` bins; phi is `None` where bins are rings.

    A partition is a grid of q and phi, of which only the bins that have pixels are counted: a list says which, or, in
    older files, the labels themselves. Lists as long as there are bins are of the bins.
    """
    q, phi = reader.line(axis.first) * _per_angstrom(reader), reader.line(axis.second)
    names, size = reader.words("map_names"), 1 if phi is None else phi.size
    if names and names[0] != "q":
        raise reader.wrong("map_names", f"says that bins are of {names[0]}, but only bins of q can be read")
    at = reader.line(axis.columns)
    if at is None and phi is not None and phi.size == q.size == count:
        return _lengths(reader, axis, q), phi
    if at is None:
        at = np.arange(q.size * size)
        labels = reader.array(axis.labels)
        if at.size != count and labels is not None:
            at = np.unique(labels[labels > 0]) - 1
    at = at.astype(int)
    if at.size != count:
        raise reader.wrong(of, f"has {count} bins, but the partition has {at.size}")
    if at.min() < 0 or at.max() >= q.size * size:
        raise reader.wrong(axis.columns, f"has places up to {at.max()}, but the partition has {q.size} x {size} bins")
    is_phi = phi is not None and (len(names) < 2 or names[1] == "phi") and phi.size > 1
    mine = _lengths(reader, axis, q[at // size])
    return mine, phi[at % size] if is_phi and phi is not None else None


def _lengths(reader: _Reader, axis: _Axis, q: np.ndarray) -> np.ndarray:
    """q of bins, if they are lengths."""
    bad = ~(np.isfinite(q) & (q >= 0))
    if bad.any():
        raise reader.wrong(axis.first, f"has a q of {q[bad][0]:g}, but each bin needs one of 0 or more, in 1/Å")
    return q


def _per_angstrom(reader: _Reader) -> float:
    """What makes 1/Å of the file's unit of q; 1 where it says none, as all known files are in 1/Å."""
    unit = next(iter(reader.words("map_units")), "").replace(" ", "")
    return 0.1 if unit.lower().replace("⁻¹", "^-1") in ("1/nm", "nm^-1", "nm-1") else 1.0


def _scattering(reader: _Reader) -> Scattering | None:
    mean = reader.line("scattering_1d")
    if mean is None or reader.places["static_q"] is None:
        return None
    q, phi = _axes(reader, _STATIC, mean.size, "scattering_1d")
    parts = reader.array("segments")
    segments = None if parts is None else reader.floats(parts, "segments").reshape(-1, mean.size)
    rest = (None if x is None else jnp.asarray(x) for x in (phi, segments))
    return Scattering(jnp.asarray(q), jnp.asarray(mean), *rest)


def _pixels(reader: _Reader) -> Pixels:
    labels, static = (_map(reader, name, np.int32) for name in ("labels", "static_labels"))
    return Pixels(labels, static, _map(reader, "mask", bool), _map(reader, "scattering_2d", np.float64))


def _map(reader: _Reader, name: str, kind: Any) -> Any:
    value = reader.array(name)
    if value is None:
        return None
    value = reader.floats(value, name)
    if value.ndim < 2 or value.size != value.shape[-1] * value.shape[-2]:
        raise reader.wrong(name, f"has shape {value.shape}, but it should be an image")
    return jnp.asarray(value.reshape(value.shape[-2:]).astype(kind))


def _intensity(reader: _Reader, frame_time: float) -> Any:
    value = reader.array("intensity")
    if value is None:
        return None
    value = reader.floats(value, "intensity")
    if value.ndim == 1:
        value = np.stack([np.arange(value.size, dtype=float), value])
    if value.ndim != 2 or value.shape[0] != 2:
        raise reader.wrong("intensity", f"has shape {value.shape}, but it should be (2, frames)")
    return jnp.asarray(np.stack([value[0] * frame_time, value[1]]))


def _two_time(reader: _Reader, frame_time: float) -> TwoTimeMaps | None:
    """Matrices of a group, of which the upper half is written."""
    import h5py

    place = reader.places["two_time"]
    if place is None:
        return None
    group = reader.find(place)
    if isinstance(group, h5py.Dataset):
        raise ValueError(f"{reader.path}: {place} is a data set, where a group of matrices should be")
    names = sorted(name for name in group if _NUMBERED.search(name))
    if not names:
        return None
    halves = [reader.floats(reader.read(f"{place}/{name}"), "two_time") for name in names]
    for name, half in zip(names, halves, strict=True):
        if half.ndim != 2 or half.shape != halves[0].shape[::-1]:
            raise ValueError(f"{reader.path}: {place}/{name} has shape {half.shape}, but matrices should be square")
    maps = [np.triu(half) + np.triu(half, 1).T for half in halves]
    bins = np.array([int(name.rpartition("_")[2]) for name in names], np.int32)
    return TwoTimeMaps(jnp.asarray(bins), jnp.asarray(np.stack(maps)), jnp.asarray(frame_time))


def _geometry(reader: _Reader, pixels: Pixels, curves: Curves) -> TransmissionGeometry | None:
    """The geometry, where the file has all of it and the q of its bins follow from it, in one unit of length or other.

    Files are known whose distance is in m and others in mm, without a word; and files that repeat the distance of
    another experiment. So the geometry is believed only where it explains q.
    """
    names = ("energy", "distance", "pixel_size", "centre_x", "centre_y")
    if pixels.labels is None or any(reader.places[name] is None for name in names):
        return None
    energy, distance, size, x, y = (reader.number(name) for name in names)
    labels, q = np.asarray(pixels.labels), np.asarray(curves.q)
    rows, columns = np.nonzero(labels)
    if not rows.size or not (energy > 0 and distance > 0 and size > 0) or labels.max() > q.size:
        return None
    for far in (distance, distance * _UNITS):
        for wide in (size, size * _UNITS):
            r = wide * np.hypot(rows - y, columns - x)
            mine = 4 * np.pi * energy / HC * np.sin(np.arctan(r / far) / 2)
            means = _means(mine, labels[rows, columns], q.size)
            known = np.isfinite(means)
            if np.allclose(means[known], q[known], rtol=0.05, atol=0):
                # both lengths have one unit; a pixel of 1 mm and more is one of m
                mm = _UNITS if wide < 1e-2 else 1.0
                try:
                    return TransmissionGeometry(energy, (y, x), far * mm, wide * mm, labels.shape)
                except ValueError:
                    return None  # the ratio of its lengths explains q, their units are none
    return None


def _means(values: np.ndarray, labels: np.ndarray, count: int) -> np.ndarray:
    total = np.bincount(labels, values, count + 1)[1:]
    number = np.bincount(labels, minlength=count + 1)[1:]
    return np.where(number > 0, total / np.maximum(number, 1), np.nan)


def write_result(path: str | os.PathLike[str], result: XPCSResult) -> None:
    """Write a result in the NeXus-like layout, whole or not at all; `read_result` reads it back as it was.

    **Arguments:** `path`: the file; `result`: what to write. Masked points are written as exact zeros, as correlators
    do.
    """
    import h5py

    target = Path(path)
    aside = target.with_name(f"{target.name}.{os.getpid()}.tmp")
    try:
        with h5py.File(aside, "w") as file:
            for place, value in _written(result).items():
                array = np.asarray(value)
                packed = {"compression": "gzip"} if array.size > 1000 else {}
                file.create_dataset(place, data=value, **packed)
        with aside.open("rb") as written:
            os.fsync(written.fileno())
        aside.replace(target)
    finally:
        aside.unlink(missing_ok=True)


def _written(result: XPCSResult) -> dict[str, Any]:
    """{place: value} of all that the result has."""
    curves, pixels = result.curves, result.pixels
    hidden = ~np.asarray(curves.mask)
    values: dict[str, Any] = {
        "g2": np.where(hidden, 0, np.asarray(curves.g2)),
        "delays": _counted(np.asarray(curves.t), (float(result.frame_time), result.average, result.stride)),
        "frame_time": np.asarray(result.frame_time),
        "average": result.average,
        "stride": result.stride,
        "labels": pixels.labels,
        "static_labels": pixels.static_labels,
        "mask": pixels.used,
        "scattering_2d": None if pixels.mean is None else np.asarray(pixels.mean)[None],
        "map_names": [b"q", b"phi"],
        "map_units": [b"1/A", b"degree"],
        **_grid("q", "phi", "columns", curves.q, result.phi),
    }
    if curves.sigma is not None:
        values["g2_error"] = np.where(hidden, 0, np.asarray(curves.sigma))
    if curves.covariance is not None:
        values["g2_covariance"] = np.asarray(curves.covariance)
    if result.scattering is not None:
        found = result.scattering
        values |= _grid("static_q", "static_phi", "static_columns", found.q, found.phi)
        values |= {"scattering_1d": np.asarray(found.mean)[None], "segments": found.segments}
    if result.intensity is not None:
        t, mean = np.asarray(result.intensity)
        values["intensity"] = np.stack([_counted(t, (float(result.frame_time), 1, 1)), mean])
    if result.geometry is not None:
        values |= _written_geometry(result.geometry)
    places = {PATHS[name][0]: value for name, value in values.items() if value is not None}
    if result.two_time is not None:
        at = PATHS["two_time"][0]
        pairs = zip(np.asarray(result.two_time.bins), np.asarray(result.two_time.maps), strict=True)
        places |= {f"{at}/c2_{k:05d}": np.triu(matrix) for k, matrix in pairs}
    return places


def _seconds(delays: np.ndarray, steps: tuple[float, int, int]) -> np.ndarray:
    """Delays in s, multiplied in one order, so that what is written is read with the same bits."""
    frame_time, average, stride = steps
    return np.asarray(delays * frame_time * average * stride)


def _counted(t: np.ndarray, steps: tuple[float, int, int]) -> np.ndarray:
    """Times as whole numbers of steps, where these give the same times again."""
    counts = t / (steps[0] * steps[1] * steps[2])
    whole = np.rint(counts)
    return whole.astype(np.int64) if np.array_equal(_seconds(whole, steps), t) else counts


def _grid(first: str, second: str, columns: str, q: Any, phi: Any) -> dict[str, Any]:
    """Bins as places in the grid of their values."""
    q = np.asarray(q)
    if phi is None:
        return {first: q, second: np.zeros(1), columns: np.arange(q.size)}
    qs, i = np.unique(q, return_inverse=True)
    phis, j = np.unique(np.asarray(phi), return_inverse=True)
    return {first: qs, second: phis, columns: i * phis.size + j}


def _written_geometry(geometry: TransmissionGeometry) -> dict[str, Any]:
    """In the units of the layout: keV, pixels, m; it has no room for a detector that is turned."""
    turned = np.any(np.asarray(geometry.swing)) or float(geometry.roll)
    if turned or np.ptp(np.asarray(geometry.pixel_size)):
        return {}
    row, column = np.asarray(geometry.centre)
    return {
        "energy": np.asarray(geometry.energy),
        "distance": np.asarray(geometry.distance) / _UNITS,
        "pixel_size": np.asarray(geometry.pixel_size)[0] / _UNITS,
        "centre_x": column,
        "centre_y": row,
    }
