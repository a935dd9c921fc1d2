"""A config of `task = "meanfield"` becomes members: evolutions, games and calibrations, all read and checked.

Each `[[run]]` is a member. What stands outside of the runs belongs to all of them, and a run may change any of it: its
keys come first, and its tables are laid over those of the same name. A run with a table `game` is a game, one with a
table `calibrate` a calibration, and any other an evolution of particles. The task calls `build_job`.
"""

import dataclasses
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from ...core import match
from ...evolution import (
    SDE,
    AbstractInteraction,
    AbstractStart,
    AbstractStepper,
    AbstractSummary,
    Draw,
    Ensemble,
)
from ...runs import CLASS_ERRORS, Config, ConfigError, Job, Registry, check_keys, construct, first_line, shown, take
from ...runs.fits import read_steps
from .._boundary import WALLS, Box, Grid
from .._calibrate import DensitySnapshots
from .._costs import METHODS
from .._density import BinnedKDE, DenseKDE, SpectralKDE
from .._game import MeanFieldGame
from .._initial import density_on
from .references import Reference, SolvedReference, read_densities, read_reference

_ABOUT = ("task", "title", "description", "run")
_ANY = ("box", "diffusion", "start", "time")
_EVOLUTION = (*_ANY, "drift", "particles", "seed", "chunk", "stepper", "density", "method", "accuracy", "reference")
_GAME = (*_ANY, "game", "reference")
_CALIBRATION = (*_ANY, "drift", "particles", "seed", "stepper", "density", "calibrate")
_BOX = ("lower", "upper", "walls", "cells")
_TIME = ("start", "end", "steps", "keep")
_TERMS = ("running", "terminal", "coupling", "terminal_coupling")
_NUMERICS = ("method", "scheme", "substeps", "policies")
_GAME_KEYS = (*_TERMS, "hamiltonian", "solver", "tolerance", "max_maps", *_NUMERICS)
_CALIBRATE = ("observed", "free", "bounds", "max_steps", "steps", "truth")
_KEPT = 20  # intervals between times that are kept, where a config says nothing
_NUMBER = (int, float)


@dataclasses.dataclass(frozen=True)
class Particles:
    """An evolution of particles: the equation, which particles, how they are carried and what is kept of them.

    `grid`: the cells of the density. `chunk`: particles that are drawn at a time; `None` for all.
    """

    name: str
    source: str
    what: str
    sde: SDE
    draw: Draw
    ts: np.ndarray
    every: int
    stepper: AbstractStepper
    density: AbstractSummary
    grid: Grid
    chunk: int | None
    reference: Reference | SolvedReference | None

    @property
    def count(self) -> int:
        """How many particles there are."""
        return self.draw.n

    @property
    def size(self) -> str:
        """How large it is, in words."""
        return f"{self.count:,d} particles, {self.ts.size - 1} steps"


@dataclasses.dataclass(frozen=True)
class Densities:
    """A density that evolves by a method that is given, or chosen: `options` are those of `evolve_density`."""

    name: str
    source: str
    what: str
    sde: SDE
    start: AbstractStart
    ts: np.ndarray
    every: int
    grid: Grid
    method: str
    n: int
    options: dict[str, Any]
    reference: Reference | SolvedReference | None

    @property
    def asked(self) -> dict[str, Any]:
        """The arguments of `evolve_density` that have names."""
        return {"method": self.method, "n": self.n, "every": self.every, **self.options}

    @property
    def size(self) -> str:
        """How large it is, in words."""
        return f"{self.n:,d} particles or {self.grid.size:,d} cells, {self.ts.size - 1} steps"


@dataclasses.dataclass(frozen=True)
class Game:
    """A game, and how its equilibrium is looked for: `options` are those of `solve_game`.

    `coarse`: makes the same game on half the cells along each axis and half the times, by which its error is known, or
    `None` where they cannot be halved.
    """

    name: str
    source: str
    what: str
    game: MeanFieldGame
    coarse: Callable[[], MeanFieldGame | None]
    options: dict[str, Any]
    reference: Reference | None

    @property
    def size(self) -> str:
        """How large it is, in words."""
        cells = " x ".join(map(str, self.game.grid.shape))
        return f"{cells} cells, {self.game.ts.shape[0] - 1} steps"


