"""Spectra, units, bandpasses and expressions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

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


class TestUnitsOfSpectra:
    RJ = "(nu / nu0)**beta"

    @pytest.mark.parametrize("units", ["K_CMB", "K_RJ", "MJy/sr"])
    def test_given_in_one_unit_for_maps_in_another(self, units):
        """A power law in K_RJ is synchrotron in any unit, but for its amplitude, which is that of nu0 in K_RJ."""
        own = compsep.PowerLaw(-3.1, units=units)
        at_nu0 = compsep.conversion(jnp.array(30.0), "K_RJ", units)
        written = compsep.AnalyticSED(self.RJ, {"beta": -3.1}, units=units, given="K_RJ", nu0=30.0)
        table = compsep.TabulatedSED(NU, compsep.PowerLaw(-3.1, units="K_RJ")(NU), units=units, given="K_RJ")
        np.testing.assert_allclose(written(NU), own(NU) * at_nu0, rtol=1e-13)
        np.testing.assert_allclose(table(NU), own(NU) * at_nu0, rtol=1e-13)

    def test_without_it_they_are_as_written(self):
        for units in ("K_CMB", "MJy/sr"):
            written = compsep.AnalyticSED(self.RJ, {"beta": -3.1}, units=units, nu0=30.0)
            np.testing.assert_allclose(written(NU), (NU / 30) ** -3.1, rtol=1e-14)

    @pytest.mark.parametrize(
        "sed",
        [
            compsep.AnalyticSED("nu**beta", units="K_RJ"),
            compsep.TabulatedSED(NU, NU, units="K_RJ"),
            compsep.MomentExpansion(compsep.PowerLaw(units="K_RJ")),
        ],
        ids=lambda sed: type(sed).__name__,
    )
    def test_maps_in_another_unit_are_refused(self, sed):
        mixing = compsep.MixingMatrix(x=sed)
        with pytest.raises(ValueError, match=r"component 'x' is in K_RJ, but the maps are in uK_CMB"):
            compsep.separate(mixing, NU, np.ones((5, 1, 12)), inv_n=np.ones(5), free=())

    def test_units_that_are_none(self):
        with pytest.raises(ValueError, match="unknown unit 'K_FOO'"):
            compsep.AnalyticSED("nu", units="K_FOO")
        with pytest.raises(ValueError, match="should have no prefix: 'K_RJ', not 'uK_RJ'"):
            compsep.TabulatedSED(NU, NU, given="uK_RJ")

    @pytest.mark.parametrize("nu", [[1.0, 3.0, 2.0], [0.0, 1.0, 2.0], [1.0, 1.0, 2.0]])
    def test_tables_that_do_not_rise(self, nu):
        with pytest.raises(ValueError, match="should be positive, and rise"):
            compsep.TabulatedSED(jnp.array(nu), jnp.ones(3))

    def test_what_amplitudes_are_in(self):
        """Of a cluster y comes back, in the prefix of the maps."""
        mixing = compsep.MixingMatrix(
            cmb=compsep.CMB(units="K_RJ"), sz=compsep.ThermalSZ(units="K_RJ"), sync=compsep.PowerLaw(units="K_RJ")
        )
        y = 1e-5
        clean = y * np.asarray(compsep.conversion(NU, "y_SZ", "uK_RJ"))
        found = compsep.separate(
            mixing, NU, clean[:, None, None] * np.ones(12), inv_n=np.ones(5), free=(), units="uK_RJ"
        )
        assert found.amplitude_units == ("uK_CMB", "uy_SZ", "uK_RJ")
        np.testing.assert_allclose(found.component("sz"), y * 1e6, rtol=1e-9)
        np.testing.assert_allclose(found.component("cmb"), 0, atol=1e-9)


class TestWhatIsFree:
    NU, MAPS = jnp.array([30.0, 70.0, 100.0, 150.0]), np.random.default_rng(0).normal(size=(4, 1, 12)) + 5

    @pytest.mark.parametrize("patches", [0, 1], ids=["one", "each"])
    def test_a_parameter_without_bounds(self, patches):
        one = compsep.MixingMatrix(s=compsep.AnalyticSED("(nu / nu0)**beta", {"beta": -0.5}, nu0=30.0))
        other = compsep.MixingMatrix(s=compsep.PowerLaw(-0.5, units="K_RJ"))
        how = {"inv_n": np.ones(4), "patches": patches}
        found = compsep.separate(one, self.NU, self.MAPS, **how)
        expected = compsep.separate(other, self.NU, self.MAPS, units="uK_RJ", **how)
        assert bool(found.success.all())
        np.testing.assert_allclose(found.values["s.beta"], expected.values["s.beta"], rtol=1e-6)

    def test_nothing_to_fit_is_fitted_by_default(self):
        mixing = compsep.MixingMatrix(cmb=compsep.CMB())
        found = compsep.separate(mixing, self.NU, self.MAPS, inv_n=np.ones(4))
        assert found.free == ()
        np.testing.assert_allclose(found.component("cmb"), self.MAPS.mean(axis=0), rtol=1e-12)


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
            ([1.0, 1.0], [1.0, 1.0], "band 0: frequencies should rise"),
            ([1.0, np.nan], [1.0, 1.0], "band 0: frequencies should rise"),
            ([1.0, 2.0], [0.0, 0.0], "nowhere positive"),
            ([1.0, 2.0], [np.nan, 1.0], "not finite"),
            ([0.0, 2.0], [0.5, 1.0], "band 0 transmits at 0 GHz"),
            ([-1.0, 2.0], [0.5, 1.0], "band 0 transmits at -1 GHz"),
        ],
    )
    def test_bad_bands_are_named(self, nu, response, message):
        with pytest.raises(ValueError, match=message):
            compsep.Bands.calibrated([nu], [response])


class TestMeasuredBands:
    @given(zeros=st.booleans(), jump=st.booleans(), scale=st.sampled_from([1e-9, 1.0, 1e6]), seed=st.integers(0, 99))
    @settings(max_examples=15, deadline=None, derandomize=True)
    def test_what_makes_no_difference(self, zeros, jump, scale, seed):
        """A start at 0, a frequency that comes twice, the scale of the response: tables as they are published."""
        rng = np.random.default_rng(seed)
        nu, response = np.linspace(70.0, 130.0, 13), rng.uniform(0.2, 1, 13)
        response[[0, -1]] = 0  # no transmission outside of the band
        mixing = compsep.MixingMatrix(cmb=compsep.CMB(), dust=compsep.ModifiedBlackBody(), sync=compsep.PowerLaw())

        def of(make, nu, response):
            more = 16 - len(nu)  # one shape, one program
            nu, response = np.append(nu, 131.0 + np.arange(more)), np.append(response, np.zeros(more))
            return make([nu], [response * scale])

        bands = [of(make, nu, response) for make in (compsep.Bands.calibrated, compsep.Bands.trapezoid)]
        if zeros:
            nu, response = np.append([0.0, 35.0], nu), np.append([0.0, 0.0], response)
        if jump:
            nu, response = np.insert(nu, 5, nu[5]), np.insert(response, 5, response[5])
        others = [of(make, nu, response) for make in (compsep.Bands.calibrated, compsep.Bands.trapezoid)]
        for one, other in zip(bands, others, strict=True):
            np.testing.assert_allclose(mixing.eval(other), mixing.eval(one), rtol=1e-12)
        np.testing.assert_allclose(mixing.eval(others[0])[0, 0], 1, rtol=1e-12)  # whatever the scale
        assert np.isfinite(mixing.diff(others[0])).all()

    def test_planck_as_published(self, shared_data):
        """K_CMB to MJy/sr of a spectrum I ~ 1/nu: table 6 of Planck 2013 results IX."""
        bands = compsep.Bands.from_rimo(shared_data / "compsep" / "HFI_RIMO_R1.10_onlybandpasses.fits.gz")
        nominal = (100.0, 143.0, 217.0, 353.0, 545.0, 857.0)
        published = (244.10, 371.74, 483.690, 287.450, 58.04, 2.27)
        for k, (nu0, expected) in enumerate(zip(nominal, published, strict=True)):
            one = compsep.Bands(bands.nu[k : k + 1], bands.weight[k : k + 1])
            sed = compsep.AnalyticSED("nu0 / nu", nu0=nu0, given="MJy/sr")
            found = 1 / float(compsep.MixingMatrix(sed).eval(one)[0, 0])
            assert found == pytest.approx(expected, rel=2e-3 if nu0 > 800 else 2e-4)
        np.testing.assert_allclose(compsep.MixingMatrix(compsep.CMB()).eval(bands), 1, rtol=1e-12)


class TestRimo:
    """Files of the form of Planck's, of any content."""

    @pytest.fixture
    def path(self, tmp_path):
        fits = pytest.importorskip("astropy.io.fits")

        def write(unit="1/cm", names=("WAVENUMBER", "TRANSMISSION"), bands=("F100", "100-1A")):
            nu = np.linspace(0, 5, 51)
            response = np.exp(-((nu - 3.3) ** 2) / 0.1)
            tables = [fits.PrimaryHDU()]
            for band in bands:
                columns = [fits.Column(names[0], "E", unit, array=nu), fits.Column(names[1], "E", array=response)]
                tables.append(fits.BinTableHDU.from_columns(columns, name=f"BANDPASS_{band}"))
            fits.HDUList(tables).writeto(tmp_path / "rimo.fits", overwrite=True)
            return tmp_path / "rimo.fits"

        return write

    def test_channels(self, path):
        assert compsep.Bands.from_rimo(path()).nu.shape == (1, 51)
        found = compsep.Bands.from_rimo(path(), ["100-1A", "F100"])
        assert found.nu.shape == (2, 51)
        middle = float(jnp.sum(found.nu[0] * found.weight[0]))
        assert middle == pytest.approx(3.3 * 29.9792458, rel=0.02)
        np.testing.assert_allclose(compsep.Bands.from_rimo(path("GHz")).nu[0, -1], 5)

    def test_what_is_not_there_is_named(self, path):
        with pytest.raises(ValueError, match=r"no bandpass of 'F10'; did you mean 'F100'"):
            compsep.Bands.from_rimo(path(), ["F10"])
        with pytest.raises(ValueError, match="WAVENUMBER of F100 is in furlong"):
            compsep.Bands.from_rimo(path("furlong"))
        with pytest.raises(ValueError, match="has FREQ, TRANSMISSION, no WAVENUMBER"):
            compsep.Bands.from_rimo(path(names=("FREQ", "TRANSMISSION")))
        with pytest.raises(ValueError, match="has no table named BANDPASS_<channel>"):
            compsep.Bands.from_rimo(path(bands=()))


def test_nothing_is_differentiated_with_respect_to_frequency(mixing):
    """Pytrees of components hold parameters alone as inexact leaves that fits may free."""
    assert not any("nu" in name.split(".")[-1] for name in js.parameters(mixing))
    value, slope = jax.value_and_grad(lambda m: jnp.sum(m.eval(NU)))(mixing)
    assert np.isfinite(value)
    assert float(slope.dust.temp) != 0
