"""Pictures of separations: where pixels land, what is drawn, what is refused."""

import itertools
from functools import partial

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsci import compsep
from jaxsci.compsep import plot
from jaxsci.compsep._healpix import ring_to_nest
from jaxsci.compsep._task.figures import _arranged, _grid, panels

matplotlib = pytest.importorskip("matplotlib")
healpy = pytest.importorskip("healpy")
matplotlib.use("Agg")
Axes = pytest.importorskip("matplotlib.axes").Axes
NU = jnp.array([30.0, 44.0, 70.0, 100.0, 143.0])
NPIX = 48


@pytest.fixture(autouse=True)
def closed():
    from matplotlib import pyplot

    yield
    pyplot.close("all")


@pytest.fixture(scope="module")
def answer():
    """(separation with a synchrotron index a pixel, maps)."""
    rng = np.random.default_rng(0)
    mixing = compsep.MixingMatrix(cmb=compsep.CMB(), sync=compsep.PowerLaw())
    parts = np.stack([rng.normal(size=(2, NPIX)), 50 + rng.normal(size=(2, NPIX))])
    maps = np.einsum("fc,csp->fsp", np.asarray(mixing.eval(NU)), parts)
    maps = maps + 0.1 * rng.normal(size=maps.shape)
    maps[:, :, 7] = compsep.UNSEEN
    return compsep.separate(mixing, NU, maps, patches=2, inv_n=jnp.full(5, 100.0)), maps


def image(ax):
    return np.asarray(ax.images[0].get_array().filled(np.nan))


@pytest.mark.parametrize("nest", [False, True])
def test_pixels_are_where_they_belong(nest):
    nside = 4
    values = np.arange(12.0 * nside**2)
    if nest:
        ordered = np.empty_like(values)
        ordered[ring_to_nest(nside)] = values
    else:
        ordered = values
    ax = plot.plot_map(ordered, nest=nest, width=200, limits=(0, 191))
    dots = image(ax)
    assert np.isnan(dots[0, 0])
    assert dots[-2, 100] < 4 > np.nanmin(dots)
    assert dots[1, 100] >= 188
    # the centre is longitude 0; longitude rises to the left
    for column, longitude in ((100, 0.0), (50, np.pi / 2), (150, 3 * np.pi / 2)):
        assert dots[50, column] in healpy.get_all_neighbours(nside, np.pi / 2, longitude) or dots[
            50, column
        ] == healpy.ang2pix(nside, np.pi / 2, longitude)


def test_masked_pixels_stay_empty_and_areas_are_equal():
    values = np.where(np.arange(NPIX) % 2, 1.0, np.nan)
    values[1] = compsep.UNSEEN
    dots = image(plot.plot_map(values, width=800))
    inside = np.pi / 4 * dots.size
    assert np.isfinite(dots).sum() / inside == pytest.approx(23 / 48, rel=0.01)


def test_colours_are_signed_where_values_are():
    values = np.linspace(-1, 3, NPIX)
    both, one = plot.plot_map(values), plot.plot_map(values + 2)
    low, high = both.images[0].get_clim()
    assert low == -high
    assert one.images[0].get_clim()[0] > 0
    assert plot.plot_map(np.ones(NPIX)).images[0].get_clim() == (0.5, 1.5)
    assert plot.plot_map(np.full(NPIX, np.nan)).images[0].get_clim() == (0.0, 1.0)
    with pytest.raises(ValueError, match="no HEALPix map"):
        plot.plot_map(np.ones(40))


def bar_of(ax):
    return next(other for other in ax.figure.axes if other is not ax)


def test_a_map_of_nothing_says_so():
    ax = plot.plot_map(np.full(NPIX, np.inf), "error")
    assert [text.get_text() for text in ax.texts] == ["no finite value"]
    assert len(bar_of(ax).get_xticks()) == 0
    assert bar_of(ax).get_xlabel() == "error"


@pytest.mark.parametrize("low", [0.0766, 1000.0, -3.2])
def test_numbers_below_a_map_do_not_touch(low):
    from matplotlib.figure import Figure

    figure = Figure(figsize=(3, 2.2), layout="constrained")
    ax = plot.plot_map(np.linspace(low, low + 7e-4 * (1 + abs(low)), NPIX), "x", figure.subplots())
    figure.canvas.draw()
    boxes = [label.get_window_extent() for label in bar_of(ax).get_xticklabels() if label.get_text()]
    boxes = [box for box in boxes if bar_of(ax).bbox.x0 <= (box.x0 + box.x1) / 2 <= bar_of(ax).bbox.x1]
    assert boxes
    assert all(one.x1 < other.x0 for one, other in itertools.pairwise(boxes))


