"""`jaxsci xpcs`: q maps, correlation, fits, averages and reports of measurements, one file at a time.

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
    help="X-ray photon correlation: q maps, correlation of frames, fits of g2, averages, reports.",
)

Result = Annotated[str, typer.Argument(metavar="RESULT.h5", help="A result file, or bundled:NAME.")]
Layout = Annotated[
    Path | None,
    typer.Option("--layout", metavar="FILE.toml", help='Where another beamline keeps what: g2 = "/entry/g2", ...'),
]
Model = Annotated[str, typer.Option("--model", help="SingleExponential, StretchedExponential, DoubleField, ...")]
Free = Annotated[
    list[str] | None,
    typer.Option("--free", metavar="NAME", help="A parameter to fit, several times; all without --set by default."),
]
Shared = Annotated[
    list[str] | None, typer.Option("--shared", metavar="NAME", help="A parameter with one value for all q-bins.")
]
Fixed = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="NAME=VALUE", help="The value of a parameter, held unless --free names it."),
]
Bounds = Annotated[
    list[str] | None, typer.Option("--bounds", metavar="NAME=LOW:HIGH", help="Bounds of a parameter, in its unit.")
]
Columns = Annotated[
    str | None, typer.Option("--columns", metavar="0,2,5-9", help="q-bins to fit, from 0; all by default.")
]
Device = Annotated[
    str, typer.Option("--device", metavar="auto|cpu|gpu", help="Where to compute; auto takes what is there.")
]
Law = Annotated[str, typer.Option("--power-law", metavar="NAME", help="The parameter whose power law of q is fitted.")]


@app.command()
def qmap(
    config: Annotated[Path, typer.Argument(metavar="FILE.toml", help="Tables geometry, mask and partition.")],
    out: Annotated[Path, typer.Option("-o", "--out", metavar="Q.h5", help="The q-map file to write.")],
    image: Annotated[
        Path | None,
        typer.Option("--image", metavar="FRAMES.h5", help="Frames whose mean a mask may look at, and which are drawn."),
    ] = None,
    dataset: Annotated[str, typer.Option("--dataset", help="Where the frames are in that file.")] = "/entry/data/data",
    plot: Annotated[Path | None, typer.Option("--plot", metavar="FILE.png", help="Draw mask and partition.")] = None,
    device: Device = "auto",
) -> None:
    """Write the mask and the partition that a TOML file describes, with the geometry of the detector."""
    with bad_input():
        from ._task import commands

        commands.qmap(config, out, image, dataset, plot, device)


@app.command()
def correlate(
    frames: Annotated[Path, typer.Argument(metavar="FRAMES.h5", help="An HDF5 file of frames.")],
    qmap: Annotated[Path, typer.Option("--qmap", metavar="Q.h5", help="A q-map file, as `qmap` writes it.")],
    out: Annotated[Path, typer.Option("-o", "--out", metavar="RESULT.h5", help="The result file to write.")],
    frame_time: Annotated[float, typer.Option("--frame-time", metavar="SECONDS", help="Between two frames.")],
    dataset: Annotated[str, typer.Option("--dataset", help="Where the frames are in the file.")] = "/entry/data/data",
    normalise: Annotated[
        str,
        typer.Option("--normalise", metavar="static|pooled|pixel", help="Over which pixels intensities are averaged."),
    ] = "static",
    two_time: Annotated[
        str, typer.Option("--two-time", metavar="1,2", help="q-bins, from 1, whose two-time matrices are written too.")
    ] = "",
    restart: Annotated[
        bool, typer.Option("--restart", help="Begin again, whatever an earlier run has left to go on from.")
    ] = False,
    device: Device = "auto",
) -> None:
    """Correlate frames as they are read; one that was stopped goes on where it was, with the same bits."""
    with bad_input():
        from ._task import commands

        how = commands.Correlating(frame_time, dataset, normalise, two_time, restart, device)
        commands.correlate(frames, qmap, out, how)


@app.command()
def fit(
    result: Result,
    model: Model = "StretchedExponential",
    free: Free = None,
    shared: Shared = None,
    fixed: Fixed = None,
    bounds: Bounds = None,
    columns: Columns = None,
    power_law: Law = "",
    layout: Layout = None,
    out: Annotated[Path | None, typer.Option("-o", "--out", metavar="FILE.csv", help="Write the fits.")] = None,
    plot: Annotated[Path | None, typer.Option("--plot", metavar="FILE.png", help="Draw them.")] = None,
    device: Device = "auto",
) -> None:
    """Fit a model of g2 to every q-bin and show the parameters. Exit code 3 when no q-bin can be fitted."""
    with bad_input():
        from ._task import commands

        asked = commands.Fitting(model, free, shared, fixed, bounds, columns, power_law, layout, device)
        code = commands.fit(result, asked, out, plot)
    raise typer.Exit(code)


@app.command()
def report(
    result: Result,
    model: Model = "StretchedExponential",
    free: Free = None,
    shared: Shared = None,
    fixed: Fixed = None,
    bounds: Bounds = None,
    columns: Columns = None,
    power_law: Law = "tau",
    layout: Layout = None,
    posterior: Annotated[
        bool, typer.Option("--posterior", help="Sample the posterior of each q-bin too, which takes numpyro.")
    ] = False,
    out: Annotated[
        Path | None, typer.Option("-o", "--out", metavar="FOLDER", help="By default runs/<name>-<time>.")
    ] = None,
    device: Device = "auto",
) -> None:
    """Fit a result file and write a folder with a report, tables and pictures. Exit codes as of `jaxsci run`."""
    with bad_input():
        from ._task import commands

        asked = commands.Fitting(model, free, shared, fixed, bounds, columns, power_law, layout, device)
        code = commands.report(result, asked, posterior, out)
    raise typer.Exit(code)


@app.command()
def average(
    results: Annotated[list[str], typer.Argument(metavar="RESULT.h5...", help="Result files of the same q map.")],
    out: Annotated[Path, typer.Option("-o", "--out", metavar="MEAN.h5", help="The result file to write.")],
    cutoff: Annotated[
        float,
        typer.Option("--cutoff", help="Leave out files whose baseline is so many deviations (MAD) from the others."),
    ] = 3.0,
    layout: Layout = None,
    device: Device = "auto",
) -> None:
    """Average g2 and scattering of several runs, weighted by their errors, without those that stand apart.

    Files that cannot be read are told and left out; exit code 3 when none is left.
    """
    with bad_input():
        from ._task import commands

        code = commands.average(results, out, cutoff, layout, device)
    raise typer.Exit(code)
