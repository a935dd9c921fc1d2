"""FITS maps in and out: units, orders, masks, and what is refused."""

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from jaxsci import compsep
from jaxsci.compsep import io
from jaxsci.compsep._healpix import ring_to_nest

healpy = pytest.importorskip("healpy")
NSIDE = 4
NPIX = 12 * NSIDE**2


def a_map(rows=3):
    return np.random.default_rng(rows).normal(size=(rows, NPIX))


@pytest.fixture
def path(tmp_path):
    return tmp_path / "map.fits"


@pytest.mark.parametrize("nest", [False, True])
def test_what_is_written_is_read_in_either_order(path, nest):
    ring = a_map()
    order = ring_to_nest(NSIDE)
    nested = np.empty_like(ring)
    nested[:, order] = ring
    io.write_map(path, nested if nest else ring, "uK_CMB", nest=nest)
    np.testing.assert_array_equal(io.read_map(path), ring)
    np.testing.assert_array_equal(io.read_map(path, nest=True), nested)
    np.testing.assert_array_equal(nested, healpy.reorder(ring, r2n=True))
    assert io.read_sky_map(path).nest is nest


def test_bands_read_alike_whatever_their_order_and_unit(tmp_path):
    ring = a_map()
    nested = healpy.reorder(ring, r2n=True)
    io.write_map(tmp_path / "a.fits", ring, "uK_CMB")
    io.write_map(tmp_path / "b.fits", nested / 1e3, "mK_CMB", nest=True)
    factor = float(compsep.conversion(jnp.array(90.0), "uK_CMB", "MJy/sr"))
    io.write_map(tmp_path / "c.fits", ring * factor, "MJy/sr")
    maps = io.read_maps([tmp_path / f"{n}.fits" for n in "abc"], frequencies=[60.0, 70.0, 90.0])
    np.testing.assert_allclose(maps, np.stack([ring] * 3), rtol=1e-14)


@pytest.mark.parametrize(
    ("text", "unit"),
    [
        ("mK", "mK_CMB"), ("mK,thermodynamic", "mK_CMB"), ("K_CMB", "K_CMB"), ("Kcmb", "K_CMB"), ("uK_RJ", "uK_RJ"),
        ("µK_CMB", "uK_CMB"), ("muK", "uK_CMB"), ("mK_antenna", "mK_RJ"), ("MJy/sr", "MJy/sr"), ("y_SZ", "y_SZ"),
    ],
)  # fmt: skip
def test_units_of_headers(text, unit):
    assert io.unit_of(text) == unit


@pytest.mark.parametrize("text", ["", "Jy", "counts", "MK", "K_foo"])
def test_a_unit_that_is_not_known(text):
    with pytest.raises(ValueError, match="unknown unit"):
        io.unit_of(text)


def test_masked_pixels(path):
    values = a_map(1)
    values[0, 3], values[0, 5], values[0, 7] = np.nan, np.inf, compsep.UNSEEN
    io.write_map(path, values, "mK_CMB")
    read = io.read_map(path)
    assert set(np.flatnonzero(read[0] == compsep.UNSEEN)) == {3, 5, 7}
    np.testing.assert_allclose(np.delete(read, [3, 5, 7], 1), np.delete(values, [3, 5, 7], 1) * 1e3, rtol=1e-14)


def test_partial_skies_are_filled_up(path):
    values = a_map(3)
    values[:, :170] = healpy.UNSEEN
    healpy.write_map(
        path, list(values), partial=True, dtype=np.float64, column_units="mK", column_names=["TEMPERATURE", "Q", "U"]
    )
    read = io.read_map(path)
    assert read.shape == (3, NPIX)
    np.testing.assert_allclose(read[:, 170:], values[:, 170:] * 1e3)
    assert (read[:, :170] == compsep.UNSEEN).all()


def test_stokes_parameters_and_columns_by_name(path):
    values = a_map(4)
    io.write_map(path, values, "mK", names=["TEMPERATURE", "Q_POLARISATION", "U_POLARISATION", "N_OBS"])
    np.testing.assert_array_equal(io.read_sky_map(path).values, values[:3])
    np.testing.assert_array_equal(io.read_sky_map(path, "QU").values, values[1:3])
    np.testing.assert_array_equal(io.read_sky_map(path, ["N_OBS"]).values, values[3:])
    with pytest.raises(ValueError, match="no column 'N_OB'; did you mean 'N_OBS'"):
        io.read_sky_map(path, ["N_OB"])


