"""What is said of a fit that went through: one rule for a Solution, a batch, a table, a terminal and a report.

A fit is *converged*, *converged, look* or *failed*. To look at: directions that the data do not determine, a start
that was moved, parameters that ended at a bound, and a chi2 that the noise as given does not allow. Runs on the host,
on NumPy arrays; `success` is untouched by any of it.
"""

from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import numpy as np

CONVERGED, LOOK, FAILED = "converged", "converged, look", "failed"

_IMPROBABLE = 1e-6  # a chi2 less probable than this is no accident
_TOO_SMALL = 1e-3  # of chi2/dof: no noise that was estimated is wrong by that much; a unit is


if TYPE_CHECKING:
    from ._solution import Solution
else:
    Solution = Any  # which imports this module


class Facts(NamedTuple):
    """What the rule looks at, as NumPy arrays of one fit: names and flags of p elements, and numbers."""

    names: tuple[str, ...]
    determined: Any
    fixed: Any
    projected: Any
    at_bound: Any
    rank: Any
    chi2: Any
    dof: Any
    testable: bool


def facts_of(solution: Solution) -> Facts:
    """The facts of a Solution, or of a batch of them, with the axes of the batch in front."""
    s = solution
    seen = s.determined, s.fixed, s.projected, s.at_bound, s.rank, s.chi2, s.dof
    determined, fixed, projected, at_bound, rank, chi2, dof = (np.asarray(x) for x in jax.device_get(seen))
    return Facts(s.names, determined, fixed, projected, at_bound, rank, chi2, dof, s.testable)


def improbable(facts: Facts) -> np.ndarray:
    """True where chi2 is larger than the noise allows: probability below 1e-6 for dof degrees of freedom."""
    from scipy.special import gammaincc  # here, because importing it costs more than most fits

    judged = facts.testable & (facts.dof > 0) & np.isfinite(facts.chi2)
    dof, chi2 = np.where(judged, facts.dof, 1), np.where(judged, facts.chi2, 1)
    return np.asarray(judged & (gammaincc(dof / 2, np.maximum(chi2, 0) / 2) < _IMPROBABLE))


def implausible(facts: Facts) -> np.ndarray:
    """True where chi2/dof is so small that a unit must be wrong."""
    return np.asarray(facts.testable & (facts.dof > 0) & (facts.chi2 < _TOO_SMALL * facts.dof))


def to_look_at(facts: Facts) -> np.ndarray:
    """True where `remarks_of` has something to say; of a whole batch at once."""
    bound = np.any((facts.at_bound != 0) & ~facts.fixed, axis=-1)
    flags = np.any(~facts.determined | facts.projected, axis=-1) | bound
    return np.asarray(flags | improbable(facts) | implausible(facts) | ~np.isfinite(facts.chi2))


def remarks_of(solution: Solution) -> tuple[str, ...]:
    """The remarks on one fit."""
    return remarks(facts_of(solution))


def moved(facts: Facts) -> str:
    """Which starts were moved onto their bounds; empty for none."""
    outside = _named(facts, facts.projected)
    return f"the start of {outside} lay outside its bounds and was moved onto them" if outside else ""


def undetermined(facts: Facts) -> str:
    """Which parameters the data do not determine; empty for none."""
    lost = _named(facts, ~facts.determined)
    return (
        f"the data do not determine {lost} (rank {int(facts.rank)} of {int(np.sum(~facts.fixed))}): their errors are "
        "infinite. Fix some, or give a prior."
        if lost
        else ""
    )


def remarks(facts: Facts) -> tuple[str, ...]:
    """The remarks on one fit, from its facts."""
    said = [moved(facts), undetermined(facts)]
    for sign, side in ((-1, "lower"), (1, "upper")):
        there = _named(facts, (facts.at_bound == sign) & ~facts.fixed)
        if there:
            said.append(
                f"{there} ended at its {side} bound: errors there are not symmetric. Widen it, or fix it there."
            )
    if not np.isfinite(facts.chi2):
        said.append(f"chi2 is {float(facts.chi2):g}: the fit says nothing of how good it is")
    elif improbable(facts):
        ratio = float(facts.chi2) / float(facts.dof)
        said.append(
            f"chi2/dof is {ratio:.4g} for {int(facts.dof)} degrees of freedom, which the noise as given does not allow "
            f"(probability below {_IMPROBABLE:g}): errors are too small, by {ratio**0.5:.2g} if the model is right. "
            "Free the noise, scale the errors (scale_covariance=True), mask outliers, or look for what the model lacks."
        )
    elif implausible(facts):
        ratio = float(facts.chi2) / float(facts.dof)
        said.append(f"chi2/dof is {ratio:.3g}: the scatter is far below the noise. Are data and sigma in one unit?")
    return tuple(words for words in said if words)


def verdict_of(success: bool, said: tuple[str, ...]) -> str:
    """The verdict on one fit, from whether it converged and what is to be looked at."""
    return FAILED if not success else LOOK if said else CONVERGED


def _named(facts: Facts, which: np.ndarray) -> str:
    return ", ".join(name for name, here in zip(facts.names, which, strict=True) if here)
