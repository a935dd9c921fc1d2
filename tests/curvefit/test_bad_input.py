"""What bad input does: one test for each row of a table of mishaps."""

import itertools
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import quick_jit, solved

import jaxsci as js
from jaxsci import curvefit as cf
from jaxsci.curvefit import curve_fit
from jaxsci.fitting import scaled_by_scatter

N = 40
X = np.linspace(0, 4, N)
SIGMA = np.full(N, 0.05)
Y = 2 * np.exp(-0.8 * X) + 0.3 + np.random.default_rng(0).normal(0, 0.05, N)
START = [1.0, 1.0, 0.0]


def decay(x, a, b, c):
    return a * jnp.exp(-b * x) + c


def with_value(array, index, value):
    out = np.array(array)
    out[index] = value
    return out


@pytest.fixture(scope="module")
def clean():
    """(popt, pcov, solution) of the good data."""
    return solved(decay, X, Y, START, SIGMA, True)


# --- NaN and infinity ---


@pytest.mark.parametrize(
    ("name", "value"),
    [*itertools.product(["xdata", "ydata"], [np.nan, np.inf, -np.inf]), ("sigma", np.nan), ("sigma", -np.inf)],
)
def test_nonfinite_data_are_named_with_their_first_index(name, value):
    arrays = {"xdata": X, "ydata": Y, "sigma": SIGMA}
    arrays[name] = with_value(arrays[name], [7, 11], value)
    with pytest.raises(ValueError, match=rf"{name}\[7\] is {value}: 2 of 40 values are not finite"):
        curve_fit(decay, arrays["xdata"], arrays["ydata"], START, arrays["sigma"], True)


def test_nonfinite_elements_of_matrices_are_named_too():
    with pytest.raises(ValueError, match=r"xdata\[1, 4\] is nan: 1 of 80 values are not finite"):
        curve_fit(lambda x, a: a * x[0] + x[1], with_value(np.stack([X, X]), (1, 4), np.nan), Y)
    with pytest.raises(ValueError, match=r"sigma\[2, 2\] is inf: 1 of 1600 values are not finite"):
        curve_fit(decay, X, Y, START, with_value(np.diag(SIGMA**2), (2, 2), np.inf), True)


def test_nonfinite_data_of_fit_are_named():
    data = js.Dataset(X, with_value(Y, [7, 11], np.nan))
    with pytest.raises(ValueError, match=r"observed\[7\] is nan: 2 of 40 rows are not finite"):
        js.fit(cf.Exponential(1.0, 1.0), data)


def test_nonfinite_rows_are_omitted():
    x, y, sigma = with_value(X, 3, np.nan), with_value(Y, [7, 11], np.inf), with_value(SIGMA, 20, np.nan)
    popt, pcov, solution = solved(decay, x, y, START, sigma, True, nan_policy="omit")
    keep = np.isfinite(x + y + sigma)
    masked = js.Dataset(jnp.asarray(X), jnp.asarray(Y), js.Diagonal(jnp.asarray(SIGMA)), jnp.asarray(keep))
    chi2 = float(np.sum(((decay(X, *popt) - Y) / SIGMA)[keep] ** 2))
    assert solution.num_data == 36 == int(masked.mask.sum())
    assert np.isclose(solution.chi2, chi2)
    columns = np.stack([np.exp(-popt[1] * X), -popt[0] * X * np.exp(-popt[1] * X), np.ones(N)], 1)[keep] / 0.05
    gradient = columns.T @ ((decay(X, *popt) - Y) / SIGMA)[keep]
    assert np.all(np.abs(gradient) < 1e-9)
    np.testing.assert_allclose(pcov, np.linalg.inv(columns.T @ columns), rtol=1e-8)
    with pytest.raises(ValueError, match="Every row is masked"):
        curve_fit(decay, x, y * np.nan, START, sigma, True, nan_policy="omit")


