"""The timing model: what a par file says, as a tree of components, and the order in which they act.

A pulse is followed from the observatory to the barycentre, through the interstellar medium and past the companion to
the pulsar, whose rotation then says which turn it was. `TimingModel` holds the components and adds up what they give;
it is the model that a fit moves, and its residual is all that the core's solvers see. Everything large is exact and
already in the anchored TOAs (`timing._anchor`): here are only offsets from the par file's values.
"""

import dataclasses
import itertools
import warnings
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float

from ..core import Module, leaf_values, put, suggest, traced, transparent
from ._anchored import AnchoredTOAs
from ._binary import DD, ELL1, AbstractBinary, Kopeikin, ShapiroSini
from ._components import (
    FD,
    AbstractDelay,
    AbstractPhase,
    AstrometryEcliptic,
    AstrometryEquatorial,
    Chromatic,
    ChromaticCMX,
    CMWaveX,
    DispersionDM,
    DispersionDMX,
    DispersionJump,
    DMWaveX,
    Line,
    Par,
    Passage,
    PhaseJump,
    PhaseOffset,
    Rotation,
    SolarWind,
    Spindown,
    components,
    dispersion_delay,
    dot,
    inside,
    listed,
    planet_shapiro,
    solar_shapiro,
    xyz,
)
from ._jacobian import AbstractTimed
from ._known import without_idle
from ._par import read_par
from ._toas import TOAs

Part = TypeVar("Part", bound=Module)

NOISE = "noise."
"""What the places of parameters of the noise begin with."""


class Element(NamedTuple):
    """A parameter: its place in the model (`F[0]`, `noise.EFAC[1]`) and PINT's name (F0, EFAC2)."""

    place: str
    name: str


class Origin(Module):
    """What the offsets of a model in a stack are from, in place of its par file.

    - `values`: those of the par file, in the order of `elements`, rounded to a float64; nan where this pulsar has no
      such parameter.
    - `flagged`: True where its par file flags it, to be fitted.
    - `elements`: all parameters that any pulsar of the stack has, those of the noise too. `flags`: PINT's names of
      those that any par file flags. `fixed_phase`: True where the par files say by a PHOFF what phase 0 is.
    """

    values: Float[Array, " p"]
    flagged: Bool[Array, " p"]
    elements: tuple[Element, ...] = eqx.field(static=True)  # type: ignore[misc]
    flags: tuple[str, ...] = eqx.field(static=True)  # type: ignore[misc]
    fixed_phase: bool = eqx.field(static=True)  # type: ignore[misc]

    def at(self, names: Sequence[str]) -> list[int]:
        """Where parameters are among `elements`, by place or PINT's name."""
        found = {name: k for k, both in enumerate(self.elements) for name in both}
        return [found[name] for name in names]

    def frees(
        self, places: Sequence[str], names: Sequence[str] | None = None
    ) -> Bool[Array, "*pulsars q"] | Bool[np.ndarray, "*pulsars q"]:
        """Which of some places a fit of PINT's `names` frees, `None` for those that are flagged: those that there are.

        The overall phase is always free, unless `fixed_phase`, and so is noise: its place is left out where it is not.
        """
        at = np.array(self.at(places), int)
        chosen = [self.elements[k] for k in at]
        offset = () if self.fixed_phase else ("PHOFF",)
        always = np.array([place.startswith(NOISE) or place in offset for place, _ in chosen])
        wanted = self.flagged[..., at] if names is None else np.array([name in names for _, name in chosen])
        known = self.values[..., at]
        return (wanted | always) & (known == known)


