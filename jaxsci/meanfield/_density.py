"""Densities of ensembles on a grid, by sums over particles that are evaluated afterwards, with their error bars.

`SpectralKDE` is the one to use: two sums a particle, whatever the bandwidth is and however many cells there are, and
small matrix products for each time at which a density is wanted. `DenseKDE` is the plain sum of kernels that it is
tested against, `BinnedKDE` and `Histogram` are what others use. All are summaries for `evolution.evolve`, all give the
means over the cells of a `Grid`, and all know its walls: a kernel is turned back where particles are, goes on at the
other side of a period, and has a negative image beyond an absorbing wall.
"""

import itertools
import math
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.scipy.special import erf
from jaxtyping import Array, ArrayLike, Bool, Float, Int

from ..core import Flag, Module, Scalar, require_kind, traced
from ..evolution import AbstractSummary, Moments, MomentSums, sum_of
from ._bandwidth import AbstractBandwidth, Fixed, Silverman, Spread, as_bandwidth, cosine_means, root_of
from ._boundary import Grid, Wall

_DEFAULT_NODES = {1: 768, 2: 192, 3: 80}
_DEFAULT_COEFFICIENTS = {1: 384, 2: 128, 3: 64}
_DECAY = 5.0  # exp(-5^2 / 2) of a coefficient is left where the series ends: 6e-7 of the peak
_LINE = 512  # intervals of the lines on which DenseKDE deposits for a rule that reads cosines
_BLOCK = 2**17  # numbers that DenseKDE holds of a block of particles
_EXACT = lax.Precision.HIGHEST  # accelerators would multiply matrices with fewer digits


class Density(Module):
    """A density on a grid at one time; with a leading axis of times where `evolve` returns it.

    - `values`: shape `grid.shape`, means over the cells, in 1 / units of x^d. Their integral is the weight within the
      box over all weight, or over `total` where the summary was given one.
    - `standard_error`: of each value, from the finite number of particles, given their weights. It knows nothing of
      the bias of a bandwidth.
    - `mass`: the sum of all weights. `outside`: that of particles outside of the box (or at nan), which are in no
      value. `n_eff`: (sum w)^2 / sum w^2.
    - `bandwidth`: (d,), the one that was used. `resolved`: False where the rule asked for a narrower one than the
      estimator can draw, which was then used.
    """

    values: Float[Array, "*shape"]
    standard_error: Float[Array, "*shape"]
    mass: Scalar
    outside: Scalar
    n_eff: Scalar
    bandwidth: Float[Array, " d"]
    resolved: Flag


class Tally(Module):
    """The sums of weights w, of w^2, and of the weights outside of the box."""

    weight: Scalar
    square: Scalar
    outside: Scalar


class NodeSums(Module):
    """What `SpectralKDE` and the estimators by cells deposit: weights on nodes or cells, and their tally."""

    nodes: Float[Array, "*nodes"]
    tally: Tally


class KernelSums(Module):
    """What `DenseKDE` deposits: sums over particles of the kernel, its square and its integral, and what rules read."""

    kernel: Float[Array, "*shape"]
    square: Float[Array, "*shape"]
    integral: Scalar
    tally: Tally
    moments: MomentSums
    lines: tuple[Float[Array, " _"], ...]


class AbstractDensity(AbstractSummary):
    """A density on a grid, as a `Density`.

    - `grid`: the cells, and the box with its walls. `total`: the weight that counts as 1; `None`: all there is.
    """

    grid: eqx.AbstractVar[Grid]
    total: eqx.AbstractVar[Scalar | None]


