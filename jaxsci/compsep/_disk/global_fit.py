"""Spectra that are the same in all pixels of a sky that is never whole in memory, from one pass over it.

A parameter with one value for the whole sky ties all blocks together, so that none can be fitted by itself. Where noise
and spectra are the same everywhere, though, what the sky says of them fits into as many pixels as there are channels.
`separate_blocks` calls this first, and separates its blocks with the spectra found.
"""

import itertools
from collections.abc import Sequence

import numpy as np

from .._fit.fit import fit_sky
from .._fit.fits import Fits
from .._noise import weighted
from .._patches import lay_out
from .._settings import Settings
from .._sky import Sky
from .sky_files import SkyFiles


def check_global(settings: Settings, files: SkyFiles) -> None:
    """Refuse what a global fit in blocks goes without.

    **Raises:** `ValueError` for noise or fixed parameters that differ between pixels, and amplitudes integrated out.
    """
    for what, wrong in (
        ("noise by pixel", files.root is None),
        ("fixed maps", files.fixed),
        ("marginal", settings.marginal),
    ):
        if wrong:
            raise ValueError(
                f"{settings.free[0]} has one value for the whole sky, which in blocks goes without {what}: name its "
                "patches, or use jaxsci.compsep.separate"
            )


def fit_globally(settings: Settings, files: SkyFiles, cuts: Sequence[int]) -> Fits:
    """Fit one value of each free parameter.

    Where noise and spectra are the same in all pixels, the likelihood is a function of d d^T alone: as many columns as
    there are channels have all that the sky says, L of d = L Q. They are gathered block by block (a sequential QR
    factorisation: Golub and Van Loan, Matrix Computations, 5.2; updating a row at a time loses no digits, sums of
    squares would lose half), and fitted as so many pixels.

    **Raises:** `ValueError` for a sky without pixels in use.
    """
    f, s, _ = files.shape
    left = np.zeros((s, 0, f))
    some = False
    for start, stop in itertools.pairwise(cuts):
        sky, _ = files.read(start, stop)
        some |= bool(sky.used.any())
        rows = [np.where(weighted(root) & sky.used, sky.data[:, k], 0).T for k, root in enumerate(files.root or ())]
        left = np.asarray(np.linalg.qr(np.concatenate([left, np.stack(rows)], axis=1), mode="r"))
    if not some:
        raise ValueError("no pixel is left: every one is masked, UNSEEN, or has fewer channels than components")
    data = np.ascontiguousarray(left.transpose(2, 0, 1))
    columns = len(settings.mixing.columns)
    whole = Sky.with_roots(settings.nu, data, list(files.root or ()), None, settings.units, columns)
    return fit_sky(settings, whole, lay_out(settings.free, 0, whole.used))
