"""Spectra that are the same in all pixels of a sky that is never whole in memory, from one pass over it."""

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np

from .._fit.fit import Fits, fit_sky
from .._fit.host_batches import Observed
from .._noise import alike, weighted
from .._patches import lay_out
from .._separate import Task
from .sky_files import Source


def check_everywhere(task: Task, sky: Source) -> None:
    """Raise `ValueError` for noise or fixed parameters that differ between pixels, and amplitudes integrated out."""
    for what, wrong in (("noise by pixel", sky.root is None), ("fixed maps", sky.fixed), ("marginal", task.marginal)):
        if wrong:
            raise ValueError(
                f"{task.free[0]} has one value for the whole sky, which in blocks goes without {what}: name its "
                "patches, or use jaxsci.compsep.separate"
            )


def fit_everywhere(task: Task, sky: Source, cuts: Sequence[int]) -> Fits:
    """One value of each free parameter.

    Where noise and spectra are the same in all pixels, the likelihood is a function of d d^T alone: as many columns as
    there are channels have all that the sky says, L of d = L Q. They are gathered block by block (a sequential QR
    factorisation: Golub and Van Loan, Matrix Computations, 5.2; updating a row at a time loses no digits, sums of
    squares would lose half), and fitted as so many pixels.

    **Raises:** `ValueError` for a sky without pixels in use.
    """
    root: Any = sky.root
    left: Any = np.zeros((sky.shape[1], 0, sky.shape[0]))
    some = False
    for start, stop in itertools.pairwise(cuts):
        part = sky.read(start, stop)
        some |= bool(part.used.any())
        rows = [np.where(weighted(r) & part.used, part.data[:, k], 0).T for k, r in enumerate(root)]
        left = np.linalg.qr(np.concatenate([left, np.stack(rows)], axis=1), mode="r")
    if not some:
        raise ValueError("no pixel is left: every one is masked, UNSEEN, or has fewer channels than components")
    data = np.ascontiguousarray(left.transpose(2, 0, 1))
    sets, count = tuple(map(tuple, alike(root))), data.shape[2]
    observed = Observed(data, sets, tuple(root[members[0]] for members in sets), np.arange(count)[:, None])
    cells = lay_out(task.free, 0, np.ones(count, bool))
    return fit_sky(task.mixing, task.nu, observed, cells, task.free, marginal=False, **task.how)
