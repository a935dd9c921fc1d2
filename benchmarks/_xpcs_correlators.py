"""Rows of the area `xpcs` on correlators: multi-tau, photon events, two-time maps, beside scikit-beam and BLAS.

scikit-beam is measured where it is installed. boost_corr's figure is a stored one of 24 frames of 512 x 512 a second
on a CPU. `benchmarks.xpcs` gathers the rows.
"""

import dataclasses
import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from . import _threads as _threads  # before anything that imports NumPy

# isort: split
import equinox as eqx
import jax.numpy as jnp
import numpy as np

import jaxsci as js
from jaxsci.xpcs import EventMultiTau, Events, MultiTau, TwoTime

from ._harness import Area, Row, at_most, case, faster, race, timing_rows

js.enable_x64()

AREA: Area = []
SIDE, BINS, STATIC = 512, 32, 320
BOOST_CORR = 24.0  # frames of 512 x 512 a second, stored; it sums in bfloat16
_DATA = Path(__file__).resolve().parents[1].parent / "shared" / "data" / "xpcs"
_SCIKIT_BEAM = importlib.util.find_spec("skbeam") is not None


def _movie(frames: int, side: int = SIDE, mean: float = 0.05) -> np.ndarray:
    return np.random.default_rng(0).poisson(mean, (frames, side * side)).astype(np.uint8)


_update = eqx.filter_jit(lambda mt, state, frames: mt.update(state, frames))
_collect = eqx.filter_jit(lambda mt, state, static, dynamic: mt.collect(state, static, dynamic))


def _correlate(mt: MultiTau, blocks: list[Any], static: Any, dynamic: Any) -> Any:
    """A whole series, from the first frame to the sums of static bins."""
    state = mt.init(blocks[0].shape[1])
    for block in blocks:
        state = _update(mt, state, block)
    return _collect(mt, state, static, dynamic)


