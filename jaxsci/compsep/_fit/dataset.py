"""The likelihood of spectral parameters with the amplitudes projected out, for many pixels at once.

For given spectra the amplitudes of greatest likelihood are linear in the data, s = W d, and what remains is
r = (1 - P) d, whitened (variable projection: Golub and Pereyra 1973). Its exact gradient is -(A_k s)^T r, and with
J_k = (1 - P) A_k s (Kaufman 1975) the information is J^T J: one pass gives all three. Arrays have pixels last, so that
the small algebra of each pixel is a vector operation. All fits of this room read a `SkyDataset`, and so does
`jaxsci.fit`, with any solver.
"""

import functools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.tree_util as jtu
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PyTree

from ...core import (
    AbstractLikelihood,
    AbstractNoise,
    Flag,
    White,
    free_spec,
    leaf_names,
    leaf_values,
    parameters,
    rows,
)
from ...datasets import AbstractDataset
from ...fitting import compiled
from .._given import Values
from .._instrument import Frequencies, channel_count, over_bands
from .._mixing import CALIBRATION, Calibration, MixingMatrix, check_channels, turned
from .._noise import weighted
from .._patches import mean
from .._sky import Sky
from .._spectra import AbstractSED
from .normal_equations import (
    CellSums,
    Derivatives,
    Moments,
    Projected,
    Solved,
    apart,
    explained,
    square,
    sums_of_cells,
)


def whiten(root: Float[Array, "f q"] | Float[Array, "f f q"], columns: Float[Array, "f n _"]) -> Float[Array, "f n _"]:
    """R of n spectra."""
    if root.ndim == 2:
        return root[:, None] * columns
    if root.shape[2] == 1:
        return jnp.tensordot(root[:, :, 0], columns, 1)
    return jnp.sum(root[:, :, None] * columns[None], axis=1)


def whitened(data: Float[Array, "s f m k"], root: Array) -> Float[Array, "s f _ k"]:
    """Whiten the maps of all sets; more columns than there are channels are replaced by as many that say the same."""

    def compressed(data: Array, root: Array) -> Array:
        # a channel without weight may hold anything
        return compress(jnp.where(weighted(root)[:, None], data, 0))

    if root.shape[-1] == 1 and data.shape[2] > data.shape[1]:
        data = jax.vmap(compressed)(data, root)
    return white_data(data, root)


def white_data(observed: Float[Array, "s f m k"], root: Array) -> Float[Array, "s f m k"]:
    """R d of each set, of observed maps, which may hold anything where no weight reaches."""
    return jax.vmap(_white_data)(observed, root)


def _white_data(observed: Float[Array, "f m k"], root: Array) -> Float[Array, "f m k"]:
    data = jnp.where(weighted(root)[:, None], observed, 0)
    if root.ndim == 3 and root.shape[2] == 1:
        return jnp.einsum("fg,gmk->fmk", root[..., 0], data)
    return whiten(root, data)


def compress(data: Array) -> Array:
    """f columns (f, f, k) with the same sum of squares as m (f, m, k), whatever linear map is applied: L of data = L Q.

    Equal noise and spectra within a cell make the likelihood a function of them alone; unlike the covariance of the
    data they lose no digits.
    """
    upper = jnp.linalg.qr(jnp.moveaxis(data, 2, 0).swapaxes(1, 2), mode="r")
    return jnp.moveaxis(upper.swapaxes(1, 2), 0, 2)


def observed_at(sky: Sky, pixels: Int[Values, "m k"]) -> tuple[Array, Array]:
    """Take (data (s, f, t, m, k), root) of these pixels set by set, within a program; t as in the largest set."""
    most = max(map(len, sky.sets))
    parts = []
    for members in sky.sets:
        part = jnp.asarray(sky.data)[:, np.array(members)][:, :, pixels]
        parts.append(jnp.pad(part, ((0, 0), (0, most - len(members)), (0, 0), (0, 0))))
    its = [root if root.shape[-1] == 1 else jnp.asarray(root)[..., pixels[0]] for root in sky.roots_of_sets()]
    return jnp.stack(parts), jnp.stack(jnp.broadcast_arrays(*its))


