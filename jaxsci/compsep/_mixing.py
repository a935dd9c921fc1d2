"""The mixing matrix: what each component contributes to each frequency channel.

It is the model of this room: components by name, with their spectra, and the parameters of all of them under dotted
names. Fits move its parameters, recipes evaluate it and its derivatives, and everything that is said of a parameter is
said by the names that it gives.
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

from ..core import Module, free_spec, labelled, leaf_names, match, parameters, snake, suggest
from ._given import Values
from ._instrument import Frequencies, over_bands
from ._spectra import AbstractSED, AnalyticSED, TabulatedSED, units_of
from ._units import split_unit


class MixingMatrix(Module):
    """Put sky components side by side: `MixingMatrix(cmb=CMB(), dust=ModifiedBlackBody(), sync=PowerLaw())`.

    Components given without a name get that of their class, with a number where there are several. Parameters
    have names such as `dust.beta`. Written for one pixel; a matrix of maps has leaves with an axis more.

    **Raises:** `ValueError` for something that is no SED, and without any component.
    """

    names: tuple[str, ...] = eqx.field(static=True)
    components: tuple[AbstractSED, ...] = labelled("names")

    def __init__(self, *components: object, **named: object):
        together: dict[str, Any] = {}
        for component in components:
            name, k = snake(component), 2
            while name in together or name in named:
                name, k = f"{snake(component)}_{k}", k + 1
            together[name] = component
        together |= named
        for name, component in together.items():
            if not isinstance(component, AbstractSED):
                raise ValueError(f"component {name!r} should be an SED, but it is a {type(component).__name__}")
        if not together:
            raise ValueError("a mixing matrix needs at least one component")
        self.names, self.components = tuple(together), tuple(together.values())

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
        """Evaluate the matrix at frequencies nu in GHz, or over bands."""

        def spectra(nu: Array) -> Array:
            return jnp.concatenate([component.columns(nu) for component in self.components], axis=1)

        return over_bands(spectra, nu)

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
