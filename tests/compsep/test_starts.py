"""Skies whose likelihood has two maxima, with the answer known in closed form."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxsci as js
from jaxsci import compsep

NU = np.array([30.0, 44.0, 70.0, 100.0])
NPIX = 12
EVEN = compsep.AnalyticSED("(nu/nu0)**(0.5*x*x - 3.0)", given="K_RJ", nu0=30.0)  # of x and -x alike
START = js.put(compsep.MixingMatrix(cmb=compsep.CMB(), s=EVEN), {"s.x": 1.0})
OPTIONS = {"free": "s.x", "bounds": {"s.x": (-3, 3)}, "patches": np.arange(NPIX) // 3, "inv_n": np.full(4, 100.0)}
PRIOR = {"s.x": js.Normal(-1.5, 1.0)}
BACK = {"s.x": [-1.0]}


@pytest.fixture(scope="module")
def maps():
    rng = np.random.default_rng(0)
    amplitudes = rng.normal(size=(2, 1, NPIX)) * 3 + 20
    A = np.asarray(js.put(START, {"s.x": -1.2}).eval(jnp.asarray(NU)))
    return np.einsum("fc,csp->fsp", A, amplitudes) + rng.normal(size=(4, 1, NPIX)) * 0.1


def test_minima_that_are_alike_are_told(maps):
    one = compsep.separate(START, NU, maps, **OPTIONS)
    assert one.verdict == "converged"
    assert not one.alternatives
    for starts in (BACK, 3):
        both = compsep.separate(START, NU, maps, starts=starts, **OPTIONS)
        np.testing.assert_allclose(np.abs(both.values["s.x"]), one.values["s.x"], rtol=1e-6)
        np.testing.assert_allclose(both.alternatives["s.x"], -both.values["s.x"], rtol=1e-6)
        np.testing.assert_allclose(both.chi2, one.chi2, rtol=1e-6)
        assert both.verdict == "converged, look"
        assert "s.x has another minimum in 4 of 4 elements" in both.remarks[0]


def test_the_lowest_end_is_kept(maps):
    """A prior makes one of two equal minima the better, by (x - m)^2 / 2 of both."""
    near = compsep.separate(START, NU, maps, priors=PRIOR, **OPTIONS)
    best = compsep.separate(START, NU, maps, priors=PRIOR, starts=BACK, **OPTIONS)
    assert np.all(near.values["s.x"] > 0)  # a search ends next to its start
    assert np.all(best.values["s.x"] < 0)
    gain = np.sum((near.values["s.x"] + 1.5) ** 2 - (best.values["s.x"] + 1.5) ** 2) / 2
    np.testing.assert_allclose(near.cost - best.cost, gain, rtol=0.02)
    np.testing.assert_allclose(best.alternatives["s.x"], near.values["s.x"], rtol=1e-6)
    # far from each other in chi2 there is nothing to tell
    sure = compsep.separate(START, NU, maps, priors={"s.x": js.Normal(-1.2, 0.3)}, starts=BACK, **OPTIONS)
    assert np.all(sure.values["s.x"] < 0)
    assert np.isnan(sure.alternatives["s.x"]).all()
    assert sure.verdict == "converged"
    inside = jax.jit(lambda data: compsep.separate(START, NU, data, priors=PRIOR, starts=BACK, **OPTIONS))(maps)
    np.testing.assert_allclose(inside.values["s.x"], best.values["s.x"], rtol=1e-7)
    np.testing.assert_allclose(inside.alternatives["s.x"], best.alternatives["s.x"], rtol=1e-7)


def test_a_lower_end_that_did_not_converge_is_told(maps):
    """The other minimum is the better one by its prior, but four steps do not get there."""
    start = js.put(START, {"s.x": 1.1955})
    found = compsep.separate(start, NU, maps, priors=PRIOR, starts={"s.x": [-1.4]}, max_steps=4, **OPTIONS)
    whole = compsep.separate(start, NU, maps, priors=PRIOR, starts={"s.x": [-1.4]}, **OPTIONS)
    assert found.success.all()
    assert np.all(found.values["s.x"] > 0)
    assert np.all(whole.values["s.x"] < 0)
    np.testing.assert_allclose(found.alternatives["s.x"], whole.values["s.x"], atol=1e-3)
    assert found.verdict == "converged, look"


def test_wrong_starts_are_named(maps):
    with pytest.raises(ValueError, match=r"no finite bounds to spread starts between for s\.x"):
        compsep.separate(START, NU, maps, starts=2, **(OPTIONS | {"bounds": None}))
    with pytest.raises(ValueError, match=r"no parameter 's\.y'"):
        compsep.separate(START, NU, maps, starts={"s.y": [1.0]}, **OPTIONS)
    both = compsep.MixingMatrix(cmb=compsep.CMB(), dust=compsep.ModifiedBlackBody())
    with pytest.raises(ValueError, match=r"as many numbers for each name, but there are .*3"):
        compsep.separate(
            both, NU, maps, inv_n=np.ones(4), starts={"dust.beta": [1.0, 2.0], "dust.temp": [10.0, 15.0, 30.0]}
        )
    with pytest.raises(ValueError, match=r"starts: dust\.temp is not free"):
        compsep.separate(both, NU, maps, inv_n=np.ones(4), free="dust.beta", starts={"dust.temp": [10.0]})
