"""`correlate`: the same sums from arrays, files and blocks, any memory, stopped and resumed; bad files named."""

import h5py
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxsci as js
from jaxsci.xpcs import (
    EventMultiTau,
    Events,
    Labels,
    MultiTau,
    Partition,
    SimulatedFrames,
    TwoTime,
    correlate,
    jackknife_blocks,
    jackknife_static,
    stacked,
)

N, SHAPE = 40, (4, 5)
DYNAMIC = np.array([[1, 1, 1, 0, 2], [1, 1, 1, 0, 2], [1, 1, 1, 2, 2], [1, 0, 0, 2, 2]])
STATIC = np.array([[1, 1, 2, 0, 5], [1, 1, 2, 0, 5], [3, 3, 2, 4, 4], [3, 0, 0, 4, 5]])
PARTITION = Partition(Labels.of(DYNAMIC), Labels.of(STATIC))
USED = np.flatnonzero(STATIC)


def movie(seed=0, rate=1.5):
    return np.random.default_rng(seed).poisson(rate, (N, *SHAPE)).astype(np.uint8)


@pytest.fixture(scope="module")
def expected():
    frames = movie().reshape(N, -1)[:, USED]
    mt = EventMultiTau(N)
    return mt.collect(mt.update(mt.init(), Events.of(frames), N), STATIC.ravel()[USED], np.array([1, 1, 1, 2, 2]))


@pytest.fixture
def path(tmp_path):
    with h5py.File(tmp_path / "run.h5", "w") as file:
        file.create_dataset("entry/data/data", data=movie(), chunks=(8, *SHAPE), compression="gzip")
    return tmp_path / "run.h5"


def same(found, expected, rtol=1e-12):
    np.testing.assert_array_equal(found.sums.counts.pairs, expected.counts.pairs)
    np.testing.assert_allclose(found.sums.six, expected.six, rtol=rtol)
    np.testing.assert_array_equal(found.sums.pixels, expected.pixels)
    np.testing.assert_allclose(found.g2, expected.g2(2, found.normalise), rtol=rtol)


class TestSources:
    def test_arrays_and_what_is_told_of_them(self, expected):
        found = correlate(movie(), PARTITION, block=8, two_time=[2])
        same(found, expected)
        assert (found.method, found.normalise, found.error_from, found.groups) == ("dense", "static", "pixel", 1)
        assert found.occupancy == pytest.approx(np.mean(movie().reshape(N, -1)[:, USED] > 0))
        asked = correlate(movie(), PARTITION, block=8, error="static")  # of few static bins only where it is asked for
        np.testing.assert_allclose(found.covariance().error.T, asked.error, rtol=1e-9)
        mean = np.where(STATIC > 0, movie().mean(0), np.nan)
        np.testing.assert_allclose(found.image, mean, rtol=1e-12)
        np.testing.assert_allclose(found.intensity, movie().reshape(N, -1)[:, USED].mean(1), rtol=1e-12)
        tt, pixels = TwoTime(N), movie()[:, DYNAMIC == 2]
        C = tt.finalize(tt.update(tt.init(pixels.shape[1]), jnp.asarray(pixels))).C
        np.testing.assert_allclose(found.two_time[2].C, C, rtol=1e-12)

    def test_files_and_blocks(self, expected, path):
        same(correlate(path, PARTITION, block=8), expected)
        same(correlate(jnp.asarray(movie().reshape(N, -1)), PARTITION, block=8), expected)
        with h5py.File(path) as file:
            same(correlate(file["entry/data/data"], PARTITION, block=8), expected)
        pieces = (movie()[a:b] for a, b in ((0, 3), (3, 30), (30, 40)))
        same(correlate(pieces, PARTITION, num_frames=N, block=8), expected)

    def test_files_that_follow_one_another(self, expected, tmp_path):
        for k, (a, b) in enumerate(((0, 13), (13, 40))):
            with h5py.File(tmp_path / f"{k}.h5", "w") as file:
                file["frames"] = movie()[a:b]
        same(correlate([tmp_path / "0.h5", tmp_path / "1.h5"], PARTITION, dataset="frames", block=8), expected)

    def test_first_last_and_mask_are_those_frames(self):
        keep = np.arange(N) % 7 != 3
        found = correlate(movie(), PARTITION, frame_mask=keep, block=8)
        photons = correlate(movie(), PARTITION, frame_mask=keep, method="events")
        same(found, photons.sums)
        assert int(found.present.sum()) == keep.sum()
        np.testing.assert_allclose(found.image, np.where(STATIC > 0, movie()[keep].mean(0), np.nan), rtol=1e-12)
        part = correlate(movie(), PARTITION, first=5, last=37, frame_mask=keep[:32], method="events")
        same(part, correlate(movie()[5:37], PARTITION, frame_mask=keep[:32], method="events").sums)

    def test_labels_alone_are_a_partition(self):
        found = correlate(movie(), DYNAMIC, method="events")
        assert found.error_from == "pixel"
        assert np.isfinite(found.error[:-1]).all()

    def test_events_are_the_same_sums(self, expected):
        found = correlate(movie(), PARTITION, method="events", block=8)
        same(found, expected)
        dense = correlate(movie(), PARTITION, block=8)
        np.testing.assert_allclose(found.image, dense.image, rtol=1e-12)
        np.testing.assert_allclose(found.intensity, dense.intensity, rtol=1e-12)

    def test_few_photons_are_taken_as_events(self):
        frames = np.zeros((N, *SHAPE), np.uint8)
        frames[::20, 0, 0] = 1
        found = correlate(frames, PARTITION, block=8, memory=1e9)
        assert found.method == "dense"  # 2 of 640 are not that few
        rare = np.zeros((5 * N, *SHAPE), np.uint8)
        rare[[10, 100], 0, 0] = 1  # one of 1024 that are looked at
        assert correlate(rare, PARTITION).method == "events"


