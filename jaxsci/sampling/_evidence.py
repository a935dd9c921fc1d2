"""The evidence of a model, from the draws of its posterior: ln Z with its standard error, by bridge sampling.

Z = integral of likelihood times prior, both normalised, over what moves. Draws of the posterior and draws of a Gaussian
that was fitted to other draws meet in the coordinates in which chains moved, and Z is the ratio that makes both tell
the same overlap. `Posterior.log_evidence` and that of a batch end here, as a batch of one and of many.

Meng and Wong 1996, Statistica Sinica 6, 831; Gronau et al. 2017, J. Math. Psych. 81, 80. The error is that of
Fruehwirth-Schnatter 2004, Econometrics Journal 7, 143, with the correlation of the draws told by blocks of the chains.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import jax.scipy.special as jsp
import numpy as np
from jax import lax
from jax.scipy.special import logsumexp
from jaxtyping import Array, Bool, Float, UInt32

from ..core import AbstractNoise, Linear, Module, Normal, Poisson, Scalar, Tree, closed
from ..core.linalg import cholesky, dot, solve_lower
from ..datasets import AbstractDataset
from ..fitting import Ready, Solution, compiled, format_pm, make_ready
from ._kernel import Trace
from ._pose import Kind, Single, first_of, pose

_BATCH = 64  # densities at a time, so that memory does not grow with the number of draws
_BLOCKS = 32  # of all chains together, whose means tell the error of the mean of correlated draws
_FEWEST = 50  # draws' worth of overlap, below which neither Z nor its error can be believed
_APART = 5  # standard errors by which the two halves may differ
_STEPS = 1000  # of the fixed point, which is there after some ten where Gaussian and posterior overlap
_LOOKS = 8  # draws whose density is computed again, to see whether they are draws of this posterior
JOINT = (
    "these members share parameters, so that they have one posterior and one evidence, which is not computed: compare "
    "models of one data set, or sample members that share none"
)


class Evidence(Module):
    """How probable a model makes the data: ln Z, of the parameters' priors and the likelihood, both normalised.

    - `log_z`: ln Z; the difference of two models is the logarithm of their Bayes factor. Its unit is that of the data
      to the power -n. NaN where it is not known.
    - `std`: its standard error from the draws, which knows nothing of modes that no chain has seen. NaN likewise.
    - `overlap`: of the posterior with the Gaussian that it is measured by: 1 for a posterior that is one, in the
      coordinates of the sampler.
    - `laplace`: ln Z of the Gaussian that the fit takes the posterior for, to compare.
    """

    log_z: Float[Array, "*batch"]
    std: Float[Array, "*batch"]
    overlap: Float[Array, "*batch"]
    laplace: Float[Array, "*batch"]

    @property
    def known(self) -> Bool[Array, "*batch"]:
        """False where draws and Gaussian hardly overlap, or two halves of the draws disagree."""
        return jnp.isfinite(self.log_z)

    def __str__(self) -> str:
        if self.log_z.ndim:
            return f"ln Z of {self.log_z.size} members, of which {int(jnp.sum(self.known))} are known"
        facts = f"overlap {float(self.overlap):.2g}; Laplace {float(self.laplace):.6g}"
        if not bool(self.known):
            return f"ln Z is not known: draws and Gaussian hardly overlap, or halves of the draws disagree ({facts})"
        return f"ln Z = {' +- '.join(format_pm(float(self.log_z), float(self.std)))} ({facts})"


class Drawn(NamedTuple):
    """Chains of stacked members that have one structure: their fits, data and draws, and their places in the batch."""

    start: Solution
    data: Tree
    trace: Trace
    members: np.ndarray
    free_scale: bool


def evidence_of(drawn: Drawn, key: Array) -> Evidence:
    """ln Z of stacked members, all of which have draws.

    **Raises:** `ValueError` where prior or likelihood is no density, or the draws are not of this posterior.
    """
    start, data = drawn.start, closed(drawn.data)
    fixed = np.asarray(start.fixed)[0]
    check_likelihood(first_of(start), first_of(data))
    if drawn.free_scale:
        raise ValueError(
            "the scale of the noise is unknown, and its prior 1/sigma has no end: give the data a noise, or free "
            "noise.sigma with a prior"
        )
    _check_priors(start, ~fixed)
    posed = pose(start, data, Kind(tuple(np.flatnonzero(~fixed).tolist()), drawn.free_scale))
    _check_draws(posed, drawn.trace)
    seed = jax.random.bits(key, (2,), jnp.uint32)
    return compiled(_each, (posed, drawn.trace.y, drawn.members, seed))


def nothing_known(size: int) -> Evidence:
    """NaN for so many members."""
    return Evidence(*(jnp.full(size, jnp.nan) for _ in range(4)))


def check_likelihood(start: Solution, data: AbstractDataset) -> None:
    """Raise `ValueError` where the likelihood of one fit is not known with all of its factors."""
    terms, name = start.terms, type(data).__name__
    base = data.noise if terms.likelihood is None else terms.likelihood
    if not isinstance(terms.loss, Linear):
        raise ValueError(
            f"the loss {type(terms.loss).__name__} is no likelihood that could be normalised: fit with the loss Linear"
        )
    if not isinstance(base, AbstractNoise | Poisson):
        raise ValueError(
            f"{type(base).__name__} does not say by what its likelihood is normalised: Gaussian noise and Poisson do"
        )
    if type(data).sums is not AbstractDataset.sums:
        raise ValueError(f"the cost of a {name} has its linear parameters eliminated, and is no likelihood of its rows")


def _check_priors(start: Solution, moving: Bool[np.ndarray, " p"]) -> None:
    """Raise `ValueError` where the prior of an element that moves is no density within its bounds."""
    at = jax.tree.map(np.asarray, start.terms)
    lower = np.full_like(start.y, -np.inf) if at.lower is None else at.lower
    upper = np.full_like(start.y, np.inf) if at.upper is None else at.upper
    flat = (np.asarray(at.prior_weight) == 0) & moving
    for shaped in start.terms.shaped:
        flat[:, list(shaped.at)] = False
    improper = np.any(flat & ~np.isfinite(upper - lower), axis=0)
    if improper.any():
        names = ", ".join(name for name, bad in zip(start.names, improper, strict=True) if bad)
        raise ValueError(
            f"the evidence needs proper priors, and that of {names} is flat without end: give it a prior "
            "(priors={name: jaxsci.Normal(mean, sigma)}) or two finite bounds in the fit"
        )
    for shaped in start.terms.shaped:
        places = np.array(shaped.at)
        mass = jax.vmap(lambda prior, low, high: prior.log_mass(low, high))(
            shaped.prior, jnp.asarray(lower[:, places]), jnp.asarray(upper[:, places])
        )
        cut = np.any(np.isnan(np.asarray(mass)), axis=0) & moving[places]
        if cut.any():
            names = ", ".join(start.names[place] for place in places[cut])
            raise ValueError(
                f"{type(shaped.prior).__name__}, the prior of {names}, is cut by bounds and does not say how much of "
                "it is left: give it a method log_mass(lower, upper), or no bounds"
            )


def _check_draws(posed: Single, trace: Trace) -> None:
    """Raise `ValueError` where the density that the chains saw is not that of the fits and data at hand."""
    places = np.linspace(0, trace.y.shape[2] - 1, _LOOKS).astype(int)
    y, told = np.asarray(trace.y)[:, 0, places], np.asarray(trace.log_density, float)[:, 0, places]
    found = np.asarray(compiled(_log_densities, (posed, y), once=True))
    rough = np.sqrt(np.finfo(trace.y.dtype).eps) * (np.abs(told) + np.asarray(posed.start.num_data)[:, None])
    # the median, since of a draw on a bound no digit of its distance is left
    if not np.all(np.median(np.abs(found - told) - rough, axis=1) <= 0):
        raise ValueError(
            "the density at these draws is another than the chains saw: give the fit and the data that were sampled"
        )


def _log_densities(posed: Single, y: Float[Array, "b k p"]) -> Float[Array, "b k"]:
    def one(member: tuple[Single, Array]) -> Array:
        here = _Space.of(member[0])
        return jax.vmap(lambda y: here.log_density(here.locate(y)) - here.constant)(member[1])

    return lax.map(one, (posed, y))


def _each(posed: Single, draws: Float[Array, "b chains draws p"], members: Array, seed: UInt32[Array, "2"]) -> Evidence:
    def one(member: tuple[Single, Array, Array]) -> Evidence:
        key = jax.random.fold_in(jax.random.wrap_key_data(seed, impl="threefry2x32"), member[2])
        return bridge(member[0], member[1], key)

    return lax.map(one, (posed, draws, members))


def bridge(posed: Single, draws: Float[Array, "chains draws p"], key: Array) -> Evidence:
    """ln Z of one posterior from its draws; a pure function of arrays.

    A Gaussian that was fitted to the draws it is then compared with would seem closer to them than it is: one of the
    first halves of all chains meets the second ones, and the other way about. The mean of both has used all draws.
    """
    here = _Space.of(posed)
    half = draws.shape[1] // 2
    halves = jnp.stack([draws[:, :half], draws[:, draws.shape[1] - half :]])
    z = jax.vmap(jax.vmap(jax.vmap(here.locate)))(halves)
    gaussians = jax.vmap(_fitted)(z)
    flat = z.reshape(2, -1, z.shape[-1])
    proposed = jax.vmap(lambda gaussian, key: gaussian.draw(key, flat.shape[1]))(gaussians, jax.random.split(key))
    points = jnp.concatenate([flat, proposed.astype(z.dtype), jnp.zeros_like(flat[:, :1])], axis=1)
    dense = here.log_densities(points.reshape(-1, z.shape[-1])).reshape(points.shape[:-1])
    of_draws, of_proposed, at_fit = jnp.split(dense, [flat.shape[1], 2 * flat.shape[1]], axis=1)
    met = jax.vmap(_meet)(
        gaussians, flat[::-1], of_draws.reshape(z.shape[:-1])[::-1], proposed, of_proposed
    )  # fmt: skip
    log_z = jnp.mean(met.log_z)
    # where the posterior is a Gaussian, what both halves err by is the product of their own deviations, one and the
    # same: the errors of the draws are added up as they are, those of the Gaussians' own draws in quadrature
    variance = jnp.mean(jnp.sqrt(met.of_draws)) ** 2 + jnp.mean(met.of_gaussian) / 2
    apart = jnp.abs(met.log_z[0] - met.log_z[1]) / 2
    known = jnp.all(met.worth >= _FEWEST) & (apart <= _APART * jnp.sqrt(variance) + _rounding(log_z))
    laplace = at_fit[0, 0] + z.shape[-1] / 2 * math.log(2 * math.pi)
    return Evidence(
        jnp.where(known, log_z, jnp.nan), jnp.where(known, jnp.sqrt(variance), jnp.nan), jnp.min(met.overlap), laplace
    )


def _rounding(value: Array) -> Array:
    """What sums of such a size lose, of which a posterior that is its own Gaussian has nothing else."""
    return 1024 * jnp.finfo(value.dtype).eps * (1 + jnp.abs(value))


class _Space(NamedTuple):
    """A posterior over z with all of its factors. `constant`: what the potential leaves out of the log-density."""

    posed: Single
    frame: Tree
    constant: Scalar

    @staticmethod
    def of(posed: Single) -> "_Space":
        frame = posed.frame()
        constant = _left_out(posed) + jnp.linalg.slogdet(frame.factor)[1]
        return _Space(posed, frame, constant.astype(jnp.result_type(float)))

    def locate(self, y: Float[Array, " p"]) -> Float[Array, " m"]:
        return self.frame.locate(y[jnp.array(self.posed.moving)])

    def log_density(self, z: Float[Array, " m"]) -> Scalar:
        """ln of likelihood, prior and |dy/dz|; minus infinity where the model is no number, and no chain goes."""
        target = self.posed.target(self.frame)
        value = self.constant - target.potential(z.astype(target.origin.dtype)).astype(self.constant.dtype)
        return jnp.where(jnp.isnan(value), -jnp.inf, value)

    def log_densities(self, z: Float[Array, "k m"]) -> Float[Array, " k"]:
        """Those of many points, some at a time; the last ones are filled up, so that one loop serves all."""
        count = z.shape[0]
        filled = jnp.pad(z, ((0, -count % _BATCH), (0, 0))).reshape(-1, _BATCH, z.shape[1])
        return lax.map(jax.vmap(self.log_density), filled).reshape(-1)[:count]


def _left_out(posed: Single) -> Scalar:
    """What a fit's cost leaves out of minus ln(likelihood prior), with the opposite sign."""
    ready = make_ready(posed.problem, posed.choices)
    data, base = posed.problem.data, ready.base
    if isinstance(base, Poisson):
        of_data = jnp.sum(jnp.where(data.mask, log_counts(base), 0))
    else:
        # of a noise with free parameters the cost has the determinant
        dtype = posed.start.y.dtype
        known = 0 if posed.choices.plan.noise else ready.objective.inspect(base).log_norm.astype(dtype)
        of_data = -(posed.start.num_data.astype(dtype) * math.log(2 * math.pi) + known) / 2
    return of_data + _log_norm_of_priors(posed, ready)


