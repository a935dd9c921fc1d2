"""`jaxsci timing`: pulsars from par and tim files, one at a time.

The entry point of these commands in the group `jaxsci.commands`. Here are their arguments; jax is imported, with
`_task.commands`, by the commands themselves, so that `--help` is quick.
"""

from pathlib import Path
from typing import Annotated

import typer

from ..runs import bad_input

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    help="Pulsar timing from par and tim files: load, fit, residuals, simulate.",
)

Par = Annotated[str, typer.Argument(metavar="PAR", help="A par file, or bundled:NAME, which needs no TIM.")]
Tim = Annotated[
    Path | None,
    typer.Argument(metavar="[TIM]", help="A .tim or .tim.xz file, which PINT reads, or .npz.", show_default=False),
]
Ephem = Annotated[str | None, typer.Option("--ephem", help="In place of the par file's EPHEM.", show_default=False)]
Clocks = Annotated[
    Path | None,
    typer.Option("--clock-dir", help="A folder of clock files with an index.txt; by default PINT fetches them."),
]
Unknown = Annotated[
    str,
    typer.Option(
        "--unknown", metavar="warn|error", help="Lines of the par file that change nothing: tell of them, or refuse."
    ),
]
Duplicates = Annotated[
    str,
    typer.Option(
        "--duplicates", metavar="keep|drop|error", help="TOAs that are there more than once: keep counts each."
    ),
]


@app.command()
def load(
    par: Par,
    tim: Tim = None,
    out: Annotated[Path | None, typer.Option("-o", "--out", metavar="FILE.npz")] = None,
    ephem: Ephem = None,
    clock_dir: Clocks = None,
    unknown: Unknown = "warn",
    duplicates: Duplicates = "keep",
) -> None:
    """Read TOAs once and keep all that a fit needs in an npz file, which needs neither PINT nor an ephemeris."""
    with bad_input():
        from ._task import commands
        from ._task.load import Reading

        commands.load(par, tim, out, Reading(ephem, clock_dir, unknown, duplicates))


@app.command()
def fit(
    par: Par,
    tim: Tim = None,
    free: Annotated[
        list[str] | None,
        typer.Option(
            "--free",
            metavar="NAME",
            help="What to fit; by default the par file's flags. noise.EFAC and the like fit its noise too.",
        ),
    ] = None,
    out: Annotated[Path | None, typer.Option("-o", "--out", metavar="NEW.par", help="Write the new par file.")] = None,
    ephem: Ephem = None,
    clock_dir: Clocks = None,
    unknown: Unknown = "warn",
    duplicates: Duplicates = "keep",
    scale_covariance: Annotated[
        bool,
        typer.Option("--scale-covariance", help="Multiply errors by sqrt(chi2 / dof), as tempo2 does."),
    ] = False,
) -> None:
    """Fit a timing model and show its parameters. Exit code 3 when the fit fails."""
    with bad_input():
        from ._task import commands
        from ._task.load import Reading

        reading = Reading(ephem, clock_dir, unknown, duplicates)
        code = commands.fit(par, tim, free, out, reading, scale_covariance)
    raise typer.Exit(code)


@app.command()
def residuals(
    par: Par,
    tim: Tim = None,
    out: Annotated[Path | None, typer.Option("-o", "--out", metavar="FILE.csv", help="Write a table.")] = None,
    epochs: Annotated[
        Path | None, typer.Option("--epochs", metavar="FILE.csv", help="Write a table of their averages by epoch.")
    ] = None,
    plot: Annotated[Path | None, typer.Option("--plot", metavar="FILE.png", help="Draw them.")] = None,
    ephem: Ephem = None,
    clock_dir: Clocks = None,
    unknown: Unknown = "warn",
    duplicates: Duplicates = "keep",
) -> None:
    """Residuals of a par file as it stands."""
    with bad_input():
        from ._task import commands
        from ._task.load import Reading

        commands.residuals(par, tim, out, plot, Reading(ephem, clock_dir, unknown, duplicates), epochs)


@app.command()
def simulate(
    par: Par,
    tim: Tim = None,
    out: Annotated[
        Path | None, typer.Option("-o", "--out", metavar="FILE", help="FILE.npz, or FILE.tim where TIM is one.")
    ] = None,
    seed: Annotated[
        int | None, typer.Option("--seed", help="Add the par file's noise; without it residuals are 0.")
    ] = None,
    mjd: Annotated[
        tuple[float, float] | None,
        typer.Option("--mjd", metavar="FROM TO", help="In place of a TIM: when it is observed.", show_default=False),
    ] = None,
    cadence: Annotated[
        float | None,
        typer.Option("--cadence", metavar="DAYS", help="With --mjd: from date to date; 14.", show_default=False),
    ] = None,
    frequency: Annotated[
        list[float] | None,
        typer.Option("--frequency", metavar="MHZ", help="With --mjd: of each TOA of a date; 1400.", show_default=False),
    ] = None,
    error: Annotated[
        float | None,
        typer.Option("--error", metavar="US", help="With --mjd: the error of a TOA; 1.", show_default=False),
    ] = None,
    observatory: Annotated[
        str | None,
        typer.Option("--observatory", help="With --mjd: as in tim files, @; gbt.", show_default=False),
    ] = None,
    flag: Annotated[
        list[str] | None,
        typer.Option("--flag", metavar="NAME=VALUE", help="With --mjd: a flag of all TOAs.", show_default=False),
    ] = None,
    ephem: Ephem = None,
    clock_dir: Clocks = None,
    unknown: Unknown = "warn",
    duplicates: Duplicates = "keep",
) -> None:
    """TOAs as the model predicts them, where, when and how well TIM observed; or by a plan, with --mjd."""
    with bad_input():
        from ._task import commands
        from ._task.load import Reading

        flags = None if flag is None else dict(commands.flag_of(text) for text in flag)
        given = {
            "cadence": cadence, "frequency": frequency, "error": error, "observatory": observatory, "flags": flags,
        }  # fmt: skip
        plan = commands.plan_of(mjd, {name: value for name, value in given.items() if value is not None})
        commands.simulate(par, tim, out, seed, Reading(ephem, clock_dir, unknown, duplicates), plan)
