"""What a config can ask of a pulsar beside its timing: noise that is fitted, chi2 over a grid."""

import csv
import json

import numpy as np
import pytest
from typer.testing import CliRunner

from jaxsci.cli import app
from jaxsci.runs import bundled_files
from jaxsci.timing._par import read_par

CONFIG = """
task = "timing"
[[data]]
name = "noise"
par = "noisy.par"
tim = "bundled:timing/NGC6440E.npz"
free_noise = ["EFAC"]
[[data]]
name = "grid"
pulsar = "bundled:NGC6440E"
grid = { F1 = [-1.184e-15, -1.178e-15, 3], DM = [224.08, 224.14, 2] }
"""
EFAC = "EFAC MJD 50000 60000 1.7\n"
COUNT = 62
FREE = ["RAJ", "DECJ", "DM", "F0", "F1"]


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """The output folder of a run with a pulsar of each kind."""
    folder = tmp_path_factory.mktemp("fits")
    text = bundled_files()["timing/NGC6440E.par"].read_text()
    (folder / "noisy.par").write_text(text + EFAC)
    (folder / "fits.toml").write_text(CONFIG)
    words = ["run", str(folder / "fits.toml"), "--out", str(folder / "out")]
    done = CliRunner().invoke(app, words, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return folder / "out"


def members(ran):
    found = {member["name"]: member for member in json.loads((ran / "results.json").read_text())["members"]}
    for member in found.values():
        member["parameters"] = [row for row in member["parameters"] if "derived" not in row]
    return found


@pytest.mark.slow
def test_the_likeliest_efac_makes_chi2_the_number_of_toas(ran):
    noisy, plain = (members(ran)[name] for name in ("noise", "grid"))
    assert [row["name"] for row in noisy["parameters"]] == [*FREE, "EFAC1"]
    row = noisy["parameters"][-1]
    assert noisy["num_data"] == COUNT
    assert noisy["chi2"] == pytest.approx(COUNT, rel=1e-5)
    assert row["value"] == pytest.approx(np.sqrt(plain["chi2"] / COUNT), rel=1e-5)
    assert row["std"] == pytest.approx(row["value"] / np.sqrt(2 * COUNT), rel=1e-3)
    assert row["offset"] == pytest.approx(row["value"] - 1.7, abs=1e-12)
    assert row["remarks"] == ["MJD 50000 60000"]
    for mine, theirs in zip(noisy["parameters"], plain["parameters"], strict=False):
        assert mine["offset"] == pytest.approx(theirs["offset"], abs=1e-4 * theirs["std"])
        assert mine["std"] == pytest.approx(row["value"] * theirs["std"], rel=1e-4)


@pytest.mark.slow
def test_what_is_written_has_the_noise_that_was_found(ran):
    noisy, plain = (members(ran)[name] for name in ("noise", "grid"))
    value = noisy["parameters"][-1]["value"]
    assert noisy["whitened_std"] == pytest.approx(plain["whitened_std"] / value, rel=1e-4)
    assert np.diag(noisy["covariance"]) == pytest.approx([row["std"] ** 2 for row in noisy["parameters"]], rel=1e-12)
    par = read_par((ran / "pars" / "noise.par").read_text())
    assert float(par.value("EFAC1")) == value
    assert sorted(par.free) == sorted(FREE)
    rows = list(csv.DictReader((ran / "results.csv").read_text().splitlines()))
    assert [row["parameter"] for row in rows if row["member"] == "noise"][:6] == [*FREE, "EFAC1"]


@pytest.mark.slow
def test_a_grid_is_the_ellipse_of_the_covariance(ran):
    member = members(ran)["grid"]
    axes, chi2 = member["grid"]["axes"], np.array(member["grid"]["chi2"])
    assert list(axes) == ["F1", "DM"]
    assert axes["DM"] == [224.08, 224.14]
    assert chi2.shape == (3, 2)
    rows = {row["name"]: k for k, row in enumerate(member["parameters"])}
    at = [rows[name] for name in axes]
    std = np.array([member["parameters"][k]["std"] for k in at])
    matrix = np.array(member["covariance"])[np.ix_(at, at)] / np.outer(std, std)
    best = [member["parameters"][k]["value"] for k in at]
    z = np.stack(np.meshgrid(*axes.values(), indexing="ij"), axis=-1)
    z = (z - best) / std
    expected = np.einsum("abi,ij,abj->ab", z, np.linalg.inv(matrix), z)
    assert expected.max() > 1
    np.testing.assert_allclose(chi2 - member["chi2"], expected, rtol=1e-4, atol=1e-4)
    svg = (ran / "figures" / "grid.svg").read_text()
    assert "DM (pc cm^-3)" in svg
    assert "χ² over F1 and DM" in svg


@pytest.mark.slow
def test_check_says_what_of_the_noise_is_fitted(ran, command):
    done = command("check", ran.parent / "fits.toml")
    assert done.exit_code == 0, done.output
    words = " ".join(done.stdout.split())
    assert "noise.EFAC" in words
    assert "2 fits in 2 batches" in words


DATA = "[[data]]\npulsar = 'bundled:J0931-1902'\n"
BAD = {
    "misspelt": ("free_noise = ['EFAK']", "data[0] (J0931-1902): the par file has no EFAK; did you mean 'EFAC'?"),
    "absent": ("free_noise = ['TNREDAMP']", "the par file has no TNREDAMP"),
    "no list": ("free_noise = 'EFAC'", "data[0].free_noise: should be a list"),
    "both": (
        "free_noise = ['EFAC']\ngrid = { F0 = [1, 2, 3], F1 = [1, 2, 3] }",
        "data[0].grid: a grid takes the noise from the par file",
    ),
    "one": ("grid = { F0 = [1, 2, 3] }", "data[0].grid: a grid has two parameters"),
    "name": ("grid = { F0 = [1, 2, 3], FO = [1, 2, 3] }", "data[0].grid.FO: the timing model has no parameter FO"),
    "values": ("grid = { F0 = [1, 2], F1 = [1, 2, 3] }", "data[0].grid.F0: should be [from, to, how many]"),
    "order": ("grid = { F0 = [2, 1, 3], F1 = [1, 2, 3] }", "data[0].grid.F0: should rise from its first number"),
    "count": ("grid = { F0 = [1, 2, 3.5], F1 = [1, 2, 3] }", "data[0].grid.F0: should rise from its first number"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_wishes(command, tmp_path, case):
    text, message = BAD[case]
    (tmp_path / "bad.toml").write_text(f'task = "timing"\n{DATA}{text}\n')
    done = command("check", tmp_path / "bad.toml")
    assert done.exit_code == 2
    assert message in done.stderr
    assert done.stderr.count("\n") == 1
