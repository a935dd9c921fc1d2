"""Calls written for scipy, and what scipy takes: the same answers, or a word that names the thing."""

import math
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize

import jaxsci as js
from jaxsci.curvefit import Gaussian, curve_fit, least_squares

N = 40
X = np.linspace(0, 4, N)
Y = 2 * np.exp(-0.8 * X) + 0.3 + np.random.default_rng(0).normal(0, 0.05, N)
START = [1.0, 1.0, 0.0]
WHOLE = (-np.inf, np.inf)


def decay(x, a, b, c):
    return a * jnp.exp(-b * x) + c


def decay_numpy(x, a, b, c):
    return a * np.exp(-b * x) + c


def theirs(*args, **kwargs):
    return scipy.optimize.curve_fit(decay_numpy, *args, ftol=1e-14, xtol=1e-14, gtol=1e-14, **kwargs)


def close(actual, expected, rtol=1e-6):
    np.testing.assert_allclose(actual, expected, rtol=rtol, atol=1e-12)


def test_positional_order():
    sigma = np.full(N, 0.05)
    close(curve_fit(decay, X, Y, START, sigma, True, True, WHOLE, "lm", None)[1], theirs(X, Y, START, sigma, True)[1])
    close(curve_fit(decay, X, Y, method=None, check_finite=False)[0], theirs(X, Y)[0])


@pytest.mark.parametrize("sigma", ["none", "rows", "covariance"])
def test_five_tuple(sigma):
    errors = np.linspace(0.04, 0.06, N)
    given = {"none": None, "rows": errors, "covariance": np.diag(errors**2) + 1e-4}[sigma]
    popt, pcov, info, message, ier = curve_fit(decay, X, Y, START, given, full_output=True)
    peer = scipy.optimize.curve_fit(decay_numpy, X, Y, START, given, full_output=True, method="trf", gtol=1e-14)
    close(popt, peer[0])
    close(pcov, peer[1], 1e-4)
    np.testing.assert_allclose(info["fvec"], peer[2]["fvec"], atol=1e-6 * np.abs(peer[2]["fvec"]).max())
    assert (message, ier) == ("converged", 1)
    assert info["nfev"] == info["solution"].num_steps
    assert info["solution"].model(X[:7]).shape == (7,)
    *_, message, ier = curve_fit(decay, X, Y, START, maxfev=3, full_output=True, throw=False)
    assert "max_steps" in message
    assert ier == 0
    lanes = jax.jit(jax.vmap(lambda y: curve_fit(decay, X, y, START, given, full_output=True)))(np.stack([Y, Y]))
    close(lanes[0][1], popt)
    assert lanes[4].tolist() == [True, True]


def test_words_that_run_something_else_say_so():
    with pytest.warns(UserWarning, match="'dogbox' is jaxsci.TRF here"):
        popt, _ = curve_fit(decay, X, Y, START, method="dogbox")
    for word in ("2-point", "3-point", "cs"):
        with pytest.warns(UserWarning, match="exact derivatives are taken"):
            again, _ = curve_fit(decay, X, Y, START, jac=word)
        assert again.tolist() == popt.tolist()
    with pytest.warns(UserWarning, match="exact derivatives are taken"):
        least_squares(lambda x: x - 1, [3.0], "2-point")


def test_options_that_do_not_matter_and_others():
    taken = {"x_scale": 2.0, "gtol": 1e-3, "diff_step": 1e-3, "epsfcn": 0.1, "tr_solver": "lsmr", "workers": 2}
    assert curve_fit(decay, X, Y, START, **taken)[0].tolist() == curve_fit(decay, X, Y, START)[0].tolist()
    options = {"diff_step": 1e-3, "tr_solver": "exact", "tr_options": {}, "jac_sparsity": None, "workers": 2}
    close(least_squares(lambda x: x - 1, [3.0], **options).x, [1])
    with pytest.raises(TypeError, match="curve_fit has no argument 'sigmma'; did you mean 'sigma'"):
        curve_fit(decay, X, Y, START, sigmma=1)
    with pytest.raises(ValueError, match="curve_fit does not take col_deriv"):
        curve_fit(decay, X, Y, START, col_deriv=True)
    with pytest.raises(ValueError, match="maxfev and max_nfev are the same"):
        curve_fit(decay, X, Y, START, maxfev=9, max_nfev=9)
    for wrong in (0, -1, True):
        with pytest.raises(ValueError, match="max_nfev should be a positive whole number"):
            curve_fit(decay, X, Y, START, max_nfev=wrong)
    with pytest.raises(ValueError, match=r"ydata\[3\] is nan"):
        curve_fit(decay, X, np.where(np.arange(N) == 3, np.nan, Y), START, None, False, True, nan_policy="omit")


