"""`check` and `run` agree: what ends a fit before its first step is found without fitting, and nothing else is."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import Phase, given, settings, strategies as st
from written import write_csv

from jaxsci.curvefit._task.build import build_job
from jaxsci.curvefit._task.check import refusals
from jaxsci.curvefit._task.run import fit_members
from jaxsci.curvefit.task import CurveFitTask
from jaxsci.runs import Config

ROWS, MEMBERS = 7, 12  # more members than are fitted one by one: all examples share the programs of a batch
X = np.linspace(0.0, 3.0, ROWS)
Y = 3.0 * np.exp(-X / 1.4) + 0.02 * np.cos(9 * X)
BEFORE = {"nonfinite_data", "bad_noise", "nonfinite_start", "empty"}

bad = st.sampled_from([math.nan, math.inf, -math.inf, 0.0, -1.0])
cell = st.tuples(st.sampled_from(["x", "y", "sigma"]), st.integers(0, ROWS - 1), bad)
start = st.sampled_from([1.0, 0.0, -1.0, 1e-300, 1e300, math.nan, math.inf, -math.inf])


@st.composite
def entry(draw):
    """A `[[data]]` table that may be damaged in its cells, its start, its mask."""
    columns = {"x": X.tolist(), "y": Y.tolist(), "sigma": [0.02] * ROWS}
    for name, row, value in draw(st.lists(cell, max_size=2)):
        columns[name][row] = value
    if draw(st.integers(0, 9)) == 0:
        columns["y"] = [math.nan] * ROWS
    values = {"amplitude": 2.0, "tau": 1.0}
    if draw(st.booleans()):
        values[draw(st.sampled_from(sorted(values)))] = draw(start)
    return {**columns, "start": values, "omit_nonfinite": draw(st.booleans())}


def job(entries, fit):
    named = [{"name": f"fit {k}", **e} for k, e in enumerate(entries)]
    return build_job(
        Config(Path("fit.toml"), {"model": {"type": "Exponential"}, "fit": fit, "data": named}), CurveFitTask().kinds()
    )


# a failure is not shrunk: it is in one of the entries that the assertion shows
@settings(max_examples=10, deadline=None, derandomize=True, phases=[Phase.explicit, Phase.generate])
@given(
    entries=st.lists(entry(), min_size=MEMBERS, max_size=MEMBERS),
    low=st.sampled_from([0.0, -1.0, 0.5]),
    solver=st.sampled_from(["TRF", "GaussNewton"]),
)
def test_check_refuses_what_the_run_could_not_begin(entries, low, solver):
    fit = {"solver": solver, "max_steps": 30, "bounds": {"tau": [low, 100.0]}}
    members = job(entries, fit).members
    ended = {}
    for places, outcomes in fit_members(members, beside=False):
        ended |= {place: (o.code, o.message) for place, o in zip(places, outcomes, strict=True) if o.code in BEFORE}
    foreseen = {place: (why.result, why.message) for place, why in refusals(members).items()}
    assert foreseen == dict(sorted(ended.items()))


CONFIG = '[model]\ntype = "Decay"\namp = 1.0\ntau = 1.0\n[[data]]\nfile = "decay.csv"\n'
ALIKE = {
    "fine": ("", "", {}, 0),
    "NaN row": ("", "", {"y": (3, math.nan)}, 3),
    "NaN row, masked": ("omit_nonfinite = true\n", "", {"y": (3, math.nan)}, 0),
    "sigma 0": ("", "", {"sigma": (5, 0.0)}, 3),
    "sigma below 0": ("", "", {"sigma": (0, -0.1)}, 3),
    "NaN start": ("start = { tau = nan }\n", "", {}, 3),
    "prior of no width": ("", '[fit.priors]\ntau = { type = "Normal", mean = 1.0, sigma = 0.0 }\n', {}, 2),
    "prior nowhere": ("", '[fit.priors]\ntau = { type = "Normal", mean = nan, sigma = 1.0 }\n', {}, 2),
    "two steps and a half": ("", "[fit]\nmax_steps = 2.5\n", {}, 2),
    "unused reference": ("reference = { tua = 1.0 }\n", "", {}, 2),
}


@pytest.mark.parametrize("case", ALIKE)
def test_check_and_run_exit_alike_with_the_same_reason(folder, command, case):
    more, top, broken, code = ALIKE[case]
    (folder / "fit.toml").write_text(f"{CONFIG}{more}{top}")
    write_csv(folder / "decay.csv", **broken)
    checked = command("check", "fit.toml", "--import", "my_models.py")
    ran = command("run", "fit.toml", "--import", "my_models.py", "--out", "out")
    assert (checked.exit_code, ran.exit_code) == (code, code)
    if code == 2:
        assert checked.stderr == ran.stderr
        assert not (folder / "out").exists()
    if code == 3:
        (member,) = json.loads((folder / "out" / "results.json").read_text())["members"]
        assert f"decay: {member['message']}" in checked.stdout
        assert f"decay: {member['message']}" in ran.stdout


def test_rows_of_a_stream_are_looked_at(folder, command):
    rows = np.rec.fromarrays([X, Y, np.full(ROWS, 0.02)], names=["x", "y", "sigma"])
    rows["sigma"][4] = 0.0
    np.save(folder / "scan.npy", rows)
    (folder / "fit.toml").write_text(
        '[model]\ntype = "Exponential"\namplitude = 2.0\ntau = 1.0\n[[data]]\nfile = "scan.npy"\nstream = 3\n'
    )
    done = command("check", "fit.toml")
    assert done.exit_code == 3
    assert "sigma[4] is 0.0" in done.stdout


def test_a_fit_that_cannot_be_traced_is_found(folder, command):
    """Its residual can be, but no derivative of it: the run could not compile it."""
    (folder / "own.py").write_text(
        "import jax, jaxsci as js\n\nclass Black(js.AbstractModel):\n    a: js.Scalar = js.param()\n\n"
        "    def __call__(self, x):\n"
        "        return jax.pure_callback(lambda a, x: a * x, jax.ShapeDtypeStruct(x.shape, x.dtype), self.a, x)\n"
    )
    (folder / "fit.toml").write_text('[model]\ntype = "Black"\na = 1.0\n[[data]]\nfile = "decay.csv"\n')
    for words in (("check",), ("run", "--out", "out")):
        done = command(words[0], "fit.toml", "--import", "own.py", *words[1:])
        assert done.exit_code == 2
        assert "Pure callbacks do not support JVP" in done.stderr
