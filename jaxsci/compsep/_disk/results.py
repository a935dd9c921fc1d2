"""Results of a separation in files: written block by block, opened as memory maps.

A folder has an array of each kind in a file of its own, and a checksummed ledger that says which blocks are whole.
`separate_blocks` writes it through `Ledger`; a user reads it as a `StoredSeparation`, which opens the maps without
reading them.
"""

import errno
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ...core import Tree, place_of
from ...datasets import ArrayRows, read_array
from ...fitting import verdict_of
from ...parallel import Checkpoint, Kept, WriteError
from .._fit.fits import Fits
from .._separation import goodness, verdict_lines

UNUSED = -1
"""In `result`: a pixel that is masked, UNSEEN, or has too few channels."""
BAD = -2
"""In `result`: a pixel that is not finite where there is weight."""

_LEDGER, _ROWS = "separation.jsci", "blocks"
_KINDS = {"at_bound": np.int8, "steps": np.int16, "result": np.int8}


class Totals(NamedTuple):
    """Sums over a block, or over all: pixels used, pixels not finite, fits that failed, degrees of freedom, and so on.

    `steps`: the evaluations of the fit that took most.
    """

    used: int
    bad: int
    failed: int
    dof: int
    chi2: float
    minus_log_like: float
    steps: int

    def counting(self, fits: Fits) -> "Totals":
        """With the parameters, failures and steps of these fits counted."""
        fitted = sum(int(np.sum(~np.isnan(np.asarray(std)))) for std in fits.std.values())
        failed = int(np.sum(np.asarray(fits.result) != 0))
        most = int(np.max(np.asarray(fits.steps), initial=self.steps))
        return self._replace(dof=self.dof - fitted, failed=self.failed + failed, steps=most)


