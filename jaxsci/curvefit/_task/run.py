"""Fits the members of a job: like ones by `fit_batch`, unlike ones beside each other.

A config may ask for one fit or for ten thousand. Members that share settings, structure and dtypes share programs; a
few of them are fitted one by one, because the two programs of a batch take longer to compile than that. The task calls
`fit_members`.
"""

import dataclasses
import functools
import os
import threading
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import Any

import jax
import jax.numpy as jnp
import jax.tree_util as jtu
import numpy as np

from ...core import AbstractModel
from ...datasets import AbstractDataset, Dataset, bucket
from ...fitting import Solution, explain_result, fit, fit_batch, lane_count, make_plan
from ...runs import CLASS_ERRORS, REFUSED, AbstractOutcome, ConfigError, Image, Report, Scatter, Untried, first_line
from ...runs.fits import item, result_of
from .._compile import compile_quickly
from .build import Member, Settings
from .figures import draw, panels
from .record import record

_IN_A_CONFIG = {
    "nonfinite_data": ("In a config, omit_nonfinite = true masks them; rows count from 0.",),
    "bad_noise": ("Correct those rows of the file, which count from 0, or leave them out.",),
    "nonfinite_start": ("In a config, `start` and [fit.bounds] say so.",),
    "max_steps_reached": ("In a config, fit.max_steps and `start` say so.",),
}
"""How a config does what the library advises."""

_DERIVED = ("reduced_chi2", "aic", "bic")

# What is finished stays finished when a run is stopped, and the log grows meanwhile.
_AT_ONCE = 2048

# The two programs of a batch compile for longer than so many fits take one by one.
_FEW = 8

# Of more rows than these, running a program that was not optimised takes longer than optimising it.
_FEW_ROWS = 20_000


@dataclasses.dataclass(frozen=True)
class Outcome(AbstractOutcome):
    """How the fit of one member ended. `derived`: reduced chi2, AIC and BIC."""

    member: Member
    solution: Solution
    derived: Mapping[str, float] = dataclasses.field(default_factory=dict)

    @property
    def code(self) -> str:
        """The name of the result in `jaxsci.RESULTS`."""
        return result_of(int(self.solution.result._value))

    @functools.cached_property
    def message(self) -> str:
        """Why the fit failed, naming array and row where that is known; empty after success."""
        return "" if self.success else explained(int(self.solution.result._value), self.member)

    @functools.cached_property
    def remarks(self) -> tuple[str, ...]:
        """What to look at though the fit converged."""
        return self.solution.remarks if self.success else ()

    @property
    def told(self) -> str:
        """How it ended and after how many steps."""
        return f"{self.code} after {int(self.solution.num_steps)} steps"

    @property
    def saved(self) -> Solution:
        """The solution, for `jaxsci.Solution.load`."""
        return self.solution

    def record(self) -> dict[str, Any]:
        """Its numbers and parameters, and how they compare with known answers."""
        return record(self.member, self.solution, self.derived)

    def draw(self) -> Any:
        """Data with fit, residuals and correlation; of an image, itself beside the model."""
        return draw(self.member, self.solution)

    def panels(self) -> Sequence[Scatter | Image]:
        """Data with fit, and residuals; of an image, itself beside the model."""
        return panels(self.member, self.solution)


def explained(value: int, member: Member) -> str:
    """Say why a fit ended so, naming array and row where that is known. `value`: of a `jaxsci.RESULTS`."""
    try:
        explain_result(item(value), *member.on_device(), None)
    except (RuntimeError, ValueError) as error:
        return " ".join([str(error), *_IN_A_CONFIG.get(result_of(value), ())])


def group(members: Sequence[Member]) -> list[list[int]]:
    """Find the places of the members that `fit_batch` takes together: equal settings, structure and dtypes."""
    groups: dict[Any, list[int]] = {}
    for place, member in enumerate(members):
        alone = () if _batched(member) else (place,)
        groups.setdefault((member.kind, alone), []).append(place)
    return list(groups.values())


def _batched(member: Member) -> bool:
    """`fit_batch` holds data in memory."""
    return isinstance(member.data, Dataset)


def fit_members(
    members: Sequence[Member], report: Report = lambda count: None, beside: bool = True
) -> Iterator[tuple[list[int], list[Outcome | Untried]]]:
    """Fit all members, and yield (places, outcomes) as they are done.

    **Arguments:**

    - `report`: is told how many more fits are done, from any thread.
    - `beside`: compile and run unlike members in threads beside each other: XLA lets go of the interpreter.

    **Raises:** `ConfigError` where a model cannot be traced.
    """
    jobs = [group[at : at + _AT_ONCE] for group in group(members) for at in range(0, len(group), _AT_ONCE)]
    stop = threading.Event()

    def work(places: list[int]) -> list[Outcome | Untried]:
        return _fit_like([members[place] for place in places], report, stop)

    pool = ThreadPoolExecutor(max_workers=(os.cpu_count() or 1) if beside else 1)
    try:
        waiting = {pool.submit(work, places): places for places in jobs}
        for done in as_completed(waiting):
            yield waiting[done], done.result()
    finally:
        stop.set()
        pool.shutdown(wait=False, cancel_futures=True)


