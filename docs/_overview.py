"""Draw docs/figures/overview.png, the picture of the README: `python docs/_overview.py`.

A panel for each of four sciences: real pulsars, a simulated sky, particles in a double well, scattering with its
posterior. All data are bundled, so that anyone may draw it again.
"""

from pathlib import Path

import jax
import jax.numpy as jnp
import matplotlib
import numpy as np

import jaxsci as js
from jaxsci import compsep, meanfield, timing, xpcs
from jaxsci.compsep.plot import plot_map
from jaxsci.evolution import SDE, evolve
from jaxsci.meanfield.plot import plot_density_ridge
from jaxsci.runs import bundled_files
from jaxsci.timing.plot import plot_residuals
from jaxsci.xpcs.plot import plot_g2


def pulsar(ax):
    """Residuals of one of the nine pulsars of `jaxsci demo` after its fit."""
    model, toas = timing.bundled("B1855+09")
    solution = timing.fit(model, toas)
    plot_residuals(solution, toas, ax)
    ax.set_title(f"Timing: B1855+09, {toas.utc.size} TOAs, {len(solution.names)} parameters")


def sky(ax):
    """The CMB out of fifteen channels with dust and synchrotron over it."""
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
    plot_map(found.component("cmb")[0], "CMB Q (uK_CMB)", ax)
    beta, error = (float(np.ravel(x["dust.beta"])[0]) for x in (found.values, found.std))
    ax.set_title(f"Component separation: dust index {beta:.4f} ± {error:.4f}")


def particles(ax):
    """The density of particles that find the second well, beside finite volumes."""
    box = meanfield.Box(-2.5, 2.5)
    grid = meanfield.Grid(box, 120)
    sde = SDE(meanfield.DoubleWell(1.0, 1.0), 0.9, box)
    start = meanfield.Gaussian(-1.0, 0.15, box).ensemble(20_000, key=1)
    times = jnp.linspace(0.0, 4.0, 401)
    found = evolve(sde, start, times, save={"density": meanfield.SpectralKDE(grid)}, every=100)
    first = jnp.maximum(found["density"].values[0], 0.0)
    exact = meanfield.solve_fokker_planck(sde.drift, 0.9**2 / 2, first, grid, found.ts)
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


def main():
    """Draw all four and write the file."""
    js.enable_x64()
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    fig, axes = plt.subplots(2, 2, figsize=(11, 6.6), layout="constrained")
    for draw, ax in zip((pulsar, sky, particles, scattering), axes.flat, strict=True):
        draw(ax)
        ax.title.set_fontsize(10.5)
    fig.savefig(Path(__file__).parent / "figures" / "overview.png", dpi=110)


if __name__ == "__main__":
    main()
