"""`jaxsci run` and `demo`: what is written, and how the command ends."""

import contextlib
import csv
import json
import re
from pathlib import Path

import jax
import pytest
from written import TWO_NIST, write_csv

import jaxsci as js
from jaxsci.curvefit._task import run
from jaxsci.curvefit.task import CurveFitTask
from jaxsci.data.nist import MODELS as NIST_MODELS
from jaxsci.runs import _figures, extended, fits

NIST = f"""
title = "Two of <NIST>"

[fit]
max_steps = 200
{TWO_NIST}"""


@pytest.fixture
def result(folder, command):
    """A run of two NIST problems, three fits, with its folder."""
    (folder / "nist.toml").write_text(NIST)
    done = command("run", "nist.toml", "--out", "out")
    assert done.exit_code == 0, done.output
    return done


def test_nist_run_against_the_certified_values(folder, result):
    out = folder / "out"
    document = json.loads((out / "results.json").read_text())
    assert document["counts"] == {
        "fits": 3,
        "succeeded": 3,
        "failed": 0,
        "not_run": 0,
        "compared": 3,
        "values_to_6_digits": 3,
        "values_to_9_digits": 3,
        "std_to_6_digits": 3,
    }
    assert document["complete"] is True
    assert document["config"]["fit"] == {"max_steps": 200}
    assert document["device"]["platform"] == jax.default_backend()
    assert document["versions"]["jax"] == jax.__version__
    assert [m["name"] for m in document["members"]] == ["DanWood, start 1", "DanWood, start 2", "box"]
    b1, b2 = document["members"][2]["parameters"]
    assert (b1["name"], b2["name"]) == ("b1", "b2")
    assert b1["value"] == pytest.approx(2.1380940889e02, rel=1e-9)
    assert b1["std"] == pytest.approx(1.2354515176e01, rel=1e-6)
    assert document["members"][2]["chi2"] == pytest.approx(1.1680088766e03, rel=1e-9)
    assert document["members"][2]["dof"] == 4
    assert b2["reference"] == 5.4723748542e-01
    _check_csv(out, document)
    _check_solutions(out)
    _check_report(out)
    assert re.search(r"box: successful after \d+ steps\.", (out / "log.txt").read_text())
    assert result.stdout.rstrip().endswith(f"report: {(out / 'report.html').resolve()}")
    assert not [path for path in out.rglob("*") if path.name.endswith(".tmp")]


def _check_csv(out, document):
    rows = list(csv.DictReader((out / "results.csv").read_text().splitlines()))
    assert [row["parameter"] for row in rows] == ["b1", "b2"] * 3
    assert float(rows[4]["value"]) == document["members"][2]["parameters"][0]["value"]
    assert rows[4]["member"] == "box"


def _check_solutions(out):
    files = {path.name for path in (out / "solutions").iterdir()}
    assert files == {"DanWood-start-1.eqx", "DanWood-start-2.eqx", "box.eqx"}
    zero = NIST_MODELS["BoxBOD"](b1=0.0, b2=0.0)
    solution = js.Solution.load(out / "solutions" / "box.eqx", zero)
    assert float(solution.values["b1"]) == pytest.approx(2.1380940889e02, rel=1e-9)


def _check_report(out):
    page = (out / "report.html").read_text()
    assert "<title>Two of &lt;NIST&gt;</title>" in page
    assert page.count('<svg role="img"') == 3
    assert not re.search(r"\ssrc=|<link|https?:", re.sub(r"xmlns(:\w+)?=\"[^\"]*\"", "", page)), (
        "it needs nothing but itself"
    )
    for target in re.findall(r" href=\"([^#\"][^\"]*)\"", page):
        assert Path(target.removeprefix("file://") if ":" in target else out / target).exists(), target
    assert "solutions/box.eqx" in page
    assert "213.80940889" in page
    assert {path.name for path in (out / "figures").iterdir()} == {
        "DanWood-start-1.svg",
        "DanWood-start-2.svg",
        "box.svg",
    }


