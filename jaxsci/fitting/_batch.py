"""fit_batch(): thousands of ragged data sets through a few compiled programs of fixed size.

Each program advances a fixed number of lanes by a few steps; lanes that are done leave, the others
are gathered into full chunks again, so that nobody waits for the slowest member. The lane count and
the padded length of a member depend on its own shape alone, and so do the bits of its answer.
"""

import contextlib
import functools
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import jax.tree_util as jtu
import numpy as np

from ..core import AbstractLoss, Linear, Module, Tree, as_array
from ..datasets import Block, blocks
from ..parallel import Checkpoint, Placement
from ._checks import check_datasets, check_given, check_search
from ._fit import check
from ._plan import Plan, as_names, make_plan, terms_of
from ._problem import Choices, Problem, Solver
from ._rounds import Job, chunk_count, lane_count, progress_bar
from ._shared import Part, SharedSolution, fit_shared
from ._small_batch import fit_small, takes
from ._solution import RESULTS, Solution
from ._solver._trust_region import AbstractTrustSolver
from ._solver.trf import TRF
from ._summary import DataFrame, frame, html_of_batch
from ._verdict import CONVERGED, FAILED, LOOK, facts_of, remarks, to_look_at

_EACH = ("determined", "fixed", "projected", "at_bound", "rank", "chi2", "dof")  # facts that each member has its own of


class BatchSolution(Module):
    """The results of `fit_batch`: a sequence of Solutions in input order.

    - `groups`: a stacked Solution for each structure of members. `members`: their places in the batch.
    - `errors`: members that could not be tried at all, and why.
    - `shared`: what all members together say of parameters that they share; `None` without any.
    """

    groups: tuple[Solution, ...]
    members: tuple[Any, ...]
    errors: dict[int, str]
    shared: SharedSolution | None = None

    def __len__(self) -> int:
        return sum(len(m) for m in self.members) + len(self.errors)

    def __getitem__(self, i: int) -> Solution:
        if not -len(self) <= i < len(self):
            raise IndexError(f"there is no member {i}: the batch has {len(self)}, numbered from 0")
        i = range(len(self))[i]
        if i in self.errors:
            raise ValueError(f"member {i} has no solution: {self.errors[i]}")
        for group, members in zip(self.groups, self.members, strict=True):
            at = np.flatnonzero(members == i)
            if len(at):
                return jtu.tree_map(lambda x: as_array(np.asarray(x)[at[0]]), group)  # noqa: B023
        raise IndexError(i)

    def __iter__(self) -> Iterator[Solution]:
        return (self[i] for i in range(len(self)))

    @property
    def failed(self) -> dict[int, str]:
        """{member: reason} of all that did not converge."""
        reasons = dict(self.errors)
        for group, members in zip(self.groups, self.members, strict=True):
            codes = np.asarray(group.result._value)
            for code in np.unique(codes[codes != 0]):
                reason = _advice(int(code))
                reasons.update(dict.fromkeys(members[codes == code].tolist(), reason))
        return dict(sorted(reasons.items()))

    @property
    def warnings(self) -> dict[int, str]:
        """{member: what to look at} of those that converged, by the rule of `Solution.remarks`."""
        found: dict[int, str] = {}
        for group, members in zip(self.groups, self.members, strict=True):
            facts = facts_of(group)
            for at in np.flatnonzero((np.asarray(group.result._value) == 0) & to_look_at(facts)):
                one = facts._replace(**{name: getattr(facts, name)[at] for name in _EACH})
                found[int(members[at])] = "; ".join(remarks(one))
        return dict(sorted(found.items()))

    @property
    def verdicts(self) -> np.ndarray:
        """Each member's verdict, as in `Solution.verdict`."""
        out = np.full(len(self), CONVERGED, object)
        out[list(self.warnings)] = LOOK
        out[list(self.failed)] = FAILED
        return out

    @property
    def success(self) -> np.ndarray:
        """True for each member that converged."""
        out = np.ones(len(self), bool)
        out[list(self.failed)] = False
        return out

    def table(self) -> dict[str, np.ndarray]:
        """Columns over all members: success, verdict, result, warning, chi2, dof, num_steps; `name` and `name_std`.

        NaN where a member has no such parameter. `pandas.DataFrame` and `pyarrow.table` take it as it is.
        """
        columns: dict[str, np.ndarray] = {"success": self.success, "verdict": self.verdicts}
        reasons = self.failed
        columns["result"] = np.array([reasons.get(i, "") for i in range(len(self))], object)
        warnings = self.warnings
        columns["warning"] = np.array([warnings.get(i, "") for i in range(len(self))], object)
        for group, members in zip(self.groups, self.members, strict=True):
            std = np.asarray(group.standard_errors)
            new = {name: np.asarray(getattr(group, name)) for name in ("chi2", "dof", "num_steps")}
            for k, name in enumerate(group.names):
                new |= {name: np.asarray(group.y)[:, k], f"{name}_std": std[:, k]}
            for name, values in new.items():
                columns.setdefault(name, np.full(len(self), np.nan))[members] = values
        return columns

    def to_pandas(self) -> DataFrame:
        """The `table` as a DataFrame, a row for each member.

        **Raises:** `ImportError` without pandas.
        """
        return frame(self.table(), "member")

    def _repr_html_(self) -> str:
        return html_of_batch(self)


