"""Maps of all channels at one resolution, and what that does to their noise.

Fits of single pixels and linear combinations with one set of weights take channels that see the sky through the same
beam. Smoothing narrower ones to the widest is what brings them there; fits of coefficients (`harmonic_comp_sep`) need
it not. `common_resolution` is the door, a config's `sky.resolution` calls it; the transforms are those of `harmonic`.
"""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ...core import Module
from .._given import Given, plain
from .._healpix import nside_of
from .._noise import UNSEEN
from .harmonic import harmonics, synthesise

_ARCMIN = np.pi / 180 / 60


class Smoothed(Module):
    """Hold maps of one resolution, as `common_resolution` returns them.

    - `maps`: (f, s, pixel), UNSEEN where they were. `transfer`: (f, s, l) by what each multipole was multiplied.
    - `noise`: (f, s) by what the standard deviation of a pixel's white noise was multiplied.
    - `fwhm`: of all channels now, arcmin.
    """

    maps: Float[Array, "f s pix"]
    transfer: Float[Array, "f s ell"]
    noise: Float[Array, "f s"]
    fwhm: Float[Array, ""]


def common_resolution(
    maps: Given,
    fwhm_in: Given,
    fwhm_out: float | None = None,
    *,
    lmax: int | None = None,
    nest: bool = False,
    iterations: int = 3,
) -> Smoothed:
    """Smooth maps so that all channels have one Gaussian beam: a_lm times b_l(out) / b_l(in).

    Noise changes: what was white becomes correlated between pixels up to the width of the beam, and smaller, by the
    factor `noise` of a pixel's standard deviation, whose square is sum (2l + 1) (b_l(out) / b_l(in))^2 / npix. Weights
    `1 / (noise * sigma)**2` give sound estimates of one pixel, but chi2 of many pixels no longer counts as many
    independent numbers, and errors of patches and of the whole sky from it are too small, by about the root of the
    pixels of a beam. Where that matters take `harmonic_comp_sep`. Beams of spin 2 are those of Challinor et al. 2000,
    Phys. Rev. D 62, 123002.

    **Arguments:** `maps`: (f, s, pixel), a whole sphere; s is 1 (I), 2 (QU) or 3 (IQU). UNSEEN pixels count as 0 in the
    smoothing and stay UNSEEN, so that within a beam of them maps are drawn towards 0: mask there. `fwhm_in`: (f,) of
    the beams, arcmin, 0 for none. `fwhm_out`: arcmin; by default the widest of them. `lmax`: 3 nside - 1 by default;
    what lies beyond is lost. `nest`: NESTED order. `iterations`: of the quadrature, as in healpy.

    **Raises:** `ValueError` for a beam narrower than any that is there, since that would blow up noise, for wrong
    shapes, and what `harmonics` raises; `ModuleNotFoundError` without healpy, which `pip install 'jaxsci[sky]'` brings.
    """
    import healpy

    data = np.array(plain(maps, "maps", fill=UNSEEN), float)
    data = data[:, None] if data.ndim == 2 else data
    if data.ndim != 3 or data.shape[1] not in (1, 2, 3):
        raise ValueError(f"maps should have shape (f, s, pixel) with s = 1, 2 or 3, but they have {data.shape}")
    f, s, npix = data.shape
    nside = nside_of(npix)
    lmax = 3 * nside - 1 if lmax is None else lmax
    widths = np.asarray(plain(fwhm_in, "fwhm_in", "arcmin"), float)
    if widths.shape != (f,) or not np.all(np.isfinite(widths) & (widths >= 0)):
        raise ValueError(f"fwhm_in should be {f} widths of beams in arcmin, but they are {widths}")
    out = float(widths.max() if fwhm_out is None else plain(fwhm_out, "fwhm_out", "arcmin"))
    if not out >= widths.max():
        raise ValueError(
            f"fwhm_out is {out:g} arcmin, but a channel has a beam of {widths.max():g}: give at least that"
        )

    # the ratio of two Gaussian beams is one of them: as a quotient it would be 0 / 0 at high multipoles
    rows_of = {1: [0], 2: [1, 2], 3: [0, 1, 2]}[s]
    lacking = np.sqrt(out**2 - widths**2) * _ARCMIN
    transfer = np.stack([healpy.gauss_beam(width, lmax, pol=True).T[rows_of] for width in lacking])
    ell = healpy.Alm.getlm(lmax)[0]
    smooth = np.empty_like(data)
    for channel, rows in enumerate(data):
        # one by one: a hole in one channel is none in the others
        for stokes in [slice(0, 1), slice(1, 3)] if s == 3 else [slice(0, s)]:
            seen = np.all(rows[stokes] > 0.99 * UNSEEN, axis=0)
            modes = harmonics(rows[None, stokes], lmax=lmax, mask=seen, nest=nest, iterations=iterations)
            filtered = np.asarray(modes.alm[0]) * transfer[channel, stokes][:, ell]
            smooth[channel, stokes] = np.where(seen, synthesise(filtered, nside, nest=nest), UNSEEN)
    # noise of spin 2 has no multipoles below 2
    counts = np.stack(
        [(2 * np.arange(lmax + 1) + 1) * (np.arange(lmax + 1) >= (0 if s != 2 and k == 0 else 2)) for k in range(s)]
    )
    noise = np.sqrt(np.sum(counts[None] * transfer**2, axis=-1) / npix)
    return Smoothed(jnp.asarray(smooth), jnp.asarray(transfer), jnp.asarray(noise), jnp.asarray(out))
