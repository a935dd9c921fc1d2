"""What foreground removal does to the tensor-to-scalar ratio: xForecast, in pixels and in harmonic space.

Foregrounds alone are separated as they would be with CMB and noise; what is left of them in the CMB, on average over
the errors of the spectra, biases r and widens its error. A user calls it to compare instruments.

Stompor, Errard and Poletti 2016, Phys. Rev. D 94, 083526; Errard and Stompor 2019, Phys. Rev. D 99, 043529.
"""

import importlib.resources
from collections.abc import Sequence
from typing import Any, NamedTuple, Unpack

import jax
import jax.numpy as jnp
import numpy as np
import optimistix as optx
from jaxtyping import Array, Float

from ..core import Module, leaf_names, match, put, snake
from ..fitting import compiled
from . import algebra
from ._given import Given
from ._healpix import nside_of
from ._instrument import Channels, Frequencies, Instrument
from ._linear.harmonic import Harmonics, fit_modes, harmonic_weights, harmonics
from ._mixing import MixingMatrix, check_units
from ._separate import separate_sky
from ._separation import Separation
from ._settings import SearchOptions, Settings
from ._sky import Sky
from ._spectra import CMB


class Spectra(Module):
    """Hold angular power spectra C_l of the CMB in uK_CMB^2 from l = 0 on: TT, EE, BB, TE.

    `scalar`: of scalar perturbations, lensed. `tensor`: of tensor perturbations for r = 1.
    """

    scalar: Float[Array, "4 ell"]
    tensor: Float[Array, "4 ell"]

    @staticmethod
    def bundled() -> "Spectra":
        """Load those of Planck 2018's best flat LCDM (tau = 0.0561), up to l = 600, computed with CAMB 2.0.5."""
        with (importlib.resources.files("jaxsci") / "data" / "compsep" / "spectra.npz").open("rb") as file:
            z = np.load(file)
            return Spectra(jnp.asarray(z["scalar"]), jnp.asarray(z["tensor"]))

    @staticmethod
    def camb(lmax: int = 600, **cosmology: Any) -> "Spectra":
        """Compute them for any cosmology by CAMB, as `bundled` ones were: `pip install 'jaxsci[forecast]'`.

        **Arguments:** `cosmology`: what `camb.set_params` takes, on top of the bundled one: `tau=0.06`, `H0=70`.
        """
        import camb

        parameters = camb.set_params(
            **{**COSMOLOGY, **cosmology}, lmax=max(2 * lmax, 1200), WantTensors=True, max_l_tensor=max(lmax, 600)
        )
        found = camb.get_results(parameters).get_cmb_power_spectra(parameters, CMB_unit="muK", raw_cl=True, lmax=lmax)
        return Spectra(jnp.asarray(found["lensed_scalar"].T), jnp.asarray(found["tensor"].T))


COSMOLOGY = {
    "H0": 67.66,
    "ombh2": 0.02242,
    "omch2": 0.11933,
    "mnu": 0.06,
    "tau": 0.0561,
    "As": 2.105e-9,
    "ns": 0.9665,
    "r": 1.0,
    "nt": 0.0,
    "pivot_tensor": 0.05,
    "lens_potential_accuracy": 1,
}
"""Planck 2018 results VI, table 2, last column; r at 0.05/Mpc."""


class Forecast(Module):
    """Tell what is left of foregrounds and noise in B modes, in uK_CMB^2, and what that does to r.

    - `ell`; `noise`: after separation, beams divided out. `statistical`: mean residual of foregrounds because of the
      errors of the spectral parameters. `systematic`: residual because the model is wrong, and of second order.
    - `r`: where the mean likelihood has its maximum; `bias`: less the true r. `sigma_r`: its width there.
    - `separation`: the fit of the foregrounds.
    """

    ell: Float[Array, " l"]
    primordial: Float[Array, " l"]
    lensing: Float[Array, " l"]
    noise: Float[Array, " l"]
    statistical: Float[Array, " l"]
    systematic: Float[Array, " l"]
    r: Float[Array, ""]
    bias: Float[Array, ""]
    sigma_r: Float[Array, ""]
    separation: Separation


class Fitted(NamedTuple):
    """Foregrounds that were separated: from which start, for which instrument; `column`: that of the CMB."""

    mixing: MixingMatrix
    instrument: Instrument
    separation: Separation
    column: int


class Target(NamedTuple):
    """The sky whose r is forecast, as `xForecast` has it."""

    spectra: Spectra
    r: float
    lensing: float
    lmin: int
    modelled: bool


