"""Pictures of ensembles, densities and games: what they draw, on which axes, and what they refuse."""

import jax.numpy as jnp
import matplotlib
import numpy as np
import pytest

from jaxsci.evolution import SDE, Moments, Snapshots, evolve
from jaxsci.meanfield import plot
from jaxsci.meanfield._boundary import Box, Grid
from jaxsci.meanfield._density import SpectralKDE
from jaxsci.meanfield._drift import OrnsteinUhlenbeck
from jaxsci.meanfield._finite_volume import DensityPath
from jaxsci.meanfield._game import Equilibrium
from jaxsci.meanfield._initial import Gaussian
from jaxsci.meanfield._select import Candidate, Choice, EvolvedDensity

matplotlib.use("Agg")
GRID = Grid(Box(-2.0, 2.0), 20)
TS = np.linspace(0.0, 1.0, 5)


@pytest.fixture(autouse=True)
def _closed():
    import matplotlib.pyplot as plt

    yield
    plt.close("all")


@pytest.fixture(scope="module")
def evolution():
    sde = SDE(OrnsteinUhlenbeck(1.0, 0.5), 0.5, GRID.box)
    save = {"density": SpectralKDE(GRID, 0.2, nodes=64, coefficients=50), "all": Snapshots(), "moments": Moments()}
    return evolve(sde, Gaussian(0.0, 0.3).ensemble(400, 1), TS, save=save)


def path(shape=(20,), ts=TS, mass=None):
    """Densities that are uniform, on the grid of the tests or a square."""
    grid = GRID if len(shape) == 1 else Grid(Box([0.0, 0.0], [1.0, 1.0]), shape)
    values = np.full((ts.size, *shape), 1 / (grid.size * float(grid.volume)))
    mass = np.ones(ts.size) if mass is None else mass
    zeros = jnp.zeros((ts.size, len(shape), 2))
    return DensityPath(jnp.asarray(ts), jnp.asarray(values), jnp.asarray(mass), zeros, grid)


def equilibrium(maps=4):
    residuals = jnp.where(jnp.arange(6) < maps, 10.0 ** -jnp.arange(6.0), jnp.nan)
    found = path()
    drift = (jnp.zeros((5, 21)),)
    return Equilibrium(
        found.ts, found.density, found.density, drift, residuals, residuals[maps - 1], jnp.asarray(maps),
        jnp.asarray(1e-8), jnp.asarray(False), GRID,
    )  # fmt: skip


@pytest.fixture
def ax():
    import matplotlib.pyplot as plt

    return plt.subplots()[1]


def test_ridge(evolution, ax):
    assert plot.plot_density_ridge(evolution, ax, grid=GRID, most=3) is ax
    curves = [line for line in ax.lines if line.get_xdata().size == 20]
    assert len(curves) == 3
    assert {text.get_text() for text in ax.texts} == {"t = 0", "t = 0.5", "t = 1"}
    first = np.asarray(evolution["density"].values[0])
    np.testing.assert_allclose(curves[0].get_ydata(), first)
    assert curves[1].get_ydata().min() > curves[0].get_ydata().min(), "the second stands above the first"


def test_ridge_beside_a_reference_draws_the_times_in_common(evolution, ax):
    known = path(ts=np.array([0.25, 1.0]))
    plot.plot_density_ridge(evolution, ax, grid=GRID, reference=known)
    assert {text.get_text() for text in ax.texts} == {"t = 0", "t = 0.25", "t = 1"}
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["density", "reference"]
    dashed = [line for line in ax.lines if line.get_linestyle() == "--" and line.get_xdata().size]
    assert len(dashed) == 2


def test_map(evolution, ax):
    plot.plot_density_map(evolution, ax, grid=GRID)
    (mesh,) = ax.collections
    assert mesh.get_array().shape == (20, 5)
    assert ax.get_xlim() == (0.0, 1.0)
    assert ax.get_ylim() == (-2.0, 2.0)
    plot.plot_density_map(path(), plot._axes(None))


@pytest.mark.parametrize("name", ["all", "density"])
def test_fan(evolution, ax, name):
    plot.plot_fan(evolution, ax, grid=GRID, name=name, paths=3)
    median = next(line for line in ax.lines if line.get_label() == "median").get_ydata()
    positions = np.asarray(evolution["all"].positions)[:, :, 0]
    np.testing.assert_allclose(median, np.median(positions, axis=1), atol=0.005 if name == "all" else 0.06)
    shown = [text.get_text() for text in ax.get_legend().get_texts()]
    assert shown == ["median", "50 %", "80 %", "95 %"]


def test_game(ax):
    plot.plot_game(equilibrium(), ax, label="one")
    plot.plot_game(equilibrium(6), ax, label="other", colour="k")
    curves = [line for line in ax.lines if line.get_marker() == "o"]
    assert [curve.get_xdata().size for curve in curves] == [4, 6]
    assert ax.get_yscale() == "log"
    assert [text.get_text() for text in ax.texts] == ["asked for: 1e-08"]
    plot.plot_density_ridge(equilibrium(), plot._axes(None))


