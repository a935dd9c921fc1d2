"""`task = "compsep"`: separations of one sky, or forecasts, described by a config.

The entry point of component separation in the group `jaxsci.sciences`. A config has one sky and one instrument; each
`[[data]]` table is a separation with components, free parameters and patches of its own. What is read is checked in
`_task/config`, pictures are made in `_task/figures`.
"""

import dataclasses
import importlib.util
import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import equinox as eqx
import numpy as np

from .. import compsep
from ..compsep import Forecast, MixingMatrix, Separation
from ..core import Unit, match
from ..fitting import flat_bounds, make_plan
from ..parallel import write_framed
from ..runs import (
    CLASS_ERRORS,
    REFUSED,
    SUCCESSFUL,
    AbstractOutcome,
    Config,
    ConfigError,
    Image,
    Job,
    Kind,
    Refusal,
    Registry,
    Report,
    Scatter,
    Untried,
    check_keys,
    first_line,
    flatten,
    shown,
    take,
)
from ..runs.fits import AbstractFitTask, read_steps, result_of
from ._fit.starts import start_points
from ._forecast import _checked
from ._mixing import spectral
from ._patches import lay_out
from ._settings import Settings
from ._task.config import SkyData, read_calibration, read_instrument, read_mixing, read_sky
from ._task.figures import draw, panels
from .io import write_separation

SPECTRA = (
    compsep.CMB,
    compsep.ThermalSZ,
    compsep.ModifiedBlackBody,
    compsep.PowerLaw,
    compsep.FreeFree,
    compsep.AME,
    compsep.TabulatedSED,
    compsep.AnalyticSED,
)
"""Spectra that a config may name."""

_TOP = (
    "task",
    "title",
    "description",
    "instrument",
    "calibration",
    "sky",
    "components",
    "fit",
    "forecast",
    "output",
    "data",
)
_FIT = ("free", "patches", "bounds", "marginal", "starts", "tolerance", "max_steps")
_DATA = ("name", "components", *_FIT)
_OUTPUT = ("fits",)
_FORECAST = ("r", "lensing", "lmin", "lmax", "modelled")


@dataclasses.dataclass(frozen=True)
class SkyFit:
    """One separation of a job: which components, which parameters, where they live."""

    name: str
    mixing: MixingMatrix
    instrument: compsep.Instrument
    sky: SkyData
    options: dict[str, Any]
    forecast: dict[str, Any] | None
    fits: bool

    @property
    def source(self) -> str:
        """The files that its maps come from."""
        return self.sky.source

    @property
    def what(self) -> str:
        """Its components."""
        return " + ".join(self.mixing.names)


@dataclasses.dataclass(frozen=True)
class Answer:
    """A separation as results keep it."""

    separation: Separation

    @property
    def num_steps(self) -> int:
        """Evaluations of the fit that took most."""
        return int(np.max(np.asarray(self.separation.steps), initial=0))

    def save(self, path: Path) -> None:
        """Write to one checksummed file."""
        buffer = io.BytesIO()
        eqx.tree_serialise_leaves(buffer, self.separation)
        write_framed(path, buffer.getvalue(), {"kind": "Separation", "free": list(self.separation.free)})


