"""Area `particles`: a density from particles beside NumPy, KDEpy, torch, a bare scan and C; known answers; games.

The problem that is timed is that of `_particles_peers`: a drift that is looked up, walls that turn back, a density at
each of 50 times. What an older design of this solver predicted stands beside what was measured, and "not measured"
where there is no such device.
"""

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

import jaxsci as js
from jaxsci.evolution import (
    SDE,
    Diffrax,
    Draw,
    Ensemble,
    EulerMaruyama,
    Field,
    Heun,
    Milstein,
    Multiplicative,
    Platen,
    SquareRoot,
    Step,
    evolve,
)
from jaxsci.meanfield import (
    Attraction,
    Box,
    Constant,
    DoubleWell,
    Gaussian,
    Geometric,
    Grid,
    OrnsteinUhlenbeck,
    SpectralKDE,
    Washboard,
    exit_times,
)
from jaxsci.meanfield._bandwidth import Scott
from jaxsci.meanfield._capabilities import capabilities, kernels, operations
from jaxsci.meanfield._costs import estimate
from jaxsci.meanfield._density import DenseKDE
from jaxsci.meanfield._game import MeanFieldGame, solve_game
from jaxsci.meanfield._select import choose, evolve_density

from . import _particles_peers as peers
from ._harness import Area, Row, Timing, at_least, at_most, case, counting_compiles, faster, race, timing_rows

js.enable_x64()

AREA: Area = []
_DATA = Path(__file__).resolve().parents[1].parent / "shared" / "data" / "meanfield"
_MFGARCHON = 7.5
"""Seconds of mfgarchon for the problem of `particles` with 50,000 particles, as stored: it cannot be installed here."""

_MISSING = f"not run: {_DATA} is not there"


def staged(name: str) -> Any:
    """Known answers."""
    return np.load(_DATA / f"{name}.npz")


def known(name: str) -> Callable[..., Any]:
    """As the harness's, for functions that need the staged answers."""

    def declare(run: Callable[[bool], Iterator[Row]]) -> Callable[[bool], Iterator[Row]]:
        def guarded(quick: bool) -> Iterator[Row]:
            if _DATA.exists():
                yield from run(quick)
            else:
                yield Row(name, note=_MISSING)

        case(AREA, name)(guarded)
        return run

    return declare


# --- the density of an evolving ensemble ---------------------------------------------------------------------------


def agreement(name: str, n: int, precision: str) -> Iterator[Row]:
    """The values at the last time beside the sum of all kernels on the same particles."""
    ensemble, kde = Ensemble(jnp.asarray(peers.start(n, precision))), SpectralKDE(peers.grid(), Scott())
    found = evolve(peers.sde(), ensemble, peers.times(), key=1, save={"density": kde}, every=None)
    dense = DenseKDE(peers.grid(), Scott())
    ended = jax.tree_util.tree_map(lambda x: x.astype(jnp.float64), found.ensemble)
    right = dense.evaluate(eqx.filter_jit(dense.deposit)(ended.positions, ended.weights)).values
    off = float(jnp.max(jnp.abs(found["density"].values[-1] - right)) / jnp.max(right))
    yield Row(f"{name}: from DenseKDE", off, "of the peak", n=n, precision=precision, bar=at_most(1e-4))
    if not peers.torch_missing() and precision == "float64":
        theirs = peers.torch_density(
            np.asarray(found.ensemble.positions[:, 0]), float(found["density"].bandwidth[-1, 0])
        )
        off = float(np.abs(np.asarray(found["density"].values[-1]) - theirs).max() / theirs.max())
        yield Row(f"{name}: from torch's density", off, "of the peak", n=n, bar=at_most(1e-12))


