"""One search for many small bounded fits: its steps, its endings, and what is known where it ends.

A fit of a few parameters is so cheap that general machinery (trees in a carry, matrices, a batch axis in front) costs
more than its arithmetic. Here each number of a fit, be it a parameter, a sum of products or a pivot, is an array over
the members of the batch by itself, so that a step is a handful of vector operations. The search sees of a problem only
a function from a point to `Sums`; whoever has a shorter way to those than the rows of a data set gives that. The
component separation of single pixels runs on it.

Levenberg 1944, Marquardt 1963; damped as Nielsen 1999; bounds by an active set and projection (Bertsekas 1982).
"""

import abc
import functools
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.tree_util as jtu
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float, Int, Shaped

from ..core import Module
from ._uncertainty import uncertainty

Tree = TypeVar("Tree")

Numbers = tuple[Array, ...]
"""A number for each parameter, or for each pair (0, 0), (0, 1), ..., (1, 1), ... of parameters; each over all lanes."""

SEARCHING, CONVERGED, STALLED, NONFINITE = range(4)
"""How a search stands: the `status` of a `Search`."""

_LOST = 1e-10  # a pivot of the unit-diagonal information that counts as none, and the ridge that keeps steps off it
_LOST_ROUNDINGS = 16.0  # and so many roundings, where those are coarser
_TOO_MUCH = 1e12  # a damping that no step survives
_RISE = 1e-11  # of the cost: what rounding may add to it while the gradient halves
_RISE_ROUNDINGS = 16.0  # and so many roundings of it, where those are coarser
_FLAT = 4.5  # roundings of the cost: no promise that it could keep
_BLIND = 1e-6  # of chi2: what a parameter without information may still do
_NOISE = 1e5  # roundings of the gradient along what the data do not determine, a difference of nearly equal numbers
_NEAR = 1e-2  # of the squared length of the residuals: a step so short is in no danger at a bound
_FAR = 1e-3  # standard errors between an answer and the optimum, at most
_SHARE = 1e-3  # of its variance, by which an error may be too small for what a lost direction adds to it


class Sums(NamedTuple):
    """What a search sees of a problem at a point: half of chi2, its gradient, and the information by pairs."""

    cost: Array
    grad: Numbers
    gram: Numbers


class Box(NamedTuple):
    """Lower and upper bounds; equal ones fix a parameter. `leap`: the longest step, in units of the room between."""

    lower: Numbers
    upper: Numbers
    leap: float

    def fixed(self) -> Numbers:
        return tuple(low >= high for low, high in zip(self.lower, self.upper, strict=True))

    def clip(self, at: Iterable[Array]) -> Numbers:
        return tuple(jnp.clip(x, low, high) for x, low, high in zip(at, self.lower, self.upper, strict=True))

    def held(self, at: Numbers, grad: Numbers) -> Numbers:
        """True where a parameter is fixed, or on a bound that the gradient pushes it against."""
        return tuple(
            ((x <= low) & (g > 0)) | ((x >= high) & (g < 0)) | (low >= high)
            for x, g, low, high in zip(at, grad, self.lower, self.upper, strict=True)
        )


class Rule(NamedTuple):
    """How searches begin, and when they are done; part of the program.

    - `tolerance`: done where the undamped step that is left is shorter than so many standard errors for unit noise,
      or than a thousandth where rounding lets no further step succeed;
      with `relative`, than so many times the length sqrt(2 cost) of the residuals, for noise of any scale.
    - `damping`: of the first step, relative to the diagonal of the information.
    - `wary`: in so many first evaluations a step goes at most half-way to a bound, because a parameter may lose its
      effect there, unless the step is short.
    - `roundings`: and no step that is left is too long if so many roundings of parameters and gradients make it.
    - `revealing`: what the data do not determine has no step, whatever the damping, and keeps its start; at the price
      of a second elimination, without damping. Else a search is done only in a step without damping.
    - `bent`: evaluations after which secants stand in for the second derivatives that the information lacks: a search
      that takes so many is in a curved valley, where the information alone makes it creep. `None` for never.
    """

    tolerance: float
    relative: bool = False
    damping: float = 0.0
    wary: int = 0
    roundings: float = 64.0
    revealing: bool = True
    bent: int | None = 14

    def short(self, cost: Array) -> Array:
        """The squared length of a step that is short enough to stop at."""
        return self.tolerance**2 * (2 * jnp.abs(cost) if self.relative else jnp.ones_like(cost))


