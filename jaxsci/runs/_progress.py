"""The members of a run that are done, kept in its folder until the report is written, for a killed run to go on from.

One `Progress` holds a run's folder: a second process is refused there. Outcomes are written every ten seconds, and when
the run is stopped, so that a short run writes nothing of the kind. `run` asks it which members are done already.
"""

import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from ..core import Tree
from ..parallel import Checkpoint, InUseError, Kept, Lock, remove_checkpoint, remove_leftovers
from ._errors import ConfigError
from ._plain import Plain, UnkeptError
from ._task import AbstractOutcome, Member

EVERY = 10.0
"""Seconds between two writes."""

CHECKPOINT, _LOCK = "progress.jsci", ".lock"
_FOLDERS = ("", "solutions", "figures", "members")


class Progress:
    """Holds a run's folder, and keeps in it what is done, within its `with` block.

    **Arguments:** `folder`: the run's, which exists. `belongs`: what tells this run from others: the config, the data.
    `members`: of the job. `resume`: go on from what is there; without it, a folder with a stopped run is refused.

    **Raises:** `ConfigError` naming what is in the way.
    """

    def __init__(self, folder: Path, belongs: Mapping[str, Tree], members: Sequence[Member], resume: bool) -> None:
        self.folder, self.path, self.belongs = folder, folder / CHECKPOINT, belongs
        self.plain = Plain(members)
        self.over = False
        self.checkpoint: Checkpoint | None = None
        self.waiting: list[tuple[list[int], Sequence[AbstractOutcome]]] = []
        self.looked = time.monotonic()
        used = (folder / _LOCK).exists()
        try:
            self.lock = Lock(folder / _LOCK, str(folder))
        except InUseError as error:
            raise ConfigError("--out", str(error)) from error
        try:
            for name in _FOLDERS if used else ():  # a run was here, and may have been killed while it wrote
                if (folder / name).is_dir():
                    remove_leftovers(folder / name)
            self._open(resume)
        except ValueError as error:
            self.lock.release()
            raise ConfigError("--out", str(error).replace("with resume=False", "by removing it")) from error

    def _open(self, resume: bool) -> None:
        """Look for a run that was stopped here."""
        last = Kept.last(self.path)
        if last is None:
            return
        if not resume:
            done = sum(len(leaves[0]) for leaves in last[0].states.values())
            raise ValueError(
                f"{self.folder} holds a run that was stopped after {done} results: --resume goes on with it; to start "
                f"over, give another folder or remove {self.path}"
            )
        self._begun()

    def _begun(self) -> Checkpoint:
        if self.checkpoint is None:
            self.checkpoint = Checkpoint(self.path, self.belongs, every=math.inf)
        return self.checkpoint

    def found(self) -> dict[int, AbstractOutcome]:
        """The outcomes of members that are done, by their places."""
        if self.checkpoint is None:
            return {}
        pairs = [(leaves[0].tolist(), self.plain.unpacked(leaves[1:])) for leaves in self.checkpoint.states.values()]
        return {place: outcome for places, outcomes in pairs for place, outcome in zip(places, outcomes, strict=True)}

    def add(self, places: list[int], outcomes: Sequence[AbstractOutcome]) -> None:
        """Take down that these are done; they are written when it is time."""
        if places:
            self.waiting.append((places, outcomes))
        if time.monotonic() - self.looked >= EVERY:
            self._pack()
            if self.checkpoint is not None:
                self.checkpoint.write()
            self.looked = time.monotonic()

    def _pack(self) -> None:
        for places, outcomes in self.waiting:
            try:
                parts = self.plain.packed(list(outcomes))
            except UnkeptError:
                continue  # these are run again
            kept = self._begun()
            kept.keep(str(len(kept.states)), [np.array(places, int), *parts])
        self.waiting.clear()

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        try:
            if isinstance(error, ConfigError) and self.checkpoint is None:
                self.waiting.clear()  # the config is going to be another one
            if not self.over:
                self._pack()
            if self.checkpoint is not None:
                self.checkpoint.changed &= not self.over
                self.checkpoint.__exit__(kind, error, trace)
            if self.over:
                remove_checkpoint(self.path)
        finally:
            self.lock.release()
