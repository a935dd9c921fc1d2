"""Spectra that are not finite: never a success, in any path, and only where they are."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import sky
from hypothesis import given, settings, strategies as st

import jaxsci as js
from jaxsci import compsep

NPIX = 48
NU = np.asarray(sky.LITEBIRD.frequency)[sky.FEW]
WEIGHTS = np.asarray(sky.LITEBIRD.sigma(NPIX, "QU"))[sky.FEW] ** -2.0
BAD = js.RESULTS.nonfinite_start._value
BANDS = compsep.Bands(jnp.asarray(NU)[:, None], jnp.full((6, 1), jnp.nan))
FREE = ("dust.beta", "sync.beta")
PATHS = {
    "cells": {"free": FREE, "patches": 2},
    "one cell": {"free": FREE},
    "groups": {"free": FREE, "patches": {"dust.beta": 1}},
    "tree": {"free": FREE, "patches": {"dust.beta": 2}},
    "nothing free": {"free": ()},
}


def three(beta=1.6, nu0=353.0, temp=19.0, **more):
    dust = compsep.ModifiedBlackBody(beta, temp, nu0)
    return compsep.MixingMatrix(cmb=compsep.CMB(), dust=dust, sync=compsep.PowerLaw(-3.1), **more)


@pytest.fixture(scope="module")
def maps():
    return np.asarray(sky.made(NPIX, "QU")[0])[sky.FEW]


def fit(maps, mixing, nu=NU, **choices):
    return compsep.separate(mixing, nu, maps, **{"inv_n": WEIGHTS, **choices})


def failed(found):
    """All of it, with nothing that looks like an answer."""
    assert found.result.shape[0] > 0
    assert np.all(np.asarray(found.result) == BAD)
    assert not np.any(found.success)
    assert found.verdict == "failed"
    for maps in (found.amplitudes, found.errors, found.chi2, found.covariance, *found.std.values()):
        assert np.isnan(maps).all()
    assert int(found.num_data) == int(found.dof) == 0


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("spoilt", [{"beta": np.nan}, {"nu0": -353.0}, {"nu0": np.inf}], ids=str)
def test_a_spectrum_that_is_not_finite(maps, path, spoilt):
    """`nu0 < 0` is a logarithm of a negative number."""
    failed(fit(maps, three(**spoilt), **PATHS[path]))


@pytest.mark.parametrize("path", ["one cell", "nothing free"])
def test_tables_and_bands_that_are_not_finite(maps, path):
    table = compsep.TabulatedSED(jnp.array([20.0, 100.0, 500.0]), jnp.array([1.0, 1.5, 2.0]))
    # what is refused where a table is made may still come out of a program
    table = eqx.tree_at(lambda t: t.value, table, jnp.array([1.0, jnp.nan, 2.0]))
    mixing = compsep.MixingMatrix(cmb=compsep.CMB(), table=table, sync=compsep.PowerLaw(-3.1))
    how = PATHS[path] if path == "nothing free" else {"free": ("sync.beta",)}
    failed(fit(maps, mixing, **how))
    failed(fit(maps, mixing, BANDS, **how))


@pytest.mark.parametrize("spoilt", [{"beta": np.nan}, {"nu0": -353.0}], ids=str)
def test_in_blocks(tmp_path, maps, spoilt):
    for patches, free in ((None, FREE), (0, FREE), (None, ())):
        out = tmp_path / f"{patches}{len(free)}"
        found = compsep.separate_blocks(
            three(**spoilt), NU, maps, out, inv_n=WEIGHTS, patches=patches, free=free, block=20
        )
        assert np.all(found.result == BAD)
        assert np.isnan(found.amplitudes).all()
        assert np.isnan(found.std).all()
        assert found.totals.failed >= 1
        assert found.totals.chi2 == 0
        assert "failed" in found.summary()


def test_within_transformations(maps):
    def run(maps, beta):
        found = fit(maps, three(beta), free=("sync.beta",))
        return found.result, found.amplitudes, found.std["sync.beta"]

    result, amplitudes, std = jax.jit(jax.vmap(run, (None, 0)))(jnp.asarray(maps), jnp.array([1.6, jnp.nan]))
    np.testing.assert_array_equal(result, [[0], [BAD]])
    np.testing.assert_array_equal(np.isnan(amplitudes).all(axis=(1, 2, 3)), [False, True])
    np.testing.assert_array_equal(np.isnan(std[:, 0]), [False, True])
    good = fit(maps, three(), free=("sync.beta",))
    np.testing.assert_allclose(amplitudes[0], good.amplitudes, rtol=1e-7, atol=1e-7)


EXPONENT = compsep.AnalyticSED("exp(a * nu / nu0)", {"a": 1.0}, nu0=300.0)
"""Its parameter has no bounds, and spectra overflow where it is large."""


@pytest.fixture(scope="module")
def rise():
    return np.random.default_rng(1).uniform(0.8, 1.2, NPIX)


class TestOnlyWhereItIs:
    POISON = st.sets(st.integers(0, NPIX - 1), max_size=6)

    @staticmethod
    def separated(maps, rise, bad, **choices):
        values = rise.copy()
        values[sorted(bad)] = 1e5
        mixing = compsep.MixingMatrix(cmb=compsep.CMB(), x=EXPONENT, sync=compsep.PowerLaw(-3.1))
        return fit(maps, mixing, fixed={"x.a": values}, **choices)

    @pytest.mark.parametrize("choices", [{"free": ()}, {"free": ("sync.beta",), "patches": 2}], ids=["held", "fitted"])
    @given(bad=POISON)
    @settings(max_examples=12, deadline=None, derandomize=True)
    def test_a_pixel_spoils_itself_alone(self, maps, rise, choices, bad):
        found, sound = (self.separated(maps, rise, which, **choices) for which in (bad, ()))
        spoilt = np.isin(np.arange(NPIX), sorted(bad))
        ended = np.append(found.result, 0)[found.group]  # 0 where there is no fit
        np.testing.assert_array_equal(ended == BAD, spoilt)
        np.testing.assert_array_equal(np.isnan(found.chi2), spoilt)
        for one, other in ((found.amplitudes, sound.amplitudes), (found.errors, sound.errors)):
            assert np.isnan(one[..., spoilt]).all()
            np.testing.assert_array_equal(one[..., ~spoilt], other[..., ~spoilt])
        assert np.isfinite(found.cost)
        assert np.isfinite(found.minus_log_like)
        assert int(found.dof) == int(sound.dof) // NPIX * (NPIX - len(bad))

    def test_so_it_does_on_disk(self, tmp_path, maps, rise):
        rise = rise.copy()
        rise[[3, 40]] = 1e5
        mixing = compsep.MixingMatrix(cmb=compsep.CMB(), x=EXPONENT, sync=compsep.PowerLaw(-3.1))
        found = compsep.separate_blocks(mixing, NU, maps, tmp_path, inv_n=WEIGHTS, fixed={"x.a": rise}, block=20)
        np.testing.assert_array_equal(np.flatnonzero(found.result == BAD), [3, 40])
        np.testing.assert_array_equal(np.flatnonzero(np.isnan(found.chi2)), [3, 40])
        assert found.totals.failed == 2
        assert np.isfinite(found.totals.chi2)


class TestHeldValues:
    """Those that are not fitted lie within the bounds that their classes declare, too."""

    @pytest.mark.parametrize("free", [("dust.beta",), ()], ids=len)
    def test_a_number_outside_is_named(self, maps, free):
        with pytest.raises(ValueError, match=r"dust\.temp is held at -20, which is outside of its bounds \(4, 100\)"):
            fit(maps, three(temp=-20.0), free=free)

    def test_a_map_outside_is_named(self, maps):
        temp = np.full(NPIX, 20.0)
        temp[7] = 3.0
        message = r"dust\.temp is held at 3 in 1 pixels \(the first is 7\), which is outside of its bounds"
        with pytest.raises(ValueError, match=message):
            fit(maps, three(), free=(), fixed={"dust.temp": temp})
        found = fit(maps, three(), free=(), fixed={"dust.temp": temp}, mask=np.arange(NPIX) != 7)
        assert found.verdict == "converged, look"  # these spectra are not those of the sky, and chi2 says so
        assert np.isfinite(np.asarray(found.amplitudes)[..., np.arange(NPIX) != 7]).all()

    def test_on_disk_it_spoils_the_pixel(self, tmp_path, maps):
        temp = np.full(NPIX, 20.0)
        temp[7] = 3.0
        how = {"inv_n": WEIGHTS, "free": (), "fixed": {"dust.temp": temp}}
        found = compsep.separate_blocks(three(), NU, maps, tmp_path, **how)
        np.testing.assert_array_equal(np.flatnonzero(found.result), [7])

    def test_a_traced_one_is_no_success(self, maps):
        def run(temp):
            return fit(maps, three(temp=temp), free=()).result

        np.testing.assert_array_equal(jax.jit(jax.vmap(run))(jnp.array([19.0, -20.0])), [[0], [BAD]])

    def test_of_a_combination(self, maps):
        dust = compsep.MixingMatrix(dust=compsep.ModifiedBlackBody(1.6, -20.0))
        with pytest.raises(ValueError, match=r"dust\.temp is held at -20"):
            compsep.ilc(dust, NU, maps)
        with pytest.raises(ValueError, match="the spectrum of dust is nan in channel 0"):
            compsep.ilc(compsep.MixingMatrix(dust=compsep.ModifiedBlackBody(np.nan)), NU, maps)
