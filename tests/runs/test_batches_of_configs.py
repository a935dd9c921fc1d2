"""`jaxsci batch`: manifests, workers that die, what goes on later, and that an item is the run that it would be."""

import importlib.util
import json
import re
import shutil

import pytest
from helpers import figures_of, told_of
from written import DECAY, MODELS, write_csv

from jaxsci.curvefit.task import CurveFitTask
from jaxsci.parallel import Lock
from jaxsci.runs import ConfigError, Untried
from jaxsci.runs._batch.batch import batch
from jaxsci.runs._batch.cluster import Workers
from jaxsci.runs._batch.item import Named
from jaxsci.runs._batch.manifest import read_manifest
from jaxsci.runs._batch_report import batch_report
from jaxsci.runs._records import counts, record_of
from jaxsci.runs._report import MOST_DETAILS, Content
from jaxsci.runs._task import GIVEN_UP

FIT = (
    DECAY
    + """
[[data]]
file = "a.csv"
"""
)

OTHERS = """
import os
from pathlib import Path

class Deadly(Decay):
    def __call__(self, t):
        os.kill(os.getpid(), 9)

class Wrong(Decay):
    def __call__(self, t):
        raise Exception("this model is wrong")

class DeadlyOnce(Decay):
    def __call__(self, t):
        mark = Path(__file__).with_name("killed-once")
        if not mark.exists():
            mark.touch()
            os.kill(os.getpid(), 9)
        return Decay.__call__(self, t)
"""

WORKING = ["name,config,data.0.file,model.type", "a,fit.toml,a.csv,", "b,fit.toml,b.csv,", "c,fit.toml,c.csv,"]
BROKEN = ["nan,fit.toml,nan.csv,", "text,fit.toml,text.csv,"]
DEADLY = ["deadly,fit.toml,a.csv,Deadly", "wrong,fit.toml,a.csv,Wrong", "again,fit.toml,b.csv,Wrong"]
# of the same kind as those above, three of which are loaded beforehand: the first worker that loads it dies
ONCE = ["once,fit.toml,c.csv,DeadlyOnce"]
SETTINGS = ("--out", "out", "--import", "my_models.py", "--interactive")