def test_failures_are_named_and_the_others_unharmed(folder, command):
    write_csv(folder / "nan.csv", y=(3, float("nan")))
    write_csv(folder / "zero.csv", sigma=(5, 0.0))
    with (folder / "fit.toml").open("a") as file:
        file.write('[[data]]\nfile = "nan.csv"\n[[data]]\nfile = "zero.csv"\n')
    words = ("--import", "my_models.py", "--device", "auto")
    done = command("run", "fit.toml", "--out", "out", *words)
    assert done.exit_code == 3
    members = json.loads((folder / "out" / "results.json").read_text())["members"]
    assert [m["result"] for m in members] == ["successful", "successful", "nonfinite_data", "bad_noise"]
    assert "observed[3] is nan" in members[2]["message"]
    assert "omit_nonfinite = true" in members[2]["message"]
    assert "sigma[5] is 0.0" in members[3]["message"]
    assert members[0]["parameters"][0]["unit"] == "mV"
    assert members[1]["parameters"][1]["lre"] < 6
    assert "lre" not in members[1]["parameters"][2]
    page = (folder / "out" / "report.html").read_text()
    assert '<h2 id="failed">Failed</h2>' in page
    assert "observed[3] is nan" in page


def test_steps_that_run_out_are_no_success(folder, command):
    done = command("run", "fit.toml", "--out", "out", "--import", "my_models.py", "--set", "fit.max_steps=2")
    assert done.exit_code == 3
    members = json.loads((folder / "out" / "results.json").read_text())["members"]
    assert {m["result"] for m in members} == {"max_steps_reached"}
    assert json.loads((folder / "out" / "results.json").read_text())["config"]["fit"]["max_steps"] == 2


@pytest.fixture
def unfitted(monkeypatch):
    """Commands that run everything but the fits."""
    monkeypatch.setattr("jaxsci.curvefit.task.fit_members", lambda members, *rest: iter(()))


def test_without_matplotlib_the_report_says_how_to_get_figures(folder, command, monkeypatch, unfitted):
    monkeypatch.setattr(_figures, "can_draw", lambda: False)
    command("run", "fit.toml", "--out", "out", "--import", "my_models.py")
    page = (folder / "out" / "report.html").read_text()
    assert "pip install &#x27;jaxsci[plot]&#x27;" in page
    assert "<svg" not in page
    assert not (folder / "out" / "figures").exists()


def test_ctrl_c_writes_what_was_finished(folder, command, monkeypatch):
    (folder / "nist.toml").write_text(NIST)
    fit_like = run._fit_like

    def interrupted(members, *rest):
        if members[0].name == "box":
            raise KeyboardInterrupt
        return fit_like(members, *rest)

    monkeypatch.setattr(run, "_fit_like", interrupted)
    monkeypatch.setattr(run.os, "cpu_count", lambda: 1)
    done = command("run", "nist.toml", "--out", "out")
    assert done.exit_code == 130
    document = json.loads((folder / "out" / "results.json").read_text())
    assert document["complete"] is False
    assert [m["result"] for m in document["members"]] == ["successful", "successful", "not_run"]
    assert document["counts"]["not_run"] == 1
    assert "The run was stopped" in (folder / "out" / "report.html").read_text()
    assert "the same command with --out out --resume goes on" in done.stdout
    monkeypatch.setattr(run, "_fit_like", fit_like)
    again = command("run", "nist.toml", "--out", "out", "--resume")
    assert again.exit_code == 0
    assert "--resume" not in again.stdout
    assert json.loads((folder / "out" / "results.json").read_text())["complete"] is True


