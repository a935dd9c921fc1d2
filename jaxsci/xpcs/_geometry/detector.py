"""Where each pixel of a detector lies in reciprocal space: maps of q, phi and the components of q.

Masks, partitions and SAXS curves are all asked of these maps. Every number of a geometry is a leaf that can be
differentiated, so that a centre or a distance can be fitted (`calibrate`) and its error carried on. One convention
holds throughout: rows count down and columns to the right as seen along the beam, q = 2 k0 sin(theta) with
k0 = 2 pi E / 12.39841984, and phi = -atan2(down, right), so that +90 degrees is up.
"""

import functools
from collections.abc import Sequence

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ...core import Given, Module, Scalar, as_count, as_float, param, place_of, require_x64, traced
from .rays import Ray, about_beam, arm, atan2, lag_of, root, squared, turn

HC = 12.39841984
"""Planck's constant times the speed of light in keV Angstrom."""

ANGLES = ("phi", "chi")
"""The maps that come round again after 360 degrees."""

# what no scattering experiment has, and a number in the other unit that is common does: name, least, most, units
_UNITS = (
    ("energy", 0.01, 1000.0, "keV", "eV"),
    ("distance", 20.0, np.inf, "mm", "m"),
    ("pixel_size", 1e-3, np.inf, "mm", "m"),
)

_COMMON = ("q", "phi", "two_theta", "qx", "qy", "qz", "x", "y")


class AbstractGeometry(Module):
    """A flat detector that stands somewhere behind a sample, and the maps that follow from it."""

    shape: eqx.AbstractVar[tuple[int, int]]
    energy: eqx.AbstractVar[Scalar]
    centre: eqx.AbstractVar[Float[Array, "2"]]
    distance: eqx.AbstractVar[Scalar]
    pixel_size: eqx.AbstractVar[Float[Array, "2"]]
    swing: eqx.AbstractVar[Float[Array, "2"]]
    roll: eqx.AbstractVar[Scalar]
    names: eqx.AbstractClassVar[tuple[str, ...]]

    @property
    def k0(self) -> Scalar:
        """The wave number of the beam, 2 pi / wavelength, in 1/Angstrom."""
        return 2 * jnp.pi * self.energy / HC

    @property
    def wavelength(self) -> Scalar:
        """The wavelength of the beam in Angstrom."""
        return HC / self.energy

    @property
    def beam(self) -> Float[Array, "2"]:
        """Where the direct beam meets the plane of the detector, as (row, column) in pixels."""
        axis = detector_axes(self)[2]
        return self.centre + self.distance * jnp.stack([axis[1], axis[0]]) / (axis[2] * self.pixel_size)

    def q(self) -> Float[Array, "v h"]:
        """Compute the length of the scattering vector, 2 k0 sin(theta), in 1/Angstrom.

        It is taken as k0 sqrt(2 r^2 / (L (L + d))), where a pixel lies r off the beam, d along it and L away: an
        arccos of d / L would lose half of the digits near the beam. At the beam itself its gradient is taken as zero.
        """
        return _q(self)

    def phi(self) -> Float[Array, "v h"]:
        """Compute the azimuth about the beam, -atan2(down, right), in degrees from -180 to 180; 0 at the beam."""
        return _phi(self)

    def two_theta(self) -> Float[Array, "v h"]:
        """Compute the angle between the scattered and the direct beam in degrees."""
        return _two_theta(self)

    @property
    def turned(self) -> Scalar:
        """By how much what is called "up" is turned about the beam, in degrees."""
        return jnp.zeros_like(self.energy)

    def x(self) -> Float[Array, "v h"]:
        """Give the column of each pixel."""
        return _pixels(self)[1]

    def y(self) -> Float[Array, "v h"]:
        """Give the row of each pixel."""
        return _pixels(self)[0]

    def map(self, name: str) -> Float[Array, "v h"]:
        """Compute one of the maps in `names`, by its name: `geometry.map("qx")` is `geometry.qx()`.

        **Raises:** `ValueError` for a name that this geometry has no map of.
        """
        place_of(name, self.names, f"map of a {type(self).__name__}")
        return getattr(self, name)()


