"""From a par file to the noise of given TOAs: which of its lines each TOA has, epochs, Fourier bases."""

from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from ..core import as_array
from ._build import listed
from ._constants import K_DM
from ._model import TimingModel
from ._noise import ChromaticNoise, DMNoise, SolarWindNoise, TimingNoise
from ._par import Par
from ._toas import TOAs
from ._vector import xyz

_REFERENCE = 1400.0  # MHz, where the noise of dispersion has the amplitude that the par file gives


def selection(par: Par, name: str) -> str:
    """Which TOAs a line of the par file is for."""
    line = par.find(name)
    assert line is not None
    return line.select


def in_windows(par: Par, stem: str, utc: np.ndarray) -> np.ndarray:
    """The windows of DMX or CMX that each TOA is in, from 1; 0 for none.

    **Returns:** shape (n, k), k the most windows that any TOA is in, at least 1: those that overlap add up, as in PINT.
    """
    inside = np.zeros((len(utc), 0), bool)
    names = listed(par, stem)
    if names:
        ends = [[float(par.value(name.replace(f"{stem}_", f"{stem}R{k}_"), None)) for k in (1, 2)] for name in names]
        low, high = np.array(ends).T
        inside = (utc[:, None] >= low) & (utc[:, None] <= high)
    count = int(inside.sum(axis=1).max(initial=1))
    index = np.zeros((len(utc), count), np.int64)
    rows, found = np.nonzero(inside)
    first = np.searchsorted(rows, rows)  # rows rise: where each one starts
    index[rows, np.arange(len(rows)) - first] = found + 1
    return index


def _groups(par: Par, toas: TOAs, stem: str) -> tuple[np.ndarray, Array]:
    """(which of the par file's EFACs or such each TOA has, from 1; their values)."""
    index, values = np.zeros(len(toas), np.int64), []
    for k, name in enumerate(par.numbered(stem), 1):
        here = toas.select(selection(par, name))
        if (index[here] != 0).any():
            raise ValueError(f"{stem}{int(index[here].max())} and {name} select the same TOAs")
        index[here] = k
        values.append(float(par.value(name)))
    return index, as_array(np.array(values, float))


def epochs(par: Par, toas: TOAs) -> tuple[np.ndarray, np.ndarray]:
    """(the epoch of each TOA, which ECORR each epoch has).

    TOAs of one ECORR within a second of the first are an epoch, as in PINT. Those without any share the first epoch,
    which has none either; where no TOA has one, there is no epoch.
    """
    group, values = _groups(par, toas, "ECORR")
    time = np.asarray(toas.day) * 86400.0 + np.asarray(toas.second)
    label = np.zeros(len(toas), np.int64)
    jitter = [0] if len(values) and (group == 0).any() else []
    for g in np.unique(group[group > 0]):
        here = np.flatnonzero(group == g)
        start = -np.inf
        for i in here[np.argsort(time[here], kind="stable")]:
            if time[i] - start >= 1:
                start = time[i]
                jitter.append(g)
            label[i] = len(jitter) - 1
    return label, np.asarray(jitter, np.int64)


def noise_of(model: TimingModel, toas: TOAs, data: Any, epoch: np.ndarray, jitter: np.ndarray) -> TimingNoise:
    """The noise that the model's par file gives TOAs, in the order of `data`, whose rows may measure dispersion."""
    par, wide = model.par, data.measures is not None
    assert par is not None
    measures = np.asarray(data.measures) if wide else np.zeros(len(toas), bool)
    efac, efacs = _groups(par, toas, "EFAC")
    equad, equads = _groups(par, toas, "EQUAD")
    _, ecorrs = _groups(par, toas, "ECORR")
    dmefac, dmefacs = _groups(par, toas, "DMEFAC")
    dmequad, dmequads = _groups(par, toas, "DMEQUAD")
    amplitude, slope = _red(par)
    frequency, basis, span = _fourier(par, toas, "RED", amplitude is not None, 30)
    error = 1e-6 * np.asarray(toas.error)
    return TimingNoise(
        error=as_array(np.where(measures, np.asarray(toas.dm_error), error) if wide else error),
        efac=as_array(np.where(measures, 0, efac)),
        equad=as_array(np.where(measures, 0, equad)),
        epoch=as_array(epoch),
        basis=as_array(np.where(measures[:, None], 0, basis)),
        jitter=as_array(jitter),
        frequency=as_array(frequency),
        span=as_array(span),
        EFAC=efacs,
        EQUAD=equads,
        ECORR=ecorrs,
        TNREDAMP=jnp.asarray(-20.0 if amplitude is None else amplitude),
        TNREDGAM=jnp.asarray(slope),
        dmefac=as_array(np.where(measures, dmefac, 0)) if wide else None,
        dmequad=as_array(np.where(measures, dmequad, 0)) if wide else None,
        DMEFAC=dmefacs if wide else None,
        DMEQUAD=dmequads if wide else None,
        **_processes(model, par, toas, data, measures),
    )


