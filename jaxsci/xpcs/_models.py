"""Models of the intensity correlation g2(t) of one q-bin, and of how its relaxation time depends on q.

Two conventions of exponents are in use. A curve of intensities is written here as exp(-2 (t / tau)^c), whose root
exp(-(t / tau)^c) is the field correlation g1, so that both name the same tau; the functions at the end convert other
ways of writing. Each model guesses where a fit should start from its data (`start`), by closed formulae that run under
`jax.vmap` over q-bins. `fit_g2`, the task and users call them.
"""

import abc
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from ..core import AbstractModel, Inputs, Scalar, numbers, param, transparent

SHORTEST = 1e-9
"""Seconds: no relaxation is faster than this, so that t / tau stays a number.

There is no upper bound: one that is orders of magnitude away would set the scale of the solver's steps.
"""

_TIMES = 24  # relaxation times that are tried, from the first delay to the last
_EXPONENTS = (0.4, 0.6, 0.8, 1.0, 1.3, 1.7)  # that each is tried with


class Outline(NamedTuple):
    """What a curve shows at a glance: its two ends, the time at which exp(-2) of the contrast is left, its exponent.

    `q`: the wave vector of the curve, in 1/Å.
    """

    contrast: Scalar
    baseline: Scalar
    tau: Scalar
    exponent: Scalar
    q: Scalar


class AbstractG2(AbstractModel):
    """A model of g2(t) that can look at data for a start.

    Subclass it with parameters by `jaxsci.param`, and `__call__` with delays in seconds, shape (n,), in and g2 out.
    """

    @staticmethod
    @abc.abstractmethod
    def of(seen: "Outline") -> "AbstractG2":
        """The model whose curve looks like this."""


class SingleExponential(AbstractG2):
    """One relaxation: g2(t) = baseline + contrast exp(-2 t / tau).

    **Arguments:** `tau`: relaxation time of the field correlation, in s. `contrast`: coherence factor beta of the
    Siegert relation, 0..1. `baseline`: 1 for an ergodic sample.
    """

    tau: Scalar = param(unit="s", bounds=(SHORTEST, None), doc="relaxation time of g1")
    contrast: Scalar = param(default=0.2, bounds=(0, 1), doc="beta of the Siegert relation")
    baseline: Scalar = param(default=1.0, bounds=(0.8, 1.2), doc="g2 at long times")

    def __call__(self, t: Float[Array, " n"]) -> Float[Array, " n"]:
        return self.baseline + self.contrast * jnp.exp(-2 * t / self.tau)

    @staticmethod
    def of(seen: Outline) -> "SingleExponential":
        """The model whose curve looks like this."""
        return SingleExponential(seen.tau, seen.contrast, seen.baseline)


class StretchedExponential(AbstractG2):
    """A stretched (c < 1) or compressed (c > 1) relaxation: g2(t) = baseline + contrast exp(-2 (t / tau)^c).

    **Arguments:** those of `SingleExponential`, and `exponent`: c, between 0 and 2.
    """

    tau: Scalar = param(unit="s", bounds=(SHORTEST, None), doc="relaxation time of g1")
    exponent: Scalar = param(default=1.0, bounds=(0, 2), doc="below 1 stretched, above 1 compressed")
    contrast: Scalar = param(default=0.2, bounds=(0, 1), doc="beta of the Siegert relation")
    baseline: Scalar = param(default=1.0, bounds=(0.8, 1.2), doc="g2 at long times")

    def __call__(self, t: Float[Array, " n"]) -> Float[Array, " n"]:
        return self.baseline + self.contrast * jnp.exp(-2 * power(t, self.tau, self.exponent))

    @staticmethod
    def of(seen: Outline) -> "StretchedExponential":
        """The model whose curve looks like this."""
        return StretchedExponential(seen.tau, seen.exponent, seen.contrast, seen.baseline)