@case(AREA, "particles")
def particles(quick: bool) -> Iterator[Row]:
    """50 steps on 100 cells with a density at each time; threefry."""
    n, torch = 4_000 if quick else 50_000, peers.torch_missing()
    for precision in ("float64",) if quick else ("float64", "float32"):
        name = f"particles, {precision}"
        runners = {"ours": peers.ours(n, precision)}
        if precision == "float64":
            runners["NumPy dense"] = peers.numpy_dense(n)
            runners |= {"NumPy + KDEpy 1.1.12": peers.kdepy(n)} if peers.found("KDEpy") else {}
        if not torch:
            runners["torch eager"] = peers.torch_spectral(n, precision, False)
            if not peers.compiler_missing():
                runners["torch.compile"] = peers.torch_spectral(n, precision, True)
        bars = {"NumPy dense": faster(40), "torch eager": faster(2)} if precision == "float64" else {}
        bars |= {"torch.compile": faster(1)} if precision == "float32" else {}
        timed = race(runners, repeats=3 if quick else 5, seconds=8)
        if len(runners) > 1:
            yield from timing_rows(name, timed, {} if quick else bars, unit="ms", n=n, precision=precision)
        else:
            yield own_row(name, timed["ours"], n, precision)
        if precision == "float64" and "NumPy + KDEpy 1.1.12" not in runners:
            yield Row(name, peer="NumPy + KDEpy 1.1.12", note="not run: needs KDEpy")
        if torch:
            yield Row(name, peer="torch eager, torch.compile", note=torch)
        elif peers.compiler_missing():
            yield Row(name, peer="torch.compile", note=peers.compiler_missing())
        if precision == "float64" and not quick:
            yield stored_row(timed["ours"], n)
        yield from agreement(name, n, precision)


def stored_row(timing: Timing, n: int) -> Row:
    """Beside a time that was measured elsewhere: the package is not to be had from the index."""
    return Row(
        "particles, float64",
        timing.cpu * 1e3,
        "ms",
        "mfgarchon (stored)",
        _MFGARCHON * 1e3,
        n,
        wall=timing.wall * 1e3,
        bar=faster(100),
        note="its time is stored: measured once on another day and machine",
    )


def own_row(name: str, timing: Timing, n: int, precision: str = "float64", **about: Any) -> Row:
    """A row without a peer."""
    return Row(
        name,
        timing.cpu * 1e3,
        "ms",
        n=n,
        precision=precision,
        cold=timing.cold,
        wall=timing.wall * 1e3,
        compiles=timing.compiles,
        again=timing.again,
        **about,
    )


@case(AREA, "loop")
def loop(quick: bool) -> Iterator[Row]:
    """`evolve` beside a bare `lax.scan` of the same algorithm, and a solver of diffrax as its stepper."""
    import diffrax

    n = 4_000 if quick else 50_000
    for precision in ("float64",) if quick else ("float64", "float32"):
        runners = {
            "ours": peers.ours(n, precision),
            "bare lax.scan": peers.bare_scan(n, precision),
            "evolve, diffrax.Euler": peers.ours(n, precision, stepper=Diffrax(diffrax.Euler())),
        }
        # a small run is Python's own time for the most part
        bars = {} if quick else {"bare lax.scan": faster(1 / 1.2)}
        yield from timing_rows(f"loop, {precision}", race(runners), bars, unit="ms", n=n, precision=precision)


@case(AREA, "estimators")
def estimators(quick: bool) -> Iterator[Row]:
    """The sum over all pairs, beside what an older design predicted of it on several devices."""
    n = 1_000 if quick else 50_000
    runners = {
        "ours": peers.bare_scan(n, "float64", "dense"),
        "NumPy": peers.numpy_dense(n),
    }
    about = "older design: 1.5x, JAX CPU over NumPy, one formula in both"
    yield from timing_rows("dense formula, JAX", race(runners, repeats=3), {}, unit="ms", n=n, note=about)
    if not quick:
        timed = race({"ours": peers.ours(n, kde=DenseKDE(peers.grid(), Scott()))}, repeats=3, seconds=1)["ours"]
        yield own_row("DenseKDE", timed, n, note="means over cells, five images: the oracle")
    predicted = {"JAX CUDA": "4.5x", "torch CUDA": "3.0x", "torch MPS": "1.83x", "own CUDA": "8-10x"}
    for backend, factor in predicted.items():
        yield Row(f"older design: {backend}, {factor} NumPy", note="not measured: no such device")


