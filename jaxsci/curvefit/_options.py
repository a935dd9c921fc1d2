"""scipy's words for losses, methods and bounds in ours.

Users come with calls that they have written for scipy: its words are understood, what has no meaning here is taken with
a warning or without a word, and what would be answered wrongly is refused. `curve_fit` and `least_squares` read all
their arguments but the data here.
"""

import functools
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from ..core import (
    AbstractLoss,
    AnyArray,
    Arctan,
    Cauchy,
    Huber,
    Linear,
    SoftL1,
    as_bounds,
    describe,
    is_real_number,
    suggest,
    traced,
    unmasked,
)
from ..fitting import TRF, GaussNewton
from ._typing import Bounds, Ignored, Jacobian, Loss, Method, Numbers

_LOSSES: dict[str, Any] = {"soft_l1": SoftL1, "huber": Huber, "cauchy": Cauchy, "arctan": Arctan}
_LINEAR = Linear()


def as_loss(loss: Loss, f_scale: Numbers) -> AbstractLoss:
    """Find the loss that scipy calls `loss`, from `f_scale` on (in units of sigma); a loss Module stays as it is.

    **Raises:** `ValueError` for another word, or a scale that is not positive.
    """
    if isinstance(loss, AbstractLoss):
        return loss
    if isinstance(loss, str) and loss == "linear":
        return _LINEAR
    if isinstance(loss, type):
        raise ValueError(f"loss is the class {loss.__name__}: give an instance, such as {loss.__name__}()")
    if callable(loss):
        raise ValueError(
            "a loss that is a function rho(z) is not offered: choose one of linear, soft_l1, huber, cauchy and arctan, "
            "or write a subclass of jaxsci.core.AbstractLoss, whose rho is of the residual and not of its square"
        )
    if not isinstance(loss, str) or loss not in _LOSSES:
        known = ("linear", *_LOSSES)
        raise ValueError(
            f"loss should be a loss Module or one of {', '.join(known)}, but it is {loss!r}{suggest(str(loss), known)}"
        )
    if isinstance(f_scale, int | float):
        return _loss(loss, float(f_scale))
    made: AbstractLoss = _LOSSES[loss](f_scale)
    return made


@functools.lru_cache(maxsize=64)
def _loss(name: str, f_scale: float) -> AbstractLoss:
    if not f_scale > 0:
        raise ValueError(f"f_scale should be positive, but it is {f_scale}")
    with jax.ensure_compile_time_eval():
        return _LOSSES[name](f_scale)


def as_solver(method: Method, ftol: float | None, xtol: float | None) -> Any:
    """Find the solver that scipy calls `method`; `"gn"` is Gauss-Newton with next to no damping at first.

    The cost's expected fall by less than the fraction `ftol` is a step of sqrt(ftol) in units of its
    square root.

    **Raises:** `ValueError` for another word.
    """
    if isinstance(method, type):
        raise ValueError(f"method is the class {method.__name__}: give an instance, such as {method.__name__}()")
    if method is not None and not isinstance(method, str):
        return method
    tolerances = {}
    for name, given in (("ftol", ftol), ("xtol", xtol)):
        if given is not None and not (is_real_number(given) and given >= 0):
            raise ValueError(f"{name} should be a number of 0 or more, or None, but it is {given!r:.60}")
    if ftol is not None:
        tolerances["rtol"] = float(ftol) ** 0.5
    if xtol is not None:
        tolerances["atol"] = float(xtol)
    if method in (None, "trf", "dogbox"):
        return TRF(**tolerances)
    if method == "lm":
        return GaussNewton(**tolerances)
    if method == "gn":
        return GaussNewton(**tolerances, damping=1e-8)
    raise ValueError(
        f"method should be 'trf', 'dogbox', 'lm', 'gn' or a solver, but it is {method!r}"
        f"{suggest(method, ('trf', 'dogbox', 'lm', 'gn'))}"
    )


def as_max_steps(max_nfev: int | None) -> int:
    """Read how many evaluations there may be at most: 200 where nothing is said.

    **Raises:** `ValueError` for anything but a positive whole number.
    """
    if max_nfev is None:
        return 200
    if isinstance(max_nfev, bool) or not isinstance(max_nfev, int | np.integer) or max_nfev < 1:
        raise ValueError(f"max_nfev should be a positive whole number, but it is {max_nfev!r}")
    return int(max_nfev)


_DIFFERENCES = ("2-point", "3-point", "cs")
# scipy's options that concern how an answer is reached, not which: each is taken and changes nothing
_NO_MATTER = frozenset(
    ("x_scale", "gtol", "diff_step", "epsfcn", "tr_solver", "tr_options", "jac_sparsity", "workers", "factor", "diag")
)
_REFUSED = {"col_deriv": "give jac(x, a, b, ...) of shape (n, p)", "Dfun": "give jac in its place"}


