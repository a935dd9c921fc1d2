"""Doors with the names that users of fgbuster know; each is `separate` with a choice of places and noise."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ..core import match
from ..fitting import as_names
from ._fixed import not_fixed
from ._given import plain
from ._mixing import MixingMatrix
from ._separate import separate
from ._separation import Separation


def basic_comp_sep(mixing: MixingMatrix, instrument: Any, data: Any, nside: int = 0, **choices: Any) -> Separation:
    """All parameters in patches of one nside (0: one value for the whole sky), the noise from the instrument's depths.

    **Arguments:** `data`: (f, s, pixel). `choices`: as in `separate`.
    """
    return separate(mixing, instrument, data, patches=nside, **choices)


def weighted_comp_sep(
    mixing: MixingMatrix, instrument: Any, data: Any, cov: Any, nside: int = 0, **choices: Any
) -> Separation:
    """As `basic_comp_sep`, with the variance of every pixel.

    **Arguments:** `cov`: variances in the shape of the data, in units^2; an infinite one, UNSEEN, or one behind a mask
    takes the weight away.
    """
    cov = plain(cov, "cov", choices.get("units", "uK_CMB"), fill=np.inf, power=2)
    xp: Any = jnp if isinstance(cov, jax.Array) else np
    cov = xp.asarray(cov, float)
    cov = cov[:, None] if cov.ndim == 2 else cov
    some = (cov > 0) & xp.isfinite(cov)
    weights = xp.where(some, 1 / xp.where(some, cov, 1), 0)
    return separate(mixing, instrument, data, patches=nside, inv_n=weights, **choices)


def multi_res_comp_sep(
    mixing: MixingMatrix, instrument: Any, data: Any, nsides: Sequence[int], **choices: Any
) -> Separation:
    """An nside for each parameter that is fitted, in the order of `mixing.parameters`."""
    return separate(mixing, instrument, data, patches=_each(mixing, nsides, **choices), **choices)


def adaptive_comp_sep(
    mixing: MixingMatrix, instrument: Any, data: Any, patch_ids: Sequence[Any], **choices: Any
) -> Separation:
    """Patch numbers of all pixels, or `SoftPatches`, for each parameter that is fitted, in their order."""
    places = _each(mixing, patch_ids, **choices)
    return separate(mixing, instrument, data, patches=places, **choices)


def _each(
    mixing: MixingMatrix, places: Sequence[Any], free: Sequence[str] | None = None, fixed: Any = None, **_: Any
) -> Mapping[str, Any]:
    fitted = not_fixed(mixing, fixed) if free is None else match(mixing, as_names(free), "the mixing matrix")
    names = [name for name in mixing.parameters if fitted is None or name in fitted]
    if len(places) != len(names):
        raise ValueError(f"there are {len(places)} places for {len(names)} parameters: {', '.join(names)}")
    return dict(zip(names, places, strict=True))
