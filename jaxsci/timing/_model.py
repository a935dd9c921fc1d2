"""The timing model: what a par file says, as a tree of components."""

from collections.abc import Iterator
from typing import Any, Literal

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from ..core._module import Module
from ..core._parameter import get, parameters, transparent
from ._astrometry import AstrometryEcliptic, AstrometryEquatorial
from ._binary import DD, ELL1, AbstractBinary, Kopeikin, ShapiroSini
from ._build import (
    components,
    epoch_of_orbit as epoch_of_orbit,
    listed,
    obliquity as obliquity,
    refuse_unknown,
    spins as spins,
    windows as windows,
)
from ._chromatic import Chromatic, ChromaticCMX
from ._columns import by_columns
from ._dispersion import DispersionDM, DispersionDMX, DispersionJump, dispersion_delay
from ._frequency_dependent import FD
from ._glitch import Glitch
from ._jump import PhaseJump, PhaseOffset
from ._par import Par
from ._solar_system import planet_shapiro, solar_shapiro
from ._solar_wind import SolarWind
from ._spindown import Spindown
from ._vector import dot, xyz
from ._wave import CMWaveX, DMWaveX, Wave, WaveX


class TimingModel(Module):
    """A pulsar's timing model: delays from the observatory to the pulsar, and its rotation.

    Every parameter is an offset from the value in the par file, in the par file's unit, and has PINT's
    name; lists are arrays: `F` holds F0, F1, ..., `DMX` all windows. Components that the par file does not use are
    `None`. `par` is the file itself, with the values that the offsets are from: all their digits, more than a
    float64 has. `None` in a batch.
    """

    astrometry: AstrometryEquatorial | AstrometryEcliptic = transparent()
    dispersion: DispersionDM = transparent()
    dmx: DispersionDMX = transparent()
    wind: SolarWind | None = transparent()
    binary: AbstractBinary | None = transparent()
    fd: FD = transparent()
    waves: WaveX | None = transparent()
    dm_waves: DMWaveX | None = transparent()
    chromatic: Chromatic | None = transparent()
    cmx: ChromaticCMX | None = transparent()
    cm_waves: CMWaveX | None = transparent()
    spin: Spindown = transparent()
    jump: PhaseJump = transparent()
    glitch: Glitch | None = transparent()
    wave: Wave | None = transparent()
    dm_jump: DispersionJump | None = transparent()
    offset: PhaseOffset = transparent()
    par: Par | None = eqx.field(static=True)  # type: ignore[misc]

    @staticmethod
    def parse(text: str, unknown: Literal["error", "warn"] = "error") -> "TimingModel":
        """The model that a par file describes.

        **Arguments:**

        - `text`: of the par file.
        - `unknown`: `"error"` for a line that is not understood, or `"warn"` to go on without it.

        **Raises:** `ValueError` for a line that is not understood, a missing F0 or PEPOCH, components that are not
        supported, and lines that contradict each other.
        """
        par = Par.parse(text)
        model = TimingModel(**components(par), par=par)
        refuse_unknown(par, {name for _, name in elements(model)}, unknown)
        return model

    def delay(self, toas: Any) -> Float[Array, " n"]:
        """Seconds from the observatory to the pulsar's own time, at anchored TOAs."""
        early = _arrival(self._early(), self._measures(toas), toas)
        return _late(self._late(), early, toas)[0]

    def residual(self, toas: Any, flat: bool = False) -> Float[Array, " n"]:
        """Timing residuals, s: phase, less that of the nearest pulse, over F0, at anchored TOAs.

        Rows of wideband data that measure dispersion have theirs, pc cm^-3. `flat` leaves out the second derivatives
        with the parameters, which a fit by Gauss-Newton does not need.
        """
        rest = eqx.tree_at(lambda m: (m.dmx, m.cmx), self, (None, None), is_leaf=lambda x: x is None)
        if self.dmx.DMX.shape[0] <= _FEW:
            return _residual(rest, self._measures(toas), toas, flat)
        return by_columns(_residual, rest, self._measures(toas), toas, flat)

    def extra_phase(self, toas: Any, delay: Array) -> Float[Array, " n"]:
        """Turns beyond those of a steady spin-down and of JUMPs, with small numbers in float64: glitches and waves."""
        time = toas.elapsed + (toas.delay - delay)
        total = jnp.zeros_like(time)
        if self.glitch is not None:
            total = total + self.glitch.phase(time)
        if self.wave is not None:
            total = total + self.wave.phase(time, self.spin.F[0] + self.spin.F_ref[0])
        return total

    def _measures(self, toas: Any) -> tuple[Array | None, ...]:
        """What steps in windows add: (dispersion, chromatic measure)."""
        return self.dmx.measure(toas.window), None if self.cmx is None else self.cmx.measure(toas.cm_window)

    def _early(self) -> tuple[Any, ...]:
        return self.astrometry, self.dispersion, self.wind

    def _late(self) -> tuple[Any, ...]:
        sees = isinstance(self.binary, DD) and isinstance(self.binary.shapiro, Kopeikin)
        sky = self.astrometry if sees else None
        return sky, self.binary, self.fd, self.waves, self.dm_waves, self.chromatic, self.cm_waves


