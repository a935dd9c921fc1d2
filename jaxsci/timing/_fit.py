"""Fits of timing models by the core's fit, in the names and units of a par file.

The core fits flat vectors of offsets; a pulsar timer asks for F0 and DMX_0003 with all their digits. `timing.fit`
translates the names, frees a phase offset with everything, and returns a `TimingSolution` that answers in the par
file's terms. Which element of which array a name stands for is decided here, for `fit_array`, `stack` and the grids
too.
"""

import dataclasses
import os
from collections.abc import Mapping, Sequence
from decimal import Context, Decimal
from typing import Any, NamedTuple

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ..core import (
    AbstractLikelihood,
    Module,
    Parameter,
    describe,
    get,
    is_traced,
    notebook_text,
    parameters,
    readable,
    require_kind,
    suggest,
    traced,
    value_text,
)
from ..fitting import GaussNewton, Solution, Solver, as_names, fit as core_fit, judge, make_plan
from ..sampling import FitAndData, fit_of
from ._anchor import AnchoredTOAs, tied, warn_of_idle
from ._components import TimingNoise
from ._model import NOISE, TimingModel, counts_from_a_pulse, elements, limits, refuse_others
from ._toas import TOAs
from .io import load

_EXACT = Context(prec=40)
SOLVER = GaussNewton(rtol=1e-4, damping=1e-14, fine=1e-8)
"""Timing models are all but linear: full steps from the start, damped only where one fails, polished to some 1e-6 of a
standard error."""
_UNITS = {"F": "Hz/s", "DM": "pc cm^-3/yr"}


class Correlation(NamedTuple):
    """How two fitted parameters go together: PINT's names, and the correlation, from -1 to 1."""

    first: str
    second: str
    value: float


