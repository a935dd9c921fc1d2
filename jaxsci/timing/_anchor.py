"""TOAs tied to a model: everything that float64 cannot do, done once on the host."""

import dataclasses
from decimal import Decimal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from ..core._dataset import AbstractDataset
from ..core._errors import require_x64
from ..core._likelihood import AbstractLikelihood
from ..core._parameter import put
from ..core._rows import rows
from ..core._typing import Flag
from ._model import TimingModel, epoch_of_orbit, spins, windows
from ._noise import TimingNoise
from ._par import Par
from ._precision import TwoDouble, phase, seconds_between
from ._toas import TOAs


class AnchoredTOAs(AbstractDataset):
    """What a fit needs of n TOAs: phases and delays at the reference parameters, and what changes them.

    - `elapsed`: seconds from PEPOCH, at the pulsar, at the reference. `delay`: the delay there, s. `phase`: turns
      from the pulse each TOA is taken for.
    - `since_position`, `since_dispersion`, `since_orbit`: seconds from POSEPOCH, DMEPOCH, and T0 or TASC.
    - `window`: which window of DMX, counted from 1. `jumps`: 1 where a JUMP applies, shape (n, j).
    - the others as in `TOAs`.
    """

    elapsed: Float[Array, " n"] = rows("edge")
    delay: Float[Array, " n"] = rows("edge")
    phase: Float[Array, " n"] = rows(0.0)
    since_position: Float[Array, " n"] = rows("edge")
    since_dispersion: Float[Array, " n"] = rows("edge")
    since_orbit: Float[Array, " n"] = rows("edge")
    frequency: Float[Array, " n"] = rows("edge")
    position: Float[Array, "n 3"] = rows("edge")
    velocity: Float[Array, "n 3"] = rows("edge")
    sun: Float[Array, "n 3"] = rows("edge")
    troposphere: Float[Array, " n"] = rows("edge")
    window: Int[Array, " n"] = eqx.field(converter=jnp.asarray, metadata={"rows": 0})  # type: ignore[misc]
    jumps: Float[Array, "n j"] = rows(0.0)
    noise: AbstractLikelihood
    mask: Bool[Array, " n"] = rows(False)

    def residual(self, model: TimingModel) -> Float[Array, " n"]:
        """Timing residuals, s, without second derivatives: the curvature of a fit is that of Gauss and Newton."""
        return model.residual(self, flat=True)

    def finite(self) -> Flag:
        numbers = (self.elapsed, self.delay, self.phase, self.since_orbit, self.troposphere)
        return jnp.all(jnp.where(self.mask, jnp.isfinite(sum(numbers)) & ~jnp.isnan(self.frequency), True))


def at_reference(model: TimingModel) -> TimingModel:
    """The model with all offsets 0 and without its par file."""
    return dataclasses.replace(put(model, {"*": 0.0}), par=None)


@eqx.filter_jit
def _delay(model: TimingModel, toas: AnchoredTOAs) -> Array:
    return model.delay(toas)


def anchor(model: TimingModel, toas: TOAs) -> tuple[AnchoredTOAs, np.ndarray]:
    """Tie TOAs to the par file of a model.

    **Returns:** the anchored TOAs, sorted by epoch, and the place in `toas` of each.

    **Raises:** `ValueError` for TOAs that make no sense or flags that no TOA has; `RuntimeError` without
    double precision.
    """
    data, order = lay_out(model, toas)
    return tie(model, toas, data, at_reference(model), order), order


def lay_out(model: TimingModel, toas: TOAs) -> tuple[AnchoredTOAs, np.ndarray]:
    """All of `anchor` but the phases and delays, which are 0."""
    require_x64("pulsar timing")
    toas.check()
    if model.par is None:
        raise ValueError("this model has lost its par file, as in a batch: anchor the one it was made from")
    label, jitter = epochs(model.par, toas)
    order = np.argsort(label, kind="stable")
    return _unanchored(model.par, _take(toas, order), label[order], jitter), order


def tie(model: TimingModel, toas: TOAs, data: AnchoredTOAs, reference: TimingModel, order: np.ndarray) -> AnchoredTOAs:
    """The data with phases and delays at the reference; both may have been padded to the shapes of a batch."""
    par, n = model.par, len(toas)
    assert par is not None
    picked = _take(toas, order)
    delay = np.asarray(_delay(reference, data))[:n]
    times = TwoDouble(np.asarray(picked.second), np.asarray(picked.second_low))
    elapsed = seconds_between(picked.day, times, par.value("PEPOCH")) - TwoDouble.of(delay)
    fraction = _fraction(par, elapsed, picked, np.asarray(data.jumps)[:n])
    more = data.mask.shape[0] - n
    known = [np.pad(x, (0, more), mode="edge") for x in (elapsed.float(), delay)]
    known.append(np.pad(fraction, (0, more)))
    return eqx.tree_at(lambda d: [d.elapsed, d.delay, d.phase], data, [jnp.asarray(x) for x in known])


def _take(toas: TOAs, order: np.ndarray) -> TOAs:
    return jax.tree.map(lambda x: np.asarray(x)[order], toas)


def _fraction(par: Par, elapsed: TwoDouble, toas: TOAs, jumps: np.ndarray) -> np.ndarray:
    """Turns beyond the pulse that each TOA is taken for, about their mean."""
    frequencies = [TwoDouble.of(par.value(name)) for name in spins(par)]
    turns = phase(elapsed, frequencies)
    for k, name in enumerate(par.numbered("JUMP")):
        turns = turns + TwoDouble.of(jumps[:, k]) * (frequencies[0] * TwoDouble.of(par.value(name)))
    known = np.asarray(toas.turn)
    first = TwoDouble(turns.hi[0], turns.lo[0])
    if np.isnan(known).any():
        rest = turns - first
        fraction = (rest - rest.round()).float()
        centre = np.angle(np.mean(np.exp(2j * np.pi * fraction))) / (2 * np.pi)  # so that few TOAs wrap
        return fraction - centre - np.round(fraction - centre)
    fraction = (turns - first - (known - known[0])).float()
    return fraction - np.round(np.mean(fraction))


