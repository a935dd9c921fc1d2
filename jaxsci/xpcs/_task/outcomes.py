"""How the analysis of a measurement ended, and its numbers for a report.

A measurement went well where some q-bin could be fitted, and with parameters in common where the joint fit converged.
Bins that failed, chains that did not mix and laws that could not be fitted are remarks, each with what to do. `work`
makes the outcomes.
"""

import collections
import dataclasses
import functools
import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from ...fitting import BatchSolution, SharedSolution
from ...runs import SUCCESSFUL, AbstractOutcome, Image, Scatter, plural
from ...runs.fits import result_of
from ...sampling import BatchPosterior
from .._global import Curves, Dispersion
from .._result import XPCSResult
from .._saxs import Curve
from .config import Measurement

_FAR = 5.0  # of chi2/dof: a law that is this far from its points is none
_PULL = 5.0  # standard errors from a known value that deserve a look
_NUMBER = re.compile(r"[-+]?\d[\d.]*(e[-+]?\d+)?")
_NAMED = 6  # q-bins that a remark names one by one


@dataclasses.dataclass(frozen=True)
class Fitted:
    """The fits of all q-bins.

    - `curves`: as they were fitted; `columns`: their places in the measurement. `fits`: of each.
    - `law`: the power law of q, or `why_no_law`. `posterior`: the chains of each, where they were asked for.
    """

    curves: Curves
    columns: np.ndarray
    fits: BatchSolution
    law: Dispersion | None
    why_no_law: str
    posterior: BatchPosterior | None

    @property
    def shared(self) -> SharedSolution | None:
        """What all q-bins share."""
        return self.fits.shared

    @functools.cached_property
    def table(self) -> dict[str, np.ndarray]:
        """The fits as columns over the q-bins."""
        return self.fits.table()

    @functools.cached_property
    def checks(self) -> dict[int, tuple[str, ...]]:
        """{bin: criteria that its chains do not meet, in words}, of bins that have chains."""
        if self.posterior is None:
            return {}
        kept = {k: found for k, found in self.posterior.check().items() if k not in self.posterior.refused}
        return {k: tuple(str(failure) for failure in found.failed) for k, found in kept.items() if found.failed}

    @functools.cached_property
    def chains(self) -> dict[str, np.ndarray]:
        """The posterior's table; empty without one."""
        return {} if self.posterior is None else self.posterior.table()

    @functools.cached_property
    def determined(self) -> np.ndarray:
        """True for each q-bin that was fitted, and whose data determine all that is free, or hold it at a bound."""
        found = np.zeros(len(self.columns), bool)
        for group, members in zip(self.fits.groups, self.fits.members, strict=True):
            held = np.asarray(group.fixed) | (np.asarray(group.at_bound) != 0)
            found[members] = np.all(np.asarray(group.determined) | held, axis=1)
        return found & np.asarray(self.fits.success)

    def values(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """(value, standard error) of a parameter over the q-bins; NaN where it failed."""
        good = np.asarray(self.fits.success)
        return np.where(good, self.table[name], np.nan), np.where(good, self.table[f"{name}_std"], np.nan)

    @property
    def weighed(self) -> bool:
        """Whether g2 has errors, without which there is no chi2."""
        return self.curves.sigma is not None or self.curves.covariance is not None

    @property
    def local(self) -> tuple[str, ...]:
        """The parameters that each q-bin has for itself."""
        common = () if self.shared is None else self.shared.names
        return tuple(n for n in self.table if f"{n}_std" in self.table and n not in common)


@dataclasses.dataclass(frozen=True)
class Scattered:
    """I(q): as measured, and what became of it."""

    measured: Curve
    curve: Curve


@dataclasses.dataclass(frozen=True)
class Analysed(AbstractOutcome):
    """What was found of a measurement."""

    member: Measurement
    result: XPCSResult
    fitted: Fitted | None
    scattered: Scattered | None
    seconds: float

    @property
    def code(self) -> str:
        """`successful`, or `no_fit` where no q-bin could be fitted; of a joint fit how it ended."""
        if self.fitted is None:
            return SUCCESSFUL
        shared = self.fitted.shared
        if shared is not None and int(shared.result._value) != 0:
            return result_of(int(shared.result._value))
        return SUCCESSFUL if bool(np.any(self.fitted.determined)) else "no_fit"

    @property
    def message(self) -> str:
        """Why it failed, and what to do; empty after success."""
        if self.success or self.fitted is None:
            return ""
        reasons = list(self.fitted.fits.failed.values()) or list(self.fitted.fits.warnings.values())
        if self.fitted.shared is not None and self.code != "no_fit" and not self.fitted.fits.failed:
            return "The joint fit of all q-bins did not converge. Bound its exponents, or share fewer parameters."
        reason = reasons[0][:1].upper() + reasons[0][1:] if reasons else ""
        return f"None of {plural(len(self.fitted.columns), 'q-bin')} could be fitted. {reason}"

    @property
    def told(self) -> str:
        """How many q-bins were fitted, and how long it took."""
        if self.fitted is None:
            return f"scattering in {self.seconds:.1f} s"
        count, good = len(self.fitted.columns), int(np.sum(self.fitted.determined))
        lost = int(np.sum(self.fitted.fits.success)) - good
        more = f", {lost} with parameters that the data do not determine" if lost else ""
        return f"{good} of {plural(count, 'q-bin')} fitted in {self.seconds:.1f} s{more}"

    @property
    def remarks(self) -> tuple[str, ...]:
        """What to look at though it went well."""
        return () if self.fitted is None or not self.success else tuple(_remarks(self.fitted, self.member))

    def record(self) -> dict[str, Any]:
        """Counts, the power law, what is shared, the parameters of each q-bin, and how the chains went."""
        record: dict[str, Any] = {"seconds": self.seconds, "facts": _facts(self)}
        if self.fitted is not None:
            record |= _record(self.fitted, self.member)
        return record

    def draw(self) -> Any:
        """g2 with its fits, tau(q), two-time matrices, labels and scattering: what there is."""
        from .figures import draw

        return draw(self)

    def panels(self) -> Sequence[Scatter | Image]:
        """g2 with its fits, tau(q), two-time matrices: what there is."""
        from .figures import panels

        return panels(self)


def _bins(columns: np.ndarray, places: list[int]) -> str:
    """q-bins in words, as columns of the measurement."""
    named = ", ".join(str(int(columns[k])) for k in places[:_NAMED])
    return f"q-bin{'s' * (len(places) > 1)} {named}{', ...' if len(places) > _NAMED else ''}"


def _of_bins(columns: np.ndarray, same: list[tuple[int, str]]) -> str:
    """One remark on several q-bins that differ in its numbers alone: with those of the first."""
    places, reasons = [place for place, _ in same], {reason for _, reason in same}
    named = _bins(columns, places)
    return f"{named}: {same[0][1]}" if len(reasons) == 1 else f"{named}, of the first: {same[0][1]}"


def _remarks(fitted: Fitted, member: Measurement) -> list[str]:
    found = []
    failed = {place: [reason] for place, reason in fitted.fits.failed.items()}
    warned = {place: reasons.split("; ") for place, reasons in fitted.fits.warnings.items()}
    for told in (failed, warned):
        alike = collections.defaultdict(list)
        for place, reasons in told.items():
            for reason in reasons:
                alike[_NUMBER.sub("#", reason)].append((place, reason))
        found += [_of_bins(fitted.columns, same) for same in alike.values()]
    if fitted.why_no_law:
        found.append(f"no power law: {fitted.why_no_law}")
    if fitted.law is not None:
        law, left = fitted.law.solution, len(fitted.columns) - len(fitted.law.columns)
        found += [] if bool(law.success) else [f"the power law: {law.message}"]
        if float(law.reduced_chi2) > _FAR:
            found.append(
                f"the power law explains its {len(fitted.law.columns)} points badly, with chi2/dof "
                f"{float(law.reduced_chi2):.3g}, by which its errors are scaled: look at the picture before you use it"
            )
        found += [f"{plural(left, 'q-bin')} without a sound fit left out of the power law"] if left else []
    if fitted.posterior is not None:
        found += [f"{_bins(fitted.columns, [k])} has no posterior: {why}" for k, why in _refused(fitted)]
        if fitted.checks:
            first = next(iter(fitted.checks.values()))[0]
            found.append(
                f"the chains of {_bins(fitted.columns, list(fitted.checks))} do not meet all criteria: {first}"
            )
    found += [row["remarks"][-1] for row in _common(fitted, member) if row.get("far")]
    return found


def _refused(fitted: Fitted) -> list[tuple[int, str]]:
    """Bins without chains, other than those whose fit failed already."""
    failed = fitted.fits.failed
    assert fitted.posterior is not None
    return [(k, why) for k, why in fitted.posterior.refused.items() if k not in failed]


def _record(fitted: Fitted, member: Measurement) -> dict[str, Any]:
    good = np.asarray(fitted.fits.success)
    dof, chi2 = fitted.table["dof"], fitted.table["chi2"]
    judged = good & (dof > 0) & fitted.weighed
    reduced = chi2[judged] / dof[judged]
    record: dict[str, Any] = {
        "q_bins": len(fitted.columns),
        "fitted": int(fitted.determined.sum()),
        "reduced_chi2": float(np.median(reduced)) if reduced.size else float("nan"),
    }
    if fitted.shared is not None and fitted.weighed:
        record["reduced_chi2"] = float(fitted.shared.chi2) / max(int(fitted.shared.dof), 1)
    if fitted.law is not None:
        record |= {
            "slope": float(fitted.law.solution.values["slope"]),
            "law_chi2": float(fitted.law.solution.reduced_chi2),
        }
    if fitted.posterior is not None:
        chains = fitted.chains
        if "r_hat" in chains:
            record |= {
                "r_hat": float(np.nanmax(chains["r_hat"])),
                "ess": float(min(np.nanmin(chains["ess_bulk"]), np.nanmin(chains["ess_tail"]))),
                "divergences": int(np.nansum(chains["divergences"])),
                "mixed": int(np.isfinite(chains["r_hat"]).sum()) - len(fitted.checks),
            }
    record["parameters"] = [*_common(fitted, member), *_each(fitted)]
    return record


def _common(fitted: Fitted, member: Measurement) -> list[dict[str, Any]]:
    """Rows of what holds for all q-bins: shared parameters, and those of the power law."""
    rows = []
    if fitted.shared is not None:
        s = fitted.shared
        columns = zip(s.names, s.units, np.asarray(s.y), np.asarray(s.standard_errors), strict=True)
        told = {name: ["shared by all q-bins", *_sampled(fitted, name, 0)] for name in s.names}
        rows += [_row(name, unit, value, std, told[name], member) for name, unit, value, std in columns]
    if fitted.law is not None and member.fit is not None:
        law, name = fitted.law.solution, member.fit.law
        pivot = float(law.model.model.pivot)
        for key, text in (("value_at", f"{name} at q = {pivot:.4g} 1/Å"), ("slope", f"exponent of {name}(q)")):
            unit = "s" if key == "value_at" and name.startswith("tau") else ""
            rows.append(_row(key, unit, law.values[key], law.std[key], [text], member))
    return rows


def _row(name: str, unit: str, value: Any, std: Any, remarks: list[str], member: Measurement) -> dict[str, Any]:
    row = {"name": name, "unit": unit, "value": float(value), "std": float(std), "remarks": remarks}
    truth = {} if member.fit is None else member.fit.truth
    if name in truth:
        pull = (float(value) - truth[name]) / float(std) if std > 0 else float("nan")
        row["remarks"] = [*remarks, f"{name}: truth {truth[name]:.6g}, pull {pull:+.2f}"]
        row["far"] = bool(abs(pull) > _PULL)
    return row


def _each(fitted: Fitted) -> list[dict[str, Any]]:
    """Rows of the parameters of each q-bin, with the mean and deviation of its posterior."""
    rows = []
    units = (
        dict(zip(fitted.fits.groups[0].names, fitted.fits.groups[0].units, strict=True)) if fitted.fits.groups else {}
    )
    good = np.asarray(fitted.fits.success)
    for k, column in enumerate(fitted.columns):
        for name in fitted.local if good[k] else ():
            value, std = float(fitted.table[name][k]), float(fitted.table[f"{name}_std"][k])
            about = {"name": f"q[{column}].{name}", "unit": units.get(name, ""), "folded": True}
            told = [f"q = {float(fitted.curves.q[k]):.4g} 1/Å", *_sampled(fitted, name, k)]
            rows.append({**about, "value": value, "std": std, "remarks": told})
    return rows


def _sampled(fitted: Fitted, name: str, k: int) -> list[str]:
    """Mean and standard deviation of the posterior of a parameter of the k-th bin, in words, where there is one."""
    chains = fitted.chains
    if name not in chains or not np.isfinite(chains[name][k]):
        return []
    return [f"posterior {chains[name][k]:.6g} ± {chains[f'{name}_sd'][k]:.2g}"]


def _facts(outcome: Analysed) -> list[str]:
    result, fitted = outcome.result, outcome.fitted
    facts = []
    if fitted is not None:
        t, q = np.asarray(fitted.curves.t), np.asarray(fitted.curves.q)
        facts.append(f"delays {t.min():.3g} to {t.max():.3g} s")
        facts.append(f"q {q.min():.3g} to {q.max():.3g} 1/Å")
        hidden = int((~np.asarray(fitted.curves.mask)).sum())
        facts += [f"{hidden} of {fitted.curves.mask.size} points masked"] if hidden else []
        out = _left_out(result)
        facts += [f"{plural(out, 'pixel')} left out, not finite or marked as dead in some frame"] if out else []
        facts.append(_noise(fitted))
        if fitted.law is not None and outcome.member.fit is not None and outcome.member.fit.law.startswith("tau"):
            facts.append(_diffusion(fitted.law))
    facts += [] if result.scattering is None else [f"{result.scattering.mean.size} static bins"]
    return facts


def _noise(fitted: Fitted) -> str:
    """What the errors of the parameters know of how lags hang together."""
    if not fitted.weighed:
        return "g2 has no errors: those of parameters come from its scatter about the fit"
    covariance, count = fitted.curves.covariance, len(fitted.columns)
    off = np.zeros(count, bool)
    if covariance is not None:
        off = np.any(np.triu(np.asarray(covariance), 1) != 0, axis=(1, 2))
    if off.all():
        return "errors by the covariance of the lags"
    alone = "take lags as independent, and are too small where they are not"
    return f"errors {alone}" if not off.any() else f"errors of {plural(int(count - off.sum()), 'q-bin')} {alone}"


def _left_out(result: XPCSResult) -> int:
    """How many pixels of bins have no mean, because they were not finite at some time."""
    labels, mean = result.pixels.labels, result.pixels.mean
    if labels is None or mean is None:
        return 0
    return int(np.sum((np.asarray(labels) > 0) & ~np.isfinite(np.asarray(mean))))


def _diffusion(law: Dispersion) -> str:
    """D = 1 / (tau q^2), which is a constant where the slope is -2."""
    values, std = law.solution.values, law.solution.std
    q = float(law.solution.model.model.pivot)
    tau, error = float(values["value_at"]), float(std["value_at"])
    d = 1 / (tau * q**2)
    return f"1/(τ q²) = {d:.5g} ± {d * error / tau:.2g} Å²/s at q = {q:.3g} 1/Å"
