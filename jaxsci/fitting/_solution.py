"""What a fit answers: the fitted model, how well it is known, and how the fit ended.

A `Solution` is a Module of arrays, so that it can come out of `jax.vmap`, be differentiated and be saved. It keeps the
terms on which it was made (bounds, priors, loss, likelihood), for whoever goes on from it. `RESULTS` are the endings,
whose texts are the advice.
"""

import io
import math
import os
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.flatten_util as jfu
import jax.numpy as jnp
import jax.tree_util as jtu
from jaxtyping import Array, Bool, Float, Int

from ..core import (
    AbstractLikelihood,
    AbstractLoss,
    AbstractPrior,
    Arctan,
    Beta,
    Cauchy,
    Huber,
    Linear,
    LogNormal,
    Model,
    Module,
    Scalar,
    SoftL1,
    Tree,
    closed,
    element_names,
    formulas,
    free_spec,
    get,
    opened,
    parameters,
    resolved,
)
from ..parallel import read_framed, write_framed
from ._by_name import ByName
from ._summary import DataFrame, Dataset, as_pandas, as_xarray, html_summary, shown, text_summary
from ._terms import Fitted, ShapedPrior, Terms
from ._uncertainty import propagate
from ._verdict import remarks_of, verdict_of


class RESULTS(eqx.Enumeration):
    """How a fit ended; `RESULTS[result]` is the advice, empty after success."""

    successful = ""
    max_steps_reached = (
        "The fit had not converged when it reached max_steps. Raise max_steps, or start nearer; the best point is kept."
    )
    nonfinite_data = "The data have a NaN or an infinity where the mask is True. Mask those rows (mask=False)."
    bad_noise = "The noise makes no sense where the mask is True: a sigma that is zero, negative or not finite."
    nonfinite_start = (
        "The model, or its derivative, is not finite at the starting values. Start elsewhere or set bounds."
    )
    stalled = (
        "No step decreases the cost although the gradient is not zero: the model's derivative disagrees with its "
        "values (a rounding, an integer, a branch in it?), or float32 is too coarse."
    )
    empty = "Every row is masked, so there is nothing to fit."
    not_optimal = (
        "The solver stopped where it is no optimum: the gradient says that a step of more than a thousandth of a "
        "standard error is left. Start from here again, raise max_steps, or use jaxsci.TRF()."
    )
    nonfinite_end = (
        "The model, or its derivative, is not finite at the point where the fit ended. Set bounds that keep it finite."
    )
    solver_failed = "The solver gave up; see the message of the solver itself, or use jaxsci.TRF()."


class TiedParameter(NamedTuple):
    """A parameter that is a formula of others: the formula, its unit, its value and its standard error."""

    formula: str
    unit: str
    value: Array
    std: Array


