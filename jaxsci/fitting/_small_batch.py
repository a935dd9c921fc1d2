"""Batches of fits of few parameters to independent rows, which run on the engine of `small_fits`.

Here is which batches those are, what the engine sees of one lane of them (cost, gradient and information, in one pass
over its rows), and which members it has not finished soundly: they are handed over to the solver that the caller chose,
from the start that was given, as if there were no engine. `fit_batch` calls this; what follows from an answer
(covariance, rank, result) is computed by the same functions as for `fit`.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import jax.tree_util as jtu
import numpy as np
import optimistix as optx
from jax import lax
from jaxtyping import Array, Bool

from ..core import AbstractLikelihood, AbstractNoise, Linearisation, opened
from ..datasets import AbstractDataset
from ..parallel import Checkpoint
from ._ending import look
from ._fit import End, describe, make_ready
from ._objective import Objective
from ._problem import Choices, Problem
from ._rounds import Job, aligned, each_lane
from ._solution import Solution
from ._solver._trust_region import Bounds, gap
from ._solver.gauss_newton import GaussNewton
from ._solver.trf import TRF
from .small_fits import (
    CONVERGED,
    SEARCHING,
    Box,
    Numbers,
    Progress,
    Rule,
    Search,
    Sums,
    begin,
    pack,
    pairs,
    run,
    unpack,
)

_PARAMETERS = 8  # at most: the work on the matrices is written out number by number
_ROUNDS = (8, 3, 10)  # evaluations before each look at which members are done
_MOST = 40  # evaluations; who needs more is in trouble, and handed over
_TOLERANCE = 1e-9  # of a solver that asks for less: it would polish its answer, the engine does not
_DAMPING = 0.3  # of the first step
_ROUNDINGS = 8.0  # of a parameter, which the check of an optimum allows too
_WARY = 6  # first evaluations in which a step goes at most half-way to a bound


def takes(job: Job) -> bool:
    """True for members that the engine fits: few parameters of a model, rows that are independent, lanes side by side.

    `TRF` and `GaussNewton` both may be asked for them, and are what unsound members are handed over to.
    """
    choices, data = job.choices, job.lanes.data
    few = len(choices.plan.names) <= _PARAMETERS and not choices.plan.noise
    return few and job.width > 1 and type(choices.solver) in (TRF, GaussNewton) and not data.noise.coupled


def fit_small(job: Job, report: Callable[[int], None], checkpoint: Checkpoint | None, name: str) -> Solution:
    """Fit all members; a stacked Solution of NumPy arrays.

    The searches are kept in the `checkpoint`, under `name`, after each round; those of who is handed over beside them.
    """
    count, p, max_steps = job.size, len(job.choices.plan.names), job.choices.max_steps
    blank = Progress.blank(np.zeros((p, count), job.choices.plan.dtype)).rows.T
    rows = aligned(blank.shape, blank.dtype)
    rows[:] = blank if checkpoint is None else checkpoint.state(f"{name}.small", blank)
    progress = Progress(rows.T, p)
    done = np.zeros(count, bool)

    def tell() -> None:
        more = (progress.status == CONVERGED) & ~done
        done[more] = True
        report(int(np.sum(more)))

    tell()
    for pending, most in progress.rounds(_ROUNDS, min(max_steps, _MOST)):
        rows[pending] = job.collect(pending, (job.lanes, rows), _advance, 0, most)
        if checkpoint is not None:
            checkpoint.keep(f"{name}.small", rows)
        tell()
    solution, sound = job.collect(np.arange(count), (job.lanes, rows), each_lane(_conclude), 0)
    rest = np.flatnonzero(~sound)
    if len(rest):
        better = job.only(rest).run(_less(report, int(np.sum(done[rest]))), checkpoint, f"{name}.rest")
        jtu.tree_map(lambda old, new: old.__setitem__(rest, new), solution, better)
    return solution


def _less(report: Callable[[int], None], told: int) -> Callable[[int], None]:
    """A report that leaves out as many members as have been told already."""

    def count(more: int) -> None:
        nonlocal told
        again = min(told, more)
        told -= again
        report(more - again)

    return count


def _rule(choices: Choices) -> Rule:
    solver = choices.solver
    damping = solver.damping if isinstance(solver, GaussNewton) else _DAMPING
    return Rule(min(solver.rtol, _TOLERANCE), True, damping, _WARY, roundings=_ROUNDINGS, revealing=False, bent=None)


def _advance(lanes: tuple[Problem, Array], most: Array, choices: Choices) -> Array:
    """The searches of these lanes, (lanes, numbers), after at most so many evaluations."""
    problem, rows = lanes
    ready = jax.vmap(lambda lane: make_ready(lane, choices))(problem)
    search, rule = unpack(rows.T, len(choices.plan.names)), _rule(choices)
    fresh = search.steps == 0
    start = begin(tuple(ready.y0.T), rule.damping)
    search = jtu.tree_map(lambda a, b: jnp.where(fresh, a, b), start, search)
    box = Box(tuple(ready.lower.T), tuple(ready.upper.T), np.inf)

    def evaluate(at: Numbers) -> Sums:
        return jax.vmap(sums)(ready.objective, at)

    return pack(run(search, evaluate, box, rule, most)).T


def sums(objective: Objective, at: Numbers) -> Sums:
    """What a search sees of one fit: its cost, gradient and information, summed in a single pass over the rows."""
    p, y = len(at), jnp.stack(at)
    data, likelihood = opened(objective.data), objective.likelihood
    if not _by_rows(data, likelihood):
        lin = objective(y)
        matrix: Any = lin.gram
        return _as(y, Sums(lin.cost, tuple(lin.grad), tuple(matrix[i, j] for i, j in pairs(p))))
    residual, jac_t = objective.linearised(data, y)
    cost, jac_t, row = likelihood.weigh(jac_t, residual, data.mask)
    columns = [*jac_t, row]
    both = pairs(p + 1)
    terms = tuple(columns[i] * columns[j] for i, j in both)
    # one reduction with many results reads the rows once, and the model is computed within it
    zeros = (jnp.zeros((), row.dtype),) * len(both)
    found = dict(zip(both, lax.reduce(terms, zeros, _add, (0,)), strict=True))
    if isinstance(likelihood, AbstractNoise):
        cost = found[p, p] / 2
    prior, slope, curvature = objective.prior_cost(y), objective.prior_slope(y), objective.prior_curvature(y)
    grad = tuple(found[i, p] + slope[i] for i in range(p))
    gram = tuple(found[i, j] + (curvature[i] if i == j else 0) for i, j in pairs(p))
    return _as(y, Sums(cost + prior, grad, gram))


def _as(y: Array, sums: Sums) -> Sums:
    """In the precision of the parameters, which that of the data may exceed."""
    return jtu.tree_map(lambda x: x.astype(y.dtype), sums)


def _by_rows(data: AbstractDataset, likelihood: AbstractLikelihood) -> bool:
    """True where nobody has another way to the sums than by the rows."""
    kind = type(likelihood)
    plain = kind.sums is AbstractLikelihood.sums and kind.finish is AbstractLikelihood.finish
    return plain and type(data).sums is AbstractDataset.sums


def _add(a: tuple[Array, ...], b: tuple[Array, ...]) -> tuple[Array, ...]:
    return tuple(x + y for x, y in zip(a, b, strict=True))


def _conclude(lane: tuple[Problem, Array], choices: Choices) -> tuple[Solution, Bool[Array, ""]]:
    """The Solution of a member, and whether it is sound: an optimum where the information can be inverted."""
    problem, row = lane
    p = len(choices.plan.names)
    search: Search = unpack(row, p)
    ready = make_ready(problem, choices)
    places = {pair: k for k, pair in enumerate(pairs(p))}
    gram = jnp.stack([jnp.stack([search.terms.gram[places[min(i, j), max(i, j)]] for j in range(p)]) for i in range(p)])
    y = jnp.stack(search.at)
    lin = Linearisation(search.terms.cost, jnp.stack(search.terms.grad), gram)
    code: Any = optx.RESULTS
    result = code.where(search.status == CONVERGED, code.successful, code.nonlinear_max_steps_reached)
    end = End(y, result, search.steps.astype(int), search.status != SEARCHING, lin, jnp.asarray(jnp.inf, y.dtype))
    seen = look(ready.objective, y, ready.lower, ready.upper, lin)
    solution = describe(ready, choices, end, seen, seen.covariance)
    # the solver puts a parameter this near to a bound onto it, so that the answer moves with the bound
    norms = jnp.sqrt(jnp.diagonal(gram))
    bounds, inverse = Bounds(ready.lower, ready.upper, True), jnp.where(norms > 0, 1 / norms, 0)
    beside = bounds.held(y, lin.grad, gap(seen.size, inverse)) & ~bounds.reached(y)
    return solution, solution.success & seen.well & ~jnp.any(beside)
