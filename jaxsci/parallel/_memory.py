"""What fits into memory, asked before it is taken.

A process that takes more than there is gets killed by the system without a word, and with it the work of hours. So what
is large and known beforehand (saved draws and positions, two-time maps, the temporaries of a compiled program) is asked
for here first, and refused with the number and what to do. Doors of all rooms that allocate by a user's number call it.
"""

import contextlib
import math
from collections.abc import Iterator
from pathlib import Path

import jax
import psutil

_SMALL = 64 << 20  # bytes that nobody needs to ask for
_CGROUP = Path("/sys/fs/cgroup")


def free_memory(device: jax.Device | None = None) -> float:
    """Give the bytes that can still be taken: of a device that tells, else of this process's machine.

    On the host it is what the system has available, within the limits of a container and of the process itself.
    """
    told = device.memory_stats() if device is not None and device.platform != "cpu" else None
    if told and "bytes_limit" in told:
        return float(told["bytes_limit"] - told.get("bytes_in_use", 0))
    return float(min(psutil.virtual_memory().available, *_limits()))


def require_memory(needed: float | int, what: str, remedy: str, device: jax.Device | None = None) -> None:
    """Raise `MemoryError` where so many bytes are not to be had.

    **Arguments:** `needed`: bytes. `what`: that needs them, with its sizes. `remedy`: what to do instead, in words that
    follow a colon.
    """
    if needed < _SMALL:
        return
    free = free_memory(device)
    if needed > free:
        raise MemoryError(f"{what} needs {in_words(needed)} of memory, and {in_words(free)} are free: {remedy}")


def in_words(size: float | int) -> str:
    """Write bytes with a unit, as in 1.5 GB."""
    units = ("B", "kB", "MB", "GB", "TB")
    power = min(int(math.log10(max(size, 1)) / 3), len(units) - 1)
    return f"{size / 1000**power:.3g} {units[power]}"


def _limits() -> Iterator[float]:
    """What limits leave: of the container (cgroups, version 2 then 1), and of the process's address space."""
    yield math.inf
    for limit, used in (
        ("memory.max", "memory.current"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"),
    ):
        with contextlib.suppress(OSError, ValueError):  # "max" is no number
            yield int((_CGROUP / limit).read_text()) - int((_CGROUP / used).read_text())
    with contextlib.suppress(ImportError):
        import resource  # of Unix alone

        bound = resource.getrlimit(resource.RLIMIT_AS)[0]
        if bound != resource.RLIM_INFINITY:
            yield bound - psutil.Process().memory_info().vms
