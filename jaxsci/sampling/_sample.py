"""sample(), the one door from a fit to its posterior, for one fit, a batch, or a batch with parameters in common.

The Solution says where chains start, how they are whitened, and on which bounds, priors, loss and likelihood: none of
these is said twice. Members whose posterior is no distribution are refused by name. `_lanes` does the work.
"""

import contextlib
import functools
import os
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import jax.tree_util as jtu
import numpy as np
from jaxtyping import Array, Int, UInt32

from ..core import Module, Tree, as_count, as_real, class_name, closed, is_traced, require_key
from ..datasets import blocks
from ..fitting import BatchSolution, Solution, check_same_rows, compiled, progress_bar
from ..parallel import Checkpoint, Placement, require_memory
from ._batch import BatchPosterior, Group, nothing_drawn
from ._joint import Fits, of_members, pose_jointly
from ._kernel import Settings, Trace, numpyro_hmc
from ._lanes import Begun, Run, Shape
from ._pose import Kind, check_data, first_of, kind_of, members_of, pose, refusals

_KEYS = 256  # of members at a time

Answer: TypeAlias = Module
"""What `fit`, `fit_batch`, or a science's own fit answered."""

if TYPE_CHECKING:
    Key: TypeAlias = Array
else:
    Key = object  # something else is named at the door, with the remedy
"""A key of JAX's random numbers."""


class FitAndData(NamedTuple):
    """What is sampled: what `fit` or `fit_batch` answered, and the data as it saw them."""

    solution: Solution | BatchSolution
    data: Any


@functools.singledispatch
def fit_of(solution: object, data: object) -> FitAndData:
    """The fit within an answer of a science, and its data as that fit saw them: what `sample` samples.

    A science whose answers wrap a Solution registers them here, with names that its users know.

    **Raises:** `ValueError` for anything else.
    """
    raise ValueError(
        f"solution should be what jaxsci.fit or jaxsci.fit_batch answered, but it is a {type(solution).__name__}"
    )


@fit_of.register(Solution)
@fit_of.register(BatchSolution)
def _(solution: Solution | BatchSolution, data: object) -> FitAndData:
    return FitAndData(solution, data)


class _Options(NamedTuple):
    """What `sample` was told beside the fits and their data."""

    key: UInt32[np.ndarray, "2"]
    num_warmup: int
    num_samples: int
    num_chains: int
    target_accept: float
    max_tree_depth: int
    jitter: float

    def check(self) -> None:
        """Raise `ValueError` for numbers that no sampler can use."""
        for name, least in (("num_warmup", 0), ("num_samples", 1), ("num_chains", 1), ("max_tree_depth", 1)):
            as_count(getattr(self, name), name, least)
        if not 0 < as_real(self.target_accept, "target_accept") < 1:
            raise ValueError(f"target_accept should lie between 0 and 1, but it is {self.target_accept}")
        if not as_real(self.jitter, "jitter") >= 0:
            raise ValueError(f"jitter should be 0 or more standard errors, but it is {self.jitter}")

    def settings(self, shape: Shape) -> Settings:
        """What is part of the program for members of this shape."""
        return Settings(self.num_warmup, self.target_accept, self.max_tree_depth, shape.segment)

    def keys(self, members: np.ndarray) -> np.ndarray:
        """uint32[members, chains, 2]: functions of the member's place in the batch and of the chain's number."""
        parts = [members[at : at + _KEYS] for at in range(0, len(members), _KEYS)]
        padded = (np.pad(part, (0, _KEYS - len(part))) for part in parts)  # so that one program serves all batches
        each = [np.asarray(compiled(_fold, (self.key, part), (self.num_chains,), once=True)) for part in padded]
        return np.concatenate([keys[: len(part)] for keys, part in zip(each, parts, strict=True)])


def _fold(seed: UInt32[Array, "2"], members: Int[Array, " b"], chains: int) -> UInt32[Array, "b chains 2"]:
    key = jax.random.wrap_key_data(seed, impl="threefry2x32")

    def chain(member: Array, k: Array) -> Array:
        return jax.random.key_data(jax.random.fold_in(jax.random.fold_in(key, member), k))

    return jax.vmap(jax.vmap(chain, (None, 0)), (0, None))(members, jnp.arange(chains))


