"""Ctrl-C on a command: the first ends it in order, a second one at once.

Python's own handler raises `KeyboardInterrupt` each time, so that an impatient second Ctrl-C would cut off the writing
of what was finished, in a traceback; and one that is raised within a model's callback is taken for a failure of the
model. Commands do their work within `orderly`, by way of `bad_input`; a run asks `check_interrupt` between members.
"""

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType

STOPPED = 130
"""The exit code of a command that was stopped by Ctrl-C, as shells have it."""

_ASKED = threading.Event()


def check_interrupt() -> None:
    """Raise `KeyboardInterrupt` where Ctrl-C was pressed, also if what it raised then was lost on the way."""
    if _ASKED.is_set():
        raise KeyboardInterrupt


@contextlib.contextmanager
def orderly() -> Iterator[None]:
    """Say, at the first Ctrl-C, that what is finished is kept; let a second one kill the process.

    Where another handler is set, or in another thread than the main one, all is left as it is.
    """
    mine = threading.current_thread() is threading.main_thread()
    if not mine or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield
        return

    def first(number: int, frame: FrameType | None) -> None:
        import typer  # here, because this module is imported with the commands' door

        signal.signal(signal.SIGINT, signal.SIG_DFL)
        _ASKED.set()
        typer.echo("stopping; what is finished is kept (Ctrl-C again stops at once)", err=True)
        raise KeyboardInterrupt

    _ASKED.clear()
    signal.signal(signal.SIGINT, first)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        _ASKED.clear()
