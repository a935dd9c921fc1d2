"""What the particle solver is measured beside: NumPy, KDEpy, torch, a bare scan of JAX, plain C, and fresh processes.

All evolve the same problem: 50 steps of dX = -X dt + dW on [-4, 4], the drift known on 100 cells and at 50 times and
interpolated, walls that turn back, a density at each time with Scott's bandwidth. Those that share weights among nodes
have 768 of them and 384 cosines, as `SpectralKDE` has. `python -m benchmarks._particles_peers NAME ...` is one
measurement in a process of its own, and prints JSON.
"""

import contextlib
import ctypes
import importlib
import importlib.util
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from . import _threads as _threads  # before anything that imports NumPy

# isort: split
import jax
import jax.numpy as jnp
import numpy as np

import jaxsci as js
from jaxsci.evolution import SDE, Draw, Ensemble, evolve
from jaxsci.meanfield import Box, Gaussian, Grid, OnGrid, SpectralKDE
from jaxsci.meanfield._bandwidth import Scott
from jaxsci.meanfield._density import _series

js.enable_x64()

LOW, HIGH, CELLS, STEPS = -4.0, 4.0, 100, 50
NODES, COSINES = 768, 384
WIDTH = HIGH - LOW
_ROOT = Path(__file__).resolve().parents[1]


def times(steps: int = STEPS) -> np.ndarray:
    """From 0 to 1."""
    return np.linspace(0, 1, steps + 1)


def grid(cells: int = CELLS) -> Grid:
    """The box, cut into cells."""
    return Grid(Box(LOW, HIGH), cells)


def sde(cells: int = CELLS, steps: int = STEPS) -> SDE:
    """The problem, with a drift that is looked up."""
    of = grid(cells)
    values = np.broadcast_to(-np.asarray(of.centres())[None, :, None], (steps, cells, 1))
    return SDE(OnGrid(values, of, times(steps)[:-1]), 1.0, of.box)


def start(n: int, precision: str = "float64") -> np.ndarray:
    """Positions of n particles at the beginning."""
    x = 1 + 0.5 * np.random.default_rng(0).standard_normal(n)
    return np.clip(x, LOW, HIGH).astype(precision)


def ours(n: int, precision: str = "float64", *, kde: Any = None, stepper: Any = None) -> Callable[[], Any]:
    """The density at each time by `evolve`, particles in hand."""
    of, what = sde(), SpectralKDE(grid(), Scott()) if kde is None else kde
    ensemble, ts = Ensemble(jnp.asarray(start(n, precision))), times()
    return lambda: evolve(of, ensemble, ts, key=1, save={"density": what}, stepper=stepper)["density"].values


# --- a bare scan ---------------------------------------------------------------------------------------------------


def _matrices(dtype: Any) -> tuple[Any, Any, Any]:
    """Squared wave numbers, from nodes to coefficients, and from these to the means over cells."""
    series = _series(("reflecting", "reflecting"), CELLS, NODES, COSINES, 1)
    k2 = (np.pi * series.waves / WIDTH) ** 2
    return k2.astype(dtype), series.coefficients.astype(dtype), (series.means / WIDTH).astype(dtype)


def bare_scan(n: int, precision: str = "float64", density: str = "spectral") -> Callable[[], Any]:
    """The same in thirty lines of JAX without this package: `jax.random.normal`, `lax.scan`, nothing checked."""
    dtype = jnp.dtype(precision)
    k2, into, out = (jnp.asarray(x) for x in _matrices(dtype))
    centres = jnp.asarray(np.asarray(grid().centres()), dtype)
    drift = jnp.broadcast_to(-centres, (STEPS, CELLS))
    cell, node, dt = dtype.type(WIDTH / CELLS), dtype.type(WIDTH / NODES), dtype.type(1 / STEPS)

    def looked_up(y: Any, x: Any) -> Any:
        s = jnp.clip((x - LOW) / cell - dtype.type(0.5), 0, CELLS - 1)
        i = jnp.clip(s.astype(jnp.int32), 0, CELLS - 2)
        w = s - i.astype(dtype)
        get = {"mode": "promise_in_bounds"}
        return y.at[i].get(**get) * (1 - w) + y.at[i + 1].get(**get) * w

    def spectral(x: Any) -> Any:
        h = jnp.std(x) * dtype.type(n**-0.2)
        s = (x - LOW) / node
        i = jnp.clip(s.astype(jnp.int32), 0, NODES - 1)
        w = s - i.astype(dtype)
        sums = jnp.zeros(NODES + 1, dtype)
        sums = sums.at[i].add(1 - w, mode="promise_in_bounds").at[i + 1].add(w, mode="promise_in_bounds")
        return out @ (jnp.exp(-k2 * h * h / 2) * (into @ (sums / n)))

    def dense(x: Any) -> Any:
        h = jnp.std(x) * dtype.type(n**-0.2)
        kernels = jnp.exp(-(((x[:, None] - centres) / h) ** 2) / 2)
        return jnp.sum(kernels, axis=0) / (n * h * dtype.type(np.sqrt(2 * np.pi)))

    estimate = {"spectral": spectral, "dense": dense}[density]

    @jax.jit
    def run(key: Any, x: Any) -> Any:
        def step(x: Any, given: tuple) -> tuple[Any, Any]:
            y, k = given
            z = jax.random.normal(jax.random.fold_in(key, k), (n,), dtype)
            x = x + looked_up(y, x) * dt + jnp.sqrt(dt) * z
            x = jnp.where(x < LOW, 2 * LOW - x, jnp.where(x > HIGH, 2 * HIGH - x, x))
            return x, estimate(x)

        return jax.lax.scan(step, x, (drift, jnp.arange(STEPS)))[1]

    key, x = jax.random.key(1), jnp.asarray(start(n, precision))
    return lambda: run(key, x)


