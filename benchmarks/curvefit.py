"""Area `curvefit`: accuracy and speed of single fits, long data and batches."""

import tempfile
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import jaxsci as js

from . import _nist, _peers, _problems
from ._cold import in_fresh_process
from ._harness import Area, Bar, Row, at_least, at_most, case, faster, race, timing_rows

js.enable_x64()

AREA: Area = []
_SAMPLE = 100  # of a peer's loop over a batch; its time is scaled


@case(AREA, "NIST StRD", slow=True)
def nist(quick: bool) -> Iterator[Row]:
    """Digits of the certified answers that each solver reaches, over 18 problems x 2 starts."""
    counts = {name: _nist.score(fit) for name, fit in _nist.SOLVERS.items()}
    ours = counts.pop("jaxsci")
    bars = (at_least(36), at_least(34), at_least(35))
    labels = ("parameters to 6 digits", "parameters to 9 digits", "standard errors to 6 digits")
    for label, bar, mine, *theirs in zip(labels, bars, ours, *counts.values(), strict=True):
        beside = ", ".join(f"{name} {count}" for name, count in zip(counts, theirs, strict=True))
        yield Row(f"NIST: {label}", mine, "of 36", n=36, bar=bar, note=beside)


def agreement(name: str, problem: _problems.Problem) -> Iterator[Row]:
    """Our parameters and covariance against scipy's with all tolerances at 1e-14.

    Of scipy's two methods the one with the flatter gradient counts: each stops 1e-10 short now and then.
    """
    ours = js.fit(problem.model, problem.data())
    fits = {method: _peers.scipy_fit(problem, problem.y, method, 1e-14) for method in ("trf", "lm")}
    method, (popt, pcov) = min(fits.items(), key=lambda fit: problem.slope(fit[1][0]))
    values = np.max(np.abs(np.asarray(ours.y) / popt - 1))
    sigma = np.sqrt(np.diag(pcov))
    matrix = np.max(np.abs((np.asarray(ours.covariance) - pcov) / np.outer(sigma, sigma)))
    n = problem.x.size
    yield Row(f"{name}: popt against scipy {method}, relative", float(values), n=n, bar=at_most(1e-10))
    yield Row(f"{name}: pcov against scipy {method}, relative", float(matrix), n=n, bar=at_most(1e-8))


@case(AREA, "Medium")
def medium(quick: bool) -> Iterator[Row]:
    """1000 points, 3 parameters."""
    problem = _problems.medium()
    yield from one_fit("Medium", problem, {"nlsq": faster(25)})
    yield from agreement("Medium", problem)


@case(AREA, "Large", slow=True)
def large(quick: bool) -> Iterator[Row]:
    """10000 points, 3 parameters."""
    problem = _problems.large()
    yield from one_fit("Large", problem, {"nlsq": faster(10)})
    yield from agreement("Large", problem)


@case(AREA, "10000 x 5")
def ten_thousand(quick: bool) -> Iterator[Row]:
    """10000 points, 5 parameters."""
    yield from one_fit("10000 x 5", _problems.long(10_000), _LONG)


@case(AREA, "1e6 x 5", slow=True)
def million(quick: bool) -> Iterator[Row]:
    """1e6 points, 5 parameters, in chunks."""
    yield from one_fit("1e6 x 5", _problems.long(1_000_000), _LONG, chunk=CHUNK, repeats=3)


@case(AREA, "temporaries", slow=True)
def temporaries(quick: bool) -> Iterator[Row]:
    """What a chunked fit needs beside its data."""
    problem = _problems.long(1_000_000)
    fit = jax.jit(lambda model, data: js.fit(model, data, chunk=CHUNK, throw=False))
    analysis = fit.lower(problem.model, problem.data()).compile().memory_analysis()
    mebibytes = analysis.temp_size_in_bytes / 2**20
    yield Row(f"temporaries, {problem.x.size} x 5 chunked", mebibytes, "MiB", n=problem.x.size, bar=at_most(1))


