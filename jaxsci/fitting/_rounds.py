"""The compiled programs of a batch, and the host loop that keeps their lanes busy.

A `Job` is a set of members of one shape. Each call advances chunks of lanes by a few steps of the solver; members that
are done leave, and the others are gathered into full chunks again, so that nobody waits for the slowest. A lane's bits
depend on its own member and shape alone, so a batch that was stopped goes on with the same bits from what its
checkpoint keeps. `fit_batch` runs these.
"""

import functools
import math
from collections.abc import Callable, Hashable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import jax.tree_util as jtu
import numpy as np
import optimistix as optx
from jax import lax
from jaxtyping import Array, PyTree

from ..core import AnyArray, Tree
from ..parallel import Checkpoint, Placement
from ._fit import End, Ready, advance, by_rows, conclude, fit_once, make_ready, search, unused
from ._lean import attempt
from ._problem import Choices, Problem
from ._program import compiled, made_once
from ._solution import Solution
from ._solver._trust_region import AbstractTrustSolver, TrustState

_STEPS = 7  # of the solver between two looks at who is done
_LANES = 128
_CHUNKS = 16
_ALIGNED = 64  # bytes
_ELEMENTS = 1 << 21  # numbers in the Jacobians of one chunk, or in one call, at most


class Search(NamedTuple):
    """How far each member is: all that a resumed batch needs."""

    y: np.ndarray
    state: PyTree
    steps: np.ndarray

    def over(self, max_steps: int) -> np.ndarray:
        """True for members that need no further round."""
        return self.state.done | self.state.failed | (self.steps >= max_steps)


class Ended(NamedTuple):
    """How the searches of all members ended; `num_steps` counts evaluations, `lin` is the Linearisation at y."""

    y: np.ndarray
    done: np.ndarray
    failed: np.ndarray
    stalled: np.ndarray
    num_steps: np.ndarray
    lin: PyTree
    decrement: np.ndarray