def test_the_iau_convention_turns_u(path):
    from astropy.io import fits

    values = a_map()
    values[2, 0] = np.nan
    io.write_map(path, values, "uK_CMB")
    with fits.open(path, mode="update") as file:
        file[1].header["POLCCONV"] = "IAU"
    read = io.read_map(path)
    np.testing.assert_array_equal(read[:, 1:], values[:, 1:] * np.array([[1], [1], [-1]]))
    assert read[2, 0] == compsep.UNSEEN


def header_without(path, key, value=None):
    from astropy.io import fits

    with fits.open(path, mode="update") as file:
        if value is None:
            del file[1].header[key]
        else:
            file[1].header[key] = value


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("ORDERING", None, "ORDERING is missing"),
        ("ORDERING", "SPIRAL", "ORDERING is SPIRAL"),
        ("NSIDE", None, "NSIDE is None"),
        ("NSIDE", 3, "NSIDE is 3"),
        ("NSIDE", 8, "NSIDE 8"),
        ("TUNIT1", None, "names no unit"),
        ("TUNIT1", "furlong", "unknown unit 'furlong'"),
        ("TUNIT1", "MJy/sr", "takes the frequency"),
    ],
)
def test_wrong_headers_are_named(path, key, value, message):
    io.write_map(path, a_map(), "uK_CMB")
    header_without(path, key, value)
    with pytest.raises(ValueError, match=message):
        io.read_map(path)


def test_wrong_files_are_named(path, tmp_path):
    with pytest.raises(FileNotFoundError):
        io.read_map(path)
    path.write_text("no map")
    with pytest.raises(ValueError, match="no FITS file"):
        io.read_map(path)
    io.write_map(path, a_map(), "uK_CMB", overwrite=True)
    with pytest.raises(FileExistsError):
        io.write_map(path, a_map(), "uK_CMB")
    with pytest.raises(ValueError, match="has nside 4, but nside 8 is needed"):
        io.read_map(path, nside=8)
    other = tmp_path / "other.fits"
    io.write_map(other, np.zeros((3, 48)), "uK_CMB")
    with pytest.raises(ValueError, match=r"nside 2, but .* has 4"):
        io.read_maps([path, other])
    io.write_map(other, a_map(), "uK_CMB", coordinates="C", overwrite=True)
    with pytest.raises(ValueError, match=r"coordinates C, but .* has G"):
        io.read_maps([path, other])
    with pytest.raises(ValueError, match="no HEALPix map"):
        io.write_map(path, np.zeros(40), "uK_CMB", overwrite=True)


