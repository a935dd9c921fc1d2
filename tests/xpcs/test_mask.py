"""Masks: shapes against exact arithmetic, algebra, ranges of angles, outliers, histories and their files."""

import json
from fractions import Fraction

import h5py
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import Counter
from hypothesis import given, settings, strategies as st

from jaxsci.runs import ConfigError
from jaxsci.xpcs import (
    And,
    BadPixels,
    Blemish,
    Circle,
    Ellipse,
    Line,
    MapRange,
    MaskHistory,
    Or,
    Outliers,
    PixelMask,
    Polygon,
    Rectangle,
    Threshold,
    TransmissionGeometry,
    View,
    masks_from_tables,
    read_masks,
    tables_of_masks,
    write_masks,
)

SHAPE = (9, 12)
VIEW = View(SHAPE)


def geometry(shape=SHAPE, centre=(4.0, 6.0)):
    return TransmissionGeometry(10.0, centre, 1000.0, 0.1, shape)


def full_view():
    image = jnp.asarray(np.random.default_rng(0).poisson(50.0, SHAPE).astype(float))
    return View(image=image.at[2, 3].set(jnp.nan), geometry=geometry())


EVERY = {
    "circle": Circle((4, 6), 3),
    "ellipse": Ellipse((4, 6), (2, 4), 30.0),
    "rectangle": Rectangle((4, 6), (3, 5), 20.0),
    "line": Line((1, 1), (7, 10), 2.0),
    "polygon": Polygon([[1, 1], [7, 2], [5, 10]]),
    "threshold": Threshold(40.0, 60.0),
    "bad pixels": BadPixels([[1, 2], [8, 11]]),
    "pixels": PixelMask.of(np.arange(108).reshape(SHAPE) % 7 > 2),
    "range": MapRange("phi", 100.0, 250.0),
    "outliers": Outliers(2.0, "percentile", 4, Threshold(1.0)),
    "and": Circle((4, 6), 3) & ~Rectangle((4, 6), (1, 1)) & Threshold(45.0),
    "or": Or([Circle((1, 1), 1), MapRange("q", 0.0, 0.001)]),
}


@pytest.mark.parametrize("name", EVERY)
def test_a_mask_is_the_same_compiled_and_after_its_table(name):
    mask, view = EVERY[name], full_view()
    used = mask(view)
    assert used.shape == SHAPE
    assert used.dtype == bool
    assert 0 < int(used.sum()) < used.size
    np.testing.assert_array_equal(jax.jit(lambda m, v: m(v))(mask, view), used)
    tables = json.loads(json.dumps(tables_of_masks(MaskHistory([mask]))))
    np.testing.assert_array_equal(masks_from_tables(tables).evaluate(view), used)


# --- shapes -----------------------------------------------------------------------------------------------------------


def inside_exactly(corners, v, h):
    """Even-odd in fractions: a side holds its upper end; a point on it is to its right."""
    odd = False
    for (v1, h1), (v2, h2) in zip(corners, [*corners[1:], corners[0]], strict=True):
        (v1, h1), (v2, h2) = sorted([(v1, h1), (v2, h2)])
        if v1 <= v < v2:
            odd ^= h >= h1 + Fraction(v - v1) * (h2 - h1) / (v2 - v1)
    return odd


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(-2, 10), st.integers(-2, 13)), min_size=5, max_size=5))
def test_polygons_are_those_of_exact_arithmetic(corners):
    used = Polygon(jnp.asarray(corners, float))(VIEW)
    known = [[inside_exactly(corners, v, h) for h in range(12)] for v in range(9)]
    np.testing.assert_array_equal(used, known)


