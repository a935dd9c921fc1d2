"""Derivatives of whole fits with respect to all that they were made of, against finite differences."""

import equinox as eqx
import jax
import jax.flatten_util as jfu
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import close, quick_jit
from problems import SIGMA, TIMES, Decay, N, decay_data

import jaxsci as js

SOLVERS = {"trf": js.TRF(), "gauss-newton": js.GaussNewton()}
PLAIN = {
    "observed": jnp.asarray(decay_data()),
    "sigma": jnp.asarray(SIGMA * np.linspace(0.5, 2.0, N)),
    "times": TIMES,
    "lower": jnp.array([0.0, 0.1]),
    "upper": jnp.array([10.0, 9.0]),
    "prior": jnp.array([1.9, 0.3]),  # mean and sigma of amp
    "base": jnp.asarray(0.35),  # a parameter that is not free
    "scale": jnp.asarray(1.5),  # of the loss
}
CASES = {
    "inside": PLAIN,
    "lower active": PLAIN | {"lower": jnp.array([0.0, 1.6])},
    "upper active": PLAIN | {"upper": jnp.array([1.7, 9.0])},
    "both active": PLAIN | {"lower": jnp.array([0.0, 1.75]), "upper": jnp.array([1.7, 9.0])},
    "fixed by bounds": PLAIN | {"lower": jnp.array([0.0, 1.2]), "upper": jnp.array([10.0, 1.2])},
    "nearly least squares": PLAIN | {"scale": jnp.asarray(1e3)},
}
FLAT, UNRAVEL = jfu.ravel_pytree(PLAIN)
STEPS = {
    "observed": 4e-4,
    "sigma": 1e-4,
    "times": 4e-4,
    "lower": 1e-3,
    "upper": 1e-3,
    "prior": 1e-3,
    "base": 1e-3,
    "scale": 1e-3,
}
STEP = jfu.ravel_pytree({name: jnp.full_like(value, STEPS[name]) for name, value in PLAIN.items()})[0]


def outputs(solver, flat):
    """Estimate, standard errors, chi2, cost and AIC of one fit of `Decay` with base held."""
    p = UNRAVEL(flat)
    start = Decay(1.0, 1.0, 0.0)
    start = eqx.tree_at(lambda m: m.base, start, p["base"])
    solution = js.fit(
        start,
        js.Dataset(p["times"], p["observed"], js.Diagonal(p["sigma"])),
        free=("amp", "tau"),
        bounds={"amp": (p["lower"][0], p["upper"][0]), "tau": (p["lower"][1], p["upper"][1])},
        priors={"amp": js.Normal(p["prior"][0], p["prior"][1])},
        loss=js.SoftL1(p["scale"]),
        solver=solver,
        throw=False,
    )
    std = jnp.sqrt(jnp.diagonal(solution.covariance) + jnp.where(solution.fixed | (solution.at_bound != 0), 1.0, 0.0))
    return jnp.concatenate([solution.y, std, jnp.stack([solution.chi2, solution.cost])]), solution.success


@pytest.fixture(scope="module", params=SOLVERS)
def compiled(request):
    """(values of a batch, Jacobian), each compiled once for all cases."""
    solver = SOLVERS[request.param]
    values = quick_jit(jax.vmap(lambda flat: outputs(solver, flat)))
    jacobian = quick_jit(jax.jacrev(lambda flat: outputs(solver, flat)[0]))
    return values, jacobian


@pytest.mark.parametrize("case", CASES)
def test_jacobian_against_finite_differences(compiled, case):
    values, jacobian = compiled
    at = jfu.ravel_pytree(CASES[case])[0]
    shifts = jnp.array([-2.0, -1.0, 1.0, 2.0])[:, None, None] * jnp.diag(STEP)[None]
    out, success = values((at[None, None] + shifts).reshape(-1, at.size))
    assert bool(jnp.all(success))
    f = np.asarray(out).reshape(4, at.size, -1)
    expected = ((f[0] - 8 * f[1] + 8 * f[2] - f[3]) / (12 * np.asarray(STEP)[:, None])).T
    actual = np.asarray(jacobian(at))
    held = {"fixed by bounds": [1], "lower active": [1], "upper active": [0], "both active": [0, 1]}.get(case, [])
    if case == "fixed by bounds":  # moving one of two equal bounds alone reverses them or frees the parameter
        moved = jfu.ravel_pytree({name: jnp.full_like(v, name in ("lower", "upper")) for name, v in PLAIN.items()})[0]
        keep = np.asarray(moved) == 0
        actual, expected = actual[:, keep], expected[:, keep]
    tolerance = 1e-8 if held else 1e-6
    size = np.abs(expected[:2]).max(axis=1, keepdims=True)
    close(actual[:2], expected[:2], tolerance, tolerance * np.maximum(size, 1e-3))
    rest = [k for k in range(2, 6) if k - 2 not in held]
    size = np.abs(expected[rest]).max(axis=1, keepdims=True)
    close(actual[rest], expected[rest], 1e-5, 1e-6 * np.maximum(size, 1e-3))
    assert np.all(np.abs(expected[rest]).max(axis=1) > 0), "errors, chi2 and cost do depend on the data"


