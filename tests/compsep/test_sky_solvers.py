"""The likelihood of a sky as a data set of the core: any solver, and a gradient that is that of its residuals."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import sky
from jax.flatten_util import ravel_pytree

import jaxsci as js
from jaxsci import compsep

FREE = ("dust.beta", "dust.temp", "sync.beta")


@pytest.fixture(scope="module")
def data():
    """48 pixels of Q and U in six channels, one cell each, that share their spectra."""
    maps, _ = sky.made(48, "QU")
    sigma = np.asarray(sky.LITEBIRD.sigma(48, "QU"))[sky.FEW]
    checked = compsep.Sky.of(sky.LITEBIRD.frequency[sky.FEW], np.asarray(maps)[sky.FEW], 1 / sigma**2)
    return compsep.SkyDataset.of(checked)


def test_adam_reaches_the_optimum_of_trf(mixing, data):
    trf = js.fit(mixing, data, free=FREE, solver=js.TRF())
    adam = js.fit(mixing, data, free=FREE, solver=js.Adam(), max_steps=5000)
    assert bool(trf.success)
    assert bool(adam.success)
    # first-order steps end in the valley of beta and T where the cost is flat to 1e-9 of itself
    assert np.max(np.abs(adam.y - trf.y) / trf.standard_errors) < 1e-3
    np.testing.assert_allclose(adam.cost, trf.cost, rtol=1e-9)


def test_the_gradient_is_that_of_the_residuals(mixing, data):
    at, unravel = ravel_pytree(js.get(mixing, "*"))

    @jax.jit
    def both(at):
        def cost(at):
            return jnp.sum(data.residual(js.put(mixing, unravel(at))) ** 2) / 2

        cells = data.cells(js.put(mixing, unravel(at)), tuple(js.get(mixing, "*")))
        return jax.grad(cost)(at), jnp.sum(cells.grad, axis=1)

    by_hand, ours = both(at * jnp.array([1.02, 0.95, 1.03]))
    np.testing.assert_allclose(ours, by_hand, rtol=1e-12, atol=1e-12 * np.max(np.abs(by_hand)))
