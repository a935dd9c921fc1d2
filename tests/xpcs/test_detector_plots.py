"""Pictures of a detector show the numbers that they were given: what is drawn, hidden, labelled and marked."""

import numpy as np
import pytest

from jaxsci.xpcs import Axis, TransmissionGeometry, partition, ring, saxs
from jaxsci.xpcs.plot import plot_image, plot_intensity, plot_labels, plot_map, plot_mask, plot_saxs

plt = pytest.importorskip("matplotlib.pyplot")

SHAPE = (21, 25)
GEOMETRY = TransmissionGeometry(10.0, (10.0, 12.0), 1000.0, 0.1, SHAPE)
USED = np.ones(SHAPE, bool)
USED[2:5, 3:9] = False
IMAGE = np.random.default_rng(0).poisson(30.0, SHAPE).astype(float)


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


def shown(ax, k=0):
    return np.ma.filled(ax.images[k].get_array().astype(float), np.nan)


def test_a_map_hides_masked_pixels_and_marks_the_beam():
    ax = plot_map(GEOMETRY, "q", used=USED)
    np.testing.assert_array_equal(np.isnan(shown(ax)), ~USED)
    np.testing.assert_array_equal(shown(ax)[USED], np.asarray(GEOMETRY.q())[USED])
    assert ax.lines[0].get_xydata().tolist() == [[12.0, 10.0]]
    assert ax.images[0].get_extent() == [-0.5, 24.5, 20.5, -0.5]
    assert ax.figure.axes[1].get_ylabel() == "q (1/Å)"
    assert plot_map(GEOMETRY, "phi").images[0].get_clim() == (-180, 180)


def test_a_beam_off_the_detector_is_not_marked():
    assert not plot_map(TransmissionGeometry(10.0, (-30.0, 12.0), 1000.0, 0.1, SHAPE), "q").lines


def test_a_mask_is_shown_over_its_image():
    ax = plot_mask(USED, IMAGE)
    np.testing.assert_array_equal(np.isnan(shown(ax, 0)), ~USED)
    np.testing.assert_array_equal(np.isnan(shown(ax, 1)), USED)
    assert ax.get_title().startswith(f"{100 * USED.mean():.3g} %")
    assert len(plot_mask(USED).images) == 2


def test_neighbouring_bins_differ():
    found = partition(GEOMETRY, USED, [Axis("q", 4), Axis("phi", 8, low=-22.5, high=337.5)])
    shades, labels = shown(plot_labels(found)), np.asarray(found.labels)
    assert np.isnan(shades[~USED]).all()
    for a, b in ((np.s_[1:], np.s_[:-1]), (np.s_[:, 1:], np.s_[:, :-1])):
        apart = (labels[a] != labels[b]) & (labels[a] > 0) & (labels[b] > 0)
        # corners of the chessboard may meet, sides may not
        assert np.mean(np.abs(shades[a] - shades[b])[apart] > 0.05) > 0.9
    assert np.unique(shown(plot_labels(labels))[USED]).size == found.dynamic.bins


def test_an_image_is_drawn_by_its_logarithm():
    image = IMAGE.copy()
    image[0, 0] = 0
    values = shown(plot_image(image, used=USED))
    assert np.isnan(values[0, 0])
    np.testing.assert_allclose(values[5, 5], np.log10(image[5, 5]))


def test_a_large_image_is_thinned():
    ax = plot_image(np.ones((10, 4000)))
    assert shown(ax).shape == (4, 1334)
    assert ax.images[0].get_extent() == [-0.5, 3999.5, 9.5, -0.5]


def test_curves_have_their_axes():
    found = partition(GEOMETRY, USED, [Axis("q", 4)])
    ax = plot_saxs({"a": saxs(IMAGE, found.static), "b": saxs(2 * IMAGE, found.static)})
    assert (ax.get_xscale(), ax.get_yscale()) == ("log", "log")
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["a", "b"]
    around = plot_saxs(ring(IMAGE, GEOMETRY, USED, 0.001, 0.004, bins=8))
    assert (around.get_xscale(), around.get_xlabel()) == ("linear", "phi (degrees)")
    line = plot_intensity(np.arange(10.0), 0.5, segments=2)
    np.testing.assert_allclose([part.get_ydata()[0] for part in line.lines[1:]], [2.0, 7.0])
    assert line.lines[0].get_xdata()[-1] == 4.5
