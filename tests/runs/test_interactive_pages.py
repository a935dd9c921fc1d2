"""interactive.html: one file that loads nothing, with the data as they are, bounded, and what is not shown told."""

import json
import re
import shutil

import numpy as np
import pytest
from helpers import figures_of, told_of
from test_pages import content, member
from typer.testing import CliRunner
from written import DECAY, MODELS, write_csv

from jaxsci.cli import app
from jaxsci.runs import Image, Scatter, Series, _interactive
from jaxsci.runs._batch.batch import Shared, batch
from jaxsci.runs._errors import ConfigError
from jaxsci.runs._output import write_pages

pytest.importorskip("plotly")
HOSTILE = "</script><script>alert(1)</script><b>%{x}"
X = np.arange(5.0)


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """The output folder of a run of a fit with a hostile name, and of one with a NaN."""
    folder = tmp_path_factory.mktemp("interactive")
    (folder / "my_models.py").write_text(MODELS)
    write_csv(folder / "decay.csv")
    write_csv(folder / "nan.csv", y=(3, float("nan")))
    tables = [f"[[data]]\nname = '{HOSTILE}'\nfile = 'decay.csv'\n", "[[data]]\nname = 'nan'\nfile = 'nan.csv'\n"]
    (folder / "fit.toml").write_text(DECAY + "".join(tables))
    assert run(folder, "--interactive").exit_code == 3
    return folder / "out"


def run(folder, *more):
    files = ("fit.toml", "--import", "my_models.py", "--out", "out")
    words = [str(folder / word) if not word.startswith("--") else word for word in files]
    return CliRunner().invoke(app, ["run", *words, *more], catch_exceptions=False)


def drawn(*panels):
    return json.loads(_interactive.interactive_figures(panels))


def scatter(*series, **more):
    return Scatter("title", "x", "y", series, **more)


def image(values, **more):
    rows, columns = (np.arange(float(n)) for n in values.shape)
    return Image("title", "x", "y", values, columns, rows, "z", **more)


def test_a_run_has_a_page_that_needs_nothing_but_itself(ran):
    page = (ran / "interactive.html").read_text()
    rest = re.sub(r"<script>/\*\*\n\* plotly\.js.*?</script>", "", page, count=1, flags=re.DOTALL)
    assert len(page) - len(rest) > 4_000_000, "plotly.js, once"
    assert len(rest) < 100_000
    assert not re.search(r"\ssrc=|<link|@import|url\(|https?:", rest)
    closed = re.search(r'content="default-src &#x27;none&#x27;([^"]*)" http-equiv="Content-Security-Policy"', rest)
    assert closed, "what plotly.js would fetch, the browser does not"
    assert "http" not in closed[1]
    assert "showSendToCloud: false" in rest
    assert set(re.findall(r'href="([^"]*)"', rest)) == {"report.html"}


def test_data_of_the_page_are_those_of_the_run(ran):
    table = np.genfromtxt(ran.parent / "decay.csv", delimiter=",", names=True, skip_header=1)
    record = json.loads((ran / "results.json").read_text())["members"][0]
    curve, below = figures_of(ran)[HOSTILE]
    (points, line), (residuals,) = curve["traces"], below["traces"]
    x, y, sigma = (table[name] for name in table.dtype.names)
    assert (points["x"] == x).all()
    assert (points["y"] == y).all()
    assert points["error_y"]["array"] == pytest.approx(sigma, rel=1e-15)
    amp, tau, base = (row["value"] for row in record["parameters"])
    assert line["y"] == pytest.approx(amp * np.exp(-line["x"] / tau) + base, rel=1e-12)
    assert residuals["y"] == pytest.approx((amp * np.exp(-x / tau) + base - y) / sigma, rel=1e-9, abs=1e-9)
    assert np.sum(residuals["y"] ** 2) == pytest.approx(record["chi2"], rel=1e-10)


def test_members_that_failed_are_told_and_names_are_no_markup(ran):
    page = (ran / "interactive.html").read_text()
    assert page.count("alert(1)") == 1, "in the list of members"
    assert page.count("<script") == page.count("</script>") == 5, "the list, two figures, plotly.js, the page's own"
    assert "<b>%{x}" not in page
    fine, failed = told_of(ran)
    assert (fine["name"], fine["state"]) == (HOSTILE, "good")
    assert (failed["name"], failed["state"], failed["label"]) == ("nan", "bad", "nonfinite data")
    assert "nan" in failed["said"][0]
    assert figures_of(ran)["nan"][0]["notes"] == ["data: 1 of 12 points have no place on these axes."]
    report = (ran / "report.html").read_text()
    assert all(f'href="interactive.html#{each["anchor"]}"' in report for each in (fine, failed))
    assert '<a href="interactive.html">Interactive figures</a>' in report


def test_a_run_without_it_leaves_no_page_of_older_numbers(ran, tmp_path):
    shutil.copytree(ran.parent, tmp_path / "again")
    assert run(tmp_path / "again").exit_code == 3
    assert not (tmp_path / "again" / "out" / "interactive.html").exists()
    assert "interactive" not in (tmp_path / "again" / "out" / "report.html").read_text()