class _Stopped(Exception):
    """The run was stopped while this batch was under way."""


def _fit_like(members: Sequence[Member], report: Report, stop: threading.Event) -> list[Outcome | Untried]:
    before = 0

    def progress(done: int, total: int) -> None:
        nonlocal before
        if stop.is_set():
            raise _Stopped
        report(done - before)
        before = done

    try:
        if _batched(members[0]) and len(members) > _FEW:
            return _fit_many(members, progress)
        return _fit_few(members, progress)
    except CLASS_ERRORS as error:
        raise ConfigError(members[0].name, first_line(error)) from error


def _fit_few(members: Sequence[Member], progress: Callable[[int, int], None]) -> list[Outcome | Untried]:
    """Like members one by one, through one program for each length."""
    outcomes: list[Outcome | Untried] = []
    for k, member in enumerate(members, 1):
        model, data = member.on_device()
        few = isinstance(data, Dataset) and data.mask.shape[0] <= _FEW_ROWS
        run = _program(_like(member, model, data)) if few else _fit(member.settings)
        solution = jax.device_get(run(model, data))
        outcomes += _outcomes([member], [0], jtu.tree_map(lambda leaf: leaf[None, ...], solution))
        progress(k, len(members))
    return outcomes


@dataclasses.dataclass(frozen=True)
class _Like:
    """Model, data and settings that stand for all of the same `key`: those whose fits are one program.

    Numbers in settings, such as bounds, are constants of the program; those of model and data are its arguments.
    """

    key: Hashable
    model: AbstractModel = dataclasses.field(compare=False)
    data: AbstractDataset = dataclasses.field(compare=False)
    settings: Settings = dataclasses.field(compare=False)


def _like(member: Member, model: AbstractModel, data: AbstractDataset) -> _Like:
    chosen, how = jtu.tree_flatten(member.settings.arguments())
    constants = tuple(x if isinstance(x, str) else (np.asarray(x).dtype, np.asarray(x).tobytes()) for x in chosen)
    leaves, structure = jtu.tree_flatten((model, data))
    shapes = tuple((jnp.shape(leaf), jnp.result_type(leaf)) for leaf in leaves)
    return _Like((how, constants, structure, shapes), model, data, member.settings)


@functools.lru_cache(maxsize=256)
def _program(like: _Like) -> Callable[[Any, Any], Solution]:
    """A fit of few rows, compiled without optimisation, and kept: a worker is given one config after the other."""
    return compile_quickly(_fit(like.settings), like.model, like.data)


def _fit(settings: Settings) -> Callable[[Any, Any], Solution]:
    def fit_one(model: AbstractModel, data: AbstractDataset) -> Solution:
        return fit(model, data, throw=False, **settings.arguments())

    return fit_one


def _fit_many(members: Sequence[Member], progress: Callable[[int, int], None]) -> list[Outcome | Untried]:
    batch = fit_batch(
        [member.model for member in members],
        [member.data for member in members],
        batch_size=_lanes(members),
        progress=progress,
        **members[0].settings.arguments(),
    )
    # a member without a solution is one that could not be tried
    outcomes: list[Outcome | Untried] = [Untried(m, REFUSED, batch.errors.get(i, "")) for i, m in enumerate(members)]
    for stacked, rows in zip(batch.groups, batch.members, strict=True):
        places = rows.tolist()
        for place, outcome in zip(places, _outcomes(members, places, stacked), strict=True):
            outcomes[place] = outcome
    return outcomes


def _outcomes(members: Sequence[Member], places: Sequence[int], stacked: Solution) -> list[Outcome]:
    """One Outcome for each member of a stacked Solution, with arrays of the host: they are only looked at."""
    stacked = jax.device_put(stacked)
    derived = {name: np.asarray(getattr(stacked, name)) for name in _DERIVED}
    host = jax.device_get(stacked)
    out = []
    for k, place in enumerate(places):
        solution = jtu.tree_map(lambda leaf, k=k: leaf[k, ...], host)
        out.append(Outcome(members[place], solution, {name: float(x[k]) for name, x in derived.items()}))
    return out


def _lanes(members: Sequence[Member]) -> int:
    """As many lanes as `fit_batch` would take, or fewer where the members do not fill them."""
    member = max(members, key=lambda m: m.data.mask.shape[0])
    free = make_plan(member.model, member.data.noise, member.settings.free).names
    most = lane_count(bucket(member.data.mask.shape[0]), len(free), "auto")
    return min(most, 1 << (len(members) - 1).bit_length())
