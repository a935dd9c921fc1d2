import re

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import pytest
import scipy.special
import scipy.stats
from helpers import close, quick_jit, to_float32

import jaxsci as js
from jaxsci.core._rows import split_rows

N = 11
RNG = np.random.default_rng(3)
SIGMA = RNG.uniform(0.5, 2.0, N)
BASIS = RNG.normal(size=(N, 3))
SQUARE = RNG.normal(size=(N, N))
JAC, RESIDUAL = jnp.asarray(RNG.normal(size=(2, N))), jnp.asarray(RNG.normal(size=N))
ALL = jnp.ones(N, bool)
SOME = jnp.asarray(np.arange(N) % 4 != 1)

NOISES = {  # noise, its covariance
    "unit": (js.Unit(), np.eye(N)),
    "white": (js.White(1.7), 1.7**2 * np.eye(N)),
    "diagonal": (js.Diagonal(SIGMA), np.diag(SIGMA**2)),
    "efac and equad": (js.Diagonal(SIGMA, 1.3, 0.4), np.diag((1.3 * SIGMA) ** 2 + 0.16)),
    "dense": (js.Dense(SQUARE @ SQUARE.T + np.eye(N)), SQUARE @ SQUARE.T + np.eye(N)),
    "low rank": (
        js.LowRank(js.Diagonal(SIGMA, 1.2, 0.3), BASIS, jnp.array([0.5, 2.0, 9.0])),
        np.diag((1.2 * SIGMA) ** 2 + 0.09) + BASIS @ np.diag([0.5, 2.0, 9.0]) @ BASIS.T,
    ),
    "low rank on white": (js.LowRank(js.White(0.7), BASIS, jnp.full(3, 2.0)), 0.49 * np.eye(N) + 2 * BASIS @ BASIS.T),
    "low rank on low rank": (
        js.LowRank(js.LowRank(js.White(0.7), BASIS[:, :1], jnp.ones(1)), BASIS[:, 1:], jnp.full(2, 2.0)),
        0.49 * np.eye(N) + BASIS[:, :1] @ BASIS[:, :1].T + 2 * BASIS[:, 1:] @ BASIS[:, 1:].T,
    ),
}
MASKS = {"all": ALL, "some": SOME, "one": jnp.arange(N) == 4}


@quick_jit
def everything(noise, mask):
    ready = noise.prepare(mask)
    return {
        "white": noise.whiten(RESIDUAL, mask),
        "ready": ready.whiten(RESIDUAL, mask),
        "logdet": noise.logdet(mask),
        "lin": noise.finish(noise.sums(JAC, RESIDUAL, mask)),
        "ready lin": ready.finish(ready.sums(JAC, RESIDUAL, mask)),
        "weighed": noise.weigh(JAC, RESIDUAL, mask),
        "cost": noise.cost(RESIDUAL, mask),
        "valid": noise.valid(mask),
    }


@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("name", NOISES)
def test_fast_equals_dense(name, mask):
    noise, covariance = NOISES[name]
    used = np.asarray(MASKS[mask])
    c = covariance[np.ix_(used, used)]
    jac, r = np.asarray(JAC)[:, used], np.asarray(RESIDUAL)[used]
    inverse = np.linalg.inv(c)
    got = everything(noise, MASKS[mask])
    cost, grad, gram = r @ inverse @ r / 2, jac @ inverse @ r, jac @ inverse @ jac.T
    for lin in (got["lin"], got["ready lin"]):
        close((lin.cost, lin.grad, lin.gram), (cost, grad, gram), 1e-11, 1e-13)
    for z in (got["white"], got["ready"]):
        close(jnp.sum(z * z), jnp.asarray(2 * cost), 1e-11)
        assert bool(jnp.all(z[~used] == 0)) or "low rank" in name
    close(got["logdet"], np.linalg.slogdet(c)[1], 1e-12, 1e-12)
    weighed_cost, j, z = got["weighed"]
    close((weighed_cost, j @ z, j @ j.T), (cost, grad, gram), 1e-11, 1e-13)
    close(got["cost"], cost, 1e-11)
    assert bool(got["valid"])


