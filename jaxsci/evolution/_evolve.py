"""The loop over time: an ensemble in, what is wanted of it at each time and the ensemble at the end out.

`evolve` is one compiled scan over steps. Where the particles do not act on each other it may take them in chunks, each
through all of time, so that memory does not grow with their number; it may spread them over devices; and it may keep
its progress on disk. None of these changes a result, because each particle's random numbers are its own. It can be
called within `jit`, `vmap` and `grad`, and a model that calls it can be fitted.
"""

import os
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.tree_util as jtu
import numpy as np
from jax import lax
from jax.sharding import PartitionSpec
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray, UInt

from ..core import Given, Module, Tree, closed, describe, is_traced, traced
from ..fitting import compiled
from ..parallel import Checkpoint
from ._ensemble import Draw, Ensemble, raw_key, start_key
from ._randomness import normals
from ._scan import checkpointed_scan
from ._sde import SDE, AbstractInteraction, Field
from ._steppers import AbstractStepper, EulerMaruyama, Step
from ._summary import AbstractSummary, Moments

_STRIDE = 64  # random numbers that a particle may use in a step
_AXIS = "particles"
_PARTS = 16  # stretches of time between which a run is kept on disk


class Evolution(Module):
    """What became of an ensemble.

    - `ts`: (k,), the times at which something was kept. `saved`: by name what was asked for, with a leading axis of
      these times.
    - `ensemble`: the particles at the end, from which another `evolve` goes on; `None` where they were drawn in chunks.
    - `exits`: (steps, walls), the weight that left in each step through each of `domain.walls`.
    - `outside`: how many particles began outside of the domain. `lost`: how many ended at nan or infinity.
    """

    ts: Float[Array, " k"]
    saved: dict[str, Tree]
    ensemble: Ensemble | None
    exits: Float[Array, "steps walls"]
    outside: Int[Array, ""]
    lost: Int[Array, ""]

    @property
    def success(self) -> Bool[Array, "..."]:
        """True where all particles began inside and ended somewhere."""
        return (self.outside == 0) & (self.lost == 0)

    def __getitem__(self, name: str) -> Tree:
        """What was kept under a name."""
        return self.saved[name]


class Plan(NamedTuple):
    """How an evolution runs: part of its program.

    - `every`: steps between two times that are kept. `chunk`: particles at a time; `None` for all.
    - `rounds`: of the generator. `mesh`: the devices.
    """

    every: int
    chunk: int | None
    rounds: int
    mesh: jax.sharding.Mesh | None


class Leg(Module):
    """A part of an evolution: what moves which particles, through which times, and what is kept."""

    sde: SDE
    stepper: AbstractStepper
    save: dict[str, AbstractSummary]
    ts: Float[Array, " steps1"]


class Deposits(NamedTuple):
    """What a leg leaves, before sums are evaluated: `Evolution` with deposits for `saved`."""

    saved: dict[str, Tree]
    ensemble: Ensemble | None
    exits: Float[Array, "steps walls"] | None
    outside: Int[Array, ""] | None
    lost: Int[Array, ""] | None


