"""Trust-region reflective least squares with bounds, the solver that `fit` takes by default.

It is scipy's `trf` in outline, but the subproblem is solved on the curvature matrix instead of the Jacobian, so that it
never holds the rows and takes an `Arrow` or a `Nested` as well as a dense matrix. When to accept, to stop and to polish
is what it shares with `GaussNewton`, in `_trust_region`.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optimistix as optx
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from ...core import Module, Scalar
from ...core.linalg import diagonal, dot, factorise, largest_row, matvec, scaled, shifted
from ._trust_region import AbstractTrustSolver, Bounds, Local, Proposal, TrustState, quadratic, unit_scale

_ROOT_STEPS = 4  # factorisations a subproblem beside that of the undamped step


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
    - `fine`: a polishing step this small, in the units of `rtol`, is not worth an evaluation.

    Branch, Coleman and Li 1999, SIAM J. Sci. Comput. 21; More and Sorensen 1983.
    """

    rtol: float = 1e-8
    atol: float = 1e-12
    fine: float = 1e-13
    norm: Callable = optx.max_norm

    def start(self, y, bounds):  # type: ignore[no-untyped-def]
        return (_inside(bounds.clip(y), bounds, 1e-10) if bounds.exist else y), 0.0

    def update_radius(self, state: TrustState, ratio, finite):  # type: ignore[no-untyped-def]
        grown = jnp.where((ratio > 0.75) & (state.length > 0.95 * state.radius), 2 * state.radius, state.radius)
        return jnp.where(finite & (ratio >= 0.25), grown, 0.25 * state.length)

    def propose(self, local: Local, state: TrustState, radius):  # type: ignore[no-untyped-def]
        y, grad, bounds = local.y, local.grad, local.bounds
        hat = _hat(local)
        length = jnp.sqrt(jnp.sum((y / jnp.where(hat.d > 0, hat.d, jnp.inf)) ** 2))
        size = jnp.sqrt(2 * jnp.abs(local.cost))
        length = jnp.where(length > 0, length, size)
        radius = jnp.where(state.first, length, radius)
        guess = state.multiplier * state.radius / jnp.where(radius > 0, radius, 1)
        step, multiplier, newton, undamped = _subproblem(hat, radius, guess)
        decrement = jnp.sqrt(jnp.maximum(-dot(newton, hat.grad), 0))
        if bounds.exist:
            step = _best_step(y, hat, step, radius, bounds, decrement / (size + jnp.finfo(y.dtype).tiny))
            trial = _inside(y + hat.d * step, bounds, 0.0)
            trial = jnp.where(local.held, y, trial)
        else:
            trial = y + hat.d * step
        return Proposal(
            trial=trial,
            radius=radius,
            multiplier=multiplier,
            predicted=-quadratic(grad, local.gram, trial - y),
            length=jnp.sqrt(dot(step, step)),
            newton=hat.d * newton,
            decrement=decrement,
            solved=undamped.ok,
            determined=undamped.least > 64 * grad.size * jnp.finfo(y.dtype).eps,
        )


class Hat(Module):
    """The quadratic model in Coleman and Li's variables s_hat = s / d."""

    d: Float[Array, " p"]
    grad: Float[Array, " p"]
    matrix: Any


def _hat(local: Local) -> Hat:
    """d = sqrt(distance to the bound that the gradient points to) and the curvature that comes with it."""
    y, grad, bounds, inverse = local.y, local.grad, local.bounds, local.inverse_scale
    d, curvature = inverse, jnp.zeros_like(y)
    if bounds.exist:
        up = (grad < 0) & jnp.isfinite(bounds.upper)
        down = (grad > 0) & jnp.isfinite(bounds.lower)
        distance = jnp.where(up, bounds.upper - y, jnp.where(down, y - bounds.lower, inverse))
        d = jnp.where(local.held, 0, jnp.sqrt(jnp.maximum(distance, 0) * inverse))
        curvature = jnp.where(up | down, jnp.abs(grad) * inverse, 0)
    # a parameter without effect, and a held one, gets a unit pivot and so no step
    idle = d * d * diagonal(local.gram) + curvature == 0
    extra = jnp.where(local.held | idle, 1, curvature)
    return Hat(d, d * grad, shifted(scaled(local.gram, d), extra))


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


