"""Files that others wrote, read so that a damaged or hostile one costs an error that names it, and nothing else.

A file may promise a billion rows that it does not hold, unfold to a thousand times its size, nest its tables without
end, name files elsewhere, or be a pipe that nobody writes to. Each reader of the package opens its files by the
functions here: what a file promises is held against what it has before memory is taken for it, no object is ever
unpickled, and links of HDF5 files lead no further than a folder that the caller names. They are called by `runs` and by
the sciences; files of our own that are framed and checksummed are read in `parallel`.
"""

import gzip
import io
import json
import lzma
import mmap
import os
import re
import stat
import struct
import tokenize
import tomllib
import zipfile
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

if TYPE_CHECKING:
    import h5py

FilePath: TypeAlias = str | os.PathLike[str]


class FileError(ValueError):
    """A file that cannot be read: which one, why, and what to do."""


DAMAGED = (
    *(ArithmeticError, AssertionError, AttributeError, BufferError, EOFError, LookupError, MemoryError, OSError),
    *(RuntimeError, SyntaxError, TypeError, ValueError, lzma.LZMAError, struct.error, tokenize.TokenError),
    *(zipfile.BadZipFile, zlib.error),
)
"""What the libraries that read files raise where a file is damaged."""

CONFIG_BYTES = 2**22
"""The largest config: more than that are data, which belong into a file of their own."""

TEXT_BYTES = 2**30
"""The largest text: more than that is read from .npy or HDF5 files, some rows at a time."""

_LARGE = 2**26  # bytes up to which a promise costs little, kept or not
_RATIO = 500  # no array but one that is all alike is compressed better
_DEEPEST = 32  # of tables in tables: more would be ten times what any task reads
_NAME = r"""(?:[\w-]++|"[^"\n]*+"|'[^'\n]*+')"""
# the parser's time grows with the square of the parts of a key; versions and addresses in texts have fewer
_LONG_KEY = re.compile(rf"(?<![\w.-])(?:{_NAME}[ \t]*+\.[ \t]*+){{{_DEEPEST}}}")
_MOST_LINKS = 16


def check_file(path: FilePath) -> int:
    """Say how many bytes a file has.

    **Raises:** `FileNotFoundError`, and `FileError` for a folder, a pipe, a device, and what can be no name of a file.
    """
    try:
        about = os.stat(path)
    except FileNotFoundError:
        raise FileNotFoundError(f"there is no file {path}") from None
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        raise FileError(f"{_brief(path)} cannot be read as a file: {why}") from None
    if stat.S_ISDIR(about.st_mode):
        raise FileError(f"{path} is a folder: name a file in it")
    if not stat.S_ISREG(about.st_mode):
        raise FileError(f"{path} is a pipe or a device, not a file: write what it gives to a file, and name that")
    return about.st_size


def read_bytes(path: FilePath, most: int = TEXT_BYTES) -> bytes:
    """Read all of a file of no more than `most` bytes; one whose name ends in `.xz` is unpacked.

    **Raises:** as `check_file`; `FileError` for a larger file, or a packed one that is damaged.
    """
    check_file(path)
    try:
        with lzma.open(path) if Path(path).suffix == ".xz" else open(path, "rb") as file:
            content = file.read(most + 1)
    except (EOFError, lzma.LZMAError) as error:
        raise FileError(f"{path} is no whole xz file: {error}") from error
    if len(content) > most:
        raise FileError(f"{path} has more than {most:,d} bytes, the most that such a file may have")
    return content


def decoded(content: bytes, path: FilePath) -> str:
    """Give the text of a file in UTF-8, with or without a byte-order mark; `path` is its name for messages.

    **Raises:** `FileError` for other bytes.
    """
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise FileError(f"{path} is no text in UTF-8 (byte {error.start}): save it as such") from error
    if "\0" in text:
        raise FileError(f"{path} is no text in UTF-8: it has null bytes")
    return text


def read_text(path: FilePath, most: int = TEXT_BYTES) -> str:
    """Read a text in UTF-8.

    **Raises:** as `read_bytes` and `decoded`.
    """
    return decoded(read_bytes(path, most), path)


