"""The rows of a run as a table within a page of the documentation, between two marks that stay."""

from collections.abc import Sequence
from pathlib import Path

from ._harness import Row, machine

_HOLDS = {True: "yes", False: "**no**", None: ""}


def write_page(path: Path, area: str, rows: Sequence[Row]) -> None:
    """Replace what stands in the page between `<!-- area -->` and `<!-- end of area -->` by the table of these rows.

    **Raises:** `ValueError` for a page without these marks; nothing is written then.
    """
    text, begin, end = path.read_text(), f"<!-- {area} -->", f"<!-- end of {area} -->"
    if begin not in text or end not in text:
        raise ValueError(f"{path} has no place for the table: put {begin} and {end} into it")
    head, _, rest = text.partition(begin)
    told = machine()
    lines = ["", "| | measured | of | bar | holds | |", "|---|---|---|---|---|---|"]
    lines += ["| " + " | ".join(_cells(row)) + " |" for row in rows]
    lines += ["", f"Python {told['python']}, jax {told['jax']}, two shared cores of {told['machine']}.", ""]
    path.write_text(head + begin + "\n".join(lines) + rest[rest.index(end) :])


def _cells(row: Row) -> list[str]:
    measured = "" if row.ours is None else f"{row.ours:.4g} {row.unit}".strip()
    count, bar = "" if row.n is None else f"{row.n:,}", "" if row.bar is None else str(row.bar)
    return [cell.replace("|", "\\|") for cell in (row.name, measured, count, bar, _HOLDS[row.holds], row.note)]
