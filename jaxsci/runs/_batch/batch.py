"""Many independent items, each a config with settings of its own: checked, handed to workers, told in one report.

Each item is a run of its own, with a sealed folder in `items/`; so whatever happens to a worker, a machine or the
batch itself, what is done is done, and the rest can be done later. `jaxsci batch` calls `batch`; workers are in
`cluster` and `together`, what they do in `item`.
"""

import concurrent.futures
import contextlib
import dataclasses
import multiprocessing
import shutil
import signal
import time
from collections.abc import Generator, Iterator, Mapping, Sequence, Set
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

import jax

from ...parallel import InUseError, Lock
from .._bad_input import BAD_INPUT
from .._batch_report import histogram_columns, worth_a_look
from .._config import Config, setting_value
from .._errors import ConfigError
from .._figures import can_draw, draw_histograms, inline
from .._files import write_whole
from .._interactive import need_plotly
from .._output import Log, draw_to, now, output_folder, write_pages
from .._records import as_csv, as_json, counts, plural, record_of, slugs, verdicts
from .._report import MOST_DETAILS, NO_FIGURES, Content
from .._run import Ran, Unwatched, Watch, exit_code
from .._sciences import task_named
from .._session import versions
from .._task import GIVEN_UP, NOT_RUN, AbstractTask, Untried
from . import cluster, together
from .item import Named, Order, Result, changes, damage, foresee, read_result
from .manifest import Item, read_manifest

SPMD = "spmd"
"""The executor of processes that were started together."""

_KINDS, _TRIED = 20, 3
"""So many kinds of item are loaded before anything runs, and so many of a kind until one can be loaded."""

_NAMED = 5  # of things that are wrong, in one message


@dataclasses.dataclass(frozen=True)
class Shared:
    """What all items of a batch have in common: imported files, the device, whether files may lie elsewhere.

    `interactive`: True where interactive.html is to be written too.
    """

    imports: tuple[Path, ...] = ()
    device: str = "auto"
    allow_outside: bool = False
    interactive: bool = False


def batch(
    manifest: Path,
    out: Path | None = None,
    workers: cluster.Workers = cluster.Workers(),
    shared: Shared = Shared(),
    resume: bool = False,
    retries: int = 1,
    watch: Watch = Unwatched(),
) -> Ran:
    """Run all items of a manifest and write the output folder.

    **Arguments:**

    - `out`: the folder, by default `runs/<manifest name>-<UTC time>`. `workers`: who works on the items.
    - `resume`: go on in `out`: what is missing, failed or damaged is done, all else is kept.
    - `retries`: how often more an item is tried that raised or killed its worker.
    - `watch`: is told how many items are done.

    **Raises:** `ConfigError` before anything runs: for a manifest that is wrong, a folder that another batch writes to
    or has written to, and for results whose manifest, config or data are not what they were.
    """
    if workers.executor != SPMD:
        workers.check()
        return _batch(manifest, out, workers, shared, resume, retries, watch)
    try:
        ran = _batch(manifest, out, workers, shared, resume, retries, watch)
    except (ConfigError, OSError):
        together.dismiss(BAD_INPUT)
        raise
    together.dismiss(ran.code)
    return ran


def _batch(
    manifest: Path,
    out: Path | None,
    workers: cluster.Workers,
    shared: Shared,
    resume: bool,
    retries: int,
    watch: Watch,
) -> Ran:
    began = time.perf_counter()
    if retries < 0:
        raise ConfigError("--retries", f"should be 0 or more, but it is {retries}")
    if resume and out is None:
        raise ConfigError("--resume", "says to go on in a folder: name it by --out")
    if shared.interactive:
        need_plotly()
    items = read_manifest(manifest, shared.allow_outside)
    folder = output_folder(out, manifest)
    with _locked(folder):
        orders = [_order(item, k, items, folder, shared) for k, item in enumerate(items)]
        if not resume and (folder / "items").exists():
            raise ConfigError("--out", f"{folder} has items of an earlier batch: --resume goes on; or choose another")
        kept, notes = _kept(orders, folder / "items")
        waiting = [order for order in orders if order.item not in kept]
        _foresee(manifest, items, waiting)
        for order in waiting:  # a result that does not stand makes room for another
            if (fallen := Path(order.folder) / order.item).exists():
                shutil.rmtree(fallen)
        log = Log(folder / "log.txt")
        log.lines += log.path.read_text().splitlines() if log.path.exists() else []
        log.say(f"manifest {manifest.resolve()}, {plural(len(items), 'item')}, {len(kept)} of them kept", *notes)
        given_up: dict[str, str] = {}
        report = watch.counting(len(waiting), "items")
        ended = _ended(waiting, workers, retries, log)
        with _interruptible(workers, log), contextlib.closing(ended):
            for item, why in ended:
                report(1)
                if why:
                    given_up[item] = why
        for trace in (folder / "items").glob(".*.tmp"):
            shutil.rmtree(trace, ignore_errors=True)
        who = f"executor {workers.executor}, {plural(workers.count, 'worker')}"
        about = _About(manifest, began, (who, f"tries of an item: {retries + 1}"), tuple(notes), shared.interactive)
        return _reported(about, items, orders, given_up, log)