def test_density_on_a_plane(ax):
    found = path((6, 8))
    assert plot.plot_density_2d(found, ax, at=2, limit=3.0) is ax
    assert ax.get_title() == "t = 0.5"
    assert ax.collections[0].get_array().shape == (8, 6), "y goes up"
    assert ax.collections[0].get_clim() == (0, 3.0)


def test_survival(evolution, ax):
    mass = np.exp(-TS)
    plot.plot_survival(path(mass=mass), ax, reference=path(mass=mass))
    assert [line.get_ydata().tolist() for line in ax.lines] == [mass.tolist()] * 2
    for name in ("moments", "density"):
        other = plot.plot_survival(evolution, name=name)
        np.testing.assert_allclose(other.lines[0].get_ydata(), 1)


def test_choice(ax):
    rows = (
        Candidate("spectral", "", 0.2, 0.01),
        Candidate("dense", "", 30.0, 0.01),
        Candidate("binned", "", 0.1, 0.5),
        Candidate("finite volume", "the drift reads the particles", np.nan, np.nan),
    )
    plot.plot_choice(Choice("spectral", "auto", 1000, 0.02, rows, "cpu"), ax)
    labels = [text.get_text() for text in ax.get_yticklabels()]
    assert labels == [
        "spectral: taken\nerror 1.0e-02",
        "dense: slower\nerror 1.0e-02",
        "binned: not accurate enough\nerror 5.0e-01",
        "finite volume: the drift reads the particles\nerror not known",
    ]
    assert [text.get_text() for text in ax.texts] == ["0.2 s", "30 s", "0.1 s"]
    asked = plot.plot_choice(Choice("dense", "dense", 10, np.nan, (), "cpu"))
    assert asked.get_title() == "dense, as asked for: nothing was measured"


def test_a_density_by_a_chosen_method_is_drawn_too(ax):
    known = path()
    choice = Choice("finite volume", "finite volume", 1, np.nan, (), "cpu")
    found = EvolvedDensity(known.ts, known.density, None, known.mass, GRID, None, known, choice)
    for draw in (plot.plot_density_ridge, plot.plot_density_map, plot.plot_fan, plot.plot_survival):
        assert draw(found).has_data()


def test_marginals_of_a_plane(ax):
    """The integral over the other axis, drawn by name, beside that of a reference."""
    found = path((6, 8))
    values = np.linspace(0.5, 1.5, 6)[None, :, None] * np.asarray(found.density)
    tilted = DensityPath(found.ts, jnp.asarray(values), found.mass, found.exits, found.grid)
    plot.plot_density_ridge(tilted, ax, axis=0, most=1, reference=found)
    curves = [line for line in ax.lines if line.get_xdata().size == 6]
    np.testing.assert_allclose(curves[0].get_ydata(), np.linspace(0.5, 1.5, 6))
    np.testing.assert_allclose(curves[1].get_ydata(), 1.0)
    assert ax.get_xlabel() == "x"
    assert plot.plot_density_map(tilted, axis=1).get_ylabel() == "y"
    with pytest.raises(ValueError, match="axis should be one of 0 to 1"):
        plot.plot_density_map(tilted, axis=2)


def test_a_fan_of_nothing_has_no_quantiles():
    """Where all weight was absorbed a band at the lower wall would be a wrong number."""
    levels = np.array([0.25, 0.5])
    assert np.isnan(plot._quantiles(np.arange(3.0), np.zeros(3), levels)).all()
    assert np.isnan(plot._quantiles_of_density(np.zeros(3), np.arange(4.0), levels)).all()


def test_what_cannot_be_drawn_is_refused(evolution):
    with pytest.raises(ValueError, match=r"nothing was kept as 'densty'"):
        plot.plot_fan(evolution, grid=GRID, name="densty")
    with pytest.raises(ValueError, match="give grid="):
        plot.plot_density_ridge(evolution)
    with pytest.raises(ValueError, match=r"nothing was kept as 'densty' \(density, all, moments\)"):
        plot.plot_density_map(evolution, grid=GRID, name="densty")
    with pytest.raises(ValueError, match="'moments' is no density but Statistics"):
        plot.plot_density_map(evolution, grid=GRID, name="moments")
    with pytest.raises(ValueError, match="on a line is wanted, but this has 2 dimensions"):
        plot.plot_density_ridge(path((6, 8)))
    with pytest.raises(ValueError, match="on a plane is wanted, but this has 1 dimensions"):
        plot.plot_density_2d(path())
    with pytest.raises(ValueError, match="'all' has no mass"):
        plot.plot_survival(evolution, name="all")