class Search(NamedTuple):
    """Fits in progress: the accepted point with its terms, and the trial with what it promises.

    - `bend`: what secants say that the information lacks of the second derivatives, by pairs.
    - `damping`: 0 for none, and its `growth` where a trial fails. `predicted`: the decrease that the trial promises.
    - `slope`, `blind`: at the accepted point, the largest squared gradient in standard errors, and whether there is
      one without information (1 or 0). They are kept because the next step asks for them again.
    - `steps`: evaluations so far. `status`: see above; whole numbers as floats, so that a search is
      one array on the host.
    """

    at: Numbers
    terms: Sums
    bend: Numbers
    trial: Numbers
    damping: Array
    growth: Array
    predicted: Array
    slope: Array
    blind: Array
    steps: Array
    status: Array


def pairs(p: int) -> list[tuple[int, int]]:
    """The pairs of p parameters, in the order of `Numbers`."""
    return list(itertools.combinations_with_replacement(range(p), 2))


def total(terms: Iterable[Array]) -> Array:
    """Their sum; as a reduction over a stacked array it would be a slow loop of its own."""
    return functools.reduce(jnp.add, terms)


class Factor(NamedTuple):
    """L D L^T of a symmetric matrix given by pairs: rows of L left of the diagonal, 1/D; `ok`: all of D positive."""

    below: tuple[Numbers, ...]
    inverse: Numbers
    ok: Array

    @staticmethod
    def of(matrix: Numbers, p: int) -> "Factor":
        entry = dict(zip(pairs(p), matrix, strict=True))
        below: list[list[Array]] = [[] for _ in range(p)]
        pivots: list[Array] = []
        inverse: list[Array] = []
        ok = jnp.array(True)
        for j in range(p):
            scaled = [below[j][k] * pivots[k] for k in range(j)]
            pivot = _less(entry[j, j], zip(scaled, below[j], strict=True))
            positive = pivot > 0
            ok = ok & positive
            pivots.append(jnp.where(positive, pivot, 1))
            inverse.append(1 / pivots[j])
            for i in range(j + 1, p):
                below[i].append(_less(entry[j, i], zip(scaled, below[i], strict=True)) * inverse[j])
        return Factor(tuple(map(tuple, below)), tuple(inverse), ok)

    def solve(self, rhs: Numbers) -> tuple[Numbers, Array]:
        """The x whose product with the matrix is rhs, and rhs . x."""
        z: list[Array] = []
        for i, row in enumerate(self.below):
            z.append(_less(rhs[i], zip(row, z, strict=True)))
        square = total(a * a * b for a, b in zip(z, self.inverse, strict=True))
        return _back(self.below, self.inverse, z), square


def _back(below: Sequence[Sequence[Array]], inverse: Sequence[Array], z: Sequence[Array]) -> Numbers:
    """L^-T D^-1 z."""
    p = len(z)
    x: dict[int, Array] = {}
    for i in reversed(range(p)):
        x[i] = _less(z[i] * inverse[i], ((below[k][i], x[k]) for k in range(i + 1, p)))
    return tuple(x[i] for i in range(p))


def _less(start: Array, products: Iterable[tuple[Array, Array]]) -> Array:
    return functools.reduce(lambda rest, pair: rest - pair[0] * pair[1], products, start)


def begin(at: Numbers, damping: float = 0.0) -> Search:
    """A search that has not evaluated anything yet."""
    p, zero = len(at), jnp.zeros_like(at[0])
    none, matrix = (zero,) * p, (zero,) * len(pairs(p))
    terms = Sums(zero + jnp.inf, none, matrix)
    return Search(at, terms, matrix, at, zero + damping, zero + 2, zero, zero + jnp.inf, zero, zero, zero)