@case(AREA, "plain C")
def plain_c(quick: bool) -> Iterator[Row]:
    """A particle-step with its density, in chunks that are drawn, beside a loop in C with a cheaper generator."""
    n, chunk, ts = 2**15 if quick else 2**20, 2**14, peers.times()
    limits = {20: 2.3} if quick else {20: 2.3, 13: 1.7}
    begin = jax.tree_util.tree_map(lambda x: x.astype(jnp.float32), Gaussian(1.0, 0.5, peers.grid().box))
    of, keep = peers.sde(), {"density": SpectralKDE(peers.grid(), Scott())}
    with peers.naive_c(n) as theirs:
        if theirs is None:
            yield Row("particle-step", note="not run: needs a C compiler")
            return
        runners: dict[str, Callable[[], Any]] = {"C": theirs}
        for rounds in limits:
            runners[f"{rounds}"] = lambda rounds=rounds: (
                evolve(of, Draw(begin, n, 1), ts, save=keep, chunk=chunk, rounds=rounds)["density"].values
            )
        timed = race(runners, repeats=5, seconds=6)
    for rounds, limit in limits.items():
        mine, each = timed[f"{rounds}"], 1e9 / (n * peers.STEPS)
        bar, note = None if quick else faster(1 / limit), f"Threefry of {rounds} rounds; C: a cheap hash"
        yield Row(
            f"particle-step, {rounds} rounds",
            mine.cpu * each,
            "ns",
            "C",
            timed["C"].cpu * each,
            n,
            "float32",
            mine.cold,
            mine.wall * each,
            mine.compiles,
            mine.again,
            bar,
            note,
        )


@case(AREA, "many particles", slow=True)
def many(quick: bool) -> Iterator[Row]:
    """Drawn in chunks, each in a process of its own: time with compilation, and the most memory it ever held."""
    held = {}
    for n in (10**6, 10**7, 10**8):
        seen = peers.in_own_process("drawn", str(n), "16384", "float32")
        held[n], each = seen["mebibytes"], 1e9 / (n * peers.STEPS)
        name = f"drawn in chunks, n = {n:.0e}"
        yield Row(name, seen["cpu"] * each, "ns a particle-step", n=n, precision="float32", wall=seen["wall"] * each)
        bar = at_most(1e9 / 2**20) if n == 10**8 else None
        yield Row(f"{name}: peak memory", held[n], "MiB", n=n, precision="float32", bar=bar)
    grown = held[10**8] / held[10**6]
    yield Row("drawn in chunks: memory, 1e8 over 1e6", grown, n=10**8, precision="float32", bar=at_most(1.05))


@case(AREA, "scaling", slow=True)
def scaling(quick: bool) -> Iterator[Row]:
    """Time over the number of particles, of cells, and of steps."""
    base = {"n": 20_000, "cells": 100, "steps": 50}

    def timed(n: int, cells: int, steps: int) -> Timing:
        of, ts = peers.sde(cells, steps), peers.times(steps)
        keep, ensemble = {"density": SpectralKDE(peers.grid(cells), Scott())}, Ensemble(jnp.asarray(peers.start(n)))
        run = lambda: evolve(of, ensemble, ts, key=1, save=keep)["density"].values  # noqa: E731
        return race({"ours": run}, repeats=5, seconds=2)["ours"]

    first = timed(**base)
    yield own_row("scaling: n = {n}, {cells} cells, {steps} steps".format(**base), first, base["n"])
    for what, factors in {"n": (4, 16), "cells": (4,), "steps": (4,)}.items():
        for factor in factors:
            there = base | {what: base[what] * factor}
            note = f"{factor} times the {what}"
            found = timed(**there)
            name = "scaling: n = {n}, {cells} cells, {steps} steps".format(**there)
            yield own_row(name, found, there["n"], note=f"{note}: {found.cpu / first.cpu:.3g} times as long")


@case(AREA, "shares")
def shares(quick: bool) -> Iterator[Row]:
    """How much of the time is the density, how much the drift's interpolation."""
    n, ts = 4_000 if quick else 50_000, peers.times()
    ensemble, of = Ensemble(jnp.asarray(peers.start(n))), peers.sde()
    still, keep = SDE(Constant(jnp.zeros(())), 1.0, of.domain), {"density": SpectralKDE(peers.grid(), Scott())}
    timed = race(
        {
            "all": lambda: evolve(of, ensemble, ts, key=1, save=keep),
            "no density": lambda: evolve(of, ensemble, ts, key=1, save={}),
            "no drift": lambda: evolve(still, ensemble, ts, key=1, save={}),
        }
    )
    whole, plain, still_time = (timed[k].cpu for k in ("all", "no density", "no drift"))
    parts = {"density": whole - plain, "interpolation": plain - still_time, "rest": still_time}
    for (what, seconds), older in zip(parts.items(), (70, 15, 15)):
        yield Row(f"share of {what}", 100 * seconds / whole, "%", n=n, note=f"older design: {older} %")


# --- compilation ---------------------------------------------------------------------------------------------------


