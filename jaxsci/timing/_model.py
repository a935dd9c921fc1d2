"""The timing model: what a par file says, as a tree of components."""

from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from ..core._module import Module
from ..core._parameter import parameters, transparent
from ._astrometry import AstrometryEcliptic, AstrometryEquatorial
from ._binary import DD, ELL1
from ._binary._kepler import AbstractBinary
from ._columns import by_columns
from ._constants import OBLIQUITY
from ._dispersion import DispersionDM, DispersionDMX, dispersion_delay
from ._frequency_dependent import FD
from ._jump import PhaseJump, PhaseOffset
from ._par import Par
from ._solar_system import solar_shapiro
from ._spindown import Spindown


class TimingModel(Module):
    """A pulsar's timing model: delays from the observatory to the pulsar, and its rotation.

    Every parameter is an offset from the value in the par file, in the par file's unit, and has PINT's
    name; lists are arrays: `F` holds F0, F1, ..., `DMX` all windows. `par` is the file itself, with the
    values that the offsets are from: all their digits, more than a float64 has. `None` in a batch.
    """

    astrometry: AstrometryEquatorial | AstrometryEcliptic = transparent()
    dispersion: DispersionDM = transparent()
    dmx: DispersionDMX = transparent()
    binary: AbstractBinary | None = transparent()
    fd: FD = transparent()
    spin: Spindown = transparent()
    jump: PhaseJump = transparent()
    offset: PhaseOffset = transparent()
    par: Par | None = eqx.field(static=True)  # type: ignore[misc]

    @staticmethod
    def parse(text: str) -> "TimingModel":
        """The model that a par file describes.

        **Raises:** `ValueError` for a line that is not understood, a missing F0 or PEPOCH, and for
        components that are not supported.
        """
        return build(Par.parse(text))

    def delay(self, toas: Any) -> Float[Array, " n"]:
        """Seconds from the observatory to the pulsar's own time, at anchored TOAs."""
        early, log_frequency = self._arrival(toas)
        return self._late(early, log_frequency, toas)

    def residual(self, toas: Any, flat: bool = False) -> Float[Array, " n"]:
        """Timing residuals, s: phase, less that of the nearest pulse, over F0, at anchored TOAs.

        `flat` leaves out their second derivatives, which a fit by Gauss-Newton does not need.
        """
        dmx = self.dmx.measure(toas.window)
        rest = eqx.tree_at(lambda m: m.dmx, self, None, is_leaf=lambda x: x is None)
        return by_columns(_residual, rest, (dmx,), toas, flat)

    def _arrival(self, toas: Any, dmx: Any = None) -> tuple[Array, Array]:
        """(delay up to the pulsar's system, ln of the barycentric frequency in GHz)."""
        return _arrival((self.astrometry, self.dispersion), (self.dmx.measure(toas.window),), toas)

    def _late(self, early: Array, log_frequency: Array, toas: Any) -> Array:
        return _late((self.binary, self.fd), (early, log_frequency), toas)


def _arrival(parts: Any, along: tuple[Array, ...], toas: Any) -> tuple[Array, Array]:
    astrometry, dispersion = parts
    position, velocity, sun = (x.T for x in (toas.position, toas.velocity, toas.sun))
    direction = astrometry.direction(toas.since_position)
    frequency = toas.frequency * (1 - jnp.sum(velocity * direction, axis=0))
    delay = astrometry.delay(direction, position) + solar_shapiro(direction, sun) + toas.troposphere
    measure = dispersion.measure(toas.since_dispersion) + along[0]
    finite = jnp.isfinite(frequency)
    return delay + dispersion_delay(measure, frequency), jnp.log(jnp.where(finite, frequency, 1e3) / 1e3)


def _late(parts: Any, along: tuple[Array, ...], toas: Any) -> Array:
    binary, fd = parts
    early, log_frequency = along
    delay = early if binary is None else early + binary.delay(toas.since_orbit - early)
    return delay + fd.delay(log_frequency)


def _turns(parts: Any, along: tuple[Array, ...], toas: Any) -> Array:
    binary, fd, spin, jump, offset = parts
    later = _late((binary, fd), along, toas) - toas.delay
    change = spin.change(toas.elapsed, later) + jump.change(toas.jumps, spin)
    return (toas.phase + change - offset.PHOFF) / spin.F_ref[0]


def _residual(model: TimingModel, along: tuple[Array, ...], toas: Any) -> Array:
    arrived = by_columns(_arrival, (model.astrometry, model.dispersion), along, toas)
    late = (model.binary, model.fd, model.spin, model.jump, model.offset)
    return by_columns(_turns, late, arrived, toas)


_KNOWN = {"PSR", "EPHEM", "CLK", "UNITS", "TIMEEPH", "T2CMETHOD", "START", "FINISH", "NTOA", "TRES", "TZRMJD"}
_KNOWN |= {"TZRFRQ", "TZRSITE", "NITS", "INFO", "DILATEFREQ", "CHI2", "CHI2R", "EPHVER", "MODE", "DMDATA", "ECL"}
_KNOWN |= {"PEPOCH", "POSEPOCH", "DMEPOCH", "CORRECT_TROPOSPHERE", "BINARY", "RNAMP", "RNIDX", "TNREDAMP", "TNREDGAM"}
_KNOWN |= {"TNREDC", "DMX", "PLANET_SHAPIRO", "DM1", "TRACK", "BIPMVERSION"}
_ZERO = ("NE_SW", "SWM", "PLANET_SHAPIRO", "DILATEFREQ", "DMDATA")
_BINARIES = {"ELL1": ELL1, "DD": DD}


