"""Robust losses of a whitened residual, which let a few outliers count for less.

Each is written with its first two derivatives, because a solver needs the curvature as well as the slope, and with one
scale, in standard deviations, beyond which it departs from least squares. `Robust` in `_likelihood` applies them; their
names are scipy's.
"""

import abc

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ._given import require_positive
from ._module import Module
from ._parameter import numbers
from ._typing import Scalar


class AbstractLoss(Module):
    """rho(z) of a whitened residual z, scaled so that rho(z) = z^2 / 2 for small z."""

    def __check_init__(self) -> None:
        scale = getattr(self, "scale", None)
        if isinstance(scale, jax.Array):
            require_positive(scale, f"{type(self).__name__}.scale")

    @abc.abstractmethod
    def __call__(self, z: Float[Array, " n"]) -> tuple[Array, Array, Array]:
        """rho and its first and second derivative with respect to z."""


class Linear(AbstractLoss):
    """rho = z^2 / 2: least squares."""

    def __call__(self, z: Float[Array, " n"]) -> tuple[Array, Array, Array]:
        return z * z / 2, z, jnp.ones_like(z)


class SoftL1(AbstractLoss):
    """rho = s^2 (sqrt(1 + (z/s)^2) - 1): a smooth absolute value beyond `scale` sigma."""

    scale: Scalar = numbers(default=1.0)

    def __call__(self, z: Float[Array, " n"]) -> tuple[Array, Array, Array]:
        scale = self.scale.astype(z.dtype)
        x = z / scale
        root = jnp.sqrt(1 + x * x)
        return scale**2 * (x * x / (1 + root)), z / root, 1 / root**3


class Huber(AbstractLoss):
    """rho = z^2 / 2 for |z| <= s, else s |z| - s^2 / 2 (Huber 1964)."""

    scale: Scalar = numbers(default=1.0)

    def __call__(self, z: Float[Array, " n"]) -> tuple[Array, Array, Array]:
        scale = self.scale.astype(z.dtype)
        inside = jnp.abs(z) <= scale
        rho = jnp.where(inside, z * z / 2, scale * jnp.abs(z) - scale**2 / 2)
        return rho, jnp.clip(z, -scale, scale), jnp.where(inside, 1, 0).astype(z.dtype)


class Cauchy(AbstractLoss):
    """rho = s^2 / 2 log(1 + (z/s)^2): far outliers lose all influence."""

    scale: Scalar = numbers(default=1.0)

    def __call__(self, z: Float[Array, " n"]) -> tuple[Array, Array, Array]:
        scale = self.scale.astype(z.dtype)
        square = (z / scale) ** 2
        return scale**2 / 2 * jnp.log1p(square), z / (1 + square), (1 - square) / (1 + square) ** 2


class Arctan(AbstractLoss):
    """rho = s^2 / 2 arctan((z/s)^2): each row's cost is bounded."""

    scale: Scalar = numbers(default=1.0)

    def __call__(self, z: Float[Array, " n"]) -> tuple[Array, Array, Array]:
        scale = self.scale.astype(z.dtype)
        square = (z / scale) ** 2
        inverse = 1 / (1 + square**2)
        return scale**2 / 2 * jnp.arctan(square), z * inverse, (1 - 3 * square**2) * inverse**2
