"""Internal linear combination: what is known of one component's spectrum, and nothing of the others.

The channels are combined with the weights of least variance among those that keep the wanted component, estimated from
the maps themselves over each region. `harmonic_ilc` does the same for bands of multipoles, with the algebra below.
"""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from ...core import Module, place_of
from ...core.linalg import cholesky, triangular_inverse
from ...fitting import compiled
from .. import algebra
from .._fixed import held_spectra
from .._given import Given, plain
from .._instrument import Channels, channel_count, frequencies_of
from .._mixing import MixingMatrix
from .._sky import Sky


class Combination(Module):
    """Hold linear combinations of channels, as `ilc` and `harmonic_ilc` return them.

    - `amplitudes`: (c, s, pixel), NaN where no region reaches. `components`: their names.
    - `weights`: (c, s, r, f) of each component, Stokes parameter and region; W A = 1. `covariance`: (s, r, f, f), the
      empirical one of the channels. `count`: pixels (or modes) of each region. `region`: of each pixel, or -1.
    - `fsky`: the fraction of the sky that was used.
    """

    amplitudes: Float[Array, "c s pix"]
    weights: Float[Array, "c s r f"]
    covariance: Float[Array, "s r f f"]
    count: Int[Array, " r"]
    region: Int[Array, " place"]
    fsky: Float[Array, ""]
    components: tuple[str, ...] = eqx.field(static=True)

    def component(self, name: str) -> Float[Array, "s pix"]:
        """Give the amplitudes of a component (s, pixel).

        **Raises:** `ValueError` for a name that none has.
        """
        return self.amplitudes[place_of(name, self.components, "component")]


class Weights(NamedTuple):
    """Weights of channels (c, s, r, f), the covariance (s, r, f, f) that they follow from, and what they make."""

    amplitudes: Array
    weights: Array
    covariance: Array


def ilc(
    mixing: MixingMatrix,
    instrument: Channels,
    maps: Given,
    *,
    regions: Given | None = None,
    mask: Given | None = None,
    pooled: bool = False,
) -> Combination:
    """Combine channels with the least variance that keeps the components and rejects all else.

    W = (A^T C^-1 A)^-1 A^T C^-1 with the empirical covariance C of the channels over a region (Bennett et al. 2003,
    ApJS 148, 97; with several columns: Remazeilles et al. 2011, MNRAS 410, 2481). Chance correlations of f channels
    over n pixels take (f - c) / n of a component's variance with them. Works under `jax.jit` and `jax.vmap` over maps.

    **Arguments:** `mixing`: what is kept, such as `MixingMatrix(cmb=CMB())`; its parameters are not fitted.
    `instrument`: an `Instrument`, frequencies in GHz, or `Bands`. `maps`: (f, s, pixel) or (f, pixel); UNSEEN masks.
    `regions`: an integer for each pixel, negative for none; by default the whole sky is one. `mask`: True = used.
    `pooled`: Q and U have one set of weights, those of the least mean of Q^2 + U^2 (Fernandez-Cobos et al. 2016, MNRAS
    459, 441, with real weights), in place of one each. The answer is then the same sky whatever basis Q and U refer to,
    one that turns from pixel to pixel included; so no mean of Q or U is taken off, which has no sense in such a basis.

    **Raises:** `ValueError` for wrong shapes, NaN in pixels in use, regions with fewer pixels than channels, a mixing
    matrix that is not finite, complex numbers, quantities of astropy, since no unit is declared (`.to_value`), and
    `pooled` without Q and U.
    """
    nu = frequencies_of(instrument)
    # every channel counts alike: their covariance, noise and all, is found from the maps
    sky = Sky.of(instrument, maps, np.ones(channel_count(nu)), mask, units="", strict=False)
    if pooled and sky.shape[1] == 1:
        raise ValueError("pooled weights are those of Q and U together, but the maps have one Stokes parameter")
    region, count = _regions(sky, regions)
    label = jnp.asarray(region)
    kept = jnp.where((label >= 0)[None, None], jnp.asarray(sky.data), 0)
    found = compiled(_combine, (held_spectra(mixing, nu), kept, label, jnp.asarray(count)), (pooled,))
    fsky = jnp.array(np.mean(region >= 0))
    parts = found.amplitudes, found.weights, found.covariance
    return Combination(*parts, jnp.asarray(count), label, fsky, mixing.columns)


