"""Image patches in one batch: positions and errors of spots, by least squares and by the Poisson likelihood."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

import jaxsci as js
from jaxsci import curvefit as cf

COUNT, SIDE = 64, 9
_AXIS = jnp.linspace(-4.0, 4.0, SIDE)
POINTS = jnp.stack(jnp.meshgrid(_AXIS, _AXIS, indexing="ij"), axis=-1).reshape(-1, 2)
READOUT = 4.0


class Spot(js.AbstractModel):
    """A peak over a flat background."""

    peak: cf.Gaussian2D
    background: js.Scalar = js.param(bounds=(0, None), unit="counts")

    def __call__(self, points):
        return self.peak(points) + self.background


def truths():
    """Oblong spots, some two pixels from the middle at most."""
    rng = np.random.default_rng(0)
    low = [150, -1.5, -1.5, 1.8, 1.0, -1.2, 8]
    high = [300, 1.5, 1.5, 2.2, 1.3, 1.2, 12]
    values = rng.uniform(low, high, size=(COUNT, 7))
    return values, jax.vmap(lambda v: Spot(cf.Gaussian2D(*v[:6]), v[6]))(jnp.asarray(values))


VALUES, TRUTH = truths()
IMAGES = np.asarray(jax.vmap(lambda spot: spot(POINTS))(TRUTH))


@pytest.mark.parametrize("likelihood", ["gaussian", "poisson"])
def test_pulls_of_spots(likelihood):
    rng = np.random.default_rng(1)
    observed = rng.poisson(IMAGES).astype(float) if likelihood == "poisson" else rng.normal(IMAGES, READOUT)
    level = np.quantile(observed, 0.2, axis=1)
    peaks = jax.vmap(lambda y: cf.estimate(cf.Gaussian2D, POINTS, y))(jnp.asarray(observed - level[:, None]))
    starts = jax.vmap(Spot)(peaks, jnp.asarray(np.maximum(level, 1)))
    noise = js.Poisson if likelihood == "poisson" else lambda _: js.White(READOUT)
    data = jax.vmap(lambda y: js.Dataset(POINTS, y, noise(y)))(jnp.asarray(observed))
    brightest = np.asarray(POINTS)[np.argmax(observed, axis=1)]
    bounds = {f"peak.center_{axis}": (brightest[:, k] - 3, brightest[:, k] + 3) for k, axis in enumerate("xy")}
    bounds["peak.sigma_*"] = (0.3, 5.0)

    batch = js.fit_batch(starts, data, bounds=bounds, solver=js.GaussNewton())

    assert batch.failed == {}
    (group,) = batch.groups
    assert group.names[1] == "peak.center_x"
    off = np.asarray(group.y) - VALUES
    off[:, 5] = (off[:, 5] + np.pi / 2) % np.pi - np.pi / 2  # an angle of a line
    chi2 = np.einsum("bi,bij,bj->b", off, np.linalg.inv(np.asarray(group.covariance)), off)
    assert 0.001 < scipy.stats.chi2.sf(chi2.sum(), 7 * COUNT) < 0.999
    deviance = np.asarray(group.chi2)
    assert abs(deviance.sum() / (COUNT * (SIDE**2 - 7)) - 1) < 0.08
    assert np.all(np.asarray(group.dof) == SIDE**2 - 7)
    assert np.all(np.abs(off[:, 1:3]) < 5 * np.asarray(group.standard_errors)[:, 1:3])


def test_a_bound_of_one_patch_holds_it_alone():
    upper = np.full(COUNT, 5.0)
    upper[3] = 0.0
    data = js.stack([js.Dataset(POINTS, image, js.White(READOUT)) for image in IMAGES])
    shifted = js.put(TRUTH, {"peak.center_x": VALUES[:, 1] - 0.1})
    batch = js.fit_batch(
        shifted, data, bounds={"peak.center_x": (np.full(COUNT, -5.0), upper)}, solver=js.GaussNewton()
    )
    x = batch.table()["peak.center_x"]
    free = np.minimum(VALUES[:, 1], upper)
    np.testing.assert_allclose(x, free, atol=1e-6)
