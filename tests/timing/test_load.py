"""Par and tim files through PINT, what is cached, and what is refused."""

import gzip
import re
import shutil

import numpy as np
import pytest

from jaxsci import timing
from jaxsci.timing import _clocks, io

pint = pytest.importorskip("pint", reason="pip install 'jaxsci[timing]'")
pytestmark = pytest.mark.filterwarnings("ignore")
SITE = " x 1400 {} {} {} -f A\n"


@pytest.fixture
def pulsar(tmp_path):
    """(par file, tim file) of a bundled pulsar, in a folder of its own."""
    (tmp_path / "x.par").write_text((io.importlib.resources.files("jaxsci") / "data/timing/NGC6440E.par").read_text())
    (tmp_path / "x.tim").write_text(io.tim_text("NGC6440E"))
    return tmp_path / "x.par", tmp_path / "x.tim"


def test_what_pint_reads_is_what_comes_with_the_package(pulsar, shared_data):
    model, toas = timing.load(*pulsar, clock_dir=shared_data / "timing" / "clock")
    ours = timing.residuals(*timing.bundled("NGC6440E"))
    assert np.abs(np.asarray(timing.residuals(model, toas)) - np.asarray(ours)).max() < 1e-10


TEMPO2 = {  # tim file, rms of the difference in ns, which is PINT's own
    "J1744-1134.basic": ("J1744-1134.Rcvr1_2.GASP.8y.x", 0.9),
    "B1855+09_NANOGrav_9yv1.gls": ("B1855+09_NANOGrav_9yv1", 6.7),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", TEMPO2)
def test_residuals_are_those_of_tempo2(name, shared_data, tmp_path):
    """Both were made with TT(TAI), whatever the par file says now."""
    folder, (tim, rms) = shared_data / "timing", TEMPO2[name]
    text = (folder / "par" / f"{name}.par").read_text()
    (tmp_path / "x.par").write_text(re.sub(r"^CLK\s+\S+", "CLK TT(TAI)", text, flags=re.M))
    (tmp_path / "x.tim").write_bytes(gzip.decompress((folder / "tim" / f"{tim}.tim.gz").read_bytes()))
    model, toas = timing.load(tmp_path / "x.par", tmp_path / "x.tim", clock_dir=folder / "clock")
    theirs = np.loadtxt(folder / "golden" / f"{name}.par.tempo2_test.gz", skiprows=1, usecols=0)
    assert round(1e9 * np.std(np.asarray(timing.residuals(model, toas)) - theirs), 1) <= rms


def test_what_was_read_is_kept_by_its_content(pulsar, shared_data, monkeypatch):
    par, tim = pulsar
    clocks = shared_data / "timing" / "clock"
    _, first = timing.load(par, tim, clock_dir=clocks)
    (stored,) = tim.parent.glob("x.tim.jaxsci-*.npz")
    with monkeypatch.context() as patch:
        patch.setattr(io, "_read", lambda *words: pytest.fail("it was read again"))
        _, again = timing.load(par, tim, clock_dir=clocks)
    assert np.array_equal(first.second, again.second)
    stored.write_bytes(stored.read_bytes()[:100])  # a damaged one is written anew
    timing.load(par, tim, clock_dir=clocks)
    assert len(timing.TOAs.load(stored)) == len(first)
    read = []
    monkeypatch.setattr(io, "_read", lambda *words: read.append(words) or first)
    par.write_text(par.read_text().replace("61.485476554", "61.485476555"))  # of no consequence
    timing.load(par, tim, clock_dir=clocks)
    assert not read
    timing.load(par, tim, clock_dir=clocks, ephem="DE440")
    tim.write_text(tim.read_text() + "\n")
    timing.load(par, tim, clock_dir=clocks)
    par.write_text(re.sub("^DECJ.*$", "DECJ -20:21:33.0 1", par.read_text(), flags=re.M))
    timing.load(par, tim, clock_dir=clocks)
    assert len(read) == 3
    timing.load(par, tim, clock_dir=clocks, cache=False)
    assert len(read) == 4


def late(folder):
    """Put GPS a millisecond off."""
    path = folder / "T2runtime" / "clock" / "gps2utc.clk"
    rows = [line.split() for line in path.read_text().splitlines()]
    path.write_text("\n".join(" ".join([r[0], repr(float(r[1]) + 1e-3), *r[2:]] if r[0] != "#" else r) for r in rows))


def test_clocks_are_those_that_the_folder_has_now(pulsar, shared_data, tmp_path):
    """PINT keeps what it has read, in memory and by address."""
    from pint.observatory import global_clock_corrections as repository

    before = repository.global_clock_correction_url_base
    for name in ("one", "two"):
        shutil.copytree(shared_data / "timing" / "clock", tmp_path / name, copy_function=shutil.copyfile)
    late(tmp_path / "two")
    _, first = timing.load(*pulsar, clock_dir=tmp_path / "one")
    _, second = timing.load(*pulsar, clock_dir=tmp_path / "two")
    np.testing.assert_allclose(second.second - first.second, 1e-3, atol=1e-9)
    late(tmp_path / "one")
    _, third = timing.load(*pulsar, clock_dir=tmp_path / "one")
    assert np.array_equal(third.second, second.second)
    assert repository.global_clock_correction_url_base == before


def test_clocks_that_pint_has_fetched_are_part_of_the_content(pulsar, tmp_path, monkeypatch):
    clock, read = tmp_path / "contents", []
    toas = timing.bundled("NGC6440E")[1]
    monkeypatch.setattr(_clocks, "_fetched", lambda: {"https://x/pulsar-clock-corrections/gps2utc.clk": clock})
    monkeypatch.setattr(io, "_read", lambda *words: read.append(clock.write_text("2")) or toas)
    clock.write_text("1")
    for _ in range(2):  # the first reading fetches another version
        timing.load(*pulsar)
    assert len(read) == 1
    clock.write_text("3")
    timing.load(*pulsar)
    monkeypatch.setenv("PINT_CLOCK_OVERRIDE", str(tmp_path / "own"))
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "gps2utc.clk").write_text("4")
    timing.load(*pulsar)
    assert len(read) == 3


