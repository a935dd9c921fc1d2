"""The output folder of a run: results, saved solutions, figures, report and log."""

import datetime
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax.tree_util as jtu
import numpy as np

from . import _figures
from ._batch_report import batch_report, histogram_columns, member_page, worth_a_look
from ._errors import ConfigError
from ._files import write_whole
from ._report import MOST_DETAILS, NO_FIGURES, report
from ._results import as_csv, as_json, slugs
from ._task import Task


class Log:
    """`log.txt`: lines with the time, the file written anew as a whole at each `say`."""

    def __init__(self, path: Path):
        self.path = path
        self.lines: list[str] = []

    def say(self, *texts: str) -> None:
        """Add lines and write the file."""
        self.lines += [f"{now().isoformat(timespec='seconds')} {text}" for text in texts]
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


def write_results(folder: Path, document: dict[str, Any], outcomes: Sequence[Any], files: Mapping[str, Any]) -> None:
    """Write the solutions and other files, then results.csv and results.json, whose members say where theirs are."""
    for name, what in files.items():
        if callable(what):
            what(folder / name)
        else:
            write_whole(folder / name, what)
    write_solutions(folder / "solutions", document["members"], outcomes)
    write_whole(folder / "results.csv", as_csv(document["members"]))
    write_whole(folder / "results.json", as_json(document))


def write_solutions(folder: Path, records: Sequence[dict[str, Any]], outcomes: Sequence[Any]) -> None:
    """Write a file for each solution; of a large batch, one stacked Solution for each structure.

    Notes `solution` in the records: the file, and the place in it where several share one.
    """
    folder.mkdir(exist_ok=True)
    if len(outcomes) <= MOST_DETAILS:
        for slug, outcome, record in zip(slugs([o.member.name for o in outcomes]), outcomes, records, strict=True):
            if outcome.solution is not None:
                outcome.solution.save(folder / f"{slug}.eqx")
                record["solution"] = {"file": f"solutions/{slug}.eqx"}
        return
    groups: dict[Any, list[int]] = {}
    for place, outcome in enumerate(outcomes):
        if outcome.solution is not None:
            leaves, structure = jtu.tree_flatten(outcome.solution)
            groups.setdefault((structure, tuple((leaf.shape, leaf.dtype) for leaf in leaves)), []).append(place)
    for k, places in enumerate(groups.values(), 1):
        together = jtu.tree_map(lambda *leaves: np.stack(leaves), *(outcomes[place].solution for place in places))
        together.save(folder / f"batch-{k}.eqx")
        for index, place in enumerate(places):
            records[place]["solution"] = {"file": f"solutions/batch-{k}.eqx", "index": index}


def write_report(
    folder: Path,
    document: dict[str, Any],
    outcomes: Sequence[Any],
    task: Task,
    track: Callable[[Sequence[Any]], Iterable[Any]],
) -> Path:
    """Draw figures/ and write report.html, and members/ for a large batch; without matplotlib, say how to get figures.

    **Arguments:** `task`: draws; `track`: wraps what is looped over, to show progress.
    """
    records = document["members"]
    anchors = slugs([o.member.name for o in outcomes])
    chosen = worth_a_look(records)
    figures: dict[str, str] = {}
    pictures: dict[str, str] = {}
    notes = [] if _figures.can_draw() else [NO_FIGURES]
    try:
        for place in track([] if notes else chosen):
            if outcomes[place].solution is not None:
                svg = task.draw(outcomes[place], anchors[place])
                figures[anchors[place]] = _figure(folder, anchors[place], svg)
        for title, draw in ({} if notes else task.pictures(outcomes)).items():
            pictures[title] = _figure(folder, slugs([title])[0], draw(title))
        if len(records) > MOST_DETAILS and not notes:
            for name, columns in histogram_columns(records).items():
                figures[name] = _figure(folder, name, _figures.draw_histograms(columns, name))
    except KeyboardInterrupt:
        notes.append("The drawing of figures was stopped.")
    path = folder / "report.html"
    if len(records) <= MOST_DETAILS:
        write_whole(path, report(document, anchors, figures, notes, pictures))
        return path
    for place in chosen:
        page = member_page(document, anchors[place], records[place], figures.get(anchors[place]))
        write_whole(folder / "members" / f"{anchors[place]}.html", page)
    write_whole(path, batch_report(document, {place: anchors[place] for place in chosen}, figures, notes, pictures))
    return path


def _figure(folder: Path, name: str, svg: str) -> str:
    write_whole(folder / "figures" / f"{name}.svg", svg)
    return _figures.inline(svg)
