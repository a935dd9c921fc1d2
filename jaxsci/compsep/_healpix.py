"""The two pixel orders of HEALPix and how a coarse grid contains a fine one (Gorski et al. 2005, ApJ 622, 759).

Patches of a given nside, files in either order and plots need no more of HEALPix than this. healpy has it too; it is
here, and tested against healpy, so that a fit needs no extra, nor a compiled dependency more.
"""

import numpy as np

_ROW = np.array([2, 2, 2, 2, 3, 3, 3, 3, 4, 4, 4, 4])  # of each base pixel's southern corner, in units of nside
_COLUMN = np.array([1, 3, 5, 7, 0, 2, 4, 6, 1, 3, 5, 7])


def nside_of(npix: int) -> int:
    """Find the resolution of a full-sky map.

    **Raises:** `ValueError` when no power of two belongs to that many pixels.
    """
    nside = round((npix / 12) ** 0.5)
    if nside < 1 or 12 * nside * nside != npix or nside & (nside - 1):
        raise ValueError(f"{npix} pixels make no HEALPix map: 12 nside^2 with nside a power of two is needed")
    return nside


def ring_to_nest(nside: int) -> np.ndarray:
    """Give for each pixel in RING order its number in NESTED order."""
    order = np.empty(12 * nside * nside, np.int64)
    order[nest_to_ring(nside)] = np.arange(order.size)
    return order


def nest_to_ring(nside: int) -> np.ndarray:
    """Give for each pixel in NESTED order its number in RING order."""
    pixel = np.arange(12 * nside * nside)
    face, inside = np.divmod(pixel, nside * nside)
    x, y = _even_bits(inside), _even_bits(inside >> 1)
    ring = _ROW[face] * nside - x - y - 1  # counted from 1 at the north pole
    north, south = ring < nside, ring > 3 * nside
    length = np.where(north, ring, np.where(south, 4 * nside - ring, nside))  # a quarter of the ring's pixels
    before = np.where(north, 2 * ring * (ring - 1), np.where(south, 12 * nside**2 - 2 * length * (length + 1), 0))
    belt = ~north & ~south
    before = np.where(belt, 2 * nside * (nside - 1) + (ring - nside) * 4 * nside, before)
    shift = np.where(belt, (ring - nside) & 1, 0)
    step = (_COLUMN[face] * length + x - y + 1 + shift) // 2
    step = np.where(step > 4 * nside, step - 4 * nside, np.where(step < 1, step + 4 * nside, step))
    return before + step - 1


def parents(nside: int, coarse: int, nest: bool = False) -> np.ndarray:
    """Give for each pixel of a map the pixel of a coarser map that contains it, in the same order.

    **Raises:** `ValueError` when the coarse resolution is no power of two up to nside.
    """
    if coarse < 1 or coarse & (coarse - 1) or coarse > nside:
        raise ValueError(
            f"a parameter's nside should be a power of two up to {nside}, or 0 for one value, not {coarse}"
        )
    down = (nside // coarse) ** 2
    if nest or coarse == nside:
        return np.arange(12 * nside * nside) // down
    return nest_to_ring(coarse)[ring_to_nest(nside) // down]


def _even_bits(number: np.ndarray) -> np.ndarray:
    """The number made of bits 0, 2, 4, ..."""
    out = np.zeros_like(number)
    for bit in range(29):
        out |= ((number >> (2 * bit)) & 1) << bit
    return out
