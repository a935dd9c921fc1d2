"""What would stop fits before their first step, found without fitting: `jaxsci check` asks it of all that it builds.

The words are those of a fit: the same objective, inspected as a fit inspects it, and linearised where the solver would
linearise it first. So what passes here is fitted, and what does not pass ends a fit with the same `RESULTS`.
"""

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optimistix as optx
from jaxtyping import Array, Int

from ..core import AbstractLoss, Model, Tree
from ..datasets import AbstractDataset, StreamedDataset, blocks
from ._batch import _lanes
from ._ending import Checked, ending
from ._fit import Ready, check, make_ready
from ._plan import make_plan, terms_of
from ._problem import Choices, Problem, Solver
from ._program import compiled
from ._solver._foreign import _off_bounds
from ._solver._trust_region import AbstractTrustSolver, Bounds, _finite

_TOGETHER = 64  # members at a time, so that their Jacobians fit into memory


def foresee(
    models: Tree,
    datasets: Tree,
    *,
    free: Sequence[str] | None,
    bounds: Mapping[str, Any] | None,
    priors: Mapping[str, Any] | None,
    solver: Solver,
    loss: AbstractLoss,
) -> Int[np.ndarray, " m"]:
    """How each fit of a batch would end if it ended before its first step: the value of a `RESULTS`, 0 where it begins.

    **Arguments:** those of `fit_batch`.

    **Raises:** `ValueError` and `TypeError` as `fit_batch` raises them, before a fit.
    """
    todo = list(blocks(models, datasets))
    out = np.zeros(sum(len(block.members) for block in todo), int)
    for block in todo:
        plan, lanes = _lanes(block, len(out), free, bounds, priors, loss)
        out[block.members] = compiled(_each, (lanes, Choices(plan, solver)), once=True)
    return out


def foresee_one(
    model: Model,
    data: AbstractDataset,
    *,
    free: Sequence[str] | None,
    bounds: Mapping[str, Any] | None,
    priors: Mapping[str, Any] | None,
    solver: Solver,
    loss: AbstractLoss,
) -> int:
    """The same of a single fit, whose rows may be a `StreamedDataset`, which is read while it is looked at.

    **Arguments:** those of `fit`.

    **Raises:** as `fit` does, before its first step.
    """
    data, source = (data.stream, data.source) if isinstance(data, StreamedDataset) else (data, None)
    plan = make_plan(model, data.noise, free)
    check(plan, data, loss, None, None)
    problem = Problem(model, data, terms_of(plan, bounds, priors, None, loss))
    run = functools.partial(compiled, _one, (problem, Choices(plan, solver)), once=True)
    return int(run() if source is None else source.wait_for(run))


def _each(problems: Problem, choices: Choices) -> Int[Array, " m"]:
    return jax.lax.map(lambda problem: _one(problem, choices), problems, batch_size=_TOGETHER)


def _one(problem: Problem, choices: Choices) -> Int[Array, ""]:
    ready = make_ready(problem, choices)
    count, fine, valid, _ = ready.objective.inspect(ready.base)
    begins, yes, no = _finite(ready.objective(_first(ready, choices.solver))), jnp.array(True), jnp.array(False)
    ended = optx.RESULTS.where(begins, optx.RESULTS.successful, optx.RESULTS.nonfinite)
    return ending(ended, Checked(count, fine, valid, yes, no, no))._value


def _first(ready: Ready, solver: Solver) -> Array:
    """Where a solver evaluates first."""
    if isinstance(solver, AbstractTrustSolver):
        return solver.start(ready.y0, Bounds(ready.lower, ready.upper, bool(ready.bounds)))[0]
    return _off_bounds(ready.y0, ready.lower, ready.upper)
