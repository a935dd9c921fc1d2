"""Compiled programs that are kept between processes, in a folder that stays small and whole.

JAX's own cache keeps only what took a second to compile, which no fit does, grows without end when it keeps more, and
writes its entries in place, so that a process that is killed leaves half a program which later ones fail to read, each
time with a warning. `use_compile_cache` says what JAX is to keep, and tidies the folder when a process begins with it.
(JAX can bound its folder itself, but then reads all of it for each program that it adds: a second at 3000 entries.)
Commands and workers of a batch call it; a program of the user's own may call it too.
"""

import contextlib
import os
import sys
import time
import warnings
import zlib
from pathlib import Path
from typing import NamedTuple

import jax
from jax.experimental.compilation_cache import compilation_cache

from ._processor import processor_kind

_ENTRY, _STAMP = "*-cache", ".tidied"
_MOST = 2 << 30  # bytes: some ten thousand programs
_UNDER = 0.8  # of the bound, when it is met, so that it is not met again at once
_RECENT = 60.0  # seconds in which an entry may still be in the making
_AGAIN = 600.0  # seconds until a process looks through the folder again
_TIDIED: dict[tuple[Path, int], float] = {}  # when this process did so, by folder and bound
_ZSTD = b"\x28\xb5\x2f\xfd"


def use_compile_cache(folder: str | os.PathLike[str] | None = None, *, max_bytes: int = _MOST) -> Path:
    """Keep all compiled programs in a folder, and find there what an earlier process compiled.

    Call it before the first fit. Several processes may use one folder at a time. Trust is needed: what is found in the
    folder is run, so no one else should be able to write there.

    **Arguments:**

    - `folder`: where; programs lie below it, by the kind of processor, because one that was compiled for another kind
      may not run here. By default the folder that JAX was told (`JAX_COMPILATION_CACHE_DIR`) as it is, else one in the
      user's cache folder.
    - `max_bytes`: when the folder holds more, the programs that were unused for longest are dropped.

    **Returns:** the folder with the programs.

    **Raises:** `OSError` where the folder cannot be made or written to.
    """
    told = jax.config.jax_compilation_cache_dir  # type: ignore[attr-defined]
    if folder is None and told is not None:
        place = Path(told)
    else:
        place = Path(_user_folder() / "jaxsci" / "xla" if folder is None else folder) / processor_kind()
    place.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not os.access(place, os.W_OK | os.X_OK):
        raise PermissionError(f"compiled programs cannot be kept in {place}: it is not writable; name another folder")
    # a worker asks before each of its items, and thousands of entries take tens of milliseconds to look at
    if time.monotonic() - _TIDIED.get((place, max_bytes), -_AGAIN) >= _AGAIN:
        _tidy(place, max_bytes)
        _TIDIED[place, max_bytes] = time.monotonic()
    jax.config.update("jax_compilation_cache_dir", str(place))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", 0)
    compilation_cache.reset_cache()  # a process that has compiled before would go on without
    # an entry that another process is just writing: the program is compiled here, as without a cache
    warnings.filterwarnings("ignore", "Error reading persistent compilation cache entry")
    return place


class _Entry(NamedTuple):
    """A program in the folder: its file, its size in bytes, when it was written and last used, in seconds."""

    path: Path
    size: int
    written: float
    used: float


def _tidy(folder: Path, max_bytes: int) -> None:
    """Drop programs that were left half-written since the last time, and the longest unused ones beyond the bound."""
    stamp, now = folder / _STAMP, time.time()
    since = stamp.stat().st_mtime if stamp.exists() else 0.0
    entries: list[_Entry] = []
    for path in folder.glob(_ENTRY):
        with contextlib.suppress(OSError):  # another process tidies too
            seen = path.stat()
            entry = _Entry(path, seen.st_size, seen.st_mtime, max(seen.st_mtime, seen.st_atime))
            fresh = since - _RECENT <= entry.written
            if fresh and entry.written < now - _RECENT and not _is_whole(path.read_bytes()):
                path.unlink(missing_ok=True)
            else:
                entries.append(entry)
    held = sum(entry.size for entry in entries)
    if held > max_bytes:
        for entry in sorted(entries, key=lambda entry: entry.used):
            if held <= _UNDER * max_bytes:
                break
            with contextlib.suppress(OSError):
                entry.path.unlink(missing_ok=True)
                entry.path.with_name(entry.path.name.removesuffix("-cache") + "-atime").unlink(missing_ok=True)
                held -= entry.size
    with contextlib.suppress(OSError):
        stamp.touch()


def _is_whole(content: bytes) -> bool:
    """Whether a compressed entry has its end; one in a format that is not known here is taken for whole."""
    if content.startswith(_ZSTD):
        return True  # without the library that wrote it there is no telling
    if not content:
        return False
    unpacker = zlib.decompressobj()
    try:
        unpacker.decompress(content)
    except zlib.error:
        return False
    return unpacker.eof


def _user_folder() -> Path:
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA", Path.home() / "AppData" / "Local"))
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