class TimingSolution(Module):
    """A fitted timing model, in PINT's names and units.

    - `fit`: the core's `Solution`, whose parameters are offsets from the par file's values. In a batch its arrays
      have the batch's size, the surplus fixed.
    - `start`: the model that was fitted. `names`: PINT's names of the free parameters.
    - `places`: where each of them is among the elements of `fit`.
    """

    fit: Solution
    start: TimingModel
    names: tuple[str, ...] = eqx.field(static=True)
    places: tuple[int, ...] = eqx.field(static=True)

    @property
    def alone(self) -> bool:
        """Say whether this is the fit of one pulsar from its par file, outside of any transformation of JAX."""
        return self.start.par is not None and self.fit.y.ndim == 1 and not is_traced(self.fit.y)

    @property
    def offsets(self) -> dict[str, Any]:
        """How far each free parameter is from the par file's value, in its unit, by PINT's name."""
        return self._of(self.fit.y)

    @property
    def exact(self) -> dict[str, Decimal]:
        """Fitted values with all the digits of the par file: F0 and epochs have more than a float64.

        **Raises:** `ValueError` inside a transformation and for a stack, whose values are float64.
        """
        par = self.start.par
        if par is None or not self.alone:
            raise ValueError("exact values are those of one pulsar outside of jax.jit and jax.vmap: here see .offsets")
        return {name: _EXACT.add(par.value(name), Decimal(offset)) for name, offset in self.offsets.items()}

    @property
    def values(self) -> dict[str, Any]:
        """Fitted values: RAJ in hours, DECJ, ELONG, ELAT, OM in degrees, epochs in MJD, else as in a par file.

        Numbers; inside a transformation and of a stack arrays, with `nan` where a pulsar has no such parameter.
        """
        if self.alone:
            return {name: float(value) for name, value in self.exact.items()}
        return {name: origin + self.offsets[name] for name, origin in self._origin().items()}

    @property
    def std(self) -> dict[str, Any]:
        """The standard error that each value has, in its unit (RAJ in hours); inf where the data say nothing of it.

        Of a stack 0 where a pulsar's fit holds it, `nan` where it has none.
        """
        std = self._of(self.fit.standard_errors)
        if self.alone:
            return std
        return {name: jnp.where(origin == origin, std[name], jnp.nan) for name, origin in self._origin().items()}

    def _of(self, elements: Float[Array, "*pulsars p"]) -> dict[str, Any]:
        """What each of the free parameters has of an array over all that the core's fit frees."""
        if not self.alone:
            return {name: elements[..., place] for name, place in zip(self.names, self.places, strict=True)}
        known = np.asarray(elements)
        return {name: float(known[place]) for name, place in zip(self.names, self.places, strict=True)}

    def _origin(self) -> dict[str, Any]:
        """The par file's value of each, rounded to a float64."""
        if self.start.par is not None:
            return {name: float(self.start.par.value(name)) for name in self.names}
        origin = self.start.origin
        assert origin is not None
        return {name: origin.values[..., k] for name, k in zip(self.names, origin.at(self.names), strict=True)}

    @property
    def units(self) -> dict[str, str]:
        """The unit that each value has, by PINT's name."""
        about = parameters(self.start)
        leaves = {pint: element.split("[")[0] for element, pint in elements(self.start)}
        return {name: _unit(name, leaves[name], about) for name in self.names}

    @property
    def chi2(self) -> Float[Array, "*pulsars"]:
        """r^T C^-1 r, which the fit made least: r the residuals, C the covariance of all noise."""
        return self.fit.chi2

    @property
    def dof(self) -> Any:
        """How many TOAs (and measured dispersions) there are beyond the free parameters and the phase offset."""
        return int(self.fit.dof) if self.alone else self.fit.dof

    @property
    def reduced_chi2(self) -> Any:
        """chi2 / dof, which is about 1 where model and noise describe the data."""
        return float(self.fit.reduced_chi2) if self.alone else self.fit.reduced_chi2

    @property
    def success(self) -> Any:
        """True where the fit converged."""
        return bool(self.fit.success) if self.alone else self.fit.success

    @property
    def aic(self) -> Any:
        """Akaike's information criterion 2 k - 2 ln L, k being the parameters determined, with the phase offset.

        -2 ln L = chi2 + ln|C| + n ln(2 pi), C being the covariance of all noise and n the number of TOAs (and measured
        dispersions): models of other noise can be compared too. PINT leaves n ln(2 pi) out, and where noise is
        correlated it gives the phase offset a prior, of variance 1e40 s^2.
        """
        return float(self.fit.aic) if self.alone else self.fit.aic

    @property
    def bic(self) -> Any:
        """Schwarz's information criterion k ln n - 2 ln L, as `aic`."""
        return float(self.fit.bic) if self.alone else self.fit.bic

    def correlations(self, above: float = 0.9) -> tuple[Correlation, ...]:
        """List the pairs of fitted parameters that go together, the closest first.

        **Arguments:** `above`: the least absolute correlation that is listed.

        **Returns:** a `Correlation` for each pair; those of a parameter that the data do not determine are left out.

        **Raises:** `ValueError` inside a transformation and for a stack.
        """
        if not self.alone:
            raise ValueError("correlations are listed of one pulsar outside of jax.jit and jax.vmap: see .fit")
        at = list(self.places)
        signed = np.asarray(self.fit.correlation)[np.ix_(at, at)]
        matrix = np.abs(signed)
        rows, columns = np.nonzero(np.triu(np.nan_to_num(matrix) > above, 1))
        order = np.argsort(-matrix[rows, columns], kind="stable")
        return tuple(
            Correlation(self.names[i], self.names[j], float(signed[i, j]))
            for i, j in zip(rows[order].tolist(), columns[order].tolist(), strict=True)
        )

    @property
    def noise(self) -> TimingNoise | None:
        """The noise with the parameters that were fitted; `None` where none was."""
        return self.fit.noise

    @property
    def model(self) -> TimingModel:
        """The fitted model; its offsets are from the par file that it carries."""
        # on the host at once: one transfer, not one for each parameter
        y = self.fit.y if is_traced(self.fit.y) else np.asarray(self.fit.y)
        places = {name: self.fit.names.index(name) for name in self.fit.names if name == "PHOFF"}
        places |= dict(zip(self.names, self.places, strict=True))
        return self.start.with_offsets({name: y[..., place] for name, place in places.items()})

    def summary(self) -> str:
        """Write a table of values and errors, and how good the fit is.

        **Raises:** `ValueError` inside a transformation and for a stack, as `exact`.
        """
        exact, std, units = self.exact, self.std, self.units
        rows = [f"{n:<12} {float(exact[n]):>24.16g} {std[n]:>12.3g}  {units[n]}" for n in self.names]
        head = f"chi2 {float(self.chi2):.3f} for {self.dof} degrees of freedom, {int(self.fit.num_data)} TOAs"
        return "\n".join([head, f"{'parameter':<12} {'value':>24} {'error':>12}  unit", *rows])

    def __repr__(self) -> str:
        return self.summary() if self._told else value_text(self)

    def _repr_html_(self) -> str:
        """The fitted values with the error of their last digits, for a notebook."""
        from ._task.noise import html_summary  # here, because that room's rows are made of solutions

        return html_summary(self) if self._told else notebook_text(repr(self))

    @property
    def _told(self) -> bool:
        """True for one pulsar whose numbers can be read: outside of a transformation, and all there."""
        return readable(self) and self.fit.y is not None and self.alone and self.start.par is not None


