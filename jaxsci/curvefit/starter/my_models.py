"""Your own models. `jaxsci run ... --import my_models.py` gives each class its name in the config."""

import jax.numpy as jnp

import jaxsci as js


class Decay(js.AbstractModel):
    """amplitude exp(-t / tau) + base: fields that are parameters, and what the model predicts."""

    amplitude: js.Scalar = js.param(unit="V", doc="height of the decay at t = 0")
    tau: js.Scalar = js.param(unit="s", bounds=(0, None), doc="life time")
    base: js.Scalar = js.param(unit="V", default=0.0, doc="what is left in the end")

    def __call__(self, t):
        return self.amplitude * jnp.exp(-t / self.tau) + self.base


# A loss, a noise, a solver or a prior of your own enters in the same way. A prior is a jaxsci.Normal whose mean and
# sigma you work out; `tau = { type = "Percent", value = 2.0, percent = 5.0 }` under [fit.priors] then uses this one:
class Percent(js.Normal):
    """A value known to so many per cent."""

    def __init__(self, value: float, percent: float):
        self.mean, self.sigma = value, value * percent / 100
