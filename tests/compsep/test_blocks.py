"""Skies in blocks from disk to disk: the numbers of the whole, stopped and resumed, spoilt only where they are bad."""

import os
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
import sky

from jaxsci import compsep

ROOT = Path(__file__).resolve().parents[2]
NSIDE = 16
NPIX = 12 * NSIDE**2


@pytest.fixture(scope="module")
def maps():
    return np.asarray(sky.made(NPIX, "QU")[0])


@pytest.fixture(scope="module")
def whole(maps):
    mixing = three()
    return compsep.separate(mixing, sky.LITEBIRD, maps, patches=NSIDE)


def three():
    return compsep.MixingMatrix(
        cmb=compsep.CMB(), dust=compsep.ModifiedBlackBody(1.54, 20.0), sync=compsep.PowerLaw(-3.0)
    )


def on_disk(folder, array, name="maps.npy"):
    np.save(folder / name, array)
    return np.load(folder / name, mmap_mode="r")


def same_pixels(stored, whole, which=slice(None)):
    for i, name in enumerate(whole.free):
        np.testing.assert_array_equal(stored.values[i, which], whole.parameter_map(name)[which])
        np.testing.assert_array_equal(stored.std[i, which], whole.error_map(name)[which])
    cell = np.asarray(whole.cell)[which]
    np.testing.assert_array_equal(stored.covariance[..., which], np.asarray(whole.covariance)[..., cell])
    for name in ("amplitudes", "errors", "chi2"):
        np.testing.assert_array_equal(getattr(stored, name)[..., which], getattr(whole, name)[..., which])
    np.testing.assert_array_equal(stored.steps[which], np.asarray(whole.steps)[cell])
    np.testing.assert_array_equal(stored.result[which], np.asarray(whole.result)[cell])


def test_blocks_are_the_whole_to_the_bit(tmp_path, maps, whole):
    stored = compsep.separate_blocks(three(), sky.LITEBIRD, on_disk(tmp_path, maps), tmp_path / "out", block=700)
    same_pixels(stored, whole)
    assert stored.totals.used == NPIX
    assert stored.totals.failed == 0
    assert stored.totals.dof == int(whole.dof)
    assert stored.totals.chi2 == pytest.approx(float(whole.chi2.sum()), rel=1e-13)
    assert stored.totals.minus_log_like == pytest.approx(float(whole.minus_log_like), rel=1e-13)
    assert f"{NPIX} of {NPIX} pixels" in stored.summary()
    np.testing.assert_array_equal(stored.component("dust"), whole.component("dust"))


def test_a_dataset_of_hdf5_is_read_as_it_is(tmp_path, maps, whole):
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "maps.h5", "w") as file:
        file["maps"] = maps
        stored = compsep.separate_blocks(three(), sky.LITEBIRD, file["maps"], tmp_path / "out", block=2000)
    same_pixels(stored, whole)


class Stop(Exception):
    pass


def stop_after(pixels):
    def progress(done, total):
        assert total == NPIX
        if done >= pixels:
            raise Stop

    return progress


def test_what_was_stopped_goes_on_with_the_same_bits(tmp_path, maps, whole):
    source, out = on_disk(tmp_path, maps), tmp_path / "out"

    def run(**choices):
        return compsep.separate_blocks(three(), sky.LITEBIRD, source, out, block=700, **choices)

    with pytest.raises(Stop):
        run(progress=stop_after(1400))
    with pytest.raises(ValueError, match="has 1400 of 3072 pixels"):
        compsep.StoredSeparation.open(out)
    chi2 = np.load(out / "chi2.npy", mmap_mode="r+")
    chi2[1400:2100] = 7.0  # a block that was half written when the power failed
    chi2.flush()
    seen = []
    same_pixels(run(progress=lambda done, total: seen.append(done)), whole)
    assert seen[0] == 1400
    assert seen[-1] == NPIX
    same_pixels(compsep.StoredSeparation.open(out), whole)