def _unit(name: str, leaf: str, about: Mapping[str, Parameter]) -> str:
    order = name.removeprefix(leaf)
    if leaf in _UNITS and order not in ("", "0"):
        return _UNITS[leaf] + ("" if order == "1" else f"^{order}")
    return about[leaf].unit


@fit_of.register
def _(solution: TimingSolution, data: object) -> FitAndData:
    """Its posterior has PINT's names, of offsets from the par file's values, in their units."""
    known = {solution.fit.names[place]: name for name, place in zip(solution.names, solution.places, strict=True)}
    return FitAndData(_renamed(solution.fit, known, ()), anchored(solution.start, data))


def bare(model: TimingModel) -> TimingModel:
    """The model without its par file and names, so that models of one shape share a compiled program."""
    require_kind(model, TimingModel, "model", "a TimingModel, the first of what timing.load gives")
    return dataclasses.replace(model, par=None, origin=None)


def fit(
    model: TimingModel | str | os.PathLike[str],
    toas: TOAs | AnchoredTOAs | str | os.PathLike[str],
    free: Sequence[str] | None = None,
    *,
    solver: Solver = SOLVER,
    throw: bool = True,
    strict: bool = False,
    scale_covariance: bool = False,
    **choices: Any,
) -> TimingSolution:
    """Fit a timing model: generalised least squares with all the noise of the par file.

    Without ECORR and red noise that is weighted least squares. A phase offset is fitted too, whatever is free; where
    the par file has a line PHOFF, only if that is free.

    Inside `jax.jit`, `jax.vmap` and `jax.grad` it takes anchored TOAs, which are arrays: those of `timing.stack`, for
    `jax.vmap` over pulsars, or those of `timing.anchor` of one. It can be differentiated by all that is in them, such
    as the noise, and by the parameters of the model that are not free. Give `throw=False` there.

    **Arguments:**

    - `model`: what `TimingModel.parse` or `timing.load` made of a par file, or the file itself.
    - `toas`: the times of arrival, or a tim file for `timing.load`; or what `timing.anchor` or `timing.stack` made of
      them and this model's par file.
    - `free`: PINT's names, such as `("F0", "F1", "DMX_0003")`; `None` for those that the par file flags. Names that
      begin with `noise.`, such as `"noise.EFAC"` or `"noise.TNREDAMP"`, free parameters of the noise too, by maximum
      likelihood; `solution.noise` is the noise found.
    - `scale_covariance`: True multiplies errors by sqrt(chi2 / dof), as tempo2 does; by default the errors of the TOAs,
      with the noise of the par file, are taken as they are.
    - `solver`, `throw`, `strict`, `choices`: as in `jaxsci.fit`.

    **Returns:** a `TimingSolution`.

    **Raises:** `ValueError` for wrong names or TOAs, and for noise that the par file does not have; `RuntimeError` when
    the fit fails, or without double precision.
    """
    if not isinstance(model, TimingModel):
        for name, given, kind in (("model", model, "TimingModel or a par file"), ("toas", toas, "TOAs or a tim file")):
            require_kind(given, (str, os.PathLike), name, f"{kind}: the model first, then the TOAs")
        model, toas = load(model, toas)  # type: ignore[arg-type]
    wanted = flags(model) if free is None else as_names(free)
    noisy = tuple(name for name in wanted if name.startswith(NOISE))
    names, places = chosen(model, tuple(name for name in wanted if name not in noisy))
    check_phase(model, names)
    data = anchored(model, toas)
    _check_noise(data.noise, noisy)
    inside = traced((model, data))
    idle = [] if inside else warn_of_idle(model, data, names)
    start = bare(model)
    fitted = (*places, *offset_of(model))
    # the core frees whole arrays; elements that are not wanted are held below
    leaves = tuple(dict.fromkeys(place.split("[")[0] for place in fitted))
    leaves += noisy
    plan = make_plan(start, data.noise, leaves)
    bounds = {name: pair for name, pair in limits(model).items() if name in leaves}
    bounds |= choices.pop("bounds", None) or {}
    choices |= {"free": leaves, "bounds": bounds or None, "solver": solver, "scale_covariance": scale_covariance}
    choices |= {"active": active(model, plan.names, fitted, None if free is None else names)}
    # outside of a transformation the message comes below, with PINT's names in place of elements
    solution = core_fit(start, data, throw=throw and inside, **choices)
    if throw and not inside:
        known = dict(zip(places, names, strict=True))
        judge(_renamed(solution, known, idle), start, data, choices.get("likelihood"), strict)
    return TimingSolution(solution, model, names, tuple(plan.names.index(place) for place in places))


