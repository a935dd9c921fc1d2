"""Small par and tim files of what pulsar timers ran into, against PINT's answers."""

import json
import re
import shutil
import warnings
from decimal import Decimal

import numpy as np
import pytest

import jaxsci as js
from jaxsci import timing

pint = pytest.importorskip("pint", reason="pip install 'jaxsci[timing]'")
CASES = {  # what is told of each
    "pulse_numbers_track": None,
    "pulse_numbers_only": None,
    "tim_jump": None,
    "tim_jump_two": None,
    "include": None,
    "duplicates": r"3 of 43 TOAs are there once more, .* each counts, as in PINT",
    "t2_ell1": None,
    "t2_dd": None,
    "phoff": None,
    "dmx_overlap": None,
    "dm_digits": None,
    "harmless_lines": r"passed over: RM 5\.2, DM_SERIES TAYLOR, .*, PLANET_SHAPIRO2 N$",
}


def expected_value(name, text):
    """(PINT's value in the par file's unit, what it may be off by: half of its last digit, and of a float64's)."""
    parts = re.split(r"[hdms]", text)[:3] if name in ("RAJ", "DECJ") else [text]
    numbers = [Decimal(part) for part in parts]
    value = sum(abs(part) / Decimal(60) ** k for k, part in enumerate(numbers))
    last = float(Decimal(1).scaleb(numbers[-1].as_tuple().exponent) / 2) / 60 ** (len(numbers) - 1)
    digits = 0.0 if len(parts) > 1 else float(np.spacing(abs(float(value)))) / 2
    return value if not text.startswith("-") else -value, last + digits


def loaded(name, shared_data):
    """(model, TOAs, PINT's answers), when what is told is what it should be."""
    folder = shared_data / "timing"
    expected = json.loads((folder / "cases" / "expected.json").read_text())[name]
    files = [folder / "cases" / f"{name}.{end}" for end in ("par", "tim")]
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always", UserWarning)
        model, toas = timing.load(*files, clock_dir=folder / "clock", cache=False)
    said = [str(one.message) for one in told if one.category is UserWarning]
    assert len(said) == (CASES[name] is not None)
    if said:
        assert re.search(CASES[name], said[0])
    return model, toas, expected


@pytest.mark.parametrize("name", CASES)
def test_residuals_are_those_of_pint(name, shared_data):
    model, toas, expected = loaded(name, shared_data)
    assert len(toas) == expected["n"]
    residuals = 1e6 * np.asarray(timing.residuals(model, toas))
    np.testing.assert_allclose(residuals, expected["prefit_residual_us"], rtol=0, atol=1e-3)


QUICK = ("pulse_numbers_track", "tim_jump_two", "phoff")


@pytest.mark.parametrize(
    "name", [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in CASES]
)
def test_fits_are_those_of_pint(name, shared_data):
    model, toas, expected = loaded(name, shared_data)
    solution = timing.fit(model, toas)
    assert solution.success
    assert set(solution.names) == set(expected["fitted"])
    assert float(solution.chi2) == pytest.approx(expected["chi2"], abs=1e-3)
    # PINT counts the phase offset twice where it is a line of the par file
    assert solution.dof == expected["dof"] + (name == "phoff")
    for parameter, (text, std) in expected["fitted"].items():
        value, rounding = expected_value(parameter, text)
        assert solution.std[parameter] == pytest.approx(std, rel=1e-3)
        assert abs(float(solution.exact[parameter] - value)) <= 1e-3 * std + rounding, parameter


def test_a_phase_offset_is_written_and_read_back(shared_data):
    model, toas, _ = loaded("phoff", shared_data)
    moved = js.put(model, {"PHOFF": 0.15})
    again = timing.TimingModel.parse(timing.par_text(moved))
    assert abs(again.par.value("PHOFF") - Decimal("0.25")) < Decimal("1e-16")
    after = np.asarray(timing.residuals(moved, toas))
    np.testing.assert_allclose(timing.residuals(again, toas), after, rtol=0, atol=1e-11)
    assert abs(after.mean() + 0.004786) < 1e-5  # the mean stays


@pytest.fixture
def case(shared_data, tmp_path):
    """Copies one of the cases: `copy(name)` gives its par and tim file."""

    def copy(name):
        for path in (shared_data / "timing" / "cases").glob(f"{name}*"):
            shutil.copyfile(path, tmp_path / path.name)
        return tmp_path / f"{name}.par", tmp_path / f"{name}.tim"

    return copy


def test_a_change_of_an_included_file_is_seen(case, shared_data, tmp_path, monkeypatch):
    par, tim = case("include")
    clocks = shared_data / "timing" / "clock"
    _, first = timing.load(par, tim, clock_dir=clocks)
    monkeypatch.chdir("/")
    with monkeypatch.context() as patch:
        patch.setattr(timing.io, "_read", lambda *words: pytest.fail("it was read again"))
        timing.load(par, tim, clock_dir=clocks)
    rest = tmp_path / "include_rest.tim"
    rest.write_text("\n".join(rest.read_text().splitlines()[:-1]) + "\n")
    _, second = timing.load(par, tim, clock_dir=clocks)
    assert len(second) == len(first) - 1
    rest.unlink()
    with pytest.raises(ValueError, match=r"include.tim:22: there is no file .*include_rest.tim to include"):
        timing.load(par, tim, clock_dir=clocks)


def test_jumps_of_the_tim_file_stay_with_its_toas(case, shared_data, tmp_path):
    """In the npz, in the par file that is written, and where a model does not have them."""
    par, tim = case("tim_jump_two")
    model, toas = timing.load(par, tim, clock_dir=shared_data / "timing" / "clock")
    assert model.par.free[-2:] == ("JUMP1", "JUMP2")
    toas.save(tmp_path / "x.npz")
    again, stored = timing.load(par, tmp_path / "x.npz")
    assert again.par.free == model.par.free
    with pytest.raises(ValueError, match=r"pairs of JUMPs \(-tim_jump 1, -tim_jump 2\) that the model has no JUMP for"):
        timing.fit(timing.TimingModel.parse(par.read_text()), stored)
    solution = timing.fit(model, toas, ("F0", "JUMP2"))
    timing.write_par(solution, tmp_path / "new.par")
    once_more, _ = timing.load(tmp_path / "new.par", tmp_path / "x.npz")
    jumps = [flag for flag in toas.flags if flag.startswith("-tim_jump")]
    assert [line.select for line in once_more.par.lines if line.name.startswith("JUMP")] == jumps
    assert once_more.par.value("JUMP2") != 0


def test_toas_that_repeat_are_kept_dropped_or_refused(case, shared_data):
    par, tim = case("duplicates")
    clocks = shared_data / "timing" / "clock"
    with pytest.warns(UserWarning, match="they were dropped"):
        _, toas = timing.load(par, tim, clock_dir=clocks, duplicates="drop")
    assert len(toas) == 40
    assert not len(toas.repeats())
    with pytest.raises(ValueError, match="TOA 10 is TOA 3 once more"):
        timing.load(par, tim, clock_dir=clocks, duplicates="error")
    with pytest.raises(ValueError, match='duplicates should be "keep", "error" or "drop"'):
        timing.load(par, tim, clock_dir=clocks, duplicates="lose")


def test_lines_that_change_nothing_are_refused_on_demand(case, shared_data):
    with pytest.raises(ValueError, match=r"line RM 5\.2 is not understood"):
        timing.load(*case("harmless_lines"), clock_dir=shared_data / "timing" / "clock", unknown="error")
