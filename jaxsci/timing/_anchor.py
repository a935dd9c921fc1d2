"""TOAs tied to a model: everything that float64 cannot do, done once on the host.

A phase counts 1e11 turns and has to be right to 1e-9, and so it is computed here in pairs of float64 at the values of
the par file; JAX sees what is left, a fraction of a turn. Which windows, JUMPs and noise each TOA has is decided here
too. `timing.fit`, `residuals`, `stack` and all others begin with `tied`, or with `lay_out` and `tie`, between which
arrays may be padded.
"""

import dataclasses
import warnings
from collections.abc import Sequence
from decimal import Decimal

import equinox as eqx
import jax
import numpy as np
from jaxtyping import Array

from ..core import Unit, as_array, leaf_values, put, require_kind, require_x64
from ._anchored import AnchoredTOAs as AnchoredTOAs
from ._binary.from_par import epoch_of_orbit
from ._components import (
    EXACT,
    Epochs,
    FDJump,
    Par,
    Scales,
    cm_windows,
    epochs,
    in_windows,
    listed,
    noise_of,
    spins,
    windows,
    xyz,
)
from ._model import TimingModel, lacking_jumps
from ._precision import TwoDouble, phase, seconds_between
from ._toas import TOAs


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
    require_kind(model, TimingModel, "model", "a TimingModel, the first of what timing.load gives")
    require_kind(toas, TOAs, "toas", "TOAs, the second of what timing.load gives")
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
    # the noise sums over epochs in one pass, for which they have to rise
    order = np.argsort(label, kind="stable")
    label, measures = label[order], np.zeros(len(toas), bool)
    if toas.dm is not None:
        wide = len(_rows(toas, order)) - len(order)  # their rows come last, each an epoch of its own
        label = np.concatenate([label, len(jitter) + np.arange(wide)])
        jitter = np.concatenate([jitter, np.zeros(wide, jitter.dtype)])
        measures = np.arange(len(label)) >= len(toas)
    return _unanchored(model, _take(toas, _rows(toas, order)), measures, Epochs(label, jitter)), order


def _rows(toas: TOAs, order: np.ndarray) -> np.ndarray:
    """The TOA of each row: all of them, and once more those that measure dispersion."""
    return order if toas.dm is None else np.concatenate([order, np.flatnonzero(np.isfinite(np.asarray(toas.dm)))])


def tie(model: TimingModel, toas: TOAs, data: AnchoredTOAs, reference: TimingModel, order: np.ndarray) -> AnchoredTOAs:
    """The data with phases and delays at the reference; both may have been padded to the shapes of a batch."""
    which = _rows(toas, order)
    par, n = model.par, len(which)
    assert par is not None
    picked = _take(toas, which)
    # a delay of 500 s has 12 digits down to its nanoseconds, which a float64 holds; the time has more
    delay = np.asarray(_delay(reference, data))[:n]
    times = TwoDouble(np.asarray(picked.second), np.asarray(picked.second_low))
    elapsed = seconds_between(picked.day, times, par.value("PEPOCH")) - TwoDouble.of(delay)
    more = data.mask.shape[0] - n
    known = [as_array(np.pad(x, (0, more), mode="edge")) for x in (elapsed.float(), delay)]
    data = eqx.tree_at(lambda d: [d.elapsed, d.delay], data, known)
    extra = np.zeros(n)
    if model.has_extra_phase:
        extra = np.asarray(_extra(reference, data))[:n]
    # the model adds these turns itself, at whatever values it has
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

    That is the nearest pulse, or the one that its pulse number names. They count from the mean; or where the par file
    has a PHOFF from that, which counts from `Par.zero` or from phase 0 at PEPOCH, as in PINT with or without a TZRMJD.
    """
    turns = _turns(par, elapsed, extra, jumps)
    if toas.added is not None:
        turns = turns + TwoDouble.of(np.asarray(toas.added))
    absolute = par.find("PHOFF") is not None
    first = TwoDouble(turns.hi[0], turns.lo[0])
    if absolute:
        first = TwoDouble.of(EXACT.add(par.value("PHOFF"), par.zero or Decimal(0)))
    rest = turns - first
    if tracked(par, toas):
        known = np.asarray(toas.turn)
        if absolute:
            return (rest - known).float()
        # numbers count from the first TOA: what they are called is anyone's choice, and whole turns are taken out
        fraction = (rest - (known - known[0])).float()
        return fraction - np.round(np.mean(fraction))
    fraction = (rest - rest.round()).float()
    centre = np.angle(np.mean(np.exp(2j * np.pi * fraction))) / (2 * np.pi)  # so that few TOAs wrap
    about = fraction - centre - np.round(fraction - centre)
    return about + centre if absolute else about


def _turns(par: Par, elapsed: TwoDouble, extra: np.ndarray, jumps: np.ndarray) -> TwoDouble:
    """Turns after phase 0 at PEPOCH, at the par file's values: steady spin-down, JUMPs, and `extra` turns."""
    frequencies = [TwoDouble.of(par.value(name)) for name in spins(par)]
    turns = phase(elapsed, frequencies) + TwoDouble.of(extra)
    for k, name in enumerate(par.numbered("JUMP")):
        turns = turns + TwoDouble.of(jumps[:, k]) * (frequencies[0] * TwoDouble.of(par.value(name)))
    return turns


