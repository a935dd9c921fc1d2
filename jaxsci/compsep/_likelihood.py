"""The likelihood of spectral parameters with the amplitudes projected out, for many pixels at once.

For given spectra the amplitudes of greatest likelihood are linear in the data, s = W d, and what remains is
r = (1 - P) d, whitened (variable projection: Golub and Pereyra 1973). Its exact gradient is -(A_k s)^T r, and with
J_k = (1 - P) A_k s (Kaufman 1975) the information is J^T J: one pass gives all three. Arrays have pixels last, so that
the small algebra of each pixel is a vector operation.
"""

import functools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.tree_util as jtu
from jaxtyping import Array, Bool, Float, Int, PyTree

from ..core import (
    AbstractLikelihood,
    AbstractNoise,
    Flag,
    Module,
    White,
    free_spec,
    leaf_names,
    leaf_values,
    parameters,
    rows,
)
from ..datasets import AbstractDataset
from ..fitting import compiled
from ._bandpass import Frequencies, over_bands
from ._mixing import MixingMatrix
from ._moments import Cells, Moments, Places, Projected, Solved, apart, cells_of, explained, square
from ._noise import weighted
from ._soft import mean


class Maps(Module):
    """Whitened data in s sets of Stokes parameters that have the same noise, in k cells of m columns each.

    - `data`: R d; a set with fewer columns has zeros in the rest. `root`: R with R^T R = N^-1, 1/sigma (s, f, q) or a
      matrix (s, f, f, q) for correlated channels; q is 1, or k where the noise differs. Zeros mask channels.
    """

    data: Float[Array, "s f m k"]
    root: Float[Array, "s f q"] | Float[Array, "s f f q"]

    @staticmethod
    def make(observed: Float[Array, "s f m k"], root: Array) -> "Maps":
        """Whitened maps from observed ones, which may hold anything where no weight reaches."""
        return Maps(jax.vmap(_white_data)(observed, root), root)


def _white_data(observed: Float[Array, "f m k"], root: Array) -> Float[Array, "f m k"]:
    data = jnp.where(weighted(root)[:, None], observed, 0)
    if root.ndim == 3 and root.shape[2] == 1:
        return jnp.einsum("fg,gmk->fmk", root[..., 0], data)
    return whiten(root, data)


def whiten(root: Float[Array, "f q"] | Float[Array, "f f q"], columns: Float[Array, "f n _"]) -> Float[Array, "f n _"]:
    """R of n spectra."""
    if root.ndim == 2:
        return root[:, None] * columns
    if root.shape[2] == 1:
        return jnp.tensordot(root[:, :, 0], columns, 1)
    return jnp.sum(root[:, :, None] * columns[None], axis=1)


def white_pair(found: tuple[Array, Array], root: Array) -> tuple[Float[Array, "s f c _"], Float[Array, "s f b _"]]:
    """Columns and their derivatives, for the noise of each set."""
    columns, moved = (jax.vmap(whiten, (0, None))(root, x) for x in found)
    return columns, moved


