"""Maps, noise, mask and fixed parameters on disk: what a block of pixels reads of them.

Nothing of a sky is in memory but the block that is being separated. `SkyFiles` keeps what was given, checks what can be
checked without reading it, and hands each block of pixels through the same door as all other maps. `separate_blocks`
and the global fit read from it.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from ...core import require_kind
from ...datasets import ArrayRows
from .._fixed import check_sizes, in_memory, outside
from .._given import Given, OnDisk, Values, plain
from .._instrument import Channels, channel_count
from .._noise import UNSEEN, reaching, roots
from .._settings import Settings
from .._sky import Sky, as_maps, depth_roots


class SkyFiles(NamedTuple):
    """Arrays of pixels, none of them in memory.

    - `shape`: (channels, Stokes parameters, pixels). `maps`, `mask`, `fixed`: as they were given.
    - `inv_n`: the noise where it differs between pixels. `root`: its roots, where it is the same in all of them.
    """

    settings: Settings
    maps: OnDisk
    shape: tuple[int, int, int]
    inv_n: OnDisk | None
    root: list[Values] | None
    mask: OnDisk | None
    fixed: Mapping[str, OnDisk]

    @staticmethod
    def of(
        settings: Settings,
        instrument: Channels,
        maps: OnDisk,
        inv_n: OnDisk | Given | None,
        mask: OnDisk | None,
        fixed: Mapping[str, OnDisk] | None = None,
    ) -> "SkyFiles":
        """Check what `separate_blocks` was given.

        **Raises:** `ValueError` for wrong shapes, and noise that is no inverse covariance.
        """
        require_kind(maps, OnDisk, "maps", "an array, such as numpy.load(path, mmap_mode='r') gives")
        f, given = channel_count(settings.nu), tuple(maps.shape)
        # wrong shapes are named here, and not at the first block
        as_maps(np.empty((*given[:-1], 0), maps.dtype), f, settings.units)
        f, s, npix = shape = (f, 1 if len(given) == 2 else given[1], given[-1])
        still = dict(fixed or {})
        check_sizes(still, settings.free, npix)
        if isinstance(inv_n, OnDisk) and len(inv_n.shape) >= 3 and inv_n.shape[-1] == npix:
            return SkyFiles(settings, maps, shape, inv_n, None, mask, still)
        root = (
            depth_roots(instrument, s, npix, settings.units)
            if inv_n is None
            else roots(inv_n, f, s, npix, settings.units)
        )
        root = [reaching(one, len(settings.mixing.columns)) for one in root]
        return SkyFiles(settings, maps, shape, None, root, mask, still)

    def read(self, start: int, stop: int) -> tuple[Sky, dict[str, np.ndarray]]:
        """Read some pixels and their fixed parameters, and give the files' pages back.

        What is not finite is marked as `bad`: so is a pixel whose fixed parameter is not, or lies outside its bounds.
        """
        f, s, _ = self.shape
        mixing, units = self.settings.mixing, self.settings.units
        data = np.empty((*self.maps.shape[:-1], stop - start))
        source = ArrayRows([self.maps])
        for channel, rows in enumerate(data):
            rows[...] = plain(self.maps[channel, ..., start:stop], "maps", units, fill=UNSEEN)
            source.release()  # channel by channel: the system maps far more of a file than was asked for
        root = self.root
        if root is None:
            assert self.inv_n is not None
            root = roots(self.inv_n[..., start:stop], f, s, stop - start, units)
        fixed = {name: x[start:stop] for name, x in self.fixed.items()}
        mask = None if self.mask is None else self.mask[start:stop]
        sky = Sky.with_roots(self.settings.nu, as_maps(data, f, units), root, mask, units, len(mixing.columns))
        sky = sky.hiding(fixed)
        here = {name: np.array(x) for name, x in in_memory(mixing, fixed).items()}
        ArrayRows([x for x in (self.inv_n, self.mask, *self.fixed.values()) if x is not None]).release()
        lost = [~np.isfinite(values) | outside(mixing, name, values) for name, values in here.items()]
        return sky.spoilt_where(np.any(lost, axis=0) if lost else np.zeros(stop - start, bool)), here

    def sample(self) -> list[np.ndarray]:
        """Read what tells these data from others, without reading all of them."""
        noise = self.inv_n if self.root is None else self.root
        given = [self.maps, *(noise if isinstance(noise, list) else [noise]), self.mask]
        return sample([*given, *(self.fixed[name] for name in sorted(self.fixed))])


def sample(arrays: Sequence[OnDisk | int | None]) -> list[np.ndarray]:
    """Read 64 pixels of each."""
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
