"""Output files, each written whole or not at all.

A run that is killed leaves the files of the run before it as they were, and never half a report. Everything that a run
writes as text goes through here.
"""

import os
from pathlib import Path


def write_whole(path: Path, content: str) -> None:
    """Write text under a temporary name beside `path`, then move it there in one step; a failure leaves nothing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("w", encoding="utf-8", newline="") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
