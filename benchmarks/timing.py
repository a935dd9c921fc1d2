"""Area `timing`: a step at four sizes beside NumPy, an array of pulsars beside PINT, a grid, gradients."""

import functools
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

import jaxsci as js
from jaxsci import timing
from jaxsci.fitting import Choices, Problem, Terms
from jaxsci.fitting._fit import make_ready, unused
from jaxsci.fitting._objective import minus_log_likelihood
from jaxsci.fitting._plan import make_plan
from jaxsci.timing._array import _member, buckets, lay_bucket
from jaxsci.timing._fit import SOLVER, bare

from . import _ng9, _timing_numpy
from ._cold import in_fresh_process
from ._harness import Area, Row, at_most, case, faster, race, timing_rows

js.enable_x64()

AREA: Area = []
_MALLOC = {
    "MALLOC_TOP_PAD_": "268435456",
    "MALLOC_MMAP_THRESHOLD_": "1073741824",
    "MALLOC_TRIM_THRESHOLD_": "1073741824",
}
_MISSING = "not run: ../shared/data/timing is not there"


def step_of(model: timing.TimingModel, toas: timing.TOAs) -> Any:
    """() -> the state after one step of the solver from the par file's values: linearise, solve, judge."""
    data, _ = timing.anchor(model, toas)
    assert model.par is not None
    places = {pint: name for name, pint in timing._model.elements(model)}
    leaves = (*tuple(dict.fromkeys(places[name].split("[")[0] for name in model.par.free)), "PHOFF")
    plan = make_plan(bare(model), data.noise, leaves)
    active = jnp.asarray(np.isin(plan.names, [*(places[name] for name in model.par.free), "PHOFF"]))
    zeros = jnp.zeros(len(plan.names))
    problem = Problem(bare(model), data, Terms(None, None, zeros, zeros, None if active.all() else active))
    ready, static = eqx.partition(make_ready(problem, Choices(plan, SOLVER)), eqx.is_array)

    def options(ready: Any) -> dict[str, Any]:
        return {**ready.bounds, "linearise": ready.objective, "exact": False}

    def one(arrays: Any, y: Any, state: Any) -> Any:
        whole = eqx.combine(arrays, static)
        return SOLVER.step(unused, y, None, options(whole), state, frozenset())[:2]

    whole = eqx.combine(ready, static)
    start = SOLVER.init(unused, whole.y0, None, options(whole), None, None, frozenset())
    program = jax.jit(one, compiler_options=js.compiler_options())
    return functools.partial(program, ready, whole.y0, start)


def synthetic(n: int, p: int) -> tuple[timing.TimingModel, timing.TOAs]:
    """The model and the TOAs of `_timing_numpy`."""
    data = _timing_numpy.times(n)
    day = np.floor(data["mjd"])
    toas = timing.TOAs(
        day=day,
        second=(data["mjd"] - day) * 86400,
        second_low=np.zeros(n),
        frequency=data["frequency"],
        error=np.ones(n),
        position=data["position"],
        velocity=data["velocity"],
        sun=-data["position"],
        troposphere=np.zeros(n),
        utc=data["mjd"],
        turn=np.full(n, np.nan),
        selected=np.zeros((n, 0), bool),
        flags=(),
    )
    return timing.TimingModel.parse(_timing_numpy.par(p)), toas


@case(AREA, "step")
def steps(quick: bool) -> Iterator[Row]:
    """One Gauss-Newton step at the four sizes of the design, blocked; NumPy as installed and with a tuned allocator."""
    for n, p in _timing_numpy.SIZES[: 2 if quick else 4]:
        ours = step_of(*synthetic(n, p))
        times = race({"ours": ours, "NumPy": _timing_numpy.Step(n, p)}, repeats=25)
        start = time.perf_counter()
        waiting = [ours() for _ in range(5)]
        unblocked = (time.perf_counter() - start) / 5
        jax.block_until_ready(waiting)
        note = f"without waiting for the result it reads {1e3 * unblocked:.3f} ms"
        yield from timing_rows(f"step {n} x {p}", times, {"NumPy": faster(1)}, unit="ms", n=n, note=note)
        command = [sys.executable, "-m", "benchmarks._timing_numpy", str(n), str(p)]
        done = subprocess.run(command, env={**os.environ, **_MALLOC}, capture_output=True, text=True, check=True)
        yield Row(f"step {n} x {p}", 1e3 * times["ours"].cpu, "ms", "NumPy, malloc tuned", float(done.stdout), n)


