"""Densities on a grid: finite volumes for the Fokker-Planck equation of dX = b dt + S dW (Ito), with D = S^2 / 2.

The flux through each face between two cells is that of Scharfetter and Gummel (1969) and of Chang and Cooper (1970):
exact where drift and diffusion are constant between two centres, so a stationary state has its Gibbs weights and no
density is negative, however strong the drift. Steps are implicit, one axis after the other, and every linear solve is
made of sums of positive numbers only. Users call `solve_fokker_planck`; games and calibrations call `march` with the
drift of a value function. The matrix of a step is the transpose of that of `_hamilton_jacobi`, which takes rates and
solves from here.
"""

import math
from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float

from ..core import Module, describe, require_kind, suggest, traced, unmasked
from ..evolution import AbstractDiffusion, Additive
from ..fitting import compiled
from ..parallel import require_memory
from ._boundary import Grid

Field = Callable[[Array, Array], Array]
"""A function of time () and of place (d,)."""
Faces = tuple[Float[Array, "..."], ...]
"""For each axis the values at the faces across it: one more than cells along that axis, the wall faces included."""
Times = Float[ArrayLike, " t"] | Sequence[float | int]
"""Times in a row, as an array or a list."""
Scheme = Literal["implicit_euler", "extrapolated"]
"""Of first order in the step, or of second."""
SCHEMES = ("implicit_euler", "extrapolated")
T = TypeVar("T")


# --- linear solves -----------------------------------------------------------------------------------------------


def solve_m_matrix(
    lower: Float[Array, "m *rest"],
    upper: Float[Array, "m *rest"],
    excess: Float[Array, "m *rest"],
    rhs: Float[Array, "m *rest"],
    *,
    columns: bool,
    periodic: bool = False,
) -> Float[Array, "m *rest"]:
    """Solve tridiagonal systems M x = rhs along the first axis, where all but the diagonal of M is 0 or less.

    Row i of M x is b_i x_i - lower_i x_(i-1) - upper_i x_(i+1), with lower, upper >= 0, and the diagonal b follows from
    the sums of the columns of M (or of its rows), `excess` > 0. Given this way, elimination adds and multiplies
    positive numbers only: every element of x has its digits, be it e^-100 and the step 1e12, and no pivot is needed
    (Grassmann, Taksar and Heyman 1985; here by parallel cyclic reduction, Hockney 1965, in log2 m levels). Derivatives
    are those of the solution, by the same solver for M and its transpose.

    **Arguments:** `lower`, `upper`: where not periodic, lower[0] and upper[-1] are 0. `excess`: sums of the columns of
    M, or with `columns=False` of its rows. `rhs`: of any sign; x >= 0 where it is.

    **Returns:** x.
    """

    def product(x: Array) -> Array:
        return _diagonal(lower, upper, excess, columns) * x - lower * _after(x) - upper * _before(x)

    def solve(_: Callable, b: Array) -> Array:
        return _bordered(lower, upper, excess, b, columns) if periodic else _reduce(lower, upper, excess, b, columns)

    def transposed(_: Callable, b: Array) -> Array:
        low, high = _after(upper), _before(lower)
        return _bordered(low, high, excess, b, not columns) if periodic else _reduce(low, high, excess, b, not columns)

    return jax.lax.custom_linear_solve(product, rhs, solve, transposed)


def _after(x: Array) -> Array:
    """x_(i-1) at i, around the ends."""
    return jnp.roll(x, 1, axis=0)


def _before(x: Array) -> Array:
    """x_(i+1) at i, around the ends."""
    return jnp.roll(x, -1, axis=0)


def _diagonal(lower: Array, upper: Array, excess: Array, columns: bool) -> Array:
    return excess + _before(lower) + _after(upper) if columns else excess + lower + upper


