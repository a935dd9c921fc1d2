"""What is said of a fit: the rule of `jaxsci.Solution.verdict`, the same on the screen, in files and in the report."""

import csv
import json
import re

import pytest
from typer.testing import CliRunner
from written import CONFIG, write_csv

import jaxsci as js
from jaxsci.cli import app
from jaxsci.curvefit.task import CurveFitTask
from jaxsci.runs import exit_code, extended

DATA = (
    CONFIG.split("[[data]]")[0]
    + "[fit.bounds]\nbase = [-2.0, 2.0]\n"
    + "".join(
        f'[[data]]\nname = "{name}"\nfile = "{file}.csv"\n{more}'
        for name, file, more in (
            ("fine", "decay", ""),
            ("small errors", "small", ""),
            ("moved", "decay", "start = { base = 9.0 }\n"),
            ("undetermined", "still", ""),
            ("broken", "nan", ""),
        )
    )
)
LOOK = {
    "fine": (),
    "small errors": ("which the noise as given does not allow",),
    "moved": ("the start of base lay outside its bounds and was moved onto them",),
    "undetermined": ("the data do not determine", "which the noise as given does not allow"),
    "broken": (),
}


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """(folder, what the command did) of five fits that end in all ways."""
    from written import MODELS

    folder = tmp_path_factory.mktemp("verdicts")
    (folder / "my_models.py").write_text(MODELS)
    (folder / "fit.toml").write_text(DATA)
    write_csv(folder / "decay.csv")
    write_csv(folder / "nan.csv", y=(3, float("nan")))
    text = (folder / "decay.csv").read_text()
    (folder / "small.csv").write_text(text.replace(",0.05", ",0.005"))
    (folder / "still.csv").write_text(re.sub(r"^[\d.]+,", "1.0,", text, flags=re.MULTILINE))
    words = ("run", folder / "fit.toml", "--import", folder / "my_models.py", "--out", folder / "out")
    return folder / "out", CliRunner().invoke(app, [str(word) for word in words], catch_exceptions=False)


def test_records_and_rows_say_what_the_solution_says(ran):
    out, done = ran
    assert done.exit_code == 3, done.output
    document = json.loads((out / "results.json").read_text())
    members = {m["name"]: m for m in document["members"]}
    assert document["verdicts"] == {"converged": 1, "converged, look": 3, "failed": 1}
    for name, expected in LOOK.items():
        record = members[name]
        verdict = "failed" if name == "broken" else "converged, look" if expected else "converged"
        assert (record["verdict"], record["success"]) == (verdict, name != "broken")
        assert len(record["look"]) == len(expected)
        assert all(part in said for part, said in zip(expected, record["look"], strict=True))
    rows = {row["member"]: row for row in csv.DictReader((out / "results.csv").read_text().splitlines())}
    assert {name: row["verdict"] for name, row in rows.items()} == {n: m["verdict"] for n, m in members.items()}
    assert rows["moved"]["look"] == members["moved"]["look"][0]


def test_saved_solutions_agree(ran):
    out, _ = ran
    document = json.loads((out / "results.json").read_text())
    (moved,) = [m for m in document["members"] if m["name"] == "moved"]
    model = extended(CurveFitTask().kinds(), [out.parent / "my_models.py"])["models"].classes["Decay"](1.0, 1.0)
    solution = js.Solution.load(out / moved["solution"]["file"], model)
    assert (solution.verdict, list(solution.remarks)) == (moved["verdict"], moved["look"])


def test_the_screen_has_the_verdict_and_the_remedy(ran):
    _, done = ran
    text = " ".join(done.stdout.split())
    assert "small errors converged, look" in text
    assert "4 of 5 fits converged; 3 of them to look at." in text
    assert "Free the noise, scale the errors" in text
    assert "broken: observed[3] is nan" in text


def test_the_report_is_amber_where_a_look_is_wanted(ran):
    out, _ = ran
    page = (out / "report.html").read_text()
    assert page.count('<span class="badge look">converged, look</span>') == 6, "in the overview and in each section"
    assert page.count('<span class="badge good">converged</span>') == 2
    assert '<h2 id="look">Converged, to look at</h2>' in page
    assert re.search(r'class="tile partly"><strong>3<span> / 4</span></strong><p>of them to look at', page)


def test_the_log_has_the_reason(ran):
    out, _ = ran
    assert re.search(r"moved: successful after \d+ steps\. the start of base", (out / "log.txt").read_text())


def test_what_a_run_exits_with():
    """Stopped by Ctrl-C; else a fit that could not be tried at all; else one that failed; else nothing."""
    fine, failed = {"result": "successful", "success": True}, {"result": "stalled", "success": False}
    refused, left = {"result": "refused", "success": False}, {"result": "not_run", "success": False}
    assert exit_code([fine, fine]) == 0
    assert exit_code([fine, failed]) == 3
    assert exit_code([fine, failed, refused]) == 2
    assert exit_code([fine, failed, refused, left]) == 130


def test_parameters_are_on_the_screen(folder, command):
    (folder / "fit.toml").write_text(CONFIG.rsplit("[[data]]", 1)[0])
    done = command("run", "fit.toml", "--import", "my_models.py", "--out", "out")
    (member,) = json.loads((folder / "out" / "results.json").read_text())["members"]
    lines = [line.split() for line in done.stdout.splitlines()]
    for row in member["parameters"]:
        (shown,) = [line for line in lines if line[:1] == [row["name"]]]
        assert float(shown[1]) == pytest.approx(row["value"], abs=0.06 * row["std"])
        assert float(shown[2]) == pytest.approx(row["std"], rel=0.05)
        assert shown[3] == row["unit"]
