"""Cells by the thousand through programs of a few fixed sizes: what the host gathers for one call.

A call takes a slab of up to sixteen blocks, and works on one after the other, which stays in the processor's cache.
No program depends on how many cells there are, and no copy of the whole sky is made.
"""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import jax.tree_util as jtu
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Int

from .._noise import weighted
from .dataset import Maps

_SIZES = (1, 16, 64, 528)  # lanes of a block; rows a multiple of 4096 bytes apart would share one set of the cache
_BLOCKS = 16


class Slabs(NamedTuple):
    """Calls of `length` lanes in blocks of `size`."""

    size: int
    length: int

    @staticmethod
    def of(k: int) -> "Slabs":
        """For k cells; all that are many have one shape, and so the bits of a cell do not depend on its neighbours."""
        size = next((size for size in _SIZES if size >= k), _SIZES[-1])
        return Slabs(size, size if k <= size else _BLOCKS * size)

    def parts(self, members: np.ndarray) -> Iterator[tuple[np.ndarray, Any]]:
        """(members of each slab, its number of blocks)."""
        for at in range(0, len(members), self.length):
            part = members[at : at + self.length]
            yield part, np.asarray(-(-len(part) // self.size))

    def fill(self, x: np.ndarray, at: np.ndarray, fill: Any = 0) -> np.ndarray:
        """x[..., at], and `fill` in the lanes that are left."""
        out = np.empty((*x.shape[:-1], self.length), x.dtype)
        np.take(x, at, axis=-1, out=out[..., : len(at)], mode="clip")
        out[..., len(at) :] = fill
        return out


MANY = Slabs(_SIZES[-1], _BLOCKS * _SIZES[-1])
"""For any number of cells, so that their bits do not depend on it."""


class Observed(NamedTuple):
    """Maps of s Stokes parameters as the host has them, in sets of equal noise, and the pixels of each cell.

    - `data`: (f, s, pixel). `sets`: which Stokes parameters, and `root`: the root of their noise, see `Maps`.
    - `columns`: (m, k), -1 where a cell has fewer pixels than m.
    """

    data: Any
    sets: tuple[tuple[int, ...], ...]
    root: tuple[Any, ...]
    columns: np.ndarray

    def alone(self, pixel: np.ndarray) -> "Observed":
        """Every pixel a cell."""
        return self._replace(columns=pixel[None])

    def counts(self) -> np.ndarray:
        """(s, k) columns of data in each cell, for each set."""
        pixels = np.sum(self.columns >= 0, axis=0).astype(float)
        return np.array([len(members) for members in self.sets])[:, None] * pixels

    def take(self, cells: np.ndarray, slabs: Slabs) -> tuple[np.ndarray, np.ndarray]:
        """(data (s, f, t m, lanes), root) of all sets, for these cells; zeros in the lanes that are left."""
        f, m, n = self.data.shape[0], self.columns.shape[0], len(cells)
        pixels = self.columns[:, cells]
        whole = np.zeros((len(self.sets), f, max(map(len, self.sets)), m, slabs.length))
        for which, members in enumerate(self.sets):
            for t, stokes in enumerate(members):
                whole[which, :, t, :, :n] = self.data[:, stokes][:, pixels]
        whole[..., :n][..., pixels < 0] = 0
        its = [root if root.shape[-1] == 1 else slabs.fill(root, pixels[0]) for root in self.root]
        return whole.reshape(*whole.shape[:2], -1, slabs.length), np.stack(np.broadcast_arrays(*its))

    def gather(self, at: Any) -> tuple[Array, Array]:
        """(data (s, f, t, m, k), root) of the pixels `at` (m, k), within a program."""
        most = max(map(len, self.sets))
        parts = []
        for members in self.sets:
            part = jnp.asarray(self.data)[:, np.array(members)][:, :, at]
            parts.append(jnp.pad(part, ((0, 0), (0, most - len(members)), (0, 0), (0, 0))))
        its = [root if root.shape[-1] == 1 else jnp.asarray(root)[..., at[0]] for root in self.root]
        return jnp.stack(parts), jnp.stack(jnp.broadcast_arrays(*its))

    def slots(self) -> tuple[np.ndarray, np.ndarray]:
        """(set, place in it) of each Stokes parameter."""
        where = {stokes: (k, t) for k, members in enumerate(self.sets) for t, stokes in enumerate(members)}
        first, second = zip(*(where[stokes] for stokes in range(len(where))), strict=True)
        return np.array(first), np.array(second)


def whitened(data: Float[Array, "s f m k"], root: Array) -> Maps:
    """Maps of all sets; more columns than there are channels are replaced by as many that say the same."""

    def compressed(data: Array, root: Array) -> Array:
        # a channel without weight may hold anything
        return compress(jnp.where(weighted(root)[:, None], data, 0))

    if root.shape[-1] == 1 and data.shape[2] > data.shape[1]:
        data = jax.vmap(compressed)(data, root)
    return Maps.make(data, root)


def compress(data: Array) -> Array:
    """f columns (f, f, k) with the same sum of squares as m (f, m, k), whatever linear map is applied: L of data = L Q.

    Equal noise and spectra within a cell make the likelihood a function of them alone; unlike the covariance of the
    data they lose no digits.
    """
    upper = jnp.linalg.qr(jnp.moveaxis(data, 2, 0).swapaxes(1, 2), mode="r")
    return jnp.moveaxis(upper.swapaxes(1, 2), 0, 2)


def by_blocks(fn: Callable[[Any], Any], varying: Any, size: int, blocks: Int[Array, ""]) -> Any:
    """fn of the first so many blocks, one after the other; leaves whose last axis is not the lanes are shared."""
    length, fn = max(x.shape[-1] for x in jtu.tree_leaves(varying)), jax.jit(fn)  # traced once for shapes and loop

    def part(i: Any) -> Any:
        def cut(x: Array) -> Array:
            return lax.dynamic_slice_in_dim(x, i * size, size, x.ndim - 1) if x.shape[-1] == length else x

        return jtu.tree_map(cut, varying)

    def one(i: Array, out: Any) -> Any:
        def put(whole: Array, new: Array) -> Array:
            return lax.dynamic_update_slice_in_dim(whole, new, i * size, whole.ndim - 1)

        return jtu.tree_map(put, out, fn(part(i)))

    shapes = jax.eval_shape(lambda: fn(part(0)))
    blank = jtu.tree_map(lambda s: jnp.zeros((*s.shape[:-1], length), s.dtype), shapes)
    return lax.fori_loop(0, blocks, one, blank)
