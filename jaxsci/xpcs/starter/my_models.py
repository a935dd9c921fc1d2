"""Your own models of g2. `jaxsci run ... --import my_models.py` gives each class its name in the config."""

import jax.numpy as jnp

import jaxsci as js
from jaxsci.xpcs import AbstractG2


class Wobbling(AbstractG2):
    """A relaxation while the beam or the sample shakes: fields that are parameters, and g2 at delays t, shape (n,)."""

    tau: js.Scalar = js.param(unit="s", bounds=(1e-9, None), doc="relaxation time")
    contrast: js.Scalar = js.param(default=0.2, bounds=(0, 1))
    baseline: js.Scalar = js.param(default=1.0, bounds=(0.5, 1.5))
    depth: js.Scalar = js.param(default=0.0, bounds=(-0.2, 0.2), doc="share of the contrast that comes and goes")
    frequency: js.Scalar = js.param(default=50.0, unit="Hz", bounds=(0, None))

    def __call__(self, t):
        shaking = 1 + self.depth * (jnp.cos(2 * jnp.pi * self.frequency * t) - 1)
        return self.baseline + self.contrast * shaking * jnp.exp(-2 * t / self.tau)

    @staticmethod
    def of(seen):
        """Where a fit starts, of what is seen of a curve: its contrast, baseline, tau, exponent, and q."""
        return Wobbling(seen.tau, seen.contrast, seen.baseline)
