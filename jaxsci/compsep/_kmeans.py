"""Patches of about equal size on the sphere.

Spectra vary over the sky, and resolutions of HEALPix only come in powers of four; k-means makes any number of patches,
which follow the border of a mask. A user hands what `kmeans` or `soft_kmeans` returns to `separate(patches=...)`.
"""

import numpy as np

from ._given import Given
from ._healpix import nest_to_ring, nside_of
from ._patches import SoftPatches


def kmeans(count: int, sky: int | Given, *, seed: int = 0, nest: bool = False, iterations: int = 50) -> np.ndarray:
    """Make patches about as wide as they are long, by Lloyd's k-means on the unit vectors of the pixels.

    What `separate(patches=...)` takes: a whole number of patches where resolutions only come in powers of four, and
    patches that follow a mask's border.

    **Arguments:** `count`: of patches. `sky`: an nside, or a mask (pixel,), True = used. `seed`: of where the search
    starts; the same seed gives the same patches. `nest`: the mask, and the answer, are in NESTED order.

    **Returns:** the number of each pixel's patch, 0 to count - 1; -1 outside of the mask.

    **Raises:** `ValueError` for more patches than pixels, a wrong mask, and where a patch ran empty.
    """
    order, pixel, points = _points(count, sky, nest)
    number = np.full(order.size, -1)
    number[pixel] = _clusters(points, count, seed, iterations)[1]
    return number[order]


def soft_kmeans(
    count: int,
    sky: int | Given,
    *,
    nearest: int = 4,
    width: float | None = None,
    seed: int = 0,
    nest: bool = False,
    iterations: int = 50,
) -> SoftPatches:
    """Make the patches of `kmeans` without borders: each pixel has shares in the nearest ones.

    Their weights are w ~ exp(-angle^2 / (2 width^2)) of the angle to the middle of each patch.

    **Arguments:** as in `kmeans`. `nearest`: how many patches a pixel has shares in. `width`: in degrees; by default
    half the side of a square of a patch's mean area. The wider, the less do neighbours differ, and the larger are the
    errors of each patch's value.

    **Raises:** `ValueError` as `kmeans`, for a `width` that is not positive, and for `nearest` beyond `count`.
    """
    from scipy.spatial import cKDTree

    if not 1 <= nearest <= count:
        raise ValueError(f"nearest should be from 1 to {count}, the number of patches, but it is {nearest}")
    if width is not None and not width > 0:
        raise ValueError(f"width should be a positive angle in degrees, but it is {width}")
    order, pixel, points = _points(count, sky, nest)
    middle = _clusters(points, count, seed, iterations)[0]
    middle /= np.linalg.norm(middle, axis=1, keepdims=True)
    chord, number = (x.reshape(len(points), nearest).T for x in cKDTree(middle).query(points, nearest))
    scale = np.sqrt(np.pi * len(points) / (order.size * count)) if width is None else np.radians(width)
    square = (2 * np.arcsin(np.minimum(chord / 2, 1)) / scale) ** 2
    weight = np.exp((square.min(axis=0) - square) / 2)
    numbers, weights = np.full((nearest, order.size), -1), np.zeros((nearest, order.size))
    numbers[:, pixel], weights[:, pixel] = number, weight / weight.sum(axis=0)
    return SoftPatches(numbers[:, order], weights[:, order])


def _points(count: int, sky: int | Given, nest: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(the RING number of each pixel; the pixels in use; their vectors)."""
    import healpy

    given = np.asarray(sky)
    used = np.ones(12 * int(given) ** 2, bool) if given.ndim == 0 else given
    nside = nside_of(used.size)
    if used.ndim != 1 or used.dtype != bool:
        raise ValueError(f"a mask should be bool[{used.size}] (True = used), but it is {used.dtype}{list(used.shape)}")
    order = nest_to_ring(nside) if nest else np.arange(used.size)
    pixel = np.sort(order[used])  # so that both orders have one answer
    if not 1 <= count <= pixel.size:
        raise ValueError(f"{count} patches take as many pixels, but there are {pixel.size}")
    return order, pixel, np.stack(healpy.pix2vec(nside, pixel), axis=1)


def _clusters(points: np.ndarray, count: int, seed: int, iterations: int) -> tuple[np.ndarray, np.ndarray]:
    """(the middle of each patch, the patch of each point)."""
    from scipy.cluster.vq import ClusterError, kmeans2

    start = points[np.random.default_rng(seed).choice(len(points), count, replace=False)]
    try:
        return kmeans2(points, start, iter=iterations, minit="matrix", missing="raise")
    except ClusterError as error:
        raise ValueError(
            f"one of {count} patches ran empty: take another seed than {seed}, or fewer patches"
        ) from error
