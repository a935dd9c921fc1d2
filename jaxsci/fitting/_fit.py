"""fit(), the one entry point, and the compiled programs that it and every other kind of fit are made of.

`make_ready` turns a Problem into an Objective and a start, `search` runs a solver on it, `describe` says what follows
from where it ended. Batches, grids, joint fits and skies call these three; `fit` adds the checks of what it is given.
"""

import functools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.flatten_util as jfu
import jax.numpy as jnp
import optimistix as optx
from jax import lax
from jaxtyping import Array, ArrayLike, Bool, Float, Int

from ..core import (
    AbstractLikelihood,
    AbstractLoss,
    AbstractNoise,
    Linear,
    Linearisation,
    Model,
    Robust,
    as_count,
    closed,
    opened,
)
from ..datasets import AbstractDataset, Stream, StreamedDataset
from ..parallel import brought_home
from ._adjoint import Given, KKTAdjoint
from ._checks import check_fixed, check_given, check_search
from ._diagnose import judge
from ._ending import Checked, Look, at_bound, careful, ending, look, off_optimum
from ._lean import Flags, lean_first
from ._objective import Objective
from ._over_rows import AXIS, check_mesh, over_rows, share_rows
from ._plan import Plan, make_plan, terms_of
from ._problem import Choices, Problem, Solver
from ._solution import RESULTS, Solution
from ._solver._foreign import solve_foreign
from ._solver._trust_region import AbstractTrustSolver, TrustState
from ._solver.trf import TRF
from ._terms import Fitted, Terms
from ._uncertainty import Covariance, Rows, scaled_by_scatter, uncertainty


def fit(
    model: Model,
    data: AbstractDataset,
    *,
    free: Sequence[str] | None = None,
    bounds: Mapping[str, Any] | None = None,
    priors: Mapping[str, Any] | None = None,
    solver: Solver = TRF(),
    loss: AbstractLoss = Linear(),
    likelihood: AbstractLikelihood | None = None,
    active: ArrayLike | Sequence[bool] | Sequence[int] | None = None,
    chunk: int | None = None,
    mesh: jax.sharding.Mesh | None = None,
    max_steps: int = 200,
    throw: bool = True,
    strict: bool = False,
    scale_covariance: bool | None = None,
) -> Solution:
    """Fit the free parameters of a model to a data set, by least squares or maximum likelihood.

    One data set; `jax.vmap` (with `throw=False`) or `fit_batch` fit many. Differentiable with respect
    to data, noise, bounds, priors, fixed parameters; also where a bound is active.

    **Arguments:**

    - `model`: a Module with `param()` fields, whose values are the start.
    - `data`: a `Dataset`, or a `StreamedDataset`.
    - `free`: dotted names or globs of the parameters to fit; `None` for all of the model's. Names
      that begin with `noise.` free parameters of the noise, by maximum likelihood; `"*"` means the
      model's own.
    - `bounds`: `{name: (lower, upper)}`, `None` for no bound; wins over those of `param()`. Equal
      bounds fix a parameter.
    - `priors`: `{name: jaxsci.Normal(mean, sigma)}`: one more row each.
    - `solver`: `TRF()`, `GaussNewton()`, `Adam()`, or any optimistix least-squares solver or minimiser.
    - `loss`: a robust loss of the whitened residuals.
    - `likelihood`: used in place of `data.noise`.
    - `active`: one boolean for each free element; the others keep their value, whatever their bounds.
      Every mask shares one compiled program.
    - `chunk`: rows at a time, in constant memory; worth it above some 20,000 rows.
    - `mesh`: devices that share the rows, such as `jaxsci.mesh()`, for millions of them and a noise that does not
      couple them; `None` for the default device. The answer is the same but for roundings.
    - `max_steps`: at most so many evaluations.
    - `throw`: raise when the fit fails; give False inside `jax.vmap`, and look at `.result`.
    - `strict`: raise when the start lies outside the bounds, instead of moving it with a warning.
    - `scale_covariance`: multiply the covariance by chi2/dof; `None` does so where the noise is `None`.

    **Returns:** a `Solution`.

    **Raises:** `ValueError` for wrong names, shapes or data; `RuntimeError` when the fit fails.
    """
    check_given(model, data, free, bounds, priors, solver, loss, likelihood)
    check_search(solver, max_steps)
    given: Any = data
    data, source = (given.stream, given.source) if isinstance(given, StreamedDataset) else (given, None)
    start, data, likelihood = closed((model, data, likelihood))
    plan = make_plan(start, data.noise, free)
    check_fixed(plan, start)
    check(plan, data, loss, likelihood, chunk)
    terms = terms_of(plan, bounds, priors, active, loss, likelihood)
    choices, problem = Choices(plan, solver, chunk, max_steps, scale_covariance, mesh), Problem(start, data, terms)
    once, mend = fit_once, by_rows
    if mesh is not None:
        check_mesh(plan, problem, given, solver)
        problem, once, mend = share_rows(problem, mesh), _fit_over_rows, _mend_over_rows
    run = functools.partial(lean_first, once, (problem, choices), mend=mend)
    solution, flags = run() if source is None else source.wait_for(run)
    if mesh is not None:
        solution = eqx.tree_at(lambda s: s.terms, brought_home(solution), terms, is_leaf=lambda x: x is None)
    return _judge(solution, flags, model, given, likelihood, throw, strict)


