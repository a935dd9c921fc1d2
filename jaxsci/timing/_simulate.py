"""Times of arrival as a model predicts them, with or without noise.

A fit of simulated TOAs must give back the truth, which tests the fit, and the scatter of many such fits tests its
errors. The pattern of real observations is kept, since the cadence and the frequencies decide what can be measured;
or it is one that `timing.schedule` plans. Researchers call `timing.simulate`, and so does the command of that name.
"""

import dataclasses
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ..core import AbstractLikelihood, require_key
from ._anchor import _rows, tied
from ._components import TimingNoise
from ._constants import DAY
from ._fit import _residual, bare, fixed_phase
from ._model import TimingModel
from ._precision import TwoDouble
from ._residuals.whitened import ordered
from ._toas import TOAs

_ROUNDS = 3  # each leaves 1e-4 of what was wrong, the speed of the Earth over that of light


def simulate(model: TimingModel, toas: TOAs, *, key: Array | None = None) -> TOAs:
    """Make TOAs with the pattern of some observations and the times of arrival that a model predicts.

    Each TOA moves to where its residual is 0, by less than half a turn unless it has a pulse number, and the
    observatory moves with it.

    **Arguments:**

    - `model`: the truth; `toas`: when, with what and how well it was observed, or would be by a `timing.schedule`.
    - `key`: of `jax.random`: adds a realisation of the par file's noise, white, of each epoch, and red of all kinds.
      Without one, residuals are 0.

    **Returns:** TOAs of the same length and order.

    **Raises:** `ValueError` as `timing.residuals`.
    """
    if key is not None:
        require_key(key)
    start = bare(model)
    for _ in range(_ROUNDS):
        data, order = tied(model, toas)
        late = _residual(start, data)
        timed = jnp.arange(len(late)) < len(toas)  # the phase of all is anyone's, and anew in each round
        common = jnp.where(fixed_phase(model), 0.0, jnp.mean(late[: len(toas)]))
        toas = _moved(toas, jnp.where(timed, common, 0.0) - late, order)
    if key is None:
        return toas
    data, order = tied(model, toas)
    return _moved(toas, _draw(data.noise, key), order)


def _moved(toas: TOAs, change: Array, order: np.ndarray) -> TOAs:
    """Times later by `change`, and the measured dispersions, whose rows come after them, larger."""
    count = len(toas)
    toas = _later(toas, np.asarray(ordered(change, order, count)))
    if toas.dm is None:
        return toas
    dm = np.array(toas.dm)
    dm[_rows(toas, order)[count:]] += np.asarray(change)[count:]
    return dataclasses.replace(toas, dm=jnp.asarray(dm))


def _later(toas: TOAs, seconds: np.ndarray) -> TOAs:
    """The TOAs so much later, the observatory moved along its velocity."""
    times = TwoDouble(np.asarray(toas.second), np.asarray(toas.second_low)) + TwoDouble.of(seconds)
    # a TOA that passes midnight belongs to the next day
    over = np.floor(times.hi / DAY)
    times = times - TwoDouble.of(over * DAY)
    # within a turn the Earth moves in a straight line: its acceleration is 2e-11 lt-s/s^2
    moved = np.asarray(toas.velocity) * seconds[:, None]
    changed = {
        "day": np.asarray(toas.day) + over,
        "second": times.hi,
        "second_low": times.lo,
        "position": np.asarray(toas.position) + moved,
        "sun": np.asarray(toas.sun) - moved,
        "utc": np.asarray(toas.utc) + seconds / DAY,
    }
    arrays: dict[str, Any] = {name: jnp.asarray(value) for name, value in changed.items()}
    if toas.planets is not None:
        arrays["planets"] = toas.planets - jnp.asarray(moved)[:, None, :]
    return dataclasses.replace(toas, **arrays)


@eqx.filter_jit
def _draw(noise: AbstractLikelihood, key: Array) -> Float[Array, " n"]:
    """One realisation of a `TimingNoise`, s, in the order of the epochs."""
    assert isinstance(noise, TimingNoise)
    white, jitter, modes = jax.random.split(key, 3)
    own = jnp.sqrt(noise.variance()) * jax.random.normal(white, noise.error.shape)
    if noise.jitter.shape[0]:
        count = jax.ops.segment_sum(jnp.ones_like(noise.epoch), noise.epoch, noise.jitter.shape[0])
        ecorr = 1e-6 * jnp.concatenate([jnp.zeros(1), noise.ECORR])[noise.jitter]
        shared = jnp.where(count > 1, ecorr, 0.0) * jax.random.normal(jitter, ecorr.shape)
        own = own + shared[noise.epoch]
    power = noise.power()
    red = noise.modes() @ (jnp.sqrt(power) * jax.random.normal(modes, power.shape))
    return own + red
