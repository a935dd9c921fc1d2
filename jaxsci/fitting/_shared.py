"""Fits of a batch in which some parameters are common to all members.

One joint problem: the curvature is an `Arrow`, so that each step eliminates the members' own
parameters block by block and costs as much for a member as a fit of its own would. The search comes back to
the host every so many steps, where a checkpoint keeps it.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.tree_util as jtu
import numpy as np
import optimistix as optx
from jax import lax
from jaxtyping import Array, Bool, Float, Int, Shaped

from ..core import Linearisation, Module, Scalar, Tree, as_array, element_names
from ..core.arrow import Arrow, join, split
from ..parallel import Checkpoint
from ._adjoint import KKTAdjoint
from ._ending import at_bound, ending_of
from ._fit import End, Ready, conclude, exact_decrement, make_ready, unused
from ._objective import Objective
from ._plan import Plan, chosen
from ._problem import Choices, Problem
from ._program import compiled
from ._rounds import lane_count
from ._solution import RESULTS, Solution
from ._solver._trust_region import AbstractTrustSolver, TrustState
from ._summary import html_of_shared
from ._terms import ShapedPrior
from ._uncertainty import ArrowCovariance, marked, scaled_by_scatter, uncertainty

_STEPS = 25  # of the solver between two looks; most searches need fewer


class SharedSolution(Module):
    """What all members of a batch together say of their shared parameters.

    - `names`, `units`, `y`: the q shared parameters, one an element, and their values.
    - `covariance`: (q, q), marginal over all local parameters; inf on the diagonal where not determined.
    - `chi2`, `num_data`, `dof`: of all members together; `dof` counts shared and local parameters.
    - `result`: a `RESULTS`. `num_steps`: evaluations of all members.
    """

    y: Float[Array, " q"]
    covariance: Float[Array, "q q"]
    determined: Bool[Array, " q"]
    chi2: Scalar
    num_data: Int[Array, ""]
    dof: Int[Array, ""]
    result: Any
    num_steps: Int[Array, ""]
    names: tuple[str, ...] = eqx.field(static=True)
    units: tuple[str, ...] = eqx.field(static=True)

    @property
    def standard_errors(self) -> Float[Array, " q"]:
        """Standard error of each element of y."""
        return jnp.sqrt(jnp.diagonal(self.covariance))

    @property
    def success(self) -> Bool[Array, ""]:
        """True where the joint fit converged."""
        return self.result == RESULTS.successful

    def _repr_html_(self) -> str:
        return html_of_shared(self)


class Halves(NamedTuple):
    """A member's vector in its shared and its local elements."""

    shared: Array
    local: Array


class Corner(NamedTuple):
    """A member's matrix: (q, q) of shared parameters, (l, q) what couples them to local ones, (l, l) of those."""

    corner: Array
    edge: Array
    block: Array


class Share(NamedTuple):
    """What a member adds to the joint problem."""

    cost: Array
    grad: Halves
    matrix: Corner


class Layout(NamedTuple):
    """Where the shared and the local parameters lie among those of a member. Static."""

    plan: Plan
    shared: tuple[int, ...]
    local: tuple[int, ...]

    def member(self, shared: Array, local: Array) -> Array:
        """A member's own vector of parameters."""
        return jnp.concatenate([shared, local])[np.argsort(self.shared + self.local)]

    def part(self, vector: Array) -> Halves:
        """A member's vector in its two halves."""
        return Halves(vector[np.array(self.shared, int)], vector[np.array(self.local, int)])

    def arrow(self, matrix: Array) -> Corner:
        """A member's matrix in its three parts."""
        shared, local = np.array(self.shared, int), np.array(self.local, int)
        return Corner(matrix[shared][:, shared], matrix[local][:, shared], matrix[local][:, local])


class SharedPrior(NamedTuple):
    """Priors of the q shared parameters, which count once for all members; weight 1/sigma^2, 0 for none.

    - `shaped`: those that are no Gaussian rows; their places are among the q.
    """

    mean: Float[Array, " q"]
    weight: Float[Array, " q"]
    shaped: tuple[ShapedPrior, ...]

    def cost(self, y: Float[Array, " q"]) -> Scalar:
        """What they add to the cost."""
        return sum((s.cost(y) for s in self.shaped), jnp.sum(self.weight * (y - self.mean) ** 2) / 2)

    def slope(self, y: Float[Array, " q"]) -> Float[Array, " q"]:
        """The derivative of that."""
        return sum((s.slope(y) for s in self.shaped), self.weight * (y - self.mean))

    def curvature(self, y: Float[Array, " q"]) -> Float[Array, " q"]:
        """The diagonal of a positive second derivative."""
        return sum((s.curvature(y) for s in self.shaped), self.weight)

    def present(self) -> Bool[Array, " q"]:
        """True where there is one."""
        some = self.weight > 0
        for s in self.shaped:
            some |= s.present(self.weight)
        return some


