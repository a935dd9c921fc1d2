"""curve_fit against scipy, and under the transformations."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize
from helpers import compiles, derivative, quick_jit, solved

import jaxsci as js
from jaxsci.curvefit import curve_fit

TIGHT = {"ftol": 1e-14, "xtol": 1e-14, "gtol": 1e-14}
BOX = ([0.0, 0.0, 0.35], [5.0, 1.0, 1.0])  # the lower bound of c is active


def decay(x, a, b, c):
    return a * jnp.exp(-b * x) + c


def decay_numpy(x, a, b, c):
    return a * np.exp(-b * x) + c


def decay_jacobian(x, a, b, c):
    return np.stack([np.exp(-b * x), -a * x * np.exp(-b * x), np.ones_like(x)], 1)


def gaussian(x, height, center, sigma):
    return height * jnp.exp(-(((x - center) / sigma) ** 2) / 2)


def gaussian_numpy(x, height, center, sigma):
    return height * np.exp(-(((x - center) / sigma) ** 2) / 2)


def gaussian_jacobian(x, height, center, sigma):
    z = (x - center) / sigma
    shape = np.exp(-z * z / 2)
    return np.stack([shape, height * shape * z / sigma, height * shape * z**2 / sigma], 1)


def medium():
    """1000 points of an exponential decay."""
    x = np.linspace(0, 10, 1000)
    return x, decay_numpy(x, 2, 0.5, 0.3) + np.random.default_rng(42).normal(0, 0.05, 1000)


def large():
    """10000 points of a Gaussian."""
    x = np.linspace(-10, 10, 10_000)
    return x, gaussian_numpy(x, 5, 0, 2) + np.random.default_rng(42).normal(0, 0.1, 10_000)


X, Y = medium()
ERRORS = np.random.default_rng(1).uniform(0.5, 2, 1000) * 0.05
SMALL = slice(0, 1000, 25)


def newton(y, popt, sigma=1.0, loss="linear", held=()):
    """The optimum to rounding: Newton's method on the gradient from a point close to it."""
    free = [k for k in range(3) if k not in held]

    def gradient(p):
        z = (decay_numpy(X, *p) - y) / sigma
        weight = {
            "linear": lambda z: 1,
            "soft_l1": lambda z: (1 + z * z) ** -0.5,
            "huber": lambda z: np.minimum(1, 1 / np.abs(z)),
            "cauchy": lambda z: 1 / (1 + z * z),
            "arctan": lambda z: 1 / (1 + z**4),
        }[loss](z)
        return (decay_jacobian(X, *p).T @ (weight * z / sigma))[free]

    p = np.array(popt, float)
    for _ in range(5):
        steps = np.eye(3)[free] * 1e-5
        hessian = np.stack([(gradient(p + s) - gradient(p - s)) / 2e-5 for s in steps], 1)
        p[free] -= np.linalg.solve(hessian, gradient(p))
    return p


@pytest.mark.parametrize(
    ("problem", "f", "peer", "jacobian", "start", "options"),
    [
        (medium, decay, decay_numpy, decay_jacobian, [1.0, 1.0, 1.0], {}),
        (medium, decay, decay_numpy, decay_jacobian, [1.0, 1.0, 1.0], {"bounds": (0, [9.0, 3, 5])}),
        (large, gaussian, gaussian_numpy, gaussian_jacobian, [4.0, 0.5, 1.5], {}),
    ],
)
def test_medium_and_large_like_scipy(problem, f, peer, jacobian, start, options):
    x, y = problem()
    near, _ = scipy.optimize.curve_fit(peer, x, y, start, jac=jacobian, method="trf", **TIGHT)
    for _ in range(12):  # scipy stops 6e-8 short of the centre, which is nearly zero
        near = near - np.linalg.lstsq(jacobian(x, *near), peer(x, *near) - y)[0]
    columns = jacobian(x, *near)
    expected = np.linalg.inv(columns.T @ columns) * np.sum((peer(x, *near) - y) ** 2) / (x.size - 3)
    popt, pcov = curve_fit(f, x, y, start, **options)
    np.testing.assert_allclose(popt, near, rtol=1e-10, atol=1e-13)
    errors = np.sqrt(np.diagonal(expected))
    np.testing.assert_allclose(pcov / np.outer(errors, errors), expected / np.outer(errors, errors), 1e-8, 1e-13)


@pytest.mark.parametrize(
    ("kind", "absolute"), [("none", False), ("none", True), ("number", True), ("rows", False), ("rows", True)]
)
def test_sigma(kind, absolute):
    sigma = {"none": None, "number": 0.05, "rows": ERRORS}[kind]
    theirs = None if sigma is None else np.broadcast_to(sigma, Y.shape)
    popt, pcov = curve_fit(decay, X, Y, sigma=sigma, absolute_sigma=absolute)
    reference = scipy.optimize.curve_fit(
        decay_numpy, X, Y, sigma=theirs, absolute_sigma=absolute, jac=decay_jacobian, method="trf", **TIGHT
    )
    exact = newton(Y, reference[0], 1.0 if theirs is None else theirs)
    np.testing.assert_allclose(popt, exact, rtol=1e-11)
    np.testing.assert_allclose(pcov, reference[1], rtol=2e-8)  # scipy's own distance from the optimum


