"""Sparse photons: the same sums as the dense correlator, to the bit where they are integers, however they come."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from jaxsci.xpcs import EventMultiTau, Events, MultiTau

N, P = 40, 6
STATIC, DYNAMIC = np.array([1, 2, 2, 0, 3, 1]), np.array([1, 1, 2])
DENSE = MultiTau(N)


@eqx.filter_jit
def dense(frames, present, static):
    state = DENSE.update(DENSE.init(P), frames, present)
    return DENSE.collect(state, static, jnp.asarray(DYNAMIC))


def sparse(frames, present, cuts=()):
    mt, parts = EventMultiTau(N), []
    for a, b in zip((0, *cuts), (*cuts, N)):
        parts.append(mt.update(mt.init(a), Events.of(frames[a:b], a), b - a, present[a:b]))
    state = parts[0]
    for part in parts[1:]:
        state = mt.merge(state, part)
    return mt.collect(state, STATIC, DYNAMIC)


def equal(a, b):
    for name in ("G", "past", "future", "ratio_pixels", "pixels"):
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name))
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-12)
    for way in ("pooled", "static", "pixel"):
        np.testing.assert_allclose(a.g2(2, way), b.g2(2, way), rtol=1e-12)


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    rate=st.sampled_from([0.01, 0.1, 2.0, 300.0]),
    missing=st.sampled_from([0.0, 0.1, 0.5]),
    cuts=st.lists(st.integers(0, N), max_size=3).map(lambda x: tuple(sorted(x))),
)
def test_events_equal_dense(seed, rate, missing, cuts):
    rng = np.random.default_rng(seed)
    frames, present = rng.poisson(rate, (N, P)), rng.random(N) >= missing
    found = sparse(frames, present, cuts)
    equal(found, dense(jnp.asarray(frames), jnp.asarray(present), jnp.asarray(STATIC)))


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint32, np.float64, np.float32])
@pytest.mark.parametrize("n", [0, 1, 63, 64, 131])
def test_photons_of_dense_frames(dtype, n):
    frames = np.random.default_rng(n).poisson(0.1, (n, 3)).astype(dtype)
    events = Events.of(frames, 7)
    back = np.zeros_like(frames)
    back[events.frame - 7, events.pixel] = events.count
    np.testing.assert_array_equal(back, frames)
    assert len(events) == np.count_nonzero(frames)


def test_no_photon_at_all():
    found = sparse(np.zeros((N, P), np.uint8), np.ones(N, bool))
    assert not np.asarray(found.G).any()
    assert np.isnan(found.g2(2)).all()


def test_a_state_before_the_first_frame_changes_nothing():
    mt = EventMultiTau(N)
    frames = np.random.default_rng(0).poisson(0.2, (N, P))
    state = mt.update(mt.init(), Events.of(frames), N)
    for merged in (mt.merge(mt.init(0), state), mt.merge(state, mt.init(N))):
        equal(mt.collect(merged, STATIC, DYNAMIC), sparse(frames, np.ones(N, bool)))


def test_errors_name_what_is_wrong():
    mt = EventMultiTau(N)
    with pytest.raises(ValueError, match="whole numbers"):
        Events.of(np.full((2, 3), 0.5))
    with pytest.raises(ValueError, match="numbered from the beginning"):
        mt.update(mt.init(5), Events.of(np.ones((2, 3), int)), 2)
    with pytest.raises(ValueError, match="give their number"):
        mt.update(mt.init(), Events.of(np.ones((2, 3), int)), N + 1)
    with pytest.raises(ValueError, match="stops at frame 0, the second starts at 3"):
        mt.merge(mt.init(), mt.init(3))
    with pytest.raises(ValueError, match="frames=1"):
        EventMultiTau(1)