def evolve(
    sde: SDE,
    ensemble: Ensemble | Draw,
    ts: Given,
    *,
    key: PRNGKeyArray | Given | None = None,
    stepper: object = None,
    save: object = None,
    every: int | None = 1,
    chunk: int | None = None,
    mesh: jax.sharding.Mesh | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
    rounds: int = 20,
) -> Evolution:
    """Carry an ensemble through the given times.

    **Arguments:**

    - `sde`: what moves the particles, and where they may be.
    - `ensemble`: the particles, or a `Draw` of them, of which only a chunk is ever in memory.
    - `ts`: shape (steps + 1,), increasing; from each to the next is one step.
    - `key`: starts a run: a seed or a key, from which all of its random numbers follow. Without one the ensemble goes
      on with the key and the count of steps that it carries.
    - `stepper`: the scheme; `EulerMaruyama()` without one.
    - `save`: by name what is kept of the ensemble at a time; `{"moments": Moments()}` without one.
    - `every`: steps between two times that are kept, the first and the last of all included; `None` keeps the last
      time only.
    - `chunk`: particles that go through all of time together, before the next. Results are the same, memory is that
      of a chunk. Drifts that read the ensemble need all particles at once.
    - `mesh`: devices that share the particles.
    - `checkpoint`: a file that keeps the progress of a long run; called again, a run that was stopped goes on from it.
    - `rounds`: of Threefry, the random generator: 20, or 13, which pass the same published tests and cost less.

    **Returns:** an `Evolution`.

    **Raises:** `ValueError` for particles that begin outside of the domain or end at nan, for times that do not
    increase, a stepper that is wrong for the noise, a chunk where the drift reads the ensemble. Within a JAX
    transformation the first two cannot be raised: look at `Evolution.success`.
    """
    stepper = EulerMaruyama() if stepper is None else _checked_stepper(stepper)
    kept = _checked_save({"moments": Moments()} if save is None else save)
    if key is not None:
        ensemble = _started(ensemble, raw_key(key))
    if ensemble.key is None:
        raise ValueError("the ensemble has no key, and two without one would have the same noise: give key=")
    x = _position(ensemble)
    times = _checked_times(ts, x.dtype)
    steps = times.shape[0] - 1
    stride = steps if every is None else every
    if not (1 <= stride <= steps and steps % stride == 0):
        raise ValueError(f"every={every} does not divide the {steps} steps between the times: choose a divisor")
    d = x.shape[0]
    sde.form(d, x.dtype)
    if sde.channels(d, x.dtype) > _STRIDE:
        raise ValueError(f"{sde.channels(d, x.dtype)} noises a particle are more than the {_STRIDE} there are room for")
    stepper.check(sde, x)
    if isinstance(ensemble, Draw) and chunk is None:
        chunk = ensemble.n
    if chunk is not None:
        _check_chunk(sde, chunk)
    if chunk is not None or mesh is not None:
        _check_sums(kept)
    plan = Plan(stride, chunk, rounds, mesh)
    leg = Leg(sde, stepper, kept, times)
    if checkpoint is None:
        found = compiled(_program, (leg, ensemble), (plan,))
    else:
        found = _in_parts(leg, ensemble, plan, checkpoint)
    first = 1 if every is None else 0
    evaluated = {
        name: compiled(_evaluate, (summary, jtu.tree_map(lambda y: y[first:], found.saved[name])))
        for name, summary in kept.items()
    }
    done = Evolution(times[::stride][first:], evaluated, found.ensemble, found.exits, found.outside, found.lost)
    if not traced((done.outside, done.lost)):
        _complain(done, ensemble)
    return done


def _checked_stepper(stepper: object) -> AbstractStepper:
    if not isinstance(stepper, AbstractStepper):
        remedy = "the class itself: make one" if isinstance(stepper, type) else describe(stepper)
        raise ValueError(f"stepper should be a stepper such as EulerMaruyama() or Heun(), but it is {remedy}")
    return stepper


def _checked_save(save: object) -> dict[str, AbstractSummary]:
    if not isinstance(save, Mapping) or not all(isinstance(each, AbstractSummary) for each in save.values()):
        raise ValueError(
            'save should give summaries names, as in {"moments": Moments(), "density": SpectralKDE(grid)}, but it is '
            f"{describe(save)}"
        )
    return dict(save)


def _started(ensemble: Ensemble | Draw, key: UInt[Array, " 2"]) -> Ensemble | Draw:
    ensemble = eqx.tree_at(lambda e: e.key, ensemble, key, is_leaf=lambda x: x is None)
    if isinstance(ensemble, Ensemble):
        ensemble = eqx.tree_at(lambda e: e.taken, ensemble, jnp.zeros((), jnp.uint32))
    return ensemble


def _position(ensemble: Ensemble | Draw) -> Float[Array, " d"]:
    """A position such as those of an ensemble."""
    if isinstance(ensemble, Ensemble):
        return ensemble.positions[0]
    return ensemble.start.sample(start_key(ensemble.key), jnp.zeros(1, jnp.uint32))[0]


def _checked_times(ts: Given, dtype: jnp.dtype) -> Float[Array, " steps1"]:
    times = jnp.asarray(ts, dtype)
    if times.ndim != 1 or times.shape[0] < 2:
        raise ValueError(f"ts should be two times or more, shape (steps + 1,), but it has shape {times.shape}")
    if not is_traced(times) and not bool(np.all(np.diff(np.asarray(times)) > 0)):
        raise ValueError("ts should increase from each time to the next, and be finite")
    return times


