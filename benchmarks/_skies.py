"""Skies of real templates with LiteBIRD's noise, and what fgbuster found there."""

from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

import jaxsci as js
from jaxsci import compsep

js.enable_x64()  # before the instrument's numbers become arrays

FOLDER = Path(__file__).resolve().parents[2] / "shared" / "data" / "compsep"
MISSING = "" if FOLDER.is_dir() else "not run: needs the templates in ../shared/data/compsep"
LITEBIRD = compsep.Instrument.named("LiteBIRD")
_TRUTH = {"beta_d": 1.54, "temp_d": 20.0, "beta_s": -3.0}
_H_OVER_K = 6.62607015e-34 * 1e9 / 1.380649e-23  # K / GHz


def mixing() -> compsep.MixingMatrix:
    """CMB, dust and synchrotron, three parameters."""
    return compsep.MixingMatrix(
        cmb=compsep.CMB(), dust=compsep.ModifiedBlackBody(1.54, 20.0), sync=compsep.PowerLaw(-3.0)
    )


def maps(nside: int, stokes: str, *, constant: bool = False) -> Any:
    """(f, s, pixel) in uK_CMB with the noise of the golden fits; `constant`: the same spectra everywhere."""
    with np.load(FOLDER / f"sky_nside{nside}_c1d1s1f1.npz") as file:
        z = {name: file[name].astype(float) for name in file.files}
    z |= {name: np.full_like(z[name], value) for name, value in _TRUTH.items()} if constant else {}
    nu = np.asarray(LITEBIRD.frequency)[:, None]
    x = _H_OVER_K * nu / 2.7255
    to_cmb = np.expm1(x) ** 2 / (np.exp(x) * x * x)
    planck = np.expm1(_H_OVER_K * 353 / z["temp_d"]) / np.expm1(_H_OVER_K * nu / z["temp_d"])
    dust = to_cmb * (nu / 353) ** (1 + z["beta_d"]) * planck
    synchrotron = to_cmb * (nu / 30) ** z["beta_s"]
    clean = z["cmb_uKcmb"] + dust[:, None] * z["dust353_uKrj"] + synchrotron[:, None] * z["sync30_uKrj"]
    sigma = np.asarray(LITEBIRD.sigma(12 * nside**2, "IQU"))
    noisy = clean + np.random.default_rng(1).normal(size=clean.shape) * sigma[:, :, None]
    return jnp.asarray(noisy[:, ["IQU".index(letter) for letter in stokes]])


def golden() -> dict[str, np.ndarray]:
    """Numbers of fgbuster's fits to these maps."""
    with np.load(FOLDER / "fgbuster_golden_fits.npz") as file:
        return dict(file)
