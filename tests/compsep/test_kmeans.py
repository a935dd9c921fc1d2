"""Patches on the sphere."""

import jax.numpy as jnp
import numpy as np
import pytest
import sky

from jaxsci import compsep
from jaxsci.compsep._healpix import nest_to_ring

healpy = pytest.importorskip("healpy")
NSIDE, COUNT = 16, 50
NPIX = 12 * NSIDE**2
POINTS = np.stack(healpy.pix2vec(NSIDE, np.arange(NPIX)), axis=1)


@pytest.fixture(scope="module")
def patches():
    return compsep.kmeans(COUNT, NSIDE, iterations=200)


def test_each_pixel_is_nearest_to_the_middle_of_its_patch(patches):
    assert sorted(set(patches)) == list(range(COUNT))
    middle = np.stack([POINTS[patches == k].mean(axis=0) for k in range(COUNT)])
    nearest = np.argmin(np.sum((POINTS[:, None] - middle[None]) ** 2, axis=2), axis=1)
    assert np.mean(nearest == patches) > 0.995  # Lloyd's iterations have all but ended
    width = np.array([np.sqrt(np.mean(np.sum((POINTS[patches == k] - middle[k]) ** 2, axis=1))) for k in range(COUNT)])
    disc = np.sqrt(2 / COUNT)  # rms distance from the middle of a disc of area 4 pi / count
    assert np.all(width < 1.4 * disc)
    sizes = np.bincount(patches)
    assert sizes.max() < 3 * sizes.min()


def test_patches_do_not_touch_what_is_masked(patches):
    mask = np.abs(POINTS[:, 2]) > 0.3
    own = compsep.kmeans(COUNT, mask, seed=3)
    assert np.array_equal(own >= 0, mask)
    assert sorted(set(own[mask])) == list(range(COUNT))
    north = POINTS[:, 2] > 0
    assert np.mean([len(set(north[own == k])) == 1 for k in range(COUNT)]) == 1.0  # none reaches across the gap


def test_the_seed_and_the_order(patches):
    assert np.array_equal(compsep.kmeans(COUNT, NSIDE, iterations=200), patches)
    assert not np.array_equal(compsep.kmeans(COUNT, NSIDE, seed=1, iterations=200), patches)
    order = nest_to_ring(NSIDE)
    mask = POINTS[:, 2] < 0.5
    ring, nest = compsep.kmeans(9, mask), compsep.kmeans(9, mask[order], nest=True)
    assert np.array_equal(nest, ring[order])


def test_wrong_input_is_named():
    with pytest.raises(ValueError, match="3073 patches take as many pixels, but there are 3072"):
        compsep.kmeans(3073, NSIDE)
    with pytest.raises(ValueError, match="100 pixels make no HEALPix map"):
        compsep.kmeans(3, np.ones(100, bool))
    with pytest.raises(ValueError, match=r"a mask should be bool\[192\]"):
        compsep.kmeans(3, np.ones(192))


def test_a_fit_takes_them():
    """A value of beta_d for each patch comes back from where the patches are."""
    nside = 4
    npix = 12 * nside**2
    patch = compsep.kmeans(5, np.arange(npix) % 11 != 0)
    truth = np.linspace(1.5, 1.62, 5)
    maps = np.full((15, 2, npix), compsep.UNSEEN)
    for k in range(5):
        maps[:, :, patch == k] = np.asarray(sky.made(npix, "QU", beta=truth[k], seed=k)[0])[:, :, patch == k]
    mixing = compsep.MixingMatrix(
        cmb=compsep.CMB(), dust=compsep.ModifiedBlackBody(1.54, 19.0), sync=compsep.PowerLaw(-3.1)
    )
    found = compsep.separate(mixing, sky.LITEBIRD, jnp.asarray(maps), free=("dust.beta",), patches=patch)
    pulls = (np.asarray(found.values["dust.beta"]) - truth) / np.asarray(found.std["dust.beta"])
    assert np.max(np.abs(pulls)) < 3.5
    assert np.array_equal(np.asarray(found.index["dust.beta"]), patch)


def test_soft_patches_are_those_of_the_nearest_middles(patches):
    """Weights by the angle to the middles, whatever the order of pixels and how many are within reach."""
    soft = compsep.soft_kmeans(COUNT, NSIDE, nearest=3, width=8.0, iterations=200)
    assert np.array_equal(soft.numbers[0], patches)  # the nearest first
    np.testing.assert_allclose(soft.weights.sum(axis=0), 1, rtol=1e-14)
    middle = np.stack([POINTS[patches == k].mean(axis=0) for k in range(COUNT)])
    middle /= np.linalg.norm(middle, axis=1)[:, None]
    angle = np.degrees(np.arccos(np.clip(POINTS @ middle.T, -1, 1)))
    order = np.argsort(angle, axis=1)[:, :3].T
    expected = np.exp(-(np.take_along_axis(angle.T, order, 0) ** 2) / (2 * 8.0**2))
    np.testing.assert_allclose(soft.weights, expected / expected.sum(axis=0), rtol=1e-2)  # Lloyd's last moves
    assert np.mean(soft.numbers == order) > 0.99


def test_width_and_reach_of_soft_patches():
    hard = compsep.kmeans(9, 4)
    narrow = compsep.soft_kmeans(9, 4, width=1e-3)
    assert np.array_equal(narrow.numbers[0], hard)
    assert np.mean(narrow.weights[0] == 1) > 0.95  # but for pixels half way between
    wide = compsep.soft_kmeans(9, 4, nearest=9, width=1e4)
    np.testing.assert_allclose(wide.weights, 1 / 9, rtol=1e-3)
    mask = POINTS[:192, 2] < 0.9
    order = nest_to_ring(4)
    ring, nest = compsep.soft_kmeans(5, mask), compsep.soft_kmeans(5, mask[order], nest=True)
    assert np.array_equal(nest.numbers, ring.numbers[:, order])
    assert np.array_equal(ring.used, mask)
    assert np.all(ring.weights[:, ~mask] == 0)


def test_wrong_reach_is_named():
    with pytest.raises(ValueError, match="nearest should be from 1 to 3"):
        compsep.soft_kmeans(3, 4, nearest=4)
    with pytest.raises(ValueError, match="width should be a positive angle in degrees"):
        compsep.soft_kmeans(5, 4, width=-1.0)