@case(AREA, "design matrix")
def design(quick: bool) -> Iterator[Row]:
    """The derivatives of all residuals of one large pulsar with respect to all free parameters."""
    if not _ng9.names():
        yield Row("design matrix", note=_MISSING)
        return
    model, toas = _ng9.staged("J1909-3744")
    data, _ = timing.anchor(model, toas)
    plan = make_plan(bare(model), data.noise, None)
    zeros = jnp.zeros(len(plan.names))
    ready = make_ready(Problem(bare(model), data, Terms(None, None, zeros, zeros)), Choices(plan, SOLVER))
    arrays, static = eqx.partition(ready.objective, eqx.is_array)

    def columns(arrays: Any, y: Any) -> Any:
        objective = eqx.combine(arrays, static)
        return objective.data.jacobian(objective, y)

    program = jax.jit(columns, compiler_options=js.compiler_options())
    times = race({"ours": lambda: program(arrays, ready.y0)}, repeats=5)["ours"]
    name = f"design matrix {len(toas)} x {len(plan.names)}"
    yield Row(name, times.cpu, "s", "PINT (stored)", 6.7, len(toas), cold=times.cold, wall=times.wall, bar=at_most(0.1))


@case(AREA, "array", slow=True)
def array(quick: bool) -> Iterator[Row]:
    """All staged pulsars: one iteration with its covariance, to convergence, and the first call of all."""
    names = _ng9.names()
    if not names:
        yield Row("array", note=_MISSING)
        return
    pairs = [_ng9.staged(name) for name in names]
    laid = [lay_bucket(bucket) for bucket in buckets([_member(k, *pair, None) for k, pair in enumerate(pairs)])]
    stored = sum(_ng9.pint_fit(name)["gls_cpu"] for name in names)
    total = sum(len(toas) for _, toas in pairs)
    one = race({"ours": lambda: [bucket.fit(SOLVER, 1).groups[0].y for bucket in laid]}, repeats=3)["ours"]
    label = f"{len(names)} pulsars, {total} TOAs"
    note = f"{len(laid)} programs; noise prepared, linearised, solved, covariance"
    bar = at_most(0.65)
    yield Row(f"{label}: one GLS iteration", one.cpu, "s", "PINT GLSFitter (stored)", stored, total, bar=bar, note=note)
    cold = in_fresh_process("timing_array")
    note = f"chi2 {cold['worst']:.1e} above PINT's one step at worst; {cold['steps']:.0f} steps at most"
    yield Row(
        f"{label}: first call, wall", cold["first"], "s", n=total, cold=cold["first_cpu"], bar=at_most(30), note=note
    )
    yield Row(f"{label}: converged, warm, wall", cold["warm"], "s", n=total, bar=at_most(3))


@case(AREA, "grid", slow=True)
def grid(quick: bool) -> Iterator[Row]:
    """chi2 of B1855+09 over M2 x SINI."""
    model, toas = timing.bundled("B1855+09")
    axes = {"M2": np.linspace(0.2, 0.3, 32), "SINI": np.linspace(0.998, 0.9998, 32)}
    cpu, wall = time.process_time(), time.perf_counter()
    found = timing.chi2_grid(model, toas, axes)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    note = f"{np.sum(np.isfinite(found))} of {found.size} points converged; compilation included"
    yield Row("grid 32 x 32 of B1855+09, wall", wall, "s", n=len(toas), cold=cpu, bar=at_most(60), note=note)


@case(AREA, "gradient")
def gradient(quick: bool) -> Iterator[Row]:
    """The gradient of the log-likelihood with respect to timing and noise parameters, over one evaluation."""
    for name in ("J0931-1902", "B1855+09")[: 1 if quick else 2]:
        model, toas = timing.bundled(name)
        data, _ = timing.anchor(model, toas)

        def likelihood(parts: Any, data: Any = data) -> Any:
            model, noise = parts
            residual = model.residual(data)
            return minus_log_likelihood(noise, residual, data.mask)

        parts = (bare(model), data.noise)
        value, slope = eqx.filter_jit(likelihood), eqx.filter_jit(eqx.filter_grad(likelihood))
        times = race(
            {"ours": lambda f=slope, x=parts: f(x), "one evaluation": lambda f=value, x=parts: f(x)}, repeats=25
        )
        ratio = times["ours"].cpu / times["one evaluation"].cpu
        yield Row(f"likelihood gradient of {name} over one evaluation", ratio, "times", n=len(toas), bar=at_most(5))


@case(AREA, "compile")
def compiles(quick: bool) -> Iterator[Row]:
    """What the first gradient of fits of two pulsars costs inside a program, in a process of its own."""
    for how, bar, said in (
        ("plain", None, "jax.jit(f)"),
        ("quick", at_most(20), "jax.jit(f, compiler_options=jaxsci.compiler_options())"),
        ("once", None, "the same for a program that runs a few times: once=True"),
    ):
        cold = in_fresh_process("gradient_of_pulsars", how)
        note = f"{said}; J0931-1902 and J1832-0836, d std(F0) / d EFAC; trace, compile and run"
        name = f"compile: jit(vmap(grad(fit))) of two pulsars, {how}, first call"
        yield Row(name, cold["first"], "CPU-s", n=2, cold=cold["first"], bar=bar, note=note)
        yield Row(name.replace("first", "next"), cold["next"], "CPU-s", n=2)


@case(AREA, "GPU")
def gpu(quick: bool) -> Iterator[Row]:
    """The array on a GPU, where there is one."""
    yield Row("array on a GPU", note="not run: no GPU is at hand")