def anchored(model: TimingModel, toas: object) -> AnchoredTOAs:
    """TOAs as a fit needs them, which they may be already.

    **Raises:** `ValueError` for anything else, for TOAs that were anchored to another par file, and for a stack outside
    of `jax.vmap`.
    """
    if isinstance(toas, TOAs):
        return tied(model, toas)[0]
    if not isinstance(toas, AnchoredTOAs):
        raise ValueError(f"toas should be TOAs, as timing.load gives them with the model, not {describe(toas)}")
    if jnp.ndim(toas.mask) != 1:
        raise ValueError("these are the TOAs of several pulsars: use jax.vmap, or give timing.fit_array all pulsars")
    if toas.par is not None and model.par is not None and toas.par != model.par:
        raise ValueError("these TOAs were anchored to another par file than the model's: anchor them to this model")
    # without it pulsars of one shape share a compiled program
    return toas if toas.par is None else dataclasses.replace(toas, par=None)


def flags(model: TimingModel) -> tuple[str, ...]:
    """PINT's names of what a par file flags, in a stack of what any does."""
    if model.origin is not None:
        return model.origin.flags
    return () if model.par is None else model.par.free


def active(
    model: TimingModel, elements: Sequence[str], fitted: Sequence[str], names: Sequence[str] | None
) -> Array | None:
    """Which elements a fit moves, those `fitted` and noise; `None` for all.

    In a stack those that this pulsar has, and without `names` has flagged.
    """
    if model.origin is not None:
        return jnp.asarray(model.origin.frees(elements, names))
    moves = np.isin(elements, fitted) | [name.startswith(NOISE) for name in elements]
    return None if moves.all() else jnp.asarray(moves)


