"""Times as measured, and tables to show them in.

Programs are timed beside each other, after a run that compiles them, and the least of a few readings counts, because
whatever else happens on a machine only adds. The costs of a run, the choice of a method and what a device can do are
measured and shown by these.
"""

import math
import time
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import jax.tree_util as jtu

from ..core import Tree

_READINGS = 7
_PATIENCE = 0.3  # seconds after which two readings are enough


def seconds_of(*runs: Callable[[], Tree]) -> list[float]:
    """The time of each call, the least of a few that are made in turn, after one that compiles."""
    on_cpu = jnp.zeros(()).devices().pop().platform == "cpu"
    for run in runs:
        jax.block_until_ready(jtu.tree_leaves(run()))
    best, spent, rounds = [math.inf] * len(runs), 0.0, 0
    while rounds < 2 or (rounds < _READINGS and spent < _PATIENCE * len(runs)):
        for k, run in enumerate(runs):
            wall, cpu = time.perf_counter(), time.process_time()
            jax.block_until_ready(jtu.tree_leaves(run()))
            wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
            # others on the machine lengthen the one, many threads the other; a GPU is waited for, which costs no CPU
            best[k] = min(best[k], wall, cpu) if on_cpu else min(best[k], wall)
            spent += wall
        rounds += 1
    return best


def table(title: str, head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    widths = [max(len(row[k]) for row in (head, *rows)) for k in range(len(head))]
    lines = ["  ".join(word.ljust(width) for word, width in zip(row, widths)).rstrip() for row in (head, *rows)]
    return "\n".join([title, lines[0], "-" * max(map(len, lines)), *lines[1:]])


def time_of(seconds: float) -> str:
    if not math.isfinite(seconds):
        return "-"
    unit, scale = next(((u, s) for u, s in (("s", 1.0), ("ms", 1e3), ("us", 1e6)) if seconds * s >= 1), ("ns", 1e9))
    return f"{seconds * scale:.3g} {unit}"


def name_of(device: jax.Device | None) -> str:
    with jax.ensure_compile_time_eval():  # within a transformation too
        found = jnp.zeros(()).devices().pop() if device is None else device
    return f"{found.platform}: {found.device_kind}"