def advance(old: Search, evaluate: Callable[[Numbers], Sums], box: Box, rule: Rule) -> Search:
    """Judge the trial point, and propose the next or say how the search ended."""
    new = evaluate(old.trial)
    dtype, eps = old.damping.dtype, _eps(old.damping)
    first, going = old.steps == 0, old.status == SEARCHING
    slope, blind = _slope(old.trial, new, box), _blind(old.trial, new, box)
    sound = jnp.isfinite(new.cost + total(new.grad) + total(_diagonal(new))) & (first | ~blind)
    bend = old.bend
    if rule.bent is not None:
        late = sound & (old.steps >= rule.bent) & going
        # few lanes ever come so far, and most passes have none of them
        bend = lax.cond(jnp.any(late), lambda: _bent(old, new, late), lambda: old.bend)
    cost = jnp.where(first, 0, old.terms.cost)
    # near the optimum the cost is flat to rounding, and only the gradient can judge a step
    rise = max(_RISE, _RISE_ROUNDINGS * eps) * jnp.abs(cost)
    flatter = (new.cost <= cost + rise) & (slope < 0.5 * old.slope)
    accept = sound & (first | (new.cost <= cost) | flatter) & going
    lost = jnp.abs(old.predicted) <= _FLAT * eps * jnp.abs(cost)
    gain = (cost - new.cost) / jnp.where(old.predicted > 0, old.predicted, 1)
    gain = jnp.where(jnp.abs(old.predicted) <= rise, 1, jnp.clip(gain, 0, 1))
    eased = old.damping * jnp.maximum(0.1, 1 - (2 * gain - 1) ** 3)
    damping = jnp.where(accept, jnp.where(eased < 1e-5, 0, eased), jnp.maximum(old.growth * old.damping, 1e-3))
    damping = jnp.where(first, old.damping, damping)
    growth = jnp.where(accept, 2, 2 * old.growth)
    accept, damping = _once(accept.astype(dtype), old.steps) > 0, _once(damping, old.steps)
    at, terms = _where(accept, (old.trial, new), (old.at, old.terms))
    slope, blind = _where(accept, (slope, blind.astype(dtype)), (old.slope, old.blind))
    trial, predicted, distance, enough = _propose(at, terms, bend, damping, box, rule, old.steps)
    there = (accept | ~first) & (distance <= enough) & (blind == 0)
    still = functools.reduce(jnp.logical_and, (a == b for a, b in zip(trial, at, strict=True)))
    stuck = (damping > _TOO_MUCH) | still | (~first & ~accept & lost)
    if not rule.relative:
        # where rounding ends a search that wanted to be nearer still, it is near enough for an answer
        there = there | (stuck & ~first & (distance <= _FAR**2) & (blind == 0))
    status = jnp.where(there, CONVERGED, jnp.where(first & ~sound, NONFINITE, jnp.where(stuck, STALLED, SEARCHING)))
    status = jnp.where(going, status, old.status).astype(dtype)
    steps = old.steps + going.astype(dtype)
    return Search(at, terms, bend, trial, damping, growth, predicted, slope, blind, steps, status)


def _once(x: Array, steps: Array) -> Array:
    """x, in a form that XLA computes once.

    On the CPU it puts what is cheap, however long, into each kernel that needs it, and a step has some fifty of them
    that choose by what was accepted: most of its time and compilation. It does not do so with a division, and it does
    not know that this one, by 1, is none.
    """
    return x / jnp.where(steps < 0, 2, 1).astype(x.dtype)


def _eps(like: Array) -> float:
    return float(jnp.finfo(like.dtype).eps)


def _lost(like: Array) -> float:
    return max(_LOST, _LOST_ROUNDINGS * _eps(like))


def _diagonal(terms: Sums) -> list[Array]:
    return [value for value, (i, j) in zip(terms.gram, pairs(len(terms.grad)), strict=True) if i == j]


def _slope(at: Numbers, terms: Sums, box: Box) -> Array:
    """The largest squared gradient with respect to what is free to move, each in its own standard errors."""
    held = box.held(at, terms.grad)
    each = (
        jnp.where(h | ~(d > 0), 0, g * g / jnp.where(d > 0, d, 1))
        for h, g, d in zip(held, terms.grad, _diagonal(terms), strict=True)
    )
    return functools.reduce(jnp.maximum, each)


def _blind(at: Numbers, terms: Sums, box: Box) -> Array:
    """True where the cost changes with a parameter of which there is no information: rounding has eaten it.

    Then no step is known, and no end either. By as much as itself, because it is rounding that the change is held to.
    """
    held = box.held(at, terms.grad)
    each = (~h & ~(d > 0) & (jnp.abs(g * x) > _BLIND) for h, g, d, x in zip(held, terms.grad, _diagonal(terms), at))
    return functools.reduce(jnp.logical_or, each)


