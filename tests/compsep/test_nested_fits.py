"""Parameters that lie within each other over the whole sky: the same answers as with a dense matrix, without one."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import sky

import jaxsci as js
from jaxsci import compsep
from jaxsci.compsep._fit import fit as fit_file
from jaxsci.compsep._fit.groups import nested
from jaxsci.compsep._healpix import parents
from jaxsci.compsep._patches import lay_out

NSIDE = 2
NPIX = 12 * NSIDE**2
NU, SIGMA = sky.LITEBIRD.frequency[sky.FEW], np.asarray(sky.LITEBIRD.sigma(NPIX, "QU"))[sky.FEW]
PATCHES = {"dust.beta": NSIDE, "dust.temp": 1, "sync.beta": 0}


@pytest.fixture(scope="module")
def maps():
    return np.asarray(sky.made(NPIX, "QU")[0])[sky.FEW]


def fit(mixing, maps, inv_n=1 / SIGMA**2, patches=PATCHES, **choices):
    return compsep.separate(mixing, NU, maps, inv_n=inv_n, patches=patches, **choices)


@pytest.fixture
def dense(monkeypatch):
    """Fits with the parameters in a dense matrix."""

    def run(*args, **choices):
        with monkeypatch.context() as patched:
            patched.setattr(fit_file, "nested", lambda *_: None)
            return fit(*args, **choices)

    return run


def agree(one, other, rtol=1e-10):
    assert bool(one.success.all())
    assert bool(other.success.all())
    for name in one.free:
        away = np.abs(np.asarray(one.values[name] - other.values[name]))
        assert np.max(away / np.asarray(other.std[name])) < rtol
        np.testing.assert_allclose(one.std[name], other.std[name], rtol=rtol)
    scale = np.sqrt(np.einsum("iik,jjk->ijk", other.covariance, other.covariance))
    assert np.max(np.abs(np.asarray(one.covariance - other.covariance)) / scale) < rtol


def test_nested_is_dense(mixing, maps, dense):
    agree(fit(mixing, maps), dense(mixing, maps))


@pytest.mark.slow
def test_ragged_places_bounds_and_priors(mixing, maps, dense):
    """Pixels masked here and there, noise of each pixel, and a bound that many elements meet."""
    weights = np.broadcast_to(1 / SIGMA[:, :, None] ** 2, maps.shape)
    choices = {
        "mask": np.arange(NPIX) % 7 != 0,
        "inv_n": weights,
        "bounds": {"dust.beta": (None, 1.6)},
        "priors": {"dust.temp": js.Normal(19.0, 0.5), "sync.beta": js.Normal(-3.1, 0.001)},
    }
    one, other = fit(mixing, maps, **choices), dense(mixing, maps, **choices)
    agree(one, other, 1e-9)
    assert 4 < int(np.sum(np.asarray(one.at_bound["dust.beta"]) == 1)) < 40
    np.testing.assert_array_equal(one.at_bound["dust.beta"], other.at_bound["dust.beta"])


def test_a_tree_is_seen_where_elements_lie_within_each_other():
    used = np.arange(NPIX) % 5 != 0
    free = ("a", "b", "c")
    cells = lay_out(free, {"a": 1, "b": 0, "c": NSIDE}, used)
    groups = nested(cells, free)
    assert groups.names == ("c", "a", "b")
    assert groups.shape == (1, 12, 4, 1)
    real = groups.cells[0] >= 0
    lane = np.flatnonzero(real)
    np.testing.assert_array_equal(np.sort(groups.cells[0][real]), np.arange(used.sum()))
    for name, below in (("a", 4), ("b", 48), ("c", 1)):
        np.testing.assert_array_equal(groups.local[name][groups.cells[0][real]], lane // below)
    patch = parents(NSIDE, 1)
    across = np.where(np.arange(NPIX) == 7, (patch + 1) % 12, patch)
    assert nested(lay_out(free, {"a": 1, "b": 0, "c": across}, used), free) is None


def test_what_the_data_do_not_say_spoils_only_itself(mixing, maps):
    """Channels in which one patch of T_d has no dust left: its temperature and indices are told by nothing."""
    patch = parents(NSIDE, 1)
    dark = patch == 11
    weights = np.broadcast_to(1 / SIGMA[:, :, None] ** 2, maps.shape).copy()
    weights[3:, :, dark] = 0  # three channels for three components: nothing is left for the spectra
    found = fit(mixing, maps, inv_n=weights)
    lost = np.isinf(np.asarray(found.error_map("dust.temp")))
    np.testing.assert_array_equal(lost, dark)
    np.testing.assert_array_equal(np.isinf(np.asarray(found.error_map("dust.beta"))), dark)
    bright = fit(mixing, maps, inv_n=weights, mask=~dark)
    away = np.asarray(found.parameter_map("dust.beta") - bright.parameter_map("dust.beta"))[~dark]
    error = np.asarray(bright.error_map("dust.beta"))[~dark]
    assert np.max(np.abs(away) / error) < 1e-6
    np.testing.assert_allclose(np.asarray(found.error_map("dust.beta"))[~dark], error, rtol=1e-6)


@pytest.mark.slow
def test_batches_and_derivatives(mixing, maps):
    """Under vmap as by itself; a derivative with respect to the data against a difference."""
    sigma = jnp.asarray(SIGMA)
    direction = jax.random.normal(jax.random.key(3), maps.shape) * sigma[:, :, None]

    def temp(shift):
        found = fit(mixing, maps + shift * direction, inv_n=1 / sigma**2)
        return found.values["dust.temp"][5], found.std["dust.temp"][5]

    at = jnp.array([0.0, 1e-4, -1e-4])
    values, slopes = jax.jit(jax.vmap(lambda x: jax.jvp(temp, (x,), (jnp.ones(()),))))(at)
    alone = fit(mixing, maps)
    np.testing.assert_allclose(values[0][0], alone.values["dust.temp"][5], rtol=1e-10)
    np.testing.assert_allclose(slopes[0][0], (values[0][1] - values[0][2]) / 2e-4, rtol=1e-5)
    np.testing.assert_allclose(slopes[1][0], (values[1][1] - values[1][2]) / 2e-4, rtol=1e-5)
