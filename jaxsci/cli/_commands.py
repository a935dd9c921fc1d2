"""What the commands do, once their arguments are read. Importing this imports jax.

The work is done by `jaxsci.runs`; here is what a terminal shows of it: bars while members are run and figures drawn,
tables before and after.
"""

import contextlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TypeVar

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from .. import runs
from ..core import suggest
from ..parallel import start_hosts
from ..runs import (
    BAD_INPUT,
    BUNDLED,
    FAILED,
    FINE,
    REFUSED,
    SPMD,
    ConfigError,
    Kind,
    Registry,
    Report,
    Shared,
    Workers,
    plural,
)
from ._terminal import MOST_ROWS, Show as Show, listed, print_json, tell

T = TypeVar("T")


class _Bars:
    """Progress bars on stderr, from when there is something to count until the run is done; none for those who ask."""

    def __init__(self, until: contextlib.ExitStack, show: Show):
        columns = (
            SpinnerColumn(),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.description}"),
        )
        self.progress = Progress(*columns, console=Console(stderr=True), transient=True, disable=show.quiet)
        self.until = until

    def counting(self, total: int, what: str) -> Report:
        """A bar over the members."""
        self.until.enter_context(self.progress)
        bar = self.progress.add_task(what, total=total)
        return lambda count: self.progress.advance(bar, count)

    def drawing(self, items: Sequence[T]) -> Iterable[T]:
        """A bar over what is drawn."""
        return self.progress.track(items, description="drawing figures")


def run(
    file: str,
    out: Path | None,
    device: str,
    imports: Sequence[Path],
    settings: Sequence[str],
    allow_outside: bool,
    resume: bool,
    interactive: bool,
    show: Show,
) -> int:
    """Run what a config describes, write the output folder, and say how it went; returns the exit code."""
    with contextlib.ExitStack() as until:
        bars = _Bars(until, show)
        ran = runs.run(file, out, device, imports, settings, allow_outside, bars, resume, interactive)
    tell(ran, show)
    return ran.code


def batch(
    manifest: Path, out: Path | None, workers: Workers, shared: Shared, resume: bool, retries: int, show: Show
) -> int:
    """Run all items of a manifest and say how it went; returns the exit code.

    Of processes that were started together, those that do not lead do what they are told.
    """
    if workers.executor == SPMD:
        try:
            rank = start_hosts().rank
        except RuntimeError as error:
            raise ConfigError("--spmd", str(error)) from error
        if rank > 0:
            return runs.follow()
    with contextlib.ExitStack() as until:
        ran = runs.batch(manifest, out, workers, shared, resume, retries, _Bars(until, show))
    tell(ran, show)
    return ran.code


def check(file: str, imports: Sequence[Path], settings: Sequence[str], allow_outside: bool, as_json: bool) -> int:
    """Build and check all that a config describes; say what it is, and what would end before its first step.

    **Returns:** the exit code that the run would have, as far as it is known without running.
    """
    runs.prepare("auto")
    loaded = runs.load(file, imports, settings, allow_outside)
    task, members, name, noun = loaded.task, loaded.job.members, loaded.config.path.name, loaded.task.words.noun
    wrong = task.refusals(members)
    code = FINE
    if wrong:
        code = BAD_INPUT if any(why.result == REFUSED for why in wrong.values()) else FAILED
    if as_json:
        every = [{"name": member.name, **task.describe(member)} for member in members]
        for place, why in wrong.items():
            every[place]["would_fail"] = why.message
        print_json({"config": str(loaded.config.path), "exit_code": code, "members": every})
        return code
    console = Console()
    shown = [(member.name, task.describe(member)) for member in members[:MOST_ROWS]]
    table = Table(noun, *(shown[0][1] if shown else ()), box=None)
    for title, cells in shown:
        table.add_row(title, *cells.values())
    console.print(table)
    more = len(members) - MOST_ROWS
    if more > 0:
        console.print(f"and {more} more", highlight=False)
    if not wrong:
        console.print(f"{name} is fine: {loaded.count}.", highlight=False)
        return code
    for line in listed({members[place].name: why.message for place, why in wrong.items()}):
        console.print(line, highlight=False, soft_wrap=True)
    console.print(f"{name}: {len(wrong)} of {plural(len(members), noun)} would fail.", highlight=False)
    return code


def list_names(kind: str | None, imports: Sequence[Path], as_json: bool) -> int:
    """Show the names that a config may use, with their arguments, and the bundled configs; returns the exit code."""
    registry = runs.extended(_registry(), imports)
    known = [*registry, _CONFIGS]
    if kind is not None and kind not in known:
        raise ConfigError("list", f"there is no kind {kind!r}{suggest(kind, known)} ({', '.join(known)})")
    found = {
        key: _configs() if key == _CONFIGS else {n: runs.describe(cls) for n, cls in registry[key].every().items()}
        for key in (known if kind is None else [kind])
    }
    if as_json:
        print_json(
            {
                key: {name: {"arguments": arguments, "about": about} for name, (arguments, about) in names.items()}
                for key, names in found.items()
            }
        )
        return FINE
    console = Console()
    for key, names in found.items():
        table = Table(box=None, title=key, title_justify="left", pad_edge=False)
        table.add_column("name", no_wrap=True)
        alone = not any(arguments for arguments, about in names.values())  # configs take none
        for column in ("about",) if alone else ("arguments", "about"):
            table.add_column(column)
        for name, cells in names.items():
            table.add_row(name, *cells[alone:])
        console.print(table, "", markup=False)
    return FINE


_CONFIGS = "configs"


def _configs() -> dict[str, tuple[str, str]]:
    """The bundled configs by the name that commands take, with their titles."""
    names = {f"{BUNDLED}{name.removesuffix('.toml')}" for name in runs.bundled_configs()}
    return {name: ("", str(runs.read_config(name).tables.get("title", ""))) for name in sorted(names)}


def _registry() -> Registry:
    """The kinds of all sciences; a kind that several have, such as solvers, is shown once with the names of all."""
    out: dict[str, Kind] = {}
    for name in runs.sciences():
        for key, kind in runs.task_named(name).kinds().items():
            known = out.get(key, kind)
            out[key] = Kind(
                known.noun,
                tuple(dict.fromkeys((*known.base, *kind.base))),
                {**kind.classes, **known.classes},
                {**kind.libraries, **known.libraries},
            )
    return out
