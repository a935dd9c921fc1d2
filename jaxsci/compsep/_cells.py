"""Fits of many cells, each by itself, with the cells along the last axis of every array.

The core's `fit_batch` has the batch along the first axis and general trees in its carry, which costs more than
these tiny problems themselves; here a step of a block of cells is a handful of vector operations. Levenberg 1944,
Marquardt 1963, damped as Nielsen 1999; bounds by an active set and projection (Bertsekas 1982), as
`jaxsci.GaussNewton`.
"""

import functools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import equinox as eqx
import jax.numpy as jnp
import jax.tree_util as jtu
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Int

from ..core._linalg import factorise
from ..core._module import Module
from ..core._parameter import free_spec, get
from ..fitting._program import call
from ._fixed import at_lanes
from ._likelihood import Maps, Sky
from ._mixing import MixingMatrix
from ._slabs import Observed, Slabs, by_blocks, whitened

_ROUNDS = (5, 2, 3, 6, 14)  # evaluations before each look at which cells are done; after those, as many as are left
_STALLED = 1e12  # a damping that no step survives
_LEAP = 0.2  # of the room between the bounds: longer steps of faint pixels end in maxima of other components
_BENT = 14  # evaluations after which a search is in a curved valley, where the information alone makes it creep
_NEAR = 1e-3  # standard errors over which the information stays what it is
_WELL = 1e-10  # the smallest pivot of a unit-diagonal information that counts as known


class Limits(Module):
    """Bounds and Gaussian priors of each free parameter."""

    lower: Float[Array, " p"]
    upper: Float[Array, " p"]
    mean: Float[Array, " p"]
    weight: Float[Array, " p"]


class CellFits(NamedTuple):
    """Of each of k cells, last axis, on the host: values (p, k), cost, covariance (p, p, k), how the search ended.

    `determined` (p, k): False where the data say nothing, and the covariance is infinite. `at_bound` (p, k): -1, 0, 1.
    """

    values: Any
    cost: Any
    covariance: Any
    steps: Any
    done: Any
    stalled: Any
    determined: Any
    at_bound: Any


class _Search(NamedTuple):
    """The carry: the accepted point with its cost, gradient, information; the trial and what it promises.

    `bend`: what secants say that the information lacks of the second derivatives. `damping` (0: none) and its `growth`
    where a trial fails; `distance`: squared length of the undamped step.
    """

    at: Any
    cost: Any
    grad: Any
    gram: Any
    bend: Any
    trial: Any
    damping: Any
    growth: Any
    predicted: Any
    distance: Any
    steps: Any
    done: Any
    stalled: Any


class _Known(NamedTuple):
    """What is known of the parameters where a search stands."""

    covariance: Any
    determined: Any
    at_bound: Any


def fit_cells(
    mixing: MixingMatrix,
    nu: Any,
    observed: Observed,
    free: Sequence[str],
    limits: Limits,
    marginal: bool = False,
    tolerance: float = 1e-6,
    max_steps: int = 100,
    slabs: Slabs | None = None,
    fixed: Mapping[str, np.ndarray] | None = None,
) -> CellFits:
    """Fit the free parameters of each cell to that cell's data alone, from where the mixing matrix has them.

    **Arguments:** `tolerance`: a cell is done when the step that is left is shorter than this many standard errors.
    `max_steps`: evaluations of a cell at most. `fixed`: (k,) parameters that vary without being fitted.
    """
    k = observed.columns.shape[1]
    slabs, counts = slabs or Slabs.of(k), observed.counts()
    start = np.array([float(get(mixing, name)) for name in free])
    start = np.clip(start, np.asarray(limits.lower), np.asarray(limits.upper))
    found, known = _blank(start, k), _unknown(len(free), k)
    state = jtu.tree_leaves((found, known))
    pending = np.arange(k)
    for most in (*_ROUNDS, max_steps):
        steps = np.asarray(min(most, max_steps - int(np.min(found.steps[pending]))))
        for cells, blocks in slabs.parts(pending):
            maps = call(whitened, observed.take(cells, slabs))
            count = slabs.fill(counts, cells)
            search = jtu.tree_map(lambda x: slabs.fill(x, cells, x.dtype == bool), found)  # noqa: B023
            still = {name: slabs.fill(x, cells, x[0]) for name, x in (fixed or {}).items()}
            args = (mixing, nu, limits, maps, count, (search, still), blocks, steps)
            new = call(_run, args, (tuple(free), slabs.size, tolerance, marginal))
            for whole, part in zip(state, jtu.tree_leaves(new), strict=True):
                whole[..., cells] = np.asarray(part)[..., : len(cells)]
        pending = np.flatnonzero(~found.done & (found.steps < max_steps))
        if not len(pending):
            break
    ended = found.done & ~found.stalled
    return CellFits(found.at, found.cost, known[0], found.steps, ended, found.stalled, known[1], known[2])


