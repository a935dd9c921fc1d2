"""scipy's words for losses, methods and bounds in ours."""

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from ..core import AbstractLoss, Arctan, Cauchy, Huber, Linear, SoftL1, suggest
from ..fitting import TRF, GaussNewton

_LOSSES: dict[str, Any] = {"soft_l1": SoftL1, "huber": Huber, "cauchy": Cauchy, "arctan": Arctan}
_LINEAR = Linear()


def as_loss(loss: Any, f_scale: Any) -> AbstractLoss:
    """The loss that scipy calls `loss`, from `f_scale` on; a loss Module as it is.

    **Raises:** `ValueError` for another word, or a scale that is not positive.
    """
    if isinstance(loss, AbstractLoss):
        return loss
    if isinstance(loss, str) and loss == "linear":
        return _LINEAR
    if not isinstance(loss, str) or loss not in _LOSSES:
        known = ("linear", *_LOSSES)
        raise ValueError(
            f"loss should be a loss Module or one of {', '.join(known)}, but it is {loss!r}{suggest(loss, known)}"
        )
    if isinstance(f_scale, int | float):
        return _loss(loss, float(f_scale))
    return _LOSSES[loss](f_scale)


@functools.lru_cache(maxsize=64)
def _loss(name: str, f_scale: float) -> AbstractLoss:
    if not f_scale > 0:
        raise ValueError(f"f_scale should be positive, but it is {f_scale}")
    with jax.ensure_compile_time_eval():
        return _LOSSES[name](f_scale)


def as_solver(method: Any, ftol: float | None, xtol: float | None) -> Any:
    """The solver that scipy calls `method`; `"gn"` is Gauss-Newton with next to no damping at first.

    The cost's expected fall by less than the fraction `ftol` is a step of sqrt(ftol) in units of its
    square root.

    **Raises:** `ValueError` for another word.
    """
    if not isinstance(method, str):
        return method
    tolerances = {}
    if ftol is not None:
        tolerances["rtol"] = float(ftol) ** 0.5
    if xtol is not None:
        tolerances["atol"] = float(xtol)
    if method == "trf":
        return TRF(**tolerances)
    if method == "lm":
        return GaussNewton(**tolerances)
    if method == "gn":
        return GaussNewton(**tolerances, damping=1e-8)
    raise ValueError(f"method should be 'trf', 'lm', 'gn' or a solver, but it is {method!r}")


def flat_limits(bounds: Any, names: Sequence[str]) -> tuple[Any, Any]:
    """(lower, upper), each of shape (p,); (None, None) where nothing is bounded.

    **Arguments:** `bounds`: (lower, upper), each a number or of shape (p,); an object with `lb` and
    `ub`; or `{name: (lower, upper)}`, `None` for no bound.

    **Raises:** `ValueError` for a wrong length, an unknown name, or a lower bound above its upper one.
    """
    if isinstance(bounds, Mapping):
        lower, upper = _limits_by_name(bounds, names)
    else:
        lower, upper = bounds if isinstance(bounds, tuple | list) else (bounds.lb, bounds.ub)
        if isinstance(lower, float) and isinstance(upper, float) and lower == -np.inf and upper == np.inf:
            return None, None
    sides = [_limit(side, value, names) for side, value in (("lower", lower), ("upper", upper))]
    if any(isinstance(side, jax.core.Tracer) for side in sides):
        return sides[0], sides[1]
    low_side, high_side = (np.asarray(side) for side in sides)
    for name, low, high in zip(names, low_side, high_side, strict=True):
        if not low <= high:
            raise ValueError(
                f"bounds: the lower bound {low} of {name} lies above its upper bound {high}, or is not a number"
            )
    if np.all(low_side == -np.inf) and np.all(high_side == np.inf):
        return None, None
    return sides[0], sides[1]


def _limit(side: str, value: Any, names: Sequence[str]) -> Any:
    size = len(names)
    if any(isinstance(v, jax.core.Tracer) for v in (value if isinstance(value, list | tuple) else [value])):
        array: Any = jnp.stack([jnp.asarray(v, float) for v in value]) if isinstance(value, list | tuple) else value
    else:
        array = value if isinstance(value, jax.Array) else np.asarray(value, float)
    if array.shape == ():
        return jnp.broadcast_to(array, (size,)) if isinstance(array, jax.Array) else np.full(size, array)
    if array.shape != (size,):
        raise ValueError(
            f"the {side} bounds have shape {array.shape}, but there are {size} parameters ({', '.join(names)})"
        )
    return array


def _limits_by_name(bounds: Mapping[str, Any], names: Sequence[str]) -> tuple[list[Any], list[Any]]:
    lower, upper = [-np.inf] * len(names), [np.inf] * len(names)
    for name, (low, high) in bounds.items():
        if name not in names:
            raise ValueError(
                f"bounds: there is no parameter {name!r}{suggest(name, names)} (parameters: {', '.join(names)})"
            )
        k = names.index(name)
        lower[k] = -np.inf if low is None else low
        upper[k] = np.inf if high is None else high
    return lower, upper


def default_start(lower: Any, upper: Any, size: int) -> Any:
    """scipy's: ones; within bounds the middle, or one inside of the only bound."""
    if lower is None:
        return _ones(size)
    xp: Any = jnp if isinstance(lower, jax.Array) or isinstance(upper, jax.Array) else np
    low, high = xp.isfinite(lower), xp.isfinite(upper)
    a, b = xp.where(low, lower, 0.0), xp.where(high, upper, 0.0)
    return xp.where(low & high, (a + b) / 2, xp.where(low, a + 1, xp.where(high, b - 1, 1.0)))


@functools.lru_cache(maxsize=64)
def _ones(size: int) -> Array:
    with jax.ensure_compile_time_eval():
        return jnp.ones(size)