def take_note(method: Method, jac: Jacobian, options: Mapping[str, Ignored], door: str) -> Callable[..., Any] | None:
    """Look at those options of scipy's that change little, and give back the user's Jacobian.

    Warns where another method runs, or other derivatives are taken, than was asked for.

    **Arguments:** `options`: those by keyword that the door does not name itself; `door`: the name of the function that
    was called, for messages.

    **Returns:** the function of the derivatives, or `None` for exact ones.

    **Raises:** `TypeError` for an unknown option, `ValueError` for one that cannot be had.
    """
    for name in options:
        if name in _REFUSED:
            raise ValueError(f"{door} does not take {name}: {_REFUSED[name]}")
        if name not in _NO_MATTER:
            raise TypeError(f"{door} has no argument {name!r}{suggest(name, (*_NO_MATTER, *_KNOWN))}")
    if isinstance(method, str) and method == "dogbox":
        warnings.warn("method='dogbox' is jaxsci.TRF here: the same minimum by another way", stacklevel=3)
    if isinstance(jac, str) and jac in _DIFFERENCES:
        warnings.warn(f"jac={jac!r}: exact derivatives are taken, not differences", stacklevel=3)
        return None
    if jac is None:
        return None
    if not callable(jac):
        raise ValueError(
            f"jac should be a function (x, a, b, ...) -> (n, p), None for exact derivatives, or one of "
            f"{', '.join(_DIFFERENCES)}, which give exact ones too; it is {jac!r}"
        )
    function: Callable[..., Any] = jac
    return function


_KNOWN = ("sigma", "bounds", "method", "loss", "f_scale", "ftol", "xtol", "max_nfev", "maxfev", "verbose", "callback")


def as_pair(bounds: Bounds) -> tuple[Any, Any]:
    """Read (lower, upper) from a pair, or from an object with `lb` and `ub`.

    **Raises:** `ValueError` for anything else.
    """
    if isinstance(bounds, tuple | list | np.ndarray | jax.Array) and len(bounds) == 2:
        return bounds[0], bounds[1]
    lower, upper = getattr(bounds, "lb", None), getattr(bounds, "ub", None)
    if lower is None or upper is None:
        what = f"{len(bounds)} items" if isinstance(bounds, tuple | list) else describe(bounds)
        raise ValueError(
            f"bounds should be a pair (lower, upper), each a number or one for each parameter, but it is {what}"
        )
    return lower, upper


def flat_limits(bounds: Bounds, names: Sequence[str]) -> tuple[Any, Any]:
    """Bring bounds into the form (lower, upper), each of shape (p,); (None, None) where nothing is bounded.

    **Arguments:** `bounds`: (lower, upper), each a number or of shape (p,); an object with `lb` and
    `ub`; or `{name: (lower, upper)}`, `None` for no bound.

    **Raises:** `ValueError` for a wrong length, an unknown name, or a lower bound above its upper one.
    """
    if isinstance(bounds, Mapping):
        lower, upper = _limits_by_name(bounds, names)
    else:
        lower, upper = as_pair(bounds)
        if isinstance(lower, float) and isinstance(upper, float) and lower == -np.inf and upper == np.inf:
            return None, None
    sides = [_limit(side, value, names) for side, value in (("lower", lower), ("upper", upper))]
    if traced(sides):
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


def _limit(side: str, value: Numbers, names: Sequence[str]) -> Any:
    size = len(names)
    if traced(value):
        array: Any = jnp.stack([jnp.asarray(v, float) for v in value]) if isinstance(value, list | tuple) else value
    else:
        array = value if isinstance(value, jax.Array) else _real_numbers(value, side)
    if array.shape == ():
        return jnp.broadcast_to(array, (size,)) if isinstance(array, jax.Array) else np.full(size, array)
    if array.shape != (size,):
        raise ValueError(
            f"the {side} bounds have shape {array.shape}, but there are {size} parameters ({', '.join(names)})"
        )
    return array


def _real_numbers(given: Numbers, side: str) -> np.ndarray:
    name = f"the {side} bounds"
    value, none = unmasked(given, name), -np.inf if side == "lower" else np.inf
    if isinstance(value, list | tuple):
        value = [none if item is None else item for item in value]
    try:
        return np.asarray(none if value is None else value, float)
    except (TypeError, ValueError):
        raise ValueError(
            f"{name} should be a number, or one for each parameter, but they are {describe(value)}"
        ) from None


def _limits_by_name(bounds: Mapping[str, Any], names: Sequence[str]) -> tuple[list[Any], list[Any]]:
    lower, upper = [-np.inf] * len(names), [np.inf] * len(names)
    for name, pair in bounds.items():
        low, high = as_bounds(pair, f"bounds of {name}")
        if name not in names:
            raise ValueError(
                f"bounds: there is no parameter {name!r}{suggest(name, names)} (parameters: {', '.join(names)})"
            )
        k = names.index(name)
        lower[k], upper[k] = low, high
    return lower, upper


def default_start(lower: AnyArray | None, upper: AnyArray | None, size: int) -> Any:
    """Choose scipy's start, shape (p,): ones; within bounds the middle, or one inside of the only bound."""
    if lower is None or upper is None:
        return _ones(size)
    xp: Any = jnp if isinstance(lower, jax.Array) or isinstance(upper, jax.Array) else np
    low, high = xp.isfinite(lower), xp.isfinite(upper)
    a, b = xp.where(low, lower, 0.0), xp.where(high, upper, 0.0)
    return xp.where(low & high, (a + b) / 2, xp.where(low, a + 1, xp.where(high, b - 1, 1.0)))


@functools.lru_cache(maxsize=64)
def _ones(size: int) -> Array:
    with jax.ensure_compile_time_eval():
        return jnp.ones(size)
