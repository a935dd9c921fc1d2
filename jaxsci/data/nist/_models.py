"""The models of the NIST StRD problems of nonlinear regression, one class for each formula.

They lie with the bundled data files because nothing else needs them: a config that says `type = "nist.Hahn1"` loads
them, and so do the tests against the certified values. Parameters are called `b1`, `b2`, ... as NIST does.
"""

import math

import jax.numpy as jnp
from jaxtyping import Array, Float

from ...core import AbstractModel, Scalar, param


class Misra1a(AbstractModel):
    """b1 (1 - exp(-b2 x)), of the problems Misra1a and BoxBOD."""

    b1: Scalar = param()
    b2: Scalar = param()

    def __call__(self, x: Float[Array, " n"]) -> Float[Array, " n"]:
        return self.b1 * (1 - jnp.exp(-self.b2 * x))


class Misra1b(AbstractModel):
    """b1 (1 - (1 + b2 x / 2)^-2)."""

    b1: Scalar = param()
    b2: Scalar = param()

    def __call__(self, x: Float[Array, " n"]) -> Float[Array, " n"]:
        return self.b1 * (1 - (1 + self.b2 * x / 2) ** -2)


class Misra1d(AbstractModel):
    """b1 b2 x / (1 + b2 x)."""

    b1: Scalar = param()
    b2: Scalar = param()

    def __call__(self, x: Float[Array, " n"]) -> Float[Array, " n"]:
        return self.b1 * self.b2 * x / (1 + self.b2 * x)


class Chwirut(AbstractModel):
    """exp(-b1 x) / (b2 + b3 x)."""

    b1: Scalar = param()
    b2: Scalar = param()
    b3: Scalar = param()

    def __call__(self, x: Float[Array, " n"]) -> Float[Array, " n"]:
        return jnp.exp(-self.b1 * x) / (self.b2 + self.b3 * x)


class DanWood(AbstractModel):
    """b1 x^b2."""

    b1: Scalar = param()
    b2: Scalar = param()

    def __call__(self, x: Float[Array, " n"]) -> Float[Array, " n"]:
        return self.b1 * x**self.b2


class Enso(AbstractModel):
    """A constant, the annual cycle of 12 months, and two cycles of periods b4 and b7."""

    b1: Scalar = param()
    b2: Scalar = param()
    b3: Scalar = param()
    b4: Scalar = param()
    b5: Scalar = param()
    b6: Scalar = param()
    b7: Scalar = param()
    b8: Scalar = param()
    b9: Scalar = param()

    def __call__(self, x: Float[Array, " n"]) -> Float[Array, " n"]:
        turns = 2 * math.pi * x
        annual = self.b2 * jnp.cos(turns / 12) + self.b3 * jnp.sin(turns / 12)
        first = self.b5 * jnp.cos(turns / self.b4) + self.b6 * jnp.sin(turns / self.b4)
        second = self.b8 * jnp.cos(turns / self.b7) + self.b9 * jnp.sin(turns / self.b7)
        return self.b1 + annual + first + second


class Eckerle(AbstractModel):
    """b1 / b2 exp(-((x - b3) / b2)^2 / 2)."""

    b1: Scalar = param()
    b2: Scalar = param()
    b3: Scalar = param()

    def __call__(self, x: Float[Array, " n"]) -> Float[Array, " n"]:
        return self.b1 / self.b2 * jnp.exp(-(((x - self.b3) / self.b2) ** 2) / 2)


class TwoGaussians(AbstractModel):
    """b1 exp(-b2 x) + b3 exp(-((x - b4) / b5)^2) + b6 exp(-((x - b7) / b8)^2), of Gauss1 and Gauss2."""

    b1: Scalar = param()
    b2: Scalar = param()
    b3: Scalar = param()
    b4: Scalar = param()
    b5: Scalar = param()
    b6: Scalar = param()
    b7: Scalar = param()
    b8: Scalar = param()

    def __call__(self, x: Float[Array, " n"]) -> Float[Array, " n"]:
        first = self.b3 * jnp.exp(-(((x - self.b4) / self.b5) ** 2))
        second = self.b6 * jnp.exp(-(((x - self.b7) / self.b8) ** 2))
        return self.b1 * jnp.exp(-self.b2 * x) + first + second


