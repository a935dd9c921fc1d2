"""Start values from data, for the models of the library and for sums and products of them.

A sum is taken apart: its background by several weighted straight solutions, of which the best is kept;
its other terms one after the other, each from what the others leave over, in a few rounds (backfitting).
After each round all amplitudes are solved for together, because the model is linear in them.
"""

from collections.abc import Callable, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.flatten_util as jfu
import jax.numpy as jnp
import jax.tree_util as jtu
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from ..core import AbstractModel, Product, Sum, free_spec, is_traced, unmasked
from ..fitting import compiled, jacobian_t
from . import _functions as models
from ._guesses import estimator, solve_columns
from ._typing import Numbers

_BACKGROUNDS = (models.Constant, models.Line, models.Polynomial)
_PEAKS = (models.Gaussian, models.Gaussian2D, models.Lorentzian, models.Voigt, models.Moffat, models.Lognormal)
_LINEAR: dict[Any, tuple[str, ...]] = {  # what a model is linear in, where that is not its amplitude
    models.Constant: ("level",),
    models.Line: ("slope", "intercept"),
    models.Polynomial: ("c",),
    models.Voigt: ("area",),
    models.BiExponential: ("amplitude_1", "amplitude_2"),
    models.MichaelisMenten: ("rate_max",),
}
_ROUNDS = 10
_ENDS = 0.1  # share of the points that is taken for an end of the data
_LOW = 0.02  # weight of the points on the other side of a background that should run below the rest
_RIDGE = 0.4  # the power of eps that keeps amplitudes of like terms small where only their sum is known
_SMALL = 0.1  # factors smaller than this share of their largest value are not divided by


def estimate(model: object, x: Numbers, y: Numbers, *, degree: int | None = None) -> Any:
    """Guess a model of the library whose parameters lie near those that fit the data: where a fit may start.

    **Arguments:**

    - `model`: a class of the library; or an instance of one, or a sum or product of such, whose values
      are not used. Like terms of a sum come in the order of their heights. Of a product, the first
      factor carries the scale; the others are at most 1.
    - `x`: shape (n,), in any order; (n, 2) for `Gaussian2D`.
    - `y`: shape (n,), without NaN. A background is either subtracted before, or a term of the model:
      `Gaussian(1.0, 0.0, 1.0) + Line(0.0, 0.0)`.
    - `degree`: of a `Polynomial` given as a class; an instance brings its own.

    **Returns:** an instance of the class; for an instance, one of the same structure.

    **Raises:** `ValueError` for a model without an estimator, alone or as a term.
    """
    if isinstance(model, type) and issubclass(model, Sum | Product):
        raise ValueError(f"give an instance of the {model.__name__}, such as Gaussian(1.0, 0.0, 1.0) + Line(0.0, 0.0)")
    y, x = jnp.asarray(unmasked(y, "y")), jnp.asarray(unmasked(x, "x"))
    if y.ndim != 1 or x.shape[:1] != y.shape:
        raise ValueError(f"x has shape {x.shape}, y has shape {y.shape}: rows must match, and y be one number a row")
    if not is_traced(y) and not np.isfinite(np.asarray(y)).all():
        raise ValueError("y has a NaN or an infinity, from which no start can be read: leave those rows out")
    dtype = y.dtype if jnp.issubdtype(y.dtype, jnp.floating) else jnp.zeros(()).dtype
    x, y = x.astype(dtype), y.astype(dtype)
    if isinstance(model, Sum | Product):
        _check(model, type(model).__name__)
        return compiled(_of, (jtu.tree_map(lambda leaf: jnp.zeros(jnp.shape(leaf), dtype), model), x, y))
    return estimator(model, degree)(x, y)


def _check(model: object, path: str) -> None:
    """Raise `ValueError` for a term without an estimator, naming it."""
    if isinstance(model, Sum | Product):
        for name, term in zip(model.names, model.terms, strict=True):
            _check(term, f"{path}.{name}")
        return
    try:
        estimator(model)
    except ValueError as error:
        raise ValueError(f"{path}: {error}. Fit from a start of your own, or from multi_start") from None


def _of(model: AbstractModel, x: Array, y: Array) -> Any:
    """The estimate of a model, composite or not."""
    if isinstance(model, Sum):
        return _of_sum(model, x, y)
    if isinstance(model, Product):
        return _of_product(model, x, y)
    return estimator(model)(x, jnp.where(_about_the_highest(x, y), y, 0) if isinstance(model, _PEAKS) else y)


