"""`task = "timing"`: pulsars described by a config, all in one batch.

The entry point of pulsar timing in the group `jaxsci.sciences`. Each `[[data]]` table is a pulsar, bundled or from par
and tim files, with what is freed of it and of its noise, and perhaps a grid of chi2. Its parts are in `_task/`, which
the commands of `jaxsci timing` share.
"""

import dataclasses
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from decimal import Decimal
from typing import Any

import jax
import numpy as np

from ..core import Linear
from ..fitting import Solution, foresee
from ..runs import (
    CLASS_ERRORS,
    SUCCESSFUL,
    AbstractOutcome,
    Config,
    ConfigError,
    Job,
    Refusal,
    Registry,
    Report,
    Scatter,
    check_keys,
    first_line,
    shown,
    take,
)
from ..runs.fits import AbstractFitTask, advice, read_steps, result_of
from ._anchor import lay_out
from ._array import _member, buckets, fit_array, lay_bucket
from ._binary.from_par import kind_of
from ._fit import SOLVER, Correlation, TimingSolution, chosen, fit
from ._grid import chi2_grid
from ._model import TimingModel, elements
from ._notation import said
from ._par_out import PREFIX, noise_places, par_text
from ._residuals.averages import EpochAverages, averages
from ._residuals.realisation import NoiseRealisation, noise_realisation
from ._residuals.summary import Look, looks, weighted_rms
from ._simulate import simulate
from ._task.columns import correlation_table, derived_rows, epoch_table, residual_table
from ._task.figures import Shown, draw, draw_sky, panels
from ._task.grid import Grid, read_grid
from ._task.load import PulsarFiles, Reading, read_planned, read_pulsar
from ._task.noise import noise_names, noise_rows, timing_remarks
from ._task.plan import read_plan
from ._task.select import Selection, selected
from ._toas import TOAs

_OWN = ("free", "free_noise", "grid", "select", "epoch_seconds", "show_noise")
_TOP = ("task", "title", "description", "fit", "grid", "select", "data")
_FIT = ("free", "free_noise", "max_steps", "scale_covariance", "epoch_seconds", "show_noise")
_DATA = ("name", "pulsar", "par", "tim", "simulate", *(field.name for field in dataclasses.fields(Reading)), *_OWN)
_CLOSE = 0.9  # correlations above it are listed
_NAMED = 3  # of them in words
_FOLDED = ("DMX_", "CMX_", "WX", "DMWX", "CMWX")


@dataclasses.dataclass(frozen=True)
class Pulsar:
    """One pulsar of a job: its model at the start, its TOAs, what is freed of it and of its noise.

    `scale`: errors are multiplied by sqrt(chi2 / dof). `told`: what the report says of how the TOAs were chosen.
    `epoch_seconds`: how long an epoch is whose residuals are averaged; `show_noise`: True where the realisation of the
    noise is sought, which takes a program more.
    """

    name: str
    model: TimingModel
    toas: TOAs
    free: tuple[str, ...] | None
    max_steps: int
    source: str
    noise: tuple[str, ...] = ()
    grid: Grid | None = None
    scale: bool = False
    told: tuple[str, ...] = ()
    epoch_seconds: float = 1.0
    show_noise: bool = False

    @property
    def names(self) -> tuple[str, ...]:
        """PINT's names of what is freed of the timing model, those that it has."""
        have = {pint for _, pint in elements(self.model)}
        free = None if self.free is None else tuple(name for name in self.free if name in have)
        return chosen(self.model, free)[0]

    @property
    def what(self) -> str:
        """The kind of its orbit."""
        assert self.model.par is not None
        return kind_of(self.model.par) or "isolated"


