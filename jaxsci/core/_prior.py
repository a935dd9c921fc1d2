"""Priors on parameters, for fits and samplers.

A fit adds minus the logarithm of their densities to its cost; a sampler asks for the density itself. Priors that are
Gaussian within their support (Normal, HalfNormal, TruncatedNormal, Uniform) are one more row (value - mean) / sigma and
bounds, which costs nothing; any other (LogNormal, Beta, one of your own) enters a fit by its exact gradient and a
positive curvature. They are declared by `param(prior=)` or given to a fit, whose word wins.
"""

import abc
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.scipy.special import betainc, betaln, log_ndtr
from jaxtyping import Array, Bool, Float

from ._module import Module
from ._parameter import numbers
from ._traced import traced


class AbstractPrior(Module):
    """A density of one parameter; of an array's elements, which are independent of each other.

    A prior of your own gives `log_density` and `mode`, and `support` where it is not the whole line. Its density must
    have an upper bound, which it reaches at the mode: a fit seeks the greatest posterior density.
    """

    @abc.abstractmethod
    def log_density(self, value: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        """The logarithm of the normalised density at each element; minus infinity outside the support."""

    @abc.abstractmethod
    def mode(self) -> Float[Array, "..."]:
        """Where the density is greatest; any such place, if there are many."""

    def support(self) -> tuple[Float[Array, "..."], Float[Array, "..."]]:
        """(lower, upper) ends of where the density is positive; they become bounds of a fit."""
        return jnp.asarray(-jnp.inf), jnp.asarray(jnp.inf)

    def gaussian(self) -> "Normal | None":
        """The `Normal` that is proportional to this density within the support; `None` for other shapes."""
        return None

    def log_mass(self, lower: Float[Array, "*shape"], upper: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        """The logarithm of the probability between two limits: what normalises the density within them.

        0 where they hold the whole support. A prior of your own says the rest, or NaN stands for what is not known.
        """
        low, high = self.support()
        return jnp.where((lower <= low) & (upper >= high), 0, jnp.nan).astype(lower.dtype)

    def log_prob(self, value: Float[Array, "..."]) -> Float[Array, ""]:
        """The log-density, summed over elements."""
        return jnp.sum(self.log_density(value))

    def cost(self, value: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        """What a fit adds to its cost: log p(mode) - log p(value), which is half a squared row for a Gaussian."""
        mode = jnp.broadcast_to(self.mode().astype(value.dtype), value.shape)
        return self.log_density(mode) - self.log_density(value)

    def slope(self, value: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        """The derivative of `cost`."""
        return jax.grad(lambda x: jnp.sum(self.cost(x)))(value)

    def curvature(self, value: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        """A positive curvature of `cost` for Gauss-Newton steps and for errors.

        It is the second derivative where that is positive, and else that of a squared row, slope^2 / (2 cost), as a
        log-normal density has it far above its mode.
        """
        slope, second = jax.jvp(self.slope, (value,), (jnp.ones_like(value),))
        cost = self.cost(value)
        row = jnp.where(cost > 0, slope**2 / (2 * jnp.where(cost > 0, cost, 1)), 0)
        return jnp.where(second > 0, second, row)

    def row(self, value: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        """The number whose half square is `cost`, with the sign of value - mode: what rows of residuals end with."""
        cost, off = self.cost(value), value - self.mode().astype(value.dtype)
        near = cost <= 64 * jnp.finfo(value.dtype).eps  # there the root is a straight line, and its derivative 0 / 0
        root = jnp.sign(off) * jnp.sqrt(2 * jnp.where(near, 1, cost))
        return jnp.where(near, jnp.sqrt(self.curvature(value)) * off, root)


class Normal(AbstractPrior):
    """A Gaussian prior: in a fit, one more row (value - mean) / sigma for each element.

    `mean` and `sigma` are scalars or have the parameter's shape; sigma > 0. An infinite sigma is no prior.
    """

    mean: Float[Array, "..."] = numbers()
    sigma: Float[Array, "..."] = numbers()

    def __check_init__(self) -> None:
        _want(self, "mean", "finite", jnp.isfinite)
        _want(self, "sigma", "positive", lambda x: x > 0)

    def log_density(self, value: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        z = (value - self.mean) / self.sigma
        return -z * z / 2 - jnp.log(self.sigma) - jnp.log(2 * jnp.pi) / 2

    def log_mass(self, lower: Float[Array, "*shape"], upper: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        low, high = ((x - self.mean) / self.sigma for x in (lower, upper))
        flip = low > 0  # both limits above the mean: the mass as a difference of the other tails, which keep digits
        low, high = jnp.where(flip, -high, low), jnp.where(flip, -low, high)
        return _log_difference(log_ndtr(high), log_ndtr(low))

    def mode(self) -> Float[Array, "..."]:
        return self.mean

    def gaussian(self) -> "Normal":
        return self


class HalfNormal(AbstractPrior):
    """The positive half of a Gaussian of mean 0: for a contrast, an amplitude or a width.

    `sigma` is a scalar or has the parameter's shape; sigma > 0.
    """

    sigma: Float[Array, "..."] = numbers()

    def __check_init__(self) -> None:
        _want(self, "sigma", "positive", lambda x: x > 0)

    def log_density(self, value: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        whole = Normal(jnp.zeros_like(self.sigma), self.sigma).log_density(value) + jnp.log(2.0).astype(value.dtype)
        return jnp.where(value >= 0, whole, -jnp.inf)

    def log_mass(self, lower: Float[Array, "*shape"], upper: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        return self.gaussian().log_mass(jnp.maximum(lower, 0), upper) + jnp.log(2.0).astype(lower.dtype)

    def mode(self) -> Float[Array, "..."]:
        return jnp.zeros_like(self.sigma)

    def support(self) -> tuple[Float[Array, "..."], Float[Array, "..."]]:
        return jnp.asarray(0.0), jnp.asarray(jnp.inf)

    def gaussian(self) -> Normal:
        return Normal(jnp.zeros_like(self.sigma), self.sigma)


class Uniform(AbstractPrior):
    """Nothing known but two limits: in a fit they are bounds, for a sampler a proper density.

    `lower` and `upper` are scalars or have the parameter's shape, in its unit; lower < upper, both finite.
    """

    lower: Float[Array, "..."] = numbers()
    upper: Float[Array, "..."] = numbers()

    def __check_init__(self) -> None:
        _want(self, "lower", "finite", jnp.isfinite)
        _want(self, "upper", "finite, and above lower", lambda x: jnp.isfinite(x) & (x > self.lower))

    def log_density(self, value: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        inside = (value >= self.lower) & (value <= self.upper)
        return jnp.where(inside, -jnp.log(self.upper - self.lower), -jnp.inf)

    def log_mass(self, lower: Float[Array, "*shape"], upper: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        width = jnp.minimum(upper, self.upper) - jnp.maximum(lower, self.lower)
        return jnp.log(width) - jnp.log(self.upper - self.lower)

    def mode(self) -> Float[Array, "..."]:
        return (self.lower + self.upper) / 2

    def support(self) -> tuple[Float[Array, "..."], Float[Array, "..."]]:
        return self.lower, self.upper

    def gaussian(self) -> Normal:
        return Normal(self.mode(), jnp.full_like(self.mode(), jnp.inf))


class TruncatedNormal(AbstractPrior):
    """A Gaussian cut off at one or two limits, and normalised between them.

    `mean` and `sigma` are those of the Gaussian before it is cut; `lower` and `upper` may be infinite. All are scalars
    or have the parameter's shape; sigma > 0 and lower < upper.
    """

    mean: Float[Array, "..."] = numbers()
    sigma: Float[Array, "..."] = numbers()
    lower: Float[Array, "..."] = numbers(default=-jnp.inf)
    upper: Float[Array, "..."] = numbers(default=jnp.inf)

    def __check_init__(self) -> None:
        _want(self, "mean", "finite", jnp.isfinite)
        _want(self, "sigma", "positive", lambda x: x > 0)
        _want(self, "upper", "above lower", lambda x: x > self.lower)

    def log_density(self, value: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        whole = self.gaussian()
        inside = (value >= self.lower) & (value <= self.upper)
        return jnp.where(inside, whole.log_density(value) - whole.log_mass(self.lower, self.upper), -jnp.inf)

    def log_mass(self, lower: Float[Array, "*shape"], upper: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        whole = self.gaussian()
        inner = whole.log_mass(jnp.maximum(lower, self.lower), jnp.minimum(upper, self.upper))
        return inner - whole.log_mass(self.lower, self.upper)

    def mode(self) -> Float[Array, "..."]:
        return jnp.clip(self.mean, self.lower, self.upper)

    def support(self) -> tuple[Float[Array, "..."], Float[Array, "..."]]:
        return self.lower, self.upper

    def gaussian(self) -> Normal:
        return Normal(self.mean, self.sigma)


class LogNormal(AbstractPrior):
    """A positive value whose logarithm is Gaussian: for a time or a scale known to a factor.

    `median` is the value that lies in the middle, in the parameter's unit, and `sigma` the standard deviation of the
    natural logarithm (0.7 is a factor of two either way). Both are positive scalars or have the parameter's shape. The
    density in the value itself is greatest at median exp(-sigma^2), and that is where a fit without data ends.
    """

    median: Float[Array, "..."] = numbers()
    sigma: Float[Array, "..."] = numbers()

    def __check_init__(self) -> None:
        _want(self, "median", "positive and finite", lambda x: (x > 0) & jnp.isfinite(x))
        _want(self, "sigma", "positive", lambda x: x > 0)

    def log_density(self, value: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        positive = value > 0
        log = jnp.log(jnp.where(positive, value, 1))
        inside = Normal(jnp.log(self.median), self.sigma).log_density(log) - log
        return jnp.where(positive, inside, -jnp.inf)

    def log_mass(self, lower: Float[Array, "*shape"], upper: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        low, high = (jnp.log(jnp.maximum(x, 0)) for x in (lower, upper))
        return Normal(jnp.log(self.median), self.sigma).log_mass(low, high)

    def mode(self) -> Float[Array, "..."]:
        return self.median * jnp.exp(-(self.sigma**2))

    def support(self) -> tuple[Float[Array, "..."], Float[Array, "..."]]:
        return jnp.asarray(0.0), jnp.asarray(jnp.inf)


class Beta(AbstractPrior):
    """A fraction between 0 and 1, with density x^(alpha - 1) (1 - x)^(beta - 1) / B(alpha, beta).

    `alpha` and `beta` are at least 1, scalars or of the parameter's shape: below 1 the density has no upper bound, and
    a fit would end at the edge whatever the data say.
    """

    alpha: Float[Array, "..."] = numbers()
    beta: Float[Array, "..."] = numbers()

    def __check_init__(self) -> None:
        for name in ("alpha", "beta"):
            _want(self, name, "at least 1 (below, the density has no upper bound) and finite", _bounded)

    def log_density(self, value: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        inside = (value >= 0) & (value <= 1)
        powers = _xlogy(self.alpha - 1, jnp.where(inside, value, 0.5)) + _xlogy(
            self.beta - 1, jnp.where(inside, 1 - value, 0.5)
        )
        return jnp.where(inside, powers - betaln(self.alpha, self.beta), -jnp.inf)

    def log_mass(self, lower: Float[Array, "*shape"], upper: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        low, high = (jnp.clip(x, 0, 1) for x in (lower, upper))
        flip = low > self.alpha / (self.alpha + self.beta)  # both above the mean: by the other tail, as for a Normal
        ends = jnp.where(flip, 1 - low, high), jnp.where(flip, 1 - high, low)
        first, second = jnp.where(flip, self.beta, self.alpha), jnp.where(flip, self.alpha, self.beta)
        return _log_difference(*(jnp.log(betainc(first, second, end)) for end in ends))

    def mode(self) -> Float[Array, "..."]:
        flat = (self.alpha == 1) & (self.beta == 1)
        return jnp.where(flat, 0.5, (self.alpha - 1) / jnp.where(flat, 1, self.alpha + self.beta - 2))

    def support(self) -> tuple[Float[Array, "..."], Float[Array, "..."]]:
        return jnp.asarray(0.0), jnp.asarray(1.0)


def _log_difference(a: Array, b: Array) -> Array:
    """log(exp(a) - exp(b)) for a above b, which may be minus infinity."""
    return a + jnp.log(-jnp.expm1(b - a))


def _bounded(value: Array) -> Array:
    return (value >= 1) & jnp.isfinite(value)


def _xlogy(power: Array, value: Array) -> Array:
    """power log(value), which is 0 for power 0, with derivatives that are 0 there too."""
    some = power > 0
    return jnp.where(some, power * jnp.log(jnp.where(some, value, 1)), 0)


def _want(prior: AbstractPrior, name: str, what: str, holds: Callable[[Array], Bool[Array, "..."]]) -> None:
    """Raise `ValueError` where a field that is known is not what the prior needs."""
    value = getattr(prior, name)
    if not isinstance(value, jax.Array) or traced(prior):
        return
    if not bool(jnp.all(holds(value))):
        raise ValueError(f"{type(prior).__name__}: {name} should be {what}, but it is {value}")
