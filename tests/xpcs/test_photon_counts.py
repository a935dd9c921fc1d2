"""Contrast from photon counts: a stored maximum, the Poisson limit, gradients, information, batches."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import close, derivative, quick_jit
from scipy.special import gammaln
from scipy.stats import nbinom, poisson

import jaxsci as js
from jaxsci import xpcs
from jaxsci.xpcs._photon_counts import log_probability


def histogram(counts):
    """The data set of a histogram with twelve rows."""
    return xpcs.PhotonCounts.histogram(np.bincount(counts.astype(int), minlength=12))


HISTOGRAM = xpcs.PhotonCounts.histogram(np.array([700.0, 200, 60, 20, 8, 3, 1, 1, 0, 0, 0, 0]))


def drawn(mean, modes, n, seed=0):
    """Photons of pixels whose intensity is a sum of `modes` speckle patterns."""
    rng = np.random.default_rng(seed)
    return rng.poisson(rng.gamma(modes, mean / modes, n)).astype(float)


def test_the_stored_maximum(shared_data):
    with np.load(shared_data / "xpcs" / "cases" / "photon_counts.npz") as file:
        case = dict(file)
    numbers = np.zeros(12)
    numbers[:4] = case["histogram"]  # rows without pixels change nothing, and one program serves all tests
    found = js.fit(xpcs.Speckle(0.05, 0.1), xpcs.PhotonCounts.histogram(numbers))
    close(found.values["mean"], case["mean_ml"], rtol=1e-6)
    close(found.values["contrast"], case["beta_ml"], rtol=1e-5)
    close(found.std["contrast"], case["beta_se"], rtol=1e-2)
    assert abs(found.values["contrast"] - 1 / case["truth"][1]) < 4 * found.std["contrast"]


@pytest.mark.parametrize("beta", [0.0, 1e-3, 0.0999, 0.1001, 0.5, 1.0])
def test_probabilities_are_scipys(beta):
    k, mean = np.array([0.0, 1, 2, 7, 40]), np.full(5, 1.7)
    expected = poisson.logpmf(k, 1.7) if beta == 0 else nbinom.logpmf(k, 1 / beta, 1 / (1 + beta * 1.7))
    close(log_probability(jnp.asarray(k), jnp.asarray(mean), jnp.full(5, beta)), expected, rtol=1e-11, atol=1e-10)


@pytest.mark.parametrize("beta", [0.05, 0.1, 0.7])
def test_probabilities_have_the_derivatives_of_finite_differences(beta):
    k, mean = jnp.array([0.0, 1, 3, 30]), jnp.full(4, 2.5)
    mine = jax.jvp(lambda b: log_probability(k, mean, b), (jnp.full(4, beta),), (jnp.ones(4),))[1]
    close(mine, derivative(lambda b: log_probability(k, mean, jnp.full(4, b)), beta, 1e-4), rtol=1e-6, atol=1e-7)


def test_the_limit_of_poisson_is_a_point_like_any_other():
    """At beta = 0 the derivative is ((k - m)^2 - k) / 2, the moment estimate's numerator."""
    k, m = jnp.array([0.0, 1, 2, 9]), jnp.full(4, 0.8)
    slope = jax.grad(lambda b: jnp.sum(log_probability(k, m, jnp.full(4, b))))(0.0)
    close(slope, np.sum((np.asarray(k) - 0.8) ** 2 - np.asarray(k)) / 2, rtol=1e-12)
    counts = np.random.default_rng(2).poisson(0.4, 4000)
    found = js.fit(xpcs.Speckle(0.5, 0.2), histogram(counts))
    assert float(found.values["contrast"]) < 4 * float(found.std["contrast"])


@pytest.mark.slow
def test_without_contrast_the_fit_is_poissons():
    counts = np.random.default_rng(2).poisson(0.4, 4000).astype(float)
    known = xpcs.Speckle(float(counts.mean()), 0.0)
    plain = -np.sum(poisson.logpmf(counts, counts.mean()))
    fixed = js.fit(known, xpcs.PhotonCounts(counts), free=("mean",))
    close(float(fixed.cost), plain, rtol=1e-10)
    close(float(fixed.values["mean"]), counts.mean(), rtol=1e-8)


@pytest.mark.slow
def test_errors_are_the_scatter_of_repeated_measurements():
    sets = [histogram(drawn(0.3, 2.0, 4000, seed=k)) for k in range(100)]
    found = js.fit_batch(xpcs.Speckle(0.3, 0.4), sets)
    assert found.success.all()
    table = found.table()
    pulls = (table["contrast"] - 0.5) / table["contrast_std"]
    assert abs(pulls.mean()) < 0.4
    assert abs(pulls.std() - 1) < 4 / np.sqrt(200)