@pytest.mark.parametrize(("low", "width"), [(0.0769, 1e-5), (1e-9, 1e-9), (3e8, 1e8), (1.0, 0.5), (-0.25, 3e-7)])
def test_nothing_is_written_over_the_label_of_a_bar(low, width):
    """matplotlib puts what it takes out of the ticks, +7.69e-2 or 1e-9, where the label is."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(3, 2.2), layout="constrained")
    axis = bar_of(plot.plot_map(low + width * np.linspace(0, 1, NPIX), "x", figure.subplots())).xaxis
    figure.canvas.draw()
    assert not (axis.offsetText.get_visible() and axis.offsetText.get_text())
    written = (axis.get_label_text(), *(label.get_text() for label in axis.get_ticklabels()))
    label, *texts = (text.replace("\N{MINUS SIGN}", "-") for text in written)
    factor = float(label.partition("\N{MULTIPLICATION SIGN}")[2] or 1)
    shown = np.array([float(text) for text in texts if text]) * factor
    places = axis.get_ticklocs()
    np.testing.assert_allclose(shown, places[: len(shown)], rtol=1e-9, atol=1e-3 * width)


def test_few_channels_are_marked_by_their_frequency(answer):
    separation, maps = answer
    ax = plot.plot_spectra(separation, NU, maps)
    assert [label.get_text() for label in ax.get_xticklabels()] == ["30", "44", "70", "100", "143"]
    assert len(ax.xaxis.get_minorticklocs()) == 0


def test_every_panel_is_drawn(answer):
    from matplotlib.figure import Figure

    separation, maps = answer
    panels = plot.panels(separation, NU, maps)
    pairs = ["sync.beta", "cmb Q", "cmb U", "sync Q", "sync U"]
    maps_of = [title for name in pairs for title in (name, f"{name}, error")]
    assert list(panels) == [*maps_of, "chi2", "residual Q", "residual U", "spectra Q", "spectra U"]
    figure = Figure()
    for ax, panel in zip(figure.subplots(3, 5).ravel(), panels.values(), strict=True):
        assert panel(ax) is ax


def test_a_map_stands_beside_its_error():
    """Of as many pairs as there are, in a report: none is parted by the end of a row."""
    from matplotlib.figure import Figure

    maps = [partial(Axes.set_title, label=f"{kind} {k}") for k in range(5) for kind in ("map", "error")]
    figure = _arranged(Figure, maps, [partial(Axes.set_title, label="curve")])
    figure.draw_without_rendering()
    boxes = {ax.get_title(): ax.bbox for ax in figure.axes}
    for k in range(5):
        own, error = boxes[f"map {k}"], boxes[f"error {k}"]
        assert own.y0 == pytest.approx(error.y0, abs=1)
        assert 0 < error.x0 - own.x0 < figure.bbox.width / 3


@pytest.mark.parametrize(("spread", "flat"), [(1e-4, True), (0.05, False), (2.0, False)])
def test_an_error_that_is_the_same_everywhere_looks_so(answer, spread, flat):
    separation, _ = answer
    errors = np.broadcast_to(0.0769 * (1 + spread * np.linspace(0, 1, NPIX)), separation.errors.shape)
    separation = eqx.tree_at(lambda s: s.errors, separation, jnp.asarray(errors))
    ax = plot.plot_component_error(separation, "cmb")
    low, high = ax.images[0].get_clim()
    assert high - low >= 0.1 * 0.0769 * 0.999
    assert low <= 0.0769 * (1 + spread / 2) <= high
    written = [label.get_text() for label in bar_of(ax).get_xticklabels()]
    assert (written == ["0.0769 everywhere"]) == flat
    assert plot.plot_component_error(separation, "cmb", limits=(0.0, 1.0)).images[0].get_clim() == (0.0, 1.0)


def test_the_sum_with_noise_is_what_the_data_scatter():
    """Of noise alone the fitted components take up a part; what they leave makes the data's rms with theirs."""
    rng = np.random.default_rng(3)
    mixing = compsep.MixingMatrix(cmb=compsep.CMB(), dust=compsep.ModifiedBlackBody())
    sigma = np.array([3.0, 1.0, 2.0, 1.0, 4.0])
    maps = sigma[:, None, None] * rng.normal(size=(5, 1, 3072))
    found = compsep.separate(mixing, NU, maps, free=(), inv_n=1 / sigma**2)
    ax = plot.plot_spectra(found, NU, maps, None, sigma[:, None])
    expected = next(line for line in ax.lines if line.get_label() == "sum with noise").get_ydata()
    np.testing.assert_allclose(expected, np.sqrt(np.mean(maps[:, 0] ** 2, axis=1)), rtol=0.04)
    labelled = plot._with_unit(found, "dust.temp"), plot._with_unit(found, "dust.beta")
    assert labelled == ("dust.temp / K", "dust.beta")
    assert not any(line.get_label() == "sum with noise" for line in plot.plot_spectra(found, NU, maps).lines)


