"""Arrays of pulsars: all of them in one call, through a few compiled programs.

Pulsars with the same kind of orbit share a program. Their models are widened to one layout, the surplus
parameters fixed; their TOAs are padded with rows that do not count.
"""

import dataclasses
import functools
import itertools
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import equinox as eqx
import jax.tree_util as jtu
import numpy as np

from ..core._parameter import element_names, leaf_values
from ..core._rows import row_pads
from ..fitting._batch import fit_batch
from ._anchor import AnchoredTOAs, at_reference, lay_out, tie, warn_of_idle
from ._fit import SOLVER, TimingSolution, check_phase, chosen, offset_of
from ._model import TimingModel, elements, limits
from ._toas import TOAs

_BUCKETS = 3
_SLACK = 1.6  # of padded work: a program fewer saves seconds of compilation
_MODEL = ("spin.F", "dispersion.DM", "dmx.DMX", "fd.FD", "jump.JUMP")
_NOISE = ("EFAC", "EQUAD", "ECORR", "jitter")


class Member(NamedTuple):
    """A pulsar on its way into a batch: its place there, and what is free of it."""

    place: int
    model: TimingModel
    toas: TOAs
    data: AnchoredTOAs
    order: np.ndarray
    names: tuple[str, ...]
    free: tuple[str, ...]

    @property
    def sizes(self) -> dict[str, int]:
        """Lengths of all that may differ between pulsars of one kind."""
        noise: Any = self.data.noise
        found = {name: _at(self.model, name).shape[0] for name in _MODEL}
        found |= {name: getattr(noise, name).shape[0] for name in _NOISE}
        return found | {"modes": noise.frequency.shape[0], "rows": self.data.mask.shape[0]}


def fit_array(
    models: Sequence[TimingModel],
    toas: Sequence[TOAs],
    free: Sequence[str] | None = None,
    *,
    solver: Any = SOLVER,
    max_steps: int = 200,
    scale_covariance: bool = False,
) -> list[TimingSolution]:
    """Fit many pulsars, each by itself, in few compiled programs: at most three for each kind of orbit.

    **Arguments:**

    - `models`, `toas`: one of each for every pulsar, of any kinds and lengths.
    - `free`: PINT's names; those that a pulsar does not have are no error here. `None` for each par file's flags.
    - `solver`, `max_steps`: as in `jaxsci.fit_batch`. `scale_covariance`: as in `timing.fit`.

    **Returns:** a `TimingSolution` for each; look at `.success`. None can make the others fail.

    **Raises:** `ValueError` for TOAs that make no sense, and when there are not as many as models.
    """
    if len(models) != len(toas):
        raise ValueError(f"there are {len(models)} timing models but {len(toas)} sets of TOAs")
    members = [_member(k, model, toa, free) for k, (model, toa) in enumerate(zip(models, toas, strict=True))]
    for member in members:
        check_phase(member.model, member.names)
    run = functools.partial(_fit_bucket, solver=solver, max_steps=max_steps, scale_covariance=scale_covariance)
    with ThreadPoolExecutor(os.cpu_count()) as pool:  # XLA compiles outside of Python's lock
        found = dict(itertools.chain.from_iterable(pool.map(run, buckets(members))))
    return [found[k] for k in range(len(members))]


def _member(place: int, model: TimingModel, toas: TOAs, free: Sequence[str] | None) -> Member:
    if free is not None:
        have = {pint for _, pint in elements(model)}
        free = tuple(name for name in free if name in have)
    names, places = chosen(model, free)
    data, order = lay_out(model, toas)
    warn_of_idle(model, data, names)
    return Member(place, model, toas, data, order, names, places)


def buckets(members: Sequence[Member]) -> list[list[Member]]:
    """Members that share a program: of one kind, cut by length into at most three, at the least padding."""
    kinds: dict[Any, list[Member]] = {}
    for member in members:
        kinds.setdefault(_kind(member), []).append(member)
    return [bucket for kind in kinds.values() for bucket in _cut(sorted(kind, key=lambda m: len(m.toas)))]


def _kind(member: Member) -> Any:
    """Members with the same answer can be widened to one layout: the same components, and rare lists of one length."""
    noise: Any = member.data.noise
    rest = (
        dataclasses.replace(member.model, par=None),
        noise.dm,
        noise.chromatic,
        noise.wind,
        noise.DMEFAC,
        noise.DMEQUAD,
    )
    wide = {f".{name}{end}" for name in _MODEL for end in ("", "_ref")}
    leaves, structure = jtu.tree_flatten_with_path(rest)
    shapes = [
        leaf.shape[1:] if str(path[-1]) == ".basis" else leaf.shape
        for path, leaf in leaves
        if jtu.keystr(path[1:]) not in wide
    ]
    masks = (member.data.dm_jumps, member.data.fd_jumps)
    jumps = tuple(None if mask is None else mask.shape[1:] for mask in masks)
    windows = (member.data.window, member.data.cm_window)
    overlaps = tuple(None if index is None else index.shape[1] for index in windows)
    others = (member.data.planets is None, member.data.wideband, jumps, overlaps)
    return structure, tuple(shapes), others


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


