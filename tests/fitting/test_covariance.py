"""Covariance, rank and what the data do not determine."""

import re
import warnings

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import pytest
from helpers import close, quick_jit
from jaxtyping import Array, Float
from problems import SIGMA, START, TIMES, Line, decay_data, decay_jacobian, decay_set
from scipy.optimize import curve_fit

import jaxsci as js
from jaxsci.core.arrow import Arrow
from jaxsci.fitting import Rows, small_fits, uncertainty
from jaxsci.fitting._uncertainty import propagate

GN = js.GaussNewton()
COMPUTE = quick_jit(lambda rows, fixed: uncertainty(Rows(rows), fixed))


def design(m, p, seed=0):
    return np.random.default_rng(seed).normal(size=(m, p))


@pytest.mark.parametrize("shape", [(5, 1), (12, 3), (40, 9), (3, 3)])
@pytest.mark.parametrize("scale", [1.0, 1e-6, 1e6])
def test_inverse_of_the_normal_matrix(shape, scale):
    jac = design(*shape) * scale
    found = COMPUTE(jnp.asarray(jac), jnp.zeros(shape[1], bool))
    expected = np.linalg.inv(jac.T @ jac)
    close(found.matrix, expected, 1e-8, 1e-10 * np.abs(expected).max())
    assert int(found.rank) == shape[1]
    assert bool(jnp.all(found.determined))


def coupled(lost):
    """A shared parameter and two members with two of their own each; one of the second's says nothing if `lost`."""
    jac = design(30, 5, seed=3) * np.array([1e-3, 1.0, 10.0, 1.0, 1e4])
    jac[:10, 3:] = jac[10:20, 1:3] = 0
    jac[20:, 1:] = 0
    if lost:
        jac[:, 4] = -2e3 * jac[:, 3]
    return jac


@pytest.mark.parametrize("lost", [False, True])
def test_every_form_of_a_curvature_says_the_same(lost):
    """As a dense matrix, by its rows, as an Arrow, and as the separate numbers of small fits."""
    jac = coupled(lost)
    full, free = jac.T @ jac, np.zeros(5, bool)
    whole = uncertainty(jnp.asarray(full), jnp.asarray(free))
    by_rows = uncertainty(Rows(jnp.asarray(jac)), jnp.asarray(free))
    edge = np.stack([full[i : i + 2, :1] for i in (1, 3)])
    block = np.stack([full[i : i + 2, i : i + 2] for i in (1, 3)])
    arrow = Arrow(jnp.asarray(full[:1, :1]), (jnp.asarray(edge),), (jnp.asarray(block),))
    joint = uncertainty(arrow, jnp.asarray(free))
    entries = tuple(jnp.asarray(full[i, j])[None] for i, j in small_fits.pairs(5))
    numbers = uncertainty(entries, (jnp.zeros(1, bool),) * 5)
    expected = [True, True, True, not lost, not lost]
    assert whole.determined.tolist() == by_rows.determined.tolist() == expected
    assert numbers.determined[:, 0].tolist() == expected
    assert int(whole.rank) == int(by_rows.rank) == 5 - lost
    np.testing.assert_allclose(whole.matrix, by_rows.matrix, rtol=1e-8)
    np.testing.assert_allclose(numbers.covariance[..., 0], by_rows.matrix, rtol=1e-8)
    close(joint.shared.matrix, by_rows.matrix[:1, :1], 1e-8)
    own = uncertainty(jnp.asarray(block[0]), jnp.zeros(2, bool))
    member, determined = joint.member(own.inverse, own.determined, joint.gains[0][0])
    assert determined.all()
    close(member, by_rows.matrix[:3, :3], 1e-8)


def test_a_fixed_parameter_is_known_in_every_form():
    jac = design(12, 3)
    full, fixed = jac.T @ jac, np.array([False, True, False])
    expected = np.zeros((3, 3))
    expected[np.ix_(~fixed, ~fixed)] = np.linalg.inv(full[np.ix_(~fixed, ~fixed)])
    for gram in (jnp.asarray(full), Rows(jnp.asarray(jac))):
        found = uncertainty(gram, jnp.asarray(fixed))
        assert found.determined.all()
        assert int(found.rank) == 2
        close(found.matrix, expected, 1e-10, 1e-14)