class DoubleExponential(AbstractG2):
    """Two populations whose intensities add: baseline + contrast [f e^(-2 (t/tau_1)^c_1) + (1-f) e^(-2 (t/tau_2)^c_2)].

    For two relaxations of one field, whose cross term this leaves out, take `DoubleField`.

    **Arguments:** `tau_1`, `tau_2`: in s. `fraction`: f, the share of the first. `exponent_1`, `exponent_2`: c_1, c_2.
    """

    tau_1: Scalar = param(unit="s", bounds=(SHORTEST, None), doc="the first relaxation time")
    tau_2: Scalar = param(unit="s", bounds=(SHORTEST, None), doc="the second relaxation time")
    fraction: Scalar = param(default=0.5, bounds=(0, 1), doc="share of the first")
    exponent_1: Scalar = param(default=1.0, bounds=(0, 2))
    exponent_2: Scalar = param(default=1.0, bounds=(0, 2))
    contrast: Scalar = param(default=0.2, bounds=(0, 1), doc="beta of the Siegert relation")
    baseline: Scalar = param(default=1.0, bounds=(0.8, 1.2), doc="g2 at long times")

    def __call__(self, t: Float[Array, " n"]) -> Float[Array, " n"]:
        first = jnp.exp(-2 * power(t, self.tau_1, self.exponent_1))
        second = jnp.exp(-2 * power(t, self.tau_2, self.exponent_2))
        return self.baseline + self.contrast * (self.fraction * first + (1 - self.fraction) * second)

    @staticmethod
    def of(seen: Outline) -> "DoubleExponential":
        """The model whose curve looks like this: two times, thirty apart, around the one that was seen."""
        early, late = _apart(seen)
        return DoubleExponential(early, late, contrast=seen.contrast, baseline=seen.baseline)


class DoubleField(AbstractG2):
    """Two relaxations of one field: baseline + contrast [f e^(-(t/tau_1)^p_1) + (1-f) e^(-(t/tau_2)^p_2)]^2.

    The bracket is g1; the Siegert relation squares it, so that there is no 2 in the exponents.

    **Arguments:** those of `DoubleExponential`.
    """

    tau_1: Scalar = param(unit="s", bounds=(SHORTEST, None), doc="the first relaxation time")
    tau_2: Scalar = param(unit="s", bounds=(SHORTEST, None), doc="the second relaxation time")
    fraction: Scalar = param(default=0.5, bounds=(0, 1), doc="share of the first")
    exponent_1: Scalar = param(default=1.0, bounds=(0.05, 2))
    exponent_2: Scalar = param(default=1.0, bounds=(0.05, 2))
    contrast: Scalar = param(default=0.2, bounds=(0, 1), doc="beta of the Siegert relation")
    baseline: Scalar = param(default=1.0, bounds=(0.8, 1.2), doc="g2 at long times")

    def __call__(self, t: Float[Array, " n"]) -> Float[Array, " n"]:
        first = jnp.exp(-power(t, self.tau_1, self.exponent_1))
        second = jnp.exp(-power(t, self.tau_2, self.exponent_2))
        field = self.fraction * first + (1 - self.fraction) * second
        return self.baseline + self.contrast * field**2

    @staticmethod
    def of(seen: Outline) -> "DoubleField":
        """The model whose curve looks like this: two times, thirty apart, around the one that was seen."""
        early, late = _apart(seen)
        return DoubleField(early, late, contrast=seen.contrast, baseline=seen.baseline)


class Siegert(AbstractModel):
    """A field correlation g1(t) of one's own as g2(t) = baseline + contrast |g1(t)|^2 (the Siegert relation).

    **Arguments:** `field`: a model of g1, 1 at t = 0; its parameters are called `field.tau` and the like.
    """

    field: AbstractModel
    contrast: Scalar = param(default=0.2, bounds=(0, 1), doc="beta of the Siegert relation")
    baseline: Scalar = param(default=1.0, bounds=(0.8, 1.2), doc="g2 at long times")

    def __call__(self, t: Float[Array, " n"]) -> Float[Array, " n"]:
        return self.baseline + self.contrast * self.field(t) ** 2


