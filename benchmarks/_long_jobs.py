"""The long commands, at sizes that take seconds: what is killed, and whose checkpoints are damaged.

Each job is a function of a folder that runs a command with its checkpoint in there, goes on with what it finds, and
answers with all numbers of the result. Run as a program it starts a process for each line of its input, as `_kills`
asks it to, which then kills them; `_damage` takes the files that the jobs leave.
"""

import contextlib
import hashlib
import importlib
import json
import os
import sys
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

from . import _threads as _threads  # before anything that imports NumPy

# isort: split
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

import jaxsci as js
from jaxsci import compsep, runs
from jaxsci.evolution import SDE, Ensemble, Moments, Snapshots, evolve
from jaxsci.fitting import _shared
from jaxsci.parallel import Checkpoint
from jaxsci.runs import _progress
from jaxsci.xpcs import correlate

ANSWER, ERROR = "answer.txt", "error.txt"


class Peaks(js.AbstractModel):
    """Three Gaussians on a line: more parameters than the engine for small fits takes."""

    amp: Float[Array, " k"] = js.param()
    center: Float[Array, " k"] = js.param()
    width: Float[Array, " k"] = js.param()

    def __call__(self, x: Any) -> Any:
        """The curve at x."""
        z = (x[:, None] - self.center) / self.width
        return jnp.sum(self.amp * jnp.exp(-z * z / 2), axis=1)


class Decay(js.AbstractModel):
    """An exponential decay on a constant."""

    amp: js.Scalar = js.param()
    tau: js.Scalar = js.param()
    base: js.Scalar = js.param()

    def __call__(self, t: Any) -> Any:
        """The curve at t."""
        return self.amp * jnp.exp(-t / self.tau) + self.base


def _decays(count: int) -> list[Any]:
    rng, t = np.random.default_rng(1), np.linspace(0.0, 5.0, 40)
    y = rng.uniform(1, 4, (count, 1)) * np.exp(-t / 1.4) + rng.normal(0, 0.05, (count, len(t)))
    return [js.Dataset(jnp.asarray(t), jnp.asarray(each), js.White(0.05)) for each in y]


def fit_batch(folder: Path, small: bool) -> list[Any]:
    """Curves with nine parameters each, in lanes of eight."""
    rng, x = np.random.default_rng(0), np.linspace(0.0, 10.0, 60)
    truth = Peaks(jnp.array([3.0, 2.0, 1.0]), jnp.array([2.0, 5.0, 8.0]), jnp.array([0.7, 0.5, 0.9]))
    y = np.asarray(truth(jnp.asarray(x))) + 0.05 * rng.normal(size=(24 if small else 600, len(x)))
    data = [js.Dataset(jnp.asarray(x), jnp.asarray(each), js.White(0.05)) for each in y]
    start = Peaks(jnp.ones(3), jnp.array([2.5, 5.5, 7.5]), jnp.ones(3))
    found = js.fit_batch(start, data, batch_size=8, checkpoint=folder / "state")
    return jax.tree.leaves(found.groups)


def shared(folder: Path, small: bool) -> list[Any]:
    """Decays with one life time for all of them, some steps at a time."""
    _shared._STEPS = 1  # so that it is kept more often than it need be
    start = Decay(1.0, 30.0, 3.0)
    found = js.fit_batch(start, _decays(24 if small else 256), shared="tau", checkpoint=folder / "state")
    return jax.tree.leaves((found.groups, found.shared))


def sample(folder: Path, small: bool) -> list[Any]:
    """Chains of several decays."""
    data = _decays(2 if small else 3)
    fits = js.fit_batch(Decay(1.0, 1.0, 0.0), data)
    settings = {"num_warmup": 100, "num_samples": 100 if small else 6000, "num_chains": 2 if small else 4}
    found = js.sample(fits, data, key=jax.random.key(0), checkpoint=folder / "state", **settings)
    return [jax.tree.leaves((group.first, group.trace)) for group in found.groups]


