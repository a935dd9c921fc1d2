"""One search for many small bounded fits: its steps, its endings, and what is known where it ends.

A fit of a few parameters is so cheap that general machinery (trees in a carry, matrices, a batch axis in front) costs
more than its arithmetic. Here each number of a fit, be it a parameter, a sum of products or a pivot, is an array over
the members of the batch by itself, so that a step is a handful of vector operations. The search sees of a problem only
a function from a point to `Terms`; whoever has a shorter way to those than the rows of a data set gives that. The
component separation of single pixels runs on it.

Levenberg 1944, Marquardt 1963; damped as Nielsen 1999; bounds by an active set and projection (Bertsekas 1982).
"""

import functools
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import jax.tree_util as jtu
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float, Int, Shaped

Tree = TypeVar("Tree")

Numbers = tuple[Array, ...]
"""A number for each parameter, or for each pair (0, 0), (0, 1), ..., (1, 1), ... of parameters; each over all lanes."""

SEARCHING, CONVERGED, STALLED, NONFINITE = range(4)
"""How a search stands: the `status` of a `Search`."""

_LOST = 1e-10  # a pivot of the unit-diagonal information that counts as none, and the ridge that keeps steps off it
_TOO_MUCH = 1e12  # a damping that no step survives
_BENT = 14  # evaluations after which a search is in a curved valley, where the information alone makes it creep
_RISE = 1e-11  # of the cost: what rounding may add to it while the gradient halves
_FLAT = 1e-15  # of the cost: no promise that it could keep
_BLIND = 1e-6  # of chi2: what a parameter without information may still do
_ROUNDING = 64.0  # roundings of parameters and gradients that no search can get below
_SHARE = 1e-3  # of its variance, by which an error may be too small for what a lost direction adds to it


class Terms(NamedTuple):
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


class Search(NamedTuple):
    """Fits in progress: the accepted point with its terms, and the trial with what it promises.

    - `bend`: what secants say that the information lacks of the second derivatives, by pairs.
    - `damping`: 0 for none, and its `growth` where a trial fails. `predicted`: the decrease that the trial promises.
    - `distance`: the squared length of the undamped step from the accepted point, in standard errors.
    - `steps`: evaluations so far. `status`: see above; whole numbers as floats, so that a search is
      one array on the host.
    """

    at: Numbers
    terms: Terms
    bend: Numbers
    trial: Numbers
    damping: Array
    growth: Array
    predicted: Array
    distance: Array
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
        """(x, rhs . x) for the x whose product with the matrix is rhs."""
        p = len(rhs)
        z: list[Array] = []
        for i in range(p):
            z.append(_less(rhs[i], zip(self.below[i], z, strict=True)))
        x: dict[int, Array] = {}
        for i in reversed(range(p)):
            x[i] = _less(z[i] * self.inverse[i], ((self.below[k][i], x[k]) for k in range(i + 1, p)))
        square = total(a * a * b for a, b in zip(z, self.inverse, strict=True))
        return tuple(x[i] for i in range(p)), square


def _less(start: Array, products: Iterable[tuple[Array, Array]]) -> Array:
    return functools.reduce(lambda rest, pair: rest - pair[0] * pair[1], products, start)


def begin(at: Numbers) -> Search:
    """A search that has not evaluated anything yet."""
    p, zero = len(at), jnp.zeros_like(at[0])
    none, matrix = (zero,) * p, (zero,) * len(pairs(p))
    terms = Terms(zero + jnp.inf, none, matrix)
    return Search(at, terms, matrix, at, zero, zero + 2, zero, zero + jnp.inf, zero, zero)


def advance(old: Search, evaluate: Callable[[Numbers], Terms], box: Box, tolerance: float) -> Search:
    """Judge the trial point, and propose the next or say how the search ended."""
    new = evaluate(old.trial)
    first, going = old.steps == 0, old.status == SEARCHING
    sound = jnp.isfinite(new.cost + total(new.grad) + total(_diagonal(new))) & (first | ~_blind(old.trial, new, box))
    bend = _bent(old, new, sound & ~first & going)
    cost = jnp.where(first, 0, old.terms.cost)
    # near the optimum the cost is flat to rounding, and only the gradient can judge a step
    flatter = (new.cost <= cost + _RISE * jnp.abs(cost)) & (
        _slope(old.trial, new, box) < 0.5 * _slope(old.at, old.terms, box)
    )
    accept = sound & (first | (new.cost <= cost) | flatter) & going
    lost = jnp.abs(old.predicted) <= _FLAT * jnp.abs(cost)
    gain = (cost - new.cost) / jnp.where(old.predicted > 0, old.predicted, 1)
    gain = jnp.where(first | (jnp.abs(old.predicted) <= _RISE * jnp.abs(cost)), 1, jnp.clip(gain, 0, 1))
    eased = old.damping * jnp.maximum(0.1, 1 - (2 * gain - 1) ** 3)
    damping = jnp.where(accept, jnp.where(eased < 1e-5, 0, eased), jnp.maximum(old.growth * old.damping, 1e-3))
    growth = jnp.where(accept, 2, 2 * old.growth)
    at, terms = _where(accept, (old.trial, new), (old.at, old.terms))
    trial, predicted, distance, rounding = _propose(at, terms, bend, damping, box)
    there = (accept | ~first) & (distance <= jnp.maximum(tolerance**2, rounding)) & ~_blind(at, terms, box)
    still = functools.reduce(jnp.logical_and, (a == b for a, b in zip(trial, at, strict=True)))
    stuck = (damping > _TOO_MUCH) | still | (~first & ~accept & lost)
    status = jnp.where(there, CONVERGED, jnp.where(first & ~sound, NONFINITE, jnp.where(stuck, STALLED, SEARCHING)))
    status = jnp.where(going, status, old.status).astype(old.status.dtype)
    distance = jnp.where(accept, distance, old.distance)
    return Search(at, terms, bend, trial, damping, growth, predicted, distance, old.steps + going, status)


