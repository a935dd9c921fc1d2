"""least_squares against scipy's, on arrays and on trees."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize
from helpers import quick_jit

from jaxsci.curvefit import Step, least_squares, print_step

TIGHT = {"ftol": 1e-15, "xtol": 1e-15, "gtol": 1e-15}
BOX = ([-2.0, -2.0], [0.8, 3.0])


def rosenbrock(x):
    return jnp.stack([10 * (x[1] - x[0] ** 2), 1 - x[0]])


def rosenbrock_numpy(x):
    return np.array([10 * (x[1] - x[0] ** 2), 1 - x[0]])


T = np.linspace(0, 3, 30)
Y = 2 * np.exp(-0.7 * T) + np.where(np.arange(30) % 7 == 3, 1.5, 0.05 * np.sin(9 * T))


def decay(x, t, y):
    return x[0] * jnp.exp(-x[1] * t) - y


def decay_numpy(x, t, y):
    return x[0] * np.exp(-x[1] * t) - y


def test_fields_like_scipy_at_an_active_bound():
    ours = least_squares(rosenbrock, [-1.2, 1.0], bounds=BOX)
    theirs = scipy.optimize.least_squares(rosenbrock_numpy, [-1.2, 1.0], bounds=BOX, jac="cs", **TIGHT)
    np.testing.assert_allclose(ours.x, theirs.x, rtol=1e-12)
    assert ours.x[0] == 0.8
    for name in ("cost", "fun", "jac"):
        np.testing.assert_allclose(getattr(ours, name), theirs[name], rtol=1e-11, atol=1e-12, err_msg=name)
    np.testing.assert_allclose(ours.grad, theirs.grad, atol=1e-11)
    assert ours.optimality < 1e-9
    assert ours.active_mask.tolist() == theirs.active_mask.tolist() == [1, 0]
    assert ours.nfev == ours.njev
    assert 1 < ours.nfev < 40
    assert (bool(ours.success), int(ours.status), ours.message) == (True, 1, "converged")
    assert ours.solution.fixed.tolist() == [False, False]


@pytest.mark.parametrize("loss", ["linear", "cauchy"])
def test_losses_like_scipy(loss):
    ours = least_squares(decay, [1.0, 1.0], loss=loss, f_scale=0.1, args=(T, Y))
    theirs = scipy.optimize.least_squares(
        decay_numpy, np.asarray(ours.x), loss=loss, f_scale=0.1, args=(T, Y), jac="cs", max_nfev=1
    )
    assert ours.optimality < 1e-10
    np.testing.assert_allclose(ours.cost, theirs.cost, rtol=1e-12)
    np.testing.assert_allclose(ours.fun, theirs.fun, atol=1e-14)
    np.testing.assert_allclose(ours.jac.T @ ours.jac, theirs.jac.T @ theirs.jac, rtol=1e-10)


def test_trees():
    def residuals(x, scale):
        return {"sum": x["matrix"].sum(1) - scale, "square": x["k"] ** 2 - 4}

    start = {"matrix": np.ones((2, 2)), "k": 3.0}
    lower = {"matrix": np.array([[0.9, 0.0], [0.0, 0.0]]), "k": 2.5}
    result = least_squares(residuals, start, bounds=(lower, np.inf), args=(np.array([1.0, 2.0]),))
    assert result.x["k"] == 2.5
    np.testing.assert_allclose(result.x["matrix"].sum(1), [1, 2], rtol=1e-9)
    assert jax.tree.map(jnp.shape, result.grad) == jax.tree.map(np.shape, start)
    assert result.active_mask["k"] == -1
    np.testing.assert_allclose(result.fun["square"], 2.25)
    assert result.jac.shape == (3, 5)


def test_transformations():
    def fit(y, factor):
        return least_squares(lambda x: factor * x[0] * T - y, np.ones(1)).x[0]

    ys = np.stack([2 * T, 3 * T])
    values, slopes = quick_jit(jax.vmap(jax.value_and_grad(fit, 1), (0, None)))(ys, 2.0)
    np.testing.assert_allclose(values, [1.0, 1.5], rtol=1e-12)
    np.testing.assert_allclose(slopes, [-0.5, -0.75], rtol=1e-12)


def test_own_jacobian():
    calls = []

    def jacobian(x, t, y):
        calls.append(1)
        e = jnp.exp(-x[1] * t)
        return jnp.stack([e, -x[0] * t * e], 1)

    ours = least_squares(decay, [1.0, 1.0], jac=jacobian, args=(T, Y))
    plain = least_squares(decay, [1.0, 1.0], args=(T, Y))
    assert calls
    np.testing.assert_allclose(ours.x, plain.x, rtol=1e-13)


def test_log(capsys):
    steps: list[Step] = []
    result = least_squares(rosenbrock, [-1.2, 1.0], bounds=BOX, verbose=1, callback=steps.append)
    assert [s.iteration for s in steps] == list(range(len(steps)))
    assert len(steps) == result.nfev
    costs = [s.cost for s in steps]
    assert costs[0] == pytest.approx(np.sum(rosenbrock_numpy([-1.2, 1.0]) ** 2) / 2)
    assert costs == sorted(costs, reverse=True)
    np.testing.assert_allclose([s.reduction for s in steps[1:]], -np.diff(costs), atol=1e-15)
    assert capsys.readouterr().out.startswith("converged: cost 0.02, 2 parameters")
    for step in steps:
        print_step(step)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["iteration", "cost", "reduction", "step", "norm", "optimality"]
    assert len(lines) == len(steps) + 1
    assert float(lines[2].split()[2]) == pytest.approx(steps[1].reduction, rel=1e-3)


def test_complaints():
    with pytest.raises(ValueError, match=r"the lower bound 3\.0 of x\[0\] lies above"):
        least_squares(rosenbrock, [1.0, 1.0], bounds=([3, 0], [2, 1]))
    with pytest.raises(ValueError, match="x0 is empty"):
        least_squares(rosenbrock, [])
    with pytest.raises(ValueError, match=r"residual 1 is nan \(1 of 2 are not finite\) at x0"):
        least_squares(lambda x: jnp.stack([x[0], jnp.sqrt(x[1])]), [1.0, -1.0])
    short = least_squares(rosenbrock, [-1.2, 1.0], bounds=BOX, max_nfev=3)
    assert (bool(short.success), int(short.status)) == (False, 0)
    assert "max_steps" in short.message
    with pytest.raises(ValueError, match="steps can be logged of"):
        least_squares(rosenbrock, [1.0, 1.0], method=scipy, verbose=2)