class TimingModel(AbstractTimed[AnchoredTOAs]):
    """A pulsar's timing model: delays from the observatory to the pulsar, and its rotation.

    Every parameter is an offset from the value in the par file, in the par file's unit, and has PINT's name; lists are
    arrays: `F` holds F0, F1, ..., `DMX` all windows. Components that the par file does not use are `None`.

    - `delays`, `phases`: any number of components that only add seconds (waves, jumps of profile evolution) or turns
      (glitches, pieces, tables), in the order of `COMPONENTS`.
    - `par`: the file itself, with the values that the offsets are from: all their digits, more than a float64 has. In a
      stack it is `None`, and `origin` has names and values.
    """

    astrometry: AstrometryEquatorial | AstrometryEcliptic = transparent()
    dispersion: DispersionDM = transparent()
    dmx: DispersionDMX = transparent()
    wind: SolarWind | None = transparent()
    binary: AbstractBinary | None = transparent()
    fd: FD = transparent()
    delays: tuple[AbstractDelay, ...] = transparent()
    dm_waves: DMWaveX | None = transparent()
    chromatic: Chromatic | None = transparent()
    cmx: ChromaticCMX | None = transparent()
    cm_waves: CMWaveX | None = transparent()
    spin: Spindown = transparent()
    jump: PhaseJump = transparent()
    phases: tuple[AbstractPhase, ...] = transparent()
    dm_jump: DispersionJump | None = transparent()
    offset: PhaseOffset = transparent()
    par: Par | None = eqx.field(static=True)  # type: ignore[misc]
    origin: Origin | None = None

    @staticmethod
    def parse(text: str, unknown: str = "error") -> "TimingModel":
        """Make the model that a par file describes.

        **Arguments:**

        - `text`: of the par file, in TDB or in TCB, which becomes TDB with a warning.
        - `unknown`: `"error"` for a line that is not understood, or `"warn"` to tell of those that change nothing,
          all at once, and go on without them.

        **Raises:** `ValueError` for a line that is not understood, always where PINT, tempo or tempo2 would model it
        or where it is to be fitted; for a missing F0 or PEPOCH, components that are not supported, and lines that
        contradict each other.
        """
        model = model_of(text, unknown)
        if counts_from_a_pulse(model):
            warnings.warn(
                "PHOFF counts from phase 0 at PEPOCH here: the lines TZRMJD, TZRFRQ and TZRSITE are not read, since "
                "when that pulse was is found by timing.load, with a tim file",
                stacklevel=2,
            )
        return model

    @property
    def offsets(self) -> dict[str, Float[Array, "*pulsars"]]:
        """How far each parameter is from the par file's value, by PINT's name and in its unit.

        Of a gradient with respect to a model, which is a `TimingModel` too: the derivative with each.
        """
        known = dict(leaf_values(self))
        return {name: _picked(known, place) for place, name in elements(self)}

    def with_offsets(self, offsets: Mapping[str, ArrayLike]) -> "TimingModel":
        """Move some parameters so far from the par file's values, by PINT's name and in its unit.

        In a stack each pulsar that has the parameter is moved; a value may be a number or one for each pulsar.

        **Raises:** `ValueError` for a name that the model does not have.
        """
        places = {name: place for place, name in elements(self)}
        refuse_others(offsets, places)
        moved: dict[str, dict[int, ArrayLike]] = {}
        for name, value in offsets.items():
            leaf, _, rest = places[name].partition("[")
            if self.origin is not None:  # what a pulsar lacks stays 0
                there = self.origin.values[..., self.origin.at([name])[0]]
                value = jnp.where(there == there, value, 0.0)
            moved.setdefault(leaf, {})[int(rest[:-1]) if rest else -1] = value
        known = dict(leaf_values(self))
        return put(self, {leaf: _changed(known[leaf], values) for leaf, values in moved.items()})

    def delay(self, toas: AnchoredTOAs) -> Float[Array, " n"]:
        """Compute the seconds from the observatory to the pulsar's own time, at anchored TOAs, shape (n,)."""
        return self._travel(self.steps(toas), toas)[0]

    def residual(self, toas: AnchoredTOAs) -> Float[Array, " n"]:
        """Compute timing residuals, s: phase, less that of the nearest pulse, over F0, at anchored TOAs.

        Rows of wideband data that measure dispersion have theirs, pc cm^-3.
        """
        return self.residual_of(self.steps(toas), toas)

    def steps(self, toas: AnchoredTOAs) -> dict[str, Float[Array, " n"]]:
        """What each TOA gets from parameters that step between rows, by the name of their leaf; see `tables`."""
        found = {"dmx.DMX": self.dmx.measure(toas.window), "jump.JUMP": self.jump.delay(toas.jumps)}
        if self.cmx is not None and toas.cm_window is not None:
            found["cmx.CMX"] = self.cmx.measure(toas.cm_window)
        if self.dm_jump is not None and toas.dm_jumps is not None:
            found["dm_jump.DMJUMP"] = self.dm_jump.measure(toas.dm_jumps)
        return found

    def tables(self, toas: AnchoredTOAs) -> dict[str, Float[Array, "w n"]]:
        """The derivatives of `steps` with the elements of those leaves."""
        found = {"dmx.DMX": inside(self.dmx.DMX, toas.window), "jump.JUMP": toas.jumps.T}
        if self.cmx is not None and toas.cm_window is not None:
            found["cmx.CMX"] = inside(self.cmx.CMX, toas.cm_window)
        if self.dm_jump is not None and toas.dm_jumps is not None:
            found["dm_jump.DMJUMP"] = -toas.dm_jumps.T
        return found

    def residual_of(self, steps: dict[str, Float[Array, " n"]], toas: AnchoredTOAs) -> Float[Array, " n"]:
        """`residual`, with what `steps` gave."""
        delay, measure = self._travel(steps, toas)
        # all that the parameters change: no absolute phase appears here
        change = self.spin.change(toas.elapsed, delay - toas.delay)
        change = change + self.jump.change(steps["jump.JUMP"], toas.jumps, self.spin)
        phase = toas.phase + change - self.offset.PHOFF
        if self.has_extra_phase:
            phase = phase + self.extra_phase(toas, delay)
        # by the reference F0, not the fitted one: a residual in seconds stays linear in the phase
        residual = phase / self.spin.F_ref[0]
        if toas.measures is None or toas.dm is None:
            return residual
        measure = measure + steps.get("dm_jump.DMJUMP", 0.0)
        return jnp.where(toas.measures, toas.dm - measure, residual)

    @property
    def has_extra_phase(self) -> bool:
        """True where `extra_phase` is not 0."""
        return len(self.phases) > 0

    def extra_phase(self, toas: AnchoredTOAs, delay: Array) -> Float[Array, " n"]:
        """Turns beyond those of a steady spin-down and of JUMPs, with small numbers in float64: glitches, waves, pieces
        and tables.
        """
        time = toas.elapsed + (toas.delay - delay)
        at = Rotation(time, toas.elapsed + toas.delay, self.spin.F[0] + self.spin.F_ref[0])
        total = jnp.zeros_like(time)
        for part in self.phases:
            total = total + part.phase(at)
        return total

    def part(self, kind: type[Part]) -> Part | None:
        """The component of this class among `delays` and `phases`, or `None`."""
        return next((part for part in (*self.delays, *self.phases) if isinstance(part, kind)), None)

    def _travel(self, steps: dict[str, Array], toas: AnchoredTOAs) -> tuple[Array, Array]:
        """(all of the delay in s, dispersion measure)."""
        delay, frequency, measure = self._arrival(steps, toas)
        far, time = ~jnp.isfinite(toas.frequency), toas.elapsed + toas.delay
        log_frequency = jnp.where(far, 0.0, jnp.log(frequency / 1e3))
        if self.binary is not None:
            sees = isinstance(self.binary, DD) and isinstance(self.binary.shapiro, Kopeikin)
            sky = self.astrometry.sky(toas.since_position, xyz(toas.position)) if sees else None
            delay = delay + self.binary.delay(toas.since_orbit - delay, sky)
        delay = delay + self.fd.delay(log_frequency)
        for part in self.delays:
            delay = delay + part.delay(Passage(time, delay, log_frequency, far, toas.fd_jumps))
        if self.dm_waves is not None:
            more = self.dm_waves.measure(time)
            delay = delay + jnp.where(far, 0.0, dispersion_delay(more, frequency))
            measure = measure + more
        if self.chromatic is not None:
            steep = steps.get("cmx.CMX", jnp.zeros_like(time))
            if self.cm_waves is not None:
                steep = steep + self.cm_waves.measure(time)
            delay = delay + jnp.where(far, 0.0, self.chromatic.delay(time, steep, log_frequency))
        return delay, measure

    def _arrival(self, steps: dict[str, Array], toas: AnchoredTOAs) -> tuple[Array, Array, Array]:
        """(delay up to the pulsar's system in s, the frequency there in MHz, dispersion measure)."""
        position, velocity, sun = map(xyz, (toas.position, toas.velocity, toas.sun))
        direction = self.astrometry.direction(toas.since_position)
        # 1 GHz stands in for an infinite frequency: infinity times 0 would make derivatives NaN
        far = ~jnp.isfinite(toas.frequency)
        frequency = jnp.where(far, 1e3, toas.frequency) * (1 - dot(velocity, direction))
        bent = solar_shapiro(direction, sun)
        if toas.planets is not None:
            bent = bent + planet_shapiro(direction, toas.planets)
        # such TOAs have had these delays taken out
        at_barycentre = (position.x == 0) & (position.y == 0) & (position.z == 0)
        delay = self.astrometry.delay(direction, position) + jnp.where(at_barycentre, 0.0, bent) + toas.troposphere
        measure = self.dispersion.measure(toas.since_dispersion) + steps["dmx.DMX"]
        if self.wind is not None:
            measure = measure + self.wind.measure(direction, sun, toas.elapsed + toas.delay)
        return delay + jnp.where(far, 0.0, dispersion_delay(measure, frequency)), frequency, measure