def _reduce(lower: Array, upper: Array, excess: Array, rhs: Array, columns: bool) -> Array:
    """Parallel cyclic reduction; `rhs` may have one more axis at its end, of right hand sides."""
    m, many = lower.shape[0], rhs.ndim > lower.ndim
    levels = math.ceil(math.log2(m))
    reach = 2 ** max(0, levels - 1)
    state = jnp.concatenate([jnp.stack([lower, upper, excess]), jnp.moveaxis(rhs, -1, 0) if many else rhs[None]])
    pad = [(0, 0), (reach, reach), *[(0, 0)] * (lower.ndim - 1)]

    def level(s: Array, shift: Array) -> tuple[Array, None]:
        def left(x: Array) -> Array:  # x at i - shift, 0 beyond the end
            return jax.lax.dynamic_slice_in_dim(jnp.pad(x, pad), reach - shift, m, axis=1)

        def right(x: Array) -> Array:
            return jax.lax.dynamic_slice_in_dim(jnp.pad(x, pad), reach + shift, m, axis=1)

        a, c, e = s[0], s[1], s[2]
        # by columns a row's couplings stand in other rows
        b = e + right(s[:1])[0] + left(s[1:2])[0] if columns else e + a + c
        from_left = left(jnp.concatenate([(a / b)[None], ((e * c if columns else e) / b)[None], s[3:] / b[None]]))
        from_right = right(jnp.concatenate([(c / b)[None], ((e * a if columns else e) / b)[None], s[3:] / b[None]]))
        gain = e + from_left[1] + from_right[1] if columns else e + a * from_left[1] + c * from_right[1]
        rest = s[3:] + a[None] * from_left[2:] + c[None] * from_right[2:]
        return jnp.concatenate([jnp.stack([a * from_left[0], c * from_right[0], gain]), rest]), None

    state = jax.lax.scan(level, state, jnp.asarray([2**k for k in range(levels)], int))[0]
    x = state[3:] / state[2:3]
    return jnp.moveaxis(x, 0, -1) if many else x[0]


def _bordered(lower: Array, upper: Array, excess: Array, rhs: Array, columns: bool) -> Array:
    """A ring of cells: all but the last form a chain; Sherman and Morrison's formula would subtract, this adds."""
    inner = slice(0, -1)
    border = jnp.zeros_like(lower[inner]).at[0].set(lower[0]).at[-1].add(upper[-2])  # the last column
    row = jnp.zeros_like(border).at[0].set(upper[-1]).at[-1].add(lower[-1])  # the last row
    a, c = lower[inner].at[0].set(0), upper[inner].at[-1].set(0)
    more = row if columns else border
    x = _reduce(a, c, excess[inner] + more, jnp.stack([rhs[inner], border, excess[inner]], axis=-1), columns)
    pivot = excess[-1] + jnp.sum(excess[inner] * x[..., 1] if columns else row * x[..., 2], axis=0)
    last = (rhs[-1] + jnp.sum(row * x[..., 0], axis=0)) / pivot
    return jnp.concatenate([x[..., 0] + x[..., 1] * last[None], last[None]])


# --- rates at which cells exchange mass --------------------------------------------------------------------------


def bernoulli(z: Float[Array, "..."]) -> Float[Array, "..."]:
    """Evaluate z / (e^z - 1), with all its digits and derivatives at 0 and at any size of z.

    It is 1 - z/2 + z^2/12 - ... near 0, where the quotient and its derivative would lose digits.
    """
    near = jnp.abs(z) < 0.1
    w = jnp.where(near, z, 0)
    w2 = w * w
    series = 1 - w / 2 + w2 / 12 * (1 - w2 / 60 * (1 - w2 / 42 * (1 - w2 / 40)))
    y = jnp.where(near, 1, jnp.abs(z))
    rising = -y / jnp.expm1(-y)  # of -y: never more than e^0 is raised
    return jnp.where(near, series, jnp.where(z > 0, rising * jnp.exp(-y), rising))


class Rates(NamedTuple):
    """How much of a cell's mass goes each way along an axis, per time, with that axis first."""

    up: Float[Array, "m *rest"]
    down: Float[Array, "m *rest"]
    low: Float[Array, " *rest"]
    high: Float[Array, " *rest"]