class TestWhatHeadersSay:
    """Each word is used, warned of, or refused."""

    def test_conventions_of_polarisation(self, path):
        values = a_map()
        io.write_map(path, values, "uK_CMB")
        from astropy.io import fits

        with fits.open(path, mode="update") as file:
            assert file[1].header["POLCCONV"] == "COSMO"
            del file[1].header["POLCCONV"]
            file[0].header["POLCCONV"] = "IAU"  # of all tables
        np.testing.assert_array_equal(io.read_map(path)[2], -values[2])
        header_without(path, "POLCCONV", "HEALPIX")
        with pytest.raises(ValueError, match="POLCCONV is HEALPIX; the sign of U is known for COSMO and IAU only"):
            io.read_map(path)

    @given(bad=st.sampled_from([-999.0, 0.0, -1.6375e30, 1e30]), hidden=st.sets(st.integers(0, NPIX - 1), max_size=9))
    @settings(max_examples=10, deadline=None, derandomize=True)
    def test_bad_data(self, tmp_path_factory, bad, hidden):
        path = tmp_path_factory.mktemp("bad") / "map.fits"
        values = a_map(1) + 10
        values[0, sorted(hidden)] = bad
        healpy.write_map(path, values, dtype=np.float32, column_units="K_CMB", extra_header=[("BAD_DATA", bad)])
        read = io.read_map(path, "K_CMB")
        assert set(np.flatnonzero(read[0] == compsep.UNSEEN)) == hidden

    @pytest.mark.parametrize(
        ("kind", "unit", "expected"),
        [
            ("THERMO", "mK", "mK_CMB"),
            ("ANTENNA", "mK", "mK_RJ"),
            ("ANTENNA", "MJy/sr", "MJy/sr"),
            ("RJ", "uK_RJ", "uK_RJ"),
        ],
    )
    def test_types_of_temperature(self, path, kind, unit, expected):
        io.write_map(path, a_map(1), unit)
        header_without(path, "TEMPTYPE", kind)
        assert io.read_sky_map(path).units == (expected,)

    def test_types_that_contradict(self, path):
        io.write_map(path, a_map(1), "K_CMB")
        header_without(path, "TEMPTYPE", "ANTENNA")
        with pytest.raises(ValueError, match="is in K_CMB, but TEMPTYPE is ANTENNA"):
            io.read_sky_map(path)
        header_without(path, "TEMPTYPE", "WARM")
        with pytest.raises(ValueError, match="TEMPTYPE is WARM"):
            io.read_sky_map(path)

    def test_masks_beside_a_map(self, path):
        values = np.concatenate([a_map(3), np.arange(NPIX)[None] % 2])
        io.write_map(path, values, "uK_CMB", names=["I_STOKES", "Q_STOKES", "U_STOKES", "TMASK"])
        with pytest.warns(UserWarning, match=r"has masks that are not read: TMASK.*read_mask\(path, field='TMASK'\)"):
            read = io.read_map(path)
        np.testing.assert_array_equal(read, values[:3])
        np.testing.assert_array_equal(io.read_mask(path, field="TMASK"), values[3] > 0)

    def test_coordinates(self, path):
        io.write_map(path, a_map(1), "uK_CMB", coordinates="C")
        for read in (io.read_map, io.read_mask):
            with pytest.raises(ValueError, match="has coordinates C, but G is needed"):
                read(path, coordinates="G")
            read(path, coordinates="C")

    def test_masks_and_units_of_what_is_written(self, path):
        units = pytest.importorskip("astropy.units")
        values = a_map(1)
        behind = np.arange(NPIX) < 5
        io.write_map(path, np.ma.masked_array(values, behind[None]), "uK_CMB")
        np.testing.assert_array_equal(io.read_map(path)[0] == compsep.UNSEEN, behind)
        io.write_map(path, values * units.mK, "uK_CMB", overwrite=True)
        np.testing.assert_allclose(io.read_map(path), values * 1e3, rtol=1e-14)

    def test_a_map_of_compton_s_y(self, tmp_path):
        mixing = compsep.MixingMatrix(cmb=compsep.CMB(), sz=compsep.ThermalSZ())
        maps = np.random.default_rng(0).normal(size=(4, 1, 12))
        found = compsep.separate(mixing, np.array([30.0, 90.0, 150.0, 350.0]), maps, inv_n=np.ones(4), free=())
        io.write_separation(tmp_path, found)
        assert io.read_sky_map(tmp_path / "sz.fits").units == ("uy_SZ",)
        assert io.read_sky_map(tmp_path / "cmb.fits").units == ("uK_CMB",)
        y = io.read_map(tmp_path / "sz.fits", "y_SZ")
        np.testing.assert_allclose(y, np.asarray(found.component("sz")) * 1e-6)


def test_names_are_reachable_as_documented():
    import jaxsci

    assert jaxsci.compsep.io.read_map is io.read_map
    assert jaxsci.compsep.plot.plot_map.__name__ == "plot_map"


def test_the_bundled_maps_of_wmap():
    maps = io.read_maps([io.bundled("wmap_V.fits"), io.bundled("wmap_W.fits")], assume="mK_CMB")
    mask = io.read_mask(io.bundled("wmap_mask.fits"))
    assert maps.shape == (2, 3, 12288)
    assert mask.sum() == 7602
    v, w = maps[:, 0, mask]
    # the same sky in both bands: the CMB of some 60 uK, noise of some 7
    assert np.corrcoef(v, w)[0, 1] > 0.99
    assert 50 < v.std() < 70
    assert (v - w).std() < 8
    with pytest.raises(ValueError, match=r"no map 'wmap_v\.fits'"):
        io.bundled("wmap_v.fits")
    with pytest.raises(ValueError, match="names no unit"):
        io.read_map(io.bundled("wmap_V.fits"))


def test_a_separation_is_written_and_read(tmp_path):
    rng = np.random.default_rng(0)
    mixing = compsep.MixingMatrix(cmb=compsep.CMB(), sync=compsep.PowerLaw())
    maps = rng.normal(size=(4, 2, NPIX)) + 3
    maps[:, :, 0] = compsep.UNSEEN
    answer = compsep.separate(mixing, np.array([30.0, 44.0, 70.0, 100.0]), maps, free=(), inv_n=np.ones(4))
    files = io.write_separation(tmp_path / "out", answer)
    assert [file.name for file in files] == ["cmb.fits", "sync.fits", "chi2.fits"]
    cmb = io.read_sky_map(tmp_path / "out" / "cmb.fits", ["Q", "U", "Q_ERROR", "U_ERROR"])
    assert cmb.units == ("uK_CMB",) * 4
    np.testing.assert_array_equal(cmb.values[:2, 1:], np.asarray(answer.component("cmb"))[:, 1:])
    assert (cmb.values[:, 0] == compsep.UNSEEN).all()