@quick_jit
def whiten_all(noise, rows, mask):
    return jax.vmap(lambda row: noise.whiten(row, mask))(rows)


@pytest.mark.parametrize("name", NOISES)
def test_whitening_is_linear_and_whitens(name):
    noise, covariance = NOISES[name]
    w = np.asarray(whiten_all(noise, jnp.eye(N), ALL)).T
    close(w @ covariance @ w.T, np.eye(N), 1e-11, 1e-11)
    close(whiten_all(noise, jnp.broadcast_to(RESIDUAL, (N, N)), ALL)[0], w @ np.asarray(RESIDUAL), 1e-10, 1e-12)


@pytest.mark.parametrize("name", ["unit", "white", "diagonal", "low rank", "low rank on white"])
def test_sums_are_additive_over_rows(name):
    noise, _ = NOISES[name]

    def part(rows):
        pieces, rest = split_rows(js.Dataset(jnp.arange(float(N)), jnp.zeros(N), noise))
        cut = jax.tree.map(lambda x: x[rows], pieces)
        data = jax.tree.map(lambda a, b: b if a is None else a, cut, rest, is_leaf=lambda x: x is None)
        return data.noise.sums(JAC[:, rows], RESIDUAL[rows], SOME[rows])

    total = jax.tree.map(jnp.add, part(slice(0, 4)), part(slice(4, N)))
    whole = noise.finish(noise.sums(JAC, RESIDUAL, SOME))
    close(jax.tree.leaves(noise.finish(total)), jax.tree.leaves(whole), 1e-12, 1e-13)


@pytest.mark.parametrize("name", NOISES)
def test_derivatives_of_the_likelihood_agree_with_differences(name):
    noise, _ = NOISES[name]
    leaves, structure = jax.tree.flatten(noise)
    if not leaves:
        return

    def minus_log(scale):
        scaled = jax.tree.unflatten(structure, [leaf * scale for leaf in leaves])
        return scaled.cost(RESIDUAL, SOME) + scaled.logdet(SOME) / 2

    both = quick_jit(jax.value_and_grad(minus_log))
    up, down = (float(both(jnp.asarray(1 + h))[0]) for h in (1e-5, -1e-5))
    close(both(jnp.asarray(1.0))[1], (up - down) / 2e-5, 1e-7)


@pytest.mark.parametrize("name", NOISES)
def test_single_precision_and_batches(name):
    noise, _ = NOISES[name]

    @quick_jit
    def both(single, batch):
        z = single.whiten(RESIDUAL.astype(jnp.float32), SOME)
        factors = jnp.array([1.0, 2.0])
        return z, jax.vmap(lambda noise, k: noise.cost(k * RESIDUAL, SOME))(batch, factors)

    z, batch = both(to_float32(noise), js.stack([noise, noise]))
    double = everything(noise, SOME)
    assert z.dtype == jnp.float32
    close(z, double["white"].astype(jnp.float32), 2e-4, 2e-5)
    close(batch, double["cost"] * jnp.array([1.0, 4.0]), 1e-12)


@pytest.mark.parametrize("ratio", [1e4, 1e7, 1e10])
def test_strong_modes_keep_their_digits(ratio):
    """Against 60-digit arithmetic, at prior variances up to 1e10 times that of the noise."""
    noise = js.LowRank(js.White(1.0), BASIS, jnp.full(3, ratio))
    with mpmath.workdps(60):
        basis = mpmath.matrix(BASIS.tolist())
        c = mpmath.eye(N) + mpmath.mpf(ratio) * basis * basis.T
        r = mpmath.matrix(np.asarray(RESIDUAL).tolist())
        chi2 = float((r.T * mpmath.lu_solve(c, r))[0])
        logdet = float(mpmath.log(mpmath.det(c)))
    got = everything(noise, ALL)
    for z in (got["white"], got["ready"]):
        close(jnp.sum(z * z), chi2, 1e-10)
    close(got["logdet"], logdet, 1e-12)
    close(got["lin"].cost, chi2 / 2, 1e-14 * ratio + 1e-12)  # the additive sums lose digits, as documented


