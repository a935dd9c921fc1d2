"""`task = "xpcs"`: the configs as a researcher would run them, what is refused and how, models of one's own."""

import csv
import json
import re
import shutil

import h5py
import numpy as np
import pytest
from helpers import figures_of

from jaxsci.runs import ConfigError, bundled_files, read_config
from jaxsci.xpcs import read_result
from jaxsci.xpcs._task.work import fitted_g2
from jaxsci.xpcs.task import XPCSTask

CONFIGS = ("results_file", "global_fit", "saxs", "frames")
DIFFUSION = bundled_files()["xpcs/diffusion.h5"]
PLAIN = """
task = "xpcs"
[fit]
power_law = "tau"
truth = { slope = -2.0 }
[[data]]
name = "mine"
file = "run7.h5"
"""


def members(folder):
    return {m["name"]: m for m in json.loads((folder / "results.json").read_text())["members"]}


def values(member):
    return {row["name"]: row for row in member["parameters"]}


def built(name, *settings):
    task = XPCSTask()
    return task.build(read_config(name, settings), task.kinds())


@pytest.fixture
def mine(folder):
    """A folder with a config and a result file of one's own."""
    shutil.copy(DIFFUSION, folder / "run7.h5")
    (folder / "mine.toml").write_text(PLAIN)
    return folder


def test_each_config_is_run_here():
    bundled = {name for name in bundled_files() if re.fullmatch(r"xpcs/.*\.toml", name)}
    assert bundled == {f"xpcs/{name}.toml" for name in CONFIGS}


@pytest.mark.parametrize("name", CONFIGS)
def test_each_config_can_be_built(name):
    job = built(f"bundled:xpcs/{name}")
    assert len({member.name for member in job.members}) == len(job.members)
    assert len(job.description) > 100
    assert not XPCSTask().refusals(job.members)


def test_what_is_bundled_is_small_and_of_the_known_layout():
    files = {name: path for name, path in bundled_files().items() if name.startswith("xpcs/") and path.suffix == ".h5"}
    assert sum(path.stat().st_size for path in files.values()) < 600_000
    found = read_result(DIFFUSION)
    assert found.curves.g2.shape == (56, 12)
    assert int((~found.curves.mask).sum()) == 4
    assert found.geometry is not None


def test_a_result_file_becomes_relaxation_times(command, mine):
    done = command("run", "mine.toml", "--out", "out", "--interactive")
    assert done.exit_code == 0, done.output
    found = members(mine / "out")["mine"]
    assert (found["q_bins"], found["fitted"], found["verdict"]) == (12, 12, "analysed")
    rows = values(found)
    assert abs(rows["slope"]["value"] + 2) < 4 * rows["slope"]["std"]
    assert "pull" in rows["slope"]["remarks"][-1]
    assert rows["value_at"]["unit"] == "s"
    table = list(csv.DictReader((mine / "out" / "fits" / "mine.csv").read_text().splitlines()))
    assert len(table) == 12
    q, tau, error = (np.array([float(row[key]) for row in table]) for key in ("q", "tau", "tau_std"))
    assert np.all(abs(tau - 1 / (1.5e5 * q**2)) < 5 * error)
    assert rows["q[3].tau"]["value"] == pytest.approx(tau[3], rel=1e-9)
    page = (mine / "out" / "report.html").read_text()
    for text in ("12 / 12", "q-bins fitted", "exponent of tau(q)", "1/(τ q²)", "4 of 672 points masked"):
        assert text in page.replace("<span> / 12</span>", " / 12"), text
    assert page.count('<svg role="img"') == 1
    assert "12 of 12 q-bins fitted" in done.stdout
    curves, law = figures_of(mine / "out")["mine"]
    read = read_result(DIFFUSION).curves
    points = [trace for trace in curves["traces"] if trace["mode"] == "markers"]
    for k, trace in enumerate(points):
        used = np.asarray(read.mask)[:, k]
        assert trace["x"] == pytest.approx(np.asarray(read.t)[used])
        assert trace["y"] == pytest.approx(np.asarray(read.g2)[used, k], abs=1e-12)
    assert (len(points), len(curves["traces"])) == (12, 24)
    assert law["traces"][0]["y"] == pytest.approx(tau, rel=1e-9)


def test_a_file_without_a_point_is_told_before_the_run(command, mine):
    with h5py.File(mine / "run7.h5", "r+") as file:
        file["xpcs/multitau/normalized_g2"][:] = 0
    checked = command("check", "mine.toml")
    assert checked.exit_code != 0
    assert "nothing to fit" in checked.output


