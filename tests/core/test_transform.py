import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import close, quick_jit

import jaxsci as js

INF = float("inf")
BOUNDS = {
    "none": (-INF, INF),
    "lower": (2.0, INF),
    "upper": (-INF, -3.0),
    "both": (-1.0, 4.0),
    "narrow": (1.0, 1.0 + 1e-6),
    "wide": (-1e8, 1e8),
}
U = jnp.linspace(-6.0, 6.0, 25)


@quick_jit
def constrain(lower, upper, u):
    """Values, slopes and log-determinant at u."""
    t = js.Transform(lower, upper)
    y, slope = jax.jvp(t.constrain, (u,), (jnp.ones_like(u),))
    return y, slope, t.log_det(u)


@quick_jit
def unconstrain(lower, upper, y):
    return js.Transform(lower, upper).unconstrain(y)


def bounds(case, like):
    return tuple(jnp.full_like(like, b) for b in BOUNDS[case])


@pytest.mark.parametrize("case", BOUNDS)
def test_there_and_back(case):
    lower, upper = bounds(case, U)
    y, slope, log_det = constrain(lower, upper, U)
    assert bool(jnp.all((y >= lower) & (y <= upper)))
    assert bool(jnp.all(jnp.diff(y) > 0)), "a bijection is monotone"
    close(unconstrain(lower, upper, y), U, 1e-7, 1e-7)
    close(log_det, jnp.sum(jnp.log(slope)), 1e-12)


@pytest.mark.parametrize("case", BOUNDS)
def test_values_on_and_outside_a_bound_become_finite(case):
    low, high = BOUNDS[case]
    y = np.zeros(25)
    outside = [b for b in (low, high, low - 1, high + 1) if np.isfinite(b)]
    y[: len(outside)] = outside
    u = unconstrain(*bounds(case, U), jnp.asarray(y))
    assert bool(jnp.all(jnp.isfinite(u)))
    slope = constrain(*bounds(case, U), u)[1]
    assert bool(jnp.all(jnp.isfinite(slope) & (slope > 0)))


@pytest.mark.parametrize("case", ["none", "lower", "upper", "both"])
def test_single_precision(case):
    u = U.astype(jnp.float32)
    lower, upper = bounds(case, u)
    y, slope, log_det = constrain(lower, upper, u)
    back = unconstrain(lower, upper, y)
    assert y.dtype == slope.dtype == log_det.dtype == back.dtype == jnp.float32
    close(back, u, 2e-3, 1e-4)


def test_equal_bounds_give_that_value():
    same = jnp.full_like(U, 2.5)
    close(constrain(same, same, 10 * U)[0], same)


@pytest.mark.parametrize("case", BOUNDS)
def test_slopes_far_out_are_never_nan(case):
    y, slope, _ = constrain(*bounds(case, U), U * 200)
    assert bool(jnp.all(jnp.isfinite(y) & jnp.isfinite(slope)))