def _linear_names(model: AbstractModel) -> list[str]:
    """The parameters that the model is linear in, jointly."""
    if isinstance(model, Sum | Product):
        terms = list(zip(model.names, model.terms, strict=True))
        terms = terms if isinstance(model, Sum) else terms[:1]
        return [f"{name}.{inner}" for name, term in terms for inner in _linear_names(term)]
    return list(_LINEAR.get(type(model), ("amplitude",)))


def _with_best_amplitudes(model: AbstractModel, x: Array, y: Array, weight: Array | None = None) -> Any:
    """The model with those of its parameters that it is linear in solved for, the others kept."""
    linear, rest = eqx.partition(model, free_spec(model, _linear_names(model)))
    flat, unravel = jfu.ravel_pytree(linear)
    _, columns = jacobian_t(lambda flat: eqx.combine(unravel(flat), rest)(x), jnp.zeros_like(flat))
    if weight is not None:
        columns, y = columns * weight[None, :], y * weight
    return eqx.combine(unravel(solve_columns(columns, y, float(jnp.finfo(y.dtype).eps) ** _RIDGE)), rest)


def _cost(model: AbstractModel, x: Array, y: Array) -> Array:
    """Sum of squares; infinite where the model is not finite."""
    cost = jnp.sum((model(x) - y) ** 2)
    return jnp.where(jnp.isfinite(cost), cost, jnp.inf)


def _of_sum(model: Sum, x: Array, y: Array) -> Sum:
    terms = dict(zip(model.names, model.terms, strict=True))
    background = [name for name, term in terms.items() if isinstance(term, _BACKGROUNDS)]
    others = [name for name in terms if name not in background]
    ground = Sum(**{name: terms[name] for name in background})
    if not others:
        return _with_best_amplitudes(model, x, y)
    peaks = [name for name in others if isinstance(terms[name], _PEAKS)]
    broad = [name for name in others if name not in peaks]
    orders = [[*broad, *peaks], [*peaks, *broad]] if broad and peaks else [others]

    def remains(terms: dict[str, Any], name: str) -> Array:
        return y - (Sum(**terms)(x) - terms[name](x))

    def attempt(weight: Array) -> tuple[Any, Array]:
        under = _with_best_amplitudes(ground, x, y, weight) if background else ground
        left = y - under(x) if background else y
        found = []
        for order in orders:
            start = {**terms, **dict(zip(background, under.terms, strict=True))}
            start.update(_one_after_the_other(terms, order, x, left))
            found.append(_rounds(Sum(**start), others, x, y, remains))
        return _best(found)

    if not background:
        return attempt(jnp.ones_like(y))[0]
    weights = jnp.stack(_background_weights(ground, x, y))
    many, costs = jax.vmap(attempt)(weights)
    return jtu.tree_map(lambda leaf: leaf[jnp.argmin(costs)], many)


def _one_after_the_other(terms: dict[str, Any], order: Sequence[str], x: Array, left: Array) -> dict[str, Any]:
    """Each term from what those before it leave over."""
    found = {}
    for name in order:
        found[name] = _of(terms[name], x, left)
        left = left - found[name](x)
    return found


def _best(found: list[tuple[Any, Array]]) -> tuple[Any, Array]:
    best, least = found[0]
    for model, cost in found[1:]:
        best = jtu.tree_map(lambda a, b: jnp.where(cost < least, a, b), model, best)  # noqa: B023
        least = jnp.minimum(cost, least)
    return best, least


def _rounds(
    model: Sum | Product, names: Sequence[str], x: Array, y: Array, remains: Callable[[dict[str, Any], str], Array]
) -> tuple[Any, Array]:
    """Rounds in which each named term is estimated from what remains for it; (the best model met, its cost)."""

    def one_round(_: Int[Array, ""], carry: tuple[Any, Any, Array]) -> tuple[Any, Any, Array]:
        now, best, least = carry
        terms = dict(zip(now.names, now.terms, strict=True))
        for name in names:
            new = _of(terms[name], x, remains(terms, name))
            new = jtu.tree_map(lambda a, b: jnp.where(jnp.isfinite(a), a, b), new, terms[name])
            terms[name] = _unit(new, x) if isinstance(model, Product) else new
        now = _with_best_amplitudes(type(model)(**terms), x, y)
        return (now, *_best([(best, least), (now, _cost(now, x, y))]))

    start = _with_best_amplitudes(model, x, y)
    return lax.fori_loop(0, _ROUNDS, one_round, (start, start, _cost(start, x, y)))[1:]


