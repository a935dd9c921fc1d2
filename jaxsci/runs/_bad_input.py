"""How a command ends on bad input, and how it shows warnings.

All commands, those of sciences too, do their work inside `bad_input`: a researcher sees one line that says what to do,
never a traceback of ours or the place in our source from which a warning came.
"""

import contextlib
import warnings
from collections.abc import Iterator

from ._errors import ConfigError
from ._interrupt import STOPPED, orderly

BAD_INPUT = 2


@contextlib.contextmanager
def bad_input() -> Iterator[None]:
    """End on bad input with one line on stderr and exit code 2, not in a traceback; show warnings as short notes.

    So does what does not fit into memory. Ctrl-C ends in exit code 130.
    """
    import typer

    plain = warnings.formatwarning
    warnings.formatwarning = _note  # who records warnings, as tests do, still gets them as they are
    try:
        with orderly():
            yield
    except (ConfigError, OSError, MemoryError) as error:
        typer.echo(f"error: {error or 'there is not enough memory'}", err=True)
        raise typer.Exit(BAD_INPUT) from error
    except KeyboardInterrupt as error:
        raise typer.Exit(STOPPED) from error
    finally:
        warnings.formatwarning = plain


def _note(message: Warning | str, *where: object, **more: object) -> str:
    return f"note: {message}\n"