@dataclasses.dataclass(frozen=True)
class TimingOutcome(AbstractOutcome):
    """How the fit of one pulsar ended, and its residuals.

    `averages`: of the residuals after the fit. `noise`: what they hold of it, where the member asks. `grid`: chi2 at
    the points of the member's grid.
    """

    member: Pulsar
    timing: TimingSolution
    look: Look
    averages: EpochAverages
    noise: NoiseRealisation | None = None
    grid: np.ndarray | None = None

    @property
    def saved(self) -> Solution:
        """The core's solution."""
        return self.timing.fit

    @property
    def code(self) -> str:
        """The name of the result in `jaxsci.RESULTS`."""
        return result_of(int(self.timing.fit.result._value))

    @property
    def remarks(self) -> tuple[str, ...]:
        """What to look at though the fit converged, with PINT's names."""
        return timing_remarks(self.timing) if self.success else ()

    @property
    def message(self) -> str:
        """Why the fit failed; empty after success."""
        return advice(int(self.timing.fit.result._value))

    @property
    def told(self) -> str:
        """How it ended and after how many steps."""
        return f"{self.code} after {int(self.timing.fit.num_steps)} steps"

    def record(self) -> dict[str, Any]:
        """All that is known of one pulsar: its residuals, and its parameters with PINT's names and units."""
        return _record(self)

    def draw(self) -> Any:
        """Residuals before and after, averaged, whitened, over the orbit, noise, DMX, chi2 on a grid: what there is."""
        rms = 1e6 * weighted_rms(self.look.after, self.look.sigma)
        title = f"{self.member.name}: weighted rms {rms:.3f} µs, {len(self.member.toas)} TOAs"
        return draw(self.timing, self.member.toas, self._shown, title)

    def panels(self) -> Sequence[Scatter]:
        """Residuals after and before the fit, whitened and averaged, with what is known of each TOA."""
        return panels(self.timing, self.member.toas, self._shown)

    @property
    def _shown(self) -> Shown:
        return Shown(self.look, self.averages, self.noise, self.member.grid, self.grid)


class TimingTask(AbstractFitTask[Pulsar, TimingOutcome]):
    """Fits of pulsars: those with the same choices in one call, those with noise that is fitted one at a time."""

    def build(self, config: Config, registry: Registry) -> Job[Pulsar]:
        """Read and check all pulsars."""
        return build(config, registry)

    def run(
        self, members: Sequence[Pulsar], report: Report, beside: bool
    ) -> Iterator[tuple[list[int], list[TimingOutcome]]]:
        """Fit all pulsars; a pulsar with a grid is done when its grid is."""
        return _run(members, report)

    def batches(self, members: Sequence[Pulsar]) -> list[int]:
        """All in one, but for those whose noise is fitted."""
        alone = sum(bool(member.noise) for member in members)
        return [count for count in (len(members) - alone, *[1] * alone) if count]

    def refusals(self, members: Sequence[Pulsar]) -> Mapping[int, Refusal]:
        """Pulsars whose fits would end before their first step."""
        return refusals(members)

    def describe(self, member: Pulsar) -> Mapping[str, str]:
        """The kind of orbit, TOAs, and what is free."""
        have = member.free if member.free is not None else chosen(member.model, None)[0]
        grid = "" if member.grid is None else f" (grid over {' and '.join(member.grid)})"
        free = " ".join((*have, *member.noise)) + grid
        return {"model": member.what, "rows": str(len(member.toas)), "free parameters": free}

    def pictures(self, outcomes: Sequence[TimingOutcome]) -> Mapping[str, Callable[[], Any]]:
        """The sky, where there are several pulsars."""
        models = {outcome.member.name: outcome.member.model for outcome in outcomes}
        return {"The sky": lambda: draw_sky(models)} if len(models) > 1 else {}

    def files(self, outcome: TimingOutcome, name: str) -> Mapping[str, str]:
        """The new par file of a pulsar, its residuals, their averages, and the parameters that go together."""
        look, pairs = outcome.look, outcome.timing.correlations(_CLOSE)
        columns = {"before_s": look.before, "residual_s": look.after, "sigma_s": look.sigma}
        columns |= {"whitened": look.whitened, "epoch": np.asarray(outcome.averages.epoch)}
        found = {
            f"pars/{name}.par": par_text(outcome.timing),
            f"residuals/{name}.csv": residual_table(outcome.member.toas, columns, outcome.noise),
            f"epochs/{name}.csv": epoch_table(outcome.averages),
        }
        return found | ({f"correlations/{name}.csv": correlation_table(pairs)} if pairs else {})


