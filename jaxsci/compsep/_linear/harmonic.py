"""Separation of spherical harmonic coefficients, where each multipole has noise or weights of its own.

Channels with beams of different widths see different multipoles; a combination or a fit of coefficients uses each where
it resolves the sky, which maps smoothed to the widest beam cannot. `harmonic_ilc` combines, `harmonic_comp_sep` fits,
and the forecasts use both transforms and weights. The transforms are healpy's, imported inside the functions:
`pip install 'jaxsci[sky]'`.
"""

from collections.abc import Mapping
from typing import Any, Unpack

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Complex, Float, Int

from ...core import Module, as_count, place_of
from ...fitting import RESULTS, compiled
from .._fixed import FixedMaps, held_spectra
from .._given import Given, plain
from .._healpix import nside_of
from .._instrument import Channels, Frequencies, Instrument, channel_count, frequencies_of
from .._mixing import MixingMatrix
from .._noise import UNSEEN
from .._patches import Where
from .._separate import separate
from .._separation import Separation
from .._settings import FitOptions
from .._sky import STOKES, Sky
from .ilc import Combination, Weights, least_variance

_ARCMIN = np.pi / 180 / 60


class Harmonics(Module):
    """Hold spherical harmonic coefficients of maps: T, or E and B, or T, E, B, with m >= 0 as healpy orders them.

    - `alm`: (f, s, a), complex. `ell`: (a,) the multipole of each; `twice`: (a,) 1 for m = 0, else 2.
    - `fsky`: the fraction of the sky in use, by which spectra are divided.
    """

    alm: Complex[Array, "f s a"]
    ell: Int[Array, " a"]
    twice: Float[Array, " a"]
    fsky: Float[Array, ""]

    def spectrum(self, other: "Harmonics | None" = None) -> Float[Array, "f f s ell"]:
        """Compute cross spectra of the channels: sum_m a_lm a'_lm^* / (2 l + 1) / fsky."""
        return compiled(_spectra, (self, self if other is None else other), (int(np.max(np.asarray(self.ell))),))


def harmonics(
    maps: Given,
    *,
    lmax: int | None = None,
    mask: Given | None = None,
    fwhm: Given | None = None,
    nest: bool = False,
    iterations: int = 3,
) -> Harmonics:
    """Transform maps to spherical harmonic coefficients.

    **Arguments:** `maps`: (f, s, pixel), a whole sphere; s is 1 (I), 2 (QU) or 3 (IQU). UNSEEN counts as masked.
    `lmax`: 2 nside by default. `mask`: weights of pixels, 1 (or True) = used. `fwhm`: (f,) of Gaussian beams to divide
    by, arcmin. `nest`: NESTED order. `iterations`: of the quadrature, as in healpy.

    **Raises:** `ValueError` for wrong shapes, complex numbers, quantities of astropy (no unit is declared: take their
    `.to_value`), and where no pixel is left.
    """
    import healpy

    data = np.array(plain(maps, "maps", fill=UNSEEN), float)
    data = data[:, None] if data.ndim == 2 else data
    f, s, npix = data.shape
    nside = nside_of(npix)
    # below 2 there is no polarisation, and the library under healpy ends the process
    lmax = as_count(2 * nside if lmax is None else lmax, "lmax, the last multipole,", 2 if s > 1 else 0)
    weight = np.ones(npix) if mask is None else np.asarray(plain(mask, "mask", fill=0), float)
    if weight.shape != (npix,):
        raise ValueError(f"mask should have {npix} pixels, but it has shape {weight.shape}")
    weight = np.where(np.any(~(data > 0.99 * UNSEEN), axis=(0, 1)), 0, weight)
    if not np.any(weight > 0):
        raise ValueError("no pixel is left: every one is masked, UNSEEN or NaN")
    data = np.where(weight > 0, data * weight, 0)
    if nest:
        data = healpy.reorder(data.reshape(f * s, npix), n2r=True).reshape(data.shape)
    ell = healpy.Alm.getlm(lmax)[0]
    widths = [] if fwhm is None else np.asarray(plain(fwhm, "fwhm", "arcmin"), float).tolist()
    beams = np.ones((f, lmax + 1)) if fwhm is None else np.stack([healpy.gauss_beam(b * _ARCMIN, lmax) for b in widths])
    alm = np.stack([_analyse(one, lmax, iterations) for one in data]) / beams[:, None, ell]
    twice = np.where(healpy.Alm.getlm(lmax)[1] == 0, 1.0, 2.0)
    # the square: what a weighted sky keeps of a spectrum; 1 for the whole sky
    return Harmonics(jnp.asarray(alm), jnp.asarray(ell), jnp.asarray(twice), jnp.asarray(np.mean(weight**2)))