def test_toas_from_npz_need_no_pint(pulsar, monkeypatch):
    _, toas = timing.bundled("NGC6440E")
    toas.save(pulsar[1].with_suffix(".npz"))
    monkeypatch.setattr(io, "_read", lambda *words: pytest.fail("PINT was asked"))
    _, again = timing.load(pulsar[0], pulsar[1].with_suffix(".npz"))
    assert np.array_equal(toas.second, again.second)


ONE = SITE.format(53478.28, 21.0, "gbt")
REFUSED = {
    "unknown observatory": ("FORMAT 1\n" + SITE.format(53478.28, 21.0, "moonbase"), "observatory 'moonbase'"),
    "before the clock file": ("FORMAT 1\n" + SITE.format(40000.1, 21.0, "gbt"), r"gps2utc.clk.*clock_dir"),
    "after the clock file": ("FORMAT 1\n" + SITE.format(70000.1, 21.0, "gbt"), r"gps2utc.clk.*clock_dir"),
    "no clock file": ("FORMAT 1\n" + SITE.format(53478.28, 21.0, "parkes"), r"pks2gps.clk.*pulsar-clock-corrections"),
    "zero uncertainty": ("FORMAT 1\n" + SITE.format(53478.28, 0.0, "gbt"), "TOA 0 has the error 0"),
    "duplicate": ("FORMAT 1\n" + ONE + ONE, "TOA 1 is TOA 0 once more"),
    "cut short": ("FORMAT 1\n" + ONE + " x 1400 53479", "cut short"),
    "empty": ("", "empty"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_tim_files_that_are_refused(pulsar, shared_data, case):
    text, message = REFUSED[case]
    pulsar[1].write_text(text)
    with pytest.raises(ValueError, match=message):
        timing.load(*pulsar, clock_dir=shared_data / "timing" / "clock", duplicates="error")
    assert (case == "duplicate") == bool(list(pulsar[1].parent.glob("*.npz")))


def test_files_that_are_no_text(pulsar):
    pulsar[1].write_bytes(pulsar[1].read_text().encode("utf-16"))
    with pytest.raises(ValueError, match=r"x.tim is no text in UTF-8"):
        timing.load(*pulsar)


def test_an_ephemeris_or_clocks_that_are_not_there(pulsar, tmp_path):
    with pytest.raises(ValueError, match=r"no index\.txt"):
        timing.load(*pulsar, clock_dir=tmp_path)
    with pytest.raises(ValueError, match="DE999 is neither here nor to be had"):
        timing.load(*pulsar, ephem="DE999")