def build(par: Par) -> TimingModel:
    """The model of a par file that has been read."""
    model = TimingModel(
        _astrometry(par),
        DispersionDM(*_list(par, ("DM", *par.numbered("DM")))),
        DispersionDMX(*_list(par, windows(par))),
        _binary(par),
        FD(*_list(par, par.numbered("FD"))),
        Spindown(*_list(par, spins(par))),
        PhaseJump(*_list(par, par.numbered("JUMP"))),
        PhaseOffset(jnp.zeros(())),
        par,
    )
    _refuse_unknown(par, model)
    return model


def _refuse_unknown(par: Par, model: TimingModel) -> None:
    if par.word("UNITS", "TDB") != "TDB":
        raise ValueError(f"UNITS is {par.word('UNITS')}: only TDB is supported; PINT's tcb2tdb converts a par file")
    for name in _ZERO:
        line = par.find(name)
        if line is not None and line.text.upper() not in ("N", "NO", "F", "FALSE") and not _is_zero(line.text):
            raise ValueError(f"{name} {line.text}: this component is not supported; leave it out or set it to 0")
    known = _KNOWN | {name for _, name in elements(model)} | set(_ZERO)
    stems = ("EFAC", "EQUAD", "ECORR", "DMXR1_", "DMXR2_", "DMXEP_", "DMXF1_", "DMXF2_")
    for line in par.lines:
        if line.name not in known and not line.name.startswith(stems):
            raise ValueError(f"the par file's line {line.name} {line.text} is not understood by this model")


def _is_zero(text: str) -> bool:
    return not text.strip("0.+-eEdD")


def spins(par: Par) -> tuple[str, ...]:
    """F0, F1, ...; `ValueError` without F0 or PEPOCH."""
    for name in ("F0", "PEPOCH"):
        par.value(name, None)
    return par.numbered("F", 0)


def windows(par: Par) -> tuple[str, ...]:
    """Names of the DMX windows in rising order."""
    return tuple(sorted(line.name for line in par.lines if line.name.startswith("DMX_")))


def _list(par: Par, names: tuple[str, ...]) -> tuple[Array, Array]:
    values = [float(par.value(name)) for name in names]
    return jnp.zeros(len(values)), jnp.asarray(values, float)


def _astrometry(par: Par) -> AstrometryEquatorial | AstrometryEcliptic:
    if par.find("ELONG") is None:
        names = ("RAJ", "DECJ", "PMRA", "PMDEC", "PX")
        needed = ("RAJ", "DECJ")
    else:
        names, needed = ("ELONG", "ELAT", "PMELONG", "PMELAT", "PX"), ("ELONG", "ELAT")
    values = [jnp.asarray(float(par.value(name, None if name in needed else "0"))) for name in names]
    zeros = [jnp.zeros(()) for _ in names]
    if needed[0] == "RAJ":
        return AstrometryEquatorial(*zeros, *values)
    tilt = jnp.deg2rad(jnp.asarray(obliquity(par.word("ECL", "IERS2010")) / 3600))
    return AstrometryEcliptic(*zeros, *values, obliquity=tilt)  # type: ignore[misc]


def obliquity(name: str) -> float:
    """The obliquity in arcsec that ECL names."""
    if name not in OBLIQUITY:
        raise ValueError(f"ECL {name} is not known; there are {', '.join(OBLIQUITY)}")
    return OBLIQUITY[name]


def _binary(par: Par) -> AbstractBinary | None:
    kind = par.word("BINARY")
    if not kind:
        return None
    if kind not in _BINARIES:
        raise ValueError(f"BINARY {kind} is not supported; there are {', '.join(_BINARIES)}")
    epoch = "TASC" if kind == "ELL1" else "T0"
    for name in ("PB", "A1", epoch):
        par.value(name, None)
    cls: Any = _BINARIES[kind]
    names = [name.removesuffix("_ref") for name in cls.__dataclass_fields__]
    values = {
        f"{name}_ref": jnp.asarray(float(par.value(name)))
        for name in names
        if f"{name}_ref" in cls.__dataclass_fields__
    }
    offsets = {name: jnp.zeros(()) for name in names}
    return cls(**offsets, **values)


def epoch_of_orbit(par: Par) -> Decimal:
    """The epoch from which a binary counts, MJD; PEPOCH without one."""
    kind = par.word("BINARY")
    return par.value(("TASC" if kind == "ELL1" else "T0") if kind else "PEPOCH", None)


_LISTS = {"F": ("F", 0), "DM": ("DM", 0), "FD": ("FD", 1), "JUMP": ("JUMP", 1)}


def elements(model: TimingModel) -> Iterator[tuple[str, str]]:
    """(name of the element in jaxsci, PINT's name) of every parameter but PHOFF, in the order of the fields.

    `F[0]` is F0, `DM[1]` is DM1, `DMX[4]` the fifth of the par file's windows.
    """
    ids = windows(model.par) if model.par is not None else ()
    sizes = {
        "F": model.spin.F,
        "DM": model.dispersion.DM,
        "FD": model.fd.FD,
        "JUMP": model.jump.JUMP,
        "DMX": model.dmx.DMX,
    }
    for name in parameters(model):
        if name not in sizes:
            yield name, name
            continue
        for k in range(sizes[name].shape[0]):
            stem, first = _LISTS.get(name, ("", 0))
            pint = ids[k] if name == "DMX" else "DM" if (name, k) == ("DM", 0) else f"{stem}{k + first}"
            yield f"{name}[{k}]", pint