class TransmissionGeometry(AbstractGeometry):
    """A detector that looks along the beam at a sample that the beam passes through.

    **Arguments:**

    - `energy`: of the photons, in keV.
    - `centre`: (row, column) of the point of the detector that is nearest to the sample, in pixels, where whole numbers
      are the centres of pixels. Without a swing it is where the direct beam arrives; with one, see `beam`.
    - `distance`: from the sample to that point, in mm.
    - `pixel_size`: in mm: one number, or (height, width).
    - `shape`: the number of rows and columns.
    - `swing`: angles (horizontal, vertical) in degrees by which the detector's arm is swung about the sample, the
      vertical one on top of the horizontal one: the detector's axis is (-sin h cos v, -sin v, cos h cos v), to the
      right, down and along the beam.
    - `roll`: the angle in degrees by which the detector is turned about its own axis.

    **Raises:** `RuntimeError` without double precision, which phi needs; `ValueError` for numbers that are no geometry,
    or must be in another unit: more than 1000 keV, a distance below 20 mm, pixels below 0.001 mm.
    """

    shape: tuple[int, int] = eqx.field(static=True)
    energy: Scalar = param(unit="keV", doc="photon energy")
    centre: Float[Array, "2"] = param(unit="pixel", doc="row and column of the point nearest to the sample")
    distance: Scalar = param(unit="mm", doc="from the sample to the detector")
    pixel_size: Float[Array, "2"] = param(unit="mm", doc="height and width of a pixel")
    swing: Float[Array, "2"] = param(unit="deg", doc="horizontal and vertical swing of the detector's arm")
    roll: Scalar = param(unit="deg", doc="turn of the detector about its own axis")
    names = _COMMON

    def __init__(
        self,
        energy: Given,
        centre: Given,
        distance: Given,
        pixel_size: Given,
        shape: Sequence[int],
        swing: Given = (0.0, 0.0),
        roll: Given = 0.0,
    ) -> None:
        self.energy, self.centre, self.distance = energy, centre, distance  # type: ignore[assignment]
        self.pixel_size = _pair(pixel_size)
        self.swing, self.roll, self.shape = swing, roll, _shape(shape)  # type: ignore[assignment]
        _check(self)

    def qx(self) -> Float[Array, "v h"]:
        """Compute the component of q to the right, in 1/Angstrom."""
        return _transmitted(self)[0]

    def qy(self) -> Float[Array, "v h"]:
        """Compute the component of q upwards, in 1/Angstrom."""
        return _transmitted(self)[1]

    def qz(self) -> Float[Array, "v h"]:
        """Compute the component of q along the beam, k0 (cos 2theta - 1), in 1/Angstrom."""
        return _transmitted(self)[2]


class ReflectionGeometry(AbstractGeometry):
    """A detector that looks at a surface which the beam meets at a grazing angle.

    Exit angles are exact: sin(alpha_f) is the direction of the scattered beam along the surface's normal. The older
    form atan(up / distance) - alpha_i leaves the horizontal angle out, and is several percent off at wide angles. With
    alpha_i = 0 the maps are those of transmission, with (qx, qy, qz) for (qz, qx, qy) there.

    **Arguments:** as of `TransmissionGeometry`, and

    - `alpha_i`: the angle between beam and surface, in degrees.
    - `orientation`: where the surface's normal points, in degrees about the beam: 0 up, 90 to the left, 180 down, 270
      to the right. phi is counted from the horizon, with +90 along the normal.
    """

    shape: tuple[int, int] = eqx.field(static=True)
    energy: Scalar = param(unit="keV", doc="photon energy")
    centre: Float[Array, "2"] = param(unit="pixel", doc="row and column of the point nearest to the sample")
    distance: Scalar = param(unit="mm", doc="from the sample to the detector")
    pixel_size: Float[Array, "2"] = param(unit="mm", doc="height and width of a pixel")
    alpha_i: Scalar = param(unit="deg", doc="angle between beam and surface")
    orientation: Scalar = param(unit="deg", doc="direction of the surface's normal about the beam")
    swing: Float[Array, "2"] = param(unit="deg", doc="horizontal and vertical swing of the detector's arm")
    roll: Scalar = param(unit="deg", doc="turn of the detector about its own axis")
    names = (*_COMMON, "qr", "alpha_f", "in_plane", "chi")

    def __init__(
        self,
        energy: Given,
        centre: Given,
        distance: Given,
        pixel_size: Given,
        shape: Sequence[int],
        alpha_i: Given,
        orientation: Given = 0.0,
        swing: Given = (0.0, 0.0),
        roll: Given = 0.0,
    ) -> None:
        self.energy, self.centre, self.distance = energy, centre, distance  # type: ignore[assignment]
        self.pixel_size = _pair(pixel_size)
        self.alpha_i, self.orientation = alpha_i, orientation  # type: ignore[assignment]
        self.swing, self.roll, self.shape = swing, roll, _shape(shape)  # type: ignore[assignment]
        _check(self)

    @property
    def turned(self) -> Scalar:
        """By how much the surface's normal is turned from "up" about the beam, in degrees."""
        return self.orientation

    def qx(self) -> Float[Array, "v h"]:
        """Compute the component of q in the surface, along the beam's shadow on it, in 1/Angstrom."""
        return _reflected(self)[0]

    def qy(self) -> Float[Array, "v h"]:
        """Compute the component of q in the surface, across the beam, in 1/Angstrom."""
        return _reflected(self)[1]

    def qz(self) -> Float[Array, "v h"]:
        """Compute the component of q along the surface's normal, k0 (sin alpha_i + sin alpha_f), in 1/Angstrom."""
        return _reflected(self)[2]

    def qr(self) -> Float[Array, "v h"]:
        """Compute the length of q within the surface, in 1/Angstrom."""
        return _in_surface(self)

    def alpha_f(self) -> Float[Array, "v h"]:
        """Compute the angle between the scattered beam and the surface in degrees."""
        return _exit_angles(self)[0]

    def in_plane(self) -> Float[Array, "v h"]:
        """Compute the angle between the shadows of both beams on the surface in degrees."""
        return _exit_angles(self)[1]

    def chi(self) -> Float[Array, "v h"]:
        """Compute the angle between q and the surface's normal in degrees: the sign is that of qy; 0 at the beam."""
        return _chi(self)


