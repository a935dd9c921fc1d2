"""TOAs simulated by a plan, without a tim file: of Python, a command and a config."""

import json

import jax
import numpy as np
import pytest

from jaxsci import timing
from jaxsci.timing.io import planned_text

PAR = """PSR X
RAJ 12:00:00
DECJ 10:00:00
F0 100.0 1
F1 -1e-15 1
PEPOCH 55500
DM 15 1
EPHEM DE440
CLK UNCORR
UNITS TDB
JUMP -f B 1e-4 1
"""
PLAN = {"mjd": (55000, 55100), "cadence": 20, "frequency": (700, 1500.0), "error": (2.0, 0.5), "observatory": "@"}
FLAGS = ({"f": "A"}, {"f": "B"})
with_pint = pytest.mark.skipif(
    not __import__("importlib.util").util.find_spec("pint"), reason="pip install 'jaxsci[timing]'"
)


@with_pint
def test_a_plan_has_what_it_says():
    model = timing.TimingModel.parse(PAR)
    toas = timing.schedule(model, **PLAN, flags=FLAGS)
    assert len(toas) == 12
    np.testing.assert_allclose(toas.utc, np.repeat(55000 + 20 * np.arange(6), 2), atol=1e-9)
    np.testing.assert_array_equal(toas.frequency, [700, 1500] * 6)
    np.testing.assert_array_equal(toas.error, [2.0, 0.5] * 6)
    np.testing.assert_array_equal(toas.has("-f B"), [False, True] * 6)
    assert not np.asarray(toas.position).any()  # at the barycentre
    perfect = timing.simulate(model, toas)
    assert np.abs(np.asarray(timing.residuals(model, perfect))).max() < 1e-11
    assert np.abs(np.asarray(perfect.utc - toas.utc)).max() * 86400 < 0.011  # the nearest pulse of 100 Hz
    noisy = timing.simulate(model, toas, key=jax.random.key(2))
    late = np.asarray(timing.residuals(model, noisy)) / (1e-6 * np.asarray(toas.error))
    assert 0.4 < np.std(late) < 1.8


@with_pint
@pytest.mark.filterwarnings("ignore")  # PINT leaves files open
def test_simulated_toas_are_those_of_pint(shared_data, tmp_path):
    """Its times, read here, have residuals of a constant; and it finds a constant in ours."""
    import astropy.units as u
    import pint.models
    import pint.simulation
    import pint.toa
    from pint.residuals import Residuals

    from jaxsci.timing import io
    from jaxsci.timing._clocks import reading_clocks
    from jaxsci.timing._tim_out import retimed

    text = PAR.replace("JUMP -f B 1e-4 1\n", "").replace("UNCORR", "TT(BIPM2019)")
    (tmp_path / "x.par").write_text(text)
    model = timing.TimingModel.parse(text)
    clocks = shared_data / "timing" / "clock"
    theirs = pint.models.get_model(str(tmp_path / "x.par"))
    with reading_clocks(clocks), io._quiet():
        io._use_kernel("de440")
        fake = pint.simulation.make_fake_toas_uniform(55000, 55100, 6, theirs, freq=1400 * u.MHz, obs="gbt")
        fake.write_TOA_file(str(tmp_path / "theirs.tim"))
    _, toas = timing.load(tmp_path / "x.par", tmp_path / "theirs.tim", clock_dir=clocks)
    assert np.abs(np.asarray(timing.residuals(model, toas))).max() < 2e-9
    pattern = timing.schedule(model, (55000, 55100), 20, clock_dir=clocks)
    made = timing.simulate(model, pattern)
    plan = planned_text((55000, 55100), 20, 1400, 1.0, "gbt", {})
    (tmp_path / "ours.tim").write_text(retimed(plan, pattern, made))
    with reading_clocks(clocks), io._quiet():
        ours = pint.toa.get_TOAs(str(tmp_path / "ours.tim"), model=theirs)
    assert np.abs(Residuals(ours, theirs).time_resids.to_value(u.ns)).max() < 2


