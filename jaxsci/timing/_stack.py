"""Pulsars of one kind side by side: models and TOAs whose arrays have a leading axis of pulsars.

Models are widened to one layout, in which each place has one of PINT's names; TOAs are padded with rows that do not
count. What a pulsar lacks stays fixed, and changes no number of its own. `timing.stack` gives them to `jax.vmap`, and
`timing.fit_array` fits them in buckets.
"""

import dataclasses
import itertools
import re
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import equinox as eqx
import jax.tree_util as jtu
import numpy as np
from jaxtyping import Array

from ..core import Module, as_array, element_names, leaf_values, parameters, split_rows
from ..datasets import pad
from ._anchor import AnchoredTOAs, at_reference, lay_out, tie
from ._components import TimingNoise, listed
from ._fit import check_phase, chosen, fixed_phase
from ._model import NOISE, Element, Origin, TimingModel, elements
from ._par_out import of_pint
from ._toas import TOAs

_LISTS = ("spin.F", "dispersion.DM", "dmx.DMX", "fd.FD", "jump.JUMP")
_GROUPS = ("EFAC", "EQUAD", "ECORR")
_LAST_DIGITS = re.compile(r"\d*$")


class Stack(NamedTuple):
    """What `timing.stack` gives: `models`, a `TimingModel`, and `toas`, anchored, of arrays with a leading axis."""

    models: TimingModel
    toas: AnchoredTOAs


class Member(NamedTuple):
    """A pulsar on its way into a batch: its place there, and what its fit frees (PINT's names, names of elements)."""

    place: int
    model: TimingModel
    toas: TOAs
    data: AnchoredTOAs
    order: np.ndarray
    names: tuple[str, ...]
    free: tuple[str, ...]

    @property
    def psr(self) -> str:
        """What to call it in a message."""
        assert self.model.par is not None
        return self.model.par.word("PSR", f"pulsar {self.place}")

    @property
    def lists(self) -> dict[str, tuple[str, ...]]:
        """PINT's names of the elements of each list that pulsars of one kind may have of any length."""
        assert self.model.par is not None
        return {leaf: listed(self.model.par, leaf.split(".")[-1]) for leaf in _LISTS}

    @property
    def sizes(self) -> dict[str, int]:
        """Lengths of all else that may differ between pulsars of one kind."""
        noise: Any = self.data.noise
        found = {name: getattr(noise, name).shape[0] for name in (*_GROUPS, "jitter")}
        return found | {"modes": noise.frequency.shape[0], "rows": self.data.mask.shape[0]}


class Layout(NamedTuple):
    """What all members of a stack fit into: PINT's names along each list of the model, lengths of all else.

    `flags`: the names that any of them frees.
    """

    lists: dict[str, tuple[str, ...]]
    sizes: dict[str, int]
    flags: tuple[str, ...]

    def slots(self, member: Member, leaf: str) -> np.ndarray:
        """Where the elements of a member's list are."""
        at = {name: k for k, name in enumerate(self.lists[leaf])}
        return np.array([at[name] for name in member.lists[leaf]], int)


def stack(models: Sequence[TimingModel], toas: Sequence[TOAs]) -> Stack:
    """Make pulsars of one kind one model and one set of TOAs with a leading axis of pulsars, for `jax.vmap`.

    Within `jax.vmap` each is a pulsar like any other: `timing.fit` (with `throw=False`), `timing.chi2`,
    `timing.log_likelihood` take it, under `jax.jit` and `jax.grad` too:

    ```python
    models, toas = timing.stack(models, toas)
    f0 = jax.jit(jax.vmap(lambda model, toas: timing.fit(model, toas, throw=False).values["F0"]))(models, toas)
    ```

    Windows, JUMPs, FD, derivatives of F and DM, groups and modes of noise, and TOAs may be of any number: each pulsar
    has places for those of all, by PINT's names. What it lacks is held at 0 and changes no number of its own; among
    its fitted values it is `nan`.

    **Arguments:** `models`, `toas`: one of each for every pulsar. A `TimingModel` keeps its offsets.

    **Returns:** `(models, toas)`, a named tuple of a `TimingModel` and of anchored TOAs, sorted by epoch.

    **Raises:** `ValueError` for pulsars of different kinds (other orbits, say), naming what differs: `fit_array` takes
    any; for TOAs that make no sense, and when there are not as many as models.
    """
    if len(models) != len(toas):
        raise ValueError(f"there are {len(models)} timing models but {len(toas)} sets of TOAs")
    if not models:
        raise ValueError("there is nothing to stack: the list of timing models is empty")
    members = [member_of(k, model, toa) for k, (model, toa) in enumerate(zip(models, toas, strict=True))]
    first, *others = members
    for member in members:
        check_phase(member.model, ())
    for other in others:
        differing = _differing(first, other)
        if differing:
            raise ValueError(
                f"{other.psr} cannot be stacked with {first.psr}, which is of another kind: they differ in "
                f"{', '.join(differing)}. Stack pulsars of one kind, or give all of them to timing.fit_array"
            )
    return jtu.tree_map(as_array, side_by_side(members))


