"""Contrast from few photons: the negative-binomial statistics of counts in a speckle pattern, as a likelihood.

With a mean of k photons a pixel and M modes the counts follow P(k) = Gamma(k + M) / (Gamma(M) k!) (1 + M/mean)^-k
(1 + mean/M)^-M (Goodman, Speckle Phenomena in Optics, section 3.6); the contrast is beta = 1/M. All is written in beta,
so that beta = 0, where counts are Poisson, is a point like any other. `PhotonCounts` is a data set for `jaxsci.fit`,
whose model predicts mean and contrast of each row; a histogram is one row for each number of photons, with its weight.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, ArrayLike, Bool, Float

from ..core import AbstractLikelihood, AbstractModel, Flag, Inputs, Model, Scalar, Tree, is_traced, param
from ..datasets import AbstractDataset

_FEW = 0.1  # contrasts below this go by Stirling's series in 1/M, which is exact to double precision there
_SMALL = 0.02  # arguments of log(1 + x) / x below this go by its series
_LEAST = 32  # numbers of photons over which an expectation is summed, at least


class Speckle(AbstractModel):
    """Counts with one mean and one contrast.

    **Arguments:** `mean`: photons a pixel; `contrast`: beta, 0..1.
    """

    mean: Scalar = param(bounds=(0, None), doc="photons a pixel")
    contrast: Scalar = param(default=0.5, bounds=(0, 1), doc="beta, one over the number of modes")

    def __call__(self, inputs: Inputs) -> Float[Array, "n 2"]:
        pair = jnp.stack([self.mean, self.contrast])
        return jnp.broadcast_to(pair, (jnp.shape(inputs)[0], 2))


class PhotonCounts(AbstractDataset):
    """Counts of photons, to which a model says mean and contrast: model(inputs) has shape (n, 2).

    A residual has two entries a row, the predicted mean and the predicted contrast, which the likelihood turns into
    the probability of the row's count.

    **Arguments:**

    - `counts`: photons of each row, shape (n,): pixels, or the numbers 0, 1, 2, ... of a histogram.
    - `weights`: how many pixels have this count, shape (n,); 1 by default.
    - `inputs`: what the model gets, a tree of arrays with leading axis n; by default the counts' places.
    - `mask`: True for the rows that count, shape (n,).
    """

    inputs: Tree
    noise: AbstractLikelihood
    mask: Bool[Array, " m"]

    def __init__(
        self, counts: ArrayLike, weights: ArrayLike | None = None, inputs: Tree = None, mask: ArrayLike | None = None
    ) -> None:
        counts = jnp.asarray(counts, float)
        if counts.ndim != 1:
            raise ValueError(f"counts has shape {counts.shape}, but one count a row is needed, shape (n,): ravel it")
        weights = jnp.ones_like(counts) if weights is None else jnp.asarray(weights, counts.dtype)
        used = jnp.ones(counts.shape, bool) if mask is None else jnp.asarray(mask)
        for name, values in (("weights", weights), ("mask", used)):
            if values.shape != counts.shape:
                raise ValueError(f"{name} has shape {values.shape}, but counts has shape {counts.shape}")
        if not is_traced(counts) and not is_traced(weights) and not is_traced(used):
            _check(np.asarray(counts), np.asarray(weights), np.asarray(used))
        self.inputs = jnp.arange(counts.shape[0]) if inputs is None else inputs
        self.noise = NegativeBinomial.of(jnp.where(used, counts, 0), jnp.where(used, weights, 0))
        # one row of data in two of the residual, of which the first counts it
        self.mask = jnp.stack([used, jnp.zeros_like(used)], 1).ravel()

    @staticmethod
    def histogram(numbers: ArrayLike) -> "PhotonCounts":
        """The data set of a histogram: `numbers[k]` pixels have k photons."""
        numbers = jnp.asarray(numbers, float)
        return PhotonCounts(jnp.arange(numbers.shape[0]), numbers)

    def residual(self, model: Model) -> Float[Array, " m"]:
        """(mean, contrast) of each row, one behind the other."""
        predicted = model(self.inputs)
        if jnp.shape(predicted) != (self.mask.shape[0] // 2, 2):
            raise ValueError(
                f"{type(model).__name__}(inputs) has shape {jnp.shape(predicted)}, but counts need mean and contrast "
                f"of each row, shape {(self.mask.shape[0] // 2, 2)}"
            )
        return jnp.ravel(predicted)

    def finite(self) -> Flag:
        """True; what makes no sense is the likelihood's to find."""
        return jnp.array(True)