def _diagonal(terms: Terms) -> list[Array]:
    return [value for value, (i, j) in zip(terms.gram, pairs(len(terms.grad)), strict=True) if i == j]


def _slope(at: Numbers, terms: Terms, box: Box) -> Array:
    """The largest squared gradient with respect to what is free to move, each in its own standard errors."""
    held = box.held(at, terms.grad)
    each = (
        jnp.where(h | ~(d > 0), 0, g * g / jnp.where(d > 0, d, 1))
        for h, g, d in zip(held, terms.grad, _diagonal(terms), strict=True)
    )
    return functools.reduce(jnp.maximum, each)


def _blind(at: Numbers, terms: Terms, box: Box) -> Array:
    """True where the cost changes with a parameter of which there is no information: rounding has eaten it.

    Then no step is known, and no end either. By as much as itself, because it is rounding that the change is held to.
    """
    held = box.held(at, terms.grad)
    each = (~h & ~(d > 0) & (jnp.abs(g * x) > _BLIND) for h, g, d, x in zip(held, terms.grad, _diagonal(terms), at))
    return functools.reduce(jnp.logical_or, each)


def _where(choose: Array, yes: Tree, no: Tree) -> Tree:
    return jtu.tree_map(lambda a, b: jnp.where(choose, a, b), yes, no)


def _bent(old: Search, new: Terms, valid: Array) -> Numbers:
    """The symmetric rank-one secant of what the information misses (Nocedal and Wright, eq. 6.24)."""
    p = len(old.at)
    moved = [a - b for a, b in zip(old.trial, old.at, strict=True)]
    full = [g + b for g, b in zip(new.gram, old.bend, strict=True)]
    miss = [a - b - c for a, b, c in zip(new.grad, old.terms.grad, _times(full, moved), strict=True)]
    along = total(m * d for m, d in zip(miss, moved, strict=True))
    size = total(m * m for m in miss) * total(d * d for d in moved)
    fine = valid & (old.steps >= _BENT) & (jnp.abs(along) > 1e-8 * jnp.sqrt(size))
    share = jnp.where(fine, 1 / jnp.where(fine, along, 1), 0)
    return tuple(
        b + jnp.where(fine, miss[i] * miss[j] * share, 0) for b, (i, j) in zip(old.bend, pairs(p), strict=True)
    )


def _times(matrix: Sequence[Array], x: Sequence[Array]) -> list[Array]:
    p = len(x)
    entry = dict(zip(pairs(p), matrix, strict=True))
    return [total(entry[min(i, j), max(i, j)] * x[j] for j in range(p)) for i in range(p)]