def member_of(place: int, model: TimingModel, toas: TOAs, free: Sequence[str] | None = None) -> Member:
    """A pulsar with its TOAs laid out, not yet anchored; `free`: those that it does not have are no error."""
    if free is not None:
        have = {pint for _, pint in elements(model)}
        free = tuple(name for name in free if name in have)
    names, places = chosen(model, free)
    data, order = lay_out(model, toas)
    return Member(place, model, toas, data, order, names, places)


def side_by_side(members: Sequence[Member]) -> Stack:
    """Members of one kind in one layout, as NumPy arrays with a leading axis."""
    layout = lay(members)
    # on the host: on the device each length would compile its own padding
    wide = [widen(member, layout) for member in members]
    return Stack(*jtu.tree_map(lambda *x: np.stack(x), *wide))


def lay(members: Sequence[Member]) -> Layout:
    """The layout that all of them fit into."""
    lists = {leaf: _merged(member.lists[leaf] for member in members) for leaf in _LISTS}
    sizes = {name: max(member.sizes[name] for member in members) for name in members[0].sizes}
    return Layout(lists, sizes, tuple(dict.fromkeys(name for member in members for name in member.names)))


def _merged(names: Iterable[tuple[str, ...]]) -> tuple[str, ...]:
    """All names in rising order of their numbers: DM, DM1, ...; DMX_0001, DMX_0002, ..."""

    def key(name: str) -> tuple[int, str]:
        found = _LAST_DIGITS.search(name)
        return int(found[0] or 0) if found else 0, name

    return tuple(sorted(set(itertools.chain.from_iterable(names)), key=key))


def kind(member: Member) -> dict[str, Any]:
    """What members that share a layout have in common, by what to call it in a message."""
    model, data = member.model, member.data
    noise: Any = data.noise
    components = [field.name for field in dataclasses.fields(model) if field.name not in ("par", "origin")]
    # what cannot be padded must agree: classes, static fields, shapes
    found = {name: _form(getattr(model, name), _lists_of(name)) for name in components}
    found |= {f"noise.{name}": _form(getattr(noise, name), ("basis",)) for name in ("dm", "chromatic", "wind")}
    found |= {f"noise.{name}": _form(getattr(noise, name)) for name in ("DMEFAC", "DMEQUAD")}
    lists = {leaf.split(".")[-1] for leaf in _LISTS}
    masks = (data.dm_jumps, data.fd_jumps)
    windows = (data.window, data.cm_window)
    return found | {
        "PHOFF": fixed_phase(model),
        "windows that overlap": tuple(None if index is None else index.shape[1] for index in windows),
        "names of parameters": tuple(pair for pair in elements(model) if pair[0].split("[")[0] not in lists),
        "PLANET_SHAPIRO": data.planets is None,
        "measured dispersion": (data.wideband, tuple(None if mask is None else mask.shape[1] for mask in masks)),
    }


def _lists_of(component: str) -> tuple[str, ...]:
    """Fields of a component that may have any length."""
    leaves = [leaf.split(".") for leaf in _LISTS]
    return tuple(f"{leaf}{end}" for owner, leaf in leaves if owner == component for end in ("", "_ref"))


def _form(part: Module | tuple[Module, ...] | Array | None, any_length: Sequence[str] = ()) -> Any:
    """The structure and the shapes of a component, but for the first axis of fields of any length."""
    leaves, structure = jtu.tree_flatten_with_path(part)
    anyone = {(jtu.GetAttrKey(name),) for name in any_length}
    return structure, tuple(leaf.shape[1:] if path[-1:] in anyone else leaf.shape for path, leaf in leaves)


def _differing(one: Member, other: Member) -> list[str]:
    """What keeps two members from sharing a layout, in words."""
    mine, theirs = kind(one), kind(other)
    found = []
    for name in (name for name in mine if mine[name] != theirs[name]):
        parts = [getattr(member.model, name, None) for member in (one, other)]
        first, second = (_called(part) for part in parts)
        found.append(f"{name} ({first}, {second})" if first != second else name)
    return found


