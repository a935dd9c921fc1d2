"""`correlate`: from frames, wherever they lie, and a partition to g2 with errors, and two-time maps, in one pass.

It decides what a user would have to know otherwise: whether photons are so few that lists of them are faster, how many
frames and pixels fit into memory at a time, and what to refuse before hours have gone by. What it decided is in the
result. A run that was stopped goes on from its checkpoint to the same bits.
"""

import contextlib
import os
from collections.abc import Callable, Iterator, Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.tree_util as jtu
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from ...core import AnyArray, Module, Tree, as_count, place_of, require_kind
from ...fitting import progress_bar
from ...parallel import Checkpoint, Placement, free_memory, together
from .._partition import Labels, Partition
from .covariance import G2Covariance, jackknife_static
from .frames import PLACE, GivenFrames, Source, opened_frames
from .passes import METHODS, Choices, Frames, Passed, Plan, read_through, two_time_map
from .sums import NORMALISE, BinSums, no_count
from .twotime import TwoTime, TwoTimeMap

ERRORS = ("auto", "static", "pixel")
_SPARSE = 1e-3  # photons a pixel and frame below which lists are faster: 3 us each, against 5 ns of a pixel
_BLOCKS = (256, 128, 64, 32, 16, 8)  # frames at a time: 256, so that the state is read less often than the counts
_ENOUGH = 8  # static bins of a dynamic one, below which a jackknife over them says little: its error is 27 % off
_LOOKED_AT = 16  # frames by which others are told from these
_GROUPS = 64  # times that frames are read at most, for some of the pixels each time


class Correlated(Module):
    """What was correlated.

    - `sums`: by static bin the raw sums, with lags, levels and pairs in `sums.counts`; other normalisations and
      covariances follow from them.
    - `g2`, `error`: (lags, q). `normalise`, `error_from`: how they were made.
    - `two_time`: by dynamic bin its map. `image`: (rows, columns), the mean of each pixel over the frames, nan where
      masked. `intensity`: (n,), the mean of each frame over the pixels. `present`: which frames count.
    - `method`: "dense" or "events". `occupancy`: the part of the pixels that saw something, in the frames that were
      looked at. `block`: frames at a time. `groups`: how often the frames were read, for a group of pixels each time.
    """

    sums: BinSums
    g2: Float[Array, "lags q"]
    error: Float[Array, "lags q"]
    two_time: dict[int, TwoTimeMap]
    image: Float[Array, "v h"]
    intensity: Float[Array, " n"]
    present: Bool[Array, " n"]
    occupancy: float
    method: str = eqx.field(static=True)
    normalise: str = eqx.field(static=True)
    error_from: str = eqx.field(static=True)
    block: int = eqx.field(static=True)
    groups: int = eqx.field(static=True)

    @property
    def lag(self) -> Int[Array, " lags"]:
        """In frames."""
        return self.sums.counts.lag

    def covariance(self, shrinkage: float | None = None) -> G2Covariance:
        """How the lags of each bin hang together, by a jackknife over its static bins: noise for a fit by `Dense`.

        **Arguments:** `shrinkage`: as of `jackknife_static`.
        """
        return jackknife_static(self.sums, self.g2.shape[1], self.normalise, shrinkage)


