"""The rows of a run as a table on the terminal."""

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from ._harness import Row

_MARKS = {True: ("yes", "green"), False: ("NO", "bold red"), None: ("", "")}


def print_rows(title: str, rows: Sequence[Row], changes: Sequence[str] | None = None) -> None:
    """Print every row; `changes` adds a column against an older run."""
    table = Table(title=title, caption=_caption(rows), header_style="bold")
    for heading in ("row", "ours", "peer", "ratio", "bar", "holds", "n", "precision", "cold s", "wall", "compiles"):
        table.add_column(heading, justify="left" if heading in ("row", "peer") else "right")
    if changes is not None:
        table.add_column("new / old", justify="right")
    table.add_column("note", overflow="fold")
    for i, row in enumerate(rows):
        table.add_row(*_cells(row), *([] if changes is None else [changes[i]]), row.note)
    console = Console()
    console.width = max(console.width, 190)  # a log or a pipe has no width of its own
    console.print(table)


def _cells(row: Row) -> list[str | Text]:
    theirs = "" if row.theirs is None else f" {_number(row.theirs)}"
    compiles = "" if row.compiles is None else f"{row.compiles}" + (f" + {row.again}" if row.again else "")
    return [
        row.name,
        f"{_number(row.ours)} {row.unit}".strip(),
        f"{row.peer}{theirs}",
        "" if row.ratio is None else f"{row.ratio:.3g}",
        "" if row.bar is None else str(row.bar),
        Text(*_MARKS[row.holds]),
        "" if row.n is None else f"{row.n}",
        row.precision if row.ours is not None else "",
        _number(row.cold),
        _number(row.wall),
        compiles,
    ]


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"


def _caption(rows: Sequence[Row]) -> str:
    judged = [row.holds for row in rows if row.holds is not None]
    return f"{sum(judged)} of {len(judged)} bars hold; times are CPU time of one thread, warm; the wall clock beside"