def _red(par: Par) -> tuple[float | None, float]:
    """(log10 A, gamma) of the red noise; RNAMP and RNIDX are tempo's form of them."""
    if par.find("TNREDAMP") is not None:
        return float(par.value("TNREDAMP")), float(par.value("TNREDGAM", None))
    if par.find("RNAMP") is not None:
        scale = 86400 * 365.24 * 1e6 / (2 * np.pi * np.sqrt(3))
        return float(np.log10(float(par.value("RNAMP")) / scale)), -float(par.value("RNIDX", None))
    return None, 3.0


def _fourier(par: Par, toas: TOAs, kind: str, used: bool, count: int) -> tuple[np.ndarray, np.ndarray, float]:
    """(frequencies in Hz, each twice; sines and cosines, shape (n, k); span in s) of a process of this kind."""
    time = (np.asarray(toas.day) - float(np.min(toas.day))) * 86400.0 + np.asarray(toas.second)
    span = 365.25 * 86400 * float(par.value(f"TN{kind}TSPAN")) or float(time.max() - time.min()) or 1.0
    count = int(par.value(f"TN{kind}C", str(count))) if used else 0
    frequency = np.repeat(np.arange(1, count + 1) / span, 2)
    angle = 2 * np.pi * frequency[None, :] * time[:, None]
    even = np.arange(2 * count) % 2 == 0
    return frequency, np.where(even[None, :], np.sin(angle), np.cos(angle)), span


def _processes(model: TimingModel, par: Par, toas: TOAs, data: Any, measures: np.ndarray) -> dict[str, Any]:
    """The noise of dispersion, of chromatic measure and of the solar wind that the par file has."""
    found: dict[str, Any] = {}
    kinds = (("dm", "DM", DMNoise, 30), ("chromatic", "CHROM", ChromaticNoise, 30), ("wind", "SW", SolarWindNoise, 100))
    for field, kind, cls, count in kinds:
        if par.find(f"TN{kind}AMP") is None:
            continue
        values = [float(par.value(f"TN{kind}{part}", None)) for part in ("AMP", "GAM")]
        frequency, basis, span = _fourier(par, toas, kind, True, count)
        delay, measure = _scales(model, par, toas, data)[kind]
        scaled = basis * np.where(measures, measure, delay)[:, None]
        found[field] = cls(*(as_array(x) for x in (scaled, frequency, span, *values)))
    return found


def _scales(model: TimingModel, par: Par, toas: TOAs, data: Any) -> dict[str, tuple[Any, Any]]:
    """(delay in s, dispersion in pc cm^-3) of each TOA where a process has the value 1, at the reference parameters."""
    direction = model.astrometry.direction(data.since_position)
    doppler = 1 - np.sum(np.asarray(toas.velocity) * np.asarray(direction).T, axis=1)
    ratio = _REFERENCE / (np.asarray(toas.frequency) * doppler)
    scales: dict[str, tuple[Any, Any]] = {
        "DM": (ratio**2, _REFERENCE**2 / K_DM),
        "CHROM": (ratio ** float(par.value("TNCHROMIDX", "4")), 0.0),
    }
    if model.wind is not None:
        path = np.asarray(model.wind.geometry(direction, xyz(data.sun)))
        scales["SW"] = path * K_DM * (ratio / _REFERENCE) ** 2, path
    return scales
