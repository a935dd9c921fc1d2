"""The door for maps: what every recipe checks, in the same words, before anything is estimated."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsci import compsep

NU = np.array([30.0, 95.0, 150.0, 353.0])
NPIX = 12 * 2**2
CMB = compsep.MixingMatrix(cmb=compsep.CMB())


def maps(s=2):
    return np.random.default_rng(0).normal(size=(len(NU), s, NPIX))


def combined(given, **more):
    return compsep.ilc(CMB, NU, given, **more)


def separated(given, **more):
    return compsep.separate(CMB, NU, given, inv_n=np.ones(len(NU)), **more)


def read(given, **more):
    return compsep.Sky.of(NU, given, np.ones(len(NU)), **more)


def in_harmonics(given):
    return compsep.harmonic_comp_sep(CMB, NU, given, inv_n=np.ones((len(NU), 5)))


def combined_in_harmonics(given):
    return compsep.harmonic_ilc(CMB, NU, given)


DOORS = (combined, separated, read, in_harmonics, combined_in_harmonics)


@pytest.mark.parametrize("door", DOORS, ids=lambda door: door.__name__)
def test_wrong_maps_are_refused_in_the_same_words(door):
    with pytest.raises(ValueError, match=r"maps should have shape \(f, s, pixel\) with f = 4 channels"):
        door(maps()[:3])
    with pytest.raises(ValueError, match="s = 1"):
        door(maps(4))
    with pytest.raises(ValueError, match="maps should be real"):
        door(maps() * 1j)


@pytest.mark.parametrize("door", [combined, separated, read], ids=lambda door: door.__name__)
def test_what_is_not_finite_is_refused_unless_it_is_masked(door):
    given = maps()
    given[1, 0, 9] = np.nan
    with pytest.raises(ValueError, match=r"not finite in 1 pixels \(the first is 9\)"):
        door(given)
    door(given, mask=np.arange(NPIX) != 9)
    with pytest.raises(ValueError, match=r"mask should be bool\[48\]"):
        door(given, mask=np.ones(3, bool))


def test_pixels_and_stokes_parameters_are_sorted_out():
    given = maps(3)
    given[2, 1, 4] = compsep.UNSEEN
    given[0, 0, 7] = np.inf
    inv_n = np.stack([np.full(len(NU), 1.0), np.full(len(NU), 4.0), np.full(len(NU), 4.0)], axis=1)
    sky = compsep.Sky.of(NU, given, inv_n, np.arange(NPIX) != 0, strict=False)
    np.testing.assert_array_equal(np.flatnonzero(~sky.used), [0, 4, 7])
    np.testing.assert_array_equal(np.flatnonzero(sky.bad), [7])
    assert sky.sets == ((0,), (1, 2))
    assert not sky.by_pixel
    np.testing.assert_array_equal(sky.root[2], np.full((len(NU), 1), 2.0))


def test_a_stokes_parameter_with_too_few_channels_has_no_weight():
    inv_n = np.ones((len(NU), 2, NPIX))
    inv_n[1:, 1, 5] = 0
    inv_n[1:, :, 6] = 0
    sky = compsep.Sky.of(NU, maps(), inv_n, columns=2)
    np.testing.assert_array_equal(np.flatnonzero(~sky.used), [6])
    assert not sky.root[1][:, 5].any()
    assert sky.root[0][:, 5].all()


def test_matrices_of_noise_within_a_transformation():
    """Noise that is known, maps that are not: the roots are found there, and mean what they do outside."""
    inv_n = np.diag(np.arange(1.0, 5.0)) + 0.1
    outside = compsep.separate(CMB, NU, maps(), inv_n=inv_n)
    inside = jax.jit(lambda given: compsep.separate(CMB, NU, given, inv_n=inv_n))(jnp.asarray(maps()))
    np.testing.assert_allclose(inside.amplitudes, outside.amplitudes, rtol=1e-12)
    np.testing.assert_allclose(inside.errors, outside.errors, rtol=1e-12)


def test_the_likelihood_of_a_sky_has_its_noise_and_its_pixels():
    used = np.arange(NPIX) % 3 != 0
    sky = compsep.Sky.of(NU, maps(), np.array([4.0, 1.0, 1.0, 0.0]), used)
    data = compsep.SkyDataset.of(sky)
    assert data.data.shape == (1, len(NU), 2, int(used.sum()))
    np.testing.assert_allclose(data.data[0, 0], 2 * maps()[0][:, used], rtol=1e-14)
    assert not np.asarray(data.data[0, 3]).any()
    np.testing.assert_array_equal(data.count, np.full((1, int(used.sum())), 2.0))
