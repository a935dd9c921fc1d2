"""What each line of a par file is: read, told and passed over, or refused; dialects of tempo, tempo2 and PINT."""

import dataclasses
import importlib.util
import os
import shutil
import subprocess
import sys
import warnings
from decimal import Decimal
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from jaxsci import timing
from jaxsci.timing._components import COMPONENTS
from jaxsci.timing._known import _READ, _READ_FAMILIES, _RECORD_FAMILIES, _RECORDS, without_idle
from jaxsci.timing._model import elements
from jaxsci.timing._par import is_masked, read_par

BASE = "PSR X\nRAJ 17:48:52.75\nDECJ -20:21:29.0\nF0 61.485476554\nF1 -1.181D-15\nPEPOCH 53750\nDM 223.9\n"
ORBIT = BASE + "PB 1.5\nA1 2\nBINARY "
KINDS = {"alone": BASE, "DD": ORBIT + "DD\nT0 54000\n", "ELL1": ORBIT + "ELL1\nTASC 54000\n"}
PINT_NAMES = Path(__file__).with_name("pint_names.txt").read_text().split()  # of PINT 1.1.8, aliases and all
MASKED = ("EFAC", "EQUAD", "ECORR", "T2E", "TNE", "DMEFAC", "DMEQUAD", "DMJUMP")
OF_NO_MODEL = ("RM", "IBOOT", "PLANET_SHAPIRO2")
OF_NO_MODEL += ("DMXR1_0001", "DMXR2_0001", "CMXR1_0001", "CMXR2_0001")  # without the window that they are an end of
RANDOM = settings(max_examples=25, deadline=None, derandomize=True)
WITH_PINT = pytest.mark.skipif(importlib.util.find_spec("pint") is None, reason="pip install 'jaxsci[timing]'")


def outcome(text, name, written):
    """`read`, `told`, `refused`, each only if the model, the warning or the error names the line."""
    try:
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            model = timing.TimingModel.parse(text, unknown="warn")
    except ValueError as error:
        return "refused" if name in str(error) or written in str(error) else f"refused for another reason: {error}"
    said = " ".join(str(one.message) for one in told)
    if f"{written} " in said:
        return "told"
    stem = name.rstrip("0123456789")
    modelled = {pint for _, pint in elements(model)} | _READ | _RECORDS
    listed = name in modelled or (stem != name and stem in _READ_FAMILIES | _RECORD_FAMILIES)
    return "read" if listed and model.par.find(name) is not None else "dropped"


def canonical(text, before):
    """PINT's name of the line by which two par files differ."""
    (new,) = {line.name for line in read_par(text).lines} - {line.name for line in read_par(before).lines}
    return new


@RANDOM
@given(
    st.sampled_from(sorted(set(PINT_NAMES) - {"BINARY", "UNITS", "F0", "PEPOCH", "ELONG", "LAMBDA"})),
    st.sampled_from(sorted(KINDS)),
    st.floats(1e-3, 0.9),
    st.booleans(),
)
def test_no_line_that_pint_knows_is_dropped(name, kind, value, free):
    before = KINDS[kind]
    line = f"{name} -f A {value!r}" if name.startswith(MASKED) or "JUMP" in name[:7] else f"{name} {value!r}"
    text = f"{before}{line}{' 1' if free else ''}\n"
    try:
        found = canonical(text, before)
    except ValueError as error:  # there already, under this or another name
        found, told = "", str(error)
    if found:
        ended = outcome(text, found, name)
        assert ended in ("read", "told" if found in OF_NO_MODEL else "refused") or "needs" in ended
    else:
        assert "twice" in told or name in told


def test_every_name_of_pint_is_read_or_refused():
    """But for those that are no part of any model."""
    used = {pint for _, pint in elements(timing.TimingModel.parse(BASE))}
    for name in PINT_NAMES:
        try:
            par = read_par(f"{name} -f A 0.5" if is_masked(name) else f"{name} 0.5")
        except ValueError as error:
            found = str(error)  # a masked line or a pair with too few words
        else:
            found = outcome_of(par, used)
        expected = "told" if name in OF_NO_MODEL else "read", "refused"
        assert found in expected or name in found, name


def outcome_of(par, used):
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        try:
            without_idle(par, used, "warn")
        except ValueError:
            return "refused"
    return "told" if told else "read"