@dataclasses.dataclass(frozen=True)
class SkyOutcome(AbstractOutcome):
    """How a separation ended. `forecast`: what it says of r, where a config asks for that."""

    member: SkyFit
    separation: Separation
    forecast: Forecast | None = None

    @property
    def saved(self) -> Answer:
        """The separation."""
        return Answer(self.separation)

    @property
    def code(self) -> str:
        """`successful`, or the most frequent other name in `jaxsci.RESULTS`."""
        good = np.asarray(self.separation.success)
        if bool(np.all(good)):
            return SUCCESSFUL
        return result_of(int(np.bincount(np.asarray(self.separation.result)[~good]).argmax()))

    @property
    def remarks(self) -> tuple[str, ...]:
        """What to look at though all fits converged, by the rule of `jaxsci.Solution.remarks`."""
        sky = self.member.sky
        testable = self.forecast is None and sky.noisy and sky.resolution is None
        return (*self.separation.to_look_at(testable), *self._smoothed()) if self.success else ()

    def _smoothed(self) -> list[str]:
        """What smoothing did to the errors of what several pixels share: the fit takes their noise for independent."""
        found, resolution = self.separation, self.member.sky.resolution
        pixels = int(np.sum(np.asarray(found.used)))
        shared = [name for name in found.free if found.values[name].size < pixels]
        if resolution is None or not shared:
            return []
        return [
            f"maps were smoothed to {resolution:g} arcmin, and noise hangs together between their pixels: errors of "
            f"{', '.join(shared)} are too small, by about the root of the pixels of a beam. Fit coefficients for them "
            "(harmonic_comp_sep)."
        ]

    @property
    def message(self) -> str:
        """What did not converge; empty after success."""
        if self.success:
            return ""
        good = np.asarray(self.separation.success)
        return f"{int((~good).sum())} of {good.size} independent fits did not converge."

    @property
    def told(self) -> str:
        """How it ended and after how many steps."""
        return f"{self.code} after {self.saved.num_steps} steps"

    def record(self) -> dict[str, Any]:
        """All that is known of a separation; a parameter that is a map by its median."""
        return _record(self)

    def draw(self) -> Any:
        """Maps and spectra, or the spectra of a forecast."""
        return draw(self.separation, self.forecast, self.member.instrument, self.member.sky)

    def panels(self) -> Sequence[Scatter | Image]:
        """Maps with their errors on a grid of longitude and latitude, or the spectra of a forecast."""
        return panels(self.separation, self.forecast)


class SkyTask(AbstractFitTask[SkyFit, SkyOutcome]):
    """Separations of a sky into components, one after the other."""

    def kinds(self) -> Registry:
        """Spectra of components."""
        return {"spectra": Kind("spectrum", (compsep.AbstractSED,), {cls.__name__: cls for cls in SPECTRA})}

    def build(self, config: Config, registry: Registry) -> Job[SkyFit]:
        """Read and check the sky, and each separation of it."""
        return build(config, registry)

    def run(
        self, members: Sequence[SkyFit], report: Report, beside: bool
    ) -> Iterator[tuple[list[int], list[SkyOutcome | Untried]]]:
        """Separate, one after the other; one that is refused does not stop the others."""
        for place, member in enumerate(members):
            try:
                outcome: SkyOutcome | Untried = _fit_one(member)
            except CLASS_ERRORS as error:
                outcome = Untried(member, REFUSED, first_line(error))
            report(1)
            yield [place], [outcome]

    def batches(self, members: Sequence[SkyFit]) -> list[int]:
        """Each by itself."""
        return [1] * len(members)

    def refusals(self, members: Sequence[SkyFit]) -> Mapping[int, Refusal]:
        """Separations that the run would refuse: maps, noise, mask, patches, bounds."""
        return refusals(members)

    def describe(self, member: SkyFit) -> Mapping[str, str]:
        """Components, numbers in the maps, and what is free."""
        free = " ".join(member.options["free"])
        return {"model": member.what, "rows": str(member.sky.maps.size), "free parameters": free}

    def files(self, outcome: SkyOutcome, name: str) -> Mapping[str, str | Callable[[Path], object]]:
        """What writes the FITS maps of a separation into a folder of its own, where a config asks for them."""
        write = partial(write_separation, separation=outcome.separation, overwrite=True)
        return {f"maps/{name}": write} if outcome.member.fits else {}


def build(config: Config, registry: Registry) -> Job[SkyFit]:
    """Read and check a config.

    **Raises:** `ConfigError` naming table and key.
    """
    tables = config.tables
    check_keys(tables, _TOP, "")
    instrument = read_instrument(tables)
    calibration, priors = read_calibration(tables, len(instrument.frequency))
    mixing = read_mixing(tables, registry, calibration)
    sky = read_sky(config, instrument)
    shared = take(tables, "fit", dict, "", {})
    check_keys(shared, _FIT, "fit")
    forecast = take(tables, "forecast", dict, "")
    if forecast is not None:
        check_keys(forecast, _FORECAST, "forecast")
    fits = _fits(tables)
    title = take(tables, "title", str, "", config.path.stem)
    entries = take(tables, "data", list, "", [{"name": title}])
    members = []
    for k, entry in enumerate(entries):
        where = f"data[{k}]"
        if not isinstance(entry, dict):
            raise ConfigError(where, f"should be a table, but it is {shown(entry)}")
        check_keys(entry, _DATA, where)
        own = _chosen(mixing, entry, where)
        options = _options({**shared, **entry}, own, instrument, where)
        options["priors"] = {free: priors[free] for free in options["free"] if free in priors} or None
        name = take(entry, "name", str, where, f"fit {k + 1}")
        if forecast is not None and "starts" in options:
            raise ConfigError(f"{where}.starts", "is for separations: a forecast has one start")
        members.append(SkyFit(name, own, instrument, sky, options, forecast, fits))
    return Job(title, take(tables, "description", str, "", ""), tuple(members))


