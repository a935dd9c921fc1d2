"""Residuals averaged within epochs, with the errors that an epoch has.

A wideband receiver gives dozens of TOAs within a minute, one for each channel; what an eye looks for in residuals, red
noise or an orbit, shows in their averages. The jitter of an epoch (ECORR) is common to its TOAs and does not average
out, so that it is part of the error. Plots, reports and researchers call `averages`.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Int

from ...core import Module, as_array
from .._anchor import lay_out
from .._components import TimingNoise
from .._fit import TimingSolution, residuals
from .._model import TimingModel
from .._toas import TOAs

_EPOCH = 1.0  # s: what ECORR joins, in PINT too


class EpochAverages(Module):
    """The weighted means of TOAs over s epochs, in the order of time.

    - `mjd`: MJD (UTC). `frequency`: MHz, infinity where a TOA has that. `residual`, `sigma`: s, `sigma` the standard
      error with EFAC, EQUAD and ECORR, without red noise.
    - `count`: how many TOAs each has. `epoch`: the epoch of each of the n TOAs, counted from 0.
    """

    mjd: Float[Array, " s"]
    frequency: Float[Array, " s"]
    residual: Float[Array, " s"]
    sigma: Float[Array, " s"]
    count: Int[Array, " s"]
    epoch: Int[Array, " n"]


def averages(
    model: TimingModel | TimingSolution,
    toas: TOAs,
    *,
    residual: ArrayLike | None = None,
    seconds: float | int = _EPOCH,
) -> EpochAverages:
    """Average residuals within epochs by generalised least squares.

    TOAs are of one epoch where they came within some `seconds` of its first and have the same ECORR; those without
    an ECORR are taken together. The mean is that with the least variance, C being the covariance of EFAC, EQUAD and
    ECORR within the epoch: (1^T C^-1 r) / (1^T C^-1 1), of variance 1 / (1^T C^-1 1). Where the epoch is one of
    ECORR, that is the mean weighted by 1 / N, of variance 1 / sum(1 / N) + ECORR^2, as in PINT's `ecorr_average`,
    which leaves out a TOA that is alone; here it is an epoch by itself, without jitter as in the fit.

    **Arguments:**

    - `model`: a model or a solution, with its fitted noise; `toas`: n TOAs.
    - `residual`: what is averaged, s, shape (n,); those of the model by default. Less what `noise_realisation` found,
      they are averages of whitened residuals.
    - `seconds`: how long an epoch is; 86400 averages the receivers of a day each.

    **Returns:** an `EpochAverages`.

    **Raises:** `ValueError` as `timing.residuals`, for a length that is not above 0, and residuals of another number.
    """
    if not seconds > 0:
        raise ValueError(f"an epoch should be longer than 0 s, but it is {seconds}")
    start, fitted = (model.model, model.noise) if isinstance(model, TimingSolution) else (model, None)
    values = np.asarray(residuals(start, toas) if residual is None else residual)
    if values.shape != (len(toas),):
        raise ValueError(f"there are {len(toas)} TOAs, but residuals of shape {values.shape}")
    data, order = lay_out(start, toas)
    noise = data.noise if fitted is None else fitted
    assert isinstance(noise, TimingNoise)
    return averages_of(toas, order, noise, values, float(seconds))


def averages_of(
    toas: TOAs, order: np.ndarray, noise: TimingNoise, residual: np.ndarray, seconds: float = _EPOCH
) -> EpochAverages:
    """What `averages` gives, for noise in the order of the epochs, whose first rows are the TOAs at `order`."""
    n = len(toas)
    jitter = np.asarray(noise.epoch)[:n]
    # which ECORR a TOA has keeps receivers apart, though they may observe at the same time
    group = np.asarray(noise.jitter)[jitter] if noise.jitter.size else np.zeros(n, int)
    time = (np.asarray(toas.day) * 86400 + np.asarray(toas.second))[order]
    label = _numbered(time, group, seconds)
    epochs = int(label.max()) + 1
    columns = [np.asarray(toas.utc)[order], np.asarray(toas.frequency)[order], residual[order]]
    alone = np.bincount(jitter, minlength=noise.jitter.size)[jitter] < 2
    ecorr = 1e-6 * np.concatenate([[0.0], np.asarray(noise.ECORR)])[group]
    mean, variance = _means(
        as_array(np.stack(columns)),
        as_array(np.asarray(noise.variance())[:n]),
        as_array(np.where(alone, 0.0, ecorr**2)),
        as_array(_pairs(label, jitter)),
        as_array(label),
        epochs,
    )
    back = np.empty(n, int)
    back[order] = label
    count = np.bincount(label, minlength=epochs)
    return EpochAverages(mean[0], mean[1], mean[2], jnp.sqrt(variance), as_array(count), as_array(back))


def _numbered(time: np.ndarray, group: np.ndarray, seconds: float) -> np.ndarray:
    """The epoch of each TOA, numbered by the time of its first."""
    first, label = np.empty(len(time)), np.empty(len(time), int)
    for one in np.unique(group):
        here = np.flatnonzero(group == one)
        start = -np.inf
        # counted from its first TOA, as epochs of ECORR are: none grows longer
        for k in here[np.argsort(time[here], kind="stable")]:
            start = time[k] if time[k] - start >= seconds else start
            first[k] = start
    keys = np.stack([group, first])
    _, at, inverse = np.unique(keys, axis=1, return_index=True, return_inverse=True)
    rank = np.argsort(np.argsort(first[at], kind="stable"), kind="stable")
    label[:] = rank[np.ravel(inverse)]
    return label


def _pairs(label: np.ndarray, jitter: np.ndarray) -> np.ndarray:
    """A number for each pair of an epoch and an epoch of ECORR that TOAs have, of which one may hold several."""
    return np.ravel(np.unique(np.stack([label, jitter]), axis=1, return_inverse=True)[1])


@eqx.filter_jit
def _means(
    columns: Float[Array, "c n"],
    variance: Float[Array, " n"],
    jitter: Float[Array, " n"],
    pair: Int[Array, " n"],
    epoch: Int[Array, " n"],
    count: int,
) -> tuple[Float[Array, "c s"], Float[Array, " s"]]:
    """(means, their variance) of each epoch, the covariance within a `pair` being N + `jitter` 1 1^T.

    By Sherman and Morrison 1^T C^-1 = 1^T N^-1 / (1 + jitter 1^T N^-1 1) there.
    """
    n = epoch.shape[0]
    white = jax.ops.segment_sum(1 / variance, pair, n)[pair]
    weight = 1 / variance / (1 + jitter * white)
    total = jax.ops.segment_sum(weight, epoch, count)
    sums = jax.vmap(lambda column: jax.ops.segment_sum(weight * column, epoch, count))(columns)
    return sums / total[None, :], 1 / total