@case(AREA, "compilation")
def compilation(quick: bool) -> Iterator[Row]:
    """First call against later ones, kernels before and after fusion, programs over a sweep of sizes."""
    n, of, ts = 2_000, peers.sde(), peers.times()
    keep = {"density": SpectralKDE(peers.grid(), Scott())}

    def run(ensemble: Ensemble) -> Any:
        return evolve(of, ensemble, ts, key=1, save=keep)["density"].values

    timed = race({"ours": lambda: run(Ensemble(jnp.asarray(peers.start(n + 1))))}, repeats=3)["ours"]
    yield Row("first call over later ones", timed.cold / timed.cpu, "x", n=n, cold=timed.cold, wall=timed.wall * 1e3)
    lowered = jax.jit(run).lower(Ensemble(jnp.asarray(peers.start(n))))
    before, after = operations(lowered.as_text()), kernels(lowered.compile().as_text())
    note = f"of {before} operations; older design: 400 to 50-100"
    yield Row("kernels after fusion", after, "kernels", n=n, bar=at_most(100), note=note)
    yield from sweep(run)


def sweep(run: Callable[[Ensemble], Any]) -> Iterator[Row]:
    """Numbers of particles that are filled up to one size, 5120: the first of them, and those that come after."""
    sizes = (5001, 5017, 5050, 5101)
    ensembles = [Ensemble(jnp.asarray(peers.start(size))) for size in sizes]
    counts, seconds = [], []
    for ensemble in ensembles:
        began = time.process_time()
        with counting_compiles() as seen:
            jax.block_until_ready(run(ensemble))
        counts.append(len(seen))
        seconds.append(time.process_time() - began)
    note = f"n of {list(sizes)}; the first {counts[0]}; then the copies in and out"
    yield Row("programs for another n of a bucket", max(counts[1:]), n=sizes[-1], bar=at_most(2), note=note)
    note = f"{seconds[0]:.2g} s, then {max(seconds[1:]):.2g} s"
    yield Row("first call with another n, over the first of all", max(seconds[1:]) / seconds[0], "x", note=note)


# --- what must hold ------------------------------------------------------------------------------------------------


@case(AREA, "one density however it is cut")
def one_density(quick: bool) -> Iterator[Row]:
    """Chunks, and two devices of this host, in a process of its own."""
    n = 4_000 if quick else 20_000
    ways = "2" if quick else "4"
    seen = peers.in_own_process("cut", str(n), ways, flags="--xla_force_host_platform_device_count=2")
    for way, off in seen.items():
        yield Row(f"cut into {way}: off", off, "of the peak", n=n, bar=at_most(1e-12))


@case(AREA, "rates")
def rates(quick: bool) -> Iterator[Row]:
    """Weak orders in the step, by quadrature over the normal numbers, which leaves no chance; and that in n."""
    orders = {EulerMaruyama(): 0.9, Heun(): 1.9, Platen(): 1.9}
    for stepper, least in orders.items():
        if not quick or isinstance(stepper, Heun):
            name, note = f"weak order of {type(stepper).__name__}", "E x^2 of a nonlinear drift, 2, 4 and 8 steps"
            yield Row(name, weak_order(stepper), bar=at_least(least), note=note)
    if not quick:
        yield Row("rate in n", rate_in_n(), bar=at_most(-0.4), note="of the mean's error, 64 draws; n^-1/2 is right")


def weak_order(stepper: Any) -> float:
    """From E x^2 after 2, 4 and 8 steps of a quarter of time in all, with five points for each number."""
    of, whole = SDE(Washboard(jnp.asarray(1.0), jnp.asarray(0.0)), 0.5), 0.25
    z, weight = np.polynomial.hermite_e.hermegauss(5)
    weight = weight / weight.sum()

    @jax.jit
    def advance(x: Any, w: Any, dt: Any) -> Any:
        normal = jnp.tile(jnp.asarray(z), x.size)[:, None]
        x, w = jnp.repeat(x, z.size), (w[:, None] * weight).reshape(-1)
        field = Field(of, w, lambda tree: tree)
        return stepper.step(field, Step(jnp.zeros(()), dt), x[:, None], normal)[:, 0], w

    def expectation(steps: int) -> float:
        x, w = jnp.asarray([1.0]), jnp.ones(1)
        for _ in range(steps):
            x, w = advance(x, w, jnp.asarray(whole / steps))
        return float(jnp.sum(w * x * x))

    coarse, middle, fine = (expectation(steps) for steps in (2, 4, 8))
    return float(np.log2(abs(coarse - middle) / abs(middle - fine)))