def rates(drift: Float[Array, "..."], diffusion: Float[Array, "..."], step: Array, walls: Sequence[str]) -> Rates:
    """Rates of Scharfetter and Gummel, from values at the faces along the first axis.

    Through a face up: D/h^2 B(-b h / D), and down: D/h^2 B(b h / D), with the function `bernoulli` B. Where D is 0
    this is upwind. A wall that absorbs is a state of density 0 half a cell away.

    **Arguments:** `drift`: (m + 1, ...), b - dD/dx. `diffusion`: of the same shape. `step`: h. `walls`: what the lower
    and the upper wall do.
    """
    fast, slow = _both_ways(drift, diffusion, step)
    up, down = fast[1:] / step, slow[:-1] / step
    low, high = jnp.zeros_like(up[0]), jnp.zeros_like(up[0])
    if walls[0] == "absorbing":
        low = _both_ways(drift[0], diffusion[0], step / 2)[1] / step
    if walls[1] == "absorbing":
        high = _both_ways(drift[-1], diffusion[-1], step / 2)[0] / step
    if walls[0] != "periodic":
        up, down = up.at[-1].set(0), down.at[0].set(0)
    return Rates(up, down, low, high)


def _peclet(drift: Array, diffusion: Array, gap: Array) -> tuple[Array, Array]:
    """(D, b gap / D)."""
    # a cell Peclet number of 1e4 is upwind to the last digit, so a floor of D there changes nothing and 0 is allowed
    floor = jnp.maximum(jnp.abs(drift) * gap * 1e-4, jnp.finfo(drift.dtype).tiny ** 0.5)
    d = jnp.maximum(diffusion, floor)
    return d, drift * gap / d


def _both_ways(drift: Array, diffusion: Array, gap: Array) -> tuple[Array, Array]:
    """D / gap * B(-+ b gap / D)."""
    d, z = _peclet(drift, diffusion, gap)
    return d / gap * bernoulli(-z), d / gap * bernoulli(z)


def upwind_share(drift: Float[Array, "..."], diffusion: Float[Array, "..."], step: Array) -> Float[Array, "..."]:
    """Find how much of a face's drift acts on the cell below it, w = (B(-z) - 1) / z with z = b h / D; above 1 - w.

    The rate up is D/h^2 + w b/h: half each where diffusion rules, and all on the cell from which the drift leads.
    """
    _, z = _peclet(drift, diffusion, step)
    near = jnp.abs(z) < 0.1
    w = jnp.where(near, z, 0)
    w2 = w * w
    series = 0.5 + w / 12 * (1 - w2 / 60 * (1 - w2 / 42 * (1 - w2 / 40)))
    far = jnp.where(near, 1, z)
    return jnp.where(near, series, (bernoulli(-far) - 1) / far)


# --- a step ------------------------------------------------------------------------------------------------------


def _along(density: Array, rate: Rates, dt: Array, axis: int, step: Array, periodic: bool) -> tuple[Array, Array]:
    """(density after an implicit step along an axis, what went through its faces), p + dt A p = old."""
    old = jnp.moveaxis(density, axis, 0)
    excess = jnp.ones_like(old).at[0].add(dt * rate.low).at[-1].add(dt * rate.high)
    lower, upper = dt * _after(rate.up), dt * _before(rate.down)
    new = solve_m_matrix(lower, upper, excess, old, columns=True, periodic=periodic)
    right, left = rate.up * new, rate.down * new
    inner = right[:-1] - left[1:]
    if periodic:
        first = right[-1:] - left[:1]
        through = jnp.concatenate([first, inner, first])
    else:
        through = jnp.concatenate([-(rate.low * new[0])[None], inner, (rate.high * new[-1])[None]])
    return jnp.moveaxis(new, 0, axis), jnp.moveaxis(dt * step * through, 0, axis)


class _Marched(NamedTuple):
    density: Array
    through: Faces  # mass per area, over the step, in the direction of the axis


def _sweep(density: Array, each: Sequence[Rates], dt: Array, grid: Grid) -> _Marched:
    """Implicit Euler, one axis after the other."""
    faces = []
    for axis, rate in enumerate(each):
        periodic = grid.box.walls_of_axes[axis][0] == "periodic"
        density, through = _along(density, rate, dt, axis, _step(grid, axis, density), periodic)
        faces.append(through)
    return _Marched(density, tuple(faces))


