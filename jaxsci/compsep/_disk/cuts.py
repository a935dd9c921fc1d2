"""Where a sky that is read block by block may be cut: between patches, never through one."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from .._healpix import nside_of
from .._patches import SoftPatches, Where, by_parameter, is_nside
from .._units import plain


class Places:
    """The elements of parameters for any run of pixels, without those of the whole sky.

    `everywhere`: each parameter has one value for all pixels.

    **Raises:** `ValueError` for patches that no run of pixels contains, or one value for all beside others in patches.
    """

    def __init__(self, free: Sequence[str], patches: Mapping[str, Where] | Where | None, npix: int, nest: bool):
        places = by_parameter(free, patches)
        self.npix = npix
        self.everywhere = bool(places) and all(is_nside(where) and where == 0 for where in places.values())
        # then nothing of theirs can be cut
        some = {} if self.everywhere else places
        self.spec = {name: _checked(name, where, npix, nest) for name, where in some.items()}

    def numbers(self, start: int, stop: int) -> dict[str, np.ndarray]:
        """The patch of each of these pixels, by name; negative where the pixel is not used."""
        pixels = np.arange(start, stop)
        return {
            name: pixels // where
            if isinstance(where, int)
            else np.asarray(plain(where[start:stop], f"patches of {name}", fill=-1))
            for name, where in self.spec.items()
        }

    def cuts(self, block: int) -> list[int]:
        """Where blocks of up to so many pixels begin, and the end.

        **Raises:** `ValueError` for a patch that is longer than a block, or in several runs of pixels.
        """
        if block < 1:
            raise ValueError(f"block should be a positive number of pixels, but it is {block}")
        at, seen = [0], dict.fromkeys(self.spec, -1)
        while at[-1] < self.npix:
            start = at[-1]
            # a short rest would have programs of its own
            stop = self.npix if self.npix - start <= block + block // 8 else start + block
            ahead = self.numbers(start, min(stop + 1, self.npix))
            fine = np.ones(stop - start, bool)
            for name, number in ahead.items():
                if np.any((number >= 0) & (number <= seen[name])):
                    raise ValueError(f"patches of {name} should be runs of pixels, numbered as they come; sort them")
                highest = np.maximum.accumulate(number)
                lowest = np.minimum.accumulate(np.where(number < 0, np.iinfo(np.int64).max, number)[::-1])[::-1]
                fine[: len(number) - 1] &= highest[:-1] < lowest[1:]
            if not fine.any():
                raise ValueError(f"the patches at pixel {start} are longer than block={block}; raise it")
            at.append(start + int(np.flatnonzero(fine)[-1]) + 1)
            for name, number in ahead.items():
                seen[name] = max(seen[name], int(number[: at[-1] - start].max()))
        return at


def _checked(name: str, where: Any, npix: int, nest: bool) -> Any:
    """Pixels in a patch, or the patch numbers as they are."""
    if where is None:
        return 1
    if isinstance(where, SoftPatches):
        raise ValueError(f"soft patches of {name} tie all blocks together: use jaxsci.compsep.separate")
    if np.ndim(where) == 0:
        if where == 0:
            raise ValueError(
                f"{name} has one value for the whole sky, which no block knows beside others in patches: name its "
                "patches, fix it, or use jaxsci.compsep.separate"
            )
        nside, coarse = nside_of(npix), int(where)
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
