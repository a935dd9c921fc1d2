"""`task = "timing"`: what a run of pulsars writes, and what is refused."""

import csv
import dataclasses
import json
import re
from decimal import Decimal

import jax.numpy as jnp
import numpy as np
import pytest
from helpers import figures_of
from typer.testing import CliRunner

import jaxsci as js
from jaxsci import timing
from jaxsci.cli import app
from jaxsci.runs import bundled_files, read_config
from jaxsci.timing._notation import said
from jaxsci.timing._par import read_par
from jaxsci.timing.plot import _receivers

CONFIG = """
task = "timing"
title = "Two pulsars"
[fit]
free = ["F0", "F1"]
[[data]]
pulsar = "bundled:NGC6440E"
[[data]]
name = "the same"
par = "bundled:timing/NGC6440E.par"
tim = "bundled:timing/NGC6440E.npz"
"""


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """(output folder, what was printed) of a run of two pulsars."""
    folder = tmp_path_factory.mktemp("timing")
    (folder / "two.toml").write_text(CONFIG)
    words = ["run", str(folder / "two.toml"), "--out", str(folder / "out"), "--interactive"]
    done = CliRunner().invoke(app, words, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return folder / "out", done


def test_what_is_zoomed_into_are_the_residuals_of_the_tables(ran):
    out, _ = ran
    rows = list(csv.DictReader((out / "residuals" / "NGC6440E.csv").read_text().splitlines()))
    after, white, before, means = figures_of(out)["NGC6440E"]
    record = json.loads((out / "results.json").read_text())["members"][0]
    assert after["title"] == f"After the fit: weighted rms {record['rms_us']:.3f} µs, {len(rows)} TOAs"
    of_toas = {}
    for name, panel in (("residual_s", after), ("whitened", white), ("before_s", before)):
        for trace in panel["traces"]:
            told = trace["customdata"]
            toas = [int(row[-3]) for row in told]
            scale = 1.0 if name == "whitened" else 1e6
            for k, toa in enumerate(toas):
                row = rows[toa]
                assert trace["x"][k] == float(row["mjd_utc"])
                assert trace["y"][k] == pytest.approx(scale * float(row[name]), rel=1e-12)
                assert float(told[k][-2]) == float(row["frequency_mhz"])
                if name != "whitened":
                    assert trace["error_y"]["array"][k] == pytest.approx(1e6 * float(row["sigma_s"]), rel=1e-12)
            of_toas.setdefault(name, []).extend(toas)
    assert all(sorted(toas) == list(range(len(rows))) for toas in of_toas.values()), "each TOA once"
    epochs = list(csv.DictReader((out / "epochs" / "NGC6440E.csv").read_text().splitlines()))
    drawn = sorted(pair for trace in means["traces"] for pair in zip(trace["x"], trace["y"], strict=True))
    of_table = sorted((float(epoch["mjd_utc"]), 1e6 * float(epoch["residual_s"])) for epoch in epochs)
    assert np.array(drawn) == pytest.approx(np.array(of_table), rel=1e-12)


def test_the_highest_octaves_of_frequency_go_together():
    """There are six colours, and no TOA is left out for the want of a seventh."""
    model, toas = timing.bundled("NGC6440E")
    frequency = 50.0 * 2.0 ** (np.arange(len(toas)) % 9)
    frequency[5] = np.inf
    groups = list(_receivers(model, dataclasses.replace(toas, frequency=jnp.asarray(frequency))))
    assert len(groups) == 6
    assert (np.sum([here for _, here in groups], axis=0) == 1).all()


def test_numbers_of_a_run(ran):
    out, _ = ran
    document = json.loads((out / "results.json").read_text())
    first, second = document["members"]
    assert document["counts"] == {"fits": 2, "succeeded": 2, "failed": 0, "not_run": 0}
    assert (first["name"], second["name"], first["model"]) == ("NGC6440E", "the same", "isolated")
    model, toas = timing.bundled("NGC6440E")
    alone = timing.fit(model, toas, ("F0", "F1"))
    assert first["chi2"] == pytest.approx(float(alone.chi2), rel=1e-8)
    fitted = [row for row in first["parameters"] if "derived" not in row]
    assert [row["name"] for row in fitted] == ["F0", "F1"]
    for row in fitted:
        assert row["std"] == pytest.approx(alone.std[row["name"]], rel=1e-6)
        assert row["offset"] == pytest.approx(alone.offsets[row["name"]], abs=1e-4 * row["std"])
    assert first["parameters"][0]["unit"] == "Hz"
    assert re.fullmatch(r"61\.4854765\d+\(\d\d\)", first["parameters"][0]["text"])
    assert first["rms_us"] < first["rms_before_us"]
    rows = list(csv.DictReader((out / "results.csv").read_text().splitlines()))
    assert [row["parameter"] for row in rows] == ["F0", "F1", "P", "Pdot", "age", "B", "Edot"] * 2
    assert (first["aic"], first["bic"]) == pytest.approx((alone.aic, alone.bic), abs=1e-6)


def test_what_follows_from_the_parameters_and_goes_together(ran):
    out, _ = ran
    first = json.loads((out / "results.json").read_text())["members"][0]
    solution = timing.fit(*timing.bundled("NGC6440E"), ("F0", "F1"))
    rows = {row["name"]: row for row in first["parameters"] if "derived" in row}
    for each in timing.derived(solution):
        assert rows[each.name]["value"] == pytest.approx(each.value, rel=1e-6)
        assert rows[each.name]["std"] == pytest.approx(each.std, rel=1e-4)
    assert rows["age"]["remarks"] == ["derived: characteristic, P / (2 Pdot)"]
    (pair,) = solution.correlations(0.0)
    matrix = solution.fit.correlation
    at = [solution.places[solution.names.index(name)] for name in pair[:2]]
    assert pair == ("F0", "F1", float(matrix[at[0], at[1]]))
    assert solution.correlations(abs(pair.value)) == ()
    assert first["correlations"] == []  # none is above 0.9


def test_columns_of_a_run(ran):
    out, _ = ran
    rows = list(csv.DictReader((out / "residuals" / "NGC6440E.csv").read_text().splitlines()))
    model, toas = timing.bundled("NGC6440E")
    solution = timing.fit(model, toas, ("F0", "F1"))
    after = np.array([float(row["residual_s"]) for row in rows])
    np.testing.assert_allclose(after, timing.residuals(solution.model, toas), atol=1e-10)
    means = list(csv.DictReader((out / "epochs" / "NGC6440E.csv").read_text().splitlines()))
    assert sum(int(row["toas"]) for row in means) == len(toas)
    assert int(rows[-1]["epoch"]) < len(means) == 50  # some of the 62 TOAs came within a second
    assert "NGC6440E: weighted rms" in (out / "figures" / "NGC6440E.svg").read_text()


def test_files_of_a_run(ran):
    out, _ = ran
    assert sorted(path.name for path in (out / "figures").iterdir()) == ["NGC6440E.svg", "The-sky.svg", "the-same.svg"]
    assert sorted(path.name for path in (out / "solutions").iterdir()) == ["NGC6440E.eqx", "the-same.eqx"]
    par = read_par((out / "pars" / "NGC6440E.par").read_text())
    assert par.free == ("F0", "F1")
    page = (out / "report.html").read_text()
    assert page.count('<svg role="img"') == 3
    assert all(text in page for text in ("The sky", "before the fit", "whitened", "61.4854765", "converged"))
    assert "http" not in re.sub(r'xmlns[^"]*"[^"]*"', "", page)


def test_check_says_what_would_be_fitted(ran):
    out, _ = ran
    done = CliRunner().invoke(app, ["check", str(out.parent / "two.toml")])
    assert done.exit_code == 0
    assert "2 fits in one batch" in done.stdout
    assert "F0 F1" in done.stdout


def test_quickstart_is_the_array():
    quick, array = (read_config(f"bundled:{name}").tables for name in ("quickstart.toml", "timing/array.toml"))
    assert quick == array
    assert sorted(entry["pulsar"].removeprefix("bundled:") for entry in quick["data"]) == sorted(timing.bundled())


def test_errors_are_scaled_where_the_config_says_so(command, tmp_path, ran):
    text = CONFIG.replace('free = ["F0", "F1"]', 'free = ["F0", "F1"]\nscale_covariance = true')
    (tmp_path / "scaled.toml").write_text(text)
    done = command("run", tmp_path / "scaled.toml", "--out", tmp_path / "out")
    assert done.exit_code == 0, done.output
    scaled = json.loads((tmp_path / "out" / "results.json").read_text())["members"][0]
    plain = json.loads((ran[0] / "results.json").read_text())["members"][0]
    assert (scaled["errors_scaled"], plain["errors_scaled"]) == (True, False)
    assert scaled["chi2"] == plain["chi2"]
    for row, other in zip(scaled["parameters"], plain["parameters"], strict=True):
        assert row["std"] == pytest.approx(other["std"] * plain["reduced_chi2"] ** 0.5, rel=1e-6)


def test_each_timing_config_can_be_read(command):
    names = [name for name in bundled_files() if re.fullmatch(r"timing/.*\.toml", name)]
    assert names == [f"timing/{name}.toml" for name in ("array", "grid", "noise", "single")]
    for name in names:
        done = command("check", f"bundled:{name}")
        assert done.exit_code == 0, done.output


BAD = {
    "key": (
        "[[data]]\npulsr = 'bundled:NGC6440E'",
        "data[0].pulsr: there is no key 'pulsr' here; did you mean 'pulsar'?",
    ),
    "name": ("[[data]]\npulsar = 'bundled:NGC6440'", "data[0].pulsar: no pulsar 'NGC6440' comes with the package"),
    "none": ("", "data: there is nothing to fit"),
    "no tim": ("[[data]]\npar = 'bundled:timing/NGC6440E.par'", "data[0]: it has no data: give par and tim"),
    "free": (
        "[[data]]\npulsar = 'bundled:NGC6440E'\nfree = ['FO']",
        "data[0] (NGC6440E): the timing model has no parameter FO",
    ),
    "not names": ("fit = { free = [1] }\n[[data]]\npulsar = 'bundled:NGC6440E'", "fit.free: should be a list of names"),
    "twice": ("[[data]]\npulsar = 'bundled:NGC6440E'\n" * 2, "two pulsars are called 'NGC6440E'"),
    "scale": ("fit = { scale_covariance = 'yes' }\n[[data]]\npulsar = 'bundled:NGC6440E'", "fit.scale_covariance"),
    "unknown": ("[[data]]\npulsar = 'bundled:NGC6440E'\nunknown = 'error'", "data[0].unknown: a bundled pulsar comes"),
    "duplicates": (
        "[[data]]\npar = 'bundled:timing/NGC6440E.par'\ntim = 'bundled:timing/NGC6440E.npz'\nduplicates = 'lose'",
        "data[0]: duplicates should be",
    ),
    "npz": (
        "[[data]]\npar = 'bundled:timing/NGC6440E.par'\ntim = 'bundled:curvefit/patches.npy'",
        "data[0]:",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_configs(command, tmp_path, case):
    text, message = BAD[case]
    (tmp_path / "bad.toml").write_text(f'task = "timing"\n{text}\n')
    done = command("check", tmp_path / "bad.toml")
    assert done.exit_code == 2
    assert message in done.stderr
    assert done.stderr.count("\n") == 1


def test_solutions_are_loaded_again(ran):
    out, _ = ran
    document = json.loads((out / "results.json").read_text())
    model, toas = timing.bundled("NGC6440E")
    like = timing.fit_array([model] * 2, [toas] * 2, ("F0", "F1"))[0].fit
    again = js.Solution.load(out / document["members"][0]["solution"]["file"], like.model)
    assert float(again.chi2) == pytest.approx(document["members"][0]["chi2"], rel=1e-12)


def test_a_tim_file_includes_files_from_outside_on_request(tmp_path):
    pytest.importorskip("pint", reason="pip install 'jaxsci[timing]'")
    inside = tmp_path / "inside"
    inside.mkdir()
    par = "PSR X\nRAJ 12:00:00\nDECJ 10:00:00\nF0 100.0 1\nPEPOCH 55500\nDM 15\nEPHEM DE440\nCLK UNCORR\nUNITS TDB\n"
    (inside / "x.par").write_text(par)
    rows = [f"x{k} 1400 {55000 + k}.1000000 1.0 @ -fe A" for k in range(4)]
    (tmp_path / "rest.tim").write_text("\n".join(["FORMAT 1", *rows]) + "\n")
    (inside / "x.tim").write_text("FORMAT 1\nINCLUDE ../rest.tim\n")
    (inside / "one.toml").write_text('task = "timing"\n[[data]]\npar = "x.par"\ntim = "x.tim"\n')
    words = ["check", str(inside / "one.toml")]
    refused = CliRunner().invoke(app, words)
    assert refused.exit_code == 2
    said = " ".join(refused.stderr.split())
    assert "x.tim:2: '../rest.tim' lies outside of" in said
    assert "--allow-outside" in said
    assert CliRunner().invoke(app, [*words, "--allow-outside"]).exit_code == 0


@pytest.mark.parametrize("std", [3.8e-8, 2.5e-5, 0.1, 0.0099999 / 3600])
@pytest.mark.parametrize(
    ("name", "unit", "seconds"), [("RAJ", "hourangle", "s"), ("DECJ", "deg", "arcsec"), ("F0", "Hz", None)]
)
def test_errors_of_angles_are_in_the_seconds_of_their_values(name, unit, seconds, std):
    """17:48:52.80035(14) with 0.00014 s: parentheses and the error beside them are the same number."""
    texts = said(name, Decimal("17.8146667639"), std, unit)
    if seconds is None:
        assert set(texts) == {"text"}
        return
    error, written = texts["std_text"].split()
    assert written == seconds
    assert float(error) == pytest.approx(3600 * std, rel=0.05)
    value, digits = re.fullmatch(r"17:48:([\d.]+)\((\d+)\)", texts["text"]).groups()
    places = len(value.partition(".")[2])
    assert float(digits) * 10.0**-places == pytest.approx(3600 * std, rel=0.05)
    assert texts["unit_text"] == ("h:m:s" if name == "RAJ" else "d:m:s")
