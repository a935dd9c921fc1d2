"""Steppers against what is known exactly: orders by quadrature over the normals, and exact moments of their chains."""

import itertools

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsci.evolution import (
    SDE,
    Additive,
    Diffrax,
    Ensemble,
    EulerMaruyama,
    Field,
    Heun,
    Milstein,
    Multiplicative,
    Platen,
    Step,
    evolve,
)

NODES, WEIGHTS = np.polynomial.hermite_e.hermegauss(5)
WEIGHTS = WEIGHTS / WEIGHTS.sum()


def expectation(stepper, sde, x0, time, steps, function):
    """E f(X_T) of a scheme, exactly but for the quadrature: every combination of five values of each normal."""
    every = np.array(list(itertools.product(range(5), repeat=steps)))
    weight = np.prod(WEIGHTS[every], axis=1)
    x = jnp.full((len(every), 1), x0)
    dt = jnp.asarray(time / steps)
    field = Field(sde, jnp.ones(len(every)), lambda tree: tree)
    for k in range(steps):
        x = stepper.step(field, Step(k * dt, dt), x, jnp.asarray(NODES[every[:, k]])[:, None])
    return float(np.sum(weight * np.asarray(function(x[:, 0]))))


def order(stepper, sde, x0, time, function, exact, counts=(2, 4, 6)):
    """The slope of the error with the step, on logarithmic axes."""
    errors = [abs(expectation(stepper, sde, x0, time, n, function) - exact) for n in counts]
    return -np.polyfit(np.log(counts), np.log(errors), 1)[0]


OU = SDE(lambda t, x: -x, 0.8)  # E X^2 = x0^2 e^-2t + S^2 (1 - e^-2t) / 2
GBM = SDE(lambda t, x: 0.6 * x, Multiplicative(lambda t, x: 0.4 * x))  # E X^2 = x0^2 exp((2 mu + S^2) t)


@pytest.mark.parametrize(
    ("stepper", "wanted"), [(EulerMaruyama(), 1), (Milstein(), 1), (Heun(), 2), (Platen(), 2)], ids=lambda x: str(x)
)
def test_weak_order_with_additive_noise(stepper, wanted):
    exact = 1.5**2 * np.exp(-1.0) + 0.64 * (1 - np.exp(-1.0)) / 2
    found = order(stepper, OU, 1.5, 0.5, lambda x: x**2, exact)
    assert wanted - 0.1 < found < wanted + 0.5
    assert stepper.order == wanted


@pytest.mark.parametrize(("stepper", "wanted"), [(EulerMaruyama(), 1), (Milstein(), 1), (Platen(), 2)])
def test_weak_order_with_noise_that_depends_on_x(stepper, wanted):
    exact = 1.5**2 * np.exp((1.2 + 0.16) * 0.5)
    found = order(stepper, GBM, 1.5, 0.5, lambda x: x**2, exact)
    assert wanted - 0.2 < found < wanted + 0.5


def test_the_calculus_is_itos(shared_data):
    case = np.load(shared_data / "meanfield" / "cases" / "multiplicative.npz")
    mu, s, x0, time, nt = (float(case[name]) for name in ("mu", "s", "x0", "T", "nt"))
    sde = SDE(lambda t, x: mu * x, Multiplicative(lambda t, x: s * x))
    start = Ensemble(jnp.full(40_000, x0), key=3)
    for stepper, name in ((EulerMaruyama(), "euler_maruyama"), (Milstein(), "milstein")):
        ended = evolve(sde, start, np.linspace(0, time, int(nt) + 1), stepper=stepper, every=None).ensemble
        x = np.asarray(ended.positions[:, 0])
        for power, exact in zip((1, 2), case[name], strict=True):
            assert abs(np.mean(x**power) - exact) < 4 * np.std(x**power) / np.sqrt(x.size)


@pytest.mark.parametrize("stepper", [Heun(), Diffrax(diffrax.Heun()), Diffrax(diffrax.EulerHeun())], ids=str)
def test_a_scheme_of_the_other_calculus_is_refused(stepper):
    with pytest.raises(ValueError, match=r"Stratonovich.*Milstein|Stratonovich.*Platen"):
        evolve(GBM, Ensemble(jnp.ones(4), key=1), [0.0, 1.0], stepper=stepper)


def test_noise_that_axes_share_is_refused_by_schemes_that_are_not_made_for_it():
    coupled = Multiplicative(lambda t, x: jnp.stack([x[1], x[0]]))
    matrix = Multiplicative(lambda t, x: jnp.outer(x, x))
    for diffusion, stepper in itertools.product((coupled, matrix), (Milstein(), Platen())):
        with pytest.raises(ValueError, match="Levy areas"):
            evolve(SDE(lambda t, x: -x, diffusion), Ensemble(jnp.ones((4, 2)), key=1), [0.0, 1.0], stepper=stepper)
    with pytest.raises(ValueError, match="integrals of the Brownian path"):
        evolve(OU, Ensemble(jnp.ones(4), key=1), [0.0, 1.0], stepper=Diffrax(diffrax.ShARK()))


