"""Bandwidths: how wide the kernel of a density is, as a function of sums over the ensemble.

A bandwidth that is too wide hides what is there, one that is too narrow shows single particles. Rules see no particles
but a `Spread`, which follows from sums that are added over chunks and devices, so that the bandwidth of each time is
that of its whole ensemble. The densities of `_density` call a rule when they are evaluated. All rules can be mapped,
differentiated and compiled.
"""

import abc
import math
from functools import lru_cache
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.scipy.special import logsumexp
from jaxtyping import Array, ArrayLike, Float

from ..core import Module, Scalar, describe, is_traced

_COSINES = 511  # of which the improved rule of Sheather and Jones sees at most so many
_STAGES = 7  # of the plug-in rule, as published
_HALVINGS = 40  # of an interval of logarithms about 15 wide: 1e-11 of the squared bandwidth


class Spread(Module):
    """What a rule sees of an ensemble at one time.

    - `n_eff`: (sum w)^2 / sum w^2. `deviation`: the standard deviation along each axis. `width`: that of the box.
    - `cosines`: the means of cos(pi k (x - lower) / width) for k = 1, 2, ..., for each axis; `None` where the rule does
      not ask for them.
    """

    n_eff: Scalar
    deviation: Float[Array, " d"]
    width: Float[Array, " d"]
    cosines: tuple[Float[Array, " _"], ...] | None


class AbstractBandwidth(Module):
    """A rule for the standard deviation of a Gaussian kernel along each axis.

    - `given`: True where it does not depend on the ensemble. `reads_cosines`: True where it needs `Spread.cosines`.
    """

    given: ClassVar[bool] = False
    reads_cosines: ClassVar[bool] = False

    @abc.abstractmethod
    def __call__(self, spread: Spread) -> Float[Array, " d"]:
        """The bandwidth along each axis, in the units of x."""


class Fixed(AbstractBandwidth):
    """A bandwidth that is given.

    **Arguments:** `h`: the standard deviation of the kernel, in the units of x; a number, or shape (d,).

    **Raises:** `ValueError` for one that is not a positive number.
    """

    h: Float[Array, "..."]
    given: ClassVar[bool] = True

    def __init__(self, h: ArrayLike) -> None:
        if isinstance(h, str):
            raise ValueError(f"a bandwidth is a number or a rule such as Scott() or Silverman(), but it is {h!r}")
        self.h = h if isinstance(h, jax.Array) and jnp.issubdtype(h.dtype, jnp.floating) else jnp.asarray(h, float)
        if self.h.ndim > 1:
            raise ValueError(f"a bandwidth is a number or one for each axis, but it is {describe(h)}")
        if not is_traced(self.h) and not bool(np.all(np.asarray(self.h) > 0) and np.all(np.isfinite(self.h))):
            raise ValueError(f"a bandwidth should be positive and finite, but it is {np.asarray(self.h)}")

    def __call__(self, spread: Spread) -> Float[Array, " d"]:
        """The bandwidth as it was given."""
        d = spread.deviation.shape
        if self.h.shape not in ((), d):
            raise ValueError(f"the bandwidth has shape {self.h.shape}, but there are {d[0]} axes")
        return jnp.broadcast_to(self.h.astype(spread.deviation.dtype), d)


class Scott(AbstractBandwidth):
    """deviation * n_eff^(-1 / (d + 4)) along each axis (Scott 1992, "Multivariate Density Estimation", eq. 6.42)."""

    def __call__(self, spread: Spread) -> Float[Array, " d"]:
        """The bandwidth of this ensemble."""
        return spread.deviation * _power(spread, 1.0)


class Silverman(AbstractBandwidth):
    """deviation * (4 / ((d + 2) n_eff))^(1 / (d + 4)) along each axis: best for a Gaussian density.

    Silverman 1986, "Density Estimation for Statistics and Data Analysis", section 4.3.2.
    """

    def __call__(self, spread: Spread) -> Float[Array, " d"]:
        """The bandwidth of this ensemble."""
        return spread.deviation * _power(spread, 4 / (spread.deviation.shape[0] + 2))


class ISJ(AbstractBandwidth):
    """The improved rule of Sheather and Jones, which assumes no shape: several modes do not make it wide.

    The squared bandwidth is the fixed point of a plug-in estimate of the best one, of seven stages, each from the
    cosines of the ensemble on its box (Botev, Grotowski and Kroese 2010, Ann. Stat. 38, 2916, algorithm 1, with n_eff
    for their N). Along each of several axes it is that of the marginal density, times n_eff^(1/5 - 1/(d+4)).
    """

    reads_cosines: ClassVar[bool] = True

    def __call__(self, spread: Spread) -> Float[Array, " d"]:
        """The bandwidth of this ensemble."""
        if spread.cosines is None:
            raise ValueError("ISJ() reads Spread.cosines, but there are none: ask the rule by `reads_cosines`")
        n = jnp.maximum(spread.n_eff, 1)
        of_each = jnp.stack([_improved(cosines, n) for cosines in spread.cosines])
        return spread.width * of_each * n ** (1 / 5 - 1 / (len(spread.cosines) + 4))