class Joint(Module):
    """All members as one objective of the flat vector (shared, local of each member).

    - `objectives`: an Objective for each group, whose leaves lead with (chunks, lanes).
    - `used`: False for members that fill up a chunk, or that no fit could use.
    """

    objectives: tuple[Objective, ...]
    used: tuple[Bool[Array, "_ _"], ...]
    prior: "SharedPrior"
    layouts: tuple[Layout, ...] = eqx.field(static=True)

    def split(self, y: Shaped[Array, " p"]) -> tuple[Array, tuple[Array, ...]]:
        """(shared, (members, l) of each group)."""
        shapes = tuple((u.size, len(layout.local)) for u, layout in zip(self.used, self.layouts, strict=True))
        return split(y, self.prior.mean.shape[0], shapes)

    def prior_cost(self, y: Float[Array, " p"]) -> Scalar:
        """The cost of the shared parameters' priors."""
        return self.prior.cost(self.split(y)[0])

    def __call__(self, y: Float[Array, " p"], args: None = None) -> Linearisation:
        """The Linearisation, with an Arrow for its curvature."""

        def look(objective: Objective, y: Array) -> tuple[Array, Array, Any]:
            lin = objective(y)
            return lin.cost, lin.grad, lin.gram

        groups = self._each(look, y)
        top = self.prior.slope(self.split(y)[0])
        top = sum((jnp.sum(group.grad.shared, axis=0) for group in groups), top)
        cost = sum((jnp.sum(group.cost) for group in groups), self.prior_cost(y))
        grad = join(top, tuple(group.grad.local for group in groups))
        of_priors = jnp.diag(self.prior.curvature(self.split(y)[0]))
        return Linearisation(cost, grad, self._arrow(groups, of_priors))

    def hessian(self, y: Float[Array, " p"]) -> Arrow:
        """The exact second derivative of the cost."""

        def look(objective: Objective, y: Array) -> tuple[Array, Array, Any]:
            return jnp.zeros((), y.dtype), jnp.zeros_like(y), objective.hessian(y)

        return self._arrow(self._each(look, y), jax.jacfwd(self.prior.slope)(self.split(y)[0]))

    def _each(self, look: Callable[..., Any], y: Array) -> list[Share]:
        """What `look` sees, (cost, gradient, matrix), of all members of each group; 0 of those that are not used."""
        shared, local = self.split(y)

        def of_group(objectives: Objective, used: Array, layout: Layout, local: Array) -> Any:
            def one(objective: Objective, used: Array, local: Array) -> Any:
                cost, grad, matrix = look(objective, layout.member(shared, local))
                parts = Share(cost, layout.part(grad), layout.arrow(matrix))
                return jtu.tree_map(lambda x: jnp.where(used, x, 0), parts)

            return over_chunks(one, (objectives, used, local.reshape(*used.shape, local.shape[-1])))

        return [of_group(*group) for group in zip(self.objectives, self.used, self.layouts, local, strict=True)]

    def _arrow(self, groups: list[Share], of_priors: Float[Array, "q q"]) -> Arrow:
        parts = [group.matrix for group in groups]
        corner = sum((jnp.sum(part.corner, axis=0) for part in parts), of_priors)
        return Arrow(corner, tuple(part.edge for part in parts), tuple(part.block for part in parts))


def over_chunks(one: Callable[..., Any], trees: Tree) -> Any:
    """one(...) of each member, chunk after chunk: arrays lead with (chunks, lanes), results with (members,)."""
    out = lax.map(lambda chunk: jax.vmap(one)(*chunk), trees)
    return jtu.tree_map(lambda x: x.reshape(x.shape[0] * x.shape[1], *x.shape[2:]), out)


class Part(NamedTuple):
    """Members of one structure and length that take part in a joint fit.

    `lanes`: their Problem, whose arrays lead with the members; `length`: rows of each, padding included.
    """

    choices: Choices
    lanes: Problem
    length: int


class Group(NamedTuple):
    """Members of one structure and length; the leaves lead with (chunks, lanes)."""

    choices: Choices
    lanes: Problem
    real: Any  # bool[c, w]: False where a member fills up the chunk


