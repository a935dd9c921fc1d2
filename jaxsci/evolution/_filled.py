"""Ensembles as a compiled program sees them: filled up to one of few sizes, so that other numbers find it compiled.

A program is made for arrays of one size. Particles that fill a size up have no weight and repeat the last one that is
meant, random numbers and all, so that they add nothing to any sum and end at nan only where that one does. The number
of the last one is an argument of the program. `evolve` fills up at its door, and gives back what is meant.
"""

from typing import NamedTuple

import equinox as eqx
import jax.numpy as jnp
import jax.tree_util as jtu
from jaxtyping import Array, Bool, UInt

from ..core import Module, Tree
from ._ensemble import Draw, Ensemble

_FEW = 16  # particles, of which a call with any number takes the time of Python alone
_BITS = 6  # 32 sizes from a power of two to the next: at most 3 % are added, and 1.5 % as a rule


class Filled(Module):
    """An ensemble, or a `Draw`, with more particles after the last one that is meant.

    - `ensemble`. `last`: the number of that particle.
    """

    ensemble: Ensemble | Draw
    last: UInt[Array, ""]

    @property
    def size(self) -> int:
        """How many particles there are, with those that fill up."""
        return size_of(self.ensemble)


class State(NamedTuple):
    """What an ensemble has of each particle: (n, d), (n,), and (n, d) or `None`; arrays, or what stands for them."""

    positions: Tree
    weights: Tree
    travelled: Tree


def size_of(ensemble: Ensemble | Draw) -> int:
    """How many particles there are."""
    return ensemble.n if isinstance(ensemble, Draw) else ensemble.positions.shape[0]


def of_each(ensemble: Ensemble) -> State:
    """What an ensemble has of each particle."""
    return State(ensemble.positions, ensemble.weights, ensemble.travelled)


def with_each(ensemble: Ensemble, each: State) -> Ensemble:
    """The same ensemble with these particles."""
    return eqx.tree_at(of_each, ensemble, each, is_leaf=lambda x: x is None)


def bucket_of(n: int, few: int = _FEW) -> int:
    """The size that n is filled up to: one of 32 from each power of two to the next, and a multiple of `few`."""
    step = max(few, 1 << max(0, (n - 1).bit_length() - _BITS))
    return -(-n // step) * step


def filled(ensemble: Ensemble, size: int) -> Ensemble:
    """More particles, without weight, where the last one is."""
    more = size - size_of(ensemble)
    if not more:
        return ensemble
    repeated = jtu.tree_map(lambda x: jnp.concatenate([x, jnp.repeat(x[-1:], more, axis=0)]), of_each(ensemble))
    weights = jnp.concatenate([ensemble.weights, jnp.zeros(more, ensemble.weights.dtype)])
    return with_each(ensemble, repeated._replace(weights=weights))


def are_meant(ids: UInt[Array, " n"], last: UInt[Array, ""]) -> Bool[Array, " n"]:
    """True for the particles up to the last one; numbers may begin again at zero after the largest."""
    return (last - ids).astype(jnp.int32) >= 0
