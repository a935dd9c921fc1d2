"""Residuals less the noise that neighbours have in common, in units of their own errors.

With red noise residuals wander, and their scatter says nothing about the fit. What is left after the most probable
realisation of the common noise should scatter by 1, and shows outliers and wrong errors. Plots and the residual summary
take it from here.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ...core import AbstractLikelihood
from .._anchor import AnchoredTOAs, tied
from .._components import TimingNoise
from .._fit import TimingSolution, bare
from .._model import TimingModel
from .._toas import TOAs


def whitened(model: TimingModel | TimingSolution, toas: TOAs) -> Float[Array, " n"]:
    """Compute residuals less the most probable correlated noise, over sigma: sqrt(N) C^-1 (r - c).

    C = N + K is the covariance of the noise, N its white part, and K C^-1 r the most probable realisation of the
    rest (van Haasteren and Vallisneri 2014, Phys. Rev. D 90, eq. 26). The constant c is the generalised mean. With
    white noise alone they are residuals over their errors.

    **Arguments:** `model`: a model or a solution, with the TOAs that were fitted.

    **Returns:** numbers without unit, shape (n,), in the order of the TOAs, with a scatter of a little below 1 where
    model and noise are right.
    """
    start, noise = (model.model, model.fit.noise) if isinstance(model, TimingSolution) else (model, None)
    data, order = tied(start, toas)
    return ordered(_whitened(bare(start), data, data.noise if noise is None else noise), order, len(toas))


def ordered(values: Array, order: np.ndarray, count: int) -> Array:
    """Back from the order of the epochs to that of the n TOAs, without what comes after them."""
    out = np.empty(count)
    out[order[:count]] = np.asarray(values)[:count]
    return jnp.asarray(out)


@eqx.filter_jit
def _whitened(model: TimingModel, data: AnchoredTOAs, noise: AbstractLikelihood) -> Array:
    return standardise(model.residual(data), data, noise)


def standardise(residual: Float[Array, " n"], data: AnchoredTOAs, noise: AbstractLikelihood) -> Float[Array, " n"]:
    """sqrt(N) C^-1 (r - c), in the order of the epochs; with C^-1 = W^T W, W what whitens."""
    assert isinstance(noise, TimingNoise)
    mask = data.mask
    timed = jnp.ones_like(mask) if data.measures is None else ~data.measures
    ready = noise.prepare(mask)

    def solve(rows: Array) -> Array:
        # whitening is linear: its transpose is its derivative backwards
        white, back = jax.vjp(lambda r: ready.whiten(r, mask), rows)
        return back(white)[0]

    ones = jnp.where(mask & timed, 1.0, 0.0)
    level, weight = solve(residual), solve(ones)
    centred = level - weight * (ones @ level / (ones @ weight))
    return jnp.where(mask, jnp.sqrt(noise.variance()) * centred, 0.0)
