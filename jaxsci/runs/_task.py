"""What a science brings to a run: a task, which builds and carries out what a config describes, and its outcomes.

`jaxsci run` and `jaxsci check` know no science. They read a config, find the task that it names and ask it for members,
one for each result that there is to be; they let it run them, and write what its outcomes say into a folder, a page and
tables. So everything that a reader of the page sees of a science, its words, its columns, its numbers and its pictures,
comes from a subclass of the two classes here. `jaxsci.runs.fits` has both for sciences whose members are fits.
"""

import abc
import dataclasses
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Generic, Protocol, TypeVar, runtime_checkable

import numpy as np
from jaxtyping import Float, Shaped

from ._config import Config
from ._registry import Registry

SUCCESSFUL, REFUSED, NOT_RUN, GIVEN_UP = "successful", "refused", "not_run", "given_up"
"""Results that every science has: it went well; it could not be tried at all; the run was stopped before it; it raised
or ended its worker whenever a batch tried it."""

Record = Mapping[str, Any]
"""A member as `results.json` has it: its name and ending, and the numbers of `AbstractOutcome.record`."""

Report = Callable[[int], None]
"""Is told how many more members are done, from any thread."""


@runtime_checkable
class Member(Protocol):
    """What a task has for each result that a config asks for: anything with these names."""

    @property
    def name(self) -> str:
        """What tells it apart from the others of the job."""

    @property
    def source(self) -> str:
        """Where its data come from, such as a file's name; empty where there are none."""

    @property
    def what(self) -> str:
        """What is run, in a word or two: the name of a model."""


M = TypeVar("M", bound=Member)


@runtime_checkable
class Savable(Protocol):
    """What can be written to a file of its own."""

    def save(self, path: Path) -> None:
        """Write to a file."""


@dataclasses.dataclass(frozen=True)
class Words:
    """What a science calls what it does, as in "3 of 4 fits converged": the `noun`, and the word for what is `done`."""

    noun: str = "run"
    done: str = "finished"


@dataclasses.dataclass(frozen=True)
class Column:
    """A number (or a word) that members have in their records, and the tables that show it.

    - `key`: its name in the record. Members without it have an empty cell; where none has it there is no column.
    - `heading`, `form`: its heading in the report's table of all members, and how the number is written there. Without
      a heading it is not shown there.
    - `screen`, `screen_form`: the same for the terminal.
    - `batch`: also in the report of a large batch, which has room for a few.
    - `csv`: also in `results.csv`.
    - `watch`: members with the largest values are worth a look, and a large batch has a histogram of it.
    - `poor_below`: values below this are marked.
    """

    key: str
    heading: str = ""
    form: str = ""
    screen: str = ""
    screen_form: str = ""
    batch: bool = False
    csv: bool = False
    watch: bool = False
    poor_below: float | None = None


@dataclasses.dataclass(frozen=True)
class Tile:
    """A number at the top of the report: `have` out of `of`, in amber where it is less, or as `partly` says."""

    have: int
    of: int
    text: str
    partly: bool | None = None


@dataclasses.dataclass(frozen=True)
class Refusal:
    """Why a member would end before its first step: its `result`, as a run would record it, and the reason in words."""

    result: str
    message: str


@dataclasses.dataclass(frozen=True)
class Job(Generic[M]):
    """All that a config asks for, checked: a title and a description for the report, and the members."""

    title: str
    description: str
    members: tuple[M, ...]


@dataclasses.dataclass(frozen=True)
class Series:
    """Points of a `Scatter` that have a name in its legend; a line of the same name after them has their colour.

    - `x`, `y`: of each point; those that are not finite are not drawn. `std`: the standard errors of `y`.
    - `line`: True for a curve through them, as of a model.
    - `more`: what else is told of a point under the pointer, by name: a number or a text for each.
    """

    name: str
    x: Float[np.ndarray, " n"]
    y: Float[np.ndarray, " n"]
    std: Float[np.ndarray, " n"] | None = None
    line: bool = False
    more: Mapping[str, Shaped[np.ndarray, " n"]] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Scatter:
    """A panel of points and lines, to be zoomed into.

    `x`, `y`: what is along its axes, with units; panels with the same `x` are zoomed together. `logarithmic`: the axes
    that are, such as `"xy"`.
    """

    title: str
    x: str
    y: str
    series: tuple[Series, ...]
    logarithmic: str = ""


@dataclasses.dataclass(frozen=True)
class Image:
    """A panel with a number in each cell of a grid, to be zoomed into; NaN is left empty.

    - `values`: rows from top to bottom. `name`: what they are, with their unit.
    - `columns`, `rows`: where the middles of the cells are, rising or falling.
    - `x`, `y`: what is along the axes; images with the same are zoomed together. `equal`: True for one scale on both.
    - `limits`: of the colours; by default the 1st and 99th percentile. `signed`: colours about zero. `note`: a sentence
      to say below it.
    """

    title: str
    x: str
    y: str
    values: Float[np.ndarray, "h w"]
    columns: Float[np.ndarray, " w"]
    rows: Float[np.ndarray, " h"]
    name: str
    equal: bool = False
    limits: tuple[float, float] | None = None
    signed: bool = False
    note: str = ""