def rate_in_n() -> float:
    """The slope of the logarithm of the root mean square error of a mean, over that of n, 200 and 12800."""
    of, ts = SDE(OrnsteinUhlenbeck(jnp.asarray(1.0), jnp.asarray(0.0)), 1.0), np.linspace(0, 0.5, 11)
    keys = jax.random.key_data(jax.random.split(jax.random.key(3), 64))

    def off(n: int) -> float:
        found = jax.vmap(lambda key: evolve(of, Ensemble(jnp.ones(n)), ts, key=key, every=None)["moments"].mean)(keys)
        return float(jnp.sqrt(jnp.mean((found - 0.95**10) ** 2)))

    return float(np.log(off(12_800) / off(200)) / np.log(64))


@case(AREA, "gradient")
def gradient(quick: bool) -> Iterator[Row]:
    """The derivative of a functional of the last density by all parameters, in reverse."""
    n, ts = 4_000 if quick else 50_000, peers.times()
    ensemble, kde, box = Ensemble(jnp.asarray(peers.start(n))), SpectralKDE(peers.grid(), 0.2), peers.grid().box

    def value(theta: Any) -> Any:
        of = SDE(OrnsteinUhlenbeck(theta[0], theta[1]), theta[2], box)
        found = evolve(of, ensemble, ts, key=1, save={"density": kde}, every=None)["density"]
        return jnp.sum(found.values[-1] ** 2)

    theta, forward, reverse = jnp.asarray([1.0, 0.0, 1.0]), jax.jit(value), jax.jit(jax.value_and_grad(value))
    timed = race({"ours": lambda: reverse(theta), "forward": lambda: forward(theta)})
    bar = None if quick else faster(1 / 3)
    yield from timing_rows("gradient in reverse", timed, {"forward": bar}, unit="ms", n=n, note="at most 3x forward")
    step, k = 1e-5, jnp.asarray([1.0, 0.0, 0.0])
    plain = (forward(theta + step * k) - forward(theta - step * k)) / (2 * step)
    off = abs(float(reverse(theta)[1][0] / plain) - 1)
    yield Row("gradient in reverse: from differences", off, "relative", n=n, bar=at_most(1e-4))


def box_of(lower: float, upper: float, wall: Any = "reflecting") -> Box:
    """A line with walls."""
    return Box(lower, upper, wall)


def number(x: Any) -> Any:
    """As an array."""
    return jnp.asarray(float(x))


def double_well(c: Any) -> tuple[SDE, Gaussian, Any]:
    """Two wells."""
    a, b, s, m0, s0, _ = c["params"]
    box = box_of(-3, 3)
    return SDE(DoubleWell(number(a), number(b)), s, box), Gaussian(m0, s0, box), Heun()


def heat(c: Any) -> tuple[SDE, Gaussian, Any]:
    """No drift."""
    s, x0, s0, _ = c["params"]
    box = box_of(0, 1)
    return SDE(Constant(number(0)), s, box), Gaussian(x0, s0, box), Heun()


def drifting(wall: Any) -> Callable[[Any], tuple[SDE, Gaussian, Any]]:
    """The same drift everywhere, between walls of a kind."""

    def make(c: Any) -> tuple[SDE, Gaussian, Any]:
        mu, s, m0, s0, _ = c["params"]
        box = box_of(0, 1, wall)
        return SDE(Constant(number(mu)), s, box), Gaussian(m0, s0, box), Heun()

    return make


def cir(c: Any) -> tuple[SDE, Gaussian, Any]:
    """Noise as the root of x."""
    k, theta, s, m0, s0, _ = c["params"]
    box = box_of(0, 4)
    return SDE(lambda t, x: k * (theta - x), SquareRoot(s), box), Gaussian(m0, s0, box), EulerMaruyama()


def washboard(c: Any) -> tuple[SDE, Gaussian, Any]:
    """A circle."""
    amplitude, force, s, m0, s0, _ = c["params"]
    box = box_of(0, 2 * np.pi, "periodic")
    return SDE(Washboard(number(amplitude), number(force)), s, box), Gaussian(m0, s0, box), Heun()


_STAGED = {
    "double_well": (double_well, 200),
    "heat_reflecting": (heat, 1000),
    "const_drift_reflecting": (drifting("reflecting"), 1000),
    "const_drift_absorbing": (drifting("absorbing"), 200),
    "const_drift_periodic": (drifting("periodic"), 100),
    "cir": (cir, 400),
    "washboard_periodic": (washboard, 200),
}