class Hahn(AbstractModel):
    """(b1 + b2 x + b3 x^2 + b4 x^3) / (1 + b5 x + b6 x^2 + b7 x^3)."""

    b1: Scalar = param()
    b2: Scalar = param()
    b3: Scalar = param()
    b4: Scalar = param()
    b5: Scalar = param()
    b6: Scalar = param()
    b7: Scalar = param()

    def __call__(self, x: Float[Array, " n"]) -> Float[Array, " n"]:
        above = self.b1 + x * (self.b2 + x * (self.b3 + x * self.b4))
        return above / (1 + x * (self.b5 + x * (self.b6 + x * self.b7)))


class Lanczos(AbstractModel):
    """b1 exp(-b2 x) + b3 exp(-b4 x) + b5 exp(-b6 x), of Lanczos1 and Lanczos3."""

    b1: Scalar = param()
    b2: Scalar = param()
    b3: Scalar = param()
    b4: Scalar = param()
    b5: Scalar = param()
    b6: Scalar = param()

    def __call__(self, x: Float[Array, " n"]) -> Float[Array, " n"]:
        first, second, third = (jnp.exp(-rate * x) for rate in (self.b2, self.b4, self.b6))
        return self.b1 * first + self.b3 * second + self.b5 * third


class Meyer(AbstractModel):
    """b1 exp(b2 / (x + b3)), of the problem MGH10."""

    b1: Scalar = param()
    b2: Scalar = param()
    b3: Scalar = param()

    def __call__(self, x: Float[Array, " n"]) -> Float[Array, " n"]:
        return self.b1 * jnp.exp(self.b2 / (x + self.b3))


class Osborne(AbstractModel):
    """b1 + b2 exp(-b4 x) + b3 exp(-b5 x), of the problem MGH17."""

    b1: Scalar = param()
    b2: Scalar = param()
    b3: Scalar = param()
    b4: Scalar = param()
    b5: Scalar = param()

    def __call__(self, x: Float[Array, " n"]) -> Float[Array, " n"]:
        return self.b1 + self.b2 * jnp.exp(-self.b4 * x) + self.b3 * jnp.exp(-self.b5 * x)


class Rat42(AbstractModel):
    """b1 / (1 + exp(b2 - b3 x))."""

    b1: Scalar = param()
    b2: Scalar = param()
    b3: Scalar = param()

    def __call__(self, x: Float[Array, " n"]) -> Float[Array, " n"]:
        return self.b1 / (1 + jnp.exp(self.b2 - self.b3 * x))


class Rat43(AbstractModel):
    """b1 / (1 + exp(b2 - b3 x))^(1 / b4)."""

    b1: Scalar = param()
    b2: Scalar = param()
    b3: Scalar = param()
    b4: Scalar = param()

    def __call__(self, x: Float[Array, " n"]) -> Float[Array, " n"]:
        return self.b1 / (1 + jnp.exp(self.b2 - self.b3 * x)) ** (1 / self.b4)


class Roszman(AbstractModel):
    """b1 - b2 x - arctan(b3 / (x - b4)) / pi."""

    b1: Scalar = param()
    b2: Scalar = param()
    b3: Scalar = param()
    b4: Scalar = param()

    def __call__(self, x: Float[Array, " n"]) -> Float[Array, " n"]:
        return self.b1 - self.b2 * x - jnp.arctan(self.b3 / (x - self.b4)) / math.pi


MODELS: dict[str, type[AbstractModel]] = {
    "BoxBOD": Misra1a,
    "Chwirut2": Chwirut,
    "DanWood": DanWood,
    "ENSO": Enso,
    "Eckerle4": Eckerle,
    "Gauss1": TwoGaussians,
    "Gauss2": TwoGaussians,
    "Hahn1": Hahn,
    "Lanczos1": Lanczos,
    "Lanczos3": Lanczos,
    "MGH10": Meyer,
    "MGH17": Osborne,
    "Misra1a": Misra1a,
    "Misra1b": Misra1b,
    "Misra1d": Misra1d,
    "Rat42": Rat42,
    "Rat43": Rat43,
    "Roszman1": Roszman,
}
"""The model of each problem, by the problem's name."""