def fit_batch(
    models: Tree,
    datasets: Tree,
    *,
    free: Sequence[str] | None = None,
    bounds: Mapping[str, Any] | None = None,
    priors: Mapping[str, Any] | None = None,
    solver: Solver = TRF(),
    loss: AbstractLoss = Linear(),
    shared: Sequence[str] = (),
    batch_size: int | str = "auto",
    mesh: jax.sharding.Mesh | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
    resume: bool = True,
    progress: bool | Callable[[int, int], None] | None = None,
    max_steps: int = 200,
    scale_covariance: bool | None = None,
) -> BatchSolution:
    """Fit many data sets, each by itself, in a few compiled programs.

    Members of at most eight free parameters of the model and of rows whose noise is independent run on the engine for
    small fits (`jaxsci.fitting.small_fits`) if the solver is `TRF` or `GaussNewton`: a Levenberg-Marquardt search that
    stops by the same rule at an `rtol` of at most 1e-9. The solver itself then fits, from the start, those members that
    the engine does not finish at an optimum where the information is well conditioned; and all members of other kinds.

    **Arguments:** those of `fit`, and

    - `models`: a sequence of models, one Module that all members start from, or a stacked Module
      (`jaxsci.stack`).
    - `datasets`: a sequence of Datasets of any lengths, a stacked Dataset, or a `RaggedDataset`.
    - `bounds`: as in `fit`; limits with a leading axis of the batch's length are per member.
    - `shared`: names (or globs) of parameters that have one value for the whole batch. All members are then
      fitted together, at a cost linear in their number: see `.shared` of the answer. A member's `dof`
      does not count shared parameters; its errors do. Members that no fit could use are left out.
    - `batch_size`: lanes of one program; `"auto"` takes up to 128, fewer for long data sets.
    - `mesh`: devices that take the chunks in turn, such as `jaxsci.mesh()`; `None` for the default device. Bits do not
      depend on them.
    - `checkpoint`: a file that keeps the batch in progress, for one that was killed or stopped to go on
      from, with the same bits; each of several processes has one. `resume`: False starts over, whatever the file says.
    - `progress`: True for a progress bar, or a function of (members done, members in all).

    **Returns:** a `BatchSolution`. No member can make it raise: look at `.failed`.

    **Raises:** `ValueError` for wrong names or choices, and for a checkpoint of another batch, or one that another
    process writes; `WriteError` where it cannot be written.
    """
    for model in models if isinstance(models, Sequence) else (models,):
        check_given(model, None, free, bounds, priors, solver, loss)
    check_datasets(datasets)
    check_search(solver, max_steps)
    todo = list(blocks(models, datasets))
    total = sum(len(block.members) for block in todo)
    _check(solver, shared, mesh, checkpoint)
    placement = Placement.of(mesh)

    def opened() -> contextlib.AbstractContextManager[Checkpoint | None]:
        if checkpoint is None:
            return contextlib.nullcontext()
        given = (None if free is None else as_names(free), bounds, priors, solver, loss, max_steps, scale_covariance)
        data = [(block.members, block.length, block.data) for block in todo]
        models, settings = [block.models for block in todo], (*given, as_names(shared))
        belongs = {"data": data, "models": models, "settings": settings, "processes": placement.dealing}
        return Checkpoint(placement.file(checkpoint), belongs, resume)

    prepare = functools.partial(_lanes, total=total, free=free, bounds=bounds, priors=priors, loss=loss)
    if shared:
        lanes = [prepare(block) for block in todo]
        if any(plan.active is not None for plan, _ in lanes):
            raise ValueError("shared parameters make one joint fit, which frees whole arrays: name them without [...]")
        choices = [Choices(plan, solver, None, max_steps, scale_covariance) for plan, _ in lanes]
        parts = [Part(c, lane, block.length) for c, (_, lane), block in zip(choices, lanes, todo, strict=True)]
        with opened() as kept:
            each, joint = fit_shared(parts, as_names(shared), batch_size, kept)
        return BatchSolution(*_merge(each, [block.members for block in todo]), {}, joint)

    def run(k: int, report: Callable[[int], None], kept: Checkpoint | None) -> Solution:
        plan, varying = prepare(todo[k])
        width = lane_count(todo[k].length, len(plan.names), batch_size)
        chunks = chunk_count(todo[k].length, len(plan.names), width)
        choices = Choices(plan, solver, None, max_steps, scale_covariance)
        job = Job(varying, choices, width, chunks, placement)
        fitted, size = fit_small if takes(job) else Job.run, width * chunks
        solution = placement.in_shares(job.size, size, lambda some: fitted(job.only(some), report, kept, str(k)))
        report(job.size - len(placement.share(job.size, size)))  # those of other processes
        return solution

    with contextlib.contextmanager(progress_bar)(progress, total) as report, opened() as kept:
        return _separately(todo, lambda k: run(k, report, kept))


