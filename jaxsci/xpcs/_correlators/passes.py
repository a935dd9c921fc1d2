"""One reading of all frames through a correlator: what is fed, what is kept on disk, and what comes out at the end.

The dense and the event correlator are fed alike here, so that files, masks, progress and checkpoints are written once.
Two-time maps need their frames together, which are collected on the way. `correlate` calls `read_through` for each
group of pixels that fits into memory.
"""

import time
from collections.abc import Callable
from typing import NamedTuple, Protocol, runtime_checkable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Num

from ...core import AnyArray, Tree
from ...parallel import Checkpoint
from .events import EventMultiTau, Events, EventState
from .frames import Block, Source, ahead
from .multitau import MultiTau, MultiTauState
from .sums import BinSums, counted, no_count
from .twotime import TwoTime, TwoTimeMap, TwoTimeState


class Choices(NamedTuple):
    """What the work is about. `used`: places of the pixels in a frame; `static`: their bins; `present`: by frame."""

    frames: int
    per_level: int
    tile: int
    dtype: str | None
    used: np.ndarray
    static: np.ndarray
    dynamic: np.ndarray
    present: np.ndarray
    two_time: dict[int, np.ndarray]

    @property
    def dense(self) -> MultiTau:
        """The correlator of pixels."""
        return MultiTau(self.frames, self.per_level, self.tile, self.dtype)


class Plan(NamedTuple):
    """How the work is cut: frames at a time, and groups of pixels that are correlated one after the other."""

    method: str
    block: int
    groups: int


class Passed(NamedTuple):
    """What one reading of the frames gave: of its pixels the sums and the mean, of each frame the mean over them."""

    sums: BinSums
    image: np.ndarray
    intensity: np.ndarray
    maps: dict[int, TwoTimeMap]


@runtime_checkable
class _Engine(Protocol):
    """A correlator that is fed blocks of frames on the host; `closed` and `opened` turn its state into arrays and back.

    `feed` gives the mean of each frame beside the state, and `end` the mean of each pixel beside the sums.
    """

    def blank(self) -> Tree: ...

    def feed(self, state: Tree, frames: Block, present: Bool[np.ndarray, " b"]) -> tuple[Tree, AnyArray]: ...

    def end(self, state: Tree) -> tuple[BinSums, AnyArray]: ...

    def closed(self, state: Tree) -> Tree: ...

    def opened(self, arrays: Tree) -> Tree: ...


@eqx.filter_jit
def _update(
    mt: MultiTau, state: MultiTauState, frames: Num[Array, "b p"], present: Bool[Array, " b"]
) -> tuple[MultiTauState, Float[Array, " b"]]:
    whole = no_count(frames) is None and not jnp.issubdtype(frames.dtype, jnp.inexact)
    mean = jnp.mean(frames, axis=1, dtype=mt.real) if whole else jnp.nanmean(counted(frames, mt.real), axis=1)
    return mt.update(state, frames, present), mean


@eqx.filter_jit
def _collect(mt: MultiTau, state: MultiTauState, static: Int[Array, " p"], dynamic: Int[Array, " s"]) -> BinSums:
    return mt.collect(state, static, dynamic)


class _Dense(NamedTuple):
    """Feeds a `MultiTau`."""

    mt: MultiTau
    static: np.ndarray
    dynamic: np.ndarray

    def blank(self) -> MultiTauState:
        return self.mt.init(len(self.static))

    def feed(
        self, state: MultiTauState, frames: Block, present: Bool[np.ndarray, " b"]
    ) -> tuple[MultiTauState, AnyArray]:
        return _update(self.mt, state, jnp.asarray(frames), jnp.asarray(present))

    def end(self, state: MultiTauState) -> tuple[BinSums, AnyArray]:
        total = (state.first.total - state.first.total_lost).reshape(-1)[: len(self.static)]
        sums = _collect(self.mt, state, jnp.asarray(self.static), jnp.asarray(self.dynamic))
        return sums, total / state.seen[-1].astype(total.dtype)

    def closed(self, state: MultiTauState) -> MultiTauState:
        return state

    def opened(self, arrays: MultiTauState) -> MultiTauState:
        return jax.tree.map(jnp.asarray, arrays)


