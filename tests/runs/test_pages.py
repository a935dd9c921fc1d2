"""Pages of a report: tables that can be read, links that lead somewhere, figures for wide and for narrow pages."""

import dataclasses
import json
import re

import pytest
from matplotlib.figure import Figure

from jaxsci.curvefit.task import CurveFitTask
from jaxsci.runs import AbstractOutcome, Untried, _figures
from jaxsci.runs._batch.item import Named
from jaxsci.runs._batch_report import batch_report, member_page
from jaxsci.runs._output import MOST_PAGES, write_pages, write_results
from jaxsci.runs._records import counts, record_of
from jaxsci.runs._report import MOST_DETAILS, Content, report

TASK = CurveFitTask()
PLAIN = {"name": "a", "unit": "mV", "value": 1.5, "std": 0.25, "remarks": []}
TOLD = {"name": "b", "unit": "", "value": 2.0, "std": 0.1, "remarks": ["fixed"]}
TOLD |= {"bounds": [0.0, float("inf")], "prior": "Normal(mean=2, sigma=0.3)"}


def member(name, rows=(PLAIN,), **more):
    numbers = {"num_data": 9, "num_free": 2, "num_steps": 1, "chi2": 7.0, "dof": 7, "reduced_chi2": 1.0, "rank": 2}
    told = {"name": name, "source": "a.csv", "model": "Line", "result": "successful", "success": True, "look": []}
    return {
        **told,
        "verdict": "converged",
        "message": "",
        "errors_scaled": False,
        "parameters": rows,
        **numbers,
        **more,
    }


def content(members, figures=None):
    about = {"title": "T", "description": "", "complete": True, "created": "", "seconds": 1.0, "config_file": ""}
    device = {"platform": "cpu", "count": 1, "kind": "cpu"}
    about |= {"members": members, "counts": counts(members, TASK), "versions": {"jaxsci": ""}, "device": device}
    anchors = [m["name"] for m in members]
    return Content({**about, "config": {}, "choices": []}, TASK, anchors, figures or {}, [], {})


def tables(page):
    """For each table: (class, heading) of its columns, and the classes of the cells of each row."""
    for table in re.findall(r"<table.*?</table>", page, re.DOTALL):
        head = re.findall(r'<th scope="col"(?: class="(\w*)")?>(.*?)</th>', table)
        rows = [re.findall(r'<td(?: class="([\w ]*)")?>', row) for row in re.findall(r"<tr><td.*?</tr>", table)]
        yield head, rows


def test_each_column_has_a_heading_on_its_side():
    failed = member("lost", (), success=False, result="stalled", message="No step decreases the cost.")
    page = report(content([member("one", (PLAIN, TOLD)), member("two", look=["look at it"]), failed]))
    found = list(tables(page))
    assert len(found) == 5
    for head, rows in found:
        assert rows
        assert all(text for _, text in head)
        for row in rows:
            assert len(row) == len(head)
            assert [kind.startswith("number") for kind in row] == [side == "number" for side, _ in head]


def test_bounds_and_priors_have_columns_where_there_are_any():
    without, told = (report(content([member("m", rows)])) for rows in ((PLAIN,), (PLAIN, TOLD)))
    assert ">bounds<" not in without
    assert ">prior<" not in without
    assert "at least 0<" in told
    assert "Normal(mean=2, sigma=0.3)<" in told
    between, below = ({**TOLD, "bounds": bounds} for bounds in ([-1.0, 2.5], [float("-inf"), 3.0]))
    page = report(content([member("m", (between, below))]))
    assert "-1 to 2.5<" in page
    assert "at most 3<" in page


def test_one_is_no_plural():
    one, two = report(content([member("m")])), report(content([member("m"), member("n")]))
    assert "fit converged" in one
    assert "fits converged" not in one
    assert "All fits" not in one
    assert "1 step " in one or "1 step<" in one
    assert "fits converged" in two
    assert "All fits" in two


def test_a_robust_loss_is_named_beside_chi2():
    page = report(content([member("m", loss="Cauchy(scale=1)"), member("n")]))
    assert "With the loss Cauchy(scale=1), chi2 and chi2/dof" in page
    assert "7 degrees of freedom, outliers in full; the loss Cauchy(scale=1) was minimised" in page
    assert ">loss</th>" in page
    assert "loss" not in report(content([member("n")])).replace("lossless", "").partition("<main>")[2]


@pytest.fixture(scope="module")
def drawn():
    """A curve over its residuals beside an image with its bar of colours."""

    def draw():
        figure = Figure(figsize=(9.4, 3.0), layout="constrained")
        panels = figure.subplot_mosaic([["fit", "image"], ["residuals", "image"]])
        panels["fit"].sharex(panels["residuals"])
        panels["fit"].plot([0, 1], [1, 2])
        panels["fit"].text(0, 1, "white", color="white")
        figure.colorbar(panels["image"].imshow([[0.0, 1.0]]), ax=panels["image"], label="K")
        return figure

    return _figures.inline(_figures.svg(draw, "salt"), "figures/m.svg")


