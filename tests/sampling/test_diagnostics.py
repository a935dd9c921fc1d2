"""Diagnostics against ArviZ, on chains whose autocorrelation is known."""

import warnings

import numpy as np
import pytest

from jaxsci.sampling import bfmi, ess_bulk, ess_mean, ess_tail, hdi, r_hat
from jaxsci.sampling._arviz import arviz


def chains(rho, draws, count, seed=0):
    """Autoregressive chains of order one, bent so that nothing about them is normal."""
    rng = np.random.default_rng(seed)
    x, e = np.zeros((count, draws)), rng.standard_normal((count, draws))
    for i in range(1, draws):
        x[:, i] = rho * x[:, i - 1] + e[:, i]
    return np.exp(0.3 * x)


CASES = [(0.0, 400, 4), (0.9, 500, 4), (-0.6, 300, 3), (0.5, 101, 2), (0.99, 200, 4), (0.3, 20, 2)]


@pytest.mark.parametrize(("rho", "draws", "count"), CASES)
def test_they_are_those_of_arviz(rho, draws, count):
    az = arviz()
    x = chains(rho, draws, count)
    if int(az.__version__.split(".")[0]) >= 1:
        pytest.skip("the functions on arrays are those of ArviZ 0.x")
    assert r_hat(x) == pytest.approx(float(az.rhat(x)), rel=1e-12)
    for ours, method in ((ess_bulk, "bulk"), (ess_tail, "tail"), (ess_mean, "mean")):
        assert ours(x) == pytest.approx(float(az.ess(x, method=method)), rel=1e-10), method
    assert bfmi(x) == pytest.approx(az.bfmi(x), rel=1e-12)
    assert hdi(x) == pytest.approx(az.hdi(x.ravel(), hdi_prob=0.94), rel=1e-12)


@pytest.mark.parametrize("rho", [-0.4, 0.0, 0.6, 0.9])
def test_the_effective_size_is_that_of_the_known_autocorrelation(rho):
    rng = np.random.default_rng(1)
    x, e = np.zeros((4, 20_000)), rng.standard_normal((4, 20_000)) * np.sqrt(1 - rho**2)
    for i in range(1, x.shape[1]):
        x[:, i] = rho * x[:, i - 1] + e[:, i]
    assert ess_mean(x) == pytest.approx(x.size * (1 - rho) / (1 + rho), rel=0.1)


def test_chains_that_disagree_are_seen():
    x = chains(0.0, 200, 4)
    assert r_hat(x) < 1.01
    assert r_hat(x + np.array([0.0, 0.0, 0.0, 1.0])[:, None]) > 1.1
    assert r_hat((x - x.mean()) * np.array([1.0, 1.0, 1.0, 4.0])[:, None]) > 1.1  # the same centre, another width


def test_what_says_nothing_is_nan():
    assert np.isnan(r_hat(np.full((4, 100), np.nan)))
    assert np.isnan(r_hat(np.zeros((4, 100))))
    assert np.isnan(ess_bulk(np.zeros((4, 3))))
    assert np.isnan(hdi(np.array([np.nan, 1.0]))).all()


def test_numbers_are_not_rounded():
    value = r_hat(chains(0.9, 500, 4))
    assert value != round(value, 4)


def test_the_import_of_arviz_says_nothing():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        arviz()
