"""Spectra of sky components: functions of frequency with scalar parameters.

A component of the microwave sky has a spectrum that is much the same everywhere, and an amplitude that is not. Here are
the spectra of the known components, tables and expressions for others, and the class that a researcher subclasses for
one of their own. A `MixingMatrix` puts them side by side; nothing else of this room knows what a spectrum is made of.
"""

import abc
import itertools
from collections.abc import Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.tree_util as jtu
import numpy as np
from jaxtyping import Array, ArrayLike, Float

from ..core import (
    Module,
    Scalar,
    leaf_values,
    match,
    names_in,
    numbers,
    param,
    params,
    parse,
    put,
    suggest,
    traced,
    transparent,
    value_of,
)
from ._units import H_OVER_K, conversion, split_unit


class AbstractSED(Module):
    """Describe a spectral energy distribution: what a researcher subclasses, with `param()` fields and `__call__`.

    Written for one pixel: parameters are scalars, and frequencies are an argument that nothing is ever
    differentiated with respect to. Values are relative to those at a reference frequency, so that the
    amplitude of a component is its brightness there, in the unit of the maps.
    """

    @abc.abstractmethod
    def __call__(self, nu: Float[Array, " f"]) -> Float[Array, " f"]:
        """Evaluate the spectrum at frequencies nu in GHz."""

    def columns(self, nu: Float[Array, " f"]) -> Float[Array, "f c"]:
        """Evaluate the spectra that each have an amplitude of their own: one, but for a `MomentExpansion`."""
        return self(nu)[:, None]

    def amplitude_units(self, units: str) -> str:
        """Name the unit of the amplitude that belongs to maps in `units`: the same, unless said otherwise."""
        return units


def units_of(sed: AbstractSED) -> str | None:
    """The unit of the maps that a spectrum is made for; None where its class does not say."""
    return getattr(sed, "units", None)


def check_given(units: str, given: str | None) -> None:
    """Raise where a spectrum is in units that are not known, or have a prefix.

    **Raises:** `ValueError` naming it.
    """
    for unit in (units, given or units):
        if split_unit(unit)[1] != unit:
            raise ValueError(f"the unit of a spectrum should have no prefix: {split_unit(unit)[1]!r}, not {unit!r}")


def _relative(nu: Array, nu0: Array, units: str) -> Array:
    """What one K_RJ is in `units` at nu, over the same at nu0."""
    return conversion(nu, "K_RJ", units) / conversion(nu0, "K_RJ", units)


class CMB(AbstractSED):
    """Model the cosmic microwave background's anisotropies: 1 in K_CMB. The amplitude is in K_CMB whatever `units`.

    It has the prefix of the maps' unit: for maps in uK_RJ it is in uK_CMB.
    """

    units: str = eqx.field(static=True, default="K_CMB")

    def __call__(self, nu: Float[Array, " f"]) -> Float[Array, " f"]:
        return conversion(nu, "K_CMB", self.units)

    def amplitude_units(self, units: str) -> str:
        return units.replace(self.units, "K_CMB")


class ThermalSZ(AbstractSED):
    """Model the thermal Sunyaev-Zeldovich effect, not relativistic: T_CMB (x coth(x/2) - 4) per unit of Compton's y.

    The amplitude is Compton's y with the prefix of the maps' unit: of maps in K_CMB it is y itself, of maps in uK_CMB
    1e6 y (`uy_SZ`).
    """

    units: str = eqx.field(static=True, default="K_CMB")

    def __call__(self, nu: Float[Array, " f"]) -> Float[Array, " f"]:
        return conversion(nu, "y_SZ", self.units)

    def amplitude_units(self, units: str) -> str:
        return units.replace(self.units, "y_SZ")


class ModifiedBlackBody(AbstractSED):
    """Model thermal dust: (nu/nu0)^(1 + beta) (e^(h nu0 / k T) - 1) / (e^(h nu / k T) - 1) in K_RJ.

    **Arguments:** `beta`, `temp` (K), `nu0`: reference frequency, GHz. `units`: of the maps.
    """

    beta: Scalar = param(default=1.54, bounds=(-1, 5), doc="spectral index of the emissivity")
    temp: Scalar = param(default=20.0, unit="K", bounds=(4, 100), doc="temperature of the grains")
    nu0: Scalar = numbers(default=353.0)
    units: str = eqx.field(static=True, default="K_CMB")

    def __call__(self, nu: Float[Array, " f"]) -> Float[Array, " f"]:
        planck = jnp.expm1(H_OVER_K * self.nu0 / self.temp) / jnp.expm1(H_OVER_K * nu / self.temp)
        # exp of a product: its derivative by beta needs no branch at 0, as that of a power does
        power = jnp.exp((1 + self.beta) * jnp.log(nu / self.nu0))
        return power * planck * _relative(nu, self.nu0, self.units)