def test_columns_of_any_scale():
    scales = np.array([1e-12, 1.0, 1e12])
    jac = design(12, 3)
    found = COMPUTE(jnp.asarray(jac * scales), jnp.zeros(3, bool))
    expected = np.linalg.inv(jac.T @ jac) / scales / scales[:, None]
    close(np.asarray(found.matrix) / expected, np.ones((3, 3)), 1e-9)
    assert int(found.rank) == 3


def test_nearly_dependent_columns_keep_the_digits_that_they_have():
    """A Vandermonde matrix of condition 1e9, against 50 digits."""
    x = np.linspace(1.0, 2.0, 12)
    jac = x[:, None] ** np.arange(7)
    with mpmath.workdps(50):
        j = mpmath.matrix(jac.tolist())
        exact = np.array(((j.T * j) ** -1).tolist(), float)
    found = COMPUTE(jnp.asarray(jac), jnp.zeros(7, bool))
    assert int(found.rank) == 7
    close(np.sqrt(np.diagonal(found.matrix)), np.sqrt(np.diagonal(exact)), 1e-6)


RANK = {  # columns of the Jacobian from three independent ones, which of them are determined, rank
    "no effect": (lambda a: [a[0], 0 * a[0], a[1]], [True, False, True], 2),
    "twice the same": (lambda a: [a[0], a[1], a[0]], [False, True, False], 2),
    "opposite": (lambda a: [a[0], a[1], -2 * a[0]], [False, True, False], 2),
    "sum of two": (lambda a: [a[0], a[1], a[0] + a[1]], [False, False, False], 2),
    "one direction": (lambda a: [a[0], 3 * a[0], -a[0]], [False, False, False], 1),
    "nothing": (lambda a: [0 * a[0], 0 * a[0], 0 * a[0]], [False, False, False], 0),
    "pair beside a third": (lambda a: [1e-9 * a[0], 1e9 * a[0], a[1]], [False, False, True], 2),
    "all": (lambda a: [a[0], a[1], a[2]], [True, True, True], 3),
}


@pytest.mark.parametrize("dtype", [jnp.float64, jnp.float32])
@pytest.mark.parametrize("case", RANK)
def test_what_is_not_determined_has_infinite_variance_never_zero(case, dtype):
    columns, determined, rank = RANK[case]
    jac = np.stack(columns(design(10, 3).T), axis=1)
    found = COMPUTE(jnp.asarray(jac, dtype), jnp.zeros(3, bool))
    assert found.determined.tolist() == determined
    assert int(found.rank) == rank
    variance = np.diagonal(found.matrix)
    assert np.all(np.isinf(variance) == ~np.array(determined))
    known = np.array(determined)
    if known.any():
        size = np.where(np.abs(jac).max(0) > 0, np.abs(jac).max(0), 1)
        pinv = np.linalg.pinv((jac / size).T @ (jac / size)) / np.outer(size, size)
        close(variance[known], np.diagonal(pinv)[known].astype(dtype), 1e-8 if dtype == jnp.float64 else 1e-3)


@pytest.mark.parametrize("shape", [(1, 2), (2, 3), (0, 2)])
def test_fewer_rows_than_parameters(shape):
    found = COMPUTE(jnp.asarray(design(*shape)), jnp.zeros(shape[1], bool))
    assert int(found.rank) == shape[0]
    assert np.all(np.isinf(np.diagonal(found.matrix)))


def test_fixed_parameters_take_no_part():
    jac = design(10, 3)
    fixed = np.array([False, True, False])
    found = COMPUTE(jnp.asarray(jac), jnp.asarray(fixed))
    keep = jac[:, ~fixed]
    close(found.matrix[np.ix_(~fixed, ~fixed)], np.linalg.inv(keep.T @ keep), 1e-10)
    assert np.all(np.asarray(found.matrix)[1] == 0)
    assert int(found.rank) == 2
    assert bool(jnp.all(found.determined))
    dependent = np.stack([jac[:, 0], jac[:, 0], jac[:, 1]], axis=1)
    rescued = COMPUTE(jnp.asarray(dependent), jnp.asarray(fixed))
    assert bool(jnp.all(rescued.determined)), "fixing one of a degenerate pair determines the other"


