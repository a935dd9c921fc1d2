"""What older codes got wrong in silence, and data that invite it: the right answer, or an error that says so."""

import jax.numpy as jnp
import numpy as np
import pytest
import sky

from jaxsci import compsep
from jaxsci.compsep._healpix import parents

NPIX = 48
NU = np.asarray(sky.LITEBIRD.frequency)[sky.FEW]
WEIGHTS = np.asarray(sky.LITEBIRD.sigma(NPIX, "QU"))[sky.FEW] ** -2.0


def three(beta=1.6, **more):
    return compsep.MixingMatrix(
        cmb=compsep.CMB(), dust=compsep.ModifiedBlackBody(beta, 19.0), sync=compsep.PowerLaw(-3.1), **more
    )


@pytest.fixture(scope="module")
def made():
    return np.asarray(sky.made(NPIX, "QU")[0])


@pytest.fixture
def maps(made):
    """For a test to spoil."""
    return made[sky.FEW]


def fit(maps, mixing=None, **choices):
    how = {"inv_n": WEIGHTS, "free": ("dust.beta",), "patches": 2, **choices}
    return compsep.separate(three() if mixing is None else mixing, NU, maps, **how)


def same(one, other):
    np.testing.assert_allclose(one.values["dust.beta"], other.values["dust.beta"], rtol=1e-10)
    np.testing.assert_allclose(one.amplitudes, other.amplitudes, rtol=1e-8, atol=1e-8)
    np.testing.assert_allclose(one.errors, other.errors, rtol=1e-8)


@pytest.mark.parametrize("patches", [2, {"dust.beta": 1}], ids=["cells", "groups"])
def test_a_fit_that_was_cut_short_is_no_success(maps, patches):
    choices = {"patches": patches, "free": ("dust.beta", "sync.beta")}
    whole, cut = (fit(maps, three(1.4), max_steps=most, **choices) for most in (100, 2))
    assert bool(whole.success.all())
    assert not bool(cut.success.any())
    assert "0 of" in cut.summary()


def test_success_is_at_the_optimum(maps):
    """No fit calls itself a failure there: all are where a search a thousand times as strict ends."""
    one, strict = fit(maps), fit(maps, tolerance=1e-9)
    assert bool(one.success.all())
    off = np.asarray(one.values["dust.beta"] - strict.values["dust.beta"]) / np.asarray(one.std["dust.beta"])
    assert np.max(np.abs(off)) < 1e-6


def test_components_that_are_alike_have_no_finite_errors(maps):
    """A singular system is not inverted: no number that looks like an error, and no exception either."""
    found = fit(maps, three(other=compsep.PowerLaw(-3.1)))
    assert np.all(np.isposinf(found.errors))
    alone = fit(maps)
    np.testing.assert_allclose(found.values["dust.beta"], alone.values["dust.beta"], rtol=1e-6)
    both = found.component("sync") + found.component("other")
    np.testing.assert_allclose(both, alone.component("sync"), rtol=1e-5)


def test_pixels_that_say_nothing_of_their_spectra_are_marked(maps):
    """Zeros where a map has no data: errors without bound, never NaN, and nothing happens to the neighbours."""
    maps[:, :, 7] = 0
    found, mask = fit(maps), np.arange(NPIX) != 7
    assert np.isposinf(found.std["dust.beta"][7])
    assert np.all(np.isposinf(found.errors[:, :, 7]))
    assert np.all(found.amplitudes[:, :, 7] == 0)
    assert np.all(np.isfinite(found.errors[:, :, mask]))
    np.testing.assert_array_equal(found.parameter_map("dust.beta")[mask], fit(maps, mask=mask).values["dust.beta"])


def test_as_many_pixels_as_channels_are_pixels_still(maps):
    """Maps of parameters of the length of the channels, which an older code took for spectra."""
    temp = np.linspace(18, 21, 7)
    mixing, patches = three(), np.arange(7)
    few = fit(maps[..., :6], mixing, patches=patches[:6], fixed={"dust.temp": temp[:6]})
    more = fit(maps[..., :7], mixing, patches=patches, fixed={"dust.temp": temp})
    np.testing.assert_array_equal(few.values["dust.beta"], more.values["dust.beta"][:6])
    np.testing.assert_array_equal(few.errors, more.errors[..., :6])


def test_adaptive_patches_have_covariances(maps):
    patches = [parents(2, 1), np.zeros(NPIX, int)]
    found = compsep.adaptive_comp_sep(three(), NU, maps, patches, free=("dust.beta", "sync.beta"), inv_n=WEIGHTS)
    for k in (0, 30):
        block = np.asarray(found.covariance[..., found.cell[k]])
        assert np.all(np.linalg.eigvalsh(block) > 0)
        np.testing.assert_allclose(block[0, 0] ** 0.5, found.error_map("dust.beta")[k], rtol=1e-12)
        assert found.std["sync.beta"][0] == pytest.approx(block[1, 1] ** 0.5, rel=1e-12)


