"""Functions that measurements follow, as models with named parameters.

`amplitude` is the height of a peak or the value at the start of a decay, `area` an integral. Add and
multiply them: `Gaussian(...) + Line(...)`. `estimate` guesses their parameters from data.
"""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ..core import AbstractModel, Scalar, param
from ._faddeeva import faddeeva

_POSITIVE = (0, None)


class Constant(AbstractModel):
    """The same everywhere: y = level."""

    level: Scalar = param(doc="the value everywhere")

    def __call__(self, x: Float[Array, "n *d"]) -> Float[Array, " n"]:
        return jnp.broadcast_to(self.level, x.shape[:1])


class Line(AbstractModel):
    """slope x + intercept."""

    slope: Scalar = param(doc="rise per unit of x")
    intercept: Scalar = param(doc="value at x = 0")

    def __call__(self, x: Float[Array, " n"]) -> Float[Array, " n"]:
        return self.slope * x + self.intercept


class Polynomial(AbstractModel):
    """c[0] + c[1] x + c[2] x^2 + ...; as many powers as there are coefficients."""

    c: Float[Array, " k"] = param(doc="coefficients, lowest power first")

    def __call__(self, x: Float[Array, " n"]) -> Float[Array, " n"]:
        return jnp.polyval(self.c[::-1], x)


class Gaussian(AbstractModel):
    """amplitude exp(-(x - center)^2 / (2 sigma^2))."""

    amplitude: Scalar = param(doc="height of the peak")
    center: Scalar = param(doc="position of the peak")
    sigma: Scalar = param(bounds=_POSITIVE, doc="standard deviation; the full width at half maximum is 2.3548 sigma")

    def __call__(self, x: Float[Array, " n"]) -> Float[Array, " n"]:
        return self.amplitude * jnp.exp(-(((x - self.center) / self.sigma) ** 2) / 2)


class Gaussian2D(AbstractModel):
    """amplitude exp(-(u / sigma_u)^2 / 2 - (v / sigma_v)^2 / 2), on inputs of shape (n, 2).

    (u, v) = (x - center_x, y - center_y) turned by -angle: the u axis lies `angle` radians
    counter-clockwise of the x axis.
    """

    amplitude: Scalar = param(doc="height of the peak")
    center_x: Scalar = param(doc="position of the peak along x")
    center_y: Scalar = param(doc="position of the peak along y")
    sigma_u: Scalar = param(bounds=_POSITIVE, doc="standard deviation along u")
    sigma_v: Scalar = param(bounds=_POSITIVE, doc="standard deviation along v")
    angle: Scalar = param(doc="from x to u, radians, counter-clockwise")

    def __call__(self, points: Float[Array, "n 2"]) -> Float[Array, " n"]:
        x, y = points[:, 0] - self.center_x, points[:, 1] - self.center_y
        cos, sin = jnp.cos(self.angle), jnp.sin(self.angle)
        u, v = (cos * x + sin * y) / self.sigma_u, (cos * y - sin * x) / self.sigma_v
        return self.amplitude * jnp.exp(-(u * u + v * v) / 2)


class Lorentzian(AbstractModel):
    """amplitude / (1 + ((x - center) / gamma)^2)."""

    amplitude: Scalar = param(doc="height of the peak")
    center: Scalar = param(doc="position of the peak")
    gamma: Scalar = param(bounds=_POSITIVE, doc="half width at half maximum")

    def __call__(self, x: Float[Array, " n"]) -> Float[Array, " n"]:
        return self.amplitude / (1 + ((x - self.center) / self.gamma) ** 2)


class Voigt(AbstractModel):
    """area Re w(z) / (sigma sqrt(2 pi)), z = (x - center + i gamma) / (sigma sqrt(2)).

    A Gaussian of standard deviation sigma convolved with a Lorentzian of half width gamma;
    w is the Faddeeva function.
    """

    area: Scalar = param(doc="integral over x")
    center: Scalar = param(doc="position of the peak")
    sigma: Scalar = param(bounds=_POSITIVE, doc="standard deviation of the Gaussian")
    gamma: Scalar = param(bounds=_POSITIVE, doc="half width at half maximum of the Lorentzian")

    def __call__(self, x: Float[Array, " n"]) -> Float[Array, " n"]:
        scale = math.sqrt(2) * self.sigma
        real, _ = faddeeva((x - self.center) / scale, jnp.broadcast_to(self.gamma / scale, x.shape))
        return self.area * real / (math.sqrt(math.pi) * scale)


class Moffat(AbstractModel):
    """amplitude (1 + ((x - center) / width)^2)^-power: the profile of a star's image (Moffat 1969)."""

    amplitude: Scalar = param(doc="height of the peak")
    center: Scalar = param(doc="position of the peak")
    width: Scalar = param(bounds=_POSITIVE, doc="half maximum at width sqrt(2^(1/power) - 1)")
    power: Scalar = param(bounds=_POSITIVE, doc="how steeply the wings fall")

    def __call__(self, x: Float[Array, " n"]) -> Float[Array, " n"]:
        return self.amplitude * jnp.exp(-self.power * jnp.log1p(((x - self.center) / self.width) ** 2))


