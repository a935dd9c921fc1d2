"""Devices and processes compared: each door that takes `mesh=` gives on all of them what it gives on one.

`rows()` runs the jobs of `_hosts_doors` in processes of their own: alone, on 2 and 8 devices of one process, and on two
processes that tell each other what they found. The page of reliability shows them, and the tests ask `run` and
`differences` for the same.
"""

import os
import socket
import subprocess
import sys
import tempfile
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
LIMIT = 600.0  # seconds that processes may take, on a machine with much else to do
DOORS = (
    "fit_batch small",
    "resumed",
    "fit_batch",
    "sample",
    "fit rows",
    "fit stream",
    "evolve",
    "evolve interacting",
    "separate",
    "separate_blocks",
    "correlate",
)
"""What the table is of: see `_hosts_doors`."""
LIGHT = ("fit_batch small", "resumed", "fit rows", "fit stream", "evolve", "evolve interacting")
"""Those of them that are one program for all devices, and what goes on with the programs of another."""
EXACT = ("fit_batch small", "fit_batch", "sample", "evolve", "separate", "separate_blocks", "resumed", "killed")
"""Doors whose members have the same bits everywhere; the others add up sums in another order."""


def run(folder: Path, kind: str, doors: tuple[str, ...], devices: int = 1, processes: int = 1) -> list[Path]:
    """Run doors "alone" or on a "mesh": the file of numbers that each of the processes wrote.

    **Raises:** `RuntimeError` with what a process said that failed, or took too long.
    """
    folder.mkdir(parents=True, exist_ok=True)
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={devices}"
    together = {"JAX_COORDINATOR_ADDRESS": f"127.0.0.1:{_free_port()}", "JAX_NUM_PROCESSES": str(processes)}
    command = [sys.executable, "-m", "benchmarks._hosts_doors", str(folder / "found-{rank}.npz"), kind, *doors]
    started = []
    for rank in range(processes):
        own = together | {"JAX_PROCESS_ID": str(rank)} if processes > 1 else {}
        environment = os.environ | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"} | own
        with (folder / f"log-{rank}.txt").open("w") as log:
            started.append(subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=log))
    try:
        codes = [process.wait(LIMIT) for process in started]
    except subprocess.TimeoutExpired:
        codes = [-1]
    finally:
        for process in started:
            process.kill()
            process.wait()
    if any(codes):
        said = "\n".join((folder / f"log-{rank}.txt").read_text()[-3000:] for rank in range(processes))
        raise RuntimeError(f"processes ended with {codes}:\n{said}")
    return [folder / f"found-{rank}.npz" for rank in range(processes)]


def differences(one: Path, other: Path) -> dict[str, float]:
    """By door the largest difference between two files of numbers, relative to the largest of each array.

    0 where all bits are the same, infinite where shapes, types or places of NaN are not.
    """
    first, second, found = np.load(one), np.load(other), {}
    for key in second.files:
        door = key.rpartition("/")[0]
        if not key.endswith("/wall"):
            found[door] = max(found.get(door, 0.0), _difference(first[key], second[key]))
    return found


def _difference(a: np.ndarray, b: np.ndarray) -> float:
    if a.shape != b.shape or a.dtype != b.dtype:
        return np.inf
    if a.tobytes() == b.tobytes():
        return 0.0
    a, b = a.astype(float), b.astype(float)
    if not np.array_equal(np.isnan(a), np.isnan(b)):
        return np.inf
    return float(np.nanmax(np.abs(a - b)) / np.nanmax(np.abs(a)))


def _free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return listening.getsockname()[1]


def rows() -> list[dict[str, Any]]:
    """A row for each door and each number of devices and processes, in some three minutes on two cores.

    `door`, `devices` (of each process), `processes`, `same_bits`, `difference` (the largest of all processes, as
    `differences` has it), `wall` (seconds, nearly all of them for compiling). What eight devices would compile eight
    times is left to two of them.
    """
    found: list[dict[str, Any]] = []
    os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")  # what is compiled runs for milliseconds
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(2) as pool:

        def start(name: str, kind: str, doors: tuple[str, ...], devices: int, processes: int) -> Future[list[Path]]:
            return pool.submit(run, Path(folder) / name, kind, doors, devices, processes)

        plans = [("mesh", DOORS, 1, 2), ("mesh", DOORS, 2, 1), ("mesh", LIGHT, 8, 1), ("alone", DOORS, 1, 1)]
        started = [start(str(k), *plan) for k, plan in enumerate(plans)]
        (reference,) = started[-1].result()
        for (_, doors, devices, processes), running in zip(reversed(plans), reversed(started), strict=True):
            files = running.result()
            each = [differences(reference, file) for file in files]
            for door in doors:
                worst, walls = max(one[door] for one in each), [float(np.load(file)[f"{door}/wall"]) for file in files]
                row = {"door": door, "devices": devices, "processes": processes}
                found.append(row | {"same_bits": worst == 0, "difference": worst, "wall": max(walls)})
    return found


if __name__ == "__main__":
    for row in rows():
        print(row)
