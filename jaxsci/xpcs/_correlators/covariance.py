"""Errors of a g2 and how its lags hang together, from the spread of what was averaged: a jackknife.

Lags of one g2 share their photons, so that their errors are correlated, and a fit that takes them as independent is
too sure of itself. Leaving out one static bin, or one stretch of frames, at a time gives errors and a full covariance,
which `jaxsci.Dense` takes as the noise of a fit. `correlate` calls it for the errors that it returns.

B. Efron, The jackknife, the bootstrap and other resampling plans (1982), chapters 3 and 6; J. Schafer and K. Strimmer,
Stat. Appl. Genet. Mol. Biol. 4, 32 (2005), for the shrinkage.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from ...core import Module
from .sums import BinSums, Counts


class G2Covariance(Module):
    """How g2 of each dynamic bin is known.

    - `error`: (q, lags), standard errors. `covariance`: (q, lags, lags), with these on its diagonal; nan at lags that
      no sample, or only one, has.
    - `shrinkage`: (q,), by which part correlations were drawn to zero. Without it a covariance from fewer samples than
      lags has no inverse.
    - `samples`: (q,), how many static bins or stretches it comes from. An error from n has itself an error of
      1 / sqrt(2 (n - 1)) of its value.
    """

    error: Float[Array, "*q lags"]
    covariance: Float[Array, "*q lags lags"]
    shrinkage: Float[Array, "*q"]
    samples: Int[Array, "*q"]


def jackknife_static(
    sums: BinSums, num_bins: int, normalise: str = "static", shrinkage: float | None = None
) -> G2Covariance:
    """Errors from the spread over the static bins of each dynamic one, leaving out one at a time.

    Speckles of different static bins are independent. What all of a bin share, a flux that drifts, is not in it: use
    `jackknife_blocks` for that.

    **Arguments:** `normalise`: as of `BinSums.g2`. `shrinkage`: from 0 to 1; `None` for that of least expected error.

    **Returns:** a `G2Covariance`, nan for a dynamic bin with one static bin.
    """
    member = sums.members(num_bins)
    has = member * (sums.pixels > 0).astype(member.dtype)[None]
    own = jnp.clip(sums.dynamic - 1, 0, num_bins - 1)
    # row s: the static bins of the dynamic bin of s, less s itself
    others = member[own] - jnp.eye(member.shape[1], dtype=member.dtype)
    left_out = sums.g2_of(jnp.maximum(others, 0), normalise).T
    return jax.vmap(lambda used: _from_left_out(left_out, used > 0, shrinkage))(has)


def jackknife_blocks(
    parts: BinSums, num_bins: int, normalise: str = "static", shrinkage: float | None = None
) -> G2Covariance:
    """Errors from the spread over stretches of frames, or over repeated runs, leaving out one at a time.

    **Arguments:** `parts`: the sums of each, stacked along a leading axis (`jax.tree.map(jnp.stack, ...)`, or
    `stacked`); stretches should be much longer than the lags that are wanted. The others as of `jackknife_static`.
    """
    total = combined(parts)

    def without(part: BinSums) -> Float[Array, "lags q"]:
        return _plus(total, part, -1).g2(num_bins, normalise)

    left_out = jax.vmap(without)(parts)
    used = jnp.ones(left_out.shape[0], bool)
    return jax.vmap(lambda x: _from_left_out(x, used, shrinkage), in_axes=2)(left_out)


def stacked(parts: list[BinSums]) -> BinSums:
    """Sums of several stretches or runs with one partition and the same lags, along a leading axis.

    **Raises:** `ValueError` where they do not go together.
    """
    shapes = {tuple(x.shape for x in jax.tree.leaves(part)) for part in parts}
    if len(shapes) != 1:
        raise ValueError("stacked: these sums have other lags or static bins; correlate with one partition and length")
    return jax.tree.map(lambda *x: jnp.stack(x), *parts)


def combined(parts: BinSums) -> BinSums:
    """The sums of stretches or runs that are stacked, as of one: pairs from one to the next are left out."""
    first = jax.tree.map(lambda x: x[0], parts)
    rest = jax.tree.map(lambda x: x[1:], parts)
    total, _ = jax.lax.scan(lambda a, b: (_plus(a, b, 1), None), first, rest)
    return total


def _plus(a: BinSums, b: BinSums, sign: int) -> BinSums:
    pairs, weight = a.counts.pairs + sign * b.counts.pairs, a.counts.weight + sign * b.counts.weight
    counts = Counts(a.counts.lag, a.counts.level, pairs, weight)
    # each pixel counts once however many stretches there are: the weight already says how often it was seen
    pixels, left_out = jnp.maximum(a.pixels, b.pixels), jnp.maximum(a.left_out, b.left_out)
    return BinSums.of(counts, a.six + sign * b.six, pixels, a.dynamic, left_out)


def _from_left_out(left_out: Float[Array, "n lags"], used: Bool[Array, " n"], shrinkage: float | None) -> G2Covariance:
    """Errors from the values without each of the samples."""
    there = used[:, None] & jnp.isfinite(left_out)
    n = jnp.sum(there, axis=0, dtype=left_out.dtype)
    mean = jnp.sum(jnp.where(there, left_out, 0), axis=0) / jnp.maximum(n, 1)
    away = jnp.where(there, left_out - mean[None], 0)
    scale = jnp.sqrt(jnp.sum(away**2, axis=0))
    z = away / jnp.where(scale > 0, scale, 1)[None]
    correlation = jnp.matmul(z.T, z, precision="highest")
    part = _shrinkage(z, jnp.max(n), correlation) if shrinkage is None else jnp.asarray(shrinkage, scale.dtype)
    eye = jnp.eye(scale.shape[0], dtype=bool)
    correlation = jnp.where(eye, 1, (1 - part) * correlation)
    error = jnp.where(n > 1, scale * jnp.sqrt((n - 1) / jnp.maximum(n, 1)), jnp.nan)
    samples = jnp.sum(used, dtype=jnp.int32)
    return G2Covariance(error, error[:, None] * error[None] * correlation, part, samples)


def _shrinkage(
    z: Float[Array, "n lags"], n: Float[Array, ""], correlation: Float[Array, "lags lags"]
) -> Float[Array, ""]:
    """The variance of the correlations over their squares, summed over pairs of lags (Schafer and Strimmer, eq. 10).

    Columns of z have unit length, which are sqrt(n - 1) of those of the paper; the sum of the squared deviations of
    products is written as a matrix product, because products of all pairs of lags for all samples do not fit.
    """
    squares = jnp.matmul((z**2).T, z**2, precision="highest") - correlation**2 / jnp.maximum(n, 1)
    variance = n / jnp.maximum(n - 1, 1) * jnp.maximum(squares, 0)
    off = ~jnp.eye(z.shape[1], dtype=bool)
    total, size = (jnp.sum(jnp.where(off, x, 0)) for x in (variance, correlation**2))
    return jnp.clip(total / jnp.where(size > 0, size, 1), 0, 1)
