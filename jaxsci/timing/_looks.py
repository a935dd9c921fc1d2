"""What figures of many pulsars show, by few compiled programs."""

import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from ..core._dataset import stack
from ..fitting._program import call
from ._anchor import AnchoredTOAs, at_reference
from ._array import Member, _member, _widen, buckets
from ._fit import TimingSolution
from ._model import TimingModel
from ._toas import TOAs
from ._whitened import ordered, standardise


class Look(NamedTuple):
    """Of each of n TOAs: residuals with the par file and with the fit, s, less their weighted means; `whitened` as
    `timing.whitened` has the latter; sigma, s.
    """

    before: np.ndarray
    after: np.ndarray
    whitened: np.ndarray
    sigma: np.ndarray


def looks(solutions: Sequence[TimingSolution], toas: Sequence[TOAs]) -> list[Look]:
    """A `Look` at each solution, through as many programs as `fit_array` has."""
    members = [
        _member(k, solution.model, toa, ()) for k, (solution, toa) in enumerate(zip(solutions, toas, strict=True))
    ]
    found: dict[int, Look] = {}
    for bucket in buckets(members):
        sizes = {name: max(1, *(m.sizes[name] for m in bucket)) for name in bucket[0].sizes}
        found |= {member.place: _look(member, sizes) for member in bucket}
    return [found[k] for k in range(len(members))]


def _look(member: Member, sizes: dict[str, int]) -> Look:
    model, data = _widen(member, sizes)
    both = stack([at_reference(model), dataclasses.replace(model, par=None)])
    parts = call(_parts, (both, data))
    before, after, white, sigma = (np.asarray(ordered(part, member.order, len(member.toas))) for part in parts)
    weight = 1 / sigma**2
    before, after = (r - np.sum(weight * r) / np.sum(weight) for r in (before, after))
    return Look(before, after, white, sigma)


def _parts(both: TimingModel, data: AnchoredTOAs) -> tuple[Array, ...]:
    before, after = jax.lax.map(lambda model: model.residual(data), both)
    noise: Any = data.noise
    return before, after, standardise(after, data, noise), jnp.sqrt(noise.variance())
