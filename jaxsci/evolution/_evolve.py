"""The loop over time: an ensemble in, what is wanted of it at each time and the ensemble at the end out.

`evolve` is one compiled scan over steps. Where the particles do not act on each other it may take them in chunks, each
through all of time, so that memory does not grow with their number; it may spread them over devices; and it may keep
its progress on disk. None of these changes a result, because each particle's random numbers are its own. It can be
called within `jit`, `vmap` and `grad`, and a model that calls it can be fitted.
"""

import os
from collections.abc import Callable, Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.tree_util as jtu
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray, UInt

from ..core import Given, Module, Tree, as_count, describe, is_traced, require_kind, traced, unmasked
from ..fitting import compiled
from ..parallel import Placement, brought_home, laid_out, require_memory
from ._ensemble import Draw, Ensemble, raw_key, start_key
from ._filled import Filled, bucket_of, filled, size_of
from ._program import STRIDE, Leg, Plan, first_of, program
from ._sde import SDE, AbstractInteraction
from ._stages import Watch, in_stages
from ._steppers import AbstractStepper, EulerMaruyama
from ._summary import AbstractSummary, Moments


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
    progress: bool | Callable[[int, int], None] | None = None,
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
    - `mesh`: devices that share the particles, such as `jaxsci.mesh()`; `None` for the default device. What each
      particle does is the same to the bit, unless the drift reads the ensemble; sums differ by roundings.
    - `checkpoint`: a file that keeps the progress of a long run; called again, a run that was stopped goes on from it.
    - `progress`: True for a progress bar, or a function of (done, in all), both in chunks where there are some and in
      steps elsewhere.
    - `rounds`: of Threefry, the random generator: 20, or 13, which pass the same published tests and cost less.

    **Returns:** an `Evolution`.

    **Raises:** `ValueError` for particles that begin outside of the domain or end at nan, for times that do not
    increase, a stepper that is wrong for the noise, a chunk where the drift reads the ensemble, a summary of one's own
    that counts particles without weight, a checkpoint or a display of progress within a JAX transformation. There the
    first two cannot be raised: look at `Evolution.success`.
    """
    require_kind(sde, SDE, "sde", "an SDE(drift, diffusion), before the ensemble")
    require_kind(ensemble, (Ensemble, Draw), "ensemble", "an Ensemble(positions) or a Draw(start, n)")
    stepper = EulerMaruyama() if stepper is None else _checked_stepper(stepper)
    kept = _checked_save({"moments": Moments()} if save is None else save)
    if key is not None:
        ensemble = _started(ensemble, raw_key(key))
    if ensemble.key is None:
        raise ValueError("the ensemble has no key, and two without one would have the same noise: give key=")
    d, dtype = _kind(ensemble)
    times = _checked_times(ts, dtype)
    steps = times.shape[0] - 1
    stride = steps if every is None else as_count(every, "every, the steps between times that are kept,")
    if not (1 <= stride <= steps and steps % stride == 0):
        raise ValueError(f"every={every} does not divide the {steps} steps between the times: choose a divisor")
    sde.form(d, dtype)
    if sde.channels(d, dtype) > STRIDE:
        raise ValueError(f"{sde.channels(d, dtype)} noises a particle are more than the {STRIDE} there are room for")
    if isinstance(ensemble, Draw) or chunk is not None:
        _check_chunk(sde, 1 if chunk is None else chunk)
    if isinstance(ensemble, Draw) or chunk is not None or mesh is not None:
        _check_sums(kept)
    whole = sum(summary.per_particle for summary in kept.values())
    size = whole * (steps // stride + 1) * size_of(ensemble) * d * dtype.itemsize
    what = f"keeping {size_of(ensemble)} particles at {steps // stride + 1} times"
    require_memory(size, what, "give a larger every=, fewer particles, or a summary that is no particle's own")
    if rounds not in (13, 20):
        raise ValueError(f"rounds of the random generator should be 13 or 20, but it is {rounds!r:.60}")
    leg, watch = Leg(sde, stepper, kept, times), Watch(checkpoint, progress)
    within = traced((leg, ensemble))
    _check_watch(watch, mesh, within)
    crowd, chunk = _filled(ensemble, chunk, within)
    x = compiled(_position, (crowd.ensemble,))
    stepper.check(sde, x)
    _check_weights(sde, kept, x)
    plan = Plan(stride, chunk, rounds, mesh)
    several = bool(Placement.of(mesh).dealing) and not within  # processes, each of which has the ensemble
    if mesh is not None and several:
        leg, crowd = laid_out((leg, crowd), mesh, jax.sharding.PartitionSpec())
    found: Any = in_stages(leg, crowd, plan, watch) if watch.anyone else compiled(program, (leg, crowd), (plan,))
    found = brought_home(found) if several else found
    if crowd.size != size_of(ensemble) or mesh is not None:
        own = frozenset(name for name, summary in kept.items() if summary.per_particle)
        found = compiled(first_of, (found,), (size_of(ensemble), own))
    first = 1 if every is None else 0
    evaluated = {
        name: compiled(_evaluate, (summary, jtu.tree_map(lambda y: y[first:], found.saved[name])))
        for name, summary in kept.items()
    }
    done = Evolution(times[::stride][first:], evaluated, found.ensemble, found.exits, found.outside, found.lost)
    if not traced((done.outside, done.lost)):
        _complain(done, ensemble)
    return done


def _filled(ensemble: Ensemble | Draw, chunk: int | None, within: bool) -> tuple[Filled, int | None]:
    """Fill up to a size that a program was made for before, and to whole chunks; the size of a chunk.

    Within a transformation the program is the caller's, who has this number of particles anyway.
    """
    n = size_of(ensemble)
    if chunk is None or chunk >= n:
        size = n if within else bucket_of(n)
        chunk = size if isinstance(ensemble, Draw) else None
    else:
        chunks = -(-n // chunk)
        size = (chunks if within else bucket_of(chunks, 1)) * chunk
    if isinstance(ensemble, Draw):
        return Filled(Draw(ensemble.start, size, ensemble.key), jnp.uint32(n - 1)), chunk
    last = ensemble.first + jnp.uint32(n - 1)
    return Filled(compiled(filled, (ensemble,), (size,)) if size > n else ensemble, last), chunk


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


def _kind(ensemble: Ensemble | Draw) -> tuple[int, jnp.dtype]:
    """Number of axes, and precision."""
    if isinstance(ensemble, Ensemble):
        return ensemble.positions.shape[1], ensemble.positions.dtype
    found = jax.eval_shape(ensemble.start.sample, start_key(ensemble.key), jnp.zeros(1, jnp.uint32))
    return found.shape[1], found.dtype


def _position(ensemble: Ensemble | Draw) -> Float[Array, " d"]:
    """A position such as those of an ensemble."""
    if isinstance(ensemble, Ensemble):
        return ensemble.positions[0]
    return ensemble.start.sample(start_key(ensemble.key), jnp.zeros(1, jnp.uint32))[0]


def _checked_times(ts: Given, dtype: jnp.dtype) -> Float[Array, " steps1"]:
    times = jnp.asarray(unmasked(ts, "ts"), dtype)
    if times.ndim != 1 or times.shape[0] < 2:
        raise ValueError(f"ts should be two times or more, shape (steps + 1,), but it has shape {times.shape}")
    if not is_traced(times) and not bool(np.all(np.diff(np.asarray(times)) > 0)):
        raise ValueError("ts should increase from each time to the next, and be finite")
    return times


def _check_chunk(sde: SDE, chunk: int) -> None:
    as_count(chunk, "chunk, the particles that are taken at a time,")
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


def _check_weights(sde: SDE, save: Mapping[str, AbstractSummary], x: Float[Array, " d"]) -> None:
    """Summaries of a researcher's own should count weights: those that fill a size up have none, nor what was absorbed.

    Those of this package are known to.
    """
    every = {f"save[{name!r}]": summary for name, summary in save.items()}
    if isinstance(sde.drift, AbstractInteraction):
        every["reads of the drift"] = sde.drift.reads
    for name, summary in every.items():
        if type(summary).__module__.partition(".")[0] == "jaxsci" or summary.per_particle or traced((summary, x)):
            continue
        nothing = compiled(_of_nothing, (summary, x))
        if any(bool(np.any(leaf)) for leaf in jtu.tree_leaves(nothing)):
            raise ValueError(
                f"{name}, a {type(summary).__name__}, counts a particle without weight, which is not there: multiply "
                "by weights what deposit() adds up over particles"
            )


def _of_nothing(summary: AbstractSummary, x: Float[Array, " d"]) -> Tree:
    """What a summary deposits of one particle without weight."""
    return summary.deposit(x[None], jnp.zeros(1, x.dtype))


def _check_watch(watch: Watch, mesh: jax.sharding.Mesh | None, within: bool) -> None:
    if watch.anyone and mesh is not None:
        raise ValueError("a run with checkpoint= or progress= is on one device: leave mesh= out")
    if watch.anyone and within:
        raise ValueError(
            "a run within a JAX transformation is part of a larger program, which cannot stop to be kept or shown: "
            "leave checkpoint= and progress= out"
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
