"""Rows on damaged files: every kind of state that is kept, spoilt in every way that a disk or a copy may, is refused.

The files are those that the long commands leave, and a saved fit. Of a checkpoint with a whole one before it, that is
found in its place, with a warning. `python -m benchmarks._damage [CASES]` prints the rows; the page on
reliability is made of them.
"""

import random
import sys
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from . import _threads as _threads  # before anything that imports NumPy

# isort: split
import jax.numpy as jnp
import numpy as np

import jaxsci as js
from jaxsci import runs
from jaxsci.parallel import Kept, read_framed

from ._long_jobs import JOBS, Decay, Job

_SHM = Path("/dev/shm")
_FIT = "saved fit"


class Damaged(NamedTuple):
    """How often files of one kind were damaged, and what became of them."""

    cases: int
    refused: int
    gone_back: int
    silent: int


def flipped(good: bytearray, other: bytes, at: random.Random) -> bytes:
    """One bit is another."""
    good[at.randrange(len(good))] ^= 1 << at.randrange(8)
    return bytes(good)


def flips(good: bytearray, other: bytes, at: random.Random) -> bytes:
    """Several bits are others."""
    for _ in range(at.randint(2, 50)):
        flipped(good, other, at)
    return bytes(good)


def truncated(good: bytearray, other: bytes, at: random.Random) -> bytes:
    """The end is missing."""
    return bytes(good[: at.randrange(len(good))])


def zeroed(good: bytearray, other: bytes, at: random.Random) -> bytes:
    """A run of bytes is zero, as of a sector that was never written."""
    start, length = at.randrange(len(good)), at.choice((1, 16, 512, 4096))
    good[start : start + length] = bytes(len(good[start : start + length]))
    return bytes(good)


def overwritten(good: bytearray, other: bytes, at: random.Random) -> bytes:
    """A run of bytes is anything."""
    start, length = at.randrange(len(good)), at.choice((1, 16, 512, 4096))
    good[start : start + length] = at.randbytes(len(good[start : start + length]))
    return bytes(good)


def longer(good: bytearray, other: bytes, at: random.Random) -> bytes:
    """Something follows."""
    return bytes(good) + at.choice((b"\0", at.randbytes(at.randint(1, 4096)), bytes(good)))


def dropped(good: bytearray, other: bytes, at: random.Random) -> bytes:
    """A piece in the middle is missing."""
    start = at.randrange(len(good))
    return bytes(good[:start] + good[start + at.randint(1, 64) :])


def spliced(good: bytearray, other: bytes, at: random.Random) -> bytes:
    """It ends as the file of another job does."""
    start = at.randrange(min(len(good), len(other)))
    return bytes(good[:start]) + other[start:]


def swapped(good: bytearray, other: bytes, at: random.Random) -> bytes:
    """It is the whole file of another job."""
    return other


WAYS: tuple[Callable[[bytearray, bytes, random.Random], bytes], ...] = (
    flipped, flips, truncated, zeroed, overwritten, longer, dropped, spliced, swapped,
)  # fmt: skip


def rows(cases: int = 10_000, seed: int = 0, jobs: tuple[Job, ...] = JOBS) -> list[dict[str, Any]]:
    """A row for each kind of state, the cases shared out among them."""
    with tempfile.TemporaryDirectory(dir=_SHM if _SHM.is_dir() else None) as folder:
        files = _files(Path(folder), jobs)
        names = list(files)
        out = []
        for place, (name, good) in enumerate(files.items()):
            other = files[names[(place + 1) % len(names)]]
            share = cases // len(files) + (place < cases % len(files))
            done = _damaged(Path(folder) / "x", name, good, other, share, random.Random(f"{seed} {name}"))
            out.append(
                {
                    "state": name,
                    "bytes": len(good),
                    "damaged": done.cases,
                    "refused": done.refused,
                    "gone on from the one before": done.gone_back,
                    "loaded silently": done.silent,
                }
            )
        return out


def _damaged(path: Path, name: str, good: bytes, other: bytes, cases: int, at: random.Random) -> Damaged:
    refused = gone_back = silent = count = 0
    path.write_bytes(good)
    belongs = {} if name == _FIT else Kept.read(path).belongs
    older = path.with_name(f"{path.name}.previous")
    while count < cases:
        bad = WAYS[count % len(WAYS)](bytearray(good), other, at)
        if bad == good:
            continue
        count += 1
        path.write_bytes(bad)
        try:
            if name == _FIT:
                _read_fit(path, bad == other)
            else:
                Kept.read(path).check(path, belongs)
            silent += 1
        except ValueError:
            refused += 1
        if name != _FIT and bad != other:
            older.write_bytes(good)
            with warnings.catch_warnings(record=True) as said:
                warnings.simplefilter("always")
                last = Kept.last(path)
            gone_back += last is not None and last[1] == older and len(said) == 1
            older.unlink()
    return Damaged(count, refused, gone_back, silent)


def _read_fit(path: Path, whole: bool) -> None:
    header, _ = read_framed(path)
    if whole and header.get("kind") != "Solution":
        raise ValueError("another kind")


def _files(folder: Path, jobs: tuple[Job, ...]) -> dict[str, bytes]:
    """The bytes of a file of each kind."""
    runs.prepare("cpu")
    files = {}
    for place, job in enumerate(jobs):
        here = folder / str(place)
        here.mkdir()
        job.work(here, True)
        files[job.name] = (here / job.file).read_bytes()
    t = np.linspace(0.0, 5.0, 40)
    data = js.Dataset(jnp.asarray(t), jnp.asarray(2 * np.exp(-t) + 0.01 * np.sin(9 * t)), js.White(0.05))
    js.fit(Decay(1.0, 1.0, 0.0), data).save(folder / "fit")
    return files | {_FIT: (folder / "fit").read_bytes()}


if __name__ == "__main__":
    found = rows(int(sys.argv[1]) if len(sys.argv) > 1 else 10_000)
    for row in found:
        print(row)
    sys.exit(1 if any(row["loaded silently"] for row in found) else 0)
