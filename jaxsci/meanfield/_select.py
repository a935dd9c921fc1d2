"""Which way to a density is the fastest one here, found by measuring and not by tables of machines.

A density that evolves can be had from particles, by three estimators, or from finite volumes. Which is the quickest at
the accuracy that is asked for depends on the problem and on the device, so the very programs that would run are timed
on a small part of the problem and their times extrapolated. `evolve_density` is what users call; `choose` shows the
choice alone, `estimate` how long a run will take, and `capabilities` what a device can do, each by its number.
"""

import dataclasses
import math
import os
import time
from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.tree_util as jtu
import numpy as np
from jax import lax
from jaxtyping import Array, ArrayLike, Float, PRNGKeyArray

from ..core import Module, Scalar, Tree, closed, suggest, traced
from ..evolution import (
    SDE,
    AbstractInteraction,
    AbstractStart,
    AbstractStepper,
    Draw,
    Ensemble,
    Evolution,
    evolve,
    normals,
)
from ..parallel import Checkpoint, Kept
from ._bandwidth import AbstractBandwidth, Fixed, Silverman, as_bandwidth
from ._boundary import Box, Grid, averaged, same_box
from ._density import AbstractDensity, BinnedKDE, DenseKDE, Density, SpectralKDE
from ._drift import OrnsteinUhlenbeck
from ._finite_volume import DensityPath, solve_fokker_planck, tensor_of
from ._initial import FromDensity, Gaussian, density_on

Method = Literal["auto", "spectral", "dense", "binned", "finite volume"]
"""An estimator of a density from particles, finite volumes, or the fastest of them."""

PARTICLES = ("spectral", "dense", "binned")
METHODS = (*PARTICLES, "finite volume")
_STEPS = 8  # of a probe
_PROBE = 2**15  # particles of a probe, or a tenth of a larger run
_LARGEST = 2**18
_PAIRS = 2**19  # of particles and cells, which a probe of the sum over all pairs may have
_READINGS = 7
_PATIENCE = 0.3  # seconds after which two readings are enough


# --- clocks and tables -------------------------------------------------------------------------------------------


def _seconds(*runs: Callable[[], Tree]) -> list[float]:
    """The time of each call, the least of a few that are made in turn, after one that compiles."""
    on_cpu = jnp.zeros(()).devices().pop().platform == "cpu"
    for run in runs:
        jax.block_until_ready(jtu.tree_leaves(run()))
    best, spent, rounds = [math.inf] * len(runs), 0.0, 0
    while rounds < 2 or (rounds < _READINGS and spent < _PATIENCE * len(runs)):
        for k, run in enumerate(runs):
            wall, cpu = time.perf_counter(), time.process_time()
            jax.block_until_ready(jtu.tree_leaves(run()))
            wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
            # others on the machine lengthen the one, many threads the other; a GPU is waited for, which costs no CPU
            best[k] = min(best[k], wall, cpu) if on_cpu else min(best[k], wall)
            spent += wall
        rounds += 1
    return best


