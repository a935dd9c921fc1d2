"""Worker processes for the items of a batch: on this machine, of a scheduler of dask that runs already, or by SLURM.

dask.distributed starts them, watches them, and hands each an order when it has done the one before. Here it is decided
what happens to an item that raises or takes its worker with it: it is tried again so many times, then given up and
named, and no other is blamed for it. `batch` calls `work`; dask is imported where it is used.
"""

import collections
import concurrent.futures
import contextlib
import dataclasses
import importlib.util
import logging
import os
import shlex
import shutil
import signal
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from .._errors import ConfigError, first_line
from .._output import Log
from .item import Order, begun, carry_out

EXECUTORS = ("local", "dask", "slurm")

_THREADS = {
    # one core for each worker: threads of several on the same cores would wait for each other
    "NPROC": "1",
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    # workers that share a GPU take of its memory what they need, not all of it at once
    "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
}
_SETTINGS = {
    "distributed.worker.multiprocessing-method": "spawn",
    # a death is told at once, because `work` counts them by item
    "distributed.scheduler.allowed-failures": 0,
    # orders wait with the scheduler, not beside a worker that may die of another one: so there is nothing to steal
    "distributed.scheduler.worker-saturation": 1.0,
    "distributed.scheduler.work-stealing": False,
    # no worker may pause for good because of memory that JAX keeps; one that takes too much is ended
    "distributed.worker.memory.target": False,
    "distributed.worker.memory.spill": False,
    "distributed.worker.memory.pause": False,
    "distributed.worker.memory.terminate": 0.95,
}


# A worker that has died is started anew by dask's nanny beside it, which takes as long as imports on a busy machine do;
# dask would end it within 15 s, for good. Only a job of SLURM may be gone as a whole: then another is submitted.
_BACK_WITHIN = {"local": "1 hour", "slurm": "1 minute"}

_ANY_PORT = ":0"  # for what else the scheduler serves: another batch may run beside this one
_AHEAD = 4  # orders for each worker: from more than 2 on, the scheduler keeps them until a worker is free
_MOST_LOST = 20  # times that an item may wait beside a worker that dies: more is no chance, workers cannot even start


@dataclasses.dataclass(frozen=True)
class Workers:
    """Who works on the items of a batch.

    - `executor`: `"local"` processes, those of a running `"dask"` scheduler, or `"slurm"` jobs. `count`: how many.
    - `scheduler`: the address of dask's scheduler.
    - `partition`, `time`, `memory`: of each job of SLURM, as `sbatch` takes them. `sbatch`: more of its options.
    """

    executor: str = "local"
    count: int = 1
    scheduler: str = ""
    partition: str = ""
    time: str = "01:00:00"
    memory: str = "4GB"
    sbatch: tuple[str, ...] = ()

    def check(self) -> None:
        """Raise `ConfigError` where the options do not make sense together, or what they need is not here.

        Before a folder is made: one that nobody worked on would stand in the way of the next try.
        """
        if self.executor not in EXECUTORS:
            raise ConfigError("--executor", f"should be one of {', '.join(EXECUTORS)}, but it is {self.executor!r}")
        if self.count < 1:
            raise ConfigError("-j", f"should be 1 or more workers, but it is {self.count}")
        if (self.executor == "dask") != bool(self.scheduler):
            raise ConfigError("--scheduler", "goes with --executor dask, as in --scheduler tcp://10.0.0.1:8786")
        if importlib.util.find_spec("distributed") is None:
            raise ConfigError("batch", "workers need dask: pip install 'jaxsci[cluster]'")
        if self.executor == "slurm":
            if shutil.which("sbatch") is None:
                raise ConfigError(
                    "--executor slurm", "there is no sbatch here: start it on a machine that submits jobs"
                )
            if importlib.util.find_spec("dask_jobqueue") is None:
                raise ConfigError("batch", "SLURM needs dask-jobqueue: pip install 'jaxsci[cluster]'")


def work(
    orders: Sequence[Order], workers: Workers, retries: int, cache: str | None, log: Log
) -> Iterator[tuple[str, str]]:
    """Have all orders carried out, in about the order given.

    Yields the name of each item that is done with, and why it was given up, which is empty for one that has a result.

    **Arguments:** `retries`: how often more an item is tried that raised or whose worker died; `cache`: the folder of
    compiled programs, where it is not the user's.
    """
    waiting, tries, lost = collections.deque(orders), collections.Counter[str](), collections.Counter[str]()
    with _cluster(workers, Path(orders[0].folder).parent, cache) as (client, width):
        from distributed import as_completed

        running: dict[str, Order] = {}
        ended = as_completed(raise_errors=False)

        def fill() -> None:
            while waiting and len(running) < _AHEAD * width():
                order, key = waiting.popleft(), f"item-{uuid.uuid4().hex}"
                running[key] = order
                ended.add(client.submit(carry_out, dataclasses.asdict(order), key=key, pure=False))

        try:
            fill()
            for future in ended:
                order = running.pop(future.key)
                why = "" if future.status == "finished" else _failure(future.exception(), order, tries, lost)
                future.release()
                if why and tries[order.item] <= retries and lost[order.item] <= _MOST_LOST:
                    log.say(f"{order.item}: {why} It is tried again.")
                    waiting.append(order)
                else:
                    if why:
                        log.say(f"{order.item}: given up. {why}")
                    yield order.item, why
                fill()
        except KeyboardInterrupt:
            signal.signal(signal.SIGINT, signal.SIG_DFL)  # closing may take seconds: who cannot wait kills
            raise


