"""`jaxsci xpcs qmap|correlate|fit|report|average`."""

import csv
import json
import shutil

import h5py
import numpy as np
import pytest

from jaxsci.runs import bundled_files
from jaxsci.xpcs import read_qmap, read_result
from jaxsci.xpcs._correlators import correlate as correlators

NAME = "bundled:xpcs/diffusion.h5"
FRAMES = bundled_files()["xpcs/frames.h5"]
QMAP = """
shape = [40, 40]
[geometry]
energy = 10.9
centre = [19.5, -20.0]
distance = 5000.0
pixel_size = 0.6
[[mask]]
type = "Not"
of = { type = "Rectangle", centre = [19.5, 1.0], size = [8.0, 3.0] }
[partition]
axes = [{ map = "q", bins = 4, spacing = "log" }]
finer = [3, 1]
"""


def test_fit_shows_a_table_and_writes_it(command, folder):
    done = command("xpcs", "fit", NAME, "--columns", "0,2-4", "--power-law", "tau", "-o", "fits.csv", "--plot", "f.png")
    assert done.exit_code == 0, done.output
    assert "4 of 4 q-bins fitted" in done.stdout
    assert "exponent of tau(q)" in done.stdout
    rows = list(csv.DictReader((folder / "fits.csv").read_text().splitlines()))
    assert [row["column"] for row in rows] == ["0", "2", "3", "4"]
    assert (folder / "f.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_a_real_file_reaches_its_golden_answer(command, shared_data, folder):
    """Two relaxations of one field with shared exponents: the stored optimum, from the file to the screen."""
    folder_ = shared_data / "xpcs"
    file = folder_ / "Average_B0147_S3_7_300C10p_att00_Rq0_01051_01150_results.hdf"
    words = ("--model", "DoubleField", "--set", "contrast=0.135", "--columns", "0-4", "--shared", "exponent_*")
    free = [word for name in ("tau_*", "fraction", "exponent_*") for word in ("--free", name)]
    done = command("xpcs", "fit", file, *words, *free)
    assert done.exit_code == 0, done.output
    with np.load(folder_ / "real_aps8id_B0147_01051_01150_globalfit.npz") as golden:
        x = golden["x"]
    assert f"exponent_1 {x[0]:.5f}"[:16] in done.stdout
    assert f"exponent_2 {x[1]:.5f}"[:16] in done.stdout


def test_no_bin_that_can_be_fitted_is_a_failure(command, folder):
    shutil.copy(bundled_files()["xpcs/diffusion.h5"], "dark.h5")
    with h5py.File("dark.h5", "r+") as file:
        file["xpcs/multitau/normalized_g2"][:] = 0
    done = command("xpcs", "fit", "dark.h5", "--columns", "0,2-4")
    assert done.exit_code == 3
    assert "None of 4 q-bins could be fitted" in done.stderr


@pytest.mark.slow
def test_report(command, folder):
    done = command("xpcs", "report", NAME, "--out", "out")
    assert done.exit_code == 0, done.output
    found = json.loads((folder / "out" / "results.json").read_text())["members"][0]
    assert found["fitted"] == 12
    assert (folder / "out" / "report.html").exists()
    config = json.loads((folder / "out" / "results.json").read_text())["config_file"]
    assert config == str((folder / "out" / "diffusion.toml").resolve())
    assert command("check", config, "--allow-outside").exit_code == 0


def test_average_of_runs(command, folder):
    """Three runs, of which one has another baseline; a file that is none is told and left out."""
    rng = np.random.default_rng(3)
    for k, shift in enumerate((0.0, 0.0, 0.0, 0.0, 0.3)):
        shutil.copy(bundled_files()["xpcs/diffusion.h5"], f"r{k}.h5")
        with h5py.File(f"r{k}.h5", "r+") as file:
            g2 = file["xpcs/multitau/normalized_g2"]
            values, errors = g2[()], file["xpcs/multitau/normalized_g2_err"][()]
            g2[:] = np.where(values == 0, 0, values + shift + errors * rng.normal(size=values.shape))
    (folder / "half.h5").write_bytes((folder / "r0.h5").read_bytes()[:3000])
    names = [f"r{k}.h5" for k in range(5)]
    done = command("xpcs", "average", *names, "half.h5", "gone.h5", "-o", "mean.h5")
    assert done.exit_code == 0, done.output
    assert "left out: r4.h5" in done.stdout
    assert "skipped" in done.stderr
    assert "half.h5" in done.stderr
    one, mean = read_result("r0.h5"), read_result("mean.h5")
    good = np.asarray(mean.curves.mask)
    np.testing.assert_allclose(np.asarray(mean.curves.sigma)[good], np.asarray(one.curves.sigma)[good] / 2, rtol=1e-6)
    expected = np.mean([np.asarray(read_result(name).curves.g2) for name in names[:4]], axis=0)
    np.testing.assert_allclose(np.asarray(mean.curves.g2)[good], expected[good], rtol=1e-9)
    assert int((~good).sum()) == 4


def test_a_parameter_that_is_set_is_held(command, folder):
    words = ("xpcs", "fit", NAME, "--columns", "0,1", "--set", "exponent=1.0", "--device", "cpu", "-o")
    assert command(*words, "held.csv").exit_code == 0
    rows = list(csv.DictReader((folder / "held.csv").read_text().splitlines()))
    assert "exponent" not in rows[0]
    assert float(rows[0]["tau_std"]) > 0
    shared = command(*words, "no.csv", "--shared", "exponent")
    assert shared.exit_code == 2
    assert "exponent is held, not free" in shared.stderr
    free = [word for name in ("tau", "contrast", "baseline", "exponent") for word in ("--free", name)]
    assert command(*words, "free.csv", *free).exit_code == 0
    rows = list(csv.DictReader((folder / "free.csv").read_text().splitlines()))
    assert all(float(row["exponent_std"]) > 0 for row in rows)


def test_fits_that_the_data_do_not_determine_are_none(command, folder):
    """One lag for four parameters; and without errors there is no chi2."""
    shutil.copy(bundled_files()["xpcs/diffusion.h5"], "one.h5")
    shutil.copy(bundled_files()["xpcs/diffusion.h5"], "bare.h5")
    with h5py.File("one.h5", "r+") as file:
        for name in ("delay_list", "normalized_g2", "normalized_g2_err"):
            some = file[f"xpcs/multitau/{name}"][:2]  # the first one is masked
            del file[f"xpcs/multitau/{name}"]
            file[f"xpcs/multitau/{name}"] = some
    with h5py.File("bare.h5", "r+") as file:
        del file["xpcs/multitau/normalized_g2_err"]
    done = command("xpcs", "fit", "one.h5", "--columns", "0,1")
    assert done.exit_code == 3
    assert "undetermined" in done.stdout
    assert "None of 2 q-bins could be fitted. The data do not determine" in done.stderr
    bare = command("xpcs", "fit", "bare.h5", "--columns", "0,1")
    assert bare.exit_code == 0
    assert bare.stdout.count("no errors") == 2


def test_a_run_that_is_stopped_says_what_is_kept(command, folder, monkeypatch):
    (folder / "q.toml").write_text(QMAP)
    assert command("xpcs", "qmap", "q.toml", "-o", "q.h5").exit_code == 0
    words = ("xpcs", "correlate", "dead.h5", "--qmap", "q.h5", "--frame-time", "0.01", "-o", "r.h5")
    counts = np.random.default_rng(0).poisson(1.0, (40, 40, 40)).astype(np.uint32)
    counts[:, 5, 5] = 2**32 - 1
    with h5py.File("dead.h5", "w") as file:
        file["frames"] = counts
    wrong = command(*words)
    assert wrong.exit_code == 2
    assert wrong.stderr.startswith("error: FRAMES.h5: dead.h5 has no data set /entry/data/data: give --dataset")
    assert "it has /frames" in wrong.stderr
    whole = correlators.read_through

    def stopped(source, parts, collected, plan, placement, kept, name, report):
        kept.write()
        raise KeyboardInterrupt

    monkeypatch.setattr(correlators, "read_through", stopped)
    done = command(*words, "--dataset", "frames")
    assert done.exit_code != 0
    assert "what is done is kept in r.h5.checkpoint: the same command goes on from there" in done.stderr
    monkeypatch.setattr(correlators, "read_through", whole)
    again = command(*words, "--dataset", "frames")
    assert again.exit_code == 0, again.output
    assert "going on where an earlier run stopped" in again.stdout
    assert "1 of 1576 pixels left out" in again.stderr


def test_nothing_to_average_is_a_failure(command, folder):
    done = command("xpcs", "average", "gone.h5", "-o", "mean.h5")
    assert done.exit_code == 3
    assert "none of 1 files could be read" in done.stderr
    assert not (folder / "mean.h5").exists()


def test_a_q_map_from_a_config(command, folder):
    (folder / "q.toml").write_text(QMAP)
    done = command("xpcs", "qmap", "q.toml", "-o", "q.h5", "--plot", "q.png")
    assert done.exit_code == 0, done.output
    assert "1576 of 1600 pixels, 4 q-bins with 12 static bins" in done.stdout
    assert "q of these pixels: 0.01" in done.stdout
    found = read_qmap(folder / "q.h5")
    assert not np.asarray(found.mask)[16:24, :3].any()
    assert (folder / "q.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("two_time", ["", pytest.param("2", marks=pytest.mark.slow)])
def test_frames_become_a_result(command, folder, two_time):
    (folder / "q.toml").write_text(QMAP)
    assert command("xpcs", "qmap", "q.toml", "-o", "q.h5", "--image", FRAMES).exit_code == 0
    words = ("--qmap", "q.h5", "--frame-time", "0.01", "--two-time", two_time, "-o", "r.h5")
    done = command("xpcs", "correlate", FRAMES, *words)
    assert done.exit_code == 0, done.output
    found = read_result(folder / "r.h5")
    assert found.curves.q.shape == (4,)
    if two_time:
        assert found.two_time.maps.shape == (1, 1000, 1000)
    assert float(found.curves.t[0]) == 0.01
    assert not list(folder.glob("*.checkpoint"))
    # a contrast of .3 that decays to nothing
    assert 0.2 < float(found.curves.g2[0, 0]) - 1 < 0.4


REFUSED = {
    "no such file": (("fit", "gone.h5"), "gone.h5: there is no such file"),
    "bundled": (("fit", "bundled:xpcs/difusion.h5"), "did you mean 'xpcs/diffusion.h5'"),
    "model": (("fit", NAME, "--model", "Stretched"), "no model is called 'Stretched'"),
    "value": (("fit", NAME, "--set", "contrast"), "should be NAME=VALUE"),
    "bounds": (("fit", NAME, "--bounds", "tau=1"), "should be NAME=LOW:HIGH"),
    "columns": (("fit", NAME, "--columns", "a-b"), "should be places such as"),
    "free": (("fit", NAME, "--free", "tua"), "did you mean 'tau'"),
    "picture": (("qmap", "q.toml", "-o", "q.h5", "--plot", "x.bmpp"), "--plot"),
    "no map": (("correlate", FRAMES, "--qmap", "gone.h5", "-o", "r.h5", "--frame-time", "1"), "gone.h5"),
    "time": (("correlate", FRAMES, "--qmap", "q.h5", "-o", "r.h5", "--frame-time", "0"), "--frame-time"),
    "no shape": (("qmap", "bare.toml", "-o", "q.h5"), "say how many rows and columns"),
    "layout": (("fit", NAME, "--layout", "bad.toml"), "did you mean 'delays'"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_bad_input_is_one_line(command, folder, case):
    (folder / "q.toml").write_text(QMAP)
    (folder / "bare.toml").write_text(QMAP.replace("shape = [40, 40]", ""))
    (folder / "bad.toml").write_text('delay = "/x"\n')
    words, message = REFUSED[case]
    done = command("xpcs", *words)
    assert done.exit_code == 2, done.output
    assert message in done.stderr
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
