"""Fits of g2 over all q-bins at once, with parameters that each bin has for itself or that all of them share.

`fit_g2` lays out one data set and one start for each q-bin and gives them to `jaxsci.fit_batch`: local parameters run
on the engine for small fits, and one word in `shared` makes the fit global. `fit_power_law` takes the relaxation times
of such fits further, to their dependence on q. The task, the commands and users call both.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from ..core import AbstractModel, Dense, Diagonal, Module, get, match, parameters, put
from ..datasets import Dataset
from ..fitting import BatchSolution, Solution, fit, fit_batch
from ._models import AbstractG2, Logarithm, PowerLaw, StretchedExponential, start


class Curves(Module):
    """Correlation curves of all q-bins of a measurement, over the same delays.

    - `t`: delays, shape (n,), in s. `g2`: shape (n, q). `sigma`: its standard errors, shape (n, q), or `None`.
    - `mask`: True for the points that count, shape (n, q); what lies under a False may be NaN.
    - `q`: of each curve, shape (q,), in 1/Å.
    - `covariance`: of the points of each curve, shape (q, n, n), or `None` where it is not known. Fits take it in place
      of `sigma`: lags share their photons, and errors that forget it are too small.
    """

    t: Float[Array, " n"]
    g2: Float[Array, "n q"]
    sigma: Float[Array, "n q"] | None
    mask: Bool[Array, "n q"]
    q: Float[Array, " q"]
    covariance: Float[Array, "q n n"] | None = None

    def take(self, columns: Sequence[int] | np.ndarray) -> "Curves":
        """The curves of some columns, in the order in which they are named."""
        at, count = np.asarray(columns, int), self.q.shape[0]
        if at.size and not (-count <= at.min() and at.max() < count):
            raise ValueError(f"there are {count} curves, numbered from 0, but the columns are {list(columns)}")
        sigma = None if self.sigma is None else self.sigma[:, at]
        covariance = None if self.covariance is None else self.covariance[at]
        return Curves(self.t, self.g2[:, at], sigma, self.mask[:, at], self.q[at], covariance)

    def between(self, shortest: float, longest: float) -> "Curves":
        """The same curves with the delays outside of these limits (in s, inclusive) masked."""
        inside = (self.t >= shortest) & (self.t <= longest)
        return eqx.tree_at(lambda c: c.mask, self, self.mask & inside[:, None])

    def datasets(self) -> Dataset:
        """One data set for each curve, stacked as `jaxsci.fit_batch` takes them."""
        if self.covariance is not None:
            return _correlated(self.t, self.g2.T, self.covariance, self.mask.T)
        if self.sigma is None:
            return _plain(self.t, self.g2.T, self.mask.T)
        return _weighed(self.t, self.g2.T, self.sigma.T, self.mask.T)


@eqx.filter_jit
def _plain(t: Array, g2: Array, mask: Array) -> Dataset:
    return jax.vmap(lambda g2, mask: Dataset(t, g2, None, mask))(g2, mask)


@eqx.filter_jit
def _weighed(t: Array, g2: Array, sigma: Array, mask: Array) -> Dataset:
    return jax.vmap(lambda g2, sigma, mask: Dataset(t, g2, Diagonal(sigma), mask))(g2, sigma, mask)


@eqx.filter_jit
def _correlated(t: Array, g2: Array, covariance: Array, mask: Array) -> Dataset:
    return jax.vmap(lambda g2, covariance, mask: Dataset(t, g2, Dense(covariance), mask))(g2, covariance, mask)


def fit_g2(
    curves: Curves,
    model: AbstractModel | type[AbstractModel] = StretchedExponential,
    *,
    free: Sequence[str] | None = None,
    shared: Sequence[str] = (),
    bounds: Mapping[str, Any] | None = None,
    priors: Mapping[str, Any] | None = None,
    max_steps: int = 400,
    **options: Any,
) -> BatchSolution:
    """Fit a model of g2 to every curve, from starts that are read off the data.

    **Arguments:**

    - `curves`: of all q-bins.
    - `model`: a class of models of g2; or an instance, from which parameters that are not free take their values.
    - `free`: names or globs of the parameters to fit; `None` for all.
    - `shared`: those of them that have one value for all q-bins; the others are each bin's own.
    - `bounds`, `priors`: as in `jaxsci.fit`; limits with a leading axis of the bins are each bin's own.
    - `max_steps`: evaluations of each fit; decays that the data do not see to their end take hundreds.
    - `options`: further arguments of `jaxsci.fit_batch`, such as `progress`, `checkpoint`, `mesh`.

    **Returns:** a `BatchSolution` in the order of the columns; `.shared` holds what is shared. A bin that cannot be
    fitted fails alone.

    **Raises:** `ValueError` for unknown names.
    """
    starts = _within(starts_of(curves, model, free), bounds or {})
    return fit_batch(
        starts,
        curves.datasets(),
        free=free,
        shared=shared,
        bounds=bounds,
        priors=priors,
        max_steps=max_steps,
        **options,
    )


def starts_of(
    curves: Curves, model: AbstractModel | type[AbstractModel], free: Sequence[str] | None = None
) -> AbstractModel:
    """Guess where the fit of each curve starts: a stacked model.

    **Arguments:** those of `fit_g2`.

    **Raises:** `ValueError` for unknown names, and for a model that cannot guess.
    """
    if isinstance(model, str):
        raise ValueError(f"model should be a class such as jaxsci.xpcs.StretchedExponential, but it is {model!r:.60}")
    kind = model if isinstance(model, type) else type(model)
    if not issubclass(kind, AbstractG2):
        raise ValueError(
            f"{kind.__name__} cannot look at data for its start: subclass jaxsci.xpcs.AbstractG2 and give it `of`, or "
            "call jaxsci.fit_batch with starts of your own"
        )
    found = _started(curves, kind)
    if isinstance(model, type) or free is None:
        return found
    wanted = match(model, free)
    for name in parameters(model):
        if name not in wanted:
            kept = jnp.broadcast_to(get(model, name), get(found, name).shape)
            found = put(found, {name: kept})
    return found


@eqx.filter_jit
def _started(curves: Curves, kind: type[AbstractG2]) -> AbstractModel:
    sigma = jnp.ones_like(curves.g2) if curves.sigma is None else curves.sigma

    def one(g2: Array, sigma: Array, mask: Array, q: Array) -> AbstractModel:
        return start(kind, curves.t, g2, sigma, mask, q)

    return jax.vmap(one)(curves.g2.T, sigma.T, curves.mask.T, curves.q)


def _within(starts: AbstractModel, bounds: Mapping[str, Any]) -> AbstractModel:
    """The starts moved to where bounds allow them, without a word: they are guesses."""
    moved = {}
    for name, about in parameters(starts).items():
        low, high = bounds.get(name, about.bounds)
        moved[name] = jnp.clip(get(starts, name), low, high)
    return put(starts, moved)


class Dispersion(NamedTuple):
    """How a parameter depends on q: the data set of the fit with its noise, the columns that are in it, and the fit."""

    data: Dataset
    noise: Diagonal
    columns: np.ndarray
    solution: Solution


def fit_power_law(fits: BatchSolution, q: Float[Array, " q"], parameter: str = "tau") -> Dispersion:
    """Fit y = value (q / q_0)^slope to a parameter of all q-bins, each with its standard error.

    The fit is of log y, whose errors are those of y relative to it, so that bins with slow and with fast relaxations
    count alike. Left out are bins whose fit failed, that hold a parameter at a bound, or do not determine this one.
    Where chi2 of a bin, or of the power law, is larger than its degrees of freedom, errors are scaled by
    sqrt(chi2 / dof): what a model does not explain makes nothing more certain.

    **Arguments:** `fits`: what `fit_g2` returned; `q`: of each bin, in 1/Å; `parameter`: its name.

    **Returns:** the data set, the columns that are in it, and the `Solution` of a `PowerLaw` about the geometric mean
    of q.

    **Raises:** `ValueError` where fewer than two bins are left.
    """
    table = fits.table()
    if np.shape(q) != (len(fits),):
        raise ValueError(
            f"q has shape {np.shape(q)}, but there are fits of {len(fits)} q-bins: give the q of each of them"
        )
    if parameter not in table:
        known = [name for name in table if f"{name}_std" in table]
        raise ValueError(f"the fits have no parameter {parameter!r} (they have {', '.join(known)})")
    value, std, places = table[parameter], table[f"{parameter}_std"], np.asarray(q)
    std = std * np.sqrt(np.maximum(table["chi2"] / np.maximum(table["dof"], 1), 1))
    good = np.asarray(fits.success) & ~_held(fits) & (value > 0) & (std > 0) & (std < value) & (places > 0)
    columns = np.flatnonzero(good)
    if len(columns) < 2:
        raise ValueError(
            f"{len(columns)} of {len(value)} q-bins have a {parameter} off all bounds with an error below its "
            "value, but a power law needs two: look at the fits of single bins first"
        )
    value, std, places = value[columns], std[columns], places[columns]
    pivot = np.exp(np.mean(np.log(places)))
    slope, level = np.polyfit(np.log(places / pivot), np.log(value), 1)
    noise = Diagonal(jnp.asarray(std / value))
    data = Dataset(jnp.asarray(places), jnp.log(jnp.asarray(value)), noise)
    law = Logarithm(PowerLaw(jnp.asarray(np.exp(level)), jnp.asarray(slope), jnp.asarray(pivot)))
    found = fit(law, data, throw=False)
    if float(found.reduced_chi2) > 1:
        found = fit(law, data, throw=False, scale_covariance=True)
    return Dispersion(data, noise, columns, found)


def _held(fits: BatchSolution) -> np.ndarray:
    """True for members with a parameter at a bound that is not fixed there."""
    held = np.zeros(len(fits), bool)
    for group, members in zip(fits.groups, fits.members, strict=True):
        held[members] = np.any((np.asarray(group.at_bound) != 0) & ~np.asarray(group.fixed), axis=1)
    return held
