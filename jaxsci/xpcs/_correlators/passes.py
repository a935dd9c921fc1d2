"""One reading of all frames through a correlator: what is fed, what is kept on disk, and what comes out at the end.

The dense and the event correlator are fed alike here, so that files, masks, progress and checkpoints are written once.
Two-time maps need their frames together, which are collected on the way. `correlate` calls `read_through` for as many
pixels as fit into memory, in a group for each device.
"""

import contextlib
import time
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, Protocol, TypeAlias, runtime_checkable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Num

from ...core import AnyArray, Tree
from ...parallel import Checkpoint, Placement
from .events import EventMultiTau, Events, EventState
from .frames import Block, Source, ahead
from .multitau import MultiTau, MultiTauState
from .sums import BinSums, counted, no_count
from .twotime import TwoTime, TwoTimeMap, TwoTimeState

Frames: TypeAlias = Num[np.ndarray, "n p"]
"""All frames of some pixels."""


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


METHODS = ("auto", "dense", "events")


class Plan(NamedTuple):
    """How the work is cut: frames at a time, and how often they are read, each time for some of the pixels."""

    method: str
    block: int
    groups: int

    @property
    def numbers(self) -> np.ndarray:
        """As numbers, the method by its place among `METHODS`, for other processes."""
        return np.array([METHODS.index(self.method), self.block, self.groups])


class Passed(NamedTuple):
    """What a reading of the frames gave: of some pixels the sums and the mean, of each frame the mean over them."""

    sums: BinSums
    image: np.ndarray
    intensity: np.ndarray


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
    source: Source,
    parts: Sequence[Choices],
    collected: Mapping[int, np.ndarray],
    plan: Plan,
    placement: Placement,
    kept: Checkpoint | None,
    name: str,
    report: Callable[[int], None],
) -> tuple[list[Passed], dict[int, Frames]]:
    """Read all frames once, for some groups of pixels, each of which is correlated by a device of this process.

    **Arguments:** `collected`: by number the pixels whose frames are wanted together.

    **Returns:** what was found of each group, and the frames that were collected.
    """
    frames, devices = parts[0].frames, placement.own or (None,)
    engines = [(_engine(part, plan), _on(devices[k % len(devices)])) for k, part in enumerate(parts)]

    def opened(states: Sequence[Tree]) -> list[Tree]:
        out = []
        for (engine, here), state in zip(engines, states, strict=True):
            with here():
                out.append(engine.opened(state))
        return out

    buffers = {k: np.zeros((frames, len(at)), source.dtype) for k, at in collected.items()}
    begun = [engine.closed(engine.blank()) for engine, _ in engines]
    blank = (np.asarray(0), begun, np.zeros((len(parts), frames)), buffers)
    at, arrays, intensity, buffers = blank if kept is None else kept.state(name, blank)
    now = (int(at), opened(arrays))  # in one piece, so that an interruption finds both from one moment
    report(now[0])

    def keep() -> None:
        if kept is not None:
            states = [engine.closed(state) for (engine, _), state in zip(engines, now[1], strict=True)]
            kept.keep(name, (np.asarray(now[0]), states, intensity, buffers))

    try:
        for block in ahead(source.blocks(now[0], plan.block)):
            rows = slice(now[0], now[0] + len(block))
            if rows.stop > frames:
                raise ValueError(f"there are more than num_frames={frames} frames: give their number")
            fed = []
            for (engine, here), part, state in zip(engines, parts, now[1], strict=True):
                mine = block if len(part.used) == source.num_pixels else np.take(block, part.used, axis=1)
                with here():
                    fed.append(engine.feed(state, mine, part.present[rows]))
            for k, (_, mean) in enumerate(fed):  # once all devices are at work
                intensity[k, rows] = mean
            for k, pixels in collected.items():
                buffers[k][rows] = block[:, pixels]
            now = (rows.stop, [state for state, _ in fed])
            report(len(block))
            if kept is not None and time.monotonic() - kept.written >= kept.every:
                keep()
    finally:
        keep()
    if now[0] < frames:
        raise ValueError(f"only {now[0]} of {frames} frames came: give the number that there are")
    ended = [engine.end(state) for (engine, _), state in zip(engines, now[1], strict=True)]
    found = zip(ended, intensity, strict=True)
    return [Passed(sums, np.asarray(image), mean) for (sums, image), mean in found], buffers


def _on(device: jax.Device | None) -> Callable[[], contextlib.AbstractContextManager[object]]:
    """What puts new arrays onto a device."""
    return contextlib.nullcontext if device is None else lambda: jax.default_device(device)


def two_time_map(choices: Choices, frames: Frames) -> TwoTimeMap:
    """The two-time map of frames that were collected."""
    n = jnp.asarray(choices.frames, jnp.int32)
    state = TwoTimeState(jnp.asarray(frames), jnp.asarray(choices.present), jnp.zeros_like(n), n)
    return _two_time(TwoTime(choices.frames, choices.dtype), state)


@eqx.filter_jit
def _two_time(tt: TwoTime, state: TwoTimeState) -> TwoTimeMap:
    return tt.finalize(state)
