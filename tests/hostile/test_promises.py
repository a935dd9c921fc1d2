"""What a file promises is held against what it has: bombs, endless nests and headers of a billion rows cost nothing."""

import gzip
import io
import lzma
import resource
import struct
import time
import zipfile
from pathlib import Path

import h5py
import jax.numpy as jnp
import numpy as np
import pytest

import jaxsci as js
from benchmarks._fuzz import READERS
from jaxsci import compsep, timing, xpcs
from jaxsci.compsep import io as sky
from jaxsci.curvefit._task.tables import read_stack, read_table
from jaxsci.datasets import FileError, read_array, read_arrays
from jaxsci.parallel import write_framed
from jaxsci.runs import ConfigError, read_config
from jaxsci.timing._tim import gather

SECONDS, MEGABYTES = 10.0, 700.0
BY_NAME = {reader.name: reader for reader in READERS}


@pytest.fixture(autouse=True)
def _cheap():
    """Each of these files is refused at little cost."""
    began, before = time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    yield
    assert time.process_time() - began < SECONDS
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024 < MEGABYTES


def header(shape: tuple[int, ...], kind: str = "<f8") -> bytes:
    """The beginning of an .npy file."""
    text = f"{{'descr': '{kind}', 'fortran_order': False, 'shape': {shape}, }}".encode()
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text) + 1) + text + b"\n"


