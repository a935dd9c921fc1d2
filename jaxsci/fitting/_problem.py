"""What is to be fitted, on which terms, and how: the three named things that travel from a door to the solver.

`fit`, `fit_batch`, joint fits, grids and skies all make a `Problem` and `Choices` once and hand them on whole, so that
a value can be followed by its name. Arrays of a `Problem` vary from fit to fit and share one compiled program;
`Choices` are part of the program. A `Solution` keeps the `Terms`, so that intervals, samplers and refits need not ask
for them again.
"""

from typing import TYPE_CHECKING, NamedTuple, TypeAlias

import jax
import optimistix as optx
from jaxtyping import PyTree

from ..datasets import AbstractDataset
from ._plan import Plan
from ._terms import Terms

if TYPE_CHECKING:
    Solver: TypeAlias = optx.AbstractLeastSquaresSolver | optx.AbstractMinimiser
else:
    Solver = object  # doors that are given something else name it, with the remedy
"""What `fit` takes for a solver: one of ours, or any of optimistix."""


class Problem(NamedTuple):
    """A model whose values are the start, the data it is fitted to, and the terms of the fit.

    In a batch the arrays of all three lead with the members.
    """

    model: PyTree
    data: AbstractDataset
    terms: Terms


class Choices(NamedTuple):
    """How a fit is made: all but arrays of the solver is part of the compiled program.

    - `plan`: which parameters are free. `solver`: one of ours, or optimistix's.
    - `chunk`: rows at a time, `None` for all at once. `max_steps`: evaluations at most.
    - `scale_covariance`: multiply the covariance by chi2/dof; `None` does so where the noise has no scale.
    - `mesh`: devices that share the rows; `None` where one has them all.
    """

    plan: Plan
    solver: Solver
    chunk: int | None = None
    max_steps: int = 200
    scale_covariance: bool | None = None
    mesh: jax.sharding.Mesh | None = None
