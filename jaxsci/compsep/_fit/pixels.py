"""Fits of cells that share no parameter with any other, each by itself, with the cells along the last axis.

The search is that of `fitting.small_fits`; here is what it sees of a cell, and the loop over batches of cells that the
host drives: it drops those that are done, so that the few that take long do not hold up the many. Within a JAX
transformation there is no host, and the same search is one program whose answers have derivatives. `fit_sky` calls it.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import jax.tree_util as jtu
import numpy as np
from jaxtyping import Array, Float, Int

from ...core import free_spec, get
from ...fitting import RESULTS, at_bound, compiled, small_fits, uncertainty
from ...fitting.small_fits import (
    AbstractSmallFits,
    Box,
    Numbers,
    Progress,
    Rule,
    Sums,
    pack,
    pairs,
    run,
    settle,
    total,
    unpack,
)
from .._given import ArrayModule, Values
from .._instrument import Frequencies
from .._mixing import MixingMatrix, at_lanes
from .._patches import Cells
from .._settings import Limits, Settings
from .._sky import Sky
from .dataset import SkyDataset, whitened
from .fits import Fits
from .host_batches import batches, by_strips, fill, gathered, lanes_for, strip_of

_ROUNDS = (6, 2, 3, 6, 14)  # evaluations before each look at which cells are done; after those, as many as are left
_LEAP = 0.2  # of the room between the bounds: longer steps of faint pixels end in maxima of other components


class CellProblem(AbstractSmallFits):
    """What a search sees of cells: their likelihood and the priors as functions of the free parameters."""

    mixing: MixingMatrix
    data: SkyDataset
    limits: Limits
    free: tuple[str, ...] = eqx.field(static=True)

    def __call__(self, at: Numbers) -> Sums:
        moving, rest = eqx.partition(self.mixing, free_spec(self.mixing, self.free))
        model = eqx.combine(jtu.tree_unflatten(jtu.tree_structure(moving), list(at)), rest)
        sums, weights = self.data.cells(model, self.free), self.limits.prior_weight
        off = [x - mean for x, mean in zip(at, self.limits.prior_mean, strict=True)]
        prior = total(weight * x * x for weight, x in zip(weights, off, strict=True)) / 2
        grad = tuple(g + weight * x for g, weight, x in zip(sums.grad, weights, off, strict=True))
        gram = tuple(sums.gram[i, j] + (weights[i] if i == j else 0) for i, j in pairs(len(at)))
        return Sums(sums.cost + prior, grad, gram)

    def box(self) -> Box:
        return Box(tuple(self.limits.lower), tuple(self.limits.upper), _LEAP)


def fit_pixels(settings: Settings, sky: Sky, cells: Cells, limits: Limits, lanes: int | None = None) -> Fits:
    """Fit the free parameters of each cell to that cell's data alone, from where the mixing matrix has them.

    A cell is done when the step that is left is shorter than `settings.tolerance` standard errors, and given up after
    `settings.max_steps` evaluations.

    **Arguments:** `lanes`: of a call; by default as the number of cells asks for.
    """
    free, pixels = settings.free, cells.pixels()
    fixed = {name: values[cells.first] for name, values in cells.fixed.items()}
    # a cell's number is that of its element of every parameter, but each counts them in its own order
    order = [np.argsort(cells.element[name][cells.first]) for name in free]
    if settings.traced:
        every = settings.mixing, sky, pixels, limits, fixed, order
        return compiled(_in_one_program, every, (free, settings.marginal, settings.tolerance, settings.max_steps))
    k, p = pixels.shape[1], len(free)
    lanes = lanes_for(k) if lanes is None else lanes
    # all cells start at the same values, on the host: a program for each number of cells would cost more
    start = np.array([float(get(settings.mixing, name)) for name in free])
    start = np.clip(start, np.asarray(limits.lower), np.asarray(limits.upper))
    counts, placement = sky.counts(pixels), settings.placement

    def search(mine: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The searches of these cells, whose arrays are last: (rows, covariances)."""
        progress = Progress.blank(np.repeat(start[:, None], len(mine), axis=1))
        covariance = np.zeros((p, p, len(mine)))
        for pending, most in progress.rounds(_ROUNDS, settings.max_steps):

            def advance(call: tuple[np.ndarray, np.ndarray], most: np.ndarray = most) -> tuple[np.ndarray, ...]:
                some, strips = call
                cell = mine[some]
                data, root = compiled(_whitened, gathered(sky, pixels, cell, lanes))
                count, rows = fill(counts, cell, lanes), fill(progress.rows, some, lanes, 1.0)
                still = {name: fill(x, cell, lanes, x[0]) for name, x in fixed.items()}
                batch = settings.mixing, sky.nu, limits, data, root, count, rows, still, strips, most
                new = compiled(_advance, batch, (free, strip_of(lanes), settings.tolerance, settings.marginal))
                return tuple(np.asarray(part) for part in new)

            def put(call: tuple[np.ndarray, np.ndarray], new: tuple[np.ndarray, ...]) -> None:
                for whole, part in zip((progress.rows, covariance), new, strict=True):
                    whole[..., call[0]] = part[..., : len(call[0])]  # the lanes that are left hold nothing

            placement.local.spread(batches(pending, lanes), advance, put)
        return progress.rows, covariance

    rows, covariance = placement.in_shares(k, lanes, search, axis=-1)
    done = Progress(rows, p)
    return _as_fits(np, free, limits, order, done.at, done.cost, covariance, done.steps, done.status)


