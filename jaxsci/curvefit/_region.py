"""Where two parameters may lie together: the line on which their profile cost has risen by what a level allows.

An ellipse says it where the cost is a parabola, and nowhere else. Here the line itself is followed, vertex by vertex,
in coordinates in which that ellipse would be a circle: it may bend, end on bounds, or leave for where the data set no
limit. Each vertex starts the fit of all other parameters for the next. Users call `confidence_region`;
`plot.plot_region` draws it.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.tree_util as jtu
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from ..core import Module, Scalar, traced
from ..datasets import AbstractDataset
from ..fitting import TRF, Solution, Solver, check_same_rows, compiled
from ._interval import Search, check_told, others_fitted, place_of

_REACH = 20.0  # radii of the circle that the line would be: it is followed no farther
_ROOM = 8  # vertices of the longest line, in those of a circle
_FINEST, _COARSEST = 1 / 512, 4.0  # steps along the line, in those along a circle
_SHARP = 1.6  # angles of a circle: a step that turns by more is taken again with half the length
_BEHIND = math.pi - 1e-4  # rad to either side of the way ahead
_AT_WALL = 1e-3  # rad
_ROUNDS = 60


class Region(Module):
    """The joint confidence region of two parameters: the line around it.

    - `line`: its vertices, shape (m, 2), in the order of `names`; the last that is used is the first again where the
      line is closed, and all beyond it are nan. `mask`: True for those that are used.
    - `on_bound`: the vertices on a bound of a parameter, which comes before the level is reached.
    - `cut`: the vertices where the line was followed no farther, twenty times as far out as the ellipse: the data set
      no limit there that is worth the name.
    - `failed`: the vertices where the fit of the other parameters did not converge: do not trust them.
    - `closed`: True where the line came back to its beginning, around the best fit.
    - `ellipse`: what the covariance says for comparison, shape (e, 2), closed.
    - `allowed`: the rise of 2 cost on the line, in units of the noise: 2.30 for 68.3 % and noise of known scale.
    - `num_fits`: how many fits of the others were made.
    """

    line: Float[Array, "m 2"]
    mask: Bool[Array, " m"]
    on_bound: Bool[Array, " m"]
    cut: Bool[Array, " m"]
    failed: Bool[Array, " m"]
    closed: Bool[Array, ""]
    ellipse: Float[Array, "e 2"]
    allowed: Scalar
    num_fits: Int[Array, ""]
    names: tuple[str, str] = eqx.field(static=True)
    units: tuple[str, str] = eqx.field(static=True)

    @property
    def success(self) -> Bool[Array, "*batch"]:
        """True where the line is closed and each fit on it converged."""
        return self.closed & ~jnp.any(self.failed, -1)


def confidence_region(
    solution: Solution,
    data: AbstractDataset,
    names: tuple[str, str],
    level: float = 0.95,
    *,
    points: int = 64,
    solver: Solver = TRF(),
    chunk: int | None = None,
    max_steps: int = 200,
    **told: object,
) -> Region:
    """Follow the line around the joint confidence region of two parameters.

    On it 2 (cost - least cost), with all others fitted anew, is the quantile of chi2 with two degrees of
    freedom, 2.30 for 68.3 %; where the noise has no scale, 2 F(2, dof) chi2/dof (Bates and Watts 1988,
    section 6.1). Its shadow on an axis is therefore wider than the interval of that one parameter at the
    same level, whose rise is 1.00.

    Bounds, priors, loss and likelihood are those of the fit. What the line finds is connected with the
    best fit; of a second minimum elsewhere it knows nothing, which `multi_start` looks for. Works under
    `jax.jit` and `jax.vmap`, and has no derivative in reverse.

    **Arguments:**

    - `solution`, `data`: of a fit that converged.
    - `names`: of two free elements that the data determine: `("amp", "peak.width[1]")`.
    - `level`: between 0 and 1, of both together.
    - `points`: vertices of the line if it is an ellipse; one that bends gets more, up to eight times as many.
    - `solver`, `chunk`, `max_steps`: of the fits of the others, as in `jaxsci.fit`.
    - `told`: `bounds`, `priors`, `loss` and `likelihood` may be repeated as the fit was told them.

    **Returns:** a `Region`; look at its `success`.

    **Raises:** `ValueError` for unknown names or level, for parameters that are fixed or not determined, and for
    terms other than those of the fit.
    """
    if len(names) != 2 or names[0] == names[1]:
        raise ValueError(f"a region is one of two different parameters, but the names are {names!r}")
    if points < 8:
        raise ValueError(f"points should be 8 or more, to make a line, but it is {points}")
    if solution.y.ndim != 1:
        raise ValueError("a region is one of one fit: call confidence_region under jax.vmap for a batch of them")
    check_same_rows(solution, data)
    pair = [place_of(solution, name, level) for name in names]
    check_told(solution, data, told)
    if not traced(solution.covariance):
        for name, error in zip(names, solution.standard_errors[jnp.asarray(pair)], strict=True):
            if not (jnp.isfinite(error) and error > 0):
                raise ValueError(f"{name} is fixed or not determined by the data: it has no confidence region")
    # places and level as arrays, so that all pairs and levels share one program
    share, how = jnp.asarray(level, solution.y.dtype), Search(solver, chunk, max_steps)
    region = compiled(_region, (solution, data, jnp.asarray(pair), share, how), (points,))
    return dataclasses.replace(region, names=tuple(names), units=tuple(solution.units[k] for k in pair))


class _Plane(NamedTuple):
    """Coordinates u of two elements in which the covariance is a circle: value = best + error * (root @ u).

    `radius`: of the circle that the line is if the cost is a parabola; `noise`: the scale of the cost.
    """

    best: Float[Array, "2"]
    error: Float[Array, "2"]
    root: Float[Array, "2 2"]
    lower: Float[Array, "2"]
    upper: Float[Array, "2"]
    radius: Scalar
    noise: Scalar

    def values(self, u: Float[Array, "2"]) -> Float[Array, "2"]:
        """Both parameters at u."""
        return self.best + self.error * (self.root @ u)

    def beyond(self, values: Float[Array, "2"]) -> Scalar:
        """How far values lie outside of the bounds, in standard errors; negative within."""
        return jnp.max(jnp.maximum(values - self.upper, self.lower - values) / self.error)


def _plane(solution: Solution, pair: Int[Array, "2"], level: Scalar) -> _Plane:
    y, terms = solution.y, solution.terms
    eps = jnp.finfo(y.dtype).eps
    covariance, error = solution.covariance[pair[:, None], pair], solution.standard_errors[pair]
    # the symmetric root of the correlation matrix: with it the order of the two names does not matter
    rho = jnp.clip(covariance[0, 1] / (error[0] * error[1]), -1 + 8 * eps, 1 - 8 * eps)
    plus, minus = jnp.sqrt(1 + rho), jnp.sqrt(1 - rho)
    root = jnp.array([[plus + minus, plus - minus], [plus - minus, plus + minus]]) / 2
    none = jnp.full_like(error, jnp.inf)
    lower, upper = (
        (-none, none) if terms.lower is None or terms.upper is None else (terms.lower[pair], terms.upper[pair])
    )
    # both quantiles have closed forms for two degrees of freedom
    if solution.absolute:
        allowed, noise = -2 * jnp.log1p(-level), jnp.ones((), y.dtype)
    else:
        dof = jnp.maximum(solution.dof, 1).astype(y.dtype)
        allowed, noise = dof * jnp.expm1(-2 / dof * jnp.log1p(-level)), 2 * solution.cost / dof
    return _Plane(y[pair], error, root, lower, upper, jnp.sqrt(allowed), noise)


class _Seen(NamedTuple):
    """What was found at one place: `value` is negative in the region, 0 on the line; `y` are all parameters there.

    `limit`: what comes first there: 0 the rise of the cost, 1 a bound, 2 the reach of the search.
    """

    value: Scalar
    y: Float[Array, " p"]
    limit: Int[Array, ""]
    failed: Bool[Array, ""]


Rim = Callable[[Float[Array, "2"], Float[Array, " p"]], _Seen]
"""(place, all parameters near it) -> what is found there."""


def _rim(solution: Solution, data: AbstractDataset, pair: Int[Array, "2"], plane: _Plane, how: Search) -> Rim:
    at = jnp.zeros(solution.y.size, bool).at[pair].set(True)
    fitted = others_fitted(solution, data, at, how)
    # how all others go along with the two, by the covariance: exact where the model is linear
    (a, b), (_, c) = solution.covariance[pair[:, None], pair]
    inverse = jnp.array([[c, -b], [-b, a]]) / (a * c - b * b)
    along = solution.covariance[:, pair] @ inverse
    along = jnp.where(jnp.isfinite(along), along, 0)

    def rim(u: Float[Array, "2"], near: Float[Array, " p"]) -> _Seen:
        wanted = plane.values(u)
        held = jnp.clip(wanted, plane.lower, plane.upper)
        others = fitted((near + along @ (held - near[pair])).at[pair].set(held))
        climb = jnp.maximum(2 * (others.cost - solution.cost) / plane.noise, 0)
        rise = jnp.where(jnp.isfinite(climb), jnp.sqrt(climb) - plane.radius, jnp.inf)
        limits = jnp.stack([rise, plane.beyond(wanted), jnp.hypot(u[0], u[1]) - _REACH * plane.radius])
        near = jnp.where(jnp.all(jnp.isfinite(others.y)), others.y, near)
        return _Seen(jnp.max(limits), near, jnp.argmax(limits), ~others.success)

    return rim


class _Turn(Module):
    """A search for the direction of the next vertex: the angle `t` to the right of the way ahead, where outside is.

    `low`, `high`: angles known to point inside and outside; `wall`: no number was found at `high`.
    """

    t: Scalar
    seen: _Seen
    slope: Scalar
    low: Scalar
    high: Scalar
    wall: Bool[Array, ""]
    last: Scalar
    last_value: Scalar
    rounds: Int[Array, ""]
    on_line: Bool[Array, ""]
    lost: Bool[Array, ""]


def _turn(at: Callable[[Scalar], _Seen], y: Float[Array, " p"], slope: Scalar, enough: Scalar) -> _Turn:
    """Find the root of an increasing function nearest to 0: by secants, kept within what is known of its place."""
    eps = jnp.finfo(slope.dtype).eps

    def body(b: _Turn) -> _Turn:
        seen = at(b.t)
        value = seen.value
        low, high = jnp.where(value < 0, b.t, b.low), jnp.where(value < 0, b.high, b.t)
        secant = (value - b.last_value) / (b.t - b.last)
        good = jnp.isfinite(secant) & (secant > 0.02 * slope)
        steep = jnp.where(good, secant, b.slope)
        # short steps, lest the other side of a narrow region is taken for this one
        step = jnp.clip(jnp.where(jnp.isfinite(value), value / steep, jnp.inf), -0.6, 0.6)
        between, known = (low + high) / 2, jnp.isfinite(low) & jnp.isfinite(high)
        # around a corner the slope is another one
        least = jnp.where(b.rounds > 4, 0.3, 0.0)
        ahead = b.t - jnp.sign(value) * jnp.maximum(jnp.abs(step), least)
        # every third time the interval is halved: secants creep towards a kink
        halve = ~((low < ahead) & (ahead < high)) | (b.rounds % 3 == 2)
        ahead = jnp.where(known & halve, between, ahead)
        # in a sharp corner the line goes on almost where it came from: towards that, and never past it
        back = jnp.sign(b.t) * (jnp.abs(b.t) + math.pi) / 2
        ahead = jnp.where(jnp.abs(ahead) > _BEHIND, back, ahead)
        # where the model is not finite there is a wall in place of a line, which is followed all the same
        wall = jnp.where(value < 0, b.wall, ~jnp.isfinite(value))
        on_line = (jnp.abs(value) <= enough) | (known & (high - low <= jnp.where(wall, _AT_WALL, 8 * eps)))
        lost = ~on_line & (jnp.abs(b.t) > _BEHIND)
        t = jnp.where(on_line, jnp.where(jnp.isfinite(value), b.t, low), ahead)
        return _Turn(t, seen, steep, low, high, wall, b.t, value, b.rounds + 1, on_line, lost)

    zero, inf, no = jnp.zeros_like(slope), jnp.full_like(slope, jnp.inf), jnp.array(False)
    seen = _Seen(inf, y, jnp.array(0), ~no)
    start = _Turn(zero, seen, slope, -inf, inf, no, inf, inf, jnp.array(0), no, no)
    return lax.while_loop(lambda b: ~(b.on_line | b.lost) & (b.rounds < _ROUNDS), body, start)


class _Walk(Module):
    """How far the line was followed: counterclockwise, with the region to the left.

    At first `u` is where the line would be on a ray if the cost were a parabola, and it is sought along that.

    `heading`, `before`: direction and length of the last step; `bend`: how it turns by length; `length`: of the next
    step; `turned`: by how much since the first vertex, whose heading was `begun`.
    """

    u: Float[Array, "2"]
    y: Float[Array, " p"]
    heading: Scalar
    before: Scalar
    bend: Scalar
    length: Scalar
    slope: Scalar
    turned: Scalar
    begun: Scalar
    line: Float[Array, "m 2"]
    limit: Int[Array, " m"]
    failed: Bool[Array, " m"]
    count: Int[Array, ""]
    tries: Int[Array, ""]
    fits: Int[Array, ""]
    closed: Bool[Array, ""]
    lost: Bool[Array, ""]


def _region(
    solution: Solution, data: AbstractDataset, pair: Int[Array, "2"], level: Scalar, how: Search, points: int
) -> Region:
    plane = _plane(solution, pair, level)
    rim = _rim(solution, data, pair, plane, how)
    most, dtype = _ROOM * points, solution.y.dtype
    # across the ridge of correlated parameters, along which a region may have no limit; in no order of the names
    side = jnp.where(plane.root[0, 1] > 0, -jnp.ones((), dtype), jnp.ones((), dtype))
    ray = math.sqrt(0.5) * jnp.stack([jnp.ones_like(side), side])
    zero, none, no = jnp.zeros((), dtype), jnp.array(0), jnp.array(False)
    even = 2 * math.pi / points
    start = _Walk(
        u=plane.radius * ray,
        y=solution.y,
        heading=math.pi / 2 + side * math.pi / 4,
        before=zero,
        bend=1 / plane.radius,
        length=2 * math.sin(even / 2) * plane.radius,  # the chord
        slope=jnp.ones((), dtype),
        turned=zero,
        begun=zero,
        line=jnp.full((most, 2), jnp.nan, dtype),
        limit=jnp.zeros(most, int),
        failed=jnp.zeros(most, bool),
        count=none,
        tries=none,
        fits=none,
        closed=no,
        lost=no | ~jnp.all(jnp.isfinite(plane.error) & (plane.error > 0)),
    )

    def going(w: _Walk) -> Array:
        return ~(w.closed | w.lost) & (w.count < most - 1) & (w.tries < 3 * most)

    walk = lax.while_loop(going, lambda w: _further(w, rim, solution, plane, points), start)
    return _described(walk, plane, points)


def _further(w: _Walk, rim: Rim, solution: Solution, plane: _Plane, points: int) -> _Walk:
    """One more vertex, or the same tried with half the length; at first the place on a ray where the line begins."""
    even, radius = 2 * math.pi / points, plane.radius
    eps = jnp.finfo(radius.dtype).eps
    enough = 0.02 * jnp.sqrt(eps) * radius + 16 * eps * jnp.abs(solution.cost) / plane.noise / radius
    turn = jnp.clip(w.bend * (w.before + w.length) / 2, -_SHARP * even, _SHARP * even)

    def place(t: Scalar) -> Float[Array, "2"]:
        angle = w.heading + turn - t
        on = w.u + w.length * jnp.stack([jnp.cos(angle), jnp.sin(angle)])
        return jnp.where(first, jnp.exp(4 * t) * w.u, on)  # bounds may be near

    # one search for both, because each fit in a program takes seconds to compile
    first, slope = w.tries == 0, w.slope * w.length
    found = _turn(lambda t: rim(place(t), w.y), w.y, jnp.where(first, 4 * radius, slope), enough)
    change = turn - found.t
    # a shorter step would turn by what is left of the search
    finest = jnp.maximum(_FINEST * even * radius, 4 * enough / even)
    sharp = (jnp.abs(change) > _SHARP * even) & (w.count > 0)  # where the line heads at first was a guess
    keep = found.on_line & (~sharp | (w.length <= finest))
    u, heading = place(found.t), w.heading + change
    line = w.line.at[w.count].set(jnp.where(keep, u, jnp.nan))
    turned = jnp.where(w.count == 0, 0, w.turned + change)
    begun = jnp.where(w.count == 0, heading, w.begun)
    # near the first vertex, after a turn around, and on the same side of the region
    near = jnp.linalg.norm(u - line[0]) <= 1.25 * w.length
    closed = keep & near & (w.count > 2) & (turned > math.pi) & (jnp.cos(heading - begun) > -0.3)
    stretch = jnp.clip(even / jnp.maximum(jnp.abs(change), eps), 0.5, 1.25)
    length = jnp.clip(w.length * stretch, finest, _COARSEST * even * radius)
    off = jnp.abs(found.seen.value) > 1e-3 * radius  # a jump of the cost is no line
    after = _Walk(
        u=u,
        y=found.seen.y,
        heading=heading,
        before=w.length,
        bend=jnp.where(sharp | (w.count == 0), 0, 2 * change / (w.before + w.length)),  # no corner foretells a turn
        length=length,
        slope=jnp.clip(found.slope / w.length, 0.05, 20.0),
        turned=turned,
        begun=begun,
        line=line,
        limit=w.limit.at[w.count].set(found.seen.limit),
        failed=w.failed.at[w.count].set(found.seen.failed | off),
        count=w.count + 1,
        tries=w.tries + 1,
        fits=w.fits + found.rounds,
        closed=closed,
        lost=jnp.array(False),
    )
    again = eqx.tree_at(
        lambda w: (w.length, w.tries, w.fits, w.lost),
        w,
        (w.length / 2, w.tries + 1, w.fits + found.rounds, ~found.on_line & (w.length <= finest / 8)),
    )
    # a best fit on a bound, and the ray beyond it: the line goes through the best fit
    begin = jnp.where(found.on_line, u, 0)
    started = eqx.tree_at(lambda w: (w.u, w.y, w.tries, w.fits), w, (begin, found.seen.y, w.tries + 1, found.rounds))
    return jtu.tree_map(lambda *of: jnp.where(first, of[0], jnp.where(keep, of[1], of[2])), started, after, again)


def _described(walk: _Walk, plane: _Plane, points: int) -> Region:
    most = walk.line.shape[0]
    row = jnp.arange(most)
    line = jnp.where(((row == walk.count) & walk.closed)[:, None], walk.line[:1], walk.line)
    mask = (row < walk.count) | ((row == walk.count) & walk.closed)
    # the line around a second minimum is none around the best fit, unless that lies on a bound and so on the line
    steps = jnp.diff(jnp.arctan2(line[:, 1], line[:, 0]))
    steps = jnp.where(mask[1:], jnp.mod(steps + math.pi, 2 * math.pi) - math.pi, 0)
    around = (jnp.sum(steps) > 1) | (plane.beyond(plane.best) > -1e-3)
    # what stands in a bound's way by a rounding is on it
    values = jax.vmap(lambda u: jnp.clip(plane.values(u), plane.lower, plane.upper))(line)
    angle = jnp.linspace(0.0, 2 * math.pi, points + 1, dtype=line.dtype)
    circle = plane.radius * jnp.stack([jnp.cos(angle), jnp.sin(angle)], -1)
    limit = walk.limit.at[walk.count].set(walk.limit[0])
    failed = walk.failed.at[walk.count].set(walk.failed[0])
    return Region(
        line=jnp.where(mask[:, None], values, jnp.nan),
        mask=mask,
        on_bound=mask & (limit == 1),
        cut=mask & (limit == 2),
        failed=mask & failed,
        closed=walk.closed & around,
        ellipse=jax.vmap(plane.values)(circle),
        allowed=plane.radius**2,
        num_fits=walk.fits,
        names=("", ""),  # no part of the program, which all pairs share
        units=("", ""),
    )