@dataclasses.dataclass(frozen=True)
class Calibration:
    """A fit of drift and diffusion to observed densities. `truth`: known values by name."""

    name: str
    source: str
    what: str
    sde: SDE
    data: DensitySnapshots
    options: dict[str, Any]
    truth: dict[str, float]

    @property
    def size(self) -> str:
        """How large it is, in words."""
        return f"{self.data.observed.size:,d} cells observed, {self.data.start.positions.shape[0]:,d} particles"


Member = Particles | Densities | Game | Calibration


@dataclasses.dataclass(frozen=True)
class Run:
    """The tables of one run, laid over those of all, with where each is said in the config."""

    tables: dict[str, Any]
    own: Mapping[str, Any]
    place: str

    def where(self, key: str) -> str:
        """The path of a key in the config."""
        return f"{self.place}.{key}" if key in self.own else key

    def table(self, key: str, known: tuple[str, ...], why: str) -> dict[str, Any]:
        """A table that has to be there, with its keys checked.

        **Raises:** `ConfigError` with `why` it is needed.
        """
        found = self.take(key, dict)
        if found is None:
            raise ConfigError(key, why)
        check_keys(found, known, self.where(key))
        return dict(found)

    def take(self, key: str, kind: type | tuple[type, ...], default: Any = None) -> Any:
        """The value of a key, held to a type."""
        path, _, last = self.where(key).rpartition(".")
        return take(self.tables, last, kind, path, default)

    def positive(self, key: str, default: int) -> int:
        """A whole number of 1 or more."""
        value: int = self.take(key, int, default)
        if value < 1:
            raise ConfigError(self.where(key), f"should be 1 or more, but it is {value}")
        return value


def build_job(config: Config, registry: Registry) -> Job[Member]:
    """Read and check a config.

    **Raises:** `ConfigError` naming table and key.
    """
    tables = config.tables
    every = tuple(dict.fromkeys((*_EVOLUTION, *_GAME, *_CALIBRATION)))
    check_keys(tables, (*_ABOUT, *every), "")
    title = take(tables, "title", str, "", config.path.stem)
    entries = take(tables, "run", list, "", [{}])
    if not entries:
        raise ConfigError("run", "there are no runs: write [[run]], or leave the key out for one run")
    shared = {key: value for key, value in tables.items() if key not in _ABOUT}
    members: list[Member] = []
    solved: dict[str, SolvedReference] = {}
    for k, entry in enumerate(entries):
        place = f"run[{k}]"
        if not isinstance(entry, dict):
            raise ConfigError(place, f"should be a table, but it is {shown(entry)}")
        check_keys(entry, ("name", *every), place)
        name = take(entry, "name", str, place, title if len(entries) == 1 else f"run {k + 1}")
        run = Run(_laid_over(shared, entry), entry, place)
        members.append(_shared(_member(config, registry, run, name), run, solved))
    return Job(title, take(tables, "description", str, "", ""), tuple(members))


def _shared(member: Member, run: Run, solved: dict[str, SolvedReference]) -> Member:
    """Runs of one problem share the solution that they are compared with."""
    if not isinstance(member, Particles | Densities) or not isinstance(member.reference, SolvedReference):
        return member
    problem = {key: run.tables.get(key) for key in ("box", "drift", "diffusion", "start")}
    known = solved.setdefault(repr((problem, member.reference.ts.tolist())), member.reference)
    return dataclasses.replace(member, reference=known)


