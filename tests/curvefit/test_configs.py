"""The configs in `configs/curvefit`, and the files that they may name, run as a researcher would."""

import csv
import json
import re

import jax.numpy as jnp
import numpy as np
import pytest

import jaxsci as js
from jaxsci.curvefit._task import tables
from jaxsci.runs import bundled_files

CONFIGS = ("own-data", "bounded-robust", "image-patches", "streamed", "nist")


def test_each_config_is_run_here():
    bundled = {name for name in bundled_files() if re.fullmatch(r"curvefit/.*\.toml", name)}
    assert bundled == {f"curvefit/{name}.toml" for name in CONFIGS}


def values(folder):
    """{member: {parameter: (value, std)}} of a finished run."""
    out = {}
    for row in csv.DictReader((folder / "results.csv").read_text().splitlines()):
        out.setdefault(row["member"], {})[row["parameter"]] = float(row["value"]), float(row["std"])
    return out


def close(found, truth, sigmas=4.5):
    return abs(found[0] - truth) < sigmas * found[1]


def test_own_data(command, folder):
    done = command("run", "bundled:curvefit/own-data", "--out", "out")
    assert done.exit_code == 0, done.output
    found = values(folder / "out")
    assert list(found) == ["decay A", "decay B", "decay C"]
    for member, a, tau in zip(found.values(), (5.0, 4.2, 3.1), (1.7, 1.5, 1.9), strict=True):
        assert close(member["decay.amplitude"], a)
        assert close(member["decay.tau"], tau)
        assert close(member["base.level"], 0.4)


def test_bounded_robust(command, folder):
    done = command("run", "bundled:curvefit/bounded-robust", "--out", "out")
    assert done.exit_code == 0, done.output
    (found,) = values(folder / "out").values()
    assert close(found["line.amplitude"], 12.0)
    assert close(found["line.center"], 431.5)
    assert close(found["line.sigma"], 2.1)
    plain = command("run", "bundled:curvefit/bounded-robust", "--out", "plain", "--set", "fit.loss=Linear")
    assert plain.exit_code == 0
    (pulled,) = values(folder / "plain").values()
    assert abs(pulled["background.intercept"][0] - found["background.intercept"][0]) > 1.0


