"""Result files: real ones, cases with right values, older layouts, a map for other beamlines, and damage."""

import dataclasses
import json
import shutil

import equinox as eqx
import h5py
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import close

from jaxsci import xpcs
from jaxsci.xpcs.io import PATHS

REAL = {
    "Average_B0147_S3_7_300C10p_att00_Rq0_01051_01150_results.hdf": (61, 27, 38, 1476, 7800.0),
    "E0173_H06-c6c5-4_a0009_f100000_r00001_results.hdf": (61, 36, 471, 360, 11600.0),
}


@pytest.fixture(scope="module")
def case(shared_data):
    return shared_data / "xpcs" / "cases" / "result_qphi.h5"


def same(one, other):
    """All arrays to the last bit; points that are masked may hold anything."""
    one, other = (dataclasses.replace(r, name="", curves=hidden(r.curves)) for r in (one, other))
    assert jax.tree.structure(one) == jax.tree.structure(other)
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        np.testing.assert_array_equal(np.asarray(a), np.asarray(b))


def hidden(curves):
    mask = np.asarray(curves.mask)
    values = [None if x is None else np.where(mask, x, 0) for x in (curves.g2, curves.sigma)]
    return eqx.tree_at(lambda c: (c.g2, c.sigma), curves, values, is_leaf=lambda x: x is None)


def test_the_case_with_known_values(case):
    found = xpcs.read_result(case)
    known = json.loads(case.with_suffix(".json").read_text())
    assert np.asarray(found.curves.t).tolist() == known["t"]
    assert np.asarray(found.curves.q).tolist() == known["q_of_column"]
    assert np.asarray(found.phi).tolist() == known["phi_of_column"]
    masked = {tuple(pair) for pair in np.argwhere(~np.asarray(found.curves.mask)).tolist()}
    assert masked == {tuple(pair) for pair in known["masked_points"]}
    assert (found.average, found.stride, float(found.frame_time)) == (2, 3, 0.00125)
    assert found.scattering is found.two_time is found.intensity is found.geometry is None


@pytest.mark.parametrize("name", REAL)
def test_real_files(shared_data, name):
    n, q, masked, static, distance = REAL[name]
    found = xpcs.read_result(shared_data / "xpcs" / name)
    assert found.curves.g2.shape == (n, q)
    assert int((~found.curves.mask).sum()) == masked
    assert found.scattering.mean.shape == (static,)
    assert found.scattering.segments.shape == (12, static)
    close(float(found.frame_time), 2e-5, rtol=1e-7)
    close(float(found.curves.t[0]), 2e-5, rtol=1e-7)
    # the geometry of the partition, not that of the instrument's group, which is another experiment's
    close(float(found.geometry.distance), distance, rtol=1e-12)
    assert int(found.pixels.labels.max()) == q
    assert np.all(np.diff(np.asarray(found.curves.q)) > 0)


def test_a_real_file_keeps_its_bits(shared_data, tmp_path):
    found = xpcs.read_result(shared_data / "xpcs" / next(iter(REAL)))
    xpcs.write_result(tmp_path / "again.h5", found)
    same(xpcs.read_result(tmp_path / "again.h5"), found)
    assert [path.name for path in tmp_path.iterdir()] == ["again.h5"]


def test_the_case_keeps_its_bits(case, tmp_path):
    found = xpcs.read_result(case)
    xpcs.write_result(tmp_path / "again.h5", found)
    same(xpcs.read_result(tmp_path / "again.h5"), found)


def test_two_time_matrices_keep_their_bits(case, tmp_path):
    found = xpcs.read_result(case)
    rng = np.random.default_rng(0)
    maps = rng.normal(size=(2, 5, 5))
    maps = maps + np.swapaxes(maps, 1, 2)
    two = xpcs.TwoTimeMaps(jnp.array([2, 7], jnp.int32), jnp.asarray(maps), found.step)
    found = dataclasses.replace(found, two_time=two)
    xpcs.write_result(tmp_path / "two.h5", found)
    same(xpcs.read_result(tmp_path / "two.h5"), found)


