"""What is compiled: one loop, no library calls in it, no transfers, no recompiles, no hangs."""

import os
import subprocess
import sys
import threading
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import Counter, close, compiles, custom_calls, quick_jit, same_bits
from problems import SIGMA, START, TIMES, Decay, N, decay_data, decay_set

import jaxsci as js
from jaxsci.fitting import _lean
from jaxsci.fitting._program import compiler_options

ROOT = Path(__file__).resolve().parents[2]
SOLVERS = {"trf": js.TRF(), "gauss-newton": js.GaussNewton()}
GN = SOLVERS["gauss-newton"]
BOUNDS = {"amp": (0.0, 10.0), "tau": (0.1, 10.0)}
HARMLESS = {"Sharding", "SPMDFullToShardShape", "SPMDShardToFullShape", "AllocateBuffer"}


def lowered(solver, batch=None):
    def run(model, data):
        return js.fit(model, data, bounds=BOUNDS, solver=solver, throw=False)

    if batch is None:
        return jax.jit(run).lower(START, decay_set())
    return jax.jit(jax.vmap(run)).lower(js.stack([START] * batch), js.stack([decay_set(k) for k in range(batch)]))


@pytest.mark.parametrize("batch", [None, 3])
@pytest.mark.parametrize("name", SOLVERS)
def test_no_library_calls(name, batch):
    """LAPACK in a batched loop hangs on some versions of jaxlib, and is slow on all."""
    text = lowered(SOLVERS[name], batch).as_text()
    assert "stablehlo.while" in text
    calls = custom_calls(text)
    assert not calls - HARMLESS, calls
    assert "stablehlo.fft" not in text
    for word in ("stablehlo.cholesky", "stablehlo.triangular_solve", "callback"):
        assert word not in text


def loops(jaxpr, depth=0):
    """(depth, loop) of every while loop of a jaxpr, scans aside."""
    for eqn in jaxpr.eqns:
        deeper = depth + (eqn.primitive.name == "while")
        if eqn.primitive.name == "while":
            yield depth, eqn
        for value in eqn.params.values():
            for sub in value if isinstance(value, tuple | list) else (value,):
                inner = getattr(sub, "jaxpr", sub)
                if isinstance(inner, jax.extend.core.Jaxpr):
                    yield from loops(inner, deeper)


def test_the_carry_of_the_loop_does_not_grow_with_the_data():
    """One outer loop that evaluates the model, whose carry is of the size of the parameters."""
    t = jnp.linspace(0.0, 4.0, 5000)
    data = js.Dataset(t, Decay(2.0, 1.3, 0.4)(t), js.White(SIGMA))
    jaxpr = jax.make_jaxpr(lambda m, d: js.fit(m, d, solver=GN, throw=False).y)(START, data)
    main = []
    for depth, eqn in loops(jaxpr.jaxpr):
        body = str(eqn.params["body_jaxpr"])
        if " exp " in body and depth == 0:
            main.append(eqn)
    assert len(main) == 1
    sizes = [int(np.prod(v.aval.shape)) for v in main[0].outvars]
    assert max(sizes) <= 9, sizes


@pytest.mark.parametrize("name", SOLVERS)
def test_the_second_call_neither_compiles_nor_transfers(name):
    data, other, start = decay_set(0), decay_set(1), Decay(1.1, 0.9, 0.1)

    def run(model, data):
        return js.fit(model, data, solver=SOLVERS[name], throw=False)

    first = run(START, data)
    jax.block_until_ready(first)

    def second():
        with jax.transfer_guard("disallow"):
            jax.block_until_ready(run(start, other))

    assert compiles(second) == 0


def test_other_values_of_bounds_priors_and_masks_do_not_recompile():
    def run(low, mean, mask):
        js.fit(
            START,
            js.Dataset(TIMES, decay_data(), js.White(SIGMA), mask),
            bounds={"tau": (low, 10.0)},
            priors={"amp": js.Normal(mean, 1.0)},
            solver=GN,
        )

    run(0.1, 2.0, np.ones(N, bool))
    assert compiles(lambda: run(0.2, 2.1, np.arange(N) > 3)) == 0


