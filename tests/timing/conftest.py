import json
from pathlib import Path

import numpy as np
import pytest

from jaxsci import timing


@pytest.fixture(scope="session")
def golden():
    """PINT's residuals of the bundled pulsars, as they are and with all free parameters moved by five sigma."""
    with np.load(Path(__file__).with_name("pint_residuals.npz")) as file:
        return {
            name: (file[f"{name}/res"], file[f"{name}/moved_res"], json.loads(str(file[f"{name}/moved"])))
            for name in timing.bundled()
        }