WRONG = {
    "order": ({"mjd": (55100, 55000)}, "mjd should be two numbers, from and to"),
    "cadence": ({"cadence": 0}, "cadence should be days, above 0"),
    "many": ({"cadence": 1e-4}, "these would be 2000002 TOAs; there may be 1 to 1000000"),
    "frequency": ({"frequency": (-1, 1500)}, "frequency should be MHz, above 0"),
    "error": ({"error": 0}, "error should be microseconds, above 0"),
    "errors": ({"error": (1.0,)}, "there are 2 frequencies, but 1 errors"),
    "flags": ({"flags": ({"f": "A"},)}, "there are 2 frequencies, but 1 sets of flags"),
    "word": ({"flags": {"f": "A B"}}, "a flag is one word, but there is 'A B'"),
}


@pytest.mark.parametrize("case", WRONG)
def test_plans_that_cannot_be(case):
    change, message = WRONG[case]
    with pytest.raises(ValueError, match=message):
        timing.schedule(timing.TimingModel.parse(PAR), **(PLAN | change))


def test_plans_take_pint(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "pint.models", None)
    with pytest.raises(ImportError, match=r"schedules take PINT: install jaxsci\[timing\]"):
        timing.schedule(timing.TimingModel.parse(PAR), **PLAN)


@with_pint
def test_a_command_writes_them(command, tmp_path):
    (tmp_path / "x.par").write_text(PAR)
    words = (
        "timing",
        "simulate",
        tmp_path / "x.par",
        "--mjd",
        "55000",
        "55100",
        "--cadence",
        "20",
        "--observatory",
        "@",
    )
    words += ("--frequency", "700", "--flag", "f=B")
    for name in ("x.npz", "x.tim"):
        done = command(*words, "-o", tmp_path / name)
        assert done.exit_code == 0, done.output
        assert "6 TOAs of X written to" in " ".join(done.stdout.split())
        model, toas = timing.load(tmp_path / "x.par", tmp_path / name)
        assert np.abs(np.asarray(timing.residuals(model, toas))).max() < 1e-9
    refused = command(*words[:3], tmp_path / "x.tim", *words[3:], "-o", tmp_path / "y.npz")
    assert refused.exit_code == 2
    assert "leave out --mjd" in refused.stderr
    for option, value in (("--cadence", "20"), ("--error", "2"), ("--flag", "f=B"), ("--observatory", "@")):
        alone = command(*words[:3], tmp_path / "x.tim", option, value, "-o", tmp_path / "y.npz")
        assert alone.exit_code == 2
        assert f"{option}: is a word of a plan: give its dates too" in alone.stderr
    refused = command(*words[:-1], "f:B", "-o", tmp_path / "y.npz")
    assert "--flag: should be NAME=VALUE" in refused.stderr


TABLE = """
task = "timing"
[[data]]
par = "x.par"
free = ["F0", "DM"]
simulate = { mjd = [55000, 55100], cadence = 20, frequency = [700, 1500], flags = { f = "B" }, observatory = "@"%s }
"""


@with_pint
def test_a_run_fits_them(command, tmp_path):
    (tmp_path / "x.par").write_text(PAR)
    (tmp_path / "x.toml").write_text(TABLE % ", seed = 3")
    done = command("run", tmp_path / "x.toml", "--out", tmp_path / "out")
    assert done.exit_code == 0, done.output
    (member,) = json.loads((tmp_path / "out" / "results.json").read_text())["members"]
    assert (member["num_data"], member["source"]) == (12, "x.par, simulated")
    assert 1 < member["chi2"] < 30
    assert all(abs(row["offset"]) < 5 * row["std"] for row in member["parameters"] if "offset" in row)


BAD = {
    "key": ("cadance = 3", "data[0].simulate.cadance: there is no key 'cadance' here; did you mean 'cadence'?"),
    "seed": ('seed = "one"', "data[0].simulate.seed"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_plans_in_a_config(command, tmp_path, case):
    (tmp_path / "x.par").write_text(PAR)
    text, message = BAD[case]
    (tmp_path / "x.toml").write_text(TABLE % f", {text}")
    done = command("check", tmp_path / "x.toml")
    assert done.exit_code == 2
    assert message in done.stderr
    (tmp_path / "x.toml").write_text(TABLE % "" + 'tim = "x.tim"\n')
    done = command("check", tmp_path / "x.toml")
    assert "data[0].tim: the TOAs are simulated" in done.stderr
