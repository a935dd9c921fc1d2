"""Cells by the thousand through programs of a few fixed sizes: what the host gathers for one call.

A call takes a batch of up to sixteen strips of lanes, a cell a lane, and works on one strip after the other, which
stays in the processor's cache. No program depends on how many cells a sky has, so that none is compiled for its length,
and no copy of the whole sky is made. The fits of single pixels and the component maps run this way.
"""

from collections.abc import Callable, Iterator
from typing import TypeVar

import jax
import jax.numpy as jnp
import jax.tree_util as jtu
import numpy as np
from jax import lax
from jaxtyping import Array, Int, PyTree

from .._given import Values
from .._sky import Sky

_STRIPS = 16
_SIZES = (1, 16, 64, 528)  # lanes of a strip; rows a multiple of 4096 bytes apart would share one set of the cache

MANY_LANES = _STRIPS * _SIZES[-1]
"""Lanes of a call for any number of cells, so that the bits of a cell do not depend on how many there are."""

Out = TypeVar("Out")


def lanes_for(k: int) -> int:
    """Choose how many lanes a call has for k cells.

    All skies with many cells have one shape of call, and so the bits of a cell do not depend on its neighbours.
    """
    return next((size for size in _SIZES if size >= k), MANY_LANES)


def strip_of(lanes: int) -> int:
    """How many lanes of a call are worked on together."""
    return min(lanes, _SIZES[-1])


def batches(members: np.ndarray, lanes: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Cut members into (those of one call, how many strips they fill)."""
    for at in range(0, len(members), lanes):
        part = members[at : at + lanes]
        yield part, np.asarray(-(-len(part) // strip_of(lanes)))


def fill(x: Values, at: np.ndarray, lanes: int, rest: Values | float | int = 0) -> np.ndarray:
    """x[..., at] as so many lanes, and `rest` in those that are left."""
    out = np.empty((*x.shape[:-1], lanes), x.dtype)
    np.take(np.asarray(x), at, axis=-1, out=out[..., : len(at)], mode="clip")
    out[..., len(at) :] = rest
    return out


def gathered(sky: Sky, pixels: np.ndarray, cells: np.ndarray, lanes: int) -> tuple[np.ndarray, np.ndarray]:
    """Gather the data and the root of the noise of some cells, set by set.

    **Arguments:** `pixels`: (m, k) of each cell, -1 where it has fewer than m. `cells`: which.

    **Returns:** (data (s, f, t m, lanes), root (s, f, q) or (s, f, f, q)), with t Stokes parameters in the largest set;
    zeros where a set or a cell has fewer, and in the lanes that are left.
    """
    f, m, n = sky.data.shape[0], pixels.shape[0], len(cells)
    here = pixels[:, cells]
    whole = np.zeros((len(sky.sets), f, max(map(len, sky.sets)), m, lanes))
    for which, members in enumerate(sky.sets):
        for t, stokes in enumerate(members):
            whole[which, :, t, :, :n] = sky.data[:, stokes][:, here]
    whole[..., :n][..., here < 0] = 0
    its = [root if root.shape[-1] == 1 else fill(root, here[0], lanes) for root in sky.roots_of_sets()]
    return whole.reshape(*whole.shape[:2], -1, lanes), np.stack(np.broadcast_arrays(*its))


def by_strips(fn: Callable[..., Out], varying: tuple[PyTree[Array], ...], size: int, strips: Int[Array, ""]) -> Out:
    """Call fn with the first so many strips of lanes, one after the other, within a program.

    Leaves of `varying` whose last axis is not the lanes are the same for all strips.
    """
    # jitted, so that it is traced once for both the shapes and the loop
    length, fn = max(x.shape[-1] for x in jtu.tree_leaves(varying)), jax.jit(fn)

    def part(i: Int[Array, ""] | int) -> tuple[PyTree[Array], ...]:
        def cut(x: Array) -> Array:
            return lax.dynamic_slice_in_dim(x, i * size, size, x.ndim - 1) if x.shape[-1] == length else x

        return jtu.tree_map(cut, varying)

    def one(i: Array, out: Out) -> Out:
        def put(whole: Array, new: Array) -> Array:
            return lax.dynamic_update_slice_in_dim(whole, new, i * size, whole.ndim - 1)

        return jtu.tree_map(put, out, fn(*part(i)))

    shapes = jax.eval_shape(lambda: fn(*part(0)))
    blank = jtu.tree_map(lambda s: jnp.zeros((*s.shape[:-1], length), s.dtype), shapes)
    return lax.fori_loop(0, strips, one, blank)
