"""Spectra fitted to spherical harmonic coefficients, where each multipole has noise of its own."""

from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Complex, Float, Int

from ..core import Module, place_of
from ..fitting import RESULTS
from ._bandpass import as_frequencies, channel_count
from ._given import plain
from ._harmonic import Harmonics, harmonics, synthesise
from ._healpix import nside_of
from ._instrument import Instrument
from ._mixing import MixingMatrix
from ._noise import UNSEEN
from ._separate import separate
from ._separation import Separation

_ARCMIN = np.pi / 180 / 60


class HarmonicSeparation(Module):
    """Component maps of a fit in the harmonic domain.

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
        """The map of a component.

        **Raises:** `ValueError` for a name that none has.
        """
        return self.amplitudes[place_of(name, self.components, "component")]


def harmonic_comp_sep(
    mixing: MixingMatrix,
    instrument: Any,
    data: Any,
    *,
    lmin: int = 2,
    lmax: int | None = None,
    inv_n: Any = None,
    mask: Any = None,
    fwhm: Any = None,
    nest: bool = False,
    iterations: int = 3,
    **choices: Any,
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
    nu = as_frequencies(instrument.nu if isinstance(instrument, Instrument) else instrument)
    units = choices.get("units", "uK_CMB")
    maps = np.asarray(plain(data, "data", units, fill=UNSEEN), float)
    maps = maps[:, None] if maps.ndim == 2 else maps
    if maps.ndim != 3 or maps.shape[0] != channel_count(nu) or maps.shape[1] > 3:
        raise ValueError(f"maps should have shape ({channel_count(nu)}, s, pixel), but they have {np.shape(data)}")
    fwhm = instrument.fwhm if fwhm is None and isinstance(instrument, Instrument) else fwhm
    modes = harmonics(maps, lmax=lmax, mask=mask, fwhm=fwhm, nest=nest, iterations=iterations)
    last = int(np.max(np.asarray(modes.ell)))
    weights = _stacked(inv_n, instrument, fwhm, maps.shape[:2], last + 1, units)
    found, ell = fit_modes(mixing, nu, modes, weights, lmin, choices)
    code: Any = RESULTS
    # what was not used is 0, but a spectrum that is not finite makes no map
    senseless = jnp.any(found.result == code.nonfinite_start._value)
    alm = jnp.where(senseless, jnp.nan, _complex(found.amplitudes, modes, lmin))
    nside = nside_of(maps.shape[2])
    whole = jnp.stack([synthesise(rows, nside, nest=nest) for rows in alm])
    return HarmonicSeparation(whole, alm, found, ell, modes.fsky, mixing.columns)


def harmonic_weights(instrument: Any, stokes: str, fwhm: Any, lmax: int) -> Float[Array, "f ell"]:
    """1 / N_l in 1/uK_CMB^2: the beam squared over the squared depth."""
    if not isinstance(instrument, Instrument):
        raise ValueError("give the inverse noise inv_n, or an Instrument with depths")
    sigma = instrument.sigma(12, stokes)[:, 0]
    ell = jnp.arange(lmax + 1.0)
    width = jnp.zeros_like(sigma) if fwhm is None else jnp.asarray(fwhm, float) * (_ARCMIN / np.sqrt(8 * np.log(2)))
    beam = jnp.exp(-(ell * (ell + 1))[None, :] * width[:, None] ** 2)
    return jnp.where(jnp.isnan(sigma), 0, 12 / (4 * np.pi * sigma**2))[:, None] * beam


def _stacked(inv_n: Any, instrument: Any, fwhm: Any, shape: tuple[int, int], count: int, units: str) -> Array:
    """Inverse noise of each Stokes parameter: (f, s, l), or (s, f, f, l) for matrices."""
    f, s = shape
    if inv_n is None:
        letters = {1: "I", 2: "QU", 3: "IQU"}[s]
        return jnp.stack([harmonic_weights(instrument, letter, fwhm, count - 1) for letter in letters], axis=1)
    power = jnp.asarray(plain(inv_n, "inv_n", units, fill=0.0, power=-2), float)
    if power.shape == (f, count):
        return jnp.broadcast_to(power[:, None], (f, s, count))
    if power.shape == (f, f, count):
        return jnp.broadcast_to(power, (s, f, f, count))
    raise ValueError(f"the inverse noise has shape {power.shape}, but it should be {(f, count)} or {(f, f, count)}")


def fit_modes(
    mixing: MixingMatrix, nu: Any, modes: Harmonics, weights: Array, lmin: int, choices: dict[str, Any]
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
