"""Inverse noise covariances as the doors take them, and the roots that whiten maps."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ..core.linalg import cholesky
from ..fitting import compiled
from ._units import plain

UNSEEN = -1.6375e30
"""What HEALPix files have in masked pixels."""


def roots(inv_n: Any, f: int, s: int, npix: int, units: str) -> list[Any]:
    """R with R^T R = N^-1 for each Stokes parameter: (f, q), or (f, f, q) for correlated channels; q is 1 or npix.

    **Arguments:** `inv_n`: (f,), (f, s) or (f, s, pixel) of inverse variances; (f, f), (s, f, f) or (s, f, f, pixel)
    of inverse covariances of the channels, in 1/units^2; what a mask hides has no weight.

    **Raises:** `ValueError` for any other shape, and for a matrix that is not positive definite.
    """
    inv_n = plain(inv_n, "inv_n", units, fill=0.0, power=-2)
    traced = isinstance(inv_n, jax.core.Tracer)
    inv_n = inv_n if traced else np.asarray(inv_n, float)
    shape = inv_n.shape
    if shape not in ((f,), (f, s), (f, s, npix), (f, f), (s, f, f), (s, f, f, npix)):
        raise ValueError(
            f"the inverse noise has shape {shape}; for {f} channels, {s} Stokes parameters and {npix} pixels it should "
            f"be {(f,)}, {(f, s)}, {(f, s, npix)}, {(f, f)}, {(s, f, f)} or {(s, f, f, npix)}"
        )
    if shape in ((f,), (f, s), (f, s, npix)):
        # on the host: a program for each length of the sky is dearer
        found: Any = (jnp.sqrt if traced else _sqrt)(inv_n)
        found = found[:, None] if found.ndim == 1 else found
        each: list[Any] = [found[:, min(k, found.shape[1] - 1)] for k in range(s)]
        each = [root[:, None] if root.ndim == 1 else root for root in each]
    else:
        each = compiled(_dense_roots, (inv_n if inv_n.ndim > 2 else inv_n[None],))
        each = list(each) * s if len(each) == 1 else each
    if traced:
        return list(each)
    each = [np.asarray(root) for root in each]
    if not all(np.isfinite(root).all() for root in each):
        raise ValueError("the inverse noise has a NaN, a negative variance, or a matrix that is not positive definite")
    return each


def _sqrt(x: np.ndarray) -> np.ndarray:
    with np.errstate(invalid="ignore"):
        return np.sqrt(x)


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


def weighted(root: Any) -> Any:
    """(f, q): which channels have any weight."""
    return root != 0 if root.ndim == 2 else (root != 0).any(axis=0)


def enough(root: Any, columns: int) -> Any:
    """(q,): where as many channels have weight as there are columns of the mixing matrix to tell apart."""
    return weighted(root).sum(axis=0) >= columns


def reaching(root: Any, columns: int) -> Any:
    """The root of the noise on the host, 0 where too few channels have weight."""
    fine = np.asarray(enough(root, columns))
    return root if fine.all() else np.where(fine, root, 0)


def alike(found: list[Any]) -> list[list[int]]:
    """Stokes parameters in sets that have the same noise; each by itself where that cannot be known."""
    sets: list[list[int]] = []
    for k, root in enumerate(found):
        for members in sets:
            other = found[members[0]]
            traced = isinstance(root, jax.core.Tracer) or isinstance(other, jax.core.Tracer)
            if root is other or (not traced and root.shape == other.shape and np.array_equal(root, other)):
                members.append(k)
                break
        else:
            sets.append([k])
    return sets
