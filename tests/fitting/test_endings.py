"""How a fit ends: bad input has its named reason, success is never claimed falsely, neighbours are unharmed."""

import re
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import close, quick_jit, same_bits
from problems import SIGMA, START, TIMES, Decay, Gaussian, Line, N, decay_data, decay_set

import jaxsci as js

GN = js.GaussNewton()


def changed(array, k, value):
    array = np.array(array)
    array[k] = value
    return array


def dataset(x=TIMES, y=None, noise=None, mask=None):
    noise = js.Diagonal(jnp.full(N, SIGMA)) if noise is None else noise
    return js.Dataset(x, decay_data() if y is None else y, noise, np.ones(N, bool) if mask is None else mask)


SIGMAS = np.full(N, SIGMA)
BAD = {  # data, start, result, exception, message
    "nan in y": (
        dataset(y=changed(decay_data(), 7, np.nan)),
        START,
        "nonfinite_data",
        ValueError,
        "observed[7] is nan: 1 of 30 rows",
    ),
    "inf in y": (
        dataset(y=changed(decay_data(), 0, np.inf)),
        START,
        "nonfinite_data",
        ValueError,
        "observed[0] is inf",
    ),
    "nan in x": (dataset(x=changed(TIMES, 29, np.nan)), START, "nonfinite_data", ValueError, "inputs[29] is nan"),
    "two nans": (
        dataset(y=changed(decay_data(), [4, 9], np.nan)),
        START,
        "nonfinite_data",
        ValueError,
        "observed[4] is nan: 2 of 30",
    ),
    "sigma 0": (dataset(noise=js.Diagonal(changed(SIGMAS, 3, 0.0))), START, "bad_noise", ValueError, "sigma[3] is 0.0"),
    "sigma negative": (
        dataset(noise=js.Diagonal(changed(SIGMAS, 3, -1.0))),
        START,
        "bad_noise",
        ValueError,
        "sigma[3] is -1.0",
    ),
    "sigma nan": (
        dataset(noise=js.Diagonal(changed(SIGMAS, 5, np.nan))),
        START,
        "bad_noise",
        ValueError,
        "sigma[5] is nan",
    ),
    "sigma inf": (
        dataset(noise=js.Diagonal(changed(SIGMAS, 5, np.inf))),
        START,
        "bad_noise",
        ValueError,
        "sigma[5] is inf",
    ),
    "all masked": (dataset(mask=np.zeros(N, bool)), START, "empty", ValueError, "Every row is masked"),
    "model nan at the start": (dataset(), Decay(1.0, 0.0, 0.0), "nonfinite_start", ValueError, "Decay is nan at row 0"),
    "start nan": (dataset(), Decay(np.nan, 1.0, 0.0), "nonfinite_start", ValueError, "Decay is nan at row 0"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_named(case):
    data, start, result, error, message = BAD[case]
    with pytest.raises(error, match=re.escape(message)):
        js.fit(start, data, solver=GN)
    quiet = js.fit(start, data, solver=GN, throw=False)
    assert not bool(quiet.success)
    assert quiet.result == getattr(js.RESULTS, result)
    assert js.RESULTS[quiet.result]


@pytest.mark.parametrize("case", BAD)
def test_a_bad_row_that_is_masked_is_no_matter(case):
    data, start, *_ = BAD[case]
    if case in ("all masked", "start nan", "model nan at the start"):
        return
    bad = ~np.isfinite(np.asarray(data.observed) + np.asarray(data.inputs)) | ~(np.asarray(data.noise.sigma) > 0)
    bad |= ~np.isfinite(np.asarray(data.noise.sigma))
    solution = js.fit(start, js.Dataset(data.inputs, data.observed, data.noise, ~bad), solver=GN)
    reference = js.fit(start, dataset(mask=~bad), solver=GN)
    close(solution.y, reference.y, 1e-13)
    assert int(solution.num_data) == N - bad.sum()


def test_bad_lanes_have_their_reason_and_good_ones_their_bits():
    good = dataset()
    lanes = [good] + [item for data, *_ in BAD.values() for item in (data, good)]
    starts = [START] + [item for _, start, *_ in BAD.values() for item in (start, START)]
    run = quick_jit(jax.vmap(lambda m, d: js.fit(m, d, solver=GN, throw=False)))
    mixed = run(js.stack(starts), js.stack(lanes))
    clean = run(js.stack([START] * len(lanes)), js.stack([good] * len(lanes)))
    assert int(jnp.sum(~clean.success)) == 0
    for k, (_, _, result, *_) in enumerate(BAD.values()):
        lane = jax.tree.map(lambda leaf, k=k: leaf[2 * k + 1], mixed)
        assert lane.result == getattr(js.RESULTS, result), result
    same_bits(jax.tree.map(lambda leaf: leaf[::2], mixed), jax.tree.map(lambda leaf: leaf[::2], clean))


def test_dense_covariance_that_is_not_positive():
    data = js.Dataset(jnp.arange(3.0), jnp.arange(3.0), js.Dense(jnp.ones((3, 3))))
    with pytest.raises(ValueError, match="covariance matrix is not positive definite"):
        js.fit(Line(1.0, 0.0), data, solver=GN)


@pytest.mark.parametrize("solver", [js.TRF(), GN])
def test_running_out_of_steps_is_never_success_and_keeps_the_best_point(solver):
    data = decay_set()
    with pytest.raises(RuntimeError, match=r"had not converged when it reached max_steps\. Raise max_steps"):
        js.fit(START, data, solver=solver, max_steps=4)
    short = js.fit(START, data, solver=solver, max_steps=4, throw=False)
    assert short.result == js.RESULTS.max_steps_reached
    assert int(short.num_steps) == 4

    def cost(model):
        return float(jnp.sum((data.residual(model) / SIGMA) ** 2) / 2)

    close(float(short.cost), cost(short.model), 1e-12)
    assert cost(short.model) < cost(START)


class Lying(js.AbstractModel):
    """A model whose derivative has the wrong sign."""

    a: js.Scalar = js.param()

    def __call__(self, x):
        return lie(self.a) * x


@jax.custom_jvp
def lie(a):
    return a


lie.defjvp(lambda primals, tangents: (primals[0], -tangents[0]))


@pytest.mark.parametrize("solver", [js.TRF(), GN])
def test_a_wrong_derivative_is_not_called_convergence(solver):
    x = jnp.linspace(0.0, 1.0, 5)
    data = js.Dataset(x, 3 * x + 0.01 * jnp.cos(7 * x), js.White(0.1))
    with pytest.raises(RuntimeError, match="derivative disagrees with its values"):
        js.fit(Lying(1.0), data, solver=solver)
    solution = js.fit(Lying(1.0), data, solver=solver, throw=False)
    assert solution.result == js.RESULTS.stalled
    assert float(solution.y[0]) == 1.0


class Root(js.AbstractModel):
    """sqrt(a) x: not finite for a < 0, where an undamped step from a large start leads."""

    a: js.Scalar = js.param()

    def __call__(self, x):
        return jnp.sqrt(self.a) * x


@pytest.mark.parametrize("solver", [js.TRF(), GN])
@pytest.mark.parametrize("start", [100.0, 1e4])
def test_a_trial_that_is_not_finite_shortens_the_step(solver, start):
    x = jnp.linspace(0.1, 1.0, 5)
    solution = js.fit(Root(start), js.Dataset(x, 0.3 * x, js.White(0.1)), solver=solver)
    close(solution.y, np.array([0.09]), 1e-9)


WRONG = {
    "no data set": (lambda: js.fit(START, (TIMES, TIMES)), "data"),
    "free name": (
        lambda: js.fit(START, decay_set(), free=("taau",)),
        "Decay has no parameter 'taau'; did you mean 'tau'?",
    ),
    "nothing free": (lambda: js.fit(START, decay_set(), free=()), "nothing is free to fit: choose from amp, tau, base"),
    "bounds name": (
        lambda: js.fit(START, decay_set(), bounds={"tua": (0, 1)}),
        "bounds: no free parameter 'tua'; did you mean 'tau'?",
    ),
    "bounds of one not free": (
        lambda: js.fit(START, decay_set(), free=("tau",), bounds={"amp": (0, 1)}),
        "bounds: no free parameter 'amp'",
    ),
    "bounds reversed": (
        lambda: js.fit(START, decay_set(), bounds={"tau": (2, 1)}),
        "the lower bound 2 lies above the upper bound 1",
    ),
    "bound arrays reversed": (
        lambda: js.fit(START, decay_set(), bounds={"tau": (jnp.asarray(2.0), jnp.asarray(1.0))}),
        "the lower bound of tau lies above its upper bound",
    ),
    "bound nan": (lambda: js.fit(START, decay_set(), bounds={"tau": (jnp.nan, 1)}), "tau"),
    "bound shape": (
        lambda: js.fit(START, decay_set(), bounds={"tau": (jnp.zeros(2), 1)}),
        "bounds of tau have shape (2,), but tau has shape ()",
    ),
    "no pair": (lambda: js.fit(START, decay_set(), bounds={"tau": 1}), "bounds of tau should be a pair (lower, upper)"),
    "prior name": (
        lambda: js.fit(START, decay_set(), priors={"x": js.Normal(0.0, 1.0)}),
        "priors: no free parameter 'x'",
    ),
    "prior kind": (lambda: js.fit(START, decay_set(), priors={"tau": (0.0, 1.0)}), "the prior of tau is a tuple"),
    "active shape": (
        lambda: js.fit(START, decay_set(), active=[True]),
        "active should be bool[3], one for each of amp, tau, base; it is bool[1]",
    ),
    "active dtype": (lambda: js.fit(START, decay_set(), active=[1, 0, 1]), "it is int64[3]"),
    "solver": (lambda: js.fit(START, decay_set(), solver="lm"), "solver should be jaxsci.TRF()"),
    "chunk": (
        lambda: js.fit(START, decay_set(), chunk=0),
        "chunk, the rows that are taken at a time, should be a whole number of at least 1, but it is 0",
    ),
    "robust Poisson": (
        lambda: js.fit(START, js.Dataset(TIMES, TIMES, js.Poisson(jnp.ones(N))), loss=js.Huber()),
        "a robust loss needs a Gaussian noise, but the likelihood is Poisson",
    ),
    "free noise and loss": (
        lambda: js.fit(START, decay_set(), free=("*", "noise.sigma"), loss=js.Huber()),
        "free noise parameters need a Gaussian noise in the data, the Linear loss and no likelihood=",
    ),
    "free noise in chunks": (
        lambda: js.fit(START, decay_set(), free=("amp", "noise.sigma"), chunk=8),
        "free noise parameters cannot be fitted in chunks",
    ),
    "no parameters": (
        lambda: js.fit(js.Dense(jnp.eye(2)), js.Dataset(TIMES, TIMES)),
        "Dense has no free parameter: declare its fields",
    ),
    "model shape": (lambda: js.fit(Bad(1.0), decay_set()), "Bad(inputs) has shape (30, 1), observed has shape (30,)"),
}


class Bad(js.AbstractModel):
    a: js.Scalar = js.param()

    def __call__(self, x):
        return self.a * x[:, None]


@pytest.mark.parametrize("case", WRONG)
def test_wrong_structure_is_an_error_before_anything_runs(case):
    call, message = WRONG[case]
    with pytest.raises((ValueError, TypeError), match=re.escape(message)):
        call()


def test_glob_bounds_and_a_single_name():
    solution = js.fit(START, decay_set(), free="tau", bounds={"t*": (0.5, 2.0)}, solver=GN)
    assert solution.names == ("tau",)
    assert float(solution.model.amp) == 1.0


def test_declared_bounds_hold_unless_the_call_says_otherwise():
    x = jnp.linspace(-1.0, 1.0, 15)
    y = -2.0 * jnp.exp(-((x / 0.5) ** 2) / 2)
    data = js.Dataset(x, y, js.White(0.1))
    held = js.fit(Gaussian(1.0, 0.1, 0.4), data, free=("height",), solver=GN)
    assert float(held.y[0]) == 0.0
    assert int(held.at_bound[0]) == -1
    freed = js.fit(Gaussian(1.0, 0.0, 0.5), data, free=("height",), bounds={"height": (None, None)}, solver=GN)
    close(freed.y, np.array([-2.0]), 1e-12)


def test_integers_and_lists_are_welcome():
    solution = js.fit(Line(1, 0), js.Dataset([0, 1, 2, 3], [1, 3, 5, 7]), solver=GN)
    close(solution.y, np.array([2.0, 1.0]), 1e-12)


@pytest.mark.parametrize("n", [1, 2, 3])
def test_very_few_points(n):
    """A line through 3 points, 2 and 1: fitted, with the errors that the points allow."""
    x, y = np.arange(n, dtype=float), 2.0 * np.arange(n) + 1
    data = js.Dataset(x, y)
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        solution = js.fit(Line(0.5, 0.0), data, solver=GN)
    close(solution.model(jnp.asarray(x)), y, 1e-10, 1e-12)
    errors = np.asarray(solution.standard_errors)
    assert int(solution.dof) == max(n - 2, 0)
    if n == 3:
        assert np.all(errors < 1e-9)
        assert not seen
    else:
        assert np.all(np.isinf(errors)), "an unknown scale and nothing left to tell it"
    if n == 1:
        assert int(solution.rank) == 1
        assert any("do not determine" in str(w.message) for w in seen)