def mean_row(name: str, away: float, n: int, note: str) -> Row:
    """How many standard errors a mean is from the right one."""
    return Row(f"known answer {name}: mean", float(away), "s.e.", n=n, bar=at_most(4), note=note)


@known("known answers: means")
def known_means(quick: bool) -> Iterator[Row]:
    """How many standard errors the mean is from the staged one; on a circle, that of the sine and the cosine."""
    n = 5_000 if quick else 100_000
    for name, (make, steps) in list(_STAGED.items())[: 1 if quick else None]:
        c = staged(name)
        of, start, stepper = make(c)
        ts = np.linspace(0, float(c["t"][-1]), steps + 1)
        found = evolve(of, start.ensemble(n, 11), ts, stepper=stepper, every=None)
        x, w = np.asarray(found.ensemble.positions[:, 0]), np.asarray(found.ensemble.weights)
        exact = c["p"][-1] / c["p"][-1].sum()
        away = []
        for of_x in (np.sin, np.cos) if of.domain.walls_of_axes[0][0] == "periodic" else (np.asarray,):
            turned = 2 * np.pi / float(of.domain.width[0]) if of_x is not np.asarray else 1.0
            mine, wanted = np.sum(w * of_x(turned * x)) / w.sum(), np.sum(exact * of_x(turned * c["x"]))
            spread = np.sqrt(np.sum(w**2 * (of_x(turned * x) - mine) ** 2)) / w.sum()
            away.append(abs(mine - wanted) / spread)
        yield mean_row(name, max(away), n, f"{steps} steps")
    yield from chains(n)
    if not quick:
        yield from with_noise_of_its_own(n)


def chains(n: int) -> Iterator[Row]:
    """Moments of which nothing but the draw is left: those of the chain of steps itself."""
    c = staged("ou_and_mckean_vlasov_moments")
    theta, mu, s, m0, v0, end, alpha = c["params"]
    x0, ts = m0 + np.sqrt(v0) * np.random.default_rng(0).normal(size=n), np.linspace(0, end, 51)
    drifts = {
        "ou": OrnsteinUhlenbeck(number(theta), number(mu)),
        "mckean_vlasov": Attraction(number(theta), number(mu), number(alpha)),
    }
    for name, drift in drifts.items():
        m = evolve(SDE(drift, s), Ensemble(x0, key=1), ts, every=None)["moments"]
        # the mean of all stays where it is in McKean and Vlasov's equation, with that of the draw
        away = abs(float(m.mean[-1, 0]) - c["em50_mean"][-1]) / float(m.standard_error[-1, 0])
        yield mean_row(name, away, n, "the chain of 50 steps")


def with_noise_of_its_own(n: int) -> Iterator[Row]:
    """Noise that depends on x, or is a matrix."""
    c = staged("gbm")
    mu, s, x0, s0, end = c["params"]
    of = SDE(Geometric(number(mu)), Multiplicative(lambda t, x: s * x))
    start = Ensemble(x0 * np.exp(s0 * np.random.default_rng(3).normal(size=n)), key=1)
    m = evolve(of, start, np.linspace(0, end, 201), every=None)["moments"]
    away = abs(float(m.mean[-1, 0]) - float(c["mean"])) / float(m.standard_error[-1, 0])
    yield mean_row("gbm", away, n, "200 steps")
    c = staged("cases/multiplicative")
    of = SDE(Geometric(number(c["mu"])), Multiplicative(lambda t, x: c["s"] * x))
    ts = np.linspace(0, float(c["T"]), int(c["nt"]) + 1)
    for name, stepper in (("euler_maruyama", EulerMaruyama()), ("milstein", Milstein())):
        m = evolve(of, Ensemble(np.full(n, c["x0"]), key=2), ts, every=None, stepper=stepper)["moments"]
        away = abs(float(m.mean[-1, 0]) - c[name][0]) / float(m.standard_error[-1, 0])
        note = f"the chain of {c['nt']} steps"
        yield mean_row(f"Ito, {name}", away, n, note)
    c = staged("cases/cir_touching_zero")
    of = SDE(OrnsteinUhlenbeck(number(c["k"]), number(c["theta"])), SquareRoot(float(c["s"])))
    m = evolve(of, Ensemble(np.full(n, c["x0"]), key=9), np.linspace(0, float(c["T"]), 261), every=None)["moments"]
    beyond = max(abs(float(m.mean[-1, 0]) - c["mean"]) - 0.03 * c["mean"], 0) / float(m.standard_error[-1, 0])
    note = "260 steps; what is beyond 3 %"
    yield mean_row("cir at zero", beyond, n, note)
    c = staged("cases/anisotropic")
    a, rng = jnp.asarray(c["A"]), np.random.default_rng(5)
    start = Ensemble(rng.multivariate_normal(c["m0"], c["C0"], n), key=3)
    ts = np.linspace(0, float(c["T"]), int(c["nt"]) + 1)
    m = evolve(SDE(lambda t, x: -a @ x, c["S"]), start, ts, every=None)["moments"]
    away = np.abs(np.asarray(m.mean[-1]) - c["em_mean"]) / np.asarray(m.standard_error[-1])
    yield mean_row("anisotropic", away.max(), n, "a matrix as noise")