@case(AREA, "20M rows from disk")
def from_disk(quick: bool) -> Iterator[Row]:
    """Memory maps of x and y that a fit never has in memory as a whole: its peak above that of a small fit."""
    rows = 2_000_000 if quick else 20_000_000
    with tempfile.TemporaryDirectory() as folder:
        seen = in_fresh_process("stream_from_disk", folder, str(rows))
    name = f"{rows // 10**6}M rows from disk, peak above baseline"
    note = f"{int(seen['steps'])} steps in {seen['wall']:.1f} s; truth within {seen['sigma']:.1f} sigma"
    yield Row(name, seen["mebibytes"], "MiB", n=rows, bar=at_most(500), cold=seen["cpu"], note=note)


CHUNK = 2_000
_LONG = {"scipy trf": faster(15), "scipy lm": faster(7), "optimistix LM": faster(5)}


def one_fit(
    name: str, problem: _problems.Problem, bars: dict[str, Bar | None], *, chunk: int | None = None, repeats: int = 9
) -> Iterator[Row]:
    """One warm fit, data in hand, by everybody."""
    data = problem.data()
    optimistix, y = _peers.optimistix_fit(problem), jnp.asarray(problem.y)
    runners: dict[str, Callable[[], Any]] = {
        "ours": lambda: js.fit(problem.model, data, chunk=chunk),
        "scipy trf": lambda: _peers.scipy_fit(problem, problem.y, "trf"),
        "scipy lm": lambda: _peers.scipy_fit(problem, problem.y, "lm"),
        "optimistix LM": lambda: optimistix(y),
    }
    if problem.x.size <= 10_000:
        runners["lmfit"] = lambda: _peers.lmfit_fit(problem, problem.y)
    missing = ""
    if "nlsq" in bars:
        missing = _peers.nlsq_missing()
        if not missing:
            nlsq = _peers.nlsq_fit(problem)
            runners["nlsq"] = lambda: nlsq(problem.y)
    times = race(runners, repeats=repeats)
    worst = float(np.max(np.abs(np.asarray(times["ours"].value.y) - times["scipy trf"].value[0])))
    yield from timing_rows(
        f"{name}: one fit", times, bars, unit="ms", n=problem.x.size, note=f"parameters within {worst:.0e} of scipy's"
    )
    if missing:
        yield Row(f"{name}: one fit", peer="nlsq", note=missing)


@case(AREA, "batch")
def batch(quick: bool) -> Iterator[Row]:
    """Bounded fits of 50 points and 4 parameters, through both doors: `fit_batch`, and `fit` under `vmap`."""
    members = 1000 if quick else 10_000
    problem = _problems.many(members)
    models = js.stack([problem.model] * members)
    data = jax.vmap(js.Dataset, (None, 0))(jnp.asarray(problem.x), jnp.asarray(problem.y))
    sample = problem.y[: 20 if quick else _SAMPLE]
    optimistix, y = _peers.optimistix_fit(problem, batch=True), jnp.asarray(problem.y)
    doors: dict[str, Callable[[], Any]] = {
        "fit_batch": lambda: js.fit_batch(models, data, progress=False).groups[0],
        "vmap": lambda: vmapped_fit(models, data),
    }
    if quick:
        del doors["vmap"]  # its one program takes long to compile
    runners: dict[str, Callable[[], Any]] = {
        **doors,
        "scipy trf": lambda: [_peers.scipy_fit(problem, row, "trf") for row in sample],
        "scipy lm": lambda: [_peers.scipy_fit(problem, row, "lm") for row in sample],
        "optimistix LM": lambda: optimistix(y),
    }
    times = race(runners, repeats=3 if quick else 5, seconds=20)
    solution = times["fit_batch"].value
    theirs = np.stack([popt for popt, _ in times["scipy trf"].value])
    mine, errors = (np.asarray(a)[: len(sample)] for a in (solution.y, solution.standard_errors))
    failed, off = members - int(jnp.sum(solution.success)), np.max(np.abs(mine - theirs) / errors)
    note = f"{failed} failed; within {off:.0e} sigma of scipy trf, whose loops are timed on {len(sample)} fits"
    share = dict.fromkeys(("ours", "optimistix LM"), members) | dict.fromkeys(("scipy trf", "scipy lm"), len(sample))
    limits = (100, 30, 10) if quick else (230, 45, 20)
    bars = {peer: faster(limit) for peer, limit in zip(("scipy trf", "scipy lm", "optimistix LM"), limits, strict=True)}
    for door in doors:
        entrants = {"ours": times[door], **{peer: times[peer] for peer in bars}}
        name = f"{members} bounded fits, 50 x 4, {door}"
        yield from timing_rows(name, entrants, bars, unit="us a fit", n=members, share=share, note=note)
    ours = times["fit_batch"]
    name, each = f"{members} bounded fits, 50 x 4, fit_batch: time", ours.cpu / members * 1e6
    yield Row(name, each, "us a fit", n=members, cold=ours.cold, bar=None if quick else at_most(5))