def _where(choose: Array, yes: Tree, no: Tree) -> Tree:
    return jtu.tree_map(lambda a, b: jnp.where(choose, a, b), yes, no)


def _bent(old: Search, new: Sums, valid: Array) -> Numbers:
    """The symmetric rank-one secant of what the information misses (Nocedal and Wright, eq. 6.24)."""
    p = len(old.at)
    moved = [a - b for a, b in zip(old.trial, old.at, strict=True)]
    full = [g + b for g, b in zip(new.gram, old.bend, strict=True)]
    miss = [a - b - c for a, b, c in zip(new.grad, old.terms.grad, _times(full, moved), strict=True)]
    along = total(m * d for m, d in zip(miss, moved, strict=True))
    size = total(m * m for m in miss) * total(d * d for d in moved)
    fine = valid & (jnp.abs(along) > 1e-8 * jnp.sqrt(size))
    share = jnp.where(fine, 1 / jnp.where(fine, along, 1), 0)
    return tuple(
        b + jnp.where(fine, miss[i] * miss[j] * share, 0) for b, (i, j) in zip(old.bend, pairs(p), strict=True)
    )


def _times(matrix: Sequence[Array], x: Sequence[Array]) -> list[Array]:
    p = len(x)
    entry = dict(zip(pairs(p), matrix, strict=True))
    return [total(entry[min(i, j), max(i, j)] * x[j] for j in range(p)) for i in range(p)]


class Elimination(NamedTuple):
    """x with matrix @ x = rhs, `square` = rhs . x, and which parameters were left out, whose x is 0.

    `convex`: False where a pivot is clearly negative.
    """

    x: Numbers
    square: Array
    dropped: Numbers
    convex: Array


def eliminate(matrix: Numbers, rhs: Numbers, quiet: Array | float) -> Elimination:
    """Solve by L D L^T with a floor under the pivots, one parameter after the other.

    What is left of a parameter's row when those before it have explained all they can is its pivot. One below `_LOST`
    of its diagonal says that the data know nothing more of it; then it is left out, if what is left of its rhs, in its
    own units, has a square of no more than `quiet`, which is what rounding leaves. If more is left, it has a slope
    without an information, and its step is as long as the floor allows.
    """
    p, least = len(rhs), _lost(rhs[0])
    entry = dict(zip(pairs(p), matrix, strict=True))
    below: list[list[Array]] = [[] for _ in range(p)]
    pivots: list[Array] = []
    inverse: list[Array] = []
    dropped: list[Array] = []
    z: list[Array] = []
    squares: list[Array] = []
    convex = jnp.array(True)
    for j in range(p):
        scaled = [below[j][k] * pivots[k] for k in range(j)]
        pivot = _less(entry[j, j], zip(scaled, below[j], strict=True))
        floor = least * jnp.abs(entry[j, j])
        z.append(_less(rhs[j], zip(below[j], z, strict=True)))
        square = z[j] * z[j]
        dropped.append((pivot < floor) & (square <= quiet * jnp.abs(entry[j, j])))
        convex = convex & (pivot > -floor)
        pivots.append(jnp.where(pivot < floor, jnp.where(floor > 0, floor, 1), pivot))
        inverse.append(jnp.where(dropped[j], 0, 1 / pivots[j]))
        squares.append(square * jnp.where(dropped[j], 1 / jnp.where(floor > 0, floor / least, 1), inverse[j]))
        for i in range(j + 1, p):
            below[i].append(_less(entry[j, i], zip(scaled, below[i], strict=True)) * inverse[j])
    x = _back(below, inverse, z)
    return Elimination(x, total(squares), tuple(dropped), convex)


class Proposal(NamedTuple):
    """Where to go next.

    `trial`: the point. `predicted`: the decrease of the cost that it promises. `distance`: the squared length of the
    undamped step, in standard errors of what is free to move; `enough`: at which that is short enough.
    """

    trial: Numbers
    predicted: Array
    distance: Array
    enough: Array


