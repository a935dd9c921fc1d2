"""Patches of about equal size on the sphere."""

from typing import Any

import numpy as np

from ._healpix import nest_to_ring, nside_of


def kmeans(count: int, sky: Any, *, seed: int = 0, nest: bool = False, iterations: int = 50) -> np.ndarray:
    """Patches about as wide as they are long, by Lloyd's k-means on the unit vectors of the pixels.

    What `separate(patches=...)` takes: a whole number of patches where resolutions only come in powers of four, and
    patches that follow a mask's border.

    **Arguments:** `count`: of patches. `sky`: an nside, or a mask (pixel,), True = used. `seed`: of where the search
    starts; the same seed gives the same patches. `nest`: the mask, and the answer, are in NESTED order.

    **Returns:** the number of each pixel's patch, 0 to count - 1; -1 outside of the mask.

    **Raises:** `ValueError` for more patches than pixels, a wrong mask, and where a patch ran empty.
    """
    import healpy
    from scipy.cluster.vq import ClusterError, kmeans2

    used = np.ones(12 * int(sky) ** 2, bool) if np.ndim(sky) == 0 else np.asarray(sky)
    nside = nside_of(used.size)
    if used.ndim != 1 or used.dtype != bool:
        raise ValueError(f"a mask should be bool[{used.size}] (True = used), but it is {used.dtype}{list(used.shape)}")
    order = nest_to_ring(nside) if nest else np.arange(used.size)
    pixel = np.sort(order[used])
    if not 1 <= count <= pixel.size:
        raise ValueError(f"{count} patches take as many pixels, but there are {pixel.size}")
    points = np.stack(healpy.pix2vec(nside, pixel), axis=1)
    start = points[np.random.default_rng(seed).choice(pixel.size, count, replace=False)]
    try:
        number = kmeans2(points, start, iter=iterations, minit="matrix", missing="raise")[1]
    except ClusterError as error:
        raise ValueError(
            f"one of {count} patches ran empty: take another seed than {seed}, or fewer patches"
        ) from error
    ring = np.full(used.size, -1)
    ring[pixel] = number
    return ring[order]