def _arrival(parts: Any, along: tuple[Any, ...], toas: Any) -> tuple[Any, ...]:
    """(delay up to the pulsar's system in s, ln of the frequency there in GHz, dispersion and chromatic measure)."""
    astrometry, dispersion, wind = parts
    steps, chromatic = along
    position, velocity, sun = map(xyz, (toas.position, toas.velocity, toas.sun))
    direction = astrometry.direction(toas.since_position)
    far = ~jnp.isfinite(toas.frequency)
    frequency = jnp.where(far, 1e3, toas.frequency) * (1 - dot(velocity, direction))
    bent = solar_shapiro(direction, sun)
    if toas.planets is not None:
        bent = bent + planet_shapiro(direction, toas.planets)
    at_barycentre = (position[0] == 0) & (position[1] == 0) & (position[2] == 0)
    delay = astrometry.delay(direction, position) + jnp.where(at_barycentre, 0.0, bent) + toas.troposphere
    measure = dispersion.measure(toas.since_dispersion) + steps
    if wind is not None:
        measure = measure + wind.measure(direction, sun, toas.elapsed + toas.delay)
    delay = delay + jnp.where(far, 0.0, dispersion_delay(measure, frequency))
    log_frequency = jnp.where(far, 0.0, jnp.log(frequency / 1e3))
    return delay, log_frequency, measure if toas.wideband else None, chromatic


def _late(parts: Any, along: tuple[Any, ...], toas: Any) -> tuple[Array, Array | None]:
    """(all of the delay, dispersion measure)."""
    astrometry, binary, fd, waves, dm_waves, chromatic, cm_waves = parts
    early, log_frequency, measure, steps = along
    time, delay = toas.elapsed + toas.delay, early
    if binary is not None:
        sky = None if astrometry is None else astrometry.sky(toas.since_position, xyz(toas.position))
        delay = delay + binary.delay(toas.since_orbit - early, sky)
    delay = delay + fd.delay(log_frequency)
    if waves is not None:
        delay = delay + waves.delay(time - delay)
    far = ~jnp.isfinite(toas.frequency)
    if dm_waves is not None:
        more = dm_waves.measure(time)
        delay = delay + jnp.where(far, 0.0, dispersion_delay(more, 1e3 * jnp.exp(log_frequency)))
        measure = None if measure is None else measure + more
    if chromatic is not None:
        if cm_waves is not None:
            more = cm_waves.measure(time)
            steps = more if steps is None else steps + more
        delay = delay + jnp.where(far, 0.0, chromatic.delay(time, steps, log_frequency))
    return delay, measure


def _row(parts: Any, along: tuple[Any, ...], toas: Any) -> Array:
    late, model = parts
    delay, measure = _late(late, along, toas)
    spin = model.spin
    change = spin.change(toas.elapsed, delay - toas.delay) + model.jump.change(toas.jumps, spin)
    phase = toas.phase + change - model.offset.PHOFF
    if model.glitch is not None or model.wave is not None:
        phase = phase + model.extra_phase(toas, delay)
    residual = phase / spin.F_ref[0]
    if measure is None:
        return residual
    if model.dm_jump is not None:
        measure = measure + model.dm_jump.measure(toas.dm_jumps)
    return jnp.where(toas.measures, toas.dm - measure, residual)


_FEW = 16  # windows of DMX: columns of their own are cheaper than one of the measure that all of them step

_ELSEWHERE = (
    "astrometry",
    "dispersion",
    "dmx",
    "wind",
    "binary",
    "fd",
    "waves",
    "dm_waves",
    "chromatic",
    "cmx",
    "cm_waves",
)


def _residual(model: TimingModel, along: tuple[Any, ...], toas: Any, flat: bool = False) -> Array:
    arrived = by_columns(_arrival, model._early(), along, toas, flat)
    last = eqx.tree_at(
        lambda m: [getattr(m, name) for name in _ELSEWHERE],
        model,
        [None] * len(_ELSEWHERE),
        is_leaf=lambda x: x is None,
    )
    return by_columns(_row, (model._late(), last), arrived, toas, flat)


def limits(model: TimingModel) -> dict[str, tuple[Array, Array]]:
    """Bounds of the offsets of parameters that have a physical range: SINI, which is at most 1."""
    binary = model.binary
    if not isinstance(binary, DD | ELL1) or not isinstance(binary.shapiro, ShapiroSini):
        return {}
    return {"SINI": (-binary.shapiro.SINI_ref, 1 - binary.shapiro.SINI_ref)}


def elements(model: TimingModel) -> Iterator[tuple[str, str]]:
    """(name of the element in jaxsci, PINT's name) of every parameter but PHOFF, in the order of the fields.

    `F[0]` is F0, `DM[1]` is DM1, `DMX[4]` the fifth of the par file's windows.
    """
    assert model.par is not None
    for name in parameters(model):
        if not get(model, name).shape:
            yield name, name
            continue
        for k, pint in enumerate(listed(model.par, name)):
            yield f"{name}[{k}]", pint