@settings(max_examples=40, deadline=None)
@given(st.tuples(st.floats(0, 8), st.floats(0, 11)))
def test_polygons_that_share_sides_hold_each_pixel_once(middle):
    """Four triangles about any point tile the rectangle of the detector."""
    corners = [(-1.0, -1.0), (-1.0, 12.0), (9.0, 12.0), (9.0, -1.0)]
    parts = [Polygon([a, b, middle]) for a, b in zip(corners, [*corners[1:], corners[0]], strict=True)]
    np.testing.assert_array_equal(sum(part(VIEW).astype(int) for part in parts), 1)


def test_shapes_hold_their_edges_exactly():
    v, h = np.indices(SHAPE)
    dv, dh = v - 4, h - 6
    np.testing.assert_array_equal(Circle((4, 6), 5)(VIEW), dv**2 + dh**2 <= 25)  # (3, 4) lies on the edge
    np.testing.assert_array_equal(Ellipse((4, 6), (2, 5))(VIEW), 25 * dv**2 + 4 * dh**2 <= 100)
    np.testing.assert_array_equal(Rectangle((4, 6), (4, 6))(VIEW), (abs(dv) <= 2) & (abs(dh) <= 3))
    along, off = dv * 3 + dh * 4, dv * 4 - dh * 3
    np.testing.assert_array_equal(Line((4, 6), (7, 10), 2)(VIEW), (along >= 0) & (along <= 25) & (abs(off) <= 5))


def test_turned_shapes_are_turned():
    square = View((11, 11))
    for shape in (Ellipse((5, 5), (2, 4)), Rectangle((5, 5), (3.5, 7.5))):
        upright, turned = shape(square), type(shape)(shape.centre, jax.tree.leaves(shape)[1], 90.0)(square)
        np.testing.assert_array_equal(turned, upright.T)
    # the first axis goes from down towards the right
    assert bool(Ellipse((5, 5), (4, 0.5), 45.0)(square)[7, 7])
    assert not bool(Ellipse((5, 5), (4, 0.5), 45.0)(square)[7, 3])


# --- algebra ----------------------------------------------------------------------------------------------------------


def test_masks_follow_the_laws_of_sets():
    a, b = EVERY["circle"], EVERY["polygon"]
    x, y = a(VIEW), b(VIEW)
    np.testing.assert_array_equal((a & b)(VIEW), x & y)
    np.testing.assert_array_equal((a | b)(VIEW), x | y)
    np.testing.assert_array_equal((~(a | b))(VIEW), (~a & ~b)(VIEW))
    assert bool(And(())(VIEW).all())
    assert not bool(Or(())(VIEW).any())


def test_a_mask_maps_over_its_numbers_and_traces_once():
    radii = jnp.asarray([1.0, 2.0, 3.5])
    counted = Counter(lambda r: Circle((4.0, 6.0), r)(VIEW))
    batch = jax.jit(jax.vmap(counted))
    found = batch(radii)
    batch(radii + 1)
    assert counted.traces == 1
    np.testing.assert_array_equal(found, [Circle((4.0, 6.0), float(r))(VIEW) for r in radii])


def test_thresholds_hold_their_lower_limit_and_no_nan():
    image = jnp.asarray([[1.0, 2.0, 3.0, jnp.nan, jnp.inf]])
    np.testing.assert_array_equal(Threshold(2.0, 3.0)(View(image=image)), [[False, True, False, False, False]])
    np.testing.assert_array_equal(Threshold()(View(image=image)), [[True, True, True, False, False]])
    np.testing.assert_array_equal(Threshold(2.0)(View(image=np.array([[1, 2, 300]], np.uint16))), [[False, True, True]])


def test_an_angle_comes_round(shared_data):
    with np.load(shared_data / "xpcs" / "cases" / "phi_cut.npz") as case:
        shape, centre, sectors, pixels = (case[k] for k in ("shape", "centre", "sectors", "pixels"))
    view = View(geometry=geometry(tuple(int(n) for n in shape), centre.astype(float)))
    for (low, high), count in zip(sectors, pixels, strict=True):
        used = MapRange("phi", float(low), float(high))(view)
        assert int(used.sum()) == count, (low, high)
        for turn in (-360, 360, 720):
            np.testing.assert_array_equal(MapRange("phi", float(low + turn), float(high + turn))(view), used)