def _check(counts: np.ndarray, weights: np.ndarray, used: np.ndarray) -> None:
    """Raise `ValueError` naming the first row that counts and whose count or weight makes no sense."""
    good = (counts >= 0) & (counts == np.round(counts)) & np.isfinite(counts)
    for name, values, fine, should in (
        ("counts", counts, good, "a whole number of photons, 0 or more: mask what is none"),
        ("weights", weights, (weights >= 0) & np.isfinite(weights), "a number of pixels, 0 or more"),
    ):
        bad = np.flatnonzero(used & ~fine)
        if bad.size:
            raise ValueError(f"{name}[{bad[0]}] is {values[bad[0]]}, but it should be {should}")


class NegativeBinomial(AbstractLikelihood):
    """The likelihood of counts whose mean and contrast are both predicted: cost = -sum w log P(k).

    Mean and contrast are orthogonal, so that the curvature of a row is the expected information of each; that of the
    contrast is summed over the numbers of photons up to `most`. Made by `PhotonCounts`.
    """

    photons: Float[Array, " n"]
    weights: Float[Array, " n"]
    most: int = eqx.field(static=True)

    @staticmethod
    def of(counts: Float[Array, " n"], weights: Float[Array, " n"]) -> "NegativeBinomial":
        """The likelihood of these counts, with expectations over twice as many photons as any row has."""
        # counts that are traced are not known: theirs are taken to be few
        largest = 0 if is_traced(counts) else int(np.max(np.asarray(counts), initial=0))
        return NegativeBinomial(counts, weights, max(_LEAST, 1 << (2 * largest).bit_length()))

    @property
    def coupled(self) -> bool:
        """True: two rows of the residual are one of the data."""
        return True

    def valid(self, mask: Bool[Array, " m"]) -> Flag:
        """False for counts that are no whole numbers from 0, or negative weights."""
        used, k, w = mask[::2], self.photons, self.weights
        fine = (k >= 0) & (k == jnp.round(k)) & jnp.isfinite(k) & (w >= 0) & jnp.isfinite(w)
        return jnp.all(jnp.where(used, fine, True))

    def weigh(
        self, jac_t: Float[Array, "p m"], residual: Float[Array, " m"], mask: Bool[Array, " m"]
    ) -> tuple[Scalar, Float[Array, "p m"], Float[Array, " m"]]:
        """(cost, J, r) with the gradient J r and the expected information J J^T."""
        used, pairs = mask[::2], residual.reshape(-1, 2)
        good = used & (pairs[:, 0] > 0) & (pairs[:, 1] >= 0)
        mean, beta = jnp.where(good, pairs[:, 0], 1), jnp.where(good, pairs[:, 1], 0)

        def each(mean: Array, beta: Array) -> Array:
            return -log_probability(self.photons, mean, beta)

        one = jnp.ones_like(mean)
        value, of_mean = jax.jvp(lambda m: each(m, beta), (mean,), (one,))
        of_beta = jax.jvp(lambda b: each(mean, b), (beta,), (one,))[1]
        value = jnp.where(good, self.weights * value, jnp.where(used, jnp.inf, 0))
        weights = jnp.where(good, self.weights, 0)[:, None]
        score = jnp.stack([of_mean, of_beta], 1) * weights
        known = jnp.stack([1 / (mean * (1 + beta * mean)), self._information(mean, beta)], 1)
        root = jnp.sqrt(known * weights)
        some = root > 0
        row = jnp.where(some, score / jnp.where(some, root, 1), 0)
        return jnp.sum(value), jac_t * jnp.ravel(root)[None, :], jnp.ravel(row)

    def standardise(self, residual: Float[Array, " m"], mask: Bool[Array, " m"]) -> Float[Array, " m"]:
        """Counts less their mean in units of their scatter, as if `weights` pixels had been averaged."""
        used, pairs, k = mask[::2], residual.reshape(-1, 2), self.photons
        mean, beta = jnp.maximum(pairs[:, 0], jnp.finfo(residual.dtype).tiny), pairs[:, 1]
        z = (mean - k) * jnp.sqrt(self.weights / (mean * (1 + beta * mean)))
        return jnp.stack([jnp.where(used, z, 0), jnp.zeros_like(z)], 1).ravel()

    def _information(self, mean: Array, beta: Array) -> Array:
        """The expected square of the score of beta: positive as it stands, where a second derivative need not be."""
        shift = _log_ratio_slope(beta * mean) * mean**2
        ratio = mean / (1 + beta * mean)

        def step(carry: tuple[Array, Array, Array], k: Array) -> tuple[tuple[Array, Array, Array], None]:
            probability, steps, total = carry
            total = total + probability * (steps - k * ratio - shift) ** 2
            probability = probability * (1 + beta * k) * ratio / (k + 1)
            return (probability, steps + k / (1 + beta * k), total), None

        zero = jnp.zeros_like(mean)
        first = jnp.exp(-mean * _log_ratio(beta * mean))
        return lax.scan(step, (first, zero, zero), jnp.arange(self.most, dtype=mean.dtype))[0][2]