def test_nonfinite_rows_inside_jit_spoil_their_own_lane_only(clean):
    ys = np.stack([Y, with_value(Y, 5, np.nan), Y])
    fits = quick_jit(jax.vmap(lambda y: solved(decay, X, y, START, SIGMA, True)))
    popt, pcov, solution = fits(ys)
    assert solution.success.tolist() == [True, False, True]
    assert js.RESULTS[js.RESULTS.nonfinite_data] in js.RESULTS[jax.tree.map(lambda v: v[1], solution.result)]
    assert np.isnan(popt[1]).all()
    assert np.isnan(pcov[1]).all()
    for lane in (0, 2):
        np.testing.assert_allclose(popt[lane], clean[0], rtol=1e-12)
        np.testing.assert_allclose(pcov[lane], clean[1], rtol=1e-10)


# --- parameters without effect, too few data ---


def test_parameters_without_effect_or_only_together():
    def f(x, a, b, c, d):
        return (a + b) * x + c + 0 * d

    start = [1.0, 1.0, 0.0, 5.0]
    with pytest.warns(UserWarning, match=r"do not determine a, b, d \(rank 2 of 4\)"):
        popt, pcov, solution = solved(f, X, Y, start, SIGMA, True)
    assert solution.rank == 2
    assert popt[3] == 5.0  # the step of minimum norm leaves it where it was
    assert abs(popt[0] - popt[1]) < 1e-2 * abs(popt[0] + popt[1] - 2)  # hardly any of the move is along the valley
    assert np.isinf(np.diagonal(pcov)).tolist() == [True, True, False, True]
    line, matrix = np.polyfit(X, Y, 1), np.linalg.inv(np.vander(X, 2).T @ np.vander(X, 2)) * 0.05**2
    # no polishing where a direction is undetermined: the solver's rtol of 1e-8 in units of the noise is what is left
    assert (np.abs(np.array([popt[0] + popt[1], popt[2]]) - line) < 1e-7 * np.sqrt(np.diagonal(matrix))).all()
    np.testing.assert_allclose(pcov[2, 2], matrix[1, 1], rtol=1e-10)


def test_fewer_data_than_parameters():
    with pytest.warns(UserWarning, match="do not determine"):
        popt, pcov, solution = solved(decay, X[:2], Y[:2], START, SIGMA[:2], True)
    np.testing.assert_allclose(decay(X[:2], *popt), Y[:2], rtol=1e-9)
    assert solution.rank == 2
    assert np.isinf(np.diagonal(pcov)).any()


def test_as_many_data_as_parameters():
    few = [0, 10, 30]
    with pytest.warns(UserWarning, match="pcov is infinite"):
        popt, pcov = curve_fit(decay, X[few], Y[few], START, SIGMA[few])
    np.testing.assert_allclose(decay(X[few], *popt), Y[few], rtol=1e-9)
    assert np.isinf(pcov).all()
    _, absolute = curve_fit(decay, X[few], Y[few], START, SIGMA[few], True)
    assert np.isfinite(absolute).all()
    box = {"b": (0.8, 0.8)}
    with pytest.warns(UserWarning, match="pcov is infinite"):
        _, pcov, solution = solved(decay, X[few[:2]], Y[few[:2]], [1.0, 0.8, 0.0], bounds=box)
    free = np.array([True, False, True])
    assert np.isinf(np.asarray(pcov)[np.ix_(free, free)]).all()
    assert np.all(np.asarray(pcov)[~free] == 0)
    assert solution.dof == 0


def test_exact_data_do_not_make_a_lost_parameter_certain():
    matrix = jnp.array([[4.0, 0.0, np.nan], [0.0, 1.0, np.nan], [np.nan, np.nan, np.inf]])
    none, one = jnp.zeros(3, bool), jnp.array([False, True, False])
    exact = scaled_by_scatter(matrix, none, jnp.asarray(0.0), jnp.asarray(5))
    assert np.diagonal(exact).tolist() == [0.0, 0.0, np.inf]
    assert np.isinf(scaled_by_scatter(matrix, none, jnp.asarray(1.0), jnp.asarray(0))).all()
    held = np.asarray(scaled_by_scatter(jnp.zeros((3, 3)), one, jnp.asarray(1.0), jnp.asarray(0)))
    assert np.all(held[1] == 0)
    assert np.isinf(held[np.ix_([0, 2], [0, 2])]).all()


def test_empty():
    with pytest.raises(ValueError, match="ydata is empty"):
        curve_fit(decay, X[:0], Y[:0])


# --- starts and bounds ---


