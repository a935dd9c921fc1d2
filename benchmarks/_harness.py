"""Rows, bars and timing: a peer is timed beside ours, in the same run, in alternating repeats."""

import contextlib
import dataclasses
import json
import platform
import time
from collections.abc import Callable, Iterator, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

_COMPILED = "/jax/core/compile/backend_compile_duration"
_SHORTEST = 5e-3  # seconds; faster calls are repeated within one reading of the clock
_SLOWER = 1.25  # against an older run, beyond the noise of a shared machine


@dataclasses.dataclass(frozen=True)
class Bar:
    """What a row must reach: `of` ("ratio" or "ours") at least, or at most, `limit`."""

    of: str
    limit: float
    least: bool

    def holds(self, row: "Row") -> bool:
        """Whether the row's number is there and on the right side; NaN never is."""
        value = getattr(row, self.of)
        if value is None:
            return False
        return value >= self.limit if self.least else value <= self.limit

    def __str__(self) -> str:
        unit = "x" if self.of == "ratio" else ""
        return f"{'>=' if self.least else '<='} {self.limit:g}{unit}"


def faster(times: float) -> Bar:
    """The peer's time is at least this many times ours."""
    return Bar("ratio", times, True)


def at_least(limit: float) -> Bar:
    """Our number is this or more."""
    return Bar("ours", limit, True)


def at_most(limit: float) -> Bar:
    """Our number is this or less."""
    return Bar("ours", limit, False)


@dataclasses.dataclass(frozen=True)
class Row:
    """One line of the table. `ours` and `peer` are in `unit`; `ratio` is peer / ours for times.

    `cold` is the first call (trace, compile, run) in CPU-s; `wall` the warm call by the clock on the
    wall, in `unit`; `compiles` counts programs at the first call, `again` those in all later calls.
    """

    name: str
    ours: float | None = None
    unit: str = ""
    peer: str = ""
    theirs: float | None = None
    n: int | None = None
    precision: str = "float64"
    cold: float | None = None
    wall: float | None = None
    compiles: int | None = None
    again: int = 0
    bar: Bar | None = None
    note: str = ""

    @property
    def ratio(self) -> float | None:
        """Peer over ours."""
        return None if self.ours is None or self.theirs is None else self.theirs / self.ours

    @property
    def holds(self) -> bool | None:
        """None where there is no bar, or the row was not run; recompiling in later calls never holds."""
        if self.bar is None or self.ours is None:
            return None
        return self.bar.holds(self) and self.again == 0

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return dataclasses.asdict(self) | {
            "bar": None if self.bar is None else str(self.bar),
            "ratio": self.ratio,
            "holds": self.holds,
        }


@dataclasses.dataclass(frozen=True)
class Case:
    """A function that yields rows, given `quick`. Slow ones are not run in a quick run."""

    name: str
    run: Callable[[bool], Iterator[Row]]
    slow: bool
    needs: str | None

    def rows(self, quick: bool) -> Iterator[Row]:
        """Its rows, or one that says why there are none."""
        if quick and self.slow:
            yield Row(self.name, note="not run: slow")
        elif self.needs is not None and not _installed(self.needs):
            yield Row(self.name, note=f"not run: needs {self.needs}")
        else:
            yield from self.run(quick)


Area = list[Case]


def case(area: Area, name: str, *, slow: bool = False, needs: str | None = None) -> Callable[..., Any]:
    """Declare a function `run(quick)` that yields the rows of an area. `needs`: a distribution's name."""

    def declare(run: Callable[[bool], Iterator[Row]]) -> Callable[[bool], Iterator[Row]]:
        area.append(Case(name, run, slow, needs))
        return run

    return declare


def _installed(distribution: str) -> bool:
    try:
        metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return False
    return True


@dataclasses.dataclass(frozen=True)
class Timing:
    """Seconds a call: the first one, and the fastest of the warm ones by CPU and by wall clock."""

    cold: float
    cpu: float
    wall: float
    compiles: int
    again: int
    value: Any


@contextlib.contextmanager
def counting_compiles() -> Iterator[list[str]]:
    """A list that grows by one with every program that XLA compiles inside the block."""
    from jax import monitoring

    seen: list[str] = []
    live = [True]

    def listen(event: str, duration: float, **kwargs: Any) -> None:
        if live and event == _COMPILED:
            seen.append(event)

    monitoring.register_event_duration_secs_listener(listen)
    try:
        yield seen
    finally:
        live.clear()  # listeners cannot be taken off one by one through the public interface


