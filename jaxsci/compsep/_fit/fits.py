"""What fits of spectra answer, whichever way they were made: one named tuple for pixels, groups and trees.

Single pixels run through one engine, groups of pixels that share parameters through another, a tree of resolutions
through a third. All end in `Fits`, so that component maps, `Separation` and the files on disk are made in one way.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from ...fitting import RESULTS
from .._given import ArrayModule, Values
from .._patches import Cells
from .._settings import Settings


class Fits(NamedTuple):
    """Fitted parameters of a sky.

    - `values`, `std`, `at_bound` by name: the elements (n,) of each parameter, their standard errors and the bounds
      that they ended at (-1, 0, 1). As the programs of groups return them, they are (g, w): in each of g groups as many
      places as any has elements.
    - `covariance`: (p, p, k) of the parameters of each cell; of groups, what their program knows.
    - `result`, `steps`, `cost`: of each group of cells: a code of `RESULTS`, evaluations, half of chi2 and priors.
    - `alternatives` by name, of a fit from several starts: the elements (n,) in another minimum that is as good; NaN
      where there is none.
    """

    values: Mapping[str, Values]
    std: Mapping[str, Values]
    at_bound: Mapping[str, Values]
    covariance: Values
    result: Values
    steps: Values
    cost: Values
    alternatives: Mapping[str, Values] = {}


def split(flat: Array, widths: dict[str, int]) -> dict[str, Array]:
    """Cut a vector of all parameters into those of each name."""
    out, at = {}, 0
    for name, width in widths.items():
        out[name] = flat[at : at + width]
        at += width
    return out


def unfitted(k: int) -> Fits:
    """Answer for k cells without any parameter: each is by itself, and done."""
    zero = np.zeros(k, np.int32)  # as the codes of RESULTS are
    return Fits({}, {}, {}, np.zeros((0, 0, k)), zero, zero, np.zeros(k))


def owners(cells: Cells) -> dict[str, np.ndarray]:
    """Tell by name to which group of cells each element of a parameter belongs."""
    out = {}
    for name, inside in cells.element.items():
        out[name] = np.zeros(cells.sizes[name], np.int64)
        out[name][inside[..., cells.first]] = cells.group
    return out


def spoilt(settings: Settings, fits: Fits, cells: Cells, finite: Values) -> Fits:
    """Mark the fits as failed, and without errors, in which the spectra of any pixel are not finite.

    **Arguments:** `finite`: of each used pixel.
    """
    xp: ArrayModule = settings.xp
    if not settings.traced and finite.all():
        return fits
    code: Any = RESULTS
    groups = cells.group[cells.cell]
    some = (
        jnp.zeros(len(fits.result), int).at[groups].add((~finite).astype(int))
        if settings.traced
        else np.bincount(groups, ~finite)
    )
    bad = some > 0
    # what is known better already stays: data that are not finite, and spectra that ceased to be so
    told = (fits.result == code.nonfinite_data._value) | (fits.result == code.nonfinite_end._value)
    result = xp.where(bad & ~told, code.nonfinite_start._value, fits.result)
    std = {name: xp.where(bad[owner], xp.nan, fits.std[name]) for name, owner in owners(cells).items()}
    covariance = xp.where(bad[cells.group], xp.nan, fits.covariance)
    cost = xp.where(bad, xp.nan, fits.cost)
    return fits._replace(result=result, std=std, covariance=covariance, cost=cost)
