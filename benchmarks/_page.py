"""The rows of a run as a table within a page of the documentation, between two marks that stay.

A run of some cases (`--only`) takes the place of their rows and leaves the others, so that cases which take long can be
run one at a time. `show` makes the page on benchmarks and the table of the README out of the rows that are stored.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ._harness import Row, machine, read_record

ROOT = Path(__file__).resolve().parents[1]
STORED = ROOT / "benchmarks" / "stored"


class Line(NamedTuple):
    """A line of the README: what is measured, and the stored row that says so."""

    what: str
    area: str
    case: str
    row: str
    peer: str


README = (
    Line("10,000 bounded fits, 50 points, 4 parameters", "curvefit", "batch",
         "10000 bounded fits, 50 x 4, fit_batch", "scipy trf"),
    Line("the same", "curvefit", "batch", "10000 bounded fits, 50 x 4, fit_batch", "optimistix LM"),
    Line("49,152 pixels of the sky, 15 channels, IQU", "compsep", "single pixels",
         "single pixels, nside 64: time of one", "fgbuster L-BFGS-B (stored)"),
    Line("2,000 fits of g2, starts included", "xpcs", "g2 fits",
         "2000 g2 fits, 4 parameters, starts included", "scipy curve_fit"),
    Line("a GLS iteration of 24 pulsars, 93,714 TOAs", "timing", "array",
         "24 pulsars, 93714 TOAs: one GLS iteration", "PINT GLSFitter (stored)"),
    Line("derivatives of 10,259 TOAs by 110 parameters", "timing", "design",
         "design matrix 10259 x 110", "PINT (stored)"),
    Line("50,000 particles, 50 steps, 50 densities", "particles", "particles", "particles, float64", "NumPy dense"),
    Line("the same", "particles", "particles", "particles, float64", "NumPy + KDEpy 1.1.12"),
)  # fmt: skip

_HOLDS = {True: "yes", False: "**no**", None: ""}


def write_page(path: Path, area: str, rows: Sequence[Row]) -> None:
    """Put the rows into the table that stands in the page between `<!-- area -->` and `<!-- end of area -->`.

    **Raises:** `ValueError` for a page without these marks; nothing is written then.
    """
    text, begin, end = path.read_text(), f"<!-- {area} -->", f"<!-- end of {area} -->"
    if begin not in text or end not in text:
        raise ValueError(f"{path} has no place for the table: put {begin} and {end} into it")
    head, _, rest = text.partition(begin)
    old = [line for line in rest[: rest.index(end)].splitlines() if line.startswith("| ")][1:]
    table = {line.split(" | ")[0]: line for line in old if not line.startswith("| | ")}
    new = ("| " + " | ".join(_cells(row)) + " |" for row in rows)
    table |= {line.split(" | ")[0]: line for line in new}
    told = machine()
    lines = ["", "", "| what | measured | of | bar | holds | |", "|---|---|---|---|---|---|", *table.values(), ""]
    lines += [f"Python {told['python']}, jax {told['jax']}, two shared cores of {told['machine']}.", ""]
    path.write_text(head + begin + "\n".join(lines) + rest[rest.index(end) :])


def _cells(row: Row) -> list[str]:
    measured = "" if row.ours is None else f"{row.ours:.4g} {row.unit}".strip()
    count, bar = "" if row.n is None else f"{row.n:,}", "" if row.bar is None else str(row.bar)
    return [cell.replace("|", "\\|") for cell in (row.name, measured, count, bar, _HOLDS[row.holds], row.note)]


def show() -> None:
    """Write what is stored into `docs/benchmarks.md` and the README, and messages into their page."""
    for path, text in pages().items():
        path.write_text(text)
    write_messages(ROOT / "docs" / "messages.md")


def write_messages(page: Path) -> None:
    """Make all mistakes in files, commands and calls, and write what is said of each into its table of the page."""
    from . import _mistaken_calls, _mistaken_commands, _mistakes

    text = page.read_text()
    for mark, heading, lines in (
        ("messages", ("file", "what is wrong", "what is said"), _mistakes.lines()),
        ("messages of commands", ("what is wrong", "the command", "what is said"), _mistaken_commands.lines()),
        ("messages of calls", ("of", "what is wrong", "the call", "what is said"), _mistaken_calls.lines()),
    ):
        table = [f"| {' | '.join(heading)} |", "|---" * len(heading) + "|", *lines]
        text = _between(text, mark, table)
    page.write_text(text)


def pages() -> dict[Path, str]:
    """What the two pages should say, by their paths."""
    stored = {path.stem: read_record(path)["rows"] for path in sorted(STORED.glob("*.json"))}
    page, readme = ROOT / "docs" / "benchmarks.md", ROOT / "README.md"
    text = page.read_text()
    for area, rows in stored.items():
        text = _between(text, area, [*_TABLE, *(_stored_line(row) for row in rows), "", _machines(rows)])
    lines = ["| | jaxsci | beside | as fast | measured by |", "|---|---:|---|---:|---|"]
    for line in README:
        row = next(r for r in stored[line.area] if (r["name"], r["peer"]) == (line.row, line.peer) and r["ours"])
        command = f'`python -m benchmarks {line.area} --only "{line.case}"`'
        ours = f"{_short(row['ours'])} {row['unit']}"
        lines.append(f"| {line.what} | {ours} | {line.peer} | **{_short(row['ratio'])} times** | {command} |")
    return {page: text, readme: _between(readme.read_text(), "measured", lines)}


_TABLE = ["| | jaxsci | beside | | ratio | bar | holds | |", "|---|---:|---|---:|---:|---|---|---|"]


def _stored_line(row: Mapping[str, Any]) -> str:
    ours = "" if row["ours"] is None else f"{_short(row['ours'])} {row['unit']}".strip()
    theirs, ratio = ("" if row[key] is None else _short(row[key]) for key in ("theirs", "ratio"))
    name = row["name"] + ("" if row["precision"] in ("", "float64") else f", {row['precision']}")
    cells = (name, ours, row["peer"], theirs, ratio, row["bar"] or "", _HOLDS[row["holds"]], row["note"])
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _short(value: float) -> str:
    """Three digits, without an exponent where there need be none."""
    return f"{value:,.0f}" if 1000 <= abs(value) < 1e7 else f"{value:.3g}"


def _machines(rows: Sequence[Mapping[str, Any]]) -> str:
    """What the rows were measured on, said once."""
    told = sorted({f"Python {m['python']}, jax {m['jax']}, {m['machine']}" for m in (row["machine"] for row in rows)})
    return "; ".join(told) + "."


def _between(text: str, mark: str, lines: Sequence[str]) -> str:
    """The text with these lines between its two marks."""
    begin, end = f"<!-- {mark} -->", f"<!-- end of {mark} -->"
    if begin not in text or end not in text:
        raise ValueError(f"there is no place for the table: put {begin} and {end} into the page")
    head, _, rest = text.partition(begin)
    return head + begin + "\n".join(["", "", *lines, ""]) + rest[rest.index(end) :]
