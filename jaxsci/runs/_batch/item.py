"""What a worker does with one item of a batch: run its config, and put the result into place as one sealed folder.

An order is plain values and paths, and so is the answer: results go by way of the disk, whole or not at all. The seal
names every file of the folder with its digest, and what the numbers were made of, so that a batch that goes on later
knows what is damaged and what has changed. `order` of the batch makes orders; workers of every kind call `carry_out`.
"""

import dataclasses
import hashlib
import json
import os
import shutil
import socket
import time
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ...parallel import give_back_programs, read_framed, write_framed
from .. import _figures
from .._config import BUNDLED, bundled
from .._errors import ConfigError, StructureError
from .._files import write_whole
from .._interactive import interactive_figures
from .._output import now, write_results
from .._records import counts, record_of, slugs, verdicts
from .._run import Loaded, load
from .._session import prepare, versions
from .._task import NOT_RUN, REFUSED, AbstractOutcome, Untried, Words

SEAL = "item.jsci"


@dataclasses.dataclass(frozen=True)
class Order:
    """What a worker is told of an item.

    `folder`: where results of items go. `draw`: True where there is to be a figure though nothing failed.
    `interactive`: True where there are to be figures to zoom into as well.
    """

    item: str
    config: str
    settings: tuple[str, ...]
    folder: str
    imports: tuple[str, ...] = ()
    device: str = "auto"
    allow_outside: bool = False
    draw: bool = True
    interactive: bool = False


@dataclasses.dataclass(frozen=True)
class Named:
    """A member of which no more than a name is known, because it could not be loaded or has no result."""

    name: str
    source: str = ""
    what: str = ""


@dataclasses.dataclass(frozen=True)
class Result:
    """A sealed result: its records, what they were made of, the device, seconds by what they went into, notes."""

    records: list[dict[str, Any]]
    device: dict[str, Any]
    made_of: dict[str, Any]
    seconds: dict[str, float]
    notes: list[str]
    files: dict[str, str]

    @property
    def success(self) -> bool:
        """True where all members went well."""
        return all(record["success"] for record in self.records)


def carry_out(order: Mapping[str, Any]) -> None:
    """Run an item and put its result into place; nothing is done where there is one already.

    **Arguments:** `order`: the fields of an `Order`.

    **Raises:** what the science raises beside `ConfigError`, which is a result.
    """
    told = Order(**order)
    place = Path(told.folder) / told.item
    if place.exists():  # the answer of a worker that was believed dead came after all
        return
    aside = Path(told.folder) / f".{told.item}~{socket.gethostname()}-{os.getpid()}.tmp"
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    try:
        make(told, aside)
        put_into_place(aside, place)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    give_back_programs()


def put_into_place(aside: Path, place: Path) -> None:
    """Rename a finished folder; where another worker was first, its result stands."""
    try:
        aside.rename(place)
    except OSError:
        if not place.exists():
            raise


def begun(folder: Path, item: str) -> list[Path]:
    """The traces of workers that began an item and did not end it."""
    return [path for path in folder.glob(".*.tmp") if path.name[1:].startswith(f"{item}~")]


def make(order: Order, folder: Path) -> None:
    """Run an item and write its sealed result into a folder that is there."""
    began = time.perf_counter()
    used = prepare(order.device)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        loaded, outcomes = _load(order)
        ready = time.perf_counter()
        if loaded is not None:
            outcomes = _run(loaded, beside=not order.imports)
    done = time.perf_counter()
    words = Words() if loaded is None else loaded.task.words
    records = [record_of(outcome, words) for outcome in outcomes]
    made_of: dict[str, Any] = {}
    if loaded is not None:
        made_of = ingredients(order) | {"data": _data(loaded)}
        document = {
            "title": loaded.job.title,
            "description": loaded.job.description,
            "created": now().isoformat(timespec="seconds"),
            "complete": True,
            "seconds": done - began,
            "counts": counts(records, loaded.task),
            "verdicts": verdicts(records),
            "config_file": str(loaded.config.path.resolve()),
            "config": loaded.config.tables,
            "versions": versions(),
            "device": used,
            "choices": [loaded.count],
            "members": records,
        }
        write_results(folder, document, outcomes, loaded.task)
        _draw(outcomes, folder, order)
    notes = [str(w.message) for w in caught if not issubclass(w.category, DeprecationWarning)]
    header = {
        "item": order.item,
        "device": used,
        "made_of": made_of,
        "files": {path.relative_to(folder).as_posix(): _digest(path) for path in _files(folder)},
        "notes": list(dict.fromkeys(notes)),
        "seconds": {"load": ready - began, "run": done - ready},
    }
    write_framed(folder / SEAL, json.dumps(records, default=_plain).encode(), header)


