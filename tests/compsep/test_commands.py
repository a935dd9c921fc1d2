"""`jaxsci compsep`: maps in, component maps out, on real bands."""

import numpy as np
import pytest
from typer.testing import CliRunner

from jaxsci import compsep
from jaxsci.compsep import io
from jaxsci.compsep.commands import app

pytest.importorskip("healpy")

BANDS = ["bundled:compsep/wmap_V.fits", "bundled:compsep/wmap_W.fits", "--frequency", "60.8,93.5", "--assume", "mK_CMB"]
SEEN = ["--mask", "bundled:compsep/wmap_mask.fits", "--stokes", "IQU"]


def call(*words):
    return CliRunner().invoke(app, [str(word) for word in words], catch_exceptions=False)


def test_separate_writes_component_maps(tmp_path):
    words = ["separate", *BANDS, *SEEN, "-o", tmp_path / "out", "--component", "cmb=CMB", "--sigma", "5,8"]
    done = call(*words)
    assert done.exit_code == 0, done.output
    assert "7602 of 12288 pixels" in done.output
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["chi2.fits", "cmb.fits"]
    cmb = io.read_map(tmp_path / "out" / "cmb.fits", fields=["I", "I_ERROR"])
    used = cmb[1] > 0
    np.testing.assert_allclose(cmb[1][used], 1 / np.sqrt(1 / 25 + 1 / 64), rtol=1e-10)
    again = call(*words)
    assert again.exit_code == 2
    assert "--overwrite" in again.output
    assert call(*words, "--overwrite").exit_code == 0


def test_ilc_writes_the_cmb(tmp_path):
    done = call("ilc", *BANDS, *SEEN, "-o", tmp_path / "cmb.fits", "--pooled")
    assert done.exit_code == 0, done.output
    weights = [[float(x) for x in line.split(":")[1].split()] for line in done.output.splitlines()[:3]]
    np.testing.assert_allclose(np.sum(weights, axis=1), 1.0, atol=1e-3)
    assert weights[1] == weights[2] != weights[0]
    written = io.read_map(tmp_path / "cmb.fits", fields="IQU")
    assert written.shape == (3, 12288)
    assert 50 < written[0][written[0] > 0.99 * compsep.UNSEEN].std() < 200  # uK


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["separate", *BANDS, "-o", "x", "--component", "cmb"], "--component: should be NAME=SPECTRUM"),
        (["separate", *BANDS, "-o", "x", "--component", "cmb=CBM"], "components.cmb.type: should be one of CMB"),
        (["separate", *BANDS, "-o", "x", "--sigma", "5;8"], "--sigma: should be numbers"),
        (["ilc", *BANDS[:2], "-o", "x"], "--instrument: give the name of one"),
        (["ilc", *BANDS[:2], "--instrument", "LiteBurd", "-o", "x"], "instrument: unknown instrument"),
        (["ilc", BANDS[0], "--frequency", "60.8,93.5", "-o", "x"], "sky.maps: there are 1 maps"),
    ],
)
def test_wrong_words_are_named(words, message):
    done = call(*words)
    assert done.exit_code == 2
    assert message in done.output