def detector_axes(geometry: AbstractGeometry) -> Float[Array, "3 3"]:
    """Give the rotation from the detector's own axes (right, down, away) to those of the beam.

    It is a roll about the detector's axis, then the vertical and then the horizontal swing.
    """
    return arm(geometry.swing, geometry.roll)


def rays(geometry: AbstractGeometry) -> Ray:
    """Find where the pixels lie, seen from the sample; "down" is against the surface's normal where there is one."""
    return rays_at(geometry, *_pixels(geometry))


def rays_at(geometry: AbstractGeometry, row: Float[Array, "*n"], column: Float[Array, "*n"]) -> Ray:
    """Find where points of the detector lie, seen from the sample, as `rays` does; also between and beyond pixels."""
    axes = about_beam(geometry.turned) @ detector_axes(geometry)
    (height, width), (v, h) = geometry.pixel_size, geometry.centre
    return turn(axes, (column - h) * width, (row - v) * height, geometry.distance)


def q_at(geometry: AbstractGeometry, row: Float[Array, "*n"], column: Float[Array, "*n"]) -> Float[Array, "*n"]:
    """Compute q in 1/Angstrom at points of the detector, given in pixels."""
    return geometry.k0 * root(2 * lag_of(rays_at(geometry, row, column)))


def q_by_sine(geometry: AbstractGeometry) -> Float[Array, "v h"]:
    """Compute q = k0 sin(2 theta), the small-angle form of older programs, for comparison with their files.

    It is smaller than `geometry.q()` by the factor cos(theta).
    """
    return _q_by_sine(geometry)


def cached_map(geometry: AbstractGeometry, name: str) -> Float[Array, "v h"]:
    """Compute a map by its name, or give it again if a geometry of the same content has been asked for it before.

    **Raises:** `ValueError` for an unknown name.
    """
    return geometry.map(name) if traced(geometry) else _kept(_Content(geometry), name)


class _Content:
    """A geometry that is equal to another one of the same kind, shape and numbers."""

    def __init__(self, geometry: AbstractGeometry) -> None:
        fields = sorted(k for k in vars(geometry) if k != "shape")
        self.geometry = geometry
        self.key = (type(geometry), geometry.shape, *(np.asarray(getattr(geometry, k)).tobytes() for k in fields))

    def __hash__(self) -> int:
        return hash(self.key)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Content) and self.key == other.key


@functools.lru_cache(maxsize=16)  # maps of 2k x 2k take 32 MB each
def _kept(content: _Content, name: str) -> Float[Array, "v h"]:
    return content.geometry.map(name)


def _pixels(geometry: AbstractGeometry) -> tuple[Float[Array, "v h"], Float[Array, "v h"]]:
    dtype = geometry.centre.dtype
    rows, columns = (jnp.arange(n, dtype=dtype) for n in geometry.shape)
    return jnp.broadcast_to(rows[:, None], geometry.shape), jnp.broadcast_to(columns[None], geometry.shape)


