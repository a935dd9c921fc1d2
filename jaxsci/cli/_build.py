"""A config becomes a job: members (a model at its start, and data), and how each is to be fitted."""

import dataclasses
import json
import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import jax.tree_util as jtu

from ..core import AbstractLoss, AbstractModel, Dataset, Diagonal, Linear, Normal, White, put
from ..core._parameter import as_float
from ..curvefit._nist import NistProblem
from ..fitting import TRF, fit
from ..fitting._plan import flat_bounds, flat_priors, make_plan
from ._config import Config, check_keys, flatten, shown, take
from ._construct import construct
from ._errors import CLASS_ERRORS, ConfigError
from ._load import read_nist, read_table
from ._registry import Registry

_TOP = ("task", "title", "description", "fit", "model", "data")
_FIT = ("solver", "loss", "free", "bounds", "priors", "max_steps", "scale_covariance")
_MEMBER_FIT = ("free", "bounds", "priors")
_DATA = (
    "name",
    "file",
    "columns",
    "x",
    "y",
    "sigma",
    "noise",
    "model",
    "start",
    "starts",
    "reference",
    "omit_nonfinite",
    *_MEMBER_FIT,
)


@dataclasses.dataclass(frozen=True)
class Settings:
    """How to fit: the keyword arguments of `jaxsci.fit`. Members with the same `key` may share one program."""

    solver: Any = dataclasses.field(default_factory=TRF)
    loss: AbstractLoss = dataclasses.field(default_factory=Linear)
    free: tuple[str, ...] | None = None
    bounds: Mapping[str, tuple[float, float]] | None = None
    priors: Mapping[str, Normal] | None = None
    max_steps: int = 200
    scale_covariance: bool | None = None
    key: str = ""

    def arguments(self) -> dict[str, Any]:
        """For `jaxsci.fit(model, data, **arguments)`."""
        return {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.name != "key"}


@dataclasses.dataclass(frozen=True)
class Reference:
    """Known answers to compare with: values, and standard errors where they are known."""

    values: Mapping[str, float]
    std: Mapping[str, float]


@dataclasses.dataclass(frozen=True)
class Member:
    """One fit of a job. `labels` are the names of the inputs and of the observations, for plots."""

    name: str
    model: AbstractModel
    data: Dataset
    settings: Settings
    source: str
    labels: tuple[str, str]
    reference: Reference | None


@dataclasses.dataclass(frozen=True)
class Job:
    """All that a config asks for."""

    title: str
    description: str
    members: tuple[Member, ...]


@dataclasses.dataclass(frozen=True)
class _Source:
    """The data of one `[[data]]` table, and what its file knows beside them."""

    dataset: Dataset
    labels: tuple[str, str]
    text: str
    starts: tuple[Mapping[str, Any], ...] = ({},)
    reference: Reference | None = None


def build_job(config: Config, registry: Registry) -> Job:
    """Build and check everything that a config describes, without fitting.

    **Raises:** `ConfigError` naming table and key.
    """
    tables = config.tables
    check_keys(tables, _TOP, "")
    if take(tables, "task", str, "", "curvefit") != "curvefit":
        raise ConfigError("task", f'should be "curvefit", but it is {shown(tables["task"])}')
    table = take(tables, "fit", dict, "", {})
    check_keys(table, _FIT, "fit")
    settings = _settings(table, registry)
    entries = take(tables, "data", list, "", [])
    if not entries:
        raise ConfigError("data", "there is nothing to fit: give at least one [[data]] table")
    members: list[Member] = []
    for k, entry in enumerate(entries):
        members += _members(entry, k, settings, config, registry)
    _unique([member.name for member in members])
    title = take(tables, "title", str, "", config.path.stem)
    return Job(title, take(tables, "description", str, "", ""), tuple(members))


def _settings(table: dict[str, Any], registry: Registry) -> Settings:
    plain = Settings()
    steps = take(table, "max_steps", int, "fit", plain.max_steps)
    if steps < 1:
        raise ConfigError("fit.max_steps", f"should be 1 or more, but it is {steps}")
    settings = dataclasses.replace(
        plain,
        solver=construct(table.get("solver", "TRF"), "solvers", registry, "fit.solver"),
        loss=construct(table.get("loss", "Linear"), "losses", registry, "fit.loss"),
        max_steps=steps,
        scale_covariance=take(table, "scale_covariance", bool, "fit"),
    )
    return _choices(table, settings, registry, "fit")


