"""Anything in progress, kept on disk: killed at any moment, it goes on from where it was last kept, with the same bits.

A `Checkpoint` is one file with named states (trees of arrays: the searches of a batch, the rows of a ledger, particles,
chains) and digests of what they belong to, so that the progress of one job is never taken for that of another. The file
is framed and checksummed: it is whole and as written, or it is refused; the one before it is kept beside it for that
case. Only one process at a time has it. All that takes a `checkpoint=`, skies in blocks and runs keep theirs here.
"""

import contextlib
import math
import os
import time
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import jax.tree_util as jtu
import jaxlib
import numpy as np
from jaxtyping import ArrayLike, PyTree

from ..core import Tree, is_key
from ._fingerprint import fingerprint
from ._framed import framed, read_framed, remove_leftovers, write_atomic
from ._lock import Lock
from ._processor import processor_name

_EVERY = 10.0  # seconds between two writes
_START_OVER = "start over with resume=False"


class Kept(NamedTuple):
    """What a checkpoint's file holds.

    - `belongs`: the digests of what it belongs to, by name. `made`: the versions and the device that made it.
    - `about`: what its writer put beside that.
    - `states`: by name the leaves of each state, in order.
    """

    belongs: dict[str, str]
    made: dict[str, str]
    about: dict[str, Any]
    states: dict[str, list[np.ndarray]]

    @staticmethod
    def read(path: str | os.PathLike[str]) -> "Kept":
        """The content of a file that a `Checkpoint` wrote.

        **Raises:** `ValueError` for a damaged file; `FileNotFoundError`.
        """
        header, payload = read_framed(path)
        if header.get("kind") != "Checkpoint":
            raise ValueError(f"{path} is a jaxsci file, but no checkpoint")
        try:
            states = _unpacked(header["states"], memoryview(payload))
            return Kept(header["belongs"], header["made"], header["about"], states)
        except (ArithmeticError, AttributeError, KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{path} is damaged: {error}") from error

    @staticmethod
    def last(path: str | os.PathLike[str]) -> "tuple[Kept, Path] | None":
        """(content, file) of the last whole one of a checkpoint's two files; `None` where there is none at all.

        **Raises:** `ValueError` where there are some, and none of them is whole. **Warns** where the newer is damaged.
        """
        path = Path(path)
        older = previous_of(path)
        if not path.exists():  # killed between two renames, or never written
            return (Kept.read(older), older) if older.exists() else None
        try:
            return Kept.read(path), path
        except ValueError as damaged:
            if not older.exists():
                raise ValueError(f"checkpoint: {damaged}, and there is none before it: {_START_OVER}") from damaged
            try:
                kept = Kept.read(older)
            except ValueError as too:
                raise ValueError(f"checkpoint: {damaged}; so is the one before it ({too}): {_START_OVER}") from too
            warnings.warn(f"checkpoint: {damaged}; going on from the one before it, {older}", stacklevel=3)
            return kept, older

    def check(self, path: str | os.PathLike[str], belongs: Mapping[str, str]) -> None:
        """Hold it to what it should belong to (digests by name), and to what runs here.

        **Raises:** `ValueError` naming what is another one. **Warns** of another processor, whose last bits may differ.
        """
        other = [name for name, digest in belongs.items() if self.belongs.get(name) != digest]
        if other:
            raise ValueError(
                f"checkpoint: {path} was written for other {' and '.join(other)}: give another place, or start over "
                "with resume=False"
            )
        here = made_here()
        changed = [name for name in here if name != _PROCESSOR and self.made.get(name) != here[name]]
        if changed:
            was = ", ".join(f"{name} {self.made.get(name)} (here {here[name]})" for name in changed)
            raise ValueError(
                f"checkpoint: {path} was written with {was}, which need not go on with the same bits: go on with that, "
                "or start over with resume=False"
            )
        if self.made.get(_PROCESSOR) != here[_PROCESSOR]:
            warnings.warn(
                f"checkpoint: {path} was written on {self.made.get(_PROCESSOR)}, and this is {here[_PROCESSOR]}: the "
                "last bits may differ from those of a run on one of them",
                stacklevel=3,
            )


class Checkpoint:
    """Named states of a job in progress, in one file that is whole or absent.

    Within its `with` block states are written as they are kept, though not more often than `every` so many seconds,
    and once more when the block is left, also by an exception such as Ctrl-C. The file belongs to this process from
    when the Checkpoint is made until the block is left; without a block, as long as it exists.

    **Arguments:**

    - `path`: the file; its folder should exist. `belongs`: by name (`"data"`, `"settings"`) trees of arrays, numbers
      and words that tell this job from others; an error names those that are others.
    - `resume`: False starts over, whatever the file says. `every`: seconds between two writes, 0 for each time.
    - `about`: beside the states, what a reader of the file should know; of a file that is gone on with, what it says.

    **Raises:** `ValueError` for a file of another job, or of other versions of what computes, for a damaged one without
    a whole one before it, for one that another process writes, and where there is no such folder.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        belongs: Mapping[str, Tree],
        resume: bool = True,
        *,
        every: float | int = _EVERY,
        about: Mapping[str, Any] | None = None,
    ) -> None:
        self.path = Path(path)
        self.every, self.about = every, dict(about or {})
        self.belongs = {name: fingerprint(tree) for name, tree in belongs.items()}
        self.states: dict[str, list[np.ndarray]] = {}
        self.written, self.changed = time.monotonic(), False
        # whether the newer file is whole: a damaged one must not take the place of the good one before it
        self.whole = False
        if not self.path.parent.is_dir():
            raise ValueError(f"checkpoint: there is no folder {self.path.parent}")
        self.lock = Lock(_lock_of(self.path), f"checkpoint: {self.path}")
        with contextlib.ExitStack() as refused:
            refused.callback(self.lock.release)
            remove_leftovers(self.path.parent, self.path.name)
            last = Kept.last(self.path) if resume else None
            if last is not None:
                kept, file = last
                kept.check(file, self.belongs)
                self.states, self.about, self.whole = kept.states, kept.about, file == self.path
            elif not resume:
                previous_of(self.path).unlink(missing_ok=True)
            refused.pop_all()

    def state(self, name: str, blank: Tree) -> PyTree:
        """The state that was kept under this name, in the form of `blank`; `blank` itself where there is none."""
        saved = self.states.get(name)
        if saved is None:
            return blank
        leaves, structure = jtu.tree_flatten(blank)
        return jtu.tree_unflatten(structure, [_opened(x, like) for x, like in zip(saved, leaves, strict=True)])

    def keep(self, name: str, state: Tree) -> None:
        """Keep the state of this name as it is now, whatever becomes of it; it is written with the next write."""
        self.states[name] = [_closed(leaf) for leaf in jtu.tree_leaves(state)]
        self.changed = True
        if time.monotonic() - self.written >= self.every:
            self.write()

    def __enter__(self) -> "Checkpoint":
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        try:
            if self.changed:
                self.write()
        except OSError as failed:
            if error is None:
                raise
            error.add_note(f"checkpoint: {failed}")  # what stopped the job is told first
        finally:
            self.lock.release()

    def write(self) -> None:
        """Write all states; the file before it is kept beside it."""
        described, pieces = _packed(self.states)
        header = {"kind": "Checkpoint", "belongs": self.belongs, "made": made_here(), "about": self.about}
        before = previous_of(self.path) if self.whole else None
        write_atomic(self.path, *framed(pieces, {**header, "states": described}), before=before)
        self.whole, self.changed, self.written = True, False, time.monotonic()


def remove_checkpoint(path: str | os.PathLike[str]) -> None:
    """Remove a checkpoint's files, once what it was for is done."""
    for each in (Path(path), previous_of(Path(path)), _lock_of(Path(path))):
        each.unlink(missing_ok=True)


def previous_of(path: Path) -> Path:
    """Where the file that was written before the last one is."""
    return path.with_name(f"{path.name}.previous")


def _lock_of(path: Path) -> Path:
    return path.with_name(f".{path.name}.lock")


_PROCESSOR = "processor"


def made_here() -> dict[str, str]:
    """What the bits of a result depend on beside the job: versions, the device, the kind of processor."""
    from .. import __version__

    device = jax.devices()[0]
    versions = {"jaxsci": __version__, "jax": jax.__version__, "jaxlib": jaxlib.version.__version__}
    return {**versions, "device": f"{device.platform} {device.device_kind}", _PROCESSOR: processor_name()}


def _closed(leaf: ArrayLike) -> np.ndarray:
    """As an array of NumPy that nobody else writes into; a typed PRNG key as its numbers."""
    if isinstance(leaf, np.ndarray):
        return leaf.copy()
    return np.asarray(jax.random.key_data(leaf) if is_key(leaf) else leaf)


def _opened(array: np.ndarray, like: ArrayLike) -> Any:
    return jax.random.wrap_key_data(jnp.asarray(array), impl=jax.random.key_impl(like)) if is_key(like) else array


def _packed(states: Mapping[str, list[np.ndarray]]) -> tuple[dict[str, Any], list[memoryview]]:
    """By state the dtypes and shapes of its arrays, and the bytes of all, without a copy where they lie in order."""
    described = {name: [[_dtype_name(x.dtype), list(x.shape)] for x in leaves] for name, leaves in states.items()}
    arrays = (np.ascontiguousarray(x) for leaves in states.values() for x in leaves)
    return described, [x.reshape(-1).view(np.uint8).data for x in arrays]


def _unpacked(described: Mapping[str, Any], payload: memoryview) -> dict[str, list[np.ndarray]]:
    """What `_packed` packed; arrays that may be written into. Room is taken for what is in the payload alone."""
    states: dict[str, list[np.ndarray]] = {}
    at = 0
    for name, leaves in described.items():
        states[name] = []
        for word, shape in leaves:
            dtype, count = np.dtype(word), math.prod(shape)
            size = dtype.itemsize * count
            if dtype.hasobject or count < 0 or at + size > len(payload):
                raise ValueError(f"its state {name} is larger than the file")
            states[name].append(np.frombuffer(payload[at : at + size], dtype).reshape(shape).copy())
            at += size
    if at != len(payload):
        raise ValueError("it holds more than its states")
    return states


def _dtype_name(dtype: np.dtype[Any]) -> str:
    """A name that `numpy.dtype` takes: with the order of bytes, but for the types that JAX has added."""
    return dtype.name if dtype.kind == "V" else dtype.str
