"""`jaxsci compsep`: component maps from FITS maps of several frequencies, one sky at a time.

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
    help="Separation of CMB and foregrounds in FITS maps: fits of spectra, and linear combinations.",
)

Maps = Annotated[list[str], typer.Argument(metavar="MAP.fits...", help="One for each channel, or bundled:NAME.")]
Name = Annotated[str, typer.Option("--instrument", metavar="NAME", help="Such as LiteBIRD; its channels are the maps.")]
Frequency = Annotated[
    str, typer.Option("--frequency", metavar="GHZ,GHZ,...", help="In place of an instrument: those of the maps.")
]
Stokes = Annotated[str, typer.Option("--stokes", metavar="I|QU|IQU", help="What is read from the maps.")]
Mask = Annotated[str | None, typer.Option("--mask", metavar="MASK.fits", help="Pixels to use.", show_default=False)]
Units = Annotated[str, typer.Option("--units", help="That the maps are converted to.")]
Assume = Annotated[
    str | None, typer.Option("--assume", metavar="UNIT", help="Of maps whose header names none.", show_default=False)
]
Resolution = Annotated[
    float | None,
    typer.Option("--resolution", metavar="ARCMIN", help="Smooth all channels to this beam first.", show_default=False),
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace files that are there.")]
Device = Annotated[
    str, typer.Option("--device", metavar="auto|cpu|gpu", help="Where to compute; auto takes what is there.")
]


@app.command()
def separate(
    maps: Maps,
    out: Annotated[Path, typer.Option("-o", "--out", metavar="FOLDER", help="Where component maps are written.")],
    instrument: Name = "",
    frequency: Frequency = "",
    component: Annotated[
        list[str] | None,
        typer.Option(
            "--component",
            metavar="NAME=SPECTRUM",
            help="Several times; cmb=CMB, dust=ModifiedBlackBody and sync=PowerLaw by default.",
        ),
    ] = None,
    free: Annotated[
        list[str] | None,
        typer.Option("--free", metavar="NAME", help="A parameter to fit, several times; all by default."),
    ] = None,
    patches: Annotated[int, typer.Option("--patches", metavar="NSIDE", help="Where parameters vary; 0: nowhere.")] = 0,
    starts: Annotated[int, typer.Option("--starts", metavar="N", help="Start from so many more points.")] = 0,
    sigma: Annotated[
        str,
        typer.Option(
            "--sigma", metavar="X,X,...", help="Noise of a pixel of each channel; the instrument's by default."
        ),
    ] = "",
    stokes: Stokes = "QU",
    mask: Mask = None,
    units: Units = "uK_CMB",
    assume: Assume = None,
    resolution: Resolution = None,
    overwrite: Overwrite = False,
    device: Device = "auto",
) -> None:
    """Fit spectra and write component maps with their errors. Exit code 3 when a fit fails."""
    with bad_input():
        from ._task import commands

        sky = commands.Observed(maps, instrument, frequency, sigma, stokes, mask, units, assume, resolution)
        code = commands.separate(sky, commands.Model(component, free, patches, starts), out, overwrite, device)
    raise typer.Exit(code)


@app.command()
def ilc(
    maps: Maps,
    out: Annotated[Path, typer.Option("-o", "--out", metavar="CMB.fits", help="The map of the CMB to write.")],
    instrument: Name = "",
    frequency: Frequency = "",
    pooled: Annotated[bool, typer.Option("--pooled", help="One set of weights for Q and U together.")] = False,
    stokes: Stokes = "QU",
    mask: Mask = None,
    units: Units = "uK_CMB",
    assume: Assume = None,
    resolution: Resolution = None,
    overwrite: Overwrite = False,
    device: Device = "auto",
) -> None:
    """Combine the channels with the least variance that keeps the CMB, and show the weights."""
    with bad_input():
        from ._task import commands

        sky = commands.Observed(maps, instrument, frequency, "", stokes, mask, units, assume, resolution)
        commands.ilc(sky, pooled, out, overwrite, device)