def _choices(table: dict[str, Any], settings: Settings, registry: Registry, where: str) -> Settings:
    """The settings with the names freed, the bounds and the priors of a table, which win over those of `[fit]`."""
    own = {key: table[key] for key in _MEMBER_FIT if key in table}
    if not own:
        return settings
    free = take(table, "free", list, where)
    if free is not None and not all(isinstance(name, str) for name in free):
        raise ConfigError(f"{where}.free", f'should be a list of names, such as ["tau"], but it is {shown(free)}')
    bounds = {k: _bound(v, f"{where}.bounds.{k}") for k, v in flatten(take(table, "bounds", dict, where, {})).items()}
    priors = {
        name: construct(prior, "priors", registry, f"{where}.priors.{name}")
        for name, prior in flatten(take(table, "priors", dict, where, {})).items()
    }
    return dataclasses.replace(
        settings,
        free=settings.free if free is None else tuple(free),
        bounds={**(settings.bounds or {}), **bounds} or None,
        priors={**(settings.priors or {}), **priors} or None,
        key=settings.key + json.dumps(own, sort_keys=True, default=str),
    )


def _bound(value: Any, where: str) -> tuple[float, float]:
    numbers = isinstance(value, list) and len(value) == 2 and all(map(_number, value))
    if not numbers:
        raise ConfigError(where, f"should be [lower, upper], with inf for no bound, but it is {shown(value)}")
    return float(value[0]), float(value[1])


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and not math.isnan(value)


def _members(entry: Any, k: int, settings: Settings, config: Config, registry: Registry) -> list[Member]:
    where = f"data[{k}]"
    if not isinstance(entry, dict):
        raise ConfigError(where, f"should be a table, but it is {shown(entry)}")
    check_keys(entry, _DATA, where)
    source = _source(entry, where, config, registry)
    reference = _reference(entry, where) or source.reference
    spec, at = (entry["model"], f"{where}.model") if "model" in entry else (config.tables.get("model"), "model")
    if spec is None:
        raise ConfigError(where, "it has no model, and there is no [model] for all members")
    settings = _choices(entry, settings, registry, where)
    name = take(entry, "name", str, where, source.text.rpartition("/")[2].rpartition(".")[0] or f"data {k}")
    starts = _starts(entry, where) or source.starts
    members = []
    for s, start in enumerate(starts):
        start_at = f"{where}.starts[{s}]" if "starts" in entry else f"{where}.start"
        model = _model(spec, at, start, start_at, registry)
        title = name if len(starts) == 1 else f"{name}, start {s + 1}"
        member = Member(title, model, source.dataset, settings, source.text, source.labels, reference)
        _check(member, where)
        members.append(member)
    return members


def _starts(entry: dict[str, Any], where: str) -> tuple[Mapping[str, Any], ...]:
    """The start values that a data table gives: one table, or a list of tables for a fit from each."""
    if "start" in entry and "starts" in entry:
        raise ConfigError(f"{where}.starts", "give either start or starts, not both")
    starts = take(entry, "starts", list, where, [])
    if any(not isinstance(start, dict) for start in starts) or ("starts" in entry and not starts):
        raise ConfigError(f"{where}.starts", "should be a list of tables, such as [{ tau = 1.0 }, { tau = 5.0 }]")
    start = take(entry, "start", dict, where)
    return tuple(map(flatten, starts if start is None else [start]))


def _model(spec: Any, where: str, start: Mapping[str, Any], start_at: str, registry: Registry) -> AbstractModel:
    """The model with its start values, which may also stand in for arguments of its constructor."""
    model = construct(spec, "models", registry, where, defaults=start)
    try:
        return put(model, start)
    except (TypeError, ValueError) as error:
        raise ConfigError(start_at, str(error)) from error


def _source(entry: dict[str, Any], where: str, config: Config, registry: Registry) -> _Source:
    if "file" not in entry:
        return _inline(entry, where, registry)
    for key in ("x", "y", "sigma"):
        if key in entry:
            raise ConfigError(f"{where}.{key}", "the data come from a file already; name its columns in `columns`")
    name = take(entry, "file", str, where)
    path = config.resolve(name, f"{where}.file")
    if path.suffix.lower() != ".dat":
        return _columns(entry, path, where, name, registry)
    if "columns" in entry:
        raise ConfigError(f"{where}.columns", "a NIST file (.dat) has no named columns")
    return _nist(read_nist(path, f"{where}.file"), entry, name, where, registry)


def _nist(problem: NistProblem, entry: dict[str, Any], name: str, where: str, registry: Registry) -> _Source:
    data = _dataset(list(problem.x), list(problem.y), None, entry, where, registry)
    reference = Reference(problem.values, problem.std)
    return _Source(data, (problem.predictor, problem.response), name, problem.starts, reference)


