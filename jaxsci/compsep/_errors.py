"""Errors of the amplitudes, those of the spectral parameters included."""

import functools

import jax.numpy as jnp
from jaxtyping import Array, Float

from ..core._linalg import factorise
from ._moments import Moments, Places, Solved, slack


def propagated(
    places: Places, moments: Moments, solved: Solved, covariance: Float[Array, "p p k"]
) -> Float[Array, "c m k"]:
    """Variances of the amplitudes: diag (A^T N^-1 A)^-1 + (ds/dB) Sigma (ds/dB)^T.

    ds/dB = W_dB d = M^-1 (dA^T N^-1 r - A^T N^-1 dA s), M = A^T N^-1 A (Stivoli et al. 2010, MNRAS 408, 2319).
    """
    s = solved.amplitude
    c = s.shape[0]
    units = jnp.broadcast_to(jnp.eye(c, dtype=s.dtype)[:, :, None], moments.normal.shape)
    inverse = factorise(moments.normal[:, :, None]).solve(units)
    variance = jnp.broadcast_to(jnp.stack([inverse[j, j] for j in range(c)])[:, None], s.shape)
    if not places:
        return variance
    rest = slack(moments, solved)
    moved: dict[int, Array] = {}
    for a, (i, j) in enumerate(places):
        slope = inverse[:, j, None] * rest[a][None] - solved.parts[:, a, None] * s[j][None]
        moved[i] = moved[i] + slope if i in moved else slope
    pairs = [(i, j) for i in moved for j in moved if j <= i]
    terms = (moved[i] * moved[j] * (covariance[i, j] * (1 if i == j else 2))[None, None] for i, j in pairs)
    return functools.reduce(jnp.add, terms, variance)
