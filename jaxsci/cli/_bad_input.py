"""How a command ends on bad input."""

import contextlib
from collections.abc import Iterator

import typer

from ._errors import ConfigError

BAD_INPUT = 2


@contextlib.contextmanager
def bad_input() -> Iterator[None]:
    """Bad input ends in one line on stderr and exit code 2, not in a traceback."""
    try:
        yield
    except (ConfigError, OSError) as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(BAD_INPUT) from error