def race(runners: Mapping[str, Callable[[], Any]], *, repeats: int = 7, seconds: float = 4.0) -> dict[str, Timing]:
    """Time several functions side by side.

    Each is called once cold, then all in turn until `repeats` rounds or `seconds` are over (three
    rounds at least). Results are waited for. The fastest repeat of each counts: noise only adds.
    """
    import jax

    runs = {name: _Run(lambda run=run: jax.block_until_ready(run())) for name, run in runners.items()}
    start = time.perf_counter()
    for k in range(repeats):
        if k >= 3 and time.perf_counter() - start > seconds:
            break
        for run in runs.values():
            run.repeat()
    return {name: run.timing() for name, run in runs.items()}


class _Run:
    """One runner of a race: called once when made, then repeated."""

    def __init__(self, call: Callable[[], Any]):
        self.call, self.readings, self.again = call, [], 0
        with counting_compiles() as seen:
            cpu = time.process_time()
            self.value = call()
            self.cold = time.process_time() - cpu
        self.compiles = len(seen)
        with counting_compiles() as seen:
            wall = time.perf_counter()
            call()
            self.loops = max(1, round(_SHORTEST / max(time.perf_counter() - wall, 1e-7)))
        self.again += len(seen)

    def repeat(self) -> None:
        with counting_compiles() as seen:
            cpu, wall = time.process_time(), time.perf_counter()
            for _ in range(self.loops):
                self.call()
            self.readings.append((time.process_time() - cpu, time.perf_counter() - wall))
        self.again += len(seen)

    def timing(self) -> Timing:
        cpu, wall = (min(r[i] for r in self.readings) / self.loops for i in (0, 1))
        return Timing(self.cold, cpu, wall, self.compiles, self.again, self.value)


def timing_rows(
    name: str,
    times: Mapping[str, Timing],
    bars: Mapping[str, Bar | None],
    *,
    unit: str,
    n: int,
    share: Mapping[str, float] | None = None,
    **about: Any,
) -> Iterator[Row]:
    """A row for each peer of a race in which "ours" ran.

    **Arguments:** `unit`: "s", "ms" or "us"; `bars`: by peer; `share`: how many units of work each
    runner did (fits, say): its time is divided by that.
    """
    scale = {"s": 1, "ms": 1e3, "us": 1e6}[unit.split(" ")[0]]
    share = share or {}
    ours = times["ours"]
    mine = share.get("ours", 1)
    for peer in (p for p in times if p != "ours"):
        yield Row(
            name,
            ours.cpu * scale / mine,
            unit,
            peer,
            times[peer].cpu * scale / share.get(peer, 1),
            n,
            cold=ours.cold,
            wall=ours.wall * scale / mine,
            compiles=ours.compiles,
            again=ours.again,
            bar=bars.get(peer),
            **about,
        )


def machine() -> dict[str, Any]:
    """What the numbers were measured on."""
    packages = ("jax", "equinox", "optimistix", "numpy", "scipy", "lmfit", "nlsq")
    versions = {p: metadata.version(p) for p in packages if _installed(p)}
    return {"python": platform.python_version(), "machine": platform.machine(), **versions}


def write_json(path: Path, area: str, quick: bool, rows: list[Row], some: bool = False) -> None:
    """The rows of a run, for `--compare` and for records.

    `some`: these are some cases of the area, whose rows take the place of older ones in the file. What each was
    measured on stands beside each.
    """
    on = machine()
    kept: dict[tuple[str, str, str], dict[str, Any]] = {}
    if some and path.exists():
        kept = {(row["name"], row["peer"], row["precision"]): row for row in read_record(path)["rows"]}
    for row in rows:
        kept[row.name, row.peer, row.precision] = row.as_dict() | {"quick": quick, "machine": on}
    path.write_text(json.dumps({"area": area, "rows": list(kept.values())}, indent=1) + "\n")


def read_record(path: Path) -> dict[str, Any]:
    """What `write_json` has written."""
    record: dict[str, Any] = json.loads(path.read_text())
    return record


def read_json(path: Path) -> dict[tuple[str, str], dict[str, Any]]:
    """The rows of an older run by (name, peer).

    **Raises:** `ValueError` when the file is not a record of a run.
    """
    try:
        rows = json.loads(path.read_text())["rows"]
        return {(row["name"], row["peer"]): row for row in rows}
    except (OSError, json.JSONDecodeError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is not a record of an earlier run (written by --json): {error!r}") from None


def change(row: Row, old: Mapping[str, Any] | None) -> str:
    """How our number compares with an older run's: "new", or new / old, marked where it is worse."""
    if old is None or old.get("ours") is None:
        return "new"
    if row.ours is None:
        return "gone"
    factor = row.ours / old["ours"] if old["ours"] else (1.0 if row.ours == 0 else float("inf"))
    higher_is_better = row.bar is not None and row.bar.of == "ours" and row.bar.least
    worse = factor < 1 / _SLOWER if higher_is_better else factor > _SLOWER
    return f"{factor:.2f}" + (" WORSE" if worse else "")