class About(NamedTuple):
    """What a separation in files is of, as its ledger keeps it beside the list of blocks."""

    free: tuple[str, ...]
    components: tuple[str, ...]
    stokes: str
    units: str
    nest: bool
    npix: int

    @staticmethod
    def read(told: dict[str, Any]) -> "About":
        """What the ledger says."""
        return About(**told | {name: tuple(told[name]) for name in ("free", "components")})

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shape of each array, but for the pixels."""
        p, c, s = len(self.free), len(self.components), len(self.stokes)
        maps: dict[str, tuple[int, ...]] = {"amplitudes": (c, s), "errors": (c, s), "chi2": (), "values": (p,)}
        return maps | {"std": (p,), "at_bound": (p,), "covariance": (p, p), "result": (), "steps": ()}


class StoredSeparation(NamedTuple):
    """Open maps in a folder as read-only memory maps; NaN where a pixel was not used.

    - `amplitudes`, `errors`: (c, s, pixel), in the unit of the data. `chi2`: (pixel,).
    - `values`, `std`, `at_bound`: (p, pixel) of the parameters `free`. `covariance`: (p, p, pixel) of them.
    - `result`: (pixel,) how the fit of each ended: 0 for success, a code of `RESULTS`, -1 where a pixel was not used,
      -2 where it was not finite, or a fixed parameter outside of its bounds. `steps`: (pixel,) evaluations.
    - `totals`: pixels used, chi2 and so on.
    """

    amplitudes: np.ndarray
    errors: np.ndarray
    chi2: np.ndarray
    values: np.ndarray
    std: np.ndarray
    at_bound: np.ndarray
    covariance: np.ndarray
    result: np.ndarray
    steps: np.ndarray
    totals: Totals
    free: tuple[str, ...]
    components: tuple[str, ...]
    stokes: str
    units: str
    nest: bool

    @staticmethod
    def open(folder: str | os.PathLike[str]) -> "StoredSeparation":
        """What `separate_blocks` wrote.

        **Raises:** `FileNotFoundError` for a folder without a separation; `ValueError` for one that is not finished.
        """
        about, rows = _read(Path(folder))
        have = int(np.sum(rows[:, 1] - rows[:, 0]))
        if have != about.npix:
            raise ValueError(f"{folder} has {have} of {about.npix} pixels: run separate_blocks again, it goes on")
        files = {name: Path(folder) / f"{name}.npy" for name in about.shapes()}
        arrays: dict[str, Any] = {name: read_array(path, mapped=True) for name, path in files.items()}
        for name, shape in about.shapes().items():
            if arrays[name].shape != (*shape, about.npix):
                raise ValueError(f"{folder}: {name}.npy has shape {arrays[name].shape}, not {(*shape, about.npix)}")
        sums, most = rows[:, 2:].sum(axis=0), int(rows[:, 8].max())
        used, bad, failed, dof = map(int, sums[:4])
        totals = Totals(used, bad, failed, dof, float(sums[4]), float(sums[5]), most)
        told = {name: x for name, x in about._asdict().items() if name != "npix"}
        return StoredSeparation(**arrays, totals=totals, **told)

    def parameter_map(self, name: str) -> np.ndarray:
        """Give a fitted parameter at each pixel (pixel,).

        **Raises:** `ValueError` for a name that was not fitted.
        """
        return self.values[place_of(name, self.free, "fitted parameter")]

    def error_map(self, name: str) -> np.ndarray:
        """Give the standard error of a parameter at each pixel (pixel,).

        **Raises:** `ValueError` for a name that was not fitted.
        """
        return self.std[place_of(name, self.free, "fitted parameter")]

    def component(self, name: str) -> np.ndarray:
        """Give the amplitudes (s, pixel) of a component, in the unit of the data.

        **Raises:** `ValueError` for a name that no column has.
        """
        return self.amplitudes[place_of(name, self.components, "component")]

    def summary(self) -> str:
        """How many pixels, how well they fit, how the fits ended, and what to look at."""
        t = self.totals
        said = goodness(t.chi2, t.dof)
        return "\n".join(
            [
                f"{t.used} of {self.chi2.shape[0]} pixels, {t.bad} more not finite, Stokes {self.stokes}, unit "
                f"{self.units}",
                f"chi2 {t.chi2:.6g} for {t.dof} degrees of freedom",
                f"{t.failed} independent fits did not converge, {t.steps} evaluations at most",
                *verdict_lines(verdict_of(not t.failed, said), said),
            ]
        )


class Ledger:
    """Which blocks of a folder are whole. A block counts once its numbers are on the disk, never before."""

    def __init__(self, folder: str | os.PathLike[str], belongs: Mapping[str, Tree], about: About, resume: bool):
        self.folder, self.about = Path(folder), about
        self.folder.mkdir(parents=True, exist_ok=True)
        told = about._asdict()
        self.kept = Checkpoint(self.folder / _LEDGER, belongs, resume, every=0, about=told)
        self.rows = [tuple(row) for row in self.kept.state(_ROWS, np.zeros((0, 2 + len(Totals._fields))))]
        self.done = {int(row[0]) for row in self.rows}
        if not self.rows:
            self._record()
            for name, shape in about.shapes().items():
                kind = _KINDS.get(name, np.float64)
                np.lib.format.open_memmap(self._path(name), "w+", kind, (*shape, about.npix)).flush()
                _take_room(self._path(name))

    def write(self, start: int, stop: int, arrays: dict[str, np.ndarray], totals: Totals) -> None:
        """Put a block into the files, and only then on the list."""
        for name, values in arrays.items():
            whole = np.load(self._path(name), mmap_mode="r+")
            whole[..., start:stop] = values
            whole.flush()
            ArrayRows([whole]).release()
        self.rows.append((start, stop, *totals))
        self._record()

    def _path(self, name: str) -> Path:
        return self.folder / f"{name}.npy"

    def _record(self) -> None:
        self.kept.keep(_ROWS, np.array(self.rows, float).reshape(-1, 2 + len(Totals._fields)))


def _take_room(path: Path) -> None:
    """Have the disk set aside what a file is to hold: one that fills up later ends a process that writes to a map.

    **Raises:** `WriteError` where there is not so much room.
    """
    allocate = getattr(os, "posix_fallocate", None)  # not everywhere
    if allocate is None:
        return
    with path.open("r+b") as file:
        size = path.stat().st_size
        try:
            allocate(file.fileno(), 0, size)
        except OSError as error:
            if error.errno != errno.ENOSPC:  # a disk that cannot set anything aside
                return
            raise WriteError(error.errno, f"there is no room for {size} bytes: {error.strerror}", str(path)) from error


def _read(folder: Path) -> tuple[About, np.ndarray]:
    """(what the results are of, the rows of the ledger)."""
    kept = Kept.read(folder / _LEDGER)
    return About.read(kept.about), kept.states[_ROWS][0]
