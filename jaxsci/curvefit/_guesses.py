"""How each model of the library guesses its parameters from data.

A search that starts near the answer is short and finds the right minimum. Each guess is a closed formula (moments, a
regression of logarithms, a periodogram) without loops over data, so that all of it works under jit and vmap and guesses
for many data sets at once. `_starts` calls `estimator`, for single models and for the terms of sums and products.
"""

import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ..core import AbstractModel, suggest
from ..core.linalg import qr_r, solve_lower, solve_upper
from . import _functions as models

_TINY_SHARE = 0.05  # points between this share of the height and all but this share carry a logit or a logarithm
_MAX_FREQUENCIES = 2048

Estimator = Callable[[Array, Array], AbstractModel]


def estimator(model: object, degree: int | None = None) -> Estimator:
    """Find the function (x, y) -> model for one model of the library, a class or an instance.

    **Raises:** `ValueError` for a model without an estimator.
    """
    kind = model if isinstance(model, type) else type(model)
    if kind is models.Polynomial:
        count = model.c.shape[-1] if isinstance(model, models.Polynomial) else None if degree is None else degree + 1
        if count is None:
            raise ValueError("give the degree of the Polynomial: estimate(Polynomial, x, y, degree=2)")
        return functools.partial(_polynomial, count=count)
    if kind not in _ESTIMATORS:
        known = {k.__name__ for k in (*_ESTIMATORS, models.Polynomial)}
        name = getattr(kind, "__name__", str(kind))
        raise ValueError(
            f"there is no estimator for {name}{suggest(name, known)} (there is one for {', '.join(sorted(known))})"
        )
    return _ESTIMATORS[kind]


def solve_columns(columns: Float[Array, "k n"], y: Float[Array, " n"], ridge: float = 0.0) -> Float[Array, " k"]:
    """Solve for the least squares of y on the columns; a column without effect gets about 0.

    **Arguments:** `columns`: shape (k, n); `y`: shape (n,); `ridge`: damping, in units of each column's length.

    **Returns:** the factor of each column, shape (k,).
    """
    k, norms = columns.shape[0], jnp.sqrt(jnp.sum(columns * columns, axis=1))
    norms = jnp.where(norms > 0, norms, 1)
    matrix = (columns / norms[:, None]).T
    r = qr_r(jnp.concatenate([matrix, ridge * jnp.eye(k, dtype=y.dtype)]) if ridge else matrix)
    r = r + 1e-3 * jnp.sqrt(jnp.finfo(y.dtype).eps) * jnp.diag(jnp.where(jnp.diagonal(r) < 0, -1, 1).astype(y.dtype))
    return solve_upper(r, solve_lower(r.T, matrix.T @ y)) / norms


def _regress(x: Array, y: Array, weight: Array) -> tuple[Array, Array]:
    """(slope, intercept) of the weighted straight line."""
    total = jnp.sum(weight)
    total = jnp.where(total > 0, total, 1)
    mean_x, mean_y = jnp.sum(weight * x) / total, jnp.sum(weight * y) / total
    spread = jnp.sum(weight * (x - mean_x) ** 2)
    slope = jnp.sum(weight * (x - mean_x) * (y - mean_y)) / jnp.where(spread > 0, spread, 1)
    return slope, mean_y - slope * mean_x


def _sorted(x: Array, y: Array) -> tuple[Array, Array, Array]:
    """x and y in the order of x, and the length of x that each point stands for."""
    order = jnp.argsort(x)
    x, y = x[order], y[order]
    edges = jnp.concatenate([x[:1], (x[1:] + x[:-1]) / 2, x[-1:]])
    return x, y, jnp.diff(edges)