class Job(NamedTuple):
    """Members of one structure and length, and how to fit them.

    `lanes`: a Problem whose arrays have a leading axis, of members. A call takes a slab of `chunks` chunks of `width`
    lanes; slabs are taken in turn by the devices of the `placement`.
    """

    lanes: Problem
    choices: Choices
    width: int
    chunks: int
    placement: Placement

    @property
    def size(self) -> int:
        """How many members there are."""
        return len(self.lanes.terms.prior_mean)

    def only(self, members: np.ndarray) -> "Job":
        """The same of some of its members; themselves where these are all."""
        if len(members) == self.size:
            return self
        return self._replace(lanes=jtu.tree_map(lambda x: np.asarray(x)[members], self.lanes))

    def blank(self) -> Search:
        """A search that has not begun."""
        count, plan = self.size, self.choices.plan
        shapes = jax.eval_shape(lambda lane: _start(lane, self.choices)[1], _shapes(self.lanes))
        state = jtu.tree_map(lambda s: np.zeros((count, *s.shape), s.dtype), shapes)
        return Search(np.zeros((count, len(plan.names)), plan.dtype), state, np.zeros(count, int))

    def run(self, report: Callable[[int], None], checkpoint: Checkpoint | None, name: str) -> Solution:
        """Fit all members; a stacked Solution of NumPy arrays.

        The search is kept in the `checkpoint`, under this `name`, after each round.
        """
        everyone, max_steps = np.arange(self.size), self.choices.max_steps
        if not isinstance(self.choices.solver, AbstractTrustSolver):
            return self.collect(everyone, (self.lanes,), each_lane(_whole), max_steps, report=report)
        if self.width == 1 and checkpoint is None:
            return self._one_by_one(everyone, report)
        search = self.blank() if checkpoint is None else checkpoint.state(name, self.blank())
        y, state, steps = search
        pending = everyone[~search.over(max_steps)]
        report(len(everyone) - len(pending))
        while len(pending):
            fresh = steps == 0
            new_y, new_state, taken = self.collect(pending, (self.lanes, y, state, fresh), each_lane(_advance), _STEPS)
            y[pending] = new_y
            jtu.tree_map(lambda old, new: old.__setitem__(pending, new), state, new_state)  # noqa: B023
            steps[pending] += taken
            state.failed[pending] |= taken == 0  # optimistix takes no step from a start that is not a number
            over = search.over(max_steps)
            if checkpoint is not None:
                checkpoint.keep(name, search)
            report(int(np.sum(over[pending])))
            pending = pending[~over[pending]]
        decrement = np.where(state.exact, state.decrement, np.inf)
        done = state.done & (steps <= max_steps)
        ended = Ended(y, done, state.failed, state.stalled, np.minimum(steps, max_steps), state.lin, decrement)
        return self.collect(everyone, (self.lanes, ended), each_lane(_conclude), 0)

    def _one_by_one(self, members: np.ndarray, report: Callable[[int], None]) -> Solution:
        """Without rounds, a call for each: a lane alone waits for nobody, and the call is that of `fit`."""
        attempts = []
        for k, i in enumerate(members):
            lane = self.placement.put(k, jtu.tree_map(lambda x: np.asarray(x[i]), self.lanes))  # noqa: B023
            attempts.append(attempt(fit_once, (lane, self.choices), mend=by_rows))
        answers = []
        for each in attempts:
            answers.append(each.finished()[0])
            report(1)
        parts = [jtu.tree_map(np.asarray, answer) for answer in answers]
        return jtu.tree_map(lambda *x: np.stack(x), *parts)

    def collect(
        self, members: np.ndarray, trees: Any, program: Any, steps: int, common: Any = (), report: Any = None
    ) -> Any:
        """Run a program over these members, slab after slab; all slabs are under way before the first is read.

        **Arguments:** `trees`: arrays that lead with all members. `program`: of lanes of those trees, then `common`,
        which is the same for all lanes, and `Choices` with `steps` for their max_steps; see `each_lane`.
        """
        size, choices = self.width * self.chunks, self.choices._replace(max_steps=steps)
        slabs = [members[at : at + size] for at in range(0, len(members), size)]
        waiting = []
        for k, slab in enumerate(slabs):
            where = self._gather(trees, slab), np.asarray(-(-len(slab) // self.width))
            lanes, count = self.placement.put(k, where)
            waiting.append(compiled(in_chunks(program), (lanes, common, count, choices)))
        parts = []
        for slab, answer in zip(slabs, waiting, strict=True):
            flat = jtu.tree_map(lambda x: np.asarray(x).reshape(x.shape[0] * x.shape[1], *x.shape[2:]), answer)
            parts.append(jtu.tree_map(lambda x: x[: len(slab)], flat))  # noqa: B023
            if report is not None:
                report(len(slab))
        return jtu.tree_map(lambda *x: np.concatenate(x), *parts)

    def _gather(self, trees: Tree, slab: np.ndarray) -> Any:
        """Arrays of shape (chunks, width, ...); the last chunk in use is filled up, those after it hold anything."""
        used = np.concatenate([slab, np.full(-len(slab) % self.width, slab[0])])
        neighbours = len(slab) == self.chunks * self.width and slab[-1] - slab[0] == len(slab) - 1

        def fill(x: np.ndarray) -> np.ndarray:
            if neighbours:  # nothing to copy: members rise
                return x[slab[0] : slab[-1] + 1].reshape(self.chunks, self.width, *x.shape[1:])
            out = aligned((self.chunks * self.width, *x.shape[1:]), x.dtype)
            np.take(x, used, axis=0, out=out[: len(used)])
            return out.reshape(self.chunks, self.width, *x.shape[1:])

        return jtu.tree_map(fill, trees)


def aligned(shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    """An array that begins where JAX on the CPU wants its own to begin: it then takes it as it is, without a copy."""
    size = math.prod(shape) * np.dtype(dtype).itemsize
    room = np.empty(size + _ALIGNED, np.uint8)
    first = -room.ctypes.data % _ALIGNED
    return room[first : first + size].view(dtype).reshape(shape)


def lane_count(length: int, p: int, batch_size: int | str) -> int:
    """Lanes of one chunk for members of this shape, so that its Jacobians stay in the cache's reach."""
    if batch_size != "auto":
        return int(batch_size)
    fitting = _ELEMENTS // max(length * (p + 1), 1)
    return max(1, min(_LANES, 1 << max(fitting.bit_length() - 1, 0)))


def chunk_count(length: int, p: int, width: int) -> int:
    """Chunks of one call: a call has a price, but what it carries is held in memory."""
    return max(1, min(_CHUNKS, _ELEMENTS // max(length * (p + 1) * width, 1)))


@made_once
def each_lane(program: Callable[..., Any]) -> Callable[..., Any]:
    """The program of one member, called with its trees and with choices that are static, as one of lanes."""

    def run(lanes: tuple[Tree, ...], common: Tree, choices: Hashable) -> Any:
        return _over_lanes(lambda *lane: program(lane, choices))(*lanes)

    return run


@made_once
def in_chunks(program: Callable[..., Any]) -> Callable[..., Any]:
    """A program of lanes, for those of the first `count` chunks, one chunk after the other.

    **Arguments:** `program`: (lanes, common, choices) -> a tree, such as `each_lane` makes.

    **Returns:** a program of (varying, common, count, choices); the arrays of `varying` lead with (chunks, lanes).
    """

    def run(varying: Tree, common: Tree, count: AnyArray, choices: Hashable) -> Any:
        lanes = jax.jit(lambda *lanes: program(lanes, common, choices))  # traced once, used twice

        def chunk(i: Array) -> Any:
            return lanes(*jtu.tree_map(lambda x: lax.dynamic_index_in_dim(x, i, keepdims=False), varying))

        def step(carry: tuple[Array, Tree]) -> Any:
            i, out = carry
            put = functools.partial(lax.dynamic_update_index_in_dim, index=i, axis=0)
            return i + 1, jtu.tree_map(put, out, chunk(i))

        total = jtu.tree_leaves(varying)[0].shape[0]
        shapes = jax.eval_shape(chunk, jnp.zeros((), count.dtype))
        blank = jtu.tree_map(lambda s: jnp.zeros((total, *s.shape), s.dtype), shapes)
        return lax.while_loop(lambda carry: carry[0] < count, step, (jnp.zeros_like(count), blank))[1]

    return run


def _over_lanes(fn: Callable[..., Any]) -> Callable[..., Any]:
    """`jax.vmap`, save for a lane alone: as a batch of one it would take twice as long to compile."""

    def over(*lanes: Tree) -> Any:
        if jtu.tree_leaves(lanes)[0].shape[0] > 1:
            return jax.vmap(fn)(*lanes)
        alone = fn(*jtu.tree_map(lambda x: x[0], lanes))
        return jtu.tree_map(lambda x: jnp.asarray(x)[None], alone)

    return over


def _start(lane: Problem, choices: Choices) -> tuple[Ready, Any]:
    ready = make_ready(lane, choices)
    options = {**ready.bounds, "linearise": ready.objective}
    solver: Any = choices.solver
    return ready, solver.init(unused, ready.y0, None, options, None, None, frozenset())


class Lane(NamedTuple):
    """A member between two rounds: its problem, where its search is, and whether that has not begun yet."""

    problem: Problem
    y: AnyArray
    state: TrustState
    fresh: AnyArray


def _advance(lane: tuple[Tree, ...], choices: Choices) -> tuple[Array, TrustState, Array]:
    problem, y, state, fresh = Lane(*lane)
    ready, start = _start(problem, choices)
    state = jtu.tree_map(lambda a, b: jnp.where(fresh, a, b), start, state)
    solver: Any = choices.solver
    answer = advance(ready, solver, jnp.where(fresh, ready.y0, y), state, choices.max_steps)
    return answer.value, answer.state, answer.stats["num_steps"]


def _conclude(lane: tuple[Problem, Ended], choices: Choices) -> Solution:
    problem, ended = lane
    result = optx.RESULTS.where(ended.done, optx.RESULTS.successful, optx.RESULTS.nonlinear_max_steps_reached)
    result = optx.RESULTS.where(ended.failed, optx.RESULTS.nonfinite, result)
    end = End(ended.y, result, ended.num_steps, ended.stalled, ended.lin, ended.decrement)
    return conclude(make_ready(problem, choices), choices, end)


def _whole(lane: tuple[Problem], choices: Choices) -> Solution:
    ready = make_ready(lane[0], choices)
    return conclude(ready, choices, search(ready, choices))


def _shapes(lanes: Problem) -> Any:
    return jtu.tree_map(lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), lanes)


def progress_bar(
    progress: bool | Callable[[int, int], None] | None, total: int, doing: str = "fitting"
) -> Iterator[Callable[[int], None]]:
    """A function that counts finished members, onto a rich bar or into the caller's own function."""
    done = 0

    def count(more: int) -> None:
        nonlocal done
        done += more
        if callable(progress):
            progress(done, total)

    if progress is not True or jax.process_index() > 0:  # one bar for all processes
        yield count
        return
    from rich.progress import Progress  # here, because a library call rarely shows a bar

    with Progress(transient=True) as bar:
        task = bar.add_task(doing, total=total)

        def show(more: int) -> None:
            bar.update(task, advance=more)

        yield show