def build(config: Config, registry: Registry) -> Job[Pulsar]:
    """Read and check all pulsars of a config.

    **Raises:** `ConfigError` naming table and key.
    """
    tables = config.tables
    check_keys(tables, _TOP, "")
    shared = take(tables, "fit", dict, "", {})
    check_keys(shared, _FIT, "fit")
    steps = read_steps(shared, "fit", 200)
    entries = take(tables, "data", list, "", [])
    if not entries:
        raise ConfigError("data", "there is nothing to fit: give at least one [[data]] table")
    members = [_pulsar(entry, f"data[{k}]", shared, steps, config) for k, entry in enumerate(entries)]
    names = [member.name for member in members]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise ConfigError("data", f"two pulsars are called {twice!r}: give each a name of its own")
    title = take(tables, "title", str, "", config.path.stem)
    return Job(title, take(tables, "description", str, "", ""), tuple(members))


def _pulsar(entry: Any, where: str, shared: Mapping[str, Any], steps: int, config: Config) -> Pulsar:
    if not isinstance(entry, dict):
        raise ConfigError(where, f"should be a table, but it is {shown(entry)}")
    check_keys(entry, _DATA, where)
    free = _names(entry, "free", where) if "free" in entry else _names(shared, "free", "fit")
    plain = None if free is None else tuple(name for name in free if not name.startswith(PREFIX))
    name, model, toas, source = _read(entry, where, config)
    toas, chosen_toas = _selected(entry, toas, f"{where} ({name})", config)
    try:
        if "free" in entry or free is None:
            chosen(model, plain)
        lay_out(model, toas)
    except CLASS_ERRORS as error:
        raise ConfigError(f"{where} ({name})", first_line(error)) from error
    own = "free_noise" in entry or "free" in entry
    wanted = _names(entry, "free_noise", where) if "free_noise" in entry else _names(shared, "free_noise", "fit")
    noisy = (*(wanted or ()), *(n for n in free or () if n.startswith(PREFIX)))
    noise = noise_names(noisy, model, toas, f"{where} ({name})", own)
    grid = _grid(entry, model, where, config)
    if grid is not None and noise:
        raise ConfigError(f"{where}.grid", "a grid takes the noise from the par file: leave out the noise to be fitted")
    scale = take(shared, "scale_covariance", bool, "fit", False)
    told = (chosen_toas,) if chosen_toas else ()
    seconds = float(_own(entry, shared, "epoch_seconds", (int, float), where, 1.0))
    if not seconds > 0:
        raise ConfigError(f"{where}.epoch_seconds", f"should be above 0, but it is {seconds}")
    show = _own(entry, shared, "show_noise", bool, where, False)
    called = take(entry, "name", str, where, name)
    return Pulsar(called, model, toas, plain, steps, source, noise, grid, scale, told, seconds, show)


def _own(
    entry: Mapping[str, Any],
    shared: Mapping[str, Any],
    key: str,
    kind: type | tuple[type, ...],
    where: str,
    default: float | bool,
) -> Any:
    """What a table of a pulsar says of itself, or `[fit]` of all."""
    return take(entry, key, kind, where, take(shared, key, kind, "fit", default))


def _grid(entry: Mapping[str, Any], model: TimingModel, where: str, config: Config) -> Grid | None:
    table = take(entry, "grid", dict, where)
    if table is not None:
        return read_grid(table, model, f"{where}.grid")
    table = take(config.tables, "grid", dict, "")
    return None if table is None else read_grid(table, model, "grid")


def _selected(entry: Mapping[str, Any], toas: TOAs, where: str, config: Config) -> Selection:
    own = take(entry, "select", dict, where)
    if own is not None:
        return selected(toas, own, f"{where}.select")
    return selected(toas, take(config.tables, "select", dict, ""), f"select, {where}")


def _names(table: Mapping[str, Any], key: str, where: str) -> tuple[str, ...] | None:
    free = take(table, key, list, where)
    if free is not None and not all(isinstance(name, str) for name in free):
        example = "EFAC" if key == "free_noise" else "F0"
        raise ConfigError(
            f"{where}.{key}", f'should be a list of names, such as ["{example}"], but it is {shown(free)}'
        )
    return None if free is None else tuple(free)