class PowerLaw(AbstractSED):
    """Model synchrotron radiation: (nu/nu0)^(beta + running log(nu/nu_pivot)) in K_RJ.

    **Arguments:** `beta`. `nu0`: reference frequency, GHz. `running`: `None` for none, which is then no parameter.
    `nu_pivot`: where beta is the slope, GHz. `units`: of the maps.
    """

    beta: Scalar = param(default=-3.0, bounds=(-8, 3), doc="spectral index of brightness temperature")
    nu0: Scalar = numbers(default=30.0)
    running: Scalar | None = param(default=None, doc="change of the index with log frequency")
    nu_pivot: Scalar = numbers(default=30.0)
    units: str = eqx.field(static=True, default="K_CMB")

    def __call__(self, nu: Float[Array, " f"]) -> Float[Array, " f"]:
        index = self.beta
        if self.running is not None:
            index = index + self.running * jnp.log(nu / self.nu_pivot)
        return jnp.exp(index * jnp.log(nu / self.nu0)) * _relative(nu, self.nu0, self.units)


class FreeFree(AbstractSED):
    """Model bremsstrahlung: 1 - e^-tau in K_RJ, relative to nu0 (Draine 2011, as in Planck 2015 results X, table 4).

    tau = 0.05468 T_e^-3/2 nu_9^-2 EM g, g = log(exp(5.960 - sqrt(3)/pi log(nu_9 T_4^-3/2)) + e).

    **Arguments:** `temp`: of the electrons, K. `emission`: measure EM in pc cm^-6, which matters where it makes the
    gas opaque. `nu0`: reference frequency, GHz. `units`: of the maps.
    """

    temp: Scalar = param(default=7000.0, unit="K", bounds=(100, 1e6), doc="temperature of the electrons")
    emission: Scalar = numbers(default=1.0)
    nu0: Scalar = numbers(default=30.0)
    units: str = eqx.field(static=True, default="K_CMB")

    def _depth(self, nu: Array) -> Array:
        gaunt = jnp.exp(5.960 - jnp.sqrt(3.0) / jnp.pi * jnp.log(nu * (self.temp / 1e4) ** -1.5))
        return 0.05468 * self.temp**-1.5 * nu**-2 * self.emission * jnp.log(gaunt + jnp.e)

    def __call__(self, nu: Float[Array, " f"]) -> Float[Array, " f"]:
        ratio = jnp.expm1(-self._depth(nu)) / jnp.expm1(-self._depth(self.nu0))
        return ratio * _relative(nu, self.nu0, self.units)


class AME(AbstractSED):
    """Model spinning dust: a log-normal flux of peak frequency and width (Stevenson 2014, ApJ 781, 113).

    S = (nu0/nu)^2 exp(-(log(nu/peak)^2 - log(nu0/peak)^2) / (2 width^2)) in K_RJ.

    **Arguments:** `peak`: of the flux density, GHz. `width`: in log frequency. `nu0`: reference frequency, GHz.
    """

    peak: Scalar = param(default=25.0, unit="GHz", bounds=(1, 200), doc="frequency of the largest flux density")
    width: Scalar = param(default=0.5, bounds=(0.05, 3), doc="width in the logarithm of frequency")
    nu0: Scalar = numbers(default=23.0)
    units: str = eqx.field(static=True, default="K_CMB")

    def __call__(self, nu: Float[Array, " f"]) -> Float[Array, " f"]:
        away = jnp.log(nu / self.peak) ** 2 - jnp.log(self.nu0 / self.peak) ** 2
        flux = jnp.exp(-away / (2 * self.width**2))
        return flux * (self.nu0 / nu) ** 2 * _relative(nu, self.nu0, self.units)


class TabulatedSED(AbstractSED):
    """Interpolate a spectrum without parameters, linearly in log frequency.

    **Arguments:** `frequency`: GHz, rising. `value`: the spectrum there. Outside of the table it is that of the nearest
    end. `units`: of the maps. `given`: the unit of `value`, `units` by default; the amplitude is in that unit then.

    **Raises:** `ValueError` for frequencies that are not positive and rising, and for an unknown unit.
    """

    frequency: Float[Array, " t"] = numbers()
    value: Float[Array, " t"] = numbers()
    units: str = eqx.field(static=True, default="K_CMB")
    given: str | None = eqx.field(static=True, default=None)

    def __check_init__(self) -> None:
        check_given(self.units, self.given)
        if not traced(self.frequency):
            at = np.asarray(self.frequency)
            if not (at[:1] > 0).all() or not (np.diff(at) > 0).all():
                raise ValueError("the frequencies of a table should be positive, and rise")
        if not traced(self.value) and not np.isfinite(np.asarray(self.value)).all():
            raise ValueError("the values of a table should be finite: leave out the rows of those that are not")

    def __call__(self, nu: Float[Array, " f"]) -> Float[Array, " f"]:
        values = jnp.interp(jnp.log(nu), jnp.log(self.frequency), self.value)
        return values if self.given is None else values * conversion(nu, self.given, self.units)

    def amplitude_units(self, units: str) -> str:
        return units if self.given is None else units.replace(self.units, self.given)