def log_counts(likelihood: Poisson) -> Float[Array, " n"]:
    """k log k - k - log k!, which half the deviance of a count leaves out of its log-probability."""
    k = likelihood.counts
    return jsp.xlogy(k, k) - k - jsp.gammaln(k + 1)


def _log_norm_of_priors(posed: Single, ready: Ready) -> Scalar:
    """ln of what normalises the priors of what moves, each within its bounds; those of what is held do not count."""
    moves = jnp.zeros(posed.start.y.shape, bool).at[jnp.array(posed.moving)].set(True)
    terms, y, dtype = posed.problem.terms, posed.start.y, posed.start.y.dtype
    some = terms.prior_weight > 0
    sigma = 1 / jnp.sqrt(jnp.where(some, terms.prior_weight, 1))
    normal = Normal(terms.prior_mean, sigma)
    gaussian = normal.log_density(terms.prior_mean) - normal.log_mass(ready.lower, ready.upper)
    held = terms.prior_weight * (y - terms.prior_mean) ** 2 / 2
    shaped = jnp.zeros(y.shape, bool)
    total = jnp.zeros((), dtype)
    for one in terms.shaped:
        at = jnp.array(one.at)
        shaped = shaped | one.present(y)
        mode = jnp.broadcast_to(one.prior.mode().astype(dtype), at.shape)
        mass = one.prior.log_mass(ready.lower[at], ready.upper[at])
        total += jnp.sum(jnp.where(moves[at], one.prior.log_density(mode) - mass, one.prior.cost(y[at])))
    uniform = -jnp.log(jnp.where(some | shaped | ~moves, 1, ready.upper - ready.lower))
    return total + jnp.sum(jnp.where(moves, jnp.where(some, gaussian, uniform), held))


