"""From a par file to the noise of given TOAs: which of its lines each TOA has, epochs, Fourier bases.

Noise is no component of the delay: it needs the TOAs as well as the par file, since EFAC and its like select TOAs by
their flags, ECORR joins those of one epoch, and red noise has a basis on the span of the data. `timing._anchor` asks
for it when it ties TOAs to a model. Logarithms of an EQUAD (TNEQ) are translated here.
"""

from collections.abc import Callable
from typing import NamedTuple, TypeVar

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ...core import as_array
from .._constants import K_DM
from .._toas import TOAs
from ._line import EXACT, FOREIGN, FROM_ONE, MASKED, READ, Component, Entry, Line, Par
from .noise import ChromaticNoise, DMNoise, SolarWindNoise, TimingNoise

Process = TypeVar("Process", DMNoise, ChromaticNoise, SolarWindNoise)

_REFERENCE = 1400.0  # MHz, where the noise of dispersion has the amplitude that the par file gives


class Groups(NamedTuple):
    """Which of the par file's EFACs or such each of n TOAs has, counted from 1, 0 for none; and their values."""

    which: np.ndarray
    values: Float[Array, " g"]


class Epochs(NamedTuple):
    """The epoch of each of n TOAs; which ECORR each of the s epochs has, counted from 1, 0 for none."""

    label: np.ndarray
    jitter: np.ndarray


class Fourier(NamedTuple):
    """Frequencies in Hz, each twice, shape (k,); sines and cosines, shape (n, k); the span in s."""

    frequency: np.ndarray
    basis: np.ndarray
    span: float


class Scales(NamedTuple):
    """What the delay of each TOA scales with, at the reference parameters, shape (n,).

    - `ratio`: 1400 MHz over the barycentric frequency.
    - `path`: dispersion measure of the solar wind over its density at 1 au, pc; `None` without a wind.
    """

    ratio: np.ndarray
    path: np.ndarray | None

    @staticmethod
    def at(frequency: np.ndarray, path: np.ndarray | None) -> "Scales":
        """The scales at barycentric frequencies in MHz."""
        return Scales(_REFERENCE / frequency, path)


class _Unit(NamedTuple):
    """Delay in s, and dispersion in pc cm^-3, of each TOA where a process has the value 1."""

    delay: np.ndarray
    measure: np.ndarray | float


def _groups(par: Par, toas: TOAs, stem: str) -> Groups:
    """Which of the par file's lines of a kind each TOA has.

    **Raises:** `ValueError` for two lines that select the same TOA.
    """
    index, values = np.zeros(len(toas), np.int64), []
    for k, name in enumerate(par.numbered(stem), 1):
        here = toas.has(par.selection(name))
        if (index[here] != 0).any():
            raise ValueError(f"{stem}{int(index[here].max())} and {name} select the same TOAs")
        index[here] = k
        values.append(float(par.value(name)))
    return Groups(index, as_array(np.array(values, float)))


def epochs(par: Par, toas: TOAs) -> Epochs:
    """The epochs of TOAs that have ECORR in common.

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
        # counted from the first TOA of an epoch, not from the one before: an epoch never grows longer than 1 s
        for i in here[np.argsort(time[here], kind="stable")]:
            if time[i] - start >= 1:
                start = time[i]
                jitter.append(g)
            label[i] = len(jitter) - 1
    return Epochs(label, np.asarray(jitter, np.int64))


def noise_of(
    par: Par, toas: TOAs, measures: np.ndarray | None, at: Epochs, scales: Callable[[], Scales]
) -> TimingNoise:
    """The noise that a par file gives TOAs.

    **Arguments:** `toas`: one for each row; `measures`: True for the rows that measure dispersion (wideband), `None`
    without; `at`: the epochs of the rows; `scales`: asked only where the par file has noise that depends on the
    frequency.

    **Raises:** `ValueError` for lines that select the same TOAs, flags that no TOA has, and missing slopes.
    """
    wide = measures is not None
    measured = np.zeros(len(toas), bool) if measures is None else measures
    efac, efacs = _groups(par, toas, "EFAC")
    equad, equads = _groups(par, toas, "EQUAD")
    dmefac, dmefacs = _groups(par, toas, "DMEFAC")
    dmequad, dmequads = _groups(par, toas, "DMEQUAD")
    amplitude, slope = _red(par)
    frequency, basis, span = _fourier(par, toas, "RED", amplitude is not None, 30)
    # par and tim files have microseconds, the residuals are in seconds
    error = 1e-6 * np.asarray(toas.error)
    units = _units(par, scales) if any(par.find(f"TN{kind}AMP") is not None for kind in ("DM", "CHROM", "SW")) else {}
    return TimingNoise(
        error=as_array(np.where(measured, np.asarray(toas.dm_error), error) if wide else error),
        efac=as_array(np.where(measured, 0, efac)),
        equad=as_array(np.where(measured, 0, equad)),
        epoch=as_array(at.label),
        basis=as_array(np.where(measured[:, None], 0, basis)),
        jitter=as_array(at.jitter),
        frequency=as_array(frequency),
        span=as_array(span),
        EFAC=efacs,
        EQUAD=equads,
        ECORR=_groups(par, toas, "ECORR").values,
        TNREDAMP=jnp.asarray(-20.0 if amplitude is None else amplitude),
        TNREDGAM=jnp.asarray(slope),
        dmefac=as_array(np.where(measured, dmefac, 0)) if wide else None,
        dmequad=as_array(np.where(measured, dmequad, 0)) if wide else None,
        DMEFAC=dmefacs if wide else None,
        DMEQUAD=dmequads if wide else None,
        dm=_process(DMNoise, par, toas, "DM", 30, units, measured),
        chromatic=_process(ChromaticNoise, par, toas, "CHROM", 30, units, measured),
        wind=_process(SolarWindNoise, par, toas, "SW", 100, units, measured),
    )


def _red(par: Par) -> tuple[float | None, float]:
    """(log10 A, gamma) of the red noise; RNAMP and RNIDX are tempo's form of them."""
    if par.find("TNREDAMP") is not None:
        return float(par.value("TNREDAMP")), float(par.value("TNREDGAM", None))
    if par.find("RNAMP") is not None:
        scale = 86400 * 365.24 * 1e6 / (2 * np.pi * np.sqrt(3))
        return float(np.log10(float(par.value("RNAMP")) / scale)), -float(par.value("RNIDX", None))
    return None, 3.0