def _load(order: Order) -> tuple[Loaded | None, list[AbstractOutcome]]:
    """The config with its job, or why there is none: bad input is a result, which need not be tried again."""
    try:
        imports = [Path(path) for path in order.imports]
        return load(order.config, imports, order.settings, order.allow_outside), []
    except (ConfigError, OSError) as error:
        return None, [Untried(Named(order.item), REFUSED, str(error))]


def _run(loaded: Loaded, beside: bool) -> list[AbstractOutcome]:
    members = loaded.job.members
    outcomes: list[AbstractOutcome] = [Untried(member, NOT_RUN, "The task left it out.") for member in members]
    try:
        for places, done in loaded.task.run(members, lambda count: None, beside):
            for place, outcome in zip(places, done, strict=True):
                outcomes[place] = outcome
    except ConfigError as error:
        return [Untried(member, REFUSED, str(error)) for member in members]
    return outcomes


def _draw(outcomes: Sequence[AbstractOutcome], folder: Path, order: Order) -> None:
    """Figures of those members that a report would show: all of a few items, those that failed of many."""
    for slug, outcome in zip(slugs([outcome.member.name for outcome in outcomes]), outcomes, strict=True):
        if isinstance(outcome, Untried) or not (order.draw or not outcome.success):
            continue
        svg = _figures.svg(outcome.draw, slug) if _figures.can_draw() else None
        if svg is not None:
            write_whole(folder / "figures" / f"{slug}.svg", svg)
        if order.interactive and (drawn := interactive_figures(outcome.panels())):
            write_whole(folder / "interactive" / f"{slug}.json", drawn)


def _plain(value: object) -> Any:
    """What JSON has no word for: NumPy's numbers as Python's, all else as text."""
    return value.item() if isinstance(value, np.generic) else str(value)


def ingredients(order: Order) -> dict[str, Any]:
    """What a result is made of beside data: texts and digests by what they are called when one of them has changed."""
    config = bundled(order.config, "") if order.config.startswith(BUNDLED) else Path(order.config)
    known = {name: version for name, version in versions().items() if name in ("jaxsci", "jax", "jaxlib")}
    files = {"the config": _digest(config), **{f"--import {path}": _digest(Path(path)) for path in order.imports}}
    return {**known, **files, "the settings": sorted(order.settings)}


def _data(loaded: Loaded) -> dict[str, Any]:
    """[size, time of the last change, digest] of each file that the config named and that is not bundled."""
    files = (path for name, path in loaded.config.resolved.items() if not name.startswith(BUNDLED))
    return {str(path): _stamp(path) for path in files}


def _stamp(path: Path) -> list[Any]:
    status = path.stat()
    return [status.st_size, status.st_mtime_ns, _digest(path)]


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file() and path.name != SEAL)


def changes(order: Order, result: Result) -> list[str]:
    """Name what a result was made of and that is not as it was."""
    stands = ingredients(order)
    made_of = dict(result.made_of)
    data = made_of.pop("data")
    changed = [name for name in {**made_of, **stands} if made_of.get(name) != stands.get(name)]
    return changed + [path for path, stamp in data.items() if not _same(Path(path), stamp)]


def _same(path: Path, stamp: Sequence[Any]) -> bool:
    """Size and time tell quickly that a file is the same; that it is another only its digest tells."""
    if not path.is_file():
        return False
    status = path.stat()
    return [status.st_size, status.st_mtime_ns] == stamp[:2] or _digest(path) == stamp[2]


def read_result(folder: Path) -> Result:
    """Read a sealed result.

    **Raises:** `ValueError` where the seal is missing or not as it was written.
    """
    try:
        header, payload = read_framed(folder / SEAL)
    except FileNotFoundError as error:
        raise ValueError(f"{folder / SEAL} is missing") from error
    return Result(
        json.loads(payload), header["device"], header["made_of"], header["seconds"], header["notes"], header["files"]
    )


def damage(folder: Path, result: Result) -> str:
    """Name the first file of a result that is not as it was written; empty where all are."""
    for name, digest in result.files.items():
        path = folder / name
        if not path.is_file():
            return f"{path} is missing"
        if _digest(path) != digest:
            return f"{path} is damaged"
    return ""


def foresee(order: Mapping[str, Any]) -> tuple[str, list[str] | None]:
    """Load an item without running it: what it names and is not there, if anything, and the files that it names.

    There are no files where it cannot be loaded: data that make no sense are no fault of the manifest.
    """
    told = Order(**order)
    prepare("cpu")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            loaded = load(told.config, [Path(path) for path in told.imports], told.settings, told.allow_outside)
        except StructureError as error:
            return str(error), None
        except (ConfigError, OSError):
            return "", None
    return "", list(loaded.config.resolved)