class _Met(NamedTuple):
    """ln Z of some draws and a Gaussian, its variance from either, their overlap, and how many draws' worth that is."""

    log_z: Scalar
    of_draws: Scalar
    of_gaussian: Scalar
    overlap: Scalar
    worth: Scalar


class _Gaussian(NamedTuple):
    """Mean and covariance `factor` L L^T of some draws; `fine` where there were enough of them."""

    mean: Float[Array, " m"]
    factor: Float[Array, "m m"]
    fine: Bool[Array, ""]

    def draw(self, key: Array, count: int) -> Float[Array, "k m"]:
        white = jax.random.normal(key, (count, self.mean.size), self.mean.dtype)
        return self.mean[None, :] + white @ self.factor.T

    def log_density(self, z: Float[Array, "k m"]) -> Float[Array, " k"]:
        white = solve_lower(self.factor, (z - self.mean[None, :]).T).T
        norm = self.mean.size / 2 * math.log(2 * math.pi) + jnp.sum(jnp.log(jnp.diagonal(self.factor)))
        return -dot(white, white) / 2 - norm


def _fitted(z: Float[Array, "chains half m"]) -> _Gaussian:
    flat = z.reshape(-1, z.shape[-1]).astype(jnp.result_type(float))
    mean = jnp.mean(flat, axis=0)
    apart = flat - mean[None, :]
    factor, fine = cholesky(apart.T @ apart / (flat.shape[0] - 1))
    return _Gaussian(mean, factor, fine)


