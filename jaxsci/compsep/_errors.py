"""Errors of the amplitudes, those of the spectral parameters included."""

import jax.numpy as jnp
from jaxtyping import Array, Float

from ._likelihood import Derivative, Maps, Projection, over_channels


def propagated(
    maps: Maps, projection: Projection, moved: list[Derivative], covariance: Array | None
) -> Float[Array, "c m k"]:
    """Variances of the amplitudes: diag (A^T N^-1 A)^-1 + (ds/dB) Sigma (ds/dB)^T.

    ds/dB = W_dB d = M^-1 (dA^T N^-1 r - A^T N^-1 dA s), M = A^T N^-1 A (Stivoli et al. 2010, MNRAS 408, 2319).
    """
    c = len(projection.columns)
    lanes = projection.amplitude.shape[2]
    unit = jnp.broadcast_to(jnp.eye(c)[:, :, None, None], (c, c, 1, lanes))
    own = jnp.stack([projection.factor.solve(unit[j])[j] for j in range(c)])
    variance = jnp.broadcast_to(own, projection.amplitude.shape)
    if covariance is None:
        return variance
    slopes = [_slope(maps, projection, derivative) for derivative in moved]
    for i, one in enumerate(slopes):
        for j, other in enumerate(slopes):
            variance = variance + one * other * covariance[i, j][None, None]
    return variance


def _slope(maps: Maps, projection: Projection, derivative: Derivative) -> Float[Array, "c m k"]:
    """ds/dB of one parameter."""
    s = projection.amplitude
    total = jnp.zeros_like(s)
    for j, partial in derivative:
        white = maps.whiten(partial)
        rows = []
        for i, column in enumerate(projection.columns):
            rows.append(-over_channels(column, white)[None] * s[j])
            if i == j:
                rows[-1] = rows[-1] + over_channels(white[:, None], projection.residual)
        total = total + projection.factor.solve(jnp.stack(rows))
    return total
