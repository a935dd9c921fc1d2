"""What a fit frees, by name: worked out once for each kind of model and choice of names.

A `Plan` holds the order of the free elements in the flat vector that solvers move, with their names, units, and the
bounds and priors that the model declares. It depends on shapes alone and is kept from fit to fit. What
a caller gives by name (bounds, priors, masks) is laid out in that order here.
"""

import dataclasses
import fnmatch
import functools
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import jax.tree_util as jtu
import numpy as np
from jaxtyping import Array, ArrayLike, Float, PyTree

from ..core import (
    AbstractLikelihood,
    AbstractLoss,
    AbstractPrior,
    Model,
    Parameter,
    Tree,
    as_array,
    as_bounds,
    closed,
    element_names,
    free_spec,
    get,
    leaf_names,
    leaf_places,
    match,
    parameters,
    suggest,
    traced,
)
from ._terms import Fitted, ShapedPrior, Terms


class Spec(NamedTuple):
    """What a plan needs to know of a leaf."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]


class Kept(NamedTuple):
    """A parameter of the model that has declared bounds and is not fitted: its name, its place among the leaves."""

    name: str
    at: int
    bounds: tuple[float, float]


@dataclasses.dataclass(frozen=True, eq=False)
class Plan:
    """The free parameters of one kind of model: names, shapes, and their declared bounds and priors.

    `active`: False for elements that keep their value, where `free` names single elements (`"c[0]"`) of an array.
    `kept`: what is not fitted.
    """

    free: tuple[tuple[str, tuple[int, ...]], ...]
    about: tuple[Parameter, ...]
    names: tuple[str, ...]
    units: tuple[str, ...]
    noise: bool
    dtype: Any
    active: np.ndarray | None = None
    kept: tuple[Kept, ...] = ()

    def spec(self, fitted: Fitted) -> PyTree:
        """True at the leaves of `fitted` that are free."""
        return free_spec(fitted, [name for name, _ in self.free])


def make_plan(model: Model, noise: Tree, free: Sequence[str] | None) -> Plan:
    """The plan for a free name or several, globs allowed; `None` frees every parameter of the model.

    **Raises:** `ValueError` for an unknown name, or when nothing is free.
    """
    leaves, structure = jtu.tree_flatten((model, noise))
    if not all(isinstance(leaf, jax.Array) for leaf in leaves):
        leaves, structure = jtu.tree_flatten((closed(model), closed(noise)))
    names = None if free is None else as_names(free)
    return _plan(structure, tuple([Spec(leaf.shape, leaf.dtype) for leaf in leaves]), names, type(model).__name__)


def as_names(names: Sequence[str]) -> tuple[str, ...]:
    """One name or several, as a tuple."""
    return (names,) if isinstance(names, str) else tuple(names)


@functools.lru_cache(maxsize=512)
def _plan(structure: jtu.PyTreeDef, leaves: tuple[Spec, ...], free: tuple[str, ...] | None, owner: str) -> Plan:
    fitted = Fitted(*jtu.tree_unflatten(structure, [jax.ShapeDtypeStruct(*leaf) for leaf in leaves]))
    known = parameters(fitted)
    single: dict[str, str] = {}
    if free is None:
        chosen = list(parameters(Fitted(fitted.model, None)))
    else:
        single = _elements(fitted, known, free)
        whole = match(fitted, [pattern for pattern in free if pattern not in single], owner)
        free = (*(pattern for pattern in free if pattern not in single), *single.values())
        of_noise = [pattern for pattern in free if pattern.startswith("noise.")]
        wanted = match(fitted, of_noise, owner)  # "*" means the model's own
        chosen = [name for name in match(fitted, free, owner) if not name.startswith("noise.") or name in wanted]
    if not chosen:
        raise ValueError(
            f"{owner} has no free parameter: declare its fields with jaxsci.param()"
            if free is None
            else f"nothing is free to fit: choose from {', '.join(known)}"
        )
    named = leaf_names(fitted, chosen)
    names = tuple(element for name, shape in named for element in element_names(name, shape))
    about = tuple(known[name] for name, _ in named)
    units = tuple(a.unit for a, (name, shape) in zip(about, named, strict=True) for _ in element_names(name, shape))
    dtype = jnp.result_type(*(get(fitted, name).dtype for name in chosen))
    active = None
    if single:
        of_whole = [name in whole for name, shape in named for _ in element_names(name, shape)]
        active = np.array([free or name in single for free, name in zip(of_whole, names, strict=True)])
    noise = any(name.startswith("noise.") for name, _ in named)
    if jnp.issubdtype(dtype, jnp.complexfloating):
        complex_ones = [name for name in chosen if jnp.issubdtype(get(fitted, name).dtype, jnp.complexfloating)]
        raise ValueError(
            f"{', '.join(complex_ones)} of {owner} is complex, but a fit is of real numbers: declare its real and "
            "imaginary parts, or its modulus and phase, as parameters of their own"
        )
    places = leaf_places(fitted, [n for n in known if n not in chosen and not n.startswith("noise.")])
    kept = tuple(Kept(n, at, known[n].bounds) for n, at in places.items() if _two_numbers(known[n].bounds))
    return Plan(tuple(named), about, names, units, noise, dtype, active, kept)


def _two_numbers(bounds: tuple[Any, Any]) -> bool:
    """True for bounds that say something, and on the host."""
    return all(isinstance(b, int | float) for b in bounds) and any(map(math.isfinite, bounds))


def _elements(fitted: Fitted, known: Mapping[str, Parameter], patterns: Iterable[str]) -> dict[str, str]:
    """{element: its parameter} of the patterns that name one element of an array, such as `c[0]`."""
    arrays = [(name, shape) for name, shape in leaf_names(fitted, known) if shape]
    of: dict[str, str] = {}
    for pattern in patterns:
        for name, shape in arrays:
            if pattern.startswith(f"{name}[") and pattern in element_names(name, shape):
                of[pattern] = name
    return of


def active_mask(plan: Plan, active: ArrayLike | Sequence[bool] | Sequence[int] | None) -> Array | None:
    """What a caller says of each free element, and what the plan says: False keeps its value, `None` moves all.

    **Raises:** `ValueError` for another shape than one truth value for each free element.
    """
    if active is None:
        return None if plan.active is None else as_array(plan.active)
    if any(isinstance(each, str) for each in active) if isinstance(active, Sequence) else False:
        raise ValueError(f"active is {active!r}, but it takes truth values: name parameters by free=")
    active = jnp.asarray(active)
    if active.shape != (len(plan.names),) or active.dtype != bool:
        raise ValueError(
            f"active should be bool[{len(plan.names)}], one for each of {', '.join(plan.names)}; "
            f"it is {active.dtype}{list(active.shape)}"
        )
    return active if plan.active is None else active & plan.active


def flat_bounds(
    plan: Plan, bounds: Mapping[str, Any] | None, priors: Mapping[str, Any] | None = None
) -> tuple[Array | None, Array | None]:
    """(lower, upper), each of shape (p,) or `None` without any bound; the call's win over the declared ones.

    Where a prior has a support, the bounds are cut to it.

    **Raises:** `ValueError` for an unknown name, a lower bound above the upper, or a wrong shape.
    """
    supports = [p for p in _placed_priors(plan, priors) if type(p.prior).support is not AbstractPrior.support]
    if not bounds and not supports and all(isinstance(b, int | float) for a in plan.about for b in a.bounds):
        return _declared_bounds(plan)
    given, single = _by_name(plan, bounds or {}, "bounds"), _by_element(plan, bounds or {})
    known = not traced((given, single, supports, [a.bounds for a in plan.about]))
    xp: Any = np if known else jnp  # on the device each shape would be a program of its own
    lower: list[Any] = []
    upper: list[Any] = []
    for (name, shape), about in zip(plan.free, plan.about, strict=True):
        low, high = as_bounds(given[name], f"bounds of {name}", about.unit) if name in given else about.bounds
        for side, value in ((lower, low), (upper, high)):
            array = xp.asarray(value, plan.dtype)
            if array.shape not in ((), shape):
                raise ValueError(f"bounds of {name} have shape {array.shape}, but {name} has shape {shape}")
            side.append(xp.ravel(xp.broadcast_to(array, shape)))
    low, high = xp.concatenate(lower), xp.concatenate(upper)
    for at, limits in single.items():
        sides = as_bounds(limits, f"bounds of {plan.names[at]}", plan.units[at])
        if any(jnp.ndim(side) for side in sides):
            raise ValueError(f"bounds of {plan.names[at]} should be two numbers, but they are {limits!r}")
        here = xp.arange(len(low)) == at
        low, high = (xp.where(here, xp.asarray(x, plan.dtype), all) for x, all in zip(sides, (low, high), strict=True))
    if supports:
        floor, ceiling = _support(plan, supports)
        low, high = xp.maximum(low, xp.asarray(floor)), xp.minimum(high, xp.asarray(ceiling))
    if known:
        wrong = [n for n, bad in zip(plan.names, ~(low <= high), strict=True) if bad]
        if wrong:
            cut = "; the support of a prior counts as bounds" if supports else ""
            raise ValueError(
                f"the lower bound of {', '.join(wrong)} lies above its upper bound, or is not a number{cut}"
            )
    return as_array(low), as_array(high)


def _support(plan: Plan, priors: Sequence["PlacedPrior"]) -> tuple[Array, Array]:
    """(lower, upper) ends of the supports of these priors, in the order of the flat vector."""
    ends = [jnp.full(len(plan.names), end, plan.dtype) for end in (-jnp.inf, jnp.inf)]
    for prior, at in priors:
        ends = [all.at[jnp.array(at)].set(x.astype(plan.dtype)) for all, x in zip(ends, prior.support(), strict=True)]
    return ends[0], ends[1]


@functools.lru_cache(maxsize=512)
def _declared_bounds(plan: Plan) -> tuple[Array | None, Array | None]:
    if not any(math.isfinite(bound) for about in plan.about for bound in about.bounds):
        return None, None
    sides = []
    with jax.ensure_compile_time_eval():
        for k in range(2):
            values = [
                about.bounds[k]
                for about, (n, s) in zip(plan.about, plan.free, strict=True)
                for _ in element_names(n, s)
            ]
            sides.append(jnp.asarray(values, plan.dtype))
    return sides[0], sides[1]


class Priors(NamedTuple):
    """Priors of the p free elements: Gaussian rows (weight 1/sigma^2, 0 for none), and those of other shapes."""

    mean: Float[Array, " p"]
    weight: Float[Array, " p"]
    shaped: tuple[ShapedPrior, ...] = ()


def terms_of(
    plan: Plan,
    bounds: Mapping[str, Any] | None,
    priors: Mapping[str, Any] | None,
    active: ArrayLike | Sequence[bool] | Sequence[int] | None,
    loss: AbstractLoss,
    likelihood: AbstractLikelihood | None = None,
) -> Terms:
    """The terms of a fit from what a caller says by name, which wins over what the model declares.

    **Raises:** `ValueError` for an unknown name, a wrong shape, bounds that cross, or what is no prior.
    """
    lower, upper = flat_bounds(plan, bounds, priors)
    mean, weight, shaped = flat_priors(plan, priors)
    return Terms(lower, upper, mean, weight, active_mask(plan, active), loss, likelihood, shaped)


def flat_priors(plan: Plan, priors: Mapping[str, Any] | None) -> Priors:
    """The priors in the order of the flat vector; the call's win over the declared ones.

    **Raises:** `ValueError` for an unknown name, a wrong shape, or what is no prior.
    """
    placed = _placed_priors(plan, priors)
    if not placed:
        return Priors(*_no_priors(len(plan.names), plan.dtype))
    mean, weight = jnp.zeros(len(plan.names), plan.dtype), jnp.zeros(len(plan.names), plan.dtype)
    shaped = []
    for prior, at in placed:
        gaussian = prior.gaussian()
        if gaussian is None:
            shaped.append(ShapedPrior(prior, at))
        else:
            mean = mean.at[jnp.array(at)].set(gaussian.mean)
            weight = weight.at[jnp.array(at)].set(1 / gaussian.sigma**2)
    return Priors(mean, weight, tuple(shaped))


class PlacedPrior(NamedTuple):
    """A prior whose arrays have one number for each of its places in the flat vector."""

    prior: AbstractPrior
    at: tuple[int, ...]


def _placed_priors(plan: Plan, priors: Mapping[str, Any] | None) -> tuple[PlacedPrior, ...]:
    if not priors and all(about.prior is None for about in plan.about):
        return ()
    given, single = _by_name(plan, priors or {}, "priors"), _by_element(plan, priors or {})
    placed, begin = [], 0
    for (name, shape), about in zip(plan.free, plan.about, strict=True):
        places = range(begin, begin := begin + math.prod(shape))
        prior = given.get(name, about.prior)
        at = tuple(k for k in places if k not in single)
        if prior is not None and at:
            whole = _flattened(plan, prior, name, shape)
            placed.append(PlacedPrior(_taken(whole, [k - places[0] for k in at]), at))
    for place, prior in single.items():
        placed.append(PlacedPrior(_flattened(plan, prior, plan.names[place], ()), (place,)))
    return tuple(placed)


def _taken(prior: AbstractPrior, places: list[int]) -> AbstractPrior:
    return jtu.tree_map(lambda x: x[jnp.array(places)], prior)


def _flattened(plan: Plan, prior: object, name: str, shape: tuple[int, ...]) -> AbstractPrior:
    """The prior with its arrays laid out as the elements of its parameter are, in their precision."""
    if not isinstance(prior, AbstractPrior):
        raise ValueError(
            f"the prior of {name} is a {type(prior).__name__}; a fit takes jaxsci.Normal(mean, sigma), LogNormal, "
            "HalfNormal, TruncatedNormal, Uniform, Beta, or a jaxsci.AbstractPrior of your own"
        )

    def lay(value: Array) -> Array:
        if value.shape not in ((), shape):
            raise ValueError(f"the prior of {name} has numbers of shape {value.shape}, but {name} has shape {shape}")
        return jnp.ravel(jnp.broadcast_to(value, shape)).astype(plan.dtype)

    return jtu.tree_map(lay, prior)


@functools.lru_cache(maxsize=512)
def _no_priors(size: int, dtype: np.dtype[Any]) -> tuple[Array, Array]:
    with jax.ensure_compile_time_eval():
        return as_array(np.zeros(size, dtype)), as_array(np.zeros(size, dtype))


def chosen(plan: Plan, patterns: tuple[str, ...], what: str) -> set[str]:
    """The free names that these names or globs choose; one that is not free is an error."""
    return set(_by_name(plan, dict.fromkeys(patterns), what))


def _by_element(plan: Plan, given: Mapping[str, Any]) -> dict[int, Any]:
    """{place in y: value} of the names of single elements, such as `c[0]`."""
    if not any("[" in name for name in given):
        return {}
    whole = {name for name, _ in plan.free}
    return {plan.names.index(n): value for n, value in given.items() if n not in whole and n in plan.names}


def _by_name(plan: Plan, given: Mapping[str, Any], what: str) -> dict[str, Any]:
    """{free name: value} from {name or glob: value}, single elements apart; a name that is not free is an error."""
    names = [name for name, _ in plan.free]
    out: dict[str, Any] = {}
    for pattern, value in given.items():
        if "[" in pattern and pattern in plan.names:
            continue
        hits = [n for n in names if n == pattern] or fnmatch.filter(names, pattern)
        if not hits:
            raise ValueError(
                f"{what}: no free parameter {pattern!r}{suggest(pattern, names)} (free: {', '.join(names)})"
            )
        out.update(dict.fromkeys(hits, value))
    return out