class TestMemory:
    def test_groups_of_pixels_that_fit(self, expected):
        state = 2 * MultiTau(N, tile=8).state_bytes(len(USED))
        found = correlate(movie(), PARTITION, tile=8, block=8, memory=state / 2 + 2000)
        assert found.groups == 2
        same(found, expected)
        np.testing.assert_allclose(found.image, np.where(STATIC > 0, movie().mean(0), np.nan), rtol=1e-12)
        np.testing.assert_allclose(found.intensity, movie().reshape(N, -1)[:, USED].mean(1), rtol=1e-12)

    def test_too_little_is_refused_with_numbers(self):
        with pytest.raises(ValueError, match=r"GB for the correlator.* may be used: mask more pixels"):
            correlate(movie(), PARTITION, memory=1000)
        with pytest.raises(ValueError, match="GB"):
            correlate(iter([movie()]), PARTITION, num_frames=N, tile=4, block=8, memory=8000)


class _Stop(Exception):
    pass


class TestCheckpoint:
    @pytest.mark.parametrize("method", ["dense", "events"])
    def test_a_stopped_run_goes_on_to_the_same_bits(self, tmp_path, method):
        def stop(done, total):
            assert total == N
            if done >= 24:
                raise _Stop

        choices = {"method": method, "block": 8, "two_time": [1]}
        whole = correlate(movie(), PARTITION, **choices)
        with pytest.raises(_Stop):
            correlate(movie(), PARTITION, checkpoint=tmp_path / "c", progress=stop, **choices)
        calls = []
        found = correlate(
            movie(), PARTITION, checkpoint=tmp_path / "c", progress=lambda done, _: calls.append(done), **choices
        )
        assert calls == [24, 32, 40]
        for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(whole), strict=True):
            np.testing.assert_array_equal(a, b)
        assert correlate(movie(), PARTITION, checkpoint=tmp_path / "c", **choices).method == method
        with pytest.raises(ValueError, match="for other frames:"):
            correlate(movie(1), PARTITION, checkpoint=tmp_path / "c", **choices)


class TestBadInput:
    def test_files(self, path, tmp_path):
        with pytest.raises(ValueError, match="no data set 'x': give dataset=, it has /entry/data/data"):
            correlate(path, PARTITION, dataset="x")
        with pytest.raises(ValueError, match=r"is a group: .* it has /entry/data/data"):
            correlate(path, PARTITION, dataset="entry/data")
        with pytest.raises(ValueError, match="there is no file"):
            correlate(tmp_path / "none.h5", PARTITION)
        (tmp_path / "half.h5").write_bytes(path.read_bytes()[:1500])
        with pytest.raises(ValueError, match=r"half\.h5 is no HDF5 file, or only a part"):
            correlate(tmp_path / "half.h5", PARTITION)

    def test_a_damaged_chunk_is_named(self, path):
        with h5py.File(path) as file:
            chunk = file["entry/data/data"].id.get_chunk_info(2)
        content = bytearray(path.read_bytes())
        content[chunk.byte_offset : chunk.byte_offset + chunk.size] = bytes(chunk.size)
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"frames \d+ to \d+ of /entry/data/data in .*run\.h5 cannot be read"):
            correlate(path, PARTITION, block=8)

    def test_what_does_not_go_together(self):
        for match, change in (
            ("did you mean 'pooled'", {"normalise": "poold"}),
            ("no method 'fast'", {"method": "fast"}),
            ("frame_mask has shape", {"frame_mask": np.ones(3, bool)}),
            (r"no bins \[3\]", {"two_time": [3]}),
            ("give first and last within", {"last": 50}),
        ):
            with pytest.raises(ValueError, match=match):
                correlate(movie(), PARTITION, **change)
        with pytest.raises(ValueError, match="partition has 4 x 5"):
            correlate(movie()[:, :3], PARTITION)
        with pytest.raises(ValueError, match="uses no pixel"):
            correlate(movie(), np.zeros(SHAPE, int))
        with pytest.raises(ValueError, match="give num_frames"):
            correlate(iter([movie()]), PARTITION)
        with pytest.raises(ValueError, match="only 40 of 41 frames came"):
            correlate(iter([movie()]), PARTITION, num_frames=41, method="events")
        with pytest.raises(ValueError, match="more than num_frames=39"):
            correlate(iter([movie()]), PARTITION, num_frames=39, method="events")