def older(path, q=4, n=6):
    """A file of the layout before NeXus, with rows of one axis and times of two."""
    rng = np.random.default_rng(1)
    g2 = 1 + rng.random((n, q))
    with h5py.File(path, "w") as file:
        file["exchange/norm-0-g2"], file["exchange/norm-0-stderr"] = g2, np.full((n, q), 0.01)
        file["exchange/tau"] = np.arange(1, n + 1)[None, :]
        file["measurement/instrument/detector/exposure_period"] = np.array([[0.02]])
        file["xpcs/dqlist"], file["xpcs/dphilist"] = np.linspace(0.01, 0.04, q)[None], np.linspace(0, 270, q)[None]
        file["xpcs/stride_frames"] = 3
    return g2


def test_the_older_layout(tmp_path):
    g2 = older(tmp_path / "old.hdf")
    found = xpcs.read_result(tmp_path / "old.hdf")
    close(found.curves.g2, g2)
    close(found.curves.t, 0.06 * np.arange(1, 7), rtol=1e-15)
    close(found.curves.q, np.linspace(0.01, 0.04, 4))
    close(found.phi, np.linspace(0, 270, 4))


def test_a_map_for_the_files_of_another_beamline(tmp_path):
    older(tmp_path / "old.hdf")
    with h5py.File(tmp_path / "old.hdf") as old, h5py.File(tmp_path / "theirs.h5", "w") as new:
        for place, name in (("exchange/norm-0-g2", "g2"), ("exchange/tau", "tau"), ("xpcs/dqlist", "q")):
            new[f"entry/{name}"] = old[place][()]
        new["entry/dt"] = 0.5
    (tmp_path / "theirs.toml").write_text(
        'g2 = "/entry/g2"\ndelays = "/entry/tau"\nframe_time = "/entry/dt"\nq = "/entry/q"\n'
    )
    with pytest.raises(ValueError, match=r"has no g2 at .*normalized_g2.*layout"):
        xpcs.read_result(tmp_path / "theirs.h5")
    found = xpcs.read_result(tmp_path / "theirs.h5", xpcs.read_layout(tmp_path / "theirs.toml"))
    close(found.curves.t, 0.5 * np.arange(1, 7))
    assert found.curves.sigma is None
    (tmp_path / "typo.toml").write_text('g2_eror = "/entry/g2"\n')
    with pytest.raises(ValueError, match="did you mean 'g2_error'"):
        xpcs.read_layout(tmp_path / "typo.toml")


def edited(case, tmp_path, edit):
    shutil.copy(case, tmp_path / "edited.h5")
    with h5py.File(tmp_path / "edited.h5", "r+") as file:
        edit(file)
    return tmp_path / "edited.h5"


def put(name, value):
    def edit(file):
        place = next(p for p in PATHS[name] if p in file)
        del file[place]
        if value is not None:
            file[place] = value

    return edit


DAMAGED = {
    "no delays": (put("delays", None), "has no delays at /xpcs/multitau/delay_list"),
    "too few delays": (put("delays", np.arange(1, 5)), r"normalized_g2 has shape \(12, 11\), but 4 delays"),
    "negative": (put("delays", -np.arange(12)), "delay_list has entries that are negative"),
    "a text": (put("g2", np.array([b"x"])), "normalized_g2 holds"),
    "empty": (put("g2", np.zeros((0, 11))), "normalized_g2 is empty"),
    "null": (put("g2", h5py.Empty("f8")), "normalized_g2 is empty"),
    "two frame times": (put("frame_time", np.array([1.0, 2.0])), "frame_time has shape"),
    "no time": (put("frame_time", np.nan), "frame_time is nan"),
    "zero time": (put("frame_time", 0.0), "frame_time is 0.0, but it should be a time above 0"),
    "half a frame": (put("stride", 1.5), "stride_frame is 1.5"),
    "columns": (put("columns", np.arange(10)), "has 11 bins, but the partition has 10"),
    "places": (put("columns", np.arange(11) + 4), "has places up to 14, but the partition has 3 x 4"),
    "errors": (put("g2_error", np.ones((12, 4))), "normalized_g2_err"),
    "maps": (put("map_names", np.array([b"x", b"y"])), "bins are of x"),
    "labels": (put("labels", np.ones((2, 3, 4))), "dynamic_roi_map has shape"),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_damage_is_named(case, tmp_path, name):
    edit, message = DAMAGED[name]
    path = edited(case, tmp_path, edit)
    with pytest.raises(ValueError, match=message) as error:
        xpcs.read_result(path)
    assert "edited.h5" in str(error.value)


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.95])
def test_a_file_that_is_cut_short_is_refused(case, tmp_path, share):
    whole = case.read_bytes()
    (tmp_path / "half.h5").write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(ValueError, match=r"half\.h5"):
        xpcs.read_result(tmp_path / "half.h5")


