"""Makes jaxsci/data/compsep/sky16.npz, a sky of our own: `python tests/compsep/make_sky.py`.

CMB from the bundled spectra (r = 0); dust and synchrotron from random fields with power-law spectra, brighter near
the galactic plane by a smooth profile; spectral indices that vary over 8 degrees and more.
"""

from pathlib import Path

import healpy
import numpy as np

NSIDE, LMAX = 16, 32


def field(rng, slope):
    """A Gaussian field with C_l ~ (l + 1)^slope, of unit variance."""
    power = (np.arange(LMAX + 1) + 1.0) ** slope
    power[0] = 0
    ell, m = healpy.Alm.getlm(LMAX)
    alm = rng.normal(size=ell.size) + 1j * np.where(m > 0, rng.normal(size=ell.size), 0) * 1
    values = healpy.alm2map(alm * np.sqrt(power[ell]), NSIDE, lmax=LMAX)
    return values / values.std()


def foreground(rng, level, polarised):
    """I, Q, U: log-normal intensity that falls away from the plane, polarised at an angle that varies smoothly."""
    latitude = np.pi / 2 - healpy.pix2ang(NSIDE, np.arange(12 * NSIDE**2))[0]
    plane = 1 / (0.12 + np.abs(np.sin(latitude))) + 0.2
    intensity = level * plane * np.exp(0.5 * field(rng, -2.4))
    angle = field(rng, -3.0)
    fraction = polarised * np.exp(0.3 * field(rng, -2.4))
    return np.stack([intensity, intensity * fraction * np.cos(angle), intensity * fraction * np.sin(angle)])


def main():
    rng = np.random.default_rng(2026)
    root = Path(__file__).resolve().parents[2] / "jaxsci" / "data" / "compsep"
    with np.load(root / "spectra.npz") as file:
        scalar = file["scalar"][:, : LMAX + 1]
    np.random.seed(2026)  # noqa: NPY002 - healpy's own generator
    cmb = np.asarray(healpy.synfast([*scalar[:3], scalar[3]], NSIDE, lmax=LMAX, new=True))
    values = {
        "cmb_uKcmb": cmb,
        "dust353_uKrj": foreground(rng, 40.0, 0.05),
        "sync30_uKrj": foreground(rng, 12.0, 0.10),
        "beta_d": 1.54 + 0.04 * field(rng, -2.6),
        "temp_d": 20.0 + 1.0 * field(rng, -2.6),
        "beta_s": -3.0 + 0.06 * field(rng, -2.6),
    }
    np.savez_compressed(root / "sky16.npz", **{name: x.astype(np.float32) for name, x in values.items()})


if __name__ == "__main__":
    main()
