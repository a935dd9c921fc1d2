"""Random numbers as a function of (key, particle, step): the same whatever the chunk, the device or the resumption.

`jax.random.normal(key, (n,))` gives other numbers to a particle when n changes. Here the counter of Threefry-2x32 is
the particle's number and a count of draws, so that a particle has a stream of its own. The rounds are written out in
plain XLA, because they are then fused with what uses them; twenty of them are JAX's own generator, bit for bit, and
thirteen pass BigCrush as well. Steppers and samplers of ensembles call it.

Salmon, Moraes, Dror and Shaw 2011, "Parallel random numbers: as easy as 1, 2, 3", tables 1 and 2.
"""

from typing import NamedTuple

import jax.numpy as jnp
from jax import lax
from jax.typing import DTypeLike
from jaxtyping import Array, ArrayLike, Float, UInt

_ROTATIONS = (13, 15, 26, 6, 17, 29, 16, 24)
_PARITY = 0x1BD11BDA


class Words(NamedTuple):
    """Two words of 32 random bits."""

    first: Array
    second: Array


def threefry(key: UInt[Array, " 2"], counter: Words, rounds: int = 20) -> Words:
    """Encrypt counters by Threefry-2x32.

    **Arguments:** `key`: two words; `counter`: two words each, of any shape; `rounds`: 20, or 13 for speed.
    """
    schedule = key[0], key[1], key[0] ^ key[1] ^ jnp.uint32(_PARITY)
    a, b = counter.first + schedule[0], counter.second + schedule[1]
    for r in range(rounds):
        turn = _ROTATIONS[r % 8]
        a = a + b
        b = a ^ ((b << jnp.uint32(turn)) | (b >> jnp.uint32(32 - turn)))
        if r % 4 == 3:
            k = r // 4 + 1
            a = a + schedule[k % 3]
            b = b + (schedule[(k + 1) % 3] + jnp.uint32(k))
    return Words(a, b)


def _words(key: UInt[Array, " 2"], ids: UInt[Array, "..."], draw: UInt[Array, "..."], rounds: int) -> Words:
    shape = jnp.broadcast_shapes(ids.shape, draw.shape)
    return threefry(key, Words(jnp.broadcast_to(ids, shape), jnp.broadcast_to(draw, shape)), rounds)


def _unit(words: Words, dtype: DTypeLike) -> Float[Array, "..."]:
    """Numbers in [1, 2) from random mantissas."""
    if jnp.dtype(dtype) == jnp.float64:
        high = words.first.astype(jnp.uint64) << jnp.uint64(20)
        mantissa = high | (words.second >> jnp.uint32(12)).astype(jnp.uint64)
        return lax.bitcast_convert_type(mantissa | jnp.uint64(0x3FF0000000000000), jnp.float64)
    return lax.bitcast_convert_type((words.first >> jnp.uint32(9)) | jnp.uint32(0x3F800000), jnp.float32)


def uniforms(
    key: UInt[Array, " 2"], ids: UInt[Array, "..."], draw: ArrayLike, dtype: DTypeLike, rounds: int = 20
) -> Float[Array, "..."]:
    """Draw a number in [0, 1) for each particle.

    **Arguments:**

    - `key`: raw data of a random key. `ids`: the numbers of the particles.
    - `draw`: which of a particle's numbers this is, each of which may be used once; a shape that goes with `ids`.
    - `dtype`: float32 or float64. `rounds`: of the generator.
    """
    return _unit(_words(key, ids, jnp.asarray(draw, jnp.uint32), rounds), dtype) - jnp.ones((), dtype)


def normals(
    key: UInt[Array, " 2"], ids: UInt[Array, "..."], draw: ArrayLike, dtype: DTypeLike, rounds: int = 20
) -> Float[Array, "..."]:
    """Draw a standard normal number for each particle, by the inverse of its distribution function.

    **Arguments:** as in `uniforms`.
    """
    unit = _unit(_words(key, ids, jnp.asarray(draw, jnp.uint32), rounds), dtype)
    # in (-1, 1): the smallest is half a spacing above -1, so that none is infinite
    spacing = 2.0 ** (-52 if jnp.dtype(dtype) == jnp.float64 else -23)
    centred = (unit - jnp.asarray(1.5, dtype)) * jnp.asarray(2, dtype) + jnp.asarray(spacing, dtype)
    return jnp.asarray(2**0.5, dtype) * lax.erf_inv(centred)
