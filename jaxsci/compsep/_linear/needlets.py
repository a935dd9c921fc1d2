"""Needlet ILC: linear combinations with weights for each scale and each place of the sky.

Foregrounds differ in scale and in place: near the Galaxy and at low multipoles they are the enemy, elsewhere noise is.
Needlets are bands of multipoles whose maps are local too, so that the least variance can be sought in each
neighbourhood of each band. `nilc` does it with the weights of `ilc` and the transforms of `harmonic`; `needlet_bands`
makes the bands.
"""

from collections.abc import Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Complex, Float

from ...core import Module, place_of
from ...fitting import compiled
from .._fixed import held_spectra
from .._given import Given, plain
from .._healpix import nside_of
from .._instrument import Channels, channel_count, frequencies_of
from .._mixing import MixingMatrix
from .._noise import UNSEEN
from .._sky import Sky
from .harmonic import harmonics, synthesise
from .ilc import least_variance

_WIDE = 0.5  # radian: a neighbourhood of that deviation is nearly the sky
_TAIL = 6.0  # of 1 / deviation, beyond which a Gaussian has no multipoles
_LEAST = 1e-12  # of a channel's variance, added to it: a sky of CMB alone has a covariance of one column


class NeedletCombination(Module):
    """Hold what `nilc` returns.

    - `amplitudes`: (c, s, pixel) maps of the components. `alm`: (c, s, a) of which they are made: T, E and B, or all.
    - `bands`: (j, l) of the needlets. `weights`: of each band (c, s, pixel, f) at the resolution of its maps, RING; of
      one pixel where the neighbourhood is the whole sky. W A = 1 in each.
    - `fsky`: the fraction of the sky that was used. `components`: the names.
    """

    amplitudes: Float[Array, "c s pix"]
    alm: Complex[Array, "c s a"]
    bands: Float[Array, "j ell"]
    weights: tuple[Float[Array, "c s _ f"], ...]
    fsky: Float[Array, ""]
    components: tuple[str, ...] = eqx.field(static=True)

    def component(self, name: str) -> Float[Array, "s pix"]:
        """Give the amplitudes of a component (s, pixel).

        **Raises:** `ValueError` for a name that none has.
        """
        return self.amplitudes[place_of(name, self.components, "component")]


def needlet_bands(peaks: Sequence[int], lmax: int) -> Float[Array, "j ell"]:
    """Make cosine bands of multipoles: each rises from the peak before it and falls to the next.

    h_j(l) = cos(pi/2 (l_j - l) / (l_j - l_(j-1))) below its peak and cos(pi/2 (l - l_j) / (l_(j+1) - l_j)) above it
    (Basak and Delabrouille 2012, MNRAS 419, 1163, eq. 5), 1 below the first and above the last. The squares sum to 1,
    so that filtering twice and adding loses nothing.

    **Arguments:** `peaks`: multipoles l_j, rising, from 0 to lmax. `lmax`: the last multipole.

    **Raises:** `ValueError` for peaks that do not rise, or lie outside.
    """
    at = np.asarray(peaks, float)
    if at.ndim != 1 or not at.size or np.any(np.diff(at) <= 0) or at[0] < 0 or at[-1] > lmax:
        raise ValueError(f"peaks of needlets should rise from 0 on to at most lmax = {lmax}, but they are {peaks}")
    # the angle grows by pi/2 from each peak to the next: neighbours are a cosine and a sine of it
    angle = np.interp(np.arange(lmax + 1.0), at, np.arange(at.size)) - np.arange(at.size)[:, None]
    return jnp.asarray(np.where(np.abs(angle) < 1, np.cos(np.pi / 2 * angle), 0.0))