class Search(NamedTuple):
    """Where the joint search is, after so many `steps`: all that it needs to go on."""

    y: Array
    state: TrustState
    steps: Int[Array, ""]


class Found(NamedTuple):
    """What is known after some steps: the members' Solutions, what is shared, and whether the search is to go on."""

    members: tuple[Solution, ...]
    shared: SharedSolution
    more: Bool[Array, ""]


def fit_shared(
    parts: Sequence[Part], names: tuple[str, ...], batch_size: int | str, checkpoint: Checkpoint | None = None
) -> tuple[list[Solution], SharedSolution]:
    """Fit all members with some parameters in common.

    **Arguments:** `parts`: the members; all have the same solver, steps and scaling of the covariance.
    `names`: of the shared parameters, globs allowed. `batch_size`: lanes at a time, as in `fit_batch`.
    `checkpoint`: keeps the search, every so many steps.

    **Returns:** a stacked Solution for each part, and what is shared.
    """
    solver = parts[0].choices.solver
    if not isinstance(solver, AbstractTrustSolver):
        raise ValueError(f"a fit with shared parameters takes TRF() or GaussNewton(), not {type(solver).__name__}")
    layouts = tuple(_layout(part.choices.plan, names) for part in parts)
    first = tuple(layouts[0].plan.names[k] for k in layouts[0].shared)
    groups, priors = [], []
    for part, layout in zip(parts, layouts, strict=True):
        at = np.array(layout.shared, int)
        mine = tuple(layout.plan.names[k] for k in at)
        if mine != first:
            raise ValueError(f"shared parameters differ between members: {', '.join(first)} and {', '.join(mine)}")
        terms = part.lanes.terms
        weight = np.array(terms.prior_weight)
        common = [s for s in terms.shaped if s.at[0] in layout.shared]  # a prior belongs to one parameter
        priors.append(SharedPrior(np.asarray(terms.prior_mean)[0, at], weight[0, at], _of_first(common, layout.shared)))
        weight[:, at] = 0  # a prior of what is shared counts once
        own = tuple(s for s in terms.shaped if s.at[0] not in layout.shared)
        lanes = part.lanes._replace(terms=terms._replace(prior_weight=as_array(weight), shaped=own))
        groups.append(_chunks(part.choices, lanes, lane_count(part.length, len(layout.plan.names), batch_size)))
    _check(layouts, groups)
    solutions, shared = _searched(tuple(groups), priors[0], layouts, checkpoint)
    members = []
    for solution, part in zip(solutions, parts, strict=True):
        count = len(part.lanes.terms.prior_mean)
        own = jtu.tree_map(lambda x: x[:count], solution)  # noqa: B023
        # members are told on the terms that the caller gave, the priors of shared parameters among them
        members.append(eqx.tree_at(lambda s: s.terms, own, part.lanes.terms))
    return members, shared


def _searched(
    groups: tuple[Group, ...], prior: SharedPrior, layouts: tuple[Layout, ...], checkpoint: Checkpoint | None
) -> tuple[tuple[Solution, ...], SharedSolution]:
    """Search until the end, some steps at a time; what is kept is where the last of them began."""
    most = groups[0].choices.max_steps
    search: Search | None = None
    if checkpoint is not None and _NAME in checkpoint.states:
        shapes: Search = jax.eval_shape(lambda: _run(groups, prior, None, layouts, 1))[0]
        search = checkpoint.state(_NAME, jtu.tree_map(lambda s: np.zeros((), s.dtype), shapes))
    while True:
        taken = 0 if search is None else int(search.steps)
        moved, found = compiled(_run, (groups, prior, search), (layouts, min(_STEPS, most - taken)))
        search = jtu.tree_map(np.asarray, moved)  # as it comes out of a file, so that the program is the same
        if not bool(found.more) or int(search.steps) >= most:
            return jtu.tree_map(np.asarray, (found.members, found.shared))
        if checkpoint is not None:
            checkpoint.keep(_NAME, search)


_NAME = "shared"


def _of_first(shaped: Sequence[ShapedPrior], shared: tuple[int, ...]) -> tuple[ShapedPrior, ...]:
    """The first member's priors of shared parameters, placed among these."""

    def one(each: ShapedPrior) -> ShapedPrior:
        return ShapedPrior(jtu.tree_map(lambda x: np.asarray(x)[0], each.prior), tuple(map(shared.index, each.at)))

    return tuple(map(one, shaped))


