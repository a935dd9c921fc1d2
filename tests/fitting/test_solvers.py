"""Every solver on one problem with every kind of bound, against scipy; then what only our own promise."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optimistix as optx
import pytest
from helpers import close, quick_jit, to_float32
from problems import SIGMA, START, TIMES, Decay, decay_data, decay_jacobian, decay_numpy, decay_set
from scipy.optimize import least_squares

import jaxsci as js

INF = np.inf
OWN = {"trf": js.TRF(), "gauss-newton": js.GaussNewton()}
SOLVERS = {  # solver, max_steps, agreement asked for in standard errors
    "trf": (js.TRF(), 200, 1e-7),
    "gauss-newton": (js.GaussNewton(), 200, 1e-7),
    "adam": (js.Adam(), 20_000, 1e-3),
    "optimistix lm": (optx.LevenbergMarquardt(rtol=1e-10, atol=1e-12), 2000, 1e-3),
    "optimistix dogleg": (optx.Dogleg(rtol=1e-10, atol=1e-12), 2000, 1e-3),
    "optimistix bfgs": (optx.BFGS(rtol=1e-10, atol=1e-12), 2000, 1e-3),
}
CASES = {  # lower, upper, sides
    "inside": ([0.0, 0.1, -5.0], [10.0, 10.0, 5.0], [0, 0, 0]),
    "no bounds": ([-INF] * 3, [INF] * 3, [0, 0, 0]),
    "one side": ([0.0, -INF, -INF], [INF, 9.0, INF], [0, 0, 0]),
    "lower active": ([0.0, 1.5, -5.0], [10.0, INF, 5.0], [0, -1, 0]),
    "upper active": ([0.0, 0.1, -5.0], [10.0, 10.0, 0.3], [0, 0, 1]),
    "two active": ([0.0, 0.1, -5.0], [1.6, 10.0, 0.5], [1, 0, 1]),
    "all active": ([0.0, 0.1, 0.7], [1.6, 0.9, 5.0], [1, 1, -1]),
}


@functools.cache
def scipy_answer(lower, upper, seed=0):
    lower, upper = np.array(lower), np.array(upper)
    start = np.clip([1.0, 1.0, 0.1], lower + 1e-3, upper - 1e-3)
    y = decay_data(seed)
    fit = least_squares(
        lambda p: (decay_numpy(p) - y) / SIGMA,
        start,
        jac=lambda p: decay_jacobian(p) / SIGMA,
        bounds=(lower, upper),
        **dict.fromkeys(("xtol", "ftol", "gtol"), 1e-15),
        max_nfev=2000,
    )
    x, held = fit.x, (fit.x - lower < 1e-3) | (upper - fit.x < 1e-3)
    x = np.where(held, np.where(x - lower < upper - x, lower, upper), x)
    for _ in range(30):  # scipy stops some 1e-8 before the optimum
        residual, jac = (decay_numpy(x) - y) / SIGMA, decay_jacobian(x) / SIGMA
        x[~held] -= np.linalg.lstsq(jac[:, ~held], residual)[0]
    return x, ((decay_numpy(x) - y) ** 2).sum() / SIGMA**2 / 2


def bounded(lower, upper):
    return dict(zip(("amp", "tau", "base"), zip(lower, upper, strict=True), strict=True))


def run(solver, lower, upper, data=None, start=START, max_steps=200, **kwargs):
    data = decay_set() if data is None else data
    return js.fit(start, data, bounds=bounded(lower, upper), solver=solver, max_steps=max_steps, **kwargs)


@pytest.mark.filterwarnings("ignore:the start of")
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("name", SOLVERS)
def test_against_scipy(name, case):
    solver, max_steps, tolerance = SOLVERS[name]
    lower, upper, sides = CASES[case]
    solution = run(solver, lower, upper, max_steps=max_steps, throw=False)
    expected, cost = scipy_answer(tuple(lower), tuple(upper))
    assert np.all(np.asarray(solution.y) >= lower)
    assert np.all(np.asarray(solution.y) <= upper)
    errors = SIGMA / np.linalg.norm(decay_jacobian(expected), axis=0)
    if name not in OWN and not solution.success:
        return  # others creep along the tail of a sigmoid towards an active bound, and may say that they gave up
    assert bool(solution.success), js.RESULTS[solution.result]
    close(solution.y, expected, 0.0, tolerance * errors.min())
    close(solution.cost, cost, 10 * tolerance)
    if name in OWN:
        assert np.asarray(solution.at_bound).tolist() == sides
        assert int(solution.num_steps) < 40
        at = np.array(sides) != 0
        on = np.where(np.array(sides) < 0, lower, upper)
        assert np.all(np.asarray(solution.y)[at] == on[at]), "on the bound means exactly on it"


@pytest.mark.parametrize("name", SOLVERS)
def test_equal_bounds_fix_a_parameter(name):
    solver, max_steps, tolerance = SOLVERS[name]
    solution = run(solver, [0.0, 1.1, -5.0], [10.0, 1.1, 5.0], start=Decay(1.0, 1.1, 0.0), max_steps=max_steps)
    y = decay_data()
    design = np.stack([np.exp(-np.asarray(TIMES) / 1.1), np.ones_like(y)], axis=1)
    amp, base = np.linalg.lstsq(design, y)[0]
    close(solution.y, np.array([amp, 1.1, base]), tolerance)
    assert float(solution.y[1]) == 1.1
    assert np.asarray(solution.fixed).tolist() == [False, True, False]
    assert np.asarray(solution.at_bound).tolist() == [0, 0, 0]
    assert float(solution.std["tau"]) == 0
    covariance = SIGMA**2 * np.linalg.inv(design.T @ design)
    if name in OWN:
        close(solution.covariance[np.ix_([0, 2], [0, 2])], covariance, 1e-9)
    assert int(solution.rank) == 2
    assert int(solution.dof) == 28


@pytest.mark.parametrize("name", OWN)
def test_a_start_outside_is_moved_and_said(name):
    lower, upper, _ = CASES["inside"]
    far = Decay(-3.0, 50.0, 0.0)
    with pytest.warns(UserWarning, match="the start of amp, tau lay outside its bounds and was moved onto them"):
        solution = run(OWN[name], lower, upper, start=far)
    close(solution.y, scipy_answer(tuple(lower), tuple(upper))[0], 1e-8)
    assert np.asarray(solution.projected).tolist() == [True, True, False]
    with pytest.raises(ValueError, match=r"the start of amp, tau lies outside its bounds \(strict=True\)"):
        run(OWN[name], lower, upper, start=far, strict=True)


@pytest.mark.parametrize("name", OWN)
def test_a_start_on_a_bound_leaves_it(name):
    lower, upper, _ = CASES["inside"]
    for start in (Decay(0.0, 0.1, -5.0), Decay(10.0, 10.0, 5.0), Decay(10.0, 0.1, 5.0)):
        solution = run(OWN[name], lower, upper, start=start)
        close(solution.y, scipy_answer(tuple(lower), tuple(upper))[0], 1e-8)


SCALES = {  # of the observed values, of time
    "small data": (1e-6, 1.0),
    "large data": (1e6, 1.0),
    "short times": (1.0, 1e-6),
    "long times": (1.0, 1e6),
    "apart by 1e12": (1e-6, 1e6),
    "apart by 1e-12": (1e6, 1e-6),
}


@pytest.mark.parametrize("case", SCALES)
@pytest.mark.parametrize("name", OWN)
def test_units_do_not_matter(name, case):
    value, time = SCALES[case]
    scale = np.array([value, time, value])
    lower, upper, _ = CASES["lower active"]
    plain = run(OWN[name], lower, upper, start=Decay(1.0, 2.0, 0.0))
    data = js.Dataset(TIMES * time, decay_data() * value, js.White(SIGMA * value))
    start = Decay(value, 2.0 * time, 0.0)
    solution = run(OWN[name], scale * lower, scale * upper, data, start)
    close(solution.y, scale * np.asarray(plain.y), 1e-10)
    close(solution.chi2, plain.chi2, 1e-11)
    std = np.asarray(plain.standard_errors)
    close(solution.standard_errors, scale * std, 1e-9)
    assert abs(int(solution.num_steps) - int(plain.num_steps)) <= 1, "the path is the same"


@pytest.mark.parametrize("name", OWN)
def test_the_scale_of_the_noise_does_not_matter(name):
    lower, upper, _ = CASES["inside"]
    plain = run(OWN[name], lower, upper)
    for factor in (1e-6, 1e6):
        other = run(OWN[name], lower, upper, js.Dataset(TIMES, decay_data(), js.White(SIGMA * factor)))
        close(other.y, plain.y, 1e-11)
        close(other.standard_errors, factor * plain.standard_errors, 1e-9)
        close(other.chi2 * factor**2, plain.chi2, 1e-11)
        assert abs(int(other.num_steps) - int(plain.num_steps)) <= 1


@pytest.mark.parametrize("name", OWN)
def test_the_order_of_rows_does_not_matter(name):
    lower, upper, _ = CASES["inside"]
    order = np.random.default_rng(0).permutation(30)
    plain = run(OWN[name], lower, upper)
    shuffled = run(OWN[name], lower, upper, js.Dataset(TIMES[order], decay_data()[order], js.White(SIGMA)))
    close(shuffled.y, plain.y, 1e-11)
    close(shuffled.covariance, plain.covariance, 1e-9)


@pytest.mark.parametrize("name", OWN)
def test_masked_rows_count_for_nothing(name):
    lower, upper, _ = CASES["inside"]
    keep = np.arange(30) % 3 != 0
    y = np.where(keep, decay_data(), np.nan)
    masked = run(OWN[name], lower, upper, js.Dataset(TIMES, y, js.White(SIGMA), keep))
    fit = least_squares(
        lambda p: (decay_numpy(p, np.asarray(TIMES)[keep]) - y[keep]) / SIGMA,
        [1.0, 1.0, 0.0],
        **dict.fromkeys(("xtol", "ftol", "gtol"), 1e-15),
    )
    close(masked.y, fit.x, 1e-7)
    close(masked.chi2, 2 * fit.cost, 1e-10)
    assert (int(masked.num_data), int(masked.dof)) == (20, 17)
    close(masked.covariance, np.linalg.inv(fit.jac.T @ fit.jac), 1e-5)


@pytest.mark.parametrize("name", OWN)
def test_exact_data_and_a_start_at_the_optimum_end_at_once(name):
    lower, upper, _ = CASES["inside"]
    truth = Decay(2.0, 1.3, 0.4)
    data = js.Dataset(TIMES, truth(TIMES), js.White(SIGMA))
    at_optimum = run(OWN[name], lower, upper, data, truth)
    assert int(at_optimum.num_steps) <= 3
    close(at_optimum.y, np.array([2.0, 1.3, 0.4]), 1e-15)
    assert float(at_optimum.chi2) < 1e-24
    near = run(OWN[name], lower, upper, data, Decay(1.0, 1.0, 0.0))
    close(near.y, np.array([2.0, 1.3, 0.4]), 1e-13)
    noisy = run(OWN[name], lower, upper)
    again = run(OWN[name], lower, upper, start=noisy.model)
    assert int(again.num_steps) <= 3
    close(again.y, noisy.y, 1e-12)


@pytest.mark.parametrize("name", OWN)
@pytest.mark.parametrize("seed", range(6))
def test_the_gradient_vanishes_to_rounding(name, seed):
    """The final polish: an optimum to working precision, not to the square root of it."""
    lower, upper, _ = CASES["no bounds"]
    solution = run(OWN[name], lower, upper, decay_set(seed))
    y = np.asarray(solution.y)
    r = (decay_numpy(y) - decay_data(seed)) / SIGMA
    jac = decay_jacobian(y) / SIGMA
    cosine = np.abs(jac.T @ r) / np.linalg.norm(jac, axis=0) / np.linalg.norm(r)
    assert cosine.max() < 1e-11


@pytest.mark.parametrize("name", OWN)
@pytest.mark.parametrize("start", [(1.0, 4.0, 5.0), (50.0, 0.2, -20.0), (-5.0, 3.0, 10.0)])
def test_far_starts(name, start):
    lower, upper, _ = CASES["no bounds"]
    solution = run(OWN[name], lower, upper, start=Decay(*start))
    close(solution.y, scipy_answer(tuple(lower), tuple(upper))[0], 1e-8)


@pytest.mark.parametrize("name", OWN)
def test_single_precision(name):
    lower, upper, sides = CASES["lower active"]
    start = Decay(1.0, 2.0, 0.0)
    double = run(OWN[name], lower, upper, start=start)
    single = run(OWN[name], lower, upper, to_float32(decay_set()), to_float32(start))
    assert single.y.dtype == single.covariance.dtype == single.chi2.dtype == jnp.float32
    close(single.y, double.y.astype(jnp.float32), 1e-4, 1e-5)
    close(single.standard_errors, double.standard_errors.astype(jnp.float32), 5e-3)
    assert np.asarray(single.at_bound).tolist() == sides
    assert int(single.num_steps) < 40


@pytest.mark.parametrize("name", OWN)
def test_many_at_once_equal_one_by_one(name):
    lower, upper, _ = CASES["lower active"]
    datasets = [decay_set(seed) for seed in range(4)]
    start = Decay(1.0, 2.0, 0.0)
    batch = quick_jit(jax.vmap(lambda d: run(OWN[name], lower, upper, d, start, throw=False)))(js.stack(datasets))
    for k, data in enumerate(datasets):
        one = run(OWN[name], lower, upper, data, start)
        close(batch.y[k], one.y, 1e-11)
        close(batch.covariance[k], one.covariance, 1e-9)
        assert bool(batch.success[k])