def test_shapes_that_scipy_takes():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # one datum leaves no scatter
        close(curve_fit(lambda x, a: a * x, 2.0, 6.0)[0], [3])
    close(curve_fit(lambda x, a: a * x, X, 0.0, [1.0])[0], [0])
    close(curve_fit(lambda x, a, b: a * X + b, None, 2 * X - 1)[0], [2, -1])
    close(curve_fit(lambda x, a: a, None, Y)[0], [Y.mean()])
    u, v = np.meshgrid(np.arange(8.0), np.arange(5.0))
    plane = 2 * u - 3 * v + 1
    close(curve_fit(lambda x, a, b, c: (a * x[0] + b * x[1] + c).ravel(), (u, v), plane.ravel())[0], [2, -3, 1])
    close(curve_fit(lambda x, a, c: (a * x + c).ravel(), u, (4 * u + 2).ravel())[0], [4, 2])
    hole = np.where(np.arange(N) == 7, np.nan, plane.ravel())
    several = curve_fit(lambda x, a, b, c: (a * x[0] + b * x[1] + c).ravel(), np.stack([u, v]), hole, nan_policy="omit")
    close(several[0], [2, -3, 1])


def test_infinite_sigma_is_no_weight():
    sigma, y = np.full(N, 0.05), Y.copy()
    sigma[[3, 9]], y[3] = np.inf, 1e6
    popt, pcov, info, *_ = curve_fit(decay, X, y, START, sigma, True, full_output=True)
    expected = theirs(np.delete(X, [3, 9]), np.delete(Y, [3, 9]), START, np.full(N - 2, 0.05), True)
    close(popt, expected[0])
    close(pcov, expected[1], 1e-5)
    assert info["solution"].num_data == N - 2
    assert np.asarray(info["fvec"])[[3, 9]].tolist() == [0, 0]


@pytest.mark.parametrize("name", ["xdata", "ydata", "sigma", "columns"])
def test_masked_arrays_leave_rows_out(name):
    mask = np.isin(np.arange(N), [5, 11])
    spoiled = {"x": X, "y": Y, "s": np.full(N, 0.05)}
    which = {"xdata": "x", "ydata": "y", "sigma": "s", "columns": "x"}[name]
    spoiled[which] = np.ma.array(np.where(mask, np.nan, spoiled[which]), mask=mask)
    x, f = (
        (spoiled["x"], decay) if name != "columns" else ({"t": spoiled["x"]}, lambda x, a, b, c: decay(x["t"], a, b, c))
    )
    popt, pcov = curve_fit(f, x, spoiled["y"], START, spoiled["s"], True)
    expected = theirs(X[~mask], Y[~mask], START, np.full(N - 2, 0.05), True)
    close(popt, expected[0])
    close(pcov, expected[1], 1e-5)


def test_units_and_complex_numbers_are_refused_by_name():
    units = pytest.importorskip("astropy.units")
    second = units.s
    for name, call in {
        "xdata": lambda: curve_fit(decay, X * second, Y),
        "ydata": lambda: curve_fit(decay, X, Y * second),
        "sigma": lambda: curve_fit(decay, X, Y, sigma=X * second),
        "p0": lambda: curve_fit(decay, X, Y, [1 * second, 1, 1]),
        "lower bounds": lambda: curve_fit(decay, X, Y, bounds=([0, 0, 0] * second, 9)),
        "args": lambda: least_squares(lambda x, k: x - k, [1.0], args=(2 * second,)),
        "x0": lambda: least_squares(lambda x: x - 1, [1.0] * second),
    }.items():
        with pytest.raises(ValueError, match=f"{name} is a .*Quantit"):
            call()
    close(curve_fit(decay, X * units.dimensionless_unscaled, Y)[0], theirs(X, Y)[0])
    for name, call in {
        "ydata": lambda: curve_fit(decay, X, jnp.asarray(Y + 1j)),
        "p0": lambda: curve_fit(decay, X, Y, [1, 1, 1j]),
        "x0": lambda: least_squares(lambda x: x - 1, 2 + 3j),
    }.items():
        with pytest.raises(ValueError, match=rf"{name} (is complex|should hold real numbers, but it is complex)"):
            call()
    for call in (
        lambda: curve_fit(lambda x, a: jax.lax.complex(a * x, x), X, Y),
        lambda: least_squares(lambda x: jax.lax.complex(x, x), [1.0]),
    ):
        with pytest.raises(ValueError, match="returns complex numbers, but residuals are real"):
            call()
    with pytest.raises(ValueError, match="args is a masked array"):
        least_squares(lambda x, y: x - y, [1.0], args=(np.ma.array([1.0, 2.0], mask=[True, False]),))


# --- misuse, in words ---