def write(path, *lines):
    path.write_text("\n".join(lines) + "\n")


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder with a config, three good files, one with a NaN, one that is no table."""
    (tmp_path / "my_models.py").write_text(MODELS + OTHERS)
    (tmp_path / "fit.toml").write_text(FIT)
    for seed, name in enumerate("abc"):
        write_csv(tmp_path / f"{name}.csv", seed)
    write_csv(tmp_path / "nan.csv", y=(3, float("nan")))
    (tmp_path / "text.csv").write_text("x,y\n1,one\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def members(place):
    found = json.loads((place / "out" / "results.json").read_text())["members"]
    return {member["name"]: member for member in found}


def solution(folder, name):
    return next((folder / "items" / name / "solutions").glob("*.eqx")).read_bytes()


def test_a_batch_survives_its_items_and_goes_on_later(place, command):
    write(place / "items.csv", *WORKING, *DEADLY, *BROKEN, *ONCE)
    done = command("batch", "items.csv", "-j", 2, *SETTINGS)
    assert done.exit_code == 2, done.output  # one could not be tried at all
    out, found = place / "out", members(place)
    results = {name: member["result"] for name, member in found.items()}
    fine = {"a": "successful", "b": "successful", "c": "successful", "once": "successful"}
    bad = {"deadly": "given_up", "wrong": "given_up", "again": "given_up", "nan": "nonfinite_data", "text": "refused"}
    assert results == fine | bad
    assert "Its worker died" in found["deadly"]["message"]
    assert "Exception: this model is wrong" in found["wrong"]["message"]
    assert "text.csv, line 2, column 'y'" in found["text"]["message"]
    log = (out / "log.txt").read_text()
    assert log.count("deadly: Its worker died while running it") == 1, "once more, then given up"
    assert "once: Its worker died while running it" in log
    assert {path.name for path in (out / "items").iterdir()} == {*fine, "nan", "text"}, "no trace of what was cut short"
    page = (out / "report.html").read_text()
    assert "4 of 9 fits converged" in done.stdout
    assert all(name in page for name in results)
    assert page.count('<svg role="img"') == 5, "of all that were fitted"
    assert set(figures_of(out)) == {*fine, "nan"}, "those too"
    assert {each["name"]: each["state"] for each in told_of(out)} == dict.fromkeys(fine, "good") | dict.fromkeys(
        bad, "bad"
    )
    _is_the_run_that_it_would_be(place, command)
    _goes_on(place, command)
    _refuses_what_has_changed(place, command)


def _is_the_run_that_it_would_be(place, command):
    words = ("--import", "my_models.py", "--set", "data.0.file=b.csv", "--out", "alone")
    assert command("run", "fit.toml", *words).exit_code == 0
    assert (place / "alone" / "solutions" / "b.eqx").read_bytes() == solution(place / "out", "b")
    alone = json.loads((place / "alone" / "results.json").read_text())["members"][0]
    item = json.loads((place / "out" / "items" / "b" / "results.json").read_text())["members"][0]
    assert alone == item
    assert members(place)["b"]["parameters"] == alone["parameters"]


def _goes_on(place, command):
    """What failed, was given up, is damaged or is new is run; all else is left alone."""
    out, before = place / "out", solution(place / "out", "a")
    stamps = {name: (out / "items" / name / "item.jsci").stat().st_mtime_ns for name in ("b", "c", "once")}
    damaged = next((out / "items" / "a" / "solutions").glob("*.eqx"))
    damaged.write_bytes(before[:-1] + bytes([before[-1] ^ 1]))
    write_csv(place / "text.csv", 3)
    write(place / "items.csv", *WORKING, *BROKEN, *ONCE, "new,fit.toml,b.csv,")
    done = command("batch", "items.csv", "--resume", *SETTINGS)
    assert done.exit_code == 3, done.output  # nan is still there
    results = {name: member["result"] for name, member in members(place).items()}
    fine = dict.fromkeys(("a", "b", "c", "text", "once", "new"), "successful")
    assert results == {**fine, "nan": "nonfinite_data"}
    assert solution(out, "a") == before
    assert set(figures_of(out)) == {*fine, "nan"}, "of those that were kept, too"
    assert {name: (out / "items" / name / "item.jsci").stat().st_mtime_ns for name in stamps} == stamps
    log = (out / "log.txt").read_text()
    assert f"a: {damaged.relative_to(place)} is damaged: it is run again" in log
    assert "deadly: given up" in log, "of what was before"
    assert "is damaged" in (out / "report.html").read_text()


def _refuses_what_has_changed(place, command):
    """Nothing is run, nothing is removed, and what has changed is named."""

    def refused(*names):
        done = command("batch", "items.csv", "--resume", *SETTINGS)
        assert done.exit_code == 2, done.output
        assert all(name in done.stderr for name in names), done.stderr

    shutil.copy2(place / "b.csv", place / "copy.csv")
    write_csv(place / "b.csv", 7)
    refused("b: ", str((place / "b.csv").resolve()), "new: ")
    shutil.copy(place / "copy.csv", place / "b.csv")  # the same, at another time
    write(place / "items.csv", *WORKING, *BROKEN, *ONCE)
    refused("new: the manifest no longer has it")
    write(place / "items.csv", *WORKING, *BROKEN, *ONCE, "new,fit.toml,c.csv,")
    refused("new: the settings")
    (place / "fit.toml").write_text(FIT.replace("60", "61"))
    refused("a: the config", "b: the config")
    assert (place / "out" / "items" / "new" / "item.jsci").exists()


def test_two_batches_do_not_share_a_folder(place, command):
    write(place / "items.csv", *WORKING)
    (place / "out").mkdir()
    with Lock(place / "out" / ".lock", "out"):
        done = command("batch", "items.csv", *SETTINGS)
    assert done.exit_code == 2
    assert "out is in use by process" in done.stderr
    (place / "out" / "items").mkdir()
    done = command("batch", "items.csv", *SETTINGS)
    assert done.exit_code == 2
    assert "--resume" in done.stderr


def test_options_that_make_no_sense(place, command):
    write(place / "items.csv", *WORKING)
    for words, message in (
        (("--executor", "ray"), "--executor: should be one of local, dask, slurm"),
        (("-j", 0), "-j: should be 1 or more"),
        (("--executor", "dask"), "--scheduler: goes with"),
        (("--retries", -1), "--retries: should be 0 or more"),
        (("--resume",), "--resume: says to go on in a folder"),
        (("--spmd",), "error: --spmd: "),
    ):
        done = command("batch", "items.csv", *words)
        assert done.exit_code == 2
        assert message in done.stderr


def test_names_in_items_are_found_before_anything_runs(place, command):
    """In one process: a key that no config has, and a file that one of many items names and that is not there."""
    write(place / "items.csv", *WORKING, "d,fit.toml,d.csv,")
    done = command("batch", "items.csv", *SETTINGS)
    assert done.exit_code == 2
    assert "row 5, item d" in done.stderr
    assert "there is no file" in done.stderr
    write(place / "items.csv", "name,config,fit.max_stepps", "a,fit.toml,3")
    done = command("batch", "items.csv", *SETTINGS)
    assert done.exit_code == 2
    assert "row 2, item a: fit.toml: fit.max_stepps: there is no key 'max_stepps'" in done.stderr
    assert not (place / "out" / "items").exists()


def test_failures_of_a_large_batch_can_be_searched():
    task = CurveFitTask()
    lost = [Untried(Named(f"item-{k}"), GIVEN_UP, f"Its worker died. <{k}>") for k in range(MOST_DETAILS + 1)]
    records = [record_of(outcome, task.words) for outcome in lost]
    about = {"title": "", "description": "", "complete": True, "created": "", "seconds": 1.0, "config_file": ""}
    device = {"platform": "cpu", "count": 1, "kind": "cpu"}
    about |= {"members": records, "counts": counts(records, task), "versions": {"jaxsci": ""}, "device": device}
    page = batch_report(Content({**about, "config": {}, "choices": []}, task, [], {}, [], {}), {})
    shown = json.loads(re.search(r'id="rows">(.*?)</script>', page).group(1))
    assert shown["why"]["item-60"] == "Its worker died. <60>"
    assert len(shown["rows"]) == len(shown["why"]) == 61


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (("name,config", "a,fit.toml", "A,fit.toml"), "row 3: the item of row 2 is called 'a' too"),
        (("name,config", "../a,fit.toml"), "row 2: '../a' cannot be the name of a folder"),
        (("name,config", ".a,fit.toml"), "row 2: '.a' cannot be"),
        (("name,config", "a,fits.toml"), "row 2: there is no file"),
        (("name,config", "a,../fit.toml"), "lies outside"),
        (("name,config", "a,bundled:nothing"), "nothing is bundled"),
        (("name,config,fit", "a,fit.toml,1,2"), "row 2: it has 4 cells, and there are 3 columns"),
        (("name,name", "a,b"), "row 1: the columns should have names, each its own"),
        (("config", "fit.toml"), "row 2: it has no name"),
        (("name,config,data.5.file", "a,fit.toml,x.csv"), "row 2, item a: --set data.5.file=x.csv: '5' should be"),
        (("name,config,task", "a,fit.toml,tinning"), "row 2, item a: task: should be"),
        (("name,config,task", "a,fit.toml,", "b,fit.toml,timing"), "give each science a manifest of its own"),
        (("name,config",), "it has no items"),
        (('name,config,"', "a,b,c"), "cannot be read"),
    ],
)
def test_a_manifest_that_is_wrong(place, lines, message):
    write(place / "items.csv", *lines)
    with pytest.raises(ConfigError, match=r"^items\.csv: ") as error:
        read_manifest(place / "items.csv")
    assert message in str(error.value)


def test_items_of_a_pattern(place):
    (place / "many").mkdir()
    for name in ("one", "two"):
        write_csv(place / "many" / f"{name}.csv")
    write(
        place / "items.toml",
        "[defaults]",
        'config = "fit.toml"',
        "fit.max_steps = 50",
        "[[item]]",
        'name = "first"',
        'data.0.name = "5"',
        'fit.loss = { type = "SoftL1", scale = 2.0 }',
        "[[each]]",
        'files = "many/*.csv"',
        'name = "of-{stem}"',
        'data.0.file = "{file}"',
        'data.0.name = "beside {folder}"',
    )
    first, one, two = read_manifest(place / "items.toml")
    assert (first.name, one.name, two.name) == ("first", "of-one", "of-two")
    assert first.config == one.config == str(place / "fit.toml")
    loss = 'fit.loss={ "type" = "SoftL1", "scale" = 2.0 }'
    assert first.settings == ("fit.max_steps=50", 'data.0.name="5"', loss)
    assert set(one.settings) == {"fit.max_steps=50", 'data.0.file="many/one.csv"', 'data.0.name="beside many"'}
    assert one.kind == two.kind != first.kind
    write(place / "items.toml", "[[each]]", 'config = "fit.toml"', 'files = "*.hdf"')
    with pytest.raises(ConfigError, match="no file is like"):
        read_manifest(place / "items.toml")


@pytest.mark.parametrize(("executor", "absent", "said"), [
    ("local", "distributed", "workers need dask"),
    ("slurm", "sbatch", "no sbatch here"),
    ("slurm", "dask_jobqueue", "SLURM needs dask-jobqueue"),
])  # fmt: skip
def test_what_is_missing_is_said_before_a_folder_is_made(tmp_path, monkeypatch, executor, absent, said):
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == absent else found(name))
    monkeypatch.setattr(shutil, "which", lambda name: None if name == absent else f"/usr/bin/{name}")
    (tmp_path / "items.toml").write_text('[[item]]\nname = "a"\nconfig = "fit.toml"\n')
    (tmp_path / "fit.toml").write_text(FIT)
    with pytest.raises(ConfigError, match=said):
        batch(tmp_path / "items.toml", tmp_path / "out", Workers(executor))
    assert not (tmp_path / "out").exists()
