"""separate_blocks(): skies larger than memory, a block of pixels at a time from disk to disk."""

import contextlib
import itertools
import os
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import jax
import numpy as np

from ..fitting._resume import fingerprint
from ..fitting._rounds import progress_bar
from ..fitting._source import ArrayRows
from ._bandpass import channel_count
from ._mixing import MixingMatrix
from ._noise import roots
from ._patches import Where
from ._places import Places
from ._separate import STOKES, Found, Task, as_maps, solve, usable
from ._slabs import MANY
from ._stored import BAD, UNUSED, Ledger, StoredSeparation, Totals

_BLOCK = 65_536  # pixels: 24 MB of 15 channels, beside which 30 programs called cost little


def separate_blocks(
    mixing: MixingMatrix,
    instrument: Any,
    maps: Any,
    out: str | os.PathLike[str],
    *,
    patches: Mapping[str, Where] | Where | None = None,
    inv_n: Any = None,
    mask: Any = None,
    block: int = _BLOCK,
    mesh: jax.sharding.Mesh | None = None,
    resume: bool = True,
    progress: bool | Callable[[int, int], None] | None = None,
    **choices: Any,
) -> StoredSeparation:
    """`separate` for skies larger than memory: blocks of pixels from files, results in files.

    Memory holds one block, whatever the size of the sky. Maps, noise, mask and patch numbers are anything with a
    `shape` and a `dtype` that slices to NumPy arrays: `numpy.load(path, mmap_mode="r")`, a dataset of h5py. Maps in
    single precision are computed with in double: what they lose is their own rounding, 6e-8 of the brightest signal.

    Killed or stopped at any moment, the same call goes on with the block that was not finished; its numbers are those
    of a run that was never stopped. Where every pixel is fitted by itself they are those of `separate`, to the bit, for
    any block and any number of devices.

    **Arguments:** `mixing`, `instrument`, `maps`, `inv_n`, `mask` and all other choices as in `separate`.

    - `out`: a folder for the results, made where there is none: see `StoredSeparation`.
    - `patches`: where parameters vary; `None`: each pixel has its own. An nside takes maps in NESTED order
      (`nest=True`), patch numbers come sorted: a block has whole patches. No parameter can be the same everywhere.
    - `block`: pixels at a time, at most. The memory is some 2 kB a pixel of it.
    - `mesh`: devices that take the blocks in turn, each with a block in memory; `None` for the default device.
    - `resume`: False starts over, whatever is in the folder.
    - `progress`: True for a progress bar, or a function of (pixels done, pixels in all).

    **Returns:** a `StoredSeparation`. A pixel that is not finite where there is weight spoils only itself.

    **Raises:** `ValueError` as `separate`, for patches that blocks cannot hold, and for a folder of another separation.
    """
    task = Task.of(mixing, instrument, **choices)
    sky = _Source.of(task, instrument, maps, inv_n, mask)
    if block < 1:
        raise ValueError(f"block should be a positive number of pixels, but it is {block}")
    places = Places(task.free, patches, sky.shape[2], task.nest)
    cuts = places.cuts(block)
    words = repr((task.free, task.units, task.nest, task.marginal, task.how, jax.tree.structure(mixing), sky.shape))
    parts = (mixing, task.nu, task.how["bounds"], task.how["priors"], sky.sample(), _sample(list(places.spec.values())))
    kept = Ledger(out, fingerprint((parts, words, np.array(cuts))), _about(task, sky.shape), resume)
    todo = [(a, b) for a, b in itertools.pairwise(cuts) if a not in kept.done]

    def one(start: int, stop: int) -> tuple[dict[str, np.ndarray], Totals]:
        return _block(task, sky, places.numbers(start, stop), start, stop)

    devices = () if mesh is None else tuple(mesh.devices.flat)
    with contextlib.contextmanager(progress_bar)(progress, sky.shape[2]) as report:
        report(sky.shape[2] - sum(b - a for a, b in todo))
        _run(todo, one, kept, report, devices)
    return kept.open()


def _about(task: Task, shape: tuple[int, ...]) -> dict[str, Any]:
    components, stokes = list(task.mixing.columns), STOKES[shape[1]]
    about = {"free": list(task.free), "components": components, "stokes": stokes, "units": task.units}
    return about | {"nest": task.nest, "npix": shape[2]}


