"""Runs whose members are fits: the words, columns and numbers that all sciences that fit have in common.

A report knows nothing of chi2 or of convergence. A task whose members are fits subclasses `AbstractFitTask`, and its
outcomes give the numbers that its columns name; how a fit ended is said by the rule of `jaxsci.Solution`. `curvefit`,
`timing` and `compsep` are built on this, and so may be a science outside.
"""

import abc
import functools
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Generic

import jax.numpy as jnp
import jax.tree_util as jtu
import optimistix as optx

from ..core import (
    AbstractLikelihood,
    AbstractLoss,
    AbstractPrior,
    Arctan,
    Beta,
    Cauchy,
    Dense,
    Diagonal,
    HalfNormal,
    Huber,
    Linear,
    LogNormal,
    LowRank,
    Normal,
    Poisson,
    SoftL1,
    TruncatedNormal,
    Uniform,
    White,
)
from ..fitting import CONVERGED, RESULTS, ROBUST_CHI2, TRF, Adam, GaussNewton
from ._config import take
from ._errors import ConfigError
from ._records import plural
from ._registry import Kind, Registry
from ._task import AbstractTask, Column, M, R, Record, Words

COLUMNS = (
    Column("num_data", "data"),
    Column("num_free", "free"),
    Column("num_steps", "steps", screen="steps", batch=True),
    Column("chi2", "χ²", ".6g", csv=True),
    Column("dof", csv=True),
    Column("reduced_chi2", "χ² / dof", ".4g", screen="chi2/dof", screen_form=".4g", batch=True, watch=True),
    Column("loss", "loss", screen="loss", batch=True, csv=True),
)
"""What every fit has in its record."""

KINDS: Registry = {
    "solvers": Kind(
        "solver",
        (optx.AbstractLeastSquaresSolver, optx.AbstractMinimiser),
        {"TRF": TRF, "GaussNewton": GaussNewton, "Adam": Adam},
    ),
    "losses": Kind(
        "loss",
        (AbstractLoss,),
        {"Linear": Linear, "SoftL1": SoftL1, "Huber": Huber, "Cauchy": Cauchy, "Arctan": Arctan},
    ),
    "noises": Kind(
        "noise",
        (AbstractLikelihood,),
        {"White": White, "Diagonal": Diagonal, "Dense": Dense, "LowRank": LowRank, "Poisson": Poisson},
    ),
    "priors": Kind(
        "prior",
        (AbstractPrior,),
        {cls.__name__: cls for cls in (Normal, LogNormal, HalfNormal, TruncatedNormal, Uniform, Beta)},
    ),
}
"""What a config may name of any fit: solvers, losses, noises, priors."""


class AbstractFitTask(AbstractTask[M, R], Generic[M, R]):
    """A task whose members are fits.

    Its outcomes record `num_data, num_free, rank, num_steps, chi2, dof, reduced_chi2` and `errors_scaled` (whether
    errors were multiplied by the square root of chi2 / dof); after a robust loss also `loss`, its
    `jaxsci.fitting.loss_text`.
    """

    words: ClassVar[Words] = Words("fit", CONVERGED)
    columns: ClassVar[tuple[Column, ...]] = COLUMNS

    def notes(self, records: Sequence[Record]) -> Sequence[str]:
        """What chi2 means after a robust loss."""
        losses = list(dict.fromkeys(str(record["loss"]) for record in records if "loss" in record))
        return [f"With the loss {', '.join(losses)}, {ROBUST_CHI2}."] if losses else []

    def facts(self, record: Record) -> Sequence[str]:
        """chi2, rank and steps, then the facts of the record."""
        robust = f", outliers in full; the loss {record['loss']} was minimised" if "loss" in record else ""
        facts = [
            f"χ² {record['chi2']:.8g} for {plural(record['dof'], 'degree')} of freedom{robust}",
            f"rank {record['rank']} of {record['num_free']}",
            plural(record["num_steps"], "step"),
        ]
        scaled = ["errors scaled by √(χ²/dof)"] if record["errors_scaled"] else []
        return (*facts, *scaled, *record.get("facts", ()))

    @abc.abstractmethod
    def describe(self, member: M) -> Mapping[str, str]:
        """The model, the number of rows and what is free, by those headings."""


def read_steps(table: Mapping[str, Any], where: str, default: int) -> int:
    """Read the most steps that a fit may take: `max_steps` of a table."""
    steps: int = take(table, "max_steps", int, where, default)
    if steps < 1:
        raise ConfigError(f"{where}.max_steps", f"should be 1 or more, but it is {steps}")
    return steps


def advice(value: int) -> str:
    """Say what a `jaxsci.RESULTS` says by itself."""
    return RESULTS[item(value)]  # type: ignore[misc]


def item(value: int) -> Any:
    """Find the `jaxsci.RESULTS` of a value."""
    results: Any = RESULTS
    return jtu.tree_map(lambda _: jnp.asarray(value), results.successful)


def result_of(value: int) -> str:
    """Find the name of a `jaxsci.RESULTS` by its value, such as `max_steps_reached`."""
    return _names()[value]


RESULT_NAMES = (
    "successful",
    "max_steps_reached",
    "nonfinite_data",
    "bad_noise",
    "nonfinite_start",
    "stalled",
    "empty",
    "not_optimal",
    "nonfinite_end",
    "solver_failed",
)
"""All of them."""


@functools.cache
def _names() -> dict[int, str]:
    return {int(getattr(RESULTS, name)._value): name for name in RESULT_NAMES}
