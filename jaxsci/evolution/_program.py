"""The compiled program of an evolution: all particles through all times of a leg, whole, in chunks, or on devices.

What is kept of an ensemble are sums over its particles, which are added up over chunks and over devices, and what each
particle has for itself, which is put together. `evolve` and the runs that keep their progress on disk call `program`;
its arrays are filled up to sizes that other ensembles have too.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.tree_util as jtu
from jax import lax
from jax.sharding import PartitionSpec
from jaxtyping import Array, Float, Int, UInt

from ..core import Module, Tree
from ._ensemble import Draw, Ensemble
from ._filled import Filled, State, are_meant, filled, of_each, with_each
from ._randomness import normals
from ._scan import checkpointed_scan
from ._sde import SDE, Field
from ._steppers import AbstractStepper, Step
from ._summary import AbstractSummary

STRIDE = 64
"""Random numbers that a particle may use in a step."""

_AXIS = "particles"


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


def program(leg: Leg, crowd: Filled, plan: Plan) -> Deposits:
    """All particles through all times of a leg, those that fill a size up with them."""
    if plan.mesh is not None:
        return _on_mesh(leg, crowd, plan, plan.mesh)
    return _here(leg, crowd, plan, _same)


def _same(tree: Tree) -> Tree:
    return tree


def _everywhere(tree: Tree) -> Tree:
    """The sum over the devices of a mesh."""
    return lax.psum(tree, _AXIS)


def _here(leg: Leg, crowd: Filled, plan: Plan, total: Callable[[Tree], Tree]) -> Deposits:
    """The particles of one device, whose number is a multiple of a chunk."""
    ensemble, last = crowd.ensemble, crowd.last
    if isinstance(ensemble, Draw):
        return _drawn(leg, crowd, plan, jnp.zeros((), jnp.uint32))
    if plan.chunk is None or plan.chunk >= crowd.size:
        return _through_time(leg, ensemble, last, plan, total)
    cut = jtu.tree_map(lambda x: x.reshape(-1, plan.chunk, *x.shape[1:]), of_each(ensemble))
    firsts = ensemble.first + jnp.arange(crowd.size // plan.chunk, dtype=jnp.uint32) * jnp.uint32(plan.chunk)

    def part(given: tuple[State, Array]) -> Ensemble:
        return eqx.tree_at(lambda e: e.first, with_each(ensemble, given[0]), given[1])

    return numbered(_summed(leg, part, (cut, firsts), last, plan, True), ensemble.first)


def _drawn(leg: Leg, crowd: Filled, plan: Plan, first: UInt[Array, ""]) -> Deposits:
    """Particles that are drawn a chunk at a time."""
    draw, last = crowd.ensemble, crowd.last
    assert isinstance(draw, Draw)
    size = plan.chunk or draw.n
    firsts = first + jnp.arange(draw.n // size, dtype=jnp.uint32) * jnp.uint32(size)
    return _summed(leg, lambda first: draw.part(first, size, last), firsts, last, plan, False)


def _summed(
    leg: Leg, part: Callable[[Tree], Ensemble], xs: Tree, last: UInt[Array, ""], plan: Plan, keep: bool
) -> Deposits:
    """Chunk after chunk, each through all times: sums are added up, what is each particle's own is put together."""

    def one(x: Tree) -> Halves:
        return halves(leg, _through_time(leg, part(x), last, plan, _same), keep)

    def add(sums: Tree, x: Tree) -> tuple[Tree, Tree]:
        found = one(x)
        return jtu.tree_map(jnp.add, sums, found.sums), found.own

    shapes = eqx.filter_eval_shape(lambda xs: one(jtu.tree_map(lambda x: x[0], xs)).sums, xs)
    sums, own = lax.scan(add, jtu.tree_map(lambda s: jnp.zeros(s.shape, s.dtype), shapes), xs)
    return whole(Halves(sums, joined(own)))


class Halves(NamedTuple):
    """A `Deposits` in two: what is a sum over particles, and what has an axis of them."""

    sums: Deposits
    own: Deposits


def halves(leg: Leg, found: Deposits, keep: bool) -> Halves:
    """Deposits in two; without the particles unless they are to be kept."""
    own = {name: found.saved[name] for name, summary in leg.save.items() if summary.per_particle}
    sums = {name: found.saved[name] for name in leg.save if name not in own}
    ensemble = found.ensemble if keep else None
    return Halves(
        Deposits(sums, None, found.exits, found.outside, found.lost), Deposits(own, ensemble, None, None, None)
    )


def whole(halves: Halves) -> Deposits:
    """The two put together."""
    sums, own = halves
    return Deposits({**sums.saved, **own.saved}, own.ensemble, sums.exits, sums.outside, sums.lost)


def joined(own: Deposits) -> Deposits:
    """Chunks, on the leading axis, put together along the particles."""
    saved = jtu.tree_map(
        lambda y: jnp.moveaxis(y, 0, 1).reshape(y.shape[1], y.shape[0] * y.shape[2], *y.shape[3:]), own.saved
    )
    if own.ensemble is None:
        return Deposits(saved, None, None, None, None)
    each = jtu.tree_map(lambda x: x.reshape(-1, *x.shape[2:]), of_each(own.ensemble))
    shared = jtu.tree_map(lambda x: x[0], own.ensemble)
    return Deposits(saved, with_each(shared, each), None, None, None)