def _layout(plan: Plan, names: tuple[str, ...]) -> Layout:
    wanted = chosen(plan, names, "shared")
    leaves = [name for name, shape in plan.free for _ in element_names(name, shape)]
    shared = tuple(k for k, name in enumerate(leaves) if name in wanted)
    return Layout(plan, shared, tuple(k for k in range(len(plan.names)) if k not in shared))


def _check(layouts: Sequence[Layout], groups: Sequence[Group]) -> None:
    """Raise `ValueError` where members cannot share: several bounds of one parameter, known beside unknown noise."""
    kinds = {group.lanes.data.noise.absolute for group in groups}  # type: ignore[attr-defined]
    if len(kinds) > 1:
        raise ValueError("noise=None beside noise of known scale: a joint fit needs one or the other for all members")
    pairs = []
    for layout, group in zip(layouts, groups, strict=True):
        terms = group.lanes.terms
        for k in layout.shared if terms.lower is not None else ():
            limits = [np.unique(np.asarray(side)[..., k]) for side in (terms.lower, terms.upper)]
            pairs.append((layout.plan.names[k], *limits))
    for name, low, high in pairs:
        if len(low) > 1 or len(high) > 1:
            raise ValueError(f"{name} is shared, so it takes one pair of bounds, not one for each member")


