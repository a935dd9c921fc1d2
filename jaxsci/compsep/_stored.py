"""Results of a separation in files: written block by block, opened as memory maps."""

import os
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import PyTree

from ..core import place_of
from ..datasets import ArrayRows
from ..fitting import verdict_of
from ..parallel import Checkpoint, Kept
from ._separation import goodness, verdict_lines

UNUSED = -1
"""In `result`: a pixel that is masked, UNSEEN, or has too few channels."""
BAD = -2
"""In `result`: a pixel that is not finite where there is weight."""

_LEDGER, _ROWS = "separation.jsci", "blocks"
_KINDS = {"at_bound": np.int8, "steps": np.int16, "result": np.int8}


class Totals(NamedTuple):
    """Of a block, or of all: pixels used, pixels not finite, fits that failed, degrees of freedom, sums, most steps."""

    used: int
    bad: int
    failed: int
    dof: int
    chi2: float
    minus_log_like: float
    steps: int


class StoredSeparation(NamedTuple):
    """Maps in a folder, as read-only memory maps; NaN where a pixel was not used.

    - `amplitudes`, `errors`: (c, s, pixel), in the unit of the data. `chi2`: (pixel,).
    - `values`, `std`, `at_bound`: (p, pixel) of the parameters `free`. `covariance`: (p, p, pixel) of them.
    - `result`: (pixel,) how the fit of each ended: 0 for success, a code of `RESULTS`, -1 where a pixel was not used,
      -2 where it was not finite, or a fixed parameter outside of its bounds. `steps`: (pixel,) evaluations.
    - `totals`: pixels used, chi2 and so on.
    """

    amplitudes: Any
    errors: Any
    chi2: Any
    values: Any
    std: Any
    at_bound: Any
    covariance: Any
    result: Any
    steps: Any
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
        if have != about["npix"]:
            raise ValueError(f"{folder} has {have} of {about['npix']} pixels: run separate_blocks again, it goes on")
        arrays = {name: np.load(Path(folder) / f"{name}.npy", mmap_mode="r") for name in _shapes(about)}
        sums, most = rows[:, 2:].sum(axis=0), int(rows[:, 8].max())
        used, bad, failed, dof = map(int, sums[:4])
        totals = Totals(used, bad, failed, dof, float(sums[4]), float(sums[5]), most)
        names = {name: tuple(about[name]) for name in ("free", "components")}
        return StoredSeparation(
            **arrays, **names, totals=totals, stokes=about["stokes"], units=about["units"], nest=about["nest"]
        )

    def parameter_map(self, name: str) -> Any:
        """A fitted parameter at each pixel."""
        return self.values[place_of(name, self.free, "fitted parameter")]

    def error_map(self, name: str) -> Any:
        """The standard error of a parameter at each pixel."""
        return self.std[place_of(name, self.free, "fitted parameter")]

    def component(self, name: str) -> Any:
        """The amplitudes (s, pixel) of a component."""
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

    def __init__(self, folder: str | os.PathLike[str], task: PyTree, about: dict[str, Any], resume: bool):
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.kept = Checkpoint(self.folder / _LEDGER, task, resume, every=0, about=about, of="maps, models or settings")
        self.rows = [tuple(row) for row in self.kept.state(_ROWS, np.zeros((0, 2 + len(Totals._fields))))]
        self.done = {int(row[0]) for row in self.rows}
        if not self.rows:
            self._record()
            for name, shape in _shapes(about).items():
                kind = _KINDS.get(name, np.float64)
                np.lib.format.open_memmap(self._path(name), "w+", kind, (*shape, about["npix"])).flush()

    def write(self, start: int, stop: int, arrays: dict[str, np.ndarray], totals: Totals) -> None:
        """Put a block into the files, and only then on the list."""
        for name, values in arrays.items():
            whole = np.load(self._path(name), mmap_mode="r+")
            whole[..., start:stop] = values
            whole.flush()
            ArrayRows([whole]).release()
        self.rows.append((start, stop, *totals))
        self._record()

    def open(self) -> StoredSeparation:
        """The results, all blocks being there."""
        return StoredSeparation.open(self.folder)

    def _path(self, name: str) -> Path:
        return self.folder / f"{name}.npy"

    def _record(self) -> None:
        self.kept.keep(_ROWS, np.array(self.rows, float).reshape(-1, 2 + len(Totals._fields)))


def _read(folder: Path) -> tuple[dict[str, Any], np.ndarray]:
    """(what the results are about, the rows of the ledger)."""
    kept = Kept.read(folder / _LEDGER)
    return kept.about, kept.states[_ROWS][0]


def _shapes(about: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    """Of each array, but for the pixels."""
    p, c, s = len(about["free"]), len(about["components"]), len(about["stokes"])
    maps: dict[str, tuple[int, ...]] = {"amplitudes": (c, s), "errors": (c, s), "chi2": (), "values": (p,), "std": (p,)}
    return maps | {"at_bound": (p,), "covariance": (p, p), "result": (), "steps": ()}
