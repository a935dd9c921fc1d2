"""Two-time maps: right values with lost frames and dead pixels, exact symmetry, diagonals, ages, windows, merges."""

import itertools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsci.xpcs import TwoTime, TwoTimeMap

_finalize = eqx.filter_jit(lambda tt, state, *more: tt.finalize(state, *more))
_g2 = eqx.filter_jit(lambda m: m.g2())


def of(frames, mask=None, present=None, tt=None):
    tt = TwoTime(len(frames)) if tt is None else tt
    frames = jnp.asarray(frames)
    return _finalize(tt, tt.update(tt.init(frames.shape[1], frames.dtype), frames, present), mask)


def speckle(n=24, p=40, seed=0):
    return np.random.default_rng(seed).gamma(2.0, 1.0, (n, p))


def test_case_with_gaps(shared_data):
    case = np.load(shared_data / "xpcs/cases/twotime_gaps.npz")
    found = of(case["frames"], jnp.asarray(case["pixel_mask"]), jnp.asarray(case["frame_mask"]))
    np.testing.assert_allclose(found.C, case["C"], rtol=1e-12)
    np.testing.assert_array_equal(found.C, found.C.T)
    g2, at = _g2(found), slice(1, 21)
    np.testing.assert_array_equal(g2.lag[at], case["lag"])
    np.testing.assert_array_equal(g2.pairs[at], case["pairs"])
    np.testing.assert_allclose(g2.g2[at], case["g2"], rtol=1e-12)
    np.testing.assert_allclose(g2.error[at], case["g2_se"], rtol=1e-12)
    np.testing.assert_allclose(found.poisson_excess, case["poisson_excess_on_diagonal"], rtol=1e-12)
    # nobody said which pixel and which frames are bad: they are found, and the dark frame has no mean
    np.testing.assert_array_equal(of(case["frames"]).C, found.C)


def test_bad_pixels_and_frames_change_nothing_else():
    frames = speckle()
    good_pixel, good_frame = np.arange(40) != 7, ~np.isin(np.arange(24), (3, 20))
    clean = of(frames[:, good_pixel])
    frames[5, 7], frames[3], frames[20] = np.nan, np.nan, 0
    found = np.asarray(of(frames).C)
    both = np.ix_(good_frame, good_frame)
    np.testing.assert_allclose(found[both], np.asarray(clean.C)[both], rtol=1e-12)
    assert np.isnan(found[~good_frame]).all()
    assert np.isnan(found[:, ~good_frame]).all()


def test_measured_map(shared_data):
    data = np.load(shared_data / "xpcs/real_chx_twotime_350.npz")
    n = 350
    measured = TwoTimeMap(jnp.asarray(data["c2"]), jnp.ones(n), jnp.array(1))
    g2 = _g2(measured)
    np.testing.assert_allclose(g2.g2, data["g2_from_diagonals"], rtol=1e-12)
    np.testing.assert_array_equal(g2.pairs, n - np.arange(n))
    assert np.isnan(g2.error[-1])
    assert np.isfinite(g2.error[:-1]).all()
    corrected = eqx.filter_jit(lambda m: m.corrected())(measured)
    np.testing.assert_allclose(jnp.diagonal(corrected.C), data["c2_diag_corrected_diag"], rtol=1e-12)
    off = ~np.eye(n, dtype=bool)
    np.testing.assert_array_equal(np.asarray(corrected.C)[off], data["c2"][off])


@pytest.mark.parametrize("name", ["diffusive", "aging"])
def test_maps_of_simulated_frames(shared_data, name):
    data = np.load(shared_data / f"xpcs/frames_{name}.npz")
    mask = data["dynamic_roi_map"] == int(data["two_time_label"])
    found = of(data["frames"][:512][:, mask], tt=TwoTime(512, "float32"))
    # products of so many pixels, added in single precision in whatever order the compiler takes
    rounding = np.sqrt(mask.sum()) * np.finfo(np.float32).eps
    np.testing.assert_allclose(found.C, data["two_time_first512"], rtol=2 * rounding)
    np.testing.assert_array_equal(found.C, found.C.T)


def test_large_maps_are_symmetric_to_the_bit():
    frames = speckle(1500, 3)
    C = np.asarray(of(frames).C)
    np.testing.assert_array_equal(C, C.T)
    scaled = frames / frames.mean(1, keepdims=True)
    np.testing.assert_allclose(C, scaled @ scaled.T / 3, rtol=1e-12)


def test_static_bins_take_out_what_the_mean_varies():
    """A bright half that does not fluctuate raises C of pooled pixels, and not that of static bins."""
    frames = np.where(np.arange(40) < 20, 1.0, 5.0) * np.ones((24, 1))
    tt = TwoTime(24)
    state = tt.update(tt.init(40, "float64"), jnp.asarray(frames))
    static = jnp.where(jnp.arange(40) < 20, 1, 2)
    np.testing.assert_allclose(_finalize(tt, state).C, 13 / 9, rtol=1e-12)
    np.testing.assert_allclose(_finalize(tt, state, None, static, 2).C, 1, rtol=1e-12)


