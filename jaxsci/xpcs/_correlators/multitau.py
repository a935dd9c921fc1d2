"""The multi-tau correlator of frames: products of every pixel with itself at some lags, in memory that does not grow.

Level l takes sums of 2^l frames; level 0 has the lags 1 to 2m and every level above it m + 1 to 2m, so that lags up to
the whole series cost what 3m lags cost. The state can be kept, carried on, and merged with that of the stretch of the
series that follows. `correlate` streams files through it; who has frames in memory calls `init`, `update`, `finalize`.
"""

import functools
from typing import NamedTuple, TypeAlias

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int, Integer, Num

from ...core import Module
from .sums import BinSums, Counts, PixelSums, Schedule, bin_rows, check_dtype, counted, no_count, schedule

_TILE = 2048  # pixels at a time: history and sums of a level (16 rows, float32) stay in the caches of a core


class LevelState(Module):
    """What is kept of each pixel at one level, or with more leading axes at several.

    - `history`: the last 2m level frames, the newest first. `head`: the first 2m, for a merge with what was before.
    - `sums`: by lag the sums of products. `total`: the sum of the level frames. `sums_lost`, `total_lost`: what the
      rounding of these lost (Kahan), to be subtracted.
    - `past_gaps`, `future_gaps`: by lag the sums of frames weighted by what their later, earlier partners lack.
    """

    history: Float[Array, "*levels slots p"]
    head: Float[Array, "*levels slots p"]
    sums: Float[Array, "*levels lags p"]
    sums_lost: Float[Array, "*levels lags p"]
    total: Float[Array, "*levels p"]
    total_lost: Float[Array, "*levels p"]
    past_gaps: Float[Array, "*levels lags p"]
    future_gaps: Float[Array, "*levels lags p"]


class MultiTauState(Module):
    """The correlator after some frames; kept on disk and carried on, it ends with the same bits.

    - `start`, `stop`: which frames of the series went in. `seen`: by number, how many that count came before it.
    - `first`: level 0 of each tile of pixels. `above`: the levels above it.
    - `num_pixels`: of a frame; the last tile is filled up.
    """

    start: Int[Array, ""]
    stop: Int[Array, ""]
    seen: Int[Array, " frames_and_1"]
    first: LevelState
    above: LevelState
    num_pixels: int = eqx.field(static=True)


Tile: TypeAlias = tuple[LevelState, LevelState]
"""Level 0 of a tile, and the levels above it."""


class _Span(NamedTuple):
    """Numbers of level frames: of the first of a block, of the whole ones in it, and of the first whole one of all.

    `lacks` has, from number `origin` - 2m on, how many frames each whole one lacks.
    """

    origin: Int[Array, ""]
    begin: Int[Array, ""]
    end: Int[Array, ""]
    since: Int[Array, ""]
    lacks: Float[Array, " n"]


class _Seam(NamedTuple):
    """Numbers of level frames where two stretches meet: `left` is the first that is not whole before the seam, `right`
    the first that is whole after it; `since` and `end` are those of both stretches together. `lacks` is from 2m before
    the seam to 2m after it.
    """

    since: Int[Array, ""]
    left: Int[Array, ""]
    right: Int[Array, ""]
    end: Int[Array, ""]
    lacks: Float[Array, " n"]


