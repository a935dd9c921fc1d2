"""Errors of the amplitudes, those of the spectral parameters included."""

import functools

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from ..core.linalg import Factor, factorise
from ._moments import Moments, Places, Projected, Solved

_ALIKE = 64  # roundings below which a component is a combination of the others


def propagated(
    places: Places, moments: Moments, projected: Projected, solved: Solved, covariance: Float[Array, "p p k"]
) -> Float[Array, "c m k"]:
    """Variances of the amplitudes: diag (A^T N^-1 A)^-1 + (ds/dB) Sigma (ds/dB)^T.

    ds/dB = W_dB d = M^-1 (dA^T N^-1 r - A^T N^-1 dA s), M = A^T N^-1 A (Stivoli et al. 2010, MNRAS 408, 2319).
    Infinite where components cannot be told apart, or hang on a spectrum that the data do not determine.
    """
    s = solved.amplitude
    c = s.shape[0]
    units = jnp.broadcast_to(jnp.eye(c, dtype=s.dtype)[:, :, None], moments.normal.shape)
    factor = factorise(moments.normal[:, :, None])
    inverse = factor.solve(units)
    variance = jnp.broadcast_to(jnp.stack([inverse[j, j] for j in range(c)])[:, None], s.shape)
    variance = jnp.where(_alike(factor, moments.normal), jnp.inf, variance)
    if not places:
        return variance
    moved: dict[int, Array] = {}
    for a, (i, j) in enumerate(places):
        slope = inverse[:, j, None] * projected.rest[a][None] - solved.parts[:, a, None] * s[j][None]
        moved[i] = moved[i] + slope if i in moved else slope
    pairs = [(i, j) for i in moved for j in moved if j <= i]
    terms = (moved[i] * moved[j] * (covariance[i, j] * (1 if i == j else 2))[None, None] for i, j in pairs)
    total = functools.reduce(jnp.add, terms, variance)
    return jnp.where(jnp.isnan(total), jnp.inf, total)


def _alike(factor: Factor, normal: Float[Array, "c c k"]) -> Bool[Array, "1 1 k"]:
    """Where nothing is left of a component's column that the others do not have."""
    least = _ALIKE * jnp.finfo(normal.dtype).eps
    inverses = factor.inverse_pivots or ()
    none = (inverse * normal[i, i][None] * least >= 1 for i, inverse in enumerate(inverses))
    return functools.reduce(jnp.logical_or, none, ~factor.ok)[None]
