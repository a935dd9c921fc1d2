"""Models and data that many tests share. Few shapes, so that few programs are compiled."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

import jaxsci as js


class Decay(js.AbstractModel):
    """amp exp(-t / tau) + base."""

    amp: js.Scalar = js.param(unit="mV")
    tau: js.Scalar = js.param(unit="s", doc="life time")
    base: js.Scalar = js.param()

    def __call__(self, t: Float[Array, " n"]) -> Float[Array, " n"]:
        return self.amp * jnp.exp(-t / self.tau) + self.base


class Line(js.AbstractModel):
    """slope x + offset."""

    slope: js.Scalar = js.param()
    offset: js.Scalar = js.param()

    def __call__(self, x: Float[Array, " n"]) -> Float[Array, " n"]:
        return self.slope * x + self.offset


class Gaussian(js.AbstractModel):
    """height exp(-((x - center) / width)^2 / 2)."""

    height: js.Scalar = js.param(bounds=(0, None))
    center: js.Scalar = js.param(unit="nm")
    width: js.Scalar = js.param(unit="nm", bounds=(1e-3, 10.0), default=1.0)

    def __call__(self, x: Float[Array, " n"]) -> Float[Array, " n"]:
        return self.height * jnp.exp(-(((x - self.center) / self.width) ** 2) / 2)


class Polynomial(js.AbstractModel):
    """sum_k c[k] x^k; `grid` is an array that no fit may touch."""

    c: Float[Array, " k"] = js.param(doc="coefficients, lowest power first")
    grid: Float[Array, " m"]

    def __call__(self, x: Float[Array, " n"]) -> Float[Array, " n"]:
        return jnp.polyval(self.c[::-1], x)


N = 30
TIMES = jnp.linspace(0.0, 4.0, N)
TRUTH = Decay(2.0, 1.3, 0.4)
START = Decay(1.0, 1.0, 0.0)
SIGMA = 0.05


def decay_data(seed: int = 0, sigma: float = SIGMA, scatter: float | None = None) -> np.ndarray:
    """Observations of TRUTH at TIMES with Gaussian scatter."""
    rng = np.random.default_rng(seed)
    return np.asarray(TRUTH(TIMES)) + (sigma if scatter is None else scatter) * rng.normal(size=N)


def decay_set(seed: int = 0, **kwargs) -> js.Dataset:
    """The same as a data set with white noise."""
    return js.Dataset(TIMES, decay_data(seed, **kwargs), js.White(SIGMA))


def decay_numpy(y, t=None):
    """Decay in NumPy, for scipy."""
    t = np.asarray(TIMES) if t is None else t
    return y[0] * np.exp(-t / y[1]) + y[2]


def decay_jacobian(y, t=None):
    """Its Jacobian by hand, (n, 3)."""
    t = np.asarray(TIMES) if t is None else t
    e = np.exp(-t / y[1])
    return np.stack([e, y[0] * e * t / y[1] ** 2, np.ones_like(t)], axis=1)