class Solution(Module):
    """The result of a fit; of a batch of fits when it comes out of `jax.vmap`.

    - `fitted`: the model, and the noise where parameters of it were free, as trees of arrays (`model` and `noise` give
      them as they were written). `names`, `units`: of the
      p free parameters, one an element.
    - `y`: their values. `covariance`: (p, p), scaled by chi2/dof where the noise is of unknown scale.
    - `chi2`: sum of squared standardised residuals, prior rows included. `cost`: what was minimised.
    - `num_data`: rows used. `dof`: rows used and priors, less the `rank`: how many directions the data determine.
    - `determined`: False where the data say nothing of a parameter, whose error is then infinite.
    - `fixed`: lower bound equal to upper, or not active; error 0. `at_bound`: -1 lower, 1 upper.
    - `absolute`: False where the noise has no scale of its own. `testable`: True where chi2 should follow the chi2
      distribution: Gaussian noise of known scale, no robust loss, errors not scaled by its scatter.
    - `projected`: True where the start lay outside the bounds and was moved.
    - `result`: a `RESULTS`; `success` its truth value; `num_steps`: evaluations of the linearisation.
    - `decrement`: how far the optimum is said to be from here, in standard errors for the noise as given:
      sqrt(g^T F^-1 g) of the parameters that no bound holds.
    - `terms`: bounds, priors, loss and likelihood that the fit was told; intervals and samplers take them from here.
    """

    fitted: Fitted
    y: Float[Array, " p"]
    covariance: Float[Array, "p p"]
    cost: Scalar
    chi2: Scalar
    log_norm: Scalar
    num_data: Int[Array, ""]
    dof: Int[Array, ""]
    rank: Int[Array, ""]
    determined: Bool[Array, " p"]
    fixed: Bool[Array, " p"]
    at_bound: Int[Array, " p"]
    projected: Bool[Array, " p"]
    result: Any
    num_steps: Int[Array, ""]
    decrement: Scalar
    terms: Terms
    free: tuple[tuple[str, tuple[int, ...]], ...] = eqx.field(static=True)
    names: tuple[str, ...] = eqx.field(static=True)
    units: tuple[str, ...] = eqx.field(static=True)
    absolute: bool = eqx.field(static=True)
    testable: bool = eqx.field(static=True)

    @property
    def model(self) -> Any:
        """The model with its fitted parameters."""
        return opened(self.fitted.model)

    @property
    def noise(self) -> Any:
        """The noise with its fitted parameters; `None` when none of them was free."""
        return opened(self.fitted.noise)

    @property
    def success(self) -> Bool[Array, "*batch"]:
        """True where the fit converged."""
        return self.result == RESULTS.successful

    @property
    def remarks(self) -> tuple[str, ...]:
        """What a researcher should look at though one fit converged, each with the remedy; empty when nothing."""
        return remarks_of(self)

    @property
    def verdict(self) -> str:
        """How one fit went: "converged", "converged, look" (see `remarks`) or "failed" (see `message`)."""
        success = bool(self.success)
        return verdict_of(success, self.remarks if success else ())

    @property
    def message(self) -> str:
        """How one fit ended and what to do about it; empty after success."""
        return RESULTS[self.result]  # type: ignore[misc]

    @property
    def standard_errors(self) -> Float[Array, "*batch p"]:
        """Standard error of each element of y; inf where not determined, 0 where fixed."""
        variance = jnp.diagonal(self.covariance, axis1=-2, axis2=-1)
        none = variance == 0  # where the root has no derivative
        return jnp.where(none, 0, jnp.sqrt(jnp.where(none, 1, variance)))

    @property
    def correlation(self) -> Float[Array, "*batch p p"]:
        """Correlation matrix; nan beside a parameter that is fixed or not determined."""
        std = self.standard_errors
        product = std[..., :, None] * std[..., None, :]
        good = (product > 0) & jnp.isfinite(product)
        return jnp.where(good, self.covariance / jnp.where(good, product, 1), jnp.nan)

    @property
    def reduced_chi2(self) -> Float[Array, "*batch"]:
        """chi2 / dof; nan without degrees of freedom."""
        some = self.dof > 0
        return jnp.where(some, self.chi2 / jnp.where(some, self.dof, 1).astype(self.chi2.dtype), jnp.nan)

    @property
    def values(self) -> ByName:
        """Fitted value of each free parameter by name; `values["c[0]"]` is one element of an array parameter."""
        return ByName(((name, get(self.fitted, name)) for name, _ in self.free), self.free)

    @property
    def std(self) -> ByName:
        """Standard error of each free parameter by name, in the parameter's shape; of an element as in `values`."""
        std, out, at = self.standard_errors, {}, 0
        for name, shape in self.free:
            size = len(element_names(name, shape))
            out[name] = std[..., at : at + size].reshape(*std.shape[:-1], *shape)
            at += size
        return ByName(out.items(), self.free)

    @property
    def tied(self) -> dict[str, TiedParameter]:
        """The parameters that `jaxsci.Tied` makes formulas of others, by name, with errors to first order."""
        written = formulas(self.model)
        if not written:
            return {}
        about = parameters(resolved(self.model))

        def one(name: str) -> TiedParameter:
            value, matrix = self.propagate(lambda model: get(resolved(model), name))
            size = math.prod(value.shape)
            std = jnp.sqrt(jnp.diagonal(matrix.reshape(size, size))).reshape(value.shape)
            return TiedParameter(written[name], about[name].unit, value, std)

        return {name: one(name) for name in written}

    @property
    def aic(self) -> Float[Array, "*batch"]:
        """Akaike's information criterion 2 k - 2 log L; with the scale profiled out where it is unknown."""
        return self._information(2.0)

    @property
    def bic(self) -> Float[Array, "*batch"]:
        """Schwarz's information criterion k log n - 2 log L."""
        return self._information(jnp.log(jnp.maximum(self.num_data, 1).astype(self.y.dtype)))

    def _information(self, each: Array | float) -> Array:
        n, k = self.num_data.astype(self.y.dtype), self.rank.astype(self.y.dtype)
        if self.absolute:
            return 2 * self.cost + self.log_norm + n * jnp.log(2 * jnp.pi) + each * k
        return n * (jnp.log(2 * jnp.pi * 2 * self.cost / n) + 1) + self.log_norm + each * (k + 1)

    def propagate(self, fn: Callable[[Any], Array]) -> tuple[Array, Array]:
        """Value and covariance of any function of the fitted model, to first order (delta method).

        **Arguments:** `fn`: model -> array of shape (k,) or ().
        """
        free, rest = eqx.partition(self.fitted, free_spec(self.fitted, [name for name, _ in self.free]))
        y, unravel = jfu.ravel_pytree(free)

        def of(y: Array) -> Array:
            return jnp.ravel(fn(opened(eqx.combine(unravel(y), rest)).model))

        matrix = propagate(of, y, self.covariance)
        value = fn(self.model)
        return value, matrix.reshape(jnp.shape(value) * 2)

    def summary(self) -> str:
        """A table of values, errors and flags, and how good the fit is. For one fit, not a batch."""
        return text_summary(self)

    def __repr__(self) -> str:
        return shown(self)

    def _repr_html_(self) -> str:
        return html_summary(self)

    def to_pandas(self) -> DataFrame:
        """A table of one fit: for each parameter its value, std, unit, and whether it is determined or at a bound.

        **Raises:** `ImportError` without pandas; `ValueError` for a batch, which is `to_xarray`'s.
        """
        return as_pandas(self)

    def to_xarray(self) -> Dataset:
        """Labelled arrays: value, std and covariance by `parameter`, of a batch also by `member`; chi2, dof, success.

        **Raises:** `ImportError` without xarray.
        """
        return as_xarray(self)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write to one checksummed file, whole or not at all; no pickle."""
        buffer = io.BytesIO()
        eqx.tree_serialise_leaves(buffer, self)
        write_framed(path, buffer.getvalue(), _header(self))

    @staticmethod
    def load(
        path: str | os.PathLike[str],
        model: Model,
        noise: Tree = None,
        loss: AbstractLoss | None = None,
        likelihood: AbstractLikelihood | None = None,
        priors: Mapping[str, AbstractPrior] | None = None,
    ) -> "Solution":
        """Read what `save` wrote.

        **Arguments:** `path`: the file; `model`, `noise`, `loss`, `likelihood`, `priors`: of the same classes and
        shapes as in the fit; their values do not matter (`noise` only where noise parameters were free; `loss` and
        `priors` only for classes of your own; `likelihood` only where the fit had one).

        **Raises:** `ValueError` for a damaged file or another model.
        """
        header, payload = read_framed(path)
        if header.get("kind") != "Solution":
            raise ValueError(f"{path} holds a {header.get('kind')}, not a Solution")
        model, noise = closed(model), closed(noise)
        try:
            unknown = [name for name, _ in header["free"] if name not in parameters(Fitted(model, noise))]
            # a covariance is in the file, so that no file is smaller than that
            size = jnp.dtype(header["dtype"]).itemsize * math.prod(header["shape"]) * header["shape"][-1]
        except (LookupError, TypeError, ValueError) as error:
            raise ValueError(f"{path} holds no Solution that this version wrote: {error}") from error
        if not 0 <= size <= len(payload):
            raise ValueError(f"{path} promises a covariance of {size} bytes, but has {len(payload)}: it is damaged")
        if unknown:
            raise ValueError(
                f"{path} was saved from another model than {type(model).__name__}, which has no {', '.join(unknown)}"
            )
        try:
            own = _loss(path, header, loss), _told(path, header, likelihood), _shaped(path, header, priors)
            like = _skeleton(header, Fitted(model, noise), *own)
            return eqx.tree_deserialise_leaves(io.BytesIO(payload), like)
        except (AttributeError, EOFError, LookupError, RuntimeError, TypeError, ValueError) as error:
            raise ValueError(f"{path} was saved from another model than {type(model).__name__}: {error}") from error


def _header(solution: Solution) -> dict[str, Any]:
    terms = solution.terms
    return {
        "kind": "Solution",
        "shape": list(solution.y.shape),
        "dtype": str(solution.y.dtype),
        "free": solution.free,
        "names": solution.names,
        "units": solution.units,
        "absolute": solution.absolute,
        "testable": solution.testable,
        "bounded": terms.lower is not None,
        "masked": terms.active is not None,
        "loss": type(terms.loss).__name__,
        "likelihood": None if terms.likelihood is None else type(terms.likelihood).__name__,
        "shaped": [[type(each.prior).__name__, list(each.at)] for each in terms.shaped],
    }


def _loss(path: str | os.PathLike[str], header: dict[str, Any], given: AbstractLoss | None) -> AbstractLoss:
    """The loss to fill from the file: one of the core's by its name, or the caller's own."""
    own = {cls.__name__: cls for cls in (Linear, SoftL1, Huber, Cauchy, Arctan)}
    name = header["loss"]
    loss = own[name]() if given is None and name in own else given
    if type(loss).__name__ != name:
        raise ValueError(f"{path} holds a fit with the loss {name}: give loss={name}(...), of any values")
    assert loss is not None
    return loss


def _told(
    path: str | os.PathLike[str], header: dict[str, Any], given: AbstractLikelihood | None
) -> AbstractLikelihood | None:
    name = header["likelihood"]
    if name != (None if given is None else type(given).__name__):
        wanted = f"give likelihood={name}(...), of the shapes of the fit" if name else "give no likelihood="
        raise ValueError(f"{path} holds a fit with {'the likelihood ' + name if name else 'no likelihood='}: {wanted}")
    return given


_KINDS = {  # fields of a Solution that have one shape and dtype
    "fitted": ("fitted",),
    "vector": ("y",),
    "matrix": ("covariance",),
    "number": ("cost", "chi2", "log_norm", "decrement"),
    "count": ("num_data", "dof", "rank", "num_steps"),
    "flag": ("determined", "fixed", "projected"),
    "place": ("at_bound",),
    "result": ("result",),
}


def _shaped(
    path: str | os.PathLike[str], header: dict[str, Any], given: Mapping[str, AbstractPrior] | None
) -> tuple[ShapedPrior, ...]:
    """The priors that are no rows, to be filled from the file: the core's by name, or of the caller's own classes."""
    one = jnp.ones(())
    known = {type(prior).__name__: prior for prior in (LogNormal(one, one), Beta(one, one), *(given or {}).values())}
    out = []
    for name, at in header.get("shaped", ()):
        if name not in known:
            raise ValueError(f"{path} holds a fit with a prior of class {name}: give priors={{...: {name}(...)}}")
        shape = (*header["shape"][:-1], len(at))
        like = jtu.tree_map(lambda x: jnp.ones(shape, header["dtype"]), known[name])  # noqa: B023
        out.append(ShapedPrior(like, tuple(at)))
    return tuple(out)


def _skeleton(
    header: dict[str, Any],
    fitted: Fitted,
    loss: AbstractLoss,
    likelihood: AbstractLikelihood | None,
    shaped: tuple[ShapedPrior, ...],
) -> Solution:
    """A Solution of the right structure, shapes and dtypes, to be filled from a file."""
    *batch, p = header["shape"]
    number = jnp.zeros(batch, header["dtype"])
    count, flag = jnp.zeros(batch, int), jnp.zeros((*batch, p), bool)
    vector, matrix = jnp.zeros((*batch, p), header["dtype"]), jnp.zeros((*batch, p, p), header["dtype"])
    losses = jtu.tree_map(lambda x: jnp.broadcast_to(x, (*batch, *x.shape)), loss)

    def build(parts: dict[str, Any]) -> Solution:
        own = {name: parts[kind] for kind, names in _KINDS.items() for name in names}
        return Solution(
            **own,
            terms=Terms(likelihood=likelihood, **parts["terms"]),
            free=tuple((name, tuple(shape)) for name, shape in header["free"]),
            names=tuple(header["names"]),
            units=tuple(header["units"]),
            absolute=header["absolute"],
            testable=header["testable"],
        )

    for _ in batch:
        build = jax.vmap(build)  # a batch has more axes than the fields of one fit declare
    result = jtu.tree_map(lambda x: jnp.broadcast_to(x, tuple(batch)), RESULTS.successful)
    bound = vector if header["bounded"] else None
    terms = {"lower": bound, "upper": bound, "prior_mean": vector, "prior_weight": vector, "loss": losses}
    terms["shaped"] = shaped
    terms["active"] = flag if header["masked"] else None
    parts = {"fitted": fitted, "vector": vector, "matrix": matrix, "number": number, "count": count, "flag": flag}
    return build(parts | {"place": jnp.zeros((*batch, p), int), "result": result, "terms": terms})