@pytest.fixture(scope="module")
def patches(tmp_path_factory):
    """The run of the image patches, which is a large batch."""
    from typer.testing import CliRunner

    from jaxsci.cli import app

    out = tmp_path_factory.mktemp("patches") / "out"
    done = CliRunner().invoke(app, ["run", "bundled:curvefit/image-patches", "--out", str(out)], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return out


def test_image_patches(patches):
    found = values(patches)
    assert len(found) == 144
    u, v = (np.array([m[f"spot.sigma_{k}"] for m in found.values()]) for k in "uv")
    assert np.mean(np.abs(u[:, 0] - 2.1) < u[:, 1]) == pytest.approx(0.68, abs=0.12)
    assert np.mean(np.abs(v[:, 0] - 1.2) < v[:, 1]) == pytest.approx(0.68, abs=0.12)


def test_report_of_a_large_batch_draws_what_is_worth_a_look(patches):
    document = json.loads((patches / "results.json").read_text())
    page = (patches / "report.html").read_text()
    members = {path.stem for path in (patches / "members").iterdir()}
    assert len(members) == 144, "a page for each"
    drawn = {path.stem for path in (patches / "figures").iterdir()} - {"histograms-1"}
    assert 12 <= len(drawn) <= 30
    assert drawn < members
    linked = set(re.findall(r'href="members/([^"]+)\.html"', page))
    assert linked >= drawn, "the page itself links those; its table, which is data, links all"
    rows = json.loads(re.search(r'id="rows">(.*?)</script>', page).group(1))
    assert len(rows["rows"]) == 144
    worst = max(document["members"], key=lambda m: m["reduced_chi2"])
    assert worst["name"] in page
    detail = (patches / "members" / "patch-0.html").read_text()
    assert detail.count("<image") == 6, "three images, each with its colour bar"
    assert 'href="../report.html"' in detail


def test_solutions_of_a_large_batch_are_one_file(patches):
    document = json.loads((patches / "results.json").read_text())
    assert document["members"][5]["solution"] == {"file": "solutions/batch-1.eqx", "index": 5}
    one = js.Sum(spot=js.curvefit.Gaussian2D(*[1.0] * 6), background=js.curvefit.Constant(1.0))
    batch = js.Solution.load(patches / "solutions" / "batch-1.eqx", js.stack([one] * 144))
    assert batch.y[5].tolist() == [p["value"] for p in document["members"][5]["parameters"]]


def test_streamed(command, folder):
    done = command("run", "bundled:curvefit/streamed", "--out", "out")
    assert done.exit_code == 0, done.output
    (found,) = values(folder / "out").values()
    scan = np.load(bundled_files()["curvefit/scan.npy"])
    start = js.curvefit.Sinusoid(1.0, 0.74, 0.0)
    dense = js.fit(start, js.Dataset(scan["time"], scan["signal"]))
    np.testing.assert_allclose([found[name][0] for name in dense.names], dense.y, rtol=1e-10)
    np.testing.assert_allclose([found[name][1] for name in dense.names], dense.standard_errors, rtol=1e-8)
    assert "0.75" in (folder / "out" / "report.html").read_text()


@pytest.mark.slow
def test_nist(command, folder):
    done = command("run", "bundled:curvefit/nist", "--out", "out")
    assert done.exit_code == 0, done.output
    counts = json.loads((folder / "out" / "results.json").read_text())["counts"]
    assert counts["values_to_6_digits"] == counts["fits"] == 36


TABLE = {"time": np.linspace(0.0, 5.0, 12)}
TABLE["volts"] = 3.0 * np.exp(-TABLE["time"] / 1.4) + 0.02 * np.cos(9 * TABLE["time"])
FILE = """
[model]
type = "Exponential"
[[data]]
file = "{name}"
columns = {{ x = "time", y = "volts" }}
start = "estimate"
"""


def _write(path):
    if path.suffix == ".parquet":
        parquet = pytest.importorskip("pyarrow.parquet")
        parquet.write_table(pytest.importorskip("pyarrow").table(TABLE), path)
    elif path.suffix == ".h5":
        h5py = pytest.importorskip("h5py")
        with h5py.File(path, "w") as file:
            for name, column in TABLE.items():
                file[name] = column
    else:
        np.save(path, np.rec.fromarrays(list(TABLE.values()), names=list(TABLE)))


@pytest.mark.parametrize("name", ["curve.parquet", "curve.h5", "curve.npy"])
def test_kinds_of_tables(command, folder, name, monkeypatch):
    _write(folder / name)
    (folder / "own.toml").write_text(FILE.format(name=name))
    found = []
    monkeypatch.setattr("jaxsci.curvefit.task.fit_members", lambda members, *rest: found.extend(members) or iter(()))
    command("run", "own.toml", "--out", "out")
    (member,) = found
    assert member.data.observed.tolist() == TABLE["volts"].tolist()
    assert member.labels == ("time", "volts")
    assert float(member.model.tau) == pytest.approx(1.4, rel=0.05)


@pytest.mark.parametrize(("name", "package"), [("curve.parquet", "pyarrow"), ("curve.h5", "h5py")])
def test_missing_package_is_named_with_the_remedy(command, folder, name, package, monkeypatch):
    (folder / name).write_bytes(b"")
    (folder / "own.toml").write_text(FILE.format(name=name))
    monkeypatch.setattr(tables.importlib.util, "find_spec", lambda package: None)
    done = command("check", "own.toml")
    assert done.exit_code == 2
    assert f"{name} needs {package}, which is not installed: pip install 'jaxsci[tables]'" in done.stderr


def test_bundled_data_are_what_their_readme_writes(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    files = bundled_files()
    text = (files["curvefit/decay.csv"].parent / "README.md").read_text()
    exec(compile(re.search(r"```python\n(.*?)```", text, re.DOTALL).group(1), "README", "exec"), {})
    for name in ("decay.csv", "spectrum.csv"):
        assert (tmp_path / name).read_text() == files[f"curvefit/{name}"].read_text()
    assert np.array_equal(np.load("patches.npy"), np.load(files["curvefit/patches.npy"]))
    ours, theirs = np.load("scan.npy"), np.load(files["curvefit/scan.npy"])
    np.testing.assert_allclose(ours["signal"], theirs["signal"], rtol=1e-12)


STACK = 'model = { type = "Exponential" }\n[[data]]\nfile = "stack.npz"\nstart = "estimate"\n'
BAD = {
    "no x": ({"y": np.ones((3, 4))}, "", "a stack of curves needs an array x"),
    "x": ({"y": np.ones((3, 4)), "x": np.ones(3)}, "", "data[0].columns.x: x has shape (3,), but y has shape (3, 4)"),
    "axes": ({"y": np.ones(4)}, "", "a stack has numbers of shape (members, height, width)"),
    "sigma": ({"y": np.ones((2, 3, 3)), "sigma": np.ones(2)}, "", "it has shape (2,), but y has shape (2, 3, 3)"),
    "name": ({"z": np.ones((2, 3, 3))}, "", "the file has no column 'y' (columns: z)"),
    "streamed": ({"y": np.ones(4)}, "stream = true\n", "stack.npz cannot be streamed"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_stacks(command, folder, case):
    arrays, more, message = BAD[case]
    np.savez(folder / "stack.npz", **arrays)
    (folder / "own.toml").write_text(STACK + more)
    done = command("check", "own.toml")
    assert done.exit_code == 2
    assert message in done.stderr


STREAM = {
    "rows": ("stream = -1\n", "data[0].stream: should be true, or the rows to read at a time"),
    "noise": ('stream = true\nnoise = "Poisson"\n', "data[0].noise: streamed data take a column of sigma"),
    "column": ("stream = true\ncolumns = { x = 0, y = 7 }\n", "data[0].columns.y: the file has no column '7'"),
    "member": ("stream = true\ncolumns = { x = 0, y = 1, member = 0 }\n", "a streamed file is one data set"),
}


@pytest.mark.parametrize("case", STREAM)
def test_bad_streams(command, folder, case):
    more, message = STREAM[case]
    np.save(folder / "big.npy", np.ones((5, 2)))
    text = '[model]\ntype = "Line"\nslope = 1.0\nintercept = 0.0\n[[data]]\nfile = "big.npy"\n'
    (folder / "own.toml").write_text(text + more)
    done = command("check", "own.toml")
    assert done.exit_code == 2
    assert message in done.stderr


def test_estimate_says_what_it_cannot_start(command, folder):
    (folder / "fit.toml").write_text('model = "Decay"\n[[data]]\nfile = "decay.csv"\nstart = "estimate"\n')
    done = command("check", "fit.toml", "--import", "my_models.py")
    assert "data[0].start: there is no estimator for Decay" in done.stderr
    (folder / "fit.toml").write_text('model = "Decay"\n[[data]]\nfile = "decay.csv"\nstart = "guess"\n')
    done = command("check", "fit.toml", "--import", "my_models.py")
    assert 'data[0].start: should be a table, or "estimate"' in done.stderr


def test_values_in_the_config_win_over_estimates(command, folder):
    from jaxsci.curvefit._task.estimate import estimated
    from jaxsci.curvefit.task import CurveFitTask

    spec = {"type": "Sum", "peak": {"type": "Gaussian", "sigma": 0.7}, "base": "Constant"}
    x = np.linspace(-4.0, 4.0, 60)
    data = js.Dataset(jnp.asarray(x), jnp.asarray(5 * np.exp(-((x - 1) ** 2) / 2) + 2))
    (model,) = estimated(spec, [data], CurveFitTask().kinds(), "model", "data[0].start")
    assert float(model.peak.sigma) == 0.7
    assert float(model.peak.center) == pytest.approx(1.0, abs=0.2)
    assert float(model.base.level) == pytest.approx(2.0, abs=0.3)
