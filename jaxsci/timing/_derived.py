"""What the parameters of a pulsar imply: period, age, field, masses of its companion, and their errors.

Papers quote these beside the parameters that were fitted. Each is a formula of a few parameters, whose error follows
from their covariance by JAX's derivatives, correlations included. Reports and researchers call `derived`; `quantities`
is the formulas by themselves, for `jax.jit`, `jax.vmap` and `jax.grad`.
"""

import math
from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from ..core import require_kind
from ._constants import DAY, LIGHT, T_SUN, YEAR
from ._fit import TimingSolution
from ._model import elements

PULSAR_MASS = 1.4
"""Mass that a pulsar is taken to have, solar masses."""

_INERTIA = 1e38  # kg m^2, which is 1e45 g cm^2
_RADIUS = 1e4  # m
_PERMEABILITY = 1e-7  # mu_0 / (4 pi), with which the field comes out in tesla
_STEPS = 60  # of Newton's method for a mass; it is done in ten
_NAMES = ("F0", "F1", "PB", "FB0", "A1", "PMRA", "PMDEC", "PMELONG", "PMELAT", "EPS1", "EPS2")


class Derived(NamedTuple):
    """A quantity that follows from the parameters: its name, value, standard error and unit, and what it assumes."""

    name: str
    value: float
    std: float
    unit: str
    about: str = ""


class _Formula(NamedTuple):
    """The unit of a quantity, and what is assumed for it."""

    unit: str
    about: str = ""


FORMULAS = {
    "P": _Formula("s", "spin period"),
    "Pdot": _Formula("s/s", "its derivative"),
    "age": _Formula("yr", "characteristic, P / (2 Pdot)"),
    "B": _Formula("G", "field at the surface, of a dipole, I = 1e45 g cm^2, R = 10 km"),
    "Edot": _Formula("erg/s", "spin-down luminosity, I = 1e45 g cm^2"),
    "PMTOT": _Formula("mas/yr", "total proper motion"),
    "ECC": _Formula("", "eccentricity, from EPS1 and EPS2"),
    "mass function": _Formula("Msun"),
    "M2 minimum": _Formula("Msun", "i = 90 deg"),
    "M2 median": _Formula("Msun", "i = 60 deg"),
}
"""All quantities, in the order of a table."""


def quantities(
    values: Mapping[str, ArrayLike], pulsar_mass: ArrayLike = PULSAR_MASS
) -> dict[str, Float[Array, "*batch"]]:
    """Compute what follows from the values of a timing model, as far as it has them.

    With P = 1 / F0 and Pdot = -F1 / F0^2: age P / (2 Pdot), B = sqrt(3 I c^3 P Pdot / (8 pi^2 R^6)), Edot =
    4 pi^2 I Pdot / P^3; of a binary the mass function f = 4 pi^2 A1^3 / (T_sun PB^2), and the companion's mass m with
    (m sin i)^3 = f (m + pulsar_mass)^2 (Lorimer and Kramer 2005, Handbook of Pulsar Astronomy, sections 3.2 and 8.3).
    The inclination is above 60 deg for half of all orbits, which makes that mass the median.

    **Arguments:** `values`: by PINT's names and in its units, F0, F1, A1, PB or FB0, PMRA and PMDEC or PMELONG and
    PMELAT, EPS1 and EPS2; others are passed over. `pulsar_mass`: in solar masses.

    **Returns:** by the names of `timing.FORMULAS`, in their units. Age, field and luminosity are nan where F1 is not
    below 0, since such a pulsar does not spin down.
    """
    known = {name: jnp.asarray(value, float) for name, value in values.items() if name in _NAMES}
    found: dict[str, Array] = {}
    if "F0" in known:
        found["P"] = 1 / known["F0"]
    if {"F0", "F1"} <= known.keys():
        found |= _spin(known["F0"], known["F1"])
    for east, north in (("PMRA", "PMDEC"), ("PMELONG", "PMELAT")):
        if {east, north} <= known.keys():
            found["PMTOT"] = jnp.hypot(known[east], known[north])
    if {"EPS1", "EPS2"} <= known.keys():
        found["ECC"] = jnp.hypot(known["EPS1"], known["EPS2"])
    if "A1" in known and known.keys() & {"PB", "FB0"}:
        period = 1 / known["FB0"] if "FB0" in known else known["PB"] * DAY
        function = 4 * math.pi**2 * known["A1"] ** 3 / (T_SUN * period**2)
        found["mass function"] = function
        for name, angle in (("M2 minimum", 90.0), ("M2 median", 60.0)):
            sine = math.sin(math.radians(angle))
            found[name] = companion_mass(function, jnp.asarray(sine), jnp.asarray(pulsar_mass, float))
    return {name: found[name] for name in FORMULAS if name in found}


