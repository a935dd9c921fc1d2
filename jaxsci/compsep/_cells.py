"""Fits of many cells, each by itself, with the cells along the last axis of every array.

The core's `fit_batch` has the batch along the first axis and general trees in its carry, which costs more than
these tiny problems themselves; here a step of a block of cells is a handful of vector operations. Levenberg 1944,
Marquardt 1963; bounds by an active set and projection (Bertsekas 1982), as `jaxsci.GaussNewton`.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.tree_util as jtu
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Int

from ..core._linalg import factorise
from ..core._module import Module
from ..core._parameter import free_spec
from ..fitting._program import call
from ._likelihood import Maps, Sky
from ._mixing import MixingMatrix

_BLOCK = 512
_ROUNDS = (7, 14)  # evaluations before a look at which cells are done; after those, as many as are left
_STALLED = 1e12  # a damping that no step survives
_WELL = 1e-10  # the smallest pivot of a unit-diagonal information that counts as known


class Limits(Module):
    """Bounds and Gaussian priors of each free parameter."""

    lower: Float[Array, " p"]
    upper: Float[Array, " p"]
    mean: Float[Array, " p"]
    weight: Float[Array, " p"]


class CellFits(NamedTuple):
    """Of each of k cells, last axis: values (p, k), cost, inverse information (p, p, k), and how the search ended.

    `determined` (p, k): False where the data say nothing, and the covariance is infinite. `at_bound` (p, k): -1, 0, 1.
    """

    values: Array
    cost: Array
    covariance: Array
    steps: Array
    done: Array
    stalled: Array
    determined: Array
    at_bound: Array


class _Search(NamedTuple):
    """The carry: the accepted point with its cost, gradient, information; the trial; damping (0: none) and promise."""

    at: Array
    cost: Array
    grad: Array
    gram: Array
    trial: Array
    damping: Array
    predicted: Array
    steps: Array
    done: Array
    stalled: Array


def fit_cells(
    mixing: MixingMatrix,
    sky: Sky,
    free: Sequence[str],
    start: Float[Array, "p k"],
    limits: Limits,
    *,
    tolerance: float = 1e-6,
    max_steps: int = 100,
) -> CellFits:
    """Fit the free parameters of each cell of a sky to that cell's data alone.

    **Arguments:** `start`: where each cell starts. `tolerance`: a cell is done when the step that is left is shorter
    than this many standard errors. `max_steps`: evaluations of a cell at most.
    """
    k = start.shape[1]
    size = min(_BLOCK, -(-k // 16) * 16)
    maps = tuple(Maps(_padded(m.data, k, size), _padded(m.root, k, size)) for m in sky.maps)
    count = tuple(_padded(c, k, size) for c in sky.count)
    problem = (mixing, sky.nu, maps, count, limits)
    choices = (tuple(free), size, tolerance, sky.marginal)
    at = _padded(start, k, size, edge=True)
    found = _rounds(problem, at, k, choices, max_steps)
    found = jtu.tree_map(lambda x: x[..., :k], found)
    return _conclude(found, limits)


def _padded(array: Array, k: int, size: int, edge: bool = False) -> Array:
    if array.shape[-1] != k or k % size == 0:
        return array
    return jnp.pad(array, [(0, 0)] * (array.ndim - 1) + [(0, -k % size)], mode="edge" if edge else "constant")


def _blank(at: Array) -> _Search:
    p, k = at.shape
    zero, none = jnp.zeros(k, at.dtype), jnp.zeros(k, bool)
    gram = jnp.zeros((p, p, k), at.dtype)
    return _Search(at, zero + jnp.inf, jnp.zeros_like(at), gram, at, zero, zero, jnp.zeros(k, int), none, none)


def _rounds(problem: Any, at: Array, k: int, choices: tuple[Any, ...], max_steps: int) -> _Search:
    """A few steps of all cells, then of those that are not done, gathered into full blocks again."""
    found = jtu.tree_map(np.array, _blank(at))
    found.done[k:] = True
    size, pending, data = choices[1], np.arange(at.shape[1]), problem
    mixing, nu, maps, count, limits = problem
    for steps in (*_ROUNDS, max_steps):
        steps = min(steps, max_steps - int(np.min(found.steps[pending])))
        search = jtu.tree_map(lambda x: jnp.asarray(_take(x, pending, at.shape[1])), found)  # noqa: B023
        blocks = jnp.array(-(-len(pending) // size))
        new = jtu.tree_map(np.asarray, call(_run, (data, search, blocks, jnp.array(steps)), (choices,)))
        for old, now in zip(found, new, strict=True):
            old[..., pending] = now[..., : len(pending)]
        pending = np.flatnonzero(~found.done & (found.steps < max_steps))
        if not len(pending):
            break
        fewer = jtu.tree_map(lambda x: _some(x, pending, at.shape[1]), (maps, count))  # noqa: B023
        data = (mixing, nu, *fewer, limits)
    return _Search(*map(jnp.asarray, found))


def _take(x: np.ndarray, cells: np.ndarray, length: int) -> np.ndarray:
    if len(cells) == length:
        return x
    out = np.zeros((*x.shape[:-1], length), x.dtype)
    out[..., : len(cells)] = x[..., cells]
    if x.dtype == bool:
        out[..., len(cells) :] = True  # what fills up the last block is done already
    return out


def _some(x: Array, cells: np.ndarray, length: int) -> Array:
    return jnp.asarray(_take(np.asarray(x), cells, length)) if x.shape[-1] == length else x


def _run(
    problem: Any, search: _Search, blocks: Int[Array, ""], steps: Int[Array, ""], choices: tuple[Any, ...]
) -> _Search:
    """At most so many evaluations of the cells in the first blocks, block after block."""
    free, size, tolerance, marginal = choices
    mixing, nu, maps, count, limits = problem
    length = search.cost.shape[0]

    def one(i: Array, search: _Search) -> _Search:
        def part(x: Array) -> Array:
            return lax.dynamic_slice_in_dim(x, i * size, size, x.ndim - 1) if x.shape[-1] == length else x

        here = Block(mixing, nu, jtu.tree_map(part, maps), jtu.tree_map(part, count), limits, free, tolerance, marginal)
        ended = here.run(jtu.tree_map(part, search), steps)

        def put(whole: Array, new: Array) -> Array:
            return lax.dynamic_update_slice_in_dim(whole, new, i * size, whole.ndim - 1)

        return jtu.tree_map(put, search, ended)

    return lax.fori_loop(0, blocks, one, search)


class Block(Module):
    """Cells that are searched in step."""

    mixing: MixingMatrix
    nu: Any
    maps: tuple[Maps, ...]
    count: tuple[Array, ...]
    limits: Limits
    free: tuple[str, ...] = eqx.field(static=True)
    tolerance: float = eqx.field(static=True)
    marginal: bool = eqx.field(static=True)

    def evaluate(self, at: Float[Array, "p k"]) -> tuple[Array, Array, Array]:
        """(cost (k,), gradient (p, k), information (p, p, k)), priors included."""
        moving, rest = eqx.partition(self.mixing, free_spec(self.mixing, self.free))
        model = eqx.combine(jtu.tree_unflatten(jtu.tree_structure(moving), list(at)), rest)
        index = dict.fromkeys(self.free, jnp.arange(at.shape[1]))
        cells = Sky(self.nu, self.maps, index, self.count, self.marginal).cells(model, self.free)
        p = range(at.shape[0])
        gram = jnp.stack([jnp.stack([cells.gram[max(i, j)][min(i, j)] for j in p]) for i in p])
        off, weight = at - self.limits.mean[:, None], self.limits.weight[:, None]
        gram = gram + jnp.where(jnp.eye(len(p), dtype=bool)[:, :, None], weight[:, None, :], 0)
        return cells.cost + jnp.sum(weight * off * off, 0) / 2, jnp.stack(cells.grad) + weight * off, gram

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
        finite = jnp.isfinite(cost) & jnp.all(jnp.isfinite(grad), 0)
        slack = 1e-14 * jnp.abs(jnp.where(first, 0, old.cost))
        accept = finite & (first | (cost <= old.cost + slack))
        gain = jnp.where(first, 1, (old.cost - cost) / jnp.where(old.predicted > 0, old.predicted, 1))
        damping = jnp.where(gain > 0.75, 0.1 * old.damping, jnp.where(gain > 0.25, old.damping, 4 * old.damping))
        damping = jnp.where(accept & (damping < 1e-5), 0, damping)
        damping = jnp.where(accept, damping, jnp.maximum(8 * old.damping, 1e-3))
        at, cost, grad, gram = (
            jnp.where(accept, new, was)
            for new, was in zip((old.trial, cost, grad, gram), (old.at, old.cost, old.grad, old.gram), strict=True)
        )
        trial, predicted, distance = self.propose(at, grad, gram, damping)
        stuck = (damping > _STALLED) | jnp.all(trial == at, 0) | (first & ~finite)
        done = old.done | (distance <= self.tolerance**2) | stuck
        far = stuck & ~(distance <= 1e-6)
        new = _Search(at, cost, grad, gram, trial, damping, predicted, old.steps + 1, done, old.stalled | (far & stuck))
        return jtu.tree_map(lambda now, was: jnp.where(old.done, was, now), new, old)

    def propose(self, at: Array, grad: Array, gram: Array, damping: Array) -> tuple[Array, Array, Array]:
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
        damped = factorise(unit + eye * (damping + tiny)[None, None])
        step = -damped.solve(slope) * scale
        trial = jnp.clip(at + step, lower, upper)
        step = trial - at
        curve = sum(step[i] * sum(gram[i, j] * step[j] for j in range(len(step))) for i in range(len(step)))
        distance = jnp.where(newton.ok, jnp.sum(slope * newton.solve(slope), 0), jnp.inf)
        return trial, -jnp.sum(grad * step, 0) - curve / 2, distance


@jax.jit
def _conclude(found: _Search, limits: Limits) -> CellFits:
    """Covariances, honest where the data say nothing."""
    lower, upper = limits.lower[:, None], limits.upper[:, None]
    p = found.at.shape[0]
    eye = jnp.eye(p, dtype=found.at.dtype)[:, :, None]
    fixed = jnp.broadcast_to(lower >= upper, found.at.shape)
    diagonal = jnp.stack([found.gram[i, i] for i in range(p)])
    known = (diagonal > 0) & ~fixed
    scale = jnp.where(known, 1 / jnp.sqrt(jnp.where(known, diagonal, 1)), 0)
    factor = factorise(found.gram * scale[:, None] * scale[None, :] + eye * (~known).astype(scale.dtype)[:, None])
    units = jnp.broadcast_to(eye, found.gram.shape)
    inverse = jnp.stack([factor.solve(units[i]) for i in range(p)]) * scale[:, None] * scale[None, :]
    lost = (~known & ~fixed) | (known & (factor.least < _WELL)[None])
    either = lost[:, None] | lost[None, :]
    inverse = jnp.where(either, jnp.where(eye > 0, jnp.inf, jnp.nan), inverse)
    held = fixed[:, None] | fixed[None, :]
    at_bound = jnp.where(fixed, 0, jnp.where(found.at >= upper, 1, jnp.where(found.at <= lower, -1, 0)))
    covariance = jnp.where(held, 0, inverse)
    return CellFits(
        found.at, found.cost, covariance, found.steps, found.done & ~found.stalled, found.stalled, ~lost, at_bound
    )