@RANDOM
@given(st.from_regex(r"[A-Z][A-Z_]{3,8}Q", fullmatch=True), st.floats(-9, 9), st.booleans())
def test_a_line_that_nobody_knows_is_told_or_refused(name, value, free):
    text = f"{BASE}{name} {value!r}{' 1' if free else ''}\n"
    assert outcome(text, name, name) == ("refused" if free else "told")
    with pytest.raises(ValueError, match=name):
        timing.TimingModel.parse(text)


@RANDOM
@given(st.permutations([*KINDS["DD"].splitlines(), "RM 5.2", "DMX_0001 1e-3", "DMXR1_0001 53700", "DMXR2_0001 53800"]))
def test_the_order_of_lines_does_not_matter(lines):
    with pytest.warns(UserWarning, match=r"passed over: RM 5\.2$"):
        model = timing.TimingModel.parse("\n".join(lines), unknown="warn")
    with pytest.warns(UserWarning, match="RM"):
        other = timing.TimingModel.parse("\n".join(sorted(lines)), unknown="warn")
    assert [name for _, name in elements(model)] == [name for _, name in elements(other)]
    assert model.binary.orbit.PB_ref == other.binary.orbit.PB_ref
    assert model.dmx.DMX_ref == other.dmx.DMX_ref


@WITH_PINT
def test_the_list_of_names_is_that_of_pint():
    from pint.models.timing_model import AllComponents, TimingModel, ignore_params

    names = set(AllComponents()._param_alias_map) | set(TimingModel().top_level_params) | ignore_params
    assert names == set(PINT_NAMES)


def test_what_changes_nothing_is_told_once_and_written_back():
    lines = "RM 5.2\nDM_SERIES TAYLOR\nDMMODEL DM 1\nS400 3.1\nPMRV 0\nSINI 0\n"
    with pytest.warns(UserWarning, match="passed over") as told:
        model = timing.TimingModel.parse(BASE + lines, unknown="warn")
    assert len(told) == 1
    end = "passed over: RM 5.2, DM_SERIES TAYLOR, DMMODEL DM 1, S400 3.1, PMRV 0, SINI 0"
    assert str(told[0].message).endswith(end)
    assert model.par.free == ()
    written = [line.split() for line in timing.par_text(model).splitlines()]
    assert ["DMMODEL", "DM", "1"] in written
    assert ["DM_SERIES", "TAYLOR"] in written


@pytest.mark.parametrize(
    "line",
    [
        *("SWXDM_0001 1e-3", "EXPDIPAMP_1 1e-5", "EXPEP_1 54000", "CHROMGAUSS_LOGAMP_1 0", "PB_2 3", "BINARY2 DD"),
        *("ORBWAVEC0 1e-3", "TNREDFLOG 3", "TDSWKERNEL ridge", "FDJUMPDM -f A 1", "VLBIAX 0.1", "PB 3", "SINI 0.9"),
        *("PMRV 20", "GAUSAMP_1 1e-3", "TNGLOBALEF 1.1", "DMOFF 1e-3", "F0O 61 1", "PMELAT 3"),
    ],
)
def test_what_would_change_something_is_refused_whatever_is_asked(line):
    for unknown in ("warn", "error"):
        with pytest.raises(ValueError, match=f"line {line.split()[0]}"):
            timing.TimingModel.parse(f"{BASE}{line}\n", unknown)


@pytest.mark.parametrize("name", ["DMXR1_0003", "DMXR2_0003", "CMXR2_0001"])
def test_an_end_of_a_window_that_is_not_there_is_told(name):
    there = "DMX_0002 1e-3\nDMXR1_0002 53700\nDMXR2_0002 53800\nDMXEP_0003 53750\n"
    with pytest.warns(UserWarning, match=rf"passed over: {name} 53900\.5$"):
        model = timing.TimingModel.parse(f"{BASE}{there}{name} 53900.5\n", unknown="warn")
    assert model.dmx.DMX.shape == (1,)
    with pytest.raises(ValueError, match=f"line {name} 53900.5 is not understood"):
        timing.TimingModel.parse(f"{BASE}{there}{name} 53900.5\n")


def test_two_components_never_claim_one_line():
    """What each line of a par file is, is declared once."""
    declared = [(entry.name, entry.exact) for component in COMPONENTS for entry in component.lines]
    assert len(set(declared)) == len(declared)
    aliases = [alias for component in COMPONENTS for entry in component.lines for alias in entry.aliases]
    assert len(set(aliases)) == len(aliases)
    assert not set(aliases) & {name for name, exact in declared if exact}