def _laid_over(shared: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """A run's keys over those of all: tables key by key, unless they are of another type."""
    found = dict(shared)
    for key, value in own.items():
        below = shared.get(key)
        both = isinstance(below, dict) and isinstance(value, dict)
        same = both and value.get("type", below.get("type")) == below.get("type")  # type: ignore[union-attr]
        found[key] = {**below, **value} if same else value  # type: ignore[dict-item]
    return found


def _member(config: Config, registry: Registry, run: Run, name: str) -> Member:
    if "game" in run.tables and "calibrate" in run.tables:
        raise ConfigError(run.place, "a run is a game or a calibration, not both: leave one of the tables out")
    if "game" in run.tables:
        return _game(config, registry, run, name)
    if "calibrate" in run.tables:
        return _calibration(config, registry, run, name)
    return _particles(config, registry, run, name)


# --- evolutions ----------------------------------------------------------------------------------------------------


def _particles(config: Config, registry: Registry, run: Run, name: str) -> Particles | Densities:
    _only(run, _EVOLUTION, "an evolution of particles")
    grid, bounded = _grid(run)
    sde = _sde(registry, run, grid, bounded)
    start = _start(config, registry, run, grid)
    count, seed = run.positive("particles", 10_000), run.take("seed", int, 0)
    chunk = run.positive("chunk", 1) if "chunk" in run.tables else None
    ts, every = _times(run)
    reference = _reference(config, run, sde, start, grid, ts[::every])
    stepper = construct(run.tables.get("stepper", "EulerMaruyama"), "steppers", registry, run.where("stepper"))
    source, what = "" if reference is None else f"beside {reference.name}", type(sde.drift).__name__
    if "method" in run.tables:
        method, options = _method(registry, run, grid)
        options |= {"stepper": stepper, "key": seed, "chunk": chunk}
        return Densities(name, source, what, sde, start, ts, every, grid, method, count, options, reference)
    if "accuracy" in run.tables:
        raise ConfigError(run.where("accuracy"), 'goes with a method: give method = "auto" too')
    density = _density(registry, run, grid, {"total": float(count) if sde.domain.absorbs else None})
    return Particles(
        name, source, what, sde, Draw(start, count, seed), ts, every, stepper, density, grid, chunk, reference
    )


def _method(registry: Registry, run: Run, grid: Grid) -> tuple[str, dict[str, Any]]:
    """The method that is asked for, and what it shares with a density that is named."""
    method, known = run.take("method", str), ("auto", *METHODS)
    if method not in known:
        raise ConfigError(run.where("method"), f"should be one of {', '.join(known)}, but it is {shown(method)}")
    options: dict[str, Any] = {}
    density = _density(registry, run, grid, {})
    if isinstance(density, SpectralKDE | DenseKDE | BinnedKDE):
        options["bandwidth"] = density.bandwidth
    if "accuracy" in run.tables:
        options["accuracy"] = float(run.take("accuracy", _NUMBER))
        if not options["accuracy"] > 0:
            raise ConfigError(
                run.where("accuracy"), "should be a positive number: the error of a value over the largest"
            )
    return method, options


def _only(run: Run, known: tuple[str, ...], what: str) -> None:
    """What a run says itself has to mean something for it; what it shares with others need not."""
    for key in run.own:
        if key != "name" and key not in known:
            raise ConfigError(run.where(key), f"this means nothing for {what}: leave it out of this run")


def _grid(run: Run) -> tuple[Grid, bool]:
    """The cells of a box, and whether its walls are there for the particles."""
    table = run.table("box", _BOX, "say where: [box] with lower, upper, walls and cells")
    where = run.where("box")
    for key in ("lower", "upper", "cells"):
        if key not in table:
            raise ConfigError(f"{where}.{key}", "is needed: [box] has lower, upper, walls and cells")
    walls = table.get("walls", "reflecting")
    bounded = walls != "free"
    if bounded:
        _check_walls(walls, f"{where}.walls")
    cells = take(table, "cells", (int, list), where)
    try:
        # a wall that is not there still ends the cells, at which kernels are turned back
        pairs = tuple(tuple(w) if isinstance(w, list) else w for w in walls) if isinstance(walls, list) else walls
        box = Box(table["lower"], table["upper"], pairs if bounded else "reflecting")
        return Grid(box, cells if isinstance(cells, int) else tuple(cells)), bounded
    except CLASS_ERRORS as error:
        raise ConfigError(where, first_line(error)) from error


def _check_walls(walls: object, where: str) -> None:
    known = (*WALLS, "free")
    if isinstance(walls, str) and walls not in known:
        raise ConfigError(where, f"should be one of {', '.join(known)}, but it is {shown(walls)}")
    if not isinstance(walls, str | list):
        raise ConfigError(where, f"should be a word, or a list with one for each axis, but it is {shown(walls)}")


def _sde(registry: Registry, run: Run, grid: Grid, bounded: bool) -> SDE:
    if "drift" not in run.tables:
        raise ConfigError(
            "drift", 'is needed: [drift] with type = "OrnsteinUhlenbeck", or another (`jaxsci list drifts`)'
        )
    drift = construct(run.tables["drift"], "drifts", registry, run.where("drift"))
    spec, where = run.take("diffusion", (int, float, list, dict)), run.where("diffusion")
    if spec is None:
        raise ConfigError("diffusion", "is needed: S of dX = b dt + S dW, a number, a list, or a table with a type")
    diffusion = construct(spec, "diffusions", registry, where) if isinstance(spec, dict) else spec
    try:
        sde = SDE(
            drift, diffusion if isinstance(spec, dict) else jnp.asarray(spec, float), grid.box if bounded else None
        )
        sde.form(grid.box.d, jnp.result_type(float))
    except CLASS_ERRORS as error:
        raise ConfigError(where, first_line(error)) from error
    return sde


def _start(config: Config, registry: Registry, run: Run, grid: Grid) -> AbstractStart:
    spec, where = run.tables.get("start"), run.where("start")
    if spec is None:
        raise ConfigError("start", 'is needed: [start] with type = "Gaussian", mean and sd, or type = "Uniform"')
    known: dict[str, Any] = {"box": grid.box, "grid": grid}
    if isinstance(spec, dict) and "file" in spec:
        check_keys(spec, ("type", "file", "quasi"), where)
        path = config.resolve(take(spec, "file", str, where), f"{where}.file")
        values = read_densities(path, grid, f"{where}.file").values
        spec = {"type": "FromDensity", **{key: value for key, value in spec.items() if key == "quasi"}}
        known["density"] = values[0]
    # boxes and grids are no values of TOML: they enter as defaults, whatever the class calls for of them
    start = construct(spec, "starts", registry, where, known)
    d = jax.eval_shape(start.sample, jnp.zeros(2, jnp.uint32), jnp.zeros(1, jnp.uint32)).shape[1]
    if d != grid.box.d:
        raise ConfigError(where, f"has {d} coordinates, but the box has {grid.box.d}")
    return start


def _times(run: Run) -> tuple[np.ndarray, int]:
    """All times, and how many steps there are between two that are kept."""
    table = run.table("time", _TIME, "is needed: [time] with end and steps")
    where = run.where("time")
    begin, end = (float(take(table, key, _NUMBER, where, value)) for key, value in (("start", 0.0), ("end", np.nan)))
    if not end > begin:
        raise ConfigError(f"{where}.end", f"should be a time after {begin:g}, where it starts")
    steps = take(table, "steps", int, where, 100)
    if steps < 1:
        raise ConfigError(f"{where}.steps", f"should be 1 or more, but it is {steps}")
    divisors = [k for k in range(1, steps + 1) if steps % k == 0]
    keep = take(table, "keep", int, where, max(k for k in divisors if k <= _KEPT))
    if keep not in divisors:
        near = sorted(divisors, key=lambda k: abs(k - keep))[:2]
        raise ConfigError(f"{where}.keep", f"{keep} does not divide {steps} steps: take {' or '.join(map(str, near))}")
    return np.linspace(begin, end, steps + 1), steps // keep


def _density(registry: Registry, run: Run, grid: Grid, defaults: Mapping[str, Any]) -> AbstractSummary:
    spec, where = run.tables.get("density", "SpectralKDE"), run.where("density")
    if isinstance(spec, dict) and isinstance(spec.get("bandwidth"), str):
        spec = {**spec, "bandwidth": {"type": spec["bandwidth"]}}
    if isinstance(spec, dict) and "type" not in spec:
        spec = {"type": "SpectralKDE", **spec}
    return construct(spec, "densities", registry, where, {"grid": grid, **defaults})


def _reference(
    config: Config, run: Run, sde: SDE, start: AbstractStart, grid: Grid, ts: np.ndarray
) -> Reference | SolvedReference | None:
    spec, where = run.tables.get("reference"), run.where("reference")
    if spec is None:
        return None
    if spec == "finite volume":
        if isinstance(sde.drift, AbstractInteraction):
            raise ConfigError(where, "the drift reads the ensemble, so finite volumes cannot follow it: name a file")
        if not isinstance(sde.domain, Box):
            raise ConfigError(where, 'finite volumes need walls: box.walls should not be "free"')
        if sde.form(grid.box.d, jnp.result_type(float)) == "matrix":
            raise ConfigError(where, "finite volumes take a diffusion with one number for each axis, not a matrix")
        initial = density_on(start, grid)
        if initial is None:
            known = "start from Gaussian, Uniform, FromDensity or Rejection"
            raise ConfigError(where, f"the density of a {type(start).__name__} is not known: {known}")
        return SolvedReference(sde, start, grid, ts)
    return read_reference(config, spec, where, grid, ts)


# --- games ---------------------------------------------------------------------------------------------------------


def _game(config: Config, registry: Registry, run: Run, name: str) -> Game:
    _only(run, _GAME, "a game")
    table, where = run.table("game", _GAME_KEYS, ""), run.where("game")
    grid, bounded = _grid(run)
    if not bounded:
        raise ConfigError(f"{run.where('box')}.walls", "a game needs walls: reflecting or periodic")
    start = _start(config, registry, run, grid)
    initial = density_on(start, grid)
    if initial is None:
        raise ConfigError(
            run.where("start"), f"the density of a {type(start).__name__} is not known: take another start"
        )
    ts, _ = _times(_all_kept(run))
    scale = run.take("diffusion", (int, float, list))
    if scale is None:
        raise ConfigError("diffusion", "is needed: S of dX = a dt + S dW, a number or one for each axis")
    terms = {key: _term(table[key], registry, f"{where}.{key}") for key in _TERMS if key in table}
    terms["hamiltonian"] = construct(
        table.get("hamiltonian", "Quadratic"), "hamiltonians", registry, f"{where}.hamiltonian"
    )
    terms["diffusion"] = jnp.asarray(scale, float) ** 2 / 2
    try:
        game = MeanFieldGame(grid, ts, initial, **terms)
    except CLASS_ERRORS as error:
        raise ConfigError(where, first_line(error)) from error
    options = _game_options(table, registry, where)
    spec = run.tables.get("reference")
    reference = None if spec is None else read_reference(config, spec, run.where("reference"), grid, ts)
    source = "" if reference is None else f"beside {reference.name}"
    return Game(name, source, "mean field game", game, partial(_halved, game, start, terms), options, reference)


def _halved(game: MeanFieldGame, start: AbstractStart, terms: Mapping[str, Any]) -> MeanFieldGame | None:
    """The same game on half as many cells along each axis, and half as many steps."""
    shape, ts = game.grid.shape, game.ts
    if any(n % 2 or n < 8 for n in shape) or ts.shape[0] % 2 == 0 or ts.shape[0] < 5:
        return None
    coarse = Grid(game.grid.box, [n // 2 for n in shape])
    if any(isinstance(term, jnp.ndarray) and term.shape == shape for term in terms.values()):
        return None  # costs that are known at the cells alone
    initial = density_on(start, coarse)
    return None if initial is None else MeanFieldGame(coarse, ts[::2], initial, **terms)


def _all_kept(run: Run) -> Run:
    """A game keeps all its times."""
    table = run.tables.get("time")
    if isinstance(table, dict) and isinstance(table.get("steps", 100), int):
        if "keep" in table:
            raise ConfigError(f"{run.where('time')}.keep", "a game keeps all its times: leave this out")
        return dataclasses.replace(run, tables={**run.tables, "time": {**table, "keep": table.get("steps", 100)}})
    return run


def _term(spec: object, registry: Registry, where: str) -> Any:
    """A cost: a number, values at the cells, or a class."""
    if isinstance(spec, int | float) and not isinstance(spec, bool):
        return float(spec)
    if isinstance(spec, list):
        return jnp.asarray(spec, float)
    return construct(spec, "costs", registry, where)


def _game_options(table: Mapping[str, Any], registry: Registry, where: str) -> dict[str, Any]:
    options: dict[str, Any] = {key: table[key] for key in _NUMERICS if key in table}
    if "solver" in table:
        options["solver"] = construct(table["solver"], "solvers", registry, f"{where}.solver")
    if "tolerance" in table:
        options["tol"] = float(take(table, "tolerance", _NUMBER, where))
        if not options["tol"] > 0:
            raise ConfigError(f"{where}.tolerance", f"should be a positive number, but it is {options['tol']:g}")
    if "max_maps" in table:
        options["max_maps"] = take(table, "max_maps", int, where)
    return options


# --- calibrations --------------------------------------------------------------------------------------------------


def _calibration(config: Config, registry: Registry, run: Run, name: str) -> Calibration:
    _only(run, _CALIBRATION, "a calibration")
    table, where = run.table("calibrate", _CALIBRATE, ""), run.where("calibrate")
    grid, bounded = _grid(run)
    sde = _sde(registry, run, grid, bounded)
    start = _start(config, registry, run, grid)
    count, seed = run.positive("particles", 10_000), run.take("seed", int, 0)
    if "observed" not in table:
        raise ConfigError(f"{where}.observed", "is needed: a file of densities with their times, .npz or .csv")
    path = config.resolve(take(table, "observed", str, where), f"{where}.observed")
    seen = read_densities(path, grid, f"{where}.observed")
    begin = float(take(run.take("time", dict, {}), "start", _NUMBER, run.where("time"), 0.0))
    # with linear shares the prediction has a kink wherever a particle passes a node, at which a fit gets stuck
    smooth = {"degree": 3, "total": float(count) if sde.domain.absorbs else None}
    density = _density(registry, run, grid, smooth)
    stepper = construct(run.tables.get("stepper", "EulerMaruyama"), "steppers", registry, run.where("stepper"))
    steps = take(table, "steps", int, where, 10)
    if steps < 1:
        raise ConfigError(f"{where}.steps", f"should be 1 or more, but it is {steps}")
    try:
        ensemble = drawn(Draw(start, count, seed))
        later = seen.ts > begin
        sigma = None if seen.error is None else seen.error[later]
        data = DensitySnapshots(
            ensemble,
            grid,
            begin,
            seen.ts[later],
            seen.values[later],
            sigma,
            density=density,
            steps=steps,
            stepper=stepper,
        )
    except CLASS_ERRORS as error:
        raise ConfigError(f"{where}.observed", first_line(error)) from error
    options = _fit_options(table, sde, where)
    truth = {key: float(value) for key, value in take(table, "truth", dict, where, {}).items()}
    check_keys(truth, options["free"], f"{where}.truth")
    return Calibration(name, path.name, type(sde.drift).__name__, sde, data, options, truth)


@eqx.filter_jit
def drawn(draw: Draw) -> Ensemble:
    """All particles of a draw, by one program."""
    return draw.start.ensemble(draw.n, draw.key)


def _fit_options(table: Mapping[str, Any], sde: SDE, where: str) -> dict[str, Any]:
    """The arguments of `jaxsci.fit`."""
    try:
        free = tuple(match(sde, take(table, "free", list, where, ["*"]), "the equation"))
        bounds = {name: tuple(pair) for name, pair in take(table, "bounds", dict, where, {}).items()}
    except CLASS_ERRORS as error:
        if isinstance(error, ConfigError):
            raise
        raise ConfigError(f"{where}.free", first_line(error)) from error
    for name in bounds:
        if name not in free:
            raise ConfigError(f"{where}.bounds.{name}", f"no such parameter is free ({', '.join(free)})")
    return {"free": free, "bounds": bounds or None, "max_steps": read_steps(table, where, 100)}
