"""Posteriors of q bins beside numpyro one by one and blackjax: time, criteria, what a bad bin costs its neighbours.

`xpcs` takes these rows. The bins are g2 = base + contrast exp(-2 (t / tau)^c) with noise of three thousandths; of the
last two one has no contrast and one has every row masked. A member's key is that of its place, so that with the bad
ones at the end all others can be compared bit for bit. numpyro runs a bin at a time, as a loop over bins would; its
first bin compiles and is not counted, and a few bins stand for all. blackjax runs all good bins at once, under vmap.
"""

import time
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import jaxsci as js
from jaxsci.sampling import BatchPosterior, ess_mean, sample

from ._harness import Area, Row, at_most, case, faster

AREA: Area = []
_BINS, _FLAT, _MASKED = 100, 98, 99
_DELAYS = np.geomspace(1e-5, 1, 61)
_SIGMA = 3e-3


class Decay(js.AbstractModel):
    """g2 of one relaxation."""

    base: js.Scalar = js.param()
    contrast: js.Scalar = js.param(bounds=(0, 1))
    tau: js.Scalar = js.param(bounds=(1e-7, 1e3), unit="s")
    c: js.Scalar = js.param(bounds=(0, 2))

    def __call__(self, t: Any) -> jax.Array:
        return self.base + self.contrast * jnp.exp(-2 * (t / self.tau) ** self.c)


class Bins(NamedTuple):
    """Fits of q bins and their data."""

    fits: js.BatchSolution
    data: list[js.Dataset]

    def without(self, *left_out: int) -> "Bins":
        """The same without some members, fitted anew."""
        kept = [k for k in range(len(self.data)) if k not in left_out]
        return fitted([self.data[k] for k in kept], times()[kept])


def times() -> np.ndarray:
    """The relaxation times of all bins."""
    return 10 ** np.linspace(-3, -1, _BINS)


def curves() -> list[js.Dataset]:
    """Data of all bins, the bad ones among them."""
    rng, contrast = np.random.default_rng(5), np.full(_BINS, 0.2)
    contrast[_FLAT] = 0
    g2 = 1 + contrast[:, None] * np.exp(-2 * (_DELAYS / times()[:, None]) ** 0.9)
    g2 = g2 + _SIGMA * rng.standard_normal(g2.shape)
    noise = js.Diagonal(np.full(_DELAYS.size, _SIGMA))
    return [js.Dataset(_DELAYS, y, noise, mask=np.full(_DELAYS.size, k != _MASKED)) for k, y in enumerate(g2)]


def fitted(data: list[js.Dataset], taus: np.ndarray) -> Bins:
    """The least squares of these bins."""
    return Bins(js.fit_batch([Decay(1.0, 0.15, 1.3 * tau, 1.0) for tau in taus], data), data)


def run(bins: Bins, seed: int = 0) -> tuple[BatchPosterior, float, float]:
    """(posteriors, CPU-s, wall-s) of all of them, four chains of 500 + 1000 draws each."""
    cpu, wall = time.process_time(), time.perf_counter()
    posteriors = sample(bins.fits, bins.data, key=jax.random.key(seed))
    return posteriors, time.process_time() - cpu, time.perf_counter() - wall


@case(AREA, "posteriors of 100 q bins", slow=True)
def hundred(quick: bool) -> Iterator[Row]:
    """Time, the price of two bad bins, bits of their neighbours, and the criteria."""
    every = fitted(curves(), times())
    good = every.without(_FLAT, _MASKED)
    cold = time.process_time()
    run(good)
    cold = time.process_time() - cold
    alone, cpu_alone, _ = run(good)
    posteriors, cpu, wall = run(every)
    name = "posteriors of 100 q bins, 4 x (500 + 1000)"
    yield Row(
        name, cpu, "s", n=_BINS, cold=cold, wall=wall, bar=at_most(20), note="warm, CPU; least squares not counted"
    )
    yield Row(f"{name}: over the 98 good ones alone", cpu / cpu_alone, "x", n=_BINS, bar=at_most(1.2))
    kept = [k for k in range(_BINS) if k not in (_FLAT, _MASKED)]
    same = [bool(jnp.array_equal(posteriors[k].draws, alone[k].draws)) for k in kept]
    yield Row(f"{name}: members whose bits changed", float(len(same) - sum(same)), n=len(same), bar=at_most(0))
    failed = sum(not posteriors[k].check() for k in kept)
    # 98 bins of four parameters: by chance alone some few data sets lie outside of a 99 % interval
    yield Row(f"{name}: good members that fail a criterion", float(failed), n=len(kept), bar=at_most(4))


@case(AREA, "numpyro one bin at a time", slow=True, needs="numpyro")
def one_by_one(quick: bool) -> Iterator[Row]:
    """The same bins by numpyro's MCMC, in its own way: a model with priors flat between the bounds."""
    few = 4
    every = fitted(curves()[:few], times()[:few])
    posteriors, _, _ = run(every)
    _, ours, _ = run(fitted(curves(), times()))
    start = time.process_time()
    plain = [_plain(every.data[0], every.fits[0])]
    cold, start = time.process_time() - start, time.process_time()
    plain += [_plain(every.data[k], every.fits[k]) for k in range(1, few)]
    theirs = (time.process_time() - start) / (few - 1) * _BINS
    note = f"{few - 1} bins, scaled to {_BINS}; its first took {cold:.1f} s"
    yield Row("100 q bins, CPU", ours, "s", "numpyro", theirs, n=_BINS, bar=faster(1), note=note)
    gaps = [_gap(posteriors[k], plain[k]) for k in range(few)]
    yield Row("means beside numpyro's, in Monte Carlo errors", max(gaps), n=4 * few, bar=at_most(4.5))


