"""Inverse noise covariances as the doors take them, and the roots that whiten maps."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ..core._linalg import cholesky

UNSEEN = -1.6375e30
"""What HEALPix files have in masked pixels."""


def roots(inv_n: Any, f: int, s: int, npix: int) -> list[Array]:
    """R with R^T R = N^-1 for each Stokes parameter: (f, q), or (f, f, q) for correlated channels; q is 1 or npix.

    **Arguments:** `inv_n`: (f,), (f, s) or (f, s, pixel) of inverse variances; (f, f), (s, f, f) or (s, f, f, pixel)
    of inverse covariances of the channels.

    **Raises:** `ValueError` for any other shape, and for a matrix that is not positive definite.
    """
    inv_n = jnp.asarray(inv_n, float)
    shape = inv_n.shape
    if shape == (f,):
        found = [jnp.sqrt(inv_n)[:, None]] * s
    elif shape == (f, s):
        found = [jnp.sqrt(inv_n[:, k])[:, None] for k in range(s)]
    elif shape == (f, s, npix):
        found = [jnp.sqrt(inv_n[:, k]) for k in range(s)]
    elif shape == (f, f):
        found = [_dense_root(inv_n)[:, :, None]] * s
    elif shape == (s, f, f):
        found = [_dense_root(inv_n[k])[:, :, None] for k in range(s)]
    elif shape == (s, f, f, npix):
        found = [jax.vmap(_dense_root, -1, -1)(inv_n[k]) for k in range(s)]
    else:
        raise ValueError(
            f"the inverse noise has shape {shape}; for {f} channels, {s} Stokes parameters and {npix} pixels it should "
            f"be {(f,)}, {(f, s)}, {(f, s, npix)}, {(f, f)}, {(s, f, f)} or {(s, f, f, npix)}"
        )
    if not isinstance(inv_n, jax.core.Tracer) and not all(bool(jnp.all(jnp.isfinite(r))) for r in found):
        raise ValueError("the inverse noise has a NaN, a negative variance, or a matrix that is not positive definite")
    return found


def _dense_root(inv_n: Float[Array, "f f"]) -> Float[Array, "f f"]:
    """L^T of N^-1 = L L^T; channels whose row is 0 stay so."""
    used = jnp.diagonal(inv_n) > 0
    both = used[:, None] & used[None, :]
    factor, ok = cholesky(jnp.where(both, inv_n, jnp.eye(len(used), dtype=inv_n.dtype)))
    return jnp.where(ok, jnp.where(both, factor.T, 0), jnp.nan)


def weighted(root: Array) -> Array:
    """(f, q): which channels have any weight."""
    return root != 0 if root.ndim == 2 else jnp.any(root != 0, axis=0)


def alike(found: list[Array]) -> list[list[int]]:
    """Stokes parameters in sets that have the same noise; each by itself where that cannot be known."""
    sets: list[list[int]] = []
    for k, root in enumerate(found):
        for members in sets:
            other = found[members[0]]
            traced = isinstance(root, jax.core.Tracer) or isinstance(other, jax.core.Tracer)
            if root is other or (not traced and root.shape == other.shape and bool(jnp.all(root == other))):
                members.append(k)
                break
        else:
            sets.append([k])
    return sets
