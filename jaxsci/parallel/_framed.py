"""Files that are whole or absent: written aside, checked by digest, renamed into place.

A frame is a header of plain words and numbers and a payload of bytes, each with a SHA-256 digest. A disk that fills up
or a process that is killed leaves the old file; a bit that has changed since is noticed, because a number that is read
wrong without a word is the worst that a file can do. Saved fits, checkpoints and stored skies are such files.
"""

import hashlib
import json
import os
import struct
from pathlib import Path
from typing import Any

_MAGIC = b"JSCI1\n"


def write_framed(path: str | os.PathLike[str], payload: bytes, header: dict[str, Any]) -> None:
    """Write header and payload so that a reader sees the old file or the whole new one.

    **Raises:** `OSError` (disk full, no permission); the old file is intact then and nothing is left behind.
    """
    digest = {"sha256": hashlib.sha256(payload).hexdigest(), "size": len(payload)}
    head = json.dumps({**header, **digest}).encode()
    check = hashlib.sha256(head).digest()
    write_atomic(path, _MAGIC + struct.pack("<I", len(head)) + check + head + payload)


def write_atomic(path: str | os.PathLike[str], content: bytes) -> None:
    """Write a file under a temporary name, flush it to disk, and rename it into place."""
    path = Path(path)
    aside = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        with aside.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)


def read_framed(path: str | os.PathLike[str]) -> tuple[dict[str, Any], bytes]:
    """(header, payload) of a file by `write_framed`.

    **Raises:** `ValueError` when a single bit of it is not as written; `FileNotFoundError`.
    """
    content = Path(path).read_bytes()
    start = len(_MAGIC) + 4 + 32
    if content[: len(_MAGIC)] != _MAGIC or len(content) < start:
        raise ValueError(f"{path} is not a jaxsci file, or only the beginning of one")
    (size,) = struct.unpack("<I", content[len(_MAGIC) : len(_MAGIC) + 4])
    head, payload = content[start : start + size], content[start + size :]
    if hashlib.sha256(head).digest() != content[len(_MAGIC) + 4 : start]:
        raise ValueError(f"{path} is damaged: its header is not as it was written")
    header = json.loads(head)
    if len(payload) != header.pop("size") or hashlib.sha256(payload).hexdigest() != header.pop("sha256"):
        raise ValueError(f"{path} is damaged: its content is not as it was written")
    return header, payload