def test_every_component_has_a_place_in_the_model():
    fields = {field.name for field in dataclasses.fields(timing.TimingModel)} - {"par", "origin"}
    assert {component.field for component in COMPONENTS if component.field} == fields


WOBBLE = '''"""Turns that grow with the cube of time. They are nobody's, and a test adds them."""

import jax.numpy as jnp
from jaxtyping import Array, Float

from ...core import numbers, param
from ._line import FROM_ONE, Component, Entry, Par
from ._passage import AbstractPhase, Rotation
from ._read import values_of


class Wobble(AbstractPhase):
    """WOB_k turns per (1e8 s)^(k + 2)."""

    WOB: Float[Array, " k"] = param()
    WOB_ref: Float[Array, " k"] = numbers()

    @staticmethod
    def from_par(par: Par) -> "Wobble | None":
        names = _WOB.elements(par)
        return Wobble(*values_of(par, names)) if names else None

    def phase(self, at: Rotation) -> Float[Array, " n"]:
        powers = jnp.arange(3, 3 + self.WOB.shape[0])
        return ((at.time / 1e8)[:, None] ** powers) @ (self.WOB + self.WOB_ref)


_WOB = Entry("WOB", FROM_ONE, aliases=("WOBBLE",), power=0)
WOBBLE = Component("phases", (_WOB,), Wobble.from_par)
'''
USED = """
import numpy as np
import jaxsci as js
js.enable_x64()
from jaxsci import timing
assert js.__file__.startswith({folder!r})
model, toas = timing.bundled("NGC6440E")
text = timing.par_text(model)
with_wobble = timing.TimingModel.parse(text + "WOB001 0 1\\nWOB2 -2e-3\\n")
assert with_wobble.par.free[-1:] == ("WOB1",)
moved = with_wobble.with_offsets({{"WOB1": 0.01}})
truth = timing.simulate(moved, toas)
found = timing.fit(with_wobble, truth)
assert abs(found.values["WOB1"] - 0.01) < 1e-3 * found.std["WOB1"], found.values
assert "WOB1" in timing.par_text(found)
assert abs(float(timing.TimingModel.parse(timing.par_text(found)).par.value("WOB2")) + 2e-3) < 1e-15
both = [np.asarray(timing.residuals(m, toas)) for m in (with_wobble, model)]
time = (np.asarray(toas.utc) - 53750) * 86400 / 1e8
step = -2e-3 * time**4 / float(model.par.value("F0"))
weight = 1 / np.asarray(toas.error) ** 2
off = both[0] - both[1] - (step - np.sum(weight * step) / np.sum(weight))
assert np.abs(off).max() < 1e-3 * np.abs(step).max(), off
try:
    timing.TimingModel.parse(text + "WOB_0001 1 1")
except ValueError as error:
    assert "WOB_0001" in str(error)
else:
    raise AssertionError("a fitted line that nobody knows is refused")
"""


@pytest.mark.slow
def test_a_new_component_is_a_file_and_an_entry_of_a_tuple(tmp_path):
    """In a copy of the package: it is read, listed, fitted, written, and refused where it is misspelt."""
    shutil.copytree(Path(timing.__file__).parents[1], tmp_path / "jaxsci", ignore=shutil.ignore_patterns("__pycache__"))
    folder = tmp_path / "jaxsci" / "timing" / "_components"
    (folder / "wobble.py").write_text(WOBBLE)
    text = (folder / "_list.py").read_text()
    text = text.replace("from .wave import", "from .wobble import WOBBLE\nfrom .wave import", 1)
    (folder / "_list.py").write_text(text.replace("    TABLE,\n", "    TABLE,\n    WOBBLE,\n", 1))
    script = USED.format(folder=str(tmp_path))
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_periods_become_frequencies():
    period, slope = Decimal("0.01626400340437608540"), Decimal("3.124D-16".replace("D", "E"))
    text = BASE.replace("F0 61.485476554\nF1 -1.181D-15", f"P0 {period} 1 1e-17\nP1 {slope} 1")
    par = timing.TimingModel.parse(text).par
    assert abs(par.value("F0") * period - 1) < Decimal("1e-30")
    assert abs(par.value("F1") * period**2 / slope + 1) < Decimal("1e-15")
    assert par.free == ("F0", "F1")
    assert float(par.find("F0").error) == pytest.approx(1e-17 / float(period) ** 2)
    of_tempo = timing.TimingModel.parse(text.replace(str(slope), "0.3124")).par  # in 1e-15
    assert of_tempo.value("F1") == par.value("F1")
    with pytest.raises(ValueError, match="F0 twice"):
        timing.TimingModel.parse(BASE + "P0 0.1\n")


