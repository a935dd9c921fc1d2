"""The sums of a multi-tau correlation, by pixel or by static bin, and the three ways to make g2 of them.

A correlator gives raw sums; a g2 is a choice of what is averaged before products are divided by means. Kept by static
bin the sums are small, exact under every choice, and say how much g2 varies. The dense and the event correlator both
end here, `correlate` keeps what it found in this form, and `covariance` makes errors of it.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Integer, Num

from ...core import AnyArray, Module, place_of

NORMALISE = ("static", "pooled", "pixel")
"""What is averaged before the division: the pixels of a static bin, those of a dynamic bin, or none."""


def no_count(frames: AnyArray) -> AnyArray | None:
    """Where a detector of counts has put the mark of a dead pixel; `None` for types that have none.

    Marks are numbers below zero, such as -1, and the largest number of unsigned types of 16 bits or more, 2^32 - 1 and
    2^16 - 1. That of 8 bits, 255, is a count.
    """
    dtype = np.dtype(frames.dtype)
    if dtype.kind == "i":
        return frames < 0
    if dtype.kind == "u" and dtype.itemsize > 1:
        return frames == np.iinfo(dtype).max
    return None


def counted(frames: Num[Array, "*n"], dtype: jnp.dtype) -> Float[Array, "*n"]:
    """Frames as real numbers, nan where a detector has marked a dead pixel."""
    dead, real = no_count(frames), frames.astype(dtype)
    return real if dead is None else jnp.where(dead, jnp.nan, real)


def check_dtype(dtype: str | None) -> None:
    """Raise `ValueError` for a type in which no sums are kept."""
    if dtype not in (None, "float32", "float64"):
        raise ValueError(f"dtype should be 'float32', 'float64' or None, for the default of JAX, but it is {dtype!r}")


class Schedule(NamedTuple):
    """The lags of a multi-tau scheme, in frames, and the level of each: known before any frame, so host numbers."""

    lag: np.ndarray
    level: np.ndarray


def schedule(frames: int, per_level: int) -> Schedule:
    """All lags that have a pair within so many frames: k 2^l, k from 1 (level 0) or m + 1 to 2m."""
    lag, level = [], []
    for at in range(frames.bit_length()):
        steps = range(1 if at == 0 else per_level + 1, min(2 * per_level, frames // 2**at - 1) + 1)
        lag += [k * 2**at for k in steps]
        level += [at] * len(steps)
    return Schedule(np.array(lag, np.int32), np.array(level, np.int32))


class Counts(Module):
    """What the sums of a lag go over.

    - `lag`: in frames. `level`: where it was taken; its level frames are means of 2^level frames.
    - `pairs`: how many pairs of level frames. `weight`: the same, each counted with the part of its frames that was
      there; equal to `pairs` where no frame is missing. A mean is a sum divided by `weight`.
    """

    lag: Int[Array, " lags"]
    level: Int[Array, " lags"]
    pairs: Int[Array, " lags"]
    weight: Float[Array, " lags"]


class PixelSums(Module):
    """Raw sums of every pixel.

    - `counts`: the lags, and over how many pairs the sums go.
    - `G`: sums of I(t) I(t + lag). `past`, `future`: sums of I(t), of I(t + lag), over the same pairs.
    """

    counts: Counts
    G: Float[Array, "lags p"]
    past: Float[Array, "lags p"]
    future: Float[Array, "lags p"]

    def g2(self) -> Float[Array, "lags p"]:
        """G weight / (past future) of each pixel; nan where it saw nothing."""
        return _ratio(self.G, self.past, self.future, self.counts.weight[:, None])

    def bin(self, static: Integer[Array, " p"], dynamic: Integer[Array, " s"]) -> "BinSums":
        """Sum over the pixels of static bins.

        **Arguments:** `static`: of each pixel the bin, from 1; 0 for none. `dynamic`: of each static bin the dynamic
        one, from 1.
        """
        rows, pixels, left_out = bin_rows(self, static, dynamic.shape[0])
        return BinSums.of(self.counts, rows, pixels, dynamic, left_out)


def bin_rows(
    sums: PixelSums, static: Integer[Array, " p"], bins: int
) -> tuple[Float[Array, "6 lags s"], Int[Array, " s"], Int[Array, ""]]:
    """The six sums of `BinSums`, how many pixels went into each static bin, and how many were left out."""
    finite = jnp.isfinite(sums.G + sums.past + sums.future)
    alive = jnp.all(finite | (sums.counts.weight <= 0)[:, None], axis=0)
    label = jnp.where(alive, static, 0)
    ratio = sums.g2()
    seen = jnp.isfinite(ratio)
    ratio = jnp.where(seen, ratio, 0)
    six = jnp.stack([sums.G, sums.past, sums.future, ratio, ratio**2, seen.astype(ratio.dtype)])
    rows = jnp.where(alive[None], six.reshape(-1, six.shape[2]), 0).T
    binned = jax.ops.segment_sum(rows, label, bins + 1)[1:].T.reshape(6, -1, bins)
    count = jax.ops.segment_sum(jnp.ones(label.shape, jnp.int32), label, bins + 1)[1:]
    return binned, count, jnp.sum(~alive & (static > 0), dtype=jnp.int32)


class BinSums(Module):
    """Raw sums of every static bin.

    - `counts`: the lags, and over how many pairs the sums go.
    - `G`, `past`, `future`: sums over the pairs and the pixels of a static bin.
    - `ratio`, `ratio_squared`, `ratio_pixels`: sums over pixels of their own g2, of its square, and how many have one.
    - `pixels`: by static bin how many were used. `dynamic`: the dynamic bin that it is a part of, from 1.
    - `left_out`: pixels that were not finite at some time, and are in no sum.
    """

    counts: Counts
    G: Float[Array, "lags s"]
    past: Float[Array, "lags s"]
    future: Float[Array, "lags s"]
    ratio: Float[Array, "lags s"]
    ratio_squared: Float[Array, "lags s"]
    ratio_pixels: Float[Array, "lags s"]
    pixels: Int[Array, " s"]
    dynamic: Integer[Array, " s"]
    left_out: Int[Array, ""]

    @classmethod
    def of(
        cls,
        counts: Counts,
        six: Float[Array, "6 lags s"],
        pixels: Int[Array, " s"],
        dynamic: Integer[Array, " s"],
        left_out: Int[Array, ""],
    ) -> "BinSums":
        """Take the six sums from one array, in which they can be added together."""
        return cls(counts, six[0], six[1], six[2], six[3], six[4], six[5], pixels, dynamic, left_out)

    @property
    def six(self) -> Float[Array, "6 lags s"]:
        """All sums below each other, as `of` takes them."""
        return jnp.stack([self.G, self.past, self.future, self.ratio, self.ratio_squared, self.ratio_pixels])

    def g2(self, num_bins: int, normalise: str = "static") -> Float[Array, "lags q"]:
        """g2 of the dynamic bins 1 to `num_bins`; nan where nothing was seen.

        **Arguments:** `normalise`: over pixels p of the dynamic bin, and its static bins s with n_s pixels,

        - `"pooled"`: <G> / (<past> <future>), means over all pixels;
        - `"static"`: the mean over s, weighted with n_s, of <G>_s / (<past>_s <future>_s), which takes out what the
          mean intensity varies across the bin; static bins that saw nothing are left out;
        - `"pixel"`: the mean over p of G / (past future); pixels that saw nothing are left out.
        """
        place_of(normalise, NORMALISE, "normalisation")
        return self.g2_of(self.members(num_bins), normalise)

    def members(self, num_bins: int) -> Float[Array, "q s"]:
        """1 where a static bin is in a dynamic one, from the first to the last of so many; 0 elsewhere."""
        number = jnp.arange(1, num_bins + 1, dtype=self.dynamic.dtype)
        return (self.dynamic[None] == number[:, None]).astype(self.G.dtype)

    def g2_of(self, member: Float[Array, "q s"], normalise: str) -> Float[Array, "lags q"]:
        """g2 of any groups of static bins: `member` says how often each counts in each group."""
        pixels = self.pixels.astype(self.G.dtype)
        if normalise == "pixel":
            return _quotient(self.ratio @ member.T, self.ratio_pixels @ member.T)
        if normalise == "static":
            ratio = _ratio(self.G, self.past, self.future, pixels[None] * self.counts.weight[:, None])
            seen = jnp.isfinite(ratio)
            weight = jnp.where(seen, pixels[None], 0)
            return _quotient((jnp.where(seen, ratio, 0) * weight) @ member.T, weight @ member.T)
        G, past, future = (x @ member.T for x in (self.G, self.past, self.future))
        return _ratio(G, past, future, self.counts.weight[:, None] * (member @ pixels)[None])

    def pixel_error(self, num_bins: int) -> Float[Array, "lags q"]:
        """The standard error of the mean over pixels of their own g2; nan with one pixel, or one pair of frames.

        With few pairs it is too small, three quarters of the truth at two: a pixel is divided by means over the same
        few frames, so that its g2 is drawn to 1. With one pair that g2 is 1 for every pixel, and says nothing.
        """
        member = self.members(num_bins)
        n, one, two = (x @ member.T for x in (self.ratio_pixels, self.ratio, self.ratio_squared))
        variance = jnp.maximum(_quotient(two, n) - _quotient(one, n) ** 2, 0)
        return jnp.where(self.counts.pairs[:, None] > 1, jnp.sqrt(_quotient(variance, n - 1)), jnp.nan)


def _quotient(a: Float[Array, "*n"], b: Float[Array, "*n"]) -> Float[Array, "*n"]:
    """a / b, and nan without a warning or a spoilt derivative where b is not positive."""
    return jnp.where(b > 0, a / jnp.where(b > 0, b, 1), jnp.nan)


def _ratio(
    G: Float[Array, "lags n"], past: Float[Array, "lags n"], future: Float[Array, "lags n"], n: Float[Array, "lags _"]
) -> Float[Array, "lags n"]:
    """n G / (past future), divided one after the other: their product would overflow float32 at 1e19 counts."""
    seen = (past > 0) & (future > 0) & (n > 0)
    mean = jnp.where(seen, past / jnp.where(n > 0, n, 1), 1)
    return jnp.where(seen, G / jnp.where(seen, future, 1) / mean, jnp.nan)
