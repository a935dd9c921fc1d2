import numpy as np
import pytest

import jaxsci as js
from jaxsci import compsep

POINTS = ((1.54, 20.0, -3.0), (1.62, 17.5, -2.85), (1.45, 23.0, -3.2))


def three_components(beta=1.54, temp=20.0, beta_s=-3.0):
    return compsep.MixingMatrix(
        cmb=compsep.CMB(), dust=compsep.ModifiedBlackBody(beta, temp), sync=compsep.PowerLaw(beta_s)
    )


@pytest.fixture
def mixing():
    return three_components()


@pytest.fixture(scope="session")
def at_point():
    """The three components at one of the golden parameter points."""
    return lambda k: three_components(*POINTS[k])


@pytest.fixture(scope="session")
def golden(shared_data):
    """Numbers of fgbuster on 64 pixels: see the data's README."""
    with np.load(shared_data / "compsep" / "fgbuster_golden_algebra.npz") as file:
        return dict(file)


@pytest.fixture(scope="session")
def golden_fits(shared_data):
    """Numbers of fgbuster's fits, noise seed 1."""
    with np.load(shared_data / "compsep" / "fgbuster_golden_fits.npz") as file:
        return dict(file)


@pytest.fixture(scope="session")
def names():
    return tuple(js.parameters(three_components()))