def _fits(tables: Mapping[str, Any]) -> bool:
    output = take(tables, "output", dict, "", {})
    check_keys(output, _OUTPUT, "output")
    fits = take(output, "fits", bool, "output", False)
    if fits and importlib.util.find_spec("healpy") is None:
        raise ConfigError("output.fits", "writing FITS maps takes healpy: install jaxsci[sky]")
    return fits


def _chosen(mixing: MixingMatrix, entry: Mapping[str, Any], where: str) -> MixingMatrix:
    names = take(entry, "components", list, where, list(mixing.names))
    for name in names:
        if name not in mixing.names:
            raise ConfigError(f"{where}.components", f"there is no component {name!r} ({', '.join(mixing.names)})")
    return MixingMatrix(calibration=mixing.calibration, **{name: getattr(mixing, name) for name in names})


def _options(
    table: Mapping[str, Any], mixing: MixingMatrix, instrument: compsep.Instrument, where: str
) -> dict[str, Any]:
    """The arguments of `separate`."""
    options: dict[str, Any] = {}
    for key, kind in (("marginal", bool), ("tolerance", (int, float))):
        if key in table:
            options[key] = take(table, key, kind, where)
    if "max_steps" in table:
        options["max_steps"] = read_steps(table, where, 1)
    free = take(table, "free", list, where, ["*"] if mixing.parameters else [])
    try:
        options["free"] = tuple(match(mixing, free, "the mixing matrix")) if free else ()
        patches = take(table, "patches", (int, dict), where, 0)
        options["patches"] = flatten(patches) if isinstance(patches, dict) else patches
        bounds = flatten(take(table, "bounds", dict, where, {}))
        options["bounds"] = {name: tuple(pair) for name, pair in bounds.items()} or None
        starts = take(table, "starts", (int, dict), where)
        if starts is not None:
            options["starts"] = flatten(starts) if isinstance(starts, dict) else starts
            start_points(Settings(mixing, instrument.nu, options["free"], bounds=options["bounds"]), options["starts"])
    except CLASS_ERRORS as error:
        raise ConfigError(where, first_line(error)) from error
    return options


def refusals(members: Sequence[SkyFit]) -> dict[int, Refusal]:
    """The separations, by their places, that the run would refuse: maps, noise, mask, patches, bounds."""
    found: dict[int, Refusal] = {}
    for place, member in enumerate(members):
        try:
            _try(member)
        except CLASS_ERRORS as error:
            found[place] = Refusal(REFUSED, first_line(error))
    return found


def _try(member: SkyFit) -> None:
    """Everything of `_fit_one` but the fit of spectra; without free parameters that is quick."""
    sky, options = member.sky, member.options
    if member.forecast is not None:
        _check_forecast(member)
    known = compsep.separate(
        member.mixing, member.instrument, sky.maps, free=(), inv_n=_weights(sky), mask=sky.mask, units=sky.units
    )
    patches = options["patches"] if member.forecast is None else 0
    patches = patches if isinstance(patches, dict) else dict.fromkeys(spectral(options["free"]), patches)
    lay_out(options["free"], patches, np.asarray(known.used))
    if options["free"]:
        flat_bounds(make_plan(member.mixing, Unit(), options["free"]), options["bounds"])


def _check_forecast(member: SkyFit) -> None:
    if member.sky.stokes != "QU":
        raise ConfigError("sky.stokes", 'a forecast takes "QU"')
    _checked(member.mixing, member.instrument, member.sky.maps, (member.forecast or {}).get("lmax"), None)


def _weights(sky: SkyData) -> np.ndarray:
    return np.where(np.isfinite(sky.sigma), 1 / sky.sigma**2, 0)


def _fit_one(member: SkyFit) -> SkyOutcome:
    sky, options = member.sky, member.options
    if member.forecast is not None:
        _check_forecast(member)
        own = {key: value for key, value in options.items() if key != "patches"}
        ahead = compsep.xForecast(member.mixing, member.instrument, sky.maps, mask=sky.mask, **own, **member.forecast)
        return SkyOutcome(member, ahead.separation, ahead)
    found = compsep.separate(
        member.mixing, member.instrument, sky.maps, inv_n=_weights(sky), mask=sky.mask, units=sky.units, **options
    )
    return SkyOutcome(member, found)