def _step(grid: Grid, axis: int, like: Array) -> Array:
    return grid.step[axis].astype(like.dtype)


def march(density: Float[Array, "*shape"], each: Sequence[Rates], dt: Array, grid: Grid, scheme: Scheme) -> _Marched:
    """Take a density through one step, with rates that are those of the middle of the step.

    "implicit_euler" is positive and keeps the mass, at any step. "extrapolated" is twice two half steps of it less one
    whole step, of second order in dt, the splitting into axes included (Richardson); what this adds to the two half
    steps is a flux through faces, which is limited where it would take more than a cell holds (Zalesak 1979): it is
    positive and keeps the mass too. No linear scheme can be both at any step (Bolley and Crouzeix 1978); this one is
    not linear where a limit is met, which is where a density is not resolved by the step.

    **Arguments:** `density`: means over cells. `each`: for each axis. `dt`: the step.

    **Returns:** the density after the step, and what went through each face, per area.
    """
    if scheme == "implicit_euler":
        return _sweep(density, each, dt, grid)
    whole, half, base = three_steps(lambda p, h: _sweep(p, each, h, grid), lambda marched: marched.density, density, dt)
    through = tuple(a + b for a, b in zip(half.through, base.through))
    extra = tuple(a - b for a, b in zip(through, whole.through))
    return _limited(base.density, through, extra, grid)


def three_steps(
    step: Callable[[Array, Array], T], end: Callable[[T], Array], start: Array, dt: Array
) -> tuple[T, T, T]:
    """Take a whole step, and a half one twice: what Richardson's extrapolation needs.

    A scan, since written out the step would be compiled three times, and its derivative too.

    **Arguments:** `step`: from a state and its length. `end`: the state after what that returns.

    **Returns:** the whole step, the first half, the second.
    """

    def one(last: Array, given: tuple[Array, Array]) -> tuple[Array, T]:
        again, h = given
        made = step(jnp.where(again, last, start), h)
        return end(made), made

    each = (jnp.asarray([False, False, True]), dt * jnp.asarray([1, 0.5, 0.5], start.dtype))
    made = jax.lax.scan(one, start, each)[1]
    whole, half, base = (jax.tree_util.tree_map(lambda x, k=k: x[k], made) for k in range(3))
    return whole, half, base


def _limited(density: Array, through: Faces, extra: Faces, grid: Grid) -> _Marched:
    """Add as much of the extra fluxes as leaves no cell, and no wall's exits, below 0."""
    steps = [_step(grid, axis, density) for axis in range(grid.box.d)]
    leaving = jnp.stack([_outward(flux, axis) / h for axis, (flux, h) in enumerate(zip(extra, steps))])
    share = _share(density, jnp.sum(leaving, axis=0))
    kept = tuple(
        flux * _donor(share, flux, base, axis, grid.box.walls_of_axes[axis][0] == "periodic")
        for axis, (flux, base) in enumerate(zip(extra, through))
    )
    for axis, (flux, h) in enumerate(zip(kept, steps)):
        density = density - _outward(flux, axis) / h
    # what comes in is added last, so that no rounding of it can take a cell below 0
    for axis, (flux, h) in enumerate(zip(kept, steps)):
        density = density + _outward(-flux, axis) / h
    return _Marched(density, tuple(base + flux for base, flux in zip(through, kept)))


def _outward(flux: Array, axis: int) -> Array:
    """What leaves each cell of an axis through its two faces; of minus the flux, what enters."""
    low = jax.lax.slice_in_dim(flux, 0, -1, axis=axis)
    high = jax.lax.slice_in_dim(flux, 1, None, axis=axis)
    return jnp.maximum(high, 0) + jnp.maximum(-low, 0)


def _share(held: Array, leaving: Array) -> Array:
    """How much of what would leave may leave, 0 to 1: a few roundings less than is held."""
    most = held * (1 - 16 * jnp.finfo(held.dtype).eps)
    return jnp.where(leaving > most, most / jnp.where(leaving > 0, leaving, 1), 1)