def _blank(start: np.ndarray, k: int) -> _Search:
    p, kind = len(start), start.dtype
    at = np.repeat(start[:, None], k, axis=1)
    zero, far, none = np.zeros((2, k), kind), np.full((2, k), np.inf, kind), np.zeros((2, k), bool)
    growth, gram, steps = np.full(k, 2, kind), np.zeros((p, p, k), kind), np.zeros(k, int)
    point = at, far[0], np.zeros_like(at), gram, gram.copy()
    return _Search(*point, at.copy(), zero[0], growth, zero[1], far[1], steps, none[0], none[1])


def _unknown(p: int, k: int) -> _Known:
    return _Known(np.zeros((p, p, k)), np.zeros((p, k), bool), np.zeros((p, k), int))


def _run(
    mixing: MixingMatrix,
    nu: Any,
    limits: Limits,
    maps: Maps,
    count: Float[Array, "s k"],
    search: tuple[_Search, dict[str, Array]],
    blocks: Int[Array, ""],
    steps: Int[Array, ""],
    *choices: Any,
) -> tuple[_Search, _Known]:
    """At most so many evaluations of the cells in the first blocks, block after block."""
    free, size, tolerance, marginal = choices

    def block(part: Any) -> tuple[_Search, _Known]:
        maps, count, (search, fixed) = part
        ended = Block(at_lanes(mixing, fixed), nu, maps, count, limits, free, tolerance, marginal).run(search, steps)
        return ended, _conclude(ended, limits)

    return by_blocks(block, (maps, count, search), size, blocks)


class Block(Module):
    """Cells that are searched in step."""

    mixing: MixingMatrix
    nu: Any
    maps: Maps
    count: Float[Array, "s k"]
    limits: Limits
    free: tuple[str, ...] = eqx.field(static=True)
    tolerance: float = eqx.field(static=True)
    marginal: bool = eqx.field(static=True)

    def evaluate(self, at: Float[Array, "p k"]) -> tuple[Array, Array, Array]:
        """(cost (k,), gradient (p, k), information (p, p, k)), priors included."""
        moving, rest = eqx.partition(self.mixing, free_spec(self.mixing, self.free))
        model = eqx.combine(jtu.tree_unflatten(jtu.tree_structure(moving), list(at)), rest)
        cells = Sky(self.nu, self.maps, None, self.count, self.marginal).cells(model, self.free)
        off, weight = at - self.limits.mean[:, None], self.limits.weight[:, None]
        diagonal = jnp.eye(at.shape[0], dtype=bool)[:, :, None]
        gram = cells.gram + jnp.where(diagonal, weight[:, None, :], 0)
        prior = total(weight * off * off) / 2
        return cells.cost + prior, cells.grad + weight * off, gram

    def run(self, search: _Search, steps: Int[Array, ""]) -> _Search:
        """Step until all cells are done, or have taken so many steps."""

        def more(carry: tuple[Array, _Search]) -> Array:
            return (carry[0] < steps) & ~jnp.all(carry[1].done)

        def step(carry: tuple[Array, _Search]) -> tuple[Array, _Search]:
            return carry[0] + 1, self.step(carry[1])

        return lax.while_loop(more, step, (jnp.array(0), search))[1]

    def step(self, old: _Search) -> _Search:
        """Judge the trial point and propose the next."""
        cost, grad, gram = self.evaluate(old.trial)
        first = jnp.isinf(old.cost)
        finite = jnp.isfinite(cost) & jnp.isfinite(total(grad))
        bend = self.bent(old, grad, gram, finite & ~first)
        slack = 1e-14 * jnp.abs(jnp.where(first, 0, old.cost))
        accept = finite & (first | (cost <= old.cost + slack))
        gain = (old.cost - cost) / jnp.where(old.predicted > 0, old.predicted, 1)
        gain = jnp.where(first, 1, jnp.clip(gain, 0, 1))
        eased = old.damping * jnp.maximum(0.1, 1 - (2 * gain - 1) ** 3)
        eased = jnp.where(eased < 1e-5, 0, eased)
        damping = jnp.where(accept, eased, jnp.maximum(old.growth * old.damping, 1e-3))
        growth = jnp.where(accept, 2, 2 * old.growth)
        at, cost, grad, gram = (
            jnp.where(accept, new, was)
            for new, was in zip((old.trial, cost, grad, gram), (old.at, old.cost, old.grad, old.gram), strict=True)
        )
        trial, predicted, distance = self.propose(at, grad, gram, bend, damping)
        stuck = (damping > _STALLED) | jnp.all(trial == at, 0) | (first & ~finite)
        far = stuck & ~(distance <= 1e-6)
        there = distance <= self.tolerance**2
        # the step that would be left after this one, if steps go on shrinking as they do: it needs no look
        rate = distance / old.distance
        close = accept & ~first & (damping == 0) & (rate < 0.01) & (distance < _NEAR**2) & ~self.meets(at, trial)
        last = close & ~there & (rate * distance <= self.tolerance**2)
        at, cost = jnp.where(last, trial, at), jnp.where(last, cost - predicted, cost)
        kept = jnp.where(accept, distance, old.distance)
        done = old.done | there | stuck | last
        new = _Search(at, cost, grad, gram, bend, trial, damping, growth, predicted, kept, old.steps + 1, done, far)
        return jtu.tree_map(lambda now, was: jnp.where(old.done, was, now), new, old)

    def bent(self, old: _Search, grad: Array, gram: Array, valid: Array) -> Array:
        """The symmetric rank-one secant of what the information misses (Nocedal and Wright, eq. 6.24)."""
        moved = old.trial - old.at
        miss = grad - old.grad - _times(gram + old.bend, moved)
        along = total(miss * moved)
        fine = jnp.abs(along) > 1e-8 * jnp.sqrt(total(miss * miss) * total(moved * moved))
        fine = fine & valid & (old.steps >= _BENT)
        outer = miss[:, None] * miss[None] / jnp.where(fine, along, 1)[None, None]
        return old.bend + jnp.where(fine, outer, 0)

    def meets(self, at: Array, trial: Array) -> Array:
        """Where a trial has come to a bound that it was not at."""
        lower, upper = self.limits.lower[:, None], self.limits.upper[:, None]
        return jnp.any(((trial <= lower) | (trial >= upper)) & (trial != at), 0)

    def propose(self, at: Array, grad: Array, gram: Array, bend: Array, damping: Array) -> tuple[Array, Array, Array]:
        """(next trial, decrease that it promises, squared length of the undamped step in standard errors)."""
        lower, upper = self.limits.lower[:, None], self.limits.upper[:, None]
        held = ((at <= lower) & (grad > 0)) | ((at >= upper) & (grad < 0)) | (lower >= upper)
        diagonal = jnp.stack([gram[i, i] for i in range(at.shape[0])])
        known = (diagonal > 0) & ~held
        scale = jnp.where(known, 1 / jnp.sqrt(jnp.where(known, diagonal, 1)), 0)
        eye = jnp.eye(at.shape[0], dtype=at.dtype)[:, :, None]
        unit = gram * scale[:, None] * scale[None, :] + eye * (~known).astype(at.dtype)[:, None]
        slope = grad * scale
        tiny = at.shape[0] * jnp.finfo(at.dtype).eps
        newton = factorise(unit + eye * tiny)
        full = unit + bend * scale[:, None] * scale[None, :]
        convex = factorise(full + eye * tiny).ok
        damped = factorise(jnp.where(convex, full, unit) + eye * (damping + tiny)[None, None])
        step = jnp.clip(at - damped.solve(slope) * scale, lower, upper) - at
        room = jnp.where(upper > lower, _LEAP * (upper - lower), jnp.inf)
        leap = functools.reduce(jnp.maximum, jnp.abs(step) / room)
        trial = jnp.clip(at + step / jnp.maximum(leap, 1)[None], lower, upper)
        step = trial - at
        curve = total(step * _times(jnp.where(convex, gram + bend, gram), step))
        distance = jnp.where(newton.ok, total(slope * newton.solve(slope)), jnp.inf)
        return trial, -total(grad * step) - curve / 2, distance


