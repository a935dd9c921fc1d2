"""Draw the pictures of the documentation into docs/figures: `python docs/_figures.py [NAME...]`.

Those that a page's own code saves are drawn by running the page; the others by the functions here, from bundled data:
`overview`, the picture of the README with a panel for each of four sciences, `timing`, `compsep` and `meanfield`. Each
is written twice, for light pages and for dark ones.
"""

import contextlib
import sys
import tempfile
import types
from pathlib import Path
from unittest import mock

import jax
import jax.numpy as jnp
import matplotlib
import numpy as np
from _pages import blocks
from PIL import Image

import jaxsci as js
from jaxsci import compsep, meanfield, timing, xpcs
from jaxsci.compsep.plot import plot_map
from jaxsci.evolution import SDE, evolve
from jaxsci.meanfield.plot import plot_density_map, plot_density_ridge, plot_fan
from jaxsci.runs import bundled_files
from jaxsci.timing.plot import plot_residuals, plot_whitened
from jaxsci.xpcs.plot import plot_g2


def pulsar(ax):
    """Residuals of one of the nine pulsars of `jaxsci demo` after its fit."""
    model, toas = timing.bundled("B1855+09")
    solution = timing.fit(model, toas)
    plot_residuals(solution, toas, ax)
    ax.set_title(f"Timing: B1855+09, {toas.utc.size} TOAs, {len(solution.names)} parameters")


def separated():
    """(simulated maps of fifteen channels, the components separated out of them)."""
    parts = np.load(bundled_files()["compsep/sky16.npz"])
    litebird = compsep.Instrument.named("LiteBIRD")
    mixing = compsep.MixingMatrix(
        cmb=compsep.CMB(), dust=compsep.ModifiedBlackBody(1.54, 20.0), sync=compsep.PowerLaw(-3.0)
    )
    to_cmb = [float(compsep.conversion(nu, "uK_RJ", "uK_CMB")) for nu in (353.0, 30.0)]
    truth = np.stack([parts["cmb_uKcmb"], parts["dust353_uKrj"] * to_cmb[0], parts["sync30_uKrj"] * to_cmb[1]])[:, 1:]
    npix = truth.shape[-1]
    noise = litebird.sigma(npix, "QU")[:, :, None] * jax.random.normal(jax.random.key(1), (15, 2, npix))
    maps = jnp.einsum("fc,csp->fsp", mixing.eval(litebird.frequency), truth) + noise
    found = compsep.separate(mixing, litebird, maps, free=("dust.beta", "dust.temp", "sync.beta"))
    return maps, found


def sky(ax):
    """The CMB out of fifteen channels with dust and synchrotron over it."""
    _, found = separated()
    plot_map(found.component("cmb")[0], "CMB Q (uK_CMB)", ax)
    beta, error = (float(np.ravel(x["dust.beta"])[0]) for x in (found.values, found.std))
    ax.set_title(f"Component separation: dust index {beta:.4f} ± {error:.4f}")


def wells():
    """(particles that find the second well, their grid, the same by finite volumes)."""
    box = meanfield.Box(-2.5, 2.5)
    grid = meanfield.Grid(box, 120)
    sde = SDE(meanfield.DoubleWell(1.0, 1.0), 0.9, box)
    start = meanfield.Gaussian(-1.0, 0.15, box).ensemble(20_000, key=1)
    times = jnp.linspace(0.0, 4.0, 401)
    found = evolve(sde, start, times, save={"density": meanfield.SpectralKDE(grid)}, every=100)
    first = jnp.maximum(found["density"].values[0], 0.0)
    exact = meanfield.solve_fokker_planck(sde.drift, 0.9**2 / 2, first, grid, found.ts)
    return found, grid, exact


def particles(ax):
    """The density of particles that find the second well, beside finite volumes."""
    found, grid, exact = wells()
    plot_density_ridge(found, ax, grid=grid, reference=exact, most=5)
    ax.set_title("Particles: 20,000 in a double well")


def scattering(ax):
    """g2 of a q-bin with the band of its posterior."""
    curves = xpcs.read_result(bundled_files()["xpcs/diffusion.h5"]).curves
    fits = xpcs.fit_g2(curves, xpcs.SingleExponential)
    posterior = js.sample(fits, curves.datasets(), key=jax.random.key(0))
    assert all(posterior.check().values()), posterior.check()
    column = 5
    plot_g2(curves, column, ax, fit=fits[column], posterior=posterior[column])
    tau, error = (float(x["tau"]) for x in (fits[column].values, fits[column].std))
    ax.set_title(f"Photon correlation: tau {1e3 * tau:.2f} ± {1e3 * error:.2f} ms")
    ax.legend(frameon=False, fontsize="small")