def _propose(at: Numbers, terms: Sums, bend: Numbers, damping: Array, box: Box, rule: Rule, steps: Array) -> Proposal:
    """The next trial. What the data do not determine has no step, whatever the damping, so that it keeps its start."""
    p, eps = len(at), _eps(damping)
    diagonal = _diagonal(terms)
    free = [~h & (d > 0) for h, d in zip(box.held(at, terms.grad), diagonal, strict=True)]
    rigid = [_once(f.astype(damping.dtype), steps) == 0 for f in free]
    slope = tuple(jnp.where(r, 0, g) for r, g in zip(rigid, terms.grad, strict=True))
    sharp = functools.reduce(jnp.maximum, (a * a * d for a, d in zip(at, diagonal, strict=True)))
    rounding = eps**2 * (sharp + 2 * jnp.abs(terms.cost))
    short = rule.short(terms.cost)
    full = terms.gram if rule.bent is None else tuple(g + b for g, b in zip(terms.gram, bend, strict=True))
    out = rigid
    if rule.revealing:
        undamped = eliminate(_without(terms.gram, rigid), slope, jnp.maximum(0.01 * short, _NOISE**2 * rounding))
        out = [r | d for r, d in zip(rigid, undamped.dropped, strict=True)]
    factor = Factor.of(_without(full, out, [(damping + _lost(damping)) * d for d in diagonal]), p)
    step, length = factor.solve(tuple(jnp.where(o, 0, g) for o, g in zip(out, slope, strict=True)))
    if rule.revealing:
        step = tuple(jnp.where(factor.ok, a, b / (1 + damping)) for a, b in zip(step, undamped.x, strict=True))
        distance = undamped.square
    else:
        distance = jnp.where((damping == 0) & factor.ok, length, jnp.inf)
    step, length = tuple(_once(s, steps) for s in step), _once(length, steps)
    target = box.clip(a - s for a, s in zip(at, step, strict=True))
    if rule.wary:
        wary = (steps < rule.wary) & ~(length <= _NEAR * 2 * jnp.abs(terms.cost))
        target = tuple(
            jnp.where(wary & (t != a - s), a + (t - a) / 2, t) for t, a, s in zip(target, at, step, strict=True)
        )
    trial = target
    if box.leap < np.inf:
        room = [jnp.where(h > low, box.leap * (h - low), jnp.inf) for low, h in zip(box.lower, box.upper, strict=True)]
        leap = functools.reduce(jnp.maximum, (jnp.abs(t - a) / r for t, a, r in zip(target, at, room, strict=True)))
        share = 1 / jnp.maximum(leap, 1)
        trial = box.clip(jnp.where(leap > 1, a + (t - a) * share, t) for t, a in zip(target, at, strict=True))
    move = [t - a for t, a in zip(trial, at, strict=True)]
    model = full if rule.bent is None else [jnp.where(factor.ok, f, g) for f, g in zip(full, terms.gram, strict=True)]
    curve = _times(model, move)
    predicted = -total(m * (g + c / 2) for m, g, c in zip(move, terms.grad, curve, strict=True))
    return Proposal(trial, predicted, distance, jnp.maximum(short, rule.roundings**2 * rounding))


def _without(matrix: Numbers, out: Sequence[Array], extra: Sequence[Array] | None = None) -> Numbers:
    """The matrix with unit rows for some parameters, and more on the diagonal of the others."""
    found = []
    for (i, j), value in zip(pairs(len(out)), matrix, strict=True):
        if i == j:
            found.append(jnp.where(out[i], 1, value if extra is None else value + extra[i]))
        else:
            found.append(jnp.where(out[i] | out[j], 0, value))
    return tuple(found)


def run(search: Search, evaluate: Callable[[Numbers], Sums], box: Box, rule: Rule, most: Int[Array, ""]) -> Search:
    """Advance until no search of these lanes is under way, or all have taken so many steps."""

    def more(carry: tuple[Array, Search]) -> Array:
        return (carry[0] < most) & jnp.any(carry[1].status == SEARCHING)

    def step(carry: tuple[Array, Search]) -> tuple[Array, Search]:
        return carry[0] + 1, advance(carry[1], evaluate, box, rule)

    return lax.while_loop(more, step, (jnp.zeros_like(most), search))[1]


class Known(NamedTuple):
    """What is known of the parameters where a search ended.

    `covariance`: inf on the diagonal of a parameter that the data do not determine (nan beside it), 0 for fixed ones.
    `determined`: False where they do not, alone or in a combination.
    """

    covariance: Float[Array, "p p lanes"]
    determined: Bool[Array, "p lanes"]