def _background_weights(ground: Sum, x: Array, y: Array) -> list[Array]:
    """Which points may belong to the background alone: all, an end, both ends, the lower or the upper ones."""
    n = y.shape[0]
    along = x if x.ndim == 1 else jnp.sum((x - jnp.mean(x, axis=0)[None, :]) ** 2, axis=1)
    rank = jnp.argsort(jnp.argsort(along))
    few = max(int(_ENDS * n), min(n, 2 * len(_linear_names(ground))))
    low, high = rank < few, rank >= n - few
    flat = jnp.ones_like(y)

    def one_sided(side: float) -> Array:
        def again(_: Int[Array, ""], weight: Array) -> Array:
            fitted = _with_best_amplitudes(ground, x, y, weight)(x)
            return jnp.where(side * (y - fitted) > 0, _LOW, 1).astype(y.dtype)

        return lax.fori_loop(0, 6, again, flat)

    ends = [where.astype(y.dtype) for where in (low, high, low | high)]
    return [flat, *ends, one_sided(1.0), one_sided(-1.0)]


def _about_the_highest(x: Array, y: Array) -> Bool[Array, " n"]:
    """The points around the highest (or deepest) one that belong to the same peak: down to half of its height.

    Along a line up to the first two neighbours that both lie lower, so that one noisy point does not end
    it; in a plane within the largest circle of which they are the better half.
    """
    size = jnp.where(jnp.max(y) >= -jnp.min(y), 1, -1).astype(y.dtype) * y
    top = jnp.argmax(size)
    inside = size > size[top] / 2
    if x.ndim == 1:
        order = jnp.argsort(x)
        low = ~inside[order]
        gaps = jnp.cumsum(low & jnp.concatenate([low[1:], low[-1:]]))
        place = jnp.argsort(order)
        return gaps[place] == gaps[place[top]]
    distance = jnp.sum((x - x[top][None, :]) ** 2, axis=1)
    order = jnp.argsort(distance)
    share = jnp.cumsum(inside[order]) / jnp.arange(1, y.shape[0] + 1)
    return distance <= jnp.max(jnp.where(share > 0.5, distance[order], 0))


def _of_product(model: Product, x: Array, y: Array) -> Product:
    """Each factor from what division by the others leaves; an oscillation first, as the others are its envelope."""
    terms = dict(zip(model.names, model.terms, strict=True))
    carriers = [name for name, term in terms.items() if isinstance(term, models.Sinusoid)]
    left = y
    for name in (*carriers, *(name for name in terms if name not in carriers)):
        terms[name] = _unit(_of(terms[name], x, left), x)
        left = _demodulated(terms[name], x, left) if name in carriers else _divided(terms[name], x, left, left)

    def remains(terms: dict[str, Any], name: str) -> Array:
        rest = Product(**{other: term for other, term in terms.items() if other != name})
        return _demodulated(rest, x, y) if carriers else _divided(rest, x, y, terms[name](x))

    return _rounds(Product(**terms), [name for name in terms if name not in carriers], x, y, remains)[0]


def _unit(term: AbstractModel, x: Array) -> Any:
    """The factor scaled to at most 1 on the data."""
    spec = free_spec(term, _linear_names(term))
    largest = jnp.max(jnp.abs(term(x)))
    largest = jnp.where(largest > 0, largest, 1)
    return jtu.tree_map(lambda leaf, linear: leaf / largest if linear else leaf, term, spec)


def _divided(factor: AbstractModel, x: Array, y: Array, instead: Array) -> Array:
    """y / factor, and where the factor is too small to divide by, another value."""
    values = factor(x)
    good = jnp.abs(values) > _SMALL * jnp.max(jnp.abs(values))
    return jnp.where(good, y / jnp.where(good, values, 1), instead)


def _demodulated(carrier: AbstractModel, x: Array, y: Float[Array, " n"]) -> Float[Array, " n"]:
    """What a fast factor is multiplied by: regressions of y on it through some neighbouring points."""
    order = jnp.argsort(x)
    values = carrier(x)
    crossings = jnp.sum(jnp.diff(jnp.sign(values[order])) != 0)
    n = y.shape[0]
    half = jnp.clip(n // jnp.maximum(crossings, 1), 1, n // 4 + 1)
    index = jnp.arange(n)

    def average(v: Array) -> Array:
        total = jnp.concatenate([jnp.zeros_like(v[:1]), jnp.cumsum(v[order])])
        first, last = jnp.clip(index - half, 0, n), jnp.clip(index + half + 1, 0, n)
        return (total[last] - total[first])[jnp.argsort(order)]

    power = average(values * values)
    return average(values * y) / jnp.where(power > 0, power, 1)