# --- NumPy and KDEpy -----------------------------------------------------------------------------------------------


def _numpy_steps(n: int, density: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    rng, x, dt = np.random.default_rng(1), start(n), 1 / STEPS
    centres, root = np.asarray(grid().centres()), np.sqrt(1 / STEPS)
    found = []
    for _ in range(STEPS):
        x = x + np.interp(x, centres, -centres) * dt + root * rng.standard_normal(n)
        x = np.where(x < LOW, 2 * LOW - x, np.where(x > HIGH, 2 * HIGH - x, x))
        found.append(density(x))
    return np.stack(found)


def numpy_dense(n: int) -> Callable[[], Any]:
    """The sum over all pairs of particles and cells, in blocks that stay in the cache."""
    centres = np.asarray(grid().centres())

    def density(x: np.ndarray) -> np.ndarray:
        h, total = x.std() * n**-0.2, np.zeros(CELLS)
        for block in np.split(x, range(1000, n, 1000)):
            total += np.exp(-(((block[:, None] - centres) / h) ** 2) / 2).sum(axis=0)
        return total / (n * h * np.sqrt(2 * np.pi))

    return lambda: _numpy_steps(n, density)


def kdepy(n: int) -> Callable[[], Any]:
    """NumPy's steps with `KDEpy.FFTKDE`, the fastest of its estimators."""
    from KDEpy import FFTKDE

    points = np.linspace(LOW - 1e-6, HIGH + 1e-6, CELLS)

    def density(x: np.ndarray) -> np.ndarray:
        return FFTKDE(kernel="gaussian", bw=x.std() * n**-0.2).fit(x).evaluate(points)

    return lambda: _numpy_steps(n, density)


def found(package: str) -> bool:
    """Whether a package can be imported here."""
    return importlib.util.find_spec(package) is not None


# --- torch ---------------------------------------------------------------------------------------------------------


def torch_missing() -> str:
    """Why there is no torch here; empty where there is a build that works."""
    if importlib.util.find_spec("torch") is None:
        return "not run: torch is not installed"
    try:
        importlib.import_module("torch")
    except (ImportError, OSError) as error:
        return f"not run: torch does not import ({error})"
    return ""


def compiler_missing() -> str:
    """Why `torch.compile` cannot run here; empty where it can."""
    return "" if shutil.which("c++") else "not run: torch.compile needs a C++ compiler"


def _torch_spectral(dtype: Any) -> Callable[..., Any]:
    import torch

    k2, into, out = (torch.as_tensor(x, dtype=dtype) for x in _matrices("float64"))

    def spectral(x: Any, h: Any = None) -> Any:
        n = x.shape[0]
        h = x.std(correction=0) * n**-0.2 if h is None else h
        s = (x - LOW) * (NODES / WIDTH)
        i = s.to(torch.int64).clamp(0, NODES - 1)
        w = s - i
        sums = torch.zeros(NODES + 1, dtype=dtype)
        sums = sums.scatter_add(0, i, 1 - w).scatter_add(0, i + 1, w)
        return out @ (torch.exp(-k2 * h * h / 2) * (into @ (sums / n)))

    return spectral


def torch_spectral(n: int, precision: str, compiled: bool) -> Callable[[], Any]:
    """The same algorithm in torch, eager or by `torch.compile`, with torch's own generator, on one thread."""
    import torch

    torch.set_num_threads(1)
    dtype = getattr(torch, precision)
    spectral = _torch_spectral(dtype)
    drift = torch.as_tensor(-np.asarray(grid().centres()), dtype=dtype).expand(STEPS, CELLS)
    x0, dt = torch.as_tensor(start(n, precision)), 1 / STEPS

    def step(x: Any, y: Any, z: Any) -> tuple[Any, Any]:
        s = ((x - LOW) * (CELLS / WIDTH) - 0.5).clamp(0, CELLS - 1)
        i = s.to(torch.int64).clamp(0, CELLS - 2)
        w = s - i
        x = x + (y[i] * (1 - w) + y[i + 1] * w) * dt + dt**0.5 * z
        x = torch.where(x < LOW, 2 * LOW - x, torch.where(x > HIGH, 2 * HIGH - x, x))
        return x, spectral(x)

    def noisy(x: Any, y: Any) -> tuple[Any, Any]:
        return step(x, y, torch.randn(n, dtype=dtype))

    one = torch.compile(noisy) if compiled else noisy

    def run() -> np.ndarray:
        x, found = x0, []
        with torch.no_grad():
            for k in range(STEPS):
                x, density = one(x, drift[k])
                found.append(density)
        return torch.stack(found).numpy()

    return run


def torch_density(x: np.ndarray, h: float) -> np.ndarray:
    """The density of these particles with a bandwidth by torch."""
    import torch

    return _torch_spectral(torch.float64)(torch.as_tensor(np.array(x, np.float64)), h).numpy()


# --- plain C -------------------------------------------------------------------------------------------------------

_C = r"""
#include <math.h>
#include <stdint.h>
#include <string.h>
#define BLOCK 1024
static inline uint32_t pcg(uint32_t c) {
  uint32_t s = c * 747796405u + 2891336453u;
  uint32_t w = ((s >> ((s >> 28) + 4)) ^ s) * 277803737u;
  return (w >> 22) ^ w;
}
/* the polynomial of Cephes: that of libm is a call, which keeps a loop from being vectorised */
static inline float logarithm(float x) {
  uint32_t bits;
  memcpy(&bits, &x, 4);
  int e = (int)(bits >> 23) - 126;
  bits = (bits & 0x7fffffu) | 0x3f000000u;
  float m, p;
  memcpy(&m, &bits, 4);
  int small = m < 0.70710678f;
  e -= small;
  m = (small ? m + m : m) - 1;
  p = 7.0376836292e-2f; p = p * m - 1.1514610310e-1f; p = p * m + 1.1676998740e-1f; p = p * m - 1.2420140846e-1f;
  p = p * m + 1.4249322787e-1f; p = p * m - 1.6668057665e-1f; p = p * m + 2.0000714765e-1f;
  p = p * m - 2.4999993993e-1f; p = p * m + 3.3333331174e-1f;
  return p * m * m * m - 0.5f * m * m + m + e * 0.69314718f;
}
/* Giles 2010, approximating the erfinv function: single precision */
static inline float erfinv(float x) {
  float w = -logarithm((1 - x) * (1 + x)), c = w - 2.5f, t = sqrtf(w) - 3, p, q;
  p = 2.81022636e-08f; p = 3.43273939e-07f + p * c; p = -3.5233877e-06f + p * c; p = -4.39150654e-06f + p * c;
  p = 0.00021858087f + p * c; p = -0.00125372503f + p * c; p = -0.00417768164f + p * c; p = 0.246640727f + p * c;
  p = 1.50140941f + p * c;
  q = -0.000200214257f; q = 0.000100950558f + q * t; q = 0.00134934322f + q * t; q = -0.00367342844f + q * t;
  q = 0.00573950773f + q * t; q = -0.0076224613f + q * t; q = 0.00943887047f + q * t; q = 1.00167406f + q * t;
  q = 2.83297682f + q * t;
  return (w < 5 ? p : q) * x;
}
/* sums: steps x (nodes + 1), of all particles; drift: cells */
void run(long n, int steps, int cells, int nodes, float low, float high, const float *restrict drift,
         const float *restrict start, float *restrict sums) {
  float dt = 1.0f / steps, root = sqrtf(2 * dt), cell = cells / (high - low), node = nodes / (high - low);
  float x[BLOCK], z[BLOCK];
  for (long first = 0; first < n; first += BLOCK) {
    int size = n - first < BLOCK ? (int)(n - first) : BLOCK;
    memcpy(x, start + first, size * sizeof(float));
    for (int k = 0; k < steps; k++) {
      uint32_t turn = pcg((uint32_t)k + 17u);
      float *to = sums + (long)k * (nodes + 1);
      for (int i = 0; i < size; i++) {
        uint32_t b = pcg(pcg((uint32_t)(first + i)) + turn);
        z[i] = erfinv((float)(int)(b >> 8) * 0x1p-23f + 0x1p-24f - 1.0f);
      }
      for (int i = 0; i < size; i++) {
        float s = (x[i] - low) * cell - 0.5f;
        s = s < 0 ? 0 : s > cells - 1 ? cells - 1 : s;
        int j = (int)s;
        j = j > cells - 2 ? cells - 2 : j;
        float w = s - j, y = x[i] + (drift[j] * (1 - w) + drift[j + 1] * w) * dt + root * z[i];
        x[i] = y < low ? 2 * low - y : y > high ? 2 * high - y : y;
      }
      for (int i = 0; i < size; i++) {
        float at = (x[i] - low) * node;
        int m = (int)at;
        m = m > nodes - 1 ? nodes - 1 : m < 0 ? 0 : m;
        to[m] += 1 - (at - m);
        to[m + 1] += at - m;
      }
    }
  }
}
"""


@contextlib.contextmanager
def naive_c(n: int) -> Iterator[Callable[[], np.ndarray] | None]:
    """The loop that one writes in C, with a hash as generator; `None` without a compiler.

    Compiled by cc -O3 -march=native, which vectorises all of it but the sums: blocks of particles go through all of
    time, and the logarithm is a polynomial. What it returns are the sums on nodes: densities cost it nothing.
    """
    compiler = shutil.which("cc")
    if compiler is None:
        yield None
        return
    with tempfile.TemporaryDirectory() as folder:
        source, library = Path(folder) / "particles.c", Path(folder) / "particles.so"
        source.write_text(_C)
        flags = ["-O3", "-march=native", "-fno-math-errno", "-fno-trapping-math", "-fPIC", "-shared"]
        subprocess.run([compiler, *flags, str(source), "-o", str(library), "-lm"], check=True, capture_output=True)
        run = ctypes.CDLL(str(library)).run
        drift = -np.asarray(grid().centres()).astype(np.float32)
        x = start(n, "float32")

        def pointer(array: np.ndarray) -> Any:
            return array.ctypes.data_as(ctypes.c_void_p)

        def call() -> np.ndarray:
            sums = np.zeros((STEPS, NODES + 1), np.float32)
            ends = (ctypes.c_float(LOW), ctypes.c_float(HIGH))
            run(ctypes.c_long(n), STEPS, CELLS, NODES, *ends, pointer(drift), pointer(x), pointer(sums))
            return sums

        yield call


# --- processes of their own ----------------------------------------------------------------------------------------


def in_own_process(name: str, *arguments: str, flags: str = "") -> dict[str, float]:
    """The measurement `name` of this file in a new interpreter. `flags`: more of XLA's."""
    environment = dict(os.environ)
    environment["PYTHONPATH"] = os.pathsep.join([str(_ROOT), environment.get("PYTHONPATH", "")])
    environment["XLA_FLAGS"] = f"{environment.get('XLA_FLAGS', '')} {flags}".strip()
    command = [sys.executable, "-m", "benchmarks._particles_peers", name, *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, cwd=_ROOT)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)} failed:\n{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


def peak_memory() -> float:
    """The most memory that this process ever held, in MiB; `getrusage` would say that of its parent, if it is more."""
    status = Path("/proc/self/status")
    if status.exists():
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def drawn(n: str, chunk: str, precision: str) -> dict[str, float]:
    """Seconds and peak memory of n particles that are drawn in chunks, their density kept at each time."""
    js_type = jnp.dtype(precision)
    begin = jax.tree_util.tree_map(lambda x: x.astype(js_type), Gaussian(1.0, 0.5, grid().box))
    of, kde, ts = sde(), SpectralKDE(grid(), Scott()), times()

    def run(count: int) -> Any:
        return evolve(of, Draw(begin, count, 1), ts, save={"density": kde}, chunk=int(chunk))["density"]

    cpu, wall = time.process_time(), time.perf_counter()
    found = run(int(n))
    values = np.asarray(found.values[-1])
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    return {"cpu": cpu, "wall": wall, "mebibytes": peak_memory(), "mass": float(values.sum() * WIDTH / CELLS)}


def cut(n: str, count: str) -> dict[str, float]:
    """The largest difference of densities, over the peak, between ways to cut the same ensemble."""
    of, kde, ts = sde(), SpectralKDE(grid(), Scott()), times(STEPS)
    ensemble = Ensemble(jnp.asarray(start(int(n))))
    mesh = jax.sharding.Mesh(np.array(jax.devices()), ("particles",))
    ways = {
        "chunks of 1000": {"chunk": 1000},
        f"{len(jax.devices())} devices": {"mesh": mesh},
        "chunks of 3333": {"chunk": 3333},
        "chunks on devices": {"mesh": mesh, "chunk": 777},
    }
    whole = np.asarray(evolve(of, ensemble, ts, key=1, save={"density": kde})["density"].values)
    found = {}
    for name, way in list(ways.items())[: int(count)]:
        values = np.asarray(evolve(of, ensemble, ts, key=1, save={"density": kde}, **way)["density"].values)
        found[name] = float(np.abs(values - whole).max() / whole.max())
    return found


if __name__ == "__main__":
    print(json.dumps({"drawn": drawn, "cut": cut}[sys.argv[1]](*sys.argv[2:])))
