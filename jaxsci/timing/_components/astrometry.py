"""Where the pulsar is: direction, proper motion, parallax.

The direction gives the largest delay of all, that of the light's way across the Earth's orbit, and every other delay
near the Sun depends on it. Par files have it in equatorial or in ecliptic coordinates, each with parameters of its own,
and a fit should be in those of the par file; hence two classes behind one interface. `TimingModel` holds one of them.
"""

import abc

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from ...core import Module, Scalar, numbers, param
from .._binary import Sky
from .._constants import KPC, MAS, OBLIQUITY, YEAR
from ._line import READ, SEXAGESIMAL, WORD, Component, Entry, Par
from ._vector import Vector, dot

_WITHIN = {"RAJ": (24, "hours"), "DECJ": (90, "degrees"), "ELONG": (360, "degrees"), "ELAT": (90, "degrees")}


class AbstractAstrometry(Module):
    """A direction that moves, and a distance."""

    PX: eqx.AbstractVar[Scalar]
    PX_ref: eqx.AbstractVar[Scalar]

    @staticmethod
    def from_par(par: Par) -> "AstrometryEquatorial | AstrometryEcliptic":
        """The position in the coordinates of the par file: ecliptic where it has ELONG.

        **Raises:** `ValueError` for a missing coordinate, or an obliquity that ECL names and nobody knows.
        """
        cls = AstrometryEquatorial if par.find("ELONG") is None else AstrometryEcliptic
        names = [name for name in cls.__dataclass_fields__ if name.isupper()]
        needed = names[:2]  # without motion and parallax a pulsar stands still and far away
        values = [jnp.asarray(float(par.value(name, None if name in needed else "0"))) for name in names]
        zeros = [jnp.zeros(()) for _ in names]
        for name in needed:
            most, unit = _WITHIN[name]
            if abs(par.value(name)) > most:
                raise ValueError(f"{name} is {par.word(name)}, but it should lie within {most} {unit}")
        if cls is AstrometryEquatorial:
            return AstrometryEquatorial(*zeros, *values)
        tilt = jnp.deg2rad(jnp.asarray(obliquity(par.word("ECL", "IERS2010")) / 3600))
        return AstrometryEcliptic(*zeros, *values, obliquity=tilt)  # type: ignore[misc]

    @abc.abstractmethod
    def sky(self, time: Float[Array, " n"], position: Vector) -> Sky:
        """Compute what an orbit's orientation needs: `time` in s from POSEPOCH, `position` of the observatory, lt-s."""

    @abc.abstractmethod
    def direction(self, time: Float[Array, " n"]) -> Vector:
        """Compute the unit vector to the pulsar (ICRS) at `time`, seconds after POSEPOCH."""

    def delay(self, direction: Vector, position: Vector) -> Float[Array, " n"]:
        """Compute Roemer delay and parallax, s: -r.n + (r^2 - (r.n)^2) / (2 d).

        r is the observatory from the barycentre, lt-s, n the direction of the pulsar and d its distance.
        """
        along = dot(position, direction)
        return (self.PX + self.PX_ref) / (2 * KPC) * (dot(position, position) - along * along) - along


class AstrometryEquatorial(AbstractAstrometry):
    """Right ascension and declination (ICRS).

    Parameters are offsets from the reference values (`*_ref`), in the units of a par file as PINT takes
    them: RAJ in hours, DECJ in degrees, PMRA (with cos DEC) and PMDEC in mas/yr, PX in mas.
    """

    RAJ: Scalar = param(unit="hourangle")
    DECJ: Scalar = param(unit="deg")
    PMRA: Scalar = param(unit="mas/yr")
    PMDEC: Scalar = param(unit="mas/yr")
    PX: Scalar = param(unit="mas")
    RAJ_ref: Scalar = numbers()
    DECJ_ref: Scalar = numbers()
    PMRA_ref: Scalar = numbers()
    PMDEC_ref: Scalar = numbers()
    PX_ref: Scalar = numbers()

    def direction(self, time: Float[Array, " n"]) -> Vector:
        longitude = jnp.deg2rad(15 * self.RAJ_ref) + jnp.deg2rad(15 * self.RAJ)
        latitude = jnp.deg2rad(self.DECJ_ref) + jnp.deg2rad(self.DECJ)
        return moving(longitude, latitude, self.PMRA + self.PMRA_ref, self.PMDEC + self.PMDEC_ref, time)

    def sky(self, time: Float[Array, " n"], position: Vector) -> Sky:
        motion = self.PMRA + self.PMRA_ref, self.PMDEC + self.PMDEC_ref
        return _sky(self.direction(time), position, self.PX + self.PX_ref, *motion)


