"""Figures of timing: what they draw."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest

from jaxsci import timing
from jaxsci.timing import plot

pytest.importorskip("matplotlib")


@pytest.fixture
def axes():
    from matplotlib.figure import Figure

    return Figure().subplots()


def test_residuals_in_a_colour_for_each_receiver(axes):
    model, toas = timing.bundled("B1855+09")
    values, sigma = np.linspace(-1e-5, 1e-5, len(toas)), np.full(len(toas), 1e-6)
    assert plot.plot_residuals(model, toas, axes, residual=values, sigma=sigma) is axes
    labels = axes.get_legend_handles_labels()[1]
    assert set(labels) == {line.select.split()[1] for line in model.par.lines if line.name.startswith("EFAC")}
    drawn = np.concatenate([box.lines[0].get_ydata() for box in axes.containers])
    np.testing.assert_allclose(np.sort(drawn), 1e6 * values)
    assert axes.get_ylabel() == "residual (\N{MICRO SIGN}s)"


def test_residuals_over_the_orbit(axes):
    model, toas = timing.bundled("J1909-3744")
    values = np.zeros(len(toas))
    plot.plot_residuals(model, toas, axes, over="phase", residual=values, sigma=values + 1e-6)
    drawn = np.concatenate([box.lines[0].get_xdata() for box in axes.containers])
    assert len(drawn) == len(toas)
    assert 0 <= drawn.min() < drawn.max() < 1
    one_orbit = dataclasses.replace(toas, day=toas.day + 1, second=toas.second)
    turn = (plot.orbital_phase(model, one_orbit) - plot.orbital_phase(model, toas)) % 1
    np.testing.assert_allclose(turn, (1 / float(model.par.value("PB"))) % 1, atol=1e-9)
    with pytest.raises(ValueError, match="no companion"):
        plot.orbital_phase(*timing.bundled("NGC6440E"))


def test_dmx_is_drawn_about_its_mean(axes):
    level, own, size = 4e-4, 1e-6, 11  # an error that all share, and their own
    errors = plot._errors_about_mean(level**2 + own**2 * np.eye(size))
    np.testing.assert_allclose(errors, own * np.sqrt(1 - 1 / size), rtol=1e-6)
    assert plot._errors_about_mean(np.full((1, 1), np.inf)).tolist() == [np.inf]
    fitted = timing.fit(*timing.bundled("NGC6440E"), ("F0", "F1", "DM"))
    with pytest.raises(ValueError, match="no DMX"):
        plot.plot_dmx(fitted, axes)


def test_sky_has_right_ascension_growing_to_the_left():
    from matplotlib.figure import Figure

    ax = Figure().subplots(subplot_kw={"projection": "mollweide"})
    models = {name: timing.bundled(name)[0] for name in ("NGC6440E", "J1909-3744")}
    plot.plot_sky(models, ax)
    places = {text.get_text(): text.xy for text in ax.texts}
    ra = 15 * np.deg2rad(float(models["NGC6440E"].par.value("RAJ")))
    dec = np.deg2rad(float(models["NGC6440E"].par.value("DECJ")))
    assert places["NGC6440E"] == pytest.approx((2 * np.pi - ra, dec), abs=1e-9)
    assert places["J1909-3744"][0] < places["NGC6440E"][0]


def test_grid_has_contours_at_1_2_and_3_sigma(axes):
    x, y = np.linspace(-5, 5, 41), np.linspace(-5, 5, 31)
    plot.plot_grid(x, y, jnp.asarray(x[:, None] ** 2 + y**2 + 7), ("a", "b"), axes)
    (contours,) = [item for item in axes.collections if type(item).__name__ == "QuadContourSet"]
    radius = [np.abs(path.vertices[:, 0]).max() for path in contours.get_paths()]
    np.testing.assert_allclose(radius, np.sqrt([2.296, 6.180, 11.829]), rtol=0.01)
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("a", "b")
    bar = axes.figure.axes[-1]
    np.testing.assert_allclose(bar.get_yticks()[1:-1], np.sqrt([2.296, 6.180, 11.829]))
    labels = [text.get_text() for text in bar.get_yticklabels()]
    assert labels == ["0", *(f"{k}\N{GREEK SMALL LETTER SIGMA}" for k in (1, 2, 3)), "8"]


def test_lines_of_equal_chi2_have_no_corners(axes):
    """Between twelve points of a tilted parabola each line is its ellipse, drawn by more than a hundred points."""
    x = np.linspace(-5, 5, 12)
    chi2 = x[:, None] ** 2 + x**2 + x[:, None] * x
    plot.plot_grid(x, x, chi2 + 0.3, ("a", "b"), axes)
    (lines,) = [item for item in axes.collections if type(item).__name__ == "QuadContourSet"]
    for level, path in zip(lines.levels, lines.get_paths(), strict=True):
        a, b = path.vertices.T
        np.testing.assert_allclose(np.sqrt(a**2 + b**2 + a * b - chi2.min()), level, rtol=1e-3)
        assert len(a) > 100
