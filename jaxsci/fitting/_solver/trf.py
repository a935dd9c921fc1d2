"""Trust-region reflective least squares with bounds."""

from collections.abc import Callable

import jax.numpy as jnp
import optimistix as optx
from jax import lax
from jaxtyping import Array, Bool, Float

from ...core._linalg import cholesky, dot, matvec, solve_factored, solve_lower
from ...core._module import Module
from ...core._typing import Scalar
from ._trust_region import AbstractTrustSolver, Bounds, Local, Proposal, TrustState, quadratic

_ROOT_STEPS = 5  # Cholesky factorisations a subproblem; the first is the Gauss-Newton step


class TRF(AbstractTrustSolver):
    """Trust-region reflective: the interior-point scaling of Coleman and Li keeps steps off the bounds.

    Each step is the best, by the quadratic model, of the trust-region step cut at the bounds, its
    reflection off the first bound, and the scaled gradient; the subproblem is solved by Newton's
    iteration on Cholesky factors (More and Sorensen). Undamped polishing steps put parameters that
    belong on a bound exactly on it.

    **Arguments:**

    - `rtol`: stop when the step expected from here is this small in units of the noise
      (sqrt(g^T F^-1 g) <= rtol sqrt(2 cost)); undamped polishing steps follow.
    - `atol`: or when each parameter would change by no more than this fraction of itself.

    Branch, Coleman and Li 1999, SIAM J. Sci. Comput. 21; More and Sorensen 1983.
    """

    rtol: float = 1e-8
    atol: float = 1e-12
    norm: Callable = optx.max_norm

    def start(self, y, bounds):  # type: ignore[no-untyped-def]
        return _inside(jnp.clip(y, bounds.lower, bounds.upper), bounds, 1e-10), 0.0

    def update_radius(self, state: TrustState, ratio, finite):  # type: ignore[no-untyped-def]
        grown = jnp.where((ratio > 0.75) & (state.length > 0.95 * state.radius), 2 * state.radius, state.radius)
        return jnp.where(finite & (ratio >= 0.25), grown, 0.25 * state.length)

    def propose(self, local: Local, state: TrustState, radius):  # type: ignore[no-untyped-def]
        y, grad, bounds, inverse = local.y, local.grad, local.bounds, local.inverse_scale
        distance, slope = _coleman_li(y, grad, bounds)
        bounded = slope != 0
        distance = jnp.where(bounded, distance / inverse, distance)
        fixed = bounds.fixed
        d = jnp.where(fixed, 0, jnp.sqrt(distance) * inverse)
        curvature = jnp.where(fixed, 1, grad * slope * inverse)
        hat = Hat(d, d * grad, d[:, None] * local.gram * d + jnp.diag(curvature))
        length = jnp.sqrt(jnp.sum((jnp.where(fixed, 0, y / inverse / jnp.sqrt(distance))) ** 2))
        length = jnp.where(length > 0, length, jnp.sqrt(2 * jnp.abs(local.cost)))
        radius = jnp.where(state.first, length, radius)
        guess = jnp.where(state.first, 0, state.multiplier * state.radius / jnp.where(radius > 0, radius, 1))
        step_hat, multiplier = _subproblem(hat, radius, guess)
        step_hat = _best_step(y, hat, step_hat, radius, bounds, jnp.max(jnp.abs(grad * distance)))
        trial = _inside(y + d * step_hat, bounds, 0.0)
        predicted = -quadratic(grad, local.gram, trial - y)
        return Proposal(trial, radius, multiplier, predicted, jnp.sqrt(dot(step_hat, step_hat)))


class Hat(Module):
    """The quadratic model in Coleman and Li's variables s_hat = s / d."""

    d: Float[Array, " p"]
    grad: Float[Array, " p"]
    matrix: Float[Array, "p p"]


def _coleman_li(y: Array, grad: Array, bounds: Bounds) -> tuple[Array, Array]:
    """Distance to the bound that the gradient points to (1 where there is none) and its derivative."""
    up = (grad < 0) & jnp.isfinite(bounds.upper)
    down = (grad > 0) & jnp.isfinite(bounds.lower)
    distance = jnp.where(up, bounds.upper - y, jnp.where(down, y - bounds.lower, 1))
    return distance, jnp.where(up, -1, jnp.where(down, 1, 0)).astype(y.dtype)


def _inside(y: Array, bounds: Bounds, margin: float) -> Array:
    """y moved strictly between the bounds, by `margin` relative to the bound or by one rounding unit."""
    lower, upper = bounds.lower, bounds.upper
    if margin == 0.0:
        y = jnp.where(y <= lower, jnp.nextafter(lower, upper), y)
        y = jnp.where(y >= upper, jnp.nextafter(upper, lower), y)
    else:
        low, high = (margin * jnp.maximum(1, jnp.abs(jnp.where(jnp.isfinite(b), b, 0))) for b in (lower, upper))
        y = jnp.where(y < lower + low, lower + low, y)
        y = jnp.where(y > upper - high, upper - high, y)
    outside = (y <= lower) | (y >= upper)
    return jnp.where(outside & (lower <= upper) & jnp.isfinite(lower + upper), (lower + upper) / 2, y)