def _check_chunk(sde: SDE, chunk: int) -> None:
    if chunk < 1:
        raise ValueError(f"a chunk has one particle or more, not {chunk}")
    if isinstance(sde.drift, AbstractInteraction):
        raise ValueError(
            "the drift reads the ensemble, so that all particles are needed at once: leave chunk= out, and give an "
            "Ensemble (draw one by start.ensemble(n, key))"
        )


def _check_sums(save: Mapping[str, AbstractSummary]) -> None:
    for name, summary in save.items():
        if summary.whole:
            raise ValueError(
                f"save[{name!r}] looks at all particles twice ({type(summary).__name__}), so that it is no sum over "
                "chunks or devices: give it a bandwidth in numbers, or leave chunk= and mesh= out"
            )


def _complain(done: Evolution, ensemble: Ensemble | Draw) -> None:
    if int(done.outside):
        raise ValueError(
            f"{int(done.outside)} particles begin outside of the domain: make it larger, or begin inside of it"
        )
    if int(done.lost):
        where = ""
        if isinstance(ensemble, Ensemble) and done.ensemble is not None:
            first = int(np.argmin(np.isfinite(np.asarray(done.ensemble.positions)).all(axis=1)))
            where = f", the first of them number {first}, which began at {np.asarray(ensemble.positions)[first]}"
        raise ValueError(
            f"{int(done.lost)} particles end at nan or infinity{where}: see whether drift and diffusion are finite "
            "wherever a step may end (a square root of a negative number is not: evolution.SquareRoot), and whether "
            "the step is too long"
        )


def _evaluate(summary: AbstractSummary, deposits: Tree) -> Tree:
    return jax.vmap(summary.evaluate)(deposits)


class State(NamedTuple):
    """What an ensemble has of each particle: (n, d), (n,), and (n, d) or `None`; arrays, or what stands for them."""

    positions: Tree
    weights: Tree
    travelled: Tree