def white_pair(found: tuple[Array, Array], root: Array) -> tuple[Float[Array, "s f c _"], Float[Array, "s f b _"]]:
    """Columns and their derivatives, for the noise of each set."""
    columns, moved = (jax.vmap(whiten, (0, None))(root, x) for x in found)
    return columns, moved


class SkyDataset(AbstractDataset):
    """Hold whitened maps in k cells, as a data set that `jaxsci.fit` and every solver takes with a `MixingMatrix`.

    All pixels of a cell share the spectral parameters and the noise. `SkyDataset.of` makes one of a checked `Sky`.

    - `nu`: frequencies in GHz, or `Bands`.
    - `data`: R d (s, e, m, k): s sets of Stokes parameters that have the same noise, e = f channels, m columns in each
      of k cells; a set with fewer columns has zeros in the rest. Where channels have angles there is one set, and e
      counts the channels of all Stokes parameters. `root`: R with R^T R = N^-1, 1/sigma (s, e, q) or a matrix
      (s, e, e, q) for correlated channels; q is 1, or k where the noise differs. Zeros mask channels.
    - `count`: how many pixels of each set a cell has. (Their data may be fewer columns that say the same.)
    - `names`, `index`: which element of each parameter that is a map each cell has; its own, where nothing is said. In
      soft patches they are several (q, k), whose mean with the weights `share` it has.
    - `marginal`: integrate amplitudes out instead of maximising over them: log |A^T N^-1 A| / 2 a pixel more. The
      profile likelihood is what fgbuster has; it is biased where the signal is weak.
    """

    nu: Frequencies  # type: ignore[misc]
    data: Float[Array, "s e m k"]  # type: ignore[misc]
    root: Float[Array, "s e q"] | Float[Array, "s e e q"]  # type: ignore[misc]
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
        data: Float[Array, "s e m k"],
        root: Array,
        *,
        index: Mapping[str, Array] | None = None,
        count: Array | None = None,
        marginal: bool = False,
        share: Mapping[str, Array] | None = None,
    ):
        self.nu, self.data, self.root = nu, data, root
        s, _, m, k = data.shape
        self.count = jnp.full((s, k), float(m), data.dtype) if count is None else count
        self.names = tuple(index or ())
        self.index = tuple((index or {}).values())
        self.share = tuple((share or {}).get(name) for name in self.names)
        self.mask = jnp.ones(data.size, bool)
        self.noise = White(jnp.ones(()))
        self.marginal = marginal

    @staticmethod
    def of(
        sky: Sky,
        pixels: Int[Values, "m k"] | None = None,
        *,
        index: Mapping[str, Array] | None = None,
        share: Mapping[str, Array] | None = None,
        marginal: bool = False,
    ) -> "SkyDataset":
        """Whiten the maps of a checked sky, with the pixels of each cell side by side.

        **Arguments:** `pixels`: of each of k cells as many as m, -1 where it has fewer; by default every used pixel is
        a cell. `index`, `share`, `marginal`: as in `SkyDataset`.
        """
        pixels = np.flatnonzero(sky.used)[None] if pixels is None else pixels
        filled = jnp.asarray(pixels) >= 0
        data, root = observed_at(sky, jnp.maximum(pixels, 0))
        data = jnp.where(filled[None, None, None], data, 0)
        data = data.reshape(*data.shape[:2], -1, data.shape[-1])
        sizes = jnp.array([float(len(members)) for members in sky.sets], data.dtype)
        count = sizes[:, None] * jnp.sum(filled, axis=0).astype(data.dtype)[None]
        return SkyDataset(sky.nu, whitened(data, root), root, index=index, count=count, marginal=marginal, share=share)

    def residual(self, model: MixingMatrix) -> Float[Array, " n"]:
        """Compute -(1 - P) d, whitened: the model of greatest likelihood for these spectra, less the data."""
        columns, _ = self.spectra(model, ())

        def one(data: Array, root: Array) -> Array:
            white = whiten(root, columns)
            amplitude = Solved.of(Moments.of(white, white[:, :0], data)).amplitude
            return explained(white, amplitude) - data

        return jax.vmap(one)(self.data, self.root).ravel()

    def finite(self) -> Flag:
        return jnp.all(jnp.isfinite(self.data)) & jnp.all(jnp.isfinite(self.root))

    def spectra(self, model: MixingMatrix, free: Sequence[str]) -> tuple[Float[Array, "f c _"], Float[Array, "f b _"]]:
        """Evaluate the columns of the mixing matrix and their derivatives, in the order of `derivatives_of`.

        The last axis is k, or 1 where none of them varies.
        """
        columns: list[Array] = []
        moved: list[Array] = []
        maps = self._elements()
        for label, component in zip(model.names, model.components, strict=True):
            wanted = [name.removeprefix(f"{label}.") for name in free if name.startswith(f"{label}.")]
            local = {name.removeprefix(f"{label}."): i for name, i in maps.items() if name.startswith(f"{label}.")}
            values, partials = _component(component, self.nu, wanted, local)
            moved.extend(partial[:, j] for partial in partials for j in range(partial.shape[1]))
            columns.extend(values[:, j] for j in range(values.shape[1]))
        both = jnp.stack(jnp.broadcast_arrays(*columns, *moved), axis=1)
        c = len(columns)
        if model.calibration is None:
            return both[:, :c], both[:, c:]
        here = {name.removeprefix(f"{CALIBRATION}."): at for name, at in maps.items()}
        return _calibrated(model.calibration, both[:, :c], both[:, c:], self.stokes, _calibrating(free), here)

    @property
    def stokes(self) -> int:
        """How many Stokes parameters the channels are of: 1, but where angles of polarisation mix them."""
        return self.data.shape[1] // channel_count(self.nu)

    def sums(self, at: Any, y: Float[Array, " p"], likelihood: AbstractLikelihood, derivatives: bool) -> PyTree | None:
        if not isinstance(likelihood, AbstractNoise):
            return None
        where = {name: leaf.astype(int) for name, leaf in leaf_values(at.places)} if derivatives else {}
        cells = self.cells(at.model(y), tuple(where))
        cost = jnp.sum(cells.cost)
        if not derivatives:
            return cost, 2 * cost[None, None]
        maps = self._elements()
        lanes = [_Lanes(place) if place.ndim == 0 else _Lanes.of(place, *maps[name]) for name, place in where.items()]
        p = y.shape[0]
        # one matrix of (parameters, residual): information, gradient and chi2 are blocks of it, as of J^T J
        total = jnp.zeros((p + 1, p + 1), y.dtype).at[p, p].set(2 * cost)
        for i, place in enumerate(lanes):
            total = _add(total, place, _Lanes(jnp.array(p)), cells.grad[i])
            for j, other in enumerate(lanes[: i + 1]):
                total = _add(total, place, other, cells.gram[i, j] * (0.5 if i == j else 1))
        return cost, total

    def _elements(self) -> dict[str, tuple[Array, Array | None]]:
        """(element, share) of each parameter that is a map."""
        return dict(zip(self.names, zip(self.index, self.share, strict=True), strict=True))

    def cells(self, model: MixingMatrix, free: Sequence[str]) -> CellSums:
        """Sum up what the data of each cell say by themselves of its own free parameters.

        **Arguments:** `model`: the spectra; parameters may have a value for each cell. `free`: names.

        **Returns:** cost (k,), gradient (p, k) and information (p, p, k) of each cell.
        """
        # a program of its own: a fit and its derivatives ask for it a dozen times, and it is traced once
        return compiled(_cells, (self, model), (tuple(free),))


