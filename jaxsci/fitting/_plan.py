"""What a fit frees, by name: worked out once for each kind of model and choice of names."""

import dataclasses
import fnmatch
import functools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import jax.tree_util as jtu
import numpy as np
from jaxtyping import Array, PyTree

from ..core._errors import suggest
from ..core._parameter import (
    Parameter,
    as_array,
    as_bounds,
    element_names,
    free_spec,
    get,
    leaf_names,
    match,
    parameters,
)
from ..core._prior import Normal
from ..core._static import closed
from ._terms import Fitted


@dataclasses.dataclass(frozen=True, eq=False)
class Plan:
    """The free parameters of one kind of model: names, shapes, and their declared bounds and priors."""

    free: tuple[tuple[str, tuple[int, ...]], ...]
    about: tuple[Parameter, ...]
    names: tuple[str, ...]
    units: tuple[str, ...]
    noise: bool
    dtype: Any

    def spec(self, fitted: Fitted) -> PyTree:
        """True at the leaves of `fitted` that are free."""
        return free_spec(fitted, [name for name, _ in self.free])


def make_plan(model: PyTree, noise: PyTree, free: Sequence[str] | None) -> Plan:
    """The plan for a free name or several, globs allowed; `None` frees every parameter of the model.

    **Raises:** `ValueError` for an unknown name, or when nothing is free.
    """
    leaves, structure = jtu.tree_flatten((closed(model), closed(noise)))
    names = None if free is None else as_names(free)
    return _plan(structure, tuple((leaf.shape, leaf.dtype) for leaf in leaves), names, type(model).__name__)


def as_names(names: Sequence[str]) -> tuple[str, ...]:
    """One name or several, as a tuple."""
    return (names,) if isinstance(names, str) else tuple(names)


@functools.lru_cache(maxsize=512)
def _plan(structure: Any, leaves: Any, free: tuple[str, ...] | None, owner: str) -> Plan:
    fitted = Fitted(*jtu.tree_unflatten(structure, [jax.ShapeDtypeStruct(*leaf) for leaf in leaves]))
    known = parameters(fitted)
    if free is None:
        chosen = list(parameters(Fitted(fitted.model, None)))
    else:
        of_noise = [pattern for pattern in free if pattern.startswith("noise.")]
        wanted = match(fitted, of_noise, owner)  # "*" means the model's own
        chosen = [name for name in match(fitted, free, owner) if not name.startswith("noise.") or name in wanted]
    if not chosen:
        raise ValueError(
            f"{owner} has no free parameter: declare its fields with jaxsci.param()"
            if not known
            else f"nothing is free to fit: choose from {', '.join(known)}"
        )
    named = leaf_names(fitted, chosen)
    names = tuple(element for name, shape in named for element in element_names(name, shape))
    about = tuple(known[name] for name, _ in named)
    units = tuple(a.unit for a, (name, shape) in zip(about, named, strict=True) for _ in element_names(name, shape))
    dtype = jnp.result_type(*(get(fitted, name).dtype for name in chosen))
    return Plan(tuple(named), about, names, units, any(name.startswith("noise.") for name, _ in named), dtype)


def flat_bounds(plan: Plan, bounds: Mapping[str, Any] | None) -> tuple[Array | None, Array | None]:
    """(lower, upper), each of shape (p,) or `None` without any bound; the call's win over the declared ones.

    **Raises:** `ValueError` for an unknown name, a lower bound above the upper, or a wrong shape.
    """
    if not bounds and all(isinstance(b, int | float) for a in plan.about for b in a.bounds):
        return _declared_bounds(plan)
    given = _by_name(plan, bounds or {}, "bounds")
    traced = any(isinstance(x, jax.core.Tracer) for x in jtu.tree_leaves((given, [a.bounds for a in plan.about])))
    xp: Any = jnp if traced else np  # on the device each shape would be a program of its own
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
    if not traced:
        wrong = [n for n, bad in zip(plan.names, ~(low <= high), strict=True) if bad]
        if wrong:
            raise ValueError(f"the lower bound of {', '.join(wrong)} lies above its upper bound, or is not a number")
    return as_array(low), as_array(high)


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


def flat_priors(plan: Plan, priors: Mapping[str, Any] | None) -> tuple[Array, Array]:
    """(mean, 1/sigma^2) of the Gaussian priors, 0 weight where there is none."""
    if not priors and all(about.prior is None for about in plan.about):
        return _no_priors(len(plan.names), plan.dtype)
    given = _by_name(plan, priors or {}, "priors")
    means, weights = [], []
    for (name, shape), about in zip(plan.free, plan.about, strict=True):
        prior = given.get(name, about.prior)
        if prior is None:
            prior = Normal(jnp.zeros(()), jnp.full((), jnp.inf))
        if not isinstance(prior, Normal):
            raise ValueError(
                f"the prior of {name} is a {type(prior).__name__}; a fit takes jaxsci.Normal(mean, sigma) "
                "(a flat prior between limits is given by bounds)"
            )
        means.append(jnp.ravel(jnp.broadcast_to(prior.mean.astype(plan.dtype), shape)))
        weights.append(jnp.ravel(jnp.broadcast_to(1 / prior.sigma.astype(plan.dtype) ** 2, shape)))
    return jnp.concatenate(means), jnp.concatenate(weights)


@functools.lru_cache(maxsize=512)
def _no_priors(size: int, dtype: Any) -> tuple[Array, Array]:
    with jax.ensure_compile_time_eval():
        return as_array(np.zeros(size, dtype)), as_array(np.zeros(size, dtype))


def chosen(plan: Plan, patterns: tuple[str, ...], what: str) -> set[str]:
    """The free names that these names or globs choose; one that is not free is an error."""
    return set(_by_name(plan, dict.fromkeys(patterns), what))


def _by_name(plan: Plan, given: Mapping[str, Any], what: str) -> dict[str, Any]:
    """{free name: value} from {name or glob: value}; a name that is not free is an error."""
    names = [name for name, _ in plan.free]
    out: dict[str, Any] = {}
    for pattern, value in given.items():
        hits = [n for n in names if n == pattern] or fnmatch.filter(names, pattern)
        if not hits:
            raise ValueError(
                f"{what}: no free parameter {pattern!r}{suggest(pattern, names)} (free: {', '.join(names)})"
            )
        out.update(dict.fromkeys(hits, value))
    return out