def _analyse(maps: np.ndarray, lmax: int, iterations: int) -> np.ndarray:
    import healpy

    if len(maps) == 1:
        return healpy.map2alm(maps[0], lmax=lmax, iter=iterations)[None]
    full = maps if len(maps) == 3 else np.concatenate([np.zeros_like(maps[:1]), maps])
    return healpy.map2alm(full, lmax=lmax, iter=iterations, pol=True)[-len(maps) :]


def synthesise(alm: Given, nside: int, *, nest: bool = False) -> Float[Array, "s pix"]:
    """Transform coefficients to maps of a resolution.

    **Arguments:** `alm`: (s, a) as in `Harmonics`: T, or E and B, or T, E, B. `nest`: NESTED order in place of RING.

    **Returns:** (s, pixel): I, or Q and U, or I, Q, U.
    """
    import healpy

    rows = np.asarray(alm)
    lmax = healpy.Alm.getlmax(rows.shape[-1])
    if len(rows) == 1:
        maps = healpy.alm2map(rows[0], nside, lmax=lmax)[None]
    else:
        full = rows if len(rows) == 3 else np.concatenate([np.zeros_like(rows[:1]), rows])
        maps = np.asarray(healpy.alm2map(list(full), nside, lmax=lmax, pol=True))[-len(rows) :]
    return jnp.asarray(healpy.reorder(maps, r2n=True) if nest else maps)


def harmonic_ilc(
    mixing: MixingMatrix,
    instrument: Channels,
    maps: Given,
    *,
    bins: Given | None = None,
    lmax: int | None = None,
    mask: Given | None = None,
    fwhm: Given | None = None,
    nest: bool = False,
    iterations: int = 3,
) -> Combination:
    """Combine channels as `ilc` does, with weights for each band of multipoles of T, E and B.

    Tegmark, de Oliveira-Costa and Hamilton 2003, Phys. Rev. D 68, 123523.

    **Arguments:** as in `ilc` and `harmonics`; `bins`: (l + 1,) or fewer integers, the band of each multipole,
    negative for none; by default bands of 10 from l = 2 on.

    **Returns:** a `Combination` whose regions are bands of multipoles, `count` their modes, `region` that of each
    multipole. Its maps are I, Q, U again, without the multipoles of no band.

    **Raises:** as `ilc`; `ValueError` also for bands with fewer modes than channels.
    """
    nu = frequencies_of(instrument)
    data = Sky.of(instrument, maps, np.ones(channel_count(nu)), units="", strict=False).data
    found = harmonics(data, lmax=lmax, mask=mask, fwhm=fwhm, nest=nest, iterations=iterations)
    ell = np.asarray(found.ell)
    band = _bands(bins, int(ell.max()))
    count = np.bincount(band[band >= 0], weights=(2 * np.arange(len(band)) + 1)[band >= 0]).astype(int)
    few = np.flatnonzero(count * float(found.fsky) <= data.shape[0])
    if len(few):
        raise ValueError(f"band {few[0]} has {count[few[0]]} modes for {data.shape[0]} channels: make it wider")
    args = held_spectra(mixing, nu), found, jnp.asarray(band), jnp.asarray(count)
    made = compiled(_combine_alm, args)
    nside = nside_of(data.shape[2])
    whole = jnp.stack([synthesise(rows, nside, nest=nest) for rows in made.amplitudes])
    return Combination(whole, made.weights, made.covariance, args[3], args[2], found.fsky, mixing.columns)


def _bands(bins: Given | None, lmax: int) -> np.ndarray:
    if bins is None:
        found = (np.arange(lmax + 1) - 2) // 10
        found[:2] = -1
        width = np.bincount(found[2:])
        return np.where(found == len(width) - 1, found - (width[-1] < 5 and len(width) > 1), found)
    found = np.asarray(bins)
    if found.ndim != 1 or not np.issubdtype(found.dtype, np.integer):
        raise ValueError(f"bins should be an integer for each multipole, but they are {found.dtype}{list(found.shape)}")
    return np.pad(found[: lmax + 1], (0, max(lmax + 1 - len(found), 0)), constant_values=-1)