@case(AREA, "kinds of batch")
def kinds_of_batch(quick: bool) -> Iterator[Row]:
    """Batches of other models than one peak, 50 points each, by `fit_batch`; scipy's loops are timed on some fits."""
    members = 1000 if quick else 10_000
    kinds = (
        ("two Gaussians, 50 x 7", _problems.two_gaussians(members), 15),
        ("damped waves, 50 x 5", _problems.damped_waves(members), 12),
        ("fits with a bound active in half, 50 x 4", _problems.half_bound(members), 12),
    )
    for kind, problem, limit in kinds:
        yield from _kind_of_batch(f"{members} {kind}", problem, None if quick else at_most(limit), 20 if quick else 50)


def _kind_of_batch(name: str, problem: _problems.Problem, bar: Bar | None, some: int) -> Iterator[Row]:
    members, lower_upper = len(problem.y), problem.bounds
    assert lower_upper is not None
    bounds = dict(zip(js.parameters(problem.model), zip(*lower_upper, strict=True), strict=True))
    models = js.stack([problem.model] * members)
    data = jax.vmap(js.Dataset, (None, 0))(jnp.asarray(problem.x), jnp.asarray(problem.y))
    sample = problem.y[:some]
    runners: dict[str, Callable[[], Any]] = {
        "ours": lambda: js.fit_batch(models, data, bounds=bounds, progress=False).groups[0],
        "scipy trf": lambda: [_peers.scipy_fit(problem, row, "trf") for row in sample],
        "scipy lm": lambda: [_peers.scipy_fit(problem, row, "lm") for row in sample],
    }
    times = race(runners, repeats=3, seconds=20)
    solution = times["ours"].value
    theirs = np.stack([popt for popt, _ in times["scipy trf"].value])
    squares = [np.sum((problem.function(problem.x, *p) - row) ** 2) for p, row in zip(theirs, sample, strict=True)]
    above = int(np.sum(np.asarray(solution.chi2)[:some] > np.array(squares) * (1 + 1e-6)))
    failed = members - int(jnp.sum(solution.success))
    active = int(np.sum(np.any(np.asarray(solution.at_bound) != 0, axis=1)))
    note = f"{failed} failed, {active} at a bound; {above} of {some} above scipy trf's sum of squares"
    share = {"ours": members, "scipy trf": some, "scipy lm": some}
    bars = dict.fromkeys(("scipy trf", "scipy lm"), bar)
    yield from timing_rows(name, times, bars, unit="us a fit", n=members, share=share, note=note)


@case(AREA, "batch on a GPU")
def batch_on_a_gpu(quick: bool) -> Iterator[Row]:
    """The same batch on a GPU, the CPU beside it: seconds by the clock on the wall, since the GPU has its own."""
    members = 1000 if quick else 10_000
    name = f"{members} bounded fits, 50 x 4, fit_batch on a GPU"
    try:
        gpu = jax.devices("gpu")[0]
    except RuntimeError:
        yield Row(name, peer="CPU", note="not run: no GPU")
        return
    problem = _problems.many(members)
    models = js.stack([problem.model] * members)
    data = jax.vmap(js.Dataset, (None, 0))(jnp.asarray(problem.x), jnp.asarray(problem.y))

    def on(device: Any) -> Any:
        mesh = jax.sharding.Mesh(np.array([device]), ("lanes",))
        return js.fit_batch(models, data, batch_size=members if device is gpu else "auto", mesh=mesh).groups[0]

    times = race({"GPU": lambda: on(gpu), "CPU": lambda: on(jax.devices("cpu")[0])})
    mine, peer = (times[which].wall / members * 1e6 for which in ("GPU", "CPU"))
    off = float(np.max(np.abs(times["GPU"].value.y - times["CPU"].value.y) / times["CPU"].value.standard_errors))
    note = f"wall clock; within {off:.0e} sigma of the CPU"
    yield Row(name, mine, "us a fit", "CPU", peer, n=members, cold=times["GPU"].cold, note=note)