@eqx.filter_jit
def _q(geometry: AbstractGeometry) -> Float[Array, "v h"]:
    return q_at(geometry, *_pixels(geometry))


@eqx.filter_jit
def _q_by_sine(geometry: AbstractGeometry) -> Float[Array, "v h"]:
    ray = rays(geometry)
    return geometry.k0 * root(squared(ray)) / ray.length


@eqx.filter_jit
def _phi(geometry: AbstractGeometry) -> Float[Array, "v h"]:
    ray = rays(geometry)
    return -atan2(ray.down, ray.right)


@eqx.filter_jit
def _two_theta(geometry: AbstractGeometry) -> Float[Array, "v h"]:
    ray = rays(geometry)
    return atan2(root(squared(ray)), ray.along)


@eqx.filter_jit
def _transmitted(geometry: AbstractGeometry) -> tuple[Array, Array, Array]:
    ray = rays(geometry)
    return geometry.k0 * ray.right / ray.length, -geometry.k0 * ray.down / ray.length, -geometry.k0 * lag_of(ray)


@eqx.filter_jit
def _reflected(geometry: ReflectionGeometry) -> tuple[Array, Array, Array]:
    """The components in the surface along and across the beam, and along the normal.

    The ray along the normal is sin(alpha_f) = (up cos ai - along sin ai) / L; with 1 - along / L in its stable form
    nothing cancels near the beam.
    """
    ray, k0, (ca, sa) = rays(geometry), geometry.k0, _incident(geometry)
    up, lag = -ray.down / ray.length, lag_of(ray)
    return k0 * (up * sa - lag * ca), k0 * ray.right / ray.length, k0 * (up * ca + lag * sa)


@eqx.filter_jit
def _in_surface(geometry: ReflectionGeometry) -> Float[Array, "v h"]:
    qx, qy, _ = _reflected(geometry)
    return root(qx * qx + qy * qy)


@eqx.filter_jit
def _chi(geometry: ReflectionGeometry) -> Float[Array, "v h"]:
    qx, qy, qz = _reflected(geometry)
    length = root(qx * qx + qy * qy)
    return atan2(jnp.where(qy < 0, -length, length), qz)


@eqx.filter_jit
def _exit_angles(geometry: ReflectionGeometry) -> tuple[Array, Array]:
    ray, (ca, sa) = rays(geometry), _incident(geometry)
    off, shadow = -ray.down * ca - ray.along * sa, ray.along * ca - ray.down * sa
    return atan2(off, root(shadow * shadow + ray.right * ray.right)), atan2(ray.right, shadow)


def _incident(geometry: ReflectionGeometry) -> tuple[Scalar, Scalar]:
    angle = jnp.deg2rad(geometry.alpha_i)
    return jnp.cos(angle), jnp.sin(angle)


def _pair(size: Given) -> Float[Array, "2"]:
    """(height, width) of a pixel, of one number or two."""
    given = as_float(size, "pixel_size", "mm")
    return jnp.broadcast_to(given, (2,)) if given.ndim == 0 else given


def _shape(shape: Sequence[int]) -> tuple[int, int]:
    if not isinstance(shape, Sequence | np.ndarray) or len(shape) != 2 or isinstance(shape, str):
        raise ValueError(f"shape should be the number of rows and columns of a detector, but it is {shape!r:.60}")
    found = tuple(as_count(n, "shape, the rows and columns of a detector,") for n in shape)
    return found[0], found[1]


def _check(geometry: AbstractGeometry) -> None:
    """Refuse what is no geometry, and single precision, which loses the digits of phi (0.006 degrees at 2k x 2k)."""
    require_x64(f"A {type(geometry).__name__}")
    if traced(geometry):
        return
    for name, positive in (
        ("energy", True),
        ("distance", True),
        ("pixel_size", True),
        ("centre", False),
        ("swing", False),
        ("roll", False),
    ):
        value = getattr(geometry, name)
        if isinstance(value, str):
            continue  # the check of the field names it
        if not np.all(np.isfinite(value) & ((np.asarray(value) > 0) | (not positive))):
            wanted = "above zero" if positive else "finite"
            raise ValueError(f"the {name} of a {type(geometry).__name__} should be {wanted}, but it is {value}")
    for name, low, high, unit, other in _UNITS:
        value = getattr(geometry, name)
        if isinstance(value, str):
            continue
        value = np.asarray(value)
        if not np.all((value >= low) & (value <= high)):
            raise ValueError(
                f"the {name} of a {type(geometry).__name__} is in {unit}, but it is {value}: is that in {other}?"
            )
