"""Whether a posterior can be believed: criteria with numbers, and what was found for each.

The thresholds are those of Vehtari et al. 2021 for chains, and two of this house for the fit: that least squares and
posterior agree, and that the data lie where the posterior expects them. What fails is named with its remedy.
`Posterior.check` and its table use these.
"""

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ..core import Module
from ._diagnostics import ess_bulk, ess_tail, r_hat
from ._predict import places_of_data, scatter_is_known

if TYPE_CHECKING:
    from ._posterior import Posterior
else:
    Posterior = Any  # which imports this module


class Criteria(NamedTuple):
    """What a posterior is held to.

    - `r_hat`: of every element, below this. `ess`: bulk and tail of every element, above this.
    - `divergences`: at most so many. `distance`: of the least-squares value from the posterior mean, in posterior
      standard deviations, at most this.
    - `coverage`: the share of data that the predictive interval should hold. `level`: the share it does hold should lie
      within the binomial interval of this probability.
    """

    r_hat: float = 1.01
    ess: float = 400.0
    divergences: int = 0
    distance: float = 2.0
    coverage: float = 0.95
    level: float = 0.99


class Failure(NamedTuple):
    """A criterion that is not met: its name, where, the value, the limit, and what to do."""

    criterion: str
    where: str
    value: float
    limit: str
    remedy: str

    def __str__(self) -> str:
        place = f" of {self.where}" if self.where else ""
        return f"{self.criterion}{place} is {self.value:.6g}, but should be {self.limit}: {self.remedy}"


class Checked(Module):
    """What a check found: true where every criterion that was asked is met.

    - `failed`: those that are not. `values`: what was found, by criterion: the worst of all elements.
    - `skipped`: criteria that could not be asked, and why.
    """

    failed: tuple[Failure, ...]
    values: dict[str, float]
    skipped: dict[str, str]

    @property
    def passed(self) -> bool:
        """True where every criterion that was asked is met."""
        return not self.failed

    def __bool__(self) -> bool:
        return self.passed

    def __str__(self) -> str:
        said = [str(failure) for failure in self.failed] or ["every criterion is met"]
        return "\n".join([*said, *(f"{name} was not asked: {why}" for name, why in self.skipped.items())])


_LONGER = "sample longer (num_samples, num_warmup)"
_CAP = " or let trees grow (max_tree_depth)"


def check(posterior: Posterior, criteria: Criteria) -> Checked:
    """Hold a posterior to the criteria."""
    if posterior.refused:
        return Checked((Failure("posterior", "", np.nan, "one that can be sampled", posterior.refused),), {}, {})
    failed: list[Failure] = []
    values: dict[str, float] = {}
    more = _LONGER + (_CAP if posterior.saturation > 0 else "")
    places = [posterior.start.names.index(name) for name in posterior.names]
    host = np.asarray(posterior.draws, float)[..., places]
    each = [host[..., k] for k in range(len(places))]
    apart = np.abs(np.asarray(posterior.start.y)[places] - host.mean((0, 1))) / host.std((0, 1), ddof=1)
    columns = {
        "r_hat": (np.array([r_hat(x) for x in each]), criteria.r_hat, more),
        "ess_bulk": (np.array([ess_bulk(x) for x in each]), criteria.ess, more),
        "ess_tail": (np.array([ess_tail(x) for x in each]), criteria.ess, more),
        "distance": (
            apart,
            criteria.distance,
            "the posterior is far from a normal one about the fit: report the posterior, or fit from another start",
        ),
    }
    for name, (found, limit, remedy) in columns.items():
        least = name.startswith("ess")
        values[name] = float(np.min(found) if least else np.max(found))
        for k in np.flatnonzero(~(found > limit if least else found < limit)):
            words = f"{'above' if least else 'below'} {limit:g}"
            failed.append(Failure(name, posterior.names[k], float(found[k]), words, remedy))
    values["divergences"] = posterior.divergences
    if posterior.divergences > criteria.divergences:
        remedy = "raise target_accept (.95), give priors, or write the model in other parameters"
        failed.append(Failure("divergences", "", posterior.divergences, f"at most {criteria.divergences}", remedy))
    return _check_coverage(posterior, criteria, failed, values)


def _check_coverage(
    posterior: Posterior, criteria: Criteria, failed: list[Failure], values: dict[str, float]
) -> Checked:
    if not scatter_is_known(posterior):
        why = "this likelihood does not say how data scatter"
        return Checked(tuple(failed), values, {"coverage": why})
    from scipy.stats import binom

    place, used = places_of_data(posterior)
    edge = (1 - criteria.coverage) / 2
    inside, count = int(np.sum((place > edge) & (place < 1 - edge) & used)), int(np.sum(used))
    low, high = binom.interval(criteria.level, count, criteria.coverage)
    values["coverage"] = inside / count
    if not low <= inside <= high:
        remedy = "more of the data lie outside than the noise allows: look at the residuals, the noise or the model"
        if inside > high:
            remedy = "more of the data lie inside than should: the noise is smaller than was given"
        limits = f"between {low / count:.4g} and {high / count:.4g}"
        failed.append(Failure("coverage", "", inside / count, limits, remedy))
    return Checked(tuple(failed), values, {})
