"""The Faddeeva function w(z) = exp(-z^2) erfc(-i z) in the upper half plane, in real arithmetic.

JAX has no such function of its own, and complex numbers would cost twice the time and have no gradients on some
devices. `Voigt` in `_functions` is its real part.
"""

import math

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

_NODES = 12
_STEP = math.sqrt(math.pi / _NODES)


def faddeeva(x: Float[Array, "..."], y: Float[Array, "..."]) -> tuple[Float[Array, "..."], Float[Array, "..."]]:
    """Real and imaginary part of w(x + i y), y >= 0, to some 14 digits each; differentiable.

    The trapezoidal rule for the integral i/pi int exp(-t^2) / (z - t) dt, which converges exponentially once
    the residue at t = z is added, on nodes k h or (k + 1/2) h, whichever keep away from x. Al Azah and
    Chandler-Wilde 2021, SIAM J. Numer. Anal. 59.
    """
    far = x / _STEP - jnp.floor(x / _STEP)
    whole = (far > 0.25) & (far < 0.75)  # nodes k h; otherwise x is near one of them, and (k + 1/2) h are taken
    real, imag = jnp.zeros_like(x), jnp.zeros_like(x)
    for k in range(_NODES):
        near, half = k * _STEP, (k + 0.5) * _STEP
        node = jnp.where(whole, near, half).astype(x.dtype)
        weight = jnp.where(whole, (0.5 if k == 0 else 1.0) * np.exp(-(near**2)), np.exp(-(half**2))).astype(x.dtype)
        left, right = x - node, x + node
        low, high = left * left + y * y, right * right + y * y
        real = real + weight * (1 / low + 1 / high)
        imag = imag + weight * (left / low + right / high)
    close = y < math.pi / _STEP
    pole_real, pole_imag = _residue(x, jnp.where(close, y, 0), whole)
    share = _STEP / math.pi
    return share * y * real + jnp.where(close, pole_real, 0), share * imag + jnp.where(close, pole_imag, 0)


def _residue(x: Array, y: Array, whole: Array) -> tuple[Array, Array]:
    """2 exp(-z^2) / (1 -+ exp(-2 pi i z / h)), - for nodes k h."""
    size = 2 * jnp.exp(y * y - x * x)
    growth, turn = jnp.exp(2 * math.pi / _STEP * y), 2 * math.pi / _STEP * x
    sign = jnp.where(whole, -1, 1).astype(x.dtype)
    a, b = 1 + sign * growth * jnp.cos(turn), -sign * growth * jnp.sin(turn)
    cos, sin = jnp.cos(2 * x * y), -jnp.sin(2 * x * y)
    square = a * a + b * b
    return size * (cos * a + sin * b) / square, size * (sin * a - cos * b) / square
