"""What was correlated as a result: the covariance of its lags goes into files and fits."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxsci as js
from jaxsci import xpcs

SHAPE = (12, 40)


def detector(finer):
    geometry = xpcs.TransmissionGeometry(10.0, (6.0, -10.0), 5000.0, 0.5, SHAPE)
    used = jnp.ones(SHAPE, bool)
    bins = xpcs.partition(geometry, used, [xpcs.Axis("q", 2), xpcs.Axis("phi", 1, low=-25, high=25)], finer=finer)
    return xpcs.QMap(bins, used, geometry)


@pytest.fixture(scope="module")
def frames():
    movie = xpcs.SimulatedFrames(np.full(480, 0.3), 2.0, 0.4, np.arange(24.0))
    return np.asarray(movie.frames(jax.random.key(1))).reshape(-1, *SHAPE)


@pytest.fixture(scope="module")
def result(frames):
    known = detector((3, 10))
    return xpcs.result_of(xpcs.correlate(frames, known.partition), known, 0.1)


def test_lags_are_known_together_where_static_bins_tell_them(frames, result):
    covariance = np.asarray(result.curves.covariance)
    lags = result.curves.t.size
    assert covariance.shape == (2, lags, lags)
    good = np.asarray(result.curves.mask)[:, 0]
    np.testing.assert_allclose(np.sqrt(np.diag(covariance[0]))[good], result.curves.sigma[good, 0], rtol=1e-9)
    assert np.linalg.eigvalsh(covariance[0]).min() > 0
    few = detector((3, 4))
    found = xpcs.correlate(frames, few.partition, error="static")
    assert found.error_from == "static"
    assert xpcs.result_of(found, few, 0.1).curves.covariance is None, "fewer samples than lags say too little"


def test_the_covariance_survives_a_file(tmp_path, result):
    xpcs.write_result(tmp_path / "run.h5", result)
    back = xpcs.read_result(tmp_path / "run.h5").curves
    np.testing.assert_array_equal(back.covariance, result.curves.covariance)
    np.testing.assert_array_equal(back.take([1]).covariance[0], result.curves.covariance[1])
    import h5py

    with h5py.File(tmp_path / "run.h5", "r+") as file:
        place = xpcs.io.PATHS["g2_covariance"][0]
        file[place][0, 0, 0] = np.nan
    with pytest.raises(ValueError, match="normalized_g2_covariance has entries that are no numbers"):
        xpcs.read_result(tmp_path / "run.h5")


def test_fits_go_by_the_covariance(result):
    curves = result.curves
    model = xpcs.SingleExponential
    fits = xpcs.fit_g2(curves, model)
    start = xpcs.starts_of(curves, model)
    for k in range(2):
        noise = js.Dense(curves.covariance[k])
        data = js.Dataset(curves.t, curves.g2[:, k], noise, curves.mask[:, k])
        alone = js.fit(jax.tree.map(lambda x: x[k], start), data)  # noqa: B023
        np.testing.assert_allclose(fits[k].y, alone.y, rtol=1e-6)
        np.testing.assert_allclose(fits[k].standard_errors, alone.standard_errors, rtol=1e-5)
    independent = xpcs.fit_g2(
        jax.tree.map(lambda x: x, xpcs.Curves(curves.t, curves.g2, curves.sigma, curves.mask, curves.q)), model
    )
    assert not np.allclose(independent[0].standard_errors, fits[0].standard_errors, rtol=0.02)
    assert abs(float(fits[0].values["tau"]) * 0.3 / 0.1 - 1) < 5 * float(fits[0].std["tau"]) * 0.3 / 0.1


def test_limits_of_delays_keep_the_covariance(result):
    inside = result.curves.between(0.15, 0.85)
    assert inside.covariance is result.curves.covariance
    assert 0 < int(jnp.sum(inside.mask)) < int(jnp.sum(result.curves.mask))


def test_q_is_the_mean_over_the_pixels_of_a_bin(tmp_path):
    """Wide bins on a detector with corners: the middle of the edges is percents off."""
    geometry = xpcs.TransmissionGeometry(10.0, (6.0, 5.0), 5000.0, 0.5, SHAPE)
    used = np.ones(SHAPE, bool)
    bins = xpcs.partition(geometry, used, [xpcs.Axis("q", 2, "log"), xpcs.Axis("phi", 2)], finer=(2, 2))
    known = xpcs.QMap(bins, jnp.asarray(used), geometry)
    frames = np.random.default_rng(0).poisson(2.0, (8, *SHAPE))
    result = xpcs.result_of(xpcs.correlate(frames, bins), known, 0.1)
    q = np.asarray(geometry.q())
    means = [q[np.asarray(bins.labels) == k].mean() for k in range(1, bins.dynamic.bins + 1)]
    np.testing.assert_allclose(result.curves.q, means, rtol=1e-12)
    assert np.max(np.abs(np.asarray(bins.q) / means - 1)) > 0.05
    rings = np.asarray(bins.static.of_bins(0))
    labels = np.asarray(bins.static_labels)
    for ring in np.unique(rings):
        mine = np.isin(labels, 1 + np.flatnonzero(rings == ring))
        np.testing.assert_allclose(np.asarray(result.scattering.q)[rings == ring], q[mine].mean(), rtol=1e-12)
    xpcs.write_result(tmp_path / "run.h5", result)
    back = xpcs.read_result(tmp_path / "run.h5")
    np.testing.assert_array_equal(back.curves.q, result.curves.q)
    np.testing.assert_array_equal(back.scattering.q, result.scattering.q)
    np.testing.assert_array_equal(back.phi, result.phi)
    assert back.geometry is not None
    bare = xpcs.result_of(xpcs.correlate(frames, bins), known._replace(geometry=None), 0.1)
    np.testing.assert_array_equal(bare.curves.q, bins.q)


def test_a_report_says_which_errors_take_lags_as_independent(result):
    from jaxsci.xpcs._task.config import Fit
    from jaxsci.xpcs._task.outcomes import _noise
    from jaxsci.xpcs._task.work import fitted_g2

    fit = Fit(xpcs.SingleExponential(1.0), None, (), {}, {}, (0.0, np.inf), None, "", {}, 200)
    curves = result.curves
    diagonal = jnp.stack([curves.covariance[0], jnp.diag(jnp.diag(curves.covariance[1]))])
    for covariance, words in (
        (curves.covariance, "errors by the covariance of the lags"),
        (diagonal, "errors of 1 q-bin take lags as independent"),
        (None, "errors take lags as independent"),
    ):
        these = dataclasses.replace(curves, covariance=covariance)
        assert _noise(fitted_g2(these, fit, None)).startswith(words)
