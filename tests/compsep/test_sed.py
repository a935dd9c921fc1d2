"""Spectra, units, bandpasses and expressions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxsci as js
from jaxsci import compsep

NU = jnp.array([30.0, 100.0, 217.0, 353.0, 545.0])
SEDS = {
    "CMB": (compsep.CMB, None),
    "ThermalSZ": (compsep.ThermalSZ, None),
    "ModifiedBlackBody": (compsep.ModifiedBlackBody, 353.0),
    "PowerLaw": (lambda **k: compsep.PowerLaw(-3.1, running=-0.05, **k), 30.0),
    "FreeFree": (compsep.FreeFree, 30.0),
    "AME": (compsep.AME, 23.0),
}


@pytest.mark.parametrize("name", SEDS)
def test_every_spectrum_is_one_at_its_reference_and_converts(name):
    make, nu0 = SEDS[name]
    in_cmb, in_rj = make()(NU), make(units="K_RJ")(NU)
    factor = compsep.conversion(NU, "K_RJ", "K_CMB")
    if nu0 is not None:
        np.testing.assert_allclose(make()(jnp.array([nu0])), 1, rtol=1e-15)
        factor = factor / compsep.conversion(jnp.array(nu0), "K_RJ", "K_CMB")
    np.testing.assert_allclose(in_cmb, in_rj * factor, rtol=1e-13)
    assert np.all(np.isfinite(in_cmb))


def test_conversions_are_known_numbers():
    """The slope of Planck's law by differences, the null of the SZ effect at 217.5 GHz, the Rayleigh-Jeans limit."""
    h, k, c, nu = 6.62607015e-34, 1.380649e-23, 299792458.0, np.array([143e9, 353e9])
    up, down = (2e20 * h * nu**3 / c**2 / np.expm1(h * nu / (k * t)) for t in (2.7255 + 1e-5, 2.7255 - 1e-5))
    to_mjy = compsep.conversion(jnp.array([143.0, 353.0]), "K_CMB", "MJy/sr")
    np.testing.assert_allclose(to_mjy, (up - down) / 2e-5, rtol=1e-9)
    low, high = compsep.ThermalSZ()(jnp.array([217.0, 218.0]))
    assert low < 0 < high
    np.testing.assert_allclose(compsep.conversion(jnp.array(1e-3), "K_RJ", "K_CMB"), 1, rtol=1e-9)
    np.testing.assert_allclose(compsep.conversion(NU, "uK_CMB", "mK_CMB"), 1e-3)
    there = compsep.conversion(NU, "MJy/sr", "K_RJ") * compsep.conversion(NU, "K_RJ", "MJy/sr")
    np.testing.assert_allclose(there, 1, rtol=1e-15)


def test_an_unknown_unit_is_named():
    with pytest.raises(ValueError, match=r"unknown unit 'uK_CBM'; did you mean 'uK_CMB'"):
        compsep.conversion(NU, "uK_CBM", "K_RJ")


def test_moment_expansion_holds_the_derivatives():
    sed = compsep.ModifiedBlackBody(1.6, 19.0)
    columns = compsep.MomentExpansion(sed, ("beta", "temp"), 2).columns(NU)
    assert columns.shape == (5, 6)
    step = 1e-4
    up, down = compsep.ModifiedBlackBody(1.6 + step, 19.0)(NU), compsep.ModifiedBlackBody(1.6 - step, 19.0)(NU)
    np.testing.assert_allclose(columns[:, 0], sed(NU))
    np.testing.assert_allclose(columns[:, 1], (up - down) / (2 * step), rtol=1e-6, atol=1e-8)
    np.testing.assert_allclose(columns[:, 3], columns[:, 0] * jnp.log(NU / 353) ** 2, rtol=1e-12, atol=1e-14)
    mixing = compsep.MixingMatrix(cmb=compsep.CMB(), dust=compsep.MomentExpansion(sed, ("beta",)))
    assert mixing.columns == ("cmb", "dust[0]", "dust[1]")
    assert mixing.parameters == ("dust.beta", "dust.temp")
    assert mixing.diff(NU).shape == (2, 5, 3)


def test_tabulated_spectrum_interpolates():
    table = compsep.TabulatedSED(jnp.array([30.0, 300.0]), jnp.array([1.0, 3.0]))
    np.testing.assert_allclose(table(jnp.array([30.0, 30 * 10**0.5, 1000.0])), [1, 2, 3], rtol=1e-14)


def test_names_of_like_components_stay_apart():
    mixing = compsep.MixingMatrix(compsep.PowerLaw(), compsep.PowerLaw(-2.0))
    assert mixing.parameters == ("power_law.beta", "power_law_2.beta")
    assert float(mixing.power_law_2.beta) == -2
    with pytest.raises(AttributeError, match="did you mean 'power_law"):
        mixing.powerlaw  # noqa: B018
    with pytest.raises(ValueError, match="should be an SED"):
        compsep.MixingMatrix(dust="dust")


