"""Chains in lanes: few compiled programs of fixed size, and the host loop that keeps them busy.

Every chain of every member is a lane. A call advances chunks of a few lanes by a segment of draws, one chunk after the
other; between two calls lanes are sorted by the size of their last trees, so that a chain with long ones keeps company
with its like and slows nobody else. A lane's bits are a function of its own member, key and shape alone: not of its
neighbours, of their order, or of where the run was stopped and resumed. `sample` runs these.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import jax.tree_util as jtu
import numpy as np
from jaxtyping import Array, Bool, Float, PyTree, UInt32

from ..core import AnyArray, Scalar, Tree
from ..fitting import compiled, each_lane, in_chunks, lane_count
from ..parallel import Checkpoint, Placement
from ._kernel import Settings, Trace, advance, begin
from ._pose import AbstractPose

_LANES = 4  # of a chunk on a CPU, where wider ones are no faster and wait for the longest of more trees
_WIDE = 1024  # of a chunk elsewhere, which needs many to be busy
_CHUNKS = 16  # of a call at most
_SEGMENT = 50  # draws of a call, fewer of members with many numbers
_MUCH = 1 << 16  # numbers in the Jacobian of a member, above which a call takes seconds


class Shape(NamedTuple):
    """How lanes are cut into calls: `width` lanes a chunk, `chunks` a call, `segment` draws."""

    width: int
    chunks: int
    segment: int

    @staticmethod
    def of(rows: int, p: int) -> "Shape":
        """For members of so many rows and parameters: a function of these alone, so that bits are one too."""
        numbers = max(rows * (p + 1), 1)
        segment = _SEGMENT if numbers <= _MUCH else _SEGMENT // 5
        if jax.default_backend() != "cpu":
            return Shape(min(_WIDE, lane_count(rows, p, "auto") * 8), 1, segment)
        width = min(_LANES, lane_count(rows, p, "auto"))
        return Shape(width, max(1, min(_CHUNKS, 4 * _MUCH // (numbers * width))), segment)

    def members(self, chains: int) -> int:
        """How many members with so many chains each a call has, or one that takes more."""
        return max(1, self.width * self.chunks // chains)


class Begun(NamedTuple):
    """A lane before its first draw.

    - `frame`: its coordinates. `state`: its chain's. `first`: its parameters. `finite`: their density is a number.
    - `cost`: at the fit's answer, which tells whether these are the data of that fit.
    """

    frame: PyTree
    state: PyTree
    first: Float[Array, " p"]
    finite: Bool[Array, ""]
    cost: Scalar


class Drawn(NamedTuple):
    """The chains of all members: `first` (members, chains, p), the trace's arrays (members, chains, draws, ...)."""

    first: np.ndarray
    trace: Trace


class Progress(NamedTuple):
    """How far all lanes are: all that a resumed run needs.

    - `done`: draws of each, those of the warm-up among them. `sizes`: leapfrog steps of its last trees.
    - `state`: of the chains. `kept`: the trace so far, of the draws that are kept.
    """

    done: np.ndarray
    sizes: np.ndarray
    state: PyTree
    kept: Trace


