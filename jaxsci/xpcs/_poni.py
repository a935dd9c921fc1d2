"""Geometries from and to the `.poni` files of pyFAI, so that a calibration made there is used here.

Such a file places the detector by the point of normal incidence, a distance and three rotations, in metres and radians
(Kieffer, Valls, Blanc and Hennig 2020, J. Synchrotron Rad. 27, 558). The rotations come in another order than a
detector's arm makes them; both orders reach every orientation, so nothing is lost between them. Versions 1, 2 and 2.1
are read.
"""

import json
import math
from collections.abc import Sequence
from pathlib import Path

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ..datasets import CONFIG_BYTES, parse_json, read_text
from ._geometry import HC, TransmissionGeometry, detector_axes

_NUMBERS = ("Distance", "Poni1", "Poni2", "Rot1", "Rot2", "Rot3", "Wavelength")
_FLIPPED = {0: (False, False), 1: (True, True), 2: (True, False), 3: (False, False), 4: (False, True)}
"""Whether rows and columns run backwards, by the number that pyFAI gives to the corner of the first pixel."""


def read_poni(path: str | Path, shape: Sequence[int] | None = None) -> TransmissionGeometry:
    """Read a geometry from a `.poni` file of pyFAI.

    **Arguments:** `path`: of the file. `shape`: rows and columns, where the file does not say them (version 1, or a
    detector that it knows only by name).

    **Returns:** a `TransmissionGeometry`. Its phi is minus the chi of pyFAI.

    **Raises:** `ValueError` naming the file and the entry that is missing or wrong.
    """
    path = Path(path)
    entries = _entries(path)
    config = _config(entries, path)
    distance, poni1, poni2, rot1, rot2, rot3, wavelength = (_number(entries, key, path) for key in _NUMBERS)
    pixel = [_number(config, "pixel1", path), _number(config, "pixel2", path)]
    shape = config.get("max_shape") or shape  # type: ignore[assignment]
    if shape is not None and not (
        isinstance(shape, list | tuple) and len(shape) == 2 and all(type(n) is int and 0 < n < 2**20 for n in shape)
    ):
        raise ValueError(f"{path}: max_shape should be two numbers, of rows and columns, but it is {shape}")
    if shape is None:
        raise ValueError(f"{path} does not say how many rows and columns there are: give shape=(rows, columns)")
    corner = config.get("orientation", 3)
    if type(corner) is not int or corner not in _FLIPPED:
        raise ValueError(f"{path} has the orientation {corner}, but 1 to 4 are known")
    if not all(map(math.isfinite, (distance, poni1, poni2, rot1, rot2, rot3, wavelength, *pixel))) or 0 in pixel:
        raise ValueError(f"{path}: distances, rotations, wavelength and pixels should be finite, pixels not 0")
    if wavelength <= 0:
        raise ValueError(f"{path}: Wavelength is {wavelength}, but it should be above 0, in m")
    centre = [poni1 / pixel[0] - 0.5, poni2 / pixel[1] - 0.5]
    for axis, flipped in enumerate(_FLIPPED[corner]):  # type: ignore[index]
        if flipped:  # a pixel of negative size counts from the other end
            centre[axis], pixel[axis] = shape[axis] - 1 - centre[axis], -pixel[axis]
    horizontal, vertical, roll = _arm(_rotation(rot1, rot2, rot3))
    return TransmissionGeometry(
        HC / (1e10 * wavelength),
        jnp.asarray(centre),
        1e3 * distance,
        1e3 * jnp.asarray(pixel),
        shape,
        jnp.asarray([horizontal, vertical]),
        roll,
    )


