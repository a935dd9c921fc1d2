"""ECORR and red noise, fast against dense."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxsci as js
from jaxsci.timing import TimingNoise


def noise(k=4):
    rng = np.random.default_rng(3)
    n = 20
    span = 1e8
    time = np.sort(rng.uniform(0, span, n))
    frequency = np.repeat(np.arange(1, k // 2 + 1) / span, 2)
    angle = 2 * np.pi * frequency * time[:, None]
    return TimingNoise(
        error=jnp.asarray(rng.uniform(1e-6, 3e-6, n)),
        efac=jnp.asarray(rng.integers(0, 3, n)),
        equad=jnp.asarray(rng.integers(0, 2, n)),
        epoch=jnp.asarray(np.sort(rng.integers(0, 6, n))),
        basis=jnp.asarray(np.where(np.arange(k) % 2 == 0, np.sin(angle), np.cos(angle))),
        jitter=jnp.array([1, 2, 0, 1, 2, 1]),
        frequency=jnp.asarray(frequency),
        span=jnp.asarray(span),
        EFAC=jnp.array([1.1, 0.8]),
        EQUAD=jnp.array([1.5]),
        ECORR=jnp.array([2.0, 0.7]),
        TNREDAMP=jnp.array(-12.5),
        TNREDGAM=jnp.array(2.5),
    )


def dense(noise, mask):
    """C over the rows that the mask keeps, from its definition."""
    keep = np.flatnonzero(np.asarray(mask))
    epoch = np.asarray(noise.epoch)[keep]
    ecorr = np.concatenate([[0], 1e-6 * np.asarray(noise.ECORR)])[np.asarray(noise.jitter)][epoch]
    several = np.bincount(epoch, minlength=9)[epoch] > 1
    same = (epoch[:, None] == epoch) * np.where(several, ecorr**2, 0)
    basis = np.asarray(noise.basis)[keep]
    return np.diag(np.asarray(noise.variance())[keep]) + same + basis * np.asarray(noise.power()) @ basis.T, keep


@pytest.mark.parametrize("k", [0, 4])
def test_fast_is_dense(k):
    one = noise(k)
    rng = np.random.default_rng(0)
    mask = np.ones(20, bool)
    mask[[3, 11]] = False
    residual, jac_t = 1e-6 * rng.normal(size=20), 1e-6 * rng.normal(size=(3, 20))
    covariance, keep = dense(one, mask)
    rows = np.vstack([jac_t, residual])[:, keep]
    expected = rows @ np.linalg.solve(covariance, rows.T)
    ready = one.prepare(jnp.asarray(mask))
    lin = ready.finish(ready.sums(jnp.asarray(jac_t), jnp.asarray(residual), jnp.asarray(mask)))
    np.testing.assert_allclose(lin.gram, expected[:3, :3], rtol=1e-9)
    np.testing.assert_allclose(lin.grad, expected[:3, 3], rtol=1e-9)
    np.testing.assert_allclose(2 * lin.cost, expected[3, 3], rtol=1e-9)
    white = np.asarray(one.whiten(jnp.asarray(residual), jnp.asarray(mask)))
    np.testing.assert_allclose(white @ white, expected[3, 3], rtol=1e-9)
    assert not white[~mask].any()
    cost, jac, r = ready.weigh(jnp.asarray(jac_t), jnp.asarray(residual), jnp.asarray(mask))
    np.testing.assert_allclose(jac @ jac.T, expected[:3, :3], rtol=1e-9)
    np.testing.assert_allclose(jac @ r, expected[:3, 3], rtol=1e-9)
    np.testing.assert_allclose(2 * cost, expected[3, 3], rtol=1e-9)
    np.testing.assert_allclose(one.logdet(jnp.asarray(mask)), np.linalg.slogdet(covariance)[1], rtol=1e-12)


def test_derivatives_of_the_likelihood_with_the_noise():
    one, mask = noise(), jnp.ones(20, bool)
    residual = 1e-6 * jnp.asarray(np.random.default_rng(1).normal(size=20))

    def minus_log(values):
        new = js.put(one, values)
        return new.cost(residual, mask) + new.logdet(mask) / 2

    start = {"EFAC": one.EFAC, "ECORR": one.ECORR, "TNREDAMP": one.TNREDAMP}
    slopes = jax.jit(jax.grad(minus_log))(start)
    cost = jax.jit(minus_log)
    for name, slope in slopes.items():
        step = 1e-5
        up, down = (cost({**start, name: start[name] + s * step}) for s in (1, -1))
        assert float(jnp.sum(slope)) == pytest.approx(float(up - down) / (2 * step), rel=1e-5)


def test_padding_changes_nothing():
    one, mask = noise(), jnp.ones(20, bool)
    longer, wider = js.pad(one, 32), jnp.arange(32) < 20
    assert float(longer.logdet(wider)) == pytest.approx(float(one.logdet(mask)), rel=1e-13)
    assert bool(longer.valid(wider))