def parse_toml(text: str) -> dict[str, Any]:
    """Read a TOML text of tables that are not nested too deeply; whole numbers have 64 bits, as TOML says.

    **Raises:** `FileError` saying what is wrong, and on which line where that is known.
    """
    if (key := _LONG_KEY.search(text)) is not None:
        line = text.count("\n", 0, key.start()) + 1
        raise FileError(f"this is not valid TOML: a key of more than {_DEEPEST} parts (at line {line})")
    try:
        tables = tomllib.loads(text)
    except RecursionError:
        raise FileError(f"this is not valid TOML: {_NESTED}") from None
    except ValueError as error:  # of its own, and of Python for a number of thousands of digits
        raise FileError(f"this is not valid TOML: {error}") from error
    _check_tree(tables)
    return tables


def parse_json(text: str | bytes) -> Any:
    """Read a JSON text that is not nested too deeply.

    **Raises:** `FileError` saying what is wrong.
    """
    try:
        found = json.loads(text)
    except RecursionError:
        raise FileError(f"this is not valid JSON: {_NESTED}") from None
    except ValueError as error:
        raise FileError(f"this is not valid JSON: {error}") from error
    _check_tree(found)
    return found


_NESTED = f"its tables and lists are nested more than {_DEEPEST} deep"


def _check_tree(tree: object) -> None:
    """Raise `FileError` for trees that are too deep to be walked, and numbers that no array holds."""
    open_ = [(tree, 0)]
    while open_:
        node, depth = open_.pop()
        if depth > _DEEPEST:
            raise FileError(_NESTED)
        if isinstance(node, int) and node.bit_length() > 63:
            raise FileError(
                f"a whole number of {node.bit_length()} bits, where 64 are the most: write it with a point or exponent"
            )
        inner = node.values() if isinstance(node, dict) else node if isinstance(node, list) else ()
        open_ += [(item, depth + 1) for item in inner]


def check_promise(promised: float | int, stored: float | int, what: str) -> None:
    """Refuse data that would unfold to far more bytes than a file has, before memory is taken for them.

    **Arguments:** `promised`: bytes in memory; `stored`: bytes in the file. `what`: names both in the message.

    **Raises:** `FileError` above 64 MiB and 500 times what is stored.
    """
    if promised > max(_LARGE, _RATIO * stored):
        raise FileError(
            f"{what} promises {promised:,.0f} bytes, but the file has {stored:,.0f} for them: it is damaged, or made "
            "to fill memory. If all these numbers are alike and meant, write them without compression"
        )


def read_arrays(path: FilePath, only: tuple[str, ...] | None = None) -> dict[str, np.ndarray]:
    """Read the arrays of an .npz file, those of the names `only` that there are, or all.

    **Raises:** as `check_file`; `FileError` for a damaged file, one of Python objects, and one that unfolds too far.
    """
    size = check_file(path)
    found: dict[str, np.ndarray] = {}
    try:
        with zipfile.ZipFile(path) as file:
            parts = [part for part in file.infolist() if part.filename.endswith(".npy")]
            wanted = [part for part in parts if only is None or part.filename[:-4] in only]
            # of all parts together: they may lie upon each other in the file
            check_promise(sum(part.file_size for part in wanted), size, f"{path}")
            for part in wanted:
                with file.open(part) as stream:
                    array = np.lib.format.read_array(stream, allow_pickle=False)
                found[part.filename[:-4]] = _plain(array, f"{path}: {part.filename[:-4]}")
    except FileError:
        raise
    except DAMAGED as error:
        raise FileError(f"{path} cannot be opened as npz, it is of another kind or damaged: {_brief(error)}") from error
    return found