class MultiTau(Module):
    """A multi-tau correlator of a series of frames.

    **Arguments:**

    - `frames`: how many the series has, all files together; lags go up to that.
    - `per_level`: m, the lags that each level adds; level 0 has 2m.
    - `tile`: pixels that are worked on together; it changes speed only.
    - `dtype`: of the sums, "float32" or "float64"; `None` for the default of JAX. The error in float32 does not grow
      with the number of frames: blocks are summed with compensation.

    A frame counts where `present` says so and one of its pixels is finite. A missing frame takes away its pairs and
    nothing else: a level frame is then the sum of those that are there, a pair of level frames weighs as the pairs of
    frames in it, and the means of past and future go over the same pairs as the products.

    Derivatives go forwards (`jax.jvp`). The scheme is that of K. Schatzel, M. Drewel and S. Stimac, J. Mod. Opt. 35,
    711 (1988); an odd last frame of a level is dropped.
    """

    frames: int = eqx.field(static=True)
    per_level: int = eqx.field(static=True, default=4)
    tile: int = eqx.field(static=True, default=_TILE)
    dtype: str | None = eqx.field(static=True, default=None)

    def __check_init__(self) -> None:
        if self.frames < 2:
            raise ValueError(f"MultiTau.frames is {self.frames}: a lag needs two frames at least")
        if self.per_level < 1 or self.tile < 1:
            raise ValueError(f"MultiTau: per_level={self.per_level} and tile={self.tile} should be 1 or more")
        check_dtype(self.dtype)

    @property
    def schedule(self) -> Schedule:
        """The lags in frames, and the level of each."""
        return schedule(self.frames, self.per_level)

    @property
    def num_levels(self) -> int:
        """How many levels have a lag within the series."""
        return int(self.schedule.level[-1]) + 1

    def state_bytes(self, num_pixels: int) -> int:
        """What the state of this many pixels takes in memory, in bytes."""
        m, tile = self.per_level, min(self.tile, num_pixels)
        rows = 12 * m + 2 + (8 * m + 2) * (self.num_levels - 1)
        return -(-num_pixels // tile) * tile * rows * self.real.itemsize + 4 * self.frames

    @property
    def real(self) -> jnp.dtype:
        """The type of the sums."""
        return jnp.zeros((), self.dtype or float).dtype

    def init(self, num_pixels: int, start: int | Int[Array, ""] = 0) -> MultiTauState:
        """The state before the first frame.

        **Arguments:** `num_pixels` of a frame; `start`: the number of the first frame to come, for a later stretch of
        a series whose states are merged.
        """
        tile, m = min(self.tile, num_pixels), self.per_level
        tiles = -(-num_pixels // tile)

        def blank(lags: int, *levels: int) -> LevelState:
            rows = ((2 * m,), (2 * m,), (lags,), (lags,), (), (), (lags,), (lags,))
            return LevelState(*(jnp.zeros((tiles, *levels, *r, tile), self.real) for r in rows))

        begin, seen = jnp.asarray(start, jnp.int32), jnp.zeros(self.frames + 1, jnp.int32)
        return MultiTauState(begin, begin, seen, blank(2 * m), blank(m, self.num_levels - 1), num_pixels)

    def update(
        self, state: MultiTauState, frames: Num[Array, "b p"], present: Bool[Array, " b"] | None = None
    ) -> MultiTauState:
        """The state after the next frames of the series.

        **Arguments:** `frames`: (frames, pixels), of any type of numbers. `present`: which count; `None` for all.

        **Raises:** `ValueError` for frames of other pixels; an error where the series is longer than
        `MultiTau.frames`.
        """
        if frames.shape[1] != state.num_pixels:
            raise ValueError(f"frames of {frames.shape[1]} pixels, but init(num_pixels={state.num_pixels})")
        there = jnp.ones(frames.shape[0], bool) if present is None else present
        dead = no_count(frames)
        if jnp.issubdtype(frames.dtype, jnp.inexact):
            there &= jnp.any(jnp.isfinite(frames), axis=1)
        elif dead is not None:
            there &= ~jnp.all(dead, axis=1)
        stop = state.stop + frames.shape[0]
        stop = eqx.error_if(
            stop, stop > self.frames, f"more frames than MultiTau(frames={self.frames}) is made for: give their number"
        )
        count = state.seen[state.stop] + jnp.cumsum(there, dtype=jnp.int32)
        seen = lax.dynamic_update_slice(state.seen, count, (state.stop + 1,))
        spans = _Spans(state.start, state.stop, stop, seen, self.per_level, self.real)
        tiles, tile = state.first.total.shape
        padded = jnp.pad(frames, ((0, 0), (0, tiles * tile - frames.shape[1])))

        def one(_: None, x: tuple[Int[Array, ""], Tile]) -> tuple[None, Tile]:
            at, levels = x
            block = lax.dynamic_slice_in_dim(padded, at * tile, tile, axis=1)
            return None, _climb(jnp.where(there[:, None], counted(block, self.real), 0), levels, spans)

        at = jnp.arange(tiles, dtype=jnp.int32)
        _, (first, above) = lax.scan(one, None, (at, (state.first, state.above)))
        return MultiTauState(state.start, stop, seen, first, above, state.num_pixels)

    def merge(self, before: MultiTauState, after: MultiTauState) -> MultiTauState:
        """The state of a stretch of the series and the one that follows it, as if all had gone through one state.

        Level frames are cut by their number in the series, so each state has whole ones inside, and at most one at its
        border that the other completes. Merging is associative, and an empty state changes nothing.

        **Raises:** an error where `after` does not start where `before` stops.
        """
        here = eqx.error_if(
            before.stop,
            before.stop != after.start,
            "merge: the second state does not start at the frame at which the first stops: give init(start=) of the "
            "second, and frames that are missing with present=False",
        )
        number = jnp.arange(self.frames + 1, dtype=jnp.int32)
        seen = jnp.where(number <= here, before.seen, before.seen[here] + after.seen)
        seams = _Seams(before.start, here, after.stop, seen, self.per_level, self.real)
        tiles = (before.first, before.above), (after.first, after.above)
        first, above = jax.vmap(functools.partial(_merge_tile, seams))(*tiles)
        return MultiTauState(before.start, after.stop, seen, first, above, before.num_pixels)

    def finalize(self, state: MultiTauState) -> PixelSums:
        """The sums of each pixel, over all frames so far."""
        sums = jax.vmap(self._sums)((state.first, state.above))
        G, past, future = jnp.moveaxis(sums, 0, 2).reshape(3, sums.shape[2], -1)[..., : state.num_pixels]
        return PixelSums(self._counts(state), G, past, future)

    def collect(self, state: MultiTauState, static: Integer[Array, " p"], dynamic: Integer[Array, " s"]) -> BinSums:
        """The sums of each static bin, over all frames so far: `finalize` and `PixelSums.bin`, a tile at a time.

        **Arguments:** as of `PixelSums.bin`.
        """
        tiles, tile = state.first.total.shape
        labels = jnp.pad(static, (0, tiles * tile - static.shape[0])).reshape(tiles, tile)
        counts, bins = self._counts(state), dynamic.shape[0]

        def add(
            carry: tuple[Array, Array, Array], x: tuple[Tile, Integer[Array, " tile"]]
        ) -> tuple[tuple[Array, Array, Array], Int[Array, ""]]:
            sums, lost, pixels = carry
            rows, count, left_out = bin_rows(PixelSums(counts, *self._sums(x[0])), x[1], bins)
            return (*_added(sums, lost, rows), pixels + count), left_out

        blank = jnp.zeros((6, counts.lag.shape[0], bins), self.real)
        start = (blank, blank, jnp.zeros(bins, jnp.int32))
        (sums, lost, pixels), left_out = lax.scan(add, start, ((state.first, state.above), labels))
        return BinSums.of(counts, sums - lost, pixels, dynamic, jnp.sum(left_out, dtype=jnp.int32))

    def _counts(self, state: MultiTauState) -> Counts:
        """How many pairs each lag has, and what they weigh."""
        pairs, weight, (lag, level) = [], [], self.schedule
        for at in range(self.num_levels):
            steps = jnp.asarray(lag[level == at] // 2**at)[:, None]
            number = jnp.arange(self.frames // 2**at, dtype=jnp.int32)
            held = _held(state.seen, number, at, _up(state.start, at), _down(state.stop, at))
            at_later = number[None] + steps
            later = jnp.where(at_later < number.shape[0], held[at_later], 0)  # outside: 0, whatever was read
            pairs.append(jnp.sum((held[None] > 0) & (later > 0), axis=1, dtype=jnp.int32))
            both = held.astype(self.real)[None] / 2**at * (later.astype(self.real) / 2**at)
            weight.append(jnp.sum(both, axis=1))
        return Counts(jnp.asarray(lag), jnp.asarray(level), jnp.concatenate(pairs), jnp.concatenate(weight))

    def _sums(self, levels: Tile) -> Float[Array, "3 lags p"]:
        """G, past and future of a tile, all levels below each other, in means of level frames."""
        first, above = levels
        zero, number = jnp.zeros(1, self.real), jnp.arange(1, self.num_levels, dtype=self.real)
        low = _level_sums(jax.tree.map(lambda x: x[None], first), zero)
        sums = jnp.concatenate([low, _level_sums(above, number)], axis=1)
        return sums[:, : self.schedule.lag.shape[0]]


def _up(number: Int[Array, ""], level: Int[Array, ""] | int) -> Int[Array, ""]:
    """The number of the first level frame that begins at this frame or later."""
    return -(-number >> level)


def _down(number: Int[Array, ""], level: Int[Array, ""] | int) -> Int[Array, ""]:
    """The number of the level frame in which this frame is."""
    return number >> level


def _held(
    seen: Int[Array, " frames_and_1"],
    number: Int[Array, " n"],
    level: Int[Array, ""] | int,
    since: Int[Array, ""],
    end: Int[Array, ""],
) -> Int[Array, " n"]:
    """How many frames the level frames of these numbers hold; 0 for those that are not whole."""
    at = jnp.clip(number, since, end)  # of the others no frames are read that do not exist
    after = jnp.minimum((at + 1) << level, seen.shape[0] - 1)
    return jnp.where((number >= since) & (number < end), seen[after] - seen[at << level], 0)


class _Spans(NamedTuple):
    """What a block of frames, from number `old` to `new` of a series from `start`, means at each level."""

    start: Int[Array, ""]
    old: Int[Array, ""]
    new: Int[Array, ""]
    seen: Int[Array, " frames_and_1"]
    per_level: int
    real: jnp.dtype

    def at(self, level: Int[Array, ""] | int, rows: int) -> _Span:
        """The span of a level to which the block brings at most so many level frames."""
        origin, since, end = _down(self.old, level), _up(self.start, level), _down(self.new, level)
        number = origin - 2 * self.per_level + jnp.arange(rows + 2 * self.per_level, dtype=jnp.int32)
        lacks = _lacks(self.seen, number, level, since, end).astype(self.real)
        return _Span(origin, jnp.maximum(origin, since), end, since, lacks)


class _Seams(NamedTuple):
    """What the seam of two stretches, `start` to `here` to `stop`, means at each level."""

    start: Int[Array, ""]
    here: Int[Array, ""]
    stop: Int[Array, ""]
    seen: Int[Array, " frames_and_1"]
    per_level: int
    real: jnp.dtype

    def at(self, level: Int[Array, ""] | int) -> _Seam:
        """The seam at a level."""
        left, since, end = _down(self.here, level), _up(self.start, level), _down(self.stop, level)
        slots = 2 * self.per_level
        number = left - slots + jnp.arange(2 * slots + 1, dtype=jnp.int32)
        lacks = _lacks(self.seen, number, level, since, end).astype(self.real)
        return _Seam(since, left, _up(self.here, level), end, lacks)


def _lacks(
    seen: Int[Array, " frames_and_1"],
    number: Int[Array, " n"],
    level: Int[Array, ""] | int,
    since: Int[Array, ""],
    end: Int[Array, ""],
) -> Int[Array, " n"]:
    """How many frames the level frames of these numbers lack; 0 for those that are not whole."""
    whole = (number >= since) & (number < end)
    return jnp.where(whole, (1 << jnp.asarray(level, jnp.int32)) - _held(seen, number, level, since, end), 0)


def _climb(y: Float[Array, "b p"], levels: Tile, spans: _Spans) -> Tile:
    """One tile of a block through all levels: pairs of level frames are the frames of the next level.

    The levels to which a block brings one frame at most are alike, and are one scan: a program of as many loops as
    there are levels compiles for long.
    """
    before, above = levels
    num_above, m, span = above.total.shape[0], spans.per_level, spans.at(0, y.shape[0])
    first, done, level = _through(before, y, span, 1), [], 1
    while level <= num_above and y.shape[0] > 1:
        y = _pairs(before.history[0], y, span.origin)
        before, span = jax.tree.map(lambda x, at=level - 1: x[at], above), spans.at(level, y.shape[0])
        done.append(_through(before, y, span, m + 1))
        level += 1
    if level > num_above:
        return first, jax.tree.map(lambda *x: jnp.stack(x), *done) if done else above

    def on(
        carry: tuple[Array, Array, Array], x: tuple[Int[Array, ""], LevelState]
    ) -> tuple[tuple[Array, Array, Array], LevelState]:
        y, newest, origin = carry
        y, span = _pairs(newest, y, origin), spans.at(x[0], 1)
        return (y, x[1].history[0], span.origin), _through(x[1], y, span, m + 1)

    rest = jax.tree.map(lambda x: x[level - 1 :], above)
    number = jnp.arange(level, num_above + 1, dtype=jnp.int32)
    _, high = lax.scan(on, (y, before.history[0], span.origin), (number, rest))
    return first, jax.tree.map(lambda *x: jnp.concatenate([jnp.stack(x[:-1]), x[-1]]), *done, high) if done else high


def _pairs(before: Float[Array, " p"], y: Float[Array, "b p"], origin: Int[Array, ""]) -> Float[Array, "half p"]:
    """Sums of two level frames each; an odd `origin` pairs the first with the last one before the block."""
    n = (y.shape[0] + 1) // 2
    rows = jnp.concatenate([before[None], y, jnp.zeros_like(y[:1])])
    rows = lax.dynamic_slice_in_dim(rows, 1 - origin % 2, 2 * n)
    return rows[0::2] + rows[1::2]


def _through(state: LevelState, y: Float[Array, "b p"], span: _Span, lag: int) -> LevelState:
    """A level after the level frames of a block, for the lags from `lag` to 2m.

    A loop over frames with the history as its carry runs 14 times faster than shifted products of whole blocks: what it
    touches stays in the cache.
    """
    begin, end, slots = span.begin - span.origin, span.end - span.origin, state.history.shape[0]

    def row(i: Int[Array, ""]) -> Float[Array, " p"]:
        return lax.dynamic_index_in_dim(y, i, keepdims=False)

    def step(i: Int[Array, ""], carry: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        history, sums, total = carry
        new = row(i)
        return _shifted(history, new), sums + history[lag - 1 :] * new[None], total + new

    blank = (state.history, jnp.zeros_like(state.sums), jnp.zeros_like(state.total))
    history, sums, total = lax.fori_loop(begin, end, step, blank)

    def gap(i: Int[Array, ""], carry: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        history, past, future = carry
        new, lacks = row(i), lax.dynamic_slice_in_dim(span.lacks, i, slots + 1)[::-1]
        return _shifted(history, new), past + history[lag - 1 :] * lacks[0], future + new[None] * lacks[lag:, None]

    # a second pass, of no steps where no frame is missing
    last = jnp.where(jnp.any(span.lacks > 0), end, begin)
    _, past, future = lax.fori_loop(begin, last, gap, (state.history, state.past_gaps, state.future_gaps))

    number = span.since + jnp.arange(slots, dtype=jnp.int32)
    found = y[jnp.clip(number - span.origin, 0, y.shape[0] - 1)]
    head = jnp.where(((number >= span.begin) & (number < span.end))[:, None], found, state.head)
    sums = _added(state.sums, state.sums_lost, sums)
    return LevelState(history, head, *sums, *_added(state.total, state.total_lost, total), past, future)


def _shifted(history: Float[Array, "slots p"], new: Float[Array, " p"]) -> Float[Array, "slots p"]:
    return jnp.concatenate([new[None], history[:-1]])


def _added(
    total: Float[Array, "*n"], lost: Float[Array, "*n"], new: Float[Array, "*n"]
) -> tuple[Float[Array, "*n"], Float[Array, "*n"]]:
    """A compensated sum: the new total, and what its rounding lost (W. Kahan, Comm. ACM 8, 40 (1965))."""
    y = new - lost
    after = total + y
    return after, (after - total) - y


def _level_sums(state: LevelState, level: Float[Array, " levels"]) -> Float[Array, "3 rows p"]:
    """G, past, future of some levels: all but the first, or the last, k of the frames, less what has no partner."""
    slots, lags = state.history.shape[-2], state.sums.shape[-2]
    total = (state.total - state.total_lost)[:, None]
    first_k = jnp.tril(jnp.ones((slots, slots), total.dtype))[slots - lags :]
    newest, oldest = (jnp.einsum("ks,lsp->lkp", first_k, x, precision="highest") for x in (state.history, state.head))
    size = 2 ** level[:, None, None]
    past = (total - newest - state.past_gaps / size) / size
    future = (total - oldest - state.future_gaps / size) / size
    return jnp.stack([(state.sums - state.sums_lost) / size**2, past, future]).reshape(3, -1, total.shape[-1])


def _merge_tile(seams: _Seams, before: Tile, after: Tile) -> Tile:
    """Both stretches of a tile, level by level, with the two parts of the level frame in which the seam is."""
    (a, a_above), (b, b_above) = before, after
    seam = seams.at(0)
    broken = jnp.zeros((2, a.total.shape[0]), a.total.dtype)

    def up(
        carry: tuple[Array, Array], x: tuple[Int[Array, ""], LevelState, LevelState]
    ) -> tuple[tuple[Array, Array], LevelState]:
        broken, ends = carry
        level, a, b = x
        # what a level leaves unpaired at the seam is a part of the broken frame of the next level
        odd = jnp.stack([_down(seams.here, level - 1), _up(seams.here, level - 1)]) % 2 == 1
        broken = broken + jnp.where(odd[:, None], ends, 0)
        merged = _merge_level(a, b, seams.at(level), broken)
        return (broken, jnp.stack([a.history[0], b.head[0]])), merged

    number = jnp.arange(1, a_above.total.shape[0] + 1, dtype=jnp.int32)
    ends = jnp.stack([a.history[0], b.head[0]])
    _, above = lax.scan(up, (broken, ends), (number, a_above, b_above))
    return _merge_level(a, b, seam, broken), above


def _merge_level(a: LevelState, b: LevelState, seam: _Seam, broken: Float[Array, "2 p"]) -> LevelState:
    """One level of two stretches, with the pairs across the seam and the level frame that it cut in two."""
    slots, lag = a.history.shape[0], a.history.shape[0] - a.sums.shape[0] + 1
    is_cut = seam.right > seam.left
    joint = is_cut & (seam.left >= seam.since) & (seam.left < seam.end)
    cut = jnp.where(joint, broken[0] + broken[1], 0)
    nothing = jnp.zeros_like(cut)[None]
    later = jnp.where(is_cut, jnp.concatenate([cut[None], b.head]), jnp.concatenate([b.head, nothing]))
    across = [_across(a.history[:k][::-1], cut, later[: k + 1], seam.lacks[slots - k : slots + k + 1], joint)
              for k in range(lag, slots + 1)]  # fmt: skip
    added, past, future = jnp.stack(across, axis=1)
    sums = _added(*_added(a.sums, a.sums_lost, added - b.sums_lost), b.sums)
    total = _added(*_added(a.total, a.total_lost, cut - b.total_lost), b.total)

    def chosen(number: Int[Array, " k"], left: Float[Array, "k p"], right: Float[Array, "k p"]) -> Float[Array, "k p"]:
        middle = jnp.where((number == seam.left)[:, None], cut[None], right)
        return jnp.where((number < seam.left)[:, None], left, jnp.where(is_cut, middle, right))

    slot = jnp.arange(slots, dtype=jnp.int32)
    last, first = seam.end - 1 - slot, seam.since + slot
    history = chosen(last, a.history[jnp.clip(seam.left - 1 - last, 0, slots - 1)], b.history)
    head = chosen(first, a.head, b.head[jnp.clip(first - seam.right, 0, slots - 1)])
    gaps = a.past_gaps + b.past_gaps + past, a.future_gaps + b.future_gaps + future
    return LevelState(history, head, *sums, *total, *gaps)


def _across(
    earlier: Float[Array, "k p"],
    cut: Float[Array, " p"],
    later: Float[Array, "k1 p"],
    lacks: Float[Array, " k2"],
    joint: Bool[Array, ""],
) -> Float[Array, "3 p"]:
    """Of lag k: products over the seam, and the frames on either side weighted by what their partners lack.

    `earlier` are the k level frames before the seam, `later` the k + 1 from it on, of which the first is that which was
    cut (`cut`, if `joint`) and has a partner after it; `lacks` go with both.
    """
    k = earlier.shape[0]
    product = jnp.sum(later[:k] * earlier, axis=0) + cut * later[k]
    past = jnp.sum(earlier * lacks[k : 2 * k, None], axis=0) + cut * lacks[2 * k]
    future = jnp.sum(later[:k] * lacks[:k, None], axis=0) + jnp.where(joint, later[k] * lacks[k], 0)
    return jnp.stack([product, past, future])
