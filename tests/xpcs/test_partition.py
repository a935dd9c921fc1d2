"""Partitions: another program's to the last pixel, angles that come round, static inside dynamic, q-map files."""

import h5py
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import Counter, close
from hypothesis import given, settings, strategies as st

from jaxsci.xpcs import (
    Axis,
    Labels,
    Partition,
    ReflectionGeometry,
    TransmissionGeometry,
    cut_map,
    label_pixels,
    labels_of,
    partition,
    read_qmap,
    write_qmap,
)

SHAPE = (31, 41)
GEOMETRY = TransmissionGeometry(10.9, (15.0, 20.0), 5000.0, 0.075, SHAPE)
USED = np.ones(SHAPE, bool)
USED[3:6, 10:30] = False


def cut(values, used, *axes):
    values = [np.asarray(v, float) for v in values]
    cuts = [cut_map(v, used, axis) for v, axis in zip(values, axes, strict=True)]
    return label_pixels(values, used, cuts)


@pytest.mark.parametrize("case", range(4))
@pytest.mark.parametrize("spacing", ["lin", "log"])
@pytest.mark.parametrize(("offset", "fold"), [(None, 1), (15.0, 1), (0.0, 3)])
def test_partitions_are_those_of_another_program(golden, golden_mask, case, spacing, offset, fold):
    """For its own maps, in every pixel; the mask is that of its README."""
    key = f"c{case}_{spacing}_off{offset}_fold{fold}"
    axes = (Axis("q", 12, {"lin": "linear"}.get(spacing, spacing)), Axis("phi", 8, offset=offset or 0.0, fold=fold))
    found = cut([golden[f"c{case}_q"], golden[f"c{case}_phi"]], golden_mask, *axes)
    assert found.labels.dtype == jnp.int32
    np.testing.assert_array_equal(found.labels, golden[f"{key}_roi"])
    np.testing.assert_array_equal(found.index, golden[f"{key}_idx"])
    close(found.values[0], golden[f"{key}_v0"], 1e-14)
    close(found.values[1], golden[f"{key}_v1"], 1e-12)


def test_sectors_come_round(shared_data):
    with np.load(shared_data / "xpcs" / "cases" / "phi_cut.npz") as case:
        known = dict(case)
    phi = np.asarray(GEOMETRY.phi())
    everywhere = np.ones(SHAPE, bool)
    for turn in (-360.0, 0.0, 360.0):
        eight = cut([phi], everywhere, Axis("phi", 8, low=-22.5 + turn, high=337.5 + turn))
        np.testing.assert_array_equal(eight.labels, known["eightfold"])
        np.testing.assert_array_equal(eight.counts, known["counts8"])
        assert int(eight.counts.sum()) == phi.size
        two = cut([phi], everywhere, Axis("phi", 4, low=-22.5 + turn, high=157.5 + turn, fold=2))
        np.testing.assert_array_equal(two.labels, known["two_fold_symmetric"])
        edges = Axis("phi", edges=np.linspace(-22.5, 337.5, 9) + turn)
        np.testing.assert_array_equal(cut([phi], everywhere, edges).labels, known["eightfold"])


@settings(max_examples=30, deadline=None)
@given(st.floats(-400, 400), st.sampled_from([1.0, 90.0, 360.0]), st.integers(-3, 3))
def test_limits_of_an_angle_may_lie_any_turn_on(low, width, turns):
    """In whole 64ths of a degree, which double precision adds 360 to exactly."""
    low = np.floor(low * 64) / 64
    phi = np.asarray(GEOMETRY.phi())
    here, there = (
        np.asarray(labels_of(jnp.asarray(phi), cut_map(phi, USED, Axis("phi", 4, low=at, high=at + width))))
        for at in (low, low + 360 * turns)
    )
    np.testing.assert_array_equal(here, there)
    known = (phi - low) % 360
    np.testing.assert_array_equal(here > 0, known <= width)


@settings(max_examples=60, deadline=None)
@given(st.sampled_from([1, 7, 36]), st.floats(1e-3, 1e3), st.floats(1e-6, 1e3), st.sampled_from(["linear", "log"]))
def test_bins_are_those_of_a_search(bins, low, width, spacing):
    """floor and one look at the edges find what a search finds, also on the edges and an ulp beside them."""
    axis = Axis("q", bins, spacing)
    made = cut_map(np.array([low, low + width]), np.ones(2, bool), axis) if low + width > low else None
    if made is None or not np.all(np.diff(made.edges) > 0):
        return
    edges = np.asarray(made.edges)
    values = np.concatenate([edges, np.nextafter(edges, 0), np.nextafter(edges, 1e9), [np.nan, -1.0, 0.0, 1e9]])
    values = np.pad(values, (0, 200 - values.size), constant_values=low)
    known = np.searchsorted(edges, values, side="right")
    known[values == edges[-1]] = bins
    known[(known > bins) | np.isnan(values)] = 0
    np.testing.assert_array_equal(labels_of(jnp.asarray(values), made), known)