def test_a_residual_is_data_less_model(answer):
    separation, maps = answer
    dots = image(plot.plot_residual(separation, NU, maps, 1, "U", limits=(-1, 1), width=64))
    value = separation.parameter_map("sync.beta")[20]
    A = compsep.MixingMatrix(cmb=compsep.CMB(), sync=compsep.PowerLaw(value)).eval(NU)
    expected = maps[1, 1, 20] - float(A[1] @ separation.amplitudes[:, 1, 20])
    assert np.nanmin(np.abs(dots - expected)) < 1e-10


def test_spectra_go_through_the_data(answer):
    separation, maps = answer
    ax = plot.plot_spectra(separation, NU, maps, pixel=20, sigma=np.full((5, 2), 0.1))
    total = next(line for line in ax.lines if line.get_label() == "sum")
    at = np.exp(np.interp(np.log(NU), np.log(total.get_xdata()), np.log(total.get_ydata())))
    np.testing.assert_allclose(at, np.abs(maps[:, 0, 20]), rtol=0.05, atol=0.3)
    with pytest.raises(ValueError, match="pixel 7 was not used"):
        plot.plot_spectra(separation, NU, maps, pixel=7)


def test_pulls(answer):
    separation, _ = answer
    ax = plot.plot_pulls(separation.values["sync.beta"], separation.std["sync.beta"], -3.0, "sync.beta")
    assert "pull of sync.beta" in ax.get_xlabel()
    for count in (100, 10_000):
        few = plot.plot_pulls(np.random.default_rng(1).normal(size=count), np.ones(count), 0.0, "x")
        area = sum(patch.get_height() * patch.get_width() for patch in few.patches)
        curve = few.lines[0]
        np.testing.assert_allclose(np.trapezoid(curve.get_ydata(), curve.get_xdata()), area, rtol=1e-3)
    assert plot.plot_pulls(np.full(3, np.nan), np.ones(3), 0.0, "x").get_xlabel() == ""


def test_wrong_names(answer):
    separation, maps = answer
    with pytest.raises(ValueError, match="Stokes 'I' was not fitted"):
        plot.plot_component(separation, "cmb", "I")
    with pytest.raises(ValueError, match="no component 'dust'"):
        plot.plot_component_error(separation, "dust")
    with pytest.raises(ValueError, match="no fitted parameter"):
        plot.plot_parameter(separation, "dust.beta")
    assert plot.plot_residual(separation, NU, maps, 0).images


def test_maps_to_zoom_into_show_pixels_as_they_are(answer):
    separation, _ = answer
    found = {panel.title: panel for panel in panels(separation, None)}
    for s, letter in enumerate("QU"):
        for prefix, values in (("", separation.component("sync")[s]), ("error of ", separation.errors[1, s])):
            panel = found[f"{prefix}sync {letter} ({separation.amplitude_units[1]})"]
            pixel = healpy.ang2pix(2, *np.meshgrid(panel.columns, panel.rows), lonlat=True)
            assert np.array_equal(panel.values, np.asarray(values)[pixel], equal_nan=True)
            assert np.isnan(panel.values[pixel == 7]).all()
            assert set(pixel.ravel()) == set(range(NPIX))
            assert not panel.note
    assert {"sync.beta", "error of sync.beta"} <= set(found)
    assert found[f"cmb Q ({separation.amplitude_units[0]})"].signed
    assert panel.columns[0] > panel.columns[-1], "longitude rises to the left"
    assert panel.rows[0] > panel.rows[-1], "north is up"


@pytest.mark.parametrize("centre", [(0.0, 40.0), (180.0, -30.0), (250.0, 0.0), (90.0, 88.0)])
@pytest.mark.parametrize("nside", [16, 256])
def test_a_part_of_the_sky_is_shown_as_a_part(centre, nside):
    used = np.zeros(12 * nside**2, bool)
    used[healpy.query_disc(nside, healpy.ang2vec(*centre, lonlat=True), np.deg2rad(12.0))] = True
    grid = _grid(used)
    assert grid.pixel.shape == (grid.latitude.size, grid.longitude.size)
    assert grid.pixel.size <= 131_072
    there = np.intersect1d(grid.pixel, np.flatnonzero(used))
    assert there.size == grid.shown > 0.6 * used.sum()
    assert there.size == used.sum() or nside == 256
    if abs(centre[1]) < 60:
        assert np.ptp(grid.longitude) < 45
        assert abs(np.mod(grid.longitude.mean() - centre[0] + 180, 360) - 180) < 3
    assert np.ptp(grid.latitude) < 40
