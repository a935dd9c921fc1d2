"""Two-time correlation: how alike the frames of two times are, for samples that age while they are looked at.

C(t1, t2) is the product of two frames, averaged over the pixels of one bin and divided by both means. It is one large
matrix product, of which only half has to be computed because the answer is symmetric, exactly so here. `correlate`
collects the frames of the bins that are asked for; `TwoTimeMap` has what is read off the map: g2, slices of age.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int, Integer, Num

from ...core import Given, Module, as_array
from .sums import check_dtype, counted

_BLOCK = 512  # rows of the two-time map that are computed together: of these the half above the diagonal is wasted


class TwoTimeState(Module):
    """The frames so far of one bin of pixels, as they were given.

    - `frames`: all of the series, 0 for those that did not come. `present`: the frames that came and count.
    - `start`, `stop`: which frames of the series went in.
    """

    frames: Num[Array, "n p"]
    present: Bool[Array, " n"]
    start: Int[Array, ""]
    stop: Int[Array, ""]


class DiagonalG2(Module):
    """g2 read off the diagonals of a two-time map.

    - `lag`: in frames, from 0, where photons are paired with themselves. `pairs`: finite entries of each diagonal.
    - `g2`: their mean. `error`: their standard deviation / sqrt(pairs); nan with one pair.

    Entries of a diagonal share frames, so that `error` is too small where the signal lives longer than the lag.
    """

    lag: Int[Array, " k"]
    g2: Float[Array, "*slices k"]
    error: Float[Array, "*slices k"]
    pairs: Int[Array, "*slices k"]


class TwoTime(Module):
    """A two-time correlator of the pixels of one bin; for many bins use `jax.vmap` over padded pixels.

    **Arguments:**

    - `frames`: how many the series has.
    - `dtype`: of the map, "float32" or "float64"; `None` for the default of JAX.

    The state keeps the frames in the type in which they come, a byte for each pixel of a detector that counts.
    """

    frames: int = eqx.field(static=True)
    dtype: str | None = eqx.field(static=True, default=None)

    def __check_init__(self) -> None:
        if self.frames < 2:
            raise ValueError(f"TwoTime.frames is {self.frames}: a lag needs two frames at least")
        check_dtype(self.dtype)

    @property
    def real(self) -> jnp.dtype:
        """The type of the map."""
        return jnp.zeros((), self.dtype or float).dtype

    def bytes(self, num_pixels: int, itemsize: int) -> int:
        """What frames and map take in memory, in bytes, for pixels of `itemsize` bytes."""
        return self.frames * num_pixels * (itemsize + self.real.itemsize) + 3 * self.frames**2 * self.real.itemsize

    def init(self, num_pixels: int, dtype: str | jnp.dtype = "uint8", start: int = 0) -> TwoTimeState:
        """The state before the first frame.

        **Arguments:** `num_pixels` of a frame and their `dtype`; `start`: the number of the first frame to come.
        """
        begin = jnp.asarray(start, jnp.int32)
        return TwoTimeState(jnp.zeros((self.frames, num_pixels), dtype), jnp.zeros(self.frames, bool), begin, begin)

    def update(
        self, state: TwoTimeState, frames: Num[Array, "b p"], present: Bool[Array, " b"] | None = None
    ) -> TwoTimeState:
        """The state after the next frames of the series; `present`: which of them count, `None` for all.

        **Raises:** an error where the series is longer than `TwoTime.frames`.
        """
        there = jnp.ones(frames.shape[0], bool) if present is None else present
        stop = state.stop + frames.shape[0]
        stop = eqx.error_if(
            stop, stop > self.frames, f"more frames than TwoTime(frames={self.frames}) is made for: give their number"
        )
        kept = lax.dynamic_update_slice_in_dim(state.frames, frames.astype(state.frames.dtype), state.stop, 0)
        known = lax.dynamic_update_slice_in_dim(state.present, there, state.stop, 0)
        return TwoTimeState(kept, known, state.start, stop)

    def merge(self, before: TwoTimeState, after: TwoTimeState) -> TwoTimeState:
        """The state of a stretch of the series and one that comes after it; what lies between them is missing.

        **Raises:** an error where the second starts before the first stops.
        """
        here = eqx.error_if(
            after.start, after.start < before.stop, "merge: the second state starts before the first one stops"
        )
        late = jnp.arange(self.frames, dtype=jnp.int32) >= here
        frames = jnp.where(late[:, None], after.frames, before.frames)
        present = jnp.where(late, after.present, before.present)
        return TwoTimeState(frames, present, before.start, after.stop)

    def finalize(
        self,
        state: TwoTimeState,
        mask: Bool[Array, " p"] | None = None,
        static: Integer[Array, " p"] | None = None,
        num_static: int = 1,
    ) -> "TwoTimeMap":
        """The map of all frames so far.

        **Arguments:** `mask`: True for the pixels that are used. `static`: of each pixel a static bin from 1 to
        `num_static`; the pixels are then divided by the mean of theirs in the same frame, in place of that of all.

        Rows and columns of frames that are missing, dark or nowhere finite are nan; a pixel that is not finite in one
        of the other frames is left out of all of them. Neither changes anything else.
        """
        x, there, used = _cleaned(counted(state.frames, self.real), state.present, mask)
        count = jnp.sum(used, dtype=x.dtype)
        mean = jnp.where(there, jnp.sum(x, axis=1) / count, jnp.nan)
        there &= mean > 0
        if static is None:
            scaled = x / jnp.where(there, mean, 1)[:, None]
        else:
            scaled = _by_static_mean(x, jnp.where(used, static, 0), num_static)
            count = jnp.sum(used & (static > 0), dtype=x.dtype)
        gram = _gram(scaled) / count
        both = there[:, None] & there[None]
        return TwoTimeMap(jnp.where(both, gram, jnp.nan), mean, count.astype(jnp.int32))

    def windows(self, state: TwoTimeState, length: int, mask: Bool[Array, " p"] | None = None) -> "TwoTimeMap":
        """The maps of consecutive windows of so many frames, with a leading axis; frames left at the end are not used.

        Work and memory grow with the length of a window where those of one map grow with the square of the series.
        """
        if not 1 < length <= self.frames:
            raise ValueError(f"windows of {length} frames in a series of {self.frames}: give 2 or more, and no more")
        number = self.frames // length
        part = TwoTime(length, self.dtype)

        def one(x: tuple[Array, Array]) -> TwoTimeMap:
            return part.finalize(TwoTimeState(*x, state.start, state.stop), mask)

        frames = state.frames[: number * length].reshape(number, length, -1)
        return lax.map(one, (frames, state.present[: number * length].reshape(number, length)))


class TwoTimeMap(Module):
    """A two-time map; of several windows or bins with leading axes, over which its methods are mapped by `jax.vmap`.

    - `C`: C(t1, t2), exactly symmetric; nan in the rows and columns of frames that are missing.
    - `mean`: by frame the mean over the pixels. `pixels`: how many there are.
    """

    C: Float[Array, "*w n n"]
    mean: Float[Array, "*w n"]
    pixels: Int[Array, "*w"]

    @property
    def poisson_excess(self) -> Float[Array, "*w n"]:
        """What photons that are paired with themselves add to the diagonal: 1 / mean, for counts of photons."""
        return 1 / jnp.where(self.mean > 0, self.mean, jnp.nan)

    def corrected(self) -> "TwoTimeMap":
        """The map with each entry of the diagonal replaced by the mean of those on either side of it.

        Photons are paired with themselves on the diagonal, and a detector's charge is shared there; do this before any
        smoothing or decimation, which would carry that excess to the entries beside it.
        """
        side = jnp.diagonal(self.C, 1)
        beside = jnp.stack([jnp.append(side, jnp.nan), jnp.insert(side, 0, jnp.nan)])
        diagonal = jnp.where(jnp.isfinite(jnp.diagonal(self.C)), _mean(beside, 0), jnp.nan)
        n = self.C.shape[0]
        return TwoTimeMap(jnp.where(jnp.eye(n, dtype=bool), diagonal[:, None], self.C), self.mean, self.pixels)

    def smoothed(self, sigma: float | int) -> "TwoTimeMap":
        """The corrected map, averaged with a Gaussian of `sigma` frames in both times; entries that are nan stay so.

        Missing entries and the border have no weight: what is near them is the mean of what is there.
        """
        if not sigma > 0:
            raise ValueError(f"smoothed(sigma={sigma}): give a positive number of frames")
        C = self.corrected().C
        there = jnp.isfinite(C)
        width = max(int(4 * sigma + 0.5), 1)
        kernel = jnp.exp(-0.5 * (jnp.arange(-width, width + 1, dtype=C.dtype) / sigma) ** 2)
        total, weight = (_both_ways(x, kernel) for x in (jnp.where(there, C, 0), there.astype(C.dtype)))
        return TwoTimeMap(jnp.where(there, total / jnp.where(there, weight, 1), jnp.nan), self.mean, self.pixels)

    def decimated(self, factor: int) -> "TwoTimeMap":
        """The corrected map in squares of `factor` by `factor` entries: means of those that are finite."""
        n = self.C.shape[0] // factor
        if not n:
            raise ValueError(f"decimated({factor}): the map has {self.C.shape[0]} frames; give a smaller factor")
        squares = self.corrected().C[: n * factor, : n * factor].reshape(n, factor, n, factor)
        mean = _mean(self.mean[: n * factor].reshape(n, factor), 1)
        C = _mean(jnp.moveaxis(squares, 2, 1).reshape(n, n, -1), 2)
        return TwoTimeMap((C + C.T) / 2, mean, self.pixels)

    def g2(self) -> DiagonalG2:
        """g2 of each lag: the mean of the diagonal at that distance."""
        return _along(self._diagonals())

    def ages(self, edges: Given) -> DiagonalG2:
        """g2 of each lag in slices of age, (t1 + t2) / 2 in frames: from each edge to the next, which is left out.

        **Arguments:** `edges`: (slices + 1,), increasing. **Returns:** arrays of shape (slices, lags).
        """
        rows = self._diagonals()
        number = jnp.arange(rows.shape[0], dtype=rows.dtype)
        age = number[:, None] + number[None] / 2
        at = as_array(edges).astype(rows.dtype)

        def one(limits: tuple[Array, Array]) -> DiagonalG2:
            return _along(jnp.where((age >= limits[0]) & (age < limits[1]), rows, jnp.nan))

        found = lax.map(one, (at[:-1], at[1:]))
        return DiagonalG2(found.lag[0], found.g2, found.error, found.pairs)

    def _diagonals(self) -> Float[Array, "n k"]:
        """Entry (t, k) is C(t, t + k), nan beyond the end.

        Rows that are one longer than the stride of the map are its diagonals below each other: no gather is needed.
        """
        n = self.C.shape[0]
        wide = jnp.pad(self.C, ((0, 0), (0, n)), constant_values=jnp.nan).reshape(-1)
        return jnp.pad(wide, (0, n), constant_values=jnp.nan).reshape(n, 2 * n + 1)[:, :n]


def _along(rows: Float[Array, "n k"]) -> DiagonalG2:
    finite = jnp.isfinite(rows)
    pairs = jnp.sum(finite, axis=0, dtype=jnp.int32)
    mean = _mean(rows, 0)
    away = jnp.where(finite, rows - mean[None], 0)
    n = pairs.astype(rows.dtype)
    many = pairs > 1
    # in two places the unused branch of a where is kept from a division by zero, which would spoil its derivative
    variance = jnp.sum(away**2, axis=0) / jnp.where(many, (n - 1) * n, 1)
    error = jnp.where(many & (variance > 0), jnp.sqrt(jnp.where(variance > 0, variance, 1)), 0)
    return DiagonalG2(jnp.arange(rows.shape[1], dtype=jnp.int32), mean, jnp.where(many, error, jnp.nan), pairs)


def _mean(x: Float[Array, "..."], axis: int) -> Float[Array, "..."]:
    """The mean of the finite entries; nan where there is none."""
    finite = jnp.isfinite(x)
    n = jnp.sum(finite, axis=axis, dtype=x.dtype)
    return jnp.where(n > 0, jnp.sum(jnp.where(finite, x, 0), axis=axis) / jnp.maximum(n, 1), jnp.nan)


def _cleaned(
    x: Float[Array, "n p"], present: Bool[Array, " n"], mask: Bool[Array, " p"] | None
) -> tuple[Float[Array, "n p"], Bool[Array, " n"], Bool[Array, " p"]]:
    """Frames with 0 for all that does not count; the frames and the pixels that do."""
    used = jnp.ones(x.shape[1], bool) if mask is None else mask
    finite = jnp.isfinite(x)
    there = present & jnp.any(finite & used[None], axis=1)
    used &= jnp.all(finite | ~there[:, None], axis=0)
    return jnp.where(there[:, None] & used[None], x, 0), there, used


def _by_static_mean(x: Float[Array, "n p"], static: Integer[Array, " p"], num_static: int) -> Float[Array, "n p"]:
    """Each pixel divided by the mean of its static bin in its frame; 0 where that is dark, or in no bin."""
    member = (static[:, None] == jnp.arange(1, num_static + 1, dtype=static.dtype)[None]).astype(x.dtype)
    mean = x @ member / jnp.maximum(jnp.sum(member, axis=0), 1)[None]
    by_pixel = mean @ member.T
    return jnp.where(by_pixel > 0, x / jnp.where(by_pixel > 0, by_pixel, 1), 0)


def _gram(x: Float[Array, "n p"]) -> Float[Array, "n n"]:
    """x x^T, exactly symmetric: rows of blocks up to the diagonal, mirrored, are little more than half of the work."""
    n = x.shape[0]
    out = jnp.zeros((n, n), x.dtype)
    for start in range(0, n, _BLOCK):
        stop = min(start + _BLOCK, n)
        rows = jnp.matmul(x[start:stop], x[:stop].T, precision="highest")
        out = lax.dynamic_update_slice(out, rows, (start, 0))
    return jnp.where(jnp.tri(n, dtype=bool), out, out.T)


def _both_ways(x: Float[Array, "n n"], kernel: Float[Array, " w"]) -> Float[Array, "n n"]:
    """Convolved along both axes; the mean with its transpose is symmetric to the bit."""
    n, width = x.shape[0], kernel.shape[0] // 2
    along = jax.vmap(lambda row: jnp.convolve(row, kernel)[width : width + n])
    out = along(along(x).T)
    return (out + out.T) / 2
