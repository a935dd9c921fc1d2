"""What happens when things go wrong, counted: `python -m benchmarks reliability`.

Poisoned members and their neighbours, kills at random moments, damaged files, fuzzed readers, processes and devices
beside one, memory against size, programs per command, items per hour. Nothing here has a peer; each row has a bar of
its own, most of them zero. `--page docs/reliability.md` writes the table into the page that tells of it.
"""

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.tree_util as jtu
import numpy as np

import jaxsci as js
from jaxsci import compsep, timing, xpcs
from jaxsci.evolution import SDE, Ensemble, Snapshots, evolve

from . import _skies
from ._harness import Area, Row, at_least, at_most, case

AREA: Area = []
_MEMBERS, _POISONED = 10_000, 100
_COMMANDS = {  # bars are the counts of jax 0.10.2 and some room for other versions
    "bundled:quickstart.toml": 520,
    "bundled:curvefit/nist.toml": 130,
    "bundled:compsep/litebird_multires.toml": 150,
}


class Line(js.AbstractModel):
    """a exp(-b x)."""

    a: js.Scalar = js.param(bounds=(0, 100))
    b: js.Scalar = js.param(bounds=(0, 10))

    def __call__(self, x: Any) -> jax.Array:
        return self.a * jnp.exp(-self.b * x)


def _poisons(count: int, poisoned: int, seed: int = 3) -> np.ndarray:
    """The places of members that are spoilt."""
    return np.sort(np.random.default_rng(seed).choice(count, poisoned, replace=False))


def _changed(good: Any, spoilt: Any, bad: np.ndarray) -> float:
    """How many members that were not spoilt have another bit somewhere; arrays lead with members."""
    pairs = zip(jtu.tree_leaves(good), jtu.tree_leaves(spoilt), strict=True)
    different = np.zeros(len(jtu.tree_leaves(good)[0]), bool)
    for a, b in pairs:
        same = (np.asarray(a) == np.asarray(b)) | (np.isnan(a) & np.isnan(b))
        different |= ~same.reshape(len(same), -1).all(axis=1)
    different[bad] = False
    return float(different.sum())


def _values(found: js.BatchSolution) -> tuple[np.ndarray, np.ndarray]:
    """Parameters and covariances of all members of one structure, in their order."""
    order = np.argsort(np.concatenate([np.asarray(places) for places in found.members]))
    each = [(np.asarray(group.y), np.asarray(group.covariance)) for group in found.groups]
    y, covariance = (np.concatenate(parts)[order] for parts in zip(*each, strict=True))
    return y, covariance


def _isolated(science: str, n: int, changed: float, named: int, bad: np.ndarray) -> Iterator[Row]:
    yield Row(f"{science}: good members changed by {len(bad)} poisoned ones", changed, n=n, bar=at_most(0))
    yield Row(f"{science}: poisoned members told as failed", float(named), n=len(bad), bar=at_least(len(bad)))


