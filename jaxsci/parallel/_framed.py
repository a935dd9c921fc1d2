"""Files that are whole or absent: written aside, checked by digest, renamed into place.

A frame is a header of plain words and numbers and a payload of bytes, each with a SHA-256 digest. A disk that fills up
or a process that is killed leaves the old file; a bit that has changed since is noticed, because a number that is read
wrong without a word is the worst that a file can do. Saved fits, checkpoints and stored skies are such files.
"""

import contextlib
import errno
import hashlib
import json
import os
import re
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_MAGIC = b"JSCI1\n"
_ASIDE = re.compile(r"\.\d+\.tmp")  # ends the name under which a process writes


class WriteError(OSError):
    """A file that could not be written: the disk is full, or there is no permission. The file before it is whole."""


def write_framed(path: str | os.PathLike[str], payload: bytes, header: dict[str, Any]) -> None:
    """Write header and payload so that a reader sees the old file or the whole new one.

    **Raises:** as `write_atomic`.
    """
    write_atomic(path, *framed([payload], header))


def framed(payload: list[bytes] | list[memoryview], header: dict[str, Any]) -> list[bytes | memoryview]:
    """The pieces of a framed file; those of the payload are not copied."""
    digest, size = hashlib.sha256(), 0
    for piece in payload:
        digest.update(piece)
        size += len(piece)
    head = json.dumps({**header, "sha256": digest.hexdigest(), "size": size}).encode()
    return [_MAGIC + struct.pack("<I", len(head)) + hashlib.sha256(head).digest() + head, *payload]


def write_atomic(path: str | os.PathLike[str], *pieces: bytes | memoryview, before: Path | None = None) -> None:
    """Write a file under a temporary name, flush it to disk, and rename it into place.

    **Arguments:** `pieces`: the content, one after the other. `before`: where the file that is there now is to go.

    **Raises:** `WriteError` (disk full, no permission), `FileNotFoundError` (no such folder); what was there is intact
    then and nothing is left behind.
    """
    path = Path(path)
    aside = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        with aside.open("wb") as file:
            file.writelines(pieces)
            file.flush()
            os.fsync(file.fileno())
        if before is not None and path.exists():
            path.replace(before)
        aside.replace(path)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{path} cannot be written: there is no folder {path.parent}") from error
    except OSError as error:
        why = error.strerror or str(error)
        remedy = "free some space" if error.errno in _FULL else "look at its permissions"
        was = " (the file before it is whole)" if path.exists() else ""
        raise WriteError(error.errno, f"cannot be written: {why}{was}; {remedy}, and run again", str(path)) from error
    finally:
        with contextlib.suppress(OSError):  # a disk that is read-only refuses also to remove what is not there
            aside.unlink(missing_ok=True)


_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def remove_leftovers(folder: Path, name: str = "") -> None:
    """Remove what processes that were killed while they wrote into this folder have left there.

    Only who holds the lock of what is written there may do so: nobody else writes then. `name`: of the one file whose
    leftovers are meant; all by default.
    """
    for path in _leftovers(folder, name):
        path.unlink(missing_ok=True)


def _leftovers(folder: Path, name: str) -> Iterator[Path]:
    for path in folder.iterdir():
        found = _ASIDE.search(path.name)
        if found is not None and found.end() == len(path.name) and name in ("", path.name[: found.start()]):
            yield path


def read_framed(path: str | os.PathLike[str]) -> tuple[dict[str, Any], bytes]:
    """(header, payload) of a file by `write_framed`.

    **Raises:** `ValueError` when a single bit of it is not as written; `FileNotFoundError`.
    """
    path = Path(path)
    if path.exists() and not path.is_file():  # a pipe or a device has no end
        raise ValueError(f"{path} is not a jaxsci file: it is no regular file")
    try:
        content = path.read_bytes()
    except FileNotFoundError as error:
        raise FileNotFoundError(f"there is no file {path}") from error
    start = len(_MAGIC) + 4 + 32
    if content[: len(_MAGIC)] != _MAGIC or len(content) < start:
        raise ValueError(f"{path} is not a jaxsci file, or only the beginning of one")
    (size,) = struct.unpack("<I", content[len(_MAGIC) : len(_MAGIC) + 4])
    head, payload = content[start : start + size], content[start + size :]
    if hashlib.sha256(head).digest() != content[len(_MAGIC) + 4 : start]:
        raise ValueError(f"{path} is damaged: its header is not as it was written")
    try:
        header = json.loads(head)
        size, digest = header.pop("size"), header.pop("sha256")
    except (AttributeError, KeyError, RecursionError, TypeError, ValueError) as error:  # forged: its digest is right
        raise ValueError(f"{path} is damaged: its header is not what jaxsci writes ({error})") from error
    if len(payload) != size or hashlib.sha256(payload).hexdigest() != digest:
        raise ValueError(f"{path} is damaged: its content is not as it was written")
    return header, payload
