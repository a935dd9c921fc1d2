"""Arrays of pulsars: all of them in one call, through a few compiled programs.

Pulsars of one kind share a program: they are stacked, as `timing.stack` does it, each held to what it frees itself.
Padding costs work and a program more costs seconds of compilation, and so each kind is cut by length into at most three
buckets. Researchers call `fit_array`, and so do runs.
"""

import functools
import itertools
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np

from ..core import element_names, leaf_values, require_kind
from ..fitting import Solver, as_names, fit_batch
from ._anchor import AnchoredTOAs, warn_of_idle
from ._fit import SOLVER, TimingSolution, bare, check_phase, offset_of
from ._model import TimingModel, elements, limits, refuse_others
from ._stack import Member, kind, member_of, side_by_side
from ._toas import TOAs

_BUCKETS = 3
_SLACK = 1.6  # of padded work: a program fewer saves seconds of compilation


def fit_array(
    models: Sequence[TimingModel],
    toas: Sequence[TOAs],
    free: Sequence[str] | None = None,
    *,
    solver: Solver = SOLVER,
    max_steps: int = 200,
    scale_covariance: bool = False,
) -> list[TimingSolution]:
    """Fit many pulsars, each by itself, in few compiled programs: at most three for each kind of orbit.

    **Arguments:**

    - `models`, `toas`: one of each for every pulsar, of any kinds and lengths.
    - `free`: PINT's names; those that some pulsars do not have are no error. `None` for each par file's flags.
    - `solver`, `max_steps`: as in `jaxsci.fit_batch`. `scale_covariance`: as in `timing.fit`.

    **Returns:** a `TimingSolution` for each; look at `.success`. None can make the others fail.

    **Raises:** `ValueError` for TOAs that make no sense, for a name that no pulsar has, and when there are not as many
    as models.
    """
    for name, given, what in (("models", models, "TimingModel"), ("toas", toas, "TOAs")):
        require_kind(given, (list, tuple), name, f"a list of {what}, one for each pulsar")
    if len(models) != len(toas):
        raise ValueError(f"there are {len(models)} timing models but {len(toas)} sets of TOAs")
    if free is not None:  # what one pulsar lacks is no error, what all of them lack is
        refuse_others(as_names(free), {name: None for model in models for _, name in elements(model)})
    members = [_member(k, model, toa, free) for k, (model, toa) in enumerate(zip(models, toas, strict=True))]
    for member in members:
        check_phase(member.model, member.names)
    run = functools.partial(_fit_bucket, solver=solver, max_steps=max_steps, scale_covariance=scale_covariance)
    with ThreadPoolExecutor(os.cpu_count()) as pool:  # XLA compiles outside of Python's lock
        found = dict(itertools.chain.from_iterable(pool.map(run, buckets(members))))
    return [found[k] for k in range(len(members))]


def _member(place: int, model: TimingModel, toas: TOAs, free: Sequence[str] | None) -> Member:
    member = member_of(place, model, toas, free)
    warn_of_idle(model, member.data, member.names)
    return member


def buckets(members: Sequence[Member]) -> list[list[Member]]:
    """Members that share a program: of one kind, cut by length into at most three, at the least padding."""
    kinds: dict[Any, list[Member]] = {}
    for member in members:
        kinds.setdefault(tuple(kind(member).values()), []).append(member)
    return [bucket for alike in kinds.values() for bucket in _cut(sorted(alike, key=lambda m: len(m.toas)))]


def _cut(members: list[Member]) -> list[list[Member]]:
    count = len(members)

    def parts(cuts: tuple[int, ...]) -> list[list[Member]]:
        return [members[a:b] for a, b in itertools.pairwise((0, *cuts, count))]

    def work(cuts: tuple[int, ...]) -> int:
        return sum(
            len(part) * len(part[-1].toas) * max(len(m.names) + m.sizes["modes"] for m in part) ** 2
            for part in parts(cuts)
        )

    fewest = [
        min(itertools.combinations(range(1, count), k), key=work, default=()) for k in range(min(_BUCKETS, count))
    ]
    least = min(map(work, fewest))
    return parts(next(cuts for cuts in fewest if work(cuts) <= _SLACK * least))


class Laid(NamedTuple):
    """A bucket as `fit_batch` takes it: stacked models and data, free names, bounds that fix what a member lacks.

    `places`: the element that each of PINT's names is.
    """

    models: TimingModel
    data: AnchoredTOAs
    free: tuple[str, ...]
    bounds: dict[str, tuple[np.ndarray, np.ndarray]]
    places: dict[str, str]

    def fit(self, solver: Solver, max_steps: int, scale_covariance: bool = False) -> Any:
        """The batch, one lane at a time: a pulsar fills a core."""
        return fit_batch(
            self.models,
            self.data,
            free=self.free,
            bounds=self.bounds,
            solver=solver,
            max_steps=max_steps,
            batch_size=1,
            scale_covariance=scale_covariance,
        )


def lay_bucket(members: Sequence[Member]) -> Laid:
    """Members of one bucket, stacked, each held to what it frees."""
    models, data = side_by_side(members)
    assert models.origin is not None
    leaves = tuple(dict.fromkeys(name.split("[")[0] for m in members for name in (*m.free, *offset_of(m.model))))
    known, ranges = dict(leaf_values(models)), limits(models)
    bounds = {}
    for leaf in leaves:
        value = np.asarray(known[leaf])
        free = np.reshape(models.origin.frees(element_names(leaf, value.shape[1:])), value.shape)
        low, high = ranges.get(leaf, (-np.inf, np.inf))
        # equal bounds fix an element, so that members that free different ones share a program
        bounds[leaf] = np.where(free, low, value), np.where(free, high, value)
    return Laid(bare(models), data, leaves, bounds, {name: place for place, name in models.origin.elements})


def _fit_bucket(
    members: list[Member], *, solver: Solver, max_steps: int, scale_covariance: bool
) -> list[tuple[int, TimingSolution]]:
    laid = lay_bucket(members)
    batch = laid.fit(solver, max_steps, scale_covariance)
    places = {name: k for k, name in enumerate(batch.groups[0].names)}
    return [
        (m.place, TimingSolution(batch[k], m.model, m.names, tuple(places[laid.places[name]] for name in m.names)))
        for k, m in enumerate(members)
    ]