def model_of(text: str, unknown: str) -> TimingModel:
    """What `TimingModel.parse` gives, before anything is said of the pulse that PHOFF counts from."""
    if unknown not in ("error", "warn"):
        raise ValueError(f'unknown should be "error" or "warn", but it is {unknown!r}')
    par = read_par(text)
    model = TimingModel(**components(par), par=par)
    par = without_idle(par, {name for _, name in elements(model)}, unknown)
    if par.was_tcb:
        warnings.warn(
            "the par file is in TCB: its values were converted to TDB as PINT does, which is approximate; "
            "fit it before its residuals are used",
            stacklevel=3,
        )
    if par.find("UNITS") is None and par.word("EPHVER") == "5":
        warnings.warn(
            "the par file has no UNITS and is taken for TDB, as by PINT; with EPHVER 5 tempo2 means TCB: say which",
            stacklevel=3,
        )
    return dataclasses.replace(model, par=par)


def counts_from_a_pulse(model: TimingModel) -> bool:
    """True where a PHOFF counts from the pulse of TZRMJD and not from phase 0 at PEPOCH."""
    par = model.par
    return par is not None and par.find("PHOFF") is not None and par.find("TZRMJD") is not None


def limits(model: TimingModel) -> dict[str, tuple[Array | np.ndarray, Array | np.ndarray]]:
    """Bounds of the offsets of parameters that have a physical range: SINI, which is at most 1."""
    binary = model.binary
    if not isinstance(binary, DD | ELL1) or not isinstance(binary.shapiro, ShapiroSini):
        return {}
    return {"SINI": (-binary.shapiro.SINI_ref, 1 - binary.shapiro.SINI_ref)}