def check(
    plan: Plan, data: AbstractDataset, loss: AbstractLoss, likelihood: AbstractLikelihood | None, chunk: int | None
) -> None:
    """Raise `ValueError` for choices that do not go together."""
    base = data.noise if likelihood is None else likelihood
    plain = isinstance(loss, Linear)
    if isinstance(data, Stream):
        data.check(likelihood)
    if not plain and not isinstance(base, AbstractNoise):
        raise ValueError(f"a robust loss needs a Gaussian noise, but the likelihood is {type(base).__name__}")
    if plan.noise and not (plain and likelihood is None and isinstance(base, AbstractNoise)):
        raise ValueError("free noise parameters need a Gaussian noise in the data, the Linear loss and no likelihood=")
    if plan.noise and (isinstance(data, Stream) or chunk is not None):
        raise ValueError("free noise parameters cannot be fitted in chunks; use a Dataset and chunk=None")
    if not plain and chunk is not None and base.coupled:
        raise ValueError(f"{type(base).__name__} couples all rows: a robust loss of them cannot be taken in chunks")
    if chunk is not None:
        as_count(chunk, "chunk, the rows that are taken at a time,")


_ACCURACY = 1e-8  # of a solver that does not say


class Ready(NamedTuple):
    """A fit about to start."""

    objective: Objective
    base: AbstractLikelihood
    y0: Array
    lower: Array
    upper: Array
    bounds: dict[str, Array]
    projected: Array
    terms: Terms

    @property
    def fixed(self) -> Array:
        """True where the bounds leave a parameter no room."""
        return self.lower >= self.upper


def make_ready(problem: Problem, choices: Choices) -> Ready:
    """The objective, the start within bounds, and the bounds as a solver wants them (none at all, if none)."""
    model, data, terms, plan = problem.model, problem.data, problem.terms, choices.plan
    lower, upper, active = terms.lower, terms.upper, terms.active
    base = opened(data.noise if terms.likelihood is None else terms.likelihood)
    start, rest = eqx.partition(Fitted(model, data.noise), plan.spec(Fitted(model, data.noise)))
    y0, unravel = jfu.ravel_pytree(start)
    bounded = lower is not None or active is not None
    if lower is None or upper is None:
        lower, upper = jnp.full_like(y0, -jnp.inf), jnp.full_like(y0, jnp.inf)
    if active is not None:
        lower, upper = jnp.where(active, lower, y0), jnp.where(active, upper, y0)
    likelihood = base if isinstance(terms.loss, Linear) else Robust(base, terms.loss)
    chunk = choices.chunk
    alone = not isinstance(data, Stream) and choices.mesh is None
    whole = alone and (chunk is None or data.mask.shape[0] <= chunk)
    if whole and not plan.noise:
        likelihood = likelihood.prepare(data.mask)
    solver = choices.solver
    accuracy = solver.rtol if isinstance(solver, AbstractTrustSolver) else _ACCURACY
    chunk = None if whole else chunk
    mean, weight = terms.prior_mean, terms.prior_weight
    axis = None if choices.mesh is None else AXIS
    parts = rest, data, likelihood, mean, weight, unravel, chunk, plan.noise, accuracy
    objective = Objective(*parts, terms.shaped, axis)
    projected = lax.stop_gradient((y0 < lower) | (y0 > upper))
    bounds = {"lower": lower, "upper": upper} if bounded else {}
    start_y = jnp.clip(y0, lower, upper)
    for shaped in terms.shaped:
        start_y = jnp.clip(shaped.begun(start_y), lower, upper)  # what is held stays where it is
    return Ready(objective, base, start_y, lower, upper, bounds, projected, terms)