def test_free_free_is_separated_from_dust():
    """Its spectrum can be made, and its amplitude comes back."""
    mixing = compsep.MixingMatrix(cmb=compsep.CMB(), dust=compsep.ModifiedBlackBody(1.6, 19.0), ff=compsep.FreeFree())
    amplitudes = np.random.default_rng(0).normal(size=(3, 2, NPIX)) + np.array([0.0, 60, 40])[:, None, None]
    clean = np.einsum("fc,csp->fsp", np.asarray(mixing.eval(jnp.asarray(NU))), amplitudes)
    found = fit(clean, mixing)
    np.testing.assert_allclose(found.amplitudes, amplitudes, rtol=1e-6, atol=1e-6)


class TestMarks:
    def test_a_masked_array_masks(self, maps):
        mask = np.arange(NPIX) % 5 == 0
        found = fit(np.ma.masked_array(maps, np.broadcast_to(mask, maps.shape)))
        np.testing.assert_array_equal(np.asarray(found.used), ~mask)
        same(found, fit(maps, mask=~mask))
        whole = np.ma.masked_array(maps, np.broadcast_to(mask, maps.shape))
        combined = compsep.ilc(compsep.MixingMatrix(cmb=compsep.CMB()), NU, whole)
        np.testing.assert_array_equal(np.isnan(np.asarray(combined.amplitudes[0, 0])), mask)

    def test_unseen_in_one_channel_takes_the_pixel_out(self, maps):
        hole, blank = maps.copy(), maps.copy()
        hole[2, 1, 5] = blank[4, 0, 9] = compsep.UNSEEN
        mask = ~np.isin(np.arange(NPIX), [5])
        same(fit(hole), fit(maps, mask=mask))
        weights = WEIGHTS.copy()
        weights[4] = 0  # but not where it has no weight
        assert bool(fit(blank, inv_n=weights).used.all())

    @pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
    def test_what_is_not_finite_is_named(self, maps, value):
        maps[1, 0, 9] = value
        if value == -np.inf:  # below UNSEEN: masked as that
            assert not bool(fit(maps).used[9])
            return
        with pytest.raises(ValueError, match=r"not finite in 1 pixels \(the first is 9\)"):
            fit(maps)

    def test_channels_of_a_pixel_may_be_fewer_than_components(self, maps):
        weights = np.broadcast_to(WEIGHTS[:, :, None], maps.shape).copy()
        weights[:4, :, 11] = 0
        found = fit(maps, inv_n=weights)
        np.testing.assert_array_equal(np.flatnonzero(~np.asarray(found.used)), [11])


class TestKinds:
    def test_numbers_as_fits_files_have_them(self, maps):
        """Big-endian, in single precision."""
        plain = maps.astype(np.float32)
        same(fit(plain.astype(">f4")), fit(plain.astype(float)))

    def test_units_of_maps_and_depths(self, made):
        one = compsep.separate(three(), sky.LITEBIRD, made, free=("dust.beta",))
        other = compsep.separate(three(), sky.LITEBIRD, made * 1e-6, free=("dust.beta",), units="K_CMB")
        np.testing.assert_allclose(other.values["dust.beta"], one.values["dust.beta"], rtol=1e-10)
        np.testing.assert_allclose(other.errors * 1e6, one.errors, rtol=1e-8)

    def test_depths_take_a_whole_sphere(self, maps):
        with pytest.raises(ValueError, match="30 pixels make no whole sphere that tells theirs: give inv_n"):
            compsep.separate(three(), sky.LITEBIRD, np.zeros((15, 2, 30)), free=("dust.beta",))

    @pytest.mark.parametrize("inv_n", [np.nan, np.inf, -1.0])
    def test_noise_that_is_none_is_named(self, maps, inv_n):
        with pytest.raises(ValueError, match="the inverse noise has a NaN, a negative variance"):
            fit(maps, inv_n=np.full(6, inv_n))

    def test_kinds_that_are_no_maps_are_named(self, maps):
        with pytest.raises(ValueError, match="maps should be real"):
            fit(maps + 0j)
        with pytest.raises(ValueError, match=r"mask should be bool\[48\] \(True = used\), but it is int64"):
            fit(maps, mask=np.ones(NPIX, int))
        with pytest.raises(ValueError, match=r"component 'dust' is in K_CMB, but the maps are in uK_RJ|'cmb' is in"):
            fit(maps, units="uK_RJ")
        with pytest.raises(ValueError, match=r"patches of dust.beta should be 48 integers.* float64"):
            fit(maps, patches=np.zeros(NPIX))
