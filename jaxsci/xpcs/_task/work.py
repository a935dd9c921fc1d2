"""Carries out what a config of `task = "xpcs"`, or a command, asks for: correlation, fits, posterior, scattering.

Measurements run one after the other, the q-bins of each in one batch. A bin that cannot be fitted, or whose posterior
is none, is told of that bin, and the others go on. The task and the commands call `analyse`.
"""

import time

import jax
import jax.numpy as jnp
import numpy as np

from ...fitting import BatchSolution
from ...runs import CLASS_ERRORS, REFUSED, Refusal, Untried, first_line
from ...sampling import BatchPosterior, sample
from .._correlators.correlate import correlate
from .._global import Curves, Dispersion, fit_g2, fit_power_law
from .._result import XPCSResult, result_of
from .._saxs import Curve, Exposure, normalise, subtract_background
from .config import Draws, Fit, Measurement, Saxs
from .detector import Frames
from .outcomes import Analysed, Fitted, Scattered


def analyse(member: Measurement) -> Analysed | Untried:
    """Analyse a measurement; one that cannot be begun says why."""
    began = time.perf_counter()
    try:
        result = correlated(member.given) if isinstance(member.given, Frames) else member.given
        fitted = None if member.fit is None else fitted_g2(result.curves, member.fit, member.posterior)
        scattered = None if member.saxs is None else scattering(result, member.saxs)
    except (OSError, *CLASS_ERRORS) as error:
        return Untried(member, REFUSED, first_line(error))
    return Analysed(member, result, fitted, scattered, time.perf_counter() - began)


def correlated(frames: Frames) -> XPCSResult:
    """Correlate frames."""
    found = correlate(
        frames.path, frames.detector.partition, dataset=frames.dataset, two_time=frames.two_time, **frames.options
    )
    return result_of(found, frames.detector, frames.frame_time, frames.path.stem)


def fitted_g2(curves: Curves, fit: Fit, posterior: Draws | None) -> Fitted:
    """Fit the curves, their dependence on q, and sample the posterior where it is asked for."""
    mine = fit.curves(curves)
    found = fit_g2(
        mine,
        fit.model,
        free=fit.free,
        shared=fit.shared,
        bounds=fit.bounds or None,
        priors=fit.priors or None,
        max_steps=fit.max_steps,
    )
    law, why = _law(found, mine, fit)
    drawn = None if posterior is None else _drawn(found, mine, posterior)
    return Fitted(mine, fit.places(curves), found, law, why, drawn)


def _law(found: BatchSolution, curves: Curves, fit: Fit) -> tuple[Dispersion | None, str]:
    """The power law, or why there is none."""
    if not fit.law or (found.shared is not None and fit.law in found.shared.names):
        return None, "" if not fit.law else f"{fit.law} is shared by all q-bins, so that it has no power law"
    try:
        return fit_power_law(found, curves.q, fit.law), ""
    except ValueError as error:
        return None, first_line(error)


def _drawn(found: BatchSolution, curves: Curves, how: Draws) -> BatchPosterior:
    drawn: BatchPosterior = sample(
        found,
        curves.datasets(),
        key=jax.random.key(how.seed),
        num_warmup=how.warmup,
        num_samples=how.draws,
        num_chains=how.chains,
        target_accept=how.target_accept,
    )
    return drawn


def scattering(result: XPCSResult, how: Saxs) -> Scattered:
    """I(q) of a measurement, less its background, normalised.

    **Raises:** `ValueError` where there is no scattering, or the background is over other bins.
    """
    plain = rings(result)
    found = plain
    if how.background is not None:
        other = rings(how.background)
        if not np.allclose(np.asarray(other.x), np.asarray(plain.x), rtol=1e-6):
            raise ValueError("the background is over other values of q than the sample: give one with the same q map")
        mine, theirs = (
            Exposure(jnp.asarray(transmission), jnp.asarray(flux))
            for transmission, flux in zip(how.transmission, how.flux, strict=True)
        )
        found = subtract_background(plain, other, mine, theirs, weight=how.weight)
    return Scattered(plain, normalise(found, how.normalise))


def rings(result: XPCSResult) -> Curve:
    """I(q) of a result: static bins of one q averaged over phi, with errors by the scatter of its segments.

    **Raises:** `ValueError` where the result has no scattering.
    """
    seen = result.scattering
    if seen is None:
        raise ValueError(f"{result.name} has no scattering_1d")
    q, place = np.unique(np.asarray(seen.q), return_inverse=True)
    pixels = _pixels(result, len(place))
    count = np.bincount(place, pixels)

    def mean(values: np.ndarray) -> np.ndarray:
        good = np.isfinite(values)
        weight = np.bincount(place, np.where(good, pixels, 0))
        total = np.bincount(place, np.where(good, pixels * np.where(good, values, 0), 0))
        return np.where(weight > 0, total / np.where(weight > 0, weight, 1), np.nan)

    error = np.full(q.size, np.nan)
    if seen.segments is not None and seen.segments.shape[0] > 1:
        parts = np.stack([mean(row) for row in np.asarray(seen.segments)])
        error = parts.std(axis=0, ddof=1) / np.sqrt(len(parts))
    level = mean(np.asarray(seen.mean))
    return Curve(jnp.asarray(q), jnp.asarray(level), jnp.asarray(error), jnp.asarray(count))


def _pixels(result: XPCSResult, bins: int) -> np.ndarray:
    """How many pixels each static bin has; one each where the labels are not known."""
    labels = result.pixels.static_labels
    if labels is None:
        return np.ones(bins)
    counts = np.bincount(np.asarray(labels).ravel())[1:]
    counts = counts[counts > 0]
    return counts.astype(float) if counts.size == bins else np.ones(bins)


def refusals(members: list[Measurement]) -> dict[int, Refusal]:
    """Measurements, by their places, that would end before their first step."""
    found: dict[int, Refusal] = {}
    for place, member in enumerate(members):
        if isinstance(member.given, Frames):
            continue
        try:
            _try(member, member.given)
        except CLASS_ERRORS as error:
            found[place] = Refusal(REFUSED, first_line(error))
    return found


def _try(member: Measurement, result: XPCSResult) -> None:
    if member.fit is not None and not bool(member.fit.curves(result.curves).mask.any()):
        raise ValueError("every point of g2 is masked, or outside of the delays, so that there is nothing to fit")
    if member.saxs is not None:
        scattering(result, member.saxs)