def _inline(entry: dict[str, Any], where: str, registry: Registry) -> _Source:
    for key in ("x", "y"):
        if key not in entry:
            raise ConfigError(where, "it has no data: give a file, or lists x and y")
    x, y = take(entry, "x", list, where), take(entry, "y", list, where)
    sigma = take(entry, "sigma", (list, int, float), where)
    x = tuple(x) if x and all(isinstance(column, list) for column in x) else x
    return _Source(_dataset(x, y, sigma, entry, where, registry), ("x", "y"), "")


def _columns(entry: dict[str, Any], path: Any, where: str, name: str, registry: Registry) -> _Source:
    """Columns of a text table: `columns = { x = "time", y = "counts", sigma = "error" }`; x may be a list of names."""
    table = read_table(path, f"{where}.file")
    columns = take(entry, "columns", dict, where, {})
    at = f"{where}.columns"
    check_keys(columns, ("x", "y", "sigma"), at)
    x, y = take(columns, "x", (str, list), at, "x"), take(columns, "y", str, at, "y")
    sigma = take(columns, "sigma", str, at, "sigma" if "sigma" in table.columns else None)
    names = [x] if isinstance(x, str) else x
    inputs = [table.column(column, f"{at}.x") for column in names]
    errors = None if sigma is None else table.column(sigma, f"{at}.sigma")
    observed = table.column(y, f"{at}.y")
    data = _dataset(inputs[0] if isinstance(x, str) else tuple(inputs), observed, errors, entry, where, registry)
    return _Source(data, (", ".join(names), y), name)


def _dataset(x: Any, y: Any, sigma: Any, entry: dict[str, Any], where: str, registry: Registry) -> Dataset:
    """The data with their noise: `sigma` (one number, or one a row), or a `noise` table, or neither."""
    if sigma is not None and "noise" in entry:
        raise ConfigError(f"{where}.noise", "the noise is given twice: by sigma, and here")
    try:
        noise = (
            White(as_float(sigma))
            if isinstance(sigma, int | float)
            else None
            if sigma is None
            else Diagonal(as_float(sigma))
        )
        if "noise" in entry:
            defaults = {"counts": y}  # Poisson's counts are the observations
            noise = construct(entry["noise"], "noises", registry, f"{where}.noise", defaults=defaults)
        data = Dataset(x, y, noise)
        return data if not take(entry, "omit_nonfinite", bool, where, False) else _finite_rows(data)
    except ConfigError:
        raise
    except (TypeError, ValueError) as error:
        raise ConfigError(where, str(error)) from error


def _finite_rows(data: Dataset) -> Dataset:
    """The data with the rows masked where an input, the observation or a sigma is not finite."""
    rows = [*jtu.tree_leaves(data.inputs), data.observed]
    if isinstance(data.noise, Diagonal):
        rows.append(data.noise.sigma)
    mask = jnp.all(jnp.isfinite(jnp.stack(rows)), axis=0)
    return Dataset(data.inputs, data.observed, data.noise, mask)


def _reference(entry: dict[str, Any], where: str) -> Reference | None:
    """`reference = { tau = 3.0 }`, or `{ tau = { value = 3.0, std = 0.1 } }`."""
    given = take(entry, "reference", dict, where)
    if given is None:
        return None
    values, std = {}, {}
    for name, known in given.items():
        pair = known if isinstance(known, dict) else {"value": known}
        at = f"{where}.reference.{name}"
        check_keys(pair, ("value", "std"), at)
        if not _number(pair.get("value")) or not _number(pair.get("std", 0.0)):
            raise ConfigError(at, f"should be a number, or {{ value = ..., std = ... }}, but it is {shown(known)}")
        values[name] = float(pair["value"])
        if "std" in pair:
            std[name] = float(pair["std"])
    return Reference(values, std)


def _check(member: Member, where: str) -> None:
    """Names, bounds, priors, and the shape of the model's prediction: all that can be known without a fit."""
    settings, model, data = member.settings, member.model, member.data
    try:
        plan = make_plan(model, data.noise, settings.free)
        flat_bounds(plan, settings.bounds)
        flat_priors(plan, settings.priors)
    except ValueError as error:
        raise ConfigError(f"{where} ({member.name})", str(error)) from error
    try:
        jax.eval_shape(lambda m, d: d.residual(m), model, data)
        if not isinstance(settings.loss, Linear) or plan.noise:
            jax.eval_shape(lambda m, d: fit(m, d, throw=False, **settings.arguments()), model, data)
    except CLASS_ERRORS as error:
        raise ConfigError(f"{where} ({member.name})", str(error).strip().split("\n")[0]) from error


def _unique(names: list[str]) -> None:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise ConfigError("data", f"two members are called {name!r}: give each a name of its own")
        seen.add(name)