def test_another_separation_is_not_mistaken_for_this_one(tmp_path, maps):
    source, out = on_disk(tmp_path, maps[..., :768]), tmp_path / "out"
    compsep.separate_blocks(three(), sky.LITEBIRD, source, out)
    with pytest.raises(ValueError, match="for other settings:"):
        compsep.separate_blocks(three(), sky.LITEBIRD, source, out, marginal=True)
    other = on_disk(tmp_path, 2 * maps[..., :768], "other.npy")
    with pytest.raises(ValueError, match="for other maps:"):
        compsep.separate_blocks(three(), sky.LITEBIRD, other, out)
    again = compsep.separate_blocks(three(), sky.LITEBIRD, other, out, resume=False)
    assert np.all(np.isfinite(again.values))


def test_bad_pixels_spoil_only_themselves(tmp_path, maps, whole):
    bad, mask = maps.copy(), np.ones(NPIX, bool)
    bad[3, 1, 1000:1010] = np.nan
    bad[:, :, 1500] = compsep.UNSEEN
    bad[:, :, 2100:2800] = np.inf  # a block of nothing else
    mask[5] = False
    source = on_disk(tmp_path, bad)
    stored = compsep.separate_blocks(
        three(), sky.LITEBIRD, source, tmp_path / "out", block=700, mask=on_disk(tmp_path, mask, "mask.npy")
    )
    expected = np.zeros(NPIX, int)
    expected[[5, 1500]] = -1
    expected[1000:1010] = expected[2100:2800] = -2
    np.testing.assert_array_equal(stored.result, expected)
    same_pixels(stored, whole, expected == 0)
    assert np.all(np.isnan(stored.amplitudes[..., expected < 0]))
    assert np.all(np.isnan(stored.values[:, expected < 0]))
    assert stored.totals.bad == 710


def test_whole_patches_in_a_block_are_those_of_the_whole_sky(tmp_path, maps):
    mixing, patches = three(), {"dust.beta": 8, "dust.temp": 4, "sync.beta": 4}
    whole = compsep.separate(mixing, sky.LITEBIRD, maps, patches=patches, nest=True)
    stored = compsep.separate_blocks(
        mixing, sky.LITEBIRD, on_disk(tmp_path, maps), tmp_path / "out", patches=patches, nest=True, block=1030
    )
    for name in whole.free:
        off = stored.parameter_map(name) - np.asarray(whole.parameter_map(name))
        assert np.max(np.abs(off) / np.asarray(whole.error_map(name))) < 1e-5
        np.testing.assert_allclose(stored.error_map(name), whole.error_map(name), rtol=1e-5)
    np.testing.assert_allclose(stored.errors, whole.errors, rtol=1e-5)
    assert stored.totals.dof == int(whole.dof)
    np.testing.assert_array_equal(stored.result, 0)


def test_pixels_have_the_noise_of_their_own_block(tmp_path, maps):
    sigma = np.asarray(sky.LITEBIRD.sigma(NPIX, "QU"))[..., None]
    weights = np.random.default_rng(3).uniform(0.5, 2, maps.shape) / sigma**2
    noise = on_disk(tmp_path, weights, "weights.npy")
    whole = compsep.separate(three(), sky.LITEBIRD, maps, patches=NSIDE, inv_n=weights)
    source, out = on_disk(tmp_path, maps), tmp_path / "out"
    same_pixels(compsep.separate_blocks(three(), sky.LITEBIRD, source, out, block=900, inv_n=noise), whole)


def test_fixed_maps_are_read_block_by_block(tmp_path, maps):
    temp = 19 + 2 * np.random.default_rng(8).random(NPIX)
    mixing, sources = three(), (on_disk(tmp_path, maps), on_disk(tmp_path, temp, "temp.npy"))
    whole = compsep.separate(mixing, sky.LITEBIRD, maps, fixed={"dust.temp": temp}, patches=NSIDE)

    def run(temp, **choices):
        fixed = {"dust.temp": temp}
        return compsep.separate_blocks(
            mixing, sky.LITEBIRD, sources[0], tmp_path / "out", fixed=fixed, block=700, **choices
        )

    with pytest.raises(Stop):
        run(sources[1], progress=stop_after(1400))
    with pytest.raises(ValueError, match="for other maps:"):
        run(temp + 1)
    stored = run(sources[1])
    assert stored.free == ("dust.beta", "sync.beta")
    same_pixels(stored, whole)
    hole = np.where(np.arange(NPIX) == 1500, np.nan, temp)
    stored = run(hole, resume=False)
    assert stored.totals.bad == 1
    np.testing.assert_array_equal(stored.result, np.where(np.arange(NPIX) == 1500, -2, 0))
    same_pixels(stored, whole, np.arange(NPIX) != 1500)
    with pytest.raises(ValueError, match=r"dust.temp should have a value for each of 3072 pixels"):
        run(temp[:7])
    with pytest.raises(ValueError, match=r"dust\.temp is both fixed and free"):
        run(temp, free=("dust.temp",))