def nilc(
    mixing: MixingMatrix,
    instrument: Channels,
    maps: Given,
    *,
    peaks: Sequence[int] | None = None,
    bias: float = 0.02,
    lmax: int | None = None,
    mask: Given | None = None,
    fwhm: Given | None = None,
    nest: bool = False,
    iterations: int = 3,
) -> NeedletCombination:
    """Combine channels as `ilc` does, with weights for each scale and place of T, E and B.

    The coefficients are cut into needlet bands; in each the covariance of the channels is that of a neighbourhood, with
    Gaussian weights just wide enough that chance correlations take no more than `bias` of the variance of a component
    with them; the combined bands are filtered once more and added (Delabrouille et al. 2009, A&A 493, 835).

    **Arguments:** as in `harmonic_ilc`. `peaks`: as in `needlet_bands`; by default 0, 8, 16, 32, ... up to lmax.
    `bias`: (f - c) over the modes of a neighbourhood, at most; where the sky has too few, it is one neighbourhood.

    **Raises:** as `ilc` and `needlet_bands`; `ValueError` also for a band with fewer modes than channels.
    """
    import healpy

    nu = frequencies_of(instrument)
    data = Sky.of(instrument, maps, np.ones(channel_count(nu)), units="", strict=False).data
    found = harmonics(data, lmax=lmax, mask=mask, fwhm=fwhm, nest=nest, iterations=iterations)
    ell, fsky = np.asarray(found.ell), float(found.fsky)
    last, f = int(ell.max()), data.shape[0]
    if not 0 < bias < 1:
        raise ValueError(f"bias should lie between 0 and 1, but it is {bias}")
    bands = needlet_bands(_octaves(last) if peaks is None else peaks, last)
    A = held_spectra(mixing, nu)
    seen = _seen(np.asarray(data), mask, nest)
    alm = np.asarray(found.alm)
    c, s, whole = A.shape[1], data.shape[1], np.zeros((A.shape[1], *alm.shape[1:]), complex)
    weights = []
    for band in np.asarray(bands):
        modes = float(np.sum((2 * np.arange(last + 1) + 1) * band**2)) * fsky
        if modes <= f:
            raise ValueError(f"a band of needlets has {modes:.0f} modes for {f} channels: give fewer peaks")
        highest = int(np.flatnonzero(band > 0)[-1])
        nside = min(nside_of(data.shape[2]), _resolution(highest))
        inside = healpy.ud_grade(seen, nside) > 0.5
        deviation = float(np.sqrt((f - c) / (bias * modes)))
        rows = []
        for stokes in range(s):
            cut = [healpy.resize_alm(one, last, last, highest, highest) for one in alm[:, stokes] * band[ell]]
            local = np.stack([healpy.alm2map(one, nside, lmax=highest) for one in cut])
            covariance = _neighbourhoods(local, inside, deviation)
            rows.append(compiled(_weights, (A, jnp.asarray(covariance))))
            each = np.broadcast_to(np.asarray(rows[-1]), (c, local.shape[1], f))
            combined = np.einsum("cpf,fp->cp", each, local)
            for k in range(c):
                back = healpy.map2alm(combined[k], lmax=highest, iter=iterations)
                whole[k, stokes] += band[ell] * healpy.resize_alm(back, highest, highest, last, last)
        weights.append(jnp.stack(rows, axis=1))
    amplitudes = jnp.stack([synthesise(one, nside_of(data.shape[2]), nest=nest) for one in whole])
    return NeedletCombination(amplitudes, jnp.asarray(whole), bands, tuple(weights), found.fsky, mixing.columns)


def _octaves(lmax: int) -> list[int]:
    """Peaks that double, the first at 0 and the last at lmax."""
    found = [0, *(2**k for k in range(3, 20) if 2**k < lmax)]
    return [*found, lmax]


def _resolution(highest: int) -> int:
    """The least nside whose pixels hold a band up to this multipole without loss."""
    return max(2 ** int(np.ceil(np.log2(max(highest, 1) / 2))), 1)


def _seen(data: np.ndarray, mask: Given | None, nest: bool) -> np.ndarray:
    """1.0 in the pixels that are used (pixel,), RING."""
    import healpy

    seen = np.all(data > 0.99 * UNSEEN, axis=(0, 1)) & (
        True if mask is None else np.asarray(plain(mask, "mask", fill=0)) > 0
    )
    return np.asarray(healpy.reorder(seen.astype(float), n2r=True) if nest else seen, float)


def _neighbourhoods(local: np.ndarray, inside: np.ndarray, deviation: float) -> np.ndarray:
    """The covariance (pixel, f, f) of maps (f, pixel) around each pixel, or that of all (1, f, f) where that is wide.

    Gaussian weights of this deviation, radian, have as many independent places as an area of 4 pi deviation^2: the
    fraction deviation^2 of the sky. They are the heat kernel of the sphere, nowhere negative, so that no variance is.
    """
    import healpy

    f, npix = local.shape
    if deviation > _WIDE:
        return (local[:, inside] @ local[:, inside].T / inside.sum())[None]
    lmax = min(3 * nside_of(npix) - 1, int(np.ceil(_TAIL / deviation)))

    ell = np.arange(lmax + 1)
    kernel = np.exp(-ell * (ell + 1) * deviation**2 / 2)

    def smooth(rows: np.ndarray) -> np.ndarray:
        # without iterations the quadrature is a plain sum over pixels, and the kernel what it should be
        alm = healpy.map2alm(np.where(inside, rows, 0), lmax=lmax, iter=0)
        return healpy.alm2map(healpy.almxfl(alm, kernel), nside_of(npix))

    share = np.maximum(smooth(inside.astype(float)), 1e-3)
    out = np.empty((npix, f, f))
    for i in range(f):
        for j in range(i + 1):
            out[:, i, j] = out[:, j, i] = smooth(local[i] * local[j]) / share
    return out


def _weights(A: Float[Array, "f c"], covariance: Float[Array, "n f f"]) -> Float[Array, "c n f"]:
    def one(covariance: Array) -> Array:
        return least_variance(A, covariance + _LEAST * jnp.diag(jnp.diagonal(covariance)))

    return jnp.moveaxis(jax.vmap(one)(covariance), 1, 0)