class _Sparse(NamedTuple):
    """Feeds an `EventMultiTau`."""

    mt: EventMultiTau
    static: np.ndarray
    dynamic: np.ndarray

    def blank(self) -> EventState:
        return self.mt.init()

    def feed(self, state: EventState, frames: Block, present: Bool[np.ndarray, " b"]) -> tuple[EventState, AnyArray]:
        events = Events.of(frames if present.all() else np.where(present[:, None], frames, 0), state.stop)
        alive = max(frames.shape[1] - len(events.dead), 1)
        mean = np.bincount(events.frame - state.stop, events.count, len(frames)) / alive
        return self.mt.update(state, events, len(frames), present), mean

    def end(self, state: EventState) -> tuple[BinSums, AnyArray]:
        events = state.events
        image = np.bincount(events.pixel, events.count, len(self.static)) / max(int(state.present.sum()), 1)
        image[events.dead] = np.nan
        return self.mt.collect(state, self.static, self.dynamic), image

    def closed(self, state: EventState) -> Tree:
        events = state.events
        return np.asarray(state.stop), state.present, events.pixel, events.frame, events.count, events.dead

    def opened(self, arrays: Tree) -> EventState:
        return EventState(0, int(arrays[0]), arrays[1], (Events(*arrays[2:]),))


def _engine(choices: Choices, plan: Plan) -> _Engine:
    if plan.method == "events":
        return _Sparse(EventMultiTau(choices.frames, choices.per_level), choices.static, choices.dynamic)
    return _Dense(choices.dense, choices.static, choices.dynamic)


def read_through(
    source: Source, choices: Choices, plan: Plan, kept: Checkpoint | None, name: str, report: Callable[[int], None]
) -> Passed:
    """Read all frames once, for some of the pixels."""
    engine = _engine(choices, plan)
    buffers = {k: np.zeros((choices.frames, len(at)), source.dtype) for k, at in choices.two_time.items()}
    blank = (np.asarray(0), engine.closed(engine.blank()), np.zeros(choices.frames), buffers)
    at, arrays, intensity, buffers = blank if kept is None else kept.state(name, blank)
    now = (int(at), engine.opened(arrays))  # in one piece, so that an interruption finds both from one moment
    report(now[0])
    everything = len(choices.used) == source.num_pixels

    def keep() -> None:
        if kept is not None:
            kept.keep(name, (np.asarray(now[0]), engine.closed(now[1]), intensity, buffers))

    try:
        for block in ahead(source.blocks(now[0], plan.block)):
            rows = slice(now[0], now[0] + len(block))
            if rows.stop > choices.frames:
                raise ValueError(f"there are more than num_frames={choices.frames} frames: give their number")
            mine = block if everything else np.take(block, choices.used, axis=1)
            state, intensity[rows] = engine.feed(now[1], mine, choices.present[rows])
            for k, pixels in choices.two_time.items():
                buffers[k][rows] = block[:, pixels]
            now = (rows.stop, state)
            report(len(block))
            if kept is not None and time.monotonic() - kept.written >= kept.every:
                keep()
    finally:
        keep()
    if now[0] < choices.frames:
        raise ValueError(f"only {now[0]} of {choices.frames} frames came: give the number that there are")
    sums, image = engine.end(now[1])
    maps = {k: _map(choices, frames) for k, frames in buffers.items()}
    return Passed(sums, np.asarray(image), intensity, maps)


def _map(choices: Choices, frames: Num[np.ndarray, "n p"]) -> TwoTimeMap:
    """The two-time map of frames that were collected."""
    n = jnp.asarray(choices.frames, jnp.int32)
    state = TwoTimeState(jnp.asarray(frames), jnp.asarray(choices.present), jnp.zeros_like(n), n)
    return _two_time(TwoTime(choices.frames, choices.dtype), state)


@eqx.filter_jit
def _two_time(tt: TwoTime, state: TwoTimeState) -> TwoTimeMap:
    return tt.finalize(state)
