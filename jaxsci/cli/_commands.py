"""What the commands do, once their arguments are read. Importing this imports jax."""

import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from ..core import suggest
from ._bad_input import BAD_INPUT
from ._build import Job
from ._config import Config, read_config
from ._errors import ConfigError
from ._output import Log, now, output_folder, write_report, write_results
from ._registry import REGISTRY, Registry, describe, imported
from ._results import counts, verdicts
from ._run import REFUSED
from ._session import prepare, versions
from ._task import Task, task_of
from ._terminal import MOST_ROWS, listed, plural, tell

FINE, FAILED, STOPPED = 0, 3, 130
"""Exit codes beside `BAD_INPUT`: all fits fine; some failed; stopped by Ctrl-C."""


def load(file: str, imports: Sequence[Path], settings: Sequence[str], allow_outside: bool) -> tuple[Config, Task, Job]:
    """Read a config and build its job, whose kind the task says.

    **Raises:** `ConfigError` naming file, table and key.
    """
    registry = extended(imports)
    config = read_config(file, settings, allow_outside)
    try:
        task = task_of(config)
        return config, task, task.build(config, registry)
    except ConfigError as error:
        raise ConfigError(config.path.name, str(error)) from error


def extended(imports: Sequence[Path]) -> Registry:
    """The registry, with the classes of the researcher's own files."""
    registry = REGISTRY
    for path in imports:
        registry = imported(registry, path)
    return registry


def run(
    file: str, out: Path | None, device: str, imports: Sequence[Path], settings: Sequence[str], allow_outside: bool
) -> int:
    """Fit what a config describes, write the output folder, and say how it went; returns the exit code."""
    began = time.perf_counter()
    used = prepare(device)
    config, task, job = load(file, imports, settings, allow_outside)
    folder = output_folder(out, config.path)
    log = Log(folder / "log.txt")
    log.say(f"config {config.path}, {len(job.members)} fits, device {used['platform']} ({used['kind']})")
    outcomes = _fit(task, job, log, beside=not imports)
    records = [task.record(outcome) for outcome in outcomes]
    document: dict[str, Any] = {
        "title": job.title,
        "description": job.description,
        "created": now().isoformat(timespec="seconds"),
        "complete": all(outcome.code != "not_run" for outcome in outcomes),
        "seconds": time.perf_counter() - began,
        "counts": counts(records),
        "verdicts": verdicts(records),
        "config_file": str(config.path.resolve()),
        "config": config.tables,
        "versions": versions(),
        "device": used,
        "choices": _choices(task, job, used),
        "members": records,
    }
    write_results(folder, document, outcomes, task.files(outcomes))
    with _progress() as progress:
        page = write_report(folder, document, outcomes, task, lambda items: _tracked(progress, items))
    log.say(f"report written after {time.perf_counter() - began:.1f} s")
    tell(records, page)
    return _exit_code(records)


def _exit_code(records: Sequence[Mapping[str, Any]]) -> int:
    """The worst that happened: stopped, a fit that could not be tried at all, one that failed, nothing."""
    results = {record["result"] for record in records}
    if "not_run" in results:
        return STOPPED
    if REFUSED in results:
        return BAD_INPUT
    return FINE if all(record["success"] for record in records) else FAILED


def check(file: str, imports: Sequence[Path], settings: Sequence[str], allow_outside: bool) -> int:
    """Build and check all that a config describes; say what it is, and which fits would end before their first step.

    **Returns:** the exit code that the run would have, as far as it is known without fitting.
    """
    prepare("auto")
    config, task, job = load(file, imports, settings, allow_outside)
    table = Table("fit", "model", "rows", "free parameters", box=None)
    for member in job.members[:MOST_ROWS]:
        table.add_row(*task.describe(member))
    console = Console()
    console.print(table)
    more = len(job.members) - MOST_ROWS
    if more > 0:
        console.print(f"and {more} more", highlight=False)
    wrong = task.refusals(job.members)
    if not wrong:
        console.print(f"{config.path.name} is fine: {_count(task, job)}.", highlight=False)
        return FINE
    for line in listed({job.members[place].name: why.message for place, why in wrong.items()}):
        console.print(line, highlight=False, soft_wrap=True)
    console.print(f"{config.path.name}: {len(wrong)} of {plural(len(job.members), 'fit')} would fail.", highlight=False)
    return BAD_INPUT if any(why.result == REFUSED for why in wrong.values()) else FAILED


def list_names(kind: str | None, imports: Sequence[Path]) -> int:
    """Show the names that a config may use, with their arguments; returns the exit code."""
    registry = extended(imports)
    if kind is not None and kind not in registry:
        raise ConfigError("list", f"there is no kind {kind!r}{suggest(kind, registry)} ({', '.join(registry)})")
    console = Console()
    for key in registry if kind is None else [kind]:
        table = Table("name", "arguments", "", box=None, title=key, title_justify="left", pad_edge=False)
        for name, cls in registry[key].classes.items():
            table.add_row(name, *describe(cls))
        console.print(table, "", markup=False)
    return FINE


def _fit(task: Task, job: Job, log: Log, beside: bool) -> list[Any]:
    """Fit all members; Ctrl-C ends it, and what was not reached has no solution.

    A researcher's own model may call LAPACK, which hangs some versions of jaxlib when threads do so beside each other.
    """
    outcomes = [task.unfitted(member) for member in job.members]
    try:
        with _progress() as progress:
            bar = progress.add_task("fitting", total=len(outcomes))
            for places, done in task.fit(job.members, lambda count: progress.advance(bar, count), beside):
                log.say(*(_told(outcome) for outcome in done))
                for place, outcome in zip(places, done, strict=True):
                    outcomes[place] = outcome
    except KeyboardInterrupt:
        log.say("stopped by the user; what was finished is written")
    return outcomes


def _told(outcome: Any) -> str:
    steps = "" if outcome.solution is None else f" after {int(outcome.solution.num_steps)} steps"
    said = (f"{outcome.member.name}: {outcome.code}{steps}.", outcome.message, *outcome.remarks)
    return " ".join(filter(None, said))


def _choices(task: Task, job: Job, used: dict[str, Any]) -> list[str]:
    """What was decided on the user's behalf."""
    device = [f"device auto: {used['platform']}"] if used["asked"] == "auto" else []
    return [*device, _count(task, job)]


def _count(task: Task, job: Job) -> str:
    sizes = task.batches(job.members)
    batches = f"{len(sizes)} batches of up to {max(sizes)}" if len(sizes) > 1 else "one batch"
    return f"{plural(sum(sizes), 'fit')} in {batches}"


def _progress() -> Progress:
    columns = (
        SpinnerColumn(),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.description}"),
    )
    return Progress(*columns, console=Console(stderr=True), transient=True)


def _tracked(progress: Progress, items: Sequence[Any]) -> Iterator[Any]:
    yield from progress.track(items, description="drawing figures")