def xForecast(
    mixing: MixingMatrix,
    instrument: Channels,
    foregrounds: Given,
    *,
    free: Sequence[str] | None = None,
    r: float = 0.0,
    lensing: float = 1.0,
    lmin: int = 2,
    lmax: int | None = None,
    mask: Given | None = None,
    spectra: Spectra | None = None,
    modelled: bool = False,
    inv_n: Given | None = None,
    nest: bool = False,
    **options: Unpack[SearchOptions],
) -> Forecast:
    """Forecast r from foregrounds without CMB and noise.

    **Arguments:** `mixing`: with a `CMB`. `instrument`: with depths and beams. `foregrounds`: (f, 2, pixel), Q and U in
    uK_CMB, RING. `free`: as in `separate`, one value for the whole sky. `r`, `lensing`: of the sky, 1 is all of it.
    `lmin`, `lmax`: multipoles that are used, 2 nside - 1 by default. `mask`: True = used. `spectra`: of the CMB.
    `modelled`: put the statistical residual into the model that r is fitted with, instead of letting it bias r.
    `options`: of `separate`: its bounds, priors, solver and so on; `inv_n` and `nest` as well.

    **Raises:** `ValueError` without a CMB, without depths, for maps that are not Q and U, and for too few multipoles.
    """
    column, lmax, cls = _checked(mixing, instrument, foregrounds, lmax, spectra)
    assert isinstance(instrument, Instrument)
    columns = len(mixing.columns)
    sky = Sky.of(instrument, foregrounds, inv_n, mask, units="uK_CMB", columns=columns, strict=False)
    found = separate_sky(Settings.of(mixing, instrument, free, "uK_CMB", nest, **options), sky)
    weights = 1 / instrument.sigma(sky.shape[2], "Q").T ** 2
    modes = harmonics(jnp.where(found.used, jnp.asarray(sky.data), 0), lmax=lmax, mask=np.asarray(found.used))
    target = Target(cls, r, lensing, lmin, modelled)
    return _forecast(Fitted(mixing, instrument, found, column), modes, jnp.nan_to_num(weights), target)


def harmonic_xForecast(
    mixing: MixingMatrix,
    instrument: Channels,
    foregrounds: Given,
    *,
    free: Sequence[str] | None = None,
    r: float = 0.0,
    lensing: float = 1.0,
    lmin: int = 2,
    lmax: int | None = None,
    mask: Given | None = None,
    spectra: Spectra | None = None,
    modelled: bool = False,
    **options: Unpack[SearchOptions],
) -> Forecast:
    """Forecast r from foregrounds that are separated as by `harmonic_comp_sep`.

    Channels weigh at each multipole by noise over beam squared.
    Without beams it is `xForecast` of the multipoles from lmin to lmax.

    **Arguments:** as in `xForecast`; `foregrounds`: before any beam. `mask`: weights of pixels, 1 (or True) = used.

    **Raises:** as `xForecast`.
    """
    column, lmax, cls = _checked(mixing, instrument, foregrounds, lmax, spectra)
    assert isinstance(instrument, Instrument)
    channels = np.ones(len(instrument.frequency))
    sky = Sky.of(instrument, foregrounds, channels, units="uK_CMB", strict=False)
    modes = harmonics(sky.data, lmax=lmax, mask=mask)
    weights = harmonic_weights(instrument, "Q", instrument.fwhm, lmax)
    check_units(mixing, "uK_CMB")
    both = jnp.stack([weights, weights], axis=1)
    found, _ = fit_modes(mixing, instrument.nu, modes, both, lmin, {"free": free, **options})
    target = Target(cls, r, lensing, lmin, modelled)
    return _forecast(Fitted(mixing, instrument, found, column), modes, weights.T, target)


def _forecast(fit: Fitted, modes: Harmonics, weights: Float[Array, "q f"], target: Target) -> Forecast:
    """From a fit of the foregrounds to r; `weights` of the channels at each multipole, or one row for all."""
    mixing, instrument, found, column = fit
    cls, lmin = target.spectra, target.lmin
    lmax = int(np.max(np.asarray(modes.ell)))
    if not 2 <= lmin <= lmax:
        raise ValueError(f"lmin should lie from 2 to lmax, which is {lmax}, but it is {lmin}")
    best = _best(mixing, found)
    names = tuple(name for name, _ in leaf_names(best, match(best, list(found.free), "the mixing matrix")))
    sigma = found.covariance[:, :, 0]
    left = compiled(_residuals, (best, instrument.nu, weights, modes, sigma), (names, column))
    power = left.spectrum()[:, :, 0, lmin : lmax + 1]
    ell = jnp.arange(lmin, lmax + 1).astype(float)
    noise = _noise(best, instrument, column, lmin, lmax)
    statistical = jnp.einsum("ij,ijl->l", sigma, power[1:, 1:])
    theory = cls.tensor[2, lmin : lmax + 1], target.lensing * cls.scalar[2, lmin : lmax + 1]
    args = jnp.asarray(target.r), ell, *theory, noise, statistical, power[0, 0], modes.fsky
    at, error = compiled(_ratio, args, (target.modelled,))
    return Forecast(ell, *theory, noise, statistical, power[0, 0], at, at - target.r, error, found)


