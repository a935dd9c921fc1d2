"""Tim files as text and as PINT reads them: commands, flags, files that are included."""

import dataclasses
import importlib.util
import warnings
from pathlib import Path
from tempfile import TemporaryDirectory

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from jaxsci import timing
from jaxsci.timing import io
from jaxsci.timing._tim import COMMANDS, check_commands, check_words, gather, unread_flags, write

RANDOM = settings(max_examples=15, deadline=None, derandomize=True)
FEW = settings(max_examples=8, deadline=None, derandomize=True)  # PINT takes a second for each
WITH_PINT = pytest.mark.skipif(importlib.util.find_spec("pint") is None, reason="pip install 'jaxsci[timing]'")
PAR = "PSR X\nRAJ 12:00:00\nDECJ 10:00:00\nF0 100.0 1\nF1 -1e-15\nPEPOCH 55500\nDM 15\nEPHEM DE440\nCLK UNCORR\n"
ROWS = [f"x{k} 1400 {55000 + 7.3 * k:.13f} 1.0 @ -fe {'AB'[k % 2]}" for k in range(24)]  # at the barycentre: no clocks


def read(lines, par=PAR, **choices):
    """`timing.load` of a tim file of FORMAT 1 with these lines."""
    with TemporaryDirectory() as folder:
        (Path(folder) / "x.par").write_text(par)
        (Path(folder) / "x.tim").write_text("\n".join(["FORMAT 1", *lines]) + "\n")
        return timing.load(Path(folder) / "x.par", Path(folder) / "x.tim", cache=False, **choices)


def quiet(lines, par=PAR):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return read(lines, par)


@RANDOM
@given(st.data())
def test_files_in_pieces_have_the_same_lines(data):
    """Any nesting of INCLUDE, with paths relative to the file that names them, read from anywhere."""
    with TemporaryDirectory() as folder:
        count = iter(range(100))

        def split(rows, where):
            """Write rows to a file of a folder, some of them by way of other files; returns its name."""
            start, stop = sorted(data.draw(st.tuples(*[st.integers(0, len(rows))] * 2)))
            lines = [*rows]
            if 0 < stop - start < len(rows):
                deeper = data.draw(st.sampled_from(["", "deeper/"]))
                (where / deeper).mkdir(exist_ok=True)
                lines[start:stop] = [f"INCLUDE {deeper}{split(rows[start:stop], where / deeper)}"]
            name = f"part{next(count)}.tim"
            text = "\n".join(["FORMAT 1", *lines]) + "\n"
            (where / name).write_bytes(text.encode("utf-8-sig" if data.draw(st.booleans()) else "utf-8"))
            return name

        top = Path(folder) / split(ROWS, Path(folder))
        files = gather(top)
        with TemporaryDirectory() as flat:
            first = write(files, Path(flat))
            assert flattened(first) == ROWS
            if importlib.util.find_spec("pint") is not None:
                from pint.toa import read_toa_file

                assert [toa.flags["name"] for toa in read_toa_file(str(first))[0]] == [row.split()[0] for row in ROWS]


def flattened(path):
    found = []
    for line in path.read_text().splitlines():
        if line.startswith("INCLUDE"):
            found += flattened(path.parent / line.split()[1])
        elif line != "FORMAT 1":
            found.append(line)
    return found


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("FORMAT 1\nINCLUDE no.tim", r"x.tim:2: there is no file .*no.tim to include; paths are relative to x.tim"),
        ("INCLUDE x.tim", "x.tim includes itself"),
        ("INCLUDE a b", "should name one file"),
        ("INCLUDE end.tim", r"end.tim:2: END in an included file"),
        ("INCLUDE cut.tim.xz", "no whole xz file"),
        (" \n", "is empty"),
    ],
)
def test_files_that_cannot_be_gathered(tmp_path, text, message):
    (tmp_path / "x.tim").write_text(text)
    (tmp_path / "end.tim").write_text("FORMAT 1\nEND\n")
    (tmp_path / "cut.tim.xz").write_bytes(b"\xfd7zXZ\x00")
    with pytest.raises(ValueError, match=message):
        gather(tmp_path / "x.tim")


