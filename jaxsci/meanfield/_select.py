"""Which way to a density is the fastest one here, found by measuring and not by tables of machines.

A density that evolves can be had from particles, by three estimators, or from finite volumes. Which is the quickest at
the accuracy that is asked for depends on the problem and on the device, so the very programs that would run are timed
on a small part of the problem and their times extrapolated. `evolve_density` is what users call; `choose` shows the
choice alone.
"""

import dataclasses
import math
import os
from collections.abc import Mapping
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, PRNGKeyArray

from ..core import Module, Scalar, Tree, as_real, closed, traced
from ..evolution import SDE, AbstractStart, AbstractStepper, Draw, Ensemble, Evolution, evolve
from ..parallel import Checkpoint, Kept, fingerprint
from ._bandwidth import AbstractBandwidth, Fixed, Silverman, as_bandwidth
from ._boundary import Grid, averaged
from ._clock import name_of, table, time_of
from ._costs import (
    METHODS,
    PAIRS,
    PROBE,
    STEPS,
    Method,
    Problem,
    by_finite_volume,
    check_method,
    check_solvable,
    cost_of,
    why_not,
)
from ._density import AbstractDensity, BinnedKDE, DenseKDE, Density, SpectralKDE
from ._finite_volume import DensityPath
from ._initial import FromDensity


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
            (c.method, time_of(c.seconds), f"{c.error:.2g}" if math.isfinite(c.error) else "-", self._remark(c))
            for c in self.candidates
        ]
        return table(f"{title}, error allowed {self.limit:.2g}", ("method", "time", "error", ""), rows)

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
    m = max(64, min(problem.n, PAIRS // problem.grid.size, PROBE))
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
    short = problem.shortened(min(problem.steps, STEPS))
    coarse = Grid(grid.box, tuple(m // 2 for m in grid.shape))
    fine, half = by_finite_volume(short).density[-1], by_finite_volume(short, coarse).density[-1]
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
        why = why_not(problem, method)
        if method == "finite volume" and not why and any(m % 2 or m < 4 for m in grid.shape):
            why = "its error is known for even numbers of cells"
        if why:
            candidates.append(Candidate(method, why, math.nan, math.nan))
            continue
        own = _error_of_grid(problem) if method == "finite volume" else math.hypot(errors.chance, errors.own[method])
        seconds = cost_of(problem, method).seconds(problem.n, problem.steps)
        candidates.append(Candidate(method, "", seconds, own))
    able = [c for c in candidates if not c.why]
    good = [c for c in able if c.error <= limit]
    # where nothing is accurate enough, the most accurate way is the one to take
    best = min(good, key=lambda c: c.seconds) if good else min(able, key=_error_first)
    return Choice(best.method, "auto", problem.n, limit, tuple(candidates), name_of(None))


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
    if accuracy is not None and not as_real(accuracy, "accuracy") > 0:
        raise ValueError(f"accuracy should be the error of the density over its peak, above 0, but it is {accuracy}")
    times = jnp.asarray(ts, grid.box.lower.dtype)
    first = Problem(sde, start, grid, times, as_bandwidth(bandwidth), stepper, count or PROBE, chunk)
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
        check_method(method)
    if isinstance(start, EvolvedDensity):
        return _gone_on(sde, start, grid, ts, method, key, bandwidth, stepper, every, mesh, checkpoint)
    count = _count(start, n)
    asked = {"equations": closed(sde), "grid or times": (closed(grid), jnp.asarray(ts), accuracy is None)}
    recorded = _recorded(checkpoint, asked) if method == "auto" else None
    if recorded is not None:
        choice = recorded
    elif method == "auto" or count is None:
        choice = choose(sde, start, grid, ts, n=n, accuracy=accuracy, bandwidth=bandwidth, stepper=stepper, chunk=chunk)
        choice = choice if method == "auto" else choice._replace(method=method, asked=method)
    else:
        choice = Choice(method, method, count, math.nan, (), name_of(None))
    if checkpoint is not None and recorded is None:
        _record(checkpoint, asked, choice)
    times = jnp.asarray(ts, grid.box.lower.dtype)
    problem = Problem(sde, start, grid, times, as_bandwidth(bandwidth), stepper, choice.n, chunk)
    check_solvable(problem, choice.method)
    if choice.method == "finite volume":
        return _of_path(by_finite_volume(problem), every, jnp.ones((), times.dtype), choice)
    particles = problem.particles(choice.n, 0 if key is None else key)
    return _of_particles(problem, particles, key, every, mesh, checkpoint, choice)


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
        choice = Choice(method, method, choice.n, math.nan, (), name_of(None))
    times, mass = jnp.asarray(ts, grid.box.lower.dtype), before.mass[-1]
    last = before.density[-1] / jnp.where(mass > 0, mass, 1)
    ended = None if before.evolution is None else before.evolution.ensemble
    if choice.method == "finite volume":
        if before.path is None:
            raise ValueError("the result to go on from has particles: finite volumes cannot go on from them")
        problem = Problem(sde, FromDensity(last, before.grid), grid, times, as_bandwidth(bandwidth), stepper, 1, None)
        check_solvable(problem, choice.method)
        return _of_path(by_finite_volume(problem), every, mass, choice)
    if before.evolution is None or ended is None:
        raise ValueError("the result to go on from kept no particles: evolve an Ensemble, without chunk=, to go on")
    whole = before.evolution["density"].mass[-1] / jnp.where(mass > 0, mass, 1)
    problem = Problem(sde, ended, grid, times, as_bandwidth(bandwidth), stepper, ended.positions.shape[0], None)
    return _of_particles(problem, ended, key, every, mesh, checkpoint, choice, whole)


def _beside_of(checkpoint: str | os.PathLike[str]) -> str:
    return f"{os.fspath(checkpoint)}.choice"


def _recorded(checkpoint: str | os.PathLike[str] | None, asked: Mapping[str, Tree]) -> Choice | None:
    """The choice that a run which was stopped had made."""
    if checkpoint is None:
        return None
    last = Kept.last(_beside_of(checkpoint))
    if last is None:
        return None
    kept, path = last
    kept.check(path, {name: fingerprint(tree) for name, tree in asked.items()})
    about = kept.about
    rows = tuple(Candidate(*row) for row in about["candidates"])
    return Choice(about["method"], about["asked"], about["n"], about["limit"], rows, about["device"])


def _record(checkpoint: str | os.PathLike[str], asked: Mapping[str, Tree], choice: Choice) -> None:
    with Checkpoint(_beside_of(checkpoint), asked, resume=False, about=choice._asdict()) as kept:
        kept.write()
