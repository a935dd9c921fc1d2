"""The output folder of a run: results, saved solutions, figures, report and log."""

import datetime
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from . import _figures
from ._errors import ConfigError
from ._files import write_whole
from ._report import MOST_DETAILS, NO_FIGURES, report
from ._results import as_csv, as_json, slugs
from ._run import Outcome


class Log:
    """`log.txt`: lines with the time, written anew as a whole at each `say`."""

    def __init__(self, path: Path):
        self.path = path
        self.lines: list[str] = []

    def say(self, text: str) -> None:
        """Add a line and write the file."""
        self.lines.append(f"{now().isoformat(timespec='seconds')} {text}")
        write_whole(self.path, "\n".join(self.lines) + "\n")


def now() -> datetime.datetime:
    """The time in UTC."""
    return datetime.datetime.now(datetime.UTC)


def output_folder(out: Path | None, config: Path) -> Path:
    """The folder to write to, made: `out`, or `runs/<config name>-<UTC time>`, which is never an older run's.

    **Raises:** `ConfigError` where it cannot be made.
    """
    base = out or Path("runs") / f"{config.stem}-{now():%Y%m%dT%H%M%SZ}"
    try:
        folder, k = base, 2
        while out is None and folder.exists():
            folder, k = base.with_name(f"{base.name}-{k}"), k + 1
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError("--out", f"the folder {base} cannot be made: {error.strerror}") from error
    return folder


def write_results(folder: Path, document: dict[str, Any], outcomes: Sequence[Outcome]) -> None:
    """Write results.json, results.csv, and a file in solutions/ for each fit that has one."""
    write_whole(folder / "results.json", as_json(document))
    write_whole(folder / "results.csv", as_csv(document["members"]))
    (folder / "solutions").mkdir(exist_ok=True)
    for slug, outcome in zip(slugs([o.member.name for o in outcomes]), outcomes, strict=True):
        if outcome.solution is not None:
            outcome.solution.save(folder / "solutions" / f"{slug}.eqx")


def write_report(
    folder: Path, document: dict[str, Any], outcomes: Sequence[Outcome], track: Callable[[Sequence[Any]], Iterable[Any]]
) -> Path:
    """Draw figures/ and write report.html; without matplotlib, a report that says how to get figures.

    **Arguments:** `track`: wraps what is looped over, to show progress.
    """
    anchors = slugs([o.member.name for o in outcomes])
    drawable = [(a, o) for a, o in zip(anchors, outcomes, strict=True) if o.solution is not None][:MOST_DETAILS]
    figures: dict[str, str] = {}
    notes = [] if _figures.can_draw() else [NO_FIGURES]
    try:
        for anchor, outcome in track([] if notes else drawable):
            svg = _figures.draw(outcome, anchor)
            write_whole(folder / "figures" / f"{anchor}.svg", svg)
            figures[anchor] = _figures.inline(svg)
    except KeyboardInterrupt:
        notes.append("The drawing of figures was stopped.")
    path = folder / "report.html"
    write_whole(path, report(document, anchors, figures, notes))
    return path
