"""The command `jaxsci` and its arguments.

jax is imported inside the commands that need it, so that `--help` is quick; what they do is in `_commands`. Commands of
sciences, such as `jaxsci timing`, join by entry points.
"""

from pathlib import Path
from typing import Annotated

import typer

from ..runs import bad_input, commands
from ._complete import configs, starters

app = typer.Typer(
    name="jaxsci",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Fit, sample and evolve models over many data sets from a config file, and report.",
)


def _examples(*lines: str) -> str:
    """The end of a help text; the blank lines keep apart what would flow together."""
    return "\n\n".join(["Examples:", *lines])


File = Annotated[
    str, typer.Argument(metavar="FILE.toml", help="A config file, or bundled:NAME.", autocompletion=configs)
]
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
Interactive = Annotated[
    bool, typer.Option("--interactive", help="Write interactive.html too: figures to zoom into, in one file of 5 MB.")
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No bars and no tables: only where the report is.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object in place of tables.")]


@app.command(
    epilog=_examples(
        "jaxsci run fit.toml --import my_models.py",
        "jaxsci run bundled:timing/array.toml --out array",
        "jaxsci run fit.toml --set fit.max_steps=500 --json",
        "jaxsci run fit.toml --out night --resume",
        "jaxsci run fit.toml --interactive",
    )
)
def run(
    file: File,
    out: Out = None,
    imports: Imports = None,
    device: Device = "auto",
    settings: Settings = None,
    allow_outside: AllowOutside = False,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run that was stopped in --out.")] = False,
    interactive: Interactive = False,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Run what a config file describes and write a report.

    Exit code 0: all went well; 3: some failed; 2: bad input; 4: the disk is full or not to be written to; 130: stopped.
    """
    with bad_input():
        from . import _commands

        show = _commands.Show(quiet, as_json)
        code = _commands.run(file, out, device, imports or [], settings or [], allow_outside, resume, interactive, show)
    raise typer.Exit(code)


@app.command(
    epilog=_examples(
        "jaxsci batch items.csv -j 8",
        "jaxsci batch items.toml --executor slurm -j 40 --partition long --out survey",
        "jaxsci batch items.toml --out survey --resume",
        "srun -n 64 jaxsci batch items.toml --spmd --out survey",
    )
)
def batch(
    manifest: Annotated[
        Path,
        typer.Argument(metavar="MANIFEST", help="A .toml or .csv file of items: name, config, settings."),
    ],
    executor: Annotated[
        str, typer.Option("--executor", metavar="local|dask|slurm", help="Who works: processes here, dask's, or jobs.")
    ] = "local",
    workers: Annotated[int, typer.Option("-j", "--workers", metavar="N", help="How many work at a time.")] = 1,
    out: Annotated[
        Path | None,
        typer.Option("--out", help="Output folder; by default runs/<manifest name>-<UTC time>.", show_default=False),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on in --out: only what is missing, failed or damaged is run.")
    ] = False,
    retries: Annotated[
        int, typer.Option("--retries", metavar="K", help="Tries beside the first of an item that ends its worker.")
    ] = 1,
    imports: Imports = None,
    device: Device = "auto",
    allow_outside: AllowOutside = False,
    interactive: Interactive = False,
    scheduler: Annotated[str, typer.Option("--scheduler", metavar="ADDRESS", help="Of dask, as tcp://host:8786.")] = "",
    partition: Annotated[str, typer.Option("--partition", help="Of SLURM.")] = "",
    time: Annotated[str, typer.Option("--time", help="Limit of each job of SLURM; another follows.")] = "01:00:00",
    memory: Annotated[str, typer.Option("--memory", help="Of each job of SLURM.")] = "4GB",
    sbatch: Annotated[
        list[str] | None, typer.Option("--sbatch", metavar='"--account=x"', help="More options of sbatch; repeatable.")
    ] = None,
    spmd: Annotated[
        bool, typer.Option("--spmd", help="This is one of several processes, as of srun -n N: share the items.")
    ] = False,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Run many configs, or one with many settings, on workers that may die, and write one report.

    Exit codes are those of run.
    """
    with bad_input():
        from ..runs import SPMD, Shared, Workers
        from . import _commands

        chosen = Workers(SPMD if spmd else executor, workers, scheduler, partition, time, memory, tuple(sbatch or ()))
        shared = Shared(tuple(imports or ()), device, allow_outside, interactive)
        code = _commands.batch(manifest, out, chosen, shared, resume, retries, _commands.Show(quiet, as_json))
    raise typer.Exit(code)


@app.command(epilog=_examples("jaxsci demo", "jaxsci demo --out my-first-report"))
def demo(
    out: Out = None,
    device: Device = "auto",
    interactive: Interactive = False,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Fit the nine bundled pulsars in one batch, by generalised least squares, and write a report."""
    with bad_input():
        from . import _commands

        show = _commands.Show(quiet, as_json)
        code = _commands.run("bundled:quickstart.toml", out, device, [], [], False, False, interactive, show)
    raise typer.Exit(code)


@app.command(epilog=_examples("jaxsci new curvefit my-fit", "jaxsci new timing"))
def new(
    kind: Annotated[
        str,
        typer.Argument(metavar="SCIENCE", help="What to start with, such as curvefit.", autocompletion=starters),
    ],
    folder: Annotated[
        Path | None, typer.Argument(metavar="[DIR]", help="Where to write; a new folder of that name by default.")
    ] = None,
) -> None:
    """Write a commented config to start from, with a model of your own or data beside it."""
    with bad_input():
        from . import _new

        command = _new.new(kind, folder)
    typer.echo(f"Now run: {command}")


@app.command(
    epilog=_examples("jaxsci check fit.toml --import my_models.py", "jaxsci check bundled:compsep/wmap.toml --json")
)
def check(
    file: File,
    imports: Imports = None,
    settings: Settings = None,
    allow_outside: AllowOutside = False,
    as_json: Json = False,
) -> None:
    """Check everything in a config file without running it.

    Exit code 0: it is fine; 3: some members would fail; 2: bad input.
    """
    with bad_input():
        from . import _commands

        code = _commands.check(file, imports or [], settings or [], allow_outside, as_json)
    raise typer.Exit(code)


@app.command(
    name="list", epilog=_examples("jaxsci list", "jaxsci list solvers", "jaxsci list models --import my_models.py")
)
def list_names(
    kind: Annotated[
        str | None,
        typer.Argument(metavar="[KIND]", help="Such as models, solvers, losses or configs; all kinds by default."),
    ] = None,
    imports: Imports = None,
    as_json: Json = False,
) -> None:
    """List the names that a config may use, and the bundled configs."""
    with bad_input():
        from . import _commands

        code = _commands.list_names(kind, imports or [], as_json)
    raise typer.Exit(code)


@app.command(epilog=_examples("jaxsci doctor", "jaxsci doctor --json > doctor.json"))
def doctor(as_json: Json = False) -> None:
    """Look at what is installed here, say what works, and the one line that enables the rest.

    Exit code 0: what is installed works; 3: something that is installed does not.
    """
    with bad_input():
        from . import _doctor

        code = _doctor.doctor(as_json)
    raise typer.Exit(code)


def _show_version(wanted: bool | None) -> None:
    if wanted:
        from .. import __version__

        typer.echo(f"jaxsci {__version__}")
        raise typer.Exit


@app.callback(epilog=_examples("jaxsci demo", "jaxsci new curvefit my-fit", "jaxsci doctor"))
def main(
    version: Annotated[
        bool | None, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version.")
    ] = None,
) -> None:
    """Fit, sample and evolve models over many data sets from a config file, and report."""


def _add_commands() -> None:
    """The commands of the sciences that are installed; one that is broken must not take the others with it."""
    for name, load in commands():
        try:
            app.add_typer(load(), name=name)
        except (ImportError, AttributeError) as error:
            typer.echo(f"note: the commands of {name!r} cannot be loaded: {error}", err=True)


_add_commands()
