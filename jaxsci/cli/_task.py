"""What the sciences do differently in a run: one `Task` each."""

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..datasets import Dataset
from ..fitting import make_plan
from ._build import Job, Member, build_job
from ._check import Refusal, refusals
from ._config import Config, shown, take
from ._errors import ConfigError
from ._figures import draw
from ._registry import Registry
from ._results import record
from ._run import Outcome, fit_members, group

CURVEFIT, TIMING, COMPSEP = "curvefit", "timing", "compsep"


@dataclasses.dataclass(frozen=True)
class Task:
    """How a science builds, fits, records and draws what a config describes.

    - `build`: (config, registry) -> a job, checked.
    - `batches`: members -> how many there are in each batch.
    - `describe`: member -> (name, model, rows, free parameters), as text.
    - `refusals`: members -> {place: why its fit would end before its first step}.
    - `unfitted`: member -> the outcome of one that was not reached.
    - `fit`: (members, report, beside) -> (places, outcomes), as they are done.
    - `record`: outcome -> its numbers. `draw`: (outcome, salt) -> its figure, SVG.
    - `pictures`: outcomes -> {title: a function that draws it, given a salt}, of the whole run.
    - `files`: outcomes -> {path in the output folder: text, or what writes there}, beside what every run writes.
    """

    build: Callable[[Config, Registry], Job]
    batches: Callable[[Sequence[Any]], list[int]]
    describe: Callable[[Any], tuple[str, str, str, str]]
    refusals: Callable[[Sequence[Any]], Mapping[int, Refusal]]
    unfitted: Callable[[Any], Any]
    fit: Callable[[Sequence[Any], Callable[[int], None], bool], Iterable[tuple[list[int], list[Any]]]]
    record: Callable[[Any], dict[str, Any]]
    draw: Callable[[Any, str], str]
    pictures: Callable[[Sequence[Any]], Mapping[str, Callable[[str], str]]] = lambda outcomes: {}
    files: Callable[[Sequence[Any]], Mapping[str, str | Callable[[Path], object]]] = lambda outcomes: {}


def task_of(config: Config) -> Task:
    """The task that a config names; curve fitting by default.

    **Raises:** `ConfigError` for any other name.
    """
    name = take(config.tables, "task", str, "", CURVEFIT)
    if name == TIMING:
        from ._timing import TASK

        return TASK
    if name == COMPSEP:
        from ._compsep import TASK as SKY

        return SKY
    if name != CURVEFIT:
        raise ConfigError("task", f'should be "{CURVEFIT}", "{TIMING}" or "{COMPSEP}", but it is {shown(name)}')
    # looked up when they are called
    return Task(
        build=build_job,
        batches=lambda members: [len(places) for places in group(members)],
        describe=_describe,
        refusals=refusals,
        unfitted=lambda member: Outcome(member, None),
        fit=lambda members, report, beside: fit_members(members, report, beside),
        record=record,
        draw=draw,
    )


def _describe(member: Member) -> tuple[str, str, str, str]:
    names = make_plan(member.model, member.data.noise, member.settings.free).names
    rows = str(int(member.data.mask.sum())) if isinstance(member.data, Dataset) else "streamed"
    return member.name, type(member.model).__name__, rows, " ".join(names)