def _read(entry: dict[str, Any], where: str, config: Config) -> PulsarFiles:
    if "simulate" in entry:
        return _simulated(entry, where, config)
    if "pulsar" in entry:
        for key in ("par", "tim", *(field.name for field in dataclasses.fields(Reading))):
            if key in entry:
                raise ConfigError(f"{where}.{key}", "a bundled pulsar comes with all its files")
        name = take(entry, "pulsar", str, where)
        return read_pulsar(name, None, f"{where}.pulsar")
    for key in ("par", "tim"):
        if key not in entry:
            raise ConfigError(where, 'it has no data: give par and tim, or pulsar = "bundled:NAME"')
    par, tim = (config.resolve(take(entry, key, str, where), f"{where}.{key}") for key in ("par", "tim"))
    return read_pulsar(str(par), tim, where, _reading(entry, where, config), config.within)


def _reading(entry: Mapping[str, Any], where: str, config: Config) -> Reading:
    clocks = take(entry, "clock_dir", str, where)
    folder = None if clocks is None else config.resolve(f"{clocks}/index.txt", f"{where}.clock_dir").parent
    words = {key: take(entry, key, str, where) for key in ("ephem", "unknown", "duplicates") if key in entry}
    return Reading(clock_dir=folder, **words)


def _simulated(entry: Mapping[str, Any], where: str, config: Config) -> PulsarFiles:
    """A pulsar whose TOAs are simulated by a plan, from the par file as it is."""
    if "tim" in entry:
        raise ConfigError(f"{where}.tim", "the TOAs are simulated: leave out tim or simulate")
    if ("pulsar" in entry) == ("par" in entry):
        raise ConfigError(where, 'say of which pulsar TOAs are simulated: par, or pulsar = "bundled:NAME"')
    plan, seed = read_plan(take(entry, "simulate", dict, where), f"{where}.simulate")
    key = "par" if "par" in entry else "pulsar"
    name = take(entry, key, str, where)
    par = str(config.resolve(name, f"{where}.par")) if key == "par" else name
    found = read_planned(par, plan, where, _reading(entry, where, config))
    try:
        toas = simulate(found.model, found.toas, key=None if seed is None else jax.random.key(seed))
    except CLASS_ERRORS as error:
        raise ConfigError(f"{where} ({found.name})", first_line(error)) from error
    return found._replace(toas=toas)


