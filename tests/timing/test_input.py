"""Par files and TOAs: what is read, what is refused and how."""

import dataclasses
from decimal import Decimal

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxsci as js
from jaxsci import timing
from jaxsci.timing._anchor import warn_of_idle
from jaxsci.timing._components import Rotation
from jaxsci.timing._model import elements
from jaxsci.timing._par import read_par

BASE = "PSR X\nRAJ 17:48:52.75 1\nDECJ -20:21:29.0\nF0 61.485476554 1\nF1 -1.181D-15\nPEPOCH 53750\nDM 223.9\n"

ORBIT = BASE + "PB 1\nA1 2\n"


def test_values_keep_all_their_digits():
    par = read_par("F0 641.9282221278291832491 1 1e-15\nF1 -4.331D-14\nXDOT 0.011\nE 0.1\nRAJ 01:30:00\nDECJ -00:30:00")
    assert par.value("F0") == Decimal("641.9282221278291832491")
    assert par.value("F1") == Decimal("-4.331e-14")
    assert par.value("A1DOT") == Decimal("1.1e-14")  # tempo's 1e-12
    assert (par.value("ECC"), par.value("RAJ"), par.value("DECJ")) == (Decimal("0.1"), Decimal("1.5"), Decimal("-0.5"))
    assert par.free == ("F0",)
    assert read_par("START 53000 1\nFINISH 55000 1").free == ()


def test_repeated_selections_are_numbered():
    par = read_par("JUMP -fe L-wide 1e-3 1\nJUMP -fe S-wide 2e-3\nT2EFAC -f A 1.1\nT2EFAC tel gbt 1.2")
    assert [line.name for line in par.lines] == ["JUMP1", "JUMP2", "EFAC1", "EFAC2"]
    assert par.find("EFAC2").select == "TEL gbt"
    assert par.find("JUMP2").select == "-fe S-wide"
    assert par.free == ("JUMP1",)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (BASE.replace("F0 ", "#F0 "), "no F0"),
        (BASE.replace("PEPOCH ", "#PEPOCH "), "no PEPOCH"),
        (BASE + "GLPH_1 0.1", "no GLEP_1"),
        (BASE + "GLEP_1 54000\nGLF0D_1 1e-8", "needs a GLTD_1"),
        (BASE + "GLEP_1 54000 1\nGLPH_1 0.1 1", "only one can be fitted"),
        (BASE + "SWXDM_0001 1e-3", "SWXDM_0001"),
        (BASE + "IFUNC1 54000 1e-5 0", "no SIFUNC"),
        (BASE + "SIFUNC 1\nIFUNC1 54000 1e-5 0", "SIFUNC 1 is not supported"),
        (BASE + "SIFUNC 2\nIFUNC1 54000", "two numbers"),
        (BASE + "SIFUNC 2\nIFUNC1 54000 1e-5\nIFUNC2 53000 1e-5", "should rise"),
        (BASE + "PWF0_1 1e-7", "no PWEP_1"),
        (BASE + "PWEP_1 54000\nPWSTART_1 53000", "no PWSTOP_1"),
        (BASE + "FD1JUMP 1e-5", "FD1JUMP should select"),
        (BASE + "NE_SW 7\nSWM 2", "SWM 2 is not supported"),
        (BASE + "NE_SW 7\nNE_SW1 1", "no SWEPOCH"),
        (BASE + "NE_SW 7\nSWM 1\nSWP 0.9", "SWP is 0.9"),
        (BASE + "CMX_0001 1e-3\nCMXR1_0001 50000\nCMXR2_0001 51000\nTNCHROMIDX many", "TNCHROMIDX"),
        (BASE + "WXFREQ_0001 0.01\nWXSIN_0001 1e-6", "no WXCOS_0001"),
        (BASE + "WAVE1 0.1\nWAVE_OM 0.1", "two numbers"),
        (BASE + "BINARY T9", "BINARY T9 is not supported"),
        (BASE + "BINARY DD\nPB 1\nA1 2", "no T0"),
        (BASE + "UNITS TCG", "TCB"),
        (BASE + "ELONG 3\nELAT 2\nECL MOON", "ECL MOON"),
        (BASE + "F0 3", "F0 twice"),
        (BASE + "DM", "DM has no value"),
        (BASE.replace("223.9", "many"), "many"),
        (BASE + "JUMP WORD gbt 0.1", "flag"),
        (BASE + "DILATEFREQ Y", "DILATEFREQ Y is not understood"),
        (BASE + "JUMP MJD 50000 0.1", "flag"),
        (ORBIT + "BINARY DD\nT0 54000\nFB0 1e-5", "both PB and FB0"),
        (ORBIT + "BINARY DDS\nT0 54000\nSHAPMAX 3\nSINI 0.9", "both SINI and SHAPMAX"),
        (ORBIT + "BINARY DDS\nT0 54000", "no SHAPMAX"),
        (ORBIT + "BINARY ELL1\nTASC 54000\nT0 54000", "both T0 and TASC"),
        (ORBIT + "BINARY ELL1H\nTASC 54000\nH3 1e-7\nH4 1e-8\nSTIGMA 0.4", "both H4 and STIGMA"),
        (ORBIT + "BINARY ELL1\nTASC 54000\nSINI 1.1", "SINI is 1.1"),
        (ORBIT + "BINARY DD\nT0 54000\nECC 1.2", "ECC is 1.2"),
        (ORBIT + "BINARY DD\nT0 54000\nSHAPMAX 3", "SHAPMAX 3 is not understood"),
        (ORBIT + "BINARY DDK\nT0 54000\nKIN 70\nKOM 80", "positive PX"),
        (ORBIT + "BINARY DDGR\nT0 54000\nMTOT 2.8\nM2 1e-3", "SINI is"),
        (ORBIT + "BINARY T2\nT0 54000\nKIN 70\nKOM 80", "T2 with KIN"),
        (ORBIT.replace("PB 1", "PB 0") + "BINARY DD\nT0 54000", "PB is 0"),
    ],
)
def test_par_files_that_cannot_be(text, message):
    with pytest.raises(ValueError, match=message):
        timing.TimingModel.parse(text)