def test_sigma_as_covariance():
    x, y = X[SMALL], Y[SMALL]
    errors = ERRORS[SMALL]
    matrix = np.outer(errors, errors) * np.exp(-np.abs(x[:, None] - x) / 0.5)
    for absolute in (False, True):
        popt, pcov = curve_fit(decay, x, y, sigma=matrix, absolute_sigma=absolute)
        theirs = scipy.optimize.curve_fit(
            decay_numpy, x, y, sigma=matrix, absolute_sigma=absolute, jac=decay_jacobian, method="trf", **TIGHT
        )
        np.testing.assert_allclose(popt, theirs[0], rtol=1e-7)
        np.testing.assert_allclose(pcov, theirs[1], rtol=1e-6)
        whitener = np.linalg.inv(np.linalg.cholesky(matrix))
        gradient = (whitener @ decay_jacobian(x, *popt)).T @ (whitener @ (decay_numpy(x, *popt) - y))
        assert np.all(np.abs(gradient) < 1e-9)
    matrix[0, 1] = matrix[1, 0] = 2 * matrix[0, 0]
    with pytest.raises(ValueError, match="sigma, taken as a covariance matrix, is not positive definite"):
        curve_fit(decay, x, y, sigma=matrix)


@pytest.mark.parametrize("loss", ["soft_l1", "huber", "cauchy", "arctan"])
def test_losses(loss):
    y = Y.copy()
    y[::50] += 2.0
    scale = ERRORS * 1.3
    theirs = scipy.optimize.curve_fit(
        decay_numpy, X, y, sigma=ERRORS, loss=loss, f_scale=1.3, jac=decay_jacobian, method="trf", **TIGHT
    )
    popt, pcov = curve_fit(decay, X, y, sigma=ERRORS, loss=loss, f_scale=1.3)
    np.testing.assert_allclose(popt, newton(y, theirs[0], scale, loss), rtol=1e-10)
    again = scipy.optimize.least_squares(
        lambda p: (decay_numpy(X, *p) - y) / ERRORS,
        np.asarray(popt),
        jac=lambda p: decay_jacobian(X, *p) / ERRORS[:, None],
        loss=loss,
        f_scale=1.3,
        max_nfev=1,
    )
    expected = np.linalg.inv(again.jac.T @ again.jac) * 2 * again.cost / (Y.size - 3)
    np.testing.assert_allclose(pcov, expected, rtol=1e-8)


def test_robust_errors_of_both_doors():
    """curve_fit's are scipy's; those of fit come from its own curvature, which keeps outliers from bending it down."""
    y = Y.copy()
    y[::50] += 2.0
    popt, pcov = curve_fit(decay, X, y, sigma=0.05, absolute_sigma=True, loss="cauchy", f_scale=1.3)
    model = solved(decay, X, y)[2].model
    solution = js.fit(model, js.Dataset(X, y, js.White(0.05)), loss=js.Cauchy(1.3))
    np.testing.assert_allclose(solution.y, popt, rtol=1e-9)
    np.testing.assert_allclose(solution.covariance, pcov, rtol=1e-3)
    assert np.all(np.diagonal(solution.covariance) <= np.diagonal(pcov))


def test_active_bound_like_scipy():
    popt, pcov, solution = solved(decay, X, Y, [1.0, 0.5, 0.5], bounds=BOX)
    theirs = scipy.optimize.curve_fit(decay_numpy, X, Y, [1.0, 0.5, 0.5], bounds=BOX, jac=decay_jacobian, **TIGHT)
    np.testing.assert_allclose(popt, newton(Y, theirs[0] * [1, 1, 0] + [0, 0, 0.35], held=(2,)), rtol=1e-10)
    np.testing.assert_allclose(pcov, theirs[1], rtol=1e-6)
    assert solution.at_bound.tolist() == [0, 0, -1]


def test_methods():
    popt, _ = curve_fit(decay, X, Y, method="lm")
    np.testing.assert_allclose(popt, newton(Y, [2, 0.5, 0.3]), rtol=1e-11)
    bounded, _ = curve_fit(decay, X, Y, [1.0, 0.5, 0.5], method="gn", bounds=BOX)
    np.testing.assert_allclose(bounded, newton(Y, [2, 0.5, 0.35], held=(2,)), rtol=1e-11)


def test_names_come_from_the_function():
    _, _, solution = solved(decay, X, Y)
    assert solution.names == ("a", "b", "c")
    assert "decay: converged" in solution.summary()
    np.testing.assert_allclose(solution.model(X), decay_numpy(X, *solution.y), rtol=1e-14)


