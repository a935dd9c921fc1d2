"""Ensembles: particles with weights, and the random key that their paths are a function of.

A particle that leaves through an absorbing wall loses its weight and keeps its place in the array, so that shapes never
change. The key, the number of the first particle and the count of steps taken travel with the ensemble: that is all
that a run needs to go on from where it stopped, with the same bits. `evolve` takes and returns one.
"""

import abc
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray, UInt

from ..core import Given, Module, as_count, is_key, is_traced, require_kind, unmasked


def raw_key(key: PRNGKeyArray | Given) -> UInt[Array, " 2"]:
    """The two words of a random key, from a seed, a typed key or raw data.

    **Raises:** `ValueError` for a key of another generator than threefry, and for anything else.
    """
    given: Any = key
    if isinstance(given, str):
        raise ValueError(f"key should be a seed or a key (jax.random.key(0)), but it is {given!r:.60}")
    if is_key(given):
        words = jax.random.key_data(given)
    elif jnp.ndim(given) == 0 and jnp.issubdtype(jnp.asarray(given).dtype, jnp.integer):
        words = jax.random.key_data(jax.random.key(given, impl="threefry2x32"))
    else:
        words = jnp.asarray(given)
    if words.shape != (2,) or words.dtype != jnp.uint32:
        raise ValueError(
            f"key should be a seed or one threefry key (jax.random.key(0)), but it has the data {words.dtype}"
            f"{list(words.shape)}"
        )
    return words


class Ensemble(Module):
    """Particles with weights.

    **Arguments:**

    - `positions`: shape (n, d), or (n,) in one dimension.
    - `weights`: shape (n,), not negative, of any sum; they are kept as they are. `None`: 1 each.
    - `key`: a seed or a key; `None` where `evolve` is given one.
    - `first`: the number of the first particle, where this is a part of a larger ensemble.
    - `track`: also keep how far each particle has travelled, in `travelled`, whatever walls turned it back.

    **Raises:** `ValueError` for an empty ensemble, or weights of another length.
    """

    positions: Float[Array, "n d"]
    weights: Float[Array, " n"]
    key: UInt[Array, " 2"] | None
    first: UInt[Array, ""]
    taken: UInt[Array, ""]
    travelled: Float[Array, "n d"] | None

    def __init__(
        self,
        positions: Given,
        weights: Given | None = None,
        key: PRNGKeyArray | Given | None = None,
        first: Given = 0,
        track: bool = False,
    ) -> None:
        found = jnp.asarray(unmasked(positions, "positions"))
        if not jnp.issubdtype(found.dtype, jnp.floating):
            found = found.astype(float)
        self.positions = found[:, None] if found.ndim == 1 else found
        if self.positions.ndim != 2 or 0 in self.positions.shape:
            raise ValueError(f"an ensemble has positions of shape (n, d) with n and d of 1 or more, not {found.shape}")
        n, dtype = self.positions.shape[0], self.positions.dtype
        self.weights = jnp.ones(n, dtype) if weights is None else jnp.asarray(weights).astype(dtype)
        if self.weights.shape != (n,):
            raise ValueError(f"weights have shape {self.weights.shape}, but there are {n} particles")
        if weights is not None and not is_traced(self.weights):
            _check_weights(np.asarray(self.weights))
        self.key = None if key is None else raw_key(key)
        self.first = jnp.asarray(first, jnp.uint32)
        self.taken = jnp.zeros((), jnp.uint32)
        self.travelled = jnp.zeros_like(self.positions) if track else None

    @property
    def ids(self) -> UInt[Array, " n"]:
        """The numbers of the particles."""
        return self.first + jnp.arange(self.positions.shape[0], dtype=jnp.uint32)


def _check_weights(weights: np.ndarray) -> None:
    """Raise `ValueError` for weights with which nothing can be counted."""
    bad = np.flatnonzero(~((weights >= 0) & np.isfinite(weights)))
    if len(bad):
        raise ValueError(f"weights[{bad[0]}] is {weights[bad[0]]}, but weights should be 0 or more, and finite")
    if not weights.any():
        raise ValueError("all weights are 0: give at least one particle a weight, or none of them weights=")


class AbstractStart(Module):
    """A distribution of initial positions, as a function of (key, particle)."""

    @abc.abstractmethod
    def sample(self, key: UInt[Array, " 2"], ids: UInt[Array, " n"]) -> Float[Array, "n d"]:
        """Positions of these particles."""

    def ensemble(self, n: int, key: PRNGKeyArray | Given, track: bool = False) -> Ensemble:
        """Draw an ensemble of n particles; `key` is its key from then on."""
        ids = jnp.arange(n, dtype=jnp.uint32)
        return Ensemble(self.sample(start_key(raw_key(key)), ids), key=raw_key(key), track=track)


def start_key(key: UInt[Array, " 2"]) -> UInt[Array, " 2"]:
    """The key of initial positions: steps use the key itself, and no number may serve twice."""
    return key ^ jnp.uint32(0x9E3779B9)


class Draw(Module):
    """An ensemble of n particles that is drawn where it is needed, so that only a chunk of it is ever in memory.

    **Arguments:** `start`: where the particles begin; `n`: their number; `key`: a seed or a key.
    """

    start: AbstractStart
    key: UInt[Array, " 2"]
    n: int = eqx.field(static=True)

    def __init__(self, start: AbstractStart, n: int, key: PRNGKeyArray | Given = 0) -> None:
        require_kind(
            start, AbstractStart, "start", "where the particles begin, such as jaxsci.meanfield.Gaussian(0, 1)"
        )
        self.start, self.n, self.key = start, as_count(n, "n, the number of particles,"), raw_key(key)

    def part(self, first: UInt[Array, ""], size: int, last: UInt[Array, ""] | None = None) -> Ensemble:
        """Draw so many particles from a number on; those beyond the last repeat it, without weight.

        **Arguments:** `last`: the number of the last particle, n - 1 without it.
        """
        ids, end = first + jnp.arange(size, dtype=jnp.uint32), jnp.uint32(self.n - 1) if last is None else last
        positions = self.start.sample(start_key(self.key), jnp.minimum(ids, end))
        return Ensemble(positions, ids <= end, self.key, first)