def _order(item: Item, place: int, items: Sequence[Item], folder: Path, shared: Shared) -> Order:
    return Order(
        item.name,
        item.config,
        item.settings,
        str((folder / "items").resolve()),
        tuple(str(path.resolve()) for path in shared.imports),
        shared.device,
        shared.allow_outside,
        draw=len(items) <= MOST_DETAILS or place < _NAMED,
        interactive=shared.interactive,
    )


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """No two batches or runs write to one folder."""
    try:
        lock = Lock(folder / ".lock", str(folder))
    except InUseError as error:
        raise ConfigError("--out", str(error)) from error
    with lock:
        yield


def _ended(
    orders: Sequence[Order], workers: cluster.Workers, retries: int, log: Log
) -> Generator[tuple[str, str], None, None]:
    """The names of items as they are done with, and why they were given up."""
    if not orders:
        return
    Path(orders[0].folder).mkdir(exist_ok=True)
    if workers.executor == SPMD:
        yield from together.lead(orders, retries, log)
    else:
        cache: str | None = jax.config.jax_compilation_cache_dir  # type: ignore[attr-defined]
        yield from cluster.work(orders, workers, retries, cache, log)


@contextlib.contextmanager
def _interruptible(workers: cluster.Workers, log: Log) -> Iterator[None]:
    """Ctrl-C ends it, and what is done is told; of processes that were started together it ends all at once."""
    before = signal.getsignal(signal.SIGINT)
    try:
        yield
    except KeyboardInterrupt:
        if workers.executor == SPMD:
            raise
        log.say("stopped by the user; what was finished is kept")
    finally:
        if signal.getsignal(signal.SIGINT) is not before:
            signal.signal(signal.SIGINT, before)


def _kept(orders: Sequence[Order], folder: Path) -> tuple[set[str], list[str]]:
    """The items whose results stand, and what to say of damaged ones.

    **Raises:** `ConfigError` where a result that would stand is not of what the manifest now says.
    """
    kept: set[str] = set()
    notes, changed = [], []
    for order in orders:
        place = folder / order.item
        if not place.exists():
            continue
        try:
            result = read_result(place)
            why = damage(place, result)
        except ValueError as error:
            why = str(error)
        if why:
            notes.append(f"{order.item}: {why}: it is run again")
        if why or not result.success:
            continue
        kept.add(order.item)
        changed += [f"{order.item}: {what} is not what it was" for what in changes(order, result)]
    names = {order.item for order in orders}
    changed += [
        f"{place.name}: the manifest no longer has it"
        for place in (sorted(folder.iterdir()) if folder.exists() else ())
        if place.name not in names and not place.name.startswith(".")
    ]
    if changed:
        more = f", and {len(changed) - _NAMED} more" if len(changed) > _NAMED else ""
        raise ConfigError(
            "--resume",
            f"there are results of something else ({'; '.join(changed[:_NAMED])}{more}). Remove their folders in "
            f"{folder} to run them again, or choose another --out",
        )
    return kept, notes


def _foresee(manifest: Path, items: Sequence[Item], orders: Sequence[Order]) -> None:
    """Load an item of each kind in a process of its own, and find the files that all others name.

    **Raises:** `ConfigError` naming the row.
    """
    told = {order.item: order for order in orders}
    kinds: dict[Any, list[Item]] = {}
    for item in items:
        if item.name in told:
            kinds.setdefault(item.kind, []).append(item)
    pool = _process()
    try:
        for alike in list(kinds.values())[:_KINDS]:
            for item in alike[:_TRIED]:
                future = pool.submit(foresee, dataclasses.asdict(told[item.name]))
                if (error := future.exception()) is not None:
                    # what raises, or kills whoever loads it, is for workers to find out
                    pool = _process() if isinstance(error, BrokenProcessPool) else pool
                    continue
                wrong, files = future.result()
                if wrong:
                    raise ConfigError(manifest.name, f"{item.row}, item {item.name}: {wrong}")
                if files is not None:
                    _find(manifest, alike, {key for key, value in _given(item).items() if value in files}, told)
                    break
    finally:
        pool.shutdown()


def _process() -> concurrent.futures.ProcessPoolExecutor:
    return concurrent.futures.ProcessPoolExecutor(1, multiprocessing.get_context("spawn"))


def _given(item: Item) -> dict[str, Any]:
    """The settings of an item by their keys."""
    return {key: setting_value(text) for key, _, text in (setting.partition("=") for setting in item.settings)}