def log_probability(
    counts: Float[Array, " n"], mean: Float[Array, " n"], beta: Float[Array, " n"]
) -> Float[Array, " n"]:
    """Compute log P(k) of the negative binomial distribution with this mean and contrast; Poisson at beta = 0.

    **Arguments:** `counts`: k, 0 or more; `mean`: above 0; `beta`: the contrast 1/M, 0 or more. All of shape (n,).
    """
    x = beta * mean
    rise = _rising(counts, beta)
    # k log(mean / (1 + x)) - M log(1 + x), with M log(1 + x) = mean log(1 + x) / x
    return rise + counts * (jnp.log(mean) - jnp.log1p(x)) - mean * _log_ratio(x) - lax.lgamma(counts + 1)


def _rising(k: Array, beta: Array) -> Array:
    """log of (1) (1 + beta) ... (1 + (k - 1) beta) = Gamma(k + M) / (Gamma(M) M^k)."""
    few = beta < _FEW
    b = jnp.where(few, beta, 0)
    x = k * b
    by_series = (k - 0.5) * jnp.log1p(x) + k * (_log_ratio(x) - 1) + _stirling(b / (1 + x)) - _stirling(b)
    more = jnp.where(few, 1, beta)
    modes = 1 / more
    by_gamma = lax.lgamma(k + modes) - lax.lgamma(modes) + k * jnp.log(more)
    return jnp.where(few, by_series, by_gamma)


def _stirling(b: Array) -> Array:
    """log Gamma(z) less (z - 1/2) log z - z + log(2 pi) / 2, as a series in b = 1/z (Abramowitz and Stegun 6.1.41)."""
    s = b * b
    return b * (1 / 12 - s * (1 / 360 - s * (1 / 1260 - s * (1 / 1680 - s * (1 / 1188 - s * 691 / 360360)))))


def _log_ratio(x: Array) -> Array:
    """log(1 + x) / x, regular at 0."""
    small = jnp.abs(x) < _SMALL
    safe = jnp.where(small, 1, x)
    near = jnp.where(small, x, 0)
    series = jnp.polyval(jnp.asarray([(-1) ** n / (n + 1) for n in range(9, -1, -1)], x.dtype), near)
    return jnp.where(small, series, jnp.log1p(safe) / safe)


def _log_ratio_slope(x: Array) -> Array:
    """The derivative of log(1 + x) / x."""
    return jax.jvp(_log_ratio, (x,), (jnp.ones_like(x),))[1]
