"""How well a timing model describes TOAs at the values that it has, nothing fitted but the overall phase.

These are the functions to differentiate, to sample from, or to compare models by; they are pure JAX where they get
anchored TOAs. The overall phase is known in closed form, and so it need not be a parameter. Users call them as
`timing.chi2` and `timing.log_likelihood`.
"""

import math

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ..core.linalg import dot
from ._anchor import AnchoredTOAs
from ._components import PreparedNoise, TimingNoise
from ._fit import anchored, bare, fixed_phase
from ._model import TimingModel
from ._toas import TOAs


def chi2(model: TimingModel, toas: TOAs | AnchoredTOAs) -> Float[Array, ""]:
    """Compute r^T C^-1 r of the residuals r of a model as it is, with C the covariance of all noise.

    The overall phase, which nothing else determines, takes the value with the least chi2, unless the par file has a
    PHOFF. At the model of a solution it is the chi2 of that. Inside `jax.jit`, `jax.vmap` and `jax.grad` it takes
    anchored TOAs, as `timing.fit` does, and can be differentiated by all that is in the model and the TOAs.

    **Arguments:** `model`, `toas`: as in `timing.fit`.

    **Returns:** chi2.

    **Raises:** `ValueError` as `timing.fit`.
    """
    return _chi2(bare(model), anchored(model, toas), fixed_phase(model))[0]


def log_likelihood(model: TimingModel, toas: TOAs | AnchoredTOAs) -> Float[Array, ""]:
    """Compute -(chi2 + log|C| + n log(2 pi)) / 2 of a model as it is, for n TOAs; chi2 as in `timing.chi2`.

    Wideband TOAs count their measured dispersions too; C is in s^2 and (pc cm^-3)^2. The noise is that of the TOAs: to
    change it, change `toas.noise`, such as by `jaxsci.put(toas, {"noise.TNREDAMP": -13.5})`.

    **Arguments:** `model`, `toas`: as in `timing.fit`.

    **Returns:** the natural logarithm of the likelihood.

    **Raises:** `ValueError` as `timing.fit`.
    """
    data = anchored(model, toas)
    chi2, log_determinant = _chi2(bare(model), data, fixed_phase(model))
    count = jnp.sum(data.mask).astype(chi2.dtype)
    return -(chi2 + log_determinant + count * math.log(2 * math.pi)) / 2


@eqx.filter_jit
def _chi2(model: TimingModel, data: AnchoredTOAs, fixed: bool) -> tuple[Array, Array]:
    """(chi2, log|C|)."""
    noise = data.noise
    assert isinstance(noise, TimingNoise)
    ready: PreparedNoise = noise.prepare(data.mask)
    timed = jnp.ones_like(data.mask) if data.measures is None else ~data.measures
    both = jnp.stack([model.residual(data), timed.astype(data.phase.dtype)])
    residual, phase = jax.vmap(lambda row: ready.whiten(row, data.mask))(both)
    # the phase is linear: its best value takes away the projection on it
    total, along = dot(residual, residual), dot(residual, phase)
    if fixed:
        return total, ready.log_determinant
    return total - along * along / dot(phase, phase), ready.log_determinant