@known("exits")
def exits(quick: bool) -> Iterator[Row]:
    """What is left between absorbing walls after ten steps, and by which wall the rest has left."""
    n = 20_000 if quick else 400_000
    c = staged("const_drift_absorbing")
    of, start, _ = drifting("absorbing")(c)
    ts = np.linspace(0, float(c["t"][-1]), 11)
    found = evolve(of, start.ensemble(n, 4), ts, every=None)
    left = float(found["moments"].mass[-1]) / n
    off = float(abs(left / float(c["mass"][-1]) - 1))
    note = "10 steps; Euler without the bridge +87 %"
    limit = at_most(0.05 if quick else 0.01)
    yield Row("survival between absorbing walls: off", off, "relative", n=n, bar=limit, note=note)
    gone = float(jnp.sum(found.exits)) / n
    yield Row("survival + exits - 1", float(abs(left + gone - 1)), n=n, bar=at_most(1e-12))
    if quick:
        return
    c = staged("cases/two_exits")
    box = Box(0.0, float(c["L"]), "absorbing")
    ts = np.linspace(0, float(c["times"][-1]), 11)
    found = evolve(SDE(Constant(number(c["mu"])), float(c["s"]), box), Ensemble(np.full(n, c["x0"]), key=7), ts)
    right = float(jnp.sum(found.exits[:, 1])) / n
    off = abs(right / float(c["exit_right_by"][-1]) - 1)
    yield Row("exits to the right: off", off, "relative", n=n, bar=limit, note="10 steps")
    ts = np.linspace(0, 6, 11)
    found = evolve(SDE(Constant(number(c["mu"])), float(c["s"]), box), Ensemble(np.full(n, c["x0"]), key=7), ts)
    off = abs(float(exit_times(found, ts).overall) / float(c["mean_exit_time"]) - 1)
    yield Row("mean exit time: off", off, "relative", n=n, bar=limit, note="10 steps, until hardly any is left")


# --- games ---------------------------------------------------------------------------------------------------------


def crowd1d(c: Any) -> MeanFieldGame:
    """Agents that avoid each other on a line."""
    x = c["x"]
    return _line(c, np.cos(2 * np.pi * x), 4 * (x - 0.7) ** 2)


def towel1d(c: Any) -> MeanFieldGame:
    """Towels on a beach."""
    return _line(c, 3 * (c["x"] - 0.8) ** 2, 0 * c["x"])


def _line(c: Any, running: np.ndarray, terminal: np.ndarray) -> MeanFieldGame:
    return MeanFieldGame(
        Grid(Box(0.0, 1.0), len(c["x"])),
        c["t"],
        c["m"][0],
        diffusion=float(c["sigma"]) ** 2 / 2,
        running=running,
        coupling=float(c["c"]),
        terminal=terminal,
    )


def crowd2d(c: Any) -> MeanFieldGame:
    """On a plane."""
    x = c["x"]
    return MeanFieldGame(
        Grid(Box(jnp.zeros(2), jnp.ones(2)), (len(x), len(x))),
        np.linspace(0, float(c["T"]), 17),
        c["m"][0],
        diffusion=float(c["sigma"]) ** 2 / 2,
        running=np.cos(2 * np.pi * x)[:, None] * np.cos(np.pi * x)[None],
        coupling=float(c["c"]),
        terminal=2 * ((x - 0.8)[:, None] ** 2 + (x - 0.7)[None] ** 2),
    )


