"""What a fit moves and what it was told: the two named things that a Solution keeps.

They stand below plans and problems, which are made of them, and below `Solution`, which carries them to whoever goes
on from it: intervals, samplers, refits.
"""

from typing import NamedTuple

from jaxtyping import Array, Bool, Float, PyTree

from ..core import AbstractLikelihood, AbstractLoss, Linear, Module, transparent


class Fitted(Module):
    """A model and, where parameters of it are fitted too, a noise; its names are `tau`, `noise.efac`."""

    model: PyTree = transparent()
    noise: PyTree = None


class Terms(NamedTuple):
    """The terms of a fit beside its model and data: bounds, priors, loss and likelihood of the p free elements.

    A NamedTuple, because building a checked Module costs a tenth of a small fit; the doors have checked what is in it.

    - `lower`, `upper`: bounds; both `None` where there is none at all. Equal ones fix a parameter.
    - `prior_mean`, `prior_weight`: Gaussian priors; weight 1/sigma^2, 0 for none.
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
