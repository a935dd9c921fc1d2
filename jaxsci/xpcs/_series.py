"""Many curves at once: how steady a run was, how runs agree, which of them to leave out of a mean.

Intensities against time show beam drifts and their frequencies, means over segments show whether a sample changes, and
g2 of many runs is averaged without those that stand apart. NaN is a number that is not there: it is left out, and never
spreads to what does not need it.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from ..core import AnyArray, Module, Scalar, as_array, suggest
from ._groups import ratio

SCALES = ("baseline", "contrast")


class Spectrum(NamedTuple):
    """The power of a signal at each frequency: in 1/unit of time, and in signal squared times unit of time."""

    frequencies: Float[Array, " f"]
    power: Float[Array, " f"]


class Stability(Module):
    """Means over segments of a run, which tell whether it was steady.

    - `means`: of each segment and bin. `errors`: their standard errors from the scatter within the segment.
    - `drift`: mean of the last over mean of the first segment, less one. `chi2`: sum over segments of the squared
      distance from their weighted mean in units of the errors, over the segments less one: near 1 for a steady run
      whose frames are independent.
    """

    means: Float[Array, "s b"]
    errors: Float[Array, "s b"]
    drift: Float[Array, " b"]
    chi2: Float[Array, " b"]


class Averaged(Module):
    """A mean over runs.

    - `mean`: of the runs that were kept. `error`: its standard error: of the given errors, or from the scatter among
      runs. `kept`: True for each run that took part. `runs`: how many took part in each number.
    """

    mean: Float[Array, "..."]
    error: Float[Array, "..."]
    kept: Bool[Array, " m"]
    runs: Float[Array, "..."]


def stability(intensity: Float[Array, "t b"], segments: int) -> Stability:
    """Cut a run into segments of nearly equal length, and compare their mean intensities.

    **Arguments:** `intensity`: of each frame and bin, as `saxs_over_time` gives it. `segments`: how many, 2 or more.

    **Raises:** `ValueError` for fewer than two segments, or fewer than two frames in one.
    """
    frames = intensity.shape[0]
    if segments < 2 or frames < 2 * segments:
        raise ValueError(
            f"{frames} frames make no {segments} segments: two segments or more are needed, of two frames or more"
        )
    segment = jnp.arange(frames) * segments // frames

    def of_one(k: Array) -> tuple[Array, Array]:
        inside = (segment == k)[:, None] & jnp.isfinite(intensity)
        return _mean_and_error(intensity, inside)

    means, errors = jax.vmap(of_one)(jnp.arange(segments))
    weights = jnp.where(errors > 0, 1 / jnp.where(errors > 0, errors, 1) ** 2, 0)
    middle = ratio(jnp.sum(weights * jnp.nan_to_num(means), axis=0), jnp.sum(weights, axis=0))
    chi2 = jnp.sum(weights * jnp.nan_to_num(means - middle[None]) ** 2, axis=0) / (segments - 1)
    return Stability(means, errors, means[-1] / means[0] - 1, jnp.where(jnp.isfinite(middle), chi2, jnp.nan))


def intensity_spectrum(intensity: Float[Array, " t"], step: float | Scalar) -> Spectrum:
    """Compute the power spectrum of an intensity against time, its mean taken off (a one-sided periodogram).

    The sum of the power times the width of a frequency is the variance of the signal. Frames that are NaN are taken to
    have the mean, which lowers the power by their share.

    **Arguments:** `intensity`: of each frame. `step`: the time between frames.
    """
    there = jnp.isfinite(intensity)
    mean = ratio(jnp.sum(jnp.where(there, intensity, 0)), jnp.sum(there.astype(intensity.dtype)))
    signal = jnp.where(there, intensity - mean, 0)
    n, step = intensity.shape[0], jnp.asarray(step, intensity.dtype)
    power = jnp.abs(jnp.fft.rfft(signal)) ** 2 * step / n
    # every frequency but zero and, for an even number of frames, the last stands for a negative one too
    twice = jnp.ones_like(power).at[1 : (n + 1) // 2].set(2)
    return Spectrum(jnp.arange(n // 2 + 1, dtype=intensity.dtype) / (n * step), twice * power)


def normalise_g2(
    g2: Float[Array, "*lead t"], how: str = "baseline", tail: int = 5, head: int = 1
) -> Float[Array, "*lead t"]:
    """Scale correlation functions for comparison, all at once.

    **Arguments:** `g2`: over delays on the last axis. `how`: "baseline" divides by the mean of the last `tail` delays,
    so that it ends at 1; "contrast" gives (g2 - baseline) / (top - baseline), from 1 to 0, with the mean of the first
    `head` delays as top. Delays that are NaN take no part.

    **Raises:** `ValueError` for another word, or more delays than there are.
    """
    if how not in SCALES:
        raise ValueError(f"no scale {how!r}{suggest(how, SCALES)}: {', '.join(SCALES)}")
    if not (0 < tail <= g2.shape[-1] and 0 < head <= g2.shape[-1]):
        raise ValueError(f"tail and head are 1 to {g2.shape[-1]} delays, but they are {tail} and {head}")
    base = _mean(g2[..., -tail:])
    return g2 / base if how == "baseline" else (g2 - base) / (_mean(g2[..., :head]) - base)


def correlation(curves: Float[Array, "b t"]) -> Float[Array, "b b"]:
    """Compute the correlation coefficients between curves, such as the intensities of bins of q against time.

    Of two curves the points count where both are finite; NaN for fewer than two of them, or a curve without scatter.
    """
    there = jnp.isfinite(curves)
    values, both = jnp.where(there, curves, 0), there.astype(curves.dtype)

    def pair(x: Array, wx: Array, y: Array, wy: Array) -> Array:
        w = wx * wy
        count = jnp.sum(w)
        dx, dy = (w * (z - ratio(jnp.sum(w * z), count)) for z in (x, y))
        return ratio(jnp.sum(dx * dy), jnp.sqrt(jnp.sum(dx * dx) * jnp.sum(dy * dy)))

    rows = jax.vmap(pair, in_axes=(None, None, 0, 0))
    return jax.vmap(rows, in_axes=(0, 0, None, None))(values, both, values, both)


def typical(values: Float[Array, "m *n"]) -> tuple[Float[Array, "*n"], Float[Array, "*n"]]:
    """Give the median over the first axis, such as q, and 1.4826 times the median distance from it, NaN left out."""
    middle = jnp.nanmedian(values, axis=0)
    return middle, 1.4826 * jnp.nanmedian(jnp.abs(values - middle[None]), axis=0)


def steady(statistic: Float[Array, " m"], cutoff: float = 3.0) -> Bool[Array, " m"]:
    """Say which runs agree with the others in some number, such as the baseline of their g2.

    **Arguments:** `statistic`: one number a run; a run whose number is NaN is not kept. `cutoff`: the largest distance
    from the median, in units of 1.4826 times the median distance.

    **Returns:** True for each run to keep. Where most numbers are equal, those that differ are not kept.
    """
    middle, scatter = typical(statistic)
    # a scatter of rounding alone is none: equal runs are all kept
    least = 1e-12 * jnp.abs(middle)
    return jnp.abs(statistic - middle) <= cutoff * scatter + least


def average_runs(
    values: AnyArray,
    errors: AnyArray | None = None,
    *,
    kept: AnyArray | None = None,
    statistic: AnyArray | None = None,
    cutoff: float = 3.0,
) -> Averaged:
    """Average runs, such as g2 of many files, without those that stand apart.

    **Arguments:** `values`: one run after another on the first axis; NaN where a run has no number. `errors`: their
    standard errors, by which the mean is then weighted. `kept`: True for each run to take part; all by default.
    `statistic`: one number a run; those that `steady` finds apart by `cutoff` are left out.

    **Raises:** `ValueError` where no run is left, or shapes differ.
    """
    if not cutoff > 0:
        raise ValueError(f"cutoff should be a number of scatters, above 0, but it is {cutoff}")
    numbers: Float[Array, m * n] = as_array(values)
    sigma: Float[Array, m * n] | None = None if errors is None else as_array(errors)
    runs = numbers.shape[0]
    keep = np.ones(runs, bool) if kept is None else np.asarray(kept, bool)
    if statistic is not None:
        among = jnp.where(as_array(keep), as_array(statistic), jnp.nan)
        keep = keep & np.asarray(steady(among, cutoff))
    if keep.shape != (runs,) or (errors is not None and errors.shape != values.shape):
        raise ValueError(f"there are {runs} runs, but kept has shape {keep.shape}, or errors another than the values")
    if not keep.any():
        raise ValueError(f"none of {runs} runs is left to average: every one was skipped or stands apart")
    mask = as_array(keep).reshape(-1, *[1] * (numbers.ndim - 1)) & jnp.isfinite(numbers)
    count = jnp.sum(mask.astype(numbers.dtype), axis=0)
    if sigma is None:
        return Averaged(*_mean_and_error(numbers, mask), as_array(keep), count)
    good = mask & (sigma > 0) & jnp.isfinite(sigma)
    weight = jnp.where(good, 1 / jnp.where(good, sigma, 1) ** 2, 0)
    total = jnp.sum(weight, axis=0)
    mean = ratio(jnp.sum(weight * jnp.where(good, numbers, 0), axis=0), total)
    error, used = jnp.sqrt(ratio(jnp.ones_like(total), total)), jnp.sum(good.astype(numbers.dtype), axis=0)
    return Averaged(mean, error, as_array(keep), used)


def _mean_and_error(values: Float[Array, "m *n"], inside: Bool[Array, "m *n"]) -> tuple[Array, Array]:
    """The mean over the first axis and its standard error by the scatter; NaN for one number alone."""
    count = jnp.sum(inside.astype(values.dtype), axis=0)
    mean = ratio(jnp.sum(jnp.where(inside, values, 0), axis=0), count)
    away = jnp.where(inside, values - mean[None], 0)
    variance = ratio(jnp.sum(away * away, axis=0), count * (count - 1))
    return mean, jnp.where(count > 1, jnp.sqrt(jnp.where(count > 1, variance, 1)), jnp.nan)


def _mean(values: Float[Array, "*lead t"]) -> Float[Array, "*lead 1"]:
    there = jnp.isfinite(values)
    total = jnp.sum(jnp.where(there, values, 0), axis=-1, keepdims=True)
    return ratio(total, jnp.sum(there.astype(values.dtype), axis=-1, keepdims=True))
