"""How a command ends on bad input, and how it shows warnings.

All commands, those of sciences too, do their work inside `bad_input`: a researcher sees one line that says what to do,
never a traceback of ours or the place in our source from which a warning came.
"""

import contextlib
import warnings
from collections.abc import Iterator

from ._errors import ConfigError
from ._interrupt import STOPPED, orderly

BAD_INPUT, CANNOT_WRITE = 2, 4
"""Exit codes: the input is wrong; the disk is full, or not to be written to."""


@contextlib.contextmanager
def bad_input() -> Iterator[None]:
    """End with one line on stderr, not in a traceback, on bad input or a full disk; show warnings as short notes.

    What does not fit into memory is bad input. Ctrl-C ends in exit code 130.
    """
    import typer

    plain = warnings.formatwarning
    warnings.formatwarning = _note  # who records warnings, as tests do, still gets them as they are
    try:
        with orderly():
            yield
    except (ConfigError, MemoryError) as error:
        typer.echo(f"error: {error or 'there is not enough memory'}", err=True)
        raise typer.Exit(BAD_INPUT) from error
    except KeyboardInterrupt as error:
        raise typer.Exit(STOPPED) from error
    except OSError as error:
        from ..parallel import WriteError  # here, because with it comes jax

        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(CANNOT_WRITE if isinstance(error, WriteError) else BAD_INPUT) from error
    finally:
        warnings.formatwarning = plain


def _note(message: Warning | str, *where: object, **more: object) -> str:
    return f"note: {message}\n"
