"""Anything in progress, kept on disk: killed at any moment, it goes on from where it was last kept, with the same bits.

A `Checkpoint` is one file with named states (trees of arrays: the searches of a batch, the rows of a ledger, later
particles or chains) and a digest of what they belong to, so that the progress of one job is never taken for that of
another. The file is framed and checksummed: it is whole and as written, or it is refused. Batches of fits, fits of
streams and skies in blocks keep theirs here.
"""

import hashlib
import io
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import jax.tree_util as jtu
import numpy as np
from jaxtyping import ArrayLike, PyTree

from ..core import Static, Tree, is_key
from ._framed import read_framed, write_framed

_EVERY = 10.0  # seconds between two writes


class Kept(NamedTuple):
    """What a checkpoint's file holds.

    - `belongs`: the digest of what it belongs to. `about`: what its writer put beside that.
    - `states`: by name the leaves of each state, in order.
    """

    belongs: str
    about: dict[str, Any]
    states: dict[str, list[np.ndarray]]

    @staticmethod
    def read(path: str | os.PathLike[str]) -> "Kept":
        """The content of a file that a `Checkpoint` wrote.

        **Raises:** `ValueError` for a damaged file; `FileNotFoundError`.
        """
        header, payload = read_framed(path)
        states: dict[str, list[np.ndarray]] = {}
        with np.load(io.BytesIO(payload), allow_pickle=False) as arrays:
            for key in arrays.files:
                states.setdefault(key.rpartition("/")[0], []).append(arrays[key])
        return Kept(header["belongs"], header["about"], states)


class Checkpoint:
    """Named states of a job in progress, in one file that is whole or absent.

    Within its `with` block states are written as they are kept, though not more often than `every` so many seconds,
    and once more when the block is left, also by an exception such as Ctrl-C.

    **Arguments:**

    - `path`: the file; its folder should exist. `belongs`: a tree of arrays, numbers and words that tells this job
      from others: data, models, settings.
    - `resume`: False starts over, whatever the file says. `every`: seconds between two writes, 0 for each time.
    - `about`: beside the states, what a reader of the file should know. `of`: what `belongs` stands for, in words.

    **Raises:** `ValueError` for a file of another job, a damaged one, and where there is no such folder.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        belongs: Tree,
        resume: bool = True,
        *,
        every: float | int = _EVERY,
        about: Mapping[str, Any] | None = None,
        of: str = "data, models or settings",
    ) -> None:
        self.path, self.belongs = Path(path), fingerprint(belongs)
        self.every, self.about = every, dict(about or {})
        self.states: dict[str, list[np.ndarray]] = {}
        self.written = time.monotonic()
        if not self.path.parent.is_dir():
            raise ValueError(f"checkpoint: there is no folder {self.path.parent}")
        if resume and self.path.exists():
            kept = Kept.read(self.path)
            if kept.belongs != self.belongs:
                raise ValueError(
                    f"checkpoint: {self.path} was written for other {of}; give another place, or resume=False to "
                    "start over"
                )
            self.states = kept.states

    def state(self, name: str, blank: Tree) -> PyTree:
        """The state that was kept under this name, in the form of `blank`; `blank` itself where there is none."""
        saved = self.states.get(name)
        if saved is None:
            return blank
        leaves, structure = jtu.tree_flatten(blank)
        return jtu.tree_unflatten(structure, [_opened(x, like) for x, like in zip(saved, leaves, strict=True)])

    def keep(self, name: str, state: Tree) -> None:
        """Keep the state of this name as it is now; it is written with the next write."""
        self.states[name] = [_closed(leaf) for leaf in jtu.tree_leaves(state)]
        if time.monotonic() - self.written >= self.every:
            self.write()

    def __enter__(self) -> "Checkpoint":
        return self

    def __exit__(self, *error: object) -> None:
        self.write()

    def write(self) -> None:
        """Write all states; the file before is kept until this one is whole."""
        buffer = io.BytesIO()
        arrays = {f"{name}/{k}": leaf for name, leaves in self.states.items() for k, leaf in enumerate(leaves)}
        np.savez(buffer, allow_pickle=False, **arrays)
        write_framed(self.path, buffer.getvalue(), {"belongs": self.belongs, "about": self.about})
        self.written = time.monotonic()


def _closed(leaf: ArrayLike) -> np.ndarray:
    """As an array of NumPy; a typed PRNG key as its numbers."""
    return np.asarray(jax.random.key_data(leaf) if is_key(leaf) else leaf)


def _opened(array: np.ndarray, like: ArrayLike) -> Any:
    return jax.random.wrap_key_data(jnp.asarray(array), impl=jax.random.key_impl(like)) if is_key(like) else array


def _is_static(node: object) -> bool:
    return isinstance(node, Static)


def fingerprint(tree: Tree) -> str:
    """A digest of a tree's structure and of every bit in it: of arrays, numbers, words, and functions by name."""
    digest = hashlib.sha256()
    for path, leaf in jtu.tree_leaves_with_path(tree, is_leaf=_is_static):
        digest.update(jtu.keystr(path).encode())
        value = leaf.value if isinstance(leaf, Static) else leaf
        if isinstance(value, str | int | float | bool):
            digest.update(repr(value).encode())
            continue
        if isinstance(leaf, Static):  # a function, which has no text that the next process would find again
            digest.update(getattr(value, "__qualname__", type(value).__qualname__).encode())
            continue
        array = np.ascontiguousarray(_closed(leaf))
        digest.update(f"{array.dtype}{array.shape}".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()