@uncertainty.register(tuple)
def _(gram: Numbers, fixed: Numbers) -> Known:
    """Covariances from the information at the answer, revealing the directions that the data do not determine.

    A parameter that the others before it say everything of has a pivot of 0. It is left out, and lost with all that
    it can stand for; the variance of any other does not depend on which one is left out (Rao 1973, section 4a.4).
    """
    p, eps, least = len(fixed), _eps(gram[0]), _lost(gram[0])
    entry = dict(zip(pairs(p), gram, strict=True))
    idle = [f | ~(entry[i, i] > 0) for i, f in enumerate(fixed)]
    scale = [jnp.where(idle[i], 0, 1 / jnp.sqrt(jnp.where(idle[i], 1, entry[i, i]))) for i in range(p)]
    below: list[list[Array]] = [[] for _ in range(p)]
    pivots: list[Array] = []
    inverse: list[Array] = []
    lost = [~f & i for f, i in zip(fixed, idle, strict=True)]
    for j in range(p):
        scaled = [below[j][k] * pivots[k] for k in range(j)]
        pivot = _less(jnp.ones_like(scale[j]), zip(scaled, below[j], strict=True))
        dropped = ~idle[j] & ~(pivot > least)
        out = idle[j] | dropped
        pivots.append(jnp.where(out, 0, pivot))
        inverse.append(jnp.where(out, 0, 1 / jnp.where(out, 1, pivot)))
        lost[j] = lost[j] | dropped
        stands: dict[int, Array] = {}  # the combination of those before it that it is
        for i in reversed(range(j)):
            stands[i] = _less(below[j][i], ((below[k][i], stands[k]) for k in range(i + 1, j)))
            lost[i] = lost[i] | (dropped & (stands[i] ** 2 > _SHARE * jnp.maximum(pivot, 64 * eps)))
        for i in range(j + 1, p):
            correlation = entry[j, i] * scale[i] * scale[j]
            below[i].append(_less(correlation, zip(scaled, below[i], strict=True)) * inverse[j])
    factor = Factor(tuple(map(tuple, below)), tuple(inverse), jnp.array(True))
    one, zero = jnp.ones_like(scale[0]), jnp.zeros_like(scale[0])
    rows = []
    for i in range(p):
        solved, _ = factor.solve(tuple(one if i == j else zero for j in range(p)))
        row = []
        for j in range(p):
            value = jnp.where(lost[i] | lost[j], jnp.inf if i == j else jnp.nan, solved[j] * scale[i] * scale[j])
            row.append(jnp.where(fixed[i] | fixed[j], 0, value))
        rows.append(jnp.stack(row))
    return Known(jnp.stack(rows), ~jnp.stack(lost))


class AbstractSmallFits(Module):
    """Many small fits as one Module, whose arrays an answer can be differentiated with respect to."""

    @abc.abstractmethod
    def __call__(self, at: Numbers) -> Sums:
        """What a search sees at a point."""

    @abc.abstractmethod
    def box(self) -> Box:
        """The bounds."""


class Settled(NamedTuple):
    """Where the searches ended (p, lanes), after how many evaluations, and how."""

    at: Array
    steps: Array
    status: Array


@eqx.filter_custom_jvp
def settle(fits: AbstractSmallFits, start: Float[Array, "p lanes"], tolerance: float, most: Int[Array, ""]) -> Settled:
    """All searches to their ends, within a program. The answer has derivatives with respect to the arrays of `fits`.

    They are those of the conditions that hold there (Nocedal and Wright, section 12.3): the gradient of what is free to
    move stays 0, and what is held at a bound moves with it. Along a direction that the data do not determine an answer
    does not move, as its search does not; where it is no minimum, there is no derivative.
    """
    found = run(begin(tuple(start)), fits, fits.box(), Rule(tolerance), most)
    return Settled(jnp.stack(found.at), found.steps.astype(int), found.status.astype(int))


