"""Noise parameters fitted together with the model, and Poisson likelihoods, against closed forms and scipy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize
import scipy.stats
from helpers import close, quick_jit
from problems import SIGMA, START, TIMES, Line, N, decay_data, decay_numpy, decay_set

import jaxsci as js

SOLVERS = {"trf": js.TRF(), "gauss-newton": js.GaussNewton()}
GN = SOLVERS["gauss-newton"]
SIGMAS = SIGMA * np.linspace(0.4, 2.0, N)


@pytest.mark.parametrize("name", SOLVERS)
@pytest.mark.parametrize("start", [0.001, 0.05, 10.0])
def test_the_sigma_of_white_noise_has_its_closed_form(name, start):
    plain = js.fit(START, decay_set(), solver=SOLVERS[name])
    data = js.Dataset(TIMES, decay_data(), js.White(start))
    solution = js.fit(START, data, free=("*", "noise.sigma"), solver=SOLVERS[name])
    sigma = SIGMA * np.sqrt(float(plain.chi2) / N)
    close(solution.y[:3], plain.y, 1e-8)
    close(solution.noise.sigma, sigma, 1e-9)
    close(solution.std["noise.sigma"], sigma / np.sqrt(2 * N), 1e-7)
    close(solution.covariance[:3, :3], plain.covariance * (sigma / SIGMA) ** 2, 1e-6)
    close(solution.chi2, float(N), 1e-8)
    log_likelihood = -N / 2 * (np.log(2 * np.pi * sigma**2) + 1)
    close(-2 * log_likelihood, 2 * float(solution.cost) + N * np.log(2 * np.pi), 1e-10)
    assert solution.names == ("amp", "tau", "base", "noise.sigma")


def test_efac_has_its_closed_form():
    weights = js.Diagonal(SIGMAS)
    plain = js.fit(START, js.Dataset(TIMES, decay_data(), weights), solver=GN)
    solution = js.fit(START, js.Dataset(TIMES, decay_data(), weights), free=("*", "noise.efac"), solver=GN)
    close(solution.noise.efac, np.sqrt(float(plain.chi2) / N), 1e-9)
    close(solution.y[:3], plain.y, 1e-8)
    assert float(solution.noise.equad) == 0.0


def test_equad_has_its_closed_form_beside_equal_errors():
    """The variance that the scatter has beyond the errors; on its bound of 0 where it has none."""
    for given, expected in ((SIGMA / 2, None), (2 * SIGMA, 0.0)):
        plain = js.fit(START, decay_set(), solver=GN)
        data = js.Dataset(TIMES, decay_data(), js.Diagonal(np.full(N, given), 1.0, 0.02))
        solution = js.fit(START, data, free=("*", "noise.equad"), throw=False)
        scatter = SIGMA**2 * float(plain.chi2) / N
        close(solution.noise.equad, np.sqrt(scatter - given**2) if expected is None else expected, 1e-8)
        close(solution.y[:3], plain.y, 1e-7)
        if expected is None:
            variance = scatter**2 * 2 / N  # of the total variance v = given^2 + equad^2
            close(solution.std["noise.equad"], np.sqrt(variance) / (2 * float(solution.noise.equad)), 1e-6)


def minus_log_likelihood(p, y):
    variance = (p[3] * SIGMAS) ** 2 + p[4] ** 2
    return 0.5 * (((decay_numpy(p) - y) ** 2 / variance) + np.log(variance)).sum()


@pytest.mark.parametrize("name", ["trf", "gauss-newton"])
def test_efac_and_equad_against_scipy(name):
    y = decay_data(3, scatter=0.0) + np.random.default_rng(2).normal(size=N) * np.hypot(1.2 * SIGMAS, 0.05)
    data = js.Dataset(TIMES, y, js.Diagonal(SIGMAS, 1.2, 0.05))
    solution = js.fit(js.put(START, {"base": 0.4}), data, free=("*", "noise.*"), solver=SOLVERS[name])
    best = scipy.optimize.minimize(
        minus_log_likelihood,
        [2.0, 1.3, 0.4, 1.0, 0.05],
        (y,),
        method="Nelder-Mead",
        options={"xatol": 1e-9, "fatol": 1e-13, "maxiter": 20_000, "maxfev": 20_000},
    )
    close(solution.cost, best.fun, 1e-9)
    close(jnp.abs(solution.y), np.abs(best.x), 1e-4, 1e-6)
    assert bool(solution.success)


def test_free_noise_of_correlated_rows_against_scipy():
    class Correlated(js.AbstractNoise):
        """Exponentially correlated noise with two parameters of its own."""

        amplitude: js.Scalar = js.param(bounds=(1e-6, None))
        length: js.Scalar = js.param(bounds=(1e-3, None))

        def _dense(self, mask):
            lag = jnp.abs(TIMES[:, None] - TIMES[None, :])
            return js.Dense(self.amplitude**2 * jnp.exp(-lag / self.length) + SIGMA**2 * jnp.eye(N))

        def valid(self, mask):
            return self._dense(mask).valid(mask)

        def whiten(self, residual, mask):
            return self._dense(mask).whiten(residual, mask)

        def logdet(self, mask):
            return self._dense(mask).logdet(mask)

    lag = np.abs(np.asarray(TIMES)[:, None] - np.asarray(TIMES)[None, :])
    true = 0.3**2 * np.exp(-lag / 0.8) + SIGMA**2 * np.eye(N)
    t = np.asarray(TIMES)
    y = 0.5 * t - 1 + np.linalg.cholesky(true) @ np.random.default_rng(1).normal(size=N)
    data = js.Dataset(TIMES, y, Correlated(0.2, 0.5))
    solution = js.fit(Line(0.0, 0.0), data, free=("*", "noise.*"), solver=GN)

    def minus_log(p):
        c = p[2] ** 2 * np.exp(-lag / abs(p[3])) + SIGMA**2 * np.eye(N)
        return -scipy.stats.multivariate_normal(p[0] * t + p[1], c).logpdf(y)

    best = scipy.optimize.minimize(
        minus_log,
        [0.5, -1.0, 0.2, 0.5],
        method="Nelder-Mead",
        options={"xatol": 1e-9, "fatol": 1e-12, "maxiter": 10_000},
    )
    close(float(solution.cost) + N / 2 * np.log(2 * np.pi), best.fun, 1e-9)
    close(solution.y, best.x, 1e-4)


def test_derivatives_of_a_free_sigma():
    def sigma(y):
        data = js.Dataset(TIMES, y, js.White(0.1))
        return js.fit(START, data, free=("*", "noise.sigma"), solver=GN, throw=False).y[3]

    y = jnp.asarray(decay_data())
    value, grad = quick_jit(jax.value_and_grad(sigma))(y)
    r = np.asarray(js.fit(START, decay_set(), solver=GN).model(TIMES)) - decay_data()
    close(grad, -r / (N * float(value)), 1e-6, 1e-9)


@pytest.mark.parametrize("name", SOLVERS)
def test_poisson_against_scipy(name):
    counts = np.random.default_rng(2).poisson(decay_numpy([40.0, 1.0, 2.0]))
    data = js.Dataset(TIMES, counts, js.Poisson(counts))
    solution = js.fit(js.put(START, {"amp": 30.0, "base": 3.0}), data, bounds={"*": (1e-3, 1e3)}, solver=SOLVERS[name])

    def minus_log(p):
        return -scipy.stats.poisson.logpmf(counts, np.maximum(decay_numpy(p), 1e-300)).sum()

    best = scipy.optimize.minimize(
        minus_log, [40.0, 1.0, 2.0], method="Nelder-Mead", options={"xatol": 1e-10, "fatol": 1e-13, "maxiter": 5000}
    )
    close(solution.y, best.x, 1e-5)
    mu = decay_numpy(np.asarray(solution.y))
    from problems import decay_jacobian

    jac = decay_jacobian(np.asarray(solution.y))
    close(solution.covariance, np.linalg.inv(jac.T / mu @ jac), 1e-8)
    close(jac.T @ (1 - counts / mu), np.zeros(3), 0, 1e-7)
    deviance = 2 * (mu - counts + scipy.special.xlogy(counts, counts / mu)).sum()
    close(solution.chi2, deviance, 1e-10)


def test_poisson_constant_is_the_mean():
    class Constant(js.AbstractModel):
        rate: js.Scalar = js.param(bounds=(0.0, None))

        def __call__(self, x):
            return self.rate + 0 * x

    counts = np.array([0.0, 3.0, 1.0, 7.0, 2.0])
    solution = js.fit(Constant(20.0), js.Dataset(np.arange(5.0), counts, js.Poisson(counts)), solver=GN)
    close(solution.y, np.array([2.6]), 1e-12)
    close(solution.covariance, np.array([[2.6 / 5]]), 1e-12)
    likelihood = js.fit(Constant(20.0), js.Dataset(np.arange(5.0), counts), likelihood=js.Poisson(counts), solver=GN)
    close(likelihood.y, solution.y, 1e-12)
    close(likelihood.covariance, solution.covariance, 1e-12)


@pytest.mark.parametrize("loss", [js.SoftL1(0.1), js.Huber(0.1), js.Cauchy(0.1), js.Arctan(1.0)])
def test_robust_losses_against_scipy(loss):
    y = decay_data(5)
    y[[4, 11, 25]] += [3.0, -2.0, 4.0]
    solution = js.fit(START, js.Dataset(TIMES, y), loss=loss, solver=GN)
    name = {"SoftL1": "soft_l1"}.get(type(loss).__name__, type(loss).__name__.lower())
    best = scipy.optimize.least_squares(
        lambda p: decay_numpy(p) - y,
        np.asarray(solution.y) * 1.01,
        loss=name,
        f_scale=float(loss.scale),
        **dict.fromkeys(("xtol", "ftol", "gtol"), 1e-15),
    )
    close(solution.cost, best.cost, 1e-9)
    close(solution.y, best.x, 1e-4)
    scores = loss(jnp.asarray(decay_numpy(np.asarray(solution.y)) - y))[1]
    from problems import decay_jacobian

    close(decay_jacobian(np.asarray(solution.y)).T @ np.asarray(scores), np.zeros(3), 0, 1e-9)


def test_an_outlier_does_not_move_a_robust_fit():
    y = decay_data()
    spoiled = np.array(y)
    spoiled[3] += 100.0
    clean = js.fit(START, decay_set(), loss=js.Cauchy(2.0), solver=GN)
    robust = js.fit(START, js.Dataset(TIMES, spoiled, js.White(SIGMA)), loss=js.Cauchy(2.0), solver=GN)
    assert bool(jnp.all(jnp.abs(robust.y - clean.y) < clean.standard_errors))


def test_free_noise_does_not_hide_what_is_not_determined():
    class Idle(js.AbstractModel):
        a: js.Scalar = js.param()
        idle: js.Scalar = js.param()

        def __call__(self, x):
            return self.a * x + 0 * self.idle

    x = jnp.linspace(0.0, 1.0, N)
    data = js.Dataset(x, 2 * x + jnp.asarray(decay_data(scatter=0.1)) - decay_numpy([2.0, 1.3, 0.4]), js.White(0.2))
    solution = js.fit(Idle(1.0, 3.0), data, free=("*", "noise.sigma"), solver=GN, throw=False)
    assert solution.determined.tolist() == [True, False, True]
    assert np.isinf(float(solution.std["idle"]))
    assert int(solution.rank) == 2


def test_a_glob_frees_noise_only_where_it_says_so():
    data = js.Dataset(TIMES, decay_data(), js.Diagonal(SIGMAS))
    assert js.fit(START, data, free="*", solver=GN).names == ("amp", "tau", "base")
    assert js.fit(START, data, free=("t*", "noise.e*c"), solver=GN).names == ("tau", "noise.efac")