def test_default_folder_is_named_after_the_config_and_never_reused(folder, command, unfitted):
    for _ in range(2):
        command("run", "fit.toml", "--import", "my_models.py")
    names = sorted(path.name for path in (folder / "runs").iterdir())
    assert len(names) == 2
    assert all(re.fullmatch(r"fit-\d{8}T\d{6}Z(-2)?", name) for name in names)


def test_out_that_is_a_file(folder, command):
    done = command("run", "fit.toml", "--import", "my_models.py", "--out", "decay.csv")
    assert done.exit_code == 2
    assert "--out: the folder decay.csv cannot be made" in done.stderr


def test_a_model_that_cannot_be_traced_is_bad_input(folder, command):
    (folder / "my_models.py").write_text(
        "import jaxsci as js\n\nclass Decay(js.AbstractModel):\n    amp: js.Scalar = js.param()\n"
        "    tau: js.Scalar = js.param()\n\n    def __call__(self, t):\n"
        "        return t * self.amp if self.tau > 0 else t\n"
    )
    done = command("run", "fit.toml", "--import", "my_models.py", "--out", "out")
    assert done.exit_code == 2
    assert "data[0] (decay):" in done.stderr


def test_demo_is_the_quickstart(folder, command, monkeypatch):
    asked = []
    monkeypatch.setattr("jaxsci.cli._commands.run", lambda *words: asked.append(words) or 0)
    assert command("demo", "--out", "out").exit_code == 0
    assert asked[0][0] == "bundled:quickstart.toml"


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="a GPU is here")
def test_gpu_that_is_not_there_is_an_error_with_the_remedy(folder, command):
    done = command("run", "fit.toml", "--import", "my_models.py", "--device", "gpu")
    assert done.exit_code == 2
    assert "JAX finds no GPU here" in done.stderr
    assert "jaxsci[cuda]" in done.stderr
    assert "should be one of auto, cpu, gpu" in command("run", "fit.toml", "--device", "tpu").stderr


def test_every_result_has_its_name():
    assert {str(getattr(js.RESULTS, name)) for name in fits.RESULT_NAMES} == {
        str(item) for item in js.RESULTS._name_to_item.values()
    }


def test_own_loss_and_prior_enter_by_import(folder):
    (folder / "own.py").write_text(
        "import jaxsci as js\n\nclass Square(js.AbstractLoss):\n    def __call__(self, z):\n        return z, z, z\n"
        "\nclass Lab(js.Normal):\n    def __init__(self, run: int):\n        self.mean, self.sigma = float(run), 0.1\n"
    )
    own = extended(CurveFitTask().kinds(), [folder / "own.py"])
    assert "Square" in own["losses"].classes
    assert "Lab" in own["priors"].classes


def test_errors_scaled_by_choice(folder, command):
    words = ("run", "fit.toml", "--import", "my_models.py", "--out")
    command(*words, "plain")
    command(*words, "scaled", "--set", "fit.scale_covariance=true")
    plain, scaled = (json.loads((folder / out / "results.json").read_text())["members"] for out in ("plain", "scaled"))
    for one, other in zip(plain, scaled, strict=True):
        ratio = other["parameters"][1]["std"] / one["parameters"][1]["std"]
        assert ratio == pytest.approx(one["reduced_chi2"] ** 0.5, rel=1e-6)
        assert other["errors_scaled"]


def test_a_killed_run_leaves_whole_files(folder, command, monkeypatch):
    """Every file is renamed into place: until then the old one stands."""
    out = folder / "out"
    words = ("run", "fit.toml", "--import", "my_models.py", "--out", "out", "--set", "fit.max_steps=1")
    command(*words)

    def files():
        return {path: path.read_bytes() for path in out.rglob("*") if path.is_file() and path.name != ".lock"}

    before = files()
    assert {path.suffix for path in before} == {".json", ".csv", ".html", ".svg", ".eqx", ".txt"}

    def killed(self, target):
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "replace", killed)
    with contextlib.suppress(KeyboardInterrupt):
        command(*words)
    assert files() == before