def turns_of(model: TimingModel, toas: TOAs) -> Decimal:
    """Turns of the first TOA after phase 0 at PEPOCH, at the par file's values, PHOFF aside."""
    par, reference = model.par, at_reference(model)
    assert par is not None
    data, order = lay_out(model, toas)
    delay = np.asarray(_delay(reference, data))
    picked = _take(toas, order)
    times = TwoDouble(np.asarray(picked.second), np.asarray(picked.second_low))
    elapsed = seconds_between(picked.day, times, par.value("PEPOCH")) - TwoDouble.of(delay)
    data = eqx.tree_at(lambda d: [d.elapsed, d.delay], data, [as_array(elapsed.float()), as_array(delay)])
    extra = np.asarray(_extra(reference, data)) if model.has_extra_phase else np.zeros(len(toas))
    turns = _turns(par, elapsed, extra, np.asarray(data.jumps))
    return EXACT.add(Decimal(float(turns.hi[0])), Decimal(float(turns.lo[0])))


def tracked(par: Par, toas: TOAs) -> bool:
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


def _unanchored(model: TimingModel, toas: TOAs, measures: np.ndarray, at: Epochs) -> AnchoredTOAs:
    """TOAs in the order of their epochs, with all that does not depend on a phase or a delay."""
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
        window=as_array(in_windows(par, windows(par), np.asarray(toas.utc))),
        jumps=_masks(par, toas, "JUMP"),
        noise=Unit(),
        mask=as_array(np.ones(n, bool)),
        planets=_planets(par, toas),
        cm_window=None if model.cmx is None else as_array(in_windows(par, cm_windows(par), np.asarray(toas.utc))),
        measures=as_array(measures) if wide else None,
        dm=None if toas.dm is None or not wide else as_array(np.where(measures, toas.dm, 0.0)),
        dm_jumps=_masks(par, toas, "DMJUMP") if wide and model.dm_jump is not None else None,
        fd_jumps=None if model.part(FDJump) is None else _masks(par, toas, "FDJUMP"),
    )

    def scales() -> Scales:
        # noise is made once, at the reference; the Doppler shift changes frequencies by 1e-4
        direction = model.astrometry.direction(data.since_position)
        doppler = 1 - np.sum(np.asarray(toas.velocity) * np.asarray(direction).T, axis=1)
        path = None if model.wind is None else np.asarray(model.wind.geometry(direction, xyz(data.sun)))
        return Scales.at(np.asarray(toas.frequency) * doppler, path)

    return dataclasses.replace(data, noise=noise_of(par, toas, measures if wide else None, at, scales))


def _masks(par: Par, toas: TOAs, stem: str) -> Array:
    masks = [toas.has(par.selection(name)) for name in listed(par, stem)]
    return as_array(np.reshape(masks, (len(masks), len(toas))).T.astype(float))


def _planets(par: Par, toas: TOAs) -> Array | None:
    if not par.yes("PLANET_SHAPIRO"):
        return None
    if toas.planets is None:
        raise ValueError(
            "PLANET_SHAPIRO is Y, but these TOAs do not know where the planets are: load the tim file anew"
        )
    return as_array(toas.planets)