def test_texts_of_a_figure_are_shown_letter_by_letter():
    more = {"<i>%{y}": np.array(["<u>a</u>", "b", "%{x}", "", "e"])}
    panel = Scatter("t", "<a href='x'>", "y & z", (Series("<b>%{x}", X, X, more=more),))
    (trace,), layout = (drawn(panel)[0]["figure"][key] for key in ("data", "layout"))
    assert trace["name"] == "&lt;b&gt;&#37;{x}"
    assert [text for (text,) in trace["customdata"]][::2] == ["&lt;u&gt;a&lt;/u&gt;", "&#37;{x}", "e"]
    assert "&lt;i&gt;&#37;{y} %{customdata[0]}" in trace["hovertemplate"]
    assert layout["xaxis"]["title"]["text"] == "&lt;a href='x'&gt;"
    assert layout["yaxis"]["title"]["text"] == "y &amp; z"


def test_infinite_errors_are_said_and_have_no_bar():
    std = np.array([1.0, np.inf, 2.0, np.nan, 3.0])
    (trace,) = drawn(scatter(Series("s", X, X, std)))[0]["figure"]["data"]
    assert [said for (said,) in trace["customdata"]] == ["1.0", "inf", "2.0", "nan", "3.0"]
    assert "%{customdata[0]}" in trace["hovertemplate"]


def test_a_line_has_the_colour_of_the_points_it_is_named_after():
    both = [Series(name, X, X, line=line) for name in ("a", "b") for line in (False, True)]
    traces = drawn(scatter(*both, Series("c", X, X, line=True)))[0]["figure"]["data"]
    colours = [trace["marker" if trace["mode"] == "markers" else "line"]["color"] for trace in traces]
    assert colours == ["var(--data)", "var(--data)", "var(--line-1)", "var(--line-1)", "var(--model)"]
    assert [trace["showlegend"] for trace in traces] == [True, False, True, False, True]


@pytest.mark.parametrize("line", [False, True])
def test_of_many_points_every_kth_is_shown_and_that_is_said(line):
    x = np.arange(90_001.0)
    (panel,) = drawn(scatter(Series("s", x, x, line=line)))
    (trace,) = panel["figure"]["data"]
    assert trace["type"] == "scattergl"
    assert len(trace["x"]["bdata"]) < 8 * 20_000 * 4 / 3 + 4
    assert panel["notes"] == ["s: every 5th of 90001 points is shown."]


def test_points_without_a_place_on_a_logarithmic_axis_are_counted():
    y = np.array([0.0, -1.0, 1.0, np.nan, 2.0])
    assert drawn(scatter(Series("s", X, y), logarithmic="y"))[0]["notes"] == [
        "s: 3 of 5 points have no place on these axes."
    ]


def test_images_are_bounded_and_stand_as_they_were_given():
    (large,) = drawn(image(np.arange(1000.0 * 1000).reshape(1000, 1000)))
    height, width = map(int, large["figure"]["data"][0]["z"]["shape"].split(", "))
    assert height == width == 334
    assert "Every 3rd row and column of 1000 x 1000 is shown." in large["notes"][0]
    (small,) = drawn(image(np.array([[1.0, np.nan, 3.0], [4.0, 5.0, 6.0]]), equal=True, limits=(1.0, 6.0)))
    layout = small["figure"]["layout"]
    assert layout["xaxis"]["range"] == [-0.5, 2.5]
    assert layout["yaxis"]["range"] == [1.5, -0.5], "the first row on top"
    assert not small["notes"]
    assert small["shape"] == pytest.approx(2 / 3)


def test_a_large_batch_has_a_page_of_a_bounded_size(tmp_path):
    members = [member(f"m{k}", reduced_chi2=float(k)) for k in range(1000)]
    figures = json.dumps(drawn(scatter(Series("s", np.arange(15_000.0), np.arange(15_000.0)))))
    zoomed = {f"m{k}": figures + " " * (5_000_000 - len(figures)) for k in (999, 998, 997, 996, 995, 994)}
    write_pages(tmp_path, content(members), zoomed)
    page = (tmp_path / "interactive.html").read_text()
    assert len(page) < 30_000_000
    told = told_of(tmp_path)
    assert len(told) < 60
    assert f"Here are the {len(told)} of 1000 fits that are worth a look." in page
    left = [each["name"] for each in told if each["large"]]
    assert left == ["m995", "m994"]
    assert "The figures of 2 fits are left out" in page
    assert set(figures_of(tmp_path)) == {"m999", "m998", "m997", "m996"}
    inside = (tmp_path / "members" / "m999.html").read_text()
    assert '<a href="../interactive.html#m999">' in inside
    assert "interactive.html#" not in (tmp_path / "members" / "m995.html").read_text()


def test_without_plotly_it_is_said_before_any_work(folder, command, monkeypatch):
    found = _interactive.importlib.util.find_spec
    monkeypatch.setattr(
        _interactive.importlib.util, "find_spec", lambda name: None if name == "plotly" else found(name)
    )
    done = command("run", "fit.toml", "--out", "out", "--import", "my_models.py", "--interactive")
    assert done.exit_code == 2
    assert "--interactive: needs plotly, which is not installed: pip install 'jaxsci[interactive]'" in done.stderr
    with pytest.raises(ConfigError, match="needs plotly"):
        batch(folder / "none.csv", folder / "out", shared=Shared(interactive=True))
    assert not (folder / "out").exists()