def test_blocks_and_merges_change_nothing():
    frames, tt = jnp.asarray(speckle()), TwoTime(24)
    whole = _finalize(tt, tt.update(tt.init(40, "float64"), frames))
    state = tt.init(40, "float64")
    for a, b in ((0, 5), (5, 6), (6, 24)):
        state = tt.update(state, frames[a:b])
    first = tt.update(tt.init(40, "float64"), frames[:13])
    second = tt.update(tt.init(40, "float64", 13), frames[13:])
    for found in (state, tt.merge(first, second)):
        np.testing.assert_array_equal(_finalize(tt, found).C, whole.C)
    late = tt.merge(first, tt.update(tt.init(40, "float64", 15), frames[15:]))
    lost = jnp.isin(jnp.arange(24), jnp.array([13, 14]))
    np.testing.assert_array_equal(_finalize(tt, late).C, jnp.where(lost[:, None] | lost[None], jnp.nan, whole.C))


def test_windows_are_squares_on_the_diagonal():
    frames, tt = speckle(), TwoTime(24)
    state = tt.update(tt.init(40, "float64"), jnp.asarray(frames))
    whole, found = _finalize(tt, state).C, eqx.filter_jit(lambda s: tt.windows(s, 7))(state)
    assert found.C.shape == (3, 7, 7)
    for i in range(3):
        np.testing.assert_allclose(found.C[i], whole[7 * i : 7 * i + 7, 7 * i : 7 * i + 7], rtol=1e-12)
    g2 = jax.jit(jax.vmap(lambda m: m.g2()))(found)
    np.testing.assert_allclose(g2.g2[1], _g2(TwoTimeMap(found.C[1], found.mean[1], found.pixels[1])).g2, rtol=1e-12)


def test_ages_are_those_of_the_pairs():
    found = of(speckle())
    C = np.asarray(found.C)
    ages = eqx.filter_jit(lambda m: m.ages([0, 6, 15.5, 24]))(found)
    assert ages.g2.shape == (3, 24)
    assert int(ages.pairs.sum()) == 24 * 25 // 2
    t = np.arange(24)
    age = (t[:, None] + t) / 2
    for s, (a, b) in enumerate(((0, 6), (6, 15.5), (15.5, 24))):
        for k in (0, 1, 5, 11):
            entries = np.diagonal(np.where((age >= a) & (age < b), C, np.nan), k)
            entries = entries[np.isfinite(entries)]
            assert len(entries) == ages.pairs[s, k]
            if len(entries):
                np.testing.assert_allclose(ages.g2[s, k], entries.mean(), rtol=1e-12)


def test_an_ageing_sample_follows_its_clock(shared_data):
    """g2 - 1 is beta exp(-2 of the clock that went by), so slices of age are slower later on."""
    data = np.load(shared_data / "xpcs/frames_aging.npz")
    mask = data["dynamic_roi_map"] == int(data["two_time_label"])
    edges = [0, 128, 384, 512]
    slices = eqx.filter_jit(lambda m: m.ages(edges))(of(data["frames"][:, mask], tt=TwoTime(512, "float32")))
    clock, q = data["aging_cumulative_clock"], data["qlist"][int(data["two_time_label"]) - 1]
    exact = 1 + data["beta"] * np.exp(-2 * data["D"] * q**2 * np.abs(clock[:, None] - clock))
    t = np.arange(512)
    age = (t[:, None] + t) / 2
    for i, (a, b) in enumerate(itertools.pairwise(edges)):
        for lag in (10, 60):
            inside = np.diagonal((age >= a) & (age < b), lag)
            np.testing.assert_allclose(slices.g2[i, lag], np.diagonal(exact, lag)[inside].mean(), atol=0.05)


class TestShown:
    def test_smoothing_keeps_symmetry_gaps_and_constants(self):
        frames = speckle()
        frames[5] = np.nan
        smooth = eqx.filter_jit(lambda m: m.smoothed(1.5))
        found = smooth(of(frames))
        np.testing.assert_array_equal(found.C, found.C.T)
        np.testing.assert_array_equal(np.isnan(found.C), np.isnan(of(frames).C))
        flat = TwoTimeMap(jnp.full((24, 24), 1.25) + 9 * jnp.eye(24), found.mean, found.pixels)  # the diagonal stays
        np.testing.assert_allclose(smooth(flat).C, 1.25, rtol=1e-12)

    def test_the_diagonal_does_not_leak(self):
        shown = TwoTimeMap(jnp.ones((24, 24)) + 9 * jnp.eye(24), jnp.ones(24), jnp.array(1))
        small = eqx.filter_jit(lambda m: m.decimated(5))(shown)
        assert small.C.shape == (4, 4)
        np.testing.assert_allclose(small.C, 1, rtol=1e-12)

    def test_errors(self):
        shown = of(speckle(6, 4))
        with pytest.raises(ValueError, match="positive"):
            shown.smoothed(0)
        with pytest.raises(ValueError, match="smaller factor"):
            shown.decimated(7)
        with pytest.raises(ValueError, match="windows of 9"):
            TwoTime(6).windows(TwoTime(6).init(4), 9)
        with pytest.raises(Exception, match="give their number"):
            of(speckle(6, 4), tt=TwoTime(5))


def test_jit_vmap_and_grad_together():
    tt = TwoTime(6)

    def total(x):
        g2 = tt.finalize(tt.update(tt.init(4, x.dtype), x)).g2()
        return jnp.sum(g2.g2[1:]) + jnp.sum(g2.error[1:4])

    x = jnp.asarray(np.stack([speckle(6, 4, 1), speckle(6, 4, 2)]))
    slope = jax.jit(jax.vmap(jax.grad(total)))(x)
    alone = jax.jit(total)
    for i in range(2):
        step = 1e-6 * jnp.sin(x[i])
        finite = (alone(x[i] + step) - alone(x[i] - step)) / 2
        np.testing.assert_allclose(jnp.sum(slope[i] * step), finite, rtol=1e-6)
