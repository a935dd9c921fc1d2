"""What is known of one XPCS measurement after its correlation: curves, scattering, labels, and how it was taken.

Files of beamlines are read into an `XPCSResult` and written from one (`io`); fits, averages and reports take it from
there. What a file does not have is `None`: real files leave out two-time matrices, scattering or the partition.
"""

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from ..core import Module, Scalar
from ._correlators.correlate import Correlated
from ._geometry import TransmissionGeometry, cached_map
from ._global import Curves
from ._partition import Labels
from ._qmap_file import QMap
from ._saxs import mean_by_bin, saxs


class Scattering(Module):
    """Scattered intensity by static bin.

    - `q`, `phi`: of each bin, shape (s,), in 1/Å and degrees; phi is `None` where bins are rings.
    - `mean`: over all frames, shape (s,). `segments`: the same of successive parts of the measurement, shape (k, s).
    """

    q: Float[Array, " s"]
    mean: Float[Array, " s"]
    phi: Float[Array, " s"] | None = None
    segments: Float[Array, "k s"] | None = None


class Pixels(Module):
    """What is known of each pixel.

    - `labels`: dynamic bin, 0 where masked, counted from 1 in the order of the curves. `static_labels`: static bin.
    - `used`: the mask. `mean`: intensity over all frames.
    """

    labels: Int[Array, "v h"] | None = None
    static_labels: Int[Array, "v h"] | None = None
    used: Bool[Array, "v h"] | None = None
    mean: Float[Array, "v h"] | None = None


class TwoTimeMaps(Module):
    """Two-time correlation matrices of some q-bins.

    - `bins`: the dynamic bins, counted from 1, shape (k,). `maps`: C(t1, t2), symmetric, shape (k, T, T).
    - `frame_time`: between two rows, in s.
    """

    bins: Int[Array, " k"]
    maps: Float[Array, "k T T"]
    frame_time: Scalar


class XPCSResult(Module):
    """A correlated measurement.

    - `curves`: g2 with errors over delays in s and q-bins; points that are no measurement, exact zeros among them, are
      masked.
    - `phi`: of each q-bin in degrees; `None` where bins are rings.
    - `scattering`, `pixels`, `two_time`, `geometry`: `None` where the file has none.
    - `intensity`: mean over the detector against time, shape (2, m): seconds, intensity.
    - `frame_time`: between two frames, in s. `average`, `stride`: frames that were averaged and stepped over before
      the correlation, so that a delay of 1 is frame_time x average x stride.
    - `name`: of the measurement.
    """

    curves: Curves
    frame_time: Scalar
    average: int = eqx.field(static=True, default=1)
    stride: int = eqx.field(static=True, default=1)
    name: str = eqx.field(static=True, default="")
    phi: Float[Array, " q"] | None = None
    scattering: Scattering | None = None
    pixels: Pixels = Pixels()
    intensity: Float[Array, "2 m"] | None = None
    two_time: TwoTimeMaps | None = None
    geometry: TransmissionGeometry | None = None

    @property
    def step(self) -> Scalar:
        """The time, in s, that a delay of 1 stands for."""
        return self.frame_time * self.average * self.stride


def result_of(found: Correlated, detector: QMap, frame_time: float | int, name: str = "") -> XPCSResult:
    """Make a result of what was correlated, with all that a result file holds.

    **Arguments:** `found`: of `correlate`; `detector`: the q map that it was correlated over; `frame_time`: between two
    frames, in s; `name`: of the measurement.

    **Returns:** an `XPCSResult`; lags without a pair, or without an error, are masked. q is the mean over the pixels of
    each bin where the geometry is known, and the middle of its edges else; of scattering the mean over all static bins
    between the same edges of q. Its curves have a covariance where a q-bin has as many static bins as there are
    lags, or more; of bins with fewer it is diagonal.
    """
    bins, static = detector.partition.dynamic, detector.partition.static
    good = jnp.isfinite(found.g2) & jnp.isfinite(found.error) & (found.error > 0)
    delays = found.lag.astype(float) * float(frame_time)
    curves = Curves(delays, found.g2, found.error, good, _mean_q(detector, bins), _covariance(found, good))
    rings = static.names[1:2] != ("phi",) or static.shape[1] == 1
    scattering = Scattering(
        _mean_q(detector, static, rings=True), saxs(found.image, static).intensity, None if rings else static.of_bins(1)
    )
    seconds = jnp.arange(found.intensity.shape[0], dtype=float) * float(frame_time)
    geometry = detector.geometry
    return XPCSResult(
        curves=curves,
        frame_time=jnp.asarray(float(frame_time)),
        name=name,
        phi=bins.of_bins(1) if bins.names[1:2] == ("phi",) and bins.shape[1] > 1 else None,
        scattering=scattering,
        pixels=Pixels(bins.labels, static.labels, detector.mask, found.image),
        intensity=jnp.stack([seconds, found.intensity.astype(seconds.dtype)]),
        two_time=_maps(found, frame_time),
        geometry=geometry if isinstance(geometry, TransmissionGeometry) else None,
    )


def _mean_q(detector: QMap, labels: Labels, rings: bool = False) -> Float[Array, " b"]:
    """q of each bin as the mean over its pixels, or over those of all bins between the same edges of q.

    The middle of wide bins, or of those that reach into the corners of a detector, is percents off, and with it the
    slope of what is fitted over q. Bins of a component of q keep that component, without its sign.
    """
    if detector.geometry is None:
        return labels.of_bins(0)
    first = labels.names[0]
    name = first if first.startswith("q") and first in detector.geometry.names else "q"
    values = cached_map(detector.geometry, name)
    means = jnp.abs(jnp.where(labels.counts > 0, mean_by_bin(values, labels), labels.of_bins(0)))
    if not rings:
        return means
    ring = labels.index // labels.shape[1]
    pixels = labels.counts.astype(means.dtype)
    total, pixels = (jnp.zeros(labels.shape[0], means.dtype).at[ring].add(x) for x in (means * pixels, pixels))
    return jnp.where(pixels > 0, total / jnp.maximum(pixels, 1), labels.values[0])[ring]


def _covariance(found: Correlated, good: Bool[Array, "n q"]) -> Float[Array, "q n n"] | None:
    """The covariance of the lags of each q-bin; of one with fewer static bins than lags its diagonal alone.

    A covariance of fewer samples than lags is mostly that anyway. `None` where no bin has enough of them.
    """
    if found.error_from != "static":
        return None
    known = found.covariance()
    enough = known.samples >= good.shape[0]
    if not bool(jnp.any(enough)):
        return None
    eye = jnp.eye(good.shape[0], dtype=known.covariance.dtype)
    both = good.T[:, :, None] & good.T[:, None, :] & (enough[:, None, None] | (eye > 0)[None])
    return jnp.where(both, known.covariance, jnp.where(good.T[:, :, None], 0, eye[None]))


def _maps(found: Correlated, frame_time: float | int) -> TwoTimeMaps | None:
    """The two-time maps without the photons that are paired with themselves."""
    if not found.two_time:
        return None
    bins = sorted(found.two_time)
    maps = jnp.stack([found.two_time[k].corrected().C for k in bins])
    return TwoTimeMaps(jnp.asarray(bins, jnp.int32), maps, jnp.asarray(float(frame_time)))
