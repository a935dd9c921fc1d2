"""`jaxsci timing load|fit|residuals|simulate`."""

import csv
import lzma
import re

import numpy as np
import pytest

from jaxsci import timing
from jaxsci.runs import bundled_files
from jaxsci.timing._tim_out import retimed
from jaxsci.timing.io import tim_text

NAME = "bundled:NGC6440E"


def test_fit_shows_a_table_and_writes_a_par_file(command, tmp_path):
    done = command("timing", "fit", NAME, "--free", "F0", "--free", "F1", "-o", tmp_path / "new.par")
    assert done.exit_code == 0, done.output
    assert re.search(r"F0 +61\.485476554 +61\.4854765\d+\(\d\d\) +-?\d+\.\d{3} +Hz", done.stdout)
    assert "weighted rms" in done.stdout
    again = command("timing", "residuals", tmp_path / "new.par", bundled_files()["timing/NGC6440E.npz"])
    rms = [float(re.search(r"rms ([\d.]+) us", text).group(1)) for text in (done.stdout, again.stdout)]
    assert rms[0] == pytest.approx(rms[1], abs=1e-3)


@pytest.mark.slow
def test_noise_that_is_fitted_has_rows_of_its_own(command, tmp_path):
    """One EFAC for all: EFAC^2 = chi2 / n with the errors as they are; the rest is what the par file flags."""
    toas = bundled_files()["timing/NGC6440E.npz"]
    text = bundled_files()["timing/NGC6440E.par"].read_text() + "EFAC MJD 50000 60000 1.7\n"
    (tmp_path / "noisy.par").write_text(text)
    done = command("timing", "fit", tmp_path / "noisy.par", toas, "--free", "noise.EFAC", "-o", tmp_path / "new.par")
    assert done.exit_code == 0, done.output
    solution = timing.fit(*timing.bundled("NGC6440E"))
    for name in solution.names:
        assert re.search(rf"^ {name} +\S+ +\S+\(\d\d\)", done.stdout, flags=re.M), name
    (value,) = re.findall(r"EFAC1 +1\.7 +(\S+)\(\d\d\) +\S+ +MJD 50000 60000", done.stdout)
    assert float(value) == pytest.approx(np.sqrt(float(solution.chi2) / len(timing.TOAs.load(toas))), abs=6e-3)
    (again,) = re.findall(r"^EFAC +MJD 50000 60000 (\S+)", (tmp_path / "new.par").read_text(), flags=re.M)
    assert float(again) == pytest.approx(float(value), abs=6e-3)


def test_errors_are_scaled_and_lines_refused_on_demand(command, tmp_path):
    toas = bundled_files()["timing/NGC6440E.npz"]
    (tmp_path / "x.par").write_text(bundled_files()["timing/NGC6440E.par"].read_text() + "RM 5.2\n")
    words = ("timing", "fit", tmp_path / "x.par", toas, "--free", "F0", "--free", "F1")
    refused = command(*words, "--unknown", "error")
    assert refused.exit_code == 2
    assert "line RM 5.2 is not understood" in refused.output
    with pytest.warns(UserWarning, match=r"passed over: RM 5\.2$"):
        plain = command(*words)
    with pytest.warns(UserWarning, match="passed over"):
        scaled = command(*words, "--scale-covariance")
    assert "errors are scaled by sqrt(chi2 / dof)" in scaled.stdout
    assert "errors are scaled" not in plain.stdout
    reduced = float(re.search(r"reduced ([\d.]+)", plain.stdout).group(1))
    changes = [float(re.search(r"F0 .* (-?[\d.]+) +Hz", done.stdout).group(1)) for done in (plain, scaled)]
    assert changes[0] / changes[1] == pytest.approx(reduced**0.5, rel=1e-2)


def test_noise_that_there_is_not(command):
    done = command("timing", "fit", "bundled:J0931-1902", "--free", "noise.EFOC")
    assert done.exit_code == 2
    assert "no EFOC; did you mean 'EFAC'?" in done.output


