"""Sums and products of library models: fits from their estimates end at the truth."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import close, quick_jit, to_float32

import jaxsci as js
from jaxsci import curvefit as cf

N, SIGMA = 200, 0.05
X = jnp.linspace(0.0, 10.0, N)
RING = js.Product(envelope=cf.Exponential(3.0, 4.0), wave=cf.Sinusoid(1.0, 0.8, 0.3))

# truth, what is fixed in the fit
COMPOSITES = {
    "peak on a slope": cf.Gaussian(3.0, 4.0, 0.6) + cf.Polynomial([1.0, 0.4]),
    "two peaks": js.Sum(left=cf.Gaussian(3.0, 3.0, 0.5), right=cf.Gaussian(2.0, 5.5, 0.8), base=cf.Constant(10.0)),
    "decay to a level": cf.Exponential(3.0, 2.0) + cf.Constant(1.0),
    "peak on a decay": cf.Exponential(5.0, 3.0) + cf.Gaussian(2.0, 6.0, 0.4) + cf.Constant(1.0),
    "ringing": js.Sum(ring=RING, base=cf.Constant(2.0)),
}


def observed(truth, seed=0):
    return np.asarray(truth(X)) + SIGMA * np.random.default_rng(seed).normal(size=N)


def blank(model):
    """The same composite with values that are of no use."""
    return jax.tree.map(jnp.zeros_like, model)


@pytest.mark.parametrize("name", COMPOSITES)
def test_a_fit_from_the_estimate_ends_at_the_truth(name):
    truth = COMPOSITES[name]
    y = observed(truth)
    start = cf.estimate(blank(truth), X, y)
    assert jax.tree.structure(start) == jax.tree.structure(truth)
    near = np.sqrt(np.mean((start(X) - truth(X)) ** 2))
    assert near < 0.15 * np.std(truth(X)), f"{near}"
    free = [n for n in js.parameters(truth) if n != "ring.wave.amplitude"]  # which only scales the envelope
    solution = js.fit(start, js.Dataset(X, y, js.White(SIGMA)), free=free, solver=js.GaussNewton())
    pull = np.array([float(np.max(np.abs((solution.values[n] - js.get(truth, n)) / solution.std[n]))) for n in free])
    assert np.all(pull < 4), dict(zip(free, pull, strict=True))
    assert abs(float(solution.chi2) - N) < 4 * np.sqrt(2 * N)


def test_products():
    packet = js.Product(envelope=cf.Gaussian(3.0, 4.0, 1.5), wave=cf.Sinusoid(1.0, 1.3, 0.3))
    tilted = js.Product(peak=cf.Gaussian(3.0, 5.0, 2.0), trend=cf.Line(0.08, 0.2))
    for truth in (packet, tilted):
        start = cf.estimate(blank(truth), X, observed(truth))
        assert np.sqrt(np.mean((start(X) - truth(X)) ** 2)) < 0.1 * np.std(truth(X))
    assert float(jnp.max(jnp.abs(start.trend(X)))) == pytest.approx(1)  # the first factor carries the scale


def test_models_that_are_linear_altogether():
    truth = cf.Constant(2.0) + cf.Line(0.5, 0.0)
    start = cf.estimate(truth, X, observed(truth))
    np.testing.assert_allclose(start(X), np.polyval(np.polyfit(np.asarray(X), observed(truth), 1), X), atol=1e-4)


def test_inside_vmap_and_in_any_order_of_the_points():
    truth = COMPOSITES["decay to a level"]
    ys = np.stack([observed(truth, 1), -2 * observed(truth, 2)])
    shuffled = np.random.default_rng(3).permutation(N)
    many = quick_jit(jax.vmap(lambda x, y: cf.estimate(truth, x, y), (None, 0)))(X[shuffled], ys[:, shuffled])
    for k, y in enumerate(ys):
        close(jax.tree.map(lambda leaf: leaf[k], many), cf.estimate(truth, X, y), 1e-6)  # noqa: B023


def test_single_precision():
    truth = COMPOSITES["decay to a level"]
    start = cf.estimate(to_float32(truth), X.astype(np.float32), observed(truth).astype(np.float32))
    assert {leaf.dtype for leaf in jax.tree.leaves(start)} == {np.dtype(np.float32)}
    np.testing.assert_allclose(start(jnp.asarray(X, jnp.float32)), truth(X), atol=0.1)


def test_a_spot_in_a_plane():
    points = jnp.stack(jnp.meshgrid(jnp.linspace(-4, 6, 20), jnp.linspace(-5, 5, 10)), -1).reshape(-1, 2)
    truth = js.Sum(a=cf.Gaussian2D(3.0, 3.5, 2.0, 1.2, 0.9, 0.5), b=cf.Gaussian2D(2.0, -1.5, -2.0, 1.2, 0.8, 0.0))
    y = np.asarray(truth(points)) + SIGMA * np.random.default_rng(0).normal(size=N)
    start = cf.estimate(blank(truth), points, y)
    assert np.sqrt(np.mean((start(points) - truth(points)) ** 2)) < 0.2 * np.std(truth(points))


def test_a_term_without_an_estimator_is_named():
    class Comb(js.AbstractModel):
        amplitude: js.Scalar = js.param()

        def __call__(self, x):
            return self.amplitude * jnp.cos(x) ** 8

    model = js.Sum(teeth=js.Product(comb=Comb(1.0), slope=cf.Line(1.0, 0.0)), base=cf.Constant(0.0))
    with pytest.raises(ValueError, match=r"Sum\.teeth\.comb: there is no estimator for Comb .*start of your own"):
        cf.estimate(model, X, X)
    with pytest.raises(ValueError, match="give an instance of the Sum"):
        cf.estimate(js.Sum, X, X)
