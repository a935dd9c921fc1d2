"""Plots: functions of a result, which draw on the axes given and return them."""

import jax.numpy as jnp
import matplotlib
import numpy as np
import pytest

import jaxsci as js
from jaxsci.curvefit._nist import NIST_MODELS
from jaxsci.plot import plot_correlation, plot_fit, plot_residuals

matplotlib.use("Agg")


@pytest.fixture(scope="module")
def fitted():
    x = jnp.linspace(0.0, 5.0, 12)
    model = NIST_MODELS["Misra1a"](b1=2.0, b2=0.7)
    data = js.Dataset(x, model(x) + 0.01 * jnp.cos(7 * x), js.White(jnp.asarray(0.02)), mask=x < 4.9)
    return js.fit(model, data, throw=False), data


def test_plots_draw_on_the_axes_given(fitted):
    from matplotlib.figure import Figure

    solution, data = fitted
    for plot in (lambda ax: plot_fit(solution, data, ax), lambda ax: plot_residuals(solution, data, ax)):
        ax = Figure().subplots()
        assert plot(ax) is ax
        assert ax.lines
    ax = Figure().subplots()
    assert plot_correlation(solution, ax) is ax
    assert ax.texts[0].get_text() == "1"


def test_residuals_are_model_minus_observed_in_sigma(fitted):
    solution, data = fitted
    ax = plot_residuals(solution, data)
    drawn = ax.lines[1].get_ydata()
    expected = np.asarray((solution.model(data.inputs) - data.observed) / 0.02)[:-1]
    np.testing.assert_allclose(drawn, expected, rtol=1e-9)


def test_correlation_without_a_value_is_a_cross(fitted):
    import equinox as eqx

    solution, _ = fitted
    lost = eqx.tree_at(lambda s: s.covariance, solution, jnp.diag(jnp.asarray([jnp.inf, 1.0])))
    texts = [text.get_text() for text in plot_correlation(lost).texts]
    assert texts == ["\N{MULTIPLICATION SIGN}"] * 3 + ["1"]