def test_residuals_are_written_and_drawn(command, tmp_path):
    done = command("timing", "residuals", NAME, "-o", tmp_path / "r.csv", "--plot", tmp_path / "r.png")
    assert done.exit_code == 0, done.output
    rows = list(csv.DictReader((tmp_path / "r.csv").read_text().splitlines()))
    model, toas = timing.bundled("NGC6440E")
    expected = np.asarray(timing.residuals(model, toas))
    np.testing.assert_allclose([float(row["residual_s"]) for row in rows], expected, rtol=1e-14)
    assert (tmp_path / "r.png").read_bytes().startswith(b"\x89PNG")


def test_loading_and_simulating(command, tmp_path):
    par = bundled_files()["timing/NGC6440E.par"]
    assert command("timing", "load", NAME, "-o", tmp_path / "x.npz").exit_code == 0
    assert command("timing", "simulate", par, tmp_path / "x.npz", "-o", tmp_path / "s.npz").exit_code == 0
    model, _ = timing.bundled("NGC6440E")
    assert np.abs(np.asarray(timing.residuals(model, timing.TOAs.load(tmp_path / "s.npz")))).max() < 1e-11
    noisy = [tmp_path / f"{k}.npz" for k in (1, 2)]
    for path in noisy:
        assert command("timing", "simulate", NAME, "-o", path, "--seed", 7).exit_code == 0
    one, two = (timing.TOAs.load(path) for path in noisy)
    assert np.array_equal(one.second, two.second)


def test_simulated_tim_files_differ_in_their_times_alone():
    _, toas = timing.bundled("J1909-3744")
    import dataclasses

    later = dataclasses.replace(toas, second=toas.second + 1e-3)
    before = tim_text("J1909-3744").splitlines()
    after = retimed(tim_text("J1909-3744"), toas, later).splitlines()
    assert len(before) == len(after)
    changed = [(a.split(), b.split()) for a, b in zip(before, after, strict=True) if a != b]
    assert len(changed) == len(toas)
    for a, b in changed:
        assert a[:2] + a[3:] == b[:2] + b[3:]
        assert a[2].split(".")[0] == b[2].split(".")[0]
        assert 86400 * float(f"0.{b[2].split('.')[1]}") - 86400 * float(f"0.{a[2].split('.')[1]}") == pytest.approx(
            1e-3, abs=1e-9
        )


REFUSED = {
    "no such file": (("fit", "gone.par", "gone.tim"), "gone.par"),
    "no tim": (("fit", "gone.par"), "needs its TOAs too"),
    "too much": (("fit", NAME, "x.tim"), "comes with its TOAs"),
    "name": (("fit", "bundled:NGC"), "no pulsar 'NGC' comes with the package"),
    "parameter": (("fit", NAME, "--free", "FO"), "no parameter FO"),
    "where": (("simulate", NAME), "say where to write"),
    "format": (("simulate", NAME, "-o", "x.tim"), "FORMAT 1"),
    "suffix": (("load", NAME, "-o", "x.csv"), "written as .npz"),
    "picture": (("residuals", NAME, "--plot", "x.bmpp"), "--plot"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_bad_input_is_one_line(command, tmp_path, monkeypatch, case):
    monkeypatch.chdir(tmp_path)
    words, message = REFUSED[case]
    done = command("timing", *words)
    assert done.exit_code == 2
    assert message in done.stderr
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1


def test_a_damaged_npz_is_refused(command, tmp_path):
    whole = bundled_files()["timing/NGC6440E.npz"].read_bytes()
    (tmp_path / "half.npz").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "no.tim.xz").write_bytes(lzma.compress(b"FORMAT 1\n")[:-9])
    for name in ("half.npz", "no.tim.xz"):
        done = command("timing", "residuals", bundled_files()["timing/NGC6440E.par"], tmp_path / name)
        assert done.exit_code == 2
        assert name in done.stderr