WITH_NAN = jnp.asarray(SIGMA).at[2].set(jnp.nan)
VALID = {  # noise, valid with all rows, valid with row 2 masked
    "good": (js.Diagonal(SIGMA), True, True),
    "sigma 0": (js.Diagonal(jnp.asarray(SIGMA).at[2].set(0)), False, True),
    "sigma negative": (js.Diagonal(jnp.asarray(SIGMA).at[2].set(-1)), False, True),
    "sigma nan": (js.Diagonal(WITH_NAN), False, True),
    "sigma inf": (js.Diagonal(jnp.asarray(SIGMA).at[2].set(jnp.inf)), False, True),
    "white 0": (js.White(0.0), False, False),
    "white negative": (js.White(-1.0), False, False),
    "white nan": (js.White(jnp.nan), False, False),
    "white inf": (js.White(jnp.inf), False, False),
    "efac 0 and equad 0": (js.Diagonal(SIGMA, 0.0, 0.0), False, False),
    "efac nan": (js.Diagonal(SIGMA, jnp.nan), False, False),
    "indefinite": (js.Dense(jnp.diag(jnp.ones(N).at[2].set(-1))), False, True),
    "singular": (js.Dense(jnp.ones((N, N))), False, False),
    "covariance nan": (js.Dense(jnp.eye(N).at[2, 2].set(jnp.nan)), False, True),
    "mode variance 0": (js.LowRank(js.White(1.0), BASIS, jnp.array([1.0, 0.0, 1.0])), False, False),
    "basis nan": (js.LowRank(js.White(1.0), jnp.asarray(BASIS).at[2, 0].set(jnp.nan), jnp.ones(3)), False, True),
    "inner sigma": (js.LowRank(js.Diagonal(WITH_NAN), BASIS, jnp.ones(3)), False, True),
    "counts negative": (js.Poisson(jnp.ones(N).at[2].set(-1)), False, True),
    "counts nan": (js.Poisson(jnp.ones(N).at[2].set(jnp.nan)), False, True),
    "counts 0": (js.Poisson(jnp.zeros(N)), True, True),
}


@pytest.mark.parametrize("case", VALID)
def test_noise_that_makes_no_sense_is_known_as_such(case):
    noise, whole, masked = VALID[case]
    valid = quick_jit(lambda noise, mask: noise.valid(mask))
    assert bool(valid(noise, ALL)) is whole
    assert bool(valid(noise, jnp.arange(N) != 2)) is masked


def test_absolute_is_false_only_for_noise_of_unknown_scale():
    assert not js.Unit().absolute
    assert not js.Robust(js.Unit(), js.Huber()).absolute
    assert js.White(1.0).absolute
    assert js.Poisson(jnp.ones(2)).absolute


COUNTS = jnp.array([0.0, 1.0, 2.0, 5.0, 40.0, 0.0, 3.0, 7.0, 100.0, 1.0, 12.0])
MU = jnp.asarray(RNG.uniform(0.5, 60.0, N))


def test_poisson_is_half_the_deviance():
    lin = js.Poisson(COUNTS).finish(js.Poisson(COUNTS).sums(JAC, MU - COUNTS, SOME))
    k, mu, used = np.asarray(COUNTS), np.asarray(MU), np.asarray(SOME)
    half = mu - k + scipy.special.xlogy(k, k) - scipy.special.xlogy(k, mu)
    close(lin.cost, half[used].sum(), 1e-13)
    close(lin.grad, np.asarray(JAC)[:, used] @ (1 - k / mu)[used], 1e-12)
    close(lin.gram, (np.asarray(JAC)[:, used] / mu[used]) @ np.asarray(JAC)[:, used].T, 1e-12)
    log_likelihood = (
        scipy.stats.poisson.logpmf(k, mu)[used].sum() - scipy.stats.poisson.logpmf(k, np.maximum(k, 1e-300))[used].sum()
    )
    close(-lin.cost, log_likelihood, 1e-10)