class MomentExpansion(AbstractSED):
    """Expand a spectrum into itself and its derivatives by some parameters, each with an amplitude of its own.

    What the average over a line of sight of varying parameters looks like (Chluba, Hill and Abitbol 2017).

    **Arguments:** `sed`: any SED. `about`: names of its parameters. `order`: of the highest derivative, mixed ones too.
    """

    about: tuple[str, ...] = eqx.field(static=True)
    order: int = eqx.field(static=True)
    sed: AbstractSED = transparent()

    def __init__(self, sed: AbstractSED, about: tuple[str, ...] = ("beta",), order: int = 1):
        self.sed, self.order = sed, order
        self.about = tuple(match(sed, about))

    @property
    def units(self) -> str | None:
        """Of the maps, as the SED has it."""
        return units_of(self.sed)

    def __call__(self, nu: Float[Array, " f"]) -> Float[Array, " f"]:
        return self.sed(nu)

    def amplitude_units(self, units: str) -> str:
        return self.sed.amplitude_units(units)

    def columns(self, nu: Float[Array, " f"]) -> Float[Array, "f c"]:
        values = dict(leaf_values(self.sed))
        free = {name: values[name] for name in self.about}

        def spectrum(point: dict[str, Array]) -> Array:
            return put(self.sed, point)(nu)

        found = []
        for order in range(self.order + 1):
            for names in itertools.combinations_with_replacement(self.about, order):
                found.append(_partial(spectrum, free, names))
        return jnp.stack(found, axis=1)


def _partial(spectrum, point, names):  # type: ignore[no-untyped-def]
    """The mixed derivative of a function of a dictionary of scalars with respect to these, in turn."""
    if not names:
        return spectrum(point)
    unit = jtu.tree_map(jnp.zeros_like, point) | {names[0]: jnp.ones_like(point[names[0]])}

    def along(at):  # type: ignore[no-untyped-def]
        return jax.jvp(spectrum, (at,), (unit,))[1]

    return _partial(along, point, names[1:])


_CONSTANTS = {"h_over_k": H_OVER_K}


class AnalyticSED(AbstractSED):
    """Make a spectrum of an expression of `nu` (GHz) in Python's syntax: `AnalyticSED("(nu / nu0)**beta", nu0=30.0)`.

    Every other name in it is a parameter, unless a value is given for it. Known are + - * / **, numbers, `pi`, `E`,
    `h_over_k` (K/GHz), exp, expm1, log, log10, log1p, sqrt, abs, sin, cos, tan, arcsin, arccos, arctan, sinh, cosh,
    tanh, and minimum and maximum of two.

    **Arguments:** `expression`. `start`: values of the parameters where a fit starts, 1 for those that are not
    named. `units`: of the maps. `given`: the unit that the expression is in, `units` by default: `given="K_RJ"` for a
    brightness temperature; the amplitude is in that unit then. `fixed`: values of names that are no parameters.

    **Raises:** `ValueError` for anything else in the expression, with its column, and for values of names that are
    not in it; for an unknown unit.
    """

    expression: str = eqx.field(static=True)
    names: tuple[str, ...] = eqx.field(static=True)
    units: str = eqx.field(static=True)
    given: str | None = eqx.field(static=True)
    constants: dict[str, Scalar]
    values: tuple[Scalar, ...] = params("names")

    def __init__(
        self,
        expression: str,
        start: Mapping[str, ArrayLike] | None = None,
        *,
        units: str = "K_CMB",
        given: str | None = None,
        **fixed: ArrayLike,
    ):
        check_given(units, given)
        used = names_in(parse(expression, _CONSTANTS))
        values: dict[str, Any] = dict(start or {})
        for name in (*values, *fixed):
            if name not in used or name == "nu":
                raise ValueError(f"{expression!r:.200} has no name {name!r} to give a value to{suggest(name, used)}")
        self.expression, self.units, self.given = expression, units, given
        self.names = tuple(n for n in used if n not in fixed and n not in _CONSTANTS and n != "nu")
        self.values = tuple(values.get(name, 1.0) for name in self.names)
        self.constants = {name: jnp.asarray(value, float) for name, value in fixed.items()}

    def __call__(self, nu: Float[Array, " f"]) -> Float[Array, " f"]:
        names = _CONSTANTS | self.constants | dict(zip(self.names, self.values, strict=True)) | {"nu": nu}
        values = jnp.broadcast_to(value_of(parse(self.expression, _CONSTANTS), names), nu.shape)
        return values if self.given is None else values * conversion(nu, self.given, self.units)

    def amplitude_units(self, units: str) -> str:
        return units if self.given is None else units.replace(self.units, self.given)
