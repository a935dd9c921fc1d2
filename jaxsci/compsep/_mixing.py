"""The mixing matrix: what each component contributes to each frequency channel.

It is the model of this room: components by name, with their spectra, the calibration of the channels where that is in
doubt, and the parameters of all of them under dotted names. Fits move its parameters, recipes evaluate it and its
derivatives, and everything that is said of a parameter is said by the names that it gives.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.flatten_util as jfu
import jax.numpy as jnp
import lineax as lx
from jaxtyping import Array, Float

from ..core import Module, Scalar, describe, free_spec, labelled, leaf_names, match, param, parameters, snake, suggest
from ._given import Given, Values, plain
from ._instrument import Frequencies, over_bands
from ._spectra import AbstractSED, AnalyticSED, TabulatedSED, units_of
from ._units import split_unit

CALIBRATION = "calibration"
"""The first part of the name of every parameter of a `Calibration`."""


class Channel(Module):
    """Describe one channel's calibration, as a `Calibration` holds it.

    `gain`: what the channel reads of one unit of the sky. `angle`: by which its polarisation is turned, degrees; `None`
    where nobody doubts it.
    """

    gain: Scalar = param(default=1.0, bounds=(0, None), doc="what the channel reads of one unit of the sky")
    angle: Scalar | None = param(default=None, unit="deg", doc="by which its polarisation is turned")


class Calibration(Module):
    """Describe what is in doubt of the channels' calibration: a gain each, and an angle of polarisation.

    A channel of gain g and angle psi reads Q' + iU' = g exp(2 i psi) (Q + iU) and I' = g I of the sky, so that Q' =
    g (Q cos 2 psi - U sin 2 psi) and U' = g (Q sin 2 psi + U cos 2 psi), of E and B likewise (Verges, Errard and
    Stompor 2021, Phys. Rev. D 103, 063507; Jost, Errard and Stompor 2023, Phys. Rev. D 108, 082005).

    Parameters are `calibration.ch0.gain`, `calibration.ch0.angle` and so on, freed by `free=("*.gain", "*.angle", ...)`
    as all others, with one value for the whole sky unless `patches` names them. A gain or an angle that all channels
    share is the amplitudes' own: without a prior, or a channel that is fixed, no data tell it.

    **Arguments:** `channels`: how many there are, or their names. `gain`: of each (f,), or of all. `angle`: likewise,
    degrees; `None` for channels whose polarisation is as the maps say. With angles Q and U of a pixel are one system.

    **Raises:** `ValueError` for other lengths than the channels'.
    """

    names: tuple[str, ...] = eqx.field(static=True)
    channels: tuple[Channel, ...] = labelled("names")

    def __init__(self, channels: int | Sequence[str], *, gain: Given = 1.0, angle: Given | None = None):
        self.names = tuple(f"ch{k}" for k in range(channels)) if isinstance(channels, int) else tuple(channels)
        gains = self._each("gain", gain, "")
        angles = [None] * len(self.names) if angle is None else self._each("angle", angle, "deg")
        self.channels = tuple(Channel(one, turn) for one, turn in zip(gains, angles, strict=True))

    def _each(self, what: str, values: Given, unit: str) -> list[Array]:
        found, f = jnp.asarray(plain(values, what, unit), float), len(self.names)
        if found.shape not in ((), (f,)):
            raise ValueError(f"{what} should be one number, or {f}, one for each channel, not {found.shape}")
        return list(jnp.broadcast_to(found, (f,)))

    @property
    def turns(self) -> bool:
        """True where channels have angles, so that Q and U are read together."""
        return any(channel.angle is not None for channel in self.channels)


class MixingMatrix(Module):
    """Put sky components side by side: `MixingMatrix(cmb=CMB(), dust=ModifiedBlackBody(), sync=PowerLaw())`.

    Components given without a name get that of their class, with a number where there are several. Parameters
    have names such as `dust.beta`. Written for one pixel; a matrix of maps has leaves with an axis more.

    **Arguments:** `components`, `named`: the spectra. `calibration`: a `Calibration`, where that of the channels is in
    doubt.

    **Raises:** `ValueError` for something that is no SED, and without any component.
    """

    names: tuple[str, ...] = eqx.field(static=True)
    components: tuple[AbstractSED, ...] = labelled("names")
    calibration: Calibration | None = None

    def __init__(self, *components: object, calibration: object = None, **named: object):
        if not (calibration is None or isinstance(calibration, Calibration)):
            raise ValueError(f"calibration should be a Calibration, but it is a {type(calibration).__name__}")
        together: dict[str, Any] = {}
        for component in components:
            name, k = snake(component), 2
            while name in together or name in named:
                name, k = f"{snake(component)}_{k}", k + 1
            together[name] = component
        together |= named
        for name, component in together.items():
            if not isinstance(component, AbstractSED):
                raise ValueError(
                    "each component should be an SED such as CMB() or ModifiedBlackBody(), but "
                    f"{'one' if name not in named else name} is {describe(component)}"
                )
        if not together:
            raise ValueError("a mixing matrix needs at least one component")
        self.names, self.components, self.calibration = tuple(together), tuple(together.values()), calibration

    def __getattr__(self, name: str) -> Any:
        names = object.__getattribute__(self, "names")
        if name in names:
            return object.__getattribute__(self, "components")[names.index(name)]
        raise AttributeError(f"{type(self).__name__} has no component {name!r}{suggest(name, names)}")

    @property
    def parameters(self) -> tuple[str, ...]:
        """Names of all parameters, in the order of `diff`."""
        return tuple(name for name, _ in leaf_names(self, parameters(self)))

    @property
    def columns(self) -> tuple[str, ...]:
        """The name of each column; a `MomentExpansion` has several."""
        found: list[str] = []
        for name, component in zip(self.names, self.components, strict=True):
            shapes, structure = jax.tree_util.tree_flatten(_one_pixel(component))
            count = _width(structure, tuple(shapes))
            found.extend([name] if count == 1 else [f"{name}[{k}]" for k in range(count)])
        return tuple(found)

    def amplitude_units(self, units: str) -> tuple[str, ...]:
        """Name the unit of the amplitude of each column, for maps in `units`: `uy_SZ` of a `ThermalSZ` in uK_CMB."""
        labels = [name.split("[")[0] for name in self.columns]
        each = dict(zip(self.names, self.components, strict=True))
        return tuple(each[label].amplitude_units(units) for label in labels)

    def eval(self, nu: Frequencies) -> Float[Array, "f c"]:
        """Evaluate the matrix at frequencies nu in GHz, or over bands, gains of the channels included.

        Angles are not: those are between Stokes parameters, as `response` has them.

        **Raises:** `ValueError` for a calibration of another number of channels.
        """

        def spectra(nu: Array) -> Array:
            return jnp.concatenate([component.columns(nu) for component in self.components], axis=1)

        A = over_bands(spectra, nu)
        if self.calibration is None:
            return A
        check_channels(self.calibration, A.shape[0])
        return A * jnp.stack([channel.gain for channel in self.calibration.channels])[:, None]

    def response(self, nu: Frequencies, stokes: str = "QU") -> Float[Array, "sf sc"]:
        """Evaluate what all channels read of all components, from Stokes parameters to Stokes parameters.

        **Arguments:** `nu`: as in `eval`. `stokes`: `"I"`, `"QU"` or `"IQU"`.

        **Returns:** (s f, s c): the channels of one Stokes parameter after the other, and the components likewise.
        """
        A, s = self.eval(nu), len(stokes)
        if s == 1:
            return A
        none = jnp.zeros(A.shape[0])
        angles = [] if self.calibration is None else [channel.angle for channel in self.calibration.channels]
        turn = jnp.stack([jnp.zeros(()) if one is None else one for one in angles]) if angles else none
        return turned(A[:, :, None], turn[:, None], s)[:, :, 0]

    def diff(self, nu: Frequencies, free: Sequence[str] | None = None) -> Float[Array, "k f c"]:
        """Differentiate it with respect to each parameter.

        **Arguments:** `nu`: as in `eval`. `free`: names or globs; `None` for all parameters, as in `.parameters`.
        """
        fn, y = self._flat(nu, free)
        return jnp.moveaxis(jax.jacfwd(fn)(y), -1, 0)

    def diff_diff(self, nu: Frequencies, free: Sequence[str] | None = None) -> Float[Array, "k k f c"]:
        """Differentiate it twice; arguments as in `diff`."""
        fn, y = self._flat(nu, free)
        return jnp.moveaxis(jax.jacfwd(jax.jacfwd(fn))(y), (-2, -1), (0, 1))

    def operator(self, nu: Frequencies) -> lx.MatrixLinearOperator:
        """Give the matrix as a lineax operator from amplitudes to channels."""
        return lx.MatrixLinearOperator(self.eval(nu))

    def _flat(self, nu: Frequencies, free: Sequence[str] | None) -> tuple[Callable[..., Array], Array]:
        chosen = match(self, ["*"] if free is None else free, "the mixing matrix") if free or self.parameters else []
        for name, shape in leaf_names(self, chosen):
            if shape != ():
                raise ValueError(f"{name} is a map of shape {shape}: derivatives are for one pixel, use jax.vmap")
        moving, rest = eqx.partition(self, free_spec(self, chosen))
        y, unravel = jfu.ravel_pytree(moving)
        return lambda y: eqx.combine(unravel(y), rest).eval(nu), y


def spectral(names: Sequence[str]) -> list[str]:
    """Those of these parameters that are of spectra, and not of the channels' calibration."""
    return [name for name in names if not name.startswith(f"{CALIBRATION}.")]