def _meet(
    gaussian: _Gaussian,
    draws: Float[Array, "k m"],
    of_draws: Float[Array, "chains half"],
    proposed: Float[Array, "k m"],
    of_proposed: Float[Array, " k"],
) -> _Met:
    """Bridge a Gaussian and draws that it was not fitted to, with the log-densities of the posterior at both."""
    ratio = of_draws - gaussian.log_density(draws.astype(proposed.dtype)).reshape(of_draws.shape)
    met = _fixed_point(ratio, of_proposed - gaussian.log_density(proposed))
    return met._replace(worth=jnp.where(gaussian.fine, met.worth, 0))


def _fixed_point(ratio: Float[Array, "chains half"], proposed: Float[Array, " k"]) -> _Met:
    """ln Z of log p / g at draws of the posterior p and at those of the Gaussian g (Meng and Wong, eq. 4.1).

    With l = log p / g, s_1 and s_2 the shares of both in what the draws are worth, the step is
    Z <- mean_g[e^l / (s_1 e^l + s_2 Z)] / mean_p[1 / (s_1 e^l + s_2 Z)], all in logarithms.
    """
    worth = ratio.size / _inefficiency(ratio)
    log_p, log_g = (jnp.log(share / (worth + proposed.size)) for share in (worth, proposed.size))

    def means(log_z: Array) -> tuple[Array, Array]:
        of_p = -jnp.logaddexp(log_p + ratio, log_g + log_z)
        of_g = proposed - jnp.logaddexp(log_p + proposed, log_g + log_z)
        return of_p, of_g

    def step(state: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        log_z, _, count = state
        of_p, of_g = means(log_z)
        new = logsumexp(of_g) - math.log(proposed.size) - logsumexp(of_p) + math.log(ratio.size)
        return new, jnp.abs(new - log_z), count + 1

    def goes_on(state: tuple[Array, Array, Array]) -> Array:
        return (state[1] > _rounding(state[0])) & (state[2] < _STEPS)

    begin = jnp.median(ratio), jnp.full((), jnp.inf, ratio.dtype), jnp.zeros((), int)
    log_z, change, _ = lax.while_loop(goes_on, step, begin)
    of_p, of_g = means(log_z)
    overlap = jnp.exp(logsumexp(of_g) - math.log(proposed.size))
    weight, other = jnp.exp(of_p - jnp.max(of_p)), jnp.exp(of_g - jnp.max(of_g))
    of_draws, of_gaussian = _squared_error(weight) * _inefficiency(weight), _squared_error(other)
    worth = jnp.where(change <= _rounding(log_z), overlap * jnp.minimum(worth, proposed.size), 0)
    return _Met(log_z, of_draws, of_gaussian, overlap, worth)


def _squared_error(x: Array) -> Scalar:
    """The variance of the mean of independent numbers, relative to the square of the mean."""
    return jnp.var(x, ddof=1) / jnp.mean(x) ** 2 / x.size


def _inefficiency(x: Float[Array, "chains half"]) -> Scalar:
    """How many correlated draws are worth an independent one, by the scatter of the means of blocks; at least 1.

    Blocks are long, some 32 of all chains together, so that chains that have not met show in it too.
    """
    chains, draws = x.shape
    count = min(max(_BLOCKS // chains, 1 if chains > 1 else 2), draws)
    size = draws // count
    blocks = jnp.mean(x[:, : size * count].reshape(chains * count, size), axis=1)
    spread, whole = jnp.var(blocks, ddof=1), jnp.var(x, ddof=1)
    some = whole > 0
    return jnp.maximum(jnp.where(some, size * spread / jnp.where(some, whole, 1), 1), 1)