def _donor(share: Array, flux: Array, base: Array, axis: int, periodic: bool) -> Array:
    """For each face of an axis the share of where the flux comes from: a cell, or what left by a wall before."""
    share, flux, base = (jnp.moveaxis(x, axis, 0) for x in (share, flux, base))
    if periodic:
        below, above = share[-1:], share[:1]
    else:
        below = _share(jnp.maximum(-base[:1], 0), jnp.maximum(flux[:1], 0))
        above = _share(jnp.maximum(base[-1:], 0), jnp.maximum(-flux[-1:], 0))
    chosen = jnp.where(flux > 0, jnp.concatenate([below, share]), jnp.concatenate([share, above]))
    return jnp.moveaxis(chosen, 0, axis)


# --- fields at faces ---------------------------------------------------------------------------------------------


def face_points(grid: Grid, axis: int, dtype: jnp.dtype) -> Float[Array, "... d"]:
    """Find the middles of all faces across an axis, those at the walls included: (..., d)."""
    return _points(grid, dtype, axis)


def cell_points(grid: Grid, dtype: jnp.dtype) -> Float[Array, "... d"]:
    """Find the centres of all cells in the precision of what is computed there: (*shape, d)."""
    return _points(grid, dtype, None)


def _points(grid: Grid, dtype: jnp.dtype, across: int | None) -> Array:
    lines = []
    for axis, m in enumerate(grid.shape):
        at = jnp.arange(m + 1, dtype=dtype) if axis == across else jnp.arange(m, dtype=dtype) + 0.5
        lines.append(grid.box.lower[axis].astype(dtype) + at * grid.step[axis].astype(dtype))
    return jnp.stack(jnp.meshgrid(*lines, indexing="ij"), axis=-1)


def at_points(function: Callable[[Array], Array], points: Float[Array, "... d"]) -> Array:
    """Evaluate a function of one place at many."""
    out = jax.vmap(function)(points.reshape(-1, points.shape[-1]))
    return out.reshape(*points.shape[:-1], *out.shape[1:])


Diffusion = Field | ArrayLike
"""D = S^2 / 2: a number, one for each axis (d,), or a function (t, x) of either."""


class _HalfSquare(Module):
    noise: AbstractDiffusion

    def __call__(self, t: Array, x: Float[Array, " d"]) -> Float[Array, "..."]:
        s = self.noise(t, x)
        return s * s / 2


def tensor_of(noise: AbstractDiffusion) -> Diffusion:
    """D = S^2 / 2 of noise that is a number, or one for each axis; a number where it is the same everywhere."""
    return noise.scale**2 / 2 if isinstance(noise, Additive) else _HalfSquare(noise)


def diffusion_at_faces(diffusion: Diffusion, grid: Grid, t: Array) -> tuple[Faces, Faces]:
    """Evaluate D, and dD/dx across, at the faces of each axis.

    The drift of Ito's equation counts as b - dD/dx in the flux b p - d(D p)/dx = (b - dD/dx) p - D dp/dx.
    """
    values, slopes = [], []
    for axis in range(grid.box.d):
        points = face_points(grid, axis, t.dtype)
        if callable(diffusion):
            value, slope = _with_slope(diffusion, points, t, axis)
        else:
            each = _of_axes(diffusion, grid.box.d, t.dtype)
            value = jnp.broadcast_to(each[axis], points.shape[:-1])
            slope = jnp.zeros_like(value)
        values.append(value)
        slopes.append(slope)
    return tuple(values), tuple(slopes)


def _of_axes(diffusion: ArrayLike, d: int, dtype: jnp.dtype) -> Float[Array, " d"]:
    """One D for each axis."""
    each = jnp.asarray(diffusion, dtype)
    if each.shape not in ((), (1,), (d,)):
        raise ValueError(
            f"the diffusion should be a number, or one for each of {d} axes, but its shape is {each.shape}"
        )
    return jnp.broadcast_to(each, (d,))


def _with_slope(diffusion: Field, points: Array, t: Array, axis: int) -> tuple[Array, Array]:
    d = points.shape[-1]
    unit = jnp.zeros(d, points.dtype).at[axis].set(1)

    def one(x: Array) -> Array:
        def value(y: Array) -> Array:
            return _of_axes(diffusion(t, y), d, t.dtype)[axis]

        return jnp.stack(jax.jvp(value, (x,), (unit,)))

    both = at_points(one, points)
    return both[..., 0], both[..., 1]


