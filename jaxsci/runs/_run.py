"""From a config to a report: read and check, run, write.

`jaxsci run` and `jaxsci check` are `run` and `load` with what they show on the screen; a program of the user's own may
call them as well. Nothing here knows what a member is: the task that the config names builds, runs and describes them.
"""

import contextlib
import dataclasses
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar, runtime_checkable

from ._bad_input import BAD_INPUT
from ._config import Config, read_config
from ._errors import ConfigError
from ._interactive import need_plotly
from ._interrupt import STOPPED, check_interrupt
from ._output import Log, now, output_folder, write_report, write_results
from ._progress import Progress
from ._records import counts, plural, record_of, verdicts
from ._registry import Registry, extended
from ._sciences import DEFAULT, task_named
from ._session import prepare, versions
from ._task import NOT_RUN, REFUSED, AbstractOutcome, AbstractTask, Job, Record, Report, Untried

FINE, FAILED = 0, 3
"""Exit codes beside `BAD_INPUT` and `STOPPED`: all members fine; some failed."""

T = TypeVar("T")


@runtime_checkable
class Watch(Protocol):
    """Who is told how far a run is, such as a progress bar."""

    def counting(self, total: int, what: str) -> Report:
        """Called before members are run, with how many there are and what they are called; returns the counter."""

    def drawing(self, items: Sequence[T]) -> Iterable[T]:
        """The items, whose figures are drawn while they are looped over."""


@dataclasses.dataclass(frozen=True)
class Unwatched:
    """Counts for nobody: what a run without a screen is watched by."""

    def counting(self, total: int, what: str) -> Report:
        """A counter that does nothing."""
        return lambda count: None

    def drawing(self, items: Sequence[T]) -> Iterable[T]:
        """The items as they are."""
        return items


@dataclasses.dataclass(frozen=True)
class Loaded:
    """A config with its task and the job that the task made of it."""

    config: Config
    task: AbstractTask[Any, Any]
    job: Job[Any]

    @property
    def count(self) -> str:
        """How many members there are, and how they are batched, in words."""
        sizes = self.task.batches(self.job.members)
        many = plural(sum(sizes), self.task.words.noun)
        if len(sizes) == 1:
            return f"{many} in one batch"
        return f"{many}, each by itself" if max(sizes) == 1 else f"{many} in {len(sizes)} batches of up to {max(sizes)}"


@dataclasses.dataclass(frozen=True)
class Ran:
    """A finished run: its task, the records of its members and what was counted of them, its page, the exit code."""

    task: AbstractTask[Any, Any]
    records: Sequence[Record]
    counts: dict[str, int]
    page: Path
    code: int


def load(file: str, imports: Sequence[Path] = (), settings: Sequence[str] = (), allow_outside: bool = False) -> Loaded:
    """Read a config and build the job of its task.

    **Arguments:** `file`: a path or `bundled:NAME`; `imports`: Python files whose classes the config may name;
    `settings`: changes such as `"fit.max_steps=500"`; `allow_outside`: files may lie outside the config's folder.

    **Raises:** `ConfigError` naming file, table and key.
    """
    config = read_config(file, settings, allow_outside)
    with _naming(config):
        task = task_named(config.tables.get("task", DEFAULT))
    registry: Registry = extended(task.kinds(), imports)
    with _naming(config):
        return Loaded(config, task, task.build(config, registry))


@contextlib.contextmanager
def _naming(config: Config) -> Any:
    """Puts the name of the config in front of what is wrong with it."""
    try:
        yield
    except ConfigError as error:
        raise type(error)(config.path.name, str(error)) from error


def run(
    file: str,
    out: Path | None = None,
    device: str = "auto",
    imports: Sequence[Path] = (),
    settings: Sequence[str] = (),
    allow_outside: bool = False,
    watch: Watch = Unwatched(),
    resume: bool = False,
    interactive: bool = False,
) -> Ran:
    """Run what a config describes and write the output folder.

    **Arguments:** those of `load`; `out`: the folder, by default `runs/<config name>-<UTC time>`; `device`: `"auto"`,
    `"cpu"` or `"gpu"`; `watch`: is told how far the run is; `resume`: go on with a run that was stopped in `out`;
    `interactive`: write interactive.html too, whose figures can be zoomed into.

    **Raises:** `ConfigError` for bad input, for a folder where another run is under way or was stopped, and where
    `interactive` finds no plotly;
    `WriteError` where it cannot be written. Members that fail are told in the records.
    """
    if resume and out is None:
        raise ConfigError("--resume", "say where the run was stopped: --out DIR")
    if interactive:
        need_plotly()
    began = time.perf_counter()
    used = prepare(device)
    loaded = load(file, imports, settings, allow_outside)
    config, job = loaded.config, loaded.job
    folder = output_folder(out, config.path)
    imported = [path.read_bytes() for path in imports]
    belongs = {"config": config.tables, "data": job.members, "imported files": imported}
    with Progress(folder, belongs, job.members, resume) as progress:
        return _reported(loaded, used, folder, progress, watch, not imports, began, interactive)