def test_one_value_for_the_whole_sky_is_that_of_the_whole(tmp_path, maps):
    """Patches of 0: all that the sky says of them is gathered in one pass; holes and channels without weight too."""
    bad, mask, weights = maps.copy(), np.arange(NPIX) % 5 != 0, 1 / np.asarray(sky.LITEBIRD.sigma(NPIX, "QU")) ** 2
    bad[3, 1, 1001:1010] = np.nan
    bad[7], weights[7] = np.nan, 0
    source, where = on_disk(tmp_path, bad), mask & ~((np.arange(NPIX) > 1000) & (np.arange(NPIX) < 1010))
    tight = {"patches": 0, "tolerance": 1e-9, "inv_n": weights}
    whole = compsep.separate(three(), sky.LITEBIRD, maps, mask=where, **tight)

    def run(**choices):
        how = {"block": 700, "mask": mask, **tight, **choices}
        return compsep.separate_blocks(three(), sky.LITEBIRD, source, tmp_path / "out", **how)

    with pytest.raises(Stop):
        run(progress=stop_after(1400))
    stored = run()
    np.testing.assert_array_equal(stored.result == 0, where)
    for name in whole.free:
        np.testing.assert_allclose(stored.parameter_map(name)[where], float(whole.values[name][0]), rtol=1e-10)
        np.testing.assert_allclose(stored.error_map(name)[where], float(whole.std[name][0]), rtol=1e-9)
    np.testing.assert_allclose(stored.amplitudes, whole.amplitudes, rtol=1e-8, atol=1e-7)
    np.testing.assert_allclose(stored.errors, whole.errors, rtol=1e-9)
    assert stored.totals.dof == int(whole.dof)
    assert stored.totals.failed == 0
    assert stored.totals.steps > 1
    assert stored.totals.chi2 == pytest.approx(float(np.nansum(whole.chi2)), rel=1e-12)
    once = run(block=5000, resume=False)
    np.testing.assert_allclose(once.values[:, 1], stored.values[:, 1], rtol=1e-12)
    with pytest.raises(ValueError, match="no pixel is left"):
        run(mask=np.zeros(NPIX, bool), resume=False)


def test_single_precision_loses_less_than_the_noise_by_far(tmp_path, maps, whole):
    stored = compsep.separate_blocks(
        three(), sky.LITEBIRD, on_disk(tmp_path, maps.astype(np.float32)), tmp_path / "out"
    )
    for name in whole.free:
        off = np.abs(stored.parameter_map(name) - np.asarray(whole.parameter_map(name)))
        assert 0 < np.max(off / np.asarray(whole.error_map(name))) < 1e-3


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        (
            {"patches": 0, "marginal": True},
            "one value for the whole sky, which in blocks goes without marginal",
        ),
        ({"patches": 0, "inv_n": np.ones((15, 2, NPIX))}, "goes without noise by pixel"),
        ({"patches": 0, "fixed": {"dust.temp": np.full(NPIX, 20.0)}}, "goes without fixed maps"),
        ({"patches": {"dust.beta": 16}}, "dust.temp has one value for the whole sky"),
        ({"patches": 8}, "in RING order"),
        ({"patches": 3, "nest": True}, "power of two up to 16"),
        ({"patches": 1, "nest": True, "block": 100}, "longer than block=100"),
        ({"patches": np.arange(NPIX)[::-1].copy()}, "longer than block|sort them"),
        ({"patches": np.arange(NPIX) % 700}, "longer than block|sort them"),
        ({"patches": np.arange(7)}, "should be 3072 integers"),
        ({"patches": {"dust.bta": 4}}, "did you mean 'dust.beta'"),
        ({"block": 0}, "positive number of pixels"),
    ],
)
def test_what_no_block_can_hold_is_named(tmp_path, maps, choices, message):
    with pytest.raises(ValueError, match=message):
        compsep.separate_blocks(three(), sky.LITEBIRD, maps, tmp_path / "out", **{"block": 700, **choices})