@settle.def_jvp
def _settle_jvp(primals: Any, tangents: Any) -> tuple[Settled, Settled]:
    fits, start, tolerance, most = primals
    answer = settle(fits, start, tolerance, most)
    at, p = tuple(answer.at), len(answer.at)

    def grad(fits: AbstractSmallFits, at: Numbers) -> Numbers:
        return fits(at).grad

    def bounds(fits: AbstractSmallFits) -> Numbers:
        lower, upper, _ = fits.box()
        return tuple(jnp.where(x <= low, low, high) for x, low, high in zip(at, lower, upper, strict=True))

    # an array that nothing is differentiated with respect to has None for a tangent
    slope, moved = eqx.filter_jvp(lambda fits: grad(fits, at), (fits,), (tangents[0],))
    _, pushed = eqx.filter_jvp(bounds, (fits,), (tangents[0],))
    moved, pushed = (
        tuple(jnp.zeros_like(x) if t is None else t for x, t in zip(at, tangent, strict=True))
        for tangent in (moved, pushed)
    )
    units = [tuple(jnp.ones_like(x) if i == j else jnp.zeros_like(x) for j, x in enumerate(at)) for i in range(p)]
    rows = [jax.jvp(lambda at: grad(fits, at), (at,), (unit,))[1] for unit in units]
    held = fits.box().held(at, slope)
    rhs = [
        jnp.where(h, 0, -d - total(jnp.where(k, row[i] * b, 0) for row, k, b in zip(rows, held, pushed, strict=True)))
        for i, (h, d) in enumerate(zip(held, moved, strict=True))
    ]
    hessian = tuple(rows[i][j] for i, j in pairs(p))
    found = eliminate(_without(hessian, held), slope, jnp.inf)
    out = [h | d for h, d in zip(held, found.dropped, strict=True)]
    free = tuple(jnp.where(o, 0, r) for o, r in zip(out, rhs, strict=True))
    moves, _ = Factor.of(_without(hessian, out), p).solve(free)
    change = [jnp.where(h, b, c) for h, b, c in zip(held, pushed, moves, strict=True)]
    tangent = jnp.where(found.convex, jnp.stack(change), jnp.nan)
    zero = (jax.custom_derivatives.zero_from_primal(x, symbolic_zeros=False) for x in answer[1:])
    return answer, Settled(tangent, *zero)


# A search on the host is one array, a row for each of its numbers: to gather lanes is then one call.


def pack(search: Search) -> Float[Array, "rows *lanes"]:
    """A search as one array."""
    return jnp.stack(jtu.tree_leaves(search))


def unpack(rows: Shaped[Array | np.ndarray, "rows *lanes"], p: int) -> Search:
    """The search of p parameters that `pack` made one array of."""
    return jtu.tree_unflatten(_structure(p), list(rows))


@functools.lru_cache(maxsize=64)
def _structure(p: int) -> jtu.PyTreeDef:
    return jtu.tree_structure(jax.eval_shape(begin, (jnp.zeros(()),) * p))


class Progress(NamedTuple):
    """Searches of many members on the host: `rows` as `pack` makes them, one member a column."""

    rows: np.ndarray
    p: int

    @staticmethod
    def blank(start: np.ndarray, damping: float = 0.0) -> "Progress":
        """From these parameters (p, members), nothing evaluated."""
        p, count = start.shape
        first = np.zeros(_structure(p).num_leaves, start.dtype)
        place = unpack(np.arange(len(first)), p)  # as `begin` has them; its operations would each be compiled
        first[np.array([place.terms.cost, place.slope])] = np.inf
        first[np.array([place.damping, place.growth])] = damping, 2
        rows = np.repeat(first[:, None], count, axis=1)
        rows[np.array(place.at)] = rows[np.array(place.trial)] = start
        return Progress(rows, p)

    @property
    def at(self) -> np.ndarray:
        """(p, members): where each of them is."""
        return self.rows[: self.p]

    @property
    def cost(self) -> np.ndarray:
        return self.rows[self.p]

    @property
    def steps(self) -> np.ndarray:
        return self.rows[-2].astype(int)

    @property
    def status(self) -> np.ndarray:
        return self.rows[-1].astype(int)

    def rounds(self, lengths: Sequence[int], max_steps: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """(members that are under way, evaluations before the next look at which of them are done).

        What the caller does between two of these is to advance those members. All that are under way have
        taken equally many steps; those of a search that was kept on disk may have taken some already.
        """
        pending = np.flatnonzero(self.rows[-1] == SEARCHING)
        taken = int(np.max(self.steps[pending], initial=0))
        for length in itertools.chain(lengths, itertools.repeat(max_steps)):
            if not len(pending) or taken >= max_steps:
                return
            most = min(length, max_steps - taken)
            yield pending, np.asarray(most)
            taken += most
            pending = pending[self.rows[-1, pending] == SEARCHING]
