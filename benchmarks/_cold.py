"""What a fresh process pays: run as `python -m benchmarks._cold NAME ARGUMENT`, prints JSON."""

import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

_ROOT = Path(__file__).resolve().parents[1]


def in_fresh_process(name: str, *arguments: str, cache: Path | None = None) -> dict[str, float]:
    """The measurement `name` of this file in a new interpreter, with its CPU-s and wall time as a whole.

    **Arguments:** `cache`: a folder for JAX's persistent compile cache; None for none.
    """
    environment = {k: v for k, v in os.environ.items() if not k.startswith("JAX_COMPILATION_CACHE")}
    environment["PYTHONPATH"] = os.pathsep.join([str(_ROOT), environment.get("PYTHONPATH", "")])
    if cache is not None:
        environment["JAX_COMPILATION_CACHE_DIR"] = str(cache)
        environment["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
        environment["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "0"
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    command = [sys.executable, "-m", "benchmarks._cold", name, *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)} failed:\n{done.stderr}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    total = {"process_cpu": cpu, "process_wall": time.perf_counter() - start}
    return json.loads(done.stdout.splitlines()[-1]) | total


def import_jax() -> dict[str, float]:
    """CPU-s to import jax."""
    start = time.process_time()
    import jax  # noqa: F401

    return {"cpu": time.process_time() - start}


def import_jaxsci() -> dict[str, float]:
    """CPU-s to import jax and then jaxsci, with what a fit needs: names that are imported lazily count."""
    start = time.process_time()
    import jax  # noqa: F401

    from jaxsci import AbstractModel, Dataset, fit, param  # noqa: F401

    return {"cpu": time.process_time() - start}


def first_fit() -> dict[str, float]:
    """A script as a user writes it: import, 50 points, one fit, one number printed."""
    import jaxsci as js

    js.enable_x64()
    from ._problems import many

    problem = many(1)
    solution = js.fit(problem.model, js.Dataset(problem.x, problem.y[0]))
    return {"chi2": float(solution.chi2), "std": float(solution.standard_errors[0])}


def compile_bounded(parameters: str) -> dict[str, float]:
    """CPU-s to compile one bounded fit of 50 points, and of all else in its first call (trace, lower, run)."""
    import jax.monitoring
    import jax.numpy as jnp

    import jaxsci as js

    js.enable_x64()

    class Polynomial(js.AbstractModel):
        """The exponential of a polynomial."""

        c: Any = js.param(bounds=(-5, 5))

        def __call__(self, x: Any) -> Any:
            return jnp.exp(jnp.sum(self.c[:, None] * x[None, :] ** jnp.arange(self.c.size)[:, None], axis=0))

    model = Polynomial(jnp.full(int(parameters), 0.1))
    data = js.Dataset(jnp.linspace(-1, 1, 50), jnp.linspace(1, 2, 50))
    lowered_at, spent = [0.0], []

    def listen(event: str, duration: float, **kwargs: Any) -> None:
        if event.endswith("jaxpr_to_mlir_module_duration"):
            lowered_at[0] = time.process_time()
        elif event.endswith("backend_compile_duration"):
            spent.append(time.process_time() - lowered_at[0])

    jax.monitoring.register_event_duration_secs_listener(listen)
    start, wall = time.process_time(), time.perf_counter()
    jax.block_until_ready(js.fit(model, data).y)
    total = time.process_time() - start
    wall = time.perf_counter() - wall
    return {"compile": sum(spent), "rest": total - sum(spent), "programs": len(spent), "wall": wall}


def stream_from_disk(folder: str, rows: str) -> dict[str, float]:
    """MiB of resident memory that a fit of (x, y) from two files takes above a small such fit, and its time.

    Writes both files into the folder, 16 bytes a row, and deletes them.
    """
    import jax
    import numpy as np

    import jaxsci as js

    js.enable_x64()
    from ._problems import Decay, decay

    n, rng, truth = int(rows), np.random.default_rng(0), (2.0, 0.5, 0.3)
    paths = [Path(folder) / f"{name}.npy" for name in "xy"]
    x, y = (np.lib.format.open_memmap(path, "w+", float, (n,)) for path in paths)
    for at in range(0, n, 1_000_000):
        x[at : at + 1_000_000] = 10 * np.arange(at, min(n, at + 1_000_000)) / n
        y[at : at + 1_000_000] = decay(np, x[at : at + 1_000_000], *truth)
        y[at : at + 1_000_000] += rng.normal(0, 0.05, len(y[at : at + 1_000_000]))
    del x, y
    x, y = (np.load(path, mmap_mode="r") for path in paths)
    model, few = Decay(1.0, 1.0, 0.0), np.linspace(0, 10, 1000)
    js.fit(model, js.StreamedDataset(few, decay(np, few, *truth), 0.05))
    Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
    before, cpu, wall = _memory("VmRSS"), time.process_time(), time.perf_counter()
    solution = js.fit(model, js.StreamedDataset(x, y, 0.05))
    spent = {"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu}
    off = np.max(np.abs(np.asarray(solution.y) - truth) / np.asarray(solution.standard_errors))
    for path in paths:
        path.unlink()
    steps = int(jax.device_get(solution.num_steps))
    return {"mebibytes": _memory("VmHWM") - before, "sigma": float(off), "steps": steps, **spent}


def first_separation(kind: str) -> dict[str, float]:
    """The first separation of components, nside 16: each pixel, coupled patches, or one value for the whole sky."""
    import jax

    import jaxsci as js
    from jaxsci import compsep

    js.enable_x64()
    from ._skies import LITEBIRD, maps, mixing

    coupled = {"dust.beta": 8, "dust.temp": 4, "sync.beta": 2}
    stokes, patches = {"pixels": ("IQU", 16), "multi-resolution": ("QU", coupled), "global": ("QU", 0)}[kind]
    data = jax.block_until_ready(maps(16, stokes))
    cpu, wall = time.process_time(), time.perf_counter()
    jax.block_until_ready(compsep.separate(mixing(), LITEBIRD, data, patches=patches))
    return {"cpu": time.process_time() - cpu, "wall": time.perf_counter() - wall}


def differentiated_separation() -> dict[str, float]:
    """Trace and compile jit(vmap(grad)) of a fitted spectral index by the maps: 12 pixels, QU, 6 channels."""
    import jax
    import jax.numpy as jnp
    import numpy as np

    import jaxsci as js
    from jaxsci import compsep

    js.enable_x64()
    from ._skies import LITEBIRD, mixing

    few, npix = np.array([0, 3, 6, 9, 12, 14]), 12
    nu, sigma = np.asarray(LITEBIRD.frequency)[few], np.asarray(LITEBIRD.sigma(npix, "QU"))[few]
    rng, model = np.random.default_rng(0), mixing()
    parts = rng.normal(size=(3, 2, npix)) + np.array([0.0, 60.0, 40.0])[:, None, None]
    clean = np.einsum("fc,csp->fsp", np.asarray(model.eval(jnp.asarray(nu))), parts)
    skies = jnp.asarray(clean + rng.normal(size=(3, *clean.shape)) * sigma[:, :, None])

    def beta(maps: Any) -> Any:
        found = compsep.separate(model, nu, maps, inv_n=sigma**-2.0, free=("dust.beta", "sync.beta"))
        return found.values["dust.beta"][0]

    cpu = time.process_time()
    jax.block_until_ready(jax.jit(jax.vmap(jax.grad(beta)))(skies))
    return {"cpu": time.process_time() - cpu}


def stream_sky(folder: str, tiles: str) -> dict[str, float]:
    """Single pixels of so many copies of a sky of nside 64, single precision, from disk to disk, after a small run.

    Seconds, and MiB of resident memory above what the process had. Deletes nothing.
    """
    import numpy as np

    import jaxsci as js
    from jaxsci import compsep

    js.enable_x64()
    from ._skies import LITEBIRD, maps, mixing

    tile, place = np.asarray(maps(64, "IQU"), np.float32), Path(folder) / "maps.npy"
    length = tile.shape[2]
    choices: dict[str, Any] = {"inv_n": 1 / np.asarray(LITEBIRD.sigma(length, "IQU")) ** 2, "resume": False}
    spent: dict[str, float] = {}
    for count in (1, int(tiles)):
        sky = np.lib.format.open_memmap(place, "w+", np.float32, (*tile.shape[:2], count * length))
        for at in range(0, count * length, length):
            sky[..., at : at + length] = tile
        sky.flush()
        sky = np.load(place, mmap_mode="r")
        Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
        before, cpu, wall = _memory("VmRSS"), time.process_time(), time.perf_counter()
        found = compsep.separate_blocks(mixing(), LITEBIRD, sky, Path(folder) / "out", **choices)
        spent = {"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu}
        spent |= {"mebibytes": _memory("VmHWM") - before, "pixels": found.totals.used, "failed": found.totals.failed}
    return spent


def timing_array() -> dict[str, float]:
    """All staged pulsars in one call: wall s and CPU-s of the first call, wall s of the next.

    On all cores, as a user has it.
    """
    import numpy as np

    import jaxsci as js
    from jaxsci import timing

    js.enable_x64()
    from ._ng9 import names, pint_fit, staged

    models, toas = zip(*(staged(name) for name in names()), strict=True)
    readings = []
    for _ in range(3):
        cpu, wall = time.process_time(), time.perf_counter()
        solutions = timing.fit_array(models, toas)
        readings.append((time.perf_counter() - wall, time.process_time() - cpu))
    off = [float(s.chi2) - pint_fit(name)["chi2"] for name, s in zip(names(), solutions, strict=True)]
    steps = max(int(s.fit.num_steps) for s in solutions)
    if not all(s.success for s in solutions):
        raise RuntimeError("a pulsar did not converge")
    warm = min(wall for wall, _ in readings[1:])
    (first, spent), worst = readings[0], float(np.max(off))
    return {"first": first, "first_cpu": spent, "warm": warm, "worst": worst, "steps": steps}


def gradient_of_pulsars(how: str) -> dict[str, float]:
    """CPU-s of the first call of jit(vmap(grad(f))), f the error of F0 in a fit, for two pulsars; and of the next."""
    import jax

    import jaxsci as js
    from jaxsci import timing

    js.enable_x64()
    pairs = [timing.bundled(name) for name in ("J0931-1902", "J1832-0836")]
    models, toas = timing.stack(*zip(*pairs, strict=True))

    def error(scale: Any, model: Any, toas: Any) -> Any:
        toas = js.put(toas, {"noise.EFAC": scale * toas.noise.EFAC})
        return timing.fit(model, toas, throw=False).std["F0"]

    program = jax.jit(jax.vmap(jax.grad(error), in_axes=(None, 0, 0)), compiler_options=_options(how))
    return _first_and_next(program, 1.0, models, toas)


def skies_in_vmap(how: str) -> dict[str, float]:
    """CPU-s of the first call of jit(vmap(separate)) of eight realisations of a small sky, and of the next."""
    import jax
    import jax.numpy as jnp

    import jaxsci as js
    from jaxsci import compsep

    js.enable_x64()
    instrument = compsep.Instrument.named("LiteBIRD")
    sigma = instrument.sigma(48, "QU")
    sky = jnp.ones((3, 2, 48)) * jnp.array([1.0, 10.0, 30.0])[:, None, None]
    parts = {"cmb": compsep.CMB(), "dust": compsep.ModifiedBlackBody(1.54, 20.0), "sync": compsep.PowerLaw(-3.0)}
    mixing = compsep.MixingMatrix(**parts)
    clean = jnp.einsum("fc,csp->fsp", mixing.eval(instrument.frequency), sky)
    many = clean + sigma[:, :, None] * jax.random.normal(jax.random.key(0), (8, *clean.shape))

    def fit(maps: Any) -> Any:
        found = compsep.separate(mixing, instrument, maps)
        return found.values, found.std, found.success

    return _first_and_next(jax.jit(jax.vmap(fit), compiler_options=_options(how)), many)


def _options(how: str) -> dict[str, Any] | None:
    """How a program is compiled: "plain", as `jax.jit` does; "quick", as the page says; "once", not optimised."""
    import jaxsci as js

    return None if how == "plain" else js.compiler_options(once=how == "once")


def _first_and_next(program: Any, *arguments: Any) -> dict[str, float]:
    import jax

    spent = []
    for _ in range(2):
        start = time.process_time()
        jax.block_until_ready(program(*arguments))
        spent.append(time.process_time() - start)
    return {"first": spent[0], "next": spent[1]}


def _memory(kind: str) -> float:
    """MiB of resident memory: VmRSS now, VmHWM at its peak."""
    status = Path("/proc/self/status").read_text()
    return int(status.split(f"{kind}:")[1].split()[0]) / 1024


_MEASURES = {
    f.__name__: f
    for f in (
        import_jax,
        import_jaxsci,
        first_fit,
        compile_bounded,
        stream_from_disk,
        first_separation,
        differentiated_separation,
        stream_sky,
        timing_array,
        gradient_of_pulsars,
        skies_in_vmap,
    )
}

if __name__ == "__main__":
    print(json.dumps(_MEASURES[sys.argv[1]](*sys.argv[2:])))