@RANDOM
@given(
    st.sampled_from(["DITHER", "EMAP", "PHA1", "PHA2", "SEARCH", "SIGMA", "SIM_01.ar", "TRACK", "ZAWGT", "TIMES.ar"])
)
def test_a_command_that_is_not_applied_is_refused(word):
    with TemporaryDirectory() as folder:
        path = Path(folder) / "x.tim"
        path.write_text(f"FORMAT 1\n{ROWS[0]}\n{word} 1 2\n")
        with pytest.raises(ValueError, match=rf"x.tim:3: '{word} 1 2' is a command to PINT, which does not apply it"):
            check_commands([["FORMAT", "1"], [word, "1", "2"]], gather(path))
        assert check_commands([[name, "1"] for name in COMMANDS], gather(path)) == []
        assert check_commands([["MODE", "0"]], gather(path)) == [
            "MODE 0 is not applied: TOAs are always weighted by their errors"
        ]


@RANDOM
@given(st.from_regex(r"[a-z]{3,7}q", fullmatch=True))
def test_a_flag_that_nothing_reads_is_told(flag):
    (told,) = unread_flags(["fe", "pn", "name", flag], ("-f A",), Path("x.tim"))
    assert told == f"nothing reads the flags -{flag}"
    assert unread_flags(["fe", flag], (f"-{flag} A",), Path("x.tim")) == []


@pytest.mark.parametrize("flag", ["addsat", "radd", "pnadd"])
def test_a_flag_that_moves_a_toa_in_tempo2_is_refused(flag):
    with pytest.raises(ValueError, match=f"with the flag -{flag} tempo2 moves a TOA"):
        unread_flags([flag], (), Path("x.tim"))


@pytest.mark.parametrize(("more", "message"), [("-fe B", "-fe is there twice"), ("-clkcorr 1e-6", "flag -clkcorr")])
def test_lines_of_toas_that_contradict_themselves(tmp_path, more, message):
    (tmp_path / "x.tim").write_text(f"FORMAT 1\n{ROWS[0]}\n{ROWS[1]} {more}\n")
    with pytest.raises(ValueError, match=f"x.tim:3: .*{message}"):
        check_words(gather(tmp_path / "x.tim"))


@WITH_PINT
@FEW
@given(st.lists(st.integers(0, len(ROWS)), min_size=1, max_size=5, unique=True))
def test_pairs_of_jumps_are_jumps(places):
    """Wherever they are; an odd one holds to the end, and a pair without TOAs is none."""
    lines, places = list(ROWS), sorted(places)
    for place in reversed(places):
        lines.insert(place, "JUMP")
    ends = [*places, len(ROWS)] if len(places) % 2 else places
    spans = [(a, b) for a, b in zip(ends[::2], ends[1::2], strict=True) if b > a]
    model, toas = quiet(lines)
    assert len(toas) == len(ROWS)
    assert model.par.free == ("F0", *(f"JUMP{k}" for k in range(1, len(spans) + 1)))
    for k, (start, stop) in enumerate(spans, 1):
        chosen = toas.has(model.par.find(f"JUMP{k}").select)
        assert np.flatnonzero(chosen).tolist() == list(range(start, stop))


@WITH_PINT
@FEW
@given(st.data())
def test_commands_do_what_they_say(data):
    """PHASE, TIME, EFAC, EQUAD and SKIP at random places, and repeated lines."""
    kind = data.draw(st.sampled_from(["PHASE 1", "PHASE -2", "TIME 0.25", "EFAC 2", "EQUAD 3", "SKIP"]))
    place = data.draw(st.integers(0, len(ROWS) - 1))
    again = data.draw(st.integers(0, len(ROWS)))
    plain = quiet([*ROWS, *ROWS[:again]])[1]
    assert len(plain.repeats()) == again
    toas = quiet([*ROWS[:place], kind, *ROWS[place:], *ROWS[:again]])[1]
    after, value = np.arange(len(plain)) >= place, float(kind.split()[-1]) if " " in kind else 0.0
    if kind == "SKIP":
        assert len(toas) == place
        return
    seconds = (toas.day - plain.day) * 86400 + (toas.second - plain.second)
    np.testing.assert_allclose(seconds, np.where(after & kind.startswith("TIME"), value, 0.0), atol=1e-9)
    error = {"EFAC": value, "EQUAD": np.hypot(1, value)}.get(kind.split()[0], 1.0)
    np.testing.assert_allclose(toas.error, np.where(after, error, 1.0), rtol=1e-12)
    turns = 0.0 if toas.added is None else np.asarray(toas.added)
    np.testing.assert_array_equal(turns * np.ones(len(plain)), np.where(after & kind.startswith("PHASE"), value, 0.0))


