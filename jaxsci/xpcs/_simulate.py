"""Frames of a sample whose g2 is known exactly: speckle that decays by an Ornstein-Uhlenbeck process, in photons.

The field of each pixel is a sum of complex modes that forget themselves at a given rate, so that g2 is
1 + beta exp(-2 rate lag) without any approximation, and C(t1, t2) follows a clock where the sample ages. Tests and the
pages of the documentation are measured against it; who plans an experiment learns from it what errors to expect.
"""

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Integer, PRNGKeyArray

from ..core import Given, Module, Scalar, as_float


class SimulatedFrames(Module):
    """A movie of speckle, one frame at each reading of a clock.

    **Arguments:**

    - `rate`: (p,), by pixel the rate Gamma of the field's decay, per unit of the clock: D q^2 of diffusion.
    - `mean`: (p,), by pixel the mean count of photons in a frame; a profile that varies within a bin, or 0 for a dark
      pixel, is a part of the truth.
    - `contrast`: beta, from 0 to 1.
    - `clock`: (n,), at each frame what the clock says; it does not go back. `jnp.arange(n) * dt` for a steady sample,
      slower and slower for one that ages.

    The intensity is mean (1 - c + c S), where S is the mean over M = floor(1 / beta) modes of |E|^2 and c^2 = beta M:
    c = 1, the gamma distribution of partially coherent light, where 1 / beta is a whole number.
    """

    rate: Float[Array, " p"]
    mean: Float[Array, " p"]
    contrast: Scalar
    clock: Float[Array, " n"]
    modes: int = eqx.field(static=True)

    def __init__(self, rate: Given, mean: Given, contrast: float | int, clock: Given) -> None:
        if not 0 < contrast <= 1:
            raise ValueError(f"SimulatedFrames: contrast={contrast} should be above 0 and not above 1")
        self.rate, self.clock = as_float(rate, "rate"), as_float(clock, "clock")
        light = as_float(mean, "mean")
        if self.rate.ndim != 1 or light.shape not in ((), self.rate.shape):
            raise ValueError(
                "SimulatedFrames: rate should have one number a pixel, and mean as many or one for all, but their "
                f"shapes are {self.rate.shape} and {light.shape}"
            )
        self.mean = jnp.broadcast_to(light, self.rate.shape)
        self.contrast, self.modes = as_float(contrast, "contrast"), int(1 / contrast + 1e-9)
        if not bool(jnp.all(jnp.diff(self.clock) >= 0)):
            raise ValueError("SimulatedFrames: the clock goes back; give times that do not decrease")

    @property
    def num_frames(self) -> int:
        """How many frames there are."""
        return self.clock.shape[0]

    def two_time(self) -> Float[Array, "n n p"]:
        """The exact C(t1, t2) of each pixel, without the photons that are paired with themselves on the diagonal."""
        went_by = jnp.abs(self.clock[:, None] - self.clock[None])
        return 1 + self.contrast * jnp.exp(-2 * went_by[..., None] * self.rate[None, None])

    def g2(self, elapsed: Float[Array, " k"]) -> Float[Array, "k p"]:
        """The exact g2 of each pixel after the clock went on by `elapsed`."""
        return 1 + self.contrast * jnp.exp(-2 * elapsed[:, None] * self.rate[None])

    def blocks(
        self, key: PRNGKeyArray, length: int = 64, photons: bool = True
    ) -> Iterator[Float[Array, "b p"] | Integer[Array, "b p"]]:
        """Frames in blocks of `length`, the last one shorter; the same frames whatever the length.

        **Arguments:** `key`: all randomness follows from it. `photons`: counts drawn by Poisson's law (uint16), or
        the intensity itself.
        """
        field, draws = self._start(key), jax.random.fold_in(key, 1)
        steps = jnp.diff(self.clock, prepend=self.clock[:1])
        for begin in range(0, self.num_frames, length):
            number = jnp.arange(begin, min(begin + length, self.num_frames), dtype=jnp.uint32)
            field, frames = _advance(self, field, draws, number, steps[begin : begin + length], photons)
            yield frames

    def frames(self, key: PRNGKeyArray, photons: bool = True) -> Float[Array, "n p"] | Integer[Array, "n p"]:
        """All frames, as of `blocks`."""
        return jnp.concatenate(list(self.blocks(key, 256, photons)))

    def _start(self, key: PRNGKeyArray) -> Float[Array, "modes two p"]:
        shape = (self.modes, 2, self.rate.shape[0])
        return jax.random.normal(jax.random.fold_in(key, 0), shape, self.rate.dtype) / 2**0.5


@eqx.filter_jit
def _advance(
    source: SimulatedFrames,
    field: Float[Array, "modes two p"],
    key: PRNGKeyArray,
    number: Integer[Array, " b"],
    steps: Float[Array, " b"],
    photons: bool,
) -> tuple[Float[Array, "modes two p"], Array]:
    """The field after some frames, and the frames: the random numbers of each are a function of its number alone."""
    share = jnp.sqrt(source.contrast * source.modes)

    def frame(field: Float[Array, "modes two p"], x: tuple[Array, Array]) -> tuple[Array, Array]:
        noise, count = jax.random.split(jax.random.fold_in(key, x[0]))
        kept = jnp.exp(-source.rate * x[1])
        fresh = jnp.sqrt(-jnp.expm1(-2 * source.rate * x[1]) / 2)
        field = kept[None, None] * field + fresh[None, None] * jax.random.normal(noise, field.shape, field.dtype)
        speckle = jnp.sum(field**2, axis=(0, 1)) / source.modes
        intensity = source.mean * (1 - share + share * speckle)
        if not photons:
            return field, intensity
        counts = jax.random.poisson(count, jnp.maximum(intensity, 0))
        return field, jnp.minimum(counts, np.iinfo(np.uint16).max).astype(jnp.uint16)

    return lax.scan(frame, field, (number, steps))


def write_frames(
    path: str | os.PathLike[str],
    blocks: Iterable[Array],
    shape: tuple[int, int],
    dataset: str = "entry/data/data",
    dtype: str = "uint8",
) -> int:
    """Write blocks of frames to a dataset of an HDF5 file, compressed, and return how many frames there were.

    The file is whole or absent: it is written aside and renamed.

    **Arguments:** `blocks`: each (frames, pixels), as `SimulatedFrames.blocks` gives them. `shape`: (rows, columns) of
    a frame. `dataset`: its path in the file. `dtype`: counts above its largest number are written as that.

    **Raises:** `ValueError` for frames of another size.
    """
    import h5py  # here, because most users of this room never write frames

    target = Path(path)
    aside = target.with_name(f"{target.name}.{os.getpid()}.tmp")
    try:
        with h5py.File(aside, "w") as file:
            chunk = (max(1, 65_536 // (shape[0] * shape[1])), *shape)
            data = file.create_dataset(
                dataset, (0, *shape), dtype, maxshape=(None, *shape), chunks=chunk, compression="gzip", shuffle=True
            )
            written = 0
            for block in blocks:
                if block.shape[1] != shape[0] * shape[1]:
                    raise ValueError(f"write_frames: frames of {block.shape[1]} pixels are not {shape[0]} x {shape[1]}")
                counts = np.minimum(np.asarray(block), np.iinfo(dtype).max).astype(dtype)
                data.resize(written + len(counts), 0)
                data[written:] = counts.reshape(-1, *shape)
                written += len(counts)
        aside.replace(target)
    finally:
        aside.unlink(missing_ok=True)
    return written