def read_array(path: FilePath, mapped: bool = False) -> np.ndarray:
    """Read the array of an .npy file, into memory or `mapped` from the file.

    **Raises:** as `check_file`; `FileError` for a damaged file, and for one of Python objects.
    """
    check_file(path)
    try:
        with np.errstate(all="ignore"):  # sizes beyond 64 bits are refused, after NumPy has multiplied them
            found = np.load(path, mmap_mode="r" if mapped else None, allow_pickle=False)
    except DAMAGED as error:
        why = _brief(error)
        if "allow_pickle" in why or "pickled" in why:  # NumPy's advice would run whatever the file says
            why = "it holds Python objects, or is no such file at all; numpy.save writes one of plain numbers"
        raise FileError(f"{path} cannot be read as a NumPy file: {why}") from error
    if not isinstance(found, np.ndarray):
        found.close()
        raise FileError(f"{path} cannot be read as a NumPy file: it holds several arrays, rename it to .npz")
    return _plain(found, f"{path}")


def _plain(array: np.ndarray, what: str) -> np.ndarray:
    """An array of numbers, texts or records; one of no bytes may have any number of entries."""
    if array.dtype.hasobject or not array.dtype.itemsize:
        raise FileError(f"{what} holds {array.dtype}, but numbers or texts are needed")
    return array


def open_hdf5(path: FilePath) -> "h5py.File":
    """Open an HDF5 file for reading; it closes as `h5py.File` does.

    **Raises:** as `check_file`; `FileError` where it is none, damaged, or h5py is not installed.
    """
    check_file(path)
    try:
        import h5py
    except ModuleNotFoundError as error:
        raise FileError(f"{path} needs h5py, which is not installed: pip install 'jaxsci[xpcs]'") from error
    try:
        return h5py.File(path, "r")
    except DAMAGED as error:
        raise FileError(
            f"{path} is no HDF5 file, or only a part of one, or still being written: {_brief(error)}"
        ) from error


def find_item(
    group: "h5py.Group", place: str, within: Path | None = None, links: int = 0
) -> "h5py.Dataset | h5py.Group | None":
    """Find what is at a place in an HDF5 file, following links; `None` where nothing is.

    **Arguments:** `within`: a folder in which all other files should lie that are reached by external links, virtual
    data sets or external storage; `None` for anywhere. `links`: how many were followed on the way here.

    **Raises:** `FileError` naming a file outside, one that a virtual data set takes numbers from and that is not
    there, and for links that go in a circle.
    """
    import h5py

    name = f"{group.file.filename}: {place}"
    if links > _MOST_LINKS:
        raise FileError(f"{name} is reached by more than {_MOST_LINKS} links, or by links in a circle")
    try:
        here: Any = group.file["/"] if place.startswith("/") else group
        for part in filter(None, place.split("/")):
            link = here.get(part, getlink=True) if isinstance(here, h5py.Group) else None
            if link is None:
                return None
            if isinstance(link, h5py.SoftLink):
                here = find_item(here, link.path, within, links + 1)
            elif isinstance(link, h5py.ExternalLink):
                _check_inside(here, link.filename, within, name)
                if not (Path(here.file.filename).parent / link.filename).is_file():
                    return None
                here = find_item(here[part].file, link.path, within, links + 1)
            else:
                here = here[part]
            if here is None:
                return None
        if isinstance(here, h5py.Dataset):
            _check_sources(here, within, links)
    except FileError:
        raise
    except DAMAGED as error:
        raise FileError(f"{name} cannot be read, the file is damaged: {_brief(error)}") from error
    return here if isinstance(here, h5py.Dataset | h5py.Group) else None  # a named type is neither


def _check_sources(data: "h5py.Dataset", within: Path | None, links: int) -> None:
    """Look at the files that a data set takes its numbers from, if it has none of its own."""
    name = f"{data.file.filename}: {data.name}"
    if data.external and within is not None:
        raise FileError(f"{name} keeps its numbers in {data.external[0][0]!r}: {_PERMIT}")
    if not data.is_virtual:
        return
    for source in {(part.file_name, part.dset_name) for part in data.virtual_sources()}:
        file, place = source
        if file == ".":
            continue
        _check_inside(data, file, within, name)
        path = Path(data.file.filename).parent / file
        if "%" in file:  # a series of files, of which the last ones may be missing
            continue
        if not path.is_file():
            raise FileError(f"{name} takes numbers from {path}, which is not there: they would be read as zeros")
        with open_hdf5(path) as other:
            find_item(other, place, within, links + 1)


