import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import close
from scipy.optimize import least_squares

import jaxsci as js

LOSSES = {
    "linear": js.Linear(),
    "soft_l1": js.SoftL1(),
    "huber": js.Huber(),
    "cauchy": js.Cauchy(),
    "arctan": js.Arctan(),
}
SCALED = {"soft_l1": js.SoftL1, "huber": js.Huber, "cauchy": js.Cauchy, "arctan": js.Arctan}
Z = jnp.concatenate([-jnp.logspace(4, -6, 41), jnp.zeros(1), jnp.logspace(-6, 4, 41)])


@pytest.mark.parametrize("name", LOSSES)
def test_derivatives_agree_with_autodiff(name):
    loss = LOSSES[name]
    z = Z[jnp.abs(jnp.abs(Z) - 1) > 1e-9]  # Huber's second derivative jumps at 1
    rho, d1, d2 = loss(z)
    assert rho.shape == d1.shape == d2.shape == z.shape

    def one(value):
        return loss(value[None])[0][0]

    close(d1, jax.vmap(jax.grad(one))(z), 1e-12, 1e-300)
    close(d2, jax.vmap(jax.grad(jax.grad(one)))(z), 1e-9, 1e-14)


@pytest.mark.parametrize("name", LOSSES)
def test_small_residuals_are_least_squares(name):
    z = jnp.array([-1e-5, 1e-9, 1e-5])
    rho, d1, d2 = LOSSES[name](z)
    close(rho, z * z / 2, 1e-9)
    close(d1, z, 1e-9)
    close(d2, jnp.ones(3), 1e-9)
    rho, d1, d2 = LOSSES[name](jnp.zeros(1))
    assert (float(rho[0]), float(d1[0]), float(d2[0])) == (0.0, 0.0, 1.0)


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("scale", [0.3, 1.0, 20.0])
def test_cost_agrees_with_scipy(name, scale):
    z = np.array([-30.0, -1.1, -0.2, 0.0, 0.5, 4.0])
    fit = least_squares(lambda x: z + 0 * x, [0.0], loss=name, f_scale=scale, max_nfev=1)
    loss = SCALED[name](scale) if name in SCALED else LOSSES[name]
    close(jnp.sum(loss(jnp.asarray(z))[0]), jnp.asarray(fit.cost), 1e-12)


@pytest.mark.parametrize("name", SCALED)
@pytest.mark.parametrize("scale", [1e-6, 0.5, 1e6])
def test_scale_is_a_unit(name, scale):
    rho, d1, d2 = SCALED[name](scale)(Z * scale)
    one, first, second = SCALED[name](1.0)(Z)
    close(rho, scale**2 * one, 1e-11)
    close(d1, scale * first, 1e-11)
    keep = jnp.abs(jnp.abs(Z) - 1) > 1e-9  # rounding decides on which side of Huber's kink 1 falls
    close(d2[keep], second[keep], 1e-10, 1e-13)


@pytest.mark.parametrize("name", LOSSES)
def test_rows_far_out_have_ever_less_say(name):
    rho, d1, _ = LOSSES[name](Z)
    assert bool(jnp.all(jnp.diff(rho[41:]) >= 0))
    close(rho, rho[::-1], 1e-12)
    close(d1, -d1[::-1], 1e-12)
    if name != "linear":
        assert bool(jnp.all(rho <= Z * Z / 2))
        assert bool(jnp.all(jnp.abs(d1) <= jnp.abs(Z)))
    if name in ("cauchy", "arctan"):
        assert float(jnp.abs(d1[-1])) < 1e-3
    if name == "arctan":
        close(rho[-1], jnp.asarray(np.pi / 4), 1e-7)


@pytest.mark.parametrize("name", LOSSES)
def test_single_precision_stays_single(name):
    out = LOSSES[name](Z.astype(jnp.float32))
    assert all(x.dtype == jnp.float32 for x in out)
    close(out[0], LOSSES[name](Z)[0].astype(jnp.float32), 1e-5)


@pytest.mark.parametrize("name", LOSSES)
def test_huge_residuals_stay_finite(name):
    out = LOSSES[name](jnp.array([-1e30, 1e30]))
    assert all(bool(jnp.all(jnp.isfinite(x))) for x in out)
    grads = jax.grad(lambda z: jnp.sum(LOSSES[name](z)[0]))(jnp.array([-1e30, 0.0, 1e30]))
    assert bool(jnp.all(jnp.isfinite(grads)))