def linear_quadratic(c: Any, cells: int) -> tuple[MeanFieldGame, np.ndarray]:
    """A game on the line whose density is Gaussian at each time: the game, and that density at its times."""
    q, s, end, s_end, sigma, m0, v0, _ = c["params"]
    low = min(c["mean"].min(), 0) - 6 * np.sqrt(c["var"].max())
    high = max(c["mean"].max(), 0) + 6 * np.sqrt(c["var"].max())
    grid = Grid(Box(low, high), cells)
    x, t = np.asarray(grid.centres()), c["t"]
    path = np.exp(-((x - c["mean"][:, None]) ** 2) / (2 * c["var"][:, None]))
    path /= path.sum(axis=1, keepdims=True) * float(grid.volume)
    game = MeanFieldGame(
        grid,
        t,
        path[0],
        diffusion=float(sigma) ** 2 / 2,
        coupling=lambda x, m, field: q / 2 * jnp.sum((x - s * field.mean) ** 2),
        terminal_coupling=lambda x, m, field: end / 2 * jnp.sum((x - s_end * field.mean) ** 2),
    )
    del m0, v0
    return game, path


@known("games")
def games(quick: bool) -> Iterator[Row]:
    """Maps until the residual is 1e-8, and how far the density is from the staged one."""
    makers = {"crowd1d": crowd1d, "towel1d": towel1d, "crowd2d": crowd2d}
    for name, make in list(makers.items())[: 1 if quick else None]:
        c = staged(f"mfg_{name}")
        game = make(c)
        every = (len(game.ts) - 1) // (len(c["t"]) - 1)
        yield from equilibrium(f"game {name}", game, c["m"], every)
    for k in () if quick else (0, 1):
        game, path = linear_quadratic(staged(f"lq_mfg_{k}"), 256)
        yield from equilibrium(f"game LQ {k}", game, path, 1)


def equilibrium(name: str, game: MeanFieldGame, reference: np.ndarray, every: int) -> Iterator[Row]:
    """Two rows of a game."""
    timing = race({"ours": lambda: solve_game(game)}, repeats=3, seconds=1)["ours"]
    found = timing.value
    note = f"residual {float(found.residual):.1e}, {timing.cpu:.3g} s"
    maps = int(found.maps) if bool(found.success) else np.nan
    size = game.grid.size
    yield Row(f"{name}: maps", maps, n=size, cold=timing.cold, again=timing.again, bar=at_most(30), note=note)
    off = np.abs(np.asarray(found.density)[::every] - reference).reshape(len(reference), -1).sum(axis=1)
    yield Row(f"{name}: L1", float(off.max() * game.grid.volume), n=size, bar=at_most(0.015), note="of all times")


# --- the selector --------------------------------------------------------------------------------------------------


@case(AREA, "selector")
def selector(quick: bool) -> Iterator[Row]:
    """What a device can do, what a run will take, and what `method="auto"` takes beside the fastest."""
    able = capabilities(crossovers=False)
    for row in able.rows:
        yield Row(f"capability: {row.name}", note=f"{row.measured}: {row.verdict}")
    if quick:
        return
    n, of, start, ts = 100_000, peers.sde(), Gaussian(1.0, 0.5, peers.grid().box), peers.times()
    said = estimate(of, n, peers.grid(), peers.STEPS, start=start)
    run = lambda: evolve_density(of, start, peers.grid(), ts, n=n, method="spectral").density  # noqa: E731
    took = race({"ours": run}, repeats=5, seconds=2)["ours"]
    off = max(said.seconds / took.cpu, took.cpu / said.seconds)
    yield Row("estimate over what it took, or less", off, n=n, bar=at_most(1.3), note=f"{said.seconds:.3g} s said")
    choice = choose(of, start, peers.grid(), ts, n=n)
    runs = {c.method: c.method for c in choice.candidates if not c.why and c.error <= choice.limit}
    timed = race(
        {m: lambda m=m: evolve_density(of, start, peers.grid(), ts, n=n, method=m).density for m in runs}, repeats=3
    )
    fastest = min(t.cpu for t in timed.values())
    each = ", ".join(f"{m} {t.cpu * 1e3:.3g} ms" for m, t in timed.items())
    ratio = timed[choice.method].cpu / fastest
    note = f"{choice.method}; {each}"
    yield Row("auto over the fastest that is as accurate", ratio, n=n, bar=at_most(1.3), note=note)