def _chunks(choices: Choices, lanes: Problem, width: int) -> Group:
    """Full chunks of lanes; the last one is filled up with members that are not used."""
    count = len(lanes.terms.prior_mean)
    width = min(width, count)
    place = np.arange(-(-count // width) * width).reshape(-1, width)
    index = np.minimum(place, count - 1)
    return Group(choices, jtu.tree_map(lambda x: np.asarray(x)[index], lanes), place < count)


def _run(
    groups: tuple[Group, ...], prior: SharedPrior, search: Search | None, layouts: tuple[Layout, ...], steps: int
) -> tuple[Search, Found]:
    """Go on for so many steps, from the start where there is no search yet, and conclude from where that leads."""
    readies, usable = [], []
    for group in groups:
        one = functools.partial(make_ready, choices=group.choices)
        ready = jax.vmap(jax.vmap(one))(group.lanes)
        fine = over_chunks(_usable, (ready,)).reshape(group.real.shape)
        readies.append(ready)
        usable.append(group.real & fine)
    choices: Any = groups[0].choices
    joint = Joint(tuple(r.objective for r in readies), tuple(usable), jtu.tree_map(jnp.asarray, prior), layouts)
    y0, lower, upper = (_gather(readies, usable, layouts, name) for name in ("y0", "lower", "upper"))
    bounded = any(group.lanes.terms.lower is not None for group in groups)
    shapes = jax.eval_shape(joint, y0).gram
    options = {"linearise": joint, "gram": jtu.tree_map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)}
    options |= {"lower": lower, "upper": upper} if bounded else {}
    if search is not None:
        y0, options = search.y, {**options, "state": search.state}
    answer: Any = optx.least_squares(
        unused, choices.solver, y0, None, options, max_steps=steps, adjoint=KKTAdjoint(), throw=False
    )
    total = jnp.asarray(answer.stats["num_steps"], int) + (0 if search is None else search.steps)
    more = answer.result == optx.RESULTS.nonlinear_max_steps_reached
    members, shared = _conclude(joint, readies, groups, answer, total, lower >= upper)
    return Search(answer.value, answer.state, total), Found(members, shared, more)


def _usable(ready: Ready) -> Array:
    """False for a member that would spoil the others: bad data, bad noise, no rows, a model that is not finite."""
    lin = ready.objective(ready.y0)
    count, fine, valid, _ = ready.objective.inspect(ready.base)
    return fine & valid & (count > 0) & jnp.isfinite(lin.cost + jnp.sum(lin.grad) + jnp.sum(lin.gram))


def _gather(readies: list[Ready], usable: list[Array], layouts: tuple[Layout, ...], name: str) -> Array:
    """Joint vector of a field of all members; for a shared parameter the mean over those that are used."""
    shared, local, taken = [], [], []
    for ready, used, layout in zip(readies, usable, layouts, strict=True):
        top, own = jax.vmap(layout.part)(getattr(ready, name).reshape(used.size, -1))
        shared.append(top)
        local.append(own)
        taken.append(used.ravel())
    tops, weight = jnp.concatenate(shared), jnp.concatenate(taken)
    first = tops[jnp.argmax(weight)]
    spread = jnp.where(weight[:, None] & jnp.isfinite(first)[None, :], tops - first[None, :], 0)
    count = jnp.maximum(jnp.sum(weight), 1).astype(first.dtype)
    return join(first + jnp.sum(spread, axis=0) / count, tuple(local))


def _conclude(
    joint: Joint, readies: list[Ready], groups: tuple[Group, ...], answer: optx.Solution, steps: Array, fixed: Array
) -> tuple[tuple[Solution, ...], SharedSolution]:
    y, layouts = answer.value, joint.layouts
    lin = joint(y)
    known = uncertainty(lin.gram, fixed)
    shared, local = joint.split(y)
    fixed_s, _ = joint.split(fixed)
    end = End(y, answer.result, steps, answer.state.stalled, None, exact_decrement(answer.state))
    alone = []
    for group, ready, used, layout, part in zip(groups, readies, joint.used, layouts, local, strict=True):
        own = functools.partial(_alone, choices=group.choices, layout=layout, shared=shared, joint=end)
        alone.append(over_chunks(own, (ready, used, part.reshape(*used.shape, part.shape[-1]))))

    def total(name: str) -> Any:
        each = zip(alone, joint.used, strict=True)
        return sum(jnp.sum(jnp.where(used.ravel(), getattr(solution, name), 0)) for solution, used in each)

    dof = total("dof") + jnp.sum(joint.prior.present() & ~fixed_s) - known.shared.rank
    chi2 = total("chi2") + 2 * joint.prior_cost(y)
    scale = groups[0].choices.scale_covariance
    known_scale = alone[0].absolute if scale is None else not scale
    scatter = None if known_scale else Scatter(lin.cost, dof)
    members = []
    for solution, ready, layout, gain in zip(alone, readies, layouts, known.gains, strict=True):
        limits = (x.reshape(len(gain), -1) for x in (ready.lower, ready.upper))
        complete = functools.partial(_complete, layout=layout, known=known, scatter=scatter)
        members.append(jax.vmap(complete)(solution, gain, *limits))
    used = jnp.concatenate([u.ravel() for u in joint.used])
    return tuple(members), SharedSolution(
        y=shared,
        covariance=_covariance(known.shared.inverse, known.shared.determined, fixed_s, scatter),
        determined=known.shared.determined,
        chi2=chi2,
        num_data=total("num_data"),
        dof=dof,
        result=ending_of(answer, lin, jnp.sum(used), jnp.array(True)),
        num_steps=steps,
        names=tuple(layouts[0].plan.names[k] for k in layouts[0].shared),
        units=tuple(layouts[0].plan.units[k] for k in layouts[0].shared),
    )


def _alone(
    ready: Ready, used: Array, local: Array, choices: Choices, layout: Layout, shared: Array, joint: End
) -> Solution:
    """A member's Solution with the shared parameters held where they are."""
    y = layout.member(shared, local)
    here = np.isin(np.arange(y.size), layout.shared)
    held = ready._replace(lower=jnp.where(here, y, ready.lower), upper=jnp.where(here, y, ready.upper))
    # what was left out for none of the other reasons is not finite at the start
    ended = optx.RESULTS.where(used, joint.result, optx.RESULTS.nonfinite)
    unscaled = Choices(choices.plan, choices.solver, scale_covariance=False)
    return conclude(held, unscaled, End(y, ended, joint.num_steps, joint.stalled & used, None, joint.decrement))


class Scatter(NamedTuple):
    """By what a covariance is scaled where the noise has no scale of its own: 2 cost / dof."""

    cost: Array
    dof: Array


def _complete(
    solution: Solution,
    gain: Array,
    lower: Array,
    upper: Array,
    layout: Layout,
    known: ArrowCovariance,
    scatter: Scatter | None,
) -> Solution:
    """The same with the errors that come from the shared parameters, and its bounds told as they are."""
    order = np.argsort(layout.shared + layout.local)
    block = layout.arrow(solution.covariance).block
    determined = layout.part(solution.determined).local
    whole, determined = known.member(block, determined, gain)
    whole, determined = whole[order][:, order], determined[order]
    fixed = lower >= upper
    matrix = _covariance(whole, determined, fixed, scatter)
    matrix = jnp.where(jnp.all(jnp.isnan(solution.covariance)), jnp.nan, matrix)
    new = (matrix, determined, fixed, at_bound(solution.y, lower, upper))
    return eqx.tree_at(lambda s: (s.covariance, s.determined, s.fixed, s.at_bound), solution, new)


def _covariance(matrix: Array, determined: Array, fixed: Array, scatter: Scatter | None) -> Array:
    """The covariance, scaled where the noise's scale is unknown; inf for what is not determined, nan beside it."""
    if scatter is not None:
        matrix = scaled_by_scatter(matrix, fixed, *scatter)
    return marked(matrix, ~determined)
