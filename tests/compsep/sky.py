"""Simulated skies for tests: templates of our own, and the real ones that lie beside the project."""

import jax.numpy as jnp
import numpy as np

from jaxsci import compsep

LITEBIRD = compsep.Instrument.named("LiteBIRD")
FEW = np.array([0, 3, 6, 9, 12, 14])  # channels: the compile time is theirs


def few(npix):
    """(frequencies, standard deviations of Q and of U) of a few channels, for so many pixels of a whole sphere."""
    return np.asarray(LITEBIRD.frequency)[FEW], np.asarray(LITEBIRD.sigma(npix, "Q"))[FEW, 0]


def real(folder, nside, stokes, const=False, seed=1):
    """(maps (f, s, pixel) with noise, true parameters by name), as the golden fits had them."""
    with np.load(folder / "compsep" / f"sky_nside{nside}_c1d1s1f1.npz") as file:
        z = {name: file[name].astype(float) for name in file.files}
    truth = {"dust.beta": z["beta_d"], "dust.temp": z["temp_d"], "sync.beta": z["beta_s"]}
    if const:
        truth = {n: np.full_like(truth[n], v) for n, v in zip(truth, (1.54, 20.0, -3.0), strict=True)}
    nu = np.asarray(LITEBIRD.frequency)[:, None]
    hk = 6.62607015e-34 * 1e9 / 1.380649e-23
    x = hk * nu / 2.7255
    to_cmb = np.expm1(x) ** 2 / (np.exp(x) * x * x)
    beta, temp = truth["dust.beta"], truth["dust.temp"]
    dust = (nu / 353) ** (1 + beta) * np.expm1(hk * 353 / temp) / np.expm1(hk * nu / temp)
    sync = (nu / 30) ** truth["sync.beta"]
    foreground = (to_cmb * dust)[:, None] * z["dust353_uKrj"] + (to_cmb * sync)[:, None] * z["sync30_uKrj"]
    clean = z["cmb_uKcmb"][None] + foreground
    sigma = np.asarray(LITEBIRD.sigma(12 * nside**2, "IQU"))
    noisy = clean + np.random.default_rng(seed).normal(size=clean.shape) * sigma[:, :, None]
    return noisy[:, [("IQU").index(s) for s in stokes]], truth


def made(npix, stokes, beta=1.6, temp=19.0, beta_s=-3.1, seed=0, noise=1.0):
    """(maps, amplitudes (c, s, pixel)) of a bright sky of our own."""
    rng = np.random.default_rng(seed)
    s = len(stokes)
    amplitudes = np.stack([rng.normal(size=(s, npix)) * a + b for a, b in ((3, 0), (20, 60), (10, 40))])
    mixing = compsep.MixingMatrix(
        cmb=compsep.CMB(), dust=compsep.ModifiedBlackBody(beta, temp), sync=compsep.PowerLaw(beta_s)
    )
    clean = np.einsum("fc,csp->fsp", np.asarray(mixing.eval(LITEBIRD.frequency)), amplitudes)
    sigma = np.asarray(LITEBIRD.sigma(npix, stokes))
    return jnp.asarray(clean + noise * rng.normal(size=clean.shape) * sigma[:, :, None]), amplitudes