class Sky(AbstractDataset):
    """Whitened maps in k cells; all pixels of a cell share the spectral parameters and the noise.

    - `nu`: frequencies in GHz, or `Bands`. `maps`: of each set of Stokes parameters of equal noise.
    - `count`: how many pixels of each set a cell has. (Their data may be fewer columns that say the same.)
    - `names`, `index`: which element of each parameter that is a map each cell has; its own, where nothing is said. In
      soft patches they are several (q, k), whose mean with the weights `share` it has.
    - `marginal`: integrate amplitudes out instead of maximising over them: log |A^T N^-1 A| / 2 a pixel more. The
      profile likelihood is what fgbuster has; it is biased where the signal is weak.
    """

    nu: Frequencies  # type: ignore[misc]
    maps: Maps  # type: ignore[misc]
    count: Float[Array, "s k"]  # type: ignore[misc]
    index: tuple[Int[Array, " k"] | Int[Array, "_ k"], ...]  # type: ignore[misc]
    share: tuple[Float[Array, "_ k"] | None, ...]  # type: ignore[misc]
    noise: AbstractLikelihood  # type: ignore[misc]
    names: tuple[str, ...] = eqx.field(static=True)  # type: ignore[misc]
    marginal: bool = eqx.field(static=True)  # type: ignore[misc]
    mask: Bool[Array, " n"] = rows(False)

    def __init__(
        self,
        nu: Frequencies,
        maps: Maps,
        index: Mapping[str, Array] | None = None,
        count: Array | None = None,
        marginal: bool = False,
        share: Mapping[str, Array] | None = None,
    ):
        self.nu, self.maps = nu, maps
        s, _, m, k = maps.data.shape
        self.count = jnp.full((s, k), float(m), maps.data.dtype) if count is None else count
        self.names = tuple(index or ())
        self.index = tuple((index or {}).values())
        self.share = tuple((share or {}).get(name) for name in self.names)
        self.mask = jnp.ones(maps.data.size, bool)
        self.noise = White(jnp.ones(()))
        self.marginal = marginal

    def residual(self, model: MixingMatrix) -> Float[Array, " n"]:
        """-(1 - P) d, whitened."""
        columns, _ = self.spectra(model, ())

        def one(data: Array, root: Array) -> Array:
            white = whiten(root, columns)
            amplitude = Solved.of(Moments.of(white, white[:, :0], data)).amplitude
            return explained(white, amplitude) - data

        return jax.vmap(one)(self.maps.data, self.maps.root).ravel()

    def finite(self) -> Flag:
        return jnp.all(jnp.isfinite(self.maps.data)) & jnp.all(jnp.isfinite(self.maps.root))

    def spectra(self, model: MixingMatrix, free: Sequence[str]) -> tuple[Float[Array, "f c _"], Float[Array, "f b _"]]:
        """(columns, their derivatives at `places`); the last axis is k, or 1 where none of them varies."""
        columns: list[Array] = []
        moved: list[Array] = []
        maps = self._places()
        for label, component in zip(model.names, model.components, strict=True):
            wanted = [name.removeprefix(f"{label}.") for name in free if name.startswith(f"{label}.")]
            local = {name.removeprefix(f"{label}."): i for name, i in maps.items() if name.startswith(f"{label}.")}
            values, partials = _component(component, self.nu, wanted, local)
            moved.extend(partial[:, j] for partial in partials for j in range(partial.shape[1]))
            columns.extend(values[:, j] for j in range(values.shape[1]))
        both = jnp.stack(jnp.broadcast_arrays(*columns, *moved), axis=1)
        return both[:, : len(columns)], both[:, len(columns) :]

    def sums(self, at: Any, y: Float[Array, " p"], likelihood: AbstractLikelihood, derivatives: bool) -> PyTree | None:
        if not isinstance(likelihood, AbstractNoise):
            return None
        where = {name: leaf.astype(int) for name, leaf in leaf_values(at.places)} if derivatives else {}
        cells = self.cells(at.model(y), tuple(where))
        cost = jnp.sum(cells.cost)
        if not derivatives:
            return cost, 2 * cost[None, None]
        maps = self._places()
        lanes = [_Lanes(place) if place.ndim == 0 else _Lanes.of(place, *maps[name]) for name, place in where.items()]
        p = y.shape[0]
        total = jnp.zeros((p + 1, p + 1), y.dtype).at[p, p].set(2 * cost)
        for i, place in enumerate(lanes):
            total = _add(total, place, _Lanes(jnp.array(p)), cells.grad[i])
            for j, other in enumerate(lanes[: i + 1]):
                total = _add(total, place, other, cells.gram[i, j] * (0.5 if i == j else 1))
        return cost, total

    def _places(self) -> dict[str, tuple[Array, Array | None]]:
        """(element, share) of each parameter that is a map."""
        return dict(zip(self.names, zip(self.index, self.share, strict=True), strict=True))

    def cells(self, model: MixingMatrix, free: Sequence[str]) -> Cells:
        """Cost, gradient and information of each cell by itself, with respect to the free parameters there."""
        # a program of its own: a fit and its derivatives ask for it a dozen times, and it is traced once
        return compiled(_cells, (self, model), (tuple(free),))