def test_bounds_by_name_and_as_an_object():
    by_name, _ = curve_fit(decay, X, Y, bounds={"c": (0.35, None)})
    as_object, _ = curve_fit(decay, X, Y, bounds=scipy.optimize.Bounds([-np.inf, -np.inf, 0.35], np.inf))
    np.testing.assert_array_equal(by_name, as_object)
    assert by_name[2] == 0.35


def test_own_jacobian():
    calls = []

    def jacobian(x, a, b, c):
        calls.append(1)
        e = jnp.exp(-b * x)
        return jnp.stack([e, -a * x * e, jnp.ones_like(x)], 1)

    popt, pcov = curve_fit(decay, X, Y, jac=jacobian)
    plain = curve_fit(decay, X, Y)
    assert calls
    np.testing.assert_allclose(popt, plain[0], rtol=1e-13)
    np.testing.assert_allclose(pcov, plain[1], rtol=1e-12)


def test_several_inputs_and_star_parameters():
    x = np.stack([X[SMALL], np.sin(X[SMALL])])
    y = 2 * x[0] - 3 * x[1] + 1

    def plane(x, *p):
        return p[0] * x[0] + p[1] * x[1] + p[2]

    popt, _ = curve_fit(plane, x, y, np.zeros(3))
    np.testing.assert_allclose(popt, [2, -3, 1], atol=1e-12)
    by_name, _ = curve_fit(lambda x, a: a * x["u"] - 3 * x["v"], {"u": x[0], "v": x[1]}, y - 1)
    np.testing.assert_allclose(by_name, [2], atol=1e-12)
    with pytest.raises(ValueError, match="give p0"):
        curve_fit(plane, x, y)


def test_a_module_is_a_function_too():
    class Scaled(js.Module):
        factor: js.Scalar

        def __call__(self, x, a, b):
            return self.factor * (a * x + b)

    for factor in (2.0, 4.0):
        popt, _ = curve_fit(Scaled(jnp.asarray(factor)), X[SMALL], 3 * X[SMALL] + 1)
        np.testing.assert_allclose(popt, [3 / factor, 1 / factor], rtol=1e-12)


def test_no_recompilation():
    def f(x, a, b):
        return a * jnp.exp(-b * x)

    x, errors = jnp.asarray(X[SMALL]), jnp.asarray(ERRORS[SMALL])
    calls = [(jnp.asarray(Y[SMALL] + k), jnp.array([1.0 + k, 0.1]), errors * (1 + k)) for k in range(3)]
    curve_fit(f, x, calls[0][0], calls[0][1], calls[0][2])

    def again():
        with jax.transfer_guard("disallow"):
            for y, p0, sigma in calls:
                curve_fit(f, x, y, p0, sigma)

    assert compiles(again) == 0


def bounded_fit(y, sigma, upper):
    """(popt, standard errors); the upper bound of c is active."""
    popt, pcov = curve_fit(decay, X[SMALL], y, [1.0, 1.0, 0.1], sigma, True, bounds=(-1.0, [9.0, 9.0, upper]))
    return jnp.concatenate([popt, jnp.sqrt(jnp.diagonal(pcov))])


def test_derivatives_at_an_active_bound_vmapped():
    y, sigma, upper = jnp.asarray(Y[SMALL]), jnp.asarray(ERRORS[SMALL]), jnp.asarray(0.25)
    ys, uppers = jnp.stack([y, y + 0.01]), jnp.stack([upper, upper - 0.01])
    fits = quick_jit(jax.vmap(bounded_fit, (0, None, 0)))
    derivatives = quick_jit(jax.vmap(jax.jacrev(bounded_fit, (0, 1, 2)), (0, None, 0)))(ys, sigma, uppers)
    assert fits(ys, sigma, uppers)[:, 2].tolist() == uppers.tolist()
    along = np.random.default_rng(2).normal(size=y.shape)
    moves = (
        (along, lambda t: fits(ys + np.tile(t * along, (2, 1)), sigma, uppers)),
        (np.asarray(sigma) * along, lambda t: fits(ys, sigma * (1 + t * along), uppers)),
        (np.ones(()), lambda t: fits(ys, sigma, uppers + t)),
    )
    for actual, (direction, moved) in zip(derivatives, moves, strict=True):
        expected = derivative(moved, 0.0, 1e-4)
        np.testing.assert_allclose(np.tensordot(actual, direction, direction.ndim), expected, atol=1e-8)


def test_a_closure_keeps_its_gradient():
    x, y = X[SMALL], 3 * X[SMALL]

    def slope(factor):
        return curve_fit(lambda x, a: factor * a * x, x, y)[0][0]

    value, gradient = quick_jit(jax.value_and_grad(slope))(2.0)
    np.testing.assert_allclose([value, gradient], [1.5, -0.75], rtol=1e-12)