def test_lines_that_are_not_understood_may_be_passed_over():
    with pytest.warns(UserWarning, match="MOON 3"):
        model = timing.TimingModel.parse(BASE + "MOON 3", unknown="warn")
    assert model.par.word("MOON") == "3"


def test_jumps_of_profile_evolution_by_the_names_of_pint_and_tempo2():
    model = timing.TimingModel.parse(BASE + "FDJUMP2 -f A 1e-6 1\nFD1JUMP -f B 2e-6\nFDJUMP1 -f A 3e-6 1\n")
    assert [pint for leaf, pint in elements(model) if leaf.startswith("FDJUMP")] == ["FD1JUMP1", "FD1JUMP2", "FD2JUMP1"]
    (jumps,) = model.delays
    assert jumps.powers == (1, 1, 2)
    assert np.asarray(jumps.FDJUMP_ref).tolist() == [2e-6, 3e-6, 1e-6]
    assert model.par.free[2:] == ("FD2JUMP1", "FD1JUMP2")
    again = timing.TimingModel.parse(timing.par_text(model))
    assert again.par.value("FD1JUMP2") == model.par.value("FD1JUMP2")


def test_a_table_of_phases_keeps_its_ends():
    """SIFUNC 0: the value of the last time before, as tempo2 has it; PINT 1.1.8 takes others."""
    lines = "IFUNC1 53751 1e-4 0\nIFUNC2 53753 3e-4 0\nIFUNC3 53757 2e-4 0\n"
    days = jnp.asarray([0.0, 1.0, 2.5, 3.0, 5.0, 8.0])
    for kind, expected in ((0, [1, 1, 1, 3, 3, 2]), (2, [1, 1, 2.5, 3, 2.5, 2])):
        (table,) = timing.TimingModel.parse(f"{BASE}SIFUNC {kind}\n{lines}").phases
        at = Rotation(86400 * days, 86400 * days, jnp.asarray(10.0))
        np.testing.assert_allclose(table.phase(at), 1e-3 * np.array(expected), rtol=1e-12)


def test_t2_is_what_it_stands_for():
    for lines, kind in (("TASC 54000\nH3 1e-7", "ELL1"), ("T0 54000\nSHAPMAX 3", "DD"), ("T0 54000", "DD")):
        assert type(timing.TimingModel.parse(ORBIT + "BINARY T2\n" + lines).binary).__name__ == kind