def least_variance(A: Float[Array, "f c"], covariance: Float[Array, "f f"]) -> Float[Array, "c f"]:
    """W = (A^T C^-1 A)^-1 A^T C^-1, for channels of any scale; NaN where C is singular."""
    # channels of dust are orders of magnitude brighter than those of the CMB: a unit diagonal keeps the digits
    scale = 1 / jnp.sqrt(jnp.diagonal(covariance))
    factor, ok = cholesky(covariance * scale[:, None] * scale[None, :])
    whiten = triangular_inverse(jnp.where(ok, factor, jnp.eye(len(scale), dtype=A.dtype))) * scale[None, :]
    return jnp.where(ok, algebra.W(whiten @ A) @ whiten, jnp.nan)


def _regions(sky: Sky, regions: Given | None) -> tuple[np.ndarray, np.ndarray]:
    """(the region of each pixel, or -1; how many pixels each has)."""
    f, _, npix = sky.shape
    region = np.zeros(npix, np.int64) if regions is None else np.asarray(plain(regions, "regions", fill=-1))
    if region.shape != (npix,) or not np.issubdtype(region.dtype, np.integer):
        raise ValueError(f"regions should be {npix} integers, but they are {region.dtype}{list(region.shape)}")
    region = np.where(sky.within(region >= 0).sound().used, region, -1)
    count = np.bincount(region[region >= 0], minlength=max(region.max(initial=-1) + 1, 1))
    few = np.flatnonzero(count <= f)
    if len(few):
        raise ValueError(
            f"region {few[0]} has {count[few[0]]} pixels in use for {f} channels: a covariance takes more than {f}; "
            "number regions from 0 on, and make them larger"
        )
    return region, count


def _combine(A: Array, data: Array, region: Array, count: Array, pooled: bool) -> Weights:
    r = count.shape[0]
    place = jnp.where(region >= 0, region, r)  # one region more for what is not used
    size, inside = count.astype(data.dtype), (region >= 0)[None, None]

    def total(rows: Array) -> Array:
        """(..., pixel) summed over regions (..., r)."""
        flat = rows.reshape(-1, rows.shape[-1])
        return jax.vmap(lambda x: jax.ops.segment_sum(x, place, r + 1)[:r])(flat).reshape(*rows.shape[:-1], r)

    mean = total(data) / size[None, None]
    if pooled:
        mean = mean.at[:, -2:].set(0)
    level = jnp.pad(mean, [(0, 0), (0, 0), (0, 1)])[:, :, place]
    centred = jnp.where(inside, data - level, 0)
    # a row at a time: all products of channels at once would be f times the sky
    rows = jax.lax.map(lambda one: total(one[None] * centred), centred)  # (f, f, s, r)
    covariance = jnp.moveaxis(rows, (2, 3), (0, 1)) / (size - 1)[None, :, None, None]
    if pooled:
        # the mean of Q and U has one degree of freedom for each pixel: nothing was taken off
        both = jnp.mean(covariance[-2:], axis=0) * ((size - 1) / size)[:, None, None]
        covariance = covariance.at[-2:].set(both[None])
    weights = jax.vmap(jax.vmap(lambda c: least_variance(A, c)))(covariance)  # (s, r, c, f)
    weights = jnp.moveaxis(weights, 2, 0)
    each = jnp.pad(weights, [(0, 0), (0, 0), (0, 1), (0, 0)])[:, :, place]
    amplitudes = jnp.where(inside, jnp.einsum("cspf,fsp->csp", each, data), jnp.nan)
    return Weights(amplitudes, weights, covariance)