@pytest.mark.slow
def test_a_bin_that_fails_is_a_remark_and_all_of_them_a_failure(command, mine):
    with h5py.File(mine / "run7.h5", "r+") as file:
        file["xpcs/multitau/normalized_g2"][:, 5] = 0
    done = command("run", "mine.toml", "--out", "out")
    assert done.exit_code == 0, done.output
    found = members(mine / "out")["mine"]
    assert (found["fitted"], found["verdict"]) == (11, "analysed, look")
    assert found["look"][0].startswith("q-bin 5: Every row is masked")
    with h5py.File(mine / "run7.h5", "r+") as file:
        file["xpcs/multitau/normalized_g2"][:] = 0
    refused = command("run", "mine.toml", "--out", "none")
    assert refused.exit_code == 3
    assert members(mine / "none")["mine"]["result"] == "no_fit"


@pytest.mark.slow
def test_the_posterior_of_each_bin(command, folder):
    done = command("run", "bundled:xpcs/results_file", "--out", "out")
    assert done.exit_code == 0, done.output
    found = members(folder / "out")["diffusion"]
    assert found["r_hat"] < 1.01
    assert found["ess"] > 400
    assert found["mixed"] == 12
    row = values(found)["q[0].tau"]
    told = next(text for text in row["remarks"] if text.startswith("posterior"))
    mean, sd = (float(x) for x in re.fullmatch(r"posterior (\S+) ± (\S+)", told).groups())
    assert abs(mean - row["value"]) < 0.5 * row["std"]
    assert sd == pytest.approx(row["std"], rel=0.3)
    assert "12 of 12 posteriors that meet every criterion" in done.stdout


@pytest.mark.slow
def test_priors_of_a_config_are_those_of_the_fits():
    """A narrow prior on the contrast holds it where the prior says."""
    tight = 'fit.priors={contrast={type="TruncatedNormal", mean=0.1, sigma=1e-5, lower=0.0}}'
    (member,) = built("bundled:xpcs/results_file", tight).members
    fitted = fitted_g2(member.given.curves, member.fit, None)
    np.testing.assert_allclose(fitted.table["contrast"], 0.1, atol=1e-3)


def test_shared_parameters(command, folder):
    done = command("run", "bundled:xpcs/global_fit", "--out", "out")
    assert done.exit_code == 0, done.output
    found = members(folder / "out")
    own, common = values(found["each by itself"]), values(found["together"])
    assert abs(own["slope"]["value"] + 2) < 4 * own["slope"]["std"]
    assert abs(common["D"]["value"] - 1.5e5) < 4 * common["D"]["std"]
    assert abs(common["p"]["value"] - 2) < 4 * common["p"]["std"]
    assert "Relaxation over q" not in done.stdout


def test_scattering_less_its_background(command, folder):
    """The form factor of a sphere of radius 280 Å, of which the solvent hides the minima."""
    done = command("run", "bundled:xpcs/saxs", "--out", "out")
    assert done.exit_code == 0, done.output
    table = list(csv.DictReader((folder / "out" / "saxs" / "particles.csv").read_text().splitlines()))
    q, mean = (np.array([float(row[key]) for row in table]) for key in ("q", "intensity"))
    x = 280 * q
    sphere = 0.6 * (3 * (np.sin(x) - x * np.cos(x)) / x**3) ** 2
    assert np.all(abs(mean - sphere) < 0.02 * (sphere + 0.006))
    porod = list(csv.DictReader((folder / "out" / "saxs" / "Porod-plot.csv").read_text().splitlines()))
    np.testing.assert_allclose([float(row["intensity"]) for row in porod], mean * q**4, rtol=1e-9)


@pytest.mark.slow
def test_frames(command, folder):
    done = command("run", "bundled:xpcs/frames", "--out", "out")
    assert done.exit_code == 0, done.output
    found = members(folder / "out")["simulated"]
    rows = values(found)
    assert found["fitted"] == 6
    assert abs(rows["slope"]["value"] + 2) < 3 * rows["slope"]["std"]
    again = read_result(folder / "out" / "correlated" / "simulated.h5")
    assert again.two_time.maps.shape == (2, 1000, 1000)
    assert again.curves.g2.shape[1] == 6


def test_the_starter_runs(command, folder, monkeypatch):
    made = command("new", "xpcs", "start")
    assert made.exit_code == 0, made.output
    monkeypatch.chdir("start")
    checked = command("check", "fit.toml", "--import", "my_models.py")
    assert checked.exit_code == 0, checked.output
    assert "Wobbling" in checked.output