class Degenerate(js.AbstractModel):
    """(a + b) x + c, with d of no effect."""

    a: js.Scalar = js.param()
    b: js.Scalar = js.param()
    c: js.Scalar = js.param()
    d: js.Scalar = js.param()

    def __call__(self, x):
        return (self.a + self.b) * x + self.c + 0 * self.d


@pytest.mark.parametrize("solver", [GN, js.TRF()])
def test_a_fit_names_what_the_data_do_not_determine(solver):
    x = jnp.linspace(0.0, 1.0, 9)
    data = js.Dataset(x, 2 * x + 1, js.White(0.1))
    message = "the data do not determine a, b, d (rank 2 of 4): their errors are infinite. Fix some, or give a prior."
    with pytest.warns(UserWarning, match=re.escape(message)):
        solution = js.fit(Degenerate(0.0, 0.0, 0.0, 5.0), data, solver=solver)
    close(solution.model(x), 2 * x + 1, 1e-9)
    assert [bool(v) for v in solution.determined] == [False, False, True, False]
    assert float(solution.y[3]) == 5.0, "no step without information"
    close(solution.y[0], solution.y[1], 1e-7 if solver is GN else 0.1)  # nearly the shortest of all steps
    assert np.isinf(float(solution.std["a"]))
    assert np.isinf(float(solution.std["d"]))
    close(solution.std["c"], 0.1 * np.sqrt(np.linalg.inv(np.array([[x @ x, x.sum()], [x.sum(), 9]]))[1, 1]), 1e-9)
    assert int(solution.dof) == 7
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        cured = js.fit(
            Degenerate(0.0, 0.0, 0.0, 5.0),
            data,
            free=("a", "b", "c"),
            priors={"b": js.Normal(0.5, 0.01)},
            solver=solver,
        )
    assert int(cured.rank) == 3
    assert bool(jnp.all(jnp.isfinite(cured.covariance)))


def test_scale_of_the_covariance():
    """Unit noise: scipy's absolute_sigma=False; given noise: absolute, unless asked otherwise."""
    y = decay_data()

    def f(t, a, tau, b):
        return a * np.exp(-t / tau) + b

    kwargs = dict.fromkeys(("xtol", "ftol", "gtol"), 1e-15)
    jac = lambda t, *p: decay_jacobian(p, t)  # noqa: E731
    relative = curve_fit(f, np.asarray(TIMES), y, [1, 1, 0.0], jac=jac, **kwargs)[1]
    absolute = curve_fit(
        f, np.asarray(TIMES), y, [1, 1, 0.0], np.full(30, SIGMA), absolute_sigma=True, jac=jac, **kwargs
    )[1]
    unit, given = js.Dataset(TIMES, y), decay_set()
    close(js.fit(START, unit, solver=GN).covariance, relative, 1e-6)
    close(js.fit(START, given, solver=GN).covariance, absolute, 1e-6)
    close(js.fit(START, given, solver=GN, scale_covariance=True).covariance, relative, 1e-6)
    scaled = js.fit(START, unit, solver=GN, scale_covariance=False).covariance
    close(scaled * SIGMA**2, absolute, 1e-6)


def test_propagation_is_the_delta_method():
    c = design(3, 3)
    c = c @ c.T
    a = design(2, 3, 1)
    close(propagate(lambda y: jnp.asarray(a) @ y, jnp.ones(3), jnp.asarray(c)), a @ c @ a.T, 1e-12)
    got = propagate(lambda y: (y[0] * y[1])[None], jnp.array([2.0, 3.0, 0.0]), jnp.asarray(c))
    g = np.array([3.0, 2.0, 0.0])
    close(got[0, 0], g @ c @ g, 1e-12)