def sample(
    solution: Answer,
    data: Tree,
    *,
    key: Key,
    num_warmup: int = 500,
    num_samples: int = 1000,
    num_chains: int = 4,
    target_accept: float = 0.8,
    max_tree_depth: int = 6,
    jitter: float = 1.0,
    mesh: jax.sharding.Mesh | None = None,
    progress: bool | Callable[[int, int], None] | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
    resume: bool = True,
) -> Any:
    """Sample the posterior of a fit, or of many, by the No-U-Turn sampler, started and whitened by the least squares.

    Bounds, priors, loss and likelihood are those of the fit: the Solution keeps them. Priors are flat where the fit had
    none. Where the noise has no scale (`noise=None`, or `scale_covariance=True`) its scale is integrated, flat in its
    logarithm. Fixed parameters stay fixed.

    **Arguments:**

    - `solution`: what `jaxsci.fit`, `jaxsci.fit_batch` or `jaxsci.timing.fit` answered.
    - `data`: the data set that was fitted; for a batch the data sets, in any form that `fit_batch` takes.
    - `key`: `jax.random.key(seed)`. A member's draws are a function of it, of its place in the batch and of itself.
    - `num_warmup`: draws that adapt step size and mass matrix, and are dropped. `num_samples`: draws kept of each
      chain. `num_chains`: chains of each member.
    - `target_accept`: acceptance to adapt to; nearer to 1 for smaller steps and fewer divergences.
    - `max_tree_depth`: a draw takes at most 2^depth - 1 leapfrog steps. Whitened posteriors need some seven.
    - `jitter`: how many standard errors from the fit's answer chains start; 0 starts all at the answer, moved inside by
      a hundredth of its error where it lies on a bound.
    - `mesh`: devices that take the members in turn, such as `jaxsci.mesh()`; `None` for the default device. Bits do
      not depend on them.
    - `progress`: True for a bar with the time left, or a function of (draws done, draws in all), over all chains.
    - `checkpoint`: a file that keeps the chains in progress, for a run that was killed or stopped to go on from, with
      the same bits; each of several processes has one. `resume`: False starts over, whatever the file says.

    **Returns:** a `Posterior`; a `BatchPosterior` for a batch.

    **Raises:** `ValueError` for a fit whose posterior cannot be sampled (in a batch see `.refused`), for data that are
    not those of the fit, and for a checkpoint of another run; `MemoryError` for more draws than there is room for;
    `ImportError` without numpyro.
    """
    options = _Options(_seed(key), num_warmup, num_samples, num_chains, target_accept, max_tree_depth, jitter)
    options.check()
    numpyro_hmc()
    answer, seen = fit_of(solution, data)
    parts = list(_parts_of_batch(answer, seen)) if isinstance(answer, BatchSolution) else [_part_of_one(answer, seen)]
    _check_room(parts, options)
    joint = isinstance(answer, BatchSolution) and answer.shared is not None
    if joint and mesh is not None:
        raise ValueError(
            "parameters in common make one joint posterior, whose chains are on one device: leave mesh= out"
        )
    placement = Placement.of(mesh)
    kept = None
    if checkpoint is not None:
        fits, seen_by = [(part.members, part.start) for part in parts], [part.data for part in parts]
        belongs = {"fits": fits, "data": seen_by, "settings": options, "processes": placement.dealing}
        kept = Checkpoint(placement.file(checkpoint), belongs, resume)
    count = 1 if joint else sum(len(part.members) for part in parts)
    total = count * num_chains * (num_warmup + num_samples)
    bar = contextlib.contextmanager(progress_bar)(progress, total, "sampling")
    with bar as report, kept or contextlib.nullcontext():
        if isinstance(answer, BatchSolution) and answer.shared is not None:
            drawn = _draw_jointly(answer, parts, options, report, kept)
        else:
            drawn = [_draw(part, options, placement, report, kept, str(k)) for k, part in enumerate(parts)]
    groups = tuple(one.group for one in drawn)
    refused = {int(m): why for one in drawn for m, why in zip(one.group.members, one.refused, strict=True) if why}
    if isinstance(answer, BatchSolution):
        return BatchPosterior(groups, len(answer), dict(sorted(refused.items())), dict(answer.errors))
    if refused:
        raise ValueError(f"the posterior of {class_name(answer.model)} cannot be sampled: {refused[0]}")
    return BatchPosterior(groups, 1, {}, {})[0]


class _Part(NamedTuple):
    """Members of one structure and shape whose same parameters move: places in the batch, fits, data, rows of each."""

    members: np.ndarray
    start: Solution
    data: Any
    rows: int


def _check_room(parts: list[_Part], options: _Options) -> None:
    """Raise `MemoryError` where the draws of all members do not fit into memory."""
    lanes = [(len(part.members), part.start.y.shape[-1]) for part in parts]
    kept = options.num_chains * options.num_samples
    # each draw is kept with five numbers about it; a checkpoint and the answer hold them once more
    size = 2 * 8 * kept * sum(count * (p + 5) for count, p in lanes)
    members = sum(count for count, _ in lanes)
    what = f"keeping {options.num_chains} chains of {options.num_samples} draws of {members} members"
    require_memory(size, what, "take fewer draws or chains, or sample the batch in parts")