def test_a_flipped_byte_in_packed_data_is_refused(case, tmp_path):
    """A data set with a checksum that no longer fits is named."""
    path = edited(case, tmp_path, put("g2", None))
    with h5py.File(path, "r+") as file:
        data = file.create_dataset(PATHS["g2"][0], data=np.ones((12, 11)), chunks=(12, 11), fletcher32=True)
        at = data.id.get_chunk_info(0).byte_offset
    content = bytearray(path.read_bytes())
    content[at + 8] ^= 255
    path.write_bytes(bytes(content))
    with pytest.raises(ValueError, match=r"edited\.h5: the data set /xpcs/multitau/normalized_g2 cannot be read"):
        xpcs.read_result(path)


def test_other_files(tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no file"):
        xpcs.read_result(tmp_path / "gone.h5")
    (tmp_path / "text.h5").write_text("t g2\n")
    with pytest.raises(ValueError, match="no HDF5 file"):
        xpcs.read_result(tmp_path / "text.h5")


@pytest.mark.parametrize("unit", ["1/nm", "nm⁻¹", "nm^-1"])
def test_q_in_other_units(case, tmp_path, unit):
    path = edited(case, tmp_path, put("map_units", np.array([unit.encode(), b"degree"])))
    close(xpcs.read_result(path).curves.q, 0.1 * np.asarray(xpcs.read_result(case).curves.q), rtol=1e-14)


def test_a_failed_write_leaves_the_old_file(case, tmp_path, monkeypatch):
    found = xpcs.read_result(case)
    xpcs.write_result(tmp_path / "kept.h5", found)
    before = (tmp_path / "kept.h5").read_bytes()

    def full(*_):
        raise OSError("no space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="no space"):
        xpcs.write_result(tmp_path / "kept.h5", found)
    assert (tmp_path / "kept.h5").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["kept.h5"]


def test_numbers_that_cannot_be_are_named_with_a_remedy(case, tmp_path):
    path = tmp_path / "edited.h5"

    def edited(name, change):
        shutil.copy(case, path)
        with h5py.File(path, "r+") as file:
            place = next(place for place in PATHS[name] if place in file)
            values = np.asarray(file[place][()], float)
            del file[place]
            file[place] = change(values)
        return xpcs.read_result(path)

    def first(value):
        return lambda x: np.where(np.arange(x.size).reshape(x.shape) == 0, value, x)

    for wrong in (np.nan, -0.01):
        with pytest.raises(ValueError, match=rf"edited\.h5: .*dynamic_v_list_dim0 has a q of {wrong}.*0 or more"):
            edited("q", first(wrong))
    with pytest.raises(ValueError, match=r"delay_list has the delay \S+ twice"):
        edited("delays", lambda x: np.where(x == x.ravel()[1], x.ravel()[0], x))
    with pytest.raises(ValueError, match=r'no error above zero.* g2_error = "/none"'):
        edited("g2_error", lambda x: -np.abs(x))
    assert xpcs.read_result(path, {"g2_error": "/none"}).curves.sigma is None
    with pytest.warns(UserWarning, match=r"normalized_g2 lies about .* add 1 to it"):
        edited("g2", lambda x: np.where(x == 0, 0, x - 1))


def test_a_power_law_needs_the_q_of_each_fit(case):
    curves = xpcs.read_result(case).curves.take([0, 1])
    fits = xpcs.fit_g2(curves, xpcs.SingleExponential)
    with pytest.raises(ValueError, match=r"q has shape \(3,\), but there are fits of 2 q-bins"):
        xpcs.fit_power_law(fits, jnp.ones(3))