def test_names_with_zeros_and_numbers():
    model = timing.TimingModel.parse(BASE + "DM001 1e-3 1\nDM002 1e-4\nJUMP2 -f A 1e-3 1\nEFAC1 -f A 1.2\n")
    assert np.asarray(model.dispersion.DM_ref).tolist() == [223.9, 1e-3, 1e-4]
    assert model.par.free == ("DM1", "JUMP1")
    assert model.par.find("EFAC1").select == "-f A"
    with pytest.raises(ValueError, match="DM1 twice"):
        read_par("DM1 1\nDM001 1")


def test_switches_and_words_are_understood_or_refused():
    par = read_par("JUMP NAME x.ar 1e-3 1\nPLANET_SHAPIRO maybe")
    assert par.find("JUMP1").select == "NAME x.ar"
    with pytest.raises(ValueError, match="PLANET_SHAPIRO should be Y or N, but it is 'maybe'"):
        par.yes("PLANET_SHAPIRO")
    with pytest.raises(ValueError, match="TRACK 1 is not supported"):
        timing.TimingModel.parse(BASE + "TRACK 1")
    ecliptic = BASE.replace("RAJ 17:48:52.75\nDECJ -20:21:29.0", "ELONG 10\nELAT 20\nECL IAU2005")
    assert float(timing.TimingModel.parse(ecliptic).astrometry.obliquity) == pytest.approx(np.deg2rad(84381.406 / 3600))
    with pytest.raises(ValueError, match='unknown should be "error" or "warn"'):
        timing.TimingModel.parse(BASE, "ignore")


T2 = {  # lines, what PINT's allow_T2 takes for them
    "T0 54000\nECC 0.1\nOM 30": "DD",
    "TASC 54000\nEPS1 1e-5\nEPS2 1e-5": "ELL1",
    "TASC 54000\nH3 1e-7\nSTIGMA 0.4": "ELL1H",
    "TASC 54000\nEPS1 1e-5\nEPS2 1e-5\nLNEDOT 1e-9\nOMDOT 1": "ELL1k",
    "T0 54000\nECC 0.1\nOM 30\nSHAPMAX 3": "DDS",
    "T0 54000\nECC 0.1\nOM 30\nH3 1e-7\nSTIGMA 0.4": "DDH",
    "T0 54000\nECC 0.1\nOM 30\nMTOT 2.8\nM2 1.4": "DDGR",
    "T0 54000\nECC 0.1\nOM 30\nKIN 70 1\nKOM 80\nSINI KIN\nPX 1": "DDK",
}


@pytest.mark.parametrize("lines", T2)
def test_t2_becomes_the_model_that_pint_takes(lines):
    par = timing.TimingModel.parse(f"{BASE}PB 1.5\nA1 2\nBINARY T2\n{lines}\n").par
    assert par.word("BINARY") == T2[lines]
    if T2[lines] == "DDK":
        assert (par.value("KIN"), par.value("KOM"), par.find("SINI")) == (110, 10, None)
        assert par.free == ("KIN",)


@WITH_PINT
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("lines", T2)
def test_t2_is_what_pint_takes(lines):
    import io

    from pint.models import get_model

    theirs = get_model(io.StringIO(f"{BASE}PB 1.5\nA1 2\nBINARY T2\n{lines}\nUNITS TDB\n"), allow_T2=True)
    assert theirs.BINARY.value == T2[lines]
    if T2[lines] == "DDK":
        assert (theirs.KIN.value, theirs.KOM.value) == (110.0, 10.0)