def test_covariance_is_what_repeated_experiments_scatter_by():
    """2000 lines fitted in one program: the scatter of the estimates against the covariance of one."""
    x = np.linspace(-1.0, 2.0, 6)
    sigma = np.linspace(0.1, 0.4, 6)
    draws = 3 * x - 1 + sigma * np.random.default_rng(0).normal(size=(2000, 6))
    fit = quick_jit(
        jnp.vectorize(
            lambda y: js.fit(Line(0.0, 0.0), js.Dataset(x, y, js.Diagonal(sigma)), solver=GN, throw=False).y,
            signature="(n)->(p)",
        )
    )
    y = np.asarray(fit(jnp.asarray(draws)))
    one = js.fit(Line(0.0, 0.0), js.Dataset(x, draws[0], js.Diagonal(sigma)), solver=GN)
    close(np.cov(y.T), one.covariance, 0.12, 1e-4)
    close(y.mean(0), np.array([3.0, -1.0]), 0.01)


def test_a_column_of_zeros_leaves_the_derivatives_of_the_others_alone():
    """A fixed parameter, or one without effect, beside two that are determined."""
    jac = jnp.asarray(np.random.default_rng(4).normal(size=(6, 2)))

    def variance(scale, fixed):
        return uncertainty(Rows(jnp.concatenate([scale * jac, jnp.zeros((6, 1))], axis=1)), fixed).matrix[0, 0]

    both = quick_jit(jax.value_and_grad(variance))
    for fixed in (jnp.array([False, False, True]), jnp.zeros(3, bool)):
        value, slope = both(jnp.asarray(2.0), fixed)
        close(slope, -value, 1e-12)


class Columns(js.AbstractModel):
    """A linear model whose columns are given."""

    a: Float[Array, " p"] = js.param()

    def __call__(self, x):
        return x @ self.a


@pytest.mark.parametrize("apart", [1.0, 1e-4, 0.0], ids=["by the normal matrix", "by QR", "undetermined"])
def test_errors_have_their_derivatives_however_they_were_computed(apart):
    """By the errors of single data, against the closed form; two columns may be nearly or wholly the same."""
    x = np.random.default_rng(5).normal(size=(9, 4))
    x[:, 2] = x[:, 1] + apart * x[:, 2]
    y, which = jnp.asarray(x.sum(axis=1)), np.eye(9)[2]

    def errors(change):
        data = js.Dataset(jnp.asarray(x), y, js.Diagonal(1 + change * which))
        return js.fit(Columns(jnp.zeros(4)), data, solver=GN, throw=False).standard_errors

    slope = np.asarray(quick_jit(jax.jacrev(errors))(0.3))
    seen = x[:, [0, 1, 3]] if apart == 0 else x
    weight = 1 / (1 + 0.3 * which) ** 2
    matrix = np.linalg.inv(seen.T @ (weight[:, None] * seen))
    moved = matrix @ (seen.T @ ((2 * which * weight**1.5)[:, None] * seen)) @ matrix
    expected = np.diagonal(moved) / 2 / np.sqrt(np.diagonal(matrix))
    if apart == 0:
        expected = np.array([expected[0], 0, 0, expected[2]])  # infinite whatever the errors of the data
    close(slope, expected, 1e-6, 1e-12)


def test_a_fixed_parameter_leaves_the_derivatives_of_errors_alone():
    observed = jnp.asarray(decay_data())

    def error(sigma):
        data = js.Dataset(TIMES, observed, js.White(sigma))
        return js.fit(START, data, bounds={"base": (0.4, 0.4)}, solver=GN, throw=False).standard_errors[0]

    value, slope = quick_jit(jax.value_and_grad(error))(SIGMA)
    close(slope, value / SIGMA, 1e-9)


def test_as_many_data_as_parameters_leave_no_scale_to_estimate():
    """m == n with noise of unknown scale: all infinite, as scipy has it, but 0 where fixed; known noise has errors."""
    start = js.put(START, {"base": 0.4})
    t, y = TIMES[:2], jnp.asarray(decay_data()[:2])
    none = js.fit(start, js.Dataset(t, y), bounds={"base": (0.4, 0.4)}, throw=False)
    assert int(none.dof) == 0
    np.testing.assert_array_equal(none.covariance, [[np.inf, np.inf, 0], [np.inf, np.inf, 0], [0, 0, 0]])
    known = js.fit(start, js.Dataset(t, y, js.White(SIGMA)), bounds={"base": (0.4, 0.4)})
    assert np.isfinite(known.covariance).all()