def drift_at_faces(drift: Field, grid: Grid, t: Array) -> Faces:
    """Evaluate a drift (t, x) -> (d,) at the faces of each axis, its component across."""

    def one(x: Array) -> Array:
        found = jnp.asarray(drift(t, x), t.dtype)
        if found.size != grid.box.d:
            raise ValueError(f"the drift should have the shape of a place, ({grid.box.d},), but it has {found.shape}")
        return found.reshape(grid.box.d)

    return tuple(at_points(one, face_points(grid, axis, t.dtype))[..., axis] for axis in range(grid.box.d))


def face_shapes(grid: Grid) -> list[tuple[int, ...]]:
    """Shapes of values at the faces across each axis."""
    return [tuple(m + (k == axis) for k, m in enumerate(grid.shape)) for axis in range(grid.box.d)]


def axis_rates(drift: Faces, diffusion: Diffusion, grid: Grid, t: Float[Array, ""]) -> list[Rates]:
    """Find the rates of `rates` for each axis, that axis first, from the drift across its faces."""
    values, slopes = diffusion_at_faces(diffusion, grid, t)
    each = []
    for axis, (b, value, slope) in enumerate(zip(drift, values, slopes)):
        b, value = jnp.moveaxis(b - slope, axis, 0), jnp.moveaxis(value, axis, 0)
        each.append(rates(b, value, grid.step[axis].astype(t.dtype), grid.box.walls_of_axes[axis]))
    return each


# --- the door ----------------------------------------------------------------------------------------------------


class DensityPath(Module):
    """A density on a grid at several times, and what left it.

    - `ts`: the times (t,). `density`: means over cells, (t, *shape), per volume. `mass`: what is still in the box,
      (t,), 1 where no wall absorbs.
    - `exits`: (t, d, 2), what has left through the lower and the upper wall of each axis up to each time; `mass` and
      all exits add up to 1.
    - `grid`: the cells.
    """

    ts: Float[Array, " t"]
    density: Float[Array, "t *shape"]
    mass: Float[Array, " t"]
    exits: Float[Array, "t d 2"]
    grid: Grid

    def moment(self, function: Callable[[Array], Array]) -> Array:
        """Integrate a function of place (d,) over the density, at each time: (t, ...), from values at centres."""
        values = at_points(function, cell_points(self.grid, self.density.dtype))
        return jnp.tensordot(self.density, values, axes=self.grid.box.d) * self.grid.volume.astype(self.density.dtype)


def solve_fokker_planck(
    drift: Field | Sequence[ArrayLike],
    diffusion: Diffusion,
    initial: Float[ArrayLike, "*shape"],
    grid: Grid,
    ts: Times,
    *,
    scheme: Scheme = "extrapolated",
    substeps: int = 1,
) -> DensityPath:
    """Evolve a density by its Fokker-Planck equation, dp/dt = -div(b p) + sum_k d^2(D_k p) / dx_k^2.

    Finite volumes with exponentially fitted fluxes, so no cell is ever negative, at any step and Peclet number, and
    what is lost in the box is counted at a wall. Of second order in the width of cells, where the drift over a cell is
    not large against diffusion, and in the step with `scheme="extrapolated"`.

    **Arguments:**

    - `drift`: b of dX = b dt + S dW (Ito): a function (t, x) of place (d,) to (d,), or for each axis its values at the
      faces across (one more than cells along that axis), with a first axis of times (t, ...) where they change; they
      are linear between the times.
    - `diffusion`: D = S^2 / 2: a number, one for each axis (d,), or a function (t, x).
    - `initial`: means over cells, of the grid's shape; its mass is 1.
    - `grid`: cells, and in its box what the walls do.
    - `ts`: times (t,), increasing; `initial` is at the first.
    - `scheme`: "extrapolated" or "implicit_euler", see `march`. `substeps`: steps from each time to the next.

    **Returns:** a `DensityPath`.

    **Raises:** `ValueError` for wrong shapes, a negative diffusion, an initial density that is negative or whose mass
    is not 1, a drift that is not finite, times that do not increase, and an unknown scheme.
    """
    if scheme not in SCHEMES:
        raise ValueError(f"no scheme {scheme!r}{suggest(scheme, SCHEMES)}: {', '.join(SCHEMES)}")
    require_kind(grid, Grid, "grid", "a Grid(box, shape)")
    p = jnp.asarray(unmasked(initial, "initial"))
    p = p if jnp.issubdtype(p.dtype, jnp.floating) else p.astype(float)
    times = checked_times(ts, p.dtype, substeps)
    check_density(p, grid)
    b = drift if callable(drift) else given_faces(drift, grid, times)
    check_fields(b, diffusion, grid, times)
    return density_path(b, diffusion, p, grid, times, scheme, substeps)