def _record(outcome: SkyOutcome) -> dict[str, Any]:
    found = outcome.separation
    chi2, dof = float(np.nansum(np.asarray(found.chi2))), int(found.dof)
    determined = sum(int(np.isfinite(np.asarray(std)).sum()) for std in found.std.values())
    used = int(np.asarray(found.used).sum())
    return {
        "num_data": int(found.num_data),
        "dof": dof,
        "num_free": sum(np.size(value) for value in found.values.values()) + len(_ratio(outcome)),
        "rank": determined + len(_ratio(outcome)),
        "num_steps": outcome.saved.num_steps,
        "chi2": chi2,
        "reduced_chi2": chi2 / dof if dof > 0 else float("nan"),
        "errors_scaled": False,
        "facts": [
            f"{used} of {found.cell.shape[0]} pixels",
            f"Stokes {found.stokes} in {found.units}",
            *_more(outcome),
        ],
        "parameters": [_parameter(outcome, found, name) for name in found.free] + _ratio(outcome),
    }


def _more(outcome: SkyOutcome) -> list[str]:
    found, cmb = outcome.separation, outcome.member.sky.cmb
    count = found.result.shape[0]
    facts = [f"{count} independent fit{'s' * (count != 1)}"] if found.free else []
    if cmb is not None and "cmb" in found.components and outcome.forecast is None:
        k = found.components.index("cmb")
        pulls = (np.asarray(found.amplitudes[k]) - cmb) / np.asarray(found.errors[k])
        pulls = pulls[np.isfinite(pulls)]
        facts.append(f"pulls of the CMB against the truth {pulls.mean():+.3f} ± {pulls.std():.3f}")
    return facts


def _parameter(outcome: SkyOutcome, found: Separation, name: str) -> dict[str, Any]:
    values, std = np.asarray(found.values[name]), np.asarray(found.std[name])
    known = np.isfinite(std)
    remarks = [] if values.size == 1 else [f"median of {values.size}"]
    if not known.all():
        remarks.append("not determined by the data" + (f" in {int((~known).sum())}" if values.size > 1 else ""))
    bound = int((np.asarray(found.at_bound[name]) != 0).sum())
    remarks += [f"{bound} at a bound"] if bound else []
    truth = outcome.member.sky.truth.get(name)
    if truth is not None:
        remarks.append(_pulls(found, name, truth))
    middle = float(np.median(std[known])) if known.any() else float("inf")
    row: dict[str, Any] = {"name": name, "value": float(np.median(values)), "std": middle, "remarks": remarks}
    return row | _declared(outcome.member, name)


def _declared(member: SkyFit, name: str) -> dict[str, Any]:
    """The unit of a free parameter, and its bounds where it has any: those of the config, else those of its class."""
    plan = make_plan(member.mixing, Unit(), member.options["free"])
    place = plan.names.index(name)
    lower, upper = (np.asarray(end).tolist()[place] for end in flat_bounds(plan, member.options["bounds"]))
    bounded = np.isfinite([lower, upper]).any()
    return {"unit": plan.units[place]} | ({"bounds": [lower, upper]} if bounded else {})


def _pulls(found: Separation, name: str, truth: np.ndarray) -> str:
    """Against the mean of the truth over the pixels of each element."""
    index = np.asarray(found.index[name])
    used = index >= 0
    mean = np.bincount(index[used], truth[used]) / np.bincount(index[used])
    pulls = (np.asarray(found.values[name]) - mean) / np.asarray(found.std[name])
    pulls = pulls[np.isfinite(pulls)]
    if pulls.size == 1:
        return f"truth {mean[0]:.6g}, pull {pulls[0]:+.2f}"
    return f"pulls against the truth {pulls.mean():+.3f} ± {pulls.std():.3f}" if pulls.size else "no pulls"


def _ratio(outcome: SkyOutcome) -> list[dict[str, Any]]:
    if outcome.forecast is None:
        return []
    forecast = outcome.forecast
    remark = f"bias {float(forecast.bias):+.3g}"
    return [{"name": "r", "unit": "", "value": float(forecast.r), "std": float(forecast.sigma_r), "remarks": [remark]}]
