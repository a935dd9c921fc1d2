"""One problem interface: solvers of least squares, Adam and the evolution of particles compose, in batches too."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import close, quick_jit

import jaxsci as js
from jaxsci.evolution import SDE, Additive, Ensemble, Moments, evolve
from jaxsci.meanfield import Box, DensitySnapshots, Gaussian, Grid, OrnsteinUhlenbeck, SpectralKDE

TIMES = jnp.linspace(0.0, 2.0, 9)
PARTICLES = Ensemble(0.5 + 0.3 * np.random.default_rng(0).normal(size=100), key=4)


class Relaxation(js.AbstractModel):
    """The mean of an ensemble at some times: a model that evolves particles where it is called."""

    theta: js.Scalar = js.param()
    mu: js.Scalar = js.param()

    def __call__(self, t):
        sde = SDE(OrnsteinUhlenbeck(self.theta, self.mu), 0.2)
        ts = jnp.concatenate([jnp.zeros(1), t])
        return evolve(sde, PARTICLES, ts, save={"m": Moments()})["m"].mean[1:, 0]


def observed(theta=1.3, mu=2.0, seed=1):
    truth = Relaxation(theta, mu)(TIMES[1:])
    return truth + 0.01 * np.random.default_rng(seed).normal(size=8)


def data_set(y):
    return js.Dataset(TIMES[1:], y, js.White(0.01))


LONG = [pytest.param(solver, marks=pytest.mark.slow) for solver in (js.GaussNewton(), js.Adam(0.05))]


@pytest.mark.parametrize("solver", [js.TRF(), *LONG], ids=lambda s: type(s).__name__)
def test_every_solver_fits_a_model_that_evolves_particles(solver):
    steps = 2000 if isinstance(solver, js.Adam) else 100
    found = js.fit(Relaxation(0.8, 1.0), data_set(observed()), solver=solver, max_steps=steps, throw=False)
    pull = (found.y - jnp.array([1.3, 2.0])) / found.standard_errors
    assert np.all(abs(pull) < 4)
    assert bool(found.success)


@pytest.mark.slow
def test_fits_of_evolutions_under_jit_of_vmap_of_grad():
    """d (fitted theta) / d (observations), for two data sets at once, against finite differences."""
    data = jnp.stack([observed(seed=1), observed(0.9, 1.5, seed=2)])

    def fitted(y):
        return js.fit(Relaxation(1.0, 1.5), data_set(y), throw=False).values["theta"]

    found = quick_jit(jax.vmap(jax.grad(fitted)))(data)
    many = quick_jit(jax.vmap(fitted))
    h = 1e-4
    for k in (0, 5):
        step = h * jnp.eye(8)[k][None]
        numeric = (many(data + step) - many(data - step)) / (2 * h)
        np.testing.assert_allclose(found[:, k], numeric, rtol=2e-3, atol=1e-4 * float(jnp.abs(found).max()))


def snapshots(seed, theta):
    grid = Grid(Box(-4.0, 4.0), 20)
    smooth, first = SpectralKDE(grid, 0.25, degree=3), Gaussian(-1.0, 0.3)
    true = SDE(OrnsteinUhlenbeck(theta, 1.0), 0.7, grid.box)
    ts = np.linspace(0, 1, 11)
    seen = evolve(true, first.ensemble(500, seed), ts, save={"p": smooth}, every=5)["p"]
    sigma = np.sqrt(2) * np.asarray(seen.standard_error[1:]) + 2e-3
    return DensitySnapshots(
        first.ensemble(500, seed + 50), grid, 0.0, [0.5, 1.0], seen.values[1:], sigma, density=smooth, steps=5
    )


def test_a_batch_of_calibrations_is_each_alone():
    sets = [snapshots(1, 1.0), snapshots(2, 1.6)]
    start = SDE(OrnsteinUhlenbeck(0.7, 0.5), Additive(0.7), Box(-4.0, 4.0))
    free = ("drift.theta", "drift.mu")
    batch = js.fit_batch(start, sets, free=free, progress=False)
    alone = [js.fit(start, one, free=free) for one in sets]
    assert len(batch.groups) == 1, "snapshots have one length and need no padding"
    for k, one in enumerate(alone):
        close(np.asarray(batch.groups[0].y)[k], one.y, 1e-3)
        assert bool(one.success)
    assert abs(float(alone[1].values["drift.theta"]) - 1.6) < 5 * float(alone[1].std["drift.theta"])


def test_parameter_sweeps_and_their_gradients():
    """vmapped terminal functionals by two parameters, forward and reverse."""

    def spread(theta, s):
        sde = SDE(OrnsteinUhlenbeck(theta, 0.0), Additive(s))
        return evolve(sde, PARTICLES, TIMES, every=None, save={"m": Moments()})["m"].covariance[-1, 0, 0]

    thetas, scales = jnp.array([0.5, 1.0]), jnp.array([0.3, 0.6])
    reverse = quick_jit(jax.vmap(jax.grad(spread, (0, 1))))(thetas, scales)
    forward = quick_jit(jax.vmap(jax.jacfwd(spread, (0, 1))))(thetas, scales)
    close(reverse, forward, 1e-10)
    h = 1e-5
    numeric = [(spread(t + h, s) - spread(t - h, s)) / (2 * h) for t, s in zip(thetas, scales, strict=True)]
    np.testing.assert_allclose(reverse[0], numeric, rtol=1e-6)
