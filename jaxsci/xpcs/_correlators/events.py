"""The multi-tau correlator of sparse frames: lists of photons in place of pixels, with sums of integers that are exact.

Where one pixel in a thousand sees a photon, nearly all products of a dense correlator are zeros; here only pairs of
photons that exist are looked up. The lists have lengths that no one knows before, so this is work of the host in NumPy:
sorting, searching and counting half a million photons there takes a second, and none of them has a fixed shape that
XLA could compile for. `correlate` takes this path for sparse data; the sums are those of `MultiTau`, to the bit of
their integers.
"""

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Integer, Num

from ...core import Module
from .sums import BinSums, Counts, Schedule, no_count, schedule


class Events(Module):
    """Photons: the pixel, the frame and the count of each entry that is not zero. The arrays are on the host.

    **Arguments:** three arrays of one length, in any order, each pair of pixel and frame once. `dead`: pixels that the
    detector has marked as such in some frame; they are left out of all.
    """

    pixel: Integer[np.ndarray, " n"]
    frame: Integer[np.ndarray, " n"]
    count: Integer[np.ndarray, " n"]
    dead: Integer[np.ndarray, " d"] = eqx.field(default_factory=lambda: np.zeros(0, np.int32))

    @staticmethod
    def of(frames: Num[np.ndarray, "b p"], start: int = 0) -> "Events":
        """The entries of dense frames that are not zero; the first of them has the number `start`.

        Pixels that hold a mark in place of a count (-1, 2^16 - 1, 2^32 - 1) are dead, and have no entries.

        **Raises:** `ValueError` for counts that are no whole numbers.
        """
        flat = np.ascontiguousarray(frames).reshape(-1)
        at = _nonzero(flat)
        count = flat[at]
        if count.dtype.kind == "f" and not np.array_equal(count, np.rint(count)):
            raise ValueError("events: counts of photons are whole numbers; give these frames to MultiTau")
        frame, pixel = np.divmod(at, frames.shape[1])
        marked = no_count(count)
        dead = np.unique(pixel[marked]) if marked is not None else pixel[:0]
        if len(dead):
            alive = ~_among(pixel, dead, frames.shape[1])
            frame, pixel, count = frame[alive], pixel[alive], count[alive]
        kept = pixel.astype(np.int32), (frame + start).astype(np.int32), count.astype(np.int64)
        return Events(*kept, dead.astype(np.int32))

    def __len__(self) -> int:
        return len(self.pixel)


class EventState(Module):
    """The photons of the frames from `start` to `stop`, and which frames of the series count."""

    start: int
    stop: int
    present: Bool[np.ndarray, " frames"]
    parts: tuple[Events, ...]

    @property
    def events(self) -> Events:
        """All photons together."""
        blank = (np.zeros(0, np.int32), np.zeros(0, np.int32), np.zeros(0, np.int64))
        names = ("pixel", "frame", "count")
        pixel, frame, count = (
            np.concatenate([x, *(getattr(p, name) for p in self.parts)]) for x, name in zip(blank, names)
        )
        dead = np.unique(np.concatenate([blank[0], *(part.dead for part in self.parts)]))
        return Events(pixel, frame, count, dead)


