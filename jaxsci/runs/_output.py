"""The output folder of a run: results, saved solutions, figures, report and log.

Results are written before anything is drawn, so that a figure that fails, or Ctrl-C while figures are drawn, loses no
number. `run` calls this with the records of all members and the task, which draws.
"""

import dataclasses
import datetime
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import equinox as eqx
import jax.tree_util as jtu
import numpy as np

from . import _figures, _interactive
from ._batch_report import MOST_PAGES, batch_report, histogram_columns, member_page, worth_a_look
from ._errors import ConfigError
from ._files import write_whole
from ._progress import CHECKPOINT
from ._records import as_csv, as_json, slugs
from ._report import MOST_DETAILS, NO_FIGURES, Content, report
from ._task import AbstractOutcome, AbstractTask, Untried


class Log:
    """`log.txt`: lines with the time, the file written anew as a whole at each `say`; of a run that goes on, more."""

    def __init__(self, path: Path, more: bool = False):
        self.path = path
        self.lines = path.read_text().splitlines() if more and path.exists() else []

    def say(self, *texts: str) -> None:
        """Add lines and write the file."""
        self.lines += [f"{now().isoformat(timespec='seconds')} {text}" for text in texts]
        write_whole(self.path, "\n".join(self.lines) + "\n")


def now() -> datetime.datetime:
    """Tell the time in UTC."""
    return datetime.datetime.now(datetime.UTC)


def output_folder(out: Path | None, config: Path) -> Path:
    """Make the folder to write to: `out`, or `runs/<config name>-<UTC time>`, which is never an older run's.

    **Raises:** `ConfigError` where it cannot be made.
    """
    base = out or Path("runs") / f"{config.stem}-{now():%Y%m%dT%H%M%SZ}"
    try:
        folder, k = base, 2
        while out is None and folder.exists():
            folder, k = base.with_name(f"{base.name}-{k}"), k + 1
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        why = "there is a file of that name" if base.is_file() else error.strerror
        raise ConfigError("--out", f"the folder {base} cannot be made: {why}; name another one") from error
    return folder


def write_results(
    folder: Path, document: dict[str, Any], outcomes: Sequence[AbstractOutcome], task: AbstractTask[Any, Any]
) -> None:
    """Write what is saved and the task's files, then results.csv and results.json, which say where each is."""
    names = slugs([outcome.member.name for outcome in outcomes])
    for record, name, outcome in zip(document["members"], names, outcomes, strict=True):
        own = {} if isinstance(outcome, Untried) else task.files(outcome, name)
        for path, what in own.items():
            if callable(what):
                what(folder / path)
            else:
                write_whole(folder / path, what)
        if own:
            record["files"] = list(own)
    write_solutions(folder / "solutions", document["members"], outcomes)
    write_whole(folder / "results.csv", as_csv(document["members"], task.columns))
    write_whole(folder / "results.json", as_json(document))


def tried(outcomes: Sequence[AbstractOutcome]) -> list[AbstractOutcome]:
    """The outcomes of members that were run."""
    return [outcome for outcome in outcomes if not isinstance(outcome, Untried)]


def write_solutions(folder: Path, records: Sequence[dict[str, Any]], outcomes: Sequence[AbstractOutcome]) -> None:
    """Write a file for what each outcome saves; of a large batch, one stacked Module for each structure.

    Notes `solution` in the records: the file, and the place in it where several share one.
    """
    folder.mkdir(exist_ok=True)
    saved = [outcome.saved for outcome in outcomes]
    groups: dict[Any, list[int]] = {}
    for place, (slug, what) in enumerate(zip(slugs([o.member.name for o in outcomes]), saved, strict=True)):
        if what is None:
            continue
        if len(outcomes) <= MOST_DETAILS or not isinstance(what, eqx.Module):
            what.save(folder / f"{slug}.eqx")
            records[place]["solution"] = {"file": f"solutions/{slug}.eqx"}
            continue
        leaves, structure = jtu.tree_flatten(what)
        groups.setdefault((structure, tuple((leaf.shape, leaf.dtype) for leaf in leaves)), []).append(place)
    for k, places in enumerate(groups.values(), 1):
        together: Any = jtu.tree_map(lambda *leaves: np.stack(leaves), *(saved[place] for place in places))
        together.save(folder / f"batch-{k}.eqx")
        for index, place in enumerate(places):
            records[place]["solution"] = {"file": f"solutions/batch-{k}.eqx", "index": index}


