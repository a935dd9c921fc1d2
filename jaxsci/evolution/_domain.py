"""Where particles may be, and what becomes of those that would leave.

A domain is asked once after each step, with the positions before and after it. It moves particles back, takes weight
away where a wall absorbs, and says how much left through each wall. `meanfield.Box` is one; `Free` is all of space.
"""

import abc

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from ..core import Module


class Settled(Module):
    """An ensemble after its domain was asked.

    - `positions`: (n, d). `weights`: (n,), less what was absorbed.
    - `exits`: the weight that left through each wall.
    """

    positions: Float[Array, "n d"]
    weights: Float[Array, " n"]
    exits: Float[Array, " walls"]


class AbstractDomain(Module):
    """A part of space with walls."""

    @property
    @abc.abstractmethod
    def absorbs(self) -> bool:
        """True where weight may be lost: `settle` then needs the variances of a step."""

    @property
    @abc.abstractmethod
    def walls(self) -> tuple[str, ...]:
        """The names of its walls, in the order of `Settled.exits`."""

    @abc.abstractmethod
    def outside(self, positions: Float[Array, "n d"]) -> Bool[Array, " n"]:
        """True for particles that are not in it."""

    @abc.abstractmethod
    def settle(
        self,
        before: Float[Array, "n d"],
        after: Float[Array, "n d"],
        weights: Float[Array, " n"],
        variance: Float[Array, "n d"] | None,
    ) -> Settled:
        """Bring a step to where its particles end.

        **Arguments:**

        - `before`, `after`: positions at the beginning of the step, inside, and at its end, anywhere.
        - `variance`: of the step along each axis; `None` where nothing is absorbed.
        """


class Free(AbstractDomain):
    """All of space, without walls."""

    @property
    def absorbs(self) -> bool:
        """Nothing is lost."""
        return False

    @property
    def walls(self) -> tuple[str, ...]:
        """There are none."""
        return ()

    def outside(self, positions: Float[Array, "n d"]) -> Bool[Array, " n"]:
        """None is."""
        return jnp.zeros(positions.shape[0], bool)

    def settle(
        self,
        before: Float[Array, "n d"],
        after: Float[Array, "n d"],
        weights: Float[Array, " n"],
        variance: Float[Array, "n d"] | None,
    ) -> Settled:
        """Leave all as it is."""
        del before, variance
        return Settled(after, weights, jnp.zeros(0, weights.dtype))