class TestAnalytic:
    DUST = "(nu / nu0)**(1 + beta) * expm1(h_over_k * nu0 / temp) / expm1(h_over_k * nu / temp)"

    def test_equals_the_component_and_its_derivatives(self):
        analytic = compsep.AnalyticSED(self.DUST, {"beta": 1.6, "temp": 19.0}, nu0=353.0)
        ours = compsep.ModifiedBlackBody(1.6, 19.0, units="K_RJ")
        assert tuple(js.parameters(analytic)) == ("beta", "temp")
        for one, other in zip(*(self.derivatives(sed) for sed in (analytic, ours)), strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-13)

    @staticmethod
    def derivatives(sed):
        mixing = compsep.MixingMatrix(dust=sed)
        return mixing.eval(NU), mixing.diff(NU), mixing.diff_diff(NU)

    def test_may_be_fixed_in_part(self):
        mixing = compsep.MixingMatrix(dust=compsep.AnalyticSED(self.DUST, {"beta": 1.6}, nu0=353.0, temp=19.0))
        assert mixing.parameters == ("dust.beta",)
        np.testing.assert_allclose(mixing.eval(NU)[:, 0], compsep.ModifiedBlackBody(1.6, 19.0, units="K_RJ")(NU), 1e-13)

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("__import__('os').system('true')", r"column 1 .* is not arithmetic"),
            ("nu * (lambda: 1)()", r"column 6 "),
            ("nu.real + 1", r"column 1 .*'nu.real' is not arithmetic"),
            ("nu + epx(beta)", r"column 6 .* is not arithmetic; did you mean 'exp'"),
            ("nu +", r"column . of .*invalid syntax"),
            ("nu[0]", "not arithmetic"),
            ("exp", "not arithmetic"),
            ("1j * nu", "not arithmetic"),
            ("-" * 200 + "nu", "nested too deeply"),
            ("(" * 5000, "column"),
        ],
    )
    def test_anything_but_arithmetic_is_refused(self, text, message):
        with pytest.raises(ValueError, match=message):
            compsep.AnalyticSED(text)

    def test_a_value_for_a_name_that_is_not_there(self):
        with pytest.raises(ValueError, match="no name 'bta' to give a value to; did you mean 'beta'"):
            compsep.AnalyticSED("nu**beta", bta=1.0)


class TestBands:
    def test_narrow_bands_are_frequencies(self):
        nu = [jnp.linspace(f - 0.01, f + 0.01, 5) for f in (100.0, 353.0)]
        mixing = compsep.MixingMatrix(cmb=compsep.CMB(), dust=compsep.ModifiedBlackBody())
        bands = compsep.Bands.calibrated(nu, [jnp.ones(5)] * 2)
        np.testing.assert_allclose(mixing.eval(bands), mixing.eval(jnp.array([100.0, 353.0])), rtol=1e-7)
        np.testing.assert_allclose(mixing.diff(bands), mixing.diff(jnp.array([100.0, 353.0])), rtol=1e-6, atol=1e-9)

    def test_calibrated_bands_see_the_cmb_as_one(self):
        rng = np.random.default_rng(0)
        nu = [np.linspace(80, 120, 7), np.linspace(300, 400, 11)]
        bands = compsep.Bands.calibrated(nu, [rng.uniform(0.1, 1, 7), rng.uniform(0.1, 1, 11)])
        np.testing.assert_allclose(compsep.MixingMatrix(compsep.CMB()).eval(bands), 1, rtol=1e-14)

    def test_trapezoid_normalises_nothing(self):
        nu, response = np.linspace(80.0, 120, 9), np.linspace(0.5, 1, 9)
        raw = compsep.MixingMatrix(compsep.PowerLaw()).eval(compsep.Bands.trapezoid([nu], [response]))
        expected = np.trapezoid(np.asarray(compsep.PowerLaw()(jnp.asarray(nu))) * response, nu * 1e9)
        np.testing.assert_allclose(raw[0, 0], expected, rtol=1e-14)

    @pytest.mark.parametrize(
        ("nu", "response", "message"),
        [
            ([1.0, 2.0], [1.0], "shape"),
            ([2.0, 1.0], [1.0, 1.0], "band 0: frequencies should rise"),
            ([1.0, 2.0], [0.0, 0.0], "nowhere positive"),
        ],
    )
    def test_bad_bands_are_named(self, nu, response, message):
        with pytest.raises(ValueError, match=message):
            compsep.Bands.calibrated([nu], [response])


def test_nothing_is_differentiated_with_respect_to_frequency(mixing):
    """Pytrees of components hold parameters alone as inexact leaves that fits may free."""
    assert not any("nu" in name.split(".")[-1] for name in js.parameters(mixing))
    value, slope = jax.value_and_grad(lambda m: jnp.sum(m.eval(NU)))(mixing)
    assert np.isfinite(value)
    assert float(slope.dust.temp) != 0