def test_panels_are_windows_onto_the_figure(drawn):
    windows = re.findall(r'class="panel" viewBox="([^"]*)" style="([^"]*)"[^>]*><use href="#([^"]*)"', drawn.markup)
    assert len(windows) == 2, "residuals go with their curve, a bar of colours with its image"
    assert drawn.markup.count('<svg role="img"') == 1
    for box, _, name in windows:
        x, y, width, height = map(float, box.split())
        assert drawn.markup.count(f'<g id="{name}">') == 1
        assert x + 3 >= 0
        assert x + width <= 9.4 * 72 + 3
        assert y + 3 >= 0
        assert y + height <= 3 * 72 + 3
        assert height > 3 * 72 - 30, "the whole height of the figure"
    first, second = (list(map(float, box.split())) for box, _, _ in windows)
    assert first[0] + first[2] < second[0] + 6, "beside each other"


def test_figures_take_colours_and_letters_of_the_page(drawn):
    assert re.search(r"<text [^>]*fill: var\(--page\)[^>]*>white<", drawn.markup), "readable on a light red, too"
    assert "DejaVu" not in drawn.markup
    assert "#222831" not in drawn.markup


def test_a_wide_figure_of_one_panel_keeps_its_letters():
    def draw():
        figure = Figure(figsize=(9.4, 2.0))
        figure.subplots().plot([0, 1], [1, 2])
        return figure

    alone = _figures.inline(_figures.svg(draw, "salt"), "figures/alone.svg")
    assert "min-width: 643px" in alone.markup
    assert 'class="panel"' not in alone.markup


def test_links_lead_somewhere(drawn):
    members = [member("m"), member("n", look=["look"])]
    page = report(content(members, {"m": drawn}))
    anchors = set(re.findall(r' id="([^"]+)"', page))
    targets = set(re.findall(r' href="#([^"]+)"', page))
    assert {"all", "each", "look", "how", "m", "n"} <= targets <= anchors
    assert page.count('class="thumbnail"') == 1
    assert "failed" not in targets


def test_members_of_a_large_batch_have_pages(drawn, tmp_path):
    members = [member(f"m{k}") for k in range(MOST_DETAILS + 1)]
    write_pages(tmp_path, content(members, {"m0": drawn}))
    pages = sorted(path.name for path in (tmp_path / "members").iterdir())
    assert len(pages) == len(members)
    page = (tmp_path / "report.html").read_text()
    assert re.search(r'<img src="figures/m.svg#svgView[^"]*" loading="lazy"', page)
    assert '<nav><a href="#worth">' in page
    inner = (tmp_path / "members" / "m1.html").read_text()
    assert re.findall(r'href="(m\d+\.html)"', inner) == ["m0.html", "m2.html"]


def test_of_a_very_large_batch_those_worth_a_look_have_pages(tmp_path):
    failed = {MOST_PAGES // 2, MOST_PAGES - 1}
    members = [member(f"m{k}", look=["look"] if k in failed else []) for k in range(MOST_PAGES + 1)]
    write_pages(tmp_path, content(members, {}))
    pages = {path.stem for path in (tmp_path / "members").iterdir()}
    assert {f"m{k}" for k in failed} <= pages
    assert len(pages) <= 60
    linked = re.findall(r'href="members/([^"]+)\.html"', (tmp_path / "report.html").read_text())
    assert set(linked) <= pages, "no link leads to a page that was not written"


def test_files_of_a_member_are_linked(drawn):
    saved = {"solution": {"file": "solutions/batch-1.eqx", "index": 3}, "files": ["pars/m.par"]}
    whole = content([member("m", **saved)], {"m": drawn})
    assert 'href="solutions/batch-1.eqx"' in report(whole)
    assert 'href="pars/m.par"' in report(whole)
    assert 'href="../figures/m.svg"' in member_page(whole, 0, {})
    assert 'href="../pars/m.par"' in member_page(whole, 0, {})
    assert "<h2" in batch_report(whole, {0: "m"})


@dataclasses.dataclass(frozen=True)
class Noted(AbstractOutcome):
    """A member that leaves a note, and nothing else."""

    member: Named
    note: str

    def record(self):
        return {"note": self.note}


class Notes(CurveFitTask):
    """A task whose members leave notes."""

    def files(self, outcome, name):
        return {f"notes/{name}.txt": outcome.note}


def test_files_are_those_of_their_member_whatever_it_is_called(tmp_path):
    """Also of members of one name, the first of which was not run."""
    task, member = Notes(), Named("a b")
    outcomes = [Untried(member, "not_run", "stopped"), Noted(member, "second"), Noted(member, "third")]
    records = [record_of(outcome, task.words) for outcome in outcomes]
    write_results(tmp_path, {"members": records}, outcomes, task)
    assert [record.get("files") for record in records] == [None, ["notes/a-b-2.txt"], ["notes/a-b-3.txt"]]
    assert [(tmp_path / record["files"][0]).read_text() for record in records[1:]] == ["second", "third"]
    assert json.loads((tmp_path / "results.json").read_text())["members"][2]["files"] == ["notes/a-b-3.txt"]