@pytest.mark.parametrize(
    ("f", "error", "words"),
    [
        (
            lambda x, a: np.exp(a * x),
            TypeError,
            "f hands an array or a parameter to NumPy .*function of the same name in jax.numpy",
        ),
        (
            lambda x, a: a * x if a > 0 else x,
            TypeError,
            "f decides by the value of an array or a parameter .* jnp.where",
        ),
        (lambda x, a: math.exp(a) * x, TypeError, r"f hands .* to NumPy or Python \(np.exp, math.exp"),
        (lambda x, a: jnp.zeros(int(a)), TypeError, r"f hands .* to NumPy or Python .*int\(\)"),
        (
            lambda x, a: sum(x**k for k in range(a)),
            TypeError,
            r"f counts or indexes .* \(range.* whole number .* jnp.where",
        ),
        (
            lambda x, a: jnp.zeros(a),
            TypeError,
            r"f counts or indexes by the value of an array or a parameter .* a shape",
        ),
        (lambda x, a: x * [1.0, 2.0][a], TypeError, r"f counts or indexes .* jnp.take"),
        (lambda x, a: None, ValueError, "f returns nothing"),
        (lambda x, a: "a", ValueError, "f returns str 'a'"),
        (lambda x, a: (x, a * x), ValueError, "f returns a tuple, but it should return one array"),
        (lambda x, a: jnp.ones((2, 3)), ValueError, r"has shape \(2, 3\), observed has shape \(40,\)"),
        (lambda x: x, ValueError, "f takes no parameter to fit"),
        (Gaussian, ValueError, "the function to fit is the class Gaussian"),
        (Gaussian(1.0, 0.0, 1.0), ValueError, "Gaussian is a model with parameters of its own: fit it by jaxsci.fit"),
    ],
)
def test_functions_that_cannot_be_fitted(f, error, words):
    with pytest.raises(error, match=words):
        curve_fit(f, X, Y)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"loss": js.Huber}, "loss is the class Huber: give an instance"),
        ({"loss": lambda z: z}, "a loss that is a function rho"),
        ({"method": js.TRF}, "method is the class TRF: give an instance"),
        ({"method": "lmm"}, "did you mean 'lm'"),
        ({"bounds": (0, 1, 2)}, "a pair .* but it is 3 items"),
        ({"bounds": 5}, "a pair .* but it is int 5"),
        ({"bounds": None}, "a pair .* but it is None"),
        ({"bounds": ("a", "b")}, "the lower bounds should be a number"),
        ({"bounds": {"a": 3}}, "bounds of a should be a pair"),
        ({"bounds": ([0, 0], [1, 1])}, r"lower bounds have shape \(2,\), but there are 3 parameters"),
    ],
)
def test_options_that_make_no_sense(options, words):
    with pytest.raises(ValueError, match=words):
        curve_fit(decay, X, Y, START, **options)


def test_data_of_two_axes():
    with pytest.raises(ValueError, match=r"ydata has shape \(2, 40\), xdata has shape \(40,\): .* ravel it"):
        curve_fit(decay, X, np.stack([Y, Y]))


# --- least_squares ---


def test_least_squares_takes_what_scipy_takes():
    flat = least_squares(lambda x: x[0] - jnp.arange(3.0), [5.0], lambda x: jnp.ones(3))
    close(flat.x, [1])
    one = least_squares(lambda x: x[0] + x[1] - 1, [5.0, 1.0], lambda x: jnp.ones(2))
    close(one.x.sum(), 1)
    close(one["x"], one.x)
    assert bool(one["success"])
    assert one["message"] == "converged"
    with pytest.raises(KeyError, match="xx"):
        one["xx"]
    mixed = least_squares(lambda x, k, how, g: g(x) - k if how == "log" else x, [5.0], args=(2.0, "log", jnp.exp))
    close(mixed.x, [math.log(2)])
    with pytest.raises(ValueError, match=r"jac has shape \(2, 2\), but f has shape \(3,\) and 1 parameters"):
        least_squares(lambda x: x[0] - jnp.arange(3.0), [5.0], lambda x: jnp.ones((2, 2)))


def test_least_squares_refuses_an_infeasible_start():
    with pytest.raises(ValueError, match=r"infeasible|outside of provided bounds"):
        scipy.optimize.least_squares(lambda x: x - 1, [5.0, 0.0], bounds=(0, [2, 3]))
    with pytest.raises(ValueError, match=r"x0 is infeasible: x\[0\] starts at 5.0, outside its bounds 0.0 and 2.0"):
        least_squares(lambda x: x - 1, [5.0, 0.0], bounds=(0, [2, 3]))
    inside = jax.jit(lambda start: least_squares(lambda x: x - 1, start, bounds=(0, jnp.array([2.0, 3.0]))).x)
    close(inside(jnp.array([5.0, 0.0])), [1, 1])