def test_labels_trace_once_and_map():
    q = GEOMETRY.q()
    made = cut_map(q, USED, Axis("q", 5))
    counted = Counter(labels_of)
    batch = jax.jit(jax.vmap(counted, in_axes=(0, None)))
    found = batch(jnp.stack([q, q * 1.1]), made)
    batch(jnp.stack([q, q * 1.2]), made)
    assert counted.traces == 1
    np.testing.assert_array_equal(found[1], labels_of(q * 1.1, made))


@pytest.mark.parametrize("spacing", ["linear", "log"])
def test_static_bins_lie_within_dynamic_ones(spacing):
    axes = [Axis("q", 6, spacing, low=2e-5 if spacing == "log" else None), Axis("phi", 4, low=-45.0, high=315.0)]
    found = partition(GEOMETRY, USED, axes, finer=(5, 3))
    coarse, fine = np.asarray(found.labels), np.asarray(found.static_labels)
    np.testing.assert_array_equal(coarse > 0, fine > 0)
    np.testing.assert_array_equal(np.asarray(found.owner)[fine[fine > 0] - 1], coarse[fine > 0])
    assert found.static.bins > found.dynamic.bins
    assert np.all(np.asarray(found.static.counts) > 0)
    shared = np.asarray(found.static.values[0]).reshape(6, 5)
    assert np.all(np.diff(shared.ravel()) > 0)


def test_bins_along_any_pair_of_maps():
    grazing = ReflectionGeometry(7.35, (25.0, 20.0), 2000.0, 0.075, SHAPE, 0.2)
    for names in (("qz", "qr"), ("x", "y"), ("alpha_f", "in_plane"), ("q", "chi")):
        found = partition(grazing, USED, [Axis(names[0], 4), Axis(names[1], 3)])
        assert found.dynamic.names == names
        assert int(found.dynamic.counts.sum()) == USED.sum()
    one = partition(grazing, USED, [Axis("qz", 4)])
    assert one.dynamic.shape == (4, 1)


def test_pixels_are_sorted_by_their_bin():
    found = partition(GEOMETRY, USED, [Axis("q", 7), Axis("phi", 3)]).dynamic
    labels, order = np.asarray(found.labels).ravel(), np.asarray(found.order)
    sorted_ = labels[order]
    assert np.all(np.diff(sorted_) >= 0)
    assert np.all(np.diff(order)[np.diff(sorted_) == 0] > 0)
    assert sorted(order) == list(np.flatnonzero(labels))
    np.testing.assert_array_equal(np.bincount(labels)[1:], found.counts)
    assert np.all(found.counts > 0)


def test_values_of_bins_and_empty_bins():
    """A narrow wedge leaves bins of the product empty: they have no number, and are NaN on the grid."""
    used = USED & (np.asarray(GEOMETRY.phi()) > 100) & (np.asarray(GEOMETRY.phi()) < 130)
    axes = [Axis("q", 5), Axis("phi", 4, low=-180.0, high=180.0)]
    found = partition(GEOMETRY, used, axes).dynamic
    assert found.bins < 20
    q, phi = (np.asarray(GEOMETRY.map(name)) for name in ("q", "phi"))
    edges = np.linspace(q[used].min(), q[used].max(), 6)
    for b in range(found.bins):
        inside = np.asarray(found.labels) == b + 1
        k = found.index[b] // 4
        assert np.all((q[inside] >= edges[k]) & (q[inside] <= edges[k + 1]))
        assert np.all(np.abs(phi[inside] - found.of_bins(1)[b]) <= 45)
    grid = np.asarray(found.on_grid(jnp.stack([found.of_bins(0), found.of_bins(1)])))
    assert grid.shape == (2, 5, 4)
    assert np.isnan(grid).sum() == 2 * (20 - found.bins)
    assert np.nanmax(np.abs(grid[0] - np.asarray(found.values[0])[:, None])) == 0


def test_the_pixel_under_the_beam_has_a_bin():
    for axes in ([Axis("q", 5)], [Axis("q", 5), Axis("phi", 4)]):
        assert int(partition(GEOMETRY, USED, axes).labels[15, 20]) > 0
    # no logarithm of zero: it is left out there, and only it
    log = np.asarray(partition(GEOMETRY, USED, [Axis("q", 5, "log")]).labels)
    assert log[15, 20] == 0
    assert (log > 0).sum() == USED.sum() - 1