@pytest.fixture(scope="module")
def runs():
    """150 runs of 20 static bins."""
    runs, bins, pixels, n = 150, 20, 10, 64
    source = SimulatedFrames(np.full(runs * bins * pixels, 0.1), 1.0, 1.0, np.arange(float(n)))
    frames = source.frames(jax.random.key(0), photons=False).reshape(n, runs, bins * pixels)
    mt, static = MultiTau(n), jnp.repeat(jnp.arange(1, bins + 1), pixels)

    def one(x):
        return mt.collect(mt.update(mt.init(bins * pixels), x), static, jnp.ones(bins, int))

    return source, jax.jit(jax.vmap(one, in_axes=1))(frames)


class Contrast(js.AbstractModel):
    beta: js.Scalar = js.param()

    def __call__(self, shape):
        return 1 + self.beta * shape


class TestErrors:
    """What the errors say against what many runs do."""

    def test_jackknife_errors_are_the_scatter_of_runs(self, runs):
        source, sums = runs
        g2 = np.asarray(jax.jit(jax.vmap(lambda s: s.g2(1, "pooled")))(sums))[..., 0]
        found = jax.jit(jax.vmap(lambda s: jackknife_static(s, 1, "pooled", 0.0)))(sums)
        lags = slice(0, 8)
        ratio = np.sqrt((np.asarray(found.error[:, 0, lags]) ** 2).mean(0)) / g2[:, lags].std(0, ddof=1)
        assert np.all(np.abs(ratio - 1) < 0.25)
        correlation = np.corrcoef(g2[:, lags].T)
        mean = np.asarray(found.covariance[:, 0, lags, lags]).mean(0)
        scale = np.sqrt(np.diag(mean))
        assert np.abs(mean / scale / scale[:, None] - correlation).max() < 0.15
        exact = np.asarray(source.g2(jnp.arange(1.0, 9.0)))[:, 0]
        assert np.all(np.abs(g2[:, lags].mean(0) - exact) < 0.05)

    def test_shrinkage_makes_it_a_noise(self, runs):
        """A contrast fitted with the covariance has the error that it says; independent lags say too little."""
        sums = runs[1]
        g2 = np.asarray(jax.jit(jax.vmap(lambda s: s.g2(1, "pooled")))(sums))[..., 0]
        found = jax.jit(jax.vmap(lambda s: jackknife_static(s, 1, "pooled")))(sums)
        assert np.all((found.shrinkage > 0) & (found.shrinkage < 1))
        np.testing.assert_array_equal(found.samples, 20)
        covariance = np.asarray(found.covariance[:, 0])
        assert np.linalg.eigvalsh(covariance).min() > 0
        np.testing.assert_allclose(np.sqrt(np.diag(covariance[0])), found.error[0, 0], rtol=1e-12)
        C, shape = covariance.mean(0), np.exp(-0.2 * np.asarray(sums.counts.lag[0], float))
        fits = {}
        for name, cov in (("full", C), ("independent", np.diag(np.diag(C)))):
            weight = np.linalg.solve(cov, shape)
            fits[name] = (g2 - 1) @ weight / (shape @ weight), (shape @ weight) ** -0.5
        ratio = {name: error / values.std(ddof=1) for name, (values, error) in fits.items()}
        assert 0.8 < ratio["full"] < 1.25
        assert ratio["independent"] < 0.75
        fitted = js.fit(Contrast(0.5), js.Dataset(shape, g2[0], js.Dense(C)))
        np.testing.assert_allclose(fitted.model.beta, fits["full"][0][0], rtol=1e-9)
        np.testing.assert_allclose(fitted.std["beta"], fits["full"][1], rtol=1e-9)

    def test_blocks_of_frames(self, runs):
        """Runs stand for stretches: the error of the mean of 150 is that of one over sqrt(150)."""
        many = jax.jit(lambda s: jackknife_blocks(s, 1, "pooled", 0.0))(runs[1])
        one = np.asarray(jax.jit(jax.vmap(lambda s: s.g2(1, "pooled")))(runs[1]))[:, :8, 0].std(0, ddof=1)
        np.testing.assert_allclose(many.error[0, :8] * np.sqrt(150), one, rtol=0.15)

    def test_one_static_bin_has_no_error(self):
        found = correlate(movie(), DYNAMIC, error="static", method="events")
        assert np.isnan(found.error).all()

    def test_stacked_wants_the_same_lags(self, expected):
        mt, frames = EventMultiTau(30), movie()[:30].reshape(30, -1)[:, USED]
        other = mt.collect(mt.update(mt.init(), Events.of(frames), 30), STATIC.ravel()[USED], np.array([1, 1, 1, 2, 2]))
        with pytest.raises(ValueError, match="one partition and length"):
            stacked([expected, other])
        same_runs = jax.jit(lambda s: jackknife_blocks(s, 2))(stacked([expected] * 3))
        np.testing.assert_allclose(same_runs.error, 0, atol=1e-7)


