"""A batch in progress on disk: killed at any moment, it goes on from its last round with the same bits."""

import hashlib
import io
import os
import time
from collections.abc import Callable
from pathlib import Path

import jax.tree_util as jtu
import numpy as np
from jaxtyping import PyTree

from ..core import Static
from ..parallel import read_framed, write_framed

_EVERY = 10.0  # seconds between two writes


class Checkpoint:
    """The search of each block of a batch, as arrays in one file that is whole or absent.

    Written between rounds, at most every ten seconds, and when the caller stops (Ctrl-C).
    """

    def __init__(self, path: str | os.PathLike[str], resume: bool, task: PyTree) -> None:
        self.path, self.task = Path(path), fingerprint(task)
        self.blocks: dict[str, list[np.ndarray]] = {}
        self.written = time.monotonic()
        if not self.path.parent.is_dir():
            raise ValueError(f"checkpoint: there is no folder {self.path.parent}")
        if resume and self.path.exists():
            self._read()

    def _read(self) -> None:
        header, payload = read_framed(self.path)
        if header.get("task") != self.task:
            raise ValueError(
                f"checkpoint: {self.path} was written for other data, models or settings; "
                "give another file, or resume=False to start over"
            )
        with np.load(io.BytesIO(payload), allow_pickle=False) as arrays:
            for key in arrays.files:
                block, _ = key.split("/")
                self.blocks.setdefault(block, []).append(arrays[key])

    def of(self, block: str) -> tuple[Callable[[PyTree], PyTree], Callable[[PyTree], None]]:
        """(what turns a blank search of this block into the saved one, what keeps it after a round)."""

        def resume(blank: PyTree) -> PyTree:
            saved = self.blocks.get(block)
            return blank if saved is None else jtu.tree_unflatten(jtu.tree_structure(blank), saved)

        def keep(search: PyTree) -> None:
            self.blocks[block] = jtu.tree_leaves(search)
            if time.monotonic() - self.written > _EVERY:
                self.write()

        return resume, keep

    def __enter__(self) -> "Checkpoint":
        return self

    def __exit__(self, *error: object) -> None:
        self.write()

    def write(self) -> None:
        """Write all blocks; the file before is kept until this one is whole."""
        buffer = io.BytesIO()
        arrays = {f"{block}/{k}": leaf for block, leaves in self.blocks.items() for k, leaf in enumerate(leaves)}
        np.savez(buffer, allow_pickle=False, **arrays)
        write_framed(self.path, buffer.getvalue(), {"task": self.task})
        self.written = time.monotonic()


def _is_static(node: object) -> bool:
    return isinstance(node, Static)


def fingerprint(tree: PyTree) -> str:
    """A digest of a tree's structure and of every bit in it."""
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
        array = np.ascontiguousarray(leaf)
        digest.update(f"{array.dtype}{array.shape}".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()