DEVICES = """
import sys; sys.path.insert(0, "tests/compsep")
import jax, numpy as np, jaxsci as js
js.enable_x64()
jax.config.update("jax_compilation_cache_dir", {cache!r})
import sky
from jaxsci import compsep
assert jax.device_count() == 2
maps = np.load({maps!r}, mmap_mode="r")
mixing = compsep.MixingMatrix(
    cmb=compsep.CMB(), dust=compsep.ModifiedBlackBody(1.54, 20.0), sync=compsep.PowerLaw(-3.0)
)
mesh = jax.make_mesh((2,), ("blocks",))
found = compsep.separate_blocks(mixing, sky.LITEBIRD, maps, {out!r}, block=300, mesh=mesh)
alone = compsep.separate_blocks(mixing, sky.LITEBIRD, maps, {alone!r}, block=300)
print(found.totals.used, alone.totals.used)
"""


def test_two_devices_share_the_blocks(tmp_path, maps):
    on_disk(tmp_path, maps)
    places = {"maps": tmp_path / "maps.npy", "out": tmp_path / "out", "alone": tmp_path / "alone"}
    script = DEVICES.format(
        cache=jax.config.jax_compilation_cache_dir, **{name: str(path) for name, path in places.items()}
    )
    assert run(script, XLA_FLAGS="--xla_force_host_platform_device_count=2") == f"{NPIX} {NPIX}"
    stored, alone = (compsep.StoredSeparation.open(places[name]) for name in ("out", "alone"))
    for name in ("values", "std", "covariance", "amplitudes", "errors", "chi2", "steps", "result"):
        np.testing.assert_array_equal(getattr(stored, name), getattr(alone, name), err_msg=name)


MEMORY = """
import sys; sys.path.insert(0, "tests/compsep")
import jax, numpy as np, jaxsci as js
js.enable_x64()
jax.config.update("jax_compilation_cache_dir", {cache!r})
import sky
from jaxsci import compsep
mixing = compsep.MixingMatrix(
    cmb=compsep.CMB(), dust=compsep.ModifiedBlackBody(1.54, 20.0), sync=compsep.PowerLaw(-3.0)
)
tile = np.load({tile!r})
def memory(what):
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith(what)) / 1024
def run(name, npix):
    maps = np.lib.format.open_memmap({folder!r} + f"/{{name}}.npy", "w+", np.float32, (15, 2, npix))
    for at in range(0, npix, tile.shape[2]):
        maps[..., at : at + tile.shape[2]] = tile
    del maps
    maps = np.load({folder!r} + f"/{{name}}.npy", mmap_mode="r")
    how = {{"free": ("dust.beta",), "block": 4096, "inv_n": np.asarray(sky.LITEBIRD.sigma(npix, "QU")) ** -2.0}}
    return compsep.separate_blocks(mixing, sky.LITEBIRD, maps, {folder!r} + "/" + name, **how)
run("small", 3072)
open("/proc/self/clear_refs", "w").write("5")
before = memory("VmRSS")
run("large", 128 * 3072)
print(memory("VmHWM") - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads the memory of a process as Linux tells it")
def test_memory_holds_a_block_whatever_the_sky(tmp_path, maps):
    np.save(tmp_path / "tile.npy", maps)
    places = {"tile": str(tmp_path / "tile.npy"), "folder": str(tmp_path)}
    script = MEMORY.format(cache=jax.config.jax_compilation_cache_dir, **places)
    # 47 MB of maps and 51 MB of results go through it; a block of them is 1 MB, what it is computed in 10
    assert float(run(script)) < 60


def run(script, **flags):
    environment = {**os.environ, **flags, "PYTHONPATH": str(ROOT)}
    command, how = [sys.executable, "-c", script], {"capture_output": True, "text": True, "check": False}
    out = subprocess.run(command, cwd=ROOT, env=environment, timeout=500, **how)
    assert out.returncode == 0, out.stderr[-3000:]
    return out.stdout.strip()