class _Drawn(NamedTuple):
    """The chains of a part, and of each of its members why there are none; empty where there are."""

    group: Group
    refused: list[str]


def _seed(key: Key) -> UInt32[np.ndarray, "2"]:
    """Two words of any key of JAX, so that what follows does not depend on its kind."""
    require_key(key)
    if is_traced(key):
        raise ValueError("sample draws chains from the host, so it cannot be called within jax.jit, vmap or grad")
    return np.asarray(jax.random.bits(key, (2,), jnp.uint32))


def _part_of_one(solution: Solution, data: Any) -> _Part:
    check_data(data)
    if solution.y.ndim != 1:
        raise ValueError(
            f"this Solution holds a batch of shape {solution.y.shape[:-1]}, as jax.vmap makes them: sample one member, "
            "jax.tree.map(lambda x: x[i], solution), or what fit_batch answers"
        )
    check_same_rows(solution, data)
    stacked = jtu.tree_map(lambda x: np.asarray(x)[None], (solution, closed(data)))
    return _Part(np.zeros(1, int), stacked[0], stacked[1], int(data.mask.shape[0]))


def _parts_of_batch(solution: BatchSolution, data: Any) -> Iterator[_Part]:
    """The members by length, by structure, and by what moves."""
    seen = 0
    for block in blocks(None, data):
        seen += len(block.members)
        for group, places in zip(solution.groups, solution.members, strict=True):
            common, here, there = np.intersect1d(block.members, places, return_indices=True)
            if not len(common):
                continue
            fixed = np.asarray(group.fixed)[there]
            for pattern in np.unique(fixed, axis=0):
                own = np.all(fixed == pattern, axis=1)
                yield _Part(common[own], members_of(group, there[own]), members_of(block.data, here[own]), block.length)
    if seen != len(solution):
        raise ValueError(f"there are {len(solution)} fits but {seen} data sets: give those that were fitted, in order")


class _Tried(NamedTuple):
    """What came of some members: `first` and `trace` of their chains, NaN where there are none, and why there are.

    `cost`, `finite`: as the density was where their chains start; arrays of NumPy that lead with the members.
    """

    first: np.ndarray
    trace: Trace
    cost: np.ndarray
    finite: np.ndarray


def _draw(
    part: _Part,
    options: _Options,
    placement: Placement,
    report: Callable[[int], None],
    checkpoint: Checkpoint | None,
    name: str,
) -> _Drawn:
    """The chains of all members of a part, and why those that have none were refused."""
    kind = kind_of(part.start, first_of(part.data), np.asarray(part.start.fixed)[0])
    said = refusals(part.start, kind.free_scale)
    each = options.num_chains * (options.num_warmup + options.num_samples)
    first, trace = nothing_drawn(len(said), options.num_chains, options.num_samples, part.start.y)
    fine = np.flatnonzero([not why for why in said])
    if len(fine):
        size = Shape.of(part.rows, len(kind.moving)).members(options.num_chains)

        def attempt(some: np.ndarray) -> _Tried:
            return _try(_run(part, fine[some], kind, options, placement), part, fine[some], report, checkpoint, name)

        tried = placement.in_shares(len(fine), size, attempt)
        report((len(fine) - len(placement.share(len(fine), size))) * each)  # those of other processes
        for k, why in zip(fine, _complaints(members_of(part.start, fine), tried), strict=True):
            said[k] = why
        jtu.tree_map(lambda out, x: out.__setitem__(fine, x), (first, trace), (tried.first, tried.trace))
    report((len(said) - len(fine)) * each)
    group = Group(part.members, part.start, part.data, first, trace, options.max_tree_depth, kind.free_scale)
    return _Drawn(group, said)


def _try(
    run: Run, part: _Part, fine: np.ndarray, report: Callable[[int], None], checkpoint: Checkpoint | None, name: str
) -> _Tried:
    """The chains of these members of a part, but of those whose density is no good where they start."""
    begun, chains = run.begun(), run.keys.shape[1]
    first, trace = nothing_drawn(len(fine), chains, run.draws, part.start.y)
    finite = np.all(np.asarray(begun.finite).reshape(-1, chains), axis=1)
    tried = _Tried(first, trace, np.asarray(begun.cost)[::chains], finite)
    good = np.array([not why for why in _complaints(members_of(part.start, fine), tried)])
    if good.any():
        if not good.all():
            lanes = np.repeat(good, chains)
            run = run._replace(posed=members_of(run.posed, good), keys=run.keys[good])
            begun = jtu.tree_map(lambda x: x[lanes], begun)
        drawn = run.run(begun, report, checkpoint, name)
        jtu.tree_map(lambda out, x: out.__setitem__(good, x), (first, trace), tuple(drawn))
    report(int(np.sum(~good)) * chains * run.total)
    return tried