def test_a_measurement_lays_its_tables_over_those_of_all(mine):
    (mine / "two.toml").write_text(
        PLAIN + '[[data]]\nname = "other"\nfile = "run7.h5"\nfit = { model = "SingleExponential", columns = [1, 2] }\n'
    )
    first, second = built("two.toml").members
    assert (first.what, second.what) == ("StretchedExponential", "SingleExponential")
    assert second.fit.law == "tau"
    assert second.fit.columns == (1, 2)
    assert first.fit.columns is None


REFUSED = {
    "nothing": (["data=[]"], "data: there is nothing to analyse"),
    "no work": (['fit="x"'], "fit: should be a table"),
    "file": (['data.0.file="run8.h5"'], "did you mean 'run7.h5'"),
    "key": (['data.0.fle="x"'], "there is no key 'fle' here; did you mean 'file'"),
    "both": (['data.0.frames="x.h5"'], "either file"),
    "model": (['fit.model="StretchedExponentail"'], "did you mean 'StretchedExponential'"),
    "argument": (['fit.model={type="SingleExponential", contrst=0.1}'], "fit.model.contrst"),
    "free": (['fit.free=["tua"]'], "fit.free: .*did you mean 'tau'"),
    "shared": (['fit.shared=["tua"]'], "fit.shared: .*did you mean 'tau'"),
    "bounds": (["fit.bounds={tau=1.0}"], "fit.bounds.tau: should be .lower, upper."),
    "bounds name": (["fit.bounds={tua=[0.0, 1.0]}"], "fit.bounds: "),
    "prior": (['fit.priors={tau={type="LogNormal", median=-1.0, sigma=1.0}}'], "fit.priors.tau.*should be positive"),
    "prior name": (['fit.priors={tua={type="HalfNormal", sigma=1.0}}'], "fit.priors: .*no free parameter 'tua'"),
    "delays": (["fit.delays=[1.0, 0.1]"], "fit.delays: should be .shortest, longest."),
    "columns": (["fit.columns=[0, 12]"], "fit.columns: should be places of q-bins from 0 to 11"),
    "law": (['fit.power_law="gamma"'], "fit.power_law: no free parameter is called 'gamma'"),
    "truth": (['fit.truth={slope="two"}'], "fit.truth.slope: should be a number"),
    "chains": (["posterior={chains=0}"], "posterior.chains: should be 1 or more"),
    "accept": (["posterior={target_accept=1.5}"], "posterior.target_accept"),
    "normalise": (['saxs={normalise="q3"}'], "saxs.normalise: should be one of"),
    "flux": (["saxs={flux=[1.0]}"], "saxs.flux: should be .of the sample"),
    "layout": (['layout={delay="/x"}'], "did you mean 'delays'"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_bad_input_names_its_place(mine, case):
    settings, message = REFUSED[case]
    with pytest.raises(ConfigError, match=message):
        built("mine.toml", *settings)


FRAMES = """
task = "xpcs"
frame_time = 0.01
frames = "x"
[geometry]
energy = 10.9
centre = [19.5, -20.0]
distance = 5000.0
pixel_size = 0.6
[partition]
axes = [{ map = "q", bins = 6 }]
[fit]
[[data]]
frames = "bundled:xpcs/frames.h5"
"""

REFUSED_FRAMES = {
    "time": (["frame_time=0"], "frame_time: should be the time between two frames"),
    "place": (['data.0.dataset="/nowhere"'], "frames.h5 has no data set /nowhere"),
    "geometry": (["geometry.enrgy=1.0"], "no argument 'enrgy'; did you mean 'energy'"),
    "mask": (['mask=[{type="Circel"}]'], "mask.0..type: .*did you mean 'Circle'"),
    "map": (['partition.axes=[{map="w", bins=3}]'], "partition"),
    "axes": (["partition.axes=[]"], "partition.axes: should be one or two"),
    "bins": (["correlate={two_time=[9]}"], "correlate.two_time: should be q-bins from 1 to 6"),
    "normalise": (['correlate={normalise="mean"}'], "correlate.normalise: should be one of static"),
    "shape": (["geometry.shape=[10, 10]"], "shape"),
}


@pytest.mark.parametrize("case", REFUSED_FRAMES)
def test_bad_frames_name_their_place(folder, case):
    (folder / "frames.toml").write_text(FRAMES.replace('frames = "x"\n', ""))
    assert built("frames.toml").members[0].size == "1,000 frames of 40 x 40, 6 q-bins"
    settings, message = REFUSED_FRAMES[case]
    with pytest.raises(ConfigError, match=message):
        built("frames.toml", *settings)


def test_a_damaged_file_is_named(mine):
    whole = (mine / "run7.h5").read_bytes()
    (mine / "run7.h5").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ConfigError, match=r"data\[0\]\.file: .*run7\.h5"):
        built("mine.toml")
