"""`separate_blocks`: skies larger than memory, a block of pixels at a time from disk to disk.

Each block goes through the same door and the same fits as a sky in memory, and its numbers are on disk before the next
one counts, so that a run that is stopped goes on where it was. Parameters that are the same everywhere are fitted
first, in one pass over all blocks. A user calls it for nside 2048 and beyond.
"""

import contextlib
import functools
import itertools
import os
from collections.abc import Callable, Mapping
from typing import NamedTuple, TypeAlias, Unpack

import jax
import numpy as np

from ...core import Tree
from ...fitting import progress_bar
from ...parallel import Placement
from .._fit.amplitudes import ComponentMaps
from .._fit.fits import Fits
from .._fit.host_batches import MANY_LANES
from .._fixed import not_fixed, unturned
from .._given import Given, OnDisk
from .._instrument import Channels
from .._mixing import MixingMatrix
from .._patches import Cells, Where, lay_out
from .._separate import solve
from .._settings import BlockOptions, Settings
from .._sky import STOKES
from .cuts import Runs, cuts, is_global, numbers, runs_of
from .global_fit import check_global, fit_globally
from .results import BAD, UNUSED, About, Ledger, StoredSeparation, Totals
from .sky_files import SkyFiles, sample

_BLOCK = 65_536  # pixels: 24 MB of 15 channels, beside which 30 programs called cost little

Arrays: TypeAlias = dict[str, np.ndarray]
"""By name, what a `StoredSeparation` has of the pixels of a block, which are last."""


class Common(NamedTuple):
    """All that the blocks of a sky have in common. `known`: the fit of what is the same everywhere."""

    settings: Settings
    files: SkyFiles
    runs: Runs
    known: Fits | None


def separate_blocks(
    mixing: MixingMatrix,
    instrument: Channels,
    maps: OnDisk,
    out: str | os.PathLike[str],
    *,
    patches: Mapping[str, Where] | Where | None = None,
    fixed: Mapping[str, OnDisk] | None = None,
    inv_n: OnDisk | Given | None = None,
    mask: OnDisk | None = None,
    block: int = _BLOCK,
    mesh: jax.sharding.Mesh | None = None,
    resume: bool = True,
    progress: bool | Callable[[int, int], None] | None = None,
    **choices: Unpack[BlockOptions],
) -> StoredSeparation:
    """Separate skies larger than memory: blocks of pixels from files, results in files.

    Memory holds one block, whatever the size of the sky. Maps, noise, mask, patch numbers and fixed parameters are
    anything with a `shape` and a `dtype` that slices to NumPy arrays: `numpy.load(path, mmap_mode="r")`, a dataset of
    h5py. Maps in single precision are computed with in double: what they lose is their own rounding, 6e-8 of the
    brightest signal.

    Killed or stopped at any moment, the same call goes on with the block that was not finished; its numbers are those
    of a run that was never stopped. Where every pixel is fitted by itself they are those of `separate`, to the bit, for
    any block and any number of devices. Parameters that are the same everywhere take one more pass over the maps.

    **Arguments:** `mixing`, `instrument`, `maps`, `inv_n`, `mask`, `fixed` and all other choices as in `separate`.

    - `out`: a folder for the results, made where there is none: see `StoredSeparation`.
    - `patches`: where parameters vary; `None`: each pixel has its own. An nside takes maps in NESTED order
      (`nest=True`), patch numbers come sorted: a block has whole patches. 0: one value for all pixels, of every
      parameter, for noise that is the same in all of them.
    - `block`: pixels at a time, at most. The memory is some 2 kB a pixel of it.
    - `mesh`: devices that take the blocks in turn, each with a block in memory, such as `jaxsci.mesh()`; `None` for the
      default device. All of several processes read the maps; the first of them alone writes into `out`.
    - `resume`: False starts over, whatever is in the folder.
    - `progress`: True for a progress bar, or a function of (pixels done, pixels in all).

    **Returns:** a `StoredSeparation`. A pixel that is not finite where there is weight spoils only itself; so does one
    whose fixed parameter is not finite, or outside of its declared bounds.

    **Raises:** `ValueError` as `separate`, for patches that blocks cannot hold, and for a folder of another separation.
    """
    if choices.get("free") is None:
        choices["free"] = not_fixed(mixing, fixed)
    unturned(mixing, "skies in blocks")
    settings = Settings.of(mixing, instrument, **choices)
    files = SkyFiles.of(settings, instrument, maps, inv_n, mask, fixed)
    npix = files.shape[2]
    everywhere = is_global(settings.free, patches)
    runs = runs_of(settings.free, patches, npix, settings.nest)
    if everywhere:
        check_global(settings, files)
    at = cuts(runs, npix, block)
    placement, kept = Placement.of(mesh), list[Ledger]()  # none in a process that does not write
    with contextlib.ExitStack() as held, contextlib.contextmanager(progress_bar)(progress, npix) as report:

        def begin() -> np.ndarray:
            kept.append(Ledger(out, _belongs(settings, files, runs, at), _about(settings, files.shape), resume))
            held.enter_context(kept[0].kept)
            return np.array(sorted(kept[0].done), int)

        finished = set(placement.by_first(begin).tolist())
        todo = [(a, b) for a, b in itertools.pairwise(at) if a not in finished]
        known = fit_globally(settings, files, at) if everywhere and todo else None
        one = functools.partial(_block, Common(settings, files, runs, known))
        report(npix - sum(b - a for a, b in todo))

        def done(block: tuple[int, int], found: tuple[Arrays, Totals]) -> None:
            for ledger in kept:
                ledger.write(*block, *found)
            report(block[1] - block[0])

        placement.spread(todo, lambda block: one(*block), done)
    return StoredSeparation.open(out)


