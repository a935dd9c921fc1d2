"""Mutations of real files: whatever is read, is refused by documented errors or read, and never runs."""

import pickle
import re
import warnings
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

import jaxsci as js
from benchmarks import _fuzz
from jaxsci import timing, xpcs
from jaxsci.curvefit._task.tables import read_stack, read_table
from jaxsci.datasets import FileError, parse_json, parse_toml, read_array, read_arrays
from jaxsci.parallel import Kept, read_framed, write_framed
from jaxsci.runs import Config, ConfigError

PINT = {"tim, by PINT"}  # a second a case: the benchmark runs them
HEAVY = {"configs, checked", "results, HDF5", "q-maps, HDF5", "maps, FITS", "solutions"}

DOCUMENTED = {
    **dict.fromkeys([reader.name for reader in _fuzz.READERS], (ValueError,)),
    **dict.fromkeys(
        ["text tables", "NIST files", "configs, checked", "TOML", "npy tables", "manifests"], (ConfigError,)
    ),
    **dict.fromkeys(["Parquet tables", "HDF5 tables", "densities, csv", "densities, npz"], (ConfigError,)),
}
"""The errors that each reader says it raises for a file that is there."""


def said(read, refused=(ValueError,)) -> str:
    """What is said where something is refused by these errors; empty where it is read."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            read()
        except refused as error:
            return str(error) or "nothing"
    return ""


@pytest.mark.parametrize("reader", [r for r in _fuzz.READERS if r.name not in PINT], ids=lambda reader: reader.name)
def test_first_cases(tmp_path, reader):
    corpus, path = reader.corpus(), tmp_path / f"case{reader.suffix}"
    count = 12 if reader.name in HEAVY else 60
    refused = 0
    for number in range(count):
        path.write_bytes(_fuzz.case(reader, number, corpus))
        text = said(lambda: reader.read(path), DOCUMENTED[reader.name])
        assert text != "nothing", f"case {number}"
        refused += bool(text)
    assert refused > count // 10, "the cases should be wrong"


def test_the_corpus_itself_is_read(tmp_path):
    """Otherwise all cases would be refused for another reason than what was changed."""
    for reader in _fuzz.READERS:
        if reader.name in PINT | {"configs, checked"}:
            continue
        path = tmp_path / f"case{reader.suffix}"
        for content in reader.corpus()[:3]:
            path.write_bytes(content)
            (tmp_path / "a.tim").write_text("a 1400 55000 1 gbt\n")
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                reader.read(path)


cheap = settings(max_examples=80, deadline=None, derandomize=True)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda x: st.lists(x) | st.dictionaries(st.text(), x),
)


@cheap
@given(text=st.text())
def test_any_text_is_toml_or_refused(text):
    assert re.search("^$|valid TOML|64 are the most", said(lambda: parse_toml(text)))


@cheap
@given(text=st.text() | st.binary())
def test_any_text_is_json_or_refused(text):
    assert re.search("^$|valid JSON|64 are the most", said(lambda: parse_json(text)))


@cheap
@given(content=st.binary(max_size=300), kind=st.sampled_from([".csv", ".npy", ".h5", ".dat", ".parquet"]))
def test_any_bytes_are_a_table_or_refused(tmp_path_factory, content, kind):
    path = tmp_path_factory.getbasetemp() / f"any{kind}"
    path.write_bytes(content)
    text = said(lambda: read_table(path, "data[0].file", ("x", "y", "0")), (ConfigError,))
    assert not text or (text.startswith("data[0].file: ") and path.name in text)


@cheap
@given(name=VALUES)
def test_any_value_is_the_name_of_no_file(tmp_path_factory, name):
    config = Config(tmp_path_factory.getbasetemp() / "fit.toml", {})
    with pytest.raises(ConfigError, match=r"^data\.file"):
        config.resolve(name, "data.file")


@cheap
@given(
    lines=st.lists(st.tuples(st.sampled_from(["F0", "F1", "PX", "DM", "JUMP", "RAJ", "ECC", "DMX_0001"]), st.text()))
)
def test_any_par_file_is_read_or_refused(lines):
    text = "PSR A\nRAJ 1:0:0\nDECJ 1:0:0\nPEPOCH 55000\n" + "".join(f"{name} {value}\n" for name, value in lines)
    assert said(lambda: timing.TimingModel.parse(text, "warn")) != "nothing"


class Runs:
    """What a pickle that is read would do."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return (Path.touch, (self.path,))


@pytest.fixture
def trap(tmp_path):
    """(an array of objects, a file that is there once it was unpickled)."""
    array = np.array([Runs(tmp_path / "run")], object)
    np.save(tmp_path / "object.npy", array, allow_pickle=True)
    np.savez(tmp_path / "object.npz", allow_pickle=True, day=array, y=array, t=array, density=array)
    pickle.loads(pickle.dumps(Runs(tmp_path / "works")))
    assert (tmp_path / "works").exists()
    return tmp_path


def test_nothing_is_unpickled(trap):
    model = _fuzz._decay()
    readers = {
        "object.npy": (read_array, lambda p: read_stack(p, ""), lambda p: read_table(p, "", ("x",)), xpcs.Blemish),
        "object.npz": (read_arrays, timing.TOAs.load, lambda p: read_stack(p, "")),
    }
    for name, reads in readers.items():
        for read in reads:
            with pytest.raises(ValueError, match=r"object\.np"):
                read(str(trap / name) if read is xpcs.Blemish else trap / name)
    (trap / "plain.pickle").write_bytes(pickle.dumps(Runs(trap / "run")))
    for suffix in (".npy", ".npz"):
        path = (trap / "plain.pickle").rename(trap / f"plain{suffix}")
        with pytest.raises(FileError):
            (read_array if suffix == ".npy" else read_arrays)(path)
        path.rename(trap / "plain.pickle")
    # the digests are right: it is forged, not damaged
    for payload in (
        (trap / "object.npz").read_bytes(),
        (trap / "object.npy").read_bytes(),
        pickle.dumps(Runs(trap / "run")),
    ):
        _fuzz._solution_file(trap / "a.jsci")
        about, _ = read_framed(trap / "a.jsci")
        write_framed(trap / "a.jsci", payload + bytes(10_000), about)
        with pytest.raises(ValueError, match=r"a\.jsci"):
            js.Solution.load(trap / "a.jsci", model)
        states = {"lanes": [["O", [1]]]}
        write_framed(
            trap / "b.jsci", payload, {"kind": "Checkpoint", "belongs": {}, "about": {}, "made": {}, "states": states}
        )
        with pytest.raises(ValueError, match=r"b\.jsci"):
            Kept.read(trap / "b.jsci")
    assert not (trap / "run").exists()


def test_no_reader_can_run_what_it_reads():
    """No module that makes objects of bytes is imported anywhere in the package, nor a switch for it set."""
    package = Path(js.__file__).parent
    words = (
        "allow_pickle=True",
        "import pickle",
        "import marshal",
        "import shelve",
        "import yaml",
        "joblib",
        "torch.load",
    )
    for path in package.rglob("*.py"):
        text = path.read_text()
        found = [word for word in words if word in text]
        assert not found, f"{path}: {found}"
        # each way to a file of arrays goes through the one that looks at it first; what is framed was looked at
        loads = text.count("np.load(") - text.count(", allow_pickle=False)")
        inside = {"compsep/_disk/results.py": 1, "compsep/_forecast.py": 1}  # an own file, and one of the package
        name = path.relative_to(package).as_posix()
        assert loads <= inside.get(name, 0), f"{path} reads arrays by itself: jaxsci.datasets.read_arrays does"