class Run(NamedTuple):
    """Members of one shape, and how to sample them.

    - `posed`: an `AbstractPose` whose arrays lead with the members. `keys`: uint32[members, chains, 2].
    - `draws`: to be kept of each chain. `jitter`: how far from the fit's answer chains start.
    - `placement`: the devices that take calls in turn.
    """

    posed: AbstractPose
    keys: np.ndarray
    settings: Settings
    shape: Shape
    draws: int
    jitter: float
    placement: Placement

    @property
    def lanes(self) -> int:
        """How many chains there are."""
        return self.keys.shape[0] * self.keys.shape[1]

    @property
    def total(self) -> int:
        """Draws of a chain, those of the warm-up among them."""
        return self.settings.num_warmup + self.draws

    def begun(self) -> Begun:
        """All lanes before their first draw."""
        own = self.keys.reshape(self.lanes, 2), np.full(self.lanes, float(self.jitter))
        return self._call(np.arange(self.lanes), own, _begin, once=True)

    def run(self, begun: Begun, report: Callable[[int], None], checkpoint: Checkpoint | None, name: str) -> Drawn:
        """All draws. What is done is kept in the `checkpoint`, under this `name`, after each segment."""
        blank = Progress(np.zeros((), int), np.zeros(self.lanes), begun.state, self._blank(begun))
        done, sizes, state, kept = blank if checkpoint is None else checkpoint.state(name, blank)
        report(min(int(done), self.total) * self.lanes)
        while done < self.total:
            order = np.argsort(sizes, kind="stable")
            moved = self._call(order, (begun.frame, state), _advance)
            back = np.argsort(order, kind="stable")
            state, trace = jtu.tree_map(lambda x, back=back: x[back], moved)
            self._keep(kept, trace, int(done))
            drawn = min(self.settings.segment, self.total - int(done))
            done, sizes = done + self.settings.segment, trace.num_steps.mean(axis=1)
            if checkpoint is not None:
                checkpoint.keep(name, Progress(done, sizes, state, kept))
            report(drawn * self.lanes)
        return Drawn(self._by_member(begun.first), jtu.tree_map(self._by_member, kept))

    def _blank(self, begun: Begun) -> Trace:
        """Room for the draws that are kept."""
        real = jnp.result_type(float)
        lanes, draws = self.lanes, self.draws
        y = np.zeros((lanes, draws, begun.first.shape[1]), begun.first.dtype)
        numbers = [np.zeros((lanes, draws), dtype) for dtype in (real, real, bool, np.int32, real)]
        return Trace(y, *numbers)

    def _keep(self, kept: Trace, trace: Trace, done: int) -> None:
        """Write what is no warm-up of a segment that began after `done` draws into its place."""
        begin, end = max(done, self.settings.num_warmup), min(done + self.settings.segment, self.total)
        if begin < end:
            place = slice(begin - self.settings.num_warmup, end - self.settings.num_warmup)
            new = jtu.tree_map(lambda x: x[:, begin - done : end - done], trace)
            jtu.tree_map(lambda out, x: out.__setitem__((slice(None), place), x), kept, new)

    def _by_member(self, x: AnyArray) -> np.ndarray:
        return np.asarray(x).reshape(*self.keys.shape[:2], *x.shape[1:])

    def _call(self, lanes: np.ndarray, own: Tree, program: Callable[..., Any], once: bool = False) -> Any:
        """Run a program over these lanes, call after call; all are under way before the first is read.

        **Arguments:** `own`: arrays that lead with all lanes; each also gets the posed problem of its member.
        """
        width, chunks = self.shape.width, self.shape.chunks
        size, chains = width * chunks, self.keys.shape[1]
        calls = [lanes[at : at + size] for at in range(0, len(lanes), size)]
        waiting = []
        for k, call in enumerate(calls):
            # the last call is filled up with its first lane, whose company changes no other's bits
            full = np.concatenate([call, np.full(size - len(call), call[0])]).reshape(chunks, width)
            posed = jtu.tree_map(lambda x, full=full: x[full // chains], self.posed)
            trees = posed, jtu.tree_map(lambda x, full=full: x[full], own)
            trees, count = self.placement.put(k, (trees, np.asarray(-(-len(call) // width))))
            waiting.append(compiled(in_chunks(each_lane(program)), (trees, (), count), (self.settings,), once=once))
        parts = []
        for call, answer in zip(calls, waiting, strict=True):
            flat = jtu.tree_map(lambda x: np.asarray(x).reshape(size, *x.shape[2:]), answer)
            parts.append(jtu.tree_map(lambda x, count=len(call): x[:count], flat))
        return jtu.tree_map(lambda *x: np.concatenate(x), *parts)


def _begin(lane: tuple[AbstractPose, tuple[UInt32[Array, "2"], Scalar]], settings: Settings) -> Begun:
    posed, (key, jitter) = lane
    frame = posed.frame()
    target = posed.target(frame)
    state = begin(target, key, jitter, settings)
    first = target.constrain(state.z.astype(target.origin.dtype))
    return Begun(frame, state, first, jnp.isfinite(state.potential_energy), posed.cost())


def _advance(lane: tuple[AbstractPose, tuple[PyTree, PyTree]], settings: Settings) -> tuple[PyTree, Trace]:
    posed, (frame, state) = lane
    return advance(posed.target(frame), state, settings)
