"""The command `jaxsci` and its arguments.

jax is imported inside the commands that need it, so that `--help` is quick; what they do is in `_commands`. Commands of
sciences, such as `jaxsci timing`, join by entry points.
"""

from pathlib import Path
from typing import Annotated

import typer

from ..runs import bad_input, commands

app = typer.Typer(
    name="jaxsci",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Fit models to many data sets from a config file, and report.",
)

File = Annotated[str, typer.Argument(metavar="FILE.toml", help="A config file, or bundled:NAME.")]
Out = Annotated[
    Path | None,
    typer.Option("--out", help="Output folder; by default runs/<config name>-<UTC time>.", show_default=False),
]
Device = Annotated[
    str, typer.Option("--device", metavar="auto|cpu|gpu", help="Where to compute; auto takes what is there.")
]
Imports = Annotated[
    list[Path] | None,
    typer.Option(
        "--import", metavar="FILE.py", help="Run this file; its classes (models, losses, solvers, ...) get names."
    ),
]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="a.b=value", help="Change the config: fit.max_steps=500, data.0.start.tau=3."),
]
AllowOutside = Annotated[
    bool, typer.Option("--allow-outside", help="Let the config name files outside its own folder.")
]


@app.command()
def run(
    file: File,
    out: Out = None,
    imports: Imports = None,
    device: Device = "auto",
    settings: Settings = None,
    allow_outside: AllowOutside = False,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run that was stopped in --out.")] = False,
) -> None:
    """Fit what a config file describes and write a report.

    Exit code 0: all fits fine; 3: some failed; 2: bad input; 4: the disk is full or not to be written to; 130: stopped.
    """
    with bad_input():
        from . import _commands

        code = _commands.run(file, out, device, imports or [], settings or [], allow_outside, resume)
    raise typer.Exit(code)


@app.command()
def demo(out: Out = None, device: Device = "auto") -> None:
    """Fit the nine bundled pulsars in one batch, by generalised least squares, and write a report."""
    with bad_input():
        from . import _commands

        code = _commands.run("bundled:quickstart.toml", out, device, [], [], False)
    raise typer.Exit(code)


@app.command()
def new(
    kind: Annotated[str, typer.Argument(metavar="SCIENCE", help="What to start with, such as curvefit.")],
    folder: Annotated[
        Path | None, typer.Argument(metavar="[DIR]", help="Where to write; a new folder of that name by default.")
    ] = None,
) -> None:
    """Write a commented config, a model of your own and a small data file, to start from."""
    with bad_input():
        from . import _new

        command = _new.new(kind, folder)
    typer.echo(f"Now run: {command}")


@app.command()
def check(file: File, imports: Imports = None, settings: Settings = None, allow_outside: AllowOutside = False) -> None:
    """Check everything in a config file without fitting."""
    with bad_input():
        from . import _commands

        code = _commands.check(file, imports or [], settings or [], allow_outside)
    raise typer.Exit(code)


@app.command(name="list")
def list_names(
    kind: Annotated[
        str | None, typer.Argument(metavar="[KIND]", help="Such as models, solvers or losses; all kinds by default.")
    ] = None,
    imports: Imports = None,
) -> None:
    """List the names that a config may use."""
    with bad_input():
        from . import _commands

        code = _commands.list_names(kind, imports or [])
    raise typer.Exit(code)


def _show_version(wanted: bool | None) -> None:
    if wanted:
        from .. import __version__

        typer.echo(f"jaxsci {__version__}")
        raise typer.Exit


@app.callback()
def main(
    version: Annotated[
        bool | None, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version.")
    ] = None,
) -> None:
    """Fit models to many data sets from a config file, and report."""


def _add_commands() -> None:
    """The commands of the sciences that are installed; one that is broken must not take the others with it."""
    for name, load in commands():
        try:
            app.add_typer(load(), name=name)
        except (ImportError, AttributeError) as error:
            typer.echo(f"note: the commands of {name!r} cannot be loaded: {error}", err=True)


_add_commands()
