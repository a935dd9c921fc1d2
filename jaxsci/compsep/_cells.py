"""Fits of many cells, each by itself, with the cells along the last axis of every array.

The search is that of `fitting.small_fits`; here is what it sees of a cell, and the loop over slabs of them.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import equinox as eqx
import jax.numpy as jnp
import jax.tree_util as jtu
import numpy as np
from jaxtyping import Array, Float, Int

from ..core import Module, free_spec, get
from ..fitting import compiled
from ..fitting.small_fits import (
    AbstractSmallFits,
    Box,
    Numbers,
    Progress,
    Rule,
    Sums,
    known,
    pack,
    pairs,
    run,
    settle,
    total,
    unpack,
)
from ._fixed import at_lanes
from ._likelihood import Maps, Sky
from ._mixing import MixingMatrix
from ._slabs import Observed, Slabs, by_blocks, whitened

_ROUNDS = (6, 2, 3, 6, 14)  # evaluations before each look at which cells are done; after those, as many as are left
_LEAP = 0.2  # of the room between the bounds: longer steps of faint pixels end in maxima of other components


class Limits(Module):
    """Bounds and Gaussian priors of each free parameter."""

    lower: Float[Array, " p"]
    upper: Float[Array, " p"]
    mean: Float[Array, " p"]
    weight: Float[Array, " p"]


class CellFits(NamedTuple):
    """Of each of k cells, last axis: values (p, k), cost, covariance (p, p, k), how the search ended.

    `status`: see `fitting.small_fits`. The covariance is infinite where the data say nothing. Arrays of NumPy, unless
    they are being traced.
    """

    values: Any
    cost: Any
    covariance: Any
    steps: Any
    status: Any


class CellProblem(AbstractSmallFits):
    """What a search sees of cells: their likelihood and the priors as functions of the free parameters."""

    mixing: MixingMatrix
    sky: Sky
    limits: Limits
    free: tuple[str, ...] = eqx.field(static=True)

    def __call__(self, at: Numbers) -> Sums:
        moving, rest = eqx.partition(self.mixing, free_spec(self.mixing, self.free))
        model = eqx.combine(jtu.tree_unflatten(jtu.tree_structure(moving), list(at)), rest)
        cells, weights = self.sky.cells(model, self.free), self.limits.weight
        off = [x - mean for x, mean in zip(at, self.limits.mean, strict=True)]
        prior = total(weight * x * x for weight, x in zip(weights, off, strict=True)) / 2
        grad = tuple(g + weight * x for g, weight, x in zip(cells.grad, weights, off, strict=True))
        gram = tuple(cells.gram[i, j] + (weights[i] if i == j else 0) for i, j in pairs(len(at)))
        return Sums(cells.cost + prior, grad, gram)

    def box(self) -> Box:
        return Box(tuple(self.limits.lower), tuple(self.limits.upper), _LEAP)


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
    k, p = observed.columns.shape[1], len(free)
    slabs, counts = slabs or Slabs.of(k), observed.counts()
    start = np.array([float(get(mixing, name)) for name in free])
    start = np.clip(start, np.asarray(limits.lower), np.asarray(limits.upper))
    progress, covariance = Progress.blank(np.repeat(start[:, None], k, axis=1)), np.zeros((p, p, k))
    for pending, most in progress.rounds(_ROUNDS, max_steps):
        for cells, blocks in slabs.parts(pending):
            maps = compiled(whitened, observed.take(cells, slabs))
            count, rows = slabs.fill(counts, cells), slabs.fill(progress.rows, cells, 1.0)
            still = {name: slabs.fill(x, cells, x[0]) for name, x in (fixed or {}).items()}
            args = (mixing, nu, limits, maps, count, rows, still, blocks, most)
            new = compiled(_advance, args, (tuple(free), slabs.size, tolerance, marginal))
            for whole, part in zip((progress.rows, covariance), new, strict=True):
                whole[..., cells] = np.asarray(part)[..., : len(cells)]
    return CellFits(progress.at, progress.cost, covariance, progress.steps, progress.status)


def _advance(
    mixing: MixingMatrix,
    nu: Any,
    limits: Limits,
    maps: Maps,
    count: Float[Array, "s k"],
    rows: Float[Array, "rows k"],
    still: dict[str, Array],
    blocks: Int[Array, ""],
    most: Int[Array, ""],
    free: tuple[str, ...],
    size: int,
    tolerance: float,
    marginal: bool,
) -> tuple[Array, Array]:
    """At most so many evaluations of the cells in the first blocks, block after block: (rows, covariances)."""

    def block(part: Any) -> tuple[Array, Array]:
        maps, count, rows, still = part
        problem = CellProblem(at_lanes(mixing, still), Sky(nu, maps, None, count, marginal), limits, free)
        ended = run(unpack(rows, len(free)), problem, problem.box(), Rule(tolerance), most)
        return pack(ended), known(ended.terms, problem.box()).covariance

    return by_blocks(block, (maps, count, rows, still), size, blocks)


def trace_cells(
    mixing: MixingMatrix,
    sky: Sky,
    limits: Limits,
    still: dict[str, Array],
    free: tuple[str, ...],
    tolerance: float,
    max_steps: int,
) -> CellFits:
    """The same fits as one program without a host, whose answers have derivatives."""
    problem = CellProblem(at_lanes(mixing, still), sky, limits, free)
    start = jnp.clip(jnp.stack([get(mixing, name) for name in free]), limits.lower, limits.upper)
    start = jnp.broadcast_to(start[:, None], (len(free), sky.count.shape[1]))
    found = settle(problem, start, tolerance, jnp.asarray(max_steps))
    terms = problem(tuple(found.at))
    return CellFits(found.at, terms.cost, known(terms, problem.box()).covariance, found.steps, found.status)
