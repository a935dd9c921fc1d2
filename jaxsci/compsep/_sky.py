"""The one checked door for maps: `Sky.of` reads, checks and masks them, with their noise.

Separations, linear combinations, forecasts, fits in harmonic space and blocks from disk all begin here, so that a wrong
shape, unit, NaN or mask is met once and told in the same words. What comes out is plain: data in double precision, the
roots of the inverse noise, and which pixels there are to use. Nothing below asks again.
"""

import os

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from ..core import Module, traced
from ..fitting import compiled
from ._fixed import FixedMaps
from ._given import Given, Values, at_hand, hidden, plain
from ._instrument import Channels, Frequencies, Instrument, channel_count, frequencies_of
from ._noise import UNSEEN, alike, enough, reaching, roots, side_by_side, weighted

STOKES = {1: "I", 2: "QU", 3: "IQU"}
"""Which Stokes parameters so many maps of a channel are."""


class Sky(Module):
    """Hold maps that were checked, with their noise: what every estimate of this room starts from.

    - `nu`: frequencies in GHz, or `Bands`. `data`: (f, s, pixel) in `units`, which may hold anything where no weight
      reaches. `root`: of each Stokes parameter R with R^T R = N^-1, (f, q), or (f, f, q) for correlated channels; q is
      1, or the pixels where the noise differs. It is 0 where fewer channels have weight than there are components.
    - `used`: (pixel,) True where there is anything to fit. `bad`: (pixel,) where there would be, but for values that
      are not finite.
    - `sets`: the Stokes parameters that have the same noise, which are fitted as columns of one system.
    """

    nu: Frequencies
    data: Values
    root: tuple[Values, ...]
    used: np.ndarray
    bad: np.ndarray
    sets: tuple[tuple[int, ...], ...] = eqx.field(static=True)
    units: str = eqx.field(static=True)

    @staticmethod
    def of(
        instrument: Channels,
        maps: Given,
        inv_n: Given | None = None,
        mask: Given | None = None,
        *,
        units: str = "uK_CMB",
        columns: int = 1,
        strict: bool = True,
    ) -> "Sky":
        """Read and check maps and their noise.

        **Arguments:**

        - `instrument`: an `Instrument`, or frequencies in GHz, or `Bands`.
        - `maps`: (f, s, pixel) for s = 1 (I), 2 (QU) or 3 (IQU), or (f, pixel). UNSEEN in a channel that has weight
          masks a pixel, and so does the mask of a masked array. Quantities of astropy are converted to `units`.
        - `inv_n`: inverse noise in 1/units^2, in any of the forms of `separate`; `None` takes the instrument's depths,
          for maps of a whole sphere.
        - `mask`: (pixel,), True = used. `units`: of the maps; "" where none is declared.
        - `columns`: of the mixing matrix; a Stokes parameter with fewer channels in a pixel is not used there.
        - `strict`: False lets pixels pass that are not finite where there is weight, and marks them in `bad`.

        **Raises:** `ValueError` for wrong shapes and units, complex numbers, noise that is no inverse covariance, and
        NaN where there is weight.
        """
        nu = frequencies_of(instrument)
        data = as_maps(maps, channel_count(nu), units)
        f, s, npix = data.shape
        root = depth_roots(instrument, s, npix, units) if inv_n is None else roots(inv_n, f, s, npix, units)
        sky = Sky.with_roots(nu, data, root, mask, units, columns)
        return sky.sound() if strict else sky

    @staticmethod
    def with_roots(
        nu: Frequencies, data: Values, root: list[Values], mask: Given | None, units: str, columns: int
    ) -> "Sky":
        """Find the pixels to use in maps that have been read, whose noise is known by its roots.

        **Raises:** `ValueError` for a mask of another shape or kind.
        """
        npix = data.shape[2]
        used = np.ones(npix, bool) if mask is None else np.asarray(plain(mask, "mask", fill=False))
        if used.shape != (npix,) or used.dtype != bool:
            raise ValueError(f"mask should be bool[{npix}] (True = used), but it is {used.dtype}{list(used.shape)}")
        some, bad = np.zeros(npix, bool), np.zeros(npix, bool)
        kept: list[Values] = []
        for stokes, one in enumerate(root):
            if traced(one):
                some[:] = True  # which pixels are used shapes the program, and cannot depend on its numbers
                kept.append(one)
                continue
            some |= np.asarray(enough(one, columns))
            kept.append(reaching(one, columns))
            if traced(data):
                continue
            values, weight = data[:, stokes], np.asarray(weighted(kept[-1]))
            # a file in single precision has UNSEEN rounded
            used = used & ~np.any((values <= 0.99 * UNSEEN) & weight, axis=0)
            bad |= used & np.any(~np.isfinite(values) & weight, axis=0)
        used = used & some
        bad &= used
        return Sky(nu, data, tuple(kept), used & ~bad, bad, alike(kept), units)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(channels, Stokes parameters, pixels)."""
        f, s, npix = self.data.shape
        return f, s, npix

    @property
    def by_pixel(self) -> bool:
        """True where the noise differs between pixels, so that every pixel is a system of its own."""
        return any(root.shape[-1] != 1 for root in self.root)

    def hiding(self, fixed: FixedMaps) -> "Sky":
        """Mask the pixels that the masks of fixed parameters hide."""
        masks = [mask for mask in map(hidden, fixed.values()) if mask is not None]
        if not masks:
            return self
        return self.within(~np.any(masks, axis=0))

    def within(self, seen: np.ndarray) -> "Sky":
        """Mask all pixels but these (pixel,)."""
        return Sky(self.nu, self.data, self.root, self.used & seen, self.bad & seen, self.sets, self.units)

    def spoilt_where(self, lost: np.ndarray) -> "Sky":
        """Mark the used pixels (pixel,) that cannot be fitted for another reason than their data."""
        bad = self.bad | (self.used & lost)
        return Sky(self.nu, self.data, self.root, self.used & ~bad, bad, self.sets, self.units)

    def joined(self, columns: int) -> "Sky":
        """This sky with all Stokes parameters of a channel as channels of one, as angles of polarisation mix them.

        The channels of one Stokes parameter come after those of the other; a pixel is used where each of them has as
        many with weight as there are `columns`.
        """
        f, s, npix = self.shape
        data = self.data.swapaxes(0, 1).reshape(s * f, 1, npix)
        seen = self.used
        for root in self.root:
            seen = seen if traced(root) else seen & np.asarray(enough(root, columns))
        return Sky.with_roots(self.nu, data, [side_by_side(self.root)], seen, self.units, s * columns)

    def sound(self) -> "Sky":
        """This sky, if it is finite wherever there is weight.

        **Raises:** `ValueError` naming the first pixel that is not.
        """
        if self.bad.any():
            raise ValueError(
                f"the maps are not finite in {self.bad.sum()} pixels (the first is {np.flatnonzero(self.bad)[0]}) "
                "where there is weight: set them to UNSEEN, mask them, or give them no weight"
            )
        return self

    def roots_of_sets(self) -> tuple[Values, ...]:
        """The root of the noise of each set."""
        return tuple(self.root[members[0]] for members in self.sets)

    def counts(self, columns: np.ndarray) -> np.ndarray:
        """(set, k): how many numbers a channel has in each of k cells, whose pixels are `columns` (m, k), or -1."""
        pixels = np.sum(columns >= 0, axis=0).astype(float)
        return np.array([len(members) for members in self.sets])[:, None] * pixels


def as_maps(maps: Given, f: int, units: str) -> Values:
    """Read maps as (f, s, pixel) in double precision.

    **Raises:** `ValueError` for another shape or unit, and for complex numbers.
    """
    if np.iscomplexobj(maps):
        raise ValueError("maps should be real: coefficients are for jaxsci.compsep.harmonic_comp_sep, which takes maps")
    if isinstance(maps, str | os.PathLike):
        raise ValueError(f"maps is the text {str(maps)!r}: read files by jaxsci.compsep.io.read_maps")
    data = at_hand(plain(maps, "maps", units, fill=UNSEEN))
    data = data.astype(float) if data.dtype != float else data
    data = data[:, None] if data.ndim == 2 else data
    if data.ndim != 3 or data.shape[0] != f or data.shape[1] not in STOKES:
        raise ValueError(
            f"maps should have shape (f, s, pixel) with f = {f} channels and s = 1 (I), 2 (QU) or 3 (IQU), "
            f"but they have shape {np.shape(maps)}"
        )
    return data


def depth_roots(instrument: Channels, s: int, npix: int, units: str) -> list[Values]:
    """The roots of the inverse noise that an instrument's depths mean for pixels of this size.

    **Raises:** `ValueError` without depths, and for pixels whose size is not known.
    """
    if not isinstance(instrument, Instrument):
        raise ValueError("give the inverse noise inv_n, or an Instrument with depths")
    if npix != 12 * round((npix / 12) ** 0.5) ** 2:
        raise ValueError(
            f"depths are noise for an area, and {npix} pixels make no whole sphere that tells theirs: give inv_n, "
            "or the whole sphere with a mask"
        )
    return [at_hand(root) for root in compiled(_depths, (instrument,), (s, npix, units))]


def _depths(instrument: Instrument, s: int, npix: int, units: str) -> list[Array]:
    sigma = instrument.sigma(npix, STOKES[s], units)
    return [jnp.where(jnp.isnan(column), 0, 1 / column)[:, None] for column in sigma.T]
