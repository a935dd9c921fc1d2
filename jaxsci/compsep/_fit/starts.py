"""Fits of a sky from several starts: the best end of each group of cells, and whether another end was as good.

The profile likelihood of few channels has several minima, of the temperature of dust say, and a search ends in the one
next to its start. All starts go through the programs of one, with other numbers. `solve` calls this where a separation
was told of starts.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from ...core import as_count, match, put
from ...fitting import RESULTS, best_start, fill_box
from .._given import ArrayModule, Given, Values, plain
from .._mixing import MixingMatrix, spectral
from .._patches import Cells
from .._settings import Settings, Starts
from .._sky import Sky
from .fit import fit_sky
from .fits import Fits, owners

_NEAR = 9.0  # of chi2: a minimum that the data disfavour by less than three standard errors


def start_points(settings: Settings, starts: Starts) -> list[MixingMatrix]:
    """List the mixing matrices to start from, the model's own first.

    **Arguments:** `starts`: how many points to spread over the bounds of the free spectral parameters; or by name (or
    glob) the values of each start, the same number of them for all names.

    **Raises:** `ValueError` for bounds that are not finite, names that are not free, and numbers that differ.
    """
    free = spectral(settings.free)
    if isinstance(starts, int):
        starts = as_count(starts, "starts")
        limits, at = settings.limits(), [settings.free.index(name) for name in free]
        points = fill_box(limits.lower[np.array(at, int)], limits.upper[np.array(at, int)], free, starts)
        rows: list[dict[str, Given]] = [dict(zip(free, point, strict=True)) for point in points]
    else:
        rows = _by_name(settings, starts)
    return [settings.mixing, *(put(settings.mixing, row) for row in rows)]


def _by_name(settings: Settings, starts: Mapping[str, Given]) -> list[dict[str, Given]]:
    lists = {name: np.atleast_1d(np.asarray(plain(x, f"starts of {name}"), float)) for name, x in starts.items()}
    for name in match(settings.mixing, list(lists), "the mixing matrix"):
        if name not in settings.free:
            raise ValueError(f"starts: {name} is not free ({', '.join(settings.free)})")
    sizes = {name: x.size for name, x in lists.items()}
    if len(set(sizes.values())) != 1 or any(x.ndim != 1 for x in lists.values()):
        raise ValueError(f"starts should be as many numbers for each name, but there are {sizes}")
    return [{name: x[k] for name, x in lists.items()} for k in range(next(iter(sizes.values())))]


def fit_from_starts(
    settings: Settings, sky: Sky, cells: Cells, points: Sequence[MixingMatrix], lanes: int | None = None
) -> Fits:
    """Fit from each of these starts, and keep for every group of cells the end of lowest cost.

    `alternatives` of the answer has the best of the other ends, where there is one whose cost is near to the best, or
    lower though it did not converge, and in which a parameter is more than its standard error away.
    """
    xp: ArrayModule = settings.xp
    code: Any = RESULTS
    every = [fit_sky(settings._replace(mixing=point), sky, cells, lanes) for point in points]
    cost = xp.stack([each.cost for each in every])
    good = xp.stack([each.result == code.successful._value for each in every])
    best = best_start(xp, cost, good)
    owner = owners(cells)

    def chosen(rows: Sequence[Values], which: Values) -> Values:
        """Of each start's rows (..., n) those of the start that is chosen for each of n."""
        out = rows[0]
        for k, row in enumerate(rows[1:], 1):
            out = xp.where((which == k).reshape((1,) * (row.ndim - 1) + (-1,)), row, out)
        return out

    def named(what: Sequence[Mapping[str, Values]]) -> dict[str, Values]:
        return {name: chosen([each[name] for each in what], best[owner[name]]) for name in settings.free}

    values, std = named([each.values for each in every]), named([each.std for each in every])
    away = xp.stack([_away(xp, each.values, values, std, owner, cost.shape[1]) for each in every])
    least = chosen(list(cost), best)
    # an end that lies lower without having converged says that the best of the others is not the minimum
    rival = away & (good | (cost < least[None])) & (2 * (cost - least[None]) < _NEAR)
    second = xp.argmin(xp.where(rival, cost, xp.inf), axis=0)
    other = {}
    for name in settings.free:
        there = chosen([each.values[name] for each in every], second[owner[name]])
        other[name] = xp.where(rival.any(axis=0)[owner[name]], there, xp.nan)
    return Fits(
        values,
        std,
        named([each.at_bound for each in every]),
        chosen([each.covariance for each in every], best[cells.group]),
        chosen([each.result for each in every], best),
        chosen([each.steps for each in every], best),
        least,
        other,
    )


def _away(
    xp: ArrayModule,
    values: Mapping[str, Values],
    best: Mapping[str, Values],
    std: Mapping[str, Values],
    owner: Mapping[str, np.ndarray],
    groups: int,
) -> Values:
    """Tell for which groups any parameter lies more than its standard error from where the best has it.

    What the data do not determine lies nowhere in particular, and does not count.
    """
    count: Values = xp.zeros(groups, int)
    for name, group in owner.items():
        far = (xp.abs(values[name] - best[name]) > std[name]).astype(int)
        count = count + (
            np.bincount(group, far, groups).astype(int) if xp is np else jnp.zeros(groups, int).at[group].add(far)
        )
    return count > 0