def write_poni(path: str | Path, geometry: TransmissionGeometry) -> None:
    """Write a geometry as a `.poni` file (version 2.1) of pyFAI.

    **Arguments:** `path`: of the file, which is written whole or not at all. `geometry`: its numbers must be known.

    **Raises:** `ValueError` for pixels of negative size, which such a file cannot hold.
    """
    from ..runs import write_whole

    size, centre = np.asarray(geometry.pixel_size) / 1e3, np.asarray(geometry.centre)
    if np.any(size < 0):
        raise ValueError("a .poni file holds no pixels of negative size: turn the picture and its geometry first")
    matrix = np.asarray(detector_axes(geometry))
    # the file's axes are (down, right, along): its rotation is R3 R2 R1 of the page that `read_poni` names
    turned = matrix[np.ix_([1, 0, 2], [1, 0, 2])]
    rot2 = np.arcsin(np.clip(turned[2, 0], -1, 1))
    rot1, rot3 = np.arctan2(-turned[2, 1], turned[2, 2]), np.arctan2(turned[1, 0], turned[0, 0])
    config = {"pixel1": float(size[0]), "pixel2": float(size[1]), "max_shape": list(geometry.shape), "orientation": 3}
    poni = (centre + 0.5) * size
    lines = {
        "poni_version": 2.1,
        "Detector": "Detector",
        "Detector_config": json.dumps(config),
        "Distance": float(geometry.distance) / 1e3,
        "Poni1": float(poni[0]),
        "Poni2": float(poni[1]),
        "Rot1": float(rot1),
        "Rot2": float(rot2),
        "Rot3": float(rot3),
        "Wavelength": float(geometry.wavelength) * 1e-10,
    }
    write_whole(Path(path), "".join(f"{key}: {value}\n" for key, value in lines.items()))


def _entries(path: Path) -> dict[str, object]:
    """The last value of each key."""
    lines = (line for line in read_text(path, CONFIG_BYTES).splitlines() if not line.lstrip().startswith("#"))
    pairs = (line.partition(":") for line in lines if ":" in line)
    return {key.strip(): value.strip() for key, _, value in pairs}


def _config(entries: dict[str, object], path: Path) -> dict[str, object]:
    """What is said of the detector: in a table of its own since version 2, in two lines before."""
    if "Detector_config" not in entries:
        return {"pixel1": entries.get("PixelSize1"), "pixel2": entries.get("PixelSize2")}
    try:
        config = parse_json(str(entries["Detector_config"]))
    except ValueError as error:
        raise ValueError(f"{path}: Detector_config is not JSON ({error})") from None
    if not isinstance(config, dict):
        raise ValueError(f"{path}: Detector_config should be a table of JSON, but it is {entries['Detector_config']}")
    for key in ("pixel1", "pixel2"):
        if key not in config:
            raise ValueError(
                f"{path} names the detector {entries.get('Detector')!r} without the size of its pixels: add pixel1 and "
                "pixel2 (in metres) to its Detector_config"
            )
    return config


def _number(entries: dict[str, object], key: str, path: Path) -> float:
    if entries.get(key) is None:
        raise ValueError(f"{path} has no {key}: is it a .poni file of pyFAI?")
    try:
        return float(str(entries[key]))
    except ValueError:
        raise ValueError(f"{path}: {key} should be a number, but it is {entries[key]!r}") from None


def _rotation(rot1: float, rot2: float, rot3: float) -> Float[np.ndarray, "3 3"]:
    """From the detector's axes (right, down, away) to those of the beam."""
    (c1, c2, c3), (s1, s2, s3) = np.cos([rot1, rot2, rot3]), np.sin([rot1, rot2, rot3])
    first = np.array([[1, 0, 0], [0, c1, s1], [0, -s1, c1]])
    second = np.array([[c2, 0, -s2], [0, 1, 0], [s2, 0, c2]])
    third = np.array([[c3, -s3, 0], [s3, c3, 0], [0, 0, 1]])
    return (third @ second @ first)[np.ix_([1, 0, 2], [1, 0, 2])]


def _arm(matrix: Float[np.ndarray, "3 3"]) -> Float[Array, "3"]:
    """The swings of an arm and the roll, in degrees, that make this rotation."""
    vertical = np.arcsin(np.clip(-matrix[1, 2], -1, 1))
    horizontal, roll = np.arctan2(-matrix[0, 2], matrix[2, 2]), np.arctan2(matrix[1, 0], matrix[1, 1])
    return jnp.asarray(np.rad2deg([horizontal, vertical, roll]))