def _cells(sky: Sky, model: MixingMatrix, free: tuple[str, ...]) -> Cells:
    def spectra(model: MixingMatrix) -> Any:
        return sky.spectra(model, free)

    places, found = places_of(model, free), apart(spectra, model)
    data, count = sky.maps.data, sky.count if sky.marginal else None
    columns, moved = apart(white_pair, found, sky.maps.root)
    moments = apart(jax.vmap(Moments.of), columns, moved, data)
    solved = apart(jax.vmap(Solved.of), moments)
    finish = functools.partial(cells_of, places, len(free))
    projected = apart(jax.vmap(Projected.of), columns, moved, data, moments.side, solved.parts)
    parts = apart(jax.vmap(finish), projected, solved, count)
    parts = parts._replace(cost=parts.cost + apart(jax.vmap(square), columns, solved.amplitude, data))
    return jtu.tree_map(lambda x: functools.reduce(jnp.add, x), parts)


def places_of(model: MixingMatrix, free: Sequence[str]) -> Places:
    """Which parameter and column each derivative of `Sky.spectra` belongs to."""
    labels = [name.split("[")[0] for name in model.columns]
    return [
        (i, j)
        for label in model.names
        for i, name in enumerate(free)
        if name.startswith(f"{label}.")
        for j, owner in enumerate(labels)
        if owner == label
    ]


def _component(component: Any, nu: Frequencies, wanted: list[str], index: Mapping[str, tuple[Any, Any]]) -> Any:
    """(columns (f, c, k), [derivative with respect to each wanted parameter (f, c, k)])."""
    shapes = dict(leaf_names(component, parameters(component)))
    leaves = dict(leaf_values(component))
    mapped = [name for name, shape in shapes.items() if shape]
    here = {name: mean(leaves[name], *index[name]) for name in mapped if name in index}
    values = {name: here.get(name, leaves[name]) for name in shapes}
    moving, rest = eqx.partition(component, free_spec(component, shapes))
    structure = jtu.tree_structure(moving)

    def columns(point: dict[str, Array], nu: Any) -> Array:
        full = eqx.combine(jtu.tree_unflatten(structure, [point[name] for name in shapes]), rest)
        return over_bands(full.columns, nu)

    def one(point: dict[str, Array], nu: Any) -> tuple[Array, list[Array]]:
        still = {name: jnp.zeros_like(x) for name, x in point.items()}
        units = [still | {name: jnp.ones_like(point[name])} for name in wanted]
        return columns(point, nu), [jax.jvp(lambda p: columns(p, nu), (point,), (unit,))[1] for unit in units]

    if not mapped:
        return jtu.tree_map(lambda x: x[..., None], one(values, nu))
    axes = {name: 0 if name in mapped else None for name in shapes}
    # channels outside and cells inside, so that no array is ever turned round
    channels = jtu.tree_map(lambda x: x[:, None], nu)
    found = jax.vmap(lambda channel: jax.vmap(lambda point: one(point, channel), (axes,))(values))(channels)
    return jtu.tree_map(lambda x: jnp.moveaxis(x[:, :, 0], 2, 1), found)


class _Lanes(NamedTuple):
    """Where lanes belong in the sums: at one place for all (), or at several (q, k), with a share (q, k) in each."""

    at: Array
    share: Array | None = None

    @staticmethod
    def of(place: Array, index: Array, share: Array | None) -> "_Lanes":
        return _Lanes(place[index].reshape(-1, index.shape[-1]), share)


def _add(total: Array, row: _Lanes, column: _Lanes, lanes: Array) -> Array:
    """total[row, column] += lanes and its mirror image."""
    lanes = jnp.sum(lanes) if row.at.ndim == column.at.ndim == 0 else lanes[None, None]
    at = []
    for axis, (place, share) in ((1, row), (0, column)):
        at.append(jnp.expand_dims(place, axis) if place.ndim else place)
        lanes = lanes if share is None else lanes * jnp.expand_dims(share, axis)
    return total.at[at[0], at[1]].add(lanes).at[at[1], at[0]].add(lanes)
