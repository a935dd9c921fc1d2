"""Output files, each written whole or not at all.

A run that is killed leaves the files of the run before it as they were, and never half a report. Everything that a run
writes as text goes through here.
"""

from pathlib import Path


def write_whole(path: Path, content: str) -> None:
    """Write text under a temporary name beside `path`, then move it there in one step; a failure leaves nothing."""
    from ..parallel import write_atomic  # here, because with it comes jax, for which `jaxsci --help` must not wait

    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, content.encode())