def _failure(
    error: BaseException | None, order: Order, tries: collections.Counter[str], lost: collections.Counter[str]
) -> str:
    """Say why an order was not carried out, and count the try where the item is to blame, or that it was lost.

    Whoever kills a worker leaves a trace of having begun; an order without one only waited beside another.
    """
    from distributed import KilledWorker

    traces = begun(Path(order.folder), order.item)
    for trace in traces:
        shutil.rmtree(trace, ignore_errors=True)
    if isinstance(error, KilledWorker):
        if not traces:
            lost[order.item] += 1
            return "Its worker died before it began."
        tries[order.item] += error.allowed_failures + 1
        return "Its worker died while running it: out of memory or time, or a fault in compiled code."
    tries[order.item] += 1
    if error is None or isinstance(error, concurrent.futures.CancelledError):
        return "The scheduler has lost it."
    return f"It raised {type(error).__name__}: {first_line(error)}."


@contextlib.contextmanager
def _cluster(workers: Workers, folder: Path, cache: str | None) -> Iterator[tuple[Any, Callable[[], int]]]:
    """A client of dask, and how many orders it may have at a time."""
    import dask
    from distributed import Client

    environment = _THREADS | ({} if cache is None else {"JAX_COMPILATION_CACHE_DIR": cache})
    patience = {"distributed.deploy.lost-worker-timeout": _BACK_WITHIN.get(workers.executor, "15 s")}
    with dask.config.set(_SETTINGS | patience), contextlib.ExitStack() as until:
        if workers.executor == "dask":
            client = until.enter_context(_client_of(workers.scheduler))
            if any(threads != 1 for threads in client.nthreads().values()):
                raise ConfigError("--scheduler", "its workers have several threads: start them with --nthreads 1")
            yield client, lambda: max(len(client.nthreads()), 1)
            return
        make = _local if workers.executor == "local" else _slurm
        cluster = until.enter_context(make(workers, folder, environment))
        yield until.enter_context(Client(cluster)), lambda: workers.count


def _client_of(address: str) -> Any:
    from distributed import Client

    try:
        return Client(address, timeout=20)
    except (OSError, ValueError) as error:
        raise ConfigError(f"--scheduler {address}", f"no scheduler of dask answers: {first_line(error)}") from error


def _local(workers: Workers, folder: Path, environment: Mapping[str, str]) -> Any:
    from distributed import LocalCluster
    from distributed.system import MEMORY_LIMIT

    return LocalCluster(
        n_workers=workers.count,
        threads_per_worker=1,
        memory_limit=MEMORY_LIMIT // workers.count,
        env=dict(environment),
        preload=["jaxsci.runs._batch.worker"],
        dashboard_address=_ANY_PORT,
        scheduler_kwargs={"dashboard": False},
        silence_logs=logging.CRITICAL,
    )


def _slurm(workers: Workers, folder: Path, environment: Mapping[str, str]) -> Any:
    """Jobs of one worker each, as many as are wanted, anew where one has ended.

    **Raises:** `ConfigError` where `sbatch` would not take such a job: nobody would ever come to work.
    """
    from dask_jobqueue.slurm import SLURMCluster

    settings = {f"DASK_{name.upper().replace('.', '__').replace('-', '_')}": value for name, value in _SETTINGS.items()}
    paths = {name: os.environ[name] for name in ("PYTHONPATH", "XLA_FLAGS") if name in os.environ}
    exported = {**{name: str(value) for name, value in settings.items()}, **paths, **environment}
    cluster = SLURMCluster(
        cores=1,
        processes=1,
        memory=workers.memory,
        walltime=workers.time,
        queue=workers.partition or None,
        python=sys.executable,
        job_name="jaxsci",
        job_extra_directives=list(workers.sbatch),
        job_script_prologue=[f"export {name}={shlex.quote(value)}" for name, value in exported.items()],
        log_directory=str(folder / "slurm"),
        death_timeout=300,
        scheduler_options={"dashboard": False, "dashboard_address": _ANY_PORT},
        silence_logs=logging.CRITICAL,
    )
    said = subprocess.run(
        ["sbatch", "--test-only"], input=cluster.job_script(), capture_output=True, text=True, check=False
    )
    if said.returncode:
        cluster.close()
        raise ConfigError("--executor slurm", f"sbatch does not take such a job: {said.stderr.strip()}")
    cluster.adapt(minimum_jobs=workers.count, maximum_jobs=workers.count)
    return cluster