class Lognormal(AbstractModel):
    """amplitude exp(-ln(x / center)^2 / (2 sigma^2)) for x > 0, else 0."""

    amplitude: Scalar = param(doc="height of the peak")
    center: Scalar = param(bounds=_POSITIVE, doc="position of the peak")
    sigma: Scalar = param(bounds=_POSITIVE, doc="standard deviation of ln x")

    def __call__(self, x: Float[Array, " n"]) -> Float[Array, " n"]:
        positive, log = _log(x)
        shape = jnp.exp(-(((log - jnp.log(self.center)) / self.sigma) ** 2) / 2)
        return self.amplitude * jnp.where(positive, shape, 0)


class Exponential(AbstractModel):
    """amplitude exp(-x / tau)."""

    amplitude: Scalar = param(doc="value at x = 0")
    tau: Scalar = param(bounds=_POSITIVE, doc="decay length or life time")

    def __call__(self, x: Float[Array, " n"]) -> Float[Array, " n"]:
        return self.amplitude * jnp.exp(-x / self.tau)


class BiExponential(AbstractModel):
    """amplitude_1 exp(-x / tau_1) + amplitude_2 exp(-x / tau_2)."""

    amplitude_1: Scalar = param(doc="value of the first decay at x = 0")
    tau_1: Scalar = param(bounds=_POSITIVE, doc="life time of the first decay")
    amplitude_2: Scalar = param(doc="value of the second decay at x = 0")
    tau_2: Scalar = param(bounds=_POSITIVE, doc="life time of the second decay")

    def __call__(self, x: Float[Array, " n"]) -> Float[Array, " n"]:
        return self.amplitude_1 * jnp.exp(-x / self.tau_1) + self.amplitude_2 * jnp.exp(-x / self.tau_2)


class StretchedExponential(AbstractModel):
    """amplitude exp(-(x / tau)^beta) for x > 0, amplitude at x <= 0 (Kohlrausch 1854)."""

    amplitude: Scalar = param(doc="value at x = 0")
    tau: Scalar = param(bounds=_POSITIVE, doc="where the decay has reached 1/e")
    beta: Scalar = param(bounds=_POSITIVE, doc="stretched below 1, compressed above")

    def __call__(self, x: Float[Array, " n"]) -> Float[Array, " n"]:
        positive, log = _log(x)
        power = jnp.exp(self.beta * (log - jnp.log(self.tau)))
        return self.amplitude * jnp.exp(-jnp.where(positive, power, 0))


class PowerLaw(AbstractModel):
    """amplitude x^exponent, for x > 0."""

    amplitude: Scalar = param(doc="value at x = 1")
    exponent: Scalar = param(doc="slope in a log-log plot")

    def __call__(self, x: Float[Array, " n"]) -> Float[Array, " n"]:
        return self.amplitude * x**self.exponent


class Logistic(AbstractModel):
    """amplitude / (1 + exp(-(x - center) / width)): a sigmoid."""

    amplitude: Scalar = param(doc="value far to the right")
    center: Scalar = param(doc="where half of it is reached")
    width: Scalar = param(doc="distance over which it rises; negative for a fall")

    def __call__(self, x: Float[Array, " n"]) -> Float[Array, " n"]:
        return self.amplitude * jax.nn.sigmoid((x - self.center) / self.width)


class Gompertz(AbstractModel):
    """amplitude exp(-displacement exp(-rate x)): growth that starts faster than it ends (Gompertz 1825)."""

    amplitude: Scalar = param(doc="value far to the right")
    displacement: Scalar = param(bounds=_POSITIVE, doc="ln(amplitude / value at x = 0)")
    rate: Scalar = param(bounds=_POSITIVE, doc="growth rate")

    def __call__(self, x: Float[Array, " n"]) -> Float[Array, " n"]:
        return self.amplitude * jnp.exp(-self.displacement * jnp.exp(-self.rate * x))


class MichaelisMenten(AbstractModel):
    """rate_max x / (half + x), for x >= 0."""

    rate_max: Scalar = param(doc="value at large x")
    half: Scalar = param(bounds=_POSITIVE, doc="where half of it is reached")

    def __call__(self, x: Float[Array, " n"]) -> Float[Array, " n"]:
        return self.rate_max * x / (self.half + x)


class Hill(AbstractModel):
    """amplitude x^exponent / (half^exponent + x^exponent) for x > 0, else 0 (Hill 1910)."""

    amplitude: Scalar = param(doc="value at large x")
    half: Scalar = param(bounds=_POSITIVE, doc="where half of it is reached")
    exponent: Scalar = param(bounds=_POSITIVE, doc="cooperativity")

    def __call__(self, x: Float[Array, " n"]) -> Float[Array, " n"]:
        positive, log = _log(x)
        share = jax.nn.sigmoid(self.exponent * (log - jnp.log(self.half)))
        return self.amplitude * jnp.where(positive, share, 0)


class Sinusoid(AbstractModel):
    """amplitude sin(2 pi frequency x + phase)."""

    amplitude: Scalar = param(doc="half of the peak-to-peak range")
    frequency: Scalar = param(doc="cycles per unit of x")
    phase: Scalar = param(doc="at x = 0, radians")

    def __call__(self, x: Float[Array, " n"]) -> Float[Array, " n"]:
        return self.amplitude * jnp.sin(2 * math.pi * self.frequency * x + self.phase)


def _log(x: Float[Array, " n"]) -> tuple[Array, Array]:
    """(x > 0, its logarithm, with finite derivatives where x <= 0)."""
    positive = x > 0
    return positive, jnp.log(jnp.where(positive, x, 1))