def as_bandwidth(given: AbstractBandwidth | ArrayLike) -> AbstractBandwidth:
    """A rule, or a number as one."""
    return given if isinstance(given, AbstractBandwidth) else Fixed(given)


def root_of(square: Float[Array, "..."]) -> Float[Array, "..."]:
    """The square root where there is one, and 0 elsewhere, with a derivative of 0 there."""
    some = square > 0
    return jnp.where(some, jnp.sqrt(jnp.where(some, square, 1)), 0)


def _power(spread: Spread, factor: float) -> Scalar:
    n = jnp.where(spread.n_eff > 0, spread.n_eff, 1)
    return (factor / n) ** (1 / (spread.deviation.shape[0] + 4))


# --- cosines of sums on a line of nodes ----------------------------------------------------------------------------


def cosine_means(sums: Float[Array, " m"], intervals: int, start: float, degree: int) -> Float[Array, " k"]:
    """The means of cos(pi k u) over particles on [0, 1] whose weights were deposited.

    **Arguments:** `sums`: the weights deposited at (j + start) / intervals. `degree`: of the B-spline by which they
    were, 0 for a histogram: its attenuation is taken out.
    """
    found = jnp.dot(
        jnp.asarray(_cosine_matrix(sums.shape[0], intervals, start, degree), sums.dtype),
        sums,
        precision=lax.Precision.HIGHEST,
    )
    weight = jnp.sum(sums)
    return found / jnp.where(weight > 0, weight, 1)


@lru_cache(maxsize=32)
def _cosine_matrix(m: int, intervals: int, start: float, degree: int) -> np.ndarray:
    k = np.arange(1, min(intervals - 1, _COSINES) + 1)
    angles = np.mod(k[:, None] * (np.arange(m) + start), 2 * intervals) * (np.pi / intervals)
    return np.cos(angles) / np.sinc(k[:, None] / (2 * intervals)) ** (degree + 1)


# --- the improved rule of Sheather and Jones -----------------------------------------------------------------------


def _improved(cosines: Float[Array, " k"], n: Scalar) -> Scalar:
    """The bandwidth of particles on [0, 1]."""
    # logarithms, because the seventh stage has powers such as (pi k)^14, beyond single precision
    square = jnp.log(jnp.maximum(cosines * cosines, jnp.finfo(cosines.dtype).tiny))
    log_n = jnp.log(n)
    still, still_n = lax.stop_gradient((square, log_n))
    low, high = -2 * math.log(4 * cosines.shape[0]), math.log(0.1)

    def halve(ends: tuple[Scalar, Scalar], _: None) -> tuple[tuple[Scalar, Scalar], None]:
        middle = (ends[0] + ends[1]) / 2
        above = _excess(middle, still, still_n) > 0
        return (jnp.where(above, ends[0], middle), jnp.where(above, middle, ends[1])), None

    ends = (jnp.asarray(low, cosines.dtype), jnp.asarray(high, cosines.dtype))
    (below, above), _ = lax.scan(halve, ends, None, length=_HALVINGS)
    log_t = lax.stop_gradient((below + above) / 2)
    # the derivative of a root follows from that of the function, without a way through the search
    change, slope = jax.jvp(lambda log_t: _excess(log_t, square, log_n), (log_t,), (jnp.ones_like(log_t),))
    inside = (log_t > low + 1e-3) & (log_t < high - 1e-3) & (slope != 0)
    change = (change - lax.stop_gradient(change)) / lax.stop_gradient(jnp.where(inside, slope, 1))
    return jnp.exp((log_t - jnp.where(inside, change, 0)) / 2)


def _excess(log_t: Scalar, log_square: Float[Array, " k"], log_n: Scalar) -> Scalar:
    """The logarithm of t, less that of what the plug-in rule makes of it: 0 where t is the squared bandwidth."""

    def stage(log_f: Scalar, given: tuple[Scalar, Scalar]) -> tuple[Scalar, None]:
        s, factor = given
        return _roughness(s, (factor - log_n - log_f) * (2 / (3 + 2 * s)), log_square), None

    s = np.arange(_STAGES - 1, 1, -1)
    odd = np.array([math.prod(range(1, 2 * k, 2)) for k in s.tolist()]) / math.sqrt(2 * math.pi)
    factors = np.log(2 * odd * (1 + 0.5 ** (s + 0.5)) / 3)
    first = _roughness(jnp.asarray(_STAGES, log_t.dtype), log_t, log_square)
    log_f, _ = lax.scan(stage, first, (jnp.asarray(s, log_t.dtype), jnp.asarray(factors, log_t.dtype)))
    return log_t + (math.log(2 * math.sqrt(math.pi)) + log_n + log_f) * 0.4


def _roughness(s: Scalar, log_t: Scalar, log_square: Float[Array, " k"]) -> Scalar:
    """The logarithm of the integral of the squared s-th derivative of the density, smoothed to t."""
    k2 = (math.pi * jnp.arange(1, log_square.shape[0] + 1, dtype=log_square.dtype)) ** 2
    return math.log(2) + logsumexp(s * jnp.log(k2) + log_square - k2 * jnp.exp(log_t))