class EventMultiTau(Module):
    """A multi-tau correlator of photons.

    **Arguments:** `frames` and `per_level` as of `MultiTau`, whose sums these are. Memory grows with the photons, not
    with the pixels.

    A frame counts where `present` says so, which frames without a photon do.
    """

    frames: int = eqx.field(static=True)
    per_level: int = eqx.field(static=True, default=4)

    def __check_init__(self) -> None:
        if self.frames < 2 or self.per_level < 1:
            raise ValueError(f"EventMultiTau: frames={self.frames} should be 2 or more, per_level={self.per_level} 1")

    @property
    def schedule(self) -> Schedule:
        """The lags in frames, and the level of each."""
        return schedule(self.frames, self.per_level)

    def init(self, start: int = 0) -> EventState:
        """The state before the first frame, which has the number `start` in the series."""
        return EventState(start, start, np.zeros(self.frames, bool), ())

    def update(
        self, state: EventState, events: Events, num_frames: int, present: Bool[np.ndarray, " b"] | None = None
    ) -> EventState:
        """The state after the next `num_frames` frames of the series, with their photons.

        **Raises:** `ValueError` for photons of other frames, and for more frames than the series has.
        """
        stop = state.stop + num_frames
        if stop > self.frames:
            raise ValueError(f"more frames than EventMultiTau(frames={self.frames}) is made for: give their number")
        if len(events) and not (state.stop <= events.frame.min() and events.frame.max() < stop):
            raise ValueError(
                f"events of the frames {events.frame.min()} to {events.frame.max()}, where {state.stop} to {stop - 1} "
                "come next: frames are numbered from the beginning of the series"
            )
        known = state.present.copy()
        known[state.stop : stop] = True if present is None else present
        there = known[events.frame]
        kept = (
            events
            if there.all()
            else Events(events.pixel[there], events.frame[there], events.count[there], events.dead)
        )
        return EventState(state.start, stop, known, (*state.parts, kept))

    def merge(self, before: EventState, after: EventState) -> EventState:
        """The state of a stretch of the series and the one that follows it.

        **Raises:** `ValueError` where `after` does not start where `before` stops.
        """
        if before.stop != after.start:
            raise ValueError(f"merge: the first state stops at frame {before.stop}, the second starts at {after.start}")
        return EventState(before.start, after.stop, before.present | after.present, before.parts + after.parts)

    def collect(
        self, state: EventState, static: Integer[np.ndarray, " p"], dynamic: Integer[np.ndarray, " s"]
    ) -> BinSums:
        """The sums of each static bin, over all frames so far; arguments as of `PixelSums.bin`."""
        events = state.events
        pixel, frame, count = events.pixel, events.frame, events.count
        dead = _among(np.arange(len(static)), events.dead, len(static)) & (static > 0)
        static = np.where(dead, 0, static)
        used = static[pixel] > 0
        pixel, frame, count = pixel[used], frame[used].astype(np.int64), count[used]
        order = np.lexsort((frame, pixel))
        seen, pixel = np.unique(pixel[order], return_inverse=True)
        photons = _Photons(pixel, frame[order], count[order], _held(state), static[seen], len(dynamic))
        rows, pairs, weight = [], [], []
        lag, level = self.schedule
        for at in range(int(level[-1]) + 1):
            since, end = -(-state.start // 2**at), state.stop // 2**at
            photons = photons.climbed(since, end) if at else photons.within(since, end)
            for k in (lag[level == at] // 2**at).tolist():
                held = photons.held
                pairs.append(int(np.sum((held[k:] > 0) & (held[:-k] > 0))))
                weight.append(int(np.sum(held[k:] * held[:-k])) / 4**at)
                rows.append(photons.sums(k, at, weight[-1]))
        as_int = [jnp.asarray(np.asarray(x, np.int32)) for x in (lag, level, pairs)]
        counts = Counts(as_int[0], as_int[1], as_int[2], jnp.asarray(np.array(weight), float))
        six = jnp.asarray(np.moveaxis(np.array(rows), 1, 0), float)
        pixels = jnp.asarray(np.bincount(static, minlength=len(dynamic) + 1)[1:].astype(np.int32))
        return BinSums.of(counts, six, pixels, jnp.asarray(dynamic), jnp.asarray(dead.sum(), jnp.int32))


class _Photons(Module):
    """Photons at one level, sorted by pixel and time; pixels are numbered among those that saw any.

    `held` is by level frame how many frames count in it, `static` by pixel its bin, from 1 to `bins`.
    """

    pixel: Integer[np.ndarray, " n"]
    time: Integer[np.ndarray, " n"]
    count: Integer[np.ndarray, " n"]
    held: Integer[np.ndarray, " t"]
    static: Integer[np.ndarray, " p"]
    bins: int

    def within(self, since: int, end: int) -> "_Photons":
        """Those of the level frames that are whole."""
        number = np.arange(len(self.held))
        held = np.where((number >= since) & (number < end), self.held, 0)
        keep = (self.time >= since) & (self.time < end)
        return _Photons(self.pixel[keep], self.time[keep], self.count[keep], held, self.static, self.bins)

    def climbed(self, since: int, end: int) -> "_Photons":
        """One level up: two level frames are one, and photons that meet in it are one entry."""
        half = len(self.held) // 2
        held = self.held[: 2 * half].reshape(half, 2).sum(1)
        time = self.time >> 1
        first = np.ones(len(time), bool)
        first[1:] = (time[1:] != time[:-1]) | (self.pixel[1:] != self.pixel[:-1])
        at = np.flatnonzero(first)
        count = np.add.reduceat(self.count, at) if len(at) else self.count
        return _Photons(self.pixel[at], time[at], count, held, self.static, self.bins).within(since, end)

    def sums(self, k: int, level: int, weight: float) -> Num[np.ndarray, "6 s"]:
        """The sums of `BinSums` at k level frames."""
        span = len(self.held) + k + 1  # longer than a pixel's times: no pair reaches into the next pixel
        key = self.pixel * span + self.time
        later = np.searchsorted(key, key + k)
        later[later == len(key)] = 0
        pair = key[later] == key + k if len(key) else np.zeros(0, bool)
        product = self.count[pair] * self.count[later[pair]]
        held = np.pad(self.held, k)  # the time t is at t + k of it
        weights = product, self.count * held[self.time + 2 * k], self.count * held[self.time]
        where = self.pixel[pair], self.pixel, self.pixel
        G, past, future = (np.bincount(at, w, len(self.static)) for at, w in zip(where, weights))
        G, past, future = G / 4**level, past / 4**level, future / 4**level
        seen = (past > 0) & (future > 0)
        ratio = np.divide(G * weight, past * future, out=np.zeros_like(G), where=seen)
        return np.stack([self._by_bin(x) for x in (G, past, future, ratio, ratio**2, seen.astype(float))])

    def _by_bin(self, x: Num[np.ndarray, " p"]) -> Num[np.ndarray, " s"]:
        return np.bincount(self.static, x, self.bins + 1)[1:]


def _among(pixel: Integer[np.ndarray, " n"], some: Integer[np.ndarray, " m"], pixels: int) -> Bool[np.ndarray, " n"]:
    """Which of the entries are of some pixels."""
    table = np.zeros(pixels, bool)
    table[some] = True
    return table[pixel]


def _held(state: EventState) -> Integer[np.ndarray, " t"]:
    return state.present.astype(np.int64)


def _nonzero(flat: Num[np.ndarray, " n"]) -> Integer[np.ndarray, " m"]:
    """Places of what is not zero. Nearly all is zero: eight bytes that are can be passed over with one look."""
    size = flat.dtype.itemsize
    words = flat[: flat.size - flat.size % (8 // size or 1)].view(np.uint64) if size < 8 else flat
    if size >= 8 or flat.size < 64:
        return np.flatnonzero(flat)
    step = 8 // size
    near = (np.flatnonzero(words)[:, None] * step + np.arange(step)).reshape(-1)
    rest = np.arange(words.size * step, flat.size)
    at = np.concatenate([near, rest])
    return at[flat[at] != 0]
