"""How well one parameter is known when its cost is no parabola, and how much of the data a fit explains.

A standard error speaks of a parabola. Where the cost is none, the interval is sought where it has risen by so much with
all other parameters fitted anew: one fit inside of a search for a root, for both ends at once. Users call
`confidence_interval` and `r_squared`; `plot.plot_profile` draws the cost in between.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.flatten_util as jfu
import jax.numpy as jnp
import jax.tree_util as jtu
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from ..core import Module, Normal, Scalar, free_spec, suggest, traced
from ..datasets import AbstractDataset, Dataset
from ..fitting import (
    TRF,
    Priors,
    Solution,
    Solver,
    check_same_rows,
    compiled,
    fit,
    flat_bounds,
    flat_priors,
    make_plan,
)

_ROUNDS = 40
_FARTHEST = 1e3  # Wald intervals: a profile that has not risen there is open


class Interval(Module):
    """A confidence interval of one parameter.

    - `lower`, `upper`: by profile likelihood; a bound of the parameter where that comes first, infinite
      where the data set no limit.
    - `wald_lower`, `wald_upper`: value -+ quantile x standard error, for comparison.
    """

    lower: Scalar
    upper: Scalar
    wald_lower: Scalar
    wald_upper: Scalar


def confidence_interval(
    solution: Solution,
    data: AbstractDataset,
    name: str,
    level: float = 0.95,
    *,
    solver: Solver = TRF(),
    chunk: int | None = None,
    max_steps: int = 200,
    **told: object,
) -> Interval:
    """Find where the best cost for a fixed value of one parameter has risen by what `level` allows.

    2 (cost - least cost) = F, with F the quantile of chi2 with one degree of freedom; where the noise
    has no scale, F(1, dof) chi2/dof (Bates and Watts 1988, section 6.1). All others are fitted anew at
    each value, within the bounds and with the priors, the loss and the likelihood of the fit, which the
    solution keeps; both ends are sought side by side. Works under `jax.jit` and `jax.vmap`.

    **Arguments:**

    - `solution`, `data`: of a fit that converged.
    - `name`: of a free element: `"tau"`, `"c[1]"`.
    - `level`: between 0 and 1.
    - `solver`, `chunk`, `max_steps`: of the fits of the others, as in `jaxsci.fit`.
    - `told`: `bounds`, `priors`, `loss` and `likelihood` may be repeated as the fit was told them.

    **Returns:** an `Interval`.

    **Raises:** `ValueError` for an unknown name or level, and for terms other than those of the fit.
    """
    check_same_rows(solution, data)
    place = place_of(solution, name, level)
    check_told(solution, data, told)
    # place and level as arrays, so that all parameters and levels share one program
    index, share = jnp.asarray(place), jnp.asarray(level, solution.y.dtype)
    return compiled(_interval, (solution, data, index, share, Search(solver, chunk, max_steps)))


def place_of(solution: Solution, name: str, level: float) -> int:
    """Find a free element in y, and hold the level to what has a sense.

    **Raises:** `ValueError` for an unknown name or level, and for fits whose noise was free.
    """
    if name not in solution.names:
        hint = suggest(name, solution.names)
        raise ValueError(f"there was no free parameter {name!r}{hint} (free: {', '.join(solution.names)})")
    if not 0 < level < 1:
        raise ValueError(f"level should lie between 0 and 1, but it is {level}")
    if solution.noise is not None:
        raise ValueError("intervals of fits with free noise parameters are not offered; sample the posterior instead")
    return solution.names.index(name)


class Search(NamedTuple):
    """How all other parameters are fitted while one is held: as the arguments of `jaxsci.fit` of these names."""

    solver: Solver
    chunk: int | None
    max_steps: int


def check_told(solution: Solution, data: AbstractDataset, told: Mapping[str, Any]) -> None:
    """Hold terms that a caller repeats to those that the fit was told; traced ones are taken on trust.

    **Raises:** `ValueError` for other bounds, priors, loss or likelihood, `TypeError` for another option.
    """
    if not told:
        return
    terms, known = solution.terms, ("bounds", "priors", "loss", "likelihood")
    plan = make_plan(solution.model, data.noise, [name for name, _ in solution.free])
    given: dict[str, tuple[Any, Any]] = {}
    for name, value in told.items():
        if name == "bounds":
            given[name] = flat_bounds(plan, value, told.get("priors")), (terms.lower, terms.upper)
        elif name == "priors":
            given[name] = flat_priors(plan, value), Priors(terms.prior_mean, terms.prior_weight, terms.shaped)
        elif name in known:
            given[name] = value, getattr(terms, name)
        else:
            raise TypeError(f"confidence_interval has no option {name!r}{suggest(name, known)}")
    for name, (mine, theirs) in given.items():
        if not traced((mine, theirs)) and not eqx.tree_equal(mine, theirs):
            raise ValueError(
                f"{name} here is not that of the fit, which the solution keeps: leave {name} out, or fit anew with it"
            )


def others_fitted(
    solution: Solution, data: AbstractDataset, at: Bool[Array, " p"], how: Search
) -> Callable[[Float[Array, " p"]], Solution]:
    """Make the function start -> fit of all elements but those `at`, which stay as in the start; on the fit's terms.

    **Arguments:** `at`: True at the elements that are held, shape (p,); `how`: how all others are fitted.
    """
    terms = solution.terms
    free = tuple(name for name, _ in solution.free)
    own, rest = eqx.partition(solution.model, free_spec(solution.model, free))
    _, unravel = jfu.ravel_pytree(own)
    bounds: dict[str, Any] = {}
    priors: dict[str, Any] = {}
    begin = 0
    for name, shape in solution.free:
        part = slice(begin, begin + math.prod(shape))
        begin += math.prod(shape)
        if terms.lower is not None and terms.upper is not None:
            bounds[name] = terms.lower[part].reshape(shape), terms.upper[part].reshape(shape)
        sigma = 1 / jnp.sqrt(terms.prior_weight[part])  # infinite where there is none
        priors[name] = Normal(terms.prior_mean[part].reshape(shape), sigma.reshape(shape))
    for shaped in terms.shaped:
        for place, k in enumerate(shaped.at):
            priors[solution.names[k]] = jtu.tree_map(lambda x: x[place], shaped.prior)  # noqa: B023

    def others(start: Float[Array, " p"]) -> Solution:
        return fit(
            eqx.combine(unravel(start), rest),
            data,
            free=free,
            bounds=bounds,
            priors=priors,
            solver=how.solver,
            loss=terms.loss,
            likelihood=terms.likelihood,
            active=~at & ~solution.fixed,
            chunk=how.chunk,
            max_steps=how.max_steps,
            throw=False,
        )

    return others


def _interval(solution: Solution, data: AbstractDataset, index: Int[Array, ""], level: Scalar, how: Search) -> Interval:
    y, at = solution.y, jnp.arange(solution.y.size) == index
    # a direction that the data do not determine has no Wald interval to start from
    error = solution.standard_errors[index]
    unit = jnp.where(jnp.isfinite(error) & (error > 0), error, jnp.maximum(jnp.abs(y[index]), 1))
    normal = jax.scipy.special.ndtri((1 + level) / 2)
    if solution.absolute:
        quantile, noise = normal, jnp.ones((), y.dtype)
    else:
        dof = jnp.maximum(solution.dof, 1).astype(y.dtype)
        quantile, noise = student_quantile(level, dof), 2 * solution.cost / dof
    fitted = others_fitted(solution, data, at, how)

    def rise(value: Array) -> Array:
        """sqrt of the rise of the cost in units of the noise, less what is allowed."""
        climb = jnp.maximum(2 * (fitted(jnp.where(at, value, y)).cost - solution.cost) / noise, 0)
        return jnp.where(jnp.isfinite(climb), jnp.sqrt(climb) - quantile, jnp.inf)

    lower, upper = solution.terms.lower, solution.terms.upper
    ends = (-jnp.inf, jnp.inf) if lower is None or upper is None else (lower[index], upper[index])
    sides = jnp.array([-1.0, 1.0], y.dtype)
    room = jnp.abs(jnp.stack([jnp.asarray(end, y.dtype) for end in ends]) - y[index]) / unit
    cross = jax.vmap(lambda side, most: _crossing(lambda t: rise(y[index] + side * t * unit), quantile, most))
    reached = y[index] + sides * cross(sides, room) * unit
    wald = y[index] + sides * quantile * error
    reached = jnp.where(solution.fixed[index], y[index], reached)
    return Interval(reached[0], reached[1], wald[0], wald[1])


class _Bracket(Module):
    low: Scalar
    low_value: Scalar
    high: Scalar
    high_value: Scalar
    t: Scalar
    below: Bool[Array, ""]
    rounds: Int[Array, ""]
    done: Bool[Array, ""]


def _crossing(rise: Callable[[Scalar], Scalar], guess: Scalar, room: Scalar) -> Scalar:
    """The t in (0, room) where an increasing function crosses 0, by the Illinois method; `room` where it does
    not, infinite where it is still below 0 very far out."""
    eps = jnp.finfo(guess.dtype).eps
    most = jnp.minimum(room, _FARTHEST * guess)

    def body(b: _Bracket) -> _Bracket:
        value = rise(b.t)
        below = value < 0
        # an end that stays for a second time counts half, lest the other creep
        low_value = jnp.where(below, value, jnp.where(b.below, b.low_value, b.low_value / 2))
        high_value = jnp.where(below, jnp.where(b.below, b.high_value / 2, b.high_value), value)
        low, high = jnp.where(below, b.t, b.low), jnp.where(below, b.high, b.t)
        rising = jnp.isfinite(high_value) & (high_value > low_value)
        share = -low_value / jnp.where(rising, high_value - low_value, 1)
        inner = jnp.where(rising & (share > 0) & (share < 1), low + share * (high - low), (low + high) / 2)
        outer = jnp.clip(b.t * guess / jnp.maximum(value + guess, 0.1 * guess), 1.5 * b.t, 10 * b.t)
        following = jnp.minimum(jnp.where(jnp.isfinite(high), inner, outer), most)
        found = (jnp.abs(value) <= 1e-2 * jnp.sqrt(eps)) | (jnp.isfinite(high) & (high - low <= 4 * eps * high))
        done = found | (below & (b.t >= most))
        return _Bracket(low, low_value, high, high_value, jnp.where(done, b.t, following), below, b.rounds + 1, done)

    zero, inf = jnp.zeros_like(guess), jnp.full_like(guess, jnp.inf)
    start = _Bracket(zero, -guess, inf, inf, jnp.minimum(guess, most), jnp.array(True), jnp.array(0), jnp.array(False))
    end = lax.while_loop(lambda b: ~b.done & (b.rounds < _ROUNDS), body, start)
    return jnp.where(end.below & (end.t >= most) & (most < room), jnp.inf, end.t)


def student_quantile(level: Scalar, dof: Scalar) -> Scalar:
    """Compute t with P(|T| < t) = level for Student's distribution, by bisection on the incomplete beta function."""

    def inside(t: Array) -> Array:
        return 1 - jax.scipy.special.betainc(dof / 2, jnp.full_like(dof, 0.5), dof / (dof + t * t))

    def halve(_: Int[Array, ""], ends: tuple[Array, Array]) -> tuple[Array, Array]:
        mid = (ends[0] + ends[1]) / 2
        short = inside(jnp.tan(mid)) < level
        return jnp.where(short, mid, ends[0]), jnp.where(short, ends[1], mid)

    ends = lax.fori_loop(0, 60, halve, (jnp.zeros_like(dof), jnp.full_like(dof, math.pi / 2)))
    return jnp.tan((ends[0] + ends[1]) / 2)


def r_squared(solution: Solution, data: Dataset) -> Float[Array, ""]:
    """Tell the share of the weighted scatter of the data that the model explains: 1 - chi2 / chi2 of their mean.

    For Gaussian noise; the mean is the one that fits best.

    **Arguments:** `solution`, `data`: of one fit.

    **Returns:** a number without unit, 1 for a model that goes through all points.
    """
    mask, noise = data.mask, solution.noise if solution.noise is not None else data.noise
    model = solution.model
    residual = data.residual(model)
    observed = model(data.inputs) - residual
    z, one, rest = (noise.standardise(v, mask) for v in (observed, jnp.ones_like(observed), residual))
    mean = jnp.sum(z * one) / jnp.sum(one * one)
    return 1 - jnp.sum(rest * rest) / jnp.sum((z - mean * one) ** 2)
