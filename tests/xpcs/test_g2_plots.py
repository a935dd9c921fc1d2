"""Pictures of g2, of its dependence on q and of two-time matrices say what was measured."""

import jax.numpy as jnp
import numpy as np
import pytest

import jaxsci as js
from jaxsci import xpcs
from jaxsci.xpcs import plot

Figure = pytest.importorskip("matplotlib.figure").Figure
T = jnp.logspace(-4, 0, 30)


@pytest.fixture
def ax():
    return Figure().subplots()


def curves():
    """Two curves, the last point of the second masked and no number."""
    g2 = jnp.stack([xpcs.SingleExponential(tau, 0.2, 1.0)(T) for tau in (0.01, 0.1)], 1).at[-1, 1].set(jnp.nan)
    mask = jnp.isfinite(g2)
    return xpcs.Curves(T, g2, jnp.full(g2.shape, 0.01), mask, jnp.array([0.01, 0.02]))


def test_g2_leaves_out_what_is_masked(ax):
    data = curves()
    plot.plot_g2(data, 1, ax)
    (bars,) = ax.containers
    assert len(bars.lines[0].get_xdata()) == 29
    assert ax.get_title() == "q = 0.02 1/Å"
    assert ax.get_xscale() == "log"


def test_the_curve_of_a_fit_is_that_of_its_model(ax):
    data = curves()
    fit = js.fit(xpcs.SingleExponential(0.02), js.Dataset(data.t, data.g2[:, 0], js.White(0.01)))
    plot.plot_g2(data, 0, ax, fit=fit)
    line = next(line for line in ax.lines if line.get_label() == "fit")
    x, y = line.get_xydata().T
    np.testing.assert_allclose(y, 1 + 0.2 * np.exp(-2 * x / 0.01), atol=1e-6)


def test_a_bin_without_points_is_an_empty_picture(ax):
    data = curves()
    plot.plot_g2(xpcs.Curves(data.t, data.g2, data.sigma, jnp.zeros_like(data.mask), data.q), 0, ax)
    assert ax.get_title() == "q = 0.01 1/Å"


def test_two_time_leaves_the_diagonal_out_of_its_colours(ax):
    matrix = jnp.ones((4, 4)).at[jnp.arange(4), jnp.arange(4)].set(50.0).at[0, 1].set(1.2).at[1, 0].set(1.2)
    plot.plot_two_time(xpcs.TwoTimeMaps(jnp.array([3]), matrix[None], jnp.asarray(0.5)), 0, ax)
    (image,) = ax.images
    assert image.get_extent() == [0, 2, 0, 2]
    assert image.get_clim()[1] < 1.3
    assert ax.get_title() == "bin 3"
    assert ax.figure.axes[1].get_ylabel() == "C(t1, t2)"


def test_a_slope_is_told_to_the_place_of_its_error(ax):
    data = curves()
    law = xpcs.fit_power_law(xpcs.fit_g2(data, xpcs.SingleExponential), data.q)
    plot.plot_dispersion(law, ax)
    told = next(text for text in (line.get_label() for line in ax.lines) if text.startswith("q^("))
    value, error = told[3:-1].split(" ± ")
    assert len(value.partition(".")[2]) == len(error.partition(".")[2])
