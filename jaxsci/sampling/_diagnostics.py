"""How far chains can be believed: R-hat, effective sample sizes, intervals of highest density, BFMI.

Numbers are computed in double precision from the draws on the host and never rounded, since a threshold such as 1.01 is
meant to be crossed. They are those of Stan and ArviZ, against which tests hold them. `Posterior` asks for them.
Vehtari, Gelman, Simpson, Carpenter and Buerkner 2021, Bayesian Analysis 16, 667; Geyer 1992, Statistical Science 7,
473; Betancourt 2016, arXiv:1604.00695.
"""

import math

import numpy as np
from jaxtyping import Bool, Float

Draws = Float[np.ndarray, "chains draws"]
"""Draws of one quantity."""


def r_hat(x: Draws) -> float:
    """The potential scale reduction of split chains: the larger one of ranks and of folded ranks (section 4)."""
    if not _usable(x):
        return math.nan
    halves = split(x)
    folded = np.abs(halves - np.median(halves))
    return max(_plain_r_hat(normal_scores(halves)), _plain_r_hat(normal_scores(folded)))


def ess_bulk(x: Draws) -> float:
    """How many independent draws would tell the centre as well: of the normal scores of split chains."""
    return effective(normal_scores(split(x))) if _usable(x) else math.nan


def ess_tail(x: Draws) -> float:
    """How many independent draws would tell the 5 % and 95 % quantiles as well: the smaller of the two."""
    if not _usable(x):
        return math.nan
    return min(effective(split((x <= np.quantile(x, p)).astype(float))) for p in (0.05, 0.95))


def ess_mean(x: Draws) -> float:
    """How many independent draws would tell the mean as well: its standard error is sd / sqrt of this."""
    return effective(split(x)) if _usable(x) else math.nan


def hdi(x: Float[np.ndarray, "..."], probability: float = 0.94) -> tuple[float, float]:
    """(lower, upper) of the shortest interval that holds this share of the draws."""
    if not 0 < probability < 1:
        raise ValueError(f"probability should lie between 0 and 1, but it is {probability}")
    ordered = np.sort(x, axis=None)
    if not ordered.size or not np.isfinite(ordered).all():
        return math.nan, math.nan
    inside = min(int(np.floor(probability * ordered.size)), ordered.size - 1)
    at = int(np.argmin(ordered[inside:] - ordered[: ordered.size - inside]))
    return float(ordered[at]), float(ordered[at + inside])


def bfmi(energy: Draws) -> Float[np.ndarray, " chains"]:
    """The Bayesian fraction of missing information of each chain: below .3 momenta explore the energies too slowly."""
    spread = np.var(energy, axis=1, ddof=1)
    steps = np.mean(np.diff(energy, axis=1) ** 2, axis=1)
    return np.divide(steps, spread, out=np.full_like(spread, np.nan), where=spread > 0)


def split(x: Draws) -> Float[np.ndarray, "halves draw"]:
    """Both halves of each chain as chains; of an odd number of draws the one in the middle is left out."""
    half = x.shape[1] // 2
    return np.concatenate([x[:, :half], x[:, x.shape[1] - half :]])


def normal_scores(x: Draws) -> Draws:
    """Each draw's place among all as a quantile of the normal distribution (eq. 14); ties share their mean rank."""
    from scipy.special import ndtri
    from scipy.stats import rankdata

    ranks = rankdata(x, method="average").reshape(x.shape)
    return ndtri((ranks - 3 / 8) / (x.size + 1 / 4))


def _usable(x: Draws) -> bool:
    if np.ndim(x) != 2:
        raise ValueError(f"draws should have shape (chains, draws), but they have {np.shape(x)}")
    return x.shape[1] >= 4 and bool(np.isfinite(x).all())


def _plain_r_hat(x: Draws) -> float:
    draws = x.shape[1]
    within = float(np.mean(np.var(x, axis=1, ddof=1)))
    between = float(np.var(np.mean(x, axis=1), ddof=1))
    if within == 0:
        return math.nan
    return math.sqrt(between / within + (draws - 1) / draws)


def effective(x: Draws) -> float:
    """The effective sample size of chains as they are (section 3.2), by Geyer's initial monotone sequence."""
    chains, draws = x.shape
    if np.ptp(x) < np.finfo(float).resolution:
        return float(x.size)
    covariance = np.mean(_autocovariance(x), axis=0)
    within = covariance[0] * draws / (draws - 1)
    total = covariance[0] + (np.var(np.mean(x, axis=1), ddof=1) if chains > 1 else 0)
    rho = 1 - (within - covariance) / total
    rho[0] = 1
    time = max(_correlation_time(rho), 1 / math.log10(x.size))
    return x.size / time


def _correlation_time(rho: Float[np.ndarray, " draws"]) -> float:
    """-1 + 2 sum of the autocorrelations, as far as sums of neighbouring pairs stay positive, made to fall."""
    pairs = rho[: (len(rho) - 1) // 2 * 2].reshape(-1, 2)
    sums = pairs.sum(axis=1)
    negative = np.flatnonzero(sums < 0)
    count = int(negative[0]) if negative.size else max(len(sums) - 1, 1)
    falling = np.minimum.accumulate(sums[:count])
    # of the first pair that is left out, the even one still tells something where it is positive
    more = max(float(pairs[count, 0]), 0.0) if count < len(pairs) else 0.0
    return -1 + 2 * float(np.sum(falling)) + more


def _autocovariance(x: Draws) -> Draws:
    draws = x.shape[1]
    centred = x - np.mean(x, axis=1, keepdims=True)
    spectrum = np.fft.rfft(centred, 2 * draws, axis=1)
    return np.fft.irfft(np.abs(spectrum) ** 2, axis=1)[:, :draws] / draws


def saturated(num_steps: np.ndarray, max_tree_depth: int) -> Bool[np.ndarray, "..."]:
    """True for draws whose tree grew to its cap, which therefore moved less far than they should."""
    return num_steps >= 2**max_tree_depth - 1