class AbstractOutcome(abc.ABC):
    """How one member of a job ended, and what was found.

    A subclass, for example a frozen dataclass, holds the `member` and what was found, and answers `record`. All else
    stands for a member that went well, has no picture and leaves nothing to save.
    """

    member: Any

    @property
    def code(self) -> str:
        """The result in one word: `successful`, or what happened instead, such as `max_steps_reached`."""
        return SUCCESSFUL

    @property
    def success(self) -> bool:
        """True where it went well."""
        return self.code == SUCCESSFUL

    @property
    def message(self) -> str:
        """Why it failed and what to do about it; empty after success."""
        return ""

    @property
    def remarks(self) -> tuple[str, ...]:
        """What to look at though it went well, a sentence each: such members are shown in amber."""
        return ()

    @property
    def told(self) -> str:
        """How it ended, for the log."""
        return self.code

    @property
    def saved(self) -> Savable | None:
        """What is kept in `solutions/`, with a method `save(path)`; Modules of a large batch are stacked into one."""
        return None

    @abc.abstractmethod
    def record(self) -> dict[str, Any]:
        """The numbers of the member, by name: all of them are written to `results.json`.

        The task's columns are taken from here. Two names have a meaning for the page:

        - `facts`: texts that stand above the member's picture.
        - `parameters`: quantities with an error, in a table. Each is a dictionary of `name`, `value`, `unit` (may be
          empty) and `remarks` (a list of texts); `std`, its standard error; `text`, how to write the value; `folded`,
          True where it is shown on demand; `bounds`, its lowest and highest value, infinite where there is none;
          `prior`, a text; `reference` and `reference_std`, known answers, with `lre` and `lre_std`, the digits that
          agree.
        """

    def draw(self) -> Any:
        """The member's picture, a matplotlib `Figure`, or None.

        A narrow page shows its panels one below the other: axes with their bar of colours, and with those above and
        below them that share their abscissa, are one.
        """
        return None

    def panels(self) -> Sequence[Scatter | Image]:
        """Its data as they are, for figures that a reader zooms into (`jaxsci run --interactive`).

        A run draws of each series and image what a browser can show, and says of how many.
        """
        return ()


@dataclasses.dataclass(frozen=True)
class Untried(AbstractOutcome):
    """A member without a result: `refused`, `not_run` or `given_up`."""

    member: Any
    result: str
    why: str

    @property
    def code(self) -> str:
        """`refused`, `not_run` or `given_up`."""
        return self.result

    @property
    def message(self) -> str:
        """Why there is no result."""
        return self.why

    def record(self) -> dict[str, Any]:
        """There are no numbers."""
        return {}


R = TypeVar("R", bound=AbstractOutcome)


class AbstractTask(abc.ABC, Generic[M, R]):
    """How a science turns a config into members and members into outcomes, and how it speaks of them.

    A science is found by its entry point in the group `jaxsci.sciences`, whose name is what a config says as
    `task = "..."` and whose object is the subclass. `build` and `run` are needed; the rest has defaults.
    """

    words: ClassVar[Words] = Words()
    columns: ClassVar[tuple[Column, ...]] = ()

    def kinds(self) -> Registry:
        """The classes that a config may name by `type`, by kind; `--import` adds a researcher's own to each kind."""
        return {}

    @abc.abstractmethod
    def build(self, config: Config, registry: Registry) -> Job[M]:
        """Read and check all that a config describes, without running it.

        **Arguments:** `registry`: the `kinds`, with those of imported files.

        **Raises:** `ConfigError` naming table and key.
        """

    @abc.abstractmethod
    def run(
        self, members: Sequence[M], report: Report, beside: bool
    ) -> Iterator[tuple[list[int], Sequence[R | Untried]]]:
        """Run all members; yields the places of some, and their outcomes, as they are done.

        **Arguments:** `report`: to be told how many more are done. `beside`: False where threads must not run members
        beside each other, because a researcher's own file was imported.

        **Raises:** `ConfigError` where a member cannot be run at all and the others need not be.
        """

    def describe(self, member: M) -> Mapping[str, str]:
        """What `jaxsci check` shows of a member beside its name: texts by the headings of their columns."""
        return {"model": member.what, "source": member.source}

    def batches(self, members: Sequence[M]) -> list[int]:
        """How many members there are in each batch that is run at once."""
        return [len(members)]

    def refusals(self, members: Sequence[M]) -> Mapping[int, Refusal]:
        """The members, by their places, that would end before their first step."""
        return {}

    def counts(self, records: Sequence[Record]) -> dict[str, int]:
        """Numbers of the whole run for `results.json`, beside how many members there are and how they ended."""
        return {}

    def tiles(self, counts: Mapping[str, int]) -> Sequence[Tile]:
        """Numbers for the top of the report, beside how many members went well."""
        return ()

    def said(self, counts: Mapping[str, int]) -> Sequence[str]:
        """Parts of the last sentence on the screen, beside how many members went well."""
        return ()

    def notes(self, records: Sequence[Record]) -> Sequence[str]:
        """Sentences that a reader of the columns should know, for the screen and the top of the report."""
        return ()

    def facts(self, record: Record) -> Sequence[str]:
        """Texts that stand above a member's picture: its columns, then the facts of its record."""
        shown = (f"{c.heading} {record[c.key]:{c.form}}" for c in self.columns if c.heading and c.key in record)
        return (*shown, *record.get("facts", ()))

    def pictures(self, outcomes: Sequence[R]) -> Mapping[str, Callable[[], Any]]:
        """Pictures of the whole run: by title, a function that makes the matplotlib `Figure`."""
        return {}

    def files(self, outcome: R, name: str) -> Mapping[str, str | Callable[[Path], object]]:
        """Files of a member beside those of every run, which its part of the report links.

        **Arguments:** `name`: what its solution and its figure are called, which no other member's are.

        **Returns:** by path in the output folder, the text, or a function that writes there.
        """
        return {}

    def starter(self) -> Path | None:
        """The folder that `jaxsci new` copies: `starter` beside the task, with a config `fit.toml`; None without it."""
        folder = Path(inspect.getfile(type(self))).with_name("starter")
        return folder if folder.is_dir() else None