@case(AREA, "poisoned curves")
def curves(quick: bool) -> Iterator[Row]:
    """Curves with NaN, an infinite abscissa, no row, or a sigma of zero, among ten thousand."""
    count = 1000 if quick else _MEMBERS
    rng, x = np.random.default_rng(0), np.linspace(0, 3, 20)
    y = rng.uniform(1, 5, (count, 1)) * np.exp(-rng.uniform(0.3, 2, (count, 1)) * x) + 0.01 * rng.normal(
        size=(count, 20)
    )
    bad = _poisons(count, count // 100)
    masks, sigma, inputs, broken = np.ones(y.shape, bool), np.full(y.shape, 0.01), np.tile(x, (count, 1)), y.copy()
    broken[bad[0::4], 7], inputs[bad[1::4], 3], masks[bad[2::4]], sigma[bad[3::4], 2] = np.nan, np.inf, False, 0.0

    def fitted(y: np.ndarray, x: np.ndarray, sigma: np.ndarray, mask: np.ndarray) -> js.BatchSolution:
        rows = js.Dataset(x.ravel(), y.ravel(), js.Diagonal(sigma.ravel()), mask=mask.ravel())
        return js.fit_batch(Line(2.0, 1.0), js.RaggedDataset(rows, np.arange(len(y) + 1) * y.shape[1]))

    good = fitted(y, np.tile(x, (count, 1)), np.full((count, 20), 0.01), np.ones((count, 20), bool))
    spoilt = fitted(broken, inputs, sigma, masks)
    values = [_values(found) for found in (good, spoilt)]
    yield from _isolated("curvefit", count, _changed(*values, bad), len(set(spoilt.failed) & set(bad.tolist())), bad)


@case(AREA, "poisoned q bins")
def bins(quick: bool) -> Iterator[Row]:
    """q bins whose g2 is NaN everywhere, or flat, among ten thousand."""
    count = 1000 if quick else _MEMBERS
    rng, delay = np.random.default_rng(1), np.geomspace(1e-4, 1, 32)
    tau = 10 ** rng.uniform(-3, -1, count)
    g2 = 1 + 0.2 * np.exp(-2 * delay[:, None] / tau) + 3e-3 * rng.normal(size=(32, count))
    bad = _poisons(count, count // 100)
    broken = g2.copy()
    broken[:, bad] = np.nan

    def fitted(g2: np.ndarray) -> Any:
        from ._xpcs_fits import curves_of

        return xpcs.fit_g2(curves_of(delay, g2, np.full_like(g2, 3e-3), np.linspace(0.01, 0.1, count)))

    good, spoilt = fitted(g2), fitted(broken)
    values = [_values(found) for found in (good, spoilt)]
    yield from _isolated("xpcs", count, _changed(*values, bad), len(set(spoilt.failed) & set(bad.tolist())), bad)


@case(AREA, "poisoned pixels")
def pixels(quick: bool) -> Iterator[Row]:
    """Sky pixels with a NaN, each a patch of its own, within `jax.jit`: outside of it they are named and refused."""
    nside = 16
    maps = np.asarray(_skies.maps(nside, "QU"))
    count = maps.shape[-1]
    bad, broken = _poisons(count, count // 100), maps.copy()
    broken[3, :, bad] = np.nan

    @jax.jit
    def separated(maps: jax.Array) -> Any:
        return compsep.separate(_skies.mixing(), _skies.LITEBIRD, maps, patches=nside)

    good, spoilt = separated(jnp.asarray(maps)), separated(jnp.asarray(broken))
    values = [tuple(np.asarray(f.parameter_map(name)) for name in f.free) for f in (good, spoilt)]
    told = (~np.asarray(spoilt.success))[np.asarray(spoilt.group)[bad]].sum()
    yield from _isolated("compsep", count, _changed(*values, bad), int(told), bad)


@case(AREA, "poisoned pulsars")
def pulsars(quick: bool) -> Iterator[Row]:
    """One pulsar's phases observed anew ten thousand times, through `jax.vmap`; some with a NaN among them."""
    count = 100 if quick else _MEMBERS
    model, toas = timing.bundled("NGC6440E")
    data, _ = timing.anchor(model, toas)
    rng = np.random.default_rng(2)
    phases = np.asarray(data.phase)[None] + 1e-4 * rng.normal(size=(count, len(data.phase)))
    bad, broken = _poisons(count, count // 100), phases.copy()
    broken[bad, 11] = np.nan

    @jax.jit
    def fitted(phases: jax.Array) -> Any:
        def one(phase: jax.Array) -> Any:
            found = timing.fit(model, eqx.tree_at(lambda d: d.phase, data, phase), throw=False)
            return found.fit.y, found.fit.covariance, found.success

        return jax.lax.map(one, phases, batch_size=100)

    good, spoilt = fitted(jnp.asarray(phases)), fitted(jnp.asarray(broken))
    told = int((~np.asarray(spoilt[2]))[bad].sum())
    yield from _isolated("timing", count, _changed(good[:2], spoilt[:2], bad), told, bad)


@case(AREA, "poisoned particles")
def particles(quick: bool) -> Iterator[Row]:
    """Particles that begin at NaN beside others, within `jax.jit`, where nothing can be raised."""
    count = _MEMBERS
    start = np.random.default_rng(4).normal(size=(count, 1))
    bad, broken = _poisons(count, count // 100), start.copy()
    broken[bad] = np.nan
    sde = SDE(lambda t, x: -x, 0.5)

    @jax.jit
    def moved(x: jax.Array) -> Any:
        run = evolve(sde, Ensemble(x, key=0), jnp.linspace(0.0, 1.0, 51), save={"x": Snapshots()}, every=None)
        return run["x"].positions[-1], run.lost

    good, spoilt = moved(jnp.asarray(start)), moved(jnp.asarray(broken))
    yield from _isolated("meanfield", count, _changed(good[0], spoilt[0], bad), int(spoilt[1]), bad)


def _peak(code: str, *arguments: str) -> float:
    """The largest memory of a process that runs this code, in MB."""
    code = f"{code}\nimport resource; print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3)"
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True, timeout=900
    )
    return float(done.stdout.split()[-1])


_STREAM = """
import sys, numpy as np, jax, jaxsci as js
js.enable_x64()
class Line(js.AbstractModel):
    a: js.Scalar = js.param()
    b: js.Scalar = js.param()
    def __call__(self, x):
        return self.a + self.b * x
n, piece = int(sys.argv[1]), 1 << 16
def pieces():
    for k in range(0, n, piece):
        x = np.arange(k, k + piece) / n
        yield x, 1 + 2 * x, np.full(piece, 0.1)
assert js.fit(Line(0.5, 0.5), js.StreamedDataset.from_iterator(pieces)).success
"""

_CROWD = """
import sys, jax, jax.numpy as jnp, jaxsci as js
from jaxsci import meanfield
from jaxsci.evolution import SDE, Draw, evolve
js.enable_x64()
start = Draw(meanfield.Gaussian(0.0, 1.0), n=int(sys.argv[1]), key=1)
evolve(SDE(lambda t, x: -x, 0.5), start, jnp.linspace(0.0, 1.0, 11), chunk=65536)
"""


@case(AREA, "memory against size")
def memory(quick: bool) -> Iterator[Row]:
    """The largest memory of a process that streams a hundred times as much."""
    for what, code, few, many in (
        ("rows of a streamed fit", _STREAM, 1 << 17, 1 << 23),
        ("particles in chunks", _CROWD, 1 << 17, 1 << 23),
    ):
        small, large = (_peak(code, str(n)) for n in (few, many))
        note = f"{small:.0f} MB with {few}, {large:.0f} MB with {many}"
        yield Row(f"memory of {what}, 64 times as many", large / small, "x", n=many, bar=at_most(1.2), note=note)


@case(AREA, "programs of a command")
def programs(quick: bool) -> Iterator[Row]:
    """How many programs XLA compiles (or finds in the cache) from the first line of a command to its report."""
    for config, most in _COMMANDS.items():
        with tempfile.TemporaryDirectory() as out:
            command = [sys.executable, "-m", "jaxsci", "run", config, "--out", out]
            env = {**os.environ, "JAX_LOG_COMPILES": "1"}
            done = subprocess.run(command, capture_output=True, text=True, env=env, timeout=900, check=False)
            count = done.stderr.count("Finished XLA compilation")
            assert done.returncode in (0, 3), done.stderr[-2000:]  # 3: a fit that did not end well
        yield Row(f"programs of jaxsci run {config}", float(count), bar=at_most(most))


@case(AREA, "a long-lived process", slow=True)
def long_lived(quick: bool) -> Iterator[Row]:
    """Fits of new functions and new shapes without end in one process: memory, and pieces of memory, after each."""
    import psutil

    fits = 300
    me, maps = psutil.Process(), Path("/proc/self/maps")
    seen = []
    for k in range(fits):
        _new_fit(k)
        if k % 50 == 49:
            seen.append((me.memory_info().rss / 1e6, maps.read_bytes().count(b"\n")))
    (first, _), (last, pieces) = seen[0], seen[-1]
    each = (last - first) / (fits - 50)
    note = f"{fits} fits, each a new function of a new number of rows; {pieces} pieces of memory at the end of 65,530"
    yield Row("memory that a fit of a new function leaves", each, "MB", n=fits, bar=at_most(0.5), note=note)


def _new_fit(k: int) -> None:
    from jaxsci.curvefit import curve_fit

    x = np.linspace(0, 1, 10 + k)
    steps: list[Callable[[Any], Any]] = [jnp.sin, jnp.cos, jnp.tanh, jnp.exp]

    def model(x: Any, a: Any, b: Any) -> Any:
        for bit in range(8):  # another function for each k
            x = steps[(k >> bit) & 1 if bit % 2 else 2 + ((k >> bit) & 1)](x)
        return a * x + b

    curve_fit(model, x, np.asarray(2 * x + 1), p0=(1.0, 1.0))


@case(AREA, "devices and processes", slow=True)
def devices(quick: bool) -> Iterator[Row]:
    """The same work on devices and processes beside one alone: bits of members, roundings of sums."""
    from . import _hosts

    for told in _hosts.rows():
        where = f"{told['devices']} devices" if told["processes"] == 1 else f"{told['processes']} processes"
        note = "the same bits" if told["same_bits"] else "sums: the largest relative difference"
        wall = told["wall"]
        yield Row(f"{told['door']} on {where}", told["difference"], bar=at_most(1e-12), wall=wall, note=note)


@case(AREA, "kills", slow=True)
def kills(quick: bool) -> Iterator[Row]:
    """Long commands killed by SIGKILL at random moments and gone on with, until 100 kills are over."""
    from . import _kills

    for told in _kills.rows():
        note = (
            f"{told['run to the end']} answers of the same bits; something was kept at {told['with something kept']} "
            f"of the kills; {told['seconds']:.0f} s"
        )
        yield Row(f"killed {told['command']}: lost", float(told["lost"]), n=told["kills"], bar=at_most(0), note=note)


@case(AREA, "mistakes in files")
def mistakes(quick: bool) -> Iterator[Row]:
    """What a researcher may get wrong in a file, each said with its place and with what to do."""
    import re

    from ._mistakes import MISTAKES, said_of

    with tempfile.TemporaryDirectory() as folder:
        said = [(mistake, said_of(mistake, Path(folder))) for mistake in MISTAKES]
    good = sum(bool(re.search(m.place, words) and re.search(m.remedy, words)) for m, words in said)
    note = "[each with its message](messages.md)"
    yield Row("mistakes in files told with place and remedy", good, n=len(said), bar=at_least(len(said)), note=note)


@case(AREA, "damaged checkpoints")
def damaged(quick: bool) -> Iterator[Row]:
    """Bits flipped, ends cut, stretches zeroed, files of other jobs in place: what is read without a word."""
    from . import _damage

    for told in _damage.rows(1000 if quick else 10_000):
        note = f"{told['refused']} refused, {told['gone on from the one before']} gone on from the one before"
        name = f"damaged checkpoints of {told['state']}: read as if whole"
        yield Row(name, float(told["loaded silently"]), n=told["damaged"], bar=at_most(0), note=note)


@case(AREA, "fuzzed readers", slow=True)
def fuzzed(quick: bool) -> Iterator[Row]:
    """Files of every kind, mutated: errors that are none of the reader's own, time and memory of the worst."""
    from . import _fuzz

    for told in _fuzz.rows():
        name = f"fuzzed {told['reader']}: unexpected"
        if "note" in told:
            yield Row(name, note=told["note"])
            continue
        errors = sum(told["refused"].values())
        note = f"{errors} refused by name; slowest {told['slowest_s']:.2g} s, most {told['memory_mb']:.0f} MB"
        yield Row(name, float(told["unexpected"]), n=told["cases"], bar=at_most(0), note=note)


@case(AREA, "items per hour", slow=True)
def items(quick: bool) -> Iterator[Row]:
    """Simulated pulsars, a config and a fit each, by one worker process and by two."""
    from . import _items

    for told in _items.rows():
        name = f"items of jaxsci batch, {told['workers']} worker{'s' * (told['workers'] > 1)}"
        yield Row(f"{name}: an hour", told["items per hour"], n=told["items"], note=f"{told['seconds']:.0f} s in all")
        note = f"load {told['load, ms']:.0f} ms, fit {told['fit, ms']:.0f} ms"
        yield Row(f"{name}: beside load and fit", told["beside, ms"], "ms", n=told["items"], bar=at_most(50), note=note)