def _checked(
    mixing: MixingMatrix, instrument: Channels, foregrounds: Given, lmax: int | None, spectra: Spectra | None
) -> tuple[int, int, Spectra]:
    """(the column of the CMB, the last multipole, the spectra of the CMB)."""
    if mixing.calibration is not None:
        raise ValueError("a forecast takes channels that are calibrated: leave calibration= out")
    at = [k for k, component in enumerate(mixing.components) if isinstance(component, CMB)]
    if len(at) != 1:
        raise ValueError(f"a forecast takes one {snake(CMB())} among the components: {', '.join(mixing.names)}")
    if not isinstance(instrument, Instrument):
        raise ValueError(f"a forecast takes an Instrument with depths, not a {type(instrument).__name__}")
    shape = np.shape(foregrounds)
    if len(shape) != 3 or shape[1] != 2:
        raise ValueError(f"foregrounds should have shape (f, 2, pixel), Q and U, but they have {shape}")
    cls = Spectra.bundled() if spectra is None else spectra
    last = 2 * nside_of(shape[2]) - 1 if lmax is None else lmax
    if last >= cls.tensor.shape[1]:
        raise ValueError(f"the spectra end at l = {cls.tensor.shape[1] - 1}, but lmax is {last}: give longer ones")
    return mixing.columns.index(mixing.names[at[0]]), last, cls


def _best(mixing: MixingMatrix, found: Separation) -> MixingMatrix:
    """The mixing matrix with the fitted values as scalars."""
    for name, values in found.values.items():
        if values.shape != (1,):
            raise ValueError(f"{name} has {values.shape[0]} values: a forecast takes one for the whole sky")
    return put(mixing, {name: values[0] for name, values in found.values.items()})


def _residuals(
    mixing: MixingMatrix,
    nu: Frequencies,
    weights: Array,
    modes: Harmonics,
    covariance: Array,
    free: tuple[str, ...],
    column: int,
) -> Harmonics:
    """B of what foregrounds leave in the CMB: the mean to second order, then its derivatives (1 + p, 1, a)."""
    A, dA, ddA = mixing.eval(nu), mixing.diff(nu, free), mixing.diff_diff(nu, free)

    def combinations(inv_n: Array) -> Array:
        W, dW, ddW = algebra.W(A, inv_n), algebra.W_dB(A, dA, inv_n), algebra.W_dBdB(A, dA, ddA, inv_n)
        second = jnp.einsum("ij,ijf->f", covariance, ddW[:, :, column]) / 2
        return jnp.concatenate([(W[column] + second)[None], dW[:, column]])

    rows = jax.vmap(combinations, out_axes=-1)(weights)
    each = rows[..., jnp.minimum(modes.ell, weights.shape[0] - 1)]
    left = jnp.einsum("rfa,fa->ra", each.astype(modes.alm.dtype), modes.alm[:, 1])
    return Harmonics(left[:, None], modes.ell, modes.twice, modes.fsky)


def _noise(mixing: MixingMatrix, instrument: Instrument, column: int, lmin: int, lmax: int) -> Float[Array, " l"]:
    """(A^T N_l^-1 A)^-1 of the CMB with N_l the channels' white noise over their beams squared."""
    weights = harmonic_weights(instrument, "Q", instrument.fwhm, lmax)[:, lmin:]
    A = mixing.eval(instrument.nu)
    return jax.vmap(lambda row: algebra.invAtNA(A, row)[column, column], 1)(weights)


def _ratio(
    r: Array,
    ell: Array,
    primordial: Array,
    lensing: Array,
    noise: Array,
    statistical: Array,
    systematic: Array,
    fsky: Array,
    modelled: bool,
) -> tuple[Array, Array]:
    """(the r of the greatest mean likelihood, its standard error).

    -2 <log L> = fsky sum (2 l + 1) (E / C + log C), C = r C_prim + C_lens + N the model, E the mean of the data.
    """
    rest = lensing + noise + (statistical if modelled else 0)
    data = r * primordial + lensing + noise + statistical + systematic
    modes = fsky * (2 * ell + 1) / 2

    def slope(at: Array, args: None) -> Array:
        model = at * primordial + rest
        return jnp.sum(modes * primordial * (model - data) / model**2) / jnp.sum(modes * (primordial / model) ** 2)

    at = optx.root_find(slope, optx.Newton(rtol=1e-10, atol=1e-12), r, max_steps=100).value
    return at, 1 / jnp.sqrt(jnp.sum(modes * (primordial / (at * primordial + rest)) ** 2))
