"""Multi-tau: plain loops agree; cuts, merges and tiles change nothing; bad pixels and frames spoil only themselves."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsci.xpcs import EventMultiTau, Events, MultiTau

N, P = 53, 5
MT = MultiTau(N, tile=2)  # one correlator for most tests, fed frame by frame: each shape is a program to compile


def levels(values, present):
    """Level frames by plain loops: sums, and how many frames they hold."""
    while True:
        yield values, present
        n = len(values) // 2
        values = values[: 2 * n].reshape(n, 2, -1).sum(1)
        present = present[: 2 * n].reshape(n, 2).sum(1)


def plain(frames, m=4, present=None):
    """lag, level, pairs, weight and sums G, past, future as they are defined."""
    present = np.ones(len(frames)) if present is None else np.asarray(present, float)
    values = np.where(present[:, None] > 0, np.asarray(frames, float), 0)
    out = []
    for level, (s, w) in enumerate(levels(values, present)):
        steps = [k for k in range(1 if level == 0 else m + 1, 2 * m + 1) if k < len(s)]
        if not steps:
            break
        for k in steps:
            a, b, wa, wb = s[:-k], s[k:], w[:-k, None], w[k:, None]
            sums = [(a * b).sum(0), (a * wb).sum(0), (wa * b).sum(0)]
            both = ((wa > 0) & (wb > 0)).sum()
            out.append((k * 2**level, level, both, (wa * wb).sum() / 4**level, np.stack(sums) / 4**level))
    return [np.array(x) for x in zip(*out)]


_update = eqx.filter_jit(lambda mt, state, frames, present: mt.update(state, frames, present))
_merge = eqx.filter_jit(lambda mt, a, b: mt.merge(a, b))
_finalize = eqx.filter_jit(lambda mt, state: mt.finalize(state))
_bin = eqx.filter_jit(lambda sums, static, dynamic: sums.bin(static, dynamic))
_g2 = eqx.filter_jit(lambda bins, number, way: bins.g2(number, way))
_collect = eqx.filter_jit(lambda mt, state, static, dynamic: mt.collect(state, static, dynamic))


def run(mt, frames, blocks=None, start=0, present=None):
    """The state after frames in blocks of these lengths, one by one without them."""
    state, at = mt.init(frames.shape[1], start), 0
    there = np.ones(len(frames), bool) if present is None else np.asarray(present)
    for n in blocks or [1] * len(frames):
        state = _update(mt, state, jnp.asarray(frames[at : at + n], float), jnp.asarray(there[at : at + n]))
        at += n
    assert at == len(frames)
    return state


def check(found, frames, present=None, m=4, rtol=1e-12):
    lag, level, pairs, weight, sums = plain(frames, m, present)
    for name, value in (("lag", lag), ("level", level), ("pairs", pairs)):
        np.testing.assert_array_equal(getattr(found.counts, name), value)
    np.testing.assert_allclose(found.counts.weight, weight, rtol=rtol)
    for i, name in enumerate(("G", "past", "future")):
        np.testing.assert_allclose(getattr(found, name), sums[:, i], rtol=rtol, atol=rtol * np.abs(sums).max())


def photons(n=N, p=P, seed=0):
    return np.random.default_rng(seed).poisson(1.3, (n, p)).astype(np.uint8)


def gaps(n=N, share=0.15):
    return np.random.default_rng(1).random(n) > share


def test_case_of_plain_loops(shared_data):
    case = np.load(shared_data / "xpcs/cases/multitau.npz")
    mt = MultiTau(53)
    state = run(mt, case["frames"], [53])
    sums = _finalize(mt, state)
    for name in ("lag", "level", "pairs"):
        np.testing.assert_array_equal(getattr(sums.counts, name), case[name])
    for name in ("G", "past", "future"):
        np.testing.assert_allclose(getattr(sums, name) / sums.counts.weight[:, None], case[name], atol=1e-12)
    static, dynamic = jnp.asarray(case["labels"]), jnp.array([1, 2])
    for bins in (_bin(sums, static, dynamic), _collect(MultiTau(53, tile=16), state, static, dynamic)):
        np.testing.assert_allclose(_g2(bins, 2, "pooled"), case["g2_pooled"], atol=1e-12)
        np.testing.assert_allclose(_g2(bins, 2, "pixel"), case["g2_pixel_mean"], atol=1e-12)


@pytest.mark.parametrize("n", [2, 10])
def test_equals_plain_loops(n):
    check(_finalize(MultiTau(n), run(MultiTau(n), photons(n), [n])), photons(n))


def test_other_lags_a_level():
    mt = MultiTau(N, 2)
    check(_finalize(mt, run(mt, photons())), photons(), m=2)


@pytest.mark.parametrize("blocks", [[1] * 53, [16, 16, 16, 1, 1, 1, 1, 1], [1, 16, 1, 1, 16, 1, 16, 1]])
@pytest.mark.parametrize("present", [None, gaps()], ids=["whole", "gaps"])
def test_blocks_and_tiles_change_nothing(blocks, present):
    check(_finalize(MT, run(MT, photons(), blocks, present=present)), photons(), present)


@pytest.mark.parametrize("present", [np.ones(N, bool), gaps()], ids=["whole", "gaps"])
def test_merge_equals_one_pass_at_any_cut(present):
    """Also where the cuts fall within blocks of 2^level frames, in three pieces, in either order, with an empty one."""
    mt, frames = MT, photons()
    for a, b in ((0, 0), (1, 1), (5, 6), (8, 13), (13, 47), (31, 32), (52, 53), (53, 53)):
        parts = [
            run(mt, frames[i:j], None, i, present[i:j]) if j > i else mt.init(P, i) for i, j in ((0, a), (a, b), (b, N))
        ]
        check(_finalize(mt, _merge(mt, _merge(mt, parts[0], parts[1]), parts[2])), frames, present)
        check(_finalize(mt, _merge(mt, parts[0], _merge(mt, parts[1], parts[2]))), frames, present)


def test_a_merged_state_goes_on():
    mt, frames = MT, photons()
    state = _merge(mt, run(mt, frames[:11]), run(mt, frames[11:30], start=11))
    for y in frames[30:]:
        state = _update(mt, state, jnp.asarray(y[None], float), jnp.ones(1, bool))
    check(_finalize(mt, state), frames)


def test_what_does_not_follow_is_not_merged():
    with pytest.raises(Exception, match="give init"):
        _merge(MT, MT.init(P, 3), MT.init(P, 4))


def test_errors_name_the_remedy():
    with pytest.raises(ValueError, match="two frames at least"):
        MultiTau(1)
    with pytest.raises(ValueError, match="1 or more"):
        MultiTau(9, tile=0)
    with pytest.raises(ValueError, match="frames of 4 pixels"):
        MultiTau(9).update(MultiTau(9).init(3), jnp.ones((2, 4)))
    full = run(MT, photons())
    with pytest.raises(Exception, match="give their number"):
        _update(MT, full, jnp.ones((1, P)), jnp.ones(1, bool))


class TestBad:
    def test_a_missing_frame_takes_its_pairs_and_nothing_else(self):
        frames, present = photons().astype(float), gaps()
        clean = _finalize(MT, run(MT, frames, present=present))
        frames[~present] = np.nan
        check(_finalize(MT, run(MT, frames)), np.nan_to_num(frames), present)
        spoilt = _finalize(MT, run(MT, frames, present=present))
        np.testing.assert_array_equal(spoilt.G, clean.G)

    def test_a_nan_pixel_spoils_itself(self):
        frames = photons().astype(float)
        clean = _finalize(MT, run(MT, frames))
        frames[:, 1], frames[20, 3] = np.nan, np.inf
        found = _finalize(MT, run(MT, frames))
        good = np.array([0, 2, 4])
        for name in ("G", "past", "future"):
            np.testing.assert_array_equal(getattr(found, name)[:, good], getattr(clean, name)[:, good])
        bins = _bin(found, jnp.array([1, 1, 1, 2, 2]), jnp.array([1, 1]))
        assert int(bins.left_out) == 2
        np.testing.assert_array_equal(bins.pixels, [2, 1])
        expected = _bin(clean, jnp.array([1, 0, 1, 0, 2]), jnp.array([1, 1]))
        for way in ("pooled", "static", "pixel"):
            np.testing.assert_allclose(_g2(bins, 1, way), _g2(expected, 1, way), rtol=1e-12)

    def test_an_empty_bin_is_nan(self):
        sums = _finalize(MT, run(MT, photons()))
        g2 = _bin(sums, jnp.array([1, 1, 1, 0, 0]), jnp.array([1, 3])).g2(3)
        np.testing.assert_array_equal(np.isnan(g2).all(0), [False, True, True])


class TestBinned:
    def test_ways_to_normalise(self):
        sums = _finalize(MT, run(MT, photons(p=6) * np.array([1, 1, 1, 4, 4, 2], np.uint8)))
        bins = _bin(sums, jnp.array([1, 1, 1, 2, 2, 3]), jnp.array([1, 1, 2]))
        G, past, future = (
            np.asarray(x) / np.asarray(sums.counts.weight)[:, None] for x in (sums.G, sums.past, sums.future)
        )

        def ratio(*pixels):
            at = list(pixels)
            return G[:, at].mean(1) / past[:, at].mean(1) / future[:, at].mean(1)

        each = np.stack([ratio(i) for i in range(5)]).mean(0)
        for way, value in (
            ("pooled", ratio(0, 1, 2, 3, 4)),
            ("static", (3 * ratio(0, 1, 2) + 2 * ratio(3, 4)) / 5),
            ("pixel", each),
        ):
            np.testing.assert_allclose(_g2(bins, 2, way)[:, 0], value, rtol=1e-12)
            np.testing.assert_allclose(_g2(bins, 2, way)[:, 1], ratio(5), rtol=1e-12)
        spread = np.stack([ratio(i) for i in range(5)]).std(0, ddof=1) / np.sqrt(5)
        error = eqx.filter_jit(lambda b: b.pixel_error(2))(bins)
        spread[np.asarray(bins.counts.pairs) < 2] = np.nan  # each pixel has a g2 of 1 there
        np.testing.assert_allclose(error[:, 0], spread, rtol=1e-9)
        assert np.isnan(error[:, 1]).all()
        with pytest.raises(ValueError, match="did you mean 'pooled'"):
            bins.g2(2, "poled")

    def test_collect_is_finalize_and_bin(self):
        mt, static, dynamic = MT, jnp.array([1, 2, 2, 0, 1]), jnp.array([1, 2])
        state = run(mt, photons())
        a, b = _collect(mt, state, static, dynamic), _bin(_finalize(mt, state), static, dynamic)
        for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
            np.testing.assert_allclose(x, y, rtol=1e-12)


def test_stored_frames(shared_data):
    """Exactly by photons, and in single precision by pixels."""
    data = np.load(shared_data / "xpcs/frames_diffusive.npz")
    frames = data["frames"][:, data["dynamic_roi_map"] == 2]
    golden, label = data["g2_pooled_exact"][:, 1:2], np.ones(frames.shape[1], int)
    events = EventMultiTau(1024)
    exact = events.collect(events.update(events.init(), Events.of(frames), 1024), label, np.array([1]))
    np.testing.assert_array_equal(exact.counts.lag, data["tau"])
    np.testing.assert_array_equal(exact.counts.level, data["level"])
    np.testing.assert_allclose(exact.g2(1), golden, atol=1e-12)
    mt = MultiTau(1024, dtype="float32")
    state = mt.init(frames.shape[1])
    for block in np.split(frames, 16):
        state = _update(mt, state, jnp.asarray(block), jnp.ones(64, bool))
    found = _collect(mt, state, jnp.asarray(label), jnp.array([1]))
    assert found.G.dtype == jnp.float32
    np.testing.assert_allclose(found.g2(1), golden, atol=1e-5)


def test_float32_sums_do_not_drift():
    """A bright constant signal over 500 blocks: rounding alone, always to one side, would be off by 3e-6."""
    mt = MultiTau(4000, 1, dtype="float32")
    frames, state = jnp.full((8, 1), 1000.1, jnp.float32), mt.init(1)
    for _ in range(500):
        state = _update(mt, state, frames, jnp.ones(8, bool))
    assert float(jnp.abs(_finalize(mt, state).g2() - 1).max()) < 1e-6


def test_jit_vmap_and_derivatives_together():
    mt, frames = MultiTau(12), jnp.asarray(photons(12, 2).astype(float) + 1)

    def g2(scale):
        return mt.finalize(mt.update(mt.init(2), frames * scale)).g2()[0]

    x = jnp.stack([jnp.linspace(1, 2, 24).reshape(12, 2), jnp.linspace(1, 3, 24).reshape(12, 2) ** 2])
    found, slope = jax.jit(jax.vmap(lambda x: jax.jvp(g2, (x,), (jnp.sin(x),))))(x)
    alone = jax.jit(g2)
    for i in range(2):
        np.testing.assert_allclose(found[i], alone(x[i]), rtol=1e-12)
        finite = (alone(x[i] + 1e-6 * jnp.sin(x[i])) - alone(x[i] - 1e-6 * jnp.sin(x[i]))) / 2e-6
        np.testing.assert_allclose(slope[i], finite, rtol=1e-6)


def test_a_state_does_not_say_less_than_it_takes():
    for n, p, tile in ((53, 7, 3), (1000, 9, 20)):
        mt = MultiTau(n, tile=tile)
        took = sum(x.nbytes for x in jax.tree.leaves(mt.init(p)))
        assert abs(mt.state_bytes(p) - took) <= 32
