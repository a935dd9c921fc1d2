"""Where a sky that is read block by block may be cut: between patches, never through one.

Pixels that share an element of a parameter have to be in memory together. Patches on disk are therefore runs of pixels,
numbered as they come, and a block ends where a run of every parameter does. `separate_blocks` asks for the cuts once,
and for the patch numbers of each block.
"""

from collections.abc import Mapping, Sequence
from typing import TypeAlias

import numpy as np

from .._given import OnDisk, plain
from .._healpix import nside_of
from .._patches import SoftPatches, Where, by_parameter, is_nside

Runs: TypeAlias = Mapping[str, int | OnDisk]
"""By name, how many pixels a patch has, or the patch number of each pixel."""


def is_global(free: Sequence[str], patches: Mapping[str, Where] | Where | None) -> bool:
    """Tell whether there are parameters, and each has one value for all pixels."""
    if patches is None:
        return False
    places = by_parameter(free, patches)
    return bool(places) and all(is_nside(where) and where == 0 for where in places.values())


def runs_of(free: Sequence[str], patches: Mapping[str, Where] | Where | None, npix: int, nest: bool) -> Runs:
    """Describe the patches of each parameter as runs of pixels; there are none where all parameters are global.

    **Raises:** `ValueError` for patches that no run of pixels contains, or one value for all beside others in patches.
    """
    if patches is None:
        return dict.fromkeys(free, 1)
    if is_global(free, patches):
        return {}
    return {name: _checked(name, where, npix, nest) for name, where in by_parameter(free, patches).items()}


def numbers(runs: Runs, start: int, stop: int) -> dict[str, np.ndarray]:
    """The patch of each of these pixels, by name; negative where the pixel is not used."""
    pixels = np.arange(start, stop)
    return {
        name: pixels // where
        if isinstance(where, int)
        else np.asarray(plain(where[start:stop], f"patches of {name}", fill=-1))
        for name, where in runs.items()
    }


def cuts(runs: Runs, npix: int, block: int) -> list[int]:
    """Where blocks of up to so many pixels begin, and the end.

    **Raises:** `ValueError` for a patch that is longer than a block, or in several runs of pixels.
    """
    if block < 1:
        raise ValueError(f"block should be a positive number of pixels, but it is {block}")
    at, seen = [0], dict.fromkeys(runs, -1)
    while at[-1] < npix:
        start = at[-1]
        # a short rest would have programs of its own
        stop = npix if npix - start <= block + block // 8 else start + block
        ahead = numbers(runs, start, min(stop + 1, npix))
        fine = np.ones(stop - start, bool)
        for name, number in ahead.items():
            if np.any((number >= 0) & (number <= seen[name])):
                raise ValueError(f"patches of {name} should be runs of pixels, numbered as they come; sort them")
            # a cut is fine after a pixel where all numbers so far are below all that follow
            highest = np.maximum.accumulate(number)
            lowest = np.minimum.accumulate(np.where(number < 0, np.iinfo(np.int64).max, number)[::-1])[::-1]
            fine[: len(number) - 1] &= highest[:-1] < lowest[1:]
        if not fine.any():
            raise ValueError(f"the patches at pixel {start} are longer than block={block}; raise it")
        at.append(start + int(np.flatnonzero(fine)[-1]) + 1)
        for name, number in ahead.items():
            seen[name] = max(seen[name], int(number[: at[-1] - start].max()))
    return at


def _checked(name: str, where: Where, npix: int, nest: bool) -> int | OnDisk:
    """Pixels in a patch, or the patch numbers as they are."""
    if isinstance(where, SoftPatches):
        raise ValueError(f"soft patches of {name} tie all blocks together: use jaxsci.compsep.separate")
    if isinstance(where, int | np.integer) or not where.shape:
        if where == 0:
            raise ValueError(
                f"{name} has one value for the whole sky, which no block knows beside others in patches: name its "
                "patches, fix it, or use jaxsci.compsep.separate"
            )
        nside, coarse = nside_of(npix), int(np.asarray(where))
        if coarse < 1 or coarse & (coarse - 1) or coarse > nside:
            raise ValueError(f"a parameter's nside should be a power of two up to {nside}, not {coarse}")
        if coarse < nside and not nest:
            raise ValueError(
                f"patches of {name} of nside {coarse} are no runs of pixels in RING order: give maps in NESTED order "
                "and nest=True"
            )
        return (nside // coarse) ** 2
    if tuple(where.shape) != (npix,) or not np.issubdtype(where.dtype, np.integer):
        raise ValueError(
            f"patches of {name} should be {npix} integers, one for each pixel of the maps, "
            f"but they are {where.dtype}{list(where.shape)}"
        )
    return where
