"""Our index arithmetic of HEALPix against healpy's."""

import numpy as np
import pytest

from jaxsci.compsep._healpix import nest_to_ring, nside_of, parents, ring_to_nest

healpy = pytest.importorskip("healpy")


@pytest.mark.parametrize("nside", [1, 2, 4, 32, 128])
def test_orders_are_healpys(nside):
    pixel = np.arange(12 * nside**2)
    np.testing.assert_array_equal(nest_to_ring(nside), healpy.nest2ring(nside, pixel))
    np.testing.assert_array_equal(ring_to_nest(nside), healpy.ring2nest(nside, pixel))
    assert nside_of(pixel.size) == nside


@pytest.mark.parametrize(("nside", "coarse"), [(1, 1), (4, 1), (16, 8), (64, 2)])
def test_a_parent_is_the_pixel_that_holds_the_centre(nside, coarse):
    pixel = np.arange(12 * nside**2)
    for nest in (False, True):
        expected = healpy.vec2pix(coarse, *healpy.pix2vec(nside, pixel, nest=nest), nest=nest)
        np.testing.assert_array_equal(parents(nside, coarse, nest), expected)