def fit_once(problem: Problem, choices: Choices, complete: bool) -> tuple[Solution, Array]:
    """The solution and its packed `Flags`; unless `complete`, without the branches that few fits take."""
    ready = make_ready(problem, choices)
    end = search(ready, choices, complete)
    seen = look(ready.objective, end.y, ready.lower, ready.upper, end.lin)
    known, well = seen.covariance, seen.well
    if complete:
        known, well = careful(ready.objective, end.y, ready.fixed, known, well), jnp.array(True)
    solution = describe(ready, choices, end, seen, known.following(seen.gram))
    return solution, _flags(solution, end.stalled, well)


def by_rows(problem: Problem, choices: Choices, solution: Solution) -> tuple[Solution, Array]:
    """The same solution with its covariance by QR."""
    ready = make_ready(problem, choices)
    known = uncertainty(Rows(ready.objective.weighed(solution.y)[1]), ready.fixed)
    spread = _spread(ready, known, solution.cost, solution.num_data, solution.result, choices.scale_covariance)
    solution = eqx.tree_at(lambda s: tuple(getattr(s, name) for name in Spread._fields), solution, tuple(spread))
    return solution, _flags(solution, jnp.array(False), jnp.array(True))


def _fit_over_rows(problem: Problem, choices: Choices, complete: bool) -> tuple[Solution, Array]:
    """`fit_once` with the rows on the devices of `choices.mesh`; without the terms, which may have rows."""

    def run(problem: Problem) -> tuple[Solution, Array]:
        solution, flags = fit_once(problem, choices, complete)
        return eqx.tree_at(lambda s: s.terms, solution, None), flags

    assert choices.mesh is not None
    return over_rows(run, problem, choices.mesh)


def _mend_over_rows(problem: Problem, choices: Choices, solution: Solution) -> tuple[Solution, Array]:
    """`by_rows` likewise."""
    assert choices.mesh is not None
    return over_rows(lambda problem, solution: by_rows(problem, choices, solution), problem, choices.mesh, solution)


def _flags(solution: Solution, stalled: Array, well: Array) -> Array:
    lost = jnp.any(~solution.determined)
    return Flags(stalled, well, solution.result._value, jnp.any(solution.projected), lost).packed()


class End(NamedTuple):
    """Where a search ended, and how.

    - `y`: the parameters there. `result`: optimistix's word. `num_steps`: evaluations.
    - `stalled`: no step decreased the cost although the gradient said so; or, in a program without the exact Hessian,
      the search wanted it.
    - `lin`: the Linearisation at y where the solver keeps it.
    - `decrement`: the step that is left by the exact Hessian, sqrt(g^T H^-1 g), where the search went by that; infinite
      elsewhere. Where the Jacobian is singular at the optimum, the information knows nothing of it.
    """

    y: Any
    result: optx.RESULTS
    num_steps: Any
    stalled: Any
    lin: Linearisation | None
    decrement: Any


def search(ready: Ready, choices: Choices, exact: bool = True) -> End:
    """Run the solver from the start; without `exact`, a search that wants the exact Hessian ends there, as stalled."""
    solver, max_steps = choices.solver, choices.max_steps
    if isinstance(solver, AbstractTrustSolver):
        answer = advance(ready, solver, ready.y0, None, max_steps, exact)
        state = answer.state
        return End(
            answer.value, answer.result, answer.stats["num_steps"], state.stalled, state.lin, exact_decrement(state)
        )
    options = {**ready.bounds, "linearise": ready.objective}
    answer = solve_foreign(ready.objective, solver, ready.y0, ready.bounds, max_steps)
    given: Any = optx.least_squares(unused, Given(), answer.value, None, options, adjoint=KKTAdjoint(), throw=False)
    return End(given.value, answer.result, answer.stats["num_steps"], jnp.array(False), None, jnp.inf)


def exact_decrement(state: TrustState) -> Array:
    """The decrement where a search ended, if it went by the exact Hessian; else infinite."""
    return jnp.where(state.exact, state.decrement, jnp.inf)