@pytest.mark.slow
def test_pixels_and_their_histogram_say_the_same():
    counts = drawn(0.6, 3.0, 3000)
    one = js.fit(xpcs.Speckle(0.5, 0.3), xpcs.PhotonCounts(counts))
    two = js.fit(xpcs.Speckle(0.5, 0.3), xpcs.PhotonCounts.histogram(np.bincount(counts.astype(int))))
    close(two.y, one.y, rtol=1e-7)
    close(two.covariance, one.covariance, rtol=1e-5)
    assert int(one.num_data) == 3000


def test_masked_rows_count_nothing():
    numbers = np.array([700.0, 200, 60, 20, 8, 3, 1, 1, 0, 0, 0, 0])
    mask = np.arange(12) < 9
    plain = js.fit(xpcs.Speckle(0.5, 0.3), HISTOGRAM)
    spoiled = np.where(mask, np.arange(12.0), np.nan), np.where(mask, numbers, np.nan)
    found = js.fit(xpcs.Speckle(0.5, 0.3), xpcs.PhotonCounts(*spoiled, mask=mask))
    close(found.y, plain.y, rtol=1e-9)
    assert (int(found.num_data), int(plain.num_data)) == (9, 12)


@pytest.mark.slow
def test_a_model_of_the_exposure():
    """Contrast that falls with the exposure: the likelihood takes any model of mean and contrast."""

    class Exposure(js.AbstractModel):
        rate: js.Scalar = js.param(bounds=(0, None))
        tau: js.Scalar = js.param(bounds=(1e-6, None))

        def __call__(self, t):
            x = t / self.tau
            fading = jnp.where(x > 0, (jnp.exp(-2 * x) - 1 + 2 * x) / (2 * x**2), 1.0)
            return jnp.stack([self.rate * t, 0.5 * fading], 1)

    t = np.repeat([0.1, 0.3, 1.0, 3.0], 3000)
    pair = np.asarray(Exposure(0.5, 0.7)(jnp.asarray(t)))
    rng = np.random.default_rng(4)
    counts = rng.poisson(rng.gamma(1 / pair[:, 1], pair[:, 0] * pair[:, 1])).astype(float)
    found = js.fit(Exposure(0.3, 0.3), xpcs.PhotonCounts(counts, inputs=jnp.asarray(t)))
    assert np.all(abs((np.asarray(found.y) - [0.5, 0.7]) / np.asarray(found.standard_errors)) < 4)


@pytest.mark.slow
def test_jit_of_vmap_of_grad():
    """d (fitted contrast) / d (weights of a histogram), for two histograms at once, against finite differences."""
    weights = jnp.array([[300.0, 90, 20, 4], [500.0, 60, 12, 1]])

    def fitted(w):
        data = xpcs.PhotonCounts(jnp.arange(4.0), w)
        return js.fit(xpcs.Speckle(0.3, 0.3), data, throw=False).values["contrast"]

    found = quick_jit(jax.vmap(jax.grad(fitted)))(weights)
    many = quick_jit(jax.vmap(fitted))
    for k in range(2):
        step = jnp.zeros_like(weights).at[k, 2].set(1.0)
        close(found[k, 2], derivative(lambda h, step=step: many(weights + h * step)[k], 0.0, 1e-2), rtol=1e-4)  # noqa: B023


@pytest.mark.slow
def test_large_counts_are_in_range():
    counts = drawn(300.0, 5.0, 500)
    found = js.fit(xpcs.Speckle(200.0, 0.5), xpcs.PhotonCounts(counts))
    assert abs(found.values["contrast"] - 0.2) < 4 * found.std["contrast"]
    k, m, b = counts, float(found.values["mean"]), float(found.values["contrast"])
    r = 1 / b
    exact = gammaln(k + r) - gammaln(r) - gammaln(k + 1) + k * np.log(m / (m + r)) + r * np.log(r / (m + r))
    close(float(found.cost), -exact.sum(), rtol=1e-10)


REFUSED = {
    "a fraction": (lambda: xpcs.PhotonCounts(np.array([0.0, 0.5])), r"counts\[1\] is 0\.5, but it should be a whole"),
    "no number": (lambda: xpcs.PhotonCounts(np.array([np.nan, 1])), r"counts\[0\] is nan"),
    "weights": (lambda: xpcs.PhotonCounts(np.ones(2), np.array([1.0, -1])), r"weights\[1\] is -1"),
    "shapes": (lambda: xpcs.PhotonCounts(np.ones(3), np.ones(4)), r"weights has shape \(4,\)"),
    "an image": (lambda: xpcs.PhotonCounts(np.ones((3, 3))), "ravel it"),
    "one number a row": (lambda: HISTOGRAM.residual(lambda x: jnp.zeros(12)), "need mean and contrast of each row"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_makes_no_sense_is_refused(case):
    made, message = REFUSED[case]
    with pytest.raises(ValueError, match=message):
        made()