class Search(Module):
    """The carry of the root search for the multiplier."""

    multiplier: Scalar
    low: Scalar
    high: Scalar
    step: Float[Array, " p"]
    rounds: Int[Array, ""]
    settled: Bool[Array, ""]


class _Step(NamedTuple):
    """The step within the trust radius with its multiplier, the undamped one, and the factor that gave that."""

    step: Float[Array, " p"]
    multiplier: Scalar
    newton: Float[Array, " p"]
    undamped: Any


def _subproblem(hat: Hat, radius: Scalar, guess: Scalar) -> _Step:
    """argmin g.s + s.H.s / 2 for |s| <= radius.

    Safeguarded Newton on 1/|s|, a few rounds; the first guess comes from the last subproblem.
    """
    grad, matrix = hat.grad, hat.matrix
    unit = unit_scale(matrix, jnp.ones_like(grad))
    rounding = grad.size * jnp.finfo(grad.dtype).eps
    ridge = rounding / unit**2
    radius = jnp.maximum(radius, jnp.finfo(grad.dtype).tiny)
    size = largest_row(matrix)
    undamped = factorise(shifted(scaled(matrix, unit), jnp.full_like(grad, rounding)))
    newton = -unit * undamped.solve(unit * grad)
    length = jnp.sqrt(dot(newton, newton))
    inside = undamped.ok & (length <= radius)
    norm = jnp.sqrt(dot(grad, grad))
    # H >= -size, so that this multiplier is large enough also where H is indefinite
    high = norm / radius + jnp.where(undamped.ok, 0, size)

    def better(multiplier: Array, step: Array, length: Array, solve: Callable[[Array], Array], unit: Array) -> Array:
        bend = dot(step, unit * solve(unit * step))
        return multiplier + (length / radius - 1) * length**2 / jnp.where(bend > 0, bend, 1)

    def safe(multiplier: Array, low: Array, high: Array, ok: Array) -> Array:
        fine = ok & (multiplier > low) & (multiplier < high)
        return jnp.where(fine, multiplier, jnp.maximum(1e-3 * high, jnp.sqrt(low * high)))

    def newton_round(search: Search) -> Search:
        factor = factorise(shifted(matrix, search.multiplier + ridge))
        step = -factor.solve(grad)
        step = jnp.where(factor.ok, step, -grad / (search.multiplier + size))
        length = jnp.sqrt(dot(step, step))
        short = factor.ok & (length < radius)
        low = jnp.where(short, search.low, search.multiplier)
        high = jnp.where(short, search.multiplier, search.high)
        settled = factor.ok & (jnp.abs(length - radius) < 0.1 * radius)
        following = safe(
            better(search.multiplier, step, length, factor.solve, jnp.ones_like(grad)), low, high, factor.ok
        )
        multiplier = jnp.where(settled, search.multiplier, following)
        return Search(multiplier, low, high, step, search.rounds + 1, settled)

    zero = jnp.zeros((), grad.dtype)
    first = better(zero, newton, length, undamped.solve, unit)
    first = safe(jnp.where(guess > 0, guess, first), zero, high, undamped.ok | (guess > 0))
    start = Search(first, zero, high, newton, jnp.array(0), inside)
    search = lax.while_loop(lambda s: ~s.settled & (s.rounds < _ROOT_STEPS), newton_round, start)
    length = jnp.sqrt(dot(search.step, search.step))
    cut = search.step * (radius / jnp.where(length > 0, length, 1))
    return _Step(jnp.where(inside, newton, cut), jnp.where(inside, 0, search.multiplier), newton, undamped)


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
    theta = jnp.maximum(0.995, 1 - optimality)  # the nearer to the optimum, the closer to the bound
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
    bends = jax.vmap(functools.partial(matvec, hat.matrix))(candidates)
    values = jnp.sum(candidates * (hat.grad[None, :] + bends / 2), axis=1)
    values = jnp.where(jnp.isfinite(values), values, jnp.inf)
    values = jnp.where(jnp.array([False, True, False]) & ~possible, jnp.inf, values)
    best = jnp.sum(jnp.where((jnp.arange(3) == jnp.argmin(values))[:, None], candidates, 0), axis=0)
    return jnp.where(inside, step, best)