def _spin(f0: Array, f1: Array) -> dict[str, Array]:
    slows = f1 < 0
    # a power of what is negative would be nan in the derivatives too
    down = jnp.where(slows, -f1, 1.0)
    field = jnp.sqrt(3 * _INERTIA * LIGHT**3 / (8 * math.pi**2 * _RADIUS**6) * _PERMEABILITY * down / f0**3)
    found = {
        "age": f0 / (2 * down) / YEAR,
        "B": 1e4 * field,
        "Edot": 1e7 * 4 * math.pi**2 * _INERTIA * f0 * down,
    }
    return {"Pdot": -f1 / f0**2} | {name: jnp.where(slows, value, jnp.nan) for name, value in found.items()}


def companion_mass(function: ArrayLike, sine: ArrayLike, pulsar_mass: ArrayLike = PULSAR_MASS) -> Float[Array, ""]:
    """Solve (m sin i)^3 / (m + pulsar_mass)^2 = function for the mass m of a companion.

    **Arguments:** `function`, `pulsar_mass`: in solar masses; `sine`: of the inclination, above 0.

    **Returns:** m, solar masses.
    """
    f, s, pulsar = (jnp.asarray(x, float) for x in (function, sine, pulsar_mass))
    ratio = f / s**3

    def step(mass: Array, _: None) -> tuple[Array, None]:
        # m = (ratio (m + M)^2)^(1/3) in the form of Newton: above the root the cubic is convex, and so it never turns
        value = mass**3 - ratio * (mass + pulsar) ** 2
        slope = 3 * mass**2 - 2 * ratio * (mass + pulsar)
        return mass - value / slope, None

    # the root is below this: m^3 <= ratio (m + M)^2 at 4 (ratio + (ratio M^2)^(1/3))
    start = 4 * (ratio + jnp.cbrt(ratio * pulsar**2))
    return jax.lax.scan(step, start, None, length=_STEPS)[0]


def derived(solution: TimingSolution, pulsar_mass: float = PULSAR_MASS) -> tuple[Derived, ...]:
    """Find what a fitted pulsar's parameters imply, with errors: period, age, field, masses of a companion.

    The formulas are those of `timing.quantities`. Errors are of first order, J C J^T with the derivatives J of a
    formula and the covariance C of the parameters that were fitted; others are taken as the par file has them.
    Characteristic age, field and masses rest on what is assumed (`about`), and their errors do not.

    **Arguments:** `solution`: of one pulsar; `pulsar_mass`: solar masses.

    **Returns:** a `Derived` for each that there is. `std` is 0 where nothing that it depends on was fitted, and
    infinite where that is not determined.

    **Raises:** `ValueError` inside a transformation and for a stack, as `TimingSolution.exact`.
    """
    require_kind(solution, TimingSolution, "solution", "a TimingSolution, as timing.fit answers")
    if not (np.isfinite(pulsar_mass) and pulsar_mass > 0):
        raise ValueError(f"pulsar_mass should be solar masses, above 0, but it is {pulsar_mass}")
    exact, par = solution.exact, solution.start.par
    assert par is not None
    there = {name for _, name in elements(solution.start) if par.find(name) is not None or name in solution.names}
    values = {name: float(exact.get(name, par.value(name))) for name in _NAMES if name in there}
    free = [name for name in values if name in solution.names]
    at = [solution.places[solution.names.index(name)] for name in free]
    matrix = np.asarray(solution.fit.covariance)[np.ix_(at, at)]
    start = jnp.asarray([values[name] for name in free])

    def of(x: Array) -> dict[str, Array]:
        return quantities(values | dict(zip(free, x, strict=True)), pulsar_mass)

    slopes = jax.jacfwd(of)(start) if free else {}
    return tuple(
        Derived(name, float(value), _error(slopes.get(name), matrix), *FORMULAS[name])
        for name, value in of(start).items()
        if np.isfinite(float(value))
    )


def _error(slope: Array | None, matrix: np.ndarray) -> float:
    """The standard error; infinite where a parameter that counts is not determined."""
    if slope is None:
        return 0.0
    used = np.flatnonzero(np.asarray(slope))
    part, kept = np.asarray(slope)[used], matrix[np.ix_(used, used)]
    return float(np.sqrt(part @ kept @ part)) if np.isfinite(kept).all() else math.inf