def _program(leg: Leg, ensemble: Ensemble | Draw, plan: Plan) -> Deposits:
    """All particles through all times of a leg."""
    if plan.mesh is not None:
        return _on_mesh(leg, ensemble, plan, plan.mesh)
    if isinstance(ensemble, Draw):
        return _drawn(leg, ensemble, plan, jnp.zeros((), jnp.uint32), -(-ensemble.n // (plan.chunk or ensemble.n)))
    return _given(leg, ensemble, plan, _same)


def _same(tree: Tree) -> Tree:
    return tree


def _everywhere(tree: Tree) -> Tree:
    """The sum over the devices of a mesh."""
    return lax.psum(tree, _AXIS)


def _given(leg: Leg, ensemble: Ensemble, plan: Plan, total: Callable[[Tree], Tree]) -> Deposits:
    """Particles that are in memory."""
    n = ensemble.positions.shape[0]
    if plan.chunk is None or plan.chunk >= n:
        return _through_time(leg, ensemble, plan, total)
    chunks = -(-n // plan.chunk)
    whole = _padded(ensemble, chunks * plan.chunk)
    cut = jtu.tree_map(lambda x: x.reshape(chunks, -1, *x.shape[1:]), _of_each(whole))
    firsts = ensemble.first + jnp.arange(chunks, dtype=jnp.uint32) * jnp.uint32(plan.chunk)

    def part(given: tuple[State, Array]) -> Ensemble:
        return eqx.tree_at(lambda e: e.first, _with(ensemble, given[0]), given[1])

    found = _summed(leg, part, (cut, firsts), plan, True)
    return _first_of(_numbered(found, ensemble.first), n, leg)


def _drawn(leg: Leg, draw: Draw, plan: Plan, first: UInt[Array, ""], chunks: int) -> Deposits:
    """Particles that are drawn a chunk at a time."""
    size = plan.chunk or draw.n
    firsts = first + jnp.arange(chunks, dtype=jnp.uint32) * jnp.uint32(size)
    return _summed(leg, lambda first: draw.part(first, size), firsts, plan, False)


def _summed(leg: Leg, part: Callable[[Tree], Ensemble], xs: Tree, plan: Plan, keep: bool) -> Deposits:
    """Chunk after chunk, each through all times: sums are added up, what is each particle's own is put together."""

    def one(x: Tree) -> Halves:
        return _halves(leg, _through_time(leg, part(x), plan, _same), keep)

    def add(sums: Tree, x: Tree) -> tuple[Tree, Tree]:
        found = one(x)
        return jtu.tree_map(jnp.add, sums, found.sums), found.own

    shapes = eqx.filter_eval_shape(lambda xs: one(jtu.tree_map(lambda x: x[0], xs)).sums, xs)
    sums, own = lax.scan(add, jtu.tree_map(lambda s: jnp.zeros(s.shape, s.dtype), shapes), xs)
    return _whole(Halves(sums, _joined(own)))


class Halves(NamedTuple):
    """A `Deposits` in two: what is a sum over particles, and what has an axis of them."""

    sums: Deposits
    own: Deposits


def _halves(leg: Leg, found: Deposits, keep: bool) -> Halves:
    own = {name: found.saved[name] for name, summary in leg.save.items() if summary.per_particle}
    sums = {name: found.saved[name] for name in leg.save if name not in own}
    ensemble = found.ensemble if keep else None
    return Halves(
        Deposits(sums, None, found.exits, found.outside, found.lost), Deposits(own, ensemble, None, None, None)
    )


def _whole(halves: Halves) -> Deposits:
    sums, own = halves
    return Deposits({**sums.saved, **own.saved}, own.ensemble, sums.exits, sums.outside, sums.lost)


def _joined(own: Deposits) -> Deposits:
    """Chunks, on the leading axis, put together along the particles."""
    saved = jtu.tree_map(
        lambda y: jnp.moveaxis(y, 0, 1).reshape(y.shape[1], y.shape[0] * y.shape[2], *y.shape[3:]), own.saved
    )
    if own.ensemble is None:
        return Deposits(saved, None, None, None, None)
    each = jtu.tree_map(lambda x: x.reshape(-1, *x.shape[2:]), _of_each(own.ensemble))
    shared = jtu.tree_map(lambda x: x[0], own.ensemble)
    return Deposits(saved, _with(shared, each), None, None, None)


def _of_each(ensemble: Ensemble) -> State:
    """What an ensemble has of each particle."""
    return State(ensemble.positions, ensemble.weights, ensemble.travelled)


def _with(ensemble: Ensemble, each: State) -> Ensemble:
    return eqx.tree_at(_of_each, ensemble, each, is_leaf=lambda x: x is None)


def _padded(ensemble: Ensemble, size: int) -> Ensemble:
    """More particles, without weight, where the first one is."""
    more = size - ensemble.positions.shape[0]
    if not more:
        return ensemble
    positions, weights, travelled = _of_each(ensemble)
    filled = State(
        jnp.concatenate([positions, jnp.broadcast_to(positions[:1], (more, positions.shape[1]))]),
        jnp.concatenate([weights, jnp.zeros(more, weights.dtype)]),
        None
        if travelled is None
        else jnp.concatenate([travelled, jnp.zeros((more, travelled.shape[1]), travelled.dtype)]),
    )
    return _with(ensemble, filled)


def _first_of(found: Deposits, n: int, leg: Leg) -> Deposits:
    """Without the particles that filled up the last chunk."""
    saved = {
        name: jtu.tree_map(lambda y: y[:, :n], tree) if leg.save[name].per_particle else tree
        for name, tree in found.saved.items()
    }
    ensemble = found.ensemble
    if ensemble is not None:
        ensemble = _with(ensemble, jtu.tree_map(lambda x: x[:n], _of_each(ensemble)))
    return Deposits(saved, ensemble, found.exits, found.outside, found.lost)


def _on_mesh(leg: Leg, ensemble: Ensemble | Draw, plan: Plan, mesh: jax.sharding.Mesh) -> Deposits:
    """Each device has equally many of the particles; what the devices tell each other are sums."""
    flat = jax.sharding.Mesh(mesh.devices.reshape(-1), (_AXIS,))
    count = flat.size
    everyone, split = PartitionSpec(), PartitionSpec(_AXIS)
    plan = plan._replace(mesh=None)
    n = ensemble.n if isinstance(ensemble, Draw) else ensemble.positions.shape[0]
    chunk = min(plan.chunk or n, -(-n // count))
    share = -(-n // (count * chunk)) * chunk

    def run(arrays: Leg, moving: Ensemble | Draw) -> tuple[Deposits, Deposits]:
        leg, mine = eqx.combine(arrays, fixed), eqx.combine(moving, still)
        place = lax.axis_index(_AXIS).astype(jnp.uint32) * jnp.uint32(share)
        if isinstance(mine, Draw):
            found = _drawn(leg, mine, plan._replace(chunk=chunk), place, share // chunk)
        else:
            mine = eqx.tree_at(lambda e: e.first, mine, mine.first + place)
            found = _given(leg, mine, plan, _everywhere)
            found = _numbered(found, mine.first - place)
        halves = _halves(leg, found, isinstance(mine, Ensemble))
        return _everywhere(halves.sums), halves.own

    arrays, fixed = eqx.partition(leg, eqx.is_array)  # what is no array belongs to the program
    ensemble = _padded(ensemble, share * count) if isinstance(ensemble, Ensemble) else ensemble
    moving, still = eqx.partition(ensemble, eqx.is_array)
    spread: Tree = jtu.tree_map(lambda x: everyone, moving)
    ends: Tree = None
    if isinstance(ensemble, Ensemble):
        ends = spread = _with(spread, jtu.tree_map(lambda x: split, _of_each(moving)))
    own: Any = Deposits(PartitionSpec(None, _AXIS), ends, None, None, None)  # type: ignore[arg-type]
    # the loops within begin with zeros, which are the same everywhere until something is added
    sums, each = jax.shard_map(run, mesh=flat, in_specs=(everyone, spread), out_specs=(everyone, own), check_vma=False)(
        arrays, moving
    )
    return _first_of(_whole(Halves(sums, each)), n, leg)


def _numbered(found: Deposits, first: UInt[Array, ""]) -> Deposits:
    """With another number for the first particle."""
    return found._replace(ensemble=eqx.tree_at(lambda e: e.first, found.ensemble, first))


class Tick(NamedTuple):
    """One step of the loop: when it begins, how long it is, and how many steps were taken before."""

    t: Array
    dt: Array
    taken: Array


def _through_time(leg: Leg, ensemble: Ensemble, plan: Plan, total: Callable[[Tree], Tree]) -> Deposits:
    """Some particles through all times of a leg, in one scan."""
    d, dtype = ensemble.positions.shape[1], ensemble.positions.dtype
    domain, ids, key = leg.sde.domain, ensemble.ids[:, None], ensemble.key
    assert key is not None  # the door asks for one
    draws = jnp.arange(leg.sde.channels(d, dtype), dtype=jnp.uint32)[None]

    def advance(state: State, tick: Tick) -> tuple[State, Array]:
        x, weights, travelled = state
        # a computation of their own: in one loop with a drift that looks things up they would not be vectorised, and
        # take three times as long. XLA does not know that all steps are longer than nothing
        z = lax.cond(
            tick.dt > 0,
            lambda: normals(key, ids, tick.taken * jnp.uint32(_STRIDE) + draws, dtype, plan.rounds),
            lambda: jnp.zeros((ids.shape[0], draws.shape[1]), dtype),
        )
        field = Field(leg.sde, weights, total)
        after = leg.stepper.step(field, Step(tick.t, tick.dt), x, z)
        variance = field.variance(tick.t, x, tick.dt) if domain.absorbs else None
        settled = domain.settle(x, after, weights, variance)
        travelled = None if travelled is None else travelled + (after - x)
        return State(settled.positions, settled.weights, travelled), settled.exits

    def look(state: State) -> dict[str, Tree]:
        return {name: summary.deposit(state.positions, state.weights) for name, summary in leg.save.items()}

    def unit(state: State, ticks: Tick) -> tuple[State, tuple[dict[str, Tree], Array]]:
        # what is kept is taken before the step: the positions are then read from where the last one left them, and
        # not computed anew, random numbers and all, for each use that is made of them
        found = look(state)
        state, exits = checkpointed_scan(advance, state, ticks, plan.every)
        return state, (found, exits)

    steps = leg.ts.shape[0] - 1
    taken = ensemble.taken + jnp.arange(steps, dtype=jnp.uint32)
    ticks = Tick(leg.ts[:-1], jnp.diff(leg.ts), taken)
    units = steps // plan.every
    ticks = jtu.tree_map(lambda x: x.reshape(units, plan.every), ticks)
    state = _of_each(ensemble)
    outside = jnp.sum(domain.outside(state.positions) & (state.weights > 0))
    state, (found, exits) = checkpointed_scan(unit, state, ticks, units)
    saved = jtu.tree_map(lambda y, last: jnp.concatenate([y, last[None]]), found, look(state))
    lost = jnp.sum(~jnp.isfinite(state.positions).all(axis=1))
    ended = _with(ensemble, state)
    ended = eqx.tree_at(lambda e: e.taken, ended, ensemble.taken + jnp.uint32(steps))
    return Deposits(saved, ended, exits.reshape(steps, -1), outside, lost)


def _in_parts(leg: Leg, ensemble: Ensemble | Draw, plan: Plan, path: str | os.PathLike[str]) -> Deposits:
    """The same in parts, each kept on disk when it is done: chunks of particles, or else stretches of time."""
    if plan.mesh is not None:
        raise ValueError("a run with checkpoint= is on one device: leave mesh= out")
    with Checkpoint(
        path, (closed(leg), closed(ensemble), tuple(map(str, plan))), of="particles, equations or times"
    ) as kept:
        if plan.chunk is None and isinstance(ensemble, Ensemble):
            return _in_stretches(leg, ensemble, plan, kept)
        return _in_chunks(leg, ensemble, plan, kept)


def _resumed(kept: Checkpoint, name: str, blank: Deposits) -> Deposits | None:
    """A part that was done before."""
    if name not in kept.states:
        return None
    like = jtu.tree_map(lambda s: np.broadcast_to(np.zeros((), s.dtype), s.shape), blank)
    return jtu.tree_map(jnp.asarray, kept.state(name, like))


def _in_stretches(leg: Leg, ensemble: Ensemble, plan: Plan, kept: Checkpoint) -> Deposits:
    units = (leg.ts.shape[0] - 1) // plan.every
    size = max(b for b in range(1, units + 1) if units % b == 0 and b <= max(1, units // _PARTS)) * plan.every
    parts: list[Deposits] = []
    for k in range(0, leg.ts.shape[0] - 1, size):
        stretch = eqx.tree_at(lambda leg: leg.ts, leg, leg.ts[k : k + size + 1])
        blank = eqx.filter_eval_shape(_program, stretch, ensemble, plan)
        done = _resumed(kept, str(k), blank)
        if done is None:
            done = compiled(_program, (stretch, ensemble), (plan,))
            kept.keep(str(k), done)
        parts.append(done)
        ensemble = done.ensemble or ensemble
    saved = jtu.tree_map(
        lambda *ys: jnp.concatenate([*(y[:-1] for y in ys[:-1]), ys[-1]]), *(part.saved for part in parts)
    )
    exits = jtu.tree_map(lambda *each: jnp.concatenate(each), *(part.exits for part in parts))
    return Deposits(saved, ensemble, exits, parts[0].outside, parts[-1].lost)


def _in_chunks(leg: Leg, ensemble: Ensemble | Draw, plan: Plan, kept: Checkpoint) -> Deposits:
    keep = isinstance(ensemble, Ensemble)
    n = ensemble.positions.shape[0] if isinstance(ensemble, Ensemble) else ensemble.n
    size = min(plan.chunk or n, n)
    sums: Any = None
    own: list[Deposits] = []
    for first in range(0, n, size):
        part = ensemble.part(jnp.asarray(first, jnp.uint32), size) if isinstance(ensemble, Draw) else None
        if isinstance(ensemble, Ensemble):
            whole = _of_each(_padded(ensemble, -(-n // size) * size))
            cut = jtu.tree_map(lambda x, at=first: x[at : at + size], whole)
            part = eqx.tree_at(lambda e: e.first, _with(ensemble, cut), ensemble.first + jnp.uint32(first))
        blank = eqx.filter_eval_shape(_program, leg, part, plan._replace(chunk=None))
        done = _resumed(kept, str(first), blank)
        if done is None:
            done = compiled(_program, (leg, part), (plan._replace(chunk=None),))
            kept.keep(str(first), done if keep else eqx.tree_at(lambda f: f.ensemble, done, None))
        halves = _halves(leg, done, keep)
        sums = halves.sums if sums is None else jtu.tree_map(jnp.add, sums, halves.sums)
        own.append(halves.own)
    found = _whole(Halves(sums, _joined(jtu.tree_map(lambda *xs: jnp.stack(xs), *own))))
    if isinstance(ensemble, Ensemble):
        found = _numbered(found, ensemble.first)
    return _first_of(found, n, leg)