def _combine_alm(A: Array, found: Harmonics, band: Array, count: Array) -> Weights:
    r, (f, s, _) = count.shape[0], found.alm.shape
    place = jnp.where(band[found.ell] >= 0, band[found.ell], r)

    def row(one: Array) -> Array:
        product = (jnp.conj(one)[None] * found.alm).real * found.twice[None, None]
        flat = product.reshape(f * s, -1)
        return jax.vmap(lambda x: jax.ops.segment_sum(x, place, r + 1)[:r])(flat).reshape(f, s, r)

    covariance = (
        jnp.moveaxis(jax.lax.map(row, found.alm), (2, 3), (0, 1))
        / (count.astype(float) * found.fsky)[None, :, None, None]
    )
    weights = jnp.moveaxis(jax.vmap(jax.vmap(lambda c: least_variance(A, c)))(covariance), 2, 0)
    each = jnp.pad(weights, [(0, 0), (0, 0), (0, 1), (0, 0)])[:, :, place]
    alm = jnp.einsum("csaf,fsa->csa", each.astype(found.alm.dtype), found.alm)
    return Weights(alm, weights, covariance)


def _spectra(one: Harmonics, other: Harmonics, lmax: int) -> Array:
    # a channel at a time: all cross products at once would be f times the coefficients
    def row(a: Array) -> Array:
        product = (a[None] * jnp.conj(other.alm)).real * one.twice[None, None]
        flat = product.reshape(-1, product.shape[-1])
        sums = jax.vmap(lambda x: jax.ops.segment_sum(x, one.ell, lmax + 1))(flat)
        return sums.reshape(*product.shape[:-1], lmax + 1)

    modes = 2.0 * jnp.arange(lmax + 1).astype(float) + 1
    return jax.lax.map(row, one.alm) / (modes * one.fsky)[None, None, None]


class HarmonicOptions(FitOptions, total=False):
    """Keyword arguments of `separate` that make sense for multipoles."""

    patches: Mapping[str, Where] | Where
    fixed: FixedMaps | None


class HarmonicSeparation(Module):
    """Hold the component maps of a fit in the harmonic domain.

    - `amplitudes`: (c, s, pixel) I, Q, U of each component, its beams divided out, without multipoles below lmin and
      above lmax. `alm`: (c, s, a) their coefficients, in the order of `Harmonics`.
    - `separation`: the fit. Its pixels are real coefficients (a_l0, and the root of 2 times the real and imaginary
      parts of the others), of multipole `ell`; its Q and U are E and B. `fsky`: the fraction of the sky in use.
    """

    amplitudes: Float[Array, "c s pix"]
    alm: Complex[Array, "c s a"]
    separation: Separation
    ell: Int[Array, " real"]
    fsky: Float[Array, ""]
    components: tuple[str, ...] = eqx.field(static=True)

    def component(self, name: str) -> Float[Array, "s pix"]:
        """Give the maps of a component (s, pixel).

        **Raises:** `ValueError` for a name that none has.
        """
        return self.amplitudes[place_of(name, self.components, "component")]


def harmonic_comp_sep(
    mixing: MixingMatrix,
    instrument: Channels,
    data: Given,
    *,
    lmin: int = 2,
    lmax: int | None = None,
    inv_n: Given | None = None,
    mask: Given | None = None,
    fwhm: Given | None = None,
    nest: bool = False,
    iterations: int = 3,
    **choices: Unpack[HarmonicOptions],
) -> HarmonicSeparation:
    """Separate spherical harmonic coefficients, channels brought to one resolution by their beams.

    A channel weighs by noise over beam squared, so that each keeps the multipoles that it resolves, which maps smoothed
    to the widest beam do not. Under a mask coefficients are not independent; they are then weighted as pixels would be.

    **Arguments:** `data`: (f, s, pixel), a whole sphere; s is 1 (I), 2 (QU) or 3 (IQU). `lmin`, `lmax`: multipoles that
    are used, up to 2 nside by default. `inv_n`: (f, lmax + 1) of inverse power spectra of the noise, beams divided out,
    or (f, f, lmax + 1) of inverse matrices; `None` takes the instrument's depths. `mask`, `nest`, `iterations`: as in
    `harmonics`. `fwhm`: (f,) of the beams, arcmin; the instrument's by default. `choices`: as in `separate`.

    **Raises:** `ValueError` as `separate` and `harmonics`.
    """
    nu, units = frequencies_of(instrument), choices.get("units", "uK_CMB")
    # the noise is of multipoles, not of pixels, and a NaN counts as masked where maps are transformed
    maps = Sky.of(instrument, data, np.ones(channel_count(nu)), units=units, strict=False).data
    fwhm = instrument.fwhm if fwhm is None and isinstance(instrument, Instrument) else fwhm
    modes = harmonics(maps, lmax=lmax, mask=mask, fwhm=fwhm, nest=nest, iterations=iterations)
    last = int(np.max(np.asarray(modes.ell)))
    weights = _stacked(inv_n, instrument, fwhm, (maps.shape[0], maps.shape[1]), last + 1, units)
    found, ell = fit_modes(mixing, nu, modes, weights, lmin, choices)
    code: Any = RESULTS
    # what was not used is 0, but a spectrum that is not finite makes no map
    senseless = jnp.any(found.result == code.nonfinite_start._value)
    alm = jnp.where(senseless, jnp.nan, _complex(found.amplitudes, modes, lmin))
    nside = nside_of(maps.shape[2])
    whole = jnp.stack([synthesise(rows, nside, nest=nest) for rows in alm])
    return HarmonicSeparation(whole, alm, found, ell, modes.fsky, mixing.columns)


