"""separate_blocks(): skies larger than memory, a block of pixels at a time from disk to disk."""

import contextlib
import functools
import itertools
import os
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from ..fitting import progress_bar
from ..parallel import Placement
from ._everywhere import check_everywhere, fit_everywhere
from ._fixed import not_fixed
from ._mixing import MixingMatrix
from ._patches import Where
from ._places import Places
from ._separate import STOKES, Found, Task, solve
from ._slabs import MANY
from ._source import Part, Source, sample
from ._spatial import Fits
from ._stored import BAD, UNUSED, Ledger, StoredSeparation, Totals

_BLOCK = 65_536  # pixels: 24 MB of 15 channels, beside which 30 programs called cost little


def separate_blocks(
    mixing: MixingMatrix,
    instrument: Any,
    maps: Any,
    out: str | os.PathLike[str],
    *,
    patches: Mapping[str, Where] | Where | None = None,
    fixed: Mapping[str, Any] | None = None,
    inv_n: Any = None,
    mask: Any = None,
    block: int = _BLOCK,
    mesh: jax.sharding.Mesh | None = None,
    resume: bool = True,
    progress: bool | Callable[[int, int], None] | None = None,
    **choices: Any,
) -> StoredSeparation:
    """`separate` for skies larger than memory: blocks of pixels from files, results in files.

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
    - `mesh`: devices that take the blocks in turn, each with a block in memory; `None` for the default device.
    - `resume`: False starts over, whatever is in the folder.
    - `progress`: True for a progress bar, or a function of (pixels done, pixels in all).

    **Returns:** a `StoredSeparation`. A pixel that is not finite where there is weight spoils only itself; so does one
    whose fixed parameter is not finite, or outside of its declared bounds.

    **Raises:** `ValueError` as `separate`, for patches that blocks cannot hold, and for a folder of another separation.
    """
    choices["free"] = not_fixed(mixing, fixed) if choices.get("free") is None else choices["free"]
    task = Task.of(mixing, instrument, **choices)
    sky = Source.of(task, instrument, maps, inv_n, mask, fixed)
    places = Places(task.free, patches, sky.shape[2], task.nest)
    if places.everywhere:
        check_everywhere(task, sky)
    cuts = places.cuts(block)
    kept = Ledger(out, _mark(task, sky, places, cuts), _about(task, sky.shape), resume)
    todo = [(a, b) for a, b in itertools.pairwise(cuts) if a not in kept.done]
    known = fit_everywhere(task, sky, cuts) if places.everywhere and todo else None
    one = functools.partial(_block, task, sky, places, known)
    with contextlib.contextmanager(progress_bar)(progress, sky.shape[2]) as report:
        report(sky.shape[2] - sum(b - a for a, b in todo))

        def done(block: tuple[int, int], found: tuple[dict[str, np.ndarray], Totals]) -> None:
            kept.write(*block, *found)
            report(block[1] - block[0])

        Placement.of(mesh).spread(todo, lambda block: one(*block), done)
    return kept.open()


def _mark(task: Task, sky: Source, places: Places, cuts: list[int]) -> Any:
    """What tells this separation from others."""
    settings = task.free, task.units, task.nest, task.marginal, task.how, jax.tree.structure(task.mixing), sky.shape
    words, given = repr((*settings, sorted(sky.fixed))), (task.how["bounds"], task.how["priors"])
    parts = (task.mixing, task.nu, *given, sky.sample(), sample(list(places.spec.values())))
    return parts, words, np.array(cuts)


def _about(task: Task, shape: tuple[int, ...]) -> dict[str, Any]:
    components, stokes = list(task.mixing.columns), STOKES[shape[1]]
    about = {"free": list(task.free), "components": components, "stokes": stokes, "units": task.units}
    return about | {"nest": task.nest, "npix": shape[2]}


def _block(
    task: Task, sky: Source, places: Places, known: Fits | None, start: int, stop: int
) -> tuple[dict[str, np.ndarray], Totals]:
    """(arrays by name with these pixels last, totals); the fit of what is `known` everywhere counts in the first."""
    arrays, totals, fits = _part(task, sky.read(start, stop), places.numbers(start, stop), known)
    return arrays, totals if known is None or start else _with(totals, fits)


def _part(task: Task, sky: Part, ids: dict[str, np.ndarray], known: Fits | None) -> Any:
    """(arrays by name with these pixels last, totals of what was fitted here, the fits)."""
    used, bad = sky.used, int(sky.bad.sum())
    used = used & np.all([number >= 0 for number in ids.values()], axis=0) if ids else used
    arrays = _blank(len(task.free), len(task.mixing.columns), *sky.data.shape[1:])
    arrays["result"][sky.bad] = BAD
    if not used.any():
        return arrays, Totals(0, bad, 0, 0, 0.0, 0.0, 0), known
    found = solve(task, sky.data, sky.root, used, ids, MANY, sky.fixed, known)
    arrays, totals = _filled(arrays, task, found, bad)
    return arrays, totals if known is not None else _with(totals, found.fits), found.fits


def _with(totals: Totals, fits: Fits) -> Totals:
    """With these fits counted."""
    fitted = sum(int(np.sum(~np.isnan(np.asarray(std)))) for std in fits.std.values())
    failed = int(np.sum(np.asarray(fits.result) != 0))
    most = int(np.max(np.asarray(fits.steps), initial=totals.steps))
    return totals._replace(dof=totals.dof - fitted, failed=totals.failed + failed, steps=most)


def _blank(p: int, c: int, s: int, n: int) -> dict[str, np.ndarray]:
    real = {"values": (p,), "std": (p,), "covariance": (p, p), "amplitudes": (c, s), "errors": (c, s), "chi2": ()}
    arrays = {name: np.full((*shape, n), np.nan) for name, shape in real.items()}
    arrays |= {"at_bound": np.zeros((p, n), np.int8), "steps": np.zeros(n, np.int16)}
    return arrays | {"result": np.full(n, UNUSED, np.int8)}


def _filled(arrays: dict[str, np.ndarray], task: Task, found: Found, bad: int) -> tuple[dict[str, np.ndarray], Totals]:
    (pixel, element, _, cell, _, group, *_), fits, component = found
    for i, name in enumerate(task.free):
        for target, source in (("values", fits.values), ("std", fits.std), ("at_bound", fits.at_bound)):
            arrays[target][i, pixel] = np.asarray(source[name])[element[name]]
    arrays["covariance"][..., pixel] = np.asarray(fits.covariance)[..., cell]
    for target, values in (("amplitudes", component[0]), ("errors", component[1]), ("chi2", component[2])):
        arrays[target][..., pixel] = values
    at = group[cell]
    arrays["result"][pixel], arrays["steps"][pixel] = np.asarray(fits.result)[at], np.asarray(fits.steps)[at]
    dof = int(component.num_data.sum()) - int(np.sum(~np.isnan(component.amplitude)))
    sums = float(np.nansum(component.chi2)), float(np.nansum(component.minus_log_like))
    return arrays, Totals(len(pixel), bad, 0, dof, *sums, 0)