def correlate(
    frames: GivenFrames,
    partition: Partition | AnyArray,
    *,
    dataset: str = PLACE,
    num_frames: int | None = None,
    first: int = 0,
    last: int | None = None,
    frame_mask: AnyArray | None = None,
    normalise: str = "static",
    error: str = "auto",
    per_level: int = 4,
    two_time: Sequence[int] = (),
    method: str = "auto",
    dtype: str | None = None,
    block: int | None = None,
    tile: int = 2048,
    memory: float | int | None = None,
    mesh: jax.sharding.Mesh | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
    resume: bool = True,
    every: float | int = 60.0,
    progress: bool | Callable[[int, int], None] | None = None,
) -> Correlated:
    """Correlate frames over the bins of a partition.

    **Arguments:**

    - `frames`: an array (frames, rows, columns) or (frames, pixels), anything that slices to one, such as a data set
      of h5py; the path of an HDF5 file, or several that follow one another; or an iterable of blocks of frames. Marks
      of dead pixels in whole numbers, -1 (or any below zero), 2^16 - 1 and 2^32 - 1, are taken as not finite.
    - `partition`: a `Partition`, or labels (rows, columns) of dynamic bins, 0 where masked.
    - `dataset`: where the frames are in a file. `num_frames`: how many there are, for an iterable.
    - `first`, `last`: frames to begin with, and to stop before. `frame_mask`: True for those of them that count.
    - `normalise`: "static", "pooled" or "pixel"; see `BinSums.g2`.
    - `error`: "static" for a jackknife over static bins, "pixel" for the spread of the pixels' own g2; "auto" takes
      the first where each dynamic bin has eight static ones or more. The second is too small at lags with few pairs.
    - `per_level`: m of `MultiTau`. `two_time`: the dynamic bins of which two-time maps are wanted.
    - `method`: "dense", "events", or "auto" for that which is faster at the occupancy of the first frames.
    - `dtype`: of sums and maps, "float32" or "float64"; `None` for the default of JAX. `tile`: as of `MultiTau`.
    - `block`: frames at a time; `None` for what fits. `memory`: bytes to be used at most; `None`: half of what is free.
    - `mesh`: devices that have a group of the pixels each, such as `jaxsci.mesh()`; `None` for the default device. Sums
      are the same but for roundings. All of several processes read the frames.
    - `checkpoint`: a file that keeps the run, written each `every` seconds and where it stops; called again, the run
      goes on to the same bits, unless `resume` is False. Each of several processes has one.
    - `progress`: True for a bar with the time that is left, or a function of (frames done, frames in all).

    **Returns:** a `Correlated`.

    **Raises:** `ValueError` for frames that cannot be read, that do not fit the partition, need more memory, or give no
    g2 because they are dark.
    """
    for name, value, known in (
        ("normalisation", normalise, NORMALISE),
        ("method", method, METHODS),
        ("error", error, ERRORS),
    ):
        place_of(value, known, name)
    for name, count in (("block, the frames at a time,", block), ("tile", tile), ("per_level", per_level)):
        if count is not None:
            as_count(count, name)
    labels = partition if isinstance(partition, Partition) else _one_static(partition)
    with opened_frames(frames, dataset, num_frames, first, last) as source:
        choices = _chosen(source, labels, frame_mask, per_level, tile, dtype, two_time)
        share = _occupancy(source, choices)
        placement, kept = Placement.of(mesh), None
        # the first of several processes plans for all, by the memory that it has
        cut = placement.by_first(lambda: _planned(source, choices, method, share, block, memory).numbers)
        plan = Plan(METHODS[cut[0]], int(cut[1]), int(cut[2]))
        if checkpoint is not None:
            of_pixels = (choices.used, choices.static, choices.dynamic)
            settings = (*choices[:4], choices.present, sorted(choices.two_time), method, block, memory)
            devices = (len(placement.devices), *placement.dealing)
            belongs = {"frames": _mark(source), "partition": of_pixels, "settings": settings, "devices": devices}
            kept = Checkpoint(placement.file(checkpoint), belongs, resume, every=every, about=plan._asdict())
            # what was planned by the memory that was free when the run began
            plan = _agreed(Plan(**kept.about), placement, kept)
        work = list(_groups(choices, plan.groups * max(len(placement.devices), 1)))
        bar = contextlib.contextmanager(progress_bar)(progress, source.num_frames * plan.groups, "correlating")
        with bar as report, kept or contextlib.nullcontext():
            parts, maps = _passed(source, choices, work, plan, placement, kept, report)
    return _concluded(labels, choices, plan, share, parts, maps, normalise, error)


def _agreed(plan: Plan, placement: Placement, kept: Checkpoint) -> Plan:
    """The plan that the checkpoints of all processes have.

    **Raises:** `ValueError` where some of them were stopped before they had written one.
    """
    told = together(lambda: repr(plan).encode()) if placement.dealing else []
    if len(set(told)) > 1:
        raise ValueError(
            f"checkpoint: {kept.path} was begun with another plan than that of other processes, which were stopped "
            "before they wrote theirs; give resume=False to start over"
        )
    return plan


