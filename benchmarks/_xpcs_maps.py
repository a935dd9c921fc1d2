"""Rows of the area `xpcs` on detectors: maps of q and phi, partitions, means over bins, the Gaussian filter.

pySimpleMask and pyFAI are measured where they are installed. pySimpleMask brings a graphical interface with it; without
it the operations of its version 0.4.5 are done in NumPy by `simplemask_maps`, and the row says so. `benchmarks.xpcs`
gathers the rows.
"""

import importlib.util
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from . import _threads as _threads  # before anything that imports NumPy

# isort: split
import jax.numpy as jnp
import numpy as np

import jaxsci as js
from jaxsci.xpcs import (
    Axis,
    TransmissionGeometry,
    cut_map,
    gaussian_filter,
    label_pixels,
    labels_of,
    mean_by_bin,
    partition,
)

from ._harness import Bar, Row, at_most, faster, race, timing_rows

js.enable_x64()

SIDE = 2000
LARGER = 2048  # a map of this size is a little more than glibc keeps for the next call: each pays for fresh memory
ENERGY, CENTRE, DISTANCE, PIXEL = 10.9, (1000.3, 800.2), 5000.0, 0.075
SWING = (1.0, 2.0)
Q_BINS, PHI_BINS = 36, 8


def geometry(side: int = SIDE) -> TransmissionGeometry:
    """The detector that all rows look at; its arm is swung both ways, so that nothing is a special case."""
    return TransmissionGeometry(ENERGY, CENTRE, DISTANCE, PIXEL, (side, side), swing=SWING)


def simplemask_maps(side: int = SIDE) -> dict[str, np.ndarray]:
    """What pySimpleMask 0.4.5 does for a map: rotate every pixel's vector, and take angles by arccos and arctan2."""
    rows, columns = np.meshgrid(np.arange(side), np.arange(side), indexing="ij")
    down, right = (rows - CENTRE[0]) * PIXEL, (columns - CENTRE[1]) * PIXEL
    (ch, cv), (sh, sv) = np.cos(np.deg2rad(SWING)), np.sin(np.deg2rad(SWING))
    turn = np.array([[ch, 0, -sh], [0, 1, 0], [sh, 0, ch]]) @ np.array([[1, 0, 0], [0, cv, -sv], [0, sv, cv]])
    seen = np.dot(np.stack([right, down, np.full_like(down, DISTANCE)], axis=-1), turn.T)
    cosine = seen[..., 2] * DISTANCE / (np.linalg.norm(seen, axis=-1) * DISTANCE)
    angle, phi = np.arccos(np.clip(cosine, -1, 1)), -np.arctan2(seen[..., 1], seen[..., 0])
    k0 = 2 * np.pi * ENERGY / 12.39841984
    across = k0 * np.sin(angle)
    return {
        "q": 2 * k0 * np.sin(angle / 2),
        "phi": np.rad2deg(phi),
        "TTH": np.rad2deg(angle),
        "qx": (across * np.cos(phi)).astype(np.float32),
        "qy": (across * np.sin(phi)).astype(np.float32),
    }


