"""Par files and TOAs: what is read, what is refused and how."""

import dataclasses
from decimal import Decimal

import jax.numpy as jnp
import numpy as np
import pytest

from jaxsci import timing
from jaxsci.timing._par import Par

BASE = "PSR X\nRAJ 17:48:52.75 1\nDECJ -20:21:29.0\nF0 61.485476554 1\nF1 -1.181D-15\nPEPOCH 53750\nDM 223.9\n"


def test_values_keep_all_their_digits():
    par = Par.parse(
        "F0 641.9282221278291832491 1 1e-15\nF1 -4.331D-14\nXDOT 0.011\nE 0.1\nRAJ 01:30:00\nDECJ -00:30:00"
    )
    assert par.value("F0") == Decimal("641.9282221278291832491")
    assert par.value("F1") == Decimal("-4.331e-14")
    assert par.value("A1DOT") == Decimal("1.1e-14")  # tempo's 1e-12
    assert (par.value("ECC"), par.value("RAJ"), par.value("DECJ")) == (Decimal("0.1"), Decimal("1.5"), Decimal("-0.5"))
    assert par.free == ("F0",)


def test_repeated_selections_are_numbered():
    par = Par.parse("JUMP -fe L-wide 1e-3 1\nJUMP -fe S-wide 2e-3\nT2EFAC -f A 1.1")
    assert [line.name for line in par.lines] == ["JUMP1", "JUMP2", "EFAC1"]
    assert par.find("JUMP2").select == "-fe S-wide"
    assert par.free == ("JUMP1",)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (BASE.replace("F0 ", "#F0 "), "no F0"),
        (BASE.replace("PEPOCH ", "#PEPOCH "), "no PEPOCH"),
        (BASE + "GLEP_1 54000", "GLEP_1"),
        (BASE + "BINARY T9", "BINARY T9 is not supported"),
        (BASE + "BINARY DD\nPB 1\nA1 2", "no T0"),
        (BASE + "NE_SW 7.9", "NE_SW"),
        (BASE + "UNITS TCB", "TCB"),
        (BASE + "ELONG 3\nELAT 2\nECL MOON", "ECL MOON"),
        (BASE + "F0 3", "F0 twice"),
        (BASE + "DM", "DM has no value"),
        (BASE.replace("223.9", "many"), "many"),
        (BASE + "JUMP MJD 50000 51000 0.1", "flag"),
    ],
)
def test_par_files_that_cannot_be(text, message):
    with pytest.raises(ValueError, match=message):
        timing.TimingModel.parse(text)


def test_toas_survive_a_file(tmp_path):
    _, toas = timing.bundled("J0931-1902")
    toas.save(tmp_path / "x.npz")
    again = timing.TOAs.load(tmp_path / "x.npz")
    assert again.flags == toas.flags
    assert all(
        np.array_equal(getattr(again, f.name), getattr(toas, f.name), equal_nan=f.name == "turn")
        for f in dataclasses.fields(toas)
        if f.name != "flags"
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


def test_infinite_frequency_has_no_dispersion():
    model, toas = timing.bundled("NGC6440E")
    far = dataclasses.replace(toas, frequency=jnp.full(len(toas), jnp.inf))
    assert jnp.all(jnp.isfinite(timing.residuals(model, far)))


def test_names_that_do_not_exist():
    model, toas = timing.bundled("NGC6440E")
    with pytest.raises(ValueError, match="no parameter FO "):
        timing.fit(model, toas, ("FO",))
    with pytest.raises(ValueError, match="did you mean 'NGC6440E'"):
        timing.bundled("NGC6440")
    jump = timing.TimingModel.parse(BASE + "JUMP -fe Moon 1e-3 1")
    with pytest.raises(ValueError, match="no TOA has the flag '-fe Moon'"):
        timing.fit(jump, toas)