def write_report(
    folder: Path,
    document: dict[str, Any],
    outcomes: Sequence[AbstractOutcome],
    task: AbstractTask[Any, Any],
    track: Callable[[Sequence[Any]], Iterable[Any]],
    interactive: bool = False,
) -> Path:
    """Draw figures/ and write report.html, and members/ for a large batch; without matplotlib, say how to get figures.

    **Arguments:** `task`: draws; `track`: wraps what is looped over, to show progress; `interactive`: True writes
    interactive.html too.
    """
    records = document["members"]
    anchors = slugs([o.member.name for o in outcomes])
    chosen = worth_a_look(records, task)
    figures: dict[str, _figures.Drawn] = {}
    pictures: dict[str, _figures.Drawn] = {}
    zoomed: dict[str, str] = {}
    notes = [] if _figures.can_draw() else [NO_FIGURES]
    try:
        for place in track([] if notes and not interactive else chosen):
            outcome, anchor = outcomes[place], anchors[place]
            svg = None if notes or isinstance(outcome, Untried) else _figures.svg(outcome.draw, anchor)
            if svg is not None:
                figures[anchor] = draw_to(folder, anchor, svg)
            if interactive and (drawn := _interactive.interactive_figures(outcome.panels())):
                zoomed[anchor] = drawn
        for title, draw in ({} if notes else task.pictures(tried(outcomes))).items():
            svg = _figures.svg(draw, title)
            if svg is not None:
                pictures[title] = draw_to(folder, slugs([title])[0], svg)
        if len(records) > MOST_DETAILS and not notes:
            for name, columns in histogram_columns(records, task).items():
                figures[name] = draw_to(folder, name, _figures.draw_histograms(columns, name))
    except KeyboardInterrupt:
        notes.append("The drawing of figures was stopped.")
    write_pages(folder, Content(document, task, anchors, figures, notes, pictures), zoomed if interactive else None)
    return folder / "report.html"


def write_pages(folder: Path, content: Content, zoomed: Mapping[str, str] | None = None) -> None:
    """Write report.html, and members/ for a large batch.

    **Arguments:** `zoomed`: the interactive figures of members by their file names, for interactive.html; `None` for no
    such page.
    """
    if zoomed is None:
        (folder / _interactive.PAGE).unlink(missing_ok=True)  # of an earlier run, which showed other numbers
    else:
        kept = _interactive.not_too_large(zoomed)
        shown = worth_a_look(content.members, content.task)
        zoom = _interactive.interactive_page(content, shown, kept, zoomed.keys() - kept.keys())
        write_whole(folder / _interactive.PAGE, zoom)
        content = dataclasses.replace(content, interactive=frozenset(kept))
    content = dataclasses.replace(content, beside=_beside(folder))
    path, anchors = folder / "report.html", content.anchors
    if len(anchors) <= MOST_DETAILS:
        write_whole(path, report(content))
        return
    few = len(anchors) <= MOST_PAGES
    chosen = range(len(anchors)) if few else sorted(worth_a_look(content.members, content.task))
    for before, place, after in zip([None, *chosen[:-1]], chosen, [*chosen[1:], None], strict=True):
        near = {"previous": before, "next": after}
        names = {text: anchors[k] for text, k in near.items() if k is not None}
        write_whole(folder / "members" / f"{anchors[place]}.html", member_page(content, place, names))
    write_whole(path, batch_report(content, {place: anchors[place] for place in chosen}))


def _beside(folder: Path) -> list[str]:
    """What lies in the folder beside the page for a reader; folders with a stroke behind their names."""
    hidden = ("report.html", CHECKPOINT, ".")  # the checkpoint goes when the run is over
    found = sorted(entry for entry in folder.iterdir() if not entry.name.startswith(hidden))
    return [f"{entry.name}/" if entry.is_dir() else entry.name for entry in found]


def draw_to(folder: Path, name: str, svg: str) -> _figures.Drawn:
    """Write a figure into the folder's `figures/`, and make it part of a page."""
    file = f"figures/{name}.svg"
    write_whole(folder / file, svg)
    return _figures.inline(svg, file)
