"""`task = "compsep"`: what a run of a sky writes, and what is refused."""

import dataclasses
import json

import numpy as np
import pytest
from typer.testing import CliRunner

from jaxsci.cli import app
from jaxsci.runs import ConfigError, bundled_files, read_config, task_named

pytest.importorskip("healpy")

CONFIG = """
task = "compsep"
title = "A sky"
[instrument]
name = "LiteBIRD"
[sky]
templates = "bundled:compsep/sky16.npz"
varies = { "dust.beta" = 0, "dust.temp" = 0, "sync.beta" = 0 }
[components.cmb]
type = "CMB"
[components.dust]
type = "ModifiedBlackBody"
[components.sync]
type = "PowerLaw"
[[data]]
name = "global"
"""
WMAP = """
task = "compsep"
[instrument]
frequency = [60.8, 93.5]
[sky]
maps = ["bundled:compsep/wmap_V.fits", "bundled:compsep/wmap_W.fits"]
assume = "mK_CMB"
mask = "bundled:compsep/wmap_mask.fits"
stokes = "IQU"
sigma = [[4.0, 5.7, 5.7], [6.4, 9.0, 9.0]]
[components.cmb]
type = "CMB"
"""


def run(folder, text):
    (folder / "sky.toml").write_text(text)
    words = ["run", str(folder / "sky.toml"), "--out", str(folder / "out")]
    done = CliRunner().invoke(app, words, catch_exceptions=False)
    return done, folder / "out"


def test_a_simulated_sky_comes_back(tmp_path):
    done, out = run(tmp_path, CONFIG)
    assert done.exit_code == 0, done.output
    (member,) = json.loads((out / "results.json").read_text())["members"]
    assert member["success"]
    assert member["dof"] == 3072 * 2 * 12 - 3
    assert abs(member["reduced_chi2"] - 1) < 4 * np.sqrt(2 / member["dof"])
    truth = {"dust.beta": 1.54, "dust.temp": 20.0, "sync.beta": -3.0}
    for row in member["parameters"]:
        assert abs(row["value"] - truth[row["name"]]) < 4 * row["std"] + 1e-4
        assert "pull" in row["remarks"][-1]
    text = (out / "report.html").read_text()
    assert "pulls of the CMB against the truth" in text
    assert text.count("<image") >= 5
    assert (out / "solutions" / "global.eqx").stat().st_size > 1000


def test_a_forecast_counts_r_among_its_parameters(tmp_path):
    table = "[forecast]\nr = 0.01\n[components.cmb]"
    text = CONFIG.replace("[components.cmb]", table, 1).replace("varies", "noise = false\ncmb = 0.0\nvaries", 1)
    done, out = run(tmp_path, text)
    assert done.exit_code == 0, done.output
    (member,) = json.loads((out / "results.json").read_text())["members"]
    assert [row["name"] for row in member["parameters"]] == ["dust.beta", "dust.temp", "sync.beta", "r"]
    assert member["rank"] == member["num_free"] == 4
    assert abs(member["parameters"][3]["value"] - 0.01) < 0.1 * member["parameters"][3]["std"]
    assert "1 independent fit" in member["facts"]


def test_maps_are_written_where_asked_for(tmp_path):
    from jaxsci.compsep import io

    done, out = run(tmp_path, CONFIG.replace("[instrument]", "[output]\nfits = true\n[instrument]", 1))
    assert done.exit_code == 0, done.output
    written = out / "maps" / "global"
    names = sorted(path.name for path in written.iterdir())
    assert names == ["chi2.fits", "cmb.fits", "dust.fits", "parameters.fits", "sync.fits"]
    cmb = io.read_map(written / "cmb.fits", fields=["Q", "Q_ERROR"])
    assert cmb.shape == (2, 3072)
    assert 0 < cmb[1].min() <= cmb[1].max() < 0.1
    (member,) = json.loads((out / "results.json").read_text())["members"]
    beta, error = io.read_sky_map(written / "parameters.fits", ["dust.beta", "dust.beta.error"]).values[:, 100]
    row = member["parameters"][0]
    np.testing.assert_allclose([beta, error], [row["value"], row["std"]], rtol=1e-12)


