"""What the tests of sampling share: models with known posteriors, and how far draws may be from what is known."""

import jax
import jax.numpy as jnp
import numpy as np

import jaxsci as js
from jaxsci.sampling import ess_mean, sample

WARMUP = 200  # the same everywhere: it is part of the compiled program


class Mean(js.AbstractModel):
    """A constant."""

    a: js.Scalar = js.param()

    def __call__(self, x):
        return self.a * jnp.ones_like(x)


class Line(js.AbstractModel):
    """A straight line."""

    slope: js.Scalar = js.param()
    offset: js.Scalar = js.param()

    def __call__(self, x):
        return self.offset + self.slope * x


def line_data(rows=12, seed=0, noise=None, slope=2.0, offset=1.0):
    """Points about a line, of noise .3."""
    rng = np.random.default_rng(seed)
    x = np.linspace(-0.2, 1, rows)
    return js.Dataset(x, offset + slope * x + 0.3 * rng.standard_normal(rows), noise)


def drawn(solution, data, seed=0, num_samples=500, **choices):
    """Chains with the settings of all tests."""
    return sample(solution, data, key=jax.random.key(seed), num_warmup=WARMUP, num_samples=num_samples, **choices)


def off(x, value, of=lambda x: x):
    """How far the mean of a function of draws is from its value, in Monte Carlo standard errors."""
    x = of(np.asarray(x, float))
    return abs(x.mean() - value) / (x.std(ddof=1) / np.sqrt(ess_mean(x)))