def _belongs(settings: Settings, files: SkyFiles, runs: Runs, at: list[int]) -> dict[str, Tree]:
    """What tells this separation from others."""
    maps = (files.sample(), files.shape, sorted(files.fixed))
    choices = (settings[2:], sorted(runs), sample(list(runs.values())), np.array(at))
    return {"maps": maps, "models": (settings.mixing, settings.nu), "settings": choices}


def _about(settings: Settings, shape: tuple[int, int, int]) -> About:
    return About(settings.free, settings.mixing.columns, STOKES[shape[1]], settings.units, settings.nest, shape[2])


def _block(common: Common, start: int, stop: int) -> tuple[Arrays, Totals]:
    """Separate these pixels: (their arrays, totals). The fit of what is known everywhere counts in the first block."""
    settings, known = common.settings, common.known
    sky, fixed = common.files.read(start, stop)
    patch = numbers(common.runs, start, stop)
    used, bad = sky.used, int(sky.bad.sum())
    used = used & np.all([number >= 0 for number in patch.values()], axis=0) if patch else used
    arrays = _blank(len(settings.free), len(settings.mixing.columns), sky.shape[1], stop - start)
    arrays["result"][sky.bad] = BAD
    totals, fits = Totals(0, bad, 0, 0, 0.0, 0.0, 0), known
    if used.any():
        cells = lay_out(settings.free, patch, used, nest=settings.nest, single=sky.by_pixel, fixed=fixed)
        fits, component = solve(settings, sky, cells, MANY_LANES, known)
        totals = _fill(arrays, settings, cells, fits, component, bad)
        totals = totals if known is not None else totals.counting(fits)
    if known is not None and start == 0:
        totals = totals.counting(fits or known)
    return arrays, totals


def _blank(p: int, c: int, s: int, n: int) -> Arrays:
    real = {"values": (p,), "std": (p,), "covariance": (p, p), "amplitudes": (c, s), "errors": (c, s), "chi2": ()}
    arrays: Arrays = {name: np.full((*shape, n), np.nan) for name, shape in real.items()}
    arrays |= {"at_bound": np.zeros((p, n), np.int8), "steps": np.zeros(n, np.int16)}
    return arrays | {"result": np.full(n, UNUSED, np.int8)}


def _fill(arrays: Arrays, settings: Settings, cells: Cells, fits: Fits, component: ComponentMaps, bad: int) -> Totals:
    """Put what was found into the places of its pixels, and sum it up."""
    pixel = cells.pixel
    for i, name in enumerate(settings.free):
        for target, source in (("values", fits.values), ("std", fits.std), ("at_bound", fits.at_bound)):
            arrays[target][i, pixel] = np.asarray(source[name])[cells.element[name]]
    arrays["covariance"][..., pixel] = np.asarray(fits.covariance)[..., cells.cell]
    arrays["amplitudes"][..., pixel], arrays["errors"][..., pixel] = component.amplitude, component.error
    arrays["chi2"][pixel] = component.chi2
    at = cells.group[cells.cell]
    arrays["result"][pixel], arrays["steps"][pixel] = np.asarray(fits.result)[at], np.asarray(fits.steps)[at]
    dof = int(component.num_data.sum()) - int(np.sum(~np.isnan(component.amplitude)))
    sums = float(np.nansum(component.chi2)), float(np.nansum(component.minus_log_like))
    return Totals(len(pixel), bad, 0, dof, *sums, 0)