@WITH_PINT
def test_names_select_toas():
    model, toas = quiet(ROWS, PAR + "JUMP NAME x3 1e-3 1\n")
    assert np.flatnonzero(toas.has("NAME x3")).tolist() == [3]
    assert model.par.free == ("F0", "JUMP1")


@WITH_PINT
def test_what_is_passed_over_is_told_in_one_warning():
    rows = [f"{row} -foo 1 -bar 2" for row in ROWS]
    with pytest.warns(UserWarning, match=r"MODE 0 is not applied: .*; nothing reads the flags -bar, -foo$"):
        read(["MODE 0", *rows])
    with pytest.warns(UserWarning, match=r"PINT does not know CLK UTC\(NIST\)"):
        read(ROWS, PAR.replace("UNCORR", "UTC(NIST)"))
    with pytest.warns(UserWarning, match=r"1 of 24 TOAs have no pulse number \(-pn\), and so none counts"):
        read([*(f"{row} -pn {k}" for k, row in enumerate(ROWS[1:])), ROWS[0]])
    with pytest.raises(ValueError, match=r"SIM_1 1400 55000\.1' is a command to PINT"):
        read(["SIM_1 1400 55000.1 1.0 @", *ROWS])
    with pytest.raises(ValueError, match=r"DM correction 0\.5 in columns 69 to 78"):
        read(["@              1400.000 55000.1234567890123     1.00                    0.5"])


def test_par_and_tim_that_are_swapped(tmp_path):
    (tmp_path / "x.par").write_text(PAR)
    (tmp_path / "x.tim").write_text("\n".join(["FORMAT 1", *ROWS]))
    with pytest.raises(ValueError, match=r"x.tim is a tim file, and .*x.par is none: give the par file first"):
        timing.load(tmp_path / "x.tim", tmp_path / "x.par")
    with pytest.raises(ValueError, match=r"x.tim is a tim file, give the par file first, then the tim file"):
        timing.load(tmp_path / "x.tim", tmp_path / "x.tim")


@WITH_PINT
def test_two_par_files(tmp_path):
    (tmp_path / "x.par").write_text(PAR)
    with pytest.raises(ValueError, match="is it a tim file, with FORMAT 1 as its first line"):
        timing.load(tmp_path / "x.par", tmp_path / "x.par", cache=False)


def test_a_byte_order_mark_is_no_part_of_the_text(tmp_path):
    _, toas = timing.bundled("NGC6440E")
    toas.save(tmp_path / "x.npz")
    text = (io.importlib.resources.files("jaxsci") / "data/timing/NGC6440E.par").read_text()
    (tmp_path / "x.par").write_bytes(text.encode("utf-8-sig"))
    model, _ = timing.load(tmp_path / "x.par", tmp_path / "x.npz")
    assert model.par == timing.bundled("NGC6440E")[0].par


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"sun": None}, "it has no sun; "),
        ({"sun": None, "moon": np.zeros(62)}, "it has no sun and it has moon, which this version does not know"),
        ({"sun": np.zeros((3, 3))}, r"there are 62 days, but sun \(3, 3\)"),
        ({"selected": np.zeros((2, 2), np.uint8)}, r"there are 62 days, but selected \(2, 2\)"),
    ],
)
def test_stored_toas_of_another_make_say_what_differs(tmp_path, changed, message):
    timing.bundled("NGC6440E")[1].save(tmp_path / "x.npz")
    with np.load(tmp_path / "x.npz") as file:
        arrays = dict(file) | changed
    np.savez(tmp_path / "y.npz", **{name: array for name, array in arrays.items() if array is not None})
    with pytest.raises(ValueError, match=message):
        timing.TOAs.load(tmp_path / "y.npz")


