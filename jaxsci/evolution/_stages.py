"""An evolution in stages, between which it can be watched and kept on disk: chunks of particles, or stretches of time.

Each stage is a run of the compiled program, and the same one. What the stages leave is put together as within a
program, so that a result does not depend on whether it was watched. `evolve` comes here where a checkpoint or a display
of the progress is asked for.
"""

import contextlib
import os
from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax.numpy as jnp
import jax.tree_util as jtu
import numpy as np

from ..core import closed
from ..fitting import compiled, progress_bar
from ..parallel import Checkpoint
from ._ensemble import Draw, Ensemble
from ._filled import Filled, of_each, with_each
from ._program import Deposits, Halves, Leg, Plan, halves, joined, numbered, program, whole

_STRETCHES = 16
"""Stretches of time between which a run stops for a moment; more, where their number has few divisors."""


class Watch(NamedTuple):
    """Who follows a run.

    - `checkpoint`: a file that keeps its progress. `progress`: True for a bar, or a function of (done, in all).
    """

    checkpoint: str | os.PathLike[str] | None
    progress: bool | Callable[[int, int], None] | None

    @property
    def anyone(self) -> bool:
        """True where a run should stop between stages."""
        return self.checkpoint is not None or (self.progress is not None and self.progress is not False)


def in_stages(leg: Leg, crowd: Filled, plan: Plan, watch: Watch) -> Deposits:
    """The same as `program`, stage after stage."""
    kept = None
    if watch.checkpoint is not None:
        equations = (closed(leg.sde), leg.stepper)
        settings = (closed(leg.save), leg.ts, tuple(map(str, plan)))
        belongs = {"equations": equations, "particles": closed(crowd), "times or settings": settings}
        kept = Checkpoint(watch.checkpoint, belongs)
    chunks = plan.chunk is not None
    total = crowd.size // plan.chunk if plan.chunk is not None else leg.ts.shape[0] - 1
    with (
        contextlib.contextmanager(progress_bar)(watch.progress, total, "evolving") as report,
        kept or contextlib.nullcontext(),
    ):
        run = _in_chunks if chunks else _in_stretches
        return run(leg, crowd, plan, Log(kept, report))


class Log(NamedTuple):
    """Where stages are kept, if anywhere, and who is told that one is done, by how much more that is."""

    kept: Checkpoint | None
    report: Callable[[int], None]

    def stage(self, name: str, leg: Leg, crowd: Filled, plan: Plan, keep: bool = True) -> Deposits:
        """What a stage leaves, out of the file if it was done before; `keep`: the particles at its end too."""
        if self.kept is not None and name in self.kept.states:
            blank = eqx.filter_eval_shape(_stage, leg, crowd, plan, keep)
            like = jtu.tree_map(lambda s: np.broadcast_to(np.zeros((), s.dtype), s.shape), blank)
            return jtu.tree_map(jnp.asarray, self.kept.state(name, like))
        found = compiled(_stage, (leg, crowd), (plan, keep))
        if self.kept is not None:
            self.kept.keep(name, found)
        return found


def _stage(leg: Leg, crowd: Filled, plan: Plan, keep: bool) -> Deposits:
    found = program(leg, crowd, plan)
    return found if keep else found._replace(ensemble=None)


def _in_stretches(leg: Leg, crowd: Filled, plan: Plan, log: Log) -> Deposits:
    steps = leg.ts.shape[0] - 1
    units = steps // plan.every
    size = max(b for b in range(1, units + 1) if units % b == 0 and b <= max(1, units // _STRETCHES)) * plan.every
    found: list[Deposits] = []
    for k in range(0, steps, size):
        stretch = eqx.tree_at(lambda leg: leg.ts, leg, leg.ts[k : k + size + 1])
        found.append(log.stage(str(k), stretch, crowd, plan))
        crowd = eqx.tree_at(lambda crowd: crowd.ensemble, crowd, found[-1].ensemble)
        log.report(size)
    saved = jtu.tree_map(
        lambda *ys: jnp.concatenate([*(y[:-1] for y in ys[:-1]), ys[-1]]), *(part.saved for part in found)
    )
    exits = jtu.tree_map(lambda *each: jnp.concatenate(each), *(part.exits for part in found))
    return Deposits(saved, found[-1].ensemble, exits, found[0].outside, found[-1].lost)


def _in_chunks(leg: Leg, crowd: Filled, plan: Plan, log: Log) -> Deposits:
    ensemble, last, size = crowd.ensemble, crowd.last, plan.chunk or crowd.size
    keep = isinstance(ensemble, Ensemble)
    sums: Any = None
    own: list[Deposits] = []
    for first in range(0, crowd.size, size):
        at = jnp.asarray(first, jnp.uint32)
        if isinstance(ensemble, Draw):
            part = ensemble.part(at, size, last)
        else:
            cut = jtu.tree_map(lambda x, at=first: x[at : at + size], of_each(ensemble))
            part = eqx.tree_at(lambda e: e.first, with_each(ensemble, cut), ensemble.first + at)
        found = log.stage(str(first), leg, Filled(part, last), plan._replace(chunk=None), keep)
        two = halves(leg, found, keep)
        sums = two.sums if sums is None else jtu.tree_map(jnp.add, sums, two.sums)
        own.append(two.own)
        log.report(1)
    found = whole(Halves(sums, joined(jtu.tree_map(lambda *xs: jnp.stack(xs), *own))))
    return numbered(found, ensemble.first) if isinstance(ensemble, Ensemble) else found