def test_toas_survive_a_file(tmp_path):
    _, toas = timing.bundled("J0931-1902")
    toas.save(tmp_path / "x.npz")
    again = timing.TOAs.load(tmp_path / "x.npz")
    assert again.flags == toas.flags
    assert all(
        np.array_equal(getattr(again, f.name), getattr(toas, f.name), equal_nan=f.name == "turn")
        for f in dataclasses.fields(toas)
        if f.name != "flags" and getattr(toas, f.name) is not None
    )
    np.savez(tmp_path / "y.npz", day=np.zeros(3))
    with pytest.raises(ValueError, match="no file of TOAs"):
        timing.TOAs.load(tmp_path / "y.npz")


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [("error", 0.0, "TOA 3 has the error 0"), ("frequency", np.nan, "TOA 3 has a frequency"), ("sun", np.inf, "TOA 3")],
)
def test_toas_that_make_no_sense(name, value, message):
    model, toas = timing.bundled("NGC6440E")
    bad = dataclasses.replace(toas, **{name: getattr(toas, name).at[3].set(value)})
    with pytest.raises(ValueError, match=message):
        timing.anchor(model, bad)


def test_what_no_toa_sees():
    model, toas = timing.bundled("NGC6440E")
    lines = "DMX_0001 0 1\nDMXR1_0001 40000\nDMXR2_0001 40001\nJUMP MJD 40000 40001 0 1\nJUMP MJD 53600 53700 0 1\n"
    model = timing.TimingModel.parse(BASE + lines)
    data, _ = timing.anchor(model, toas)
    with pytest.warns(UserWarning, match="no TOA depends on DMX_0001, JUMP1: the error is infinite"):
        warn_of_idle(model, data, model.par.free)


@pytest.mark.slow
def test_what_is_not_determined_is_told_once_by_its_name():
    model, toas = timing.bundled("NGC6440E")
    lines = "JUMP MJD 40000 40001 0 1\nJUMP MJD 53600 53700 0 1\nJUMP MJD 50000 60000 0 1\n"
    model = timing.TimingModel.parse(BASE + lines)
    with pytest.warns(UserWarning, match="no TOA depends|do not determine") as told:
        solution = timing.fit(model, toas)
    lost, idle = sorted((str(one.message) for one in told), reverse=True)
    assert idle == "no TOA depends on JUMP1: the error is infinite"
    assert lost.startswith("the data do not determine JUMP3, PHOFF (rank 4 of 6)")
    assert solution.success
    std = solution.std
    assert np.isinf([std["JUMP1"], std["JUMP3"]]).all()
    assert np.isfinite([std["F0"], std["RAJ"], std["JUMP2"]]).all()


def test_a_toa_twice():
    model, toas = timing.bundled("NGC6440E")
    again = jax.tree.map(lambda x: jnp.concatenate([x, x[7:8]]), toas)
    assert again.repeats().tolist() == [[62, 7]]
    assert len(again.without(again.repeats()[:, 0])) == 62
    assert not len(toas.repeats())
    assert len(timing.residuals(model, again)) == 63  # it counts, as in PINT


def test_planets_must_be_known():
    model, toas = timing.bundled("NGC6440E")
    model = timing.TimingModel.parse(BASE + "PLANET_SHAPIRO Y")
    with pytest.raises(ValueError, match="where the planets are"):
        timing.anchor(model, toas)


def test_infinite_frequency_has_no_dispersion():
    model, toas = timing.bundled("NGC6440E")
    far = dataclasses.replace(toas, frequency=jnp.full(len(toas), jnp.inf))
    assert jnp.all(jnp.isfinite(timing.residuals(model, far)))
    data, _ = timing.anchor(model, far)
    slope = jax.jacfwd(lambda x: js.put(model, {"RAJ": x, "DM": x}).residual(data))(0.0)
    assert jnp.all(jnp.isfinite(slope))


def test_names_that_do_not_exist():
    model, toas = timing.bundled("NGC6440E")
    with pytest.raises(ValueError, match="no parameter FO "):
        timing.fit(model, toas, ("FO",))
    with pytest.raises(ValueError, match="did you mean 'NGC6440E'"):
        timing.bundled("NGC6440")
    jump = timing.TimingModel.parse(BASE + "JUMP -fe Moon 1e-3 1")
    with pytest.raises(ValueError, match="no TOA has the flag '-fe Moon'"):
        timing.fit(jump, toas)