@WITH_PINT
def test_clocks_that_cannot_be_fetched_are_named(tmp_path, monkeypatch):
    import urllib.error

    import pint.toa

    def refuse(*words, **choices):
        raise urllib.error.URLError("Name or service not known")

    monkeypatch.setattr(pint.toa, "get_TOAs", refuse)
    with pytest.raises(
        ValueError, match=r"clock files cannot be fetched .*; gps2utc\.clk, tai2tt_bipm2019\.clk, time_gb"
    ):
        read([row.replace("@", "gbt") for row in ROWS], PAR.replace("UNCORR", "TT(BIPM2019)"))


PULSES = {  # where PHOFF counts from, and what decides which turn each TOA is
    "where": "TZRSITE @\nTZRFRQ 1400\n",
    "barycentre": "",
    "numbers": "TZRSITE @\nTZRFRQ 820.5\nTRACK -2\n",
    "jump": "TZRSITE @\nTZRFRQ 0\nJUMP MJD 55000 55050 1.3e-3\nDMX_0001 0.5\nDMXR1_0001 55000\nDMXR2_0001 55005\n",
}


@WITH_PINT
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", PULSES)
def test_phoff_counts_from_the_pulse_of_tzrmjd_as_in_pint(kind, tmp_path):
    from pint.models import get_model
    from pint.residuals import Residuals
    from pint.toa import get_TOAs

    text = f"{PAR}UNITS TDB\nPHOFF 0.137 1\nTZRMJD 55003.20000012345678\n{PULSES[kind]}"
    _, rows = quiet(ROWS), ROWS  # so that PINT has the ephemeris
    (tmp_path / "x.par").write_text(text)
    theirs = get_model(str(tmp_path / "x.par"))
    (tmp_path / "x.tim").write_text("\n".join(["FORMAT 1", *rows]) + "\n")
    if kind == "numbers":
        toas = get_TOAs(str(tmp_path / "x.tim"), model=theirs)
        toas.compute_pulse_numbers(theirs)
        numbers = toas.table["pulse_number"]
        rows = [f"{row} -pn {int(k) + (place == 3)}" for place, (row, k) in enumerate(zip(rows, numbers, strict=True))]
        (tmp_path / "x.tim").write_text("\n".join(["FORMAT 1", *rows]) + "\n")
    expected = Residuals(get_TOAs(str(tmp_path / "x.tim"), model=theirs), theirs).time_resids.to_value("s")
    model, toas = timing.load(tmp_path / "x.par", tmp_path / "x.tim")
    np.testing.assert_allclose(timing.residuals(model, toas), expected, rtol=0, atol=1e-9)  # MJD in long double
    again, kept = timing.load(tmp_path / "x.par", tmp_path / "x.tim")  # from the cache
    np.testing.assert_array_equal(timing.residuals(again, kept), timing.residuals(model, toas))
    assert len(list(tmp_path.glob("x.tim.jaxsci-*.npz"))) == 2
    written = timing.par_text(model)
    assert "TZR" not in written
    back = timing.residuals(timing.TimingModel.parse(written), toas)
    np.testing.assert_allclose(back, timing.residuals(model, toas), rtol=0, atol=1e-10)
    with pytest.raises(ValueError, match="it counts from the pulse of TZRMJD, which a fit would move"):
        timing.fit(model, toas, ("F0",))


def test_phoff_without_a_tim_file_counts_from_pepoch_and_says_so(tmp_path):
    model, toas = timing.bundled("NGC6440E")
    toas.save(tmp_path / "x.npz")
    (tmp_path / "x.par").write_text(timing.par_text(model) + "PHOFF 0.1 1\n")
    with pytest.warns(UserWarning, match="PHOFF counts from phase 0 at PEPOCH: when the pulse of TZRMJD was takes"):
        timing.load(tmp_path / "x.par", tmp_path / "x.npz")