def advance(
    ready: Ready, solver: AbstractTrustSolver, y: Array, state: TrustState | None, max_steps: int, exact: bool = True
) -> optx.Solution:
    """At most `max_steps` steps of one of our own solvers, from a state where one is given."""
    options = {**ready.bounds, "linearise": ready.objective, "state": state, "exact": exact}
    return optx.least_squares(unused, solver, y, None, options, max_steps=max_steps, adjoint=KKTAdjoint(), throw=False)


def unused(y: Array, args: None) -> Array:
    """Stands for the residual function, which our solvers never call: they linearise."""
    return y


def conclude(ready: Ready, choices: Choices, end: End) -> Solution:
    """Everything that follows from the solution. The solver's state has no tangents; those of `lin` are made anew."""
    seen = look(ready.objective, end.y, ready.lower, ready.upper, end.lin)
    known = careful(ready.objective, end.y, ready.fixed, seen.covariance, seen.well)
    return describe(ready, choices, end, seen, known.following(seen.gram))


def degrees(ready: Ready, known: Covariance, count: Array) -> Array:
    """Degrees of freedom: rows and priors less the directions that they determine."""
    return count + jnp.sum(ready.objective.has_prior & ~ready.fixed) - known.rank


class Spread(NamedTuple):
    """What a Solution says of its errors, by the names that it has there."""

    covariance: Float[Array, "p p"]
    dof: Int[Array, ""]
    rank: Int[Array, ""]
    determined: Bool[Array, " p"]


def _spread(
    ready: Ready, known: Covariance, cost: Array, count: Array, result: RESULTS, scale_covariance: bool | None
) -> Spread:
    dof = degrees(ready, known, count)
    matrix = known.matrix
    if scale_covariance or (scale_covariance is None and not ready.base.absolute):
        matrix = scaled_by_scatter(matrix, ready.fixed, cost, dof)
    senseless = (
        RESULTS.nonfinite_data,
        RESULTS.bad_noise,
        RESULTS.nonfinite_start,
        RESULTS.nonfinite_end,
        RESULTS.empty,
    )
    matrix = jnp.where(functools.reduce(jnp.logical_or, [result == r for r in senseless]), jnp.nan, matrix)
    return Spread(matrix, dof, known.rank, known.determined)


def describe(ready: Ready, choices: Choices, end: End, seen: Look, known: Covariance) -> Solution:
    """The Solution, from where and how the search ended, what was seen there, and the covariance."""
    objective, lower, upper, fixed = ready.objective, ready.lower, ready.upper, ready.fixed
    plan, y = choices.plan, end.y
    count, fine, valid, log_norm = objective.inspect(ready.base)
    cost, scale = seen.cost, choices.scale_covariance
    terms, absolute = ready.terms, ready.base.absolute
    left = jnp.minimum(seen.decrement, lax.stop_gradient(jnp.asarray(end.decrement, y.dtype)))
    seen = seen._replace(decrement=left)
    off = off_optimum(seen, degrees(ready, known, count), absolute)
    result = ending(end.result, Checked(count, fine, valid, seen.finite, off, end.stalled))
    spread = _spread(ready, known, cost, count, result, scale)
    gaussian = isinstance(ready.base, AbstractNoise) and isinstance(terms.loss, Linear)
    fitted = objective.fitted(y)
    return Solution(
        fitted=Fitted(fitted.model, fitted.noise if plan.noise else None),
        y=y,
        covariance=spread.covariance,
        cost=cost,
        chi2=objective.chi2(y, cost),
        log_norm=lax.stop_gradient(log_norm.astype(y.dtype)),
        num_data=count,
        dof=spread.dof,
        rank=spread.rank,
        determined=spread.determined,
        fixed=fixed,
        at_bound=at_bound(y, lower, upper),
        projected=ready.projected,
        result=result,
        num_steps=end.num_steps,
        decrement=seen.decrement,
        terms=terms,
        free=plan.free,
        names=plan.names,
        units=plan.units,
        absolute=absolute,
        testable=absolute and gaussian and not scale,
    )


def _judge(
    solution: Solution,
    flags: Flags | None,
    model: Model,
    data: AbstractDataset,
    likelihood: AbstractLikelihood | None,
    throw: bool,
    strict: bool,
) -> Solution:
    """Raise or warn as asked; inside a transformation only an error can be raised, and only at run time."""
    if flags is None:
        return solution.result.error_if(solution, ~solution.success) if throw else solution
    if not throw:
        return solution
    if flags.code != 0 or flags.projected or flags.lost:
        judge(solution, model, data, likelihood, strict, 4)
    return solution