def _propose(at: Numbers, terms: Terms, bend: Numbers, damping: Array, box: Box) -> tuple[Numbers, Array, Array, Array]:
    """(next trial, decrease that it promises, squared length of the undamped step, and of what is mere rounding).

    Lengths are in standard errors of what is free to move. The ridge keeps a step off directions without information,
    along which rounding alone would decide; up to that, it is the shortest step, so that they keep their start.
    """
    p, eps = len(at), jnp.finfo(damping.dtype).eps
    index = pairs(p)
    diagonal = _diagonal(terms)
    rigid = [h | ~(d > 0) for h, d in zip(box.held(at, terms.grad), diagonal, strict=True)]
    slope = tuple(jnp.where(r, 0, g) for r, g in zip(rigid, terms.grad, strict=True))

    def masked(matrix: Sequence[Array], extra: Array | float) -> Numbers:
        out = []
        for (i, j), value in zip(index, matrix, strict=True):
            if i == j:
                out.append(jnp.where(rigid[i], 1, value + extra * diagonal[i]))
            else:
                out.append(jnp.where(rigid[i] | rigid[j], 0, value))
        return tuple(out)

    newton, distance = Factor.of(masked(terms.gram, _LOST), p).solve(slope)
    full = tuple(g + b for g, b in zip(terms.gram, bend, strict=True))
    factor = Factor.of(masked(full, damping + _LOST), p)
    damped, _ = factor.solve(slope)
    step = [jnp.where(factor.ok, a, b / (1 + damping)) for a, b in zip(damped, newton, strict=True)]
    target = box.clip(a - s for a, s in zip(at, step, strict=True))
    room = [jnp.where(high > low, box.leap * (high - low), jnp.inf) for low, high in zip(box.lower, box.upper)]
    leap = functools.reduce(jnp.maximum, (jnp.abs(t - a) / r for t, a, r in zip(target, at, room, strict=True)))
    share = 1 / jnp.maximum(leap, 1)
    trial = box.clip(jnp.where(leap > 1, a + (t - a) * share, t) for t, a in zip(target, at, strict=True))
    move = [t - a for t, a in zip(trial, at, strict=True)]
    model = [jnp.where(factor.ok, f, g) for f, g in zip(full, terms.gram, strict=True)]
    curve = _times(model, move)
    predicted = -total(m * (g + c / 2) for m, g, c in zip(move, terms.grad, curve, strict=True))
    sharp = functools.reduce(jnp.maximum, (a * a * diagonal[i] for i, a in enumerate(at)))
    rounding = (_ROUNDING * eps) ** 2 * (sharp + 2 * jnp.abs(terms.cost))
    return trial, predicted, distance, rounding


def run(
    search: Search, evaluate: Callable[[Numbers], Terms], box: Box, tolerance: float, most: Int[Array, ""]
) -> Search:
    """Advance until no search of these lanes is under way, or all have taken so many steps."""

    def more(carry: tuple[Array, Search]) -> Array:
        return (carry[0] < most) & jnp.any(carry[1].status == SEARCHING)

    def step(carry: tuple[Array, Search]) -> tuple[Array, Search]:
        return carry[0] + 1, advance(carry[1], evaluate, box, tolerance)

    return lax.while_loop(more, step, (jnp.zeros_like(most), search))[1]


class Known(NamedTuple):
    """What is known of the parameters where a search ended.

    `covariance`: inf on the diagonal of a parameter that the data do not determine (nan beside it), 0 for fixed ones.
    `determined`: False where they do not, alone or in a combination.
    """

    covariance: Float[Array, "p p lanes"]
    determined: Bool[Array, "p lanes"]


def known(search: Search, box: Box) -> Known:
    """Covariances from the information at the answer, revealing the directions that the data do not determine.

    A parameter that the others before it say everything of has a pivot of 0. It is left out, and lost with all that
    it can stand for; the variance of any other does not depend on which one is left out (Rao 1973, section 4a.4).
    """
    p, eps = len(search.at), jnp.finfo(search.damping.dtype).eps
    entry = dict(zip(pairs(p), search.terms.gram, strict=True))
    fixed = box.fixed()
    idle = [f | ~(entry[i, i] > 0) for i, f in enumerate(fixed)]
    scale = [jnp.where(idle[i], 0, 1 / jnp.sqrt(jnp.where(idle[i], 1, entry[i, i]))) for i in range(p)]
    below: list[list[Array]] = [[] for _ in range(p)]
    pivots: list[Array] = []
    inverse: list[Array] = []
    lost = [~f & i for f, i in zip(fixed, idle, strict=True)]
    for j in range(p):
        scaled = [below[j][k] * pivots[k] for k in range(j)]
        pivot = _less(jnp.ones_like(scale[j]), zip(scaled, below[j], strict=True))
        dropped = ~idle[j] & ~(pivot > _LOST)
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


# A search on the host is one array, a row for each of its numbers: to gather lanes is then one call.


def pack(search: Search) -> Float[Array, "rows *lanes"]:
    """A search as one array."""
    return jnp.stack(jtu.tree_leaves(search))


def unpack(rows: Shaped[Array, "rows *lanes"], p: int) -> Search:
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
    def blank(start: np.ndarray) -> "Progress":
        """From these parameters (p, members), nothing evaluated."""
        p, count = start.shape
        first = np.asarray(pack(begin((jnp.zeros(()),) * p)), start.dtype)
        rows = np.repeat(first[:, None], count, axis=1)
        place = unpack(jnp.arange(len(rows)), p)
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
        taken equally many steps.
        """
        pending, taken = np.arange(self.rows.shape[1]), 0
        for length in itertools.chain(lengths, itertools.repeat(max_steps)):
            if not len(pending) or taken >= max_steps:
                return
            most = min(length, max_steps - taken)
            yield pending, np.asarray(most)
            taken += most
            pending = pending[self.rows[-1, pending] == SEARCHING]