class AstrometryEcliptic(AbstractAstrometry):
    """Ecliptic longitude and latitude, of the obliquity that the par file's ECL names.

    Parameters are offsets from the reference values (`*_ref`): ELONG and ELAT in degrees, PMELONG (with
    cos ELAT) and PMELAT in mas/yr, PX in mas. `obliquity` in rad.
    """

    ELONG: Scalar = param(unit="deg")
    ELAT: Scalar = param(unit="deg")
    PMELONG: Scalar = param(unit="mas/yr")
    PMELAT: Scalar = param(unit="mas/yr")
    PX: Scalar = param(unit="mas")
    ELONG_ref: Scalar = numbers()
    ELAT_ref: Scalar = numbers()
    PMELONG_ref: Scalar = numbers()
    PMELAT_ref: Scalar = numbers()
    PX_ref: Scalar = numbers()
    obliquity: Scalar = numbers()

    def direction(self, time: Float[Array, " n"]) -> Vector:
        longitude = jnp.deg2rad(self.ELONG_ref) + jnp.deg2rad(self.ELONG)
        latitude = jnp.deg2rad(self.ELAT_ref) + jnp.deg2rad(self.ELAT)
        x, y, z = moving(longitude, latitude, self.PMELONG + self.PMELONG_ref, self.PMELAT + self.PMELAT_ref, time)
        sin, cos = jnp.sin(self.obliquity), jnp.cos(self.obliquity)
        return Vector(x, cos * y - sin * z, sin * y + cos * z)

    def sky(self, time: Float[Array, " n"], position: Vector) -> Sky:
        motion = self.PMELONG + self.PMELONG_ref, self.PMELAT + self.PMELAT_ref
        sin, cos = jnp.sin(self.obliquity), jnp.cos(self.obliquity)

        def ecliptic(v: Vector) -> Vector:
            return Vector(v.x, cos * v.y + sin * v.z, cos * v.z - sin * v.y)

        return _sky(ecliptic(self.direction(time)), ecliptic(position), self.PX + self.PX_ref, *motion)


def _sky(direction: Vector, position: Vector, parallax: Array, along: Array, across: Array) -> Sky:
    x, y, z = direction
    flat = jnp.sqrt(x * x + y * y)
    east = (x * position.y - y * position.x) / flat
    north = position.z * flat - z * (x * position.x + y * position.y) / flat
    return Sky(east, north, parallax / KPC, along * (MAS / YEAR), across * (MAS / YEAR))


def moving(longitude: Scalar, latitude: Scalar, along: Scalar, across: Scalar, time: Float[Array, " n"]) -> Vector:
    """Unit vector in linear motion without radial velocity; angles in rad, motion in mas/yr, time in s.

    n = (n0 + t (mu_l e_l + mu_b e_b)) / |...|, as ERFA's pmsafe has it for an object at infinity.
    """
    sin_l, cos_l, sin_b, cos_b = jnp.sin(longitude), jnp.cos(longitude), jnp.sin(latitude), jnp.cos(latitude)
    a, b = along * (MAS / YEAR), across * (MAS / YEAR)
    here = (cos_l * cos_b, sin_l * cos_b, sin_b)
    drift = (-a * sin_l - b * cos_l * sin_b, a * cos_l - b * sin_l * sin_b, b * cos_b)
    # a straight line in space: the direction has to be brought back to the sphere
    shrink = 1 / jnp.sqrt(1 + (a * a + b * b) * time * time)
    x, y, z = ((h + d * time) * shrink for h, d in zip(here, drift, strict=True))
    return Vector(x, y, z)


def obliquity(name: str) -> float:
    """The obliquity of the ecliptic that a par file's ECL names, arcsec.

    **Raises:** `ValueError` for a name that is not known.
    """
    if name not in OBLIQUITY:
        raise ValueError(f"ECL {name} is not known; there are {', '.join(OBLIQUITY)}")
    return OBLIQUITY[name]


ASTROMETRY = Component(
    "astrometry",
    (
        Entry("RAJ", look=SEXAGESIMAL, aliases=("RA",)),
        Entry("DECJ", look=SEXAGESIMAL, aliases=("DEC",)),
        Entry("ELONG", aliases=("LAMBDA",)),
        Entry("ELAT", aliases=("BETA",)),
        Entry("PMRA", power=-1),
        Entry("PMDEC", power=-1),
        Entry("PMELONG", aliases=("PMLAMBDA",), power=-1),
        Entry("PMELAT", aliases=("PMBETA",), power=-1),
        Entry("PX", power=-1),
        Entry("POSEPOCH", role=READ, epoch=True),
        Entry("ECL", role=READ, look=WORD),
    ),
    AbstractAstrometry.from_par,
)
