"""Fits of many cells, each by itself, with the cells along the last axis of every array.

The search is that of `fitting._small_fits`; here is what it sees of a cell, and the loop over slabs of them.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import equinox as eqx
import jax.tree_util as jtu
import numpy as np
from jaxtyping import Array, Float, Int

from ..core._module import Module
from ..core._parameter import free_spec, get
from ..fitting._program import call
from ..fitting._small_fits import Box, Numbers, Progress, Terms, known, pack, pairs, run, total, unpack
from ._fixed import at_lanes
from ._likelihood import Maps, Sky
from ._mixing import MixingMatrix
from ._slabs import Observed, Slabs, by_blocks, whitened

_ROUNDS = (5, 2, 3, 6, 14)  # evaluations before each look at which cells are done; after those, as many as are left
_LEAP = 0.2  # of the room between the bounds: longer steps of faint pixels end in maxima of other components


class Limits(Module):
    """Bounds and Gaussian priors of each free parameter."""

    lower: Float[Array, " p"]
    upper: Float[Array, " p"]
    mean: Float[Array, " p"]
    weight: Float[Array, " p"]

    def box(self) -> Box:
        """The bounds, as a search of lanes wants them."""
        return Box(tuple(self.lower), tuple(self.upper), _LEAP)


class CellFits(NamedTuple):
    """Of each of k cells, last axis, on the host: values (p, k), cost, covariance (p, p, k), how the search ended.

    `status`: see `fitting._small_fits`. The covariance is infinite where the data say nothing.
    """

    values: np.ndarray
    cost: np.ndarray
    covariance: np.ndarray
    steps: np.ndarray
    status: np.ndarray


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
            maps = call(whitened, observed.take(cells, slabs))
            count, rows = slabs.fill(counts, cells), slabs.fill(progress.rows, cells, 1.0)
            still = {name: slabs.fill(x, cells, x[0]) for name, x in (fixed or {}).items()}
            args = (mixing, nu, limits, maps, count, rows, still, blocks, most)
            new = call(_advance, args, (tuple(free), slabs.size, tolerance, marginal))
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
        sky, box = Sky(nu, maps, None, count, marginal), limits.box()
        ended = run(unpack(rows, len(free)), terms_of(at_lanes(mixing, still), sky, limits, free), box, tolerance, most)
        return pack(ended), known(ended, box).covariance

    return by_blocks(block, (maps, count, rows, still), size, blocks)


def terms_of(mixing: MixingMatrix, sky: Sky, limits: Limits, free: tuple[str, ...]) -> Callable[[Numbers], Terms]:
    """What a search sees of cells: their likelihood and the priors as functions of the free parameters."""
    moving, rest = eqx.partition(mixing, free_spec(mixing, free))
    structure = jtu.tree_structure(moving)

    def terms(at: Numbers) -> Terms:
        cells = sky.cells(eqx.combine(jtu.tree_unflatten(structure, list(at)), rest), free)
        off = [x - mean for x, mean in zip(at, limits.mean, strict=True)]
        prior = total(weight * x * x for weight, x in zip(limits.weight, off, strict=True)) / 2
        grad = tuple(g + weight * x for g, weight, x in zip(cells.grad, limits.weight, off, strict=True))
        gram = tuple(cells.gram[i, j] + (limits.weight[i] if i == j else 0) for i, j in pairs(len(free)))
        return Terms(cells.cost + prior, grad, gram)

    return terms