def zeros_in_a_zip(path: Path) -> None:
    """An .npz of 300 kB that unfolds to a thousand times as much."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file, file.open("day.npy", "w") as part:
        part.write(header((36 * 2**20,)))
        block = bytes(2**24)
        for _ in range(18):
            part.write(block)


@pytest.fixture(scope="module")
def bomb(tmp_path_factory):
    path = tmp_path_factory.mktemp("bomb") / "bomb.npz"
    zeros_in_a_zip(path)
    return path


def test_a_zip_that_unfolds_without_end(bomb):
    assert bomb.stat().st_size < 2**19
    for read in (read_arrays, timing.TOAs.load, lambda path: read_stack(path, "data[0].file")):
        with pytest.raises(ValueError, match=r"bomb\.npz promises 301,9\d\d,\d+ bytes, but the file has"):
            read(bomb)


def test_parts_of_a_zip_that_lie_upon_each_other(tmp_path):
    """A hundred names for the same compressed bytes."""
    whole = io.BytesIO()
    with zipfile.ZipFile(whole, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("a.npy", header((2**24,)) + bytes(2**27))
    content = whole.getvalue()
    at = content.index(b"PK\x01\x02")
    entry, end = content[at : content.index(b"PK\x05\x06")], content[content.index(b"PK\x05\x06") :]
    entries = b"".join(entry.replace(b"a.npy", b"%05d"[:0] + f"{k:01x}.npy".encode()) for k in range(16))
    tail = end[:8] + struct.pack("<HHII", 16, 16, len(entries), at) + end[20:]
    (tmp_path / "many.npz").write_bytes(content[:at] + entries + tail)
    with pytest.raises(FileError, match=r"many\.npz (promises|cannot be opened)"):
        read_arrays(tmp_path / "many.npz")


@pytest.mark.parametrize("shape", [(10**9,), (10**12, 10**6), (2**62, 2**62)])
def test_an_array_of_more_rows_than_its_file(tmp_path, shape):
    path = tmp_path / "a.npy"
    path.write_bytes(header(shape) + bytes(80))
    for mapped in (False, True):
        with pytest.raises(FileError, match=r"a\.npy cannot be read as a NumPy file"):
            read_array(path, mapped)
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as file:
        file.writestr("day.npy", path.read_bytes())
    with pytest.raises(FileError, match=r"a\.npz cannot be opened as npz"):
        read_arrays(tmp_path / "a.npz")


@pytest.mark.parametrize("kind", ["|S0", "|V0"])
def test_an_array_of_entries_without_bytes(tmp_path, kind):
    """It has any number of them, for nothing, until they are made numbers."""
    path = tmp_path / "a.npy"
    path.write_bytes(header((10**12,), kind))
    with pytest.raises(FileError, match=r"a\.npy (holds|cannot be read)"):
        read_array(path)


@pytest.mark.parametrize("chunks", [None, (2**20,)])
@pytest.mark.parametrize("rows", [10**9, 10**13])
def test_hdf5_of_a_billion_rows_without_data(tmp_path, chunks, rows):
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        for name in (
            *xpcs.io.PATHS["g2"][:1],
            *xpcs.io.PATHS["delays"][:1],
            *xpcs.io.PATHS["q"][:1],
            "x",
            "lambda_blemish",
        ):
            file.create_dataset(name, (rows,), float, chunks=chunks)
        file[xpcs.io.PATHS["frame_time"][0]] = 0.1
        group = file.create_group("qmap")
        group.create_dataset("dynamic_roi_map", (rows // 10**4, 10**4), "i8")
    readers = {
        "result": lambda: xpcs.read_result(path),
        "table": lambda: read_table(path, "data[0].file", ("x",)),
        "mask": lambda: xpcs.Blemish(str(path)),
        "q-map": lambda: xpcs.read_qmap(path),
    }
    for read in readers.values():
        with pytest.raises(ValueError, match=r"a\.h5.*promises .* bytes, but the file has 0"):
            read()


def test_parquet_of_a_billion_equal_rows(tmp_path):
    import pyarrow
    import pyarrow.parquet

    path = tmp_path / "a.parquet"
    block = pyarrow.table({"x": pyarrow.array(np.zeros(2**20))})
    with pyarrow.parquet.ParquetWriter(path, block.schema, compression="zstd") as writer:
        for _ in range(40):
            writer.write_table(block)
    assert path.stat().st_size < 2**18
    with pytest.raises(ConfigError, match=r"a\.parquet cannot be read as Parquet: a\.parquet promises"):
        read_table(path, "data[0].file", ("x",))


def cards(path: Path, **changed: str) -> None:
    """Change values in the headers of a FITS file."""
    content = bytearray(path.read_bytes())
    for name, value in changed.items():
        at = content.rindex(f"{name:8}=".encode())
        content[at + 10 : at + 80] = value.rjust(20).ljust(70).encode()
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"NAXIS2": "1000000000"}, "is cut short"),
        ({"NAXIS1": "1000000000000"}, "is cut short|no FITS file|damaged"),
        ({"NSIDE": "1048576"}, "by its NSIDE 1048576, promises"),
        ({"NSIDE": "8"}, "pixels"),
        ({"TFIELDS": "999"}, "FITS file|no table"),
        ({"TFORM1": "'999999999D'"}, "FITS file|cannot be read"),
        ({"NAXIS2": "-1"}, "FITS file|cannot be read|pixels"),
    ],
)
def test_maps_that_promise_what_they_lack(tmp_path, changed, message):
    path = tmp_path / "a.fits"
    sky.write_map(path, np.arange(48.0), "uK_CMB")
    cards(path, **changed)
    with pytest.raises(ValueError, match=message) as caught:
        sky.read_sky_map(path)
    assert "a.fits" in str(caught.value)


def test_packed_files_that_unfold_without_end(tmp_path):
    (tmp_path / "a.fits.gz").write_bytes(gzip.compress(bytes(2**24)) * 20)
    with pytest.raises(FileError, match=r"a\.fits\.gz has .* bytes, but unfolds to more than"):
        sky.read_sky_map(tmp_path / "a.fits.gz")


def test_a_tim_file_that_unfolds_without_end(tmp_path):
    (tmp_path / "a.tim.xz").write_bytes(lzma.compress(b"C " + b"x" * (2**22 - 3) + b"\n", preset=0) * 65)
    with pytest.raises(FileError, match=r"a\.tim\.xz has more than 268,435,456 bytes"):
        gather(tmp_path / "a.tim.xz")


def test_tim_files_that_include_two_others_each(tmp_path):
    for k in range(30):
        (tmp_path / f"{k}.tim").write_text(f"INCLUDE {k + 1}.tim\nINCLUDE {k + 1}.tim\n")
    (tmp_path / "30.tim").write_text("a 1400 55000 1 gbt\n")
    for first in (0, 15):
        with pytest.raises(ValueError, match=r"tim includes more than 1000 files, or files that include others"):
            gather(tmp_path / f"{first}.tim")
    for k in range(2):
        (tmp_path / f"loop{k}.tim").write_text(f"INCLUDE loop{1 - k}.tim\n")
    with pytest.raises(ValueError, match="includes itself"):
        gather(tmp_path / "loop0.tim")


TOML = {
    "lists": ("x = " + "[" * 100_000 + "]" * 100_000, "nested more than 32 deep"),
    "lists that end": ("x = " + "[" * 60 + "]" * 60, "nested more than 32 deep"),
    "tables": ("x = " + "{ x = " * 50_000 + "1" + " }" * 50_000, "nested more than 32 deep"),
    "a key": ("a." * 1_000_000 + "a = 1", "a key of more than 32 parts"),
    "a quoted key": ('"a" . ' * 1000 + "a = 1", "a key of more than 32 parts"),
    "a header": ("[" + "a." * 1_000_000 + "a]", "a key of more than 32 parts"),
    "a million keys": ("".join(f"k{k} = 1\n" for k in range(1_000_000)), "has more than 4,194,304 bytes"),
    "a long number": ("x = " + "9" * 100_000, "Exceeds the limit"),
    "a long hexadecimal number": ("x = 0x" + "f" * 100_000, "a whole number of 400000 bits"),
    "65 bits": ("x = 18446744073709551616", "a whole number of 65 bits"),
    "null bytes": ("x = 1\0", "null bytes"),
    "empty text with a mark": ("\ufeff[", "Invalid"),
    "two marks": ("\ufeff\ufeffx = 1", "Invalid statement"),
}


@pytest.mark.parametrize("case", TOML)
def test_configs_without_end(tmp_path, case):
    text, message = TOML[case]
    (tmp_path / "a.toml").write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match=message) as caught:
        read_config(str(tmp_path / "a.toml"))
    assert "a.toml" in str(caught.value)
    assert len(str(caught.value)) < 1000


def test_a_config_as_large_as_may_be(tmp_path):
    """Many short keys are read in a time that grows as they do."""
    (tmp_path / "a.toml").write_text("".join(f"k{k} = 1\n" for k in range(100_000)))
    assert len(read_config(str(tmp_path / "a.toml")).tables) == 100_000


def test_settings_are_read_as_configs_are(tmp_path):
    (tmp_path / "a.toml").write_text("x = [1]\n")
    found = read_config(str(tmp_path / "a.toml"), [f"y={'[' * 5000}", "z=" + "9" * 5000])
    assert found.tables["y"] == "[" * 5000
    assert found.tables["z"] == "9" * 5000
    with pytest.raises(ConfigError, match="should be a place in a list of 1"):
        read_config(str(tmp_path / "a.toml"), [f"x.{'9' * 5000}=1"])


EXPRESSIONS = {
    "a million characters": "nu" + "+nu" * 333_333,
    "parentheses": "(" * 5000 + "nu" + ")" * 5000,
    "open parentheses": "(" * 9000,
    "signs": "-" * 9000 + "nu",
    "powers": "nu" + "**nu" * 3000,
    "sums": "nu" + "+nu" * 3000,
    "calls": "exp(" * 2000 + "nu" + ")" * 2000,
    "a large power": "9**9**9**9 * nu",
    "division by zero": "nu / (1 - 1)**2 + 1 / 0",
    "a root of -1": "nu + (-1)**0.5",
    "a long number": "nu * " + "9" * 9000,
    "a hexadecimal number": "nu * 0x" + "f" * 9000,
    "infinity": "nu * 1e400",
    "null bytes": "nu\0",
    "nothing": "",
    "a list": "[x for x in nu]",
    "a lambda": "(lambda: nu)()",
    "an attribute": "nu.__class__",
    "an import": "__import__('os').system('true')",
    "a name of Python": "open('x')",
    "a text": "'x' * 1000000000",
    "a walrus": "(x := nu)",
    "a star": "exp(*nu)",
    "a complex number": "nu * 1j",
    "a format": "f'{nu}'",
}


@pytest.mark.parametrize("case", EXPRESSIONS)
def test_expressions_that_are_refused(case):
    with pytest.raises(ValueError, match=r"column|characters") as caught:
        compsep.AnalyticSED(EXPRESSIONS[case])
    assert len(str(caught.value)) < 600


@pytest.mark.parametrize("name", ["F99999999999", "F1000000000", "F9" + "9" * 5000, "DMX_" + "9" * 5000, "F²"])
def test_par_lines_numbered_without_end(name):
    """The names up to such a number would fill memory."""
    text = "PSR A\nRAJ 1:0:0\nDECJ 1:0:0\nF0 1\nPEPOCH 55000\nDM 1\n"
    with pytest.raises(ValueError, match=r"\S+") as caught:
        timing.TimingModel.parse(f"{text}{name} 1e-20 1\n")
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize(
    "value", ["1e999999999", "-1e999999999", "1e-999999999", "nan", "inf", "sNaN", "9" * 5000, "1e400"]
)
@pytest.mark.parametrize("name", ["F0", "F1", "PEPOCH", "DM", "RAJ", "PMRA", "PX", "JUMP -f x", "T0"])
def test_par_values_out_of_all_range(name, value):
    lines = {"PSR": "A", "RAJ": "1:0:0", "DECJ": "1:0:0", "F0": "1", "PEPOCH": "55000", "DM": "1"} | {name: value}
    if name == "T0":
        lines |= {"BINARY": "BT", "PB": "1", "A1": "1", "ECC": "0.1", "OM": "1"}
    with pytest.raises(ValueError, match=r"\S+"):
        timing.TimingModel.parse("".join(f"{key} {text}\n" for key, text in lines.items()))


def test_a_solution_that_promises_more_than_it_has(tmp_path):
    x = jnp.arange(4.0)
    solution = js.fit(compsep_free(), js.Dataset(x, 2 * x, js.White(0.1)))
    solution.save(tmp_path / "a.jsci")
    from jaxsci.parallel import read_framed

    about, payload = read_framed(tmp_path / "a.jsci")
    for shape in ([10**6], [10**12, 1], [-1], [], "x", [2.5], [[1]]):
        write_framed(tmp_path / "b.jsci", payload, about | {"shape": shape})
        with pytest.raises(ValueError, match=r"b\.jsci"):
            js.Solution.load(tmp_path / "b.jsci", compsep_free())
    assert js.Solution.load(tmp_path / "a.jsci", compsep_free()).values == solution.values


class Slope(js.AbstractModel):
    """A line through zero."""

    a: js.Scalar = js.param()

    def __call__(self, x):
        return self.a * x


def compsep_free() -> Slope:
    return Slope(1.0)


def test_a_table_of_a_million_columns(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text(",".join(f"c{k}" for k in range(100_000)) + "\n" + ",".join("1" * 100_000) + "\n")
    with pytest.raises(ConfigError, match=r"a\.csv, line 1: 100000 columns, where 10000 are the most"):
        read_table(path, "data[0].file", ("c1",))
    path.write_text('"' + "x" * 200_000 + '",y\n1,2\n')
    with pytest.raises(ConfigError, match=r"a\.csv"):
        read_table(path, "data[0].file", ("x", "y"))