def _passed(
    source: Source,
    choices: Choices,
    work: list[Choices],
    plan: Plan,
    placement: Placement,
    kept: Checkpoint | None,
    report: Callable[[int], None],
) -> tuple[list[Passed], dict[int, TwoTimeMap]]:
    """What was found of each group of pixels, and the two-time maps, both dealt out to the processes."""
    devices, bins = max(len(placement.devices), 1), list(choices.two_time)
    own = placement.share(len(bins), 1).tolist() if bins else []
    frames: dict[int, Frames] = {}

    def read(mine: np.ndarray) -> Passed:
        found: list[Passed] = []
        for k in range(plan.groups):
            parts = [work[i] for i in mine if i // devices == k]
            # frames are collected in the first reading that there is
            wanted = {} if found else {bins[i]: choices.two_time[bins[i]] for i in own}
            if parts:
                new, more = read_through(source, parts, wanted, plan, placement, kept, f"reading {k}", report)
                found, _ = [*found, *new], frames.update(more)
            else:
                report(source.num_frames)
        size = len(work[0].used)
        padded = [part._replace(image=np.pad(part.image, (0, size - len(part.image)))) for part in found]
        return jtu.tree_map(lambda *x: np.stack(x), *padded)

    every = placement.in_shares(len(work), 1, read)
    each = [jtu.tree_map(lambda x, k=k: x[k], every) for k in range(len(work))]
    parts = [one._replace(image=one.image[: len(part.used)]) for one, part in zip(each, work, strict=True)]
    if not bins:
        return parts, {}

    def look(mine: np.ndarray) -> TwoTimeMap:
        return jtu.tree_map(lambda *x: np.stack(x), *(two_time_map(choices, frames[bins[i]]) for i in mine))

    maps = placement.in_shares(len(bins), 1, look)
    return parts, {k: jtu.tree_map(lambda x, i=i: jnp.asarray(x[i]), maps) for i, k in enumerate(bins)}


def _one_static(labels: AnyArray) -> Partition:
    """Dynamic bins that are their own static ones."""
    require_kind(labels, (np.ndarray, jax.Array), "partition", "a Partition, or a picture of labels (rows, columns)")
    one = Labels.of(labels)
    return Partition(one, one)


def _chosen(
    source: Source,
    labels: Partition,
    frame_mask: AnyArray | None,
    per_level: int,
    tile: int,
    dtype: str | None,
    two_time: Sequence[int],
) -> Choices:
    static, dynamic = (np.asarray(x).ravel() for x in (labels.static_labels, labels.labels))
    rows = labels.labels.shape
    if source.num_pixels != static.size or (len(source.shape) == 2 and source.shape != rows):
        have, want = (" x ".join(map(str, shape)) for shape in (source.shape, rows))
        turned = "; they are transposed: give frames of (rows, columns)" if source.shape == rows[::-1] else ""
        raise ValueError(f"frames of {have} pixels, but the partition has {want}{turned}")
    used = np.flatnonzero(static)
    if not used.size:
        raise ValueError("the partition uses no pixel: look at its mask and at the limits of its bins")
    present = np.ones(source.num_frames, bool) if frame_mask is None else np.asarray(frame_mask, bool)
    if present.shape != (source.num_frames,):
        raise ValueError(f"frame_mask has shape {present.shape}, but there are {source.num_frames} frames")
    bins = labels.dynamic.bins
    wrong = [k for k in two_time if not 1 <= k <= bins]
    if wrong:
        raise ValueError(f"two_time: there are no bins {wrong}, they are numbered from 1 to {bins}")
    maps = {int(k): np.flatnonzero(dynamic == k) for k in two_time}
    owner = np.asarray(labels.owner)
    return Choices(source.num_frames, per_level, tile, dtype, used, static[used], owner, present, maps)


def _occupancy(source: Source, choices: Choices) -> float:
    """The part of the pixels that saw something in the first frames; not known of blocks that come once."""
    if not source.again:
        return float("nan")
    seen = next(source.blocks(0, min(64, source.num_frames)))[:, choices.used]
    dead = no_count(seen)
    return float((np.count_nonzero(seen) - (0 if dead is None else np.count_nonzero(dead))) / seen.size)


def _planned(
    source: Source, choices: Choices, method: str, share: float, block: int | None, memory: float | int | None
) -> Plan:
    """The first plan that fits, from the fastest on."""
    whole = source.dtype.kind in "ui"
    if method == "auto":
        method = "events" if whole and share < _SPARSE else "dense"
    free = free_memory() / 2 if memory is None else memory
    item, pixels, mt = source.dtype.itemsize, source.num_pixels, choices.dense
    fixed = sum(TwoTime(choices.frames, choices.dtype).bytes(len(at), item) for at in choices.two_time.values())
    state = 2 * mt.state_bytes(len(choices.used))
    if method == "events" and source.again:
        state = int(64 * choices.frames * len(choices.used) * share)  # four lists, and what sorting them takes
    sizes = [block] if block else [size for size in _BLOCKS if size <= max(choices.frames, 8)]
    most = _GROUPS if source.again and method == "dense" else 1
    for size in sizes:
        reading = 3 * size * pixels * item + 2 * size * min(choices.tile, pixels) * mt.real.itemsize
        if fixed + reading < free:
            groups = max(1, -(-state // int(free - fixed - reading)))
            if groups <= most:
                return Plan(method, size, groups)
    raise ValueError(
        f"correlating {choices.frames} frames of {pixels} pixels ({len(choices.used)} used) takes {state / 1e9:.3g} GB "
        f"for the correlator, {fixed / 1e9:.3g} GB for two-time maps and {3 * sizes[-1] * pixels * item / 1e9:.3g} GB "
        f"for frames, but {free / 1e9:.3g} GB may be used: mask more pixels, ask for fewer two-time maps, "
        'give dtype="float32", a smaller block or more memory='
    )


def _mark(source: Source) -> Tree:
    """What tells these frames from others: how many, and some of them."""
    some = np.linspace(0, source.num_frames - 1, min(_LOOKED_AT, source.num_frames)).astype(int)
    sample = [np.asarray(next(source.blocks(int(k), 1))) for k in some] if source.again else []
    return sample, source.num_frames, str(source.dtype)


def _groups(choices: Choices, count: int) -> Iterator[Choices]:
    """The pixels in so many groups, or in fewer if there are few."""
    tiles = -(-len(choices.used) // choices.tile)
    size = -(-tiles // count) * choices.tile  # whole tiles: all groups but the last are of one size, and program
    for at in range(0, len(choices.used), size):
        mine = slice(at, at + size)
        yield choices._replace(used=choices.used[mine], static=choices.static[mine])


def _concluded(
    labels: Partition,
    choices: Choices,
    plan: Plan,
    share: float,
    parts: list[Passed],
    maps: dict[int, TwoTimeMap],
    normalise: str,
    error: str,
) -> Correlated:
    """Put the groups of pixels together, and make g2 and its errors of their sums."""
    sums, bins = jtu.tree_map(jnp.asarray, parts[0].sums), labels.dynamic.bins
    for part in parts[1:]:
        sums = _joined(sums, part.sums)
    counts = np.array([len(part.image) for part in parts])
    intensity = np.average([part.intensity for part in parts], axis=0, weights=counts)
    image = np.full(labels.labels.size, np.nan)
    image[choices.used] = np.concatenate([part.image for part in parts])
    if error == "auto":
        few = np.bincount(choices.dynamic, minlength=bins + 1)[1:] < _ENOUGH
        error = "pixel" if few.any() else "static"
    g2, errors = _g2(sums, bins, normalise, error)
    if not bool(jnp.any(jnp.isfinite(g2))):
        raise ValueError(_dark(choices, sums, image[choices.used]))
    shape = labels.labels.shape
    seen = jnp.asarray(image.reshape(shape), g2.dtype), jnp.asarray(intensity, g2.dtype), jnp.asarray(choices.present)
    return Correlated(sums, g2, errors, maps, *seen, share, plan.method, normalise, error, plan.block, plan.groups)


def _dark(choices: Choices, sums: BinSums, image: np.ndarray) -> str:
    """Why there is no g2, and what to look at."""
    pixels, out, frames = len(image), int(sums.left_out), int(choices.present.sum())
    if frames < 2:
        return f"no g2: {frames} frame is not enough, a lag needs two of them that count"
    if out == pixels:
        return f"no g2: all {pixels} pixels that are used are not finite, or marked as dead, in some frame: mask those"
    dark = np.nanmax(image) <= 0
    seen = "are dark in all of them" if dark else "have no pair of frames with photons in both"
    return f"no g2 from {frames} frames: {pixels - out} pixels {seen}: look at the data set, the mask and the frames"


@eqx.filter_jit
def _g2(sums: BinSums, bins: int, normalise: str, error: str) -> tuple[Float[Array, "lags q"], Float[Array, "lags q"]]:
    g2 = sums.g2(bins, normalise)
    spread = sums.pixel_error(bins) if error == "pixel" else jackknife_static(sums, bins, normalise).error.T
    return g2, spread


def _joined(a: BinSums, b: BinSums) -> BinSums:
    """The sums of two groups of pixels, over the same frames."""
    return BinSums.of(a.counts, a.six + b.six, a.pixels + b.pixels, a.dynamic, a.left_out + b.left_out)
