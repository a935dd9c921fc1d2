"""A config of `task = "xpcs"` becomes measurements to be analysed, all read and checked.

Each `[[data]]` table is a measurement: a result file, or frames that are correlated first. What stands outside of them
belongs to all: `[fit]` says which model is fitted to g2 and how, `[posterior]` asks for samples, `[saxs]` for the
scattered intensity. A measurement may lay its own tables over these. The task calls `build_job`.
"""

import dataclasses
import importlib.util
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ...core import AbstractPrior, Unit, match, parameters
from ...fitting import flat_bounds, flat_priors, make_plan
from ...runs import (
    CLASS_ERRORS,
    Config,
    ConfigError,
    Job,
    Registry,
    check_keys,
    construct,
    first_line,
    flatten,
    shown,
    take,
)
from ...runs.fits import read_steps
from .._global import Curves
from .._models import AbstractG2
from .._result import XPCSResult
from ..io import check_layout, read_layout, read_result
from .detector import Frames, read_frames

_TOP = ("task", "title", "description", "fit", "posterior", "saxs", "layout", "data")
_OWN = ("fit", "posterior", "saxs", "layout")
_DETECTOR = ("frames", "dataset", "frame_time", "geometry", "mask", "partition", "correlate")
_DATA = ("name", "file", *_OWN, *_DETECTOR)
_FIT = ("model", "free", "shared", "bounds", "priors", "delays", "columns", "power_law", "truth", "max_steps")
_POSTERIOR = ("warmup", "draws", "chains", "seed", "target_accept")
_SAXS = ("background", "weight", "transmission", "flux", "normalise")
_STARTS = {"tau": 1.0, "tau_1": 1.0, "tau_2": 1.0, "D": 1.0}  # are read off the data


@dataclasses.dataclass(frozen=True)
class Fit:
    """How g2 is fitted.

    - `model`: whose values are those of the parameters that are not free. `free`, `shared`, `bounds`, `priors`,
      `max_steps`: as in `jaxsci.xpcs.fit_g2`. `delays`: the shortest and the longest that count, in s.
    - `columns`: places of the q-bins.
    - `law`: the parameter whose power law of q is fitted; empty for none. `truth`: known values by name.
    """

    model: AbstractG2
    free: tuple[str, ...] | None
    shared: tuple[str, ...]
    bounds: Mapping[str, tuple[Any, Any]]
    priors: Mapping[str, AbstractPrior]
    delays: tuple[float, float]
    columns: tuple[int, ...] | None
    law: str
    truth: Mapping[str, float]
    max_steps: int

    def curves(self, curves: Curves) -> Curves:
        """The curves and delays that are to be fitted."""
        some = curves if self.columns is None else curves.take(self.columns)
        return some.between(*self.delays)

    def places(self, curves: Curves) -> np.ndarray:
        """The columns of the measurement that are fitted."""
        return np.arange(curves.q.size) if self.columns is None else np.asarray(self.columns, int)


class Draws(NamedTuple):
    """How the posterior is sampled, by the names of a config."""

    warmup: int = 500
    draws: int = 1000
    chains: int = 4
    seed: int = 0
    target_accept: float = 0.8


@dataclasses.dataclass(frozen=True)
class Saxs:
    """What becomes of the scattered intensity.

    - `background`: what is subtracted, `weight` times. `transmission`, `flux`: of the sample and of the background.
    - `normalise`: as in `jaxsci.xpcs.normalise`.
    """

    background: XPCSResult | None
    weight: float
    transmission: tuple[float, float]
    flux: tuple[float, float]
    normalise: str


@dataclasses.dataclass(frozen=True)
class Measurement:
    """A measurement of a job: what was read, or the frames to be correlated, and what is to be done with it."""

    name: str
    source: str
    given: XPCSResult | Frames
    fit: Fit | None
    posterior: Draws | None
    saxs: Saxs | None

    @property
    def what(self) -> str:
        """The model of g2, or that it is about scattering alone."""
        return "scattering" if self.fit is None else type(self.fit.model).__name__

    @property
    def size(self) -> str:
        """How large it is, in words."""
        if isinstance(self.given, Frames):
            return self.given.size
        n, q = self.given.curves.g2.shape
        return f"{n} delays, {q} q-bins"


def build_job(config: Config, registry: Registry) -> Job[Measurement]:
    """Read and check all measurements of a config.

    **Raises:** `ConfigError` naming table and key.
    """
    tables = config.tables
    check_keys(tables, (*_TOP, *_DETECTOR), "")
    entries = take(tables, "data", list, "", [])
    if not entries:
        raise ConfigError("data", "there is nothing to analyse: give at least one [[data]] table with a file or frames")
    members = tuple(_member(entry, f"data[{k}]", config, registry) for k, entry in enumerate(entries))
    names = [member.name for member in members]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise ConfigError("data", f"two measurements are called {twice!r}: give each a name of its own")
    title = take(tables, "title", str, "", config.path.stem)
    return Job(title, take(tables, "description", str, "", ""), members)


