"""Rows on SIGKILL: each long command is killed at random moments, again and again, and goes on until it is done.

The answer must have the bits of a run that nobody killed. A process starts in some seconds, with its programs in the
compile cache; so each job is a few seconds long, writes what it keeps far more often than it need, and is killed some
times on its way. `python -m benchmarks._kills [KILLS]` prints the rows; the page on reliability is made of them.
"""

import contextlib
import dataclasses
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ._long_jobs import ANSWER, JOBS, Job

_LIMIT = 300.0  # seconds that a job may take
_WARM = "JAX_COMPILATION_CACHE_DIR"


@dataclasses.dataclass
class Told:
    """What became of one command.

    - `kills`: how often it was killed. `kept`: after how many of them there was something to go on from. `answers`: how
      often it was run to its end. `wrong`: of these, answers with other bits. `stuck`: starts that ended in an error.
    """

    kills: int = 0
    kept: int = 0
    answers: int = 0
    wrong: int = 0
    stuck: int = 0
    said: str = ""


def rows(kills: int = 100, seed: int = 0, jobs: tuple[Job, ...] = JOBS) -> list[dict[str, Any]]:
    """A row for each command, the kills shared out among them."""
    out = []
    for place, job in enumerate(jobs):
        share = kills // len(jobs) + (place < kills % len(jobs))
        began = time.perf_counter()
        with tempfile.TemporaryDirectory() as folder:
            told = _killed(job, share, Path(folder), random.Random(f"{seed} {job.name}"))
        row = {
            "command": job.name,
            "kills": told.kills,
            "with something kept": told.kept,
            "run to the end": told.answers,
            "lost": told.wrong + told.stuck,
            "seconds": round(time.perf_counter() - began, 1),
        }
        out.append(row | ({"said": told.said} if told.said else {}))
        print(row, told.said, file=sys.stderr, flush=True)
    return out


def _killed(job: Job, kills: int, folder: Path, moments: random.Random) -> Told:
    """Kill a job so many times on its way to an answer, or to several answers."""
    told = Told()
    _to_the_end(job, _new(folder))  # fills the compile cache
    right, took = _to_the_end(job, _new(folder))
    while told.kills < kills:
        here = _new(folder)
        limit = min(moments.randint(2, 5), kills - told.kills)
        for _ in range(limit):
            if _kill(job, here, moments.uniform(0, took)):
                told.kills += 1
                told.kept += any((here / f"{job.file}{end}").exists() for end in ("", ".previous"))
        try:
            answer, _ = _to_the_end(job, here)
        except RuntimeError as error:
            told.stuck, told.said = told.stuck + 1, str(error)
            continue
        told.answers += 1
        told.wrong += answer != right
    return told


def _new(folder: Path) -> Path:
    made = folder / str(len(list(folder.iterdir())))
    made.mkdir()
    return made


def _kill(job: Job, folder: Path, after: float) -> bool:
    """Start a job and kill it so many seconds after it began; False where it was done before."""
    with _started(job, folder) as process:
        try:
            process.wait(after)
        except subprocess.TimeoutExpired:
            os.kill(process.pid, signal.SIGKILL)
            process.wait()
            return not (folder / ANSWER).exists()
    return False


def _to_the_end(job: Job, folder: Path) -> tuple[str, float]:
    """(digest of the answer, seconds that it took) of a job that nobody kills."""
    with _started(job, folder) as process:
        began = time.perf_counter()
        process.wait(_LIMIT)
        took = time.perf_counter() - began
        if process.returncode != 0:
            said = (folder / "stderr.txt").read_text().strip().splitlines()[-1:]
            raise RuntimeError(f"{job.name}: {' '.join(said)}")
    return (folder / ANSWER).read_text(), took


@contextlib.contextmanager
def _started(job: Job, folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process that has begun with the job."""
    words = [sys.executable, "-m", "benchmarks._long_jobs", job.name, str(folder)]
    here = Path(__file__).resolve().parents[1]
    warm = os.environ.get(_WARM, str(Path(tempfile.gettempdir()) / "jaxsci-kills-cache"))
    paths = os.pathsep.join(filter(None, (str(here), os.environ.get("PYTHONPATH"))))
    environment = os.environ | {_WARM: warm, "PYTHONPATH": paths}
    with (folder / "stderr.txt").open("wb") as told:
        process = subprocess.Popen(words, cwd=here, env=environment, stdout=subprocess.PIPE, stderr=told)
        try:
            assert process.stdout is not None
            process.stdout.readline()
            yield process
        finally:
            process.kill()
            process.wait()


if __name__ == "__main__":
    total = int(sys.argv[1]) if len(sys.argv) > 1 else 100
    lost = sum(row["lost"] for row in rows(total))
    print(f"{total} kills, {lost} lost")
    sys.exit(1 if lost else 0)