@case(AREA, "multi-tau")
def multi_tau(quick: bool) -> Iterator[Row]:
    """Sums of 320 static bins from frames in memory, float32; scikit-beam has 8 lags a level too."""
    n, some, length = (256, 16, 128) if quick else (1024, 32, 256)
    frames = _movie(n)
    label = np.repeat(np.arange(1, STATIC + 1), -(-(SIDE**2) // STATIC))[: SIDE**2]
    dynamic = jnp.repeat(jnp.arange(1, BINS + 1), STATIC // BINS)
    mt, static = MultiTau(n, dtype="float32"), jnp.asarray(label)
    given = [jnp.asarray(frames[a : a + length]) for a in range(0, n, length)]
    runs = {"ours": lambda: _correlate(mt, given, static, dynamic)}
    if _SCIKIT_BEAM:
        from skbeam.core.correlation import multi_tau_auto_corr

        wide = ((label - 1) // (STATIC // BINS) + 1).reshape(SIDE, SIDE)
        movie = frames[:some].reshape(some, SIDE, SIDE).astype(float)
        levels = max(1, int(np.log2(some / 8)) + 1)
        runs["scikit-beam"] = lambda: multi_tau_auto_corr(levels, 8, wide, movie)[0]
    times = race(runs, repeats=3)
    share = {"ours": n, "scikit-beam": some}
    name = f"multi-tau, {SIDE} x {SIDE}, a frame"
    if _SCIKIT_BEAM:
        # the sums of static bins are made once a series, which in a short one weighs as much as its frames
        bars = {"scikit-beam": None if quick else faster(15)}
        yield from timing_rows(name, times, bars, unit="ms", n=n, share=share, precision="float32")
    else:
        yield Row(name, peer="scikit-beam", note="not run: scikit-beam is not installed")
    stored = dataclasses.replace(times["ours"], cpu=1 / BOOST_CORR)
    peer, note = "boost_corr, stored", "its time is of another machine"
    both = {"ours": times["ours"], peer: stored}
    yield from timing_rows(name, both, {peer: faster(5)}, unit="ms", n=n, share={"ours": n}, note=note,
                           precision="float32")  # fmt: skip


@case(AREA, "multi-tau error")
def error(quick: bool) -> Iterator[Row]:
    """The largest difference of g2 from the stored exact one, in both precisions."""
    if not (_DATA / "frames_diffusive.npz").exists():
        yield Row("multi-tau error", note=f"not run: {_DATA} is not there")
        return
    with np.load(_DATA / "frames_diffusive.npz") as data:
        label, frames, exact = data["dynamic_roi_map"].ravel(), data["frames"], data["g2_pooled_exact"]
    used = label > 0
    flat, static = frames.reshape(len(frames), -1)[:, used], jnp.asarray(label[used])
    given = [jnp.asarray(flat[a : a + 256]) for a in range(0, len(flat), 256)]
    for dtype, limit in (("float32", 1e-5), ("float64", 1e-12)):
        found = _correlate(MultiTau(len(frames), dtype=dtype), given, static, jnp.arange(1, 7)).g2(6)
        apart = float(np.abs(np.asarray(found) - exact).max())
        yield Row("multi-tau: largest error of g2", apart, n=len(frames), precision=dtype, bar=at_most(limit))


@case(AREA, "photon events")
def events(quick: bool) -> Iterator[Row]:
    """Frames of 512 x 1024 with 1e-5 photons a pixel, given as photons, to sums of 320 static bins."""
    frames, pixels = (10_000 if quick else 100_000), 512 * 1024
    key = np.unique(np.random.default_rng(1).integers(0, pixels * frames, int(pixels * frames * 1e-5)))
    frame, pixel = np.divmod(key, pixels)
    photons = Events(pixel.astype(np.int32), frame.astype(np.int32), np.ones(len(key), np.int64))
    static = np.repeat(np.arange(1, STATIC + 1), -(-pixels // STATIC))[:pixels]
    dynamic, mt = np.repeat(np.arange(1, BINS + 1), STATIC // BINS), EventMultiTau(frames)
    times = race({"ours": lambda: mt.collect(mt.update(mt.init(), photons, frames), static, dynamic).G}, repeats=3)
    ours = times["ours"]
    yield Row(f"photon events, {frames} frames", ours.cpu, "s", n=len(key), precision="exact", cold=ours.cold,
              wall=ours.wall, compiles=ours.compiles, again=ours.again, bar=at_most(10))  # fmt: skip


@case(AREA, "two-time")
def two_time(quick: bool) -> Iterator[Row]:
    """A map beside the product of BLAS in the same precision, and a short one beside scikit-beam."""
    n, pixels = (1500 if quick else 5000), 1000
    frames = np.random.default_rng(0).gamma(4.0, 1.0, (n, pixels)).astype(np.float32)
    finalize = eqx.filter_jit(lambda tt, state: tt.finalize(state).C)

    def ready(movie: np.ndarray) -> Any:
        tt, given = TwoTime(len(movie), "float32"), jnp.asarray(movie)
        state = tt.update(tt.init(movie.shape[1], given.dtype), given)
        return lambda: finalize(tt, state)

    other = frames.copy()  # of two arrays: of one and its transpose NumPy computes half
    blas = "BLAS, a full product"
    times = race({"ours": ready(frames), blas: lambda: frames @ other.T, "BLAS, half": lambda: frames @ frames.T})
    bars = {blas: faster(1 / 1.3), "BLAS, half": faster(1 / 1.3)}
    name = f"two-time map, {n} frames of {pixels} pixels"
    yield from timing_rows(name, times, bars, unit="s", n=n, precision="float32")
    if not _SCIKIT_BEAM:
        yield Row("two-time map, 256 frames", peer="scikit-beam", note="not run: scikit-beam is not installed")
        return
    from skbeam.core.correlation import two_time_corr

    side, some = 64, 64 if quick else 256
    movie, labels = _movie(some, side, 4.0), np.ones((side, side), int)
    pictures = movie.reshape(some, side, side).astype(float)
    times = race({"ours": ready(movie), "scikit-beam": lambda: two_time_corr(labels, pictures, some, some, 1)[0]},
                 repeats=3)  # fmt: skip
    name = f"two-time map, {some} frames of {side} x {side} pixels"
    yield from timing_rows(name, times, {"scikit-beam": faster(50)}, unit="ms", n=some, precision="float32")