@case(AREA, "blackjax all bins at once", slow=True, needs="blackjax")
def at_once(quick: bool) -> Iterator[Row]:
    """The good bins by blackjax's window adaptation and NUTS, in logits of the bounds, mapped over bins and chains."""
    every = fitted(curves(), times()).without(_FLAT, _MASKED)
    run(every)
    posteriors, ours, wall = run(every)
    y = jnp.stack([data.observed for data in every.data])
    start = jnp.stack([jnp.stack([fit.values[name] for name in _NAMES]) for fit in every.fits])
    cold = time.process_time()
    _mapped(y, start)
    cold = time.process_time() - cold
    clock = time.perf_counter()
    theirs = time.process_time()
    draws = _mapped(y, start)
    theirs, clock = time.process_time() - theirs, time.perf_counter() - clock
    gaps = [_gap(posteriors[k], dict(zip(_NAMES, draws[k], strict=True))) for k in range(len(every.data))]
    note = f"warm, all at once; blackjax wall {clock:.1f} s, its first call {cold:.1f} s CPU"
    name = f"{len(every.data)} good q bins, CPU, beside blackjax"
    yield Row(name, ours, "s", "blackjax", theirs, n=len(every.data), wall=wall, bar=faster(1), note=note)
    yield Row("means beside blackjax's, in Monte Carlo errors", max(gaps), n=4 * len(gaps), bar=at_most(4.5))


_NAMES = ("base", "contrast", "tau", "c")


def _bounded(u: jax.Array) -> tuple[jax.Array, jax.Array]:
    """(base, contrast, tau, c) of reals, and log |dy/du|: a logarithm for tau, whose far bound does not matter."""
    contrast, c = jax.nn.sigmoid(u[1]), 2 * jax.nn.sigmoid(u[3])
    log_det = sum(jax.nn.log_sigmoid(x) + jax.nn.log_sigmoid(-x) for x in (u[1], u[3])) + u[2]
    return jnp.stack([u[0], contrast, jnp.exp(u[2]), c]), log_det


@jax.jit
def _every_chain(y: jax.Array, start: jax.Array) -> jax.Array:
    """Draws (bins, chains, draws, 4) of blackjax."""
    import blackjax

    def chain(y: jax.Array, start: jax.Array, key: jax.Array) -> jax.Array:
        def log_density(u: jax.Array) -> jax.Array:
            values, log_det = _bounded(u)
            return log_det - jnp.sum(((Decay(*values)(jnp.asarray(_DELAYS)) - y) / _SIGMA) ** 2) / 2

        to_adapt, to_draw = jax.random.split(key)
        logit = jnp.clip(start / jnp.array([1, 1, 1, 2]), 0.01, 0.99)
        u = jnp.where(jnp.array([False, True, False, True]), jnp.log(logit / (1 - logit)), start)
        adaptation = blackjax.window_adaptation(blackjax.nuts, log_density, is_mass_matrix_diagonal=False)
        (state, found), _ = adaptation.run(to_adapt, u.at[2].set(jnp.log(start[2])), 500)
        step = blackjax.nuts(log_density, **found).step

        def draw(state: Any, key: jax.Array) -> tuple[Any, jax.Array]:
            state = step(key, state)[0]
            return state, _bounded(state.position)[0]

        return jax.lax.scan(draw, state, jax.random.split(to_draw, 1000))[1]

    keys = jax.random.split(jax.random.key(0), (len(y), 4))
    return jax.vmap(jax.vmap(chain, (None, None, 0)))(y, start, keys)


def _mapped(y: jax.Array, start: jax.Array) -> np.ndarray:
    """Draws (bins, 4, chains, draws) on the host."""
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        return np.moveaxis(np.asarray(_every_chain(y, start)), -1, 1)


def _plain(data: js.Dataset, fit: js.Solution) -> dict[str, np.ndarray]:
    """Draws of one bin by numpyro's own door, started at the fit."""
    import numpyro
    import numpyro.distributions as dist
    from numpyro.infer import MCMC, NUTS, init_to_value

    def model(t: jax.Array, y: jax.Array) -> None:
        base = numpyro.sample("base", dist.ImproperUniform(dist.constraints.real, (), ()))
        contrast = numpyro.sample("contrast", dist.Uniform(0, 1))
        tau = numpyro.sample("tau", dist.Uniform(1e-7, 1e3))
        c = numpyro.sample("c", dist.Uniform(0, 2))
        numpyro.sample("y", dist.Normal(base + contrast * jnp.exp(-2 * (t / tau) ** c), _SIGMA), obs=y)

    start = init_to_value(values=dict(fit.values))
    kernel = NUTS(model, dense_mass=True, init_strategy=start)
    chains = MCMC(kernel, num_warmup=500, num_samples=1000, num_chains=4, chain_method="vectorized", progress_bar=False)
    chains.run(jax.random.key(0), data.inputs, data.observed)
    return {name: np.asarray(x) for name, x in chains.get_samples(group_by_chain=True).items()}


def _gap(ours: js.sampling.Posterior, theirs: dict[str, np.ndarray]) -> float:
    """The largest distance of posterior means, in Monte Carlo standard errors of both."""
    gaps = []
    for name, x in theirs.items():
        mine = np.asarray(ours.samples(name))
        error = np.hypot(*(each.std() / np.sqrt(ess_mean(each)) for each in (mine, x)))
        gaps.append(abs(mine.mean() - x.mean()) / error)
    return float(max(gaps))