@pytest.mark.parametrize(
    ("solver", "own"),
    [(diffrax.Euler(), EulerMaruyama()), (diffrax.Heun(), Heun()), (diffrax.ItoMilstein(), Milstein())],
)
@pytest.mark.parametrize("scale", [0.7, [[0.5, 0.1], [0.0, 0.4]]], ids=["number", "matrix"])
def test_solvers_of_diffrax_take_the_same_steps(solver, own, scale):
    sde = SDE(lambda t, x: -x + t, Additive(jnp.asarray(scale)))
    start = Ensemble(jnp.linspace(-1, 1, 20).reshape(10, 2), key=4)
    found, wanted = (evolve(sde, start, np.linspace(0, 1, 5), stepper=s).ensemble for s in (Diffrax(solver), own))
    np.testing.assert_allclose(found.positions, wanted.positions, rtol=1e-13, atol=1e-13)


def test_moments_of_a_matrix_diffusion(shared_data):
    case = np.load(shared_data / "meanfield" / "cases" / "anisotropic.npz")
    n, a = 40_000, jnp.asarray(case["A"])
    root = np.linalg.cholesky(case["C0"])
    x0 = case["m0"] + np.random.default_rng(5).normal(size=(n, len(case["m0"]))) @ root.T
    sde = SDE(lambda t, x: -a @ x, jnp.asarray(case["S"]))
    found = evolve(sde, Ensemble(x0, key=6), np.linspace(0, float(case["T"]), int(case["nt"]) + 1), every=None)
    got = found["moments"]
    assert np.all(np.abs(got.mean[-1] - case["em_mean"]) < 4 * got.standard_error[-1])
    spread = np.sqrt((np.outer(np.diag(case["em_cov"]), np.diag(case["em_cov"])) + case["em_cov"] ** 2) / n)
    assert np.all(np.abs(got.covariance[-1] - case["em_cov"]) < 4.5 * spread)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
@pytest.mark.parametrize("stepper", [EulerMaruyama(), Milstein(), Platen()], ids=str)
def test_steps_keep_the_precision_of_the_positions(stepper, dtype):
    found = evolve(GBM, Ensemble(jnp.ones(8, dtype), key=1), [0.0, 0.5, 1.0], stepper=stepper).ensemble
    assert found.positions.dtype == dtype


def test_a_square_root_diffusion_that_touches_zero(shared_data):
    case = np.load(shared_data / "meanfield" / "cases" / "cir_touching_zero.npz")
    k, theta, s, x0, time = (float(case[name]) for name in ("k", "theta", "s", "x0", "T"))
    from jaxsci.evolution import SquareRoot

    sde = SDE(lambda t, x: k * (theta - jnp.maximum(x, 0)), SquareRoot(s))
    found = evolve(sde, Ensemble(jnp.full(20_000, x0), key=2), np.linspace(0, time, 261), every=None)["moments"]
    error = float(found.standard_error[-1, 0])
    assert abs(float(found.mean[-1, 0]) - float(case["mean"])) < 4 * error + 0.03 * float(case["mean"])
    naive = SDE(lambda t, x: k * (theta - x), Multiplicative(lambda t, x: s * jnp.sqrt(x)))
    with pytest.raises(ValueError, match=r"nan or infinity.*number \d+.*SquareRoot"):
        evolve(naive, Ensemble(jnp.full(2000, x0), key=2), np.linspace(0, time, 261), every=None)


def test_a_model_within_a_batch_and_its_gradient():
    """jit(vmap(grad)) of a terminal functional by parameters of the drift, over ensembles; finite differences."""
    x0 = jnp.asarray(np.random.default_rng(0).normal(size=(3, 50)))

    def final(theta, x):
        sde = SDE(lambda t, x: -theta * x - 0.1 * x**3, 0.5)
        return evolve(sde, Ensemble(x, key=7), np.linspace(0, 1, 13), every=None)["moments"].mean[-1, 0]

    thetas = jnp.array([0.5, 1.0, 2.0])
    found = jax.jit(jax.vmap(jax.grad(final)))(thetas, x0)
    h = 1e-5
    numeric = [(final(t + h, x) - final(t - h, x)) / (2 * h) for t, x in zip(thetas, x0, strict=True)]
    np.testing.assert_allclose(found, numeric, rtol=1e-6)
    forward = jax.vmap(jax.jacfwd(final))(thetas, x0)
    np.testing.assert_allclose(found, forward, rtol=1e-10)
