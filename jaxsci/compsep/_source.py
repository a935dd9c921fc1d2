"""Maps, noise, mask and fixed parameters on disk: what a block of pixels reads of them."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from ..datasets import ArrayRows
from ._bandpass import channel_count
from ._fixed import checked, in_memory, outside
from ._given import plain
from ._noise import UNSEEN, reaching, roots
from ._separate import Task, as_maps, shown, usable


class Part(NamedTuple):
    """Some pixels: as `solve` has them, and which of them are used, and which are not finite where they would be."""

    data: np.ndarray
    root: list[Any]
    fixed: dict[str, np.ndarray]
    used: np.ndarray
    bad: np.ndarray


class Source(NamedTuple):
    """Arrays of pixels, none of them in memory; `root` of the noise where it is the same in all pixels."""

    task: Task
    maps: Any
    shape: tuple[int, int, int]
    inv_n: Any
    root: list[Any] | None
    mask: Any
    fixed: dict[str, Any]

    @staticmethod
    def of(
        task: Task, instrument: Any, maps: Any, inv_n: Any, mask: Any, fixed: Mapping[str, Any] | None = None
    ) -> "Source":
        """What `separate_blocks` was given.

        **Raises:** `ValueError` for wrong shapes, and noise that is no inverse covariance.
        """
        f, given = channel_count(task.nu), tuple(maps.shape)
        as_maps(np.empty((*given[:-1], 0), maps.dtype), f, task.units)  # named here, not at the first block
        f, s, npix = shape = (f, 1 if len(given) == 2 else given[1], given[-1])
        still = checked(fixed, task.free, npix)
        if inv_n is not None and len(inv_n.shape) >= 3 and inv_n.shape[-1] == npix:
            return Source(task, maps, shape, inv_n, None, mask, still)
        root = task.depths(instrument, s, npix) if inv_n is None else roots(inv_n, f, s, npix, task.units)
        root = [reaching(one, len(task.mixing.columns)) for one in root]
        return Source(task, maps, shape, None, root, mask, still)

    def read(self, start: int, stop: int) -> Part:
        """Some pixels, copied, and the files' pages given back."""
        f, s, _ = self.shape
        data = np.empty((*self.maps.shape[:-1], stop - start))
        source = ArrayRows([self.maps])
        for channel, rows in enumerate(data):
            rows[...] = plain(self.maps[channel, ..., start:stop], "maps", self.task.units, fill=UNSEEN)
            source.release()  # channel by channel: the system maps far more of a file than was asked for
        data = as_maps(data, f, self.task.units)
        root = self.root
        if root is None:
            root = roots(self.inv_n[..., start:stop], f, s, stop - start, self.task.units)
        rows_of = {name: x[start:stop] for name, x in self.fixed.items()}
        mask = shown(None if self.mask is None else self.mask[start:stop], rows_of, stop - start)
        mask = None if mask is None else np.array(mask)
        fixed = {name: np.array(x) for name, x in in_memory(self.task.mixing, rows_of).items()}
        ArrayRows([x for x in (self.inv_n, self.mask, *self.fixed.values()) if x is not None]).release()
        used, bad, root = usable(data, root, mask, len(self.task.mixing.columns))
        for name, values in fixed.items():
            bad |= used & (~np.isfinite(values) | outside(self.task.mixing, name, values))
        return Part(data, root, fixed, used & ~bad, bad)

    def sample(self) -> list[np.ndarray]:
        """What tells these data from others, without reading all of them."""
        noise = self.inv_n if self.root is None else self.root
        given = [self.maps, *(noise if isinstance(noise, list) else [noise]), self.mask]
        return sample([*given, *(self.fixed[name] for name in sorted(self.fixed))])


def sample(arrays: list[Any]) -> list[np.ndarray]:
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