def first_of(found: Deposits, n: int, own: frozenset[str]) -> Deposits:
    """Without the particles that only filled up; `own`: names of what is kept of each particle."""
    saved = {
        name: jtu.tree_map(lambda y: y[:, :n], tree) if name in own else tree for name, tree in found.saved.items()
    }
    ensemble = found.ensemble
    if ensemble is not None:
        ensemble = with_each(ensemble, jtu.tree_map(lambda x: x[:n], of_each(ensemble)))
    return found._replace(saved=saved, ensemble=ensemble)


def numbered(found: Deposits, first: UInt[Array, ""]) -> Deposits:
    """With another number for the first particle."""
    return found._replace(ensemble=eqx.tree_at(lambda e: e.first, found.ensemble, first))


def _on_mesh(leg: Leg, crowd: Filled, plan: Plan, mesh: jax.sharding.Mesh) -> Deposits:
    """Each device has equally many of the particles; what the devices tell each other are sums."""
    flat = jax.sharding.Mesh(mesh.devices.reshape(-1), (_AXIS,))
    count = flat.size
    everyone, split = PartitionSpec(), PartitionSpec(_AXIS)
    chunk = min(plan.chunk or crowd.size, -(-crowd.size // count))
    share = -(-crowd.size // (count * chunk)) * chunk
    plan = plan._replace(mesh=None, chunk=None if plan.chunk is None else chunk)

    def run(arrays: Leg, moving: Filled) -> tuple[Deposits, Deposits]:
        leg, crowd = eqx.combine(arrays, fixed), eqx.combine(moving, still)
        mine, place = crowd.ensemble, lax.axis_index(_AXIS).astype(jnp.uint32) * jnp.uint32(share)
        if isinstance(mine, Draw):
            found = _drawn(leg, Filled(Draw(mine.start, share, mine.key), crowd.last), plan, place)
        else:
            here = eqx.tree_at(lambda e: e.first, mine, mine.first + place)
            found = numbered(_here(leg, Filled(here, crowd.last), plan, _everywhere), mine.first)
        two = halves(leg, found, isinstance(mine, Ensemble))
        return _everywhere(two.sums), two.own

    arrays, fixed = eqx.partition(leg, eqx.is_array)  # what is no array belongs to the program
    ensemble = crowd.ensemble
    if isinstance(ensemble, Ensemble):
        ensemble = filled(ensemble, share * count)
    moving, still = eqx.partition(Filled(ensemble, crowd.last), eqx.is_array)
    spread: Tree = jtu.tree_map(lambda x: everyone, moving)
    ends: Tree = None
    if isinstance(ensemble, Ensemble):
        ends = with_each(spread.ensemble, jtu.tree_map(lambda x: split, of_each(moving.ensemble)))
        spread = eqx.tree_at(lambda crowd: crowd.ensemble, spread, ends)
    own: Any = Deposits(PartitionSpec(None, _AXIS), ends, None, None, None)  # type: ignore[arg-type]
    # the loops within begin with zeros, which are the same everywhere until something is added
    sums, each = jax.shard_map(run, mesh=flat, in_specs=(everyone, spread), out_specs=(everyone, own), check_vma=False)(
        arrays, moving
    )
    return whole(Halves(sums, each))


class Tick(NamedTuple):
    """One step of the loop: when it begins, how long it is, and how many steps were taken before."""

    t: Array
    dt: Array
    taken: Array


def _through_time(
    leg: Leg, ensemble: Ensemble, last: UInt[Array, ""], plan: Plan, total: Callable[[Tree], Tree]
) -> Deposits:
    """Some particles through all times of a leg, in one scan."""
    d, dtype = ensemble.positions.shape[1], ensemble.positions.dtype
    domain, key = leg.sde.domain, ensemble.key
    meant = are_meant(ensemble.ids, last)
    ids = jnp.where(meant, ensemble.ids, last)
    assert key is not None  # the door asks for one
    draws = jnp.arange(leg.sde.channels(d, dtype), dtype=jnp.uint32)[:, None]

    def advance(state: State, tick: Tick) -> tuple[State, Array]:
        x, weights, travelled = state
        # a computation of their own: in one loop with a drift that looks things up they would not be vectorised, and
        # take three times as long. XLA does not know that all steps are longer than nothing. Particles are on the last
        # axis, because a short one there is not vectorised either
        z = lax.cond(
            tick.dt > 0,
            lambda: normals(key, ids, tick.taken * jnp.uint32(STRIDE) + draws, dtype, plan.rounds),
            lambda: jnp.zeros((draws.shape[0], ids.shape[0]), dtype),
        ).T
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
    state = of_each(ensemble)
    outside = jnp.sum(domain.outside(state.positions) & (state.weights > 0))
    state, (found, exits) = checkpointed_scan(unit, state, ticks, units)
    saved = jtu.tree_map(lambda y, last: jnp.concatenate([y, last[None]]), found, look(state))
    lost = jnp.sum(~jnp.isfinite(state.positions).all(axis=1) & meant)
    ended = with_each(ensemble, state)
    ended = eqx.tree_at(lambda e: e.taken, ended, ensemble.taken + jnp.uint32(steps))
    return Deposits(saved, ended, exits.reshape(steps, -1), outside, lost)