def test_poisson_score_is_the_derivative_of_its_value():
    poisson = js.Poisson(COUNTS)
    value, score, weight = poisson.rows(MU - COUNTS)
    grad = jax.grad(lambda r: jnp.sum(poisson.rows(r)[0]))(MU - COUNTS)
    close(score, grad, 1e-13, 1e-14)
    close(weight, 1 / MU, 1e-13)
    z = poisson.standardise(MU - COUNTS, SOME)
    close(z**2 / 2, jnp.where(SOME, value, 0), 1e-12)
    assert bool(jnp.all(jnp.where(SOME, jnp.sign(z) == jnp.sign(MU - COUNTS), z == 0)))


def test_poisson_at_the_edge_of_its_domain():
    poisson = js.Poisson(COUNTS)
    assert float(poisson.cost((MU - COUNTS).at[3].set(-COUNTS[3]), ALL)) == np.inf
    assert np.isfinite(float(poisson.cost((MU - COUNTS).at[3].set(-COUNTS[3]), jnp.arange(N) != 3)))
    perfect = poisson.standardise(jnp.zeros(N), ALL)
    assert bool(jnp.all(perfect == 0))
    grad = jax.grad(lambda r: jnp.sum(poisson.standardise(r, ALL)))(jnp.zeros(N))
    assert bool(jnp.all(jnp.isfinite(grad)))


@pytest.mark.parametrize("loss", [js.Linear(), js.SoftL1(0.5), js.Huber(0.5), js.Cauchy(0.5), js.Arctan(0.5)])
@pytest.mark.parametrize("name", ["white", "dense", "low rank"])
def test_robust_gradient_is_exact_and_its_curvature_positive(name, loss):
    noise, _ = NOISES[name]
    robust = js.Robust(noise, loss)

    def cost(y):
        return robust.cost(RESIDUAL + jnp.tensordot(y, JAC, 1), SOME)

    @quick_jit
    def both():
        lin = robust.finish(robust.sums(JAC, RESIDUAL, SOME))
        ready = robust.prepare(SOME)
        return lin, ready.finish(ready.sums(JAC, RESIDUAL, SOME)), cost(jnp.zeros(2)), jax.grad(cost)(jnp.zeros(2))

    lin, ready, value, grad = both()
    close((lin.cost, lin.grad), (value, grad), 1e-12, 1e-13)
    close(jax.tree.leaves(ready), jax.tree.leaves(lin), 1e-11, 1e-12)
    assert np.linalg.eigvalsh(np.asarray(lin.gram)).min() > 0
    root = robust.root(RESIDUAL, SOME)
    close(jnp.sum(root**2) / 2, value, 1e-12)


def test_a_lone_robust_residual_of_zero_has_a_finite_gradient():
    robust = js.Robust(js.White(1.0), js.Cauchy())
    grad = jax.grad(lambda r: jnp.sum(robust.root(r, jnp.ones(3, bool))))(jnp.array([0.0, 1.0, -2.0]))
    assert bool(jnp.all(jnp.isfinite(grad)))


def test_priors():
    prior = js.Normal(2.0, 0.5)
    value = jnp.array([1.0, 2.5])
    close(prior.log_prob(value), scipy.stats.norm(2.0, 0.5).logpdf(np.asarray(value)).sum(), 1e-13)
    with pytest.raises(ValueError, match=re.escape("Normal.mean should be")):
        js.Normal("a", 1.0)