def overview():
    """All four beside each other."""
    from matplotlib import pyplot as plt

    fig, axes = plt.subplots(2, 2, figsize=(11, 6.6), layout="constrained")
    for draw, ax in zip((pulsar, sky, particles, scattering), axes.flat, strict=True):
        draw(ax)
        ax.title.set_fontsize(10.5)
    return fig


def of_a_pulsar():
    """Its residuals, and what is left of them when the most probable realisation of the noise is taken away."""
    from matplotlib import pyplot as plt

    model, toas = timing.bundled("B1855+09")
    solution = timing.fit(model, toas)
    fig, axes = plt.subplots(2, 1, figsize=(8.4, 6), layout="constrained", sharex=True)
    plot_residuals(solution, toas, axes[0])
    axes[0].set_title(f"B1855+09, {toas.utc.size} TOAs, {len(solution.names)} parameters", fontsize=11)
    plot_whitened(solution, toas, axes[1])
    return fig


def of_a_sky():
    """What a channel sees, and the components in it."""
    from matplotlib import pyplot as plt

    maps, found = separated()
    fig, axes = plt.subplots(2, 2, figsize=(9, 5.6), layout="constrained")
    plot_map(maps[-1, 0], "402 GHz, Q (uK_CMB)", axes[0, 0])
    for name, ax in zip(("cmb", "dust", "sync"), axes.flat[1:], strict=True):
        plot_map(found.component(name)[0], f"{name}, Q (uK_CMB)", ax)
    return fig


def of_particles():
    """Particles in a double well beside finite volumes: ridges, a map over time, quantiles."""
    from matplotlib import pyplot as plt

    found, grid, exact = wells()
    fig, axes = plt.subplots(1, 3, figsize=(12, 4), layout="constrained")
    plot_density_ridge(found, axes[0], grid=grid, reference=exact, most=5)
    plot_density_map(found, axes[1], grid=grid)
    plot_fan(found, axes[2], grid=grid)
    return fig


DRAWN = {"overview": overview, "timing": of_a_pulsar, "compsep": of_a_sky, "meanfield": of_particles}
PAGES = {
    "decay": "getting-started",
    "profile": "curvefit",
    "region": "curvefit",
    "sampling": "sampling",
    "xpcs": "xpcs",
    "xpcs_ageing": "xpcs",
}
FIGURES = Path(__file__).parent / "figures"
INK, PAPER = "#d5d8de", "#16181d"  # of dark pages


def darken(fig):
    """Give a figure a dark ground: what is black or white becomes light or dark, colours stay."""
    from matplotlib.collections import Collection
    from matplotlib.colors import to_rgb, to_rgba
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch
    from matplotlib.text import Text

    def other(colour):
        if len(colour) == 4 and not colour[3]:
            return colour
        red, green, blue = to_rgb(colour)
        grey = max(red, green, blue) - min(red, green, blue) < 0.05
        if not grey or 0.45 < red < 0.7:
            return colour
        return INK if red < 0.5 else PAPER

    for artist in fig.findobj():
        if isinstance(artist, Patch):
            artist.set(facecolor=other(artist.get_facecolor()), edgecolor=other(artist.get_edgecolor()))
        elif isinstance(artist, Text):
            artist.set_color(other(to_rgba(artist.get_color())))
        elif isinstance(artist, Line2D):
            edge = other(to_rgba(artist.get_markeredgecolor()))
            artist.set_color(other(to_rgba(artist.get_color())))
            artist.set_markeredgecolor(edge)
        elif isinstance(artist, Collection) and artist.get_array() is None:
            artist.set_edgecolor([other(colour) for colour in artist.get_edgecolor()])
            artist.set_facecolor([other(colour) for colour in artist.get_facecolor()])


def write(fig, path):
    """The figure as it is, and its dark twin."""
    name = Path(path).stem
    for place in (FIGURES / f"{name}.png", FIGURES / f"{name}-dark.png"):
        SAVE(fig, place, dpi=180, bbox_inches="tight")
        Image.open(place).convert("RGB").quantize(255).save(place, optimize=True)  # a third of the bytes
        darken(fig)


def main(*names):
    """Draw those that are named, or all."""
    js.enable_x64()
    names = names or (*DRAWN, *PAGES)
    for name in names:
        if name in DRAWN:
            write(DRAWN[name](), f"{name}.png")
    with mock.patch.object(Figure, "savefig", lambda fig, path, **_: write(fig, path)):
        for page in sorted({PAGES[name] for name in names if name in PAGES}):
            known: dict[str, object] = {"__name__": page}
            sys.modules[page] = types.ModuleType(page)  # where the classes of the page look for their annotations
            path = Path(__file__).parent / f"{page}.md"
            with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
                for block in blocks(path):
                    if block.is_run or (block.info.startswith("python") and "savefig(" in block.text):
                        exec(compile(block.text, path, "exec"), known)


if __name__ == "__main__":
    matplotlib.use("Agg")
    from matplotlib.figure import Figure

    SAVE = Figure.savefig
    main(*sys.argv[1:])
