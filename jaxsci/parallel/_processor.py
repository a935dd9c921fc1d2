"""Which processor this is: bits of results, and whether compiled programs run at all, depend on its kind.

`Checkpoint` tells by its name who wrote a file; `use_compile_cache` keeps the programs of each kind apart.
"""

import contextlib
import hashlib
import platform
from pathlib import Path


def processor_name() -> str:
    """Give the name of the processor's model, or of its architecture where the system tells no more."""
    names = [line.partition(":")[2].strip() for line in _told() if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def processor_kind() -> str:
    """Give the architecture and a digest of the instructions that it knows, in a word that names a folder."""
    wanted = ("model name", "flags", "Features", "CPU part")
    told = [platform.system(), platform.processor(), *sorted({x for x in _told() if x.startswith(wanted)})]
    return f"{platform.machine() or 'cpu'}-{hashlib.sha256('|'.join(told).encode()).hexdigest()[:10]}"


def _told() -> list[str]:
    """What Linux tells of the first processor; nothing elsewhere."""
    with contextlib.suppress(OSError):
        return Path("/proc/cpuinfo").read_text().split("\n\n")[0].splitlines()
    return []