@pytest.mark.parametrize("rule", ["mad", "percentile"])
@pytest.mark.parametrize("precision", ["float64", "float32"])
def test_outliers_are_found_ring_by_ring(rule, precision):
    """What is usual near the beam is an outlier further out: a ring is judged by its own scatter."""
    shape = (40, 40)
    around = geometry(shape, (20.0, 20.0))
    rng = np.random.default_rng(1)
    image = np.asarray(rng.poisson(2e5 / (20 + (np.asarray(around.q()) * 2e3) ** 2))).astype(float)
    bad = [(2, 3), (30, 33), (20, 39)]
    for v, h in bad:
        image[v, h] *= 3
    image[5, 5] = np.nan
    view = View(image=image.astype(precision), geometry=around)
    used = np.asarray(Outliers(6.0, rule, 12)(view))
    assert not any(used[pixel] for pixel in [*bad, (5, 5)])
    assert (~used).sum() <= 10


def test_outliers_by_mad_are_those_of_a_loop():
    view = full_view()
    image, q = np.asarray(view.image), np.asarray(view.geometry.q())
    ring = np.minimum((5 * (q - q.min()) / (q.max() - q.min())).astype(int), 4)
    known = np.zeros(SHAPE, bool)
    for k in range(5):
        inside = (ring == k) & np.isfinite(image)
        centre = np.median(image[inside])
        known[inside] = np.abs(image[inside] - centre) <= 1.5 * 1.4826 * np.median(np.abs(image[inside] - centre))
    np.testing.assert_array_equal(Outliers(1.5, "mad", 5)(view), known)


def test_a_constant_ring_has_no_outliers():
    view = View(image=jnp.full(SHAPE, 3.0), geometry=geometry())
    assert bool(Outliers()(view).all())


# --- bad input --------------------------------------------------------------------------------------------------------


def test_what_does_not_fit_is_named():
    with pytest.raises(ValueError, match="Threshold looks at an image"):
        Threshold(1.0)(VIEW)
    with pytest.raises(ValueError, match="MapRange looks at the map 'q'"):
        MapRange("q", 0.0, 1.0)(VIEW)
    with pytest.raises(ValueError, match=r"no map of a TransmissionGeometry 'chi'"):
        MapRange("chi", 0.0, 1.0)(View(geometry=geometry()))
    with pytest.raises(ValueError, match="it may have to be transposed"):
        PixelMask.of(np.ones((12, 9)))(VIEW)
    with pytest.raises(ValueError, match="three corners"):
        Polygon([[0, 0], [1, 1]])
    with pytest.raises(ValueError, match="no rule 'sigma': mad, percentile"):
        Outliers(rule="sigma")
    with pytest.raises(ValueError, match="needs one shape"):
        View((3, 4), np.zeros((4, 3)))
    with pytest.raises(ValueError, match="what should the mask look at"):
        View()
    with pytest.raises(ValueError, match="fill no detector"):
        PixelMask([3, 4], (2, 2))
    with pytest.raises(Exception, match="BadPixels names a pixel outside"):
        BadPixels([[9, 0]])(VIEW)
    with pytest.raises(Exception, match="BadPixels names a pixel outside"):
        BadPixels([[0, -1]])(VIEW)


def test_a_config_is_told_what_is_wrong():
    with pytest.raises(ConfigError, match=r"Circel.*did you mean 'Circle'"):
        masks_from_tables([{"type": "Circel", "centre": [1, 2], "radius": 3}])
    with pytest.raises(ConfigError, match=r"needs a value for radius"):
        masks_from_tables([{"type": "Circle", "centre": [1, 2]}])
    with pytest.raises(ConfigError, match=r"mask\[1\]"):
        masks_from_tables([{"type": "Threshold"}, {"type": "Not", "of": {"type": "Circle", "centre": [1, 2, 3]}}])


