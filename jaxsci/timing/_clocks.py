"""Clock files: which there are, and PINT made to read those of a folder.

An observatory's clock is corrected by tables that its staff keep up to date. PINT fetches them and keeps what it has
read, in memory and by address; where a researcher names a folder, that and nothing older should be read. `timing.io`
asks for the state of all clock files, which the cache of TOAs goes by.
"""

import contextlib
import hashlib
import os
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

_REPOSITORY = "pulsar-clock-corrections"
_OVERRIDE = "PINT_CLOCK_OVERRIDE"  # the folder in which PINT looks first


def clock_state(folder: Path | None) -> list[tuple[str, str]]:
    """(name, hash) of all clock files that PINT may read: of the folder, or those that it has fetched.

    **Raises:** `ValueError` for a folder without an index.
    """
    if folder is None:
        files = {url: path for url, path in _fetched().items() if _REPOSITORY in url and not url.startswith("file:")}
    else:
        _check(folder)
        files = _below(folder)
    own = os.environ.get(_OVERRIDE)
    if own is not None:
        files |= {f"{_OVERRIDE}/{name}": path for name, path in _below(Path(own)).items()}
    return sorted((name, hashlib.sha256(Path(path).read_bytes()).hexdigest()) for name, path in files.items())


@contextlib.contextmanager
def reading_clocks(folder: Path | None) -> Iterator[None]:
    """PINT reads clocks from this folder meanwhile; by its own ways for `None`.

    It keeps what it has read, in memory and by address: that is forgotten where the folder has something else.

    **Raises:** `ValueError` for a folder without an index.
    """
    if folder is None:
        yield
        return
    import pint.observatory.global_clock_corrections as repository

    _check(folder)
    # PINT reads clocks from an address; a folder has one too
    base = folder.absolute().as_uri() + "/"
    _forget_stale(folder, base)
    before = repository.global_clock_correction_url_base, repository.global_clock_correction_url_mirrors
    repository.global_clock_correction_url_base, repository.global_clock_correction_url_mirrors = base, [base]
    _forget_read()
    try:
        yield
    finally:
        repository.global_clock_correction_url_base, repository.global_clock_correction_url_mirrors = before
        _forget_read()


def _check(folder: Path) -> None:
    if not (folder / "index.txt").is_file():
        raise ValueError(f"{folder} is no folder of clock files: it has no index.txt")


def _below(folder: Path) -> dict[str, Any]:
    return {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}


def _fetched() -> Mapping[str, str]:
    """{address: path} of what PINT has fetched, which astropy keeps; empty without astropy."""
    try:
        from astropy.utils.data import cache_contents
    except ImportError:
        return {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that there is none yet
        return cache_contents()


def _forget_stale(folder: Path, base: str) -> None:
    from astropy.utils.data import clear_download_cache

    files = _below(folder)
    for url, kept in _fetched().items():
        name = url.removeprefix(base)
        if name == url:
            continue
        if name not in files or Path(kept).read_bytes() != files[name].read_bytes():
            clear_download_cache(url)


def _forget_read() -> None:
    import pint.observatory as sites
    from pint.observatory.topo_obs import TopoObs

    sites._gps_clock = None
    sites._bipm_clock_versions.clear()
    for site in sites.Observatory._registry.values():
        if isinstance(site, TopoObs):
            site._clock = None
