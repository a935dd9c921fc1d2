"""What a device can do, as measured and not looked up: seven rows, each a number first and then yes or no.

The rows are those by which an older design chose between machines, from a table of what such machines should be able
to do. Users call `capabilities`; nothing in the package decides by it, because `choose` times the programs themselves.
"""

import math
import os
import time
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from ..evolution import SDE, Ensemble, normals
from ._bandwidth import Silverman
from ._boundary import Box, Grid
from ._clock import name_of, seconds_of, table, time_of
from ._costs import METHODS, PROBE, Cost, Problem, cost_of
from ._density import SpectralKDE
from ._drift import OrnsteinUhlenbeck
from ._initial import Gaussian


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
        return "\n".join([table(title, ("capability", "measured", ""), self.rows), *hints])


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
    return Capabilities(name_of(found), found.platform, memory, x64, rows, overhead, bandwidth, crossed)


def _yes(holds: bool) -> str:
    return "yes" if holds else "no"


def _grade(bandwidth: float) -> str:
    return "yes" if bandwidth >= 5e11 else "medium" if bandwidth >= 1e11 else "no"


def _row(name: str, slow: float, fast: float, least: float = 2.0) -> Capability:
    return Capability(name, f"{slow / fast:.3g} x ({time_of(slow)} to {time_of(fast)})", _yes(slow >= least * fast))


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
    slow, fast = seconds_of(apart, lambda: together(x))
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
    slow, fast = seconds_of(lambda: apart(x), lambda: together(x))
    return slow, fast


def _vectorised() -> tuple[float, float]:
    sde, _, ensemble = _example(2**17)

    def one(x: Array) -> Array:
        return x + sde.drift(jnp.zeros((), x.dtype), x) * 0.02

    apart, together = jax.jit(lambda x: lax.map(one, x)), jax.jit(jax.vmap(one))
    slow, fast = seconds_of(lambda: apart(ensemble.positions), lambda: together(ensemble.positions))
    return slow, fast


def _kernel_overhead() -> float:
    loops = 2000
    run = jax.jit(lambda x: lax.fori_loop(0, loops, lambda _, x: x * 0.5 + 1, x))
    x = jnp.zeros(8)
    return seconds_of(lambda: run(x))[0] / loops


def _bandwidth() -> float:
    # in a loop, so that memory is not asked for each time; more of it than caches hold
    loops, x = 4, jnp.zeros(2**24, jnp.float32)
    run = jax.jit(lambda x: lax.fori_loop(0, loops, lambda _, x: x + 1, x))
    return 2 * loops * x.nbytes / seconds_of(lambda: run(x))[0]


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
    problem = Problem(sde, start, grid, ts, Silverman(), None, PROBE, None)
    cost = {method: cost_of(problem, method) for method in METHODS}
    pairs = (("dense", "spectral"), ("dense", "binned"), ("spectral", "finite volume"))
    return {f"{b} before {a}": _crossing(cost[a], cost[b], problem.steps) for a, b in pairs}


def _crossing(slow: Cost, fast: Cost, steps: int) -> float:
    """The n from which on the second costs less."""
    ahead = fast.seconds(0, steps) - slow.seconds(0, steps)
    rate = slow.seconds(1, steps) - slow.seconds(0, steps) - fast.seconds(1, steps) + fast.seconds(0, steps)
    if ahead <= 0:
        return 1.0 if rate >= 0 else math.inf
    return ahead / rate if rate > 0 else math.inf