class PowerLaw(AbstractModel):
    """A power law of the wave vector: y(q) = value_at (q / q_0)^slope; a slope of -2 for tau is diffusion.

    Written about a pivot inside the data, where the two parameters are nearly uncorrelated. For tau of diffusing
    particles D = 1 / (tau q^2).

    **Arguments:** `value_at`: y at the pivot, in the unit of y. `slope`: the exponent. `pivot`: q_0, in 1/Å; no
    parameter.
    """

    value_at: Scalar = param(bounds=(0, None), doc="the value at the pivot")
    slope: Scalar = param(default=-2.0, doc="-2 for diffusion, -1 for ballistic motion")
    pivot: Scalar = numbers(default=1.0)

    def __call__(self, q: Float[Array, " n"]) -> Float[Array, " n"]:
        return self.value_at * (q / self.pivot) ** self.slope


class Logarithm(AbstractModel):
    """The logarithm of a model, under the names of its parameters: for observations whose errors are relative."""

    model: AbstractModel = transparent()

    def __call__(self, inputs: Inputs) -> Array:
        return jnp.log(self.model(inputs))


class DispersedExponential(AbstractG2):
    """g2 of one q whose relaxation follows a power law: baseline + contrast exp(-2 D q^p t), for fits that share D, p.

    **Arguments:** `D`: in Å^p / s. `p`: the exponent, 2 for diffusion. `contrast`, `baseline`: as in
    `SingleExponential`. `q`: of this bin, in 1/Å; no parameter.
    """

    D: Scalar = param(bounds=(0, None), doc="D q^p is the rate 1 / tau")
    p: Scalar = param(default=2.0, bounds=(0, 4), doc="2 for diffusion, 1 for ballistic motion")
    contrast: Scalar = param(default=0.2, bounds=(0, 1), doc="beta of the Siegert relation")
    baseline: Scalar = param(default=1.0, bounds=(0.8, 1.2), doc="g2 at long times")
    q: Scalar = numbers(default=1.0)

    def __call__(self, t: Float[Array, " n"]) -> Float[Array, " n"]:
        return self.baseline + self.contrast * jnp.exp(-2 * self.D * self.q**self.p * t)

    @staticmethod
    def of(seen: Outline) -> "DispersedExponential":
        """The model whose curve looks like this, were it diffusion."""
        return DispersedExponential(
            1 / (seen.tau * seen.q**2), jnp.asarray(2.0, seen.tau.dtype), seen.contrast, seen.baseline, seen.q
        )


def power(t: Float[Array, " n"], tau: Scalar, exponent: Scalar) -> Float[Array, " n"]:
    """Compute (t / tau)^exponent, with a derivative that is 0, and no NaN, at t = 0.

    **Arguments:** `t`: delays, in s, 0 or more; `tau`: in s, above 0; `exponent`: 0 or more.
    """
    later = t > 0
    # logarithms of each: their ratio may leave the range of single precision, their difference does not
    log = jnp.log(jnp.where(later, t, tau)) - jnp.log(tau)
    return jnp.where(later, jnp.exp(exponent * log), 0)


def outline(
    t: Float[Array, " n"], g2: Float[Array, " n"], weight: Float[Array, " n"], q: Scalar | float = 1.0
) -> Outline:
    """See in a curve where a fit may start: the best of a grid of tau and c, with contrast and baseline solved for.

    **Arguments:** `t`: delays, in s; `g2`; `weight`: 1 / sigma^2 of each point, 0 for one that does not count; all of
    shape (n,), in any order. `q`: of the curve, in 1/Å.

    **Returns:** an `Outline`, of finite numbers also where a curve shows no decay.
    """
    tau, exponent, shapes = _grid(t)
    total = jnp.sum(weight)
    share = weight / jnp.where(total > 0, total, 1)
    level = jnp.sum(share * jnp.where(weight > 0, g2, 0))
    off = share * jnp.where(weight > 0, g2 - level, 0)
    # the shapes depend on the delays alone, so that over many curves these are three products of matrices
    mean, square, both = shapes @ share, shapes**2 @ share, shapes @ off
    spread = square - mean**2
    some = spread > 1e-6
    contrast = jnp.where(some, both / jnp.where(some, spread, 1), 0)
    best = jnp.argmax(jnp.where(contrast > 0, contrast * both, 0))
    height = jnp.clip(contrast[best], 1e-3, 0.99)
    baseline = jnp.clip(level - height * mean[best], 0.85, 1.15)
    return Outline(height, baseline, tau[best], exponent[best], jnp.asarray(q, t.dtype))