TCB = """PSR X
RAJ 17:48:52.75
DECJ -20:21:29.0
PMRA 3
PMDEC -2
PX 1.5
POSEPOCH 53700
F0 100.0 1 1e-9
F1 -1e-15 1
F2 1e-25
PEPOCH 55500
DM 15
DM1 1e-3
DMEPOCH 53710
UNITS TCB
BINARY DD
PB 8.634
PBDOT 1e-12
A1 3.37 1
A1DOT 1e-14
T0 55501.31 1
ECC 0.18
EDOT 1e-15
OM 107.2
OMDOT 0.1
GAMMA 1e-3
M2 0.3
SINI 0.9
FD1 1e-5
JUMP -fe A 1e-3 1 1e-6
EFAC -fe A 1.1
EQUAD -fe A 0.3
ECORR -fe A 0.2
TNREDAMP -13
TNREDGAM 3
TNREDC 10
DMX_0001 1e-3
DMXR1_0001 55000
DMXR2_0001 55001
NE_SW 5
SWEPOCH 53720
GLEP_1 55100
GLPH_1 0.1
GLF0_1 1e-7
GLF1_1 1e-14
GLF0D_1 1e-8
GLTD_1 30
WXEPOCH 53730
WXFREQ_0001 0.01
WXSIN_0001 1e-6
WXCOS_0001 1e-6
DMWXEPOCH 53740
DMWXFREQ_0001 0.02
DMWXSIN_0001 1e-3
DMWXCOS_0001 1e-3
PWEP_1 55200
PWSTART_1 55150
PWSTOP_1 55250
PWPH_1 0.1
PWF0_1 1e-8
PWF1_1 1e-16
"""
OF_PINT = {  # what PINT 1.1.8 makes of it, as its par file shows it
    "F0": "100.00000155051979176",
    "F1": "-1.0000000310103960755e-15",
    "PEPOCH": "55499.999808417783278003",
    "DM": "15.000000232577968764",
    "DMX_0001": "0.0010000000155051978",
    "DMXR1_0001": "54999.999816170382118119",
    "PB": "8.6339998661281232555",
    "A1": "3.369999947747484",
    "T0": "55501.309808397471467600",
    "ECC": "0.18",
    "FD1": "1e-05",
    "JUMP1": "0.0009999999844948024",
}


def test_tcb_becomes_tdb_with_a_note():
    with pytest.warns(UserWarning, match="in TCB: its values were converted to TDB"):
        model = timing.TimingModel.parse(TCB)
    for name, text in OF_PINT.items():
        assert float(model.par.value(name) / Decimal(text) - 1) == pytest.approx(0, abs=3e-16), name
    assert float(model.par.find("F0").error) == pytest.approx(1.0000000155051979e-09, rel=1e-8)
    again = timing.TimingModel.parse(timing.par_text(model))  # in TDB: without a note
    assert abs(again.par.value("F0") - model.par.value("F0")) < Decimal("1e-18")
    with pytest.warns(UserWarning, match="has no UNITS and is taken for TDB"):
        timing.TimingModel.parse(BASE + "EPHVER 5")
    with pytest.raises(ValueError, match="UNITS is UTC"):
        timing.TimingModel.parse(BASE + "UNITS UTC")


@WITH_PINT
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", ["DD", "ELL1", "DDGR"])
def test_tcb_becomes_what_pint_makes_of_it(kind):
    import io

    from pint.models import get_model

    text = TCB
    if kind == "ELL1":
        ours = "TASC 55501.31 1\nEPS1 1e-5\nEPS1DOT 1e-3\nEPS2 1e-5\nEPS2DOT 1e-3\n"
        text = text.replace("BINARY DD\n", "BINARY ELL1\n").replace("T0 55501.31 1\nECC 0.18\nEDOT 1e-15\n", ours)
        text = text.replace("OM 107.2\nOMDOT 0.1\nGAMMA 1e-3\n", "")
    if kind == "DDGR":
        text = text.replace("BINARY DD\n", "BINARY DDGR\nMTOT 2.8\nXOMDOT 0\n").replace("SINI 0.9\n", "")
        text = text.replace("PBDOT 1e-12\n", "XPBDOT 1e-12\n").replace("OMDOT 0.1\nGAMMA 1e-3\n", "")
        text = text.replace("XOMDOT 0\n", "")
    theirs = get_model(io.StringIO(text), allow_tcb=True)
    ours = timing.TimingModel.parse(text).par
    compared = 0
    for line in ours.lines:
        if line.name in theirs and line.name not in ("RAJ", "DECJ") and isinstance(theirs[line.name].value, float):
            scale = 1e-12 if line.name in ("EPS1DOT", "EPS2DOT") else 1
            assert float(line.value) * scale == pytest.approx(float(theirs[line.name].value) * scale, rel=1e-13), line
            compared += 1
        elif line.name in theirs and isinstance(theirs[line.name].value, np.longdouble):
            gap = np.longdouble(str(line.value)) - theirs[line.name].value
            assert abs(gap) <= 1e-16 * abs(theirs[line.name].value), line
            compared += 1
    assert compared > 30