def _extreme(y: Array) -> Array:
    """The value of largest size, less exposed to noise: the mean of the largest hundredth of the points."""
    sign = jnp.where(jnp.max(y) >= -jnp.min(y), 1, -1).astype(y.dtype)
    few = max(1, y.shape[0] // 100)
    return sign * jnp.mean(jax.lax.top_k(sign * y, few)[0])


def _peak(x: Array, y: Array) -> tuple[Array, Array, Array]:
    """(height, centre, width of the part above half of the height)."""
    x, y, share = _sorted(x, y)
    height = _extreme(y)
    relative = y / jnp.where(height != 0, height, 1)
    inside = relative > 0.5
    weight = jnp.where(inside, relative * share, 0)
    total = jnp.sum(weight)
    center = jnp.sum(weight * x) / jnp.where(total > 0, total, 1)
    return height, center, _at_least(jnp.sum(jnp.where(inside, share, 0)), jnp.max(share))


def _at_least(value: Array, least: Array) -> Array:
    """The value, or where it is not positive, `least`, or 1."""
    return jnp.where(value > 0, value, jnp.where(least > 0, least, 1))


def _rising(y: Array, height: Array) -> tuple[Array, Array]:
    """(logit of y / height, weight): the weight is that of the logit's own error, 0 near both ends."""
    share = y / jnp.where(height != 0, height, 1)
    good = (share > _TINY_SHARE) & (share < 1 - _TINY_SHARE)
    share = jnp.where(good, share, 0.5)
    return jnp.log(share / (1 - share)), jnp.where(good, (share * (1 - share)) ** 2, 0)


def _constant(x: Array, y: Array) -> models.Constant:
    return models.Constant(jnp.mean(y))


def _line(x: Array, y: Array) -> models.Line:
    return models.Line(*_regress(x, y, jnp.ones_like(y)))


def _polynomial(x: Array, y: Array, count: int) -> models.Polynomial:
    return models.Polynomial(solve_columns(jnp.stack([x**k for k in range(count)]), y))


def _gaussian(x: Array, y: Array) -> models.Gaussian:
    height, center, width = _peak(x, y)
    return models.Gaussian(height, center, width / (2 * math.sqrt(2 * math.log(2))))


def _gaussian_2d(points: Array, y: Array) -> models.Gaussian2D:
    """Second moments above half of the height, which are 1 - ln 2 of the whole for a Gaussian."""
    height = _extreme(y)
    relative = y / jnp.where(height != 0, height, 1)
    weight = jnp.where(relative > 0.5, relative, 0)
    weight = weight / _at_least(jnp.sum(weight), jnp.ones_like(height))
    center = weight @ points
    dx, dy = points[:, 0] - center[0], points[:, 1] - center[1]
    xx, yy, xy = (jnp.sum(weight * a * b) / (1 - math.log(2)) for a, b in ((dx, dx), (dy, dy), (dx, dy)))
    mean, half = (xx + yy) / 2, jnp.sqrt(((xx - yy) / 2) ** 2 + xy**2)
    range_ = jnp.max(jnp.max(points, axis=0) - jnp.min(points, axis=0))
    least = range_ * 1e-2
    large, small = jnp.sqrt(mean + half), jnp.sqrt(jnp.maximum(mean - half, 0))
    angle = jnp.arctan2(2 * xy, xx - yy) / 2
    return models.Gaussian2D(height, center[0], center[1], _at_least(large, least), _at_least(small, least), angle)


def _lorentzian(x: Array, y: Array) -> models.Lorentzian:
    height, center, width = _peak(x, y)
    return models.Lorentzian(height, center, width / 2)


def _voigt(x: Array, y: Array) -> models.Voigt:
    """Both widths alike: then the full width at half maximum is 3.6013 sigma."""
    height, center, width = _peak(x, y)
    width = width / 3.6013
    unit = models.Voigt(jnp.ones_like(height), center, width, width)
    return models.Voigt(height / unit(center[None])[0], center, width, width)


def _moffat(x: Array, y: Array) -> models.Moffat:
    height, center, width = _peak(x, y)
    power = 2.5
    return models.Moffat(height, center, width / (2 * math.sqrt(2 ** (1 / power) - 1)), jnp.full_like(height, power))


def _lognormal(x: Array, y: Array) -> models.Lognormal:
    positive, log = models._log(x)
    height, center, width = _peak(jnp.where(positive, log, jnp.min(log)), jnp.where(positive, y, 0))
    return models.Lognormal(height, jnp.exp(center), width / (2 * math.sqrt(2 * math.log(2))))


def _log_of(y: Array) -> tuple[Array, Array, Array]:
    """(sign, ln |y|, weight y^2 where y is well above 0 in the direction of its sign)."""
    height = _extreme(y)
    sign = jnp.where(height < 0, -1, 1).astype(y.dtype)
    size = sign * y
    good = size > _TINY_SHARE * jnp.abs(height)
    return sign, jnp.log(jnp.where(good, size, 1)), jnp.where(good, size * size, 0)


def _exponential(x: Array, y: Array) -> models.Exponential:
    sign, log, weight = _log_of(y)
    slope, intercept = _regress(x, log, weight)
    return models.Exponential(sign * jnp.exp(intercept), _at_least(-1 / _nonzero(slope), jnp.max(x) - jnp.min(x)))


def _nonzero(value: Array) -> Array:
    return jnp.where(value != 0, value, 1)


def _bi_exponential(x: Array, y: Array) -> models.BiExponential:
    """y = a S2 + b S1 + c x + d, S1 and S2 its integrals once and twice: the rates solve r^2 + b r - a = 0."""
    x, y, _ = _sorted(x, y)
    once = _integral(x, y)
    twice = _integral(x, once)
    a, b, _, _ = solve_columns(jnp.stack([twice, once, x, jnp.ones_like(x)]), y)
    root = b * b / 4 + a
    fast, slow = -b / 2 + jnp.sqrt(jnp.maximum(root, 0)), -b / 2 - jnp.sqrt(jnp.maximum(root, 0))
    good = (root > 0) & (slow > 0)
    single = _exponential(x, y).tau
    tau_1, tau_2 = jnp.where(good, 1 / _nonzero(fast), single / 3), jnp.where(good, 1 / _nonzero(slow), 2 * single)
    first, second = solve_columns(jnp.stack([jnp.exp(-x / tau_1), jnp.exp(-x / tau_2)]), y)
    return models.BiExponential(first, tau_1, second, tau_2)


def _integral(x: Array, y: Array) -> Array:
    """From the first point on, by trapezia."""
    return jnp.concatenate([jnp.zeros_like(x[:1]), jnp.cumsum((y[1:] + y[:-1]) / 2 * jnp.diff(x))])


def _stretched(x: Array, y: Array) -> models.StretchedExponential:
    """ln(-ln(y / amplitude)) is a straight line over ln x."""
    amplitude = _extreme(y)
    share = y / _nonzero(amplitude)
    positive, log = models._log(x)
    good = positive & (share > _TINY_SHARE) & (share < 1 - _TINY_SHARE)
    depth = -jnp.log(jnp.where(good, share, 0.5))
    beta, intercept = _regress(log, jnp.log(depth), jnp.where(good, (share * depth) ** 2, 0))
    beta = jnp.clip(beta, 0.2, 5)
    return models.StretchedExponential(amplitude, jnp.exp(-intercept / beta), beta)


def _power_law(x: Array, y: Array) -> models.PowerLaw:
    positive, log = models._log(x)
    sign, value, weight = _log_of(y)
    exponent, intercept = _regress(log, value, jnp.where(positive, weight, 0))
    return models.PowerLaw(sign * jnp.exp(intercept), exponent)


def _logistic(x: Array, y: Array) -> models.Logistic:
    amplitude = _extreme(y)
    logit, weight = _rising(y, amplitude)
    slope, intercept = _regress(x, logit, weight)
    return models.Logistic(amplitude, -intercept / _nonzero(slope), 1 / _nonzero(slope))


def _gompertz(x: Array, y: Array) -> models.Gompertz:
    """ln(-ln(y / amplitude)) = ln displacement - rate x."""
    amplitude = 1.02 * _extreme(y)
    share = y / _nonzero(amplitude)
    good = (share > _TINY_SHARE) & (share < 1 - _TINY_SHARE)
    depth = -jnp.log(jnp.where(good, share, 0.5))
    slope, intercept = _regress(x, jnp.log(depth), jnp.where(good, (share * depth) ** 2, 0))
    return models.Gompertz(
        amplitude, jnp.exp(intercept), _at_least(-slope, 1 / _at_least(jnp.max(x) - jnp.min(x), x[0]))
    )


def _michaelis_menten(x: Array, y: Array) -> models.MichaelisMenten:
    """x y = rate_max x - half y, which is linear."""
    rate_max, half = solve_columns(jnp.stack([x, -y]), x * y)
    return models.MichaelisMenten(rate_max, _at_least(half, jnp.max(jnp.abs(x)) / 2))


def _hill(x: Array, y: Array) -> models.Hill:
    amplitude = 1.05 * _extreme(y)
    logit, weight = _rising(y, amplitude)
    positive, log = models._log(x)
    exponent, intercept = _regress(log, logit, jnp.where(positive, weight, 0))
    exponent = _at_least(exponent, jnp.ones_like(exponent))
    return models.Hill(amplitude, jnp.exp(-intercept / exponent), exponent)


def _sinusoid(x: Array, y: Array) -> models.Sinusoid:
    """The strongest of many frequencies (a periodogram, four to a resolution element)."""
    n = x.shape[0]
    length = jnp.max(x) - jnp.min(x)
    count = min(2 * n, _MAX_FREQUENCIES)
    frequency = (jnp.arange(1, count + 1) / 4).astype(x.dtype) / _at_least(length, jnp.ones_like(length))
    phase = 2 * math.pi * frequency[:, None] * (x - jnp.min(x))[None, :]
    y0 = y - jnp.mean(y)
    power = (jnp.sin(phase) @ y0) ** 2 + (jnp.cos(phase) @ y0) ** 2
    best = jnp.clip(jnp.argmax(power), 1, count - 2)
    low, mid, high = power[best - 1], power[best], power[best + 1]
    bend = low - 2 * mid + high
    shift = jnp.clip((low - high) / (2 * _nonzero(bend)), -0.5, 0.5)
    chosen = frequency[best] + shift * frequency[0]
    angle = 2 * math.pi * chosen * x
    sine, cosine = solve_columns(jnp.stack([jnp.sin(angle), jnp.cos(angle)]), y)
    return models.Sinusoid(jnp.sqrt(sine**2 + cosine**2), chosen, jnp.arctan2(cosine, sine))


_ESTIMATORS: dict[Any, Estimator] = {
    models.Constant: _constant,
    models.Line: _line,
    models.Gaussian: _gaussian,
    models.Gaussian2D: _gaussian_2d,
    models.Lorentzian: _lorentzian,
    models.Voigt: _voigt,
    models.Moffat: _moffat,
    models.Lognormal: _lognormal,
    models.Exponential: _exponential,
    models.BiExponential: _bi_exponential,
    models.StretchedExponential: _stretched,
    models.PowerLaw: _power_law,
    models.Logistic: _logistic,
    models.Gompertz: _gompertz,
    models.MichaelisMenten: _michaelis_menten,
    models.Hill: _hill,
    models.Sinusoid: _sinusoid,
}
