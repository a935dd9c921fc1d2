"""TOAs tied to a model: everything that float64 cannot do, done once on the host."""

import dataclasses
import warnings
from collections.abc import Sequence
from decimal import Decimal
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from ..core import AbstractLikelihood, Flag, Unit, as_array, leaf_values, put, require_x64, rows
from ..datasets import AbstractDataset
from ._build import epoch_of_orbit, listed, spins
from ._columns import linearised
from ._model import TimingModel, lacking_jumps
from ._par import Par
from ._par_noise import epochs as epochs, in_windows, noise_of, selection
from ._precision import TwoDouble, phase, seconds_between
from ._toas import TOAs


class AnchoredTOAs(AbstractDataset):
    """What a fit needs of n TOAs: phases and delays at the reference parameters, and what changes them.

    - `elapsed`: seconds from PEPOCH, at the pulsar, at the reference. `delay`: the delay there, s. `phase`: turns
      from the pulse each TOA is taken for.
    - `since_position`, `since_dispersion`, `since_orbit`: seconds from POSEPOCH, DMEPOCH, and T0 or TASC.
    - `window`, `cm_window`: the windows of DMX and of CMX that each is in, counted from 1; 0 for none. Shape (n, k),
      k the most that any is in.
    - `jumps`, `dm_jumps`, `fd_jumps`: 1 where a JUMP, DMJUMP or FDJUMP applies, shape (n, j).
    - `measures`: True for the rows of wideband data that measure dispersion, `dm`; `None` without.
    - the others as in `TOAs`; `planets` `None` where they do not count.
    - `par`: the par file that has the reference, `None` in a stack.
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
    window: Int[Array, "n w"] = eqx.field(converter=as_array, metadata={"rows": 0})  # type: ignore[misc]
    jumps: Float[Array, "n j"] = rows(0.0)
    noise: AbstractLikelihood
    mask: Bool[Array, " n"] = rows(False)
    planets: Float[Array, "n p 3"] | None = rows("edge", default=None)
    cm_window: Int[Array, "n c"] | None = eqx.field(default=None, metadata={"rows": 0})  # type: ignore[misc]
    measures: Bool[Array, " n"] | None = rows(False, default=None)
    dm: Float[Array, " n"] | None = rows(0.0, default=None)
    dm_jumps: Float[Array, "n d"] | None = rows(0.0, default=None)
    fd_jumps: Float[Array, "n k"] | None = rows(0.0, default=None)
    par: Par | None = eqx.field(static=True, default=None)  # type: ignore[misc]

    @property
    def wideband(self) -> bool:
        """True where some rows measure dispersion."""
        return self.measures is not None

    def residual(self, model: TimingModel) -> Float[Array, " n"]:
        return model.residual(self)

    def jacobian(self, at: Any, y: Float[Array, " p"]) -> tuple[Float[Array, " n"], Float[Array, "p n"]]:
        value, rows = linearised(at.model(y), at.places, self)
        return value, jnp.pad(rows, ((0, y.size - rows.shape[0]), (0, 0)))  # free parameters of the noise come last

    def finite(self) -> Flag:
        numbers = (self.elapsed, self.delay, self.phase, self.since_orbit, self.troposphere)
        return jnp.all(jnp.where(self.mask, jnp.isfinite(sum(numbers)) & ~jnp.isnan(self.frequency), True))


def at_reference(model: TimingModel) -> TimingModel:
    """The model with all offsets 0 and without its par file."""
    zeros = {name: as_array(np.zeros(value.shape)) for name, value in leaf_values(model)}
    return dataclasses.replace(put(model, zeros), par=None)


@eqx.filter_jit
def _delay(model: TimingModel, toas: AnchoredTOAs) -> Array:
    return model.delay(toas)


@eqx.filter_jit
def _extra(model: TimingModel, toas: AnchoredTOAs) -> Array:
    return model.extra_phase(toas, toas.delay)


def anchor(model: TimingModel, toas: TOAs) -> tuple[AnchoredTOAs, np.ndarray]:
    """Tie TOAs to the par file of a model: what a fit needs of them, in arrays.

    **Returns:** the anchored TOAs, sorted by epoch, and the place in `toas` of each; rows of wideband data that
    measure dispersion come after them.

    **Raises:** `ValueError` for TOAs that make no sense or flags that no TOA has; `RuntimeError` without
    double precision.
    """
    data, order = tied(model, toas)
    return dataclasses.replace(data, par=model.par), order


def tied(model: TimingModel, toas: TOAs) -> tuple[AnchoredTOAs, np.ndarray]:
    """What `anchor` gives, but for the par file: data of one shape share a compiled program."""
    data, order = lay_out(model, toas)
    return tie(model, toas, data, at_reference(model), order), order


def lay_out(model: TimingModel, toas: TOAs) -> tuple[AnchoredTOAs, np.ndarray]:
    """All of `anchor` but the phases and delays, which are 0."""
    require_x64("pulsar timing")
    toas.check()
    if model.par is None:
        raise ValueError("this model has lost its par file, as in a batch: anchor the one it was made from")
    missing = lacking_jumps(model.par, toas)
    if missing:
        raise ValueError(
            f"the tim file has pairs of JUMPs ({', '.join(missing)}) that the model has no JUMP for: "
            "take the model that timing.load gives with the TOAs"
        )
    label, jitter = epochs(model.par, toas)
    order = np.argsort(label, kind="stable")
    label, measures = label[order], np.zeros(len(toas), bool)
    if toas.dm is not None:
        wide = len(_rows(toas, order)) - len(order)  # their rows come last, each an epoch of its own
        label = np.concatenate([label, len(jitter) + np.arange(wide)])
        jitter = np.concatenate([jitter, np.zeros(wide, jitter.dtype)])
        measures = np.arange(len(label)) >= len(toas)
    return _unanchored(model, _take(toas, _rows(toas, order)), measures, label, jitter), order


def _rows(toas: TOAs, order: np.ndarray) -> np.ndarray:
    """The TOA of each row: all of them, and once more those that measure dispersion."""
    return order if toas.dm is None else np.concatenate([order, np.flatnonzero(np.isfinite(np.asarray(toas.dm)))])


def tie(model: TimingModel, toas: TOAs, data: AnchoredTOAs, reference: TimingModel, order: np.ndarray) -> AnchoredTOAs:
    """The data with phases and delays at the reference; both may have been padded to the shapes of a batch."""
    which = _rows(toas, order)
    par, n = model.par, len(which)
    assert par is not None
    picked = _take(toas, which)
    delay = np.asarray(_delay(reference, data))[:n]
    times = TwoDouble(np.asarray(picked.second), np.asarray(picked.second_low))
    elapsed = seconds_between(picked.day, times, par.value("PEPOCH")) - TwoDouble.of(delay)
    more = data.mask.shape[0] - n
    known = [as_array(np.pad(x, (0, more), mode="edge")) for x in (elapsed.float(), delay)]
    data = eqx.tree_at(lambda d: [d.elapsed, d.delay], data, known)
    extra = np.zeros(n)
    if model.has_extra_phase:
        extra = np.asarray(_extra(reference, data))[:n]
    fraction = _fraction(par, elapsed, extra, picked, np.asarray(data.jumps)[:n]) - extra
    return eqx.tree_at(lambda d: d.phase, data, as_array(np.pad(fraction, (0, more))))


def warn_of_idle(model: TimingModel, data: AnchoredTOAs, free: Sequence[str]) -> list[str]:
    """Warn of free steps that no TOA sees, and give their names: DMX or CMX without a TOA in the window, JUMP without
    any.
    """
    assert model.par is not None
    windows = {"DMX": data.window, "CMX": data.cm_window}
    counts = {stem: np.bincount(np.asarray(index).ravel())[1:] for stem, index in windows.items() if index is not None}
    masks = {"JUMP": data.jumps, "DMJUMP": data.dm_jumps, "FDJUMP": data.fd_jumps}
    counts |= {stem: np.asarray(mask).sum(axis=0) for stem, mask in masks.items() if mask is not None}
    seen = {name for stem, many in counts.items() for name, n in zip(listed(model.par, stem), many, strict=False) if n}
    steps = {name for stem in counts for name in listed(model.par, stem)}
    idle = [name for name in free if name in steps - seen]
    if idle:
        warnings.warn(f"no TOA depends on {', '.join(idle)}: the error is infinite", stacklevel=3)
    return idle


def _take(toas: TOAs, order: np.ndarray) -> TOAs:
    return jax.tree.map(lambda x: np.asarray(x)[order], toas)


def _fraction(par: Par, elapsed: TwoDouble, extra: np.ndarray, toas: TOAs, jumps: np.ndarray) -> np.ndarray:
    """Turns beyond the pulse that each TOA is taken for; `extra` turns are part of them.

    That is the nearest pulse, or the one that its pulse number names. They count from the mean, or where the par file
    has a PHOFF from phase 0 at PEPOCH, less PHOFF, as in PINT without a TZRMJD.
    """
    frequencies = [TwoDouble.of(par.value(name)) for name in spins(par)]
    turns = phase(elapsed, frequencies) + TwoDouble.of(extra)
    for k, name in enumerate(par.numbered("JUMP")):
        turns = turns + TwoDouble.of(jumps[:, k]) * (frequencies[0] * TwoDouble.of(par.value(name)))
    if toas.added is not None:
        turns = turns + TwoDouble.of(toas.added)
    absolute = par.find("PHOFF") is not None
    first = TwoDouble.of(par.value("PHOFF")) if absolute else TwoDouble(turns.hi[0], turns.lo[0])
    rest = turns - first
    if _tracked(par, toas):
        known = np.asarray(toas.turn)
        if absolute:
            return (rest - known).float()
        fraction = (rest - (known - known[0])).float()
        return fraction - np.round(np.mean(fraction))
    fraction = (rest - rest.round()).float()
    centre = np.angle(np.mean(np.exp(2j * np.pi * fraction))) / (2 * np.pi)  # so that few TOAs wrap
    about = fraction - centre - np.round(fraction - centre)
    return about + centre if absolute else about


def _tracked(par: Par, toas: TOAs) -> bool:
    """True where pulse numbers count: TRACK -2 asks for them, and without a TRACK they do where all TOAs have one.

    **Raises:** `ValueError` for TRACK -2 and a TOA without one.
    """
    unknown = np.isnan(np.asarray(toas.turn))
    if par.word("TRACK") == "-2" and unknown.any():
        raise ValueError(
            f"TRACK -2 takes TOAs for the pulses that their -pn flags name, but {int(unknown.sum())} of {len(toas)} "
            "TOAs have none: give every line of the tim file a -pn, or leave TRACK out"
        )
    return par.word("TRACK") != "0" and not unknown.any()


def _unanchored(
    model: TimingModel, toas: TOAs, measures: np.ndarray, epoch: np.ndarray, jitter: np.ndarray
) -> AnchoredTOAs:
    par, n = model.par, len(toas)
    assert par is not None
    times = TwoDouble(np.asarray(toas.second), np.asarray(toas.second_low))

    def since(when: Decimal) -> Array:
        return as_array(seconds_between(toas.day, times, when).float())

    start = par.value("PEPOCH")
    wide = bool(measures.any())
    data = AnchoredTOAs(
        elapsed=since(start),
        delay=as_array(np.zeros(n)),
        phase=as_array(np.zeros(n)),
        since_position=since(par.value("POSEPOCH", str(start))),
        since_dispersion=since(par.value("DMEPOCH", str(start))),
        since_orbit=since(epoch_of_orbit(par)),
        frequency=toas.frequency,
        position=toas.position,
        velocity=toas.velocity,
        sun=toas.sun,
        troposphere=toas.troposphere if par.yes("CORRECT_TROPOSPHERE", "Y") else as_array(np.zeros(n)),
        window=as_array(in_windows(par, "DMX", np.asarray(toas.utc))),
        jumps=_masks(par, toas, "JUMP"),
        noise=Unit(),
        mask=as_array(np.ones(n, bool)),
        planets=_planets(par, toas),
        cm_window=None if model.cmx is None else as_array(in_windows(par, "CMX", np.asarray(toas.utc))),
        measures=as_array(measures) if wide else None,
        dm=None if toas.dm is None or not wide else as_array(np.where(measures, toas.dm, 0.0)),
        dm_jumps=_masks(par, toas, "DMJUMP") if wide and model.dm_jump is not None else None,
        fd_jumps=None if model.fd_jump is None else _masks(par, toas, "FDJUMP"),
    )
    return dataclasses.replace(data, noise=noise_of(model, toas, data, epoch, jitter))


def _masks(par: Par, toas: TOAs, stem: str) -> Array:
    masks = [toas.select(selection(par, name)) for name in listed(par, stem)]
    return as_array(np.reshape(masks, (len(masks), len(toas))).T.astype(float))


def _planets(par: Par, toas: TOAs) -> Array | None:
    if not par.yes("PLANET_SHAPIRO"):
        return None
    if toas.planets is None:
        raise ValueError(
            "PLANET_SHAPIRO is Y, but these TOAs do not know where the planets are: load the tim file anew"
        )
    return as_array(toas.planets)