def test_start_outside_bounds(clean):
    box = ([0.0, 0.0, -1.0], [9.0, 9.0, 9.0])
    with pytest.warns(UserWarning, match="the start of a, c lay outside its bounds and was moved"):
        popt, _, solution = solved(decay, X, Y, [-5.0, 1.0, 11.0], SIGMA, True, bounds=box)
    assert solution.projected.tolist() == [True, False, True]
    np.testing.assert_allclose(popt, clean[0], rtol=1e-9)
    with pytest.raises(ValueError, match="p0: the start of a, c lies outside its bounds"):
        curve_fit(decay, X, Y, [-5.0, 1.0, 11.0], SIGMA, True, bounds=box, strict=True)
    fixed = ([0.0, 0.8, -1.0], [9.0, 0.8, 9.0])
    popt, pcov, solution = solved(decay, X, Y, [1.0, 0.8, 0.0], SIGMA, True, bounds=fixed)
    assert popt[1] == 0.8
    assert solution.fixed.tolist() == [False, True, False]
    assert solution.standard_errors[1] == 0
    assert np.all(pcov[1] == 0)
    columns = np.stack([np.exp(-0.8 * X), np.ones(N)], 1)
    expected = np.linalg.lstsq(columns, Y)[0]
    np.testing.assert_allclose(popt[jnp.array([0, 2])], expected, rtol=1e-10)


def test_bounds_that_cross():
    with pytest.raises(ValueError, match=r"bounds: the lower bound 3\.0 of b lies above its upper bound 2\.0"):
        curve_fit(decay, X, Y, START, bounds=([0, 3, 0], [1, 2, 3]))
    with pytest.raises(ValueError, match=r"lower bounds have shape \(2,\), but there are 3 parameters \(a, b, c\)"):
        curve_fit(decay, X, Y, START, bounds=([0, 3], [4, 4]))
    with pytest.raises(ValueError, match="no parameter 'aa'; did you mean 'a'"):
        curve_fit(decay, X, Y, START, bounds={"aa": (0, 1)})


def test_start_of_the_wrong_length_or_not_finite():
    with pytest.raises(ValueError, match=r"decay takes 3 parameters \(a, b, c\), but p0 has 2 values"):
        curve_fit(decay, X, Y, [1.0, 2.0])
    with pytest.raises(ValueError, match=r"p0\[1\] is nan"):
        curve_fit(decay, X, Y, [1.0, np.nan, 0.0], SIGMA, True)


# --- sigma, shapes ---


@pytest.mark.parametrize("value", [0.0, -1.0])
def test_sigma_not_positive(value):
    with pytest.raises(ValueError, match=rf"sigma\[4\] is {value}: 1 of 40 values are not positive"):
        curve_fit(decay, X, Y, START, with_value(SIGMA, 4, value), True)
    with pytest.raises(ValueError, match=rf"sigma is {value}: 1 of 1 values are not positive"):
        curve_fit(decay, X, Y, START, value, True)


def test_shapes_that_do_not_match():
    with pytest.raises(ValueError, match=r"ydata has shape \(40, 1\), xdata has shape \(40,\)"):
        curve_fit(decay, X, Y[:, None])
    with pytest.raises(ValueError, match=r"xdata has shape \(39,\), ydata has shape \(40,\)"):
        curve_fit(decay, X[1:], Y)
    with pytest.raises(ValueError, match=r"sigma has shape \(39,\), ydata has shape \(40,\)"):
        curve_fit(decay, X, Y, sigma=SIGMA[1:])
    with pytest.raises(ValueError, match=r"decay\(inputs\) has shape \(40, 1\), observed has shape \(40,\)"):
        curve_fit(decay, X[:, None], Y)


def test_words_that_are_unknown():
    words = {"loss": "hubert", "method": "dogbix", "nan_policy": "drop", "jac": "4-point", "f_scale": -1.0}
    for word, value in words.items():
        with pytest.raises(ValueError, match=word):
            curve_fit(decay, X, Y, START, **({"loss": "huber"} | {word: value}))
    with pytest.raises(TypeError, match=r"hands an array or a parameter to NumPy .* in jax\.numpy"):
        curve_fit(lambda x, a: np.exp(a * x), X, Y)
    with pytest.raises(ValueError, match="ydata should hold real numbers"):
        curve_fit(decay, X, Y + 1j)


# --- models that are not finite ---


