"""Plots: functions of a result, which draw on the axes given and return them."""

import jax.numpy as jnp
import matplotlib
import numpy as np
import pytest

import jaxsci as js
from jaxsci.curvefit.plot import plot_batch, plot_curve, plot_profile, plot_region
from jaxsci.data.nist import MODELS as NIST_MODELS
from jaxsci.fitting import make_plan, prior_texts
from jaxsci.fitting._plan import flat_priors
from jaxsci.plot import plot_correlation, plot_fit, plot_histogram, plot_image, plot_residuals

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


def test_band_is_the_error_of_the_model(fitted):
    solution, data = fitted
    ax = plot_fit(solution, data)
    (band,) = [item for item in ax.collections if item.get_alpha() == 0.2]
    top = band.get_paths()[0].vertices[:, 1].max()
    value, covariance = solution.propagate(lambda m: m(jnp.max(data.inputs[data.mask])[None]))
    assert top == pytest.approx(float(value[0] + jnp.sqrt(covariance[0, 0])), rel=1e-6)


def test_of_very_many_rows_some_are_drawn():
    x = jnp.linspace(0.0, 5.0, 5001)
    model = NIST_MODELS["Misra1a"](b1=2.0, b2=0.7)
    data = js.Dataset(x, model(x))
    ax = plot_residuals(js.fit(model, data, throw=False), data)
    assert len(ax.lines[1].get_xdata()) == 1667


def test_curve_has_residuals_below(fitted):
    ax = plot_curve(*fitted)
    assert len(ax.child_axes) == 1
    assert ax.child_axes[0].get_ylabel().startswith("residual")


def test_profile_meets_the_interval_and_the_parabola(fitted):
    from scipy.stats import chi2

    solution, data = fitted
    ax = plot_profile(solution, data, "b1", points=21)
    profile, parabola = ax.lines[:2]
    assert np.nanmin(profile.get_ydata()) == pytest.approx(0.0, abs=0.2)
    lower = ax.lines[2].get_xdata()[0]
    at_lower = np.interp(lower, profile.get_xdata(), profile.get_ydata())
    assert at_lower == pytest.approx(chi2.ppf(0.95, 1), rel=0.1)
    assert np.abs(profile.get_ydata() - parabola.get_ydata()).max() < 0.3 * parabola.get_ydata().max()
    with pytest.raises(ValueError, match="no free parameter 'b3'"):
        plot_profile(solution, data, "b3")


def test_regions_lie_within_each_other_and_end_where_a_bound_is(fitted):
    solution, data = fitted
    ax = plot_region(solution, data, ("b1", "b2"), levels=(0.954, 0.683))
    label = {line.get_label(): line for line in ax.lines}
    inner, outer = (label[f"{level} %"].get_xdata() for level in ("68.3", "95.4"))
    assert np.nanmin(outer) < np.nanmin(inner) < solution.y[0] < np.nanmax(inner) < np.nanmax(outer)
    assert ax.get_xlim()[0] < np.nanmin(outer)
    dotted = [line for line in ax.lines if line.get_linestyle() == ":"]
    assert not any(line.get_xdata().size for line in dotted)
    bounds = {"b1": (0.0, float(solution.y[0] + 0.5 * solution.standard_errors[0]))}
    bounded = js.fit(solution.model, data, bounds=bounds, throw=False)
    ax = plot_region(bounded, data, ("b1", "b2"), levels=(0.683,))
    dotted = [line for line in ax.lines if line.get_linestyle() == ":"]
    np.testing.assert_allclose(np.nanmax(dotted[0].get_xdata()), bounds["b1"][1], rtol=1e-9)


def test_image_is_drawn_with_masked_pixels_left_empty():
    points = jnp.stack(jnp.meshgrid(jnp.arange(4.0), jnp.arange(3.0)), -1).reshape(-1, 2)
    model = js.curvefit.Gaussian2D(3.0, 1.5, 1.0, 1.0, 0.8, 0.0)
    mask = jnp.arange(12) != 5
    data = js.Dataset(points, model(points) + 0.01 * jnp.cos(5.0 * jnp.arange(12.0)), js.White(0.01), mask=mask)
    solution = js.fit(model, data, throw=False)
    for what in ("data", "model", "residual"):
        shown = plot_image(solution, data, (3, 4), what).images[0].get_array()
        assert shown.shape == (3, 4)
        assert bool(np.ma.getmaskarray(np.ma.masked_invalid(shown))[1, 1]) == (what != "model")


def test_histograms_count_what_they_leave_out():
    values = np.concatenate([np.linspace(0.0, 1.0, 50), [1e9, np.nan]])
    ax = plot_histogram(values, "tau")
    assert ax.get_title() == "tau: 1 outside"
    x = jnp.linspace(0.0, 5.0, 12)
    model = NIST_MODELS["Misra1a"](b1=2.0, b2=0.7)
    data = [js.Dataset(x, model(x) + 0.01 * jnp.cos(k * x)) for k in range(1, 5)]
    batch = js.fit_batch(model, data, batch_size=4)
    assert sum(bar.get_height() for bar in plot_batch(batch, "b1").patches) == 4
    with pytest.raises(ValueError, match="did you mean 'b1'"):
        plot_batch(batch, "b11")


def test_summaries_name_a_robust_loss_and_what_chi2_means_then(fitted):
    import equinox as eqx

    solution, _ = fitted
    assert "loss" not in solution.summary()
    robust = eqx.tree_at(lambda s: s.terms.loss, solution, js.Cauchy(2.0))
    for text in (robust.summary(), robust._repr_html_()):
        assert "loss: Cauchy(scale=2): chi2 and chi2/dof are sums of squares that count outliers in full" in text


def test_priors_are_named_with_their_numbers(fitted):
    solution, _ = fitted
    priors = {"b1": js.Normal(2.0, 0.5), "b2": js.LogNormal(0.7, 0.3)}
    mean, weight, shaped = flat_priors(make_plan(solution.model, None, None), priors)
    told = prior_texts(solution.terms._replace(prior_mean=mean, prior_weight=weight, shaped=shaped))
    assert told[0] == "Normal(mean=2, sigma=0.5)"
    assert told[1].startswith("LogNormal(")
    assert "0.3" in told[1]
    assert prior_texts(solution.terms) == ["", ""]


def test_the_dots_of_a_legend_can_be_seen(fitted):
    solution, data = fitted
    x = jnp.linspace(0.0, 5.0, 3000)
    legend = plot_fit(solution, js.Dataset(x, x, data.noise), band=False).get_legend()
    sizes = [line.get_markersize() for line in legend.findobj(matplotlib.lines.Line2D) if line.get_marker() == "o"]
    assert min(sizes) >= 4