class SpectralKDE(AbstractDensity):
    """A kernel density by the eigenfunctions of the box, from weights that particles share among nodes.

    Each particle shares its weight among the nearest nodes of a fine line along each axis: all that the hot loop does.
    For each time that is kept, the coefficients of those sums follow by one small matrix product an axis (cosines
    between reflecting walls, sines between absorbing ones, both on a period, quarter waves between unequal walls), are
    multiplied by exp(-k^2 h^2 / 2) / sinc(k d / 2)^2, which is the Gaussian kernel with its images less the attenuation
    of the sharing, and give the means over cells by another product. Mass is exact, and the bandwidth free.

    The nodes are felt by a single particle's kernel, whose height is off by at most .083 (d/h)^2 for a distance d
    between nodes and a bandwidth h; with many particles these errors cancel (with 50,000 and the defaults, 1e-5 of the
    peak). With `degree=3` they are .004 (d/h)^4, for twice the time. Values may be below zero by as much.

    **Arguments:**

    - `grid`: the cells.
    - `bandwidth`: a rule, or a number or shape (d,) in the units of x.
    - `nodes`: intervals between nodes along each axis; a number for all axes.
    - `coefficients`: of the series along each axis, fewer than nodes. Nodes and coefficients limit how narrow a kernel
      may be: see `narrowest`.
    - `total`: the weight that counts as 1, such as the sum at the beginning where walls absorb; without one the values
      are the density of what is there.
    - `degree`: of the splines by which weights are shared: 1 (cloud in cell, two nodes an axis) or 3 (four nodes).

    **Raises:** `ValueError` for a given bandwidth below `narrowest`; a rule's is replaced by it, and `Density.resolved`
    is then False.
    """

    grid: Grid
    bandwidth: AbstractBandwidth
    total: Scalar | None
    nodes: tuple[int, ...] = eqx.field(static=True)
    coefficients: tuple[int, ...] = eqx.field(static=True)
    degree: int = eqx.field(static=True)

    def __init__(
        self,
        grid: Grid,
        bandwidth: AbstractBandwidth | ArrayLike = Silverman(),
        nodes: int | Sequence[int] | None = None,
        coefficients: int | Sequence[int] | None = None,
        total: ArrayLike | None = None,
        degree: int = 1,
    ) -> None:
        require_kind(grid, Grid, "grid", "a Grid(box, shape)")
        d = grid.box.d
        self.grid, self.bandwidth, self.total = grid, as_bandwidth(bandwidth), _as_total(total)
        self.nodes = _of_each_axis("nodes", _DEFAULT_NODES.get(d, 32) if nodes is None else nodes, d)
        usual = tuple(min(_DEFAULT_COEFFICIENTS.get(d, 24), n - 1) for n in self.nodes)
        self.coefficients = usual if coefficients is None else _of_each_axis("coefficients", coefficients, d)
        self.degree = degree
        if degree not in (1, 3):
            raise ValueError(f"weights are shared by splines of degree 1 or 3, not {degree}")
        for n, k in zip(self.nodes, self.coefficients):
            if not 1 < k < n:
                raise ValueError(f"{n} nodes carry 2 to {n - 1} coefficients, not {k}")
        self._check_width()

    def _check_width(self) -> None:
        box, d = self.grid.box, self.grid.box.d
        if not isinstance(self.bandwidth, Fixed) or traced((self.bandwidth, box)):
            return
        given, width = np.asarray(self.bandwidth.h), np.asarray(box.upper) - np.asarray(box.lower)
        if given.shape not in ((), (d,)):
            raise ValueError(f"the bandwidth has shape {given.shape}, but there are {d} axes")
        for axis, (h, least) in enumerate(zip(np.broadcast_to(given, d), width * self._narrowest())):
            if h < least * (1 - 1e-6):
                more = math.ceil(self.nodes[axis] * least / h)
                raise ValueError(
                    f"a bandwidth of {h:.4g} on axis {axis} is too narrow for {self.nodes[axis]} nodes and "
                    f"{self.coefficients[axis]} coefficients, which can draw {least:.4g} and more: take nodes="
                    f"{2 * more} and coefficients={more}, or DenseKDE or BinnedKDE"
                )

    def _narrowest(self) -> list[float]:
        """As of a box of width 1."""
        return [max(2 / n, _DECAY / (math.pi * s.waves[-1])) for n, s in zip(self.nodes, self._series())]

    @property
    def narrowest(self) -> Float[Array, " d"]:
        """The least bandwidth of each axis that can be drawn: two distances of nodes, and 5 / the largest k."""
        width = self.grid.box.width
        return width * jnp.asarray(self._narrowest(), width.dtype)

    def _series(self) -> list["Series"]:
        walls = self.grid.box.walls_of_axes
        each = zip(walls, self.grid.shape, self.nodes, self.coefficients)
        return [_series(wall, cells, nodes, count, self.degree) for wall, cells, nodes, count in each]

    def deposit(self, positions: Float[Array, "n d"], weights: Float[Array, " n"]) -> NodeSums:
        """Share the weights among the nodes."""
        return _shared(_placed(self.grid, positions, weights), self.nodes, self.degree)

    def evaluate(self, deposit: NodeSums) -> Density:
        """The density, of the bandwidth that the rule says of these sums."""
        nodes, tally = deposit.nodes, deposit.tally
        found, h = self._bandwidth(deposit)
        raw = self._each("means", self._coefficients(nodes, h))
        square = _along([kernel**2 for kernel in _cell_kernels(self.grid, h)], self._each("cells", nodes))
        return _density(self, Raw(raw, square, jnp.sum(raw) / self.grid.size), tally, h, jnp.all(found >= h))

    def at(self, deposit: NodeSums, points: Float[Array, "p d"]) -> Float[Array, " p"]:
        """The same density at points of the box, instead of means over cells."""
        columns = _in_box(self.grid, points)
        _, h = self._bandwidth(deposit)
        found = self._coefficients(deposit.nodes, h)
        integral = found
        for axis, s in enumerate(self._series()):
            waves, phases, integrals = (jnp.asarray(x, points.dtype) for x in (s.waves, s.phases, s.integrals))
            basis = jnp.cos(jnp.pi * (columns[axis][:, None] * waves[None, :] - phases[None, :]))
            integral = jnp.tensordot(integrals, integral, 1, precision=_EXACT)
            spec = "pk,k...->p..." if axis == 0 else "pk,pk...->p..."
            found = jnp.einsum(spec, basis, found, precision=_EXACT)
        return found * _scale(self, integral, deposit.tally)

    def _bandwidth(self, deposit: NodeSums) -> tuple[Float[Array, " d"], Float[Array, " d"]]:
        """What the rule asks for, and what is used."""
        lines = [Line(n, -float(self.degree // 2), self.degree) for n in self.nodes]
        found = self.bandwidth(_spread(self, deposit, lines))
        return found, jnp.maximum(found, self.narrowest.astype(found.dtype))

    def _coefficients(self, nodes: Float[Array, "*nodes"], h: Float[Array, " d"]) -> Float[Array, "*coefficients"]:
        """Of the smoothed density, on a box of width 1."""
        found = self._each("coefficients", nodes)
        h = h / _width(self.grid, nodes.dtype)
        for axis, s in enumerate(self._series()):
            smoothing = jnp.exp(-((jnp.asarray(np.pi * s.waves, nodes.dtype) * h[axis]) ** 2) / 2)
            found = found * jnp.expand_dims(smoothing, [a for a in range(found.ndim) if a != axis])
        return found

    def _each(self, name: str, x: Float[Array, "..."]) -> Float[Array, "..."]:
        """One of the matrices of the series, along each axis."""
        return _along([jnp.asarray(getattr(s, name), x.dtype) for s in self._series()], x)


class DenseKDE(AbstractDensity):
    """A kernel density as a sum over all pairs of particles and cells: slow, plain, and what others are tested against.

    Kernels have five images along an axis, which is exact to rounding for bandwidths up to a quarter of the box, and to
    3e-4 up to half of it. Of particles only a block is ever in memory.

    **Arguments:** `grid`, `bandwidth`, `total` as of `SpectralKDE`. `mean`: means over the cells; False gives the
    values at their centres, whose sum over cells is the mass only where the cells are narrow.
    """

    grid: Grid
    bandwidth: AbstractBandwidth
    total: Scalar | None
    mean: bool = eqx.field(static=True)

    def __init__(
        self,
        grid: Grid,
        bandwidth: AbstractBandwidth | ArrayLike = Silverman(),
        total: ArrayLike | None = None,
        mean: bool = True,
    ) -> None:
        self.grid, self.bandwidth, self.total = grid, as_bandwidth(bandwidth), _as_total(total)
        self.mean = mean

    @property
    def whole(self) -> bool:
        """A rule has to see all particles before the first kernel is drawn."""
        return not self.bandwidth.given

    def deposit(self, positions: Float[Array, "n d"], weights: Float[Array, " n"]) -> KernelSums:
        """Sum the kernels."""
        placed, shape = _placed(self.grid, positions, weights), self.grid.shape
        moments, lines, tally = self._read(placed)
        h = self._bandwidth(moments, lines, tally) / _width(self.grid, positions.dtype)
        walls = self.grid.box.walls_of_axes

        def drawn(u: Array, weights: Array) -> tuple[Array, Array, Array]:
            if self.mean:
                kernels = [_kernel_means(u[:, a], m, walls[a], h[a]) for a, m in enumerate(shape)]
            else:
                kernels = [_kernel_values(u[:, a], _centres(m, u.dtype), walls[a], h[a]) for a, m in enumerate(shape)]
            whole = [_kernel_means(u[:, a], 1, walls[a], h[a]) for a in range(len(shape))]
            squares = [kernel**2 for kernel in kernels]
            return _paired(weights, kernels), _paired(weights, squares), _paired(weights, whole)

        held = max(math.prod(shape[:-1]), *shape)
        kernel, square, integral = _in_blocks(drawn, placed, held)
        return KernelSums(kernel, square, integral.reshape(()), tally, moments, lines)

    def evaluate(self, deposit: KernelSums) -> Density:
        """The density."""
        h = self._bandwidth(deposit.moments, deposit.lines, deposit.tally)
        found = Raw(deposit.kernel, deposit.square, deposit.integral)
        return _density(self, found, deposit.tally, h, jnp.array(True))

    def at(
        self, positions: Float[Array, "n d"], weights: Float[Array, " n"], points: Float[Array, "p d"]
    ) -> Float[Array, " p"]:
        """The density of particles at any points of the box, instead of means over cells."""
        placed, v = _placed(self.grid, positions, weights), _in_box(self.grid, points)
        moments, lines, tally = self._read(placed)
        h = self._bandwidth(moments, lines, tally) / _width(self.grid, positions.dtype)
        walls = self.grid.box.walls_of_axes

        def drawn(u: Array, weights: Array) -> tuple[Array, Array]:
            kernels = [_kernel_values(u[:, a], v[a], wall, h[a]) for a, wall in enumerate(walls)]
            whole = [_kernel_means(u[:, a], 1, wall, h[a]) for a, wall in enumerate(walls)]
            return jnp.dot(weights, math.prod(kernels), precision=_EXACT), _paired(weights, whole)

        found, integral = _in_blocks(drawn, placed, points.shape[0])
        return found * _scale(self, integral.reshape(()), tally)

    def _read(self, placed: "Placed") -> tuple[MomentSums, tuple[Array, ...], Tally]:
        """What the rule reads of the ensemble, in sums."""
        columns, weights, inside = placed
        lines: tuple[Array, ...] = ()
        if self.bandwidth.reads_cosines:
            lines = tuple(_shared(Placed((u,), weights, inside), (_LINE,), 1).nodes for u in columns)
        moments = Moments(origin=0.5).deposit(placed.u, jnp.where(inside, weights, 0))
        return moments, lines, _tally(weights, sum_of(jnp.where(inside, 0, weights)))

    def _bandwidth(self, moments: MomentSums, lines: tuple[Array, ...], tally: Tally) -> Float[Array, " d"]:
        """In the units of x."""
        statistics = Moments(origin=0.5).evaluate(moments)
        width = _width(self.grid, tally.weight.dtype)
        deviation = width * root_of(jnp.diagonal(statistics.covariance))
        cosines = tuple(cosine_means(line, _LINE, 0.0, 1) for line in lines) or None
        return self.bandwidth(Spread(_n_eff(tally), deviation, width, cosines))


class BinnedKDE(AbstractDensity):
    """A histogram on the grid's cells, each smoothed as if its particles were at the centre.

    Quick for few cells, and exact in mass for any bandwidth: one far below a cell gives the histogram. The density is
    wider than asked for by the variance of a cell, step^2 / 12.

    **Arguments:** as of `SpectralKDE`.
    """

    grid: Grid
    bandwidth: AbstractBandwidth
    total: Scalar | None

    def __init__(
        self,
        grid: Grid,
        bandwidth: AbstractBandwidth | ArrayLike = Silverman(),
        total: ArrayLike | None = None,
    ) -> None:
        self.grid, self.bandwidth, self.total = grid, as_bandwidth(bandwidth), _as_total(total)

    def deposit(self, positions: Float[Array, "n d"], weights: Float[Array, " n"]) -> NodeSums:
        """Add the weights up in the cells."""
        return _shared(_placed(self.grid, positions, weights), self.grid.shape, 0)

    def evaluate(self, deposit: NodeSums) -> Density:
        """Smooth the histogram."""
        h = self.bandwidth(_spread(self, deposit, [Line(m, 0.5, 0) for m in self.grid.shape]))
        kernels = _cell_kernels(self.grid, h)
        raw, square = _along(kernels, deposit.nodes), _along([kernel**2 for kernel in kernels], deposit.nodes)
        return _density(self, Raw(raw, square, jnp.sum(raw) / self.grid.size), deposit.tally, h, jnp.array(True))


class Histogram(AbstractDensity):
    """The weight in each cell over its volume. `Density.bandwidth` is the width of a cell.

    **Arguments:** `grid`, `total` as of `SpectralKDE`.
    """

    grid: Grid
    total: Scalar | None

    def __init__(self, grid: Grid, total: ArrayLike | None = None) -> None:
        self.grid, self.total = grid, _as_total(total)

    def deposit(self, positions: Float[Array, "n d"], weights: Float[Array, " n"]) -> NodeSums:
        """Add the weights up in the cells."""
        return _shared(_placed(self.grid, positions, weights), self.grid.shape, 0)

    def evaluate(self, deposit: NodeSums) -> Density:
        """Divide by the volume of a cell."""
        size, tally = self.grid.size, deposit.tally
        found = Raw(deposit.nodes * size, deposit.nodes * size**2, tally.weight - tally.outside)
        return _density(self, found, tally, self.grid.step.astype(deposit.nodes.dtype), jnp.array(True))


# --- particles in the box ------------------------------------------------------------------------------------------


class Placed(NamedTuple):
    """Particles as of a box of width 1: their places along each axis, weights, and which of them are inside."""

    columns: tuple[Float[Array, " n"], ...]
    weights: Float[Array, " n"]
    inside: Bool[Array, " n"]

    @property
    def u(self) -> Float[Array, "n d"]:
        """The places."""
        return jnp.stack(self.columns, axis=1)


def _width(grid: Grid, dtype: jnp.dtype) -> Float[Array, " d"]:
    return grid.box.width.astype(dtype)


def _in_box(grid: Grid, points: Float[Array, "n d"]) -> tuple[Float[Array, " n"], ...]:
    d, dtype = grid.box.d, points.dtype
    if points.shape[1] != d:
        raise ValueError(f"positions have {points.shape[1]} axes, but the grid has {d}")
    # a division for each particle would be as dear as adding its weight up
    lower, per_width = grid.box.lower.astype(dtype), 1 / _width(grid, dtype)
    return tuple((points[:, axis] - lower[axis]) * per_width[axis] for axis in range(d))


def _placed(grid: Grid, positions: Float[Array, "n d"], weights: Float[Array, " n"]) -> Placed:
    """Particles outside of the box, and at nan, are put at its centre."""
    lower, upper = (x.astype(positions.dtype) for x in (grid.box.lower, grid.box.upper))
    columns, inside = [], jnp.ones(weights.shape, bool)
    for axis, u in enumerate(_in_box(grid, positions)):
        x = positions[:, axis]
        if grid.box.walls_of_axes[axis][0] == "periodic":
            here, u = jnp.isfinite(x), u - jnp.floor(u)
        else:
            # corners are compared as they are: a place at the wall may be rounded to beyond 1
            here = (x >= lower[axis]) & (x <= upper[axis])
        columns.append(jnp.where(here, u, 0.5))
        inside &= here
    return Placed(tuple(columns), weights, inside)


def _tally(weights: Float[Array, " n"], outside: Scalar) -> Tally:
    return Tally(sum_of(weights), sum_of(weights * weights), outside)


def _n_eff(tally: Tally) -> Scalar:
    return tally.weight**2 / jnp.where(tally.square > 0, tally.square, 1)


_SPLINES = {
    0: ((1.0,),),
    1: ((1.0, -1.0), (0.0, 1.0)),
    3: (
        (1 / 6, -1 / 2, 1 / 2, -1 / 6),
        (2 / 3, 0.0, -1.0, 1 / 2),
        (1 / 6, 1 / 2, 1 / 2, -1 / 2),
        (0.0, 0.0, 0.0, 1 / 6),
    ),
}
"""By degree: the share of each of the nodes around a particle that is a fraction f of the way from one to the next, as
factors of 1, f, f^2, f^3."""


def _shared(placed: Placed, intervals: tuple[int, ...], degree: int) -> NodeSums:
    """The weights, each shared by B-splines of a degree among the nearest nodes of each axis.

    Nodes are at j / intervals, the walls included, and one more beyond each wall for degree 3; of degree 0 they are
    cells.
    """
    d, size = len(intervals), math.prod(intervals)
    place: Int[Array, " n"] | int = 0
    fractions = []
    for u, m in zip(placed.columns, intervals):
        s = u * m
        # whole numbers that are inside for certain: the sums below then need not look
        i = jnp.clip(s.astype(jnp.int32), 0, m - 1)
        place = place * m + i
        fractions.append(s - i.astype(s.dtype))
    # one more place than there are, for the weight outside
    place = jnp.where(placed.inside, place, size)
    # sums of w and of w f between two nodes give their shares afterwards: independent sums at one place take a CPU half
    # the time of sums at neighbouring places of one array
    sums = []
    for powers in itertools.product(range(degree + 1), repeat=d):
        term = placed.weights
        for f, power in zip(fractions, powers):
            term = term * f**power if power else term
        sums.append(jnp.zeros(size + 1, term.dtype).at[place].add(term, mode="promise_in_bounds"))
    nodes = jnp.stack([each[:-1] for each in sums]).reshape((degree + 1,) * d + intervals)
    for _ in range(d):  # each time the first axis of powers goes, and that of its nodes comes last
        first = nodes.ndim - 1 - d
        shares = [
            jnp.pad(sum(c * nodes[p] for p, c in enumerate(row) if c), _beside(nodes.ndim - 1, first, k, degree - k))
            for k, row in enumerate(_SPLINES[degree])
        ]
        nodes = shares[0] if len(shares) == 1 else jnp.sum(jnp.stack(shares), axis=0)
        nodes = jnp.moveaxis(nodes, first, -1)
    return NodeSums(nodes, _tally(placed.weights, sums[0][-1]))


def _beside(ndim: int, axis: int, before: int, after: int) -> list[tuple[int, int]]:
    return [(before, after) if a == axis else (0, 0) for a in range(ndim)]


class Line(NamedTuple):
    """Nodes of an axis of width 1: at (j + start) / intervals, with weights shared by splines of a degree."""

    intervals: int
    start: float
    degree: int


def _spread(of: "SpectralKDE | BinnedKDE", deposit: NodeSums, lines: Sequence[Line]) -> Spread:
    """What a rule reads, from the sums on nodes."""
    nodes, width = deposit.nodes, _width(of.grid, deposit.nodes.dtype)
    marginals = [jnp.sum(nodes, [b for b in range(nodes.ndim) if b != a]) for a in range(nodes.ndim)]
    deviation = width * jnp.stack([_deviation(sums, line) for sums, line in zip(marginals, lines)])
    cosines = None
    if of.bandwidth.reads_cosines:
        cosines = tuple(cosine_means(sums, *line) for sums, line in zip(marginals, lines))
    return Spread(_n_eff(deposit.tally), deviation, width, cosines)


def _deviation(sums: Float[Array, " m"], line: Line) -> Scalar:
    """The standard deviation of particles, less the variance that sharing their weights has added."""
    x = (jnp.arange(sums.shape[0], dtype=sums.dtype) + line.start) / line.intervals - 0.5
    weight = jnp.sum(sums)
    weight = jnp.where(weight > 0, weight, 1)
    mean = jnp.sum(sums * x) / weight
    return root_of(jnp.sum(sums * (x - mean) ** 2) / weight - (line.degree + 1) / (12 * line.intervals**2))


# --- the series of eigenfunctions ----------------------------------------------------------------------------------


class Series(NamedTuple):
    """cos(pi (wave u - phase)) on [0, 1], as matrices.

    - `waves`, `phases`, `integrals`: of each function.
    - `coefficients`: from weights on nodes, less what sharing has attenuated. `means`: from coefficients to means over
      cells. `cells`: from weights on nodes to the weights in cells.
    """

    waves: np.ndarray
    phases: np.ndarray
    integrals: np.ndarray
    coefficients: np.ndarray
    means: np.ndarray
    cells: np.ndarray


@lru_cache(maxsize=32)
def _series(wall: tuple[Wall, Wall], cells: int, nodes: int, count: int, degree: int) -> Series:
    waves, phases = _waves(wall, count)
    norm = np.where(waves == 0, 1, 2)
    places = np.arange(nodes + degree) - degree // 2
    rise = np.sinc(waves / (2 * nodes)) ** (degree + 1)
    into = _cosines(waves[:, None] * places, phases[:, None], nodes) * (norm / rise)[:, None]
    centres = _cosines(waves * (2 * np.arange(cells)[:, None] + 1), phases, 2 * cells)
    return Series(
        waves,
        phases,
        _cosines(waves, phases, 2) * np.sinc(waves / 2),
        into,
        centres * np.sinc(waves / (2 * cells)),
        _overlaps(places / nodes, 1 / nodes, cells),
    )


def _waves(wall: tuple[Wall, Wall], count: int) -> tuple[np.ndarray, np.ndarray]:
    """The functions that these walls allow: flat at a reflecting one, zero at an absorbing one."""
    i = np.arange(count)
    if wall[0] == "periodic":
        return 2.0 * ((i + 1) // 2), np.where((i > 0) & (i % 2 == 0), 0.5, 0.0)
    first = {("reflecting", "reflecting"): 0.0, ("absorbing", "absorbing"): 1.0}.get(wall, 0.5)
    return i + first, np.full(count, 0.0 if wall[0] == "reflecting" else 0.5)


def _cosines(steps: np.ndarray, phases: np.ndarray, period: int) -> np.ndarray:
    """cos(pi (steps / period - phases)), whose angle is reduced before it is rounded."""
    return np.cos(np.pi * (np.mod(steps, 2 * period) / period - phases))


def _overlaps(places: np.ndarray, width: float, cells: int) -> np.ndarray:
    """Which part of an interval around each place lies in each cell; what is beyond a wall counts to the nearest."""
    edges = np.arange(cells + 1) / cells
    edges[[0, -1]] = -np.inf, np.inf
    low, high = places - width / 2, places + width / 2
    shared = np.minimum(edges[1:, None], high) - np.maximum(edges[:-1, None], low)
    return np.maximum(shared, 0) / width


def _along(matrices: Sequence[Float[Array, "_ _"]], x: Float[Array, "..."]) -> Float[Array, "..."]:
    """A matrix for each axis."""
    for axis, matrix in enumerate(matrices):
        x = jnp.moveaxis(jnp.tensordot(matrix, x, ((1,), (axis,)), precision=_EXACT), 0, axis)
    return x


# --- kernels with their images -------------------------------------------------------------------------------------


def _images(u: Float[Array, " n"], wall: tuple[Wall, Wall]) -> list[tuple[Float[Array, " n"], int]]:
    """The places of a particle and of its images, with their signs."""
    if wall[0] == "periodic":
        return [(u + j, 1) for j in range(-2, 3)]
    low, high = (-1 if word == "absorbing" else 1 for word in wall)
    return [(u, 1), (u - 2, low * high), (u + 2, low * high), (-u, low), (2 - u, high)]


def _kernel_means(u: Float[Array, " n"], cells: int, wall: tuple[Wall, Wall], h: Scalar) -> Float[Array, "n cells"]:
    """The means over cells of each particle's kernel."""
    edges = jnp.arange(cells + 1, dtype=u.dtype) / cells
    z = 1 / (h * math.sqrt(2))
    below = sum(sign * erf((edges[None, :] - place[:, None]) * z) for place, sign in _images(u, wall))
    return jnp.diff(below, axis=1) * (cells / 2)


def _kernel_values(
    u: Float[Array, " n"], points: Float[Array, " p"], wall: tuple[Wall, Wall], h: Scalar
) -> Float[Array, "n p"]:
    """The values of each particle's kernel at points."""
    found = sum(
        sign * jnp.exp(-(((points[None, :] - place[:, None]) / h) ** 2) / 2) for place, sign in _images(u, wall)
    )
    return found / (h * math.sqrt(2 * math.pi))


def _centres(cells: int, dtype: jnp.dtype) -> Float[Array, " cells"]:
    return (jnp.arange(cells, dtype=dtype) + 0.5) / cells


def _cell_kernels(grid: Grid, h: Float[Array, " d"]) -> list[Float[Array, "m m"]]:
    """For each axis, the mean over each cell of the kernel of a particle at the centre of each."""
    h = h / _width(grid, h.dtype)
    return [_cell_kernel(m, wall, h[axis]) for axis, (m, wall) in enumerate(zip(grid.shape, grid.box.walls_of_axes))]


def _cell_kernel(m: int, wall: tuple[Wall, Wall], h: Scalar) -> Float[Array, "m m"]:
    # a kernel is a function of the distance of cells, so that few values fill the matrix
    period = m if wall[0] == "periodic" else 2 * m
    low, high = (-1 if word == "absorbing" else 1 for word in wall)
    edges = jnp.arange(-4 * m, 4 * m + 1, dtype=h.dtype) - 0.5
    z = 1 / (jnp.maximum(h, 1e-3 / m) * (m * math.sqrt(2)))
    folded = jnp.diff(erf(edges * z)).reshape(-1, period) * (m / 2)
    signs = np.resize([1, low * high], folded.shape[0])
    kernel = jnp.sum(folded * jnp.asarray(signs, h.dtype)[:, None], axis=0)
    i, j = np.arange(m)[:, None], np.arange(m)
    if wall[0] == "periodic":
        return kernel[(i - j) % m]
    return kernel[abs(i - j)] + low * kernel[i + j + 1]


def _paired(weights: Float[Array, " n"], kernels: Sequence[Float[Array, "n _"]]) -> Float[Array, "..."]:
    """The sum over particles of weight and product of the kernels, one axis for each."""
    shape = tuple(kernel.shape[1] for kernel in kernels)
    found = weights[:, None]
    for kernel in kernels[:-1]:
        found = (found[:, :, None] * kernel[:, None, :]).reshape(weights.shape[0], -1)
    return jnp.matmul(found.T, kernels[-1], precision=_EXACT).reshape(shape)


def _in_blocks(
    drawn: Callable[[Array, Array], tuple[Array, ...]], placed: Placed, held: int
) -> tuple[Float[Array, "..."], ...]:
    """Sums over particles, a block of them at a time; `held`: numbers that each of them takes."""
    (n,), d = placed.weights.shape, len(placed.columns)
    size = min(n, max(1, _BLOCK // held))
    more = -n % size
    u = jnp.pad(placed.u, ((0, more), (0, 0))).reshape(-1, size, d)
    weights = jnp.pad(jnp.where(placed.inside, placed.weights, 0), (0, more)).reshape(-1, size)

    # a block is drawn anew on the way back, so that derivatives hold no more than one either
    @jax.checkpoint
    def add(sums: tuple[Array, ...], block: tuple[Array, Array]) -> tuple[tuple[Array, ...], None]:
        return tuple(a + b for a, b in zip(sums, drawn(*block))), None

    shapes = jax.eval_shape(drawn, u[0], weights[0])
    zeros = tuple(jnp.zeros(s.shape, s.dtype) for s in shapes)
    return lax.scan(add, zeros, (u, weights))[0]


# --- from sums to densities ----------------------------------------------------------------------------------------


class Raw(NamedTuple):
    """Sums over particles of weight times kernel and of weight times its square, as of a box of width 1, and the
    integral of the first."""

    kernel: Float[Array, "*shape"]
    square: Float[Array, "*shape"]
    integral: Scalar


def _density(of: AbstractDensity, found: Raw, tally: Tally, bandwidth: Float[Array, " d"], resolved: Flag) -> Density:
    n_eff = _n_eff(tally)
    weight = jnp.where(tally.weight > 0, tally.weight, 1)
    # of n independent kernels the mean has the variance of one over n
    variance = (found.square / weight - (found.kernel / weight) ** 2) / jnp.where(n_eff > 0, n_eff, 1)
    scale = _scale(of, found.integral, tally)
    error = root_of(variance) * weight * scale
    return Density(found.kernel * scale, error, tally.weight, tally.outside, n_eff, bandwidth, resolved)


def _scale(of: AbstractDensity, integral: Scalar, tally: Tally) -> Scalar:
    """What sums of kernels are to be multiplied by.

    A kernel's negative image beyond an absorbing wall takes away some weight that is there. What is left is scaled up
    to it, which leaves the lowest mode between two such walls without the bias of a kernel. Without such walls the
    integral is that weight already, but for rounding and for images that were left out.
    """
    total = tally.weight if of.total is None else of.total.astype(tally.weight.dtype)
    scale = 1 / (jnp.where(total > 0, total, 1) * jnp.prod(_width(of.grid, tally.weight.dtype)))
    return scale * (tally.weight - tally.outside) / jnp.where(integral > 0, integral, 1)


def _as_total(total: ArrayLike | None) -> Scalar | None:
    return None if total is None else jnp.asarray(total, float)


def _of_each_axis(name: str, given: int | Sequence[int], d: int) -> tuple[int, ...]:
    found = (given,) * d if isinstance(given, int) else tuple(given)
    if len(found) != d:
        raise ValueError(f"{name} should be one number, or one for each of {d} axes, but there are {len(found)}")
    return found