def particles(folder: Path, small: bool) -> list[Any]:
    """Particles in a well, in stretches of time."""
    count, steps = (200, 64) if small else (20_000, 480)
    sde = SDE(_well, 0.5)
    start, save = Ensemble(np.zeros(count), key=1), {"moments": Moments(), "some": Snapshots()}
    ts = np.linspace(0.0, 1.0, steps + 1)
    found = evolve(sde, start, ts, save=save, every=steps // 16, checkpoint=folder / "state")
    return jax.tree.leaves(found)


def _well(t: Any, x: Any) -> Any:
    return x - x**3


def multitau(folder: Path, small: bool) -> list[Any]:
    """Photons on a detector, a few frames at a time."""
    frames, side = (64, 16) if small else (2048, 64)
    movie = np.random.default_rng(0).poisson(1.0, (frames, side, side)).astype(np.uint8)
    labels = 1 + np.arange(side * side).reshape(side, side) % 4
    found = correlate(movie, labels, method="dense", block=8, every=0, two_time=(1,), checkpoint=folder / "state")
    return jax.tree.leaves(found)


def blocks(folder: Path, small: bool) -> list[Any]:
    """A sky that is separated a few hundred pixels at a time."""
    instrument = compsep.Instrument.named("LiteBIRD")
    mixing = compsep.MixingMatrix(cmb=compsep.CMB(), dust=compsep.ModifiedBlackBody(1.54, 20.0))
    rng, npix = np.random.default_rng(0), 96 if small else 3072
    nu = np.asarray(instrument.frequency)
    dust = (nu / 353) ** 1.5
    maps = (rng.normal(0, 50, npix) + dust[:, None] * rng.uniform(20, 60, npix))[:, None]
    maps = maps + rng.normal(0, 0.1, maps.shape)
    found = compsep.separate_blocks(
        mixing, instrument, maps, folder / "state", inv_n=np.full((len(nu), 1), 100.0), free="dust.beta",
        block=48 if small else 256,
    )  # fmt: skip
    return [found.amplitudes, found.values, found.std, found.chi2, found.covariance, found.result, found.steps]


def run(folder: Path, small: bool) -> list[Any]:
    """`jaxsci run` with fits of many kinds, one after the other; of a small one, stopped before its report."""
    names = ("DanWood", "BoxBOD", "Misra1a") if small else NIST
    rows = "".join(f'[[data]]\nfile = "bundled:nist/{name}.dat"\nmodel = "nist.{name}"\n' for name in names)
    config = folder / "fit.toml"
    if not config.exists():
        config.write_text(f"[fit]\nmax_steps = 500\n{rows}")
    out = folder / "out"
    if small:
        with contextlib.suppress(InterruptedError):
            runs.run(str(config), out, watch=_Stopping())
        return []
    ran = runs.run(str(config), out, resume=True)
    document = json.loads((out / "results.json").read_text())
    when = {"created", "seconds"}
    told = {key: value for key, value in document.items() if key not in when}
    files = [path.read_bytes() for path in sorted((out / "solutions").iterdir())]
    assert ran.counts["not_run"] == 0
    # the path of the config is another in each folder
    return [json.dumps(told).replace(str(folder), "").encode(), (out / "results.csv").read_bytes(), *files]


class _Stopping(runs.Unwatched):
    """Ends a run when all is done but the figures."""

    def drawing(self, items: Any) -> Any:
        """There is none."""
        raise InterruptedError


NIST = ("BoxBOD", "Chwirut2", "DanWood", "ENSO", "Eckerle4", "Gauss1", "Gauss2", "Hahn1", "Lanczos1", "Lanczos3",
        "MGH10", "MGH17", "Misra1a", "Misra1b", "Misra1d", "Rat42", "Rat43", "Roszman1")  # fmt: skip


class Job(NamedTuple):
    """A command by its name, what it does, and where the file that it keeps is below its folder."""

    name: str
    work: Callable[[Path, bool], list[Any]]
    file: str

    def keeps(self, folder: Path) -> bool:
        """Whether there is something in the folder to go on from."""
        return any((folder / f"{self.file}{end}").exists() for end in ("", ".previous"))


JOBS = (
    Job("fit_batch", fit_batch, "state"),
    Job("fit_batch(shared=)", shared, "state"),
    Job("sample", sample, "state"),
    Job("evolve", particles, "state"),
    Job("correlate", multitau, "state"),
    Job("separate_blocks", blocks, "state/separation.jsci"),
    Job("jaxsci run", run, "out/progress.jsci"),
)


def job_named(name: str) -> Job:
    """The job of this name."""
    return next(job for job in JOBS if job.name == name)


def keep_always() -> None:
    """Checkpoints are written each time that something is kept, instead of every ten seconds."""
    _progress.EVERY = 0.0
    made = Checkpoint.__init__

    def init(self: Checkpoint, *args: Any, **options: Any) -> None:
        made(self, *args, **options)
        self.every = 0.0 if self.every < float("inf") else self.every

    Checkpoint.__init__ = init  # type: ignore[method-assign]


def digest(leaves: Iterable[Any]) -> str:
    """A digest of every bit of an answer."""
    said = hashlib.sha256()
    for leaf in jax.tree.leaves(list(leaves)):
        said.update(leaf if isinstance(leaf, bytes) else np.ascontiguousarray(leaf).tobytes())
    return said.hexdigest()


def main(name: str, folder: Path) -> int:
    """Run a job from where it is, and leave the digest of its answer, or what went wrong; returns an exit code."""
    try:
        runs.prepare("cpu")
        keep_always()
        found, at = digest(job_named(name).work(folder, False)), ANSWER
    except Exception as error:  # whatever it is, it is told as one that is stuck
        found, at = f"{type(error).__name__}: {error}", ERROR
    aside = folder / f"{at}.new"
    aside.write_text(found)
    aside.replace(folder / at)
    return int(at == ERROR)


def serve() -> None:
    """Start a process for each line `NAME<tab>FOLDER`; print its number, and its exit status when it has ended.

    The processes have the imports, which take as long as all else, and nothing of JAX that may not be shared: there is
    no backend yet, and one thread.
    """
    importlib.import_module("numpyro.infer.hmc")
    importlib.import_module("matplotlib.figure")
    assert len(os.listdir("/proc/self/task")) == 1
    warnings.filterwarnings("ignore", message="os.fork", category=RuntimeWarning)
    for line in sys.stdin:
        name, folder = line.rstrip("\n").split("\t")
        child = os.fork()
        if child == 0:
            os._exit(main(name, Path(folder)))
        print(child, flush=True)
        print(os.waitpid(child, 0)[1], flush=True)


if __name__ == "__main__":
    serve()