_PERMIT = "`within=None` permits it, on the command line --allow-outside"


def _check_inside(item: Any, file: str, within: Path | None, name: str) -> None:
    """Refuse another file outside of a folder; h5py looks for it beside this one, and in the working folder."""
    if within is None:
        return
    beside = Path(item.file.filename).parent / file
    found = beside if beside.exists() else Path(file)
    if not (found if found.exists() else beside).resolve().is_relative_to(within.resolve()):
        raise FileError(f"{name} leads to {file!r}, outside of {within}; {_PERMIT}")


def names_in(group: "h5py.Group") -> list[str]:
    """Name what is in a group of an HDF5 file and in its groups, as far as no links are in between.

    **Raises:** `FileError` where the file is damaged.
    """
    found: list[str] = []
    try:
        group.visit(found.append)
    except DAMAGED as error:
        raise FileError(f"{group.file.filename} cannot be read, it is damaged: {_brief(error)}") from error
    # a name that is no UTF-8 comes as bytes
    return [name if isinstance(name, str) else bytes(name).decode("utf-8", "replace") for name in found]


def read_dataset(data: "h5py.Dataset") -> Any:
    """Read all of a data set of an HDF5 file, as h5py gives it.

    **Raises:** `FileError` where it is damaged, or promises far more than is in the file.
    """
    name = "a data set"
    try:
        name = f"{data.file.filename}: {data.name}"
        if not data.is_virtual:
            check_promise(data.nbytes, data.id.get_storage_size(), name)
        if data.dtype.hasobject:
            _check_heaps(data.file.filename)
        return data[()]
    except FileError:
        raise
    except DAMAGED as error:
        raise FileError(f"{name} cannot be read, the file is damaged: {_brief(error)}") from error


_HEAP, _OBJECT = struct.Struct("<4s4sQ"), struct.Struct("<HHIQ")


def _check_heaps(path: FilePath) -> None:
    """Look at the heaps in which an HDF5 file keeps texts of any length.

    The library goes through the objects of such a heap one after another, and never ends at one that has no length.
    HDF5 File Format Specification 3.0, III.E.
    """
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        for found in re.finditer(rb"GCOL\x01", content):
            start, at = found.start(), _HEAP.size
            if start + at > len(content):
                return
            end = min(_HEAP.unpack_from(content, start)[2], len(content) - start)
            while at + _OBJECT.size <= end:
                number, _, _, size = _OBJECT.unpack_from(content, start + at)
                step = size if number == 0 else (_OBJECT.size + -(-size // 8) * 8) % 2**64
                if step == 0:
                    raise FileError(f"{path} is damaged: the texts that it keeps at byte {start} have no end")
                at += step


def open_unpacked(path: FilePath) -> io.BufferedIOBase:
    """Open a file for reading; of one that is packed with gzip, give the content, which is in memory then.

    **Raises:** as `check_file`; `FileError` for a packed file that is damaged, or unfolds too far.
    """
    size = check_file(path)
    with open(path, "rb") as raw:
        if raw.read(2) != b"\x1f\x8b":
            return open(path, "rb")
        raw.seek(0)
        most = max(_LARGE, _RATIO * size)
        try:
            with gzip.open(raw) as file:
                content = file.read(most + 1)
        except (EOFError, OSError, zlib.error) as error:
            raise FileError(f"{path} is no whole gzip file: {error}") from error
    if len(content) > most:
        raise FileError(f"{path} has {size:,d} bytes, but unfolds to more than {most:,d}: if that is meant, unpack it")
    return io.BytesIO(content)


def _brief(what: object) -> str:
    """In one line of a width that can be read."""
    said = " ".join(str(what).split()) or type(what).__name__
    return said if len(said) <= 200 else f"{said[:200]}..."