# --- histories and files ----------------------------------------------------------------------------------------------


def test_a_history_undoes_and_redoes():
    a, b, c = EVERY["circle"], EVERY["polygon"], EVERY["line"]
    history = MaskHistory().push(a).push(b)
    same = np.testing.assert_array_equal
    same(history.evaluate(VIEW), (a & b)(VIEW))
    same(history.undo().evaluate(VIEW), a(VIEW))
    same(history.undo().redo().evaluate(VIEW), (a & b)(VIEW))
    assert bool(history.undo().undo().undo().evaluate(VIEW).all())
    assert history.redo().cursor == 2
    assert history.undo().push(c).redo().masks == (a, c)
    assert history.reset().masks == ()
    assert len(history.masks) == 2  # it was never changed
    with pytest.raises(ValueError, match="cursor of 2 masks"):
        MaskHistory([a, b], 3)


@pytest.mark.parametrize("name", ["masks.json", "masks.h5"])
def test_a_history_survives_its_file(tmp_path, name):
    history = MaskHistory(list(EVERY.values())).undo().undo()
    write_masks(tmp_path / name, history)
    found = read_masks(tmp_path / name)
    assert found.cursor == len(EVERY) - 2
    view = full_view()
    np.testing.assert_array_equal(found.evaluate(view), history.evaluate(view))
    np.testing.assert_array_equal(found.redo().redo().evaluate(view), history.redo().redo().evaluate(view))


def test_hdf5_keeps_the_pixels_for_other_programs(tmp_path):
    history, view = MaskHistory([EVERY["circle"]]), full_view()
    write_masks(tmp_path / "m.h5", history, history.evaluate(view))
    with h5py.File(tmp_path / "m.h5") as file:
        np.testing.assert_array_equal(file["mask"][()], history.evaluate(view).astype(np.uint8))
    with pytest.raises(ValueError, match=r"ends in \.h5"):
        write_masks(tmp_path / "m.json", history, history.evaluate(view))


def test_files_without_masks_are_named(tmp_path):
    (tmp_path / "a.json").write_text("{")
    (tmp_path / "b.json").write_text("{}")
    (tmp_path / "c.h5").write_text("no")
    with pytest.raises(ValueError, match=r"a\.json holds no masks"):
        read_masks(tmp_path / "a.json")
    with pytest.raises(ValueError, match=r"b\.json holds no masks"):
        read_masks(tmp_path / "b.json")
    with pytest.raises(ValueError, match=r"c\.h5 is no HDF5 file"):
        read_masks(tmp_path / "c.h5")


def test_a_blemish_file_is_read(tmp_path):
    good = np.arange(108).reshape(SHAPE) % 5
    with h5py.File(tmp_path / "b.h5", "w") as file:
        file["x/blemish"] = good
    np.save(tmp_path / "b.npy", good)
    for blemish in (Blemish(str(tmp_path / "b.h5"), "/x/blemish"), Blemish(str(tmp_path / "b.npy"))):
        np.testing.assert_array_equal(blemish(VIEW), good > 0)
        table = tables_of_masks(MaskHistory([blemish]))
        np.testing.assert_array_equal(masks_from_tables(table).evaluate(VIEW), good > 0)
    with pytest.raises(ValueError, match=r"no dataset '/lambda_blemish', but .*x/blemish"):
        Blemish(str(tmp_path / "b.h5"))
    with pytest.raises(ValueError, match="no blemish file"):
        Blemish(str(tmp_path / "none.h5"))
    (tmp_path / "b.txt").write_text("no")
    with pytest.raises(ValueError, match="neither an HDF5 file nor"):
        Blemish(str(tmp_path / "b.txt"))


def test_an_image_in_single_precision():
    view = full_view()
    low = View(image=view.image.astype(jnp.float32), geometry=view.geometry)
    np.testing.assert_array_equal(EVERY["threshold"](low), EVERY["threshold"](view))
