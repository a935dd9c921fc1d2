"""Your own drifts. `jaxsci run ... --import my_drifts.py` gives each class its name in the config."""

import jax.numpy as jnp

import jaxsci as js
from jaxsci.evolution import AbstractDrift


class Tilted(AbstractDrift):
    """Two wells on a slope: fields that are parameters, and what moves a particle at time t and place x, shape (d,)."""

    depth: js.Scalar = js.param(doc="how fast it is driven from the middle into a well")
    slope: js.Scalar = js.param(default=0.0, doc="a constant push")

    def __call__(self, t, x):
        return self.depth * (x - x**3) + self.slope


# A cost of a game enters in the same way: a function of a place, or of (place, density there, the whole crowd). With
# running = { type = "Lane", width = 0.2 } under [game] of a config for a game, this one is used:
class Lane(js.AbstractModel):
    """A cost that is low on a lane along the first axis."""

    width: js.Scalar = js.param()

    def __call__(self, x):
        return 1 - jnp.exp(-((x[-1] / self.width) ** 2) / 2)