def _renamed(solution: Solution, known: Mapping[str, str], told: Sequence[str]) -> Solution:
    """With PINT's names, as determined in what is `told` of already."""
    names = tuple(known.get(name, name) for name in solution.names)
    return dataclasses.replace(solution, names=names, determined=solution.determined | np.isin(names, told))


def chosen(model: TimingModel, free: Sequence[str] | None) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """(PINT's names of what is free, their names as elements of the model), in the order of the model.

    **Raises:** `ValueError` for a name that the model does not have.
    """
    known = {pint: name for name, pint in elements(model) if pint not in offset_of(model)}
    wanted = flags(model) if free is None else as_names(free)
    refuse_others(wanted, known)
    names = tuple(name for name in known if name in wanted)
    return names, tuple(known[name] for name in names)


def offset_of(model: TimingModel) -> tuple[str, ...]:
    """The phase offset, which a fit frees unless the par file has it as a line."""
    return () if fixed_phase(model) else ("PHOFF",)


def check_phase(model: TimingModel, names: Sequence[str]) -> None:
    """Raise `ValueError` for a PHOFF that is held where it counts from a pulse, which moves with the model."""
    if "PHOFF" not in names and counts_from_a_pulse(model):
        raise ValueError(
            "PHOFF is not to be fitted, but it counts from the pulse of TZRMJD, which a fit would move: free it, or "
            "leave PHOFF out of the par file"
        )


def noise_there(noise: AbstractLikelihood) -> dict[str, bool]:
    """{parameter of the noise, such as `EFAC`: True where the par file has it}."""
    if not isinstance(noise, TimingNoise):
        return {}
    found = {name: get(noise, name).size > 0 for name in parameters(noise)}
    return found | {name: bool(noise.frequency.size) for name in ("TNREDAMP", "TNREDGAM")}


def _check_noise(noise: AbstractLikelihood, wanted: Sequence[str]) -> None:
    """Raise `ValueError` for noise that should be fitted and that the par file does not have."""
    there = noise_there(noise)
    for name in (name.removeprefix("noise.") for name in wanted):
        if not there.get(name, True):
            known = [other for other, is_there in there.items() if is_there]
            has = f"it has {', '.join(known)}" if known else "it has no noise"
            raise ValueError(f"the par file has no {name}, which should be fitted{suggest(name, known)} ({has})")


def fixed_phase(model: TimingModel) -> bool:
    """True where the par file says by a PHOFF what phase 0 is: the offset is a parameter like others then."""
    if model.origin is not None:
        return model.origin.fixed_phase
    return model.par is not None and model.par.find("PHOFF") is not None


def residuals(model: TimingModel, toas: TOAs) -> Float[Array, " n"]:
    """Compute the timing residuals of a model, s, less their weighted mean, in the order of the TOAs.

    They are positive when a pulse comes late, and those of PINT's `Residuals.time_resids`: where the par file has a
    PHOFF, the mean stays.

    **Arguments:** `model`: with its par file; `toas`: n times of arrival.

    **Returns:** seconds, shape (n,).

    **Raises:** `ValueError` for TOAs that make no sense, flags that no TOA has, and a model without its par file.
    """
    data, order = tied(model, toas)
    timed = slice(len(toas))  # rows that measure dispersion come after them
    values = np.asarray(_residual(bare(model), data))[timed]
    noise = data.noise
    assert isinstance(noise, TimingNoise)
    # the white part alone, as in PINT: it is a mean to look at, no estimate
    weight = 1 / np.asarray(noise.variance())[timed]
    mean = 0.0 if fixed_phase(model) else np.sum(weight * values) / np.sum(weight)
    out = np.empty_like(values)
    out[order] = values - mean
    return jnp.asarray(out)


@eqx.filter_jit
def _residual(model: TimingModel, data: AnchoredTOAs) -> Array:
    return model.residual(data)
