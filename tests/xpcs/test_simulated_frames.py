"""Simulated frames: their g2, contrast, ageing and photon statistics are those that they say they have."""

import h5py
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsci.xpcs import SimulatedFrames, write_frames

KEY = jax.random.key(3)


def exact(source, i, j):
    went_by = float(abs(source.clock[j] - source.clock[i]))
    return 1 + float(source.contrast) * np.exp(-2 * went_by * np.asarray(source.rate))


@pytest.mark.parametrize(("contrast", "photons"), [(1.0, True), (0.25, False), (0.4, False)])
def test_two_time_is_exact(contrast, photons):
    """Over 40,000 independent pixels, at any two times of an ageing clock, with and without photons."""
    source = SimulatedFrames(np.full(40_000, 0.3), 2.0, contrast, np.cumsum([0, 1, 0.5, 2, 0.1, 0]))
    x = np.asarray(source.frames(KEY, photons), float)
    np.testing.assert_allclose(x.mean(1), 2, atol=5 * np.sqrt((4 * contrast + 2 * photons) / 40_000))
    for i, j in ((0, 1), (1, 4), (0, 5), (2, 3)):
        product = x[i] * x[j] / 4
        assert abs(product.mean() - exact(source, i, j)[0]) < 5 * product.std() / 200
    excess = x[0].var() / 4 - photons / 2  # photons add 1 / mean to themselves
    assert abs(excess - contrast) < 0.1 * contrast + 0.01


def test_truths_are_one():
    source = SimulatedFrames(np.array([0.3, 1.0]), 2.0, 0.25, np.cumsum([0, 1, 0.5, 2, 0.1, 0]))
    np.testing.assert_allclose(source.two_time()[1, 4], exact(source, 1, 4), rtol=1e-12)
    np.testing.assert_allclose(source.g2(jnp.array([0.7]))[0], 1 + 0.25 * np.exp(-1.4 * source.rate), rtol=1e-12)


def small():
    return SimulatedFrames(np.linspace(0.01, 1, 12), 150.0, 0.5, np.arange(10.0))


def test_frames_are_a_function_of_the_key_alone():
    whole = small().frames(KEY)
    assert whole.dtype == jnp.uint16
    np.testing.assert_array_equal(jnp.concatenate(list(small().blocks(KEY, 5))), whole)
    assert not np.array_equal(small().frames(jax.random.key(4)), whole)


def test_mean_intensity_is_a_profile():
    profile = np.array([0.0, 1.0, 10.0])
    source = SimulatedFrames(np.full(3, 5.0), profile, 0.5, np.arange(512.0))
    mean = np.asarray(source.frames(KEY)).mean(0)
    assert mean[0] == 0
    np.testing.assert_allclose(mean[1:], profile[1:], rtol=0.25)


def test_errors():
    with pytest.raises(ValueError, match="contrast=0"):
        SimulatedFrames([1.0], 1.0, 0, [0.0, 1.0])
    with pytest.raises(ValueError, match="goes back"):
        SimulatedFrames([1.0], 1.0, 0.5, [0.0, 2.0, 1.0])


def test_written_frames_are_those(tmp_path):
    source = small()
    path = tmp_path / "frames.h5"
    assert write_frames(path, source.blocks(KEY, 5), (3, 4)) == 10
    with h5py.File(path) as file:
        found = file["entry/data/data"][:]
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found.reshape(10, 12), np.minimum(np.asarray(source.frames(KEY)), 255))
    assert [p.name for p in tmp_path.iterdir()] == ["frames.h5"]
    with pytest.raises(ValueError, match="12 pixels are not 3 x 5"):
        write_frames(tmp_path / "other.h5", source.blocks(KEY, 5), (3, 5))
    assert [p.name for p in tmp_path.iterdir()] == ["frames.h5"]
