"""What `fit` and `fit_batch` are given, held to what they take: each complaint names the thing and the remedy.

These checks look at types and, of parameters that are not fitted, at a few numbers on the host; shapes are checked
where arrays are made, and what a model does is checked where it is called (`Dataset.residual`).
"""

import inspect
from collections.abc import Collection, Mapping, Sequence

import equinox as eqx
import jax.tree_util as jtu
import numpy as np
import optimistix as optx

from ..core import (
    AbstractLikelihood,
    AbstractLoss,
    Arctan,
    Cauchy,
    Huber,
    Linear,
    Model,
    SoftL1,
    as_count,
    describe,
    is_traced,
    parameters,
    suggest,
    traced,
)
from ..datasets import AbstractDataset, Dataset, RaggedDataset, StreamedDataset
from ._plan import Plan
from ._solution import Solution

_LOSSES = {cls.__name__.lower(): cls.__name__ for cls in (Linear, SoftL1, Huber, Cauchy, Arctan)}
_SOLVERS = {name.lower(): name for name in ("TRF", "GaussNewton", "Adam")}


def check_given(
    model: object,
    data: object,
    free: object,
    bounds: object,
    priors: object,
    solver: object,
    loss: object,
    likelihood: object = None,
) -> None:
    """Raise `ValueError` for an argument of a kind that no fit takes.

    **Arguments:** those of `jaxsci.fit`; `data` is `None` where a batch has looked at them itself.
    """
    check_model(model, data)
    if data is not None and not isinstance(data, AbstractDataset):
        raise ValueError(
            f"data should be a jaxsci.Dataset, but it is {_kind(data)}: make one by jaxsci.Dataset(x, y, noise)"
        )
    for name, given, entry in (("bounds", bounds, "(lower, upper)"), ("priors", priors, "jaxsci.Normal(mean, sigma)")):
        if given is not None and not isinstance(given, Mapping):
            raise ValueError(f"{name} should be a dictionary {{name: {entry}}}, but it is {_kind(given)}")
    if not (free is None or isinstance(free, str) or _are_names(free)):
        raise ValueError(f"free should be names of parameters, such as ('tau', 'peak.*'), but it is {_kind(free)}")
    if not isinstance(loss, AbstractLoss):
        raise ValueError(
            f"loss should be a loss such as jaxsci.Huber(1.0), but it is {_kind(loss)}{_like(loss, _LOSSES)}"
        )
    check_solver(solver)
    if likelihood is not None and not isinstance(likelihood, AbstractLikelihood):
        raise ValueError(
            f"likelihood should be a noise or a likelihood such as jaxsci.White(0.1), but it is {_kind(likelihood)}"
        )


def check_model(model: object, data: object = None) -> None:
    """Raise `ValueError` for what is no model: a class, a function, or a Module that a `Dataset` cannot call."""
    if isinstance(model, type):
        raise ValueError(
            f"model is the class {model.__name__}, but a fit starts from an instance, which holds the start values: "
            f"{model.__name__}(...)"
        )
    if not isinstance(model, eqx.Module) and (inspect.isroutine(model) or callable(model)):
        raise ValueError(
            f"model is {_kind(model)}, which has no named parameters: write a jaxsci.AbstractModel with fields "
            "declared by jaxsci.param(), or use jaxsci.curvefit.curve_fit, which takes functions"
        )
    silent = isinstance(model, eqx.Module) and not callable(model)
    # one without parameters is told of those first
    if silent and isinstance(data, Dataset | StreamedDataset) and parameters(model):
        raise ValueError(
            f"{type(model).__name__} cannot be called: a model needs __call__(self, inputs), which returns the "
            "prediction, one number a row"
        )


def check_solver(solver: object) -> None:
    """Raise `ValueError` for what is no solver: a class, a word."""
    if not isinstance(solver, optx.AbstractLeastSquaresSolver | optx.AbstractMinimiser):
        raise ValueError(
            "solver should be jaxsci.TRF(), GaussNewton(), Adam(), or a least-squares solver or minimiser of "
            f"optimistix, but it is {_kind(solver)}{_like(solver, _SOLVERS)}"
        )


def check_search(solver: object, max_steps: object) -> None:
    """Raise `ValueError` for what is no solver, and for a `max_steps` that is no whole number of 1 or more."""
    check_solver(solver)
    as_count(max_steps, "max_steps")


def check_datasets(datasets: object) -> None:
    """Raise `ValueError` for what is no batch of data sets, naming the first that is none."""
    if isinstance(datasets, RaggedDataset | AbstractDataset):
        return
    remedy = "make each by jaxsci.Dataset(x, y, noise)"
    if not isinstance(datasets, Sequence) or isinstance(datasets, str):
        raise ValueError(f"datasets should be a list of data sets, but it is {_kind(datasets)}: {remedy}")
    for k, data in enumerate(datasets):
        if not isinstance(data, AbstractDataset):
            raise ValueError(f"data set {k} should be a jaxsci.Dataset, but it is {_kind(data)}: {remedy}")


def check_same_rows(solution: Solution, data: AbstractDataset) -> None:
    """Raise `ValueError` for what is no single solution, and for a data set of another number of rows than it had.

    Within transformations, where numbers are not known, nothing is said.
    """
    if not isinstance(solution, Solution):
        raise ValueError(f"solution should be a Solution, as jaxsci.fit answers, but it is {_kind(solution)}")
    if not isinstance(data, AbstractDataset):
        raise ValueError(f"data should be the Dataset that was fitted, but it is {_kind(data)}")
    if isinstance(data, StreamedDataset) or traced((solution.num_data, data.mask)) or solution.y.ndim != 1:
        return
    rows, fitted = int(np.sum(np.asarray(data.mask))), int(solution.num_data)
    if rows != fitted:
        raise ValueError(f"data has {rows} rows that are used, but the fit had {fitted}: give the data set of the fit")


def check_fixed(plan: Plan, model: Model) -> None:
    """Raise `ValueError` for a parameter that is not fitted and lies outside its declared bounds.

    Within transformations, where values are not known, nothing is said.
    """
    if not plan.kept:
        return
    leaves = jtu.tree_leaves(model)
    for name, at, (lower, upper) in plan.kept:
        value = leaves[at]
        if is_traced(value):
            continue
        host = np.asarray(value)
        if ((host < lower) | (host > upper)).any():
            raise ValueError(
                f"{name} is not fitted, and its value {host} lies outside its bounds ({lower}, {upper}): free it, or "
                "give it a value within them"
            )


def _are_names(free: object) -> bool:
    return isinstance(free, Collection) and all(isinstance(name, str) for name in free)


def _kind(value: object) -> str:
    if isinstance(value, type):
        return f"the class {value.__name__}; make one: {value.__name__}()"
    if inspect.isroutine(value):
        return f"the function {getattr(value, '__name__', value)}"
    return repr(value) if isinstance(value, str) else describe(value)


def _like(value: object, known: Mapping[str, str]) -> str:
    """A suggestion for a name in place of the thing."""
    if not isinstance(value, str):
        return ""
    plain = value.lower().replace("_", "").replace("-", "")
    return f": give jaxsci.{known[plain]}()" if plain in known else suggest(value, known.values())
