"""The harness judges bars, compares runs and refuses what it does not know."""

import json
import math
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

from benchmarks._harness import (
    Row,
    at_least,
    at_most,
    case,
    change,
    faster,
    race,
    read_json,
    timing_rows,
    write_json,
)
from benchmarks._page import README, STORED, pages, write_page

ROOT = Path(__file__).resolve().parents[2]

JUDGED = [
    (Row("no bar", 1.0), None),
    (Row("not run", bar=at_most(1)), None),
    (Row("below", 0.5, bar=at_most(1)), True),
    (Row("on it", 1.0, bar=at_most(1)), True),
    (Row("above", 1.5, bar=at_most(1)), False),
    (Row("enough", 36, bar=at_least(36)), True),
    (Row("too few", 35, bar=at_least(36)), False),
    (Row("fast", 1.0, theirs=20.0, bar=faster(15)), True),
    (Row("slow", 2.0, theirs=20.0, bar=faster(15)), False),
    (Row("no peer", 2.0, bar=faster(15)), False),
    (Row("not a number", math.nan, bar=at_most(1)), False),
    (Row("recompiles", 1.0, theirs=20.0, again=1, bar=faster(15)), False),
]


@pytest.mark.parametrize(("row", "holds"), JUDGED, ids=[row.name for row, _ in JUDGED])
def test_bars(row: Row, holds: bool | None) -> None:
    assert row.holds is holds


def test_bar_reads_well() -> None:
    assert [str(bar) for bar in (faster(25), at_most(1.5), at_least(36))] == [">= 25x", "<= 1.5", ">= 36"]


def test_slow_and_missing_cases_say_so() -> None:
    area: list = []
    case(area, "long one", slow=True)(lambda quick: iter([Row("long one", 1.0)]))
    case(area, "odd one", needs="no-such-distribution")(lambda quick: iter([Row("odd one", 1.0)]))
    quick = [row for c in area for row in c.rows(True)]
    assert [row.note for row in quick] == ["not run: slow", "not run: needs no-such-distribution"]
    assert [row.holds for row in quick] == [None, None]
    assert [row.ours for c in area for row in c.rows(False)] == [1.0, None]


def test_race_counts_compiles_and_shares_work() -> None:
    double = jax.jit(lambda x: 2 * x)
    x = jnp.arange(3.0)
    times = race({"ours": lambda: double(x), "peer": lambda: list(range(1000))}, repeats=3)
    assert (times["ours"].compiles, times["ours"].again) == (1, 0)
    assert times["peer"].compiles == 0
    (row,) = timing_rows("row", times, {"peer": faster(1e-9)}, unit="us a fit", n=3, share={"ours": 10})
    assert row.ours == pytest.approx(times["ours"].cpu * 1e5)
    assert row.holds


def test_race_sees_recompilation() -> None:
    x = jnp.arange(3.0)
    times = race({"ours": lambda: jax.jit(lambda x: 2 * x)(x)}, repeats=3)
    assert times["ours"].again > 0


def test_compare(tmp_path: Path) -> None:
    rows = [Row("a", 2.0, peer="p", theirs=8.0, bar=faster(3)), Row("count", 36, bar=at_least(36)), Row("fresh", 1.0)]
    write_json(tmp_path / "old.json", "area", True, rows[:2])
    old = read_json(tmp_path / "old.json")
    assert set(old) == {("a", "p"), ("count", "")}
    assert change(rows[0], old["a", "p"]) == "1.00"
    assert change(Row("a", 4.0), old["a", "p"]) == "2.00 WORSE"
    assert change(Row("count", 20, bar=at_least(36)), old["count", ""]) == "0.56 WORSE"
    assert change(rows[2], None) == "new"
    assert change(Row("a"), old["a", "p"]) == "gone"
    record = json.loads((tmp_path / "old.json").read_text())
    assert all(row["quick"] is True and row["machine"]["jax"] for row in record["rows"])
    assert record["rows"][0] | {"ratio": 4.0, "holds": True, "bar": ">= 3x"} == record["rows"][0]


@pytest.mark.parametrize("text", ["not json", "{}", '{"rows": [{}]}'])
def test_bad_record(tmp_path: Path, text: str) -> None:
    (tmp_path / "bad.json").write_text(text)
    with pytest.raises(ValueError, match="not a record"):
        read_json(tmp_path / "bad.json")


def run(*arguments: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "benchmarks", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=300)


def test_unknown_area() -> None:
    done = run("curvfit")
    assert done.returncode == 2
    assert "did you mean 'curvefit'?" in done.stderr
    assert "curvefit, compsep, startup, timing" in done.stderr


def test_unreadable_comparison() -> None:
    done = run("startup", "--compare", "no-such-file.json")
    assert done.returncode == 2
    assert "no-such-file.json is not a record" in done.stderr


def test_a_row_end_to_end(tmp_path: Path) -> None:
    record = tmp_path / "new.json"
    done = run("curvefit", "--quick", "--only", "gradient", "--json", str(record))
    assert done.returncode == 0, done.stdout + done.stderr
    rows = json.loads(record.read_text())["rows"]
    assert {row["holds"] for row in rows} == {True}
    assert "gradient at an active bound" in done.stdout


def test_rows_take_their_places_in_a_page(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# Title\n\n<!-- area -->\n<!-- end of area -->\n\nmore\n")
    write_page(
        page, "area", [Row("one", 1.0, "s", n=1000, bar=at_most(2)), Row("two", 5.0, bar=at_most(2), note="a|b")]
    )
    write_page(page, "area", [Row("two", 1.5, bar=at_most(2)), Row("three", note="not run")])
    text = page.read_text()
    assert text.startswith("# Title\n\n<!-- area -->\n\n| what | measured |")
    assert text.endswith("<!-- end of area -->\n\nmore\n")
    rows = [line for line in text.splitlines() if line.startswith("| ")]
    assert rows[1:] == [
        "| one | 1 s | 1,000 | <= 2 | yes |  |",
        "| two | 1.5 |  | <= 2 | yes |  |",
        "| three |  |  |  |  | not run |",
    ]
    with pytest.raises(ValueError, match="no place for the table"):
        write_page(page, "other", [])


def test_some_cases_take_the_place_of_their_rows_only(tmp_path):
    path = tmp_path / "area.json"
    write_json(path, "area", False, [Row("one", 1.0), Row("two", 2.0)])
    write_json(path, "area", False, [Row("two", 3.0, peer="scipy"), Row("one", 4.0)], some=True)
    rows = json.loads(path.read_text())["rows"]
    assert [(row["name"], row["peer"], row["ours"]) for row in rows] == [
        ("one", "", 4.0),
        ("two", "", 2.0),
        ("two", "scipy", 3.0),
    ]


def test_the_readme_and_the_page_say_what_was_stored():
    for path, text in pages().items():
        assert path.read_text() == text, f"python -m benchmarks show writes {path.name} anew"
    for line in README:
        rows = json.loads((STORED / f"{line.area}.json").read_text())["rows"]
        assert not any(row["quick"] for row in rows)
