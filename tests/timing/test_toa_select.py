"""Some of the TOAs: by date, frequency and flag, in Python and in a config."""

import json

import numpy as np
import pytest

from jaxsci import timing
from jaxsci.runs import read_config, task_named

CONFIG = """
task = "timing"
[select]
mjd = [53400, 53700]
[[data]]
pulsar = "bundled:NGC6440E"
free = ["F0", "DM"]
"""
OWN = "select = { frequency = [1900, 2000], invert = true }"


def test_dates_frequencies_and_flags_are_met_together():
    _, toas = timing.bundled("J0931-1902")
    mjd, frequency, flag = np.asarray(toas.utc), np.asarray(toas.frequency), toas.has("-f Rcvr_800_GUPPI")
    middle = float(np.median(mjd))
    chosen = {"mjd": (middle, np.inf), "frequency": (0, 850), "flags": {"f": "Rcvr_800_GUPPI"}}
    expected = (mjd >= middle) & (frequency <= 850) & flag
    assert 0 < expected.sum() < flag.sum() < len(toas)
    kept, others = toas.select(**chosen), toas.select(**chosen, invert=True)
    np.testing.assert_array_equal(kept.second, toas.second[expected])
    np.testing.assert_array_equal(others.second, toas.second[~expected])
    assert kept.flags == toas.flags
    assert len(toas.select(flags={"-f": ["Rcvr_800_GUPPI", "Rcvr1_2_GUPPI"]})) == len(toas)
    assert len(toas.select()) == len(toas)


@pytest.mark.parametrize(
    ("chosen", "message"),
    [
        ({"mjd": (40000, 41000)}, r"no TOA of 712 is left; they are from MJD 56\d+\.\d\d to 56\d+\.\d\d and from 7"),
        ({"invert": True}, "no TOA of 712 is left"),
        ({"mjd": (57000, 56000)}, "mjd should be two numbers, from and to"),
        ({"flags": {"f": "Rcvr_80_GUPPI"}}, "no TOA has the flag '-f Rcvr_80_GUPPI'; did you mean '-f Rcvr_800_GUPPI'"),
    ],
)
def test_selections_that_are_none(chosen, message):
    with pytest.raises(ValueError, match=message):
        timing.bundled("J0931-1902")[1].select(**chosen)


def test_a_fit_names_what_no_toa_is_left_for():
    """A JUMP of TOAs that are gone, and one of all that are left, which no phase can be told from."""
    model, toas = timing.bundled("J0931-1902")
    jump = next(name for name in model.par.free if name.startswith("JUMP"))
    flag = model.par.selection(jump)
    key, value = flag[1:].split()
    window = model.par.prefixed("DMX_")[0]
    end = float(model.par.value(window.replace("DMX_", "DMXR2_")))
    gone = toas.select(mjd=(end, np.inf)).select(flags={key: value}, invert=True)
    with pytest.warns(UserWarning, match=rf"no TOA depends on {window}, {jump}: the error is infinite"):
        solution = timing.fit(model, gone, ("F0", window, jump))
    assert solution.success
    assert np.isinf([solution.std[window], solution.std[jump]]).all()
    assert np.isfinite(solution.std["F0"])
    with pytest.warns(UserWarning, match=f"the data do not determine {jump}, PHOFF"):
        every = timing.fit(model, toas.select(flags={key: value}), ("F0", jump))
    assert np.isinf(every.std[jump])


def test_flags_beyond_those_of_the_par_file_are_kept(tmp_path):
    pytest.importorskip("pint", reason="pip install 'jaxsci[timing]'")
    par = "PSR X\nRAJ 12:00:00\nDECJ 10:00:00\nF0 100.0 1\nPEPOCH 55500\nDM 15\nEPHEM DE440\nCLK UNCORR\nUNITS TDB\n"
    (tmp_path / "x.par").write_text(par)
    rows = [f"x{k} 1400 {55000 + k}.1000000 1.0 @ -be B{k % 2} -snr {k}.5 -pn {k}" for k in range(40)]
    (tmp_path / "x.tim").write_text("\n".join(["FORMAT 1", *rows]) + "\n")
    _, toas = timing.load(tmp_path / "x.par", tmp_path / "x.tim")
    assert toas.flags == ("TEL barycenter", "-be B0", "-be B1")  # -snr has a value of its own for each
    np.testing.assert_array_equal(toas.select(flags={"be": "B1"}).turn, np.arange(1, 40, 2))
    assert len(toas.select(flags={"TEL": "barycenter"})) == 40


def test_a_run_says_how_many_were_kept(command, tmp_path):
    _, toas = timing.bundled("NGC6440E")
    counts = [len(toas.select(mjd=(53400, 53700))), len(toas.select(frequency=(1900, 2000), invert=True))]
    (tmp_path / "some.toml").write_text(CONFIG)
    done = command("run", tmp_path / "some.toml", "--out", tmp_path / "out")
    assert done.exit_code == 0, done.output
    (member,) = json.loads((tmp_path / "out" / "results.json").read_text())["members"]
    assert member["num_data"] == counts[0]
    assert f"{counts[0]} of 62 TOAs selected" in (tmp_path / "out" / "report.html").read_text()
    (tmp_path / "own.toml").write_text(CONFIG + OWN)
    job = task_named("timing").build(read_config(str(tmp_path / "own.toml")), {})
    assert [len(pulsar.toas) for pulsar in job.members] == counts[1:]


BAD = {
    "key": ("{ mdj = [1, 2] }", "data[0] (NGC6440E).select.mdj: there is no key 'mdj' here; did you mean 'mjd'?"),
    "range": ("{ mjd = [1] }", "data[0] (NGC6440E).select.mjd: should be two numbers, from and to"),
    "none": ("{ mjd = [1, 2] }", "data[0] (NGC6440E).select: no TOA of 62 is left"),
    "flag": ("{ flags = { f = 'L-wide' } }", "data[0] (NGC6440E).select: no TOA has the flag '-f L-wide'"),
    "words": ("{ flags = { f = 1 } }", "data[0] (NGC6440E).select.flags.f: should be a text, or several"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_selections(command, tmp_path, case):
    text, message = BAD[case]
    (tmp_path / "bad.toml").write_text(f"task = 'timing'\n[[data]]\npulsar = 'bundled:NGC6440E'\nselect = {text}\n")
    done = command("check", tmp_path / "bad.toml")
    assert done.exit_code == 2
    assert message in done.stderr
    assert done.stderr.count("\n") == 1