def _cells(sky: SkyDataset, model: MixingMatrix, free: tuple[str, ...]) -> CellSums:
    def spectra(model: MixingMatrix) -> tuple[Array, Array]:
        return sky.spectra(model, free)

    places, found = derivatives_of(model, free, sky.stokes), apart(spectra, model)
    data, count = sky.data, sky.count if sky.marginal else None
    columns, moved = apart(white_pair, found, sky.root)
    moments = apart(jax.vmap(Moments.of), columns, moved, data)
    solved = apart(jax.vmap(Solved.of), moments)
    finish = functools.partial(sums_of_cells, places, len(free))
    projected = apart(jax.vmap(Projected.of), columns, moved, data, moments.side, solved.parts)
    parts = apart(jax.vmap(finish), projected, solved, count)
    parts = parts._replace(cost=parts.cost + apart(jax.vmap(square), columns, solved.amplitude, data))
    return jtu.tree_map(lambda x: functools.reduce(jnp.add, x), parts)


def derivatives_of(model: MixingMatrix, free: Sequence[str], stokes: int = 1) -> Derivatives:
    """Which parameter and column each derivative of `SkyDataset.spectra` belongs to."""
    labels = [name.split("[")[0] for name in model.columns]
    c = len(labels)
    of_spectra = [
        (i, t * c + j)
        for t in range(stokes)
        for label in model.names
        for i, name in enumerate(free)
        if name.startswith(f"{label}.")
        for j, owner in enumerate(labels)
        if owner == label
    ]
    # a gain or an angle moves all columns
    return of_spectra + [
        (free.index(f"{CALIBRATION}.{name}"), j) for name in _calibrating(free) for j in range(stokes * c)
    ]


