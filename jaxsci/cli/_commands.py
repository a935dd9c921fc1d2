"""What the commands do, once their arguments are read. Importing this imports jax."""

import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from ..core import suggest
from ._build import Job
from ._config import Config, read_config
from ._errors import ConfigError
from ._output import Log, now, output_folder, write_report, write_results
from ._registry import REGISTRY, Registry, describe, imported
from ._results import counts
from ._session import prepare, versions
from ._task import Task, task_of

FINE, FAILED, STOPPED = 0, 3, 130
"""Exit codes beside 2, bad input: all fits fine; some failed; stopped by Ctrl-C."""

_ROWS_SHOWN = 60


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
        "complete": all(outcome.solution is not None for outcome in outcomes),
        "seconds": time.perf_counter() - began,
        "counts": counts(records),
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
    _tell(records, page)
    if not document["complete"]:
        return STOPPED
    return FINE if document["counts"]["failed"] == 0 else FAILED


def check(file: str, imports: Sequence[Path], settings: Sequence[str], allow_outside: bool) -> int:
    """Build and check everything that a config describes, and say what it is; returns the exit code."""
    prepare("auto")
    config, task, job = load(file, imports, settings, allow_outside)
    table = Table("fit", "model", "rows", "free parameters", box=None)
    for member in job.members[:_ROWS_SHOWN]:
        table.add_row(*task.describe(member))
    console = Console()
    console.print(table)
    more = len(job.members) - _ROWS_SHOWN
    if more > 0:
        console.print(f"and {more} more", highlight=False)
    console.print(f"{config.path.name} is fine: {_count(task, job)}.", highlight=False)
    return FINE


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
    return f"{outcome.member.name}: {outcome.code}{steps}. {outcome.message}".rstrip()


def _choices(task: Task, job: Job, used: dict[str, Any]) -> list[str]:
    """What was decided on the user's behalf."""
    device = [f"device auto: {used['platform']}"] if used["asked"] == "auto" else []
    return [*device, _count(task, job)]


def _count(task: Task, job: Job) -> str:
    sizes = task.batches(job.members)
    batches = f"{len(sizes)} batches of up to {max(sizes)}" if len(sizes) > 1 else "one batch"
    return f"{sum(sizes)} fits in {batches}"


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


def _tell(records: Sequence[dict[str, Any]], page: Path) -> None:
    """The results in short, and where the report is."""
    console = Console()
    console.print(_results_table(records))
    total = counts(records)
    parts = [f"{total['succeeded']} of {total['fits']} fits converged"]
    if total["not_run"]:
        parts.append(f"{total['not_run']} were not run")
    if "compared" in total:
        parts.append(f"values agree to 6 digits in {total['values_to_6_digits']} of {total['compared']}")
        parts.append(f"to 9 digits in {total['values_to_9_digits']}")
        parts.append(f"standard errors to 6 digits in {total['std_to_6_digits']}")
    console.print("; ".join(parts) + ".", highlight=False, soft_wrap=True)
    console.print(f"report: {page.resolve()}", highlight=False, soft_wrap=True, markup=False)


def _results_table(records: Sequence[dict[str, Any]]) -> Table:
    """One line a fit; of many fits, only those that failed."""
    few: Iterable[dict[str, Any]] = records if len(records) <= _ROWS_SHOWN else [r for r in records if not r["success"]]
    compared = any("worst_lre" in r for r in records)
    table = Table("fit", "result", "steps", "chi2/dof", *(("digits", "digits, std") if compared else ()), box=None)
    for r in list(few)[:_ROWS_SHOWN]:
        cells = [r["name"], "converged" if r["success"] else f"[red]{r['result']}[/red]"]
        cells += [str(r.get("num_steps", "")), f"{r['reduced_chi2']:.4g}" if "reduced_chi2" in r else ""]
        if compared:
            cells += [f"{r[k]:.1f}" if k in r else "" for k in ("worst_lre", "worst_lre_std")]
        table.add_row(*cells)
    return table