def density_path(
    drift: Field | Faces, diffusion: Diffusion, p: Array, grid: Grid, ts: Array, scheme: Scheme, substeps: int
) -> DensityPath:
    """Evolve a density of which everything has been checked: see `solve_fokker_planck`."""
    check_room(grid, ts.shape[0], p.dtype)
    return compiled(_density_path, (drift, diffusion, p, grid, ts), (scheme, substeps))


def _density_path(
    drift: Field | Faces, diffusion: Diffusion, p: Array, grid: Grid, ts: Array, scheme: Scheme, substeps: int
) -> DensityPath:
    d = grid.box.d
    area = [grid.volume.astype(p.dtype) / _step(grid, axis, p) for axis in range(d)]
    frames = () if callable(drift) else tuple((faces[:-1], faces[1:]) for faces in drift)

    def interval(carry: tuple[Array, Array], given: tuple) -> tuple[tuple[Array, Array], tuple[Array, Array]]:
        start, end, around = given
        dt = (end - start) / substeps

        def step(carry: tuple[Array, Array], k: Array) -> tuple[tuple[Array, Array], None]:
            density, exits = carry
            share = (k + 0.5) / substeps
            t = start + share * (end - start)
            b = (
                drift_at_faces(drift, grid, t)
                if callable(drift)
                else tuple(low + share * (high - low) for low, high in around)
            )
            marched = march(density, axis_rates(b, diffusion, grid, t), dt, grid, scheme)
            return (marched.density, exits + _exits(marched.through, grid, area)), None

        carry = jax.lax.scan(step, carry, jnp.arange(substeps, dtype=ts.dtype))[0]
        return carry, carry

    start = (p, jnp.zeros((d, 2), p.dtype))
    later = jax.lax.scan(interval, start, (ts[:-1], ts[1:], frames))[1]
    density, exits = (jnp.concatenate([x[None], y]) for x, y in zip(start, later))
    mass = jnp.sum(density, axis=tuple(range(1, d + 1))) * grid.volume.astype(p.dtype)
    return DensityPath(ts, density, mass, exits, grid)


def _exits(through: Faces, grid: Grid, area: Sequence[Array]) -> Array:
    """(d, 2): what went out through each wall; a periodic wall is no way out."""
    each = []
    for axis, flux in enumerate(through):
        absorbs = jnp.asarray([wall == "absorbing" for wall in grid.box.walls_of_axes[axis]])
        ends = jnp.moveaxis(flux, axis, 0)
        out = jnp.stack([-jnp.sum(ends[0]), jnp.sum(ends[-1])]) * area[axis]
        each.append(jnp.where(absorbs, out, 0))
    return jnp.stack(each)


# --- what is refused ---------------------------------------------------------------------------------------------


def known(x: Array) -> np.ndarray | None:
    """Take an array to the host to look at it; `None` within a JAX transformation, where nothing is refused.

    On the host, because each operation of JAX by itself is a program to be compiled.
    """
    return None if traced(x) else np.asarray(x)


def checked_times(ts: Times, dtype: jnp.dtype, substeps: int = 1) -> Float[Array, " t"]:
    """Take times as an array that increases, of two or more.

    **Raises:** `ValueError` where they are not, or for less than one step from each to the next.
    """
    times = jnp.asarray(ts, dtype)
    if times.ndim != 1 or times.shape[0] < 2:
        raise ValueError(f"ts should be two times or more, in one row, but its shape is {times.shape}")
    seen = known(times)
    if seen is not None and not np.all(np.diff(seen) > 0):
        raise ValueError("ts should increase from each time to the next")
    if substeps < 1:
        raise ValueError(f"substeps should be 1 or more, but it is {substeps}")
    return times


