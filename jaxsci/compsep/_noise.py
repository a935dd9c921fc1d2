"""Inverse noise covariances as the doors take them, and the roots that whiten maps.

Every estimate of this room weighs channels by N^-1, given as variances or as matrices, for the whole sky or by pixel.
Here they become R with R^T R = N^-1, one shape for all later code: whitened data R d have unit noise. Zeros in R mask
channels. `Sky.of` and the reader of files call this.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from ..core import traced
from ..core.linalg import cholesky
from ..fitting import compiled
from ._given import ArrayModule, Given, Values, at_hand, plain

UNSEEN = -1.6375e30
"""What HEALPix files have in masked pixels."""


def roots(inv_n: Given, f: int, s: int, npix: int, units: str) -> list[Values]:
    """Take the root of the inverse noise: R with R^T R = N^-1 for each Stokes parameter.

    **Arguments:** `inv_n`: (f,), (f, s) or (f, s, pixel) of inverse variances; (f, f), (s, f, f) or (s, f, f, pixel)
    of inverse covariances of the channels, in 1/units^2; what a mask hides has no weight.

    **Returns:** s arrays (f, q), or (f, f, q) for correlated channels; q is 1, or npix where the noise differs.

    **Raises:** `ValueError` for any other shape, and for a matrix that is not positive definite.
    """
    inv_n = at_hand(plain(inv_n, "inv_n", units, fill=0.0, power=-2))
    known = not traced(inv_n)
    inv_n = np.asarray(inv_n, float) if known else inv_n
    shape = inv_n.shape
    if shape not in ((f,), (f, s), (f, s, npix), (f, f), (s, f, f), (s, f, f, npix)):
        raise ValueError(
            f"the inverse noise has shape {shape}; for {f} channels, {s} Stokes parameters and {npix} pixels it should "
            f"be {(f,)}, {(f, s)}, {(f, s, npix)}, {(f, f)}, {(s, f, f)} or {(s, f, f, npix)}"
        )
    each: list[Values]
    if shape in ((f,), (f, s), (f, s, npix)):
        # on the host where it can be: a program for each length of the sky is dearer than its arithmetic
        with np.errstate(invalid="ignore"):
            found = np.sqrt(inv_n) if known else jnp.sqrt(inv_n)
        found = found[:, None] if found.ndim == 1 else found
        each = [found[:, min(k, found.shape[1] - 1)] for k in range(s)]
        each = [root[:, None] if root.ndim == 1 else root for root in each]
    else:
        each = list(compiled(_dense_roots, (inv_n if inv_n.ndim > 2 else inv_n[None],)))
        each = each * s if len(each) == 1 else each
    each = [at_hand(root) for root in each]
    # within a transformation matrices are factorised there, even those whose numbers are known
    if not traced(each) and not all(np.isfinite(root).all() for root in each):
        raise ValueError(
            "the inverse noise has a NaN, a negative variance, or a matrix that is not positive definite: give 0 where "
            "a channel has no weight"
        )
    return each


def _dense_roots(inv_n: Float[Array, "s f f *pix"]) -> list[Array]:
    if inv_n.ndim == 3:
        return [_dense_root(one)[:, :, None] for one in inv_n]
    return [jax.vmap(_dense_root, -1, -1)(one) for one in inv_n]


def _dense_root(inv_n: Float[Array, "f f"]) -> Float[Array, "f f"]:
    """L^T of N^-1 = L L^T; channels whose row is 0 stay so."""
    used = jnp.diagonal(inv_n) > 0
    both = used[:, None] & used[None, :]
    factor, ok = cholesky(jnp.where(both, inv_n, jnp.eye(len(used), dtype=inv_n.dtype)))
    return jnp.where(ok, jnp.where(both, factor.T, 0), jnp.nan)


def weighted(root: Values) -> Bool[Array, "f q"] | Bool[np.ndarray, "f q"]:
    """Tell which channels have any weight."""
    return root != 0 if root.ndim == 2 else (root != 0).any(axis=0)


def enough(root: Values, columns: int) -> Bool[Array, " q"] | Bool[np.ndarray, " q"]:
    """Tell where as many channels have weight as there are columns of the mixing matrix to tell apart."""
    return weighted(root).sum(axis=0) >= columns


def reaching(root: Values, columns: int) -> Values:
    """The root of the noise on the host, 0 where too few channels have weight."""
    fine = np.asarray(enough(root, columns))
    return root if fine.all() else np.where(fine, root, 0)


def side_by_side(found: Sequence[Values]) -> Values:
    """The root of the noise of all Stokes parameters as channels of one: those of the first, of the second, ..."""
    xp: ArrayModule = jnp if traced(tuple(found)) else np
    s, f, q = len(found), found[0].shape[0], max(root.shape[-1] for root in found)
    if all(root.ndim == 2 for root in found):
        return xp.concatenate([xp.broadcast_to(root, (f, q)) for root in found])
    none = xp.zeros((f, f, q))
    whole = [xp.broadcast_to(root if root.ndim == 3 else xp.eye(f)[:, :, None] * root, (f, f, q)) for root in found]
    rows = [xp.concatenate([whole[i] if i == j else none for j in range(s)], axis=1) for i in range(s)]
    return xp.concatenate(rows)


def alike(found: list[Values]) -> tuple[tuple[int, ...], ...]:
    """Put Stokes parameters into sets that have the same noise; each by itself where that cannot be known.

    Q and U of most instruments do: then they are columns of one small system, which is solved once.
    """
    sets: list[list[int]] = []
    for k, root in enumerate(found):
        for members in sets:
            other = found[members[0]]
            if root is other or (
                not traced((root, other)) and root.shape == other.shape and np.array_equal(root, other)
            ):
                members.append(k)
                break
        else:
            sets.append([k])
    return tuple(map(tuple, sets))