@case(AREA, "shared")
def shared(quick: bool) -> Iterator[Row]:
    """One life time in common to all members: the joint fit by block elimination, against the number of members."""
    x = np.linspace(0, 4, 50)
    rng = np.random.default_rng(42)
    sizes = (50, 100) if quick else (200, 800, 3200)
    runners = {}
    for members in sizes:
        amp, level = rng.uniform(1, 2, (2, members, 1))
        y = amp * np.exp(-x / 1.3) + level + 0.05 * rng.normal(size=(members, 50))
        data = jax.vmap(js.Dataset, (None, 0))(jnp.asarray(x), jnp.asarray(y))
        model = _problems.Decay(1.0, 1.0, 0.0)
        runners[str(members)] = lambda data=data, model=model: js.fit_batch(model, data, shared="b").groups[0]
    times = race(runners)
    first = times[str(sizes[0])].cpu / sizes[0]
    for members in sizes:
        timing = times[str(members)]
        steps, each = int(timing.value.num_steps[0]), timing.cpu / members
        note = f"{steps} joint steps; {each / first:.2f} times the cost of a member among {sizes[0]}"
        yield Row(
            f"{members} decays with one life time", each * 1e6, "us a member", n=members, cold=timing.cold, note=note
        )


@jax.jit
def vmapped_fit(models: Any, data: Any) -> js.Solution:
    """As many lanes at a time as the caches hold."""
    return jax.lax.map(lambda pair: js.fit(*pair, throw=False), (models, data), batch_size=128)


@case(AREA, "compile")
def compile_cold(quick: bool) -> Iterator[Row]:
    """Compiling one bounded TRF in a fresh process."""
    for p in (5,) if quick else (2, 3, 4, 5):
        seen = in_fresh_process("compile_bounded", str(p))
        note = f"the rest of the first call {seen['rest']:.2f} CPU-s"
        name = f"compile a bounded TRF, {p} parameters"
        yield Row(
            name,
            seen["compile"],
            "CPU-s",
            n=50,
            wall=seen["wall"],
            compiles=int(seen["programs"]),
            bar=at_most(1.5),
            note=note,
        )


@case(AREA, "gradient")
def gradient(quick: bool) -> Iterator[Row]:
    """Derivatives of a fit that ends on a bound against central differences."""
    x = jnp.linspace(0, 5, 60)
    y = _problems.decay(jnp, x, 3.0, 0.7, 0.5) + 0.05 * jnp.asarray(np.random.default_rng(0).normal(size=60))
    model = _problems.Decay(1.0, 1.0, 0.1)

    @jax.jit
    def fit(y: Any, upper: Any) -> Any:
        return js.fit(model, js.Dataset(x, y), bounds={"c": (0.0, upper)}, throw=False).y

    upper = jnp.asarray(0.4)
    assert float(fit(y, upper)[2]) == 0.4, "the bound should be active"
    by_data, by_bound = jax.jit(jax.jacobian(fit, (0, 1)))(y, upper)
    step = 1e-5
    worst = 0.0
    for k in (0, 7, 30):
        move = jnp.zeros_like(y).at[k].set(step)
        difference = (fit(y + move, upper) - fit(y - move, upper)) / (2 * step)
        worst = max(worst, float(jnp.max(jnp.abs(by_data[:, k] - difference))))
    difference = (fit(y, upper + step) - fit(y, upper - step)) / (2 * step)
    off = float(jnp.max(jnp.abs(by_bound - difference)))
    yield Row("gradient at an active bound: by data", worst, n=60, bar=at_most(1e-8))
    yield Row("gradient at an active bound: by the bound", off, n=60, bar=at_most(1e-8))
