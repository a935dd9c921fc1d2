"""What a worker process of a batch does before its first item, told by dask's `--preload`.

Ctrl-C on a terminal reaches all processes in front of it. It is for the one that the researcher started, which ends the
workers in good order; a worker that ended by itself would look like one that an item has killed.
"""

import signal


def dask_setup(worker: object) -> None:
    """Leave Ctrl-C to the process that made this one."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