def _called(part: Module | tuple[Module, ...] | None) -> str:
    """The class of a component, or of all in a field that holds several."""
    parts = part if isinstance(part, tuple) else () if part is None else (part,)
    return " and ".join(type(each).__name__ for each in parts) or "none"


def _at(tree: Module, name: str) -> Any:
    found: Any = tree
    for part in name.split("."):
        found = getattr(found, part)
    return found


def widen(member: Member, layout: Layout) -> Stack:
    """The member's model and data in the shapes of a layout, anchored."""
    sizes, data = layout.sizes, member.data
    model = dataclasses.replace(member.model, par=None)
    for leaf in _LISTS:
        for field in (leaf, f"{leaf}_ref"):
            spread = _spread(_at(model, field), layout.slots(member, leaf), len(layout.lists[leaf]))
            model = eqx.tree_at(lambda m: _at(m, field), model, spread)  # noqa: B023
    noise: Any = data.noise
    modes = sizes["modes"] - noise.frequency.shape[0]
    noise = dataclasses.replace(
        noise,
        basis=np.pad(np.asarray(noise.basis), ((0, 0), (0, modes))),
        # a mode that is not there has a basis of zeros; its frequency must only be one that has a power
        frequency=_longer(noise.frequency, sizes["modes"], 1 / float(noise.span)),
        jitter=_longer(noise.jitter, sizes["jitter"]),
        **{name: _longer(getattr(noise, name), sizes[name]) for name in _GROUPS},
    )
    jumps: Any = _spread(data.jumps.T, layout.slots(member, "jump.JUMP"), len(layout.lists["jump.JUMP"])).T
    # windows are renumbered by where the layout has them
    window: Any = np.concatenate([[0], 1 + layout.slots(member, "dmx.DMX")])[np.asarray(data.window)]
    data = dataclasses.replace(data, noise=noise, jumps=as_array(jumps), window=window)
    data = tie(member.model, member.toas, _padded(data, sizes["rows"]), at_reference(model), member.order)
    return Stack(dataclasses.replace(model, origin=_origin(member, layout, noise)), data)


def _spread(array: np.ndarray | Array, slots: np.ndarray, length: int) -> np.ndarray:
    """Rows in their slots among so many, the others 0."""
    array = np.asarray(array)
    out = np.zeros((length, *array.shape[1:]), array.dtype)
    out[slots] = array
    return out


def _longer(array: np.ndarray | Array, length: int, value: float = 0.0) -> np.ndarray:
    return np.pad(np.asarray(array), (0, length - array.shape[0]), constant_values=value)


def _padded(data: AnchoredTOAs, length: int) -> AnchoredTOAs:
    """`jaxsci.pad` on the host: on the device it would be compiled for the length of each pulsar."""
    rows, others = split_rows(data)
    return pad(eqx.combine(jtu.tree_map(np.asarray, rows), others), length)


def _origin(member: Member, layout: Layout, wide: TimingNoise) -> Origin:
    """The names of a layout, and a member's values of what they name; `wide` is its noise in that layout."""
    par = member.model.par
    assert par is not None
    known = [Element(*pair) for pair in elements(member.model)]
    own: dict[str, list[Element]] = {}
    for element in known:
        own.setdefault(element.place.split("[")[0], []).append(element)
    for leaf, names in layout.lists.items():
        stem = leaf.split(".")[-1]
        own[stem] = [Element(f"{stem}[{k}]", name) for k, name in enumerate(names)]
    places = [element for leaf in parameters(member.model) for element in own.get(leaf, ())]
    values = {name: float(par.value(name)) for _, name in known}
    noise: Any = member.data.noise
    red = noise.frequency.shape[0] > 0
    there = {leaf: value for leaf, value in leaf_values(noise) if red or not leaf.startswith("TNRED")}
    for leaf, value in leaf_values(wide):
        spots = element_names(f"{NOISE}{leaf}", value.shape)
        places += [Element(spot, of_pint(spot)) for spot in spots]
        values |= dict(zip(map(of_pint, spots), np.ravel(there.get(leaf, ())).tolist(), strict=False))
    return Origin(
        values=as_array(np.array([values.get(name, np.nan) for _, name in places])),
        flagged=as_array(np.array([name in member.names for _, name in places], bool)),
        elements=tuple(places),
        flags=layout.flags,
        fixed_phase=fixed_phase(member.model),
    )
