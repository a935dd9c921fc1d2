"""Priors on parameters, for fits and samplers.

In a fit a Gaussian prior is one more row, (value - mean) / sigma, which costs nothing and counts in chi2; a sampler
asks for the log-density. They are declared by `param(prior=)` or given to a fit, whose word wins.
"""

import jax.numpy as jnp
from jaxtyping import Array, Float

from ._module import Module
from ._parameter import numbers


class Normal(Module):
    """A Gaussian prior: in a fit, one more row (value - mean) / sigma for each element.

    `mean` and `sigma` are scalars or have the parameter's shape; sigma > 0.
    """

    mean: Float[Array, "..."] = numbers()
    sigma: Float[Array, "..."] = numbers()

    def log_prob(self, value: Float[Array, "..."]) -> Float[Array, ""]:
        """The log-density, summed over elements."""
        z = (value - self.mean) / self.sigma
        return jnp.sum(-z * z / 2 - jnp.log(self.sigma) - jnp.log(2 * jnp.pi) / 2)