class Counted(js.AbstractModel):
    """Decay, counting how often it is traced."""

    amp: js.Scalar = js.param()
    tau: js.Scalar = js.param()
    count: Counter = eqx.field(static=True)

    def __call__(self, t):
        return self.count(t) * 0 + self.amp * jnp.exp(-t / self.tau)


def test_a_thousand_lanes_are_one_trace():
    def traces(lanes):
        count = Counter(lambda t: t)
        data = js.stack([decay_set(k % 5) for k in range(lanes)])
        start = js.stack([Counted(1.0, 1.0 + 0.001 * k, count) for k in range(lanes)])
        fit = quick_jit(jax.vmap(lambda m, d: js.fit(m, d, solver=GN, throw=False)))
        solution = fit(start, data)
        assert bool(jnp.all(solution.success))
        for k in (0, 7, lanes - 1):
            close(solution.y[k], solution.y[k % 5], 1e-9)
        before = count.traces
        fit(start, data)
        assert count.traces == before
        return count.traces

    assert traces(1000) == traces(8)


def test_three_active_masks_are_one_trace():
    data = decay_set()
    masks = [[True, True, True], [True, False, True], [False, True, False]]

    @eqx.debug.assert_max_traces(max_traces=1)
    def run(mask):
        return js.fit(START, data, active=mask, solver=GN, throw=False)

    fit = quick_jit(run)
    for mask in masks:
        solution = fit(jnp.array(mask))
        reference = js.fit(
            START, data, free=[n for n, on in zip(("amp", "tau", "base"), mask, strict=True) if on], solver=GN
        )
        on = np.array(mask)
        close(solution.y[on], reference.y, 1e-10)
        close(solution.covariance[np.ix_(on, on)], reference.covariance, 1e-9)
        assert np.all(np.asarray(solution.standard_errors)[~on] == 0)
        assert np.asarray(solution.fixed).tolist() == (~on).tolist()
        assert int(solution.rank) == on.sum()
        assert int(solution.dof) == int(reference.dof)
        close(solution.y[~on], np.array([1.0, 1.0, 0.0])[~on])
        assert bool(solution.success)


class Power(js.AbstractModel):
    """(a^2 + b) x with b fixed: from below, the Jacobian is singular at the best a, which is 0."""

    a: js.Scalar = js.param()
    b: js.Scalar = js.param()

    def __call__(self, x):
        return (self.a**2 + self.b) * x


LINE = js.Dataset(np.arange(1.0, 9.0), -np.arange(1.0, 9.0))


@pytest.mark.parametrize(
    ("model", "data", "free", "programs"),
    [
        (START, decay_set(), None, ["fit_once"]),
        (Power(0.7, 0.0), LINE, "a", ["fit_once", "fit_once"]),
        (Power(0.7, 0.0), js.Dataset(LINE.inputs, 2 * LINE.inputs), None, ["fit_once", "by_rows"]),
    ],
    ids=["plain", "exact Hessian", "rank"],
)
def test_what_a_fit_lacks_is_compiled_when_it_is_wanted(model, data, free, programs, monkeypatch):
    called, compiled = [], _lean.compiled
    monkeypatch.setattr(
        _lean, "compiled", lambda program, *args: (called.append(program.__name__), compiled(program, *args))[1]
    )
    apart = js.fit(model, data, free=free, solver=GN, throw=False)
    assert called == programs
    together = quick_jit(lambda model, data: js.fit(model, data, free=free, solver=GN, throw=False))(model, data)
    assert bool(together.success)
    close(apart.y, together.y, 1e-9, 1e-7)
    # where the Jacobian is singular at the optimum, rounding says whether the answer is on that point or beside it
    told = ("cost", "result") if free else ("cost", "result", "dof", "rank", "determined")
    for name in told:
        close(getattr(apart, name), getattr(together, name), 1e-9, 1e-20)
    if free is None:
        close(apart.standard_errors, together.standard_errors, 1e-9)