def _find(manifest: Path, alike: Sequence[Item], keys: Set[str], orders: Mapping[str, Order]) -> None:
    """Find the files that items name by some of their keys."""
    for item in alike:
        order = orders[item.name]
        given = _given(item)
        for key in keys:
            try:
                Config(Path(order.config), {}, order.allow_outside).resolve(str(given[key]), key)
            except ConfigError as error:
                raise ConfigError(manifest.name, f"{item.row}, item {item.name}: {error}") from error


@dataclasses.dataclass(frozen=True)
class _About:
    """What the report says of the batch itself."""

    manifest: Path
    began: float
    choices: tuple[str, ...]
    notes: tuple[str, ...]
    interactive: bool


@dataclasses.dataclass(frozen=True)
class _Left:
    """What a worker has left of a member in the folder of its item: files that may be there, called by `slug`."""

    place: Path
    slug: str = ""

    @property
    def figure(self) -> Path:
        """Its figure."""
        return self.place / "figures" / f"{self.slug}.svg"

    @property
    def interactive(self) -> Path:
        """The figures to zoom into."""
        return self.place / "interactive" / f"{self.slug}.json"


def _reported(
    about: _About, items: Sequence[Item], orders: Sequence[Order], given_up: Mapping[str, str], log: Log
) -> Ran:
    """One report over all items, from the records that lie in their folders."""
    task, folder = task_named(items[0].science), log.path.parent
    records: list[dict[str, Any]] = []
    left: list[_Left] = []
    device: dict[str, Any] = {}
    said: list[str] = []
    for order in orders:
        found, place = _result(order, given_up.get(order.item, "")), Path(order.folder) / order.item
        if isinstance(found, Untried):
            records.append({**record_of(found, task.words), "item": order.item})
            left.append(_Left(place))
            continue
        device = device or found.device
        said += [f"{order.item}: {note}" for note in found.notes]
        names = [str(record["name"]) for record in found.records]
        for slug, record in zip(slugs(names), found.records, strict=True):
            name = order.item if len(names) == 1 else f"{order.item}: {record['name']}"
            saved, beside = record.get("solution"), record.get("files", [])
            base, more = f"items/{order.item}", dict[str, Any]()
            more |= {} if saved is None else {"solution": {**saved, "file": f"{base}/{saved['file']}"}}
            more |= {"files": [f"{base}/{path}" for path in beside]} if beside else {}
            records.append({**record, **more, "name": name, "item": order.item})
            left.append(_Left(place, slug))
    document: dict[str, Any] = {
        "title": about.manifest.stem,
        "description": f"{plural(len(orders), 'item')} of {about.manifest.name}.",
        "created": now().isoformat(timespec="seconds"),
        "complete": all(record["result"] != NOT_RUN for record in records),
        "seconds": time.perf_counter() - about.began,
        "counts": counts(records, task),
        "verdicts": verdicts(records),
        "config_file": str(about.manifest.resolve()),
        "config": {
            item.name: {"config": item.config, "settings": list(item.settings)} for item in items[:MOST_DETAILS]
        },
        "versions": versions(),
        "device": device or {"platform": orders[0].device, "kind": "none was used", "count": 0},
        "choices": about.choices,
        "members": records,
    }
    write_whole(folder / "results.csv", as_csv(records, task.columns))
    write_whole(folder / "results.json", as_json(document))
    _write_report(folder, document, task, left, about)
    log.say(*said, f"report written after {time.perf_counter() - about.began:.1f} s")
    return Ran(task, records, document["counts"], folder / "report.html", exit_code(records))


def _result(order: Order, why: str) -> Result | Untried:
    """What an item has left, or why there is nothing."""
    place = Path(order.folder) / order.item
    if why or not place.exists():
        result = (GIVEN_UP, why) if why else (NOT_RUN, "The batch was stopped before this item.")
        return Untried(Named(order.item), *result)
    try:
        return read_result(place)
    except ValueError as error:
        return Untried(Named(order.item), GIVEN_UP, f"{error}: run it again by --resume")


def _write_report(
    folder: Path, document: dict[str, Any], task: AbstractTask[Any, Any], left: Sequence[_Left], about: _About
) -> None:
    """The page, with the figures that workers have drawn of the members that it shows."""
    records = document["members"]
    anchors, chosen = slugs([record["name"] for record in records]), worth_a_look(records, task)
    figures = {
        anchors[place]: inline(file.read_text(), file.relative_to(folder.resolve()).as_posix())
        for place in chosen
        if (file := left[place].figure).is_file()
    }
    zoomed = {anchors[place]: file.read_text() for place in chosen if (file := left[place].interactive).is_file()}
    if len(records) > MOST_DETAILS and can_draw():
        for name, columns in histogram_columns(records, task).items():
            figures[name] = draw_to(folder, name, draw_histograms(columns, name))
    said = [*about.notes, *([] if can_draw() else [NO_FIGURES])]
    write_pages(folder, Content(document, task, anchors, figures, said, {}), zoomed if about.interactive else None)