def _member(entry: object, where: str, config: Config, registry: Registry) -> Measurement:
    if not isinstance(entry, dict):
        raise ConfigError(where, f"should be a table, but it is {shown(entry)}")
    check_keys(entry, _DATA, where)
    outer = {key: value for key, value in config.tables.items() if key in (*_OWN, *_DETECTOR)}
    table = _laid_over(outer, entry)
    given = _given(entry, table, where, config, registry)
    fit = take(table, "fit", dict, where)
    draws = take(table, "posterior", dict, where)
    saxs = take(table, "saxs", dict, where)
    if fit is None and saxs is None:
        raise ConfigError(where, "says nothing of what is to be done: give a table [fit], or [saxs]")
    if draws is not None and fit is None:
        raise ConfigError("posterior", "a posterior needs a fit: give a table [fit] too")
    file = str(entry.get("file", entry.get("frames", "")))
    return Measurement(
        name=take(entry, "name", str, where, Path(file).stem),
        source=file,
        given=given,
        fit=None if fit is None else _fit(fit, given, "fit", registry),
        posterior=None if draws is None else _posterior(draws, "posterior"),
        saxs=None if saxs is None else _saxs(saxs, table, "saxs", config),
    )


def _laid_over(outer: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """Tables of a measurement over those of all, key by key; what is no table replaces."""
    merged = dict(outer)
    for key, value in own.items():
        known = merged.get(key)
        merged[key] = {**known, **value} if isinstance(known, dict) and isinstance(value, dict) else value
    return merged


def _given(
    entry: Mapping[str, Any], table: Mapping[str, Any], where: str, config: Config, registry: Registry
) -> XPCSResult | Frames:
    if ("file" in entry) == ("frames" in entry):
        raise ConfigError(where, 'needs either file = "..." of a result, or frames = "..." to be correlated')
    if "frames" in entry:
        return read_frames(table, where, config, registry)
    return _read(take(entry, "file", str, where), table, f"{where}.file", config)


def _read(name: str, table: Mapping[str, Any], where: str, config: Config) -> XPCSResult:
    path = config.resolve(name, where)
    layout = take(table, "layout", (str, dict), "")
    try:
        if isinstance(layout, str):
            places = read_layout(config.resolve(layout, "layout"))
        else:
            places = check_layout(layout or {}, "layout")
        return read_result(path, places, within=config.within)
    except CLASS_ERRORS as error:
        if isinstance(error, ConfigError):
            raise
        raise ConfigError(where, first_line(error)) from error


def _fit(table: Mapping[str, Any], given: XPCSResult | Frames, where: str, registry: Registry) -> Fit:
    check_keys(table, _FIT, where)
    model = construct(table.get("model", "StretchedExponential"), "models", registry, f"{where}.model", _STARTS)
    law = take(table, "power_law", str, where, "")
    free = _names(table, "free", where)
    found = Fit(
        model=model,
        free=_others(model, table.get("model"), where) if free is None else free,
        shared=_names(table, "shared", where) or (),
        bounds=_bounds(table, where),
        priors=_priors(table, where, registry),
        delays=_delays(table, where),
        columns=_columns(table, given, where),
        law=law,
        truth=_truth(table, where),
        max_steps=read_steps(table, where, 400),
    )
    _check_names(found, where)
    return found


def _others(model: AbstractG2, spec: object, where: str) -> tuple[str, ...] | None:
    """The parameters that are free where nothing is said: all, less those whose values are given."""
    given = set(flatten({key: value for key, value in spec.items() if key != "type"})) if isinstance(spec, dict) else ()
    every = tuple(parameters(model))
    free = tuple(name for name in every if name not in given)
    if not free:
        raise ConfigError(f"{where}.model", "gives all parameters, which holds them: name those to fit in free = [...]")
    return None if len(free) == len(every) else free


def _check_names(fit: Fit, where: str) -> None:
    """Raise `ConfigError` for names that the model does not have."""
    for key, names in (("free", fit.free), ("shared", fit.shared)):
        if names:
            try:
                match(fit.model, names)
            except ValueError as error:
                raise ConfigError(f"{where}.{key}", first_line(error)) from error
    if fit.shared and fit.free is not None:
        held = set(match(fit.model, fit.shared)) - set(match(fit.model, fit.free))
        if held:
            raise ConfigError(
                f"{where}.shared", f"{', '.join(sorted(held))} is held, not free: name it in free = [...] too"
            )
    plan = make_plan(fit.model, Unit(), fit.free)
    try:
        flat_bounds(plan, fit.bounds)
    except CLASS_ERRORS as error:
        raise ConfigError(f"{where}.bounds", first_line(error)) from error
    try:
        flat_bounds(plan, fit.bounds, fit.priors)
        flat_priors(plan, fit.priors)
    except CLASS_ERRORS as error:
        raise ConfigError(f"{where}.priors", first_line(error)) from error
    if fit.law and fit.law not in plan.names:
        raise ConfigError(f"{where}.power_law", f"no free parameter is called {fit.law!r} ({', '.join(plan.names)})")


def _names(table: Mapping[str, Any], key: str, where: str) -> tuple[str, ...] | None:
    names = take(table, key, (str, list), where)
    if names is None or isinstance(names, str):
        return None if names is None else (names,)
    if not all(isinstance(name, str) for name in names):
        raise ConfigError(f"{where}.{key}", f'should be a list of names, such as ["tau"], but it is {shown(names)}')
    return tuple(names)


def _bounds(table: Mapping[str, Any], where: str) -> dict[str, tuple[Any, Any]]:
    bounds = flatten(take(table, "bounds", dict, where, {}))
    for name, pair in bounds.items():
        if not isinstance(pair, list) or len(pair) != 2:
            raise ConfigError(f"{where}.bounds.{name}", f"should be [lower, upper], but it is {shown(pair)}")
    return {name: (pair[0], pair[1]) for name, pair in bounds.items()}


def _priors(table: Mapping[str, Any], where: str, registry: Registry) -> dict[str, AbstractPrior]:
    given = flatten(take(table, "priors", dict, where, {}))
    return {name: construct(spec, "priors", registry, f"{where}.priors.{name}") for name, spec in given.items()}


def _delays(table: Mapping[str, Any], where: str) -> tuple[float, float]:
    pair = take(table, "delays", list, where, [0.0, np.inf])
    if len(pair) != 2 or not all(isinstance(x, int | float) for x in pair) or not pair[0] < pair[1]:
        raise ConfigError(f"{where}.delays", f"should be [shortest, longest] in s, but it is {shown(pair)}")
    return float(pair[0]), float(pair[1])


def _columns(table: Mapping[str, Any], given: XPCSResult | Frames, where: str) -> tuple[int, ...] | None:
    columns = take(table, "columns", list, where)
    if columns is None:
        return None
    count = given.bins if isinstance(given, Frames) else given.curves.q.size
    bad = [k for k in columns if type(k) is not int or not 0 <= k < count]
    if bad or not columns:
        raise ConfigError(f"{where}.columns", f"should be places of q-bins from 0 to {count - 1}, but it is {columns}")
    return tuple(columns)


def _truth(table: Mapping[str, Any], where: str) -> dict[str, float]:
    truth = flatten(take(table, "truth", dict, where, {}))
    for name, value in truth.items():
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ConfigError(f"{where}.truth.{name}", f"should be a number, but it is {shown(value)}")
    return truth


def _posterior(table: Mapping[str, Any], where: str) -> Draws:
    check_keys(table, _POSTERIOR, where)
    if importlib.util.find_spec("numpyro") is None:
        raise ConfigError(where, "sampling takes numpyro: pip install 'jaxsci[sampling]', or leave this table out")
    default = Draws()
    warmup, draws, chains, seed = (take(table, key, int, where, getattr(default, key)) for key in _POSTERIOR[:4])
    for key, value in (("warmup", warmup), ("draws", draws), ("chains", chains)):
        if value < 1:
            raise ConfigError(f"{where}.{key}", f"should be 1 or more, but it is {value}")
    accept = take(table, "target_accept", float, where, default.target_accept)
    if not 0 < accept < 1:
        raise ConfigError(f"{where}.target_accept", f"should lie between 0 and 1, but it is {accept}")
    return Draws(warmup, draws, chains, seed, accept)


def _saxs(table: Mapping[str, Any], outer: Mapping[str, Any], where: str, config: Config) -> Saxs:
    from .._saxs import NORMALISATIONS

    check_keys(table, _SAXS, where)
    name = take(table, "background", str, where)
    how = take(table, "normalise", str, where, "none")
    if how not in NORMALISATIONS:
        raise ConfigError(f"{where}.normalise", f"should be one of {', '.join(NORMALISATIONS)}, but it is {how!r}")
    background = None if name is None else _read(name, outer, f"{where}.background", config)
    if background is not None and background.scattering is None:
        raise ConfigError(f"{where}.background", f"{name} has no scattering_1d to subtract")
    weight = float(take(table, "weight", (int, float), where, 1.0))
    return Saxs(background, weight, _pair(table, "transmission", where), _pair(table, "flux", where), how)


def _pair(table: Mapping[str, Any], key: str, where: str) -> tuple[float, float]:
    """Of the sample and of the background."""
    pair: Sequence[Any] = take(table, key, list, where, [1.0, 1.0])
    good = len(pair) == 2 and all(isinstance(x, int | float) and not isinstance(x, bool) and x > 0 for x in pair)
    if not good:
        raise ConfigError(f"{where}.{key}", f"should be [of the sample, of the background], but it is {shown(pair)}")
    return float(pair[0]), float(pair[1])