# --- what is no measurement ----------------------------------------------------------------------------------------


def test_transposed_frames_are_refused():
    labels = np.ones((4, 9), int)
    frames = np.ones((6, 9, 4), np.uint8)
    with pytest.raises(ValueError, match="9 x 4 pixels, but the partition has 4 x 9; they are transposed"):
        correlate(frames, labels)
    with pytest.raises(ValueError, match="a block of shape"):
        correlate(iter([np.ones((4, 4, 9)), frames]), labels, num_frames=10)
    flat = correlate(np.arange(1, 6 * 36 + 1).reshape(6, 36), labels)
    assert np.isfinite(flat.g2[0, 0])


@pytest.mark.parametrize("method", ["dense", "events"])
@pytest.mark.parametrize("dtype", ["int32", "uint16", "uint32"])
def test_marks_of_dead_pixels_are_no_counts(method, dtype):
    """Left out and told, as if the mask had them; so are frames that are marked throughout."""
    counts = np.random.default_rng(0).poisson(0.8, (40, 3, 6)).astype(dtype)
    mark = -1 if dtype == "int32" else np.iinfo(dtype).max
    labels = np.repeat([[1, 2]], 3, axis=0).repeat(3, axis=1)
    marked, masked = counts.copy(), labels.copy()
    marked[:, 0, 1] = mark
    marked[7, 2, 4] = mark
    masked[0, 1] = masked[2, 4] = 0
    found = correlate(marked, labels, method=method, two_time=[1])
    expected = correlate(counts, masked, method=method, two_time=[1])
    assert int(found.sums.left_out) == 2
    np.testing.assert_allclose(found.g2, expected.g2, rtol=1e-6)
    np.testing.assert_allclose(found.two_time[1].C, expected.two_time[1].C, rtol=1e-6)
    assert np.isnan(found.image[0, 1])
    assert 0.4 < float(found.intensity.mean()) < 1.2
    eight = correlate(np.where(counts > 2, 255, counts).astype(np.uint8), labels, method=method)
    assert int(eight.sums.left_out) == 0, "255 of 8 bits is a count"


def test_dark_frames_are_a_failure_with_a_name():
    labels = np.ones((2, 3), int)
    with pytest.raises(ValueError, match="no g2 from 20 frames: 6 pixels are dark in all of them"):
        correlate(np.zeros((20, 2, 3), np.uint8), labels)
    with pytest.raises(ValueError, match="all 6 pixels that are used are not finite"):
        correlate(np.where(np.arange(20)[:, None, None] == np.arange(6).reshape(2, 3), np.nan, 1.0), labels)


def test_one_pair_of_frames_has_no_error_among_pixels():
    """g2 of a pixel from one pair is 1 whatever it saw, so that its spread says nothing."""
    frames = np.random.default_rng(1).poisson(3.0, (4, 2, 30))
    found = correlate(frames, np.ones((2, 30), int), error="pixel")
    pairs = np.asarray(found.sums.counts.pairs)
    assert np.array_equal(np.isnan(np.asarray(found.error)[:, 0]), pairs == 1)
    assert found.normalise == "static"
