"""What arrays carry beside their numbers: a mask counts as one, a unit is converted or refused, nothing is dropped."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import sky
from hypothesis import given, settings, strategies as st

from jaxsci import compsep

NPIX = 48
NU = np.asarray(sky.LITEBIRD.frequency)[sky.FEW]
WEIGHTS = np.asarray(sky.LITEBIRD.sigma(NPIX, "QU"))[sky.FEW] ** -2.0
FREE = ("dust.beta",)
QUICK = settings(max_examples=10, deadline=None, derandomize=True)


def three(**more):
    dust = compsep.ModifiedBlackBody(1.6, 19.0, **more)
    return compsep.MixingMatrix(cmb=compsep.CMB(**more), dust=dust, sync=compsep.PowerLaw(-3.1, **more))


@pytest.fixture(scope="module")
def maps():
    return np.asarray(sky.made(NPIX, "QU")[0])[sky.FEW]


def fit(maps, mixing=None, nu=NU, **choices):
    how = {"inv_n": WEIGHTS, "free": FREE, "patches": 2, **choices}
    return compsep.separate(three() if mixing is None else mixing, nu, maps, **how)


def same(one, other, scale=1.0):
    """The same answer, whose maps may be in other units."""
    np.testing.assert_array_equal(one.used, other.used)
    np.testing.assert_allclose(one.values["dust.beta"], other.values["dust.beta"], rtol=1e-9)
    np.testing.assert_allclose(one.amplitudes * scale, other.amplitudes, rtol=1e-8, atol=1e-8)
    np.testing.assert_allclose(one.errors * scale, other.errors, rtol=1e-7)


class TestMasks:
    @given(hidden=st.sets(st.integers(0, NPIX - 1), max_size=20), channel=st.integers(0, 5))
    @QUICK
    def test_every_way_to_mask_is_the_same(self, maps, hidden, channel):
        behind = np.isin(np.arange(NPIX), sorted(hidden))
        by_mask = fit(maps, mask=~behind)
        np.testing.assert_array_equal(by_mask.used, ~behind)
        unseen, one_channel = maps.copy(), np.zeros(maps.shape, bool)
        unseen[channel][:, behind] = compsep.UNSEEN
        one_channel[channel, 0, behind] = True
        rubbish = np.where(behind, 1e30, maps)  # behind a mask there may be anything
        whole = np.broadcast_to(behind, maps.shape)
        ways = [
            fit(unseen),
            fit(np.ma.masked_array(rubbish, whole)),
            fit(np.ma.masked_array(np.where(one_channel, np.nan, maps), one_channel)),
            fit([np.ma.masked_array(*pair) for pair in zip(rubbish, whole, strict=True)]),
            fit(maps, mask=np.ma.masked_array(np.ones(NPIX, bool), behind)),
            fit(maps, inv_n=np.ma.masked_array(np.broadcast_to(WEIGHTS[:, :, None], maps.shape), whole)),
            fit(maps, patches=np.ma.masked_array(np.arange(NPIX), behind)),
            fit(maps, fixed={"sync.beta": np.ma.masked_array(np.where(behind, np.nan, -3.1), behind)}),
        ]
        for found in ways:
            same(found, by_mask)

    def test_on_disk(self, maps, tmp_path):
        behind = np.arange(NPIX) % 7 == 0
        masked = np.ma.masked_array(np.where(behind, 1e30, maps), np.broadcast_to(behind, maps.shape))
        found = compsep.separate_blocks(three(), NU, masked, tmp_path, inv_n=WEIGHTS, free=FREE, block=20)
        np.testing.assert_array_equal(found.result == -1, behind)

    def test_variances_behind_a_mask_have_no_weight(self, maps):
        variance = np.broadcast_to(1 / WEIGHTS[:, :, None], maps.shape).copy()
        behind = np.zeros(maps.shape, bool)
        behind[2, :, 5] = True
        found = compsep.weighted_comp_sep(three(), NU, maps, np.ma.masked_array(variance, behind), nside=2, free=FREE)
        variance[behind] = np.inf
        same(found, compsep.weighted_comp_sep(three(), NU, maps, variance, nside=2, free=FREE))

    def test_of_combinations(self, maps):
        cmb, behind = compsep.MixingMatrix(cmb=compsep.CMB()), np.arange(NPIX) < 3
        expected = compsep.ilc(cmb, NU, maps, mask=~behind).amplitudes
        by_mask = compsep.ilc(cmb, NU, maps, mask=np.ma.masked_array(np.ones(NPIX, bool), behind)).amplitudes
        by_region = compsep.ilc(cmb, NU, maps, regions=np.ma.masked_array(np.zeros(NPIX, int), behind)).amplitudes
        np.testing.assert_array_equal(by_mask, expected)
        np.testing.assert_array_equal(by_region, expected)


class TestStokesParametersWithoutWeight:
    def test_q_is_kept_where_u_has_none(self, maps):
        weights = np.broadcast_to(WEIGHTS[:, :, None], maps.shape).copy()
        weights[:, 1, 5] = 0
        weights[:4, 1, 9] = 0  # two channels tell no three components apart
        data = maps.copy()
        data[:, 1, 5] = compsep.UNSEEN
        found, q = fit(data, inv_n=weights), fit(data[:, :1], inv_n=weights[:, :1])
        assert bool(found.used.all())
        for k in (5, 9):
            assert np.isnan(found.amplitudes[:, 1, k]).all()
            assert np.isnan(found.errors[:, 1, k]).all()
            np.testing.assert_allclose(found.amplitudes[:, 0, k], q.amplitudes[:, 0, k], rtol=1e-8)
            np.testing.assert_allclose(found.chi2[k], q.chi2[k], rtol=1e-8)
        assert int(found.num_data) == maps.size - 12
        assert int(found.dof) == maps.size - 12 - 3 * (2 * NPIX - 2) - NPIX
        assert 0.7 < float(jnp.sum(found.chi2)) / int(found.dof) < 1.3

    def test_nowhere_at_all(self, maps):
        weights = WEIGHTS.copy()
        weights[:4, 1] = 0
        found, q = fit(maps, inv_n=weights), fit(maps[:, :1], inv_n=weights[:, :1])
        assert np.isnan(found.amplitudes[:, 1]).all()
        np.testing.assert_allclose(found.amplitudes[:, 0], q.amplitudes[:, 0], rtol=1e-8)
        assert int(found.dof) == int(q.dof)

    def test_on_disk(self, maps, tmp_path):
        weights = np.broadcast_to(WEIGHTS[:, :, None], maps.shape).copy()
        weights[:, 1, 5] = 0
        found = compsep.separate_blocks(three(), NU, maps, tmp_path, inv_n=weights, free=FREE, block=20)
        assert (found.result == 0).all()
        assert found.totals.dof == maps.size - 6 - 3 * (2 * NPIX - 1) - NPIX
        np.testing.assert_array_equal(np.argwhere(np.isnan(found.amplitudes[0])), [[1, 5]])


@pytest.fixture(scope="module")
def u():
    return pytest.importorskip("astropy.units")


class TestUnits:
    @given(prefix=st.sampled_from(["", "m", "u", "n"]), declared=st.sampled_from(["uK_CMB", "K_CMB", "mK_CMB"]))
    @QUICK
    def test_quantities_are_converted(self, maps, u, prefix, declared):
        unit = u.Unit(f"{prefix}K")
        given = maps * u.uK.to(unit) * unit
        found = fit(given, inv_n=WEIGHTS / u.uK**2, nu=(NU * 1e9) * u.Hz, units=declared)
        scale = compsep.conversion(jnp.array(100.0), declared, "uK_CMB")
        same(found, fit(maps), float(scale))

    def test_those_of_other_kinds_are_named(self, maps, u):
        with pytest.raises(ValueError, match=r"maps has the unit MJy / sr, but uK_CMB is declared"):
            fit(maps * u.MJy / u.sr)
        with pytest.raises(ValueError, match=r"inv_n has the unit uK, but \(uK_CMB\)\^-2 is declared"):
            fit(maps, inv_n=WEIGHTS * u.uK)
        with pytest.raises(ValueError, match="frequencies has the unit K, but GHz is declared"):
            fit(maps, nu=NU * u.K)
        with pytest.raises(ValueError, match="maps has the unit uK, but plain numbers is declared"):
            compsep.ilc(compsep.MixingMatrix(cmb=compsep.CMB()), NU, maps * u.uK)
        rj = u.def_unit("uK_RJ", 1e-6 * u.K)
        with pytest.raises(ValueError, match=r"maps has the unit uK_RJ, but uK_CMB is declared"):
            fit(maps * rj)

    def test_of_instruments_and_fixed_maps(self, maps, u):
        one = compsep.Instrument([0.1, 0.2] * u.THz, fwhm=[1.0, 2.0] * u.deg, depth_p=[1e-3, 2e-3] * u.mK * u.arcmin)
        np.testing.assert_allclose(one.frequency, [100, 200])
        np.testing.assert_allclose(one.fwhm, [60, 120])
        np.testing.assert_allclose(one.depth_p, [1, 2])
        temp = np.linspace(18, 21, NPIX)
        same(fit(maps, fixed={"dust.temp": temp * 1e3 * u.mK}), fit(maps, fixed={"dust.temp": temp}))

    @given(power=st.sampled_from([-9, -6, -3, -2, 2, 3, 6]))
    @QUICK
    def test_a_scale_that_is_wrong_is_said(self, maps, power):
        """The same numbers in another unit than their noise: an answer like any other, but for its chi2."""
        found = fit(maps * 10.0**power)
        assert found.verdict != "converged"
        said = "Are data and sigma in one unit?" if power < 0 else "which the noise as given does not allow"
        assert said in found.summary()

    def test_a_sound_one_needs_no_look(self, maps):
        found = fit(maps)
        assert found.remarks == ()
        assert found.summary().endswith("converged")

    def test_complex_numbers_are_refused(self, maps):
        with pytest.raises(ValueError, match="maps should be real"):
            fit(maps + 0j)
        with pytest.raises(ValueError, match="inv_n is complex"):
            fit(maps, inv_n=WEIGHTS + 0j)
        with pytest.raises(ValueError, match="maps should be real"):
            compsep.ilc(compsep.MixingMatrix(cmb=compsep.CMB()), NU, maps + 0j)
        with pytest.raises(ValueError, match="maps should be real"):
            jax.jit(lambda maps: fit(maps).result)(jnp.asarray(maps).astype(complex))