def refusals(members: Sequence[Pulsar]) -> dict[int, Refusal]:
    """The pulsars, by their places, whose fits would end before their first step."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the run says it
        laid = [_member(k, m.model, m.toas, m.free) for k, m in enumerate(members)]
    found: dict[int, Refusal] = {}
    for bucket in buckets(laid):
        batch = lay_bucket(bucket)
        values = foresee(
            batch.models, batch.data, free=batch.free, bounds=batch.bounds, priors=None, solver=SOLVER, loss=Linear()
        )
        for each, value in zip(bucket, values.tolist(), strict=True):
            if result_of(value) != SUCCESSFUL:
                found[each.place] = Refusal(result_of(value), advice(value))
    return dict(sorted(found.items()))


def _run(members: Sequence[Pulsar], report: Report) -> Iterator[tuple[list[int], list[TimingOutcome]]]:
    groups: dict[Any, list[int]] = {}
    for place, member in enumerate(members):
        groups.setdefault(place if member.noise else (member.free, member.max_steps), []).append(place)
    for places in groups.values():
        done = _fitted([members[place] for place in places])
        pairs = list(zip(places, done, strict=True))
        ready = [pair for pair in pairs if pair[1].member.grid is None]
        report(len(ready))
        yield [place for place, _ in ready], [outcome for _, outcome in ready]
        for place, outcome in pairs:
            if outcome.member.grid is not None:
                each = _with_grid(outcome)
                report(1)
                yield [place], [each]


def _fitted(group: Sequence[Pulsar]) -> list[TimingOutcome]:
    """Pulsars with the same choices; one alone where noise is fitted."""
    first, toas = group[0], [member.toas for member in group]
    steps, scale = first.max_steps, first.scale
    try:
        if first.noise:
            free = (*first.names, *first.noise)
            one = fit(first.model, first.toas, free, throw=False, scale_covariance=scale, max_steps=steps)
            solutions = [one]
        else:
            models = [member.model for member in group]
            solutions = fit_array(models, toas, first.free, max_steps=steps, scale_covariance=scale)
        seen = looks(solutions, toas)
    except CLASS_ERRORS as error:
        raise ConfigError(first.name, first_line(error)) from error
    return [_outcome(*each) for each in zip(group, solutions, seen, strict=True)]


def _outcome(member: Pulsar, solution: TimingSolution, look: Look) -> TimingOutcome:
    try:
        means = averages(solution, member.toas, residual=look.after, seconds=member.epoch_seconds)
        noise = noise_realisation(solution, member.toas) if member.show_noise and solution.success else None
    except CLASS_ERRORS as error:
        raise ConfigError(member.name, first_line(error)) from error
    return TimingOutcome(member, solution, look, means, noise)


def _with_grid(outcome: TimingOutcome) -> TimingOutcome:
    member = outcome.member
    assert member.grid is not None
    try:
        return dataclasses.replace(outcome, grid=chi2_grid(member.model, member.toas, member.grid, member.names))
    except CLASS_ERRORS as error:
        raise ConfigError(f"{member.name}: grid", first_line(error)) from error


def _record(outcome: TimingOutcome) -> dict[str, Any]:
    member, solution, out = outcome.member, outcome.timing, dict[str, Any]()
    look = outcome.look
    before, after = (1e6 * weighted_rms(residual, look.sigma) for residual in (look.before, look.after))
    places = np.array([*solution.places, *noise_places(solution).values()], int)
    if member.grid is not None and outcome.grid is not None:
        axes = {name: values.tolist() for name, values in member.grid.items()}
        out["grid"] = {"axes": axes, "chi2": outcome.grid.tolist()}
    pairs = solution.correlations(_CLOSE)
    facts = [*member.told, f"weighted rms {before:.3f} µs before, {after:.3f} µs after"]
    facts += [
        f"AIC {solution.aic:.2f}",
        f"BIC {solution.bic:.2f}",
        *_close(pairs),
    ]
    return out | {
        "num_data": int(solution.fit.num_data),
        "dof": solution.dof,
        "num_free": len(places),
        "rank": int(np.asarray(solution.fit.determined)[places].sum()),
        "num_steps": int(solution.fit.num_steps),
        "chi2": float(solution.chi2),
        "reduced_chi2": solution.reduced_chi2,
        "aic": solution.aic,
        "bic": solution.bic,
        "errors_scaled": member.scale,
        "rms_before_us": before,
        "rms_us": after,
        "whitened_std": float(np.std(look.whitened)),
        "facts": facts,
        "parameters": _parameters(solution) + noise_rows(solution, member.toas) + derived_rows(solution),
        "covariance": np.asarray(solution.fit.covariance)[np.ix_(places, places)].tolist(),
        "correlations": [pair._asdict() for pair in pairs],
    }


def _close(pairs: Sequence[Correlation]) -> list[str]:
    """The closest pairs of parameters in words, and how many there are."""
    if not pairs:
        return []
    named = ", ".join(f"{pair.first} and {pair.second} {pair.value:+.4f}" for pair in pairs[:_NAMED])
    more = f" and {len(pairs) - _NAMED} pairs more" if len(pairs) > _NAMED else ""
    return [f"correlated above {_CLOSE}: {named}{more}"]


def _parameters(solution: TimingSolution) -> list[dict[str, Any]]:
    exact, std, units, offsets = solution.exact, solution.std, solution.units, solution.offsets
    at_bound = dict(zip(solution.names, np.asarray(solution.fit.at_bound)[list(solution.places)], strict=True))
    rows = []
    for name in solution.names:
        remarks = [] if np.isfinite(std[name]) else ["not determined by the data"]
        remarks += {-1: ["at its lower bound"], 1: ["at its upper bound"]}.get(int(at_bound[name]), [])
        rows.append(
            {
                "name": name,
                "unit": units[name],
                "value": float(exact[name]),
                "std": std[name],
                "exact": f"{_rounded(exact[name], std[name])}",
                "offset": offsets[name],
                **said(name, exact[name], std[name], units[name]),
                "folded": name.startswith(_FOLDED),
                "remarks": remarks,
            }
        )
    return rows


def _rounded(value: Decimal, std: float) -> Decimal:
    """The digits that a par file keeps."""
    if not (np.isfinite(std) and std > 0):
        return +value
    return round(value, max(6 - Decimal(std).adjusted(), 0))
