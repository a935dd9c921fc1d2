"""What runs on several devices and in several processes: one small job for each door that takes `mesh=`.

`python -m benchmarks._hosts_doors OUT.npz alone|mesh NAME ...` starts the processes that its environment speaks of,
runs each of these doors without or with a mesh of all devices, and writes the numbers and the time that each took.
`benchmarks._hosts` and the tests start it in processes of their own, because JAX counts its devices only once.
"""

import contextlib
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

import jaxsci as js
from jaxsci import compsep, evolution, xpcs
from jaxsci.parallel import Checkpoint, exchange, together


class Decay(js.AbstractModel):
    """An exponential decay onto a base."""

    amp: js.Scalar = js.param()
    tau: js.Scalar = js.param(bounds=(0.01, None))
    base: js.Scalar = js.param(default=0.0)

    def __call__(self, t):
        return self.amp * jnp.exp(-t / self.tau) + self.base


def decays(count: int, rows: int = 24) -> list[js.Dataset]:
    """Noisy decays, some of them shorter."""
    rng, t = np.random.default_rng(1), np.linspace(0.0, 5.0, rows)
    data = [3 * np.exp(-t / (1 + 0.02 * k)) + 0.05 * rng.standard_normal(rows) for k in range(count)]
    return [js.Dataset(t, y, js.White(0.05)) for y in data]


def numbers(tree: object) -> list[np.ndarray]:
    """All arrays of an answer."""
    return [np.asarray(x) for x in jax.tree.leaves(tree) if isinstance(x, jax.Array | np.ndarray)]


def small_fits(mesh, folder):
    """fit_batch on the engine for small fits, in calls of 64 members."""
    return js.fit_batch(Decay(1.0, 1.0), decays(300), batch_size=4, mesh=mesh).groups


class _Stopped(Exception):
    """Stands for Ctrl-C."""


def resumed(mesh, folder):
    """The same, stopped in its second round and gone on with."""
    kept, calls, told = folder / "batch.checkpoint", [], []

    def stop(done: int, total: int) -> None:
        calls.append(done)
        if len(calls) > 2:
            raise _Stopped

    for progress in (stop, lambda done, total: told.append(done)):
        with contextlib.suppress(_Stopped):
            found = js.fit_batch(
                Decay(1.0, 1.0), decays(300), batch_size=4, mesh=mesh, checkpoint=kept, progress=progress
            ).groups
    assert told[0] > 0, "it began again"
    assert told[-1] == 300
    name = "batch.checkpoint" if jax.process_count() == 1 else f"batch.checkpoint.{jax.process_index()}-of-2"
    assert (folder / name).exists()
    return found


def killed(mesh, folder):
    """The same, its first process killed in the second round where `HOSTS_KILL` is set, and gone on with elsewhere."""
    kept, told = folder / "killed.checkpoint", []

    def watch(done: int, total: int) -> None:
        told.append(done)
        if "HOSTS_KILL" in os.environ and len(told) > 2 and jax.process_index() == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    found = js.fit_batch(Decay(1.0, 1.0), decays(300), batch_size=4, mesh=mesh, checkpoint=kept, progress=watch).groups
    assert mesh is None or jax.process_index() > 0 or told[0] > 0, "it began again"
    return found


def failed(mesh, folder):
    """What all processes hear when the last of them fails."""
    last = jax.process_count() - 1

    def work() -> bytes:
        if jax.process_index() == last:
            raise OSError("disk full")
        return b"fine"

    try:
        together(work)
    except (OSError, RuntimeError) as error:
        said = str(error)
    wanted = "disk full" if jax.process_index() == last else f"process {last} of {last + 1} failed"
    assert wanted in said, said
    return [np.array(b"".join(exchange(b"%d" % k)[-1] for k in range(2)) == b"01")]


def fits(mesh, folder):
    """fit_batch by the solver itself: a robust loss with a prior."""
    lots = [js.Dataset(d.inputs, d.observed, js.Dense(np.diag(np.full(24, 0.05**2)))) for d in decays(40)]
    return js.fit_batch(Decay(1.0, 1.0), lots, batch_size=2, mesh=mesh).groups


def posteriors(mesh, folder):
    """sample of a batch, one of whose members is refused."""
    data = decays(20)
    data[7] = js.Dataset(data[7].inputs, np.full(24, np.nan), js.White(0.05))
    fitted = js.fit_batch(Decay(1.0, 1.0), data, batch_size=4)
    drawn = js.sample(fitted, data, key=jax.random.key(0), num_warmup=20, num_samples=20, num_chains=2, mesh=mesh)
    assert list(drawn.refused) == [7], drawn.refused
    return [(group.first, group.trace) for group in drawn.groups]


def lots(rows: int = 1003) -> js.Dataset:
    """A decay of many rows, of which a few are not used."""
    rng, t = np.random.default_rng(2), np.linspace(0.0, 5.0, rows)
    y = 3 * np.exp(-t / 1.3) + 0.05 * rng.standard_normal(rows)
    return js.Dataset(t, y, js.Diagonal(np.full(rows, 0.05)), mask=np.arange(rows) % 17 > 0)