def test_two_real_bands_hold_one_component(tmp_path):
    done, out = run(tmp_path, WMAP)
    assert done.exit_code == 0, done.output
    (member,) = json.loads((out / "results.json").read_text())["members"]
    assert member["dof"] == 7602 * 3
    assert 0.9 < member["reduced_chi2"] < 1.0


def built(tmp_path, text):
    path = tmp_path / "sky.toml"
    path.write_text(text)
    config = read_config(str(path))
    task = task_named("compsep")
    return task.build(config, task.kinds())


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('type = "CMB"', 'type = "CBM"', r"components\.cmb\.type: should be one of CMB"),
        ('type = "PowerLaw"', 'type = "PowerLaw"\nbetta = 3.0', r"components\.sync\.betta: .*did you mean 'beta'"),
        ('name = "LiteBIRD"', 'name = "LiteBurd"', r"instrument: unknown instrument 'LiteBurd'"),
        ("templates =", "template =", r"sky\.template: .*did you mean 'templates'"),
        ('sky16.npz"', 'sky16.npz"\nstokes = "EB"', r"sky\.stokes: should be"),
        ('name = "global"', 'free = ["dust.bta"]', r"data\[0\]: .*dust\.beta"),
        ('name = "global"', 'components = ["ame"]', r"data\[0\]\.components: there is no component 'ame'"),
        ('"dust.beta" = 0', '"dust.beta" = 3', r"sky: .*power of two up to 16"),
        ('"dust.beta" = 0', '"dust.beta" = 0.5', r"sky\.varies\.dust\.beta: should be an nside"),
        ('title = "A sky"', 'titel = "A sky"', r"titel: .*did you mean 'title'"),
        ("[components.cmb]", "[output]\npng = true\n[components.cmb]", r"output\.png: .*fits"),
        ("[components.cmb]", "[forecast]\nr0 = 1\n[components.cmb]", r"forecast\.r0"),
        ("[components.cmb]", "[calibration]\ngian = 1\n[components.cmb]", r"calibration\.gian: .*did you mean 'gain'"),
        ("[components.cmb]", "[calibration]\ngain = [1.0, 1.0]\n[components.cmb]", r"calibration\.gain: .* or 15"),
        (
            "[components.cmb]",
            "[calibration]\ngain_sigma = 0.0\n[components.cmb]",
            r"calibration\.gain_sigma: should be",
        ),
        ('name = "global"', 'starts = { "dust.bta" = [10.0] }', r"data\[0\]: .*'dust\.bta'"),
        ('sky16.npz"', 'sky16.npz"\nresolution = 60.0', r"sky\.resolution: is for maps from files"),
    ],
)
def test_bad_configs_are_named(tmp_path, old, new, message):
    assert old in CONFIG
    with pytest.raises(ConfigError, match=message):
        built(tmp_path, CONFIG.replace(old, new, 1))


def test_doubts_of_the_calibration_become_priors(tmp_path):
    table = "[calibration]\ngain_sigma = 0.01\nangle_sigma = 0.5\n[components.cmb]"
    text = CONFIG.replace("[components.cmb]", table, 1)
    text = text.replace('name = "global"', 'name = "global"\nfree = ["dust.beta", "*.gain", "calibration.ch3.angle"]')
    (member,) = built(tmp_path, text).members
    priors = member.options["priors"]
    assert list(priors) == [name for name in member.options["free"] if name != "dust.beta"]
    assert len(priors) == 16
    gain, angle = priors["calibration.ch0.gain"], priors["calibration.ch3.angle"]
    assert (float(gain.mean), float(gain.sigma)) == (1.0, 0.01)
    assert (float(angle.mean), float(angle.sigma)) == (0.0, 0.5)
    assert member.mixing.calibration.turns