def with_tim_jumps(model: TimingModel, toas: TOAs) -> TimingModel:
    """The model with a JUMP, to be fitted, for each pair of JUMPs in the tim file that it has none for."""
    assert model.par is not None
    missing = lacking_jumps(model.par, toas)
    if not missing:
        return model
    last = len(model.par.numbered("JUMP"))
    more = (Line(f"JUMP{last + k}", "0", fit=True, select=select) for k, select in enumerate(missing, 1))
    par = model.par._replace(lines=(*model.par.lines, *more))
    return TimingModel(**components(par), par=par)


def lacking_jumps(par: Par, toas: TOAs) -> tuple[str, ...]:
    """The selections of those pairs, such as `-tim_jump 1`, that no JUMP of the par file has."""
    have = {line.select for line in par.lines if line.name.startswith("JUMP")}
    return tuple(flag for flag in toas.flags if flag.startswith("-tim_jump ") and flag not in have)


def elements(model: TimingModel) -> Iterator[tuple[str, str]]:
    """(name of the element in jaxsci, PINT's name) of every parameter, PHOFF last, in the order of the fields.

    `F[0]` is F0, `DM[1]` is DM1, `DMX[4]` the fifth of the par file's windows; in a stack of those of all its pulsars.
    """
    if model.origin is not None:
        yield from (both for both in model.origin.elements if not both.place.startswith(NOISE))
        return
    if model.par is None:
        raise ValueError("this model has lost its par file, as in a batch: take the one it was made from")
    for name, value in leaf_values(model):
        if not value.shape:
            yield name, name
            continue
        for k, pint in enumerate(listed(model.par, name)):
            yield f"{name}[{k}]", pint


def refuse_others(names: Iterable[str], known: Collection[str]) -> None:
    """Raise `ValueError` for a name that is not known."""
    for name in names:
        if name not in known:
            there = ", ".join(_in_short(known))
            raise ValueError(f"the timing model has no parameter {name}{suggest(name, known)} (there are {there})")


def _in_short(names: Iterable[str]) -> list[str]:
    """Names in a line: of more than four that are numbered alike, such as a hundred DMX_0001, the first and last."""
    found: list[str] = []
    for _, alike in itertools.groupby(names, lambda name: name.rstrip("0123456789")):
        each = list(alike)
        found += each if len(each) < 5 else [f"{each[0]} to {each[-1]}"]
    return found


def _changed(leaf: Array, values: dict[int, ArrayLike]) -> Any:
    """A leaf with new elements by index, -1 for a leaf that is no list; on the host where all that comes is there."""
    known = not traced((leaf, values))
    xp: Any = np if known else jnp
    if -1 in values:
        return xp.broadcast_to(xp.asarray(values[-1]), leaf.shape)
    new = xp.stack([xp.broadcast_to(xp.asarray(value), leaf.shape[:-1]) for value in values.values()], axis=-1)
    at = list(values)
    if not known:
        return leaf.at[..., jnp.array(at)].set(new)
    whole = np.array(leaf)
    whole[..., at] = new
    return whole


def _picked(values: Mapping[str, Array], place: str) -> Array:
    leaf, _, rest = place.partition("[")
    return values[leaf][..., int(rest[:-1])] if rest else values[leaf]
