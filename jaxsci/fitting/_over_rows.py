"""One fit whose rows are shared by devices: each of them has some, and all of them have the sums.

The whole program of the fit runs on every device, which folds its own rows, in chunks or in blocks of a file where
asked. In each evaluation the devices tell each other their sums, which every one of them adds up in the same order: so
all take the same steps, and the answer differs from that of one device by roundings. `fit` runs this for `mesh=`.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec
from jaxtyping import PyTree

from ..core import AbstractLikelihood, Tree, split_rows, traced
from ..datasets import Stream, StreamedDataset, pad
from ..parallel import Placement, laid_out
from ._plan import Plan
from ._problem import Problem, Solver
from ._solver._trust_region import AbstractTrustSolver

AXIS = "rows"
"""Of the devices that have rows of one fit."""


class _Cut(NamedTuple):
    """A Problem in two: what runs over the rows, data and likelihood, and all else; None where the other has a leaf."""

    rows: tuple[Any, Any]
    rest: Problem

    @staticmethod
    def of(problem: Problem) -> "_Cut":
        data, terms = problem.data, problem.terms
        if isinstance(data, Stream):
            like, rest = eqx.tree_at(lambda s: s.index, data, None), None
            only: Any = eqx.filter(data, jax.tree.map(lambda x: x is data.index, data))
            return _Cut((only, rest), problem._replace(data=like))
        rows, others = split_rows((data, terms.likelihood))
        return _Cut(rows, problem._replace(data=others[0], terms=terms._replace(likelihood=others[1])))

    def whole(self) -> Problem:
        """The two put together."""
        data = eqx.combine(self.rows[0], self.rest.data)
        likelihood = eqx.combine(self.rows[1], self.rest.terms.likelihood)
        return self.rest._replace(data=data, terms=self.rest.terms._replace(likelihood=likelihood))


def check_mesh(plan: Plan, problem: Problem, given: Any, solver: Solver) -> None:
    """Raise `ValueError` for a fit whose rows devices cannot share."""
    data, likelihood = problem.data, problem.terms.likelihood
    base: AbstractLikelihood = data.noise if likelihood is None else likelihood
    if traced(problem):
        raise ValueError("a fit within a JAX transformation is part of a larger program: leave mesh= out")
    if base.coupled:
        raise ValueError(f"{type(base).__name__} couples all rows, which devices cannot share: leave mesh= out")
    if plan.noise:
        raise ValueError("free noise parameters cannot be fitted with rows on several devices: leave mesh= out")
    if not isinstance(solver, AbstractTrustSolver):
        raise ValueError(f"rows on several devices need TRF() or GaussNewton(), not {type(solver).__name__}")
    if isinstance(given, StreamedDataset):
        if not given.source.anywhere:
            raise ValueError("an iterator gives its rows in order, to one device: leave mesh= out, or give arrays")
    elif split_rows(data)[0].mask is None:
        raise ValueError(f"the rows of {type(data).__name__} are not declared by rows(): devices cannot share them")


def share_rows(problem: Problem, mesh: jax.sharding.Mesh) -> Problem:
    """The Problem with its rows on the devices of a mesh, equally many on each; those that fill up are not used."""
    Placement.of(mesh)  # a mesh of some processes is refused
    data, terms = problem.data, problem.terms
    if isinstance(data, Stream):
        count = -(-data.index.shape[0] // mesh.size) * mesh.size  # a block beyond the last has no row in use
        data = eqx.tree_at(lambda s: s.index, data, jnp.arange(count, dtype=data.index.dtype))
    else:
        length = -(-data.mask.shape[0] // mesh.size) * mesh.size
        data, likelihood = pad((data, terms.likelihood), length)
        terms = terms._replace(likelihood=likelihood)
    cut = _Cut.of(Problem(problem.model, data, terms))
    flat = _flat(mesh)
    return _Cut(laid_out(cut.rows, flat, PartitionSpec(AXIS)), laid_out(cut.rest, flat, PartitionSpec())).whole()


def over_rows(run: Callable[..., Any], problem: Problem, mesh: jax.sharding.Mesh, *more: Tree) -> PyTree:
    """run(problem, *more) on every device of a mesh, each with its rows; what it gives has no rows.

    Within a program, for a Problem by `share_rows`; `Objective.axis` makes the sums those of all devices.
    """
    cut = _Cut.of(problem)
    arrays, fixed = eqx.partition((cut.rest, more), eqx.is_array)  # what is no array belongs to the program

    def here(rows: tuple[Any, Any], arrays: Tree) -> PyTree:
        rest, more = eqx.combine(arrays, fixed)
        return run(_Cut(rows, rest).whole(), *more)

    everyone = PartitionSpec()
    return jax.shard_map(
        here, mesh=_flat(mesh), in_specs=(PartitionSpec(AXIS), everyone), out_specs=everyone, check_vma=False
    )(cut.rows, arrays)


def _flat(mesh: jax.sharding.Mesh) -> jax.sharding.Mesh:
    return jax.sharding.Mesh(np.reshape(mesh.devices, -1), (AXIS,))
