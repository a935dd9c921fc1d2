"""How many programs JAX has compiled in this process, and what becomes of them when they are too many.

A process may hold 65,530 pieces of memory on Linux, each program takes some, and one more ends in a segmentation fault
within whatever is compiled then. So a process that lives long, such as a service or a worker of a batch, gives its
programs back before it comes to that. Whoever compiles for a user asks: `compiled` in `fitting`, and workers.
"""

import gc
import logging
from pathlib import Path

import jax

_COMPILED = "/jax/core/compile/backend_compile_duration"
_BETWEEN = 256  # programs compiled between two looks: each takes some ten pieces, and a look some 10 ms
_MOST_PIECES = 45_000
_LOG = logging.getLogger(__name__)


class _Count:
    """Programs compiled so far, and how many of them there were at the last look; none where there is no limit."""

    def __init__(self, pieces: Path) -> None:
        self.compiled = self.looked = 0
        self.pieces = pieces
        if pieces.exists():
            jax.monitoring.register_event_duration_secs_listener(self._hear)

    def _hear(self, event: str, duration_secs: float, **more: str | int) -> None:
        self.compiled += event == _COMPILED


_COUNT = _Count(Path("/proc/self/maps"))


def give_back_programs() -> None:
    """Drop all compiled programs where the process holds too many pieces of memory.

    Those still in use are compiled once more, or come from the persistent cache. Without many new programs since the
    last call it costs nothing.
    """
    if _COUNT.compiled - _COUNT.looked < _BETWEEN:
        return
    _COUNT.looked = _COUNT.compiled
    if _COUNT.pieces.read_bytes().count(b"\n") > _MOST_PIECES:
        _LOG.info("dropping all compiled programs: the process holds nearly as many pieces of memory as it may")
        jax.clear_caches()
        gc.collect()
