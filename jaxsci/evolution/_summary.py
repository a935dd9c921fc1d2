"""What is kept of an ensemble at a time: sums over particles first, and what follows from the sums afterwards.

Sums can be added over chunks of particles and over devices, so that a result does not depend on how an ensemble was cut
and its memory not on the number of particles. Densities, in `meanfield`, are summaries too. A drift that depends on the
ensemble says by a summary what it reads.
"""

import abc
from typing import ClassVar

import jax.numpy as jnp
from jaxtyping import Array, Float

from ..core import Module, Scalar, Tree

_BLOCK = 1024  # single precision loses digits in one long sum


def sum_of(x: Float[Array, "n *shape"]) -> Float[Array, "*shape"]:
    """The sum over particles, in two stages."""
    whole = x.shape[0] - x.shape[0] % _BLOCK
    blocks = jnp.sum(jnp.sum(x[:whole].reshape(-1, _BLOCK, *x.shape[1:]), axis=1), axis=0)
    return blocks if whole == x.shape[0] else blocks + jnp.sum(x[whole:], axis=0)


class AbstractSummary(Module):
    """Something that is wanted of an ensemble at a time.

    - `per_particle`: what `deposit` returns has a leading axis of particles, instead of being a sum over them.
    """

    per_particle: ClassVar[bool] = False

    @property
    def whole(self) -> bool:
        """True where `deposit` has to see all particles at once."""
        return False

    @abc.abstractmethod
    def deposit(self, positions: Float[Array, "n d"], weights: Float[Array, " n"]) -> Tree:
        """A tree of arrays, each a sum over particles to which one without weight adds nothing.

        Ensembles are filled up with particles without weight, and those that a wall absorbed have none.
        """

    @abc.abstractmethod
    def evaluate(self, deposit: Tree) -> Tree:
        """What follows from the sums over all particles."""


class MomentSums(Module):
    """Sums of weights w, of w^2, of w x and of w x x^T."""

    weight: Scalar
    square: Scalar
    first: Float[Array, " d"]
    second: Float[Array, "d d"]


class Statistics(Module):
    """Moments of an ensemble.

    - `mass`: the sum of the weights. `n_eff`: (sum w)^2 / sum w^2, the number of particles of equal weight that
      would tell as much (Kish 1965).
    - `mean`: (d,). `covariance`: (d, d). `standard_error`: of the mean, (d,).
    """

    mass: Scalar
    n_eff: Scalar
    mean: Float[Array, " d"]
    covariance: Float[Array, "d d"]
    standard_error: Float[Array, " d"]


class Moments(AbstractSummary):
    """Mass, mean and covariance of the ensemble, as `Statistics`.

    **Arguments:** `origin`: squares are summed of x - origin; a point near the mean saves digits in single precision.
    """

    origin: float = 0.0

    def deposit(self, positions: Float[Array, "n d"], weights: Float[Array, " n"]) -> MomentSums:
        """The sums, of which all moments follow."""
        x = positions - jnp.asarray(self.origin, positions.dtype)
        d = x.shape[1]
        second = [[sum_of(weights * x[:, i] * x[:, j]) for j in range(i + 1)] for i in range(d)]
        full = jnp.stack([jnp.stack([second[max(i, j)][min(i, j)] for j in range(d)]) for i in range(d)])
        first = jnp.stack([sum_of(weights * x[:, i]) for i in range(d)])
        return MomentSums(sum_of(weights), sum_of(weights * weights), first, full)

    def evaluate(self, deposit: MomentSums) -> Statistics:
        """The moments."""
        some = jnp.where(deposit.weight > 0, deposit.weight, 1)
        mean = deposit.first / some
        covariance = deposit.second / some - mean[:, None] * mean[None, :]
        n_eff = deposit.weight**2 / jnp.where(deposit.square > 0, deposit.square, 1)
        error = jnp.sqrt(jnp.maximum(jnp.diagonal(covariance), 0) / jnp.where(n_eff > 0, n_eff, 1))
        return Statistics(deposit.weight, n_eff, mean + jnp.asarray(self.origin, mean.dtype), covariance, error)


class Snapshot(Module):
    """Particles at a time: positions (n, d) and weights (n,)."""

    positions: Float[Array, "n d"]
    weights: Float[Array, " n"]


class Snapshots(AbstractSummary):
    """The particles themselves: memory grows with their number times the number of times."""

    per_particle: ClassVar[bool] = True

    def deposit(self, positions: Float[Array, "n d"], weights: Float[Array, " n"]) -> Snapshot:
        """The particles as they are."""
        return Snapshot(positions, weights)

    def evaluate(self, deposit: Snapshot) -> Snapshot:
        """The particles as they are."""
        return deposit