def _subproblem(hat: Hat, radius: Scalar, guess: Scalar) -> tuple[Array, Array]:
    """argmin g.s + s.H.s / 2 for |s| <= radius, and its multiplier: safeguarded Newton on 1/|s|."""
    n = hat.grad.size
    eps = jnp.finfo(hat.grad.dtype).eps
    eye = jnp.eye(n, dtype=hat.grad.dtype)
    ridge = 4 * eps * jnp.sum(jnp.abs(jnp.diagonal(hat.matrix)))
    norm = jnp.sqrt(dot(hat.grad, hat.grad))
    radius = jnp.where(radius > 0, radius, jnp.finfo(hat.grad.dtype).tiny)
    size = jnp.max(jnp.sum(jnp.abs(hat.matrix), axis=1))

    def newton(k, carry):  # type: ignore[no-untyped-def]
        multiplier, low, high, step, finished = carry
        factor, ok = cholesky(hat.matrix + (multiplier + ridge) * eye)
        trial = -solve_factored(factor, hat.grad)
        trial = jnp.where(ok, trial, -hat.grad / (multiplier + size))
        length = jnp.sqrt(dot(trial, trial))
        half = solve_lower(factor, trial)
        square = dot(half, half)
        inside = ok & (length <= radius)
        settled = (inside & (multiplier == 0)) | (ok & (jnp.abs(length - radius) < 0.05 * radius))
        low = jnp.where(ok & inside, low, multiplier)
        high = jnp.where(inside, multiplier, high + jnp.where(ok, 0, size))
        gain = (length / radius - 1) * length**2 / jnp.where(square > 0, square, 1)
        following = multiplier + gain
        following = jnp.where((k == 0) & ok & (guess > 0), guess, following)
        safe = ok & (following > low) & (following < high)
        following = jnp.where(safe, following, jnp.maximum(1e-3 * high, jnp.sqrt(low * high)))
        keep = lambda new, old: jnp.where(finished, old, new)  # noqa: E731
        step = keep(trial, step)
        return (
            jnp.where(finished | settled, multiplier, following),
            keep(low, low),
            keep(high, high),
            step,
            finished | settled,
        )

    zero = jnp.zeros((), hat.grad.dtype)
    start = (zero, zero, norm / radius, jnp.zeros_like(hat.grad), jnp.array(False))
    multiplier, _, _, step, _ = lax.fori_loop(0, _ROOT_STEPS, newton, start)
    length = jnp.sqrt(dot(step, step))
    stretch = (length > radius) | (multiplier > 0)
    step = step * jnp.where(stretch & (length > 0), radius / jnp.where(length > 0, length, 1), 1)
    return step, multiplier


def _to_bound(y: Array, step: Array, bounds: Bounds) -> tuple[Array, Bool[Array, " p"]]:
    """How many steps to the first bound, and which parameters meet it."""
    moving = step != 0
    safe = jnp.where(moving, step, 1)
    steps = jnp.where(moving, jnp.maximum((bounds.lower - y) / safe, (bounds.upper - y) / safe), jnp.inf)
    nearest = jnp.min(steps, initial=jnp.inf)
    return nearest, (steps == nearest) & moving


def _to_sphere(at: Array, direction: Array, radius: Array) -> Array:
    """The positive t with |at + t direction| = radius, for |at| <= radius."""
    a, b, c = dot(direction, direction), dot(at, direction), dot(at, at) - radius**2
    root = jnp.sqrt(jnp.maximum(b * b - a * c, 0))
    q = -(b + jnp.where(b >= 0, root, -root))
    return jnp.maximum(q / jnp.where(a > 0, a, 1), c / jnp.where(q != 0, q, -1))


def _line_minimum(a: Array, b: Array, low: Array, high: Array) -> Array:
    """argmin a t^2 + b t on [low, high]."""
    inner = jnp.clip(-0.5 * b / jnp.where(a > 0, a, 1), low, high)
    end = jnp.where(a * high**2 + b * high < a * low**2 + b * low, high, low)
    return jnp.where(a > 0, inner, end)


def _best_step(y: Array, hat: Hat, step: Array, radius: Array, bounds: Bounds, optimality: Array) -> Array:
    """The trust-region step if it stays inside; else the best of it cut, reflected, and the gradient."""
    theta = jnp.maximum(0.995, 1 - optimality).astype(y.dtype)
    share, hits = _to_bound(y, hat.d * step, bounds)
    inside = share > 1
    share = jnp.where(inside, 1, share)
    edge = share * step
    mirror = jnp.where(hits, -step, step)
    to_bound, _ = _to_bound(y + hat.d * edge, hat.d * mirror, bounds)
    to_sphere = _to_sphere(edge, mirror, radius)
    high = jnp.where(to_bound <= to_sphere, theta * to_bound, to_sphere)
    low = (1 - theta) * share
    possible = (high > low) & (jnp.minimum(to_bound, to_sphere) > 0)
    bend = matvec(hat.matrix, mirror)
    along = _line_minimum(dot(mirror, bend) / 2, dot(hat.grad, mirror) + dot(edge, bend), low, high)
    reflected = edge + along * mirror

    norm = jnp.sqrt(dot(hat.grad, hat.grad))
    downhill = -hat.grad
    to_bound, _ = _to_bound(y, hat.d * downhill, bounds)
    to_sphere = radius / jnp.where(norm > 0, norm, 1)
    high = jnp.where(to_bound < to_sphere, theta * to_bound, to_sphere)
    bend = matvec(hat.matrix, downhill)
    cauchy = downhill * _line_minimum(dot(downhill, bend) / 2, dot(hat.grad, downhill), jnp.zeros_like(high), high)

    candidates = jnp.stack([theta * edge, reflected, cauchy])
    bends = jnp.sum(hat.matrix[None] * candidates[:, None, :], axis=2)
    values = jnp.sum(candidates * (hat.grad + bends / 2), axis=1)
    values = jnp.where(jnp.isfinite(values), values, jnp.inf)
    values = jnp.where(jnp.array([False, True, False]) & ~possible, jnp.inf, values)
    best = jnp.sum(jnp.where((jnp.arange(3) == jnp.argmin(values))[:, None], candidates, 0), axis=0)
    return jnp.where(inside, step, best)
