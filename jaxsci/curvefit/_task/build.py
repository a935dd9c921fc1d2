"""A config of curve fits becomes a job: members (a model at its start, and data), and how each is to be fitted.

Everything is checked that can be known without fitting: names, bounds, priors, and that the model can be called on the
data. The task calls `build_job`, for `jaxsci check` as for `jaxsci run`.
"""

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import jax.tree_util as jtu

from ...core import AbstractLoss, AbstractModel, AbstractPrior, Linear, Tied, class_name, put, suggest
from ...datasets import AbstractDataset, Dataset, StreamedDataset
from ...fitting import TRF, check, flat_bounds, flat_priors, make_plan
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
from .estimate import ESTIMATE, estimated
from .sources import Reference, Source, read_source

_TOP = ("task", "title", "description", "fit", "model", "data")
_FIT = ("solver", "loss", "free", "bounds", "priors", "ties", "max_steps", "scale_covariance")
_MEMBER_FIT = ("free", "bounds", "priors", "ties")
_DATA = (
    "name",
    "file",
    "stream",
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
    """How to fit members, as `jaxsci.fit` is told it; those with the same `key` may share one program."""

    solver: Any = dataclasses.field(default_factory=TRF)
    loss: AbstractLoss = dataclasses.field(default_factory=Linear)
    free: tuple[str, ...] | None = None
    bounds: Mapping[str, tuple[float, float]] | None = None
    priors: Mapping[str, AbstractPrior] | None = None
    max_steps: int = 200
    scale_covariance: bool | None = None
    ties: Mapping[str, str] = dataclasses.field(default_factory=dict)
    key: str = ""

    def arguments(self) -> dict[str, Any]:
        """For `jaxsci.fit(model, data, **arguments)`; `ties` are in the model."""
        return {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.name not in ("key", "ties")}

    def tied(self, model: AbstractModel, where: str) -> AbstractModel:
        """The model with the ties of these settings."""
        try:
            return Tied(model, self.ties) if self.ties else model
        except ValueError as error:
            raise ConfigError(f"{where}.ties", str(error)) from error


@dataclasses.dataclass(frozen=True)
class Member:
    """One fit of a job.

    - `labels`: names of the inputs and of the observations, for figures. `image`: (height, width) of an image.
    - `sample`: the rows that figures show, where those are not all.
    """

    name: str
    model: AbstractModel
    data: AbstractDataset
    settings: Settings
    source: str
    labels: tuple[str, str]
    reference: Reference | None = None
    image: tuple[int, int] | None = None
    sample: Dataset | None = None

    @property
    def what(self) -> str:
        """The name of its model's class."""
        return class_name(self.model)

    @property
    def kind(self) -> Any:
        """Equal for members that share settings, structure and dtypes, lengths aside."""
        leaves, structure = jtu.tree_flatten((self.model, self.data))
        kinds = tuple((jnp.shape(leaf)[1:], jnp.ndim(leaf), jnp.result_type(leaf)) for leaf in leaves)
        return self.settings.key, structure, kinds

    def on_device(self) -> tuple[AbstractModel, AbstractDataset]:
        """Model and data as arrays of the device: those of a large batch stay with the host until they are needed."""
        return jtu.tree_map(jnp.asarray, (self.model, self.data))


def build_job(config: Config, registry: Registry) -> Job[Member]:
    """Build and check everything that a config describes, without fitting.

    **Raises:** `ConfigError` naming table and key.
    """
    tables = config.tables
    check_keys(tables, _TOP, "")
    table = take(tables, "fit", dict, "", {})
    check_keys(table, _FIT, "fit")
    settings = _settings(table, registry)
    entries = take(tables, "data", list, "", [])
    if not entries:
        raise ConfigError("data", "there is nothing to fit: give at least one [[data]] table")
    members: list[Member] = []
    for k, entry in enumerate(entries):
        members += _members(entry, k, settings, config, registry)
    if "model" in tables and all("model" in entry for entry in entries):
        raise ConfigError("model", "no [[data]] table uses it: each has a model of its own")
    _unique([member.name for member in members])
    title = take(tables, "title", str, "", config.path.stem)
    return Job(title, take(tables, "description", str, "", ""), tuple(members))


def _settings(table: dict[str, Any], registry: Registry) -> Settings:
    plain = Settings()
    settings = dataclasses.replace(
        plain,
        solver=construct(table.get("solver", "TRF"), "solvers", registry, "fit.solver"),
        loss=construct(table.get("loss", "Linear"), "losses", registry, "fit.loss"),
        max_steps=read_steps(table, "fit", plain.max_steps),
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
        name: _prior(prior, f"{where}.priors.{name}", registry)
        for name, prior in flatten(take(table, "priors", dict, where, {})).items()
    }
    ties = flatten(take(table, "ties", dict, where, {}))
    for name, formula in ties.items():
        if not isinstance(formula, str):
            raise ConfigError(f"{where}.ties.{name}", f"should be a formula as a text, but it is {shown(formula)}")
    return dataclasses.replace(
        settings,
        ties={**settings.ties, **ties},
        free=settings.free if free is None else tuple(free),
        bounds={**(settings.bounds or {}), **bounds} or None,
        priors={**(settings.priors or {}), **priors} or None,
        key=settings.key + json.dumps(own, sort_keys=True, default=str),
    )


def _prior(spec: object, where: str, registry: Registry) -> AbstractPrior:
    prior: AbstractPrior = construct(spec, "priors", registry, where)
    return prior


def _bound(value: object, where: str) -> tuple[float, float]:
    if not (isinstance(value, list) and len(value) == 2 and all(map(_number, value))):
        raise ConfigError(where, f"should be [lower, upper], with inf for no bound, but it is {shown(value)}")
    return float(value[0]), float(value[1])


def _number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and not math.isnan(value)


def _members(entry: object, k: int, settings: Settings, config: Config, registry: Registry) -> list[Member]:
    where = f"data[{k}]"
    if not isinstance(entry, dict):
        raise ConfigError(where, f"should be a table, but it is {shown(entry)}")
    check_keys(entry, _DATA, where)
    source = read_source(entry, where, config, registry)
    spec, at = (entry["model"], f"{where}.model") if "model" in entry else (config.tables.get("model"), "model")
    if spec is None:
        raise ConfigError(where, "it has no model, and there is no [model] for all members")
    settings = _choices(entry, settings, registry, where)
    known = _reference(entry, where)
    reference = known or source.reference
    name = take(entry, "name", str, where, source.text.rpartition("/")[2].rpartition(".")[0] or f"data {k}")
    members, kinds = [], set()
    for title, model, p in _started(name, spec, at, source, entry, where, registry):
        part = source.parts[p]
        model = settings.tied(model, where if "ties" in entry else "fit")
        sample = None if part.sample is part.data else part.sample
        member = Member(
            title, model, part.data, settings, source.text, source.labels, reference, source.image, sample
        )  # fmt: skip
        if member.kind not in kinds:  # a check costs as much as a small fit, and like members are alike in it
            _check(member, where)
            kinds.add(member.kind)
            if known is not None:
                _check_reference(known, member, where)
        members.append(member)
    return members


def _started(
    name: str, spec: object, at: str, source: Source, entry: dict[str, Any], where: str, registry: Registry
) -> list[tuple[str, AbstractModel, int]]:
    """(name, model at its start, place of its data) of each fit of a table."""
    titles = [f"{name}{part.suffix}" for part in source.parts]
    if entry.get("start") == ESTIMATE:
        samples = [part.sample for part in source.parts]
        return list(zip(titles, estimated(spec, samples, registry, at, f"{where}.start"), range(len(titles))))
    starts = _starts(entry, where) or source.starts
    models = []
    for s, start in enumerate(starts):
        start_at = f"{where}.starts[{s}]" if "starts" in entry else f"{where}.start"
        models.append(_model(spec, at, start, start_at, registry))
    if len(models) == 1:
        return [(title, models[0], p) for p, title in enumerate(titles)]
    return [(f"{title}, start {s + 1}", model, p) for p, title in enumerate(titles) for s, model in enumerate(models)]


def _starts(entry: dict[str, Any], where: str) -> tuple[Mapping[str, Any], ...]:
    """The start values that a data table gives: one table, or a list of tables for a fit from each."""
    if "start" in entry and "starts" in entry:
        raise ConfigError(f"{where}.starts", "give either start or starts, not both")
    starts = take(entry, "starts", list, where, [])
    if any(not isinstance(start, dict) for start in starts) or ("starts" in entry and not starts):
        raise ConfigError(f"{where}.starts", "should be a list of tables, such as [{ tau = 1.0 }, { tau = 5.0 }]")
    if isinstance(entry.get("start"), str):
        raise ConfigError(f"{where}.start", f'should be a table, or "{ESTIMATE}", but it is {shown(entry["start"])}')
    start = take(entry, "start", dict, where)
    return tuple(map(flatten, starts if start is None else [start]))


def _model(spec: object, where: str, start: Mapping[str, Any], start_at: str, registry: Registry) -> AbstractModel:
    """The model with its start values, which may also stand in for arguments of its constructor."""
    model = construct(spec, "models", registry, where, defaults=start)
    try:
        return put(model, start)
    except (TypeError, ValueError) as error:
        raise ConfigError(start_at, str(error)) from error


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


def _check_reference(reference: Reference, member: Member, where: str) -> None:
    names = make_plan(member.model, member.data.noise, member.settings.free).names
    for name in reference.values:
        if name not in names:
            raise ConfigError(
                f"{where}.reference.{name}", f"it is not fitted{suggest(name, names)} (fitted: {', '.join(names)})"
            )


def _check(member: Member, where: str) -> None:
    """Names, bounds, priors, and the shape of the model's prediction: all that can be known without a fit."""
    settings, model, data = member.settings, member.model, member.data
    sample = data if member.sample is None else member.sample
    try:
        plan = make_plan(model, data.noise, settings.free)
        flat_bounds(plan, settings.bounds, settings.priors)
        flat_priors(plan, settings.priors)
        check(plan, data.stream if isinstance(data, StreamedDataset) else data, settings.loss, None, None)
    except ValueError as error:
        raise ConfigError(f"{where} ({member.name})", str(error)) from error
    try:
        jax.eval_shape(lambda m, d: d.residual(m), model, sample)
    except CLASS_ERRORS as error:
        raise ConfigError(f"{where} ({member.name})", first_line(error)) from error


def _unique(names: Sequence[str]) -> None:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise ConfigError("data", f"two members are called {name!r}: give each a name of its own")
        seen.add(name)
