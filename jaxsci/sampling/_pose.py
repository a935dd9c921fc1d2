"""A fit posed as a posterior: what it was told and what it found, as arrays that a compiled program takes.

`Single` poses one fit; `Joint`, in `_joint`, a batch with parameters in common. Poses of one structure are stacked, and
`_lanes` maps over them. Which parameters move, and whether the noise has a scale, is part of the program; all else is
numbers. Posteriors that are no distributions are found here, and named, before anything is drawn.
"""

import abc
from collections.abc import Sequence
from typing import Any, NamedTuple

import equinox as eqx
import jax.numpy as jnp
import jax.tree_util as jtu
import numpy as np
from jaxtyping import PyTree

from ..core import AbstractNoise, Arctan, Linear, Module, Scalar, describe
from ..datasets import AbstractDataset, Stream
from ..fitting import RESULTS, TRF, Choices, Problem, Solution, make_plan, make_ready
from ._target import AbstractTarget, Box, Start, Target, make_frame


class AbstractPose(Module):
    """A posterior as numbers: of them a program makes its coordinates once, and its density in each call."""

    @abc.abstractmethod
    def frame(self) -> PyTree:
        """The whitened coordinates."""

    @abc.abstractmethod
    def target(self, frame: PyTree) -> AbstractTarget:
        """The posterior in those coordinates."""

    @abc.abstractmethod
    def cost(self) -> Scalar:
        """The cost at the fit's answer."""


class Single(AbstractPose):
    """One fit.

    - `problem`: the fitted model, the data and the terms. `start`: what the fit found.
    - `choices`: what is free. `moving`: the places in y of what is sampled. `free_scale`: see `Target`.
    """

    problem: Problem
    start: Start
    choices: Choices = eqx.field(static=True)
    moving: tuple[int, ...] = eqx.field(static=True)
    free_scale: bool = eqx.field(static=True)

    def frame(self) -> PyTree:
        ready = make_ready(self.problem, self.choices)
        box = Box(ready.lower, ready.upper)
        return make_frame(ready.objective, self.start, box, self.moving, self.free_scale)

    def target(self, frame: PyTree) -> AbstractTarget:
        objective = make_ready(self.problem, self.choices).objective
        return Target(objective, self.start.y, self.start.num_data, frame, self.moving, self.free_scale)

    def cost(self) -> Scalar:
        return make_ready(self.problem, self.choices).objective.cost(self.start.y)


class Kind(NamedTuple):
    """What members of one program have in common: the places in y of what moves, and whether the noise has a scale."""

    moving: tuple[int, ...]
    free_scale: bool


def pose(solution: Solution, data: AbstractDataset, kind: Kind) -> Single:
    """A fit, or stacked fits and their data, as a pose; `data` closed.

    The model is the fitted one, so that what was not free is as it was, and what is not moved stays where it ended.
    """
    fitted, names = solution.fitted, [name for name, _ in solution.free]
    if fitted.noise is not None:
        data = eqx.tree_at(lambda d: d.noise, data, fitted.noise)
    one = first_of(solution)
    plan = make_plan(one.fitted.model, first_of(data).noise if solution.y.ndim > 1 else data.noise, names)
    start = Start(solution.y, solution.covariance, solution.determined, solution.num_data, solution.dof)
    return Single(Problem(fitted.model, data, solution.terms), start, Choices(plan, TRF()), *kind)


def kind_of(solution: Solution, data: AbstractDataset, fixed: np.ndarray) -> Kind:
    """What a fit's program is of: `fixed` is True for what has no room to move.

    The scale of the noise is unknown where the noise has none, and where the fit was told to scale its errors by the
    scatter of the residuals.
    """
    base = data.noise if solution.terms.likelihood is None else solution.terms.likelihood
    plain = isinstance(base, AbstractNoise) and isinstance(solution.terms.loss, Linear)
    scaled = plain and solution.absolute and not solution.testable and solution.fitted.noise is None
    moving = tuple(np.flatnonzero(~fixed).tolist())
    return Kind(moving, not solution.absolute or scaled)