def told(solution: js.Solution) -> list:
    """What a fit says; not the decrement, which is noise of roundings at an optimum."""
    return [solution.y, solution.covariance, solution.cost, solution.num_data, solution.dof, solution.num_steps]


def rows(mesh, folder):
    """fit of one data set whose rows are shared, in chunks."""
    return told(js.fit(Decay(1.0, 1.0), lots(), chunk=50, loss=js.Huber(2.0), mesh=mesh))


def streamed(mesh, folder):
    """fit of a data set that is read from files, block by block."""
    data = lots()
    stream = js.StreamedDataset(data.inputs, data.observed, data.noise.sigma, mask=data.mask, chunk=64)
    return told(js.fit(Decay(1.0, 1.0), stream, mesh=mesh))


FREQUENCIES = np.array([40.0, 78.0, 119.0, 195.0, 280.0])


def sky(npix: int = 12 * 32**2) -> np.ndarray:
    """Maps of CMB and dust in five channels."""
    rng = np.random.default_rng(3)
    mixing = np.asarray(compsep.MixingMatrix(cmb=compsep.CMB(), dust=dust()).eval(FREQUENCIES))
    amplitudes = np.stack([rng.normal(0, 3, npix), rng.normal(100, 10, npix)])
    return (mixing @ amplitudes)[:, None] + rng.normal(0, 0.1, (5, 1, npix))


def dust() -> compsep.ModifiedBlackBody:
    """Dust whose beta alone is fitted."""
    return compsep.ModifiedBlackBody(1.54, 20.0)


def pixels(mesh, folder):
    """separate, each pixel by itself."""
    mixing, maps = compsep.MixingMatrix(cmb=compsep.CMB(), dust=dust()), sky()
    free, noise = ("dust.beta",), np.full(5, 100.0)
    found = compsep.separate(
        mixing, FREQUENCIES, maps, free=free, patches=np.arange(maps.shape[2]), inv_n=noise, mesh=mesh
    )
    return [found.values, found.std, found.amplitudes, found.errors, found.chi2, found.steps]


def blocks(mesh, folder):
    """separate_blocks, from a file to files."""
    mixing, maps = compsep.MixingMatrix(cmb=compsep.CMB(), dust=dust()), sky()
    free, noise = ("dust.beta",), np.full(5, 100.0)
    stored = compsep.separate_blocks(mixing, FREQUENCIES, maps, folder, free=free, inv_n=noise, block=1500, mesh=mesh)
    return [np.array(x) for x in stored[:9]]


def free_particles(mesh, folder):
    """evolve of particles that do not see each other: their positions."""
    sde = evolution.SDE(lambda t, x: -x, 0.7)
    start = evolution.Ensemble(np.random.default_rng(1).normal(size=51), np.ones(51), key=1)
    return evolution.evolve(sde, start, np.linspace(0, 1, 13), mesh=mesh).ensemble.positions


def drawn_together(mesh, folder):
    """evolve of particles that are drawn to their mean."""
    pull = evolution.Interaction(lambda t, x, crowd: crowd.mean - x, evolution.Moments())
    start = evolution.Ensemble(np.random.default_rng(1).normal(size=51), np.ones(51), key=1)
    found = evolution.evolve(evolution.SDE(pull, 0.5), start, np.linspace(0, 1, 13), mesh=mesh)
    return [found.ensemble.positions, found["moments"].mean]


def correlation(mesh, folder):
    """correlate, with two-time maps."""
    movie = np.random.default_rng(4).poisson(1.5, (40, 12, 10)).astype(np.uint8)
    labels = 1 + (np.arange(120) % 2).reshape(12, 10)
    found = xpcs.correlate(movie, labels, two_time=[1, 2], tile=8, block=8, mesh=mesh)
    return [found.g2, found.error, found.image, found.intensity, found.two_time[1].C, found.two_time[2].C]


DOORS: dict[str, Callable] = {
    "failed": failed,
    "fit_batch small": small_fits,
    "resumed": resumed,
    "killed": killed,
    "fit_batch": fits,
    "sample": posteriors,
    "fit rows": rows,
    "fit stream": streamed,
    "evolve": free_particles,
    "evolve interacting": drawn_together,
    "correlate": correlation,
    "separate": pixels,
    "separate_blocks": blocks,
}


def main(out: Path, kind: str, names: list[str]) -> None:
    """Run the doors "alone" or on a "mesh" of all devices, and write what they gave."""
    found = {}
    for name in names:
        folder = out.parent / f"{name}-{kind}".replace(" ", "-")
        folder.mkdir(exist_ok=True)
        begin = time.perf_counter()
        arrays = numbers(DOORS[name](None if kind == "alone" else js.mesh(), folder))
        found[f"{name}/wall"] = np.array(time.perf_counter() - begin)
        found |= {f"{name}/{k}": x for k, x in enumerate(arrays)}
        print(name, kind, float(found[f"{name}/wall"]), flush=True)
    np.savez(out, **found)


if __name__ == "__main__":
    js.enable_x64()
    Checkpoint.__init__.__kwdefaults__["every"] = 0.0  # these jobs are shorter than the time between two writes
    if "JAX_NUM_PROCESSES" in os.environ:
        js.start_hosts()
    main(Path(sys.argv[1].format(rank=jax.process_index())), sys.argv[2], sys.argv[3:])