def check_channels(calibration: Calibration, f: int) -> None:
    """Raise where a calibration is of other channels.

    **Raises:** `ValueError` naming both numbers.
    """
    if len(calibration.channels) != f:
        raise ValueError(f"the calibration is of {len(calibration.channels)} channels, but there are {f}")


def turned(
    columns: Float[Array, "f n _"], angle: Float[Array, "f _"], s: int, slope: bool = False
) -> Float[Array, "sf sn _"]:
    """Columns of s Stokes parameters at once, with Q and U turned by angles in degrees; or the angles' derivative.

    One Stokes parameter comes after the other, among the channels and among the columns; I, if any, is not turned.
    """
    radian = jnp.pi / 90  # twice the angle
    cos, sin = jnp.cos(radian * angle)[:, None], jnp.sin(radian * angle)[:, None]
    if slope:
        cos, sin = -radian * sin, radian * cos
    even, odd, none = cos * columns, sin * columns, jnp.zeros_like(cos * columns)
    rows = [[even, -odd], [odd, even]]
    if s == 3:
        first = none if slope else none + columns
        rows = [[first, none, none], *([none, *row] for row in rows)]
    return jnp.concatenate([jnp.concatenate(row, axis=1) for row in rows], axis=0)


# kept by structure and shapes: a fit asks a dozen times, and each answer takes a trace
@functools.lru_cache(maxsize=512)
def _width(structure: jax.tree_util.PyTreeDef, shapes: tuple[jax.ShapeDtypeStruct, ...]) -> int:
    """How many columns a component of this form has."""
    probe = jax.ShapeDtypeStruct((1,), jnp.zeros(()).dtype)
    component = jax.tree_util.tree_unflatten(structure, shapes)
    return jax.eval_shape(lambda sed, nu: sed.columns(nu), component, probe).shape[1]


