"""One process at a time: a checkpoint, or a folder, that is written by a second process is refused to it.

The lock is the operating system's, on a file beside what is locked, so that a process that dies leaves none behind. The
file says who holds it, for the message that the second one gets. Checkpoints and the folders of runs take it.
"""

import contextlib
import os
import socket
import time
from pathlib import Path


class InUseError(ValueError):
    """Another process writes there."""


class Lock:
    """Held from when it is made until `release`, or the end of its `with` block, or of the process.

    **Arguments:** `path`: of the lock's own file, whose folder exists. `what`: what is locked, for the message.

    **Raises:** `InUseError` naming the process that holds it.
    """

    def __init__(self, path: Path, what: str) -> None:
        from filelock import FileLock, Timeout

        self._lock = FileLock(path, timeout=0, thread_local=False)
        try:
            self._lock.acquire()
        except Timeout:
            raise InUseError(
                f"{what} is in use by {_holder(path)}: wait until that is done, or give another place"
            ) from None
        with contextlib.suppress(OSError):  # who it is is only told
            started = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
            path.write_text(f"process {os.getpid()} on {socket.gethostname()} since {started}\n")

    def release(self) -> None:
        """Let others write there."""
        self._lock.release()

    def __enter__(self) -> "Lock":
        return self

    def __exit__(self, *error: object) -> None:
        self.release()


def _holder(path: Path) -> str:
    try:
        return path.read_text().strip() or "another process"
    except OSError:
        return "another process"