def _simplemask(side: int) -> tuple[str, Callable[[], dict[str, np.ndarray]]]:
    """The package itself where it is installed, its operations in NumPy elsewhere."""
    found = importlib.util.find_spec("pysimplemask")
    if found is None or found.origin is None:
        return "pySimpleMask's operations in NumPy", lambda: simplemask_maps(side)
    # this one file needs NumPy only: the package as a whole would import readers of pictures, and a report
    file = Path(found.origin).parent / "core" / "qmap.py"
    spec = importlib.util.spec_from_file_location("simplemask_qmap", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    compute = module.compute_transmission_qmap

    def run() -> dict[str, np.ndarray]:
        compute.cache_clear()
        return compute(ENERGY, CENTRE, (side, side), PIXEL, DISTANCE, *SWING)[0]

    return "pySimpleMask", run


def map_rows(quick: bool) -> Iterator[Row]:
    """q, and q with phi, beside pySimpleMask and pyFAI; how far they are from it."""
    # on a small detector calls and compiled loops weigh alike, and no bar is meant
    sides = [(512, None, None)] if quick else [(SIDE, faster(40), faster(10)), (LARGER, None, None)]
    for side, alone, both in sides:
        yield from _beside_simplemask(side, alone, both)
    yield from _pyfai(geometry(sides[0][0]), sides[0][0])


def _beside_simplemask(side: int, alone: Bar | None, both: Bar | None) -> Iterator[Row]:
    seen = geometry(side)
    name, peer = _simplemask(side)
    known = peer()
    note = "it has all its maps at once: q, phi, 2 theta, qx, qy"
    for what, run, bar in (
        (f"q map, {side} x {side}", lambda: seen.q(), alone),
        (f"q and phi, {side} x {side}", lambda: (seen.q(), seen.phi()), both),
    ):
        yield from timing_rows(what, race({"ours": run, name: peer}), {name: bar}, unit="ms", n=side * side, note=note)
    for key, limit in (("q", 1e-7), ("phi", 1e-5)):
        error = float(np.max(np.abs(np.asarray(seen.map(key)) - known[key])))
        yield Row(f"largest difference in {key}, {side} x {side}", error, peer=name, n=side * side, bar=at_most(limit))


def _pyfai(seen: TransmissionGeometry, side: int) -> Iterator[Row]:
    if importlib.util.find_spec("pyFAI") is None:
        yield Row(f"q map, {side} x {side}", peer="pyFAI", note="not run: pyFAI is not installed")
        return
    import tempfile

    import pyFAI

    from jaxsci.xpcs import write_poni

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "detector.poni"
        write_poni(path, seen)
        integrator = pyFAI.load(str(path))

    def run() -> Any:
        integrator.reset()
        return integrator.center_array((side, side), unit="q_A^-1")

    times = race({"ours": lambda: seen.q(), "pyFAI": run})
    yield from timing_rows(f"q map, {side} x {side}", times, {"pyFAI": None}, unit="ms", n=side * side)
    error = float(np.max(np.abs(np.asarray(seen.q()) - run())))
    yield Row("largest difference in q", error, peer="pyFAI", n=side * side, bar=at_most(1e-7))


def partition_rows(quick: bool) -> Iterator[Row]:
    """Labels along one map beside `numpy.digitize`, and a whole partition of q and phi beside the same by NumPy."""
    side = 512 if quick else SIDE
    seen, used = geometry(side), np.ones((side, side), bool)
    q, phi = seen.q(), seen.phi()
    axes = [Axis("q", Q_BINS), Axis("phi", PHI_BINS)]
    made = cut_map(q, used, axes[0])
    edges, values = np.asarray(made.edges), np.asarray(q)
    times = race({"ours": lambda: labels_of(q, made), "numpy.digitize": lambda: np.digitize(values, edges)})
    name = f"labels of {Q_BINS} bins"
    yield from timing_rows(name, times, {"numpy.digitize": None}, unit="ms", n=side * side)
    theirs = np.digitize(values, edges)
    theirs[values == edges[-1]] = Q_BINS
    apart = int(np.sum(np.asarray(labels_of(q, made)) != theirs))
    yield Row(f"{name}: pixels that differ", apart, peer="numpy.digitize", n=side * side, bar=at_most(0))
    maps = [np.asarray(q), np.asarray(phi)]

    def ours() -> Any:
        return label_pixels(maps, used, [cut_map(m, used, axis) for m, axis in zip(maps, axes, strict=True)]).labels

    name, peer = f"partition of {Q_BINS} x {PHI_BINS} bins", "pySimpleMask's operations in NumPy"
    yield from timing_rows(name, race({"ours": ours, peer: lambda: _combined(*maps)}), {peer: None}, unit="ms",
                           n=side * side, note="ours also sorts the pixels by bin")  # fmt: skip
    apart = int(np.sum(np.asarray(ours()) != _combined(*maps)))
    yield Row(f"{name}: pixels that differ", apart, peer=peer, n=side * side, bar=at_most(0))


def _combined(q: np.ndarray, phi: np.ndarray) -> np.ndarray:
    parts = []
    for values, bins in ((q, Q_BINS), (phi, PHI_BINS)):
        edges = np.linspace(values.min(), values.max(), bins + 1)
        place = np.digitize(np.round(values, 12), np.round(edges, 12))
        parts.append(np.where(place > bins, bins, np.maximum(place, 1)))
    return np.unique((parts[0] - 1) * PHI_BINS + parts[1], return_inverse=True)[1].reshape(q.shape) + 1


def saxs_rows(quick: bool) -> Iterator[Row]:
    """A mean over static bins beside `numpy.bincount`, and the Gaussian filter beside SciPy's."""
    from scipy import ndimage

    side = 512 if quick else SIDE
    seen = geometry(side)
    labels = partition(seen, np.ones((side, side)), [Axis("q", Q_BINS)], finer=(10,)).static
    image = np.random.default_rng(0).poisson(20.0, (side, side)).astype(float)
    flat, device = np.asarray(labels.labels).ravel(), jnp.asarray(image)
    counts = np.bincount(flat)

    def bincount() -> np.ndarray:
        return np.bincount(flat, image.ravel())[1:] / counts[1:]

    times = race({"ours": lambda: mean_by_bin(device, labels), "numpy.bincount": bincount})
    name = f"means over {labels.bins} bins"
    yield from timing_rows(name, times, {"numpy.bincount": None}, unit="ms", n=side * side)
    error = float(np.max(np.abs(np.asarray(mean_by_bin(device, labels)) / bincount() - 1)))
    yield Row(f"{name}: largest relative difference", error, peer="numpy.bincount", n=side * side, bar=at_most(1e-12))
    times = race({"ours": lambda: gaussian_filter(device, 2.0), "scipy": lambda: ndimage.gaussian_filter(image, 2.0)})
    yield from timing_rows("Gaussian filter, sigma 2", times, {"scipy": None}, unit="ms", n=side * side)
    error = float(np.max(np.abs(np.asarray(gaussian_filter(device, 2.0)) - ndimage.gaussian_filter(image, 2.0))))
    yield Row("Gaussian filter: largest difference", error, peer="scipy", n=side * side, bar=at_most(1e-11))
