"""The bundled NIST files and models: what NIST certifies is what the models give."""

import subprocess
import sys

import jax.numpy as jnp
import pytest

from jaxsci.curvefit.task import CurveFitTask
from jaxsci.data.nist import MODELS as NIST_MODELS, NistProblem, parse_nist
from jaxsci.runs import bundled, bundled_files

NAMES = sorted(NIST_MODELS)
MISRA = "bundled:nist/Misra1a.dat"


def problem(name: str) -> NistProblem:
    return parse_nist(bundled(f"bundled:nist/{name}.dat", "").read_text())


@pytest.mark.parametrize("name", NAMES)
def test_certified_parameters_give_the_certified_sum_of_squares(name):
    known = problem(name)
    residual = NIST_MODELS[name](**known.values)(jnp.asarray(known.x)) - jnp.asarray(known.y)
    # Lanczos1 fits to 13 digits: its parameters, given to 11, cannot show the sum of squares.
    tolerance = 1e6 if name == "Lanczos1" else 1e-9
    assert float(jnp.sum(residual**2)) == pytest.approx(known.residual_sum_of_squares, rel=tolerance)
    assert known.name == name
    assert [set(start) for start in known.starts] == [set(known.values)] * 2


def test_every_problem_is_bundled_and_registered():
    assert {f"nist/{name}.dat" for name in NAMES} <= set(bundled_files())
    models = CurveFitTask().kinds()["models"].every()
    assert {name: models[f"nist.{name}"] for name in NAMES} == NIST_MODELS


def test_models_are_loaded_when_one_is_named():
    code = (
        "import sys\n"
        "from jaxsci.curvefit.task import CurveFitTask\n"
        "models = CurveFitTask().kinds()['models']\n"
        "models.find('Line', 'model.type')\n"
        "assert 'jaxsci.data.nist._models' not in sys.modules\n"
        "assert models.find('nist.Hahn1', 'model.type').__name__ == 'Hahn'\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


def test_header_is_read():
    known = problem("Misra1a")
    assert (known.predictor, known.response, known.difficulty, known.dof) == ("pressure", "volume", "lower", 12)
    assert known.starts == ({"b1": 500.0, "b2": 0.0001}, {"b1": 250.0, "b2": 0.0005})
    assert known.std == {"b1": 2.7070075241, "b2": 7.2668688436e-06}
    assert (known.x[0], known.y[0], len(known.x)) == (77.6, 10.07, 14)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("NIST/ITL StRD", "", "no NIST StRD file"),
        ("  b1 =", "  c1 =", "14 observations|no table|b1"),
        ("      10.07E0      77.6E0", "      10.07E0      7x", "line 61 should hold numbers"),
        ("      10.07E0      77.6E0", "      10.07E0", "line 61 should have two numbers"),
        ("      10.07E0      77.6E0\n", "", "promises 14 observations, but there are 13"),
        ("Degrees of Freedom", "Freedom", "Degrees of Freedom"),
    ],
)
def test_a_damaged_file_is_named(old, new, message):
    text = bundled(MISRA, "").read_text()
    assert old in text
    damaged = text.replace(old, new)
    if old == "  b1 =":
        damaged = damaged.replace("  b2 =", "  c2 =")
    with pytest.raises(ValueError, match=message):
        parse_nist(damaged)