def _draw_jointly(
    solution: BatchSolution,
    parts: list[_Part],
    options: _Options,
    report: Callable[[int], None],
    checkpoint: Checkpoint | None,
) -> list[_Drawn]:
    """The same for members that share parameters: chains of all of them together."""
    kinds = [kind_of(part.start, first_of(part.data), np.asarray(part.start.fixed)[0]) for part in parts]
    said = [refusals(part.start, kinds[0].free_scale) for part in parts]
    blank = functools.partial(nothing_drawn, chains=options.num_chains, draws=options.num_samples)
    rooms = [blank(len(why), like=part.start.y) for part, why in zip(parts, said, strict=True)]
    fine = [np.flatnonzero([not each for each in why]) for why in said]
    used = [k for k, which in enumerate(fine) if len(which)]
    if used:
        groups = [Fits(*members_of((parts[k].start, parts[k].data), fine[k])) for k in used]
        whole = pose_jointly(solution, groups, [kinds[k] for k in used])
        shape = Shape.of(sum(parts[k].rows * len(fine[k]) for k in used), max(len(kinds[k].moving) for k in used))
        posed, keys = jtu.tree_map(lambda x: np.asarray(x)[None], whole), options.keys(np.zeros(1, int))
        run = Run(posed, keys, options.settings(shape), shape, options.num_samples, options.jitter, Placement())
        begun = run.begun()
        _check_joint(groups, begun)
        drawn = run.run(begun, report, checkpoint, "joint")
        both = zip(of_members(groups, drawn.first[0]), of_members(groups, drawn.trace.y[0]), strict=True)
        for k, (first, y) in zip(used, both, strict=True):
            # what is not of a member alone, such as the energy, is that of all of them
            trace = Trace(y, *(np.broadcast_to(x, (len(y), *x.shape[1:])) for x in drawn.trace[1:]))
            jtu.tree_map(lambda out, x, k=k: out.__setitem__(fine[k], x), rooms[k], (first, trace))
    depth, scaled = options.max_tree_depth, kinds[0].free_scale
    made = [
        Group(part.members, part.start, part.data, *room, depth, scaled, joint=True)
        for part, room in zip(parts, rooms, strict=True)
    ]
    return [_Drawn(*each) for each in zip(made, said, strict=True)]


def _check_joint(groups: list[Fits], begun: Begun) -> None:
    """Raise `ValueError` where the data are not those of the fit, or the density is no number."""
    if not begun.finite.all():
        raise ValueError("the joint density of these fits is not a number where its chains start")
    terms = [group.start.terms for group in groups]
    if any(each.shaped or (np.asarray(each.prior_weight) > 0).any() for each in terms):
        return  # priors of shared parameters count in one member's cost or in none, so that costs say nothing
    told, found = sum(float(np.sum(group.start.cost)) for group in groups), float(begun.cost[0])
    count = sum(int(np.sum(group.start.num_data)) for group in groups)
    if abs(found - told) > np.sqrt(np.finfo(begun.cost.dtype).eps) * (abs(told) + count):
        raise ValueError(
            f"these are not the data of these fits: the cost at their answer is {told:.6g} there and {found:.6g} here"
        )


def _run(part: _Part, fine: np.ndarray, kind: Kind, options: _Options, placement: Placement) -> Run:
    start, data = members_of((part.start, part.data), fine)
    shape = Shape.of(part.rows, len(kind.moving))
    keys, settings = options.keys(part.members[fine]), options.settings(shape)
    return Run(pose(start, data, kind), keys, settings, shape, options.num_samples, options.jitter, placement)


def _complaints(start: Solution, tried: _Tried) -> list[str]:
    """What is wrong with members that looked fine before their density was evaluated."""
    told, found = np.asarray(start.cost), tried.cost
    rough = np.sqrt(np.finfo(told.dtype).eps)
    same = np.abs(found - told) <= rough * (np.abs(told) + np.asarray(start.num_data))
    words = "these are not the data of its fit: the cost at its answer is {:.6g} there and {:.6g} here"
    return [
        words.format(a, b) if not s else "" if f else "its density is not a number where its chains start"
        for a, b, s, f in zip(told, found, same, tried.finite, strict=True)
    ]