def test_what_cannot_be_cut_is_named():
    with pytest.raises(ValueError, match=r"no spacing 'logarithmic'.*linear, log"):
        Axis("q", 3, "logarithmic")
    with pytest.raises(ValueError, match="needs one bin or more"):
        Axis("q")
    with pytest.raises(ValueError, match="offset and fold are for angles"):
        Axis("q", 3, fold=2)
    with pytest.raises(ValueError, match="should rise"):
        Axis("q", edges=[1.0, 1.0])
    with pytest.raises(ValueError, match="both low and high"):
        Axis("phi", 3, low=0.0)
    with pytest.raises(ValueError, match="at most 180 degrees"):
        Axis("phi", 3, low=0.0, high=270.0, fold=2)
    with pytest.raises(ValueError, match="no pixel is used: the mask removes all"):
        partition(GEOMETRY, np.zeros(SHAPE), [Axis("q", 3)])
    with pytest.raises(ValueError, match="fits no geometry"):
        partition(GEOMETRY, np.ones((3, 4)), [Axis("q", 3)])
    with pytest.raises(ValueError, match="give low < high above zero"):
        partition(GEOMETRY, USED, [Axis("q", 3, "log", low=-1.0)])
    with pytest.raises(ValueError, match="one map or two, not along 3"):
        partition(GEOMETRY, USED, [Axis("q", 3), Axis("x", 2), Axis("y", 2)])
    with pytest.raises(ValueError, match=r"static bin \d+ reaches into the dynamic bins \d and \d"):
        partition(GEOMETRY, USED, [Axis("q", 3)], static=[Axis("q", 4)])
    with pytest.raises(ValueError, match="differ in 1 pixels"):
        Partition(Labels.of(np.array([[1, 2]])), Labels.of(np.array([[1, 0]])))
    with pytest.raises(ValueError, match="there is -1"):
        Labels.of(np.array([[-1, 2]]))


# --- files ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "geometry", [GEOMETRY, ReflectionGeometry(7.0, (15.0, 20.0), 1e3, (0.1, 0.2), SHAPE, 0.3), None]
)
def test_a_qmap_survives_its_file(tmp_path, geometry):
    made = partition(GEOMETRY, USED, [Axis("q", 6), Axis("phi", 4)], finer=(2, 1))
    write_qmap(tmp_path / "q.h5", geometry, USED, made)
    found = read_qmap(tmp_path / "q.h5")
    np.testing.assert_array_equal(found.mask, USED)
    close(found.partition, made, 0, 0)
    assert found.partition.dynamic.names == ("q", "phi")
    if geometry is None:
        assert found.geometry is None
    else:
        close(found.geometry, geometry, 0, 0)


def test_a_qmap_of_the_aps_is_read(shared_data):
    """A result file keeps the q map that it was made with, here under another group."""
    path = shared_data / "xpcs" / "cases" / "result_qphi.h5"
    with h5py.File(path) as file:
        known = file["xpcs/qmap/dynamic_roi_map"][()]
        index = file["xpcs/qmap/dynamic_index_mapping"][()].ravel()
    found = read_qmap(path, "/xpcs/qmap").partition.dynamic
    np.testing.assert_array_equal(found.labels, known)
    np.testing.assert_array_equal(found.index, index)


def test_a_bad_qmap_file_is_named(tmp_path):
    path = tmp_path / "q.h5"
    write_qmap(path, GEOMETRY, USED, partition(GEOMETRY, USED, [Axis("q", 6)]))
    with pytest.raises(ValueError, match=r"q\.h5 has no group /other"):
        read_qmap(path, "/other")
    with h5py.File(path, "r+") as file:
        del file["qmap/dynamic_roi_map"]
    with pytest.raises(ValueError, match=r"q\.h5 has no dataset /qmap/dynamic_roi_map"):
        read_qmap(path)
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(ValueError, match=r"q\.h5 is no HDF5 file"):
        read_qmap(path)
    with pytest.raises(ValueError, match="there is no file"):
        read_qmap(tmp_path / "none.h5")


def test_bins_without_a_pixel_and_labels_that_are_none_are_named():
    low, high = float(GEOMETRY.q().min()), float(GEOMETRY.q().max())
    with pytest.raises(ValueError, match=rf"no pixel that is used lies in a bin: .* q from {low:.6g} to {high:.6g}"):
        partition(GEOMETRY, USED, [Axis("q", 3, low=1.0, high=2.0)])
    with pytest.raises(ValueError, match="lies in a bin"):
        partition(GEOMETRY, USED, [Axis("q", edges=[1.0, 2.0])])
    axes = [Axis("q", 3), Axis("phi", 2)]
    for finer in ((2,), 3, (2, 2, 2)):
        with pytest.raises(ValueError, match=r"finer=.* one number for each of 2 axes, such as \[4, 15\]"):
            partition(GEOMETRY, USED, axes, finer=finer)
    assert partition(GEOMETRY, USED, axes[:1], finer=3).static.bins > 6
    for wrong in (0.5, np.nan):
        with pytest.raises(ValueError, match="labels are whole numbers"):
            Labels.of(np.array([[0.0, wrong]]))
    with pytest.raises(ValueError, match=r"labels should be a picture of \(rows, columns\)"):
        Labels.of(np.array([0, 1]))
    np.testing.assert_array_equal(Labels.of(np.array([[0.0, 2.0]])).labels, [[0, 2]])
