"""Residuals of many solutions, before and after the fit, by few compiled programs.

A report shows for each pulsar its residuals with the par file, with the fit, and whitened. Compiled for each length by
itself that would take longer than the fits; in the buckets of `fit_array` all pulsars of a bucket share a program. Runs
call `looks` for their figures.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from ...datasets import stack
from ...fitting import compiled
from .._anchor import AnchoredTOAs, at_reference
from .._array import _member, buckets
from .._fit import TimingSolution, bare
from .._model import TimingModel
from .._stack import Layout, Member, lay, widen
from .._toas import TOAs
from .whitened import ordered, standardise


class Look(NamedTuple):
    """Of each of n TOAs: residuals with the par file and with the fit, s, less their weighted means; `whitened` as
    `timing.whitened` has the latter; sigma, s.
    """

    before: np.ndarray
    after: np.ndarray
    whitened: np.ndarray
    sigma: np.ndarray


def weighted_rms(residual: np.ndarray, sigma: np.ndarray) -> float:
    """The root of the mean square of residuals, each weighted by 1 / sigma^2, in their unit."""
    return float(np.sqrt(np.average(residual**2, weights=1 / sigma**2)))


def looks(solutions: Sequence[TimingSolution], toas: Sequence[TOAs]) -> list[Look]:
    """A `Look` at each solution, with the noise that was fitted, through as many programs as `fit_array` has."""
    members = [_shown(k, *pair) for k, pair in enumerate(zip(solutions, toas, strict=True))]
    found: dict[int, Look] = {}
    for bucket in buckets(members):
        layout = lay(bucket)
        found |= {member.place: _look(member, layout) for member in bucket}
    return [found[k] for k in range(len(members))]


def _shown(place: int, solution: TimingSolution, toas: TOAs) -> Member:
    member = _member(place, solution.model, toas, ())
    if solution.noise is None:
        return member
    return member._replace(data=dataclasses.replace(member.data, noise=solution.noise))


def _look(member: Member, layout: Layout) -> Look:
    model, data = widen(member, layout)
    model = bare(model)
    both = stack([at_reference(model), model])
    parts = compiled(_parts, (both, data))
    before, after, white, sigma = (np.asarray(ordered(part, member.order, len(member.toas))) for part in parts)
    weight = 1 / sigma**2
    before, after = (r - np.sum(weight * r) / np.sum(weight) for r in (before, after))
    return Look(before, after, white, sigma)


def _parts(both: TimingModel, data: AnchoredTOAs) -> tuple[Array, ...]:
    # one program for both models: the residual is compiled once
    before, after = jax.lax.map(lambda model: model.residual(data), both)
    noise: Any = data.noise
    return before, after, standardise(after, data, noise), jnp.sqrt(noise.variance())