def _check(
    solver: Solver, shared: Sequence[str], mesh: jax.sharding.Mesh | None, checkpoint: str | os.PathLike[str] | None
) -> None:
    """Raise `ValueError` for choices that do not go together."""
    if shared and mesh is not None:
        raise ValueError("shared parameters make one joint fit, which takes no mesh")
    if checkpoint is not None and not isinstance(solver, AbstractTrustSolver):
        raise ValueError(f"a checkpoint needs TRF() or GaussNewton(), not {type(solver).__name__}")


def _separately(todo: Sequence[Block], run: Callable[[int], Solution]) -> BatchSolution:
    """Each block by itself; one that cannot be tried at all is an error of its members, or of the call if alone."""
    groups, members, errors = [], [], {}
    for k, block in enumerate(todo):
        try:
            groups.append(run(k))
            members.append(block.members)
        except (ValueError, TypeError) as error:
            if len(todo) == 1:
                raise
            errors.update(dict.fromkeys(block.members.tolist(), str(error)))
    return BatchSolution(*_merge(groups, members), errors)


def _lanes(
    block: Block,
    total: int,
    free: Sequence[str] | None,
    bounds: Mapping[str, Any] | None,
    priors: Mapping[str, Any] | None,
    loss: AbstractLoss,
) -> tuple[Plan, Problem]:
    """The plan of these members, and their Problem, whose arrays lead with the members."""
    model, data = (jtu.tree_map(lambda x: as_array(x[0]), tree) for tree in (block.models, block.data))
    plan = make_plan(model, data.noise, free)
    check(plan, data, loss, None, None)
    every = [terms_of(plan, limits, priors, None, loss) for limits in _bounds(bounds or {}, block.members, total)]
    if len(every) == 1:
        count = len(block.members)
        terms = jtu.tree_map(lambda x: np.broadcast_to(np.asarray(x), (count, *np.shape(x))), every[0])
    else:
        terms = jtu.tree_map(lambda *x: np.stack([np.asarray(each) for each in x]), *every)
    return plan, Problem(block.models, block.data, terms)


def _bounds(bounds: Mapping[str, Any], members: np.ndarray, total: int) -> list[Mapping[str, Any]]:
    """The bounds that all members have; or one set for each, where limits have a leading axis of the batch's length."""
    own = {
        name: limits
        for name, limits in bounds.items()
        if any(limit is not None and np.shape(limit)[:1] == (total,) for limit in limits)
    }
    if not own:
        return [bounds]

    def of_member(i: int) -> Mapping[str, Any]:
        mine = {n: tuple(x[i] if np.shape(x)[:1] == (total,) else x for x in limits) for n, limits in own.items()}
        return {**bounds, **mine}

    return [of_member(i) for i in members.tolist()]


def _advice(code: int) -> str:
    results: Any = RESULTS
    return results[jtu.tree_map(lambda _: jnp.asarray(code), results.successful)]


def _merge(groups: list[Solution], members: list[np.ndarray]) -> tuple[tuple[Solution, ...], tuple[np.ndarray, ...]]:
    """Blocks that differ only in length become one group."""
    together: dict[Any, list[int]] = {}
    for k, group in enumerate(groups):
        leaves, structure = jtu.tree_flatten(group)
        together.setdefault((structure, tuple(leaf.shape[1:] for leaf in leaves)), []).append(k)
    merged, places = [], []
    for same in together.values():
        if len(same) == 1 and bool(np.all(np.diff(members[same[0]]) > 0)):  # all of them, and in order
            merged.append(jtu.tree_map(as_array, groups[same[0]]))
            places.append(members[same[0]])
            continue
        place = np.concatenate([members[k] for k in same])
        order = np.argsort(place)
        merged.append(
            jtu.tree_map(lambda *x: as_array(np.concatenate(x)[order]), *(groups[k] for k in same))  # noqa: B023
        )
        places.append(place[order])
    return tuple(merged), tuple(places)