def _table(title: str, head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    widths = [max(len(row[k]) for row in (head, *rows)) for k in range(len(head))]
    lines = ["  ".join(word.ljust(width) for word, width in zip(row, widths)).rstrip() for row in (head, *rows)]
    return "\n".join([title, lines[0], "-" * max(map(len, lines)), *lines[1:]])


def _time_of(seconds: float) -> str:
    if not math.isfinite(seconds):
        return "-"
    unit, scale = next(((u, s) for u, s in (("s", 1.0), ("ms", 1e3), ("us", 1e6)) if seconds * s >= 1), ("ns", 1e9))
    return f"{seconds * scale:.3g} {unit}"


def _name_of(device: jax.Device | None) -> str:
    found = jnp.zeros(()).devices().pop() if device is None else device
    return f"{found.platform}: {found.device_kind}"


# --- what a run costs --------------------------------------------------------------------------------------------


class Cost(NamedTuple):
    """The time of a run, as fixed + n begin + steps (step + n particle), all in seconds."""

    fixed: float
    begin: float
    step: float
    particle: float

    def seconds(self, n: int, steps: int) -> float:
        """The time of a run of n particles."""
        return self.fixed + n * self.begin + steps * (self.step + n * self.particle)


class Estimate(NamedTuple):
    """How long a run will take.

    - `seconds`: of this run, without compilation. `method`, `n`, `steps`: what it is of.
    - `cost`: from which that of other numbers of particles and steps follows, on the same grid. `device`: where.
    """

    seconds: float
    method: str
    n: int
    steps: int
    cost: Cost
    device: str

    def __str__(self) -> str:
        each = self.cost
        parts = [
            ("a call", _time_of(each.fixed), _time_of(each.fixed)),
            ("a particle's beginning", _time_of(each.begin), _time_of(each.begin * self.n)),
            ("a step", _time_of(each.step), _time_of(each.step * self.steps)),
            ("a particle-step", _time_of(each.particle), _time_of(each.particle * self.steps * self.n)),
            ("all", "", _time_of(self.seconds)),
        ]
        title = f"{self.method}, {self.n} particles, {self.steps} steps on {self.device}"
        return _table(title, ("of", "each", "together"), parts)


class Problem(Module):
    """What is to be computed, however it will be."""

    sde: SDE
    start: AbstractStart | Ensemble | Draw
    grid: Grid
    ts: Float[Array, " steps1"]
    bandwidth: AbstractBandwidth
    stepper: AbstractStepper | None
    n: int = eqx.field(static=True)
    chunk: int | None = eqx.field(static=True)

    @property
    def steps(self) -> int:
        """Steps from the first time to the last."""
        return self.ts.shape[0] - 1

    def shortened(self, steps: int) -> "Problem":
        """The same through the first steps alone."""
        return dataclasses.replace(self, ts=self.ts[: steps + 1])

    def particles(self, n: int, key: PRNGKeyArray | ArrayLike = 0) -> Ensemble | Draw:
        """So many particles of this problem; a `Draw` where they go in chunks."""
        given = self.start
        if isinstance(given, Ensemble):
            if n == given.positions.shape[0]:
                return given
            return Ensemble(given.positions[:n], given.weights[:n], given.key)
        start, key = (given.start, given.key) if isinstance(given, Draw) else (given, key)
        return start.ensemble(n, key) if self.chunk is None else Draw(start, n, key)

    def beginning(self, n: int) -> Tree:
        """Where so many particles begin, drawn as `evolve` draws a chunk of them."""
        found = self.particles(n)
        return _drawn(found, n) if isinstance(found, Draw) else found

    def estimator(self, method: str, total: ArrayLike | None = None) -> AbstractDensity:
        """The summary that a method keeps."""
        make = {"spectral": SpectralKDE, "dense": DenseKDE, "binned": BinnedKDE}[method]
        return make(self.grid, self.bandwidth, total=total)

    def run(self, method: str, particles: Ensemble | Draw) -> Evolution:
        """Evolve particles, with this method's density at each time."""
        keep = {"density": self.estimator(method)}
        return evolve(self.sde, particles, self.ts, key=0, stepper=self.stepper, save=keep, chunk=self.chunk)


@eqx.filter_jit
def _drawn(draw: Draw, n: int) -> Ensemble:
    return draw.part(jnp.zeros((), jnp.uint32), n)


class _Asked(NamedTuple):
    """What was measured: the same device, structure, shapes and types have the same answer."""

    method: str
    device: str
    structure: jtu.PyTreeDef
    leaves: tuple[object, ...]


_MEASURED: dict[_Asked, Cost] = {}


def _cost(problem: Problem, method: str) -> Cost:
    """What a method costs; the clock runs once for each device and shape."""
    leaves, structure = jtu.tree_flatten(problem)
    shapes = tuple((x.shape, str(x.dtype)) if eqx.is_array(x) else x for x in leaves)
    asked = _Asked(method, _name_of(None), structure, shapes)
    if asked not in _MEASURED:
        _MEASURED[asked] = _cost_of_grid(problem) if method == "finite volume" else _cost_of_particles(problem, method)
    return _MEASURED[asked]


def _cost_of_particles(problem: Problem, method: str) -> Cost:
    steps = min(problem.steps, _STEPS)
    probe = problem.shortened(steps)
    large = min(problem.n, max(_PROBE, min(problem.n // 10, _LARGEST)))
    if method == "dense":
        large = min(large, max(64, _PAIRS // problem.grid.size))
    if problem.chunk is not None:
        large = min(problem.n, 4 * problem.chunk) if isinstance(problem.start, Ensemble) else 4 * problem.chunk
    small, least = max(1, large // 4), min(problem.n, 4)
    tiny = dataclasses.replace(probe.shortened(1), chunk=None if problem.chunk is None else least)
    few, some, all_ = tiny.particles(least), probe.particles(small), probe.particles(large)
    call, low, high, begin = _seconds(
        lambda: tiny.run(method, few),  # what does not grow, the time that Python takes included
        lambda: probe.run(method, some),
        lambda: probe.run(method, all_),
        lambda: probe.beginning(large),
    )
    if problem.chunk is not None:  # drawn within
        low, high = low - begin * small / large, high - begin
    particle = max(0.0, high - low) / (max(1, large - small) * steps)
    step = max(0.0, (low - call) / steps - small * particle)
    return Cost(call, begin / large, step, particle)


def _cost_of_grid(problem: Problem) -> Cost:
    steps = max(1, min(problem.steps // 2, _STEPS))
    many = min(problem.steps, 2 * steps)
    short, long = problem.shortened(steps), problem.shortened(many)
    low, high = _seconds(lambda: _finite_volume(short), lambda: _finite_volume(long))
    step = max(0.0, high - low) / max(1, many - steps)
    return Cost(max(0.0, low - steps * step), 0.0, step, 0.0)


def estimate(
    sde: SDE,
    n: int,
    grid: Grid,
    steps: int,
    *,
    method: Method | str = "spectral",
    start: AbstractStart | None = None,
    bandwidth: AbstractBandwidth | ArrayLike = Silverman(),
    stepper: AbstractStepper | None = None,
    chunk: int | None = None,
) -> Estimate:
    """Estimate how long a run will take, from a few steps of fewer particles on the same grid.

    **Arguments:**

    - `sde`: what moves the particles. `n`: their number. `grid`: the cells of their density. `steps`: how many.
    - `method`: "spectral", "dense", "binned" or "finite volume", with a density kept at each step.
    - `start`: where the particles begin, the whole box without one. `bandwidth`, `stepper`, `chunk`: as of
      `evolve_density`.

    **Returns:** an `Estimate`, which prints as a table; compilation is not in it.

    **Raises:** `ValueError` for an unknown method, and one that cannot solve this problem.
    """
    _check_method(method)
    box = grid.box
    even = FromDensity(jnp.full(grid.shape, 1 / (grid.volume * grid.size)), grid)
    # steps so short that no drift takes a particle far: what they cost does not depend on it
    ts = jnp.arange(min(steps, 2 * _STEPS) + 1, dtype=box.lower.dtype) * 1e-6
    problem = Problem(sde, even if start is None else start, grid, ts, as_bandwidth(bandwidth), stepper, n, chunk)
    why = _refused(problem, method)
    if why:
        raise ValueError(f"method={method!r} cannot solve this problem: {why}")
    cost = _cost(problem, method)
    return Estimate(cost.seconds(n, steps), method, n, steps, cost, _name_of(None))


# --- finite volumes for the same problem -------------------------------------------------------------------------


def _finite_volume(problem: Problem, grid: Grid | None = None) -> DensityPath:
    grid = problem.grid if grid is None else grid
    initial = _initial_density(problem, grid)
    assert initial is not None
    return solve_fokker_planck(problem.sde.drift, tensor_of(problem.sde.diffusion), initial, grid, problem.ts)


def _initial_density(problem: Problem, grid: Grid) -> Float[Array, "*shape"] | None:
    """Means over cells of where particles begin; `None` where only the particles are known."""
    start = problem.start.start if isinstance(problem.start, Draw) else problem.start
    return None if isinstance(start, Ensemble) else density_on(start, grid)


def _refused(problem: Problem, method: str) -> str:
    """Why a method cannot solve a problem; empty where it can."""
    sde, grid = problem.sde, problem.grid
    if method != "finite volume":
        dense = method == "dense" and problem.chunk is not None and not problem.bandwidth.given
        return "a rule for its bandwidth needs all particles, not chunks" if dense else ""
    if isinstance(sde.drift, AbstractInteraction):
        return "the drift reads the particles"
    if grid.box.d > 2:
        return f"{grid.box.d} dimensions have too many cells"
    if not isinstance(sde.domain, Box) or not same_box(sde.domain, grid.box):
        return "the grid's box is not the particles' domain"
    if sde.form(grid.box.d, problem.ts.dtype) == "matrix":
        return "the noise has a matrix"
    if isinstance(problem.start, Ensemble):
        return "it begins from particles"
    return "" if _initial_density(problem, grid) is not None else "the initial density is not known on the grid"


# --- the choice --------------------------------------------------------------------------------------------------


class Candidate(NamedTuple):
    """One way, with what was measured.

    - `method`. `why`: why it cannot be taken; empty where it can.
    - `seconds`: of the whole run, extrapolated. `error`: of a value, over the largest one. nan where not measured.
    """

    method: str
    why: str
    seconds: float
    error: float


class Choice(NamedTuple):
    """The way that was taken, and the others.

    - `method`. `asked`: what was asked for, "auto" or a method.
    - `n`: particles of the methods that have them. `limit`: the error that was allowed. `candidates`: all that was
      measured; empty where nothing was. `device`: where.
    """

    method: str
    asked: str
    n: int
    limit: float
    candidates: tuple[Candidate, ...]
    device: str

    def __str__(self) -> str:
        title = f"method: {self.method} (asked for: {self.asked}), {self.n} particles, on {self.device}"
        if not self.candidates:
            return title
        rows = [
            (c.method, _time_of(c.seconds), f"{c.error:.2g}" if math.isfinite(c.error) else "-", self._remark(c))
            for c in self.candidates
        ]
        return _table(f"{title}, error allowed {self.limit:.2g}", ("method", "time", "error", ""), rows)

    def _remark(self, candidate: Candidate) -> str:
        if candidate.method == self.method:
            return "taken"
        if candidate.why:
            return candidate.why
        return "not accurate enough" if not candidate.error <= self.limit else "slower"


class Errors(NamedTuple):
    """What is lost on the way from particles to a density, over the largest value.

    - `chance`: the standard error of n particles, which falls as n^-`power`. `own`: what an estimator adds to it.
    """

    chance: float
    power: float
    own: dict[str, float]


def _errors(problem: Problem) -> Errors:
    """From the particles of a probe at the last time, by estimators with the bandwidth of all n particles."""
    d = problem.grid.box.d
    m = max(64, min(problem.n, _PAIRS // problem.grid.size, _PROBE))
    few = dataclasses.replace(problem, chunk=None)
    ensemble = few.particles(min(m, problem.n))
    found = evolve(problem.sde, ensemble, problem.ts, key=0, stepper=problem.stepper, save={}, every=None)
    assert found.ensemble is not None
    m = found.ensemble.positions.shape[0]
    power = 0.5 if problem.bandwidth.given else 2 / (d + 4)
    narrower = 1.0 if problem.bandwidth.given else (m / problem.n) ** (1 / (d + 4))
    chance, each, resolved = _beside(found.ensemble, problem.grid, problem.bandwidth, jnp.asarray(narrower))
    own = {name: float(x) for name, x in each.items()}
    if not bool(resolved):
        own["spectral"] = math.inf
    return Errors(float(chance) * (m / problem.n) ** power, power, own)


@eqx.filter_jit
def _beside(
    ensemble: Ensemble, grid: Grid, bandwidth: AbstractBandwidth, narrower: Scalar
) -> tuple[Array, dict[str, Array], Array]:
    """The standard error of these particles, how far each estimator is from the sum of kernels, and whether it can."""

    def density(kde: AbstractDensity) -> Density:
        return kde.evaluate(kde.deposit(ensemble.positions, ensemble.weights))

    plain = density(BinnedKDE(grid, bandwidth))
    h = Fixed(plain.bandwidth * narrower.astype(plain.bandwidth.dtype))
    found = {"spectral": density(SpectralKDE(grid, h)), "binned": density(BinnedKDE(grid, h))}
    right = density(DenseKDE(grid, h)).values
    own = {name: jnp.max(jnp.abs(p.values - right)) / jnp.max(right) for name, p in found.items()}
    chance = jnp.max(plain.standard_error) / jnp.max(plain.values)
    return chance, {**own, "dense": jnp.zeros(())}, found["spectral"].resolved


def _error_of_grid(problem: Problem) -> float:
    """By Richardson: a third of what half as many cells along each axis change, over the first steps."""
    grid = problem.grid
    short = problem.shortened(min(problem.steps, _STEPS))
    coarse = Grid(grid.box, tuple(m // 2 for m in grid.shape))
    fine, half = _finite_volume(short).density[-1], _finite_volume(short, coarse).density[-1]
    joined = averaged(fine, coarse.shape)
    assert joined is not None
    return float(jnp.max(jnp.abs(joined - half)) / (3 * jnp.max(fine)))


def choose(
    sde: SDE,
    start: AbstractStart | Ensemble | Draw,
    grid: Grid,
    ts: ArrayLike,
    *,
    n: int | None = None,
    accuracy: float | None = None,
    bandwidth: AbstractBandwidth | ArrayLike = Silverman(),
    stepper: AbstractStepper | None = None,
    chunk: int | None = None,
) -> Choice:
    """Choose the way to a density that is the fastest here, of those that are accurate enough.

    Each way is timed on the problem itself, with fewer steps and particles; how long all of it will take follows from
    that. The error of particles is the standard error of the density's values, and what the estimator adds to it, as
    compared with the plain sum of kernels on the same particles; the bias of a bandwidth is in neither. That of finite
    volumes follows from half as many cells. Times are kept for each device, structure and shape, as long as the process
    lives.

    **Arguments:** as of `evolve_density`.

    **Returns:** a `Choice`, which prints as a table.

    **Raises:** `ValueError` within a JAX transformation, where no clock runs, and where neither `n` nor `accuracy` is
    given for a distribution.
    """
    problem, limit, errors = _posed(sde, start, grid, ts, n, accuracy, bandwidth, stepper, chunk)
    candidates = []
    for method in METHODS:
        why = _refused(problem, method)
        if method == "finite volume" and not why and any(m % 2 or m < 4 for m in grid.shape):
            why = "its error is known for even numbers of cells"
        if why:
            candidates.append(Candidate(method, why, math.nan, math.nan))
            continue
        own = _error_of_grid(problem) if method == "finite volume" else math.hypot(errors.chance, errors.own[method])
        seconds = _cost(problem, method).seconds(problem.n, problem.steps)
        candidates.append(Candidate(method, "", seconds, own))
    able = [c for c in candidates if not c.why]
    good = [c for c in able if c.error <= limit]
    # where nothing is accurate enough, the most accurate way is the one to take
    best = min(good, key=lambda c: c.seconds) if good else min(able, key=_error_first)
    return Choice(best.method, "auto", problem.n, limit, tuple(candidates), _name_of(None))


def _error_first(candidate: Candidate) -> tuple[float, float]:
    return (candidate.error if math.isfinite(candidate.error) else math.inf), candidate.seconds


def _posed(
    sde: SDE,
    start: AbstractStart | Ensemble | Draw,
    grid: Grid,
    ts: ArrayLike,
    n: int | None,
    accuracy: float | None,
    bandwidth: AbstractBandwidth | ArrayLike,
    stepper: AbstractStepper | None,
    chunk: int | None,
) -> tuple[Problem, float, Errors]:
    """A problem with its number of particles, the error that is allowed, and the errors of particles."""
    if traced((sde, start, grid, ts, bandwidth)):
        raise ValueError(
            "method='auto' runs programs against the clock, which cannot be done within a JAX transformation: call "
            f"choose() outside of it and give the method that it says ({', '.join(METHODS)})"
        )
    count = _count(start, n)
    if count is None and accuracy is None:
        raise ValueError("give n=, the number of particles, or accuracy=, the error of the density over its peak")
    times = jnp.asarray(ts, grid.box.lower.dtype)
    first = Problem(sde, start, grid, times, as_bandwidth(bandwidth), stepper, count or _PROBE, chunk)
    errors = _errors(first)
    if count is None and accuracy is not None:
        needed = max(64, math.ceil(first.n * (errors.chance / accuracy) ** (1 / errors.power)))
        first = dataclasses.replace(first, n=needed)
        errors = _errors(first)
        return first, accuracy * 1.05, errors
    # with no accuracy asked for, an estimator should not add more than chance has taken
    return first, math.sqrt(2) * errors.chance if accuracy is None else accuracy, errors


def _count(start: AbstractStart | Ensemble | Draw, n: int | None) -> int | None:
    if isinstance(start, Ensemble):
        known = start.positions.shape[0]
    elif isinstance(start, Draw):
        known = start.n
    else:
        return n
    if n is not None and n != known:
        raise ValueError(f"n={n}, but the particles that are given are {known}: leave n= out")
    return known


# --- the door ----------------------------------------------------------------------------------------------------


class EvolvedDensity(Module):
    """A density at several times, however it was computed.

    - `ts`: (k,). `density`: (k, *grid.shape), means over the cells; its integral is `mass`, (k,), what is left of the
      weight at the beginning.
    - `standard_error`: of each value, from the number of particles; `None` where there are none.
    - `choice`: how it was computed; it prints as a table. `grid`: the cells.
    - `evolution`: the particles, and `path`: the finite volumes; one of them is `None`.
    """

    ts: Float[Array, " k"]
    density: Float[Array, "k *shape"]
    standard_error: Float[Array, "k *shape"] | None
    mass: Float[Array, " k"]
    grid: Grid
    evolution: Evolution | None
    path: DensityPath | None
    choice: Choice = eqx.field(static=True)


def evolve_density(
    sde: SDE,
    start: AbstractStart | Ensemble | Draw | EvolvedDensity,
    grid: Grid,
    ts: ArrayLike,
    *,
    method: Method | str = "auto",
    n: int | None = None,
    accuracy: float | None = None,
    key: PRNGKeyArray | ArrayLike | None = None,
    bandwidth: AbstractBandwidth | ArrayLike = Silverman(),
    stepper: AbstractStepper | None = None,
    every: int = 1,
    chunk: int | None = None,
    mesh: jax.sharding.Mesh | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
) -> EvolvedDensity:
    """Evolve a density, by particles or by finite volumes.

    A method that is given has the same bits each time. "auto" is the fastest one here that is accurate enough, by
    `choose`: another machine may choose otherwise, so what was chosen stands in the result, and a run that goes on from
    a result, or from a checkpoint, takes the method that was recorded there.

    **Arguments:**

    - `sde`: drift, diffusion and domain. `grid`: cells, whose box should be that domain.
    - `start`: a distribution, particles, a `Draw` of them, or an `EvolvedDensity` to go on from.
    - `ts`: shape (steps + 1,), increasing; from each to the next is one step.
    - `method`: "spectral", "dense" or "binned" particles, "finite volume" (in one or two dimensions, where the drift
      does not read the particles and the initial density is known), or "auto".
    - `n`: particles. `accuracy`: the largest error of a value that is allowed, over the largest value; without `n` as
      many particles are taken as that needs, without `accuracy` the error is that of n particles.
    - `key`: a seed or a key. `bandwidth`: a rule or a number. `stepper`, `every`, `chunk`, `mesh`, `checkpoint`: as of
      `evolution.evolve`; finite volumes need none of them but `every`.

    **Returns:** an `EvolvedDensity`.

    **Raises:** `ValueError` for an unknown method, for one that cannot solve the problem, saying why, and as of
    `choose` and `evolve`.
    """
    if method not in ("auto", *METHODS):
        _check_method(method)
    if isinstance(start, EvolvedDensity):
        return _gone_on(sde, start, grid, ts, method, key, bandwidth, stepper, every, mesh, checkpoint)
    count = _count(start, n)
    asked = (closed(sde), closed(grid), jnp.asarray(ts), accuracy is None)
    recorded = _recorded(checkpoint, asked) if method == "auto" else None
    if recorded is not None:
        choice = recorded
    elif method == "auto" or count is None:
        choice = choose(sde, start, grid, ts, n=n, accuracy=accuracy, bandwidth=bandwidth, stepper=stepper, chunk=chunk)
        choice = choice if method == "auto" else choice._replace(method=method, asked=method)
    else:
        choice = Choice(method, method, count, math.nan, (), _name_of(None))
    if checkpoint is not None and recorded is None:
        _record(checkpoint, asked, choice)
    times = jnp.asarray(ts, grid.box.lower.dtype)
    problem = Problem(sde, start, grid, times, as_bandwidth(bandwidth), stepper, choice.n, chunk)
    why = _refused(problem, choice.method)
    if why:
        raise ValueError(f"method={choice.method!r} cannot solve this problem: {why}")
    if choice.method == "finite volume":
        return _of_path(_finite_volume(problem), every, jnp.ones((), times.dtype), choice)
    particles = problem.particles(choice.n, 0 if key is None else key)
    return _of_particles(problem, particles, key, every, mesh, checkpoint, choice)


def _check_method(method: str) -> None:
    if method not in METHODS:
        raise ValueError(f"no method {method!r}{suggest(method, METHODS)}: {', '.join(METHODS)}")


def _of_particles(
    problem: Problem,
    particles: Ensemble | Draw,
    key: PRNGKeyArray | ArrayLike | None,
    every: int,
    mesh: jax.sharding.Mesh | None,
    checkpoint: str | os.PathLike[str] | None,
    choice: Choice,
    total: Scalar | None = None,
) -> EvolvedDensity:
    weight = jnp.sum(particles.weights) if isinstance(particles, Ensemble) else jnp.asarray(float(particles.n))
    total = weight if total is None else total
    found = evolve(
        problem.sde,
        particles,
        problem.ts,
        key=key,
        stepper=problem.stepper,
        save={"density": problem.estimator(choice.method, total)},
        every=every,
        chunk=problem.chunk,
        mesh=mesh,
        checkpoint=checkpoint,
    )
    density = found["density"]
    mass = (density.mass - density.outside) / total.astype(density.mass.dtype)
    return EvolvedDensity(found.ts, density.values, density.standard_error, mass, problem.grid, found, None, choice)


def _of_path(path: DensityPath, every: int, mass: Scalar, choice: Choice) -> EvolvedDensity:
    steps = path.ts.shape[0] - 1
    if not (1 <= every <= steps and steps % every == 0):
        raise ValueError(f"every={every} does not divide the {steps} steps between the times: choose a divisor")
    kept = slice(None, None, every)
    mass = mass.astype(path.mass.dtype)
    return EvolvedDensity(
        path.ts[kept], mass * path.density[kept], None, mass * path.mass[kept], path.grid, None, path, choice
    )


def _gone_on(
    sde: SDE,
    before: EvolvedDensity,
    grid: Grid,
    ts: ArrayLike,
    method: Method | str,
    key: PRNGKeyArray | ArrayLike | None,
    bandwidth: AbstractBandwidth | ArrayLike,
    stepper: AbstractStepper | None,
    every: int,
    mesh: jax.sharding.Mesh | None,
    checkpoint: str | os.PathLike[str] | None,
) -> EvolvedDensity:
    """From where a result ended, by the method that it was computed by."""
    choice = before.choice
    if method not in ("auto", choice.method):
        choice = Choice(method, method, choice.n, math.nan, (), _name_of(None))
    times, mass = jnp.asarray(ts, grid.box.lower.dtype), before.mass[-1]
    last = before.density[-1] / jnp.where(mass > 0, mass, 1)
    ended = None if before.evolution is None else before.evolution.ensemble
    if choice.method == "finite volume":
        if before.path is None:
            raise ValueError("the result to go on from has particles: finite volumes cannot go on from them")
        problem = Problem(sde, FromDensity(last, before.grid), grid, times, as_bandwidth(bandwidth), stepper, 1, None)
        why = _refused(problem, choice.method)
        if why:
            raise ValueError(f"method={choice.method!r} cannot solve this problem: {why}")
        return _of_path(_finite_volume(problem), every, mass, choice)
    if before.evolution is None or ended is None:
        raise ValueError("the result to go on from kept no particles: evolve an Ensemble, without chunk=, to go on")
    whole = before.evolution["density"].mass[-1] / jnp.where(mass > 0, mass, 1)
    problem = Problem(sde, ended, grid, times, as_bandwidth(bandwidth), stepper, ended.positions.shape[0], None)
    return _of_particles(problem, ended, key, every, mesh, checkpoint, choice, whole)


def _beside_of(checkpoint: str | os.PathLike[str]) -> str:
    return f"{os.fspath(checkpoint)}.choice"


def _recorded(checkpoint: str | os.PathLike[str] | None, asked: Tree) -> Choice | None:
    """The choice that a run which was stopped had made."""
    if checkpoint is None or not os.path.exists(_beside_of(checkpoint)):
        return None
    Checkpoint(_beside_of(checkpoint), asked, of="equations, a grid or times")  # refuses what is another run's
    about = Kept.read(_beside_of(checkpoint)).about
    rows = tuple(Candidate(*row) for row in about["candidates"])
    return Choice(about["method"], about["asked"], about["n"], about["limit"], rows, about["device"])


def _record(checkpoint: str | os.PathLike[str], asked: Tree, choice: Choice) -> None:
    Checkpoint(_beside_of(checkpoint), asked, resume=False, about=choice._asdict()).write()


# --- what a device can do ----------------------------------------------------------------------------------------


class Capability(NamedTuple):
    """One row: what is asked, the number that was measured, and what that comes to."""

    name: str
    measured: str
    verdict: str


class Capabilities(NamedTuple):
    """What a device can do, as measured.

    - `device`, `platform`, `memory` in bytes, `x64`: whether numbers have 64 bits.
    - `rows`: a `Capability` each: parallel KDE, low latency, high bandwidth, jit compilation, kernel fusion,
      auto-vectorisation, unified memory.
    - `kernel_overhead`: seconds a kernel, `bandwidth`: bytes a second.
    - `crossovers`: for pairs of methods the number of particles from which on the second is faster, inf where it never
      is.
    """

    device: str
    platform: str
    memory: int
    x64: bool
    rows: tuple[Capability, ...]
    kernel_overhead: float
    bandwidth: float
    crossovers: dict[str, float]

    def row(self, name: str) -> Capability:
        """What was measured under a name."""
        return next(row for row in self.rows if row.name == name)

    def __str__(self) -> str:
        bits = "64 bits" if self.x64 else "32 bits"
        hints = [f"{pair}: from {n:.3g} particles" for pair, n in self.crossovers.items() if math.isfinite(n)]
        hints += [f"{pair}: never" for pair, n in self.crossovers.items() if not math.isfinite(n)]
        title = f"{self.device}, {self.memory / 2**30:.3g} GiB, {bits}"
        return "\n".join([_table(title, ("capability", "measured", ""), self.rows), *hints])


def capabilities(device: jax.Device | None = None, *, crossovers: bool = True) -> Capabilities:
    """Measure what a device can do, instead of looking it up.

    **Arguments:** `device`: of `jax.devices()`; the one in use without it. `crossovers`: also time each method, which
    compiles them.

    **Returns:** `Capabilities`, which print as a table: the number first, then yes or no. "Yes" is for a parallel
    density and vectorisation twice as fast as one particle after the other, a compiled density faster than one
    operation after the other, fewer kernels than operations, 10 us a kernel and less, 500 GB/s and more (100: medium),
    and arrays that the host reads in place.
    """
    with jax.default_device(device):
        found = jnp.zeros(()).devices().pop()
        overhead, bandwidth, fusion = _kernel_overhead(), _bandwidth(), _fusion()
        rows = (
            _row("parallel KDE", *_parallel_kde()),
            Capability("low latency", f"{overhead * 1e6:.3g} us a kernel", _yes(overhead <= 1e-5)),
            Capability("high bandwidth", f"{bandwidth / 1e9:.3g} GB/s", _grade(bandwidth)),
            _row("jit compilation", *_compiled_step(), least=1.0),
            Capability("kernel fusion", f"{fusion[0]} operations in {fusion[1]} kernels", _yes(fusion[1] < fusion[0])),
            _row("auto-vectorisation", *_vectorised()),
            _unified(),
        )
        crossed = _crossovers() if crossovers else {}
    memory = (found.memory_stats() or {}).get("bytes_limit") or os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    x64 = jnp.zeros((), float).dtype == jnp.float64
    return Capabilities(_name_of(found), found.platform, memory, x64, rows, overhead, bandwidth, crossed)


def _yes(holds: bool) -> str:
    return "yes" if holds else "no"


def _grade(bandwidth: float) -> str:
    return "yes" if bandwidth >= 5e11 else "medium" if bandwidth >= 1e11 else "no"


def _row(name: str, slow: float, fast: float, least: float = 2.0) -> Capability:
    return Capability(name, f"{slow / fast:.3g} x ({_time_of(slow)} to {_time_of(fast)})", _yes(slow >= least * fast))


def _example(n: int = 4096) -> tuple[SDE, Grid, Ensemble]:
    """A particle in a harmonic well, between walls, with 100 cells."""
    box = Box(-4.0, 4.0)
    start = Gaussian(1.0, 0.5, box)
    return SDE(OrnsteinUhlenbeck(jnp.ones(()), jnp.zeros(())), 1.0, box), Grid(box, 100), start.ensemble(n, 0)


def _step(x: Float[Array, "n d"], ensemble: Ensemble, sde: SDE, grid: Grid) -> tuple[Array, Array]:
    """One step of an ensemble and its density, written out."""
    assert ensemble.key is not None
    z = normals(ensemble.key, ensemble.ids[:, None], jnp.zeros(1, jnp.uint32), x.dtype)
    zero = jnp.zeros((), x.dtype)
    after = x + jax.vmap(lambda one: sde.drift(zero, one))(x) * 0.02 + 0.1 * z
    settled = sde.domain.settle(x, after, ensemble.weights, None)
    kde = SpectralKDE(grid)
    return settled.positions, kde.evaluate(kde.deposit(settled.positions, settled.weights)).values


def operations(lowered: str) -> int:
    """Count what a program asks for, in the text of its StableHLO: operations but constants and returns."""
    lines = (line.strip() for line in lowered.splitlines())
    asked = [line for line in lines if line.startswith("%") and "= stablehlo." in line]
    return sum("stablehlo.constant" not in line for line in asked)


_NO_KERNEL = ("parameter(", "constant(", "get-tuple-element(", "tuple(", "bitcast(", "while(", "call(", "conditional(")


def kernels(compiled: str) -> int:
    """Count what is launched, in the text of a compiled program: instructions outside of fusions that do something."""
    count, fused = 0, False
    for line in compiled.splitlines():
        if line and not line[0].isspace():
            fused = line.startswith(("%fused", "%wrapped", "%region", "%add", "%max", "%min", "%or", "%and"))
        elif not fused and " = " in line and not any(f" {word}" in line for word in _NO_KERNEL):
            count += 1
    return count


def _fusion() -> tuple[int, int]:
    sde, grid, ensemble = _example()
    lowered = jax.jit(_step).lower(ensemble.positions, ensemble, sde, grid)
    return operations(lowered.as_text()), kernels(lowered.compile().as_text() or "")


def _compiled_step() -> tuple[float, float]:
    _, grid, ensemble = _example()
    x, centres = ensemble.positions[:, 0], grid.centres()

    def density(x: Array) -> Array:
        return jnp.sum(jnp.exp(-(((x[:, None] - centres[None, :]) / 0.2) ** 2) / 2), axis=0)

    def apart() -> Array:
        with jax.disable_jit():
            return density(x)

    together = jax.jit(density)
    slow, fast = _seconds(apart, lambda: together(x))
    return slow, fast


def _parallel_kde() -> tuple[float, float]:
    _, grid, ensemble = _example()
    x, centres = ensemble.positions[:, 0], grid.centres()

    def kernel(one: Array) -> Array:
        return jnp.exp(-(((one - centres) / 0.2) ** 2) / 2)

    def added(total: Array, one: Array) -> tuple[Array, None]:
        return total + kernel(one), None

    apart = jax.jit(lambda x: lax.scan(added, jnp.zeros_like(centres), x)[0])
    together = jax.jit(lambda x: jnp.sum(jax.vmap(kernel)(x), axis=0))
    slow, fast = _seconds(lambda: apart(x), lambda: together(x))
    return slow, fast


def _vectorised() -> tuple[float, float]:
    sde, _, ensemble = _example(2**17)

    def one(x: Array) -> Array:
        return x + sde.drift(jnp.zeros((), x.dtype), x) * 0.02

    apart, together = jax.jit(lambda x: lax.map(one, x)), jax.jit(jax.vmap(one))
    slow, fast = _seconds(lambda: apart(ensemble.positions), lambda: together(ensemble.positions))
    return slow, fast


def _kernel_overhead() -> float:
    loops = 2000
    run = jax.jit(lambda x: lax.fori_loop(0, loops, lambda _, x: x * 0.5 + 1, x))
    x = jnp.zeros(8)
    return _seconds(lambda: run(x))[0] / loops


def _bandwidth() -> float:
    # in a loop, so that memory is not asked for each time; more of it than caches hold
    loops, x = 4, jnp.zeros(2**24, jnp.float32)
    run = jax.jit(lambda x: lax.fori_loop(0, loops, lambda _, x: x + 1, x))
    return 2 * loops * x.nbytes / _seconds(lambda: run(x))[0]


def _unified() -> Capability:
    x = jax.jit(lambda: jnp.zeros(2**24, jnp.float32))()
    x.block_until_ready()
    start = time.perf_counter()
    seen = np.asarray(x)
    rate = x.nbytes / max(time.perf_counter() - start, 1e-9)
    same = seen.ctypes.data == x.unsafe_buffer_pointer()
    return Capability("unified memory", "read in place" if same else f"copied at {rate / 1e9:.3g} GB/s", _yes(same))


def _crossovers() -> dict[str, float]:
    """From how many particles on one method is faster than another, on the example's 100 cells and 50 steps."""
    sde, grid, _ = _example(1)
    start, ts = Gaussian(1.0, 0.5, grid.box), jnp.linspace(0.0, 1.0, 51)
    problem = Problem(sde, start, grid, ts, Silverman(), None, _PROBE, None)
    cost = {method: _cost(problem, method) for method in METHODS}
    pairs = (("dense", "spectral"), ("dense", "binned"), ("spectral", "finite volume"))
    return {f"{b} before {a}": _crossing(cost[a], cost[b], problem.steps) for a, b in pairs}


def _crossing(slow: Cost, fast: Cost, steps: int) -> float:
    """The n from which on the second costs less."""
    ahead = fast.seconds(0, steps) - slow.seconds(0, steps)
    rate = slow.seconds(1, steps) - slow.seconds(0, steps) - fast.seconds(1, steps) + fast.seconds(0, steps)
    if ahead <= 0:
        return 1.0 if rate >= 0 else math.inf
    return ahead / rate if rate > 0 else math.inf
