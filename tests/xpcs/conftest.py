"""What the tests of this room share: the staged golden maps and the geometries that they were made with."""

import json
from pathlib import Path

import numpy as np
import pytest

from jaxsci.xpcs import ReflectionGeometry, TransmissionGeometry


@pytest.fixture(scope="session")
def golden(shared_data: Path) -> dict[str, np.ndarray]:
    """Maps and partitions of four geometries (keys c0_..c3_) by another program."""
    with np.load(shared_data / "xpcs" / "qmap_partition_golden.npz") as file:
        return dict(file)


@pytest.fixture(scope="session")
def golden_mask() -> np.ndarray:
    """The mask that these partitions were made with."""
    mask = np.ones((96, 112), bool)
    mask[3:9, 10:40] = False
    return mask


@pytest.fixture(scope="session")
def golden_geometry(golden: dict[str, np.ndarray]):
    """The geometry of a case."""

    def of(case: int) -> TransmissionGeometry | ReflectionGeometry:
        kind, energy, centre, shape, distance, rest = json.loads(str(golden[f"c{case}_cfg"]))
        if kind == "T":
            return TransmissionGeometry(energy, centre, distance, 0.075, shape, swing=rest)
        return ReflectionGeometry(energy, centre, distance, 0.075, shape, rest["alpha_i_deg"], rest["orientation"])

    return of