class _Facts(NamedTuple):
    """What is known of stacked fits on the host, element by element: NumPy arrays (members, p).

    - `unknown`: not determined, and without two finite bounds. `endless`: a bounded loss lets it go to infinity.
    - `rounding`: its error is no more than the rounding of its value.
    """

    fixed: np.ndarray
    unknown: np.ndarray
    endless: np.ndarray
    rounding: np.ndarray

    @staticmethod
    def of(solution: Solution) -> "_Facts":
        at = jtu.tree_map(np.asarray, solution)
        lower = np.full_like(at.y, -np.inf) if at.terms.lower is None else at.terms.lower
        upper = np.full_like(at.y, np.inf) if at.terms.upper is None else at.terms.upper
        open_sided = ~np.isfinite(upper - lower) & ~at.fixed
        some = at.terms.prior_weight > 0
        for shaped in at.terms.shaped:
            some = some | np.asarray(shaped.present(jnp.zeros(at.y.shape[-1])))
        bounded = isinstance(solution.terms.loss, Arctan)
        small = np.sqrt(np.diagonal(at.covariance, axis1=-2, axis2=-1)) <= 4 * np.finfo(at.y.dtype).eps * np.abs(at.y)
        return _Facts(at.fixed, ~at.determined & open_sided, bounded & open_sided & ~some, small & ~at.fixed)


def refusals(solution: Solution, free_scale: bool) -> list[str]:
    """Why the posterior of each of some stacked fits is none; empty where it is one."""
    facts, codes, dof = _Facts.of(solution), np.asarray(solution.result._value), np.asarray(solution.dof)

    def names(which: np.ndarray) -> str:
        return ", ".join(name for name, here in zip(solution.names, which, strict=True) if here)

    def one(k: int) -> str:
        if codes[k]:
            return f"its fit failed: {_advice(int(codes[k]))}"
        if facts.fixed[k].all():
            return "nothing moves: all of its parameters are fixed"
        if facts.unknown[k].any():
            return (
                f"the data do not determine {names(facts.unknown[k])}, so that the posterior is improper: give a prior "
                "(priors={name: jaxsci.Normal(mean, sigma)}) or two finite bounds in the fit, or fix it"
            )
        if facts.endless[k].any():
            return (
                f"the loss Arctan is bounded, so that the posterior of {names(facts.endless[k])} is improper without a "
                "prior or two finite bounds: give one of these in the fit, or take the loss Cauchy"
            )
        if free_scale and dof[k] <= 0:
            return "the scale of its noise is unknown, and no row is left to tell it: give a noise, or free fewer"
        if free_scale and facts.rounding[k].any():
            return "the scale of its noise is unknown, and its residuals are no more than rounding: give a noise"
        return ""

    return [one(k) for k in range(len(codes))]


def _advice(code: int) -> str:
    results: Any = RESULTS
    return results[jtu.tree_map(lambda _: jnp.asarray(code), results.successful)]


def check_data(data: object) -> None:
    """Raise `ValueError` for what is no data set, or one that is read anew for each evaluation."""
    if isinstance(data, Stream) or not isinstance(data, AbstractDataset):
        stream = isinstance(data, Stream)
        what = "a stream, of which a chain would read every row at each step" if stream else describe(data)
        raise ValueError(f"data should be the Dataset that was fitted, but it is {what:.120}: give its rows in memory")


def first_of(tree: PyTree) -> PyTree:
    """The first member of a stacked tree."""
    return jtu.tree_map(lambda x: x[0], tree)


def members_of(tree: PyTree, places: Sequence[int] | np.ndarray) -> PyTree:
    """Some members of a stacked tree, on the host."""
    return jtu.tree_map(lambda x: np.asarray(x)[places], tree)