def _fourier(par: Par, toas: TOAs, kind: str, used: bool, count: int) -> Fourier:
    """The basis of a process of this kind, by default of so many frequencies over the span of the data."""
    time = (np.asarray(toas.day) - float(np.min(toas.day))) * 86400.0 + np.asarray(toas.second)
    span = 365.25 * 86400 * float(par.value(f"TN{kind}TSPAN")) or float(time.max() - time.min()) or 1.0
    count = int(par.value(f"TN{kind}C", str(count))) if used else 0
    frequency = np.repeat(np.arange(1, count + 1) / span, 2)
    angle = 2 * np.pi * frequency[None, :] * time[:, None]
    even = np.arange(2 * count) % 2 == 0
    return Fourier(frequency, np.where(even[None, :], np.sin(angle), np.cos(angle)), span)


def _process(
    cls: type[Process],
    par: Par,
    toas: TOAs,
    kind: str,
    count: int,
    units: dict[str, _Unit],
    measures: np.ndarray,
) -> Process | None:
    """The noise of dispersion, of chromatic measure or of the solar wind; `None` where the par file has none."""
    if par.find(f"TN{kind}AMP") is None:
        return None
    amplitude, slope = (as_array(float(par.value(f"TN{kind}{part}", None))) for part in ("AMP", "GAM"))
    frequency, basis, span = _fourier(par, toas, kind, True, count)
    scaled = basis * np.where(measures, units[kind].measure, units[kind].delay)[:, None]
    return cls(as_array(scaled), as_array(frequency), as_array(span), amplitude, slope)


def _units(par: Par, scales: Callable[[], Scales]) -> dict[str, _Unit]:
    """What each kind of process does to a TOA where it has the value 1."""
    ratio, path = scales()
    found = {
        "DM": _Unit(ratio**2, _REFERENCE**2 / K_DM),
        "CHROM": _Unit(ratio ** float(par.value("TNCHROMIDX", "4")), 0.0),
    }
    if path is not None:
        found["SW"] = _Unit(path * K_DM * (ratio / _REFERENCE) ** 2, path)
    return found


def _without_tneq(lines: list[Line]) -> list[Line]:
    """TNEQ is the logarithm of an EQUAD in s; as in PINT it yields to an EQUAD of the same TOAs."""
    known = {line.select for line in lines if line.name == "EQUAD"}
    kept = [line for line in lines if line.name != "TNEQ" or line.select not in known]
    return [
        line._replace(name="EQUAD", text=str(EXACT.power(10, line.value + 6)), error="")
        if line.name == "TNEQ"
        else line
        for line in kept
    ]


NOISE_LINES = Component(
    "",
    (
        Entry("EFAC", FROM_ONE, READ, MASKED, aliases=("T2EFAC", "TNEF")),
        Entry("EQUAD", FROM_ONE, READ, MASKED, aliases=("T2EQUAD",)),
        Entry("ECORR", FROM_ONE, READ, MASKED, aliases=("TNECORR",)),
        Entry("DMEFAC", FROM_ONE, READ, MASKED),
        Entry("DMEQUAD", FROM_ONE, READ, MASKED),
        Entry("TNEQ", FROM_ONE, FOREIGN, MASKED, translate=_without_tneq),
        *(
            Entry(f"TN{kind}{part}", role=READ)
            for kind in ("RED", "DM", "CHROM", "SW")
            for part in ("AMP", "GAM", "C", "TSPAN")
        ),
        *(Entry(name, role=READ) for name in ("RNAMP", "RNIDX")),
    ),
)
