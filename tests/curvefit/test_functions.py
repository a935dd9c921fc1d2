"""Every model of the library: a new one is a line in the table, and all invariants run on it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
from helpers import close, jacobian, quick_jit, to_float32

import jaxsci as js
from jaxsci import curvefit as cf
from jaxsci.curvefit._faddeeva import faddeeva

N = 200
WIDE = np.linspace(-4.0, 6.0, N)
POSITIVE = np.linspace(0.05, 8.0, N)
_GRID = np.stack(np.meshgrid(np.linspace(-4, 6, 20), np.linspace(-5, 5, 10)), -1).reshape(-1, 2)


def _rotated(p, a, x0, y0, su, sv, angle):
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    u, v = turn @ (p - [x0, y0]).T
    return a * np.exp(-((u / su) ** 2) / 2 - (v / sv) ** 2 / 2)


# model, inputs, the formula in NumPy, how near an estimate from clean data comes (relative; the largest is the rule)
TABLE = [
    (cf.Constant(1.5), WIDE, lambda x, c: np.full_like(x, c), 1e-6),
    (cf.Line(0.7, -1.2), WIDE, lambda x, a, b: a * x + b, 1e-5),
    (cf.Polynomial([1.0, -0.5, 0.25]), WIDE, lambda x, *c: np.polynomial.polynomial.polyval(x, c), 1e-4),
    (cf.Gaussian(3.0, 1.1, 0.8), WIDE, lambda x, a, c, s: a * np.exp(-(((x - c) / s) ** 2) / 2), 0.05),
    (cf.Gaussian2D(3.0, 1.1, -0.4, 1.7, 0.9, 0.5), _GRID, _rotated, 0.3),
    (cf.Lorentzian(-2.0, 1.1, 0.6), WIDE, lambda x, a, c, g: a / (1 + ((x - c) / g) ** 2), 0.1),
    (cf.Voigt(4.0, 1.1, 0.5, 0.4), WIDE, lambda x, a, c, s, g: a * scipy.special.voigt_profile(x - c, s, g), 0.3),
    (cf.Moffat(3.0, 1.1, 1.3, 3.0), WIDE, lambda x, a, c, w, p: a * (1 + ((x - c) / w) ** 2) ** -p, 0.3),
    (
        cf.Lognormal(3.0, 2.1, 0.4),
        POSITIVE,
        lambda x, a, c, s: a * np.exp(-(np.log(x / c) ** 2) / (2 * s * s)),
        0.1,
    ),
    (cf.Exponential(-3.0, 2.1), POSITIVE, lambda x, a, t: a * np.exp(-x / t), 1e-4),
    (
        cf.BiExponential(3.0, 0.4, 1.5, 3.0),
        POSITIVE,
        lambda x, a, s, b, t: a * np.exp(-x / s) + b * np.exp(-x / t),
        0.1,
    ),
    (cf.StretchedExponential(3.0, 2.1, 0.7), POSITIVE, lambda x, a, t, b: a * np.exp(-((x / t) ** b)), 0.3),
    (cf.PowerLaw(3.0, -1.4), POSITIVE, lambda x, a, b: a * x**b, 1e-4),
    (cf.Logistic(3.0, 1.1, 0.6), WIDE, lambda x, a, c, w: a / (1 + np.exp(-(x - c) / w)), 0.05),
    (cf.Gompertz(3.0, 2.5, 0.9), POSITIVE, lambda x, a, b, c: a * np.exp(-b * np.exp(-c * x)), 0.1),
    (cf.MichaelisMenten(3.0, 1.2), POSITIVE, lambda x, v, k: v * x / (k + x), 1e-4),
    (cf.Hill(3.0, 1.5, 2.2), POSITIVE, lambda x, a, k, n: a * x**n / (k**n + x**n), 0.3),
    (cf.Sinusoid(3.0, 0.63, 0.4), WIDE, lambda x, a, f, p: a * np.sin(2 * np.pi * f * x + p), 0.05),
]
EVERY = pytest.mark.parametrize(("model", "x", "formula", "near"), TABLE, ids=[type(row[0]).__name__ for row in TABLE])


def flat(model):
    """The parameters of a model in one vector."""
    return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(model)])


@quick_jit
def value_and_derivative(model, x):
    return model(x), jax.jacfwd(lambda m: m(x))(model)


@quick_jit
def value_and_estimate(model, x):
    y = model(x)
    return y, cf.estimate(model, x, y)


@quick_jit
def estimates(model, x, ys):
    return cf.estimate(model, x, ys[0]), jax.vmap(lambda y: cf.estimate(model, x, y))(ys)


def test_the_table_has_every_model():
    exported = {
        v for v in (getattr(cf, name) for name in cf.__all__) if isinstance(v, type) and issubclass(v, js.AbstractModel)
    }
    assert exported == {type(row[0]) for row in TABLE}


@EVERY
def test_value_and_derivative(model, x, formula, near):
    del near
    value, derivative = value_and_derivative(model, x)
    np.testing.assert_allclose(value, formula(x, *flat(model)), rtol=1e-10)
    columns = [np.reshape(leaf, (N, -1)) for leaf in jax.tree.leaves(derivative)]
    expected = jacobian(lambda p: formula(x, *p), flat(model), 1e-3)
    np.testing.assert_allclose(np.concatenate(columns, 1), expected, atol=1e-7)


@EVERY
def test_declared_parameters(model, x, formula, near):
    del x, formula, near
    about = js.parameters(model)
    assert sum(np.size(js.get(model, name)) for name in about) == flat(model).size
    assert all(parameter.doc for parameter in about.values())
    assert type(model).__doc__


@EVERY
def test_float32(model, x, formula, near):
    del near
    single, start = value_and_estimate(to_float32(model), x.astype(np.float32))
    assert single.dtype == np.float32
    np.testing.assert_allclose(single, formula(x, *flat(model)), rtol=2e-4, atol=2e-5)
    assert {leaf.dtype for leaf in jax.tree.leaves(start)} == {np.dtype(np.float32)}
    assert np.all(np.isfinite(flat(start)))


@EVERY
def test_estimate(model, x, formula, near):
    truth = flat(model)
    y = formula(x, *truth)
    noisy = y + 0.03 * np.random.default_rng(3).normal(size=N)
    start, many = estimates(model, x, np.stack([y, noisy]))
    assert type(start) is type(model)
    assert np.all(np.abs(flat(start) - truth) <= near * np.maximum(np.abs(truth), 0.5))
    close(jax.tree.map(lambda v: v[0], many), start, 1e-9)
    residual = formula(x, *flat(jax.tree.map(lambda v: v[1], many))) - y
    assert np.sum(residual**2) < 0.1 * np.sum((y - y.mean()) ** 2) + N * 0.03**2


def test_estimate_complains():
    with pytest.raises(ValueError, match="give the degree of the Polynomial"):
        cf.estimate(cf.Polynomial, WIDE, WIDE)
    with pytest.raises(ValueError, match="no estimator for Dataset"):
        cf.estimate(js.Dataset, WIDE, WIDE)
    start = cf.estimate(cf.Polynomial, [0, 1, 2, 3], [1, 2, 5, 10], degree=2)
    np.testing.assert_allclose(start.c, [1, 0, 1], atol=1e-6)


def test_points_where_a_formula_has_no_logarithm():
    x = jnp.array([-1.0, 0.0, 1.0])
    for model, left in (
        (cf.Lognormal(3.0, 2.1, 0.4), 0.0),
        (cf.StretchedExponential(3.0, 2.1, 0.7), 3.0),
        (cf.Hill(3.0, 1.5, 2.2), 0.0),
    ):
        value, derivative = value_and_derivative(model, x)
        assert value[:2].tolist() == [left, left]
        assert np.isfinite(flat(derivative)).all()


def test_faddeeva_against_scipy():
    x, y = np.meshgrid(
        np.concatenate([np.linspace(-9, 9, 361), [20.0, 1e4]]), [0, 1e-9, 1e-4, 0.05, 0.3, 1, 3, 6.1, 6.2, 40]
    )
    real, imag = quick_jit(faddeeva)(x, y)
    expected = scipy.special.wofz(x + 1j * y)
    np.testing.assert_allclose(real, expected.real, rtol=1e-12, atol=1e-300)
    np.testing.assert_allclose(imag, expected.imag, rtol=1e-12, atol=1e-14)
    by_x, by_y = quick_jit(jax.vmap(jax.grad(lambda x, y: faddeeva(x, y)[0], (0, 1))))(x.ravel(), y.ravel())
    slope = (2j / np.sqrt(np.pi) - 2 * (x + 1j * y) * expected).ravel()
    np.testing.assert_allclose(by_x, slope.real, atol=1e-12)
    np.testing.assert_allclose(by_y, -slope.imag, atol=1e-12)
