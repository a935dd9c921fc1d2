"""What a fit moves and what it was told: the two named things that a Solution keeps.

They stand below plans and problems, which are made of them, and below `Solution`, which carries them to whoever goes
on from it: intervals, samplers, refits.
"""

import dataclasses
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, PyTree

from ..core import AbstractLikelihood, AbstractLoss, AbstractPrior, Linear, Module, Scalar, transparent


class Fitted(Module):
    """A model and, where parameters of it are fitted too, a noise; its names are `tau`, `noise.efac`."""

    model: PyTree = transparent()
    noise: PyTree = None


class ShapedPrior(Module):
    """A prior that is no Gaussian row, at its places in the flat vector of free parameters.

    - `prior`: its arrays are scalars or have one number for each place.
    """

    prior: AbstractPrior
    at: tuple[int, ...] = eqx.field(static=True)

    def cost(self, y: Float[Array, " p"]) -> Scalar:
        """What the prior adds to the cost."""
        return jnp.sum(self.prior.cost(self._of(y)))

    def slope(self, y: Float[Array, " p"]) -> Float[Array, " p"]:
        """The derivative of that with y."""
        return jnp.zeros_like(y).at[jnp.array(self.at)].set(self.prior.slope(self._of(y)))

    def curvature(self, y: Float[Array, " p"]) -> Float[Array, " p"]:
        """The diagonal of a positive second derivative."""
        return jnp.zeros_like(y).at[jnp.array(self.at)].set(self.prior.curvature(self._of(y)))

    def row(self, y: Float[Array, " p"]) -> Float[Array, " k"]:
        """Numbers whose half squares sum to the cost."""
        return self.prior.row(self._of(y))

    def begun(self, y: Float[Array, " p"]) -> Float[Array, " p"]:
        """y with the mode where the density is 0, as at the end of a support: no search could leave such a start."""
        here = self._of(y)
        mode = jnp.broadcast_to(self.prior.mode().astype(y.dtype), here.shape)
        return y.at[jnp.array(self.at)].set(jnp.where(jnp.isfinite(self.prior.log_density(here)), here, mode))

    def present(self, like: Float[Array, " p"]) -> Bool[Array, " p"]:
        """True at its places."""
        return jnp.zeros(like.shape, bool).at[jnp.array(self.at)].set(True)

    def _of(self, y: Float[Array, " p"]) -> Float[Array, " k"]:
        return y[jnp.array(self.at)]


class Terms(NamedTuple):
    """The terms of a fit beside its model and data: bounds, priors, loss and likelihood of the p free elements.

    A NamedTuple, because building a checked Module costs a tenth of a small fit; the doors have checked what is in it.

    - `lower`, `upper`: bounds; both `None` where there is none at all. Equal ones fix a parameter.
    - `prior_mean`, `prior_weight`: Gaussian priors; weight 1/sigma^2, 0 for none. `shaped`: priors of other shapes.
      The supports of all of them are in the bounds.
    - `active`: False for elements that keep their value; `None` when all may move.
    - `loss`: of the whitened residuals. `likelihood`: in place of the data's own noise; `None` for that.
    """

    lower: Float[Array, " p"] | None
    upper: Float[Array, " p"] | None
    prior_mean: Float[Array, " p"]
    prior_weight: Float[Array, " p"]
    active: Bool[Array, " p"] | None = None
    loss: AbstractLoss = Linear()
    likelihood: AbstractLikelihood | None = None
    shaped: tuple[ShapedPrior, ...] = ()


ROBUST_CHI2 = (
    "chi2 and chi2/dof are sums of squares that count outliers in full, which the fit does not: a large one says that "
    "there are outliers, not that the fit is poor"
)
"""What chi2 means where a robust loss was minimised."""


def loss_text(terms: Terms) -> str:
    """Name the robust loss of a fit with its numbers, as `Cauchy(scale=1)`; empty for least squares."""
    return "" if isinstance(terms.loss, Linear) else _called(terms.loss, 0)


def prior_texts(terms: Terms) -> list[str]:
    """Name the prior of each free element, as `Normal(mean=3, sigma=0.2)`; empty where only bounds hold it, or nothing.

    A prior that is Gaussian within its support is told by that Gaussian; the support is in the bounds.
    """
    mean, weight = np.asarray(terms.prior_mean), np.asarray(terms.prior_weight)
    texts = [
        f"Normal(mean={m:.6g}, sigma={w**-0.5:.6g})" if w > 0 else ""
        for m, w in zip(mean.tolist(), weight.tolist(), strict=True)
    ]
    for each in terms.shaped:
        for k, place in enumerate(each.at):
            texts[place] = _called(each.prior, k)
    return texts


def _called(part: AbstractLoss | AbstractPrior, k: int) -> str:
    """A Module as one would write it, with the k-th of the numbers of its fields."""
    fields = {field.name: getattr(part, field.name) for field in dataclasses.fields(part)}
    numbers = {name: np.ravel(x) for name, x in fields.items() if isinstance(x, jax.Array | np.ndarray)}
    told = (f"{name}={values[min(k, values.size - 1)]:.6g}" for name, values in numbers.items())
    return f"{type(part).__name__}({', '.join(told)})"