def _grid(t: Float[Array, " n"]) -> tuple[Float[Array, " k"], Float[Array, " k"], Float[Array, "k n"]]:
    """(tau, c, exp(-2 (t / tau)^c)) of all shapes that are tried: tau from the first delay to the last."""
    later = t > 0
    log = jnp.log(jnp.where(later, t, 1))
    first, last = (at(jnp.where(later, log, other)) for at, other in ((jnp.min, jnp.inf), (jnp.max, -jnp.inf)))
    first, last = (jnp.where(jnp.isfinite(x), x, 0) for x in (first, last))
    steps, exponents = jnp.linspace(0, 1, _TIMES, dtype=t.dtype), jnp.asarray(_EXPONENTS, t.dtype)
    tau = jnp.exp(first + (last - first) * jnp.repeat(steps, len(_EXPONENTS)))
    exponent = jnp.tile(exponents, _TIMES)
    return tau, exponent, jnp.exp(-2 * jax.vmap(lambda tau, c: power(t, tau, c))(tau, exponent))


def _apart(seen: Outline) -> tuple[Scalar, Scalar]:
    return seen.tau / 30**0.5, seen.tau * 30**0.5


def start(
    model: AbstractG2 | type[AbstractG2],
    t: Float[Array, " n"],
    g2: Float[Array, " n"],
    sigma: Float[Array, " n"],
    mask: Bool[Array, " n"],
    q: Scalar | float = 1.0,
) -> AbstractG2:
    """Guess a model of g2 from one curve; `jax.vmap` guesses for many.

    **Arguments:** `model`: one of the models of g2, a class or an instance, whose values are not used. `t`: delays, in
    s; `g2`, `sigma`: the curve and its errors; `mask`: True for the points that count; `q`: in 1/Å.

    **Returns:** an instance with values near those that fit.
    """
    kind = model if isinstance(model, type) else type(model)
    good = mask & (sigma > 0)
    weight = jnp.where(good, 1 / jnp.where(good, sigma, 1) ** 2, 0)
    return kind.of(outline(t, g2, weight, q))


def tau_without_two(tau: Float[Array, "..."], exponent: Float[Array, "..."]) -> Float[Array, "..."]:
    """Convert tau of exp(-2 (t / tau)^c) to that of exp(-(t / tau')^c): tau' = tau 2^(-1/c)."""
    return tau * 2 ** (-1 / exponent)


def tau_with_two(tau: Float[Array, "..."], exponent: Float[Array, "..."]) -> Float[Array, "..."]:
    """Convert tau' of exp(-(t / tau')^c) to that of exp(-2 (t / tau)^c): tau = tau' 2^(1/c)."""
    return tau * 2 ** (1 / exponent)


def tau_two_inside(tau: Float[Array, "..."], exponent: Float[Array, "..."]) -> Float[Array, "..."]:
    """Convert tau of exp(-2 (t / tau)^c) to that of exp(-(2 t / tau')^c): tau' = tau 2^(1 - 1/c)."""
    return tau * 2 ** (1 - 1 / exponent)


def tau_two_outside(tau: Float[Array, "..."], exponent: Float[Array, "..."]) -> Float[Array, "..."]:
    """Convert tau' of exp(-(2 t / tau')^c) to that of exp(-2 (t / tau)^c): tau = tau' 2^(1/c - 1)."""
    return tau * 2 ** (1 / exponent - 1)