def test_an_active_bound_is_followed_one_to_one(compiled):
    _, jacobian = compiled
    p = CASES["both active"]
    derivative = jax.tree.map(np.asarray, jax.vmap(UNRAVEL)(jacobian(jfu.ravel_pytree(p)[0])[:2]))
    close(derivative["upper"][0], np.array([1.0, 0.0]), 1e-14)
    close(derivative["lower"][1], np.array([0.0, 1.0]), 1e-14)
    assert not derivative["lower"][0].any()
    assert not derivative["observed"].any()
    assert not derivative["sigma"].any()
    assert not derivative["scale"].any()


def test_the_linear_problem_has_its_closed_form():
    """d beta / d y = (X^T W X)^-1 X^T W, d cov / d sigma likewise, for a straight line."""
    x = np.linspace(-1.0, 2.0, 8)
    design = np.stack([x, np.ones(8)], axis=1)

    class Line(js.AbstractModel):
        slope: js.Scalar = js.param()
        offset: js.Scalar = js.param()

        def __call__(self, x):
            return self.slope * x + self.offset

    def fit(y, sigma):
        return js.fit(Line(0.0, 0.0), js.Dataset(x, y, js.Diagonal(sigma)), solver=js.GaussNewton(), throw=False)

    sigma = np.linspace(0.5, 1.5, 8)
    y = np.random.default_rng(0).normal(size=8)
    hat = np.linalg.inv(design.T / sigma**2 @ design) @ (design.T / sigma**2)
    everything = quick_jit(jax.jacrev(lambda y, s: (fit(y, s).y, fit(y, s).covariance), argnums=(0, 1)))
    (by_y, by_sigma), (cov_by_y, cov_by_sigma) = everything(jnp.asarray(y), jnp.asarray(sigma))
    close(by_y, hat, 1e-10, 1e-12)
    r = design @ (hat @ y) - y
    close(by_sigma, hat * (2 * r / sigma)[None, :], 1e-9, 1e-11)
    close(cov_by_y, np.zeros((2, 2, 8)), 0, 1e-12)
    close(cov_by_sigma, np.einsum("in,jn,n->ijn", hat, hat, 2 * sigma), 1e-9, 1e-11)


def test_forward_mode_agrees_with_reverse_mode():
    def value(flat):
        return outputs(js.GaussNewton(), flat)[0]

    tangent = jnp.sin(jnp.arange(FLAT.size, dtype=float)) * STEP
    cotangent = jnp.cos(jnp.arange(6.0))

    @quick_jit
    def both(flat):
        forward = jax.jvp(value, (flat,), (tangent,))[1]
        back = jax.vjp(value, flat)[1](cotangent)[0]
        return jnp.sum(forward * cotangent), jnp.sum(back * tangent)

    close(*both(FLAT), 1e-10)


def test_jit_of_vmap_of_grad_agrees_with_one_by_one(compiled):
    _, jacobian = compiled
    batch = jnp.stack([jfu.ravel_pytree(case)[0] for case in CASES.values()])
    grads = quick_jit(jax.vmap(jax.grad(lambda flat: jnp.sum(outputs(js.GaussNewton(), flat)[0][:2]))))(batch)
    assert bool(jnp.all(jnp.isfinite(grads)))
    for k in range(len(CASES)):
        close(grads[k], jnp.sum(jacobian(batch[k])[:2], axis=0), 1e-6, 1e-8)


def test_the_start_has_no_influence():
    def by_start(amp):
        start = eqx.tree_at(lambda m: m.amp, Decay(1.0, 1.0, 0.0), amp)
        return js.fit(
            start, js.Dataset(TIMES, PLAIN["observed"], js.White(SIGMA)), solver=js.GaussNewton(), throw=False
        ).y[1]

    assert float(quick_jit(jax.grad(by_start))(jnp.asarray(1.0))) == 0.0


def test_single_precision_gradients():
    def amp(y):
        start = Decay(*(jnp.float32(v) for v in (1, 1, 0)))
        data = js.Dataset(TIMES.astype(jnp.float32), y, js.White(jnp.float32(SIGMA)))
        return js.fit(start, data, solver=js.GaussNewton(), throw=False).y[0]

    def amp64(y):
        return js.fit(
            Decay(1.0, 1.0, 0.0), js.Dataset(TIMES, y, js.White(SIGMA)), solver=js.GaussNewton(), throw=False
        ).y[0]

    y = PLAIN["observed"]
    single = quick_jit(jax.grad(amp))(y.astype(jnp.float32))
    assert single.dtype == jnp.float32
    close(single, quick_jit(jax.grad(amp64))(y).astype(jnp.float32), 2e-2, 2e-3)


def test_a_lane_that_fails_does_not_poison_the_gradients_of_others():
    def amp(y):
        return js.fit(
            Decay(1.0, 1.0, 0.0), js.Dataset(TIMES, y, js.White(SIGMA)), solver=js.GaussNewton(), throw=False
        ).y[0]

    good = PLAIN["observed"]
    run = quick_jit(jax.vmap(jax.grad(amp)))
    clean = run(jnp.stack([good, good]))
    mixed = run(jnp.stack([good, good.at[3].set(jnp.nan)]))
    close(mixed[0], clean[0], 1e-14, 1e-300)