def test_maps_are_brought_to_one_resolution(tmp_path):
    beams = "frequency = [60.8, 93.5]\nfwhm = [21.0, 13.2]"
    text = WMAP.replace("frequency = [60.8, 93.5]", beams).replace("assume", "resolution = 300.0\nassume", 1)
    (rough,), (fine,) = (built(tmp_path, each).members for each in (text, WMAP))
    # white noise of 110 arcmin pixels under a beam of 300: a good deal less, by the number that was told
    ratio = rough.sky.sigma / fine.sky.sigma
    assert np.all((ratio > 0.2) & (ratio < 0.5))
    seen = np.all(fine.sky.maps > -1e30, axis=(0, 1)) & fine.sky.mask
    assert rough.sky.maps[:, 1:][..., seen].std() < 0.6 * fine.sky.maps[:, 1:][..., seen].std()
    assert (rough.sky.resolution, fine.sky.resolution) == (300.0, None)


def test_what_smoothing_does_to_errors_is_said(tmp_path):
    """Of parameters that many pixels share; the fit takes the noise of each for its own."""
    (member, *_) = built(tmp_path, CONFIG).members
    smooth = dataclasses.replace(member, sky=dataclasses.replace(member.sky, resolution=120.0))
    for one, said in ((member, False), (smooth, True)):
        ((_, (outcome,)),) = task_named("compsep").run([one], lambda _: None, False)
        assert outcome.success
        assert any("smoothed to 120 arcmin" in words for words in outcome.remarks) is said


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('assume = "mK_CMB"', "", r"sky: .*names no unit"),
        ("[60.8, 93.5]", "[60.8]", r"sky\.maps: there are 2 maps, but the instrument has 1"),
        ("[6.4, 9.0, 9.0]", "", r"sky\.sigma: should be 2 rows of 3"),
        ("sigma =", "# sigma =", r"sky: .*no depth of I"),
        ("assume", "resolution = 60.0\nassume", r"sky\.resolution: takes an instrument whose beams are known"),
    ],
)
def test_bad_maps_are_named(tmp_path, old, new, message):
    assert old in WMAP
    with pytest.raises(ConfigError, match=message):
        built(tmp_path, WMAP.replace(old, new, 1))


def test_all_bundled_configs_are_fine(tmp_path):
    names = [name for name in bundled_files() if name.startswith("compsep/") and name.endswith(".toml")]
    names = [name for name in names if "instruments" not in name]
    assert len(names) == 5
    for name in names:
        config = read_config(f"bundled:{name}")
        task = task_named(config.tables["task"])
        assert task.build(config, task.kinds()).members


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('name = "global"', 'patches = { "dust.beta" = 32 }', "power of two up to 16"),
        ('name = "global"', 'patches = { "dust.bta" = 2 }', "did you mean 'dust.beta'"),
        ('name = "global"', 'bounds = { "dust.beta" = [2.0, 1.0] }', "lies above the upper bound"),
        ('name = "global"', 'bounds = { "dust.bta" = [1.0, 2.0] }', "did you mean 'dust.beta'"),
    ],
)
def test_what_the_run_would_refuse_the_check_finds(tmp_path, old, new, message):
    """Both exit 2, with the same reason; the run stopped there as if by Ctrl-C once."""
    assert old in CONFIG
    done, out = run(tmp_path, CONFIG.replace(old, new, 1))
    checked = CliRunner().invoke(app, ["check", str(tmp_path / "sky.toml")], catch_exceptions=False)
    assert (checked.exit_code, done.exit_code) == (2, 2)
    document = json.loads((out / "results.json").read_text())
    assert document["complete"]
    assert document["members"][0]["result"] == "refused"
    reason = document["members"][0]["message"]
    assert message in reason
    assert reason in checked.stdout
    assert reason in done.stdout