def check_room(grid: Grid, times: int, dtype: jnp.dtype) -> None:
    """Raise `MemoryError` where a path over these cells and times, and the fields that make it, cannot be held."""
    cells = math.prod(grid.shape)
    size = times * cells * (1 + grid.box.d) * jnp.dtype(dtype).itemsize
    require_memory(size, f"a path of {times} times on {cells} cells", "take fewer times or cells, and more substeps")


def check_density(p: Float[Array, "..."], grid: Grid) -> None:
    """Hold a density to its grid: its shape, no negative cell, mass 1.

    **Raises:** `ValueError` naming what is wrong, and the mass.
    """
    if p.shape != grid.shape:
        raise ValueError(
            f"a density on this grid should have shape {grid.shape}, one mean a cell, but it has {p.shape}"
        )
    seen, corners = known(p), known(grid.box.width)
    if seen is None or corners is None:
        return
    if not np.all(seen >= 0):
        raise ValueError(f"a density should be 0 or more in each cell, but its least value is {np.min(seen):g}")
    mass = float(np.sum(seen, dtype=float) * np.prod(corners) / grid.size)
    if not abs(mass - 1) <= 100 * float(jnp.finfo(p.dtype).eps) ** 0.5:
        raise ValueError(
            f"a density should have mass 1, but its sum times the volume of a cell is {mass:.8g}: divide it by that"
        )


def given_faces(drift: Sequence[ArrayLike], grid: Grid, ts: Float[Array, " t"]) -> Faces:
    """Take values at faces as one array (t, ...) for each axis.

    **Raises:** `ValueError` where a shape is not that of the faces, naming both.
    """
    if not isinstance(drift, Sequence) or isinstance(drift, str):
        raise ValueError(f"the drift should be a function (t, x), or values at faces, but it is {describe(drift)}")
    given = [jnp.asarray(faces, ts.dtype) for faces in drift]
    if len(given) != grid.box.d:
        raise ValueError(f"a drift at faces needs one array for each of {grid.box.d} axes, but there are {len(given)}")
    out = []
    for axis, (faces, shape) in enumerate(zip(given, face_shapes(grid))):
        full = (ts.shape[0], *shape)
        if faces.shape not in (shape, full):
            raise ValueError(
                f"the drift across axis {axis} should have shape {shape} (faces) or {full} (times, faces), but it has "
                f"{faces.shape}"
            )
        out.append(jnp.broadcast_to(faces, full))
    return tuple(out)


def check_fields(drift: Field | Faces, diffusion: Diffusion, grid: Grid, ts: Float[Array, " t"]) -> None:
    """Look at drift and diffusion at the first time, where they are known numbers.

    **Raises:** `ValueError` for a drift that is not finite and a diffusion that is not 0 or more.
    """
    faces, values = compiled(_first_fields, (drift, diffusion, grid, ts))
    for axis, (b, value) in enumerate(zip(faces, values)):
        seen, spread = known(b), known(value)
        if seen is not None and not np.all(np.isfinite(seen)):
            raise ValueError(f"the drift across axis {axis} is not finite at {np.sum(~np.isfinite(seen))} faces")
        if spread is not None and not np.all(spread >= 0):
            raise ValueError(
                f"a diffusion should be 0 or more, D = S^2 / 2, but along axis {axis} it is {np.min(spread):g}"
            )


def _first_fields(drift: Field | Faces, diffusion: Diffusion, grid: Grid, ts: Array) -> tuple[Faces, Faces]:
    """Drift and diffusion at the faces of each axis, at the first time; a drift of no faces is 0."""
    faces = drift_at_faces(drift, grid, ts[0]) if callable(drift) else drift
    values = diffusion_at_faces(diffusion, grid, ts[0])[0]
    return faces or tuple(jnp.zeros(()) for _ in values), values
