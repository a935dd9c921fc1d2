"""What a density that evolves costs, by each method: from a few steps of fewer particles, measured and extrapolated.

A `Problem` says what is to be computed, however that will be done. Each method of it is timed once for each device and
structure, on the very programs that would run. `estimate` tells users how long a run will take; `choose` compares the
methods by the same costs.
"""

import dataclasses
from typing import Literal, NamedTuple

import equinox as eqx
import jax.numpy as jnp
import jax.tree_util as jtu
from jaxtyping import Array, ArrayLike, Float, PRNGKeyArray

from ..core import Module, Tree, suggest
from ..evolution import (
    SDE,
    AbstractInteraction,
    AbstractStart,
    AbstractStepper,
    Draw,
    Ensemble,
    Evolution,
    evolve,
)
from ._bandwidth import AbstractBandwidth, Silverman, as_bandwidth
from ._boundary import Box, Grid, same_box
from ._clock import name_of, seconds_of, table, time_of
from ._density import AbstractDensity, BinnedKDE, DenseKDE, SpectralKDE
from ._finite_volume import DensityPath, solve_fokker_planck, tensor_of
from ._initial import FromDensity, density_on

Method = Literal["auto", "spectral", "dense", "binned", "finite volume"]
"""An estimator of a density from particles, finite volumes, or the fastest of them."""

PARTICLES = ("spectral", "dense", "binned")
METHODS = (*PARTICLES, "finite volume")
STEPS = 8
"""Steps of a probe."""

PROBE = 2**15
"""Particles of a probe, or a tenth of a larger run."""

PAIRS = 2**19
"""Pairs of particles and cells, which a probe of the sum over all of them may have."""

_LARGEST = 2**18


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
            ("a call", time_of(each.fixed), time_of(each.fixed)),
            ("a particle's beginning", time_of(each.begin), time_of(each.begin * self.n)),
            ("a step", time_of(each.step), time_of(each.step * self.steps)),
            ("a particle-step", time_of(each.particle), time_of(each.particle * self.steps * self.n)),
            ("all", "", time_of(self.seconds)),
        ]
        title = f"{self.method}, {self.n} particles, {self.steps} steps on {self.device}"
        return table(title, ("of", "each", "together"), parts)


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


def cost_of(problem: Problem, method: str) -> Cost:
    """What a method costs; the clock runs once for each device and shape."""
    leaves, structure = jtu.tree_flatten(problem)
    shapes = tuple((x.shape, str(x.dtype)) if eqx.is_array(x) else x for x in leaves)
    asked = _Asked(method, name_of(None), structure, shapes)
    if asked not in _MEASURED:
        _MEASURED[asked] = _cost_of_grid(problem) if method == "finite volume" else _cost_of_particles(problem, method)
    return _MEASURED[asked]


def _cost_of_particles(problem: Problem, method: str) -> Cost:
    steps = min(problem.steps, STEPS)
    probe = problem.shortened(steps)
    large = min(problem.n, max(PROBE, min(problem.n // 10, _LARGEST)))
    if method == "dense":
        large = min(large, max(64, PAIRS // problem.grid.size))
    if problem.chunk is not None:
        large = min(problem.n, 4 * problem.chunk) if isinstance(problem.start, Ensemble) else 4 * problem.chunk
    small, least = max(1, large // 4), min(problem.n, 4)
    tiny = dataclasses.replace(probe.shortened(1), chunk=None if problem.chunk is None else least)
    few, some, all_ = tiny.particles(least), probe.particles(small), probe.particles(large)
    call, low, high, begin = seconds_of(
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
    steps = max(1, min(problem.steps // 2, STEPS))
    many = min(problem.steps, 2 * steps)
    short, long = problem.shortened(steps), problem.shortened(many)
    low, high = seconds_of(lambda: by_finite_volume(short), lambda: by_finite_volume(long))
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
    check_method(method)
    box = grid.box
    even = FromDensity(jnp.full(grid.shape, 1 / (grid.volume * grid.size)), grid)
    # steps so short that no drift takes a particle far: what they cost does not depend on it
    ts = jnp.arange(min(steps, 2 * STEPS) + 1, dtype=box.lower.dtype) * 1e-6
    problem = Problem(sde, even if start is None else start, grid, ts, as_bandwidth(bandwidth), stepper, n, chunk)
    check_solvable(problem, method)
    cost = cost_of(problem, method)
    return Estimate(cost.seconds(n, steps), method, n, steps, cost, name_of(None))


def check_method(method: str) -> None:
    if method not in METHODS:
        raise ValueError(f"no method {method!r}{suggest(method, METHODS)}: {', '.join(METHODS)}")


# --- finite volumes for the same problem -------------------------------------------------------------------------


def by_finite_volume(problem: Problem, grid: Grid | None = None) -> DensityPath:
    grid = problem.grid if grid is None else grid
    initial = initial_density(problem, grid)
    assert initial is not None
    return solve_fokker_planck(problem.sde.drift, tensor_of(problem.sde.diffusion), initial, grid, problem.ts)


def initial_density(problem: Problem, grid: Grid) -> Float[Array, "*shape"] | None:
    """Means over cells of where particles begin; `None` where only the particles are known."""
    start = problem.start.start if isinstance(problem.start, Draw) else problem.start
    return None if isinstance(start, Ensemble) else density_on(start, grid)


def check_solvable(problem: Problem, method: str) -> None:
    """Refuse a method that cannot solve a problem.

    **Raises:** `ValueError` saying why.
    """
    why = why_not(problem, method)
    if why:
        raise ValueError(f"method={method!r} cannot solve this problem: {why}")


def why_not(problem: Problem, method: str) -> str:
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
    return "" if initial_density(problem, grid) is not None else "the initial density is not known on the grid"
