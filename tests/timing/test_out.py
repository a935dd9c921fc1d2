"""Par files out, read back by ourselves and by PINT."""

import os
import subprocess
import sys
from decimal import Decimal

import jax.numpy as jnp
import numpy as np
import pytest

import jaxsci as js
from jaxsci import timing
from jaxsci.timing._par import read_par


@pytest.fixture(scope="module")
def fitted():
    """A fit of a few parameters, and its TOAs."""
    model, toas = timing.bundled("NGC6440E")
    return timing.fit(model, toas, ("RAJ", "DECJ", "F0", "F1", "DM")), toas


def test_a_written_par_file_has_the_fitted_values(fitted):
    solution, _ = fitted
    par = read_par(timing.par_text(solution))
    assert set(par.free) == set(solution.names)
    for name, exact in solution.exact.items():
        assert abs(par.value(name) - exact) < Decimal(2e-6 * solution.std[name])
    assert par.find("CHI2") is None
    # errors of RAJ in seconds, of DECJ in arcseconds
    for name, scale in (("RAJ", 3600), ("DECJ", 3600), ("F0", 1)):
        assert float(par.find(name).error) == pytest.approx(solution.std[name] * scale, rel=1e-7)


def test_a_written_par_file_has_the_same_residuals(fitted):
    solution, toas = fitted
    again = timing.TimingModel.parse(timing.par_text(solution))
    ours, theirs = (np.asarray(timing.residuals(m, toas)) for m in (solution.model, again))
    assert np.abs(ours - theirs).max() < 2e-11
    assert np.abs(ours - np.asarray(timing.residuals(solution.start, toas))).max() > 1e-9


def test_selections_and_offsets_of_a_model(tmp_path):
    text = "PSR X\nRAJ 17:48:52.75 1\nDECJ -00:21:29.5\nF0 61.485476554 1\nPEPOCH 53750\nDM 223.9\nCHI2 7\n"
    text += "JUMP -fe L-wide 1e-3 1 2e-5\nJUMP -fe S-wide 2e-3\nT2EFAC -f A 1.1\n"
    model = timing.TimingModel.parse(text)
    moved = js.put(model, {"DECJ": -1e-9, "JUMP": jnp.asarray([1e-6, 0.0]), "PX": 0.5})
    timing.write_par(moved, tmp_path / "new.par")
    par = read_par((tmp_path / "new.par").read_text())
    assert [line.select for line in par.lines if line.select] == ["-fe L-wide", "-fe S-wide", "-f A"]
    assert float(par.value("JUMP1")) == pytest.approx(1.001e-3, rel=1e-14)
    assert abs(par.value("DECJ") - (model.par.value("DECJ") - Decimal("1e-9"))) < Decimal("1e-16")
    assert par.word("DECJ").startswith("-00:21:29.5")
    assert (par.value("PX"), par.value("EFAC1")) == (Decimal("0.5"), Decimal("1.1"))
    assert par.free == ("RAJ", "F0", "JUMP1")
    assert par.find("CHI2") is None
    with pytest.raises(ValueError, match="lost its par file"):
        timing.par_text(timing.TimingModel.parse(text).__class__(**{**vars(model), "par": None}))


def test_an_ecorr_of_0_is_a_comment():
    """PINT raises for one: it weighs by 1 / ECORR^2."""
    text = "PSR X\nRAJ 17:48:52.75\nDECJ -00:21:29.5\nF0 61.485476554\nPEPOCH 53750\nDM 223.9\n"
    text += "ECORR -f A 0.0\nECORR -f B 0.3\n"
    written = timing.par_text(timing.TimingModel.parse(text))
    assert "# ECORR        -f A 0.0\n" in written
    assert [line.select for line in read_par(written).lines if line.name.startswith("ECORR")] == ["-f B"]


PINT = """
import lzma, sys, pathlib, warnings
warnings.simplefilter("ignore")
import numpy as np, pint.models, pint.residuals, pint.toa
import offline_pint
par, tim, out = sys.argv[1:]
plain = pathlib.Path(out).with_suffix(".tim")
plain.write_bytes(lzma.decompress(pathlib.Path(tim).read_bytes()))
model = pint.models.get_model(par)
offline_pint.use_ephem(model.EPHEM.value)
toas = pint.toa.get_TOAs(str(plain), model=model, usepickle=False)
np.save(out, pint.residuals.Residuals(toas, model).time_resids.to_value("s").astype(float))
"""


@pytest.mark.slow
@pytest.mark.parametrize("name", ["J1909-3744", "B1855+09"])
def test_pint_reads_a_written_par_file(name, shared_data, tmp_path):
    pytest.importorskip("pint", reason="pip install 'jaxsci[timing]'")
    model, toas = timing.bundled(name)
    solution = timing.fit(model, toas)
    timing.write_par(solution, tmp_path / "new.par")
    bundled = os.path.join(os.path.dirname(js.__file__), "data", "timing", f"{name}.tim.xz")
    environment = os.environ | {"PYTHONPATH": str(shared_data / "timing"), "XDG_CACHE_HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", PINT, str(tmp_path / "new.par"), bundled, str(tmp_path / "res.npy")],
        env=environment,
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    difference = np.asarray(timing.residuals(solution.model, toas)) - np.load(tmp_path / "res.npy")
    assert np.ptp(difference) < 1e-9