def _reported(
    loaded: Loaded,
    used: dict[str, Any],
    folder: Path,
    progress: Progress,
    watch: Watch,
    beside: bool,
    began: float,
    interactive: bool,
) -> Ran:
    """Run the members that are not done yet, and write all that follows from the outcomes."""
    config, task, job = loaded.config, loaded.task, loaded.job
    done = progress.found()
    log = Log(folder / "log.txt", more=bool(done))
    noun = task.words.noun
    log.say(f"config {config.path}, {plural(len(job.members), noun)}, device {used['platform']} ({used['kind']})")
    if done:
        log.say(f"going on: {plural(len(done), noun)} of {len(job.members)} were done before")
    report = watch.counting(len(job.members), f"{noun}s")
    report(len(done))
    # a researcher's own model may call LAPACK, which hangs some versions of jaxlib when threads do so beside each other
    outcomes = _carried_out(loaded, done, progress, log, report, beside)
    records = [record_of(outcome, task.words) for outcome in outcomes]
    device_choice = [f"device auto: {used['platform']}"] if used["asked"] == "auto" else []
    document: dict[str, Any] = {
        "title": job.title,
        "description": job.description,
        "created": now().isoformat(timespec="seconds"),
        "complete": all(outcome.code != NOT_RUN for outcome in outcomes),
        "seconds": time.perf_counter() - began,
        "counts": counts(records, task),
        "verdicts": verdicts(records),
        "config_file": str(config.path.resolve()),
        "inputs": {name: str(path.resolve()) for name, path in config.resolved.items()},
        "config": config.tables,
        "versions": versions(),
        "device": used,
        "choices": [*device_choice, loaded.count],
        "members": records,
    }
    write_results(folder, document, outcomes, task)
    page = write_report(folder, document, outcomes, task, watch.drawing, interactive)
    log.say(f"report written after {time.perf_counter() - began:.1f} s")
    progress.over = document["complete"]
    return Ran(task, records, document["counts"], page, exit_code(records))


def exit_code(records: Sequence[Record]) -> int:
    """Give the exit code of the worst that happened.

    From worse to better: stopped, a member that could not be tried at all, one that failed, nothing.
    """
    results = {record["result"] for record in records}
    if NOT_RUN in results:
        return STOPPED
    if REFUSED in results:
        return BAD_INPUT
    return FINE if all(record["success"] for record in records) else FAILED


def _carried_out(
    loaded: Loaded,
    done: Mapping[int, AbstractOutcome],
    progress: Progress,
    log: Log,
    report: Callable[[int], None],
    beside: bool,
) -> list[AbstractOutcome]:
    """Run all members that are not done; Ctrl-C ends it, and what was not reached has no result."""
    task, job = loaded.task, loaded.job
    why = f"The run was stopped before this {task.words.noun}."
    outcomes: list[AbstractOutcome] = [Untried(member, NOT_RUN, why) for member in job.members]
    for place, outcome in done.items():
        outcomes[place] = outcome
    left = [place for place in range(len(outcomes)) if place not in done]
    try:
        for at, found in task.run([job.members[place] for place in left], report, beside) if left else ():
            check_interrupt()  # what failed just now may have failed of that
            places = [left[k] for k in at]
            progress.add(places, found)
            log.say(*map(_told, found))
            for place, outcome in zip(places, found, strict=True):
                outcomes[place] = outcome
    except KeyboardInterrupt:
        log.say("stopped by the user; what was finished is written")
    return outcomes


def _told(outcome: AbstractOutcome) -> str:
    said = (f"{outcome.member.name}: {outcome.told}.", outcome.message, *outcome.remarks)
    return " ".join(filter(None, said))