def _calibrating(free: Sequence[str]) -> list[str]:
    """The free gains and angles, by their names within the calibration."""
    return [name.removeprefix(f"{CALIBRATION}.") for name in free if name.startswith(f"{CALIBRATION}.")]


def _calibrated(
    calibration: Calibration,
    columns: Float[Array, "f c _"],
    moved: Float[Array, "f b _"],
    stokes: int,
    free: Sequence[str],
    index: Mapping[str, tuple[Array, Array | None]],
) -> tuple[Float[Array, "sf sc _"], Float[Array, "sf q _"]]:
    """Columns and derivatives as the channels read them, with the derivatives by these gains and angles after those."""
    f = columns.shape[0]
    check_channels(calibration, f)
    found = dict(leaf_values(calibration))
    values = {name: mean(x, *index[name]) if x.ndim and name in index else x for name, x in found.items()}
    none = jnp.zeros(())

    def of_channels(what: str) -> Float[Array, "f _"]:
        rows = [jnp.atleast_1d(values.get(f"{name}.{what}", none)) for name in calibration.names]
        return jnp.stack(jnp.broadcast_arrays(*rows))

    gain, angle = of_channels("gain")[:, None], of_channels("angle")

    def read(sky: Array, slope: bool = False) -> Array:
        return sky if stokes == 1 else turned(sky, angle, stokes, slope)

    seen = gain * columns
    parts = [read(gain * moved)]
    by_gain, by_angle = read(columns), read(seen, slope=True) if stokes > 1 else jnp.zeros_like(seen)
    for name in free:
        label, what = name.rsplit(".", 1)
        its = jnp.tile(jnp.arange(f) == calibration.names.index(label), stokes)
        parts.append(jnp.where(its[:, None, None], by_gain if what == "gain" else by_angle, 0))
    every = jnp.broadcast_arrays(*(part[:, j] for part in (read(seen), *parts) for j in range(part.shape[1])))
    both, wide = jnp.stack(every, axis=1), stokes * columns.shape[1]
    return both[:, :wide], both[:, wide:]


def _component(
    component: AbstractSED, nu: Frequencies, wanted: list[str], index: Mapping[str, tuple[Array, Array | None]]
) -> tuple[Array, list[Array]]:
    """(columns (f, c, k), [derivative with respect to each wanted parameter (f, c, k)])."""
    shapes = dict(leaf_names(component, parameters(component)))
    leaves = dict(leaf_values(component))
    mapped = [name for name, shape in shapes.items() if shape]
    here = {name: mean(leaves[name], *index[name]) for name in mapped if name in index}
    values = {name: jnp.asarray(here.get(name, leaves[name])) for name in shapes}
    moving, rest = eqx.partition(component, free_spec(component, shapes))
    structure = jtu.tree_structure(moving)

    def columns(point: dict[str, Array], nu: Frequencies) -> Array:
        full = eqx.combine(jtu.tree_unflatten(structure, [point[name] for name in shapes]), rest)
        return over_bands(full.columns, nu)

    def one(point: dict[str, Array], nu: Frequencies) -> tuple[Array, list[Array]]:
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