@WITH_PINT
def test_what_is_told_of_a_tim_file_is_told_again_from_the_cache(tmp_path, monkeypatch):
    (tmp_path / "x.par").write_text(PAR)
    (tmp_path / "x.tim").write_text("\n".join(["FORMAT 1", "MODE 0", *(f"{row} -foo 1" for row in ROWS)]) + "\n")
    said = []
    for _ in range(2):
        with pytest.warns(UserWarning, match="nothing reads the flags -foo") as told:
            timing.load(tmp_path / "x.par", tmp_path / "x.tim")
        said.append([str(one.message) for one in told])
        monkeypatch.setattr(io, "_read", lambda *words: pytest.fail("it was read again"))
    assert said[0] == said[1]
    (stored,) = tmp_path.glob("x.tim.jaxsci-*.npz")
    timing.TOAs.load(stored).save(tmp_path / "y.npz")  # what was told once is no part of the TOAs
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        timing.load(tmp_path / "x.par", tmp_path / "y.npz")


@pytest.mark.parametrize("name", ["../x.tim", "deeper/link.tim", "{}/x.tim"])
def test_files_outside_of_a_folder_are_included_on_demand(name, tmp_path):
    inside = tmp_path / "inside"
    (inside / "deeper").mkdir(parents=True)
    (tmp_path / "x.tim").write_text("\n".join(["FORMAT 1", *ROWS]) + "\n")
    (inside / "deeper" / "link.tim").symlink_to(tmp_path / "x.tim")
    (inside / "near.tim").write_text(f"FORMAT 1\n{ROWS[0]}\n")
    (inside / "a.tim").write_text(f"FORMAT 1\nINCLUDE near.tim\nINCLUDE {name.format(tmp_path)}\n")
    assert len(gather(inside / "a.tim")) == 3
    with pytest.raises(ValueError, match=r"a.tim:3: .* lies outside of .*inside; .*--allow-outside"):
        gather(inside / "a.tim", inside)
    (inside / "a.tim").write_text("FORMAT 1\nINCLUDE deeper/../near.tim\n")
    assert len(gather(inside / "a.tim", inside)) == 2


def test_track_decides_whether_pulse_numbers_count():
    model, toas = timing.bundled("NGC6440E")
    text = timing.par_text(model)
    plain = np.asarray(timing.residuals(model, toas))
    known = dataclasses.replace(toas, turn=jnp.where(jnp.arange(len(toas)) == 5, 1.0, 0.0) + turns_of(model, toas))
    of = {
        track: np.asarray(timing.residuals(timing.TimingModel.parse(text + track), known))
        for track in ("", "TRACK 0\n", "TRACK -2\n")
    }
    np.testing.assert_allclose(of["TRACK 0\n"], plain, atol=1e-12)
    np.testing.assert_array_equal(of[""], of["TRACK -2\n"])
    moved = of[""] - plain
    period = 1 / float(model.par.value("F0"))
    np.testing.assert_allclose(moved[5] - np.delete(moved, 5), -period, rtol=1e-9)
    some = dataclasses.replace(known, turn=known.turn.at[3].set(jnp.nan))
    np.testing.assert_allclose(timing.residuals(model, some), plain, atol=1e-12)
    with pytest.raises(ValueError, match="1 of 62 TOAs have none: give every line of the tim file a -pn"):
        timing.residuals(timing.TimingModel.parse(text + "TRACK -2\n"), some)
    phase = dataclasses.replace(known, added=jnp.where(jnp.arange(len(toas)) == 5, 1.0, 0.0))  # PHASE makes up for it
    np.testing.assert_allclose(timing.residuals(model, phase), plain, atol=1e-12)


def turns_of(model, toas):
    """The pulse that each TOA is nearest to."""
    from jaxsci.timing._precision import TwoDouble, phase, seconds_between

    data, order = timing.anchor(model, toas)
    delay = np.empty(len(toas))
    delay[order] = np.asarray(data.delay)
    fraction = np.empty(len(toas))
    fraction[order] = np.asarray(data.phase)
    par = model.par
    times = TwoDouble(np.asarray(toas.second), np.asarray(toas.second_low))
    elapsed = seconds_between(toas.day, times, par.value("PEPOCH")) - TwoDouble.of(delay)
    total = phase(elapsed, [TwoDouble.of(par.value(name)) for name in ("F0", "F1")]) - TwoDouble.of(fraction)
    return (total - TwoDouble(total.hi[0], total.lo[0])).round()