def test_active_masks_in_one_batch():
    data, masks = decay_set(), jnp.array([[True, True, True], [True, False, True], [False, False, False]])
    batch = quick_jit(jax.vmap(lambda on: js.fit(START, data, active=on, solver=GN, throw=False)))(masks)
    assert batch.rank.tolist() == [3, 2, 0]
    assert batch.success.tolist() == [True, True, True]
    close(batch.y[2], jnp.array([1.0, 1.0, 0.0]))


def test_a_lane_does_not_depend_on_its_neighbours():
    fit = quick_jit(jax.vmap(lambda d: js.fit(START, d, solver=GN, throw=False)))
    first = fit(js.stack([decay_set(0), decay_set(1), decay_set(2)]))
    second = fit(js.stack([decay_set(0), decay_set(3), js.Dataset(TIMES, jnp.full(N, jnp.nan), js.White(SIGMA))]))
    same_bits(jax.tree.map(lambda x: x[0], first), jax.tree.map(lambda x: x[0], second))


SCRIPT = """
import sys; sys.path.insert(0, "tests")
import jax
jax.config.update("jax_enable_x64", True)
jax.config.update("jax_compilation_cache_dir", {cache!r})
import jax.numpy as jnp, numpy as np
import jaxsci as js
from jax.sharding import NamedSharding, PartitionSpec
from problems import START, decay_set
assert jax.device_count() == 2
data = js.stack([decay_set(k) for k in range(256)])
fit = jax.jit(jax.vmap(lambda d: js.fit(START, d, solver=js.GaussNewton(), throw=False)))
plain = fit(data)
mesh = jax.make_mesh((2,), ("lanes",), axis_types=(jax.sharding.AxisType.Auto,))
split = fit(jax.device_put(data, NamedSharding(mesh, PartitionSpec("lanes"))))
np.testing.assert_allclose(split.y, plain.y, rtol=1e-11)
assert len(split.y.sharding.device_set) == 2
print("done", int(plain.success.sum()))
"""


def test_a_batch_on_two_devices_does_not_hang():
    environment = os.environ | {"XLA_FLAGS": "--xla_force_host_platform_device_count=2", "PYTHONPATH": str(ROOT)}
    script = SCRIPT.format(cache=jax.config.jax_compilation_cache_dir)
    out = subprocess.run(
        [sys.executable, "-c", script],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )
    assert out.returncode == 0, out.stderr[-3000:]
    assert out.stdout.strip() == "done 256"


def test_two_threads_do_not_hang():
    fit = quick_jit(jax.vmap(lambda d: js.fit(START, d, solver=GN, throw=False).y))
    data = js.stack([decay_set(k) for k in range(256)])
    expected = np.asarray(fit(data))
    answers = {}

    def work(k):
        for _ in range(5):
            answers[k] = np.asarray(fit(data))

    threads = [threading.Thread(target=work, args=(k,), daemon=True) for k in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=120)
        assert not thread.is_alive(), "a fit from a second thread hangs"
    for k in range(2):
        same_bits(answers[k], expected)


def test_a_fit_of_constants_within_a_jit():
    data = js.Dataset(jnp.linspace(0.0, 3.0, 8), jnp.exp(-jnp.linspace(0.0, 3.0, 8)))

    class Rate(js.AbstractModel):
        rate: js.Scalar = js.param()

        def __call__(self, t):
            return jnp.exp(-self.rate * t)

    inner = jax.jit(lambda k: js.fit(Rate(0.5), data, throw=False).y + k)(1.0)
    np.testing.assert_allclose(inner, [2.0], rtol=1e-12)


def test_compiler_options_are_known_to_this_xla():
    """Some option saves time on each jax that is supported: a newer one that knows none of them is to be looked at."""
    if jax.default_backend() != "cpu":
        pytest.skip("compiler options of the CPU")
    options = compiler_options()
    assert options
    program = jax.jit(lambda x: jnp.sum(jnp.exp(x) * x, axis=0), compiler_options=options)
    assert "ynn" not in program.lower(jax.ShapeDtypeStruct((60, 4), jnp.float64)).compile().as_text()
