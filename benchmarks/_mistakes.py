"""What a researcher may get wrong in a file, and what is said of it: the file, the place in it, and what to do.

Each mistake is a change of a file that is read, so that nothing but the mistake is wrong with it. The area
`reliability` shows the rows; the tests hold each message to the words that it should have.
"""

import dataclasses
import io
import tempfile
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path

from ._fuzz import READERS, REFUSALS


@dataclasses.dataclass(frozen=True)
class Mistake:
    """A mistake: the `reader` that should refuse it, `what` it is, the `change` of the first file of a corpus.

    - `place`: words of the message that name the file or the place in it. `remedy`: words that say what to do.
    """

    reader: str
    what: str
    change: Callable[[bytes], bytes]
    place: str
    remedy: str


def _swap(old: str, new: str) -> Callable[[bytes], bytes]:
    def change(content: bytes) -> bytes:
        assert old.encode() in content, f"there is no {old!r} to be changed"
        return content.replace(old.encode(), new.encode(), 1)

    return change


def _end(text: str) -> Callable[[bytes], bytes]:
    return lambda content: content + text.encode()


def _text(text: str) -> Callable[[bytes], bytes]:
    return lambda content: text.encode()


def _half(content: bytes) -> bytes:
    return content[: len(content) // 2]


def _without(*names: str) -> Callable[[bytes], bytes]:
    """A zip without some of its members."""

    def change(content: bytes) -> bytes:
        out = io.BytesIO()
        with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(out, "w") as new:
            for name in old.namelist():
                if name.removesuffix(".npy") not in names:
                    new.writestr(name, old.read(name))
        return out.getvalue()

    return change


def _utf16(content: bytes) -> bytes:
    return content.decode().encode("utf-16")


def _latin(content: bytes) -> bytes:
    return content + "# Messung am 3. März, 20 °C\n".encode("latin-1")


MISTAKES = (
    Mistake("par", "a parameter twice", _end("\nF0 61.4 1\n"), "F0", "twice"),
    Mistake("par", "a letter in a number", _end("\nF2 -1.1x-25 1\n"), "F2", "should be a number"),
    Mistake("par", "a value out of all range", _end("\nF2 1e-999 1\n"), "F2", "within 1e-300 to 1e300"),
    Mistake("par", "no value", _end("\nPX\n"), "PX", "has no value"),
    Mistake("par", "a JUMP without a flag", _end("\nJUMP 0.1 1\n"), "JUMP", "`JUMP -f NAME value`"),
    Mistake("par", "a line misspelt", _end("\nPMRAA 3.1 1\n"), "PMRAA", "passed over|not understood|does not|no "),
    Mistake("par", "saved in another encoding", _latin, "byte ", "save it as such"),
    Mistake("par", "saved as UTF-16", _utf16, "case.par", "save it as such"),
    Mistake(
        "tim, text",
        "an INCLUDE without its file",
        _end("\nINCLUDE rest.tim\n"),
        r"case\.tim:\d+",
        "paths are relative to",
    ),
    Mistake("tim, text", "an INCLUDE of itself", _end("\nINCLUDE case.tim\n"), r"case\.tim", "includes itself"),
    Mistake("tim, text", "a flag twice", _end("\na 1400 55000 1 gbt -f x -f y\n"), r"case\.tim:\d+", "there twice"),
    Mistake("tim, text", "nothing in it", _text(" \n"), r"case\.tim", "is empty"),
    Mistake("TOAs, npz", "copied in part", _half, r"case\.npz", "of another kind or damaged"),
    Mistake(
        "TOAs, npz", "another file of arrays", _without("sun"), r"case\.npz", "`TOAs.save` of this version writes one"
    ),
    Mistake("TOML", "a bracket left open", _end("\nx = [1, 2\n"), r"case\.toml", r"at (line \d+|end of document)"),
    Mistake("TOML", "a key twice", _end("\n[a]\nb = 1\nb = 2\n"), r"case\.toml", r"at line \d+"),
    Mistake("TOML", "saved as UTF-16", _utf16, r"case\.toml", "save it as such"),
    Mistake(
        "TOML", "a number of 65 bits", _end("\n[a]\nb = 36893488147419103232\n"), r"case\.toml", "write it with a point"
    ),
    Mistake(
        "configs, checked", "a key misspelt", _swap("max_steps", "maxsteps"), "fit.maxsteps", "did you mean 'max_steps'"
    ),
    Mistake("configs, checked", "a text for a number", _swap("= 20", '= "20"'), "fit.max_steps", "should be a number"),
    Mistake("configs, checked", "a class misspelt", _swap('"TRF"', '"TFR"'), "fit.solver.type", "did you mean 'TRF'"),
    Mistake(
        "configs, checked",
        "bounds the wrong way round",
        _swap("[0.1, 10.0]", "[10.0, 0.1]"),
        "bounds of tau",
        "lies above",
    ),
    Mistake("configs, checked", "no data", lambda c: c[: c.index(b"[[data]]")], "toml: data", "give at least one"),
    Mistake("text tables", "decimal commas", _text("x;y\n1,5;2,5\n"), r"case\.csv, line 2", "write decimal points"),
    Mistake(
        "text tables", "a cell too many", _text("x,y\n1,2\n1,2,3\n"), r"case\.csv, line 3", "3 cells for 2 columns"
    ),
    Mistake("text tables", "an empty cell", _text("x,y\n1,\n"), r"case\.csv, line 2, column 'y'", "leave the row out"),
    Mistake("text tables", "two names alike", _text("x,x\n1,2\n"), r"case\.csv", "should name the columns"),
    Mistake("text tables", "no rows", _text("x,y\n"), r"case\.csv", "lines of numbers are needed"),
    Mistake("text tables", "a spreadsheet under another name", _text("PK\x03\x04\0\0"), r"case\.csv", "save it as CSV"),
    Mistake("NIST files", "a row short", lambda c: c.rstrip().rpartition(b"\n")[0], r"case\.dat", "promises"),
    Mistake("npy tables", "no .npy file", _text("x,y\n1,2\n"), r"case\.npy", "numpy.save writes one"),
    Mistake("Parquet tables", "copied in part", _half, r"case\.parquet", "cannot be read as Parquet"),
    Mistake("HDF5 tables", "copied in part", _half, r"case\.h5", "only a part of one, or still being written"),
    Mistake(
        "densities, csv", "a row short", lambda c: c.rstrip().rpartition(b"\n")[0], r"case\.csv", "rows, which are no"
    ),
    Mistake("densities, csv", "other names", _swap("t,x", "time,place"), r"case\.csv", "should have columns t, x"),
    Mistake("results, HDF5", "copied in part", _half, r"case\.h5", "only a part of one, or still being written"),
    Mistake(
        "results, HDF5",
        "of another beamline",
        _swap("normalized_g2", "normalised_g2"),
        r"case\.h5 has no g2",
        "by a layout",
    ),
    Mistake(
        "q-maps, HDF5",
        "no q-map",
        _swap("dynamic_roi_map", "dynamic_roi_mep"),
        r"case\.h5",
        "no dataset /qmap/dynamic_roi",
    ),
    Mistake(
        "blemish files", "another name", _swap("lambda_blemish", "lambda_blemush"), r"case\.h5", "but lambda_blemush"
    ),
    Mistake(
        "masks, JSON",
        "a mask misspelt",
        _swap('"Circle"', '"Cirle"'),
        r"case\.json\[0\]\.type",
        "did you mean 'Circle'",
    ),
    Mistake("masks, JSON", "a comma too many", _swap('"masks": [', '"masks": [,'), r"case\.json", r"line \d+"),
    Mistake("poni files", "a line short", _swap("Wavelength", "Wavelangth"), r"case\.poni", "no Wavelength"),
    Mistake(
        "poni files",
        "a unit behind a number",
        _swap("Distance: 1.0", "Distance: 1.0 m"),
        r"case\.poni: Distance",
        "a number",
    ),
    Mistake("layouts", "a quantity misspelt", _swap("g2 =", "g3 ="), r"case\.toml", r"\(g2, g2_error"),
    Mistake("maps, FITS", "copied in part", _half, r"case\.fits", "cut short|no table|no FITS"),
    Mistake(
        "maps, FITS", "no order", _swap("ORDERING= 'RING    '", "ORDERING= 'WRONG   '"), r"case\.fits", "RING or NESTED"
    ),
    Mistake(
        "maps, FITS",
        "a header that promises 2^63 axes",
        _swap("NAXIS   =                    0", "NAXIS   =  9223372036854775808"),
        r"case\.fits",
        "NAXIS should be a whole number up to 999",
    ),
    Mistake("maps, FITS", "a unit that is none", _swap("'uK_CMB  '", "'uC_CMB  '"), "uC_CMB", "it should be like mK"),
    Mistake("spectra", "a function misspelt", _text("exq(nu)"), "column 1", "did you mean 'exp'"),
    Mistake("spectra", "a comparison", _text("nu > 3"), "column 1", "is not arithmetic"),
    Mistake("solutions", "a bit changed", lambda c: c[:-9] + bytes([c[-9] ^ 1]) + c[-8:], r"case\.jsci", "damaged"),
    Mistake("solutions", "copied in part", _half, r"case\.jsci", "damaged"),
    Mistake("checkpoints", "a bit changed", lambda c: c[:-9] + bytes([c[-9] ^ 1]) + c[-8:], r"case\.jsci", "damaged"),
)


def said_of(mistake: Mistake, folder: Path) -> str:
    """Make the mistake, and give what is said: of an error, or of a warning where the file is read all the same."""
    reader = next(each for each in READERS if each.name == mistake.reader)
    path = folder / f"case{reader.suffix}"
    path.write_bytes(mistake.change(reader.corpus()[0]))
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        try:
            reader.read(path)
        except REFUSALS as error:
            return str(error)
    return "; ".join(str(each.message) for each in told)


def line_of(mistake: Mistake, said: str) -> str:
    """The line of docs/messages.md on a mistake: the reader, what is wrong, and the first line of what is said."""
    first = said.split("\n")[0].replace("`", "'").replace("|", "\\|")
    return f"| {mistake.reader} | {mistake.what} | `{first}` |"


def lines() -> list[str]:
    """All lines of docs/messages.md."""
    import jaxsci as js

    js.enable_x64()
    with tempfile.TemporaryDirectory() as folder:
        said = [said_of(mistake, Path(folder)).replace(f"{folder}/", "") for mistake in MISTAKES]
    return [line_of(mistake, words) for mistake, words in zip(MISTAKES, said, strict=True)]