def _run(todo: Any, one: Any, kept: Ledger, report: Callable[[int], None], devices: tuple[Any, ...]) -> None:
    """All blocks; with several devices each has a thread that takes the next one."""
    rest, lock, stop = iter(todo), threading.Lock(), threading.Event()

    def work(device: Any) -> None:
        while not stop.is_set():
            with lock:
                block = next(rest, None)
            if block is None:
                return
            with jax.default_device(device):
                arrays, totals = one(*block)
            with lock:
                kept.write(block[0], block[1], arrays, totals)
                report(block[1] - block[0])

    if len(devices) < 2:
        work(devices[0] if devices else None)
        return
    with ThreadPoolExecutor(len(devices)) as pool:
        try:
            for future in [pool.submit(work, device) for device in devices]:
                future.result()
        finally:
            stop.set()


class _Source(NamedTuple):
    """The maps, the noise and the mask, none of them in memory."""

    task: Task
    maps: Any
    shape: tuple[int, int, int]
    inv_n: Any
    root: list[Any] | None
    mask: Any

    @staticmethod
    def of(task: Task, instrument: Any, maps: Any, inv_n: Any, mask: Any) -> "_Source":
        f, given = channel_count(task.nu), tuple(maps.shape)
        as_maps(np.empty((*given[:-1], 0), np.float32), f)  # named here, not at the first block
        f, s, npix = shape = (f, 1 if len(given) == 2 else given[1], given[-1])
        if inv_n is not None and len(inv_n.shape) >= 3 and inv_n.shape[-1] == npix:
            return _Source(task, maps, shape, inv_n, None, mask)
        root = task.depths(instrument, s, npix) if inv_n is None else roots(inv_n, f, s, npix)
        return _Source(task, maps, shape, None, root, mask)

    def read(self, start: int, stop: int) -> tuple[np.ndarray, list[Any], Any]:
        """(data, roots of the noise, mask) of some pixels, copied, and the files' pages given back."""
        f, s, _ = self.shape
        data = np.empty((*self.maps.shape[:-1], stop - start))
        source = ArrayRows([self.maps])
        for channel, rows in enumerate(data):
            rows[...] = self.maps[channel, ..., start:stop]
            source.release()  # channel by channel: the system maps far more of a file than was asked for
        data = as_maps(data, f)
        root = self.root
        if root is None:
            root = roots(np.array(self.inv_n[..., start:stop], float), f, s, stop - start)
        mask = None if self.mask is None else np.array(self.mask[start:stop])
        ArrayRows([x for x in (self.inv_n, self.mask) if x is not None]).release()
        return data, root, mask

    def sample(self) -> list[np.ndarray]:
        """What tells these data from others, without reading all of them."""
        noise = self.inv_n if self.root is None else self.root
        return _sample([self.maps, *(noise if isinstance(noise, list) else [noise]), self.mask])


def _sample(arrays: list[Any]) -> list[np.ndarray]:
    """64 pixels of each."""
    out = []
    for x in arrays:
        if x is None or isinstance(x, int):
            out.append(np.array(-1 if x is None else x))
            continue
        source, last = ArrayRows([x]), x.shape[-1]
        for i in np.linspace(0, last - 1, min(64, last)):
            out.append(np.array(x[..., int(i)]))
            source.release()  # each number brings in a page, or several
    return out


def _block(task: Task, sky: _Source, ids: dict[str, np.ndarray], start: int, stop: int) -> Any:
    """(arrays by name with these pixels last, totals)."""
    data, root, mask = sky.read(start, stop)
    used, bad = usable(data, root, mask, len(task.mixing.columns))
    used &= np.all([number >= 0 for number in ids.values()], axis=0) if ids else True
    arrays = _blank(len(task.free), len(task.mixing.columns), sky.shape[1], stop - start)
    arrays["result"][bad] = BAD
    if not used.any():
        return arrays, Totals(0, int(bad.sum()), 0, 0, 0.0, 0.0, 0)
    found = solve(task, data, root, used, ids, MANY)
    return _filled(arrays, task, found, int(bad.sum()))


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
    failed, steps = 0, np.zeros(1, int)
    arrays["result"][pixel] = 0
    if task.free:
        steps, ended = np.asarray(fits.steps), np.asarray(fits.result)
        arrays["result"][pixel], arrays["steps"][pixel] = ended[group[cell]], steps[group[cell]]
        failed = int(np.sum(ended != 0))
    fitted = sum(len(value) for value in fits.values.values())
    amplitudes = len(pixel) * component.amplitude.shape[0] * component.amplitude.shape[1]
    dof = int(component.num_data.sum()) - amplitudes - fitted
    sums = float(component.chi2.sum()), float(component.minus_log_like.sum())
    return arrays, Totals(len(pixel), bad, failed, dof, *sums, int(steps.max()))
