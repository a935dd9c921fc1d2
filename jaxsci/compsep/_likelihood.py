"""The likelihood of spectral parameters with the amplitudes projected out, for many pixels at once.

For given spectra the amplitudes of greatest likelihood are linear in the data, s = W d, and what remains is
r = (1 - P) d, whitened (variable projection: Golub and Pereyra 1973). Its exact gradient is -(A_k s)^T r, and with
J_k = (1 - P) A_k s (Kaufman 1975) the information is J^T J: one pass gives all three. Arrays have pixels last, so that
the small algebra of each pixel is a vector operation.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import equinox as eqx
import equinox.internal as eqxi
import jax
import jax.numpy as jnp
import jax.tree_util as jtu
from jaxtyping import Array, Bool, Float, Int, PyTree

from ..core._dataset import AbstractDataset
from ..core._likelihood import AbstractLikelihood
from ..core._linalg import factorise
from ..core._module import Module
from ..core._noise import AbstractNoise, White
from ..core._parameter import free_spec, leaf_names, leaf_values, parameters
from ..core._rows import rows
from ..core._typing import Flag
from ._bandpass import Frequencies, over_bands
from ._mixing import MixingMatrix

_UNROLL = 32  # channels
_MANY = 64  # cells from which it pays to compile longer
_NOTHING = 256  # roundings below which a difference is 0


class Maps(Module):
    """Whitened data of Stokes parameters that have the same noise, in k cells of m columns each.

    - `data`: R d. `root`: R with R^T R = N^-1, 1/sigma (f, q) or a matrix (f, f, q) for correlated channels; q is 1, or
      k where the noise differs. Zeros mask channels.
    """

    data: Float[Array, "f m k"]
    root: Float[Array, "f q"] | Float[Array, "f f q"]

    def whiten(self, column: Float[Array, "f _"]) -> Float[Array, "f _"]:
        """R of a spectrum."""
        if self.root.ndim == 2:
            return self.root * column
        if self.root.shape[2] == 1:
            return self.root[:, :, 0] @ column
        return jnp.sum(self.root * column[None], axis=1)

    @staticmethod
    def make(observed: Float[Array, "f m k"], root: Array) -> "Maps":
        """Whitened maps from observed ones, which may hold anything where no weight reaches."""
        used = root != 0 if root.ndim == 2 else jnp.any(root != 0, axis=0)
        data = jnp.where(used[:, None], observed, 0)
        if root.ndim == 2:
            return Maps(data * root[:, None], root)
        if root.shape[2] == 1:
            return Maps(jnp.einsum("fg,gmk->fmk", root[..., 0], data), root)
        return Maps(jnp.sum(root[:, :, None] * data[None], axis=1), root)


class Sky(AbstractDataset):
    """Whitened maps in k cells; all pixels of a cell share the spectral parameters and the noise.

    - `nu`: frequencies in GHz, or `Bands`. `maps`: a `Maps` for each set of Stokes parameters of equal noise.
    - `count`: how many pixels of them each cell has. (Their data may be fewer columns that say the same.)
    - `names`, `index`: which element of each parameter that is a map each cell has.
    - `marginal`: integrate amplitudes out instead of maximising over them: log |A^T N^-1 A| / 2 a pixel more. The
      profile likelihood is what fgbuster has; it is biased where the signal is weak.
    """

    nu: Frequencies  # type: ignore[misc]
    maps: tuple[Maps, ...]  # type: ignore[misc]
    count: tuple[Float[Array, " k"], ...]  # type: ignore[misc]
    index: tuple[Int[Array, " k"], ...]  # type: ignore[misc]
    noise: AbstractLikelihood  # type: ignore[misc]
    names: tuple[str, ...] = eqx.field(static=True)  # type: ignore[misc]
    marginal: bool = eqx.field(static=True)  # type: ignore[misc]
    mask: Bool[Array, " n"] = rows(False)

    def __init__(
        self,
        nu: Frequencies,
        maps: Sequence[Maps],
        index: Mapping[str, Array] | None = None,
        count: Sequence[Array] | None = None,
        marginal: bool = False,
    ):
        self.nu, self.maps = nu, tuple(maps)
        if count is None:
            count = [jnp.full(m.data.shape[2], float(m.data.shape[1]), m.data.dtype) for m in self.maps]
        self.count = tuple(count)
        self.names = tuple(index or ())
        self.index = tuple((index or {}).values())
        self.mask = jnp.ones(sum(m.data.size for m in self.maps), bool)
        self.noise = White(jnp.ones(()))
        self.marginal = marginal

    def residual(self, model: MixingMatrix) -> Float[Array, " n"]:
        """-(1 - P) d, whitened."""
        values, _ = self.spectra(model, ())
        return -jnp.concatenate([project(m, values).residual.ravel() for m in self.maps])

    def finite(self) -> Flag:
        return jnp.all(jnp.stack([jnp.all(jnp.isfinite(x)) for m in self.maps for x in (m.data, m.root)]))

    def spectra(self, model: MixingMatrix, free: Sequence[str]) -> tuple[list[Array], list["Derivative"]]:
        """(columns, their derivatives with respect to the free parameters), each (f, k), or (f, 1) where constant."""
        columns: list[Array] = []
        moved: list[Derivative] = []
        maps = dict(zip(self.names, self.index, strict=True))
        for label, component in zip(model.names, model.components, strict=True):
            wanted = [name.removeprefix(f"{label}.") for name in free if name.startswith(f"{label}.")]
            local = {name.removeprefix(f"{label}."): i for name, i in maps.items() if name.startswith(f"{label}.")}
            values, partials = _component(component, self.nu, wanted, local)
            for partial in partials:
                moved.append([(len(columns) + j, partial[:, j]) for j in range(partial.shape[1])])
            columns.extend(values[:, j] for j in range(values.shape[1]))
        return columns, moved

    def amplitudes(self, model: MixingMatrix) -> tuple[Float[Array, "c m k"], ...]:
        """s = W d of each column of data."""
        values, _ = self.spectra(model, ())
        return tuple(project(m, values).amplitude for m in self.maps)

    def sums(self, at: Any, y: Float[Array, " p"], likelihood: AbstractLikelihood, derivatives: bool) -> PyTree | None:
        if not isinstance(likelihood, AbstractNoise):
            return None
        where = {name: leaf.astype(int) for name, leaf in leaf_values(at.places)} if derivatives else {}
        cells = self.cells(at.model(y), tuple(where))
        cost = jnp.sum(cells.cost)
        if not derivatives:
            return cost, 2 * cost[None, None]
        maps = dict(zip(self.names, self.index, strict=True))
        lanes = [place[maps[name]] if place.ndim else place for name, place in where.items()]
        p = y.shape[0]
        total = jnp.zeros((p + 1, p + 1), y.dtype).at[p, p].set(2 * cost)
        for i, place in enumerate(lanes):
            total = _add(total, place, jnp.array(p), cells.grad[i])
            for j, other in enumerate(lanes[: i + 1]):
                total = _add(total, place, other, cells.gram[i][j] * (0.5 if i == j else 1))
        return cost, total

    def cells(self, model: MixingMatrix, free: Sequence[str]) -> "Cells":
        """Cost, gradient and information of each cell by itself, with respect to the free parameters there."""

        def spectra(model: MixingMatrix) -> Any:
            values, moved = self.spectra(model, free)
            return values, [x for derivative in moved for _, x in derivative]

        def whitened(found: Any, maps: tuple[Maps, ...]) -> list[Any]:
            return [jtu.tree_map(m.whiten, found) for m in maps]

        white = apart(whitened, apart(spectra, model), self.maps)
        owners = self._owners(model, free)
        parts = []
        for maps, count, (columns, moved) in zip(self.maps, self.count, white, strict=True):
            moments = apart(Moments.of, columns, moved, maps.data)
            solved = apart(Solved.of, moments)
            parts.append(_cells_of(moments, solved, owners, count if self.marginal else None))
            parts[-1] = parts[-1]._replace(cost=parts[-1].cost + apart(_square, columns, solved.amplitude, maps.data))
        return jtu.tree_map(lambda *x: functools.reduce(jnp.add, x), *parts)

    def _owners(self, model: MixingMatrix, free: Sequence[str]) -> list[list[int]]:
        """Which columns each free parameter moves."""
        labels = [name.split("[")[0] for name in model.columns]
        return [[j for j, label in enumerate(labels) if name.startswith(f"{label}.")] for name in free]


Derivative = list[tuple[int, Array]]
"""(column, derivative of it (f, k)) for each column that depends on a parameter."""


class Cells(NamedTuple):
    """Of each cell: cost (k,), gradient and lower triangle of the information, each a (k,) a parameter."""

    cost: Array
    grad: list[Array]
    gram: list[list[Array]]


class Projection(NamedTuple):
    """Data against whitened columns (f, k): amplitude (c, m, k), residual (f, m, k), Factor of A^T N^-1 A (1, k)."""

    columns: list[Array]
    factor: Any
    amplitude: Array
    data: Array

    @property
    def residual(self) -> Array:
        """r = (1 - P) d."""
        explained = (a[:, None] * s[None] for a, s in zip(self.columns, self.amplitude, strict=True))
        return functools.reduce(jnp.subtract, explained, self.data)


class Moments(NamedTuple):
    """Sums over channels of products of whitened columns a, their derivatives b and data d.

    - `normal`: a a, lower triangle, each (1, k). `data`: a d, each (m, k). `side`: b a, each (1, k).
    - `whole`: b b, lower triangle, each (k,). `along`: b d, each (m, k). Derivatives in one list, as of `Sky.spectra`.
    """

    normal: list[list[Array]]
    data: list[Array]
    side: list[list[Array]]
    whole: list[list[Array]]
    along: list[Array]

    @staticmethod
    def of(columns: list[Array], moved: list[Array], data: Array) -> "Moments":
        """The sums of these columns, derivatives and data."""
        return Moments(
            [[over_channels(a, b)[None] for b in columns[: i + 1]] for i, a in enumerate(columns)],
            [over_channels(a[:, None], data) for a in columns],
            [[over_channels(b, a)[None] for a in columns] for b in moved],
            [[over_channels(b, other) for other in moved[: i + 1]] for i, b in enumerate(moved)],
            [over_channels(b[:, None], data) for b in moved],
        )


class Solved(NamedTuple):
    """Amplitudes (c, m, k), M^-1 of each `side` (c, 1, k), and log |M|, M = A^T N^-1 A."""

    amplitude: Array
    parts: list[Array]
    logdet: Array

    @staticmethod
    def of(moments: Moments) -> "Solved":
        """The small systems of every pixel."""
        factor = factorise(_symmetric(moments.normal))
        parts = [factor.solve(jnp.stack(jnp.broadcast_arrays(*side))) for side in moments.side]
        logdet = -functools.reduce(jnp.add, map(jnp.log, factor.inverse_pivots))
        return Solved(factor.solve(jnp.stack(moments.data)), parts, logdet[0])


def _symmetric(lower: list[list[Array]]) -> Array:
    flat = iter(jnp.broadcast_arrays(*(x for row in lower for x in row)))
    square = [[next(flat) for _ in row] for row in lower]
    c = range(len(lower))
    return jnp.stack([jnp.stack([square[max(i, j)][min(i, j)] for j in c]) for i in c])


def _square(columns: list[Array], amplitude: Array, data: Array) -> Array:
    """|r|^2 / 2 of each cell."""
    explained = (a[:, None] * s[None] for a, s in zip(columns, amplitude, strict=True))
    residual = functools.reduce(jnp.subtract, explained, data)
    return jnp.sum(over_channels(residual, residual), 0) / 2


def _cells_of(moments: Moments, solved: Solved, owners: list[list[int]], count: Array | None) -> "Cells":
    """What one `Maps` adds, but for the residual; `count` where amplitudes are integrated out."""
    places = [(k, j) for k, columns in enumerate(owners) for j in columns]
    s = solved.amplitude
    k = s.shape[2]
    zero = jnp.zeros(k, s.dtype)
    grad, gram = [zero] * len(owners), [[zero] * (i + 1) for i in range(len(owners))]
    for a, (i, j) in enumerate(places):
        side, part = jnp.stack(jnp.broadcast_arrays(*moments.side[a])), solved.parts[a]
        grad[i] = grad[i] - jnp.sum(s[j] * (moments.along[a] - over_channels(side, s)), 0)
        if count is not None:
            grad[i] = grad[i] + count * part[j, 0]
        for b, (h, column) in enumerate(places[: a + 1]):
            whole = moments.whole[a][b]
            left = whole - over_channels(side, solved.parts[b])[0]
            if a == b:
                left = jnp.where(left > _NOTHING * jnp.finfo(left.dtype).eps * whole, left, 0)
            both = 2 if i == h and a != b else 1
            gram[i][h] = gram[i][h] + both * left * jnp.sum(s[j] * s[column], 0)
    cost = zero if count is None else count * solved.logdet / 2
    return Cells(cost, grad, gram)


def apart(fn: Callable[..., Any], *args: Any) -> Any:
    """fn(*args), which a branch keeps from being fused with what makes its arguments or takes its results.

    Left alone, XLA recomputes small pieces of algebra in each of their many users, five times the work in all. Of few
    cells that is no matter.
    """
    if max(x.shape[-1] for x in jtu.tree_leaves(args) if eqx.is_inexact_array(x) and x.ndim) < _MANY:
        return fn(*args)
    first = next(x for x in jtu.tree_leaves(args) if eqx.is_inexact_array(x))
    arrays, rest = eqx.partition(args, eqx.is_array)

    def run(arrays: Any) -> Any:
        return fn(*eqx.combine(arrays, rest))

    def spoilt(arrays: Any) -> Any:
        return jtu.tree_map(lambda x: jnp.full(x.shape, jnp.nan, x.dtype), jax.eval_shape(run, arrays))

    fine = eqxi.unvmap_any(jnp.ravel(first)[0] == jnp.ravel(first)[0])
    return jax.lax.cond(fine, run, spoilt, arrays)


def project(maps: Maps, values: list[Array]) -> Projection:
    """Least squares of the data on the columns; without any weight, amplitude and residual are 0."""
    columns = [maps.whiten(value) for value in values]
    products = {(i, j): over_channels(columns[i], columns[j])[None] for i in range(len(columns)) for j in range(i + 1)}
    flat = dict(zip(products, jnp.broadcast_arrays(*products.values()), strict=True))
    c = range(len(columns))
    factor = factorise(jnp.stack([jnp.stack([flat[max(i, j), min(i, j)] for j in c]) for i in c]))
    amplitude = factor.solve(jnp.stack([over_channels(a[:, None], maps.data) for a in columns]))
    return Projection(columns, factor, amplitude, maps.data)


def over_channels(x: Float[Array, "f ..."], y: Float[Array, "f ..."]) -> Float[Array, "..."]:
    """The sum of products over the leading axis; over many cells, unrolled, three times as fast as XLA's reduction."""
    if x.shape[0] > _UNROLL or max(x.shape[-1], y.shape[-1]) < _MANY:
        return jnp.sum(x * y, axis=0)
    return functools.reduce(jnp.add, (x[f] * y[f] for f in range(x.shape[0])))


def _component(component: Any, nu: Frequencies, wanted: list[str], index: Mapping[str, Array]) -> Any:
    """(columns (f, c, k), [derivative with respect to each wanted parameter (f, c, k)])."""
    shapes = dict(leaf_names(component, parameters(component)))
    leaves = dict(leaf_values(component))
    mapped = [name for name, shape in shapes.items() if shape]
    values = {name: leaves[name][index[name]] if name in mapped else leaves[name] for name in shapes}
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


def _add(total: Array, row: Array, column: Array, lanes: Array) -> Array:
    """total[row, column] += lanes and its mirror image, for places that are one for all lanes or one a lane."""
    if row.ndim == 0 and column.ndim == 0:
        lanes = jnp.sum(lanes)
    return total.at[row, column].add(lanes).at[column, row].add(lanes)
