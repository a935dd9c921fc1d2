"""Rows on SIGKILL: each long command is killed at random moments, again and again, and goes on until it is done.

The answer must have the bits of a run that nobody killed. The jobs are a few seconds long, with their programs in the
compile cache, and write what they keep far more often than they need; each is killed several times, in a process
of its own each time. `python -m benchmarks._kills [KILLS]` prints the rows; the page on reliability is made of them.
"""

import contextlib
import dataclasses
import os
import random
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ._long_jobs import ANSWER, ERROR, JOBS, Job

_LIMIT = 600.0  # seconds that a job may take
_WARM = "JAX_COMPILATION_CACHE_DIR"


@dataclasses.dataclass
class Told:
    """What became of one command.

    - `kills`: how often it was killed. `kept`: after how many of them there was something to go on from.
    - `answers`: how often it was run to its end. `wrong`: of these, answers with other bits. `stuck`: starts that ended
      in an error, of which `said` is the last.
    """

    kills: int = 0
    kept: int = 0
    answers: int = 0
    wrong: int = 0
    stuck: int = 0
    said: str = ""


class Starter:
    """Starts jobs in processes of their own, one at a time."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self.asked, self.told = process.stdin, process.stdout

    def run(self, job: Job, folder: Path, after: float, kept: bool = False) -> int:
        """The exit status of a job that is killed after so many seconds, if it is not done before.

        `kept`: the seconds are counted from the moment when there is something to go on from.
        """
        self.asked.write(f"{job.name}\t{folder}\n".encode())
        self.asked.flush()
        child = int(self.told.readline())
        until = time.monotonic() + _LIMIT
        while kept and not job.keeps(folder) and time.monotonic() < until:
            if select.select([self.told], [], [], 0.005)[0]:
                return int(self.told.readline())
        if not select.select([self.told], [], [], after)[0]:
            os.kill(child, signal.SIGKILL)
        return int(self.told.readline())


@contextlib.contextmanager
def starter() -> Iterator[Starter]:
    """A process that has imported what jobs need."""
    here = Path(__file__).resolve().parents[1]
    paths = os.pathsep.join(filter(None, (str(here), os.environ.get("PYTHONPATH"))))
    warm = os.environ.get(_WARM, str(Path(tempfile.gettempdir()) / "jaxsci-kills-cache"))
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks._long_jobs"], cwd=here, bufsize=0,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=os.environ | {_WARM: warm, "PYTHONPATH": paths},
    )  # fmt: skip
    try:
        yield Starter(process)
    finally:
        process.kill()
        process.wait()


def rows(kills: int = 100, seed: int = 0, jobs: tuple[Job, ...] = JOBS) -> Iterator[dict[str, Any]]:
    """A row for each command, the kills shared out among them."""
    with starter() as started:
        for place, job in enumerate(jobs):
            share = kills // len(jobs) + (place < kills % len(jobs))
            began = time.perf_counter()
            with tempfile.TemporaryDirectory() as folder:
                told = _killed(started, job, share, Path(folder), random.Random(f"{seed} {job.name}"))
            row = {
                "command": job.name,
                "kills": told.kills,
                "with something kept": told.kept,
                "run to the end": told.answers,
                "lost": told.wrong + told.stuck,
                "seconds": round(time.perf_counter() - began, 1),
            }
            row |= {"said": told.said} if told.said else {}
            print(row, file=sys.stderr, flush=True)
            yield row


def _killed(started: Starter, job: Job, kills: int, folder: Path, moments: random.Random) -> Told:
    """Kill a job so many times on its way to an answer, or to several answers."""
    told = Told()
    _to_the_end(started, job, _new(folder))  # fills the compile cache
    whole = _new(folder)
    began = time.perf_counter()
    right = _to_the_end(started, job, whole)
    took = time.perf_counter() - began
    while told.kills < kills:
        here, most = _new(folder), min(moments.randint(4, 8), kills - told.kills)
        for _ in range(most):
            kept = bool(moments.getrandbits(1))  # half of the moments are of all, half of those with something to lose
            if os.WIFSIGNALED(started.run(job, here, moments.uniform(0, took / 3 if kept else took), kept)):
                told.kills += 1
                told.kept += job.keeps(here)
            if any((here / name).exists() for name in (ANSWER, ERROR)):
                break
        try:
            told.wrong += _to_the_end(started, job, here) != right
            told.answers += 1
        except RuntimeError as error:
            told.stuck, told.said = told.stuck + 1, str(error)
    return told


def _new(folder: Path) -> Path:
    made = folder / str(len(list(folder.iterdir())))
    made.mkdir()
    return made


def _to_the_end(started: Starter, job: Job, folder: Path) -> str:
    """The digest of the answer of a job that nobody kills; at once where it is there already."""
    if not any((folder / name).exists() for name in (ANSWER, ERROR)):
        started.run(job, folder, _LIMIT)
    if not (folder / ANSWER).exists():
        why = (folder / ERROR).read_text() if (folder / ERROR).exists() else f"not done after {_LIMIT:.0f} s"
        raise RuntimeError(f"{job.name}: {why}")
    return (folder / ANSWER).read_text()


if __name__ == "__main__":
    total = int(sys.argv[1]) if len(sys.argv) > 1 else 100
    lost = sum(row["lost"] for row in rows(total))
    print(f"{total} kills, {lost} lost")
    sys.exit(1 if lost else 0)
