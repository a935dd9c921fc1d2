"""The bijection of bounds, against automatic differentiation and its own limits."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsci.sampling._bounded import Bounded

INF = jnp.inf
SIDES = {
    "none": (-INF, INF),
    "lower": (1.0, INF),
    "upper": (-INF, 2.0),
    "both": (1.0, 2.0),
    "narrow": (0.0, 1e-3),
}
U = jnp.array([-9.0, -1.3, 0.0, 0.4, 3.0, 8.0])


def made(side, scale=0.1, dtype=jnp.float64):
    lower, upper = (jnp.full(U.shape, x, dtype) for x in SIDES[side])
    return Bounded(lower, upper, jnp.full(U.shape, scale, dtype))


@pytest.mark.parametrize("scale", [1e-3, 0.1, 50.0])
@pytest.mark.parametrize("side", SIDES)
def test_derivatives_are_those_of_autodiff(side, scale):
    bounded = made(side, scale)
    slope = jnp.diagonal(jax.jacfwd(bounded.constrain)(U))
    bends = bounded.bends(U)
    assert jnp.allclose(bends.slope, slope, rtol=1e-9, atol=1e-13)
    assert jnp.allclose(bounded.log_det(U), jnp.sum(jnp.log(bends.slope)), rtol=1e-12)
    curve = jnp.diagonal(jax.jacfwd(lambda u: bounded.bends(u).slope)(U))
    assert jnp.allclose(bends.curve, curve, rtol=1e-9, atol=1e-13)
    own = -jnp.diagonal(jax.hessian(bounded.log_det)(U))
    assert jnp.allclose(bends.own, own, rtol=1e-9, atol=1e-13)


@pytest.mark.parametrize("side", SIDES)
def test_there_and_back(side):
    bounded = made(side, 0.1)
    y = bounded.constrain(U)
    assert jnp.all((y >= bounded.lower) & (y <= bounded.upper))
    assert jnp.allclose(bounded.constrain(bounded.unconstrain(y)), y, rtol=1e-13)
    assert jnp.all(jnp.diff(y) > 0)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
@pytest.mark.parametrize("u", [-800.0, 800.0, 1e6])
@pytest.mark.parametrize("side", SIDES)
def test_far_away_everything_is_finite_and_within(side, u, dtype):
    bounded = made(side, 0.1, dtype)
    far = jnp.full(U.shape, u, dtype)
    y, slope = jax.value_and_grad(lambda u: jnp.sum(bounded.constrain(u)))(far)
    assert jnp.isfinite(y)
    assert jnp.all(jnp.isfinite(slope))
    assert jnp.isfinite(bounded.log_det(far))
    assert y.dtype == dtype


def test_well_inside_it_is_a_straight_line():
    """A value many errors from its bounds is not bent, whatever its size."""
    lower, upper = jnp.zeros(1), jnp.full(1, 1e3)
    bounded = Bounded(lower, upper, jnp.full(1, 1e-9))
    u = bounded.unconstrain(jnp.full(1, 1e-7))
    bends = bounded.bends(u)
    assert jnp.allclose(bends.slope, 1e-9, rtol=1e-10)
    assert abs(float(bends.curve[0])) < 1e-40
    assert jnp.allclose(bounded.constrain(u), 1e-7, rtol=1e-13)


def test_a_wide_scale_makes_a_logit():
    bounded = Bounded(jnp.zeros(1), jnp.ones(1), jnp.full(1, 1e6))
    u = jnp.array([0.3])
    assert jnp.allclose(bounded.constrain(u), jax.nn.sigmoid(u), rtol=1e-6)


def test_batched_is_one_by_one():
    bounded = made("both")
    u = jnp.asarray(np.random.default_rng(0).standard_normal((3, U.size)))
    alone = jnp.stack([bounded.constrain(row) for row in u])
    assert jnp.array_equal(jax.vmap(bounded.constrain)(u), alone)