def _unanchored(par: Par, toas: TOAs, epoch: np.ndarray, jitter: np.ndarray) -> AnchoredTOAs:
    times = TwoDouble(np.asarray(toas.second), np.asarray(toas.second_low))

    def since(when: Decimal) -> Array:
        return jnp.asarray(seconds_between(toas.day, times, when).float())

    start = par.value("PEPOCH")
    n = len(toas)
    jumps = [toas.select(_selection(par, name)) for name in par.numbered("JUMP")]
    return AnchoredTOAs(
        elapsed=jnp.zeros(n),
        delay=jnp.zeros(n),
        phase=jnp.zeros(n),
        since_position=since(par.value("POSEPOCH", str(start))),
        since_dispersion=since(par.value("DMEPOCH", str(start))),
        since_orbit=since(epoch_of_orbit(par)),
        frequency=toas.frequency,
        position=toas.position,
        velocity=toas.velocity,
        sun=toas.sun,
        troposphere=toas.troposphere if par.yes("CORRECT_TROPOSPHERE", "Y") else jnp.zeros(n),
        window=jnp.asarray(_windows(par, np.asarray(toas.utc))),
        jumps=jnp.asarray(np.reshape(jumps, (len(jumps), n)).T.astype(float)),
        noise=_noise(par, toas, epoch, jitter),
        mask=jnp.ones(n, bool),
    )


def _selection(par: Par, name: str) -> str:
    line = par.find(name)
    assert line is not None
    return line.select


def _windows(par: Par, utc: np.ndarray) -> np.ndarray:
    index = np.zeros(len(utc), np.int64)
    for j, name in enumerate(windows(par), 1):
        low, high = (float(par.value(name.replace("DMX_", f"DMXR{k}_"), None)) for k in (1, 2))
        here = (utc >= low) & (utc <= high)
        if (index[here] != 0).any():
            raise ValueError(f"the window of {name} overlaps that of {windows(par)[int(index[here].max()) - 1]}")
        index[here] = j
    return index


def _groups(par: Par, toas: TOAs, stem: str) -> tuple[np.ndarray, Array]:
    """(which of the par file's EFACs or such each TOA has, from 1; their values)."""
    index, values = np.zeros(len(toas), np.int64), []
    for k, name in enumerate(par.numbered(stem), 1):
        here = toas.select(_selection(par, name))
        if (index[here] != 0).any():
            raise ValueError(f"{stem}{int(index[here].max())} and {name} select the same TOAs")
        index[here] = k
        values.append(float(par.value(name)))
    return index, jnp.asarray(values, float)


def epochs(par: Par, toas: TOAs) -> tuple[np.ndarray, np.ndarray]:
    """(the epoch of each TOA, which ECORR each epoch has).

    TOAs of one ECORR within a second of the first are an epoch, as in PINT; each TOA without is its own.
    """
    group, _ = _groups(par, toas, "ECORR")
    time = np.asarray(toas.day) * 86400.0 + np.asarray(toas.second)
    label, jitter = np.zeros(len(toas), np.int64), []
    for g in np.unique(group):
        here = np.flatnonzero(group == g)
        start = -np.inf
        for i in here[np.argsort(time[here], kind="stable")]:
            if time[i] - start >= 1 or g == 0:
                start = time[i]
                jitter.append(g)
            label[i] = len(jitter) - 1
    return label, np.asarray(jitter, np.int64)


def _noise(par: Par, toas: TOAs, epoch: np.ndarray, jitter: np.ndarray) -> TimingNoise:
    efac, efacs = _groups(par, toas, "EFAC")
    equad, equads = _groups(par, toas, "EQUAD")
    _, ecorrs = _groups(par, toas, "ECORR")
    time = (np.asarray(toas.day) - float(np.min(toas.day))) * 86400.0 + np.asarray(toas.second)
    span = float(time.max() - time.min()) or 1.0
    amplitude, slope = _red(par)
    count = 0 if amplitude is None else int(par.value("TNREDC", "30"))
    frequency = np.repeat(np.arange(1, count + 1) / span, 2)
    angle = 2 * np.pi * frequency[None, :] * time[:, None]
    even = np.arange(2 * count) % 2 == 0
    return TimingNoise(
        error=1e-6 * toas.error,
        efac=jnp.asarray(efac),
        equad=jnp.asarray(equad),
        epoch=jnp.asarray(epoch),
        basis=jnp.asarray(np.where(even[None, :], np.sin(angle), np.cos(angle))),
        jitter=jnp.asarray(jitter),
        frequency=jnp.asarray(frequency),
        span=jnp.asarray(span),
        EFAC=efacs,
        EQUAD=equads,
        ECORR=ecorrs,
        TNREDAMP=jnp.asarray(-20.0 if amplitude is None else amplitude),
        TNREDGAM=jnp.asarray(slope),
    )


def _red(par: Par) -> tuple[float | None, float]:
    """(log10 A, gamma) of the red noise; RNAMP and RNIDX are tempo's form of them."""
    if par.find("TNREDAMP") is not None:
        return float(par.value("TNREDAMP")), float(par.value("TNREDGAM", None))
    if par.find("RNAMP") is not None:
        scale = 86400 * 365.24 * 1e6 / (2 * np.pi * np.sqrt(3))
        return float(np.log10(float(par.value("RNAMP")) / scale)), -float(par.value("RNIDX", None))
    return None, 3.0