def _whitened(data: Float[Array, "s f m k"], root: Array) -> tuple[Array, Array]:
    """The whitened data beside their noise, so that both are on the device when a batch is fitted."""
    return whitened(data, root), root


def _advance(
    mixing: MixingMatrix,
    nu: Frequencies,
    limits: Limits,
    data: Float[Array, "s f m k"],
    root: Array,
    count: Float[Array, "s k"],
    rows: Float[Array, "rows k"],
    still: dict[str, Array],
    strips: Int[Array, ""],
    most: Int[Array, ""],
    free: tuple[str, ...],
    size: int,
    tolerance: float,
    marginal: bool,
) -> tuple[Array, Array]:
    """At most so many evaluations of the cells in the first strips, strip after strip: (rows, covariances)."""

    def strip(data: Array, root: Array, count: Array, rows: Array, still: dict[str, Array]) -> tuple[Array, Array]:
        seen = SkyDataset(nu, data, root, count=count, marginal=marginal)
        problem = CellProblem(at_lanes(mixing, still), seen, limits, free)
        ended = run(unpack(rows, len(free)), problem, problem.box(), Rule(tolerance), most)
        return pack(ended), uncertainty(ended.terms.gram, problem.box().fixed()).covariance

    return by_strips(strip, (data, root, count, rows, still), size, strips)


def _in_one_program(
    mixing: MixingMatrix,
    sky: Sky,
    pixels: Int[Array, "m k"],
    limits: Limits,
    fixed: dict[str, Array],
    order: list[Array],
    free: tuple[str, ...],
    marginal: bool,
    tolerance: float,
    max_steps: int,
) -> Fits:
    """The same fits without a host."""
    seen = SkyDataset.of(sky, pixels, marginal=marginal)
    problem = CellProblem(at_lanes(mixing, fixed), seen, limits, free)
    start = jnp.clip(jnp.stack([get(mixing, name) for name in free]), limits.lower, limits.upper)
    start = jnp.broadcast_to(start[:, None], (len(free), pixels.shape[1]))
    found = settle(problem, start, tolerance, jnp.asarray(max_steps))
    sums = problem(tuple(found.at))
    covariance = uncertainty(sums.gram, problem.box().fixed()).covariance
    return _as_fits(jnp, free, limits, order, found.at, sums.cost, covariance, found.steps, found.status)


def _as_fits(
    xp: ArrayModule,
    free: tuple[str, ...],
    limits: Limits,
    order: Sequence[Values],
    at: Values,
    cost: Values,
    covariance: Values,
    steps: Values,
    status: Values,
) -> Fits:
    """Name what the searches found, in the order of each parameter's elements, and say how they ended."""

    def named(rows: Values) -> dict[str, Values]:
        return {name: row[place] for name, row, place in zip(free, rows, order, strict=True)}

    result = xp.asarray([_ENDINGS[each] for each in sorted(_ENDINGS)], np.int32)[status]
    covariance = xp.where(status == small_fits.NONFINITE, np.nan, covariance)
    errors = xp.sqrt(xp.stack([covariance[i, i] for i in range(len(free))]))
    lower, upper = xp.asarray(limits.lower)[:, None], xp.asarray(limits.upper)[:, None]
    return Fits(named(at), named(errors), named(at_bound(at, lower, upper)), covariance, result, steps, cost)


_CODES: Any = RESULTS
_ENDINGS: Mapping[int, int] = {
    small_fits.SEARCHING: _CODES.max_steps_reached._value,
    small_fits.CONVERGED: _CODES.successful._value,
    small_fits.STALLED: _CODES.stalled._value,
    small_fits.NONFINITE: _CODES.nonfinite_start._value,
}