def _one_pixel(component: AbstractSED) -> AbstractSED:
    """The shapes of a component whose parameters are scalars."""
    spec = free_spec(component, parameters(component))

    def shape(free: bool, leaf: Array) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(() if free else jnp.shape(leaf), jnp.result_type(leaf))

    return jax.tree_util.tree_map(shape, spec, component)


def at_lanes(mixing: MixingMatrix, rows: Mapping[str, Values]) -> MixingMatrix:
    """Replace the values of some parameters, whatever their shape: a value for each cell or pixel, say."""
    if not rows:
        return mixing
    moving, rest = eqx.partition(mixing, free_spec(mixing, list(rows)))
    names = [name for name, _ in leaf_names(mixing, list(rows))]
    leaves: list[Array] = [jnp.asarray(rows[name]) for name in names]
    return eqx.combine(jax.tree_util.tree_unflatten(jax.tree_util.tree_structure(moving), leaves), rest)


def check_units(mixing: MixingMatrix, units: str) -> None:
    """Raise where a component's spectrum is in another unit than the maps.

    **Raises:** `ValueError` naming the component and both units.
    """
    base = split_unit(units)[1]
    for name, component in zip(mixing.names, mixing.components, strict=True):
        own = units_of(component)
        if own is not None and own != base:
            written = isinstance(component, AnalyticSED | TabulatedSED) and component.given is None
            more = f" (and given={own!r}, if its numbers are in {own})" if written else ""
            raise ValueError(
                f"component {name!r} is in {own}, but the maps are in {units}: make it with units={base!r}{more}, "
                "or convert the maps"
            )