def test_model_not_finite():
    def f(x, a, b):
        return a * jnp.sqrt(x - b)

    y = np.asarray(f(X + 1, 2.0, 0.5))
    with pytest.raises(ValueError, match=r"f is nan at row 0 for the starting values \(10 of 40 rows"):
        curve_fit(f, X + 1, y, [1.0, 1.95])
    popt, _ = curve_fit(f, X + 1, y, [9.0, 0.999])  # the first steps lead beyond x = 1
    np.testing.assert_allclose(popt, [2, 0.5], rtol=1e-9)
    with pytest.raises(ValueError, match="The model, or its derivative, is not finite at the starting values"):
        curve_fit(f, X + 1, y, [1.0, 1.0])  # the root is 0 at row 0, its derivative infinite


# --- scales and types ---


def test_scales_that_differ_by_1e12():
    def f(x, a, b, c):
        return 1e6 * a * jnp.exp(-1e-6 * b * x) + c

    truth = np.array([2e-6, 0.8e6, 0.3])
    popt, pcov = curve_fit(f, X, Y, [1e-6, 1e6, 0.0], SIGMA, True)
    plain, matrix = curve_fit(decay, X, Y, START, SIGMA, True)
    scale = np.array([1e-6, 1e6, 1])
    np.testing.assert_allclose(popt, plain * scale, rtol=1e-9)
    np.testing.assert_allclose(pcov, matrix * np.outer(scale, scale), rtol=1e-7)
    assert np.all(np.abs(popt - truth) < 5 * np.sqrt(np.diagonal(pcov)))


def test_float32_under_x64(clean):
    single = np.float32
    popt, pcov = curve_fit(decay, X.astype(single), Y.astype(single), START, SIGMA.astype(single), True)
    assert popt.dtype == pcov.dtype == single
    errors = np.sqrt(np.diagonal(clean[1]))
    assert np.all(np.abs(np.asarray(popt) - np.asarray(clean[0])) < 1e-2 * errors)
    np.testing.assert_allclose(
        np.asarray(pcov) / np.outer(errors, errors), clean[1] / np.outer(errors, errors), atol=1e-3
    )
    mixed, _ = jax.eval_shape(lambda y: curve_fit(decay, X.astype(single), y, START, SIGMA), Y)
    assert mixed.dtype == float


def test_integers():
    x = np.arange(N)
    popt, _ = curve_fit(lambda x, a, b: a * x + b, x, 3 * x - 7, [1, 1])
    assert popt.dtype == float
    np.testing.assert_allclose(popt, [3, -7], rtol=1e-12)


# --- exact data, early stop ---


def test_exact_data(clean):
    exact = np.asarray(decay(X, 2.0, 0.8, 0.3))
    popt, _, solution = solved(decay, X, exact, START, SIGMA, True)
    assert solution.success
    np.testing.assert_allclose(popt, [2, 0.8, 0.3], rtol=1e-12)
    popt, _, solution = solved(decay, X, exact, [2.0, 0.8, 0.3], SIGMA, True)
    assert solution.success
    assert solution.num_steps <= 2
    again = solved(decay, X, Y, clean[0], SIGMA, True)[2]
    assert again.success
    assert again.num_steps <= 3
    np.testing.assert_allclose(again.y, clean[0], rtol=1e-13)


def test_early_stop(clean):
    with pytest.raises(RuntimeError, match="had not converged when it reached max_steps"):
        curve_fit(decay, X, Y, START, SIGMA, True, max_nfev=3)
    with warnings.catch_warnings():
        popt, _, solution = solved(decay, X, Y, START, SIGMA, True, max_nfev=3, throw=False)
    assert solution.result == js.RESULTS.max_steps_reached
    assert solution.num_steps == 3
    np.testing.assert_allclose(solution.model(X), decay(X, *popt), rtol=1e-14)
    assert clean[2].cost < solution.cost < np.sum(((decay(X, *START) - Y) / SIGMA) ** 2) / 2
    assert np.isfinite(popt).all()


def test_large_problem():
    x = np.linspace(0, 4, 400_000)
    popt, _ = curve_fit(lambda x, a, b: a * jnp.exp(-b * x), x, 2 * np.exp(-0.8 * x))
    np.testing.assert_allclose(popt, [2, 0.8], rtol=1e-12)