def widest(members: Sequence[Member]) -> dict[str, int]:
    """The lengths of the layout that all of them fit into."""
    return {name: max(1, *(m.sizes[name] for m in members)) for name in members[0].sizes}


class Laid(NamedTuple):
    """A bucket as `fit_batch` takes it: stacked models and data, free names, bounds that fix what a member lacks."""

    models: Any
    data: Any
    free: tuple[str, ...]
    bounds: dict[str, Any]

    def fit(self, solver: Any, max_steps: int, scale_covariance: bool = False) -> Any:
        """The batch, one lane at a time: a pulsar fills a core."""
        models, data, free, bounds = self
        choices = {"free": free, "bounds": bounds, "solver": solver, "max_steps": max_steps}
        return fit_batch(models, data, batch_size=1, scale_covariance=scale_covariance, **choices)


def lay_bucket(members: Sequence[Member]) -> Laid:
    """Members of one bucket, widened to one layout."""
    sizes = widest(members)
    wide = [_widen(member, sizes) for member in members]
    models, data = jtu.tree_map(lambda *x: np.stack(x), *wide)
    free = tuple(dict.fromkeys(name.split("[")[0] for m in members for name in (*m.free, "PHOFF")))
    values = [dict(leaf_values(model)) for model, _ in wide]
    return Laid(models, data, free, {leaf: _bounds(leaf, members, values) for leaf in free})


def _fit_bucket(
    members: list[Member], *, solver: Any, max_steps: int, scale_covariance: bool
) -> list[tuple[int, TimingSolution]]:
    batch = lay_bucket(members).fit(solver, max_steps, scale_covariance)
    names = batch.groups[0].names
    return [
        (m.place, TimingSolution(batch[k], m.model, m.names, tuple(names.index(name) for name in m.free)))
        for k, m in enumerate(members)
    ]


def _bounds(leaf: str, members: Sequence[Member], values: list[dict[str, Any]]) -> tuple[np.ndarray, np.ndarray]:
    """Equal bounds for what a member does not free."""
    lower, upper = [], []
    for member, known in zip(members, values, strict=True):
        value = np.asarray(known[leaf])
        free = np.array([name in (*member.free, *offset_of(member.model)) for name in element_names(leaf, value.shape)])
        free = free.reshape(value.shape)
        low, high = limits(member.model).get(leaf, (-np.inf, np.inf))
        lower.append(np.where(free, low, value))
        upper.append(np.where(free, high, value))
    return np.stack(lower), np.stack(upper)


def _at(tree: Any, name: str) -> Any:
    for part in name.split("."):
        tree = getattr(tree, part)
    return tree


def _longer(array: Any, length: int, value: float = 0.0) -> np.ndarray:
    return np.pad(np.asarray(array), (0, length - array.shape[0]), constant_values=value)


def _padded(data: AnchoredTOAs, length: int) -> AnchoredTOAs:
    """`jaxsci.pad` on the host: on the device it would be compiled for the length of each pulsar."""

    def extend(fill: Any, leaf: Any) -> Any:
        if fill is None:
            return leaf
        leaf = np.asarray(leaf)
        more = ((0, length - len(leaf)), *((0, 0),) * (leaf.ndim - 1))
        return np.pad(leaf, more, mode="edge") if fill == "edge" else np.pad(leaf, more, constant_values=fill)

    return jtu.tree_map(extend, row_pads(data), data, is_leaf=lambda fill: fill is None)


def _widen(member: Member, sizes: dict[str, int]) -> tuple[TimingModel, AnchoredTOAs]:
    """The member's model and data in the shapes of its bucket, anchored."""
    model = dataclasses.replace(member.model, par=None)
    for name in _MODEL:
        for field in (name, f"{name}_ref"):
            longer = _longer(_at(model, field), sizes[name])
            model = eqx.tree_at(lambda m: _at(m, field), model, longer)  # noqa: B023
    data = member.data
    noise: Any = data.noise
    more = sizes["jump.JUMP"] - data.jumps.shape[1]
    modes = sizes["modes"] - noise.frequency.shape[0]
    noise = dataclasses.replace(
        noise,
        basis=np.pad(np.asarray(noise.basis), ((0, 0), (0, modes))),
        frequency=_longer(noise.frequency, sizes["modes"], 1 / float(noise.span)),
        **{name: _longer(getattr(noise, name), sizes[name]) for name in _NOISE},
    )
    jumps: Any = np.pad(np.asarray(data.jumps), ((0, 0), (0, more)))
    data = dataclasses.replace(data, noise=noise, jumps=jumps)
    data = _padded(data, sizes["rows"])
    return model, tie(member.model, member.toas, data, at_reference(model), member.order)