def _times(matrix: Float[Array, "p p k"], x: Float[Array, "p k"]) -> Float[Array, "p k"]:
    return functools.reduce(jnp.add, (matrix[:, j] * x[j][None] for j in range(x.shape[0])))


def total(x: Float[Array, "p k"]) -> Float[Array, " k"]:
    """The sum over a few parameters, which as a reduction would be a slow call of its own."""
    return functools.reduce(jnp.add, x)


def _conclude(found: _Search, limits: Limits) -> _Known:
    """Covariances, honest where the data say nothing."""
    lower, upper = limits.lower[:, None], limits.upper[:, None]
    p = found.at.shape[0]
    eye = jnp.eye(p, dtype=found.at.dtype)[:, :, None]
    fixed = jnp.broadcast_to(lower >= upper, found.at.shape)
    diagonal = jnp.stack([found.gram[i, i] for i in range(p)])
    known = (diagonal > 0) & ~fixed
    scale = jnp.where(known, 1 / jnp.sqrt(jnp.where(known, diagonal, 1)), 0)
    unit = found.gram * scale[:, None] * scale[None, :] + eye * (~known).astype(scale.dtype)[:, None]
    factor = factorise(unit[:, :, None])
    inverse = factor.solve(jnp.broadcast_to(eye, found.gram.shape)) * scale[:, None] * scale[None, :]
    lost = (~known & ~fixed) | (known & (factor.least < _WELL))
    either = lost[:, None] | lost[None, :]
    inverse = jnp.where(either, jnp.where(eye > 0, jnp.inf, jnp.nan), inverse)
    held = fixed[:, None] | fixed[None, :]
    at_bound = jnp.where(fixed, 0, jnp.where(found.at >= upper, 1, jnp.where(found.at <= lower, -1, 0)))
    return _Known(jnp.where(held, 0, inverse), ~lost, at_bound)