def harmonic_weights(instrument: Channels, stokes: str, fwhm: Given | None, lmax: int) -> Float[Array, "f ell"]:
    """1 / N_l in 1/uK_CMB^2: the beam squared over the squared depth."""
    if not isinstance(instrument, Instrument):
        raise ValueError("give the inverse noise inv_n, or an Instrument with depths")
    sigma = instrument.sigma(12, stokes)[:, 0]
    ell = jnp.arange(lmax + 1.0)
    width = jnp.zeros_like(sigma) if fwhm is None else jnp.asarray(fwhm, float) * (_ARCMIN / np.sqrt(8 * np.log(2)))
    beam = jnp.exp(-(ell * (ell + 1))[None, :] * width[:, None] ** 2)
    return jnp.where(jnp.isnan(sigma), 0, 12 / (4 * np.pi * sigma**2))[:, None] * beam


def _stacked(
    inv_n: Given | None, instrument: Channels, fwhm: Given | None, shape: tuple[int, int], count: int, units: str
) -> Array:
    """Inverse noise of each Stokes parameter: (f, s, l), or (s, f, f, l) for matrices."""
    f, s = shape
    if inv_n is None:
        return jnp.stack([harmonic_weights(instrument, letter, fwhm, count - 1) for letter in STOKES[s]], axis=1)
    power = jnp.asarray(plain(inv_n, "inv_n", units, fill=0.0, power=-2), float)
    if power.shape == (f, count):
        return jnp.broadcast_to(power[:, None], (f, s, count))
    if power.shape == (f, f, count):
        return jnp.broadcast_to(power, (s, f, f, count))
    raise ValueError(f"the inverse noise has shape {power.shape}, but it should be {(f, count)} or {(f, f, count)}")


def fit_modes(
    mixing: MixingMatrix, nu: Frequencies, modes: Harmonics, weights: Array, lmin: int, choices: HarmonicOptions
) -> tuple[Separation, Int[Array, " real"]]:
    """(the fit to real coefficients from lmin on, the multipole of each).

    **Arguments:** `weights`: inverse power spectra of the noise (f, s, l), or matrices (s, f, f, l).
    """
    ell, twice = np.asarray(modes.ell), np.asarray(modes.twice)
    real = np.concatenate([ell, ell[twice > 1]])
    kept = real >= lmin
    if not kept.any():
        raise ValueError(f"no multipole is left: lmin is {lmin}, but lmax is {ell.max()}")
    scaled = np.asarray(modes.alm) * np.sqrt(twice)
    columns = np.concatenate([scaled.real, scaled.imag[..., twice > 1]], axis=-1)[..., kept]
    return separate(mixing, nu, columns, inv_n=weights[..., real[kept]], **choices), jnp.asarray(real[kept])


def _complex(columns: Float[Array, "c s real"], modes: Harmonics, lmin: int) -> Complex[Array, "c s a"]:
    """Coefficients of real ones, 0 below lmin."""
    ell, twice = np.asarray(modes.ell), np.asarray(modes.twice)
    kept = np.concatenate([ell, ell[twice > 1]]) >= lmin
    full = np.zeros((*columns.shape[:2], len(kept)))
    full[..., kept] = np.nan_to_num(np.asarray(columns))
    alm = full[..., : len(ell)].astype(complex)
    alm.imag[..., twice > 1] = full[..., len(ell) :]
    return jnp.asarray(alm / np.sqrt(twice))
